"""How the plugins of a folder are built, with the toolchains of this machine."""

from __future__ import annotations

import hashlib
import os
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from plugwasm._project.languages import LANGUAGES
from plugwasm._project.problems import ProjectError

from .kept import NotBuiltError, keep, run

ROOT = Path(__file__).resolve().parents[1]

TOOLS = {"zig": "zig", "cargo": "rust", "go": "go", "npm": "assemblyscript"}
"""The language that a tool belongs to, of those that `plugwasm build` knows."""


@dataclass(frozen=True)
class Build:
    """How a folder's plugins are built.

    Attributes:
        commands: Run in the folder, one after the other. They may contain `{out}`, the file to
            write, `{program}`, which of several plugins it is, `{root}`, the repository, `{cache}`,
            a folder that is kept, `{python}` and `{cargo}`.
        sources: Patterns of the files that it depends on.
        needs: Names in `TOOLS`.
    """

    folder: Path
    commands: tuple[tuple[str, ...], ...]
    sources: tuple[str, ...]
    needs: tuple[str, ...]

    @classmethod
    def of(cls, folder: Path, fields: dict[str, Any]) -> Build:
        """Return what the fields of a TOML file say."""
        return cls(
            folder=folder,
            commands=tuple(tuple(command) for command in fields["build"]),
            sources=tuple(fields["sources"]),
            needs=tuple(fields["needs"]),
        )

    def path(self, program: str = "plugin") -> Path:
        """Return the plugin's file, built if anything that it is made of has changed.

        Raises:
            NotBuiltError: A tool is missing, or the build failed.
        """
        check_tools(self.needs)
        target = cache() / f"{self.folder.name}-{program}-{self._digest()}.wasm"
        return keep(target, partial(self._build, program))

    def _build(self, program: str, target: Path) -> None:
        words = {
            "out": str(target),
            "program": program,
            "python": sys.executable,
            "root": str(ROOT),
            "cache": str(cache()),
            "cargo": cargo(),
        }
        for command in self.commands:
            run([word.format(**words) for word in command], self.folder)

    def _digest(self) -> str:
        digest = hashlib.sha256(repr(self.commands).encode())
        for pattern in self.sources:
            for file in sorted(self.folder.glob(pattern)):
                digest.update(file.read_bytes())
        return digest.hexdigest()[:16]


def check_tools(names: tuple[str, ...]) -> None:
    """Raise `NotBuiltError` if a tool is missing."""
    for name in names:
        try:
            LANGUAGES[TOOLS[name]].find_tools()
        except ProjectError as error:
            raise NotBuiltError(error.message) from None


def cache() -> Path:
    """Return the folder in which plugins are kept."""
    chosen = os.environ.get("PLUGWASM_CONFORMANCE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "plugwasm-conformance"


def cargo() -> str:
    """Return the command: one that builds for wasm32 in its own way, where rustup cannot."""
    return os.environ.get("PLUGWASM_CARGO", "cargo")
