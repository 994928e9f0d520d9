"""The host half of `extism:host/env`: config, vars, HTTP and log, as functions that every plugin can import.

The host owns what it is given here: it frees each handle that it takes, once, after it has read all of them and made its answer. Guests
that free a handle again, or give one block twice, must not hit the answer.
"""

from __future__ import annotations

from .._engine import FunctionType, HostFunction
from ..errors import GuestError
from .guest import MAX_TEXT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .guest import Guest

NAMESPACE = "extism:host/env"


def _config_get(guest: Guest, caller: int, values: Any) -> None:
    # Keys are text. What is not UTF-8 is the name of nothing, and nor is what is too long to be looked at as a whole.
    value = None
    handle = values[0]
    key = guest.read_block(handle, "config_get", MAX_TEXT + 1)
    if len(key) <= MAX_TEXT:
        try:
            value = guest.config.get(key.decode())
        except UnicodeDecodeError:
            pass
    values[0] = guest.new_block(value.encode()) if value else 0
    guest.free(handle)


def _var_get(guest: Guest, caller: int, values: Any) -> None:
    handle = values[0]
    value = guest.vars.get(guest.read_var_name(handle, "var_get"))
    values[0] = guest.new_block(value) if value else 0
    guest.free(handle)


def _var_set(guest: Guest, caller: int, values: Any) -> None:
    name, handle = values[0], values[2]
    key = guest.read_var_name(name, "var_set")
    limits = guest.limits
    if limits.var_bytes == 0:
        raise GuestError(
            "the plugin tried to set a var, but its vars are disabled (`memory.max_var_bytes` is 0)"
        )
    if handle == 0:
        guest.vars.delete(key)
    elif guest.block_length(handle) > limits.var_bytes or not guest.vars.set(
        key, guest.read_block(handle, "var_set")
    ):
        raise GuestError(
            f"the plugin's vars would exceed their limit of {limits.var_bytes} bytes (`memory.max_var_bytes`), or of {limits.vars} names"
        )
    guest.free(name, handle)


def _http_request(guest: Guest, caller: int, values: Any) -> None:
    guest.response_status, guest.response_headers = 0, None
    from .http_request import check_document_size, perform

    document, content = values[0], values[2]
    client = guest.grants.http_client
    if (denied := client.policy.no_host_error()) is not None:
        for handle in (document, content):
            guest.read_block(handle, "http_request", 0)
        raise denied
    check_document_size(guest.block_length(document))
    client.policy.check_body_size(guest.block_length(content))
    request, body = (
        guest.read_block(document, "http_request"),
        guest.read_block(content, "http_request"),
    )
    response = perform(request, body or None, client, guest.remaining)
    guest.response_status, guest.response_headers = response.status, response.headers
    values[0] = guest.new_block(response.body)
    guest.free(document, content)


def _http_status_code(guest: Guest, caller: int, values: Any) -> None:
    values[0] = guest.response_status


def _http_headers(guest: Guest, caller: int, values: Any) -> None:
    if guest.response_headers is None or not guest.grants.http_response_headers:
        values[0] = 0
        return
    import json

    values[0] = guest.new_block(json.dumps(guest.response_headers).encode())


def _get_log_level(guest: Guest, caller: int, values: Any) -> None:
    values[0] = guest.log.level()


def _log(level: str) -> Any:
    name = f"log_{level}"

    def body(guest: Guest, caller: int, values: Any) -> None:
        handle = values[0]
        guest.log.write(level, guest.read_text(handle, name), guest.function)
        guest.free(handle)

    return body


def _function(
    name: str, body: Any, params: tuple[type, ...], result: str | None = None, kind: type = int
) -> HostFunction:
    """The parameters are handles, of blocks that hold what the types say."""
    return HostFunction(
        FunctionType(("i64",) * len(params), (result,) if result else ()),
        body,
        (NAMESPACE, name),
        (*params, kind),
    )


_ALL = (
    _function("config_get", _config_get, (str,), "i64", str),
    _function("var_get", _var_get, (str,), "i64", bytes),
    _function("var_set", _var_set, (str, bytes)),
    _function("http_request", _http_request, (str, bytes), "i64", bytes),
    _function("http_status_code", _http_status_code, (), "i32"),
    _function("http_headers", _http_headers, (), "i64", str),
    _function("get_log_level", _get_log_level, (), "i32"),
    *(
        _function(f"log_{level}", _log(level), (str,))
        for level in ("trace", "debug", "info", "warn", "error")
    ),
)
FUNCTIONS = {function.name[1]: function for function in _ALL if function.name}
"""By name, what plugins can import from `NAMESPACE` besides what the kernel serves."""
