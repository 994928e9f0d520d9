"""An engine, ready to load scripts: an interpreter that has started, with its kit."""

from __future__ import annotations

from .._engine import wasm_encoding as wasm
from .._engine.wasm_binary import read_leb128
from .._manifest.resolve import ModuleSpec, PluginSpec
from .._platform.native_threads import RLock
from .._runtime.compiled_plugin import CompiledPlugin
from .._runtime.plugin import Plugin
from .._runtime.settings import PluginSettings
from ..errors import SourceError, truncate
from . import pins, snapshots
from .boot import boot, copy_heap, frozen, read_exports
from .engine_build import find_or_build
from .engine_store import engine_folder
from .front import ENGINE, make_loader
from .languages import LANGUAGES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .._manifest.limits import Limits
    from .languages import Language

MAX_LOADERS = 16

_engines: dict[str, Engine] = {}
_lock = RLock()


def get_engine(language: str) -> Engine:
    """Return the engine of a language, built if need be. Threads share it.

    Raises:
        SourceError: It cannot be built.
    """
    engine = _engines.get(language)
    if engine is None:
        with _lock:
            engine = _engines.get(language)
            if engine is None:
                known = LANGUAGES[language]
                module = find_or_build(known, lambda compiled: boot(known, compiled))
                engine = _engines[language] = _read_engine(known, module)
    return engine


def _read_engine(language: Language, module: bytes) -> Engine:
    try:
        return Engine(language, module)
    except (ArithmeticError, LookupError, MemoryError, ValueError) as error:
        raise SourceError(
            f"the interpreter of {language.title} that is kept in "
            f"{truncate(str(engine_folder()))} is none: remove it, to build it again"
        ) from error


class Engine:
    """An engine.

    Attributes:
        language: What it runs.
        wasm: The module.
        heap: What its memory has to start with, after the stack: a snapshot.
        pages: The pages of its memory.
        elements: How many elements its function table has.
    """

    __slots__ = ("_loaders", "elements", "heap", "language", "pages", "wasm")

    def __init__(self, language: Language, module: bytes) -> None:
        sections = wasm.split(module)
        self.language = language
        self.wasm = module
        self.pages: int = _read_first_limit(sections[wasm.MEMORY], 1)
        self.elements: int = _read_first_limit(sections[wasm.TABLE], 2)
        self.heap: bytes = _read_heap(sections[wasm.DATA], self.pages)
        self._loaders: dict[Limits | None, CompiledPlugin] = {}

    def spec(self) -> ModuleSpec:
        """Return the engine as a module of a plugin."""
        origin = f"the interpreter of {self.language.title}"
        return ModuleSpec(ENGINE, self.wasm, origin, is_own=True)

    def find_export(self, name: str) -> int:
        """Return the number of a function that the engine exports."""
        export = read_exports(wasm.split(self.wasm)[wasm.EXPORT])[name]
        return read_leb128(export, len(wasm.name(name)) + 1)[0]

    def load(
        self, document: bytes, limits: Limits | None, seconds: float | None = None
    ) -> tuple[bytes, bytes]:
        """Run a script in a new instance, without anything that it could ask the host.

        Args:
            document: What to load.
            limits: The limits of the plugin; None for the defaults.
            seconds: How long it may take, if that is less than the limits allow.

        Returns:
            What the engine answers, and its heap.

        Raises:
            CallError: A limit ended it.
        """
        with Plugin(self._loader(limits)) as plugin:
            if seconds is not None:
                plugin._timeout = min(plugin._timeout, seconds)
            answer = plugin.call("load", document)
            return answer, copy_heap(plugin)

    def _loader(self, limits: Limits | None) -> CompiledPlugin:
        loader = self._loaders.get(limits)
        if loader is None:
            spec = PluginSpec([self.spec(), ModuleSpec("main", make_loader(self.pages), "script")])
            settings = PluginSettings(frozen(), (), "script", limits=limits)
            loader = CompiledPlugin._from_settings(spec, settings)
            if len(self._loaders) >= MAX_LOADERS:
                self._loaders.clear()
            self._loaders[limits] = loader
        return loader


def _read_first_limit(section: bytes, at: int) -> int:
    """Return the smallest size of the only table or memory."""
    return read_leb128(section, at + 1)[0]


def _read_heap(data: bytes, pages: int) -> bytes:
    """Return the heap that segments as `write_memory` makes them describe."""
    heap = bytearray(pages * snapshots.PAGE - pins.STACK_BYTES)
    count, at = read_leb128(data, 0)
    for _ in range(count):
        offset, at = read_leb128(data, at + 2)
        offset -= pins.STACK_BYTES
        size, at = read_leb128(data, at + 1)
        heap[offset : offset + size] = data[at : at + size]
        at += size
    return bytes(heap)
