"""What guests run before their first call, and what happens when that goes wrong."""

from __future__ import annotations

import time
from typing import Any

import pytest

import plugwasm
from plugwasm import Function, LinkError, Plugin, TrapError
from tests.support.guests import LOOP, export, guest, manifest, number

NOTE = '(import "extism:host/user" "note" (func $note (param i64)))'


def starts(*names: str, body: str = "", more: str = "") -> str:
    """A module whose start-up functions each note their number, in the order of `NAMES`."""
    text = "".join(
        f'(func (export "{name}") {"(param i32 i32)" if name == "hs_init" else ""} (call $note (i64.const {NAMES.index(name)})) {body})'
        for name in names
    )
    return guest(text + export("run", "(call $note (i64.const 9))") + more, NOTE)


NAMES = ("hs_init", "__wasm_call_ctors", "_initialize", "_start")


class Notes:
    """A host function `note` and what it was called with."""

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.functions = [Function(None, "note", [plugwasm.ValType.I64], [], self._note)]

    def _note(self, plugin: plugwasm.CurrentPlugin, params: list[Any], results: list[Any]) -> None:
        self.seen.append(params[0].value)


@pytest.mark.parametrize(
    ("present", "run"),
    [
        ((), []),
        (("_initialize",), ["_initialize"]),
        (("__wasm_call_ctors",), ["__wasm_call_ctors"]),
        (("hs_init",), ["hs_init"]),
        (("_start",), []),
        (("__wasm_call_ctors", "_initialize"), ["__wasm_call_ctors"]),
        (("hs_init", "_initialize"), ["_initialize", "hs_init"]),
        (("hs_init", "__wasm_call_ctors"), ["hs_init"]),
        (("_start", "_initialize"), ["_initialize"]),
        (("_start", "__wasm_call_ctors"), ["__wasm_call_ctors"]),
        (("hs_init", "__wasm_call_ctors", "_initialize", "_start"), ["_initialize", "hs_init"]),
    ],
    ids=lambda names: "+".join(names) or "none",
)
def test_the_right_functions_run_once_before_the_first_call(
    present: tuple[str, ...], run: list[str]
) -> None:
    notes = Notes()
    with Plugin(starts(*present), functions=notes.functions) as plugin:
        assert notes.seen == []
        plugin.call("run")
        plugin.call("run")
        assert notes.seen == [*(NAMES.index(name) for name in run), 9, 9]
        plugin.reset()
        plugin.call("run")
        assert notes.seen[-len(run) - 1 :] == [*(NAMES.index(name) for name in run), 9]


def test_haskell_is_started_without_arguments() -> None:
    source = guest(
        '(func (export "hs_init") (param i32 i32) (call $note (i64.extend_i32_u (i32.or (local.get 0) (local.get 1)))))'
        + export("run", ""),
        NOTE,
    )
    notes = Notes()
    with Plugin(source, functions=notes.functions) as plugin:
        plugin.call("run")
    assert notes.seen == [0]


def test_the_start_section_runs_first() -> None:
    notes = Notes()
    with Plugin(
        starts("_initialize", more="(func $s (call $note (i64.const 7))) (start $s)"),
        functions=notes.functions,
    ) as plugin:
        plugin.call("run")
    assert notes.seen == [7, 2, 9]


def test_what_the_start_did_is_there_in_the_calls() -> None:
    source = guest(
        "(global $g (mut i64) (i64.const 0))"
        + export(
            "_initialize", "(global.set $g (i64.const 5)) (call $var_set <<from>> <<the start>>)"
        )
        + export("g", "(call $answer (global.get $g))")
        + export("var", "(call $give (call $var_get <<from>>))")
    )
    with Plugin(source) as plugin:
        assert (number(plugin.call("g")), plugin.call("var")) == (5, b"the start")


def test_a_message_or_an_output_of_the_start_is_not_the_first_calls() -> None:
    source = guest(
        export("_initialize", "(call $error_set <<old>>) (call $give <<old output>>)")
        + export("run", "")
    )
    with Plugin(source) as plugin:
        assert plugin.call("run") == b""


def test_the_start_sees_config_and_can_log(caplog: pytest.LogCaptureFixture) -> None:
    source = guest(
        export("_initialize", "(call $log_error (call $config_get <<k>>))") + export("run", "")
    )
    with Plugin(source, config={"k": "from the config"}) as plugin:
        plugin.call("run")
    assert [record.getMessage() for record in caplog.records] == ["from the config"]


def test_a_linked_reactor_is_initialised_before_the_main_module_starts() -> None:
    notes = Notes()
    lib = guest(
        '(func (export "_initialize") (call $note (i64.const 1))) (func (export "f") (call $note (i64.const 2)))',
        NOTE,
    )
    main = guest(
        export("_initialize", "(call $f)") + export("run", "(call $f)"),
        '(import "lib" "f" (func $f))',
    )
    with Plugin(manifest(("lib", lib), ("main", main)), functions=notes.functions) as plugin:
        plugin.call("run")
    assert notes.seen == [1, 2, 2]


# `_start`


COMMAND = guest(
    "(global $n (mut i64) (i64.const 0))"
    + export(
        "_start",
        "(global.set $n (i64.add (global.get $n) (i64.const 1))) (call $answer (global.get $n))",
    )
    + export(
        "count",
        "(global.set $n (i64.add (global.get $n) (i64.const 1))) (call $answer (global.get $n))",
    )
)


def test_start_runs_when_it_is_called_by_name_and_the_instance_is_replaced_after_it() -> None:
    with Plugin(COMMAND) as plugin:
        assert [number(plugin.call("count")) for _ in range(2)] == [1, 2]
        assert number(plugin.call("_start")) == 3
        assert [number(plugin.call("_start")) for _ in range(2)] == [1, 1]
        assert number(plugin.call("count")) == 1


def test_the_view_of_what_start_gave_outlives_its_instance() -> None:
    with Plugin(COMMAND) as plugin:
        view = plugin.call("_start", parse=None)
        assert number(view.tobytes()) == 1
        assert number(plugin.call("_start")) == 1


def test_a_start_that_fails_is_replaced_as_well() -> None:
    source = guest(
        '(global $n (mut i64) (i64.const 0)) (func (export "_start") (result i32) (global.set $n (i64.const 5)) (i32.const 2))'
        + export("n", "(call $answer (global.get $n))")
    )
    with Plugin(source) as plugin:
        with pytest.raises(plugwasm.GuestError) as caught:
            plugin.call("_start")
        assert caught.value.code == 2
        assert number(plugin.call("n")) == 0


# Start-up that goes wrong


WAYS = {
    "start section": lambda code: f"(func $s {code}) (start $s)",
    "_initialize": lambda code: export("_initialize", code),
    "__wasm_call_ctors": lambda code: export("__wasm_call_ctors", code),
    "hs_init": lambda code: f'(func (export "hs_init") (param i32 i32) {code})',
}
ways = pytest.mark.parametrize("way", WAYS)


@ways
def test_a_trap_in_the_start_is_an_error_of_the_call_and_the_next_call_tries_again(
    way: str,
) -> None:
    with Plugin(guest(WAYS[way]("unreachable") + export("run", ""))) as plugin:
        for _ in range(2):
            with pytest.raises(TrapError, match=r"plugin `plugin`.*unreachable") as caught:
                plugin.call("run")
            assert caught.value.plugin == "plugin"
            assert caught.value.backtrace


@ways
def test_the_deadline_covers_the_start(way: str) -> None:
    with Plugin(manifest(guest(WAYS[way](LOOP) + export("run", "")), timeout_ms=100)) as plugin:
        started = time.monotonic()
        with pytest.raises(plugwasm.TimeoutError, match="100 ms"):
            plugin.call("run")
        assert time.monotonic() - started < 0.6


@ways
def test_fuel_covers_the_start(way: str) -> None:
    with Plugin(guest(WAYS[way](LOOP) + export("run", "")), fuel_limit=10_000) as plugin:
        with pytest.raises(plugwasm.OutOfFuelError):
            plugin.call("run")
        assert plugin.fuel_used == 10_000


@ways
def test_a_message_of_the_start_is_told(way: str) -> None:
    with (
        Plugin(
            guest(WAYS[way]("(call $error_set <<cannot start>>) unreachable") + export("run", ""))
        ) as plugin,
        pytest.raises(plugwasm.GuestError, match="cannot start"),
    ):
        plugin.call("run")


@ways
def test_what_a_host_function_raises_in_the_start_is_the_cause(way: str) -> None:
    def back(*_: Any) -> None:
        raise LookupError("not there")

    source = guest(
        WAYS[way]("(call $back)") + export("run", ""),
        '(import "extism:host/user" "back" (func $back))',
    )
    with Plugin(source, functions=[Function(None, "back", [], [], back)]) as plugin:
        with pytest.raises(plugwasm.HostFunctionError) as caught:
            plugin.call("run")
        assert isinstance(caught.value.__cause__, LookupError)


def test_a_start_in_a_linked_module_that_fails_is_told_too() -> None:
    lib = guest(export("_initialize", "unreachable") + '(func (export "f"))')
    main = guest(export("run", ""), '(import "lib" "f" (func $f))')
    with Plugin(manifest(("lib", lib), ("main", main))) as plugin, pytest.raises(TrapError):
        plugin.call("run")
    looping = guest(export("_initialize", LOOP) + '(func (export "f"))')
    with (
        Plugin(manifest(("lib", looping), ("main", main), timeout_ms=100)) as plugin,
        pytest.raises(plugwasm.TimeoutError),
    ):
        plugin.call("run")


@pytest.mark.parametrize(
    ("code", "trap"),
    [
        ('(data (i32.const 65536) "x")', "out of bounds memory access"),
        ("(table 1 funcref) (elem (i32.const 1) $f) (func $f)", "out of bounds table access"),
    ],
)
def test_segments_that_do_not_fit_are_an_error_of_ours(code: str, trap: str) -> None:
    with (
        Plugin(guest(code + export("run", ""), memory='(memory (export "memory") 1)')) as plugin,
        pytest.raises(plugwasm.Error, match=trap),
    ):
        plugin.call("run")


def test_the_deadline_starts_anew_with_each_attempt() -> None:
    fails = [True]

    def back(*_: Any) -> None:
        if fails[0]:
            raise LookupError

    source = guest(
        export("_initialize", "(call $back)") + export("echo", "(call $echo)"),
        '(import "extism:host/user" "back" (func $back))',
    )
    with Plugin(
        manifest(source, timeout_ms=150), functions=[Function(None, "back", [], [], back)]
    ) as plugin:
        with pytest.raises(plugwasm.HostFunctionError):
            plugin.call("echo")
        time.sleep(0.2)
        fails[0] = False
        assert plugin.call("echo", bytes(200_000)) == bytes(200_000)
        time.sleep(0.2)
        assert plugin.call("echo", bytes(200_000)) == bytes(200_000)


@pytest.mark.parametrize(
    ("name", "type"),
    [
        ("_initialize", "(param i32)"),
        ("_initialize", "(result i32) (i32.const 0)"),
        ("__wasm_call_ctors", "(param i32)"),
        ("hs_init", ""),
        ("hs_init", "(param i64 i64)"),
    ],
)
def test_a_start_up_function_of_another_type_is_refused_by_name(name: str, type: str) -> None:
    with (
        pytest.raises(LinkError, match=name),
        Plugin(guest(f'(func (export "{name}") {type})' + export("run", ""))) as plugin,
    ):
        plugin.call("run")


@pytest.mark.parametrize("name", ["_initialize", "__wasm_call_ctors", "hs_init"])
def test_an_export_of_that_name_that_is_no_function_is_refused_by_name(name: str) -> None:
    with (
        pytest.raises(LinkError, match=name),
        Plugin(
            f'(module (global (export "{name}") i32 (i32.const 1)) (func (export "run")))'
        ) as plugin,
    ):
        plugin.call("run")


def test_a_start_that_is_no_function_is_just_an_export() -> None:
    with Plugin(
        '(module (global (export "_start") i32 (i32.const 1)) (func (export "run")))'
    ) as plugin:
        assert plugin.call("run") == b""
        assert not plugin.function_exists("_start")


def test_nothing_of_a_plugin_runs_before_its_first_call() -> None:
    notes = Notes()
    plugin = Plugin(
        starts("_initialize", more="(func $s unreachable) (start $s)"), functions=notes.functions
    )
    assert plugin.function_exists("run")
    with pytest.raises(plugwasm.FunctionNotFoundError):
        plugin.call("no such function")
    plugin.close()
    assert notes.seen == []


def test_a_start_up_function_can_also_be_called_by_name() -> None:
    notes = Notes()
    with Plugin(starts("_initialize"), functions=notes.functions) as plugin:
        plugin.call("_initialize")
    assert notes.seen == [2, 2]


def test_a_host_function_that_is_called_at_the_start_sees_the_context_of_the_call() -> None:
    seen: list[object] = []
    note = Function(
        None,
        "note",
        [plugwasm.ValType.I64],
        [],
        lambda plugin, *_: seen.append(plugin.host_context()),
    )
    text = guest(
        export("_initialize", "(call $note (i64.const 1))")
        + export("run", "(call $note (i64.const 2))"),
        NOTE,
    )
    with Plugin(text, functions=[note]) as plugin:
        plugin.call("run", host_context="mine")
        plugin.call("run")
    assert seen == ["mine", "mine", None]
