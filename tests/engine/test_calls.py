"""The engine layer by itself: values that pass, host functions, and their exceptions."""

from __future__ import annotations

import math
import struct
import subprocess
import sys
import threading
import traceback
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugwasm._engine import (
    CallerMemory,
    Engine,
    HostRaised,
    Store,
    Trap,
    caller_context,
    wat_to_wasm,
)
from tests.support.engine import CALLS_HOST, ENGINE, FUEL_ENGINE, World, host_function
from tests.support.paths import ROOT

MASK = 2**64 - 1


# ---- values --------------------------------------------------------------------------------------

THROUGH_HOST = """(module
  (import "h" "i32" (func $i32 (param i32) (result i32)))
  (import "h" "i64" (func $i64 (param i64) (result i64)))
  (import "h" "f32" (func $f32 (param f32) (result f32)))
  (import "h" "f64" (func $f64 (param f64) (result f64)))
  (func (export "i32") (param i32) (result i32) (call $i32 (local.get 0)))
  (func (export "i32_seen_as_i64") (param i32) (result i64) (i64.extend_i32_u (call $i32 (local.get 0))))
  (func (export "i64") (param i64) (result i64) (call $i64 (local.get 0)))
  (func (export "f32") (param f32) (result f32) (call $f32 (local.get 0)))
  (func (export "f64") (param f64) (result f64) (call $f64 (local.get 0)))
  (func (export "f32_bits") (param i32) (result i64) (i64.extend_i32_u (i32.reinterpret_f32 (call $f32 (f32.reinterpret_i32 (local.get 0))))))
  (func (export "f64_bits") (param i64) (result i64) (i64.reinterpret_f64 (call $f64 (f64.reinterpret_i64 (local.get 0))))))"""


@pytest.fixture(scope="module")
def echo() -> World:
    def same(environment: Any, caller: int, values: Any) -> None:
        values[0] = values[0]

    return World(
        THROUGH_HOST, *(host_function(kind, kind, same) for kind in ("i32", "i64", "f32", "f64"))
    )


@given(
    bits=st.one_of(
        st.integers(0, MASK), st.sampled_from([0, 1, 2**31, 2**32 - 1, 2**32, 2**63, MASK])
    )
)
@settings(max_examples=100, deadline=None)
def test_integers_round_trip(echo: World, bits: int) -> None:
    """Integers pass to the host and back unchanged."""
    assert echo.call("i64", bits) == bits
    assert echo.call("i32", bits) & 0xFFFFFFFF == bits & 0xFFFFFFFF
    assert echo.call("i32_seen_as_i64", bits) == bits & 0xFFFFFFFF


NAN32 = [0x7FC00000, 0xFFC00000, 0x7FC12345, 0x7FFFFFFF, 0x7F800000, 0xFF800000, 0x80000000, 1]
NAN64 = [
    0x7FF8000000000000,
    0xFFF8000000000000,
    0x7FF8000012345678,
    0x7FF0000000000000,
    0x8000000000000000,
    1,
]


@given(
    bits=st.one_of(
        st.sampled_from(NAN64),
        st.floats().map(lambda x: struct.unpack("<Q", struct.pack("<d", x))[0]),
    )
)
@settings(max_examples=100, deadline=None)
def test_f64_keeps_its_bits(echo: World, bits: int) -> None:
    assert echo.call("f64_bits", bits) == bits
    assert echo.call("f64", bits) == bits


@given(
    bits=st.one_of(
        st.sampled_from(NAN32),
        st.floats(width=32).map(lambda x: struct.unpack("<I", struct.pack("<f", x))[0]),
    )
)
@settings(max_examples=100, deadline=None)
def test_f32_keeps_its_bits(echo: World, bits: int) -> None:
    assert echo.call("f32_bits", bits | 0xDEAD << 32) == bits
    assert echo.call("f32", bits) & 0xFFFFFFFF == bits


def test_i32_ignores_upper_bits() -> None:
    """Bits above an `i32` are ignored."""
    seen = []

    def garbage(environment: Any, caller: int, values: Any) -> None:
        seen.append(values[0] & 0xFFFFFFFF)
        values[0] = 0x7EADBEEF_00000007

    world = World(
        """(module (import "h" "g" (func $g (param i32) (result i32)))
          (func (export "f") (param i32) (result i64) (i64.extend_i32_u (call $g (local.get 0))))
          (func (export "zero") (param i32) (result i32) (i32.eqz (local.get 0))))""",
        host_function("i32", "i32", garbage),
    )
    assert world.call("f", 0xFFFFFFFF_00000005) == 7
    assert seen == [5]
    assert world.call("zero", 0xFFFFFFFF_00000000) & 0xFFFFFFFF == 1


def test_many_parameters_and_results() -> None:
    """Many parameters and results of all types keep their order."""

    def swap(environment: Any, caller: int, values: Any) -> None:
        a, b, c, d = (values[2 * i] for i in range(4))
        values[0], values[2], values[4], values[6] = d, c, b, a

    world = World(
        """(module (import "h" "swap" (func $swap (param i32 i64 f32 f64) (result f64 f32 i64 i32)))
          (func (export "f") (param i32 i64 f32 f64) (result f64 f32 i64 i32)
            (call $swap (local.get 0) (local.get 1) (local.get 2) (local.get 3))))""",
        host_function("i32 i64 f32 f64", "f64 f32 i64 i32", swap),
    )
    f32 = struct.unpack("<I", struct.pack("<f", 1.5))[0]
    f64 = struct.unpack("<Q", struct.pack("<d", math.pi))[0]
    a, b, c, d = world.call("f", 0xFFFFFFFF, 2**63, f32, f64, results=4)
    assert (a, b & 0xFFFFFFFF, c, d & 0xFFFFFFFF) == (f64, f32, 2**63, 0xFFFFFFFF)


# ---- host functions ------------------------------------------------------------------------------


def test_host_exception_reaches_caller() -> None:
    """A host function's exception reaches the caller as the same object."""

    def deep_inside() -> None:
        raise LookupError("nothing there")

    def body(environment: Any, caller: int, values: Any) -> None:
        deep_inside()

    world = World(CALLS_HOST, host_function("i64", "i64", body))
    with pytest.raises(HostRaised) as caught:
        world.call("f", 1)
    exception = caught.value.exception
    assert isinstance(exception, LookupError)
    assert "deep_inside" in "".join(traceback.format_exception(exception))
    assert [frame.split(" @ ")[0] for frame in caught.value.frames] == ["inner", "function 2"]
    assert world.call("quiet") == 5
    assert world.environment.pending.exception is None


@pytest.mark.parametrize(
    "kind",
    [
        ValueError,
        SystemExit,
        KeyboardInterrupt,
        GeneratorExit,
        MemoryError,
        StopIteration,
        RecursionError,
    ],
)
def test_any_exception_ends_guest(kind: type[BaseException]) -> None:
    """Any exception ends the guest and is raised."""

    def body(environment: Any, caller: int, values: Any) -> None:
        raise kind("why")

    world = World(CALLS_HOST, host_function("i64", "i64", body))
    for _ in range(2):
        with pytest.raises(HostRaised) as caught:
            world.call("f", 1)
        assert type(caught.value.exception) is kind


def test_exceptions_of_several_threads() -> None:
    """Exceptions in several threads each reach their own caller."""
    barrier = threading.Barrier(2, timeout=10)

    def body(environment: Any, caller: int, values: Any) -> None:
        barrier.wait()
        try:
            raise LookupError(threading.get_ident(), values[0])
        finally:
            barrier.wait()

    function = host_function("i64", "i64", body)
    module = ENGINE.compile(wat_to_wasm(CALLS_HOST.encode()))
    wrong: list[Any] = []

    def work() -> None:
        for n in range(100):
            world = World(module, function)
            try:
                world.call("f", n)
            except HostRaised as raised:
                if raised.exception.args == (threading.get_ident(), n):
                    continue
                wrong.append(raised.exception)
            wrong.append("nothing raised")

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_host_function_in_several_engines() -> None:
    """A host function can serve stores of several engines."""
    function = host_function(
        "i64", "i64", lambda environment, caller, values: values.__setitem__(0, 11)
    )
    for engine in (ENGINE, FUEL_ENGINE, Engine(), ENGINE):
        assert World(CALLS_HOST, function, engine=engine).call("f", 0) == 11


def test_host_function_calls_its_guest() -> None:
    """A host function can call the guest that called it."""
    depth = []

    def body(environment: Any, caller: int, values: Any) -> None:
        depth.append(values[0])
        values[0] = world.call("f", values[0] - 1) + 1 if values[0] else 100

    world = World(CALLS_HOST, host_function("i64", "i64", body))
    assert world.call("f", 20) == 120
    assert depth == list(range(20, -1, -1))


def test_exception_through_nested_calls() -> None:
    """An exception passes through nested calls once."""

    def body(environment: Any, caller: int, values: Any) -> None:
        if values[0]:
            world.call("f", values[0] - 1)
        raise LookupError(values[0])

    world = World(CALLS_HOST, host_function("i64", "i64", body))
    with pytest.raises(HostRaised) as caught:
        world.call("f", 3)
    failure: Any = caught.value
    for _ in range(3):
        failure = failure.exception
        assert isinstance(failure, HostRaised)
    assert failure.exception.args == (0,)
    assert world.environment.pending.exception is None


def test_unbounded_recursion_is_error() -> None:
    """Unbounded recursion between guest and host is an error."""

    def body(environment: Any, caller: int, values: Any) -> None:
        world.call("f", 0)

    world = World(CALLS_HOST, host_function("i64", "i64", body))
    with pytest.raises((HostRaised, Trap, RecursionError)):
        world.call("f", 0)
    assert world.call("quiet") == 5


NEAR_THE_END = """
import inspect, sys
from plugwasm import Plugin, Function, ValType
lost = []

def hook(unraisable):
    if "__del__" not in repr(unraisable.object):
        lost.append(unraisable)

sys.unraisablehook = hook

def add(plugin, inputs, outputs):
    outputs[0].value = inputs[0].value + 1

def raises(plugin, inputs, outputs):
    raise LookupError

PLUGIN = {"timeout_ms": 60, "wasm": [{"data": b'''(module
  (import "extism:host/user" "add" (func $add (param i64) (result i64)))
  (import "extism:host/user" "raises" (func $raises (param i64) (result i64)))
  (func (export "add") (result i32) (i64.ne (call $add (i64.const 41)) (i64.const 42)))
  (func (export "raises") (drop (call $raises (i64.const 0))))
  (func (export "spin") (loop $l (br $l))))'''}]}
i64 = [ValType.I64]
plugin = Plugin(PLUGIN, functions=[Function(None, f.__name__, i64, i64, f) for f in (add, raises)])

def at_depth(levels, name):
    return plugin.call(name) if levels == 0 else at_depth(levels - 1, name)

used, came = len(inspect.stack()), {}
for name in ("add", "raises", "spin"):
    came[name] = []
    for spare in range(2, 34 if name != "spin" else 44, 1 if name != "spin" else 2):
        try:
            outcome = at_depth(sys.getrecursionlimit() - used - spare, name)
        except BaseException as error:
            outcome = "recursion" if "ecursion" in f"{error!r}{error.__cause__!r}" else type(error).__name__
        came[name].append(outcome)
print(*(set(outcomes) == {"recursion", end} for outcomes, end in zip(came.values(), (b"", "HostFunctionError", "TimeoutError"))))
print(len(lost), plugin.call("add"))
"""


def test_call_with_little_python_stack() -> None:
    """A call with almost no Python stack left fails or works, and no pointer is lost.

    It runs in a separate process, since the engine follows the pointer that could be lost.
    """
    done = subprocess.run(
        [sys.executable, "-c", NEAR_THE_END], capture_output=True, text=True, cwd=ROOT
    )
    assert done.stdout.splitlines() == ["True True True", "0 b''"], (
        done.stdout + done.stderr[-2000:]
    )


def test_host_function_sees_caller_memory() -> None:
    """A host function sees the memory of its caller."""
    got: list[Any] = []

    def body(environment: Any, caller: int, values: Any) -> None:
        assert caller_context(caller) == stores[0].context
        found = finder.find(caller)
        assert found == finder.find(caller)
        got.append(None if found is None else bytes(finder.found(stores[0]).view()[:3]))

    function = host_function("", "", body)
    finder = CallerMemory()
    stores: list[Store] = []
    for export, expected in (
        ('(memory (export "memory") 1) (data (i32.const 0) "abc")', b"abc"),
        ('(memory (export "other") 1)', None),
        ('(func (export "memory"))', None),
        ("", None),
    ):
        world = World(
            f'(module (import "h" "f" (func $f)) (func (export "f") (call $f)) {export})', function
        )
        stores[:] = [world.store]
        world.call("f")
        assert got.pop() == expected
