"""AssemblyScript, with the project's `package.json`.

The compiler is a package of npm. It is installed into the project, and scripts of packages do not
run.
"""

from __future__ import annotations

import os

from ..language import Language
from ..problems import ProjectError
from ..toolchain import Tool, find_program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from ..language import Job

__all__ = ["ASSEMBLYSCRIPT"]

_INSTALL: Final = "Install Node.js, which brings npm, from https://nodejs.org"
_KIT: Final = "node_modules/@plugwasm/pdk"
_INSTALLED: Final = "node_modules/.package-lock.json"
_ABORT: Final = "abort=~lib/@plugwasm/pdk/assembly/index/abort"
"""What a failed assertion calls: it sets its message as the error."""


def _compile(job: Job) -> None:
    if not os.path.isfile(job.project.path("package.json")):
        raise ProjectError(
            f"{job.folder} has no package.json, which names the compiler and the kit"
        )
    if _is_outdated(job):
        job.run(
            ["install", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"], tool=1
        )
        if os.path.exists(job.project.path(_INSTALLED)):  # npm leaves it if nothing is new
            os.utime(job.project.path(_INSTALLED))
    compiler = job.project.path("node_modules/assemblyscript/bin/asc.js")
    if not os.path.isfile(compiler):
        raise ProjectError(
            "the project has no compiler\nInstall it: npm install --save-dev assemblyscript"
        )
    source = os.path.relpath(job.source, job.folder)
    kit = ["--use", _ABORT] if os.path.exists(job.project.path(_KIT)) else []
    job.run([compiler, source, "--optimize", *kit, *job.build.flags, "-o", job.output])


def _is_outdated(job: Job) -> bool:
    """Return whether the packages are missing or older than the list of them."""
    try:
        installed = os.stat(job.project.path(_INSTALLED)).st_mtime_ns
    except OSError:
        return True
    return os.stat(job.project.path("package.json")).st_mtime_ns > installed


ASSEMBLYSCRIPT: Final = Language(
    name="assemblyscript",
    title="AssemblyScript",
    source="assembly/index.ts",
    code_file="assembly/index.ts",
    needs_wasi=False,
    tools=(
        Tool(
            name="Node.js",
            find_command=lambda: find_program("node"),
            version=("--version",),
            minimum=(20, 0),
            install=_INSTALL,
        ),
        Tool(
            name="npm",
            find_command=lambda: find_program("npm"),
            version=("--version",),
            minimum=(9, 0),
            install=_INSTALL,
        ),
    ),
    compile=_compile,
    registry="`npm install --save-dev @plugwasm/pdk` takes it from npm",
)
