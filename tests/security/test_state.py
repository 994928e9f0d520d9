"""State of a plugin's instances outside memories: globals, references, segments, imports and
tables. It is bounded and counted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from plugwasm import CompiledPlugin, Limits, OutOfMemoryError, Plugin
from plugwasm._engine import read_facts, wat_to_wasm
from tests.support import wasm_binary
from tests.support.guests import export, guest, manifest, number
from tests.support.paths import ROOT
from tests.support.wasm_binary import module

MIB = 2**20
needs_proc = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="the memory of the process is read from /proc"
)


def with_globals(count: int, extra: str = "") -> bytes:
    return wat_to_wasm(
        f'(module {"(global i32 (i32.const 0))" * count} (func (export "f")) {extra})'.encode()
    )


LARGE = {
    "globals": module(globals=[b"\x7f\1\x41\0\x0b"] * 990_000),
    "globals of vectors": module(
        globals=[b"\x7b\1" + wasm_binary.CONST[wasm_binary.V128] + b"\x0b"] * 600_000
    ),
    "segments for tables": module(elements=[b"\1\0\1\0"] * 90_000),
    "elements in segments": module(elements=[b"\1\0\x64" + bytes(100)] * 6000),
    "elements as expressions": module(elements=[b"\5\x70\x64" + b"\xd2\0\x0b" * 100] * 3000),
}


@pytest.mark.parametrize("what", LARGE)
def test_excess_is_refused_before_instance(what: str) -> None:
    """State beyond the limit is refused before there is an instance."""
    with pytest.raises(
        OutOfMemoryError,
        match=r"may hold \d+ bytes outside of its memories .* its limit is 8388608 \(`Limits\.instance_bytes`",
    ):
        CompiledPlugin(LARGE[what])
    with pytest.raises(OutOfMemoryError, match="its limit is 1048576"):
        CompiledPlugin(LARGE[what], limits=Limits(memory_bytes=2**20))


def test_exact_limit_is_allowed() -> None:
    """State exactly at the limit is allowed."""
    wasm = with_globals(1000)
    state = read_facts(wasm)[4]
    assert 16_000 <= state < 17_000
    assert Plugin(wasm, limits=Limits(instance_bytes=state)).call("f") == b""
    with pytest.raises(OutOfMemoryError, match=rf"{state} bytes .* its limit is {state - 1} "):
        CompiledPlugin(wasm, limits=Limits(instance_bytes=state - 1))


MEASURE = """
import sys
from tests.support import wasm_binary
from tests.support.wasm_binary import module
from tests.support.wasm_binary import leb128
from plugwasm import CompiledPlugin, Limits, Plugin, cache
cache.configure(enabled=False)

def resident():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS")) * 1024

def cost(wasm):
    compiled = CompiledPlugin(wasm, limits=Limits(instance_bytes=2**31, compile_seconds=None, stack_bytes=2**18))  # without a pool
    plugins = []
    for _ in range(4):
        plugins.append(Plugin(compiled))
        plugins[-1].call("f")
    before = resident()
    for _ in range(16):
        plugins.append(Plugin(compiled))
        plugins[-1].call("f")
    return (resident() - before) / 16, compiled._plan.state_bytes

def show(wasm):
    print(*map(int, cost(wasm)))
"""


@needs_proc
@pytest.mark.parametrize(
    "made",
    [
        'globals=[b"\\x7f\\1\\x41\\0\\x0b"] * 100_000',
        'elements=[b"\\1\\0\\1\\0"] * 10_000',
        'elements=[b"\\1\\0\\x64" + bytes(100)] * 500',
        'elements=[b"\\5\\x70\\x64" + b"\\xd2\\0\\x0b" * 100] * 300',
        'data=[b"\\1\\1x"] * 60_000',
        'bodies=[b""] * 20_000, elements=[b"\\3\\0" + leb128(20_000) + b"".join(leb128(i) for i in range(20_000))]',
        'bodies=[b""] * 8_000, exports=[b"\\1f\\0\\0", *(b"\\6" + b"%06x" % i + b"\\0" + leb128(i) for i in range(8_000))]',
        'tables=[b"\\x70\\0\\0"] * 16',
    ],
    ids=[
        "globals",
        "segments",
        "elements",
        "expressions",
        "data",
        "references",
        "exports",
        "tables",
    ],
)
def test_instance_takes_what_is_counted(made: str) -> None:
    """An instance takes no more memory than is counted.

    The engine's memory for a module's sections is measured, so a new version that takes more is
    noticed.
    """
    script = MEASURE + f"show(module({made}))"
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    took, counted = map(int, done.stdout.split())
    assert took <= counted + 100_000  # which is what the host keeps around any instance


@needs_proc
def test_host_linked_functions_count() -> None:
    """Functions that are reached through the host are counted too."""
    script = """
names = [f"g{i:04}" for i in range(3000)]
lib = "(module " + "".join(f'(func (export "{n}"))' for n in names) + '(func (export "_start")))'
main = "(module " + "".join(f'(import "lib" "{n}" (func))' for n in names) + '(func (export "f")))'
show({"wasm": [{"name": "lib", "data": lib.encode()}, {"data": main.encode()}]})
"""
    run = [sys.executable, "-c", MEASURE + script]
    done = subprocess.run(run, capture_output=True, text=True, cwd=ROOT, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    took, counted = map(int, done.stdout.split())
    assert took <= counted + 100_000


def test_linked_modules_count() -> None:
    """Linked modules and commands count together."""
    one = with_globals(1000)
    for extra in ("", '(func (export "_start"))'):
        lib = wat_to_wasm(
            f'(module {"(global i32 (i32.const 0))" * 1000} (func (export "g")) {extra})'.encode()
        )
        main = wat_to_wasm(b'(module (import "lib" "g" (func $g)) (func (export "f") (call $g)))')
        plugin = {
            "wasm": [{"name": "lib", "data": lib}, {"name": "other", "data": one}, {"data": main}]
        }
        both = sum(read_facts(wasm)[4] for wasm in (lib, one, main))
        assert Plugin(plugin, limits=Limits(instance_bytes=both)).call("f") == b""
        with pytest.raises(OutOfMemoryError, match="instance_bytes"):
            CompiledPlugin(plugin, limits=Limits(instance_bytes=both - 1))


def test_kept_commands_count() -> None:
    """Instances of commands that stay are counted as they are created.

    A command that imports a global has its instances in the plugin's own store, where each stays.
    """
    lib = '(module (global (export "g") i32 (i32.const 0)))'
    command = f'(module (import "lib" "g" (global i32)) {"(global i32 (i32.const 0))" * 1000} (func (export "_start")) (func (export "c")))'
    main = '(module (import "command" "c" (func $c)) (func (export "f") (call $c)))'
    plugin = Plugin(
        manifest(("lib", lib), ("command", command), main), limits=Limits(instance_bytes=100_000)
    )
    calls = 0

    def call() -> None:
        nonlocal calls
        while calls < 100:
            plugin.call("f")
            calls += 1

    with pytest.raises(OutOfMemoryError, match="instances hold more than 100000 bytes"):
        call()
    assert calls == 6
    assert plugin.call("f") == b""


def test_command_in_own_store_is_unlimited() -> None:
    """A command with its own store can be called any number of times."""
    command = f'(module {"(global i32 (i32.const 0))" * 1000} (func (export "_start")) (func (export "c")))'
    main = '(module (import "command" "c" (func $c)) (func (export "f") (call $c)))'
    plugin = Plugin(manifest(("command", command), main), limits=Limits(instance_bytes=30_000))
    for _ in range(50):
        plugin.call("f")


# ---- tables --------------------------------------------------------------------------------------

GROW = "(call $answer (i64.extend_i32_s (table.grow {} (ref.null func) (i32.wrap_i64 (call $input_load_u64 (i64.const 0))))))"


@pytest.mark.parametrize("tables", [1, 4, 16])
def test_table_limit(tables: int) -> None:
    """Tables take no more memory than memories may."""
    text = guest(
        "(table 0 funcref)" * tables
        + "".join(export(f"grow{i}", GROW.format(i)) for i in range(tables))
    )
    plugin = Plugin(text, limits=Limits(memory_bytes=MIB))
    most = MIB // 8 // tables
    for i in range(tables):
        assert number(plugin.call(f"grow{i}", (most + 1).to_bytes(8, "little"))) == -1
        assert number(plugin.call(f"grow{i}", most.to_bytes(8, "little"))) == 0


def test_table_minimum_over_limit() -> None:
    """A table whose minimum exceeds the limit is refused."""
    text = '(module (table 200000 funcref) (func (export "f")))'
    assert Plugin(text).call("f") == b""
    with pytest.raises(OutOfMemoryError):
        Plugin(text, limits=Limits(memory_bytes=MIB)).call("f")


def test_tables_of_linked_modules() -> None:
    """Tables of linked modules share the limit."""
    lib = '(module (table 0 funcref) (func (export "g") (param i32) (result i32) (table.grow (ref.null func) (local.get 0))))'
    main = guest(
        '(import "lib" "g" (func $g (param i32) (result i32))) (table 0 funcref)'
        + export(
            "f",
            "(call $answer (i64.extend_i32_s (call $g (i32.wrap_i64 (call $input_load_u64 (i64.const 0))))))",
        )
    )
    with Plugin(manifest(("lib", lib), main), limits=Limits(memory_bytes=MIB)) as plugin:
        assert number(plugin.call("f", (2**16 + 1).to_bytes(8, "little"))) == -1
        assert number(plugin.call("f", (2**16).to_bytes(8, "little"))) == 0


def test_tables_of_command_stores() -> None:
    """Tables of a command are limited in each of its stores."""
    lib = (
        '(module (table 0 funcref) (table 0 funcref) (func (export "_start"))'
        '(func (export "g") (param i32) (result i32) (table.grow 1 (ref.null func) (local.get 0))))'
    )
    main = guest(
        '(import "lib" "g" (func $g (param i32) (result i32)))'
        + export(
            "f",
            "(call $answer (i64.extend_i32_s (call $g (i32.wrap_i64 (call $input_load_u64 (i64.const 0))))))",
        )
    )
    with Plugin(manifest(("lib", lib), main), limits=Limits(memory_bytes=MIB)) as plugin:
        assert number(plugin.call("f", (2**16 + 1).to_bytes(8, "little"))) == -1
        assert number(plugin.call("f", (2**16).to_bytes(8, "little"))) == 0


def test_module_facts() -> None:
    """The facts read from a module are right when it has every kind of state."""
    text = """(module (import "a" "f" (func)) (import "a" "m" (memory 1)) (table 3 funcref) (table 1 2 funcref) (memory 2) (memory 3 4)
        (global i32 (i32.const 0)) (func $x) (func $y) (elem func $x $y) (data "abc") (tag) (export "x" (func $x)) (start $y))"""
    state = 448 * 2 + 64 * 2 + 16 + 112 + 16 + 16 + 16 * 4 + 32 * 3
    found = read_facts(wat_to_wasm(text.encode()))
    assert found[:4] == (2, 5, 3, 1)
    assert found[5:] == (2, 4)
    assert state - 200 <= found[4] <= state + 200
