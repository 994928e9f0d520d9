"""Errors, code caches and damaged modules, with the kernel's functions inlined into modules of plugins."""

from __future__ import annotations

import random
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest

from plugwasm import Plugin
from plugwasm._engine import Engine, EngineFailure, wat_to_wasm
from plugwasm._engine.wasm_binary import CODE, iter_sections, read_leb128
from plugwasm._runtime import inlining, modules
from plugwasm._runtime.inlining import OriginalFrames
from plugwasm.errors import ModuleError, TrapError
from tests.support.inlining import is_inlined, outcome, plain_and_inlined
from tests.support.paths import EXAMPLES

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("nothing_compiled")


def test_new_inliner_has_new_version() -> None:
    """Code in caches is found by the inliner's version, which changes with the inliner."""
    digest = sha256(inlining.read_source()).hexdigest()[:16]
    assert f"inline={digest};data={inlining.MAX_DATA}" == inlining.VERSION


# ---- offsets -------------------------------------------------------------------------------------

PLACES = 24


def traps(name_section: bool) -> bytes:
    """A module that traps at any of several places, among accesses of all kinds."""
    place = """(if (i64.eq (call $input_load_u64 (i64.const 0)) (i64.const {}))
        (then (i32.store offset=4 (i32.const 0) (i32.load (i32.const 900))) (unreachable)))
      (call $store_u64 (i64.const 600) (i64.load (i32.const 8)))
      (i64.store (i32.const 8) (call $load_u64 (i64.const 600)))"""
    half = PLACES // 2
    first, second = (
        "".join(place.format(i) for i in range(start, start + half)) for start in (0, half)
    )
    text = f"""(module
      (import "extism:host/env" "input_load_u64" (func $input_load_u64 (param i64) (result i64)))
      (import "extism:host/env" "load_u64" (func $load_u64 (param i64) (result i64)))
      (import "extism:host/env" "store_u64" (func $store_u64 (param i64 i64)))
      (memory (export "memory") 1) (func $unused (i32.store8 (i32.const 0) (i32.const 1)))
      (func $deep (param $n i32) (local $x i64) {second}
        (if (local.get $n) (then (call $deep (i32.sub (local.get $n) (i32.const 1)))))
        (drop (i32.div_u (i32.const 1) (local.get $n))))
      (func $endless (export "endless") (local $x i64) (call $store_u64 (i64.const 1) (i64.const 2))
        (call $endless) (drop (call $load_u64 (i64.const 1))))
      (func $run (export "run") {first} (call $deep (i32.const 3)) (drop (call $load_u64 (i64.const 1)))))"""
    wasm = wat_to_wasm(text.encode())
    return wasm if name_section else b"".join([wasm[:8], *without_custom_sections(wasm)])


def without_custom_sections(wasm: bytes) -> Iterable[bytes]:
    begin = 8
    for section, _, end in iter_sections(wasm):
        if section:
            yield wasm[begin:end]
        begin = end


@pytest.mark.parametrize("name_section", [False, True])
def test_backtraces_have_original_offsets(
    name_section: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Backtraces are those of the original, wherever it traps, and however deep."""
    plain, inlined = plain_and_inlined(traps(name_section), monkeypatch)
    seen = set()
    for i in range(PLACES + 1):
        given = i.to_bytes(8, "little")
        expected = outcome(plain, "run", given)
        assert outcome(inlined, "run", given) == expected
        assert expected[0] is TrapError
        seen.add(expected[2])
    assert outcome(inlined, "endless") == outcome(plain, "endless")
    assert len(seen) == PLACES + 1
    assert max(map(len, seen)) == 5  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "begin", ["unreachable", "nop unreachable", "(drop (i32.load (i32.const -1)))"]
)
@pytest.mark.parametrize("groups", ["", "i32", "v128", "i32 i64 v128", " ".join(["i32 i64"] * 63)])
def test_trap_at_the_begin_of_a_function(
    begin: str, groups: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine takes the last group of locals for the place of a trap that comes first."""
    store = '(import "extism:host/env" "store_u64" (func $store_u64 (param i64 i64)))'
    locals_ = "".join(f"(local {type})" for type in groups.split())
    replaced = "(call $store_u64 (i64.const 1) (i64.const 2))"
    source = f"""(module {store} (memory 1)
      (func $roomy {locals_} {begin} {replaced})
      (func $copied {locals_} {begin})
      (func (export "roomy") (call $roomy)) (func (export "copied") (call $copied)))"""
    plain, inlined = plain_and_inlined(wat_to_wasm(source.encode()), monkeypatch)
    for name in ("roomy", "copied"):
        expected = outcome(plain, name)
        assert outcome(inlined, name) == expected
        assert expected[0] is TrapError


@pytest.mark.parametrize(
    "between", ["", "nop nop", "(block nop)", "(drop (call $load_u64 (i64.const 8)))"]
)
@pytest.mark.parametrize("address", [8, 10_000_000])
def test_trap_after_a_replaced_call(
    address: int, between: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine takes the `if` of the replaced call for the place of an `unreachable` behind it."""
    source = f"""(module (import "extism:host/env" "store_u64" (func $store_u64 (param i64 i64)))
      (import "extism:host/env" "load_u64" (func $load_u64 (param i64) (result i64))) (memory 1)
      (func (export "f") (call $store_u64 (i64.const {address}) (i64.const 0)) {between} unreachable))"""
    plain, inlined = plain_and_inlined(wat_to_wasm(source.encode()), monkeypatch)
    expected = outcome(plain, "f")
    assert outcome(inlined, "f") == expected
    assert expected[0] is TrapError


def test_every_offset_leads_to_an_instruction() -> None:
    """All offsets of inlined code lead to ascending offsets of original code."""
    wasm = traps(True)
    inliner = modules._load_inliner()
    inlined = inlining.inline(inliner, wasm)
    assert inlined is not None
    starts = []
    for binary in (inlined, wasm):
        ((at, end),) = ((at, end) for section, at, end in iter_sections(binary) if section == CODE)
        starts.append((at, end))
    (at, end), (first, last) = starts
    count, at = read_leb128(inlined, at)
    _, body = read_leb128(inlined, at)
    found = inlining.find_original_offsets(inliner, wasm, range(body + 1, end))
    assert sorted(found) == list(range(body + 1, end))
    ordered = [found[offset] for offset in sorted(found)]
    assert ordered == sorted(ordered)
    assert first < ordered[0] < ordered[-1] < last
    assert count == 4


def test_frames_without_offset_are_kept() -> None:
    """What is no offset of a frame, or is nowhere in the original, is not shown as one."""
    asked: list[set[int]] = []

    def find(offsets: Iterable[int]) -> dict[int, int]:
        asked.append(set(offsets))
        return {0x10: 0x8}

    frames = OriginalFrames(find)
    given = ("f @ 0x10", "g", "m!h @ 0x99", "odd @ 0xzz", "k @ 0x1 @ 0x10")
    expected = ("f @ 0x8", "g", "m!h", "odd @ 0xzz", "k @ 0x1 @ 0x8")
    assert frames.restore(given) == expected
    assert frames.restore(given[:1]) == expected[:1]
    assert asked == [{0x10, 0x99}]


# ---- modules that are not valid ------------------------------------------------------------------

LOCALS = """(module (import "extism:host/env" "load_u64" (func $load_u64 (param i64) (result i64)))
  (memory (export "memory") 1) (func $f (export "f") (param i64) (local i64)
    (local.set 1 (local.get 0)) (local.set 1 (call $load_u64 (i64.const 5)))))"""


def damaged() -> list[bytes]:
    """Modules that would be valid if only the inlined one were looked at."""
    wasm = wat_to_wasm(LOCALS.encode())
    found = []
    for what, instead in (
        (b"\x20\x00\x21\x01", b"\x20\x02\x21\x01"),  # a local that only the inlined function has
        (b"\x20\x00\x21\x01", b"\x20\x00\x21\x03"),
        (b"\x02\x00\x0b", b"\x02\x00\x0b"),
    ):
        assert what in wasm or what == instead
        found.append(wasm.replace(what, instead))
    return [
        *found[:2],
        wasm + b"\0\xff",  # a custom section that is cut off
        wasm + b"\0\x02\x05a",  # a custom section whose name is cut off
        wasm[:-3],
        wasm + b"\x0b\x09\x01\x02\x02\x41\x00\x0b\x01x!",  # data for a memory that is not there
    ]


@pytest.mark.parametrize("number", range(6))
def test_invalid_modules_stay_invalid(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that is not valid is refused with the same message, whatever the inlined one is."""
    wasm = damaged()[number]
    messages = []
    for inlines in (False, True):
        monkeypatch.setattr(modules, "_inlines", inlines)
        with pytest.raises(ModuleError) as caught:
            Plugin(wasm, name="damaged")
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


def mutated(wasm: bytes, chooser: random.Random) -> bytes:
    edited = bytearray(wasm)
    for _ in range(chooser.randint(1, 3)):
        at = chooser.randrange(8, len(edited))
        match chooser.randrange(4):
            case 0:
                edited[at] = chooser.randrange(256)
            case 1:
                edited[at] ^= 1 << chooser.randrange(8)
            case 2:
                del edited[at : at + chooser.randint(1, 4)]
            case _:
                edited[at:at] = chooser.randbytes(chooser.randint(1, 4))
    return bytes(edited)


def test_damaged_modules_do_no_harm() -> None:
    """Whatever the bytes, the inliner gives bytes or nothing, and valid modules stay valid."""
    inliner, engine, chooser = modules._load_inliner(), Engine(), random.Random(7)
    originals = [traps(True), wat_to_wasm(LOCALS.encode()), (EXAMPLES / "echo.wasm").read_bytes()]
    valid = inlined = 0
    for i in range(3000):
        wasm = mutated(originals[i % 3], chooser)
        if not inlining.may_inline(wasm):
            continue
        found = inlining.inline(inliner, wasm)
        inlined += found is not None
        if not engine._is_valid(wasm):
            continue
        valid += 1
        if found is not None:
            assert engine._is_valid(found), wasm.hex()
    assert valid > 100
    assert inlined > 100


def test_module_at_the_limits_is_left_alone() -> None:
    """A module that has as many memories as there may be is not inlined, and works."""
    memories = "(memory 0)" * 99
    source = f"""(module (import "extism:host/env" "load_u8" (func $load_u8 (param i64) (result i32)))
      (memory (export "memory") 1) {memories}
      (func (export "f") (result i32) (call $load_u8 (i64.const 5))))"""
    from plugwasm import Limits

    with Plugin(source, limits=Limits(memories=100)) as plugin:
        assert not is_inlined(plugin)
        assert plugin.call("f") == b""


# ---- caches --------------------------------------------------------------------------------------


def test_cached_code_is_inlined_still(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Code from the cache is known to be inlined, and its offsets are mapped back."""
    monkeypatch.setenv("PLUGWASM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(modules, "_inliner", None)
    wasm = traps(True)
    plain, first = plain_and_inlined(wasm, monkeypatch)
    given = (3).to_bytes(8, "little")
    expected = outcome(plain, "run", given)
    modules._seen.clear()
    modules._kept.clear()
    monkeypatch.setattr(modules, "_inliner", None)

    def never(*arguments: Any) -> None:
        raise AssertionError("it is compiled again")

    monkeypatch.setattr(modules, "compile_within", never)
    second = Plugin(wasm)
    assert is_inlined(first)
    assert is_inlined(second)
    assert outcome(second, "run", given) == outcome(first, "run", given) == expected


def test_inlined_code_has_its_own_key() -> None:
    """The original and the inlined module have different keys in the cache."""
    engine = modules.get_engine(pooled=False)
    settings = {modules._cached_as(engine, inline) for inline in (False, True)}
    assert len(settings) == 2


def test_engine_refuses_nothing_that_is_valid() -> None:
    """Where the inlined module is refused by the engine, the original is compiled."""
    wasm = wat_to_wasm(LOCALS.encode())
    module = Engine().compile(wasm, inlined=b"\0asm\1\0\0\0\xff")
    assert not module.is_inlined
    assert [item.name for item in module.imports] == ["load_u64"]
    with pytest.raises(EngineFailure):
        Engine().compile(wasm[:-1], inlined=wasm)
