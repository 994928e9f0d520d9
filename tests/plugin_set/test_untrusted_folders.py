"""What a plugin in a directory cannot do."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from plugwasm import CompiledPlugin, Egress, Limits
from plugwasm.errors import (
    EgressDeniedError,
    OptionError,
    TrapError,
)
from plugwasm.plugin_set import PluginSet, Result
from tests.support.guests import export, guest
from tests.support.plugin_sets import (
    CONFIG,
    TRAPS,
    description_of,
    error_of,
    make_folder,
    text_plugin,
    write_file,
)

WASI = '(import "wasi_snapshot_preview1" "fd_prestat_get" (func $prestat (param i32 i32) (result i32)))'


def manifest_folder(path: Path, module: str | None = None, **fields: Any) -> Path:
    fields.setdefault("wasm", [{"path": "plugin.wasm"}])
    return make_folder(path, json.dumps(fields), module, name="manifest.json")


def test_no_link_is_followed(tmp_path: Path) -> None:
    outside = write_file(tmp_path / "outside" / "plugin.wasm", text_plugin("outside"))
    directory = tmp_path / "plugins"
    manifest_folder(tmp_path / "linked", text_plugin("x"))
    manifest_folder(directory / "module")
    manifest_folder(directory / "middle", wasm=[{"path": "down/plugin.wasm"}])
    (directory / "file.wasm").symlink_to(outside)
    (directory / "nowhere.wasm").symlink_to(tmp_path / "missing")
    (directory / "itself.wasm").symlink_to("itself.wasm")
    (directory / "folder").symlink_to(tmp_path / "linked")
    (directory / "module" / "plugin.wasm").symlink_to(outside)
    (directory / "middle" / "down").symlink_to(tmp_path / "outside")
    (directory / "about").mkdir()
    (directory / "about" / "plugin.toml").symlink_to(tmp_path / "linked" / "manifest.json")
    with PluginSet.from_directory(directory) as plugins:
        assert plugins.hooks == {}
        assert len(plugins.describe()) == 7
        for description in plugins.describe():
            assert "is a symbolic link, which is not followed" in str(description.error)


@pytest.mark.parametrize(
    "path",
    [
        "../secret.wasm",
        "{}/plugins/secret.wasm",
        "x/../../secret.wasm",
        "./../secret.wasm",
        "../a/plugin.wasm",
    ],
)
def test_folder_names_no_file_outside(tmp_path: Path, path: str) -> None:
    """A folder's metadata cannot name a file outside the folder."""
    write_file(tmp_path / "plugins" / "secret.wasm", text_plugin("secret"))
    (tmp_path / "plugins" / "a" / "x").mkdir(parents=True)
    manifest_folder(
        tmp_path / "plugins" / "a", text_plugin("a"), wasm=[{"path": path.format(tmp_path)}]
    )
    with PluginSet.from_directory(tmp_path / "plugins") as plugins:
        assert "a plugin's files lie in its folder" in error_of(plugins, "a")


@pytest.mark.parametrize("path", ["a\0b", "", ".", "x" * 5000, "plugin.wasm/x", "\u202e.wasm"])
def test_invalid_path_is_error(tmp_path: Path, path: str) -> None:
    """An invalid path is a printable error."""
    manifest_folder(tmp_path / "a", text_plugin("a"), wasm=[{"path": path}])
    with PluginSet.from_directory(tmp_path) as plugins:
        assert "manifest.json" in error_of(plugins, "a")
        assert error_of(plugins, "a").isprintable()


def test_path_not_of_current_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder's path is not relative to the current directory."""
    write_file(tmp_path / "other.wasm", text_plugin("not mine"))
    monkeypatch.chdir(tmp_path)
    manifest_folder(tmp_path / "plugins" / "a", wasm=[{"path": "other.wasm"}])
    with PluginSet.from_directory("plugins") as plugins:
        assert "no such file" in error_of(plugins, "a")


def test_folder_causes_no_download(tmp_path: Path) -> None:
    """A folder cannot make the host download anything."""
    manifest_folder(tmp_path / "a", wasm=[{"url": "http://127.0.0.1:9/x.wasm"}])
    with PluginSet.from_directory(tmp_path) as plugins:
        assert (
            "wasm[0].url`: the modules of a plugin in a folder must be files of that folder"
            in error_of(plugins, "a")
        )


def test_manifest_in_module_file(tmp_path: Path) -> None:
    """A module file that contains a manifest is no module."""
    write_file(tmp_path / "a.wasm", '{"wasm": [{"path": "/etc/passwd"}]}')
    with PluginSet.from_directory(tmp_path) as plugins:
        assert "is not a Wasm module" in error_of(plugins, "a")


def test_huge_files_and_pipes_are_refused(tmp_path: Path) -> None:
    """Huge files, pipes and too many modules are refused."""
    with open(tmp_path / "huge.wasm", "wb") as file:
        file.truncate(2**40)
    os.mkfifo(tmp_path / "pipe.wasm")
    manifest_folder(
        tmp_path / "many",
        text_plugin("x"),
        wasm=[{"path": "plugin.wasm", "name": f"m{i}"} for i in range(65)],
    )
    manifest_folder(
        tmp_path / "together",
        text_plugin("x") + " " * 1500,
        wasm=[{"path": "plugin.wasm", "name": f"m{i}"} for i in range(3)],
    )
    with PluginSet.from_directory(tmp_path, limits=Limits(module_bytes=5000)) as plugins:
        assert "is larger than the limit of 5000 bytes" in error_of(plugins, "huge")
        assert "is not a regular file" in error_of(plugins, "pipe")
        assert "expected at most 64 modules, got 65" in error_of(plugins, "many")
        assert "is larger than the limit" in error_of(plugins, "together")


def test_a_wrong_hash_is_found(tmp_path: Path) -> None:
    manifest_folder(
        tmp_path / "a", text_plugin("a"), wasm=[{"path": "plugin.wasm", "hash": "0" * 64}]
    )
    with PluginSet.from_directory(tmp_path) as plugins:
        assert "it is not the module that was pinned" in error_of(plugins, "a")


@pytest.mark.parametrize(
    "name",
    ["a\x1b[31m.wasm", "a\nb.wasm", "\u202eexe.wasm", " a.wasm", "x" * 120 + ".wasm", b"\xff.wasm"],
)
def test_unprintable_name_is_not_loaded(tmp_path: Path, name: str | bytes) -> None:
    """A file with an unprintable name is listed and not loaded."""
    os.mkdir(tmp_path / "plugins")
    with open(os.path.join(os.fsencode(tmp_path / "plugins"), os.fsencode(name)), "w") as file:
        file.write(text_plugin("x"))
    with PluginSet.from_directory(tmp_path / "plugins") as plugins:
        assert plugins.hooks == {}
        for description in plugins.describe():
            assert "cannot be the name of a plugin" in str(description.error)
            assert (description.name + description.source + str(description.error)).isprintable()
            msgspec.json.encode(description)


def test_name_and_config_cannot_be_taken(tmp_path: Path) -> None:
    """A plugin cannot take another's name or the config for that name."""
    make_folder(tmp_path / "victim", "[plugin]\ntitle = 'Victim'\n", CONFIG)
    make_folder(tmp_path / "attacker", "[plugin]\ntitle = 'Victim'\n", CONFIG)
    write_file(tmp_path / "victim.wasm", CONFIG)
    with PluginSet.from_directory(tmp_path, config={"victim": {"k": "secret"}}) as plugins:
        assert plugins.all("hook") == [Result("attacker", b""), Result("victim", b"secret")]
        assert [d.name for d in plugins.describe()] == ["attacker", "victim", "victim"]
        assert "another plugin `victim`" in str(plugins.describe()[2].error)


def test_manifest_cannot_raise_limits(tmp_path: Path) -> None:
    """A manifest cannot exceed a limit, also if the application set none."""
    manifest_folder(
        tmp_path / "greedy",
        text_plugin("x"),
        timeout_ms=10**9,
        memory={"max_pages": 65536, "max_var_bytes": 2**40},
    )
    with PluginSet.from_directory(tmp_path) as plugins:
        grants = description_of(plugins, "greedy").grants
        assert grants is not None
        assert (grants.timeout, grants.memory_bytes) == (Limits().timeout, Limits().memory_bytes)
    with PluginSet.from_directory(tmp_path, limits=Limits(timeout=0.05)) as plugins:
        grants = description_of(plugins, "greedy").grants
        assert grants is not None
        assert grants.timeout == 0.05


def test_host_needs_both_grants(tmp_path: Path) -> None:
    """A host is reached only if the application and the manifest allow it."""
    request = """<<{"url": "http://127.0.0.1:9/"}>>"""
    module = guest(export("hook", f"(drop (call $http_request {request} (i64.const 0)))"))
    manifest_folder(tmp_path / "a", module, allowed_hosts=["*", "127.0.0.1"])
    for egress in (None, Egress(), Egress(allowed_hosts=["example.com"])):
        with PluginSet.from_directory(tmp_path, egress=egress) as plugins:
            (result,) = plugins.all("hook")
            assert isinstance(result.error, EgressDeniedError)
            grants = description_of(plugins, "a").grants
            assert grants is not None
            assert grants.hosts_asked == ("*", "127.0.0.1")
            assert grants.hosts == (grants.hosts_asked if egress and egress.allowed_hosts else ())


def test_manifest_picks_directories(tmp_path: Path) -> None:
    """A manifest can select from the application's directories."""
    for name in ("read", "write", "secret", "write/below"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    module = guest(
        export("hook", "(drop (call $prestat (i32.const 3) (i32.const 0)))"),
        WASI,
        memory='(memory (export "memory") 1)',
    )
    asks = {
        "both": {f"{tmp_path}/read": "/r", f"{tmp_path}/write": "/w"},
        "modest": {f"ro:{tmp_path}/write/../write": "/w"},
        "none": {},
        "greedy": {f"{tmp_path}/secret": "/s"},
        "above": {f"{tmp_path}": "/t"},
        "below": {f"{tmp_path}/write/below": "/b"},
        "linked": {f"{tmp_path}/link": "/l"},
        "odd": {"\0": "/o"},
        "twice": {f"ro:{tmp_path}/write": "/1", f"ro:{tmp_path}/write/.": "/2"},
    }
    directory = tmp_path / "plugins"
    for name, paths in asks.items():
        manifest_folder(directory / name, module, allowed_paths=paths)
    granted = [f"ro:{tmp_path}/read", f"{tmp_path}/write"]
    with PluginSet.from_directory(directory, wasi=True, allowed_paths=granted) as plugins:
        paths_of = {d.name: d.grants.paths for d in plugins.describe() if d.grants is not None}
        assert paths_of == {
            "both": {f"ro:{tmp_path}/read": "/r", f"{tmp_path}/write": "/w"},
            "modest": {f"ro:{tmp_path}/write": "/w"},
            "none": {},
        }
        for name in ("greedy", "above", "below", "linked"):
            assert "which the application grants to no plugin" in error_of(plugins, name)
        assert "expected paths, got one with a zero byte" in error_of(plugins, "odd")
        assert "twice" in error_of(plugins, "twice").replace("plugins/twice", "")
        assert all(result.ok for result in plugins.all("hook"))
    for name in ("greedy", "modest"):
        write_file(directory / name / "plugin.wasm", text_plugin("no WASI"))
    with PluginSet.from_directory(directory, allowed_paths=granted) as plugins:
        assert [
            (d.grants.paths, d.grants.wasi) for d in plugins.describe() if d.grants is not None
        ] == [({}, False)] * 2


def test_compiled_plugin_is_used_unchanged() -> None:
    """A compiled plugin is used unchanged."""
    compiled = CompiledPlugin(text_plugin("x"), limits=Limits(timeout=5), name="mine")
    with pytest.raises(
        OptionError,
        match=r"^limits: it would not be used here; all plugins of the set are CompiledPlugins",
    ):
        PluginSet([compiled], limits=Limits(timeout=1))
    with PluginSet([compiled, text_plugin("y")], limits=Limits(timeout=1)) as plugins:
        grants = description_of(plugins, "mine").grants
        assert grants is not None
        assert grants.timeout == 5


def test_unloadable_plugins_stop_no_other(tmp_path: Path) -> None:
    """Plugins that cannot be loaded do not affect others."""
    hostile: dict[str, str | bytes] = {
        "imports": guest(
            export("hook", "(call $nobody)"), '(import "env" "nobody" (func $nobody))'
        ),
        "memory": "(module (memory 65536))",
        "garbage": b"\0asm\1\0\0\0" + bytes(range(256)),
        "empty": b"",
        "wasi": guest(export("hook", ""), WASI),
    }
    for name, content in hostile.items():
        write_file(tmp_path / f"{name}.wasm", content)
    write_file(tmp_path / "good.wasm", text_plugin("good"))
    with PluginSet.from_directory(tmp_path) as plugins:
        assert plugins.hooks == {"hook": ("good",)}
        for name in hostile:
            assert error_of(plugins, name)
        assert "nobody" in error_of(plugins, "imports")


def test_trapping_plugin_stops_no_other() -> None:
    """A plugin that traps does not affect others and can be called again."""
    with PluginSet({"traps": TRAPS, "a": text_plugin("a")}) as plugins:
        for _ in range(3):
            traps, a = plugins.all("hook")
            assert isinstance(traps.error, TrapError)
            assert a.output == b"a"
