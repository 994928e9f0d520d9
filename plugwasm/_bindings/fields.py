"""The fields of a schema's objects, and what is wrong with them: each problem has its path."""

from __future__ import annotations

import re
from typing import Any, Final

from .._manifest.messages import closest_match, json_type, quote
from ..errors import truncate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .document import Document, Path

__all__ = ["NAME", "Fields", "did_you_mean", "has_lone_surrogate", "one_of", "shown"]

NAME: Final = re.compile(r"[a-zA-Z_$][a-zA-Z0-9_$]{0,99}")
MAX_TEXT: Final = 10_000


class Fields:
    """Checks fields, and collects problems."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.problems: list[tuple[int, str]] = []
        """Lines, 0 where none is known, and what is wrong there."""

    def problem(self, path: Path, message: str) -> None:
        line = self.document.line(path)
        place = f"line {line}: " if line else ""
        where = "".join(part if part.startswith("[") else f".{part}" for part in path)
        where = truncate(where.lstrip("."))
        self.problems.append((line or 0, f"{place}{where}{': ' if where else ''}{message}"))

    def mapping(self, value: Any, path: Path) -> dict[str, Any] | None:
        if isinstance(value, dict):
            return value
        self.problem(path, f"expected an object, got {shown(value)}")
        return None

    def named(self, value: Any, path: Path) -> dict[str, Any]:
        """Return an object whose keys are names."""
        return {
            name: node
            for name, node in (self.mapping(value, path) or {}).items()
            if self.check_name(name, (*path, name))
        }

    def check_name(self, name: str, path: Path) -> bool:
        if NAME.fullmatch(name):
            return True
        self.problem(
            path, "a name has up to 100 letters of ASCII, digits, `_` and `$`, and no digit first"
        )
        return False

    def only(self, node: dict[str, Any], path: Path, allowed: tuple[str, ...]) -> None:
        for key in node:
            if key not in allowed and not key.startswith("x-"):
                hint = closest_match(key, allowed)
                self.problem((*path, key), "is no field of this object" + did_you_mean(hint))

    def description(self, node: dict[str, Any], path: Path) -> str:
        value = node.get("description")
        if value is None:
            return ""
        if not isinstance(value, str):
            self.problem((*path, "description"), f"expected a string, got {json_type(value)}")
            return ""
        if len(value) > MAX_TEXT:
            self.problem((*path, "description"), f"expected at most {MAX_TEXT} characters")
        return value

    def flag(self, node: dict[str, Any], key: str, path: Path) -> bool:
        value = node.get(key, False)
        if not isinstance(value, bool):
            self.problem((*path, key), f"expected true or false, got {shown(value)}")
            return False
        return value


def shown(value: Any, missing: str = "null") -> str:
    if value is None:
        return missing
    if isinstance(value, str):
        return quote(value)
    if isinstance(value, (bool, int, float)):
        return truncate(str(value).lower(), 40)
    return "an empty list" if value == [] else json_type(value)


def one_of(values: Any) -> str:
    quoted = [f'"{value}"' for value in values]
    return f"{', '.join(quoted[:-1])} or {quoted[-1]}"


def did_you_mean(close: str | None) -> str:
    return f" (did you mean `{truncate(close)}`?)" if close else ""


def has_lone_surrogate(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)
