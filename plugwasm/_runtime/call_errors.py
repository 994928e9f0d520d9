"""The exceptions that applications get for calls that failed.

This is the one place where a report of the engine becomes one of `plugwasm.errors`.

Decisions: docs/decisions.md, 35.5.
"""

from __future__ import annotations

from time import monotonic

from .._engine import (
    OUT_OF_BOUNDS,
    OUT_OF_FUEL,
    STACK_OVERFLOW,
    UNREACHABLE,
    EngineFailure,
    HostRaised,
    Trap,
    address_space_limit,
    is_recursion_error,
    lost_to,
    truncate,
)
from .._host.deadline import NEVER
from .._host.guest import PluginExit
from .._host.kernel import FAULT_ERROR, FAULT_ERROR_HANDLE, FAULT_OUTPUT, INPUT_OFFSET
from ..errors import (
    BadHandleError,
    CallError,
    Error,
    ExitError,
    GuestError,
    InstanceLostError,
    LinkError,
    OptionError,
    OutOfFuelError,
    OutOfMemoryError,
    StackError,
    TimeoutError,
    TrapError,
)
from .trampolines import NestedFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .._engine import ThreadStack
    from .._host.guest import Guest
    from .._manifest.limits import Limits
    from .._manifest.resolve import PluginSpec
    from .compiled_plugin import CompiledPlugin


_FUEL_OF_FAILURE = 10_000
_PAGE = 65536
_QUICK = 2**14
"""Bytes of an output that are read without a look at the clock first."""
_COUNTED = {
    "memory count too high": "memories",
    "table count too high": "tables",
    "instance count too high": "instances",
    "table minimum size": "table_elements",
}
_FULL_HEAP = "GC heap out of memory"
_GIVEN_UP = (UNREACHABLE, OUT_OF_BOUNDS)
"""The traps of guests that got no memory: by an abort, or by using the result as an address."""
START = "start"
"""The function name in errors of code that a guest runs before its first call."""


def error_for_unwound(
    failure: EngineFailure, guest: Guest, plugin: str, function: str
) -> BaseException | None:
    """Return the exception for a call that was unwound; None if the guest exited with the code 0.

    The first of several causes counts: an exception of the host or the application, exhausted fuel,
    the message of `error_set`, the trap.
    """
    frames = failure.frames
    while isinstance(failure, HostRaised) and isinstance(
        failure.exception, (NestedFailure, EngineFailure)
    ):
        failure = (
            failure.exception.failure
            if isinstance(failure.exception, NestedFailure)
            else failure.exception
        )
        # Inside one store the engine has put the frames of the outer call after them.
        frames = (
            failure.frames if failure.frames[-len(frames) :] == frames else failure.frames + frames
        )
    if guest.restore_frames is not None:
        frames = guest.restore_frames(frames)
    facts: dict[str, Any] = {"plugin": plugin, "function": function, "backtrace": frames}
    if isinstance(failure, HostRaised) and is_recursion_error(failure.exception):
        failure = Trap(
            STACK_OVERFLOW
        )  # Python's stack, by calls from module to module through the host
    if isinstance(failure, HostRaised):
        exception = failure.exception
        del (
            failure.exception
        )  # the failure becomes the context of this exception, and must not refer to it as well
        if type(exception) is BadHandleError and (shortage := _shortage(guest)):
            exception = OutOfMemoryError(
                f"it ran out of memory: {shortage}. Then {exception.message}"
            )
        return error_for_raised(exception, guest, facts)
    where = f"`{truncate(function)}` of plugin `{plugin}`"
    if isinstance(failure, Trap) and failure.message == OUT_OF_FUEL:
        limit = guest.grants.fuel_limit
        return OutOfFuelError(
            f"{where} used up its fuel, of which a call has {limit}: `fuel_limit` sets "
            "another limit",
            **facts,
        )
    if (error := error_for_reported(guest, facts, 0)) is not None:
        return error
    if isinstance(failure, Trap):
        if failure.message in _GIVEN_UP and (shortage := _shortage(guest)):
            return OutOfMemoryError(
                f"{where} ran out of memory: {shortage} ({failure.message})", **facts
            )
        hint = "; it recursed too deeply" if failure.message == STACK_OVERFLOW else ""
        return TrapError(f"{where} trapped: {failure.message}{hint}", trap=failure.message, **facts)
    for what, field in _COUNTED.items():  # of a command's instance
        if what in failure.message:
            reason = failure.message.partition("\n")[0]
            return OutOfMemoryError(
                f"{where} has more than its limits allow (`Limits.{field}`): {reason}", **facts
            )
    if _FULL_HEAP in failure.message:
        return OutOfMemoryError(
            f"{where} ran out of memory for objects and exceptions: its limit is "
            f"{_pages(guest.limits)}",
            **facts,
        )
    return CallError(f"{where} failed: {failure.message}", **facts)


def error_for_raised(
    exception: BaseException, guest: Guest, facts: dict[str, Any]
) -> BaseException | None:
    where = f"`{truncate(facts['function'])}` of plugin `{facts['plugin']}`"
    if isinstance(exception, PluginExit):
        code = exception.exit_code
        if (error := error_for_reported(guest, facts, 0)) is not None:
            error.code = code
            return error
        if code == 0:
            return None
        return ExitError(
            f"{where} ended itself with the exit code {code}{_maybe(_shortage(guest))}",
            code=code,
            **facts,
        )
    if isinstance(exception, Error):
        if isinstance(exception, TimeoutError):
            exception.message = (
                f"{where} did not end before its deadline of "
                f"{_deadline(guest.limits, guest.grants.spec)}"
            )
        else:
            exception.message = f"{where}: {exception.message}"
        exception.args = (exception.message,)
        exception.__dict__.update(facts)
    return exception


def _pages(limits: Limits) -> str:
    whole = f"{(limits.memory_bytes or 0) // _PAGE} pages of 64 KiB (`Limits.memory_bytes`)"
    if limits.max_pages is None:
        return whole
    grown = (
        f"{limits.max_pages} pages of 64 KiB that its memory and what is passed in and out may "
        "grow by (`memory.max_pages`)"
    )
    return grown if limits.memory_bytes is None else f"{grown}, and {whole} for everything"


def _deadline(limits: Limits, spec: PluginSpec) -> str:
    seconds = limits.timeout or 0
    shown = f"{seconds * 1000:.0f} ms"
    return (
        f"{shown} (timeout)"
        if spec.timeout_ms is not None
        else f"{shown}; `timeout_ms` or `Limits.timeout` sets another"
    )


def error_for_reported(guest: Guest, facts: dict[str, Any], code: int) -> Error | None:
    """Return the error that the guest reported through the kernel, or with its return code.

    None if it reported nothing.
    """
    where = f"`{truncate(facts['function'])}` of plugin `{facts['plugin']}`"
    fault, error, text, output, length, denied = read_outcome(guest)
    if not (fault or code):
        return None
    shortage = guest.describe_shortage(denied)
    if fault & FAULT_ERROR:
        message = text.decode("utf-8", "replace")
        reason = GuestError(message, guest_message=message, code=code, **facts)
        if shortage:
            reason.add_note(f"it may have run out of memory: {shortage}")
        return reason
    if not fault:
        return GuestError(
            f"{where} returned the error code {code}{_maybe(shortage)}", code=code, **facts
        )
    if fault & FAULT_ERROR_HANDLE:
        what = f"the error {error}"
    else:
        what = (
            f"the output to offset {output}, length {length}"
            if fault & FAULT_OUTPUT
            else "its input"
        )
    if shortage:
        return OutOfMemoryError(
            f"{where} ran out of memory: {shortage}. Then it set {what}", code=code, **facts
        )
    return BadHandleError(
        f"{where} set {what}, which is no memory that the plugin has allocated", code=code, **facts
    )


def _shortage(guest: Guest) -> str | None:
    return guest.describe_shortage(read_outcome(guest)[-1])


def _maybe(shortage: str | None) -> str:
    return f"; it may have run out of memory: {shortage}" if shortage else ""


def read_outcome(guest: Guest) -> tuple[int, int, bytes, int, int, int]:
    """Return the kernel's record of the call that has just ended.

    The kernel is called for it, which the limits of that call must not stop.
    """
    deadline = guest.deadline
    guest.deadline, guest.cancelled = NEVER, False
    left = guest.store.fuel() if guest.is_fuelled else 0
    if guest.is_fuelled:
        guest.store.set_fuel(left + _FUEL_OF_FAILURE)
    try:
        return guest.kernel.read_failure()
    except HostRaised as failure:  # of a signal handler
        raise failure.exception from None
    finally:
        guest.deadline = deadline  # which holds for what is made of the output
        if guest.is_fuelled:
            guest.store.set_fuel(left)


def parse_output(
    parse: Callable[[bytes], Any],
    output: bytes,
    deadline: float,
    compiled: CompiledPlugin,
    function: str,
) -> Any:
    """Return what `parse` makes of an output.

    Values that plugwasm itself builds of an output (by an `OutputReader`) are bounded by the
    plugin's limits and by the time of its call, as in a host function. Any other `parse` is the
    application's own, which has to bound it itself.
    """
    if not getattr(parse, "takes_limits", False):
        if not callable(parse):
            hint = (
                "write returns=… for a type"
                if isinstance(parse, str)
                else "a function of bytes, bytes itself, or None for a view"
            )
            raise OptionError(
                f"parse: expected {hint}, got {truncate(repr(parse), 40)}", field="parse"
            )
        return parse(output)
    if len(output) < _QUICK or monotonic() < deadline:
        value = parse(output, compiled.limits)  # type: ignore[call-arg]
        if monotonic() < deadline:
            return value
    where = f"`{function}` of plugin `{compiled.name}`"
    allowed = _deadline(compiled.limits, compiled._spec)
    raise TimeoutError(
        f"{where} did not end before its deadline of {allowed}: its output was not read by then",
        plugin=compiled.name,
        function=function,
    )


def error_for_trap_at_start(failure: EngineFailure, guest: Guest, plugin: str) -> BaseException:
    """Return the exception for a failure of code that the guest ran while it was started."""
    reason = error_for_unwound(failure, guest, plugin, START)
    return reason or CallError(
        f"plugin `{plugin}` ended itself while it was being started", plugin=plugin, function=START
    )


def error_for_failed_start(failure: EngineFailure, plugin: str, limits: Limits) -> Error:
    """Return the error for an instance that the engine refused to make."""
    if "memory minimum size" in failure.message:
        limit = f"its limit of {_pages(limits)} allows"
        return OutOfMemoryError(
            f"plugin `{plugin}` needs more memory at its start than {limit}: {failure.message}",
            plugin=plugin,
        )
    for what, field in _COUNTED.items():
        if what in failure.message:
            return OutOfMemoryError(
                f"plugin `{plugin}` has more than its limits allow (`Limits.{field}` is "
                f"{getattr(limits, field)}): {failure.message}",
                plugin=plugin,
            )
    if "os error 12" in failure.message:
        space = address_space_limit()
        if space is None:
            hint = (
                "close plugins that are not used, or raise vm.max_map_count (an instance takes "
                "about six mappings)"
            )
        else:
            hint = (
                f"this process may have {space} bytes of address space (RLIMIT_AS, `ulimit "
                "-v`): close plugins that are not used, or lift "
                "that limit (64 GiB or more are best; `Limits.memory_bytes` bounds what "
                "plugins really take)"
            )
        return OutOfMemoryError(
            f"the system has no memory for another instance of plugin `{plugin}`: {hint}",
            plugin=plugin,
        )
    return LinkError(f"plugin `{plugin}` cannot be instantiated: {failure.message}", plugin=plugin)


def no_room_error(
    plugin: str, function: str, length: int, limits: Limits, shortage: str | None = None
) -> OutOfMemoryError:
    """Return the error for an input that the kernel has no room for."""
    needs = -(-(length + INPUT_OFFSET) // _PAGE)
    why = (
        f"its limit is {_pages(limits)}"
        if shortage is None or length > (limits.memory_bytes or length)
        else shortage
    )
    return OutOfMemoryError(
        f"plugin `{plugin}` has no room for an input of {length} bytes, which takes {needs} "
        f"pages: {why}",
        plugin=plugin,
        function=function,
    )


def instance_lost_error(plugin: str, function: str) -> InstanceLostError:
    return InstanceLostError(
        f"plugin `{plugin}` lost its instance before `{truncate(function)}`, because SIGSEGV or a "
        f"signal like it is now handled by {lost_to()}, which would end the process if the plugin "
        "trapped; its next call starts an instance that needs no signals "
        "(`plugwasm.use_explicit_checks`)",
        plugin=plugin,
        function=function,
    )


def no_stack_error(plugin: str, function: str | None, stack: ThreadStack) -> StackError:
    """Return the error for a thread with too little stack left for a call, or for compiling."""
    where = f"`{truncate(function)}` of plugin `{plugin}`" if function else f"plugin `{plugin}`"
    room = stack.room()
    if room is None:
        return StackError(
            f"{where}: how much this thread has left of its stack cannot be found out, and a "
            f"plugin needs {stack.need // 1024} KiB: "
            "the system may have no file descriptor left to tell it",
            plugin=plugin,
            function=function,
        )
    return StackError(
        f"{where}: this thread has {max(0, room) // 1024} KiB of its stack left, and a plugin "
        "needs "
        f"{stack.need // 1024} KiB: make the thread with more (`threading.stack_size`), let "
        "plugins call plugins less deep, or give "
        "guests less (`Limits.stack_bytes`)",
        plugin=plugin,
        function=function,
    )
