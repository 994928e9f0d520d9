"""The implementations of the test plugin: found, built and kept."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

from .table import FEATURES

PLUGINS = Path(__file__).with_name("plugins")
ROOT = PLUGINS.parent.parent

TOOLS = {
    "zig": ([sys.executable, "-m", "ziglang", "version"], "pip install 'plugwasm[build]'"),
    "cargo": (
        ["cargo", "--version"],
        (
            "install Rust with rustup, https://rustup.rs, "
            "and `rustup target add wasm32-unknown-unknown`"
        ),
    ),
    "go": (["go", "version"], "install Go 1.24 or later, https://go.dev/dl/"),
    "npm": (["npm", "--version"], "install Node.js 20 or later, https://nodejs.org"),
}
"""A command that shows that a tool is there, and what to do where it is not."""


class NotBuiltError(Exception):
    """An implementation cannot be built. The message says why, and what to do."""


@dataclass(frozen=True)
class Implementation:
    """One folder of `plugins/`; the fields are those of its `conformance.toml`.

    Attributes:
        package: Where the kit comes from, with its version.
        supports: Features that it has.
        unsupported: All other features, and why it does not have them.
    """

    folder: Path
    language: str
    kit: str
    package: str
    build: tuple[tuple[str, ...], ...]
    sources: tuple[str, ...]
    wasi: bool
    needs: tuple[str, ...]
    supports: frozenset[str]
    unsupported: dict[str, str]

    @property
    def name(self) -> str:
        return self.folder.name

    def path(self) -> Path:
        """Return the plugin's file, built if anything that it is made of has changed.

        Raises:
            NotBuiltError: A tool is missing, or the build failed.
        """
        for tool in self.needs:
            command, advice = TOOLS[tool]
            if shutil.which(command[0]) is None or _fails(command):
                raise NotBuiltError(f"{tool} is missing: {advice}")
        target = _cache() / f"{self.name}-{self._digest()}.wasm"
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            part = target.with_suffix(f".{os.getpid()}.wasm")
            words = {
                "out": str(part),
                "python": sys.executable,
                "root": str(ROOT),
                "cache": str(_cache()),
                # One that builds for wasm32 in its own way, where rustup has no such target.
                "cargo": os.environ.get("PLUGWASM_CARGO", "cargo"),
            }
            for command in self.build:
                _run([word.format(**words) for word in command], self.folder)
            part.replace(target)
        return target

    def _digest(self) -> str:
        digest = hashlib.sha256(repr(self.build).encode())
        for pattern in ("conformance.toml", *self.sources):
            for file in sorted(self.folder.glob(pattern)):
                digest.update(file.read_bytes())
        return digest.hexdigest()[:16]


def _cache() -> Path:
    chosen = os.environ.get("PLUGWASM_CONFORMANCE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "plugwasm-conformance"


def _fails(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode != 0


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotBuiltError(
            f"`{' '.join(command)[:120]}` failed:\n{(done.stdout + done.stderr)[-3000:]}"
        )


def find_implementations() -> tuple[Implementation, ...]:
    """Return the implementations of all folders of `plugins/`."""
    return tuple(_read(file) for file in sorted(PLUGINS.glob("*/conformance.toml")))


def _read(file: Path) -> Implementation:
    fields = tomllib.loads(file.read_text())
    supports, unsupported = frozenset(fields["supports"]), fields.get("unsupported", {})
    if supports | unsupported.keys() != FEATURES or supports & unsupported.keys():
        raise ValueError(
            f"{file}: each of {', '.join(sorted(FEATURES))} must be in `supports`, or in "
            f"`[unsupported]` with a reason"
        )
    return Implementation(
        folder=file.parent,
        language=fields["language"],
        kit=fields["kit"],
        package=fields["package"],
        build=tuple(tuple(command) for command in fields["build"]),
        sources=tuple(fields["sources"]),
        wasi=fields.get("wasi", False),
        needs=tuple(fields["needs"]),
        supports=supports,
        unsupported=unsupported,
    )
