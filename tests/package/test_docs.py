"""The examples in the README and in docs/ run and print what they show."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.scripts import need_engine

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SCRIPT = re.compile(r'plugwasm\.script\(|ScriptService\(|"plugins/\w+\.(?:js|py)"')
BLOCK = re.compile(r"^```python\n(.*?)^```(?:\n+```text\n(.*?)^```)?", re.S | re.M)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if BLOCK.search(page.read_text())], ids=lambda page: page.name
)
def test_python_blocks_of_page(page: Path, tmp_path: Path) -> None:
    """The Python blocks of a page run in order and print the output shown below them."""
    if SCRIPT.search(page.read_text()):
        need_engine("javascript")
        need_engine("python")
    for plugin in (ROOT / "examples").glob("*.wasm"):
        shutil.copy(plugin, tmp_path)
    program, expected = ["import sys"], []
    for number, (code, output) in enumerate(BLOCK.findall(page.read_text())):
        program += [f"print('--- block {number}', flush=True)", code]
        expected.append((number, output))
    (tmp_path / "page.py").write_text("\n".join(program))
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "examples")]),
        "PYTHONWARNINGS": "error",
    }
    run = subprocess.run(
        [sys.executable, "page.py"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 0, run.stderr
    printed = dict(re.findall(r"^--- block (\d+)\n(.*?)(?=^--- block|\Z)", run.stdout, re.S | re.M))
    for number, output in expected:
        if output:
            assert printed[str(number)] == output


def test_pages_say_where_blocks_run() -> None:
    """Each page with Python blocks says in which directory they run and what they build on."""
    for page in PAGES:
        text = page.read_text()
        if BLOCK.search(text):
            before = text if page.name == "README.md" else text[: BLOCK.search(text).start()]  # type: ignore[union-attr]
            assert re.search(r"in the directory (`examples`|\[examples/\])", before), page.name
            assert re.search(r"those\s+above|build\s+on\s+each other", before), page.name
            assert "examples/" not in "".join(
                re.findall(r"^```sh\n(.*?)^```", text, re.S | re.M)
            ), page.name
