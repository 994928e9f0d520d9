"""`MapBatches`: a callable that maps batches of rows through a plugin.

    count = plugwasm.MapBatches(ref, "count_vowels", column="text", into="vowels", returns=int)

    dataset.map_batches(count, batch_format="pyarrow")        # Ray Data
    frame.map_partitions(count, meta=count(frame._meta))      # Dask
    frame.mapInArrow(count.map_arrow, "text string, …")       # Spark
    threads.map(count, table.to_batches())                    # this process

Each process compiles the plugin once (`PluginRef`). By default, each batch gets a new instance.
"""

from __future__ import annotations

import threading

from .._host.codecs import encode_input, make_output_reader
from ..errors import (
    BadHandleError,
    BatchError,
    CallError,
    ExitError,
    GuestError,
    HostFunctionError,
    OptionError,
    OutOfFuelError,
    OutOfMemoryError,
    OutputError,
    RowError,
    TimeoutError,
    TrapError,
)
from .arrow import import_pyarrow, read_stream, write_stream
from .ref import PluginRef
from .tables import (
    add_columns,
    call_inputs,
    convert_like,
    count_objects,
    get_column,
    output_type,
    to_record_batch,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any, Literal, TypeVar

    from .._manifest.limits import Limits
    from .._runtime.plugin import Plugin

    Batch = TypeVar("Batch")

__all__ = ["MapBatches"]

_ROW_ERRORS = (
    BadHandleError,
    ExitError,
    GuestError,
    HostFunctionError,
    OutOfFuelError,
    OutOfMemoryError,
    OutputError,
    TimeoutError,
    TrapError,
)
"""Errors that the input of a call may cause. Others, such as a missing export, concern all rows."""

OUTPUT_BYTES = 2**29
"""The default of `MapBatches.output_bytes`."""

_CHUNK_BYTES = 2**20
"""Bytes of outputs whose values are Python objects at the same time."""

_CHOICES = {"on_error": ("raise", "null"), "instance_per": ("batch", "row", "thread")}


class MapBatches:
    """Calls an export of a plugin for each row of a batch, or once for the batch.

    It can be pickled, and threads can share it.

    A batch is a pyarrow `RecordBatch` or `Table`, a pandas `DataFrame`, or a dict of NumPy arrays;
    the result is of the same kind. NumPy has no nulls: there, numbers with nulls among them become
    floats.

    Row by row (`column` is given): a column's text goes in as UTF-8, its bytes as they are, and
    everything else as JSON. For a list of columns, a JSON object of them goes in. A null in a
    single column gives null, without a call. The result is a column more.

    As a whole (`column` is not given): the batch goes in as a stream in Arrow's IPC format, and one
    comes back, uncompressed and without extension types. The result is what it holds.

    Args:
        ref: The plugin.
        function: The name of the export.
        column: The column that goes in, or a list of columns.
        into: The column for the outputs; one of that name is replaced.
        returns: The type of an output. Row by row: `str` (UTF-8 text), `bytes`, `int`, `float`,
            `bool`, or a pyarrow type; what is neither text nor bytes is read as JSON. `str` by
            default. As a whole: the pyarrow schema of the result.
        on_error: When the call for a row fails: "raise" a `RowError`, or make the output "null".
        error_column: A column for the messages of errors, null for rows without. If given, errors
            make the output null.
        instance_per: How long an instance of the plugin lasts: for a "batch", a "row", or with the
            "thread" that calls. What a plugin keeps in its memory and vars can be seen by the rows
            that share its instance.
        output_bytes: The bytes that the outputs for a batch may have together; more is a
            `BatchError`. The plugin's limits apply to each call.

    Raises:
        OptionError: A setting is not valid.
        ImportError: pyarrow is not installed.
    """

    __module__ = "plugwasm"

    def __init__(
        self,
        ref: PluginRef,
        function: str,
        *,
        column: str | Sequence[str] | None = None,
        into: str = "result",
        returns: Any = None,
        on_error: Literal["raise", "null"] = "raise",
        error_column: str | None = None,
        instance_per: Literal["batch", "row", "thread"] = "batch",
        output_bytes: int = OUTPUT_BYTES,
    ) -> None:
        if not isinstance(ref, PluginRef):
            raise OptionError(
                f"MapBatches: expected a PluginRef, got {type(ref).__name__}: make one with "
                "plugwasm.PluginRef(…)"
            )
        if not isinstance(function, str):
            raise OptionError(
                "MapBatches: function: expected the name of an export, got "
                f"{type(function).__name__}",
                field="function",
            )
        if isinstance(output_bytes, bool) or not isinstance(output_bytes, int) or output_bytes < 0:
            raise OptionError(
                f"MapBatches: output_bytes: expected a number of bytes, got {output_bytes!r:.40}",
                field="output_bytes",
            )
        given = {"on_error": on_error, "instance_per": instance_per}
        for name, choices in _CHOICES.items():
            if given[name] not in choices:
                raise OptionError(
                    f"MapBatches: {name}: expected one of {choices}, got {given[name]!r}",
                    field=name,
                )
        columns = _check_columns(column, into, error_column)
        self._settings = {
            "ref": ref,
            "function": function,
            "column": column if isinstance(column, str) else columns,
            "into": into,
            "returns": returns,
            "on_error": on_error,
            "error_column": error_column,
            "instance_per": instance_per,
            "output_bytes": output_bytes,
        }
        self.ref = ref
        self.function = function
        self._column = self._settings["column"]
        self._into = into
        self._raises = on_error == "raise" and error_column is None
        self._error_column = error_column
        self._instance_per = instance_per
        self._output_bytes = output_bytes
        self._local = threading.local()
        if column is None:
            self._schema = _schema(returns)
            if error_column is not None or on_error != "raise":
                raise OptionError(
                    "MapBatches: on_error and error_column are for calls row by row, so give a "
                    "`column`"
                )
        else:
            self._type, decoded = output_type(returns)
            self._decode = (
                None if decoded is None else make_output_reader(decoded, None, ref.name, function)
            )

    def __call__(self, batch: Batch) -> Batch:
        """Return the result for a batch.

        Raises:
            RowError: The call for a row failed, or its output is not of the type; its `__cause__`
                is the reason.
            BatchError: The batch lacks a column, or the output of the plugin is not valid.
            Error: As `PluginRef.compiled` and `Plugin.call`.
        """
        if self._column is None:
            pa = import_pyarrow()
            is_native = isinstance(batch, (pa.RecordBatch, pa.Table))
            result = convert_like(
                batch, self._map_whole(to_record_batch(batch), is_native=is_native), self._schema
            )
        else:
            result = add_columns(batch, self._map_rows(batch))
        return result  # type: ignore[no-any-return]

    def map_arrow(self, batches: Iterable[Any]) -> Iterator[Any]:
        """Yield the results for pyarrow record batches; pass this to Spark's `mapInArrow`."""
        for batch in batches:
            if self._column is None:
                yield from self._map_whole(batch, is_native=True)
            else:
                yield self(batch)

    # ---- as a whole ------------------------------------------------------------------------------

    def _map_whole(self, batch: Any, *, is_native: bool) -> list[Any]:
        """Return the record batches for one.

        Unless the result stays in pyarrow, its values become Python objects, so they are counted.
        """
        if not batch.num_rows:
            return []
        with self._open_plugin() as plugin:
            output = plugin.call(self.function, write_stream(batch))
            limit = plugin.compiled_plugin.limits.decoded_values
        if len(output) > self._output_bytes:
            raise self._size_error()
        results = read_stream(
            output, self._schema, batch.num_rows, f"`{self.function}` of plugin `{self.ref.name}`"
        )
        if not is_native and limit is not None:
            made = sum(count_objects(column) for result in results for column in result.columns)
            if made - batch.num_rows * len(self._schema) > limit:
                raise self._count_error(limit)
        return results

    # ---- row by row ------------------------------------------------------------------------------

    def _map_rows(self, batch: Any) -> dict[str, Any]:
        """Return the columns to add."""
        pa = import_pyarrow()
        inputs = self._read_inputs(batch)
        failures: dict[int, str] = {}
        column, limit = (
            self._call_rows(inputs, failures)
            if inputs
            else (self._to_array([], failures, 0, 0), None)
        )
        if (
            limit is not None
            and not isinstance(batch, (pa.RecordBatch, pa.Table))
            and count_objects(column) - len(inputs) > limit
        ):
            raise self._count_error(limit)
        columns = {self._into: column}
        if self._error_column is not None:
            columns[self._error_column] = pa.array(
                [failures.get(row) for row in range(len(inputs))], pa.string()
            )
        return columns

    def _read_inputs(self, batch: Any) -> list[Any]:
        """Return the inputs of the calls, as text and bytes; None for no call."""
        if isinstance(self._column, str):
            return call_inputs(get_column(batch, self._column))
        names = self._column
        rows = zip(*(get_column(batch, name).to_pylist() for name in names), strict=True)
        return [encode_input(dict(zip(names, row, strict=True))) for row in rows]

    def _call_rows(self, inputs: list[Any], failures: dict[int, str]) -> tuple[Any, int | None]:
        """Return the outputs as a column, and how many values one output may have.

        Values of outputs are moved to Arrow in chunks, so that there are never more Python objects
        than one output may have, or a mebibyte of outputs makes.
        """
        function, each = self.function, self._instance_per == "row"
        read = _OutputReader(self._decode, self._output_bytes, self._size_error)
        parse: Any = bytes if self._decode is None else read
        outputs: list[Any] = []
        columns: list[Any] = []
        append, first, flush_at = outputs.append, 0, read.room - _CHUNK_BYTES
        with self._open_plugin() as plugin:
            call = plugin.call
            for row, value in enumerate(inputs):
                if value is None:
                    append(None)
                    continue
                try:
                    output = call(function, value, parse)
                    if parse is bytes:
                        read.room -= len(output)
                        if read.room < 0:
                            raise self._size_error()
                    append(output)
                except _ROW_ERRORS as error:
                    if error.function != function:
                        raise  # the start of an instance failed, not the call
                    self._record_failure(row, len(inputs), error, failures)
                    append(None)
                if read.room < flush_at and parse is read:
                    columns.append(self._to_array(outputs, failures, first, len(inputs)))
                    outputs.clear()
                    first, flush_at = row + 1, read.room - _CHUNK_BYTES
                if each:
                    plugin.reset()
            limit = plugin.compiled_plugin.limits.decoded_values
        columns.append(self._to_array(outputs, failures, first, len(inputs)))
        return (import_pyarrow().concat_arrays(columns) if len(columns) > 1 else columns[0]), limit

    def _to_array(self, outputs: list[Any], failures: dict[int, str], first: int, rows: int) -> Any:
        """Return outputs as a column; `first` is the row of the first one.

        Arrow converts them all at once. Only if it fails, each is tried by itself.
        """
        pa = import_pyarrow()
        refused = (pa.ArrowException, ValueError, TypeError, OverflowError)
        try:
            return pa.array(outputs, self._type)
        except refused:
            for at, value in enumerate(outputs):
                try:
                    pa.array([value], self._type)
                except refused as error:
                    self._record_failure(first + at, rows, self._type_error(value, error), failures)
                    outputs[at] = None
            return pa.array(outputs, self._type)

    def _size_error(self) -> BatchError:
        return BatchError(
            f"`{self.function}` of plugin `{self.ref.name}` gave more than {self._output_bytes} "
            "bytes for one batch "
            "(`MapBatches.output_bytes`): make batches of fewer rows",
            plugin=self.ref.name,
            function=self.function,
        )

    def _count_error(self, limit: int) -> BatchError:
        return BatchError(
            f"`{self.function}` of plugin `{self.ref.name}` gave more than {limit} values that "
            "become Python objects "
            "(`Limits.decoded_values`): take pyarrow's batches, or make batches of fewer rows",
            plugin=self.ref.name,
            function=self.function,
        )

    def _type_error(self, value: object, reason: Exception) -> OutputError:
        return OutputError(
            f"`{self.function}` of plugin `{self.ref.name}`: the output is no Arrow {self._type}: "
            f"{str(reason)[:200]}",
            plugin=self.ref.name,
            function=self.function,
            output=value[:256] if isinstance(value, bytes) else b"",
        )

    def _record_failure(
        self, row: int, rows: int, error: CallError, failures: dict[int, str]
    ) -> None:
        if self._raises:
            raise RowError(
                f"row {row} of {rows}: {error.message}",
                row=row,
                plugin=error.plugin,
                function=error.function,
                code=error.code,
                guest_message=error.guest_message,
            ) from error
        failures[row] = f"{type(error).__name__}: {error.message}"

    # ---- itself ----------------------------------------------------------------------------------

    def _open_plugin(self) -> Plugin | _KeptPlugin:
        """Return a plugin for a `with` block, which closes it unless this thread keeps it."""
        if self._instance_per != "thread":
            return self.ref.plugin()
        kept = getattr(self._local, "plugin", None)
        if kept is None:
            kept = self._local.plugin = self.ref.plugin()
        return _KeptPlugin(kept)

    def __reduce__(self) -> tuple[Any, ...]:
        from functools import partial

        return partial(MapBatches, **self._settings), ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MapBatches) and self._settings == other._settings

    def __hash__(self) -> int:
        return hash((self.ref, self.function, self._column, self._into))

    def __repr__(self) -> str:
        what = (
            "batch by batch"
            if self._column is None
            else f"column={self._column!r}, into={self._into!r}"
        )
        return f"<MapBatches `{self.function}` of {self.ref.name!r}, {what}>"


class _OutputReader:
    """Reads the outputs for one batch, and counts their bytes.

    As `codecs.OutputReader`, within the limits of the plugin.

    Attributes:
        room: How many more bytes the outputs may have.
    """

    __slots__ = ("_decode", "_size_error", "room")

    takes_limits = True

    def __init__(self, decode: Any, room: int, size_error: Callable[[], BatchError]) -> None:
        self._decode, self.room, self._size_error = decode, room, size_error

    def __call__(self, output: bytes, limits: Limits) -> Any:
        self.room -= len(output)
        if self.room < 0:
            raise self._size_error()
        return self._decode(output, limits)


class _KeptPlugin:
    """A plugin that stays open."""

    __slots__ = ("_plugin",)

    def __init__(self, plugin: Plugin) -> None:
        self._plugin = plugin

    def __enter__(self) -> Plugin:
        return self._plugin

    def __exit__(self, *_: object) -> None:
        pass


# ---- types ---------------------------------------------------------------------------------------


def _check_columns(
    column: str | Sequence[str] | None, into: str, error_column: str | None
) -> tuple[str, ...] | None:
    """Return the columns that go in, or None if the whole batch does."""
    if not (column is None or hasattr(column, "__iter__")) or isinstance(column, bytes):
        raise OptionError(
            f"MapBatches: column: expected a name or a list of names, got {type(column).__name__}",
            field="column",
        )
    columns = None if column is None else (column,) if isinstance(column, str) else tuple(column)
    names = [into, *(columns or ()), *(() if error_column is None else (error_column,))]
    if (
        columns == ()
        or not all(isinstance(name, str) for name in names)
        or error_column == into
        or len(set(columns or ())) < len(columns or ())
    ):
        raise OptionError(
            "MapBatches: column: expected a name or a list of different names, and other "
            "names for `into` and `error_column`, "
            f"got {column!r}, {into!r} and {error_column!r}",
            field="column",
        )
    return columns


def _schema(returns: Any) -> Any:
    if not isinstance(returns, import_pyarrow().Schema):
        raise OptionError(
            "MapBatches: without a `column`, batches go in as a whole; then returns is the "
            f"pyarrow schema of the result, not {returns!r}",
            field="returns",
        )
    return returns
