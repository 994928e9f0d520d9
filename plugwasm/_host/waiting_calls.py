"""The calls that wait while something here waits: those whose host functions are under way in this
thread, or for this task.

Invariant: waiting for a plugin counts towards the calls that wait for it. Whoever waits for
something that another call may hold (a plugin of a pool, the outputs of a `map`, the process of an
isolated plugin) asks `CallerWait` between two looks, which raises if one of them was cancelled or
is past its deadline.

Nothing is noted when a host function is called, since every call would pay for that. Whoever has to
wait reads it from the stack.

Decisions: docs/decisions.md, 33.4 and 40.3.
"""

from __future__ import annotations

import sys

from .._engine import CALLBACK_CODE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contextvars import ContextVar
    from types import CodeType
    from typing import Any, Protocol

    class Caller(Protocol):
        """A guest whose host function is under way."""

        def remaining(self) -> float | None: ...

    class Delegation(Protocol):
        """Stands for calls that wait in another thread."""

        @property
        def is_open(self) -> bool: ...

        @property
        def callers(self) -> tuple[Caller, ...]: ...

else:
    from _contextvars import ContextVar  # without the module `contextvars`

POLL_INTERVAL = 0.05
"""Seconds: how late a deadline or a cancellation may be noticed."""

current_delegation: ContextVar[Delegation | None] = ContextVar(
    "plugwasm_current_delegation", default=None
)
"""Set where a coroutine of a host function, or an item of a `map`, runs for calls of another
thread.
"""

_guests: dict[tuple[str, str], str] = {}
"""For functions that run host functions, by name and file: the variable that holds the guest."""


def register_host_function_frame(code: CodeType, guest: str) -> None:
    """Register the code of a function that runs host functions.

    Args:
        code: Its code.
        guest: The variable in it that holds the guest.
    """
    _guests[code.co_name, code.co_filename] = guest


register_host_function_frame(CALLBACK_CODE, "environment")


def waiting_callers() -> tuple[Caller, ...]:
    """Return the guests whose host functions are under way, innermost first."""
    found: list[Any] = []
    frame = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        variable = _guests.get((code.co_name, code.co_filename))
        if (
            variable is not None
            and hasattr(guest := frame.f_locals.get(variable), "remaining")
            and guest not in found
        ):
            found.append(guest)
        frame = frame.f_back  # type: ignore[assignment]
    other = current_delegation.get()
    if other is not None and other.is_open:
        found += [guest for guest in other.callers if guest not in found]
    return tuple(found)


class CallerWait:
    """A wait that is about to begin, on behalf of the calls that wait for it."""

    __slots__ = ("callers",)

    def __init__(self) -> None:
        self.callers = waiting_callers()

    def pause(self, seconds: float) -> float:
        """Return how long to wait until the next look.

        Raises:
            TimeoutError, CancelledError: A call that waits has ended.
        """
        if not self.callers:
            return seconds
        rest = min(seconds, POLL_INTERVAL)
        for caller in self.callers:
            left = caller.remaining()
            if left is not None:
                rest = min(rest, left)
        return rest
