"""`plugin.toml` as the author of a plugin has it: how the plugin is built and tested.

    [build]        the language, the source and the output
    [[test]]       a call, and what it must give
    [[test.host]]  what a host function returns in that call
    [[test.http]]  what an HTTP request is answered with in that call

The other tables are those that a `PluginSet` reads (`_plugin_set.metadata`), which ignores these.
Paths are relative to the folder, and lead nowhere else.
"""

from __future__ import annotations

import os
from typing import Any, Final, TypeVar

import msgspec

from .._manifest.files import format_path, read_file
from .._manifest.messages import field_error, from_msgspec, quote
from .._plugin_set.metadata import PluginFile, parse_plugin_file
from ..errors import Error, ManifestError, SourceError

__all__ = [
    "LANGUAGES",
    "PROJECT_FILE",
    "Build",
    "Case",
    "HostAnswer",
    "HttpAnswer",
    "Project",
    "check_path",
    "read_project",
]

PROJECT_FILE: Final = "plugin.toml"
MAX_BYTES: Final = 2**20
"""The largest project file, which is also the largest that a `PluginSet` reads."""

LANGUAGES: Final = ("c", "cpp", "zig", "rust", "go", "assemblyscript")

T = TypeVar("T", bound=msgspec.Struct)


class Build(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The table `[build]`.

    Attributes:
        language: What the plugin is written in.
        source: The file or folder that is compiled; by default, the language's usual one.
        output: The module that is made.
    """

    language: str
    source: str | None = None
    output: str = "plugin.wasm"

    def __post_init__(self) -> None:
        if self.language not in LANGUAGES:
            raise field_error(
                "language", f"expected one of {', '.join(LANGUAGES)}, got {quote(self.language)}"
            )
        if self.source is not None:
            check_path("source", self.source)
        check_path("output", self.output)
        if not self.output.endswith(".wasm"):
            raise field_error(
                "output", f"expected a name that ends with .wasm, got {quote(self.output)}"
            )


class HostAnswer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table `[[test.host]]`: a host function, and what it returns.

    Attributes:
        name: The name of the function.
        namespace: The module that it is imported from.
        returns: A number, or text for a function that returns a block; nothing by default.
    """

    name: str
    namespace: str = "extism:host/user"
    returns: Any = None


class HttpAnswer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table `[[test.http]]`: a request, and the response to it.

    Attributes:
        method: The method of the request; by default, any.
        url: The URL of the request.
        status, headers: Of the response.
        body: The body of the response, as text.
        body_json: The body of the response, as a value.
    """

    url: str
    method: str | None = None
    status: int = 200
    headers: dict[str, str] = {}
    body: str | None = None
    body_json: Any = msgspec.UNSET


class Case(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table `[[test]]`: a call, and what it must give. Of the inputs at most one is there, and of
    the outputs and `error` too.

    Attributes:
        name: What the case shows.
        function: The export to call.
        input: The input as text.
        input_json: The input as a value.
        input_base64: The input as base64.
        input_file: The file that is the input.
        output, output_json, output_base64, output_file: The output, alike.
        error: Text that the message of the error contains.
        error_code: The code that the plugin returns.
        config: What the plugin can read.
        vars: The vars that it begins with, as text.
        vars_after: Vars that it must have after the call.
        host: What host functions return.
        http: What HTTP requests are answered with.
        logs: Lines that it must log, in this order.
    """

    name: str
    function: str
    input: str | None = None
    input_json: Any = msgspec.UNSET
    input_base64: str | None = None
    input_file: str | None = None
    output: str | None = None
    output_json: Any = msgspec.UNSET
    output_base64: str | None = None
    output_file: str | None = None
    error: str | None = None
    error_code: int | None = None
    config: dict[str, str] = {}
    vars: dict[str, str] = {}
    vars_after: dict[str, str] = {}
    host: list[HostAnswer] = []
    http: list[HttpAnswer] = []
    logs: list[str] | None = None


class Project(msgspec.Struct, frozen=True, kw_only=True):
    """A folder with a plugin's sources.

    Attributes:
        folder: Its absolute path, without links.
        file: The tables that an application reads as well.
        build: How it is built; None if the file does not say.
        cases: Its tests.
    """

    folder: str
    file: PluginFile
    build: Build | None
    cases: tuple[Case, ...]

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
    except Error as error:
        error.message = f"{format_path(path)}: {error.message}"
        raise
    return Project(folder=folder, file=file, build=build, cases=tuple(cases))


def check_path(field: str, path: str) -> None:
    """Check that a path is relative and leads out of no folder. Links are checked where it is used.

    Raises:
        ManifestError: It is not.
    """
    parts = path.split("/")
    if not path or not path.isprintable() or "\\" in path:
        raise field_error(field, f"expected the path of a file in the project, got {quote(path)}")
    if path.startswith(("/", "-")) or ".." in parts:
        raise field_error(
            field, f"expected a path in the project, relative to {PROJECT_FILE}, got {quote(path)}"
        )


def _convert(value: dict[str, Any], struct: type[T], where: str) -> T:
    try:
        return msgspec.convert(value, struct)
    except msgspec.ValidationError as error:
        found = from_msgspec(error, lambda place: _known_fields(struct, place), "")
    except UnicodeEncodeError:
        found = ManifestError("it has text that cannot be encoded as UTF-8 (lone surrogates)")
    raise field_error(f"{where}{'.' if found.field else ''}{found.field or ''}", found.reason, "")


def _known_fields(struct: type[msgspec.Struct], place: str) -> tuple[str, ...]:
    if place.startswith("host["):
        struct = HostAnswer
    elif place.startswith("http["):
        struct = HttpAnswer
    return struct.__struct_fields__
