"""Whether other processes are running."""

from __future__ import annotations


def is_alive(pid: int) -> bool:
    """Return whether a process with that id runs. A zombie does not."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
