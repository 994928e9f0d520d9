"""`plugwasm inspect`: prints the facts of a plugin (`_runtime.facts`) as tables."""

from __future__ import annotations

import sys

from .terminal import escape, write_stdout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rich.table import Table
    from rich.text import Text

    from .._script.spec import ScriptSpec

_PAGE_KIB = 64
_STYLES = {"application": "yellow", "nobody": "bold red"}
_NAMES = {
    "wasi": "WASI",
    "application": "host function",
    "env": "env",
    "kernel": "kernel",
    "nobody": "nobody",
}


def script_facts(script: ScriptSpec) -> dict[str, Any]:
    """Return the facts of a script in the form of `collect_facts`.

    Its interpreter is left out. The host functions are those that it declares.
    """
    import hashlib

    from .._manifest.limits import DEFAULT_LIMITS

    exports, functions = script.declared(DEFAULT_LIMITS)
    text = script.modules[0]
    return {
        "name": script.label,
        "modules": [
            {
                "name": script.file,
                "main": True,
                "origin": text.origin,
                "size": len(text.wasm),
                "sha256": hashlib.sha256(text.wasm).hexdigest(),
                "language": script.language,
                "exports": [
                    {
                        "name": name,
                        "kind": "function",
                        "type": {"params": [], "results": ["i32"]},
                        "callable": True,
                    }
                    for name in exports
                ],
                "imports": [
                    {
                        "module": one.namespace,
                        "name": one.name,
                        "kind": "function",
                        "type": {"params": list(one.params), "results": list(one.results)},
                        "provider": "application",
                        "provided_by": None,
                        "fits": True,
                    }
                    for one in functions
                ],
            }
        ],
        "needs": {
            "wasi": False,
            "host_functions": [f"{one.namespace}.{one.name}" for one in functions],
            "missing": [],
        },
    }


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
    lines = {
        "from": escape(module["origin"]),
        "size": f"{module['size']:,} bytes",
        "sha256": module["sha256"],
    }
    if "language" in module:
        lines["script"] = module["language"]
    else:
        lines["memories"] = _memories(module["memories"])
    table = _grid()
    for name, value in lines.items():
        table.add_row(Text(f"  {name}", "dim"), value)
    console.print(table)
    _show_items(console, "exports", module["exports"])
    _show_items(console, "imports", module["imports"])
    console.print()


def _memories(memories: dict[str, int]) -> str:
    pages = "1 page" if memories["pages"] == 1 else f"{memories['pages']:,} pages"
    memory = f"{memories['own']}, of {pages} ({memories['pages'] * _PAGE_KIB:,} KiB) at first"
    imported = "; imports one" if memories["imported"] else ""
    return (memory if memories["own"] else "none of its own") + imported


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
