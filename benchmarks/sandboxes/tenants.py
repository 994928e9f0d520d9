"""A process with many tenants, each with a script of its own, that measures its memory.

    python -m benchmarks.sandboxes.tenants LANGUAGE WAY COUNT

Prints two numbers as JSON: bytes of memory that each tenant takes, and those of the whole process.
"""

from __future__ import annotations

import gc
import json
import sys
from contextlib import ExitStack

from ..measure import check
from .ways import CALLS, source_of, ways_of

SMAPS = "/proc/self/smaps_rollup"


def measure_tenants(language: str, title: str, count: int) -> tuple[float, int]:
    """Return the bytes of each tenant, and of this process."""
    way = next(way for way in ways_of(language) if way.title == title)
    data, is_right = CALLS["total"]
    with ExitStack() as alive:

        def add(number: int) -> None:
            call = alive.enter_context(way.open(way.load(source_of(language, number))))
            check(call("total", data), is_right)

        for number in range(2):  # what all tenants share
            add(-1 - number)
        gc.collect()
        before = own_memory()
        for number in range(count):
            add(number)
        gc.collect()
        after = own_memory()
    return (after - before) / count, after


def own_memory() -> int:
    """Return the memory of this process in bytes: its proportional set size.

    Instances map the same file, and each page of it that they have in common counts once. In the
    resident set it counts once for each of them.
    """
    with open(SMAPS, "rb") as file:
        line = next(line for line in file if line.startswith(b"Pss:"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    print(json.dumps(measure_tenants(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
