"""The table in docs/security.md lists every case and tests that exist."""

from __future__ import annotations

import ast
import re

import pytest

from tests.support.paths import ROOT

CASES = 70


def rows() -> dict[int, str]:
    text = (ROOT / "docs" / "security.md").read_text()
    return {
        int(number): rest for number, rest in re.findall(r"^\| (\d+) \|(.*)\|$", text, re.MULTILINE)
    }


def names_in(path: str) -> set[str]:
    tree = ast.parse((ROOT / "tests" / path).read_text())
    return {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def test_every_case_is_in_the_table() -> None:
    assert sorted(rows()) == list(range(1, CASES + 1))


@pytest.mark.parametrize("case", range(1, CASES + 1))
def test_the_tests_of_a_case_exist(case: int) -> None:
    references = re.findall(r"`([\w/]+\.py)`::(\w+)", rows()[case])
    assert references
    for path, name in references:
        assert name in names_in(path), f"{path} has no test {name}"
