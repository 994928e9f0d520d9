"""Functions that guests run before their first call, and their failures."""

from __future__ import annotations

import time
from typing import Any

import pytest

import plugwasm
from plugwasm import Function, LinkError, Plugin, TrapError
from tests.support.guests import LOOP, export, guest, manifest, number

NOTE = '(import "extism:host/user" "note" (func $note (param i64)))'


def starting_module(*names: str, body: str = "", more: str = "") -> str:
    """Return a module whose start-up functions each report their number, in the order of
    `NAMES`."""
    text = "".join(
        f'(func (export "{name}") {"(param i32 i32)" if name == "hs_init" else ""} (call $note (i64.const {NAMES.index(name)})) {body})'
        for name in names
    )
    return guest(text + export("run", "(call $note (i64.const 9))") + more, NOTE)


NAMES = ("hs_init", "__wasm_call_ctors", "_initialize", "_start")


class Notes:
    """A host function `note` and the arguments of its calls."""

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
def test_start_functions_run_once(present: tuple[str, ...], run: list[str]) -> None:
    """The right functions run once, before the first call."""
    notes = Notes()
    with Plugin(starting_module(*present), functions=notes.functions) as plugin:
        assert notes.seen == []
        plugin.call("run")
        plugin.call("run")
        assert notes.seen == [*(NAMES.index(name) for name in run), 9, 9]
        plugin.reset()
        plugin.call("run")
        assert notes.seen[-len(run) - 1 :] == [*(NAMES.index(name) for name in run), 9]


def test_haskell_start_arguments() -> None:
    """A Haskell module is started without arguments."""
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
        starting_module("_initialize", more="(func $s (call $note (i64.const 7))) (start $s)"),
        functions=notes.functions,
    ) as plugin:
        plugin.call("run")
    assert notes.seen == [7, 2, 9]


def test_start_effects_are_kept() -> None:
    """Effects of the start are visible in the calls."""
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


def test_start_output_is_discarded() -> None:
    """A message or an output of the start is not that of the first call."""
    source = guest(
        export("_initialize", "(call $error_set <<old>>) (call $give <<old output>>)")
        + export("run", "")
    )
    with Plugin(source) as plugin:
        assert plugin.call("run") == b""


def test_start_sees_config_and_logs(caplog: pytest.LogCaptureFixture) -> None:
    """The start can read config and write logs."""
    source = guest(
        export("_initialize", "(call $log_error (call $config_get <<k>>))") + export("run", "")
    )
    with Plugin(source, config={"k": "from the config"}) as plugin:
        plugin.call("run")
    assert [record.getMessage() for record in caplog.records] == ["from the config"]


def test_linked_reactor_starts_first() -> None:
    """A linked reactor is initialised before the main module starts."""
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


def test_start_called_by_name() -> None:
    """`_start` runs when it is called by name, and the instance is replaced after it."""
    with Plugin(COMMAND) as plugin:
        assert [number(plugin.call("count")) for _ in range(2)] == [1, 2]
        assert number(plugin.call("_start")) == 3
        assert [number(plugin.call("_start")) for _ in range(2)] == [1, 1]
        assert number(plugin.call("count")) == 1


def test_start_output_view() -> None:
    """A view of the output of `_start` outlives its instance."""
    with Plugin(COMMAND) as plugin:
        view = plugin.call("_start", parse=None)
        assert number(view.tobytes()) == 1
        assert number(plugin.call("_start")) == 1


def test_start_failure_replaces_instance() -> None:
    """The instance is replaced after a failed `_start` as well."""
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
def test_start_trap_is_retried(way: str) -> None:
    """A trap in the start is an error of the call, and the next call starts again."""
    with Plugin(guest(WAYS[way]("unreachable") + export("run", ""))) as plugin:
        for _ in range(2):
            with pytest.raises(TrapError, match=r"plugin `plugin`.*unreachable") as caught:
                plugin.call("run")
            assert caught.value.plugin == "plugin"
            assert caught.value.backtrace


@ways
def test_the_deadline_covers_the_start(way: str) -> None:
    plugin = Plugin(manifest(guest(WAYS[way](LOOP) + export("run", "")), timeout_ms=100))
    with plugin, pytest.raises(plugwasm.TimeoutError, match="100 ms"):
        plugin.call("run")


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
def test_host_exception_is_cause(way: str) -> None:
    """An exception of a host function in the start is the cause of the error."""

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


def test_linked_start_failure() -> None:
    """A failed start of a linked module is reported too."""
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
def test_segments_that_do_not_fit(code: str, trap: str) -> None:
    """Segments that do not fit raise one of our errors."""
    with (
        Plugin(guest(code + export("run", ""), memory='(memory (export "memory") 1)')) as plugin,
        pytest.raises(plugwasm.Error, match=trap),
    ):
        plugin.call("run")


def test_deadline_of_each_attempt() -> None:
    """Each attempt has its full deadline."""
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
def test_start_type_is_checked(name: str, type: str) -> None:
    """A start-up function of another type is refused, and the error names it."""
    with (
        pytest.raises(LinkError, match=name),
        Plugin(guest(f'(func (export "{name}") {type})' + export("run", ""))) as plugin,
    ):
        plugin.call("run")


@pytest.mark.parametrize("name", ["_initialize", "__wasm_call_ctors", "hs_init"])
def test_start_kind_is_checked(name: str) -> None:
    """An export with a start-up name that is no function is refused, and the error names it."""
    with (
        pytest.raises(LinkError, match=name),
        Plugin(
            f'(module (global (export "{name}") i32 (i32.const 1)) (func (export "run")))'
        ) as plugin,
    ):
        plugin.call("run")


def test_start_not_a_function() -> None:
    """A `_start` that is no function is a plain export."""
    with Plugin(
        '(module (global (export "_start") i32 (i32.const 1)) (func (export "run")))'
    ) as plugin:
        assert plugin.call("run") == b""
        assert not plugin.function_exists("_start")


def test_nothing_runs_before_first_call() -> None:
    """No code of a plugin runs before its first call."""
    notes = Notes()
    plugin = Plugin(
        starting_module("_initialize", more="(func $s unreachable) (start $s)"),
        functions=notes.functions,
    )
    assert plugin.function_exists("run")
    with pytest.raises(plugwasm.FunctionNotFoundError):
        plugin.call("no such function")
    plugin.close()
    assert notes.seen == []


def test_initializer_called_by_name() -> None:
    """A start-up function can also be called by name."""
    notes = Notes()
    with Plugin(starting_module("_initialize"), functions=notes.functions) as plugin:
        plugin.call("_initialize")
    assert notes.seen == [2, 2]


def test_host_context_at_start() -> None:
    """A host function called by the start sees the call's host context."""
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
