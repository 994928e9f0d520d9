"""Host functions of calls in event loops: coroutines run in the task that awaits the call, other
functions in a thread."""

from __future__ import annotations

import contextvars
import threading
import time
from functools import partial
from typing import Any

import anyio
import pytest

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
from tests.support.event_loops import both, run_in_loop
from tests.support.guests import LOOP, export, guest
from tests.support.host_calls import ASK, make_asking_plugin, make_waiting_plugin
from tests.support.threads import InThread

ECHO = guest(
    export("echo", "(call $echo)") + export("spin", LOOP) + export("trap", "(unreachable)")
)


@both
def test_runs_in_awaiting_task(backend: str) -> None:
    """An async host function runs in the task that awaits the call."""
    tasks: list[object] = []

    async def answer(question: str) -> str:
        tasks.append((threading.get_ident(), anyio.get_current_task()))
        await anyio.sleep(0.01)
        return question[::-1]

    async def main() -> None:
        plugin = make_asking_plugin(answer)
        for _ in range(2):
            assert await plugin.call_async("ask", "was it a cat") == b"tac a ti saw"
        assert tasks == [(threading.get_ident(), anyio.get_current_task())] * 2

    run_in_loop(backend, main)


@both
def test_exception_is_cause(backend: str) -> None:
    """An exception of an async host function is the cause of the error."""

    async def answer(question: str) -> str:
        await anyio.sleep(0)
        raise LookupError(question)

    async def main() -> None:
        with pytest.raises(
            HostFunctionError, match="`answer_to` raised LookupError: why"
        ) as caught:
            await make_asking_plugin(answer).call_async("ask", "why")
        assert isinstance(caught.value.__cause__, LookupError)
        assert caught.value.plugin
        assert caught.value.function == "ask"

    run_in_loop(backend, main)


def test_sync_call_is_refused() -> None:
    """A synchronous call cannot run an async host function, and the error names what can."""

    async def answer(question: str) -> str:
        return question

    plugin = make_asking_plugin(answer)
    with pytest.raises(HostFunctionError, match="call_async") as caught:
        plugin.call("ask", "why")
    assert isinstance(caught.value.__cause__, TypeError)

    async def main() -> None:
        with pytest.raises(HostFunctionError, match="call_async"):
            plugin.call("ask", "why")
        assert await plugin.call_async("ask", "why") == b"why"

    anyio.run(main)


@both
def test_context_of_caller(backend: str) -> None:
    """Host functions see the caller's context variables."""
    user: contextvars.ContextVar[str] = contextvars.ContextVar("user")

    def sync_answer(question: str) -> str:
        return user.get() + question

    async def async_answer(question: str) -> str:
        return user.get() + question

    async def call(answer: Any, name: str) -> None:
        user.set(name)
        assert await make_asking_plugin(answer).call_async("ask", "?") == name.encode() + b"?"

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for answer in (sync_answer, async_answer):
                for name in ("ada", "bob"):
                    group.start_soon(call, answer, name)

    run_in_loop(backend, main)


@both
def test_coroutine_cancelled_with_task(backend: str) -> None:
    """Cancelling the task cancels its host function's coroutine."""
    cancelled = []

    async def answer(question: str) -> str:
        try:
            await anyio.sleep(60)
        except BaseException as error:
            cancelled.append(isinstance(error, anyio.get_cancelled_exc_class()))
            raise
        return question

    async def main() -> None:
        plugin = make_asking_plugin(answer)
        with anyio.move_on_after(0.1) as scope:
            await plugin.call_async("ask", "?")
        assert scope.cancelled_caught
        assert cancelled == [True]
        assert hasattr(plugin, "_idle")

    run_in_loop(backend, main)


@both
def test_deadline_ends_coroutine(backend: str) -> None:
    """A call's deadline ends its coroutine."""
    cleaned_up = []

    async def rest() -> None:
        try:
            await anyio.sleep(60)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.01)
            cleaned_up.append(True)

    async def main() -> None:
        plugin = make_waiting_plugin(rest, limits=Limits(timeout=0.2))
        begin = time.monotonic()
        with pytest.raises(TimeoutError, match="deadline of 200 ms"):
            await plugin.call_async("wait")
        assert time.monotonic() - begin < 10
        assert cleaned_up
        assert await plugin.call_async("echo", b"usable") == b"usable"

    run_in_loop(backend, main)


@both
def test_cancel_handle_ends_coroutine(backend: str) -> None:
    """A cancel handle ends the call's coroutine."""

    async def rest() -> None:
        await anyio.sleep(60)

    async def main() -> None:
        plugin = make_waiting_plugin(rest)
        timer = threading.Timer(0.1, plugin.cancel_handle().cancel)
        timer.start()
        with pytest.raises(plugwasm.CancelledError):
            await plugin.call_async("wait")
        timer.join()

    run_in_loop(backend, main)


@both
def test_signature_and_plugin_memory(backend: str) -> None:
    """An async host function with a signature can use its plugin's memory."""
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

    run_in_loop(backend, main)


@both
def test_methods_partials_and_callables(backend: str) -> None:
    """Methods, partials and callable objects can be async host functions."""

    class Oracle:
        async def ask(self, question: str) -> str:
            return question + "1"

    signature = ([ValType.PTR], [ValType.PTR])

    async def raw(mark: str, plugin: CurrentPlugin, params: Any, results: Any) -> None:
        plugin.return_string(results[0], plugin.input_string(params[0]) + mark)

    async def main() -> None:
        assert await make_asking_plugin(Oracle().ask).call_async("ask", "?") == b"?1"
        function = plugwasm.Function(None, "answer_to", *signature, partial(raw, "2"))
        assert await Plugin(ASK, functions=[function]).call_async("ask", "?") == b"?2"

        class Raw:
            async def __call__(self, plugin: CurrentPlugin, params: Any, results: Any) -> None:
                await raw("3", plugin, params, results)

        function = plugwasm.Function(None, "answer_to", *signature, Raw())
        assert await Plugin(ASK, functions=[function]).call_async("ask", "?") == b"?3"

    run_in_loop(backend, main)


@both
def test_awaits_other_plugins(backend: str) -> None:
    """An async host function can await other plugins even if the limiter is exhausted."""
    inner = CompiledPlugin(ECHO)

    async def answer(question: str) -> str:
        plugin = Plugin(inner)
        return (await plugin.call_async("echo", question)).decode() + "!"

    async def main() -> None:
        plugwasm.aio.default_limiter().total_tokens = 2
        answers = []

        async def call() -> None:
            answers.append(await make_asking_plugin(answer).call_async("ask", "hm"))

        with anyio.fail_after(30):
            async with anyio.create_task_group() as group:
                for _ in range(6):
                    group.start_soon(call)
        assert answers == [b"hm!"] * 6

    run_in_loop(backend, main)


@both
def test_cannot_call_waiting_plugin(backend: str) -> None:
    """A coroutine cannot call the plugin that waits for it."""

    async def rest() -> None:
        with pytest.raises(BusyError):
            await plugin.call_async("echo")
        with pytest.raises(BusyError):
            plugin.call("echo")

    plugin = make_waiting_plugin(rest)

    async def main() -> None:
        await plugin.call_async("wait")

    run_in_loop(backend, main)


@both
def test_sync_function_calls_async_plugin(backend: str) -> None:
    """A synchronous host function may call a plugin whose host function is async."""

    async def answer(question: str) -> str:
        await anyio.sleep(0)
        return question + "!"

    def between(question: str) -> str:
        return make_asking_plugin(answer).call("ask", question).decode() + "?"

    async def main() -> None:
        assert await make_asking_plugin(between).call_async("ask", "so") == b"so!?"

    run_in_loop(backend, main)


def test_other_thread_has_no_event_loop() -> None:
    """A thread started by a host function has no event loop."""

    async def answer(question: str) -> str:
        return question

    def between(question: str) -> str:
        context = contextvars.copy_context()
        return InThread(context.run, make_asking_plugin(answer).call, "ask", question).result()  # type: ignore[no-any-return]

    async def main() -> None:
        with pytest.raises(HostFunctionError, match="call_async"):
            await make_asking_plugin(between).call_async("ask", "so")

    anyio.run(main)


@both
def test_sync_function_runs_event_loop(backend: str) -> None:
    """A synchronous host function may run its own event loop."""

    async def inner(question: str) -> str:
        await anyio.sleep(0)
        return question + "!"

    def answer(question: str) -> str:
        return anyio.run(inner, question, backend=backend)

    async def main() -> None:
        assert await make_asking_plugin(answer).call_async("ask", "so") == b"so!"

    run_in_loop(backend, main)


@both
def test_many_concurrent_calls(backend: str) -> None:
    """Many concurrent calls can run async host functions."""

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

    run_in_loop(backend, main)
