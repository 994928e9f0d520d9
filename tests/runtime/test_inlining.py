"""The kernel's load and store functions, inlined into modules of plugins.

Most tests run a plugin twice, with its module as it is and inlined, and compare everything that can be seen.
"""

from __future__ import annotations

from typing import Any

import pytest

from plugwasm import CompiledPlugin, Limits, Plugin
from plugwasm._engine import wat_to_wasm
from plugwasm._runtime import inlining, modules
from plugwasm.errors import LinkError
from tests.support.guests import export, guest
from tests.support.inlining import is_inlined, outcome, plain_and_inlined
from tests.support.paths import EXAMPLES

pytestmark = pytest.mark.usefixtures("nothing_compiled")


def i64(value: int) -> bytes:
    return (value % 2**64).to_bytes(8, "little")


# ---- the functions -------------------------------------------------------------------------------

GIVEN = "(call $input_load_u64 (i64.const 0))"
ACCESSES = guest(
    export("load_u8", f"(call $answer (i64.extend_i32_u (call $load_u8 {GIVEN})))")
    + export("load_u64", f"(call $answer (call $load_u64 {GIVEN}))")
    + export("store_u8", f"(call $store_u8 {GIVEN} (i32.const 0x1fe))")
    + export("store_u64", f"(call $store_u64 {GIVEN} (i64.const -2))")
    + export("input_load_u8", f"(call $answer (i64.extend_i32_u (call $input_load_u8 {GIVEN})))")
    + export("input_load_u64", f"(call $answer (call $input_load_u64 {GIVEN}))")
    + export("grow", "(drop (call $alloc (i64.const 300000)))")
    + export(
        "free_input",
        "(call $free (call $input_offset)) (call $answer (call $input_load_u64 (i64.const 8)))",
    )
    + export(
        "no_input",
        "(call $input_set (i64.const 0) (i64.const 0)) (call $answer (call $input_load_u64 (i64.const 0)))",
    )
    + export(
        "inner_input",
        "(call $input_set (i64.add (call $input_offset) (i64.const 3)) (i64.const 9))"
        "(call $answer (i64.add (call $input_load_u64 (i64.const 1)) (call $input_load_u64 (i64.const 2))))",
    )
    + export(
        "foreign_input",
        "(call $input_set (i64.const 600) (i64.const 8)) (call $answer (call $input_load_u64 (i64.const 0)))",
    )
    + export("reset", "(call $reset) (call $answer (call $input_load_u64 (i64.const 0)))")
)
PAGES = [2 * 65536 + 65536 * more for more in range(8)]
EDGES = sorted(
    {
        edge + step
        for edge in (0, 8, 512, 520, 528, *PAGES, 2**31, 2**32, 2**32 + 512, 2**63, 2**64 - 1)
        for step in (-9, -8, -7, -1, 0, 1, 7)
    }
)


@pytest.mark.parametrize("grown", [False, True])
@pytest.mark.parametrize("name", ["load_u8", "load_u64", "store_u8", "store_u64"])
def test_accesses_agree_at_every_edge(
    name: str, grown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inlined loads and stores do what the kernel's do, at all edges of memory, before and after it grows."""
    plugins = plain_and_inlined(ACCESSES, monkeypatch)
    if grown:
        for plugin in plugins:
            plugin.call("grow")
            assert plugin._guest is not None
            assert plugin._guest.kernel.pages() > 4
    for edge in EDGES:
        plain, inlined = (outcome(plugin, name, i64(edge)) for plugin in plugins)
        assert plain == inlined, hex(edge % 2**64)


@pytest.mark.parametrize("length", [8, 9, 15, 16, 17, 24, 200_000])
@pytest.mark.parametrize("name", ["input_load_u8", "input_load_u64"])
def test_input_loads_agree_at_every_edge(
    name: str, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inlined loads from the input do what the kernel's do, at all edges of the input."""
    plugins = plain_and_inlined(ACCESSES, monkeypatch)
    for edge in {*EDGES, *range(33), *range(length - 9, length + 2)}:
        given = i64(edge) + bytes(range(1, 250)) * 1000
        plain, inlined = (outcome(plugin, name, given[:length]) for plugin in plugins)
        assert plain == inlined, hex(edge % 2**64)


@pytest.mark.parametrize(
    "given", [b"", b"1234567", b"12345678", b"123456789012345", bytes(range(100))]
)
@pytest.mark.parametrize(
    "name", ["free_input", "no_input", "inner_input", "foreign_input", "reset"]
)
def test_changed_input_is_seen(name: str, given: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """An input that the guest sets, frees or resets is what is read then."""
    plugins = plain_and_inlined(ACCESSES, monkeypatch)
    assert outcome(plugins[0], name, given) == outcome(plugins[1], name, given)


STORES_AT_ONCE = """(module
  (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
  (import "extism:host/env" "store_u64" (func $store_u64 (param i64 i64)))
  (import "extism:host/env" "load_u64" (func $load_u64 (param i64) (result i64)))
  (memory (export "memory") 1)
  (func $begin
    (local $block i64)
    (local.set $block (call $alloc (i64.const 8)))
    (call $store_u64 (local.get $block) (i64.const 77))
    (i64.store (i32.const 0) (call $load_u64 (local.get $block)))
    (call $store_u64 (i64.const 131064) (i64.const 78))
    (i64.store (i32.const 8) (call $load_u64 (i64.const 131064))))
  {} (func (export "f")))"""


@pytest.mark.parametrize("start", ["(start $begin)", '(export "_initialize" (func $begin))'])
def test_heap_is_there_at_the_start(start: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Functions that run before the first call reach the kernel's memory, too."""
    plain, inlined = (
        outcome(plugin, "f")
        for plugin in plain_and_inlined(STORES_AT_ONCE.format(start), monkeypatch)
    )
    assert plain == inlined
    assert inlined[2][:16] == i64(77) + i64(78)  # type: ignore[index]


# ---- all other instructions ----------------------------------------------------------------------

IMPORT = '(import "extism:host/env" "load_u8" (func $load_u8 (param i64) (result i32)))'
_VECTORS = (
    "8x8_s",
    "8x8_u",
    "16x4_s",
    "16x4_u",
    "32x2_s",
    "32x2_u",
    "8_splat",
    "16_splat",
    "32_splat",
    "64_splat",
    "32_zero",
    "64_zero",
)
_INTEGER_WIDTHS = [
    ("i32", ""),
    ("i32", "8"),
    ("i32", "16"),
    ("i64", ""),
    ("i64", "8"),
    ("i64", "16"),
    ("i64", "32"),
]
_INDEX = "(i32.const 64)"


def accesses(memory: str) -> list[str]:
    """Instructions for every kind of access to a memory."""
    loads = [("i32", suffix) for suffix in ("", "8_s", "8_u", "16_s", "16_u")]
    loads += [("i64", suffix) for suffix in ("", "8_s", "8_u", "16_s", "16_u", "32_s", "32_u")]
    loads += [("f32", ""), ("f64", ""), ("v128", ""), *(("v128", suffix) for suffix in _VECTORS)]
    stores = [*_INTEGER_WIDTHS, ("f32", ""), ("f64", ""), ("v128", "")]
    vector = "(v128.const i64x2 0x1122334455667788 -2)"
    value = {
        "i32": "(i32.const -3)",
        "i64": "(i64.const -4)",
        "f32": "(f32.const 1.5)",
        "f64": "(f64.const -2.5)",
        "v128": vector,
    }
    lanes = [("8", 15), ("16", 7), ("32", 3), ("64", 1)]
    return [
        *(
            f"({t}.store {memory} offset=300 {_INDEX} ({t}.load{suffix} {memory} offset=3 {_INDEX}))"
            for t, suffix in loads
        ),
        *(f"({t}.store{suffix} {memory} offset=5 {_INDEX} {value[t]})" for t, suffix in stores),
        *(
            f"(v128.store {memory} {_INDEX} (v128.load{width}_lane {memory} offset=2 {lane} {_INDEX} {vector}))"
            for width, lane in lanes
        ),
        *(
            f"(v128.store{width}_lane {memory} offset=2 {lane} {_INDEX} {vector})"
            for width, lane in lanes
        ),
        f"(memory.fill {memory} (i32.const 9) (i32.const 7) (i32.const 5))",
        f"(memory.init {memory} $passive (i32.const 40) (i32.const 1) (i32.const 4))",
        f"(i32.store {memory} (i32.const 80) (memory.grow {memory} (i32.const 1)))",
        f"(i32.store {memory} (i32.const 84) (memory.size {memory}))",
        f"(memory.copy {memory or 0} $a (i32.const 100) (i32.const 17) (i32.const 6))",
        f"(memory.copy $b {memory or 0} (i32.const 100) (i32.const 17) (i32.const 6))",
    ]


def atomic_accesses(memory: str) -> list[str]:
    found = [
        f"(i32.store (i32.const 0) (memory.atomic.notify {memory} {_INDEX} (i32.const 1)))",
        "(atomic.fence)",
    ]
    for t, width in _INTEGER_WIDTHS:
        unsigned = "_u" if width else ""
        value = f"({t}.const 1234567)"
        found.append(
            f"({t}.store (i32.const 8) ({t}.atomic.load{width}{unsigned} {memory} {_INDEX}))"
        )
        found.append(f"({t}.atomic.store{width} {memory} offset=8 {_INDEX} {value})")
        for operator in ("add", "sub", "and", "or", "xor", "xchg"):
            name = f"{t}.atomic.rmw{width}.{operator}{unsigned}"
            found.append(f"({t}.store (i32.const 16) ({name} {memory} {_INDEX} {value}))")
        name = f"{t}.atomic.rmw{width}.cmpxchg{unsigned}"
        found.append(f"({t}.store (i32.const 24) ({name} {memory} {_INDEX} ({t}.const 7) {value}))")
    return found


def module_of(instructions: list[str]) -> str:
    """A module with two memories, and a function for each instruction."""
    functions = "".join(
        f'(func (export "f{i}") {instruction} (drop (call $load_u8 (i64.const 1))))'
        for i, instruction in enumerate(instructions)
    )
    return f"""(module {IMPORT} (memory $a (export "memory") 1) (memory $b (export "second") 1)
      (data (i32.const 16) "first active") (data (memory $b) (i32.const 60) "\\01\\02\\83second active\\ff\\fe")
      (data (memory $a) (i32.const 60) "\\11\\92\\93third active\\8f\\fe") (data $passive "passive") {functions})"""


@pytest.mark.parametrize("memory", ["", "$a", "$b"])
def test_own_memories_are_still_meant(memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each instruction with a memory means the same memory as before."""
    instructions = accesses(memory)
    plain, inlined = plain_and_inlined(module_of(instructions), monkeypatch)
    seen = set()
    for i, instruction in enumerate(instructions):
        expected = outcome(plain, f"f{i}")
        assert outcome(inlined, f"f{i}") == expected, instruction
        assert isinstance(expected[0], bytes), expected
        seen.add(expected[2:])
    assert len(seen) > len(instructions) // 2


@pytest.mark.parametrize("memory", ["", "$b"])
def test_atomics_mean_their_own_memory(memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Atomic instructions mean the same memory as before."""
    instructions = atomic_accesses(memory)
    plain, inlined = plain_and_inlined(
        module_of(instructions), monkeypatch, limits=Limits(atomics=True)
    )
    for i, instruction in enumerate(instructions):
        expected = outcome(plain, f"f{i}")
        assert outcome(inlined, f"f{i}") == expected, instruction
        assert isinstance(expected[0], bytes), expected


OTHERS = f"""(module (type $n (func (result i32))) {IMPORT}
  (memory (export "memory") 1) (table $t 3 funcref) (table $x 2 externref)
  (global $g (mut i32) (i32.const 1)) (global $h i32 (i32.add (i32.const 2) (i32.const 3)))
  (elem (table $t) (i32.const 0) func $one $two) (elem $e func $two) (elem declare func $one)
  (data (offset (i32.sub (i32.const 30) (i32.const 14))) "const expression") (data (i32.const 900) "")
  (func $one (result i32) (i32.const 11)) (func $two (result i32) (call $load_u8 (i64.const 512)))
  (func (export "f") (param) (result i32) (local $v v128) (local $r funcref) (local $d f64)
    (local.set $d (f64.const 0x1.8p300)) (local.set $r (ref.func $one))
    (drop (f32.const nan)) (drop (i64.const -0x8000000000000000)) (drop (i32.const -0x80000000))
    (drop (i32.trunc_sat_f64_s (local.get $d))) (drop (select (result i32) (i32.const 1) (i32.const 2) (i32.const 0)))
    (table.init $t $e (i32.const 2) (i32.const 0) (i32.const 1)) (elem.drop $e)
    (table.copy $t $t (i32.const 0) (i32.const 1) (i32.const 1)) (table.set $x (i32.const 0) (ref.null extern))
    (drop (table.grow $x (ref.null extern) (i32.const 1))) (table.fill $x (i32.const 0) (ref.null extern) (i32.const 1))
    (drop (table.size $x)) (drop (ref.is_null (table.get $t (i32.const 1))))
    (local.set $v (i8x16.swizzle (v128.const i32x4 1 2 3 4) (i8x16.splat (i32.const 3))))
    (local.set $v (i8x16.shuffle 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 31 (local.get $v) (local.get $v)))
    (local.set $v (f32x4.relaxed_madd (local.get $v) (local.get $v) (local.get $v)))
    (global.set $g (i32.extend8_s (i8x16.extract_lane_s 3 (local.get $v))))
    (block $a (block $b (block $c (br_table $a $b $c (i32.const 1))) (drop (block (result i64) (i64.const 1)))))
    (if (type $n) (i32.const 1) (then (i32.const 1)) (else (i32.const 2))) (drop)
    (drop (call_indirect $t (type $n) (i32.const 2)))
    (i32.add (call $two) (i32.add (global.get $g) (global.get $h))))
  (func (export "tail") (result i32) (return_call $two))
  (func (export "through") (result i32) (return_call_indirect $t (type $n) (i32.const 0)))
  (func (export "last") (result i32) (return_call $one)))"""


@pytest.mark.parametrize("name", ["f", "tail", "through", "last"])
def test_other_instructions_stay_as_they_are(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Instructions without a memory are copied, whatever follows their opcode."""
    plain, inlined = plain_and_inlined(OTHERS, monkeypatch)
    for given in (b"", b"\0", b"\5"):
        assert outcome(inlined, name, given) == outcome(plain, name, given)


def test_unknown_instructions_leave_it_alone() -> None:
    """A module with something that the inliner does not know runs as it is."""
    source = f"""(module {IMPORT} (tag $t) (func (export "f")
      (block $b (try_table (catch $t $b) (throw $t))) (drop (call $load_u8 (i64.const 1)))))"""
    with Plugin(source, limits=Limits(gc=True)) as plugin:
        assert not is_inlined(plugin)
        assert plugin.call("f") == b""


def test_types_of_objects_leave_it_alone() -> None:
    """A module with types that the inliner does not know runs as it is."""
    source = f'(module {IMPORT} (type $s (struct (field i32))) (func (export "f") (drop (struct.new $s (i32.const 1)))))'
    with Plugin(source, limits=Limits(gc=True)) as plugin:
        assert not is_inlined(plugin)
        assert plugin.call("f") == b""


# ---- what is inlined -----------------------------------------------------------------------------


def test_only_single_modules_are_inlined() -> None:
    """A plugin of several modules is linked as it is: a frame does not tell the module of its offset."""
    other = {"data": wat_to_wasm(b'(module (func (export "g")))'), "name": "other"}
    main = {"data": (EXAMPLES / "echo.wasm").read_bytes(), "name": "main"}
    with Plugin({"wasm": [other, main]}) as plugin:
        assert not is_inlined(plugin)
        assert plugin.call("echo", b"input") == b"input"
    with Plugin({"wasm": [main]}) as plugin:
        assert is_inlined(plugin)


def test_fuel_counts_the_original() -> None:
    """A plugin with a limit on fuel runs as it is, so that a version of plugwasm does not change what a call uses."""
    with Plugin(EXAMPLES / "echo.wasm", fuel_limit=10**6) as plugin:
        assert not is_inlined(plugin)
        assert plugin.call("echo", b"input") == b"input"


@pytest.mark.parametrize(
    "text", ["(module)", '(module (func (export "f")))', '(module (memory (export "memory") 1))']
)
def test_module_without_calls_is_left(text: str) -> None:
    """A module that imports none of the functions is left as it is."""
    assert not inlining.may_inline(wat_to_wasm(text.encode()))
    assert not is_inlined(Plugin(text))


def test_many_sections_are_not_read() -> None:
    """A module of many sections is left as it is, rather than read section by section."""
    wasm = wat_to_wasm(calls(1).encode())
    empty = b"\0\1\0"
    assert inlining.may_inline(wasm + empty * (inlining.MAX_SECTIONS - 10))
    assert not inlining.may_inline(wasm + empty * inlining.MAX_SECTIONS)
    assert not inlining.may_inline(wasm[:8] + empty * inlining.MAX_SECTIONS + wasm[8:])


@pytest.mark.parametrize(("size", "inlined"), [(1000, True), (inlining.MAX_DATA + 1, False)])
def test_much_data_is_not_inlined(size: int, inlined: bool) -> None:
    """A module with much data is used as it is: else each instance would copy the data."""
    data = f'(data (i32.const 0) "{"x" * size}")'
    source = guest(
        export("first", "(call $answer (i64.load (i32.const 0)))") + data,
        memory='(memory (export "memory") 5)',
    )
    with Plugin(source) as plugin:
        assert plugin.call("first") == b"x" * 8
        assert is_inlined(plugin) == inlined


def calls(number: int) -> str:
    """A module with so many calls to inline, in several functions."""
    body = "(local.set $sum (i32.add (local.get $sum) (call $load_u8 (i64.const 512))))"
    bodies = "".join(
        f'(func (export "f{i}") (result i32) (local $sum i32) {body} (local.get $sum))'
        for i in range(number)
    )
    return f'(module {IMPORT} (memory (export "memory") 1) {bodies})'


def test_number_of_inlined_calls_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many calls there are, no more than 64 of them are inlined: code cannot multiply."""

    load = b"\x2d\x40\0\0"  # i32.load8_u of the first memory, which is the kernel's
    for number in (1, 63, 64, 65, 500):
        inlined_bytes = inlining.inline(
            modules._load_inliner(), wat_to_wasm(calls(number).encode())
        )
        assert inlined_bytes is not None
        assert inlined_bytes.count(load) == min(number, 64)
    plain, inlined = plain_and_inlined(calls(100), monkeypatch)
    for i in (0, 63, 64, 99):
        assert outcome(inlined, f"f{i}", b"\3") == outcome(plain, f"f{i}", b"\3")


def test_large_modules_are_inlined_in_the_child(
    compilers: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a child process compiles is inlined, too, except for text that only the child converts."""
    source = wat_to_wasm(calls(400).encode())
    plain, inlined = plain_and_inlined(source, monkeypatch)
    assert len(compilers) == 2
    assert outcome(inlined, "f7", b"\3") == outcome(plain, "f7", b"\3")
    text = calls(400) + " " * 2**16
    assert not is_inlined(Plugin(text))


def test_facts_are_those_of_the_original(monkeypatch: pytest.MonkeyPatch) -> None:
    """Imports, exports and sizes that a user sees are those of the original."""
    for name in ("echo", "count_vowels", "faulty", "http_get", "bench_wasi", "wasi_files"):
        path = EXAMPLES / f"{name}.wasm"
        with monkeypatch.context() as patch:
            patch.setattr(modules, "_inlines", False)
            plain = CompiledPlugin(path, wasi=True)
        inlined = CompiledPlugin(path, wasi=True)
        assert inlined._plan.main.module.is_inlined, path
        for name in ("imports", "exports"):
            assert list(map(str, getattr(inlined, name))) == list(map(str, getattr(plain, name)))
        for name in ("first_pages", "main_pages", "state_bytes", "initial_state_bytes"):
            assert getattr(inlined._plan, name) == getattr(plain._plan, name)


@pytest.mark.parametrize("name", ["memory", "book"])
def test_kernel_memory_cannot_be_imported(name: str) -> None:
    """A module that itself imports what inlined modules import is refused."""
    source = f'(module (import "plugwasm:kernel" "{name}" (memory 1)) {IMPORT} (func (export "f") (drop (call $load_u8 (i64.const 1)))))'
    with pytest.raises(LinkError, match="plugwasm:kernel"):
        Plugin(source).call("f")
