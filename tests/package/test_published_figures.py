"""The figures in README.md and benchmarks/README.md are those of figures.json, and nothing else."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from benchmarks import cases, processes, published, scripts
from tests.support.paths import ROOT

FIGURES = msgspec.json.decode(published.FIGURES.read_bytes(), type=published.Figures)


def replace(row: str, **changes: object) -> published.Figures:
    """Return the figures with others in one row."""
    rows = [
        msgspec.structs.replace(line, **changes) if line.row == row else line
        for line in FIGURES.rows
    ]
    return published.Figures(FIGURES.about, rows)


def test_another_figure_changes_both_tables() -> None:
    """A figure that is different in the file is different in both pages, in its row only."""
    other = replace("echo 10 B", plugwasm=0.123)
    for table in (published.short_table, published.full_table):
        before, after = (table(figures).splitlines() for figures in (FIGURES, other))
        changed = [new for old, new in zip(before, after, strict=True) if old != new]
        assert len(changed) == 1
        assert "| 123 ms |" in changed[0]


def test_readme_shows_rows_that_are_measured(tmp_path: Path) -> None:
    """`make figures` finds each row of README.md among those that it measures."""
    blocks = [
        *processes.blocks(tmp_path, 1.0, []),
        *cases.blocks(1.0, []),
        *scripts.blocks(),
    ]
    published.check_rows(blocks)
    with pytest.raises(published.MissingRowError, match="process start to first output"):
        published.check_rows(blocks[1:])


def test_a_row_is_found_by_its_beginning() -> None:
    """The whole title comes first; a beginning of two titles is not taken for one of them."""
    titles = ["echo 10 B, observe=True", "echo 10 B", "echo 1 KB"]
    assert published.find("echo 10 B", titles) == 1
    assert published.find("echo 1 K", titles) == 2
    with pytest.raises(published.MissingRowError, match="3 rows"):
        published.find("echo", titles)


def test_the_section_must_be_there(tmp_path: Path) -> None:
    """A page without the comments around its figures is an error, not a page without figures."""
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- figures -->\n| 1 |\n<!-- end of figures -->\nafter\n")
    assert (
        published.fill(page, r"\1" + "\n")
        == "before\n<!-- figures -->\n\\1\n<!-- end of figures -->\nafter\n"
    )
    page.write_text("| 1 |\n")
    with pytest.raises(ValueError, match="one section of figures, got 0"):
        published.fill(page, "")


def test_speed_section_has_no_other_figures() -> None:
    """Outside of the generated table the section has no times or ratios."""
    text = published.fill(ROOT / "README.md", "")
    section = text[text.index("## Speed") :]
    assert not re.findall(r"\d\s*(?:ns|µs|ms|s|×|%)(?!\w)|\d times|\d\s*MB", section)


@pytest.mark.parametrize("option", ["--quick", "--only=echo", "--against=HEAD"])
def test_a_part_is_not_published(option: str) -> None:
    """Figures of a short run, or of some rows, do not get into the pages."""
    command = [sys.executable, "-m", "benchmarks", "--publish", option]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "--publish is for a whole run" in done.stderr
