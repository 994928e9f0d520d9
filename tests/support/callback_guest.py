"""A guest that calls a host function from every place that tests of a plugin's life cycle need."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from plugwasm import (
    CompiledPlugin,
    CurrentPlugin,
    Function,
    Plugin,
    Val,
    ValType,
)
from tests.support.guests import LOOP, export, guest, manifest

GUEST = guest(
    "(global $n (mut i64) (i64.const 0)) (global $inside (mut i32) (i32.const 0))"
    + export(
        "count",
        "(global.set $n (i64.add (global.get $n) (i64.const 1))) (call $answer (global.get $n))",
    )
    + export("echo", "(call $echo)")
    + export("spin", LOOP)
    + export("trap", "unreachable")
    + export("back", "(call $give (call $back (call $input_offset)))")
    + export(
        "back_twice",
        "(drop (call $back (call $input_offset))) (call $give (call $back (call $input_offset)))",
    )
    + export("back_then_trap", "(drop (call $back (call $input_offset))) unreachable")
    + export(
        "alone",
        """(if (global.get $inside) (then unreachable))
        (global.set $inside (i32.const 1)) (drop (call $back (i64.const 0))) (global.set $inside (i32.const 0)) (call $echo)""",
    )
    + export("log", "(call $log_error <<a line>>) (call $echo)")
    + export(
        "sleep",
        """(i32.store (i32.const 16) (i32.const 1)) (i64.store (i32.const 24) (i64.const 4000000000))
        (drop (call $poll (i32.const 0) (i32.const 100) (i32.const 1) (i32.const 200)))""",
    ),
    '(import "extism:host/user" "back" (func $back (param i64) (result i64)))',
    '(import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))',
    memory='(memory (export "memory") 1)',
)

Body = Callable[[CurrentPlugin, Val, Val], Any]


def do_nothing(current: CurrentPlugin, value: Val, result: Val) -> None:
    pass


def compile_guest(body: Body = do_nothing, **fields: Any) -> CompiledPlugin:
    def back(current: CurrentPlugin, params: list[Val], results: list[Val]) -> None:
        body(current, params[0], results[0])

    return CompiledPlugin(
        manifest(GUEST, **fields),
        wasi=True,
        functions=[Function(None, "back", [ValType.I64], [ValType.I64], back)],
    )


def make_plugin(body: Body = do_nothing, **fields: Any) -> Plugin:
    return Plugin(compile_guest(body, **fields))
