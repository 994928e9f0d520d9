"""Threads and life cycle: plugins that are shared, closed, dropped or fail during calls
(`docs/security.md`, 19 to 24)."""

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
from tests.support.callback_guest import Body, compile_guest, do_nothing, make_plugin
from tests.support.guests import export, guest, manifest, number
from tests.support.paths import ROOT
from tests.support.threads import InThread
from tests.support.waiting import soon


class Stopped:
    """A call whose host function waits. `began` is set when it waits, and setting `go_on` lets
    it return."""

    def __init__(self, function: str = "back", after: Body = do_nothing, **fields: Any) -> None:
        self.began, self._leave = threading.Event(), threading.Event()

        def body(current: CurrentPlugin, value: Val, result: Val) -> None:
            self.began.set()
            assert self._leave.wait(20)
            after(current, value, result)

        self.plugin = make_plugin(body, **fields)
        self.call = InThread(self.plugin.call, function, b"input")
        assert self.began.wait(20)

    def go_on(self) -> Any:
        self._leave.set()
        return self.call.result()


# 19. Many at once


def test_linked_command_with_full_pool() -> None:
    """A linked command also runs while the pool is full.

    A command gets a fresh instance for each call, in the pool or outside.
    """
    command = """(module (memory (export "memory") 1) (func (export "_start"))
        (func (export "next") (param i64) (result i64) (i64.add (local.get 0) (i64.const 1))))"""
    main = guest(
        export("f", "(call $answer (call $next (i64.const 41)))"),
        '(import "lib" "next" (func $next (param i64) (result i64)))',
    )
    shared = CompiledPlugin(manifest(("lib", command), ("main", main)))
    filling = compile_guest()
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

    The guest traps if it is entered while it waits for the host, which lets other threads run at
    that time.
    """
    plugin = make_plugin(lambda *_: time.sleep(0.0005))
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
    """During a call, other threads can inspect, configure and cancel, but not call."""
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
    """A waiting thread does not affect the running call: its input, host context, deadline and
    place in the ticker.

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
    """Many threads can close a plugin at once while it runs."""
    plugin = make_plugin()
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
    """Exceptions in several threads each reach their own caller with their own traceback."""
    kinds = [ValueError, KeyError, OSError, ZeroDivisionError, SystemExit, BaseException]
    barrier = threading.Barrier(len(kinds))

    def body(current: CurrentPlugin, value: Val, result: Val) -> None:
        barrier.wait(20)
        current.host_context()()

    def raiser(kind: type[BaseException]) -> Callable[[], None]:
        space: dict[str, Any] = {"kind": kind, "ident": threading.get_ident()}
        exec(f"def raises_{kind.__name__}(): raise kind(ident)", space)
        return space[f"raises_{kind.__name__}"]  # type: ignore[no-any-return]

    shared = compile_guest(body)

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
    """One exception object raised by several threads at once is the cause of each error."""
    raised, barrier = LookupError("the same"), threading.Barrier(4)

    def body(*_: Any) -> None:
        barrier.wait(20)
        raise raised

    shared = compile_guest(body)

    def work() -> None:
        for _ in range(10):
            with Plugin(shared) as plugin, pytest.raises(HostFunctionError) as caught:
                plugin.call("back")
            assert caught.value.__cause__ is raised

    for thread in [InThread(work) for _ in range(4)]:
        thread.result()


# 22. What a host function raises


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("this exception cannot be shown")


class OddError(Exception):
    def __str__(self) -> str:
        return 5  # type: ignore[return-value]


@pytest.mark.parametrize(
    "raised", [UnprintableError(), OddError()], ids=["raises in str", "str is no text"]
)
def test_exception_that_cannot_be_shown(raised: Exception) -> None:
    """An exception whose text cannot be produced is still the cause."""

    def body(*_: Any) -> None:
        raise raised

    with make_plugin(body) as plugin:
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

    with make_plugin(body) as plugin:
        assert plugin.call("back") == b"went on"


def test_exit_in_host_function() -> None:
    """SystemExit in a host function does not end the process: the call raises HostFunctionError."""
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
    assert run_program(code, status=3) == "caught"


def run_program(code: str, status: int = 0) -> str:
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
    """An input that closes the plugin when it is encoded: the call has begun, but its guest does
    not run yet."""

    plugin: Plugin

    def encode(self, *_: Any) -> bytes:
        self.plugin.close()
        return b"input"


@pytest.mark.parametrize("started", [True, False], ids=["started before", "started by the call"])
def test_close_at_start_of_call(started: bool) -> None:
    """Closing the plugin in the first moment of a call ends the call."""
    plugin = make_plugin(timeout_ms=5000)
    if started:
        plugin.call("echo")
    data = ClosesLate()
    data.plugin = plugin
    with pytest.raises((ClosedError, CancelledError)):
        plugin.call("spin", data)
    with pytest.raises(ClosedError):
        plugin.call("echo")


def test_closing_ends_a_sleep_in_wasi() -> None:
    plugin = make_plugin()
    plugin.call("echo")
    running = InThread(plugin.call, "sleep")
    time.sleep(0.1)
    began = time.monotonic()
    plugin.close()
    with pytest.raises(CancelledError):
        running.result()
    assert time.monotonic() - began < 2


def test_close_in_host_function() -> None:
    """Closing the plugin while a host function runs is deferred until the function returns."""
    ran: list[bytes] = []

    def after(current: CurrentPlugin, value: Val, result: Val) -> None:
        ran.append(current.input_bytes(value))

    stopped = Stopped(after=after)
    plugin = stopped.plugin
    instance = weakref.ref(plugin._guest)
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
    """Closing the plugin while the output is parsed does not affect the output."""
    plugin = make_plugin()

    def parse(output: bytes) -> bytes:
        plugin.close()
        return output[:3]

    assert plugin.call("echo", b"abcdef", parse=parse) == b"abc"
    with pytest.raises(ClosedError):
        plugin.call("echo", parse=how)


def test_close_in_log_handler(caplog: pytest.LogCaptureFixture) -> None:
    """Closing the plugin from a log handler during a call ends the call."""
    import logging

    class Closes(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            plugin.close()

    logger, handler = logging.getLogger("plugwasm"), Closes()
    logger.addHandler(handler)
    try:
        plugin = make_plugin()
        with pytest.raises(CancelledError):
            plugin.call("log", b"input")
        with pytest.raises(ClosedError):
            plugin.call("log")
    finally:
        logger.removeHandler(handler)


def test_last_reference_dropped_in_call() -> None:
    """A plugin whose last reference is dropped during its call finishes the call.

    The host function drops the plugin, its compiled plugin and itself, and then collects garbage.
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

    holder.append(make_plugin(body))
    seen = weakref.ref(holder[0])
    assert holder[0].call("back", b"input") == b"input and more"
    assert alive == [True]
    gc.collect()
    assert soon(lambda: seen() is None)


def test_cycle_collected_by_other_thread() -> None:
    """A plugin in a reference cycle is collected while another thread collects and calls."""
    shared, over, gone = compile_guest(), threading.Event(), []

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
    shared = compile_guest(
        lambda current, value, result: current.return_bytes(result, b"still here")
    )
    plugins = [Plugin(shared) for _ in range(6)]
    del shared
    gc.collect()
    for plugin in plugins:
        assert plugin.call("back") == b"still here"
        plugin.close()
        plugin.close()


def test_dropped_while_other_thread_calls() -> None:
    """A plugin dropped while another thread runs its call finishes that call."""

    def call() -> bytes:
        plugin = make_plugin(body)
        seen.append(weakref.ref(plugin))
        return plugin.call("back", b"input")

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
    """Plugins that are alive at interpreter exit cause no error."""
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
    assert run_program(code) == "end"


# 24. Traps in the middle of calls in the middle of calls


@contextmanager
def chain(
    depth: int, end: str, handled_at: int | None = None
) -> Iterator[tuple[list[Plugin], list[str]]]:
    """Return plugins that each call the next one. The last one's export is `end`, and one of
    them may handle the error of the next."""
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

    shared = compile_guest(body)
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
    """A trap that a host function handles replaces only the instance of the plugin that trapped."""
    with chain(3, "trap", handled_at=1) as (plugins, unwound):
        for round in range(3):
            assert plugins[0].call("back", b"0") == b"handled"
            assert unwound == ["1", "0"]
            unwound.clear()
            assert [number(plugin.call("count")) for plugin in plugins] == [2 + round, 2 + round, 1]


def test_trap_after_nested_call() -> None:
    """A trap after a host function called another plugin does not affect that plugin."""
    with Plugin(compile_guest()) as other, make_plugin(lambda *_: other.call("count")) as plugin:
        for round in range(3):
            with pytest.raises(TrapError):
                plugin.call("back_then_trap")
            assert number(plugin.call("count")) == 1
            assert number(other.call("count")) == 2 * round + 2


def test_inner_end_is_not_outer_end() -> None:
    """The end of an inner call is not reported as the end of the outer call.

    An inner timeout or cancellation that is handled does not end the outer call, and the outer
    call's own deadline still does.
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

    with make_plugin(timeout_ms=60) as inner, make_plugin(body, timeout_ms=20_000) as plugin:
        assert plugin.call("back") == b"outer"
        assert plugin.call("back", host_context="cancel") == b"outer"
        assert number(plugin.call("count")) == 1


def test_outer_deadline_in_inner_plugin() -> None:
    """An outer deadline that passes during an inner plugin's call ends the outer call when the
    inner one returns."""

    def body(current: CurrentPlugin, value: Val, result: Val) -> None:
        with pytest.raises(plugwasm.TimeoutError):
            inner.call("spin")

    with make_plugin(timeout_ms=150) as inner, make_plugin(body, timeout_ms=50) as plugin:
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
    """Ctrl-C while an instance is dropped leaves a usable plugin, and the instance is freed."""
    # A reset that was interrupted may not have come to it; the instance of a call that was unwound
    # must be gone.
    assert run_program(INTERRUPTS.format(what=what)) in (("1", "2") if "reset" in what else ("1",))
