"""Errors of calls: which cause raises which error, with which message, and whether the instance
is replaced."""

from __future__ import annotations

import builtins
import gc
import pickle
import weakref
from typing import Any

import pytest

import plugwasm
from plugwasm import Function, Plugin, errors
from tests.support.faulty_guest import FAULTY
from tests.support.guests import export, guest, manifest, number
from tests.support.waiting import soon


@pytest.fixture(scope="module")
def compiled() -> plugwasm.CompiledPlugin:
    return plugwasm.CompiledPlugin(FAULTY, name="faulty")


def error_of(
    compiled: plugwasm.CompiledPlugin, function: str, data: bytes = b""
) -> errors.CallError:
    with Plugin(compiled) as plugin:
        with pytest.raises(errors.CallError) as caught:
            plugin.call(function, data)
        assert plugin.call("good", b"after") == b"after"
        error = caught.value
    assert error.plugin == "faulty"
    assert error.function == function
    return error


# What the guest reports


def test_guest_message(compiled: plugwasm.CompiledPlugin) -> None:
    """The guest's error message is the message of the exception."""
    error = error_of(compiled, "message")
    assert type(error) is errors.GuestError
    assert str(error) == error.message == error.guest_message == "it went wrong: äöü"
    assert error.args == ("it went wrong: äöü",)
    assert error.backtrace == ()


@pytest.mark.parametrize(("function", "code"), [("message_and_zero", 0), ("message_and_seven", 7)])
def test_message_with_any_code(compiled: plugwasm.CompiledPlugin, function: str, code: int) -> None:
    """A message is an error whatever code the export returns."""
    error = error_of(compiled, function)
    assert type(error) is errors.GuestError
    assert (error.guest_message, error.code) == ("said", code)


@pytest.mark.parametrize(
    ("function", "code"), [("seven", 7), ("minus_one", -1), ("least", -(2**31))]
)
def test_code_without_message(compiled: plugwasm.CompiledPlugin, function: str, code: int) -> None:
    """A code other than zero is an error without a message."""
    error = error_of(compiled, function)
    assert type(error) is errors.GuestError
    assert (error.guest_message, error.code) == (None, code)
    for part in (str(code), f"`{function}`", "`faulty`"):
        assert part in str(error)


def test_a_code_of_zero_is_success(compiled: plugwasm.CompiledPlugin) -> None:
    with Plugin(compiled) as plugin:
        assert plugin.call("good_code", b"fine") == b"fine"


def test_last_message_counts(compiled: plugwasm.CompiledPlugin) -> None:
    """The guest can take back an error message, and the last one counts."""
    with Plugin(compiled) as plugin:
        assert plugin.call("error_taken_back", b"fine") == b"fine"
    assert error_of(compiled, "error_said_twice").guest_message == "second"


def test_message_not_text(compiled: plugwasm.CompiledPlugin) -> None:
    """A message that is not text is shown with replacement characters."""
    assert error_of(compiled, "error_not_text").guest_message == "\ufffdbc"


def test_earlier_error_is_forgotten(compiled: plugwasm.CompiledPlugin) -> None:
    """An error of an earlier call does not affect the next call."""
    with Plugin(compiled) as plugin:
        for _ in range(3):
            with pytest.raises(errors.GuestError):
                plugin.call("message")
            assert plugin.call("good", b"fine") == b"fine"


# Traps


@pytest.mark.parametrize(
    ("function", "trap"),
    [
        ("trap", "unreachable"),
        ("divide", "integer division by zero"),
        ("overflow", "integer overflow"),
        ("convert", "invalid conversion to integer"),
        ("beyond", "out of bounds memory access"),
        ("beyond_table", "out of bounds table access"),
        ("empty_entry", "call of an empty table entry"),
        ("wrong_type", "indirect call with a wrong type"),
        ("recursion", "stack overflow"),
    ],
)
def test_each_trap_is_named(compiled: plugwasm.CompiledPlugin, function: str, trap: str) -> None:
    error = error_of(compiled, function)
    assert type(error) is errors.TrapError
    assert error.trap == trap
    assert trap in error.message
    assert f"`{function}` of plugin `faulty`" in error.message
    assert error.code is None
    assert error.guest_message is None
    assert error.backtrace


def test_backtrace_order(compiled: plugwasm.CompiledPlugin) -> None:
    """The backtrace has the innermost frame first and none of the host's frames."""
    error = error_of(compiled, "deep")
    assert [frame.split(" @ ")[0] for frame in error.backtrace[:2]] == ["inner", "outer"]
    assert len(error.backtrace) == 3
    assert "wasm backtrace:\n  0: inner @ 0x" in str(error)
    assert "backtrace" not in error.message


def test_backtrace_demangles_names() -> None:
    """Mangled names in the backtrace are demangled."""
    names = ["_ZN7example4main17h0123456789abcdefE", "_ZN3foo3barEv", "_RNvCs1234_7mycrate3foo"]
    body = "".join(
        f"(func ${name} {f'(call ${inner})' if inner else 'unreachable'})"
        for name, inner in zip(names, [*names[1:], ""], strict=True)
    )
    with (
        Plugin(guest(body + export("f", f"(call ${names[0]})"))) as plugin,
        pytest.raises(errors.TrapError) as caught,
    ):
        plugin.call("f")
    shown = [frame.split(" @ ")[0] for frame in caught.value.backtrace]
    assert shown[1].startswith("foo::bar")
    assert shown[2] == "example::main"
    assert "mycrate" in shown[0]
    assert "_R" not in shown[0]


def test_backtrace_is_bounded(compiled: plugwasm.CompiledPlugin) -> None:
    """The backtrace of a deep stack has a bounded number of frames."""
    assert 5 < len(error_of(compiled, "recursion").backtrace) <= 1000


def test_recursion_too_deep_says_so(compiled: plugwasm.CompiledPlugin) -> None:
    assert "recursed too deeply" in error_of(compiled, "recursion").message


def test_a_message_goes_before_the_trap(compiled: plugwasm.CompiledPlugin) -> None:
    error = error_of(compiled, "message_and_trap")
    assert type(error) is errors.GuestError
    assert error.guest_message == "said before the trap"
    assert error.backtrace


def test_fuel_goes_before_a_message() -> None:
    with Plugin(FAULTY, fuel_limit=100_000) as plugin:
        with pytest.raises(errors.OutOfFuelError) as caught:
            plugin.call("message_and_loop")
        assert plugin.call("good", b"after") == b"after"
    assert "`message_and_loop` of plugin `plugin` used up its fuel" in str(caught.value)


def test_timeout_over_message() -> None:
    """A timeout takes precedence over a message."""
    with Plugin(manifest(FAULTY, timeout_ms=100)) as plugin:
        with pytest.raises(errors.TimeoutError, match="100 ms") as caught:
            plugin.call("message_and_loop")
        assert plugin.call("good", b"after") == b"after"
    assert isinstance(caught.value, builtins.TimeoutError)
    assert caught.value.backtrace


# Handles


@pytest.mark.parametrize(
    ("function", "parts"),
    [
        ("output_of_nothing", ["the output", "12345", "length 1"]),
        ("output_too_long", ["the output", "length 9"]),
        ("output_of_all", ["the output", "9223372036854775807"]),
        ("output_around", ["the output", "18446744073709551615"]),
        ("error_of_nothing", ["the error", "12345"]),
        ("input_of_nothing", ["its input"]),
    ],
)
def test_foreign_memory_is_named_error(
    compiled: plugwasm.CompiledPlugin, function: str, parts: list[str]
) -> None:
    """A handle to memory that the guest does not own is an error that says so."""
    error = error_of(compiled, function)
    assert type(error) is errors.BadHandleError
    for part in [
        *parts,
        f"`{function}` of plugin `faulty`",
        "no memory that the plugin has allocated",
    ]:
        assert part in str(error)


# What happens to the instance


@pytest.mark.parametrize(
    "function", ["message", "message_and_seven", "seven", "output_of_nothing", "error_of_nothing"]
)
def test_returned_error_keeps_instance(compiled: plugwasm.CompiledPlugin, function: str) -> None:
    """An error that the guest returned with keeps the instance."""
    with Plugin(compiled) as plugin:
        plugin.call("count")
        with pytest.raises(errors.CallError):
            plugin.call(function)
        assert number(plugin.call("count")) == 2


@pytest.mark.parametrize("function", ["trap", "message_and_trap", "recursion", "divide"])
def test_unwound_call_replaces_instance(compiled: plugwasm.CompiledPlugin, function: str) -> None:
    """A call that was unwound replaces the instance."""
    with Plugin(compiled) as plugin:
        plugin.call("count")
        with pytest.raises(errors.CallError):
            plugin.call(function)
        assert number(plugin.call("count")) == 1


def test_call_not_begun_keeps_instance(compiled: plugwasm.CompiledPlugin) -> None:
    """A call that could not begin keeps the instance."""
    with Plugin(compiled) as plugin:
        plugin.call("count")
        with pytest.raises(errors.FunctionNotFoundError):
            plugin.call("nothing")
        assert number(plugin.call("count")) == 2


# Host functions


class Unusual(BaseException):
    pass


@pytest.mark.parametrize(
    "raised",
    [
        ValueError("bad value"),
        KeyError("k"),
        Unusual("odd"),
        SystemExit(3),
        GeneratorExit(),
        StopIteration(5),
        builtins.TimeoutError("mine"),
        MemoryError(),
        RecursionError("deep"),
        errors.GuestError("ours", code=5),
        errors.TimeoutError("ours as well"),
        errors.BusyError("ours"),
        ExceptionGroup("two", [ValueError(1), TypeError(2)]),
    ],
    ids=lambda e: f"{type(e).__module__}.{type(e).__name__}",
)
def test_host_exception_is_cause(raised: BaseException) -> None:
    """An exception of a host function is the cause of the error."""

    def fails_here(*_: Any) -> None:
        raise raised

    source = guest(
        export("run", "(call $back)") + export("good", "(call $echo)"),
        '(import "extism:host/user" "back" (func $back))',
    )
    with Plugin(
        source, functions=[Function(None, "back", [], [], fails_here)], name="calls_back"
    ) as plugin:
        with pytest.raises(errors.HostFunctionError) as caught:
            plugin.call("run")
        assert plugin.call("good", b"after") == b"after"
    error = caught.value
    assert error.__cause__ is raised
    assert error.__suppress_context__
    assert (error.plugin, error.function) == ("calls_back", "run")
    for part in ("`run` of plugin `calls_back`", "`back`", type(raised).__name__):
        assert part in error.message
    assert error.backtrace
    frames = [entry.f_code.co_name for entry in _frames(raised)]
    assert frames[-1] == "fails_here"
    assert not (raised.__dict__.get("plugin") if isinstance(raised, errors.Error) else None)


def _frames(error: BaseException) -> list[Any]:
    frames, entry = [], error.__traceback__
    while entry is not None:
        frames.append(entry.tb_frame)
        entry = entry.tb_next
    return frames


def test_keyboard_interrupt_passes() -> None:
    """A KeyboardInterrupt in a host function reaches the caller unchanged."""

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    source = guest(
        export("run", "(call $back)") + export("good", "(call $echo)"),
        '(import "extism:host/user" "back" (func $back))',
    )
    with Plugin(source, functions=[Function(None, "back", [], [], interrupted)]) as plugin:
        with pytest.raises(KeyboardInterrupt):
            plugin.call("run")
        assert plugin.call("good", b"after") == b"after"


def test_the_cause_of_a_cause_is_kept() -> None:
    def back(*_: Any) -> None:
        try:
            {}["missing"]
        except KeyError as inner:
            raise RuntimeError("outer") from inner

    source = guest(export("run", "(call $back)"), '(import "extism:host/user" "back" (func $back))')
    with (
        Plugin(source, functions=[Function(None, "back", [], [], back)]) as plugin,
        pytest.raises(errors.HostFunctionError) as caught,
    ):
        plugin.call("run")
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert isinstance(caught.value.__cause__.__cause__, KeyError)


def test_nested_plugin_error_is_cause(compiled: plugwasm.CompiledPlugin) -> None:
    """The error of a nested plugin's call is the cause, with all its fields."""
    source = guest(export("run", "(call $back)"), '(import "extism:host/user" "back" (func $back))')
    with Plugin(compiled) as inner:
        back = Function(None, "back", [], [], lambda *_: inner.call("deep"))
        with (
            Plugin(source, functions=[back], name="outside") as plugin,
            pytest.raises(errors.HostFunctionError) as caught,
        ):
            plugin.call("run")
        assert inner.call("good", b"after") == b"after"
    cause = caught.value.__cause__
    assert isinstance(cause, errors.TrapError)
    assert (cause.plugin, cause.function, cause.trap) == ("faulty", "deep", "unreachable")
    assert cause.backtrace[0].startswith("inner")
    assert (caught.value.plugin, caught.value.function) == ("outside", "run")


def test_host_exception_over_message() -> None:
    """An exception of a host function takes precedence over the guest's message."""
    source = guest(
        export("run", "(call $error_set <<said>>) (call $back)"),
        '(import "extism:host/user" "back" (func $back))',
    )

    def back(*_: Any) -> None:
        raise ValueError("mine")

    with (
        Plugin(source, functions=[Function(None, "back", [], [], back)]) as plugin,
        pytest.raises(errors.HostFunctionError, match="mine"),
    ):
        plugin.call("run")


def test_host_exception_is_not_kept() -> None:
    """A host function's exception in one call is not raised by the next."""
    source = guest(
        export("run", "(call $back)") + export("trap", "unreachable"),
        '(import "extism:host/user" "back" (func $back))',
    )

    def back(*_: Any) -> None:
        raise ValueError("old")

    with Plugin(source, functions=[Function(None, "back", [], [], back)]) as plugin:
        with pytest.raises(errors.HostFunctionError):
            plugin.call("run")
        with pytest.raises(errors.TrapError):
            plugin.call("trap")


def test_errors_pickle(compiled: plugwasm.CompiledPlugin) -> None:
    """Errors of real calls can be pickled."""
    error = error_of(compiled, "deep")
    arrived = pickle.loads(pickle.dumps(error))
    assert str(arrived) == str(error)
    assert arrived.__dict__ == error.__dict__


FAILS = ["trap", "message", "seven", "output_of_nothing", "raises"]


@pytest.mark.parametrize("function", FAILS)
def test_handled_error_keeps_nothing(function: str) -> None:
    """A handled error is freed without the garbage collector."""

    def back(*_: Any) -> None:
        raise LookupError

    source = (
        FAULTY[:-1].replace("(module", '(module (import "extism:host/user" "back" (func $back))', 1)
        + export("raises", "(call $back)")
        + ")"
    )
    plugin = Plugin(source, functions=[Function(None, "back", [], [], back)])
    gc.collect()
    gc.disable()
    try:
        plugin.call("good")
        instance = weakref.ref(plugin._guest)
        try:
            plugin.call(function)
        except errors.CallError:
            pass
        plugin.close()
        assert soon(lambda: instance() is None)
    finally:
        gc.enable()
