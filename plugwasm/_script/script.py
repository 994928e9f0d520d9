"""`script`: a script to a `CompiledPlugin`.

A script is run once, when it is loaded. What that changes in the memory of its engine becomes the
main module of the plugin, the front; the engine is the same for all scripts, and compiled once.

Decisions: docs/decisions.md, 58.
"""

from __future__ import annotations

import os
from typing import Literal

from .._host.options import NOT_GIVEN, check_functions
from .._manifest.limits import DEFAULT_LIMITS
from .._manifest.resolve import ModuleSpec, PluginSpec
from .._runtime.compiled_plugin import CompiledPlugin
from .._runtime.inputs import merge_config
from .._runtime.settings import PluginSettings
from .._wasi.options import FrozenClock, SeededRandom, WasiOptions
from ..errors import CallError, GuestError, OptionError, ScriptError, SourceError, truncate
from . import pins, snapshots
from .engine import Engine, get_engine
from .front import RESERVED, describe_type, make_front
from .languages import LANGUAGES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from .._host.functions import Function
    from .._http.egress import Egress
    from .._manifest.limits import Limits
    from .._runtime.argument_types import Observe
    from .languages import Language

__all__ = ["script"]

INPUTS = ("json", "text", "bytes")
MAX_SEGMENTS = 150
"""With more, another process would compile the front, which takes longer than all else."""
_FIRST_GAP = 64
_MOST_PARAMS = 16
_RESERVED_STACK = 2**16
"""Bytes of an engine's own stack that code below the interpreter has for itself."""


def script(
    language: Literal["javascript", "python"],
    source: str | bytes | os.PathLike[str],
    *,
    name: str | None = None,
    input: Literal["json", "text", "bytes"] = "json",
    functions: Iterable[Function] = (),
    config: Mapping[str, str] | None = None,
    allowed_hosts: Iterable[str] = (),
    wasi: bool | WasiOptions = True,
    fuel_limit: int | None = None,
    http_response_headers: bool = False,
    limits: Limits | None = None,
    egress: Egress | None = None,
    observe: Observe = None,
) -> CompiledPlugin:
    """Load a script, and return it as a plugin whose exports are the functions of the script.

    The script runs once, now: without the host, with a clock that stands still. Each instance
    starts from what that left. All scripts of a process share one compiled engine, which is built
    at the first use on a machine (`pip install 'plugwasm[script]'`).

    Args:
        language: "javascript" or "python".
        source: The text of the script, or UTF-8; a `Path` is a file. Text is never a path.
        name: The name in errors, logs and the script's stack traces; if not given, that of the
            file, or "script.js".
        input: What the functions of the script get as their argument: a value read from JSON, text,
            or a `Uint8Array`. A function whose property `input` says so gets something else.
        functions: The host functions that the script may call. Registered ones are never added.
        config: The values of `Config.get`.
        allowed_hosts: The hosts that the script may send HTTP requests to, as in a manifest.
        wasi: With `WasiOptions`, other clocks and random bytes than the system's; False for a clock
            that stands still, and the same random numbers each time. A script never has files.
        fuel_limit, http_response_headers, limits, egress, observe: As for `CompiledPlugin`. The
            limits apply to loading the script, too.

    Raises:
        ScriptError: The script is not valid, fails when it is loaded, or exports no function.
        SourceError: The file cannot be read, or the engine cannot be built.
        OptionError: Another argument is not valid.
        CallError: A limit ended the script while it was loaded.
    """
    _check_choice("language", language, tuple(LANGUAGES))
    _check_choice("input", input, INPUTS)
    given = check_functions(functions)
    for function in given:
        _check_function(function)
    bounds = limits or DEFAULT_LIMITS
    text, file = _read(source, bounds.module_bytes, name, LANGUAGES[language].file)
    if wasi is False:
        wasi = WasiOptions(clock=FrozenClock(), random=SeededRandom(0))
    settings = PluginSettings(
        wasi,
        given,
        file,
        NOT_GIVEN if fuel_limit is None else fuel_limit,
        http_response_headers,
        limits,
        egress,
        observe,
    )
    engine = get_engine(language)
    front = _load(engine, text, file, input, given, limits)
    spec = PluginSpec(
        [engine.spec(), ModuleSpec("main", front, file)],
        config=merge_config({}, config or {}),
        allowed_hosts=_check_hosts(allowed_hosts),
    )
    return CompiledPlugin._from_settings(spec, settings)


script.__module__ = "plugwasm"


def _load(
    engine: Engine,
    text: str,
    file: str,
    input: str,
    functions: Sequence[Function],
    limits: Limits | None,
) -> bytes:
    """Run the script, and return the module that stands for it."""
    from msgspec import json

    bounds = limits or DEFAULT_LIMITS
    document = json.encode(
        {
            "source": text,
            "name": file,
            "input": input,
            "stack": min(
                bounds.stack_bytes // 16 * engine.language.stack_sixteenths,
                pins.STACK_BYTES - _RESERVED_STACK,
            ),
            "firstElement": engine.elements,
            "host": [
                {"namespace": namespace, "name": name, "type": describe_type(one)}
                for one in functions
                for namespace, name in (one._imported_as,)
            ],
        }
    )
    try:
        answer, memory = engine.load(document, limits)
    except GuestError as error:  # the script took away what the kit needs to report it
        raise _error(engine.language, {"error": error.guest_message}, file) from error
    except CallError as error:
        error.add_note(f"This was while the script `{truncate(file)}` was loaded.")
        raise
    told = json.decode(answer)
    if "error" in told:
        raise _error(engine.language, told, file)
    exports = told["exports"]
    _check_exports(engine.language, exports, file)
    gap = _FIRST_GAP
    while (
        len(changes := list(snapshots.find_changes(engine.memory, memory, gap))) > MAX_SEGMENTS
        and gap < snapshots.PAGE
    ):
        gap *= 2
    return make_front(
        exports,
        changes,
        functions,
        engine_pages=engine.pages,
        more_pages=len(memory) // snapshots.PAGE - engine.pages,
    )


def _check_choice(field: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        listed = " or ".join(f'"{one}"' for one in choices)
        raise OptionError(f"{field}: expected {listed}, got {value!r:.40}", field=field)


def _check_hosts(hosts: Iterable[str]) -> tuple[str, ...]:
    given = None if isinstance(hosts, (str, bytes)) else tuple(hosts)
    if given is None or not all(isinstance(host, str) for host in given):
        raise OptionError(
            f"allowed_hosts: expected a list of host names, got {hosts!r:.80}",
            field="allowed_hosts",
        )
    return given


def _check_function(function: Function) -> None:
    kind = function._host.type
    numbers = {"i32", "i64", "f32", "f64"}
    if (
        not numbers.issuperset(kind.params + kind.results)
        or len(kind.results) > 1
        or len(kind.params) > _MOST_PARAMS
    ):
        raise OptionError(
            f"functions: `{truncate(function.name)}` is a function {kind}; one that scripts call "
            f"has at most {_MOST_PARAMS} parameters and one result, all of them numbers or blocks",
            field="functions",
        )


def _check_exports(language: Language, exports: Sequence[str], file: str) -> None:
    if not exports:
        raise ScriptError(
            f"{truncate(file)}: the script exports no function: write {language.hint}",
            file=file,
        )
    for one in exports:
        if one in RESERVED:
            raise ScriptError(
                f"{truncate(file)}: the script exports `{one}`, which hosts run by themselves: "
                "give the function another name",
                file=file,
            )


def _error(language: Language, told: Mapping[str, Any], file: str) -> ScriptError:
    """Return the error for what the engine reports."""
    text = str(told["error"])
    line, column = language.place(told, file)
    where = ":".join(str(part) for part in (truncate(file), line, column) if part is not None)
    what = (
        f"is not valid {language.title}" if told.get("isSyntax") else "failed while it was loaded"
    )
    return ScriptError(
        f"{where}: the script {what}: {truncate(text.partition(chr(10))[0], 500)}",
        file=file,
        line=line,
        column=column,
        stack=text,
    )


def _read(source: object, most: int, name: str | None, default: str) -> tuple[str, str]:
    """Return the text and the name of a script."""
    if isinstance(source, os.PathLike):
        path = os.fsdecode(source)
        file = name or os.path.basename(path)
        try:
            with open(path, "rb") as opened:
                content = opened.read(most + 1)
        except OSError as error:
            reason = truncate(str(error.strerror or error))
            raise SourceError(f"the script {truncate(path)} cannot be read: {reason}") from error
    elif isinstance(source, (bytes, str)):
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
    try:
        return content.decode("utf-8-sig"), file
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ScriptError(
            f"{truncate(file)}:{line}: the script is not UTF-8, at offset {error.start}",
            file=file,
            line=line,
        ) from None
