"""Whose a request is, where plugins share something that a request takes: the queue of a `RateLimiter`, the threads that look up names."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Hashable

__all__ = ["RequestOwner"]


class RequestOwner:
    """A compiled plugin, or a download. Each object is one of its own.

    Attributes:
        family: What is equal when a plugin is made again from the same modules with the same grants. An application may make a plugin for
            each call, and each of these has a share, but its family has no more than that of others.
    """

    __slots__ = ("family",)

    def __init__(self, family: Hashable = None) -> None:
        self.family: Hashable = ("own", id(self)) if family is None else family
