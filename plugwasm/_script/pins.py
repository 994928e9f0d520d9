"""Versions and digests of what the engines are built from. All of them are in this file."""

from __future__ import annotations

QUICKJS = "quickjs-ng==0.17.0.2"
"""The source distribution that contains QuickJS-ng 0.17.0, under the MIT licence."""
QUICKJS_SHA256 = "43d2e48272208721a7aaea8e3f02d4b9318f12ef20cc4f5421b59d9a470706ef"
QUICKJS_FOLDER = "upstream-quickjs"
QUICKJS_FILES = ("quickjs.c", "libregexp.c", "libunicode.c", "dtoa.c")

ZIG = "0.17.1"
"""The version of the package `ziglang`: Zig's licence is MIT, that of the clang in it Apache 2.0
with the LLVM exception, that of the C library for WASI MIT."""

STACK_BYTES = 2**20
"""The stack of C in the linear memory."""

FLAGS = (
    "-target",
    "wasm32-wasi",
    "-O2",
    "-s",
    "-mexec-model=reactor",
    "-D_GNU_SOURCE",
    "-fno-sanitize=undefined",
    f"-Wl,-z,stack-size={STACK_BYTES}",
    "-Wl,--export-table",
    "-Wl,--growable-table",
)
