"""Threads and life cycle: plugins that are shared, closed, dropped and broken in the middle of calls (`docs/security.md`, 19 to 24)."""

from __future__ import annotations

import gc
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import plugwasm
from plugwasm import (
    BadHandleError,
    BusyError,
    CancelledError,
    ClosedError,
    CompiledPlugin,
    CurrentPlugin,
    HostFunctionError,
    Memory,
    Plugin,
    TrapError,
    Val,
)
from plugwasm._runtime.call_queue import queued_calls
from tests.support.callback_guest import Body, compiled, nothing, plugin_with
from tests.support.guests import export, guest, manifest, number
from tests.support.paths import ROOT
from tests.support.threads import InThread
from tests.support.waiting import soon


class Stopped:
    """A call whose host function waits: `began` says that it is there, `go_on` lets it return."""

    def __init__(self, function: str = "back", after: Body = nothing, **fields: Any) -> None:
        self.began, self._leave = threading.Event(), threading.Event()

        def body(current: CurrentPlugin, value: Val, result: Val) -> None:
            self.began.set()
            assert self._leave.wait(20)
            after(current, value, result)

        self.plugin = plugin_with(body, **fields)
        self.call = InThread(self.plugin.call, function, b"input")
        assert self.began.wait(20)

    def go_on(self) -> Any:
        self._leave.set()
        return self.call.result()


# 19. Many at once


def test_linked_command_with_full_pool() -> None:
    """A linked command runs also while the pool is full.

    A command gets a fresh instance for each call, wherever there is room.
    """
    command = """(module (memory (export "memory") 1) (func (export "_start"))
        (func (export "next") (param i64) (result i64) (i64.add (local.get 0) (i64.const 1))))"""
    main = guest(
        export("f", "(call $answer (call $next (i64.const 41)))"),
        '(import "lib" "next" (func $next (param i64) (result i64)))',
    )
    shared = CompiledPlugin(manifest(("lib", command), ("main", main)))
    filling = compiled()
    plugins = [Plugin(shared) for _ in range(8)]
    others = [Plugin(filling) for _ in range(400)]
    for plugin in plugins:
        assert number(plugin.call("f")) == 42
    for other in others:
        assert number(other.call("count")) == 1
    for plugin in plugins:
        assert number(plugin.call("f")) == 42
    for plugin in [*plugins, *others]:
        plugin.close()


# 20. One plugin, many threads


def test_calls_are_never_interleaved() -> None:
    """Calls of many threads are never interleaved inside the guest.

    The guest traps when it is entered while it waits for the host; the host lets other threads run
    then.
    """
    plugin = plugin_with(lambda *_: time.sleep(0.0005))
    served, other = [0], []

    def work(number: int) -> None:
        data = b"%d" % number * 1000
        for _ in range(40):
            try:
                assert plugin.call("alone", data) == data
                served[0] += 1
            except BaseException as error:
                other.append(error)

    for thread in [InThread(work, i) for i in range(5)]:
        thread.result()
    assert not other
    assert served[0] == 5 * 40
    assert plugin.call("echo", b"after") == b"after"


def test_threads_during_call() -> None:
    """While a call runs, other threads can look, configure and cancel, but not enter."""
    stopped = Stopped()
    plugin = stopped.plugin
    assert plugin.function_exists("count")
    assert plugin.name == "plugin"
    assert plugin.fuel_used is None
    assert "closed" not in repr(plugin)
    plugin.update_config({"a": "b"})
    assert plugin.config == {"a": "b"}
    waiting = [InThread(plugin.call, "echo"), InThread(plugin.call, "nothing")]
    assert soon(lambda: len(queued_calls(plugin)) == 2)
    with pytest.raises(BusyError):
        plugin.reset()
    assert plugin.cancel_handle().cancel() is True
    for thread in waiting:
        with pytest.raises(CancelledError):
            thread.result()
    with pytest.raises(CancelledError):
        stopped.go_on()
    assert plugin.call("echo", b"after") == b"after"


def test_waiting_thread_leaves_call_alone() -> None:
    """A waiting thread leaves the call under way as it was.

    Its input, its host context, its deadline and its place in the ticker.
    """
    seen: list[Any] = []

    def after(current: CurrentPlugin, value: Val, result: Val) -> None:
        seen.extend([current.input_bytes(value), current.time_remaining() is not None])
        current.return_bytes(result, b"answer")

    stopped = Stopped(after=after, timeout_ms=20_000)
    waiting = [
        InThread(stopped.plugin.call, "echo", b"another input", host_context="another")
        for _ in range(3)
    ]
    assert soon(lambda: len(queued_calls(stopped.plugin)) == 3)
    assert stopped.go_on() == b"answer"
    assert seen == [b"input", True]
    for thread in waiting:
        assert thread.result() == b"another input"


def test_many_threads_close() -> None:
    """Many threads close a plugin at once while it runs."""
    plugin = plugin_with()
    plugin.call("echo")
    running = InThread(plugin.call, "spin")
    time.sleep(0.05)
    for thread in [InThread(plugin.close) for _ in range(6)]:
        thread.result()
    with pytest.raises(CancelledError):
        running.result()
    with pytest.raises(ClosedError):
        plugin.call("echo")


# 21. Different exceptions on different threads


def test_exceptions_of_several_threads() -> None:
    """Exceptions of different kinds on different threads reach their own caller with their own
    traceback.
    """
    kinds = [ValueError, KeyError, OSError, ZeroDivisionError, SystemExit, BaseException]
    barrier = threading.Barrier(len(kinds))

    def body(current: CurrentPlugin, value: Val, result: Val) -> None:
        barrier.wait(20)
        current.host_context()()

    def raiser(kind: type[BaseException]) -> Callable[[], None]:
        space: dict[str, Any] = {"kind": kind, "ident": threading.get_ident()}
        exec(f"def raises_{kind.__name__}(): raise kind(ident)", space)
        return space[f"raises_{kind.__name__}"]  # type: ignore[no-any-return]

    shared = compiled(body)

    def work(kind: type[BaseException]) -> None:
        with Plugin(shared) as plugin:
            for _ in range(15):
                with pytest.raises(HostFunctionError) as caught:
                    plugin.call("back", host_context=raiser(kind))
                cause = caught.value.__cause__
                assert type(cause) is kind
                assert cause.args == (threading.get_ident(),)
                assert frames(cause)[-2:] == ["body", f"raises_{kind.__name__}"]
                assert frames(caught.value)[-1] != "raises"
                assert plugin.call("echo", b"after") == b"after"

    for thread in [InThread(work, kind) for kind in kinds]:
        thread.result()


def frames(error: BaseException) -> list[str]:
    names, entry = [], error.__traceback__
    while entry is not None:
        names.append(entry.tb_frame.f_code.co_name)
        entry = entry.tb_next
    return names


def test_one_exception_in_several_threads() -> None:
    """One exception object that several threads raise at once is the cause of each."""
    raised, barrier = LookupError("the same"), threading.Barrier(4)

    def body(*_: Any) -> None:
        barrier.wait(20)
        raise raised

    shared = compiled(body)

    def work() -> None:
        for _ in range(10):
            with Plugin(shared) as plugin, pytest.raises(HostFunctionError) as caught:
                plugin.call("back")
            assert caught.value.__cause__ is raised

    for thread in [InThread(work) for _ in range(4)]:
        thread.result()


# 22. What a host function raises


class Untold(Exception):
    def __str__(self) -> str:
        raise RuntimeError("this exception cannot be shown")


class Odd(Exception):
    def __str__(self) -> str:
        return 5  # type: ignore[return-value]


@pytest.mark.parametrize("raised", [Untold(), Odd()], ids=["raises in str", "str is no text"])
def test_exception_that_cannot_be_shown(raised: Exception) -> None:
    """An exception that cannot be shown is the cause all the same."""

    def body(*_: Any) -> None:
        raise raised

    with plugin_with(body) as plugin:
        with pytest.raises(HostFunctionError) as caught:
            plugin.call("back")
        assert caught.value.__cause__ is raised
        assert type(raised).__name__ in str(caught.value)
        assert plugin.call("echo", b"after") == b"after"


def test_handled_exception_is_not_raised() -> None:
    """An exception that the host function handles never reaches the caller."""

    def body(current: CurrentPlugin, value: Val, result: Val) -> None:
        with pytest.raises(OSError):
            raise OSError
        with pytest.raises(BadHandleError):
            current.memory(Memory(12345, 1))
        current.return_bytes(result, b"went on")

    with plugin_with(body) as plugin:
        assert plugin.call("back") == b"went on"


def test_exit_in_host_function() -> None:
    """An exit in a host function does not end the process unless the application lets it."""
    code = """
        import sys, plugwasm
        source = '(module (import "extism:host/user" "back" (func $back)) (func (export "f") (call $back)))'
        plugin = plugwasm.Plugin(source, functions=[plugwasm.Function(None, "back", [], [], lambda *_: sys.exit(7))])
        try:
            plugin.call("f")
        except plugwasm.HostFunctionError as error:
            assert isinstance(error.__cause__, SystemExit) and error.__cause__.code == 7
            print("caught")
        raise SystemExit(3)
    """
    assert in_process(code, status=3) == "caught"


def in_process(code: str, status: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-W", "error", "-c", textwrap.dedent(code)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (status, ""), done.stderr
    return done.stdout.strip()


# 23. Closed and dropped


class ClosesLate(str):
    """An input that closes the plugin when it is encoded: the call has begun, and its guest does not run yet."""

    plugin: Plugin

    def encode(self, *_: Any) -> bytes:  # type: ignore[override]
        self.plugin.close()
        return b"input"


@pytest.mark.parametrize("started", [True, False], ids=["started before", "started by the call"])
def test_close_at_start_of_call(started: bool) -> None:
    """Closing in the first moment of a call ends it as well."""
    plugin = plugin_with(timeout_ms=5000)
    if started:
        plugin.call("echo")
    data = ClosesLate()
    data.plugin = plugin
    with pytest.raises((ClosedError, CancelledError)):
        plugin.call("spin", data)
    with pytest.raises(ClosedError):
        plugin.call("echo")


def test_closing_ends_a_sleep_in_wasi() -> None:
    plugin = plugin_with()
    plugin.call("echo")
    running = InThread(plugin.call, "sleep")
    time.sleep(0.1)
    began = time.monotonic()
    plugin.close()
    with pytest.raises(CancelledError):
        running.result()
    assert time.monotonic() - began < 2


def test_close_in_host_function() -> None:
    """Closing while a host function runs is deferred until that returns."""
    ran: list[bytes] = []

    def after(current: CurrentPlugin, value: Val, result: Val) -> None:
        ran.append(current.input_bytes(value))

    stopped = Stopped(after=after)
    plugin = stopped.plugin
    instance = weakref.ref(plugin._guest)  # type: ignore[arg-type]
    plugin.close()
    plugin.close()
    assert instance() is not None
    with pytest.raises(ClosedError):
        plugin.call("echo")
    with pytest.raises(CancelledError):
        stopped.go_on()
    assert ran == [b"input"]
    with pytest.raises(ClosedError):
        plugin.call("echo")
    del stopped.call  # with the error, whose traceback has the instance
    assert soon(lambda: gc.collect() is not None and instance() is None)


@pytest.mark.parametrize("how", [bytes, None])
def test_close_while_parsing(how: Any) -> None:
    """Closing while the output is parsed does not spoil it."""
    plugin = plugin_with()

    def parse(output: bytes) -> bytes:
        plugin.close()
        return output[:3]

    assert plugin.call("echo", b"abcdef", parse=parse) == b"abc"
    with pytest.raises(ClosedError):
        plugin.call("echo", parse=how)


def test_close_in_log_handler(caplog: pytest.LogCaptureFixture) -> None:
    """Closing from a log handler in the middle of a call ends it."""
    import logging

    class Closes(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            plugin.close()

    logger, handler = logging.getLogger("plugwasm"), Closes()
    logger.addHandler(handler)
    try:
        plugin = plugin_with()
        with pytest.raises(CancelledError):
            plugin.call("log", b"input")
        with pytest.raises(ClosedError):
            plugin.call("log")
    finally:
        logger.removeHandler(handler)


def test_last_reference_dropped_in_call() -> None:
    """A plugin whose last reference goes in the middle of its call ends that well.

    It, its compiled plugin and its host function are all dropped by the host function, which then
    collects garbage.
    """
    holder: list[Any] = []
    alive: list[bool] = []

    def body(current: CurrentPlugin, value: Val, result: Val) -> None:
        holder.clear()
        gc.collect()
        for _ in range(3):
            Plugin("(module (memory 3))")  # takes what was freed, if anything was
        alive.append(seen() is not None)
        current.return_bytes(result, current.input_bytes(value) + b" and more")

    holder.append(plugin_with(body))
    seen = weakref.ref(holder[0])
    assert holder[0].call("back", b"input") == b"input and more"
    assert alive == [True]
    gc.collect()
    assert soon(lambda: seen() is None)


def test_cycle_collected_by_other_thread() -> None:
    """A plugin in a cycle is collected while another thread collects and calls."""
    shared, over, gone = compiled(), threading.Event(), []

    class Holder:
        pass

    def collect() -> None:
        while not over.is_set():
            gc.collect(1)

    collecting = [InThread(collect) for _ in range(2)]
    try:
        with Plugin(shared) as steady:
            for i in range(40):
                holder: Any = Holder()
                holder.plugin, holder.itself = Plugin(shared), holder
                assert number(holder.plugin.call("count")) == 1
                gone.append(weakref.ref(holder.plugin))
                del holder
                assert number(steady.call("count")) == i + 1
    finally:
        over.set()
        for thread in collecting:
            thread.result()
    gc.collect()
    assert soon(lambda: all(reference() is None for reference in gone))


def test_plugins_outlive_compiled_plugin() -> None:
    """Plugins outlive their compiled plugin and its functions."""
    shared = compiled(lambda current, value, result: current.return_bytes(result, b"still here"))
    plugins = [Plugin(shared) for _ in range(6)]
    del shared
    gc.collect()
    for plugin in plugins:
        assert plugin.call("back") == b"still here"
        plugin.close()
        plugin.close()


def test_dropped_while_other_thread_calls() -> None:
    """A plugin that was dropped while another thread runs its call ends that call by itself."""

    def call() -> bytes:
        plugin = plugin_with(body)
        seen.append(weakref.ref(plugin))
        return plugin.call("back", b"input")  # type: ignore[no-any-return]

    def body(current: CurrentPlugin, value: Val, result: Val) -> None:
        began.set()
        assert leave.wait(20)
        result.value = value.value

    began, leave, seen = threading.Event(), threading.Event(), []
    running = InThread(call)
    assert began.wait(20)
    for _ in range(3):
        gc.collect()
    leave.set()
    assert running.result() == b"input"
    assert soon(lambda: seen[0]() is None)


def test_alive_at_interpreter_exit() -> None:
    """Plugins alive at the end of the interpreter are left in peace."""
    code = """
        import sys, threading, plugwasm
        source = '(module (import "extism:host/user" "back" (func $back)) (func (export "f") (call $back)) (func (export "s") (loop $l (br $l))))'
        compiled = plugwasm.CompiledPlugin(source, functions=[plugwasm.Function(None, "back", [], [], lambda *_: None)])
        kept = [plugwasm.Plugin(compiled) for _ in range(20)]
        for plugin in kept:
            plugin.call("f")
        cycle = [plugwasm.Plugin(compiled)]
        cycle[0].call("f")
        cycle.append(cycle)
        sys.modules["kept somewhere else"] = plugwasm.Plugin(compiled)
        sys.modules["kept somewhere else"].call("f")
        threading.Thread(target=plugwasm.Plugin(compiled).call, args=("s",), daemon=True).start()
        print("end")
    """
    assert in_process(code) == "end"


# 24. Traps in the middle of calls in the middle of calls


@contextmanager
def chain(
    depth: int, end: str, handled_at: int | None = None
) -> Iterator[tuple[list[Plugin], list[str]]]:
    """Plugins of which each calls the next one; the last one's export is `end`. One of them may handle what comes from below."""
    plugins: list[Plugin] = []
    unwound: list[str] = []

    def body(current: CurrentPlugin, value: Val, result: Val) -> None:
        level = int(current.input_string(value))
        try:
            below = plugins[level + 1].call(
                "back" if level + 2 < depth else end, b"%d" % (level + 1)
            )
            current.return_bytes(result, below)
        except plugwasm.Error:
            if level != handled_at:
                raise
            current.return_bytes(result, b"handled")
        finally:
            unwound.append(f"{level}")

    shared = compiled(body)
    plugins += [Plugin(shared) for _ in range(depth)]
    for plugin in plugins:
        assert number(plugin.call("count")) == 1
    yield plugins, unwound
    for plugin in plugins:
        plugin.close()


def test_trap_unwinds_chain_once() -> None:
    """A trap deep in a chain of plugins unwinds each of them once."""
    with chain(4, "trap") as (plugins, unwound):
        for _ in range(3):
            with pytest.raises(HostFunctionError) as caught:
                plugins[0].call("back", b"0")
            assert unwound == ["2", "1", "0"]
            unwound.clear()
            kinds, error = [], caught.value
            while error is not None:
                kinds.append(type(error))
                error = error.__cause__  # type: ignore[assignment]
            assert kinds == [HostFunctionError, HostFunctionError, HostFunctionError, TrapError]
            assert [number(plugin.call("count")) for plugin in plugins] == [1, 1, 1, 1]


def test_handled_trap_costs_one_plugin() -> None:
    """A trap that a host function handles costs only the plugin that trapped."""
    with chain(3, "trap", handled_at=1) as (plugins, unwound):
        for round in range(3):
            assert plugins[0].call("back", b"0") == b"handled"
            assert unwound == ["1", "0"]
            unwound.clear()
            assert [number(plugin.call("count")) for plugin in plugins] == [2 + round, 2 + round, 1]


def test_trap_after_nested_call() -> None:
    """A trap after a host function called another plugin leaves that as it is."""
    with Plugin(compiled()) as other, plugin_with(lambda *_: other.call("count")) as plugin:
        for round in range(3):
            with pytest.raises(TrapError):
                plugin.call("back_then_trap")
            assert number(plugin.call("count")) == 1
            assert number(other.call("count")) == 2 * round + 2


def test_inner_end_is_not_outer_end() -> None:
    """What ends a call within a call is not told as the end of the outer one.

    An inner timeout or cancellation that is handled does not end the outer call, and its own
    deadline still does.
    """

    def body(current: CurrentPlugin, value: Val, result: Val) -> None:
        with pytest.raises(plugwasm.TimeoutError) as caught:
            inner.call("spin")
        assert caught.value.function == "spin"
        if current.host_context() == "cancel":
            threading.Timer(0.03, inner.cancel_handle().cancel).start()
            with pytest.raises((CancelledError, plugwasm.TimeoutError)):
                inner.call("spin")
        current.return_bytes(result, b"outer")

    with plugin_with(timeout_ms=60) as inner, plugin_with(body, timeout_ms=20_000) as plugin:
        assert plugin.call("back") == b"outer"
        assert plugin.call("back", host_context="cancel") == b"outer"
        assert number(plugin.call("count")) == 1


def test_outer_deadline_in_inner_plugin() -> None:
    """An outer deadline that passes in an inner plugin ends the outer call when it returns."""

    def body(current: CurrentPlugin, value: Val, result: Val) -> None:
        with pytest.raises(plugwasm.TimeoutError):
            inner.call("spin")

    with plugin_with(timeout_ms=150) as inner, plugin_with(body, timeout_ms=50) as plugin:
        with pytest.raises(
            plugwasm.TimeoutError,
            match="`back` of plugin `plugin` did not end before its deadline of 50 ms",
        ):
            plugin.call("back")
        assert plugin.call("echo", b"after") == b"after"


INTERRUPTS = """
    import sys, _thread, plugwasm
    class Interrupts(str):
        __del__ = _thread.interrupt_main  # not by a function of Python, which would drop what that raises
    source = '''(module (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
        (import "extism:host/env" "store_u8" (func $store (param i64 i32))) (import "extism:host/env" "output_set" (func $set (param i64 i64)))
        (global $n (mut i32) (i32.const 0)) (func (export "trap") unreachable)
        (func (export "count") (local $b i64) (global.set $n (i32.add (global.get $n) (i32.const 1)))
            (call $store (local.tee $b (call $alloc (i64.const 1))) (global.get $n)) (call $set (local.get $b) (i64.const 1))))'''
    plugin = plugwasm.Plugin(source)
    plugin.call(Interrupts("count"))  # the plugin keeps that name until its instance is dropped
    try:
        try:
            {what}
        except plugwasm.TrapError:
            pass
        for _ in range(9):
            len("")  # where the handler runs at the latest
    except KeyboardInterrupt:
        pass
    print(*plugin.call("count"))
"""


@pytest.mark.parametrize("what", ["plugin.call('trap')", "plugin.reset()"])
def test_ctrl_c_while_instance_is_dropped(what: str) -> None:
    """Ctrl-C in the moment when an instance is dropped leaves a plugin that works and drops the
    instance.
    """
    # A reset that was interrupted may not have come to it; the instance of a call that was unwound must be gone.
    assert in_process(INTERRUPTS.format(what=what)) in (("1", "2") if "reset" in what else ("1",))
