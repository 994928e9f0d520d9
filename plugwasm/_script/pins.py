"""Versions and digests of what the engines are built from. All of them are in this file."""

from __future__ import annotations

from typing import NamedTuple


class Package(NamedTuple):
    """Sources that a source distribution on PyPI contains."""

    requirement: str
    sha256: str
    folder: str

    def __str__(self) -> str:
        """Return the line of a requirements file."""
        return f"{self.requirement} --hash=sha256:{self.sha256}\n"


QUICKJS_PACKAGE = Package(
    "quickjs-ng==0.17.0.2",
    "43d2e48272208721a7aaea8e3f02d4b9318f12ef20cc4f5421b59d9a470706ef",
    "upstream-quickjs",
)
"""It contains QuickJS-ng 0.17.0, under the MIT licence."""
QUICKJS_FILES = ("quickjs.c", "libregexp.c", "libunicode.c", "dtoa.c")

ADA_PACKAGE = Package(
    "ada-url==4.0.0",
    "9f399ec867349800a4c2d3aa8df8c533c340494b04d34b1f082b97d9a8b76a07",
    "ada_url",
)
"""It contains ada, a parser of URLs, under the MIT or the Apache 2.0 licence."""
ADA_FLAGS = (
    "-target",
    "wasm32-wasi",
    "-Os",
    "-std=c++20",
    "-fno-exceptions",
    "-fno-rtti",
    "-fno-threadsafe-statics",
    "-fno-sanitize=undefined",
    "-DNDEBUG",
    "-DADA_INCLUDE_URL_PATTERN=0",
    "-ffunction-sections",
    "-fdata-sections",
)

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

MICROPYTHON = "1.25.0"
"""MicroPython, under the MIT licence, as Debian packages its sources: without the libraries of
others that are not free, or that Debian has by itself."""
MICROPYTHON_SHA256 = "7b25be99a502f070b2de81dafc08da7051d992325d6e67daa9045a918fffdbea"
MICROPYTHON_URLS = (
    "https://deb.debian.org/debian/pool/main/m/micropython/micropython_1.25.0+ds.orig.tar.xz",
    # The archive of all that Debian ever had, by the SHA-1 of the file.
    "https://snapshot.debian.org/file/bd37cbe7cf223e8ffce06183a119dcce2c537a95",
)
MICROPYTHON_BYTES = 5_983_992
