"""Pools recycle instances between leases: by default before memory runs out, or as they are told."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Any

import pytest

from plugwasm import (
    CompiledPlugin,
    GuestError,
    IsolatedPlugin,
    Limits,
    OptionError,
    OutOfMemoryError,
    Plugin,
    PluginPool,
    PluginSet,
    Recycle,
    TrapError,
)
from plugwasm._runtime.recycling import DEFAULT_CALLS, default_for
from tests.support.event_loops import both, run_in_loop
from tests.support.paths import ROOT
from tests.support.recycling import COUNTS, PAGE, count, counts

SMALL = Limits(memory_bytes=600 * PAGE)
LEAKY = CompiledPlugin(COUNTS, limits=SMALL)


def grow(plugin: Plugin | PluginPool, calls: int) -> None:
    for _ in range(calls):
        plugin.call("grow")


def test_leaky_plugin_lives_on_by_default() -> None:
    """A plugin that leaks a page a call never runs out of memory in a pool."""
    with Plugin(LEAKY) as plugin, pytest.raises((TrapError, OutOfMemoryError)):
        grow(plugin, 600)
    with PluginPool(LEAKY, size=1) as pool:
        made = [count(pool, "grow") for _ in range(2000)]
        assert 250 <= max(made) < 400
        assert pool.stats.recycled == made.count(1) - 1 + (made[-1] == max(made))
        assert (pool.stats.made, pool.stats.replaced) == (1, 0)


def test_steady_plugin_is_kept_by_default() -> None:
    """A plugin whose memory no longer grows is kept, however much it has, and so is a small one."""
    with PluginPool(LEAKY, size=1) as pool:
        for _ in range(2):  # 400 of 600 pages
            with pytest.raises(GuestError):
                pool.call("grow_and_fail")
        assert counts(pool, 1000)[-1] == 1000
        assert pool.stats.recycled == 0


def test_default_spares_the_first_calls() -> None:
    """What grows in its first calls, such as a cache, is not replaced for that."""
    with PluginPool(LEAKY, size=1) as pool:
        for _ in range(2):  # 400 of 600 pages
            with pytest.raises(GuestError):
                pool.call("grow_and_fail")
        assert [count(pool, "grow") for _ in range(90)][-1] == 90
        assert counts(pool, DEFAULT_CALLS)[-1] == 90 + DEFAULT_CALLS


def test_default_follows_max_pages() -> None:
    """The default is half of what the memory may grow, also where `max_pages` bounds it."""
    grown = default_for(CompiledPlugin(COUNTS, limits=Limits(max_pages=10))).memory_bytes
    assert grown == (3 + 5) * PAGE
    assert default_for(CompiledPlugin(COUNTS)).memory_bytes == 2**29 + 3 * PAGE // 2
    assert default_for(CompiledPlugin(COUNTS, limits=Limits(memory_bytes=None)))


def test_none_turns_the_default_off() -> None:
    """With None the plugin runs into its limit."""
    with PluginPool(LEAKY, size=1, recycle=None) as pool:
        with pytest.raises((TrapError, OutOfMemoryError)):
            grow(pool, 600)
        assert pool.stats.recycled == 0


@pytest.mark.parametrize("kind", [None, Plugin, IsolatedPlugin])
def test_lease_keeps_its_instance(kind: Any) -> None:
    """A lease is several calls on one instance; it is replaced when the lease has ended."""
    recycle = Recycle(calls=3, memory_bytes=10 * PAGE)
    with (
        PluginPool(COUNTS, size=1, recycle=recycle)
        if kind is None
        else PluginPool(factory=lambda: kind(COUNTS, recycle=recycle), size=1)
    ) as pool:
        with pool.plugin() as plugin:
            assert counts(plugin, 7) == [1, 2, 3, 4, 5, 6, 7]
        assert pool.stats.recycled == 1
        assert counts(pool, 4) == [1, 2, 3, 1]
        assert pool.stats.recycled == 2
        with pool.plugin() as plugin:
            plugin.reset()  # its user has replaced it, so the pool need not
            assert counts(plugin, 1) == [1]
        assert pool.stats[2:] == (0, 0, 1, 0, 2)


@pytest.mark.parametrize("kind", [Plugin, IsolatedPlugin])
def test_memory_bound_without_calls(kind: type[Plugin]) -> None:
    """With a bound on memory only, leases are counted, and the bound is kept all the same."""
    recycle = Recycle(memory_bytes=50 * PAGE)
    with PluginPool(factory=lambda: kind(COUNTS, recycle=recycle), size=1) as pool:
        made = [count(pool, "grow") for _ in range(150)]
        assert max(made) == 47
        with pool.plugin() as plugin:
            assert [count(plugin, "grow") for _ in range(80)][-1] > 80 - 1
        assert counts(pool, 1) == [1]


def test_age_counts_in_the_pool() -> None:
    """An instance that grew old while nobody used it serves nobody, but none is lost in a lease."""
    with PluginPool(COUNTS, size=1, recycle=Recycle(seconds=0.1)) as pool:
        assert counts(pool, 1) == [1]
        time.sleep(0.12)
        with pool.plugin() as plugin:
            assert counts(plugin, 1) == [1]
            time.sleep(0.12)
            assert counts(plugin, 1) == [2]
        assert counts(pool, 1) == [1]
        assert pool.stats.recycled == 2


def test_map_and_tasks_are_counted() -> None:
    """Calls of `map` and of tasks count as others do."""
    with PluginPool(COUNTS, size=2, recycle=Recycle(calls=5)) as pool:
        seen = list(pool.map("count", [b""] * 200, parse=lambda out: int.from_bytes(out, "little")))
        assert max(seen) == 5
        assert pool.stats.recycled >= 200 // 5 - 2


@both
def test_async_calls_are_counted(backend: str) -> None:
    """A task's calls reach the bound, too."""

    async def main() -> list[bytes]:
        async with PluginPool(COUNTS, size=1, recycle=Recycle(calls=2)) as pool:
            return [await pool.call_async("count") for _ in range(5)]

    assert [out[0] for out in run_in_loop(backend, main)] == [1, 2, 1, 2, 1]


@pytest.mark.parametrize("isolated", [False, True])
def test_sets_recycle(isolated: bool) -> None:
    """A set recycles the instances that it keeps."""
    with PluginSet(
        {"a": COUNTS}, hooks=["count"], isolated=isolated, recycle=Recycle(calls=2)
    ) as plugins:
        assert [plugins.first("count")[0] for _ in range(5)] == [1, 2, 1, 2, 1]


def test_set_lives_on_by_default() -> None:
    """A leaky plugin of a set does not run out of memory."""
    with PluginSet({"a": COUNTS}, hooks=["grow"], limits=SMALL) as plugins:
        seen = [plugins.first("grow", stop_on_error=True) for _ in range(1000)]
    assert [0 for out in seen if out is None] == []


def test_useless_options_are_errors() -> None:
    """What would have no effect is an error that names the field."""
    one = Recycle(calls=1)
    for make in (
        lambda: PluginPool(COUNTS, fresh=True, recycle=one),
        lambda: PluginPool(factory=lambda: Plugin(COUNTS), recycle=one),
        lambda: PluginPool(COUNTS, recycle=5),  # type: ignore[arg-type]
        lambda: PluginSet([COUNTS], fresh=True, recycle=one),
        lambda: PluginSet([COUNTS], recycle="calls"),  # type: ignore[arg-type]
    ):
        with pytest.raises(OptionError) as caught:
            make()
        assert caught.value.field == "recycle"
    PluginPool(COUNTS, fresh=True, recycle=None).close()


TWICE = """
import sys
from plugwasm import PluginPool, Recycle
from tests.support.recycling import COUNTS, count
pool = PluginPool(COUNTS, size=1, wait=10, recycle=Recycle(calls=1, seconds=1000))
count(pool)
left = interrupted = 0
def profile(frame, what, argument):
    global left
    if "/plugwasm/" in frame.f_code.co_filename:
        left -= 1
        if left == 0:
            raise KeyboardInterrupt
for n in range(1, 500):
    left = n
    sys.setprofile(profile)
    try:
        count(pool)
    except KeyboardInterrupt:
        interrupted += 1
    finally:
        sys.setprofile(None)
    assert count(pool) <= 2, n
    assert pool.stats[:6] == (1, 1, 0, 0, 1, 0), (n, pool.stats)
    if left > 0:
        break
print(interrupted > 50, n < 499)
"""


def test_interrupts_cost_no_slot() -> None:
    """Wherever an interrupt raises, the slot is free again and its plugin is kept."""
    done = subprocess.run(
        [sys.executable, "-c", TWICE], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("True True\n", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_child_goes_on_counting() -> None:
    """After a fork both processes recycle their own instances."""
    with PluginPool(COUNTS, size=1, recycle=Recycle(calls=3, seconds=1000)) as pool:
        assert counts(pool, 2) == [1, 2]
        child = os.fork()
        if child == 0:
            os._exit(0 if counts(pool, 3) == [3, 1, 2] else 1)
        assert counts(pool, 3) == [3, 1, 2]
        assert os.waitpid(child, 0)[1] == 0
