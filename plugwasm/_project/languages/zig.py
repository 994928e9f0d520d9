"""Zig. The compiler comes from PyPI, or is on the PATH.

A source file is compiled with the kit. A folder is built by its `build.zig`, which may have
dependencies; the first time on a machine, Zig compiles its build system, which takes minutes.
"""

from __future__ import annotations

import os
from importlib.util import find_spec

from ..kits import kit_folder
from ..language import Language
from ..problems import BuildError
from ..toolchain import Tool, find_program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from ..language import Job

__all__ = ["ZIG", "ZIG_TOOL"]


def _find_zig() -> tuple[str, ...] | None:
    """Prefer the compiler from PyPI, whose version is known to work.

    Its program is run itself: `python -m ziglang` would import what lies in the project's folder.
    """
    package = find_spec("ziglang")
    for folder in (package and package.submodule_search_locations) or ():
        program = os.path.join(folder, "zig")
        if os.access(program, os.X_OK):
            return (program,)
    return find_program("zig")


def _compile(job: Job) -> None:
    if os.path.isdir(job.source):
        _build_folder(job)
        return
    kit = "pdk/src/plugwasm.zig"
    if not os.path.isfile(job.project.path(kit)):
        kit = str(kit_folder("zig") / "src" / "plugwasm.zig")
    source = os.path.relpath(job.source, job.folder)
    options = ["-target", "wasm32-freestanding", "-O", "ReleaseSmall", "-fno-entry", "-rdynamic"]
    options += ["--stack", "65536", *job.build.flags]
    modules = ["--dep", "plugwasm", f"-Mroot={source}", f"-Mplugwasm={kit}"]
    job.run(["build-exe", *options, *modules, f"-femit-bin={job.output}"])


def _build_folder(job: Job) -> None:
    # In the project's folder, where `zig build` keeps its cache as well.
    job.run(
        ["build", "--release=small", "--prefix", job.scratch, *job.build.flags], folder=job.source
    )
    folder = os.path.join(job.scratch, "bin")
    made = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    modules = [name for name in made if name.endswith(".wasm")]
    if len(modules) != 1:
        raise BuildError(
            f"`zig build` installed {', '.join(modules) or 'no module'}; expected one .wasm file, "
            "from one executable that build.zig installs"
        )
    os.replace(os.path.join(folder, modules[0]), job.output)


ZIG_TOOL: Final = Tool(
    name="Zig",
    find_command=_find_zig,
    version=("version",),
    minimum=(0, 16),
    install="Install Zig: pip install 'plugwasm[build]'",
)

ZIG: Final = Language(
    name="zig",
    title="Zig",
    source="src/plugin.zig",
    code_file="src/plugin.zig",
    needs_wasi=False,
    tools=(ZIG_TOOL,),
    compile=_compile,
    registry="`zig fetch --save URL` takes it",
)
