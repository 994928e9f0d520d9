"""`MapBatches` over every kind of batch, row by row; guests' outputs are validated before
anything uses them."""

from __future__ import annotations

import datetime
import inspect
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from decimal import Decimal
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import plugwasm
from plugwasm import MapBatches, PluginRef
from plugwasm._distributed.arrow import write_stream
from plugwasm.errors import BatchError, RowError
from tests.support.batches import NUMBERS, batch
from tests.support.guests import export, guest
from tests.support.paths import ROOT

TEXTS = ["one", "two", None, "", "äöü"]


def results(ref: PluginRef, function: str, values: Any, **settings: Any) -> list[Any]:
    """Return the outputs for the values of a column."""
    column = values if isinstance(values, pa.Array) else pa.array(values)
    out = MapBatches(ref, function, column="in", **settings)(
        pa.RecordBatch.from_arrays([column], names=["in"])
    )
    return out.column("result").to_pylist()  # type: ignore[no-any-return]


# What goes in, by the type of the column


@pytest.mark.parametrize(
    ("type", "values", "given"),
    [
        (pa.string(), TEXTS, ["one", "two", None, "", "äöü"]),
        (pa.large_string(), TEXTS, ["one", "two", None, "", "äöü"]),
        (pa.string_view(), TEXTS, ["one", "two", None, "", "äöü"]),
        (pa.binary(), [b"a\0b", None], ["a\0b", None]),
        (pa.large_binary(), [b"a\0b", None], ["a\0b", None]),
        (pa.binary(3), [b"abc", None], ["abc", None]),
        (pa.dictionary(pa.int8(), pa.string()), ["a", "b", "a", None], ["a", "b", "a", None]),
        (pa.dictionary(pa.int8(), pa.int64()), [5, 6, 5, None], ["5", "6", "5", None]),
        (pa.int64(), [1, -(2**63), None], ["1", "-9223372036854775808", None]),
        (pa.float64(), [1.5, None], ["1.5", None]),
        (pa.bool_(), [True, False, None], ["true", "false", None]),
        (pa.list_(pa.int8()), [[1, 2], [], None], ["[1,2]", "[]", None]),
        (pa.struct([("a", pa.int8())]), [{"a": 1}, None], ['{"a":1}', None]),
        (
            pa.timestamp("us", "UTC"),
            [datetime.datetime(2024, 5, 6, tzinfo=datetime.UTC)],
            ['"2024-05-06T00:00:00Z"'],
        ),
        (pa.date32(), [datetime.date(2024, 5, 6)], ['"2024-05-06"']),
        (pa.decimal128(5, 2), [Decimal("1.50")], ['"1.50"']),
        (pa.null(), [None, None], [None, None]),
    ],
    ids=str,
)
def test_input_encoding(ref: PluginRef, type: Any, values: Any, given: Any) -> None:
    """Text and bytes are sent unchanged, other values as JSON, and nulls not at all."""
    assert results(ref, "echo", pa.array(values, type)) == given


def test_sliced_column(ref: PluginRef) -> None:
    """A slice of a column has only its own rows."""
    column = pa.array(["a", "b", None, "d", "e"]).slice(1, 3)
    assert results(ref, "echo", column) == ["b", None, "d"]


def test_several_columns_as_json(ref: PluginRef) -> None:
    """Several columns are sent as a JSON object, nulls included."""
    rows = batch(a=[1, None], b=["x", "y"], c=[True, False])
    out = MapBatches(ref, "echo", column=["b", "a"])(rows)
    assert out.column("result").to_pylist() == ['{"b":"x","a":1}', '{"b":"y","a":null}']


# What comes out, by the type that is asked for


@pytest.mark.parametrize(
    ("returns", "outputs", "type", "values"),
    [
        (None, ["a", "ö"], pa.string(), ["a", "ö"]),
        (str, ["a", "ö"], pa.string(), ["a", "ö"]),
        (bytes, ["a", "ö"], pa.binary(), [b"a", b"\xc3\xb6"]),
        (int, ["5", "-7", " 8 ", "null"], pa.int64(), [5, -7, 8, None]),
        (float, ["5", "-7.25", "1e3", "null"], pa.float64(), [5.0, -7.25, 1000.0, None]),
        (bool, ["true", "false", "null"], pa.bool_(), [True, False, None]),
        (pa.large_string(), ["a"], pa.large_string(), ["a"]),
        (pa.string_view(), ["a"], pa.string_view(), ["a"]),
        (pa.binary(2), ["ab", "cd"], pa.binary(2), [b"ab", b"cd"]),
        (pa.int8(), ["127", "-128"], pa.int8(), [127, -128]),
        (pa.float32(), ["0.5"], pa.float32(), [0.5]),
        (pa.list_(pa.int64()), ["[1, 2]", "[]", "null"], pa.list_(pa.int64()), [[1, 2], [], None]),
        (
            pa.struct([("a", pa.int64()), ("b", pa.string())]),
            ['{"a": 1, "b": "x", "c": 0}', '{"a": 2}'],
            pa.struct([("a", pa.int64()), ("b", pa.string())]),
            [{"a": 1, "b": "x"}, {"a": 2, "b": None}],
        ),
        (
            pa.timestamp("us"),
            ['"2024-05-06T07:08:09"'],
            pa.timestamp("us"),
            [datetime.datetime(2024, 5, 6, 7, 8, 9)],
        ),
        (pa.date32(), ['"2024-05-06"'], pa.date32(), [datetime.date(2024, 5, 6)]),
        (
            pa.decimal128(5, 2),
            ['"1.50"', "2.25"],
            pa.decimal128(5, 2),
            [Decimal("1.50"), Decimal("2.25")],
        ),
    ],
    ids=str,
)
def test_output_types(ref: PluginRef, returns: Any, outputs: Any, type: Any, values: Any) -> None:
    """Outputs have the requested type."""
    out = MapBatches(ref, "echo", column="in", returns=returns)(batch(**{"in": outputs}))
    assert out.schema.field("result").type == type
    assert out.column("result").to_pylist() == values


@pytest.mark.parametrize(
    ("returns", "output"),
    [
        (str, b"\xff"),
        (int, b"no"),
        (int, b"5.5"),
        (int, b'"5"'),
        (int, b""),
        (int, b"1_000"),
        (int, str(2**63).encode()),
        (int, b"9" * 5000),
        (float, b"nan"),
        (float, b"[1]"),
        (bool, b"1"),
        (pa.int8(), b"128"),
        (pa.binary(2), b"abc"),
        (pa.struct([("a", pa.int64())]), b'{"a": "x"}'),
        (pa.struct([("a", pa.int64())]), b"[1]"),
        (pa.list_(pa.int64()), b"[" * 100_000),
        (pa.list_(pa.int64()), b"[1, 1e300]"),
        (pa.timestamp("us"), b'"yesterday"'),
        (pa.decimal128(5, 2), b'"12345.678"'),
        (pa.string_view(), b"\xff"),
    ],
    ids=lambda value: value[:20].decode("latin-1") if isinstance(value, bytes) else str(value),
)
def test_output_type_error_names_row(ref: PluginRef, returns: Any, output: bytes) -> None:
    """The error for an output of the wrong type names its row."""
    good = {
        int: b"1",
        float: b"1",
        bool: b"true",
        str: b"x",
        pa.int8(): b"1",
        pa.binary(2): b"ab",
    }.get(returns)
    inputs = pa.array([good, None, output, good], pa.binary())
    with pytest.raises(
        RowError, match="row 2 of 4: `echo` of plugin `rows`: the output is no "
    ) as caught:
        results(ref, "echo", inputs, returns=returns)
    error = caught.value
    assert (error.row, error.plugin, error.function) == (2, "rows", "echo")
    assert isinstance(error.__cause__, plugwasm.errors.OutputError)
    out = results(ref, "echo", inputs, returns=returns, on_error="null")
    assert [value is None for value in out] == [good is None, True, True, good is None]


# Calls that fail


def test_guest_error_names_row(ref: PluginRef) -> None:
    """The error for a guest's error names the row and has the error as its cause."""
    with pytest.raises(RowError) as caught:
        results(ref, "picky", ["fine", "?", "!"])
    error = pickle.loads(pickle.dumps(caught.value))
    assert error.message.startswith("row 1 of 3: ")
    assert (error.row, error.guest_message) == (1, "what is this?")
    assert isinstance(error.__cause__, plugwasm.GuestError)


def test_null_on_error(ref: PluginRef) -> None:
    """With `null_on_error`, the other rows have their results."""
    assert results(ref, "picky", ["a", "!", "b", "?", "c", "+", "d"], on_error="null") == [
        "a",
        None,
        "b",
        None,
        "c",
        None,
        "d",
    ]


def test_error_column(ref: PluginRef) -> None:
    """The error column has each row's error, and null for rows without."""
    out = MapBatches(ref, "picky", column="in", error_column="why")(
        batch(**{"in": ["a", "!", None, "?", "+"]})
    )
    assert out.schema.names == ["in", "result", "why"]
    assert out.column("result").to_pylist() == ["a", None, None, None, None]
    fine, trap, null, said, late = out.column("why").to_pylist()
    assert fine is None
    assert null is None
    assert trap.startswith("TrapError: ")
    assert said.startswith("GuestError: ")
    assert "what is this?" in said
    assert late.startswith("TimeoutError: ")


def test_error_column_output_type(ref: PluginRef) -> None:
    """An output of the wrong type is in the error column too."""
    for returns in (int, pa.int8()):
        out = MapBatches(ref, "echo", column="in", returns=returns, error_column="why")(
            batch(**{"in": ["1", "300x", "3"]})
        )
        assert out.column("result").to_pylist() == [1, None, 3]
        assert out.column("why").to_pylist()[1].startswith("OutputError: ")


def test_host_function_error_names_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception of a host function belongs to its row."""
    (tmp_path / "host_of_batches.py").write_text(
        "def fail(a: int) -> int:\n    raise ValueError('for a row')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    plugin = guest(
        '(import "extism:host/user" "fail" (func $fail (param i64) (result i64)))'
        + export("run", "(drop (call $fail (i64.const 0)))")
    )
    ref = PluginRef(plugin, functions=["host_of_batches:fail"])
    with pytest.raises(RowError, match=r"row 1 of 2: .*raised ValueError: for a row") as caught:
        results(ref, "run", [None, "a"])
    assert isinstance(caught.value.__cause__, plugwasm.HostFunctionError)
    assert results(ref, "run", ["a"], on_error="null") == [None]


@pytest.mark.parametrize("on_error", ["raise", "null"])
@pytest.mark.parametrize("limit", ["start", "memory"])
def test_start_error_is_not_per_row(on_error: Any, limit: str) -> None:
    """An instance that cannot be started is not the error of a row."""
    if limit == "start":
        ref = PluginRef('(module (func $start unreachable) (start $start) (func (export "run")))')
        expected: type[Exception] = plugwasm.TrapError
    else:
        ref = PluginRef(
            '(module (table 10 funcref) (func (export "run")))',
            limits=plugwasm.Limits(table_elements=5),
        )
        expected = plugwasm.OutOfMemoryError
    with pytest.raises(expected):
        results(ref, "run", ["a"], on_error=on_error)


@pytest.mark.parametrize("on_error", ["raise", "null"])
def test_common_errors_raised_as_they_are(ref: PluginRef, on_error: Any) -> None:
    """An error that concerns every row is raised unchanged."""
    with pytest.raises(plugwasm.FunctionNotFoundError):
        results(ref, "no_such", ["a"], on_error=on_error)


def test_batch_output_limit(ref: PluginRef) -> None:
    """The outputs for a batch have a total limit."""
    for mode in ({"column": "in"}, {"returns": pa.schema([("in", pa.string())])}):
        rows = batch(**{"in": ["a" * 1000] * 10})
        size = 10_000 if "column" in mode else len(write_stream(rows))
        assert MapBatches(ref, "echo", output_bytes=size, **mode)(rows).num_rows == 10
        with pytest.raises(
            BatchError,
            match=f"`echo` of plugin `rows` gave more than {size - 1} bytes for one batch",
        ):
            MapBatches(ref, "echo", output_bytes=size - 1, **mode)(rows)


# Instances


def test_rows_share_instance(ref: PluginRef) -> None:
    """The rows of a batch share an instance, and batches do not."""
    calls = MapBatches(ref, "calls", column="in")
    rows = batch(**{"in": ["a", "b", "c"]})
    for _ in range(2):
        assert calls(rows).column("result").to_pylist() == ["1", "2", "3"]


def test_instance_per_row(ref: PluginRef) -> None:
    """Each row can have its own instance."""
    assert results(ref, "calls", ["a", "b", "c"], instance_per="row") == ["1", "1", "1"]


def test_instance_per_thread(ref: PluginRef) -> None:
    """An instance can last as long as its thread."""
    calls = MapBatches(ref, "calls", column="in", instance_per="thread")
    rows = batch(**{"in": ["a", "b"]})
    barrier = threading.Barrier(2)

    def twice() -> list[Any]:
        barrier.wait(10)
        return [calls(rows).column("result").to_pylist() for _ in range(2)]

    with ThreadPoolExecutor(2) as threads:
        both = [threads.submit(twice) for _ in range(2)]
        assert [one.result() for one in both] == [[["1", "2"], ["3", "4"]]] * 2


# Kinds of batches


def kinds() -> dict[str, Any]:
    return {
        "record batch": batch(id=[1, 2, 3], text=["a", None, "c"]),
        "table": pa.table({"id": [1, 2, 3], "text": ["a", None, "c"]}),
        "table of chunks": pa.table(
            {"id": pa.chunked_array([[1], [2, 3]]), "text": pa.chunked_array([["a", None], ["c"]])}
        ),
        "frame": pd.DataFrame({"id": [1, 2, 3], "text": ["a", None, "c"]}, index=[7, 8, 9]),
        "arrays": {"id": np.array([1, 2, 3]), "text": np.array(["a", None, "c"], dtype=object)},
    }


@pytest.mark.parametrize("kind", kinds())
def test_result_is_of_batch_type(ref: PluginRef, kind: str) -> None:
    """The result has the type of the batch."""
    given = kinds()[kind]
    out: Any = MapBatches(ref, "echo", column="text", into="copy")(given)
    assert type(out) is type(given)
    assert list(out.schema.names if hasattr(out, "schema") else out) == ["id", "text", "copy"]
    copied = [
        None if value is None or value != value else value
        for value in (out["copy"].to_pylist() if hasattr(out, "schema") else out["copy"])
    ]
    assert copied == ["a", None, "c"]
    assert list(given.schema.names if hasattr(given, "schema") else given) == ["id", "text"]
    if kind == "frame":
        assert list(out.index) == [7, 8, 9]


@pytest.mark.parametrize("kind", kinds())
def test_column_replaced_in_place(ref: PluginRef, kind: str) -> None:
    """A column with the output's name is replaced in its position."""
    out: Any = MapBatches(ref, "echo", column="id", into="id", returns=float)(kinds()[kind])
    assert list(out.schema.names if hasattr(out, "schema") else out) == ["id", "text"]
    assert list(out["id"].to_pylist() if hasattr(out, "schema") else out["id"]) == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("kind", kinds())
def test_empty_batch(kind: str) -> None:
    """A batch without rows has the output columns with their types and needs no plugin."""
    gone = PluginRef({"wasm": [{"path": "/nowhere.wasm", "hash": "0" * 64}]})
    given: Any = kinds()[kind]
    empty = {name: column[:0] for name, column in given.items()} if kind == "arrays" else given[:0]
    out: Any = MapBatches(gone, "echo", column="text", into="count", returns=int)(empty)
    assert list(out.schema.names if hasattr(out, "schema") else out) == ["id", "text", "count"]
    assert len(out["count"]) == 0
    assert str(out["count"].type if hasattr(out, "schema") else out["count"].dtype) == "int64"


def test_missing_column_is_error(ref: PluginRef) -> None:
    """The error for a missing column names those there are."""
    for kind, rows in kinds().items():
        with pytest.raises(
            BatchError, match="there is no column `txt` in the batch; it has `id`, `text`"
        ):
            MapBatches(ref, "echo", column="txt")(rows)
        assert kind
    twice = pa.RecordBatch.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    with pytest.raises(BatchError, match="there are several columns `a`"):
        MapBatches(ref, "echo", column="a")(twice)


@pytest.mark.parametrize("given", [[1, 2], "text", None, 5, np.array([1])])
def test_what_is_no_batch_is_refused(ref: PluginRef, given: Any) -> None:
    for mapped in (
        MapBatches(ref, "echo", column="a"),
        MapBatches(ref, "echo", returns=pa.schema([("a", pa.int64())])),
    ):
        with pytest.raises(
            BatchError,
            match="expected a pyarrow RecordBatch or Table, a pandas DataFrame or a dict of NumPy arrays, got",
        ):
            mapped(given)


def test_invalid_column_is_refused(ref: PluginRef) -> None:
    """A column that Arrow cannot hold is refused."""
    for array in (np.zeros((2, 2)), np.array([object(), 1], dtype=object)):
        with pytest.raises(BatchError, match="cannot be read as Arrow"):
            MapBatches(ref, "echo", column="a")({"a": array})
        with pytest.raises(BatchError, match="cannot be read as Arrow"):
            MapBatches(ref, "echo", returns=pa.schema([("a", pa.int64())]))({"a": array})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"column": "a", "returns": dict},
            "expected str, bytes, int, float, bool or a pyarrow type",
        ),
        (
            {"column": "a", "returns": "int64"},
            "expected str, bytes, int, float, bool or a pyarrow type",
        ),
        (
            {"column": "a", "on_error": "ignore"},
            r"on_error: expected one of \('raise', 'null'\), got 'ignore'",
        ),
        ({"column": "a", "instance_per": "call"}, "instance_per: expected one of"),
        ({"column": []}, "column: expected a name or a list of different names"),
        ({"column": ["a", "a"]}, "column: expected a name or a list of different names"),
        ({"column": [5]}, "column: expected a name or a list of different names"),
        (
            {"column": "a", "into": "b", "error_column": "b"},
            "other names for `into` and `error_column`",
        ),
        ({"returns": str}, "without a `column`, batches go in as a whole"),
        ({"returns": pa.schema([]), "on_error": "null"}, "are for calls row by row"),
    ],
)
def test_invalid_setting_is_refused(ref: PluginRef, settings: Any, message: str) -> None:
    """An invalid setting is refused at once."""
    with pytest.raises(plugwasm.OptionError, match=message):
        MapBatches(ref, "echo", **settings)
    with pytest.raises(plugwasm.OptionError, match="expected a PluginRef, got str"):
        MapBatches("echo.wasm", "echo", column="a")  # type: ignore[arg-type]


# Iterators of record batches, as Spark has them


def test_map_arrow_maps_record_batches(ref: PluginRef) -> None:
    """`map_arrow` takes and yields one record batch after the other."""
    taken = []

    def source() -> Any:
        for index in range(3):
            taken.append(index)
            yield batch(text=[f"{index}a", f"{index}b"])

    out = MapBatches(ref, "echo", column="text").map_arrow(source())
    assert taken == []
    assert next(out).to_pydict() == {"text": ["0a", "0b"], "result": ["0a", "0b"]}
    assert taken == [0]
    rest = list(out)
    assert all(type(one) is pa.RecordBatch for one in rest)
    assert [row["result"] for one in rest for row in one.to_pylist()] == ["1a", "1b", "2a", "2b"]


def test_map_arrow_pickle_and_signature(ref: PluginRef) -> None:
    """`map_arrow` can be pickled and looks like a function of one argument."""
    mapped = pickle.loads(pickle.dumps(MapBatches(ref, "echo", column="text").map_arrow))
    assert [p.name for p in inspect.signature(mapped).parameters.values()] == ["batches"]
    assert next(mapped([batch(text=["a"])])).column("result").to_pylist() == ["a"]


# Other threads, other processes


def test_pickle_equality_and_repr(ref: PluginRef) -> None:
    """`MapBatches` can be pickled and compared and has a `repr`."""
    for mapped in (
        MapBatches(ref, "echo", column="a", returns=pa.int8()),
        MapBatches(ref, "echo", column=["a", "b"]),
        MapBatches(ref, "echo", returns=NUMBERS),
    ):
        copy = pickle.loads(pickle.dumps(mapped))
        assert copy == mapped
        assert hash(copy) == hash(mapped)
        assert repr(copy) == repr(mapped)
    assert repr(mapped) == "<MapBatches `echo` of 'rows', batch by batch>"
    assert MapBatches(ref, "echo", column="a") != MapBatches(ref, "echo", column="b")
    assert MapBatches(ref, "echo", column="a") != "something else"


def test_threads_can_share_one(ref: PluginRef) -> None:
    mapped = MapBatches(ref, "echo", column="text")
    table = pa.table({"text": [str(n) for n in range(4000)]})
    with ThreadPoolExecutor(4) as threads:
        out = pa.Table.from_batches(threads.map(mapped, table.to_batches(max_chunksize=100)))
    assert out.column("result").to_pylist() == table.column("text").to_pylist()


def test_processes_can_be_sent_one(ref: PluginRef) -> None:
    mapped = MapBatches(ref, "echo", column="text")
    with ProcessPoolExecutor(2, get_context("spawn")) as processes:
        out = list(processes.map(mapped, [batch(text=["a"]), batch(text=["b"])]))
    assert [one.to_pydict() for one in out] == [
        {"text": ["a"], "result": ["a"]},
        {"text": ["b"], "result": ["b"]},
    ]


def in_a_process(program: str) -> str:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{program}"
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    ).stdout


def test_missing_pyarrow() -> None:
    """Without PyArrow, the error names the extra."""
    said = in_a_process(
        "sys.modules['pyarrow'] = None\nfrom plugwasm import MapBatches\nfrom plugwasm import PluginRef\n"
        "try: MapBatches(PluginRef(b'\\0asm\\1\\0\\0\\0'), 'f', column='a')\nexcept ImportError as error: print(error)"
    )
    assert said == "record batches need pyarrow: pip install 'plugwasm[arrow]'\n"


def test_lazy_imports() -> None:
    """Optional packages are not imported before they are used."""
    said = in_a_process(
        "import plugwasm._distributed.ref, plugwasm._distributed.map_batches\nprint(*{'pyarrow', 'pandas', 'numpy', 'ray', 'dask', 'msgspec'} & set(sys.modules))"
    )
    assert said == "\n"


# What becomes Python objects

LISTS = pa.list_(pa.list_(pa.int64()))


def limited_ref(values: int) -> PluginRef:
    return PluginRef(
        guest(export("echo", "(call $echo)")).encode(),
        limits=plugwasm.Limits(decoded_values=values),
    )


@pytest.mark.parametrize("at_once", [1, 50, 2**20])
def test_chunked_output_keeps_row_numbers(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outputs are written to Arrow in chunks, and row numbers stay right."""
    monkeypatch.setattr("plugwasm._distributed.map_batches._CHUNK_BYTES", at_once)
    texts = [None, *(f"[[{row}]]" for row in range(20)), '"no list"', "[[1],[2,3]]", "[", "[]"]
    batch = pa.RecordBatch.from_pydict({"text": texts})
    good = [None, *([[row]] for row in range(20)), None, [[1], [2, 3]], None, []]
    made = MapBatches(limited_ref(100), "echo", column="text", returns=LISTS, error_column="error")(
        batch
    )
    assert made.column("result").to_pylist() == good
    assert [row for row, error in enumerate(made.column("error").to_pylist()) if error] == [21, 23]
    with pytest.raises(RowError) as caught:
        MapBatches(limited_ref(100), "echo", column="text", returns=LISTS)(batch.slice(0, 22))
    assert caught.value.row == 21
    assert (
        MapBatches(limited_ref(100), "echo", column="text", returns=LISTS)(
            batch.slice(0, 0)
        ).num_rows
        == 0
    )


def test_row_output_limits_and_time() -> None:
    """The output for a row has the limits and the deadline of its plugin."""
    many = "[" + "[]," * 1000 + "[]]"
    with pytest.raises(RowError, match="decoded_values"):
        MapBatches(limited_ref(1000), "echo", column="text", returns=LISTS)(
            pa.RecordBatch.from_pydict({"text": [many]})
        )


def test_python_values_counted_over_batch() -> None:
    """Values that become Python objects are counted over the rows of a batch."""
    texts = ["[" + "[1]," * 300 + "[]]"] * 10
    count = MapBatches(limited_ref(1000), "echo", column="text", returns=LISTS)
    assert count(pa.RecordBatch.from_pydict({"text": texts})).num_rows == 10
    with pytest.raises(
        plugwasm.BatchError, match=r"more than 1000 values .*`Limits.decoded_values`"
    ):
        count({"text": np.array(texts, dtype=object)})
    assert len(count({"text": np.array(texts[:2], dtype=object)})["result"]) == 2


def test_python_values_of_whole_batch() -> None:
    """Values that become Python objects are counted over a batch that is sent as a whole."""
    rows = pa.RecordBatch.from_pydict({"a": pa.array([[[1]] * 600, None], LISTS)})
    whole = MapBatches(limited_ref(1000), "echo", returns=rows.schema)
    assert whole(rows).num_rows == 2
    frame = {"a": np.empty(2, dtype=object)}
    frame["a"][:] = [[[1]] * 600, [[2]]]
    assert len(whole(frame)["a"]) == 2
    frame["a"][:] = [[[1]] * 600, [[2]] * 600]
    with pytest.raises(plugwasm.BatchError, match="decoded_values"):
        whole(frame)
