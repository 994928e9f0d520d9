"""Directory trees, some of which are granted."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.file_attacker import plant


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Create `granted` and `other`, trees to grant, and `outside`, which is never granted."""
    for name in ("granted", "other", "outside"):
        plant(tmp_path / name)
    (tmp_path / "outside" / "file").write_bytes(b"secret")
    return tmp_path
