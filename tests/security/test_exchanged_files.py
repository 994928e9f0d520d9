"""While a set reads a plugin directory, another process keeps exchanging its entries: nothing
outside is ever run."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from plugwasm import PluginSet
from tests.support.guests import export, guest

EXCHANGER = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
pairs = [(a.encode(), b.encode()) for a, b in zip(sys.argv[1::2], sys.argv[2::2])]
print("begun", flush=True)
while os.getppid() != 1:
    for a, b in pairs:
        if libc.renameat2(-100, a, -100, b, 2):
            raise SystemExit(os.strerror(ctypes.get_errno()))
"""
SECONDS = 1.0

pytestmark = pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "renameat2"),
    reason="this system cannot exchange two files at once",
)


def text_module(text: str) -> str:
    return guest(export("hook", f"(call $give <<{text}>>)"))


def put_folder(folder: Path, text: str, module: str = "plugin.wasm") -> Path:
    (folder / module).parent.mkdir(parents=True, exist_ok=True)
    (folder / module).write_text(text_module(text))
    (folder / "plugin.toml").write_text(f'[plugin]\ntitle = "{text}"\n')
    (folder / "manifest.json").write_text(json.dumps({"wasm": [{"path": module}]}))
    return folder


@contextmanager
def exchange_repeatedly(*pairs: tuple[Path, Path]) -> Iterator[None]:
    """Have another process exchange the two paths of each pair repeatedly."""
    paths = [str(path) for pair in pairs for path in pair]
    process = subprocess.Popen(
        [sys.executable, "-I", "-c", EXCHANGER, *paths],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        yield
        assert process.poll() is None, "it has ended: " + (
            process.stderr.read().decode() if process.stderr else ""
        )
    finally:
        process.kill()
        process.communicate()


def read_repeatedly(plugins: PluginSet, seen: Callable[[PluginSet], object]) -> set[object]:
    """Return what was read after each of many reloads."""
    found: set[object] = set()
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        plugins.reload()
        found.add(seen(plugins))
    return found


def answer(plugins: PluginSet) -> object:
    return plugins.first("hook")


def titles(plugins: PluginSet) -> object:
    return tuple(sorted(description.title for description in plugins.describe()))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "plugins").mkdir()
    put_folder(tmp_path / "outside", "outside")
    put_folder(tmp_path / "outside" / "sub", "outside")
    return tmp_path


@pytest.mark.parametrize("seen", [answer, titles])
def test_a_folder_for_a_link(place: Path, seen: Callable[[PluginSet], object]) -> None:
    folder = put_folder(place / "plugins" / "x", "inside")
    (place / "link").symlink_to(place / "outside")
    with PluginSet.from_directory(place / "plugins") as plugins:
        assert plugins.first("hook") == b"inside"
        with exchange_repeatedly((folder, place / "link")):
            found = read_repeatedly(plugins, seen)
    assert found
    assert found <= {None, b"inside", (), ("inside",), ("x",)}


def test_a_parent_folder_for_a_link(place: Path) -> None:
    """The folder that contains its modules is exchanged for a link."""
    folder = put_folder(place / "plugins" / "x", "inside", "sub/plugin.wasm")
    (place / "link").symlink_to(place / "outside" / "sub")
    with (
        PluginSet.from_directory(place / "plugins") as plugins,
        exchange_repeatedly((folder / "sub", place / "link")),
    ):
        assert read_repeatedly(plugins, answer) <= {None, b"inside"}


@pytest.mark.parametrize("file", ["plugins/x/plugin.wasm", "plugins/y.wasm"])
def test_a_module_for_a_link(place: Path, file: str) -> None:
    put_folder(place / "plugins" / "x", "inside")
    (place / "plugins" / "y.wasm").write_text(text_module("inside"))
    (place / "link").symlink_to(place / "outside" / "plugin.wasm")
    with (
        PluginSet.from_directory(place / "plugins") as plugins,
        exchange_repeatedly((place / file, place / "link")),
    ):
        found = read_repeatedly(
            plugins,
            lambda plugins: {result.output for result in plugins.all("hook")} <= {b"inside"},
        )
    assert found == {True}


@pytest.mark.parametrize("text", ["plugin.toml", "manifest.json"])
def test_a_text_for_a_link(place: Path, text: str) -> None:
    folder = put_folder(place / "plugins" / "x", "inside")
    (place / "outside" / "plugin.wasm").unlink()
    (place / "link").symlink_to(place / "outside" / text)
    with (
        PluginSet.from_directory(place / "plugins") as plugins,
        exchange_repeatedly((folder / text, place / "link")),
    ):
        assert read_repeatedly(plugins, titles) <= {("inside",), ("x",)}


@pytest.mark.parametrize("file", ["plugin.wasm", "plugin.toml", "manifest.json"])
def test_a_file_for_a_pipe(place: Path, file: str) -> None:
    """A file is exchanged for a pipe that nobody writes to."""
    folder = put_folder(place / "plugins" / "x", "inside")
    os.mkfifo(place / "pipe")
    with (
        PluginSet.from_directory(place / "plugins") as plugins,
        exchange_repeatedly((folder / file, place / "pipe")),
    ):
        assert read_repeatedly(plugins, answer) <= {None, b"inside"}


def test_a_plugin_in_its_own_process(place: Path) -> None:
    """A plugin in its own processes is read in the same way."""
    folder = put_folder(place / "plugins" / "x", "inside")
    (place / "link").symlink_to(place / "outside")
    with (
        PluginSet.from_directory(place / "plugins", isolated=True, instances=1) as plugins,
        exchange_repeatedly((folder, place / "link")),
    ):
        assert read_repeatedly(plugins, answer) <= {None, b"inside"}


def test_a_single_look_sees_one_folder(place: Path) -> None:
    """A single read comes from one folder.

    Two folders of one author are exchanged: the description of a plugin never comes with another's
    module.
    """
    folder = put_folder(place / "plugins" / "x", "one")
    put_folder(place / "other", "two")
    with (
        PluginSet.from_directory(place / "plugins") as plugins,
        exchange_repeatedly((folder, place / "other")),
    ):
        found = read_repeatedly(plugins, lambda plugins: (titles(plugins), answer(plugins)))
    assert found <= {(("one",), b"one"), (("two",), b"two")}
    assert len(found) == 2


def test_a_reload_leaks_no_descriptor(place: Path) -> None:
    """A reload leaves no descriptor open."""
    put_folder(place / "plugins" / "x", "inside", "sub/down/plugin.wasm")
    (place / "plugins" / "broken").mkdir()
    (place / "plugins" / "broken" / "plugin.toml").symlink_to(place / "outside" / "plugin.toml")
    (place / "plugins" / "y.wasm").write_text("no module")
    with PluginSet.from_directory(place / "plugins") as plugins:
        before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
        for _ in range(20):
            plugins.reload()
        assert (len(os.listdir("/proc/self/fd")) if before else 0) == before


def test_a_named_directory_may_be_a_link(place: Path) -> None:
    """A directory that the application names may be a link."""
    put_folder(place / "plugins" / "x", "inside")
    (place / "link").symlink_to(place / "plugins")
    (place / "one").symlink_to(place / "plugins" / "x")
    with PluginSet.from_directory(place / "link") as plugins, PluginSet([place / "one"]) as given:
        assert plugins.first("hook") == given.first("hook") == b"inside"


@pytest.mark.parametrize(
    "path", ["../outside/plugin.wasm", "sub/../../outside/plugin.wasm", "{}/outside/plugin.wasm"]
)
def test_a_manifest_leading_out(place: Path, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A manifest whose path leads out of the directory is not even opened."""
    folder = put_folder(place / "plugins" / "x", "inside")
    (folder / "sub").mkdir()
    (folder / "manifest.json").write_text(json.dumps({"wasm": [{"path": path.format(place)}]}))
    looked: list[str] = []
    real = os.stat
    monkeypatch.setattr(
        os,
        "stat",
        lambda name, *args, **kwargs: looked.append(str(name)) or real(name, *args, **kwargs),
    )
    with PluginSet.from_directory(place / "plugins") as plugins:
        plugins.reload()
        assert "lie in its folder" in str(plugins.describe()[0].error)
    assert ".." not in looked
    assert not any("outside" in name for name in looked)
