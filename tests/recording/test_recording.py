"""Recordings: what is in them, that they replay without the outside, and what a replay says when something is different."""

from __future__ import annotations

import asyncio
import copy
import functools
import gc
import json
import logging
import os
import pickle
import random
import shutil
import socket
import stat
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
import types
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import plugwasm
from plugwasm import CurrentPlugin, Function, Limits, Plugin, Val, ValType, host_fn
from plugwasm._host.registry import registered
from plugwasm.recording import Recorder, Recording, RecordingError, Replay, ReplayError, load
from tests.support.guests import LOOP, export, guest, manifest
from tests.support.http_server import Server, reply
from tests.support.paths import EXAMPLES, PLUGINS, ROOT

sys.path.append(str(PLUGINS / "as"))

import as_cases
import cases
import verify

AS_PLUGIN = PLUGINS / "as" / "plugin.wasm"
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


@pytest.fixture(autouse=True)
def _own_registry() -> Iterator[None]:
    """What a test registers is forgotten when it ends."""
    before = list(registered)
    registered.clear()
    yield
    registered[:] = before


def importing(name: str, type: str, namespace: str = "extism:host/user") -> str:
    return f'(import "{namespace}" "{name}" (func ${name} {type}))'


def wasi_guest(body: str, *imports: str) -> str:
    used = [
        importing(name, type, "wasi_snapshot_preview1")
        for name, type in WASI.items()
        if f"${name} " in body
    ]
    return guest(body, *imports, *used, memory='(memory (export "memory") 1)')


def asking(*calls: str, before: str = "") -> str:
    """Passes the input to `f` and gives the block that it returns; with other allocations before, it is another build of it."""
    return guest(
        export("run", before + "(call $give (call $f (call $copy)))" + "".join(calls)),
        importing("f", "(param i64) (result i64)"),
    )


def recorded(
    plugin: Any, *calls: tuple[str, Any], observe: Any = None, **options: Any
) -> Recording:
    """A recording of these calls, the way over a file included; errors are part of it."""
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


def different(recording: Recording, plugin: Any) -> ReplayError:
    with pytest.raises(ReplayError) as caught:
        recording.replay(plugin)
    assert isinstance(caught.value, AssertionError)
    return caught.value


def outputs(replay: Replay) -> list[bytes | str | None]:
    return [type(call.error).__name__ if call.error else call.output for call in replay.calls]


def no_more(*_: Any) -> Any:
    raise AssertionError("a replay asks nobody")


# What the host answers, by kind


def test_a_recorded_host_function_is_not_called_in_a_replay() -> None:
    asked: list[str] = []

    @host_fn()
    def f(value: str) -> str:
        asked.append(value)
        return value[::-1]

    recording = recorded(asking(), ("run", "abc"), ("run", "äöü"))
    assert outputs(recording.replay(asking())) == [b"cba", "üöä".encode()]
    assert asked == ["abc", "äöü"]


@dataclass
class Point:
    x: int
    y: int


def answers() -> list[Callable[..., Any]]:
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


@pytest.mark.parametrize("f", answers(), ids=lambda f: f.__name__)
def test_whatever_a_host_function_does_to_the_plugin_it_does_in_a_replay(
    f: Callable[..., Any],
) -> None:
    source = asking()
    recording = recorded(
        source,
        ("run", "abcdef"),
        ("run", "ghijkl"),
        functions=[host_fn("f")(f)],
        vars={"first": b"1"},
    )
    replay = recording.replay(source)
    for call, was in zip(replay.calls, recording.calls, strict=True):
        assert call.output == (was.output.octets if was.output else None)
        assert type(call.error).__name__ == (was.error.type if was.error else "NoneType")
        assert getattr(call.error, "message", "") == (was.error.message if was.error else "")
    # Another build: it has blocks of its own before those.
    another = asking(
        before="(drop (call $alloc (i64.const 100))) (call $free (call $alloc (i64.const 3000)))"
        * 2
    )
    if f.__name__ != "same":
        assert outputs(recording.replay(another)) == outputs(replay)
    assert recording.replay(source).calls[0].vars == replay.calls[0].vars


def val_function(plugin: CurrentPlugin, inputs: list[Val], results: list[Val]) -> None:
    text = plugin.input_string(inputs[0])
    results[0].value = inputs[1].value * 2
    results[1].value = -inputs[2].value
    plugin.return_string(results[2], text * 2)
    results[3].value = inputs[0].value
    results[4].value = inputs[3].value
    plugin.free(plugin.memory_at_offset(inputs[0]))


def test_functions_of_many_values_and_results_replay_to_the_bit() -> None:
    types = "(param i64 i32 f64 f32) (result i32 f64 i64 i64 f32)"
    source = guest(
        """(func (export "run") (local $f f32) (local $text i64) (local $param i64) (local $d f64) (local $i i32) (local $out i64)
          (call $g <<ab>> (i32.const -21) (f64.const nan:0x8000000000123) (f32.const 0.1))
          (local.set $f) (local.set $param) (local.set $text) (local.set $d) (local.set $i)
          (local.set $out (call $alloc (i64.const 32)))
          (call $store_u64 (local.get $out) (i64.reinterpret_f64 (local.get $d)))
          (call $store_u64 (i64.add (local.get $out) (i64.const 8)) (i64.extend_i32_s (local.get $i)))
          (call $store_u64 (i64.add (local.get $out) (i64.const 16)) (i64.extend_i32_u (i32.reinterpret_f32 (local.get $f))))
          (call $store_u64 (i64.add (local.get $out) (i64.const 24)) (call $load_u64 (local.get $text)))
          (call $output_set (local.get $out) (i64.const 28)))""",
        importing("g", types),
    )
    signature = (
        [ValType.I64, ValType.I32, ValType.F64, ValType.F32],
        [ValType.I32, ValType.F64, ValType.I64, ValType.I64, ValType.F32],
    )
    recording = recorded(
        source, ("run", b""), functions=[Function(None, "g", *signature, val_function)]
    )
    assert recording.calls[0].output is not None
    assert recording.calls[0].output.octets[24:] == b"abab"
    (call,) = recording.calls[0].host_calls
    assert [value.type for value in call.args] == ["i64", "i32", "f64", "f32"]
    assert (call.args[0].text, call.args[1].i32, call.args[3].f32) == (
        "ab",
        -21,
        "0.10000000149011612",
    )
    assert call.args[2].f64 == "nan:7ff8000000000123"
    assert (call.results[2].block, call.results[3].param) == (0, 0)
    assert outputs(recording.replay(source)) == [recording.calls[0].output.octets]


@pytest.mark.parametrize(
    "number", ["0", "-0.0", "1e308", "inf", "-inf", "nan", "5e-324", "nan:0x4000000000001"]
)
def test_every_float_is_read_as_it_was_written(number: str) -> None:
    source = guest(
        f'(func (export "run") (drop (call $f (f64.const {number}))))',
        importing("f", "(param f64) (result f64)"),
    )
    recording = recorded(source, ("run", b""), functions=[host_fn("f")(echo_float)])
    value = recording.calls[0].host_calls[0].args[0]
    assert value.raw is not None
    assert value.f64 is not None
    if ":" not in number:
        assert struct.pack("<Q", value.raw) == struct.pack("<d", float(number))
    recording.replay(source)


def echo_float(value: float) -> float:
    return value


def test_numbers_are_not_taken_for_blocks_where_the_function_says_that_they_are_numbers() -> None:
    source = asking("(drop (call $f (i64.const 512)))")  # where the input is

    def f(value: int) -> int:
        return 0 if value == 512 else value

    recording = recorded(source, ("run", "abc"), functions=[host_fn("f")(f)])
    assert [call.args[0].i64 for call in recording.calls[0].host_calls] == [544, 512]
    recording.replay(source)


def test_what_was_in_a_block_before_does_not_hide_what_a_host_function_writes_to_it() -> None:
    # The host writes the same bytes where they still stand from the call before; another build has other memory there.
    def f(plugin: CurrentPlugin, value: str) -> int:
        block = plugin.alloc(5)
        plugin.memory(block)[:] = b"hello"
        return block.offset

    recording = recorded(asking(), ("run", "a"), ("run", "a"), functions=[host_fn("f")(f)])
    another = asking(before="(drop (call $alloc (i64.const 4000)))")
    assert outputs(recording.replay(another)) == [b"hello", b"hello"]


# State: config, vars, logs


STATE = guest(
    export("config", "(call $give (call $config_get <<key>>))")
    + export("set", "(call $var_set <<name>> (call $copy))")
    + export("get", "(call $give (call $var_get <<name>>))")
    + export("level", "(call $answer (i64.extend_i32_u (call $get_log_level)))")
)


def test_config_vars_and_the_log_level_are_as_they_were() -> None:
    logger = logging.getLogger("plugwasm.plugin.plugin")
    recorder = Recorder()
    with Plugin(STATE, config={"key": "one"}, vars={"name": b"first"}, observe=recorder) as plugin:
        for name in ("config", "get", "level"):
            plugin.call(name)
        plugin.update_config({"key": "two", "other": "x"})
        logger.setLevel(logging.DEBUG)
        try:
            for name, data in (("config", b""), ("set", b"\xff\0"), ("get", b""), ("level", b"")):
                plugin.call(name, data)
        finally:
            logger.setLevel(logging.NOTSET)
    replay = recorder.recording.replay(STATE)
    assert [call.output for call in replay.calls] == [
        b"one",
        b"first",
        b"\3" + bytes(7),
        b"two",
        b"",
        b"\xff\0",
        b"\1" + bytes(7),
    ]
    assert [call.vars for call in replay.calls][3:5] == [{"name": b"first"}, {"name": b"\xff\0"}]
    calls = recorder.recording.calls
    assert [call.config for call in calls] == [None] * 3 + [{"key": "two", "other": "x"}] + [
        None
    ] * 3
    assert [bool(call.vars) for call in calls] == [False] * 4 + [True] + [False] * 2


def test_a_change_of_the_config_before_a_call_that_was_not_made_is_not_forgotten() -> None:
    recorder = Recorder()
    with Plugin(STATE, config={"key": "one"}, observe=recorder) as plugin:
        plugin.call("config")
        plugin.update_config({"key": "two"})
        stack = plugin._stack
        plugin._stack = NoRoom()  # type: ignore[assignment]
        with pytest.raises(plugwasm.StackError):
            plugin.call("config")
        plugin._stack = stack
        plugin.call("config")
    assert outputs(recorder.recording.replay(STATE)) == [b"one", b"two"]


class NoRoom:
    """The stack of a thread that has used it up."""

    here = types.SimpleNamespace(levels=0, recursion_limit=0)
    need = 2**20

    def has_room(self) -> bool:
        return False

    def room(self) -> int:
        return 0


def test_another_build_may_log_more_and_read_other_config() -> None:
    recording = recorded(STATE, ("config", b""), config={"key": "one", "more": "x"})
    another = guest(
        export(
            "config",
            "(call $log_info <<reading>>) (drop (call $config_get <<more>>)) (call $give (call $config_get <<key>>))",
        )
    )
    assert outputs(recording.replay(another)) == [b"one"]


def test_another_value_of_a_var_is_a_difference() -> None:
    recording = recorded(STATE, ("set", b"x" * 200 + b"1"))
    another = guest(export("set", "(call $var_set <<name>> <<else>>)"))
    error = different(recording, another)
    assert "the var 'name' is" in error.recorded
    assert "the var 'name' is 'else'" in error.now
    nothing = guest(export("set", ""))
    assert different(recording, nothing).now == "the var 'name' is not set"


# HTTP


def test_http_is_answered_from_the_recording_when_the_server_is_gone() -> None:
    with Server(
        {"/a": reply(b"hello", headers=[("X-One", "1")]), "/b": reply(b"", status=503)}
    ) as server:
        source = {
            "wasm": [{"path": str(EXAMPLES / "http_get.wasm")}],
            "allowed_hosts": ["127.0.0.1"],
        }
        recording = recorded(
            source,
            ("http_body", server.url + "/a"),
            ("http_body", server.url + "/b"),
            http_response_headers=True,
        )
        assert len(server.requests) == 2
    replay = recording.replay(EXAMPLES / "http_get.wasm")
    assert outputs(replay) == [b"hello", "GuestError"]
    assert recording.calls[0].host_calls[0].http is not None
    assert recording.calls[0].host_calls[0].http.status == 200
    assert "503" in str(replay.calls[1].error)


def test_status_and_headers_are_those_of_the_recorded_response() -> None:
    source = guest(
        export(
            "get",
            "(drop (call $http_request (call $copy) (i64.const 0))) (call $give (call $http_headers))",
        )
        + export("status", "(call $answer (i64.extend_i32_u (call $http_status_code)))")
    )
    with Server({"/a": reply(b"hello", status=418, headers=[("X-One", "1")])}) as server:
        request = json.dumps({"url": server.url + "/a"})
        granted = manifest(source, allowed_hosts=["127.0.0.1"])
        recording = recorded(
            granted, ("get", request), ("status", b""), ("get", "{"), http_response_headers=True
        )
    replay = recording.replay(source)
    assert json.loads(replay.calls[0].output or b"")["x-one"] == "1"
    assert replay.calls[1].output == (418).to_bytes(8, "little")
    assert type(replay.calls[2].error) is plugwasm.EgressError
    assert "not JSON" in str(replay.calls[2].error)


# WASI

FILES = str(EXAMPLES / "wasi_files.wasm")


def test_files_are_read_and_written_in_a_replay_without_the_directory(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.txt").write_text("content of a\n" * 1000)
    (folder / "b.bin").write_bytes(bytes(range(256)))
    source = {"wasm": [{"path": FILES}], "allowed_paths": {str(folder): "/data"}}
    calls = [
        ("cat", "/data/a.txt"),
        ("cat", "/data/b.bin"),
        ("list", "/data"),
        ("write", "/data/new.txt\nfresh"),
        ("list", "/data"),
        ("cat", "/data/missing"),
        ("say", "to the streams"),
    ]
    recording = recorded(source, *calls, wasi=True)
    assert (folder / "new.txt").read_text() == "fresh"
    shutil.rmtree(folder)
    replay = recording.replay(FILES)
    assert outputs(replay)[:5] == [
        b"content of a\n" * 1000,
        bytes(range(256)),
        b"a.txt\nb.bin\n",
        b"5",
        b"a.txt\nb.bin\nnew.txt\n",
    ]
    assert outputs(replay)[5] == "GuestError"
    assert "No such file" in str(replay.calls[5].error)
    assert not folder.exists()


def test_what_is_written_to_a_file_must_be_what_was_written(tmp_path: Path) -> None:
    source = {"wasm": [{"path": FILES}], "allowed_paths": {str(tmp_path): "/data"}}
    recording = recorded(source, ("write", "/data/new.txt\nfresh"), wasi=True)
    content = recording.to_json().replace(b'"text": "fresh"', b'"text": "fresx"')
    path = tmp_path / "recording.json"
    path.write_bytes(content)
    error = different(load(path), FILES)
    assert "fd_write(" in error.recorded
    assert "'fresx'" in error.recorded
    assert "'fresh'" in error.now


CLOCK = wasi_guest(
    export(
        "look",
        """(drop (call $clock_time_get (i32.const 0) (i64.const 1) (i32.const 64)))
        (drop (call $random_get (i32.const 72) (i32.const 8)))
        (local.set $out (call $alloc (i64.const 16)))
        (call $store_u64 (local.get $out) (i64.load (i32.const 64)))
        (call $store_u64 (i64.add (local.get $out) (i64.const 8)) (i64.load (i32.const 72)))
        (call $output_set (local.get $out) (i64.const 16))""",
        "(local $out i64)",
    )
)


def test_time_and_chance_are_as_they_were_also_for_a_build_that_has_them_put_elsewhere() -> None:
    recording = recorded(CLOCK, ("look", b""), ("look", b""), wasi=True)
    replay = recording.replay(CLOCK)
    assert replay.calls[0].output != replay.calls[1].output
    another = CLOCK.replace("i32.const 64", "i32.const 640").replace(
        "i32.const 72", "i32.const 648"
    )
    assert outputs(recording.replay(another)) == outputs(replay)


def test_a_recorded_sleep_does_not_take_time() -> None:
    body = """(i64.store (i32.const 0) (i64.const MARK)) (i32.store8 (i32.const 8) (i32.const 0))
        (i32.store (i32.const 16) (i32.const 1)) (i64.store (i32.const 24) (i64.const 1000000))
        (drop (call $poll_oneoff (i32.const 0) (i32.const 128) (i32.const 1) (i32.const 256)))
        (call $answer (i64.sub (i64.load (i32.const 128)) (i64.const MARK)))"""
    source = wasi_guest(export("nap", body.replace("MARK", "77")))
    slept: list[float] = []

    class Clock(plugwasm.Clock):
        def sleep(self, seconds: float, wait: Callable[[float], None]) -> None:
            slept.append(seconds)

    recording = recorded(source, ("nap", b""), wasi=plugwasm.WasiOptions(clock=Clock()))
    assert slept == [0.001]
    (call,) = recording.calls[0].host_calls
    assert call.args[0].text == "clock 1 for 1000000 ns"
    another = wasi_guest(export("nap", body.replace("MARK", "4711")))  # its mark may be an address
    assert outputs(recording.replay(source)) == outputs(recording.replay(another)) == [bytes(8)]
    assert slept == [0.001]


def test_another_build_may_write_more_to_its_streams() -> None:
    say = "(i32.store (i32.const 0) (i32.const 16)) (i32.store (i32.const 4) (i32.const 3)) (i32.store (i32.const 16) (i32.const 0x0a6968))"
    say += "(drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))"
    quiet, loud = (
        wasi_guest(export("f", "(call $proc_exit (i32.const 0))")),
        wasi_guest(export("f", say + "(call $proc_exit (i32.const 0))")),
    )
    recorded(quiet, ("f", b""), wasi=True).replay(loud)
    recorded(loud, ("f", b""), wasi=True).replay(quiet)


def test_a_file_in_the_place_of_a_stream_is_no_stream(tmp_path: Path) -> None:
    body = """(i64.store (i32.const 100) (i64.const 0x7478742e61)) ;; a.txt
        (drop (call $path_open (i32.const 3) (i32.const 0) (i32.const 100) (i32.const 5) (i32.const 1) (i64.const 64) (i64.const 0) (i32.const 0)
                               (i32.const 200)))
        (drop (call $fd_renumber (i32.load (i32.const 200)) (i32.const 1)))
        (i32.store (i32.const 0) (i32.const 16)) (i32.store (i32.const 4) (i32.const 3)) (i32.store (i32.const 16) (i32.const 0x0a6968))
        (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
        (call $answer (i64.load (i32.const 8)))"""
    source = wasi_guest(export("f", body))
    recording = recorded(
        manifest(source, allowed_paths={str(tmp_path): "/"}), ("f", b""), wasi=True
    )
    assert (tmp_path / "a.txt").read_text() == "hi\n"
    assert [call.name for call in recording.calls[0].host_calls] == [
        "path_open",
        "fd_renumber",
        "fd_write",
    ]
    (tmp_path / "a.txt").unlink()
    assert outputs(recording.replay(source)) == [(3).to_bytes(8, "little")]
    assert not (tmp_path / "a.txt").exists()


def test_bad_pointers_are_refused_in_a_replay_as_before() -> None:
    source = wasi_guest(
        export(
            "f",
            """(call $answer (i64.extend_i32_u (i32.add
              (call $random_get (i32.const 0xfffffff0) (i32.const 64))
              (call $path_open (i32.const 3) (i32.const 0) (i32.const 0xfffffff0) (i32.const 5) (i32.const 1) (i64.const 64) (i64.const 0)
                               (i32.const 0) (i32.const 200)))))""",
        )
    )
    recording = recorded(source, ("f", b""), wasi=True)
    assert outputs(recording.replay(source)) == [(21 + 8).to_bytes(8, "little")]


def test_what_the_clock_of_the_application_raises_replays() -> None:
    class Clock(plugwasm.Clock):
        def realtime(self) -> int:
            raise LookupError("no time")

    recording = recorded(CLOCK, ("look", b""), wasi=plugwasm.WasiOptions(clock=Clock()))
    assert recording.calls[0].error is not None
    assert recording.calls[0].error.type == "LookupError"
    assert outputs(recording.replay(CLOCK)) == ["HostFunctionError"]


def test_a_command_replays() -> None:
    source = wasi_guest(
        '(func (export "_start") (drop (call $random_get (i32.const 0) (i32.const 8))) (call $answer (i64.load (i32.const 0)))'
        "(call $proc_exit (i32.const 0)))"
    )
    recorder = Recorder()
    with Plugin(source, wasi=True, observe=recorder) as plugin:
        results = [plugin.call("_start"), plugin.call("_start")]
    assert results[0] != results[1]
    assert [outputs(recording.replay(source)) for recording in recorder.recordings] == [
        [results[0]],
        [results[1]],
    ]


def test_a_replay_opens_no_socket_no_file_and_asks_no_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_text("content")
    body = """(drop (call $clock_time_get (i32.const 0) (i64.const 1) (i32.const 64)))
        (drop (call $random_get (i32.const 72) (i32.const 8)))
        (i64.store (i32.const 100) (i64.const 0x7478742e61)) ;; a.txt
        (drop (call $path_open (i32.const 3) (i32.const 0) (i32.const 100) (i32.const 5) (i32.const 0) (i64.const 2) (i64.const 0) (i32.const 0)
                               (i32.const 200)))
        (i32.store (i32.const 0) (i32.const 128)) (i32.store (i32.const 4) (i32.const 20))
        (drop (call $fd_read (i32.load (i32.const 200)) (i32.const 0) (i32.const 1) (i32.const 16)))
        (drop (call $http_request (call $copy) (i64.const 0)))
        (call $give (call $http_headers))"""
    source = wasi_guest(export("f", body))
    with Server({"/": reply(b"hello")}) as server:
        granted = manifest(source, allowed_paths={str(tmp_path): "/"}, allowed_hosts=["127.0.0.1"])
        request = json.dumps({"url": server.url + "/"})
        recording = recorded(granted, ("f", request), wasi=True, http_response_headers=True)
    assert [call.name for call in recording.calls[0].host_calls][2:] == [
        "path_open",
        "fd_read",
        "http_request",
    ]
    assert recording.calls[0].host_calls[3].out[0].text == "content"
    recording.replay(source)  # so that all modules are loaded
    for module, name in (
        (socket, "socket"),
        (socket, "getaddrinfo"),
        (os, "open"),
        (os, "readv"),
        (os, "urandom"),
        (time, "time_ns"),
    ):
        monkeypatch.setattr(module, name, no_more)
    outcome = recording.replay(source)
    monkeypatch.undo()
    assert recording.calls[0].output is not None
    assert outcome.calls[0].output == recording.calls[0].output.octets


# Plugins of several modules, and how they start


def test_linked_modules_replay_each_with_what_it_was_answered() -> None:
    library = guest(
        '(func (export "twice") (param i64) (result i64) (call $f (call $f (local.get 0))))',
        importing("f", "(param i64) (result i64)"),
    )
    main = guest(
        export("run", "(call $give (call $twice (call $copy)))"),
        importing("twice", "(param i64) (result i64)", "library"),
    )
    source = manifest(("library", library), ("main", main))
    recording = recorded(source, ("run", "ab"), functions=[host_fn("f")(answers()[0])])
    assert outputs(recording.replay(source)) == [b"ab!!"]
    assert [module.name for module in recording.modules] == ["library", "main"]
    recording.replay(source, strict=True)


def test_a_linked_command_replays() -> None:
    tool = wasi_guest(
        """(func (export "_start"))
        (func (export "roll") (result i64) (drop (call $random_get (i32.const 0) (i32.const 8))) (i64.load (i32.const 0)))"""
    )
    main = guest(
        export("run", "(call $answer (call $roll))"), importing("roll", "(result i64)", "tool")
    )
    source = manifest(("tool", tool), ("main", main))
    recording = recorded(source, ("run", b""), ("run", b""), wasi=True)
    assert len(recording.calls[0].host_calls) == 1
    first, second = outputs(recording.replay(source))
    assert first != second


def test_what_the_host_answers_while_a_plugin_is_started_is_in_its_first_call() -> None:
    source = guest(
        """(global $kept (mut i64) (i64.const 0))
        (func (export "_initialize") (global.set $kept (call $now)))"""
        + export("when", "(call $answer (global.get $kept))"),
        importing("now", "(result i64)"),
    )
    times = iter((17, 18, 19))
    recording = recorded(
        source,
        ("when", b""),
        ("when", b""),
        functions=[Function(None, "now", [], [ValType.I64], lambda p, i, r: answer(r, times))],
    )
    assert [len(call.host_calls) for call in recording.calls] == [1, 0]
    assert outputs(recording.replay(source)) == [(17).to_bytes(8, "little")] * 2


def answer(results: list[Val], values: Iterator[int]) -> None:
    results[0].value = next(values)


def test_a_plugin_that_fails_to_start_fails_in_the_replay() -> None:
    source = guest('(func (export "_initialize") unreachable)' + export("f", ""))
    recording = recorded(source, ("f", b""))
    assert outputs(recording.replay(source)) == ["TrapError"]


def test_functions_that_the_plugin_has_more_or_no_more_are_linked_all_the_same() -> None:
    recording = recorded(two_asks("one"), ("run", ""), functions=[host_fn("f")(upper)])
    another = guest(
        export("run", "(drop (call $f <<one>>)) (call $give <<done>>)")
        + export("new", "(call $g (i32.const 1))"),
        importing("f", "(param i64) (result i64)"),
        importing("g", "(param i32)", "somewhere"),
    )
    assert outputs(recording.replay(another)) == [b"done"]


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


@pytest.mark.parametrize(
    ("name", "error", "options"),
    [
        ("trap", "TrapError", {}),
        ("fail", "GuestError", {}),
        ("code", "GuestError", {}),
        ("bad", "BadHandleError", {}),
        ("spin", "OutOfFuelError", {"fuel_limit": 10_000}),
        ("spin", "TimeoutError", {"limits": Limits(timeout=0.05)}),
        ("grow", "OutOfMemoryError", {"limits": Limits(memory_bytes=2**20)}),
        ("none", "FunctionNotFoundError", {}),
    ],
)
def test_a_call_that_failed_fails_in_the_replay(
    name: str, error: str, options: dict[str, Any]
) -> None:
    recording = recorded(ENDS, ("fine", b"x"), (name, b""), **options)
    assert outputs(recording.replay(ENDS)) == [b"x", error]


def test_an_instance_that_was_dropped_is_the_end_of_its_recording() -> None:
    recorder = Recorder()
    with Plugin(ENDS, observe=recorder) as plugin:
        for name in ("fine", "trap", "fine", "fail", "fine"):
            with pytest.raises(plugwasm.CallError) if name in ("trap", "fail") else nothing():
                plugin.call(name, b"x")
    first, second = recorder.recordings
    assert [call.function for call in first.calls] == ["fine", "trap"]
    assert [call.function for call in second.calls] == ["fine", "fail", "fine"]
    for recording in (first, second):
        recording.replay(ENDS)


class nothing:
    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...


def test_a_plugin_that_asked_until_its_deadline_is_ended_when_it_asks_no_less() -> None:
    source = guest(
        export("run", "(loop $more (drop (call $tick)) (br $more))"),
        importing("tick", "(result i64)"),
    )
    ticks = Function(
        None, "tick", [], [ValType.I64], lambda plugin, inputs, results: time.sleep(0.001)
    )
    recording = recorded(source, ("run", b""), functions=[ticks], limits=Limits(timeout=0.4))
    assert outputs(recording.replay(source)) == ["TimeoutError"]


def test_fuel_is_used_as_it_was() -> None:
    recorder = Recorder()
    with Plugin(
        asking(), functions=[host_fn("f")(answers()[0])], fuel_limit=10**6, observe=recorder
    ) as plugin:
        plugin.call("run", "abc")
        fuel = plugin.fuel_used
    assert recorder.recording.replay(asking()).calls[0].fuel == fuel


def test_fuel_that_ends_anywhere_ends_there_in_the_replay() -> None:
    source, ends = asking(), set()
    f = host_fn("f")(upper)
    for fuel in range(1, 1000, 15):  # some of it also while the host makes a block
        recording = recorded(source, ("run", "abcdef"), functions=[f], fuel_limit=fuel)
        (call,) = recording.calls
        ends.add(
            (
                len(call.host_calls),
                call.host_calls[0].error.type
                if call.host_calls and call.host_calls[0].error
                else None,
            )
        )
        assert outputs(recording.replay(source)) == [call.error.type if call.error else b"ABCDEF"]
    assert ends == {(0, None), (1, "EngineFailure"), (1, None)}


def test_a_plugin_that_has_no_room_for_an_answer_has_none_in_the_replay() -> None:
    def f(value: bytes) -> bytes:
        return bytes(300_000)

    recording = recorded(
        asking(), ("run", "abc"), functions=[host_fn("f")(f)], limits=Limits(memory_bytes=4 * 65536)
    )
    assert outputs(recording.replay(asking())) == ["HostFunctionError"]
    assert recording.calls[0].host_calls[0].error is not None
    assert "no room for 300000 bytes" in recording.calls[0].host_calls[0].error.message


def test_a_call_that_was_refused_is_not_in_the_recording() -> None:
    recorder = Recorder()
    plugin = Plugin(ENDS, observe=recorder)
    plugin.call("fine", b"x")
    plugin.close()
    with pytest.raises(plugwasm.ClosedError):
        plugin.call("fine", b"x")
    assert len(recorder.recording.calls) == 1


def test_a_call_that_was_interrupted_makes_a_recording_incomplete() -> None:
    def f(value: str) -> str:
        raise KeyboardInterrupt

    recorder = Recorder()
    with (
        Plugin(asking(), functions=[host_fn("f")(f)], observe=recorder) as plugin,
        pytest.raises(KeyboardInterrupt),
    ):
        plugin.call("run", "abc")
    assert not recorder.recording.complete
    with pytest.raises(RecordingError, match=r"not complete: .*KeyboardInterrupt"):
        recorder.recording.replay(asking())


def test_a_call_that_was_cancelled_in_the_guest_makes_a_recording_incomplete() -> None:
    recorder = Recorder()
    with Plugin(ENDS, observe=recorder) as plugin:
        handle = plugin.cancel_handle()
        thread = threading.Thread(
            target=lambda: [threading.Event().wait(0.01) for _ in iter(handle.cancel, True)]
        )
        thread.start()
        with pytest.raises(plugwasm.CancelledError):
            plugin.call("spin")
        thread.join()
    assert recorder.recording.incomplete == "a call was cancelled"


def test_a_call_that_was_cancelled_in_a_host_function_replays() -> None:
    recorder = Recorder()

    def f(value: str) -> str:
        plugin.cancel_handle().cancel()
        return value

    with (
        Plugin(asking(), functions=[host_fn("f")(f)], observe=recorder) as plugin,
        pytest.raises(plugwasm.CancelledError),
    ):
        plugin.call("run", "abc")
    assert outputs(recorder.recording.replay(asking())) == ["CancelledError"]


# What is different is said


def two_asks(first: str, second: str = "", give: str = "(call $give <<done>>)") -> str:
    asks = "".join(f"(drop (call $f <<{text}>>))" for text in (first, second) if text)
    return guest(export("run", asks + give), importing("f", "(param i64) (result i64)"))


def upper(value: str) -> str:
    return value.upper()


def test_another_argument_is_a_difference() -> None:
    recording = recorded(two_asks("one", "two"), ("run", "in"), functions=[host_fn("f")(upper)])
    error = different(recording, two_asks("one", "three"))
    assert str(error) == (
        "replay of `plugin`: call 1, run('in'), host call 2 is not as it was\n  recorded: f('two')\n  now:      f('three')"
    )
    assert (error.call, error.host_call, error.recorded, error.now) == (
        1,
        2,
        "f('two')",
        "f('three')",
    )
    assert (error.plugin, error.function) == ("plugin", "run")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_of_long_values_what_differs_is_shown() -> None:
    recording = recorded(
        two_asks("x" * 5000 + "same then" + "y" * 300), ("run", ""), functions=[host_fn("f")(upper)]
    )
    error = different(recording, two_asks("x" * 5000 + "same now" + "y" * 300))
    assert "then" in error.recorded
    assert "now" in error.now
    assert len(str(error)) < 600


def test_a_host_call_more_is_a_difference() -> None:
    recording = recorded(two_asks("one"), ("run", ""), functions=[host_fn("f")(upper)])
    error = different(recording, two_asks("one", "two"))
    assert (error.host_call, error.recorded, error.now) == (2, "no more host calls", "f('two')")


def test_a_host_call_less_is_a_difference() -> None:
    recording = recorded(two_asks("one", "two"), ("run", ""), functions=[host_fn("f")(upper)])
    error = different(recording, two_asks("one"))
    assert (error.host_call, error.recorded, error.now) == (2, "f('two')", "no more host calls")


def test_another_function_is_a_difference() -> None:
    recording = recorded(two_asks("one"), ("run", ""), functions=[host_fn("f")(upper)])
    error = different(recording, two_asks("one").replace('"f"', '"g"'))
    assert (error.recorded, error.now) == ("f('one')", "g('one')")
    error = different(recording, two_asks("one").replace('"extism:host/user"', '"mine"'))
    assert (error.recorded, error.now) == ("extism:host/user f('one')", "mine f('one')")


def test_another_output_or_end_is_a_difference() -> None:
    recording = recorded(
        two_asks("one"), ("run", ""), ("run", "again"), functions=[host_fn("f")(upper)]
    )
    error = different(recording, two_asks("one", give="(call $give <<something else>>)"))
    assert "call 1 of 2, run()" in str(error)
    assert (error.recorded, error.now) == ("returned 'done'", "returned 'something else'")
    error = different(recording, two_asks("one", give="unreachable"))
    assert error.now.startswith("raised TrapError with the trap")
    error = different(recording, two_asks("", give="(call $error_set <<no>>)"))
    assert error.now == "raised GuestError: 'no', without f('one')"
    recording = recorded(
        two_asks("one", give="(call $error_set <<no>>)"),
        ("run", ""),
        functions=[host_fn("f")(upper)],
    )
    error = different(recording, two_asks("one"))
    assert (error.recorded, error.now) == ("raised GuestError: 'no'", "returned 'done'")
    error = different(recording, two_asks("one", give="(call $error_set <<yes>>)"))
    assert (error.recorded, error.now) == ("raised GuestError: 'no'", "raised GuestError: 'yes'")


def test_a_function_of_another_type_is_a_difference() -> None:
    recording = recorded(two_asks("one"), ("run", ""), functions=[host_fn("f")(upper)])
    i32 = guest(
        export("run", "(drop (call $f (i64.const 0)))"), importing("f", "(param i64) (result i32)")
    )
    assert "f(" in different(recording, i32).recorded
    more = guest(
        export("run", "(drop (call $f <<one>> (i32.const 1)))"),
        importing("f", "(param i64 i32) (result i64)"),
    )
    assert different(recording, more).now == "f('one', 1)"


def test_a_plugin_that_cannot_be_loaded_is_a_difference() -> None:
    recording = recorded(ENDS, ("fine", "x"))
    error = different(recording, wasi_guest(export("fine", "(call $proc_exit (i32.const 0))")))
    assert "cannot be loaded" in str(error)
    assert "WASI was not granted" in str(error)
    assert isinstance(error.__cause__, plugwasm.MissingImportError)
    with pytest.raises(plugwasm.SourceError):
        recording.replay("not_there.wasm")


def test_strict_wants_the_very_modules() -> None:
    recording = recorded(ENDS, ("fine", "x"))
    recording.replay(ENDS, strict=True)
    with pytest.raises(RecordingError, match="the module 'main' is not the one that was recorded"):
        recording.replay(ENDS + " ", strict=True)


def test_without_a_plugin_the_files_of_the_recorded_one_are_replayed(tmp_path: Path) -> None:
    path = tmp_path / "count_vowels.wasm"
    shutil.copy(EXAMPLES / "count_vowels.wasm", path)
    recording = recorded(path, ("count_vowels", "Hello"))
    assert json.loads(recording.replay().calls[0].output or b"")["count"] == 2
    path.unlink()
    with pytest.raises(RecordingError, match="say which plugin"):
        recording.replay()


def test_a_replay_gives_the_same_twice() -> None:
    recording = recorded(asking(), ("run", "abc"), functions=[host_fn("f")(answers()[9])])
    one, two = recording.replay(asking()), recording.replay(asking())
    assert one.calls == two.calls


def test_functions_that_host_fn_registered_are_not_linked_in_a_replay() -> None:
    recording = recorded(two_asks("one"), ("run", ""), functions=[host_fn("f")(upper)])
    registered.clear()
    host_fn("f")(no_more_text)
    recording.replay(two_asks("one"))


def no_more_text(value: str) -> str:
    raise AssertionError("a replay asks nobody")


def test_functions_that_stand_for_plugwasms_own_are_recorded() -> None:
    source = guest(export("run", "(call $give (call $config_get <<key>>))"))

    @host_fn("config_get", namespace="extism:host/env")
    def config_get(key: str) -> str:
        return "mine: " + key

    recording = recorded(source, ("run", ""))
    assert outputs(recording.replay(source)) == [b"mine: key"]

    def random_get(plugin: CurrentPlugin, inputs: list[Val], results: list[Val]) -> None:
        results[0].value = 5

    mine = Function(
        "wasi_snapshot_preview1",
        "random_get",
        [ValType.I32, ValType.I32],
        [ValType.I32],
        random_get,
    )
    source = wasi_guest(
        export(
            "run",
            "(call $answer (i64.extend_i32_u (call $random_get (i32.const 0) (i32.const 8))))",
        )
    )
    recording = recorded(source, ("run", ""), functions=[mine], wasi=True)
    assert outputs(recording.replay(source)) == [(5).to_bytes(8, "little")]
    assert outputs(recorded(source, ("run", ""), functions=[mine]).replay(source)) == [
        (5).to_bytes(8, "little")
    ]

    old = Function(
        "wasi_unstable", "random_get", [ValType.I32, ValType.I32], [ValType.I32], random_get
    )
    source = source.replace("wasi_snapshot_preview1", "wasi_unstable")
    assert outputs(recorded(source, ("run", ""), functions=[old]).replay(source)) == [
        (5).to_bytes(8, "little")
    ]

    def memory_bytes(plugin: CurrentPlugin, inputs: list[Val], results: list[Val]) -> None:
        results[0].value = 6

    own = Function("extism:host/env", "memory_bytes", [], [ValType.I64], memory_bytes)
    source = guest(export("run", "(call $answer (call $memory_bytes))"))
    assert outputs(recorded(source, ("run", ""), functions=[own]).replay(source)) == [
        (6).to_bytes(8, "little")
    ]


def test_a_call_that_had_no_room_on_pythons_stack_makes_a_recording_incomplete() -> None:
    recorder = Recorder()
    plugin = Plugin(ENDS, observe=recorder)
    plugin.call("fine", b"x")

    def at(depth: int) -> None:
        if depth:
            at(depth - 1)
        else:
            plugin.call("fine", b"x")

    raised = 0
    for depth in range(sys.getrecursionlimit()):
        try:
            at(depth)
        except RecursionError:
            raised += 1
            if raised == 3:
                break
    for recording in recorder.recordings:
        if recording.complete:
            recording.replay(ENDS)


CASES = [
    *((case, EXAMPLES / f"{case.plugin}.wasm") for case in cases.CASES if case.loads),
    *((case, AS_PLUGIN) for case in as_cases.CASES if case.loads),
]


@pytest.mark.parametrize(
    ("case", "path"), CASES, ids=[f"{case.plugin}: {case.title}" for case, _ in CASES]
)
def test_what_plugins_of_ordinary_kits_do_replays(
    case: cases.Case, path: Path, address: str
) -> None:
    recorder = Recorder()

    class Host(types.SimpleNamespace):
        Plugin = functools.partial(plugwasm.Plugin, observe=recorder)
        ValType, host_fn, Error = plugwasm.ValType, plugwasm.host_fn, plugwasm.Error

    assert verify.failures(Host, path.read_bytes(), case, address) == []
    for recording in recorder.recordings:
        replay = recording.replay(path)
        assert [call.output for call in replay.calls] == [
            call.output.octets if call.output else None for call in recording.calls
        ]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with verify.server() as address:
        yield address


# Recorders


def test_there_is_no_recording_before_the_first_call() -> None:
    recorder = Recorder()
    with (
        Plugin(ENDS, observe=recorder),
        pytest.raises(RecordingError, match="nothing was recorded yet"),
    ):
        _ = recorder.recording


def test_beyond_its_size_a_recording_ends_and_says_so() -> None:
    recorder = Recorder(max_bytes=10_000)
    with Plugin(ENDS, observe=recorder) as plugin:
        plugin.call("fine", b"x" * 1000)
        assert recorder.recording.complete
        for _ in range(10):
            assert plugin.call("fine", b"x" * 1000) == b"x" * 1000
    assert 3 <= len(recorder.recording.calls) <= 5
    assert recorder.recording.incomplete == "it would have been larger than `max_bytes`"
    with pytest.raises(RecordingError, match="max_bytes"):
        recorder.recording.replay(ENDS)
    for wrong in (-1, "x", True):
        with pytest.raises(plugwasm.OptionError):
            Recorder(max_bytes=wrong)  # type: ignore[arg-type]


def test_a_recording_holds_no_more_than_its_size_whatever_the_plugin_has_it_take_down() -> None:
    asks = """(local $i i32) (loop $next
      (drop (call $f (i64.const 5)))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $i) (i32.const 50000))))"""
    fails = """(local $e i64) (local.set $e (call $alloc (i64.const 1048576)))
      (call $store_u8 (local.get $e) (i32.const 0xc3)) (call $error_set (local.get $e))"""
    source = guest(
        export("asks", asks) + export("fails", fails), importing("f", "(param i64) (result i64)")
    )
    for function, times in (("asks", 1), ("fails", 40)):
        recorder = Recorder(max_bytes=2**23)
        with Plugin(source, functions=[host_fn("f")(plus)], observe=recorder) as plugin:
            tracemalloc.start()
            try:
                for _ in range(times):
                    try:
                        plugin.call(function)
                    except plugwasm.GuestError:
                        pass
                most = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
        assert not recorder.recording.complete
        assert most < 2**24 + 2**23, function


def plus(number: int) -> int:
    return number + 1000


def test_blocks_that_are_larger_than_a_recording_are_not_copied_for_it() -> None:
    source = guest(
        export("run", "(call $f (call $alloc (i64.const 209715200)))"),
        importing("f", "(param i64)"),
    )
    function = Function(None, "f", [ValType.I64], [], lambda plugin, inputs, results: None)
    recorder = Recorder()
    with Plugin(source, functions=[function], observe=recorder) as plugin:
        tracemalloc.start()
        try:
            plugin.call("run")
            most = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert not recorder.recording.complete
    assert most < 2**24


def test_recordings_are_written_for_this_user_only_when_wanted(tmp_path: Path) -> None:
    folder = tmp_path / "recordings"
    recorder = Recorder(folder, when=lambda call: call.error)
    with Plugin(ENDS, name="a/b.c", observe=recorder) as plugin:
        plugin.call("fine", b"x")
        assert os.listdir(folder) == []
        with pytest.raises(plugwasm.GuestError):
            plugin.call("fail")
        (name,) = os.listdir(folder)
        plugin.call("fine", b"x")
    assert name.startswith("a_b_c-")
    path = folder / name
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [call.function for call in load(path).calls] == ["fine", "fail"]
    load(path).replay(ENDS)


def test_one_recorder_serves_the_plugins_of_a_pool_in_many_threads(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    with plugwasm.PluginPool(
        asking(), functions=[host_fn("f")(upper)], observe=recorder, size=3
    ) as pool:

        def work(name: str) -> None:
            for i in range(20):
                assert pool.call("run", f"{name}{i}") == f"{name}{i}".upper().encode()

        threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    recordings = [load(tmp_path / name) for name in os.listdir(tmp_path)]
    assert 1 <= len(recordings) == len(recorder.recordings) <= 3
    assert sum(len(recording.calls) for recording in recordings) == 60
    for recording in recordings:
        recording.replay(asking())


def test_a_recorder_holds_no_instance() -> None:
    recorder = Recorder()
    plugin = Plugin(asking(), functions=[host_fn("f")(upper)], observe=recorder)
    plugin.call("run", "abc")
    guest = weakref.ref(plugin._guest)
    gc.disable()
    try:
        plugin.close()
        assert guest() is None
    finally:
        gc.enable()
    assert len(recorder.recording.calls) == 1


def test_a_coroutine_is_recorded_and_replays_without_an_event_loop() -> None:
    async def f(plugin: CurrentPlugin, value: str) -> str:
        await asyncio.sleep(0)
        plugin.set_var("seen", value.encode())
        return value.upper()

    recorder = Recorder()
    with Plugin(asking(), functions=[host_fn("f")(f)], observe=recorder) as plugin:
        assert asyncio.run(plugin.call_async("run", "async")) == b"ASYNC"
    replay = recorder.recording.replay(asking())
    assert outputs(replay) == [b"ASYNC"]
    assert replay.calls[0].vars == {"seen": b"async"}


def test_calls_of_every_form_are_recorded() -> None:
    recorder = Recorder()
    with Plugin(asking(), functions=[host_fn("f")(upper)], observe=recorder) as plugin:
        assert plugin.call("run", "text", returns=str) == "TEXT"
        assert plugin.call("run", {"a": 1}) == b'{"A":1}'
        assert bytes(plugin.call("run", bytearray(b"view"), parse=None)) == b"VIEW"
        with pytest.raises(plugwasm.OutputError):
            plugin.call("run", "no number", returns=int)
    assert outputs(recorder.recording.replay(asking())) == [
        b"TEXT",
        b'{"A":1}',
        b"VIEW",
        b"NO NUMBER",
    ]


def test_an_isolated_plugin_cannot_be_recorded() -> None:
    with pytest.raises(TypeError, match="IsolatedPlugin cannot be recorded"):
        plugwasm.IsolatedPlugin(ENDS, observe=Recorder())


def test_a_recorder_goes_together_with_other_observers() -> None:
    from plugwasm.observing import Trace

    told: list[str] = []
    recorder = Recorder()
    with Plugin(
        asking(),
        functions=[host_fn("f")(upper)],
        observe=[Trace(lambda record: told.append(str(record))), recorder],
    ) as plugin:
        plugin.call("run", "abc")
    assert told == ["f('abc') -> 'ABC'", "run(b'abc') -> b'ABC'"]
    recorder.recording.replay(asking())


def test_host_functions_get_what_they_get_without_a_recorder() -> None:
    seen: list[Any] = []

    def f(plugin: CurrentPlugin, value: int) -> int:
        memory = plugin.memory_at_offset(value)
        seen.append(
            (
                bytes(plugin.memory(memory)),
                plugin.config,
                plugin.host_context(),
                plugin.var("a"),
                plugin.time_remaining() is not None,
            )
        )
        with pytest.raises(plugwasm.OutOfMemoryError):
            plugin.alloc(2**31)
        with pytest.raises(plugwasm.OutOfMemoryError):
            plugin.set_var("b", bytes(2**21))
        with pytest.raises(plugwasm.BadHandleError):
            plugin.memory(plugwasm.Memory(12345, 5))
        plugin.free(plugwasm.Memory(12345, 5))
        return value

    recorder = Recorder()
    for observe in (None, recorder):
        with Plugin(
            asking(),
            config={"k": "v"},
            vars={"a": b"1"},
            functions=[host_fn("f")(f)],
            observe=observe,
        ) as plugin:
            assert plugin.call("run", "abc", host_context=4) == b"abc"
    assert seen == [(b"abc", {"k": "v"}, 4, b"1", True)] * 2
    recorder.recording.replay(asking())


# Files


def test_what_is_no_file_is_not_replaced_by_a_recording(tmp_path: Path) -> None:
    recording = recorded(ENDS, ("fine", b"x"))
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "link", "folder"):
        with pytest.raises(OSError, match="something else than a file"):
            recording.save(tmp_path / name)
    assert sorted(os.listdir(tmp_path)) == ["folder", "link", "pipe"]
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_an_interrupt_while_a_recording_is_written_goes_through_and_leaves_nothing(
    tmp_path: Path, monkeypatch: Any
) -> None:
    recording = recorded(ENDS, ("fine", b"x"))
    for name in ("open", "replace"):
        real = getattr(os, name)

        def interrupted(*args: Any, real: Any = real) -> None:
            real(*args)
            raise KeyboardInterrupt  # of a signal handler, right after it

        with monkeypatch.context() as patched:
            patched.setattr(os, name, interrupted)
            with pytest.raises(KeyboardInterrupt):
                recording.save(tmp_path / name)
    assert os.listdir(tmp_path) == ["replace"]


def test_a_plugin_of_any_name_is_recorded(tmp_path: Path) -> None:
    with Plugin(ENDS, name="\U00010400" * 100, observe=Recorder(tmp_path)) as plugin:
        plugin.call("fine")
    (file,) = tmp_path.iterdir()
    load(file).replay(ENDS)


def test_a_saved_recording_is_private_and_read_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "recording.json"
    recording = recorded(asking(), ("run", b"\xff\0abc"), functions=[host_fn("f")(answers()[1])])
    recording.save(path)
    recording.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["recording.json"]
    content = path.read_bytes()
    assert load(path).to_json() == content
    load(path).save(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"{}", "plugwasm_recording"),
        (b"[]", "Expected `object`"),
        (b"nonsense", "no recording"),
        (b"\xff\xfe", "no recording"),
        (b'{"plugwasm_recording": 2}', "version 2 .* update it"),
        (b'{"plugwasm_recording": 1}', "plugin"),
        (b'{"plugwasm_recording": 0, "plugin": "x", "modules": [], "main": "x"}', ">= 1"),
        (b"[" * 100_000, "nested too deep"),
        (
            b'{"plugwasm_recording": 1, "plugin": "x", "modules": [], "main": "x", "more": 1}',
            "unknown field `more`",
        ),
        (
            b'{"plugwasm_recording": 1, "plugin": "x", "modules": [], "main": "x", "calls": [{"function": "f", "input": {}}]}',
            "text",
        ),
        (
            b'{"plugwasm_recording": 1, "plugin": "x", "modules": [], "main": "x", "calls": [{"function": "f", "input": {"text": ""}}]}',
            "output",
        ),
    ],
)
def test_what_is_no_recording_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "recording.json"
    path.write_bytes(content)
    with pytest.raises(RecordingError, match=message):
        load(path)


def test_a_recording_without_calls_is_no_test() -> None:
    from plugwasm._recording.recording import loads

    document = json.loads(recorded(ENDS, ("fine", b"x")).to_json())
    for calls in ({"calls": []}, {}):
        del document["calls"]
        document |= calls
        with pytest.raises(RecordingError, match="no calls"):
            loads(json.dumps(document).encode()).replay(ENDS)


def test_no_text_of_a_recording_reaches_a_terminal_as_it_is() -> None:
    from plugwasm._recording.recording import loads

    bad = "\x1b[31m"
    texts: list[tuple[str, str]] = [
        ('"plugin": "plugin"', f'"plugin": "{bad}"'),
        ('"name": "f"', f'"name": "{bad}"'),
        ('"function": "run"', f'"function": "{bad}"'),
        ('"text": "abc"', f'"text": "{bad}"'),
        ('"main": "main"', f'"main": "main", "{bad}": 1'),
        ('"main": "main"', f'"main": "main", "limits": {{"{bad}": 1}}'),
        ('"main": "main"', f'"main": "main", "incomplete": "{bad}"'),
        (
            '"main": "main"',
            f'"main": "main", "vars": {{"{bad}": {{"text": "{bad}"}}}}, "wasi": "{bad}"',
        ),
        (
            '"results": [',
            f'"error": {{"type": "RecordingError", "message": "{bad}"}}, "results": [',
        ),
        ('"results": [', f'"error": {{"type": "{bad}", "message": "{bad}"}}, "results": ['),
    ]
    text = json.dumps(
        json.loads(recorded(asking(), ("run", "abc"), functions=[host_fn("f")(upper)]).to_json())
    )
    text = text.replace('"output": {"text": "ABC"}', '"output": {"text": "another"}')
    for was, now in texts:
        assert was in text
        with pytest.raises(plugwasm.Error) as caught:
            loads(text.replace(was, now.replace("\x1b", "\\u001b")).encode()).replay(asking())
        assert caught.value.message.replace("\n", "").isprintable(), now


def test_a_recording_cannot_end_the_process_by_its_limits() -> None:
    script = f"""
import json
from plugwasm import Limits, Plugin, recording
from plugwasm._recording.recording import loads
source = {guest(export("run", "(call $echo)"))!r}
recorder = recording.Recorder()
with Plugin(source, observe=recorder) as plugin:
    plugin.call("run", "x")
for size in (2**22, 2**28):
    document = json.loads(recorder.recording.to_json()) | {{"limits": {{"stack_bytes": size}}}}
    try:
        loads(json.dumps(document).encode()).replay(source, limits=Limits(stack_bytes=2**28))
    except recording.ReplayError as error:
        assert "stack" in str(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_file_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="no such file"):
        load(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("was", "now", "error"),
    [
        ('{"block":0}', '{"block":5}', RecordingError),
        ('{"block":0}', '{"param":7}', RecordingError),
        ('{"block":0}', '{"text":"x"}', RecordingError),
        ('{"block":0}', '{"i32":0}', ReplayError),
        ('{"block":0}', '{"i64":512}', ReplayError),
        ('[{"block":0}]', "[]", ReplayError),
        ('{"do":"put","data":{"text":"ABC"}}', '{"do":"alloc","size":4294967296}', ReplayError),
        (
            '{"do":"put","data":{"text":"ABC"}}',
            '{"do":"free","block":{"i64":-1}},{"do":"put","data":{"text":"ABC"}}',
            None,
        ),
        (
            '{"do":"put","data":{"text":"ABC"}}',
            '{"do":"put","data":{"text":"ABC"}},{"do":"write","block":{"block":0},"at":99,"data":{"text":"x"}}',
            None,
        ),
        (
            '{"do":"put","data":{"text":"ABC"}}',
            '{"do":"put","data":{"text":"ABC"}},{"do":"set_var","name":"x","data":{"text":"x"}}',
            ReplayError,
        ),
        ('"limits":{}', '"limits":{"memories":-1}', RecordingError),
        ('"limits":{}', '"limits":{"nothing":1}', RecordingError),
        ('"limits":{}', '"limits":{"compile_seconds":null,"compile_bytes":null}', RecordingError),
        ('"limits":{}', '"limits":{"memory_bytes":65536}', ReplayError),
        ('"limits":{}', '"fuel_limit":10', ReplayError),
        ('"limits":{}', '"vars":{"x":{"text":"' + "x" * 2_000_000 + '"}}', RecordingError),
    ],
)
def test_a_recording_that_was_tampered_with_does_no_harm(
    was: str, now: str, error: type[Exception] | None
) -> None:
    from plugwasm._recording.recording import loads

    recording = recorded(asking(), ("run", "abc"), functions=[host_fn("f")(upper)])
    document = json.loads(recording.to_json())
    document.setdefault("limits", {})
    text = json.dumps(document, separators=(",", ":"))
    assert was in text
    tampered = loads(text.replace(was, now).encode())
    if error is None:
        tampered.replay(asking())
    else:
        with pytest.raises(error):
            tampered.replay(asking())


def mutated(value: Any, chance: random.Random) -> Any:
    """The document with one thing changed."""
    places: list[tuple[Any, Any]] = []

    def visit(node: Any) -> None:
        for key in node if isinstance(node, dict) else range(len(node)):
            places.append((node, key))
            if isinstance(node[key], (dict, list)):
                visit(node[key])

    visit(value)
    node, key = chance.choice(places)
    kind = chance.randrange(6)
    if kind == 0:
        del node[key]
    elif kind == 1 and isinstance(node[key], int):
        node[key] = chance.choice(
            [0, -1, 1, 31, 512, 544, 2**31, 2**32, 2**63 - 1, -(2**63), node[key] + 1]
        )
    elif kind == 2 and isinstance(node[key], str):
        node[key] = chance.choice(["", "x" * 1000, node[key] + "x", "\0", "AAAA"])
    elif kind == 3 and isinstance(node, list):
        node.insert(key, copy.deepcopy(node[key]))
    elif kind == 4:
        other, at = chance.choice(places)
        node[key] = copy.deepcopy(other[at])
    elif kind == 5 and isinstance(node, list):
        node.reverse()
    return value


def test_random_changes_to_a_recording_are_refused_or_replayed(tmp_path: Path) -> None:
    from plugwasm._recording.recording import loads

    (tmp_path / "a.txt").write_text("content")
    source = wasi_guest(
        """(func (export "run") (local $block i64)
          (drop (call $clock_time_get (i32.const 0) (i64.const 1) (i32.const 64)))
          (drop (call $random_get (i32.const 72) (i32.const 8)))
          (i32.store (i32.const 0) (i32.const 128)) (i32.store (i32.const 4) (i32.const 20))
          (drop (call $fd_read (i32.const 3) (i32.const 0) (i32.const 1) (i32.const 16)))
          (local.set $block (call $f <<abc>>))
          (call $var_set <<name>> (local.get $block))
          (call $give (call $config_get <<key>>)))""",
        importing("f", "(param i64) (result i64)"),
    )

    def f(plugin: CurrentPlugin, value: int) -> int:
        plugin.memory(plugin.memory_at_offset(value))[:1] = b"X"
        plugin.set_var("more", b"1")
        plugin.free(plugin.alloc(5))
        return plugin.alloc(30).offset

    recording = recorded(
        source,
        ("run", "a"),
        ("run", "b"),
        functions=[host_fn("f")(f)],
        wasi=True,
        config={"key": "x"},
    )
    recording.replay(source)
    content = recording.to_json()
    chance = random.Random(4)
    outcomes = {"refused": 0, "different": 0, "replayed": 0}
    compiled = source
    for _ in range(250):
        document = json.loads(content)
        document.setdefault("limits", {})
        try:
            loads(json.dumps(mutated(document, chance)).encode()).replay(compiled)
            outcomes["replayed"] += 1
        except RecordingError:
            outcomes["refused"] += 1
        except ReplayError:
            outcomes["different"] += 1
    assert min(outcomes.values()) > 10
    for _ in range(300):
        octets = bytearray(content)
        octets[chance.randrange(len(octets))] = chance.randrange(256)
        del octets[chance.randrange(len(octets), 2 * len(octets)) :]
        try:
            loads(bytes(octets))
        except RecordingError:
            pass


def test_a_recording_does_not_raise_the_limits_of_whoever_replays_it() -> None:
    wide = Limits(memory_bytes=2**32, timeout=None)
    recording = recorded(guest(export("run", "(call $echo)")), ("run", "abc"), limits=wide)
    with pytest.raises(
        RecordingError,
        match=r"recorded with memory_bytes=4294967296, more than 1073741824.*`limits`",
    ):
        recording.replay(guest(export("run", "(call $echo)")))
    assert (
        recording.replay(guest(export("run", "(call $echo)")), limits=wide).calls[0].output
        == b"abc"
    )
