"""How a set asks its plugins, one after the other: whose fault what is raised is, and which output is an answer. For tasks, in a thread."""

from __future__ import annotations

from typing import Any, Generic, NamedTuple, TypeVar

from ..errors import CancelledError, Error, OptionError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .._host.event_loop import ThreadCall
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
    """What one plugin made of a hook: an output, or an error."""

    plugin: str
    output: T | None = None
    error: Exception | None = None

    @property
    def ok(self) -> bool:
        """Whether the call ended well."""
        return self.error is None

    def get(self) -> T:
        """The output. Raises the error if there is one."""
        if self.error is not None:
            raise self.error
        return self.output  # type: ignore[return-value]


Result.__module__ = "plugwasm.plugin_set"


class ParseError(Exception):
    """The application's `parse` raised."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(reason)
        self.reason = reason


# ---- one after the other ------------------------------------------------------------------------------------------------------------
#
# `call` calls one plugin: `PluginEntry.call`, or in a thread what `dispatch_in_thread` makes of it.


def call_first(
    call: EntryCall,
    serving: Sequence[PluginEntry],
    hook: str,
    data: Any,
    stop: bool,
    options: dict[str, Any],
) -> Any:
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
    for entry in serving:
        try:
            data = call(entry, hook, data, options)
        except (Error, ParseError) as error:
            entry.record_failure(hook, error, stop)
    return data


def call_one(
    call: EntryCall, entry: PluginEntry, function_name: str, data: Any, options: dict[str, Any]
) -> Any:
    try:
        return call(entry, function_name, data, options)
    except (Error, ParseError) as error:
        raise entry.record_failure(function_name, error, True) from None


# ---- in a thread --------------------------------------------------------------------------------------------------------------------


class _Abandoned(Exception):
    """The task was cancelled, so this error is no plugin's, and no other plugin is asked."""


async def dispatch_in_thread(limiter: Any, dispatch: Callable[..., Any], *args: Any) -> Any:
    """What `dispatch`, one of the above, gives. All plugins are called in one thread.

    A task that is cancelled cancels the one that runs.
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
    """Whether the task still waits. The thread hears of a coroutine that was cancelled before the task itself has ended."""
    try:
        thread_call.run_coroutine(_do_nothing, ())
    except CancelledError:
        return False
    return True


async def _do_nothing() -> None:
    pass


# ---- what is made of outputs --------------------------------------------------------------------------------------------------------


def guard_parse(options: dict[str, Any]) -> dict[str, Any]:
    """Options for calls whose `parse` raises nothing but `ParseError`."""
    parse = options.get("parse", bytes)
    if parse is None:
        raise OptionError(
            "parse: a plugin set gives no views, for the instance serves other calls next; leave it out to get bytes"
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
    """Data and options for a call that gives None for an output that is empty."""
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
