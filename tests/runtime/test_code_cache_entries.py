"""Which entry of the cache of compiled code is a module's, and when the whole entry is read.

An entry has a copy of the module, which is compared. A large one is marked when its checksum was
right, so that not all of it is read at each load.
"""

from __future__ import annotations

import os
from pathlib import Path
from zlib import crc32

import pytest

from plugwasm._engine import Engine, wat_to_wasm
from plugwasm._runtime import code_cache
from tests.support.code_cache import (
    ONE,
    TWO,
    answer,
    compiled,
    entries,
    padded,
    put,
    put_code,
)

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "geteuid"), reason="the cache needs POSIX permissions"),
    pytest.mark.usefixtures("fresh_cache_settings"),
]


# ---- which entry is a module's -------------------------------------------------------------------


@pytest.mark.parametrize("change", [-100, -8, -1, 0, 1, 2**18])
def test_modules_of_any_size(change: int, folder: Path) -> None:
    """A module of any size is found, and one that differs only in its last byte is another one."""
    module = padded(wat_to_wasm(ONE), bytes(code_cache._CHUNK + change - len(wat_to_wasm(ONE))))
    for wasm in (module, module[:-1] + b"\1"):
        before = len(entries(folder)) if folder.exists() else 0
        for _ in range(2):
            assert answer(compiled(wasm)) == 1
            assert len(entries(folder)) == before + 1


def with_checksum_of(wasm: bytes, other: bytes) -> tuple[bytes, bytes]:
    """Return both modules with one more section of equal size, so that their CRC-32 is equal.

    The checksum is linear: each bit of the section changes it in its own way, whatever the rest is.
    """
    size = 8
    first, second = padded(wasm, bytes(size)), padded(other, bytes(size))
    wanted = crc32(first) ^ crc32(second)
    reduced: list[tuple[int, int]] = []  # what bits change, and which
    for bit in range(8 * size):
        bits = 1 << bit
        change = crc32(padded(other, bits.to_bytes(size, "big"))) ^ crc32(second)
        for known, of in reduced:
            if change ^ known < change:
                change, bits = change ^ known, bits ^ of
        if change:
            reduced.append((change, bits))
            reduced.sort(reverse=True)
    payload = 0
    for known, of in reduced:
        if wanted ^ known < wanted:
            wanted, payload = wanted ^ known, payload ^ of
    assert wanted == 0
    return first, padded(other, payload.to_bytes(size, "big"))


def test_modules_of_equal_checksums(folder: Path) -> None:
    """Modules with the same checksum and size are never taken for each other, and have entries of
    their own, so that none can push another one out.
    """
    one, two = with_checksum_of(wat_to_wasm(ONE), wat_to_wasm(TWO))
    assert (len(one), crc32(one)) == (len(two), crc32(two))
    assert [answer(compiled(wasm)) for wasm in (one, two)] == [1, 2]
    before = {path.name: path.stat().st_ino for path in entries(folder)}
    assert len(before) == 2
    assert [answer(compiled(wasm)) for wasm in (two, one, two)] == [2, 1, 2]
    assert {path.name: path.stat().st_ino for path in entries(folder)} == before


@pytest.mark.parametrize("size", [0, 10, code_cache.MARKED])
def test_loaded_code_has_its_own_size(size: int, folder: Path) -> None:
    """The module in an entry does not count as code, nor is it copied with the code."""
    wasm = padded(wat_to_wasm(ONE), bytes(size))
    first = compiled(wasm)
    second = compiled(wasm)
    assert second is not first
    assert second.code_bytes == first.code_bytes == len(first.serialize())
    assert second.resident_bytes == first.resident_bytes
    assert second.serialize() == first.serialize()
    assert answer(Engine().load(second.serialize())) == 1


def test_settings_are_compared(folder: Path) -> None:
    """Code for settings with the same checksum and size is not taken for each other's."""
    one, two = with_checksum_of(b"one", b"two")
    for settings in (one, two):
        code_cache.store(settings, b"module", b"code of " + settings, bytes(code_cache.NOTE))
    for settings in (one, two):
        with code_cache.load(settings, b"module") as entry:  # type: ignore[union-attr]
            assert Path(entry.path).read_bytes().startswith(b"code of " + settings)


# ---- marks ---------------------------------------------------------------------------------------


LARGE = padded(wat_to_wasm(ONE), bytes(code_cache.MARKED))


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the checksums of whole entries from now on."""
    checks: list[int] = []
    checksum = code_cache._checksum
    monkeypatch.setattr(
        code_cache, "_checksum", lambda file, size: checks.append(size) or checksum(file, size)
    )
    return checks


@pytest.fixture
def large(folder: Path) -> Path:
    """Replace the code of `LARGE` by that of another module, and return the path of the entry."""
    assert answer(compiled(LARGE)) == 1
    put_code(Engine().compile(wat_to_wasm(TWO)).serialize(), LARGE)
    (entry,) = entries(folder)
    try:
        os.getxattr(entry, code_cache._MARK)
    except (OSError, AttributeError):
        pytest.skip("files have no attributes here")
    return entry


def test_large_entry_is_checked_once(large: Path, checks: list[int]) -> None:
    """A large entry is read whole once, until the system is started anew."""
    with pytest.MonkeyPatch.context() as patch:
        for boot in (b"1" * 36, b"2" * 36):
            patch.setattr(code_cache, "_boot", lambda boot=boot: boot)
            checks.clear()
            assert [answer(compiled(LARGE)) for _ in range(3)] == [2, 2, 2]
            assert len(checks) == 1


@pytest.mark.parametrize("marked", [True, False])
def test_damaged_large_entry(marked: bool, large: Path) -> None:
    """A large entry that was changed after it was marked is checked, and compiled again."""
    content = bytearray(large.read_bytes())
    mark = os.getxattr(large, code_cache._MARK)
    content[5000] ^= 1
    put(large, bytes(content))
    if marked:
        os.setxattr(large, code_cache._MARK, mark)
    assert answer(compiled(LARGE)) == 1


@pytest.mark.parametrize("mark", [b"", b" ", b"0", b" 0", bytes(64), b"x" * 36 + b" 1", None])
def test_wrong_marks_count_nothing(
    mark: bytes | None, large: Path, checks: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An entry with another mark is checked, also where no mark could be made."""
    if mark is None:
        mark = b" %d" % large.stat().st_mtime_ns
    os.setxattr(large, code_cache._MARK, mark)
    if mark.startswith(b" "):
        monkeypatch.setattr(code_cache, "_boot", lambda: b"")
    assert answer(compiled(LARGE)) == 2
    assert len(checks) == 1


def test_truncated_marked_entry(large: Path) -> None:
    """A marked entry that lost its end is compiled again, though nobody reads all of it."""
    content = large.read_bytes()
    for size in (0, 100, 5000, len(content) // 2, len(content) - 1):
        put(large, content[:size])
        os.setxattr(large, code_cache._MARK, code_cache._boot() + b" %d" % large.stat().st_mtime_ns)
        assert answer(compiled(LARGE)) == 1


def test_file_system_without_attributes(
    large: Path, checks: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where files have no attributes, an entry is checked at each load."""

    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "getxattr", refuse)
    monkeypatch.setattr(os, "setxattr", refuse)
    assert [answer(compiled(LARGE)) for _ in range(2)] == [2, 2]
    assert len(checks) == 2


def test_old_marked_entry_is_touched(large: Path, checks: list[int]) -> None:
    """An old entry is marked as used, and is then still known to be right."""
    old = large.stat().st_mtime_ns - 2 * code_cache.DAY * 10**9
    os.utime(large, ns=(old, old))
    assert [answer(compiled(LARGE)) for _ in range(2)] == [2, 2]
    assert large.stat().st_mtime_ns > old
    assert len(checks) == 1
