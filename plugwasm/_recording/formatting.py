"""Parts of recordings as text: host calls as code, and two values so that their difference
shows."""

from __future__ import annotations

from .._host.observed_values import shorten
from ..errors import escape_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .schema import Data, Failure, HostCall, Value

_CONTEXT, _EXCERPT, _MAX_MESSAGE = 20, 100, 500


def format_value(value: Value | Data) -> str:
    """Format a value briefly."""
    return shorten(_unwrap(value))


def format_call(name: str, args: Sequence[Value]) -> str:
    """Format a call of a host function."""
    return f"{escape_line(name)}({', '.join(map(format_value, args))})"


def format_host_call(call: HostCall) -> str:
    """Format a recorded host call."""
    return format_call(call.name, call.args)


def format_failure(error: Failure) -> str:
    """Format the exception that a call ended with."""
    facts = [f"the code {error.code}"] if error.code else []
    facts += [f"the trap {error.trap!r}"] if error.trap else []
    said = (
        shorten(error.guest_message)
        if error.guest_message is not None
        else escape_line(error.message[:_MAX_MESSAGE])
    )
    return f"{escape_line(error.type)}{' with ' + ' and '.join(facts) if facts else ''}: {said}"


def format_call_pair(recorded: HostCall, name: str, args: Sequence[Value]) -> tuple[str, str]:
    """Format two calls of one function so that differences between the arguments show."""
    pairs = [format_pair(a, b) for a, b in zip(recorded.args, args, strict=False)]
    before, after = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    before += map(format_value, recorded.args[len(pairs) :])
    after += map(format_value, args[len(pairs) :])
    return (
        f"{escape_line(recorded.name)}({', '.join(before)})",
        f"{escape_line(name)}({', '.join(after)})",
    )


def format_pair(recorded: Value | Data, now: Value | Data) -> tuple[str, str]:
    """Format two values; of long ones, the part where they begin to differ."""
    a, b = _unwrap(recorded), _unwrap(now)
    if not (isinstance(a, (str, bytes)) and type(a) is type(b) and max(len(a), len(b)) > _EXCERPT):
        return shorten(a), shorten(b)
    at = common_prefix_length(a, b)
    start = max(0, at - _CONTEXT)
    return _excerpt(a, start), _excerpt(b, start)


def _excerpt(value: str | bytes, start: int) -> str:
    end = start + _EXCERPT
    unit = "characters" if isinstance(value, str) else "bytes"
    before = f"{start} {unit} … " if start else ""
    after = f" … {len(value) - end} {unit}" if len(value) > end else ""
    return f"{before}{value[start:end]!r}{after}"


def common_prefix_length(a: str | bytes, b: str | bytes) -> int:
    """Return the length of the longest common prefix."""
    low, high = 0, min(len(a), len(b))
    while low < high:  # binary search
        middle = (low + high + 1) // 2
        low, high = (middle, high) if a[low:middle] == b[low:middle] else (low, middle - 1)
    return low


def _unwrap(value: Value | Data) -> object:
    if value.text is not None:
        return value.text
    if value.base64 is not None:
        return value.base64
    return next(
        (
            _BareRepr(it)
            for name in ("i32", "i64", "f32", "f64")
            if (it := getattr(value, name, None)) is not None
        ),
        value,
    )


class _BareRepr:
    """A number, or the text of one, that `repr` shows without quotes."""

    def __init__(self, value: object) -> None:
        self._value = value

    def __repr__(self) -> str:
        return str(self._value)
