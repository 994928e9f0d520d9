"""Where tests are, and how long their files may be."""

from __future__ import annotations

from tests.support.paths import ROOT


def test_test_files_have_at_most_800_lines() -> None:
    """No file of tests has more than 800 lines."""
    long = {
        str(path.relative_to(ROOT)): lines
        for path in ROOT.glob("tests/**/*.py")
        if (lines := path.read_text().count("\n")) > 800
    }
    assert not long, "split them by subject"
