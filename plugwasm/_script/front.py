"""The module that stands for a script.

It is the main module of the plugin, and imports the engine. It has

- the exports of the script, each of which calls the engine with the number of a function,
- what loading the script has changed in the engine's memory, which its start function puts there,
- the host functions that the script may call, as elements of the engine's function table.
"""

from __future__ import annotations

from .._engine import wasm_encoding as wasm
from .._engine.wasm_encoding import (
    FUNCREF,
    I32,
    VALUE_TYPES,
    function_type,
    name,
    signed,
    unsigned,
    vector,
)
from .boot import ADD_FUNCTION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .host_imports import HostImport

ENGINE = "plugwasm:engine"
"""The name under which fronts import the engine."""
RESERVED = frozenset(("_initialize", "_start", "__wasm_call_ctors", "hs_init"))
"""Exports that a host runs by itself."""

_SLOT_BYTES = 8
_LOADS = {"i32": b"\x28\x02", "i64": b"\x29\x03", "f32": b"\x2a\x02", "f64": b"\x2b\x03"}
_STORES = {"i32": b"\x36\x02", "i64": b"\x37\x03", "f32": b"\x38\x02", "f64": b"\x39\x03"}
_GET_FIRST, _CALL, _I32_CONST, _REF_FUNC = b"\x20\x00", b"\x10", b"\x41", b"\xd2"
_MEMORY_GROW = b"\x40\x00"
_COPY_RECORDS = bytes.fromhex(
    "0340"  # loop
    "4100 2000 4108 fc080000"  # memory.init 0: the head of the record at local 0, to address 0
    "2000 4108 6a 2100"  # local 0 is after the head
    "4100 280204 2201 0440"  # if its length, local 1, is not 0
    "4100 280200 2000 2001 fc080000"  # memory.init 0: what follows, to its offset
    "2000 2001 6a 2100 0c01 0b 0b"  # the next record
    "4100 4200 370300"  # zeros at address 0, which is where the stack of the engine ends
)
"""Copies the records of the data segment into the memory of the engine: for each an offset and a
length of 32 bits, and the bytes. The last one has none.
"""
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

    records = [_record(offset, content) for offset, content in changes]
    records.append(_record(0, b""))
    grow = _I32_CONST + signed(more_pages) + _MEMORY_GROW + _TRAP_IF_FULL if more_pages else b""
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
        wasm.DATA_COUNT: unsigned(1),
        wasm.CODE: vector(
            [thunk_body(function, first_host + i) for i, function in enumerate(functions)]
            + [wasm.body(_I32_CONST + signed(i) + _CALL + unsigned(0)) for i in range(len(exports))]
            + [wasm.body(grow, _COPY_RECORDS, *adds, locals=b"\x01\x02\x7f")]
        ),
        wasm.DATA: vector([b"\x01" + unsigned(sum(map(len, records))) + b"".join(records)]),
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


def _record(offset: int, content: bytes) -> bytes:
    return offset.to_bytes(4, "little") + len(content).to_bytes(4, "little") + content
