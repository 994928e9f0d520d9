"""The functions of `extism:host/env` that the host serves: config, vars, HTTP and the log.

Every plugin can import them. The kernel serves the rest of `extism:host/env` (see `_host/kernel`).
It also serves config, vars and the log from its table, as far as that has the answers, and asks the
host for the others (`kernel_requests`). But the host serves all of them where calls are intercepted
or fuel is counted, and for commands with a store of their own.

To add one, write its body and give it a row in the table at the end. The linker, workers, `plugwasm
inspect`, recordings and replays read the table. docs/architecture.md goes through it.

The host owns what it is given here. It frees each handle that it takes, once, after it has read all
of them and made its result. A guest may pass one block twice, or free a handle again; neither may
free the result.

Decisions: docs/decisions.md, 35 and 48.
"""

from __future__ import annotations

from .._engine import FunctionType, HostFunction
from ..errors import GuestError
from .guest import MAX_TEXT
from .vars import limit_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .guest import Guest

NAMESPACE = "extism:host/env"

RERUN = "rerun"
"""Its result follows from config, vars, the log or the last response, which a recording has anyway.
It is not recorded, and runs again in a replay.
"""
ANSWER = "answer"
"""Its calls are recorded, and a replay answers them from the recording."""
RESPONSE = "response"
"""As `ANSWER`. The status and the headers of the HTTP response are recorded and restored with the
call.
"""
LOG_LEVEL = "log level"
"""Its result is the level that was in force when the recorded call began. Its calls are not
recorded.
"""


class EnvFunction(HostFunction):
    """A function of `extism:host/env`.

    Attributes:
        replay: What recordings and replays do with its calls: `RERUN`, `ANSWER`, `RESPONSE` or
            `LOG_LEVEL`.
    """

    __slots__ = ("replay",)

    def __init__(
        self,
        name: str,
        body: Any,
        params: tuple[type, ...],
        result: str | None = None,
        result_type: type = int,
        *,
        replay: str,
    ) -> None:
        """All parameters are handles. `params` and `result_type` say what the blocks hold."""
        super().__init__(
            FunctionType(("i64",) * len(params), (result,) if result else ()),
            body,
            (NAMESPACE, name),
            (*params, result_type),
        )
        self.replay = replay


def find_setting(guest: Guest, handle: int) -> int:
    """Return a new block with the setting whose key is the block, or 0. The block stays."""
    # Keys are text. A key that is not UTF-8, or too long to be read as a whole, names nothing.
    value = None
    key = guest.read_block(handle, "config_get", MAX_TEXT + 1)
    if len(key) <= MAX_TEXT:
        try:
            value = guest.config.get(key.decode())
        except UnicodeDecodeError:
            pass
    return guest.new_block(value.encode()) if value else 0


def _config_get(guest: Guest, caller: int, values: Any) -> None:
    handle = values[0]
    values[0] = find_setting(guest, handle)
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
        raise limit_error(limits, GuestError)
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


FUNCTIONS = {
    function.name[1]: function
    for function in (
        EnvFunction("config_get", _config_get, (str,), "i64", str, replay=RERUN),
        EnvFunction("var_get", _var_get, (str,), "i64", bytes, replay=RERUN),
        EnvFunction("var_set", _var_set, (str, bytes), replay=RERUN),
        EnvFunction("http_request", _http_request, (str, bytes), "i64", bytes, replay=RESPONSE),
        EnvFunction("http_status_code", _http_status_code, (), "i32", replay=RERUN),
        EnvFunction("http_headers", _http_headers, (), "i64", str, replay=RERUN),
        EnvFunction("get_log_level", _get_log_level, (), "i32", replay=LOG_LEVEL),
        EnvFunction("log_trace", _log("trace"), (str,), replay=RERUN),
        EnvFunction("log_debug", _log("debug"), (str,), replay=RERUN),
        EnvFunction("log_info", _log("info"), (str,), replay=RERUN),
        EnvFunction("log_warn", _log("warn"), (str,), replay=RERUN),
        EnvFunction("log_error", _log("error"), (str,), replay=RERUN),
    )
    if function.name
}
"""The functions that plugins can import from `NAMESPACE`, besides what the kernel serves, by name.
"""


def find_env_function(name: tuple[str, str] | None) -> EnvFunction | None:
    """Return the row of the table for a namespace and a name, or None."""
    return FUNCTIONS.get(name[1]) if name is not None and name[0] == NAMESPACE else None
