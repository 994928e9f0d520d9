"""A hostile plugin, as a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.command_line import EVIL


@pytest.fixture
def evil(tmp_path: Path) -> str:
    path = tmp_path / "evil.wat"
    path.write_text(EVIL)
    return str(path)
