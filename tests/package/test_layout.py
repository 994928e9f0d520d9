"""Where tests are, and how long their files may be."""

from __future__ import annotations

from tests.support.paths import ROOT


def test_no_file_of_tests_has_more_than_800_lines() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in ROOT.glob("tests/**/*.py")
        if (lines := path.read_text().count("\n")) > 800
    }
    assert not long, "split them by subject"
