"""Scripts as the specs of plugins: what was read, and the modules that loading makes of it.

Whoever takes files of plugins (a set, the command line, a ref, a harness) reads a script into a
`ScriptSpec`, which has the same grants as a plugin in Wasm. `load_modules` then runs it once.
"""

from __future__ import annotations

import os

from .._host.options import REGISTERED
from .._manifest.files import read_file
from .._manifest.resolve import ModuleSpec, PluginSpec
from . import snapshots
from .engine import get_engine
from .front import make_front
from .host_imports import of_functions
from .loading import bound_changes, decode_script, load
from .names import language_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .._manifest.limits import Limits
    from .._runtime.settings import PluginSettings

_GAP = 32
"""Equal bytes that end a record of a front, which has a head of 8 bytes."""


class ScriptSpec(PluginSpec):
    """A script that was read, and not run, with the grants that it asks for.

    Its only module is its text; the module's name is that of the file.

    Attributes:
        language: "javascript" or "python".
        file: The name in errors and stack traces.
        input: What its functions get: "json", "text" or "bytes".
        output: What becomes of what they return: "auto" or "json".
    """

    __slots__ = ("file", "input", "language", "output")

    def __init__(
        self,
        language: str,
        text: bytes,
        file: str,
        origin: str,
        input: str = "json",
        output: str = "auto",
    ) -> None:
        super().__init__([ModuleSpec(file, text, origin)], main=file)
        self.language = language
        self.file = file
        self.input = input
        self.output = output

    @property
    def text(self) -> str:
        """The script.

        Raises:
            ScriptError: It is not UTF-8.
        """
        return decode_script(self.modules[0].wasm, self.file)


def read_script_spec(path: str | os.PathLike[str], module_bytes: int) -> ScriptSpec:
    """Read a script that an application named; its name says the language.

    Raises:
        SourceError: The file cannot be read.
        ScriptError: It is not UTF-8.
    """
    path = os.fsdecode(path)
    language = language_of(path)
    assert language is not None
    spec = ScriptSpec(language, read_file(path, module_bytes), os.path.basename(path), path)
    spec.text  # noqa: B018  # an error where it is read
    return spec


def settings_of_script(settings: PluginSettings) -> PluginSettings:
    """Return the settings of a script: with the clock and random numbers of the system, if no
    others are given, and without host functions that nobody passed.
    """
    functions: Any = () if settings.functions is REGISTERED else settings.functions
    return settings.replace(wasi=settings.wasi or True, functions=functions)


def load_modules(
    script: ScriptSpec,
    settings: PluginSettings,
    limits: Limits,
    seconds: float | None = None,
) -> list[ModuleSpec]:
    """Run a script, and return the modules of its plugin: the engine, and the script's own.

    Args:
        script: The script.
        settings: Those that `settings_of_script` returns.
        limits: The limits of the plugin, which hold for this, too.
        seconds: How long this may take, if that is less than the limits allow.

    Raises:
        ScriptError: It is not valid, fails, or exports no function.
        SourceError: The engine cannot be built.
        CallError: A limit ended it.
    """
    text, imported = script.text, of_functions(settings.functions)
    engine = get_engine(script.language)
    loaded = load(
        engine,
        text,
        script.file,
        input=script.input,
        output=script.output,
        functions=imported,
        limits=limits,
        seconds=seconds,
    )
    changes = snapshots.find_changes(engine.heap, loaded.heap, _GAP)
    front = make_front(
        loaded.exports,
        bound_changes(changes, limits.module_bytes, script.file, "`Limits.module_bytes`"),
        imported,
        engine_pages=engine.pages,
        more_pages=(len(loaded.heap) - len(engine.heap)) // snapshots.PAGE,
    )
    return [engine.spec(), ModuleSpec("main", front, script.modules[0].origin)]


def loaded_spec(
    script: ScriptSpec, settings: PluginSettings, limits: Limits, seconds: float | None = None
) -> PluginSpec:
    """Return the spec of a script's plugin: what `load_modules` returns, with its grants."""
    spec = script.copy()
    spec.modules, spec.main = load_modules(script, settings, limits, seconds), "main"
    return spec
