"""Vars are the plugin's: they outlive its instance, and end with `reset` and `close`."""

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


def fail() -> None:
    raise LookupError("no")


def made(kind: Callable[..., Any], **options: Any) -> Any:
    function = plugwasm._host.functions.infer_function(None, "fail", fail)
    fields = {"timeout_ms": 150, "memory": {"max_var_bytes": 1000}}
    return kind(manifest(SOURCE, **fields), wasi=True, functions=[function], **options)


@KINDS
@pytest.mark.parametrize("end", [*ENDS, "_start"])
def test_they_outlive_an_instance_that_ends_by(kind: type[Plugin], end: str) -> None:
    with made(kind) as plugin:
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
def test_they_are_as_at_first_after_a_reset(kind: type[Plugin]) -> None:
    with made(kind, vars={"k": b"first"}) as plugin:
        for _ in range(2):
            assert plugin.call("get") == b"first"
            with pytest.raises(plugwasm.TrapError):
                plugin.call("a trap")
            assert plugin.call("get") == b"new"
            plugin.reset()
            assert plugin.vars == {"k": b"first"}


@KINDS
def test_they_are_gone_when_it_is_closed_and_no_longer_held(kind: type[Plugin]) -> None:
    plugin = made(kind)
    plugin.call("set", b"x" * 100)
    plugin.close()
    assert plugin.vars == {}


def test_they_outlive_a_process_that_was_killed() -> None:
    with made(IsolatedPlugin) as plugin:
        plugin.call("set", "kept")
        os.kill(plugin._worker.pid, signal.SIGKILL)
        with pytest.raises(plugwasm.WorkerError):
            plugin.call("get")
        assert plugin.call("get") == b"kept"


def test_two_plugins_of_one_compiled_plugin_have_their_own() -> None:
    compiled = made(CompiledPlugin)
    with Plugin(compiled, vars={"k": b"first"}) as one, Plugin(compiled) as two:
        one.call("set", "of one")
        assert (one.call("get"), two.call("get")) == (b"of one", b"")


def test_the_limit_counts_over_instances() -> None:
    with made(Plugin) as plugin:
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
def test_a_fresh_pool_leaves_none_for_the_next_caller(
    make: Callable[[CompiledPlugin], PluginPool],
) -> None:
    with make(made(CompiledPlugin)) as pool:
        pool.call("set", "secret")
        with pytest.raises(plugwasm.TrapError):
            pool.call("a trap")
        assert pool.call("get") == b""


def test_in_batches_each_row_has_none_where_it_has_an_instance_of_its_own() -> None:
    pa = pytest.importorskip("pyarrow")
    source = guest(
        export("swap", "(call $give (call $var_get <<k>>)) (call $var_set <<k>> (call $copy))")
    )
    ref = PluginRef(source.encode())
    made = MapBatches(ref, "swap", column="column", returns=bytes, instance_per="row")
    assert made(pa.table({"column": [b"a", b"b"]})).column("result").to_pylist() == [b"", b""]


def test_observers_and_host_functions_see_the_same_vars() -> None:
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


def test_the_recording_of_the_next_instance_begins_with_them_and_can_be_replayed(
    tmp_path: Path,
) -> None:
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


def test_a_harness_has_them_as_well() -> None:
    with Harness(guest(export("set", f"{SET} unreachable"))) as harness:
        plugin = harness.plugin()
        with pytest.raises(plugwasm.TrapError):
            plugin.call("set")
        assert harness.vars == {"k": b"new"}


def test_a_plugin_that_never_ends_its_calls_well_keeps_no_more_than_its_limit() -> None:
    body = "(call $var_set (call $copy) <<value>>) unreachable"
    with Plugin(guest(export("more", body)), limits=Limits(vars=10)) as plugin:
        for i in range(20):
            with pytest.raises(plugwasm.TrapError if i < 10 else plugwasm.GuestError):
                plugin.call("more", f"name {i}")
        assert len(plugin.vars) == 10
