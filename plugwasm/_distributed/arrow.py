"""Arrow record batches as streams for guests, and checked batches from streams of guests.

A stream of a guest is read only as far as it can be checked:

1. No extension types: libraries register classes for them, which may trust what the stream says.
2. No compressed buffers: their size is known only when they have been decompressed.
3. The schema is the one that the application expects.
4. No more rows than the stream has bits, or than went in: a column of nulls has any number of rows
   at no cost.
5. Every offset, length and text is validated before anything looks at the data.
"""

from __future__ import annotations

from ..errors import BatchError, truncate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SCHEMA, _DICTIONARY, _BATCH = 1, 2, 3
"""The kinds of messages in a stream (`MessageHeader` in Arrow's Message.fbs)."""


def import_pyarrow() -> Any:
    """Return the package `pyarrow`.

    Raises:
        ImportError: It is not installed; the message says how to install it.
    """
    from importlib import import_module

    try:
        return import_module("pyarrow")
    except ImportError as error:
        raise ImportError(
            "record batches need pyarrow: pip install 'plugwasm[arrow]'", name="pyarrow"
        ) from error


def write_stream(batch: Any) -> bytes:
    """Return a record batch as a stream in Arrow's IPC format."""
    pa = import_pyarrow()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    stream: bytes = sink.getvalue().to_pybytes()
    return stream


def read_stream(stream: bytes, schema: Any, rows_in: int, who: str) -> list[Any]:
    """Return the record batches of a stream of a guest. `who` names the guest in errors.

    Raises:
        BatchError: It is no stream, or not one of that schema, or breaks a rule above.
    """
    import struct

    pa = import_pyarrow()
    try:
        _check_messages(pa, stream, max(rows_in, 8 * len(stream)))
        with pa.ipc.open_stream(pa.py_buffer(stream)) as reader:
            if not reader.schema.equals(schema, check_metadata=False):
                raise BatchError(
                    f"its schema is\n{_indent_schema(reader.schema)}\nbut expected "
                    f"was\n{_indent_schema(schema)}"
                )
            batches = []
            for batch in reader:
                batch.validate(full=True)
                batches.append(pa.RecordBatch.from_arrays(batch.columns, schema=schema))
            return batches
    except BatchError as error:
        raise BatchError(
            f"{who} gave record batches that cannot be taken: {error.message}"
        ) from None
    except (
        pa.ArrowException,
        OSError,
        ValueError,
        MemoryError,
        OverflowError,
        struct.error,
    ) as error:
        raise BatchError(
            f"{who} gave what is no stream of record batches: {truncate(str(error), 300)}"
        ) from error


def _check_messages(pa: Any, stream: bytes, most_rows: int) -> None:
    """Check rules 1, 2 and 4, which must hold before a reader is made."""
    messages = pa.ipc.MessageReader.open_stream(pa.py_buffer(stream))
    while True:
        try:
            message = messages.read_next_message()
        except StopIteration:
            return
        metadata = message.metadata.to_pybytes()
        if b"ARROW:extension" in metadata:
            raise BatchError("it has an extension type")
        table = _FlatTable.root(metadata)
        kind, batch = table.number(1, 1), table.table(2)
        if kind == _DICTIONARY and batch is not None:
            batch = batch.table(1)
        if kind == _SCHEMA or batch is None:
            continue
        if kind not in (_DICTIONARY, _BATCH):
            raise BatchError(f"it has a message of kind {kind}")
        if batch.has(3):
            raise BatchError("its buffers are compressed; write them without compression")
        rows = batch.number(0, 8)
        if max((rows, *batch.lengths(1))) > most_rows:
            raise BatchError("it claims more rows than it has data for")
        most_rows -= rows


class _FlatTable:
    """A table in a FlatBuffer, read as far as needed here.

    Reading beyond the end is a `struct.error`.
    """

    __slots__ = ("_at", "_data", "_fields")

    def __init__(self, data: bytes, at: int) -> None:
        import struct

        self._data = data
        self._at = at
        fields = at - struct.unpack_from("<i", data, at)[0]
        if fields < 0:
            raise struct.error("a table begins before its buffer")
        size = struct.unpack_from("<H", data, fields)[0]
        self._fields = struct.unpack_from(f"<{max(size - 4, 0) // 2}H", data, fields + 4)

    @classmethod
    def root(cls, data: bytes) -> _FlatTable:
        return cls(data, int.from_bytes(data[:4], "little"))

    def has(self, field: int) -> bool:
        return field < len(self._fields) and self._fields[field] != 0

    def number(self, field: int, size: int) -> int:
        """Return an unsigned number of `size` bytes; 0 if the field is missing."""
        if not self.has(field):
            return 0
        place = self._at + self._fields[field]
        return int.from_bytes(self._data[place : place + size], "little")

    def lengths(self, field: int) -> tuple[int, ...]:
        """Return the first number of each pair in a vector of `FieldNode`s (length, nulls)."""
        import struct

        if not self.has(field):
            return ()
        place = self._at + self._fields[field]
        place += int.from_bytes(self._data[place : place + 4], "little")
        count = int.from_bytes(self._data[place : place + 4], "little")
        if count * 16 > len(self._data):
            raise struct.error("a vector ends after its buffer")
        return struct.unpack_from(f"<{2 * count}Q", self._data, place + 4)[::2]

    def table(self, field: int) -> _FlatTable | None:
        if not self.has(field):
            return None
        place = self._at + self._fields[field]
        return _FlatTable(
            self._data, place + int.from_bytes(self._data[place : place + 4], "little")
        )


def _indent_schema(schema: Any) -> str:
    lines = schema.to_string(show_field_metadata=False, show_schema_metadata=False).splitlines()
    return "\n".join(f"    {truncate(line)}" for line in lines[:50])
