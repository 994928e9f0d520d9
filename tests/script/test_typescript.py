"""TypeScript, and scripts that import others, by esbuild."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

import plugwasm
from plugwasm import GuestError, Plugin, ScriptError, SourceError, script
from plugwasm._script import bundling
from plugwasm._script.standalone import build_script_file

VERSION = "0.28.2"
SOURCE = """\
interface Order {
  price: number;
}

export function half(order: Order): number {
  if (order.price < 0) throw new RangeError("below 0");
  return order.price / 2;
}
"""


@pytest.fixture(scope="session")
def esbuild(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of esbuild, installed by npm."""
    npm = shutil.which("npm")
    if npm is None:
        assert "CI" not in os.environ, "npm is not there"
        pytest.skip("needs npm, which installs esbuild")
    folder = tmp_path_factory.mktemp("esbuild")
    command = [npm, "install", "--silent", "--no-audit", "--no-fund", f"esbuild@{VERSION}"]
    subprocess.run([*command, "--prefix", str(folder)], check=True, cwd=folder)
    return str(folder / "node_modules" / ".bin" / "esbuild")


@pytest.mark.toolchain
@pytest.mark.slow
def test_typescript_from_text(esbuild: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Text in TypeScript is a plugin, and its errors have the lines of the text."""
    monkeypatch.setenv(bundling.VARIABLE, esbuild)
    with Plugin(script("typescript", SOURCE, name="order.ts")) as plugin:
        assert plugin.call("half", {"price": 5}, returns=float) == 2.5
        with pytest.raises(GuestError, match=r"RangeError: below 0\n *at half \(order\.ts:6:\d+\)"):
            plugin.call("half", {"price": -1})
    with pytest.raises(ScriptError, match=r'bad\.ts:1:29: Expected "\)"') as caught:
        script("typescript", "export const f = (a: number {", name="bad.ts")
    assert (caught.value.line, caught.value.column) == (1, 29)


@pytest.mark.toolchain
@pytest.mark.slow
def test_text_reads_no_files(esbuild: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a text imports is never read, nor a configuration in the current folder."""
    monkeypatch.setenv(bundling.VARIABLE, esbuild)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.json").write_text('"secret"')
    (tmp_path / "tsconfig.json").write_text("no JSON")
    for name in ("./secret.json", str(tmp_path / "secret.json")):
        text = f"import secret from {name!r};\nexport const f = (): string => secret;"
        with pytest.raises(ScriptError, match=r"cannot import .*: a script is one file"):
            script("typescript", text)
    with Plugin(script("typescript", "export const f = (): number => 1;")) as plugin:
        assert plugin.call("f", returns=int) == 1


@pytest.mark.toolchain
@pytest.mark.slow
def test_project_is_bundled(esbuild: str, tmp_path: Path) -> None:
    """A build bundles files and packages, with the esbuild of the project; errors name the files."""
    bin_ = tmp_path / "node_modules" / ".bin"
    bin_.mkdir(parents=True)
    (bin_ / "esbuild").symlink_to(esbuild)
    package = tmp_path / "node_modules" / "shout"
    package.mkdir()
    (package / "package.json").write_text('{"name": "shout", "main": "main.js"}')
    (package / "main.js").write_text("module.exports = (text) => text + '!';")
    source = tmp_path / "src"
    source.mkdir()
    (source / "fail.ts").write_text(
        "type A = 1;\n\nexport function fail(): never {\n  throw new Error('no');\n}\n"
    )
    (source / "plugin.ts").write_text(
        'import shout from "shout";\nimport { fail } from "./fail";\n\n'
        "export const f = (text: string): string => shout(text);\nf.input = 'text';\n"
        "export const g = (): void => fail();\n"
    )
    (source / "old.js").write_text(
        "const shout = require('shout');\nmodule.exports = { f: () => shout('a') };"
    )
    wasm = build_script_file(source / "plugin.ts")
    with Plugin(wasm, True) as plugin:
        assert plugin.call("f", "a") == b"a!"
        with pytest.raises(GuestError, match=r"at fail \(fail\.ts:4:\d+\)\n *at g \(plugin\.ts:6:"):
            plugin.call("g")
    with Plugin(build_script_file(source / "old.js"), True) as plugin:
        assert plugin.call("f") == b"a!"
    (source / "plugin.ts").write_text('import "./none";\n')
    with pytest.raises(ScriptError, match=r'plugin\.ts:1:8: Could not resolve "\./none"'):
        build_script_file(source / "plugin.ts")


def test_missing_esbuild(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where esbuild is missing, or is no program, the error says what to do."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(bundling.VARIABLE, raising=False)
    with pytest.raises(SourceError, match=r"needs esbuild, which is not here: put the program"):
        script("typescript", SOURCE)
    (tmp_path / "a.ts").write_text(SOURCE)
    with pytest.raises(SourceError, match="npm install --save-dev esbuild"):
        build_script_file(tmp_path / "a.ts")
    (tmp_path / "a.js").write_text('import { x } from "./b.js";\nexport const f = () => x;')
    with pytest.raises(ScriptError, match=r"one file.*npm install --save-dev esbuild"):
        build_script_file(tmp_path / "a.js")
    monkeypatch.setenv(bundling.VARIABLE, str(tmp_path / "none"))
    with pytest.raises(SourceError, match="esbuild cannot be run"):
        script("typescript", SOURCE)


@pytest.mark.parametrize(
    "line",
    [
        "//# sourceMappingURL=data:application/json;base64,e30=",
        "//# sourceMappingURL=data:application/json;base64,bm8=",
        "//# sourceMappingURL=data:application/json;base64,////",
        "//# sourceMappingURL=data:application/json;base64,eyJ2ZXJzaW9uIjozLCJzb3VyY2VzIjpbXSwibWFwcGluZ3MiOiJBQUFBLHp6enp6enp6enp6enp6enp6IUEifQ==",
    ],
)
def test_source_maps_that_are_wrong(line: str) -> None:
    """A map that cannot be read, or names places that are not there, harms nothing."""
    source = f"export function f() {{ null.x; }}\n{line}\n"
    with Plugin(script("javascript", source)) as plugin, pytest.raises(GuestError, match="TypeErr"):
        plugin.call("f")


@pytest.mark.parametrize(
    ("source", "imported"),
    [
        ("export const f = () => 1;", set()),
        ("export const f = () => fetch('http://a/');", {"http_request"}),
        ("export const f = () => Http.request({ url: 'http://a/' });", {"http_request"}),
        ("export const f = () => new Promise((r) => setTimeout(r, 1));", {"poll_oneoff"}),
        ("export const f = () => eval('1');", {"http_request", "poll_oneoff"}),
    ],
)
def test_imports_only_if_they_can_be_used(source: str, imported: set[str], tmp_path: Path) -> None:
    """A built plugin imports requests and sleeping only if its script can use them."""
    (tmp_path / "a.js").write_text(source)
    compiled = plugwasm.CompiledPlugin(build_script_file(tmp_path / "a.js"), True)
    assert {one.name for one in compiled.imports} & {"http_request", "poll_oneoff"} == imported
