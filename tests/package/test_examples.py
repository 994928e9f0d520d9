"""The example plugins and the AssemblyScript plugin behave as their tables say."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import plugwasm
from tests.support.paths import PLUGINS, ROOT

sys.path[:0] = [str(ROOT / "examples"), str(PLUGINS / "as")]

import as_cases  # noqa: E402
import cases  # noqa: E402
import verify  # noqa: E402


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with verify.server() as address:
        yield address


@pytest.mark.parametrize("case", cases.CASES, ids=lambda case: f"{case.plugin}: {case.title}")
def test_example_case(case: cases.Case, address: str) -> None:
    """An example behaves as its case says."""
    wasm = (ROOT / "examples" / f"{case.plugin}.wasm").read_bytes()
    assert verify.failures(plugwasm, wasm, case, address) == []


@pytest.mark.parametrize("case", as_cases.CASES, ids=lambda case: case.title)
def test_assemblyscript_example_case(case: cases.Case, address: str) -> None:
    """A plugin built with the AssemblyScript kit behaves as its case says."""
    wasm = (PLUGINS / "as" / "plugin.wasm").read_bytes()
    assert verify.failures(plugwasm, wasm, case, address) == []


@pytest.mark.parametrize(
    ("program", "last"),
    [
        ("typed_calls", "  19 + 23 = 42"),
        ("async_calls", "  doubled: 0 2 4 6 8"),
        ("async_calls trio", "  doubled: 0 2 4 6 8"),
        ("pools", "  11"),
        ("debugging", "saved as a flame graph"),
        ("observing", "  host_functions/sum: "),
        ("recording", "  now      path_open(3, 1, 'other.txt'"),
        ("scale_out threads", "20000 lines have 140000 vowels"),
    ],
)
def test_a_program_runs_to_its_end(program: str, last: str, tmp_path: Path) -> None:
    name, *arguments = program.split()
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "error",
        "TMPDIR": str(tmp_path),
    }
    command = [sys.executable, str(ROOT / "examples" / f"{name}.py"), *arguments]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert last in done.stdout.splitlines()[-1]
