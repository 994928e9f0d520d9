"""The command line takes the path of a script wherever it takes a module."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_line import run_command
from tests.support.scripts import need_engine

JS = """
export const greet = (name) => `${Config.get("word") ?? "Hi"}, ${name}`;
greet.input = "text";
export const spin = () => { for (;;); };
export const grow = () => { const a = []; for (;;) a.push(new Uint8Array(2 ** 20)); };
"""
PY = """
import extism
def greet(name: str):
    return f"{extism.Config.get_str('word') or 'Hi'}, {name}"
def spin():
    while True: pass
def grow():
    a = []
    while True: a.append(bytearray(2 ** 20))
"""


@pytest.fixture(params=["rules.js", "rules.py"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    need_engine("javascript" if request.param.endswith("js") else "python")
    path = tmp_path / request.param
    path.write_text(JS if request.param.endswith("js") else PY)
    return str(path)


def test_script_is_called(file: str) -> None:
    """`call` loads a script and calls it, with the options that a module has."""
    assert run_command("call", file, "greet", "-i", "Ada").out == b"Hi, Ada"
    changed = run_command("call", file, "greet", "-i", "Ada", "-c", "word=Hello", "--loop", "2")
    assert changed.out == b"Hello, Ada\nHello, Ada\n"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["spin", "--timeout", "100"], 3, "did not end before its deadline of 100 ms"),
        (["greet", "--fuel", "100"], 3, "used up its fuel"),
        (["gret"], 2, "did you mean `greet`?"),
        (["greet", "--link", "a=b.wasm"], 2, "is a script, which imports no modules"),
        (["greet", "--set-hash", "0" * 64], 2, "not the one given with --set-hash"),
    ],
)
def test_options_hold_for_scripts(file: str, arguments: list[str], code: int, message: str) -> None:
    """Limits and other options apply to scripts, and those that cannot say so."""
    done = run_command("call", file, *arguments, "-i", "x")
    assert message in done.err
    assert done.code == code


def test_memory_of_script_is_bounded(file: str) -> None:
    """The pages of memory that a script may add are bounded by `--memory-max`."""
    done = run_command("call", file, "grow", "-i", "0", "--memory-max", "64")
    assert done.code in (1, 3)
    assert "memory" in done.err.lower()


def test_script_is_inspected(file: str) -> None:
    """`inspect` shows the exports of a script, and the host functions that it declares."""
    Path(file).with_suffix(".d.ts").write_text(
        'declare module "extism:host" { interface user { lookup(name: PTR): PTR; } }'
    )
    done = run_command("inspect", file)
    assert done.code == 0
    text = done.out.decode()
    assert text.split("\n")[0] == "rules"
    assert re.search(r"greet +\(\) -> \(i32\)  callable", text)
    assert re.search(r"lookup +\(i64\) -> \(i64\)  host function", text)
    (module,) = json.loads(run_command("inspect", file, "--json").out)["modules"]
    assert sorted(one["name"] for one in module["exports"]) == [
        "greet",
        "grow",
        "spin",
    ]
    assert "plugwasm:engine" not in text


def test_script_is_measured(file: str) -> None:
    """`bench` measures calls, fresh instances, and loading the script."""
    done = run_command("bench", file, "greet", "-i", "Ada", "--seconds", "0.2", "--json")
    figures = json.loads(done.out)
    assert figures["output_bytes"] == 7
    assert list(figures["load"]) == ["script"]


def test_script_is_replayed(file: str, tmp_path: Path) -> None:
    """What `--record` wrote of a script, `replay` compares with the script as it is now."""
    record = str(tmp_path / "calls.json")
    assert run_command("call", file, "greet", "-i", "Ada", "--record", record).code == 0
    assert run_command("replay", record, file).out == b"rules does the same: 1 call\n"
    assert "such as the script" in run_command("replay", record).err
    Path(file).write_text(Path(file).read_text().replace("Hi", "Hey"))
    done = run_command("replay", record, file)
    assert done.code == 1
    assert "Hey, Ada" in done.err


@pytest.mark.parametrize("command", ["call", "inspect", "bench"])
def test_broken_script(file: str, command: str) -> None:
    """A script that is not valid is an error with file, line and column."""
    Path(file).write_text("x = (\n")
    done = run_command(command, file, *(["f"] if command != "inspect" else []))
    assert done.code in (1, 2)
    assert done.err.startswith(f"error: {Path(file).name}:2:1: the script is not valid")
    assert run_command(command, "none.js", *(["f"] if command != "inspect" else [])).code == 2


def test_script_is_no_project(file: str) -> None:
    """`test` wants a project, and says how a script is tested."""
    done = run_command("test", file)
    assert done.code == 2
    assert "is a script, and not a project" in done.err


def test_bench_takes_the_kept_interpreter(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`bench`, which has a cache of its own, looks for the interpreter in the user's."""
    from plugwasm._runtime import code_cache
    from plugwasm._script import engine

    find_or_build, looked = engine.find_or_build, []

    def find(*arguments: Any) -> bytes:
        looked.append(code_cache.directory())
        return find_or_build(*arguments)

    monkeypatch.setattr(engine, "_engines", {})
    monkeypatch.setattr(engine, "find_or_build", find)
    done = run_command("bench", file, "greet", "-i", "x", "--seconds", "0.1")
    assert done.code == 0, done.err
    assert looked == [code_cache.directory()]
