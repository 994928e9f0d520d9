"""JavaScript and Python: the script and its interpreter become one module.

The interpreter is built once on a machine, with Zig. `plugin.d.ts` beside a script in JavaScript
declares the host functions that it imports; one in Python declares them by itself.
"""

from __future__ import annotations

from pathlib import Path

from ...errors import CallError, ScriptError
from ..language import Language
from ..problems import BuildError, ProjectError
from .zig import ZIG_TOOL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from ..language import Job

__all__ = ["JAVASCRIPT", "PYTHON"]


def _compile(job: Job) -> None:
    if job.build.flags:
        raise ProjectError("field `build.flags`: a script has no compiler that takes flags")
    from ..._script.standalone import build_script_file

    try:
        wasm = build_script_file(Path(job.source))
    except (ScriptError, CallError) as error:
        raise BuildError(error.message) from error
    Path(job.output).write_bytes(wasm)


JAVASCRIPT: Final = Language(
    name="javascript",
    title="JavaScript",
    source="src/plugin.js",
    code_file="src/plugin.js",
    needs_wasi=True,
    tools=(ZIG_TOOL,),
    compile=_compile,
    registry="",
)

PYTHON: Final = Language(
    name="python",
    title="Python",
    source="src/plugin.py",
    code_file="src/plugin.py",
    needs_wasi=True,
    tools=(ZIG_TOOL,),
    compile=_compile,
    registry="",
)
