"""Workers of applications that close all their descriptors and reuse the numbers, as daemons do."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from plugwasm._platform import child_processes
from plugwasm._platform.child_processes import ChildProcess
from plugwasm._platform.descriptors import Descriptor, SocketDescriptor

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="needs descriptors of processes and /proc"
)

PROGRAM = """
import gc, os, select, signal, socket, subprocess, sys, time
import plugwasm
ECHO = b'''(module
  (import "extism:host/env" "input_offset" (func $in (result i64)))
  (import "extism:host/env" "length" (func $length (param i64) (result i64)))
  (import "extism:host/env" "output_set" (func $out (param i64 i64)))
  (import "extism:host/user" "daemonize" (func $daemonize))
  (func (export "echo") (call $out (call $in) (call $length (call $in))))
  (func (export "daemon") (call $daemonize)))'''

class Nothing:
    "Only closes."
    def open(self): pass
    def check(self): pass

class Sockets:
    def open(self):
        self.pairs = [socket.socketpair() for _ in range(40)]
    def check(self):
        for end in (end for pair in self.pairs for end in pair):
            assert not select.select([end], [], [], 0)[0], "it was written to, or the other end was closed"
            os.fstat(end.fileno())

class FilledPipes:
    def open(self):
        self.pipes = [os.pipe() for _ in range(40)]
        for _, end in self.pipes:
            os.write(end, b"unread")
    def check(self):
        for end, _ in self.pipes:
            assert os.read(end, 100) == b"unread", "somebody else has read it"

class FilledSockets:
    def open(self):
        self.pairs = [socket.socketpair() for _ in range(40)]
        for one, other in self.pairs:
            one.send(b"unread"); other.send(b"unread")
    def check(self):
        for end in (end for pair in self.pairs for end in pair):
            assert end.recv(100) == b"unread", "somebody else has read it"

class Children:
    def open(self):
        self.child = subprocess.Popen(["sleep", "1000"])
        self.descriptors = [os.pidfd_open(self.child.pid) for _ in range(80)]
    def check(self):
        for descriptor in self.descriptors:
            os.fstat(descriptor)
            signal.pidfd_send_signal(descriptor, 0)
        assert self.child.poll() is None, "it was killed"
        self.child.kill(); self.child.wait()

theirs = {theirs}()
def daemonize():
    os.closerange(3, 1000)
    theirs.open()
function = plugwasm.Function(None, "daemonize", [], [], lambda *_: daemonize())
plugin = plugwasm.IsolatedPlugin(ECHO, functions=[function], {options})
assert plugin.call("echo", "before") == b"before"
first = plugin._worker.pid
def lost(function="echo"):
    try:
        plugin.call(function, "secret")
    except plugwasm.WorkerError as error:
        assert "has closed the descriptors" in error.message, error.message
    else:
        raise AssertionError("the worker is not lost")
{use}
theirs.check()
try:
    os.kill(first, 0)
except ProcessLookupError:
    print("ended")
"""

USES = {
    "calling": 'daemonize(); lost(); assert plugin.call("echo", "after") == b"after"',
    "calling, then closing": "daemonize(); lost(); plugin.close()",
    "closing": "daemonize(); plugin.close()",
    "closing everything in the middle of a call": 'lost("daemon"); assert plugin.call("echo", "after") == b"after"',
    "dropping": "daemonize(); del plugin; gc.collect()",
    "cancelling": "daemonize(); plugin._worker.cancel(1); plugin.close()",
    "losing it": 'daemonize(); os.kill(first, 9); lost(); assert plugin.call("echo", "after") == b"after"',
}


@pytest.mark.parametrize(
    "theirs", ["Nothing", "Sockets", "FilledPipes", "FilledSockets", "Children"]
)
@pytest.mark.parametrize("use", USES)
def test_reused_numbers_are_not_touched(use: str, theirs: str) -> None:
    """A file that now has the number of a worker's descriptor is not touched, whatever is done
    to the worker."""
    options = "process=plugwasm.ProcessLimits(cpu_seconds=60)"
    program = (
        PROGRAM.replace("{theirs}", theirs)
        .replace("{use}", USES[use])
        .replace("{options}", options)
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "ended\n", "")


@pytest.mark.parametrize("theirs", ["Nothing", "Sockets", "Children"])
def test_exit_without_traceback(theirs: str) -> None:
    """At exit, there is no traceback and the worker ends."""
    use = "daemonize(); print(first, flush=True)"
    program = PROGRAM.replace("{theirs}", theirs).replace("{use}", use).replace("{options}", "")
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert not Path(f"/proc/{done.stdout.split()[0]}").exists()


# ---- children ------------------------------------------------------------------------------------


@pytest.fixture(params=[True, False], ids=["inodes of their own", "one inode for all"])
def inodes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give process descriptors inodes of their own, as since Linux 6.9, or one inode for all, as
    before."""
    if not request.param:
        fstat = os.fstat

        def flat(number: int) -> os.stat_result:
            status = fstat(number)
            if "pidfd" in os.readlink(f"/proc/self/fd/{number}"):
                return os.stat_result((status.st_mode, 1, 1, *status[3:]))
            return status

        monkeypatch.setattr(os, "fstat", flat)


def sleeper() -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "1000"], start_new_session=True)


@pytest.fixture
def child(inodes: None) -> Iterator[ChildProcess]:
    child = ChildProcess(sleeper(), leads=True)
    yield child
    child.kill()


@pytest.fixture
def other() -> Iterator[subprocess.Popen[bytes]]:
    other = sleeper()
    yield other
    other.kill()
    other.wait()


def number(child: ChildProcess) -> int:
    assert child._descriptor is not None
    return child._descriptor.number


def test_child_found_by_its_number(child: ChildProcess, other: subprocess.Popen[bytes]) -> None:
    """A child is found again by its own number."""
    lost = number(child)
    others = os.pidfd_open(other.pid)
    os.dup2(others, lost)
    assert child.is_unreaped()
    assert number(child) not in (-1, lost)
    child.kill()
    assert child.wait() == -signal.SIGKILL
    assert other.poll() is None
    signal.pidfd_send_signal(lost, 0)  # it is open, and the other's
    os.close(others)
    os.close(lost)


def test_child_with_closed_descriptor_killed(child: ChildProcess) -> None:
    """A child whose descriptor was closed can still be killed."""
    os.close(number(child))
    child.kill()
    assert child.wait() == -signal.SIGKILL


def test_lost_child_is_not_confused(child: ChildProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lost child that has ended is not confused with another process of that number.

    The application uses the number again: as a stand-in for that, the process began at another
    time.
    """
    os.close(number(child))
    began = child_processes._read_start_time
    monkeypatch.setattr(child_processes, "_read_start_time", lambda pid: b"another time")
    assert not child.is_unreaped()
    child.kill()
    assert child.process.pid == child.pid
    os.kill(child.pid, 0)  # nobody has killed it
    assert began(child.pid) is not None
    os.kill(child.pid, signal.SIGKILL)
    os.waitpid(child.pid, 0)


def test_forget_closes_nothing_of_others(
    child: ChildProcess, other: subprocess.Popen[bytes]
) -> None:
    """`forget` closes no descriptor of others."""
    lost = number(child)
    others = os.pidfd_open(other.pid)
    os.dup2(others, lost)
    child.forget()
    signal.pidfd_send_signal(lost, 0)
    os.close(others)
    os.close(lost)
    os.kill(child.pid, signal.SIGKILL)
    os.waitpid(child.pid, 0)


# ---- descriptors ---------------------------------------------------------------------------------


def test_reused_number_is_not_closed() -> None:
    """A number that refers to another file is not used and not closed."""
    pipes = os.pipe(), os.pipe()
    (one, _), (other, _) = pipes
    descriptor = Descriptor(one)
    assert descriptor.number == one
    os.dup2(other, one)
    assert descriptor.number == -1
    descriptor.close()
    os.fstat(one)
    for end in (*pipes[0], *pipes[1]):
        os.close(end)


def test_a_descriptor_is_closed_once() -> None:
    one, other = os.pipe()
    descriptor = Descriptor(one)
    descriptor.close()
    again = os.dup(other)
    descriptor.close()
    assert again == one, "the system gives out the lowest number"
    os.fstat(again)
    os.close(again)
    os.close(other)


def test_socket_releases_reused_number() -> None:
    """A socket releases a number that refers to another file."""
    (sock, peer), (one, other) = socket.socketpair(), os.pipe()
    kept = sock.fileno()
    descriptor = SocketDescriptor(sock)
    os.dup2(one, kept)
    descriptor.close()
    sock.close()
    os.fstat(kept)
    for end in (kept, one, other):
        os.close(end)
    peer.close()
