"""Stubs for host functions of the application, and which of these a plugin needs."""

from __future__ import annotations

import copy

from .._host.env import NAMESPACE
from .._host.functions import Function
from .._host.wasm_values import VAL_TYPES
from .modules import CompileBudget, compile_module, engine_for_modules

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from .._engine import FunctionType, HostFunction
    from .._manifest.limits import Limits
    from .._manifest.resolve import PluginSpec


def required_functions(
    spec: PluginSpec, limits: Limits, also: Collection[tuple[str, str]] = ()
) -> dict[tuple[str, str], FunctionType]:
    """Return the functions that only the application can provide, by namespace and name.

    Args:
        also: Functions that the application provides in the place of others.
    """
    on = engine_for_modules((source.wasm for source in spec.modules), limits, fuel=True)
    budget = CompileBudget(limits)
    modules = {
        source.name: compile_module(source.wasm, on, source.name, budget) for source in spec.modules
    }
    return {
        (item.module, item.name): item.type
        for module in modules.values()
        for item in module.imports
        if item.type is not None
        and VAL_TYPES.keys() >= {*item.type.params, *item.type.results}
        and (
            (item.module, item.name) in also
            or not (item.module == NAMESPACE or item.module.startswith("wasi_"))
        )
        and not (item.module in modules and item.name in modules[item.module].exports)
    }


def make_stub(
    namespace: str, name: str, host: HostFunction, real: Function | None = None
) -> Function:
    """Make a host function that is linked for `host`, or for the real one of the application."""
    types = [VAL_TYPES[t] for t in host.type.params], [VAL_TYPES[t] for t in host.type.results]
    linked = copy.copy(real) or Function(namespace, name, *types, _nothing)
    linked._host = host
    return linked


def _nothing() -> None:
    pass
