"""Sizes of the programs, and the processor time that they take to compile and to run.

The kits of a language take turns, and the best of all turns counts: what else the machine does
makes a turn slower, and none faster.
"""

from __future__ import annotations

from functools import partial
from os import urandom
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage
from time import process_time
from typing import TYPE_CHECKING

import plugwasm
import plugwasm.cache

from .page import KitFigures
from .programs import PROGRAMS, Kit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

ECHOES = {"64 KiB": 65536, "1 MiB": 1 << 20}


def measure(kits: Iterable[Kit]) -> list[KitFigures]:
    """Build the programs, and measure them.

    Raises:
        NotBuiltError: A program cannot be built.
    """
    kits = list(kits)
    files = {kit.name: {name: kit.build.path(name) for name in PROGRAMS} for kit in kits}

    def wasm(kit: Kit, program: str) -> bytes:
        return files[kit.name][program].read_bytes()

    plugwasm.cache.configure(enabled=False)
    compiling = _best(
        {kit.name: partial(_compile, wasm(kit, "count_vowels"), kit) for kit in kits}, turns=3
    )
    echoing = {
        title: _best({kit.name: _echo(wasm(kit, "echo"), kit, size) for kit in kits}, turns=9)
        for title, size in ECHOES.items()
    }
    return [
        KitFigures(
            language=kit.language,
            kit=kit.kit,
            package=kit.package,
            bytes={name: file.stat().st_size for name, file in files[kit.name].items()},
            compile_seconds=compiling[kit.name],
            echo_bytes_per_second={
                title: size / echoing[title][kit.name] for title, size in ECHOES.items()
            },
        )
        for kit in kits
    ]


def _best(runs: dict[str, Callable[[], float]], turns: int) -> dict[str, float]:
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(turns):
        for name, run in runs.items():
            taken[name].append(run())
    return {name: min(samples) for name, samples in taken.items()}


def _compile(wasm: bytes, kit: Kit) -> float:
    """Return what compiling takes, in the compiler's own process too."""
    wasm += b"\0\x09\x00" + urandom(8)  # a custom section: a module that was not seen before
    before = _processor_time()
    plugwasm.CompiledPlugin({"wasm": [{"data": wasm}]}, kit.wasi)
    return _processor_time() - before


def _processor_time() -> float:
    both = [getrusage(who) for who in (RUSAGE_SELF, RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def _echo(wasm: bytes, kit: Kit, size: int) -> Callable[[], float]:
    data = bytes(range(256)) * (size // 256)
    plugin = plugwasm.Plugin({"wasm": [{"data": wasm}]}, kit.wasi)
    if plugin.call("echo", data) != data:
        raise ValueError(f"{kit.name}: the echo is not the input")
    count = max(4, (4 << 20) // len(data))

    def run() -> float:
        start = process_time()
        for _ in range(count):
            plugin.call("echo", data)
        return (process_time() - start) / count

    return run
