"""`plugwasm inspect`: the exports and imports of modules, and who provides the imports.

Modules are compiled but not linked, so a plugin can be inspected that cannot run here.
`collect_facts` returns the facts as JSON types, and `print_facts` prints them.
"""

from __future__ import annotations

import sys

from .._host import env
from .._host.kernel import KERNEL_FUNCTIONS, read_source
from .._manifest.limits import DEFAULT_LIMITS
from .._runtime.linker import is_callable_export, is_pre_1_0_import
from .._runtime.modules import CompileBudget, compile_module, engine_for_modules, get_engine
from .._runtime.trampolines import WASI
from .._wasi.abi import SIGNATURES
from .terminal import escape, write_stdout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rich.table import Table
    from rich.text import Text

    from .._engine import FunctionType, Item, Module
    from .._manifest.resolve import PluginSpec

_PAGE_KIB = 64
_STYLES = {"application": "yellow", "nobody": "bold red"}
_NAMES = {
    "wasi": "WASI",
    "application": "host function",
    "env": "env",
    "kernel": "kernel",
    "nobody": "nobody",
}


# ---- facts ---------------------------------------------------------------------------------------


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


# ---- output --------------------------------------------------------------------------------------


def print_facts(found: dict[str, Any]) -> None:
    """Write the result of `collect_facts` to stdout, as tables."""
    from rich.console import Console

    console = Console(
        highlight=False, markup=False, emoji=False, width=None if sys.stdout.isatty() else 10_000
    )
    several = len(found["modules"]) > 1
    with console.capture() as capture:
        for module in found["modules"]:
            _show_module(console, module, found["name"], several)
        _show_needs(console, found["needs"])
    text = "\n".join(line.rstrip() for line in capture.get().rstrip().splitlines()) + "\n"
    write_stdout(text.encode(sys.stdout.encoding or "utf-8", "backslashreplace"))


def _show_module(console: Any, module: dict[str, Any], plugin: str, several: bool) -> None:
    from rich.text import Text

    title = Text(escape(module["name"] if several else plugin), "bold")
    if several and module["main"]:
        title.append(" (the plugin)", "not bold")
    console.print(title)
    memories = module["memories"]
    pages = "1 page" if memories["pages"] == 1 else f"{memories['pages']:,} pages"
    memory = f"{memories['own']}, of {pages} ({memories['pages'] * _PAGE_KIB:,} KiB) at first"
    lines = {
        "from": escape(module["origin"]),
        "size": f"{module['size']:,} bytes",
        "sha256": module["sha256"],
    }
    lines["memories"] = (memory if memories["own"] else "none of its own") + (
        "; imports one" if memories["imported"] else ""
    )
    table = _grid()
    for name, value in lines.items():
        table.add_row(Text(f"  {name}", "dim"), value)
    console.print(table)
    _show_items(console, "exports", module["exports"])
    _show_items(console, "imports", module["imports"])
    console.print()


def _show_items(console: Any, title: str, items: list[dict[str, Any]]) -> None:
    from rich.text import Text

    table = _grid()
    table.add_row(Text(f"  {title}", "bold"), "" if items else Text("none", "dim"))
    above: str | None = None
    modules = list(dict.fromkeys(item.get("module") for item in items))
    for item in sorted(items, key=lambda item: modules.index(item.get("module"))):
        if (module := item.get("module")) != above:
            above = module
            table.add_row(Text(f"  {escape(module or '') or '(no name)'}", "dim"))
        table.add_row(f"    {escape(item['name'])}", _type(item), _provider_text(item))
    console.print()
    console.print(table)


def _grid() -> Table:
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for _ in range(3):
        table.add_column(overflow="fold")
    return table


def _type(item: dict[str, Any]) -> str:
    if item["type"] is None:
        return str(item["kind"])
    return f"({', '.join(item['type']['params'])}) -> ({', '.join(item['type']['results'])})"


def _provider_text(item: dict[str, Any]) -> Text:
    from rich.text import Text

    if "provider" not in item:
        return Text("callable", "green") if item["callable"] else Text("")
    provider = item["provider"]
    name = f"module {escape(item['provided_by'])}" if provider == "module" else _NAMES[provider]
    remark = Text(name, _STYLES.get(provider, ""))
    if not item["fits"]:
        remark.append(", with another type", "bold red")
    return remark


def _show_needs(console: Any, needs: dict[str, Any]) -> None:
    from rich.text import Text

    lines = []
    if needs["wasi"]:
        lines.append(("It needs WASI", "--wasi", ""))
    if needs["host_functions"]:
        lines.append(
            (
                "It needs host functions of an application",
                ", ".join(map(escape, needs["host_functions"])),
                "yellow",
            )
        )
    if needs["missing"]:
        lines.append(("Nobody has", ", ".join(map(escape, needs["missing"])), "bold red"))
    if any(name.startswith("env.extism_") for name in needs["missing"]):
        lines.append(
            ("Its kit is from before Extism 1.0", "build it again with a current one", "bold red")
        )
    for what, which, style in lines:
        console.print(Text.assemble(f"{what}: ", (which, style)), soft_wrap=True)
