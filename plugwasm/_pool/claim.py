"""A slot of a pool, and the chain of claims that says whose it is.

Finalizers and signal handlers may use a pool while any thread is in the middle of something, and a
signal handler may raise there. So there is no lock: what is shared changes by single operations of
C (`dict.setdefault`, storing an attribute), so that an interruption finds it consistent.

1. A slot belongs to the last claim of a chain. Each claim that was released can have one successor,
   and `setdefault` decides which. The same operation takes the slot, so no slot is ever lost.
2. A claim ends when `is_released` is set. That is no call: after calls, signal handlers run.
   The holder of a slot sets it whatever happens, even if the rest of giving back was interrupted;
   the next holder makes up for that (`Slot.is_dirty`).

Decisions: docs/decisions.md, 32.2.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .._runtime.plugin import Plugin


class Claim:
    """A caller's claim to a slot: first a place in the queue, then the right to use the slot.

    Attributes:
        is_released: Whether it was given up, for good.
        thread: The identifier of the thread that waits or holds; 0 for a task.
        task: The identifier of the task that waits or holds; 0 for a thread.
        wake: Wakes the waiting thread or task. Returns False when it can no longer be woken.
        slot: The slot that it holds; None while it holds none.
    """

    __slots__ = ("is_released", "slot", "successor", "task", "thread", "wake")

    def __init__(self) -> None:
        self.is_released: bool = False
        self.thread: int = 0
        self.task: int = 0
        self.wake: Callable[[], object] | None = None
        self.slot: Slot | None = None
        self.successor: dict[None, Claim | None] = {}
        """The claim that followed at the slot. None once the slot itself refers to that claim or a
        later one, so that no claim keeps all later ones alive."""


class Slot:
    """A place for one plugin.

    Attributes:
        plugin: The plugin; None before it is made, and after it was discarded.
        claim: A claim from which the chain leads to the holder.
        has_max_age: Whether instances of the plugin are recycled by age.
        is_dirty: Whether the plugin may have been used since it was last made fit for the next
            caller.
        was_lent: Whether a caller has ever had the plugin itself, and may keep it. Callers that
            only have it called cannot change it.
        made: How many plugins were made for this slot. Only the holder counts.
        replaced: How many of them were discarded. Only the holder counts.
        recycled: How many instances of them were recycled. Only the holder counts.
    """

    __slots__ = (
        "claim",
        "has_max_age",
        "is_dirty",
        "made",
        "plugin",
        "recycled",
        "replaced",
        "was_lent",
    )

    def __init__(self) -> None:
        self.plugin: Plugin | None = None
        self.claim: Claim = Claim()
        self.claim.is_released = True
        self.has_max_age: bool = False
        self.is_dirty: bool = False
        self.was_lent: bool = False
        self.made: int = 0
        self.replaced: int = 0
        self.recycled: int = 0

    def holder(self) -> Claim:
        """Return the claim that holds the slot, or the one that held it last."""
        while True:
            claim: Claim | None = self.claim
            while claim is not None:
                holder = claim
                try:
                    claim = holder.successor[None]
                except KeyError:
                    return holder

    def acquire(self, claim: Claim) -> bool:
        """Give the slot to `claim` if it is idle. Return whether it was."""
        holder = self.claim
        if holder.successor:
            holder = self.holder()
        if not holder.is_released or holder.successor.setdefault(None, claim) is not claim:
            return False
        self.claim = claim
        claim.slot = self
        holder.successor[None] = None
        return True
