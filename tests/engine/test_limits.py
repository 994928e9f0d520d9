"""The engine layer on its own: limits on memories and tables, fuel, and ticks of the epoch."""

from __future__ import annotations

import threading

import pytest

from plugwasm._engine import (
    OUT_OF_FUEL,
    EngineFailure,
    Environment,
    ExportName,
    HostRaised,
    Store,
    StoreLimits,
    Trap,
    wat_to_wasm,
)
from tests.support.engine import ENGINE, FUEL_ENGINE, World

PAGE = 65536
MASK = 2**64 - 1


GROWING = """(module (memory (export "memory") 1) (table 1 funcref)
  (func (export "memory_by") (param i32) (result i32) (memory.grow (local.get 0)))
  (func (export "table_by") (param i32) (result i32) (table.grow (ref.null func) (local.get 0))))"""
REFUSED = 0xFFFFFFFF


def test_memory_limit() -> None:
    """A memory grows to its limit and not a page further."""
    world = World(GROWING, memory_bytes=10 * PAGE)
    assert world.call("memory_by", 10) & REFUSED == REFUSED
    assert world.call("memory_by", 9) == 1
    assert world.call("memory_by", 1) & REFUSED == REFUSED
    assert world.call("memory_by", 0) == 10
    assert world.instance.memory(ExportName("memory")).size() == 10 * PAGE
    world.store.limit(StoreLimits(memory_bytes=11 * PAGE))
    assert world.call("memory_by", 1) == 10
    world.store.limit(StoreLimits(memory_bytes=5 * PAGE))
    assert world.call("memory_by", 1) & REFUSED == REFUSED
    assert world.call("memory_by", 0) == 11


def test_table_limit() -> None:
    """A table grows to its limit and not an entry further."""
    world = World(GROWING, table_elements=1000)
    assert world.call("table_by", 100_000_000) & REFUSED == REFUSED
    assert world.call("table_by", 1000) & REFUSED == REFUSED
    assert world.call("table_by", 999) == 1
    assert world.call("table_by", 1) & REFUSED == REFUSED


@pytest.mark.parametrize(
    ("wat", "limits"),
    [
        ("(module (memory 11))", {"memory_bytes": 10 * PAGE}),
        ("(module (table 1001 funcref))", {"table_elements": 1000}),
        ("(module (memory 1) (memory 1) (memory 1))", {"memories": 2}),
        ("(module (table 1 funcref) (table 1 funcref))", {"tables": 1}),
        ("(module)", {"instances": 0}),
    ],
)
def test_instance_beyond_limit_is_refused(wat: str, limits: dict[str, int]) -> None:
    """A module that starts beyond a limit is not instantiated."""
    with pytest.raises(EngineFailure) as caught:
        World(wat, **limits)
    assert (
        "limit" in caught.value.message
        or "exceeds" in caught.value.message
        or "maximum" in caught.value.message
    )
    assert World(wat).instance


def test_fuel_is_counted_and_runs_out() -> None:
    """Fuel is used, counted and can run out."""
    wat = """(module (func (export "f") (param i64)
      (loop $l (br_if $l (i64.ne (local.tee 0 (i64.sub (local.get 0) (i64.const 1))) (i64.const 0))))))"""
    world = World(wat, engine=FUEL_ENGINE)
    costs = []
    for n in (100, 200, 400):
        world.store.set_fuel(100_000)
        world.call("f", n)
        costs.append(100_000 - world.store.fuel())
    assert costs[1] - costs[0] == (costs[2] - costs[1]) / 2 > 0
    world.store.set_fuel(costs[2])
    world.call("f", 400)
    assert world.store.fuel() == 0
    world.store.set_fuel(costs[0])
    with pytest.raises(Trap) as caught:
        world.call("f", 400)
    assert caught.value.message == OUT_OF_FUEL
    world.store.set_fuel(MASK)
    world.call("f", 400)
    assert world.store.fuel() > 2**63


def test_fuel_needs_engine_with_fuel() -> None:
    """Fuel of an engine without fuel is an error."""
    world = World("(module)")
    with pytest.raises(EngineFailure, match="fuel"):
        world.store.set_fuel(1)
    with pytest.raises(EngineFailure, match="fuel"):
        world.store.fuel()


class Ends(Environment):
    __slots__ = ("left", "looks")

    def __init__(self, left: int) -> None:
        super().__init__()
        self.left = left
        self.looks = 0

    def on_epoch(self) -> None:
        self.looks += 1
        if self.looks > self.left:
            raise InterruptedError("enough")


def test_tick_asks_environment() -> None:
    """Each tick makes a running guest ask its environment, which can end it."""
    environment = Ends(3)
    store = Store(ENGINE, environment)
    module = ENGINE.compile(wat_to_wasm(b'(module (func $spin (export "f") (loop $l (br $l))))'))
    instance = store.instantiate(module, b"", environment.pending)
    over = threading.Event()

    def tick() -> None:
        while not over.wait(0.005):
            ENGINE.increment_epoch()

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        with pytest.raises(HostRaised) as caught:
            instance.function(ExportName("f"), 0).call(environment.pending)
    finally:
        over.set()
        thread.join()
    assert isinstance(caught.value.exception, InterruptedError)
    assert caught.value.frames[0].startswith("spin @ ")
    assert environment.looks == 4
