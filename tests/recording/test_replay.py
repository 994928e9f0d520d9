"""Replays without the outside: every kind of answer by the host, and plugins of several modules."""

from __future__ import annotations

import functools
import json
import logging
import os
import shutil
import socket
import struct
import sys
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import plugwasm
from plugwasm import CurrentPlugin, Function, Plugin, Val, ValType, host_fn
from plugwasm.recording import Recorder, load
from tests.support.guests import export, guest, manifest
from tests.support.http_server import Server, reply
from tests.support.paths import EXAMPLES, PLUGINS
from tests.support.recordings import (
    answer_functions,
    asking_plugin,
    import_of,
    outputs,
    record_calls,
    replay_error,
    two_asks,
    upper,
    wasi_guest,
)

sys.path.append(str(PLUGINS / "as"))

import as_cases
import cases
import verify

AS_PLUGIN = PLUGINS / "as" / "plugin.wasm"


def no_more(*_: Any) -> Any:
    raise AssertionError("a replay asks nobody")


# What the host answers, by kind


def test_host_function_is_not_called() -> None:
    """A recorded host function is not called in a replay."""
    asked: list[str] = []

    @host_fn()
    def f(value: str) -> str:
        asked.append(value)
        return value[::-1]

    recording = record_calls(asking_plugin(), ("run", "abc"), ("run", "äöü"))
    assert outputs(recording.replay(asking_plugin())) == [b"cba", "üöä".encode()]
    assert asked == ["abc", "äöü"]


@pytest.mark.parametrize("f", answer_functions(), ids=lambda f: f.__name__)
def test_host_function_effects(f: Callable[..., Any]) -> None:
    """Every effect of a host function on the plugin is replayed."""
    source = asking_plugin()
    recording = record_calls(
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
    another = asking_plugin(
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


def test_many_values_and_results() -> None:
    """Functions of many values and results replay bit by bit."""
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
        import_of("g", types),
    )
    signature = (
        [ValType.I64, ValType.I32, ValType.F64, ValType.F32],
        [ValType.I32, ValType.F64, ValType.I64, ValType.I64, ValType.F32],
    )
    recording = record_calls(
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
def test_floats_round_trip(number: str) -> None:
    """Every float is read back unchanged."""
    source = guest(
        f'(func (export "run") (drop (call $f (f64.const {number}))))',
        import_of("f", "(param f64) (result f64)"),
    )
    recording = record_calls(source, ("run", b""), functions=[host_fn("f")(echo_float)])
    value = recording.calls[0].host_calls[0].args[0]
    assert value.raw is not None
    assert value.f64 is not None
    if ":" not in number:
        assert struct.pack("<Q", value.raw) == struct.pack("<d", float(number))
    recording.replay(source)


def echo_float(value: float) -> float:
    return value


def test_numbers_are_not_blocks() -> None:
    """Numbers are not treated as blocks if the function declares them as numbers."""
    source = asking_plugin("(drop (call $f (i64.const 512)))")  # where the input is

    def f(value: int) -> int:
        return 0 if value == 512 else value

    recording = record_calls(source, ("run", "abc"), functions=[host_fn("f")(f)])
    assert [call.args[0].i64 for call in recording.calls[0].host_calls] == [544, 512]
    recording.replay(source)


def test_block_written_by_host_function() -> None:
    """A host function's write to a block is recorded whatever the block contained before."""

    # The host writes the same bytes where they still stand from the call before; another build has
    # other memory there.
    def f(plugin: CurrentPlugin, value: str) -> int:
        block = plugin.alloc(5)
        plugin.memory(block)[:] = b"hello"
        return block.offset

    recording = record_calls(
        asking_plugin(), ("run", "a"), ("run", "a"), functions=[host_fn("f")(f)]
    )
    another = asking_plugin(before="(drop (call $alloc (i64.const 4000)))")
    assert outputs(recording.replay(another)) == [b"hello", b"hello"]


# State: config, vars, logs


STATE = guest(
    export("config", "(call $give (call $config_get <<key>>))")
    + export("set", "(call $var_set <<name>> (call $copy))")
    + export("get", "(call $give (call $var_get <<name>>))")
    + export("level", "(call $answer (i64.extend_i32_u (call $get_log_level)))")
)


def test_config_vars_and_log_level() -> None:
    """Config, vars and the log level are as recorded."""
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


def test_config_change_of_refused_call() -> None:
    """A change of the config before a refused call is recorded."""
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

    measurement = types.SimpleNamespace(call_depth=0, recursion_limit=0)
    need = 2**20

    def has_room(self) -> bool:
        return False

    def room(self) -> int:
        return 0


def test_other_build_may_log_more() -> None:
    """Another build may log more and read other config."""
    recording = record_calls(STATE, ("config", b""), config={"key": "one", "more": "x"})
    another = guest(
        export(
            "config",
            "(call $log_info <<reading>>) (drop (call $config_get <<more>>)) (call $give (call $config_get <<key>>))",
        )
    )
    assert outputs(recording.replay(another)) == [b"one"]


def test_other_var_is_a_difference() -> None:
    """Another value of a var is a difference."""
    recording = record_calls(STATE, ("set", b"x" * 200 + b"1"))
    another = guest(export("set", "(call $var_set <<name>> <<else>>)"))
    error = replay_error(recording, another)
    assert "the var 'name' is" in error.recorded
    assert "the var 'name' is 'else'" in error.now
    nothing = guest(export("set", ""))
    assert replay_error(recording, nothing).now == "the var 'name' is not set"


# HTTP


def test_http_without_server() -> None:
    """HTTP responses come from the recording when the server is gone."""
    with Server(
        {"/a": reply(b"hello", headers=[("X-One", "1")]), "/b": reply(b"", status=503)}
    ) as server:
        source = {
            "wasm": [{"path": str(EXAMPLES / "http_get.wasm")}],
            "allowed_hosts": ["127.0.0.1"],
        }
        recording = record_calls(
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


def test_http_status_and_headers() -> None:
    """The status and headers are those of the recorded response."""
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
        recording = record_calls(
            granted, ("get", request), ("status", b""), ("get", "{"), http_response_headers=True
        )
    replay = recording.replay(source)
    assert json.loads(replay.calls[0].output or b"")["x-one"] == "1"
    assert replay.calls[1].output == (418).to_bytes(8, "little")
    assert type(replay.calls[2].error) is plugwasm.EgressError
    assert "not JSON" in str(replay.calls[2].error)


# WASI

FILES = str(EXAMPLES / "wasi_files.wasm")


def test_files_without_directory(tmp_path: Path) -> None:
    """Files are read and written in a replay without the directory."""
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
    recording = record_calls(source, *calls, wasi=True)
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


def test_file_writes_are_compared(tmp_path: Path) -> None:
    """Data written to a file must equal the recorded data."""
    source = {"wasm": [{"path": FILES}], "allowed_paths": {str(tmp_path): "/data"}}
    recording = record_calls(source, ("write", "/data/new.txt\nfresh"), wasi=True)
    content = recording.to_json().replace(b'"text": "fresh"', b'"text": "fresx"')
    path = tmp_path / "recording.json"
    path.write_bytes(content)
    error = replay_error(load(path), FILES)
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


def test_time_and_random() -> None:
    """Time and random bytes are as recorded, also for a build that writes them to other
    addresses."""
    recording = record_calls(CLOCK, ("look", b""), ("look", b""), wasi=True)
    replay = recording.replay(CLOCK)
    assert replay.calls[0].output != replay.calls[1].output
    another = CLOCK.replace("i32.const 64", "i32.const 640").replace(
        "i32.const 72", "i32.const 648"
    )
    assert outputs(recording.replay(another)) == outputs(replay)


def test_sleep_takes_no_time() -> None:
    """A recorded sleep takes no time."""
    body = """(i64.store (i32.const 0) (i64.const MARK)) (i32.store8 (i32.const 8) (i32.const 0))
        (i32.store (i32.const 16) (i32.const 1)) (i64.store (i32.const 24) (i64.const 1000000))
        (drop (call $poll_oneoff (i32.const 0) (i32.const 128) (i32.const 1) (i32.const 256)))
        (call $answer (i64.sub (i64.load (i32.const 128)) (i64.const MARK)))"""
    source = wasi_guest(export("nap", body.replace("MARK", "77")))
    slept: list[float] = []

    class Clock(plugwasm.Clock):
        def sleep(self, seconds: float, wait: Callable[[float], None]) -> None:
            slept.append(seconds)

    recording = record_calls(source, ("nap", b""), wasi=plugwasm.WasiOptions(clock=Clock()))
    assert slept == [0.001]
    (call,) = recording.calls[0].host_calls
    assert call.args[0].text == "clock 1 for 1000000 ns"
    another = wasi_guest(export("nap", body.replace("MARK", "4711")))  # its mark may be an address
    assert outputs(recording.replay(source)) == outputs(recording.replay(another)) == [bytes(8)]
    assert slept == [0.001]


def test_other_build_may_print_more() -> None:
    """Another build may write more to its streams."""
    say = "(i32.store (i32.const 0) (i32.const 16)) (i32.store (i32.const 4) (i32.const 3)) (i32.store (i32.const 16) (i32.const 0x0a6968))"
    say += "(drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))"
    quiet, loud = (
        wasi_guest(export("f", "(call $proc_exit (i32.const 0))")),
        wasi_guest(export("f", say + "(call $proc_exit (i32.const 0))")),
    )
    record_calls(quiet, ("f", b""), wasi=True).replay(loud)
    record_calls(loud, ("f", b""), wasi=True).replay(quiet)


def test_file_on_stream_descriptor(tmp_path: Path) -> None:
    """A file with the descriptor of a stream is not treated as a stream."""
    body = """(i64.store (i32.const 100) (i64.const 0x7478742e61)) ;; a.txt
        (drop (call $path_open (i32.const 3) (i32.const 0) (i32.const 100) (i32.const 5) (i32.const 1) (i64.const 64) (i64.const 0) (i32.const 0)
                               (i32.const 200)))
        (drop (call $fd_renumber (i32.load (i32.const 200)) (i32.const 1)))
        (i32.store (i32.const 0) (i32.const 16)) (i32.store (i32.const 4) (i32.const 3)) (i32.store (i32.const 16) (i32.const 0x0a6968))
        (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
        (call $answer (i64.load (i32.const 8)))"""
    source = wasi_guest(export("f", body))
    recording = record_calls(
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


def test_bad_pointers() -> None:
    """Bad pointers are refused in a replay as before."""
    source = wasi_guest(
        export(
            "f",
            """(call $answer (i64.extend_i32_u (i32.add
              (call $random_get (i32.const 0xfffffff0) (i32.const 64))
              (call $path_open (i32.const 3) (i32.const 0) (i32.const 0xfffffff0) (i32.const 5) (i32.const 1) (i64.const 64) (i64.const 0)
                               (i32.const 0) (i32.const 200)))))""",
        )
    )
    recording = record_calls(source, ("f", b""), wasi=True)
    assert outputs(recording.replay(source)) == [(21 + 8).to_bytes(8, "little")]


def test_clock_exception() -> None:
    """An exception of the application's clock is replayed."""

    class Clock(plugwasm.Clock):
        def realtime(self) -> int:
            raise LookupError("no time")

    recording = record_calls(CLOCK, ("look", b""), wasi=plugwasm.WasiOptions(clock=Clock()))
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


def test_replay_uses_no_system_resources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A replay opens no socket and no file and reads no clock."""
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
        recording = record_calls(granted, ("f", request), wasi=True, http_response_headers=True)
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


def test_linked_modules() -> None:
    """Each of several linked modules gets its own recorded answers."""
    library = guest(
        '(func (export "twice") (param i64) (result i64) (call $f (call $f (local.get 0))))',
        import_of("f", "(param i64) (result i64)"),
    )
    main = guest(
        export("run", "(call $give (call $twice (call $copy)))"),
        import_of("twice", "(param i64) (result i64)", "library"),
    )
    source = manifest(("library", library), ("main", main))
    recording = record_calls(source, ("run", "ab"), functions=[host_fn("f")(answer_functions()[0])])
    assert outputs(recording.replay(source)) == [b"ab!!"]
    assert [module.name for module in recording.modules] == ["library", "main"]
    recording.replay(source, strict=True)


def test_a_linked_command_replays() -> None:
    tool = wasi_guest(
        """(func (export "_start"))
        (func (export "roll") (result i64) (drop (call $random_get (i32.const 0) (i32.const 8))) (i64.load (i32.const 0)))"""
    )
    main = guest(
        export("run", "(call $answer (call $roll))"), import_of("roll", "(result i64)", "tool")
    )
    source = manifest(("tool", tool), ("main", main))
    recording = record_calls(source, ("run", b""), ("run", b""), wasi=True)
    assert len(recording.calls[0].host_calls) == 1
    first, second = outputs(recording.replay(source))
    assert first != second


def test_host_calls_at_start() -> None:
    """Host calls while a plugin is started are recorded in its first call."""
    source = guest(
        """(global $kept (mut i64) (i64.const 0))
        (func (export "_initialize") (global.set $kept (call $now)))"""
        + export("when", "(call $answer (global.get $kept))"),
        import_of("now", "(result i64)"),
    )
    times = iter((17, 18, 19))
    recording = record_calls(
        source,
        ("when", b""),
        ("when", b""),
        functions=[Function(None, "now", [], [ValType.I64], lambda p, i, r: answer(r, times))],
    )
    assert [len(call.host_calls) for call in recording.calls] == [1, 0]
    assert outputs(recording.replay(source)) == [(17).to_bytes(8, "little")] * 2


def answer(results: list[Val], values: Iterator[int]) -> None:
    results[0].value = next(values)


def test_failed_start() -> None:
    """A plugin that fails to start fails in the replay."""
    source = guest('(func (export "_initialize") unreachable)' + export("f", ""))
    recording = record_calls(source, ("f", b""))
    assert outputs(recording.replay(source)) == ["TrapError"]


def test_added_and_removed_functions() -> None:
    """A plugin that imports more or fewer functions than recorded is still linked."""
    recording = record_calls(two_asks("one"), ("run", ""), functions=[host_fn("f")(upper)])
    another = guest(
        export("run", "(drop (call $f <<one>>)) (call $give <<done>>)")
        + export("new", "(call $g (i32.const 1))"),
        import_of("f", "(param i64) (result i64)"),
        import_of("g", "(param i32)", "somewhere"),
    )
    assert outputs(recording.replay(another)) == [b"done"]


def test_functions_in_place_of_builtins() -> None:
    """Functions that replace plugwasm's own are recorded."""
    source = guest(export("run", "(call $give (call $config_get <<key>>))"))

    @host_fn("config_get", namespace="extism:host/env")
    def config_get(key: str) -> str:
        return "mine: " + key

    recording = record_calls(source, ("run", ""))
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
    recording = record_calls(source, ("run", ""), functions=[mine], wasi=True)
    assert outputs(recording.replay(source)) == [(5).to_bytes(8, "little")]
    assert outputs(record_calls(source, ("run", ""), functions=[mine]).replay(source)) == [
        (5).to_bytes(8, "little")
    ]

    old = Function(
        "wasi_unstable", "random_get", [ValType.I32, ValType.I32], [ValType.I32], random_get
    )
    source = source.replace("wasi_snapshot_preview1", "wasi_unstable")
    assert outputs(record_calls(source, ("run", ""), functions=[old]).replay(source)) == [
        (5).to_bytes(8, "little")
    ]

    def memory_bytes(plugin: CurrentPlugin, inputs: list[Val], results: list[Val]) -> None:
        results[0].value = 6

    own = Function("extism:host/env", "memory_bytes", [], [ValType.I64], memory_bytes)
    source = guest(export("run", "(call $answer (call $memory_bytes))"))
    assert outputs(record_calls(source, ("run", ""), functions=[own]).replay(source)) == [
        (6).to_bytes(8, "little")
    ]


CASES = [
    *((case, EXAMPLES / f"{case.plugin}.wasm") for case in cases.CASES if case.loads),
    *((case, AS_PLUGIN) for case in as_cases.CASES if case.loads),
]


@pytest.mark.parametrize(
    ("case", "path"), CASES, ids=[f"{case.plugin}: {case.title}" for case, _ in CASES]
)
def test_plugins_of_usual_kits(case: cases.Case, path: Path, address: str) -> None:
    """Plugins built with common kits can be replayed."""
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
