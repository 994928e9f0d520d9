"""What a function still needs behind its calls: locals, and values on the operand stack."""

from __future__ import annotations

from typing import Final

from . import instructions as op
from .instructions import UnknownCodeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .instructions import Function, Instruction

_OUTSIDE: Final = -1
"""Where a branch out of the function goes."""

# What a value on the operand stack is.
_CONSTANT, _PLAIN, _LOCAL, _VALUE = range(4)


class OperandStack:
    """Follows the operand stack through a function.

    Attributes:
        locals_at: For a call, the locals whose values are on the stack below its arguments.
        kept: The instructions whose result is on the stack during a call, with its type.
        loop_depths: For each instruction, in how many loops it is.
        depths: For each instruction, in how many blocks it is.
    """

    def __init__(self, function: Function, calls: set[int]) -> None:
        self.function: Function = function
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
            letter = self.function.locals[one.operand]
            self._stack.append((letter, _LOCAL, one.operand, at))
        elif code in {op.LOCAL_SET, op.LOCAL_TEE}:
            (value,) = self._pop(1)
            self._assign(one.operand, value)
            if code == op.LOCAL_TEE:
                self._stack.append((self.function.locals[one.operand], _LOCAL, one.operand, at))
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


class Liveness:
    """Finds out which locals are read after a call, before they are assigned again."""

    def __init__(self, function: Function, calls: set[int]) -> None:
        self.function: Function = function
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
                        live |= 1 << one.operand
                    elif code in {op.LOCAL_SET, op.LOCAL_TEE}:
                        live &= ~(1 << one.operand)
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
                goes_on = [label(one.operand)]
            elif code == op.BR_IF:
                goes_on.append(label(one.operand))
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
