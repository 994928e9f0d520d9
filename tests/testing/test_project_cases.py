"""The pytest plugin and a plugin.toml: its cases are tests, and its plugin is under test."""

from __future__ import annotations

import pytest

from tests.support.guests import export, guest

pytest_plugins = "pytester"

SAYS = guest(export("say", "(call $give (call $config_get <<word>>))"))
FILE = """
[plugin.settings.word]
default = "Hello"

[[test]]
name = "says hello"
function = "say"
output = "Hello"

[[test]]
name = "says bye"
function = "say"
output = "Bye"
"""


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """Return a folder with a module and a project file."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    (pytester.path / "plugin.wasm").write_text(SAYS)
    (pytester.path / "plugin.toml").write_text(FILE)
    return pytester


def run(project: pytest.Pytester, *options: str) -> pytest.RunResult:
    return project.runpytest_inprocess(
        "-p", "plugwasm._pytest_plugin", "-p", "no:cacheprovider", *options
    )


def test_cases_are_tests(project: pytest.Pytester) -> None:
    """A failing case shows what was expected, and what the plugin did; not Python's frames."""
    result = run(project, "-v")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            "plugin.toml::says hello PASSED*",
            "plugin.toml::says bye FAILED*",
            "*expected 'Bye'",
            "*got 'Hello'",
            "say() -> b'Hello' (* fuel)",
        ],
        consecutive=False,
    )
    assert "Traceback" not in result.stdout.str()
    assert "cases.py" not in result.stdout.str()


def test_a_case_is_chosen_by_name(project: pytest.Pytester) -> None:
    """It has a node id, is found by -k, and has a line."""
    run(project, "plugin.toml::says hello").assert_outcomes(passed=1)
    run(project, "-k", "hello").assert_outcomes(passed=1, deselected=1)
    result = run(project, "--collect-only", "-q")
    result.stdout.fnmatch_lines(["plugin.toml::says hello", "plugin.toml::says bye"])


def test_cases_can_be_left_to_the_command(project: pytest.Pytester) -> None:
    """A setting turns them off."""
    result = run(project, "-o", "plugwasm_cases=false")
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED


def test_other_files_are_left_alone(project: pytest.Pytester) -> None:
    """A plugin.toml without cases may be anybody's, and is not even parsed."""
    (project.path / "plugin.toml").write_text("# [[test]]\nwhat = [[")
    assert run(project).ret == pytest.ExitCode.NO_TESTS_COLLECTED


def test_a_wrong_file_is_a_collection_error(project: pytest.Pytester) -> None:
    """The message says where."""
    (project.path / "plugin.toml").write_text('[[test]]\nname = "a"\nfunctoin = "b"')
    result = run(project)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*plugin.toml: line 3: field `test?0?.functoin`: unknown field*"])


def test_a_plugin_that_was_not_built(project: pytest.Pytester) -> None:
    """Each case says so."""
    (project.path / "plugin.wasm").unlink()
    result = run(project)
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*has the plugin been built? `plugwasm build` does that"])


TEST = """
import pytest

def test_default(wasm_plugin, wasm_harness):
    assert wasm_plugin.call("say") == b"Hello"
    assert wasm_harness.name == {name!r}

@pytest.mark.plugwasm(config={{"word": "Bye"}})
def test_config(wasm_plugin):
    assert wasm_plugin.call("say") == b"Bye"
"""


def test_the_project_is_under_test(project: pytest.Pytester) -> None:
    """If nothing names a plugin, it is that of the project above the test."""
    (project.path / "tests").mkdir()
    (project.path / "tests" / "test_it.py").write_text(TEST.format(name=project.path.name))
    run(project, "tests").assert_outcomes(passed=2)
    (project.path / "plugin.wasm").unlink()
    result = run(project, "tests")
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(["*has the plugin been built?*"])


def test_a_named_plugin_comes_first(project: pytest.Pytester) -> None:
    """A name that says which plugin is meant counts more than the project."""
    (project.path / "tests").mkdir()
    (project.path / "tests" / "test_it.py").write_text(
        "def test_it(wasm_plugin):\n    assert wasm_plugin.call('other') == b'x'\n"
    )
    (project.path / "other.wat").write_text(guest(export("other", "(call $give <<x>>)")))
    run(project, "tests", "--plugwasm-plugin", "other.wat").assert_outcomes(passed=1)
    run(project, "tests", "-o", "plugwasm_plugin=other.wat").assert_outcomes(passed=1)
    run(project, "tests").assert_outcomes(failed=1)


def test_the_search_ends_at_the_root(project: pytest.Pytester) -> None:
    """A project above the root folder of pytest is not this one's."""
    inner = project.path / "inner"
    inner.mkdir()
    (inner / "pytest.ini").write_text("[pytest]\n")
    (inner / "test_it.py").write_text("def test_it(wasm_plugin): pass\n")
    result = run(project, str(inner), "--rootdir", str(inner), "-c", str(inner / "pytest.ini"))
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*which plugin is under test?*"])
