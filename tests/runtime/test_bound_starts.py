"""Starts of instances that use again what an earlier start of the same plugin has bound."""

from __future__ import annotations

import gc
import threading
from typing import Any

import pytest

from plugwasm import CompiledPlugin, Function, Plugin
from plugwasm.errors import HostFunctionError, TrapError
from plugwasm.recording import Recorder
from tests.support.guests import export, guest
from tests.support.paths import EXAMPLES

STARTED = guest(
    '(func (export "_initialize") (call $hello))'
    + export("hello", "(call $hello)")
    + export("trap", "unreachable"),
    '(import "extism:host/user" "hello" (func $hello))',
)


def plugin_with(hello: Any) -> CompiledPlugin:
    return CompiledPlugin(STARTED, functions=[Function(None, "hello", [], [], hello)])


def spare(compiled: CompiledPlugin) -> int:
    plans = [compiled._plan, compiled._pooled_plan]
    return max(len(plan._spare_starts) for plan in plans if plan is not None)


def test_next_start_uses_it_again() -> None:
    """Instances that follow one another need one set of calls, those at a time no more either."""
    compiled = CompiledPlugin((EXAMPLES / "echo.wasm").read_bytes())
    plugins = [Plugin(compiled) for _ in range(5)]
    for number, plugin in enumerate(plugins):
        assert plugin.call("echo", b"%d" % number) == b"%d" % number
    assert spare(compiled) == 1
    for number, plugin in enumerate(plugins):
        assert plugin.call("echo", b"%d!" % number) == b"%d!" % number


def test_start_inside_of_a_start() -> None:
    """A host function that the start calls may start another instance of the same plugin."""
    depth, deepest = 0, 0

    def hello(*_: Any) -> None:
        nonlocal depth, deepest
        depth += 1
        deepest = max(deepest, depth)
        if depth < 4:
            with Plugin(compiled) as inner:
                inner.call("hello")
        depth -= 1

    compiled = plugin_with(hello)
    with Plugin(compiled) as plugin:
        for _ in range(2):
            plugin.call("hello")
    assert deepest == 4
    assert 1 <= spare(compiled) <= 4


@pytest.mark.parametrize("fails", [HostFunctionError, KeyboardInterrupt])
def test_failed_start_leaves_nothing(fails: type[BaseException]) -> None:
    """After a start that failed the next one works, and uses nothing of that."""
    failing = True

    def hello(*_: Any) -> None:
        if failing:
            raise KeyboardInterrupt if fails is KeyboardInterrupt else ValueError("no")

    compiled = plugin_with(hello)
    plugin = Plugin(compiled)
    for _ in range(3):
        with pytest.raises(fails):
            plugin.call("hello")
        assert spare(compiled) == 0
    failing = False
    plugin.call("hello")
    with pytest.raises(TrapError):
        plugin.call("trap")
    plugin.call("hello")
    assert spare(compiled) == 1


def test_host_functions_outlive_the_calls() -> None:
    """An instance holds the host functions that it imports, whoever else does not."""
    heard: list[int] = []
    plugin = Plugin(plugin_with(lambda *_: heard.append(1)))
    plugin.call("hello")
    plan = plugin.compiled_plugin._plan
    plan._spare_starts.clear()
    plan.main.sources.clear()
    plan.main.made_sources.clear()
    plugin.compiled_plugin._offered = {}
    gc.collect()
    rubbish = [Function(None, "other", [], [], lambda *_: heard.append(2)) for _ in range(200)]
    plugin.call("hello")
    assert heard == [1, 1, 1]
    assert len(rubbish) == 200


def test_recorded_and_others_in_turns() -> None:
    """A recorded instance imports other functions than one that is not: neither gets the other's."""
    heard: list[str] = []
    compiled = plugin_with(lambda *_: heard.append("hello"))
    for _ in range(3):
        with Plugin(compiled) as plugin:
            plugin.call("hello")
        recorder = Recorder()
        with Plugin(compiled, observe=recorder) as plugin:
            plugin.call("hello")
        (call,) = recorder.recording.calls
        assert [host_call.name for host_call in call.host_calls][-1:] == ["hello"]
    assert len(heard) == 12


def test_threads_that_start_at_a_time() -> None:
    """Threads that start instances at the same time do not meet in the bound calls."""
    compiled = CompiledPlugin((EXAMPLES / "echo.wasm").read_bytes())
    wrong: list[bytes] = []

    def work(name: bytes) -> None:
        for number in range(100):
            with Plugin(compiled) as plugin:
                said = b"%s %d" % (name, number)
                if plugin.call("echo", said) != said:
                    wrong.append(said)

    threads = [threading.Thread(target=work, args=(b"%d" % i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
