"""`plugin.toml` as the author of a plugin has it: how the plugin is built and tested.

    [build]   the language, the source and the output
    [[test]]  a case of a test (`case_model`)

The other tables are those that a `PluginSet` reads (`_plugin_set.metadata`), which ignores these.
Paths are relative to the folder, and lead nowhere else.
"""

from __future__ import annotations

import os
import re
from typing import Any, Final, TypeVar

import msgspec

from .._host.plugin_log import LEVELS
from .._manifest.files import format_path, read_file
from .._manifest.messages import field_error, from_msgspec, quote
from .._plugin_set.metadata import PluginFile, parse_plugin_file
from ..errors import Error, ManifestError, SourceError
from .case_lines import case_lines, find_line
from .case_model import Call, Case, Data, HostAnswer, HttpAnswer, Response
from .paths import check_path

__all__ = [
    "LANGUAGES",
    "PROJECT_FILE",
    "Build",
    "Case",
    "Project",
    "check_path",
    "read_project",
    "script_project",
]

PROJECT_FILE: Final = "plugin.toml"
MAX_BYTES: Final = 2**20
"""The largest project file, which is also the largest that a `PluginSet` reads."""

LANGUAGES: Final = (
    "c",
    "cpp",
    "zig",
    "rust",
    "go",
    "assemblyscript",
    "javascript",
    "typescript",
    "python",
)

T = TypeVar("T", bound=msgspec.Struct)


class Build(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The table `[build]`: how `plugwasm build` makes the module.

    Attributes:
        language: What the plugin is written in.
        source: The file or folder that is compiled; by default, the language's usual one.
        output: The module that is made.
        wasi: For C and Rust, whether to build for WASI. C++, Go, JavaScript and Python always need
            it.
        flags: More arguments for the compiler.
    """

    language: str
    source: str | None = None
    output: str = "plugin.wasm"
    wasi: bool = False
    flags: list[str] = []

    def __post_init__(self) -> None:
        if self.language not in LANGUAGES:
            raise field_error(
                "language", f"expected one of {', '.join(LANGUAGES)}, got {quote(self.language)}"
            )
        if self.source is not None:
            check_path("source", self.source)
        if self.wasi and self.language not in ("c", "rust"):
            raise field_error("wasi", f"it is for c and rust only, and this is {self.language}")
        for number, flag in enumerate(self.flags):
            if not flag.isprintable():
                raise field_error(f"flags[{number}]", f"expected printable text, got {quote(flag)}")
        check_path("output", self.output)
        if not self.output.endswith(".wasm"):
            raise field_error(
                "output", f"expected a name that ends with .wasm, got {quote(self.output)}"
            )


class Project(msgspec.Struct, frozen=True, kw_only=True):
    """A folder with a plugin's sources.

    Attributes:
        folder: Its absolute path, without links.
        file: The tables that an application reads as well.
        build: How it is built; None if the file does not say.
        cases: Its tests.
        case_lines: The lines of the file that they begin in, as far as they are known.
        is_script: Whether it is a script without a `plugin.toml`.
    """

    folder: str
    file: PluginFile
    build: Build | None
    cases: tuple[Case, ...]
    case_lines: tuple[int, ...] = ()
    is_script: bool = False

    def line(self, case: Case) -> int | None:
        """Return the line that a case begins in, if it is known."""
        number = self.cases.index(case)
        return self.case_lines[number] if number < len(self.case_lines) else None

    def path(self, relative: str) -> str:
        """Return the absolute path of something in the folder."""
        return os.path.join(self.folder, relative)


def read_project(folder: str | os.PathLike[str]) -> Project:
    """Read the `plugin.toml` of a folder.

    Raises:
        SourceError: There is none, or it cannot be read.
        ManifestError: It is not valid; the message says which field.
    """
    folder = os.path.realpath(folder)
    path = os.path.join(folder, PROJECT_FILE)
    if os.path.isdir(folder) and not os.path.lexists(path):
        raise SourceError(
            f"{format_path(folder)} is no plugin project: it has no {PROJECT_FILE}; "
            "`plugwasm new LANGUAGE NAME` makes a project"
        )
    content = read_file(path, MAX_BYTES)
    try:
        file = parse_plugin_file(content)
        build = _convert(file.build, Build, "build") if file.build else None
        cases = [_convert(case, Case, f"test[{number}]") for number, case in enumerate(file.test)]
        _check_names(cases)
    except Error as error:
        line = find_line(content, getattr(error, "field", None))
        error.message = f"{format_path(path)}: {f'line {line}: ' if line else ''}{error.message}"
        error.args = (error.message,)
        raise
    return Project(
        folder=folder,
        file=file,
        build=build,
        cases=tuple(cases),
        case_lines=case_lines(content),
    )


def script_project(path: str | os.PathLike[str]) -> Project:
    """Return what a script without a `plugin.toml` is as a project.

    Raises:
        ManifestError: Its name cannot be that of a source.
    """
    folder, name = os.path.split(os.path.realpath(path))
    output = f"{os.path.splitext(name)[0]}.wasm"
    language = "python" if name.endswith(".py") else "javascript"
    build = Build(language=language, source=name, output=output)
    return Project(folder=folder, file=PluginFile(), build=build, cases=(), is_script=True)


def _check_names(cases: list[Case]) -> None:
    numbers: dict[str, int] = {}
    for number, case in enumerate(cases):
        if numbers.setdefault(case.name, number) != number:
            raise field_error(
                f"test[{number}].name",
                f"test[{numbers[case.name]}] has the name {quote(case.name)} already",
                "",
            )


def _convert(value: dict[str, Any], struct: type[T], where: str) -> T:
    try:
        return msgspec.convert(value, struct)
    except msgspec.ValidationError as error:
        found = from_msgspec(error, lambda place: _known_fields(struct, place), "")
    except UnicodeEncodeError:
        found = ManifestError("it has text that cannot be encoded as UTF-8 (lone surrogates)")
    if found.reason.startswith("Invalid enum value"):
        got = found.reason.partition("'")[2].removesuffix("'")
        found.reason = f"expected one of {', '.join(LEVELS)}, got {quote(got)}"
    raise field_error(f"{where}{'.' if found.field else ''}{found.field or ''}", found.reason, "")


def _known_fields(struct: type[msgspec.Struct], place: str) -> tuple[str, ...]:
    for part, inner in _INNER.items():
        if re.search(rf"(?:^|\.){part}$", place):
            return inner.__struct_fields__
    return struct.__struct_fields__


_INNER: Final[dict[str, type[msgspec.Struct]]] = {
    r"then\[\d+\]": Call,
    r"host\[\d+\]": HostAnswer,
    r"http\[\d+\]": HttpAnswer,
    r"response": Response,
    r"(?:body|returns|args\[\d+\]|vars\[\.\.\.\]|vars_after\[\.\.\.\])": Data,
}
