"""Errors of msgspec, pydantic and codecs in one form: what was wrong with the bytes, and where."""

from __future__ import annotations

from .._manifest.messages import truncate

SHOWN_BYTES = 60
"""Bytes of unreadable data that a message shows."""
_MAX_COMPLAINTS = 1000
"""With more complaints of pydantic than this, no list of them is made."""


class DecodeError(ValueError):
    """Bytes that are no value of the requested type.

    Attributes:
        reason: What was expected and what was found.
        path: Where, e.g. ``"$.items[3].name"``; ``"$"`` is the whole.
    """

    __module__ = "plugwasm.codecs"

    def __init__(self, reason: str, path: str = "$") -> None:
        super().__init__(reason, path)
        self.reason = reason
        self.path = path

    def __str__(self) -> str:
        return self.reason if self.path == "$" else f"{self.reason} at `{self.path}`"


def from_msgspec(error: Exception) -> DecodeError:
    """Turn an error of msgspec, e.g. "Expected `int`, got `str` - at `$.a[0]`", into a
    `DecodeError`.
    """
    reason, _, place = str(error).rpartition(" - at `")
    if not reason:
        reason, place = str(error), "$"
    place = place.removesuffix("`")
    if place.startswith("key` in `"):
        reason, place = f"{reason} as a key", place.removeprefix("key` in `")
    inner = error.__cause__
    if isinstance(inner, DecodeError):
        reason, place = inner.reason, place + inner.path.removeprefix("$")
    return DecodeError(_as_clause(reason), place)


def describe_error(error: Exception) -> tuple[str, str]:
    """Return the reason and the path of whatever a codec raised."""
    if isinstance(error, DecodeError):
        return truncate(error.reason), truncate(error.path)
    complaints = getattr(error, "errors", None)
    if callable(complaints) and _is_pydantic_error(error):
        if (count := error.error_count()) > _MAX_COMPLAINTS:  # type: ignore[attr-defined]
            return f"{count} values of it are not valid", "$"
        first = complaints(include_url=False, include_context=False, include_input=False)[0]
        steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in first["loc"])
        return truncate(_as_clause(first["msg"])), truncate("$" + "".join(steps))
    return truncate(f"{type(error).__name__}: {error}"), "$"


def _as_clause(reason: str) -> str:
    """Turn a sentence into the rest of one."""
    return reason if reason[:2].isupper() else reason[:1].lower() + reason[1:]


def _is_pydantic_error(error: Exception) -> bool:
    return type(error).__module__.partition(".")[0] in ("pydantic", "pydantic_core")


def with_path(reason: str, path: str) -> str:
    return reason if path == "$" else f"{reason} at `{path}`"


def describe_start(data: bytes) -> str:
    """Return the first bytes, for a message."""
    if not data:
        return "is empty"
    return f"is {data!r}" if len(data) <= SHOWN_BYTES else f"begins with {data[:SHOWN_BYTES]!r}"
