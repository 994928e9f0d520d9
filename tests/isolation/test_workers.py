"""Processes of isolated plugins: how they start and end, and the state of their plugins then."""

from __future__ import annotations

import gc
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import plugwasm
from plugwasm import (
    IsolatedPlugin,
    Limits,
    ProcessLimits,
)
from plugwasm.errors import WorkerError
from tests.support.guests import export, guest, number
from tests.support.hostile_worker import SIMPLE
from tests.support.isolated_plugins import ENDLESS, is_zombie_or_gone
from tests.support.outcomes import outcome
from tests.support.threads import InThread
from tests.support.waiting import soon

# The end of a worker


@pytest.mark.parametrize("end", ["SIGKILL", "SIGSEGV", "SIGABRT"])
def test_worker_death_in_call(end: str) -> None:
    """The error for a worker that dies in a call says how it died, and the worker is replaced."""
    with IsolatedPlugin(ENDLESS, name="p") as plugin:
        plugin.call("keeps")
        pid = plugin._worker.pid
        call = InThread(plugin.call, "loop")
        assert soon(lambda: plugin._running_call, 10)
        os.kill(pid, getattr(signal, end))
        with pytest.raises(WorkerError, match=f"`loop` of plugin `p`: its process ended by {end}"):
            call.result()
        assert plugin.call("kept") == b"1"
        assert plugin.call("fine", b"on") == b"on"
        assert is_zombie_or_gone(pid)
        assert not Path(f"/proc/{pid}").exists()


def test_worker_death_between_calls() -> None:
    """A worker that died between two calls raises one error."""
    with IsolatedPlugin(ENDLESS) as plugin:
        os.kill(plugin._worker.pid, signal.SIGKILL)
        with pytest.raises(WorkerError, match="SIGKILL"):
            plugin.call("fine")
        assert plugin.call("fine", b"on") == b"on"


@pytest.mark.skipif(sys.platform != "linux", reason="only there is memory limited")
def test_memory_limit_spares_application() -> None:
    """A memory limit ends the worker and not the application."""
    grow = export(
        "grow", "(call $answer (i64.extend_i32_s (memory.grow (i32.const 8000))))"
    ) + export("fine", "(call $echo)")
    limits = Limits(memory_bytes=None)
    with IsolatedPlugin(
        guest(grow, memory='(memory (export "memory") 1)'),
        limits=limits,
        process=ProcessLimits(memory_bytes=2**28),
    ) as plugin:
        assert number(plugin.call("grow")) == -1
        assert plugin.call("fine", b"on") == b"on"
        with pytest.raises((plugwasm.OutOfMemoryError, WorkerError)):
            plugin.call("fine", b"x" * 200_000_000)
        assert plugin.call("fine", b"on") == b"on"
    with IsolatedPlugin(
        guest(grow, memory='(memory (export "memory") 1)'), limits=limits
    ) as plugin:
        assert number(plugin.call("grow")) == 1


def test_closed_plugins_leave_nothing() -> None:
    """Closed and dropped plugins leave no process or descriptor."""

    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd" if sys.platform == "linux" else "/dev/fd"))

    IsolatedPlugin(ENDLESS).close()
    gc.collect()
    before = descriptors()
    pids = []
    for ends in (True, False, True):
        plugin = IsolatedPlugin(ENDLESS)
        plugin.call("fine")
        pids.append(plugin._worker.pid)
        if ends:
            plugin.close()
        del plugin
    assert soon(lambda: descriptors() <= before)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


ORPHAN = """
import os, sys, threading, time
sys.path[:0] = sys.argv[1].split(os.pathsep)
from plugwasm import IsolatedPlugin
plugin = IsolatedPlugin(sys.argv[2])
print(plugin._worker.pid, flush=True)
plugin.call("loop")
"""


def test_worker_ends_with_application() -> None:
    """A worker ends with its application, even during a call."""
    command = [sys.executable, "-c", ORPHAN, os.pathsep.join(sys.path), ENDLESS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as application:
        assert application.stdout is not None
        pid = int(application.stdout.readline())
        time.sleep(0.2)
        application.kill()
    assert soon(lambda: is_zombie_or_gone(pid), 20)


def test_forked_child_has_own_worker() -> None:
    """A forked child has its own worker and does not affect its parent's."""
    with IsolatedPlugin(ENDLESS) as plugin:
        plugin.call("keeps")
        pid = plugin._worker.pid
        child = os.fork()
        if not child:
            status = 1
            try:
                if (
                    plugin.call("kept") == b"1"
                    and plugin.call("fine", b"on") == b"on"
                    and plugin._worker.pid != pid
                ):
                    plugin.close()
                    status = 0
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert plugin.call("kept") == b"1"
        assert plugin._worker.pid == pid


# Starting


@pytest.mark.parametrize("python", ["/nowhere/python", "/dev/null", "relative", "a\0b"])
def test_interpreter_start_failure(python: str) -> None:
    """An interpreter that cannot be started is an error."""
    with pytest.raises(WorkerError, match="cannot start a worker"):
        IsolatedPlugin(SIMPLE, process=ProcessLimits(python=python))


def test_descriptor_exhaustion() -> None:
    """Running out of descriptors is an error, and none is leaked."""
    with IsolatedPlugin(SIMPLE) as plugin:
        plugin.call("f")
        taken: list[int] = []
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/dev/fd"))) + 4, limits[1])
        )
        try:
            while outcome(lambda: taken.append(os.dup(0))) is None:
                pass
            os.close(taken.pop())
            for _ in range(3):
                with pytest.raises(WorkerError, match="Too many open files"):
                    IsolatedPlugin(SIMPLE)
            assert plugin.call("f", b"on") == b"on"
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            for descriptor in taken:
                os.close(descriptor)


def test_lost_worker_closes_descriptors() -> None:
    """A worker that ended leaves no descriptor open until the garbage is collected."""
    before = set(os.listdir("/dev/fd"))
    kept = []
    for _ in range(3):
        with IsolatedPlugin(SIMPLE) as plugin:
            os.kill(plugin._worker.pid, signal.SIGKILL)
            with pytest.raises(WorkerError) as caught:
                plugin.call("f")
            kept.append(caught.value)  # with a traceback, whose frames refer to the worker
    assert set(os.listdir("/dev/fd")) <= before


def test_program_not_an_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that is no interpreter is an error."""
    with pytest.raises(WorkerError, match="ended with the exit code"):
        IsolatedPlugin(SIMPLE, process=ProcessLimits(python="/bin/false"))
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    with pytest.raises(WorkerError, match=r"ProcessLimits\.python"):
        IsolatedPlugin(SIMPLE)


@pytest.mark.parametrize(
    "given",
    [
        {"memory_bytes": 1},
        {"memory_bytes": "1"},
        {"cpu_seconds": -1},
        {"grace": None},
        {"start_seconds": True},
        {"user": 5},
        {"user": (0, 0)},
    ],
)
def test_limits_out_of_range_are_errors(given: dict[str, Any]) -> None:
    with pytest.raises(plugwasm.OptionError, match=rf"ProcessLimits\.{next(iter(given))}"):
        ProcessLimits(**given)


def test_limits_are_values() -> None:
    limits = ProcessLimits(grace=2)
    assert limits == ProcessLimits(grace=2.0) != ProcessLimits()
    assert hash(limits) == hash(ProcessLimits(grace=2))
    assert "grace=2" in repr(limits)
    with pytest.raises(AttributeError):
        limits.grace = 3


def test_plugin_per_thread() -> None:
    """Many threads can each have a plugin."""

    def work(i: int) -> None:
        with IsolatedPlugin(SIMPLE) as plugin:
            for _ in range(20):
                data = os.urandom(100)
                assert plugin.call("f", data) == data

    before = threading.active_count()
    calls = [InThread(work, i) for i in range(4)]
    for call in calls:
        call.result()
    assert soon(lambda: threading.active_count() <= before)
