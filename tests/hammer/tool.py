"""A plugin with every kind of export, and a record of what was done to it, which must explain
every outcome."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import plugwasm
from plugwasm import CompiledPlugin, Function, Plugin, ValType, host_fn
from tests.support.guests import LOOP, export, guest

MODULE = guest(
    export("echo", "(call $echo)")
    + export("complain", "(call $error_set (call $input_offset))")
    + '(func (export "code") (result i32) (call $input_load_u8 (i64.const 0)))'
    + export("trap", "unreachable")
    + export("recurse", "(call $deep)")
    + "(func $deep (call $deep) (call $deep))"
    + export("spin", LOOP)
    + export("exit", "(call $exit (call $input_load_u8 (i64.const 0)))")
    + export(
        "sleep",
        """(i32.store (i32.const 16) (i32.const 1)) (i64.store (i32.const 24) (i64.const 4000000000))
        (drop (call $poll (i32.const 0) (i32.const 100) (i32.const 1) (i32.const 200)))""",
    )
    + export("ask", "(call $give (call $ask (call $input_offset)))")
    + export(
        "ask_twice",
        "(drop (call $ask (call $input_offset))) (call $give (call $ask (call $input_offset)))",
    )
    + export("shout", "(call $give (call $shout (call $input_offset)))")
    + "(global $n (mut i64) (i64.const 0))"
    + export(
        "count",
        "(global.set $n (i64.add (global.get $n) (i64.const 1))) (call $answer (global.get $n))",
    )
    + export("remember", "(call $var_set <<k>> (call $copy)) (call $give (call $var_get <<k>>))")
    + export("config", "(call $give (call $config_get <<k>>))")
    + export("grow", "(drop (memory.grow (i32.const 1))) (call $echo)")
    + export("command", "(call $answer (call $plus_one (call $input_length)))")
    + export("log", "(call $log_info <<a line>>) (call $echo)")
    + export(
        "sum",
        """(loop $rounds (local.set $i (i64.const 0)) (local.set $sum (i64.const 0))
          (loop $next (local.set $sum (i64.add (local.get $sum) (i64.extend_i32_u (call $input_load_u8 (local.get $i)))))
            (br_if $next (i64.lt_u (local.tee $i (i64.add (local.get $i) (i64.const 1))) (call $input_length))))
          (br_if $rounds (i64.lt_u (local.tee $round (i64.add (local.get $round) (i64.const 1))) (i64.const 300))))
        (call $answer (local.get $sum))""",
        "(local $i i64) (local $sum i64) (local $round i64)",
    ),
    '(import "extism:host/user" "ask" (func $ask (param i64) (result i64)))',
    '(import "extism:host/user" "shout" (func $shout (param i64) (result i64)))',
    '(import "lib" "plus_one" (func $plus_one (param i64) (result i64)))',
    '(import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))',
    '(import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))',
    memory='(memory (export "memory") 1)',
)
COMMAND = """(module (memory (export "memory") 1) (func (export "_start"))
    (func (export "plus_one") (param i64) (result i64) (i64.add (local.get 0) (i64.const 1))))"""


class Unexplained(AssertionError):
    """An outcome for which there was no reason."""


class Alarm(BaseException):
    """The exception that a signal handler raises."""


class Errand:
    """The task of the host function `ask` in one call, which passes it as its host context."""

    def __init__(self, do: Callable[[plugwasm.CurrentPlugin, bytes], bytes]) -> None:
        self.do = do


def ask(current: plugwasm.CurrentPlugin, params: list[Any], results: list[Any]) -> None:
    current.return_bytes(
        results[0], current.host_context().do(current, current.input_bytes(params[0]))
    )


@host_fn()
def shout(text: str) -> str:
    return text.upper()


FUNCTIONS = [Function(None, "ask", [ValType.I64], [ValType.I64], ask), shout]


def compiled(timeout_ms: int | None = None, **options: Any) -> CompiledPlugin:
    modules = [{"name": "lib", "data": COMMAND.encode()}, {"name": "main", "data": MODULE.encode()}]
    manifest = {
        "wasm": modules,
        "memory": {"max_pages": 60},
        "config": {"k": "v"},
        "timeout_ms": timeout_ms,
    }
    return CompiledPlugin(manifest, wasi=True, functions=FUNCTIONS, **options)


class Tool:
    """A plugin and a record of what was done to it, which explains its outcomes."""

    def __init__(
        self,
        compiled: CompiledPlugin,
        timeout_ms: int | None = None,
        *,
        shared: bool = False,
        fuel: bool = False,
    ) -> None:
        self.plugin = Plugin(compiled)
        self.handle = self.plugin.cancel_handle()
        self.timeout = None if timeout_ms is None else timeout_ms / 1000
        self.shared = shared
        self.fuel = fuel
        self.closed = False
        self.cancels_begun = self.cancels_ended = 0
        self.count: int | None = 0
        """What the guest's counter says; None when somebody else may have called or reset it."""
        self.late = 0.0
        """By how much the last timeout came after the deadline, in seconds."""
        self.lock = threading.Lock()

    def cancel(self) -> None:
        with self.lock:
            self.cancels_begun += 1
        self.handle.cancel()
        with self.lock:
            self.cancels_ended += 1

    def close(self) -> None:
        self.closed = True
        self.plugin.close()

    def use(
        self, function: str, data: bytes, wanted: Any, errand: Errand | None, **options: Any
    ) -> tuple[Any, plugwasm.Error | None]:
        """Make a call and return its output or its error. `wanted` is the right output, or tells
        whether an error is the right one."""
        unsettled = self.cancels_begun != self.cancels_ended
        cancels = self.cancels_begun
        began = time.monotonic()
        try:
            output = self.plugin.call(function, data, host_context=errand, **options)
        except plugwasm.Error as error:
            took = time.monotonic() - began
            cancelled = self.closed or unsettled or self.cancels_begun != cancels
            if not self._explains(error, cancelled, took) and not (
                callable(wanted) and wanted(error)
            ):
                raise Unexplained(
                    f"{function} of {len(data)} bytes: {error!r}, caused by {error.__cause__!r}"
                ) from error
            kept = (
                plugwasm.BusyError,
                plugwasm.ClosedError,
                plugwasm.GuestError,
                plugwasm.FunctionNotFoundError,
            )
            if self.count is not None and not isinstance(error, kept):
                self.count = 0
            return None, error
        if callable(wanted) or output != wanted:
            raise Unexplained(
                f"{function} of {len(data)} bytes gave {bytes(output[:40])!r}…, not {wanted!r:.60}"
            )
        return output, None

    def _explains(self, error: plugwasm.Error, cancelled: bool, took: float) -> bool:
        """Return whether the plugin, or what was done to it, explains the error."""
        if isinstance(error, plugwasm.TimeoutError):
            self.late = took - (self.timeout or 0)
            return self.timeout is not None and self.late >= 0
        return (
            (isinstance(error, plugwasm.CancelledError) and cancelled)
            or (isinstance(error, plugwasm.BusyError) and self.shared)
            or (isinstance(error, plugwasm.ClosedError) and self.closed)
            or (isinstance(error, plugwasm.OutOfFuelError) and self.fuel)
        )
