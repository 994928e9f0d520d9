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


def test_a_linked_command_runs_also_while_the_pool_is_full() -> None:
    """A command gets a fresh instance for each call, wherever there is room."""
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


def test_calls_of_many_threads_are_never_interleaved_inside_the_guest() -> None:
    """The guest traps when it is entered while it waits for the host; the host lets other threads run then."""
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


def test_while_a_call_runs_other_threads_can_look_configure_and_cancel_but_not_enter() -> None:
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


def test_a_waiting_thread_leaves_the_call_under_way_as_it_was() -> None:
    """Its input, its host context, its deadline and its place in the ticker."""
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


def test_many_threads_close_a_plugin_at_once_while_it_runs() -> None:
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


def test_exceptions_of_different_kinds_on_different_threads_reach_their_own_caller_with_their_own_traceback() -> (
    None
):
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


def test_one_exception_object_that_several_threads_raise_at_once_is_the_cause_of_each() -> None:
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
def test_an_exception_that_cannot_be_shown_is_the_cause_all_the_same(raised: Exception) -> None:
    def body(*_: Any) -> None:
        raise raised

    with plugin_with(body) as plugin:
        with pytest.raises(HostFunctionError) as caught:
            plugin.call("back")
        assert caught.value.__cause__ is raised
        assert type(raised).__name__ in str(caught.value)
        assert plugin.call("echo", b"after") == b"after"


def test_an_exception_that_the_host_function_handles_never_reaches_the_caller() -> None:
    def body(current: CurrentPlugin, value: Val, result: Val) -> None:
        with pytest.raises(OSError):
            raise OSError
        with pytest.raises(BadHandleError):
            current.memory(Memory(12345, 1))
        current.return_bytes(result, b"went on")

    with plugin_with(body) as plugin:
        assert plugin.call("back") == b"went on"


def test_an_exit_in_a_host_function_does_not_end_the_process_unless_the_application_lets_it() -> (
    None
):
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
def test_closing_in_the_first_moment_of_a_call_ends_it_as_well(started: bool) -> None:
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


def test_closing_while_a_host_function_runs_is_deferred_until_that_returns() -> None:
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
def test_closing_while_the_output_is_parsed_does_not_spoil_it(how: Any) -> None:
    plugin = plugin_with()

    def parse(output: bytes) -> bytes:
        plugin.close()
        return output[:3]

    assert plugin.call("echo", b"abcdef", parse=parse) == b"abc"
    with pytest.raises(ClosedError):
        plugin.call("echo", parse=how)


def test_closing_from_a_log_handler_in_the_middle_of_a_call_ends_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
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


def test_a_plugin_whose_last_reference_goes_in_the_middle_of_its_call_ends_that_well() -> None:
    """It, its compiled plugin and its host function are all dropped by the host function, which then collects garbage."""
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


def test_a_plugin_in_a_cycle_is_collected_while_another_thread_collects_and_calls() -> None:
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


def test_plugins_outlive_their_compiled_plugin_and_its_functions() -> None:
    shared = compiled(lambda current, value, result: current.return_bytes(result, b"still here"))
    plugins = [Plugin(shared) for _ in range(6)]
    del shared
    gc.collect()
    for plugin in plugins:
        assert plugin.call("back") == b"still here"
        plugin.close()
        plugin.close()


def test_a_plugin_that_was_dropped_while_another_thread_runs_its_call_ends_that_call_by_itself() -> (
    None
):
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


def test_plugins_alive_at_the_end_of_the_interpreter_are_left_in_peace() -> None:
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


def test_a_trap_deep_in_a_chain_of_plugins_unwinds_each_of_them_once() -> None:
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


def test_a_trap_that_a_host_function_handles_costs_only_the_plugin_that_trapped() -> None:
    with chain(3, "trap", handled_at=1) as (plugins, unwound):
        for round in range(3):
            assert plugins[0].call("back", b"0") == b"handled"
            assert unwound == ["1", "0"]
            unwound.clear()
            assert [number(plugin.call("count")) for plugin in plugins] == [2 + round, 2 + round, 1]


def test_a_trap_after_a_host_function_called_another_plugin_leaves_that_as_it_is() -> None:
    with Plugin(compiled()) as other, plugin_with(lambda *_: other.call("count")) as plugin:
        for round in range(3):
            with pytest.raises(TrapError):
                plugin.call("back_then_trap")
            assert number(plugin.call("count")) == 1
            assert number(other.call("count")) == 2 * round + 2


def test_what_ends_a_call_within_a_call_is_not_told_as_the_end_of_the_outer_one() -> None:
    """An inner timeout or cancellation that is handled does not end the outer call, and its own deadline still does."""

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


def test_an_outer_deadline_that_passes_in_an_inner_plugin_ends_the_outer_call_when_it_returns() -> (
    None
):
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
def test_ctrl_c_in_the_moment_when_an_instance_is_dropped_leaves_a_plugin_that_works_and_drops_the_instance(
    what: str,
) -> None:
    # A reset that was interrupted may not have come to it; the instance of a call that was unwound must be gone.
    assert in_process(INTERRUPTS.format(what=what)) in (("1", "2") if "reset" in what else ("1",))
