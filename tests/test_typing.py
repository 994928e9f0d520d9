"""What type checkers make of the public API: `tests/typing/` says what each expression is, and which lines are errors.

A line that must be an error has two comments, `# type: ignore[…]` for mypy and `# pyright: ignore[…]` for pyright; each checker complains
about one that it does not need.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = [*sorted(ROOT.glob("tests/typing/*.py")), *sorted(ROOT.glob("examples/*.py"))]


def check(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    if find_spec(module) is None and os.environ.get("CI") != "true":
        pytest.skip(f"{module} is not installed")
    return subprocess.run([sys.executable, "-m", module, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)


@pytest.mark.slow  # the checker reads all that is imported: some 10 s without its cache
def test_mypy_sees_the_types_that_applications_count_on() -> None:
    done = check("mypy", "--strict", "--no-error-summary", "--config-file", "pyproject.toml", *map(str, FILES))
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


@pytest.mark.slow  # the same, and it has no cache
def test_pyright_sees_the_types_that_applications_count_on() -> None:
    done = check("basedpyright", "--project", "pyproject.toml", "--pythonpath", sys.executable, "--outputjson")
    report: dict[str, Any] = json.loads(done.stdout)
    complaints = [
        f"{Path(found['file']).relative_to(ROOT)}:{found['range']['start']['line'] + 1}: {found['message']} ({found.get('rule')})"
        for found in report["generalDiagnostics"]
    ]
    assert not complaints, "\n".join(complaints)
    assert (done.returncode, report["summary"]["filesAnalyzed"]) == (0, len(FILES)), done.stderr


def test_each_file_has_lines_that_must_be_errors_for_both() -> None:
    for path in ROOT.glob("tests/typing/*.py"):
        wrong = [line for line in path.read_text().splitlines() if "# type: ignore[" in line]
        assert wrong, path.name
        assert all("# pyright: ignore[" in line for line in wrong), path.name
