"""Notices changes in a project, by looking at its files.

What starts with a dot and what toolchains write is left out.
"""

from __future__ import annotations

import os
from time import sleep

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

__all__ = ["take_stamp", "wait_for_change"]

_WRITTEN_BY_TOOLS: Final = frozenset(
    ("target", "node_modules", "zig-out", "zig-pkg", "Cargo.lock", "package-lock.json", "go.sum")
)
MAX_FILES: Final = 10_000
"""The most files that are looked at."""
_SECONDS: Final = 0.3

Stamp = dict[str, tuple[int, int]]


def take_stamp(folder: str, output: str) -> Stamp:
    """Return times and sizes of the files of a project, except for its output."""
    stamp: Stamp = {}
    waiting = [folder]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                found = list(entries)
        except OSError:
            continue  # it went away
        for entry in found:
            if entry.name.startswith(".") or entry.name in _WRITTEN_BY_TOOLS:
                continue
            try:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                    continue
                status = entry.stat()
            except OSError:
                continue
            if entry.path != output:
                stamp[entry.path] = status.st_mtime_ns, status.st_size
            if len(stamp) >= MAX_FILES:
                return stamp
    return stamp


def wait_for_change(folder: str, output: str, before: Stamp) -> None:
    """Return once files have changed, and have then stayed as they are for a moment."""
    while (now := take_stamp(folder, output)) == before:
        sleep(_SECONDS)
    while True:  # editors and version control write several files
        sleep(_SECONDS / 3)
        later = take_stamp(folder, output)
        if later == now:
            return
        now = later
