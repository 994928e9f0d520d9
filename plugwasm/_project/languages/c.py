"""C and C++, with the clang in Zig.

C has no C library, and C++ has one, on WASI. With `wasi = true` C has one as well.
"""

from __future__ import annotations

import os
from importlib.util import find_spec

from ..language import Language
from .zig import ZIG_TOOL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from ..language import Job

__all__ = ["CPP", "C"]

_COMMON: Final = ("-Wall", "-Wextra", "-s", "-fno-sanitize=undefined")
_FREESTANDING: Final = ("-target", "wasm32-freestanding", "-O2", "-nostdlib", "-Wl,--no-entry")
_WASI: Final = ("-target", "wasm32-wasi", "-Os", "-mexec-model=reactor")
_STACK: Final = "-Wl,-z,stack-size=262144"


def _compile_c(job: Job) -> None:
    target = _WASI if job.build.wasi else _FREESTANDING
    includes = job.include_folders("c")
    sources = job.find_sources((".c",))
    job.run(
        ["cc", *_COMMON, *target, *includes, *job.build.flags, *sources, "-o", job.output],
    )


def _compile_cpp(job: Job) -> None:
    options = ["-std=c++20", "-fno-exceptions", *_COMMON, *_WASI, _STACK]
    includes = [*job.include_folders("c", "cpp"), *_json_library()]
    sources = job.find_sources((".cpp", ".cc", ".cxx", ".c++"))
    job.run(["c++", *options, *includes, *job.build.flags, *sources, "-o", job.output])


def _json_library() -> tuple[str, ...]:
    """Return the option for the headers of nlohmann/json, which a package of PyPI has."""
    package = find_spec("nlohmann_json")
    for folder in (package and package.submodule_search_locations) or ():
        headers = os.path.join(folder, "include")
        if os.path.isdir(headers):
            return ("-isystem", headers)
    return ()


C: Final = Language(
    name="c",
    title="C",
    source="src",
    code_file="src/plugin.c",
    needs_wasi=False,
    tools=(ZIG_TOOL,),
    compile=_compile_c,
    registry="",
)

CPP: Final = Language(
    name="cpp",
    title="C++",
    source="src",
    code_file="src/plugin.cpp",
    needs_wasi=True,
    tools=(ZIG_TOOL,),
    compile=_compile_cpp,
    registry="",
)
