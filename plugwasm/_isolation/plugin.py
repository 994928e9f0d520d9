"""Plugins in a process of their own, for code so untrusted that an engine bug must not matter.

Everything that touches the guest's bytes (compiler, engine, kernel, WASI) runs in a worker, a
process without privileges. What the application grants stays with it: host functions, config, vars,
HTTP and the log. The worker lives as long as its plugin, and is replaced when it has ended or
misbehaves. See `_isolation`.

Decisions: docs/decisions.md, 45.
"""

from __future__ import annotations

from time import monotonic

from .._engine import truncate
from .._host import greenlets
from .._host.deadline import NEVER
from .._host.options import NOT_GIVEN, REGISTERED, reject_unknown_arguments
from .._manifest.limits import ProcessLimits
from .._runtime.abstract_plugin import AbstractPlugin
from .._runtime.call_errors import error_for_raised, no_room_error, parse_output
from .._runtime.call_queue import QueuedCall, hand_over, holds_self, is_calling, queued_calls
from .._runtime.compiled_plugin import CompiledPlugin, ensure_compiled
from .._runtime.inputs import to_input_bytes
from .._runtime.plugin import Plugin
from .._runtime.signatures import signature_of_call
from ..errors import (
    CancelledError,
    Error,
    OptionError,
    OutOfMemoryError,
    TimeoutError,
    WorkerError,
)
from . import protocol
from .compiled_plugin import RemoteCompiledPlugin, RemotePlan
from .process import Worker, WorkerLost
from .remote_guest import MAX_MEMORY, RemoteGuest, expose_functions
from .startup import start_worker
from .worker_errors import error_fields, rebuild_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any, Never

    from .._host.codecs import TypedCodec
    from .._host.functions import Function
    from .._host.vars import VarsByName
    from .._http.egress import Egress
    from .._manifest.limits import Limits
    from .._runtime.argument_types import Observe, PluginInput
    from .._runtime.recycling import Recycle
    from .._wasi.options import WasiOptions


__all__ = ["IsolatedPlugin"]

if TYPE_CHECKING:
    _Base = Plugin  # for type checkers as for `isinstance`, which `Plugin.register` tells below
else:
    _Base = AbstractPlugin


class IsolatedPlugin(_Base):
    """A `Plugin` that runs in a process of its own. A call costs two switches between processes.

    One worker process is started for each plugin, when it is made, and serves all of its calls. It
    is confined as far as the system allows (`confinement`): limits on memory, and on Linux no files
    but the directories that the plugin was granted, no network, no other processes. It is killed
    when it exceeds its limits or sends invalid messages; the call ends with an error, and the next
    one starts another worker.

    Args:
        plugin: As for `Plugin`. Of a `CompiledPlugin` the modules and the settings are used, not
            the compiled code.
        wasi, config, functions, name, fuel_limit, http_response_headers, limits, egress, vars,
            observe, recycle: As for `Plugin`. Observers see what the application serves: no WASI,
            and not how much memory there was. A recycled instance is replaced in the same process.
        process: Limits of the process.

    Raises:
        Error: As `Plugin`.
        WorkerError: The process could not be started.
    """

    __module__ = "plugwasm"

    __slots__ = (
        "_call_count",
        "_confinement",
        "_exposed",
        "_memory_bytes",
        "_needs_new_instance",
        "_process",
        "_running_call",
        "_types",
        "_worker",
    )

    _guest: RemoteGuest | None

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
        process: ProcessLimits | None = None,
        vars: VarsByName | None = None,
        observe: Observe = None,
        recycle: Recycle | None = None,
        **unknown: Never,
    ) -> None:
        if unknown:
            reject_unknown_arguments(IsolatedPlugin, unknown)
        if process is None:
            process = ProcessLimits()
        elif not isinstance(process, ProcessLimits):
            raise OptionError(f"process: expected ProcessLimits, got {type(process).__name__}")
        plugin = ensure_compiled(
            RemoteCompiledPlugin,
            plugin,
            (wasi, functions, name, fuel_limit, http_response_headers, limits, egress),
        )
        AbstractPlugin.__init__(
            self, RemoteCompiledPlugin.from_compiled(plugin), config, vars, observe, recycle
        )
        if self._instrumentation is not None and self._instrumentation.needs_local_instance:
            raise TypeError(
                "an IsolatedPlugin cannot be recorded, for its WASI runs in another process: "
                "record a Plugin instead"
            )
        self._call_count = 0
        self._memory_bytes: int | None = None
        """The memory of the instance after the last call, if the worker was asked for it."""
        self._process = process
        self._needs_new_instance = False
        self._running_call = 0
        self._types, self._exposed = expose_functions(plugin.functions)
        self._worker: Worker | None = None
        self._start_worker()
        self.compiled_plugin._check_memory()
        self.compiled_plugin._warn()
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
        returns: Any = ...,
        codec: TypedCodec | None = None,
    ) -> Any:
        """Call an export of the plugin, as `Plugin.call`. A view (`parse=None`) is of a copy.

        Raises:
            WorkerError: The worker ended in the middle of the call, or misbehaved.
        """
        if returns is not ... or codec is not None:
            from .._host.codecs import prepare_typed_call

            data, parse = prepare_typed_call(function_name, data, parse, returns, codec, self.name)
        try:
            # As in `Plugin.call`, and not a function of both: an interrupt after its return would
            # leave the plugin without an owner.
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
        try:
            if self._closed:
                raise self._closed_error(function_name)
            self._check_callable(function_name)
            try:
                view = memoryview(
                    data.encode()
                    if isinstance(data, str)
                    else data
                    if type(data) is bytes
                    else to_input_bytes(data)
                )
            except UnicodeEncodeError as error:
                from .._host.codecs import unencodable_input_error

                raise unencodable_input_error(error, self.name, function_name) from None
            self._release_view()
            if view.nbytes > (self.compiled_plugin.limits.memory_bytes or MAX_MEMORY):
                raise no_room_error(
                    self.name, function_name, view.nbytes, self.compiled_plugin.limits
                )
            message_output, deadline = self._run(function_name, view, host_context)
            if parse is None:
                self._view = memoryview(bytes(message_output))
                return self._view
            output = bytes(message_output)
            return (
                output
                if parse is bytes
                else parse_output(parse, output, deadline, self.compiled_plugin, function_name)
            )
        finally:
            self._running_call = 0
            try:
                guest, recycling = self._guest, self._recycling
                if guest is not None:
                    guest.host_context = None
                    if self._instrumentation is not None:
                        self._instrumentation.settle(guest)
                    if recycling is not None and recycling.counts_calls:
                        recycling.countdown -= 1
                        if recycling.countdown <= 0:
                            self._look_at_instance(recycling)
            finally:
                self._idle = True
                if self._is_contended:
                    self._release_contended()

    def _run(
        self, function_name: str, data: memoryview, host_context: Any
    ) -> tuple[memoryview, float]:
        """Let the worker run the export, and return the output and the deadline.

        Any other exception meanwhile, of a signal handler for example, ends the worker.
        """
        worker, guest = self._begin(function_name, host_context)
        number, fresh = self._call_count, self._needs_new_instance
        self._needs_new_instance = False
        message: protocol.Done | protocol.Failed | None = None
        try:
            if self._closed:
                raise self._closed_error(function_name)
            recycling = self._recycling
            measure = recycling is not None and recycling.wants_memory and recycling.countdown <= 1
            worker.send(protocol.CallExport(number, function_name, data, fresh, measure))
            message = self._serve_call(worker, guest)
            reason = self._find_error(message, guest, worker, function_name)
        except WorkerLost as lost:
            message = None
            reason = guest.host_exception or self._error_for_lost_worker(lost, guest, function_name)
        finally:
            worker.deadline = NEVER
            guest.host_exception = None
            if message is None:
                self._end_worker()
        if message is not None:
            self._fuel_used = message.fuel_used
            if self._instrumentation is not None:
                self._instrumentation.call.fuel = message.fuel_used
            if not message.live:
                self._guest = None
            self._memory_bytes = message.memory_bytes
        try:
            if reason is not None:
                raise reason from reason.__cause__
        finally:
            del reason
        assert type(message) is protocol.Done
        return message.output, guest.deadline

    def _begin(self, function_name: str, host_context: Any) -> tuple[Worker, RemoteGuest]:
        """Return a worker and a guest for a call, with its limits set."""
        process = self._process
        worker, guest = self._worker, self._guest
        if worker is None or not worker.usable:
            self._end_worker()
            worker, guest = self._start_worker(), None
        if guest is None:
            guest = self._guest = RemoteGuest(
                self.compiled_plugin._grants, self._config, self._vars, worker
            )
            if self._instrumentation is not None:
                self._instrumentation.attach(guest)
            if self._recycling is not None:
                self._begin_recycling(self._recycling)
        guest.cancelled = guest.awaits_blocks = False
        waited = self._queued_deadline is not None
        guest.deadline = self._new_deadline()
        guest.greenlet = greenlets.current_greenlet()
        guest.host_context = host_context
        guest.export_name = function_name
        if self._instrumentation is not None:
            self._instrumentation.deadline = guest.deadline
        # The worker does not know how long the call has waited, so it will not end it in time.
        worker.deadline = guest.deadline + (0 if waited else process.grace)
        if process.cpu_seconds is not None:
            used = worker.cpu_time()
            worker.cpu_until = None if used is None else used + process.cpu_seconds
        self._call_count += 1
        self._running_call = worker.call = self._call_count
        return worker, guest

    def _read_memory(self) -> int | None:
        found, self._memory_bytes = self._memory_bytes, None
        return found

    def _serve_call(self, worker: Worker, guest: RemoteGuest) -> protocol.Done | protocol.Failed:
        """Serve the guest's requests until the call has ended."""
        while True:
            message = worker.receive(worker.bounds.call)
            if isinstance(message, (protocol.Done, protocol.Failed)):
                if message.number != self._call_count:
                    raise worker.protocol_violation("the end of another call")
                return message
            if isinstance(message, protocol.HostCall):
                guest.serve(message, self._exposed)
            elif isinstance(message, protocol.Line):
                level = "warn" if message.is_error else "info"
                guest.log.write_line(level, message.line, message.lost, guest.function)
            elif isinstance(message, protocol.NoRoom) and guest.awaits_blocks:
                guest.no_room(message.size)
            else:
                raise worker.protocol_violation(
                    f"`{type(message).__name__}` in the middle of a call"
                )

    def _find_error(
        self,
        message: protocol.Done | protocol.Failed,
        guest: RemoteGuest,
        worker: Worker,
        function_name: str,
    ) -> BaseException | None:
        """Return the exception that the call ends with, or None.

        An exception of a host function comes before all else, whatever the worker says.
        """
        if guest.host_exception is not None:
            facts: dict[str, Any] = {
                "plugin": self.name,
                "function": function_name,
                "backtrace": (),
            }
            if type(message) is protocol.Failed and message.error is None:
                facts |= error_fields(Error, message.fields)
            return error_for_raised(
                guest.host_exception,
                guest,
                {name: facts[name] for name in ("plugin", "function", "backtrace")},
            )
        if type(message) is protocol.Done:
            return None
        return rebuild_error(message, worker)  # type: ignore[arg-type]

    def _error_for_lost_worker(
        self, lost: WorkerLost, guest: RemoteGuest, function_name: str
    ) -> BaseException | None:
        """Return the error for a call whose worker was lost."""
        where = f"`{truncate(function_name)}` of plugin `{self.name}`"
        facts: dict[str, Any] = {"plugin": self.name, "function": function_name, "backtrace": ()}
        if lost.kind == "overdue":
            if guest.cancelled is guest.deadline:
                return CancelledError(
                    f"{where}: the call was cancelled, and its process killed", **facts
                )
            return error_for_raised(TimeoutError(), guest, facts)
        if lost.kind == "used up":
            return TimeoutError(
                f"{where} used more than {self._process.cpu_seconds} s of processor time "
                "(timeout; `ProcessLimits.cpu_seconds`)",
                **facts,
            )
        if lost.kind == "out of memory":
            return OutOfMemoryError(f"{where}: its process {lost.message}", **facts)
        return WorkerError(f"{where}: its process {lost.message}", **facts)

    # ---- the worker ------------------------------------------------------------------------------

    def _start_worker(self) -> Worker:
        compiled = self.compiled_plugin
        worker, confined, loaded = start_worker(compiled, self._process, self._types, self._exposed)
        self._confinement = tuple(confined.measures)
        compiled._plan = RemotePlan(loaded)  # type: ignore[assignment]
        self._needs_new_instance = False
        self._worker = worker
        return worker

    def _end_worker(self) -> None:
        """End the worker, and drop what belonged to its instance."""
        worker, self._worker = self._worker, None
        self._guest = None
        if worker is not None:
            worker.end()

    def _drop_instance(self) -> None:
        self._guest = None
        self._needs_new_instance = True
        if self._closed:
            self._end_worker()

    def _cancel(self, thread: int | None = None) -> bool:
        waiting = queued_calls(self, thread)
        for queued_call in waiting:
            queued_call.cancel()
        worker, guest, number = self._worker, self._guest, self._running_call
        if worker is None or guest is None or not number:
            return bool(waiting)
        call = guest.deadline
        if self._running_call != number or not (thread is None or is_calling(thread, self)):
            return bool(waiting)
        guest.cancelled = call
        worker.cancelled_call = number, min(worker.deadline, monotonic() + self._process.grace)
        worker.cancel(number)
        return True

    @property
    def confinement(self) -> tuple[str, ...]:
        """The measures that confined the worker before it saw any of the plugin, as short texts."""
        return self._confinement

    def __reduce__(self) -> str:
        raise TypeError(
            "an IsolatedPlugin cannot be copied or pickled: make another one, here or in the "
            "other process"
        )

    def __repr__(self) -> str:
        return f"<IsolatedPlugin {self.name!r}{', closed' if self._closed else ''}>"


Plugin.register(IsolatedPlugin)
