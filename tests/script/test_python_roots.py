"""Pointers stay in memory during calls that may come to the collector (`roots`)."""

from __future__ import annotations

import pytest
import wasmtime

from plugwasm import GuestError, Plugin
from plugwasm._script.python.roots import keep_roots_in_memory
from plugwasm._script.rewriting.instructions import UnknownCodeError

MODULE = """
(module
  (type $indirect (func (result i32)))
  (import "extism:host/env" "input_load_u8" (func $input (param i64) (result i32)))
  (memory 1)
  (global $sp (mut i32) (i32.const 65536))
  (global $found (mut i32) (i32.const 0))
  (table 1 funcref)
  (elem (i32.const 0) $allocate)
  (tag $thrown (param i32))

  ;; Whether the stack has a number that only a live value can be.
  (func $collector (local $at i32)
    (local.set $at (global.get $sp))
    (block $out (loop $next
      (br_if $out (i32.ge_u (local.get $at) (i32.const 65536)))
      (if (i32.eq (i32.load (local.get $at)) (i32.const 123456789))
        (then (global.set $found (i32.const 1))))
      (local.set $at (i32.add (local.get $at) (i32.const 4)))
      (br $next))))
  (func $check)
  (func $allocate (result i32) (call $collector) (i32.const 5))
  (func $leaf (param i32) (result i32) (i32.add (local.get 0) (i32.const 1)))

  ;; The value, which no constant of the code is: the input is one byte.
  (func $value (result i32)
    (i32.sub (i32.mul (call $input (i64.const 0)) (i32.const 123456789)) (i32.const 0)))
  BODIES)
"""

LIVE = {
    "a local behind the call": """
      (local $x i32) (local.set $x (call $value)) (drop (call $allocate)) (local.get $x)""",
    "a parameter": """(call $inner (call $value))""",
    "the operand stack": "(i32.add (call $value) (i32.sub (call $allocate) (i32.const 5)))",
    "a local on the operand stack": """
      (local $x i32) (local.set $x (call $value))
      (local.get $x) (local.set $x (call $allocate)) (i32.add (i32.sub (local.get $x) (i32.const 5)))""",
    "a tee": "(local $x i32) (drop (local.tee $x (call $value))) (drop (call $allocate)) (local.get $x)",
    "64 bits": """
      (local $x i64) (local.set $x (i64.extend_i32_u (call $value)))
      (drop (call $allocate)) (i32.wrap_i64 (local.get $x))""",
    "an indirect call": """
      (local $x i32) (local.set $x (call $value))
      (drop (call_indirect (type $indirect) (i32.const 0))) (local.get $x)""",
    "a loop": """
      (local $x i32) (local $n i32) (local.set $x (call $value)) (local.set $n (i32.const 3))
      (loop $again (drop (call $allocate)) (local.set $n (i32.sub (local.get $n) (i32.const 1)))
        (br_if $again (local.get $n)))
      (local.get $x)""",
    "one branch": """
      (local $x i32) (local.set $x (call $value))
      (if (result i32) (call $allocate) (then (local.get $x)) (else (i32.const 0)))""",
    "a handler": """
      (local $x i32) (local.set $x (call $value))
      (drop (block $h (result i32)
        (try_table (catch $thrown $h) (drop (call $allocate)) (throw $thrown (i32.const 1)))
        (i32.const 0)))
      (local.get $x)""",
    "an early return": """
      (local $x i32) (local.set $x (call $value))
      (block (loop (drop (call $allocate)) (return (local.get $x)))) (i32.const 0)""",
    "a branch out of the function": """
      (local $x i32) (local.set $x (call $value)) (drop (call $allocate))
      (block $b (br 1 (local.get $x))) (i32.const 0)""",
    "a table of branches": """
      (local $x i32) (local.set $x (call $value)) (drop (call $allocate))
      (block $a (block $b (br_table $a $b (i32.const 1))) (return (local.get $x))) (i32.const 0)""",
}
DEAD = {
    "a value that is not read again": "(drop (call $value)) (call $allocate)",
    "a local that is assigned anew": """
      (local $x i32) (local.set $x (call $value)) (local.set $x (call $allocate)) (local.get $x)""",
    "a call that does not come to the collector": """
      (local $x i32) (local.set $x (call $value)) (i32.sub (call $leaf (local.get $x)) (i32.const 1))""",
}


def _run(body: str) -> tuple[int, int, int]:
    """Return whether the value was found, what the function returns, and how much stack it keeps."""
    text = MODULE.replace(
        "BODIES",
        f"""
  (func $inner (param $x i32) (result i32) (drop (call $allocate)) (local.get $x))
  (func $tested (result i32) {body})
  (func (export "found") (result i32) (drop (call $tested)) (global.get $found))
  (func (export "result") (result i32) (call $tested))
  (func (export "stack") (result i32) (local $before i32)
    (local.set $before (global.get $sp))
    (drop (call $tested))
    (i32.sub (local.get $before) (global.get $sp)))""",
    )
    rewritten = keep_roots_in_memory(bytes(wasmtime.wat2wasm(text)), "collector", "check")
    answers = []
    for export in ("found", "result", "stack"):
        with Plugin(rewritten) as plugin:
            try:
                plugin.call(export, b"\x01")
                answers.append(0)
            except GuestError as error:
                answers.append(error.code or 0)
    return answers[0], answers[1], answers[2]


@pytest.mark.parametrize("body", LIVE.values(), ids=LIVE)
def test_live_values_are_found_in_memory(body: str) -> None:
    """What is read after a call is in memory during it; the function does the same as before."""
    assert _run(body) == (1, 123456789, 0)


@pytest.mark.parametrize("body", DEAD.values(), ids=DEAD)
def test_dead_values_are_not_kept(body: str) -> None:
    """What is not read again is not kept."""
    found, _, stack = _run(body)
    assert (found, stack) == (0, 0)


def test_module_without_the_names() -> None:
    """A module without the function that searches the stack is refused."""
    with pytest.raises(UnknownCodeError, match="no function 'collector'"):
        keep_roots_in_memory(
            bytes(wasmtime.wat2wasm("(module (global (mut i32) (i32.const 0)) (func $a))")),
            "collector",
            "check",
        )
