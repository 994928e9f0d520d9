"""Closing and resetting plugins, also during calls."""

from __future__ import annotations

import gc
import time
import weakref
from typing import Any

import pytest

import plugwasm
from plugwasm import CancelledError, ClosedError, Plugin
from tests.support.guests import LOOP, export, guest, manifest, number
from tests.support.host_calls import make_calling_plugin
from tests.support.threads import InThread
from tests.support.waiting import soon

ECHO = guest(export("echo", "(call $echo)"))
COUNTER = guest(
    "(global $count (mut i64) (i64.const 0))"
    + export(
        "count",
        "(global.set $count (i64.add (global.get $count) (i64.const 1))) (call $answer (global.get $count))",
    )
)
SPIN = guest(export("spin", LOOP) + export("echo", "(call $echo)"))


@pytest.mark.parametrize("used", [False, True])
def test_a_closed_plugin_says_so(used: bool) -> None:
    plugin = Plugin(ECHO)
    if used:
        plugin.call("echo")
    plugin.close()
    plugin.close()
    for name in ("echo", "none"):
        with pytest.raises(ClosedError, match="`plugin` was closed") as caught:
            plugin.call(name)
        assert (caught.value.plugin, caught.value.function) == ("plugin", name)
    assert "closed" in repr(plugin)
    plugin.close()


def test_close_keeps_descriptions() -> None:
    """Attributes that describe a plugin work after close."""
    plugin = Plugin(ECHO)
    known = plugin.id
    plugin.close()
    assert plugin.function_exists("echo")
    assert plugin.id == known
    assert plugin.name == "plugin"
    assert [item.name for item in plugin.exports] == ["echo"]
    assert plugin.cancel_handle().cancel() is False
    plugin.reset()
    with pytest.raises(ClosedError):
        plugin.call("echo")


def test_close_by_with_after_exception() -> None:
    """`with` closes the plugin, also when its body raises."""
    plugin = Plugin(ECHO)
    with plugin as same:
        assert same is plugin
        same.call("echo")
    with pytest.raises(ClosedError):
        plugin.call("echo")
    other = Plugin(ECHO)
    with pytest.raises(LookupError), other:
        raise LookupError
    with pytest.raises(ClosedError):
        other.call("echo")


def test_close_spares_other_plugins() -> None:
    """Closing one plugin does not affect others of its compiled plugin."""
    compiled = plugwasm.CompiledPlugin(COUNTER)
    a, b = Plugin(compiled), Plugin(compiled)
    a.call("count")
    b.call("count")
    a.close()
    assert number(b.call("count")) == 2
    assert number(Plugin(compiled).call("count")) == 1
    b.close()


def test_close_during_call() -> None:
    """Closing a plugin during a call in another thread ends the call."""
    plugin = Plugin(manifest(SPIN, timeout_ms=8000))
    plugin.call("echo")
    running = InThread(plugin.call, "spin")
    time.sleep(0.1)
    started = time.monotonic()
    plugin.close()
    with pytest.raises(CancelledError):
        running.result()
    assert time.monotonic() - started < 2
    with pytest.raises(ClosedError):
        plugin.call("echo")


def test_close_during_start() -> None:
    """Closing a plugin while it is being started ends the start."""
    plugin = Plugin(manifest(guest(export("_initialize", LOOP) + export("f", "")), timeout_ms=3000))
    running = InThread(plugin.call, "f")
    time.sleep(0.15)
    plugin.close()
    with pytest.raises(CancelledError):
        running.result()
    with pytest.raises(ClosedError):
        plugin.call("f")


def test_close_from_host_function() -> None:
    """A host function can close its plugin, which ends the call."""
    with make_calling_plugin(lambda *_: plugin.close()) as plugin:
        with pytest.raises(CancelledError):
            plugin.call("run")
        with pytest.raises(ClosedError):
            plugin.call("run")


def test_close_frees_instance_at_once() -> None:
    """Closing a plugin frees its instance without the garbage collector."""
    gc.collect()
    gc.disable()
    try:
        for end in ("close", "drop", "reset"):
            plugin = Plugin(COUNTER)
            plugin.call("count")
            instance = weakref.ref(plugin._guest)
            assert instance() is not None
            if end == "drop":
                del plugin
            else:
                getattr(plugin, end)()
            assert soon(lambda instance=instance: instance() is None), end
    finally:
        gc.enable()


def test_garbage_collection_during_calls() -> None:
    """Garbage collection during calls is harmless."""

    def back(*_: Any) -> None:
        for _ in range(3):
            Plugin(ECHO).call("echo", b"x")
        gc.collect()

    with make_calling_plugin(back) as plugin:
        for _ in range(3):
            assert plugin.call("run") == b""


def test_dropped_plugin_lives_until_call_end() -> None:
    """A plugin without references lives until its call ends."""

    def back(*_: Any) -> None:
        gc.collect()

    assert make_calling_plugin(back).call("run") == b""


# Reset


def test_reset_makes_everything_new() -> None:
    source = guest(
        "(global $n (mut i64) (i64.const 0)) (global $starts (mut i64) (i64.const 0))"
        + export("_initialize", "(global.set $starts (i64.add (global.get $starts) (i64.const 1)))")
        + export("set", "(call $var_set <<k>> <<v>>) (global.set $n (i64.const 5))")
        + export("get", "(call $give (call $var_get <<k>>))")
        + export("n", "(call $answer (global.get $n))")
    )
    with Plugin(source, config={"a": "b"}) as plugin:
        plugin.reset()
        plugin.call("set")
        assert (plugin.call("get"), number(plugin.call("n"))) == (b"v", 5)
        plugin.reset()
        assert (plugin.call("get"), number(plugin.call("n"))) == (b"", 0)
        assert plugin.config == {"a": "b"}
