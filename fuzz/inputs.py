"""Sources of bytes: random mutation, which repeats for a seed, or coverage of plugwasm's code with
atheris."""

from __future__ import annotations

import random
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

MAX_BYTES = 4096


def mutate_randomly(seeds: Sequence[bytes], sizes: tuple[int, int], seed: int) -> Iterator[bytes]:
    """Yield the seeds, then without end: new bytes, and seeds with small changes."""
    yield from seeds
    chance = random.Random(seed)
    while True:
        if not seeds or chance.random() < 0.6:
            yield chance.randbytes(int(2 ** chance.uniform(*sizes)))
            continue
        data = bytearray(chance.choice(seeds))
        for _ in range(chance.randint(1, 6)):
            at, size = chance.randint(0, len(data)), chance.randint(1, 8)
            if chance.random() < 0.4:
                data[at : at + size] = chance.randbytes(size)
            elif chance.random() < 0.5:
                data[at:at] = chance.randbytes(size)
            else:
                del data[at : at + size]
        yield bytes(data[:MAX_BYTES])


def can_guide() -> bool:
    """Return whether atheris is installed."""
    from importlib.util import find_spec

    return find_spec("atheris") is not None


def run_guided(seeds: Sequence[bytes], seed: int, run: Callable[[bytes], None]) -> None:
    """Run inputs that reach new lines of the modules that `instrument` measures.

    Does not return: `run` ends the process.
    """
    import atheris

    with tempfile.TemporaryDirectory() as corpus:
        for index, data in enumerate(seeds):
            Path(corpus, str(index)).write_bytes(data)
        arguments = [
            sys.argv[0],
            corpus,
            f"-seed={seed % 2**31 or 1}",
            f"-max_len={MAX_BYTES}",
            "-rss_limit_mb=0",
            "-verbosity=0",
        ]
        atheris.Setup(arguments, run)
        atheris.Fuzz()


def instrument(packages: Sequence[str]) -> None:
    """Measure the modules of these packages that are imported from now on.

    The engine is left out: `_engine.signal_safety` moves exception tables of its functions, which
    must be the ones that the compiler made.
    """
    import atheris

    hook = atheris.instrument_imports(
        include=list(packages), exclude=["plugwasm._engine"], enable_loader_override=False
    )
    hook.__enter__()
