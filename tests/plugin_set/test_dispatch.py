"""Hooks: which plugins are asked, in which order, and which instances serve them."""

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
    Doors,
    appends,
    described,
    folder,
    functions_of,
    says,
    waits_then_says,
    wat,
)
from tests.support.threads import InThread
from tests.support.waiting import soon

# Hooks


def test_the_exports_of_a_plugin_decide_which_hooks_it_serves() -> None:
    body = (
        export("save", "")
        + '(func (export "with") (param i32)) (func (export "_private")) (func (export "a\\1bb"))'
    )
    with PluginSet({"a": guest(body + export("render", "")), "b": guest(body)}) as plugins:
        assert plugins.hooks == {"render": ("a",), "save": ("a", "b")}
        assert plugins.all("with") == []


def test_declared_hooks_are_all_there_are() -> None:
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


def test_the_first_answer_that_is_not_empty_is_taken_and_the_rest_is_not_asked() -> None:
    entered: list[str] = []

    @plugwasm.host_fn()
    def enter() -> None:
        entered.append("last")

    last = guest(export("hook", "(call $enter)"), ENTRY)
    with PluginSet(
        {"silent": SILENT, "fails": FAILING, "traps": TRAPS, "one": says("1"), "last": last},
        functions=[enter],
    ) as plugins:
        assert plugins.first("hook") == b"1"
        assert not entered
        plugins.disable("one")
        assert plugins.first("hook") is None
        assert entered == ["last"]
        assert plugins.first("nobody serves this") is None


def test_an_empty_output_is_no_answer_whatever_it_would_be_made_into() -> None:
    with PluginSet({"silent": SILENT, "null": says("null"), "five": says("5")}) as plugins:
        assert plugins.first("hook", parse=json.loads) == 5
        assert plugins.first("hook", returns=int | None) == 5
        assert plugins.first("hook", returns=str) == "null"
        assert not any(description.last_failure for description in plugins.describe())
        assert plugins.first("hook", returns=int) == 5
        assert "null" in str(described(plugins, "null").last_failure)


def test_all_gives_what_each_made_of_the_same_input_be_it_an_error() -> None:
    with PluginSet(
        {"a": appends("a"), "fails": FAILING, "b": appends("b"), "silent": SILENT}
    ) as plugins:
        a, fails, b, silent = plugins.all("hook", "x")
        assert (a, b, silent) == (Result("a", b"xa"), Result("b", b"xb"), Result("silent", b""))
        assert a.ok
        assert not fails.ok
        assert isinstance(fails.error, GuestError)
        assert fails.error.plugin == fails.plugin == "fails"
        with pytest.raises(GuestError, match="not today"):
            fails.get()


def test_a_chain_passes_the_output_of_one_to_the_next_and_leaves_out_those_that_fail() -> None:
    with PluginSet(
        {"a": appends("a"), "fails": FAILING, "traps": TRAPS, "b": appends("b")}
    ) as plugins:
        assert plugins.chain("hook", "x") == b"xab"
        assert plugins.chain("hook", "x", parse=bytes.decode) == "xab"
        assert plugins.chain("nobody serves this", "x") == "x"
    with PluginSet({"a": appends("a"), "silent": SILENT, "b": appends("b")}) as plugins:
        assert plugins.chain("hook", "x") == b"b"


def test_a_chain_can_be_of_values() -> None:
    with PluginSet({"a": appends("0"), "not an int": says("x"), "b": appends("7")}) as plugins:
        assert plugins.chain("hook", 4, returns=int) == 407


@pytest.mark.parametrize("ask", ["first", "all", "chain"])
def test_an_error_stops_the_others_only_when_that_is_asked(ask: str) -> None:
    with PluginSet({"fails": FAILING, "a": says("a")}) as plugins:
        getattr(plugins, ask)("hook")
        with pytest.raises(GuestError, match="not today"):
            getattr(plugins, ask)("hook", stop_on_error=True)


def test_what_a_host_function_raises_is_the_plugins_error_and_an_interrupt_is_not() -> None:
    reason: list[BaseException] = [ValueError("wrong")]

    @plugwasm.host_fn()
    def enter() -> None:
        raise reason[0]

    with PluginSet(
        {"calls": guest(export("hook", "(call $enter)"), ENTRY), "a": says("a")}, functions=[enter]
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


def test_what_parse_raises_is_the_plugins_error_and_it_itself() -> None:
    with PluginSet({"text": says("x"), "number": says("5")}) as plugins:
        text, number = plugins.all("hook", parse=json.loads)
        assert number.output == 5
        assert isinstance(text.error, json.JSONDecodeError)
        assert "its output cannot be parsed: JSONDecodeError" in str(
            described(plugins, "text").last_failure
        )
        with pytest.raises(json.JSONDecodeError):
            plugins.call("text", "hook", parse=json.loads)


def test_what_the_application_does_wrong_is_raised() -> None:
    with PluginSet({"a": appends("a")}) as plugins:
        with pytest.raises(TypeError, match="cannot be sent"):
            plugins.all("hook", object())
        with pytest.raises(TypeError, match="unexpected keyword"):
            plugins.first("hook", colour="red")
        with pytest.raises(OptionError, match="gives no views"):
            plugins.first("hook", parse=None)


def test_one_plugin_can_be_called_by_name() -> None:
    with PluginSet(
        {"a": says("1"), "b": says("2"), "broken": "(module"}, disabled=["b"]
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


def test_plugins_are_asked_in_the_applications_order_then_in_their_own_then_as_they_were_found(
    tmp_path: Path,
) -> None:
    for name, place in (("a", 0), ("b", -5), ("c", 0), ("d", 7), ("e", 9)):
        folder(tmp_path / name, f"[plugin]\norder = {place}\n", says(name))
    with PluginSet.from_directory(tmp_path) as plugins:
        assert plugins.hooks["hook"] == tuple("bacde")
        folder(tmp_path / "a", "[plugin]\norder = 7\n")
        plugins.enable("a")
        assert plugins.hooks["hook"] == tuple("bcade")
        folder(tmp_path / "b", "[plugin]\norder = 7\n")
        plugins.enable("b")
        assert plugins.hooks["hook"] == tuple("cabde")
    folder(tmp_path / "b", "[plugin]\norder = -5\n")
    folder(tmp_path / "a", "[plugin]\n")
    with PluginSet(
        wat("x", says("x")), directories=[tmp_path], order=["e", "nobody", "c"]
    ) as plugins:
        assert plugins.hooks["hook"] == tuple("ecbxad")


# Instances


def test_instances_are_kept_for_the_next_calls_unless_they_shall_be_fresh() -> None:
    with PluginSet({"a": COUNTS}) as plugins:
        assert [plugins.first("hook")[0] for _ in range(3)] == [1, 2, 3]
    for options in ({"fresh": True}, {"instances": 0}):
        with PluginSet({"a": COUNTS}, **options) as plugins:
            assert [plugins.first("hook")[0] for _ in range(3)] == [1, 1, 1]


def test_calls_at_once_have_an_instance_each_and_no_more_than_asked_are_kept(doors: Doors) -> None:
    with PluginSet(
        {"a": waits_then_says("a")}, functions=functions_of(doors), instances=2
    ) as plugins:
        calls = [InThread(plugins.first, "hook") for _ in range(6)]
        assert soon(lambda: doors.inside == 6, 20)
        doors.go.set()
        assert [call.result() for call in calls] == [b"a"] * 6
        loaded = plugins._state.entries["a"].loaded
        assert loaded is not None
        assert len(loaded._idle) == 2


def test_a_plugin_can_ask_the_set_it_is_in_from_a_host_function() -> None:
    depth: list[int] = []

    def enter(*_: Any) -> None:
        depth.append(len(depth))
        if len(depth) < 4:
            assert plugins.first("hook") == b"a"

    with PluginSet(
        {"a": waits_then_says("a")},
        functions=[plugwasm.Function("extism:host/user", "enter", [], [], enter)],
    ) as plugins:
        assert plugins.first("hook") == b"a"
        assert depth == [0, 1, 2, 3]
