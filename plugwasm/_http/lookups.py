"""Limits on name lookups at a time, in total and for one plugin.

`getaddrinfo` cannot be interrupted: a lookup takes a thread, which may outlive its request by half
a minute, or for ever. So

1. a lookup counts until its thread ends, whether or not anyone still waits for it;
2. one owner (a plugin) has few of them, and beyond these waits within its own deadline; its family
   has half of all at most, so that a plugin gets no more by being made again;
3. once half of all are taken, an owner that has one gets no more: the other half is for owners that
   have none.

So names that never resolve use up the share of the plugin that asks for them, and other plugins go
on. The counts belong to a process: the threads of its parent do not live in a forked child.
"""

from __future__ import annotations

import os
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .request_owner import RequestOwner

__all__ = ["Lookup", "try_start"]

OWN = 16
"""The most lookups of one owner."""


class Lookup:
    """A lookup that waits, is under way or has ended.

    One without an owner is the application's, to which only the limit on all applies.
    """

    __slots__ = ("owner",)

    def __init__(self, owner: RequestOwner | None) -> None:
        self.owner = owner

    def finish(self) -> None:
        """Stop counting it: its thread ends, or will not start. May be called more than once."""
        under_way = _state.under_way
        with _state.lock:
            if own := under_way.get(self.owner):
                own.discard(self)
                if not own:
                    del under_way[self.owner]


def try_start(lookup: Lookup, most: int) -> bool:
    """Return whether there is room for it among `most`.

    If so, it counts until `finish` is called.
    """
    with _state.lock:
        under_way = _state.under_way
        count = sum(map(len, under_way.values()))
        if count >= most or not _has_share(lookup.owner, count, most // 2):
            return False
        under_way.setdefault(lookup.owner, set()).add(lookup)
        return True


def _has_share(owner: RequestOwner | None, count: int, half: int) -> bool:
    if owner is None:
        return True
    own = len(_state.under_way.get(owner, ()))
    family = sum(
        len(taken)
        for other, taken in _state.under_way.items()
        if other is not None and other.family == owner.family
    )
    return own < OWN and (not family or family < half) and (not own or count < half)


class _State:
    def __init__(self) -> None:
        self.lock = threading.RLock()  # re-entrant: a signal handler may run a plugin
        self.under_way: dict[RequestOwner | None, set[Lookup]] = {}


_state = _State()


def _after_fork_in_child() -> None:
    global _state
    _state = _State()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
