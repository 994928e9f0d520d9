"""Generated pages are up to date; decisions are numbered and linked."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))
DIRECTORIES = ("benchmarks", "changelog.d", "conformance", "docs", "examples", "fuzz", "pdk")
APART = {"node_modules", "target", "growth"}
"""Packages that a build has fetched, and the template of docs/performance.md."""
MARKDOWN = sorted(
    page
    for page in [
        *ROOT.glob("*.md"),
        *(page for name in DIRECTORIES for page in (ROOT / name).glob("**/*.md")),
    ]
    if not APART & set(page.parts)
)
LINK = re.compile(r"\]\((?!https?:)<?([^)>#\s]*)#?([^)>]*)>?\)|<img [^>]*src=\"([^\":]+)\"")


def test_generated_pages_are_current() -> None:
    """docs/decisions.md and docs/reference/errors.md are what `make docs` writes."""
    command = [sys.executable, str(ROOT / "docs" / "generate.py"), "--check"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr


def test_decisions_are_numbered() -> None:
    """Decisions are numbered without gaps, in the file's name, its heading and its sections."""
    assert DECISIONS
    for number, page in enumerate(DECISIONS, start=1):
        text = page.read_text("utf-8")
        assert page.name.startswith(f"{number:04}-"), page.name
        assert text.startswith(f"# {number}. "), page.name
        assert re.search(r"^Area: \w", text, re.MULTILINE), page.name
        sections = re.findall(r"^## (\S+)", text, re.MULTILINE)
        assert sections == [f"{number}.{part}" for part in range(1, len(sections) + 1)], page.name


def test_references_to_decisions_exist() -> None:
    """A reference such as "docs/decisions.md, 12" in code names a decision that exists."""
    found = 0
    for path in [*ROOT.glob("plugwasm/**/*.py"), *ROOT.glob("tests/**/*.py")]:
        for number in re.findall(r"docs/decisions\.md`?,\s(\d+)", path.read_text("utf-8")):
            found += 1
            assert 1 <= int(number) <= len(DECISIONS), (
                f"{path.relative_to(ROOT)} refers to decision {number}"
            )
    assert found


@pytest.mark.parametrize("page", MARKDOWN, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_headings(page: Path) -> None:
    """Relative links of a page lead to a file, and their fragments to a heading or an anchor."""
    for target, fragment, image in LINK.findall(without_code(page)):
        goal = (page.parent / (target or image)).resolve() if target or image else page
        assert goal.exists(), f"it links to {target or image}"
        if fragment and goal.suffix == ".md":
            assert fragment in anchors(goal), f"it links to {target}#{fragment}"


@pytest.mark.parametrize("page", MARKDOWN, ids=lambda page: str(page.relative_to(ROOT)))
def test_headings_go_down_one_by_one(page: Path) -> None:
    """A heading is at most one level below the one before it."""
    levels = [len(marks) for marks in re.findall(r"^(#+) ", without_code(page), re.MULTILINE)]
    assert all(after <= before + 1 for before, after in pairwise(levels)), levels


def test_readme_leads_to_every_page() -> None:
    """Each page of docs/ is linked in README.md, or in a page that is."""
    found, new = set(), {ROOT / "README.md"}
    while new:
        found |= new
        links = {
            (page.parent / target).resolve()
            for page in new
            for target, _, _ in LINK.findall(without_code(page))
            if target.endswith(".md")
        }
        new = links - found
    assert {page for page in MARKDOWN if page.is_relative_to(ROOT / "docs")} <= found | {
        ROOT / "docs" / "decisions" / "template.md"
    }


def without_code(page: Path) -> str:
    """Return the text of a page without its blocks of code."""
    return re.sub(r"^ *```.*?^ *```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page: explicit ones, and GitHub's for its headings."""
    text = without_code(page)
    names: dict[str, int] = {}
    made = set(re.findall(r'<a id="([^"]+)"', text))
    for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        name = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        names[name] = names.get(name, -1) + 1
        made.add(f"{name}-{names[name]}" if names[name] else name)
    return made


def test_changelog_fragment_types() -> None:
    """Changelog fragments have known types.

    Each fragment is named after an issue or a topic, has a type of pyproject.toml, and has text.
    """
    config = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["towncrier"]
    types = "|".join(entry["directory"] for entry in config["type"])
    for fragment in (ROOT / config["directory"]).iterdir():
        if fragment.name != "README.md":
            assert re.fullmatch(rf"(\d+|\+[\w-]+)\.({types})\.md", fragment.name), fragment.name
            assert fragment.read_text("utf-8").strip(), fragment.name
