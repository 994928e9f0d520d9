"""What a plugin sees of time and chance through WASI: the system's, or what the application makes of them.

With a clock of its own and a seeded source of random bytes, a plugin does the same at each run.
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
    """The time that a plugin sees: the system's. Subclass it for another; what a method raises ends the call.

    Attributes:
        resolution: Nanoseconds that the plugin is told the clocks have as their resolution.
    """

    __module__ = "plugwasm"

    resolution: int = 1

    def realtime(self) -> int:
        """Nanoseconds since 1970."""
        return time.time_ns()

    def monotonic(self) -> int:
        """Nanoseconds since some moment."""
        return time.monotonic_ns()

    def sleep(self, seconds: float, wait: Callable[[float], None]) -> None:
        """Called when the plugin sleeps. `wait` waits for so many seconds, but raises when the call is to end."""
        wait(seconds)

    def for_instance(self) -> Clock:
        """The clock of a new instance: this one, unless it keeps something that instances should not share."""
        return self


class FrozenClock(Clock):
    """A clock that stands still. A plugin that sleeps does not wait, but moves its own clock on.

    Args:
        realtime: Where it stands, in nanoseconds since 1970.
        monotonic: The same for the monotonic clock.
    """

    __module__ = "plugwasm"

    def __init__(self, realtime: int = 0, monotonic: int = 0) -> None:
        for name, value in (("realtime", realtime), ("monotonic", monotonic)):
            if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**64:
                raise OptionError(
                    f"FrozenClock: {name}: expected whole nanoseconds from 0 to 2**64 - 1, got {value!r}"
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
    """The system's time in coarse steps, with which a plugin can measure less of what goes on around it.

    Args:
        resolution: Nanoseconds of a step; a millisecond if not given.
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
    """Random bytes that follow from a seed, from the start for each instance. A plugin that knows the seed knows them all.

    Args:
        seed: Of the Mersenne Twister of `random.Random`.
    """

    __module__ = "plugwasm"

    def __init__(self, seed: int | str | bytes) -> None:
        if not isinstance(seed, (int, str, bytes)):
            raise OptionError(
                f"SeededRandom: expected a number, text or bytes as the seed, got {type(seed).__name__}"
            )
        self.seed = seed

    def for_instance(self) -> Callable[[int], bytes]:
        """The source of a new instance."""
        from random import Random

        return Random(self.seed).randbytes


class WasiOptions:
    """Grants WASI with something other than the system's time and chance: `Plugin(…, wasi=WasiOptions(clock=FrozenClock()))`.

    Args:
        clock: The time that the plugin sees.
        random: Gives that many random bytes; what it raises ends the call.
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
        return f"WasiOptions(clock={type(self.clock).__name__}, random={getattr(self.random, '__name__', type(self.random).__name__)})"
