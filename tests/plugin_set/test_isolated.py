"""Sets of plugins in their own processes."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

import plugwasm
import plugwasm.aio
from plugwasm import CompiledPlugin, IsolatedPlugin, Limits, ProcessLimits
from plugwasm._plugin_set.isolated_plugin import IsolatedLoadedPlugin
from plugwasm.errors import (
    OptionError,
    PoolTimeoutError,
    WorkerError,
)
from plugwasm.plugin_set import PluginSet
from tests.support.event_loops import both, run_in_loop, wait_until
from tests.support.guests import export, guest
from tests.support.paths import ROOT
from tests.support.plugin_sets import (
    ASKED,
    CONFIG,
    COUNTS,
    ENTRY,
    QUESTIONS,
    SAYS,
    SILENT,
    HeldCalls,
    call_outcome,
    description_of,
    enter_functions,
    error_of,
    function,
    text_plugin,
    waiting_text_plugin,
    write_file,
)
from tests.support.threads import InThread
from tests.support.waiting import soon


def processes(plugins: PluginSet, name: str) -> set[int]:
    """Return the process ids of a plugin's workers."""
    loaded = plugins._catalog.state.entries[name].loaded
    assert isinstance(loaded, IsolatedLoadedPlugin)
    found = loaded._slots.plugins()
    assert all(isinstance(plugin, IsolatedPlugin) for plugin in found)
    return {plugin._worker.pid for plugin in found}  # type: ignore[attr-defined]


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_nothing_compiled_in_application(monkeypatch: pytest.MonkeyPatch) -> None:
    """Isolated plugins behave like others, and nothing of them is compiled in this process."""

    def say(plugins: PluginSet) -> list[Any]:
        found = [
            call_outcome(plugins, *question)
            for question in QUESTIONS
            if "nonsense" not in question[2]
        ]
        return [
            found,
            plugins.hooks,
            [msgspec.to_builtins(description) for description in plugins.describe()],
        ]

    more = {"config": CONFIG, "wants": guest(export("hook", "(call $enter)"), ENTRY)}
    options: dict[str, Any] = {
        "config": {"config": {"k": "v"}},
        "functions": [function(lambda: None)],
        "limits": Limits(timeout=20),
    }
    with PluginSet(ASKED | more, **options) as plugins:
        expected = say(plugins)
    monkeypatch.setattr("plugwasm._runtime.compiled_plugin.find_or_make_plan", None)
    with PluginSet(ASKED | more, **options, isolated=True) as plugins:
        assert say(plugins) == expected
        assert plugins.call("config", "hook") == b"v"
        plugins.configure("config", {"k": "another"})
        assert plugins.call("config", "hook") == b"another"
    with PluginSet([SILENT]) as plugins:
        assert "NoneType" in error_of(plugins, "plugin-1")


def test_number_of_processes(doors: HeldCalls) -> None:
    """An isolated plugin has one process when it is loaded, and no more than configured."""
    with PluginSet(
        {"a": waiting_text_plugin("a")},
        functions=enter_functions(doors),
        isolated=True,
        instances=2,
    ) as plugins:
        (first,) = processes(plugins, "a")
        calls = [InThread(plugins.first, "hook") for _ in range(4)]
        assert soon(lambda: doors.inside == 2, 20)
        time.sleep(0.1)
        assert doors.inside == 2
        doors.go.set()
        assert [call.result() for call in calls] == [b"a"] * 4
        assert doors.inside == 4
        assert first in processes(plugins, "a")
        assert len(processes(plugins, "a")) == 2


def test_wait_for_process_is_bounded() -> None:
    """A call waits for a process no longer than its own deadline, also for one that it holds."""

    def enter() -> None:
        found.append(plugins.all("hook")[0].error)

    found: list[Any] = []
    options: dict[str, Any] = {"functions": [function(enter)], "limits": Limits(timeout=0.2)}
    with PluginSet(
        {"a": waiting_text_plugin("a")}, **options, isolated=True, instances=1
    ) as plugins:
        plugins.all("hook")
        assert type(found[0]) is PoolTimeoutError
        assert "(`instances`)" in str(found[0])
        assert found[0].plugin == "a"


@both
def test_waiting_task_is_cancelled(backend: str, doors: HeldCalls) -> None:
    """A task that waits for a process can be cancelled."""

    async def main() -> None:
        with anyio.move_on_after(0.2) as scope:
            await plugins.first_async("hook")
        assert scope.cancelled_caught
        assert doors.inside == 1
        waiting = plugins.first_async("hook")
        doors.go.set()
        assert await waiting == b"a"

    with PluginSet(
        {"a": waiting_text_plugin("a")},
        functions=enter_functions(doors),
        isolated=True,
        instances=1,
    ) as plugins:
        holds = InThread(plugins.first, "hook")
        assert soon(lambda: doors.inside == 1, 20)
        run_in_loop(backend, main)
        assert holds.result() == b"a"
        assert description_of(plugins, "a").last_failure is None
        assert plugins.first("hook") == b"a"


@both
def test_cancelled_task_spares_other_calls(backend: str, doors: HeldCalls) -> None:
    """Cancelling a task does not cancel another call in a process that it used."""
    a = guest(
        export("hook", SAYS.format("a")) + export("slow", f"(call $enter) {SAYS.format('slow')}"),
        ENTRY,
    )

    async def main() -> InThread:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(plugins.all_async, "hook")
            await wait_until(lambda: waiting() == 1)
            slow = InThread(plugins.call, "a", "slow")
            await wait_until(lambda: doors.inside == 2)
            tasks.cancel_scope.cancel()
        return slow

    def waiting() -> int:
        loaded = plugins._catalog.state.entries["b"].loaded
        assert isinstance(loaded, IsolatedLoadedPlugin)
        return loaded._slots.stats().waiting

    options: dict[str, Any] = {
        "functions": enter_functions(doors),
        "isolated": True,
        "instances": 1,
    }
    with PluginSet({"a": a, "b": waiting_text_plugin("b")}, **options) as plugins:
        holds = InThread(plugins.call, "b", "hook")
        assert soon(lambda: doors.inside == 1, 20)
        slow = run_in_loop(backend, main)
        doors.go.set()
        assert (slow.result(), holds.result()) == (b"slow", b"b")


@both
def test_tasks_take_turns(backend: str) -> None:
    """Tasks share the processes in turns."""

    async def enter() -> None:
        inside.append(len(inside) - len(left))
        await anyio.sleep(0.01)
        left.append(1)

    inside: list[int] = []
    left: list[int] = []

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            for _ in range(8):
                tasks.start_soon(plugins.first_async, "hook")

    with PluginSet(
        {"a": waiting_text_plugin("a")}, functions=[function(enter)], isolated=True, instances=2
    ) as plugins:
        run_in_loop(backend, main)
        assert len(left) == 8
        assert max(inside) <= 1
        assert len(processes(plugins, "a")) == 2


def test_processes_end_with_plugin(tmp_path: Path, doors: HeldCalls) -> None:
    """Processes end with a plugin that is replaced, disabled or closed, after its calls have
    ended."""
    write_file(tmp_path / "a.wasm", waiting_text_plugin("old"))
    write_file(tmp_path / "b.wasm", text_plugin("b"))
    with PluginSet.from_directory(
        tmp_path, functions=enter_functions(doors), isolated=True
    ) as plugins:
        call = InThread(plugins.first, "hook")
        assert soon(lambda: doors.inside == 1, 20)
        (old,), (b,) = processes(plugins, "a"), processes(plugins, "b")
        kept = [
            entry.loaded for entry in plugins._catalog.state.entries.values()
        ]  # so that it is not the garbage collector that ends them
        write_file(tmp_path / "a.wasm", text_plugin("new"))
        assert plugins.reload().changed == ("a",)
        assert plugins.first("hook") == b"new"
        assert processes(plugins, "b") == {b}
        assert not is_gone(old)
        doors.go.set()
        assert call.result() == b"old"
        assert soon(lambda: is_gone(old), 20)
        (new,) = processes(plugins, "a")
        write_file(tmp_path / "a.wasm", b"half")
        assert plugins.reload().failed == ("a",)
        assert processes(plugins, "a") == {new}
        plugins.disable("a")
        assert soon(lambda: is_gone(new), 20)
        assert not is_gone(b)
    assert soon(lambda: is_gone(b), 20)
    assert len(kept) == 2


def test_processes_end_with_dropped_set() -> None:
    """Processes end with a set that was dropped without being closed."""
    plugins = PluginSet({"a": text_plugin("a")}, isolated=True)
    assert plugins.first("hook") == b"a"
    (pid,) = processes(plugins, "a")
    gc.disable()
    try:
        del plugins
        assert soon(lambda: is_gone(pid), 20)
    finally:
        gc.enable()


def test_killed_process_is_replaced() -> None:
    """A killed process is replaced."""
    with PluginSet({"a": text_plugin("a"), "b": text_plugin("b")}, isolated=True) as plugins:
        (pid,) = processes(plugins, "a")
        os.kill(pid, signal.SIGKILL)
        assert soon(lambda: is_gone(pid), 20)
        killed, b = plugins.all("hook")
        assert isinstance(killed.error, WorkerError)
        assert b.get() == b"b"
        assert plugins.first("hook", stop_on_error=True) == b"a"
        assert processes(plugins, "a") != {pid}


def test_fresh_instance_in_same_process() -> None:
    """A fresh isolated plugin is a new instance in the same process."""
    for fresh, counted in ((False, [1, 2, 3]), (True, [1, 1, 1])):
        with PluginSet({"a": COUNTS}, isolated=True, fresh=fresh) as plugins:
            before = processes(plugins, "a")
            assert [plugins.call("a", "hook")[0] for _ in range(3)] == counted
            assert processes(plugins, "a") == before


def test_compiled_plugin_keeps_settings() -> None:
    """A compiled plugin is isolated as well and keeps its own settings."""
    compiled = CompiledPlugin(text_plugin("x"), limits=Limits(timeout=5), name="mine")
    with PluginSet([compiled], isolated=ProcessLimits(memory_bytes=2**29)) as plugins:
        before = processes(plugins, "mine")
        assert len(before) == 1
        assert plugins.first("hook") == b"x"
        assert processes(plugins, "mine") == before
        grants = description_of(plugins, "mine").grants
        assert grants is not None
        assert grants.timeout == 5


def test_start_failure_is_load_error() -> None:
    """A process that cannot start is the load error of its plugin."""
    with PluginSet(
        {"a": text_plugin("a")}, isolated=ProcessLimits(python="/nowhere/python")
    ) as plugins:
        assert "cannot start a worker" in error_of(plugins, "a")
        assert plugins.first("hook") is None


def test_unsupported_setting_is_refused() -> None:
    """A setting that cannot be used with isolation is the application's error."""
    with pytest.raises(OptionError, match="cannot be recorded"):
        PluginSet([SILENT], isolated=True, observe=plugwasm.recording.Recorder())


FORKING_ISOLATED = """
import os, sys
from plugwasm.plugin_set import PluginSet
plugins = PluginSet([sys.argv[1]], isolated=True, instances=1)
assert plugins.first("hook") == b"a"
pid = os.fork()
if not pid:
    status = 1
    try:
        status = 0 if plugins.first("hook") == b"a" else 2
        plugins.close()
    finally:
        os._exit(status)
status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
assert plugins.first("hook", stop_on_error=True) == b"a"
os._exit(status)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_forked_child_has_own_processes(tmp_path: Path) -> None:
    """A forked child has its own processes."""
    file = write_file(tmp_path / "a.wasm", text_plugin("a"))
    command = [sys.executable, "-W", "ignore", "-c", FORKING_ISOLATED, str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
