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

Decisions: docs/decisions.md, 60.
"""

from __future__ import annotations

from typing import Final

from ..._engine.wasm_binary import CODE, CUSTOM, iter_sections, read_leb128
from ..wasm_encoding import join, signed, split, unsigned
from . import instructions as op
from .instructions import Instruction, Signatures, UnknownCodeError, encode_locals, read_locals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_STACK_POINTER: Final = 0
_LOOP_WEIGHT: Final = 10
_MAX_LOOPS: Final = 4
_OUTSIDE: Final = -1
_FUNCTION_NAMES: Final = 1
_NATIVE_FRAME: Final = 96
_NATIVE_VALUE: Final = 8
"""How much of the native stack a function takes, by estimate, and how much more for each value that
it needs behind a call.
"""
_PROLOGUE: Final = (op.GLOBAL_GET, op.I32_CONST, op.I32_SUB)
_CODES: Final = {"": b"\x40", "i": b"\x7f", "l": b"\x7e", "f": b"\x7d", "d": b"\x7c"}

# What a value on the operand stack is.
_CONSTANT, _PLAIN, _LOCAL, _VALUE = range(4)


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
    code = sections[CODE]
    number, at = read_leb128(code, 0)
    bodies = []
    for index in range(number):
        size, at = read_leb128(code, at)
        params, results = signatures.functions[signatures.imported + index]
        declared, begin = read_locals(code, at)
        instructions = signatures.read_body(code, begin, at + size)
        bodies.append(_Function(signatures, code[at : at + size], at, params, results, declared, instructions))
        at += size
    imported, names = signatures.imported, _read_names(wasm)
    collecting = _find_callers(_find_function(names, collector), imported, bodies)
    for name in checked:
        bodies[_find_function(names, name) - imported].check = _find_function(names, check)
    written = [body.rewrite(collecting) for body in bodies]
    sections[CODE] = unsigned(number) + b"".join(unsigned(len(one)) + one for one in written)
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


def _find_callers(target: int, imported: int, bodies: list[_Function]) -> frozenset[int]:
    """Return the functions from which a function may be reached."""
    callers: dict[int, list[int]] = {}
    found = {target}
    for index, body in enumerate(bodies, imported):
        for one in body.instructions:
            if one.code == op.CALL:
                callers.setdefault(one.index, []).append(index)
            elif one.code == op.CALL_INDIRECT:
                found.add(index)
    pending = list(found)
    while pending:
        for caller in callers.get(pending.pop(), ()):
            if caller not in found:
                found.add(caller)
                pending.append(caller)
    return frozenset(found)


class _Function:
    """One function: what is known about it, and how it is written anew."""

    def __init__(
        self,
        signatures: Signatures,
        body: bytes,
        offset: int,
        params: str,
        results: str,
        declared: str,
        instructions: list[Instruction],
    ) -> None:
        self.signatures: Signatures = signatures
        self.body: bytes = body
        self.offset: int = offset
        self.params: str = params
        self.results: str = results
        self.locals: str = params + declared
        self.declared: str = declared
        self.instructions: list[Instruction] = instructions
        self.check: int | None = None

    def rewrite(self, collecting: frozenset[int]) -> bytes:
        """Return the body of the rewritten function."""
        calls = {
            at
            for at, one in enumerate(self.instructions)
            if one.code == op.CALL_INDIRECT or (one.code == op.CALL and one.index in collecting)
        }
        if not calls:
            return self.body
        stack = _OperandStack(self, calls)
        stack.run()
        live = _Liveness(self, calls).run()
        spilled = _mask(
            index
            for index, letter in enumerate(self.locals)
            if letter in "il" and index not in stack.plain_locals()
        )
        kept_alive = {at: live[at] | stack.locals_at.get(at, 0) for at in calls}
        needed = {at: mask & spilled for at, mask in kept_alive.items()}
        most = max(mask.bit_count() for mask in kept_alive.values()) + len(stack.kept)
        return self._write(needed, stack, _NATIVE_FRAME + _NATIVE_VALUE * most - self._frame_size())

    def _frame_size(self) -> int:
        """Return how much of the stack the compiler takes, which it does first if at all."""
        first, second, third = self.instructions[:3] if len(self.instructions) > 2 else [None] * 3
        if first is None or (first.code, second.code, third.code) != _PROLOGUE:
            return 0
        size, _ = read_leb128(self.body, second.start - self.offset + 1)
        return size

    def _write(self, needed: dict[int, int], stack: _OperandStack, least: int) -> bytes:
        locals_, depths = self.locals, stack.loop_depths
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
            definitions[local] = int(local < len(self.params))
        for at, one in enumerate(self.instructions):
            if one.code in {op.LOCAL_SET, op.LOCAL_TEE} and one.index in definitions:
                definitions[one.index] += _weight(depths[at])
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
            return get_frame + bytes((op.LOCAL_GET,)) + unsigned(local) + bytes((code, align)) + unsigned(slots[local])

        constant = bytes((op.I32_CONST,)) + signed(size)
        stack_pointer = unsigned(_STACK_POINTER)
        out = [
            encode_locals(self.declared + extra, unsigned),
            bytes((op.GLOBAL_GET,)) + stack_pointer + constant + bytes((op.I32_SUB, op.LOCAL_TEE)),
            unsigned(frame) + bytes((op.GLOBAL_SET,)) + stack_pointer,
        ]
        out += [store(local) for local in sorted(at_definition) if local < len(self.params)]
        if self.check is not None:
            out.append(bytes((op.CALL,)) + unsigned(self.check))
        out.append(bytes((op.BLOCK,)) + _CODES[self.results])
        for at, one in enumerate(self.instructions[:-1]):
            out += [store(local) for local in before.get(at, ())]
            if one.code == op.RETURN:
                out.append(bytes((op.BR,)) + unsigned(stack.depths[at]))
            else:
                out.append(self.body[one.start - self.offset : one.end - self.offset])
            if one.code in {op.LOCAL_SET, op.LOCAL_TEE} and one.index in at_definition:
                out.append(store(one.index))
            if at in kept:
                out.append(bytes((op.LOCAL_TEE,)) + unsigned(kept[at]) + store(kept[at]))
        out.append(bytes((op.END,)) + get_frame + constant + bytes((op.I32_ADD, op.GLOBAL_SET)))
        out.append(stack_pointer + bytes((op.END,)))
        return b"".join(out)


class _OperandStack:
    """Follows the operand stack through a function.

    Attributes:
        locals_at: For a call, the locals whose values are on the stack below its arguments.
        kept: The instructions whose result is on the stack during a call, with its type.
        loop_depths: For each instruction, in how many loops it is.
        depths: For each instruction, in how many blocks it is.
    """

    def __init__(self, function: _Function, calls: set[int]) -> None:
        self.function: _Function = function
        self.calls: set[int] = calls
        self.locals_at: dict[int, int] = {}
        self.kept: dict[int, tuple[str, int]] = {}
        self.loop_depths: list[int] = []
        self.depths: list[int] = []
        self._stack: list[tuple[str, int, int, int]] = []
        """Type, kind, the local if it is one, and the instruction that made it."""
        self._frames: list[tuple[Instruction | None, int]] = [(None, 0)]
        self._unreachable: list[bool] = [False]
        self._not_plain: set[int] = set(range(len(function.params)))

    def plain_locals(self) -> set[int]:
        """Return the locals that never have anything that could be a pointer to an object."""
        return set(range(len(self.function.locals))) - self._not_plain

    def run(self) -> None:
        """Follow the instructions once."""
        loops = 0
        for at, one in enumerate(self.function.instructions):
            self.loop_depths.append(loops)
            self.depths.append(len(self._frames) - 1)
            code = one.code
            if code in op.OPENS:
                if code == op.IF:
                    self._pop(1)
                taken = self._pop(len(one.types[0]))
                self._frames.append((one, len(self._stack)))
                self._unreachable.append(False)
                self._stack += taken
                loops += code == op.LOOP
            elif code in {op.ELSE, op.END}:
                opened, height = self._frames[-1]
                del self._stack[height:]
                if opened is None:
                    return
                if code == op.ELSE:
                    self._unreachable[-1] = False
                    self._push(opened.types[0], at)
                    continue
                self._frames.pop()
                self._unreachable.pop()
                loops -= opened.code == op.LOOP
                self._push(opened.types[1], at)
            else:
                self._follow(at, one)

    def _follow(self, at: int, one: Instruction) -> None:
        code = one.code
        if code == op.LOCAL_GET:
            letter = self.function.locals[one.index]
            self._stack.append((letter, _LOCAL, one.index, at))
        elif code in {op.LOCAL_SET, op.LOCAL_TEE}:
            (value,) = self._pop(1)
            self._assign(one.index, value)
            if code == op.LOCAL_TEE:
                self._stack.append((self.function.locals[one.index], _LOCAL, one.index, at))
        elif code in {op.SELECT, op.SELECT_TYPED}:
            first, second, _ = self._pop(3)
            letter = first[0] if first[0] != "?" else second[0]
            plain = first[1] <= _PLAIN and second[1] <= _PLAIN
            self._stack.append((letter, _PLAIN if plain else _VALUE, 0, at))
        elif code in {op.BR_IF, op.BR_TABLE}:
            self._pop(1)
        elif code not in op.LEAVES or code in {op.THROW, op.THROW_REF}:
            takes, gives = self.function.signatures.effect(one, self.function.locals)
            taken = self._pop(len(takes))
            if at in self.calls:
                self._note_call(at)
            plain = code in op.NO_POINTER or code == op.GLOBAL_GET
            if code in {op.I32_ADD, op.I32_SUB}:
                kinds = {value[1] for value in taken}
                plain = kinds == {_PLAIN} or kinds == {_PLAIN, _CONSTANT}
            kind = _CONSTANT if code in op.CONSTANTS else _PLAIN if plain else _VALUE
            self._push(gives, at, kind)
        if code in op.LEAVES:
            del self._stack[self._frames[-1][1] :]
            self._unreachable[-1] = True

    def _assign(self, local: int, value: tuple[str, int, int, int]) -> None:
        if value[1] > _PLAIN:
            self._not_plain.add(local)
        for place, (letter, kind, index, made) in enumerate(self._stack):
            if kind == _LOCAL and index == local:
                self._stack[place] = (letter, _VALUE, 0, made)

    def _note_call(self, at: int) -> None:
        for letter, kind, local, made in self._stack:
            if letter not in "il" or kind <= _PLAIN:
                continue
            if kind == _LOCAL:
                self.locals_at[at] = self.locals_at.get(at, 0) | 1 << local
            else:
                self.kept[made] = (letter, made)

    def _push(self, types: str, at: int, kind: int = _VALUE) -> None:
        if len(types) > 1:
            raise UnknownCodeError("several results")
        self._stack += [(letter, kind, 0, at) for letter in types]

    def _pop(self, number: int) -> list[tuple[str, int, int, int]]:
        there = len(self._stack) - self._frames[-1][1]
        missing = number - there
        if missing > 0 and not self._unreachable[-1]:
            raise UnknownCodeError("the operand stack is too short")
        first = max(0, missing)
        taken = [("?", _CONSTANT, 0, 0)] * first
        if number > first:
            taken += self._stack[len(self._stack) - (number - first) :]
            del self._stack[len(self._stack) - (number - first) :]
        return taken


class _Liveness:
    """Finds out which locals are read after a call, before they are assigned again."""

    def __init__(self, function: _Function, calls: set[int]) -> None:
        self.function: _Function = function
        self.calls: set[int] = calls

    def run(self) -> dict[int, int]:
        """Return for each call the locals that are live behind it, as a mask."""
        starts, successors, handlers = self._find_blocks()
        instructions = self.function.instructions
        numbers = {start: number for number, start in enumerate(starts)}
        ends = [*starts[1:], len(instructions)]
        live_in = [0] * len(starts)
        found: dict[int, int] = {}
        changed = True
        while changed:
            changed = False
            for number in range(len(starts) - 1, -1, -1):
                live = 0
                for target in successors[number]:
                    live |= live_in[numbers[target]]
                caught = 0
                for target in handlers[number]:
                    caught |= live_in[numbers[target]]
                for at in range(ends[number] - 1, starts[number] - 1, -1):
                    one = instructions[at]
                    code = one.code
                    if code == op.LOCAL_GET:
                        live |= 1 << one.index
                    elif code in {op.LOCAL_SET, op.LOCAL_TEE}:
                        live &= ~(1 << one.index)
                    elif code in {op.CALL, op.CALL_INDIRECT, op.THROW, op.THROW_REF}:
                        live |= caught
                        if at in self.calls:
                            found[at] = live
                if live != live_in[number]:
                    live_in[number] = live
                    changed = True
        return found

    def _find_blocks(self) -> tuple[list[int], list[list[int]], list[list[int]]]:
        """Return where basic blocks begin, where each goes on, and where it is caught."""
        instructions = self.function.instructions
        targets, elses = self._match()
        last = len(instructions) - 1
        starts: list[int] = [0]
        successors: list[list[int]] = []
        handlers: list[list[int]] = []
        frames: list[int] = []
        catches: list[list[int]] = [[]]

        def label(depth: int) -> int:
            return targets[frames[-1 - depth]] if depth < len(frames) else _OUTSIDE

        for at, one in enumerate(instructions):
            code, goes_on = one.code, [at + 1]
            if code in op.OPENS:
                if code == op.IF:
                    goes_on.append(elses.get(at, targets[at]))
                caught = list(catches[-1])
                if code == op.TRY_TABLE:
                    caught += [label(depth) for depth in one.labels]
            elif code == op.BR:
                goes_on = [label(one.index)]
            elif code == op.BR_IF:
                goes_on.append(label(one.index))
            elif code == op.BR_TABLE:
                goes_on = [label(depth) for depth in one.labels]
            elif code == op.ELSE:
                goes_on = [targets[frames[-1]]]
            elif code in op.LEAVES:
                goes_on = []
            elif code != op.END:
                continue
            # This block ends here, and the next one begins.
            if at == last:
                goes_on = []
            successors.append([target for target in goes_on if target != _OUTSIDE])
            handlers.append([target for target in catches[-1] if target != _OUTSIDE])
            if at < last:
                starts.append(at + 1)
            if code in op.OPENS:
                frames.append(at)
                catches.append(caught)
            elif code == op.END and frames:
                frames.pop()
                catches.pop()
        return starts, successors, handlers

    def _match(self) -> tuple[dict[int, int], dict[int, int]]:
        """Return for each opened block where its label is, and where its `else` branch begins."""
        targets: dict[int, int] = {}
        elses: dict[int, int] = {}
        opened: list[int] = []
        for at, one in enumerate(self.function.instructions):
            if one.code in op.OPENS:
                opened.append(at)
            elif one.code == op.ELSE:
                elses[opened[-1]] = at + 1
            elif one.code == op.END and opened:
                start = opened.pop()
                is_loop = self.function.instructions[start].code == op.LOOP
                targets[start] = start + 1 if is_loop else at + 1
        return targets, elses


def _weight(loops: int) -> int:
    return _LOOP_WEIGHT ** min(loops, _MAX_LOOPS)


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
