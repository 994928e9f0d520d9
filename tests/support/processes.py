"""Other processes: whether they run."""

from __future__ import annotations


def is_alive(pid: int) -> bool:
    """Whether a process of that number runs; one that has ended and was not waited for does not."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
