"""Keep all memories of a plugin together within its limit.

The engine has one limit, for each memory by itself, not one for their sum. So:

1. The kernel asks before it grows, and says when it is done.
2. If a plugin has one memory whose size the host can see, kernel and memory may each take what the
   other has not, exactly. The engine's limit is what the kernel has left over.
3. In any other plugin, the kernel and each memory have a share that is fixed from the start, and
   the shares add up to the limit.
4. `Limits.max_pages`, a manifest's `memory.max_pages`, also bounds growth after the start, as other
   hosts do: in case 2 for kernel and memory together, exactly; in case 3 for each by itself,
   because no one sees how much the others have grown.
5. What is not in memories is bounded beside them: tables together, and all else together, take no
   more than memories may.

Decisions: docs/decisions.md, 8 and 38.1.
"""

from __future__ import annotations

from .._engine import StoreLimits
from .._manifest.limits import INITIAL_PAGES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .._engine import ExportName, Instance, LinearMemory, Store
    from .._manifest.limits import Limits

PAGE = 65536
MAX_PAGES = 65536
"""The most pages of a memory."""
OPTIONAL_GROWTH = 1 << 31
KERNEL_MEMORIES, KERNEL_TABLES = 2, 1
ELEMENT_BYTES = 8
"""Bytes of a table element."""


def max_table_elements(limits: Limits, tables: int) -> int:
    """Return how many elements each of so many tables may have."""
    if limits.memory_bytes is None:
        return limits.table_elements
    return min(limits.table_elements, limits.memory_bytes // ELEMENT_BYTES // max(tables, 1))


def max_state_bytes(limits: Limits) -> int:
    """Return how many bytes a plugin's instances may take outside of memories and tables."""
    return (
        limits.instance_bytes
        if limits.memory_bytes is None
        else min(limits.instance_bytes, limits.memory_bytes)
    )


def _min_of(one: int | None, other: int) -> int:
    return other if one is None else min(one, other)


class MemoryPlan:
    """The limits of every instance of a plugin, computed once.

    Args:
        limits: The limits of its memory, in whole pages, and of what else the engine counts.
        memories: The plugin's own memories: how many, the initial pages of all, and those of the
            largest. A heap of the collector counts as one more, with no initial pages.
        sole_memory: The unit that has the only memory, and its name; None if there are several, or
            the host cannot see it.
        tables: How many tables the plugin has.

    Attributes:
        maximum: Pages of all memories together, or None.
        share: Pages that the kernel may have, or None.
        cap: Pages that each memory may have, or None; for a sole memory, initially.
        first_limit: Pages that the engine allows each memory until the kernel is made, or None.
        first_limits: The engine's limits until then.
    """

    __slots__ = (
        "cap",
        "elements",
        "first",
        "first_limit",
        "first_limits",
        "growth",
        "has_memories",
        "limits",
        "maximum",
        "share",
        "sole_memory",
    )

    def __init__(
        self,
        limits: Limits,
        memories: tuple[int, int, int],
        sole_memory: tuple[int, ExportName] | None = None,
        tables: int = 0,
    ) -> None:
        self.limits: Limits = limits
        self.elements: int = max_table_elements(limits, tables)
        count, total, largest = memories
        self.has_memories: bool = count > 0
        self.first: int = total
        self.sole_memory: tuple[int, ExportName] | None = sole_memory if count == 1 else None
        growth = limits.max_pages
        maximum = None if limits.memory_bytes is None else limits.memory_bytes // PAGE
        self.growth: int | None = growth
        self.maximum: int | None = maximum
        self.share, self.cap = self._shares(maximum, count, total, largest)
        if growth is not None:
            share, cap = INITIAL_PAGES + growth, min(MAX_PAGES, largest + growth)
            if self.sole_memory is None and (maximum is None or share + count * cap <= maximum):
                self.share, self.cap = share, cap  # each may grow as far as `max_pages` lets it
            else:
                self.share, self.cap = _min_of(self.share, share), _min_of(self.cap, cap)
        self.first_limit: int | None = None if self.cap is None else max(self.cap, INITIAL_PAGES)
        self.first_limits: StoreLimits = self._store_limits(self.first_limit)

    def store_limits(self, pages: int | None) -> StoreLimits:
        """Return the engine's limits where each memory may have so many pages."""
        return self.first_limits if pages == self.first_limit else self._store_limits(pages)

    def _store_limits(self, pages: int | None) -> StoreLimits:
        limits = self.limits
        return StoreLimits(
            memory_bytes=-1 if pages is None else pages * PAGE,
            table_elements=self.elements,
            instances=limits.instances + 1,
            tables=limits.tables + KERNEL_TABLES,
            memories=limits.memories + KERNEL_MEMORIES,
        )

    def _shares(
        self, maximum: int | None, count: int, total: int, largest: int
    ) -> tuple[int | None, int | None]:
        """Return the pages that the kernel, and each memory, may have if all together have
        `maximum`.

        For a sole memory this is the initial value.
        """
        if maximum is None or count == 0:
            return maximum, maximum
        if self.sole_memory is not None:
            return maximum, maximum - INITIAL_PAGES
        share = INITIAL_PAGES + max(0, maximum - INITIAL_PAGES - total) // (count + 1)
        cap = (maximum - share) // count
        return (
            (share, cap) if cap >= largest else (INITIAL_PAGES, (maximum - INITIAL_PAGES) // count)
        )


class MemoryBudget:
    """The limits of one instance of a plugin, set in the engine.

    Args:
        plan: The limits.
        store: Where the plugin's instances live, with the limits `plan.first_limits`.
        instances: The plugin's instances by unit, as far as they are made.

    Attributes:
        cap: Pages that each memory may have, or None.
    """

    __slots__ = ("_instances", "_limit_set", "_memory", "_store", "cap", "plan")

    def __init__(self, plan: MemoryPlan, store: Store, instances: dict[int, Instance]) -> None:
        self.plan: MemoryPlan = plan
        self._store = store
        self._instances = instances
        self._memory: LinearMemory | None = None
        """The sole memory, once it was looked for and found."""
        self._limit_set: int | None = plan.first_limit
        self.cap: int | None = plan.cap

    def limit(self, pages: int | None) -> None:
        """Set the engine's limit for each memory."""
        if pages != self._limit_set:
            self._store.limit(self.plan.store_limits(pages))
            self._limit_set = pages

    def note_kernel(self) -> None:
        """Set the limit that holds from when the kernel is made, with its `INITIAL_PAGES`."""
        if self.cap is not None:
            self.limit(self.cap)

    def may_grow(self, pages: int, present: int) -> bool:
        """Return whether the kernel, which has `present` pages, may grow to `pages`; 0 means that
        it is done.

        With `OPTIONAL_GROWTH` set in `pages`, the kernel could do with less. That is granted where
        only `Limits.memory_bytes` bounds it.
        """
        if pages & OPTIONAL_GROWTH:
            if self.plan.growth is not None:
                return False  # the memory may need them
            pages ^= OPTIONAL_GROWTH
        if self.cap is None or self.plan.share is None:
            return True
        if self.plan.sole_memory is not None:
            if pages == 0:
                self.cap = self._pages_left(present)
                self.limit(self.cap)
                return True
            others = self._present_pages()
            if (self.cap if others is None else others) <= self._pages_left(pages):
                self.limit(max(pages, self.cap))
                return True
        elif pages == 0:
            self.limit(self.cap)
            return True
        elif pages <= self.plan.share:
            self.limit(max(pages, self.cap))
            return True
        return False

    def _pages_left(self, kernel: int) -> int:
        """Return the pages that the sole memory may have beside a kernel with so many.

        That is less than it has when the kernel has too many.
        """
        left = MAX_PAGES if self.plan.maximum is None else self.plan.maximum - kernel
        return (
            left
            if self.plan.growth is None
            else min(left, self.plan.first + self.plan.growth - (kernel - INITIAL_PAGES))
        )

    def pages(self, kernel: int) -> int | None:
        """Return the pages of all memories, of which the kernel has so many; None if they cannot be
        seen.
        """
        own = self._present_pages() if self.plan.has_memories else 0
        return None if own is None else kernel + own

    def describe_shortage(self, kernel: int, denied: int) -> str | None:
        """Return which memory has how much of which limit, if one was refused more as far as the
        host can see; else None.

        Args:
            kernel: Pages of the kernel.
            denied: Bytes that it did not give in the call that ended; 0 if it gave all.
        """
        own, cap = self._present_pages(), self.cap
        left = None if own is None or cap is None else max(0, cap - own)
        # Allocators ask for several pages at once, so one that has grown is refused before all
        # pages are taken.
        is_full = (
            left is not None
            and cap is not None
            and (left == 0 or (left <= cap // 16 and own != self.plan.first))
        )
        if not (denied or is_full):
            return None
        heap = f"allocates with the host has {kernel} pages" + (
            f" and was refused {denied} bytes more" if denied else ""
        )
        memory = f"the plugin's memory has {own} pages" + (
            f" and can grow by {left} more" if is_full else ""
        )
        limits = (
            []
            if self.plan.growth is None
            else [f"{self.plan.growth} pages of 64 KiB more than at first (`memory.max_pages`)"]
        )
        if self.plan.maximum is not None:
            part = (
                f", of which {self.plan.share} are for what it allocates with the host"
                if own is None and self.plan.has_memories
                else ""
            )
            limits.append(
                f"{self.plan.maximum} pages of 64 KiB for all together{part} "
                "(`Limits.memory_bytes`)"
            )
        total = (
            f"its limit is {' and '.join(limits)}"
            if limits
            else "65536 pages are the most that there are"
        )
        return (
            f"{memory}, what it {heap}; {total}" if own is not None else f"what it {heap}; {total}"
        )

    def _present_pages(self) -> int | None:
        """Return the pages of the sole memory, if it exists yet."""
        memory = self._memory
        if memory is None:
            sole = self.plan.sole_memory
            if sole is None or (instance := self._instances.get(sole[0])) is None:
                return None
            memory = self._memory = instance.find_memory(sole[1])
        return None if memory is None else memory.size() // PAGE
