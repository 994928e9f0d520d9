"""The interface and the state that all plugins share, wherever their guest runs.

A plugin is in one of these states:

    new         no instance yet; the first call makes one
    ready       it has an instance and runs nothing
    running     a call is under way
    broken      the last call was unwound, or ran `_start`: the instance is dropped, as in `new`
    closed      for good; a call under way at that moment is cancelled and ends first

Only `_idle` (deleted while a call runs), `_guest` and `_closed` tell them apart. A caller of a
running plugin waits (`_runtime.call_queue`).

Decisions: docs/decisions.md, 40, 45.
"""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from time import monotonic

from .._engine import truncate
from .._host.deadline import NEVER
from .._host.options import describe_value
from .._host.vars import NO_VARS, Vars, check_initial_vars, decode_names
from .._platform.native_threads import get_ident
from ..errors import BusyError, ClosedError, FunctionNotFoundError, OptionError, SignatureError
from .call_queue import QueuedCall, hand_over, holds_self, queued_calls
from .inputs import merge_config
from .linker import is_callable_export
from .signatures import signature_of_call, signature_of_call_async

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType
    from typing import Any, Self, TypeVar
    from uuid import UUID

    import anyio

    from .._engine import Item
    from .._host.codecs import TypedCodec
    from .._host.guest import Guest
    from .._host.vars import VarsByName
    from .argument_types import Observe
    from .compiled_plugin import CompiledPlugin
    from .instrumentation import CallInstrumentation
    from .recycling import Recycle, Recycling

    T = TypeVar("T")

__all__ = ["AbstractPlugin", "CancelHandle", "CloseOnExit", "LeaseSnapshot"]


class CancelHandle:
    """Ends a plugin's calls from another thread: the one under way, and those that wait for it.

    A handle does not keep the plugin alive.
    """

    __module__ = "plugwasm"

    __slots__ = ("_lease", "_plugin")

    def __init__(self, plugin: AbstractPlugin) -> None:
        import weakref

        self._plugin = weakref.ref(plugin)
        self._lease = plugin._hold_lease()

    def cancel(self) -> bool:
        """Cancel the call under way and all calls that wait: they raise `CancelledError`.

        Later calls are not affected, nor are calls of others: a handle of a pool's plugin ends with
        the lease that it was made in.

        Returns:
            False when there is no call to cancel.
        """
        plugin = self._plugin()
        return plugin is not None and plugin._lease is self._lease and plugin._cancel()


class LeaseSnapshot:
    """A plugin's settings when it was lent to a caller, to be restored for the next one.

    Besides its instance, a caller can change nothing else of a plugin. The object's identity names
    the lease.

    Attributes:
        config: The plugin's config.
        post_mortem: What sees its traps.
        is_held: Whether the caller has made something that reaches into the plugin later (a handle,
            a profile). Then the next lease has another `LeaseSnapshot`, by which that sees that its
            time is over.
    """

    __slots__ = ("config", "is_held", "post_mortem")

    def __init__(
        self,
        config: dict[str, str],
        post_mortem: Callable[[BaseException, Guest], None] | None = None,
    ) -> None:
        self.config = config
        self.post_mortem = post_mortem
        self.is_held = False


class CloseOnExit:
    """Mixin for classes whose objects are closed at the end of a `with` or `async with` block."""

    __slots__ = ()

    if TYPE_CHECKING:

        def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        from .threads import require_anyio

        require_anyio()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        from .threads import run_shielded

        await run_shielded(self.close)


class AbstractPlugin(CloseOnExit, metaclass=ABCMeta):
    """Base of `Plugin` and `IsolatedPlugin`: their interface and settings, and one call at a time.

    A subclass runs the calls. Its `__init__` ends with `self._idle = True`, from where on the
    plugin can be called.

    Args:
        compiled: The modules and the settings.
        config, vars, observe, recycle: As for `Plugin`.
    """

    __slots__ = (
        "__weakref__",
        "_awaited",
        "_closed",
        "_config",
        "_fuel_used",
        "_guest",
        "_id",
        "_idle",
        "_initial_vars",
        "_instrumentation",
        "_is_contended",
        "_lease",
        "_queue",
        "_queued_deadline",
        "_recycling",
        "_timeout",
        "_vars",
        "_view",
        "compiled_plugin",
    )

    _guest: Guest | None
    _idle: bool

    def __init__(
        self,
        compiled: CompiledPlugin,
        config: Mapping[str, str | None] | None,
        vars: VarsByName | None,
        observe: Observe,
        recycle: Recycle | None,
    ) -> None:
        self.compiled_plugin: CompiledPlugin = compiled
        self._closed = False
        granted = compiled._spec.config
        self._config: dict[str, str] = granted if config is None else merge_config(granted, config)
        limits = compiled.limits
        self._initial_vars = check_initial_vars(vars, limits) if vars else NO_VARS
        self._vars = Vars(limits.var_bytes, limits.vars, self._initial_vars)
        self._lease: LeaseSnapshot | None = None
        self._fuel_used: int | None = None
        self._guest = None
        self._id: UUID | None = None
        self._view: memoryview | None = None
        timeout = limits.timeout
        self._timeout = NEVER if timeout is None else timeout
        self._queue: list[QueuedCall] = []
        self._awaited: dict[object, int] = {}
        """The calls that tasks await, and the threads of their event loops."""
        self._queued_deadline: tuple[int, float] | None = None
        """The thread and the deadline of a call that had to wait, until it is entered."""
        self._is_contended = False
        self._recycling: Recycling | None = None
        if recycle is not None:
            from .recycling import start_recycling

            self._recycling = start_recycling(self, recycle)
        self._instrumentation: CallInstrumentation | None = None
        if compiled.observers is not None or not (observe is None or observe is False):
            from .observed_plugin import instrument

            self._instrumentation = instrument(self, observe)

    # ---- calling ---------------------------------------------------------------------------------

    @signature_of_call
    @abstractmethod
    def call(
        self,
        function_name: str,
        data: object = b"",
        parse: Callable[[Any], Any] | None = bytes,
        host_context: Any = None,
        returns: Any = ...,
        codec: TypedCodec | None = None,
    ) -> Any:
        """Call an export of the plugin; see `Plugin.call`."""

    @signature_of_call_async
    async def call_async(
        self,
        function_name: str,
        data: object = b"",
        parse: Callable[[Any], Any] | None = bytes,
        host_context: Any = None,
        *,
        limiter: anyio.CapacityLimiter | None = None,
        **options: Any,
    ) -> Any:
        """Call an export as `call` does, for a task of asyncio or trio.

        The guest runs in a thread, and host functions that are `async def` in the task. A task that
        is cancelled cancels the call, and goes on when the guest has ended; a sync host function is
        waited for.

        Args:
            function_name, data, parse, host_context, options: As for `call`. `parse` is called in
                the thread.
            limiter: Bounds the threads; if not given, it is `aio.default_limiter()`.

        Raises:
            BusyError: The call under way waits for this one.
            ImportError: The extra `async` is not installed.
        """
        from .threads import call_plugin

        return await call_plugin(self, limiter, function_name, data, parse, host_context, **options)

    def bind(self, interface: Callable[..., T]) -> T:
        """Return an object whose methods call this plugin's exports.

        See `plugwasm.interfaces.bind`.

        Args:
            interface: A class whose public methods are annotated, e.g. a `typing.Protocol`.

        Raises:
            InterfaceError: The plugin lacks some of the exports.
            TypeError: The interface is no class, or one of its methods cannot stand for an export.
        """
        from .interfaces import bind

        return bind(self, interface)

    def _check_callable(self, function_name: str) -> bool:
        """Check that the export can be called, and return whether it returns a code."""
        if not isinstance(function_name, str):
            raise OptionError(
                "function_name: expected the name of an export, as text, got "
                f"{describe_value(function_name)}",
                field="function_name",
            )
        exports = self.compiled_plugin._plan.main.module.exports
        item = exports.get(function_name)
        where: Any = {"plugin": self.name, "function": function_name}
        if item is None or item.type is None:
            from .._manifest.messages import closest_match

            callable_ = [item.name for item in exports.values() if is_callable_export(item)]
            close = closest_match(function_name, callable_)
            names = [f"`{truncate(name)}`" for name in sorted(callable_)]
            some = ", ".join(names[:20]) + (
                f" and {len(names) - 20} more" if len(names) > 20 else ""
            )
            hint = f"did you mean `{truncate(close)}`?" if close else f"it exports {some or 'none'}"
            raise FunctionNotFoundError(
                f"plugin `{self.name}` exports no function `{truncate(function_name)}`: {hint}",
                **where,
            )
        if not is_callable_export(item):
            raise SignatureError(
                f"export `{truncate(function_name)}` of plugin `{self.name}` is {item.type}, "
                "but only () -> () and () -> (i32) can be called",
                **where,
            )
        return bool(item.type.results)

    # ---- one call at a time ----------------------------------------------------------------------

    def _begin_queued_call(self, queued_call: QueuedCall) -> None:
        """Let the deadline of a call that had to wait hold for the call itself."""
        self._queued_deadline = queued_call.thread, queued_call.deadline

    def _new_deadline(self) -> float:
        """Return the deadline of a call that begins now.

        It is an object of its own, which identifies the call (see `Guest.cancelled`).
        """
        waited, self._queued_deadline = self._queued_deadline, None
        if waited is not None and waited[0] == get_ident():
            return waited[1]
        return monotonic() + self._timeout

    def _release_contended(self) -> None:
        """Hand the plugin over to the next caller that waits, or finish closing it."""
        hand_over(self)
        if self._closed:
            self._drop_if_idle()

    @abstractmethod
    def _cancel(self, thread: int | None = None) -> bool:
        """Cancel the call under way and all that wait, or only those of a thread.

        Returns:
            False when there is no such call.
        """

    @abstractmethod
    def _drop_instance(self) -> None:
        """Let go of the instance. The next call makes a new one."""

    def _leave_signals(self) -> None:
        """Let go of an instance that relies on signals which do not reach the engine any more."""

    @holds_self
    def _drop_if_idle(self) -> bool:
        """Let go of the instance, the vars and a view, unless a call is under way.

        Returns:
            Whether it did.
        """
        try:
            del self._idle
        except AttributeError:
            return False
        try:
            if self._view is not None:
                self._release_view()
            self._vars.restore(self._initial_vars)
            self._drop_instance()
        finally:
            self._idle = True
        if self._is_contended:
            hand_over(self)
        return True

    # ---- recycling -------------------------------------------------------------------------------

    def _begin_recycling(self, recycling: Recycling) -> None:
        """Count the calls of a new instance, which the call under way has made."""
        reason = recycling.begin()
        if reason is not None and self._instrumentation is not None:
            self._instrumentation.call.recycled = reason

    def _look_at_instance(self, recycling: Recycling) -> None:
        """Drop the instance if it is due after this call. A pool does that at the end of a lease.

        The caller owns the plugin.
        """
        recycling.look(self._read_memory)
        if recycling.due is not None and self._lease is None:
            recycling.drop(self)

    @abstractmethod
    def _read_memory(self) -> int | None:
        """Return the bytes of the instance's memory, if that is known."""

    @holds_self
    def _recycle(self) -> bool:
        """Look at the instance, and drop it if it is due or too old, unless a call is under way.

        Returns:
            Whether it did.
        """
        recycling = self._recycling
        try:
            del self._idle
        except AttributeError:
            return False
        try:
            assert recycling is not None
            if self._guest is None:
                return False
            if monotonic() >= recycling.expires:
                recycling.due = "seconds"
            elif recycling.countdown <= 0:
                recycling.look(self._read_memory)
            if recycling.due is None:
                return False
            recycling.drop(self)
            return True
        finally:
            self._idle = True
            if self._is_contended:
                self._release_contended()

    def _release_view(self) -> None:
        view, self._view = self._view, None
        try:
            if view is not None:
                view.release()
        except BufferError:
            pass  # an object made of it, e.g. an array, keeps the memory, so it is safe to read

    def _busy_error(self, function_name: str) -> BusyError:
        return BusyError(
            f"plugin `{self.name}` is running another call, and cannot be entered a second time: "
            "make another Plugin for it",
            plugin=self.name,
            function=function_name,
        )

    def _closed_error(self, function_name: str) -> ClosedError:
        return ClosedError(
            f"plugin `{self.name}` was closed", plugin=self.name, function=function_name
        )

    # ---- the plugin itself -----------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The name of the plugin in errors and logs."""
        return self.compiled_plugin.name

    @property
    def id(self) -> UUID:
        """A random number that tells this plugin from all others."""
        if self._id is None:
            import uuid

            self._id = uuid.uuid4()
        return self._id

    @property
    def exports(self) -> tuple[Item, ...]:
        """The plugin's exports: name, kind, and for functions the type."""
        return self.compiled_plugin.exports

    @property
    def imports(self) -> tuple[Item, ...]:
        """The plugin's imports: module, name, kind, and for functions the type."""
        return self.compiled_plugin.imports

    @property
    def fuel_used(self) -> int | None:
        """The fuel that the last call used; None when there is no fuel limit, or no call yet."""
        return self._fuel_used

    @property
    def config(self) -> dict[str, str]:
        """A copy of the configuration that the plugin can read with `config_get`."""
        return dict(self._config)

    def update_config(self, changes: Mapping[str, str | None]) -> None:
        """Change the configuration, from the next `config_get` on; None removes a key.

        Only this plugin's configuration changes, not that of its compiled plugin.
        """
        config = self._config = merge_config(self._config, changes)
        if self._guest is not None:
            self._guest.config = config

    @property
    def vars(self) -> dict[str, bytes]:
        """A copy of the plugin's vars, as they are now.

        They outlive its instance, but not `reset` and `close`. A name that is not UTF-8 has lone
        surrogates for its bytes: `name.encode("utf-8", "surrogateescape")` returns them.
        """
        return decode_names(self._vars.snapshot())

    def function_exists(self, name: str) -> bool:
        """Return whether the plugin exports a function of that name with a type that can be called.

        These types are `() -> ()` and `() -> (i32)`.
        """
        if not isinstance(name, str):
            raise OptionError(
                f"name: expected the name of an export, as text, got {describe_value(name)}",
                field="name",
            )
        item = self.compiled_plugin._plan.main.module.exports.get(name)
        return item is not None and is_callable_export(item)

    def cancel_handle(self) -> CancelHandle:
        """Return a handle with which another thread can end this plugin's call."""
        return CancelHandle(self)

    def reset(self) -> None:
        """Drop the instance with its memory, and the vars; the next call starts with a new one.

        Raises:
            BusyError: A call is under way.
        """
        if not self._drop_if_idle():
            raise BusyError(
                f"plugin `{self.name}` is running a call, so it cannot be reset", plugin=self.name
            )

    def close(self) -> None:
        """Close the plugin and free what it holds. Closing twice is allowed.

        A call that is under way in another thread is cancelled, and those that wait for it get a
        `ClosedError`.
        """
        self._closed = True
        for queued_call in queued_calls(self):
            queued_call.wake()
        if self._drop_if_idle():
            return
        self._is_contended = True  # so that the call finishes closing it when it ends
        self._drop_if_idle()  # it may have ended just before
        if self._guest is not None:
            self._cancel()

    # ---- leases, for pools -----------------------------------------------------------------------

    def _snapshot(self) -> LeaseSnapshot:
        """Return the settings that the end of a lease restores."""
        return LeaseSnapshot(self._config)

    def _begin_lease(self) -> None:
        """Remember the plugin's settings when it is lent. Call it while no call is under way."""
        self._lease = self._snapshot()
        if self._recycling is not None:
            self._recycling.lend()

    def _hold_lease(self) -> LeaseSnapshot | None:
        """Return the lease under way, and mark it as held; None for a plugin that is not lent.

        It is for objects that reach into the plugin later and must not outlive the lease.
        """
        lease = self._lease
        if lease is not None:
            lease.is_held = True
        return lease

    def _end_lease(self) -> None:
        """Restore the settings that a caller may have changed. Call it while no call is under way.

        The caller's handles, profiles and views have no effect any more.
        """
        lease, guest = self._lease, self._guest
        assert lease is not None
        self._fuel_used = None
        if self._view is not None:
            self._release_view()
        if self._config is not lease.config:
            self._config = lease.config
            if guest is not None:
                guest.config = lease.config
        if lease.is_held:
            if guest is not None:
                guest.sampler = None
            self._lease = self._snapshot()
