"""`plugwasm generate`: what it writes, what it says, and its exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest

from plugwasm.cli import main
from tests.bindings.builds import RICH


def test_project_in_an_empty_folder(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A new project has the kit beside it; a second time, the developer's files are kept."""
    arguments = ["generate", str(RICH), "--language", "go", "--output", str(tmp_path / "p")]
    assert main(arguments) == 0
    assert sorted(path.name for path in (tmp_path / "p").iterdir()) == [
        "bindings.go",
        "go.mod",
        "pdk",
        "plugin.go",
        "plugin.toml",
    ]
    assert (tmp_path / "p/pdk/pdk.go").exists()
    (tmp_path / "p/plugin.go").write_text("mine")
    capfd.readouterr()
    assert main(arguments) == 0
    said = capfd.readouterr().out
    assert "unchanged  " in said
    assert "Kept files are yours" in said
    assert (tmp_path / "p/plugin.go").read_text() == "mine"


def test_kit_is_not_put_into_a_project(tmp_path: Path) -> None:
    """A project that says itself where its kit is gets none."""
    (tmp_path / "go.mod").write_text("module mine\n")
    assert main(["generate", str(RICH), "-l", "go", "-o", str(tmp_path)]) == 0
    assert not (tmp_path / "pdk").exists()


def test_problems_of_a_schema(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Each problem has its line, and nothing is written."""
    schema = tmp_path / "bad.yaml"
    schema.write_text("version: v1-draft\nexports:\n  a: {inptu: {}}\n  b: []\n")
    assert main(["generate", str(schema), "-l", "rust", "-o", str(tmp_path / "p")]) == 2
    errors = capfd.readouterr().err.splitlines()
    assert [line.split(": ")[:4] for line in errors] == [
        ["error", "bad.yaml", "line 3", "exports.a.inptu"],
        ["error", "bad.yaml", "line 4", "exports.b"],
    ]
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.yaml", "-l", "rust"], "no such file: none.yaml"),
        ([str(RICH), "-l", "cobol"], "expected one of assemblyscript, c, cpp, go, python, rust"),
        ([str(RICH)], "--language"),
    ],
)
def test_wrong_use(
    arguments: list[str], message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A missing file, a language without bindings and a missing option are told; nothing is made."""
    assert main(["generate", *arguments, "-o", str(tmp_path / "p")]) == 2
    assert message in " ".join(capfd.readouterr().err.split())
    assert not (tmp_path / "p").exists()
