"""The kinds of batches: pyarrow's record batches and tables, pandas' frames, dicts of arrays."""

from __future__ import annotations

from .._host.codecs import encode_input
from ..errors import BatchError, OptionError
from .arrow import import_pyarrow

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def is_raw(kind: Any) -> bool:
    """Return whether an Arrow type is one of text or bytes, which are passed as they are."""
    types = import_pyarrow().types
    return any(getattr(types, f"is_{name}")(kind) for name in _RAW_KINDS)


_RAW_KINDS = (
    "string",
    "large_string",
    "string_view",
    "binary",
    "large_binary",
    "binary_view",
    "fixed_size_binary",
)


def output_type(returns: Any) -> tuple[Any, Any]:
    """Return the Arrow type of a column of outputs, and the Python type that an output is read as.

    The Python type is None for text and bytes, which are taken as they are.
    """
    import datetime
    from decimal import Decimal

    pa = import_pyarrow()
    types = pa.types
    plain: dict[Any, Any] = {
        str: pa.string(),
        bytes: pa.binary(),
        int: pa.int64(),
        float: pa.float64(),
        bool: pa.bool_(),
    }
    found = (
        pa.string() if returns is None else returns if isinstance(returns, pa.DataType) else None
    )
    if found is None and isinstance(returns, type):
        found = plain.get(returns)
    if found is None:
        raise OptionError(
            "MapBatches: returns: expected str, bytes, int, float, bool or a pyarrow type, got "
            f"{returns!r}",
            field="returns",
        )
    if is_raw(found):
        return found, None
    for is_kind, kind in (
        (types.is_boolean, bool),
        (types.is_integer, int),
        (types.is_floating, float),
        (types.is_timestamp, datetime.datetime),
        (types.is_date, datetime.date),
        (types.is_decimal, Decimal),
    ):
        if is_kind(found):
            return found, kind | None
    return found, object


def count_objects(column: Any) -> int:
    """Count the Python objects that pandas or NumPy make of an Arrow array.

    That is none for numbers without nulls, and one for each other value in the array.
    """
    types = import_pyarrow().types
    kind = column.type
    if types.is_primitive(kind):
        return len(column) if types.is_boolean(kind) and column.null_count else 0
    count = len(column)
    if types.is_dictionary(kind):
        return count + count_objects(column.dictionary)
    if types.is_struct(kind):
        return count + sum(count + count_objects(part) for part in column.flatten())
    if types.is_map(kind):
        return (
            count + 2 * len(column.items) + count_objects(column.keys) + count_objects(column.items)
        )
    if any(
        getattr(types, f"is_{name}", lambda _: False)(kind)
        for name in ("list", "large_list", "fixed_size_list")
    ):
        return count + count_objects(column.flatten())
    return count


def get_column(batch: Any, name: str) -> Any:
    """Return a column as an Arrow array, of one chunk or several."""
    pa = import_pyarrow()
    if isinstance(batch, (pa.RecordBatch, pa.Table)):
        names = batch.schema.names
        if names.count(name) == 1:
            return batch.column(name)
    else:
        _check_kind(batch)
        names = list(batch)
        if name in names:
            try:
                return pa.array(batch[name], from_pandas=True)
            except (pa.ArrowException, ValueError, TypeError) as error:
                raise BatchError(f"the column `{name}` cannot be read as Arrow: {error}") from error
    trouble = "there are several columns" if name in names else "there is no column"
    raise BatchError(
        f"{trouble} `{name}` in the batch; it has "
        f"{', '.join(f'`{known}`' for known in names) or 'none'}"
    )


def _check_kind(batch: Any) -> None:
    """Raise `BatchError` unless a batch that is not pyarrow's is a data frame or a dict."""
    kind = type(batch)
    is_frame = kind.__module__.partition(".")[0] == "pandas" and hasattr(batch, "assign")
    if not (is_frame or isinstance(batch, dict)):
        raise BatchError(
            "expected a pyarrow RecordBatch or Table, a pandas DataFrame or a dict of NumPy "
            "arrays, "
            f"got {kind.__module__}.{kind.__qualname__}"
        )


def call_inputs(column: Any) -> list[Any]:
    """Return the values of a column as inputs of calls.

    Text becomes its bytes, which saves decoding and encoding it.
    """
    pa = import_pyarrow()
    kind = column.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
        column = column.cast(kind)
    if pa.types.is_string(kind):
        column = column.cast(pa.binary())
    elif pa.types.is_large_string(kind):
        column = column.cast(pa.large_binary())
    values: list[Any] = column.to_pylist()
    if is_raw(kind):
        return values
    return [None if value is None else encode_input(value) for value in values]


def add_columns(batch: Any, columns: dict[str, Any]) -> Any:
    """Return the batch with these Arrow arrays as columns: new ones last, others in their place."""
    pa = import_pyarrow()
    if isinstance(batch, (pa.RecordBatch, pa.Table)):
        for name, column in columns.items():
            at = batch.schema.get_field_index(name)
            batch = (
                batch.append_column(name, column) if at < 0 else batch.set_column(at, name, column)
            )
        return batch
    if isinstance(batch, dict):
        return {
            **batch,
            **{name: column.to_numpy(zero_copy_only=False) for name, column in columns.items()},
        }
    series = {name: column.to_pandas() for name, column in columns.items()}
    for one in series.values():
        one.index = batch.index
    return batch.assign(**series)


def to_record_batch(batch: Any) -> Any:
    """Return the batch as one record batch."""
    pa = import_pyarrow()
    if isinstance(batch, pa.RecordBatch):
        return batch
    if isinstance(batch, pa.Table):
        return _combine(batch)
    _check_kind(batch)
    try:
        if isinstance(batch, dict):
            return pa.RecordBatch.from_arrays(
                [pa.array(column) for column in batch.values()], names=list(batch)
            )
        return pa.RecordBatch.from_pandas(batch, preserve_index=False)
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise BatchError(f"the batch cannot be read as Arrow: {error}") from error


def _combine(table: Any) -> Any:
    pa = import_pyarrow()
    batches = table.combine_chunks().to_batches()
    if len(batches) > 1:
        raise BatchError("the batch is too large for one record batch; make batches of fewer rows")
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)


def convert_like(batch: Any, results: list[Any], schema: Any) -> Any:
    """Return the results as a batch of the kind of `batch`."""
    pa = import_pyarrow()
    table = pa.Table.from_batches(results, schema)
    if isinstance(batch, pa.Table):
        return table
    if isinstance(batch, pa.RecordBatch):
        return _combine(table)
    if isinstance(batch, dict):
        return {name: table.column(name).to_numpy() for name in schema.names}
    return table.to_pandas()
