"""From what a compiler made to an engine: the interpreter is started, once and for all.

What was compiled is run: `boot` makes the interpreter and runs the kit. The memory that this
leaves is written back into the module, so that no instance has to do it again. The digest of an
engine's sources has this file in it, and nothing that uses engines.
"""

from __future__ import annotations

from .._engine import ExportName
from .._engine import wasm_encoding as wasm
from .._engine.wasm_binary import read_leb128
from .._manifest.resolve import ModuleSpec, PluginSpec
from .._runtime.compiled_plugin import CompiledPlugin
from .._runtime.plugin import Plugin
from .._runtime.settings import PluginSettings
from .._wasi.options import FrozenClock, WasiOptions
from . import pins, snapshots

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .languages import Language

ADD_FUNCTION = "add_function"
"""The export of an engine that adds a function to its table."""
OPTIONAL = ("http_request", "poll_oneoff")
"""Imports that a plugin of one module has only if its script can use them. An engine calls each in
one function, which it exports under the same name."""
_MEMORY = ExportName("memory")
_SLOT = "plugwasm:slot"
_UNUSED_SLOT = wasm.name("extism:host/env") + wasm.name("length_unsafe")
"""What a slot is that no host function has taken: every host has it, and no engine uses it."""
_GROW_TABLE = b"\x20\x00\x41\x01\xfc\x0f\x00\x41\x7f\x46\x04\x40\x00\x0b"
"""Grows table 0 by one element, the argument, and traps if that fails."""
GAP = 1024
"""Equal bytes that end a segment of an engine. Its memory is an image: a file, mapped."""


def boot(language: Language, compiled: bytes) -> bytes:
    """Return the module that was compiled, with the interpreter started."""
    name = f"the interpreter of {language.title}"
    sections = wasm.split(compiled)
    _check_stack(sections[wasm.GLOBAL])
    exports = read_exports(sections[wasm.EXPORT])
    _free_slots(sections, exports.pop("slots"))
    spec = PluginSpec([ModuleSpec("main", wasm.join(sections), name)])
    engine = CompiledPlugin._from_settings(spec, PluginSettings(frozen(), (), name))
    kit = language.kit()
    if "prepare" in exports:
        with Plugin(engine) as plugin:
            kit = plugin.call("prepare", kit)
    with Plugin(engine) as plugin:
        plugin.call("boot", kit)
        heap = copy_heap(plugin)
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
    write_memory(sections, len(heap), snapshots.find_changes(b"", heap, GAP))
    return wasm.join(sections)


def write_memory(
    sections: dict[int, bytes], heap_bytes: int, content: Iterable[tuple[int, bytes]]
) -> None:
    """Make this what the memory starts with: the stack, empty, and the heap.

    Args:
        heap_bytes: The size of the heap.
        content: What is in it besides zeros: addresses and bytes.
    """
    segments = [
        b"\x00\x41" + wasm.signed(offset) + b"\x0b" + wasm.unsigned(len(part)) + part
        for offset, part in content
    ]
    sections[wasm.MEMORY] = b"\x01\x00" + wasm.unsigned(
        (pins.STACK_BYTES + heap_bytes) // snapshots.PAGE
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
    """Return whether an import has this name, wherever it is imported from."""
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


def _check_stack(globals: bytes) -> None:
    """Check that the stack comes first: the stack pointer is a global, and starts at its end."""
    pointer = b"\x7f\x01\x41" + wasm.signed(pins.STACK_BYTES) + b"\x0b"
    assert globals == b"\x01" + pointer, "an engine has one global, the pointer of its stack"


def frozen() -> WasiOptions:
    """Return a clock that stands still, so that what a script does when it is loaded is the same
    each time.
    """
    return WasiOptions(clock=FrozenClock())


def copy_heap(plugin: Plugin) -> bytes:
    """Return the memory of a plugin's engine after the stack, which comes first."""
    assert plugin._guest is not None
    return bytes(plugin._guest.instances[0].memory(_MEMORY).view()[pins.STACK_BYTES :])


def read_exports(section: bytes) -> dict[str, bytes]:
    """Return the exports by their names."""
    found = {}
    for one in wasm.items(section, wasm.skip_export):
        size, at = read_leb128(one, 0)
        found[one[at : at + size].decode()] = one
    return found
