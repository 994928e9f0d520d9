"""Record calls, and replay them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

import plugwasm
from plugwasm import CurrentPlugin, Plugin
from plugwasm.recording import Recorder, Recording, Replay, ReplayError
from tests.support.guests import LOOP, export, guest

WASI = {
    "clock_time_get": "(param i32 i64 i32) (result i32)",
    "random_get": "(param i32 i32) (result i32)",
    "fd_write": "(param i32 i32 i32 i32) (result i32)",
    "fd_renumber": "(param i32 i32) (result i32)",
    "fd_close": "(param i32) (result i32)",
    "poll_oneoff": "(param i32 i32 i32 i32) (result i32)",
    "path_open": "(param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)",
    "fd_read": "(param i32 i32 i32 i32) (result i32)",
    "proc_exit": "(param i32)",
}


def import_of(name: str, type: str, namespace: str = "extism:host/user") -> str:
    return f'(import "{namespace}" "{name}" (func ${name} {type}))'


def wasi_guest(body: str, *imports: str) -> str:
    used = [
        import_of(name, type, "wasi_snapshot_preview1")
        for name, type in WASI.items()
        if f"${name} " in body
    ]
    return guest(body, *imports, *used, memory='(memory (export "memory") 1)')


def asking_plugin(*calls: str, before: str = "") -> str:
    """Return a plugin that passes its input to `f` and outputs the block returned. Other
    allocations before that make it a different build."""
    return guest(
        export("run", before + "(call $give (call $f (call $copy)))" + "".join(calls)),
        import_of("f", "(param i64) (result i64)"),
    )


def record_calls(
    plugin: Any, *calls: tuple[str, Any], observe: Any = None, **options: Any
) -> Recording:
    """Record these calls, errors included, and return the recording after a round trip through a
    file."""
    recorder = Recorder()
    with Plugin(plugin, observe=recorder, **options) as made:
        for name, data in calls:
            try:
                made.call(name, data)
            except Exception:
                pass
    recording = recorder.recording
    content = recording.to_json()
    from plugwasm._recording.recording import loads

    again = loads(content)
    assert again.to_json() == content
    return again


def replay_error(recording: Recording, plugin: Any) -> ReplayError:
    with pytest.raises(ReplayError) as caught:
        recording.replay(plugin)
    assert isinstance(caught.value, AssertionError)
    return caught.value


def outputs(replay: Replay) -> list[bytes | str | None]:
    return [type(call.error).__name__ if call.error else call.output for call in replay.calls]


@dataclass
class Point:
    x: int
    y: int


def answer_functions() -> list[Callable[..., Any]]:
    def text(value: str) -> str:
        return value + "!"

    def octets(value: bytes) -> bytes:
        return b"\xff" + value

    def record(value: bytes) -> Point:
        return Point(1, 2)

    def nothing(value: str) -> str:
        return ""

    def large(value: bytes) -> bytes:
        return bytes(range(256)) * 3000

    def raising(value: str) -> str:
        raise KeyError(value)

    def denied(value: str) -> str:
        raise plugwasm.EgressDeniedError("not to you")

    def same(plugin: CurrentPlugin, value: int) -> int:
        return value

    def sets_an_error(plugin: CurrentPlugin, value: str) -> str:
        plugin.set_error("it is broken: " + value)
        return "x"

    def sets_vars(plugin: CurrentPlugin, value: str) -> str:
        plugin.set_var("seen", value.encode())
        plugin.set_var("first", None)
        return (plugin.var("seen") or b"").decode()

    def writes(plugin: CurrentPlugin, value: int) -> int:
        block = plugin.memory(plugin.memory_at_offset(value))
        block[1:3] = b"**"
        return value

    def busy(plugin: CurrentPlugin, value: str) -> int:
        scratch = plugin.alloc(10)
        plugin.free(scratch)
        made = plugin.alloc(4)
        plugin.memory(made)[:] = b"made"
        plugin.alloc(100)
        return made.offset

    return [
        text,
        octets,
        record,
        nothing,
        large,
        raising,
        denied,
        same,
        sets_an_error,
        sets_vars,
        writes,
        busy,
    ]


# How calls end


ENDS = guest(
    export("trap", "unreachable")
    + export("fail", "(call $error_set <<it went wrong>>)")
    + '(func (export "code") (result i32) (i32.const 7))'
    + export("bad", "(call $output_set (i64.const 12345) (i64.const 1))")
    + export("spin", LOOP)
    + export(
        "grow",
        "(loop $more (if (i64.eqz (call $alloc (i64.const 65536))) (then unreachable)) (br $more))",
    )
    + export("fine", "(call $echo)")
)


# What is different is said


def two_asks(first: str, second: str = "", give: str = "(call $give <<done>>)") -> str:
    asks = "".join(f"(drop (call $f <<{text}>>))" for text in (first, second) if text)
    return guest(export("run", asks + give), import_of("f", "(param i64) (result i64)"))


def upper(value: str) -> str:
    return value.upper()
