"""Observers: which objects can be one, faulty ones, and those that write traces and logs."""

from __future__ import annotations

import asyncio
import logging
import pickle
import re
import sys
import threading
import time
import types
from typing import Any, Protocol

import pytest

import plugwasm
from plugwasm import (
    CompiledPlugin,
    IsolatedPlugin,
    Measured,
    Plugin,
    PluginPool,
)
from plugwasm.observing import Call, CallLog, HostCall, Observer, Trace
from plugwasm.recording import Recorder
from tests.support.guests import export, guest
from tests.support.observers import (
    ECHO,
    PLAIN,
    USER,
    CollectingObserver,
    do_nothing,
    fail,
    make_calling_plugin,
    raiser,
    times_add_up,
)
from tests.support.paths import ROOT

# ---- observers that misbehave --------------------------------------------------------------------


class Manager:
    """A context manager whose methods do what the test sets."""

    def __init__(self, enter: Any, leave: Any) -> None:
        self._enter, self._leave = enter, leave

    def __enter__(self) -> object:
        return self._enter()

    def __exit__(self, *_: object) -> Any:
        return self._leave()


BAD = {
    "raises": lambda record: fail(),
    "raises on entry": lambda record: Manager(fail, do_nothing),
    "raises on exit": lambda record: Manager(do_nothing, fail),
    "suppresses": lambda record: Manager(do_nothing, lambda: True),
    "returns garbage": lambda record: 5,
    "returns a class": lambda record: Manager,
}


@pytest.mark.parametrize("bad", BAD)
def test_misbehaving_observer(bad: str, caplog: pytest.LogCaptureFixture) -> None:
    """A faulty observer does not change the call's result."""

    class Bad(Observer):
        def on_call(self, call: Call) -> Any:
            return BAD[bad](call)

        def on_host_call(self, call: HostCall) -> Any:
            return BAD[bad](call)

    before, after = CollectingObserver(), CollectingObserver()

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
    for observed in (before, after):
        assert observed.events == [
            "> good",
            "  > f",
            "  < f",
            "< good",
            "> bad",
            "  > f",
            "  < f",
            "< bad",
        ]
        assert [call.error for call in observed.calls] == [None, "HostFunctionError"]
    said = [record for record in caplog.records if record.name == "plugwasm.observing"]
    assert len(said) == (0 if bad == "suppresses" else 4)
    assert all(record.exc_info for record in said)


def test_interrupt_in_observer() -> None:
    """A KeyboardInterrupt in an observer reaches the caller, and all entered observers are left."""

    class Interrupted(Observer):
        def on_call(self, call: Call) -> None:
            raise KeyboardInterrupt

    observed = CollectingObserver()
    with (
        Plugin(ECHO, observe=[observed, Interrupted()]) as plugin,
        pytest.raises(KeyboardInterrupt),
    ):
        plugin.call("echo")
    assert observed.events == ["> echo", "< echo"]


class After:
    """A profiler that raises after so many calls of plugwasm's functions, as a signal handler
    could: both run at the same places."""

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
def test_plugin_is_free_if_handler_raises(module: str) -> None:
    """The plugin is usable again wherever a signal handler raises."""
    recorder = Recorder()
    with make_calling_plugin(
        lambda: None, observe=[recorder, Trace(lambda record: None)]
    ) as plugin:
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


def test_context_is_left_if_handler_raises() -> None:
    """A context manager is left even if a signal handler raises right after it was entered."""
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


def test_order_of_observers() -> None:
    """Observers are entered in order, the compiled plugin's first, and left in reverse order."""
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
        source, functions=[plugwasm.host_fn(name="f")(do_nothing)], observe=named("a")
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


# ---- what can be observed ------------------------------------------------------------------------


@pytest.mark.parametrize("observe", [None, False, [], ()])
def test_no_observer_plain_plugin(observe: Any) -> None:
    """Without observers, a plugin is a plain plugin."""
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


def test_results_are_measured() -> None:
    """The size of an output is measured whatever parses it."""

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


def test_isolated_plugin() -> None:
    """An isolated plugin is observed from the application's process."""
    observed = CollectingObserver()
    source = guest(
        export("run", "(call $log_info <<hi>>) (call $f)")
        + export("trap", "unreachable")
        + export("bad", "(call $g)"),
        PLAIN,
        '(import "extism:host/user" "g" (func $g))',
    )
    functions = [
        plugwasm.host_fn(name="f")(lambda: time.sleep(0.1)),
        plugwasm.host_fn(name="g")(raiser(KeyError("k"))),
    ]
    with IsolatedPlugin(source, functions=functions, fuel_limit=10**6, observe=observed) as plugin:
        assert plugin.call("run", returns=Measured).call.host_seconds >= 0.1
        for name, error in (
            ("trap", plugwasm.TrapError),
            ("bad", plugwasm.HostFunctionError),
            ("missing", plugwasm.FunctionNotFoundError),
        ):
            with pytest.raises(error):
                plugin.call(name)
    assert observed.host_call_lines() == ["log_info('hi')", "f()", "g() raised KeyError"]
    assert [call.error for call in observed.calls] == [
        None,
        "TrapError",
        "HostFunctionError",
        "FunctionNotFoundError",
    ]
    assert observed.calls[0].fuel
    assert all(call.memory_bytes is None and times_add_up(call) for call in observed.calls)


def test_observed_subclass() -> None:
    """An observed subclass of Plugin is an instance of it and uses its own methods."""

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


def test_pickling() -> None:
    """Observed plugins cannot be pickled, with an error that says so, but statistics can."""
    with Plugin(ECHO, observe=True) as plugin:
        with pytest.raises(TypeError, match="a Plugin cannot be copied or pickled"):
            pickle.dumps(plugin)
        result = plugin.call("echo", "x", returns=Measured[str])
    again = pickle.loads(pickle.dumps(result))
    assert (again.value, again.call.statistics()) == ("x", result.call.statistics())


def test_observer_of_pool_in_threads() -> None:
    """One observer can serve all threads of a pool."""
    observed = CollectingObserver()
    with PluginPool(ECHO, size=4, observe=observed) as pool:
        assert list(pool.map("echo", (str(n) for n in range(200)))) == [
            str(n).encode() for n in range(200)
        ]
    assert len(observed.calls) == 200
    assert sorted(int(call.output or b"") for call in observed.calls) == list(range(200))
    assert all(call.input == call.output and times_add_up(call) for call in observed.calls)


def test_async_host_functions() -> None:
    """Coroutines of host functions are observed with the time that they waited."""
    threads = set()

    class Threads(CollectingObserver):
        def on_host_call(self, call: HostCall) -> Any:
            threads.add(threading.get_ident())
            return super().on_host_call(call)

    async def f(text: str) -> str:
        assert threading.get_ident() not in threads
        await asyncio.sleep(0.05)
        return text.upper()

    observed = Threads()
    plugin = make_calling_plugin(
        f, "(param i64) (result i64)", "(call $give (call $f <<hi>>))", observe=observed
    )

    async def main() -> Measured[str]:
        return await plugin.call_async("run", returns=Measured[str])

    result = asyncio.run(main())
    assert result.value == "HI"
    assert result.call.host_seconds >= 0.04
    assert observed.host_call_lines() == ["f('hi') -> 'HI'"]
    assert threads
    assert times_add_up(result.call)


# ---- traces and logs -----------------------------------------------------------------------------


def test_trace_order(capsys: pytest.CaptureFixture[str]) -> None:
    """A trace shows host calls before the call that made them."""
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


def test_call_log_fields_and_threshold(caplog: pytest.LogCaptureFixture) -> None:
    """A call log has the statistics as fields and can be limited to slow calls."""
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
    ] == [
        ("plugwasm.calls", "INFO", "run", None),
        ("plugwasm.calls", "WARNING", "trap", "TrapError"),
        ("mine", "WARNING", "trap", "TrapError"),
    ]
    assert (records[0].plugin, records[0].input_bytes, records[0].output_bytes) == ("p", 3, 3)  # type: ignore[attr-defined]
    assert records[0].getMessage().startswith("run of p: 3 bytes in, 3 out, ")
    assert records[1].getMessage().startswith("trap of p: raised TrapError, 0 bytes in, ")


WASI_LOG = """(import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))"""


def writing_code(text: str, fd: int) -> str:
    """Return code that writes a short text, without a line end unless it has one."""
    stores = "".join(
        f"(i32.store8 (i32.const {64 + i}) (i32.const {byte}))"
        for i, byte in enumerate(text.encode())
    )
    vector = f"(i32.store (i32.const 0) (i32.const 64)) (i32.store (i32.const 4) (i32.const {len(text)}))"
    return f"{stores} {vector} (drop (call $fd_write (i32.const {fd}) (i32.const 0) (i32.const 1) (i32.const 8)))"


@pytest.mark.parametrize("observe", [None, True])
@pytest.mark.parametrize("make", [Plugin, IsolatedPlugin])
def test_log_records_name_plugin(
    make: type[Plugin], observe: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Log records of plugins have the plugin and the function as fields."""
    caplog.set_level(logging.DEBUG)
    source = guest(
        export("_initialize", "(call $log_info <<at the start>>)")
        + export("logs", "(call $log_warn <<by itself>>)")
        + export("prints", writing_code("out\n", 1) + writing_code("err\n", 2))
        + export("mutters", writing_code("rest", 1)),
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
