"""Bound the cost of compiling a module, from its bytes, before it is known to be valid.

A compiler is slow where values multiply with the places that pass them on: a block of 32 parameters
takes two bytes, and a jump to it takes two more. So nothing is priced that could multiply unseen. A
module is heavy if a block of it has parameters or several results (a type by index); if an
instruction, a value type or a form of a section is not listed below; or if anything is not as the
format has it. In what is left, each function costs its instructions, with calls priced as if all
were of the widest type, and its locals once for each place where control splits or meets.

Decisions: docs/decisions.md, 28.1.
"""

from __future__ import annotations

from itertools import islice

from .wasm_binary import (
    CODE,
    CUSTOM,
    DATA,
    ELEMENT,
    EXPORT,
    FUNCTION,
    GLOBAL,
    IMPORT,
    TABLE,
    TAG,
    TYPE,
    iter_sections,
    read_leb128,
)

LIGHT_BYTES = 4096
"""The most bytes of a light module, without custom sections and passive data segments."""
LIGHT_DATA = 4 * 2**20
"""The most bytes of its passive data segments, which are only copied."""
LIGHT_COST = 5000
"""The most that the modules of a plugin may cost together to be compiled in the application's
process. One unit is some 25 µs.
"""
HEAVY_COST = LIGHT_COST + 1

_FUNCTION_TYPE = 0x60
_VALUE_TYPES = frozenset((0x7F, 0x7E, 0x7D, 0x7C, 0x70))
_FUNCREF = 0x70
_PASSIVE = 1
_NO_RESULT = 0x40
_END = 0x0B
_LIGHT_VALUES = 32
_LIGHT_SECTIONS = 8 * LIGHT_BYTES
_LIGHT_LOCALS = 4096
_LIGHT_TABLES = 10_000
"""Elements of all tables together. The engine lays out what the first segments put there, at four
bytes an element.
"""

# What follows the opcode of an instruction: a number of LEB128 immediates, a number of bytes, or a
# form of its own.
_BLOCK, _LABELS, _CALL, _SELECT, _BULK, _HEAVY = -1, -2, -3, -4, -5, -6
_BYTES = 4
_IMMEDIATES = [_HEAVY] * 256
for _codes, _what in (
    ((0x00, 0x01, 0x05, 0x0B, 0x0F, 0x1A, 0x1B, 0xD1, *range(0x45, 0xC5)), 0),
    ((0x0C, 0x0D, *range(0x20, 0x27), 0x3F, 0x40, 0x41, 0x42, 0xD0, 0xD2), 1),
    (range(0x28, 0x3F), 2),
    ((0x43,), 4),
    ((0x44,), 8),
    ((0x02, 0x03, 0x04), _BLOCK),
    ((0x0E,), _LABELS),
    ((0x10, 0x11), _CALL),
    ((0x1C,), _SELECT),
    ((0xFC,), _BULK),
):
    for _code in _codes:
        _IMMEDIATES[_code] = _what
_INDIRECT = 0x11
_BULK_NUMBERS = (0, 0, 0, 0, 0, 0, 0, 0, 2, 1, 2, 1, 2, 1, 2, 1, 1, 1)

_COSTS = [1] * 256
for _codes, _more in (
    ((0x25, 0x26, *range(0xA8, 0xB2)), 2),  # tables; checked conversions of floats to integers
    ((0x10,), 4),
    ((0x11,), 6),
    ((0x40, 0xFC), 13),  # calls into the engine
):
    for _code in _codes:
        _COSTS[_code] = _more
_IS_BRANCH = [int(_code in (0x02, 0x03, 0x04, 0x05, 0x0C, 0x0D)) for _code in range(256)]
_ENTRY_COST = 3
_ENTRIES = frozenset((IMPORT, FUNCTION, GLOBAL, EXPORT, ELEMENT, DATA, TAG))


class _Heavy(Exception):
    """The module is not certain to be light."""


def estimate_cost(wasm: bytes) -> int:
    """Return an upper bound of a module's cost, or `HEAVY_COST` if it exceeds `LIGHT_COST` or has
    no certain bound.
    """
    # Counts are untrusted: following them must not take long either.
    if len(wasm) > 16 * LIGHT_BYTES + LIGHT_DATA:
        return HEAVY_COST
    try:
        found = list(islice(iter_sections(wasm), _LIGHT_SECTIONS + 1))
    except IndexError:
        found = []
    if not found or found[-1][2] != len(wasm):
        # Truncated: the engine notices before it compiles anything.
        return 0 if len(found) <= _LIGHT_SECTIONS else HEAVY_COST
    passive = sum(
        _count_passive_bytes(wasm, at, end)[0] for section, at, end in found if section == DATA
    )
    if len(wasm) - passive > 16 * LIGHT_BYTES:
        return HEAVY_COST
    if sum(end - at for section, at, end in found if section != CUSTOM) - passive > LIGHT_BYTES:
        return HEAVY_COST
    total = widest = 0
    try:
        for section, at, end in found:
            if section == TYPE:
                widest = _find_widest_type(wasm, at)
                total += read_leb128(wasm, at)[0]
            elif section == TABLE:
                _check_tables(wasm, at)
            elif section == CODE:
                total += _cost_of_functions(wasm, at, end, widest)
            elif section in _ENTRIES:
                if section == IMPORT:
                    _check_imports(wasm, at)
                elif section == GLOBAL:
                    _check_globals(wasm, at)
                total += read_leb128(wasm, at)[0] * (_ENTRY_COST + (widest >> 2))
            if total > LIGHT_COST:
                return HEAVY_COST
    except (IndexError, _Heavy):
        return HEAVY_COST
    return total


def is_light(wasm: bytes) -> bool:
    """Return whether compiling the module certainly takes little time and memory."""
    return estimate_cost(wasm) <= LIGHT_COST


def may_have_image(wasm: bytes) -> bool:
    """Return whether a light module may have data that its memory starts with.

    An image of it can be much larger than the data: two bytes far apart make one of 16 MiB.
    """
    try:
        found = [part for part in iter_sections(wasm) if part[0] == DATA]
    except IndexError:
        return True  # truncated
    return any(not _count_passive_bytes(wasm, at, end)[1] for _, at, end in found)


def _count_passive_bytes(wasm: bytes, at: int, end: int) -> tuple[int, bool]:
    """Return how many bytes the passive segments have that the section starts with, and whether it
    has no others.
    """
    total = 0
    try:
        count, at = read_leb128(wasm, at)
        if count > LIGHT_COST:
            return 0, False
        for _ in range(count):
            if wasm[at] != _PASSIVE:
                return total, False
            size, at = read_leb128(wasm, at + 1)
            at += size
            if at > end:
                return total, False
            total += size
    except IndexError:
        return total, False
    return total, True


def _find_widest_type(wasm: bytes, at: int) -> int:
    """Return the largest number of parameters and results together that a type has."""
    count, at = read_leb128(wasm, at)
    widest = 0
    for _ in range(count):
        if wasm[at] != _FUNCTION_TYPE:
            raise _Heavy
        at += 1
        both = 0
        for _ in ("parameters", "results"):
            values, at = read_leb128(wasm, at)
            if values > _LIGHT_VALUES or not _VALUE_TYPES.issuperset(wasm[at : at + values]):
                raise _Heavy
            at += values
            both += values
        widest = max(widest, both)
    return widest


def _check_imports(wasm: bytes, at: int) -> None:
    """Raise `_Heavy` for imported tables, and for globals of other types than numbers.

    Each use of a reference to the host costs as much as a hundred instructions.
    """
    count, at = read_leb128(wasm, at)
    for _ in range(count):
        for _ in ("module", "name"):
            length, at = read_leb128(wasm, at)
            at += length
        kind = wasm[at]
        at += 1
        if kind == 0:
            _, at = read_leb128(wasm, at)
        elif kind == 2:
            bounds = 2 if wasm[at] & 1 else 1
            if wasm[at] > 5:
                raise _Heavy
            at += 1
            for _ in range(bounds):
                _, at = read_leb128(wasm, at)
        elif kind == 3 and wasm[at] in _VALUE_TYPES:
            at += 2
        else:
            raise _Heavy


def _check_globals(wasm: bytes, at: int) -> None:
    count, at = read_leb128(wasm, at)
    for _ in range(count):
        if wasm[at] not in _VALUE_TYPES:
            raise _Heavy
        at += 2
        while (code := wasm[at]) != _END:
            numbers = _IMMEDIATES[code]
            if numbers < 0:
                raise _Heavy
            at += 1
            if numbers >= _BYTES:
                at += numbers
                continue
            for _ in range(numbers):
                _, at = read_leb128(wasm, at)
        at += 1


def _check_tables(wasm: bytes, at: int) -> None:
    count, at = read_leb128(wasm, at)
    elements = 0
    for _ in range(count):
        if wasm[at] != _FUNCREF or wasm[at + 1] > 1:
            raise _Heavy
        first, next_at = read_leb128(wasm, at + 2)
        elements += first
        at = read_leb128(wasm, next_at)[1] if wasm[at + 1] else next_at
    if elements > _LIGHT_TABLES:
        raise _Heavy


def _cost_of_functions(wasm: bytes, at: int, end_of_section: int, widest: int) -> int:
    functions, at = read_leb128(wasm, at)
    total = 0
    for _ in range(functions):
        size, at = read_leb128(wasm, at)
        end = at + size
        groups, at = read_leb128(wasm, at)
        locals = 0
        for _ in range(groups):
            count, at = read_leb128(wasm, at)
            locals += count
            if locals > _LIGHT_LOCALS or wasm[at] not in _VALUE_TYPES:
                raise _Heavy
            at += 1
        total += _cost_of_body(wasm, at, end, locals + widest, widest)
        if total > LIGHT_COST:
            raise _Heavy
        at = end
    if at != end_of_section:
        raise _Heavy
    return total


def _cost_of_body(wasm: bytes, at: int, end: int, locals: int, widest: int) -> int:
    """Return the cost of a function. `locals` is the number of its locals and parameters."""
    plain = places = calls = 0
    follows, weights, is_place = _IMMEDIATES, _COSTS, _IS_BRANCH
    while at < end:
        code = wasm[at]
        at += 1
        plain += weights[code]
        places += is_place[code]
        numbers = follows[code]
        if numbers >= _BYTES:
            at += numbers
            continue
        if numbers < 0:
            if numbers == _BLOCK:
                if wasm[at] != _NO_RESULT and wasm[at] not in _VALUE_TYPES:
                    raise _Heavy
                numbers = 1
            elif numbers == _CALL:
                calls += 1
                numbers = 2 if code == _INDIRECT else 1
            elif numbers == _LABELS:
                numbers, at = read_leb128(wasm, at)
                numbers += 1
                places += numbers
            elif numbers == _SELECT:
                numbers, at = read_leb128(wasm, at)
            elif numbers == _BULK:
                kind, at = read_leb128(wasm, at)
                if kind >= len(_BULK_NUMBERS):
                    raise _Heavy
                numbers = _BULK_NUMBERS[kind]
            else:
                raise _Heavy
        elif numbers == 2 and wasm[at] > 63:
            raise _Heavy  # a memory index follows
        for _ in range(numbers):
            while wasm[at] > 127:
                at += 1
            at += 1
    if at != end:
        raise _Heavy
    return plain + places * (2 + locals) + calls * (widest >> 2)
