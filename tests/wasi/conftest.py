"""A directory granted to a guest, and one beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from plugwasm._wasi.preview1 import Preopen
from tests.support.granted_directories import SECRET
from tests.support.wasi_guest import Guest


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Create base/root, which is granted, and base/outside, which is not."""
    (tmp_path / "root" / "sub" / "deep").mkdir(parents=True)
    (tmp_path / "root" / "file").write_bytes(b"0123456789")
    (tmp_path / "root" / "sub" / "inner").write_bytes(b"inner")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(SECRET)
    return tmp_path


@pytest.fixture
def guest(base: Path) -> Guest:
    return Guest(Preopen(base / "root", "/data"))
