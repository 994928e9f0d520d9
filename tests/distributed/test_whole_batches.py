"""`MapBatches` over whole batches: Arrow streams from guests are validated before anything uses
them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugwasm import MapBatches, PluginRef
from plugwasm._distributed.arrow import read_stream, write_stream
from plugwasm.errors import BatchError
from tests.support.batches import NUMBERS, batch
from tests.support.guests import export, guest

# Adds 1 to the lowest byte of each of the eight numbers that end a stream: they stand in front of
# its end mark.
EIGHT_MORE = guest(
    export(
        "eight_more",
        """(local.set $length (call $input_length))
        (local.set $block (call $alloc (local.get $length)))
        (block $done (loop $next
          (br_if $done (i64.eq (local.get $i) (local.get $length)))
          (local.set $from_end (i64.sub (local.get $length) (local.get $i)))
          (call $store_u8 (i64.add (local.get $block) (local.get $i))
            (i32.add (call $input_load_u8 (local.get $i))
                     (i32.and (i64.eqz (i64.and (local.get $from_end) (i64.const 7)))
                              (i32.and (i64.gt_u (local.get $from_end) (i64.const 8)) (i64.le_u (local.get $from_end) (i64.const 72))))))
          (local.set $i (i64.add (local.get $i) (i64.const 1)))
          (br $next)))
        (call $give (local.get $block))""",
        "(local $length i64) (local $block i64) (local $i i64) (local $from_end i64)",
    )
)


def test_stream_in_and_out() -> None:
    """A guest receives a stream and returns one."""
    mapped = MapBatches(PluginRef(EIGHT_MORE), "eight_more", returns=NUMBERS)
    numbers = list(range(8))
    for rows in (
        batch(n=numbers),
        pa.table({"n": numbers}),
        pd.DataFrame({"n": numbers}),
        {"n": np.array(numbers)},
    ):
        out: Any = mapped(rows)
        assert type(out) is type(rows)
        assert list(out["n"].to_pylist() if hasattr(out, "schema") else out["n"]) == [
            n + 1 for n in numbers
        ]
    assert [one.to_pydict() for one in mapped.map_arrow([batch(n=numbers)] * 2)] == [
        {"n": [n + 1 for n in numbers]}
    ] * 2


def test_types_round_trip(ref: PluginRef) -> None:
    """A batch of many types comes back unchanged."""
    rows = batch(
        a=[1, None],
        b=["x", None],
        c=[[1], []],
        d=[{"a": None}, {"a": 2.5}],
        e=pa.array(["u", "v"]).dictionary_encode(),
        f=[None, None],
    )
    out = MapBatches(ref, "echo", returns=rows.schema)(rows)
    assert out.equals(rows)
    assert MapBatches(ref, "echo", returns=rows.schema)(rows.slice(0, 0)).num_rows == 0


def test_metadata_is_kept_from_batch(ref: PluginRef) -> None:
    """Metadata comes from the application's batch, not the guest's."""
    rows = batch(n=[1]).replace_schema_metadata({"of": "the guest"})
    assert MapBatches(ref, "echo", returns=NUMBERS)(rows).schema.metadata is None


def test_other_result_schema_is_error(ref: PluginRef) -> None:
    """The error for a result of another schema shows both."""
    with pytest.raises(BatchError) as caught:
        MapBatches(ref, "echo", returns=NUMBERS)(batch(n=["text"]))
    assert caught.value.message == (
        "`echo` of plugin `rows` gave record batches that cannot be taken: its schema is\n    n: string\nbut expected was\n    n: int64"
    )


@pytest.mark.parametrize("function", ["nothing", "length"])
def test_output_not_a_stream_is_error(ref: PluginRef, function: str) -> None:
    """An output that is not a stream is an error."""
    with pytest.raises(
        BatchError, match=f"`{function}` of plugin `rows` gave what is no stream of record batches"
    ):
        MapBatches(ref, function, returns=NUMBERS)(batch(n=[1]))


def stream(rows: pa.RecordBatch, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_batch(rows)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
@pytest.mark.parametrize("encoded", [False, True])
def test_compressed_buffers_are_refused(compression: str, encoded: bool) -> None:
    """Compressed buffers are refused in batches and in dictionaries."""
    column = pa.array(["a" * 1000] * 1000)
    rows = pa.RecordBatch.from_arrays(
        [column.dictionary_encode() if encoded else column], names=["a"]
    )
    with pytest.raises(BatchError, match="its buffers are compressed"):
        read_stream(stream(rows, compression=compression), rows.schema, 1000, "a guest")
    assert read_stream(stream(rows), rows.schema, 1000, "a guest") == [rows]


def test_extension_types_are_refused() -> None:
    """Extension types are refused before any class of theirs sees the stream."""
    seen = []

    class Spy(pa.ExtensionType):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(pa.int64(), "plugwasm.tests.spy")

        def __arrow_ext_serialize__(self) -> bytes:
            return b"what the guest says"

        @classmethod
        def __arrow_ext_deserialize__(cls, storage_type: Any, serialized: bytes) -> Spy:
            seen.append(serialized)
            return cls()

    pa.register_extension_type(Spy())
    try:
        rows = pa.RecordBatch.from_arrays(
            [pa.ExtensionArray.from_storage(Spy(), pa.array([1]))], names=["n"]
        )
        given = stream(rows)
        pa.ipc.open_stream(given)
        assert seen == [b"what the guest says"]
        with pytest.raises(BatchError, match="it has an extension type"):
            read_stream(given, NUMBERS, 1, "a guest")
        assert len(seen) == 1
    finally:
        pa.unregister_extension_type("plugwasm.tests.spy")


@pytest.mark.parametrize("nested", [False, True])
def test_number_of_free_rows_is_limited(nested: bool) -> None:
    """The number of rows that take no bytes is limited."""
    type = pa.struct([("b", pa.null())]) if nested else pa.null()
    schema = pa.schema([("a", type)])
    few = stream(pa.RecordBatch.from_arrays([pa.array([None] * 77, type)], schema=schema))
    assert [one.num_rows for one in read_stream(few, schema, 10, "a guest")] == [77]
    lengths = few.count((77).to_bytes(8, "little"))
    assert lengths >= 2
    many = few.replace((77).to_bytes(8, "little"), (10**12).to_bytes(8, "little"))
    only_the_child = (
        (10**12).to_bytes(8, "little").join(few.rsplit((77).to_bytes(8, "little"), 2))
        if nested
        else many
    )
    for claimed in (many, only_the_child):
        with pytest.raises(BatchError, match="it claims more rows than it has data for"):
            read_stream(claimed, schema, 10, "a guest")


def test_invalid_offsets_are_refused() -> None:
    """Offsets outside the buffer are refused."""
    rows = batch(a=["abcdefgh", "ijklmnop"])
    good = stream(rows)
    offsets = b"\0\0\0\0\x08\0\0\0\x10\0\0\0"
    assert good.count(offsets) == 1
    for end in (b"\x11\0\0\0", b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff", b"\x07\0\0\0"):
        with pytest.raises(BatchError):
            read_stream(good.replace(offsets, offsets[:8] + end), rows.schema, 2, "a guest")


def test_invalid_utf8_is_refused() -> None:
    """Text that is not UTF-8 is refused."""
    rows = batch(a=["abcdefgh"])
    with pytest.raises(BatchError):
        read_stream(stream(rows).replace(b"abcdefgh", b"abcd\xff\xfegh"), rows.schema, 1, "a guest")


MANY_TYPES = batch(
    a=["text", None, "äöü"], b=pa.array(["u", "v", "u"]).dictionary_encode(), c=[[1, 2], None, []], d=[{"x": 1}, {"x": None}, None], e=[True, None, False]
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, len(write_stream(MANY_TYPES)) - 1), st.integers(0, 255)),
        max_size=4,
    ),
    st.integers(0, 40) | st.none(),
)
def test_mutated_streams(changes: list[tuple[int, int]], cut: int | None) -> None:
    """A mutated stream is accepted or refused, without a crash."""
    changed = bytearray(write_stream(MANY_TYPES))
    for place, byte in changes:
        changed[place] = byte
    given = bytes(changed[: len(changed) - cut] if cut else changed)
    try:
        taken = read_stream(given, MANY_TYPES.schema, 3, "a guest")
    except BatchError:
        return
    for one in taken:
        assert one.schema == MANY_TYPES.schema
        one.to_pylist()
