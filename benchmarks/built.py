"""Plugins as users have them, large and with a language's run time: an interpreter of JavaScript
(QuickJS, in C) and a program in standard Go.

Their sources come by package or are in `sources/`. They are built once and kept, by the digest of
what they are built from, in the folder that PLUGWASM_BENCHMARKS names, or in the user's cache.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tarfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from conformance.kept import NotBuiltError, keep, run

if TYPE_CHECKING:
    from collections.abc import Callable

SOURCES = Path(__file__).resolve().parent / "sources"
INCLUDE = SOURCES.parent.parent / "pdk" / "c" / "include"
QUICKJS = "quickjs-ng==0.17.0.2"
QUICKJS_SHA256 = "43d2e48272208721a7aaea8e3f02d4b9318f12ef20cc4f5421b59d9a470706ef"


@dataclass(frozen=True)
class Real:
    """A plugin, and a call of it.

    Attributes:
        make_input: Returns an input of about so many bytes.
        is_right: Whether an output is right for an input.
    """

    name: str
    function: str
    build: Callable[[Path], None]
    sources: tuple[Path, ...]
    pinned: str
    make_input: Callable[[int], bytes]
    is_right: Callable[[bytes, bytes], bool]

    def path(self) -> Path:
        """Return the plugin's file, built if need be.

        Raises:
            NotBuiltError: A compiler is missing, or fails.
        """
        digest = hashlib.sha256(self.pinned.encode())
        for source in self.sources:
            digest.update(source.read_bytes())
        return keep(kept_in() / f"{self.name}-{digest.hexdigest()[:16]}.wasm", self._build)

    def _build(self, target: Path) -> None:
        print(f"building: {self.name} (once) …", file=sys.stderr, flush=True)
        self.build(target)


@cache
def kept_in() -> Path:
    """Return the folder of built plugins."""
    # Read before the benchmarks give both sides caches of their own.
    if chosen := os.environ.get("PLUGWASM_BENCHMARKS"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "plugwasm-benchmarks"


def _build_javascript(target: Path) -> None:
    scratch = target.parent
    requirements = scratch / "requirements.txt"
    requirements.write_text(f"{QUICKJS} --hash=sha256:{QUICKJS_SHA256}\n")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary=:all:"]
    pip += ["--require-hashes", f"--requirement={requirements}"]
    run([*pip, f"--dest={scratch}"], scratch)
    (archive,) = scratch.glob("*.tar.gz")
    with tarfile.open(archive) as sdist:
        sdist.extractall(scratch, filter="data")
    engine = next(scratch.glob("*/upstream-quickjs"))
    files = [str(engine / f"{name}.c") for name in ("quickjs", "libregexp", "libunicode", "dtoa")]
    flags = ["-target", "wasm32-wasi", "-O2", "-s", "-mexec-model=reactor", "-D_GNU_SOURCE"]
    flags += ["-fno-sanitize=undefined", "-Wl,-z,stack-size=1048576"]
    flags += [f"-I{engine}", f"-I{INCLUDE}"]
    zig_cc = [sys.executable, "-m", "ziglang", "cc"]
    run([*zig_cc, *flags, str(SOURCES / "javascript.c"), *files, f"-o{target}"], scratch)


def _build_go(target: Path) -> None:
    if shutil.which("go") is None:
        raise NotBuiltError("Go is not installed (https://go.dev/dl/, 1.24 or later)")
    run(
        ["go", "build", "-buildmode=c-shared", "-trimpath", "-ldflags=-s -w", "-o", str(target)],
        SOURCES / "go",
        {"GOOS": "wasip1", "GOARCH": "wasm"},
    )


def _document(size: int) -> bytes:
    """Return a JSON document whose names are in no order."""
    row = {
        "zeta": 1,
        "name": "Hello, World!",
        "list": [3, 2.5, None, True],
        "alpha": {"b": 1, "a": 2},
    }
    return json.dumps([row] * max(1, size // len(json.dumps(row)))).encode()


def _text(size: int) -> bytes:
    return (b"Hello, World! " * (size // 14 + 1))[:size]


def _is_sorted(data: bytes, output: bytes) -> bool:
    expected = json.dumps(json.loads(data), sort_keys=True, separators=(",", ":"))
    return output == expected.encode()


REAL = (
    Real(
        "JavaScript",
        "reverse",
        _build_javascript,
        (SOURCES / "javascript.c", INCLUDE / "plugwasm.h"),
        QUICKJS_SHA256,
        _text,
        lambda data, output: output == data[::-1],
    ),
    Real(
        "Go",
        "sort",
        _build_go,
        (SOURCES / "go" / "main.go", SOURCES / "go" / "go.mod"),
        "1",
        _document,
        _is_sorted,
    ),
)
