"""WebAssembly features that are off unless the application allows them: garbage-collected
objects and atomic instructions."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import plugwasm
from plugwasm import (
    CompiledPlugin,
    IsolatedPlugin,
    Limits,
    ModuleError,
    OptionError,
    OutOfMemoryError,
    Plugin,
    PluginPool,
    PluginRef,
    PluginSet,
    TrapError,
)
from plugwasm._engine import wat_to_wasm
from plugwasm._runtime import modules
from plugwasm.testing import Harness
from tests.support.guests import export, guest, manifest, number

PAGE = 65536
GC, ATOMICS = Limits(gc=True), Limits(atomics=True)

OBJECTS = guest(
    """(type $bytes (array (mut i8)))
    (type $node (struct (field $next (mut (ref null $node))) (field $value i64)))
    (global $list (mut (ref null $node)) (ref.null $node))
    (global $kept (mut (ref null $bytes)) (ref.null $bytes))
    (func $push (param $value i64) (global.set $list (struct.new $node (global.get $list) (local.get $value))))
    (func $sum (result i64) (local $at (ref null $node)) (local $sum i64)
      (local.set $at (global.get $list))
      (block $end (loop $next
        (br_if $end (ref.is_null (local.get $at)))
        (local.set $sum (i64.add (local.get $sum) (struct.get $node $value (local.get $at))))
        (local.set $at (struct.get $node $next (local.get $at)))
        (br $next)))
      (local.get $sum))
    (func (export "grow") (result i32)
      (i32.eq (i32.const -1) (memory.grow (i32.wrap_i64 (call $input_load_u64 (i64.const 0))))))"""
    + export(
        "list",
        "(call $push (i64.const 1)) (call $push (i64.const 2)) (call $push (i64.const 39)) (call $answer (call $sum))",
    )
    + export(
        "array",
        "(local.set $a (array.new $bytes (i32.const 7) (i32.const 6)))"
        "(call $answer (i64.extend_i32_u (i32.mul (array.len (local.get $a)) (array.get_u $bytes (local.get $a) (i32.const 5)))))",
        "(local $a (ref null $bytes))",
    )
    + export("i31", "(call $answer (i64.extend_i32_u (i31.get_u (ref.i31 (i32.const 42)))))")
    + export(
        "cast", "(drop (ref.cast (ref $bytes) (struct.new $node (ref.null $node) (i64.const 1))))"
    )
    + export("null", "(drop (struct.get $node $value (ref.null $node)))")
    + export(
        "beyond",
        "(drop (array.get_u $bytes (array.new $bytes (i32.const 0) (i32.const 1)) (i32.const 1)))",
    )
    + export("huge", "(drop (array.new_default $bytes (i32.const -1)))")
    + export(
        "garbage", "(loop $next (drop (array.new_default $bytes (i32.const 1000000))) (br $next))"
    )
    + export("keep", "(loop $next (call $push (i64.const 1)) (br $next))")
    + export(
        "large",
        "(global.set $kept (array.new_default $bytes (i32.wrap_i64 (call $input_load_u64 (i64.const 0)))))",
    )
    + export("quick", ""),
    memory='(memory (export "memory") 1)',
)
COUNTS = guest(
    export(
        "count",
        "(drop (i32.atomic.rmw.add (i32.const 8) (i32.const 41))) (drop (i32.atomic.rmw.add (i32.const 8) (i32.const 1))) (atomic.fence)"
        "(call $answer (i64.extend_i32_u (i32.atomic.load (i32.const 8))))",
    )
    + export(
        "swap", "(call $answer (i64.atomic.rmw.cmpxchg (i32.const 16) (i64.const 0) (i64.const 5)))"
    )
    + export(
        "notify",
        "(call $answer (i64.extend_i32_u (memory.atomic.notify (i32.const 8) (i32.const 1))))",
    )
    + export("wait", "(drop (memory.atomic.wait32 (i32.const 8) (i32.const 0) (i64.const -1)))")
    + export("askew", "(drop (i32.atomic.load (i32.const 7)))"),
    memory='(memory (export "memory") 1)',
)


def word(value: int) -> bytes:
    return value.to_bytes(8, "little")


@pytest.mark.parametrize(("source", "name"), [(OBJECTS, "gc"), (COUNTS, "atomics")])
def test_features_off_by_default(source: str, name: str) -> None:
    """Both features are off by default, and the error says how to allow them."""
    for limits in (None, Limits(), Limits(gc=name != "gc", atomics=name != "atomics")):
        with pytest.raises(
            ModuleError, match=rf"an application can allow .*`Limits\({name}=True\)`"
        ):
            CompiledPlugin(source, limits=limits)


@pytest.mark.parametrize(
    "text",
    [
        "(type (struct (field i32)))",
        "(type (array i8))",
        "(func (drop (ref.i31 (i32.const 0))))",
        "(func (param anyref))",
        "(rec (type (func)) (type (func)))",
        "(type (sub (func)))",
        "(memory 1) (func (drop (i32.atomic.load (i32.const 0))))",
        "(func (atomic.fence))",
    ],
)
def test_features_as_a_whole(text: str) -> None:
    """Every part of the features is off by default and works when both are allowed."""
    with pytest.raises(ModuleError, match="an application can allow"):
        CompiledPlugin(f"(module {text})")
    CompiledPlugin(f"(module {text})", limits=Limits(gc=True, atomics=True))


@pytest.mark.parametrize("fuel", [None, 10**6])
def test_structs_arrays_and_i31_work(fuel: int | None) -> None:
    with Plugin(OBJECTS, limits=GC, fuel_limit=fuel) as plugin:
        assert [number(plugin.call(name)) for name in ("list", "array", "i31")] == [42, 42, 42]


@pytest.mark.parametrize(
    ("name", "trap"),
    [
        ("cast", "cast to a wrong type"),
        ("null", "null reference"),
        ("beyond", "out of bounds array access"),
        ("huge", "object too large"),
    ],
)
def test_their_traps_have_names(name: str, trap: str) -> None:
    with Plugin(OBJECTS, limits=GC) as plugin:
        with pytest.raises(TrapError, match=trap) as caught:
            plugin.call(name)
        assert caught.value.trap == trap
        assert number(plugin.call("list")) == 42


def test_atomics_on_unshared_memory() -> None:
    """Atomic instructions work on a memory that is not shared."""
    with Plugin(COUNTS, limits=ATOMICS) as plugin:
        assert [number(plugin.call(name)) for name in ("count", "swap", "swap", "notify")] == [
            42,
            0,
            5,
            0,
        ]
        with pytest.raises(TrapError, match="atomic wait on a memory that is not shared"):
            plugin.call("wait")
        with pytest.raises(TrapError, match="misaligned"):
            plugin.call("askew")


@pytest.mark.parametrize(
    "text",
    [
        '(module (memory 1 2 shared) (func (export "f")))',
        '(module (memory 1) (memory $m i64 1 2 shared) (func (export "f")))',
        '(module (memory (export "m") 1 2 shared) (data (i32.const 0) "x") (func (export "f") (atomic.fence)))',
    ],
)
def test_shared_memory_is_refused(text: str) -> None:
    """A shared memory is refused at load."""
    for limits in (None, ATOMICS, Limits(atomics=True, compile_seconds=None)):
        with pytest.raises(ModuleError, match="shared"):
            CompiledPlugin(text, limits=limits)


def test_shared_memory_import_is_refused() -> None:
    """A shared memory cannot be imported."""
    lib = '(module (memory (export "m") 1 2))'
    main = '(module (import "lib" "m" (memory 1 2 shared)) (func (export "f")))'
    with (
        pytest.raises(plugwasm.LinkError),
        Plugin(manifest(("lib", lib), ("main", main)), limits=ATOMICS) as plugin,
    ):
        plugin.call("f")


# ---- memory --------------------------------------------------------------------------------------

needs_proc = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="the memory of the process is read from /proc"
)
MIB = 2**20

PEAK = """
import sys
sys.path[:0] = {path!r}
from tests.security.test_features import OBJECTS, word
import plugwasm
from plugwasm import Limits, Plugin

def peak():
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))

with Plugin(OBJECTS, limits=Limits(gc=True, memory_bytes=90 * 2**20)) as plugin:
    plugin.call("list")
    before = peak()
    try:
        plugin.call("{name}")
    except plugwasm.OutOfMemoryError as error:
        assert "Limits.memory_bytes" in str(error), error
    else:
        raise AssertionError
    assert plugin.call("list")
    print(peak() - before)
"""


@needs_proc
def test_objects_are_limited() -> None:
    """Objects count towards the memory limit."""
    found = subprocess.run(
        [sys.executable, "-c", PEAK.format(path=sys.path, name="keep")],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert found.returncode == 0, found.stderr
    assert 10 * MIB < int(found.stdout) < 45 * MIB  # the heap's share is 30


def test_objects_and_memory_limit() -> None:
    """Objects and memory together stay within the limit.

    Objects, the memory, and what is passed in and out each take a third.
    """
    limits = Limits(gc=True, memory_bytes=30 * MIB)
    with Plugin(OBJECTS, limits=limits) as plugin:
        plugin.call("large", word(9 * MIB))
        with pytest.raises(OutOfMemoryError, match="objects"):
            plugin.call("large", word(11 * MIB))
        assert plugin.call("grow", word(140)) == b""
        for name, data in (("grow", word(30)), ("quick", bytes(11 * MIB))):
            with pytest.raises(plugwasm.Error):
                plugin.call(name, data)
        plugin.call("large", word(9 * MIB))
        assert plugin.call("quick", bytes(9 * MIB)) == b""


def test_memory_without_objects() -> None:
    """A plugin without objects can use all of its memory where objects are allowed."""
    plain = guest(
        '(func (export "grow") (result i32) (i32.eq (i32.const -1) (memory.grow (i32.wrap_i64 (call $input_load_u64 (i64.const 0))))))',
        memory='(memory (export "memory") 1)',
    )
    with Plugin(plain, limits=Limits(gc=True, memory_bytes=100 * PAGE)) as plugin:
        assert plugin.call("grow", word(97)) == b""
    # A type with 94 parameters has the byte of an array in it.
    wide = f'(module (type (func (param {"i32 " * 94}))) (memory (export "memory") 1) (func (export "grow") (result i32) '
    wide += "(i32.eq (i32.const -1) (memory.grow (i32.const 97)))))"
    with Plugin(wide, limits=Limits(memory_bytes=100 * PAGE)) as plugin:
        assert plugin.call("grow") == b""


def test_objects_are_collected() -> None:
    """Unreachable objects are collected, and a deadline ends the guest's loop."""
    with Plugin(OBJECTS, limits=Limits(gc=True, memory_bytes=30 * MIB, timeout=0.5)) as plugin:
        with pytest.raises(plugwasm.TimeoutError):
            plugin.call("garbage")
        assert plugin.call("quick") == b""


def test_objects_end_with_instance() -> None:
    """The objects of an instance are freed with it."""
    compiled = CompiledPlugin(OBJECTS, limits=Limits(gc=True, memory_bytes=30 * MIB))
    for _ in range(12):
        with Plugin(compiled) as plugin:
            plugin.call("large", word(9 * MIB))
            assert number(plugin.call("list")) == 42


# ---- every way in --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "limits", "name"), [(OBJECTS, GC, "list"), (COUNTS, ATOMICS, "count")]
)
def test_every_kind_of_plugin(source: str, limits: Limits, name: str, tmp_path: Path) -> None:
    """Every kind of plugin can use the features."""
    with IsolatedPlugin(source, limits=limits) as isolated:
        assert number(isolated.call(name)) == 42
    with PluginPool(source, limits=limits, size=2) as pool:
        assert number(pool.call(name)) == 42
    with Harness(source, limits=limits) as harness:
        assert number(harness.plugin().call(name)) == 42
    (tmp_path / "p.wasm").write_bytes(wat_to_wasm(source.encode()))
    with PluginSet({"p": tmp_path / "p.wasm"}, limits=limits) as plugins:
        assert number(plugins.call("p", name)) == 42
    ref = pickle.loads(pickle.dumps(PluginRef(str(tmp_path / "p.wasm"), limits=limits)))
    with ref.plugin() as plugin:
        assert number(plugin.call(name)) == 42
    compiled = CompiledPlugin(source, limits=limits)
    for _ in range(8):  # from the pool, where there can be one
        with Plugin(compiled) as plugin:
            assert number(plugin.call(name)) == 42


@pytest.mark.parametrize(
    ("source", "flag", "name"), [(OBJECTS, "--gc", "list"), (COUNTS, "--atomics", "count")]
)
def test_cli_option(source: str, flag: str, name: str, tmp_path: Path) -> None:
    """An option of the command line allows the features."""
    path = tmp_path / "p.wasm"
    path.write_bytes(wat_to_wasm(source.encode()))
    command = [sys.executable, "-m", "plugwasm", "call", str(path), name, "--input", ""]
    refused = subprocess.run(command, capture_output=True, timeout=60)
    assert refused.returncode != 0
    assert b"an application can allow" in refused.stderr.replace(b"\n", b" ")
    allowed = subprocess.run([*command, flag, "--timeout", "90"], capture_output=True, timeout=60)
    assert number(allowed.stdout[:8]) == 42
    shown = subprocess.run(
        [sys.executable, "-m", "plugwasm", "inspect", str(path), "--json"],
        capture_output=True,
        timeout=60,
    )
    assert shown.returncode == 0, shown.stderr


def test_recording_cannot_allow_features() -> None:
    """A recording states which features were allowed but cannot allow them."""
    from plugwasm.recording import Recorder

    recorder = Recorder()
    with Plugin(OBJECTS, limits=GC, observe=recorder) as plugin:
        plugin.call("list")
    with pytest.raises(plugwasm.RecordingError, match="gc=True"):
        recorder.recording.replay(OBJECTS)
    assert number(recorder.recording.replay(OBJECTS, limits=GC).calls[0].output) == 42


@pytest.mark.parametrize("value", [1, 0, None, "yes"])
def test_a_flag_is_true_or_false(value: Any) -> None:
    with pytest.raises(OptionError, match=r"Limits\.gc: expected True or False"):
        Limits(gc=value)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_forked_child_has_same_features() -> None:
    code = f"""
import os, sys
sys.path[:0] = {sys.path!r}
from tests.security.test_features import *
old = CompiledPlugin(OBJECTS, limits=GC)
Plugin(old).call("list")
pid = os.fork()
if not pid:
    assert number(Plugin(old).call("list")) == 42
    assert number(Plugin(COUNTS, limits=ATOMICS).call("count")) == 42
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=120)


def test_object_types_at_host_border() -> None:
    """Object types in imports and exports are shown and are harmless."""
    text = """(module (type $s (struct (field i32))) (type $a (array (mut i8)))
      (func (export "a") (param (ref null $s)) (result (ref null $a)) unreachable)
      (func (export "b") (param anyref eqref i31ref structref arrayref nullref (ref i31) externref))
      (global (export "g") (ref $s) (struct.new $s (i32.const 1)))
      (table (export "t") 3 (ref null $s)) (tag (export "e") (param (ref null $s))) (func (export "f")))"""
    compiled = CompiledPlugin(text, limits=GC)
    assert [str(item).split()[0] for item in compiled.exports] == [
        "function",
        "function",
        "global",
        "table",
        "tag",
        "function",
    ]
    with Plugin(compiled) as plugin:
        assert plugin.call("f") == b""
        with pytest.raises(plugwasm.SignatureError):
            plugin.call("b")


def test_no_engine_made_without_features() -> None:
    """Without the features, no additional engine is created."""
    assert CompiledPlugin("(module)")._plan.engine is modules.get_engine(pooled=False)
    assert CompiledPlugin("(module)", limits=Limits(timeout=1))._plan.engine is modules.get_engine(
        pooled=False
    )
