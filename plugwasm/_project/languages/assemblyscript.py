"""AssemblyScript, with the project's `package.json`.

The compiler is a package of npm, which is installed into the project.
"""

from __future__ import annotations

import os

from ..language import Language
from ..problems import ProjectError
from .npm import NPM_TOOLS, PACKAGE_FILE, install_packages

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from ..language import Job

__all__ = ["ASSEMBLYSCRIPT"]

_KIT: Final = "node_modules/@plugwasm/pdk"
_ABORT: Final = "abort=~lib/@plugwasm/pdk/assembly/index/abort"
"""What a failed assertion calls: it sets its message as the error."""


def _compile(job: Job) -> None:
    if not os.path.isfile(job.project.path(PACKAGE_FILE)):
        raise ProjectError(
            f"{job.folder} has no {PACKAGE_FILE}, which names the compiler and the kit"
        )
    install_packages(job)
    compiler = job.project.path("node_modules/assemblyscript/bin/asc.js")
    if not os.path.isfile(compiler):
        raise ProjectError(
            "the project has no compiler\nInstall it: npm install --save-dev assemblyscript"
        )
    source = os.path.relpath(job.source, job.folder)
    kit = ["--use", _ABORT] if os.path.exists(job.project.path(_KIT)) else []
    job.run([compiler, source, "--optimize", *kit, *job.build.flags, "-o", job.output])


ASSEMBLYSCRIPT: Final = Language(
    name="assemblyscript",
    title="AssemblyScript",
    source="assembly/index.ts",
    code_file="assembly/index.ts",
    needs_wasi=False,
    tools=NPM_TOOLS,
    compile=_compile,
    registry="`npm install --save-dev @plugwasm/pdk` takes it from npm",
)
