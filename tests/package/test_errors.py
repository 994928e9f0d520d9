"""Errors: which one comes of what, what it says, what it carries, and that it survives a journey to another process."""

from __future__ import annotations

import builtins
import copy
import gc
import importlib
import itertools
import pickle
import pkgutil
import re
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import plugwasm
from plugwasm import Function, Plugin, errors
from tests.support.guests import LOOP, export, guest, manifest, number
from tests.support.waiting import soon

FAULTY = guest(
    export("good", "(call $echo)")
    + export("message", "(call $error_set <<it went wrong: äöü>>)")
    + '(func (export "message_and_zero") (result i32) (call $error_set <<said>>) (i32.const 0))'
    + '(func (export "message_and_seven") (result i32) (call $error_set <<said>>) (i32.const 7))'
    + '(func (export "seven") (result i32) (i32.const 7))'
    + '(func (export "minus_one") (result i32) (i32.const -1))'
    + '(func (export "least") (result i32) (i32.const 0x80000000))'
    + '(func (export "good_code") (result i32) (call $echo) (i32.const 0))'
    + export("trap", "unreachable")
    + export("message_and_trap", "(call $error_set <<said before the trap>>) unreachable")
    + export("message_and_loop", "(call $error_set <<said before the loop>>) " + LOOP)
    + export("divide", "(drop (i32.div_s (i32.const 1) (i32.const 0)))")
    + export("overflow", "(drop (i32.div_s (i32.const 0x80000000) (i32.const -1)))")
    + export("convert", "(drop (i32.trunc_f32_s (f32.const nan)))")
    + export("beyond", "(drop (i32.load (i32.const 65536)))")
    + export("beyond_table", "(call_indirect (i32.const 9))")
    + export("empty_entry", "(call_indirect (i32.const 0))")
    + export("wrong_type", "(call_indirect (param i32) (i32.const 1) (i32.const 1))")
    + "(table 2 funcref) (elem (i32.const 1) $outer) (func $inner unreachable) (func $outer (call $inner))"
    + export("deep", "(call $outer)")
    + "(func $endless (call $endless) (call $endless))"
    + export("recursion", "(call $endless)")
    + export("output_of_nothing", "(call $output_set (i64.const 12345) (i64.const 1))")
    + export("output_too_long", "(call $output_set (call $alloc (i64.const 8)) (i64.const 9))")
    + export("output_of_all", "(call $output_set (i64.const 0) (i64.const 0x7fffffffffffffff))")
    + export("output_around", "(call $output_set (call $alloc (i64.const 8)) (i64.const -1))")
    + export("error_of_nothing", "(call $error_set (i64.const 12345))")
    + export("input_of_nothing", "(call $input_set (i64.const 12345) (i64.const 4))")
    + export(
        "error_taken_back",
        "(call $error_set <<said>>) (call $error_set (i64.const 0)) (call $echo)",
    )
    + export("error_said_twice", "(call $error_set <<first>>) (call $error_set <<second>>)")
    + export(
        "error_not_text",
        "(local $b i64) (local.set $b <<abc>>) (call $store_u8 (local.get $b) (i32.const 255)) (call $error_set (local.get $b))",
        "",
    ).replace('(func (export "error_not_text")  (local', '(func (export "error_not_text") (local')
    + "(global $n (mut i64) (i64.const 0))"
    + export(
        "count",
        "(global.set $n (i64.add (global.get $n) (i64.const 1))) (call $answer (global.get $n))",
    ),
)


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


def test_the_message_of_the_guest_is_the_message_of_the_error(
    compiled: plugwasm.CompiledPlugin,
) -> None:
    error = error_of(compiled, "message")
    assert type(error) is errors.GuestError
    assert str(error) == error.message == error.guest_message == "it went wrong: äöü"
    assert error.args == ("it went wrong: äöü",)
    assert error.backtrace == ()


@pytest.mark.parametrize(("function", "code"), [("message_and_zero", 0), ("message_and_seven", 7)])
def test_a_message_is_an_error_whatever_the_code(
    compiled: plugwasm.CompiledPlugin, function: str, code: int
) -> None:
    error = error_of(compiled, function)
    assert type(error) is errors.GuestError
    assert (error.guest_message, error.code) == ("said", code)


@pytest.mark.parametrize(
    ("function", "code"), [("seven", 7), ("minus_one", -1), ("least", -(2**31))]
)
def test_a_code_other_than_zero_is_an_error_without_a_message(
    compiled: plugwasm.CompiledPlugin, function: str, code: int
) -> None:
    error = error_of(compiled, function)
    assert type(error) is errors.GuestError
    assert (error.guest_message, error.code) == (None, code)
    for part in (str(code), f"`{function}`", "`faulty`"):
        assert part in str(error)


def test_a_code_of_zero_is_success(compiled: plugwasm.CompiledPlugin) -> None:
    with Plugin(compiled) as plugin:
        assert plugin.call("good_code", b"fine") == b"fine"


def test_a_message_can_be_taken_back_and_the_last_one_counts(
    compiled: plugwasm.CompiledPlugin,
) -> None:
    with Plugin(compiled) as plugin:
        assert plugin.call("error_taken_back", b"fine") == b"fine"
    assert error_of(compiled, "error_said_twice").guest_message == "second"


def test_a_message_that_is_no_text_is_shown_as_well_as_can_be(
    compiled: plugwasm.CompiledPlugin,
) -> None:
    assert error_of(compiled, "error_not_text").guest_message == "\ufffdbc"


def test_an_error_of_an_earlier_call_is_forgotten(compiled: plugwasm.CompiledPlugin) -> None:
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


def test_the_backtrace_has_the_frames_innermost_first_and_none_of_ours(
    compiled: plugwasm.CompiledPlugin,
) -> None:
    error = error_of(compiled, "deep")
    assert [frame.split(" @ ")[0] for frame in error.backtrace[:2]] == ["inner", "outer"]
    assert len(error.backtrace) == 3
    assert "wasm backtrace:\n  0: inner @ 0x" in str(error)
    assert "backtrace" not in error.message


def test_mangled_names_in_the_backtrace_are_made_readable() -> None:
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


def test_a_deep_backtrace_is_not_endless(compiled: plugwasm.CompiledPlugin) -> None:
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


def test_a_timeout_goes_before_a_message() -> None:
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
def test_memory_that_the_guest_does_not_own_is_a_named_error(
    compiled: plugwasm.CompiledPlugin, function: str, parts: list[str]
) -> None:
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
def test_an_error_that_the_guest_returned_with_keeps_its_instance(
    compiled: plugwasm.CompiledPlugin, function: str
) -> None:
    with Plugin(compiled) as plugin:
        plugin.call("count")
        with pytest.raises(errors.CallError):
            plugin.call(function)
        assert number(plugin.call("count")) == 2


@pytest.mark.parametrize("function", ["trap", "message_and_trap", "recursion", "divide"])
def test_a_call_that_was_unwound_costs_the_instance(
    compiled: plugwasm.CompiledPlugin, function: str
) -> None:
    with Plugin(compiled) as plugin:
        plugin.call("count")
        with pytest.raises(errors.CallError):
            plugin.call(function)
        assert number(plugin.call("count")) == 1


def test_a_call_that_could_not_begin_keeps_the_instance(compiled: plugwasm.CompiledPlugin) -> None:
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
def test_what_a_host_function_raises_is_the_cause(raised: BaseException) -> None:
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


def test_a_keyboard_interrupt_in_a_host_function_passes_as_itself() -> None:
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


def test_the_error_of_a_nested_plugin_arrives_whole_as_the_cause(
    compiled: plugwasm.CompiledPlugin,
) -> None:
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


def test_a_host_function_that_raised_goes_before_the_message_of_the_guest() -> None:
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


def test_what_a_host_function_raised_in_one_call_is_not_raised_by_the_next() -> None:
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


# The tree


TREE: dict[str, tuple[type, ...]] = {
    "EngineError": (errors.Error,),
    "OptionError": (errors.Error, ValueError),
    "ManifestError": (errors.Error, ValueError),
    "HashMismatchError": (errors.ManifestError,),
    "SourceError": (errors.Error,),
    "ModuleError": (errors.Error,),
    "LinkError": (errors.Error,),
    "MissingImportError": (errors.LinkError,),
    "InterfaceError": (errors.LinkError,),
    "ClosedError": (errors.Error,),
    "BusyError": (errors.Error,),
    "PoolTimeoutError": (errors.BusyError, builtins.TimeoutError),
    "EgressError": (errors.Error,),
    "EgressDeniedError": (errors.EgressError,),
    "RecordingError": (errors.Error,),
    "ReplayError": (errors.Error, AssertionError),
    "BatchError": (errors.Error,),
    "RowError": (errors.BatchError,),
    "CallError": (errors.Error,),
    "FunctionNotFoundError": (errors.CallError,),
    "SignatureError": (errors.CallError,),
    "GuestError": (errors.CallError,),
    "OutputError": (errors.CallError,),
    "ExitError": (errors.CallError,),
    "TrapError": (errors.CallError,),
    "BadHandleError": (errors.CallError,),
    "HostFunctionError": (errors.CallError,),
    "TimeoutError": (errors.CallError, builtins.TimeoutError),
    "CancelledError": (errors.CallError,),
    "OutOfMemoryError": (errors.CallError, MemoryError),
    "StackError": (errors.CallError,),
    "WorkerError": (errors.CallError,),
    "OutOfFuelError": (errors.CallError,),
}


def tree(cls: type[errors.Error] = errors.Error) -> list[type[errors.Error]]:
    """The class and all that are made of it, in this module of ours and in others."""
    return list(
        dict.fromkeys([cls, *(other for child in cls.__subclasses__() for other in tree(child))])
    )


for _module in pkgutil.walk_packages(plugwasm.__path__, "plugwasm."):
    if not _module.name.endswith("__main__"):
        importlib.import_module(_module.name)
CLASSES = [cls for cls in tree() if cls.__module__.startswith("plugwasm.")]
of_each_class = pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)


def test_the_tree_is_this_one_and_all_of_it_is_public() -> None:
    assert {
        cls.__name__: cls.__bases__ for cls in CLASSES if cls.__module__ == "plugwasm.errors"
    } == TREE | {"Error": (Exception,)}
    assert sorted([*TREE, "Error"]) == sorted(errors.__all__)
    for name in errors.__all__:
        assert getattr(plugwasm, name) is getattr(errors, name)


def test_the_tree_is_documented_as_it_is() -> None:
    above: list[str] = []
    documented: dict[str, str] = {}
    for line in (errors.__doc__ or "").splitlines():
        if found := re.match(r"    ((?:│   |    )*(?:[├└]── )?)(\w*Error)(?: +(\S.*))?$", line):
            depth = len(found[1]) // 4
            above[depth:] = [found[2]]
            assert depth == 0 or found[3], line
            for builtin in (builtins.TimeoutError, ValueError, MemoryError):
                said = f"also a built-in ``{builtin.__name__}``" in line
                assert said == (builtin in getattr(errors, found[2]).__bases__), line
            if depth:
                documented[found[2]] = above[depth - 1]
    assert documented == {name: bases[0].__name__ for name, bases in TREE.items()}


ELSEWHERE: dict[str, tuple[type, ...]] = {
    "UnexpectedHostCallError": (
        errors.HostFunctionError,
        AssertionError,
    ),  # of plugwasm.testing, as are the next
    "UnexpectedRequestError": (errors.EgressError, AssertionError),
    "NoInterpreterError": (
        errors.Error,
    ),  # becomes the `ModuleError` or `WorkerError` of what needed one
    "KeptError": (errors.Error,),  # never leaves the process of an IsolatedPlugin
}


def test_what_other_modules_add_is_known() -> None:
    others = {cls.__name__: cls.__bases__ for cls in CLASSES if cls.__module__ != "plugwasm.errors"}
    assert others.items() <= ELSEWHERE.items()


@of_each_class
def test_a_class_says_what_it_stands_for_and_what_its_own_fields_are(
    cls: type[errors.Error],
) -> None:
    assert "__doc__" in vars(cls)
    assert cls.__doc__
    own = set(vars(cls())) - {
        name for base in cls.__bases__ if issubclass(base, errors.Error) for name in vars(base())
    }
    for field in own:
        assert re.search(rf"^ +(\w+, )*{field}(, \w+)*: ", cls.__doc__, re.M)
    inherited = {
        field: value
        for base in cls.__mro__[1:]
        for field, value in OWN_FIELDS.get(base.__name__, {}).items()
    }
    assert cls is errors.Error or own | set(inherited) == set(fields_of(cls)) - set(FIELDS)


FIELDS: dict[str, Any] = {
    "plugin": "p",
    "function": "f",
    "code": -3,
    "guest_message": "said",
    "backtrace": ["inner @ 0x1", "outer @ 0x2"],
}
OWN_FIELDS = {
    "OptionError": {"field": "timeout"},
    "ManifestError": {"field": "wasm[0].hash"},
    "HashMismatchError": {"field": "wasm[1].hash"},
    "TrapError": {"trap": "unreachable"},
    "InterfaceError": {"missing": ("find",)},
    "OutputError": {"path": "$.items[3].name", "output": b'{"items":['},
    "RowError": {"row": 7},
    "ReplayError": {"call": 3, "host_call": 2, "recorded": "one", "now": "another"},
}


def fields_of(cls: type[errors.Error]) -> dict[str, Any]:
    """A value for each field that its classes have."""
    return FIELDS | {
        field: value
        for base in reversed(cls.__mro__)
        for field, value in OWN_FIELDS.get(base.__name__, {}).items()
    }


@of_each_class
def test_an_error_carries_its_fields(cls: Callable[..., errors.Error] | type[errors.Error]) -> None:
    assert isinstance(cls, type)
    bare = cls()
    assert (
        bare.message,
        bare.plugin,
        bare.function,
        bare.code,
        bare.guest_message,
        bare.backtrace,
    ) == ("", None, None, None, None, ())
    given = fields_of(cls)
    error = cls("what failed", **given)
    assert vars(error) == given | {
        "message": "what failed",
        "backtrace": tuple(FIELDS["backtrace"]),
    }
    assert all(value != getattr(bare, field) for field, value in vars(error).items())
    assert error.args == ("what failed",)
    assert str(error) == "what failed\nwasm backtrace:\n  0: inner @ 0x1\n  1: outer @ 0x2"
    with pytest.raises(TypeError):
        cls("what failed", unknown=1)


JOURNEYS: dict[str, Callable[[Any], Any]] = {
    **{
        f"pickle {protocol}": lambda e, p=protocol: pickle.loads(pickle.dumps(e, p))
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    },
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}
by_each_way = pytest.mark.parametrize("journey", JOURNEYS.values(), ids=JOURNEYS)


@of_each_class
@by_each_way
def test_an_error_survives_a_journey(
    cls: type[errors.Error], journey: Callable[[Any], Any]
) -> None:
    error = cls("what failed", **fields_of(cls))
    error.__cause__ = ValueError("the cause")
    error.add_note("seen on a Tuesday")
    arrived = journey(error)
    assert type(arrived) is cls
    assert arrived.args == error.args
    assert str(arrived) == str(error)
    assert arrived.__dict__ == error.__dict__
    assert isinstance(arrived.__cause__, ValueError)
    assert arrived.__cause__.args == ("the cause",)
    assert arrived.__suppress_context__


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        (lambda: plugwasm.Limits(timeout="1"), "timeout"),  # type: ignore[arg-type]
        (lambda: plugwasm.Limits().replace(memory_bytes=-1), "memory_bytes"),
        (lambda: plugwasm.ProcessLimits(grace=-1), "grace"),
        (lambda: plugwasm.ProcessLimits(user=(0, 0)), "user"),
        (lambda: plugwasm.FrozenClock(-1), None),
        (lambda: plugwasm.CoarseClock(0), None),
        (lambda: plugwasm.SeededRandom(1.5), None),  # type: ignore[arg-type]
        (lambda: plugwasm.WasiOptions(random=b"x"), None),  # type: ignore[arg-type]
        (lambda: plugwasm.Egress(allowed_hosts=["a:80"]), None),
        (lambda: plugwasm.Egress(proxy="socks://a.test"), None),
        (lambda: plugwasm.Egress(added_headers={"a.test": {}}), None),
        (lambda: plugwasm.Egress(max_per_second=0), None),
        (lambda: Plugin(FAULTY, fuel_limit=-1), "fuel_limit"),
        (lambda: Plugin(FAULTY, limits=5), "limits"),  # type: ignore[arg-type]
        (lambda: Plugin(FAULTY, wasi="yes"), "wasi"),  # type: ignore[arg-type]
        (lambda: Plugin(FAULTY, config={"key": 1}), "config"),  # type: ignore[dict-item]
        (lambda: Plugin(FAULTY, vars={"key": "text"}), "vars"),  # type: ignore[dict-item]
        (lambda: plugwasm.IsolatedPlugin(FAULTY, process=5), None),  # type: ignore[arg-type]
        (lambda: plugwasm.PluginSet(instances=-1), None),
        (lambda: plugwasm.PluginSet({"": FAULTY}), None),
        (lambda: plugwasm.PluginSet([FAULTY]).disable("nobody"), None),
        (lambda: plugwasm.PluginSet([FAULTY]).first("good", parse=None), None),
        (lambda: plugwasm.PluginRef(FAULTY, functions=["no colon"]), "functions"),
        (lambda: plugwasm.FromEnvironment(""), None),
        (
            lambda: plugwasm.MapBatches(
                plugwasm.PluginRef(FAULTY), "good", column="a", on_error="ignore"
            ),
            "on_error",
        ),  # type: ignore[arg-type]
        (lambda: plugwasm.set_log_file("/dev/null", "loud"), None),  # type: ignore[arg-type]
        (lambda: plugwasm.testing.Harness(FAULTY, log_level="loud"), None),
    ],
)
def test_an_argument_that_cannot_be_is_one_kind_of_error_everywhere(
    wrong: Callable[[], object], field: str | None
) -> None:
    with pytest.raises(errors.OptionError) as caught:
        wrong()
    assert isinstance(caught.value, ValueError)
    assert caught.value.field == field
    assert caught.value.message


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Plugin({"wasm": []}),
        lambda: Plugin(5),  # type: ignore[arg-type]
        lambda: Plugin(manifest(FAULTY, config={"key": 1})),
        lambda: Plugin(manifest(FAULTY, timeout_ms=-1)),
        lambda: plugwasm.Manifest(wasm=[]),
        lambda: plugwasm.WasmSource(path="a", url="https://a.test"),
        lambda: plugwasm.PluginRef({"wasm": []}),
    ],
)
def test_what_is_wrong_with_a_manifest_is_a_manifest_error_however_it_was_given(
    wrong: Callable[[], object],
) -> None:
    with pytest.raises(errors.ManifestError) as caught:
        wrong()
    assert not isinstance(caught.value, errors.OptionError)


def test_an_error_without_a_cause_arrives_without_one() -> None:
    arrived = pickle.loads(pickle.dumps(errors.TrapError("t")))
    assert arrived.__cause__ is None
    assert not arrived.__suppress_context__


class TakesTwo(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} {two}")


HOLDS_A_FUNCTION = errors.GuestError("holds")
HOLDS_A_FUNCTION.function = lambda: None  # type: ignore[assignment]


@pytest.mark.parametrize(
    "cause",
    [ValueError(lambda: None), TakesTwo(1, 2), HOLDS_A_FUNCTION],
    ids=["not to be written", "not to be read", "one of ours"],
)
def test_a_cause_that_cannot_be_pickled_does_not_stop_the_errors_above_it(cause: Exception) -> None:
    inner = errors.HostFunctionError("it raised", plugin="p")
    inner.__cause__ = cause
    error = errors.HostFunctionError("it raised too", plugin="q")
    error.__cause__ = inner
    arrived = pickle.loads(pickle.dumps(error))
    assert (arrived.message, arrived.plugin) == ("it raised too", "q")
    assert (arrived.__cause__.message, arrived.__cause__.plugin) == ("it raised", "p")
    assert arrived.__cause__.__cause__ is None


def chain(count: int) -> list[BaseException]:
    """Errors of calls in calls, the outermost first, and what began it."""
    links = [
        *(errors.HostFunctionError(f"call {n}", plugin=f"p{n}") for n in range(count)),
        KeyError("what began it"),
    ]
    for above, below in itertools.pairwise(links):
        above.__cause__ = below
    return links


def causes(error: BaseException | None) -> list[BaseException]:
    return [] if error is None else [error, *causes(error.__cause__)]


@by_each_way
def test_a_chain_of_causes_travels_whole_and_in_no_time(journey: Callable[[Any], Any]) -> None:
    links = chain(60)  # each that was looked at twice would double the time
    arrived = causes(journey(links[0]))
    assert [(type(link), link.args, vars(link)) for link in arrived] == [
        (type(link), link.args, vars(link)) for link in links
    ]


def test_a_chain_that_is_very_long_or_goes_round_is_cut() -> None:
    assert 60 < len(causes(pickle.loads(pickle.dumps(chain(500)[0])))) < 200
    one, two = errors.GuestError("one"), errors.GuestError("two")
    one.__cause__, two.__cause__ = two, one
    arrived = pickle.loads(pickle.dumps(one))
    assert (arrived.message, arrived.__cause__.message) == ("one", "two")


class Refused(errors.OutOfMemoryError):
    """An application's own, which is not made of a message."""

    def __init__(self, user: str, *, reason: str) -> None:
        super().__init__(f"{user} is refused", plugin="p")
        self.user, self.reason = user, reason


@by_each_way
def test_an_applications_own_class_survives_as_well(journey: Callable[[Any], Any]) -> None:
    refused = Refused("Ada", reason="late")
    arrived = journey(refused)
    assert type(arrived) is Refused
    assert (arrived.args, vars(arrived)) == (refused.args, vars(refused))


def test_a_real_error_of_a_call_survives_pickling(compiled: plugwasm.CompiledPlugin) -> None:
    error = error_of(compiled, "deep")
    arrived = pickle.loads(pickle.dumps(error))
    assert str(arrived) == str(error)
    assert arrived.__dict__ == error.__dict__


def test_an_error_crosses_the_border_of_a_process() -> None:
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    with (
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool,
        pytest.raises(
            errors.TrapError, match="`trap` of plugin `plugin` trapped: unreachable"
        ) as caught,
    ):
        pool.submit(_trap_elsewhere, FAULTY).result(60)
    assert caught.value.trap == "unreachable"
    assert caught.value.backtrace


def _trap_elsewhere(source: str) -> None:
    Plugin(source).call("trap")


def test_error_messages_do_not_take_long_when_a_guest_makes_them_large() -> None:
    source = guest(export("f", "(call $error_set (call $alloc (i64.const 3000000)))"))
    started = time.monotonic()
    with Plugin(source) as plugin, pytest.raises(errors.GuestError) as caught:
        plugin.call("f")
    assert len(caught.value.message) <= 3_000_000
    assert time.monotonic() - started < 2


FAILS = ["trap", "message", "seven", "output_of_nothing", "raises"]


@pytest.mark.parametrize("function", FAILS)
def test_an_error_that_was_handled_keeps_nothing_alive_until_the_garbage_collector_comes(
    function: str,
) -> None:
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
        instance = weakref.ref(plugin._guest)  # type: ignore[arg-type]
        try:
            plugin.call(function)
        except errors.CallError:
            pass
        plugin.close()
        assert soon(lambda: instance() is None)
    finally:
        gc.enable()
