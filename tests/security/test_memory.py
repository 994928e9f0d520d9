"""Memory: whatever a plugin allocates, it stays within its limit and the host stays sound
(`docs/security.md`, 11 to 13)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import plugwasm
from plugwasm import (
    CompiledPlugin,
    Limits,
    OutOfMemoryError,
    Plugin,
)
from tests.support.both_engines import ENGINES, MASK, PAGE, make_plugin, u64_bytes
from tests.support.guests import export, guest, manifest, number
from tests.support.paths import ROOT

GIB = 2**30


def resident() -> int:
    """Return the resident memory of this process in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * 1024
    raise AssertionError


needs_proc = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="the memory of the process is read from /proc"
)

# ---- 11. memory.grow -----------------------------------------------------------------------------


def growing_guest(type: str = "i32", memory: str = "1") -> str:
    zero, asked = (
        ("", "(i32.wrap_i64 (call $input_load_u64 (i64.const 0)))")
        if type == "i32"
        else ("i64", "(call $input_load_u64 (i64.const 0))")
    )
    wide = "i64.extend_i32_s" if type == "i32" else "i64.add (i64.const 0)"
    return guest(
        export("grow", f"(call $answer ({wide} (memory.grow {asked})))")
        + export("size", f"(call $answer ({wide} (memory.size)))")
        + export(
            "bomb",
            f"""(loop $next (br_if $next ({type}.ne (memory.grow ({type}.const 1)) ({type}.const -1))))
            (call $answer ({wide} (memory.size)))""",
        )
        + export("kernel", "(call $answer (call $memory_bytes))")
        + export("alloc", "(call $answer (call $alloc (call $input_load_u64 (i64.const 0))))")
        + export("quick", ""),
        memory=f'(memory (export "memory") {zero} {memory})',
    )


@ENGINES
@pytest.mark.parametrize("type", ["i32", "i64"])
def test_memory_bomb(type: str, pooled: bool) -> None:
    """Growth beyond the limit returns -1, and the guest can continue."""
    with make_plugin(growing_guest(type), pooled, limits=Limits(memory_bytes=100 * PAGE)) as plugin:
        assert number(plugin.call("bomb")) == 98  # two are the kernel's
        assert number(plugin.call("bomb")) == 98
        assert number(plugin.call("grow", u64_bytes(0))) == 98


@ENGINES
@pytest.mark.parametrize("type", ["i32", "i64"])
@pytest.mark.parametrize("maximum", [4, 100])
def test_growth_to_last_page(type: str, maximum: int, pooled: bool) -> None:
    """Growth is granted up to the last page and refused beyond it."""
    with make_plugin(
        growing_guest(type), pooled, limits=Limits(memory_bytes=maximum * PAGE)
    ) as plugin:
        room = maximum - 3
        for too_much in (room + 1, 65535, 65536, 2**31, 2**32 - 1):
            assert number(plugin.call("grow", u64_bytes(too_much))) == -1
        if type == "i64":
            for too_much in (2**32, 2**48, 2**48 + 1, 2**63, MASK):
                assert number(plugin.call("grow", u64_bytes(too_much))) == -1
        assert number(plugin.call("size")) == 1
        assert number(plugin.call("grow", u64_bytes(room))) == 1
        assert number(plugin.call("grow", u64_bytes(1))) == -1
        assert number(plugin.call("size")) == maximum - 2


@ENGINES
def test_kernel_memory_counts(pooled: bool) -> None:
    """Memory that the kernel uses is not available to the guest."""
    with make_plugin(growing_guest(), pooled, limits=Limits(memory_bytes=50 * PAGE)) as plugin:
        assert number(plugin.call("alloc", u64_bytes(20 * PAGE))) != 0
        kernel = number(plugin.call("kernel")) // PAGE
        assert kernel >= 21
        assert number(plugin.call("grow", u64_bytes(50 - kernel))) == -1
        assert number(plugin.call("grow", u64_bytes(50 - kernel - 1))) == 1
        assert number(plugin.call("alloc", u64_bytes((kernel + 1) * PAGE))) == 0


@ENGINES
def test_default_limit_is_a_gibibyte(pooled: bool) -> None:
    """By default, the limit of all memory together is one gibibyte."""
    with make_plugin(growing_guest(), pooled) as plugin:
        assert number(plugin.call("grow", u64_bytes(GIB // PAGE - 2))) == -1
        assert number(plugin.call("grow", u64_bytes(GIB // PAGE - 3))) == 1
        assert number(plugin.call("grow", u64_bytes(1))) == -1
        assert number(plugin.call("alloc", u64_bytes(3 * PAGE))) == 0


# ---- 12. huge and many ---------------------------------------------------------------------------


def module(text: str) -> str:
    return f'(module {text} (func (export "quick")))'


REFUSED = {
    "a memory of 4 GiB": module("(memory 65536)"),
    "a memory of 64 bits that starts with 16 TiB": module("(memory i64 268435456)"),
    "a memory of 64 bits that starts with as much as can be written": module(
        "(memory i64 281474976710656)"
    ),
    "a memory beyond what Wasm allows": module("(memory 65537)"),
    "a memory one page beyond the limit": module(f"(memory {GIB // PAGE - 1})"),
    "nine memories": module("(memory 1)" * 9),
    "a hundred memories": module("(memory 1)" * 100),
    "a hundred memories of 4 GiB": module("(memory 65536)" * 100),
    "ten thousand memories": module("(memory 0)" * 10_000),
    "two memories that are too large together": module("(memory 8192)" * 2),
    "a table of four thousand million elements": module("(table 4000000000 funcref)"),
    "a table one element beyond the limit": module("(table 1000001 funcref)"),
    "a table of 64 bits": module("(table i64 0x10000000000 funcref)"),
    "seventeen tables": module("(table 1 funcref)" * 17),
    "a hundred full tables": module("(table 1000000 funcref)" * 100),
    "data segments beyond the memory": module('(memory 1) (data (i32.const 65536) "x")'),
    "elements beyond the table": module("(table 1 funcref) (func $f) (elem (i32.const 1) $f)"),
}
ALLOWED = {
    "a memory of all that the limit allows": module(f"(memory {GIB // PAGE - 2})"),
    "a memory that may grow to 4 GiB but does not": module("(memory 1 65536)"),
    "a memory of 64 bits": module("(memory i64 1)"),
    "eight memories": module("(memory 1)" * 8),
    "a table of a million": module("(table 1000000 funcref)"),
    "sixteen tables": module("(table 1 funcref)" * 16),
}


@needs_proc
@pytest.mark.parametrize("what", REFUSED)
def test_declaration_over_limit(what: str) -> None:
    """A module that declares too much memory is refused and allocates nothing."""
    before = resident()
    for _ in range(2):
        with pytest.raises(plugwasm.Error) as caught, Plugin(REFUSED[what]) as plugin:
            plugin.call("quick")
        assert isinstance(
            caught.value, (OutOfMemoryError, plugwasm.ModuleError, plugwasm.TrapError)
        ), caught.value
        assert resident() - before < 50e6


@ENGINES
@needs_proc
@pytest.mark.parametrize("what", ALLOWED)
def test_declaration_at_limit(what: str, pooled: bool) -> None:
    """A module that declares exactly the limit works and takes only what it uses."""
    before = resident()
    compiled = CompiledPlugin(ALLOWED[what])
    for _ in range(5 if pooled else 1):
        with Plugin(compiled) as plugin:
            assert plugin.call("quick") == b""
        assert resident() - before < 100e6


def test_linked_modules_count() -> None:
    """Memories and tables of linked modules count together with those of the main module."""
    for item, most in (("(memory 1)", 8), ("(table 1 funcref)", 16)):
        for over in (0, 1):
            lib = ("lib", f'(module {item * (most - 4 + over)} (func (export "f")))')
            main = f'(module (import "lib" "f" (func)) {item * 4} (func (export "quick")))'
            with Plugin(manifest(lib, main)) as plugin:
                if over:
                    with pytest.raises(OutOfMemoryError):
                        plugin.call("quick")
                else:
                    assert plugin.call("quick") == b""


TABLES = guest(
    "(table $t 0 funcref) (table $e 0 externref)"
    + "".join(
        export(
            f"grow_{t}",
            f"(call $answer (i64.extend_i32_s (table.grow ${t} (ref.null {kind}) (i32.wrap_i64 (call $input_load_u64 (i64.const 0))))))",
        )
        for t, kind in (("t", "func"), ("e", "extern"))
    )
    + export("quick", "")
)


@ENGINES
@pytest.mark.parametrize("table", ["t", "e"])
def test_table_limit(table: str, pooled: bool) -> None:
    """A table grows exactly to its limit."""
    with make_plugin(TABLES, pooled) as plugin:
        for too_many in (1_000_001, 100_000_000, 2**31, 2**32 - 1):
            assert number(plugin.call(f"grow_{table}", u64_bytes(too_many))) == -1
        if not pooled:  # a table of the pool has its own, lower cap
            assert number(plugin.call(f"grow_{table}", u64_bytes(999_999))) == 0
            assert number(plugin.call(f"grow_{table}", u64_bytes(2))) == -1
            assert number(plugin.call(f"grow_{table}", u64_bytes(1))) == 999_999
            assert number(plugin.call(f"grow_{table}", u64_bytes(1))) == -1


EXCEPTIONS = guest(
    """(tag $thrown (param exnref i64)) (global $kept (mut exnref) (ref.null exn)) (table $all 0 exnref)
    (func $throws (throw $thrown (global.get $kept) (i64.const 5)))"""
    + export(
        "chain",
        """(loop $next
          (global.set $kept (block $caught (result exnref) (try_table (catch_all_ref $caught) (call $throws)) (unreachable)))
          (br $next))""",
    )
    + export(
        "row",
        """(loop $next
          (br_if $next (i32.ne (i32.const -1)
            (table.grow $all (block $caught (result exnref) (try_table (catch_all_ref $caught) (call $throws)) (unreachable)) (i32.const 1)))))
        unreachable""",
    )
    + export("quick", "")
)


@ENGINES
@needs_proc
@pytest.mark.parametrize("name", ["chain", "row"])
def test_kept_exceptions_are_limited(name: str, pooled: bool) -> None:
    """Exceptions that the guest keeps take no more memory than the limit."""
    try:
        plugin = make_plugin(
            manifest(EXCEPTIONS, memory={"max_pages": 400}, timeout_ms=20_000), pooled
        )
    except plugwasm.ModuleError:
        return  # no exceptions at all
    with plugin:
        before = resident()
        with pytest.raises((OutOfMemoryError, plugwasm.TimeoutError)):
            plugin.call(name)
        assert resident() - before < 2 * 400 * PAGE + 40e6
        assert plugin.call("quick") == b""


STRUCTS = """(module (type $node (struct (field (ref null $node)) (field i64))) (global $list (mut (ref null $node)) (ref.null $node))
  (func (export "grow") (loop $next (global.set $list (struct.new $node (global.get $list) (i64.const 1))) (br $next))))"""


@needs_proc
def test_gc_objects_are_limited() -> None:
    """Garbage-collected objects are refused or counted."""
    before = resident()
    with (
        pytest.raises((plugwasm.ModuleError, OutOfMemoryError)),
        Plugin(manifest(STRUCTS, memory={"max_pages": 400})) as plugin,
    ):
        plugin.call("grow")
    assert resident() - before < 2 * 400 * PAGE + 40e6


# ---- 13. alloc -----------------------------------------------------------------------------------

ALLOCS = guest(
    export(
        "alloc",
        """(local.set $block (call $alloc (call $input_load_u64 (i64.const 0))))
        (call $free (local.get $block)) (call $answer (local.get $block))""",
        "(local $block i64)",
    )
    + export(
        "all",
        """(local.set $size (call $input_load_u64 (i64.const 0)))
        (loop $next
          (local.set $block (call $alloc (local.get $size)))
          (if (i64.ne (local.get $block) (i64.const 0)) (then
            (local.set $last (local.get $block))
            (local.set $n (i64.add (local.get $n) (i64.const 1)))
            (br $next))))
        (call $free (local.get $last))
        (if (i64.ne (call $alloc (local.get $size)) (local.get $last)) (then unreachable))
        (if (i64.ne (call $alloc (local.get $size)) (i64.const 0)) (then unreachable))
        (call $free (local.get $last))
        (call $answer (local.get $n))""",
        "(local $n i64) (local $size i64) (local $block i64) (local $last i64)",
    )
    + export("bytes", "(call $answer (call $memory_bytes))")
    + export("echo", "(call $echo)")
    + export("quick", ""),
    memory="",
)
LARGEST = 20 * PAGE - 512 - 32
"""What fits into twenty pages besides an input of eight bytes."""


@ENGINES
@pytest.mark.parametrize(
    "size",
    [
        2**31,
        2**32 - 1,
        2**32,
        2**37,
        2**40,
        2**63 - 1,
        2**63,
        2**63 + 1,
        MASK - 511,
        MASK - 31,
        MASK,
    ],
)
def test_alloc_impossible_size(size: int, pooled: bool) -> None:
    """`alloc` of an impossible size returns zero, does not trap and takes no memory."""
    with make_plugin(ALLOCS, pooled) as plugin:
        before = number(plugin.call("bytes"))
        assert number(plugin.call("alloc", u64_bytes(size))) == 0
        assert number(plugin.call("bytes")) == before
        assert number(plugin.call("alloc", u64_bytes(100))) != 0
        assert plugin.call("echo", b"still here") == b"still here"


@ENGINES
def test_alloc_to_last_byte(pooled: bool) -> None:
    """`alloc` succeeds exactly up to the last byte of the limit."""
    with make_plugin(ALLOCS, pooled, limits=Limits(memory_bytes=20 * PAGE)) as plugin:
        assert number(plugin.call("alloc", u64_bytes(LARGEST + 1))) == 0
        assert number(plugin.call("bytes")) == 2 * PAGE
        assert number(plugin.call("alloc", u64_bytes(LARGEST))) == 512 + 32
        assert number(plugin.call("bytes")) == 20 * PAGE


@ENGINES
@needs_proc
@pytest.mark.parametrize("size", [1, 32, 33, 4000, PAGE, 10**6])
def test_alloc_in_loop(size: int, pooled: bool) -> None:
    """`alloc` in a loop ends with zero, and the host's memory grows by no more than the limit."""
    with make_plugin(ALLOCS, pooled, limits=Limits(memory_bytes=200 * PAGE)) as plugin:
        before = resident()
        count = number(plugin.call("all", u64_bytes(size)))
        assert count * size <= 200 * PAGE
        # At the end the block that could be had again was freed and its place taken by the answer.
        granules = -(-size // 32)
        assert count * granules * 32 > 200 * PAGE - 512 - 32 - granules * 32 - 32
        assert number(plugin.call("bytes")) <= 200 * PAGE
        assert resident() - before < 2 * 200 * PAGE
        assert plugin.call("echo", b"still here") == b"still here"


# ---- the host's own memory -----------------------------------------------------------------------

HUNGRY = """
import plugwasm
from plugwasm import Plugin

def mib(what):
    return next(int(line.split()[1]) // 1024 for line in open("/proc/self/status") if line.startswith(what))

plugin = Plugin({{"wasm": [{{"data": {source!r}.encode()}}], "timeout_ms": 30_000, "memory": {{"max_pages": 3200}}}})
plugin.call("quick")
before = mib("VmRSS")
try:
    plugin.call("hungry")
except plugwasm.Error as error:
    print(type(error).__name__)
print(mib("VmHWM") - before)
"""


@needs_proc
def test_total_cost_is_near_limit() -> None:
    """A plugin that takes all it can costs the host its limit and a few percent."""
    source = guest(
        export(
            "hungry",
            """(loop $next (br_if $next (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))
            (memory.fill (i32.const 0) (i32.const 1) (i32.mul (memory.size) (i32.const 65536)))
            (loop $next (br_if $next (i64.ne (call $alloc (i64.const 65000)) (i64.const 0))))
            unreachable""",
        )
        + export("quick", ""),
        memory='(memory (export "memory") 1)',
    )
    script = HUNGRY.format(source=source)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert done.returncode == 0, done.stderr
    error, peak = done.stdout.split()
    assert error == "OutOfMemoryError"
    assert 150 < int(peak) < 240, "of 200 MiB"
