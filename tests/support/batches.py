"""Record batches, and a guest that adds columns to them."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from tests.support.guests import export, guest

ROWS = guest(
    export("echo", "(call $echo)")
    + export("length", "(call $answer (call $input_length))")
    + export("nothing", "")
    # Fails as the first byte of the input says.
    + export(
        "picky",
        """(local $first i32)
        (local.set $first (call $input_load_u8 (i64.const 0)))
        (if (i32.eq (local.get $first) (i32.const 33)) (then unreachable))                          ;; !
        (if (i32.eq (local.get $first) (i32.const 63)) (then (call $error_set <<what is this?>>)))  ;; ?
        (if (i32.eq (local.get $first) (i32.const 43)) (then (loop $forever (br $forever))))        ;; +
        (call $echo)""",
        "",
    ).replace('(func (export "picky")  (local', '(func (export "picky") (local')
    # How many calls this instance has had, as a digit.
    + "(global $calls (mut i32) (i32.const 48))"
    + export("calls", "(global.set $calls (i32.add (global.get $calls) (i32.const 1))) (local.set 0 (call $alloc (i64.const 1))) "
             "(call $store_u8 (local.get 0) (global.get $calls)) (call $give (local.get 0))", "(local i64)")
)  # fmt: skip


def batch(**columns: Any) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict(columns)


NUMBERS = pa.schema([("n", pa.int64())])
