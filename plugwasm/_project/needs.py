"""What a module offers to an application and needs of it, in words for its author."""

from __future__ import annotations

from dataclasses import dataclass

from .._host import env
from .._host.kernel import KERNEL_FUNCTIONS
from .._manifest.messages import closest_match
from ..errors import escape_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

__all__ = ["Needs", "explain_host_function", "explain_missing"]

_OF_TOOLCHAINS: Final = ("_initialize", "_start", "hs_init", "__wasm_call_ctors")
"""Exports that hosts call by themselves."""


@dataclass(frozen=True)
class Needs:
    """What a module offers and needs.

    Attributes:
        exports: The exports that can be called.
        not_callable: Functions that are exported with another type, and their types.
        host_functions: Functions of the application: where they are imported from, name, type.
        http: Whether it may send HTTP requests.
        wasi: Whether it imports WASI.
    """

    exports: tuple[str, ...]
    not_callable: tuple[tuple[str, str], ...]
    host_functions: tuple[tuple[str, str, str], ...]
    http: bool
    wasi: bool

    @classmethod
    def of(cls, module: dict[str, Any]) -> Needs:
        """Return the needs of a module, from `collect_facts`."""
        functions = [item for item in module["exports"] if item["kind"] == "function"]
        imports = module["imports"]
        return cls(
            exports=tuple(
                item["name"]
                for item in functions
                if item["callable"] and item["name"] not in _OF_TOOLCHAINS
            ),
            not_callable=tuple(
                (item["name"], type_text(item["type"]))
                for item in functions
                if not (item["callable"] or item["name"].startswith("_"))
            ),
            host_functions=tuple(
                (item["module"], item["name"], type_text(item["type"]))
                for item in imports
                if item["provider"] == "application"
            ),
            http=any(
                item["provider"] == "env" and item["name"] == "http_request" for item in imports
            ),
            wasi=any(item["provider"] == "wasi" for item in imports),
        )


def type_text(type: dict[str, Any] | None) -> str:
    """Return the type of a function: (i64, i64) -> (i64)."""
    if type is None:
        return ""
    return f"({', '.join(type['params'])}) -> ({', '.join(type['results'])})"


def explain_missing(item: dict[str, Any]) -> str:
    """Return why no host has an import, and what to do, in one line."""
    module, name = item["module"], item["name"]
    what = escape_line(f"{module}.{name}")
    if item["kind"] != "function":
        return (
            f"{what}: a plugin has its own {item['kind']}; link it without --import-{item['kind']}"
        )
    if not item["fits"]:
        return f"{what}: hosts have it with another type than {type_text(item['type'])}"
    if module == "env" and name.startswith("extism_"):
        return f"{what}: of a kit from before Extism 1.0; build with a current one"
    if module == env.NAMESPACE:
        known = sorted({*KERNEL_FUNCTIONS, *env.FUNCTIONS})
        close = closest_match(name, known)
        return f"{what}: no such function" + (f"; did you mean {close}?" if close else "")
    return f"{what}: no such function of WASI preview 1"


def explain_host_function(module: str, name: str) -> str:
    """Return why a module may import a host function that its author does not know; or nothing."""
    if module.startswith("__wbindgen") or module == "wbg":
        return (
            "it is of JavaScript: a crate expects a browser; look for its features `js` or "
            "`wasmbind` (cargo tree -e features -i wasm-bindgen)"
        )
    if module in ("gojs", "go"):
        return "it is of JavaScript: build with GOOS=wasip1"
    if module == "wasi_unstable":
        return "it is of an old WASI: build with a current toolchain"
    if module.startswith("wasi:"):
        return "it is of WASI preview 2: build for preview 1, wasm32-wasip1"
    if module == "env" and name == "abort":
        return "it is what a failed assertion calls: build with --use abort=…"
    if module == "env":
        return (
            "a function that is declared and defined nowhere is imported from `env`: is a source "
            "or a library missing?"
        )
    return ""
