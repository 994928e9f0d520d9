"""Guests that the tests of the harness share."""

from __future__ import annotations

from tests.support.guests import export, guest

URL = "https://api.example.com/user/1"

USER = '(import "extism:host/user" "{name}" (func ${name} {type}))'
ASK = USER.format(name="ask", type="(param i64) (result i64)")

LOGS = guest(
    export(
        "say",
        "".join(
            f"(call $log_{level} <<{level} line>>)"
            for level in ("trace", "debug", "info", "warn", "error")
        )
        + "(call $answer (i64.extend_i32_u (call $get_log_level)))",
    )
)
REMEMBERS = guest(
    export("swap", "(call $give (call $var_get <<k>>)) (call $var_set <<k>> <<new>>)")
    + export("forget", "(call $var_set <<k>> (i64.const 0))")
    + export("die", "(call $var_set <<k>> <<new>>) unreachable")
)
ASKS = guest(
    export("ask", "(call $give (call $ask <<what>>))") + export("echo", "(call $echo)"), ASK
)
