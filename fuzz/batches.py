"""Record batches of a guest can be read to the end in the expected schema, or are a `BatchError`.

The bytes are streams in Arrow's IPC format with changes: flipped bits, parts that are cut, moved or
doubled, numbers at their limits. An accepted batch is then used as an application would, since
errors in it may only show there.
"""

from __future__ import annotations

import functools
from typing import Any

import pyarrow as pa

from plugwasm._distributed.arrow import read_stream, write_stream
from plugwasm.errors import BatchError

from .choices import Choices

COVERED = ["plugwasm._distributed.arrow"]
SIZES = (3, 8)
_TOKENS = (
    *(
        number.to_bytes(4, "little", signed=True)
        for number in (0, 1, -1, 8, 2**31 - 1, -(2**31), 2**16)
    ),
    *(
        number.to_bytes(8, "little", signed=True)
        for number in (0, 1, -1, 5, 2**40, 2**63 - 1, -(2**63))
    ),
    b"\xff\xff\xff\xff",
    b"ARROW:extension:name",
)
SEEDS = [
    bytes([shape]) + bytes((seed * step) % 256 for step in range(30))
    for shape in range(8)
    for seed in (1, 5)
]
ROWS = 5


def check(data: bytes) -> None:
    stream, schema = build(data)
    try:
        batches = read_stream(stream, schema, ROWS, "the guest")
    except BatchError as error:
        assert len(error.message) < 20_000, f"an error of {len(error.message)} characters"
        return
    assert all(batch.schema == schema for batch in batches)
    assert sum(batch.num_rows for batch in batches) <= max(ROWS, 8 * len(stream)), (
        "more rows than there is data for"
    )
    for batch in batches:
        batch.to_pylist()
        batch.slice(batch.num_rows // 2).to_pydict()
        write_stream(batch)


def describe(data: bytes) -> str:
    stream, schema = build(data)
    return f"{schema}\n{stream.hex(' ', 16)}"


def build(data: bytes) -> tuple[bytes, pa.Schema]:
    """Return a stream, and the schema that is expected of it."""
    choices = Choices(data)
    stream, schema = choices.pick(_streams())
    return choices.splice(stream, _TOKENS), schema


@functools.cache
def _streams() -> list[tuple[bytes, Any]]:
    texts = ["one", "", None, "four é", "x" * 100]
    columns: dict[str, Any] = {
        "numbers": pa.array([1, 2, None, 2**40, -1], pa.int64()),
        "texts": pa.array(texts),
        "views": pa.array(texts, pa.string_view()),
        "lists": pa.array([[1], [], None, [2, 3], [4]], pa.list_(pa.int32())),
        "records": pa.array([{"a": 1, "b": "x"}] * ROWS),
        "words": pa.array(texts).dictionary_encode(),
        "nothing": pa.nulls(ROWS),
        "runs": pa.RunEndEncodedArray.from_arrays(
            pa.array([2, ROWS], pa.int32()), pa.array([1, 2])
        ),
        "either": pa.UnionArray.from_dense(
            pa.array([0, 1, 0, 1, 0], pa.int8()),
            pa.array([0, 0, 1, 1, 2], pa.int32()),
            [pa.array([1, 2, 3]), pa.array(["a", "b"])],
        ),
    }
    batches = [pa.record_batch({name: column}) for name, column in columns.items()]
    batches.append(pa.record_batch({name: columns[name] for name in ("numbers", "texts", "words")}))
    return [(write_stream(batch), batch.schema) for batch in batches]
