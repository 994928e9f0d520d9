"""The owner of a request, for shares of what plugins share: the queue of a `RateLimiter`, the
threads that look up names.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Hashable

__all__ = ["RequestOwner"]


class RequestOwner:
    """The owner of requests: a compiled plugin, or a download. Owners are compared by identity.

    Attributes:
        family: Equal for plugins made from the same modules with the same grants. An application
            may make a plugin for each call: each of these has a share, but its family has no more
            than other families.
    """

    __slots__ = ("family",)

    def __init__(self, family: Hashable = None) -> None:
        self.family: Hashable = ("own", id(self)) if family is None else family
