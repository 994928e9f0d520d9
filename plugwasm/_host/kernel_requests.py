"""What the kernel asks the host for: whether it may grow, and what its table of config and vars
cannot answer (`_host/kernel/table.wat`).

The numbers of the requests are in kernel.wat.

Decisions: docs/decisions.md, 48.
"""

from __future__ import annotations

from .._engine import FunctionType, HostFunction
from . import env
from .kernel.table import HEARD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .guest import Guest


def _may_grow(guest: Guest, caller: int, values: Any) -> None:
    values[0] = guest.may_grow(values[0])


def _find_setting(guest: Guest, caller: int, values: Any) -> None:
    # Before the config is read: from now on, changes of it are noted in the table.
    guest.kernel.open_table()
    values[0] = env.find_setting(guest, values[0])


def _lend_vars(guest: Guest, caller: int, values: Any) -> None:
    values[0] = guest.vars.lend(guest.kernel.open_table(), values[0], values[2])


def _serve_vars(name: str) -> Callable[[Guest, int, Any], None]:
    serve = env.FUNCTIONS[name].body

    def body(guest: Guest, caller: int, values: Any) -> None:
        guest.vars.take_back()
        serve(guest, caller, values)

    return body


def _serve_log(name: str) -> Callable[[Guest, int, Any], None]:
    serve = env.FUNCTIONS[name].body

    def body(guest: Guest, caller: int, values: Any) -> None:
        serve(guest, caller, values)
        words = guest.kernel.open_table().words
        if not words[HEARD]:
            words[HEARD] = guest.log.lowest_heard()

    return body


_BODIES = (
    _may_grow,
    _find_setting,
    _lend_vars,
    *map(_serve_vars, ("var_get", "var_set")),
    *map(
        _serve_log,
        ("get_log_level", "log_trace", "log_debug", "log_info", "log_warn", "log_error"),
    ),
)


def _serve(guest: Guest, caller: int, values: Any) -> None:
    _BODIES[values[4] & 0xFF](guest, caller, values)


KERNEL_IMPORT = HostFunction(FunctionType(("i64", "i64", "i32"), ("i64",)), _serve)  # type: ignore[arg-type]
"""The only import of the kernel."""

SERVING_CODE = _serve.__code__
GROWING_CODE = _may_grow.__code__
