"""Guests that the tests of pools share."""

from __future__ import annotations

from plugwasm import (
    CompiledPlugin,
)
from tests.support.guests import LOOP, export, guest

# `count` answers how often this instance was asked; `judge` fails for an input that begins with
# "x".
BODY = (
    '(global $count (mut i64) (i64.const 0)) (func (export "count")'
    " (global.set $count (i64.add (global.get $count) (i64.const 1))) (call $answer (global.get $count)))"
    + export("echo", "(call $echo)")
    + export("spin", LOOP)
    + export("trap", "(unreachable)")
    + export(
        "judge",
        "(if (i32.eq (call $input_load_u8 (i64.const 0)) (i32.const 120)) (then (call $error_set <<no x>>))) (call $echo)",
    )
)
COUNT = CompiledPlugin(guest(BODY), functions=[], name="counter")
