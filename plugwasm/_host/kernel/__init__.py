"""The host's view of the kernel: the Wasm module that serves the functions plugins call most.

kernel.wat        blocks, input, output and error
table.wat         config, vars and the log: a part of the same module
table             what the host writes to the table, and reads from it

A call of a plugin enters Wasm once. The host writes the input where the kernel will find it and
calls the kernel, which resets its state, calls the plugin's export, and returns status, offset and
length of the output. Only what a host function needs in between (the length of a block, a new
block) is looked up or called one by one.

Decisions: docs/decisions.md, 2, 3, 35.1 and 48.
"""

from __future__ import annotations

import os
from struct import Struct

from ..._engine import ExportName
from ..._manifest.limits import INITIAL_PAGES
from .table import TABLE_BYTES, Table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..._engine import Instance, LinearMemory, PendingException, WasmFunction

KERNEL_FUNCTIONS = frozenset(
    (
        *(
            "alloc",
            "free",
            "length",
            "length_unsafe",
            "load_u8",
            "load_u64",
            "store_u8",
            "store_u64",
        ),
        *("input_load_u8", "input_load_u64", "input_set", "input_length", "input_offset"),
        *(
            "output_set",
            "output_length",
            "output_offset",
            "error_set",
            "error_get",
            "reset",
            "memory_bytes",
        ),
    )
)
"""The functions of `extism:host/env` that the kernel always serves."""

LOG_FUNCTIONS = frozenset(
    ("get_log_level", "log_trace", "log_debug", "log_info", "log_warn", "log_error")
)
TABLE_FUNCTIONS = LOG_FUNCTIONS | {"config_get", "var_get", "var_set"}
"""Those that it serves for the host (`_host/env.py`) where no one has to see their calls, as far as
its table has the answers. Its other exports are for the host, and no plugin can import them.
"""

MEMORIES = "memory", "book"
"""What modules import besides that have functions of the kernel inlined."""

INPUT_OFFSET = 512
"""Where the input starts: the first block."""

FAULT_ERROR, FAULT_OUTPUT, FAULT_ERROR_HANDLE, FAULT_INPUT = 1, 2, 4, 8

MAX_ERROR = 2**20
"""Bytes that are kept of a guest's error message."""

_PAGE = 65536
_RECORD_SHIFT = 3
"""From an offset to the index of its record in the book, as 32-bit numbers: 32 bytes a granule, 4
numbers a record.
"""
_LIVE = 0x80000000
"""The top bit of a record's first number. So a block is live if that is not less."""
RECORDS = 28688
"""Where in the book the record of the first granule would be."""
_SPACE = 28928
"""Where the book says which space is free: the first granule above all blocks, the size of the last
block, and the bins of free blocks.
"""
_read_space = Struct("<IIQ").unpack
_write_space = Struct("<II").pack_into
_write_record = Struct("<3I").pack_into

_UNKNOWN = memoryview(b"")
"""The book, as long as it was not looked at."""
_NO_SPACE = memoryview(b"\xff" * 16)
"""What the book says of space then: none."""

_source: bytes | None = None


def read_source() -> bytes:
    """Return the kernel in the Wasm text format."""
    global _source
    if _source is None:
        folder = os.path.dirname(__file__)
        module = read_file(folder, "kernel.wat").rstrip()
        assert module.endswith(b")")
        _source = module[:-1] + b"\n" + read_file(folder, "table.wat") + b")\n"
    return _source


def read_file(folder: str, name: str) -> bytes:
    """Return a file of the package, which may be in an archive."""
    path = os.path.join(folder, name)
    try:
        with open(path, "rb") as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        data: bytes = __loader__.get_data(path)  # type: ignore[name-defined]
        return data


HEAP, _BOOK = ExportName("memory"), ExportName("book")
_ALLOC, _TAKE, _RESERVE = ExportName("alloc"), ExportName("take"), ExportName("reserve")
_ERROR_SET, _FAILURE = ExportName("error_set"), ExportName("failure")
_CALL_RETURNING_CODE, _CALL_RETURNING_NOTHING = (
    ExportName("call_returning_code"),
    ExportName("call_returning_nothing"),
)


class Kernel:
    """One instance of the kernel.

    `heap` is a view of the memory that plugins reach; `refresh` widens it after that has grown.
    `capacity` is the size of the largest input that fits without growing. `table` is None until
    `open_table` is called for the first time.
    """

    __slots__ = (
        "_alloc",
        "_book",
        "_functions",
        "_heap_memory",
        "_pending",
        "_space",
        "capacity",
        "heap",
        "instance",
        "table",
    )

    def __init__(
        self, instance: Instance, pending: PendingException, heap: LinearMemory | None = None
    ) -> None:
        """`heap` is its memory, if that was looked up already."""
        self.instance: Instance = instance
        self._pending = pending
        self._heap_memory = instance.memory(HEAP) if heap is None else heap
        self._book: memoryview = _UNKNOWN
        self._space: memoryview = _NO_SPACE
        self._alloc: WasmFunction | None = None
        self._functions: dict[ExportName, WasmFunction] = {}
        self.heap: memoryview = self._heap_memory.view(INITIAL_PAGES * _PAGE)
        self.capacity: int = len(self.heap) - INPUT_OFFSET
        self.table: Table | None = None

    def open_table(self) -> Table:
        """Return the table of config and vars."""
        table = self.table
        if table is None:
            page = self.instance.memory(_BOOK).view(TABLE_BYTES)
            table = self.table = Table(page)
        return table

    def refresh(self) -> None:
        """Look at the size of the memories again. Call it after anything that may have made them
        grow.
        """
        self.heap = self._heap_memory.view()
        self.capacity = len(self.heap) - INPUT_OFFSET
        self._book = _UNKNOWN
        self._space = _NO_SPACE

    def entry(self, returns_code: bool) -> WasmFunction:
        """Return the kernel's function that runs an export.

        Parameters: the export, the input's length. Results: status, offset, length.
        """
        return self.instance.function(
            _CALL_RETURNING_CODE if returns_code else _CALL_RETURNING_NOTHING, 3
        )

    def pages(self) -> int:
        """Return how many pages of 64 KiB plugins can reach now."""
        return self._heap_memory.size() // _PAGE

    def reserve(self, length: int) -> bool:
        """Make room for an input of that many bytes. Return False if the limits forbid it."""
        granted = self._call(_RESERVE, length)
        self.refresh()
        return bool(granted)

    def alloc(self, length: int) -> int:
        """Allocate a block and return its offset; 0 if `length` is 0 or the limits forbid it."""
        function = self._alloc
        if function is None:
            function = self._alloc = self.instance.function(_ALLOC, 1)
        values = function.values
        values[0] = length
        function.call(self._pending)
        offset: int = values[0]
        if offset + length > len(self.heap):
            self.refresh()
        return offset

    def free(self, offset: int) -> None:
        """Free the block that starts there.

        Nothing happens if none does, nor if the guest frees it again (`take` in kernel.wat).
        """
        self._call(_TAKE, offset)

    def length(self, offset: int) -> int:
        """Return the length of the live block that starts at the offset; 0 if none does."""
        block = self.block(offset)
        return 0 if block is None else len(block)

    def block(self, offset: int) -> memoryview | None:
        """Return the bytes of the live block that starts at the offset, or None if none does.

        The offset may be any number: what a guest passes need not be made unsigned before.
        """
        if offset & 31 or offset < 0:
            return None
        book, record = self._book, offset >> _RECORD_SHIFT
        try:
            state = book[record]
        except IndexError:
            book = self._open_book()
            if record >= len(book):
                return None
            state = book[record]
        if state < _LIVE:
            return None
        heap, end = self.heap, offset + book[record + 2]
        if end > len(heap):
            self.refresh()
            heap = self.heap
        return heap[offset:end]

    def _open_book(self) -> memoryview:
        """Return a view of the records, which are those of the heap as it is now."""
        self.refresh()
        memory = self.instance.memory(_BOOK).view()
        self._space = memory[_SPACE : _SPACE + 16]
        book = self._book = memory[RECORDS:].cast("I")
        return book

    def push(self, data: bytes) -> int:
        """Copy bytes into a new block without entering Wasm, and return its offset; 0 if they are
        empty, or if that is the kernel's task (`new_block`).

        The guest waits for the host, so this is as good as the kernel's `alloc`, which would take
        this place if no free block is large enough. The last step makes it a block.
        """
        length = len(data)
        top, last, bins = _read_space(self._space)
        size = (length + 31) >> 5
        if not length or (bins and bins >> _bin(size)):
            return 0
        offset: int = top << 5
        try:
            self.heap[offset : offset + length] = data
        except ValueError:  # it would end above the heap, as far as that is known
            return 0
        _write_record(self._book, offset >> 1, size | _LIVE, last, length)
        _write_space(self._space, 0, top + size, size)
        return offset

    def new_block(self, data: bytes) -> int:
        """Copy bytes into a new block and return its offset; 0 if they are empty or the limits do
        not allow it.
        """
        if not self._book:
            self._open_book()
        return self.push(data) or self.new_block_of_kernel(data)

    def new_block_of_kernel(self, data: bytes) -> int:
        """As `new_block`, in a block that the kernel allocates, which takes fuel."""
        offset = self.alloc(len(data))
        if offset:
            self.heap[offset : offset + len(data)] = data
        return offset

    def view(self, offset: int, length: int) -> memoryview:
        """Return bytes of the heap whose bounds the kernel itself has checked."""
        end = offset + length
        if end > len(self.heap):
            self.refresh()
        return self.heap[offset:end]

    def set_error(self, handle: int) -> None:
        """Set the error, as the guest would."""
        self._call(_ERROR_SET, handle)

    def read_failure(self) -> tuple[int, int, bytes, int, int, int]:
        """Return the kernel's state after a call that failed.

        Returns:
            The fault bits, the error's handle and text, the output's offset and length, and how
            many bytes the last denied allocation asked for.
        """
        function = self.instance.function(_FAILURE, 6)
        function.call(self._pending)
        fault, error, error_length, output, output_length, denied = function.values[:12:2].tolist()
        text = bytes(self.view(error, min(error_length, MAX_ERROR))) if fault & FAULT_ERROR else b""
        return fault, error, text, output, output_length, denied

    def _call(self, name: ExportName, value: int) -> int:
        function = self._functions.get(name)
        if function is None:
            function = self._functions[name] = self.instance.function(name, 1)
        function.values[0] = value
        function.call(self._pending)
        result: int = function.values[0]
        return result


class FuelledKernel(Kernel):
    """One instance of the kernel of a plugin with a fuel limit: what is done for it takes fuel."""

    __slots__ = ()

    new_block = Kernel.new_block_of_kernel

    def push(self, data: bytes) -> int:
        return 0


def _bin(size: int) -> int:
    """Return the number of the bin for free blocks of so many granules, as `$bin` in the kernel."""
    log = size.bit_length() - 1
    return log << 1 | (size << 1 >> log) & 1
