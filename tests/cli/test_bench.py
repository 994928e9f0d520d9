"""`plugwasm bench`: what it shows, what it leaves alone, and how it fails."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

pytest.importorskip("typer")

from plugwasm.cli import options
from plugwasm.cli.terminal import UsageProblem
from tests.support.command_line import COUNT, ECHO, WASI, is_harmless, run_command

SHORT = ("--seconds", "0.1")

GROWING = """
(module (memory (export "memory") 1)
  (func (export "grow") (drop (memory.grow (i32.const 1)))))
"""
TENTH_FAILS = """
(module
  (global $calls (mut i32) (i32.const 0))
  (func (export "count") (result i32)
    (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
    (if (i32.ge_s (global.get $calls) (i32.const 10)) (then unreachable))
    (i32.const 0)))
"""


def written(folder: Path, text: str) -> str:
    path = folder / "plugin.wat"
    path.write_text(text)
    return str(path)


def test_a_table_of_a_call() -> None:
    """The table has a row for each kind of run, and says what the plugin asked the host for."""
    done = run_command("bench", COUNT, "count_vowels", "-i", "Hello", *SHORT)
    assert (done.code, done.err) == (0, "")
    text = done.out.decode()
    assert text.startswith("count_vowels of count_vowels: 5 bytes in, 43 bytes out\n")
    for title in (
        "call",
        "fresh instance, call, close",
        "load: nothing cached",
        "load: compiled code on disk",
        "load: module in this process",
    ):
        assert re.search(rf"^{title} +[\d.]+ (ns|µs|ms|s)\b", text, re.MULTILINE), title
    assert re.search(r"^host calls: 3 a call, which take [\d.]+ ", text, re.MULTILINE)
    assert "which does not grow\n" in text


def test_json_has_all_figures() -> None:
    """The JSON has the figures of the table in seconds and bytes, and they fit together."""
    done = run_command("bench", COUNT, "count_vowels", "-i", "Hello", "--json", *SHORT)
    found = json.loads(done.out)
    assert (found["plugin"], found["function"]) == ("count_vowels", "count_vowels")
    assert (found["input_bytes"], found["output_bytes"], found["host_calls"]) == (5, 43, 3)
    for times in (found["call"], found["fresh_instance"], *found["load"].values()):
        assert times["count"] >= 1
        assert 0 < times["median"] <= times["p99"]
        assert times["per_second"] * times["median"] <= 2 * times["count"]
    assert found["call"]["count"] > found["fresh_instance"]["count"]
    assert found["memory_bytes"] % 65_536 == 0
    assert found["memory_growth_per_call"] == 0


def test_growth_is_told_per_call(tmp_path: Path) -> None:
    """A plugin whose memory grows by a page in each call is told by exactly a page."""
    plugin = written(tmp_path, GROWING)
    found = json.loads(run_command("bench", plugin, "grow", "-i", "", "--json", *SHORT).out)
    assert found["memory_growth_per_call"] == 65_536
    shown = run_command("bench", plugin, "grow", "-i", "", *SHORT).out.decode()
    assert "which grows by 64.0 KiB a call" in shown


def test_a_later_failure_is_counted(tmp_path: Path) -> None:
    """If a call fails after others succeeded, their number is a warning, and the error is shown."""
    done = run_command("bench", written(tmp_path, TENTH_FAILS), "count", "-i", "", *SHORT)
    assert (done.code, done.out) == (1, b"")
    assert "the first 8 calls succeeded" in done.err
    assert "unreachable" in done.err


def test_one_run_of_what_is_long() -> None:
    """A call that takes longer than the whole time is still measured, once for each kind of run."""
    found = json.loads(
        run_command("bench", ECHO, "alloc_length", "-i", "2000000", "--json", *SHORT).out
    )
    assert 1 <= found["call"]["count"] <= 3
    assert found["fresh_instance"]["count"] >= 1


@pytest.mark.parametrize("before", [None, "off", "somewhere"])
def test_the_users_cache_is_not_touched(
    before: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user's cache is neither read nor filled; its setting is as before, also after an error."""
    value = str(tmp_path / before) if before == "somewhere" else before
    if value is None:
        monkeypatch.delenv("PLUGWASM_CACHE", raising=False)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    else:
        monkeypatch.setenv("PLUGWASM_CACHE", value)
    assert run_command("bench", ECHO, "echo", "-i", "x", *SHORT).code == 0
    assert os.environ.get("PLUGWASM_CACHE") == value
    assert run_command("bench", ECHO, "nothing", "-i", "x", *SHORT).code == 2
    assert os.environ.get("PLUGWASM_CACHE") == value
    assert list(tmp_path.iterdir()) == []


def test_loads_come_from_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A load without a cache compiles; the next one, and no other, reads what that one wrote."""
    from plugwasm._runtime import code_cache

    seen: list[str] = []
    load, store = code_cache.load, code_cache.store

    def spy_load(settings: bytes, wasm: bytes) -> object:
        entry = load(settings, wasm)
        seen.append("hit" if entry is not None else "miss")
        return entry

    def spy_store(*arguments: object) -> None:
        seen.append("stored")
        store(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(code_cache, "load", spy_load)
    monkeypatch.setattr(code_cache, "store", spy_store)
    found = json.loads(run_command("bench", ECHO, "echo", "-i", "x", "--json", *SHORT).out)
    rounds = found["load"]["nothing cached"]["count"]
    assert seen.count("hit") >= rounds
    assert seen.count("stored") >= rounds
    assert {times["count"] for times in found["load"].values()} == {rounds}


def test_logs_and_output_are_dropped() -> None:
    """What the plugin prints and logs is not shown, however often it is called."""
    done = run_command("bench", WASI, "say", "-i", "hello", "--wasi", *SHORT)
    assert (done.code, done.err) == (0, "")
    assert "hello" not in done.out.decode().lower()


def test_hostile_names_are_escaped(evil: str) -> None:
    """The name of an export cannot write to the terminal."""
    done = run_command("bench", evil, "[red]\x1b[31mname", "-i", "", *SHORT)
    assert done.code == 0
    assert is_harmless(done.out.decode())


def test_grants_of_options(tmp_path: Path) -> None:
    """Config and directories are granted by options, as for `call`."""
    (tmp_path / "letter.txt").write_text("Dear reader")
    found = json.loads(
        run_command(
            "bench", WASI, "cat", "-i", "/data/letter.txt", "--json",
            "--allow-path", f"ro:{tmp_path}:/data", *SHORT,
        ).out
    )  # fmt: skip
    assert found["output_bytes"] == len("Dear reader")
    found = json.loads(
        run_command(
            "bench", COUNT, "count_vowels", "-i", "x", "-c", "vowels=x", "--json", *SHORT
        ).out
    )
    assert found["output_bytes"] == len(b'{"count":1,"total":1,"vowels":"x"}')


def test_exit_codes_of_failures() -> None:
    """A limit ends it with 3, an unknown function or file with 2, without figures."""
    for arguments, code in (
        ((ECHO, "spin", "--timeout", "50"), 3),
        ((ECHO, "nothing"), 2),
        (("missing.wasm", "echo"), 2),
        ((ECHO, "echo", "more"), 2),
    ):
        done = run_command("bench", *arguments, "-i" if "more" not in arguments else "--input", "x")
        assert (done.code, done.out) == (code, b""), arguments
        assert done.err.startswith("error: ")


@pytest.mark.parametrize("text", ["0", "0.09", "-1", "nan", "inf", "1_0", "٣", "", "5s", "3601"])
def test_seconds_are_checked(text: str) -> None:
    with pytest.raises(UsageProblem, match=r"^--seconds: expected seconds from 0\.1 to 3600"):
        options.parse_seconds("--seconds", text)


def test_seconds_may_have_a_fraction() -> None:
    assert options.parse_seconds("--seconds", "0.5") == 0.5
    assert options.parse_seconds("--seconds", "3600") == 3600
