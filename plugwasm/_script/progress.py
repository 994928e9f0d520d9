"""What is shown while an interpreter is built: a line on a terminal, with the seconds so far.

It is written over again, and removed at the end. Where nobody would see it there is none, and the
log `plugwasm.scripts` has a record instead.
"""

from __future__ import annotations

import shutil
import sys
from contextlib import contextmanager
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

INTERVAL = 0.5
"""Seconds after which the line is to be written again (`tick`)."""


class _Task:
    __slots__ = ("began", "stage", "what", "width")

    def __init__(self, what: str) -> None:
        self.what = what
        self.stage = ""
        self.began = monotonic()
        self.width = 0
        """Characters of the line that is shown."""

    def write(self, line: str, more: str = "") -> None:
        """Write the line over the last one, with `more` if there is room for it."""
        if not _has_terminal():
            return
        try:
            most = shutil.get_terminal_size().columns - 1
            line = line[:most] if len(line + more) > most else line + more
            print(f"\r{line.ljust(self.width)}", end="", file=sys.stderr, flush=True)
        except (OSError, ValueError):  # nobody reads it
            return
        self.width = len(line)


_task: _Task | None = None
"""What is being done. The state of this module."""


@contextmanager
def task(what: str) -> Iterator[None]:
    """Show for a `with` block what is being done, such as "building the interpreter of Python"."""
    global _task
    from .._host.plugin_log import get_logger

    if not _has_terminal():
        get_logger("scripts").info("%s", what)
    before, _task = _task, _Task(what)
    try:
        tick()
        yield
    finally:
        _task.write("")
        _task.write("")
        _task = before


def show(stage: str) -> None:
    """Show a stage of what is being done."""
    if _task is not None:
        _task.stage = stage
        tick()


def tick() -> None:
    """Show how long it has taken so far."""
    if _task is not None:
        seconds = int(monotonic() - _task.began)
        stage = f", {_task.stage}" if _task.stage else ""
        _task.write(f"plugwasm: {_task.what}: {seconds} s", stage)


def _has_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()
