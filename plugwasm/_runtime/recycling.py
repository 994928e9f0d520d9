"""Recycling: a plugin gets a new instance after so many calls, so much memory, or so long.

1. An instance is looked at when a call of it has ended, and its output was read. If it has reached
   a bound of `Recycle`, it is dropped, and the next call makes a new one. Vars and config belong to
   the plugin, and stay. Views of the old memory stay valid as after any other call.
2. A plugin that a pool has lent keeps its instance until it is given back: a lease is several calls
   on one instance.
3. The age is also looked at before a call, because a plugin may wait for a long time.
4. Asking the engine how large a memory is takes as long as a small call. So it is asked after the
   first call, and then after as many calls as half of what is left would last at the present rate
   of growth, at most `MAX_INTERVAL`.
5. A plugin that is not recycled pays nothing for this.

Decisions: docs/decisions.md, 51.
"""

from __future__ import annotations

from math import ceil
from time import monotonic

from .._host.deadline import NEVER
from .._host.options import NOT_GIVEN, describe_value
from .._manifest.limits import (
    INITIAL_PAGES,
    MAX_MEMORY_BYTES,
    PAGE_SIZE,
    check_number,
    raise_unknown_argument,
)
from ..errors import OptionError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Never, NoReturn

    from .abstract_plugin import AbstractPlugin
    from .compiled_plugin import CompiledPlugin
    from .plugin import Plugin as _AnyPlugin
else:
    _AnyPlugin = object

__all__ = ["Recycle"]

MAX_INTERVAL = 64
"""The most calls from one look at the memory to the next."""
DEFAULT_CALLS = 100
"""Calls that an instance makes before a pool recycles it by default."""
_UNBOUNDED = 2**62


class Recycle:
    """When a plugin gets a new instance, although the present one still works: for plugins that
    leak memory, or whose state grows old. Immutable; two with the same values are equal.

    It happens between two calls, at the first bound that is reached. The memory of the instance is
    lost, with all that the plugin keeps there; vars and config stay.

    Args:
        calls: Calls that an instance makes, also those that fail.
        memory_bytes: All memories of an instance together, with the blocks that are passed in and
            out: it is recycled after a call that leaves it with so much or more. Well below
            `Limits.memory_bytes`, since a call may need more. It is looked at after at most 64
            calls, and more often while it grows. Of several memories, or one that is not exported,
            the host sees only the blocks.
        seconds: The age of an instance: no call starts on an older one.
        jitter: The bounds of each instance are lower by a random part, at most this one (0.1 for
            10 %), so that instances made at the same time are not recycled at the same time.

    Raises:
        OptionError: A value is not a number in its range, or there is no bound.
    """

    __module__ = "plugwasm"

    __slots__ = ("calls", "jitter", "memory_bytes", "seconds")
    _is_default = False

    calls: int | None
    memory_bytes: int | None
    seconds: float | None
    jitter: float

    def __init__(
        self,
        *unnamed: Never,
        calls: int | None = None,
        memory_bytes: int | None = None,
        seconds: float | None = None,
        jitter: float = 0.0,
        **unknown: Never,
    ) -> None:
        if unnamed or unknown:
            raise_unknown_argument(
                "Recycle", unnamed, unknown, ("calls", "memory_bytes", "seconds", "jitter")
            )
        check_number("Recycle.calls", calls, int, 1, 2**53, none=True)
        check_number("Recycle.memory_bytes", memory_bytes, int, 1, MAX_MEMORY_BYTES, none=True)
        check_number("Recycle.seconds", seconds, (int, float), 0.001, 2**33, none=True)
        check_number("Recycle.jitter", jitter, (int, float), 0, 1)
        if calls is None and memory_bytes is None and seconds is None:
            raise OptionError(
                "Recycle: expected one of `calls`, `memory_bytes` and `seconds` at least; where "
                "nothing is to be recycled, write recycle=None",
                field="calls",
            )
        values = locals()
        for name in Recycle.__slots__:
            object.__setattr__(self, name, values[name])

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("a Recycle cannot be changed; make another")

    def _values(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in Recycle.__slots__}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Recycle) and self._values() == other._values()

    def __hash__(self) -> int:
        return hash(tuple(self._values().values()))

    def __reduce__(self) -> tuple[Any, ...]:
        from functools import partial

        return partial(Recycle, **self._values()), ()

    def __repr__(self) -> str:
        given = [f"{name}={value!r}" for name, value in self._values().items() if value]
        return f"Recycle({', '.join(sorted(given))})"


class _Default(Recycle):
    """The default of a pool; see `default_for`."""

    __slots__ = ()
    _is_default = True


def default_for(compiled: CompiledPlugin) -> Recycle:
    """Return when a pool recycles instances of a plugin if the application does not say.

    That is when their memory still grows after some calls, and half of what it may grow is used
    up: such an instance would soon fail. Half, because many allocators double their memory.
    """
    limits = compiled.limits
    first = compiled._plan.first_pages if hasattr(compiled, "_plan") else INITIAL_PAGES
    most = limits.memory_bytes or MAX_MEMORY_BYTES
    if limits.max_pages is not None:
        most = min(most, (first + limits.max_pages) * PAGE_SIZE)
    return _Default(memory_bytes=max(1, (first * PAGE_SIZE + most) // 2))


class Recycling:
    """Counts the calls of a plugin's instance, and says when it is to be replaced.

    Attributes:
        countdown: Calls, or leases, until the instance is to be looked at; at 0 it is.
        counts_calls: Whether calls are counted, each when it has ended.
        counts_leases: Whether a pool counts leases instead, which costs less.
        due: The bound that the instance has reached, as the name of a field of `Recycle`, or None.
        expires: When the instance is too old, on the monotonic clock.
        has_max_age: Whether there is a bound on age.
        wants_memory: Whether there is a bound on memory.
    """

    __slots__ = (
        "_calls",
        "_dropped",
        "_interval",
        "_max_bytes",
        "_max_calls",
        "_recycle",
        "_size",
        "countdown",
        "counts_calls",
        "counts_leases",
        "due",
        "expires",
        "has_max_age",
        "wants_memory",
    )

    def __init__(self, recycle: Recycle) -> None:
        self._recycle = recycle
        self._dropped: str | None = None
        self.wants_memory: bool = recycle.memory_bytes is not None
        self.has_max_age: bool = recycle.seconds is not None
        self.counts_calls: bool = self.wants_memory or recycle.calls is not None
        self.counts_leases: bool = False
        self.begin()

    def lend(self) -> None:
        """Leave it to a pool to count, unless each call has to be counted."""
        self.counts_leases = self.wants_memory and self._recycle.calls is None
        self.counts_calls = self._recycle.calls is not None

    def begin(self) -> str | None:
        """Begin with a new instance. Return the bound that the one before it was recycled for."""
        recycle = self._recycle
        share = 1.0
        if recycle.jitter:
            from random import random

            share -= recycle.jitter * random()
        self._max_calls = ceil(recycle.calls * share) or 1 if recycle.calls else _UNBOUNDED
        self._max_bytes = (recycle.memory_bytes or 0) * share
        self.expires = NEVER if recycle.seconds is None else monotonic() + recycle.seconds * share
        self._calls = self._size = 0
        self._interval = self.countdown = 1 if self.wants_memory else self._max_calls
        self.due: str | None = None
        dropped, self._dropped = self._dropped, None
        return dropped

    def look(self, read_memory: Callable[[], int | None]) -> None:
        """Look at the instance after a call: set `due`, or `countdown`.

        Args:
            read_memory: Returns the bytes of its memory, or None if they are not known now.
        """
        if self.due is not None:
            return  # it has not been dropped yet
        since = self._interval - self.countdown
        calls, size, interval = self._calls + since, self._size, _UNBOUNDED
        if self.wants_memory:
            read = read_memory()
            if read is None:
                interval = 1
            else:
                grown = read - size if size else 0
                if read >= self._max_bytes and self._may_recycle(calls, grown):
                    self.due = "memory_bytes"
                if not size:
                    interval = 1
                elif grown <= 0:
                    interval = 2 * since
                else:
                    interval = int((self._max_bytes - read) * since / (2 * grown))
                size, interval = read, min(max(interval, 1), MAX_INTERVAL)
        if calls >= self._max_calls:
            self.due = "calls"
        # No call from here on: a signal handler that raises leaves all as it was, or done.
        if self.due is None:
            left = self._max_calls - calls
            interval = interval if interval < left else left
            self._interval = self.countdown = interval
        else:
            self._interval = self.countdown = 0
        self._calls, self._size = calls, size

    def _may_recycle(self, calls: int, grown: int) -> bool:
        return not self._recycle._is_default or (calls >= DEFAULT_CALLS and grown > 0)

    def look_soon(self) -> None:
        """Have the memory looked at after this call, which failed, or at the end of this lease."""
        if self.wants_memory:
            self._interval -= self.countdown - 1
            self.countdown = 1

    def drop(self, plugin: AbstractPlugin) -> None:
        """Drop the instance, which is due, for a caller that owns the plugin."""
        due, calls, size = self.due, self._calls, self._size
        self._dropped = due
        plugin._drop_instance()
        self.due, self.expires = None, NEVER
        from .._host.plugin_log import get_logger

        reached = f"{size} bytes of memory" if due == "memory_bytes" else f"{calls} calls"
        if due == "seconds":
            reached = f"{self._recycle.seconds} s"
        get_logger("recycling").debug(
            "plugin `%s` gets a new instance after %s (`Recycle.%s`)", plugin.name, reached, due
        )


# ---- plugins -------------------------------------------------------------------------------------


class AgeLimited(_AnyPlugin):
    """Mixin for the class of a plugin whose instances have a bound on their age, in front of the
    plugin's own class. So the calls of other plugins do not look at the clock for it.
    """

    __slots__ = ()
    _recycling: Recycling

    if not TYPE_CHECKING:

        def call(
            self, function_name, data=b"", parse=bytes, host_context=None, returns=..., codec=None
        ):
            if monotonic() >= self._recycling.expires and self._lease is None:
                self._recycle()
            return self._call(function_name, data, parse, host_context, returns, codec)


_age_limited_classes: dict[type[AbstractPlugin], type[AbstractPlugin]] = {}
"""The subclass with a bound on age of each class of plugins."""


def start_recycling(plugin: AbstractPlugin, recycle: Recycle) -> Recycling:
    """Return the state of a new plugin whose instances are recycled. Its class changes if they have
    a bound on their age.
    """
    check_recycle(recycle)
    if recycle.seconds is not None:
        kind = type(plugin)
        if kind not in _age_limited_classes:
            _age_limited_classes[kind] = type(
                kind.__name__,
                (AgeLimited, kind),
                {
                    "__slots__": (),
                    "__module__": kind.__module__,
                    "__doc__": kind.__doc__,
                    "_call": kind.call,
                },
            )
        plugin.__class__ = _age_limited_classes[kind]
    return Recycling(recycle)


def check_recycle(recycle: object) -> None:
    """Raise `OptionError` for the argument `recycle` unless it is None or a `Recycle`."""
    if not (recycle is None or isinstance(recycle, Recycle)):
        raise OptionError(
            f"recycle: expected a Recycle, got {describe_value(recycle)}; write "
            "recycle=Recycle(calls=…)",
            field="recycle",
        )


def resolve_recycle(recycle: Recycle | None, compiled: CompiledPlugin) -> Recycle | None:
    """Return what holds for the plugins of a pool, whose argument may be `NOT_GIVEN`."""
    if recycle is NOT_GIVEN:
        return default_for(compiled)
    check_recycle(recycle)
    return recycle
