"""What `plugwasm test` does: builds, runs the cases, runs pytest, and prints how it went."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from .._project.cases import CaseRunner
from .._project.project_file import PROJECT_FILE, read_project
from .._script.names import language_of
from .terminal import FAILED, UsageProblem, escape, escape_lines, print_error, print_warning

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from .._project.case_model import Case
    from .._project.cases import CaseOutcome
    from .._project.project_file import Project

__all__ = ["run_tests"]

_TESTS = "tests"
_NO_TESTS_COLLECTED = 5
"""The exit code of pytest if it found no test."""


def run_tests(directory: str, *, filter: str | None, build: bool) -> int:
    """Run the tests of a project, and return the exit code.

    Args:
        directory: The folder of the project.
        filter: Text that the name or the function of a case contains; None for all.
        build: Whether to build the plugin first, if `plugin.toml` says how.

    Raises:
        UsageProblem: There is nothing to test.
        Error: The project cannot be read or built.
    """
    language = language_of(directory)
    if language is not None and not Path(directory).is_dir():
        raise UsageProblem(
            "DIR",
            f"{directory} is a script, and not a project, which `plugwasm new {language}` makes; "
            f"for tests with pytest, name it: `@pytest.mark.plugwasm({Path(directory).name!r})`",
        )
    project = read_project(directory)
    cases = [case for case in project.cases if _fits(case, filter)]
    has_tests = filter is None and _has_tests(project)
    if not cases and not has_tests:
        if filter is not None:
            raise UsageProblem(
                "--filter",
                f"none of {len(project.cases)} cases has {filter!r} in its name or function",
            )
        raise UsageProblem(
            "DIR", f"{PROJECT_FILE} has no [[test]], and {_TESTS}/ has no tests for pytest"
        )
    if build and project.build is not None and not _build(project):
        return FAILED
    passed = _run_cases(project, cases)
    if has_tests:
        passed = _run_pytest(project) and passed
    return 0 if passed else FAILED


def _fits(case: Case, filter: str | None) -> bool:
    words = (case.name, *(call.function for call in case.calls))
    return filter is None or any(filter.lower() in word.lower() for word in words)


def _build(project: Project) -> bool:
    """Build the plugin, and return whether it could be built."""
    from .._project.build import build_project, plan_build
    from .._project.problems import BuildError

    try:
        build_project(plan_build(project))
    except BuildError as error:
        print_error(escape_lines(error.message, max_lines=100))
        return False
    return True


def _run_cases(project: Project, cases: Sequence[Case]) -> bool:
    """Run cases, and print a line for each. Return whether all passed."""
    if not cases:
        return True
    console = _console()
    runner = CaseRunner(project)
    failed = 0
    for case in cases:
        outcome = runner.run(case)
        failed += not outcome.passed
        _print_outcome(console, outcome, project)
    passed = f"{len(cases) - failed} passed"
    console.print(f"{passed}, {failed} failed" if failed else passed, soft_wrap=True)
    return not failed


def _print_outcome(console: Console, outcome: CaseOutcome, project: Project) -> None:
    from rich.text import Text

    case = outcome.case
    if outcome.passed:
        console.print(Text.assemble(("ok    ", "green"), escape(case.name)), soft_wrap=True)
        return
    line = project.line(case)
    place = PROJECT_FILE if line is None else f"{PROJECT_FILE}:{line}"
    console.print(
        Text.assemble(("FAIL  ", "bold red"), escape(case.name), (f"  {place}", "dim")),
        soft_wrap=True,
    )
    for problem in outcome.problems:
        _print_indented(console, problem, "")
    if outcome.transcript:
        _print_indented(console, "what the plugin did:", "dim")
        _print_indented(console, outcome.transcript, "dim", 2)


def _print_indented(console: Console, text: str, style: str, more: int = 0) -> None:
    from rich.text import Text

    for line in text.splitlines():
        console.print(Text(" " * (6 + more) + line, style), soft_wrap=True)


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False)


def _has_tests(project: Project) -> bool:
    """Return whether `tests/` has a file that pytest would take for tests."""
    folder = Path(project.path(_TESTS))
    return folder.is_dir() and any(
        path.is_file() for shape in ("test_*.py", "*_test.py") for path in folder.rglob(shape)
    )


def _run_pytest(project: Project) -> bool:
    """Run the project's own tests. Return whether none failed."""
    if find_spec("pytest") is None:
        print_warning(
            f"{_TESTS}/ was not run, since pytest is not installed: pip install 'plugwasm[pytest]'"
        )
        return True
    sys.stdout.flush()
    command = [sys.executable, "-m", "pytest", _TESTS]
    done = subprocess.run(command, cwd=project.folder, check=False)
    return done.returncode in (0, _NO_TESTS_COLLECTED)
