"""Names of a schema as names of a language: case, words that are taken, collisions."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Final

from ..errors import SchemaError, truncate
from .model import Choice, Interface, Record, Union

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Case = Callable[[str], str]

__all__ = ["Names", "Style", "camel", "pascal", "same", "snake", "upper_snake"]

_LONGEST_VALUE: Final = 40
"""As many characters of a value go into its name."""
_WORD: Final = re.compile(r"[A-Z]+(?![a-z])[0-9]*|[A-Z]?[a-z]+[0-9]*|[0-9]+")


def _words(name: str) -> list[str]:
    name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return _WORD.findall(name) or ["empty" if not name else "value"]


def snake(name: str) -> str:
    return "_".join(_words(name)).lower()


def upper_snake(name: str) -> str:
    return "_".join(_words(name)).upper()


def pascal(name: str) -> str:
    return "".join(word[:1].upper() + word[1:].lower() for word in _words(name))


def camel(name: str) -> str:
    made = pascal(name)
    return made[:1].lower() + made[1:]


def same(name: str) -> str:
    return name


@dataclass(frozen=True, slots=True)
class Style:
    """How a language writes names. The sets are names that are taken there; one that is taken gets
    a `_` behind it.
    """

    language: str
    types: Case
    fields: Case
    functions: Case
    values: Case
    keywords: frozenset[str]
    taken_types: frozenset[str] = frozenset()
    taken_fields: frozenset[str] = frozenset()
    taken_functions: frozenset[str] = frozenset()


class Names:
    """The names of an interface in a language.

    Attributes:
        types: By the names in the schema.
        exports: Likewise.
        imports: Likewise.

    Raises:
        SchemaError: Two names would be the same.
    """

    def __init__(self, interface: Interface, style: Style) -> None:
        self._style = style
        self._problems: list[str] = []
        types = style.keywords | style.taken_types
        functions = style.keywords | style.taken_functions
        self.types = self._scope("components.schemas", interface.types, style.types, types)
        self.exports = self._scope(
            "exports", [one.name for one in interface.exports], style.functions, functions
        )
        self.imports = self._scope(
            "imports", [one.name for one in interface.imports], style.functions, functions
        )
        self._fields: dict[str, dict[str, str]] = {}
        self._values: dict[str, dict[str, str]] = {}
        for name, named in interface.types.items():
            if isinstance(named, Record):
                self._fields[name] = self._scope(
                    f"components.schemas.{name}.properties",
                    [field.name for field in named.fields],
                    style.fields,
                    style.keywords | style.taken_fields,
                )
            elif isinstance(named, Choice):
                self._values[name] = self._numbered(named.values)
            elif isinstance(named, Union):
                self._values[name] = self._numbered(named.variants)
        if self._problems:
            raise SchemaError("; ".join(self._problems), problems=self._problems)

    def field(self, record: str, name: str) -> str:
        return self._fields[record][name]

    def value(self, choice: str, text: str) -> str:
        """Return the name of a choice's value, or of a union's variant."""
        return self._values[choice][text]

    def _scope(
        self, where: str, names: Iterable[str], case: Case, taken: frozenset[str]
    ) -> dict[str, str]:
        made: dict[str, str] = {}
        of: dict[str, str] = {}
        for name in names:
            new = case(name)
            if new in taken or new[:1].isdigit():
                new = f"{new}_" if new in taken else f"_{new}"
            if new in of:
                self._problems.append(
                    f"{where}: `{truncate(of[new])}` and `{truncate(name)}` would both be `{new}` "
                    f"in {self._style.language}; rename one"
                )
            of[new] = name
            made[name] = new
        return made

    def _numbered(self, texts: Iterable[str]) -> dict[str, str]:
        """Return names for texts of any kind; where two would be the same, with a number."""
        made: dict[str, str] = {}
        for text in texts:
            first = self._style.values(text[:_LONGEST_VALUE])
            if first[:1].isdigit():
                first = self._style.values(f"value_{text}")
            if first in self._style.keywords:
                first += "_"
            new, number = first, 2
            separator = "_" if self._style.values in (snake, upper_snake) else ""
            while new in made.values():
                new, number = f"{first.rstrip('_')}{separator}{number}", number + 1
            made[text] = new
        return made
