"""A guest whose exports fail in every way that a call can fail."""

from __future__ import annotations

from tests.support.guests import LOOP, export, guest

FAULTY = guest(
    export("good", "(call $echo)")
    + export("message", "(call $error_set <<it went wrong: äöü>>)")
    + '(func (export "message_and_zero") (result i32) (call $error_set <<said>>) (i32.const 0))'
    + '(func (export "message_and_seven") (result i32) (call $error_set <<said>>) (i32.const 7))'
    + '(func (export "seven") (result i32) (i32.const 7))'
    + '(func (export "minus_one") (result i32) (i32.const -1))'
    + '(func (export "least") (result i32) (i32.const 0x80000000))'
    + '(func (export "good_code") (result i32) (call $echo) (i32.const 0))'
    + export("trap", "unreachable")
    + export("message_and_trap", "(call $error_set <<said before the trap>>) unreachable")
    + export("message_and_loop", "(call $error_set <<said before the loop>>) " + LOOP)
    + export("divide", "(drop (i32.div_s (i32.const 1) (i32.const 0)))")
    + export("overflow", "(drop (i32.div_s (i32.const 0x80000000) (i32.const -1)))")
    + export("convert", "(drop (i32.trunc_f32_s (f32.const nan)))")
    + export("beyond", "(drop (i32.load (i32.const 65536)))")
    + export("beyond_table", "(call_indirect (i32.const 9))")
    + export("empty_entry", "(call_indirect (i32.const 0))")
    + export("wrong_type", "(call_indirect (param i32) (i32.const 1) (i32.const 1))")
    + "(table 2 funcref) (elem (i32.const 1) $outer) (func $inner unreachable) (func $outer (call $inner))"
    + export("deep", "(call $outer)")
    + "(func $endless (call $endless) (call $endless))"
    + export("recursion", "(call $endless)")
    + export("output_of_nothing", "(call $output_set (i64.const 12345) (i64.const 1))")
    + export("output_too_long", "(call $output_set (call $alloc (i64.const 8)) (i64.const 9))")
    + export("output_of_all", "(call $output_set (i64.const 0) (i64.const 0x7fffffffffffffff))")
    + export("output_around", "(call $output_set (call $alloc (i64.const 8)) (i64.const -1))")
    + export("error_of_nothing", "(call $error_set (i64.const 12345))")
    + export("input_of_nothing", "(call $input_set (i64.const 12345) (i64.const 4))")
    + export(
        "error_taken_back",
        "(call $error_set <<said>>) (call $error_set (i64.const 0)) (call $echo)",
    )
    + export("error_said_twice", "(call $error_set <<first>>) (call $error_set <<second>>)")
    + export(
        "error_not_text",
        "(local $b i64) (local.set $b <<abc>>) (call $store_u8 (local.get $b) (i32.const 255)) (call $error_set (local.get $b))",
        "",
    ).replace('(func (export "error_not_text")  (local', '(func (export "error_not_text") (local')
    + "(global $n (mut i64) (i64.const 0))"
    + export(
        "count",
        "(global.set $n (i64.add (global.get $n) (i64.const 1))) (call $answer (global.get $n))",
    ),
)
