"""An engine, ready to load scripts: an interpreter that has started, with its kit.

What was compiled is run once: `boot` makes the interpreter and runs the kit. The memory that this
leaves is written back into the module, so that no instance has to do it again.
"""

from __future__ import annotations

from .._engine import ExportName
from .._engine.wasm_binary import read_leb128
from .._manifest.resolve import ModuleSpec, PluginSpec
from .._platform.native_threads import RLock
from .._runtime.compiled_plugin import CompiledPlugin
from .._runtime.plugin import Plugin
from .._runtime.settings import PluginSettings
from .._wasi.options import FrozenClock, WasiOptions
from . import pins, snapshots
from . import wasm_encoding as wasm
from .engine_build import find_or_build, say
from .front import ADD_FUNCTION, ENGINE, make_loader
from .languages import LANGUAGES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .._manifest.limits import Limits
    from .languages import Language

_MEMORY = ExportName("memory")
_KEPT = (b"memory", b"load", b"call")
_GROW_TABLE = b"\x20\x00\x41\x01\xfc\x0f\x00\x41\x7f\x46\x04\x40\x00\x0b"
"""Grows table 0 by one element, the argument, and traps if that fails."""
_GAP = 1024
"""Equal bytes that end a segment of an engine. Its memory is an image: a file, mapped."""
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
                engine = _engines[language] = Engine(known, module)
    return engine


class Engine:
    """An engine.

    Attributes:
        language: What it runs.
        wasm: The module.
        memory: What its memory has to start with.
        pages: The pages of that.
        elements: How many elements its function table has.
    """

    __slots__ = ("_loaders", "_stack", "elements", "language", "memory", "pages", "wasm")

    def __init__(self, language: Language, module: bytes) -> None:
        sections = wasm.split(module)
        self.language = language
        self.wasm = module
        self.pages: int = _read_first_limit(sections[wasm.MEMORY], 1)
        self.elements: int = _read_first_limit(sections[wasm.TABLE], 2)
        self.memory: bytes = _read_memory(sections[wasm.DATA], self.pages)
        self._stack = _find_stack(sections[wasm.GLOBAL])
        self._loaders: dict[Limits | None, CompiledPlugin] = {}

    def spec(self) -> ModuleSpec:
        """Return the engine as a module of a plugin."""
        return ModuleSpec(ENGINE, self.wasm, f"the engine of {self.language.title}")

    def load(self, document: bytes, limits: Limits | None) -> tuple[bytes, bytes]:
        """Run a script in a new instance, without anything that it could ask the host.

        Returns:
            What the engine answers, and its memory.

        Raises:
            CallError: A limit ended it.
        """
        with Plugin(self._loader(limits)) as plugin:
            answer = plugin.call("load", document)
            return answer, _read_out(plugin, self._stack)

    def _loader(self, limits: Limits | None) -> CompiledPlugin:
        loader = self._loaders.get(limits)
        if loader is None:
            spec = PluginSpec([self.spec(), ModuleSpec("main", make_loader(self.pages), "script")])
            settings = PluginSettings(_frozen(), (), "script", limits=limits)
            loader = CompiledPlugin._from_settings(spec, settings)
            if len(self._loaders) >= MAX_LOADERS:
                self._loaders.clear()
            self._loaders[limits] = loader
        return loader


def boot(language: Language, compiled: bytes) -> bytes:
    """Return the module that was compiled, with the interpreter started."""
    say("starting the interpreter …")
    name = f"the engine of {language.title}"
    spec = PluginSpec([ModuleSpec("main", compiled, name)])
    settings = PluginSettings(_frozen(), (), name)
    sections = wasm.split(compiled)
    with Plugin(CompiledPlugin._from_settings(spec, settings)) as plugin:
        plugin.call("boot", language.kit())
        memory = _read_out(plugin, _find_stack(sections[wasm.GLOBAL]))
    segments = [
        b"\x00\x41" + wasm.signed(offset) + b"\x0b" + wasm.unsigned(len(content)) + content
        for offset, content in snapshots.find_changes(b"", memory, _GAP)
    ]
    adder = _count_functions(sections)
    sections[wasm.TYPE] = wasm.append(
        sections[wasm.TYPE], [wasm.function_type((wasm.FUNCREF,), ())]
    )
    sections[wasm.FUNCTION] = wasm.append(
        sections[wasm.FUNCTION], [wasm.unsigned(wasm.count(sections[wasm.TYPE]) - 1)]
    )
    sections[wasm.CODE] = wasm.append(sections[wasm.CODE], [wasm.body(_GROW_TABLE)])
    sections[wasm.EXPORT] = wasm.vector(
        [
            *_find_exports(sections[wasm.EXPORT]),
            wasm.name(ADD_FUNCTION) + b"\x00" + wasm.unsigned(adder),
        ]
    )
    sections[wasm.MEMORY] = b"\x01\x00" + wasm.unsigned(len(memory) // snapshots.PAGE)
    sections[wasm.DATA] = wasm.vector(segments)
    sections.pop(wasm.DATA_COUNT, None)
    return wasm.join(sections)


def _frozen() -> WasiOptions:
    """Return a clock that stands still, so that what a script does when it is loaded is the same
    each time.
    """
    return WasiOptions(clock=FrozenClock())


def _read_out(plugin: Plugin, stack: slice) -> bytes:
    """Return the memory of a plugin's engine, with an empty stack."""
    assert plugin._guest is not None
    memory = bytearray(plugin._guest.instances[0].memory(_MEMORY).view())
    memory[stack] = bytes(len(memory[stack]))
    return bytes(memory)


def _find_stack(globals: bytes) -> slice:
    """Return where the stack is: the stack pointer is the first global, and starts at its end."""
    _, at = read_leb128(globals, 0)
    assert globals[at : at + 3] == b"\x7f\x01\x41", "an engine has a stack pointer"
    end, _ = read_leb128(globals, at + 3)  # no stack ends beyond 2**31
    return slice(end - pins.STACK_BYTES, end)


def _read_first_limit(section: bytes, at: int) -> int:
    """Return the smallest size of the only table or memory."""
    return read_leb128(section, at + 1)[0]


def _read_memory(data: bytes, pages: int) -> bytes:
    """Return the memory that segments as `boot` makes them describe."""
    memory = bytearray(pages * snapshots.PAGE)
    count, at = read_leb128(data, 0)
    for _ in range(count):
        offset, at = read_leb128(data, at + 2)
        size, at = read_leb128(data, at + 1)
        memory[offset : offset + size] = data[at : at + size]
        at += size
    return bytes(memory)


def _count_functions(sections: dict[int, bytes]) -> int:
    # All imports are functions.
    return wasm.count(sections[wasm.IMPORT]) + wasm.count(sections[wasm.FUNCTION])


def _find_exports(section: bytes) -> list[bytes]:
    """Return the exports that an engine keeps."""
    kept = []
    count, at = read_leb128(section, 0)
    for _ in range(count):
        start = at
        size, at = read_leb128(section, at)
        text = section[at : at + size]
        _, at = read_leb128(section, at + size + 1)
        if text in _KEPT:
            kept.append(section[start:at])
    return kept
