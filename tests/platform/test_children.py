"""Processes that plugwasm starts in applications that reap all children themselves or let the
system do so."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import pytest

from plugwasm import IsolatedPlugin, WorkerError
from plugwasm._platform.child_processes import ChildProcess
from tests.support.processes import is_alive

pytestmark = pytest.mark.skipif(not hasattr(os, "waitid"), reason="needs os.waitid")

ECHO = b'(module (func (export "ok")) (func (export "spin") (loop $l (br $l))))'

REAPERS = {
    "a thread that waits for all": """
def reap():
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            time.sleep(0.001)
threading.Thread(target=reap, daemon=True).start()
""",
    "the system": "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n",
    "a signal handler": """
def reap(*_):
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
signal.signal(signal.SIGCHLD, reap)
""",
}

PROGRAM = """
import os, signal, sys, threading, time
import plugwasm
from plugwasm._runtime import compiler as _compiler; from plugwasm import _engine
ECHO = b'(module (func (export "ok")) (func (export "spin") (loop $l (br $l))))'
LIMITS = plugwasm.Limits(compile_seconds=60)
%s
for _ in range(3):
    with plugwasm.IsolatedPlugin(ECHO) as plugin:
        assert plugin.call("ok") == b""
        os.kill(plugin._worker.pid, signal.SIGKILL)
        try:
            plugin.call("ok")
        except plugwasm.WorkerError as error:
            assert "exit code 0" not in error.message, error.message
            said = error.message
        assert plugin.call("ok") == b""
    module = _compiler._compile_in_child(b'(module (func (export "x")))', _code_engine, _compiler.CompileBudget(LIMITS), "m", lambda wasm: None) if (
        _code_engine := plugwasm._runtime.modules.get_engine(pooled=False)) else None
    assert len(module[0]) > 100
print(said)
"""


@pytest.mark.parametrize("reaper", REAPERS)
def test_exit_codes_taken_by_others(reaper: str) -> None:
    """Workers and compilers work although other code reaps their exit codes."""
    program = "import plugwasm._runtime.modules\n" + PROGRAM % REAPERS[reaper]
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "not known" in done.stdout or "SIGKILL" in done.stdout


def sleeper(**options: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"], **options)


@pytest.fixture
def sent_signals(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Collect the signals sent from now on instead of delivering them."""
    sent: list[tuple[Any, ...]] = []
    for module, name in ((os, "kill"), (os, "killpg"), (signal, "pidfd_send_signal")):
        if hasattr(module, name):
            monkeypatch.setattr(module, name, lambda *args, name=name: sent.append((name, *args)))
    return sent


@pytest.mark.parametrize("has_descriptor", [True, False])
def test_reused_pid_gets_no_signal(
    has_descriptor: bool, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """A process id that is not the child's any more gets no signal."""
    if not has_descriptor:
        monkeypatch.delattr(os, "pidfd_open", raising=False)
    process = sleeper(start_new_session=True)
    child = ChildProcess(process, leads=True)
    os.kill(process.pid, signal.SIGKILL)
    os.waitpid(process.pid, 0)  # as some other part of the application does
    sent = request.getfixturevalue("sent_signals")
    child.kill()
    child.kill()
    assert sent == []
    assert child.wait() is None


def test_reaped_worker_gets_no_signal(request: pytest.FixtureRequest) -> None:
    """A worker that was reaped by other code gets no signal."""
    plugin = IsolatedPlugin(ECHO)
    assert plugin._worker is not None
    os.kill(plugin._worker.pid, signal.SIGKILL)
    os.waitpid(plugin._worker.pid, 0)
    sent = request.getfixturevalue("sent_signals")
    with pytest.raises(WorkerError, match="how is not known"):
        plugin.call("ok")
    plugin.close()
    assert sent == []


@pytest.mark.parametrize("has_descriptor", [True, False])
def test_child_killed_with_group(has_descriptor: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child is killed with its process group."""
    if not has_descriptor:
        monkeypatch.delattr(os, "pidfd_open", raising=False)
    code = "import subprocess, sys\nprint(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(1000)']).pid, flush=True)\ninput()"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    grandchild = int(process.stdout.readline())
    child = ChildProcess(process, leads=True)
    child.kill()
    assert child.wait() == -signal.SIGKILL == process.returncode
    end = time.monotonic() + 30
    while is_alive(grandchild) and time.monotonic() < end:
        time.sleep(0.01)
    assert not is_alive(grandchild)
    process.stdin.close()
    process.stdout.close()


def test_wait_ends_with_exit_code() -> None:
    """Waiting ends, and returns the exit code."""
    process = sleeper()
    child = ChildProcess(process)
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.05)
    threading.Timer(0.1, process.terminate).start()
    assert child.wait(30) == -signal.SIGTERM == child.wait()
    child.kill()
    assert ChildProcess(subprocess.Popen([sys.executable, "-c", "raise SystemExit(7)"])).wait() == 7
