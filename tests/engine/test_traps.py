"""The engine layer by itself: traps and their backtraces."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from plugwasm._engine import (
    OUT_OF_FUEL,
    STACK_OVERFLOW,
    Trap,
)
from plugwasm._engine.traps import MAX_NAME, TRAP_NAMES
from tests.support.engine import ENGINE, FUEL_ENGINE, World

TRAPPING = {
    "unreachable": "unreachable",
    "integer division by zero": "(drop (i32.div_s (i32.const 1) (local.get $zero)))",
    "integer overflow": "(drop (i32.div_s (i32.const 0x80000000) (i32.const -1)))",
    "invalid conversion to integer": "(drop (i32.trunc_f32_s (f32.const nan)))",
    "out of bounds memory access": "(drop (i32.load (i32.const -1)))",
    "out of bounds table access": "(drop (table.get 0 (i32.const 99)))",
    "call of an empty table entry": "(call_indirect (type $t) (i32.const 1))",
    "indirect call with a wrong type": "(call_indirect (type $t) (i32.const 0))",
    "stack overflow": "(call $bad)",
    "out of fuel": "(loop $l (br $l))",
}


@pytest.mark.parametrize("kind", TRAPPING)
def test_trap_names_and_frames(kind: str) -> None:
    """Each kind of trap has its name and its frames."""
    world = World(
        f"""(module $guest (type $t (func)) (table 2 funcref) (elem (i32.const 0) $other) (memory 1)
          (func $other (param i32))
          (func $bad (local $zero i32) {TRAPPING[kind]})
          (func $outer (export "f") (call $bad)))""",
        engine=FUEL_ENGINE if kind == "out of fuel" else ENGINE,
    )
    with pytest.raises(Trap) as caught:
        world.call("f")
    assert caught.value.message == kind
    assert kind in TRAP_NAMES
    assert caught.value.frames[0].startswith("guest!bad")
    if kind != "stack overflow":
        assert len(caught.value.frames) == 2
        assert caught.value.frames[1].startswith("guest!outer @ 0x")
    assert not any("0xffffffff" in frame for frame in caught.value.frames)


def test_special_trap_names() -> None:
    """The special traps have the names in the table."""
    assert (OUT_OF_FUEL, STACK_OVERFLOW) == ("out of fuel", "stack overflow")


def test_instance_usable_after_trap() -> None:
    """An instance is usable after a trap."""
    world = World(
        '(module (func (export "bad") unreachable) (func (export "good") (result i32) (i32.const 3)))'
    )
    for _ in range(3):
        with pytest.raises(Trap):
            world.call("bad")
        assert world.call("good") == 3


def test_trap_in_start_function() -> None:
    """A start function that traps is a trap."""
    with pytest.raises(Trap, match="unreachable") as caught:
        World("(module (func $boot unreachable) (start $boot))")
    assert caught.value.frames[0].startswith("boot @ ")


def trace_of(*names: str, module: str = "$m") -> tuple[str, ...]:
    """Return the trace of functions with these names, the last of which traps."""
    functions = "".join(
        f'(func $f{i} (@name "{name}") (call $f{i + 1}))' for i, name in enumerate(names[:-1])
    )
    last = f'(func $f{len(names) - 1} (@name "{names[-1]}") unreachable)'
    world = World(f'(module {module} (export "f" (func $f0)) {functions} {last})')
    with pytest.raises(Trap) as caught:
        world.call("f")
    return tuple(frame.split(" @ ")[0] for frame in caught.value.frames)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("_ZN4core9panicking5panic17h0123456789abcdefE", "core::panicking::panic"),
        ("_ZN3foo3barEi", "foo::bar(int)"),
        ("_ZN3foo3bar17h0123456789abcdefE", "foo::bar"),
        ("_RNvCs1234_7mycrate3foo", "mycrate[3c1c0]::foo"),
        ("_ZN", "_ZN"),
        ("_R", "_R"),
        ("_Zjunk", "_Zjunk"),
        ("main.main", "main.main"),
        ("~lib/array/Array<i32>#push", "~lib/array/Array<i32>#push"),
    ],
)
def test_rust_and_cpp_names(name: str, shown: str) -> None:
    """Rust and C++ names are demangled."""
    assert trace_of("outer", name, "inner") == ("m!inner", f"m!{shown}", "m!outer")


def test_kernel_frames_are_left_out() -> None:
    """Frames of the kernel are left out, but not those of a guest with the same function names."""
    assert trace_of("a", "b", module="$kernel") == ("kernel!b", "kernel!a")


def test_guest_names_are_short_and_on_one_line() -> None:
    """Names chosen by a guest are short and on one line."""
    (frame,) = trace_of(r"evil\0a  0: \1b[31mred\c2\85")
    assert frame.isprintable()
    assert "red" in frame
    (long,) = trace_of("x" * 50_000, module='$m (@name "' + "y" * 50_000 + '")')
    assert len(long) < 2 * MAX_NAME + 10


def test_deep_stack_gives_short_trace() -> None:
    """The trace of a deep stack is short and quick to make."""
    world = World(
        f'(module (func $f (export "f") (@name "{"n" * 10_000}") (call $f)))'.replace(
            '$f (export "f") (@name', "$f (@name", 1
        )[:-1]
        + ' (export "f" (func $f)))'
    )
    began = time.perf_counter()
    with pytest.raises(Trap, match="stack overflow") as caught:
        world.call("f")
    assert time.perf_counter() - began < 2
    assert 1 < len(caught.value.frames) < 200


def test_deep_recursion_on_small_stack() -> None:
    """Deep recursion on a thread with a small stack is an error too."""
    caught: list[Any] = []

    def work() -> None:
        try:
            World('(module (func $f (export "f") (call $f)))').call("f")
        except Trap as trap:
            caught.append(trap.message)

    before = threading.stack_size(1024 * 1024)
    try:
        thread = threading.Thread(target=work)
        thread.start()
    finally:
        threading.stack_size(before)
    thread.join()
    assert caught == ["stack overflow"]
