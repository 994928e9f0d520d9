"""The engine: found, built once, kept, and what happens where that cannot be."""

from __future__ import annotations

import multiprocessing
import os
import shutil
from pathlib import Path

import pytest

from plugwasm import SourceError
from plugwasm._script import engine_build, pins, snapshots
from plugwasm._script.boot import boot
from plugwasm._script.engine import Engine, get_engine
from plugwasm._script.engine_build import digest_of_sources, engine_folder, find_or_build
from plugwasm._script.javascript import recipe
from plugwasm._script.languages import LANGUAGES, Language

JAVASCRIPT = LANGUAGES["javascript"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of engines."""
    monkeypatch.setenv("PLUGWASM_ENGINES", str(tmp_path / "engines"))
    return tmp_path / "engines"


def never(compiled: bytes) -> bytes:
    raise AssertionError("nothing is to be built")


def test_kept_engine_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that was built is kept under the digest of its sources, and found again."""
    builds = []

    def compile(into: Path, language: Language) -> bytes:
        builds.append(into)
        return b"compiled"

    monkeypatch.setattr(engine_build, "_compile", compile)
    assert find_or_build(JAVASCRIPT, lambda compiled: compiled + b"!") == b"compiled!"
    assert find_or_build(JAVASCRIPT, never) == b"compiled!"
    assert builds == [folder]
    (kept,) = folder.glob("*.wasm")
    assert digest_of_sources(JAVASCRIPT) in kept.name
    kept.write_bytes(b"changed")
    assert find_or_build(JAVASCRIPT, lambda compiled: compiled + b"!") == b"compiled!"
    assert len(builds) == 2


def test_new_cache_folder_is_private(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder above, the cache of compiled code, is not used if others have access to it."""
    monkeypatch.setenv("PLUGWASM_CACHE", str(folder / "cache"))
    monkeypatch.delenv("PLUGWASM_ENGINES")
    monkeypatch.setattr(engine_build, "_compile", lambda into, language: b"compiled")
    find_or_build(JAVASCRIPT, lambda compiled: compiled)
    made = folder / "cache", folder / "cache" / "engines"
    assert [one.stat().st_mode & 0o777 for one in made] == [0o700, 0o700]


def test_named_folder_is_for_all(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an image was built with can be read by the user who runs it, and written by no other."""
    monkeypatch.setattr(engine_build, "_compile", lambda into, language: b"compiled")
    before = os.umask(0)
    try:
        find_or_build(JAVASCRIPT, lambda compiled: compiled)
    finally:
        os.umask(before)
    (file,) = folder.glob("*.wasm")
    assert [one.stat().st_mode & 0o777 for one in (folder, file)] == [0o755, 0o644]
    assert find_or_build(JAVASCRIPT, never) == b"compiled"


def _build(folder: Path, started: object) -> bytes:
    def compile(into: Path, language: Language) -> bytes:
        (folder / "started").open("a").write("x")
        import time

        time.sleep(0.2)
        return b"compiled"

    engine_build._compile = compile  # type: ignore[assignment]
    return find_or_build(JAVASCRIPT, lambda compiled: compiled)


def test_one_process_builds(folder: Path) -> None:
    """Of processes that need an engine at once, one builds it."""
    folder.mkdir()
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        found = pool.starmap(_build, [(folder, None)] * 3)
    assert found == [b"compiled"] * 3
    assert (folder / "started").read_text() == "x"


def test_failed_build_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A build that fails keeps nothing, and the next one starts anew."""
    monkeypatch.setattr(engine_build, "check_compiler", lambda language: None)
    monkeypatch.setattr(recipe, "_pip", lambda: ["false"])
    with pytest.raises(SourceError, match="the sources of QuickJS and ada cannot be downloaded"):
        find_or_build(JAVASCRIPT, never)
    assert [file.suffix for file in folder.iterdir()] == [".lock"]


def test_missing_compiler(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the compiler is missing, or is another one, the error says what to install."""
    from importlib import metadata

    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    with pytest.raises(SourceError, match=r"pip install 'plugwasm\[script\]'"):
        find_or_build(JAVASCRIPT, never)
    monkeypatch.setattr(metadata, "version", lambda name: "0.0.1")
    with pytest.raises(SourceError, match=r"ziglang 0\.17\.1, but 0\.0\.1 is installed"):
        find_or_build(JAVASCRIPT, never)


def test_folder_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where engines cannot be kept, the error says where, and how to name another folder."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PLUGWASM_ENGINES", str(tmp_path / "file" / "engines"))
    with pytest.raises(SourceError, match=r"cannot be kept in .*file.*PLUGWASM_ENGINES"):
        find_or_build(JAVASCRIPT, never)
    monkeypatch.delenv("PLUGWASM_ENGINES")
    monkeypatch.setenv("PLUGWASM_CACHE", "off")
    with pytest.raises(SourceError, match="PLUGWASM_ENGINES"):
        engine_folder()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", sorted(LANGUAGES))
def test_engine_is_reproducible(name: str, tmp_path: Path) -> None:
    """Built once more, in another folder, the engine is the same byte by byte. It takes long,
    because the compiler runs.
    """
    if shutil.which("false") is None:
        pytest.skip("needs a system with ordinary commands")
    try:
        compiled = engine_build._compile(tmp_path, LANGUAGES[name])
    except SourceError as error:
        pytest.skip(f"the engine cannot be built here: {error}")
    assert boot(LANGUAGES[name], compiled) == get_engine(name).wasm


def test_memory_of_engine_is_read_back() -> None:
    """The memory that is read from the module is the one that an instance starts with."""
    engine = get_engine("javascript")
    other = Engine(JAVASCRIPT, engine.wasm)
    assert other.heap == engine.heap
    assert len(engine.heap) == engine.pages * snapshots.PAGE - pins.STACK_BYTES
    assert b"Maximum call stack" in engine.heap


@pytest.mark.parametrize("gap", [1, 64, 1024, 65536])
def test_changes_rebuild_a_memory(gap: int) -> None:
    """What was changed, put over the old memory, is the new one."""
    from random import Random

    random = Random(gap)
    before = bytes(random.choices(b"\0\0\0\1", k=3 * snapshots.PAGE))
    for count in (0, 1, 50, 5000):
        after = bytearray(before) + bytes(snapshots.PAGE)
        for _ in range(count):
            after[random.randrange(len(after))] = random.randrange(256)
        rebuilt = bytearray(before) + bytes(snapshots.PAGE)
        end = -gap
        for offset, content in snapshots.find_changes(before, bytes(after), gap):
            offset -= pins.STACK_BYTES
            assert offset - end >= gap
            rebuilt[offset : offset + len(content)] = content
            end = offset + len(content)
        assert rebuilt == after
