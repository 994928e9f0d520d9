"""Pools of plugins: a few instances of one plugin for any number of callers, in threads and in event loops."""

from __future__ import annotations

import os

from .._host.options import (
    NOT_GIVEN,
    REGISTERED,
    check_flag,
    describe_value,
    reject_unknown_arguments,
    reject_unused_options,
)
from .._runtime.abstract_plugin import CloseOnExit
from .._runtime.compiled_plugin import CompiledPlugin, ensure_compiled
from .._runtime.inputs import merge_config
from .._runtime.plugin import Plugin
from .._runtime.settings import validate_name
from ..errors import OptionError
from .signatures import (
    signature_of_pool_call,
    signature_of_pool_call_async,
    signature_of_pool_map,
    signature_of_pool_map_async,
)
from .slots import POOL_DEFAULT, Claim, Lease, PoolStats, Slots, checked_wait

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Iterable, Mapping
    from typing import Any, Never, TypeVar

    from .._host.event_loop import ThreadCall
    from .._host.functions import Function
    from .._http.policy import Egress
    from .._manifest.limits import Limits
    from .._runtime.argument_types import Observe, PluginInput
    from .._wasi.options import WasiOptions
    from .map import AsyncOutputs

    T = TypeVar("T")

__all__ = ["Lease", "PluginPool", "PoolStats"]


class PluginPool(CloseOnExit):
    """Up to `size` plugins made of one `CompiledPlugin`, which take turns in serving calls from any number of threads and tasks.

    Which plugin serves a call is not for the caller to know. What it keeps (memory, vars, the status of its last HTTP response) stays with
    it from call to call; `fresh` does without, and `plugin` gives several calls one instance. What a caller changes of the
    plugin itself ends with its lease, also without `fresh`: `update_config`, dumps, profiles, cancel handles, views.

    Args:
        plugin: A `CompiledPlugin`, or anything that one can be made of. None if there is a `factory`.
        wasi, functions, name, fuel_limit, http_response_headers, limits, egress: As for `CompiledPlugin`; an error when `plugin` is
            one, and but for `name` also when there is a `factory`.
        config, observe: As for `Plugin`; an error when there is a `factory`.
        size: How many plugins there are at most; as many as there are processors for this process if not given.
        wait: Seconds that a caller waits for a plugin at most; None for no limit.
        fresh: Whether each caller gets a new instance, so that nothing of a caller is left for the next one.
        factory: Makes the plugins, e.g. `lambda: IsolatedPlugin("count_vowels.wasm")`. With `fresh` they are reset after each use, and are
            then as the factory gave them.

    Raises:
        Error: As `CompiledPlugin`.
        OptionError: An argument is out of range.
    """

    __module__ = "plugwasm"

    def __init__(
        self,
        plugin: PluginInput | CompiledPlugin | None = None,
        wasi: bool | WasiOptions = NOT_GIVEN,
        config: Mapping[str, str | None] | None = None,
        functions: Iterable[Function] | None = REGISTERED,
        *,
        size: int | None = None,
        wait: float | None = None,
        fresh: bool = False,
        factory: Callable[[], Plugin] | None = None,
        name: str | None = None,
        fuel_limit: int | None = NOT_GIVEN,
        http_response_headers: bool = NOT_GIVEN,
        limits: Limits | None = None,
        egress: Egress | None = None,
        observe: Observe = None,
        **unknown: Never,
    ) -> None:
        if unknown:
            reject_unknown_arguments(PluginPool, unknown)
        if size is None:
            size = _count_processors()
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise OptionError(f"size must be a number of plugins, at least 1, not {size!r}")
        if (plugin is None) == (factory is None):
            raise OptionError("a pool is made of a plugin or of a `factory`, and not of both")
        check_flag("fresh", fresh)
        if plugin is not None:
            compiled = ensure_compiled(
                CompiledPlugin,
                plugin,
                (wasi, functions, name, fuel_limit, http_response_headers, limits, egress),
            )
            if observe is not None:
                from .._runtime.observers import resolve_observers

                resolve_observers(observe)  # refuses what is none, here and not in a call
            name = compiled.name
            factory = _plugin_factory(compiled, config, observe)
        elif not callable(factory):
            raise OptionError(
                f"factory: expected a function that makes a plugin, got {describe_value(factory)}",
                field="factory",
            )
        else:
            reject_unused_options(
                "plugins are made by the `factory`, so give it to what that calls",
                wasi=wasi,
                config=NOT_GIVEN if config is None else config,
                functions=functions,
                fuel_limit=fuel_limit,
                http_response_headers=http_response_headers,
                limits=NOT_GIVEN if limits is None else limits,
                egress=NOT_GIVEN if egress is None else egress,
                observe=NOT_GIVEN if observe is None else observe,
            )
        assert factory is not None
        refresh = None if not fresh else _never_refresh if plugin is not None else _reset_plugin
        self._slots = Slots(
            validate_name(name) or "pool", size, wait, factory, refresh, is_shared=plugin is None
        )

    def bind(self, interface: Callable[..., T]) -> T:
        """As `Plugin.bind`: each call of a method takes a plugin of the pool."""
        from .._runtime.interfaces import bind

        bound: T = bind(self, interface)
        return bound

    # ---- calling --------------------------------------------------------------------------------------------------------------------

    @signature_of_pool_call
    def call(
        self,
        function_name: str,
        data: object = b"",
        parse: Callable[[Any], Any] | None = bytes,
        host_context: Any = None,
        *,
        wait: float | None = POOL_DEFAULT,
        **options: Any,
    ) -> Any:
        """Calls an export, on whichever plugin is free.

        Args:
            function_name, data, parse, host_context, options: As for `Plugin.call`. `parse` cannot be None.
            wait: As for the pool, for this call.

        Raises:
            PoolTimeoutError: No plugin became free in time.
            ClosedError: The pool was closed.
            Error: As `Plugin.call`.
        """
        if parse is None:
            raise _view_error()
        slots = self._slots
        wait = slots.wait if wait is POOL_DEFAULT else checked_wait(wait)
        claim = Claim()
        try:
            slots.acquire(claim, wait)
            assert claim.slot is not None
            return slots.plugin(claim.slot).call(
                function_name, data, parse, host_context, **options
            )
        finally:
            try:
                slots.release(claim)
            finally:
                claim.is_released = True  # no call: it is so whatever a signal handler raises

    @signature_of_pool_call_async
    async def call_async(
        self,
        function_name: str,
        data: object = b"",
        parse: Callable[[Any], Any] | None = bytes,
        host_context: Any = None,
        *,
        wait: float | None = POOL_DEFAULT,
        **options: Any,
    ) -> Any:
        """The same for a task of asyncio or trio; see `Plugin.call_async`. The pool's size bounds the threads."""
        from .._runtime.threads import run_in_thread

        if parse is None:
            raise _view_error()
        lease = Lease(self._slots, wait)
        has_begun = False

        def work(thread_call: ThreadCall) -> Any:
            nonlocal has_begun
            has_begun = True
            try:
                plugin = thread_call.plugin = lease.plugin()
                return plugin.call(function_name, data, parse, host_context, **options)
            finally:
                thread_call.release_plugin()
                lease.release()

        try:
            await lease.acquire_async()
            return await run_in_thread(work)
        finally:
            if not has_begun:
                try:
                    lease.release()
                finally:
                    lease.claim.is_released = True

    def plugin(self, *, wait: float | None = POOL_DEFAULT) -> Lease:
        """One of the plugins for a while, for several calls on one instance: `with pool.plugin() as plugin`, or `async with`."""
        return Lease(self._slots, wait)

    @signature_of_pool_map
    def map(
        self,
        function_name: str,
        inputs: Iterable[Any],
        *,
        workers: int | None = None,
        ahead: int | None = None,
        return_exceptions: bool = False,
        on_progress: Callable[[int, int | None], object] | None = None,
        wait: float | None = POOL_DEFAULT,
        **options: Any,
    ) -> Any:
        """Calls an export with each of the inputs, several at a time, and yields the outputs in the order of the inputs.

        The inputs are read in the caller's thread, as outputs are asked for, so they may be endless. Where the iteration ends early, the
        calls under way are cancelled, and waited for; for a second at most where the iterator is closed or dropped.

        Args:
            function_name, options: As for `Plugin.call`.
            inputs: The `data` of each call.
            workers: How many calls run at a time; `size` if not given, and at most. With 1 they run in the caller's thread; with more,
                short ones do.
            ahead: How many inputs are taken at most beyond the outputs that were asked for; four for each worker if not given.
            return_exceptions: Whether a call that fails yields its exception. If not, that is raised in its place, and ends the iteration.
            on_progress: Called with the number of outputs so far, and how many there will be (None if unknown), before each is yielded.
            wait: As for the pool, for each of the calls.

        Raises:
            OptionError: An argument is out of range.
        """
        from .map import MapJob, iterate_outputs

        _check_inputs(inputs, "__iter__")
        plan = MapJob(
            self, function_name, workers, ahead, return_exceptions, on_progress, wait, options
        )
        return iterate_outputs(plan, inputs)

    @signature_of_pool_map_async
    def map_async(
        self,
        function_name: str,
        inputs: Iterable[Any] | AsyncIterable[Any],
        *,
        workers: int | None = None,
        ahead: int | None = None,
        return_exceptions: bool = False,
        on_progress: Callable[[int, int | None], object] | None = None,
        wait: float | None = POOL_DEFAULT,
        **options: Any,
    ) -> AsyncOutputs[Any]:
        """The same for a task of asyncio or trio: `async with pool.map_async(…) as outputs`, and then `async for output in outputs`.

        The calls belong to the block: leaving it cancels those under way, and waits for them. Outputs are not held up by inputs that are
        slow to come.
        """
        from .map import AsyncOutputs, MapJob

        _check_inputs(inputs, "__iter__", "__aiter__")
        return AsyncOutputs(
            MapJob(
                self, function_name, workers, ahead, return_exceptions, on_progress, wait, options
            ),
            inputs,
        )

    # ---- the pool itself ------------------------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """What errors call the plugin."""
        return self._slots.name

    @property
    def size(self) -> int:
        """How many plugins it has at most."""
        return self._slots.size

    @property
    def stats(self) -> PoolStats:
        """What it is doing right now."""
        return self._slots.stats()

    def close(self) -> None:
        """Closes the plugins. Calls under way are cancelled, and callers that wait get a `ClosedError`. Closing twice is allowed."""
        self._slots.close()

    def __reduce__(self) -> str:
        raise TypeError(
            "a PluginPool cannot be copied or pickled: threads can share it; send another process a PluginRef"
        )

    def __repr__(self) -> str:
        return f"<PluginPool of {self._slots.size} × {self._slots.name!r}{', closed' if self._slots.is_closed else ''}>"


def _plugin_factory(
    compiled: CompiledPlugin, config: Mapping[str, str | None] | None, observe: Observe
) -> Callable[[], Plugin]:
    if config is not None:
        merge_config(compiled._spec.config, config)  # refuses what is none, here and not in a call
    return lambda: Plugin(compiled, config=config, observe=observe)


def _count_processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _never_refresh(plugin: Plugin) -> bool:
    return False


def _reset_plugin(plugin: Plugin) -> bool:
    plugin.reset()
    return True


def _check_inputs(inputs: object, *ways: str) -> None:
    if isinstance(inputs, (str, bytes)) or not any(hasattr(inputs, way) for way in ways):
        hint = (
            f"; write [{'text' if isinstance(inputs, str) else 'data'}] for one"
            if isinstance(inputs, (str, bytes))
            else ""
        )
        raise OptionError(
            f"inputs: expected a list of inputs, got {describe_value(inputs)}{hint}", field="inputs"
        )


def _view_error() -> OptionError:
    return OptionError(
        "a view would be of memory that the next caller gets: use `with pool.plugin() as plugin` for it"
    )
