"""Build the example plugins from their C sources, with the compiler of the package `ziglang`.

    python examples/build.py [--to DIRECTORY] [NAME ...]

The extra `examples` installs the compiler. Without `--to`, the .wasm files are written beside their
sources. The compiler's caches are in a temporary directory, so that no run depends on an earlier
one. The first link for WASI builds a C library, which takes half a minute; set ZIG_GLOBAL_CACHE_DIR
to keep it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

HERE = Path(__file__).resolve().parent

FREESTANDING = (
    "-target",
    "wasm32-freestanding",
    "-O2",
    "-nostdlib",
    "-Wl,--no-entry",
    "-Wl,-z,stack-size=16384",
)
WASI = ("-target", "wasm32-wasi", "-Os", "-mexec-model=reactor", "-Wl,-z,stack-size=65536")
DEBUG = (*FREESTANDING, "-O1", "-gline-tables-only", "-fdebug-compilation-dir=.")
FLAGS = (
    *("-std=gnu11", "-Wall", "-Wextra", "-Werror", "-fno-sanitize=undefined"),
    *("-I", "../pdk/c/include"),
)

PLUGINS = {
    "count_vowels": FREESTANDING,
    "host_functions": FREESTANDING,
    "http_get": FREESTANDING,
    "echo": FREESTANDING,
    "wasi_files": WASI,
    "bench_wasi": WASI,
    "faulty": DEBUG,
}


def build(directory: Path, names: Sequence[str] = ()) -> list[Path]:
    """Compile these plugins, or all of them, into a directory, and return the files.

    Raises `subprocess.CalledProcessError` if the compiler fails; its messages are on stderr.
    """
    directory = directory.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    built = []
    with tempfile.TemporaryDirectory(prefix="plugwasm-examples-") as scratch:
        caches = {
            "ZIG_GLOBAL_CACHE_DIR": f"{scratch}/global",
            "ZIG_LOCAL_CACHE_DIR": f"{scratch}/local",
        }
        for name in names or PLUGINS:
            fresh = Path(scratch, f"{name}.wasm")
            stripped = () if PLUGINS[name] is DEBUG else ("-s",)
            command = [
                sys.executable,
                "-m",
                "ziglang",
                "cc",
                *PLUGINS[name],
                *FLAGS,
                *stripped,
                "-o",
                str(fresh),
                f"{name}.c",
            ]
            subprocess.run(command, cwd=HERE, env=caches | os.environ, check=True)
            target = directory / fresh.name
            target.write_bytes(fresh.read_bytes())
            built.append(target)
    return built


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the example plugins.")
    parser.add_argument(
        "--to",
        type=Path,
        default=HERE,
        metavar="DIRECTORY",
        help="where to put the .wasm files (default: beside the sources)",
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"which plugins (default: all of {', '.join(PLUGINS)})",
    )
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.names) - set(PLUGINS))
    if unknown:
        parser.error(f"no such plugin: {', '.join(unknown)}; there are {', '.join(PLUGINS)}")
    try:
        built = build(arguments.to, arguments.names)
    except subprocess.CalledProcessError as error:
        print(f"build failed: {' '.join(error.cmd[1:])}", file=sys.stderr)
        return 1
    for path in built:
        print(f"{path.name:24} {path.stat().st_size:>8} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
