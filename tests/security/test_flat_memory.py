"""The host's memory stays flat whatever guests do and however often (case 19). Figures: `python -m
benchmarks.memory`.

Each test does something in two halves of equal length. All caches have been filled after the first
half, so the second must add nothing. Bytes, Python objects, mappings and descriptors are counted.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import plugwasm
from plugwasm import CompiledPlugin, Function, Plugin, ValType
from tests.support.guests import LOOP, export, guest, manifest, number

EXIT = '(import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))'
RANDOM = (
    '(import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))'
)
BACK = '(import "extism:host/user" "back" (func $back (param i64) (result i64)))'
PLUS_ONE = '(import "lib" "plus_one" (func $plus_one (param i64) (result i64)))'
COMMAND = """(module (memory (export "memory") 1) (func (export "_start"))
    (func (export "plus_one") (param i64) (result i64) (i64.add (local.get 0) (i64.const 1))))"""
MODULE = guest(
    export("echo", "(call $echo)")
    + export("trap", "unreachable")
    + export("spin", LOOP)
    + export("complain", "(call $error_set (call $input_offset))")
    + export("exit", "(call $exit (i32.const 7))")
    + export("random", "(drop (call $random (i32.const 0) (i32.const 64))) (call $echo)")
    + export("back", "(call $give (call $back (call $input_offset)))")
    + export("command", "(call $answer (call $plus_one (i64.const 1)))")
    + export("vars", "(call $var_set <<k>> <<v>>) (call $give (call $var_get <<k>>))")
    + export("allocate", "(drop (call $alloc (i64.const 100000))) (call $echo)")
    + export("_start", "(call $echo)"),
    EXIT,
    RANDOM,
    BACK,
    PLUS_ONE,
    memory='(memory (export "memory") 1)',
)
INPUT = b"0123456789" * 100


@pytest.fixture(scope="module", autouse=True)
def _only_what_is_made_here_is_collected() -> Iterator[None]:
    """Freeze earlier objects: collecting those of a whole test run would take most of the time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def back(current: plugwasm.CurrentPlugin, params: list[Any], results: list[Any]) -> None:
    context = current.host_context()
    if isinstance(context, BaseException):
        raise context
    current.return_bytes(results[0], current.input_bytes(params[0]))


def compiled(**options: Any) -> CompiledPlugin:
    fields = {name: options.pop(name) for name in ("timeout_ms", "memory") if name in options}
    function = Function(None, "back", [ValType.I64], [ValType.I64], back)
    return CompiledPlugin(
        manifest(("lib", COMMAND), ("main", MODULE), **fields),
        wasi=True,
        functions=[function],
        **options,
    )


def measure_resources() -> tuple[int, int, int, int]:
    """Return the resident bytes, Python objects, mappings and descriptors of this process."""
    gc.collect()
    with open("/proc/self/statm", encoding="ascii") as file:
        resident = int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")
    with open("/proc/self/maps", encoding="utf-8") as file:
        mappings = sum(1 for _ in file)
    return resident, sys.getallocatedblocks(), mappings, len(os.listdir("/proc/self/fd"))


def assert_flat(once: Callable[[], object], rounds: int) -> None:
    """Check the growth. The least of three attempts counts, since other threads of the process may
    be busy.

    Some sixty objects come and go by themselves, whatever the number of rounds. A leak of one
    object per round is noticed from 130 rounds on.
    """
    for _ in range(rounds):
        once()
    grown: list[tuple[int, ...]] = []
    for _ in range(3):
        before = measure_resources()
        for _ in range(rounds):
            once()
        grown.append(
            tuple(after - was for after, was in zip(measure_resources(), before, strict=True))
        )
        resident, objects, mappings, descriptors = (
            min(values) for values in zip(*grown, strict=True)
        )
        if (
            resident < 200 * rounds + 100_000
            and objects < rounds / 10 + 110
            and mappings < 8
            and descriptors < 4
        ):
            return
    raise AssertionError(
        f"{rounds} rounds left behind (bytes, objects, mappings, descriptors): {grown}"
    )


WAYS: dict[str, tuple[str, type[BaseException] | None, Any, int]] = {
    "succeeds": ("echo", None, None, 3000),
    "uses WASI": ("random", None, None, 1500),
    "uses vars": ("vars", None, None, 1000),
    "allocates and never frees": ("allocate", None, None, 1000),
    "calls a host function": ("back", None, None, 1500),
    "calls a linked command": ("command", None, None, 300),
    "is _start": ("_start", None, None, 200),
    "reports an error": ("complain", plugwasm.GuestError, None, 500),
    "traps": ("trap", plugwasm.TrapError, None, 200),
    "exits": ("exit", plugwasm.ExitError, None, 200),
    "is refused": ("nothing", plugwasm.FunctionNotFoundError, None, 200),
    "raises in a host function": ("back", plugwasm.HostFunctionError, LookupError, 200),
    "is interrupted": ("back", KeyboardInterrupt, KeyboardInterrupt, 200),
}


@pytest.mark.parametrize("way", WAYS)
def test_calls_leave_nothing(way: str) -> None:
    """Calls leak nothing, however they end."""
    function, error, context, rounds = WAYS[way]
    with Plugin(compiled()) as plugin:

        def once() -> None:
            raised = None
            try:
                plugin.call(function, INPUT, host_context=context and context("no"))
            except (plugwasm.Error, KeyboardInterrupt) as caught:
                raised = type(caught)
            assert raised is error

        assert_flat(once, rounds)


def test_timeouts_leave_nothing_behind() -> None:
    with Plugin(compiled(timeout_ms=1)) as plugin:

        def once() -> None:
            with pytest.raises(plugwasm.TimeoutError):
                plugin.call("spin")

        assert_flat(once, 150)


def test_calls_out_of_fuel_leave_nothing() -> None:
    """Calls that run out of fuel leak nothing."""
    with Plugin(compiled(fuel_limit=20_000)) as plugin:

        def once() -> None:
            with pytest.raises(plugwasm.OutOfFuelError):
                plugin.call("spin")

        assert_flat(once, 150)


@pytest.mark.parametrize("end", ["closed", "dropped", "reset", "in a cycle"])
@pytest.mark.parametrize("pooled", [True, False], ids=["from the pool", "without a pool"])
def test_instances_leave_nothing(end: str, pooled: bool) -> None:
    """Instances leak nothing, however they are created and closed."""
    shared = compiled() if pooled else compiled(fuel_limit=2**62)
    kept = Plugin(shared)
    rounds = 200 if pooled else 150

    def once() -> None:
        plugin = kept if end == "reset" else Plugin(shared)
        assert plugin.call("random", INPUT) == INPUT
        if end == "closed":
            plugin.close()
        elif end == "reset":
            plugin.reset()
        elif end == "in a cycle":
            cycle: list[Any] = [plugin]
            cycle.append(cycle)
            if len(cycles) >= 50:
                cycles.clear()
            cycles.append(cycle)

    cycles: list[Any] = []
    assert_flat(once, rounds)


def test_failed_starts_leave_nothing() -> None:
    """Instances that fail to start leak nothing."""
    sources = [
        guest(export("_initialize", "unreachable") + export("f", "")),
        '(module (memory 1) (data (i32.const 65536) "x") (func (export "f")))',
    ]
    shared = [CompiledPlugin(source) for source in sources]

    def once() -> None:
        for one in shared:
            with Plugin(one) as plugin, pytest.raises(plugwasm.Error):
                plugin.call("f")

    assert_flat(once, 150)


def test_instances_of_threads_leave_nothing() -> None:
    """Instances of many short-lived threads leak nothing."""
    shared = compiled()

    def work() -> None:
        for _ in range(10):
            with Plugin(shared) as plugin:
                plugin.call("echo", INPUT)

    def once() -> None:
        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert_flat(once, 10)


def test_modules_seen_once_are_bounded() -> None:
    """Modules that are seen once leave no more behind than the cache of modules.

    The process keeps some of the modules that it has seen, and replaces the oldest by further ones.
    """
    from plugwasm._runtime import modules

    number_of_modules = [0]

    def once() -> None:
        number_of_modules[0] += 1
        with Plugin(
            guest(export("f", f"(call $answer (i64.const {number_of_modules[0]}))"))
        ) as plugin:
            assert number(plugin.call("f")) == number_of_modules[0]

    for _ in range(modules.KEPT_MODULES):
        once()
    kept = len(modules._seen)
    before = measure_resources()
    for _ in range(40):
        once()
    resident, _, mappings, descriptors = (
        after - was for after, was in zip(measure_resources(), before, strict=True)
    )
    assert len(modules._seen) <= max(kept, modules.KEPT_MODULES)
    assert (resident < 8 * 2**20, mappings < 60, descriptors < 60) == (True, True, True)


def test_instance_size_is_documented() -> None:
    """An instance takes as much memory as documented.

    A page or two of each of its three memories, its tables, and its Python objects.
    """
    shared = CompiledPlugin(
        guest(export("echo", "(call $echo)"), memory='(memory (export "memory") 1)')
    )
    first = [Plugin(shared) for _ in range(10)]
    for plugin in first:
        plugin.call("echo", b"x")
    plugins = [Plugin(shared) for _ in range(600)]
    before = measure_resources()
    for plugin in plugins:
        assert plugin.call("echo", b"x") == b"x"
    resident, objects, mappings, descriptors = (
        after - was for after, was in zip(measure_resources(), before, strict=True)
    )
    assert resident / 600 < 60_000
    assert objects / 600 < 120
    assert mappings / 600 < 9
    assert descriptors < 4
    for plugin in plugins:
        plugin.close()
