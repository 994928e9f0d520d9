"""What modules export and import, and who provides the imports.

Modules are compiled but not linked, so the facts of a plugin can be had that cannot run here.
Nothing of it runs.
"""

from __future__ import annotations

from .._host import env
from .._host.kernel import KERNEL_FUNCTIONS, read_source
from .._manifest.limits import DEFAULT_LIMITS
from .._wasi.abi import SIGNATURES
from .linker import is_callable_export, is_pre_1_0_import
from .modules import CompileBudget, compile_module, engine_for_modules, get_engine
from .trampolines import WASI

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .._engine import FunctionType, Item, Module
    from .._manifest.resolve import PluginSpec

__all__ = ["collect_facts"]


def collect_facts(spec: PluginSpec) -> dict[str, Any]:
    """Return facts about each module, and what the whole plugin needs, as JSON types."""
    budget = CompileBudget(DEFAULT_LIMITS)
    on = engine_for_modules(
        (module.wasm for module in spec.modules), DEFAULT_LIMITS.replace(gc=True, atomics=True)
    )
    modules = {
        module.name: compile_module(module.wasm, on, module.name, budget) for module in spec.modules
    }
    shown = [_module_facts(module, modules, module.name == spec.main) for module in spec.modules]
    imports = [item for module in shown for item in module["imports"]]
    return {
        "name": spec.label,
        "modules": shown,
        "needs": {
            "wasi": any(item["provider"] == "wasi" for item in imports),
            "host_functions": _names_provided_by(imports, "application"),
            "missing": _names_provided_by(imports, "nobody"),
        },
    }


def _names_provided_by(imports: list[dict[str, Any]], provider: str) -> list[str]:
    return list(
        dict.fromkeys(
            f"{item['module']}.{item['name']}" for item in imports if item["provider"] == provider
        )
    )


def _module_facts(source: Any, modules: dict[str, Module], is_main: bool) -> dict[str, Any]:
    import hashlib

    module = modules[source.name]
    count, pages, _ = module.defined_memories
    return {
        "name": source.name,
        "main": is_main,
        "origin": source.origin,
        "size": len(source.wasm),
        "sha256": hashlib.sha256(source.wasm).hexdigest(),
        "memories": {
            "own": count,
            "pages": pages,
            "imported": sum(item.kind == "memory" for item in module.imports),
        },
        "exports": [
            _item_facts(item) | {"callable": is_main and is_callable_export(item)}
            for item in module.exports.values()
        ],
        "imports": [
            {"module": item.module} | _item_facts(item) | _provider(item, source.name, modules)
            for item in module.imports
        ],
    }


def _item_facts(item: Item) -> dict[str, Any]:
    type = (
        None
        if item.type is None
        else {"params": list(item.type.params), "results": list(item.type.results)}
    )
    return {"name": item.name, "kind": item.kind, "type": type}


def _provider(item: Item, importer: str, modules: dict[str, Module]) -> dict[str, Any]:
    """Return who provides an import, and whether its type fits.

    The provider is `kernel`, `env`, `wasi`, `module` (with its name), `application` (a host
    function) or `nobody`.
    """
    other = modules.get(item.module)
    if other is not None and item.name in other.exports:
        export = other.exports[item.name]
        return {
            "provider": "module",
            "provided_by": item.module,
            "fits": export.kind == item.kind and export.type == item.type,
        }
    offered: FunctionType | None = None
    provider = (
        "application" if item.kind == "function" and not is_pre_1_0_import(item) else "nobody"
    )
    if item.module == env.NAMESPACE and item.kind == "function":
        if item.name in KERNEL_FUNCTIONS:
            provider, offered = (
                "kernel",
                compile_module(read_source(), get_engine(pooled=False), "kernel")
                .exports[item.name]
                .type,
            )
        elif item.name in env.FUNCTIONS:
            provider, offered = "env", env.FUNCTIONS[item.name].type
        else:
            provider = "nobody"
    elif item.module == WASI and item.kind == "function":
        if item.name not in SIGNATURES:
            provider = "nobody"
        else:
            fits = item.type is not None and item.type.params == SIGNATURES[item.name]
            return {"provider": "wasi", "provided_by": None, "fits": fits}
    return {
        "provider": provider,
        "provided_by": None,
        "fits": offered is None or offered == item.type,
    }
