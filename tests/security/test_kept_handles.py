"""Objects kept after their call has ended: views, handles, current plugins (`docs/security.md`,
25)."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import plugwasm
from plugwasm import (
    BadHandleError,
    BusyError,
    ClosedError,
    CurrentPlugin,
    Memory,
    Plugin,
    TrapError,
    Val,
)
from tests.support.callback_guest import compile_guest, make_plugin
from tests.support.guests import number

# 25. What is kept of a call


def test_current_plugin_after_return() -> None:
    """A current plugin is refused as soon as its own host function has returned.

    Also in the same call, when the guest calls a host function again.
    """
    kept: list[CurrentPlugin] = []
    refused: list[bool] = []

    def body(current: CurrentPlugin, value: Val, result: Val) -> None:
        for old in kept:
            with pytest.raises(ClosedError):
                old.input_bytes(value)
            with pytest.raises(ClosedError):
                old.alloc(1)
            refused.append(True)
        kept.append(current)
        assert current.input_bytes(value) == b"input"

    with make_plugin(body) as plugin:
        plugin.call("back_twice", b"input")
        plugin.call("back", b"input")
    assert len(refused) == 1 + 2


@pytest.mark.parametrize("use", ["alloc", "free", "return_bytes", "set_error"])
def test_current_plugin_in_other_thread(use: str) -> None:
    """Using a current plugin in another thread works or raises one of our errors.

    The engine knows only the stack of the thread that made the call, so operations that run guest
    code may have to be refused.
    """
    ended: list[Any] = []

    def body(current: CurrentPlugin, value: Val, result: Val) -> None:
        block = current.alloc(100)

        def attempt() -> None:
            uses: dict[str, Callable[[], object]] = {
                "alloc": lambda: current.memory(current.alloc(10))[:],
                "free": lambda: current.free(block),
                "return_bytes": lambda: current.return_bytes(result, b"of another thread"),
                "set_error": lambda: current.set_error("of another thread"),
            }
            try:
                uses[use]()
                ended.append(None)
            except BaseException as error:
                ended.append(error)

        thread = threading.Thread(target=attempt)
        thread.start()
        thread.join()

    with make_plugin(body) as plugin:
        for _ in range(3):
            try:
                plugin.call("back", b"input")
            except plugwasm.GuestError as error:
                assert (use, error.guest_message) == ("set_error", "of another thread")
            assert plugin.call("echo", b"after") == b"after"
        assert number(plugin.call("count")) == 1
    assert len(ended) == 3
    assert all(error is None or isinstance(error, plugwasm.Error) for error in ended), ended


def test_handle_of_earlier_call() -> None:
    """A handle kept from an earlier call is refused by the next call."""
    kept: list[Memory] = []

    def body(current: CurrentPlugin, value: Val, result: Val) -> None:
        if kept:
            for memory in kept:
                with pytest.raises(BadHandleError):
                    current.memory(memory)
                assert current.memory_at_offset(memory.offset).length == 0
                current.free(memory)
        else:
            kept.extend(current.alloc(size) for size in (1, 1000, 100_000))
            assert [len(current.memory(memory)) for memory in kept] == [1, 1000, 100_000]

    with make_plugin(body) as plugin:
        plugin.call("back")
        plugin.call("back")
        plugin.reset()
        plugin.call("back")


def test_handle_of_other_plugin() -> None:
    """A handle of one plugin gives no access to it through another.

    The other plugin has its own data at that offset, if anything.
    """
    memories: list[Memory] = []

    def body(current: CurrentPlugin, value: Val, result: Val) -> None:
        if current.host_context() == "first":
            memories.append(current.alloc(500_000))
            current.memory(memories[0])[:] = b"s" * 500_000
            other.call("back", host_context="second")
        else:
            with pytest.raises(BadHandleError):
                current.memory(memories[0])

    shared = compile_guest(body)
    with Plugin(shared) as first, Plugin(shared) as other:
        first.call("back", host_context="first")
    assert len(memories) == 1


def test_results_set_after_return() -> None:
    """Setting results after the host function has returned has no effect."""
    kept: list[Val] = []

    def body(current: CurrentPlugin, value: Val, result: Val) -> None:
        for old in kept:
            old.value = 12345
        kept.extend([value, result])
        result.value = value.value

    with make_plugin(body) as plugin:
        assert plugin.call("back_twice", b"input") == b"input"
        for old in kept:
            old.value = 12345
        assert plugin.call("back", b"next") == b"next"


@pytest.mark.parametrize("end", ["raises", "traps", "times out", "is cancelled", "closes"])
def test_views_released_at_call_end(end: str) -> None:
    """Views are released however the call ends."""
    views: list[memoryview] = []

    def body(current: CurrentPlugin, value: Val, result: Val) -> None:
        views.extend([current.input_buffer(value), current.memory(current.alloc(10))])
        views[1][:] = b"0123456789"
        if end == "raises":
            raise LookupError
        if end == "times out":
            time.sleep(0.06)
        if end == "is cancelled":
            plugin.cancel_handle().cancel()
        if end == "closes":
            plugin.close()

    with (
        make_plugin(body, timeout_ms=50 if end == "times out" else None) as plugin,
        pytest.raises(plugwasm.CallError),
    ):
        plugin.call("back_then_trap", b"input")
    assert len(views) == 2
    for view in views:
        with pytest.raises(ValueError, match="released"):
            view[0]


@pytest.mark.parametrize("end", ["trap", "reset", "close", "drop"])
def test_copies_of_view_after_instance(end: str) -> None:
    """Objects made from a view can be read and written after its instance is gone.

    They keep the view's memory, which nobody else gets, so new instances find zeroed memory.
    """
    kept: list[memoryview] = []

    def body(current: CurrentPlugin, value: Val, result: Val) -> None:
        kept.append(current.memory(current.alloc(200_000))[:])
        kept[0][:] = b"k" * 200_000

    shared = compile_guest(body)
    for _ in range(5):
        Plugin(shared).call("count")  # from now on from the pool
    plugin = Plugin(shared)
    plugin.call("back")
    if end == "trap":
        with pytest.raises(TrapError):
            plugin.call("trap")
    elif end == "drop":
        del plugin
    else:
        getattr(plugin, end)()
    gc.collect()
    others = [Plugin(shared) for _ in range(20)]
    for other in others:
        assert other.call("echo", b"x" * 300_000) == b"x" * 300_000
    assert kept[0] == b"k" * 200_000
    kept[0][:] = b"w" * 200_000
    for other in others:
        assert other.call("echo", b"y" * 300_000) == b"y" * 300_000
        other.close()
    assert kept[0][-1:] == b"w"


def test_output_view_released_by_next_call() -> None:
    """An output view is released however the next call ends."""
    with make_plugin(timeout_ms=50) as plugin:
        for function, ends in (
            ("trap", TrapError),
            ("spin", plugwasm.TimeoutError),
            ("echo", None),
        ):
            view = plugin.call("echo", b"abc", parse=None)
            if ends is None:
                plugin.call(function)
            else:
                with pytest.raises(ends):
                    plugin.call(function)
            with pytest.raises(ValueError, match="released"):
                view[0]


def test_busy_call_keeps_output_view() -> None:
    """A call that was refused as busy does not release the view of the previous call."""
    plugin = make_plugin()
    view = plugin.call("echo", b"abc", parse=None)

    class Enters(str):
        def encode(self, *_: Any) -> bytes:
            with pytest.raises(BusyError):
                plugin.call("echo")
            assert view == b"abc"
            return b"input"

    assert plugin.call("echo", Enters()) == b"input"
    plugin.close()
