"""Calling the plugins of a set one after the other, for tasks in a thread.

This decides which output is an answer, and whose fault an exception is.

Decisions: docs/decisions.md, 21.4, 21.6, 30.5 and 41.4.
"""

from __future__ import annotations

from typing import Any, Generic, NamedTuple, TypeVar

from .._public import set_public_module
from ..errors import CancelledError, Error, OptionError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .._host.thread_call import ThreadCall
    from .state import PluginEntry

    EntryCall = Callable[[PluginEntry, str, Any, dict[str, Any]], Any]

__all__ = [
    "ParseError",
    "Result",
    "call_all",
    "call_chain",
    "call_first",
    "call_one",
    "dispatch_in_thread",
    "guard_parse",
]

T = TypeVar("T")


class Result(NamedTuple, Generic[T]):
    """The result of a hook in one plugin: an output, or an error.

    Attributes:
        plugin: The name of the plugin.
        output: The output of the call; None when it failed.
        error: The error of the call; None when it ended well.
    """

    plugin: str
    output: T | None = None
    error: Exception | None = None

    @property
    def ok(self) -> bool:
        """Whether the call ended well."""
        return self.error is None

    def get(self) -> T:
        """Return the output. Raise the error if there is one."""
        if self.error is not None:
            raise self.error
        return self.output  # type: ignore[return-value]


set_public_module("plugwasm.plugin_set", Result)


class ParseError(Exception):
    """The application's `parse` raised."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(reason)
        self.reason = reason


# ---- one after the other -------------------------------------------------------------------------
#
# `call` calls one plugin: `PluginEntry.call`, or in a thread the wrapper of `dispatch_in_thread`.


def call_first(
    call: EntryCall,
    serving: Sequence[PluginEntry],
    hook: str,
    data: Any,
    stop: bool,
    options: dict[str, Any],
) -> Any:
    """Return the first output that is an answer; None when no plugin gave one."""
    for entry in serving:
        try:
            output = call(entry, hook, *_skip_empty(entry.name, hook, data, options))
        except (Error, ParseError) as error:
            entry.record_failure(hook, error, stop)
            continue
        if output is not None:
            return output
    return None


def call_all(
    call: EntryCall,
    serving: Sequence[PluginEntry],
    hook: str,
    data: Any,
    stop: bool,
    options: dict[str, Any],
) -> list[Result[Any]]:
    """Return a result for each plugin."""
    results: list[Result[Any]] = []
    for entry in serving:
        try:
            results.append(Result(entry.name, call(entry, hook, data, options)))
        except (Error, ParseError) as error:
            results.append(Result(entry.name, error=entry.record_failure(hook, error, stop)))
    return results


def call_chain(
    call: EntryCall,
    serving: Sequence[PluginEntry],
    hook: str,
    data: Any,
    stop: bool,
    options: dict[str, Any],
) -> Any:
    """Return the last output, each made of the one before it."""
    for entry in serving:
        try:
            data = call(entry, hook, data, options)
        except (Error, ParseError) as error:
            entry.record_failure(hook, error, stop)
    return data


def call_one(
    call: EntryCall, entry: PluginEntry, function_name: str, data: Any, options: dict[str, Any]
) -> Any:
    """Call one plugin; its error is noted and raised."""
    try:
        return call(entry, function_name, data, options)
    except (Error, ParseError) as error:
        raise entry.record_failure(function_name, error, True) from None


# ---- in a thread ---------------------------------------------------------------------------------


class _Abandoned(Exception):
    """The task was cancelled: this error is no plugin's fault, and no other plugin is called."""


async def dispatch_in_thread(limiter: Any, dispatch: Callable[..., Any], *args: Any) -> Any:
    """Run `dispatch`, one of the functions above, in a thread for a task.

    All plugins are called in this thread. When the task is cancelled, the plugin that runs is
    cancelled too.
    """
    from .._runtime.threads import default_limiter, run_in_thread

    def work(thread_call: ThreadCall) -> Any:
        def call(entry: PluginEntry, function_name: str, data: Any, options: dict[str, Any]) -> Any:
            if thread_call.is_abandoned:
                raise _Abandoned
            try:
                return entry.call(function_name, data, options, thread_call)
            except (Error, ParseError) as error:
                if _is_cancellation(error) and not _is_awaited(thread_call):
                    raise _Abandoned from error
                raise

        return dispatch(call, *args)

    return await run_in_thread(work, default_limiter() if limiter is None else limiter)


def _is_cancellation(error: BaseException) -> bool:
    return isinstance(error, CancelledError) or isinstance(error.__cause__, CancelledError)


def _is_awaited(thread_call: ThreadCall) -> bool:
    """Return whether the task still waits.

    The thread learns of a cancelled coroutine before the task itself has ended.
    """
    try:
        thread_call.run_coroutine(_do_nothing, ())
    except CancelledError:
        return False
    return True


async def _do_nothing() -> None:
    pass


# ---- options of calls ----------------------------------------------------------------------------


def guard_parse(options: dict[str, Any]) -> dict[str, Any]:
    """Return options for calls whose `parse` raises nothing but `ParseError`."""
    parse = options.get("parse", bytes)
    if parse is None:
        raise OptionError(
            "parse: a plugin set gives no views, for the instance serves other calls next; "
            "leave it out to get bytes"
        )
    if parse is bytes:
        return options

    def parsed(output: bytes) -> Any:
        try:
            return parse(output)
        except Exception as error:
            raise ParseError(error) from error

    return options | {"parse": parsed}


def _skip_empty(
    plugin: str, hook: str, data: Any, options: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """Return data and options for a call that returns None for an empty output."""
    others = dict(options)
    returns, codec, parse = (
        others.pop("returns", None),
        others.pop("codec", None),
        others.pop("parse", bytes),
    )
    if returns is not None or codec is not None:
        from .._host.codecs import OptionalOutputReader, OutputReader, prepare_typed_call

        data, parse = prepare_typed_call(hook, data, parse, returns, codec, plugin)
        if isinstance(parse, OutputReader):
            return data, others | {"parse": OptionalOutputReader(parse)}
    return data, others | {"parse": lambda output: parse(output) if output else None}
