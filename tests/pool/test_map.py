"""`map` of a pool: one export over many inputs, in threads and in event loops."""

from __future__ import annotations

import gc
import itertools
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import anyio
import pytest

from plugwasm import (
    ClosedError,
    GuestError,
    Limits,
    PluginPool,
    host_fn,
)
from tests.support.event_loops import both, run_in_loop
from tests.support.guests import LOOP, export, guest
from tests.support.paths import ROOT
from tests.support.pools import BODY, COUNT
from tests.support.threads import InThread
from tests.support.waiting import soon

SPIN_ON_S = export(
    "rest_or_spin",
    f"(if (i32.eq (call $input_load_u8 (i64.const 0)) (i32.const 115)) (then {LOOP})) (call $rest) (call $echo)",
)
REST = guest(
    BODY + SPIN_ON_S + export("rest", "(call $rest) (call $echo)"),
    '(import "extism:host/user" "rest" (func $rest))',
)
SIFT = guest(
    export("sift", "(call $give (call $sift (call $input_offset)))"),
    '(import "extism:host/user" "sift" (func $sift (param i64) (result i64)))',
)


def make_resting_pool(rest: Callable[[], Any], **options: Any) -> PluginPool:
    """Return a pool whose `rest` calls the function and then echoes its input."""
    rest.__annotations__.setdefault("return", None)
    return PluginPool(REST, functions=[host_fn(name="rest")(rest)], **options)


def make_sifting_pool(sift: Callable[..., Any], **options: Any) -> PluginPool:
    """Return a pool whose `sift` outputs the function's result for the input."""
    return PluginPool(SIFT, functions=[host_fn(name="sift")(sift)], **options)


class Gate:
    """A host function whose calls wait until it is opened, and that counts them."""

    def __init__(self) -> None:
        self.entered = 0
        self._lock = threading.Lock()
        self._opened = threading.Event()

    def __call__(self) -> None:
        with self._lock:
            self.entered += 1
        assert self._opened.wait(20)

    def open(self) -> None:
        self._opened.set()

    def pool(self, **options: Any) -> PluginPool:
        return make_resting_pool(lambda: self(), **options)


@contextmanager
def small_stacks() -> Iterator[None]:
    """Make threads get a stack too small for a guest, unless their creator sets the size."""
    before = threading.stack_size(256 * 1024)
    try:
        yield
    finally:
        threading.stack_size(before)


# One export over many inputs


def test_map_keeps_order() -> None:
    """`map` yields outputs in the order of the inputs."""

    def sift(text: str) -> str:
        time.sleep(0.001 * (int(text) % 5))
        return text + "!"

    for workers in (1, 2, 4, None):
        with make_sifting_pool(sift, size=4) as pool:
            outputs = pool.map("sift", map(str, range(60)), workers=workers)
            assert list(outputs) == [f"{i}!".encode() for i in range(60)]
            assert pool.stats[2:4] == (0, 0)


def test_map_uses_all_workers() -> None:
    """`map` uses as many plugins at once as it has workers."""
    for workers in (2, 3):
        gate = Gate()
        with gate.pool(size=3) as pool:
            mapping = InThread(list, pool.map("rest", [b"x"] * 9, workers=workers))
            assert soon(lambda: gate.entered == workers, 20)
            time.sleep(0.05)
            assert gate.entered == workers
            gate.open()
            assert mapping.result() == [b"x"] * 9


@pytest.mark.parametrize("workers", [1, 3])
def test_map_bounds_inputs_ahead(workers: int) -> None:
    """`map` reads a bounded number of inputs ahead from an endless source."""
    taken = 0

    def source() -> Iterator[bytes]:
        nonlocal taken
        for taken in itertools.count(1):
            yield str(taken).encode()

    with PluginPool(COUNT, size=3) as pool:
        outputs = pool.map("echo", source(), workers=workers, ahead=5)
        assert taken == 0
        for read in range(1, 50):
            assert next(outputs) == str(read).encode()
            assert taken <= read + 5
        outputs.close()
        assert pool.stats[2:4] == (0, 0)


def test_map_keeps_workers_busy() -> None:
    """`map` keeps all workers busy while its outputs are read."""
    running, most = 0, []
    lock = threading.Lock()

    def sift(text: str) -> str:
        nonlocal running
        with lock:
            running += 1
            most.append(running)
        time.sleep(0.02)
        with lock:
            running -= 1
        return text

    with make_sifting_pool(sift, size=3) as pool:
        for _ in pool.map("sift", map(str, range(40))):
            time.sleep(0.002)
    assert max(most) == 3
    assert sum(number == 3 for number in most) > 10


@pytest.mark.parametrize("workers", [1, 2])
def test_first_error_ends_map(workers: int) -> None:
    """The first error in input order ends a map."""
    with PluginPool(COUNT, size=2) as pool:
        outputs = pool.map("judge", [b"a", b"b", b"x", b"d", b"x"], workers=workers)
        assert [next(outputs), next(outputs)] == [b"a", b"b"]
        with pytest.raises(GuestError, match="no x") as caught:
            next(outputs)
        assert caught.value.__notes__ == ["It was the call for input 2, counted from 0."]
        assert list(outputs) == []
        assert pool.stats[2:4] == (0, 0)


@pytest.mark.parametrize("workers", [1, 2])
def test_errors_can_be_yielded(workers: int) -> None:
    """Errors can be yielded in the place of outputs."""
    with PluginPool(COUNT, size=2) as pool:
        outputs = list(
            pool.map("judge", [b"a", b"x", b"c", b"x"], workers=workers, return_exceptions=True)
        )
        assert outputs[0::2] == [b"a", b"c"]
        assert [type(output) for output in outputs[1::2]] == [GuestError, GuestError]
        assert (
            list(pool.map("trap", [b""] * 3, workers=workers, return_exceptions=True))[2].trap
            == "unreachable"
        )


@pytest.mark.parametrize("workers", [1, 2])
def test_error_of_inputs_comes_last(workers: int) -> None:
    """An error of the inputs is raised after the outputs before it."""

    def source() -> Iterator[bytes]:
        yield from (b"1", b"2", b"3")
        raise LookupError("no more")

    with PluginPool(COUNT, size=2) as pool:
        outputs = pool.map("echo", source(), workers=workers)
        assert [next(outputs) for _ in range(3)] == [b"1", b"2", b"3"]
        with pytest.raises(LookupError, match="no more"):
            next(outputs)


@pytest.mark.parametrize("end", ["close", "drop"])
def test_ended_map_cancels_its_calls(end: str) -> None:
    """A map that ends early cancels its running calls."""
    with make_resting_pool(lambda: time.sleep(0.05), size=2) as pool:
        outputs = pool.map("rest_or_spin", itertools.chain([b"a"], itertools.repeat(b"s")))
        assert next(outputs) == b"a"
        assert soon(lambda: pool.stats.busy == 2)
        if end == "close":
            outputs.close()
        del outputs
        assert pool.stats[2:4] == (0, 0)
        assert pool.call("echo", b"usable") == b"usable"


def test_ended_map_begins_no_calls() -> None:
    """A map that has ended begins no more calls."""
    begun: list[str] = []

    def sift(text: str) -> str:
        begun.append(text)
        time.sleep(0.01)
        return text

    with make_sifting_pool(sift, size=2) as pool:
        outputs = pool.map("sift", map(str, itertools.count()), ahead=50)
        assert [next(outputs), next(outputs)] == [b"0", b"1"]
        outputs.close()
        at_the_end = len(begun)
        time.sleep(0.1)
        assert len(begun) == at_the_end < 50


def test_closing_the_pool_ends_a_map() -> None:
    with PluginPool(COUNT, size=2) as pool:
        mapping = InThread(list, pool.map("spin", itertools.repeat(b""), return_exceptions=True))
        assert soon(lambda: pool.stats.busy == 2)
        pool.close()
        with pytest.raises(ClosedError):
            mapping.result()


@pytest.mark.parametrize("workers", [1, 2])
def test_progress_before_each_output(workers: int) -> None:
    """Progress is reported before each output."""
    seen: list[tuple[int, int | None]] = []
    with PluginPool(COUNT, size=2) as pool:
        for inputs, total in (([b"a", b"b", b"c"], 3), (iter([b"a", b"b", b"c"]), None)):
            seen.clear()
            for place, _ in enumerate(
                pool.map(
                    "echo",
                    inputs,
                    workers=workers,
                    on_progress=lambda done, total: seen.append((done, total)),
                ),
                1,
            ):
                assert seen == [(n, total) for n in range(1, place + 1)]
            assert len(seen) == 3


@pytest.mark.parametrize("workers", [1, 2])
def test_progress_exception_ends_map(workers: int) -> None:
    """An exception of the progress callback ends the map."""

    def on_progress(done: int, total: int | None) -> None:
        if done == 2:
            raise LookupError("seen enough")

    with PluginPool(COUNT, size=2) as pool:
        outputs = pool.map("echo", itertools.repeat(b"x"), workers=workers, on_progress=on_progress)
        assert next(outputs) == b"x"
        with pytest.raises(LookupError, match="seen enough"):
            next(outputs)
        assert list(outputs) == []
        assert pool.stats[2:4] == (0, 0)


@pytest.mark.parametrize(
    "argument", [{"workers": 0}, {"ahead": 0}, {"workers": 1.5}, {"wait": -1}], ids=str
)
def test_a_map_refuses_nonsense_at_once(argument: dict[str, Any]) -> None:
    with PluginPool(COUNT, size=2) as pool, pytest.raises(ValueError):
        pool.map("echo", [b""], **argument)


def test_two_maps_share_pool() -> None:
    """Two maps and other callers can share a pool."""
    with PluginPool(COUNT, size=2) as pool:
        one, two = (pool.map("echo", [f"{m} {i}" for i in range(40)]) for m in "ab")
        pairs = []
        for pair in zip(one, two, strict=True):
            pairs.append(pair)
            assert pool.call("echo", b"between") == b"between"
        assert pairs == [(f"a {i}".encode(), f"b {i}".encode()) for i in range(40)]


def test_context_of_caller() -> None:
    """The calls of a map see the caller's context variables."""
    from contextvars import ContextVar

    user: ContextVar[str] = ContextVar("user")

    def sift(text: str) -> str:
        return user.get() + text

    user.set("ada ")
    with make_sifting_pool(sift, size=2) as pool:
        assert list(pool.map("sift", ["1", "2", "3"])) == [b"ada 1", b"ada 2", b"ada 3"]


def test_short_calls_in_reading_thread() -> None:
    """Short calls of a map run in the thread that reads."""
    callers: list[int] = []

    def sift(text: str) -> str:
        callers.append(threading.get_ident())
        return text

    with make_sifting_pool(sift, size=2) as pool:
        assert list(pool.map("sift", map(str, range(2000)))) == [
            str(i).encode() for i in range(2000)
        ]
        assert callers.count(threading.get_ident()) > 1000
        callers.clear()
        with small_stacks():
            assert InThread(lambda: list(pool.map("sift", map(str, range(100))))).result() == [
                str(i).encode() for i in range(100)
            ]
    assert len(callers) == 100


@pytest.mark.parametrize("short", [0, 1, 500])
def test_long_calls_run_concurrently(short: int) -> None:
    """Long calls of a map run concurrently, whatever calls came before."""
    gates = {"long": threading.Event(), "longer": threading.Event()}
    running, most, lock = 0, 0, threading.Lock()

    def sift(text: str) -> str:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        assert text == "short" or gates[text].wait(20)
        with lock:
            running -= 1
        return text

    inputs = (["short"] * short + ["long"] * 6) + (["short"] * short + ["longer"] * 6)
    with make_sifting_pool(sift, size=4) as pool:
        mapping = InThread(lambda: list(pool.map("sift", inputs, workers=3)))
        for gate in gates.values():
            assert soon(lambda: running == 3, 20)
            time.sleep(0.02)
            gate.set()
        assert mapping.result() == [text.encode() for text in inputs]
    assert most == 3


def test_calls_run_while_reader_waits() -> None:
    """Calls run concurrently while the reader waits for inputs or does other work."""
    gate, running, lock = threading.Event(), 0, threading.Lock()

    def sift(text: str) -> str:
        nonlocal running
        if text == "long":
            with lock:
                running += 1
            assert gate.wait(20)
        return text

    def source() -> Iterator[str]:
        yield from ["long"] * 3
        assert soon(lambda: running == 3, 20)
        gate.set()

    with make_sifting_pool(sift, size=3) as pool:
        assert list(pool.map("sift", source())) == [b"long"] * 3
        gate.clear()
        running = 0
        outputs = pool.map("sift", ["short"] * 100 + ["long"] * 3)
        for _ in range(100):
            next(outputs)
        assert soon(lambda: running == 3, 20)
        gate.set()
        assert list(outputs) == [b"long"] * 3


def test_short_calls_run_ahead() -> None:
    """Short calls are made ahead while the reader does other work."""
    made: list[str] = []

    def sift(text: str) -> str:
        made.append(text)
        return text

    with make_sifting_pool(sift, size=2) as pool:
        outputs = pool.map("sift", map(str, itertools.count()), ahead=6)
        for read in range(40):
            assert next(outputs) == str(read).encode()
        assert soon(lambda: len(made) == 45, 20)
        assert soon(lambda: pool.stats.busy == 0, 20)
        outputs.close()
    assert sorted(map(int, made)) == list(range(45))


def test_output_before_long_calls() -> None:
    """An output is available while the calls after it still run."""
    with make_resting_pool(lambda: None, size=2) as pool:
        for inputs in (["a", "s", "s"], ["a"] * 20 + ["s"] * 9):
            outputs = pool.map("rest_or_spin", inputs)
            for _ in range(inputs.count("a")):
                assert next(outputs) == b"a"
            outputs.close()
            assert pool.stats[2:4] == (0, 0)


def test_map_without_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A map works without threads if none can be started."""
    refused: list[Callable[[], object]] = []
    callers: list[int] = []

    def refuse(work: Callable[..., object], *args: Any) -> None:
        refused.append(partial(work, *args))
        raise RuntimeError("can't start new thread")

    def sift(text: str) -> str:
        callers.append(threading.get_ident())
        return text

    def source() -> Iterator[str]:
        for i in range(50):
            yield str(i)
            for work in refused[:3]:  # as an executor does that finds a thread after all
                InThread(work).result()

    monkeypatch.setattr("plugwasm._pool.map_workers.submit", refuse)
    with make_sifting_pool(sift, size=2) as pool:
        assert list(pool.map("sift", source())) == [str(i).encode() for i in range(50)]
    assert refused
    assert set(callers) == {threading.get_ident()}


def test_plugin_stays_free_beside_map() -> None:
    """A map alone in its pool finds a free plugin at any time."""
    sleeps = [0.0] * 30 + [0.0001] * 10 + [0.001] * 5

    def sift(text: str) -> str:
        if sleep := sleeps[
            int(text) * 7 % len(sleeps) if int(text) > 500 else int(text) % len(sleeps)
        ]:
            time.sleep(sleep)
        return text

    with make_sifting_pool(sift, size=3) as pool:
        for workers in (2, 3):
            outputs = list(pool.map("sift", map(str, range(1000)), workers=workers, wait=0))
            assert outputs == [str(i).encode() for i in range(1000)]


def test_contexts_do_not_mix() -> None:
    """No call of a map sees the context of another."""
    from contextvars import ContextVar

    last: ContextVar[str] = ContextVar("last", default="none")

    def sift(text: str) -> str:
        before = last.get()
        last.set(text)
        return before

    with make_sifting_pool(sift, size=2) as pool:
        assert set(pool.map("sift", map(str, range(100)))) == {b"none"}
    assert last.get() == "none"


def test_collected_in_worker_thread() -> None:
    """The garbage collector may end a map in one of its own threads."""
    is_dropped, collected = threading.Event(), threading.Event()
    reader = threading.get_ident()

    def sift(text: str) -> str:
        if threading.get_ident() != reader and is_dropped.wait(20):
            gc.collect()
            collected.set()
        return text

    with make_sifting_pool(sift, size=2, limits=None) as pool:
        outputs = pool.map("sift", map(str, itertools.count()))
        cycle: list[Any] = [outputs]
        cycle.append(cycle)
        assert next(outputs) == b"0"
        gc.disable()
        try:
            del outputs, cycle
            is_dropped.set()
            assert collected.wait(20)
        finally:
            gc.enable()
        assert soon(lambda: pool.stats[2:4] == (0, 0), 20)
        assert pool.call("sift", "usable") == b"usable"


def test_unfinished_map_lets_python_exit() -> None:
    """An unfinished map does not keep Python from exiting."""
    program = """
import itertools
from plugwasm import PluginPool
pool = PluginPool("examples/echo.wasm", functions=[], size=2)
outputs = pool.map("echo", map(str, itertools.count()))
print(next(outputs))
"""
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=100
    )
    assert (run.stdout, run.stderr, run.returncode) == ("b'0'\n", "", 0)


# The same in tasks


@both
def test_map_async_keeps_order(backend: str) -> None:
    """`map_async` yields outputs in order."""

    async def sift(text: str) -> str:
        await anyio.sleep(0.001 * (int(text) % 5))
        return text + "!"

    async def texts(count: int) -> AsyncIterator[str]:
        for i in range(count):
            await anyio.sleep(0)
            yield str(i)

    async def main() -> None:
        async with make_sifting_pool(sift, size=4) as pool:
            for inputs in (texts(30), map(str, range(30)), [str(i) for i in range(30)]):
                for workers in (1, None):
                    if workers == 1 and not isinstance(inputs, list):
                        continue
                    async with pool.map_async("sift", inputs, workers=workers) as outputs:
                        assert [output async for output in outputs] == [
                            f"{i}!".encode() for i in range(30)
                        ]
            assert pool.stats[2:4] == (0, 0)

    run_in_loop(backend, main)


@both
def test_map_async_bounds_inputs_ahead(backend: str) -> None:
    """`map_async` reads a bounded number of inputs ahead and can end early."""
    taken = 0

    def source() -> Iterator[bytes]:
        nonlocal taken
        for taken in itertools.count(1):
            yield str(taken).encode()

    async def main() -> None:
        async with PluginPool(COUNT, size=3) as pool:
            async with pool.map_async("echo", source(), ahead=5) as outputs:
                for read in range(1, 30):
                    assert await anext(outputs) == str(read).encode()
                    await anyio.sleep(0.002)
                    assert read < taken <= read + 5
            assert pool.stats[2:4] == (0, 0)
            assert [output async for output in outputs] == []

    run_in_loop(backend, main)


@both
def test_slow_inputs_hold_up_no_output(backend: str) -> None:
    """Slow inputs do not delay an output."""

    async def main() -> None:
        more = anyio.Event()

        async def source() -> AsyncIterator[bytes]:
            yield b"1"
            await more.wait()
            yield b"2"

        async with PluginPool(COUNT, size=2) as pool, pool.map_async("echo", source()) as outputs:
            with anyio.fail_after(20):
                assert await anext(outputs) == b"1"
                more.set()
                assert [output async for output in outputs] == [b"2"]

    run_in_loop(backend, main)


@both
def test_errors_of_map_async(backend: str) -> None:
    async def failing() -> AsyncIterator[bytes]:
        yield b"1"
        raise LookupError("no more")

    async def main() -> None:
        async with PluginPool(COUNT, size=2) as pool:
            read = []
            with pytest.raises(GuestError, match="no x") as caught:  # noqa: PT012
                async with pool.map_async("judge", [b"a", b"x", b"c"]) as outputs:
                    async for output in outputs:
                        read.append(output)
            assert read == [b"a"]
            assert caught.value.__notes__ == ["It was the call for input 1, counted from 0."]
            async with pool.map_async("judge", [b"a", b"x"], return_exceptions=True) as outputs:
                assert [type(output) async for output in outputs] == [bytes, GuestError]
            with pytest.raises(LookupError):  # noqa: PT012
                async with pool.map_async("echo", failing()) as outputs:
                    assert await anext(outputs) == b"1"
                    await anext(outputs)
            with pytest.raises(KeyError):
                async with pool.map_async("spin", [b""] * 4) as outputs:
                    raise KeyError("of the block")
            with pytest.raises(RuntimeError, match="async with"):
                await anext(pool.map_async("echo", [b""]))
            seen: list[Any] = []
            async with pool.map_async(
                "echo", [b"a", b"b"], on_progress=lambda *progress: seen.append(progress)
            ) as outputs:
                async for _ in outputs:
                    pass
            assert seen == [(1, 2), (2, 2)]
            with pytest.raises(RuntimeError, match="again"):
                async with outputs:
                    pass
            assert pool.stats[2:4] == (0, 0)

    run_in_loop(backend, main)


@both
def test_map_async_cancel_ends_guests(backend: str) -> None:
    """Cancelling a `map_async` ends its guests."""

    async def main() -> None:
        async with PluginPool(COUNT, size=2) as pool:
            with anyio.move_on_after(0.1) as scope:
                async with pool.map_async("spin", itertools.repeat(b"")) as outputs:
                    await anext(outputs)
            assert scope.cancelled_caught
            assert pool.stats[2:4] == (0, 0)

    run_in_loop(backend, main)


@both
def test_map_async_slow_reader(backend: str) -> None:
    """Async host functions continue while the reader of a map is slow."""

    async def sift(text: str) -> str:
        await anyio.sleep(0.01)
        return text

    async def main() -> None:
        async with (
            make_sifting_pool(sift, size=2, limits=Limits(timeout=2)) as pool,
            pool.map_async("sift", ["1", "2", "3"]) as outputs,
        ):
            assert await anext(outputs) == b"1"
            with anyio.fail_after(20):
                while pool.stats.busy:
                    await anyio.sleep(0.01)
            assert [output async for output in outputs] == [b"2", b"3"]

    run_in_loop(backend, main)
