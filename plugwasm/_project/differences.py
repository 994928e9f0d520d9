"""Differences between what a case expects and what a plugin gave, as lines of text.

What a plugin gave is not trusted: it may be large, nested deeply, or no text. All lines can be
shown in a terminal.
"""

from __future__ import annotations

import json
from typing import Any, Final

from ..errors import escape_line, truncate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["bytes_difference", "json_difference", "read_json", "text_difference"]

_MOST_SHOWN: Final = 5
"""The most differences of two JSON values that are shown."""
_MOST_LINES: Final = 30
_MOST_WHOLE: Final = 80
"""The most characters of a line that are shown whole."""
_MOST_COMPARED: Final = 20_000
"""The most characters of texts whose lines are compared; that takes quadratic time."""
_MISSING: Final = object()
_INVISIBLE: Final = dict.fromkeys(map(ord, "\n\r\t"))
"""Characters that text has although they cannot be printed."""


def bytes_difference(expected: bytes, got: bytes) -> str:
    """Return how bytes differ, as text if both are; empty if they do not."""
    if expected == got:
        return ""
    expected_text, text = _as_text(expected), _as_text(got)
    if expected_text is not None and text is not None:
        return text_difference(expected_text, text)
    place = _first_difference(expected, got)
    start = max(0, place - 4)
    return (
        f"bytes differ at {place}: expected {len(expected)} bytes, got {len(got)}\n"
        f"expected {_hex(expected, start)}\n"
        f"     got {_hex(got, start)}"
    )


def _as_text(data: bytes) -> str | None:
    """Return bytes as text, unless they are none or have characters that cannot be seen."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    return text if text.translate(_INVISIBLE).isprintable() else None


def _hex(data: bytes, start: int) -> str:
    shown = data[start : start + 16].hex(" ") or "nothing"
    return f"{'… ' if start else ''}{shown}{' …' if len(data) > start + 16 else ''}"


def text_difference(expected: str, got: str) -> str:
    """Return how texts differ; empty if they do not."""
    if expected == got:
        return ""
    if "\n" not in expected.rstrip("\n") or len(expected) + len(got) > _MOST_COMPARED:
        return _line_difference(expected, got)
    import difflib

    lines = difflib.unified_diff(
        expected.splitlines(), got.splitlines(), "expected", "got", lineterm="", n=2
    )
    shown = [escape_line(line) for line in lines]
    if not shown:
        return "they differ only in the ends of their lines"
    if len(shown) > _MOST_LINES:
        shown[_MOST_LINES:] = [f"… ({len(shown) - _MOST_LINES} more lines)"]
    return "\n".join(shown)


def _line_difference(expected: str, got: str) -> str:
    if len(expected) <= _MOST_WHOLE and len(got) <= _MOST_WHOLE:
        return f"expected {escape_line(repr(expected))}\n     got {escape_line(repr(got))}"
    place = _first_difference(expected, got)
    start = max(0, place - 20)
    return (
        f"texts differ at character {place}: expected {len(expected)} characters, got {len(got)}\n"
        f"expected {_part(expected, start)}\n"
        f"     got {_part(got, start)}"
    )


def _first_difference(expected: Sequence[object], got: Sequence[object]) -> int:
    pairs = enumerate(zip(expected, got, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(expected), len(got)))


def _part(text: str, start: int) -> str:
    end = start + _MOST_WHOLE
    shown = escape_line(repr(text[start:end]))
    return f"{'… ' if start else ''}{shown}{' …' if len(text) > end else ''}"


def read_json(data: bytes) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: It is none; the message says why.
    """
    try:
        return json.loads(data.decode(), parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8: {error}") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _no_constant(name: str) -> None:
    raise ValueError(f"JSON has no {name}")


def json_difference(expected: Any, got: Any) -> str:
    """Return how JSON values differ, with the path to each place; empty if they do not.

    Numbers are equal if their values are: 2 and 2.0. The order of names does not matter.
    """
    found: list[str] = []
    for place, wanted, value in _differences("$", expected, got):
        if len(found) == _MOST_SHOWN:
            found.append("… (more differences)")
            break
        if value is _MISSING:
            found.append(f"{place}: expected {_json(wanted)}, but it is missing")
        elif wanted is _MISSING:
            found.append(f"{place}: not expected, got {_json(value)}")
        else:
            hint = ""
            if isinstance(wanted, str) and wanted.lstrip()[:1] in ("{", "["):
                hint = " (the expected value is text that looks like JSON: write it as a value)"
            found.append(f"{place}: expected {_json(wanted)}, got {_json(value)}{hint}")
    return "\n".join(found)


def _differences(place: str, expected: Any, got: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(expected, dict) and isinstance(got, dict):
        for name in expected:
            yield from _differences(_member(place, name), expected[name], got.get(name, _MISSING))
        for name in got:
            if name not in expected:
                yield _member(place, name), _MISSING, got[name]
    elif isinstance(expected, list) and isinstance(got, list):
        for index in range(max(len(expected), len(got))):
            yield from _differences(
                f"{place}[{index}]",
                expected[index] if index < len(expected) else _MISSING,
                got[index] if index < len(got) else _MISSING,
            )
    elif not _is_equal(expected, got):
        yield place, expected, got


def _is_equal(expected: Any, got: Any) -> bool:
    if isinstance(expected, bool) or isinstance(got, bool):
        return expected is got
    if isinstance(expected, (int, float)) and isinstance(got, (int, float)):
        return expected == got
    return type(expected) is type(got) and bool(expected == got)


def _member(place: str, name: str) -> str:
    return f"{place}.{name}" if name.isidentifier() else f"{place}[{truncate(json.dumps(name))}]"


def _json(value: Any) -> str:
    if _is_deep(value):
        return "a value that is nested deeply"
    text = json.dumps(value, ensure_ascii=False)
    return escape_line(text if len(text) <= 120 else f"{text[:80]} … {text[-36:]}")


def _is_deep(value: Any, levels: int = 50) -> bool:
    if not isinstance(value, (dict, list)):
        return False
    items = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_is_deep(item, levels - 1) for item in items)
