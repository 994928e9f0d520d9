"""Rewrite a module so that its stack in linear memory runs out before the native one.

QuickJS looks at the stack pointer where it recurses, and throws an error that a script can catch.
That pointer is of the stack in linear memory, on which a compiler for Wasm puts little: a function
whose variables are all locals takes nothing of it, while its native frame has hundreds of bytes. So
each function that may be part of a recursion gets a frame that is at least as large as an estimate
of its native one.

Decisions: docs/decisions.md, 61.
"""

from __future__ import annotations

from typing import Final

from ..._engine import wasm_encoding as wasm
from ..._engine.wasm_binary import read_leb128
from ..rewriting import instructions as op
from ..rewriting.analysis import Liveness, OperandStack
from ..rewriting.instructions import Function, Signatures, encode_bodies, read_functions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_NATIVE_FRAME: Final = 128
_NATIVE_VALUE: Final = 8
_CODE_PER_BYTE: Final = 128
"""How much of the native stack a function takes, by estimate; how much more for each value that it
needs behind a call; and for how many bytes of its code one byte more.
"""
_GET_POINTER, _SET_POINTER = bytes((op.GLOBAL_GET, 0)), bytes((op.GLOBAL_SET, 0))


def match_native_frames(compiled: bytes) -> bytes:
    """Return the module with its functions rewritten.

    Raises:
        UnknownCodeError: There is an instruction that is not known.
    """
    sections = wasm.split(compiled)
    signatures = Signatures(sections)
    first = signatures.imported
    functions = read_functions(sections, signatures)
    recursive = _find_recursive(functions, first, _read_table(sections[wasm.ELEMENT]))
    sections[wasm.CODE] = encode_bodies(
        _rewrite(function) if i in recursive else function.body
        for i, function in enumerate(functions)
    )
    return wasm.join(sections)


def _read_table(elements: bytes) -> list[int]:
    """Return the numbers of the functions in the table; all segments are of the simple kind."""
    count, at = read_leb128(elements, 0)
    found = []
    for _ in range(count):
        at = elements.index(b"\x0b", at) + 1
        number, at = read_leb128(elements, at)
        for _ in range(number):
            one, at = read_leb128(elements, at)
            found.append(one)
    return found


def _find_recursive(functions: Sequence[Function], first: int, table: Sequence[int]) -> set[int]:
    """Return the functions that may call themselves, by others too.

    An indirect call may be of each function in the table that has its type.
    """
    by_type: dict[tuple[str, str], list[int]] = {}
    for number in table:
        if number >= first:
            own = functions[number - first]
            by_type.setdefault((own.params, own.results), []).append(number - first)
    callees: list[set[int]] = []
    for function in functions:
        called: set[int] = set()
        for one in function.instructions:
            if one.code == op.CALL and one.operand >= first:
                called.add(one.operand - first)
            elif one.code == op.CALL_INDIRECT:
                called.update(by_type.get(function.signatures.types[one.operand], ()))
        callees.append(called)
    groups = [group for group in _strong_components(callees) if len(group) > 1]
    calling_themselves = {index for index, called in enumerate(callees) if index in called}
    return calling_themselves.union(*groups)


def _strong_components(edges: Sequence[set[int]]) -> list[list[int]]:
    """Return the strongly connected components of a graph, by two searches (Kosaraju)."""
    order: list[int] = []
    seen = [False] * len(edges)
    for start in range(len(edges)):
        if seen[start]:
            continue
        seen[start] = True
        path = [(start, iter(edges[start]))]
        while path:
            node, rest = path[-1]
            following = next((one for one in rest if not seen[one]), None)
            if following is None:
                order.append(node)
                path.pop()
            else:
                seen[following] = True
                path.append((following, iter(edges[following])))
    backwards: list[list[int]] = [[] for _ in edges]
    for node, called in enumerate(edges):
        for one in called:
            backwards[one].append(node)
    groups = []
    left = [True] * len(edges)
    for start in reversed(order):
        if not left[start]:
            continue
        left[start] = False
        group = [start]
        for node in group:
            for one in backwards[node]:
                if left[one]:
                    left[one] = False
                    group.append(one)
        groups.append(group)
    return groups


def _rewrite(function: Function) -> bytes:
    """Return the body of a function with a frame that is large enough."""
    calls = {
        at
        for at, one in enumerate(function.instructions)
        if one.code in {op.CALL, op.CALL_INDIRECT}
    }
    stack = OperandStack(function, calls)
    stack.run()
    live = Liveness(function, calls).run()
    most = max((live[at] | stack.locals_at.get(at, 0)).bit_count() for at in calls)
    native = _NATIVE_FRAME + _NATIVE_VALUE * (most + len(stack.kept))
    native += len(function.body) // _CODE_PER_BYTE
    least = native - function.frame_size()
    if least <= 0:
        return function.body
    size = bytes((op.I32_CONST,)) + wasm.signed((least + 15) & ~15)
    out = [
        op.encode_locals(function.declared),
        _GET_POINTER + size + bytes((op.I32_SUB,)) + _SET_POINTER,
        bytes((op.BLOCK,)) + op.BLOCK_TYPES[function.results],
    ]
    for at, one in enumerate(function.instructions[:-1]):
        if one.code == op.RETURN:
            out.append(bytes((op.BR,)) + wasm.unsigned(stack.depths[at]))
        else:
            out.append(function.body[one.start : one.end])
    out.append(bytes((op.END,)) + _GET_POINTER + size + bytes((op.I32_ADD,)) + _SET_POINTER)
    out.append(bytes((op.END,)))
    return b"".join(out)
