"""A module in a store of its own, on engines that the tests of the engine layer share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from plugwasm._engine import (
    Engine,
    Environment,
    ExportName,
    FunctionType,
    HostFunction,
    Instance,
    Module,
    Store,
    wat_to_wasm,
)

ENGINE = Engine()
FUEL_ENGINE = Engine(fuel=True)
MASK = 2**64 - 1


class World:
    """A store with one instance. `imports` are host functions in the order of the module's
    imports."""

    def __init__(
        self, wat: str | Module, *imports: HostFunction, engine: Engine = ENGINE, **limits: int
    ) -> None:
        module = wat if isinstance(wat, Module) else engine.compile(wat_to_wasm(wat.encode()))
        self.environment = Environment()
        self.imports = imports
        self.store = Store(module.engine, self.environment)
        if limits:
            self.store.limit(**limits)
        if module.engine.fuel:
            self.store.set_fuel(1_000_000)
        items = b"".join(self.store.make_import(function, self.environment) for function in imports)
        self.instance: Instance = self.store.instantiate(module, items, self.environment.pending)

    def call(self, name: str, *arguments: int, results: int = 1) -> Any:
        function = self.instance.function(ExportName(name), max(len(arguments), results))
        for i, argument in enumerate(arguments):
            function.values[2 * i] = argument & MASK
        function.call(self.environment.pending)
        return (
            function.values[0] if results == 1 else tuple(function.values[::2].tolist()[:results])
        )


def host_function(params: str, results: str, body: Callable[[Any, int, Any], None]) -> HostFunction:
    return HostFunction(FunctionType(tuple(params.split()), tuple(results.split())), body)


CALLS_HOST = """(module
  (import "h" "f" (func $f (param i64) (result i64)))
  (func $inner (param i64) (result i64) (call $f (local.get 0)))
  (func (export "f") (param i64) (result i64) (call $inner (local.get 0)))
  (func (export "quiet") (result i64) (i64.const 5)))"""
