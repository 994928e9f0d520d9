"""Rust, with the project's `Cargo.toml`. How a release is optimised stands there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

from ..language import Language
from ..problems import BuildError, ProjectError
from ..toolchain import Tool, find_program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from ..language import Job

__all__ = ["RUST"]

CARGO: Final = "PLUGWASM_CARGO"
"""The variable that names another cargo, which brings its own targets."""

_TARGET: Final = "wasm32-unknown-unknown"
_WASI_TARGET: Final = "wasm32-wasip1"


def _find_cargo() -> tuple[str, ...] | None:
    return find_program(os.environ.get(CARGO) or "cargo")


def _compile(job: Job) -> None:
    target = _WASI_TARGET if job.build.wasi else _TARGET
    if not os.environ.get(CARGO):
        _check_target(target, job.source)
    # The messages for machines are on stdout, and those for people on stderr.
    arguments = ["build", "--release", "--target", target]
    arguments += [
        "--message-format=json-render-diagnostics",
        *_remap(job, target),
        *job.build.flags,
    ]
    said = job.run(arguments, folder=job.source, wants_stdout=True)
    modules = _modules(said, os.path.join(job.source, "Cargo.toml"))
    if len(modules) != 1:
        raise BuildError(
            f"`cargo build` made {', '.join(map(os.path.basename, modules)) or 'no module'}; "
            'expected one .wasm file: Cargo.toml needs [lib] with crate-type = ["cdylib"]'
        )
    shutil.copyfile(modules[0], job.output)


def _check_target(target: str, folder: str) -> None:
    """Raise `ProjectError` if the compiler has no standard library for a target."""
    try:
        done = subprocess.run(
            ["rustc", "--print", "target-libdir", "--target", target],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return  # cargo knows another way to it
    if done.returncode == 0 and not os.path.isdir(done.stdout.strip()):
        raise ProjectError(
            f"Rust is installed, but not its target {target}\n"
            f"Install it: rustup target add {target}"
        )


def _remap(job: Job, target: str) -> list[str]:
    """Return options that keep the author's folders out of the module, where panics name them.

    They would replace the flags that the project's own configuration has for all targets.
    """
    if any(os.path.isdir(os.path.join(folder, ".cargo")) for folder in (job.source, job.folder)):
        return []
    home = os.environ.get("CARGO_HOME") or os.path.expanduser("~/.cargo")
    flag = json.dumps(f"--remap-path-prefix={home}=/cargo")
    return ["--config", f"target.{target}.rustflags=[{flag}]"]


def _modules(said: bytes, cargo_toml: str) -> list[str]:
    """Return the modules that cargo made of a package, from what it said in JSON."""
    modules = []
    for line in said.splitlines():
        if not line.startswith(b"{"):
            continue
        message = json.loads(line)
        if message.get("reason") == "compiler-artifact" and os.path.realpath(
            message["manifest_path"]
        ) == os.path.realpath(cargo_toml):
            modules += [name for name in message["filenames"] if name.endswith(".wasm")]
    return modules


CARGO_TOOL: Final = Tool(
    name="Rust",
    find_command=_find_cargo,
    version=("--version",),
    minimum=(1, 81),
    install=f"Install Rust from https://rustup.rs, then: rustup target add {_TARGET}",
)

RUST: Final = Language(
    name="rust",
    title="Rust",
    source=".",
    code_file="src/lib.rs",
    needs_wasi=False,
    tools=(CARGO_TOOL,),
    compile=_compile,
    registry="`cargo add plugwasm-pdk` takes it from crates.io",
)
