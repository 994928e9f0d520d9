"""What is wrong with a manifest, in words: which field, where it stands, what was expected there and what was found.

The checks of ``manifest`` and those of msgspec end in the same sentences here, so that an application's user reads one language.
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
    """The type of a value in the words of JSON."""
    return _KINDS.get(type(value).__name__, type(value).__name__)


MOST_COMPARED = 500
"""Names among which one is looked for that may have been meant: comparing takes 0.1 ms each, and a stranger may have chosen them."""


def closest_match(name: str, names: Sequence[str]) -> str | None:
    """The one of the names that may have been meant."""
    if len(names) > MOST_COMPARED:
        return None
    import difflib

    return next(iter(difflib.get_close_matches(name, names, 1)), None)


def truncate(text: str) -> str:
    """Text from outside, for a message: printable and not too long."""
    return errors.truncate(text)


def quote(text: str) -> str:
    """The same in quotes."""
    return f'"{truncate(text)}"'


def check_encodable(text: str, where: str, *, field: str | None = None) -> None:
    """Raises `OptionError` for text that UTF-8 cannot say."""
    try:
        text.isascii() or text.encode()
    except UnicodeEncodeError as error:
        raise errors.OptionError(
            f"{where}: expected text that can be encoded as UTF-8, got a lone surrogate at character {error.start}",
            field=field,
        ) from None


def field_error(field: str, reason: str, what: str = "manifest") -> ManifestError:
    """The error for a field, by its place (empty: the manifest as a whole), that says what was expected and what was there."""
    return ManifestError(
        f"{what} field `{field}`: {reason}".lstrip() if field else f"{what or 'file'}: {reason}",
        field=field or None,
        reason=reason,
    )


def from_msgspec(
    error: ValidationError, known_fields: Callable[[str], Sequence[str]], of: str = "manifest"
) -> ManifestError:
    """msgspec's words for what is wrong, which say where as ``$.wasm[0].path``, as a ``ManifestError``.

    ``known_fields`` gives the names that may stand at a place, for a hint when there is another. ``of`` says what the fields are of; empty
    where the file is named before it.
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
        return _unknown(where, what.partition("`")[2].removesuffix("`"), known_fields(where), of)
    if what.startswith("Object missing required field"):
        return field_error(quoted[1], "it is missing, and says what to run", of)
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


def _unknown(where: str, name: str, known: Sequence[str], of: str) -> ManifestError:
    import difflib

    close = difflib.get_close_matches(name[:64], known, n=1)
    hint = f"did you mean `{close[0]}`?" if close else f"known are {', '.join(known)}"
    return field_error(
        f"{where}{'.' if where else ''}{truncate(name)}", f"unknown field; {hint}", of
    )
