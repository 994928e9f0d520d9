"""Main modules that import functions of other modules, and the results of calling them."""

from __future__ import annotations

import struct
from typing import Any

from plugwasm import (
    Plugin,
)
from tests.support.guests import export, guest, number


def asking_module(module: str, name: str, *more: str) -> str:
    """Return a main module whose export `ask` outputs the result of the import."""
    return guest(
        export("ask", "(call $answer (call $imported))"),
        f'(import "{module}" "{name}" (func $imported (result i64)))',
        *more,
    )


def call_ask(wasm: Any, **options: Any) -> int:
    with Plugin(wasm, **options) as plugin:
        return number(plugin.call("ask"))


ALL_VALUES = struct.pack("<iqfd", -5, -(2**62), -1.5, 1e300)
ALL_TYPES = guest(
    export(
        "pass",
        """(call $reverse
             (i32.wrap_i64 (i64.shr_s (i64.shl (call $input_load_u64 (i64.const 0)) (i64.const 32)) (i64.const 32)))
             (call $input_load_u64 (i64.const 4))
             (f32.reinterpret_i32 (i32.wrap_i64 (call $input_load_u64 (i64.const 12))))
             (f64.reinterpret_i64 (call $input_load_u64 (i64.const 16))))
           (local.set $i) (local.set $l) (local.set $f) (local.set $d)
           (local.set $out (call $alloc (i64.const 32)))
           (call $store_u64 (local.get $out) (i64.extend_i32_u (local.get $i)))
           (call $store_u64 (i64.add (local.get $out) (i64.const 4)) (local.get $l))
           (call $store_u64 (i64.add (local.get $out) (i64.const 12)) (i64.extend_i32_u (i32.reinterpret_f32 (local.get $f))))
           (call $store_u64 (i64.add (local.get $out) (i64.const 16)) (i64.reinterpret_f64 (local.get $d)))
           (call $output_set (local.get $out) (i64.const 24))""",
        "(local $i i32) (local $l i64) (local $f f32) (local $d f64) (local $out i64)",
    )
    + '(func (export "again") (param i32 i64 f32 f64) (result f64 f32 i64 i32) (local.get 3) (local.get 2) (local.get 1) (local.get 0))',
    '(import "OTHER" "f" (func $reverse (param i32 i64 f32 f64) (result f64 f32 i64 i32)))',
)
