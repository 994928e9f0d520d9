"""Pools of plugins: a few instances of one plugin for any number of callers.

Callers may be threads, and tasks of event loops.
"""

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
from .._runtime.recycling import resolve_recycle
from .._runtime.settings import validate_name
from ..errors import OptionError
from .claim import Claim
from .lease import Lease
from .signatures import (
    signature_of_pool_call,
    signature_of_pool_call_async,
    signature_of_pool_map,
    signature_of_pool_map_async,
)
from .slots import POOL_DEFAULT, PoolStats, Slots, check_wait

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Iterable, Mapping
    from typing import Any, Never, TypeVar

    from .._host.functions import Function
    from .._host.thread_call import ThreadCall
    from .._http.egress import Egress
    from .._manifest.limits import Limits
    from .._runtime.argument_types import Observe, PluginInput
    from .._runtime.recycling import Recycle
    from .._wasi.options import WasiOptions
    from .map import AsyncOutputs

    T = TypeVar("T")

__all__ = ["Lease", "PluginPool", "PoolStats"]


class PluginPool(CloseOnExit):
    """Up to `size` plugins of one `CompiledPlugin`, shared by any number of threads and tasks.

    A call is served by any of the plugins that is free. What a plugin keeps (memory, vars, the
    status of its last HTTP response) stays with it from call to call. Use `fresh` for a new
    instance in each call, and `plugin` for several calls on one instance. What a caller changes of
    the plugin itself ends with its lease, also without `fresh`: `update_config`, dumps, profiles,
    cancel handles, views.

    Args:
        plugin: A `CompiledPlugin`, or anything that one can be made of. None if there is a
            `factory`.
        wasi, functions, name, fuel_limit, http_response_headers, limits, egress: As for
            `CompiledPlugin`. An error when `plugin` is one, and except for `name` also when there
            is a `factory`.
        config, observe, recycle: As for `Plugin`, but a plugin that is leased keeps its instance
            until it is given back. An error when there is a `factory`. By default, an instance is
            recycled when it has made 100 calls, has used up half of the memory that its limits let
            it grow by, and still grows; None if no instance is to be recycled.
        size: How many plugins there are at most. By default, the number of processors that this
            process may use.
        wait: Seconds that a caller waits for a plugin at most; None for no limit.
        fresh: Whether each caller gets a new instance, so that nothing of one caller is left for
            the next.
        factory: Makes the plugins, e.g. `lambda: IsolatedPlugin("count_vowels.wasm")`. With `fresh`
            they are reset after each use, and are then as the factory made them.

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
        recycle: Recycle | None = NOT_GIVEN,
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
        if fresh:
            reject_unused_options(
                "each caller gets a new instance (`fresh`)",
                recycle=NOT_GIVEN if recycle is None else recycle,
            )
        if plugin is not None:
            compiled = ensure_compiled(
                CompiledPlugin,
                plugin,
                (wasi, functions, name, fuel_limit, http_response_headers, limits, egress),
            )
            if observe is not None:
                from .._runtime.observers import resolve_observers

                resolve_observers(observe)  # raises here, and not in a call, for what is none
            name = compiled.name
            factory = _plugin_factory(
                compiled, config, observe, None if fresh else resolve_recycle(recycle, compiled)
            )
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
                recycle=NOT_GIVEN if recycle is None else recycle,
            )
        assert factory is not None
        refresh = None if not fresh else _never_refresh if plugin is not None else _reset_plugin
        self._slots = Slots(
            validate_name(name) or "pool", size, wait, factory, refresh, is_shared=plugin is None
        )

    def bind(self, interface: Callable[..., T]) -> T:
        """Return an object with the methods of `interface`, as `Plugin.bind` does.

        Each call of a method takes a plugin of the pool.
        """
        from .._runtime.interfaces import bind

        bound: T = bind(self, interface)
        return bound

    # ---- calling ---------------------------------------------------------------------------------

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
        """Call an export on a plugin that is free.

        Args:
            function_name, data, parse, host_context, options: As for `Plugin.call`. `parse` cannot
                be None.
            wait: As for the pool, but for this call.

        Raises:
            PoolTimeoutError: No plugin became free in time.
            ClosedError: The pool was closed.
            Error: As `Plugin.call`.
        """
        if parse is None:
            raise _view_error()
        slots = self._slots
        wait = slots.wait if wait is POOL_DEFAULT else check_wait(wait)
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
        """Call an export from a task of asyncio or trio; see `call` and `Plugin.call_async`.

        At most as many threads run calls as the pool has plugins.
        """
        from .._runtime.threads import run_in_thread

        if parse is None:
            raise _view_error()
        slots = self._slots
        wait = slots.wait if wait is POOL_DEFAULT else check_wait(wait)
        claim = Claim()
        has_begun = False

        def work(thread_call: ThreadCall) -> Any:
            nonlocal has_begun
            has_begun = True
            try:
                if claim.slot is None:
                    raise slots.closed_error()
                plugin = thread_call.plugin = slots.plugin(claim.slot)
                return plugin.call(function_name, data, parse, host_context, **options)
            finally:
                thread_call.release_plugin()
                try:
                    slots.release(claim)
                finally:
                    claim.is_released = True

        try:
            await slots.acquire_async(claim, wait)
            return await run_in_thread(work)
        finally:
            if not has_begun:
                try:
                    slots.release(claim)
                finally:
                    claim.is_released = True

    def plugin(self, *, wait: float | None = POOL_DEFAULT) -> Lease:
        """Lease a plugin for several calls: `with pool.plugin() as plugin`, or `async with`."""
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
        """Call an export with each input, several at a time, and yield the outputs in order.

        The inputs are read in the caller's thread as outputs are asked for, so they may be endless.
        If the iteration ends early, the calls under way are cancelled and waited for: for one
        second at most where the iterator is closed or dropped.

        Args:
            function_name, options: As for `Plugin.call`.
            inputs: The `data` of each call.
            workers: How many calls run at a time: `size` by default and at most. With 1 they run in
                the caller's thread; with more, short ones do.
            ahead: How many inputs are read at most beyond the outputs that were asked for; by
                default four for each worker.
            return_exceptions: Whether to yield the exception of a call that fails. If not, the
                exception is raised and ends the iteration.
            on_progress: Called before each output is yielded, with the number of outputs so far and
                the total (None if unknown).
            wait: As for the pool, for each of the calls.

        Raises:
            OptionError: An argument is out of range.
        """
        from .map import MapJob, iterate_outputs

        _check_inputs(inputs, "__iter__")
        job = MapJob(
            self, function_name, workers, ahead, return_exceptions, on_progress, wait, options
        )
        return iterate_outputs(job, inputs)

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
        """Call an export with each input from a task of asyncio or trio; see `map`.

        Write `async with pool.map_async(…) as outputs`, and then `async for output in outputs`. The
        calls belong to the block: leaving it cancels those under way, and waits for them. Inputs
        that are slow to come do not hold up outputs.
        """
        from .map import AsyncOutputs, MapJob

        _check_inputs(inputs, "__iter__", "__aiter__")
        return AsyncOutputs(
            MapJob(
                self, function_name, workers, ahead, return_exceptions, on_progress, wait, options
            ),
            inputs,
        )

    # ---- the pool itself -------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The name of the plugin in errors."""
        return self._slots.name

    @property
    def size(self) -> int:
        """How many plugins the pool has at most."""
        return self._slots.size

    @property
    def stats(self) -> PoolStats:
        """The state of the pool at this moment."""
        return self._slots.stats()

    def close(self) -> None:
        """Close the plugins. Closing twice is allowed.

        Calls under way are cancelled, and callers that wait get a `ClosedError`.
        """
        self._slots.close()

    def __reduce__(self) -> str:
        raise TypeError(
            "a PluginPool cannot be copied or pickled: threads can share it; send another process "
            "a PluginRef"
        )

    def __repr__(self) -> str:
        state = ", closed" if self._slots.is_closed else ""
        return f"<PluginPool of {self._slots.size} × {self._slots.name!r}{state}>"


def _plugin_factory(
    compiled: CompiledPlugin,
    config: Mapping[str, str | None] | None,
    observe: Observe,
    recycle: Recycle | None,
) -> Callable[[], Plugin]:
    if config is not None:
        # This raises here, and not in a call, for what is no config.
        merge_config(compiled._spec.config, config)
    return lambda: Plugin(compiled, config=config, observe=observe, recycle=recycle)


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
        "a view would be of memory that the next caller gets: use `with pool.plugin() as plugin` "
        "for it"
    )
