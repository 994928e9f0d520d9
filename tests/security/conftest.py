"""Trees of files, some of which are granted."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.file_attacker import plant


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """`granted`, `other`: trees to grant. `outside`: what nobody granted."""
    for name in ("granted", "other", "outside"):
        plant(tmp_path / name)
    (tmp_path / "outside" / "file").write_bytes(b"secret")
    return tmp_path
