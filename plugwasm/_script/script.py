"""`script`: a script to a `CompiledPlugin`.

A script is run once, when it is loaded. What that changes in the memory of its engine becomes the
main module of the plugin, the front; the engine is the same for all scripts, and compiled once.

Decisions: docs/decisions.md, 58.
"""

from __future__ import annotations

from typing import Literal

from .._host.options import NOT_GIVEN, check_option_types
from .._manifest.limits import DEFAULT_LIMITS
from .._runtime.compiled_plugin import CompiledPlugin
from .._runtime.inputs import merge_config
from .._runtime.settings import PluginSettings, validate_name
from .._wasi.options import FrozenClock, SeededRandom, WasiOptions
from ..errors import OptionError
from .languages import LANGUAGES
from .loading import INPUTS, OUTPUTS, decode_script, read_source
from .spec import ScriptSpec

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping

    from .._host.functions import Function
    from .._http.egress import Egress
    from .._manifest.limits import Limits
    from .._runtime.argument_types import Observe

__all__ = ["script"]


def script(
    language: Literal["javascript", "typescript", "python"],
    source: str | bytes | os.PathLike[str],
    *,
    name: str | None = None,
    input: Literal["json", "text", "bytes"] = "json",
    output: Literal["auto", "json"] = "auto",
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
        language: "javascript", "typescript" or "python". TypeScript is translated, without a check
            of its types, by esbuild: by the program of that name on the PATH, or the one that the
            environment variable PLUGWASM_ESBUILD names. It opens no file.
        source: The text of the script, or UTF-8; a `Path` is a file. Text is never a path.
        name: The name in errors, logs and the script's stack traces; if not given, that of the
            file, or "script.js".
        input: What the functions of the script get as their argument: a value read from JSON, text,
            or a `Uint8Array`. A function whose property `input` says so gets something else.
        output: "json" writes everything that a function returns as JSON, text too, and nothing as
            `null`, so that `returns=` reads what the function returned. With "auto" text and bytes
            are the output as they are, and nothing is an empty output.
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
    if wasi is False:
        wasi = WasiOptions(clock=FrozenClock(), random=SeededRandom(0))
    settings = PluginSettings(
        wasi,
        functions,
        name,
        NOT_GIVEN if fuel_limit is None else fuel_limit,
        http_response_headers,
        limits,
        egress,
        observe,
    )
    requested = read_arguments(
        language,
        source,
        name=name,
        input=input,
        output=output,
        allowed_hosts=allowed_hosts,
        limits=limits,
    )
    requested.config = merge_config({}, config or {})
    settings = settings.replace(name=validate_name(requested.file))
    return CompiledPlugin._from_settings(requested, settings)


script.__module__ = "plugwasm"


def read_arguments(
    language: str,
    source: object,
    *,
    name: str | None,
    input: str,
    output: str,
    allowed_hosts: Iterable[str],
    limits: Limits | None,
) -> ScriptSpec:
    """Read a script; the arguments are those of `script`.

    Raises:
        ScriptError, SourceError, OptionError: As for `script`.
    """
    check_option_types(False, limits, None)
    validate_name(name)
    _check_choice("language", language, ("javascript", "typescript", "python"))
    _check_choice("input", input, INPUTS)
    _check_choice("output", output, OUTPUTS)
    most = (limits or DEFAULT_LIMITS).module_bytes
    default = "script.ts" if language == "typescript" else LANGUAGES[language].file
    content, file = read_source(source, most, name, default)
    decode_script(content, file)  # an error where it is read
    spec = ScriptSpec(language, content, file, file, input, output)
    spec.allowed_hosts = _check_hosts(allowed_hosts)
    return spec


def _check_choice(field: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        listed = " or ".join(", ".join(f'"{one}"' for one in choices).rsplit(", ", 1))
        raise OptionError(f"{field}: expected {listed}, got {value!r:.40}", field=field)


def _check_hosts(hosts: Iterable[str]) -> tuple[str, ...]:
    given = None if isinstance(hosts, (str, bytes)) else tuple(hosts)
    if given is None or not all(isinstance(host, str) for host in given):
        raise OptionError(
            f"allowed_hosts: expected a list of host names, got {hosts!r:.80}",
            field="allowed_hosts",
        )
    return given
