"""`make bench` compares two revisions, each in a process that imports its own package."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import against
from benchmarks.cases import blocks
from benchmarks.measure import Block, Figure, Result, Row
from benchmarks.table import render
from tests.support.paths import ROOT

QUICK = 0.01


def block(title: str) -> Block:
    """The block of that row alone."""
    found = next(each for each in blocks(QUICK, []) for row in each.rows if row.title == title)
    return Block(found.title, [row for row in found.rows if row.title == title], budget=0.1, most=2)


@pytest.fixture
def revisions(tmp_path: Path) -> against.Revisions:
    return against.Revisions(tmp_path, "HEAD")


def test_both_sides_are_measured(revisions: against.Revisions) -> None:
    """A row is measured on both sides, under their names, with a ratio."""
    (result,) = revisions.measure(block("echo 10 B"), QUICK)
    assert len(result.ours.samples) == len(result.peer.samples) >= 1
    assert result.ratio is not None
    assert result.goal is None
    names = revisions.names
    assert names[0] == "working tree"
    assert names[1].startswith("HEAD ")
    assert all(name in render([("group", [result])], names) for name in names)


def test_each_side_has_its_package(tmp_path: Path, revisions: against.Revisions) -> None:
    """The other revision's package is its own files, this one's is the working tree."""
    this, other = revisions.folders.values()
    assert (this / "plugwasm").resolve() == ROOT / "plugwasm"
    assert not (other / "plugwasm").is_symlink()
    committed = subprocess.run(
        ["git", "show", "HEAD:plugwasm/_version.py"], cwd=ROOT, capture_output=True, check=True
    )
    assert (other / "plugwasm" / "_version.py").read_bytes() == committed.stdout
    (other / "plugwasm").rename(tmp_path / "gone")
    with pytest.raises(against.RevisionError, match="plugwasm was imported from"):
        revisions.measure(block("echo 10 B"), QUICK)


def test_a_slower_revision_is_told(revisions: against.Revisions) -> None:
    """A revision whose calls wait is measured as slower, by what it waits."""
    _, other = revisions.folders.values()
    plugin = other / "plugwasm" / "_runtime" / "plugin.py"
    slow = (
        "\n_quick = Plugin.call\ndef _slow(*args, **how):\n    import time\n    time.sleep(0.05)\n"
        "    return _quick(*args, **how)\nPlugin.call = _slow\n"
    )
    plugin.write_text(plugin.read_text("utf-8") + slow, "utf-8")
    (result,) = revisions.measure(block("echo 10 B"), QUICK)
    assert result.peer.median >= 0.05
    assert result.ratio is not None
    assert result.ratio.median > 1


def test_rows_that_a_side_lacks(
    revisions: against.Revisions, capfd: pytest.CaptureFixture[str]
) -> None:
    """A row that one side cannot run is left out, and said; the others are measured."""
    _, other = revisions.folders.values()
    pool = other / "plugwasm" / "_isolation" / "plugin.py"
    pool.write_text("raise ImportError('not here yet')\n", "utf-8")
    both = [
        block("echo 10 B").rows[0],
        block("IsolatedPlugin: start the worker process, call, close").rows[0],
    ]
    titles = [result.title for row in both for result in revisions.measure(block(row.title), QUICK)]
    assert titles == ["echo 10 B"]
    assert (
        "left out: IsolatedPlugin: start the worker process, call, close: HEAD "
        in capfd.readouterr().err
    )


@pytest.mark.parametrize("name", ["no-such-revision", "--help", "", "HEAD:plugwasm"])
def test_unknown_revisions_are_refused(name: str, tmp_path: Path) -> None:
    """What is no commit is refused; nothing that looks like an option reaches git as one."""
    with pytest.raises(against.RevisionError, match="git knows no revision"):
        against.Revisions(tmp_path, name)


def test_pairs_are_merged_by_row() -> None:
    """Samples of all pairs are one result, in their order; a row that a pair lacks is no result."""

    def result(title: str, *times: float) -> Result:
        return Result(title, "s", Figure(times), Figure(tuple(2 * each for each in times)), None)

    merged = against._merged([[result("a", 1, 2), result("b", 3)], [result("a", 4)]])
    assert [(one.title, one.ours.samples, one.peer.samples) for one in merged] == [
        ("a", (1, 2, 4), (2, 4, 8))
    ]


def test_no_process_is_left(revisions: against.Revisions) -> None:
    """The processes of both sides have ended after a block, also when a row fails."""

    def children() -> set[str]:
        listed = Path(f"/proc/self/task/{os.getpid()}/children")
        return set(listed.read_text().split()) if listed.exists() else set()

    before = children()
    revisions.measure(block("echo 10 B"), QUICK)
    missing = Block("no such group", [Row("no such row", lambda side: lambda: 0.0)])
    assert revisions.measure(missing, QUICK) == []
    assert children() <= before


def test_the_command_line_refuses() -> None:
    """`--against` with an unknown revision ends with one line and an exit code."""
    command = [sys.executable, "-m", "benchmarks", "--against", "nope", "--only", "echo 10 B"]
    done = subprocess.run(
        [*command, "--quick"], cwd=ROOT, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 2
    assert "git knows no revision 'nope'" in done.stderr
