"""Programs search for words in the official hosts' messages: "timeout" for a deadline and
"cancelled" for a cancellation."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

import plugwasm
from plugwasm import (
    CancelledError,
    Egress,
    IsolatedPlugin,
    Plugin,
    PluginPool,
    PluginSet,
    PoolTimeoutError,
    ProcessLimits,
    TimeoutError,
)
from tests.support.guests import LOOP, export, guest, manifest
from tests.support.http_server import Server, silence

KINDS = pytest.mark.parametrize("kind", [Plugin, IsolatedPlugin])
WAIT = '(import "extism:host/user" "wait" (func $wait))'
SLEEP = '(import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))'
WAYS = {
    "a loop": LOOP,
    "a host function": f"(call $wait) {LOOP}",
    "a request": "(drop (call $http_request (call $copy) (i64.const 0)))",
    "a sleep": """(i32.store8 (i32.const 8) (i32.const 0)) (i32.store (i32.const 16) (i32.const 1))
        (i64.store (i32.const 24) (i64.const 60000000000)) (drop (call $poll (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128)))""",
}
SOURCE = guest(
    "".join(export(name, code) for name, code in WAYS.items()),
    WAIT,
    SLEEP,
    memory='(memory (export "memory") 1)',
)
SLOW_START = guest(export("_initialize", LOOP) + export("f", ""))
EGRESS = Egress(schemes=["http"], ports=None, private_addresses=["127.0.0.0/8"])


def wait() -> None:
    time.sleep(0.3)


def options(**fields: Any) -> dict[str, Any]:
    function = plugwasm._host.functions.infer_function(None, "wait", wait)
    return {
        "plugin": manifest(SOURCE, allowed_hosts=["127.0.0.1"], **fields),
        "wasi": True,
        "functions": [function],
        "egress": EGRESS,
    }


@KINDS
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("who", ["the manifest", "the application"])
def test_a_deadline_in(kind: Any, way: str, who: str) -> None:
    fields = (
        options(timeout_ms=100)
        if who == "the manifest"
        else {**options(), "limits": plugwasm.Limits(timeout=0.1)}
    )
    with Server(silence) as server, kind(**fields) as plugin, pytest.raises(TimeoutError) as caught:
        plugin.call(way, f'{{"url": "{server.url}"}}')
    assert "timeout" in str(caught.value)
    assert f"`{way}` of plugin `plugin` did not end before its deadline of 100 ms" in str(
        caught.value
    )


@KINDS
@pytest.mark.parametrize("way", WAYS)
def test_a_cancel_in(kind: Any, way: str) -> None:
    with Server(silence) as server, kind(**options()) as plugin:
        handle = plugin.cancel_handle()
        ended = threading.Event()

        def cancel() -> None:
            while not ended.wait(0.05):
                handle.cancel()

        thread = threading.Thread(target=cancel)
        thread.start()
        try:
            with pytest.raises(CancelledError, match="cancelled"):
                plugin.call(way, f'{{"url": "{server.url}"}}')
        finally:
            ended.set()
            thread.join()


@KINDS
def test_a_deadline_at_the_start(kind: Any) -> None:
    with (
        kind(manifest(SLOW_START, timeout_ms=100)) as plugin,
        pytest.raises(TimeoutError, match="timeout"),
    ):
        plugin.call("f")


def test_a_deadline_in_a_pool() -> None:
    """A deadline in a pool and a wait for a plugin of it have the official word in their
    messages."""
    with PluginPool(**options(timeout_ms=100), size=1, wait=0.05) as pool:
        with pytest.raises(TimeoutError, match="timeout"):
            pool.call("a loop")
        with pool.plugin(), pytest.raises(PoolTimeoutError, match="timeout"):
            pool.call("a loop")


def test_a_deadline_in_a_set() -> None:
    """A deadline in a plugin set has the official word in its message."""
    spins = manifest(guest(export("spin", LOOP)), timeout_ms=100)
    with PluginSet({"a": spins}) as plugins, pytest.raises(TimeoutError, match="timeout"):
        plugins.call("a", "spin")


@KINDS
def test_a_deadline_that_a_task_awaits(kind: Any) -> None:
    async def main() -> None:
        with (
            kind(**options(timeout_ms=100)) as plugin,
            pytest.raises(TimeoutError, match="timeout"),
        ):
            await plugin.call_async("a loop")

    asyncio.run(main())


def test_an_output_not_read_in_time() -> None:
    """The error for an output that is not decoded by the deadline has the official word."""

    class Slow:
        def encode(self, value: Any) -> bytes:
            return b"[1]"

        def decode(self, data: bytes, type: Any) -> Any:
            time.sleep(0.3)
            return [1]

    source = guest(export("echo", "(call $echo)"))
    with (
        Plugin(manifest(source, timeout_ms=250)) as plugin,
        pytest.raises(TimeoutError, match=r"\(timeout\): its output was not read"),
    ):
        plugin.call("echo", 1, returns=list[int], codec=Slow())


def test_processor_time_that_is_used_up() -> None:
    with (
        IsolatedPlugin(**options(), process=ProcessLimits(cpu_seconds=0.1)) as plugin,
        pytest.raises(TimeoutError, match="timeout"),
    ):
        plugin.call("a loop")


def test_a_query_for_the_time_left() -> None:
    """The error for a host function that asks for the remaining time too late has the official
    word."""
    said: list[str] = []

    def look(plugin: plugwasm.CurrentPlugin) -> None:
        time.sleep(0.1)
        try:
            plugin.time_remaining()
        except TimeoutError as error:
            said.append(str(error))

    function = plugwasm._host.functions.infer_function(None, "look", look)
    source = guest(
        export("look", "(call $look)"), '(import "extism:host/user" "look" (func $look))'
    )
    with (
        Plugin(manifest(source, timeout_ms=50), functions=[function]) as plugin,
        pytest.raises(TimeoutError),
    ):
        plugin.call("look")
    (message,) = said
    assert "timeout" in message
