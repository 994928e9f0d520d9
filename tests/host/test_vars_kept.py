"""Vars belong to the plugin: they outlive its instance, and end with `reset` and `close`."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import plugwasm
from plugwasm import (
    CompiledPlugin,
    IsolatedPlugin,
    Limits,
    MapBatches,
    Plugin,
    PluginPool,
    PluginRef,
    recording,
)
from plugwasm.testing import Harness
from tests.support.guests import LOOP, export, guest, manifest

KINDS = pytest.mark.parametrize("kind", [Plugin, IsolatedPlugin])
FAIL = '(import "extism:host/user" "fail" (func $fail))'
EXIT = '(import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))'
SET = "(call $var_set <<k>> <<new>>)"
ENDS = {
    "a trap": f"{SET} unreachable",
    "a host function that raises": f"{SET} (call $fail)",
    "a deadline": f"{SET} {LOOP}",
    "a denied request": f'{SET} (drop (call $http_request <<{{"url": "https://example.com"}}>> (i64.const 0)))',
    "the exit code 0": f"{SET} (call $proc_exit (i32.const 0))",
    "an exit code": f"{SET} (call $proc_exit (i32.const 3))",
    "a var that is too large": f"{SET} (call $var_set <<large>> (call $alloc (i64.const 2000)))",
    "a bad handle": f"{SET} (call $log_info (i64.const 3))",
    "an error of its own": f"{SET} (call $error_set <<no>>)",
    "too deep a recursion": f"{SET} (call $deep)",
}
SOURCE = guest(
    "".join(export(name, code) for name, code in ENDS.items())
    + export("_start", SET)
    + export("set", "(call $var_set <<k>> (call $copy))")
    + export("get", "(call $give (call $var_get <<k>>))")
    + "(func $deep (call $deep) (call $deep))",
    FAIL,
    EXIT,
)


def fail_call() -> None:
    raise LookupError("no")


def make_plugin(kind: Callable[..., Any], **options: Any) -> Any:
    function = plugwasm._host.functions.infer_function(None, "fail", fail_call)
    fields = {"timeout_ms": 150, "memory": {"max_var_bytes": 1000}}
    return kind(manifest(SOURCE, **fields), wasi=True, functions=[function], **options)


@KINDS
@pytest.mark.parametrize("end", [*ENDS, "_start"])
def test_vars_outlive_instance(kind: type[Plugin], end: str) -> None:
    """Vars outlive an instance, however it ends."""
    with make_plugin(kind) as plugin:
        plugin.call("set", "old")
        try:
            plugin.call(end)
        except plugwasm.Error:
            assert end not in ("the exit code 0", "_start")
        assert plugin.vars == {"k": b"new"}
        assert plugin.call("get") == b"new"
        plugin.call("set", "newer")
        assert plugin.call("get") == b"newer"


@KINDS
def test_vars_reset(kind: type[Plugin]) -> None:
    """A reset restores the initial vars."""
    with make_plugin(kind, vars={"k": b"first"}) as plugin:
        for _ in range(2):
            assert plugin.call("get") == b"first"
            with pytest.raises(plugwasm.TrapError):
                plugin.call("a trap")
            assert plugin.call("get") == b"new"
            plugin.reset()
            assert plugin.vars == {"k": b"first"}


@KINDS
def test_vars_released_on_close(kind: type[Plugin]) -> None:
    """Closing the plugin releases its vars."""
    plugin = make_plugin(kind)
    plugin.call("set", b"x" * 100)
    plugin.close()
    assert plugin.vars == {}


def test_vars_outlive_killed_process() -> None:
    """Vars outlive a killed worker process."""
    with make_plugin(IsolatedPlugin) as plugin:
        plugin.call("set", "kept")
        os.kill(plugin._worker.pid, signal.SIGKILL)
        with pytest.raises(plugwasm.WorkerError):
            plugin.call("get")
        assert plugin.call("get") == b"kept"


def test_vars_are_per_plugin() -> None:
    """Two plugins of one compiled plugin each have their own vars."""
    compiled = make_plugin(CompiledPlugin)
    with Plugin(compiled, vars={"k": b"first"}) as one, Plugin(compiled) as two:
        one.call("set", "of one")
        assert (one.call("get"), two.call("get")) == (b"of one", b"")


def test_limit_counts_over_instances() -> None:
    """The limit holds across instances."""
    with make_plugin(Plugin) as plugin:
        plugin.call("set", b"x" * 900)
        with pytest.raises(plugwasm.TrapError):
            plugin.call("a trap")
        plugin.call("set", b"y" * 900)
        with pytest.raises(plugwasm.GuestError, match="limit of 1000 bytes"):
            plugin.call("set", b"z" * 1000)
        assert plugin.call("get") == b"y" * 900


@pytest.mark.parametrize(
    "make",
    [
        lambda c: PluginPool(c, size=1, fresh=True),
        lambda c: PluginPool(factory=lambda: Plugin(c), size=1, fresh=True),
    ],
)
def test_fresh_pool_leaves_no_vars(make: Callable[[CompiledPlugin], PluginPool]) -> None:
    """A fresh pool leaves no vars to the next caller."""
    with make(make_plugin(CompiledPlugin)) as pool:
        pool.call("set", "secret")
        with pytest.raises(plugwasm.TrapError):
            pool.call("a trap")
        assert pool.call("get") == b""


def test_batches_with_instance_per_row() -> None:
    """In batches with an instance per row, each row begins without vars."""
    pa = pytest.importorskip("pyarrow")
    source = guest(
        export("swap", "(call $give (call $var_get <<k>>)) (call $var_set <<k>> (call $copy))")
    )
    ref = PluginRef(source.encode())
    mapped = MapBatches(ref, "swap", column="column", returns=bytes, instance_per="row")
    assert mapped(pa.table({"column": [b"a", b"b"]})).column("result").to_pylist() == [b"", b""]


def test_observers_see_same_vars() -> None:
    """Observers and host functions see the same vars."""
    seen: list[bytes | None] = []

    def look(plugin: plugwasm.CurrentPlugin) -> None:
        seen.append(plugin.var("k"))
        plugin.set_var("k", b"by the host")

    source = guest(
        export("look", "(call $look)") + export("die", "unreachable"),
        '(import "extism:host/user" "look" (func $look))',
    )
    function = plugwasm._host.functions.infer_function(None, "look", look)
    with Plugin(
        source, functions=[function], vars={"k": b"first"}, observe=plugwasm.observing.CallLog()
    ) as plugin:
        plugin.call("look")
        with pytest.raises(plugwasm.TrapError):
            plugin.call("die")
        plugin.call("look")
        assert seen == [b"first", b"by the host"]


def test_recording_begins_with_vars(tmp_path: Path) -> None:
    """A recording of the next instance begins with the vars and can be replayed."""
    source = guest(
        export("set", "(call $var_set <<k>> (call $copy))")
        + export("get", "(call $give (call $var_get <<k>>))")
        + export("die", "unreachable")
    )
    recorder = recording.Recorder(tmp_path)
    with Plugin(source, observe=recorder) as plugin:
        plugin.call("set", "kept")
        with pytest.raises(plugwasm.TrapError):
            plugin.call("die")
        assert plugin.call("get") == b"kept"
    recordings = [recording.load(path) for path in sorted(tmp_path.iterdir())]
    assert recordings
    for taken in recordings:
        taken.replay(source)


def test_vars_outlive_harness_instances() -> None:
    with Harness(guest(export("set", f"{SET} unreachable"))) as harness:
        plugin = harness.plugin()
        with pytest.raises(plugwasm.TrapError):
            plugin.call("set")
        assert harness.vars == {"k": b"new"}


def test_failing_calls_stay_within_limit() -> None:
    """A plugin whose calls all fail keeps no more vars than its limit."""
    body = "(call $var_set (call $copy) <<value>>) unreachable"
    with Plugin(guest(export("more", body)), limits=Limits(vars=10)) as plugin:
        for i in range(20):
            with pytest.raises(plugwasm.TrapError if i < 10 else plugwasm.GuestError):
                plugin.call("more", f"name {i}")
        assert len(plugin.vars) == 10
