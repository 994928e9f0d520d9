"""`plugwasm test`: its lines, its exit codes, and pytest in `tests/`."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from plugwasm.cli import testing
from tests.support.command_line import EVIL, FIVE, is_harmless, run_command, run_process
from tests.support.toolchains import require_language

GREEN = '[[test]]\nname = "five"\nfunction = "five"\nerror_code = 5\n'
REPORT = "`five` of plugin `fives` returned the error code 5"
RED = '[[test]]\nname = "six"\nfunction = "five"\nerror_code = 6\n'


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a project with a module, and two cases of which one fails."""
    folder = tmp_path / "fives"
    folder.mkdir()
    (folder / "plugin.wasm").write_text(FIVE)
    (folder / "plugin.toml").write_text(GREEN + RED)
    return folder


def test_a_line_for_each_case(project: Path) -> None:
    """A case that fails has its place in the file, what was wrong, and what the plugin did."""
    done = run_command("test", str(project))
    assert done.code == 1
    shown = re.sub(r"\(\d+ fuel\)", "(… fuel)", done.out.decode())
    assert shown.splitlines() == [
        "ok    five",
        "FAIL  six  plugin.toml:5",
        f"      it must fail with the code 6, got the code 5: {REPORT}",
        "      what the plugin did:",
        f"        five() raised GuestError: {REPORT} (… fuel)",
        "1 passed, 1 failed",
    ]
    assert done.err == ""


def test_green_cases_exit_with_zero(project: Path) -> None:
    """A filter chooses by the name or the function, in any case."""
    for word in "FIV", "five":
        done = run_command("test", str(project), "-k", word)
        assert b"ok    five" in done.out
    (project / "plugin.toml").write_text(GREEN)
    done = run_command("test", str(project))
    assert (done.code, done.out) == (0, b"ok    five\n1 passed\n")


def test_the_current_folder_is_the_default(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    assert run_command("test", "--filter", "six").out.startswith(b"FAIL  six")


@pytest.mark.parametrize(
    ("files", "arguments", "message"),
    [
        ({}, [], "is no plugin project: it has no plugin.toml"),
        ({"plugin.toml": "[plugin]"}, [], "plugin.toml has no [[test]], and tests/ has no tests"),
        ({"plugin.toml": GREEN}, ["-k", "x"], "none of 1 cases has 'x' in its name or function"),
        ({"plugin.toml": "[[test]]"}, [], "line 1: field `test[0].function`: it is missing"),
        ({"plugin.toml": GREEN}, [], "has the plugin been built? `plugwasm build` does that"),
    ],
)
def test_bad_use_exits_with_two(
    tmp_path: Path, files: dict[str, str], arguments: list[str], message: str
) -> None:
    """What is no failure of a test has another exit code."""
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    done = run_command("test", str(tmp_path), *arguments)
    assert (done.code, done.out) == (2, b"")
    assert message in done.err


def test_a_hostile_plugin_is_escaped(project: Path) -> None:
    """What a plugin says, and what a file names, cannot draw on the terminal."""
    (project / "plugin.wasm").write_text(EVIL)
    (project / "plugin.toml").write_text(
        '[[test]]\nname = "[bold]x[/bold]"\nfunction = "fail"\n'
        '[[test]]\nname = "log"\nfunction = "log"\nlogs = []\n'
        '[[test]]\nname = "none"\nfunction = "\\u001b[31m"\n'
    )
    done = run_command("test", str(project))
    assert "FAIL  [bold]x[/bold]" in done.out.decode()
    assert is_harmless(done.out.decode())
    assert not any(line.startswith("error") for line in done.out.decode().splitlines())


TESTS = """
import pytest

def test_the_plugin_of_the_project(wasm_plugin, wasm_harness):
    assert wasm_harness.name == "fives"
    with pytest.raises(Exception, match="code 5"):
        wasm_plugin.call("five")
"""


def test_pytest_runs_in_the_folder_tests(project: Path) -> None:
    """The fixtures have the project's plugin, and a failure there is one of the command."""
    (project / "plugin.toml").write_text(GREEN)
    (project / "pytest.ini").write_text("[pytest]\naddopts = -p no:cacheprovider\n")
    (project / "tests").mkdir()
    (project / "tests" / "test_it.py").write_text(TESTS)
    environment = {key: value for key, value in os.environ.items() if "PYTEST" not in key}
    done = run_process("test", str(project), env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert b"ok    five\n1 passed\n" in done.stdout
    assert b"1 passed in" in done.stdout
    (project / "tests" / "test_it.py").write_text(TESTS.replace("code 5", "code 6"))
    done = run_process("test", str(project), env=environment)
    assert done.returncode == 1
    assert b"1 failed in" in done.stdout
    filtered = run_process("test", str(project), "-k", "five", env=environment)
    assert filtered.returncode == 0


def test_without_pytest_it_says_so(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cases run all the same."""
    (project / "plugin.toml").write_text(GREEN)
    (project / "tests").mkdir()
    (project / "tests" / "test_it.py").write_text(TESTS)
    monkeypatch.setattr(testing, "find_spec", lambda name: None)
    done = run_command("test", str(project))
    assert done.code == 0
    assert "tests/ was not run, since pytest is not installed: pip install" in done.err


def test_tests_in_other_languages_are_left(project: Path) -> None:
    """A folder `tests` of another tool is none of pytest's."""
    (project / "plugin.toml").write_text(GREEN)
    (project / "tests").mkdir()
    (project / "tests" / "greet.rs").write_text("#[test]")
    done = run_command("test", str(project))
    assert (done.code, done.err) == (0, "")


@pytest.mark.toolchain
def test_it_builds_before_it_tests(tmp_path: Path) -> None:
    """A change of the source counts at once, and source that does not compile is a failure."""
    require_language("c")
    folder = tmp_path / "fives"
    assert run_process("new", "c", "fives", cwd=tmp_path).returncode == 0
    (folder / "plugin.toml").write_text('[build]\nlanguage = "c"\n' + GREEN)
    source = folder / "src" / "plugin.c"
    source.write_text('#include "plugwasm.h"\nPDK_FUNCTION(five) { return 5; }\n')
    done = run_process("test", cwd=folder)
    assert (done.returncode, done.stdout) == (0, b"ok    five\n1 passed\n")
    source.write_text(source.read_text().replace("5", "6"))
    assert run_process("test", "--no-build", cwd=folder).returncode == 0
    done = run_process("test", cwd=folder)
    assert (done.returncode, done.stdout[:4]) == (1, b"FAIL")
    source.write_text("five")
    done = run_process("test", cwd=folder)
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"plugin.c:1" in done.stderr
