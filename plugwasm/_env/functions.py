"""The host half of `extism:host/env`: config, vars, HTTP and log, as functions that every plugin can import.

The host owns what it is given here: it frees each handle that it takes.
"""

from __future__ import annotations

from .._engine import FunctionType, HostFunction
from ..errors import EgressDeniedError, GuestError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .guest import Guest

NAMESPACE = "extism:host/env"


def _config_get(guest: Guest, caller: int, values: Any) -> None:
    value = guest.config.get(guest.take_text(values[0], "config_get"))
    values[0] = guest.give(value.encode()) if value else 0


def _var_get(guest: Guest, caller: int, values: Any) -> None:
    value = guest.vars.get(guest.take_text(values[0], "var_get"))
    values[0] = guest.give(value) if value else 0


def _var_set(guest: Guest, caller: int, values: Any) -> None:
    key, handle = guest.take_text(values[0], "var_set"), values[2]
    limits = guest.limits
    if limits.var_bytes == 0:
        raise GuestError("the plugin tried to set a var, but its vars are disabled (`memory.max_var_bytes` is 0)")
    if handle == 0:
        guest.vars.delete(key)
    elif guest.size(handle) > limits.var_bytes or not guest.vars.set(key, guest.take(handle, "var_set")):
        raise GuestError(
            f"the plugin's vars would exceed their limit of {limits.var_bytes} bytes (`memory.max_var_bytes`), or of {limits.vars} names"
        )


def _http_request(guest: Guest, caller: int, values: Any) -> None:
    guest.response_status, guest.response_headers = 0, None
    if not guest.grants.recipe.allowed_hosts:
        for handle in (values[0], values[2]):
            guest.peek(handle, "http_request", 0)
        raise EgressDeniedError("the plugin made an HTTP request, but no host is granted to it (`allowed_hosts`)")
    from .http import check_sizes, perform

    check_sizes(guest.size(values[0]), guest.size(values[2]), guest.grants.policy)
    request, body = guest.take(values[0], "http_request"), guest.take(values[2], "http_request")
    response = perform(request, body or None, guest.grants.policy, guest.remaining)
    guest.response_status, guest.response_headers = response.status, response.headers
    values[0] = guest.give(response.body)


def _http_status_code(guest: Guest, caller: int, values: Any) -> None:
    values[0] = guest.response_status


def _http_headers(guest: Guest, caller: int, values: Any) -> None:
    if guest.response_headers is None or not guest.grants.http_response_headers:
        values[0] = 0
        return
    import json

    values[0] = guest.give(json.dumps(guest.response_headers).encode())


def _get_log_level(guest: Guest, caller: int, values: Any) -> None:
    values[0] = guest.log.level()


def _log(level: str) -> HostFunction:
    def body(guest: Guest, caller: int, values: Any) -> None:
        guest.log.write(level, guest.take_text(values[0], f"log_{level}"))

    return HostFunction(FunctionType(("i64",), ()), body)  # type: ignore[arg-type]


def _function(body: Any, params: int, *results: str) -> HostFunction:
    return HostFunction(FunctionType(("i64",) * params, results), body)


FUNCTIONS = {
    "config_get": _function(_config_get, 1, "i64"),
    "var_get": _function(_var_get, 1, "i64"),
    "var_set": _function(_var_set, 2),
    "http_request": _function(_http_request, 2, "i64"),
    "http_status_code": _function(_http_status_code, 0, "i32"),
    "http_headers": _function(_http_headers, 0, "i64"),
    "get_log_level": _function(_get_log_level, 0, "i32"),
} | {f"log_{level}": _log(level) for level in ("trace", "debug", "info", "warn", "error")}
"""By name, what plugins can import from `NAMESPACE` besides what the kernel serves."""
