"""The engine layer by itself: exports and imports of a store, and when it is freed."""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from plugwasm._engine import (
    EngineFailure,
    ExportName,
    HostRaised,
    Trap,
    wat_to_wasm,
)
from tests.support.engine import CALLS_HOST, ENGINE, World, host_function

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


# ---- exports -------------------------------------------------------------------------------------


def test_missing_export_is_named() -> None:
    """The error for an export that is missing or of another kind names it."""
    instance = World('(module (func (export "f")) (memory (export "m") 1))').instance
    with pytest.raises(EngineFailure, match="no export `g`"):
        instance.function(ExportName("g"), 0)
    with pytest.raises(EngineFailure, match="`m` is no function"):
        instance.function(ExportName("m"), 0)
    with pytest.raises(EngineFailure, match="`m` is no function"):
        instance.funcref(ExportName("m"))
    with pytest.raises(EngineFailure, match="no exported memory `f`"):
        instance.memory(ExportName("f"))
    assert instance.find_memory(ExportName("nothing")) is None
    assert instance.funcref(ExportName("f"))


TWO_RESULTS = """(module
  (func (export "pair") (param i64 i64) (result i64 i64) (local.get 1) (local.get 0))
  (func (export "fail") (param i64 i64) (unreachable)))"""


def test_values_of_another_function() -> None:
    """A function starts with zeros, whatever an earlier one left in the memory that it got."""
    world = World(TWO_RESULTS)
    for name in ("pair", "fail", "pair"):
        function = world.instance.function(ExportName(name), 2)
        assert function.values.tolist() == [0] * 6, "two values, and two words more"
        assert not function.trapped
        function.values[0], function.values[2] = 7, 9
        function.invoke()  # a trap is left for the next one, as by a signal handler that raised
        assert function.trapped == (name == "fail")
        assert function.values[:4:2].tolist() == ([9, 7] if name == "pair" else [7, 9])
        del function


def test_functions_do_not_share_values() -> None:
    """Functions that exist at the same time have values of their own."""
    world = World(TWO_RESULTS)
    functions = [world.instance.function(ExportName("pair"), 2) for _ in range(50)]
    for number, function in enumerate(functions):
        function.values[0], function.values[2] = number, 100 + number
    del functions[::2]
    more = [world.instance.function(ExportName("pair"), 2) for _ in range(50)]
    for function in more:
        function.values[0] = function.values[2] = 2**64 - 1
    for number, function in zip(range(1, 50, 2), functions, strict=True):
        function.call(world.environment.pending)
        assert function.values[:4:2].tolist() == [100 + number, number]


def test_mismatched_imports_are_refused() -> None:
    """Imports that do not match are refused instead of crashing."""
    wat = '(module (import "h" "f" (func (param i64) (result i64))))'
    with pytest.raises(EngineFailure):
        World(wat)
    with pytest.raises(EngineFailure):
        World(wat, host_function("i32", "i64", print))
    with pytest.raises(EngineFailure):
        World("(module)", host_function("i32", "i64", print))


# ---- what is freed, and what is kept -------------------------------------------------------------


@pytest.fixture
def without_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def freed(world: World) -> Callable[[], bool]:
    reference = weakref.ref(world.store)
    return lambda: reference() is None


@pytest.mark.usefixtures("without_collector")
def test_store_freed_with_last_reference() -> None:
    """A store is freed at once with the last reference."""
    world = World(CALLS_HOST, host_function("i64", "i64", lambda environment, caller, values: None))
    is_freed = freed(world)
    world.call("f", 1)
    assert not is_freed()
    del world
    assert is_freed()


@pytest.mark.usefixtures("without_collector")
def test_store_freed_after_host_exception() -> None:
    """A store is freed at once after a host function raised."""

    def body(environment: Any, caller: int, values: Any) -> None:
        raise LookupError

    world = World(CALLS_HOST, host_function("i64", "i64", body))
    is_freed = freed(world)
    try:
        world.call("f", 1)
    except HostRaised:
        pass
    del world
    assert is_freed()


@pytest.mark.usefixtures("without_collector")
def test_view_keeps_memory() -> None:
    """A view and objects made from it keep the memory when everything else is gone."""
    world = World('(module (memory (export "memory") 1) (data (i32.const 100) "hello"))')
    is_freed = freed(world)
    view = world.instance.memory(ExportName("memory")).view()
    part = view[100:105]
    words = view.cast("I")
    frozen = part.toreadonly()
    del world
    assert not is_freed()
    del view
    assert bytes(part) == b"hello"
    part[0] = ord("J")
    del part
    assert words[25] == int.from_bytes(b"Jell", "little")
    del words
    churn = [World('(module (memory 1) (data (i32.const 100) "XXXXX"))') for _ in range(20)]
    del churn
    assert bytes(frozen) == b"Jello"
    assert not is_freed()
    del frozen
    assert is_freed()


@pytest.mark.usefixtures("without_collector")
@pytest.mark.parametrize("what", ["instance", "function", "memory"])
def test_references_keep_store(what: str) -> None:
    """Every object that refers into a store keeps it alive."""
    world = World(
        '(module (memory (export "memory") 1) (func (export "f") (result i32) (i32.const 6)))'
    )
    is_freed, pending = freed(world), world.environment.pending
    kept: Any = {
        "instance": lambda: world.instance,
        "function": lambda: world.instance.function(ExportName("f"), 1),
        "memory": lambda: world.instance.memory(ExportName("memory")),
    }[what]()
    environment = world.environment
    del world
    assert not is_freed(), "to use it now would crash"
    if what == "function":
        kept.call(pending)
        assert kept.values[0] == 6
    del kept
    assert is_freed()
    del environment


@linux
def test_many_stores_leave_no_memory() -> None:
    """Thousands of stores leave no memory behind."""

    def size() -> int:
        return int(Path("/proc/self/statm").read_text().split()[0]) * 4096

    module = ENGINE.compile(
        wat_to_wasm(CALLS_HOST.encode()[:-1] + b'(memory (export "memory") 1))')
    )
    function = host_function("i64", "i64", lambda environment, caller, values: None)

    def churn(count: int) -> int:
        for _ in range(count):
            World(module, function).call("f", 1)
        return size()

    before = churn(200)
    assert churn(1000) - before < 2**24, (
        "each memory reserves gigabytes of addresses, so one that stays would be seen"
    )


def test_modules_dropped_before_instances() -> None:
    """Modules may be dropped while their instances run."""
    world = World(
        '(module (func (export "f") (result i32) (i32.const 8)) (func (export "bad") unreachable))'
    )
    gc.collect()
    assert world.call("f") == 8
    with pytest.raises(Trap):
        world.call("bad")


@pytest.mark.parametrize("threads", [4])
def test_threads_compile_and_run(threads: int) -> None:
    """Threads can compile and run at once."""
    results: list[int] = []

    def work(number: int) -> None:
        for n in range(15):
            wat = f'(module (func (export "f") (result i32) (i32.const {number * 1000 + n})))'
            results.append(World(wat).call("f") - number * 1000 - n)

    running = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert results == [0] * threads * 15
