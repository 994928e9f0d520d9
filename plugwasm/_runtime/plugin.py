"""Plugins that can be called, and the handle that cancels a call.

A plugin is in one of these states:

    new         no instance yet; the first call makes one
    ready       it has an instance and runs nothing
    running     a call is under way
    broken      the last call was unwound, or ran `_start`: the instance is dropped, so this is `new` again
    closed      for good; a call under way at that moment is cancelled and ends first

and `_idle` (there unless running), `_guest` and `_closed` are all that tells them apart. Who calls it while it is running waits
(`_runtime.call_queue`).
"""

from __future__ import annotations

from collections import deque
from sys import getrecursionlimit, modules
from time import monotonic

from .._engine import (
    ArgumentError,
    EngineFailure,
    ExportName,
    HostRaised,
    Store,
    Trap,
    check_recursion_depth,
    check_recursion_depth_to_start,
    is_pool_exhausted,
    is_recursion_error,
    truncate,
)
from .._host import greenlets
from .._host.deadline import NEVER, ticker
from .._host.guest import Guest
from .._host.kernel import INPUT_OFFSET
from .._host.options import NOT_GIVEN, REGISTERED, describe_value, reject_unknown_arguments
from .._host.vars import NO_VARS, Vars, check_initial_vars, decode_names
from .._manifest.messages import check_encodable, closest_match
from .._platform.native_threads import get_ident
from ..errors import BusyError, ClosedError, FunctionNotFoundError, OptionError, SignatureError
from .call_errors import (
    START,
    error_for_failed_start,
    error_for_reported,
    error_for_trap_at_start,
    error_for_unwound,
    no_room_error,
    no_stack_error,
    parse_output,
    read_outcome,
)
from .call_queue import QueuedCall, hand_over, holds_self, is_calling, queued_calls
from .compiled_plugin import CompiledPlugin, ensure_compiled
from .linker import is_callable_export
from .signatures import signature_of_call, signature_of_call_async

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import TracebackType
    from typing import Any, Never, Self, TypeVar
    from uuid import UUID

    import anyio

    from .._engine import Item
    from .._engine import WasmFunction as Entry
    from .._host.codecs import TypedCodec
    from .._host.functions import Function
    from .._host.vars import VarsByName
    from .._http.policy import Egress
    from .._manifest.limits import Limits
    from .._wasi.options import WasiOptions
    from .argument_types import Observe, PluginInput
    from .instrumentation import CallInstrumentation
    from .linker import Plan

    T = TypeVar("T")

__all__ = ["CancelHandle", "Plugin"]

_MASK32 = 0xFFFFFFFF


class CancelHandle:
    """Ends a plugin's calls from another thread: the one under way, and those that wait for it. Holding one does not keep the plugin."""

    __module__ = "plugwasm"

    __slots__ = ("_lease", "_plugin")

    def __init__(self, plugin: Plugin) -> None:
        import weakref

        self._plugin = weakref.ref(plugin)
        self._lease = plugin._hold_lease()

    def cancel(self) -> bool:
        """Makes the call under way end with `CancelledError`, and all that wait for their turn. False when there is none; later calls are
        not affected.

        Nor are calls of others: a handle of a pool's plugin ends with the lease that it was made in.
        """
        plugin = self._plugin()
        return plugin is not None and plugin._lease is self._lease and plugin._cancel()


class LeaseSnapshot:
    """What a plugin was like when it was lent to a caller, to be restored for the next one.

    Besides its instance, a plugin has nothing else that a caller can change. `is_held` when the caller has made something that reaches
    into the plugin later (a handle, a profile): then the next lease has another `LeaseSnapshot`, by which that sees that its time is over.
    """

    __slots__ = ("config", "is_held", "post_mortem")

    def __init__(self, plugin: Plugin) -> None:
        self.config = plugin._config
        self.post_mortem = getattr(plugin, "_post_mortem", None)  # an IsolatedPlugin has none
        self.is_held = False


class CloseOnExit:
    """Mixed into what is closed at the end of a `with` block, or of an `async with` block."""

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


class Plugin(CloseOnExit):
    """A plugin that can be called. It runs one call at a time: another thread that calls it waits for its turn, first come, first served,
    and no longer than its own deadline allows. For calls at the same time, threads need a plugin each (`PluginPool`).

    Args:
        plugin: A `CompiledPlugin`, or anything that one can be made of.
        wasi, functions, name, fuel_limit, http_response_headers, limits, egress: As for `CompiledPlugin`; an error when `plugin` is one.
        config: What the plugin can read with `config_get`, on top of the manifest's; None removes a key.
        vars: What the plugin begins with as its vars, and has again after `reset`. Names are text, or bytes, for they need not be UTF-8.
        observe: As for `CompiledPlugin`, besides what its own says.

    Raises:
        Error: As `CompiledPlugin`.
    """

    __module__ = "plugwasm"

    __slots__ = (
        "__weakref__",
        "_awaited",
        "_closed",
        "_config",
        "_entries",
        "_fuel_limit",
        "_fuel_used",
        "_guest",
        "_has_cleanup",
        "_id",
        "_idle",
        "_initial_vars",
        "_instance",
        "_instrumentation",
        "_is_contended",
        "_kernel_entries",
        "_lease",
        "_post_mortem",
        "_queue",
        "_queued_deadline",
        "_stack",
        "_timeout",
        "_vars",
        "_view",
        "compiled_plugin",
    )

    def __init__(
        self,
        plugin: PluginInput | CompiledPlugin,
        wasi: bool | WasiOptions = NOT_GIVEN,
        config: Mapping[str, str | None] | None = None,
        functions: Iterable[Function] | None = REGISTERED,
        *,
        name: str | None = None,
        fuel_limit: int | None = NOT_GIVEN,
        http_response_headers: bool = NOT_GIVEN,
        limits: Limits | None = None,
        egress: Egress | None = None,
        vars: VarsByName | None = None,
        observe: Observe = None,
        **unknown: Never,
    ) -> None:
        if unknown:
            reject_unknown_arguments(Plugin, unknown)
        plugin = ensure_compiled(
            CompiledPlugin,
            plugin,
            wasi,
            functions,
            name,
            fuel_limit,
            http_response_headers,
            limits,
            egress,
        )
        self.compiled_plugin = plugin
        self._closed = False
        granted = plugin._spec.config
        self._config: dict[str, str] = granted if config is None else merge_config(granted, config)
        self._initial_vars = check_initial_vars(vars, plugin.limits) if vars else NO_VARS
        self._vars = Vars(plugin.limits.var_bytes, plugin.limits.vars, self._initial_vars)
        self._entries: dict[str, tuple[Callable[[], int | None], memoryview, int, Entry]] = {}
        self._kernel_entries: dict[bool, Entry] = {}
        self._lease: LeaseSnapshot | None = None
        self._fuel_limit = plugin.fuel_limit
        self._fuel_used: int | None = None
        self._guest: Guest | None = None
        self._instance: Any = None
        self._id: UUID | None = None
        self._post_mortem: Callable[[BaseException, Guest], None] | None = None
        """Sees the guest of a call that was unwound, and why, before it is freed (`debugging.dump_on_trap`)."""
        timeout = plugin.limits.timeout
        self._timeout = NEVER if timeout is None else timeout
        self._instrumentation: CallInstrumentation | None = instrument(self, observe)
        self._has_cleanup = (
            self._fuel_limit is not None or bool(plugin.wasi) or self._instrumentation is not None
        )
        self._stack = plugin._plan.engine.stack
        self._view: memoryview | None = None
        self._init_queue()

    def _init_queue(self) -> None:
        """The last step of making it."""
        self._queue: deque[QueuedCall] = deque()
        self._awaited: dict[object, int] = {}
        """The calls that tasks await, and the threads of their event loops."""
        self._queued_deadline: tuple[int, float] | None = None
        """The deadline of the call of a thread that had to wait, until it is entered."""
        self._is_contended = False
        self._idle = True

    # ---- calling --------------------------------------------------------------------------------------------------------------------

    @signature_of_call
    @holds_self
    def call(
        self,
        function_name: str,
        data: object = b"",
        parse: Callable[[Any], Any] | None = bytes,
        host_context: Any = None,
        # To be given by name, but not declared so: that would add 2 % to a small call.
        returns: Any = ...,
        codec: TypedCodec | None = None,
    ) -> Any:
        """Calls an export of the plugin.

        Args:
            function_name: The name of the export.
            data: The input: text (sent as UTF-8), bytes or any object with the buffer protocol (as they are), anything else as JSON.
            parse: Makes the result of the output, which it gets as bytes; the bytes themselves if not given. None for a read-only view of
                the plugin's memory, without a copy; it can be used until the plugin's next call.
            host_context: Any object; host functions find it in `CurrentPlugin.host_context`.
            returns: The type of the result, instead of `parse`: str for UTF-8 text, bytes as they are, anything else from JSON.
                `type(None)` for an output that is empty or `null`.
            codec: Makes the input of `data`, and with `returns` the result of the output, whatever their types (`plugwasm.codecs`). Empty
                bytes remain an empty input.

        Returns:
            The output, as `parse` made it, or a value of the type that `returns` says.

        Raises:
            FunctionNotFoundError, SignatureError: There is no such export, or it cannot be called.
            OutputError: The output is not what `returns` says.
            TypeError: `data` cannot be sent, or nothing can be converted to `returns`.
            BusyError: It is called from inside of a call of it, and would wait for itself; or another greenlet of the thread is in a call.
            TimeoutError: Its deadline passed, also while it waited for another call to end: then it has not begun.
            ClosedError: The plugin was closed.
            GuestError: The guest reported an error.
            TrapError, ExitError, CancelledError, OutOfMemoryError, OutOfFuelError, HostFunctionError: It was ended.
        """
        if returns is not ... or codec is not None:
            from .._host.codecs import prepare_typed_call

            data, parse = prepare_typed_call(function_name, data, parse, returns, codec, self.name)
        try:
            # The lock of a plugin: deleting an attribute is atomic, and unlike a call cannot be parted from the `try` by a signal handler.
            del self._idle
        except AttributeError:
            queued_call = QueuedCall(self, self, function_name)
            try:
                queued_call.wait()
            except BaseException:
                try:
                    del queued_call.is_pending
                except AttributeError:
                    self._idle = True  # it was this call's already
                hand_over(self)
                raise
        guest = self._guest
        try:
            running, measured = ticker.running, self._stack.measurement
            if (
                len(running) >= measured.call_depth
                or getrecursionlimit() > measured.recursion_limit
                or "greenlet" in modules
            ):
                self._check_stack(guest, function_name)
            if guest is not None:
                guest.cancelled = False
                guest.deadline = monotonic() + self._timeout
            if guest is None or function_name not in self._entries:
                guest = self._prepare(function_name, host_context)
            if type(data) is not bytes:
                try:
                    data = data.encode() if isinstance(data, str) else encode_input(data)
                except UnicodeEncodeError as reason:
                    from .._host.codecs import unencodable_input_error

                    raise unencodable_input_error(reason, self.name, function_name) from None
            if self._view is not None:
                self._release_view()
            invoke, values, target, entry = self._entries[function_name]
            length = len(data)
            kernel = guest.kernel
            if host_context is not None:
                guest.host_context = host_context
            if self._fuel_limit is not None:
                self._refill_fuel(guest)
            try:
                # As `_enter`, without the price of a call.
                running[guest] = guest.deadline
                if ticker.next_check >= guest.deadline:
                    ticker.wake()
                if self._closed:
                    raise self._closed_error(function_name)
                if length > kernel.capacity:
                    self._reserve(guest, function_name, length)
                kernel.heap[INPUT_OFFSET : INPUT_OFFSET + length] = data
                values[0] = target
                values[2] = length
                check_recursion_depth()
                try:
                    error = invoke()
                except BaseException:
                    self._drop_instance()  # of a signal handler, right after the call: how that ended nobody will know
                    raise
            finally:
                running.pop(guest, None)
            if error or values[0]:
                self._raise_failure(guest, function_name, entry, error)
            offset = values[2]
            end = offset + values[4]
            if end > len(kernel.heap):
                kernel.refresh()
            if parse is None:
                self._view = kernel.heap[offset:end].toreadonly()
                return self._view
            output = kernel.heap[offset:end].tobytes()
            return (
                output
                if parse is bytes
                else parse_output(
                    parse, output, guest.deadline, self.compiled_plugin, function_name
                )
            )
        finally:
            try:
                if guest is not None and (
                    self._has_cleanup or host_context is not None or function_name == "_start"
                ):
                    self._clean_up_call(guest, function_name)
            finally:
                self._idle = True
                if self._is_contended:
                    self._release_contended()

    def _release_contended(self) -> None:
        """Sees to what others have asked for while a call was under way."""
        hand_over(self)
        if self._closed:
            self._drop_if_idle()

    def _check_stack(self, guest: Guest | None, function_name: str) -> None:
        """Raises if no guest may be entered from here."""
        try:
            if not self._stack.has_room():
                raise no_stack_error(self.name, function_name, self._stack)
            greenlets.check_greenlet(self, function_name)
        except BaseException:
            self._queued_deadline = None
            raise
        if guest is not None:
            guest.greenlet = greenlets.current_greenlet()

    def _new_deadline(self) -> float:
        """That of a call that begins now; an object of its own (see `Guest.cancelled`)."""
        waited, self._queued_deadline = self._queued_deadline, None
        if waited is not None and waited[0] == get_ident():
            return waited[1]
        return monotonic() + self._timeout

    def _begin_queued_call(self, queued_call: QueuedCall) -> None:
        """It is that call's turn now. Its deadline is that of its waiting; to say so it must be prepared."""
        self._queued_deadline = queued_call.thread, queued_call.deadline
        self._entries.clear()

    def bind(self, interface: Callable[..., T]) -> T:
        """An object whose methods call this plugin's exports; see `plugwasm.interfaces.bind`.

        Args:
            interface: A class whose public methods are annotated, e.g. a `typing.Protocol`.

        Raises:
            InterfaceError: The plugin lacks some of the exports.
            TypeError: The interface is no class, or one of its methods cannot stand for an export.
        """
        from .interfaces import bind

        return bind(self, interface)

    def _prepare(self, function_name: str, host_context: object) -> Guest:
        """Makes sure that there is an instance, and that the export can be called."""
        if self._closed:
            raise self._closed_error(function_name)
        until = self._new_deadline()
        returns_code = self._check_callable(function_name)
        guest = self._guest
        if guest is None:
            guest = self._start(host_context, until)
        else:
            guest.deadline = until
        entry = self._kernel_entries.get(returns_code)
        if entry is None:
            entry = self._kernel_entries[returns_code] = guest.kernel.entry(returns_code)
        target = self._instance.funcref(ExportName(function_name))
        self._entries[function_name] = (entry.invoke, entry.values, target, entry)
        return guest

    def _check_callable(self, function_name: str) -> bool:
        """Whether the export returns a code. Raises when it cannot be called."""
        if not isinstance(function_name, str):
            raise OptionError(
                f"function_name: expected the name of an export, as text, got {describe_value(function_name)}",
                field="function_name",
            )
        exports = self.compiled_plugin._plan.main.module.exports
        item = exports.get(function_name)
        where: Any = {"plugin": self.name, "function": function_name}
        if item is None or item.type is None:
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
                f"export `{truncate(function_name)}` of plugin `{self.name}` is {item.type}, but only "
                f"() -> () and () -> (i32) can be called",
                **where,
            )
        return bool(item.type.results)

    def _start(self, host_context: object, until: float) -> Guest:
        """Makes an instance, within the deadline of the call that needs it."""
        compiled = self.compiled_plugin
        check_recursion_depth_to_start()
        try:
            try:
                return self._instantiate(compiled._plan_for_start(), host_context, until)
            except EngineFailure as failure:
                if not is_pool_exhausted(failure):
                    raise
                return self._instantiate(compiled._plan, host_context, until)
        except EngineFailure as failure:
            raise error_for_failed_start(failure, self.name, compiled.limits) from None
        except ArgumentError as error:
            if not is_recursion_error(error):
                raise
            raise RecursionError(
                f"Python's stack has no room to start plugin `{self.name}`"
            ) from None

    def _instantiate(self, plan: Plan, host_context: object, until: float) -> Guest:
        guest = Guest(self.compiled_plugin._grants, self._config, self._vars)
        guest.store = Store(plan.engine, guest)
        guest.host_context = host_context
        guest.entries = self._entries
        if self._instrumentation is not None:
            self._instrumentation.attach(guest)
        self._entries.clear()
        self._kernel_entries.clear()
        self._guest = guest
        try:
            guest.deadline = until
            guest.greenlet = greenlets.current_greenlet()
            if self._fuel_limit is not None:
                self._refill_fuel(guest)
            self._enter(guest, START)
            self._instance = plan.instantiate(guest)
        except (Trap, HostRaised) as failure:
            reason = error_for_trap_at_start(failure, guest, self.name)
            try:
                if self._post_mortem is not None:
                    self._post_mortem(reason, guest)
                raise reason from reason.__cause__
            finally:
                del reason
        finally:
            ticker.running.pop(guest, None)
            if self._instance is None:
                self._clean_up_call(guest, "_start")
        return guest

    def _enter(self, guest: Guest, function_name: str) -> None:
        """Enters the call among those that are watched."""
        ticker.running[guest] = guest.deadline
        if ticker.next_check >= guest.deadline:
            ticker.wake()
        if self._closed:  # `close` may just have missed it among those
            raise self._closed_error(function_name)

    def _busy_error(self, function_name: str) -> BusyError:
        return BusyError(
            f"plugin `{self.name}` is running another call, and cannot be entered a second time: make another Plugin for it",
            plugin=self.name,
            function=function_name,
        )

    def _closed_error(self, function_name: str) -> ClosedError:
        return ClosedError(
            f"plugin `{self.name}` was closed", plugin=self.name, function=function_name
        )

    def _refill_fuel(self, guest: Guest) -> None:
        """Fills up the fuel, unless that was done when the instance was made for this call."""
        if not guest.has_fuel_limit:
            assert self._fuel_limit is not None
            guest.store.set_fuel(self._fuel_limit)
            guest.has_fuel_limit = True

    def _clean_up_call(self, guest: Guest, function_name: str) -> None:
        """Undoes what was set for one call."""
        guest.host_context = None
        guest.flush(function_name)
        if self._fuel_limit is not None:
            self._fuel_used = self._fuel_limit - guest.store.fuel()
            guest.has_fuel_limit = False
        if function_name == "_start":
            self._drop_instance()

    def _reserve(self, guest: Guest, function_name: str, length: int) -> None:
        try:
            granted = guest.kernel.reserve(length)
        except EngineFailure as failure:
            self._raise_unwound(failure, guest, function_name)
            return
        if not granted:
            raise no_room_error(
                self.name, function_name, length, guest.limits, guest.describe_shortage(length)
            )

    def _raise_failure(
        self, guest: Guest, function_name: str, entry: Entry, error: int | None
    ) -> None:
        """Raises what the call ended with, if it did not end well. Otherwise the output is where it always is."""
        if error or entry.trapped:
            self._drop_instance()  # first of all, so that nothing, not even a signal handler's exception, lets it be used again
            try:
                entry.fail(error, guest.pending)
            except EngineFailure as failure:
                self._raise_unwound(failure, guest, function_name)
            entry.values[2], entry.values[4] = read_outcome(guest)[3:5]
            return
        code = entry.values[0] & _MASK32
        if code >> 31:
            code -= 1 << 32
        reason = error_for_reported(guest, {"plugin": self.name, "function": function_name}, code)
        try:
            if reason is not None:
                raise reason
        finally:
            del reason

    def _raise_unwound(self, failure: EngineFailure, guest: Guest, function_name: str) -> None:
        """Drops the instance, for a call was ended in its middle, and raises why; returns when it ended itself successfully."""
        self._drop_instance()
        reason = error_for_unwound(failure, guest, self.name, function_name)
        try:
            if reason is not None:
                if self._post_mortem is not None:
                    self._post_mortem(reason, guest)
                raise reason from reason.__cause__
        finally:
            del (
                reason,
                failure,
            )  # or the traceback would hold the instance until the garbage collector comes

    def _release_view(self) -> None:
        view, self._view = self._view, None
        try:
            if view is not None:
                view.release()
        except BufferError:
            pass  # somebody made something of it, e.g. an array; that keeps the memory, so it is safe to read

    def _drop_instance(self) -> None:
        """Lets go of the instance; the next call makes a new one. Views of its memory keep what they need."""
        self._guest = self._instance = (
            None  # first of all: a signal handler may raise after a call, such as those that follow
        )
        self._entries.clear()
        self._kernel_entries.clear()

    @holds_self
    def _drop_if_idle(self) -> bool:
        """Lets go of the instance, the vars and a view, unless a call is under way. Whether it did."""
        try:
            del self._idle
        except AttributeError:
            return False
        try:
            self._release_view()
            self._drop_instance()
            self._vars.restore(self._initial_vars)
        finally:
            self._idle = True
        if self._is_contended:
            hand_over(self)
        return True

    def _cancel(self, thread: int | None = None) -> bool:
        """Cancels the call under way and all that wait, or if a thread is given the one that this is in. False when there is none.

        Which call that is, is settled first, by the object that is its deadline: if it ends meanwhile, the next call has another.
        """
        waiting = queued_calls(self, thread)
        for queued_call in waiting:
            queued_call.cancel()
        guest = self._guest
        call = None if guest is None else ticker.running.get(guest)
        if guest is None or call is None or not (thread is None or is_calling(thread, self)):
            return bool(waiting)
        guest.cancelled = call
        guest.store.engine.increment_epoch()
        return True

    # ---- the plugin itself ----------------------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """What errors and logs call the plugin."""
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
        """What the plugin exports: name, kind, and for functions the type."""
        return self.compiled_plugin.exports

    @property
    def imports(self) -> tuple[Item, ...]:
        """What the plugin imports: module, name, kind, and for functions the type."""
        return self.compiled_plugin.imports

    @property
    def fuel_used(self) -> int | None:
        """How much fuel the last call used; None when there is no fuel limit, or no call yet."""
        return self._fuel_used

    @property
    def config(self) -> dict[str, str]:
        """A copy of what the plugin can read with `config_get`."""
        return dict(self._config)

    def update_config(self, changes: Mapping[str, str | None]) -> None:
        """Changes the configuration, from the next `config_get` on; None removes a key. Only this plugin's, not its compiled plugin's."""
        config = self._config = merge_config(self._config, changes)
        if self._guest is not None:
            self._guest.config = config

    @property
    def vars(self) -> dict[str, bytes]:
        """A copy of the plugin's vars, as they are now. They outlive its instance, but not `reset` and `close`.

        A name that is not UTF-8 has lone surrogates for its bytes: `name.encode("utf-8", "surrogateescape")` gives them.
        """
        return decode_names(self._vars.snapshot())

    def function_exists(self, name: str) -> bool:
        """Whether the plugin exports a function of that name that can be called: `() -> ()` or `() -> (i32)`."""
        if not isinstance(name, str):
            raise OptionError(
                f"name: expected the name of an export, as text, got {describe_value(name)}",
                field="name",
            )
        item = self.compiled_plugin._plan.main.module.exports.get(name)
        return item is not None and is_callable_export(item)

    def cancel_handle(self) -> CancelHandle:
        """Something that another thread can end this plugin's call with."""
        return CancelHandle(self)

    def reset(self) -> None:
        """Drops the instance with its memory and its vars; the next call starts with a new one.

        Raises:
            BusyError: A call is under way.
        """
        if not self._drop_if_idle():
            raise BusyError(
                f"plugin `{self.name}` is running a call, so it cannot be reset", plugin=self.name
            )

    def _begin_lease(self) -> None:
        """Remembers what it is like, for it is about to be lent. For who lends it; while no call is under way."""
        self._lease = LeaseSnapshot(self)

    def _hold_lease(self) -> LeaseSnapshot | None:
        """The lease under way, for what reaches into the plugin later and must not outlive that; None for a plugin that is not lent."""
        lent = self._lease
        if lent is not None:
            lent.is_held = True
        return lent

    def _end_lease(self) -> None:
        """Undoes what a caller has changed of the plugin itself, and not of its instance: its config, and who looks at its traps.

        What the caller keeps (`CancelHandle`, profiles, views) has no hold on it any more. For who lends it; while no call is under way.
        """
        lent, guest = self._lease, self._guest
        assert lent is not None
        self._fuel_used = None
        if self._view is not None:
            self._release_view()
        if self._config is not lent.config:
            self._config = lent.config
            if guest is not None:
                guest.config = lent.config
        if getattr(self, "_post_mortem", None) is not lent.post_mortem:
            self._post_mortem = lent.post_mortem
        if lent.is_held:
            if guest is not None:
                guest.sampler = None
            self._lease = LeaseSnapshot(self)

    def close(self) -> None:
        """Closes the plugin and frees what it holds. A call that is under way in another thread is cancelled, and those that wait for it
        get a `ClosedError`. Closing twice is allowed.
        """
        self._closed = True
        self._is_contended = True
        for queued_call in queued_calls(self):
            queued_call.wake()
        self._drop_if_idle()
        if self._guest is not None:
            self._cancel()

    # ---- in event loops -------------------------------------------------------------------------------------------------------------

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
        """As `call`, for a task of asyncio or trio. The guest runs in a thread, and host functions that are `async def` in the task.

        A task that is cancelled cancels the call, and goes on when the guest has ended; a sync host function is waited for.

        Args:
            function_name, data, parse, host_context, options: As for `call`. `parse` is called in the thread.
            limiter: Bounds the threads; if not given, it is `aio.default_limiter()`.

        Raises:
            BusyError: The call under way waits for this one.
            ImportError: The extra `async` is not installed.
        """
        from .threads import call_plugin

        return await call_plugin(self, limiter, function_name, data, parse, host_context, **options)

    def __reduce__(self) -> str:
        raise TypeError(
            "a Plugin cannot be copied or pickled: make another of its `compiled_plugin`, or send another process a PluginRef"
        )

    def __repr__(self) -> str:
        return f"<Plugin {self.name!r}{', closed' if self._closed else ''}>"


class Observed(Plugin if TYPE_CHECKING else object):  # type: ignore[misc]
    """Mixed into the classes of plugins that are observed: what they do goes through a `CallInstrumentation`."""

    __slots__ = ()
    _instrumentation: CallInstrumentation

    if not TYPE_CHECKING:

        def call(
            self, function_name, data=b"", parse=bytes, host_context=None, returns=..., codec=None
        ):
            return self._instrumentation.run(
                self, super().call, function_name, data, parse, host_context, returns, codec
            )

    def _start(self, host_context: object, until: float) -> Guest:
        return self._instrumentation.time_start(super()._start, host_context, until)

    def _clean_up_call(self, guest: Guest, function_name: str) -> None:
        is_fuelled = guest.has_fuel_limit  # not if the call ended before it began
        self._instrumentation.settle(guest)
        super()._clean_up_call(guest, function_name)
        if is_fuelled:
            self._instrumentation.call.fuel = self._fuel_used


_observed: dict[type[Plugin], type[Plugin]] = {}
"""For classes of plugins, those whose objects are observed."""


def instrument(plugin: Plugin, observe: Observe) -> CallInstrumentation | None:
    """Makes a new plugin one that is observed, if it is to be: one of a subclass, so that others pay nothing. Gives what watches it."""
    of_all = plugin.compiled_plugin.observers
    if of_all is None and (observe is None or observe is False):
        return None
    from .instrumentation import CallInstrumentation
    from .observers import resolve_observers

    own = resolve_observers(observe)
    if of_all is None and own is None:
        return None
    kind = type(plugin)
    if kind not in _observed:
        _observed[kind] = type(
            kind.__name__,
            (Observed, kind),
            {"__slots__": (), "__module__": kind.__module__, "__doc__": kind.__doc__},
        )
    plugin.__class__ = _observed[kind]
    return CallInstrumentation((*(of_all or ()), *(own or ())), encode_input)


def encode_input(data: Any) -> bytes | memoryview:
    """What is sent for anything but text."""
    try:
        view = memoryview(data)
    except TypeError:
        from .._host.codecs import encode_input

        return encode_input(data)
    return view.cast("B") if view.c_contiguous else view.tobytes()


def merge_config(config: dict[str, str], changes: Mapping[str, str | None]) -> dict[str, str]:
    changed = dict(config)
    if not hasattr(changes, "items"):
        raise OptionError(
            f"config: expected a mapping of text to text, got {type(changes).__name__}",
            field="config",
        )
    for key, value in changes.items():
        if not isinstance(key, str) or not (value is None or isinstance(value, str)):
            if not isinstance(key, str):
                raise OptionError(
                    f"config: keys must be text, but {describe_value(key)} is {type(key).__name__}",
                    field="config",
                )
            hint = (
                "; JSON text can hold it"
                if isinstance(value, (bool, int, float, list, dict))
                else ""
            )
            raise OptionError(
                f"config: keys and values must be text, but the value of `{truncate(key)}` is {type(value).__name__}{hint}",
                field="config",
            )
        check_encodable(key, "config: a key", field="config")
        if value is not None:
            check_encodable(value, f"config: the value of `{truncate(key)}`", field="config")
        if value is None:
            changed.pop(key, None)
        else:
            changed[key] = value
    return changed
