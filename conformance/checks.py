"""`python -m conformance.checks`: each kit, by the checkers of its language.

Formatters, linters, documentation generators, and compilers with all warnings. A checker that is
missing is an error with `--strict`, and skipped otherwise.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from .building import ROOT, cargo, check_tools
from .kept import NotBuiltError, run

if TYPE_CHECKING:
    from pathlib import Path

PDK = ROOT / "pdk"
ZIG = [sys.executable, "-m", "ziglang"]
FREESTANDING = ["-target", "wasm32-freestanding"]
WARNINGS = [
    "-Wall",
    "-Wextra",
    "-Wconversion",
    "-Wsign-conversion",
    "-Wshadow",
    "-Wcast-qual",
    "-pedantic",
    "-Werror",
]
PROTOTYPES = ["-Wstrict-prototypes", "-Wmissing-prototypes"]
WASM = ["--target", "wasm32-unknown-unknown"]
CLIPPY = [cargo(), "clippy", "--quiet", *WASM]
GO = ["env", "GOOS=wasip1", "GOARCH=wasm"]


@dataclass(frozen=True)
class Check:
    """A command that must succeed and print nothing. `{out}` is a file that it may write."""

    tool: str
    folder: Path
    command: list[str]
    may_print: bool = False


def _header(language: str, standard: str, file: str, *options: str) -> Check:
    compiler = "cc" if language == "c" else "c++"
    kits = ["-I", "../c/include", "-I", "../cpp/include"]
    return Check(
        "zig",
        PDK / language,
        [
            *ZIG,
            compiler,
            f"-std={standard}",
            *WARNINGS,
            *options,
            *kits,
            "-c",
            file,
            "-o",
            "{out}",
        ],
    )


CHECKS = (
    *(
        _header("c", standard, "../../conformance/plugins/c/plugin.c", *FREESTANDING, *PROTOTYPES)
        for standard in ("c99", "c11", "c17", "c23")
    ),
    _header("c", "c99", "../../examples/count_vowels.c", "-target", "wasm32-wasi"),
    *(
        _header(
            "cpp",
            standard,
            "../../conformance/plugins/cpp/plugin.cpp",
            "-target",
            "wasm32-wasi",
            "-Wold-style-cast",
            exceptions,
        )
        for standard in ("c++20", "c++23", "c++26")
        for exceptions in ("-fno-exceptions", "-fexceptions")
    ),
    Check("zig", PDK / "zig", [*ZIG, "fmt", "--check", "."]),
    Check("cargo", PDK / "rust", [cargo(), "fmt", "--check"]),
    Check("cargo", PDK / "rust", [*CLIPPY, "--all-features", "--", "-D", "warnings"]),
    Check("cargo", PDK / "rust", [*CLIPPY, "--no-default-features", "--", "-D", "warnings"]),
    Check(
        "cargo",
        PDK / "rust",
        [
            "env",
            "RUSTDOCFLAGS=-D warnings",
            cargo(),
            "doc",
            "--quiet",
            "--no-deps",
            "--all-features",
        ],
    ),
    Check("cargo", PDK / "rust", ["cargo", "test", "--quiet", "--doc"], may_print=True),
    Check("go", PDK / "go", ["gofmt", "-l", "."]),
    Check("go", PDK / "go", [*GO, "go", "vet", "."]),
    Check("go", PDK / "go", ["go", "vet", "."]),
)


def main() -> int:
    """Run all checks; print what fails."""
    strict = "--strict" in sys.argv[1:]
    failed = 0
    for check in CHECKS:
        shown = " ".join(word for word in check.command if word != sys.executable)[:90]
        try:
            check_tools((check.tool,))
        except NotBuiltError as error:
            print(f"skipped  {shown}: {error}")
            failed += strict
            continue
        with TemporaryDirectory() as temporary:
            command = [word.replace("{out}", f"{temporary}/out.o") for word in check.command]
            try:
                printed = run(command, check.folder)
            except NotBuiltError as error:
                printed = str(error)
            else:
                printed = "" if check.may_print else printed
        print(f"{'FAILED' if printed else 'passed'}   {check.folder.name}: {shown}")
        if printed:
            print(printed)
            failed += 1
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
