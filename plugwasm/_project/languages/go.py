"""Go, with the project's `go.mod`. Its run time needs WASI."""

from __future__ import annotations

from ..language import Language
from ..toolchain import Tool, find_program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from ..language import Job

__all__ = ["GO"]


def _compile(job: Job) -> None:
    # Neither paths nor the state of the repository are in the module: the same source makes the
    # same module.
    arguments = ["build", "-buildmode=c-shared", "-trimpath", "-buildvcs=false"]
    arguments += ["-ldflags=-s -w -buildid=", *job.build.flags, "-o", job.output, "."]
    job.run(arguments, folder=job.source, environment={"GOOS": "wasip1", "GOARCH": "wasm"})


GO: Final = Language(
    name="go",
    title="Go",
    source=".",
    code_file="plugin.go",
    needs_wasi=True,
    tools=(
        Tool(
            name="Go",
            find_command=lambda: find_program("go"),
            version=("env", "GOVERSION"),
            minimum=(1, 24),
            install="Install Go from https://go.dev/dl/",
        ),
    ),
    compile=_compile,
    registry="`go get` with its address takes it from the module proxy",
)
