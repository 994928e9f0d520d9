"""An exception that a signal handler raises just as a callback is entered is not lost, on any
supported Python."""

from __future__ import annotations

import dis
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugwasm._engine import (
    Engine,
    Environment,
    ExportName,
    FunctionType,
    HostFunction,
    HostRaised,
    Store,
    wat_to_wasm,
)
from plugwasm._engine.signal_safety import _read_number, _write_number, signal_safe
from tests.support.paths import ROOT

posix = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs POSIX signals")
in_main_thread = pytest.mark.skipif(
    threading.current_thread() is not threading.main_thread(),
    reason="signals go to the main thread",
)

CALLS_OFTEN = b"""(module
  (import "h" "f" (func $f (param i64) (result i64)))
  (func (export "often") (param $n i64) (result i64)
    (loop $again
      (drop (call $f (local.get $n)))
      (br_if $again (i64.ne (local.tee $n (i64.sub (local.get $n) (i64.const 1))) (i64.const 0))))
    (local.get $n))
  (func (export "spin") (param i64) (result i64) (loop $again (br $again)) (i64.const 0)))"""


class Alarm(BaseException):
    """The exception that the signal handlers of these tests raise."""


def run_interrupted(call: Any, environment: Environment, seconds: float) -> bool:
    """Run a call while a signal handler raises `Alarm` after so much computing. Return False if
    that was outside the call."""
    rung: list[int] = []

    def handler(number: int, frame: Any) -> None:
        rung.append(number)
        raise Alarm

    before = signal.signal(signal.SIGVTALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
        call.call(environment.pending)
    except HostRaised as raised:
        assert type(raised.exception) is Alarm
        assert rung == [signal.SIGVTALRM]
        return True
    except Alarm:
        return False
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
    raise AssertionError("the guest ended well")


@pytest.fixture
def dropped(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Collect the exceptions that ctypes prints and drops because no caller can get them."""
    found: list[Any] = []
    monkeypatch.setattr(
        sys, "unraisablehook", lambda unraisable: found.append(unraisable.exc_value)
    )
    return found


class Spinning(Environment):
    __slots__ = ()


def prepare_call(
    engine: Engine, body: Callable[[Any, int, Any], None], name: str
) -> tuple[Any, Environment, Any]:
    environment = Spinning()
    store = Store(engine, environment)
    function = HostFunction(FunctionType(("i64",), ("i64",)), body)
    instance = store.instantiate(
        engine.compile(wat_to_wasm(CALLS_OFTEN)),
        store.make_import(function, environment),
        environment.pending,
    )
    return instance.function(ExportName(name), 1), environment, function


@posix
@in_main_thread
def test_exception_at_host_callback_entry(dropped: list[Any]) -> None:
    """An exception at the entry of a host callback ends the guest.

    Nearly all of the time passes outside Python, so nearly all signals are noticed where a callback
    begins.
    """

    def body(environment: Any, caller: int, values: Any) -> None:
        pass

    call, environment, _function = prepare_call(Engine(), body, "often")
    hits = 0
    for n in range(40):
        call.values[0] = 2**40
        hits += run_interrupted(call, environment, 0.002 + n * 0.00007)
    assert hits > 20
    assert dropped == []


@posix
@in_main_thread
def test_exception_at_epoch_callback_entry(dropped: list[Any]) -> None:
    """An exception at the entry of the epoch callback ends the guest."""
    engine = Engine()
    call, environment, _function = prepare_call(engine, print, "spin")
    over = threading.Event()

    def tick() -> None:
        while not over.wait(0.002):
            engine.increment_epoch()

    ticking = threading.Thread(target=tick)
    ticking.start()
    try:
        hits = sum(run_interrupted(call, environment, 0.003 + n * 0.0001) for n in range(20))
    finally:
        over.set()
        ticking.join()
    assert hits > 10
    assert dropped == []


CTRL_C = """
import os, signal, sys, threading, time
import plugwasm
from plugwasm import Function, Plugin, ValType
lost = []
sys.unraisablehook = lost.append

def f(plugin, inputs, outputs):
    pass

plugin = Plugin(
    b'''(module (import "extism:host/user" "f" (func $f))
      (func (export "calls") (loop $l (call $f) (br $l)))
      (func (export "spin") (loop $l (br $l))))''',
    functions=[Function(None, "f", [], [], f)],
)
def trace(*_):
    return trace

def events(code, *_):
    pass

# On Python 3.11 nothing can catch what a trace function or a profiler raises as a callback returns:
# one signal in some hundred is lost there, so another follows.
again = sys.version_info < (3, 12) and sys.argv[1] in ("settrace", "setprofile")

def interrupt(ended):
    time.sleep(0.02)
    os.kill(os.getpid(), signal.SIGINT)
    while again and not ended.wait(5):
        os.kill(os.getpid(), signal.SIGINT)

for name in ("spin", "calls") * 4:
    ended = threading.Event()
    thread = threading.Thread(target=interrupt, args=[ended])
    try:
        thread.start()  # inside, for the signal may come before it returns
        if sys.argv[1] in ("settrace", "setprofile"):
            getattr(sys, sys.argv[1])(trace)
        elif sys.argv[1] == "monitoring" and name == "spin":
            sys.monitoring.use_tool_id(3, "test")
            for event in (1, 2, 4, 8, 16, 32):  # as functions are entered, left, at each line and each instruction
                sys.monitoring.register_callback(3, event, events)
            sys.monitoring.set_events(3, 63)
        plugin.call(name)
    except KeyboardInterrupt:
        print("interrupted")
    finally:
        sys.settrace(None)
        sys.setprofile(None)
        ended.set()
        if sys.argv[1] == "monitoring" and name == "calls" and sys.monitoring.get_tool(3):
            sys.monitoring.set_events(3, 0)
            sys.monitoring.free_tool_id(3)
    thread.join()
print("lost", 0 if again else len(lost))
"""


WATCHERS = [
    "nobody",
    "settrace",
    "setprofile",
    *(["monitoring"] if sys.version_info >= (3, 12) else []),
    *(["JIT"] if hasattr(sys, "_jit") and sys._jit.is_available() else []),
]


@posix
@pytest.mark.parametrize("watcher", WATCHERS)
def test_ctrl_c_ends_every_call(watcher: str) -> None:
    """Ctrl-C ends every call with a KeyboardInterrupt, and the plugin stays usable.

    This holds also under a debugger or a profiler, whose functions are the first in which a signal
    handler runs.
    """
    done = subprocess.run(
        [sys.executable, "-c", CTRL_C, watcher],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        env=os.environ | ({"PYTHON_JIT": "1"} if watcher == "JIT" else {}),
    )
    assert done.stdout.split("\n") == ["interrupted"] * 8 + ["lost 0", ""], done.stderr


LATE = """
import ctypes, signal, sys
from plugwasm._engine import Engine, Environment, ExportName, FunctionType, HostFunction, HostRaised, Store, wat_to_wasm
from plugwasm._engine.ffi import HOST_CALLBACK

class Alarm(BaseException):
    pass

def handler(number, frame):
    raise Alarm

def body(environment, caller, values):
    print("entered")

def plain(environment, caller, values, count):
    try:
        body(environment, caller, values)
        return None
    except BaseException as exception:
        print("caught")
        raise

engine, environment = Engine(), Environment()
store, host = Store(engine, environment), HostFunction(FunctionType((), ()), body)
if sys.argv[1] == "plain":
    host.callback = HOST_CALLBACK(plain)
module = engine.compile(wat_to_wasm(b'''(module (import "h" "f" (func $f))
  (func (export "late") (local $n i64) (local.set $n (i64.const 60000000))
    (loop $again (br_if $again (i64.ne (local.tee $n (i64.sub (local.get $n) (i64.const 1))) (i64.const 0))))
    (call $f)))'''))
instance = store.instantiate(module, store.make_import(host, environment), environment.pending)
function = instance.function(ExportName("late"), 1)
signal.signal(signal.SIGVTALRM, handler)
signal.setitimer(signal.ITIMER_VIRTUAL, 0.004)  # of computing, so that it cannot come before the guest runs
try:
    function.call(environment.pending)
except HostRaised as raised:
    print("raised", type(raised.exception).__name__)
"""


@posix
@pytest.mark.parametrize(("callback", "printed"), [("shielded", "raised Alarm\n"), ("plain", "")])
def test_signal_while_guest_computes(callback: str, printed: str) -> None:
    """A signal that comes while the guest computes is lost only without the shield.

    It runs in a separate process, since it may crash without the shield.
    """
    done = subprocess.run(
        [sys.executable, "-u", "-c", LATE, callback],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=30,
    )
    assert done.stdout == printed, done.stderr
    assert ("Alarm" in done.stderr) == (callback == "plain")


HAMMER = """
import signal, sys, time
from plugwasm._engine import Engine, Environment, ExportName, FunctionType, HostFunction, HostRaised, Store, wat_to_wasm
lost, armed, rung = [], False, 0
sys.unraisablehook = lost.append

class Alarm(BaseException):
    pass

def handler(number, frame):
    global armed, rung
    if armed:
        armed = False
        rung += 1
        raise Alarm

def body(environment, caller, values):
    raise LookupError

engine, environment = Engine(), Environment()
store, host = Store(engine, environment), HostFunction(FunctionType((), ()), body)
module = engine.compile(wat_to_wasm(b'''(module (import "h" "f" (func $f)) (func (export "f") (call $f)))'''))
instance = store.instantiate(module, store.make_import(host, environment), environment.pending)
function = instance.function(ExportName("f"), 1)

def call():
    global armed
    try:
        armed = True
        function.call(environment.pending)
    except HostRaised as raised:
        armed = False
        assert isinstance(raised.exception, (Alarm, LookupError))
    except Alarm:
        pass
    else:
        print("the guest ended well")

signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.0003, 0.00023)
end = time.monotonic() + 2
while time.monotonic() < end:
    try:
        call()
    except Alarm:
        pass
signal.setitimer(signal.ITIMER_REAL, 0)
print("rung" if rung > 500 else rung, len(lost), environment.pending.exception)
"""


@posix
def test_signals_while_callback_raises() -> None:
    """Signals that come while an exception leaves a callback do not crash the process.

    The signals are sent for two seconds, since the critical moment is a microsecond long.
    """
    done = subprocess.run(
        [sys.executable, "-c", HAMMER], capture_output=True, text=True, cwd=ROOT, timeout=30
    )
    assert (done.returncode, done.stdout) == (0, "rung 0 None\n"), done.stderr[-2000:]


@pytest.mark.parametrize("value", [0, 1, 63, 64, 4095, 4096, 262143, 262144])
def test_exception_table_round_trip(value: int) -> None:
    """Numbers of exception tables are encoded as they are decoded."""
    for first in (True, False):
        encoded = _write_number(value, first)
        assert _read_number(encoded, 0) == (value, len(encoded))
        assert (encoded[0] & 128 != 0) == first
        assert not any(byte & 128 for byte in encoded[1:])


@given(st.lists(st.integers(0, 2**30), min_size=1, max_size=20))
def test_exception_table_round_trip_random(values: list[int]) -> None:
    """Random numbers of exception tables are encoded as they are decoded."""
    table, at = b"".join(_write_number(value, False) for value in values), 0
    for value in values:
        found, at = _read_number(table, at)
        assert found == value
    assert at == len(table)


def test_shield_changes_first_range_only() -> None:
    """The shield changes only the start of the first range."""

    def function(x: int) -> str:
        try:
            x += 1
            for i in range(x):
                try:
                    x //= i
                except ZeroDivisionError:
                    x = 5
            if x == 99:
                raise LookupError
            return str(x)
        except LookupError:
            return "caught"
        finally:
            x = 0

    def entries() -> list[Any]:
        return list(dis._parse_exception_table(function.__code__))  # type: ignore[attr-defined]

    before, results, lines = (
        entries(),
        [function(x) for x in (0, 3, 98)],
        list(function.__code__.co_lines()),
    )
    assert signal_safe(function) is function
    after, added = (
        entries(),
        2 if sys.version_info < (3, 12) else 0,
    )  # bytes of the instruction before the first
    after = [
        entry._replace(
            start=max(0, entry.start - added), end=entry.end - added, target=entry.target - added
        )
        for entry in after
    ]
    seen = [
        (max(0, start - added), end - added, line)
        for start, end, line in function.__code__.co_lines()
        if end > added
    ]
    assert seen == lines
    assert [function(x) for x in (0, 3, 98)] == results
    assert before[0].start > 0
    assert after[0].start == 0
    assert (after[0].end, after[0].target, after[0].depth, after[0].lasti) == (
        before[0].end,
        before[0].target,
        before[0].depth,
        before[0].lasti,
    )
    assert after[1:] == before[1:]


def _closure() -> Callable[[], Any]:
    seen: list[int] = []

    def function() -> None:
        try:
            seen.append(1)
        except BaseException:
            pass

    return function


def _cell() -> Any:
    def function(x: int) -> Any:
        try:
            return lambda: x
        except BaseException:
            return None

    return function


def _generator() -> Any:
    def function() -> Any:
        try:
            yield
        except BaseException:
            pass

    return function


def _coroutine() -> Any:
    async def function() -> Any:
        try:
            pass
        except BaseException:
            pass

    return function


def _asynchronous_generator() -> Any:
    async def function() -> Any:
        try:
            yield
        except BaseException:
            pass

    return function


def _without_try() -> Any:
    def function() -> None:
        pass

    return function


@pytest.mark.parametrize(
    "make", [_closure, _cell, _generator, _coroutine, _asynchronous_generator, _without_try]
)
def test_unshieldable_code_is_refused(make: Callable[[], Any]) -> None:
    """Code that cannot be shielded is refused."""
    function = make()
    code = function.__code__
    with pytest.raises(TypeError, match="cannot be shielded"):
        signal_safe(function)
    assert function.__code__ is code
