"""Descriptors of a plugin's files in a process that closes all its descriptors and opens others,
as daemons do."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from plugwasm._wasi import abi
from plugwasm._wasi.abi import WasiError
from plugwasm._wasi.files import Directory, File, Preopen

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="directories are granted on POSIX systems only"
)


@pytest.fixture
def granted(tmp_path: Path) -> Path:
    (tmp_path / "granted").mkdir()
    (tmp_path / "granted" / "file").write_text("granted")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("other")
    return tmp_path / "granted"


@pytest.fixture
def preopen(granted: Path) -> Iterator[Preopen]:
    preopen = Preopen(granted, "/data")
    yield preopen
    preopen.close()


def replace_descriptor(fd: int, path: Path, flags: int = os.O_RDONLY) -> os.stat_result:
    """Make the descriptor refer to another file."""
    other = os.open(path, flags)
    os.dup2(other, fd)
    os.close(other)
    return os.fstat(fd)


def content(directory: Directory) -> bytes:
    file = directory.open(b"file", follow=True, oflags=0, fdflags=0, rights=abi.FD_READ)
    assert isinstance(file, File)
    buffer = bytearray(20)
    count = file.read([memoryview(buffer)], None)
    file.close()
    return bytes(buffer[:count])


def test_grant_reopened_after_close(preopen: Preopen) -> None:
    """A granted directory is reopened if its descriptor was closed."""
    directory = Directory.of_preopen(preopen)
    os.close(preopen.fd)
    assert content(directory) == b"granted"


def test_grant_reopened_after_reuse(preopen: Preopen, granted: Path) -> None:
    """A granted directory is reopened if its descriptor refers to another file."""
    directory, number = Directory.of_preopen(preopen), preopen.fd
    other = replace_descriptor(number, granted.parent / "other")
    assert content(directory) == b"granted"
    assert preopen.fd != number
    preopen.close()
    assert os.path.samestat(os.fstat(number), other)  # which nobody has closed
    os.close(number)


def test_grant_lost_when_path_moved(preopen: Preopen, granted: Path) -> None:
    """A grant is lost if its path now leads elsewhere."""
    directory = Directory.of_preopen(preopen)
    os.close(preopen.fd)
    granted.rename(granted.parent / "moved")
    (granted.parent / "other").rename(granted)
    for _ in range(2):
        with pytest.raises(WasiError) as caught:
            content(directory)
        assert caught.value.errno == abi.BADF


def test_grant_by_relative_path(granted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A grant by a relative path still works after the current directory changes."""
    monkeypatch.chdir(granted.parent)
    preopen = Preopen("granted", "/data")
    monkeypatch.chdir("/")
    os.close(preopen.fd)
    assert content(Directory.of_preopen(preopen)) == b"granted"
    preopen.close()


def test_open_files_are_not_confused(preopen: Preopen, granted: Path) -> None:
    """If the descriptor of an open file or directory refers to another file, it is not used."""
    (granted / "sub").mkdir()
    top = Directory.of_preopen(preopen)
    file = top.open(b"file", follow=True, oflags=0, fdflags=0, rights=abi.FD_READ | abi.FD_WRITE)
    directory = top.open(b"sub", follow=True, oflags=abi.O_DIRECTORY, fdflags=0, rights=abi.FD_READ)
    assert isinstance(file, File)
    assert isinstance(directory, Directory)
    numbers = file.fd, directory.fd
    others = (
        replace_descriptor(file.fd, granted.parent / "other" / "file", os.O_RDWR),
        replace_descriptor(directory.fd, granted.parent / "other"),
    )
    for use in (
        lambda: file.read([memoryview(bytearray(9))], None),
        lambda: file.read([memoryview(bytearray(9))], 0),
        lambda: file.write([memoryview(b"gone")], None),
        lambda: file.write([memoryview(b"gone")], 0),
        lambda: file.allocate(0, 100),
        lambda: file.set_append(True),
        lambda: file.fd,
        lambda: directory.list(1000),
        lambda: content(directory),
    ):
        with pytest.raises(WasiError) as caught:
            use()
        assert caught.value.errno == abi.BADF
    file.close()
    directory.close()
    del file, directory
    for number, other in zip(numbers, others, strict=True):
        assert os.path.samestat(os.fstat(number), other)
        os.close(number)
    assert (granted.parent / "other" / "file").read_text() == "other"
