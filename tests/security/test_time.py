"""Time: whatever a plugin does, a call ends when it should, and everything else continues
(`docs/security.md`, 1 to 10)."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from typing import Any

import pytest

import plugwasm
from plugwasm import CancelledError, CompiledPlugin, Function, OutOfFuelError, Plugin
from tests.support.guests import LOOP, export, guest, manifest, number
from tests.support.paths import ROOT
from tests.support.threads import InThread
from tests.support.waiting import soon

COUNT = """(global $count (mut i64) (i64.const 0))
    (func (export "count") (global.set $count (i64.add (global.get $count) (i64.const 1))) (call $answer (global.get $count)))"""
"""`count` tells how often it was called in this instance."""

BIG = "(memory 256)"
TABLE = "(table $t 20000 funcref)"
FILL = "(memory.fill (i32.const 0) (i32.const 1) (i32.const 0x1000000))"

WAYS = {
    "a loop": LOOP,
    "two loops": "(loop $outer (loop $inner (br_if $inner (i32.const 1))) (br $outer))",
    "a loop that calls a function": "(loop $next (call $nothing) (br $next))",
    "a loop of tail calls": "(return_call $tail)",
    "recursion that never gets deep": "(call $tree (i32.const 60))",
    "a loop of throw and catch": "(loop $next (block $caught (try_table (catch_all $caught) (throw $thrown))) (br $next))",
    "a loop of alloc and free": "(loop $next (call $free (call $alloc (i64.const 100))) (br $next))",
    "a loop of alloc when memory is full": "(loop $next (drop (call $alloc (i64.const 65000))) (br $next))",
    "a loop of reset": "(loop $next (call $reset) (br $next))",
    "a loop of memory.grow": "(loop $next (drop (memory.grow (i32.const 1))) (br $next))",
    "a loop of memory.fill": f"(loop $next {FILL} (br $next))",
    "memory.fill after memory.fill": FILL * 600,
    "a loop of memory.copy": "(loop $next (memory.copy (i32.const 0) (i32.const 0x100000) (i32.const 0x100000)) (br $next))",
    "a loop of table.fill": "(loop $next (table.fill $t (i32.const 0) (ref.null func) (i32.const 20000)) (br $next))",
    "a loop of table.copy": "(loop $next (table.copy $t $t (i32.const 0) (i32.const 9000) (i32.const 9000)) (br $next))",
    "a loop of a host function": "(loop $next (call $touch) (br $next))",
    "a loop of a function of the host environment": "(loop $next (drop (call $get_log_level)) (br $next))",
}


def endless(way: str, name: str = "spin") -> str:
    return guest(
        export(name, WAYS[way])
        + COUNT
        + export("quick", "")
        + """(func $nothing)
        (func $tail (return_call $tail))
        (func $tree (param $depth i32)
          (if (local.get $depth) (then
            (call $tree (i32.sub (local.get $depth) (i32.const 1)))
            (call $tree (i32.sub (local.get $depth) (i32.const 1))))))
        (tag $thrown)"""
        + TABLE,
        '(import "extism:host/user" "touch" (func $touch))',
        memory=BIG,
    )


TOUCH = Function(None, "touch", [], [], lambda *_: None)


def compiled(source: str, *, pooled: bool = False, **options: Any) -> CompiledPlugin:
    """Compile a plugin. With `pooled`, its next instances come from the pool, as from the fourth
    on."""
    made = CompiledPlugin(
        source if "fields" not in options else manifest(source, **options.pop("fields")),
        functions=[TOUCH],
        **options,
    )
    if pooled:
        for _ in range(4):
            with Plugin(made) as plugin:
                plugin.call("quick")
        assert made._pooled_plan is not None or not sys.platform.startswith("linux")
    return made


# ---- 1. endless loops in an export ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("way", "pooled"), [*((way, False) for way in WAYS), *((way, True) for way in list(WAYS)[::4])]
)
def test_endless_call_times_out(way: str, pooled: bool) -> None:
    """An endless call times out within twice its deadline, and its instance is replaced."""
    fields = {"timeout_ms": 100, "memory": {"max_pages": 1200}}
    with Plugin(compiled(endless(way), pooled=pooled, fields=fields)) as plugin:
        took = []
        for _ in range(5):
            assert number(plugin.call("count")) == 1
            assert number(plugin.call("count")) == 2
            began, worked = time.monotonic(), time.process_time()
            with pytest.raises(
                plugwasm.TimeoutError,
                match="`spin` of plugin `plugin` did not end before its deadline of 100 ms",
            ):
                plugin.call("spin")
            assert time.monotonic() - began >= 0.1
            # The machine may be busy with something else, which is no work of the guest, and not so
            # each time.
            took.append(min(time.monotonic() - began, time.process_time() - worked))
            if took[-1] < 0.2:
                break
        assert min(took) < 0.2
        assert number(plugin.call("count")) == 1


def test_bulk_operation_is_finished() -> None:
    """A bulk operation that has begun is finished, and the next does not begin.

    The engine checks the clock between bulk operations, not inside one, whose duration is bounded
    by the size of a memory.
    """
    took = []
    with Plugin(
        compiled(endless("memory.fill after memory.fill"), fields={"timeout_ms": 1})
    ) as plugin:
        for _ in range(5):  # the quickest, for what else the machine does makes all of it slower
            began = time.process_time()
            with pytest.raises(plugwasm.TimeoutError):
                plugin.call("spin")
            took.append(time.process_time() - began)
    first = min(took)
    with Plugin(compiled(endless("memory.fill after memory.fill"))) as plugin:
        began = time.process_time()
        assert plugin.call("spin") == b""
        assert time.process_time() - began > 10 * first, "of 600 operations, hardly more than one"


# ---- 2. endless loops before the first call ------------------------------------------------------

QUICK = export("quick", "")
STARTS = {
    "start": [f"(module (func $s {LOOP}) (start $s) {QUICK})"],
    "_initialize": [f'(module (func (export "_initialize") {LOOP}) {QUICK})'],
    "__wasm_call_ctors": [f'(module (func (export "__wasm_call_ctors") {LOOP}) {QUICK})'],
    "hs_init": [f'(module (func (export "hs_init") (param i32 i32) {LOOP}) {QUICK})'],
    "_initialize before hs_init": [
        f'(module (func (export "_initialize") {LOOP}) (func (export "hs_init") (param i32 i32)) {QUICK})'
    ],
    "start of a linked module": [
        ("lib", f"(module (func $s {LOOP}) (start $s) {QUICK})"),
        f'(module (import "lib" "quick" (func)) {QUICK})',
    ],
    "_initialize of a linked module": [
        ("lib", f'(module (func (export "_initialize") {LOOP}) {QUICK})'),
        f'(module (import "lib" "quick" (func)) {QUICK})',
    ],
    "start of a command": [
        ("lib", f'(module (func $s {LOOP}) (start $s) (func (export "_start")) {QUICK})'),
        f'(module (import "lib" "quick" (func $q)) {export("quick", "(call $q)")})',
    ],
}


@pytest.mark.parametrize("pooled", [False, True], ids=["own memory", "from the pool"])
@pytest.mark.parametrize("where", STARTS)
def test_endless_start_times_out(where: str, pooled: bool) -> None:
    """An endless start times out within twice the deadline of the call that needs it."""
    made = CompiledPlugin(manifest(*STARTS[where], timeout_ms=100))
    made._plan.starts = 3 if pooled else -100  # the instance after three is the first from the pool
    with Plugin(made) as plugin:
        took = []
        for _ in range(5):
            began, worked = time.monotonic(), time.process_time()
            with pytest.raises(
                plugwasm.TimeoutError, match="did not end before its deadline of 100 ms"
            ):
                plugin.call("quick")
            assert time.monotonic() - began >= 0.1
            took.append(min(time.monotonic() - began, time.process_time() - worked))
            if took[-1] < 0.2:
                break
        assert min(took) < 0.2


@pytest.mark.parametrize("where", STARTS)
def test_endless_start_is_cancelled(where: str) -> None:
    """An endless start can be cancelled."""
    with Plugin(manifest(*STARTS[where])) as plugin:
        for _ in range(2):
            call = InThread(plugin.call, "quick")
            assert soon(plugin.cancel_handle().cancel)
            with pytest.raises(CancelledError):
                call.result()


NAPS = """(module (import "extism:host/user" "nap" (func $nap))
    (func (export "_initialize") (call $nap)) (func (export "nap") (call $nap)) (func (export "quick")))"""


def test_deadline_covers_start_and_call() -> None:
    """The deadline of a first call covers its start and the call together."""

    def nap(*_: Any) -> None:
        naps.append(1)
        time.sleep(0.3)

    naps: list[int] = []
    with Plugin(
        manifest(NAPS, timeout_ms=500), functions=[Function(None, "nap", [], [], nap)]
    ) as plugin:
        with pytest.raises(plugwasm.TimeoutError):
            plugin.call("nap")
        assert len(naps) == 2  # neither of them too long by itself
    with Plugin(
        manifest(NAPS, timeout_ms=10_000), functions=[Function(None, "nap", [], [], nap)]
    ) as plugin:
        assert plugin.call("nap") == b""


def test_compile_time_does_not_count() -> None:
    """Compilation before the first call does not count."""
    with Plugin(
        manifest(endless("memory.fill after memory.fill"), timeout_ms=150), functions=[TOUCH]
    ) as plugin:
        time.sleep(0.2)
        assert plugin.call("quick") == b""


# ---- 3. two plugins of one compiled plugin -------------------------------------------------------

WORKS = guest(
    """(func $rounds (param $n i64) (result i64) (local $sum i64)
      (loop $next
        (local.set $sum (i64.add (i64.mul (local.get $sum) (i64.const 3)) (local.get $n)))
        (br_if $next (i64.ne (local.tee $n (i64.sub (local.get $n) (i64.const 1))) (i64.const 0))))
      (local.get $sum))"""
    + export(
        "work",
        """(local.set $before (call $rounds (i64.const 1000000))) (call $wait)
        (call $answer (i64.xor (local.get $before) (call $rounds (i64.const 2000000))))""",
        "(local $before i64)",
    )
    + export("spin", LOOP)
    + QUICK,
    '(import "extism:host/user" "wait" (func $wait))',
)


@pytest.mark.parametrize("pooled", [False, True], ids=["own memory", "from the pool"])
@pytest.mark.parametrize("fate", ["timed out", "cancelled"])
def test_timeout_spares_other_plugin(fate: str, pooled: bool) -> None:
    """When one of two plugins of a compiled plugin times out, the other runs to its own end."""
    over, working = threading.Event(), threading.Event()

    def wait(*_: Any) -> None:
        working.set()
        assert over.wait(20)

    deadline = {"timeout_ms": 1200} if fate == "timed out" else {}
    made = CompiledPlugin(
        manifest(WORKS, **deadline), functions=[Function(None, "wait", [], [], wait)]
    )
    if pooled:
        for _ in range(4):
            with Plugin(made) as plugin:
                plugin.call("quick")
    with Plugin(made) as steady, Plugin(made) as hasty:
        over.set()
        right = steady.call("work")
        assert len(right) == 8
        over.clear()
        working.clear()
        ended = InThread(hasty.call, "spin")
        if fate == "timed out":
            time.sleep(0.6)
        running = InThread(steady.call, "work")
        assert working.wait(10)
        if fate == "timed out":
            with pytest.raises(plugwasm.TimeoutError):
                ended.result()
        else:
            assert soon(hasty.cancel_handle().cancel)
            with pytest.raises(CancelledError):
                ended.result()
        over.set()
        assert running.result() == right
        assert hasty.call("quick") == b""


# ---- 4. sleeps in WASI ---------------------------------------------------------------------------


def sleeping_guest(name: str, *subscriptions: tuple[int, int, int]) -> str:
    """Return a guest that waits for clocks: for each, the clock's number, the nanoseconds, and 1
    if that is an absolute time."""
    stores = "".join(
        f"(i32.store (i32.const {at + 16}) (i32.const {clock})) (i64.store (i32.const {at + 24}) (i64.const {ns}))"
        f" (i32.store16 (i32.const {at + 40}) (i32.const {absolute}))"
        for at, (clock, ns, absolute) in zip(range(0, 4800, 48), subscriptions, strict=False)
    )
    return guest(
        export(
            name,
            f"{stores} (drop (call $poll (i32.const 0) (i32.const 8000) (i32.const {len(subscriptions)}) (i32.const 16000)))",
        )
        + (QUICK if name != "quick" else ""),
        '(import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))',
        memory='(memory (export "memory") 1)',
    )


SLEEPS = {
    "four seconds": [(1, 4_000_000_000, 0)],
    "centuries": [(1, 2**64 - 1, 0)],
    "until a point in time far off": [(0, 2**63, 1)],
    "for the first of many": [(clock % 2, 4_000_000_000, 0) for clock in range(100)],
}


@pytest.mark.parametrize("sleep", SLEEPS)
@pytest.mark.parametrize("name", ["sleep", "_initialize"])
@pytest.mark.parametrize("end", ["a deadline", "a cancel"])
def test_deadline_and_cancel_end_sleep(sleep: str, name: str, end: str) -> None:
    """A deadline and a cancellation each end a sleep."""
    function = "sleep" if name == "sleep" else "quick"
    with Plugin(
        manifest(
            sleeping_guest(name, *SLEEPS[sleep]),
            **({"timeout_ms": 200} if end == "a deadline" else {}),
        ),
        wasi=True,
    ) as plugin:
        began = time.monotonic()
        call = InThread(plugin.call, function)
        if end == "a cancel":
            time.sleep(0.1)
            assert soon(plugin.cancel_handle().cancel)
        with pytest.raises(plugwasm.TimeoutError if end == "a deadline" else CancelledError):
            call.result()
        assert 0.1 <= time.monotonic() - began < 2


# ---- 7. cancel -----------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_cancel_ends_call(way: str) -> None:
    """A cancellation ends a call whatever it does, and its instance is replaced."""
    with Plugin(compiled(endless(way), fields={"memory": {"max_pages": 1200}})) as plugin:
        for _ in range(2):
            assert number(plugin.call("count")) == 1
            call = InThread(plugin.call, "spin")
            assert soon(plugin.cancel_handle().cancel)
            with pytest.raises(CancelledError):
                call.result()


def test_cancel_at_deadline() -> None:
    """A cancellation at the moment of the deadline ends the call with one of the two errors and
    does not affect the next."""
    with Plugin(compiled(endless("a loop"), fields={"timeout_ms": 30})) as plugin:
        for i in range(15):
            timer = threading.Timer(0.022 + i / 1000, plugin.cancel_handle().cancel)
            timer.start()
            with pytest.raises((plugwasm.TimeoutError, CancelledError)):
                plugin.call("spin")
            timer.join()
            assert number(plugin.call("count")) == 1


# ---- 8. Ctrl-C -----------------------------------------------------------------------------------

INTERRUPTED = """
import os, signal, sys, time
import plugwasm
from plugwasm import Function, Plugin
from tests.support.guests import LOOP, export, guest, manifest
from tests.security.test_time import SLEEPS, TOUCH, WAYS, endless, sleeping_guest

def times():
    signal.setitimer(signal.ITIMER_REAL, 0.15)
    began = time.monotonic()
    try:
        plugin.call(function)
    except KeyboardInterrupt:
        return time.monotonic() - began - 0.15
    raise AssertionError("it ended by itself")

signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
naps = Function(None, "touch", [], [], lambda *_: time.sleep(5))
spin = endless("a loop")
guests = {
    "a deadline": (manifest(spin, timeout_ms=60_000), "spin", [TOUCH]),
    "no deadline": (spin, "spin", [TOUCH]),
    "in the kernel": (endless("a loop of alloc and free"), "spin", [TOUCH]),
    "in bulk operations": (endless("a loop of memory.fill"), "spin", [TOUCH]),
    "calls of a host function": (endless("a loop of a host function"), "spin", [TOUCH]),
    "in a host function": (endless("a loop of a host function"), "spin", [naps]),
    "a sleep in WASI": (sleeping_guest("sleep", *SLEEPS["four seconds"]), "sleep", []),
    "while it is started": (endless("a loop", "_initialize").replace("quick", "spin"), "spin", [TOUCH]),
}
for name, (source, function, functions) in guests.items():
    plugin = Plugin(source, wasi=True, functions=functions)
    if name != "while it is started":
        assert plugin.call("quick") == b""
    took = []
    while not took or took[-1] >= 0.2 and len(took) < 5:
        took.append(times())
    again = name == "while it is started" or plugin.call("quick") == b""
    print(name, "|", min(took) < 0.2 or took, "|", again)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX signals")
def test_ctrl_c_ends_long_call() -> None:
    """Ctrl-C ends a long call in the main thread within a fifth of a second, and the plugin
    stays usable."""
    script = INTERRUPTED
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert [line.split(" | ", 1)[1] for line in done.stdout.splitlines()] == ["True | True"] * 8, (
        done.stdout
    )


# ---- 9. fork -------------------------------------------------------------------------------------

FORKED = """
import os, sys, threading, time
import plugwasm
from plugwasm import CompiledPlugin, Plugin
from tests.support.guests import LOOP, export, guest, manifest, number
from tests.support.threads import InThread
from tests.support.waiting import soon
from tests.security.test_time import TOUCH, endless
fuel = {fuel}

made = CompiledPlugin(manifest(endless("a loop"), timeout_ms=150), functions=[TOUCH], fuel_limit=fuel)
plugins = [Plugin(made) for _ in range(8)]
for plugin in plugins:
    for i in range(3):
        assert number(plugin.call("count")) == i + 1

def use(before):
    for plugin in plugins:
        assert number(plugin.call("count")) == before + 1, "the instance and its state are there"
    try:
        plugins[0].call("spin")
        raise AssertionError
    except plugwasm.TimeoutError:
        pass
    call = InThread(plugins[7].call, "spin")
    assert soon(plugins[7].cancel_handle().cancel)
    try:
        call.result()
        raise AssertionError
    except plugwasm.CancelledError:
        pass
    assert number(plugins[0].call("count")) == number(plugins[7].call("count")) == 1
    assert number(plugins[1].call("count")) == before + 2
    with Plugin(made) as fresh:
        assert number(fresh.call("count")) == 1
    with Plugin(endless("two loops"), functions=[TOUCH]) as compiled_here:
        assert number(compiled_here.call("count")) == 1

def child(work):
    pid = os.fork()
    if not pid:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return pid

children = [child(lambda: use(3)) for _ in range(3)]
use(3)
print([os.waitpid(pid, 0)[1] for pid in children])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="os.fork")
@pytest.mark.parametrize("fuel", [None, 10**15], ids=["without fuel", "with fuel"])
def test_fork_with_live_plugins(fuel: int | None) -> None:
    """After a fork, the live plugins of parent and children work independently."""
    script = FORKED.format(fuel=fuel)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[0, 0, 0]\n"


# ---- 10. fuel ------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_fuel_limit_ends_call(way: str) -> None:
    """A fuel limit ends a call whatever it does, and all of the fuel is used."""
    made = compiled(endless(way), fields={"memory": {"max_pages": 1200}}, fuel_limit=100_000)
    with Plugin(made) as plugin:
        for _ in range(2):
            assert number(plugin.call("count")) == 1
            with pytest.raises(OutOfFuelError, match="`spin` of plugin `plugin` used up its fuel"):
                plugin.call("spin")
            assert plugin.fuel_used == 100_000


@pytest.mark.parametrize("where", STARTS)
def test_fuel_limit_ends_start(where: str) -> None:
    """A fuel limit ends an endless start."""
    with Plugin(manifest(*STARTS[where]), fuel_limit=100_000) as plugin:
        for _ in range(2):
            with pytest.raises(OutOfFuelError):
                plugin.call("quick")
            assert plugin.fuel_used == 100_000


def burning_guest(ending: str) -> str:
    return guest(
        export(
            "burn",
            f"""(loop $next (br_if $next (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 10000)))) {ending}""",
            "(local $i i32)",
        )
        + "(tag $thrown)",
        '(import "extism:host/user" "fails" (func $fails))',
    )


ENDINGS = {
    "by itself": "",
    "in a trap": "unreachable",
    "in an error of the guest": "(call $error_set <<no>>)",
    "in a bad handle": "(call $output_set (i64.const 99999999) (i64.const 1))",
    "in an exception that nobody catches": "(throw $thrown)",
    "in a host function that raises": "(call $fails)",
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_fuel_used_is_reported(ending: str) -> None:
    """The fuel that a call used is reported however it ended."""

    def fails(*_: Any) -> None:
        raise LookupError

    with Plugin(
        burning_guest(ENDINGS[ending]),
        functions=[Function(None, "fails", [], [], fails)],
        fuel_limit=10**7,
    ) as plugin:
        for _ in range(2):
            try:
                plugin.call("burn")
            except plugwasm.Error as error:
                assert ending != "by itself", error
            else:
                assert ending == "by itself"
            assert plugin.fuel_used is not None
            assert 10_000 < plugin.fuel_used < 200_000


@pytest.mark.parametrize("size", [10, 1000, 20_000])
def test_fuel_of_bulk_operations(size: int) -> None:
    """Bulk operations use fuel in proportion to their size."""
    source = guest(
        export("fill", f"(memory.fill (i32.const 0) (i32.const 1) (i32.const {size}))")
        + export("copy", f"(memory.copy (i32.const 0) (i32.const 100000) (i32.const {size}))")
        + export("table", f"(table.fill $t (i32.const 0) (ref.null func) (i32.const {size}))")
        + export("nothing", "")
        + TABLE,
        memory=BIG,
    )
    with Plugin(source, fuel_limit=10**9) as plugin:
        plugin.call("nothing")
        least = plugin.fuel_used or 0
        for name in ("fill", "copy", "table"):
            plugin.call(name)
            assert size <= (plugin.fuel_used or 0) - least < size + 100


def test_fuel_is_per_plugin() -> None:
    """Fuel used by one plugin is still available to another of the same compiled plugin."""
    made = compiled(endless("a loop"), fuel_limit=100_000)
    with Plugin(made) as a, Plugin(made) as b:
        with pytest.raises(OutOfFuelError):
            a.call("spin")
        assert number(b.call("count")) == 1
        assert (b.fuel_used or 0) < 1000
        assert a.fuel_used == 100_000
