"""Plans that plugins share which were made separately, of the same module with the same settings.

An application may make a plugin from bytes for each request. Compiled code is then found again
(`modules`), and so is the plan, with what earlier starts have bound (`Plan.open_store`).

The state of this module belongs to the process as a whole: the plans that are in use, or kept with
a module that has no user.
"""

from __future__ import annotations

from .._platform.finalizer import WeakValues
from .linker import Plan, compile_unit
from .modules import CompileBudget, keep_with_module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from .._engine import Engine
    from .._manifest.limits import Limits
    from .._manifest.resolve import ModuleSpec
    from .linker import Imports

__all__ = ["find_or_make_plan"]

_plans: WeakValues[tuple[Any, ...], Plan] = WeakValues()
"""By the identity of the compiled module, which the plan holds, and the settings."""


def find_or_make_plan(
    engine: Engine,
    sources: Sequence[ModuleSpec],
    main: str,
    *,
    wasi: bool,
    functions: Imports,
    limits: Limits,
    plugin: str,
) -> Plan:
    """Return the plan of a plugin. The arguments are those of `Plan`.

    Only plans of one module are found again, and only without functions of the application: a plan
    holds them, and must not keep them alive.

    Raises:
        LinkError: The modules and functions do not fit together.
        ModuleError: A module is not valid, or is beyond the limits.
        TooLargeForPool: The engine is pooled, and a module too large for that.
    """
    if len(sources) > 1 or functions:
        return Plan(
            engine, sources, main, wasi=wasi, functions=functions, limits=limits, plugin=plugin
        )
    (source,) = sources
    module = compile_unit(source, engine, CompileBudget(limits), is_only=True)
    # What an error says of the plugin is part of the plan, too.
    key = (id(module), source.name, main, wasi, limits, plugin)
    plan = _plans.get(key)
    if plan is None:
        plan = Plan(
            engine, sources, main, wasi=wasi, functions=functions, limits=limits, plugin=plugin
        )
        # If it was compiled anew in between, the other module's identity may be given out again.
        if plan.main.module is module:
            _plans[key] = plan
            keep_with_module(module, plan)
    return plan
