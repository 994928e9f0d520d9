"""Plugins that call one host function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from plugwasm import (
    Function,
    Plugin,
    ValType,
    host_fn,
)
from tests.support.guests import LOOP, export, guest


def import_of(name: str, type: str, namespace: str = "extism:host/user") -> str:
    return f'(import "{namespace}" "{name}" (func $f {type}))'


BYTES_TO_BYTES = guest(
    export("run", "(call $give (call $f (call $copy)))")
    + export("null", "(call $give (call $f (i64.const 0)))")
    + export("bad", "(call $give (call $f (i64.const 12345)))"),
    import_of("f", "(param i64) (result i64)"),
)
"""`run` passes a block with the input to `f`, and answers the block that it gets."""


def make_calling_plugin(f: Any, *args: ValType) -> Plugin:
    """Make a plugin whose export `run` calls the host function."""
    source = guest(
        export("run", "(call $back)") + export("echo", "(call $echo)") + export("spin", LOOP),
        '(import "extism:host/user" "back" (func $back))',
    )
    return Plugin(source, functions=[Function(None, "back", list(args), [], f)])


ASK = guest(
    export("ask", "(call $give (call $answer_to (call $input_offset)))") + export("spin", LOOP),
    '(import "extism:host/user" "answer_to" (func $answer_to (param i64) (result i64)))',
)
WAIT = guest(
    export("wait", "(call $rest)") + export("echo", "(call $echo)"),
    '(import "extism:host/user" "rest" (func $rest))',
)


def make_asking_plugin(answer: Callable[..., Any]) -> Plugin:
    """Make a plugin whose `ask` passes its input to `answer` and outputs the result."""
    return Plugin(ASK, functions=[host_fn(name="answer_to")(answer)])


def make_waiting_plugin(rest: Callable[[], Any], **options: Any) -> Plugin:
    rest.__annotations__.setdefault("return", None)
    return Plugin(WAIT, functions=[host_fn(name="rest")(rest)], **options)


def call(
    f: Any,
    data: bytes | str = b"",
    export: str = "run",
    source: str = BYTES_TO_BYTES,
    **options: Any,
) -> bytes:
    function = f if isinstance(f, Function) else host_fn("f")(f)
    with Plugin(source, functions=[function], **options) as plugin:
        return plugin.call(export, data)
