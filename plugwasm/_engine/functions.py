"""Wasm functions that the host calls, and the memory that their calls use.

Decisions: docs/decisions.md, 14 and 50.
"""

from __future__ import annotations

from ctypes import addressof, c_uint64, memmove

from .callbacks import check_recursion_depth, take_failure
from .ffi import EXTERN_SIZE, call_unchecked, constant_pointer, constant_size
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


_HEAD = EXTERN_SIZE // 8
TRAP = -2
"""Where among the values of a block its trap is."""


class CallBlock:
    """Memory for the calls of one function: the function as an extern (four words), the values (two
    words each), the trap (one) and a spare word.

    Making one takes as long as the rest of a `WasmFunction`, which therefore gives it back for
    another one to use (`give_back`). So there are as many as there were functions at a time.
    """

    __slots__ = ("_at", "_piece", "address", "arguments", "give_back", "values")

    def __init__(self, piece: memoryview, at: int, address: int, blocks: CallBlocks) -> None:
        self._piece = piece
        self._at = at
        self.address: int = address
        """The address of the extern."""
        end = at + blocks.words
        self.values: memoryview = piece[at + _HEAD : end]
        """The values, the trap and the spare word."""
        self.arguments: tuple[Any, ...] = (
            constant_pointer(address + 8),
            constant_pointer(address + EXTERN_SIZE),
            blocks.slots,
            constant_pointer(address + 8 * (blocks.words + TRAP)),
        )
        self.give_back: Callable[[], object] = partial(blocks.give_back, self)

    def kind(self) -> int:
        """Return what the extern is (`EXTERN_FUNC`)."""
        return self._piece[self._at] & 0xFF


class CallBlocks:
    """Blocks for functions of as many values, cut from pieces of memory with `number` of them."""

    __slots__ = ("_number", "_piece", "_spare", "_zeros", "give_back", "slots", "words")

    def __init__(self, slots: int, number: int = 32) -> None:
        self.slots: Any = constant_size(slots)
        self.words: int = _HEAD + 2 * slots + 2
        self._number = number
        self._zeros: memoryview = memoryview(bytes(8 * (2 * slots + 2))).cast("Q")
        self._piece: tuple[memoryview, int, list[int]] = memoryview(b""), 0, []
        """A view of the present piece, its address, and its words at which a block can start."""
        self._spare: list[CallBlock] = []
        self.give_back: Callable[[CallBlock], object] = self._spare.append

    def take(self) -> CallBlock:
        """Return a block that no function has, with zeros for values."""
        try:
            block = self._spare.pop()
        except IndexError:
            pass
        else:
            block.values[:] = self._zeros  # what another function left
            return block
        piece, address, places = self._piece
        try:
            at = places.pop()
        except IndexError:
            memory: Any = (c_uint64 * (self.words * self._number))()
            address = addressof(memory)
            piece = memoryview(memory).cast("B").cast("Q")
            places = [i * self.words for i in range(self._number)]
            at = places.pop()
            self._piece = piece, address, places
        return CallBlock(piece, at, address + 8 * at, self)


_blocks: dict[int, CallBlocks] = {}
"""By the number of values."""


def take_block(slots: int) -> CallBlock:
    """Return a block that no function has, with zeros for values."""
    try:
        blocks = _blocks[slots]
    except KeyError:
        blocks = _blocks.setdefault(slots, CallBlocks(slots))
    return blocks.take()


class BoundFunction:
    """A Wasm function, ready to be called as long as its store exists.

    `values` holds the parameters before a call and the results after it: number i is `values[2 *
    i]`, unsigned. They are zero at first, and two words for the engine follow them. They belong to
    the function, and must not be used without it. `invoke` is the fastest way in. It takes nothing.
    When the call failed it leaves `values` as they were, and `fail` must be called with what it
    returned. Call `check_recursion_depth` before it.
    """

    __slots__ = ("invoke", "values")

    def __init__(self, block: CallBlock, context: Any) -> None:
        """`context` is that of the store, as an argument for hot functions."""
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
            if error or self.values[TRAP]:
                self.fail(error, pending)
        except EngineFailure:
            raise
        except BaseException:
            # Raised by a signal handler right after the call. How the call ended is lost.
            self.values[TRAP] = 0
            pending.exception = None
            pending.replenish()
            raise

    @property
    def trapped(self) -> bool:
        """Whether the last call was ended by a trap that `fail` has yet to report."""
        return bool(self.values[TRAP])

    def fail(self, error: int | None, pending: PendingException) -> NoReturn:
        """Raise what ended the last call."""
        trap = self.values[TRAP]
        self.values[TRAP] = 0
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
        memmove(block.address, item, EXTERN_SIZE)
        return cls(store, block)
