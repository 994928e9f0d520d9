"""The modules that are measured, the same bytes for both sides.

Most are examples of this repository. A large one is generated, since only its size matters:
thousands of different functions, like the standard library of a language with a runtime.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from random import Random

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"

_ECHO = """
  (import "extism:host/env" "input_length" (func $input_length (result i64)))
  (import "extism:host/env" "input_load_u8" (func $input_load_u8 (param i64) (result i32)))
  (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
  (import "extism:host/env" "store_u8" (func $store_u8 (param i64 i32)))
  (import "extism:host/env" "output_set" (func $output_set (param i64 i64)))
  (memory 1)
  (func (export "echo") (result i32) (local $i i64) (local $out i64)
    (local.set $out (call $alloc (call $input_length)))
    (loop $next
      (call $store_u8
        (i64.add (local.get $out) (local.get $i)) (call $input_load_u8 (local.get $i)))
      (br_if $next (i64.lt_u
        (local.tee $i (i64.add (local.get $i) (i64.const 1))) (call $input_length))))
    (call $output_set (local.get $out) (call $input_length))
    (i32.const 0))"""


def example(name: str) -> bytes:
    """Return the module of an example."""
    return (EXAMPLES / f"{name}.wasm").read_bytes()


@cache
def large(functions: int) -> bytes:
    """Return a module that exports `echo` and has many other functions, of some 430 bytes each."""
    from wasmtime import wat2wasm

    random = Random(1)
    return bytes(
        wat2wasm(
            f"(module {_ECHO}\n{''.join(_function(random, index) for index in range(functions))})"
        )
    )


@cache
def quiet_logs() -> bytes:
    """Return a module whose `log_four` writes a line of 16 bytes at each of four levels."""
    from wasmtime import wat2wasm

    levels = ("debug", "info", "warn", "error")
    imports = "".join(
        f'(import "extism:host/env" "log_{level}" (func $log_{level} (param i64)))'
        for level in levels
    )
    calls = "".join(f"(call $log_{level} (call $line))" for level in levels)
    return bytes(
        wat2wasm(
            f"""(module {imports}
  (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
  (import "extism:host/env" "store_u64" (func $store (param i64 i64)))
  (func $line (result i64) (local $at i64)
    (local.set $at (call $alloc (i64.const 16)))
    (call $store (local.get $at) (i64.const 0x6162636465666768))
    (call $store (i64.add (local.get $at) (i64.const 8)) (i64.const 0x6162636465666768))
    (local.get $at))
  (func (export "log_four") (result i32) {calls} (i32.const 0)))"""
        )
    )


def _function(random: Random, index: int) -> str:
    steps = []
    for _ in range(9):
        a, b, at = random.getrandbits(63), random.getrandbits(31), random.randrange(0, 65528, 8)
        steps.append(
            f"(local.set $x (i64.mul (i64.xor (local.get $x) (i64.const {a})) (i64.const {b | 1})))"
            f"(if (i64.gt_s (local.get $x) (i64.load (i32.const {at})))"
            f" (then (i64.store (i32.const {at}) (local.get $x))))"
        )
    call = f"(local.set $x (call $f{random.randrange(index)} (local.get $x)))" if index else ""
    return f"(func $f{index} (param $x i64) (result i64) {''.join(steps)}{call}(local.get $x))\n"


def env_calls() -> bytes:
    """Return a module that calls one function of `extism:host/env` a thousand times, each time with
    a new block for the key (or the message), and for the value of `var_set`.
    """
    from wasmtime import wat2wasm

    bodies = {
        "config_get": "(call $free (call $config_get (call $key)))",
        "var_get": "(call $free (call $var_get (call $key)))",
        "var_set": "(call $var_set (call $key) (call $key))",
        "log_debug": "(call $log_debug (call $key))",
    }
    functions = "".join(
        f"""(func (export "{name}") (local $i i32)
          (call $var_set (call $key) (call $key))
          (loop $next {body} (br_if $next (i32.lt_u
            (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 1000)))))"""
        for name, body in bodies.items()
    )
    return bytes(
        wat2wasm(f"""(module
          (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
          (import "extism:host/env" "free" (func $free (param i64)))
          (import "extism:host/env" "store_u64" (func $store (param i64 i64)))
          (import "extism:host/env" "config_get" (func $config_get (param i64) (result i64)))
          (import "extism:host/env" "var_get" (func $var_get (param i64) (result i64)))
          (import "extism:host/env" "var_set" (func $var_set (param i64 i64)))
          (import "extism:host/env" "log_debug" (func $log_debug (param i64)))
          (memory (export "memory") 1)
          (func $key (result i64) (local $key i64)
            (local.set $key (call $alloc (i64.const 8)))
            (call $store (local.get $key) (i64.const 0x{b"greeting"[::-1].hex()}))
            (local.get $key))
          {functions})""")
    )


def variant(wasm: bytes, number: int) -> bytes:
    """Return the same module with another digest, as no host has seen it before: a custom section
    holds a number."""
    content = b"\x07variant" + number.to_bytes(8, "little")
    return wasm + bytes([0, len(content)]) + content
