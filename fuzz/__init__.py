"""Fuzzing: what must hold for any input at all, checked on as many as there is time for.

    python -m fuzz                      each harness for ten seconds
    python -m fuzz urls --seconds 600   one of them, for longer
    python -m fuzz urls FILE            one input again

A harness is a module here. The first line of it says what must hold; `check(data)` makes a case of some bytes and raises when it does
not; `describe(data)` shows the case to a reader. So whatever makes bytes can drive all of them, and any finding is a file of bytes.

The map:

    __main__        the command line
    watch           a harness in a child process, which may crash or hang; what it leaves behind
    session         a harness in this process: executions, findings, their shrinking
    inputs          where bytes come from: seeds, chance, coverage (atheris)
    choices         bytes → decisions
    manifests, modules, guests, linked, urls, exchanges, kernel, recordings, batches, workers
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Protocol

    class Harness(Protocol):
        """A module of this package that is one.

        `SIZES` are the exponents of two between which an input's length makes sense; `COVERED` names what is worth watching for coverage.
        """

        __name__: str
        __doc__: str
        SEEDS: Sequence[bytes]
        SIZES: tuple[int, int]
        COVERED: Sequence[str]

        def check(self, data: bytes) -> None: ...
        def describe(self, data: bytes) -> str: ...


NAMES = (
    "manifests",
    "modules",
    "guests",
    "urls",
    "exchanges",
    "linked",
    "kernel",
    "recordings",
    "batches",
    "workers",
    "typed",
)
ROOT = Path(__file__).resolve().parent.parent
FINDINGS = Path(__file__).resolve().parent / "findings"

# What tests know of guests and of the kernel's books is used here too.
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))


def harness(name: str) -> Harness:
    """The harness of that name; one that is not ours is imported as it is."""
    return importlib.import_module(f"{__name__}.{name}" if name in NAMES else name)  # type: ignore[return-value]
