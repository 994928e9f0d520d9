"""How type checkers see the public API: `tests/typing/` states the type of each expression and
which lines are errors. The examples and the code in the README and in `docs/` are checked too.

A line of `tests/typing/` that must be an error has two comments, `# type: ignore[…]` for mypy and
`# pyright: ignore[…]` for pyright. Each checker reports a comment that it does not need.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.support.paths import ROOT

CASES = sorted(ROOT.glob("tests/typing/*.py"))
EXAMPLES = sorted(ROOT.glob("examples/**/*.py"))
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]

# Pages run on from block to block, so a name may become something else; and they leave annotations
# out where those say nothing. One imports a module that it has generated.
MYPY_FOR_PAGES = '# mypy: allow-redefinition, allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, disable-error-code="no-redef, import-not-found"'
PYRIGHT_FOR_PAGES = "# pyright: reportRedeclaration=false, reportMissingImports=false"


@pytest.fixture
def pages(tmp_path: Path) -> list[Path]:
    """Return the Python code of each page, each line at its original line number."""
    written = []
    for page in PAGES:
        lines, in_python = [], False
        for line in page.read_text().splitlines():
            in_python = (in_python or line == "```python") and line != "```"
            lines.append(line if in_python and line != "```python" else "")
        if any(lines):
            assert not any(lines[:2])
            lines[:2] = MYPY_FOR_PAGES, PYRIGHT_FOR_PAGES
            written.append(tmp_path / f"{page.stem.lower()}_page.py")
            written[-1].write_text("\n".join([*lines, ""]))
    return written


def check(module: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    if find_spec(module) is None and os.environ.get("CI") != "true":
        pytest.skip(f"{module} is not installed")
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False
    )


@pytest.mark.slow  # the checker reads all that is imported: some 5 s without its cache
def test_mypy_sees_types(pages: list[Path]) -> None:
    """mypy infers the types that applications rely on."""
    done = check(
        "mypy",
        "--strict",
        "--no-error-summary",
        "--config-file",
        "pyproject.toml",
        *CASES,
        *EXAMPLES,
        *pages,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


@pytest.mark.slow  # the same, and it has no cache
def test_pyright_sees_types(pages: list[Path], tmp_path: Path) -> None:
    """Pyright infers the types that applications rely on."""
    settings: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"][
        "pyright"
    ]
    for name in ("include", "exclude", "strict", "extraPaths"):
        settings[name] = [str(ROOT / path) for path in settings[name]]
    settings["include"] += map(str, pages)
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    done = check(
        "basedpyright", "--project", tmp_path, "--pythonpath", sys.executable, "--outputjson"
    )
    report: dict[str, Any] = json.loads(done.stdout)
    complaints = [
        f"{found['file']}:{found['range']['start']['line'] + 1}: {found['message']} ({found.get('rule')})"
        for found in report["generalDiagnostics"]
    ]
    assert not complaints, "\n".join(complaints)
    assert done.returncode == 0, done.stderr
    assert report["summary"]["filesAnalyzed"] == len([*CASES, *EXAMPLES, *pages]) - len(
        settings["exclude"]
    )


def test_files_have_expected_errors() -> None:
    """Each file has lines that must be errors for both."""
    for path in CASES:
        wrong = [line for line in path.read_text().splitlines() if "# type: ignore[" in line]
        assert wrong, path.name
        assert all("# pyright: ignore[" in line for line in wrong), path.name
