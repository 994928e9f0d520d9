"""`python -m conformance.checks`: each kit, by the checkers of its language.

Formatters, linters, documentation generators, and compilers with all warnings. A checker that is
missing is an error with `--strict`, and skipped otherwise.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .building import ROOT, NotBuiltError, cargo, check_tools, run

if TYPE_CHECKING:
    from pathlib import Path

PDK = ROOT / "pdk"
ZIG = [sys.executable, "-m", "ziglang"]
FREESTANDING = ["-target", "wasm32-freestanding"]
WARNINGS = ["-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-pedantic", "-Werror"]
WASM = ["--target", "wasm32-unknown-unknown"]
CLIPPY = [cargo(), "clippy", "--quiet", *WASM]
GO = ["env", "GOOS=wasip1", "GOARCH=wasm"]


@dataclass(frozen=True)
class Check:
    """A command that must succeed and print nothing."""

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
            "/dev/null",
        ],
    )


CHECKS = (
    _header("c", "c99", "../../benchmarks/kits/sources/c/count_vowels.c", *FREESTANDING),
    _header("c", "c23", "../../benchmarks/kits/sources/c/count_vowels.c", *FREESTANDING),
    _header("c", "c99", "../../examples/count_vowels.c", "-target", "wasm32-wasi"),
    _header("cpp", "c++20", "../../conformance/plugins/cpp/plugin.cpp", "-target", "wasm32-wasi"),
    _header("cpp", "c++23", "../../conformance/plugins/cpp/plugin.cpp", "-target", "wasm32-wasi"),
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
        try:
            printed = run(check.command, check.folder)
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
