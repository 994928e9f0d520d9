"""Projects in TypeScript: when npm runs, what is missing, and what `tsc` says of them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from plugwasm._project.build import build_project, plan_build
from plugwasm._project.languages import LANGUAGES
from plugwasm._project.new import make_project
from plugwasm._project.problems import BuildError, ProjectError
from plugwasm._project.project_file import read_project
from plugwasm._script import bundling
from plugwasm.errors import SourceError
from plugwasm.testing import Harness
from tests.support.scripts import need_engine
from tests.support.toolchains import fake_program, require_language


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A new project."""
    folder = tmp_path / "x"
    make_project(LANGUAGES["typescript"], "my-plugin", str(folder))
    return folder


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the PATH with a node and an npm. The npm installs an esbuild, and counts its runs;
    that esbuild makes a script of anything.
    """
    need_engine("javascript")
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.delenv(bundling.VARIABLE, raising=False)
    monkeypatch.setattr(
        "plugwasm._project.languages.npm.find_program", lambda name: _program(programs, name)
    )
    monkeypatch.setattr(
        "plugwasm._project.languages.scripts.find_program", lambda name: _program(programs, name)
    )
    fake_program(programs, "node", "echo v20.1.0")
    fake_program(programs, "made-esbuild", "echo 'export const greet = () => 1;'")
    fake_program(
        programs,
        "npm",
        'if [ "$1" = --version ]; then echo 10.0.0; exit; fi\n'
        f'echo "$@" >> {programs}/runs\n'
        "mkdir -p node_modules/.bin\n"
        f"cp {programs}/made-esbuild node_modules/.bin/esbuild\n"
        "touch node_modules/.package-lock.json",
    )
    return programs


def _program(programs: Path, name: str) -> tuple[str, ...] | None:
    path = programs / name
    return (str(path),) if path.exists() else None


def runs(programs: Path) -> int:
    file = programs / "runs"
    return len(file.read_text().splitlines()) if file.exists() else 0


def build(folder: Path) -> tuple[str, ...]:
    return build_project(plan_build(read_project(folder)), quiet=True).needs.exports


def test_npm_runs_if_packages_are_missing(folder: Path, programs: Path) -> None:
    """It installs what package.json lists, without scripts of packages, and again after a change."""
    assert build(folder) == ("greet",)
    assert build(folder) == ("greet",)
    assert runs(programs) == 1
    assert "install --ignore-scripts" in (programs / "runs").read_text()
    newer = (folder / "node_modules" / ".package-lock.json").stat().st_mtime_ns + 10**9
    os.utime(folder / "package.json", ns=(newer, newer))
    build(folder)
    assert runs(programs) == 2


@pytest.mark.parametrize("file", ["pnpm-lock.yaml", "yarn.lock", "bun.lock"])
def test_npm_leaves_packages_of_others(folder: Path, programs: Path, file: str) -> None:
    """Where another program installs the packages, npm does not; the message names esbuild."""
    (folder / file).touch()
    with pytest.raises(SourceError, match=r"needs esbuild, .*npm install --save-dev esbuild"):
        build(folder)
    assert runs(programs) == 0


def test_packages_of_a_folder_above_are_used(folder: Path, programs: Path) -> None:
    """In a workspace the packages lie in a folder above, and nothing is installed."""
    above = folder.parent / "node_modules" / ".bin"
    above.mkdir(parents=True)
    (programs / "made-esbuild").rename(above / "esbuild")
    assert build(folder) == ("greet",)
    assert runs(programs) == 0


def test_project_without_npm(folder: Path, programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without npm the message says what to install; an esbuild that is named is enough."""
    (programs / "npm").unlink()
    with pytest.raises(ProjectError, match=r"npm 9 or later is needed.*\nInstall Node\.js, which"):
        build(folder)
    monkeypatch.setenv(bundling.VARIABLE, str(programs / "made-esbuild"))
    assert build(folder) == ("greet",)


def test_project_without_packages(folder: Path, programs: Path) -> None:
    """Without package.json nothing is installed, and the message says what is missing."""
    (folder / "package.json").unlink()
    with pytest.raises(SourceError, match=r"plugin\.ts: .*needs esbuild, which is not here"):
        build(folder)
    assert runs(programs) == 0


def test_source_that_is_a_folder(folder: Path, programs: Path) -> None:
    """A folder is no script."""
    text = (folder / "plugin.toml").read_text()
    (folder / "plugin.toml").write_text(
        text.replace('language = "typescript"', 'language = "typescript"\nsource = "src"')
    )
    with pytest.raises(SourceError, match="src: it is a directory"):
        build(folder)


@pytest.mark.slow
@pytest.mark.toolchain
def test_types_are_checked_by_tsc(folder: Path) -> None:
    """`npm run check` is clean for a new project, knows its host functions, and finds a wrong type,
    which a build does not look at.
    """
    require_language("typescript")
    build(folder)
    check = ["npm", "run", "--silent", "check"]
    assert subprocess.run(check, cwd=folder, capture_output=True, check=False).stdout == b""
    (folder / "src" / "plugin.d.ts").write_text(
        'declare module "extism:host" {\n  interface user {\n    twice(n: I32): I32;\n  }\n}\n'
    )
    source = folder / "src" / "plugin.ts"
    source.write_text(
        "export function greet(): number {\n  return Host.getFunctions().twice(21);\n}\n"
    )
    done = subprocess.run(check, cwd=folder, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    text = source.read_text().replace("21", '"21"')
    source.write_text(text.replace("greet()", "greet(n: Txt)"))
    done = subprocess.run(check, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "src/plugin.ts(1,26): error TS2304: Cannot find name 'Txt'" in done.stdout
    assert "src/plugin.ts(2,36): error TS2345" in done.stdout
    assert build(folder) == ("greet",)


@pytest.mark.slow
@pytest.mark.toolchain
def test_imports_that_are_missing(folder: Path) -> None:
    """What a project imports and does not have is named, with its place and what it may be."""
    require_language("typescript")
    source = folder / "src" / "plugin.ts"
    for name, rest in {
        "left-pad-of-mine": "a package that npm has not installed, or a module of Node",
        "fs": "a package that npm has not installed, or a module of Node",
        "./none": "$",
    }.items():
        source.write_text(f'import pad from "{name}";\nexport const greet = () => pad("a");\n')
        with pytest.raises(
            BuildError, match=rf'plugin\.ts:1:17: Could not resolve "{name}"(: )?{rest}'
        ):
            build(folder)


@pytest.mark.slow
@pytest.mark.toolchain
def test_types_of_the_whole_kit(folder: Path) -> None:
    """A file that uses all of the kit, and of the language what is more than types, has no error of
    `tsc --strict`, and gets values of the types that are declared.
    """
    require_language("typescript")
    source = folder / "src"
    shutil.copy(Path(__file__).with_name("whole_kit.ts"), source / "plugin.ts")
    (source / "names.ts").write_text(
        "export interface Named {\n  readonly name: string;\n}\nexport type Other = string;\n"
        "export const nameOf = (one: Named): Other => one.name;\n"
    )
    (source / "words.json").write_text('{ "hello": "Hello" }\n')
    (source / "plugin.d.ts").write_text(
        'declare module "extism:host" {\n  interface user {\n    twice(n: I32): I32;\n  }\n}\n'
        'declare module "the:namespace" {\n  function count(n: I32): I32;\n}\n'
    )
    assert build(folder) == ("default", "whole")
    check = ["npm", "run", "--silent", "check"]
    assert subprocess.run(check, cwd=folder, capture_output=True, check=False).stdout == b""
    with Harness(folder / "plugin.wasm", config={"key": "value"}, wasi=True) as harness:
        harness.host("twice", int, returns=lambda n: 2 * n)
        harness.host("count", int, namespace="the:namespace", returns=lambda n: n)
        harness.http.get("https://a.test/1").respond(text="one")
        harness.http.post("https://a.test/2").respond(json={"b": 2})
        with harness.plugin() as plugin:
            assert plugin.call("default", '{"side": 3}', returns=list) == [
                "large", 1, 4, 9, "square", "Hello",
            ]  # fmt: skip
            types = plugin.call("whole", '"x"', returns=dict)
    for kind, names in {
        "String": "text base64 config variable decoded",
        "ArrayBuffer": "bytes raw",
        "null": "none parsed",
        "Object": "value json",
        "Number": "length float doubled counted status waited",
        "BigInt": "large",
        "Uint8Array": "encoded random",
        "Array": "query",
        "Map": "clone",
        "Headers": "headers",
        "Response": "answer",
        "URL": "url",
    }.items():
        assert {types.pop(name) for name in names.split()} == {kind}, kind
    assert types == {}
