"""Observed plugins: what calls are said to have taken, what observers are told, and that they can change nothing."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import pickle
import re
import subprocess
import sys
import threading
import time
import types
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

import pytest

import plugwasm
from plugwasm import (
    CompiledPlugin,
    CurrentPlugin,
    Function,
    IsolatedPlugin,
    Measured,
    Plugin,
    PluginPool,
    Val,
    ValType,
)
from plugwasm._runtime.call_queue import queued_calls
from plugwasm.observing import Call, CallLog, HostCall, Observer, Trace
from plugwasm.recording import Recorder
from tests.support.guests import LOOP, export, guest, manifest
from tests.support.paths import ROOT
from tests.support.threads import InThread
from tests.support.waiting import soon

USER = '(import "extism:host/user" "f" (func $f {}))'
PLAIN = USER.format("")
ECHO = guest(export("echo", "(call $echo)"))
SECONDS = ("seconds", "start_seconds", "guest_seconds", "host_seconds")


class Diary(Observer):
    """Keeps all that it is told."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.host_calls: list[HostCall] = []
        self.events: list[str] = []
        self.errors: list[BaseException | None] = []

    @contextmanager
    def on_call(self, call: Call) -> Iterator[None]:
        self.events.append(f"> {call.function}")
        error: BaseException | None = None
        try:
            yield
        except BaseException as raised:
            error = raised
            raise
        finally:
            self.calls.append(call)
            self.events.append(f"< {call.function}")
            self.errors.append(error)
            del error

    @contextmanager
    def on_host_call(self, call: HostCall) -> Iterator[None]:
        self.events.append(f"  > {call.name}")
        try:
            yield
        finally:
            self.host_calls.append(call)
            self.events.append(f"  < {call.name}")

    def shown(self) -> list[str]:
        return [str(call) for call in self.host_calls]


def calls_f(f: Any, type: str = "", code: str = "(call $f)", **options: Any) -> Plugin:
    """A plugin whose export `run` calls a host function."""
    function = f if isinstance(f, Function) else plugwasm.host_fn(name="f")(f)
    source = guest(
        export("run", code) + export("echo", "(call $echo)") + export("spin", LOOP),
        USER.format(type),
    )
    return Plugin(source, functions=[function], **options)


def nothing() -> None:
    pass


def adds_up(call: Call) -> bool:
    assert all(getattr(call, name) >= 0 for name in SECONDS)
    return call.seconds >= call.start_seconds + call.guest_seconds + call.host_seconds - 1e-9


# ---- figures -----------------------------------------------------------------------------------------------------------------------------


def test_time_that_a_host_function_sleeps_is_time_of_the_host() -> None:
    with calls_f(lambda: time.sleep(0.2), observe=True) as plugin:
        plugin.call("echo")
        call = plugin.call("run", returns=Measured).call
    assert 0.2 <= call.host_seconds <= call.seconds
    assert call.guest_seconds < call.host_seconds
    assert call.start_seconds == 0
    assert adds_up(call)


def test_time_that_a_guest_is_busy_is_time_of_the_guest() -> None:
    loop = "(call $f) (loop $next (br_if $next (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 30000000))))"
    source = guest(export("run", loop, "(local $i i32)") + export("echo", "(call $echo)"), PLAIN)
    with Plugin(source, functions=[plugwasm.host_fn(name="f")(nothing)], observe=True) as plugin:
        plugin.call("echo")
        call = plugin.call("run", returns=Measured).call
    assert call.guest_seconds > 10 * call.host_seconds
    assert call.guest_seconds > call.seconds / 2
    assert adds_up(call)


def test_what_a_host_function_takes_while_the_plugin_is_started_is_not_time_of_the_start() -> None:
    source = guest(export("_initialize", "(call $f)") + export("echo", "(call $echo)"), PLAIN)
    diary = Diary()
    with Plugin(
        source, functions=[plugwasm.host_fn(name="f")(lambda: time.sleep(0.2))], observe=diary
    ) as plugin:
        plugin.call("echo", "x")
        plugin.call("echo", "x")
    first, second = diary.calls
    assert first.host_calls == 1
    assert first.host_seconds >= 0.2 > first.start_seconds > 0 < first.guest_seconds < 0.2
    assert (second.host_calls, second.start_seconds, second.host_seconds) == (0, 0, 0)
    assert adds_up(first)
    assert adds_up(second)


def test_memory_is_the_most_that_the_instance_had_and_grows_with_it() -> None:
    source = guest(
        export("echo", "(call $echo)") + export("grow", "(drop (memory.grow (i32.const 10)))"),
        memory='(memory (export "memory") 1)',
    )
    with Plugin(source, observe=True) as plugin:
        sizes = [
            plugin.call(name, returns=Measured).call.memory_bytes
            for name in ("echo", "grow", "echo")
        ]
        assert [size - sizes[0] for size in sizes] == [0, 10 * 65536, 10 * 65536]
        plugin.reset()
        assert plugin.call("echo", returns=Measured).call.memory_bytes == sizes[0]


def test_fuel_is_what_this_call_used_and_nothing_where_it_has_no_limit() -> None:
    diary = Diary()
    with Plugin(ECHO, fuel_limit=10_000, observe=diary) as plugin:
        plugin.call("echo", b"x")
        assert diary.calls[0].fuel == plugin.fuel_used
        assert diary.calls[0].fuel > 0
        with pytest.raises(plugwasm.FunctionNotFoundError):
            plugin.call("missing")
        assert diary.calls[1].fuel is None
    with Plugin(ECHO, observe=diary) as plugin:
        plugin.call("echo", b"x")
    assert diary.calls[2].fuel is None


@pytest.mark.parametrize(
    "data",
    ["grüße", b"bytes", bytearray(b"x" * 9), memoryview(b"abcdef")[::2], {"a": 1}, "", [1.5, None]],
)
def test_the_input_and_the_output_are_what_the_guest_got_and_gave(data: object) -> None:
    with Plugin(ECHO, observe=True) as plugin:
        result = plugin.call("echo", data, returns=Measured[bytes])
        with Plugin(ECHO) as unobserved:
            assert result.value == unobserved.call("echo", data)
    assert result.call.input == result.call.output == result.value
    assert result.call.input_bytes == result.call.output_bytes == len(result.value)


def test_the_statistics_are_numbers_and_names_without_the_data() -> None:
    with Plugin(ECHO, name="mine", observe=True, fuel_limit=1000) as plugin:
        call = plugin.call("echo", "secret", host_context="secret", returns=Measured[str]).call
    statistics = call.statistics()
    assert "secret" not in json.dumps(statistics) + repr(call)
    assert statistics | dict.fromkeys((*SECONDS, "fuel", "memory_bytes"), 0) == {
        "plugin": "mine",
        "function": "echo",
        "error": None,
        "seconds": 0,
        "start_seconds": 0,
        "guest_seconds": 0,
        "host_seconds": 0,
        "host_calls": 0,
        "http_requests": 0,
        "input_bytes": 6,
        "output_bytes": 6,
        "fuel": 0,
        "memory_bytes": 0,
    }


# ---- every way that a call can end -----------------------------------------------------------------------------------------------------


def raising(error: BaseException) -> Any:
    def f() -> None:
        raise error

    return f


ENDINGS = guest(
    export("ok", "(call $echo)")
    + export("trap", "unreachable")
    + export("fail", "(call $error_set <<no>>)")
    + '(func (export "code") (result i32) (i32.const 3)) (func (export "odd") (param i32))'
    + export("spin", LOOP)
    + export("handle", "(call $output_set (i64.const 12345) (i64.const 1))")
    + export("host", "(call $f)")
    + export("http", '(drop (call $http_request <<{"url":"http://a.test/"}>> (i64.const 0)))')
    + export(
        "grow",
        "(loop $more (br_if $more (i32.ge_s (memory.grow (i32.const 1)) (i32.const 0)))) unreachable",
    ),
    PLAIN,
    memory='(memory (export "memory") 1)',
)


@pytest.mark.parametrize("fresh", [True, False], ids=["first call", "later call"])
@pytest.mark.parametrize(
    ("function", "error", "options"),
    [
        ("ok", None, {}),
        ("trap", "TrapError", {}),
        ("fail", "GuestError", {}),
        ("code", "GuestError", {}),
        ("odd", "SignatureError", {}),
        ("missing", "FunctionNotFoundError", {}),
        ("spin", "TimeoutError", {"limits": plugwasm.Limits(timeout=0.3)}),
        ("spin", "OutOfFuelError", {"fuel_limit": 100_000}),
        ("handle", "BadHandleError", {}),
        ("host", "HostFunctionError", {"raises": ValueError("no")}),
        ("host", "KeyboardInterrupt", {"raises": KeyboardInterrupt()}),
        ("http", "EgressDeniedError", {}),
        ("grow", "OutOfMemoryError", {"limits": plugwasm.Limits(memory_bytes=2**20)}),
    ],
)
def test_every_call_is_told_of_once_with_the_error_that_it_raised(
    function: str, error: str | None, options: dict[str, Any], fresh: bool
) -> None:
    options = dict(options)
    raises = options.pop("raises", None)
    diary = Diary()
    host = Function(None, "f", [], [], lambda *_: raising(raises)() if raises else None)
    raised: BaseException | None = None
    with Plugin(ENDINGS, functions=[host], observe=diary, **options) as plugin:
        if not fresh:
            plugin.call("ok")
            diary.__init__()  # type: ignore[misc]
        try:
            plugin.call(function)
        except BaseException as exception:
            raised = exception
        assert [event for event in diary.events if not event.startswith("  ")] == [
            f"> {function}",
            f"< {function}",
        ]
        assert diary.errors == [raised]
        assert diary.calls[0].error == error == (None if raised is None else type(raised).__name__)
        assert (diary.calls[0].output is None) == (error is not None)
        assert adds_up(diary.calls[0])
        assert plugin.call("ok", "still here") == b"still here"


def test_outputs_that_cannot_be_read_and_parsers_that_raise_are_errors_of_the_call() -> None:
    diary = Diary()
    with Plugin(ECHO, observe=diary) as plugin:
        with pytest.raises(plugwasm.OutputError):
            plugin.call("echo", "x", returns=int)
        with pytest.raises(ValueError, match="invalid literal"):
            plugin.call("echo", "x", int)
        with pytest.raises(plugwasm.OutputError):
            plugin.call("echo", "x", returns=Measured[int])
    assert [call.error for call in diary.calls] == ["OutputError", "ValueError", "OutputError"]
    assert [type(error).__name__ for error in diary.errors] == [
        "OutputError",
        "ValueError",
        "OutputError",
    ]


def test_an_instance_that_does_not_start_is_an_error_of_the_call() -> None:
    diary = Diary()
    with Plugin(
        guest(export("_initialize", "unreachable") + export("run", "")), observe=diary
    ) as plugin:
        for _ in range(2):
            with pytest.raises(plugwasm.TrapError):
                plugin.call("run")
    assert diary.events == ["> run", "< run"] * 2
    assert [(call.error, call.memory_bytes is not None) for call in diary.calls] == [
        ("TrapError", True)
    ] * 2
    assert all(call.start_seconds > 0 and adds_up(call) for call in diary.calls)


def test_a_cancelled_call_one_that_waited_too_long_and_one_of_a_closed_plugin_are_told_of() -> None:
    diary = Diary()
    plugin = calls_f(nothing, observe=diary)
    thread = InThread(plugin.call, "spin")
    assert soon(lambda: plugin._guest is not None and not hasattr(plugin, "_idle"))
    second = InThread(plugin.call, "run")
    assert soon(lambda: queued_calls(plugin))
    queued_calls(plugin)[0].cancel()
    with pytest.raises(plugwasm.CancelledError):
        second.result()
    assert diary.events == ["> spin", "> run", "< run"]
    assert soon(plugin.cancel_handle().cancel)
    with pytest.raises(plugwasm.CancelledError):
        thread.result()
    plugin.close()
    with pytest.raises(plugwasm.ClosedError):
        plugin.call("run")
    assert [(call.function, call.error) for call in diary.calls] == [
        ("run", "CancelledError"),
        ("spin", "CancelledError"),
        ("run", "ClosedError"),
    ]
    assert diary.calls[0].guest_seconds == 0


def test_a_call_that_meets_another_one_runs_when_that_has_ended() -> None:
    diary, release = Diary(), threading.Event()
    plugin = calls_f(lambda: release.wait(5) and None, observe=diary)
    first = InThread(plugin.call, "run")
    assert soon(lambda: "  > f" in diary.events)
    second = InThread(plugin.call, "run")
    assert soon(lambda: queued_calls(plugin))
    time.sleep(0.2)
    release.set()
    first.result()
    second.result()
    assert diary.events == ["> run", "  > f", "> run", "  < f", "< run", "  > f", "  < f", "< run"]
    waited = diary.calls[-1]
    assert waited.seconds > 0.2 > waited.guest_seconds


# ---- host calls ------------------------------------------------------------------------------------------------------------------------


def test_functions_of_the_environment_are_seen_with_their_arguments_and_results() -> None:
    source = guest(
        export(
            "run",
            """(drop (call $config_get <<key>>)) (drop (call $config_get <<none>>)) (call $var_set <<v>> <<value>>) (drop (call $var_get <<v>>))
            (call $var_set <<v>> (i64.const 0)) (drop (call $var_get <<v>>)) (call $log_warn <<careful>>) (drop (call $http_status_code))
            (drop (call $http_headers)) (drop (call $http_request <<{"url": "http://u:p@a.test/?q=1", "method": "post"}>> <<body>>))""",
        )
    )
    diary = Diary()
    with (
        Plugin(source, config={"key": "set"}, observe=diary) as plugin,
        pytest.raises(plugwasm.EgressDeniedError),
    ):
        plugin.call("run")
    assert diary.shown() == [
        "config_get('key') -> 'set'",
        "config_get('none') -> ''",
        "var_set('v', b'value')",
        "var_get('v') -> b'value'",
        "var_set('v', b'')",
        "var_get('v') -> b''",
        "log_warn('careful')",
        "http_status_code() -> 0",
        "http_headers() -> ''",
        """http_request('{"url": "http://u:p@a.test/?q=1", "method": "post"}', b'body') raised EgressDeniedError""",
    ]
    assert {call.namespace for call in diary.host_calls} == {"extism:host/env"}
    http = diary.host_calls[-1].http
    assert http is not None
    assert (http.method, http.url, http.status) == ("POST", "http://u:p@a.test/?q=1", None)
    assert [(call.host_calls, call.http_requests, call.error) for call in diary.calls] == [
        (10, 1, "EgressDeniedError")
    ]


@pytest.mark.parametrize(
    "document",
    [
        "(i64.const 0)",
        "(i64.const 99999999)",
        "<<not json>>",
        "<<[1]>>",
        '<<{"url": 5, "method": {"a": "b"}}>>',
        f"<<{'[' * 5000}>>",
        "(call $alloc (i64.const 3000000))",
        '<<{"url": "http://a.test", "method": "\\ud800"}>>',
    ],
)
def test_a_request_document_that_is_none_is_no_trouble_for_those_who_watch(document: str) -> None:
    source = guest(export("run", f"(drop (call $http_request {document} (i64.const 0)))"))
    granted = manifest(source, allowed_hosts=["a.test"])
    errors = []
    diary = Diary()
    for options in ({}, {"observe": diary}):
        with (
            Plugin(granted, egress=plugwasm.Egress(allowed_hosts=[]), **options) as plugin,
            pytest.raises(plugwasm.Error) as caught,
        ):  # type: ignore[arg-type]
            plugin.call("run")
        errors.append((type(caught.value), caught.value.message))
    assert errors[0] == errors[1]
    assert diary.host_calls[0].http is not None
    assert diary.host_calls[0].http.status is None


HUGE = "(local $b i64) (local.set $b (call $alloc (i64.const 209715200)))"


@pytest.mark.parametrize("call", ["(call $log_trace (local.get $b))", "(call $f (local.get $b))"])
def test_of_a_huge_block_only_its_beginning_is_copied_for_those_who_watch(call: str) -> None:
    function = Function(
        "extism:host/user", "f", [ValType.I64], [], lambda plugin, inputs, results: None
    )
    diary = Diary()
    with Plugin(
        guest(export("run", HUGE + call), USER.format("(param i64)")),
        functions=[function],
        observe=diary,
    ) as plugin:
        plugin.call("run")
    assert [len(host_call.args[0]) for host_call in diary.host_calls] == [16 * 2**20]


def test_observed_plugins_that_the_pool_has_no_room_for_work_as_others_do() -> None:
    recorder = Recorder()
    compiled = CompiledPlugin(
        guest(export("echo", "(call $echo)"), memory='(memory (export "memory") 1)'),
        observe=recorder,
    )
    plugins = [Plugin(compiled) for _ in range(400)]  # three memories each, and the pool has 1024
    assert [plugin.call("echo", "x", returns=Measured[str]).value for plugin in plugins] == [
        "x"
    ] * 400
    assert all(recording.calls for recording in recorder.recordings)


def test_an_application_sees_all_of_a_call_in_one_line_of_its_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with (
        caplog.at_level("INFO"),
        Plugin(ECHO, observe=CallLog()) as plugin,
        pytest.raises(plugwasm.FunctionNotFoundError),
    ):
        plugin.call("echo\nWARNING: all is well\x1b[31m")
    assert caplog.messages[0].isprintable()


@dataclass
class Point:
    x: int
    y: int


def _pair(a: int, b: float) -> tuple[int, str]:
    return a + 1, f"{b}"


def _of_values(plugin: CurrentPlugin, args: list[Val], results: list[Val]) -> None:
    results[0].value = args[0].value * 2


def _with_plugin(plugin: CurrentPlugin, text: str) -> str:
    return text + str(plugin.host_context())


def _shout(text: str) -> str:
    return text.upper()


def _json(value: Annotated[dict[str, int], plugwasm.Json]) -> Annotated[list[int], plugwasm.Json]:
    return list(value.values())


def _point(point: Point) -> Point:
    return Point(point.y, point.x)


def _bytes(data: bytes) -> bytes:
    return data[::-1]


def _flag(flag: bool) -> bool:
    return not flag


def _pickled(number: int) -> Annotated[dict[str, int], plugwasm.Pickle]:
    return {"n": number}


def _hexed(value: Annotated[int, plugwasm.Codec(lambda data: int(data, 16))]) -> None:
    assert value == 255


I64, F64 = ValType.I64, ValType.F64


@pytest.mark.parametrize(
    ("f", "type", "code", "args", "results"),
    [
        (_shout, "(param i64) (result i64)", "(call $give (call $f <<hi>>))", ("hi",), ("HI",)),
        (_shout, "(param i64) (result i64)", "(drop (call $f (i64.const 0)))", ("",), ("",)),
        (
            _bytes,
            "(param i64) (result i64)",
            "(call $give (call $f <<abc>>))",
            (b"abc",),
            (b"cba",),
        ),
        (
            _json,
            "(param i64) (result i64)",
            '(call $give (call $f <<{"a": 7}>>))',
            ({"a": 7},),
            ([7],),
        ),
        (
            _point,
            "(param i64) (result i64)",
            '(call $give (call $f <<{"x": 1, "y": 2}>>))',
            (Point(1, 2),),
            (Point(2, 1),),
        ),
        (_flag, "(param i32) (result i32)", "(drop (call $f (i32.const 1)))", (True,), (False,)),
        (
            _with_plugin,
            "(param i64) (result i64)",
            "(call $give (call $f <<is >>))",
            ("is ",),
            ("is None",),
        ),
        (
            _pair,
            "(param i64 f64) (result i64 i64)",
            "(drop (drop (call $f (i64.const -4) (f64.const 2.5))))",
            (-4, 2.5),
            (-3, "2.5"),
        ),
        (_hexed, "(param i64)", "(call $f <<ff>>)", (b"ff",), ()),
        (
            _pickled,
            "(param i64) (result i64)",
            "(call $give (call $f (i64.const 5)))",
            (5,),
            (pickle.dumps({"n": 5}),),
        ),
        (
            Function(None, "f", [I64], [I64], _of_values),
            "(param i64) (result i64)",
            "(drop (call $f (i64.const 21)))",
            (21,),
            (42,),
        ),
        (
            Function(None, "f", [F64], [F64], _of_values),
            "(param f64) (result f64)",
            "(drop (call $f (f64.const 1.5)))",
            (1.5,),
            (3.0,),
        ),
        (
            Function(None, "f", [I64], [], lambda *_: None),
            "(param i64)",
            "(call $f <<block>>)",
            (b"block",),
            (),
        ),
        (Function(None, "f", [], [], lambda *_: None), "", "(call $f)", (), ()),
    ],
)
def test_functions_of_the_application_are_seen_with_values_of_their_types(
    f: Any, type: str, code: str, args: tuple[Any, ...], results: tuple[Any, ...]
) -> None:
    for make in (Plugin, IsolatedPlugin) if f in (_shout, _pair) else (Plugin,):
        diary = Diary()
        function = f if isinstance(f, Function) else plugwasm.host_fn(name="f")(f)
        with make(
            guest(export("run", code), USER.format(type)), functions=[function], observe=diary
        ) as plugin:
            plugin.call("run")
        (call,) = diary.host_calls
        assert (call.namespace, call.name, call.args, call.results, call.error) == (
            "extism:host/user",
            "f",
            args,
            results,
            None,
        )
        assert call.call is diary.calls[0]
        assert 0 < call.seconds <= diary.calls[0].host_seconds + 1e-9


@pytest.mark.parametrize(
    ("annotation", "argument", "seen"),
    [
        (Annotated[int, plugwasm.Codec(lambda data: int(data, 16))], "<<12>>", b"12"),
        (Annotated[int, "a number"], "<<x>>", 1024),
        (Annotated[str, plugwasm.Json], '<<"text">>', "text"),
        (dict[str, int], "<<{}>>", {}),
        (dict[str, int], "<<not json>>", b"not json"),
        (str, "<<text>>", "text"),
    ],
)
def test_arguments_are_shown_as_the_function_takes_them_or_else_as_bytes(
    annotation: Any, argument: str, seen: object
) -> None:
    def body(value: Any) -> None:
        pass

    body.__annotations__ = {"value": annotation, "return": None}
    diary = Diary()
    with calls_f(body, "(param i64)", f"(call $f {argument})", observe=diary) as plugin:
        try:
            plugin.call("run")
        except plugwasm.HostFunctionError:
            assert seen == b"not json"
    (value,) = diary.host_calls[0].args
    assert type(value) is type(seen)
    assert value == seen or seen == 1024


def test_json_that_is_nested_too_deep_for_a_parser_stays_bytes() -> None:
    script = f"""
import sys, threading
sys.path[:0] = {[str(ROOT)]!r}
import plugwasm
from tests.support.guests import guest, export
from plugwasm.observing import HostCall, Trace
sys.setrecursionlimit(10**6)

@plugwasm.host_fn()
def f(value: list[object]) -> None:
    pass

fill = "(local.set $at (call $alloc (i64.const 400000))) (loop $n (call $store_u8 (i64.add (local.get $at) (local.get $i)) (i32.const 91))"
fill += " (br_if $n (i64.lt_u (local.tee $i (i64.add (local.get $i) (i64.const 1))) (i64.const 400000))))"
source = guest(export("run", fill + "(call $f (local.get $at))", "(local $at i64) (local $i i64)"), '(import "extism:host/user" "f" (func $f (param i64)))')
seen = []
with plugwasm.Plugin(source, functions=[f], observe=Trace(seen.append)) as plugin:
    try:
        plugin.call("run")
    except plugwasm.HostFunctionError as error:
        print(type(error.__cause__).__name__, len(seen[0].args[0]))
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(" 400000\n")


def test_what_a_host_function_raises_is_told_by_its_own_name() -> None:
    diary = Diary()
    with (
        calls_f(raising(LookupError("no")), observe=diary) as plugin,
        pytest.raises(plugwasm.HostFunctionError),
    ):
        plugin.call("run")
    assert diary.shown() == ["f() raised LookupError"]


def test_functions_of_wasi_are_seen_and_leaving_is_no_error_of_theirs() -> None:
    wasi = """(import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))"""
    code = "(i32.store (i32.const 0) (i32.const 8)) (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 4)))"
    source = guest(
        export("run", f"{code} (call $proc_exit (i32.const 0))"),
        wasi,
        memory='(memory (export "memory") 1)',
    )
    diary = Diary()
    with Plugin(source, wasi=True, observe=diary) as plugin:
        plugin.call("run")
    assert diary.shown() == ["fd_write(1, 0, 1, 4) -> 0", "proc_exit(0)"]
    assert {call.namespace for call in diary.host_calls} == {"wasi_snapshot_preview1"}
    assert diary.calls[0].error is None


def test_calls_by_linked_modules_are_seen_also_from_commands_with_stores_of_their_own() -> None:
    library = guest('(func (export "g") (call $log_info <<of the library>>))')
    command = guest(
        '(func (export "_start")) (func (export "g") (call $log_info <<of the command>>) (call $f))',
        PLAIN,
    )
    imports = '(import "library" "g" (func $g)) (import "command" "g" (func $h))'
    main = guest(export("run", "(call $g) (call $h) (call $h)"), imports)
    diary = Diary()
    functions = [plugwasm.host_fn(name="f")(lambda: time.sleep(0.05))]
    with Plugin(
        manifest(("library", library), ("command", command), main),
        functions=functions,
        observe=diary,
    ) as plugin:
        plugin.call("run")
    assert diary.shown() == [
        "log_info('of the library')",
        *["log_info('of the command')", "f()"] * 2,
    ]
    assert diary.calls[0].host_calls == 5
    assert diary.calls[0].host_seconds >= 0.1
    assert adds_up(diary.calls[0])


def test_the_way_around_a_circle_of_modules_is_no_host_call_and_time_on_it_counts_once() -> None:
    a = '(module (import "main" "back" (func $back)) (func (export "go") (call $back)))'
    imports = '(import "a" "go" (func $go))'
    main = guest(export("run", "(call $go)") + '(func (export "back") (call $f))', imports, PLAIN)
    diary = Diary()
    functions = [plugwasm.host_fn(name="f")(lambda: time.sleep(0.1))]
    with Plugin(manifest(("a", a), ("main", main)), functions=functions, observe=diary) as plugin:
        plugin.call("run")
    assert diary.shown() == ["f()"]
    assert diary.calls[0].host_seconds >= 0.1
    assert adds_up(diary.calls[0])


def test_a_host_function_that_calls_another_observed_plugin_has_all_of_its_time() -> None:
    diary = Diary()
    with (
        calls_f(lambda: time.sleep(0.1), observe=diary, name="inner") as inner,
        calls_f(lambda: inner.call("run") and None, observe=diary) as outer,
    ):
        outer.call("run")
    assert diary.events == ["> run", "  > f", "> run", "  > f", "  < f", "< run", "  < f", "< run"]
    second, first = diary.calls
    assert 0.1 <= second.host_seconds <= second.seconds <= first.host_seconds <= first.seconds
    assert [call.call.plugin for call in diary.host_calls] == ["inner", first.plugin]


# ---- observers that misbehave ------------------------------------------------------------------------------------------------------------


class Manager:
    """A context manager that does what it is told to."""

    def __init__(self, enter: Any, leave: Any) -> None:
        self._enter, self._leave = enter, leave

    def __enter__(self) -> object:
        return self._enter()

    def __exit__(self, *_: object) -> Any:
        return self._leave()


def fails() -> None:
    raise RuntimeError("of the observer")


BAD = {
    "raises": lambda record: fails(),
    "raises on entry": lambda record: Manager(fails, nothing),
    "raises on exit": lambda record: Manager(nothing, fails),
    "suppresses": lambda record: Manager(nothing, lambda: True),
    "returns garbage": lambda record: 5,
    "returns a class": lambda record: Manager,
}


@pytest.mark.parametrize("bad", BAD)
def test_an_observer_that_misbehaves_changes_nothing(
    bad: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Bad(Observer):
        def on_call(self, call: Call) -> Any:
            return BAD[bad](call)

        def on_host_call(self, call: HostCall) -> Any:
            return BAD[bad](call)

    before, after = Diary(), Diary()

    def f(text: str) -> str:
        if text == "bad":
            raise ValueError("of the function")
        return text

    source = guest(
        export("good", "(call $give (call $f <<good>>))")
        + export("bad", "(drop (call $f <<bad>>))"),
        USER.format("(param i64) (result i64)"),
    )
    with Plugin(
        source, functions=[plugwasm.host_fn()(f)], observe=[before, Bad(), after]
    ) as plugin:
        assert plugin.call("good") == b"good"
        with pytest.raises(plugwasm.HostFunctionError) as caught:
            plugin.call("bad")
    assert isinstance(caught.value.__cause__, ValueError)
    for diary in (before, after):
        assert diary.events == [
            "> good",
            "  > f",
            "  < f",
            "< good",
            "> bad",
            "  > f",
            "  < f",
            "< bad",
        ]
        assert [call.error for call in diary.calls] == [None, "HostFunctionError"]
    said = [record for record in caplog.records if record.name == "plugwasm.observing"]
    assert len(said) == (0 if bad == "suppresses" else 4)
    assert all(record.exc_info for record in said)


def test_an_interrupt_in_an_observer_goes_through_and_leaves_no_other_entered() -> None:
    class Interrupted(Observer):
        def on_call(self, call: Call) -> None:
            raise KeyboardInterrupt

    diary = Diary()
    with Plugin(ECHO, observe=[diary, Interrupted()]) as plugin, pytest.raises(KeyboardInterrupt):
        plugin.call("echo")
    assert diary.events == ["> echo", "< echo"]


class After:
    """Raises after so many calls by a module of plugwasm, as a signal handler may; a profiler is called at the same places."""

    def __init__(self, module: str, count: int) -> None:
        self._file = f"{module}.py"
        self.left = count

    def __enter__(self) -> None:
        sys.setprofile(self._profile)

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _profile(self, frame: types.FrameType, event: str, argument: object) -> None:
        caller = frame if event.startswith("c_") else frame.f_back
        if (
            event in ("return", "c_return")
            and caller is not None
            and caller.f_code.co_filename.endswith(self._file)
        ):
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt


@pytest.mark.parametrize("module", ["instrumentation", "capture"])
def test_a_plugin_is_free_again_wherever_a_signal_handler_raises(module: str) -> None:
    recorder = Recorder()
    with calls_f(lambda: None, observe=[recorder, Trace(lambda record: None)]) as plugin:
        for count in range(1, 1000):
            plugin.reset()
            plugin.call("run")
            after = After(module, count)
            try:
                with after:
                    plugin.call("run")
            except KeyboardInterrupt:
                pass
            if after.left > 0:
                break
            plugin.call("echo")
            assert not hasattr(plugin._instrumentation, "call")
    assert 10 < count < 999
    source = guest(export("run", "(call $f)") + export("echo", "(call $echo)"), USER.format(""))
    for recording in recorder.recordings:
        if recording.complete:  # then it lacks nothing that the instance did
            recording.replay(source)


def test_a_context_manager_is_left_where_a_signal_handler_raises_right_after_it_was_entered() -> (
    None
):
    events = []

    class Context:
        def __enter__(self) -> None:
            events.append("entered")
            raise KeyboardInterrupt  # as after the last statement

        def __exit__(self, *_: object) -> None:
            events.append("left")

    class Interrupted(Observer):
        def on_call(self, call: Call) -> Context:
            return Context()

    with Plugin(ECHO, observe=Interrupted()) as plugin, pytest.raises(KeyboardInterrupt):
        plugin.call("echo")
    assert events == ["entered", "left"]


def test_observers_are_entered_in_order_and_left_in_reverse_those_of_the_compiled_plugin_first() -> (
    None
):
    events: list[str] = []

    def named(name: str) -> Observer:
        def manager(record: Any) -> Manager:
            what = "call" if isinstance(record, Call) else "host call"
            return Manager(
                lambda: events.append(f"{name} > {what}"), lambda: events.append(f"{name} < {what}")
            )

        class Named(Observer):
            on_call = on_host_call = staticmethod(manager)

        return Named()

    source = guest(export("run", "(call $f)"), PLAIN)
    compiled = CompiledPlugin(
        source, functions=[plugwasm.host_fn(name="f")(nothing)], observe=named("a")
    )
    with Plugin(compiled, observe=[named("b"), named("c")]) as plugin:
        plugin.call("run")
    assert events == [
        *("a > call", "b > call", "c > call"),
        *(
            "a > host call",
            "b > host call",
            "c > host call",
            "c < host call",
            "b < host call",
            "a < host call",
        ),
        *("c < call", "b < call", "a < call"),
    ]


# ---- what can be observed ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("observe", [None, False, [], ()])
def test_who_wants_no_observation_has_a_plain_plugin(observe: Any) -> None:
    for plugin in (
        Plugin(ECHO, observe=observe),
        Plugin(CompiledPlugin(ECHO, observe=observe)),
        Plugin(CompiledPlugin(ECHO), observe=observe),
    ):
        assert type(plugin) is Plugin
        assert plugin._instrumentation is None
        with pytest.raises(TypeError, match="observe=True"):
            plugin.call("echo", returns=Measured[str])


@pytest.mark.parametrize("observe", [5, "trace", Trace, [Trace], [None], object(), {"a": 1}])
def test_what_is_no_observer_is_refused(observe: Any) -> None:
    for make in (Plugin, CompiledPlugin, IsolatedPlugin, PluginPool):
        with pytest.raises(plugwasm.OptionError, match=r"^observe: expected"):
            make(ECHO, observe=observe)


def test_results_are_measured_whatever_they_are_read_by() -> None:
    class Counter(Protocol):
        def count_vowels(self, text: str) -> Measured[dict[str, Any]]: ...

    with Plugin(ROOT / "examples" / "count_vowels.wasm", observe=True) as plugin:
        bound = plugin.bind(Counter).count_vowels("Hello")
        assert (bound.value["count"], bound.call.function) == (2, "count_vowels")
    with Plugin(ECHO, observe=True) as plugin:
        assert plugin.call("echo", "x", returns=Measured).value == b"x"
        assert plugin.call("echo", "7", returns=Measured[int]).value == 7
        assert plugin.call("echo", [1], returns=Measured[list[int]]).value == [1]
        packed = plugin.call(
            "echo", {"a": 1}, returns=Measured[dict[str, int]], codec=plugwasm.codecs.MSGPACK
        )
        assert (packed.value, packed.call.input) == ({"a": 1}, b"\x81\xa1a\x01")
        view = plugin.call("echo", b"abc", parse=None)
        assert (type(view), bytes(view)) == (memoryview, b"abc")
        assert plugin.call("echo", b"abc", len) == 3
        with pytest.raises(TypeError, match="not both"):
            plugin.call("echo", parse=len, returns=Measured[int])  # type: ignore[call-overload]


def test_an_isolated_plugin_is_observed_from_the_outside() -> None:
    diary = Diary()
    source = guest(
        export("run", "(call $log_info <<hi>>) (call $f)")
        + export("trap", "unreachable")
        + export("bad", "(call $g)"),
        PLAIN,
        '(import "extism:host/user" "g" (func $g))',
    )
    functions = [
        plugwasm.host_fn(name="f")(lambda: time.sleep(0.1)),
        plugwasm.host_fn(name="g")(raising(KeyError("k"))),
    ]
    with IsolatedPlugin(source, functions=functions, fuel_limit=10**6, observe=diary) as plugin:
        assert plugin.call("run", returns=Measured).call.host_seconds >= 0.1
        for name, error in (
            ("trap", plugwasm.TrapError),
            ("bad", plugwasm.HostFunctionError),
            ("missing", plugwasm.FunctionNotFoundError),
        ):
            with pytest.raises(error):
                plugin.call(name)
    assert diary.shown() == ["log_info('hi')", "f()", "g() raised KeyError"]
    assert [call.error for call in diary.calls] == [
        None,
        "TrapError",
        "HostFunctionError",
        "FunctionNotFoundError",
    ]
    assert diary.calls[0].fuel
    assert all(call.memory_bytes is None and adds_up(call) for call in diary.calls)


def test_an_observed_subclass_of_a_plugin_is_one_and_calls_through_its_own_methods() -> None:
    class Mine(Plugin):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self.seen: list[str] = []

        def call(self, function_name: str, *args: Any, **options: Any) -> Any:
            self.seen.append(function_name)
            return super().call(function_name, *args, **options)

    with Mine(ECHO, observe=True) as plugin, Mine(ECHO) as plain:
        assert plugin.call("echo", "x", returns=Measured[str]).value == "x"
        assert plugin.seen == ["echo"]
        assert isinstance(plugin, Mine)
        assert repr(plugin).startswith("<Plugin ")
        assert type(plugin).__name__ == "Mine"
        assert type(plain) is Mine


def test_observed_plugins_cannot_be_pickled_and_say_so_but_what_was_measured_can() -> None:
    with Plugin(ECHO, observe=True) as plugin:
        with pytest.raises(TypeError, match="a Plugin cannot be copied or pickled"):
            pickle.dumps(plugin)
        result = plugin.call("echo", "x", returns=Measured[str])
    again = pickle.loads(pickle.dumps(result))
    assert (again.value, again.call.statistics()) == ("x", result.call.statistics())


def test_one_observer_serves_the_threads_of_a_pool() -> None:
    diary = Diary()
    with PluginPool(ECHO, size=4, observe=diary) as pool:
        assert list(pool.map("echo", (str(n) for n in range(200)))) == [
            str(n).encode() for n in range(200)
        ]
    assert len(diary.calls) == 200
    assert sorted(int(call.output or b"") for call in diary.calls) == list(range(200))
    assert all(call.input == call.output and adds_up(call) for call in diary.calls)


def test_host_functions_that_are_coroutines_are_seen_with_the_time_they_waited() -> None:
    threads = set()

    class Threads(Diary):
        def on_host_call(self, call: HostCall) -> Any:
            threads.add(threading.get_ident())
            return super().on_host_call(call)

    async def f(text: str) -> str:
        assert threading.get_ident() not in threads
        await asyncio.sleep(0.05)
        return text.upper()

    diary = Threads()
    plugin = calls_f(f, "(param i64) (result i64)", "(call $give (call $f <<hi>>))", observe=diary)

    async def main() -> Measured[str]:
        return await plugin.call_async("run", returns=Measured[str])

    result = asyncio.run(main())
    assert result.value == "HI"
    assert result.call.host_seconds >= 0.04
    assert diary.shown() == ["f('hi') -> 'HI'"]
    assert threads
    assert adds_up(result.call)


# ---- what is left behind -----------------------------------------------------------------------------------------------------------------


def test_a_dropped_observed_plugin_frees_its_instance_at_once_and_keeps_nothing_of_its_calls() -> (
    None
):
    gc.collect()
    gc.disable()
    try:
        for end in ("close", "drop", "reset", "fail"):
            for observe in (True, Trace(lambda record: None), Diary()):
                plugin = calls_f(fails, observe=observe)
                context = Point(1, 2)
                kept = weakref.ref(context)
                plugin.call("echo", host_context=context)
                if isinstance(observe, Diary):
                    observe.__init__()  # type: ignore[misc]
                del context
                assert kept() is None
                instance = weakref.ref(plugin._guest)  # type: ignore[arg-type]
                assert instance() is not None
                if end == "drop":
                    del plugin
                elif end == "fail":
                    try:
                        plugin.call("run")
                    except plugwasm.HostFunctionError:
                        pass
                    if isinstance(observe, Diary):
                        observe.errors.clear()
                else:
                    getattr(plugin, end)()
                assert soon(lambda instance=instance: instance() is None), (end, observe)
    finally:
        gc.enable()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_child_observes_as_its_parent_does() -> None:
    script = f"""
import os, sys
import plugwasm
from plugwasm.observing import Trace
lines = []
plugin = plugwasm.Plugin({str(ROOT / "examples" / "echo.wasm")!r}, observe=Trace(lambda call: lines.append(str(call))))
plugin.call("echo", "before")
pid = os.fork()
plugin.call("echo", "after")
assert lines == ["echo(b'before') -> b'before'", "echo(b'after') -> b'after'"], lines
if pid:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
os._exit(0)
"""
    # Python counts the threads right after the fork, and one that has just been joined may still be seen by the system.
    command = [sys.executable, "-W", "ignore:This process:DeprecationWarning", "-c", script]
    done = subprocess.run(
        command,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")


# ---- traces and logs -----------------------------------------------------------------------------------------------------------------------


def test_a_trace_tells_of_host_calls_before_the_call_that_they_were_made_in(
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = guest(
        export("run", "(call $log_info <<hi>>) (call $echo)") + export("trap", "unreachable")
    )
    with Plugin(source, observe=Trace()) as plugin:
        plugin.call("run", "x" * 1000)
        with pytest.raises(plugwasm.TrapError):
            plugin.call("trap")
    lines = capsys.readouterr().err.splitlines()
    assert [re.sub(r"\d+\.\d+", "N", line) for line in lines] == [
        "    log_info('hi')  [N ms]",
        *[re.sub(r"\d+\.\d+", "N", line) for line in lines[1:2]],
        "trap() raised TrapError  [0 bytes in, N ms]",
    ]
    assert lines[1].startswith("run(b'xxxx")
    assert len(lines[1]) < 450


def test_a_call_log_has_the_statistics_as_fields_and_can_keep_to_what_is_slow(
    caplog: pytest.LogCaptureFixture,
) -> None:
    logger = logging.getLogger("mine")
    caplog.set_level(logging.INFO)
    source = guest(export("run", "(call $echo)") + export("trap", "unreachable"))
    for observer in (CallLog(), CallLog(logger, slower_than=1000)):
        with Plugin(source, name="p", observe=observer) as plugin:
            plugin.call("run", "abc")
            with pytest.raises(plugwasm.TrapError):
                plugin.call("trap")
    records = [record for record in caplog.records if record.name in ("mine", "plugwasm.calls")]
    assert [
        (record.name, record.levelname, record.function, record.error) for record in records
    ] == [  # type: ignore[attr-defined]
        ("plugwasm.calls", "INFO", "run", None),
        ("plugwasm.calls", "WARNING", "trap", "TrapError"),
        ("mine", "WARNING", "trap", "TrapError"),
    ]
    assert (records[0].plugin, records[0].input_bytes, records[0].output_bytes) == ("p", 3, 3)  # type: ignore[attr-defined]
    assert records[0].getMessage().startswith("run of p: 3 bytes in, 3 out, ")
    assert records[1].getMessage().startswith("trap of p: raised TrapError, 0 bytes in, ")


WASI_LOG = """(import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))"""


def writes(text: str, fd: int) -> str:
    """Code that writes a short text, without an end of line if it has none."""
    stores = "".join(
        f"(i32.store8 (i32.const {64 + i}) (i32.const {byte}))"
        for i, byte in enumerate(text.encode())
    )
    vector = f"(i32.store (i32.const 0) (i32.const 64)) (i32.store (i32.const 4) (i32.const {len(text)}))"
    return f"{stores} {vector} (drop (call $fd_write (i32.const {fd}) (i32.const 0) (i32.const 1) (i32.const 8)))"


@pytest.mark.parametrize("observe", [None, True])
@pytest.mark.parametrize("make", [Plugin, IsolatedPlugin])
def test_records_of_plugins_say_which_plugin_and_which_function(
    make: type[Plugin], observe: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    source = guest(
        export("_initialize", "(call $log_info <<at the start>>)")
        + export("logs", "(call $log_warn <<by itself>>)")
        + export("prints", writes("out\n", 1) + writes("err\n", 2))
        + export("mutters", writes("rest", 1)),
        WASI_LOG,
        memory='(memory (export "memory") 1)',
    )
    with make(source, wasi=True, name="p", observe=observe) as plugin:
        for function in ("logs", "prints", "mutters"):
            plugin.call(function)
    records = [record for record in caplog.records if record.name == "plugwasm.plugin.p"]
    assert {record.plugin for record in records} == {"p"}  # type: ignore[attr-defined]
    first = (None,) if make is Plugin else ("logs", None)
    assert records[0].function in first  # type: ignore[attr-defined]
    assert [(record.getMessage(), record.levelname, record.function) for record in records[1:]] == [  # type: ignore[attr-defined]
        ("by itself", "WARNING", "logs"),
        ("out", "INFO", "prints"),
        ("err", "WARNING", "prints"),
        ("rest", "INFO", "mutters"),
    ]
