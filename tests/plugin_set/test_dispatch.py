"""Hooks: which plugins are called, in which order, and on which instances."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import plugwasm
import plugwasm.aio
from plugwasm.errors import (
    FunctionNotFoundError,
    GuestError,
    HostFunctionError,
    OptionError,
)
from plugwasm.plugin_set import PluginSet, Result
from tests.support.guests import export, guest
from tests.support.plugin_sets import (
    COUNTS,
    ENTRY,
    FAILING,
    SILENT,
    TRAPS,
    HeldCalls,
    appending_plugin,
    description_of,
    enter_functions,
    make_folder,
    text_plugin,
    waiting_text_plugin,
    wat,
)
from tests.support.threads import InThread
from tests.support.waiting import soon

# Hooks


def test_exports_decide_hooks() -> None:
    """A plugin's exports determine the hooks that it serves."""
    body = (
        export("save", "")
        + '(func (export "with") (param i32)) (func (export "_private")) (func (export "a\\1bb"))'
    )
    with PluginSet({"a": guest(body + export("render", "")), "b": guest(body)}) as plugins:
        assert plugins.hooks == {"render": ("a",), "save": ("a", "b")}
        assert plugins.all("with") == []


def test_declared_hooks_are_binding() -> None:
    """If hooks are declared, no others can be called."""
    with PluginSet(
        {"a": guest(export("_save", "") + export("other", ""))}, hooks=["_save", "render"]
    ) as plugins:
        plugins.configure("a", {"k": "v"})
        assert plugins.hooks == {"_save": ("a",)}
        assert plugins.first("render") is None
        with pytest.raises(
            FunctionNotFoundError, match="there is no hook `rendr`: did you mean `render`"
        ):
            plugins.first("rendr")


def test_first_takes_first_answer() -> None:
    """`first` returns the first output that is not empty and does not call further plugins."""
    entered: list[str] = []

    @plugwasm.host_fn()
    def enter() -> None:
        entered.append("last")

    last = guest(export("hook", "(call $enter)"), ENTRY)
    with PluginSet(
        {"silent": SILENT, "fails": FAILING, "traps": TRAPS, "one": text_plugin("1"), "last": last},
        functions=[enter],
    ) as plugins:
        assert plugins.first("hook") == b"1"
        assert not entered
        plugins.disable("one")
        assert plugins.first("hook") is None
        assert entered == ["last"]
        assert plugins.first("nobody serves this") is None


def test_first_skips_empty_output() -> None:
    """An empty output is skipped, whatever it would be converted to."""
    with PluginSet(
        {"silent": SILENT, "null": text_plugin("null"), "five": text_plugin("5")}
    ) as plugins:
        assert plugins.first("hook", parse=json.loads) == 5
        assert plugins.first("hook", returns=int | None) == 5
        assert plugins.first("hook", returns=str) == "null"
        assert not any(description.last_failure for description in plugins.describe())
        assert plugins.first("hook", returns=int) == 5
        assert "null" in str(description_of(plugins, "null").last_failure)


def test_all_gives_results_and_errors() -> None:
    """`all` returns each plugin's result or error for the same input."""
    with PluginSet(
        {"a": appending_plugin("a"), "fails": FAILING, "b": appending_plugin("b"), "silent": SILENT}
    ) as plugins:
        a, fails, b, silent = plugins.all("hook", "x")
        assert (a, b, silent) == (Result("a", b"xa"), Result("b", b"xb"), Result("silent", b""))
        assert a.ok
        assert not fails.ok
        assert isinstance(fails.error, GuestError)
        assert fails.error.plugin == fails.plugin == "fails"
        with pytest.raises(GuestError, match="not today"):
            fails.get()


def test_chain_passes_output_on() -> None:
    """A chain passes each output to the next plugin and skips plugins that fail."""
    with PluginSet(
        {"a": appending_plugin("a"), "fails": FAILING, "traps": TRAPS, "b": appending_plugin("b")}
    ) as plugins:
        assert plugins.chain("hook", "x") == b"xab"
        assert plugins.chain("hook", "x", parse=bytes.decode) == "xab"
        assert plugins.chain("nobody serves this", "x") == "x"
    with PluginSet(
        {"a": appending_plugin("a"), "silent": SILENT, "b": appending_plugin("b")}
    ) as plugins:
        assert plugins.chain("hook", "x") == b"b"


def test_a_chain_can_be_of_values() -> None:
    with PluginSet(
        {"a": appending_plugin("0"), "not an int": text_plugin("x"), "b": appending_plugin("7")}
    ) as plugins:
        assert plugins.chain("hook", 4, returns=int) == 407


@pytest.mark.parametrize("ask", ["first", "all", "chain"])
def test_stop_on_error(ask: str) -> None:
    """An error stops the other plugins only on request."""
    with PluginSet({"fails": FAILING, "a": text_plugin("a")}) as plugins:
        getattr(plugins, ask)("hook")
        with pytest.raises(GuestError, match="not today"):
            getattr(plugins, ask)("hook", stop_on_error=True)


def test_host_exception_is_plugin_error() -> None:
    """A host function's exception is the plugin's error, and a KeyboardInterrupt is not."""
    reason: list[BaseException] = [ValueError("wrong")]

    @plugwasm.host_fn()
    def enter() -> None:
        raise reason[0]

    with PluginSet(
        {"calls": guest(export("hook", "(call $enter)"), ENTRY), "a": text_plugin("a")},
        functions=[enter],
    ) as plugins:
        failed, a = plugins.all("hook")
        assert a.ok
        assert isinstance(failed.error, HostFunctionError)
        assert isinstance(failed.error.__cause__, ValueError)
        reason[0] = KeyboardInterrupt()
        with pytest.raises(KeyboardInterrupt):
            plugins.all("hook")
        reason[0] = ValueError("again")
        assert [result.ok for result in plugins.all("hook")] == [False, True]


def test_parse_exception_is_plugin_error() -> None:
    """An exception of `parse` is the plugin's error, unchanged."""
    with PluginSet({"text": text_plugin("x"), "number": text_plugin("5")}) as plugins:
        text, number = plugins.all("hook", parse=json.loads)
        assert number.output == 5
        assert isinstance(text.error, json.JSONDecodeError)
        assert "its output cannot be parsed: JSONDecodeError" in str(
            description_of(plugins, "text").last_failure
        )
        with pytest.raises(json.JSONDecodeError):
            plugins.call("text", "hook", parse=json.loads)


def test_application_error_is_raised() -> None:
    """An error of the application itself is raised."""
    with PluginSet({"a": appending_plugin("a")}) as plugins:
        with pytest.raises(TypeError, match="cannot be sent"):
            plugins.all("hook", object())
        with pytest.raises(TypeError, match="unexpected keyword"):
            plugins.first("hook", colour="red")
        with pytest.raises(OptionError, match="gives no views"):
            plugins.first("hook", parse=None)


def test_call_by_name() -> None:
    """A single plugin can be called by name."""
    with PluginSet(
        {"a": text_plugin("1"), "b": text_plugin("2"), "broken": "(module"}, disabled=["b"]
    ) as plugins:
        assert plugins.call("a", "hook") == b"1"
        for name, message in (("b", "it is disabled"), ("broken", "it could not be loaded: ")):
            with pytest.raises(FunctionNotFoundError, match=message):
                plugins.call(name, "hook")
        with pytest.raises(
            FunctionNotFoundError, match="exports no function `hok`: did you mean `hook`"
        ):
            plugins.call("a", "hok")
        with pytest.raises(
            OptionError, match="there is no plugin `brokn` in the set: did you mean `broken`"
        ):
            plugins.call("brokn", "hook")


def test_order_of_plugins(tmp_path: Path) -> None:
    """Plugins are called in the application's order, then in their own, then in the order of
    discovery."""
    for name, place in (("a", 0), ("b", -5), ("c", 0), ("d", 7), ("e", 9)):
        make_folder(tmp_path / name, f"[plugin]\norder = {place}\n", text_plugin(name))
    with PluginSet.from_directory(tmp_path) as plugins:
        assert plugins.hooks["hook"] == tuple("bacde")
        make_folder(tmp_path / "a", "[plugin]\norder = 7\n")
        plugins.enable("a")
        assert plugins.hooks["hook"] == tuple("bcade")
        make_folder(tmp_path / "b", "[plugin]\norder = 7\n")
        plugins.enable("b")
        assert plugins.hooks["hook"] == tuple("cabde")
    make_folder(tmp_path / "b", "[plugin]\norder = -5\n")
    make_folder(tmp_path / "a", "[plugin]\n")
    with PluginSet(
        wat("x", text_plugin("x")), directories=[tmp_path], order=["e", "nobody", "c"]
    ) as plugins:
        assert plugins.hooks["hook"] == tuple("ecbxad")


# Instances


def test_instances_are_kept_or_fresh() -> None:
    """Instances are kept for further calls unless they should be fresh."""
    with PluginSet({"a": COUNTS}) as plugins:
        assert [plugins.first("hook")[0] for _ in range(3)] == [1, 2, 3]
    for options in ({"fresh": True}, {"instances": 0}):
        with PluginSet({"a": COUNTS}, **options) as plugins:
            assert [plugins.first("hook")[0] for _ in range(3)] == [1, 1, 1]


def test_instance_per_concurrent_call(doors: HeldCalls) -> None:
    """Concurrent calls each have an instance, and no more than configured are kept."""
    with PluginSet(
        {"a": waiting_text_plugin("a")}, functions=enter_functions(doors), instances=2
    ) as plugins:
        calls = [InThread(plugins.first, "hook") for _ in range(6)]
        assert soon(lambda: doors.inside == 6, 20)
        doors.go.set()
        assert [call.result() for call in calls] == [b"a"] * 6
        loaded = plugins._catalog.state.entries["a"].loaded
        assert loaded is not None
        assert len(loaded._idle) == 2


def test_host_function_calls_set() -> None:
    """A host function can call the set whose plugin called it."""
    depth: list[int] = []

    def enter(*_: Any) -> None:
        depth.append(len(depth))
        if len(depth) < 4:
            assert plugins.first("hook") == b"a"

    with PluginSet(
        {"a": waiting_text_plugin("a")},
        functions=[plugwasm.Function("extism:host/user", "enter", [], [], enter)],
    ) as plugins:
        assert plugins.first("hook") == b"a"
        assert depth == [0, 1, 2, 3]
