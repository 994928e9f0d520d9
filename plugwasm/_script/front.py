"""The module that stands for a script.

It is the main module of the plugin, and imports the engine. It has

- the exports of the script, each of which calls the engine with the number of a function,
- what loading the script has changed in the engine's memory, which its start function puts there,
- the host functions that the script may call, as elements of the engine's function table.
"""

from __future__ import annotations

from . import wasm_encoding as wasm
from .wasm_encoding import FUNCREF, I32, VALUE_TYPES, function_type, name, signed, unsigned, vector

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .host_imports import HostImport

ENGINE = "plugwasm:engine"
"""The name under which fronts import the engine."""
RESERVED = frozenset(("_initialize", "_start", "__wasm_call_ctors", "hs_init"))
"""Exports that a host runs by itself."""
ADD_FUNCTION = "add_function"
"""The export of an engine that adds a function to its table."""

_SLOT_BYTES = 8
_LOADS = {"i32": b"\x28\x02", "i64": b"\x29\x03", "f32": b"\x2a\x02", "f64": b"\x2b\x03"}
_STORES = {"i32": b"\x36\x02", "i64": b"\x37\x03", "f32": b"\x38\x02", "f64": b"\x39\x03"}
_GET_FIRST, _CALL, _I32_CONST, _REF_FUNC = b"\x20\x00", b"\x10", b"\x41", b"\xd2"
_MEMORY_GROW, _MEMORY_INIT = b"\x40\x00", b"\xfc\x08"
_TRAP_IF_FULL = b"\x41\x7f\x46\x04\x40\x00\x0b"


def make_loader(engine_pages: int) -> bytes:
    """Return a front without a script: it exports the engine's `load`."""
    kind = function_type((), (I32,))
    imports = [name(ENGINE) + name("load") + b"\x00\x00", _import_memory(engine_pages)]
    return wasm.join(
        {
            wasm.TYPE: vector([kind]),
            wasm.IMPORT: vector(imports),
            wasm.EXPORT: vector([name("load") + b"\x00\x00"]),
        }
    )


def make_front(
    exports: Sequence[str],
    changes: Iterable[tuple[int, bytes]],
    functions: Sequence[HostImport],
    *,
    engine_pages: int,
    more_pages: int,
) -> bytes:
    """Return the module.

    Args:
        exports: The names of the script's functions, in the engine's order.
        changes: What loading the script has changed in memory.
        functions: The host functions, in the order in which the engine knows them.
        engine_pages: Pages of memory that the engine has to start with.
        more_pages: Pages that loading the script has added.
    """
    types = [
        function_type((), ()),
        function_type((), (I32,)),
        function_type((I32,), (I32,)),
        function_type((I32,), ()),
        function_type((FUNCREF,), ()),
    ]
    start, called, call, thunk, adder = range(5)
    imports = [import_function(ENGINE, "call", call), _import_memory(engine_pages)]
    first_host = 1
    if functions:
        imports.append(import_function(ENGINE, ADD_FUNCTION, adder))
        first_host = 2
    for function in functions:
        types.append(host_type(function))
        imports.append(import_function(function.namespace, function.name, len(types) - 1))
    first_thunk = first_host + len(functions)
    first_export = first_thunk + len(functions)
    begin = first_export + len(exports)

    segments = list(changes)
    loads = [
        _I32_CONST
        + signed(_as_i32(offset))
        + b"\x41\x00"
        + _I32_CONST
        + signed(len(content))
        + _MEMORY_INIT
        + unsigned(number)
        + b"\x00"
        for number, (offset, content) in enumerate(segments)
    ]
    if more_pages:
        loads.insert(0, _I32_CONST + signed(more_pages) + _MEMORY_GROW + _TRAP_IF_FULL)
    adds = [
        _REF_FUNC + unsigned(first_thunk + i) + _CALL + unsigned(1) for i in range(len(functions))
    ]
    sections = {
        wasm.TYPE: vector(types),
        wasm.IMPORT: vector(imports),
        wasm.FUNCTION: vector(
            [unsigned(thunk)] * len(functions)
            + [unsigned(called)] * len(exports)
            + [unsigned(start)]
        ),
        wasm.EXPORT: vector(
            [name(one) + b"\x00" + unsigned(first_export + i) for i, one in enumerate(exports)]
        ),
        wasm.START: unsigned(begin),
        wasm.DATA_COUNT: unsigned(len(segments)),
        wasm.CODE: vector(
            [thunk_body(function, first_host + i) for i, function in enumerate(functions)]
            + [wasm.body(_I32_CONST + signed(i) + _CALL + unsigned(0)) for i in range(len(exports))]
            + [wasm.body(*loads, *adds)]
        ),
        wasm.DATA: vector([b"\x01" + unsigned(len(content)) + content for _, content in segments]),
    }
    if functions:
        declared = vector([unsigned(first_thunk + i) for i in range(len(functions))])
        sections[wasm.ELEMENT] = vector([b"\x03\x00" + declared])
    return wasm.join(sections)


def host_type(function: HostImport) -> bytes:
    """Return the type of a host function."""
    return function_type(
        map(VALUE_TYPES.__getitem__, function.params),
        map(VALUE_TYPES.__getitem__, function.results),
    )


def import_function(module: str, field: str, kind: int) -> bytes:
    """Return an import of a function."""
    return name(module) + name(field) + b"\x00" + unsigned(kind)


def _import_memory(pages: int) -> bytes:
    return name(ENGINE) + name("memory") + b"\x02\x00" + unsigned(pages)


def export_body(number: int, call: int) -> bytes:
    """Return a function that calls a function of the script by its number."""
    return wasm.body(_I32_CONST + signed(number) + _CALL + unsigned(call))


def thunk_body(function: HostImport, imported: int) -> bytes:
    """Return a function that calls a host function with arguments from memory."""
    loads = [
        _GET_FIRST + _LOADS[one] + unsigned(i * _SLOT_BYTES)
        for i, one in enumerate(function.params)
    ]
    call = _CALL + unsigned(imported)
    if not function.results:
        return wasm.body(*loads, call)
    return wasm.body(_GET_FIRST, *loads, call, _STORES[function.results[0]] + b"\x00")


def _as_i32(value: int) -> int:
    return value - 2**32 if value >= 2**31 else value
