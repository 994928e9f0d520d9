"""Modules that import from each other."""

from __future__ import annotations

import struct
from typing import Any

import pytest

import plugwasm
from plugwasm import (
    Function,
    GuestError,
    LinkError,
    Plugin,
    TrapError,
)
from tests.support.guests import LOOP, export, guest, manifest, number
from tests.support.linked_modules import ALL_TYPES, ALL_VALUES, asking_module, call_ask


def test_two_modules() -> None:
    """Two modules that import each other are linked."""
    even = """(module (import "odd" "is_odd" (func $odd (param i64) (result i64)))
        (func (export "is_even") (param i64) (result i64)
          (if (result i64) (i64.eqz (local.get 0)) (then (i64.const 1)) (else (call $odd (i64.sub (local.get 0) (i64.const 1)))))))"""
    odd = """(module (import "even" "is_even" (func $even (param i64) (result i64)))
        (func (export "is_odd") (param i64) (result i64)
          (if (result i64) (i64.eqz (local.get 0)) (then (i64.const 0)) (else (call $even (i64.sub (local.get 0) (i64.const 1)))))))"""
    main = guest(
        export("ask", "(call $answer (call $even (call $input_load_u64 (i64.const 0))))"),
        '(import "even" "is_even" (func $even (param i64) (result i64)))',
    )
    for modules in ([("even", even), ("odd", odd)], [("odd", odd), ("even", even)]):
        with Plugin(manifest(*modules, ("main", main))) as plugin:
            assert [number(plugin.call("ask", i.to_bytes(8, "little"))) for i in range(12)] == [
                1,
                0,
            ] * 6


def test_a_circle_of_three_is_linked() -> None:
    def part(this: str, next: str) -> tuple[str, str]:
        return (
            this,
            f"""(module (import "{next}" "f" (func $f (param i64) (result i64)))
            (func (export "f") (param i64) (result i64)
              (if (result i64) (i64.eqz (local.get 0)) (then (i64.const {ord(this)}))
                (else (call $f (i64.sub (local.get 0) (i64.const 1)))))))""",
        )

    main = guest(
        export("ask", "(call $answer (call $f (call $input_load_u64 (i64.const 0))))"),
        '(import "a" "f" (func $f (param i64) (result i64)))',
    )
    with Plugin(manifest(part("a", "b"), part("b", "c"), part("c", "a"), ("main", main))) as plugin:
        answers = [chr(number(plugin.call("ask", i.to_bytes(8, "little")))) for i in range(10)]
    assert "".join(answers) == "abcabcabca"


def test_main_module_in_cycle() -> None:
    """The main module can be part of a cycle."""
    lib = """(module (import "main" "helper" (func $helper (result i64)))
        (func (export "f") (result i64) (i64.add (call $helper) (i64.const 1))))"""
    main = asking_module("lib", "f")[:-1] + '(func (export "helper") (result i64) (i64.const 41)))'
    assert call_ask(manifest(("lib", lib), ("main", main))) == 42


def test_module_imports_itself() -> None:
    """A module can import from itself."""
    main = asking_module("main", "own")[:-1] + '(func (export "own") (result i64) (i64.const 6)))'
    assert call_ask(manifest(("main", main))) == 6


def test_all_types_pass() -> None:
    """Values of all types pass through a cycle."""
    other = """(module (import "main" "again" (func $again (param i32 i64 f32 f64) (result f64 f32 i64 i32)))
        (func (export "f") (param i32 i64 f32 f64) (result f64 f32 i64 i32)
          (call $again (local.get 0) (local.get 1) (local.get 2) (local.get 3))))"""
    main = ALL_TYPES.replace("OTHER", "other")
    with Plugin(manifest(("other", other), ("main", main))) as plugin:
        for values in (
            ALL_VALUES,
            struct.pack("<iqfd", 2**31 - 1, -1, float("inf"), -0.0),
            struct.pack("<iqfd", -(2**31), 2**63 - 1, 3e-45, 5e-324),
        ):
            assert plugin.call("pass", values) == values
        for i in range(50):
            values = struct.pack("<iqfd", i, -i, i / 2, -i / 3)
            assert plugin.call("pass", values) == values


def test_trap_has_frames_of_both_sides() -> None:
    """A trap in another module of a cycle has the frames of both modules."""
    lib = '(module (import "main" "helper" (func $helper (result i64))) (func $middle (export "f") (result i64) (call $helper)))'
    main = (
        asking_module("lib", "f")[:-1]
        + '(func $inside (export "helper") (result i64) unreachable))'
    )
    with Plugin(manifest(("lib", lib), ("main", main))) as plugin:
        with pytest.raises(TrapError) as caught:
            plugin.call("ask")
        names = [frame.split(" @ ")[0] for frame in caught.value.backtrace]
        assert names[:2] == ["inside", "middle"]
        assert len(names) == 3


def test_errors_pass() -> None:
    """Errors of all kinds pass through a cycle."""
    lib = '(module (import "main" "helper" (func $helper)) (func (export "f") (call $helper)))'
    main = guest(
        export("run", "(call $f)")
        + export("good", "(call $echo)")
        + '(func (export "helper") (if (i64.eqz (call $input_length)) (then (call $error_set <<said>>) unreachable)) (call $user))',
        '(import "lib" "f" (func $f))',
        '(import "extism:host/user" "user" (func $user))',
    )

    def user(*_: Any) -> None:
        raise LookupError("from the host")

    wasm = manifest(("lib", lib), ("main", main))
    with Plugin(wasm, functions=[Function(None, "user", [], [], user)]) as plugin:
        with pytest.raises(GuestError, match=r"^said"):
            plugin.call("run")
        with pytest.raises(plugwasm.HostFunctionError) as caught:
            plugin.call("run", b"x")
        assert isinstance(caught.value.__cause__, LookupError)
        assert plugin.call("good", b"after") == b"after"


def test_deadline_and_fuel_end_loop() -> None:
    """Deadlines and fuel limits end a loop in another module of a cycle."""
    lib = '(module (import "main" "helper" (func $helper)) (func (export "f") (call $helper)))'
    main = guest(
        export("run", "(call $f)") + export("helper", LOOP), '(import "lib" "f" (func $f))'
    )
    with (
        Plugin(manifest(("lib", lib), ("main", main), timeout_ms=100)) as plugin,
        pytest.raises(plugwasm.TimeoutError),
    ):
        plugin.call("run")
    with (
        Plugin(manifest(("lib", lib), ("main", main)), fuel_limit=100_000) as plugin,
        pytest.raises(plugwasm.OutOfFuelError),
    ):
        plugin.call("run")


def test_endless_recursion_is_error() -> None:
    """Endless recursion through a cycle is one of our errors."""
    lib = '(module (import "main" "helper" (func $helper)) (func (export "f") (call $helper)))'
    main = guest(
        export("helper", "(call $f)") + export("good", "(call $echo)"),
        '(import "lib" "f" (func $f))',
    )
    with Plugin(manifest(("lib", lib), ("main", main))) as plugin:
        for _ in range(2):
            with pytest.raises(TrapError, match="recursed too deeply"):
                plugin.call("helper")
            assert plugin.call("good", b"after") == b"after"


@pytest.mark.parametrize("what", ["memory", "global", "table"])
def test_cycle_needs_functions(what: str) -> None:
    """A cycle through an import that is not a function is an error that names it."""
    types = {"memory": "(memory 1)", "global": "(global i32)", "table": "(table 1 funcref)"}
    exports = {
        "memory": '(memory (export "x") 1)',
        "global": '(global (export "x") i32 (i32.const 1))',
        "table": '(table (export "x") 1 funcref)',
    }
    a = f'(module (import "b" "x" {types[what]}) (func (export "f")))'
    b = f'(module (import "a" "f" (func)) {exports[what]})'
    main = guest("", '(import "b" "x" ' + types[what] + ")", memory="")
    # The circle is entered through b, so a wants b's item before there is a b.
    with pytest.raises(LinkError) as caught:
        Plugin(manifest(("b", b), ("a", a), ("main", main)))
    for part in ("circle", "`a`", "`b`", "→", what, "only functions"):
        assert part in str(caught.value)


def test_cycle_of_memory_and_function() -> None:
    """A cycle of a memory and a function is linked if the memory can be created first."""
    a = '(module (import "b" "x" (memory 1)) (func (export "f") (result i64) (i64.load8_u (i32.const 0))))'
    b = """(module (import "a" "f" (func $f (result i64)))
        (memory (export "x") 1) (data (i32.const 0) "\\09") (func (export "g") (result i64) (call $f)))"""
    assert call_ask(manifest(("a", a), ("b", b), ("main", asking_module("b", "g")))) == 9


def test_function_called_too_early() -> None:
    """A call of a cycle's function before its module exists is an error that says so."""
    a = '(module (import "b" "g" (func $g)) (func $s (call $g)) (start $s) (func (export "f")))'
    b = '(module (import "a" "f" (func $f)) (func (export "g") (call $f)))'
    with Plugin(
        manifest(
            ("a", a),
            ("b", b),
            ("main", guest(export("run", "(call $f)"), '(import "a" "f" (func $f))')),
        )
    ) as plugin:
        with pytest.raises(LinkError, match=r"circle.*`a`.*`b`.*started"):
            plugin.call("run")
        with pytest.raises(LinkError, match="circle"):
            plugin.call("run")
