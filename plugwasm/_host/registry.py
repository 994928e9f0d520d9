"""The host functions that `host_fn` registered, for plugins that are made without `functions`.

All threads share them, and they are only appended to. Any such plugin can import what any module of
the process registered. So what is imported that way is logged, once for each plugin.

Decisions: docs/decisions.md, 41.3.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Iterable
    from typing import Any

    from .functions import Function

__all__ = ["registered", "registered_functions", "warn_registered_imports"]

MOST_WARNINGS = 1000
"""Pairs of a plugin and a function that are remembered. Later ones are not logged."""

registered: list[Function] = []
_warned: set[tuple[str, str | None, str]] = set()


def registered_functions() -> tuple[Function, ...]:
    """Return all registered functions, as they are now."""
    return tuple(registered)


def warn_registered_imports(
    plugin: str, functions: Iterable[Function], imported: Container[Any]
) -> None:
    """Log which registered functions a plugin imports although nobody passed them to it.

    Args:
        plugin: The plugin's name.
        functions: The functions that were registered when it was made.
        imported: What it is linked with: the host functions themselves, or pairs of a namespace and
            a name.
    """
    new = []
    for function in functions:
        key = plugin, function.namespace, function.name
        if function._host in imported and key not in _warned and len(_warned) < MOST_WARNINGS:
            _warned.add(key)
            new.append(function.name)
    if new:
        import logging

        from ..errors import truncate

        logging.getLogger("plugwasm.functions").warning(
            "plugin %s imports host functions that were not passed to it, but registered by "
            "host_fn somewhere in this process: %s; "
            "pass functions=[…] to say which it may call, and make functions for some plugins only "
            "with host_fn(register=False)",
            plugin,
            ", ".join(truncate(name) for name in dict.fromkeys(new)),
        )
