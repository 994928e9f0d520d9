"""Inline the kernel's load and store functions into the module of a plugin (see inliner.wat).

A plugin moves its input and its output by a call of the kernel for each 8 bytes. In place of such a
call the inlined module has the load or store itself, in the memory of the kernel, which it imports.
The inliner is a Wasm module, because it reads every instruction of untrusted modules of megabytes.

Everything that a user sees of a module, offsets of instructions too, is that of the original.

Decisions: docs/decisions.md, 49.
"""

from __future__ import annotations

import os

from ..._engine import MAX_IMPORTS, EngineFailure, Environment, ExportName, Store
from ..._engine.wasm_binary import DATA, IMPORT, iter_sections, read_leb128
from ..._host.env import NAMESPACE
from ..._host.kernel import read_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ..._engine import Module

INLINED = ("load_u8", "load_u64", "store_u8", "store_u64", "input_load_u8", "input_load_u64")
"""The functions that are inlined, in the order of their numbers in inliner.wat."""

MAX_DATA = 2**18
"""A module with more bytes of initial data is not inlined: the engine makes no image of the memory
of a module that imports another one, but copies the data for each instance.
"""

VERSION = f"inline=910d3780bc081a17;data={MAX_DATA}"
"""Part of the cache's keys: the start of the SHA-256 digest of inliner.wat, and what else decides.
So no two versions, not even on two branches, take each other's code. A test says what it must be.
"""

MAX_BYTES = 2**25
MAX_SECTIONS = 1000
"""Modules with more are not inlined, because this process would take long to read them."""

_NAMESPACE = NAMESPACE.encode()
_NUMBERS = {name.encode(): number for number, name in enumerate(INLINED, start=1)}
_FUNCTION, _TABLE, _MEMORY, _GLOBAL, _TAG = range(5)
_PAGE = 65536
# In the memory `tables` of inliner.wat:
_TARGETS, _FOUND, _FUNCTIONS, _END_OF_FUNCTIONS = 1024, 33792, 65536, 131072
_MAX_TARGETS = (_FUNCTIONS - _FOUND) // 4 - 1
_NO_TARGET = 2**32 - 1
_IN, _OUT, _TABLES = ExportName("in"), ExportName("out"), ExportName("tables")
_GROW, _INLINE = ExportName("grow"), ExportName("inline")
_MAX_KNOWN = 10_000


def read_source() -> bytes:
    """Return the inliner in the Wasm text format."""
    return read_file(os.path.dirname(__file__), "inliner.wat")


def may_inline(wasm: bytes) -> bool:
    """Return whether a module in the binary format imports a function that is inlined, and is not
    better off without that.

    For an invalid module any answer does.
    """
    if len(wasm) > MAX_BYTES or _NAMESPACE not in wasm:
        return False
    try:
        for number, (section, at, end) in enumerate(iter_sections(wasm)):
            if number >= MAX_SECTIONS or (section == DATA and end - at > MAX_DATA):
                return False
        functions, _ = _read_imports(wasm)
    except IndexError:
        return False
    return any(functions) and len(functions) <= _END_OF_FUNCTIONS - _FUNCTIONS


def _read_imports(wasm: bytes) -> tuple[bytes, int]:
    """Return the number of each imported function in `INLINED`, or 0, and how many memories are
    imported.

    Raises:
        IndexError: The module is truncated, or has imports of a form that is not known here.
    """
    functions, memories = bytearray(), 0
    for section, at, end in iter_sections(wasm):
        if section != IMPORT:
            continue
        count, at = read_leb128(wasm, at)
        if count > MAX_IMPORTS:
            raise IndexError
        for _ in range(count):
            length, at = read_leb128(wasm, at)
            module, at = wasm[at : at + length], at + length
            length, at = read_leb128(wasm, at)
            name, at = wasm[at : at + length], at + length
            kind, at = wasm[at], at + 1
            if kind == _FUNCTION:
                _, at = read_leb128(wasm, at)
                functions.append(_NUMBERS.get(name, 0) if module == _NAMESPACE else 0)
            elif kind == _GLOBAL:
                at += 2
            elif kind == _TAG:
                _, at = read_leb128(wasm, at + 1)
            elif kind in (_TABLE, _MEMORY):
                memories += kind == _MEMORY
                at += kind == _TABLE
                flags = wasm[at]
                _, at = read_leb128(wasm, at + 1)
                for bit in (1, 8):
                    if flags & bit:
                        _, at = read_leb128(wasm, at)
            else:
                raise IndexError
        if at != end:
            raise IndexError
    return bytes(functions), memories


def inline(inliner: Module, wasm: bytes) -> bytes | None:
    """Return the inlined module, or None if it has something that the inliner does not know.

    The module must be one that `may_inline`. Of an invalid module, the result means nothing.
    """
    return _run(inliner, wasm, ())[0]


def find_original_offsets(inliner: Module, wasm: bytes, offsets: Iterable[int]) -> dict[int, int]:
    """Return where the instructions at these offsets of the inlined module are in the original."""
    wanted = sorted({offset for offset in offsets if offset < _NO_TARGET})[:_MAX_TARGETS]
    inlined, found = _run(inliner, wasm, wanted)
    return {} if inlined is None else dict(zip(wanted, found, strict=True))


def _run(inliner: Module, wasm: bytes, targets: Sequence[int]) -> tuple[bytes | None, list[int]]:
    functions, memories = _read_imports(wasm)
    environment = Environment()
    store = Store(inliner.engine, environment)
    try:
        instance = store.instantiate(inliner, b"", environment.pending)
    except EngineFailure:  # there is no memory for it
        return None, []
    tables = instance.memory(_TABLES).view()
    numbers = tables[:_FUNCTIONS].cast("I")
    for i, target in enumerate((*targets, _NO_TARGET), start=_TARGETS // 4):
        numbers[i] = target
    tables[_FUNCTIONS : _FUNCTIONS + len(functions)] = functions
    grow, start = instance.function(_GROW, 2), instance.function(_INLINE, 3)
    pages = len(wasm) // _PAGE + 1
    grow.values[0], grow.values[2] = pages, 2 * pages
    start.values[0], start.values[2], start.values[4] = len(wasm), len(functions), memories
    try:
        grow.call(environment.pending)
        instance.memory(_IN).view()[: len(wasm)] = wasm
        start.call(environment.pending)
    except EngineFailure:
        return None, []
    written: int = start.values[0]
    found = numbers[_FOUND // 4 :][: len(targets)].tolist()
    return bytes(instance.memory(_OUT).view()[:written]), found


class OriginalFrames:
    """Puts the offsets of the original module into the frames of errors in the inlined one.

    Args:
        find: Return the original offset for each of these, as far as it can be found
            (`find_original_offsets`).
    """

    __slots__ = ("_find", "_known")

    def __init__(self, find: Callable[[Iterable[int]], dict[int, int]]) -> None:
        self._find = find
        self._known: dict[int, int] = {}

    def restore(self, frames: tuple[str, ...]) -> tuple[str, ...]:
        """Return the frames with original offsets, and without one where it cannot be found."""
        known = self._known
        parts = [_split(frame) for frame in frames]
        missing = {offset for _, offset in parts if offset is not None and offset not in known}
        if missing:
            found = self._find(missing)
            if len(known) > _MAX_KNOWN:
                known = {}
            self._known = known = {**known, **found}
        return tuple(
            f"{name} @ {known[offset]:#x}" if offset in known else name for name, offset in parts
        )


def _split(frame: str) -> tuple[str, int | None]:
    """Return the name and the offset of a frame as errors have it (`module!name @ 0x1f`)."""
    name, at, number = frame.rpartition(" @ 0x")
    if not at:
        return frame, None
    try:
        return name, int(number, 16)
    except ValueError:
        return frame, None
