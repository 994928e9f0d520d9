"""The clocks and random bytes that a plugin gets through WASI: the system's, or the application's.

With a frozen clock and a seeded source of random bytes, a plugin does the same at each run.
"""

from __future__ import annotations

import os
import time

from ..errors import OptionError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Clock", "CoarseClock", "FrozenClock", "SeededRandom", "WasiOptions"]


class Clock:
    """The time that a plugin sees: the system's.

    Subclass it for another one. An exception that a method raises ends the call.

    Attributes:
        resolution: The resolution of the clocks, in nanoseconds, as the plugin is told.
    """

    __module__ = "plugwasm"

    resolution: int = 1

    def realtime(self) -> int:
        """Return nanoseconds since 1970."""
        return time.time_ns()

    def monotonic(self) -> int:
        """Return nanoseconds since some moment."""
        return time.monotonic_ns()

    def sleep(self, seconds: float, wait: Callable[[float], None]) -> None:
        """Sleep for the plugin.

        Args:
            seconds: How long the plugin wants to sleep.
            wait: Waits for so many seconds, and raises when the call is to end.
        """
        wait(seconds)

    def for_instance(self) -> Clock:
        """Return the clock of a new instance: this one, unless it has state that instances must not
        share.
        """
        return self


class FrozenClock(Clock):
    """A clock that stands still.

    A plugin that sleeps does not wait; its own clock advances instead.

    Args:
        realtime: The time of the realtime clock, in nanoseconds since 1970.
        monotonic: The time of the monotonic clock, in nanoseconds. Programs in Go end at once if it
            is 0.
    """

    __module__ = "plugwasm"

    def __init__(self, realtime: int = 0, monotonic: int = 10**9) -> None:
        for name, value in (("realtime", realtime), ("monotonic", monotonic)):
            if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**64:
                raise OptionError(
                    f"FrozenClock: {name}: expected whole nanoseconds from 0 to 2**64 - 1, got "
                    f"{value!r}"
                )
        self._start = realtime, monotonic
        self._slept = 0

    def realtime(self) -> int:
        return self._start[0] + self._slept

    def monotonic(self) -> int:
        return self._start[1] + self._slept

    def sleep(self, seconds: float, wait: Callable[[float], None]) -> None:
        wait(0.0)
        self._slept += round(seconds * 1e9)

    def for_instance(self) -> FrozenClock:
        return FrozenClock(*self._start)


class CoarseClock(Clock):
    """The system's time in coarse steps, which limits what a plugin can measure.

    Args:
        resolution: The length of a step in nanoseconds; a millisecond if not given.
    """

    __module__ = "plugwasm"

    def __init__(self, resolution: int = 1_000_000) -> None:
        if not isinstance(resolution, int) or isinstance(resolution, bool) or resolution < 1:
            raise OptionError(
                f"CoarseClock: expected a resolution of at least 1 nanosecond, got {resolution!r}"
            )
        self.resolution = resolution

    def realtime(self) -> int:
        return time.time_ns() // self.resolution * self.resolution

    def monotonic(self) -> int:
        return time.monotonic_ns() // self.resolution * self.resolution


class SeededRandom:
    """Random bytes from a seed. Each instance gets them from the start.

    A plugin that knows the seed knows all of them.

    Args:
        seed: The seed for the Mersenne Twister of `random.Random`.
    """

    __module__ = "plugwasm"

    def __init__(self, seed: int | str | bytes) -> None:
        if not isinstance(seed, (int, str, bytes)):
            raise OptionError(
                "SeededRandom: expected a number, text or bytes as the seed, got "
                f"{type(seed).__name__}"
            )
        self.seed = seed

    def for_instance(self) -> Callable[[int], bytes]:
        """Return the source of random bytes for a new instance."""
        from random import Random

        return Random(self.seed).randbytes


class WasiOptions:
    """Grants WASI with other clocks or random bytes than the system's.

    For example, `Plugin(…, wasi=WasiOptions(clock=FrozenClock()))`.

    Args:
        clock: The time that the plugin sees.
        random: Returns so many random bytes. An exception that it raises ends the call.
    """

    __module__ = "plugwasm"

    __slots__ = ("clock", "random")

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        random: Callable[[int], bytes] | SeededRandom = os.urandom,
    ) -> None:
        if not (clock is None or isinstance(clock, Clock)):
            raise OptionError(f"WasiOptions.clock: expected a Clock, got {type(clock).__name__}")
        if isinstance(random, type) or not (callable(random) or isinstance(random, SeededRandom)):
            what = (
                f"the class {random.__name__}"
                if isinstance(random, type)
                else type(random).__name__
            )
            raise OptionError(
                f"WasiOptions.random: expected a SeededRandom or a callable, got {what}"
            )
        self.clock: Clock = clock or Clock()
        self.random: Callable[[int], bytes] | SeededRandom = random

    def __repr__(self) -> str:
        random = getattr(self.random, "__name__", type(self.random).__name__)
        return f"WasiOptions(clock={type(self.clock).__name__}, random={random})"
