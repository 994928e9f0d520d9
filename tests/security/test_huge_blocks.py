"""Blocks and lists as large as a guest can make them cost the host and its other threads no
time."""

from __future__ import annotations

import threading
import time

import pytest

import plugwasm
from plugwasm import Plugin
from tests.support.guests import export, guest, manifest

HUGE = guest(
    "(func $huge (result i64) (local $b i64) (local.set $b (call $alloc (i64.const 800000000)))"
    " (call $store_u8 (local.get $b) (i32.const 255)) (local.get $b))"
    + export("config", "(drop (call $config_get (call $huge)))")
    + export("var", "(drop (call $var_get (call $huge)))")
    + export("var_set", "(call $var_set <<v>> (call $huge))")
    + export("var_name", "(call $var_set (call $huge) <<v>>)")
    + export("log", "(call $log_error (call $huge))")
    + export("error", "(call $error_set (call $huge))")
    + export("document", "(drop (call $http_request (call $huge) (i64.const 0)))")
    + export("body", '(drop (call $http_request <<{"url": "http://a.test/"}>> (call $huge)))')
    + export("ok", "(call $echo)")
)


@pytest.mark.parametrize(
    "function", ["config", "var", "var_set", "var_name", "log", "error", "document", "body"]
)
def test_gigabyte_block_is_cheap(function: str) -> None:
    """A block of nearly a gigabyte costs the host and its other threads nothing."""
    longest = last = time.monotonic()
    longest = 0.0
    over = threading.Event()

    def watch() -> None:
        nonlocal longest, last
        while not over.wait(0.005):
            now = time.monotonic()
            longest, last = max(longest, now - last), now

    with Plugin(manifest(HUGE, allowed_hosts=["a.test"])) as plugin:
        plugin.call("ok")
        other = threading.Thread(target=watch)
        before = time.thread_time()
        other.start()
        try:
            plugin.call(function)
        except plugwasm.Error as error:
            assert len(str(error)) < 2**21
        finally:
            over.set()
            other.join()
        assert time.thread_time() - before < 1
        assert plugin.call("ok", b"x") == b"x"
    assert longest < 1


def test_suggestion_among_many_names_is_fast() -> None:
    """Finding the closest name is fast however many names there are."""
    names = "".join(f'(export "count_vowel{number:05}" (func $f))' for number in range(20_000))
    with Plugin(f"(module (func $f) {names})") as plugin:
        before = time.thread_time()
        with pytest.raises(plugwasm.FunctionNotFoundError, match="and 19980 more"):
            plugin.call("count_vowels")
        assert time.thread_time() - before < 1
