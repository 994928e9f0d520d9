"""Host functions with explicit signatures: values of every type pass unchanged."""

from __future__ import annotations

import math
import struct
from typing import Any

import pytest

from plugwasm import (
    CurrentPlugin,
    Function,
    HostFunctionError,
    Val,
    ValType,
)
from tests.support.guests import export, guest
from tests.support.host_calls import call, import_of

pytestmark = pytest.mark.usefixtures("own_registry")


ALL = guest(
    export(
        "run",
        """(call $f (i32.const -5) (i64.const -6) (f32.const 1.5) (f64.const -2.5))
        (local.set $d) (local.set $f) (local.set $l) (local.set $i)
        (local.set $out (call $alloc (i64.const 32)))
        (call $store_u64 (local.get $out) (i64.extend_i32_s (local.get $i)))
        (call $store_u64 (i64.add (local.get $out) (i64.const 8)) (local.get $l))
        (call $store_u64 (i64.add (local.get $out) (i64.const 16)) (i64.extend_i32_u (i32.reinterpret_f32 (local.get $f))))
        (call $store_u64 (i64.add (local.get $out) (i64.const 24)) (i64.reinterpret_f64 (local.get $d)))
        (call $output_set (local.get $out) (i64.const 32))""",
        "(local $i i32) (local $l i64) (local $f f32) (local $d f64) (local $out i64)",
    ),
    import_of("f", "(param i32 i64 f32 f64) (result i32 i64 f32 f64)"),
)
ALL_TYPES = [ValType.I32, ValType.I64, ValType.F32, ValType.F64]


def gives_all(*values: Any) -> bytes:
    def f(plugin: CurrentPlugin, params: list[Val], results: list[Val]) -> None:
        assert [p.value for p in params] == [-5, -6, 1.5, -2.5]
        assert [type(p.value) for p in params] == [int, int, float, float]
        assert [p.t for p in params] == ALL_TYPES
        assert [r.t for r in results] == ALL_TYPES
        for result, value in zip(results, values, strict=True):
            result.value = value

    return call(Function(None, "f", ALL_TYPES, ALL_TYPES, f), source=ALL)


@pytest.mark.parametrize(
    "values",
    [
        (0, 0, 0.0, 0.0),
        (-1, -1, -1.5, -1.5),
        (2**31 - 1, 2**63 - 1, 3.4028234663852886e38, 1.7e308),
        (-(2**31), -(2**63), -math.inf, math.inf),
        (True, False, 1, 2),
    ],
    ids=repr,
)
def test_all_four_types_pass_both_ways(values: tuple[Any, ...]) -> None:
    i, j, f, d = struct.unpack("<qqf4xd", gives_all(*values))
    assert (i, j, f, d) == values


def test_not_a_number_passes_as_such() -> None:
    _, _, f, d = struct.unpack("<qqf4xd", gives_all(1, 1, math.nan, math.nan))
    assert math.isnan(f)
    assert math.isnan(d)


def test_unsigned_results_by_bits() -> None:
    """Unsigned results are accepted by their bits."""
    i, j, _, _ = struct.unpack("<qqf4xd", gives_all(2**32 - 1, 2**64 - 1, 0.0, 0.0))
    assert (i, j) == (-1, -1)


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (0, 2**32),
        (0, -(2**31) - 1),
        (1, 2**64),
        (1, -(2**63) - 1),
        (2, 1e39),
        (0, 1.5),
        (0, "1"),
        (1, None),
        (2, "x"),
        (3, None),
    ],
)
def test_value_not_fitting_type_is_error(at: int, value: Any) -> None:
    """A value that does not fit its type is an error."""
    values: list[Any] = [0, 0, 0.0, 0.0]
    values[at] = value
    with pytest.raises(HostFunctionError) as caught:
        gives_all(*values)
    assert isinstance(caught.value.__cause__, (OverflowError, TypeError, struct.error))


def test_unset_results_are_zero() -> None:
    """Results that are not set are zero."""
    assert call(Function(None, "f", ALL_TYPES, ALL_TYPES, lambda *_: None), source=ALL) == bytes(32)


def test_result_val_can_be_replaced() -> None:
    """A result can be replaced by another Val."""

    def f(plugin: CurrentPlugin, params: list[Val], results: list[Val]) -> None:
        results[1] = Val(ValType.I64, 9)

    assert call(Function(None, "f", ALL_TYPES, ALL_TYPES, f), source=ALL)[8:16] == struct.pack(
        "<q", 9
    )


@pytest.mark.parametrize(
    "change", [lambda r: r.append(Val(ValType.I64, 1)), lambda r: r.clear()], ids=["more", "fewer"]
)
def test_number_of_results_is_checked(change: Any) -> None:
    """A wrong number of results is an error."""
    with pytest.raises(HostFunctionError):
        call(
            Function(
                None, "f", ALL_TYPES, ALL_TYPES, lambda plugin, params, results: change(results)
            ),
            source=ALL,
        )


@pytest.mark.parametrize("type", [ValType.V128, ValType.FUNC_REF, ValType.EXTERN_REF])
def test_unsupported_types_are_refused(type: ValType) -> None:
    """The error for a type that cannot be passed names it."""
    for args, returns in (([type], []), ([], [type])):
        with pytest.raises(TypeError, match=rf"`f`.*{type.name}"):
            Function(None, "f", args, returns, print)


@pytest.mark.parametrize("type", ["i32", 5, None, int], ids=repr)
def test_invalid_type_is_refused(type: Any) -> None:
    """An object that is no type is refused as well."""
    with pytest.raises(TypeError, match="`f`"):
        Function(None, "f", [type], [], print)


def test_ptr_is_another_name_of_i64() -> None:
    assert ValType.PTR is ValType.I64
    assert [t.name for t in ValType] == [
        "I32",
        "I64",
        "F32",
        "F64",
        "V128",
        "FUNC_REF",
        "EXTERN_REF",
    ]
