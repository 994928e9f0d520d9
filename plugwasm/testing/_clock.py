"""A clock that a test controls."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from .._wasi.options import Clock
from ..errors import OptionError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_START = 946_684_800


class FakeClock(Clock):
    """The time that a plugin sees through WASI. It stands still until the test moves it.

    A sleep of the plugin moves it too, and takes no time.

    Unlike `FrozenClock`, all instances share it.

    Args:
        tick: Seconds that it moves on each time it is read, for plugins that poll the clock.

    Attributes:
        sleeps: The seconds of each sleep of the plugin.
    """

    __module__ = "plugwasm.testing"

    def __init__(self, *, tick: float = 0.0) -> None:
        self.tick = tick
        self.sleeps: list[float] = []
        self._realtime = _START * 10**9
        self._monotonic = 10**9  # programs in Go end at once if it is 0

    def set(self, when: datetime | float) -> None:
        """Set the time of day. It is 2000-01-01 00:00 UTC before the first time.

        Args:
            when: A `datetime` with a time zone, or seconds since 1970.
        """
        if isinstance(when, datetime):
            if when.tzinfo is None:
                raise OptionError(
                    f"FakeClock.set: {when!r} has no time zone, so it is another moment on each "
                    "machine; add `tzinfo=UTC`"
                )
            when_ns = _nanoseconds(when - _EPOCH)
        else:
            when_ns = round(when * 1e9)
        self._realtime = when_ns

    def advance(self, by: timedelta | float) -> None:
        """Move both clocks forward, by seconds or a `timedelta`."""
        step = _nanoseconds(by) if isinstance(by, timedelta) else round(by * 1e9)
        if step < 0:
            raise OptionError(
                "FakeClock.advance: time does not run backwards; `set` puts the time of day "
                "anywhere"
            )
        self._realtime += step
        self._monotonic += step

    def realtime(self) -> int:
        now = self._realtime
        self.advance(self.tick)
        return now

    def monotonic(self) -> int:
        now = self._monotonic
        self.advance(self.tick)
        return now

    def sleep(self, seconds: float, wait: Callable[[float], None]) -> None:
        wait(0.0)
        self.sleeps.append(seconds)
        self.advance(seconds)


def _nanoseconds(span: timedelta) -> int:
    return span // timedelta(microseconds=1) * 1000
