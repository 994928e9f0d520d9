"""Scripts as plugins of a set: which files are taken, what they get, and what is wrong with them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

import plugwasm
from plugwasm import FrozenClock, Limits, WasiOptions
from plugwasm.errors import SourceError
from plugwasm.plugin_set import PluginSet
from tests.support.plugin_sets import (
    description_of,
    make_folder,
    text_plugin,
    write_file,
)
from tests.support.scripts import need_engine

GREET_JS = "export const greet = (name) => `${Config.get('greeting') ?? 'Hi'}, ${name}!`;"
GREET_PY = """
import extism
def greet(name: str):
    return f"{extism.Config.get_str('greeting') or 'Hi'}, {name}."
"""


def error_of(plugins: PluginSet, name: str) -> str:
    return str(description_of(plugins, name).error)


@pytest.fixture(scope="module", autouse=True)
def _engines() -> None:
    need_engine("javascript")
    need_engine("python")


def test_scripts_beside_modules(tmp_path: Path) -> None:
    """Scripts in both languages serve hooks like modules, in the order of their names."""
    write_file(tmp_path / "a.wasm", text_plugin("module", "greet"))
    write_file(tmp_path / "b.js", GREET_JS)
    write_file(tmp_path / "c.py", GREET_PY)
    write_file(tmp_path / "d.mjs", GREET_JS)
    write_file(tmp_path / "e.CJS", "module.exports = { greet: () => 'e' };")
    with PluginSet.from_directory(tmp_path, config={"c": {"greeting": "Hello"}}) as plugins:
        assert [output for _, output, _ in plugins.all("greet", b'"Ada"')] == [
            b"module",
            b"Hi, Ada!",
            b'Hello, "Ada".',
            b"Hi, Ada!",
            b"e",
        ]


def test_files_that_are_no_plugins(tmp_path: Path) -> None:
    """Private files, tests, and settings of tools are left out, and so is what is in folders."""
    for name in (
        "__init__.py", "_shared.py", ".eslintrc.js", "conftest.py", "test_greet.py",
        "greet_test.py", "greet.test.js", "greet.spec.mjs", "jest.config.js", "greet.d.ts",
        "greet.json", "__pycache__/greet.py", "tests/greet.py", "node_modules/greet.js",
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_file(tmp_path / name, GREET_PY)
    (tmp_path / "folder.js").mkdir()
    write_file(tmp_path / "contest.py", GREET_PY)
    with PluginSet.from_directory(tmp_path) as plugins:
        assert [one.name for one in plugins.describe()] == ["contest"]


def test_set_without_scripts(tmp_path: Path) -> None:
    """With `scripts=False` a script is no plugin, neither as a file nor in a folder."""
    write_file(tmp_path / "a.js", GREET_JS)
    write_file(make_folder(tmp_path / "b", "[plugin]\n") / "plugin.js", GREET_JS)
    with PluginSet.from_directory(tmp_path, scripts=False) as plugins:
        assert [one.name for one in plugins.describe()] == ["b"]
        assert "plugin.wasm" in error_of(plugins, "b")


def test_script_takes_no_modules_name(tmp_path: Path) -> None:
    """A script with the name of a module does not take its place, although its name comes first."""
    write_file(tmp_path / "a.js", GREET_JS)
    write_file(tmp_path / "a.wasm", text_plugin("module", "greet"))
    with PluginSet.from_directory(tmp_path) as plugins:
        assert plugins.first("greet") == b"module"
        assert [one.error is None for one in plugins.describe()] == [True, False]


@pytest.mark.parametrize("isolated", [False, True])
def test_script_is_reloaded(tmp_path: Path, isolated: bool) -> None:
    """A script that changes is loaded anew, and one that cannot be replaces nothing."""
    path = write_file(tmp_path / "rules.js", "export const hook = () => 1;")
    with PluginSet.from_directory(tmp_path, isolated=isolated) as plugins:
        assert plugins.first("hook") == b"1"
        write_file(path, "export const hook = () => 2;")
        assert plugins.reload().changed == ("rules",)
        assert plugins.first("hook") == b"2"
        write_file(path, "export const hook = () => {\n  return 3 +;\n};")
        assert plugins.reload().failed == ("rules",)
        assert plugins.first("hook") == b"2"
        assert error_of(plugins, "rules").startswith("rules.js:2:13: the script is not valid")
        write_file(path, "// the same\nexport const hook = () => 2;")
        assert plugins.reload().changed == ("rules",)
        assert description_of(plugins, "rules").error is None


@pytest.mark.parametrize("file", ["plugin.js", "plugin.py"])
def test_script_of_a_folder(tmp_path: Path, file: str) -> None:
    """A script stands in the place of `plugin.wasm`, with the settings of `plugin.toml`."""
    about = '[plugin]\ntitle = "Greetings"\n[plugin.settings.greeting]\ndefault = "Hello"\n'
    folder = make_folder(tmp_path / "greet", about)
    write_file(folder / file, GREET_JS if file.endswith("js") else GREET_PY)
    with PluginSet.from_directory(tmp_path) as plugins:
        assert plugins.call("greet", "greet", b'"Ada"').startswith(b"Hello, ")
        write_file(folder / file, "export const hook = (")
        plugins.reload()
        assert error_of(plugins, "greet").startswith(f"greet/{file}:1")


def test_folder_prefers_the_module(tmp_path: Path) -> None:
    """What was built of a script is what runs, as soon as it is there; two scripts are an error."""
    folder = make_folder(tmp_path / "a", "[plugin]\n")
    write_file(folder / "plugin.js", "export const hook = () => 'script';")
    with PluginSet.from_directory(tmp_path) as plugins:
        assert plugins.first("hook") == b"script"
        write_file(folder / "plugin.py", "def hook(): return 'other'")
        assert plugins.reload().failed == ("a",)
        assert "has both plugin.js and plugin.py" in error_of(plugins, "a")
        write_file(folder / "plugin.wasm", text_plugin("module"))
        assert plugins.reload().changed == ("a",)
        assert plugins.first("hook") == b"module"


def test_manifest_names_a_script(tmp_path: Path) -> None:
    """A manifest can name its script, pin it, and ask for grants; other modules it cannot have."""
    text = "export const hook = () => Config.get('a') + Host.getFunctions().toString();"
    folder = tmp_path / "a"
    manifest = {"wasm": [{"path": "src/main.js"}], "config": {"a": "b"}, "timeout_ms": 100}
    make_folder(folder, json.dumps(manifest), name="manifest.json")
    (folder / "src").mkdir()
    write_file(folder / "src" / "main.js", text)
    with PluginSet.from_directory(tmp_path) as plugins:
        assert plugins.first("hook").startswith(b"b")  # type: ignore[union-attr]
        assert description_of(plugins, "a").grants.timeout == 0.1  # type: ignore[union-attr]
        write_file(folder / "src" / "main.js", "export const hook = () => 2;")
        assert plugins.reload().changed == ("a",)
        digest = hashlib.sha256(text.encode()).hexdigest()
        manifest["wasm"] = [{"path": "src/main.js", "hash": digest}]
        write_file(folder / "manifest.json", json.dumps(manifest))
        assert plugins.reload().failed == ("a",)
        assert "hash" in error_of(plugins, "a")
        manifest["wasm"] = [{"path": "src/main.js"}, {"path": "x.wasm"}]
        write_file(folder / "manifest.json", json.dumps(manifest))
        plugins.reload()
        assert "src/main.js is a script, which has no other modules" in error_of(plugins, "a")


def test_script_gets_named_functions(tmp_path: Path) -> None:
    """A script calls the functions that the application passed, and has no registered ones."""

    @plugwasm.host_fn(namespace="test_scripts")
    def registered() -> int:
        return 1

    @plugwasm.host_fn(namespace="extism:host/other")
    def passed() -> int:
        return 42

    write_file(
        tmp_path / "a.js",
        "export const hook = () => Object.keys(Host.getFunctions('extism:host/other'));",
    )
    with PluginSet.from_directory(tmp_path, functions=[passed]) as plugins:
        assert plugins.first("hook") == b'["passed"]'
        assert description_of(plugins, "a").grants.functions == ("passed",)  # type: ignore[union-attr]
    with PluginSet.from_directory(tmp_path) as plugins:
        assert plugins.describe()[0].grants.functions == ()  # type: ignore[union-attr]


def test_clock_of_scripts(tmp_path: Path) -> None:
    """A script has a clock without `wasi`, and the one that the application passes."""
    write_file(tmp_path / "a.js", "export const hook = () => Date.now() > 1e12;")
    with PluginSet.from_directory(tmp_path) as plugins:
        assert plugins.first("hook") == b"true"
    with PluginSet.from_directory(tmp_path, wasi=WasiOptions(clock=FrozenClock())) as plugins:
        assert plugins.first("hook") == b"false"


def test_slow_script_leaves_time_to_others(tmp_path: Path) -> None:
    """Scripts that do not end while they are loaded take their share of the time, and no more."""
    for number in range(4):
        write_file(tmp_path / f"a{number}.js", "for (;;);")
    write_file(tmp_path / "z.js", "export const hook = () => 1;")
    limits = Limits(timeout=60, compile_seconds=2)
    with PluginSet.from_directory(tmp_path, limits=limits) as plugins:
        assert plugins.first("hook") == b"1"
        error = error_of(plugins, "a0")
        assert error.startswith("loading the script `a0.js` did not end within 0.")
        assert error.endswith("its share of what the plugins of the set have together; "
                              "`enable` tries it alone")  # fmt: skip


def test_script_within_limits(tmp_path: Path) -> None:
    """A file is no larger than a module may be, and its start has the memory of the limits."""
    write_file(tmp_path / "large.js", "export const a = () => 1;" + " " * 1000)
    write_file(tmp_path / "memory.js", "const a = []; for (;;) a.push(new Uint8Array(2 ** 20));")
    with PluginSet.from_directory(tmp_path, limits=Limits(module_bytes=1000)) as plugins:
        assert "larger than the limit of 1000 bytes" in error_of(plugins, "large")
    with PluginSet.from_directory(tmp_path, limits=Limits(memory_bytes=2**25)) as plugins:
        assert "memory.js" in error_of(plugins, "memory")
        assert "memory" in error_of(plugins, "memory")


def test_links_to_scripts(tmp_path: Path) -> None:
    """A link to a script is not followed."""
    outside = write_file(tmp_path / "outside.js", GREET_JS)
    directory = tmp_path / "plugins"
    make_folder(directory / "folder", "[plugin]\n")
    (directory / "a.js").symlink_to(outside)
    (directory / "folder" / "plugin.js").symlink_to(outside)
    with PluginSet.from_directory(directory) as plugins:
        assert plugins.hooks == {}
        assert "is a symbolic link, which is not followed" in error_of(plugins, "a")
        assert "plugin.js is a symbolic link" in error_of(plugins, "folder")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe", "x.py:1: the script is not UTF-8, at offset 0"),
        (b"", "it is empty"),
        (b"a = 1", "the script exports no function"),
        (b"def f():\n  return 1 +\n", "x.py:2:13: the script is not valid Python"),
        (b"def f(): pass\nraise ValueError('no')", "x.py:2: the script failed while it was loaded"),
    ],
)
def test_broken_scripts(tmp_path: Path, content: bytes, message: str) -> None:
    """A script that cannot be a plugin says why; the set is there all the same."""
    write_file(tmp_path / "x.py", content)
    write_file(tmp_path / "y.py", "def hook(): return 1")
    with PluginSet.from_directory(tmp_path) as plugins:
        assert plugins.first("hook") == b"1"
        assert message in error_of(plugins, "x")


def test_scripts_of_the_application(tmp_path: Path) -> None:
    """An application names scripts by their paths, like modules, or passes loaded ones."""
    path = write_file(tmp_path / "rules.py", "def hook(): return 'path'")
    loaded = plugwasm.script("javascript", "export const hook = () => 'loaded';")
    with PluginSet([path, str(path), {"wasm": [{"data": b"\0asm\1\0\0\0"}]}], hooks=["hook"]) as s:
        assert s.hooks == {"hook": ("rules",)}
        write_file(path, "def hook(): return 'changed'")
        assert s.reload().changed == ("rules",)
    with PluginSet({"a": loaded}) as plugins:
        assert plugins.first("hook") == b"loaded"


def test_engine_is_tried_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the interpreter cannot be had, that is tried once for all scripts, and at a reload."""
    tried = []

    def fail(language: str) -> None:
        tried.append(language)
        raise SourceError("no compiler")

    monkeypatch.setattr("plugwasm._script.engine.get_engine", fail)
    for number in range(5):
        write_file(tmp_path / f"a{number}.js", GREET_JS)
    with PluginSet.from_directory(tmp_path) as plugins:
        assert tried == ["javascript"]
        assert {one.error for one in plugins.describe()} == {"no compiler"}
        write_file(tmp_path / "a0.js", GREET_PY)
        plugins.reload()
        assert tried == ["javascript"] * 2
        monkeypatch.undo()
        plugins.enable("a1")
        assert plugins.call("a1", "greet", b'"Ada"') == b"Hi, Ada!"
