"""The pages for plugin authors, docs/plugins/: each block runs in order, and prints what it shows.

A block with `title="FILE"` is written to that file: the first of a page replaces the file, others
are added to it. A shell block runs in the directory that the one before ended in, a Python block
there too. A `text` block is the output of the block before it; `…` stands for anything. A block
below the comment `<!-- not run: … -->` is only shown.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from plugwasm._project.languages import LANGUAGES
from tests.support.paths import ROOT
from tests.support.toolchains import require_language

PAGES = sorted((ROOT / "docs" / "plugins").glob("*.md"))
BLOCK = re.compile(
    r"^(?P<skip><!-- not run: [^\n]+ -->\n)?```(?P<kind>\w+)(?: title=\"(?P<title>[^\"]+)\")?\n"
    r"(?P<code>.*?)^```\n(?:\n```text\n(?P<output>.*?)^```\n)?",
    re.DOTALL | re.MULTILINE,
)


class Block(NamedTuple):
    kind: str
    code: str
    title: str | None
    output: str | None
    skipped: bool


def blocks(page: Path) -> list[Block]:
    """Return the blocks of a page."""
    text = page.read_text("utf-8")
    found = [
        Block(part["kind"], part["code"], part["title"], part["output"], part["skip"] is not None)
        for part in BLOCK.finditer(text)
    ]
    shown = sum(block.output is not None for block in found) + len(found)
    assert text.count("\n```") == 2 * shown, "a block has another shape"
    return found


class Reader:
    """Somebody who types what a page says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.written: set[Path] = set()
        tools = os.path.dirname(sys.executable)
        self.environment = {
            key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")
        } | {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", "PYTHONWARNINGS": "ignore"}

    def follow(self, block: Block) -> None:
        """Do what a block says, and compare what it prints."""
        if block.title is not None:
            self.write(self.folder / block.title, block.code)
            return
        if block.kind == "sh":
            where = self.folder.parent / "where"
            command = ["bash", "-euc", f"{block.code}\npwd > {where}"]
            printed = self.run(command)
            self.folder = Path(where.read_text().strip())
            where.unlink()
        else:
            assert block.kind == "python", f"what is a block of {block.kind} for?"
            printed = self.run([sys.executable, "-c", block.code])
        if block.output is not None:
            pattern = re.escape(block.output.strip()).replace("…", ".*")
            assert re.fullmatch(pattern, printed.strip()), f"printed:\n{printed}"

    def write(self, file: Path, code: str) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        before = file.read_text() + "\n" if file in self.written else ""
        file.write_text(before + code)
        self.written.add(file)

    def run(self, command: list[str]) -> str:
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )
        assert done.returncode == 0, f"{command[-1]}\n{done.stdout}{done.stderr}"
        return done.stdout


@pytest.mark.slow(reason="compiles plugins with other languages' toolchains")
@pytest.mark.toolchain
@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_can_be_followed(page: Path, tmp_path: Path) -> None:
    """From nothing to a tested plugin, by the blocks of the page alone."""
    require_language(page.stem)
    (tmp_path / "work").mkdir()
    reader = Reader(tmp_path / "work")
    for block in blocks(page):
        if not block.skipped:
            reader.follow(block)


def test_each_language_has_a_page() -> None:
    """Each language of `plugwasm new` has one, which the index names."""
    index = (ROOT / "docs" / "plugins.md").read_text("utf-8")
    assert {page.stem for page in PAGES} == {*LANGUAGES}
    for page in PAGES:
        assert f"(plugins/{page.name})" in index
        assert len(page.read_text("utf-8").splitlines()) < 200, page.name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_shows_every_part(page: Path) -> None:
    """No page leaves out a part of the kit, or runs none of its blocks."""
    text = page.read_text("utf-8")
    for word in (
        "config",
        "JSON",
        "Vars",
        "HTTP",
        "log",
        "Host functions",
        "[[test.http]]",
        "publish",
    ):
        assert word in text, word
    kinds = [block.kind for block in blocks(page) if not block.skipped]
    assert kinds.count("sh") >= 2
    assert kinds.count("python") >= 2
