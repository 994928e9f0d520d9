"""Wasm functions that the host calls, and the memory that their calls use.

Decisions: docs/decisions.md, 14 and 50.
"""

from __future__ import annotations

from ctypes import addressof, c_size_t, c_uint64, c_void_p, memmove

from .callbacks import check_recursion_depth, take_failure
from .ffi import EXTERN_SIZE, VALUE_SIZE, call_unchecked
from .traps import EngineFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from functools import partial
    from typing import Any, NoReturn

    from .callbacks import PendingException
    from .store import Store
else:
    from _functools import partial  # the module `functools` takes long to import


class CallBlock:
    """Memory for the calls of one function: the function as an extern (four words), the trap (one),
    a spare word, and the values (two words each).

    Making one takes three times as long as the rest of a `WasmFunction`, which therefore gives it
    back for another one to use (`give_back`). So there are as many as there were functions at a
    time.
    """

    __slots__ = ("arguments", "extern", "give_back", "rest", "trap", "values", "zeros")

    def __init__(self, slots: int, spare: list[CallBlock]) -> None:
        self.extern: Any = (c_uint64 * (6 + slots * VALUE_SIZE // 8))()
        address = addressof(self.extern)
        view = memoryview(self.extern).cast("B")
        self.rest: memoryview = view[EXTERN_SIZE:]
        self.zeros: bytes = bytes(self.rest)
        words = view.cast("Q")
        self.trap: memoryview = words[4:5]
        self.values: memoryview = words[6:]
        self.arguments: tuple[Any, ...] = (
            c_void_p(address + 8),
            c_void_p(address + 48),
            c_size_t(slots),
            c_void_p(address + 32),
        )
        self.give_back: Callable[[], object] = partial(spare.append, self)


_spare_blocks: dict[int, list[CallBlock]] = {}
"""Blocks that no function has, by their slots."""


def take_block(slots: int) -> CallBlock:
    """Return a block that no function has, with zeros for values."""
    try:
        block = _spare_blocks[slots].pop()
    except (KeyError, IndexError):
        return CallBlock(slots, _spare_blocks.setdefault(slots, []))
    block.rest[:] = block.zeros  # what another function left
    return block


class BoundFunction:
    """A Wasm function, ready to be called as long as its store exists.

    `values` holds the parameters before a call and the results after it: number i is `values[2 *
    i]`, unsigned. They are zero at first. They belong to the function, and must not be used without
    it. `invoke` is the fastest way in. It takes nothing. When the call failed it leaves `values` as
    they were, and `fail` must be called with what it returned. Call `check_recursion_depth` before
    it.
    """

    __slots__ = ("_trap", "invoke", "values")

    def __init__(self, block: CallBlock, context: c_void_p) -> None:
        self._trap = block.trap
        self.values: memoryview = block.values
        self.invoke: Callable[[], int | None] = partial(call_unchecked, context, *block.arguments)

    def call(self, pending: PendingException) -> None:
        """Call the function.

        Raises:
            EngineFailure: The call failed. It is a `HostRaised` if a host callback raised.
        """
        check_recursion_depth()
        try:
            error = self.invoke()
            if error or self._trap[0]:
                self.fail(error, pending)
        except EngineFailure:
            raise
        except BaseException:
            # Raised by a signal handler right after the call. How the call ended is lost.
            self._trap[0] = 0
            pending.exception = None
            pending.replenish()
            raise

    @property
    def trapped(self) -> bool:
        """Whether the last call was ended by a trap that `fail` has yet to report."""
        return bool(self._trap[0])

    def fail(self, error: int | None, pending: PendingException) -> NoReturn:
        """Raise what ended the last call."""
        trap = self._trap[0]
        self._trap[0] = 0
        raise take_failure(error, trap, pending)


class WasmFunction(BoundFunction):
    """A Wasm function of one store, which it holds, ready to be called."""

    __slots__ = ("__del__", "_store")  # see `Finalizable`, which cannot be a second base

    def __init__(self, store: Store, block: CallBlock) -> None:
        self.__del__: Callable[[], object] = block.give_back
        self._store = store
        # Not by `super()`, which takes longer.
        BoundFunction.__init__(self, block, store.context_pointer)

    @classmethod
    def of(cls, store: Store, item: bytes, slots: int) -> WasmFunction:
        """Return the function that is an extern of the store, with room for so many values."""
        block = take_block(slots)
        memmove(block.extern, item, EXTERN_SIZE)
        return cls(store, block)
