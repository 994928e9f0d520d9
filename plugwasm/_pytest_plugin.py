"""Fixtures for tests of plugins with pytest, which finds this module by itself.

    wasm_plugin         the plugin under test
    wasm_harness        its `plugwasm.testing.Harness`: the fakes around it, and what happened
    make_wasm_harness   makes more harnesses, for any plugin; they are closed after the test

The plugin is named by `@pytest.mark.plugwasm("build/my.wasm", wasi=True)`, by `--plugwasm-plugin`,
or by `plugwasm_plugin` in the settings of pytest. If several names or a pattern (`build/*.wasm`)
name several files, a test runs once for each. If nothing names one, it is that of the project: of
the `plugin.toml` beside the test or above it.

The cases of a `plugin.toml`, its tables `[[test]]`, are tests as well.

Nothing of plugwasm but this module is imported before a test asks for one of these.
"""

from __future__ import annotations

import glob
import os
import re
from pathlib import Path

import pytest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from typing import Any, Protocol

    from ._project.case_model import Case
    from ._project.cases import CaseOutcome, CaseRunner
    from ._project.project_file import Project
    from ._runtime.plugin import Plugin
    from .testing import Harness

    class MakeHarness(Protocol):
        def __call__(self, plugin: Any, **settings: Any) -> Harness: ...


_PROJECT_FILE = "plugin.toml"
_HARNESSES = pytest.StashKey["list[Harness]"]()
_HOW_TO_NAME = (
    '`@pytest.mark.plugwasm("my.wasm")`, `--plugwasm-plugin my.wasm`, '
    "or `plugwasm_plugin = my.wasm` in the settings of pytest"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("plugwasm").addoption(
        "--plugwasm-plugin",
        action="append",
        metavar="FILE",
        help="the plugin under test, instead of what tests and settings say; a pattern or several: "
        "tests run once for each file",
    )
    parser.addini(
        "plugwasm_plugin",
        "The plugin under test: files or patterns, relative to this file.",
        type="args",
        default=[],
    )
    parser.addini(
        "plugwasm_wasi",
        "Whether the plugin under test may import WASI.",
        type="bool",
        default=False,
    )

    parser.addini(
        "plugwasm_cases",
        "Whether the cases of a plugin.toml, its tables [[test]], are tests.",
        type="bool",
        default=True,
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "plugwasm(*files, **settings): the plugin under test, by files or patterns (relative to "
        "the "
        "test or to the root of the project; a manifest or a module's bytes will do too), and what "
        "else plugwasm.testing.Harness is to be given.",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "wasm_harness" in metafunc.fixturenames:
        builds = _find_builds(metafunc.config, metafunc.definition)
        if len(builds) > 1:
            metafunc.parametrize("wasm_harness", builds, indirect=True, ids=_test_ids(builds))


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    if (
        file_path.name == _PROJECT_FILE
        and parent.config.getini("plugwasm_cases")
        and re.search(rb"^[ \t]*\[\[[ \t]*test[ \t]*\]\]", file_path.read_bytes(), re.MULTILINE)
    ):
        return _CaseFile.from_parent(parent, path=file_path)
    return None


class _CaseFile(pytest.File):
    """A `plugin.toml` with cases."""

    _runner: CaseRunner | None = None

    def collect(self) -> Iterator[_CaseItem]:
        from ._project.project_file import read_project
        from .errors import Error

        try:
            self.project: Project = read_project(self.path.parent)
        except Error as error:
            raise self.CollectError(error.message) from None
        for case in self.project.cases:
            item: _CaseItem = _CaseItem.from_parent(self, name=case.name)
            item.case = case
            yield item

    def run(self, case: Case) -> CaseOutcome:
        """Run a case; the plugin is read before the first."""
        if self._runner is None:
            from ._project.cases import CaseRunner

            self._runner = CaseRunner(self.project)
        return self._runner.run(case)


class _CaseItem(pytest.Item):
    """A case. Its attribute `case` is set by the collector."""

    case: Case
    parent: _CaseFile

    def runtest(self) -> None:
        from .errors import Error

        try:
            outcome = self.parent.run(self.case)
        except Error as error:
            pytest.fail(error.message, pytrace=False)
        if not outcome.passed:
            if outcome.transcript:
                self.add_report_section("call", "plugin", outcome.transcript)
            pytest.fail("\n".join(outcome.problems), pytrace=False)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        line = self.parent.project.line(self.case)
        return self.path, None if line is None else line - 1, self.name


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        for harness in item.stash.get(_HARNESSES, ()):
            if transcript := harness.transcript():
                report.sections.append((f"What plugin {harness.name} did", transcript))
    return report


@pytest.fixture
def make_wasm_harness(request: pytest.FixtureRequest) -> Iterator[MakeHarness]:
    """Make a `plugwasm.testing.Harness`, with the same arguments.

    A file may be relative to the test or to the root of the project. The harness is closed after
    the test, and a failing test shows its transcript.
    """
    from .testing import Harness

    made: list[Harness] = []
    request.node.stash[_HARNESSES] = made

    def make(plugin: Any, **settings: Any) -> Harness:
        if isinstance(plugin, (str, os.PathLike)):
            places = [
                folder / plugin
                for folder in (request.node.path.parent, _root_folder(request.config))
            ]
            plugin = next((place for place in places if place.is_file()), plugin)
        made.append(Harness(plugin, **settings))
        return made[-1]

    yield make
    for harness in made:
        harness.close()


@pytest.fixture
def wasm_harness(request: pytest.FixtureRequest, make_wasm_harness: MakeHarness) -> Harness:
    """Return the `plugwasm.testing.Harness` of the plugin under test."""
    settings: dict[str, Any] = {}
    for marker in reversed([*request.node.iter_markers("plugwasm")]):
        settings |= marker.kwargs
    names = _plugin_names(request.config, request.node)
    if not names and (project := _find_project(request)) is not None:
        return _project_harness(project, make_wasm_harness, settings)
    settings = {"wasi": request.config.getini("plugwasm_wasi")} | settings
    if hasattr(request, "param"):
        return make_wasm_harness(request.param, **settings)
    found = _find_builds(request.config, request.node)
    if len(found) == 1:
        return make_wasm_harness(found[0], **settings)
    if not names:
        pytest.fail(f"which plugin is under test? Say so with {_HOW_TO_NAME}", pytrace=False)
    looked = " and ".join(
        f"`{folder}`" for folder in dict.fromkeys(_search_folders(request.config, request.node))
    )
    pytest.fail(
        f"there is no plugin to test: nothing matches {' '.join(map(repr, names))} in {looked}; "
        "has it been built?",
        pytrace=False,
    )


@pytest.fixture
def wasm_plugin(wasm_harness: Harness) -> Iterator[Plugin]:
    """Yield the plugin under test. The fakes around it are in `wasm_harness`."""
    with wasm_harness.plugin() as plugin:
        yield plugin


def _find_project(request: pytest.FixtureRequest) -> Project | None:
    """Return the project of a test: of the `plugin.toml` beside it or above, in the root folder."""
    from ._project.project_file import read_project
    from .errors import Error

    root = request.config.rootpath
    for folder in request.node.path.parents:
        if (folder / _PROJECT_FILE).is_file():
            try:
                return read_project(folder)
            except Error as error:
                pytest.fail(error.message, pytrace=False)
        if folder == root:
            break
    return None


def _project_harness(
    project: Project, make_wasm_harness: MakeHarness, settings: dict[str, Any]
) -> Harness:
    """Return the harness of a project's plugin, which gets what its cases would give it."""
    from ._project.cases import default_config, load_plugin
    from .errors import Error

    config = default_config(project) | dict(settings.pop("config", None) or {})
    try:
        spec = load_plugin(project)
    except Error as error:
        pytest.fail(error.message, pytrace=False)
    named = {"name": os.path.basename(project.folder), "wasi": True}
    return make_wasm_harness(spec, **named | settings, config=config)


def _plugin_names(config: pytest.Config, node: pytest.Item) -> tuple[Any, ...]:
    """Return the names of the plugin under test.

    They are those of the command line, else of the closest marker with names, else of the settings.
    """
    option = config.getoption("plugwasm_plugin")
    marked = next((marker.args for marker in node.iter_markers("plugwasm") if marker.args), None)
    return tuple(option or marked or config.getini("plugwasm_plugin"))


def _search_folders(config: pytest.Config, node: pytest.Item) -> tuple[Path, ...]:
    """Return the folders in which files are looked for."""
    if config.getoption("plugwasm_plugin"):
        return (config.invocation_params.dir,)
    root = _root_folder(config)
    return (
        (node.path.parent, root)
        if any(marker.args for marker in node.iter_markers("plugwasm"))
        else (root,)
    )


def _root_folder(config: pytest.Config) -> Path:
    return config.inipath.parent if config.inipath else config.rootpath


def _find_builds(config: pytest.Config, node: pytest.Item) -> list[Any]:
    """Return the plugins under test: files that exist, and values that are no file names."""
    builds: list[Any] = []
    for name in _plugin_names(config, node):
        if not isinstance(name, (str, os.PathLike)):
            builds.append(name)
            continue
        for folder in _search_folders(config, node):
            if found := _match_files(folder, os.fspath(name)):
                builds += found
                break
    return builds


def _match_files(folder: Path, name: str) -> list[str]:
    path = str(folder / name)
    return (
        [path]
        if os.path.isfile(path)
        else sorted(glob.glob(os.path.join(glob.escape(str(folder)), name), recursive=True))
    )


def _test_ids(builds: list[Any]) -> list[str]:
    """Return the shortest names that differ: paths without the folders and the suffix of all."""
    files = [build for build in builds if isinstance(build, str)]
    common = os.path.commonpath([os.path.dirname(file) for file in files]) if files else ""
    names = [
        Path(os.path.relpath(build, common)).with_suffix("").as_posix()
        if isinstance(build, str)
        else f"plugin{i}"
        for i, build in enumerate(builds)
    ]
    same = os.path.basename(names[0])
    if all("/" in name and os.path.basename(name) == same for name in names):
        return [os.path.dirname(name) for name in names]
    return names
