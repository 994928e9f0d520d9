"""The languages of scripts: what differs between them."""

from __future__ import annotations

import re
from dataclasses import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from .loading import Answer


_NUMBER = re.compile(r"[0-9]{1,9}")
_MOST = 10**9


@dataclass(frozen=True, slots=True)
class Language:
    """A language of scripts.

    Attributes:
        name: The name in `script`.
        title: The name in messages.
        file: The name of a script that has none.
        hint: How a script exports a function.
        stack_sixteenths: How much of its own stack a script may use, in sixteenths of the size of
            the native stack. With more it could run out of the native stack first.
        sources: Returns everything that the engine is made of, for its digest.
        compile: Compiles the engine, in an empty directory.
        kit: Returns the input of the engine's `boot`.
        optional_imports: Imports that a built plugin has only if the script has one of these words
            (a regular expression).
        place: Finds file, line and column of an error in what the engine says of it.
    """

    name: str
    title: str
    file: str
    hint: str
    stack_sixteenths: int
    sources: Callable[[], list[bytes]]
    compile: Callable[[Path], bytes]
    kit: Callable[[], bytes]
    optional_imports: Mapping[str, str]
    place: Callable[[Answer, str], tuple[int | None, int | None]]


def _javascript_sources() -> list[bytes]:
    from .javascript import recipe

    return recipe.sources()


def _compile_javascript(place: Path) -> bytes:
    from .javascript import recipe

    return recipe.compile_engine(place)


def _javascript_kit() -> bytes:
    from .javascript import recipe

    return recipe.read_kit()


def _javascript_place(told: Answer, file: str) -> tuple[int | None, int | None]:
    """Return the place in the first line of the stack that names the file: `at f (file:1:2)`."""
    for frame in (told.error or "").split("\n"):
        frame = frame.strip().removesuffix(")")
        if not frame.startswith("at "):
            continue
        where, _, column = frame[3:].rpartition(":")
        where, _, line = where.rpartition(":")
        if where != file and not where.endswith(f" ({file}"):
            continue
        if _NUMBER.fullmatch(line) and _NUMBER.fullmatch(column):
            return int(line), int(column)
    return None, None


def _python_sources() -> list[bytes]:
    from .python import recipe

    return recipe.sources()


def _compile_python(place: Path) -> bytes:
    from .python import recipe

    return recipe.compile_engine(place)


def _python_kit() -> bytes:
    from .python import recipe

    return recipe.read_kit()


def _python_place(told: Answer, file: str) -> tuple[int | None, int | None]:
    line, column = told.line, told.column
    return (
        line if line is not None and 0 < line < _MOST else None,
        column if column is not None and 0 < column < _MOST else None,
    )


_ANY_NAME = "eval|Function|globalThis"
"""Names by which a script in JavaScript can use any other name."""

LANGUAGES: dict[str, Language] = {
    one.name: one
    for one in (
        Language(
            "javascript",
            "JavaScript",
            "script.js",
            "`export function name() { … }` or `module.exports = { name }`",
            14,
            _javascript_sources,
            _compile_javascript,
            _javascript_kit,
            {
                "http_request": rf"\b(Http|fetch|{_ANY_NAME})\b|\\u",
                "poll_oneoff": rf"\b(setTimeout|setInterval|AbortSignal|{_ANY_NAME})\b|\\u",
            },
            _javascript_place,
        ),
        Language(
            "python",
            "Python",
            "script.py",
            "`def name(): …`, without an underscore in front",
            14,
            _python_sources,
            _compile_python,
            _python_kit,
            {},
            _python_place,
        ),
    )
}
