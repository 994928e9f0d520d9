"""TypeScript as plugins of a set: which files are taken, and what translates them."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from plugwasm import Limits
from plugwasm._script import bundling
from plugwasm.plugin_set import PluginSet
from tests.script.test_typescript import esbuild
from tests.support.plugin_sets import description_of, make_folder, text_plugin, write_file
from tests.support.scripts import need_engine
from tests.support.toolchains import fake_program
from tests.support.typescript import stand_in_for_esbuild

__all__ = ["esbuild"]

GREET = """
export const greet = (name: string): string => `${Config.get('greeting') ?? 'Hi'}, ${name}!`;
"""


@pytest.fixture(autouse=True)
def stand_in(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The program that removes types."""
    need_engine("javascript")
    return stand_in_for_esbuild(tmp_path_factory.mktemp("bin"), monkeypatch)


def error_of(plugins: PluginSet, name: str) -> str:
    return str(description_of(plugins, name).error)


def test_files_in_typescript_are_plugins(tmp_path: Path) -> None:
    """Files in TypeScript serve hooks; declarations, tests and settings of tools do not."""
    write_file(tmp_path / "a.ts", GREET)
    write_file(tmp_path / "b.mts", GREET)
    write_file(tmp_path / "c.CTS", GREET)
    for name in ("d.d.ts", "e.d.mts", "a.test.ts", "a.spec.mts", "vite.config.ts", "_f.ts"):
        write_file(tmp_path / name, GREET)
    with PluginSet.from_directory(tmp_path, config={"c": {"greeting": "Hello"}}) as plugins:
        assert [output for _, output, _ in plugins.all("greet", b'"Ada"')] == [
            b"Hi, Ada!",
            b"Hi, Ada!",
            b"Hello, Ada!",
        ]
        assert len(plugins.describe()) == 3
    with PluginSet.from_directory(tmp_path, scripts=False) as plugins:
        assert plugins.describe() == []


def test_typescript_of_a_folder(tmp_path: Path) -> None:
    """`plugin.ts` stands in the place of `plugin.wasm`, and a manifest pins the file as it is."""
    about = '[plugin]\ntitle = "Greetings"\n[plugin.settings.greeting]\ndefault = "Hello"\n'
    write_file(make_folder(tmp_path / "greet", about) / "plugin.ts", GREET)
    digest = hashlib.sha256(GREET.encode()).hexdigest()
    manifest = json.dumps({"wasm": [{"path": "src/main.ts", "hash": digest}]})
    folder = make_folder(tmp_path / "other", manifest, name="manifest.json")
    (folder / "src").mkdir()
    write_file(folder / "src" / "main.ts", GREET)
    with PluginSet.from_directory(tmp_path) as plugins:
        assert plugins.call("greet", "greet", b'"Ada"') == b"Hello, Ada!"
        assert plugins.call("other", "greet", b'"Ada"') == b"Hi, Ada!"
        write_file(folder / "src" / "main.ts", GREET + "//")
        assert plugins.reload().failed == ("other",)
        assert "hash" in error_of(plugins, "other")


@pytest.mark.parametrize("isolated", [False, True])
def test_typescript_is_reloaded(tmp_path: Path, isolated: bool) -> None:
    """A file that changes is translated anew, and one that cannot be replaces nothing."""
    path = write_file(tmp_path / "rules.ts", "export const hook = (): number => 1;")
    with PluginSet.from_directory(tmp_path, isolated=isolated) as plugins:
        assert plugins.first("hook") == b"1"
        write_file(path, "export const hook = (): number => 2;")
        assert plugins.reload().changed == ("rules",)
        assert plugins.first("hook") == b"2"
        write_file(path, "\n  broken")
        assert plugins.reload().failed == ("rules",)
        assert plugins.first("hook") == b"2"
        assert error_of(plugins, "rules") == 'rules.ts:2:4: Unexpected "broken"'


def test_set_without_esbuild(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of a directory are translated only by a program that the environment names: none of
    the directory, and none on the PATH. What is not translated says what to do.
    """
    plugins_folder = tmp_path / "plugins"
    plugins_folder.mkdir()
    write_file(plugins_folder / "a.ts", GREET)
    write_file(plugins_folder / "b.wasm", text_plugin("module", "greet"))
    marker = tmp_path / "ran"
    (plugins_folder / "node_modules" / ".bin").mkdir(parents=True)
    for place in (plugins_folder, plugins_folder / "node_modules" / ".bin"):
        fake_program(place, "esbuild", f"touch {marker}")
    monkeypatch.chdir(plugins_folder)
    monkeypatch.delenv(bundling.VARIABLE)
    for path in (str(plugins_folder), "", "."):
        monkeypatch.setenv("PATH", path)
        with PluginSet.from_directory(plugins_folder) as plugins:
            assert plugins.first("greet") == b"module"
            assert error_of(plugins, "a").startswith("a.ts: a script in TypeScript in the dir")
            assert f"variable {bundling.VARIABLE} names: name it, or" in error_of(plugins, "a")
    assert not marker.exists()


def test_esbuild_of_an_application(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that the application names is translated by a program on the PATH, too; relative
    entries of the PATH are folders of somebody else.
    """
    path = write_file(tmp_path / "rules.ts", GREET)
    programs = tmp_path / "bin"
    programs.mkdir()
    stand_in_for_esbuild(programs, monkeypatch)
    monkeypatch.delenv(bundling.VARIABLE)
    monkeypatch.chdir(programs)
    for path_variable in ("", ".", ":/none"):
        monkeypatch.setenv("PATH", path_variable)
        with PluginSet([path]) as plugins:
            assert "rules.ts: a script in TypeScript needs esbuild" in error_of(plugins, "rules")
            assert "`npm install --global esbuild`), or name it" in error_of(plugins, "rules")
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    with PluginSet([path]) as plugins:
        assert plugins.first("greet", b'"Ada"') == b"Hi, Ada!"


def test_slow_esbuild_leaves_time_to_others(
    tmp_path: Path, stand_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that keeps esbuild busy has its share of the time, as a module that is compiled."""
    stand_in_for_esbuild(stand_in.parent, monkeypatch, "sleep 60")
    write_file(tmp_path / "a.ts", GREET)
    write_file(tmp_path / "b.ts", GREET)
    write_file(tmp_path / "c.js", "export const hook = () => 1;")
    with PluginSet.from_directory(tmp_path, limits=Limits(compile_seconds=1)) as plugins:
        assert plugins.first("hook") == b"1"
        error = error_of(plugins, "a")
        assert error.startswith("a.ts: esbuild did not end within 0.3")
        assert error.endswith("of what the plugins of the set have together; "
                              "`enable` tries it alone")  # fmt: skip


@pytest.mark.toolchain
@pytest.mark.slow
def test_translation_opens_no_file(
    esbuild: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By no way that TypeScript and esbuild know does a file get at what is beside it: not by
    imports, references, source maps, or settings of tools.
    """
    monkeypatch.setenv(bundling.VARIABLE, esbuild)
    monkeypatch.chdir(tmp_path)
    write_file(tmp_path / "tsconfig.json", '{"extends": "./none", "compilerOptions": 1}')
    write_file(tmp_path / "package.json", "no JSON")
    (tmp_path / "files").mkdir()
    for name in ("secret.json", "secret.ts", "secret.txt", "a.ts.map", "b.ts.map"):
        write_file(
            tmp_path / "files" / name, '{"version": 3, "sources": ["HIDDEN"], "mappings": ""}'
        )
        shutil.copy(tmp_path / "files" / name, tmp_path / name)
    (tmp_path / "secret.ts").unlink()
    for number, line in enumerate(
        [
            'import s from "./secret.json" with { type: "json" };',
            'import s from "./files/secret";',
            'import s = require("./secret.json");',
            'export * from "./files/secret.ts";\nconst s = 1;',
            '/** @jsxImportSource ./files */\nimport s from "./secret.txt";',
        ]
    ):
        write_file(tmp_path / f"a{number}.ts", f"{line}\nexport const hook = (): any => s;")
    write_file(
        tmp_path / "b.ts",
        '/// <reference path="./files/secret.ts" />\n'
        "export const hook = (): any => { throw new Error('b'); };\n"
        "//# sourceMappingURL=b.ts.map\n",
    )
    with PluginSet.from_directory(tmp_path) as plugins:
        for number in range(5):
            error = error_of(plugins, f"a{number}")
            assert "cannot import" in error or "require" in error, error
            assert "HIDDEN" not in error
        with pytest.raises(Exception, match=r"Error: b\n +at hook \(b\.ts:2:") as caught:
            plugins.call("b", "hook")
        assert "HIDDEN" not in str(caught.value)
