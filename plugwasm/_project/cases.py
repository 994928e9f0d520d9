"""Runs the cases of a project.

Each case has a plugin of its own, in a harness (`plugwasm.testing`): as a `PluginSet` would load
it, with what its manifest asks for and nothing else, and with answers of the case in place of the
network and of the application's functions. WASI is there; `plugwasm build` says whether an
application has to grant it.

Decisions: docs/decisions.md, 55.2.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from time import perf_counter

import msgspec

from .._manifest.files import format_path
from .._plugin_set.discovery import FolderSource
from .._runtime.compiled_plugin import CompiledPlugin
from ..errors import (
    CallError,
    EgressDeniedError,
    EgressError,
    Error,
    FunctionNotFoundError,
    ManifestError,
    SignatureError,
    SourceError,
    escape_line,
)
from ..testing import Harness, UnexpectedHostCallError, UnexpectedRequestError
from .case_answers import HostAnswers, HttpAnswers, data_difference
from .case_model import DEFAULT_TIMEOUT_MS, Data
from .differences import read_json
from .paths import read_project_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .._manifest.resolve import PluginSpec
    from .._runtime.plugin import Plugin
    from .case_model import Call, Case
    from .project_file import Project

__all__ = ["CaseOutcome", "CaseRunner", "default_config", "load_plugin"]

_MODULE_BYTES = 256 * 2**20
_NOT_EXPECTED = (
    UnexpectedHostCallError,
    UnexpectedRequestError,
    FunctionNotFoundError,
    SignatureError,
)
"""Errors that no case expects: something is missing from it, or it is wrong."""


@dataclass(frozen=True, slots=True)
class CaseOutcome:
    """How a case ended.

    Attributes:
        case: The case.
        problems: What was not as the case says; each is one or more lines that a terminal can show.
            Empty if it passed.
        seconds: How long it took.
        transcript: What the plugin did; empty if it did nothing.
    """

    case: Case
    problems: tuple[str, ...]
    seconds: float
    transcript: str

    @property
    def passed(self) -> bool:
        """Whether everything was as the case says."""
        return not self.problems


class CaseRunner:
    """Runs cases of a project with its module as it was when the runner was made.

    Raises:
        Error: The plugin cannot be loaded.
    """

    def __init__(self, project: Project) -> None:
        self._project = project
        self._spec = load_plugin(project)
        self._config = default_config(project)

    def run(self, case: Case) -> CaseOutcome:
        """Run a case."""
        start = perf_counter()
        harness = None
        try:
            harness = self._make_harness(case)
            with harness:
                problems = _Run(case, self._project.folder, harness).problems()
        except Error as error:
            problems = [_describe(error)]
        transcript = harness.transcript() if harness is not None else ""
        return CaseOutcome(
            case,
            tuple(problems),
            perf_counter() - start,
            "\n".join(map(escape_line, transcript.splitlines())),
        )

    def _make_harness(self, case: Case) -> Harness:
        folder = self._project.folder
        spec: Any = self._spec.copy()
        if case.timeout_ms is not None or spec.timeout_ms is None:
            spec.timeout_ms = case.timeout_ms or DEFAULT_TIMEOUT_MS
        if case.allowed_hosts is not None:
            spec.allowed_hosts = tuple(case.allowed_hosts)
        if case.allowed_paths is not None:
            spec.allowed_paths = {
                _absolute(folder, path): guest for path, guest in case.allowed_paths.items()
            }
        _check_directories(spec, folder)
        return Harness(
            spec,
            config=self._config | case.config,
            vars={name: _as_data(value).read(folder) for name, value in case.vars.items()},
            wasi=True,
            allowed_hosts=spec.allowed_hosts,
            http_response_headers=True,
            log_level=case.log_level,
            name=os.path.basename(folder),
        )


class _Run:
    """One run of a case in its harness."""

    def __init__(self, case: Case, folder: str, harness: Harness) -> None:
        self._case = case
        self._folder = folder
        self._harness = harness
        self._host = HostAnswers(case.host, folder, harness)
        self._http = HttpAnswers(case.http, folder, harness)

    def problems(self) -> list[str]:
        """Make the calls, and return what was not as the case says."""
        problems: list[str] = []
        with self._harness.plugin() as plugin:
            for number, call in enumerate(self._case.calls):
                where = f"then[{number - 1}], `{call.function}`: " if number else ""
                problem = self._call(plugin, call)
                if problem:
                    # What comes after a call that went wrong would only repeat it.
                    return [f"{where}{problem}"]
            found = plugin.vars
        problems += self._vars_problems(found)
        problems += self._log_problems()
        return problems + self._host.unused() + self._http.unused()

    def _call(self, plugin: Plugin, call: Call) -> str:
        data = call.input_data.read(self._folder)
        try:
            output = plugin.call(call.function, data)
        except _NOT_EXPECTED as error:
            return _describe(error)
        except (CallError, EgressError) as error:
            return _error_problem(call, error)
        if call.fails:
            return f"it must fail, but it returned {_outline(output)}"
        return self._output_problem(call, output)

    def _output_problem(self, call: Call, output: bytes) -> str:
        expected = call.output_data
        if call.output_json_file is not None:
            try:
                value = read_json(read_project_file(self._folder, call.output_json_file))
            except ValueError as error:
                raise SourceError(
                    f"{format_path(call.output_json_file)} is no JSON: {error}"
                ) from None
            expected = Data(json=value)
        if expected is None:
            return ""
        return _titled("output", data_difference(expected, output, self._folder))

    def _vars_problems(self, found: dict[str, bytes]) -> list[str]:
        expected = self._case.vars_after
        if expected is None:
            return []
        problems = []
        for name, value in expected.items():
            where = f"vars_after.{escape_line(name)}"
            if name not in found:
                problems.append(f"{where}: the plugin has no such var")
            elif difference := data_difference(_as_data(value), found[name], self._folder):
                problems.append(_titled(where, difference))
        problems += [
            f"vars_after: the plugin has another var, {escape_line(name)!r} = {_outline(value)}"
            for name, value in found.items()
            if name not in expected
        ]
        return problems

    def _log_problems(self) -> list[str]:
        expected = self._case.logs
        if expected is None:
            return []
        got = [(line.level, line.message) for line in self._harness.logs]
        for number in range(max(len(got), len(expected))):
            wanted = _log_line(expected[number]) if number < len(expected) else "no further line"
            line = _log_line(got[number]) if number < len(got) else "no further line"
            if wanted != line:
                return [f"logs[{number}]: expected {wanted}\n{' ' * 9}{' ' * 5}got {line}"]
        return []


def load_plugin(project: Project) -> PluginSpec:
    """Read the module and the manifest of a project, as a `PluginSet` does.

    Raises:
        Error: It cannot be read, or is not valid.
    """
    output = project.build.output if project.build is not None else "plugin.wasm"
    file = project.file
    source = FolderSource(os.path.basename(project.folder), project.folder)
    with source.open():
        if file.manifest is not None or output != "plugin.wasm":
            manifest = {"wasm": [{"path": output}]} | (file.manifest or {})
            file = msgspec.structs.replace(file, manifest=manifest)
        try:
            spec = source.load(file, _MODULE_BYTES)
        except SourceError as error:
            if "no such file" in error.message:
                raise SourceError(
                    f"{error.message}; has the plugin been built? `plugwasm build` does that"
                ) from None
            raise
    assert not isinstance(spec, CompiledPlugin)
    return spec


def default_config(project: Project) -> dict[str, str]:
    """Return the defaults of the settings."""
    return {
        name: setting.default
        for name, setting in project.file.plugin.settings.items()
        if setting.default is not None
    }


def _check_directories(spec: PluginSpec, folder: str) -> None:
    """Raise `ManifestError` if a test would have the plugin use directories outside the project."""
    for path in spec.allowed_paths:
        real = os.path.realpath(path.removeprefix("ro:"))
        if os.path.commonpath([real, folder]) != folder:
            raise ManifestError(
                f"the manifest grants {format_path(path)}, which is not in the project: "
                "a test uses no other files; grant some of the project in its place, "
                "with `allowed_paths` in [[test]]",
                field="allowed_paths",
            )


def _absolute(folder: str, path: str) -> str:
    prefix = "ro:" if path.startswith("ro:") else ""
    return prefix + os.path.join(folder, path.removeprefix("ro:"))


def _error_problem(call: Call, error: Error) -> str:
    if not call.fails:
        return _describe(error)
    if call.error_code is not None and error.code != call.error_code:
        got = "no code" if error.code is None else f"the code {error.code}"
        return f"it must fail with the code {call.error_code}, got {got}: {_describe(error)}"
    wanted = call.error or ""
    if wanted not in (error.guest_message or "") and wanted not in error.message:
        return f"it must fail with {escape_line(repr(wanted))}, got: {_describe(error)}"
    return ""


def _describe(error: Error) -> str:
    """Return the message of an error, and what to do about it in a case."""
    lines = [escape_line(line) for line in error.message.splitlines()] or [type(error).__name__]
    if isinstance(error, EgressDeniedError):
        lines.append("`allowed_hosts` in [manifest] says which hosts the plugin may reach")
    return "\n".join(lines)


def _titled(title: str, difference: str) -> str:
    """Return a difference below its title, or beside it if it has one line; empty for none."""
    if not difference:
        return ""
    if "\n" not in difference:
        return f"{title}: {difference}"
    return "\n".join([f"{title}:", *(f"  {line}" for line in difference.splitlines())])


def _outline(data: bytes) -> str:
    try:
        text = repr(data[:400].decode())
    except UnicodeDecodeError:
        text = repr(data[:400])
    shown = text if len(text) <= 120 else f"{text[:110]} …"
    return f"{escape_line(shown)}{'' if len(data) <= 100 else f' ({len(data)} bytes)'}"


def _log_line(line: tuple[str, str]) -> str:
    return escape_line(f"{line[0]}: {line[1]!r}")


def _as_data(value: str | Data) -> Data:
    return Data(text=value) if isinstance(value, str) else value
