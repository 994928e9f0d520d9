"""Scripts as the specs of plugins: what was read, and the modules that loading makes of it.

Whoever takes files of plugins (a set, the command line, a ref, a harness) reads a script into a
`ScriptSpec`, which has the same grants as a plugin in Wasm. Making a `CompiledPlugin` of it runs it
once (`_prepare`).
"""

from __future__ import annotations

import os
from pathlib import Path
from time import monotonic

from .._engine import FunctionType
from .._host.options import REGISTERED
from .._manifest.files import read_file
from .._manifest.limits import effective_limits
from .._manifest.resolve import MAIN_MODULE, MAX_MODULE_BYTES, ModuleSpec, PluginSpec, resolve
from . import snapshots
from .engine import get_engine
from .front import make_front
from .host_imports import of_functions, read_declarations
from .loading import bound_changes, decode_script, file_name, load
from .names import is_script_path, language_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .._http.egress import Egress
    from .._manifest.limits import Limits
    from .._runtime.settings import PluginSettings
    from .host_imports import HostImport

_SHORTEST = 0.001
"""Seconds that loading has at least, if translating has taken all."""
_GAP = 32
"""Equal bytes that end a record of a front, which has a head of 8 bytes."""


class ScriptSpec(PluginSpec):
    """A script that was read, and not run, with the grants that it asks for.

    Its only module is its text; the module's name is that of the file.

    Attributes:
        language: "javascript", "typescript" or "python".
        file: The name in errors and stack traces.
        input: What its functions get: "json", "text" or "bytes".
        output: What becomes of what they return: "auto" or "json".
        on_path: Whether an esbuild on the PATH may translate it (`bundling.translate`).
    """

    __slots__ = ("file", "input", "language", "on_path", "output")

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
        self.language: str = language
        self.file: str = file
        self.input: str = input
        self.output: str = output
        self.on_path: bool = True

    @property
    def text(self) -> str:
        """The script.

        Raises:
            ScriptError: It is not UTF-8.
        """
        return decode_script(self.modules[0].wasm, self.file)

    @property
    def interpreter(self) -> str:
        """The language of the interpreter that runs it, which TypeScript is translated to."""
        return "javascript" if self.language == "typescript" else self.language

    def translated(self, limits: Limits) -> ScriptSpec:
        """Return the script in the language of its interpreter: itself, unless it is TypeScript.

        Nothing is bundled, and no file is opened (`bundling.translate`).

        Raises:
            ScriptError: It is not valid, or a limit ended its translation.
            SourceError: esbuild is not here.
        """
        if self.language == self.interpreter:
            return self
        from .bundling import translate

        text = translate(self.text, self.file, limits, on_path=self.on_path)
        made = self.copy()
        made.language = self.interpreter
        made.modules = [ModuleSpec(self.file, text.encode(), self.modules[0].origin)]
        return made

    def copy(self) -> ScriptSpec:
        """Return a copy with the same text and grants."""
        module = self.modules[0]
        copied = ScriptSpec(
            self.language, module.wasm, self.file, module.origin, self.input, self.output
        )
        copied.on_path = self.on_path
        for name in PluginSpec.__slots__:
            setattr(copied, name, getattr(self, name))
        return copied

    def _prepare(self, settings: PluginSettings) -> tuple[PluginSpec, PluginSettings]:
        """Run the script once. Return the modules that come of it: the engine, and the script's
        own; and settings with the clock and the random numbers of the system, if no others were
        given, and without host functions that nobody passed.

        Loading has the time for compiling that the spec may set, besides the deadline of a call.

        Raises:
            ScriptError: It is not valid, fails, or exports no function.
            SourceError: The engine cannot be built.
            CallError: A limit ended it.
        """
        functions = () if settings.functions is REGISTERED else settings.functions
        imported, seconds = of_functions(functions), self.compile_seconds
        began = monotonic()
        text = self.translated(effective_limits(settings.limits, self)).text
        if seconds is not None:
            seconds = max(seconds - (monotonic() - began), _SHORTEST)
        plain = PluginSpec.copy(self)
        plain.compile_seconds = None
        limits = effective_limits(settings.limits, plain)
        engine = get_engine(self.interpreter)
        loaded = load(
            engine,
            text,
            self.file,
            input=self.input,
            output=self.output,
            functions=imported,
            limits=limits,
            seconds=seconds,
        )
        changes = snapshots.find_changes(engine.heap, loaded.heap, _GAP)
        front = make_front(
            loaded.exports,
            bound_changes(changes, limits.module_bytes, self.file, "`Limits.module_bytes`"),
            imported,
            engine_pages=engine.pages,
            more_pages=(len(loaded.heap) - len(engine.heap)) // snapshots.PAGE,
        )
        plain.modules = [engine.spec(), ModuleSpec(MAIN_MODULE, front, self.modules[0].origin)]
        plain.main = MAIN_MODULE
        return plain, settings.replace(wasi=settings.wasi or True, functions=functions)

    def imported_types(self, limits: Limits) -> dict[tuple[str, str], FunctionType]:
        """Return the types of the host functions that it declares, by namespace and name: those of
        `plugin.d.ts` beside `plugin.js`, and those of `@extism.import_fn`.

        Raises:
            ScriptError: The script or the declarations are not valid.
            CallError: A limit ended the script while it was loaded.
        """
        return {
            (one.namespace, one.name): FunctionType(one.params, one.results)
            for one in self.declared(limits)[1]
        }

    def declared(self, limits: Limits) -> tuple[tuple[str, ...], tuple[HostImport, ...]]:
        """Return the names of the exports, and the host functions that it declares.

        Raises:
            ScriptError, CallError: As for `imported_types`.
        """
        from .standalone import declarations_of

        path = Path(self.modules[0].origin)
        declared = read_declarations(declarations_of(path), path.with_suffix(".d.ts").name)
        loaded = load(
            get_engine(self.interpreter),
            self.translated(limits).text,
            self.file,
            input=self.input,
            output=self.output,
            functions=declared,
            limits=limits,
            builds=True,
        )
        return loaded.exports, declared + loaded.imports


def read_script_spec(path: str | os.PathLike[str], module_bytes: int) -> ScriptSpec:
    """Read a script that an application named; its name says the language.

    Raises:
        SourceError: The file cannot be read.
        ScriptError: It is not UTF-8.
    """
    path = os.fsdecode(path)
    language = language_of(path)
    assert language is not None
    content, file = read_file(path, module_bytes, is_text=True), file_name(path)
    decode_script(content, file)  # an error where it is read
    return ScriptSpec(language, content, file, path)


def resolve_plugin(
    plugin: Any, *, module_bytes: int = MAX_MODULE_BYTES, egress: Egress | None = None
) -> PluginSpec:
    """Read a plugin as `resolve` does, or a script, if this is the path of one."""
    if is_script_path(plugin):
        return read_script_spec(plugin, module_bytes)
    return resolve(plugin, module_bytes=module_bytes, egress=egress)
