"""Calls in event loops: what runs where, and how a call ends that nobody wants any more. Under asyncio and under trio."""

from __future__ import annotations

import asyncio
import builtins
import contextvars
import gc
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import anyio
import pytest
import trio

import plugwasm
import plugwasm.aio
from plugwasm import (
    BusyError,
    ClosedError,
    CompiledPlugin,
    CurrentPlugin,
    HostFunctionError,
    Limits,
    Plugin,
    TimeoutError,
    ValType,
    host_fn,
)
from tests.support.guests import LOOP, export, guest
from tests.support.paths import ROOT
from tests.support.threads import InThread
from tests.support.waiting import soon

both = pytest.mark.parametrize("backend", ["asyncio", "trio"])

ECHO = guest(
    export("echo", "(call $echo)") + export("spin", LOOP) + export("trap", "(unreachable)")
)
ASK = guest(
    export("ask", "(call $give (call $answer_to (call $input_offset)))") + export("spin", LOOP),
    '(import "extism:host/user" "answer_to" (func $answer_to (param i64) (result i64)))',
)
WAIT = guest(
    export("wait", "(call $rest)") + export("echo", "(call $echo)"),
    '(import "extism:host/user" "rest" (func $rest))',
)


def in_loop(backend: str, main: Callable[..., Awaitable[Any]], *args: Any) -> Any:
    return anyio.run(main, *args, backend=backend)  # type: ignore[arg-type]


def asking(answer: Callable[..., Any]) -> Plugin:
    """A plugin whose `ask` gives the input to `answer`, and answers what that returns."""
    return Plugin(ASK, functions=[host_fn(name="answer_to")(answer)])


def resting(rest: Callable[[], Any], **options: Any) -> Plugin:
    rest.__annotations__.setdefault("return", None)
    return Plugin(WAIT, functions=[host_fn(name="rest")(rest)], **options)


async def until(condition: Callable[[], object]) -> None:
    with anyio.fail_after(20):
        while not condition():
            await anyio.sleep(0.005)


# Calling


@both
def test_a_call_takes_and_gives_what_a_sync_call_does(backend: str) -> None:
    async def main() -> None:
        async with Plugin(ECHO) as plugin:
            assert await plugin.call_async("echo", "text") == b"text"
            assert await plugin.call_async("echo", b"5", int) == 5
            assert await plugin.call_async("echo", b"[1, 2]", returns=list[int]) == [1, 2]
            view = await plugin.call_async("echo", b"seen", None)
            assert isinstance(view, memoryview)
            assert bytes(view) == b"seen"
        with pytest.raises(ClosedError):
            await plugin.call_async("echo")

    in_loop(backend, main)


@both
def test_errors_arrive_as_from_a_sync_call(backend: str) -> None:
    async def main() -> None:
        plugin = Plugin(ECHO)
        with pytest.raises(plugwasm.TrapError, match="unreachable"):
            await plugin.call_async("trap")
        with pytest.raises(plugwasm.FunctionNotFoundError):
            await plugin.call_async("missing")
        assert await plugin.call_async("echo", b"goes on") == b"goes on"

    in_loop(backend, main)


@both
def test_the_event_loop_goes_on_while_a_guest_runs(backend: str) -> None:
    async def main() -> None:
        plugin, ticks = Plugin(ECHO, limits=Limits(timeout=0.5)), 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await anyio.sleep(0.01)
                ticks += 1

        async with anyio.create_task_group() as group:
            group.start_soon(tick)
            with pytest.raises(TimeoutError):
                await plugin.call_async("spin")
            group.cancel_scope.cancel()
        assert ticks >= 5

    in_loop(backend, main)


@both
def test_a_second_call_of_a_plugin_waits_for_the_first(backend: str) -> None:
    async def main() -> None:
        plugin, limiter = Plugin(ECHO), anyio.CapacityLimiter(1)
        answers: list[bytes] = []

        async def call(data: bytes) -> None:
            answers.append(await plugin.call_async("echo", data))

        async with anyio.create_task_group() as group:
            group.start_soon(partial(plugin.call_async, "spin", limiter=limiter))
            await until(lambda: not hasattr(plugin, "_idle"))
            with pytest.raises(BusyError, match="event loop"):
                plugin.call("echo")
            with anyio.move_on_after(0.05) as scope:
                await plugin.call_async("echo")
            assert scope.cancelled_caught
            assert not hasattr(plugin, "_idle"), "the first call goes on"
            group.cancel_scope.cancel()
        async with anyio.create_task_group() as group:
            for number in range(4):
                group.start_soon(call, b"%d" % number)
        assert sorted(answers) == [b"0", b"1", b"2", b"3"]

    in_loop(backend, main)


@both
def test_a_limiter_bounds_the_calls_that_run_at_a_time(backend: str) -> None:
    running, most = 0, 0
    lock = threading.Lock()

    def rest() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.02)
        with lock:
            running -= 1

    async def main() -> None:
        limiter: Any = anyio.CapacityLimiter(2) if backend == "asyncio" else trio.CapacityLimiter(2)
        async with anyio.create_task_group() as group:
            for _ in range(8):
                group.start_soon(partial(resting(rest).call_async, "wait", limiter=limiter))
        assert limiter.borrowed_tokens == 0

    in_loop(backend, main)
    assert most == 2


@both
def test_each_event_loop_has_a_limiter_of_its_own(backend: str) -> None:
    async def main() -> Any:
        limiter = plugwasm.aio.default_limiter()
        assert limiter is plugwasm.aio.default_limiter()
        assert limiter is not anyio.to_thread.current_default_thread_limiter()
        limiter.total_tokens = 1
        assert await Plugin(ECHO).call_async("echo", b"x") == b"x"
        return limiter

    assert in_loop(backend, main) is not in_loop(backend, main)


def test_a_guest_has_stack_where_threads_have_little() -> None:
    program = """
import threading, anyio, plugwasm
threading.stack_size(256 * 1024)
async def main():
    return await plugwasm.Plugin("examples/echo.wasm").call_async("echo", "x")
assert anyio.run(main) == b"x"
assert threading.stack_size() == 256 * 1024
"""
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 0, run.stderr


def test_without_anyio_the_error_names_the_extra() -> None:
    program = """
import sys
sys.modules["anyio"] = None
import plugwasm
plugin = plugwasm.Plugin("examples/echo.wasm")
for coroutine in (plugin.call_async("echo"), plugin.__aenter__()):
    try:
        coroutine.send(None)
    except ImportError as error:
        print(error)
assert plugin.call("echo", "x") == b"x"
"""
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert run.stdout.count("pip install 'plugwasm[async]'") == 2, run.stderr


# Cancelling


@both
def test_a_task_that_is_cancelled_cancels_the_guest_and_waits_until_it_has_ended(
    backend: str,
) -> None:
    async def main() -> None:
        plugin = Plugin(ECHO)
        for _ in range(3):
            begin = time.monotonic()
            with anyio.move_on_after(0.05) as scope:
                await plugin.call_async("spin")
            assert scope.cancelled_caught
            assert hasattr(plugin, "_idle")
            assert time.monotonic() - begin < 5
            assert plugin.call("echo", b"usable") == b"usable"

    in_loop(backend, main)


@both
def test_fail_after_is_a_timeout(backend: str) -> None:
    async def main() -> None:
        with pytest.raises(builtins.TimeoutError):
            with anyio.fail_after(0.05):
                await Plugin(ECHO).call_async("spin")

    in_loop(backend, main)


def test_asyncio_timeout_cancels_the_guest() -> None:
    async def main() -> None:
        plugin = Plugin(ECHO)
        with pytest.raises(asyncio.TimeoutError):
            async with asyncio.timeout(0.05):
                await plugin.call_async("spin")
        assert plugin.call("echo", b"usable") == b"usable"
        task = asyncio.current_task()
        assert task
        assert task.cancelling() == 0

    asyncio.run(main())


def test_asyncio_task_cancel_may_come_many_times() -> None:
    async def main() -> None:
        released, entered = threading.Event(), threading.Event()

        def rest() -> None:
            entered.set()
            assert released.wait(20)

        plugin = resting(rest)
        task = asyncio.create_task(plugin.call_async("wait"))
        await asyncio.to_thread(entered.wait, 20)
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0.02)
        assert not task.done()  # a sync host function runs to its end
        released.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert plugin.call("echo", b"usable") == b"usable"

    asyncio.run(main())


@both
def test_a_sync_host_function_runs_to_its_end_and_the_task_waits_for_it(backend: str) -> None:
    ended = []

    def rest() -> None:
        time.sleep(0.3)
        ended.append(True)

    async def main() -> None:
        plugin = resting(rest)
        with anyio.move_on_after(0.05) as scope:
            await plugin.call_async("wait")
        assert ended
        assert scope.cancelled_caught
        assert plugin.call("echo", b"usable") == b"usable"

    in_loop(backend, main)


@both
def test_a_call_that_was_cancelled_before_it_began_does_not_begin(backend: str) -> None:
    calls = []

    async def main() -> None:
        plugin = resting(lambda: calls.append(1))
        with anyio.CancelScope() as scope:
            scope.cancel()
            await plugin.call_async("wait")
        limiter = anyio.CapacityLimiter(1)
        await limiter.acquire_on_behalf_of(plugin)
        with anyio.move_on_after(0.02):
            await plugin.call_async("wait", limiter=limiter)
        limiter.release_on_behalf_of(plugin)
        assert not calls
        await plugin.call_async("wait", limiter=limiter)

    in_loop(backend, main)
    assert calls == [1]


def test_an_asyncio_task_that_was_cancelled_before_its_first_step_does_not_call() -> None:
    calls: list[int] = []

    async def main() -> None:
        async def cancelled() -> None:
            task = asyncio.current_task()
            assert task
            task.cancel()
            await resting(lambda: calls.append(1)).call_async("wait")

        with pytest.raises(asyncio.CancelledError):
            await asyncio.create_task(cancelled())

    asyncio.run(main())
    assert not calls


@both
def test_cancelling_at_any_moment_leaves_a_usable_plugin(backend: str) -> None:
    async def main() -> None:
        plugin = Plugin(ECHO)
        for step in range(60):
            with anyio.move_on_after(step * 0.0001):
                if step % 3 == 0:
                    plugin.reset()  # so that it may hit the start of an instance
                await plugin.call_async("spin")
            assert hasattr(plugin, "_idle")
        assert await plugin.call_async("echo", b"usable") == b"usable"

    in_loop(backend, main)


@both
def test_closing_a_plugin_ends_its_call(backend: str) -> None:
    async def main() -> None:
        plugin, errors = Plugin(ECHO), []

        async def call() -> None:
            try:
                await plugin.call_async("spin")
            except plugwasm.Error as error:
                errors.append(type(error))

        async with anyio.create_task_group() as group, plugin:
            group.start_soon(call)
            await until(lambda: not hasattr(plugin, "_idle"))
        assert errors[0] in (plugwasm.CancelledError, ClosedError)

    in_loop(backend, main)


def test_a_task_that_its_event_loop_has_forgotten_keeps_no_guest_running() -> None:
    plugin, loop = Plugin(ECHO), asyncio.new_event_loop()
    task = loop.create_task(plugin.call_async("spin"))
    loop.run_until_complete(asyncio.sleep(0.1))
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.close()
    del task
    gc.collect()
    assert soon(lambda: hasattr(plugin, "_idle"), 20)


@pytest.mark.parametrize("is_forgotten", [True, False])
def test_an_event_loop_that_is_gone_keeps_no_thread_waiting(is_forgotten: bool) -> None:
    async def answer(data: str) -> str:
        await asyncio.sleep(60)
        return data

    plugin, loop = asking(answer), asyncio.new_event_loop()
    task = loop.create_task(plugin.call_async("ask", "?"))
    loop.run_until_complete(asyncio.sleep(0.1))
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.close()
    assert not hasattr(plugin, "_idle")
    kept = [] if is_forgotten else [task]
    del task
    gc.collect()
    assert soon(lambda: hasattr(plugin, "_idle"), 20)
    kept.clear()
    gc.collect()


# Host functions


@both
def test_an_async_host_function_runs_in_the_task_that_awaits_the_call(backend: str) -> None:
    tasks: list[object] = []

    async def answer(question: str) -> str:
        tasks.append((threading.get_ident(), anyio.get_current_task()))
        await anyio.sleep(0.01)
        return question[::-1]

    async def main() -> None:
        plugin = asking(answer)
        for _ in range(2):
            assert await plugin.call_async("ask", "was it a cat") == b"tac a ti saw"
        assert tasks == [(threading.get_ident(), anyio.get_current_task())] * 2

    in_loop(backend, main)


@both
def test_what_an_async_host_function_raises_is_the_cause(backend: str) -> None:
    async def answer(question: str) -> str:
        await anyio.sleep(0)
        raise LookupError(question)

    async def main() -> None:
        with pytest.raises(
            HostFunctionError, match="`answer_to` raised LookupError: why"
        ) as caught:
            await asking(answer).call_async("ask", "why")
        assert isinstance(caught.value.__cause__, LookupError)
        assert caught.value.plugin
        assert caught.value.function == "ask"

    in_loop(backend, main)


def test_a_sync_call_cannot_run_an_async_host_function_and_says_what_can() -> None:
    async def answer(question: str) -> str:
        return question

    plugin = asking(answer)
    with pytest.raises(HostFunctionError, match="call_async") as caught:
        plugin.call("ask", "why")
    assert isinstance(caught.value.__cause__, TypeError)

    async def main() -> None:
        with pytest.raises(HostFunctionError, match="call_async"):
            plugin.call("ask", "why")
        assert await plugin.call_async("ask", "why") == b"why"

    anyio.run(main)


@both
def test_the_context_of_the_caller_is_there_in_host_functions(backend: str) -> None:
    user: contextvars.ContextVar[str] = contextvars.ContextVar("user")

    def sync_answer(question: str) -> str:
        return user.get() + question

    async def async_answer(question: str) -> str:
        return user.get() + question

    async def call(answer: Any, name: str) -> None:
        user.set(name)
        assert await asking(answer).call_async("ask", "?") == name.encode() + b"?"

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for answer in (sync_answer, async_answer):
                for name in ("ada", "bob"):
                    group.start_soon(call, answer, name)

    in_loop(backend, main)


@both
def test_a_coroutine_is_cancelled_with_its_task(backend: str) -> None:
    cancelled = []

    async def answer(question: str) -> str:
        try:
            await anyio.sleep(60)
        except BaseException as error:
            cancelled.append(isinstance(error, anyio.get_cancelled_exc_class()))
            raise
        return question

    async def main() -> None:
        plugin = asking(answer)
        with anyio.move_on_after(0.1) as scope:
            await plugin.call_async("ask", "?")
        assert scope.cancelled_caught
        assert cancelled == [True]
        assert hasattr(plugin, "_idle")

    in_loop(backend, main)


@both
def test_the_deadline_of_a_call_ends_a_coroutine(backend: str) -> None:
    cleaned_up = []

    async def rest() -> None:
        try:
            await anyio.sleep(60)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.01)
            cleaned_up.append(True)

    async def main() -> None:
        plugin = resting(rest, limits=Limits(timeout=0.2))
        begin = time.monotonic()
        with pytest.raises(TimeoutError, match="deadline of 200 ms"):
            await plugin.call_async("wait")
        assert time.monotonic() - begin < 10
        assert cleaned_up
        assert await plugin.call_async("echo", b"usable") == b"usable"

    in_loop(backend, main)


@both
def test_a_cancel_handle_ends_a_coroutine(backend: str) -> None:
    async def rest() -> None:
        await anyio.sleep(60)

    async def main() -> None:
        plugin = resting(rest)
        timer = threading.Timer(0.1, plugin.cancel_handle().cancel)
        timer.start()
        with pytest.raises(plugwasm.CancelledError):
            await plugin.call_async("wait")
        timer.join()

    in_loop(backend, main)


@both
def test_an_async_host_function_with_a_signature_uses_the_memory_of_its_plugin(
    backend: str,
) -> None:
    kept: list[Any] = []

    @host_fn(name="answer_to", signature=([ValType.PTR], [ValType.PTR]), user_data="!")
    async def answer(
        plugin: CurrentPlugin, params: list[Any], results: list[Any], mark: str
    ) -> None:
        question = plugin.input_string(params[0])
        await anyio.sleep(0.01)
        scratch = plugin.alloc(16)
        plugin.memory(scratch)[:2] = b"ok"
        assert bytes(plugin.memory(scratch)[:2]) == b"ok"
        plugin.free(scratch)
        with pytest.raises(ValueError):
            plugin.alloc(-1)
        plugin.set_var("asked", question.encode())
        assert plugin.host_context() == "context"
        plugin.return_string(results[0], question + mark)
        kept.append(plugin)

    @host_fn(name="answer_to")
    async def failing(plugin: CurrentPlugin, question: str) -> str:
        plugin.set_error("not today")
        return ""

    async def main() -> None:
        plugin = Plugin(ASK, functions=[answer])
        assert await plugin.call_async("ask", "why", host_context="context") == b"why!"
        for use in (
            lambda: kept[0].alloc(1),
            lambda: kept[0].var("asked"),
            lambda: kept[0].set_error("late"),
        ):
            with pytest.raises(ClosedError):
                use()
        with pytest.raises(plugwasm.GuestError, match="not today"):
            await Plugin(ASK, functions=[failing]).call_async("ask", "why")

    in_loop(backend, main)


@both
def test_async_host_functions_can_be_methods_partials_and_callables(backend: str) -> None:
    class Oracle:
        async def ask(self, question: str) -> str:
            return question + "1"

    signature = ([ValType.PTR], [ValType.PTR])

    async def raw(mark: str, plugin: CurrentPlugin, params: Any, results: Any) -> None:
        plugin.return_string(results[0], plugin.input_string(params[0]) + mark)

    async def main() -> None:
        assert await asking(Oracle().ask).call_async("ask", "?") == b"?1"
        function = plugwasm.Function(None, "answer_to", *signature, partial(raw, "2"))
        assert await Plugin(ASK, functions=[function]).call_async("ask", "?") == b"?2"

        class Raw:
            async def __call__(self, plugin: CurrentPlugin, params: Any, results: Any) -> None:
                await raw("3", plugin, params, results)

        function = plugwasm.Function(None, "answer_to", *signature, Raw())
        assert await Plugin(ASK, functions=[function]).call_async("ask", "?") == b"?3"

    in_loop(backend, main)


@both
def test_an_async_host_function_can_await_other_plugins_whatever_the_limiter_says(
    backend: str,
) -> None:
    inner = CompiledPlugin(ECHO)

    async def answer(question: str) -> str:
        plugin = Plugin(inner)
        return (await plugin.call_async("echo", question)).decode() + "!"  # type: ignore[no-any-return]

    async def main() -> None:
        plugwasm.aio.default_limiter().total_tokens = 2
        answers = []

        async def call() -> None:
            answers.append(await asking(answer).call_async("ask", "hm"))

        with anyio.fail_after(30):
            async with anyio.create_task_group() as group:
                for _ in range(6):
                    group.start_soon(call)
        assert answers == [b"hm!"] * 6

    in_loop(backend, main)


@both
def test_a_coroutine_cannot_call_the_plugin_that_waits_for_it(backend: str) -> None:
    async def rest() -> None:
        with pytest.raises(BusyError):
            await plugin.call_async("echo")
        with pytest.raises(BusyError):
            plugin.call("echo")

    plugin = resting(rest)

    async def main() -> None:
        await plugin.call_async("wait")

    in_loop(backend, main)


@both
def test_a_sync_host_function_may_call_a_plugin_whose_host_function_is_async(backend: str) -> None:
    async def answer(question: str) -> str:
        await anyio.sleep(0)
        return question + "!"

    def between(question: str) -> str:
        return asking(answer).call("ask", question).decode() + "?"

    async def main() -> None:
        assert await asking(between).call_async("ask", "so") == b"so!?"

    in_loop(backend, main)


def test_another_thread_of_a_host_function_has_no_event_loop() -> None:
    async def answer(question: str) -> str:
        return question

    def between(question: str) -> str:
        context = contextvars.copy_context()
        return InThread(context.run, asking(answer).call, "ask", question).result()  # type: ignore[no-any-return]

    async def main() -> None:
        with pytest.raises(HostFunctionError, match="call_async"):
            await asking(between).call_async("ask", "so")

    anyio.run(main)


@both
def test_a_sync_host_function_may_run_an_event_loop_of_its_own(backend: str) -> None:
    async def inner(question: str) -> str:
        await anyio.sleep(0)
        return question + "!"

    def answer(question: str) -> str:
        return anyio.run(inner, question, backend=backend)

    async def main() -> None:
        assert await asking(answer).call_async("ask", "so") == b"so!"

    in_loop(backend, main)


@both
def test_many_calls_with_async_host_functions_at_once(backend: str) -> None:
    async def answer(question: str) -> str:
        await anyio.sleep(0.001)
        return question * 2

    async def main() -> None:
        compiled = CompiledPlugin(ASK, functions=[host_fn(name="answer_to")(answer)])

        async def call(number: int) -> None:
            async with Plugin(compiled) as plugin:
                for i in range(5):
                    question = f"{number}.{i} "
                    assert await plugin.call_async("ask", question) == question.encode() * 2

        async with anyio.create_task_group() as group:
            for number in range(30):
                group.start_soon(call, number)

    in_loop(backend, main)


@both
def test_an_isolated_plugin_is_called_the_same_way(backend: str) -> None:
    async def answer(question: str) -> str:
        await anyio.sleep(0.001)
        return question + "!"

    async def main() -> None:
        make = partial(plugwasm.IsolatedPlugin, ASK, functions=[host_fn(name="answer_to")(answer)])
        async with await plugwasm.aio.run(make) as plugin:
            assert await plugin.call_async("ask", "so") == b"so!"
            with anyio.move_on_after(0.3) as scope:
                await plugin.call_async("spin")
            assert scope.cancelled_caught
            assert await plugin.call_async("ask", "again") == b"again!"

    in_loop(backend, main)


# Loading


@both
def test_loading_and_compiling_do_not_block_the_event_loop(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import plugwasm._runtime.compiled_plugin as compiled_module

    threads: list[int] = []
    real = compiled_module.resolve

    def slow(*args: Any, **options: Any) -> Any:
        threads.append(threading.get_ident())
        time.sleep(0.2)
        return real(*args, **options)

    monkeypatch.setattr(compiled_module, "resolve", slow)

    async def main() -> None:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await anyio.sleep(0.01)
                ticks += 1

        async with anyio.create_task_group() as group:
            group.start_soon(tick)
            async with await plugwasm.aio.load(ECHO, config={"k": "v"}) as plugin:
                assert plugin.config == {"k": "v"}
                assert await plugin.call_async("echo", b"1") == b"1"
            compiled = await plugwasm.aio.compile(ECHO, name="compiled")
            assert Plugin(compiled).name == "compiled"
            group.cancel_scope.cancel()
        assert ticks >= 4
        assert threading.get_ident() not in threads
        assert len(threads) == 2
        with pytest.raises(plugwasm.ManifestError):
            await plugwasm.aio.load({"wasm": []})

    in_loop(backend, main)


@both
def test_a_load_that_is_cancelled_is_not_waited_for_and_what_it_makes_is_closed(
    backend: str,
) -> None:
    released, made = threading.Event(), []

    def make() -> Plugin:
        assert released.wait(20)
        made.append(Plugin(ECHO))
        return made[0]

    async def main() -> None:
        limiter = anyio.CapacityLimiter(1)
        with anyio.move_on_after(0.05) as scope:
            await plugwasm.aio.run(make, limiter=limiter)
        assert scope.cancelled_caught
        assert limiter.borrowed_tokens == 1  # the thread still works
        released.set()
        await until(lambda: limiter.borrowed_tokens == 0)
        with pytest.raises(ClosedError):
            made[0].call("echo")

    in_loop(backend, main)


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="there is no fork")
def test_a_forked_child_can_await_calls() -> None:
    program = """
import os, anyio, plugwasm
plugin = plugwasm.Plugin("examples/echo.wasm")
async def main():
    return await plugin.call_async("echo", "x")
assert anyio.run(main) == b"x"
pid = os.fork()
assert anyio.run(main) == b"x"
if pid == 0:
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
"""
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 0, run.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="signals are others there")
@both
@pytest.mark.parametrize("where", ["guest", "coroutine"])
def test_ctrl_c_ends_the_guest_and_the_program(backend: str, where: str) -> None:
    program = """
import os, signal, sys, threading, anyio, plugwasm
backend, where = sys.argv[1:]
@plugwasm.host_fn()
async def greet(who: str) -> str:
    await anyio.sleep(60)
    return who
@plugwasm.host_fn()
def add(a: int, b: int) -> int:
    return a
@plugwasm.host_fn()
def scale(a: float) -> float:
    return a
echo, asking = plugwasm.Plugin("examples/echo.wasm"), plugwasm.Plugin("examples/host_functions.wasm")
async def main():
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    await (echo.call_async("spin") if where == "guest" else asking.call_async("greet", "you"))
try:
    anyio.run(main, backend=backend)
except KeyboardInterrupt:
    assert echo.call("echo", "usable") == b"usable"
    print("interrupted")
"""
    begin = time.monotonic()
    run = subprocess.run(
        [sys.executable, "-c", program, backend, where],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert run.stdout.split() == ["interrupted"], run.stderr
    assert time.monotonic() - begin < 40
