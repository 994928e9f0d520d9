"""The table whose entries go with their values."""

from __future__ import annotations

import gc

import pytest

from plugwasm._platform.finalizer import WeakValues


class Value:
    pass


def test_entry_goes_with_its_value() -> None:
    """An entry is there as long as its value is alive, which the table does not keep alive."""
    table: WeakValues[str, Value] = WeakValues()
    value = table["a"] = Value()
    assert table.get("a") is value
    assert table.values() == [value]
    assert list(table) == ["a"]
    del value
    gc.collect()
    assert table.get("a") is None
    assert (len(table), table.values()) == (0, [])


def test_replaced_value_takes_nothing() -> None:
    """A value that was replaced does not take its successor's entry with it."""
    table: WeakValues[str, Value] = WeakValues()
    old = table["a"] = Value()
    new = table["a"] = Value()
    del old
    gc.collect()
    assert table.get("a") is new


def test_clear_forgets_values() -> None:
    """Values of a table that was cleared take nothing from it when they are freed."""
    table: WeakValues[str, Value] = WeakValues()
    old = table["a"] = Value()
    table.clear()
    assert table.get("a") is None
    new = table["a"] = Value()
    del old
    gc.collect()
    assert table.get("a") is new


def test_values_on_circles_go() -> None:
    """Values that only the garbage collector can free go, any number at once."""
    table: WeakValues[int, Value] = WeakValues()
    for number in range(50):
        value = table[number] = Value()
        value.itself = value  # type: ignore[attr-defined]
    gc.collect()
    assert list(table) == [49], "the last one has a name here"


def test_values_may_go_while_read() -> None:
    """Reading all values is safe while they are freed."""
    table: WeakValues[int, Value] = WeakValues()
    kept = [Value() for _ in range(100)]
    for number, value in enumerate(kept):
        table[number] = value
    del value
    found = table.values()
    kept.clear()
    assert len(found) == 100
    del found
    gc.collect()
    assert not table


def test_object_without_weakrefs_refused() -> None:
    """A value that nothing can refer to weakly is refused, and leaves no entry."""
    table: WeakValues[str, object] = WeakValues()
    with pytest.raises(TypeError, match="weak reference"):
        table["a"] = 1
    assert not table
