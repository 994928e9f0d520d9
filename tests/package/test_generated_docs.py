"""Generated pages are up to date; decisions are numbered and linked."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))
MARKDOWN = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("changelog.d/*.md")])


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


def test_links_lead_to_headings() -> None:
    """Relative links of all pages lead to a file, and their fragments to a heading or an anchor."""
    for page in MARKDOWN:
        for target, fragment in re.findall(
            r"\]\((?!https?:)([^)#\s]*)#?([^)]*)\)", page.read_text("utf-8")
        ):
            goal = (page.parent / target).resolve() if target else page
            assert goal.exists(), f"{page.relative_to(ROOT)} links to {target}"
            if fragment and goal.suffix == ".md":
                assert fragment in anchors(goal), (
                    f"{page.relative_to(ROOT)} links to {target}#{fragment}"
                )


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page: explicit ones, and GitHub's for its headings."""
    text = page.read_text("utf-8")
    headings = re.findall(
        r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE
    )
    made = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return made | set(re.findall(r'<a id="([^"]+)"', text))


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
