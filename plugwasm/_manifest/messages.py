"""Sentences about errors in a manifest: the field and its place, what was expected there and what
was found.

The checks of ``model`` and those of msgspec use the same sentences, so that users read one
language.
"""

from __future__ import annotations

from .. import errors
from ..errors import ManifestError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Final

    from msgspec import ValidationError

__all__ = [
    "check_encodable",
    "closest_match",
    "field_error",
    "from_msgspec",
    "json_type",
    "quote",
    "truncate",
]

_KINDS: Final = {
    "str": "a string",
    "int": "an integer",
    "float": "a number with a fraction",
    "bool": "a boolean",
    "null": "null",
    "NoneType": "null",
    "bytes": "bytes",
    "array": "a list",
    "list": "a list",
    "object": "an object",
    "dict": "an object",
}


def json_type(value: object) -> str:
    """Return the type of a value in the words of JSON."""
    return _KINDS.get(type(value).__name__, type(value).__name__)


MOST_COMPARED = 500
"""The most names to compare: comparing takes 0.1 ms each, and a stranger may have chosen them."""


def closest_match(name: str, names: Sequence[str]) -> str | None:
    """Return the name that is most like the given one, or None."""
    if len(names) > MOST_COMPARED:
        return None
    import difflib

    return next(iter(difflib.get_close_matches(name, names, 1)), None)


def truncate(text: str) -> str:
    """Return text from outside for a message: on one line, and not too long."""
    return errors.truncate(text)


def quote(text: str) -> str:
    """Return text from outside for a message, truncated and in quotes."""
    return f'"{truncate(text)}"'


def check_encodable(text: str, where: str, *, field: str | None = None) -> None:
    """Raise `OptionError` for text that cannot be encoded as UTF-8."""
    try:
        text.isascii() or text.encode()
    except UnicodeEncodeError as error:
        raise errors.OptionError(
            f"{where}: expected text that can be encoded as UTF-8, got a lone surrogate at "
            f"character {error.start}",
            field=field,
        ) from None


def field_error(field: str, reason: str, what: str = "manifest") -> ManifestError:
    """Return the error for a field.

    Args:
        field: Its place, e.g. ``wasm[0].hash``; empty for the manifest as a whole.
        reason: What was expected there, and what was found.
        what: What the field belongs to; empty if the message names the file before.
    """
    return ManifestError(
        f"{what} field `{field}`: {reason}".lstrip() if field else f"{what or 'file'}: {reason}",
        field=field or None,
        reason=reason,
    )


def from_msgspec(
    error: ValidationError, known_fields: Callable[[str], Sequence[str]], of: str = "manifest"
) -> ManifestError:
    """Return the ``ManifestError`` for an error of msgspec, whose text has the place as
    ``$.wasm[0].path``.

    Args:
        error: Raised by msgspec; its cause may be an error of ours.
        known_fields: Returns the field names that are allowed at a place, for a hint.
        of: What the fields belong to; empty if the message names the file before.
    """
    what, _, path = str(error).rpartition(" - at `")
    if not what:
        what, path = str(error), ""
    is_key = path.startswith("key` in `")
    where = path.removeprefix("key` in `").removesuffix("`").removeprefix("$").removeprefix(".")
    cause = error.__cause__
    if isinstance(cause, ManifestError):
        field = cause.field or ""
        return field_error(f"{where}{'.' if where and field else ''}{field}", cause.reason, of)
    quoted = what.split("`")
    if what.startswith("Object contains unknown field"):
        return _unknown_field_error(
            where, what.partition("`")[2].removesuffix("`"), known_fields(where), of
        )
    if what.startswith("Object missing required field"):
        name = quoted[1]
        says = ", and says what to run" if name == "wasm" else ""
        return field_error(f"{where}{'.' if where else ''}{name}", f"it is missing{says}", of)
    if is_key:
        return field_error(
            where, "expected names of fields that are strings, got another type as a name", of
        )
    if what.startswith("Expected") and len(quoted) >= 4:
        expected = " or ".join(_KINDS.get(name, name) for name in quoted[1].split(" | "))
        if where.endswith(".data"):
            expected = "bytes, base64 text or null"
        return field_error(
            where, f"expected {expected}, got {_KINDS.get(quoted[3], quoted[3])}", of
        )
    return field_error(where, what, of)


_PROJECT_TABLES = frozenset(("plugin", "build", "test"))
"""The tables of a `plugin.toml` that a manifest does not have."""


def _unknown_field_error(where: str, name: str, known: Sequence[str], of: str) -> ManifestError:
    import difflib

    close = difflib.get_close_matches(name[:64], known, n=1)
    hint = f"did you mean `{close[0]}`?" if close else f"known are {', '.join(known)}"
    if of == "manifest" and not where and name in _PROJECT_TABLES:
        hint = "this is the file of a project, not a manifest; name the module that it builds"
    return field_error(
        f"{where}{'.' if where else ''}{truncate(name)}", f"unknown field; {hint}", of
    )
