"""JavaScript, TypeScript and Python: the script and its interpreter become one module.

The interpreter is built once on a machine, with Zig, and kept. `plugin.d.ts` beside a script in
JavaScript or TypeScript declares the host functions that it imports; one in Python declares them by
itself. TypeScript is bundled by esbuild, which is a package of the project.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from ...errors import CallError, ScriptError
from ..language import Language
from ..problems import BuildError, ProjectError
from ..toolchain import find_program
from .npm import NPM_TOOLS, PACKAGE_FILE, install_packages, is_outdated
from .zig import ZIG_TOOL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from ..language import Job
    from ..toolchain import FoundTool, Tool

__all__ = ["JAVASCRIPT", "PYTHON", "TYPESCRIPT"]

_OTHER_LOCK_FILES: Final = ("pnpm-lock.yaml", "yarn.lock", "bun.lock", "bun.lockb")
"""Files of a project whose packages another program than npm installs."""


class ScriptLanguage(Language):
    """A language of scripts. Its tools are needed only until its interpreter is built."""

    def find_tools(self, folder: str | None = None) -> tuple[FoundTool, ...]:
        from ..._script.engine_build import is_kept
        from ..._script.languages import LANGUAGES

        return () if is_kept(LANGUAGES[self.name]) else super().find_tools(folder)


class TypeScriptLanguage(ScriptLanguage):
    """TypeScript, whose interpreter is that of JavaScript. npm is needed until it has installed the
    packages.
    """

    def find_tools(self, folder: str | None = None) -> tuple[FoundTool, ...]:
        found = JAVASCRIPT.find_tools(folder)
        if folder is not None and not _needs_npm(folder):
            return found
        return found + tuple(tool.find(folder) for tool in NPM_TOOLS)


def _needs_npm(folder: str) -> bool:
    """Return whether npm must install packages before a project in TypeScript can be built."""
    from ..._script.bundling import find_esbuild, find_installed

    if not os.path.isfile(os.path.join(folder, PACKAGE_FILE)):
        return False
    if any(os.path.exists(os.path.join(folder, file)) for file in _OTHER_LOCK_FILES):
        return False
    if find_program("npm") is None and find_esbuild(folder) is not None:
        return False
    is_npms = os.path.exists(os.path.join(folder, "node_modules", ".package-lock.json"))
    return is_outdated(folder) if is_npms else find_installed(folder) is None


def _compile_typescript(job: Job) -> None:
    if any(tool.name == "npm" for tool in job.tools):
        install_packages(job)
    _compile(job)


def _compile(job: Job) -> None:
    if job.build.flags:
        raise ProjectError("field `build.flags`: a script has no compiler that takes flags")
    from ..._script.standalone import build_script_file

    try:
        wasm = build_script_file(Path(job.source))
    except (ScriptError, CallError) as error:
        raise BuildError(error.message) from error
    Path(job.output).write_bytes(wasm)


_TOOLS: Final = (
    replace(
        ZIG_TOOL,
        install="Install Zig, which builds the interpreter: pip install 'plugwasm[script]'",
    ),
)


def _language(
    name: str,
    title: str,
    source: str,
    *,
    kind: type[ScriptLanguage] = ScriptLanguage,
    more_tools: tuple[Tool, ...] = (),
    compile: Callable[[Job], None] = _compile,
    check: str = "",
) -> ScriptLanguage:
    return kind(
        name=name,
        title=title,
        source=source,
        code_file=source,
        needs_wasi=True,
        tools=(*_TOOLS, *more_tools),
        compile=compile,
        registry="",
        check=check,
    )


JAVASCRIPT: Final = _language("javascript", "JavaScript", "src/plugin.js")
TYPESCRIPT: Final = _language(
    "typescript",
    "TypeScript",
    "src/plugin.ts",
    kind=TypeScriptLanguage,
    more_tools=NPM_TOOLS,
    compile=_compile_typescript,
    check="npm run check",
)
PYTHON: Final = _language("python", "Python", "src/plugin.py")
