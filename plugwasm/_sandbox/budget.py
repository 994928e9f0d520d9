"""Keeps all memories of a plugin together within `max_pages`.

The engine knows one limit, for each memory by itself, not one for their sum. So:

1. The kernel asks before it grows, and says when it is done.
2. A plugin with one memory that the host can see the size of: kernel and memory may take what the other has not, exactly. The engine's
   limit is what the kernel has left over.
3. Any other: the kernel and each memory have a share that is fixed from the start, and the shares add up to the limit.
"""

from __future__ import annotations

from .._kernel import FIRST_PAGES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class MemoryBudget:
    """The limit of one instance of a plugin.

    Args:
        maximum: `max_pages`.
        count, largest, total: Of the plugin's own memories: how many, and the pages at first of the largest and of all.
        limit: Sets the engine's limit for each memory, in pages.
        watched: The present pages of the only memory; None when there are several, or the host cannot see it.
    """

    __slots__ = ("_limit", "_share", "_watched", "cap", "maximum", "refused")

    def __init__(
        self, maximum: int, count: int, largest: int, total: int, limit: Callable[[int], None], watched: Callable[[], int | None] | None
    ) -> None:
        self.maximum = maximum
        self.refused = False
        self._limit = limit
        self._watched = watched if count == 1 else None
        if count == 0:
            self._share, self.cap = maximum, maximum
        elif self._watched is not None:
            self._share, self.cap = maximum, maximum - FIRST_PAGES
        else:
            self._share = FIRST_PAGES + max(0, maximum - FIRST_PAGES - total) // (count + 1)
            self.cap = (maximum - self._share) // count
            if self.cap < largest:
                self._share, self.cap = FIRST_PAGES, (maximum - FIRST_PAGES) // count
        limit(max(self.cap, FIRST_PAGES))  # until the kernel is made, and says so

    def may_grow(self, pages: int, present: int) -> bool:
        """Whether the kernel, which has `present` pages, may grow to `pages`; 0 says that it is done."""
        if self._watched is not None:
            others = self._watched()
            if others is None:
                others = self.cap
            if pages == 0:
                self.cap = self.maximum - present
                self._limit(self.cap)
                return True
            if pages + others <= self.maximum:
                self._limit(max(pages, self.cap))
                return True
        elif pages == 0:
            self._limit(self.cap)
            return True
        elif pages <= self._share:
            self._limit(max(pages, self.cap))
            return True
        self.refused = True
        return False

    def is_used_up(self) -> bool:
        """Whether a memory was refused more, or has all that it may."""
        if self.refused:
            return True
        pages = self._watched() if self._watched is not None else None
        return pages is not None and pages >= self.cap
