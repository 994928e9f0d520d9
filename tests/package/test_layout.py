"""Where tests are, how long their files may be, and the modules that the package's rooms list."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

import pytest

from tests.support.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

ROOMS = sorted(path.parent for path in ROOT.glob("plugwasm/*/__init__.py"))


def test_test_files_have_at_most_800_lines() -> None:
    """No file of tests has more than 800 lines."""
    long = {
        str(path.relative_to(ROOT)): lines
        for path in ROOT.glob("tests/**/*.py")
        if (lines := path.read_text().count("\n")) > 800
    }
    assert not long, "split them by subject"


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_a_room_lists_its_modules(room: Path) -> None:
    """The docstring of a room's `__init__.py` has a line for each module."""
    listed = ast.get_docstring(ast.parse((room / "__init__.py").read_text())) or ""
    modules = {path.stem for path in room.glob("*.py")} - {"__init__"}
    assert {name for name in modules if not re.search(rf"^ *{name}  ", listed, re.M)} == set()
