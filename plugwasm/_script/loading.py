"""A script, read and run once in an engine: its exports, and the memory that it leaves."""

from __future__ import annotations

import os
from dataclasses import dataclass

from .._manifest.files import read_file
from .._manifest.limits import DEFAULT_LIMITS
from .._payload_bounds.nesting import MAX_LEVELS, is_json_too_deep
from ..errors import (
    CallError,
    GuestError,
    OptionError,
    ScriptError,
    TimeoutError,
    truncate,
)
from . import pins
from .front import RESERVED
from .host_imports import MOST_NAME, HostImport, ToldImport
from .names import language_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from .._manifest.limits import Limits
    from .engine import Engine
    from .languages import Language

INPUTS = ("json", "text", "bytes")
OUTPUTS = ("auto", "json")
MOST_EXPORTS = 1000
_MOST_ANSWER = 4 * 2**20
_RESERVED_STACK = 2**16
"""Bytes of an engine's own stack that code below the interpreter has for itself."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What an engine says of a script that it has loaded.

    It is a claim: the script runs in the same memory, and can change what the engine says.

    Attributes:
        error: Why the script failed, or None.
        isSyntax: Whether it is not valid in its language.
        line, column: Where that is, if the engine says so.
        exports: The names of its functions.
        imports: The host functions that it declares.
    """

    error: str | None = None
    isSyntax: bool = False
    line: int | None = None
    column: int | None = None
    exports: tuple[str, ...] = ()
    imports: tuple[ToldImport, ...] = ()


@dataclass(frozen=True, slots=True)
class Loaded:
    """A script that was loaded.

    Attributes:
        exports: The names of its functions.
        heap: The heap of the engine.
        imports: The host functions that it declares by itself, if it may.
    """

    exports: tuple[str, ...]
    heap: bytes
    imports: tuple[HostImport, ...] = ()


def load(
    engine: Engine,
    text: str,
    file: str,
    *,
    input: str,
    output: str = "auto",
    functions: Sequence[HostImport],
    limits: Limits | None,
    builds: bool = False,
    seconds: float | None = None,
) -> Loaded:
    """Run a script.

    Args:
        builds: Whether the script may declare host functions besides these.
        seconds: How long it may take, if that is less than the limits allow.

    Raises:
        ScriptError: It is not valid, fails, or exports no function.
        CallError: A limit ended it.
    """
    from msgspec import json

    bounds = limits or DEFAULT_LIMITS
    document = json.encode(
        {
            "source": text,
            "name": file,
            "input": input,
            "output": output,
            "stack": min(
                bounds.stack_bytes // 16 * engine.language.stack_sixteenths,
                pins.STACK_BYTES - _RESERVED_STACK,
            ),
            "builds": builds,
            "firstElement": engine.elements,
            "host": [
                {"namespace": one.namespace, "name": one.name, "type": one.describe_type()}
                for one in functions
            ],
        }
    )
    try:
        answer, heap = engine.load(document, limits, seconds)
    except GuestError as error:  # the script took away what the kit needs to report it
        raise _error(engine.language, Answer(str(error.guest_message)), file) from error
    except CallError as error:
        _explain(error, file, bounds, seconds)
        raise
    told = _read_answer(answer, file)
    if told.error is not None:
        is_path = "\n" not in text and language_of(text) is not None
        hint = "; text is a source, and a file is a `Path`" if is_path else ""
        raise _error(engine.language, told, file, hint)
    _check_exports(engine.language, told.exports, file)
    return Loaded(told.exports, heap, tuple(map(HostImport.from_told, told.imports)))


def _read_answer(answer: bytes, file: str) -> Answer:
    from msgspec import DecodeError, json

    try:
        if len(answer) > _MOST_ANSWER:
            raise DecodeError(f"it has more than {_MOST_ANSWER} bytes")
        if is_json_too_deep(answer):
            raise DecodeError(f"it is nested more than {MAX_LEVELS} levels deep")
        told = json.decode(answer, type=Answer)
        if len(set(told.exports)) != len(told.exports):
            raise DecodeError("it names an export twice")
    except (DecodeError, UnicodeDecodeError) as error:
        raise ScriptError(
            f"{truncate(file)}: the script has changed the interpreter, which cannot say any more "
            f"what the script exports ({truncate(str(error))})",
            file=file,
        ) from error
    return told


def _explain(error: CallError, file: str, limits: Limits, seconds: float | None) -> None:
    """Let an error of the engine speak of the script instead."""
    what = f"loading the script `{truncate(file)}`"
    if isinstance(error, TimeoutError) and seconds is not None and _is_less(seconds, limits):
        error.message = f"{what} did not end within {seconds:.3g} s"
    else:
        error.message = error.message.replace("`load` of plugin `script`", what, 1)
    error.args = (error.message,)
    error.plugin, error.function = file, None


def _is_less(seconds: float, limits: Limits) -> bool:
    return limits.timeout is None or seconds < limits.timeout


def _check_exports(language: Language, exports: Sequence[str], file: str) -> None:
    if not exports:
        raise ScriptError(
            f"{truncate(file)}: the script exports no function: write {language.hint}",
            file=file,
        )
    if len(exports) > MOST_EXPORTS:
        raise ScriptError(
            f"{truncate(file)}: the script exports {len(exports)} functions, and can export "
            f"{MOST_EXPORTS}",
            file=file,
        )
    for one in exports:
        if len(one) > MOST_NAME:
            raise ScriptError(
                f"{truncate(file)}: the name of the exported function `{truncate(one, 40)}` has "
                f"more than {MOST_NAME} characters: give it another name",
                file=file,
            )
        if one in RESERVED:
            raise ScriptError(
                f"{truncate(file)}: the script exports `{one}`, which hosts run by themselves: "
                "give the function another name",
                file=file,
            )


def _error(language: Language, told: Answer, file: str, hint: str = "") -> ScriptError:
    """Return the error for what the engine reports."""
    text = told.error or ""
    line, column = language.place(told, file)
    where = ":".join(str(part) for part in (truncate(file), line, column) if part is not None)
    what = f"is not valid {language.title}" if told.isSyntax else "failed while it was loaded"
    return ScriptError(
        f"{where}: the script {what}: {truncate(text.partition(chr(10))[0], 500)}{hint}",
        file=file,
        line=line,
        column=column,
        stack=text,
    )


def bound_changes(
    changes: Iterable[tuple[int, bytes]], most: int, file: str, field: str
) -> Iterator[tuple[int, bytes]]:
    """Yield what loading a script has changed in memory, up to a number of bytes.

    Raises:
        ScriptError: It is more. To find the differences takes time, and they are kept several
            times until there is a module.
    """
    size = 0
    for one in changes:
        size += len(one[1])
        if size > most:
            raise ScriptError(
                f"{truncate(file)}: loading the script leaves more than {most} bytes of data "
                f"({field}): make it in the functions that need it",
                file=file,
            )
        yield one


def read_script(source: object, most: int, name: str | None, default: str) -> tuple[str, str]:
    """Return the text and the name of a script; text has the name `default` if none is given."""
    content, file = read_source(source, most, name, default)
    return decode_script(content, file), file


def read_source(source: object, most: int, name: str | None, default: str) -> tuple[bytes, str]:
    """Return the bytes and the name of a script, as `read_script`."""
    if isinstance(source, os.PathLike):
        path = os.fsdecode(source)
        return read_file(path, most, is_text=True), name or file_name(path)
    if isinstance(source, (bytes, str)):
        file = name or default
        try:
            content = source.encode() if isinstance(source, str) else source
        except UnicodeEncodeError as error:
            raise ScriptError(
                f"{truncate(file)}: the script has a character that UTF-8 has not, at offset "
                f"{error.start}",
                file=file,
            ) from None
    else:
        raise OptionError(
            f"source: expected the text of a script or a Path, got {type(source).__name__}",
            field="source",
        )
    if len(content) > most:
        raise ScriptError(
            f"{truncate(file)}: the script has more than {most} bytes (`Limits.module_bytes`)",
            file=file,
        )
    return content, file


def file_name(path: str) -> str:
    """Return the name of the file at a path as text: what is not UTF-8 in it is escaped."""
    return os.path.basename(path).encode(errors="backslashreplace").decode()


def decode_script(content: bytes, file: str) -> str:
    """Return the text of a script.

    Raises:
        ScriptError: It is not UTF-8.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ScriptError(
            f"{truncate(file)}:{line}: the script is not UTF-8, at offset {error.start}",
            file=file,
            line=line,
        ) from None
