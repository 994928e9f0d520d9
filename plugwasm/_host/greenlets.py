"""Greenlets (gevent, eventlet, SQLAlchemy, Playwright): only one of a thread may be inside of
guests at a time.

The engine keeps the calls of a thread in a chain through its native stack, and ends the process
when they do not end in the reverse order of their beginning. Greenlets share that stack: one that a
host function has switched away from is copied out of it, the engine's part included, and nothing
determines in which order they continue.

So while the package `greenlet` is loaded, each call notes on its guest where it was made
(`Guest.greenlet`), and none is made while another greenlet of its thread is in the middle of one.
Without the package nothing is noted.

Decisions: docs/decisions.md, 40.5.
"""

from __future__ import annotations

import sys

from .._platform.native_threads import get_ident
from ..errors import BusyError, truncate
from .deadline import ticker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    class Named(Protocol):
        """A plugin, for messages."""

        @property
        def name(self) -> str: ...


def current_greenlet() -> tuple[int, int] | None:
    """Return the thread and greenlet that this runs in, or None where there are no greenlets."""
    greenlet: Any = sys.modules.get("greenlet")
    if greenlet is None or not hasattr(greenlet, "getcurrent"):  # it is being imported
        return None
    return get_ident(), id(greenlet.getcurrent())


def check_greenlet(plugin: Named, function: str | None, *others: object) -> None:
    """Raise if another greenlet of this thread is in the middle of a call.

    Args:
        plugin, function: What is about to be called.
        others: Guests of calls that are under way, besides those whose guests run.

    Raises:
        BusyError: Another greenlet is in a call.
    """
    me = current_greenlet()
    for guest in () if me is None else (*ticker.running.copy(), *others):
        where = getattr(guest, "greenlet", None)
        is_apart = (
            where[0] == me[0] and where[1] != me[1]
            if where and me
            else guest in ticker.running and not _is_on_some_stack(guest)
        )
        if is_apart:
            raise BusyError(
                f"`{truncate(function or '')}` of plugin `{plugin.name}`: another greenlet of this "
                "thread is in the middle of a call, "
                "and calls of a thread must end in the reverse order of their beginning: make "
                "calls in threads of their own, as "
                "`gevent.get_hub().threadpool.apply` and `eventlet.tpool.execute` do",
                plugin=plugin.name,
                function=function,
            ) from None


def _is_on_some_stack(guest: object) -> bool:
    """Return whether a thread is in the call, as far as its present greenlet goes.

    For calls that began before there was a greenlet.
    """
    for frame in sys._current_frames().values():
        at: Any = frame
        while at is not None:
            if at.f_code.co_name in ("call", "_start") and at.f_locals.get("guest") is guest:
                return True
            at = at.f_back
    return False
