"""Builds a project: compiles it, checks what was made, and writes it in one step.

A build runs the toolchain, which runs code of the project where the language has that: build
scripts and macros of Rust, `build.zig`. So a stranger's project is built only where a stranger's
program may run. The module itself is compiled here, and nothing of it runs.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from time import perf_counter

from .._manifest.files import format_path, read_file
from .._manifest.limits import DEFAULT_LIMITS
from .._manifest.resolve import resolve_module
from .._platform.new_files import write_file
from .._runtime.facts import collect_facts
from ..errors import Error
from .language import Job
from .languages import LANGUAGES
from .needs import Needs, explain_missing
from .problems import BuildError, ProjectError
from .project_file import PROJECT_FILE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .language import Language
    from .project_file import Build, Project
    from .toolchain import FoundTool

__all__ = ["BuildPlan", "Built", "build_project", "check_module", "plan_build"]


@dataclass(frozen=True)
class BuildPlan:
    """A build that can begin: the project is complete, and the tools are here.

    Attributes:
        source: The absolute path of what is compiled.
        output: The absolute path of the module to write.
    """

    project: Project
    build: Build
    language: Language
    tools: tuple[FoundTool, ...]
    source: str
    output: str


@dataclass(frozen=True)
class Built:
    """A module that was built and written.

    Attributes:
        path: The absolute path of the file.
        size: Its bytes.
        needs: What it exports, and what an application has to grant it.
        seconds: What the compilation took.
    """

    path: str
    size: int
    needs: Needs
    seconds: float


def plan_build(project: Project, output: str | None = None) -> BuildPlan:
    """Check that a project can be built here.

    Args:
        project: The project.
        output: The file to write, anywhere; by default, the one that the project names, in it.

    Raises:
        ProjectError: It cannot; the message says what is missing.
    """
    if project.build is None:
        raise ProjectError(
            f"{format_path(project.path(PROJECT_FILE))} has no table [build]; it needs\n"
            f'[build]\nlanguage = "…" # one of {", ".join(LANGUAGES)}'
        )
    language = LANGUAGES[project.build.language]
    source = project.path(project.build.source or language.source)
    if not os.path.exists(source):
        if project.is_script:
            raise ProjectError(f"no such file: {format_path(source)}")
        raise ProjectError(
            f"field `build.source`: {format_path(source)} does not exist; it is what a project in "
            f"{language.title} is built from"
        )
    _check_inside(project, "source", source)
    if output is None:
        output = project.path(project.build.output)
        _check_inside(project, "output", os.path.dirname(output))
    output = os.path.abspath(output)
    if os.path.isdir(output):
        raise ProjectError(f"{format_path(output)} is a folder; expected the name of a file")
    source = os.path.realpath(source)
    tools = language.find_tools(source if os.path.isdir(source) else project.folder)
    return BuildPlan(project, project.build, language, tools, source, output)


def build_project(plan: BuildPlan, *, quiet: bool = False) -> Built:
    """Build a project.

    Args:
        plan: What to build.
        quiet: Whether what the toolchain writes goes into the error instead of to stderr.

    Raises:
        BuildError: It does not compile, or what it compiles to is no plugin.
        ProjectError: Something is missing.
        OSError: The module cannot be written.
    """
    begun = perf_counter()
    with tempfile.TemporaryDirectory(prefix="plugwasm-build-") as scratch:
        made = os.path.join(scratch, "plugin.wasm")
        job = Job(plan.project, plan.build, plan.source, made, scratch, plan.tools, quiet)
        plan.language.compile(job)
        seconds = perf_counter() - begun
        try:
            wasm = read_file(made, DEFAULT_LIMITS.module_bytes)
        except Error as error:
            raise BuildError(f"the compiler made no module: {error.message}") from None
    needs = check_module(wasm, os.path.basename(plan.output))
    os.makedirs(os.path.dirname(plan.output), exist_ok=True)
    write_file(plan.output, wasm, 0o666)
    return Built(plan.output, len(wasm), needs, seconds)


def check_module(wasm: bytes, name: str) -> Needs:
    """Return what a module needs of an application.

    Raises:
        BuildError: It can be loaded nowhere.
    """
    try:
        facts = collect_facts(resolve_module(wasm, name))
    except Error as error:
        raise BuildError(f"what was built does not load: {error.message}") from None
    (module,) = facts["modules"]
    refused = [
        item for item in module["imports"] if item["provider"] == "nobody" or not item["fits"]
    ]
    if refused:
        reasons = [explain_missing(item) for item in refused[:10]]
        more = [f"… and {len(refused) - 10} more"] if len(refused) > 10 else []
        raise BuildError("\n".join(["what was built imports what no host has", *reasons, *more]))
    return Needs.of(module)


def _check_inside(project: Project, field: str, path: str) -> None:
    """Check that a path of the project file stays in the project, after its links."""
    real = os.path.realpath(path)
    if os.path.commonpath([real, project.folder]) != project.folder:
        hint = "; --output names a file anywhere" if field == "output" else ""
        raise ProjectError(
            f"field `build.{field}`: {format_path(path)} is a link to {format_path(real)}, outside "
            f"of the project{hint}"
        )
