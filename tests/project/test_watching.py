"""Watching a project: what counts as a change."""

from __future__ import annotations

import os
from pathlib import Path
from threading import Thread

import pytest

from plugwasm._project import watching
from plugwasm._project.watching import take_stamp, wait_for_change


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.c").write_text("a")
    (tmp_path / "plugin.toml").write_text("")
    return tmp_path


def stamp(folder: Path) -> dict[str, tuple[int, int]]:
    return take_stamp(str(folder), str(folder / "plugin.wasm"))


def test_sources_are_in_the_stamp(project: Path) -> None:
    """Files of the project, in folders of any depth."""
    (project / "src" / "b").mkdir()
    (project / "src" / "b" / "b.h").write_text("b")
    assert set(stamp(project)) == {
        str(project / name) for name in ("plugin.toml", "src/a.c", "src/b/b.h")
    }


@pytest.mark.parametrize("change", ["content", "new", "removed", "time"])
def test_changes_are_seen(project: Path, change: str) -> None:
    """Other bytes, a new file, one less, and a file of the same size that was written again."""
    before = stamp(project)
    file = project / "src" / "a.c"
    if change == "content":
        file.write_text("ab")
    elif change == "new":
        (project / "src" / "b.c").write_text("b")
    elif change == "removed":
        file.unlink()
    else:
        os.utime(file, ns=(1, 1))
    assert stamp(project) != before


@pytest.mark.parametrize(
    "name", ["plugin.wasm", ".git/index", "target/x", "node_modules/a.js", "Cargo.lock", "go.sum"]
)
def test_what_builds_write_is_no_change(project: Path, name: str) -> None:
    """A build that writes its output and locks versions is not built again for that."""
    before = stamp(project)
    (project / name).parent.mkdir(exist_ok=True)
    (project / name).write_text("x")
    assert stamp(project) == before


def test_links_do_not_lead_astray(project: Path) -> None:
    """A link to the folder above is no endless walk, and a dead one no error."""
    (project / "src" / "up").symlink_to(project)
    (project / "src" / "dead").symlink_to("nowhere")
    assert len(stamp(project)) < 5


def test_the_number_of_files_is_bounded(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder full of data does not keep the processor busy."""
    monkeypatch.setattr(watching, "MAX_FILES", 5)
    for number in range(20):
        (project / f"{number}.txt").write_text("")
    assert len(stamp(project)) == 5


def test_waiting_ends_with_a_change(project: Path) -> None:
    """A change before the wait began, which a build did not see, ends it at once."""
    before = stamp(project)
    (project / "src" / "a.c").write_text("changed")
    waiter = Thread(
        target=wait_for_change,
        args=(str(project), str(project / "plugin.wasm"), before),
        daemon=True,
    )
    waiter.start()
    waiter.join(30)
    assert not waiter.is_alive()
