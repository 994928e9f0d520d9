"""Plugins whose guest runs in this process, and how a call enters it.

`docs/architecture.md` follows a call step by step ("What happens in a call").
"""

from __future__ import annotations

from sys import getrecursionlimit, modules
from time import monotonic

from .._engine import (
    LOOK_INTERVAL,
    ArgumentError,
    EngineFailure,
    ExportName,
    HostRaised,
    Trap,
    are_held,
    check_recursion_depth,
    check_recursion_depth_to_start,
    is_pool_exhausted,
    is_recursion_error,
)
from .._host import greenlets
from .._host.deadline import ticker
from .._host.guest import Guest, invoke_and_follow_log
from .._host.kernel import INPUT_OFFSET
from .._host.options import NOT_GIVEN, REGISTERED, reject_unknown_arguments
from .abstract_plugin import AbstractPlugin, LeaseSnapshot
from .call_errors import (
    START,
    error_for_failed_start,
    error_for_reported,
    error_for_trap_at_start,
    error_for_unwound,
    instance_lost_error,
    no_room_error,
    no_stack_error,
    parse_output,
    read_outcome,
)
from .call_queue import QueuedCall, hand_over, holds_self, is_calling, queued_calls
from .compiled_plugin import CompiledPlugin, ensure_compiled
from .inputs import to_input_bytes
from .signatures import signature_of_call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any, Never

    from .._engine import WasmFunction as Entry
    from .._host.codecs import TypedCodec
    from .._host.functions import Function
    from .._host.vars import VarsByName
    from .._http.egress import Egress
    from .._manifest.limits import Limits
    from .._wasi.options import WasiOptions
    from .argument_types import Observe, PluginInput
    from .linker import Plan
    from .recycling import Recycle

__all__ = ["Plugin"]

_MASK32 = 0xFFFFFFFF
_NO_ENTRIES = (None, None)
"""Functions of the kernel that enter exports which return nothing, and those that return a code."""


class Plugin(AbstractPlugin):
    """A plugin that can be called.

    It runs one call at a time: another thread that calls it waits for its turn, first come, first
    served, and no longer than its own deadline allows. For calls at the same time, threads need a
    plugin each (`PluginPool`).

    Args:
        plugin: A `CompiledPlugin`, or anything that one can be made of.
        wasi, functions, name, fuel_limit, http_response_headers, limits, egress: As for
            `CompiledPlugin`; an error when `plugin` is one.
        config: Settings that the plugin can read with `config_get`, on top of the manifest's; None
            removes a key.
        vars: The plugin's initial vars, which it has again after `reset`. Names are text, or bytes,
            because they need not be UTF-8.
        observe: Observers of this plugin, in addition to those of its `CompiledPlugin`.
        recycle: When the plugin gets a new instance although the present one still works. If not
            given, it does not.

    Raises:
        Error: As `CompiledPlugin`.
    """

    __module__ = "plugwasm"

    __slots__ = (
        "_entries",
        "_fuel_limit",
        "_has_cleanup",
        "_instance",
        "_kernel_entries",
        "_post_mortem",
        "_stack",
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
        recycle: Recycle | None = None,
        **unknown: Never,
    ) -> None:
        if unknown:
            reject_unknown_arguments(Plugin, unknown)
        plugin = ensure_compiled(
            CompiledPlugin,
            plugin,
            (wasi, functions, name, fuel_limit, http_response_headers, limits, egress),
        )
        # Not by `super()`, which would make this 8 % slower.
        AbstractPlugin.__init__(self, plugin, config, vars, observe, recycle)
        self._entries: dict[str, tuple[Callable[[], int | None], memoryview, int, Entry]] = {}
        self._kernel_entries: tuple[Entry | None, Entry | None] = _NO_ENTRIES
        self._fuel_limit = plugin.fuel_limit
        self._instance: Any = None
        self._post_mortem: Callable[[BaseException, Guest], None] | None = None
        """Sees the guest of a call that was unwound before it is freed (`debugging.dump_on_trap`).
        """
        self._has_cleanup = self._needs_cleanup()
        self._stack = plugin._plan.engine.stack
        self._idle = True

    # ---- calling ---------------------------------------------------------------------------------

    @signature_of_call
    @holds_self
    def call(
        self,
        function_name: str,
        data: object = b"",
        parse: Callable[[Any], Any] | None = bytes,
        host_context: Any = None,
        # Not declared keyword-only, though meant so: that would add 2 % to a small call.
        returns: Any = ...,
        codec: TypedCodec | None = None,
    ) -> Any:
        """Call an export of the plugin.

        Args:
            function_name: The name of the export.
            data: The input: text (sent as UTF-8), bytes or any object with the buffer protocol (as
                they are), anything else as JSON.
            parse: A function that makes the result from the output, which is bytes. By default the
                result is these bytes. With None it is a read-only view of the plugin's memory
                instead of a copy, and can be used until the plugin's next call.
            host_context: Any object; host functions find it in `CurrentPlugin.host_context`.
            returns: The type of the result, instead of `parse`: str for UTF-8 text, bytes as they
                are, anything else from JSON. `type(None)` for an output that is empty or `null`.
            codec: Encodes `data`, whatever its type, and decodes the output if `returns` is given
                (`plugwasm.codecs`). Empty bytes remain an empty input.

        Returns:
            What `parse` made of the output, or a value of the type `returns`.

        Raises:
            FunctionNotFoundError, SignatureError: There is no such export, or it cannot be called.
            OutputError: The output is not of the type `returns`.
            TypeError: `data` cannot be sent, or nothing can be converted to `returns`.
            BusyError: The plugin is called from inside one of its own calls, so the call would wait
                for itself; or another greenlet of the thread is in a call.
            TimeoutError: The deadline passed. If it passed while the call waited for another one to
                end, the guest was not entered.
            ClosedError: The plugin was closed.
            GuestError: The guest reported an error.
            TrapError, ExitError, CancelledError, OutOfMemoryError, OutOfFuelError,
                HostFunctionError: The call was ended.
        """
        if returns is not ... or codec is not None:
            from .._host.codecs import prepare_typed_call

            data, parse = prepare_typed_call(function_name, data, parse, returns, codec, self.name)
        try:
            # This is the plugin's lock. Deleting an attribute is atomic, and it is no call: after a
            # call, a signal handler could raise between the lock and the `try` that releases it.
            del self._idle
        except AttributeError:
            queued_call = QueuedCall(self, self, function_name)
            try:
                queued_call.wait()
            except BaseException:
                try:
                    del queued_call.is_pending
                except AttributeError:
                    self._idle = True  # this call owned it already
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
                now = monotonic()
                guest.deadline = now + self._timeout
                if now >= measured.next_look:
                    self._look_at_signals(guest, function_name, now)
            if guest is None or function_name not in self._entries:
                guest = self._prepare(function_name, host_context)
            if type(data) is not bytes:
                try:
                    data = data.encode() if isinstance(data, str) else to_input_bytes(data)
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
                # As `_enter`, without the cost of a call.
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
                    # A signal handler raised right after the call. How the call ended is unknown.
                    self._drop_instance()
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

    def _check_stack(self, guest: Guest | None, function_name: str) -> None:
        """Raise an error if no guest may be entered from here."""
        try:
            if not self._stack.has_room():
                raise no_stack_error(self.name, function_name, self._stack)
            greenlets.check_greenlet(self, function_name)
        except BaseException:
            self._queued_deadline = None
            raise
        if guest is not None:
            guest.greenlet = greenlets.current_greenlet()

    def _look_at_signals(self, guest: Guest, function_name: str, now: float) -> None:
        """Give the instance up if it relies on signals that do not reach the engine any more."""
        if are_held():
            self._stack.measurement.next_look = now + LOOK_INTERVAL
        elif guest.store.engine.signals:
            self._drop_instance()
            raise instance_lost_error(self.name, function_name)

    def _leave_signals(self) -> None:
        guest = self._guest
        if guest is not None and guest.store.engine.signals:
            self._drop_instance()

    def _begin_queued_call(self, queued_call: QueuedCall) -> None:
        super()._begin_queued_call(queued_call)
        self._entries.clear()  # so that `call` goes through `_prepare`, which sets this deadline

    def _prepare(self, function_name: str, host_context: object) -> Guest:
        """Make an instance if there is none, and check that the export can be called."""
        if self._closed:
            raise self._closed_error(function_name)
        until = self._new_deadline()
        callables = self.compiled_plugin._plan.callables
        try:
            name, returns_code = callables[function_name]
        except (KeyError, TypeError):
            returns_code = self._check_callable(function_name)
            name = ExportName(function_name)
            callables[name.text] = name, returns_code
        guest = self._guest
        if guest is None:
            guest = self._start(host_context, until)
            if self._recycling is not None:
                self._begin_recycling(self._recycling)
        else:
            guest.deadline = until
        entry = self._kernel_entries[returns_code]
        if entry is None:
            entry = guest.kernel.entry(returns_code)
            other = self._kernel_entries[not returns_code]
            self._kernel_entries = (other, entry) if returns_code else (entry, other)
        target = self._instance.funcref(name)
        invoke = entry.invoke
        if guest.follows_log:
            invoke = invoke_and_follow_log(invoke, guest.kernel, guest.log)
        self._entries[function_name] = (invoke, entry.values, target, entry)
        return guest

    def _start(self, host_context: object, until: float) -> Guest:
        """Make an instance, within the deadline of the call that needs it."""
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
        start = plan.open_store(guest)
        guest.host_context = host_context
        guest.entries = self._entries
        if self._instrumentation is not None:
            self._instrumentation.attach(guest)
        self._entries.clear()
        self._kernel_entries = _NO_ENTRIES
        self._guest = guest
        try:
            guest.deadline = until
            guest.greenlet = greenlets.current_greenlet()
            if self._fuel_limit is not None:
                self._refill_fuel(guest)
            self._enter(guest, START)
            self._instance = plan.instantiate(guest, start)
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
            if self._instance is None:  # it failed; the name `_start` makes this drop the guest
                self._clean_up_call(guest, "_start")
        return guest

    def _enter(self, guest: Guest, function_name: str) -> None:
        """Enter the call in the ticker's table of calls under way."""
        ticker.running[guest] = guest.deadline
        if ticker.next_check >= guest.deadline:
            ticker.wake()
        if self._closed:  # `close` may have looked before it was entered
            raise self._closed_error(function_name)

    def _refill_fuel(self, guest: Guest) -> None:
        """Refill the fuel, unless that was done when the instance was made for this call."""
        if not guest.is_fuelled:
            assert self._fuel_limit is not None
            guest.store.set_fuel(self._fuel_limit)
            guest.is_fuelled = True

    def _needs_cleanup(self) -> bool:
        """Return whether there is something to clean up after every call."""
        return (
            self._fuel_limit is not None
            or bool(self.compiled_plugin.wasi)
            or self._instrumentation is not None
            or (self._recycling is not None and self._recycling.counts_calls)
        )

    def _clean_up_call(self, guest: Guest, function_name: str) -> None:
        """Undo what was set for one call."""
        guest.host_context = None
        if guest.streams:
            guest.flush(function_name)
        if self._fuel_limit is not None:
            self._fuel_used = self._fuel_limit - guest.store.fuel()
            guest.is_fuelled = False
        recycling = self._recycling
        if function_name == "_start":
            self._drop_instance()
        elif recycling is not None and recycling.counts_calls and guest is self._guest:
            recycling.countdown -= 1
            if recycling.countdown <= 0:
                self._look_at_instance(recycling)

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
        """Raise the exception that the call ended with.

        Return if the guest was unwound by `exit(0)`, which is no failure. Then the position of the
        output is in `entry.values`.
        """
        if error or entry.trapped:
            # This comes first: if a signal handler raises below, the instance is gone already.
            self._drop_instance()
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
                if self._recycling is not None:
                    self._recycling.look_soon()
                raise reason
        finally:
            del reason

    def _raise_unwound(self, failure: EngineFailure, guest: Guest, function_name: str) -> None:
        """Drop the instance of a call that was unwound, and raise why; return after `exit(0)`."""
        self._drop_instance()
        reason = error_for_unwound(failure, guest, self.name, function_name)
        try:
            if reason is not None:
                if self._post_mortem is not None:
                    self._post_mortem(reason, guest)
                raise reason from reason.__cause__
        finally:
            # Otherwise the exception, its traceback and this frame would form a cycle, which would
            # keep the instance alive until the next garbage collection.
            del reason, failure

    def _drop_instance(self) -> None:
        """Drop the instance. The next call makes a new one. Views of its memory stay valid."""
        # This comes first, because a signal handler may raise after each of the calls below. The
        # vars are then taken back when they are needed next.
        self._guest = self._instance = None
        self._entries.clear()
        self._kernel_entries = _NO_ENTRIES
        self._vars.take_back()

    def _cancel(self, thread: int | None = None) -> bool:
        """Cancel the call under way and all that wait, or only those of a thread.

        The running call is identified by its deadline object (see `Guest.cancelled`). If it ends
        before the guest notices, the next call has another one and is not cancelled.

        Returns:
            False when there is no such call.
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

    def _read_memory(self) -> int | None:
        guest = self._guest
        return None if guest is None else guest.visible_memory_bytes()

    # ---- leases, for pools -----------------------------------------------------------------------

    def _snapshot(self) -> LeaseSnapshot:
        return LeaseSnapshot(self._config, self._post_mortem)

    def _begin_lease(self) -> None:
        super()._begin_lease()
        self._has_cleanup = self._needs_cleanup()

    def _end_lease(self) -> None:
        if self._lease is not None:
            self._post_mortem = self._lease.post_mortem
        super()._end_lease()

    def __reduce__(self) -> str:
        raise TypeError(
            "a Plugin cannot be copied or pickled: make another of its `compiled_plugin`, or "
            "send another process a PluginRef"
        )

    def __repr__(self) -> str:
        return f"<Plugin {self.name!r}{', closed' if self._closed else ''}>"
