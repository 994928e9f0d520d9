"""Stacks of guests, of Python and of threads: whichever is exhausted, a call ends with an error
(`docs/security.md`, 17 and 18).

A stack overflow kills the process, so all of this runs in child processes: one for each size of a
thread's stack, which forks for each case.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Annotated, Any

import pytest

import plugwasm
import plugwasm._host.registry
from plugwasm import CompiledPlugin, Function, Plugin
from tests.support.guests import guest
from tests.support.paths import ROOT

KIB = 1024

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the cases are forked")

NORMAL_LIMIT = 1000
"""Of Python's recursion."""
FRAME = 50
"""About how many bytes of stack a level of `$deep` takes, at most; the tests need only the order of it."""
ALMOST = 512 * KIB // FRAME * 3 // 4
"""Levels that use up most of a guest's own stack."""

GUEST = guest(
    """(func $deep (param $levels i64) (result i64)
      (local $a i64) (local $b v128) (local $c v128)
      (local.set $a (local.get $levels))
      (if (i64.ne (local.get $levels) (i64.const 0)) (then (local.set $a (call $deep (i64.sub (local.get $levels) (i64.const 1)))))
        (else (call $out)))
      (i64.add (local.get $a) (i64.const 1)))
    (func $always (param $levels i64) (result i64) (call $out)
      (i64.add (call $always (i64.add (local.get $levels) (i64.const 1))) (i64.const 1)))
    (func $allocs (param $levels i64) (result i64) (drop (call $alloc (i64.const 10)))
      (i64.add (call $allocs (i64.add (local.get $levels) (i64.const 1))) (i64.const 1)))
    (func $logs (param $levels i64) (result i64) (call $log_error <<deep>>)
      (i64.add (call $logs (i64.add (local.get $levels) (i64.const 1))) (i64.const 1)))
    (func $ends (param $levels i64) (result i64)
      (i64.add (call $ends (i64.add (local.get $levels) (i64.const 1))) (i64.const 1)))
    (func (export "quick") (call $echo))
    (func (export "out") (call $out))
    (func (export "deep_by") (call $answer (call $deep (call $input_load_u64 (i64.const 0)))))
    (func (export "json") (call $json (call $brackets)))
    (func (export "deep_json") (drop (call $down_to_json (i64.const ALMOST))))
    (func $down_to_json (param $levels i64) (result i64)
      (if (i64.ne (local.get $levels) (i64.const 0))
        (then (drop (call $down_to_json (i64.sub (local.get $levels) (i64.const 1)))))
        (else (call $json (call $brackets))))
      (local.get $levels))
    (func $brackets (result i64) (local $block i64) (local $i i64)
      (local.set $block (call $alloc (i64.const 1000000)))
      (loop $next (call $store_u8 (i64.add (local.get $block) (local.get $i)) (i32.const 91))
        (br_if $next (i64.ne (local.tee $i (i64.add (local.get $i) (i64.const 1))) (i64.const 1000000))))
      (local.get $block))
    (func (export "ends") (drop (call $ends (i64.const 0))))
    (func (export "always") (drop (call $always (i64.const 0))))
    (func (export "allocs") (drop (call $allocs (i64.const 0))))
    (func (export "logs") (drop (call $logs (i64.const 0))))""",
    '(import "extism:host/user" "out" (func $out))',
    '(import "extism:host/user" "json" (func $json (param i64)))',
).replace("ALMOST", str(ALMOST))
"""Most exports go down without end. `deep_by` goes down so many levels and calls the host from there; `json` passes a million brackets."""

DEPTH = 100_000
BODY = b"\0" + b"\x02\x40" * DEPTH + b"\x0b" * DEPTH + b"\x0b"


def leb(value: int) -> bytes:
    return bytes(value >> shift & 127 | 128 for shift in (0, 7, 14, 21)) + bytes([value >> 28])


NESTED = (
    b"\0asm\1\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x07\x09\x01\x05quick\0\0\x0a"
    + leb(len(BODY) + 6)
    + b"\x01"
    + leb(len(BODY))
    + BODY
)
"""A module whose export `quick` is blocks in blocks, in the binary format."""

hosts: list[Callable[[], object]] = [lambda: None]
"""What the host function does: the last one."""
OUT = Function(None, "out", [], [], lambda *_: hosts[-1]())


@plugwasm.host_fn()
def json(value: Annotated[Any, plugwasm.Json]) -> None: ...


del plugwasm._host.registry.registered[-1:]
FUNCTIONS = [OUT, json]


def levels(count: int) -> bytes:
    return count.to_bytes(8, "little")


# ---- the cases -----------------------------------------------------------------------------------


Way = Callable[[int, Callable[[], Any]], Any]


def through_sorted(depth: int, last: Callable[[], Any]) -> Any:
    """Recurse through C at each level, as a comparison or a callback does."""
    if depth == 0:
        return last()
    found: list[Any] = []
    sorted([0], key=lambda _: found.append(through_sorted(depth - 1, last)) or 0)
    return found[0]


def through_generators(depth: int, last: Callable[[], Any]) -> Any:
    def one(depth: int) -> Any:
        yield last() if depth == 0 else next(one(depth - 1))

    return next(one(depth))


def through_python(depth: int, last: Callable[[], Any]) -> Any:
    return last() if depth == 0 else through_python(depth - 1, last)


WAYS: dict[str, Way] = {
    "sorted": through_sorted,
    "generators": through_generators,
    "Python": through_python,
}


def with_host(function: Callable[[], object], call: Callable[[], Any]) -> Any:
    hosts.append(function)
    try:
        return call()
    finally:
        hosts.pop()


def call_in_turn(
    first: CompiledPlugin,
    second: CompiledPlugin,
    down: int,
    way: Way,
    between: int,
    most: int = 10**9,
) -> int:
    """Call two plugins alternately, a fresh one for each level, each recursing before it calls
    out. Return the depth."""
    depth = 0

    def next_level() -> None:
        nonlocal depth
        if depth < most:
            depth += 1
            with Plugin((first, second)[depth % 2]) as plugin:
                way(between, lambda: plugin.call("deep_by", levels(down)))

    with_host(next_level, next_level)
    return depth


def cases(
    plugin: Plugin, compiled: CompiledPlugin, other: CompiledPlugin
) -> dict[str, Callable[[], Any]]:
    """Return what a plugin can do to the stack, and what an application can do to it on the way."""
    nested = "(block " * 50_000 + ")" * 50_000
    made: dict[str, Callable[[], Any]] = {
        "works: a call": lambda: plugin.call("quick", b"x"),
        "works: a first call": lambda: Plugin(compiled).call("quick", b"x"),
        "works: a module is compiled": lambda: Plugin(
            GUEST.replace("deep_by", "down_by"), functions=FUNCTIONS
        ).call("quick", b"x"),
        "works: a host function": lambda: plugin.call("out"),
        "any: a module with deep blocks": lambda: Plugin(
            f'(module (func (export "quick") {nested}))'
        ).call("quick"),
        "any: a module with deep blocks, in binary": lambda: Plugin(NESTED).call("quick"),
        "ends: recursion": lambda: plugin.call("ends"),
        "ends: recursion with alloc": lambda: plugin.call("allocs"),
        "ends: recursion with a host function": lambda: plugin.call("always"),
        "ends: recursion with logs": lambda: plugin.call("logs"),
        "ends: recursion in a first call": lambda: Plugin(compiled).call("ends"),
        "ends: deep JSON for a host function": lambda: plugin.call("json"),
        "ends: deep JSON for a host function from deep in the guest": lambda: plugin.call(
            "deep_json"
        ),
    }
    for name, way in WAYS.items():
        for where, down in (("", 0), (" from deep in the guest", ALMOST)):
            made[f"python: a host function recurses through {name}{where}"] = (
                lambda way=way, down=down: with_host(
                    lambda: way(10**9, lambda: None), lambda: plugin.call("deep_by", levels(down))
                )
            )
        for down in (0, ALMOST // 8, ALMOST):
            made[f"ends: plugins in turn, each {down} levels down, through {name}"] = (
                lambda way=way, down=down: call_in_turn(compiled, other, down, way, 3)
            )
    made["python: plugins in turn, each below 100 levels of C"] = lambda: call_in_turn(
        compiled, other, 10, through_sorted, 100
    )
    made["app: recursion below 100 levels of C, after a call from higher up"] = lambda: (
        plugin.call("quick"),
        through_sorted(100, lambda: plugin.call("ends")),
    )
    made["works: three plugins in turn"] = lambda: call_in_turn(
        compiled, other, 10, through_python, 1, most=3
    )
    made["nested: three plugins in turn, each deep in the guest"] = lambda: call_in_turn(
        compiled, other, ALMOST, through_python, 1, most=3
    )
    return made


def outcome(case: Callable[[], Any]) -> str:
    """Return "ok", or the class of the error and of its innermost cause."""
    # Classes are looked for one by one: for several at once, Python 3.14 has no room at the end of
    # a stack.
    try:
        case()
    except Exception as error:
        if plugwasm.Error not in type(error).__mro__ and type(error) is not RecursionError:
            raise
        last: BaseException = error
        while last.__cause__ is not None:
            last = last.__cause__
        # ValueError is for what is no JSON.
        if not {plugwasm.Error, RecursionError, ValueError} & {*type(last).__mro__}:
            return f"NOT OURS: {type(error).__name__} of {last!r}"[:1000]
        return (
            type(error).__name__
            if last is error
            else f"{type(error).__name__} of {type(last).__name__}"
        )
    return "ok"


def run_forked(case: Callable[[], Any]) -> str:
    """Run it in a forked child, which must end by itself, and return its result."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        faulthandler.disable()
        time.sleep(0.003)  # after which the engine notices it
        try:
            os.write(writer, outcome(case).encode())
        except BaseException as error:
            os.write(writer, f"NOT OURS: {error!r}"[:1000].encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as file:
        text = file.read().decode()
    status = os.waitpid(pid, 0)[1]
    return (
        text
        if status == 0
        else f"KILLED by {signal.Signals(status & 127).name}"
        if status & 127
        else f"ENDED with {status}"
    )


def deepest(way: Way) -> int:
    """Return roughly how many levels the application itself can recurse on this stack."""
    low, high = 0, 1 << 20
    while high - low > max(low // 50, 1):
        middle = (low + high) // 2
        if run_forked(lambda: way(middle, lambda: None)) == "ok":
            low = middle
        else:
            high = middle
    return low


def child(kib: int, limit: int) -> None:
    """Print the result of every case on a thread with a stack of that size; 0 is the main thread.

    A limit is the recursion limit of an application that calls the plugin from deep in its own
    stack.
    """
    logging.getLogger("plugwasm").addHandler(logging.NullHandler())
    logging.getLogger("plugwasm").propagate = False
    compiled = CompiledPlugin(
        {"wasm": [{"data": GUEST.encode()}], "timeout_ms": 20_000}, functions=FUNCTIONS
    )
    other = CompiledPlugin(GUEST + " ", functions=FUNCTIONS)
    plugin = Plugin(compiled)
    plugin.call("quick")
    Plugin(other).call("quick")

    def run() -> None:
        made = cases(plugin, compiled, other)
        if not limit:
            for name, case in made.items():
                print(name, "|", run_forked(case), flush=True)
            return
        sys.setrecursionlimit(limit)
        most = deepest(through_sorted)
        tried = "works", "ends: recursion", "ends: deep", "ends: plugins in turn, each 0"
        depths = [int(most * part) for part in (0.5, 0.9, 0.95, 0.97)]
        if limit == NORMAL_LIMIT:  # where Python itself ends it
            tried = "works: a call", "works: a first call", "ends: recursion in a first call"
            depths = list(range(most - 14, most + 14))
        for depth in depths:
            for name, case in made.items():
                if name.startswith(tried):
                    print(
                        f"{name}, {depth} levels down of {most}",
                        "|",
                        run_forked(lambda case=case: through_sorted(depth, case)),
                    )

    if not kib:
        run()
        return
    threading.stack_size(kib * KIB)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()


def usual_stack() -> None:
    resource.setrlimit(
        resource.RLIMIT_STACK, (8 * KIB * KIB, resource.getrlimit(resource.RLIMIT_STACK)[1])
    )


def outcomes(kib: int, limit: int = 0) -> dict[str, str]:
    code = f"import tests.security.test_stack as tests; tests.child({kib}, {limit})"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-X", "faulthandler", "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=100,
        preexec_fn=usual_stack,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = dict(line.split(" | ") for line in done.stdout.splitlines())
    assert len(found) > 20, "every case said what came of it"
    return found


# ---- the tests -----------------------------------------------------------------------------------


def fatal_cases(found: dict[str, str], left_out: tuple[str, ...] = ()) -> str:
    """Return the cases that ended with a signal or an unexpected error."""
    bad = (
        f"{name}: {what}" for name, what in found.items() if "KILLED" in what or "NOT OURS" in what
    )
    return "\n".join(line for line in bad if not line.startswith(left_out))


def can_start(kib: int) -> bool:
    """Return whether Python makes threads with such a stack; from 3.14 on, 52 KiB are the least."""
    before = threading.stack_size()
    try:
        threading.stack_size(kib * KIB)
    except ValueError:
        return False
    threading.stack_size(before)
    return True


STACKS = [*filter(can_start, [32, 56, 64, 80, 96]), 128, 256, 512, 768, 1024, 4096, 0]


@pytest.fixture(
    scope="module", params=STACKS, ids=lambda kib: f"{kib} KiB" if kib else "main thread"
)
def run_on_stack(request: pytest.FixtureRequest) -> tuple[int, dict[str, str]]:
    return request.param, outcomes(request.param)


def test_any_stack_keeps_process_alive(run_on_stack: tuple[int, dict[str, str]]) -> None:
    """Nothing that a plugin does on a stack of any size kills the process."""
    kib, found = run_on_stack
    # What Python alone would overflow such a stack with is the application's own affair.
    left_out = ("python:", "app:") if 0 < kib < 1024 else ("python:",) if 0 < kib < 4096 else ()
    assert not (bad := fatal_cases(found, left_out)), bad


def test_endless_recursion_is_error(run_on_stack: tuple[int, dict[str, str]]) -> None:
    """Endless recursion is an error."""
    _, found = run_on_stack
    assert {
        name: what for name, what in found.items() if name.startswith("ends:") and what == "ok"
    } == {}


def test_usual_stack_suffices(run_on_stack: tuple[int, dict[str, str]]) -> None:
    """On a stack of usual size, calls work and plugins can call plugins."""
    kib, found = run_on_stack
    if not 0 < kib < 1024:
        assert {
            name: what for name, what in found.items() if name.startswith("works:") and what != "ok"
        } == {}
        assert {what for name, what in found.items() if name.startswith("ends: recursion")} == {
            "TrapError"
        }
    if not kib:
        assert found["nested: three plugins in turn, each deep in the guest"] == "ok"


@pytest.mark.parametrize("limit", [NORMAL_LIMIT, 10**6])
def test_call_from_deep_python_stack(limit: int) -> None:
    """A plugin can be called from any depth of a recursive application."""
    found = outcomes(0, limit)
    assert not (bad := fatal_cases(found)), bad
    assert "ok" in found.values()
