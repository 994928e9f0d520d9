"""Checks of the options that applications pass. Each complaint names the argument and says what to
write instead.

Decisions: docs/decisions.md, 41.1 and 41.2.
"""

from __future__ import annotations

from .._manifest.limits import Limits, ProcessLimits
from ..errors import OptionError, truncate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, NoReturn

    from .functions import Function

__all__ = [
    "NOT_GIVEN",
    "REGISTERED",
    "check_flag",
    "check_fuel",
    "check_functions",
    "check_list",
    "check_option_types",
    "describe_value",
    "reject_plugin_object",
    "reject_unknown_arguments",
    "reject_unused_options",
]


class _Placeholder:
    """Stands for an argument that was not given."""

    __slots__ = ("_words",)

    def __init__(self, words: str) -> None:
        self._words = words

    def __repr__(self) -> str:
        return f"<{self._words}>"

    def __reduce__(self) -> str:
        return "REGISTERED" if self is REGISTERED else "NOT_GIVEN"


NOT_GIVEN: Any = _Placeholder("not given")
REGISTERED: Any = _Placeholder("all that host_fn registered")
"""Stands for the host functions that `host_fn` registered, where none were given."""

_REPLACEMENTS = {
    "timeout_ms": "limits=Limits(timeout=…), in seconds, or `timeout_ms` in the manifest",
    "max_pages": "limits=Limits(max_pages=…), or `memory.max_pages` in the manifest",
    "memory": "limits=Limits(memory_bytes=…), or `memory.max_pages` in the manifest",
    "max_var_bytes": "limits=Limits(var_bytes=…), or `memory.max_var_bytes` in the manifest",
    "max_http_response_bytes": (
        "egress=Egress(max_response_bytes=…), or `memory.max_http_response_bytes` in the manifest"
    ),
    "fuel": "fuel_limit=…",
    "host_functions": "functions=[…]",
    "imports": "functions=[…]",
    "allowed_hosts": "`allowed_hosts` in the manifest, or egress=Egress(allowed_hosts=[…])",
    "allowed_paths": "`allowed_paths` in the manifest: {directory: path in the guest}",
    "hash": "`wasm[].hash` in the manifest",
}
"""For names that are no arguments: where the setting is."""


_OWN_OBJECTS = {
    "CompiledPlugin": (
        "it is compiled already: make a Plugin, an IsolatedPlugin or a PluginPool of it"
    ),
    "Plugin": "give its `compiled_plugin`, or what that was made of",
    "IsolatedPlugin": "give what it was made of",
    "PluginPool": "call the pool itself, or give what it was made of",
    "PluginSet": "ask the set itself",
    "PluginRef": "write ref.plugin(), or ref.compiled()",
}


def reject_plugin_object(plugin: object) -> None:
    """Raise `OptionError` for an object of this package that was made of a plugin's source, and is
    none itself.
    """
    for kind in type(plugin).__mro__:
        if kind.__module__.partition(".")[0] == "plugwasm" and kind.__name__ in _OWN_OBJECTS:
            raise OptionError(
                f"plugin: a plugin cannot be compiled from a {kind.__name__}; "
                f"{_OWN_OBJECTS[kind.__name__]}",
                field="plugin",
            )


def reject_unknown_arguments(owner: type, unknown: Mapping[str, object]) -> NoReturn:
    """Raise the error for unknown keyword arguments."""
    from .._manifest.messages import closest_match

    code = owner.__init__.__code__  # type: ignore[misc]
    known = code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount]
    name = next(iter(unknown))
    raise TypeError(
        f"{owner.__name__}: there is no argument `{truncate(name)}`; "
        f"{_suggest(name, known, closest_match)}"
    )


def _suggest(name: str, known: tuple[str, ...], meant: Any) -> str:
    if "limits" in known and name in Limits.__slots__:
        return f"write limits=Limits({name}=…)" + (
            ", in seconds, or `timeout_ms` in the manifest" if name == "timeout" else ""
        )
    for place, kind in (("process", ProcessLimits), ("isolated", ProcessLimits)):
        if place in known and name in kind.__slots__:
            return f"write {place}=ProcessLimits({name}=…)"
    if name in _REPLACEMENTS and ("limits" in known or "egress" in known):
        return f"write {_REPLACEMENTS[name]}"
    if "timeout" in known and name == "timeout_ms":
        return "write timeout=…, in seconds"
    if "egress" in known:
        from .._http.egress import Egress

        if name in (Egress.__init__.__kwdefaults__ or ()):
            return f"write egress=Egress({name}=…)"
    close = meant(name, known)
    return f"did you mean `{close}`?" if close else f"known are {', '.join(known)}"


def reject_unused_options(where: str, **options: Any) -> None:
    """Raise `OptionError` for options that were given although nothing would use them.

    Args:
        where: Where to pass them instead, in words.
        options: All options that would not be used; `NOT_GIVEN` and `REGISTERED` mean not given.
    """
    given = [
        name
        for name, value in options.items()
        if value is not NOT_GIVEN and value is not REGISTERED
    ]
    if given:
        names = ", ".join(given)
        raise OptionError(
            f"{names}: {'it' if len(given) == 1 else 'they'} would not be used here; {where}",
            field=given[0],
        )


def check_flag(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise OptionError(
            f"{name}: expected True or False, got {describe_value(value)}", field=name
        )


def check_fuel(value: object) -> None:
    if value is not None and (
        isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63
    ):
        raise OptionError(
            "fuel_limit must be an integer between 0 and 2**63 - 1, or None for no limit, not "
            f"{truncate(repr(value))}",
            field="fuel_limit",
        )


def check_option_types(wasi: object, limits: object, egress: object) -> None:
    if not isinstance(wasi, bool):
        from .._wasi.options import WasiOptions

        if not isinstance(wasi, WasiOptions):
            raise OptionError(
                f"wasi: expected True, False or WasiOptions, got {describe_value(wasi)}",
                field="wasi",
            )
    if not (limits is None or isinstance(limits, Limits)):
        raise OptionError(
            f"limits: expected Limits, got {type(limits).__name__}; write limits=Limits(timeout=…)",
            field="limits",
        )
    if egress is not None:
        from .._http.egress import Egress

        if not isinstance(egress, Egress):
            raise OptionError(
                f"egress: expected an Egress, got {type(egress).__name__}; write "
                "egress=Egress(allowed_hosts=[…])",
                field="egress",
            )


def check_functions(functions: Any) -> tuple[Function, ...]:
    """Return the host functions of `functions`, a list of them or one, or raise."""
    if functions is None:
        return ()
    if callable(functions):
        functions = (functions,)
    if isinstance(functions, (str, bytes, dict)) or not hasattr(functions, "__iter__"):
        hint = (
            "; the name that a plugin imports each by is set by host_fn(name=…)"
            if isinstance(functions, dict)
            else ""
        )
        raise OptionError(
            f"functions: expected a list of host functions, got {type(functions).__name__}{hint}",
            field="functions",
        )
    found = tuple(functions)
    for function in found:
        if not hasattr(function, "_host"):
            given = truncate(getattr(function, "__name__", repr(function)))
            raise TypeError(
                f"functions: `{given}` is no host function: decorate it with "
                "`@plugwasm.host_fn()`, and pass a list of them"
            )
    return found


def check_list(name: str, value: Any, of: str, kinds: Any = str) -> list[Any]:
    """Return the elements of a list.

    Raises:
        OptionError: The value is one string or no list, or an element is of another type.
    """
    if isinstance(value, (str, bytes)) or not hasattr(value, "__iter__"):
        raise OptionError(
            f"{name}: expected a list, got {describe_value(value)}: write a list of {of}",
            field=name,
        )
    elements = list(value)
    for element in elements:
        if not isinstance(element, kinds):
            raise OptionError(
                f"{name}: expected {of}, but one is {describe_value(element)}", field=name
            )
    return elements


def describe_value(value: object) -> str:
    """Return what was given in place of what was expected: a short value, else its type."""
    if value is None or isinstance(value, (bool, int, float)):
        return truncate(repr(value), 40)
    return type(value).__name__
