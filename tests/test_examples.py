"""The example plugins and the AssemblyScript plugin do what their tables say."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import plugwasm

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "examples"), str(ROOT / "tests" / "plugins" / "as")]

import as_cases  # noqa: E402
import cases  # noqa: E402
import verify  # noqa: E402


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with verify.server() as address:
        yield address


@pytest.mark.parametrize("case", cases.CASES, ids=lambda case: f"{case.plugin}: {case.title}")
def test_an_example_behaves_as_its_case_says(case: cases.Case, address: str) -> None:
    wasm = (ROOT / "examples" / f"{case.plugin}.wasm").read_bytes()
    assert verify.failures(plugwasm, wasm, case, address) == []


@pytest.mark.parametrize("case", as_cases.CASES, ids=lambda case: case.title)
def test_a_plugin_of_the_assemblyscript_kit_behaves_as_its_case_says(case: cases.Case, address: str) -> None:
    wasm = (ROOT / "tests" / "plugins" / "as" / "plugin.wasm").read_bytes()
    assert verify.failures(plugwasm, wasm, case, address) == []
