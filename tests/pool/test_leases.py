"""The state that a pool's caller may leave behind, and the state that the next caller finds."""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from plugwasm import (
    ClosedError,
    CompiledPlugin,
    CurrentPlugin,
    IsolatedPlugin,
    Limits,
    Plugin,
    PluginPool,
    SeededRandom,
    TrapError,
    WasiOptions,
    debugging,
    host_fn,
)
from tests.support.guests import LOOP, export, guest
from tests.support.threads import InThread
from tests.support.waiting import soon

KEEPS = guest(
    "(global $calls (mut i64) (i64.const 0))"
    + export("setting", "(call $give (call $config_get <<who>>))")
    + export("put", "(call $var_set <<who>> (call $copy))")
    + export("get", "(call $give (call $var_get <<who>>))")
    + export(
        "count",
        "(global.set $calls (i64.add (global.get $calls) (i64.const 1))) (call $answer (global.get $calls))",
    )
    + export("spin", LOOP)
    + export("trap", "(unreachable)")
    + export("echo", "(call $echo)")
)


def make_by_factory(kind: Callable[..., Plugin], **options: Any) -> Callable[..., PluginPool]:
    return lambda **pool: PluginPool(
        factory=lambda: kind(KEEPS, config={"who": "all"}, **options), size=1, **pool
    )


def make_by_pool(**pool: Any) -> PluginPool:
    return PluginPool(KEEPS, config={"who": "all"}, size=1, **pool)


POOLS = {
    "plugin": make_by_pool,
    "factory": make_by_factory(Plugin),
    "isolated": make_by_factory(IsolatedPlugin),
}
pools = pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS.keys())
is_fresh = pytest.mark.parametrize("fresh", [True, False])


@pools
@is_fresh
def test_settings_are_not_read_by_next(pool: Callable[..., PluginPool], fresh: bool) -> None:
    """A setting of one caller is not seen by the next."""
    with pool(fresh=fresh) as made:
        with made.plugin() as plugin:
            plugin.call("echo")
            plugin.update_config({"who": "a secret of A", "more": "x"})
            assert plugin.call("setting") == b"a secret of A"
        assert made.call("setting") == b"all"
        with made.plugin() as plugin:
            assert plugin.config == {"who": "all"}
            plugin.update_config({"who": None})
            assert plugin.call("setting") == b""
        assert made.call("setting") == b"all"


@pools
def test_fresh_pool_keeps_no_state(pool: Callable[..., PluginPool]) -> None:
    """A fresh pool keeps neither memory nor vars."""
    with pool(fresh=True) as made:
        with made.plugin() as plugin:
            plugin.call("put", "of A")
            plugin.call("count")
            assert plugin.call("get") == b"of A"
        with made.plugin() as plugin:
            assert plugin.vars == {}
            assert plugin.call("get") == b""
            assert int.from_bytes(plugin.call("count"), "little") == 1


@pools
@is_fresh
def test_kept_handle_cannot_cancel_next(pool: Callable[..., PluginPool], fresh: bool) -> None:
    """A cancel handle that a caller kept cannot cancel the next caller's call."""
    with pool(fresh=fresh) as made:
        with made.plugin() as plugin:
            plugin.call("echo")
            of_a = plugin.cancel_handle()
        with made.plugin() as plugin:
            plugin.call("echo")
            of_b = plugin.cancel_handle()
            call = InThread(lambda: plugin.call("spin"))
            for _ in range(20):
                assert of_a.cancel() is False
                time.sleep(0.01)  # in most of them the call runs
            assert soon(of_b.cancel)
            with pytest.raises(Exception, match="cancelled"):
                call.result()


def test_handle_works_during_lease() -> None:
    """A cancel handle works as long as its lease."""
    with make_by_factory(Plugin)(fresh=True) as made, made.plugin() as plugin:
        handle = plugin.cancel_handle()
        call = InThread(lambda: plugin.call("spin"))
        assert soon(handle.cancel)
        with pytest.raises(Exception, match="cancelled"):
            call.result()
        plugin.reset()  # which the caller does, and the pool does not know of
        call = InThread(lambda: plugin.call("spin"))
        assert soon(handle.cancel)
        with pytest.raises(Exception, match="cancelled"):
            call.result()


@is_fresh
def test_dumps_hold_nothing_of_next(tmp_path: Path, fresh: bool) -> None:
    """Dumps of one caller contain nothing of the next."""
    with make_by_factory(Plugin)(fresh=fresh) as made:
        with made.plugin() as plugin:
            of_a = debugging.dump_on_trap(plugin, tmp_path / "a")
        with pytest.raises(TrapError):
            made.call("trap")
        assert of_a.dumps == []
        with made.plugin() as plugin, debugging.dump_on_trap(plugin, tmp_path / "b") as of_b:
            of_a.close()
            with pytest.raises(TrapError):
                plugin.call("trap")
            assert len(of_b.dumps) == 1


def test_factory_dumps_for_all_callers(tmp_path: Path) -> None:
    """Dumps that the factory sets up are written for all callers."""
    dumpers = []

    def make() -> Plugin:
        plugin = Plugin(KEEPS)
        dumpers.append(debugging.dump_on_trap(plugin, tmp_path))
        return plugin

    with PluginPool(factory=make, size=1, fresh=True) as made:
        for _ in range(2):
            with pytest.raises(TrapError):
                made.call("trap")
        assert len(dumpers[0].dumps) == 2


def test_profile_has_nothing_of_next() -> None:
    """A profile of one caller contains nothing of the next."""
    wasm = guest(export("spin", LOOP) + export("other", LOOP))
    with PluginPool(factory=lambda: Plugin(wasm, limits=Limits(timeout=0.2)), size=1) as made:
        with made.plugin() as plugin:
            profile = debugging.profile(plugin, interval=0.005)
            profile.__enter__()
            with pytest.raises(Exception, match="deadline"):
                plugin.call("spin")
        with pytest.raises(Exception, match="deadline"):
            made.call("other")
        profile.__exit__(None, None, None)
        names = {function.function for function in profile.functions}
        assert any("spin" in name for name in names)
        assert not any("other" in name for name in names)


@pytest.mark.parametrize("kind", [Plugin, IsolatedPlugin])
def test_factory_settings_stay(kind: type[Plugin]) -> None:
    """Settings that the factory made are kept."""

    def make() -> Plugin:
        plugin = kind(KEEPS)
        plugin.update_config({"who": "the factory"})
        return plugin

    with PluginPool(factory=make, size=1, fresh=True) as made:
        with made.plugin() as plugin:
            plugin.update_config({"who": "A"})
        assert made.call("setting") == b"the factory"


def test_fresh_plugin_hides_last_fuel() -> None:
    """A fresh plugin does not report the fuel of the previous call."""
    with make_by_factory(Plugin, fuel_limit=100_000)(fresh=True) as made:
        with made.plugin() as plugin:
            plugin.call("echo")
            assert plugin.fuel_used
        with made.plugin() as plugin:
            assert plugin.fuel_used is None


def test_view_ends_with_lease() -> None:
    """A view of one caller is released with its lease."""
    for fresh in (True, False):
        with make_by_factory(Plugin)(fresh=fresh) as made:
            with made.plugin() as plugin:
                view = plugin.call("echo", b"of A", parse=None)
                assert bytes(view) == b"of A"
            made.call("echo", b"of B")
            with pytest.raises(ValueError, match="released"):
                bytes(view)


@pytest.mark.parametrize("kind", [Plugin, IsolatedPlugin])
def test_state_is_not_carried_over(kind: type[Plugin], caplog: pytest.LogCaptureFixture) -> None:
    """The host context, random bytes and half a line of stdout are not carried over."""
    wasm = """(module
      (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
      (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
      (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
      (import "extism:host/env" "store_u64" (func $store (param i64 i64)))
      (import "extism:host/env" "output_set" (func $output (param i64 i64)))
      (import "extism:host/user" "context" (func $context))
      (memory (export "memory") 1)
      (data (i32.const 64) "half a line")
      (func (export "random") (local $b i64)
        (drop (call $random (i32.const 0) (i32.const 8)))
        (local.set $b (call $alloc (i64.const 8)))
        (call $store (local.get $b) (i64.load (i32.const 0)))
        (call $output (local.get $b) (i64.const 8)))
      (func (export "say")
        (i32.store (i32.const 32) (i32.const 64)) (i32.store (i32.const 36) (i32.const 11))
        (drop (call $write (i32.const 1) (i32.const 32) (i32.const 1) (i32.const 40))))
      (func (export "context") (call $context)))"""
    seen: list[object] = []

    def context(plugin: CurrentPlugin) -> None:
        seen.append(plugin.host_context())

    def make() -> Plugin:
        return kind(
            wasm, WasiOptions(random=SeededRandom(1)), functions=[host_fn(name="context")(context)]
        )

    caplog.set_level(logging.INFO, "plugwasm.plugin")
    with PluginPool(factory=make, size=1, fresh=True) as made:
        first = made.call("random")
        assert made.call("random") == first
        made.call("context", host_context="of A")
        made.call("context")
        assert seen == ["of A", None]
        made.call("say")
        made.call("say")
        assert [record.getMessage() for record in caplog.records] == ["half a line", "half a line"]


def test_http_response_gone_in_fresh_plugin() -> None:
    """A fresh plugin does not see an earlier HTTP response."""
    from plugwasm import Egress, EgressResponse

    class Server:
        def send(self, request: Any) -> EgressResponse:
            return EgressResponse(201, [("x-secret", "of A")], [b""])

    wasm = guest(
        export("ask", "(drop (call $http_request (call $copy) (i64.const 0)))")
        + export("status", "(call $answer (i64.extend_i32_u (call $http_status_code)))")
        + export("headers", "(call $give (call $http_headers))")
    )
    from tests.support.guests import manifest

    compiled = CompiledPlugin(
        manifest(wasm, allowed_hosts=["example.com"]),
        egress=Egress(transport=Server(), resolve=False),
        http_response_headers=True,
    )
    document = json.dumps({"url": "https://example.com/"})
    for factory in (lambda: Plugin(compiled), lambda: IsolatedPlugin(compiled)):
        with PluginPool(factory=factory, size=1, fresh=True) as made:
            with made.plugin() as plugin:
                plugin.call("ask", document)
                assert plugin.call("status")[0] == 201
                assert b"of A" in plugin.call("headers")
            assert made.call("status") == bytes(8)
            assert made.call("headers") == b""


def test_threads_read_own_settings() -> None:
    """Callers in many threads see only their own settings."""
    wrong: list[bytes] = []
    with make_by_factory(Plugin)() as made:

        def work(number: int) -> None:
            for _ in range(50):
                with made.plugin() as plugin:
                    if (found := plugin.call("setting")) != b"all":
                        wrong.append(found)
                    plugin.update_config({"who": str(number)})
                    if plugin.call("setting") != str(number).encode():
                        wrong.append(b"not its own")

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


@pools
@is_fresh
def test_late_settings_do_not_reach_next(pool: Callable[..., PluginPool], fresh: bool) -> None:
    """A caller that keeps a plugin after its lease cannot change it for the next."""
    with pool(fresh=fresh) as made:
        with made.plugin() as kept:
            kept.call("echo")
        kept.update_config({"who": "me"})
        assert made.call("setting") == b"all"
        if fresh:
            with contextlib.suppress(
                ClosedError
            ):  # a plugin that the pool makes itself is closed after its lease
                kept.call("put", "mine")
            assert made.call("get") == b""


def test_dropped_lease_returns_plugin() -> None:
    """A lease that is dropped without being closed returns its plugin."""
    with make_by_pool(wait=5) as made:
        for enter in (
            lambda: made.plugin().__enter__(),
            lambda: contextlib.ExitStack().enter_context(made.plugin()),
        ):
            enter()
            gc.collect()
            assert made.call("echo", "x") == b"x"
            assert made.stats.busy == 0
