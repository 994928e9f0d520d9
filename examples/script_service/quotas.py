"""What a tenant may use, and what it has used."""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic, thread_time

from plugwasm.observing import Call, Observer


@dataclass(frozen=True)
class Quota:
    """What a tenant may use.

    Attributes:
        seconds_per_minute: Processor time for loading and calling its scripts. What is left of a
            minute's share can be used later, but no more than this at once.
        calls_at_once: How many calls and loads may be under way.
        deadline: Seconds that a call may take, and loading a script.
        memory_bytes: The memory of one call.
        input_bytes, output_bytes: The bodies of a call.
        scripts, script_bytes: How many scripts it may keep, and how long each may be.
        log_lines: How many lines of its log are kept.
    """

    seconds_per_minute: float = 6.0
    calls_at_once: int = 4
    deadline: float = 1.0
    memory_bytes: int = 32 * 2**20
    input_bytes: int = 2**18
    output_bytes: int = 2**18
    scripts: int = 20
    script_bytes: int = 2**16
    log_lines: int = 200


class Refused(Exception):
    """The service does not do what a tenant asked it for."""


class QuotaExceeded(Refused):
    """A tenant may not do that now; `retry_after` is how many seconds it has to wait."""

    def __init__(self, detail: str, retry_after: int) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


@dataclass
class Usage:
    """What a tenant uses, and has used since the service started: for its bill, and for metrics."""

    running: int = 0
    calls: int = 0
    refused: int = 0
    processor_seconds: float = 0.0
    errors: Counter[str] = field(default_factory=Counter)
    """How many calls failed, by the class of the error."""


class Meter(Observer):
    """Admits the calls of a tenant, and charges it for what they use. Threads share it.

    It is the observer of the tenant's plugins: `on_call` runs in the thread that runs the script.
    """

    wants_values = False

    def __init__(self, quota: Quota, clock: Callable[[], float] = monotonic) -> None:
        self.quota = quota
        self.usage = Usage()
        self._clock = clock
        self._lock = threading.Lock()
        self._left = quota.seconds_per_minute
        self._updated = clock()

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Take a place for as long as the block lasts.

        Calls that are under way are not in the balance yet. They can overdraw it by up to
        `calls_at_once` deadlines, which the tenant then has to wait for.

        Raises:
            QuotaExceeded: All places are taken, or the processor time is used up.
        """
        with self._lock:
            left = self._refill()
            if self.usage.running >= self.quota.calls_at_once:
                self.usage.refused += 1
                raise QuotaExceeded(
                    f"{self.usage.running} calls are under way, which is as many as you may have", 1
                )
            if left <= 0:
                self.usage.refused += 1
                raise QuotaExceeded(
                    f"your {self.quota.seconds_per_minute:g} s of processor time in a minute are "
                    "used up",
                    math.floor(-left * 60 / self.quota.seconds_per_minute) + 1,
                )
            self.usage.running += 1
        try:
            yield
        finally:
            with self._lock:
                self.usage.running -= 1

    @contextmanager
    def metered(self) -> Iterator[None]:
        """Charge the processor time of this thread."""
        begin = thread_time()
        try:
            yield
        finally:
            self.charge(thread_time() - begin)

    def charge(self, seconds: float) -> None:
        """Take processor time from the balance."""
        with self._lock:
            self._refill()
            self._left -= seconds
            self.usage.processor_seconds += seconds

    @contextmanager
    def on_call(self, call: Call) -> Iterator[None]:
        try:
            with self.metered():
                yield
        finally:
            with self._lock:
                self.usage.calls += 1
                if call.error is not None:
                    self.usage.errors[call.error] += 1

    def _refill(self) -> float:
        now = self._clock()
        share = self.quota.seconds_per_minute
        self._left = min(share, self._left + (now - self._updated) * share / 60)
        self._updated = now
        return self._left
