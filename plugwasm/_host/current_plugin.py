"""The plugin that called a host function, as the function sees it."""

from __future__ import annotations

from .._platform.native_threads import get_ident
from ..errors import BadHandleError, BusyError, ClosedError, OptionError, OutOfMemoryError
from .greenlets import current_greenlet
from .guest import HANDLE_MASK
from .vars import encode_name, limit_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .guest import Guest
    from .wasm_values import Val

__all__ = ["CurrentPlugin", "Memory"]


class Memory:
    """A block of the plugin's memory: its offset and its length in bytes."""

    __module__ = "plugwasm"

    __slots__ = ("length", "offset")

    def __init__(self, offs: int, length: int) -> None:
        self.offset: int = offs
        self.length: int = length

    def __len__(self) -> int:
        return self.length

    def __repr__(self) -> str:
        return f"Memory(offset={self.offset}, length={self.length})"


class CurrentPlugin:
    """The plugin that is calling a host function; valid until the function returns.

    Used later, every method raises `ClosedError`, and so do the memory views that it gave. Other
    threads can read with it while the host function runs; what allocates, frees or sets an error
    raises `BusyError` there.
    """

    __module__ = "plugwasm"

    __slots__ = ("_guest", "_thread", "_views")

    def __init__(self, guest: Guest) -> None:
        self._guest: Guest | None = guest
        self._views: list[memoryview] = []
        self._thread = get_ident()

    def _now(self) -> Guest:
        guest = self._guest
        if guest is None:
            raise ClosedError(
                "this CurrentPlugin was used after the host function that it was given to has "
                "returned"
            )
        return guest

    def _inside(self) -> Guest:
        """Return the guest for an operation that enters it. Only the thread of the call can."""
        if self._thread != get_ident() or (
            (guest := self._guest) is not None
            and guest.greenlet is not None
            and guest.greenlet != current_greenlet()
        ):
            raise BusyError(
                "only the thread, and greenlet, that the host function was called in can allocate, "
                "free or set an error"
            )
        return self._now()

    def _expire(self) -> None:
        self._guest = None
        for view in self._views:
            try:
                view.release()
            except BufferError:
                # Something refers to the view, e.g. an array. It keeps the memory, so reading is
                # safe.
                pass

    def memory(self, mem: Memory) -> memoryview:
        """Return the bytes of a block, to read and to write.

        Raises:
            BadHandleError: It is not a block that the plugin has, or the block is shorter.
        """
        guest = self._now()
        if mem.length == 0:
            return memoryview(bytearray())
        block = guest.kernel.block(mem.offset & HANDLE_MASK)
        if block is None or not 0 <= mem.length <= len(block):
            raise BadHandleError(f"{mem} is no memory that the plugin has allocated")
        view = block[: mem.length]
        self._views.append(view)
        return view

    def host_context(self) -> Any:
        """Return what was passed to `Plugin.call` as `host_context`."""
        return self._now().host_context

    def alloc(self, size: int) -> Memory:
        """Allocate a block of that many bytes, which must not be negative. The plugin owns it.

        Raises:
            OutOfMemoryError: The plugin's limit does not allow it.
        """
        if size < 0:
            raise OptionError(f"cannot allocate {size} bytes")
        offset = self._inside().kernel.alloc(size)
        if not offset and size:
            raise OutOfMemoryError(f"the plugin has no room for {size} bytes from the host")
        return Memory(offset, size)

    def free(self, mem: Memory) -> None:
        """Free a block. Nothing happens if it is none."""
        self._inside().kernel.free(mem.offset & HANDLE_MASK)

    def memory_at_offset(self, offs: int | Val) -> Memory:
        """Return the block that starts at an offset; of length 0 if none does."""
        offset = int(offs if isinstance(offs, int) else offs.value) & HANDLE_MASK
        return Memory(offset, self._now().kernel.length(offset))

    def return_bytes(self, output: Val, b: bytes) -> None:
        """Copy bytes into a new block and point the result at it."""
        output.value = self._inside().new_block(bytes(b))

    def return_string(self, output: Val, s: str) -> None:
        """Copy UTF-8 text into a new block and point the result at it."""
        self.return_bytes(output, s.encode())

    def input_buffer(self, input: Val) -> memoryview:
        """Return the bytes that a parameter refers to, without a copy."""
        return self.memory(self.memory_at_offset(input))

    def input_bytes(self, input: Val) -> bytes:
        """Return a copy of the bytes that a parameter refers to; empty for the null handle.

        Raises:
            BadHandleError: The parameter is no block that the plugin has.
        """
        return self._now().read_block(int(input.value), "a host function")

    def input_string(self, input: Val) -> str:
        """Return the bytes that a parameter refers to as text. Raise `UnicodeDecodeError` if they
        are not UTF-8.
        """
        return self.input_bytes(input).decode()

    @property
    def config(self) -> dict[str, str]:
        """A copy of the plugin's configuration."""
        return dict(self._now().config)

    def var(self, name: str | bytes) -> bytes | None:
        """Return the plugin's var of that name, or None. A name is text, or bytes if it is not
        UTF-8.
        """
        vars, name = self._now().vars, encode_name(name)
        return vars.get(name) if self._thread == get_ident() else vars.snapshot().get(name)

    def set_var(self, name: str | bytes, value: bytes | None) -> None:
        """Set a var of the plugin; None deletes it.

        Raises:
            OutOfMemoryError: The plugin's vars would exceed their limit.
        """
        guest, name = self._now(), encode_name(name)
        if value is None:
            guest.vars.delete(name)
        elif not guest.vars.set(name, bytes(value)):
            raise limit_error(guest.limits, OutOfMemoryError)

    def set_error(self, message: str) -> None:
        """Make the call under way end with that error message, as if the plugin had set it."""
        guest = self._inside()
        guest.kernel.set_error(guest.new_block(message.encode()))

    def time_remaining(self) -> float | None:
        """Return the seconds until the deadline of the call under way, or None if it has none.

        Raises:
            TimeoutError: It has passed.
            CancelledError: The call was cancelled.
        """
        return self._now().remaining()
