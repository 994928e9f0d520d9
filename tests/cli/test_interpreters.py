"""`plugwasm cache` knows the interpreters of scripts: it counts, builds and removes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from plugwasm._script import engine, engine_build
from plugwasm._script.languages import LANGUAGES, Language
from tests.support.command_line import run_command


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and compilers that are done at once."""
    monkeypatch.setenv("PLUGWASM_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("PLUGWASM_ENGINES")
    monkeypatch.setattr(engine, "_engines", {})
    monkeypatch.setattr(engine, "Engine", lambda language, module: module)
    monkeypatch.setattr(engine, "boot", lambda language, compiled: compiled + b"!")

    def compile(into: Path, language: Language) -> bytes:
        return language.name.encode()

    monkeypatch.setattr(engine_build, "_compile", compile)
    return tmp_path / "cache"


def test_interpreters_are_built(cache: Path) -> None:
    """Those that are missing are built, and all are shown, with where they are."""
    first = run_command("cache", "interpreters")
    assert first.code == 0
    lines = first.out.decode().splitlines()
    files = [Path(line.split(maxsplit=1)[1]) for line in lines]
    assert [line.split()[0] for line in lines] == [one.title for one in LANGUAGES.values()]
    assert [file.read_bytes() for file in files] == [b"javascript!", b"python!"]
    assert run_command("cache", "interpreters").out == first.out
    assert (
        f"{cache}/engines: 2 interpreters of scripts, 0.0 MiB" in run_command("cache").out.decode()
    )


def test_interpreters_are_removed_if_asked(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`clear` leaves them, since building takes a minute; `--interpreters` removes them, but not
    from a folder that somebody named.
    """
    run_command("cache", "interpreters")
    run_command("cache", "clear")
    assert len(list((cache / "engines").glob("*.wasm"))) == 2
    monkeypatch.setenv("PLUGWASM_ENGINES", str(cache / "engines"))
    kept = run_command("cache", "clear", "--interpreters")
    assert "PLUGWASM_ENGINES names" in kept.err
    assert len(list((cache / "engines").glob("*.wasm"))) == 2
    monkeypatch.delenv("PLUGWASM_ENGINES")
    cleared = run_command("cache", "clear", "--interpreters")
    assert b"removed 2 interpreters of scripts" in cleared.out
    assert list((cache / "engines").glob("*.wasm")) == []
