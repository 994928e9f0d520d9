"""The ticker: calls end in time whatever else happens at that moment, and without running calls
there is no thread."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import plugwasm
from plugwasm import CompiledPlugin, Function, Plugin, ValType
from plugwasm._host import deadline
from plugwasm._host.deadline import HEARTBEAT, NEVER, OVERDUE_TICK, Ticker, ticker
from plugwasm._runtime import modules
from tests.support.paths import ROOT

posix = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX signals and os.fork")

SPINNING = b"""(module
  (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
  (import "extism:host/env" "output_set" (func $output_set (param i64 i64)))
  (func (export "quick"))
  (func (export "spin") (loop $l (br $l)))
  (func (export "spin_in_the_kernel") (loop $l (drop (call $alloc (i64.const 0))) (br $l)))
  (func (export "work") (local $n i64)
    (local.set $n (i64.const 150000000))
    (loop $l (br_if $l (i64.ne (local.tee $n (i64.sub (local.get $n) (i64.const 1))) (i64.const 0))))
    (call $output_set (call $alloc (i64.const 5)) (i64.const 5))))"""


def manifest(timeout_ms: int | None, wasm: bytes = SPINNING) -> dict[str, Any]:
    return {"wasm": [{"data": wasm}], "timeout_ms": timeout_ms}


class Epochs:
    """An engine's stand-in that records when it was ticked."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def increment_epoch(self) -> None:
        self.times.append(time.monotonic())


@pytest.fixture
def short_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadline, "IDLE_SECONDS", 0.05)


@pytest.fixture
def own() -> Iterator[tuple[Ticker, Epochs]]:
    """Make a ticker for the test, with one engine."""
    own, epochs = Ticker(), Epochs()
    own.engines = [epochs]  # type: ignore[list-item]
    yield own, epochs
    own.running.clear()
    thread = own._thread
    own.before_fork()
    own.after_fork()
    assert thread is None or not thread.is_alive()


def enter(own: Ticker, call: object, seconds: float) -> float:
    """Begin a call as plugins do, and return its deadline."""
    until = time.monotonic() + seconds if seconds != NEVER else NEVER
    own.running[call] = until
    if own.next_check > until or own.next_check is NEVER:
        own.wake()
    return until


def since(moment: float, epochs: Epochs) -> list[float]:
    return [tick for tick in epochs.times if tick >= moment]


def tickers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "plugwasm-ticker"]


def wait_for(condition: Callable[[], object], seconds: float = 3.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.002)
    return bool(condition())


# ---- the ticker by itself ------------------------------------------------------------------------


def test_overdue_call_is_ticked_until_end(own: tuple[Ticker, Epochs]) -> None:
    """An overdue call is ticked in time and repeatedly until it ends."""
    watch, epochs = own
    until = enter(watch, "call", 0.03)
    assert wait_for(lambda: len(since(until, epochs)) >= 4)
    watch.running.clear()
    first, *_, fourth = since(until, epochs)[:4]
    assert first - until < 0.05
    assert fourth - first < 10 * OVERDUE_TICK + 0.05
    count = len(epochs.times)
    time.sleep(0.05)
    assert len(epochs.times) <= count + 1, "nothing ticks for calls that are over"


def test_heartbeat_of_long_call(own: tuple[Ticker, Epochs]) -> None:
    """A short call is not ticked, and a long one is ticked at each heartbeat."""
    watch, epochs = own
    enter(watch, "first", NEVER)
    del watch.running["first"]
    time.sleep(0.02)
    epochs.times.clear()
    for n in range(4):
        enter(watch, n, NEVER)
        time.sleep(HEARTBEAT / 2)
        del watch.running[n]
    assert epochs.times == []
    enter(watch, "long", 50.0)
    assert wait_for(lambda: len(epochs.times) >= 3)
    gaps = [after - before for before, after in zip(epochs.times, epochs.times[1:], strict=False)]
    assert min(gaps) > HEARTBEAT * 0.8


def test_nearer_deadline_wakes_thread(own: tuple[Ticker, Epochs]) -> None:
    """An earlier deadline wakes the thread earlier."""
    watch, epochs = own
    enter(watch, "far", 30.0)
    assert wait_for(lambda: watch.next_check is not NEVER)
    time.sleep(0.01)
    until = enter(watch, "near", 0.02)
    assert wait_for(lambda: since(until, epochs))
    assert since(until, epochs)[0] - until < HEARTBEAT / 2


def test_call_started_while_thread_decides(own: tuple[Ticker, Epochs]) -> None:
    """A call that starts just before the thread sleeps is noticed in time.

    The thread has looked at the running calls and has not announced yet when it will look again.
    """
    watch, epochs = own
    until: list[float] = []
    looks: list[float] = []

    class Running(dict[Any, float]):
        def copy(self) -> dict[Any, float]:
            seen = dict(self)
            looks.append(time.monotonic())
            if len(looks) == 4:  # it looks because the time has come, not because it was woken
                until.append(enter(watch, "second", 0.01))
            return seen

    watch.running = Running()
    enter(watch, "first", 60.0)
    assert wait_for(lambda: until and since(until[0], epochs))
    assert since(until[0], epochs)[0] - until[0] < HEARTBEAT / 2


@pytest.mark.usefixtures("short_idle")
def test_thread_ends_when_idle(own: tuple[Ticker, Epochs]) -> None:
    """The thread ends when idle and starts again when needed."""
    watch, _ = own
    for _ in range(3):
        assert watch._thread is None
        assert watch.next_check is NEVER
        enter(watch, "call", NEVER)
        thread = watch._thread
        assert thread is not None
        assert thread.daemon
        time.sleep(0.08)
        assert thread.is_alive(), "a call is under way"
        watch.running.clear()
        assert wait_for(lambda thread=thread: not thread.is_alive())
    assert wait_for(lambda: watch._thread is None)


def test_calls_started_as_thread_ends(
    own: tuple[Ticker, Epochs], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls that start just as the thread ends are not missed."""
    watch, epochs = own
    monkeypatch.setattr(deadline, "IDLE_SECONDS", 0.0004)
    monkeypatch.setattr(deadline, "HEARTBEAT", 0.0005)
    monkeypatch.setattr(deadline, "OVERDUE_TICK", 0.0005)
    chance = random.Random(1)
    started = set()
    for n in range(250):
        before = len(epochs.times)
        enter(watch, n, 0.0002)
        started.add(watch._thread)
        assert wait_for(lambda before=before: len(epochs.times) > before, 1.0), n  # type: ignore[misc]
        del watch.running[n]
        time.sleep(chance.uniform(0, 0.0025))
    assert len(started) > 20, "the thread has ended and come back many times"


def test_no_thread_guests_tick_themselves(own: tuple[Ticker, Epochs]) -> None:
    """While no thread can be started, guests tick themselves."""
    watch, epochs = own
    before = threading.stack_size(2**46)
    try:
        for seconds in (0.01, NEVER):
            enter(watch, "call", seconds)
            assert (watch.has_no_thread, watch._thread, watch.next_check) == (True, None, NEVER)
            assert len(epochs.times) == 1, "once: from then on the guest is called back by itself"
            watch.running.clear()
            epochs.times.clear()
    finally:
        threading.stack_size(before)
    enter(watch, "call", 0.01)
    assert not watch.has_no_thread
    assert wait_for(lambda: epochs.times)


@posix
def test_fork_just_after_thread_ended(
    own: tuple[Ticker, Epochs], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a fork just after the thread has ended, the ticker works."""
    watch, epochs = own
    monkeypatch.setattr(deadline, "IDLE_SECONDS", 0.001)
    for _ in range(60):
        enter(watch, "call", NEVER)
        del watch.running["call"]
        time.sleep(random.uniform(0, 0.004))
        watch.before_fork()
        assert watch._thread is None
        watch.after_fork()
        before = len(epochs.times)
        enter(watch, "late", 0.001)
        assert wait_for(lambda before=before: len(epochs.times) > before, 1.0)  # type: ignore[misc]
        del watch.running["late"]


def test_ticker_thread_ends_during_fork(own: tuple[Ticker, Epochs]) -> None:
    """A thread that ends by itself while a fork stops it leaves nothing behind."""
    watch, epochs = own
    finished = threading.Thread(target=int)
    finished.start()
    finished.join()
    watch._thread = finished  # as `before_fork` finds it in that moment
    watch.before_fork()
    watch.after_fork()
    enter(watch, "call", 0.01)
    assert wait_for(lambda: len(epochs.times) >= 3)


# ---- with plugins --------------------------------------------------------------------------------


@pytest.mark.parametrize("function", ["spin", "spin_in_the_kernel"])
@pytest.mark.parametrize("timeout_ms", [20, 100])
def test_call_ends_soon_after_deadline(function: str, timeout_ms: int) -> None:
    """A call ends soon after its deadline."""
    with Plugin(manifest(timeout_ms)) as plugin:
        plugin.call("quick")
        took = []
        for _ in range(5):
            began = time.perf_counter()
            with pytest.raises(plugwasm.TimeoutError):
                plugin.call(function)
            took.append(time.perf_counter() - began)
            plugin.call("quick")
        assert min(took) >= timeout_ms / 1000 * 0.99
        # The machine may be busy with something else, but not each time.
        assert min(took) < timeout_ms / 1000 * 1.5
        assert max(took) < timeout_ms / 1000 + 2


def test_timeout_spares_other_plugin() -> None:
    """A timeout of one plugin does not affect another with the same code."""
    compiled = CompiledPlugin(manifest(60_000))
    patient = Plugin(compiled)
    hurried = Plugin(manifest(30))
    results: list[bytes] = []
    thread = threading.Thread(target=lambda: results.append(patient.call("work")))
    thread.start()
    timed_out = 0
    while thread.is_alive():
        with pytest.raises(plugwasm.TimeoutError):
            hurried.call("spin")
        timed_out += 1
    assert timed_out > 0
    assert results == [bytes(5)]


def test_random_calls_end_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls that start and end at random all end in time."""
    monkeypatch.setattr(deadline, "IDLE_SECONDS", 0.003)
    compiled = CompiledPlugin(manifest(8))
    late: list[float] = []

    def work(seed: int) -> None:
        chance, plugin = random.Random(seed), Plugin(compiled)
        for _ in range(25):
            time.sleep(chance.uniform(0, 0.012))
            began = time.perf_counter()
            try:
                plugin.call("spin")
            except plugwasm.TimeoutError:
                late.append(time.perf_counter() - began)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(late) == 75
    assert max(late) < 1.0


def test_ticker_is_empty_after_call() -> None:
    """A call leaves no entry in the ticker, however it ends."""

    def raises(plugin: Any, inputs: Any, outputs: Any) -> None:
        raise LookupError

    plugin = Plugin(
        manifest(
            50,
            b'(module (import "extism:host/user" "r" (func $r)) (func (export "r") (call $r)) (func (export "t") unreachable)'
            b' (func (export "s") (loop $l (br $l))) (func (export "q")))',
        ),
        functions=[Function(None, "r", [], [], raises)],
    )
    for name in ("q", "r", "t", "s", "nothing"):
        try:
            plugin.call(name)
        except plugwasm.Error:
            pass
        assert not any(
            running.kernel is not None and running is plugin._guest
            for running in list(ticker.running)
        )
    assert wait_for(lambda: not ticker.running)


@pytest.mark.parametrize("result", [str, bytes])
def test_timeout_in_host_function(result: type) -> None:
    """A host function that outlives the deadline ends in a timeout, also if it returns memory."""

    def slow() -> Any:
        time.sleep(0.08)
        return result("x", "utf-8") if result is bytes else "x"

    slow.__annotations__["return"] = result
    plugin = Plugin(
        manifest(
            30,
            b'(module (import "extism:host/user" "slow" (func $f (result i64))) (func (export "f") (drop (call $f))))',
        ),
        functions=[plugwasm._host.functions.InferredFunction(None, "slow", slow, ())],
    )
    for _ in range(2):
        with pytest.raises(plugwasm.TimeoutError):
            plugin.call("f")


def test_cancel_in_host_function() -> None:
    """A host function that allocates after a cancellation ends in a cancellation."""

    def slow(current: Any, inputs: Any, outputs: Any) -> None:
        handle.cancel()
        time.sleep(0.01)
        outputs[0].value = current.alloc(10).offset

    plugin = Plugin(
        manifest(
            None,
            b'(module (import "extism:host/user" "slow" (func $f (result i64))) (func (export "f") (drop (call $f))))',
        ),
        functions=[Function(None, "slow", [], [ValType.I64], slow)],
    )
    handle = plugin.cancel_handle()
    for _ in range(2):
        with pytest.raises(plugwasm.CancelledError):
            plugin.call("f")


# ---- the process as a whole ----------------------------------------------------------------------

BEGIN = """
import os, signal, sys, threading, time
import plugwasm
from plugwasm import CompiledPlugin, Function, Plugin, ValType
from plugwasm._host import deadline
from plugwasm._host.deadline import ticker
WASM = b'''(module
  (import "extism:host/user" "host" (func $host))
  (func (export "quick")) (func (export "spin") (loop $l (br $l))) (func (export "host") (call $host)))'''

def nothing(*_):
    pass

def plugin(timeout_ms=None, host=nothing):
    return Plugin({"wasm": [{"data": WASM}], "timeout_ms": timeout_ms}, functions=[Function(None, "host", [], [], host)])

def outcome(call):
    began = time.monotonic()
    try:
        call()
    except BaseException as error:
        return type(error).__name__ if time.monotonic() - began < 15 else "late"
    return "ok"

def in_child(work):
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        status = 1
        try:
            status = 0 if work() else 2
        finally:
            os._exit(status)
    return os.waitpid(pid, 0)[1]

def cancelled(plugin):
    handle = plugin.cancel_handle()
    def cancel():
        while not handle.cancel():  # until there is a call
            time.sleep(0.005)
    threading.Thread(target=cancel, daemon=True).start()
    return outcome(lambda: plugin.call("spin")) == "CancelledError"

def all_well(p):
    return (
        outcome(lambda: p.call("quick")) == "ok"
        and outcome(lambda: p.call("spin")) == "TimeoutError"
        and outcome(lambda: plugin(50).call("spin")) == "TimeoutError"
        and cancelled(plugin())
        and outcome(lambda: p.call("quick")) == "ok"
    )
"""


def run_program(script: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", BEGIN + script],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.split()


def test_no_thread_while_no_calls() -> None:
    """There is no thread before the first call and after the last."""
    script = """
deadline.IDLE_SECONDS = 0.2
p = plugin(60)
print(threading.active_count())
p.call("quick")
print(threading.active_count())
time.sleep(deadline.IDLE_SECONDS + 0.4)
print(threading.active_count(), len(ticker.running))
print(outcome(lambda: p.call("spin")), threading.active_count())
"""
    assert run_program(script) == ["1", "2", "1", "0", "TimeoutError", "2"]


@posix
@pytest.mark.parametrize(
    "before",
    [
        "",
        "p.call('quick')",
        "deadline.IDLE_SECONDS = 0.01; p.call('quick'); time.sleep(0.3)",
        "outcome(lambda: p.call('spin'))",
        "cancelled(p)",
    ],
    ids=[
        "nothing ran yet",
        "the thread lives",
        "the thread has ended",
        "after a timeout",
        "after a cancel",
    ],
)
def test_fork_with_calls(before: str) -> None:
    """After a fork, calls in both processes run, time out and can be cancelled.

    `-W error`: from Python 3.12 on a fork warns when there are threads, and the ticker must not be
    one.
    """
    script = f"""
p = plugin(300)  # enough for a quick call on a busy machine
{before}
while threading.active_count() > 1 and any(t.name != "plugwasm-ticker" for t in threading.enumerate() if t is not threading.main_thread()):
    time.sleep(0.001)
print(in_child(lambda: all_well(p)), all_well(p), in_child(lambda: in_child(lambda: all_well(p)) == 0 and all_well(p)))
"""
    assert run_program(script) == ["0", "True", "0"]


@posix
def test_fork_while_threads_call() -> None:
    """A fork while other threads run calls does not affect them or the child."""
    script = """
import warnings
warnings.simplefilter("ignore")
others = [plugin(400) for _ in range(3)]
outcomes = []
threads = [threading.Thread(target=lambda p=p: outcomes.append(outcome(lambda: p.call("spin")))) for p in others]
for thread in threads:
    thread.start()
time.sleep(0.1)
print(*[in_child(lambda: all_well(plugin(300))) for _ in range(3)])
for thread in threads:
    thread.join()
print(*outcomes, len(ticker.running))
"""
    assert run_program(script) == ["0"] * 3 + ["TimeoutError"] * 3 + ["0"]


@posix
def test_fork_in_host_function() -> None:
    """A host function may fork, and its call continues in the parent."""
    script = """
statuses = []
p = plugin(60_000, lambda *_: statuses.append(in_child(lambda: all_well(plugin(300)))))
p.call("host")
p._timeout = 0.3
print(*statuses, outcome(lambda: p.call("spin")))
"""
    assert run_program(script) == ["0", "TimeoutError"]


@posix
def test_forks_lose_no_deadline() -> None:
    """No deadline is lost when forks and short calls alternate."""
    script = """
import random, warnings
warnings.simplefilter("ignore")
deadline.IDLE_SECONDS = 0.002
over = threading.Event()
outcomes = []
def work():
    p = plugin(5)
    while not over.is_set():
        time.sleep(random.uniform(0, 0.006))
        outcomes.append(outcome(lambda: p.call("spin")))
threads = [threading.Thread(target=work) for _ in range(2)]
for thread in threads:
    thread.start()
statuses = []
end = time.monotonic() + 0.8
while time.monotonic() < end or len(outcomes) <= 30:
    statuses.append(in_child(lambda: True))
    time.sleep(0.003)
over.set()
for thread in threads:
    thread.join(30)
print(set(statuses), set(outcomes), len(outcomes) > 30)
"""
    assert run_program(script) == ["{0}", "{'TimeoutError'}", "True"]


@posix
@pytest.mark.parametrize("when", [0.02, 0.15])
def test_ctrl_c_ends_endless_guest(when: float) -> None:
    """Ctrl-C ends an endless guest without a deadline."""
    script = f"""
p = plugin()
signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
for _ in range(2):
    signal.setitimer(signal.ITIMER_REAL, {when})
    began = time.monotonic()
    print(outcome(lambda: p.call("spin")), time.monotonic() - began < {when} + 10)
    print(outcome(lambda: p.call("quick")))
"""
    assert run_program(script) == ["KeyboardInterrupt", "True", "ok"] * 2


@posix
def test_ctrl_c_ends_process() -> None:
    """Ctrl-C from outside ends the process while a guest runs."""
    script = BEGIN + 'print("ready", flush=True)\nplugin().call("spin")'
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.1)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, log = process.communicate(timeout=10)
    assert time.monotonic() - began < 5
    assert process.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in log


def test_process_exit_while_thread_lives() -> None:
    """A process can exit while the ticker's thread lives and a daemon thread is in a call."""
    script = """
threading.Thread(target=plugin().call, args=("spin",), daemon=True).start()
plugin(5000).call("quick")
time.sleep(0.05)
print("end")
"""
    assert run_program(script) == ["end"]


def test_calls_at_interpreter_shutdown() -> None:
    """Calls work during interpreter shutdown."""
    script = """
import atexit
deadline.IDLE_SECONDS = 0.1
p = plugin()
p.call("quick")
time.sleep(deadline.IDLE_SECONDS + 0.4)
assert threading.active_count() == 1
atexit.register(lambda: print(outcome(lambda: p.call("quick"))))
"""
    assert run_program(script) == ["ok"]


def test_one_ticker_per_process() -> None:
    """A process has one ticker for all engines."""
    Plugin(manifest(1000)).call("quick")
    Plugin(manifest(1000), fuel_limit=10_000).call("quick")
    assert set(ticker.engines) >= set(modules._engines.values())
    assert len(ticker.engines) == len(set(ticker.engines))
    assert len(tickers()) <= 1
