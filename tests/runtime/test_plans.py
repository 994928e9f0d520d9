"""Plugins that were made separately of the same module share what was linked, and nothing else."""

from __future__ import annotations

import gc
import threading
import weakref

import pytest

import plugwasm
from plugwasm import CompiledPlugin, Limits, Plugin, host_fn
from plugwasm._engine import can_pool
from plugwasm._runtime import modules
from plugwasm._runtime.compiled_plugin import POOL_AFTER
from tests.support.paths import EXAMPLES

COUNTER = b"""(module
  (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
  (import "extism:host/env" "store_u8" (func $store_u8 (param i64 i32)))
  (import "extism:host/env" "output_set" (func $output_set (param i64 i64)))
  (global $count (mut i32) (i32.const 0))
  (func (export "count") (result i32) (local $block i64)
    (global.set $count (i32.add (global.get $count) (i32.const 1)))
    (local.set $block (call $alloc (i64.const 1)))
    (call $store_u8 (local.get $block) (i32.add (i32.const 48) (global.get $count)))
    (call $output_set (local.get $block) (i64.const 1))
    (i32.const 0))
  (func (export "trap") (result i32) unreachable))"""
ECHO = (EXAMPLES / "echo.wasm").read_bytes()


@pytest.fixture(autouse=True)
def fresh(nothing_compiled: None, own_registry: None) -> None:
    """Let no other test have made a plan, or registered a function."""


def made(wasm: bytes = COUNTER, **settings: object) -> CompiledPlugin:
    return CompiledPlugin(wasm, **{"functions": [], **settings})  # type: ignore[arg-type]


def test_equal_plugins_share_a_plan() -> None:
    """Plugins of equal bytes and settings share the plan, also if the first is closed."""
    first = made()
    assert made(bytes(bytearray(COUNTER)))._plan is first._plan
    plan = weakref.ref(first._plan)
    del first
    assert plan() is not None
    assert made()._plan is plan()


@pytest.mark.parametrize(
    "settings",
    [
        {"limits": Limits(timeout=7)},
        {"limits": Limits(memory_bytes=2**21)},
        {"wasi": True},
        {"name": "another"},
        {"fuel_limit": 1000},
        {"functions": [host_fn(register=False)(lambda: None)]},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_other_settings_other_plan(settings: dict[str, object]) -> None:
    """Plugins with any other setting have a plan of their own."""
    assert made(**settings)._plan is not made()._plan
    assert made(wasm=COUNTER.replace(b"48", b"49"))._plan is not made()._plan


def test_state_is_not_shared() -> None:
    """Instances, config and vars of plugins that share a plan are their own."""
    with Plugin(COUNTER) as one, Plugin(COUNTER) as two:
        assert one.compiled_plugin._plan is two.compiled_plugin._plan
        assert [one.call("count"), one.call("count"), two.call("count")] == [b"1", b"2", b"1"]
    vowels = (EXAMPLES / "count_vowels.wasm").read_bytes()
    with Plugin(vowels, config={"vowels": "e"}) as one, Plugin(vowels) as two:
        counts = [p.call("count_vowels", "eaeae", returns=dict)["count"] for p in (one, two, one)]
        assert counts == [3, 5, 3]
        assert one.vars != two.vars


def test_a_trap_leaves_the_plan_usable() -> None:
    """After one plugin trapped, others that share its plan start and run as before."""
    with Plugin(COUNTER) as one, Plugin(COUNTER) as two:
        for _ in range(3):
            with pytest.raises(plugwasm.TrapError):
                one.call("trap")
            assert two.call("count")
            assert one.call("count") == b"1"


def test_a_failed_start_names_its_plugin() -> None:
    """An error names the plugin that failed, not the one that made the plan."""
    wat = b'(module (func $f unreachable) (start $f) (func (export "f")))'
    for name in ("one", "two", "one"):
        with Plugin(wat, name=name) as plugin:
            for _ in range(2):
                with pytest.raises(plugwasm.TrapError, match=f"`{name}`"):
                    plugin.call("f")


def test_functions_are_not_kept_alive() -> None:
    """Functions of the application are freed with their plugin."""

    def held(value: int) -> int:
        return value

    alive = weakref.ref(held)
    with Plugin(ECHO, functions=[host_fn("f", register=False)(held)]) as plugin:
        assert plugin.call("echo", b"x") == b"x"
    del held, plugin
    gc.collect()
    assert alive() is None


@pytest.mark.parametrize("how", ["dropped", "too large", "pushed out"])
def test_plan_lives_as_long_as_module(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan that no plugin uses is kept with its module, and dropped with it."""
    if how == "too large":
        monkeypatch.setattr(modules, "KEPT_BYTES", 10)
    with Plugin(ECHO) as plugin:
        plugin.call("echo", b"x")
        plan = weakref.ref(plugin.compiled_plugin._plan)
    del plugin
    gc.collect()
    assert (plan() is None) == (how == "too large")
    if how == "dropped":
        modules.drop_unused()
    elif how == "pushed out":
        for number in range(modules.KEPT_MODULES):
            made(COUNTER.replace(b"48", b"%d" % number))
    gc.collect()
    assert plan() is None


def test_limits_of_code_hold_for_each() -> None:
    """A plugin whose limits do not allow the code is refused, though the process has it."""
    made(ECHO)
    for _ in range(2):
        with pytest.raises(plugwasm.ModuleError, match="code_bytes"):
            made(ECHO, limits=Limits(code_bytes=1000))


def test_module_compiled_anew_has_its_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan is found only for the very module that it was made of."""
    first = made()
    modules._seen.clear()
    second = made()
    assert second._plan.main.module is not first._plan.main.module
    assert second._plan is not first._plan
    assert made()._plan is second._plan


def test_threads_that_share_a_plan() -> None:
    """Threads that make, call and drop equal plugins at once get their own answers."""
    wrong: list[object] = []

    def run(number: int) -> None:
        for turn in range(30):
            data = b"%d-%d" % (number, turn)
            with Plugin(ECHO) as plugin:
                if plugin.call("echo", data) != data:
                    wrong.append(data)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_plugins_made_one_by_one_pool() -> None:
    """Instances come from the pool after a few starts, also if each is of a plugin of its own."""
    pooled = []
    for number in range(POOL_AFTER + 2):
        with Plugin(ECHO) as plugin:
            assert plugin.call("echo", b"%d" % number) == b"%d" % number
            pooled.append(plugin.compiled_plugin._pooled_plan)
    if not can_pool():
        pytest.skip("this process may not reserve what a pool needs")
    first, second = pooled[-2:]
    assert first is second is not None
    assert pooled[: POOL_AFTER - 1] == [None] * (POOL_AFTER - 1)
