"""Limits on time, memory and fuel, just below and just above each, and how many plugins can live
at once."""

from __future__ import annotations

import builtins
import gc
import threading
import time
from typing import Any

import pytest

import plugwasm
from plugwasm import (
    CompiledPlugin,
    Function,
    Limits,
    OutOfFuelError,
    OutOfMemoryError,
    Plugin,
    TrapError,
)
from tests.support.guests import LOOP, export, guest, manifest, number
from tests.support.threads import InThread

# Time

SPIN = guest(export("spin", LOOP) + export("echo", "(call $echo)"))


@pytest.mark.parametrize("milliseconds", [0, 1, 100, 300])
def test_deadline_ends_loop(milliseconds: int) -> None:
    """A deadline ends a loop, and not before its time; the next call works."""
    with Plugin(manifest(SPIN, timeout_ms=milliseconds)) as plugin:
        for _ in range(2):
            started = time.monotonic()
            with pytest.raises(
                plugwasm.TimeoutError, match=f"deadline of {milliseconds} ms"
            ) as caught:
                plugin.call("spin")
            took = time.monotonic() - started
            assert took >= milliseconds / 1000
            assert isinstance(caught.value, builtins.TimeoutError)
            if milliseconds >= 100:
                assert plugin.call("echo", b"next") == b"next"


def test_deadline_is_per_call() -> None:
    """A deadline applies to one call."""
    with Plugin(manifest(SPIN, timeout_ms=100)) as plugin:
        for _ in range(4):
            assert plugin.call("echo", b"x" * 10_000) == b"x" * 10_000
            time.sleep(0.06)


def test_deadlines_do_not_interfere() -> None:
    """Calls with and without a deadline do not affect each other."""
    work = guest(
        export(
            "work",
            """(loop $next (local.set $i (i64.add (local.get $i) (i64.const 1)))
                (br_if $next (i64.lt_u (local.get $i) (i64.const 400000000))))""",
            "(local $i i64)",
        )
    )
    with Plugin(work) as steady, Plugin(manifest(SPIN, timeout_ms=30)) as hasty:
        running = InThread(steady.call, "work")
        for _ in range(5):
            with pytest.raises(plugwasm.TimeoutError):
                hasty.call("spin")
        assert running.result() == b""


def test_deadline_covers_wasi_sleep() -> None:
    """The deadline ends a sleep in WASI."""
    with Plugin(manifest(SLEEPS, timeout_ms=150), wasi=True) as plugin:
        started = time.monotonic()
        with pytest.raises(plugwasm.TimeoutError):
            plugin.call("sleep")
        assert 0.14 < time.monotonic() - started < 3
        assert plugin.call("echo", b"next") == b"next"


def test_a_cancel_ends_a_sleep_in_wasi() -> None:
    with Plugin(SLEEPS, wasi=True) as plugin:
        threading.Timer(0.1, plugin.cancel_handle().cancel).start()
        started = time.monotonic()
        with pytest.raises(plugwasm.CancelledError):
            plugin.call("sleep")
        assert time.monotonic() - started < 3


SLEEPS = guest(
    export(
        "sleep",
        """(i32.store (i32.const 16) (i32.const 1)) (i64.store (i32.const 24) (i64.const 4000000000))
        (drop (call $poll (i32.const 0) (i32.const 100) (i32.const 1) (i32.const 200)))""",
    )
    + export("echo", "(call $echo)"),
    '(import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))',
    memory='(memory (export "memory") 1)',
)
"""`sleep` waits four seconds: a subscription to clock 1 at offset 0."""


# Fuel


def burning_guest(rounds: int) -> str:
    return guest(
        export(
            "burn",
            f"""(loop $next (local.set $i (i32.add (local.get $i) (i32.const 1)))
                (br_if $next (i32.lt_u (local.get $i) (i32.const {rounds}))))""",
            "(local $i i32)",
        )
        + export("spin", LOOP)
        + export("echo", "(call $echo)")
    )


def test_fuel_used_suffices_as_limit() -> None:
    """The fuel that a call reports is enough as its limit."""
    source = burning_guest(1000)
    with Plugin(source, fuel_limit=1_000_000) as plugin:
        assert plugin.fuel_used is None
        plugin.call("echo")
        plugin.call("burn")
        used = plugin.fuel_used
        assert used is not None
        assert 1000 < used < 50_000
        plugin.call("burn")
        assert plugin.fuel_used == used
    with Plugin(source, fuel_limit=used) as plugin:
        plugin.call("burn")
        assert plugin.fuel_used == used
    # The engine looks at loops and at entries of functions, not after each instruction.
    with Plugin(source, fuel_limit=used - 20) as plugin:
        with pytest.raises(
            OutOfFuelError, match="`burn` of plugin `plugin` used up its fuel"
        ) as caught:
            plugin.call("burn")
        assert plugin.fuel_used == used - 20
        assert caught.value.backtrace
        assert plugin.call("echo", b"next") == b"next"


def test_fuel_is_proportional_to_work() -> None:
    """Fuel is proportional to the work."""
    used = []
    for rounds in (1000, 2000, 4000):
        with Plugin(burning_guest(rounds), fuel_limit=10_000_000) as plugin:
            plugin.call("burn")
            used.append(plugin.fuel_used or 0)
    assert 1.9 < used[1] / used[0] < 2.1
    assert 1.9 < used[2] / used[1] < 2.1


def test_each_call_has_its_own_fuel() -> None:
    with Plugin(burning_guest(1000), fuel_limit=50_000) as plugin:
        for _ in range(50):
            plugin.call("burn")


def test_fuel_not_counted_without_limit() -> None:
    """Without a limit, no fuel is counted."""
    with Plugin(burning_guest(1000)) as plugin:
        plugin.call("burn")
        assert plugin.fuel_used is None


@pytest.mark.parametrize("limit", [-1, 2**64, 1.5, "10"], ids=repr)
def test_fuel_limit_is_validated(limit: Any) -> None:
    """An invalid fuel limit is refused."""
    with pytest.raises((ValueError, TypeError), match="fuel_limit"):
        CompiledPlugin(burning_guest(1), fuel_limit=limit)


def test_no_fuel_at_all_is_a_limit() -> None:
    with Plugin(burning_guest(1), fuel_limit=0) as plugin, pytest.raises(OutOfFuelError):
        plugin.call("echo")


def test_fuel_with_deadline() -> None:
    """Fuel and a deadline can be combined."""
    with (
        Plugin(manifest(burning_guest(1), timeout_ms=100), fuel_limit=10**15) as plugin,
        pytest.raises(plugwasm.TimeoutError),
    ):
        plugin.call("spin")
    with (
        Plugin(manifest(burning_guest(1), timeout_ms=60_000), fuel_limit=10**6) as plugin,
        pytest.raises(OutOfFuelError),
    ):
        plugin.call("spin")


# Memory. The kernel has two pages when it is new.

GROWS = """(func (export "grow") (call $answer (i64.extend_i32_s (memory.grow (i32.wrap_i64 (call $input_load_u64 (i64.const 0)))))))
    (func (export "size") (call $answer (i64.extend_i32_u (memory.size))))
    (func (export "kernel") (call $answer (i64.shr_u (call $memory_bytes) (i64.const 16))))
    (func (export "alloc_pages")
      (call $answer (call $alloc (i64.sub (i64.shl (call $input_load_u64 (i64.const 0)) (i64.const 16)) (i64.const 65000)))))
    (func (export "fill") (local $n i64)
      (loop $next (if (i64.ne (call $alloc (i64.const 65000)) (i64.const 0))
        (then (local.set $n (i64.add (local.get $n) (i64.const 1))) (br $next))))
      (call $answer (local.get $n)))
    (func (export "fill_and_grow") (local $n i64)
      (loop $next (br_if $next (i64.ne (call $alloc (i64.const 65000)) (i64.const 0))))
      (loop $next (br_if $next (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))
      (call $answer_total))
    (func (export "grow_and_fill")
      (loop $next (br_if $next (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))
      (loop $next (br_if $next (i64.ne (call $alloc (i64.const 65000)) (i64.const 0))))
      (call $answer_total))
    (func (export "in_turn") (local $i i32)
      (loop $next
        (drop (call $alloc (i64.const 65000)))
        (drop (memory.grow (i32.const 1)))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br_if $next (i32.lt_u (local.get $i) (i32.const 300))))
      (call $answer_total))
    (func $answer_total (export "total")
      (call $answer (i64.add (i64.extend_i32_u (memory.size)) (i64.shr_u (call $memory_bytes) (i64.const 16)))))
    (func (export "echo") (call $echo))"""


def growing_guest(memory: str = '(memory (export "memory") 1)') -> str:
    return guest(GROWS, memory=memory)


def pages(count: int) -> bytes:
    return count.to_bytes(8, "little")


def make_limited_plugin(maximum: int | None, source: str | None = None) -> Plugin:
    return Plugin(
        source or growing_guest(),
        limits=None if maximum is None else Limits(memory_bytes=maximum * 65536),
    )


@pytest.mark.parametrize("maximum", [3, 4, 5, 10, 100])
def test_memory_grows_to_limit(maximum: int) -> None:
    """Memory grows exactly to the limit."""
    with make_limited_plugin(maximum) as plugin:
        room = maximum - 2 - 1
        assert number(plugin.call("grow", pages(room + 1))) == -1
        assert number(plugin.call("grow", pages(room))) == 1
        assert number(plugin.call("size")) == maximum - 2
        assert number(plugin.call("grow", pages(1))) == -1
        assert number(plugin.call("grow", pages(0))) == maximum - 2
        assert number(plugin.call("total")) == maximum


def test_memory_minimum_over_limit() -> None:
    """A memory whose minimum exceeds the limit is out of memory."""
    with make_limited_plugin(12, growing_guest('(memory (export "memory") 10)')) as plugin:
        assert number(plugin.call("size")) == 10
    for maximum in (11, 3, 1, 0):
        with pytest.raises(plugwasm.OutOfMemoryError, match="starts with 12 pages of memory"):
            make_limited_plugin(maximum, growing_guest('(memory (export "memory") 10)'))


def test_memory_maximum_of_module() -> None:
    """The maximum that the module declares applies as well."""
    with make_limited_plugin(100, growing_guest('(memory (export "memory") 1 3)')) as plugin:
        assert number(plugin.call("grow", pages(3))) == -1
        assert number(plugin.call("grow", pages(2))) == 1


def test_memory_without_limit() -> None:
    """Without a limit, memory grows as far as Wasm allows."""
    with make_limited_plugin(None) as plugin:
        assert number(plugin.call("grow", pages(1000))) == 1
        assert number(plugin.call("grow", pages(65536))) == -1


@pytest.mark.parametrize("maximum", [3, 4, 7, 20, 100])
@pytest.mark.parametrize("order", ["fill_and_grow", "grow_and_fill", "in_turn"])
def test_memory_total_with_kernel(maximum: int, order: str) -> None:
    """The kernel's memory and the guest's together never exceed the limit."""
    with make_limited_plugin(maximum) as plugin:
        assert number(plugin.call(order)) <= maximum
        assert number(plugin.call("total")) <= maximum
        assert plugin.call("echo", b"still here") == b"still here"
        for again in ("grow_and_fill", "in_turn", "fill_and_grow"):
            assert number(plugin.call(again)) <= maximum


@pytest.mark.parametrize("order", ["fill_and_grow", "grow_and_fill"])
def test_memory_first_come(order: str) -> None:
    """Whichever memory grows first can take nearly all of the limit."""
    with make_limited_plugin(50) as plugin:
        assert number(plugin.call(order)) == 50


def test_memory_of_kernel_alone() -> None:
    """The kernel's memory can use what the guest's memory does not."""
    with make_limited_plugin(20) as plugin:
        assert number(plugin.call("alloc_pages", pages(19))) != 0
        assert number(plugin.call("kernel")) == 19
        assert number(plugin.call("grow", pages(1))) == -1
    with make_limited_plugin(20) as plugin:
        assert number(plugin.call("alloc_pages", pages(20))) == 0
        assert number(plugin.call("kernel")) == 2
        assert number(plugin.call("grow", pages(17))) == 1


@pytest.mark.parametrize(
    ("size", "fits"),
    [
        (18 * 65536 - 65536, True),
        (19 * 65536 - 512, True),
        (19 * 65536 - 511, False),
        (20 * 65536, False),
    ],
)
def test_memory_input_counts(size: int, fits: bool) -> None:
    """The input counts, and one that does not fit is out of memory."""
    with make_limited_plugin(20) as plugin:
        if fits:
            assert len(plugin.call("echo", bytes(size))) == size
        else:
            with pytest.raises(OutOfMemoryError, match=f"input of {size} bytes"):
                plugin.call("echo", bytes(size))
        assert plugin.call("echo", b"next") == b"next"


def test_memory_all_for_kernel() -> None:
    """In a plugin without a memory, the kernel can use the whole limit."""
    source = guest(export("echo", "(call $echo)"), memory="")
    with make_limited_plugin(20, source) as plugin:
        assert len(plugin.call("echo", bytes(20 * 65536 - 512))) == 20 * 65536 - 512
        with pytest.raises(OutOfMemoryError):
            plugin.call("echo", bytes(20 * 65536 - 511))


@pytest.mark.parametrize(
    "memory",
    ["(memory 1)", '(memory (export "other name") 1)'],
    ids=["not exported", "another name"],
)
@pytest.mark.parametrize("order", ["fill_and_grow", "grow_and_fill", "in_turn"])
def test_memory_hidden_from_host(memory: str, order: str) -> None:
    """A memory that is not exported counts too."""
    with make_limited_plugin(30, growing_guest(memory)) as plugin:
        assert number(plugin.call(order)) <= 30
        assert number(plugin.call(order)) <= 30
        if "export" not in memory:  # it has a share of its own
            assert number(plugin.call("size")) >= 2


def test_memory_exported_by_other_name() -> None:
    """A memory exported under another name leaves the kernel room to grow."""
    with make_limited_plugin(100, growing_guest('(memory (export "mem") 1)')) as plugin:
        assert len(plugin.call("echo", bytes(10 * 65536))) == 10 * 65536


def test_memory_not_exported() -> None:
    """A memory that is not exported leaves the kernel room to grow."""
    with make_limited_plugin(100, growing_guest("(memory 1)")) as plugin:
        assert len(plugin.call("echo", bytes(10 * 65536))) == 10 * 65536


TWO = """
    (func (export "both") (local $i i32)
      (loop $next
        (drop (call $alloc (i64.const 65000)))
        (drop (memory.grow $a (i32.const 1)))
        (drop (memory.grow $b (i32.const 1)))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br_if $next (i32.lt_u (local.get $i) (i32.const 200))))
      (call $total))
    (func (export "kernel_first") (local $i i32)
      (loop $next (br_if $next (i64.ne (call $alloc (i64.const 65000)) (i64.const 0))))
      (loop $next (br_if $next (i32.ne (memory.grow $a (i32.const 1)) (i32.const -1))))
      (loop $next (br_if $next (i32.ne (memory.grow $b (i32.const 1)) (i32.const -1))))
      (call $total))
    (func (export "a_then_little_then_b")
      (loop $next (br_if $next (i32.ne (memory.grow $a (i32.const 1)) (i32.const -1))))
      (drop (call $alloc (i64.const 150000)))
      (loop $next (br_if $next (i32.ne (memory.grow $b (i32.const 1)) (i32.const -1))))
      (call $total))
    (func $total (call $answer (i64.add (i64.shr_u (call $memory_bytes) (i64.const 16))
      (i64.extend_i32_u (i32.add (memory.size $a) (memory.size $b))))))"""


@pytest.mark.parametrize("order", ["both", "kernel_first", "a_then_little_then_b"])
@pytest.mark.parametrize(
    "a", ['(memory $a (export "memory") 1)', "(memory $a 1)"], ids=["exported", "not exported"]
)
@pytest.mark.parametrize(
    "b", ['(memory $b (export "second") 1)', "(memory $b 1)"], ids=["exported", "not exported"]
)
def test_memory_of_two_in_module(order: str, a: str, b: str) -> None:
    """Two memories of a module count together."""
    with make_limited_plugin(40, guest(TWO, memory=a + b)) as plugin:
        for _ in range(3):
            assert number(plugin.call(order)) <= 40


@pytest.mark.parametrize("order", ["both", "kernel_first", "a_then_little_then_b"])
def test_memory_of_linked_modules(order: str) -> None:
    """Memories of linked modules count together."""
    lib = """(module (memory (export "memory") 1) (func (export "grow") (result i32) (memory.grow (i32.const 1)))
        (func (export "size") (result i32) (memory.size)))"""
    main = guest(
        TWO.replace("(memory.grow $b (i32.const 1))", "(call $grow)").replace(
            "(memory.size $b)", "(call $size)"
        ),
        '(import "lib" "grow" (func $grow (result i32)))',
        '(import "lib" "size" (func $size (result i32)))',
        memory='(memory $a (export "memory") 1)',
    )
    with Plugin(
        manifest(("lib", lib), ("main", main)), limits=Limits(memory_bytes=40 * 65536)
    ) as plugin:
        for _ in range(3):
            assert number(plugin.call(order)) <= 40


def test_memory_growth_at_start() -> None:
    """Memory that grows during the start counts too."""
    source = guest(
        """(func $s (loop $next (drop (call $alloc (i64.const 65000))) (br_if $next (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))))
        (start $s)"""
        + GROWS,
        memory='(memory (export "memory") 1)',
    )
    with make_limited_plugin(30, source) as plugin:
        assert number(plugin.call("total")) <= 30
        assert number(plugin.call("in_turn")) <= 30


def test_tables_are_capped() -> None:
    source = guest(
        "(table $t 1 funcref)"
        + export(
            "grow",
            "(call $answer (i64.extend_i32_s (table.grow $t (ref.null func) (i32.const 100000000))))",
        )
    )
    with Plugin(source) as plugin:
        assert number(plugin.call("grow")) == -1
    with (
        pytest.raises(plugwasm.Error),
        Plugin('(module (table 4000000000 funcref) (func (export "f")))') as plugin,
    ):
        plugin.call("f")


def test_memory_many_or_huge() -> None:
    """A module with many or huge memories works or raises an error."""
    for memory in ("(memory 65536)", "(memory 1)" * 50, "(memory 30000)" * 3):
        source = f'(module {memory} (func (export "f")))'
        with (
            pytest.raises(plugwasm.Error),
            Plugin(manifest(source, memory={"max_pages": 40})) as plugin,
        ):
            plugin.call("f")


ABORTS = guest(
    export(
        "abort_when_full",
        "(if (i32.eq (memory.grow (i32.const 1000)) (i32.const -1)) (then unreachable))",
    )
    + export(
        "grow_all", "(loop $next (br_if $next (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))"
    )
    + export("divide", "(drop (i32.div_s (i32.const 1) (i32.const 0)))")
    + export("recurse", "(call $deep)")
    + "(func $deep (call $deep) (call $deep))"
    + export("abort", "unreachable"),
    memory='(memory (export "memory") 1)',
)


def test_guest_abort_when_full() -> None:
    """A guest that aborts after a refused growth is out of memory."""
    with make_limited_plugin(10, ABORTS) as plugin:
        plugin.call("grow_all")
        with pytest.raises(OutOfMemoryError, match=r"10 pages.*unreachable") as caught:
            plugin.call("abort_when_full")
        assert caught.value.backtrace


def test_guest_abort_with_room_left() -> None:
    """A guest that aborts with room left is not out of memory."""
    with make_limited_plugin(10, ABORTS) as plugin, pytest.raises(TrapError):
        plugin.call("abort")


@pytest.mark.parametrize(
    ("function", "trap"), [("divide", "integer division by zero"), ("recurse", "stack overflow")]
)
def test_unrelated_trap_when_full(function: str, trap: str) -> None:
    """An unrelated trap is reported as such even if memory is full."""
    with make_limited_plugin(10, ABORTS) as plugin:
        plugin.call("grow_all")
        with pytest.raises(TrapError) as caught:
            plugin.call(function)
        assert caught.value.trap == trap


def test_no_room_for_host_answer() -> None:
    """A host function whose result does not fit is out of memory."""
    source = guest(export("get", "(call $give (call $config_get <<k>>))"))
    with (
        Plugin(manifest(source, memory={"max_pages": 5}, config={"k": "x" * 1_000_000})) as plugin,
        pytest.raises(OutOfMemoryError),
    ):
        plugin.call("get")


# Many


def test_thousand_plugins() -> None:
    """A thousand plugins can live at once."""
    compiled = CompiledPlugin(SPIN)
    plugins = [Plugin(compiled) for _ in range(1000)]
    for i, plugin in enumerate(plugins):
        assert plugin.call("echo", str(i)) == str(i).encode()
    for i, plugin in enumerate(plugins):
        assert plugin.call("echo", str(-i)) == str(-i).encode()
        plugin.close()


@pytest.mark.slow
def test_ten_thousand_plugins() -> None:
    """Ten thousand plugins can live at once.

    Slow: each has three memories, which the system takes time to map.
    """
    compiled = CompiledPlugin(guest(GROWS, memory='(memory (export "memory") 1)'))
    plugins = [Plugin(compiled) for _ in range(10_000)]
    before = resident()
    for i, plugin in enumerate(plugins):
        assert plugin.call("echo", str(i)) == str(i).encode()
    bytes_each = (resident() - before) / len(plugins)
    assert number(plugins[0].call("total")) == number(plugins[-1].call("total")) == 3
    for plugin in plugins:
        plugin.close()
    assert bytes_each < 100_000


def test_dropped_plugins_leave_nothing() -> None:
    """Creating and dropping plugins leaks no memory."""

    def churn(count: int) -> None:
        for i in range(count):
            with Plugin(compiled) as plugin:
                assert plugin.call("echo", bytes(100_000 + i)) == bytes(100_000 + i)

    compiled = CompiledPlugin(SPIN)
    churn(100)
    gc.collect()
    before = resident()
    churn(600)
    assert resident() - before < 20 * 2**20


def test_calls_in_a_row_leave_nothing() -> None:
    source = guest(
        export("run", "(call $give (call $f <<text>>))"),
        '(import "extism:host/user" "f" (func $f (param i64) (result i64)))',
    )
    f = Function(
        None,
        "f",
        [plugwasm.ValType.I64],
        [plugwasm.ValType.I64],
        lambda plugin, p, r: plugin.return_bytes(r[0], plugin.input_bytes(p[0]) * 5000),
    )
    with Plugin(source, functions=[f], name="run") as plugin:
        for _ in range(200):
            plugin.call("run")
        before = resident()
        for _ in range(3000):
            plugin.call("run")
        for _ in range(300):
            with pytest.raises(plugwasm.FunctionNotFoundError):
                plugin.call("nothing")
    assert resident() - before < 10 * 2**20


def resident() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * 4096
