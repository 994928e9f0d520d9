"""`plugwasm build`: builds a project, once or after each change, and shows what was built."""

from __future__ import annotations

import os
import sys

from .._project.build import build_project, plan_build
from .._project.needs import explain_host_function
from .._project.problems import BuildError
from .._project.project_file import read_project, script_project
from .._project.watching import take_stamp, wait_for_change
from .._script.names import SUFFIXES
from ..errors import Error
from .terminal import escape, escape_lines, print_error, print_warning, write_stdout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .._project.build import BuildPlan, Built
    from .._project.project_file import Project

__all__ = ["build_once", "watch_project"]


def build_once(directory: str, output: str | None) -> bool:
    """Build a project, and return whether it could be built. Errors of its files are raised."""
    return _build(plan_build(_read(directory), output))


def watch_project(directory: str, output: str | None) -> None:
    """Build a project now and after each change of its files, until Ctrl-C.

    Errors of its files are raised the first time; later they are shown, as half-written files are.
    """
    first = plan_build(_read(directory), output)
    folder, target = first.project.folder, first.output
    plan: BuildPlan | None = first
    try:
        while True:
            # Taken before the build, so that what changes meanwhile is built as well.
            stamp = take_stamp(folder, target)
            if plan is not None:
                _build(plan)
            _note(f"watching {escape(folder)} (Ctrl-C ends it)")
            wait_for_change(folder, target, stamp)
            plan = _plan_again(directory, output)
    except KeyboardInterrupt:
        _note("")


def _read(path: str) -> Project:
    """Return the project in a folder, or what a script is as one."""
    is_script = path.endswith(tuple(SUFFIXES)) and not os.path.isdir(path)
    return script_project(path) if is_script else read_project(path)


def _plan_again(directory: str, output: str | None) -> BuildPlan | None:
    try:
        return plan_build(_read(directory), output)
    except Error as error:
        print_error(escape_lines(error.message))
        return None


def _build(plan: BuildPlan) -> bool:
    what = plan.source if plan.project.is_script else plan.project.folder
    tools = f" with {', '.join(map(str, plan.tools))}" if plan.tools else ""
    _note(f"building {escape(os.path.basename(what))}{escape(tools)}")
    try:
        built = build_project(plan)
    except BuildError as error:
        print_error(escape_lines(error.message, max_lines=100))
        return False
    _show(built)
    return True


def _note(text: str) -> None:
    """Write a line to stderr that says what is going on."""
    from rich.text import Text

    from .terminal import stderr_console

    stderr_console().print(Text(text, "dim"), soft_wrap=True)


def _show(built: Built) -> None:
    """Write what was built to stdout, and what its author should know to stderr."""
    needs = built.needs
    wanted = []
    if needs.wasi:
        wanted.append("WASI (--wasi)")
    if needs.http:
        wanted.append("HTTP, to hosts that are granted (--allow-host)")
    wanted += [
        f"host function {escape(module)}.{escape(name)} {type}"
        for module, name, type in needs.host_functions
    ]
    rows = {
        "exports": ", ".join(map(escape, needs.exports)) or "none that can be called",
        "needs": "\n           ".join(wanted) or "nothing",
        "size": f"{built.size:,} bytes",
        "took": f"{built.seconds:.1f} s",
    }
    path = os.path.relpath(built.path)
    lines = [escape(built.path if path.startswith("..") else path)]
    lines += [f"  {name:8} {value}" for name, value in rows.items()]
    write_stdout(("\n".join(lines) + "\n").encode(sys.stdout.encoding or "utf-8", "replace"))
    for name, type in needs.not_callable:
        print_warning(
            f"{escape(name)} is exported as {type}, and cannot be called: an export takes no "
            "parameters, and returns i32 or nothing"
        )
    if not (needs.exports or needs.not_callable):
        print_warning("nothing can be called: no function is exported")
    for module, name, _ in needs.host_functions:
        if reason := explain_host_function(module, name):
            print_warning(f"{escape(module)}.{escape(name)}: {reason}")
