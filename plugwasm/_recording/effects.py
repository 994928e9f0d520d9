"""What a host function does to the plugin that calls it: tracked while it runs, and applied in a
replay.

A block is named by its origin: the parameter that it was passed as, or the block that was allocated
earlier in the same call. A block that the function found elsewhere is named by its offset, which
only holds for the same build of the plugin.

Decisions: docs/decisions.md, 26.1.
"""

from __future__ import annotations

from .._engine import EngineFailure
from .._host.vars import limit_error
from ..errors import OutOfMemoryError, RecordingError
from .formatting import common_prefix_length
from .schema import Alloc, Data, Free, Put, SetError, SetVar, Value, Write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Self

    from .._engine import HostFunction
    from .._host.guest import Guest
    from .._host.kernel import Kernel
    from .._host.vars import Vars
    from .schema import Effect, HostCall

_MASK_64 = 0xFFFFFFFFFFFFFFFF
_DEADLINE_CHECK_INTERVAL = 256
"""Effects between two checks of the deadline."""


def read_arguments(guest: Guest, function: HostFunction, values: Any) -> list[Value]:
    """Return what the plugin passes, with the content of blocks.

    An i64 may be a handle, and is taken for one if there is such a block.
    """
    args = []
    for i, type in enumerate(function.type.params):
        raw = values[2 * i]
        data = guest.find_block(raw) if type == "i64" else None
        args.append(Value.number(type, raw) if data is None else Value.content(data))
    return args


class EffectTracker:
    """Stands between a host function and the plugin's kernel and vars, and tracks what it does to
    them.

    Args:
        guest: The plugin.
        args: What it passed; `values` is the same as the host function gets it.

    Attributes:
        effects: What was done.
    """

    def __init__(self, guest: Guest, args: Sequence[Value], values: Any) -> None:
        self.effects: list[Effect] = []
        self._guest = guest
        self._kernel, self._vars = guest.kernel, guest.vars
        self._param_blocks: dict[int, int] = {}
        # The content of blocks as they were at first; None if it is unknown.
        self._content: dict[int, bytes | None] = {}
        for i, arg in enumerate(args):
            if (data := arg.octets) is not None:
                self._param_blocks[values[2 * i] & _MASK_64] = i
                self._content[values[2 * i] & _MASK_64] = data
        self._made_blocks: dict[int, int] = {}
        self._block_count = 0
        self._viewed: dict[int, Value] = {}  # may have been written to
        self._handles: set[int] = set()

    def __enter__(self) -> Self:
        self._guest.kernel = _TrackedKernel(self, self._kernel)  # type: ignore[assignment]
        self._guest.vars = _TrackedVars(self, self._vars)  # type: ignore[assignment]
        return self

    def __exit__(self, *_: object) -> None:
        self._guest.kernel, self._guest.vars = self._kernel, self._vars
        for offset, name in self._viewed.items():
            if (block := self._kernel.block(offset)) is not None:
                self._compare(name, self._content.get(offset), block.tobytes())

    def _compare(self, block: Value, before: bytes | None, after: bytes) -> None:
        if before is None or len(before) != len(after):
            self.effects.append(Write(block, Data.of(after)))
        elif before != after:
            first = common_prefix_length(before, after)
            last = len(after) - common_prefix_length(before[::-1], after[::-1])
            self.effects.append(Write(block, Data.of(after[first:last]), first))

    def resolve_arguments(
        self, args: Sequence[Value], raws: Sequence[int], kinds: Sequence[Any]
    ) -> list[Value]:
        """Return the arguments, now that the used handles are known: where the function declares an
        int, an i64 that was not used as a handle is a number."""
        if int not in kinds:
            return list(args)
        kinds = (*kinds, *[None] * len(args))
        is_int = [
            kind is int and raw & _MASK_64 not in self._handles
            for kind, raw in zip(kinds, raws, strict=False)
        ]
        return [
            Value.number(arg.type, raw) if plain else arg
            for arg, raw, plain in zip(args, raws, is_int, strict=True)
        ]

    def read_results(self, types: Sequence[str], kinds: Sequence[Any], values: Any) -> list[Value]:
        """Return the results of the function after it has returned."""
        results = []
        for i, type in enumerate(types):
            raw = values[2 * i]
            is_int = (
                (kinds[i] if i < len(kinds) else None) is int
                and raw & _MASK_64 not in self._made_blocks
                and raw & _MASK_64 not in self._handles
            )
            results.append(
                Value.number(type, raw) if type != "i64" or is_int else self.name_block(raw)
            )
        return results

    def name_block(self, offset: int) -> Value:
        """Return the block at an offset, named by its origin."""
        offset &= _MASK_64
        if offset in self._made_blocks:
            return Value(block=self._made_blocks[offset])
        if offset in self._param_blocks:
            return Value(param=self._param_blocks[offset])
        return Value.number("i64", offset)

    def add_block(self, effect: Alloc | Put, offset: int, content: bytes | None) -> None:
        """Note that a block was allocated."""
        self.effects.append(effect)
        self._made_blocks[offset] = self._block_count
        self._content[offset] = content
        self._block_count += 1

    def mark_handle(self, offset: int) -> None:
        """Note that the function uses a number as a handle."""
        self._handles.add(offset)

    def remove_block(self, offset: int) -> None:
        """Note that a block is freed."""
        self.effects.append(Free(self.name_block(offset)))
        self._viewed.pop(offset, None)
        self._content.pop(offset, None)

    def add_view(self, offset: int, block: memoryview) -> None:
        """Note that the function got a view of a block, which it can write to."""
        if offset not in self._viewed:
            self._viewed[offset] = self.name_block(offset)
            if offset not in self._content:
                self._content[offset] = block.tobytes()


class _TrackedKernel:
    """The kernel while a host function runs."""

    def __init__(self, tracker: EffectTracker, kernel: Kernel) -> None:
        self._tracker = tracker
        self._kernel = kernel

    def __getattr__(self, name: str) -> Any:
        return getattr(self._kernel, name)

    def alloc(self, length: int) -> int:
        try:
            offset = self._kernel.alloc(length)
        except EngineFailure:
            self._tracker.effects.append(Alloc(length))  # fails in a replay, too
            raise
        if offset:
            self._tracker.add_block(Alloc(length), offset, None)
        return offset

    def push(self, data: bytes) -> int:
        return 0  # `new_block` is tracked

    def new_block(self, data: bytes) -> int:
        try:
            offset = self._kernel.new_block(data)
        except EngineFailure:
            self._tracker.effects.append(Alloc(len(data)))
            raise
        if offset:
            self._tracker.add_block(Put(Data.of(data)), offset, data)
        return offset

    def length(self, offset: int) -> int:
        self._tracker.mark_handle(offset)
        return self._kernel.length(offset)

    def free(self, offset: int) -> None:
        self._tracker.mark_handle(offset)
        if self._kernel.block(offset) is not None:
            self._tracker.remove_block(offset)
        self._kernel.free(offset)

    def block(self, offset: int) -> memoryview | None:
        offset &= _MASK_64
        self._tracker.mark_handle(offset)
        block = self._kernel.block(offset)
        if block is not None:
            self._tracker.add_view(offset, block)
        return block

    def set_error(self, handle: int) -> None:
        self._tracker.mark_handle(handle & _MASK_64)
        self._tracker.effects.append(SetError(self._tracker.name_block(handle)))
        self._kernel.set_error(handle)


class _TrackedVars:
    """The vars while a host function runs."""

    def __init__(self, tracker: EffectTracker, vars: Vars) -> None:
        self._tracker = tracker
        self._vars = vars

    def __getattr__(self, name: str) -> Any:
        return getattr(self._vars, name)

    def set(self, name: bytes, value: bytes) -> bool:
        done = self._vars.set(name, value)
        if done:
            self._tracker.effects.append(SetVar.of(name, Data.of(value)))
        return done

    def delete(self, name: bytes) -> None:
        self._tracker.effects.append(SetVar.of(name, None))
        self._vars.delete(name)


def apply_effects(guest: Guest, call: HostCall, values: Any, params: Sequence[int]) -> list[int]:
    """Do to the plugin what a recorded host function did.

    Return the offsets of the allocated blocks.

    Raises:
        OutOfMemoryError: The plugin has no room for a block.
        TimeoutError: There are more effects than there is time for.
        RecordingError: The recording names a parameter or a block that does not exist.
    """
    kernel = guest.kernel
    blocks: list[int] = []
    for number, effect in enumerate(call.effects):
        if number % _DEADLINE_CHECK_INTERVAL == _DEADLINE_CHECK_INTERVAL - 1:
            guest.remaining()
        if isinstance(effect, (Alloc, Put)):
            data = effect.data.octets if isinstance(effect, Put) else None
            size = effect.size if isinstance(effect, Alloc) else len(data or b"")
            offset = kernel.alloc(size)
            if not offset and size:
                raise OutOfMemoryError(f"the plugin has no room for {size} bytes from the host")
            if data is not None:
                kernel.view(offset, size)[:] = data
            blocks.append(offset)
        elif isinstance(effect, SetVar):
            if effect.data is None:
                guest.vars.delete(effect.var)
            elif not guest.vars.set(effect.var, effect.data.octets):
                raise limit_error(guest.limits, OutOfMemoryError)
        else:
            _apply_to_block(guest, effect, resolve_block(effect.block, params, blocks))
    return blocks


def _apply_to_block(guest: Guest, effect: Free | Write | SetError, offset: int) -> None:
    kernel = guest.kernel
    if isinstance(effect, Free):
        kernel.free(offset)
    elif isinstance(effect, SetError):
        kernel.set_error(offset)
    elif (block := kernel.block(offset)) is not None:
        data = effect.data.octets[: max(0, len(block) - effect.at)]
        block[effect.at : effect.at + len(data)] = data


def resolve_block(block: Value, params: Sequence[int], blocks: Sequence[int]) -> int:
    """Return the offset that a block has now; for other values, their bits."""
    index = block.param if block.param is not None else block.block
    if index is None:
        return block.raw or 0
    known = params if block.param is not None else blocks
    if index >= len(known):
        raise RecordingError(
            "the recording is damaged: it refers to "
            f"{'parameter' if known is params else 'block'} {index}, which does not exist"
        )
    return known[index] & _MASK_64
