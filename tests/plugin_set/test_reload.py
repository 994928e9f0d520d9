"""Plugins that are replaced, disabled and configured while calls run."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import plugwasm
import plugwasm.aio
from plugwasm._plugin_set import discovery, loading
from plugwasm._plugin_set.discovery import FileSource
from plugwasm.errors import (
    ClosedError,
    OptionError,
    SourceError,
)
from plugwasm.plugin_set import PluginSet
from tests.support.paths import ROOT
from tests.support.plugin_sets import (
    CONFIG,
    COUNTS,
    HeldCalls,
    appending_plugin,
    description_of,
    enter_functions,
    make_folder,
    text_plugin,
    waiting_text_plugin,
    write_file,
)
from tests.support.threads import InThread
from tests.support.waiting import soon


def test_reload_finds_changes(tmp_path: Path) -> None:
    """A reload finds files that are new, changed or gone."""
    write_file(tmp_path / "same.wasm", COUNTS)
    write_file(tmp_path / "changes.wasm", text_plugin("old"))
    write_file(tmp_path / "goes.wasm", text_plugin("gone"))
    with PluginSet.from_directory(tmp_path) as plugins:
        assert plugins.first("hook") == b"old"
        assert plugins.call("same", "hook")[0] == 1
        assert not plugins.reload()
        write_file(tmp_path / "changes.wasm", text_plugin("new"))
        write_file(tmp_path / "comes.wasm", text_plugin("new"))
        (tmp_path / "goes.wasm").unlink()
        assert plugins.reload() == (("comes",), ("changes",), ("goes",), ())
        assert plugins.hooks["hook"] == ("changes", "comes", "same")
        assert plugins.first("hook") == b"new"
        assert plugins.call("same", "hook")[0] == 2, "its instance was kept"


def test_change_within_clock_tick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change with the same size and within one tick of the clock is found."""
    path = write_file(tmp_path / "a.wasm", text_plugin("0"))
    tick = time.time_ns()
    monkeypatch.setattr(discovery, "_file_stamp", lambda path: (1, 1, 1, tick, tick))
    with PluginSet.from_directory(tmp_path) as plugins:
        write_file(path, text_plugin("1"))
        assert plugins.reload().changed == ("a",)
        assert plugins.first("hook") == b"1"


def test_unchanged_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unchanged file is not read again."""
    path = write_file(tmp_path / "a.wasm", text_plugin("0"))
    monkeypatch.setattr(loading, "_RECENT_NS", 0)
    read: list[str] = []
    load = FileSource.load

    def counted(source: FileSource, about: Any, module_bytes: int) -> Any:
        read.append(source.name)
        return load(source, about, module_bytes)

    monkeypatch.setattr(FileSource, "load", counted)
    with PluginSet.from_directory(tmp_path) as plugins:
        for _ in range(3):
            plugins.reload()
        assert len(read) == 1
        write_file(path, text_plugin("0"))
        assert not plugins.reload(), "it was written anew, but says the same"
        assert len(read) == 2


def test_running_call_keeps_its_plugin(tmp_path: Path, doors: HeldCalls) -> None:
    """A running call ends on the plugin on which it began."""
    path = write_file(tmp_path / "a.wasm", waiting_text_plugin("old"))
    with PluginSet.from_directory(tmp_path, functions=enter_functions(doors)) as plugins:
        entry = plugins._catalog.state.entries["a"].loaded
        assert entry is not None
        old = weakref.ref(entry.compiled._plan)
        del entry
        call = InThread(plugins.first, "hook")
        assert soon(lambda: doors.inside, 20)
        write_file(path, text_plugin("new"))
        assert plugins.reload().changed == ("a",)
        assert plugins.first("hook") == b"new"
        assert old() is not None
        doors.go.set()
        assert call.result() == b"old"
        del call
        gc.collect()
        assert old() is None, "nothing is left of it"


def test_replaced_plugin_keeps_no_instance(tmp_path: Path, doors: HeldCalls) -> None:
    """A replaced plugin keeps no instance, also while a call is running."""
    write_file(tmp_path / "a.wasm", waiting_text_plugin("a"))
    with PluginSet.from_directory(tmp_path, functions=enter_functions(doors)) as plugins:
        doors.go.set()
        assert plugins.first("hook") == b"a"
        old = plugins._catalog.state.entries["a"].loaded
        assert old is not None
        call = InThread(plugins.first, "hook")
        call.result()
        assert len(old._idle) == 1
        plugins.disable("a")
        assert not old._idle
        plugins.enable("a")
        old = plugins._catalog.state.entries["a"].loaded
        assert old is not None
        doors.go.clear()
        call = InThread(plugins.first, "hook")
        assert soon(lambda: doors.inside == 3, 20)
        plugins.disable("a")
        doors.go.set()
        assert call.result() == b"a"
        assert not old._idle


def test_broken_file_keeps_old_plugin(tmp_path: Path) -> None:
    """If a new file is invalid, the old plugin is kept and the error is shown."""
    path = write_file(tmp_path / "a.wasm", text_plugin("old"))
    with PluginSet.from_directory(tmp_path) as plugins:
        for broken in (b"\0asm\1\0\0\0\xff", "(module (import", b"text", b""):
            write_file(path, broken)
            assert plugins.reload().failed == ("a",)
            assert plugins.first("hook") == b"old"
            found = description_of(plugins, "a")
            assert found.loaded
            assert found.error
            assert not plugins.reload(), "the same error is told once"
        write_file(path, text_plugin("new"))
        assert plugins.reload().changed == ("a",)
        assert plugins.first("hook") == b"new"
        assert description_of(plugins, "a").error is None


def test_unreadable_directory_keeps_all(tmp_path: Path) -> None:
    """A directory that has become unreadable changes nothing."""
    directory = tmp_path / "plugins"
    write_file(directory / "a.wasm", text_plugin("a"))
    with PluginSet.from_directory(directory) as plugins:
        directory.rename(tmp_path / "elsewhere")
        with pytest.raises(SourceError, match="cannot read the directory"):
            plugins.reload()
        assert plugins.first("hook") == b"a"


def test_parts_of_folder_are_watched(tmp_path: Path) -> None:
    """Each file of a plugin's folder is watched."""
    path = make_folder(
        tmp_path / "a", '[plugin]\nversion = "1"\n[[manifest.wasm]]\npath = "x/m.wasm"\n'
    )
    write_file(path / "x" / "m.wasm", text_plugin("old"))
    with PluginSet.from_directory(tmp_path) as plugins:
        assert plugins.first("hook") == b"old"
        write_file(path / "x" / "m.wasm", text_plugin("new"))
        assert plugins.reload().changed == ("a",)
        assert plugins.first("hook") == b"new"
        make_folder(path, '[plugin]\nversion = "2"\n[[manifest.wasm]]\npath = "x/m.wasm"\n')
        assert plugins.reload().changed == ("a",)
        assert description_of(plugins, "a").version == "2"


def test_file_becomes_folder_and_back(tmp_path: Path) -> None:
    """A file can become a folder and back."""
    write_file(tmp_path / "a.wasm", text_plugin("file"))
    with PluginSet.from_directory(tmp_path) as plugins:
        (tmp_path / "a.wasm").unlink()
        make_folder(tmp_path / "a", "[plugin]\nversion = '2'", text_plugin("folder"))
        assert plugins.reload().changed == ("a",)
        assert plugins.first("hook") == b"folder"
        (tmp_path / "a" / "plugin.toml").unlink()
        write_file(tmp_path / "a.wasm", text_plugin("file"))
        assert plugins.reload().changed == ("a",)
        assert (plugins.first("hook"), description_of(plugins, "a").version) == (b"file", "")


def test_watch_reloads_and_tells(tmp_path: Path) -> None:
    """A watch reloads by itself and calls back."""
    path = write_file(tmp_path / "a.wasm", text_plugin("old"))
    told: list[plugin_set.Changes] = []

    def on_change(changes: plugin_set.Changes) -> None:
        told.append(changes)
        raise RuntimeError("is logged")

    with PluginSet.from_directory(tmp_path) as plugins:
        stop = plugins.watch(0.01, on_change)
        write_file(path, text_plugin("new"))
        assert soon(lambda: plugins.first("hook") == b"new", 20)
        write_file(tmp_path / "b.wasm", text_plugin("b"))
        assert soon(lambda: len(told) >= 2, 20)
        assert [changes.added for changes in told][-1] == ("b",)
        stop()
        stop()


def test_a_watch_ends_with_its_set(tmp_path: Path) -> None:
    before = set(threading.enumerate())  # of other tests, perhaps

    def watching() -> int:
        return sum(
            thread.name == "plugwasm-plugin-set" for thread in set(threading.enumerate()) - before
        )

    closed = PluginSet.from_directory(tmp_path)
    closed.watch(600)
    dropped = PluginSet.from_directory(tmp_path)
    dropped.watch(0.01)
    assert watching() == 2
    closed.close()
    assert soon(lambda: watching() == 1, 60)
    del dropped
    assert soon(lambda: watching() == 0, 60)


def test_concurrent_calls_see_old_or_new(tmp_path: Path) -> None:
    """While plugins change, calls in many threads see the old or the new one."""
    path = write_file(tmp_path / "b.wasm", appending_plugin("0"))
    write_file(tmp_path / "a.wasm", appending_plugin("a"))
    end = threading.Event()

    def ask() -> int:
        calls = 0
        while not end.is_set():
            answer = plugins.chain("hook", "x", stop_on_error=True)
            assert answer[:2] in (b"xa", b"x0", b"x1", b"x"), answer
            calls += 1
        return calls

    with PluginSet.from_directory(tmp_path, instances=1) as plugins:
        threads = [InThread(ask) for _ in range(4)]
        try:
            for i in range(12):
                write_file(path, appending_plugin("01"[i % 2]))
                plugins.reload()
                plugins.disable("a")
                plugins.enable("a")
        finally:
            end.set()
        assert all(thread.result() for thread in threads)


def test_disabled_plugin_is_not_loaded(tmp_path: Path) -> None:
    """A disabled plugin is neither called nor loaded."""
    write_file(tmp_path / "a.wasm", text_plugin("a"))
    write_file(tmp_path / "b.wasm", b"never looked at")
    make_folder(tmp_path / "c", "[plugin]\nenabled = false\ntitle = 'See'\n", text_plugin("c"))
    with PluginSet.from_directory(tmp_path, disabled=["b", "d"]) as plugins:
        assert plugins.hooks == {"hook": ("a",)}
        assert [(d.name, d.enabled, d.loaded, d.error) for d in plugins.describe()] == [
            ("a", True, True, None),
            ("b", False, False, None),
            ("c", False, False, None),
        ]
        assert description_of(plugins, "c").title == "See"
        plugins.enable("c")
        plugins.disable("a")
        assert plugins.hooks == {"hook": ("c",)}
        write_file(tmp_path / "a.wasm", text_plugin("new"))
        write_file(tmp_path / "d.wasm", text_plugin("new"))
        plugins.reload()
        assert plugins.hooks == {"hook": ("c",)}, "what the application said holds on"
        with pytest.raises(plugwasm.ModuleError, match="is not a Wasm module"):
            plugins.enable("b")
        assert description_of(plugins, "b").enabled
        write_file(tmp_path / "b.wasm", text_plugin("b"))
        plugins.reload()
        assert plugins.hooks == {"hook": ("b", "c")}


def test_configuration_of_one_plugin(tmp_path: Path) -> None:
    """Configuration applies to one plugin and can change."""
    make_folder(tmp_path / "a", "[plugin.settings.k]\ndefault = 'theirs'\n", CONFIG)
    both = "[plugin.settings.k]\ndefault = 'of the setting'\n[manifest]\nwasm = [{path = 'plugin.wasm'}]\nconfig = {k = 'of the manifest'}\n"
    make_folder(tmp_path / "b", both, CONFIG)
    with PluginSet.from_directory(tmp_path) as plugins:
        assert [result.output for result in plugins.all("hook")] == [b"theirs", b"of the manifest"]
        make_folder(tmp_path / "a", "[plugin.settings.k]\ndefault = 'also theirs'\n")
        assert plugins.reload().changed == ("a",)
        assert plugins.first("hook") == b"also theirs"
        plugins.configure("a", {"k": "mine"})
        assert [result.output for result in plugins.all("hook")] == [b"mine", b"of the manifest"]
        make_folder(tmp_path / "a", "[plugin.settings.k]\ndefault = 'other'\n", CONFIG)
        plugins.reload()
        assert plugins.first("hook") == b"mine"
        assert description_of(plugins, "a").configured == ("k",)
        with pytest.raises(OptionError, match="keys and values must be text"):
            plugins.configure("a", {"k": 5})  # type: ignore[dict-item]
        with pytest.raises(OptionError, match="no plugin `c`"):
            plugins.configure("c", {})


def test_closed_set(doors: HeldCalls) -> None:
    """A closed set raises an error, and running calls end."""
    plugins = PluginSet({"a": waiting_text_plugin("a")}, functions=enter_functions(doors))
    call = InThread(plugins.first, "hook")
    assert soon(lambda: doors.inside, 20)
    plugins.close()
    plugins.close()
    uses: list[Callable[[], object]] = [
        lambda: plugins.first("hook"),
        lambda: plugins.call("a", "hook"),
        plugins.reload,
        plugins.describe,
        plugins.watch,
        lambda: plugins.enable("a"),
    ]
    for use in uses:
        with pytest.raises(ClosedError, match="the plugin set was closed"):
            use()
    doors.go.set()
    assert call.result() == b"a"


FORKING = """
import os, signal, sys, threading
from plugwasm.plugin_set import PluginSet
directory, new = sys.argv[1:]
plugins = PluginSet.from_directory(directory)
def reload(held):
    plugins._catalog.apply_change(lambda: (held.set(), threading.Event().wait(30)))
held = threading.Event()
threading.Thread(target=reload, args=(held,), daemon=True).start()  # a thread that reloads, and that the child will not have
held.wait(30)
pid = os.fork()
if not pid:
    signal.alarm(30)
    status = 1
    try:
        os.replace(new, directory + "/a.wasm")
        plugins.reload()
        status = 0 if plugins.first("hook") == b"new" else 2
    finally:
        os._exit(status)
os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_reload_in_forked_child(tmp_path: Path) -> None:
    """A forked child can reload although another thread was reloading."""
    write_file(tmp_path / "plugins" / "a.wasm", text_plugin("old"))
    new = write_file(tmp_path / "new.wasm", text_plugin("new"))
    command = [sys.executable, "-W", "ignore", "-c", FORKING, str(tmp_path / "plugins"), str(new)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
