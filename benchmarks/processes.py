"""Measurements that need a new process each time: start-up, loading, and the memory of instances.

The processes of both sides alternate. Each side has its cache of compiled code in a directory of
this run, warm except in the rows that say cold: there both caches are off.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING

from .measure import SIDES, Block, Goal, Row, Sample, check
from .plugins import example, large, variant

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .built import Real

CHILD = Path(__file__).with_name("child.py")
LARGE_FUNCTIONS = 4200
NO_CACHE = {"PLUGWASM_CACHE": "off", "EXTISM_CACHE_CONFIG": ""}
START = (
    "import sys; from {module} import Plugin; "
    "print(Plugin(sys.argv[1]).call('echo', b'0123456789').decode(), flush=True)"
)
"""What a user would write. The official package imports everything at once; plugwasm imports what
is used."""


def blocks(folder: Path, effort: float, real: Sequence[Real]) -> list[Block]:
    """Return all blocks of this module.

    Args:
        folder: For modules that are made for this run.
        real: The plugins of `built` that this machine can build.
    """
    full = effort >= 1
    instances = 1000 if full else 200
    small, big = example("echo"), large(LARGE_FUNCTIONS if full else LARGE_FUNCTIONS // 4)
    found = [
        Block(
            "a process",
            [
                Row("process start to first output", partial(_start, folder), Goal(1)),
                Row("import alone", partial(_child, folder, {}, "import")),
            ],
            budget=14,
        ),
        Block(
            "load a small module, to the first output",
            _loads(folder, "small", "echo", small, 10, 10),
            budget=12,
        ),
        Block(
            "load a large module, to the first output",
            _loads(folder, "large", "echo", big, 1, 3 if full else 1),
            budget=25,
        ),
        *(
            Block(
                f"load a plugin in {plugin.name}, to the first output",
                _loads(folder, plugin.name, plugin.function, plugin.path().read_bytes(), 1, 1),
                budget=25,
            )
            for plugin in real
        ),
    ]
    if os.path.exists("/proc/self/statm"):
        row = Row(
            f"memory of a live instance, of {instances:,}",
            partial(_memory, folder, instances),
            unit="B",
        )
        found.append(Block("memory", [row], budget=6, most=9, least=3))
    return found


def _loads(folder: Path, name: str, function: str, wasm: bytes, cold: int, warm: int) -> list[Row]:
    """Return rows for a module, of which each process loads several variants."""
    files = [
        _file(folder, f"{name}-{number}", variant(wasm, number))
        for number in range(max(cold, warm))
    ]
    return [
        Row(
            f"{name}: cold (no cache)",
            partial(_load, folder, files[:cold], NO_CACHE, "load", function),
            Goal(1.2) if function != "echo" else None,
        ),
        Row(f"{name}: cached on disk", partial(_load, folder, files[:warm], {}, "load", function)),
        Row(
            f"{name}: already seen by the process",
            partial(_load, folder, files[:warm], {}, "again", function),
            Goal(3),
        ),
    ]


def _file(folder: Path, name: str, wasm: bytes) -> str:
    path = folder / f"{name}.wasm"
    if not path.exists():
        path.write_bytes(wasm)
    return str(path)


def _child(folder: Path, environment: dict[str, str], *arguments: str) -> Sample:
    *rest, side = arguments
    command = [sys.executable, "-P", str(CHILD), SIDES[side], *rest]

    def sample() -> float:
        done = subprocess.run(
            command, env=os.environ | environment, cwd=folder, stdout=subprocess.PIPE, check=True
        )
        answer = json.loads(done.stdout)
        return median(answer) if isinstance(answer, list) else float(answer)

    return sample


def _start(folder: Path, side: str) -> Sample:
    plugin = _file(folder, "echo", example("echo"))
    command = [
        sys.executable,
        "-P",
        "-c",
        START.format(module=SIDES[side].partition(".")[0]),
        plugin,
    ]

    def sample() -> float:
        start = perf_counter()
        with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            output = process.stdout.readline()
            taken = perf_counter() - start
        check((process.returncode, output), (0, b"0123456789\n"))
        return taken

    return sample


def _load(
    folder: Path,
    files: list[str],
    environment: dict[str, str],
    task: str,
    function: str,
    side: str,
) -> Sample:
    return _child(
        folder,
        environment,
        task,
        function,
        _file(folder, "first", variant(example("echo"), 2**32)),
        *files,
        side,
    )


def _memory(folder: Path, instances: int, side: str) -> Sample:
    return _child(
        folder, {}, "memory", str(instances), _file(folder, "echo", example("echo")), side
    )
