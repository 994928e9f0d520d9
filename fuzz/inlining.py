"""A module with the kernel's functions inlined does exactly what the original does.

Modules are generated: functions with loads and stores of every kind, in memories of their own and
by the functions of `extism:host/env`, at boundary offsets and others, among calls, loops, branches
and traps. Both modules get the same calls. Results, errors with their backtraces, and all memories
must be the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from unittest import mock

import plugwasm
from plugwasm._engine import ExportName
from plugwasm._runtime import modules
from plugwasm.errors import EngineError, TimeoutError
from tests.support.guests import ENV

from .choices import Choices

if TYPE_CHECKING:
    from collections.abc import Iterator

_OWN = (ExportName("memory"), ExportName("second"))
COVERED: list[str] = []
SIZES = (7, 11)
TIMEOUT_MS = 2000
MAX_PAGES = 12
INPUTS = (b"", b"x", bytes(range(7)), bytes(range(8)), bytes(range(256)) * 3, bytes(200_000))
SEEDS = [
    bytes((seed * step + step // 7) % 256 for step in range(400)) for seed in (1, 3, 7, 11, 37)
]

_EDGES = (
    *(0, 1, 7, 8, 504, 511, 512, 513, 520, 65535, 65536, 131064, 131065, 131071, 131072, 131073),
    *(196607, 196608, 262144, 2**31, 2**32 - 8, 2**32 - 1, 2**32, 2**32 + 512, 2**63, 2**64 - 8),
    *(2**64 - 7, 2**64 - 1),
)
_LOADS32 = ("i32.load", "i32.load8_s", "i32.load8_u", "i32.load16_s", "i32.load16_u")
_LOADS64 = ("i64.load", "i64.load8_s", "i64.load16_u", "i64.load32_s", "i64.load32_u")
_STORES32 = ("i32.store", "i32.store8", "i32.store16")
_STORES64 = ("i64.store", "i64.store8", "i64.store16", "i64.store32")
_OPERATORS = ("add", "sub", "mul", "and", "or", "xor", "shl", "shr_u", "rotl")
_OFFSETS = ("", "", "", "offset=8 ", "offset=8 ", "offset=127 ", "offset=127 ", "offset=65535 ")
_LENGTHS = (0, 1, 100, 70_000, 300_000, 2**40)
_LANES = "0 1 2 3 4 5 6 7 8 9 10 31 30 29 28 27"
_FUNCTIONS = 4


def check(data: bytes) -> None:
    text, calls = build(data)
    plain, inlined = list(_run(text, calls, False)), list(_run(text, calls, True))
    for i, (expected, found) in enumerate(zip(plain, inlined, strict=True)):
        assert expected == found, f"call {i}: {_short(found)} instead of {_short(expected)}"


def _short(outcome: object) -> str:
    return str(outcome)[:500]


def describe(data: bytes) -> str:
    text, calls = build(data)
    return "\n".join((text, *(f"{name} {len(given)} bytes" for name, given in calls)))


def _run(text: str, calls: list[tuple[str, bytes]], inline: bool) -> Iterator[object]:
    with mock.patch.object(modules, "_inlines", inline):
        manifest = {
            "wasm": [{"data": text.encode()}],
            "timeout_ms": TIMEOUT_MS,
            "memory": {"max_pages": MAX_PAGES},
        }
        limits = plugwasm.Limits(compile_seconds=None)
        plugin = plugwasm.Plugin(manifest, functions=(), limits=limits)
    assert plugin.compiled_plugin._plan.main.module.is_inlined == inline
    for name, given in calls:
        guest: Any = None
        try:
            outcome: Any = plugin.call(name, given)
            guest = plugin._guest
        except (EngineError, TimeoutError):
            raise
        except plugwasm.Error as error:
            outcome = type(error), str(error), getattr(error, "backtrace", None)
        memories = []
        if guest is not None:
            guest.kernel.refresh()
            own = [plugin._instance.find_memory(memory) for memory in _OWN]
            memories = [bytes(guest.kernel.heap), *(bytes(one.view()) for one in own if one)]
        yield outcome, memories
    plugin.close()


# ---- modules -------------------------------------------------------------------------------------


def build(data: bytes) -> tuple[str, list[tuple[str, bytes]]]:
    """Return the text of a module, and the calls to make."""
    choices = Choices(data)
    imports = "".join(
        f'(import "extism:host/env" "{name}" (func ${name} {ENV[name]}))'
        for name in _shuffled(choices)
    )
    start = choices.pick(("", "(start $start)", '(export "_initialize" (func $start))'))
    bodies = "".join(_function(choices, number) for number in range(_FUNCTIONS))
    calls = [
        (f"f{choices.below(_FUNCTIONS)}", choices.pick(INPUTS)) for _ in range(1 + choices.below(4))
    ]
    text = f"""(module {imports}
      (memory $m (export "memory") 1 4) (memory $n (export "second") 1)
      (global $g (mut i64) (i64.const 3)) (global $fuel (mut i32) (i32.const 0))
      (table 4 funcref) (elem (i32.const 0) $f0 $f1 $f2 $f3)
      (data $active (i32.const 16) "abcdefgh") (data $other (memory $n) (i32.const 65530) "end")
      (data $passive "passive data")
      (func $start {_statements(choices, 1, _FUNCTIONS) if start else ""})
      {start} {bodies})"""
    return text, calls


_USED = (
    *("load_u8", "load_u64", "store_u8", "store_u64", "input_load_u8", "input_load_u64"),
    *("alloc", "free", "input_set", "input_length", "output_set", "memory_bytes", "reset"),
)


def _shuffled(choices: Choices) -> list[str]:
    names, shuffled = list(_USED), []
    while names:
        shuffled.append(names.pop(choices.below(len(names))))
    return shuffled


def _function(choices: Choices, number: int) -> str:
    # Only functions with a higher number are called, so that each call ends.
    body = _statements(choices, 3, number + 1)
    return f"""(func (export "f{number}") (global.set $fuel (i32.const 60)) (call $f{number}))
    (func $f{number}
      (local $i i32) (local $a i32) (local $b i64) (local $h i64) (local $v v128)
      {body}
      (local.set $h (call $alloc (i64.const 16)))
      (call $store_u64 (local.get $h) (local.get $b))
      (call $store_u64 (i64.add (local.get $h) (i64.const 8)) (global.get $g))
      (call $output_set (local.get $h) (i64.const 16)))"""


def _statements(choices: Choices, depth: int, callee: int) -> str:
    return "".join(_statement(choices, depth, callee) for _ in range(1 + choices.below(6)))


def _statement(choices: Choices, depth: int, callee: int) -> str:
    match choices.below(16) if depth > 1 else choices.below(6):
        case 0:
            return f"(call $store_u64 {_i64(choices, depth)} {_i64(choices, depth)})"
        case 1:
            return f"(call $store_u8 {_i64(choices, depth)} {_i32(choices, depth)})"
        case 2:
            memory, offset = choices.pick(("", "$n ")), choices.pick(_OFFSETS)
            return (
                f"({choices.pick(_STORES64)} {memory}{offset}{_near(choices)} "
                f"{_i64(choices, depth)})"
            )
        case 3:
            memory, offset = choices.pick(("", "$n ")), choices.pick(_OFFSETS)
            return (
                f"({choices.pick(_STORES32)} {memory}{offset}{_near(choices)} "
                f"{_i32(choices, depth)})"
            )
        case 4:
            return f"(global.set $g {_i64(choices, depth)})"
        case 5:
            return f"(drop (call $alloc (i64.const {choices.pick(_LENGTHS)})))"
        case 6:
            return f"(local.set $b {_i64(choices, depth)})"
        case 7:
            return f"(local.set $a {_i32(choices, depth)})"
        case 8:
            body = _statements(choices, depth - 1, callee)
            other = _statements(choices, depth - 1, callee)
            return f"(if {_i32(choices, depth)} (then {body}) (else {other}))"
        case 9:
            body = _statements(choices, depth - 1, callee)
            return f"""(block $out (loop $again {body}
              (br_if $out (i32.eqz (global.get $fuel)))
              (global.set $fuel (i32.sub (global.get $fuel) (i32.const 1)))
              (br_table $out $again $out {_i32(choices, depth)})))"""
        case 10:
            return choices.pick(
                (
                    f"(memory.copy $n $m {_near(choices)} {_near(choices)} (i32.const 9))",
                    f"(memory.copy {_near(choices)} {_near(choices)} (i32.const 9))",
                    f"(memory.fill $n {_near(choices)} (i32.const 7) (i32.const 5))",
                    f"(memory.fill {_near(choices)} (i32.const 7) (i32.const 5))",
                    f"(memory.init $n $passive {_near(choices)} (i32.const 1) (i32.const 4))",
                    f"(memory.init $passive {_near(choices)} (i32.const 0) (i32.const 4))",
                    "(data.drop $passive)",
                    "(drop (memory.grow (i32.const 1)))",
                    "(drop (memory.grow $n (i32.const 1)))",
                )
            )
        case 11:
            if callee < _FUNCTIONS:
                return choices.pick((f"(call $f{callee})", f"(call_indirect (i32.const {callee}))"))
            return "(nop)"
        case 12:
            return choices.pick(
                (
                    f"(local.set $v (v128.load {_near(choices)}))",
                    f"(v128.store $n {_near(choices)} (local.get $v))",
                    f"(local.set $v (v128.load8_lane 3 {_near(choices)} (local.get $v)))",
                    f"(v128.store64_lane $n 1 {_near(choices)} (local.get $v))",
                    f"(local.set $v (v128.load32_zero $n {_near(choices)}))",
                    f"(local.set $v (i64x2.replace_lane 1 (local.get $v) {_i64(choices, depth)}))",
                    "(local.set $b (i64x2.extract_lane 1 (local.get $v)))",
                    "(local.set $v (i8x16.add (local.get $v) (v128.const i64x2 1 -1)))",
                    f"(local.set $v (i8x16.shuffle {_LANES} (local.get $v) (local.get $v)))",
                )
            )
        case 13:
            length = choices.pick((0, 1, 7, 8, 9, 100))
            return f"(call $input_set {_i64(choices, depth)} (i64.const {length}))"
        case 14:
            return f"(call $free {_i64(choices, depth)})"
        case _:
            return choices.pick(
                (
                    "(call $reset)",
                    "(unreachable)" if choices.rarely(3) else "(nop)",
                    f"(local.set $a (i32.div_u (i32.const 9) {_i32(choices, depth)}))",
                    f"(if (i32.eqz {_i32(choices, depth)}) (then (return)))",
                )
            )


def _near(choices: Choices) -> str:
    """Return an offset in a memory of its own."""
    beyond = choices.rarely(60)
    return (
        f"(i32.const {choices.pick((65535, 70000, -1) if beyond else (0, 1, 16, 24, 1000, 65400))})"
    )


def _i64(choices: Choices, depth: int) -> str:
    if depth <= 0:
        return f"(i64.const {choices.pick(_EDGES)})"
    inner = depth - 1
    match choices.below(12):
        case 0 | 1:
            return f"(i64.const {choices.pick(_EDGES)})"
        case 2:
            return f"(i64.const {512 + choices.below(2000)})"
        case 3:
            return f"(call $load_u64 {_i64(choices, inner)})"
        case 4:
            return f"(call $input_load_u64 {_i64(choices, inner)})"
        case 5:
            return f"({choices.pick(_LOADS64)} {choices.pick(('', '$n '))}{_near(choices)})"
        case 6:
            operator = choices.pick(_OPERATORS)
            return f"(i64.{operator} {_i64(choices, inner)} {_i64(choices, inner)})"
        case 7:
            return "(global.get $g)"
        case 8:
            return "(call $memory_bytes)"
        case 9:
            return f"(i64.extend_i32_u {_i32(choices, inner)})"
        case 10:
            return "(call $input_length)"
        case _:
            return f"(i64.sub (call $memory_bytes) (i64.const {choices.below(12)}))"


def _i32(choices: Choices, depth: int) -> str:
    if depth <= 0:
        return f"(i32.const {choices.byte()})"
    inner = depth - 1
    match choices.below(8):
        case 0:
            return f"(i32.const {choices.byte()})"
        case 1:
            return f"(call $load_u8 {_i64(choices, inner)})"
        case 2:
            return f"(call $input_load_u8 {_i64(choices, inner)})"
        case 3:
            return f"({choices.pick(_LOADS32)} {choices.pick(('', '$n '))}{_near(choices)})"
        case 4:
            operator = choices.pick(_OPERATORS)
            return f"(i32.{operator} {_i32(choices, inner)} {_i32(choices, inner)})"
        case 5:
            return choices.pick(("(memory.size)", "(memory.size $n)"))
        case 6:
            return f"(i32.wrap_i64 {_i64(choices, inner)})"
        case _:
            return f"(i64.gt_u {_i64(choices, inner)} {_i64(choices, inner)})"
