"""Rewrite a module so that its garbage collector finds every pointer on the stack in memory.

MicroPython's collector searches the stack for pointers. A compiler for Wasm keeps values in locals
and on the operand stack, where nothing can search. So a value that a function still needs after a
call is also kept in memory during the call, if the call may come to the collector.

For each function the rewritten one

- takes a frame of its own from the stack in linear memory, above that of the compiler;
- stores what the rest of the function may read after the call. That follows from a data-flow
  analysis: a local is live behind the call, or a value is on the operand stack below the arguments;
- stores a local either at each of its assignments or before each of the calls, whichever is rarer
  by an estimate (an instruction in a loop counts ten times as much);
- gives the frame back where it returns. An exception needs nothing: who catches it sets the stack
  pointer to what it was there.

A call may come to the collector if a chain of direct calls leads there, or any indirect call. Left
out is what cannot be a pointer to an object: constants, comparisons, bytes, addresses of the stack.

Decisions: docs/decisions.md, 59.
"""

from __future__ import annotations

from typing import Final

from ..._engine.wasm_binary import CODE, CUSTOM, iter_sections, read_leb128
from ..._engine.wasm_encoding import join, signed, split, unsigned
from ..rewriting import instructions as op
from ..rewriting.analysis import Liveness, OperandStack
from ..rewriting.instructions import (
    Function,
    Signatures,
    UnknownCodeError,
    encode_bodies,
    encode_locals,
    read_functions,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_STACK_POINTER: Final = 0
_LOOP_WEIGHT: Final = 10
_MAX_LOOPS: Final = 4
_FUNCTION_NAMES: Final = 1
_NATIVE_FRAME: Final = 96
_NATIVE_VALUE: Final = 8
"""How much of the native stack a function takes, by estimate, and how much more for each value that
it needs behind a call.
"""


def keep_roots_in_memory(
    wasm: bytes, collector: str, check: str, checked: Iterable[str] = ()
) -> bytes:
    """Return the module with its functions rewritten, without custom sections.

    Args:
        wasm: What LLVM linked, with names of functions.
        collector: The function that searches the stack.
        check: The function that raises an error if the stack is too deep.
        checked: Functions that recurse and do not call it: they do so when they are entered.

    Raises:
        UnknownCodeError: There is an instruction that is not known, or no such function.
    """
    sections = split(wasm)
    signatures = Signatures(sections)
    bodies = read_functions(sections, signatures)
    imported, names = signatures.imported, _read_names(wasm)
    collecting = _find_callers(_find_function(names, collector), imported, bodies)
    checks = dict.fromkeys(
        (_find_function(names, name) - imported for name in checked), _find_function(names, check)
    )
    written = [_rewrite(body, collecting, checks.get(i)) for i, body in enumerate(bodies)]
    sections[CODE] = encode_bodies(written)
    return join(sections)


def _read_names(wasm: bytes) -> dict[bytes, int]:
    """Return the functions by the names that the name section has."""
    names: dict[bytes, int] = {}
    for section, at, end in iter_sections(wasm):
        if section != CUSTOM or wasm[at : at + 5] != b"\x04name":
            continue
        at += 5
        while at < end:
            kind = wasm[at]
            size, at = read_leb128(wasm, at + 1)
            after = at + size
            if kind == _FUNCTION_NAMES:
                number, at = read_leb128(wasm, at)
                for _ in range(number):
                    index, at = read_leb128(wasm, at)
                    length, at = read_leb128(wasm, at)
                    names[wasm[at : at + length]] = index
                    at += length
            at = after
    return names


def _find_function(names: dict[bytes, int], name: str) -> int:
    try:
        return names[name.encode()]
    except KeyError:
        raise UnknownCodeError(f"no function {name!r}") from None


def _find_callers(target: int, imported: int, bodies: list[Function]) -> frozenset[int]:
    """Return the functions from which a function may be reached."""
    callers: dict[int, list[int]] = {}
    found = {target}
    for index, body in enumerate(bodies, imported):
        for one in body.instructions:
            if one.code == op.CALL:
                callers.setdefault(one.operand, []).append(index)
            elif one.code == op.CALL_INDIRECT:
                found.add(index)
    pending = list(found)
    while pending:
        for caller in callers.get(pending.pop(), ()):
            if caller not in found:
                found.add(caller)
                pending.append(caller)
    return frozenset(found)


def _rewrite(function: Function, collecting: frozenset[int], check: int | None) -> bytes:
    """Return the body of the rewritten function."""
    calls = {
        at
        for at, one in enumerate(function.instructions)
        if one.code == op.CALL_INDIRECT or (one.code == op.CALL and one.operand in collecting)
    }
    if not calls:
        return function.body
    stack = OperandStack(function, calls)
    stack.run()
    live = Liveness(function, calls).run()
    spilled = _mask(
        index
        for index, letter in enumerate(function.locals)
        if letter in "il" and index not in stack.plain_locals()
    )
    kept_alive = {at: live[at] | stack.locals_at.get(at, 0) for at in calls}
    needed = {at: mask & spilled for at, mask in kept_alive.items()}
    most = max(mask.bit_count() for mask in kept_alive.values()) + len(stack.kept)
    return _write(
        function, needed, stack, check, _NATIVE_FRAME + _NATIVE_VALUE * most - function.frame_size()
    )


def _write(
    function: Function,
    needed: dict[int, int],
    stack: OperandStack,
    check: int | None,
    least: int,
) -> bytes:
    locals_, depths = function.locals, stack.loop_depths
    before: dict[int, list[int]] = {}
    at_definition: set[int] = set()
    used = 0
    for mask in needed.values():
        used |= mask
    costs = dict.fromkeys(_bits(used), 0)
    for at, mask in needed.items():
        weight = _weight(depths[at])
        for local in _bits(mask):
            costs[local] += weight
    definitions = dict.fromkeys(costs, 0)
    for local in definitions:
        definitions[local] = int(local < len(function.params))
    for at, one in enumerate(function.instructions):
        if one.code in {op.LOCAL_SET, op.LOCAL_TEE} and one.operand in definitions:
            definitions[one.operand] += _weight(depths[at])
    at_definition = {local for local, cost in costs.items() if definitions[local] <= cost}
    for at, mask in needed.items():
        before[at] = [local for local in _bits(mask) if local not in at_definition]

    frame = len(locals_)
    extra = "i" + "".join(letter for letter, _ in stack.kept.values())
    kept = {at: frame + 1 + number for number, at in enumerate(stack.kept)}
    types = locals_ + extra
    slots: dict[int, int] = {}
    size = 0
    for wanted, width in (("l", 8), ("i", 4)):
        for local in (*costs, *kept.values()):
            if types[local] == wanted:
                slots[local] = size
                size += width
    size = (max(size, least) + 15) & ~15

    get_frame = bytes((op.LOCAL_GET,)) + unsigned(frame)

    def store(local: int) -> bytes:
        code, align = (op.I64_STORE, 3) if types[local] == "l" else (op.I32_STORE, 2)
        return (
            get_frame
            + bytes((op.LOCAL_GET,))
            + unsigned(local)
            + bytes((code, align))
            + unsigned(slots[local])
        )

    constant = bytes((op.I32_CONST,)) + signed(size)
    stack_pointer = unsigned(_STACK_POINTER)
    out = [
        encode_locals(function.declared + extra),
        bytes((op.GLOBAL_GET,)) + stack_pointer + constant + bytes((op.I32_SUB, op.LOCAL_TEE)),
        unsigned(frame) + bytes((op.GLOBAL_SET,)) + stack_pointer,
    ]
    out += [store(local) for local in sorted(at_definition) if local < len(function.params)]
    if check is not None:
        out.append(bytes((op.CALL,)) + unsigned(check))
    out.append(bytes((op.BLOCK,)) + op.BLOCK_TYPES[function.results])
    for at, one in enumerate(function.instructions[:-1]):
        out += [store(local) for local in before.get(at, ())]
        if one.code == op.RETURN:
            out.append(bytes((op.BR,)) + unsigned(stack.depths[at]))
        else:
            out.append(function.body[one.start : one.end])
        if one.code in {op.LOCAL_SET, op.LOCAL_TEE} and one.operand in at_definition:
            out.append(store(one.operand))
        if at in kept:
            out.append(bytes((op.LOCAL_TEE,)) + unsigned(kept[at]) + store(kept[at]))
    out.append(bytes((op.END,)) + get_frame + constant + bytes((op.I32_ADD, op.GLOBAL_SET)))
    out.append(stack_pointer + bytes((op.END,)))
    return b"".join(out)


def _weight(loops: int) -> int:
    weight: int = _LOOP_WEIGHT ** min(loops, _MAX_LOOPS)
    return weight


def _mask(indices: Iterable[int]) -> int:
    mask = 0
    for index in indices:
        mask |= 1 << index
    return mask


def _bits(mask: int) -> Iterable[int]:
    while mask:
        lowest = mask & -mask
        yield lowest.bit_length() - 1
        mask ^= lowest
