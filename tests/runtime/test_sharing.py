"""Threads that share a plugin wait in order of arrival, up to their deadlines, and a thread that
would wait for itself gets an error."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import plugwasm
from plugwasm import (
    BusyError,
    CancelledError,
    ClosedError,
    Function,
    HostFunctionError,
    IsolatedPlugin,
    Limits,
    Plugin,
    TimeoutError,
)
from plugwasm._runtime.call_queue import queued_calls
from tests.support.threads import InThread

SOURCE = b"""(module
  (import "extism:host/user" "back" (func $back))
  (import "extism:host/env" "input_length" (func $length (result i64)))
  (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
  (import "extism:host/env" "output_set" (func $output (param i64 i64)))
  (import "extism:host/env" "input_load_u8" (func $load (param i64) (result i32)))
  (import "extism:host/env" "store_u8" (func $store (param i64 i32)))
  (memory (export "memory") 1)
  (func (export "back") (call $back))
  (func (export "spin") (loop $l (br $l)))
  (func (export "echo") (local $at i64)
    (local.set $at (call $alloc (i64.const 1)))
    (call $store (local.get $at) (call $load (i64.const 0)))
    (call $output (local.get $at) (i64.const 1))))"""
KINDS: dict[str, Any] = {
    "a plugin": Plugin,
    "one that is observed": lambda *args, **options: Plugin(
        *args, **options, observe=plugwasm.observing.CallLog()
    ),
    "an isolated one": IsolatedPlugin,
}
SOON = 20.0
"""Seconds; what must not be waited for takes longer."""


def soon(condition: Callable[[], object]) -> bool:
    end = time.monotonic() + SOON
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.002)
    return True


def make_plugin(
    back: Callable[[], object], kind: Any = Plugin, timeout: float | None = None, **options: Any
) -> Any:
    return kind(
        SOURCE,
        functions=[Function(None, "back", [], [], lambda *_: back())],
        limits=Limits(timeout=timeout),
        **options,
    )


class Busy:
    """A plugin whose host function runs until the test ends it."""

    def __init__(self, kind: Any = Plugin, **options: Any) -> None:
        self.entered, self._leave = threading.Event(), threading.Event()
        self.plugin = make_plugin(self._back, kind, **options)
        self.first = InThread(self.plugin.call, "back")
        assert self.entered.wait(SOON)

    def _back(self) -> None:
        self.entered.set()
        assert self._leave.wait(SOON)

    def waits(self, *args: Any, number: int = 1) -> InThread:
        thread = InThread(self.plugin.call, *args)
        assert soon(lambda: len(queued_calls(self.plugin)) == number)
        return thread

    def leave(self) -> None:
        self._leave.set()
        assert self.first.result() == b""


@contextmanager
def busy(kind: Any = Plugin, **options: Any) -> Iterator[Busy]:
    it = Busy(kind, **options)
    try:
        yield it
    finally:
        it._leave.set()
        it.plugin.close()


kinds = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


# ---- taking turns --------------------------------------------------------------------------------


@kinds
def test_second_thread_gets_its_turn(kind: Any) -> None:
    """A second thread's call runs when the current call has ended."""
    with busy(kind) as it:
        second = it.waits("echo", b"2")
        it.leave()
        assert second.result() == b"2"
        assert it.plugin.call("echo", b"3") == b"3"
        assert not queued_calls(it.plugin)


@kinds
def test_first_come_first_served(kind: Any) -> None:
    served: list[int] = []
    with busy(kind) as it:

        def call(number: int) -> None:
            it.plugin.call("echo", b"x", parse=lambda _: served.append(number))

        threads = []
        for number in range(6):
            threads.append(InThread(call, number))
            assert soon(lambda number=number: len(queued_calls(it.plugin)) == number + 1)
        it.leave()
        for thread in threads:
            thread.result()
    assert served == list(range(6))


def test_eager_thread_leaves_turns() -> None:
    """A thread that calls in a loop does not starve others."""
    plugin = make_plugin(lambda: None)
    counts = [0, 0, 0]
    end = time.monotonic() + 1.0

    def work(number: int) -> None:
        while time.monotonic() < end:
            assert plugin.call("echo", b"%d" % number) == b"%d" % number
            counts[number] += 1

    for thread in [InThread(work, number) for number in range(3)]:
        thread.result()
    assert min(counts) > 20
    assert max(counts) < 50 * min(counts), counts


@kinds
def test_threads_are_never_mixed_up(kind: Any) -> None:
    """Many threads can share a plugin: none is refused, and each gets its own output."""
    with make_plugin(lambda: None, kind) as plugin:

        def work(number: int) -> None:
            for _ in range(40):
                assert plugin.call("echo", b"%d" % number) == b"%d" % number

        for thread in [InThread(work, number) for number in range(6)]:
            thread.result()
        assert plugin._idle
        assert not plugin._queue


def test_leased_plugin_in_threads() -> None:
    """Threads can share the plugin of a lease."""
    with plugwasm.PluginPool(
        SOURCE, size=1, functions=[Function(None, "back", [], [], lambda *_: time.sleep(0.1))]
    ) as pool:
        with pool.plugin() as plugin:
            threads = [InThread(plugin.call, "back") for _ in range(3)]
            assert plugin.call("echo", b"1") == b"1"
            for thread in threads:
                thread.result()
        with pool.plugin() as again:
            assert again is plugin


def test_returned_lease_ends_wait() -> None:
    """A thread waiting for a leased plugin gets an error when the lease is returned."""
    with plugwasm.PluginPool(
        SOURCE, size=1, functions=[Function(None, "back", [], [], lambda *_: None)]
    ) as pool:
        with pool.plugin() as plugin:
            first = InThread(plugin.call, "spin")
            assert soon(lambda: not hasattr(plugin, "_idle"))
            second = InThread(plugin.call, "echo", b"2")
            assert soon(lambda: queued_calls(plugin))
        for thread in (first, second):
            with pytest.raises((ClosedError, CancelledError)):
                thread.result()
        assert pool.call("echo", b"x") == b"x"


# ---- the end of waiting --------------------------------------------------------------------------


@kinds
def test_wait_ends_at_deadline(kind: Any) -> None:
    """A call waits for its turn no longer than its own deadline."""
    with busy(kind, timeout=0.4) as it:
        began = time.monotonic()
        with pytest.raises(TimeoutError, match="busy with another call") as caught:
            it.plugin.call("echo", b"2")
        assert 0.39 < time.monotonic() - began < SOON
        assert (caught.value.plugin, caught.value.function) == ("plugin", "echo")
        assert "timeout" in caught.value.message
        assert not queued_calls(it.plugin)
        with pytest.raises(TimeoutError, match="did not end"):
            it.leave()
        assert it.plugin.call("echo", b"3") == b"3"


@kinds
@pytest.mark.slow
def test_deadline_includes_wait(kind: Any) -> None:
    """The deadline includes the time spent waiting."""
    with make_plugin(lambda: time.sleep(1.5), kind, timeout=2.0) as plugin:
        first = InThread(plugin.call, "back")
        assert soon(lambda: not hasattr(plugin, "_idle"))
        time.sleep(0.1)
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            plugin.call("spin")
        assert time.monotonic() - began < 3.2
        first.result()
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            plugin.call("spin")
        assert time.monotonic() - began > 1.95, "a later call has a deadline of its own"


def test_failed_call_leaves_no_deadline() -> None:
    """A call that waited and could not be made leaves no deadline behind."""
    with busy(timeout=0.5) as it:
        second = it.waits("nothing")
        it._leave.set()
        with pytest.raises(plugwasm.FunctionNotFoundError):
            second.result()
        assert it.plugin._queued_deadline is None


@kinds
def test_cancel_ends_wait(kind: Any) -> None:
    """A cancel handle ends a wait."""
    with busy(kind) as it:
        second = it.waits("echo", b"2")
        assert it.plugin.cancel_handle().cancel() is True
        with pytest.raises(CancelledError, match="cancelled"):
            second.result()
        it._leave.set()
        with pytest.raises(CancelledError):
            it.first.result()
        assert it.plugin.call("echo", b"3") == b"3"


@kinds
def test_closing_ends_the_waiting(kind: Any) -> None:
    with busy(kind) as it:
        threads = [it.waits("echo", b"2", number=number + 1) for number in range(3)]
        it.plugin.close()
        for thread in threads:
            with pytest.raises(ClosedError):
                thread.result()


@kinds
def test_configure_but_not_reset(kind: Any) -> None:
    """While a call waits, a plugin can be configured but not reset."""
    with busy(kind) as it:
        second = it.waits("echo", b"2")
        it.plugin.update_config({"a": "b"})
        with pytest.raises(BusyError):
            it.plugin.reset()
        it.leave()
        assert second.result() == b"2"
        it.plugin.reset()
        assert it.plugin.call("echo", b"3") == b"3"


def test_wait_ends_with_outer_call() -> None:
    """A host function's wait ends when its own call ends."""
    with busy() as it:
        with pytest.raises(TimeoutError, match="`back` of plugin `outer`"):
            make_plugin(lambda: it.plugin.call("echo", b"x"), timeout=0.3, name="outer").call(
                "back"
            )
        it.leave()
        assert it.plugin.call("echo", b"3") == b"3"


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize(
    "kind", ["Plugin", "IsolatedPlugin", "partial(Plugin, observe=plugwasm.observing.CallLog())"]
)
def test_ctrl_c_ends_wait(kind: str) -> None:
    """Ctrl-C ends a wait, and the plugin stays usable."""
    script = f"""
    import os, random, signal, sys, threading, time
    from functools import partial
    import plugwasm
    from plugwasm import Plugin, IsolatedPlugin, Function, Limits
    source = {SOURCE!r}
    nap = [0.05]
    plugin = {kind}(source, functions=[Function(None, "back", [], [], lambda *_: time.sleep(nap[0]))], limits=Limits(timeout=None))
    over, served, lost = threading.Event(), [0], [0]
    def other():
        while not over.is_set():
            plugin.call("back")
            served[0] += 1
    thread = threading.Thread(target=other)
    thread.start()
    me = threading.main_thread().ident
    nap[0] = 0.001
    caught = 0
    rest = random.Random(7)
    while caught < {5 if kind == "IsolatedPlugin" else 60}:  # each costs an isolated one its process
        timer = threading.Timer(rest.uniform(0, 0.02), signal.pthread_kill, (me, signal.SIGINT))
        try:
            timer.start()  # inside, for the signal may come before it returns
            while True:
                plugin.call("echo", b"x")
        except KeyboardInterrupt:
            caught += 1
        timer.join()
    before = served[0]
    assert plugin.call("echo", b"x") == b"x"
    end = time.monotonic() + 20
    while served[0] < before + 3 and time.monotonic() < end:
        time.sleep(0.01)
    assert served[0] >= before + 3
    over.set()
    thread.join(20)
    assert not thread.is_alive()
    plugin.close()
    print("well")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=100
    )
    assert done.stdout.split() == ["well"], done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks")
def test_forked_child_does_not_wait() -> None:
    """A forked child does not wait for a thread that only its parent has."""
    with busy() as it:
        second = it.waits("echo", b"2")
        child = os.fork()
        if child == 0:
            status = 1
            try:
                it.plugin.call("echo", b"x")
            except BusyError:
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        it.leave()
        assert second.result() == b"2"


# ---- never for itself ----------------------------------------------------------------------------


@kinds
def test_reentry_is_refused(kind: Any) -> None:
    """A call from inside a call of the same plugin is refused."""
    plugin: Any
    for way in (lambda: plugin.call("echo", b"x"), lambda: plugin.reset()):
        with make_plugin(way, kind) as plugin:
            with pytest.raises(HostFunctionError) as caught:
                plugin.call("back")
            assert isinstance(caught.value.__cause__, BusyError)
            assert plugin.call("echo", b"x") == b"x"


def test_reentry_from_finalizer_or_input() -> None:
    """A call from a finalizer, or from code that makes the input or the result, is refused."""
    refused: list[str] = []

    def attempt() -> None:
        try:
            plugin.call("echo", b"x")
        except BusyError as error:
            refused.append(error.message)

    class Finalized:
        def __del__(self) -> None:
            attempt()

    class Text(str):
        def encode(self, *_: Any) -> bytes:
            attempt()
            return b"y"

    def back() -> None:
        circle: list[Any] = [Finalized()]
        circle.append(circle)
        del circle
        gc.collect()

    with make_plugin(back) as plugin:
        plugin.call("back")
        assert plugin.call("echo", Text("y"), parse=lambda output: attempt() or output) == b"y"
    assert len(refused) == 3


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_reentry_from_signal_handler() -> None:
    """A call from a signal handler during a call is refused."""
    refused: list[BusyError] = []

    def handler(*_: Any) -> None:
        try:
            plugin.call("echo", b"x")
        except BusyError as error:
            refused.append(error)

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with make_plugin(lambda: signal.raise_signal(signal.SIGUSR1)) as plugin:
            plugin.call("back")
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert len(refused) == 1


def test_deadlock_is_detected() -> None:
    """Two threads whose plugins wait for each other get an error."""
    both = threading.Barrier(2)
    plugins: list[Plugin] = []

    def back(other: int) -> None:
        both.wait(SOON)
        plugins[other].call("echo", b"x")

    plugins += [make_plugin(lambda: back(1), name="a"), make_plugin(lambda: back(0), name="b")]
    ended = []
    for thread in [InThread(plugin.call, "back") for plugin in plugins]:
        try:
            ended.append(thread.result())
        except HostFunctionError as error:
            assert isinstance(error.__cause__, BusyError)
            assert "would wait for itself" in error.message
            ended.append(None)
    assert None in ended
    assert [plugin.call("echo", b"x") for plugin in plugins] == [b"x", b"x"]


# ---- tasks ---------------------------------------------------------------------------------------


@kinds
def test_tasks_wait_for_each_other(kind: Any) -> None:
    """Tasks that share a plugin wait for each other."""

    async def main() -> list[bytes]:
        return list(
            await asyncio.gather(
                *(plugin.call_async("echo", b"%d" % number) for number in range(6))
            )
        )

    with make_plugin(lambda: None, kind) as plugin:
        assert asyncio.run(main()) == [b"%d" % number for number in range(6)]


@kinds
def test_cancelled_wait_keeps_call(kind: Any) -> None:
    """Cancelling a waiting task does not affect the running call."""

    async def main() -> None:
        task = asyncio.create_task(it.plugin.call_async("echo", b"2"))
        while not queued_calls(it.plugin):
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with busy(kind) as it:
        asyncio.run(main())
        it.leave()
        assert it.plugin.call("echo", b"3") == b"3"


@kinds
def test_coroutine_reentry_is_refused(kind: Any) -> None:
    """A host function's coroutine cannot call the plugin that waits for it."""
    refused = []

    async def back(*_: Any) -> None:
        for attempt in (lambda: plugin.call_async("echo", b"x"), sync):
            try:
                await attempt()
            except BusyError as error:
                refused.append(error)

    async def sync() -> None:
        plugin.call("echo", b"x")

    plugin = kind(
        SOURCE, functions=[Function(None, "back", [], [], back)], limits=Limits(timeout=None)
    )
    with plugin:
        asyncio.run(plugin.call_async("back"))
    assert len(refused) == 2


def test_event_loop_is_not_blocked() -> None:
    """A call that waits for its turn does not block the event loop."""

    async def main() -> None:
        task = asyncio.create_task(it.call_async("spin"))
        while hasattr(it, "_idle"):
            await asyncio.sleep(0.001)
        with pytest.raises(BusyError, match="event loop"):
            it.call("echo", b"x")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with make_plugin(lambda: None) as it:
        asyncio.run(main())
