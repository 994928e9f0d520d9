"""A harness in this process: run cases, count them, and keep findings, minimized.

Besides the property of the harness: no exception may be printed and dropped (in callbacks and
finalizers), no warning may be given, and no case may take longer than `SLOW` seconds of CPU.
"""

from __future__ import annotations

import hashlib
import os
import sys
import traceback
import warnings
from pathlib import Path
from time import monotonic, process_time
from typing import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from . import Harness

SLOW = 20.0
SHRINK = 10.0


class TooSlowError(AssertionError):
    """A case took too long."""


class DroppedError(AssertionError):
    """An exception was raised where nobody could catch it."""


class Finding(NamedTuple):
    """An input for which the property does not hold."""

    data: bytes
    error: BaseException

    @property
    def report(self) -> str:
        return "".join(traceback.format_exception(self.error))


class Session:
    """Cases of one harness, one after the other.

    `minimize_seconds` is how many seconds minimizing one finding may take.
    """

    def __init__(self, harness: Harness, *, minimize_seconds: float = SHRINK) -> None:
        self.harness = harness
        self.minimize_seconds = minimize_seconds
        self.executions = 0
        self.slowest = 0.0
        self.findings: dict[str, Finding] = {}

    def run(
        self,
        inputs: Iterable[bytes],
        *,
        executions: int | None = None,
        seconds: float | None = None,
    ) -> None:
        """Run cases until one of the limits is reached."""
        end = None if seconds is None else monotonic() + seconds
        for data in inputs:
            if (executions is not None and self.executions >= executions) or (
                end is not None and monotonic() >= end
            ):
                return
            self.run_case(data)

    def run_case(self, data: bytes) -> Finding | None:
        """Run one case. A finding is kept unless there is one from the same place."""
        self.executions += 1
        error = self._check(data)
        if error is None:
            return None
        place = _locate(error)
        if place not in self.findings:
            self.findings[place] = self._minimize(Finding(data, error), place)
        return self.findings[place]

    def _check(self, data: bytes) -> BaseException | None:
        dropped: list[BaseException | None] = []
        before = sys.unraisablehook
        sys.unraisablehook = lambda unraisable: dropped.append(unraisable.exc_value)
        started = process_time()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                self.harness.check(data)
        except Exception as error:
            return error
        finally:
            sys.unraisablehook = before
        took = process_time() - started
        self.slowest = max(self.slowest, took)
        if dropped:
            return DroppedError(f"dropped: {dropped[0]!r}").with_traceback(
                dropped[0].__traceback__ if dropped[0] else None
            )
        return TooSlowError(f"took {took:.1f} s of CPU") if took > SLOW else None

    def _minimize(self, finding: Finding, place: str) -> Finding:
        """Return the finding with fewer and simpler bytes, as far as the time allows."""
        end = monotonic() + self.minimize_seconds
        size = max(len(finding.data) // 2, 1)
        while size:
            at = 0
            while at < len(finding.data):
                for replacement in (b"", bytes(size)):
                    data = finding.data[:at] + replacement + finding.data[at + size :]
                    if data == finding.data or monotonic() > end:
                        continue
                    error = self._check(data)
                    if error is not None and _locate(error) == place:
                        finding = Finding(data, error)
                        break
                else:
                    at += size
            size //= 2
        return finding


def save(finding: Finding, harness: Harness, folder: Path) -> Path:
    """Write a finding: the input, and beside it a description and the error."""
    name = harness.__name__.rpartition(".")[2]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{hashlib.sha256(finding.data).hexdigest()[:12]}"
    path.write_bytes(finding.data)
    path.with_suffix(".txt").write_text(
        f"{describe_input(harness, finding.data)}\n\n{finding.report}", errors="backslashreplace"
    )
    return path


def describe_input(harness: Harness, data: bytes) -> str:
    try:
        return harness.describe(data)
    except Exception as error:
        return f"(cannot be shown: {error!r})"


def resident_bytes() -> int:
    """Return the resident memory of this process in bytes."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def _locate(error: BaseException) -> str:
    """Return what distinguishes findings: the kind of error, and its last lines in plugwasm and
    here."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "plugwasm" in frame.filename or "fuzz" in frame.filename
    ]
    return " < ".join(
        [
            type(error).__name__,
            *(f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames[:-4:-1]),
        ]
    )
