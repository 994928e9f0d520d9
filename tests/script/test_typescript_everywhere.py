"""Files in TypeScript wherever a plugin can be named: refs, harnesses, recordings, processes, the
command line.
"""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

import plugwasm
import plugwasm.recording
from plugwasm import IsolatedPlugin, Plugin, PluginRef, ScriptError, SourceError, script
from plugwasm._script import bundling
from plugwasm.testing import Harness
from tests.support.command_line import run_command
from tests.support.scripts import need_engine
from tests.support.typescript import stand_in_for_esbuild

SOURCE = """
export const greet = (name: string): string => `${Config.get("word") ?? "Hi"}, ${name}`;
greet.input = "text";
"""
BORN = """
export const born = (name: string): string =>
  Memory.find(Host.getFunctions().lookup(Memory.fromString(name).offset)).readString();
born.input = "text";
"""
DECLARED = 'declare module "extism:host" { interface user { lookup(name: PTR): PTR; } }'


@pytest.fixture(autouse=True)
def stand_in(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The program that removes types."""
    need_engine("javascript")
    return stand_in_for_esbuild(tmp_path_factory.mktemp("bin"), monkeypatch)


@pytest.fixture
def file(tmp_path: Path) -> str:
    (tmp_path / "rules.ts").write_text(SOURCE)
    return str(tmp_path / "rules.ts")


def test_ref_needs_no_esbuild_elsewhere(
    file: str, stand_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ref is translated where it is made, so that whoever gets it needs no esbuild."""
    refs = [PluginRef(file), PluginRef.script("typescript", SOURCE, name="rules.ts")]
    sent = [pickle.dumps(ref) for ref in refs]
    stand_in.unlink()
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv(bundling.VARIABLE)
    for one in sent:
        with pickle.loads(one).plugin() as plugin:
            assert plugin.name == "rules.ts"
            assert plugin.call("greet", "Ada") == b"Hi, Ada"
    with pytest.raises(SourceError, match=r"rules\.ts: a script in TypeScript needs esbuild"):
        PluginRef(file)


def test_harness_fakes_declared_functions(tmp_path: Path) -> None:
    """A harness finds `plugin.d.ts` beside `plugin.ts`."""
    (tmp_path / "born.ts").write_text(BORN)
    (tmp_path / "born.d.ts").write_text(DECLARED)
    with Harness(tmp_path / "born.ts") as harness:
        harness.host("lookup", str, returns=lambda name: f"{name}?")
        with harness.plugin() as plugin:
            assert plugin.call("born", "Ada") == b"Ada?"


def test_isolated_and_recorded(file: str, tmp_path: Path) -> None:
    """A process of its own runs it, and a recording is compared with the file as it is now."""
    with IsolatedPlugin(script("typescript", Path(file))) as plugin:
        assert plugin.call("greet", "Ada") == b"Hi, Ada"
    record = str(tmp_path / "calls.json")
    assert run_command("call", file, "greet", "-i", "Ada", "--record", record).code == 0
    assert run_command("replay", record, file).out == b"rules does the same: 1 call\n"
    Path(file).write_text(SOURCE.replace("Hi", "Hey"))
    assert run_command("replay", record, file).code == 1


def test_command_line(file: str) -> None:
    """`call`, `bench` and `inspect` take it; `inspect` shows the file and not its translation."""
    assert run_command("call", file, "greet", "-i", "Ada", "-c", "word=Hello").out == b"Hello, Ada"
    figures = json.loads(
        run_command("bench", file, "greet", "-i", "Ada", "--seconds", "0.1", "--json").out
    )
    assert list(figures["load"]) == ["script"]
    (module,) = json.loads(run_command("inspect", file, "--json").out)["modules"]
    assert (module["language"], module["size"]) == ("typescript", len(SOURCE))
    assert "`plugwasm new typescript` makes" in run_command("test", file).err


@pytest.mark.parametrize("command", ["call", "inspect", "bench"])
def test_broken_file(file: str, command: str) -> None:
    """What esbuild refuses is an error with the place; a file of declarations is no script."""
    arguments = ["f"] if command != "inspect" else []
    Path(file).write_text("\n  broken")
    done = run_command(command, file, *arguments)
    assert done.code in (1, 2)
    assert done.err.startswith('error: rules.ts:2:4: Unexpected "broken"')
    declarations = Path(file).with_suffix(".d.ts")
    declarations.write_text(DECLARED)
    assert run_command(command, str(declarations), *arguments).code == 2


def test_text_is_not_copied_to_limits(file: str) -> None:
    """What esbuild makes is bounded like the file, and an error is that of a script."""
    limits = plugwasm.Limits(module_bytes=len(SOURCE) + 10)
    Path(file).write_text(SOURCE + "//" + "x" * 20)
    with pytest.raises(SourceError, match="larger than the limit"):
        PluginRef(file, limits=limits)
    with pytest.raises(ScriptError, match=r"rules\.ts:1: the script is not UTF-8"):
        script("typescript", b"\xff", name="rules.ts")
    with Plugin(script("typescript", Path(file))) as plugin:
        assert plugin.call("greet", "Ada") == b"Hi, Ada"
