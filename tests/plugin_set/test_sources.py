"""The sources of an application's plugins."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import plugwasm
import plugwasm.aio
from plugwasm import CompiledPlugin
from plugwasm.errors import (
    OptionError,
    SourceError,
)
from plugwasm.plugin_set import PluginSet
from tests.support.guests import LOOP, export, guest
from tests.support.paths import ROOT
from tests.support.plugin_sets import (
    description_of,
    error_of,
    make_folder,
    text_plugin,
    wat,
    write_file,
)

# Where plugins come from


def test_directory_of_modules_and_folders(tmp_path: Path) -> None:
    """A directory provides its modules and folders under their names."""
    write_file(tmp_path / "zebra.wasm", text_plugin("z"))
    make_folder(tmp_path / "ant", "[plugin]\n", text_plugin("a"))
    make_folder(tmp_path / "bee", '{"wasm": [{"path": "code/b.wasm"}]}', name="manifest.json")
    write_file(tmp_path / "bee" / "code" / "b.wasm", text_plugin("b"))
    for ignored in ("notes.txt", ".hidden.wasm", "__pycache__/x.wasm", "folder/x.wasm"):
        write_file(tmp_path / ignored, text_plugin("x"))
    with PluginSet.from_directory(tmp_path) as plugins:
        assert plugins.hooks == {"hook": ("ant", "bee", "zebra")}
        assert [result.get() for result in plugins.all("hook")] == [b"a", b"b", b"z"]


def test_list_names_by_content(tmp_path: Path) -> None:
    """Plugins in a list are named by their content."""
    file = write_file(tmp_path / "file.wasm", text_plugin("1"))
    write_file(tmp_path / "spell" / "manifest.toml", '[[wasm]]\npath = "x.wasm"\n')
    write_file(tmp_path / "spell" / "x.wasm", text_plugin("2"))
    made = CompiledPlugin(text_plugin("3"), name="made")
    values = [
        file,
        str(tmp_path / "spell" / "manifest.toml"),
        made,
        {"wasm": [{"data": text_plugin("4").encode()}]},
        text_plugin("5"),
        tmp_path / "spell",
    ]
    with PluginSet(values) as plugins:
        assert plugins.hooks["hook"] == ("file", "spell", "made", "plugin-4", "plugin-5")
        assert "another plugin `spell`" in str(plugins.describe()[-1].error)
        assert b"".join(result.get() for result in plugins.all("hook")) == b"12345"


def test_names_can_be_given() -> None:
    with PluginSet(wat("b", text_plugin("1"), "a", text_plugin("2"))) as plugins:
        assert plugins.hooks == {"hook": ("b", "a")}
    with pytest.raises(OptionError, match="cannot be the name of a plugin: it is empty"):
        PluginSet({"": text_plugin("x")})


def test_entry_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Entry points of packages provide paths, manifests or functions."""
    write_file(
        tmp_path / "set_of_a_test.py",
        f"""
from pathlib import Path
HERE = Path(__file__).parent
path = str(HERE / "m.wasm")
manifest = {{"wasm": [{{"data": {text_plugin("2").encode()!r}}}]}}
def function():
    return HERE / "m.wasm"
def broken():
    raise KeyError("no such thing")
nothing = None
""",
    )
    write_file(tmp_path / "m.wasm", text_plugin("1"))
    names = "path manifest function broken nothing missing".split()
    lines = "\n".join(f"{name} = set_of_a_test:{name}" for name in names)
    write_file(
        tmp_path / "set_of_a_test-1.dist-info" / "entry_points.txt",
        f"[plugwasm.plugins]\n{lines}\n",
    )
    write_file(
        tmp_path / "set_of_a_test-1.dist-info" / "METADATA",
        "Metadata-Version: 2.1\nName: set-of-a-test\nVersion: 1\n",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with PluginSet.from_entry_points(disabled=["path"]) as plugins:
        assert plugins.hooks == {"hook": ("function", "manifest")}
        assert "raised KeyError: 'no such thing'" in error_of(plugins, "broken")
        assert "AttributeError" in error_of(plugins, "missing")
        assert "expected a manifest" in error_of(plugins, "nothing")
        plugins.enable("path")
        assert plugins.call("path", "hook") == b"1"
        assert not plugins.reload()
        write_file(tmp_path / "m.wasm", text_plugin("new"))
        assert set(plugins.reload().changed) == {"path", "function"}
        assert plugins.call("function", "hook") == b"new"
    sys.modules.pop("set_of_a_test")


def test_disabled_entry_point_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package of a disabled entry point is not imported."""
    write_file(tmp_path / "never_imported.py", "raise SystemExit")
    write_file(
        tmp_path / "never-1.dist-info" / "entry_points.txt",
        "[some.group]\nnever = never_imported:x\n",
    )
    write_file(
        tmp_path / "never-1.dist-info" / "METADATA",
        "Metadata-Version: 2.1\nName: never\nVersion: 1\n",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with PluginSet.from_entry_points("some.group", disabled=["never"]) as plugins:
        assert not description_of(plugins, "never").enabled
        assert "never_imported" not in sys.modules


def test_unreadable_directory_is_error(tmp_path: Path) -> None:
    """A directory that cannot be read is an error."""
    with pytest.raises(SourceError, match=r"cannot read the directory .*missing: No such file"):
        PluginSet.from_directory(tmp_path / "missing")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"plugins": "a.wasm"}, "plugins: expected a list, got str"),
        (
            {"plugins": {"wasm": [{"path": "a.wasm"}]}},
            "plugins: expected a list, or plugins by their names, got one manifest",
        ),
        ({"hooks": "save"}, "hooks: expected a list, got str"),
        ({"instances": -1}, "instances: expected a number of at least 0"),
        ({"instances": 0, "isolated": True}, "instances: expected a number of at least 1"),
        ({"isolated": 1}, "isolated: expected True, False or ProcessLimits, got int"),
        ({"limits": {"timeout": 1}}, "limits: expected Limits, got dict"),
        ({"egress": ["*"]}, "egress: expected an Egress"),
        ({"config": {"a": {"k": 1}}}, "config: keys and values must be text"),
    ],
)
def test_invalid_argument_is_raised(arguments: dict[str, Any], message: str) -> None:
    """An invalid argument is the application's error, not a plugin's."""
    with pytest.raises(OptionError, match=message):
        PluginSet(**arguments)


# Imports


def test_module_is_imported_lazily() -> None:
    """The module is not imported before a set is used."""
    code = "import sys, plugwasm; sys.exit('plugwasm._plugin_set.plugin_set' in sys.modules or 'importlib.metadata' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


# The example


def test_the_example_shows_what_it_says() -> None:
    command = [sys.executable, str(ROOT / "examples" / "plugin_set.py")]
    done = subprocess.run(
        command,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "Vowels of English 1.0 serves count_vowels (on)" in done.stdout
    assert "Vowels of English 1.0 serves nothing (off)" in done.stdout
    assert "('latin',) came" in done.stdout


def test_manifest_beside_module(tmp_path: Path) -> None:
    """A manifest beside a module need not name it."""
    folder = tmp_path / "slow"
    folder.mkdir()
    (folder / "plugin.toml").write_text("[manifest]\ntimeout_ms = 50\n")
    write_file(folder / "plugin.wasm", guest(export("spin", LOOP)))
    with (
        PluginSet(directories=[tmp_path], functions=[]) as plugins,
        pytest.raises(plugwasm.TimeoutError, match="50 ms"),
    ):
        plugins.call("slow", "spin")


def test_invalid_observer_is_refused(tmp_path: Path) -> None:
    """An object that cannot observe is refused before any plugin is loaded."""
    write_file(tmp_path / "echo.wasm", text_plugin("x"))
    for wrong in ("text", 1, [print], iter([])):
        for isolated in (False, True):
            with pytest.raises(plugwasm.OptionError, match=r"^observe: expected"):
                PluginSet(directories=[tmp_path], functions=[], observe=wrong, isolated=isolated)  # type: ignore[arg-type]
