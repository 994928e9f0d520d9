"""The folder of engines: what is used of it, what is removed, and builds that are interrupted."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from plugwasm import SourceError
from plugwasm._script import engine, engine_build, engine_store, progress
from plugwasm._script.engine_build import digest_of_sources, find_or_build
from plugwasm._script.languages import LANGUAGES, Language
from tests.support.paths import ROOT

JAVASCRIPT = LANGUAGES["javascript"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of engines that somebody named."""
    monkeypatch.setenv("PLUGWASM_ENGINES", str(tmp_path / "engines"))
    (tmp_path / "engines").mkdir()
    return tmp_path / "engines"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of engines in the cache."""
    monkeypatch.delenv("PLUGWASM_ENGINES")
    monkeypatch.setenv("PLUGWASM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache" / "engines").mkdir(parents=True)
    return tmp_path / "cache" / "engines"


def put(folder: Path, content: bytes, sources: str | None = None) -> Path:
    """Keep these bytes as an engine."""
    sources = sources or digest_of_sources(JAVASCRIPT)
    path = folder / f"javascript-{sources}-{hashlib.sha256(content).hexdigest()}.wasm"
    path.write_bytes(content)
    return path


def never(compiled: bytes) -> bytes:
    raise AssertionError("nothing is to be built")


def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    def compile(into: Path, language: Language) -> bytes:
        raise SourceError("there is no compiler")

    monkeypatch.setattr(engine_build, "_compile", compile)


def test_changed_engine_is_not_used(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A file with other content than its name says is not used, and the log says which."""
    path = put(folder, b"engine")
    assert find_or_build(JAVASCRIPT, never) == b"engine"
    path.write_bytes(b"another")
    no_compiler(monkeypatch)
    with pytest.raises(SourceError, match=r"no compiler; PLUGWASM_ENGINES names .*engines, which"):
        find_or_build(JAVASCRIPT, never)
    assert path.name in caplog.text
    assert "does not have the digest that its name says" in caplog.text


def test_folder_that_all_can_write(folder: Path) -> None:
    """Nothing is read from a folder into which every user could put something."""
    put(folder, b"engine")
    folder.chmod(0o777)
    with pytest.raises(SourceError, match="can be written by all users"):
        find_or_build(JAVASCRIPT, never)
    folder.chmod(0o1777)
    with pytest.raises(SourceError, match="can be written by all users"):
        find_or_build(JAVASCRIPT, never)
    folder.chmod(0o555)
    assert find_or_build(JAVASCRIPT, never) == b"engine"


def test_cache_that_all_can_write(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is read from, or built into, a folder that every user could exchange for another."""
    put(cache, b"engine")
    assert find_or_build(JAVASCRIPT, never) == b"engine"
    cache.parent.chmod(0o777)
    for _ in range(2):
        with pytest.raises(SourceError, match=r"cache can be written by all users.*chmod go-rwx"):
            find_or_build(JAVASCRIPT, never)
        shutil.rmtree(cache, ignore_errors=True)
    cache.parent.chmod(0o1777)  # others cannot rename what is not theirs
    cache.mkdir(exist_ok=True)
    put(cache, b"engine")
    assert find_or_build(JAVASCRIPT, never) == b"engine"


@pytest.mark.parametrize("foreign", ["cache", "engines"])
def test_cache_of_another_user(foreign: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache that a stranger has made where the user's is expected is not used for interpreters."""
    put(cache, b"engine")
    stat = os.stat

    def foreign_stat(path: object, **options: object) -> os.stat_result:
        fields = list(stat(path, **options)[:10])  # type: ignore[call-overload]
        fields[4] = 4711 if os.path.basename(os.fspath(path)) == foreign else fields[4]  # type: ignore[call-overload]
        return os.stat_result(fields)

    monkeypatch.setattr(engine_store.os, "stat", foreign_stat)
    with pytest.raises(SourceError, match=rf"{foreign} belongs to user 4711.*PLUGWASM_ENGINES"):
        find_or_build(JAVASCRIPT, never)
    monkeypatch.setenv("PLUGWASM_ENGINES", str(cache))
    assert find_or_build(JAVASCRIPT, never) == b"engine"


@pytest.mark.parametrize("kind", ["writable", "large", "pipe", "folder", "link to nothing"])
def test_files_that_are_no_engines(
    folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What has the name of an engine and is none is left out, without waiting for it."""
    path = put(folder, b"engine")
    if kind == "writable":
        path.chmod(0o666)
    elif kind == "large":
        monkeypatch.setattr(engine_store, "MAX_BYTES", 5)
    else:
        path.unlink()
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        else:
            path.symlink_to("nothing")
    no_compiler(monkeypatch)
    with pytest.raises(SourceError, match="no compiler"):
        find_or_build(JAVASCRIPT, never)
    assert "is not used: " in caplog.text


def test_engine_of_another_user(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of another user than this one, the owner of the folder and root is not used."""
    path = put(folder, b"engine")
    me = os.geteuid()
    for owner, of_folder, is_used in ((me, me, True), (0, me, True), (4711, 4711, True),
                                      (4711, me, False)):  # fmt: skip
        monkeypatch.setattr(engine_store, "_check_place", lambda place, to=of_folder: to)
        status = os.stat(path)
        fields = list(status[:10])
        fields[4] = owner
        monkeypatch.setattr(os, "fstat", lambda number, to=tuple(fields): os.stat_result(to))
        try:
            found = engine_store.find_engine(folder, "javascript", digest_of_sources(JAVASCRIPT))
        finally:
            monkeypatch.undo()
        assert (found is not None) == is_used


@pytest.mark.parametrize(
    "content", [b"", b"engine", b"\0asm\1\0\0\0", b"\0asm\1\0\0\0\5\3\1\0\xff", b"\0asm" * 50]
)
def test_engine_that_is_none(folder: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    """Bytes that have the right digest, and are no engine, are a typed error."""
    put(folder, content)
    monkeypatch.setattr(engine, "_engines", {})
    with pytest.raises(SourceError, match="the interpreter of JavaScript that is kept in"):
        engine.get_engine("javascript")


def test_old_engines_are_removed(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache keeps those that were used last, and no locks of earlier versions."""
    old = [put(cache, b"%d" % number, f"{number:024x}") for number in range(20)]
    for number, path in enumerate(old):
        os.utime(path, (1000 + number, 1000 + number))
    other = cache / f"python-{'0' * 24}-{'0' * 64}.wasm"
    left = cache / f"javascript-{'0' * 24}.lock"
    for path in other, left:
        path.touch()
        os.utime(path, (0, 0))
    sources = f"{3:024x}"
    assert engine_store.find_engine(cache, "javascript", sources) == (old[3], b"3")
    monkeypatch.setattr(engine_build, "_compile", lambda into, language: b"compiled")
    find_or_build(JAVASCRIPT, lambda compiled: compiled)
    kept = {path.read_bytes() for path in cache.glob("javascript-*.wasm")}
    assert kept == {b"compiled", b"3", *(b"%d" % number for number in range(14, 20))}
    assert other.exists()
    assert not left.exists()


def test_named_folder_is_left_as_it_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is removed from a folder that somebody named."""
    for number in range(20):
        put(folder, b"%d" % number, f"{number:024x}")
    monkeypatch.setattr(engine_build, "_compile", lambda into, language: b"compiled")
    find_or_build(JAVASCRIPT, lambda compiled: compiled)
    assert len(list(folder.glob("*.wasm"))) == 21
    assert engine_store.clear_engines() == []


def test_kept_engine_needs_no_writing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine is read from a folder that cannot be written, and its use is noted where it can."""
    path = put(folder, b"engine")
    os.utime(path, (1000, 1000))
    assert find_or_build(JAVASCRIPT, never) == b"engine"
    assert path.stat().st_mtime > 1000

    def fail(*arguments: object, **more: object) -> None:
        raise OSError(30, "Read-only file system")

    os.utime(path, (1000, 1000))
    for name in ("utime", "mkdir", "replace"):
        monkeypatch.setattr(os, name, fail)
    assert find_or_build(JAVASCRIPT, never) == b"engine"
    path.unlink()
    monkeypatch.setattr(engine_build, "_compile", lambda into, language: b"compiled")
    with pytest.raises(SourceError, match=r"cannot be kept in .*: Read-only file system; name an"):
        find_or_build(JAVASCRIPT, lambda compiled: compiled)


SLOW_BUILD = """
import sys
from dataclasses import replace
from plugwasm._script import engine_build, languages

def compile(place):
    print("compiling", flush=True)
    engine_build.run_tool([sys.executable, "-c", "import time; time.sleep(60)"], place, "it failed")

engine_build.check_compiler = lambda language: None
engine_build.find_or_build(replace(languages.LANGUAGES["javascript"], compile=compile), lambda c: c)
"""


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGKILL])
def test_build_that_was_interrupted(
    folder: Path, monkeypatch: pytest.MonkeyPatch, by: signal.Signals
) -> None:
    """After Ctrl-C, or a process that was killed, the next build starts anew and leaves nothing."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", SLOW_BUILD],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"compiling\n"
        (scratch,) = folder.glob(".build-javascript-*")
        os.killpg(process.pid, by)
        _, errors = process.communicate()
    if by == signal.SIGINT:
        assert errors.rstrip().endswith(b"KeyboardInterrupt")
        assert not scratch.exists()
    else:
        assert scratch.exists()
    from dataclasses import replace

    monkeypatch.setattr(engine_build, "check_compiler", lambda language: None)
    again = replace(JAVASCRIPT, compile=lambda place: b"compiled")
    assert find_or_build(again, lambda compiled: compiled) == b"compiled"
    assert {path.suffix for path in folder.iterdir()} == {".lock", ".wasm"}
    assert not scratch.exists()


def test_tool_that_cannot_run(tmp_path: Path) -> None:
    """A tool that is missing or fails is a typed error, with what it said."""
    with pytest.raises(SourceError, match=r"it failed: .*No such file"):
        engine_build.run_tool([str(tmp_path / "none")], tmp_path, "it failed")
    program = "import sys; sys.exit('why')"
    with pytest.raises(SourceError, match="it failed: why"):
        engine_build.run_tool([sys.executable, "-c", program], tmp_path, "it failed")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal shows one line, which is written over and removed; no line of it is too long."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(progress, "monotonic", iter([0.0, 0.0, 0.9, 12.0, 100.0]).__next__)
    with progress.task("building it"):
        progress.show("compiling")
        progress.tick()
        progress.show("starting it, which has a long name")
    shown = [part for part in terminal.getvalue().split("\r") if part]
    assert shown == [
        "plugwasm: building it: 0 s",
        "plugwasm: building it: 0 s, compiling",
        "plugwasm: building it: 12 s, compiling",
        "plugwasm: building it: 100 s".ljust(38),
        " " * 28,
    ]
    progress.show("nothing is being done")
    assert terminal.getvalue().count("\r") == 6


def test_progress_without_a_terminal(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Elsewhere nothing is written, and the log has a record."""
    caplog.set_level(logging.INFO, "plugwasm.scripts")
    with progress.task("building it"):
        progress.show("compiling")
    assert capsys.readouterr() == ("", "")
    assert caplog.messages == ["building it"]


def test_waiting_for_another_build(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A process that waits for another one says so."""
    caplog.set_level(logging.INFO, "plugwasm.scripts")
    program = (
        "import fcntl, sys, time; file = open(sys.argv[1], 'ab'); fcntl.flock(file, fcntl.LOCK_EX);"
        "print('locked', flush=True); time.sleep(0.5)"
    )
    command = [sys.executable, "-c", program, str(folder / "javascript.lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with engine_store.locked(folder, "javascript"):
            assert process.wait() == 0
    assert caplog.messages == ["waiting for another process, which builds the interpreter"]
