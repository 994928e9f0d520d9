"""Handles passed to the host: the result is created before they are freed, and the guest may
free them again."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

import plugwasm
from plugwasm import CurrentPlugin, Egress, IsolatedPlugin, Plugin, ValType
from plugwasm._host.kernel import INPUT_OFFSET
from tests.support.guests import export, guest, manifest, number
from tests.support.http_server import Server, reply
from tests.support.kernel_rig import GRANULE, PAGE, Rig

KINDS = pytest.mark.parametrize("kind", [Plugin, IsolatedPlugin])
VALUE = "hello, who has config values?"
LOCALS = "(local $k i64) (local $v i64) (local $q i64) (local $i i64)"
SCRIBBLE = """
    (local.set $q (call $alloc (i64.const 8)))
    (call $store_u64 (local.get $q) (i64.const 0x5858585858585858))"""
"""A kit allocates again, where the answer must not be."""

ANSWERS = guest(
    export("length_of_a_setting", "(local.set $k <<greeting>>) (local.set $v (call $config_get (local.get $k))) (call $free (local.get $k)) (call $answer (call $length (local.get $v)))", LOCALS)
    + export("setting", f"(local.set $k <<greeting>>) (local.set $v (call $config_get (local.get $k))) (call $free (local.get $k)) {SCRIBBLE} (call $give (local.get $v))", LOCALS)
    + export("set", "(local.set $k <<greeting>>) (local.set $v (call $copy)) (call $var_set (local.get $k) (local.get $v)) (call $free (local.get $k)) (call $free (local.get $v))", LOCALS)
    + export("var", f"(local.set $k <<greeting>>) (local.set $v (call $var_get (local.get $k))) (call $free (local.get $k)) {SCRIBBLE} (call $give (local.get $v))", LOCALS)
    + export("same_twice", "(local.set $k <<greeting>>) (call $var_set (local.get $k) (local.get $k)) (call $free (local.get $k)) (call $give (call $var_get <<greeting>>))", LOCALS)
    + export("log", f"(local.set $v <<kept>>) (local.set $k <<said>>) (call $log_warn (local.get $k)) (local.set $i (call $alloc (i64.const 4))) (call $free (local.get $k)) {SCRIBBLE} (call $answer (i64.sub (local.get $q) (local.get $i)))", LOCALS)
    + export("length_afterwards", "(local.set $k <<greeting>>) (drop (call $config_get (local.get $k))) (call $answer (call $length (local.get $k)))", LOCALS)
    + export("used_again", "(local.set $k <<greeting>>) (drop (call $config_get (local.get $k))) (drop (call $config_get (local.get $k)))", LOCALS)
    + export("freed_much_later", f"""
        (local.set $k <<greeting>>) (drop (call $config_get (local.get $k)))
        (loop $next
          (call $log_trace <<a line of a log>>) (drop (call $alloc (i64.const 8)))
          (br_if $next (i64.lt_u (local.tee $i (i64.add (local.get $i) (i64.const 1))) (i64.const 1000))))
        (local.set $v (call $alloc (i64.const 8))) (call $store_u64 (local.get $v) (i64.const 0x4142434445464748))
        (call $free (local.get $k)) {SCRIBBLE} (call $give (local.get $v))""", LOCALS)
)  # fmt: skip


@KINDS
def test_config_key_freed_again(kind: type[Plugin]) -> None:
    """Freeing a key again does not free the value."""
    with kind(ANSWERS, config={"greeting": VALUE}) as plugin:
        assert number(plugin.call("length_of_a_setting")) == len(VALUE)
        assert plugin.call("setting", returns=str) == VALUE


@KINDS
def test_var_key_freed_again(kind: type[Plugin]) -> None:
    """Freeing a key again does not free the var."""
    with kind(ANSWERS) as plugin:
        plugin.call("set", "short")
        assert plugin.call("var") == b"short"
        plugin.call("set", b"x" * 5000)
        assert plugin.call("var") == b"x" * 5000


@KINDS
def test_one_block_may_be_given_twice(kind: type[Plugin]) -> None:
    with kind(ANSWERS) as plugin:
        assert plugin.call("same_twice") == b"greeting"


@KINDS
def test_log_line_freed_again(kind: type[Plugin]) -> None:
    """Freeing a line again does not free a block allocated since."""
    with kind(ANSWERS) as plugin:
        assert number(plugin.call("log")) != 0, "two live blocks are at two places"


@KINDS
def test_taken_handle_is_no_block(kind: type[Plugin]) -> None:
    """A handle passed to the host is no block any more."""
    with kind(ANSWERS) as plugin:
        assert number(plugin.call("length_afterwards")) == 0
        with pytest.raises(plugwasm.BadHandleError, match="config_get"):
            plugin.call("used_again")


@KINDS
def test_taken_handle_freed_during_call(kind: type[Plugin]) -> None:
    """A handle may be freed again as long as the call lasts."""
    with kind(ANSWERS, limits=plugwasm.Limits(log_lines_per_second=None)) as plugin:
        assert plugin.call("freed_much_later") == b"HGFEDCBA"


HTTP = guest(
    export("freed_request", f"""
        (local.set $k (call $copy)) (local.set $v (call $http_request (local.get $k) (i64.const 0)))
        (call $free (local.get $k)) {SCRIBBLE} (call $output_set (local.get $v) (i64.const 5))""", LOCALS)
    + export("logged_before_it_is_read", """
        (local.set $k (call $copy)) (local.set $q <<a body>>) (local.set $v (call $http_request (local.get $k) (local.get $q)))
        (call $free (local.get $k)) (call $free (local.get $q)) (call $log_info <<a line>>) (call $give (local.get $v))""", LOCALS)
    + export("same_twice", "(local.set $k (call $copy)) (call $give (call $http_request (local.get $k) (local.get $k)))", LOCALS)
)  # fmt: skip


@KINDS
def test_http_blocks_freed_again(kind: type[Plugin]) -> None:
    """Freeing a request and a body again does not free the response."""
    policy = Egress(schemes=["http"], ports=None, private_addresses=["127.0.0.0/8"])
    with (
        Server(reply(b"an answer")) as server,
        kind(manifest(HTTP, allowed_hosts=["127.0.0.1"]), egress=policy) as plugin,
    ):
        ask = json.dumps({"url": server.url, "method": "POST"})
        assert plugin.call("freed_request", ask) == b"an an"
        assert plugin.call("logged_before_it_is_read", ask) == b"an answer"
        assert plugin.call("same_twice", ask) == b"an answer"
        assert [request.body for request in server.requests] == [b"", b"a body", ask.encode()]


ASKS = guest(
    export("ask", f"(local.set $k (call $copy)) (local.set $v (call $ask (local.get $k))) (call $free (local.get $k)) {SCRIBBLE} (call $give (local.get $v))", LOCALS),
    '(import "extism:host/user" "ask" (func $ask (param i64) (result i64)))',
)  # fmt: skip


@KINDS
def test_custom_function_block_freed_again(kind: type[Plugin]) -> None:
    """Blocks freed by the application's functions may be freed again as well."""

    def ask(plugin: CurrentPlugin, args: list[Any], results: list[Any]) -> None:
        asked = plugin.memory_at_offset(args[0])
        said = plugin.input_bytes(args[0])
        plugin.free(asked)
        plugin.return_bytes(results[0], said.upper())

    function = plugwasm.Function(None, "ask", [ValType.I64], [ValType.I64], ask)
    with kind(ASKS, functions=[function]) as plugin:
        assert plugin.call("ask", "what?") == b"WHAT?"


# ---- what is kept of it takes next to nothing ----------------------------------------------------


def test_kept_starts_are_bounded() -> None:
    """Of taken blocks, only the starts are kept, and at most a thousand."""
    rig = Rig(4)
    for _ in range(100_000):
        rig.kernel.free(rig.alloc(40_000))
    assert rig.taken() == 1024
    assert rig.memory_bytes() == 2 * PAGE, "nothing grew"


def test_logging_loop_keeps_memory_flat(caplog: pytest.LogCaptureFixture) -> None:
    """A loop of log calls does not grow the memory."""
    caplog.set_level(logging.CRITICAL)
    source = guest(
        export("log", """
            (loop $next (call $log_trace <<a line of a log that has more than thirty-two bytes>>)
              (br_if $next (i64.lt_u (local.tee $i (i64.add (local.get $i) (i64.const 1))) (i64.const 20000))))
            (call $answer (call $memory_bytes))""", LOCALS)
    )  # fmt: skip
    with Plugin(source) as plugin:
        assert number(plugin.call("log")) == 2 * PAGE


def test_growth_frees_older_blocks() -> None:
    """Before the memory grows, all but the last few taken blocks are freed."""
    rig = Rig(1000)
    first = rig.alloc(1)
    for _ in range(3000):  # each leaves a hole that is a granule too small for the next
        one, two = rig.alloc(20_000), rig.alloc(20_000)
        rig.kernel.free(one)
        rig.kernel.free(two)
    assert rig.memory_bytes() <= 4 * PAGE
    rig.free(first)


def test_refused_growth_frees_all() -> None:
    """If growth is refused, all taken blocks are freed."""
    rig = Rig(2)
    room = 2 * PAGE - INPUT_OFFSET
    for _ in range(3):
        block = rig.alloc(room)
        assert block == INPUT_OFFSET
        rig.kernel.free(block)
        assert rig.taken() == 1
    assert rig.alloc(room + 1) == 0
    assert (rig.taken(), rig.failure()[-1]) == (0, room + 1)


def test_taken_block_keeps_its_place() -> None:
    """A taken block keeps its place until it is released."""
    rig = Rig()
    taken = rig.alloc(10 * GRANULE)
    rig.kernel.free(taken)
    assert rig.alloc(10 * GRANULE) == taken + GRANULE
    for _ in range(1024):
        rig.kernel.free(rig.alloc(1))
    assert rig.alloc(1) == taken, "1,024 others were taken since"
