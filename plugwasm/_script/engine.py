"""An engine, ready to load scripts: an interpreter that has started, with its kit.

What was compiled is run once: `boot` makes the interpreter and runs the kit. The memory that this
leaves is written back into the module, so that no instance has to do it again.
"""

from __future__ import annotations

from .._engine import ExportName
from .._engine import wasm_encoding as wasm
from .._engine.wasm_binary import read_leb128
from .._manifest.resolve import ModuleSpec, PluginSpec
from .._platform.native_threads import RLock
from .._runtime.compiled_plugin import CompiledPlugin
from .._runtime.plugin import Plugin
from .._runtime.settings import PluginSettings
from .._wasi.options import FrozenClock, WasiOptions
from . import pins, snapshots
from .engine_build import find_or_build, say
from .front import ADD_FUNCTION, ENGINE, make_loader
from .languages import LANGUAGES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .._manifest.limits import Limits
    from .languages import Language

_MEMORY = ExportName("memory")
_SLOT = "plugwasm:slot"
_UNUSED_SLOT = wasm.name("extism:host/env") + wasm.name("length_unsafe")
"""What a slot is that no host function has taken: every host has it, and no engine uses it."""
_GROW_TABLE = b"\x20\x00\x41\x01\xfc\x0f\x00\x41\x7f\x46\x04\x40\x00\x0b"
"""Grows table 0 by one element, the argument, and traps if that fails."""
_GAP = 1024
"""Equal bytes that end a segment of an engine. Its memory is an image: a file, mapped."""
MAX_LOADERS = 16
OPTIONAL = ("http_request", "poll_oneoff")
"""Imports that a plugin of one module has only if its script can use them. An engine calls each in
one function, which it exports under the same name."""

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
        return ModuleSpec(ENGINE, self.wasm, f"the engine of {self.language.title}")

    def find_export(self, name: str) -> int:
        """Return the number of a function that the engine exports."""
        export = read_exports(wasm.split(self.wasm)[wasm.EXPORT])[name]
        return read_leb128(export, len(wasm.name(name)) + 1)[0]

    def load(self, document: bytes, limits: Limits | None) -> tuple[bytes, bytes]:
        """Run a script in a new instance, without anything that it could ask the host.

        Returns:
            What the engine answers, and its heap.

        Raises:
            CallError: A limit ended it.
        """
        with Plugin(self._loader(limits)) as plugin:
            answer = plugin.call("load", document)
            return answer, _copy_heap(plugin)

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
    sections = wasm.split(compiled)
    _check_stack(sections[wasm.GLOBAL])
    exports = read_exports(sections[wasm.EXPORT])
    _free_slots(sections, exports.pop("slots"))
    spec = PluginSpec([ModuleSpec("main", wasm.join(sections), name)])
    engine = CompiledPlugin._from_settings(spec, PluginSettings(_frozen(), (), name))
    kit = language.kit()
    if "prepare" in exports:
        with Plugin(engine) as plugin:
            kit = plugin.call("prepare", kit)
    with Plugin(engine) as plugin:
        plugin.call("boot", kit)
        heap = _copy_heap(plugin)
    adder = count_functions(sections)
    sections[wasm.TYPE] = wasm.append(
        sections[wasm.TYPE], [wasm.function_type((wasm.FUNCREF,), ())]
    )
    sections[wasm.FUNCTION] = wasm.append(
        sections[wasm.FUNCTION], [wasm.unsigned(wasm.count(sections[wasm.TYPE]) - 1)]
    )
    sections[wasm.CODE] = wasm.append(sections[wasm.CODE], [wasm.body(_GROW_TABLE)])
    sections[wasm.EXPORT] = wasm.vector(
        [
            *(exports[name] for name in ("memory", "load", "call", *OPTIONAL) if name in exports),
            wasm.name(ADD_FUNCTION) + b"\x00" + wasm.unsigned(adder),
        ]
    )
    write_memory(sections, heap)
    return wasm.join(sections)


def write_memory(sections: dict[int, bytes], heap: bytes) -> None:
    """Make this what the memory starts with: the stack, empty, and the heap."""
    segments = [
        b"\x00\x41" + wasm.signed(offset) + b"\x0b" + wasm.unsigned(len(content)) + content
        for offset, content in snapshots.find_changes(b"", heap, _GAP)
    ]
    sections[wasm.MEMORY] = b"\x01\x00" + wasm.unsigned(
        (pins.STACK_BYTES + len(heap)) // snapshots.PAGE
    )
    sections[wasm.DATA] = wasm.vector(segments)
    sections.pop(wasm.DATA_COUNT, None)


def take_slots(
    sections: dict[int, bytes], taken: Sequence[bytes], dropped: Iterable[str] = ()
) -> int:
    """Let these imports take slots, and return the number of the first that did.

    Slots follow each other, because the linker keeps their order.

    Args:
        sections: The sections of an engine.
        taken: The imports.
        dropped: Names of `OPTIONAL` imports to take out. What calls them becomes a trap.
    """
    imports = wasm.items(sections[wasm.IMPORT], wasm.skip_import)
    slots = [i for i, one in enumerate(imports) if one.startswith(_UNUSED_SLOT)]
    assert len(taken) <= len(slots) == slots[-1] - slots[0] + 1
    unused = imports[slots[0]]
    imports[slots[0] : slots[0] + len(taken)] = taken
    exports = read_exports(sections[wasm.EXPORT])
    bodies = wasm.items(sections[wasm.CODE], wasm.skip_sized)
    for name in dropped:
        imports = [unused if _is_import(one, name) else one for one in imports]
        number, _ = read_leb128(exports[name], len(wasm.name(name)) + 1)
        bodies[number - len(imports)] = wasm.body(b"\x00")
    sections[wasm.IMPORT] = wasm.vector(imports)
    sections[wasm.CODE] = wasm.vector(bodies)
    return slots[0]


def _is_import(one: bytes, name: str) -> bool:
    size, at = read_leb128(one, 0)
    return one.startswith(wasm.name(name), at + size)


def count_functions(sections: dict[int, bytes]) -> int:
    """Return how many functions a module has; all imports are functions."""
    return wasm.count(sections[wasm.IMPORT]) + wasm.count(sections[wasm.FUNCTION])


def _free_slots(sections: dict[int, bytes], export: bytes) -> None:
    """Give the slots the type of a function that every host has, and take out what calls them."""
    sections[wasm.TYPE] = wasm.append(
        sections[wasm.TYPE], [wasm.function_type((wasm.I64,), (wasm.I64,))]
    )
    unused = _UNUSED_SLOT + b"\x00" + wasm.unsigned(wasm.count(sections[wasm.TYPE]) - 1)
    slot = wasm.name(_SLOT)
    imports = wasm.items(sections[wasm.IMPORT], wasm.skip_import)
    sections[wasm.IMPORT] = wasm.vector(
        [unused if one.startswith(slot) else one for one in imports]
    )
    number, _ = read_leb128(export, len(wasm.name("slots")) + 1)
    bodies = wasm.items(sections[wasm.CODE], wasm.skip_sized)
    bodies[number - len(imports)] = wasm.body(b"\x00")
    sections[wasm.CODE] = wasm.vector(bodies)


def _frozen() -> WasiOptions:
    """Return a clock that stands still, so that what a script does when it is loaded is the same
    each time.
    """
    return WasiOptions(clock=FrozenClock())


def _copy_heap(plugin: Plugin) -> bytes:
    """Return the memory of a plugin's engine after the stack, which comes first."""
    assert plugin._guest is not None
    return bytes(plugin._guest.instances[0].memory(_MEMORY).view()[pins.STACK_BYTES :])


def _check_stack(globals: bytes) -> None:
    """Check that the stack comes first: the stack pointer is a global, and starts at its end."""
    pointer = b"\x7f\x01\x41" + wasm.signed(pins.STACK_BYTES) + b"\x0b"
    assert globals == b"\x01" + pointer, "an engine has one global, the pointer of its stack"


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


def read_exports(section: bytes) -> dict[str, bytes]:
    """Return the exports by their names."""
    found = {}
    for one in wasm.items(section, wasm.skip_export):
        size, at = read_leb128(one, 0)
        found[one[at : at + size].decode()] = one
    return found
