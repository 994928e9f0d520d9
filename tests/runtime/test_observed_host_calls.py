"""Host calls of observed plugins: the arguments, results and errors that observers see."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from typing import Annotated, Any

import pytest

import plugwasm
from plugwasm import (
    CompiledPlugin,
    CurrentPlugin,
    Function,
    IsolatedPlugin,
    Measured,
    Plugin,
    Val,
    ValType,
)
from plugwasm.observing import CallLog
from plugwasm.recording import Recorder
from tests.support.guests import export, guest, manifest
from tests.support.observers import (
    ECHO,
    PLAIN,
    USER,
    CollectingObserver,
    Point,
    make_calling_plugin,
    raiser,
    times_add_up,
)
from tests.support.paths import ROOT


def test_env_functions() -> None:
    """Observers see environment functions with their arguments and results."""
    source = guest(
        export(
            "run",
            """(drop (call $config_get <<key>>)) (drop (call $config_get <<none>>)) (call $var_set <<v>> <<value>>) (drop (call $var_get <<v>>))
            (call $var_set <<v>> (i64.const 0)) (drop (call $var_get <<v>>)) (call $log_warn <<careful>>) (drop (call $http_status_code))
            (drop (call $http_headers)) (drop (call $http_request <<{"url": "http://u:p@a.test/?q=1", "method": "post"}>> <<body>>))""",
        )
    )
    observed = CollectingObserver()
    with (
        Plugin(source, config={"key": "set"}, observe=observed) as plugin,
        pytest.raises(plugwasm.EgressDeniedError),
    ):
        plugin.call("run")
    assert observed.host_call_lines() == [
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
    assert {call.namespace for call in observed.host_calls} == {"extism:host/env"}
    http = observed.host_calls[-1].http
    assert http is not None
    assert (http.method, http.url, http.status) == ("POST", "http://u:p@a.test/?q=1", None)
    assert [(call.host_calls, call.http_requests, call.error) for call in observed.calls] == [
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
def test_invalid_request_document(document: str) -> None:
    """An invalid request document does not disturb observers."""
    source = guest(export("run", f"(drop (call $http_request {document} (i64.const 0)))"))
    granted = manifest(source, allowed_hosts=["a.test"])
    errors = []
    observed = CollectingObserver()
    for options in ({}, {"observe": observed}):
        with (
            Plugin(granted, egress=plugwasm.Egress(allowed_hosts=[]), **options) as plugin,
            pytest.raises(plugwasm.Error) as caught,
        ):
            plugin.call("run")
        errors.append((type(caught.value), caught.value.message))
    assert errors[0] == errors[1]
    assert observed.host_calls[0].http is not None
    assert observed.host_calls[0].http.status is None


HUGE = "(local $b i64) (local.set $b (call $alloc (i64.const 209715200)))"


@pytest.mark.parametrize("call", ["(call $log_trace (local.get $b))", "(call $f (local.get $b))"])
def test_huge_block_is_truncated(call: str) -> None:
    """Only the beginning of a huge block is copied for observers."""
    function = Function(
        "extism:host/user", "f", [ValType.I64], [], lambda plugin, inputs, results: None
    )
    observed = CollectingObserver()
    with Plugin(
        guest(export("run", HUGE + call), USER.format("(param i64)")),
        functions=[function],
        observe=observed,
    ) as plugin:
        plugin.call("run")
    assert [len(host_call.args[0]) for host_call in observed.host_calls] == [16 * 2**20]


def test_plugins_beyond_pool() -> None:
    """Observed plugins without a place in the pool work like others."""
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


def test_call_in_one_log_line(caplog: pytest.LogCaptureFixture) -> None:
    """An application can log a whole call in one line."""
    with (
        caplog.at_level("INFO"),
        Plugin(ECHO, observe=CallLog()) as plugin,
        pytest.raises(plugwasm.FunctionNotFoundError),
    ):
        plugin.call("echo\nWARNING: all is well\x1b[31m")
    assert caplog.messages[0].isprintable()


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
def test_host_functions(
    f: Any, type: str, code: str, args: tuple[Any, ...], results: tuple[Any, ...]
) -> None:
    """Observers see host functions with values of their Python types."""
    for make in (Plugin, IsolatedPlugin) if f in (_shout, _pair) else (Plugin,):
        observed = CollectingObserver()
        function = f if isinstance(f, Function) else plugwasm.host_fn(name="f")(f)
        with make(
            guest(export("run", code), USER.format(type)), functions=[function], observe=observed
        ) as plugin:
            plugin.call("run")
        (call,) = observed.host_calls
        assert (call.namespace, call.name, call.args, call.results, call.error) == (
            "extism:host/user",
            "f",
            args,
            results,
            None,
        )
        assert call.call is observed.calls[0]
        assert 0 < call.seconds <= observed.calls[0].host_seconds + 1e-9


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
def test_arguments_by_type_or_bytes(annotation: Any, argument: str, seen: object) -> None:
    """Arguments appear as the function's types or else as bytes."""

    def body(value: Any) -> None:
        pass

    body.__annotations__ = {"value": annotation, "return": None}
    observed = CollectingObserver()
    with make_calling_plugin(
        body, "(param i64)", f"(call $f {argument})", observe=observed
    ) as plugin:
        try:
            plugin.call("run")
        except plugwasm.HostFunctionError:
            assert seen == b"not json"
    (value,) = observed.host_calls[0].args
    assert type(value) is type(seen)
    assert value == seen or seen == 1024


def test_deep_json_stays_bytes() -> None:
    """JSON nested too deep for the parser is shown as bytes."""
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


def test_host_exception_name() -> None:
    """A host function's exception is shown by the name of its class."""
    observed = CollectingObserver()
    with (
        make_calling_plugin(raiser(LookupError("no")), observe=observed) as plugin,
        pytest.raises(plugwasm.HostFunctionError),
    ):
        plugin.call("run")
    assert observed.host_call_lines() == ["f() raised LookupError"]


def test_wasi_functions_and_exit() -> None:
    """Observers see WASI functions, and an exit is not an error of `proc_exit`."""
    wasi = """(import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))"""
    code = "(i32.store (i32.const 0) (i32.const 8)) (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 4)))"
    source = guest(
        export("run", f"{code} (call $proc_exit (i32.const 0))"),
        wasi,
        memory='(memory (export "memory") 1)',
    )
    observed = CollectingObserver()
    with Plugin(source, wasi=True, observe=observed) as plugin:
        plugin.call("run")
    assert observed.host_call_lines() == ["fd_write(1, 0, 1, 4) -> 0", "proc_exit(0)"]
    assert {call.namespace for call in observed.host_calls} == {"wasi_snapshot_preview1"}
    assert observed.calls[0].error is None


def test_linked_modules_and_commands() -> None:
    """Observers see calls by linked modules, also by commands with their own stores."""
    library = guest('(func (export "g") (call $log_info <<of the library>>))')
    command = guest(
        '(func (export "_start")) (func (export "g") (call $log_info <<of the command>>) (call $f))',
        PLAIN,
    )
    imports = '(import "library" "g" (func $g)) (import "command" "g" (func $h))'
    main = guest(export("run", "(call $g) (call $h) (call $h)"), imports)
    observed = CollectingObserver()
    functions = [plugwasm.host_fn(name="f")(lambda: time.sleep(0.05))]
    with Plugin(
        manifest(("library", library), ("command", command), main),
        functions=functions,
        observe=observed,
    ) as plugin:
        plugin.call("run")
    assert observed.host_call_lines() == [
        "log_info('of the library')",
        *["log_info('of the command')", "f()"] * 2,
    ]
    assert observed.calls[0].host_calls == 5
    assert observed.calls[0].host_seconds >= 0.1
    assert times_add_up(observed.calls[0])


def test_cyclic_import_is_no_host_call() -> None:
    """A call through a cycle of modules is no host call, and its time counts once."""
    a = '(module (import "main" "back" (func $back)) (func (export "go") (call $back)))'
    imports = '(import "a" "go" (func $go))'
    main = guest(export("run", "(call $go)") + '(func (export "back") (call $f))', imports, PLAIN)
    observed = CollectingObserver()
    functions = [plugwasm.host_fn(name="f")(lambda: time.sleep(0.1))]
    with Plugin(
        manifest(("a", a), ("main", main)), functions=functions, observe=observed
    ) as plugin:
        plugin.call("run")
    assert observed.host_call_lines() == ["f()"]
    assert observed.calls[0].host_seconds >= 0.1
    assert times_add_up(observed.calls[0])


def test_nested_observed_plugin() -> None:
    """The time of a nested observed plugin counts as time of the host function that calls it."""
    observed = CollectingObserver()
    with (
        make_calling_plugin(lambda: time.sleep(0.1), observe=observed, name="inner") as inner,
        make_calling_plugin(lambda: inner.call("run") and None, observe=observed) as outer,
    ):
        outer.call("run")
    assert observed.events == [
        "> run",
        "  > f",
        "> run",
        "  > f",
        "  < f",
        "< run",
        "  < f",
        "< run",
    ]
    second, first = observed.calls
    assert 0.1 <= second.host_seconds <= second.seconds <= first.host_seconds <= first.seconds
    assert [call.call.plugin for call in observed.host_calls] == ["inner", first.plugin]
