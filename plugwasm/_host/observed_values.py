"""The values of calls as observers see them: blocks of the plugin's memory as their content."""

from __future__ import annotations

from .wasm_values import READ, VAL_TYPES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from .guest import Guest

_MASK = 0xFFFFFFFFFFFFFFFF
_SIGN = 0x8000000000000000
_MAX_SHOWN = 120
_MAX_BYTES = 16 * 2**20
"""Bytes of a block that are copied."""


def observe_values(
    guest: Guest, types: Sequence[str], values: Any, kinds: Sequence[Any]
) -> tuple[Any, ...]:
    """Convert raw values (number i is `values[2 * i]`) of these Wasm types to Python values.

    Missing Python types count as None.
    """
    padded = (*kinds, *[None] * len(types))
    return tuple(
        observe_value(guest, type, values[2 * i], padded[i]) for i, type in enumerate(types)
    )


def observe_value(guest: Guest, type: str, raw: int, kind: Any) -> Any:
    """Convert a raw value of a Wasm type to the Python type `kind`, or to bytes or a number if that
    fails.

    If `kind` is None, an i64 that is the handle of a block becomes the content of the block, and
    any other a number.
    """
    number = READ[VAL_TYPES[type]]((raw & _MASK ^ _SIGN) - _SIGN)
    if type != "i64":
        return bool(number) if kind is bool and type == "i32" else number
    if kind is int or (data := guest.find_block(raw, _MAX_BYTES)) is None:
        plain = getattr(kind, "__origin__", kind)
        return plain() if not raw and plain in (str, bytes, dict, list) else number
    if kind in (None, bytes) or len(data) == _MAX_BYTES:
        return data
    try:
        if kind is str:
            return data.decode()
        from .conversion import get_reader, make_json_reader

        return get_reader(make_json_reader, kind)(data, guest.limits)
    except Exception:
        return data


def shorten(value: object) -> str:
    """Return a value as part of a line of text; a long one is cut in its middle."""
    try:
        is_long = isinstance(value, (str, bytes)) and len(value) > 4 * _MAX_SHOWN
        text = repr(value[:_MAX_SHOWN]) + repr(value[-_MAX_SHOWN:]) if is_long else repr(value)  # type: ignore[index]
    except Exception as error:
        text = f"<{type(value).__name__}, whose repr raised {type(error).__name__}>"
    if len(text) <= _MAX_SHOWN:
        return text
    return f"{text[: _MAX_SHOWN * 2 // 3]} … {text[-_MAX_SHOWN // 3 :]}"
