"""JavaScript and Python: the script and its interpreter become one module.

The interpreter is built once on a machine, with Zig, and kept. `plugin.d.ts` beside a script in
JavaScript declares the host functions that it imports; one in Python declares them by itself.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ...errors import CallError, ScriptError
from ..language import Language
from ..problems import BuildError, ProjectError
from .zig import ZIG_TOOL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from ..language import Job
    from ..toolchain import FoundTool

__all__ = ["JAVASCRIPT", "PYTHON"]


class ScriptLanguage(Language):
    """A language of scripts. Its tools are needed only until its interpreter is built."""

    def find_tools(self, folder: str | None = None) -> tuple[FoundTool, ...]:
        from ..._script.engine_build import is_kept
        from ..._script.languages import LANGUAGES

        return () if is_kept(LANGUAGES[self.name]) else super().find_tools(folder)


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


def _language(name: str, title: str, source: str) -> ScriptLanguage:
    return ScriptLanguage(
        name=name,
        title=title,
        source=source,
        code_file=source,
        needs_wasi=True,
        tools=_TOOLS,
        compile=_compile,
        registry="",
    )


JAVASCRIPT: Final = _language("javascript", "JavaScript", "src/plugin.js")
PYTHON: Final = _language("python", "Python", "src/plugin.py")
