"""The pytest plugin: its marker, its fixtures, and the report of a failing test."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support.guests import export, guest
from tests.support.harness_guests import ASKS, LOGS, REMEMBERS
from tests.support.paths import EXAMPLES, ROOT
from tests.support.scripts import need_engine

pytest_plugins = "pytester"


class Project:
    """A plugin author's tests, in a directory of their own."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester = pytester
        self.root = pytester.path

    def build(self, path: str, wat: str = REMEMBERS) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(wat)

    def test(self, code: str, path: str = "tests/test_it.py", *options: str) -> pytest.RunResult:
        (self.root / path).parent.mkdir(exist_ok=True)
        (self.root / path).write_text(f"import pytest, plugwasm\n{code}")
        return self.pytester.runpytest_inprocess(
            "-p",
            "plugwasm._pytest_plugin",
            "-p",
            "no:cacheprovider",
            "--import-mode=importlib",
            *options,
        )


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    return Project(pytester)


def text_plugin(text: str) -> str:
    """Return a plugin whose export `say` outputs the text."""
    return guest(export("say", f"(call $give <<{text}>>)"))


def test_marker(project: Project) -> None:
    """A marker names the plugin under test and the settings of the harness."""
    project.build("build/my.wat")
    result = project.test(
        """
pytestmark = pytest.mark.plugwasm("build/my.wat", vars={"k": b"module"})

def test_one(wasm_plugin, wasm_harness):
    assert wasm_plugin.call("swap") == b"module"
    assert wasm_harness.vars == {"k": b"new"}

@pytest.mark.plugwasm(vars={"k": b"function"}, name="other")
def test_other(wasm_plugin):
    assert wasm_plugin.call("swap") == b"function"
    assert wasm_plugin.name == "other"

class TestClosed:
    kept = []
    def test_first(self, wasm_plugin, make_wasm_harness):
        self.kept += [wasm_plugin, make_wasm_harness(b'(module (func (export "f")))').plugin()]
        self.kept[1].call("f")
    def test_then(self):
        for plugin in self.kept:
            with pytest.raises(plugwasm.ClosedError):
                plugin.call("swap")
"""
    )
    result.assert_outcomes(passed=4)


def test_settings_and_command_line(project: Project) -> None:
    """The plugin can also be set in the settings and on the command line."""
    project.build("build/my.wat", text_plugin("settings"))
    project.build("other/your.wat", text_plugin("option"))
    project.pytester.makeini("[pytest]\nplugwasm_plugin = build/*.wat\nplugwasm_wasi = true\n")
    code = """
import os
def test_it(wasm_plugin):
    assert wasm_plugin.call("say").decode() == os.environ["EXPECTED"]
    assert wasm_plugin.compiled_plugin.wasi
"""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EXPECTED", "settings")
        project.test(code).assert_outcomes(passed=1)
        patch.setenv("EXPECTED", "option")
        patch.chdir(project.root / "tests")
        project.test(
            code, "tests/test_it.py", "--plugwasm-plugin", "../other/your.wat"
        ).assert_outcomes(passed=1)
        patch.chdir(project.root)
        project.test(
            code, "tests/test_it.py", "--plugwasm-plugin", "other/your.wat"
        ).assert_outcomes(passed=1)
        project.test(
            code.replace("def", "@pytest.mark.plugwasm('build/my.wat')\ndef"),
            "tests/test_it.py",
            "--plugwasm-plugin=other/*.wat",
        ).assert_outcomes(passed=1)


def test_file_beside_test_over_root(project: Project) -> None:
    """A file beside the test wins over one in the root directory."""
    project.build("my.wat", text_plugin("root"))
    project.build("tests/my.wat", text_plugin("beside"))
    project.test(
        '@pytest.mark.plugwasm("my.wat")\ndef test(wasm_plugin): assert wasm_plugin.call("say") == b"beside"'
    ).assert_outcomes(passed=1)


def test_harness_finds_files_alike(project: Project) -> None:
    """A harness created by a test finds files in the same way."""
    project.build("build/my.wat", text_plugin("build"))
    project.build("tests/data/my.wat", text_plugin("data"))
    project.build("data/my.wat", text_plugin("not this one"))
    result = project.test(
        """
def test(make_wasm_harness):
    assert make_wasm_harness("build/my.wat").plugin().call("say") == b"build"
    assert make_wasm_harness("data/my.wat").plugin().call("say") == b"data"
    with pytest.raises(plugwasm.SourceError, match="none.wat"):
        make_wasm_harness("none.wat")
"""
    )
    result.assert_outcomes(passed=1)


def test_module_or_manifest_given(project: Project) -> None:
    """A module or a manifest can be given directly."""
    result = project.test(f"""
WAT = {text_plugin("here")!r}.encode()
@pytest.mark.plugwasm(WAT)
def test_module(wasm_plugin): assert wasm_plugin.call("say") == b"here"
@pytest.mark.plugwasm({{"wasm": [{{"data": WAT}}]}})
def test_manifest(wasm_plugin): assert wasm_plugin.call("say") == b"here"
""")
    result.assert_outcomes(passed=2)


@pytest.mark.parametrize(
    ("builds", "marker", "ids"),
    [
        (["build/debug/my.wat", "build/release/my.wat"], '"build/*/my.wat"', ["debug", "release"]),
        (["build/a.wat", "build/b.wat"], '"build/*.wat"', ["a", "b"]),
        (["build/a.wat", "b.wat"], '"build/a.wat", "b.wat"', ["build/a", "b"]),
    ],
)
def test_test_runs_for_each_build(
    project: Project, builds: list[str], marker: str, ids: list[str]
) -> None:
    """A test runs once for each build."""
    for build in builds:
        project.build(build, text_plugin("x"))
    code = f'@pytest.mark.plugwasm({marker})\ndef test(wasm_plugin): assert wasm_plugin.call("say") == b"x"'
    result = project.test(code, "tests/test_it.py", "-v")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines([f"*test_it.py::test[[]{name}[]] PASSED*" for name in ids])


def test_missing_plugin_fails_test(project: Project) -> None:
    """A missing plugin fails the test, with a message that lists the places searched."""
    result = project.test(
        '@pytest.mark.plugwasm("build/*.wasm")\ndef test_marked(wasm_plugin): pass\ndef test_unsaid(wasm_plugin): pass\n'
        "def test_unrelated(): pass"
    )
    result.assert_outcomes(errors=2, passed=1)
    result.stdout.fnmatch_lines(
        [
            f"*there is no plugin to test: nothing matches 'build/[*].wasm' in `{project.root}/tests` and `{project.root}`; has it been built?",
            "*which plugin is under test? Say so with `@pytest.mark.plugwasm(*",
        ]
    )


def test_failing_test_shows_transcript(project: Project) -> None:
    """A failing test shows the plugin's transcript."""
    project.build("my.wat", LOGS)
    result = project.test(
        """
@pytest.mark.plugwasm("my.wat")
def test_fails(wasm_plugin, make_wasm_harness):
    make_wasm_harness(b"(module)")
    wasm_plugin.call("say", "something")
    assert False

@pytest.mark.plugwasm("my.wat")
def test_passes(wasm_plugin):
    wasm_plugin.call("say", "quiet")
""",
        "tests/test_it.py",
        "-rP",
    )
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(
        [
            "*- What plugin my did -*",
            "say('something') -> b'*' (* fuel)",
            "    trace: trace line",
            "    debug: debug line",
            "*warn: warn line",
        ]
    )
    result.stdout.no_fnmatch_line("*quiet*")


def test_unexpected_in_one_failure(project: Project) -> None:
    """Everything unexpected is reported in one failure."""
    project.build("my.wat", ASKS)
    result = project.test(
        "@pytest.mark.plugwasm('my.wat')\ndef test(wasm_plugin):\n    wasm_plugin.call('ask')"
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "E   *UnexpectedHostCallError: `ask` of plugin `my`: the test does not expect the host function `ask` to be called*(b'what')",
            "E   *to answer it: harness.host('ask', returns=…)",
            "*What plugin my did*",
        ]
    )
    result.stdout.no_fnmatch_line("*plugwasm/*.py:*")


def test_marker_and_fixtures_are_listed(project: Project) -> None:
    """pytest lists the marker and the fixtures."""
    project.test(
        "@pytest.mark.plugwasm\ndef test(): pass", "tests/test_it.py", "--strict-markers"
    ).assert_outcomes(passed=1)
    result = project.pytester.runpytest_inprocess("-p", "plugwasm._pytest_plugin", "--fixtures")
    for name in ("wasm_plugin", "wasm_harness", "make_wasm_harness"):
        result.stdout.fnmatch_lines([f"{name} -- *"])


def test_run_without_plugins_is_light(project: Project) -> None:
    """A run without plugins imports nothing of plugwasm except the fixtures."""
    (project.root / "test_it.py").write_text(
        "import sys\ndef test():\n    assert {m for m in sys.modules if m.startswith('plugwasm')} == {'plugwasm', 'plugwasm._pytest_plugin'}\n"
        "    assert not {'wasmtime', 'msgspec', 'urllib3'} & set(sys.modules)"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "plugwasm._pytest_plugin",
        "-p",
        "no:cacheprovider",
        "-W",
        "error",
    ]
    run = subprocess.run(
        command, cwd=project.root, env=environment, capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_harness_without_pytest() -> None:
    """Importing the harness does not import pytest."""
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import plugwasm.testing; assert 'pytest' not in sys.modules"
    subprocess.run([sys.executable, "-I", "-c", program], check=True, timeout=60)


def test_plugin_found_by_entry_point(project: Project) -> None:
    info = project.root / "site" / "plugwasm-0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugwasm\nVersion: 0\n")
    (info / "entry_points.txt").write_text("[pytest11]\nplugwasm = plugwasm._pytest_plugin\n")
    (info / "RECORD").write_text(
        "".join(f"{path.relative_to(ROOT)},,\n" for path in (ROOT / "plugwasm").rglob("*.py"))
    )
    project.build("my.wat", text_plugin("x"))
    (project.root / "test_it.py").write_text(
        "import pytest\n@pytest.mark.plugwasm('my.wat')\ndef test(wasm_plugin): assert wasm_plugin.call('say') == b'x'"
    )
    environment = os.environ | {"PYTHONPATH": f"{info.parent}{os.pathsep}{ROOT}"}
    del environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error"]
    run = subprocess.run(
        command, cwd=project.root, env=environment, capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_example_of_author_tests(project: Project) -> None:
    """The example of an author's tests passes."""
    for name in (
        "test_count_vowels.py",
        "count_vowels.wasm",
        "http_get.wasm",
        "host_functions.wasm",
    ):
        (project.root / "examples").mkdir(exist_ok=True)
        (project.root / "examples" / name).write_bytes((EXAMPLES / name).read_bytes())
    # In a process of its own, since what other tests in this one have left behind would be warned
    # of here.
    result = project.pytester.runpytest_subprocess(
        "-p", "plugwasm._pytest_plugin", "-p", "no:cacheprovider", "-W", "error"
    )
    assert result.parseoutcomes().keys() == {"passed"}


@pytest.mark.parametrize("file", ["rules.js", "rules.py"])
def test_script_is_under_test(project: Project, file: str) -> None:
    """A marker can name a script, which has the clock of the harness, and is recorded."""
    need_engine("javascript" if file.endswith("js") else "python")
    source = (
        "export const now = () => { console.log('hi'); return Date.now() / 1000; };"
        if file.endswith("js")
        else "import time\ndef now():\n    print('hi')\n    return time.time()\n"
    )
    project.build(f"src/{file}", source)
    result = project.test(
        f"""
@pytest.mark.plugwasm("src/{file}")
def test_it(wasm_plugin, wasm_harness):
    first = wasm_plugin.call("now", returns=float)
    wasm_harness.clock.advance(60)
    assert wasm_plugin.call("now", returns=float) == first + 60
    assert wasm_harness.logs.messages() == ["hi", "hi"]
"""
    )
    result.assert_outcomes(passed=1)
