"""Fuzzing: properties that must hold for any input, checked on as many inputs as there is time for.

    python -m fuzz                      each harness for ten seconds
    python -m fuzz urls --seconds 600   one harness, for longer
    python -m fuzz urls FILE            one input again

A harness is a module of this package. The first line of its docstring states the property;
`check(data)` builds a case from bytes and raises if the property does not hold; `describe(data)`
shows the case to a reader. So any source of bytes can drive every harness, and a finding is a file
of bytes.

Modules:

    __main__        the command line
    watch           a harness in a child process, which may crash or hang; its findings
    session         a harness in this process: executions, findings, minimizing
    inputs          sources of bytes: seeds, random mutation, coverage (atheris)
    choices         bytes → decisions
    manifests, modules, guests, linked, urls, exchanges, kernel, inlining, recordings, batches,
    workers, typed, scripts  harnesses
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
        """A module of this package that is a harness.

        `SIZES` are the exponents of two between which the length of an input makes sense; `COVERED`
        names what should be measured for coverage.
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
    "inlining",
    "recordings",
    "batches",
    "workers",
    "typed",
    "scripts",
)
ROOT = Path(__file__).resolve().parent.parent
FINDINGS = Path(__file__).resolve().parent / "findings"

# Harnesses use what tests have for guests and the kernel.
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))


def harness(name: str) -> Harness:
    """Import a harness by name; a name that is not in `NAMES` is imported as it is."""
    path = f"{__name__}.{name}" if name in NAMES else name
    return importlib.import_module(path)
