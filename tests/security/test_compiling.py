"""The cost of compilation: small in this process, and for all modules of a plugin or a set no
more than for one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import plugwasm
from plugwasm import CompiledPlugin, Limits, ModuleError, Plugin, PluginSet
from plugwasm._engine import wat_to_wasm
from plugwasm._engine.compile_cost import LIGHT_COST, estimate_cost, is_light, may_have_image
from plugwasm._plugin_set.compile_shares import MIN_SHARE, CompileShares
from plugwasm._runtime import modules as _code
from tests.support import hard_modules, wasm_binary
from tests.support.guests import export, guest
from tests.support.hard_modules import module_of_locals, passing_blocks
from tests.support.paths import ROOT
from tests.support.wasm_binary import (
    BLOCK,
    END,
    F32,
    I32,
    LOOP,
    V128,
    function_type,
    leb128,
    module,
    section,
)

pytestmark = pytest.mark.usefixtures("nothing_compiled")

needs_proc = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="the memory of the process is read from /proc"
)


def slow_module(functions: int) -> bytes:
    """Return a module that takes long to compile: each function declares 49,000 locals."""
    return module([b"\x03\x40\x0b"] * functions, locals=[(49_000, I32)])


def heavy_module(seed: int = 0) -> bytes:
    """Return a module of more than a few kilobytes that is cheap to compile."""
    rest = "".join(
        f"(func (result i64) (i64.const {number * 2**40 + seed}))" for number in range(600)
    )
    return wat_to_wasm(guest(export("run", "(call $echo)") + rest).encode())


LIGHTEST = guest(export("run", "(call $echo)")).encode()

MEASURE = """
import resource, sys, time
from tests.support import hard_modules, wasm_binary
import plugwasm
from plugwasm import CompiledPlugin, Limits, Plugin, cache
cache.configure(enabled=False)
Plugin("(module (func (export \\"f\\")))").call("f")

def status(what):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(what)) * 1024

def refused(wasm, **limits):
    try:
        CompiledPlugin(wasm, limits=Limits(**limits))
    except plugwasm.Error as error:
        return error.message
    return ""
"""


def run_program(script: str) -> list[str]:
    """Run a program in another process and return its output lines."""
    run = [sys.executable, "-W", "ignore", "-c", MEASURE + script]
    done = subprocess.run(run, capture_output=True, text=True, cwd=ROOT, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


# ---- what this process compiles itself -----------------------------------------------------------


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("type", [I32, V128])
@pytest.mark.parametrize("kind", [BLOCK, LOOP])
def test_blocks_passing_values_not_light(kind: int, type: int, nested: bool) -> None:
    """Blocks with parameters and results are not light."""
    assert len(passing_blocks(kind, 1200, 32, type, nested)) < 4500
    assert not is_light(passing_blocks(kind, 1, 1, type, nested))


def test_gigabyte_compile_in_subprocess() -> None:
    """A few kilobytes that take a gigabyte to compile are compiled in another process."""
    peak, *refusals = run_program("""
before = status("VmHWM")
told = [refused(hard_modules.passing_blocks(wasm_binary.LOOP, 1200, 32, t, n), compile_bytes=2**28) for t in (wasm_binary.I32, wasm_binary.V128) for n in (1, 0)]
print(status("VmHWM") - before, *told, sep="\\n")
""")
    assert int(peak) < 60e6
    assert all("compile_bytes" in refusal for refusal in refusals)
    assert len(refusals) == 4


@needs_proc
@pytest.mark.parametrize("first", range(0, len(hard_modules.FAMILIES), 10))
def test_heaviest_light_module(first: int) -> None:
    """The heaviest light module costs little.

    For each family of modules, the largest that is light: 0.14 s and 45 MB at most where this was
    written.
    """
    lines = run_program(f"""
from plugwasm._engine import Engine
from plugwasm._engine.compile_cost import estimate_cost, is_light
engine = Engine()
for what in list(hard_modules.FAMILIES)[{first} : {first} + 10]:
    wasm = hard_modules.largest_fitting(hard_modules.FAMILIES[what], is_light)
    before, start = status("VmRSS"), time.process_time()
    engine.compile(wasm)
    took = time.process_time() - start
    print(what, estimate_cost(wasm), took, status("VmHWM") - before, sep=";")
    assert took < 1.5, what
    assert status("VmHWM") - before < 150e6, what
""")
    assert len(lines) == min(10, len(hard_modules.FAMILIES) - first)
    assert all(0 < int(line.split(";")[1]) <= LIGHT_COST for line in lines)


@needs_proc
def test_random_light_modules() -> None:
    """No random mixture that is light costs more."""
    (number,) = run_program("""
from plugwasm._engine import Engine
from plugwasm._engine.compile_cost import is_light
engine = Engine()
light = 0
for seed in range(150):
    wasm = next((wasm for size in (1600, 1000, 500) if is_light(wasm := hard_modules.mixed(seed, size))), None)
    if wasm is not None:
        light += 1
        start = time.process_time()
        engine.compile(wasm)
        assert time.process_time() - start < 1.5, seed
assert status("VmHWM") < 300e6
print(light)
""")
    assert int(number) > 60


NOT_LIGHT = {
    "a block with a type by number": module([b"\x02\0\x0b"]),
    "a block with a type by a number of two bytes": module([b"\x02\x80\0\x0b"]),
    "a vector": module([wasm_binary.CONST[V128] + b"\x1a"]),
    "a local that is a vector": module(locals=[(1, V128)]),
    "a parameter that is a vector": module(types=[function_type([V128])], exports=()),
    "a block with a vector": module([b"\x02\x7b" + wasm_binary.CONST[V128] + END + b"\x1a"]),
    "a global that is a vector": module(globals=[b"\x7b\1" + wasm_binary.CONST[V128] + END]),
    "many locals": module(locals=[(5000, I32)]),
    "many locals in many groups": module(locals=[(1000, I32)] * 5),
    "a type of many values": module(types=[function_type([I32] * 33)], exports=()),
    "a place where control meets and many locals": module_of_locals(b"\x03\x40\x0b" * 100, 60),
    "a tail call": wat_to_wasm(b"(module (func $f (return_call $f)))"),
    "a handler": wat_to_wasm(b"(module (tag) (func (try_table)))"),
    "a second memory": wat_to_wasm(
        b"(module (memory 1) (memory 1) (func (drop (i32.load 1 (i32.const 0)))))"
    ),
    "references to the host": wat_to_wasm(b"(module (table 1 externref))"),
    "a table of references to the host that is imported": wat_to_wasm(
        b'(module (import "a" "b" (table 1 externref)))'
    ),
    "a global of such a reference": wat_to_wasm(b"(module (global externref (ref.null extern)))"),
    "one that is imported": wat_to_wasm(b'(module (import "a" "b" (global externref)))'),
    "allocated tables": hard_modules.allocated_tables(1),
    "an instruction that nobody knows": module([b"\xe7"]),
    "another that nobody knows": module([b"\xfc\x7f"]),
    "a function that ends within an instruction": module([b"\x44"]),
    "a function that is longer than its section": b"\0asm\1\0\0\0"
    + section(1, b"\1" + function_type())
    + section(3, b"\1\0")
    + section(10, b"\1\7\0\x0b"),
    "bytes after the last function": b"\0asm\1\0\0\0"
    + section(1, b"\1" + function_type())
    + section(3, b"\1\0")
    + section(10, b"\1\2\0\x0b\0"),
    "fewer functions than are there": b"\0asm\1\0\0\0"
    + section(1, b"\1" + function_type())
    + section(3, b"\1\0")
    + section(10, b"\0\2\0\x0b"),
    "more entries than there can be": b"\0asm\1\0\0\0" + section(7, leb128(2**32 - 1)),
}


@pytest.mark.parametrize("what", NOT_LIGHT)
def test_uncertain_modules_are_not_light(what: str) -> None:
    """A module that is not certain to be light is not light."""
    assert not is_light(NOT_LIGHT[what])


PASSIVE = b"\x01" + leb128(2**20) + bytes(2**20)
ACTIVE = b"\0\x41\0\x0b" + leb128(100) + bytes(100)
EMPTY = b"\x01\0"


def with_data(*segments: bytes, count: int | None = None) -> bytes:
    """Return a module with a memory and these segments."""
    number = leb128(len(segments) if count is None else count)
    header = b"\0asm\1\0\0\0" + section(5, b"\1\0\1") + section(12, number)
    return header + section(11, number + b"".join(segments))


def test_passive_data_is_light() -> None:
    """Passive data is only copied, so a megabyte of it is light, and makes no image."""
    wasm = with_data(PASSIVE, PASSIVE)
    CompiledPlugin(wasm, limits=Limits(compile_seconds=None))
    assert is_light(wasm)
    assert not may_have_image(wasm)
    assert is_light(with_data(ACTIVE))
    assert may_have_image(with_data(ACTIVE))
    assert may_have_image(with_data(PASSIVE, ACTIVE))


@pytest.mark.parametrize(
    "wasm",
    [
        with_data(*[PASSIVE] * 5),
        with_data(b"\0\x41\0\x0b" + PASSIVE[1:]),
        with_data(ACTIVE, PASSIVE),
        with_data(PASSIVE, b"\0\x41\0\x0b" + leb128(5000) + bytes(5000)),
        with_data(*[EMPTY] * 5001),
        b"\0asm\1\0\0\0" + b"\1\0" * 50_000,
        with_data(PASSIVE, count=2),
    ],
    ids=["too much", "active", "active first", "both", "many", "sections", "fewer than said"],
)
def test_other_data_is_not_light(wasm: bytes) -> None:
    """Active data counts, as do many segments, and data that is not what its section says."""
    assert not is_light(wasm) or may_have_image(wasm)


@pytest.mark.parametrize("cut", range(1, 17))
def test_truncated_passive_data(cut: int) -> None:
    """A module that ends within its data is read without an exception of another kind."""
    wasm = with_data(EMPTY, b"\x01\5abcde", EMPTY)[:-cut]
    assert may_have_image(wasm) in (True, False)
    with pytest.raises(ModuleError):
        CompiledPlugin(wasm)


def test_instructions_are_read_like_engine() -> None:
    """Each instruction that a light module can have is decoded as the engine decodes it.

    Each stands before bytes that would be heavy if they were taken for code, with numbers in their
    longest encoding.
    """
    poison = b"\xe7\xe7\xe7\xe7\x87\x00"  # of a number that takes six bytes
    text = """(module (memory 1) (table $t 4 funcref) (global $g (mut i32) (i32.const 0)) (type $n (func)) (elem $e func $f) (data $d "x")
      (func $f (param f32 f64) (result i32) (local i64)
        (block (loop (if (i32.const 1) (then (br 1)) (else (br_if 1 (i32.const 0))))))
        (block (block (br_table 0 1 0 (i32.const 1)))) (nop)
        (call_indirect $t (type $n) (i32.const 0)) (drop (call $f (local.get 0) (local.get 1)))
        (drop (select (i32.const 1) (i32.const 2) (i32.const 3))) (drop (select (result f64) (local.get 1) (local.get 1) (i32.const 3)))
        (local.set 0 (f32.const 1)) (drop (local.tee 1 (f64.const 2))) (local.set 2 (i64.const -9000000000000000000))
        (global.set $g (global.get $g)) (table.set $t (i32.const 0) (table.get $t (i32.const 0)))
        (i64.store offset=4000000000 (i32.const 0) (i64.load8_s offset=4000000000 (i32.const -2000000000)))
        (drop (memory.grow (memory.size))) (drop (i32.trunc_sat_f64_u (local.get 1))) (memory.init $d (i32.const 0) (i32.const 0) (i32.const 0))
        (data.drop $d) (memory.copy (i32.const 0) (i32.const 0) (i32.const 0)) (memory.fill (i32.const 0) (i32.const 0) (i32.const 0))
        (table.init $t $e (i32.const 0) (i32.const 0) (i32.const 0)) (elem.drop $e) (table.copy (i32.const 0) (i32.const 0) (i32.const 0))
        (drop (table.grow $t (ref.null func) (i32.const 0))) (drop (table.size $t)) (table.fill $t (i32.const 0) (ref.func $f) (i32.const 0))
        (drop (ref.is_null (ref.null func))) (if (i32.const 1) (then (return (i32.const 1)))) (unreachable)))"""
    wasm = wat_to_wasm(text.encode())
    CompiledPlugin(wasm, limits=Limits(compile_seconds=None))
    assert 50 < estimate_cost(wasm) < 500
    for code in (
        b"\x41" + poison[:4] + b"\x07",
        b"\x42" + poison,
        b"\x43" + poison[:4],
        b"\x44" + poison[:4] * 2,
    ):
        found = module([code + b"\x1a"])
        assert is_light(found)
        CompiledPlugin(found)


def test_long_names_left_out_of_light() -> None:
    """Very long names are removed from light modules too."""
    names = section(1, b"\1\0" + leb128(20_000) + b"x" * 20_000)
    wasm = module([b"\0"]) + section(0, b"\4name" + names)
    assert is_light(wasm)
    with pytest.raises(plugwasm.TrapError) as caught:
        Plugin(wasm).call("f")
    assert "xxx" not in str(caught.value.backtrace)
    assert "function 0" in str(caught.value.backtrace)


TEXTS: dict[str, bytes] = {
    "brackets": b"(" * 65_000,
    "blocks": b"(module (func " + b"(block " * 8000 + b")" * 8000 + b"))",
    "folded": b"(module (func (drop "
    + b"(i32.eqz " * 6000
    + b"(i32.const 0)"
    + b")" * 6000
    + b")))",
    "many types": b"(module " + b"(type (func))" * 5000 + b")",
    "a large type in each block": b"(module (type (func (param "
    + b"i32 " * 1000
    + b")))"
    + b"(func (type 0) (block (type 0)))" * 1800
    + b")",
    "comments": b"(module " + b"(;" * 14_000 + b";)" * 14_000 + b")",
    "annotations": b"(module " + b"(@a " * 12_000 + b")" * 12_000 + b")",
    "a number": b"(module (func (drop (f64.const 0x"
    + b"f" * 30_000
    + b"."
    + b"f" * 30_000
    + b"p9))))",
    "labels of one name": b"(module (func "
    + b"(block $a " * 4000
    + b"(br $a)"
    + b")" * 4000
    + b"))",
    "components": b"(component " * 5000 + b")" * 5000,
    "a module in a text": b'(module quote "' + b"(func)" * 10_000 + b'")',
    "one bad line": b"(module (func i32.konst " + b"x" * 60_000 + b"))",
}


@needs_proc
def test_text_parsing_is_bounded(tmp_path: Path) -> None:
    """No text that this process parses takes long or much memory."""
    (peak,) = run_program("""
from tests.security.test_compiling import TEXTS
from plugwasm._runtime.compiler import LIGHT_TEXT
from plugwasm._engine import EngineFailure, wat_to_wasm
before = status("VmHWM")
for what, text in TEXTS.items():
    assert len(text) <= LIGHT_TEXT, what
    start = time.process_time()
    try:
        wat_to_wasm(text)
    except EngineFailure:
        pass
    assert time.process_time() - start < 1, what
print(status("VmHWM") - before)
""")
    assert int(peak) < 50e6


# ---- all modules of a plugin ---------------------------------------------------------------------


def compile_together(*modules: bytes, **limits: Any) -> CompiledPlugin:
    named = [{"name": f"m{number}", "data": wasm} for number, wasm in enumerate(modules[:-1])]
    return CompiledPlugin({"wasm": [*named, {"data": modules[-1]}]}, limits=Limits(**limits))


def test_one_light_module_in_process(compilers: list[Any]) -> None:
    """Of the heaviest light modules of a plugin, this process compiles one."""
    modules = [
        hard_modules.largest_fitting(
            lambda n, i=number: module(
                [b"\x41" + wasm_binary.signed_leb128(i) + b"\x1a\x10\0" * 1 + b"\x10\0" * n]
            ),
            is_light,
        )
        for number in range(6)
    ]
    compile_together(*modules)
    assert len(compilers) == 5
    compile_together(*[guest(export(f"f{number}", "(call $echo)")).encode() for number in range(6)])
    assert len(compilers) == 5


def test_light_modules_up_to_total_weight(compilers: list[Any]) -> None:
    """Light modules are compiled in this process up to a total weight."""
    one = module([b"\x10\0" * 300])
    fit = LIGHT_COST // estimate_cost(one)
    compile_together(
        *[module([b"\x10\0" * 300 + b"\x01" * number]) for number in range(fit)], compile_seconds=30
    )
    assert len(compilers) <= 1
    compile_together(
        *[module([b"\x10\0" * 301 + b"\x01" * number]) for number in range(fit + 4)],
        compile_seconds=30,
    )
    assert 4 <= len(compilers) <= 6


def test_modules_share_time(compilers: list[Any]) -> None:
    """The modules of a plugin share the compile time limit."""
    start = time.monotonic()
    with pytest.raises(ModuleError, match=r"`m\d`.*`Limits.compile_seconds`"):
        compile_together(
            *[
                slow_module(20 + number % 2) + section(0, b"\1x" + bytes([number]))
                for number in range(8)
            ],
            LIGHTEST,
            compile_seconds=0.4,
        )
    assert time.monotonic() - start < 20
    with pytest.raises(
        ModuleError,
        match=r"`m1` takes longer to compile than the \S+ seconds that other modules of the plugin left of ",
    ):
        compile_together(heavy_module(), slow_module(6000), LIGHTEST, compile_seconds=5)
    assert compilers[-1].returncode == -signal.SIGKILL
    assert compile_together(heavy_module(1), heavy_module(2), LIGHTEST, compile_seconds=60).exports


def test_no_compile_after_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the time is used up, no further module is compiled."""
    budget = _code.CompileBudget(Limits(compile_seconds=0.05))
    with budget.charge_time("first"):
        time.sleep(0.06)
    with pytest.raises(
        ModuleError,
        match=r"`second` is not compiled, because the modules .* before it took the 0\.05 seconds",
    ):
        _code.compile_module(LIGHTEST, _code.get_engine(pooled=False), "second", budget)


def test_code_size_is_limited() -> None:
    """The code size of all modules of a plugin is limited."""
    one = CompiledPlugin(heavy_module())._plan.main.module.resident_bytes
    with pytest.raises(
        ModuleError,
        match=rf"`m1`: the compiled code of the plugin is more than the {2 * one - 1} bytes of `Limits.code_bytes`",
    ):
        compile_together(heavy_module(1), heavy_module(2), LIGHTEST, code_bytes=2 * one - 1)
    small = CompiledPlugin(LIGHTEST)._plan.main.module.resident_bytes
    assert compile_together(
        heavy_module(1), heavy_module(2), LIGHTEST, code_bytes=2 * one + small + 4096
    ).exports
    with pytest.raises(ModuleError, match="code_bytes"):
        CompiledPlugin(LIGHTEST, limits=Limits(code_bytes=small - 1))


@needs_proc
def test_code_bomb_is_refused_early() -> None:
    """A few bytes that compile to too much code are refused before this process loads the code."""
    peak, refusal = run_program("""
before = status("VmHWM")
refusal = refused(hard_modules.allocated_tables(100))
print(status("VmHWM") - before, refusal, sep="\\n")
""")
    assert "`Limits.code_bytes`" in refusal
    assert int(peak) < 30e6


def test_no_python_to_start_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """If no Python process can be started, modules that are not light are refused."""
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    with pytest.raises(ModuleError, match="no process can be started to compile it"):
        CompiledPlugin(heavy_module())
    assert CompiledPlugin(LIGHTEST).exports


def test_function_type_values_are_limited() -> None:
    """The functions at a module's border have a limited total of parameters and results, so they
    are read quickly."""
    exports = [wasm_binary.name(number) + b"\0\0" for number in range(7000)]
    with pytest.raises(ModuleError, match="more than 300000 values together"):
        CompiledPlugin(module([b"\0"], types=[function_type([F32] * 120)], exports=exports))
    assert (
        len(
            CompiledPlugin(
                module([b"\0"], types=[function_type([F32] * 40)], exports=exports)
            ).exports
        )
        == 7000
    )


def test_inspection_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inspecting a module has the limits of loading it."""
    from plugwasm._manifest.resolve import resolve
    from plugwasm._runtime import facts

    monkeypatch.setattr(facts, "DEFAULT_LIMITS", Limits(compile_seconds=0.3))
    with pytest.raises(ModuleError, match="compile_seconds"):
        facts.collect_facts(resolve(slow_module(3000)))


# ---- what the process keeps ----------------------------------------------------------------------


@needs_proc
def test_unused_code_is_released() -> None:
    """The code of plugins that nothing refers to is returned to the system."""
    before, held, after = (
        int(line)
        for line in run_program("""
def plugin(number):
    return Plugin(wasm_binary.module([b"\\x01" * number], tables=[b"\\x70\\0" + wasm_binary.leb128(900000)] * 4,
        elements=[b"\\2" + wasm_binary.leb128(i) + b"\\x41" + wasm_binary.signed_leb128(899999) + b"\\x0b\\0\\1\\0" for i in range(4)]))
plugin(0).close()
print(status("VmRSS"))
plugins = [plugin(number) for number in range(1, 9)]
print(status("VmRSS"))
del plugins
import ctypes
getattr(ctypes.CDLL(None), "malloc_trim", bool)(0)  # what the allocator of C has for its next blocks is nobody's
print(status("VmRSS"))
""")
    )
    assert held - before > 150e6
    assert after - before < 24e6  # of which 16 may be kept


def test_large_module_found_while_used(
    monkeypatch: pytest.MonkeyPatch, compilers: list[Any]
) -> None:
    """A module too large to be kept is shared while something refers to it."""
    monkeypatch.setattr(_code, "KEPT_BYTES", 1000)
    first = CompiledPlugin(heavy_module())
    again = CompiledPlugin(heavy_module())
    assert again._plan.main.module is first._plan.main.module
    assert len(compilers) == 1
    assert _code._kept == []
    for _ in range(5):
        with Plugin(first) as plugin:
            assert plugin.call("run", b"x") == b"x"
    assert len(compilers) == 1
    del first, again, plugin
    CompiledPlugin(heavy_module())
    assert len(compilers) == 2


@needs_proc
def test_large_code_is_kept_once() -> None:
    """The code of a large plugin is in memory once."""
    once, later = (
        int(line)
        for line in run_program("""
before = status("VmRSS")
compiled = CompiledPlugin(hard_modules.allocated_tables(8), limits=Limits(stack_bytes=2**19))
print(status("VmRSS") - before)
for _ in range(6):
    with Plugin(compiled) as plugin:
        try:
            plugin.call("f")
        except plugwasm.Error:
            pass
del plugin
print(status("VmRSS") - before)
""")
    )
    assert once > 32e6
    assert later < 1.4 * once


# ---- the plugins of a set ------------------------------------------------------------------------


def folder(place: Path, modules: dict[str, bytes]) -> Path:
    for name, wasm in modules.items():
        (place / f"{name}.wasm").write_bytes(wasm)
    return place


def test_ten_slow_plugins(tmp_path: Path, compilers: list[Any]) -> None:
    """Ten slow plugins take no longer than one, and the other plugins are loaded."""
    slow_ones = {f"a{number}": slow_module(2000 + number) for number in range(10)}
    place = folder(tmp_path, slow_ones | {"good": wat_to_wasm(LIGHTEST), "large": heavy_module()})
    start = time.monotonic()
    with PluginSet.from_directory(place, limits=Limits(compile_seconds=6)) as plugins:
        assert time.monotonic() - start < 6 + 12 * MIN_SHARE + 6
        assert plugins.hooks == {"run": ("good", "large")}
        assert plugins.call("large", "run", b"x") == b"x"
        for told in plugins.describe():
            assert ("compile_seconds" in (told.error or "")) == (told.name in slow_ones)


def test_unused_shares_are_passed_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plugin that needs more than its share of the time gets what the others left."""
    monkeypatch.setattr(
        "plugwasm._plugin_set.compile_shares.MIN_SHARE", 0.05
    )  # far less than the slow one takes on any machine
    begin = time.monotonic()
    CompiledPlugin(slow_module(80))
    took = time.monotonic() - begin
    assert took > 2 * 0.05
    place = folder(
        tmp_path,
        {f"b{number}": wat_to_wasm(LIGHTEST) for number in range(100)}
        | {"a": slow_module(81), "c": b"\0asm\1\0\0\0\xff"},
    )
    with PluginSet.from_directory(
        place, limits=Limits(compile_seconds=min(60.0, 20 * took))
    ) as plugins:
        assert [told.name for told in plugins.describe() if told.error] == ["c"]
        assert plugins._catalog.current_state().entries[
            "a"
        ].loaded.compiled.limits.compile_seconds == min(60.0, 20 * took)
    assert [record.args[0] for record in caplog.records if record.name == "plugwasm.plugins"] == [
        "c"
    ]


def test_slow_plugin_enabled_alone(tmp_path: Path) -> None:
    """A plugin that was too slow among others can be enabled alone."""
    place = folder(tmp_path, {"a": slow_module(3000), "b": slow_module(3001)})
    with PluginSet.from_directory(place, limits=Limits(compile_seconds=4)) as plugins:
        assert all("; `enable` tries it alone" in (told.error or "") for told in plugins.describe())
        (place / "a.wasm").write_bytes(heavy_module())
        with pytest.raises(ModuleError, match=r"than the 4 seconds of `Limits.compile_seconds`$"):
            plugins.enable("b")
        plugins.enable("a")
        assert plugins.hooks == {"run": ("a",)}


def test_shares_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shares and minimum shares of the time add up to the whole."""
    now = [0.0]
    monkeypatch.setattr("plugwasm._plugin_set.compile_shares.monotonic", lambda: now[0])

    def run(shares: CompileShares, needs: list[float]) -> list[float]:
        got = []
        for need in needs:
            shares.begin()
            assert shares.share is not None
            now[0] += min(need, shares.share)
            if shares.end():
                got.append(shares.share)
        return got

    shares = CompileShares(60.0, 10)
    assert run(shares, [0] * 9 + [50]) == []
    shares = CompileShares(60.0, 10)
    late = run(shares, [50] + [0] * 9)
    assert late == [6.0]
    again = shares.retry_shares(late)
    assert again is not None
    assert run(again, [50]) == []
    now[0] = 0.0
    shares = CompileShares(60.0, 1000)
    late = run(shares, [100.0] * 1000)
    assert now[0] <= 60 + 1000 * MIN_SHARE
    assert shares.retry_shares(late) is None
    now[0] = 0.0
    assert run(CompileShares(0.125, 3), [1, 1, 1]) == [0.125, 0.125, 0.125]
    without = CompileShares(None, 3)
    without.begin()
    assert (without.share, without.end(), without.retry_shares([1.0])) == (None, False, None)


@pytest.mark.skipif(
    not hasattr(os, "fork"), reason="processes of their own need a system that is POSIX"
)
def test_isolated_plugin_time(tmp_path: Path) -> None:
    """An isolated plugin of many modules has the time limit of one."""
    start = time.monotonic()
    modules = [{"name": f"m{number}", "data": slow_module(1000 + number)} for number in range(20)]
    with pytest.raises(ModuleError, match="compile_seconds"):
        plugwasm.IsolatedPlugin(
            {"wasm": [*modules, {"data": LIGHTEST}]}, limits=Limits(compile_seconds=0.5)
        )
    assert time.monotonic() - start < 9
