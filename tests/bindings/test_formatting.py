"""What is generated is formatted as the language's own formatter would."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from plugwasm._bindings.files import generate_files
from tests.bindings.builds import RICH
from tests.bindings.test_generated_text import HOSTILE, schema

pytestmark = [pytest.mark.slow, pytest.mark.toolchain]  # starts a formatter for each file

FORMATTERS = {
    "go": (["gofmt", "-d"], ".go", "install Go"),
    "python": (
        [sys.executable, "-m", "ruff", "format", "--isolated", "--diff"],
        ".py",
        "pip install ruff",
    ),
    "rust": (["rustfmt", "--check", "--edition", "2021"], ".rs", "rustup component add rustfmt"),
    "zig": ([sys.executable, "-m", "ziglang", "fmt", "--check"], ".zig", "pip install ziglang"),
}
SMALL = b"version: v0\nexports: [run]\n"
EMPTY = b"version: v1-draft\nexports: {}\ncomponents: {schemas: {A: {properties: {}}}}\n"
SCHEMAS = {
    "rich": RICH.read_bytes(),
    "v0": SMALL,
    "nothing": EMPTY,
    **{f"hostile {n}": schema(text, text.replace("\ud800", "")) for n, text in enumerate(HOSTILE)},
}


@pytest.mark.parametrize("language", FORMATTERS)
@pytest.mark.parametrize("name", SCHEMAS)
def test_formatter_changes_nothing(language: str, name: str, tmp_path: Path) -> None:
    """The formatter of the language leaves all files as they are."""
    command, ending, advice = FORMATTERS[language]
    if shutil.which(command[0]) is None:
        if os.environ.get("CI"):
            pytest.fail(f"{command[0]} is missing: {advice}")
        pytest.skip(f"{command[0]} is missing: {advice}")
    for path, file in generate_files(SCHEMAS[name], "s.yaml", language).items():
        if path.endswith(ending):
            target = tmp_path / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(file.content)
    for target in sorted(tmp_path.rglob(f"*{ending}")):
        done = subprocess.run(
            [*command, str(target)], capture_output=True, text=True, cwd=tmp_path, check=False
        )
        assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr
