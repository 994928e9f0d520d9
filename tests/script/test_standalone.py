"""Scripts built as plugins of one module, which run on any host of the contract."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import extism
import pytest

import plugwasm
from plugwasm import FrozenClock, Limits, Plugin, ScriptError, SeededRandom, WasiOptions, host_fn
from plugwasm._script.standalone import MOST_FUNCTIONS, build_script, declarations_of
from tests.support.paths import ROOT

DECLARED = """
declare module "extism:host" {
  interface user { greet(name: PTR): PTR; }
}
declare module "my:math" { function half(x: F64): F64; }
"""
SOURCE = """
let calls = 0;
const table = Array.from({ length: 1000 }, (_, i) => i * i);
export function square({ n }) { calls++; return { square: table[n], calls }; }
export function hello() {
  const block = Memory.fromString(Host.inputString());
  Host.outputString(Memory.find(Host.getFunctions().greet(block.offset)).readString());
}
export const half = (x) => Host.getFunctions("my:math").half(x);
export function broken() {
  null.x;
}
"""


@pytest.fixture(scope="module")
def built() -> bytes:
    return build_script("javascript", SOURCE, name="plugin.js", declarations=DECLARED)


@host_fn()
def greet(name: str) -> str:
    return f"Hello, {name}!"


@host_fn(namespace="my:math")
def half(x: float) -> float:
    return x / 2


def test_built_plugin_runs_here(built: bytes) -> None:
    """The module is a plugin without any other, with the exports of the script."""
    with Plugin(built, True, functions=[greet, half]) as plugin:
        names = {item.name for item in plugin.compiled_plugin.exports}
        assert names == {"memory", "square", "hello", "half", "broken"}
        assert plugin.call("square", {"n": 12}, returns=dict) == {"square": 144, "calls": 1}
        assert plugin.call("square", {"n": 9}, returns=dict) == {"square": 81, "calls": 2}
        assert plugin.call("hello", "Ada") == b"Hello, Ada!"
        assert plugin.call("half", 5, returns=float) == 2.5
        with pytest.raises(plugwasm.GuestError, match=r"at broken \(plugin\.js:11:3\)"):
            plugin.call("broken")


def test_built_plugin_runs_on_official_host(built: bytes) -> None:
    """The same module runs on the official host."""

    @extism.host_fn(name="greet", namespace="extism:host/user")
    def official_greet(name: str) -> str:
        return f"Hello, {name}!"

    @extism.host_fn(
        name="half",
        namespace="my:math",
        signature=([extism.ValType.F64], [extism.ValType.F64]),
    )
    def official_half(plugin: Any, inputs: Any, outputs: Any) -> None:
        outputs[0] = inputs[0]

    plugin = extism.Plugin(built, wasi=True, functions=[official_greet, official_half])
    assert json.loads(plugin.call("square", b'{"n": 12}')) == {"square": 144, "calls": 1}
    assert json.loads(plugin.call("square", b'{"n": 12}')) == {"square": 144, "calls": 2}
    assert plugin.call("hello", b"Ada") == b"Hello, Ada!"
    with pytest.raises(extism.Error, match=r"at broken \(plugin\.js:11:3\)"):
        plugin.call("broken", b"")


def test_build_is_reproducible(built: bytes) -> None:
    """The same script gives the same module."""
    again = build_script("javascript", SOURCE, name="plugin.js", declarations=DECLARED)
    assert again == built


def test_built_plugin_has_no_room_for_chance(built: bytes) -> None:
    """What an instance does follows from its clock and its random numbers."""
    wasm = build_script("javascript", "export const f = () => [Date.now(), Math.random()];")
    fixed = WasiOptions(clock=FrozenClock(5_000_000), random=SeededRandom(1))
    with Plugin(wasm, fixed) as one, Plugin(wasm, fixed) as other:
        assert one.call("f") == other.call("f")
        assert one.call("f", returns=list)[0] == 5


def test_no_more_imports_than_needed() -> None:
    """A script without host functions imports the contract's functions, the time and chance."""
    wasm = build_script("javascript", "export const f = () => 1;")
    compiled = plugwasm.CompiledPlugin(wasm, True)
    modules = {item.module for item in compiled.imports}
    assert modules == {"extism:host/env", "wasi_snapshot_preview1"}
    wasi = {item.name for item in compiled.imports if item.module == "wasi_snapshot_preview1"}
    assert wasi == {"clock_time_get", "random_get"}


def test_many_host_functions() -> None:
    """A script imports as many host functions as the engine has slots, and no more."""

    def declare(count: int) -> str:
        functions = " ".join(f"function f{i}(): I32;" for i in range(count))
        return f'declare module "many" {{ {functions} }}'

    source = "export const sum = () => Object.values(Host.getFunctions('many')).reduce((n, f) => n + f(), 0);"
    wasm = build_script("javascript", source, declarations=declare(MOST_FUNCTIONS))
    functions = [
        host_fn(name=f"f{i}", namespace="many", signature=([], [plugwasm.ValType.I32]))(_give(i))
        for i in range(MOST_FUNCTIONS)
    ]
    with Plugin(wasm, True, functions=functions) as plugin:
        assert plugin.call("sum", returns=int) == sum(range(MOST_FUNCTIONS))
    with pytest.raises(ScriptError, match=f"imports {MOST_FUNCTIONS + 1} host functions"):
        build_script("javascript", source, declarations=declare(MOST_FUNCTIONS + 1))


def _give(number: int) -> Any:
    def give(plugin: Any, inputs: Any, outputs: Any) -> None:
        outputs[0] = plugwasm.Val(plugwasm.ValType.I32, number)

    return give


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("export function memory() {}", "exports `memory`"),
        ("export const f = () => {", "is not valid JavaScript"),
        ("export const a = 1;", "exports no function"),
    ],
)
def test_scripts_that_cannot_be_built(source: str, words: str) -> None:
    """What is wrong with a script is an error of the build."""
    with pytest.raises(ScriptError, match=words):
        build_script("javascript", source)


def test_endless_script_ends_the_build() -> None:
    """A script that never ends while it is loaded is ended by a limit."""
    with pytest.raises(plugwasm.TimeoutError):
        build_script("javascript", "for (;;);", limits=Limits(timeout=0.5))


def run(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "plugwasm._script", *arguments]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, env=_environment(), check=False
    )


def _environment() -> dict[str, str]:
    import os

    return os.environ | {"PYTHONPATH": str(ROOT)}


def test_building_from_the_command_line(tmp_path: Path) -> None:
    """The command builds a file, with the declarations beside it, and says what is wrong."""
    (tmp_path / "plugin.js").write_text(SOURCE)
    (tmp_path / "plugin.d.ts").write_text(DECLARED)
    assert declarations_of(tmp_path / "plugin.js") == DECLARED
    done = run("plugin.js", "plugin.wasm", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    with Plugin(tmp_path / "plugin.wasm", True, functions=[greet, half]) as plugin:
        assert plugin.call("hello", "Ada") == b"Hello, Ada!"
    (tmp_path / "plugin.js").write_text("export {")
    done = run("plugin.js", "plugin.wasm", folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: plugin.js:1:")
    assert run("plugin.js", folder=tmp_path).returncode == 2
    assert run("none.js", "plugin.wasm", folder=tmp_path).returncode == 1
