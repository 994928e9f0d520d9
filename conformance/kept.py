"""Plugins that are built from source once, and kept by the digest of what they are built from."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["NotBuiltError", "keep", "run"]


class NotBuiltError(Exception):
    """A plugin cannot be built. The message says why, and what to do."""


def keep(target: Path, build: Callable[[Path], None]) -> Path:
    """Return a file whose name has its digest, built if it is not there.

    Args:
        build: Writes the file that it is given, in a folder that has nothing else.
    """
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=target.parent) as scratch:
            part = Path(scratch) / "plugin.wasm"
            build(part)
            part.replace(target)
    return target


def run(command: list[str], folder: Path, environment: dict[str, str] | None = None) -> str:
    """Run a command, and return what it printed.

    Raises:
        NotBuiltError: It failed.
    """
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | (environment or {}),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise NotBuiltError(
            f"`{' '.join(command)[:120]}` failed:\n{(done.stdout + done.stderr)[-3000:]}"
        )
    return done.stdout + done.stderr
