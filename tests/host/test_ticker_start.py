"""The start of the ticker's thread in a process that has not imported `threading`: not before
guests have looked at the clock some times, and deadlines hold from the first moment on."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.paths import ROOT

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals and os.fork")

WITHOUT_THREADING = pytest.mark.skipif(
    sys.version_info[:2] == (3, 14), reason="`ctypes` of Python 3.14 imports `threading`"
)

BEGIN = """
import os, sys, time, _thread
import plugwasm
from plugwasm import Limits, Plugin
from plugwasm._host.deadline import FIRST_LOOKS, ticker

WASM = b'''(module
  (func (export "quick"))
  (func (export "loop_1000") (local $n i32)
    (loop $l
      (br_if $l (i32.ne (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 1000)))))
  (func (export "spin") (loop $l (br $l))))'''

def plugin(seconds=None, wasm=WASM):
    return Plugin(wasm, limits=Limits(timeout=seconds))

def outcome(call):
    try:
        call()
    except BaseException as error:
        return type(error).__name__
    return "ok"

def has_thread():
    return ticker._thread is not None and "threading" in sys.modules
"""


def run_program(script: str, begin: str = BEGIN) -> list[str]:
    """Run a program that imports nothing but plugwasm."""
    done = subprocess.run(
        [sys.executable, "-I", "-W", "error", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{begin}{script}"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=110,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.split()


@WITHOUT_THREADING
def test_short_calls_start_no_thread() -> None:
    """A process that makes a few short calls neither imports `threading` nor starts a thread."""
    script = """
p = plugin(60)
print(*[outcome(lambda: p.call("quick")) for _ in range(5)])
print("threading" in sys.modules, ticker._thread, len(ticker.running), ticker._looks_left < FIRST_LOOKS)
"""
    assert run_program(script) == [*["ok"] * 5, "False", "None", "0", "True"]


@WITHOUT_THREADING
def test_many_looks_start_the_thread() -> None:
    """A thread is started within a call that is long, and before many short calls are over."""
    script = """
p = plugin(60)
p.call("loop_1000")
print(has_thread(), ticker.has_no_thread)
"""
    assert run_program(script) == ["True", "False"]
    script = """
p = plugin(60)
calls = 0
while not has_thread() and calls < FIRST_LOOKS:
    p.call("quick")
    calls += 1
print(1 < calls < FIRST_LOOKS, ticker.has_no_thread)
"""
    assert run_program(script) == ["True", "False"]


@WITHOUT_THREADING
def test_importing_threading_starts_it() -> None:
    """Once the process has imported `threading`, the next call starts the thread."""
    script = """
p = plugin(60)
p.call("quick")
import threading
print(has_thread())
p.call("quick")
print(has_thread(), ticker.has_no_thread)
"""
    assert run_program(script) == ["False", "True", "False"]


@pytest.mark.parametrize("before", ["", "p.call('quick')"], ids=["first call", "second call"])
def test_deadline_holds_without_a_thread(before: str) -> None:
    """The very first call ends at its deadline, as does one after a short one."""
    script = f"""
p = plugin(0.3)
{before}
print(outcome(lambda: p.call("spin")), outcome(lambda: p.call("quick")))
"""
    assert run_program(script) == ["TimeoutError", "ok"]


def test_start_function_has_a_deadline() -> None:
    """A start function that never ends, before the first call, ends at the deadline."""
    script = """
p = plugin(0.3, b'(module (func $s (loop $l (br $l))) (start $s) (func (export "quick")))')
print(outcome(lambda: p.call("quick")))
"""
    assert run_program(script) == ["TimeoutError"]


@posix
def test_interrupt_before_the_thread() -> None:
    """A signal handler that raises ends a guest that has no deadline, and the next call runs."""
    script = """
import signal
p = plugin()
def interrupt(*_):
    raise KeyboardInterrupt
signal.signal(signal.SIGALRM, interrupt)
signal.setitimer(signal.ITIMER_REAL, 0.1)
print(outcome(lambda: p.call("spin")), outcome(lambda: p.call("quick")))
"""
    assert run_program(script) == ["KeyboardInterrupt", "ok"]


def test_two_threads_before_the_thread() -> None:
    """Calls of two threads, made without `threading`, both end at their deadlines."""
    script = """
plugins = [plugin(0.3), plugin(0.6)]
for p in plugins:
    p.call("quick")
found = []
_thread.start_new_thread(lambda: found.append(outcome(lambda: plugins[0].call("spin"))), ())
found.append(outcome(lambda: plugins[1].call("spin")))
while len(found) < 2:
    time.sleep(0.01)
print(*found, has_thread(), ticker.has_no_thread)
"""
    assert run_program(script) == ["TimeoutError", "TimeoutError", "True", "False"]


def test_cancelled_before_the_thread() -> None:
    """Another thread cancels the first call, which has no deadline."""
    script = """
p = plugin()
handle = p.cancel_handle()
def cancel():
    while not handle.cancel():
        time.sleep(0.005)
_thread.start_new_thread(cancel, ())
print(outcome(lambda: p.call("spin")), outcome(lambda: p.call("quick")))
"""
    assert run_program(script) == ["CancelledError", "ok"]


@posix
def test_fork_before_the_thread() -> None:
    """Parent and child of a fork between two short calls have deadlines, and warn of nothing."""
    script = """
p = plugin(0.3)
p.call("quick")
child = os.fork()
if not child:
    os._exit(0 if (outcome(lambda: p.call("spin")), outcome(lambda: p.call("quick"))) == ("TimeoutError", "ok") else 1)
_, status = os.waitpid(child, 0)
print(os.waitstatus_to_exitcode(status), outcome(lambda: p.call("spin")), has_thread())
"""
    assert run_program(script) == ["0", "TimeoutError", "True"]


@pytest.mark.parametrize("hook", ["before", "after"])
def test_call_at_exit_without_thread(hook: str) -> None:
    """A call from an `atexit` hook has its deadline, also after the ticker's own hook."""
    register = "import atexit; atexit.register(lambda: print(outcome(lambda: p.call('spin'))))"
    begin = BEGIN if hook == "after" else f"{register}\n{BEGIN}"
    script = f"""
{register if hook == "after" else ""}
p = plugin(0.3)
p.call("quick")
"""
    assert run_program(script, begin) == ["TimeoutError"]
