"""The files that are generated, and where they go.

A file with bindings is written each time. A file that a developer goes on with (the implementation,
the project's own files) is written once, and left alone if there is one.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Final

from .._manifest.files import read_file
from .._platform.new_files import write_file
from ..errors import OptionError, SchemaError, SourceError, truncate
from .document import MAX_BYTES
from .schema import read_interface

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["LANGUAGES", "File", "Written", "generate", "generate_files", "read_schema"]

LANGUAGES: Final = ("assemblyscript", "c", "cpp", "go", "python", "rust", "zig")


@dataclass(frozen=True, slots=True)
class File:
    """A generated file.

    Attributes:
        content: Its text.
        once: Whether it is the developer's from then on.
    """

    content: str
    once: bool = False


@dataclass(frozen=True, slots=True)
class Written:
    """What was done with a file: written, changed, unchanged, or kept because it is the
    developer's.
    """

    path: Path
    what: str


def generate(schema: Path, language: str, output: Path) -> list[Written]:
    """Write the bindings of a schema for a language.

    Raises:
        SchemaError: The schema is invalid, or cannot be read or expressed in the language.
        OptionError: There are no bindings for the language.
        OSError: A file cannot be written.
    """
    if language not in LANGUAGES:
        raise OptionError(
            f"language: expected one of {', '.join(LANGUAGES)}, got {truncate(language)}",
            field="language",
        )
    files = generate_files(read_schema(schema), schema.name, language)
    return [_write(output / path, file) for path, file in files.items()]


def read_schema(schema: Path) -> bytes:
    """Return the content of an interface file.

    Raises:
        SchemaError: It cannot be read.
    """
    try:
        return read_file(str(schema), MAX_BYTES, is_text=True)
    except SourceError as error:
        raise SchemaError(error.message) from error


def generate_files(content: bytes, name: str, language: str) -> dict[str, File]:
    """Return the files by their paths.

    Args:
        content: The schema's text.
        name: The schema's file name, for messages and the heads of files.
        language: One of `LANGUAGES`.
    """
    interface = read_interface(content, name)
    module = import_module(f"{__package__}.languages.{language}")
    try:
        files: dict[str, File] = module.generate(interface, truncate(name))
    except SchemaError as error:
        raise SchemaError(f"{truncate(name)}: {error.message}", problems=error.problems) from None
    return files


def _write(path: Path, file: File) -> Written:
    path.parent.mkdir(parents=True, exist_ok=True)
    if file.once:
        try:
            with path.open("x", encoding="utf-8", newline="\n") as stream:
                stream.write(file.content)
        except FileExistsError:
            return Written(path, "kept")
        return Written(path, "written")
    content = file.content.encode()
    try:
        before = path.read_bytes()
    except FileNotFoundError:
        before = None
    if before == content:
        return Written(path, "unchanged")
    write_file(str(path), content, 0o666)
    return Written(path, "written" if before is None else "changed")
