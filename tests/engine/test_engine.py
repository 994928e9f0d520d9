"""The engine layer on its own: modules, stores, calls both ways, what goes wrong in them, and what is freed when."""

from __future__ import annotations

import gc
import math
import struct
import subprocess
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugwasm._engine import (
    OUT_OF_FUEL,
    STACK_OVERFLOW,
    CallerMemory,
    Engine,
    EngineFailure,
    Environment,
    ExportName,
    FunctionType,
    HostFunction,
    HostRaised,
    Instance,
    Module,
    Store,
    Trap,
    caller_context,
    check_version,
    library_version,
    wat_to_wasm,
)
from plugwasm._engine.ffi import TESTED_VERSIONS, installed_version
from plugwasm._engine.traps import MAX_NAME, TRAP_NAMES
from plugwasm.errors import EngineError
from tests.support.paths import ROOT

ENGINE = Engine()
FUEL_ENGINE = Engine(fuel=True)
PAGE = 65536
MASK = 2**64 - 1
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


class World:
    """A store with one instance in it. `imports` are host functions in the order of the module's imports."""

    def __init__(
        self, wat: str | Module, *imports: HostFunction, engine: Engine = ENGINE, **limits: int
    ) -> None:
        module = wat if isinstance(wat, Module) else engine.compile(wat_to_wasm(wat.encode()))
        self.environment = Environment()
        self.imports = imports
        self.store = Store(module.engine, self.environment)
        if limits:
            self.store.limit(**limits)
        if module.engine.fuel:
            self.store.set_fuel(1_000_000)
        items = b"".join(self.store.make_import(function, self.environment) for function in imports)
        self.instance: Instance = self.store.instantiate(module, items, self.environment.pending)

    def call(self, name: str, *arguments: int, results: int = 1) -> Any:
        function = self.instance.function(ExportName(name), max(len(arguments), results))
        for i, argument in enumerate(arguments):
            function.values[2 * i] = argument & MASK
        function.call(self.environment.pending)
        return (
            function.values[0] if results == 1 else tuple(function.values[::2].tolist()[:results])
        )


def host(params: str, results: str, body: Callable[[Any, int, Any], None]) -> HostFunction:
    return HostFunction(FunctionType(tuple(params.split()), tuple(results.split())), body)


# ---- the library's version ------------------------------------------------------------------------------------------------------------


def test_the_tested_range_begins_and_ends_where_it_says() -> None:
    first, end = TESTED_VERSIONS
    check_version(first)
    check_version((*first[:2], first[2] + 1))
    check_version((end[0] - 1, 999, 999))
    for wrong in [
        (first[0], first[1], first[2] - 1),
        (first[0] - 1, 99, 99),
        end,
        (end[0], 0, 1),
        (end[0] + 1, 0, 0),
        (),
        (1,),
    ]:
        with pytest.raises(
            EngineError,
            match=r"wasmtime .*is installed.*pip install 'wasmtime>=\d+\.\d+\.\d+,<\d+'",
        ):
            check_version(wrong)


def test_the_installed_library_is_in_the_tested_range() -> None:
    check_version(tuple(map(int, library_version().split("."))))


def test_the_version_is_read_off_the_metadata_folder(tmp_path: Path) -> None:
    (tmp_path / "wasmtime").mkdir()
    (tmp_path / "wasmtime-51.2.3.dist-info").mkdir()
    (tmp_path / "wasmtime_tools-1.0.dist-info").mkdir()
    assert installed_version(str(tmp_path / "wasmtime")) == (51, 2, 3)
    (tmp_path / "wasmtime-49.0.0.dist-info").mkdir()
    assert installed_version(str(tmp_path / "wasmtime")) == tuple(
        map(int, library_version().split("."))
    ), "two folders tell nothing"


def test_a_missing_library_is_an_error_that_says_what_to_install(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "class Hidden:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'wasmtime': raise ModuleNotFoundError('hidden')\n"
        "sys.path = [p for p in sys.path]\n"
        "for finder in list(sys.meta_path):\n"
        "    find = finder.find_spec\n"
        "    finder_type = type('Finder', (), {'find_spec': staticmethod(lambda n, p=None, t=None, find=find:"
        " None if n == 'wasmtime' else find(n, p, t))})\n"
        "    sys.meta_path[sys.meta_path.index(finder)] = finder_type()\n"
        "import plugwasm.errors\n"
        "try:\n"
        "    import plugwasm._engine\n"
        "except plugwasm.errors.EngineError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert "pip install wasmtime" in done.stdout


# ---- modules --------------------------------------------------------------------------------------------------------------------------

RICH = wat_to_wasm(
    b"""(module $rich
  (import "a" "f" (func (param i32 i64) (result f32)))
  (import "a" "g" (func (param f64 v128 externref funcref)))
  (import "b" "memory" (memory 1 2))
  (import "b" "table" (table 1 funcref))
  (import "b" "global" (global (mut i32)))
  (import "" "" (func))
  (func (export "multi") (param i32) (result i64 f32 f64) unreachable)
  (func (export "\xc3\xa9\xe2\x82\xac"))
  (memory (export "own") 3) (table (export "t") 1 externref) (global (export "g") i32 (i32.const 1)))"""
)


def test_imports_and_exports_are_told_with_their_types_and_in_their_order() -> None:
    module = ENGINE.compile(RICH)
    assert [(item.module, item.name, item.kind, str(item.type)) for item in module.imports] == [
        ("a", "f", "function", "(i32, i64) -> (f32)"),
        ("a", "g", "function", "(f64, v128, externref, funcref) -> ()"),
        ("b", "memory", "memory", "None"),
        ("b", "table", "table", "None"),
        ("b", "global", "global", "None"),
        ("", "", "function", "() -> ()"),
    ]
    assert [
        (name, item.name, item.kind, str(item.type)) for name, item in module.exports.items()
    ] == [
        ("multi", "multi", "function", "(i32) -> (i64, f32, f64)"),
        ("é€", "é€", "function", "() -> ()"),
        ("own", "own", "memory", "None"),
        ("t", "t", "table", "None"),
        ("g", "g", "global", "None"),
    ]
    assert repr(module.imports[0]) == "function a.f(i32, i64) -> (f32)"


def test_function_types_are_equal_by_what_they_are() -> None:
    assert FunctionType(("i32",), ()) == FunctionType(("i32",), ())
    assert (
        len({FunctionType(("i32",), ()), FunctionType(("i32",), ()), FunctionType((), ("i32",))})
        == 2
    )
    assert FunctionType((), ()) != "() -> ()"


@pytest.mark.parametrize(
    ("wat", "memories"),
    [
        ("(module)", (0, 0)),
        ('(module (import "m" "m" (memory 9)))', (0, 0)),
        ("(module (memory 3))", (1, 3)),
        ("(module (memory 3 4) (memory 0) (memory 300 65536))", (3, 303)),
        ("(module (memory i64 2) (memory i64 1 5))", (2, 3)),
        (
            '(module (type (func)) (import "m" "m" (memory 9)) (func) (table 5 funcref) (memory 200) (data (i32.const 0) "x"))',
            (1, 200),
        ),
    ],
)
def test_a_module_knows_the_memories_that_it_defines(wat: str, memories: tuple[int, int]) -> None:
    assert ENGINE.compile(wat_to_wasm(wat.encode())).defined_memories[:2] == memories


@pytest.mark.parametrize(
    "wasm",
    [
        b"",
        b"\0",
        b"\0asm",
        b"\0asm\1\0\0",
        b"\0asm\2\0\0\0",
        b"\0asm\x0d\0\1\0",
        b"\0asm\1\0\0\0\xff",
        b"MZ" + bytes(100),
        b"\x7fELF" + bytes(100),
        b"<html>",
        RICH[:-1],
        RICH + b"\0",
    ],
    ids=range(12),
)
def test_bytes_that_are_no_module_are_refused(wasm: bytes) -> None:
    with pytest.raises(EngineFailure) as caught:
        ENGINE.compile(wasm)
    assert caught.value.message
    assert caught.value.frames == ()


@given(
    at=st.integers(0, len(RICH) - 1),
    bit=st.integers(0, 7),
    cut=st.integers(0, len(RICH)),
    insert=st.binary(max_size=3),
    do=st.sampled_from("flc"),
)
@settings(max_examples=300, deadline=None)
def test_a_damaged_module_is_refused_or_compiled_but_nothing_else(
    at: int, bit: int, cut: int, insert: bytes, do: str
) -> None:
    if do == "f":
        wasm = RICH[:at] + bytes([RICH[at] ^ 1 << bit]) + RICH[at + 1 :]
    else:
        wasm = RICH[:cut] if do == "l" else RICH[:cut] + insert + RICH[cut:]
    try:
        module = ENGINE.compile(wasm)
    except EngineFailure as failure:
        assert failure.message
    else:
        assert isinstance(module.exports, dict)


@pytest.mark.parametrize(
    "text",
    [
        b"(module",
        b"(modul)",
        b"(module (func (i32.add)))",
        b"\xff\xfe",
        b"(module (func $a) (func $a))",
        b"junk",
    ],
)
def test_bad_text_is_refused_and_the_message_shows_where(text: bytes) -> None:
    with pytest.raises(EngineFailure) as caught:
        ENGINE.compile(wat_to_wasm(text))
    assert caught.value.message.strip()
    if b"\xff" not in text and b"i32.add" not in text:
        assert "1:" in caught.value.message


def test_a_compiled_module_can_be_kept_and_loaded() -> None:
    artifact = ENGINE.compile(RICH).serialize()
    loaded = ENGINE.load(artifact)
    again = Engine().load(artifact)
    original = ENGINE.compile(RICH)
    for module in (loaded, again):
        assert list(map(repr, module.imports)) == list(map(repr, original.imports))
        assert list(module.exports) == list(original.exports)
    answer = ENGINE.load(
        ENGINE.compile(
            wat_to_wasm(b'(module (func (export "f") (result i32) (i32.const 42)))')
        ).serialize()
    )
    assert World(answer).call("f") == 42


def test_what_is_no_artifact_of_this_engine_is_not_loaded() -> None:
    artifact = ENGINE.compile(RICH).serialize()
    for wrong in (
        b"",
        b"junk" * 1000,
        bytes(5000),
        RICH,
        artifact[:10],
        artifact[:100],
        artifact[: len(artifact) // 2],
        b"x" + artifact,
    ):
        with pytest.raises(EngineFailure):
            ENGINE.load(wrong)
    with pytest.raises(EngineFailure, match="fuel"):
        FUEL_ENGINE.load(artifact)


def test_shared_memories_and_threads_are_refused() -> None:
    with pytest.raises(EngineFailure):
        ENGINE.compile(wat_to_wasm(b"(module (memory 1 1 shared))"))


# ---- values ---------------------------------------------------------------------------------------------------------------------------

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

    return World(THROUGH_HOST, *(host(kind, kind, same) for kind in ("i32", "i64", "f32", "f64")))


@given(
    bits=st.one_of(
        st.integers(0, MASK), st.sampled_from([0, 1, 2**31, 2**32 - 1, 2**32, 2**63, MASK])
    )
)
@settings(max_examples=100, deadline=None)
def test_integers_go_to_the_host_and_back_whole(echo: World, bits: int) -> None:
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


def test_what_stands_above_an_i32_does_not_count() -> None:
    seen = []

    def garbage(environment: Any, caller: int, values: Any) -> None:
        seen.append(values[0] & 0xFFFFFFFF)
        values[0] = 0x7EADBEEF_00000007

    world = World(
        """(module (import "h" "g" (func $g (param i32) (result i32)))
          (func (export "f") (param i32) (result i64) (i64.extend_i32_u (call $g (local.get 0))))
          (func (export "zero") (param i32) (result i32) (i32.eqz (local.get 0))))""",
        host("i32", "i32", garbage),
    )
    assert world.call("f", 0xFFFFFFFF_00000005) == 7
    assert seen == [5]
    assert world.call("zero", 0xFFFFFFFF_00000000) & 0xFFFFFFFF == 1


def test_parameters_and_results_of_all_kinds_keep_their_places() -> None:
    def swap(environment: Any, caller: int, values: Any) -> None:
        a, b, c, d = (values[2 * i] for i in range(4))
        values[0], values[2], values[4], values[6] = d, c, b, a

    world = World(
        """(module (import "h" "swap" (func $swap (param i32 i64 f32 f64) (result f64 f32 i64 i32)))
          (func (export "f") (param i32 i64 f32 f64) (result f64 f32 i64 i32)
            (call $swap (local.get 0) (local.get 1) (local.get 2) (local.get 3))))""",
        host("i32 i64 f32 f64", "f64 f32 i64 i32", swap),
    )
    f32 = struct.unpack("<I", struct.pack("<f", 1.5))[0]
    f64 = struct.unpack("<Q", struct.pack("<d", math.pi))[0]
    a, b, c, d = world.call("f", 0xFFFFFFFF, 2**63, f32, f64, results=4)
    assert (a, b & 0xFFFFFFFF, c, d & 0xFFFFFFFF) == (f64, f32, 2**63, 0xFFFFFFFF)


# ---- host functions -------------------------------------------------------------------------------------------------------------------

CALLS_HOST = """(module
  (import "h" "f" (func $f (param i64) (result i64)))
  (func $inner (param i64) (result i64) (call $f (local.get 0)))
  (func (export "f") (param i64) (result i64) (call $inner (local.get 0)))
  (func (export "quiet") (result i64) (i64.const 5)))"""


def test_what_a_host_function_raises_comes_back_whole() -> None:
    def deep_inside() -> None:
        raise LookupError("nothing there")

    def body(environment: Any, caller: int, values: Any) -> None:
        deep_inside()

    world = World(CALLS_HOST, host("i64", "i64", body))
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
def test_whatever_is_raised_ends_the_guest_and_is_kept(kind: type[BaseException]) -> None:
    def body(environment: Any, caller: int, values: Any) -> None:
        raise kind("why")

    world = World(CALLS_HOST, host("i64", "i64", body))
    for _ in range(2):
        with pytest.raises(HostRaised) as caught:
            world.call("f", 1)
        assert type(caught.value.exception) is kind


def test_exceptions_of_different_threads_each_reach_their_own_caller() -> None:
    barrier = threading.Barrier(2, timeout=10)

    def body(environment: Any, caller: int, values: Any) -> None:
        barrier.wait()
        try:
            raise LookupError(threading.get_ident(), values[0])
        finally:
            barrier.wait()

    function = host("i64", "i64", body)
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


def test_a_host_function_serves_stores_of_several_engines() -> None:
    function = host("i64", "i64", lambda environment, caller, values: values.__setitem__(0, 11))
    for engine in (ENGINE, FUEL_ENGINE, Engine(), ENGINE):
        assert World(CALLS_HOST, function, engine=engine).call("f", 0) == 11


def test_a_host_function_calls_the_guest_that_called_it() -> None:
    depth = []

    def body(environment: Any, caller: int, values: Any) -> None:
        depth.append(values[0])
        values[0] = world.call("f", values[0] - 1) + 1 if values[0] else 100

    world = World(CALLS_HOST, host("i64", "i64", body))
    assert world.call("f", 20) == 120
    assert depth == list(range(20, -1, -1))


def test_an_exception_passes_through_nested_calls_once() -> None:
    def body(environment: Any, caller: int, values: Any) -> None:
        if values[0]:
            world.call("f", values[0] - 1)
        raise LookupError(values[0])

    world = World(CALLS_HOST, host("i64", "i64", body))
    with pytest.raises(HostRaised) as caught:
        world.call("f", 3)
    failure: Any = caught.value
    for _ in range(3):
        failure = failure.exception
        assert isinstance(failure, HostRaised)
    assert failure.exception.args == (0,)
    assert world.environment.pending.exception is None


def test_unbounded_recursion_between_guest_and_host_ends_in_an_error() -> None:
    def body(environment: Any, caller: int, values: Any) -> None:
        world.call("f", 0)

    world = World(CALLS_HOST, host("i64", "i64", body))
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


def test_a_call_with_hardly_any_stack_left_for_python_fails_or_works_but_loses_nothing() -> None:
    """In a process of its own, for what is lost there is a pointer that the engine follows."""
    done = subprocess.run(
        [sys.executable, "-c", NEAR_THE_END], capture_output=True, text=True, cwd=ROOT
    )
    assert done.stdout.splitlines() == ["True True True", "0 b''"], (
        done.stdout + done.stderr[-2000:]
    )


def test_a_host_function_sees_the_memory_of_its_caller() -> None:
    got: list[Any] = []

    def body(environment: Any, caller: int, values: Any) -> None:
        assert caller_context(caller) == stores[0].context
        found = finder.find(caller)
        assert found == finder.find(caller)
        got.append(None if found is None else bytes(finder.found(stores[0]).view()[:3]))

    function = host("", "", body)
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


# ---- traps ----------------------------------------------------------------------------------------------------------------------------

TRAPPING = {
    "unreachable": "unreachable",
    "integer division by zero": "(drop (i32.div_s (i32.const 1) (local.get $zero)))",
    "integer overflow": "(drop (i32.div_s (i32.const 0x80000000) (i32.const -1)))",
    "invalid conversion to integer": "(drop (i32.trunc_f32_s (f32.const nan)))",
    "out of bounds memory access": "(drop (i32.load (i32.const -1)))",
    "out of bounds table access": "(drop (table.get 0 (i32.const 99)))",
    "call of an empty table entry": "(call_indirect (type $t) (i32.const 1))",
    "indirect call with a wrong type": "(call_indirect (type $t) (i32.const 0))",
    "stack overflow": "(call $bad)",
    "out of fuel": "(loop $l (br $l))",
}


@pytest.mark.parametrize("kind", TRAPPING)
def test_each_trap_is_named_and_says_where(kind: str) -> None:
    world = World(
        f"""(module $guest (type $t (func)) (table 2 funcref) (elem (i32.const 0) $other) (memory 1)
          (func $other (param i32))
          (func $bad (local $zero i32) {TRAPPING[kind]})
          (func $outer (export "f") (call $bad)))""",
        engine=FUEL_ENGINE if kind == "out of fuel" else ENGINE,
    )
    with pytest.raises(Trap) as caught:
        world.call("f")
    assert caught.value.message == kind
    assert kind in TRAP_NAMES
    assert caught.value.frames[0].startswith("guest!bad")
    if kind != "stack overflow":
        assert len(caught.value.frames) == 2
        assert caught.value.frames[1].startswith("guest!outer @ 0x")
    assert not any("0xffffffff" in frame for frame in caught.value.frames)


def test_the_names_of_special_traps_are_those_of_the_table() -> None:
    assert (OUT_OF_FUEL, STACK_OVERFLOW) == ("out of fuel", "stack overflow")


def test_an_instance_goes_on_after_a_trap() -> None:
    world = World(
        '(module (func (export "bad") unreachable) (func (export "good") (result i32) (i32.const 3)))'
    )
    for _ in range(3):
        with pytest.raises(Trap):
            world.call("bad")
        assert world.call("good") == 3


def test_a_start_function_that_traps_is_a_trap() -> None:
    with pytest.raises(Trap, match="unreachable") as caught:
        World("(module (func $boot unreachable) (start $boot))")
    assert caught.value.frames[0].startswith("boot @ ")


def trace_of(*names: str, module: str = "$m") -> tuple[str, ...]:
    """The trace of functions of these names, the last of which traps."""
    functions = "".join(
        f'(func $f{i} (@name "{name}") (call $f{i + 1}))' for i, name in enumerate(names[:-1])
    )
    last = f'(func $f{len(names) - 1} (@name "{names[-1]}") unreachable)'
    world = World(f'(module {module} (export "f" (func $f0)) {functions} {last})')
    with pytest.raises(Trap) as caught:
        world.call("f")
    return tuple(frame.split(" @ ")[0] for frame in caught.value.frames)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("_ZN4core9panicking5panic17h0123456789abcdefE", "core::panicking::panic"),
        ("_ZN3foo3barEi", "foo::bar(int)"),
        ("_ZN3foo3bar17h0123456789abcdefE", "foo::bar"),
        ("_RNvCs1234_7mycrate3foo", "mycrate[3c1c0]::foo"),
        ("_ZN", "_ZN"),
        ("_R", "_R"),
        ("_Zjunk", "_Zjunk"),
        ("main.main", "main.main"),
        ("~lib/array/Array<i32>#push", "~lib/array/Array<i32>#push"),
    ],
)
def test_names_of_rust_and_cpp_are_shown_as_their_authors_wrote_them(name: str, shown: str) -> None:
    assert trace_of("outer", name, "inner") == ("m!inner", f"m!{shown}", "m!outer")


def test_frames_of_the_kernel_are_left_out_but_not_those_of_a_guest_that_happens_to_be_called_so() -> (
    None
):
    assert trace_of("a", "b", module="$kernel") == ("kernel!b", "kernel!a")


def test_names_that_a_guest_chose_stay_on_their_line_and_short() -> None:
    (frame,) = trace_of(r"evil\0a  0: \1b[31mred\c2\85")
    assert frame.isprintable()
    assert "red" in frame
    (long,) = trace_of("x" * 50_000, module='$m (@name "' + "y" * 50_000 + '")')
    assert len(long) < 2 * MAX_NAME + 10


def test_a_deep_stack_makes_a_short_trace_in_a_short_time() -> None:
    world = World(
        f'(module (func $f (export "f") (@name "{"n" * 10_000}") (call $f)))'.replace(
            '$f (export "f") (@name', "$f (@name", 1
        )[:-1]
        + ' (export "f" (func $f)))'
    )
    began = time.perf_counter()
    with pytest.raises(Trap, match="stack overflow") as caught:
        world.call("f")
    assert time.perf_counter() - began < 2
    assert 1 < len(caught.value.frames) < 200


def test_deep_recursion_on_a_thread_with_a_small_stack_is_an_error_too() -> None:
    caught: list[Any] = []

    def work() -> None:
        try:
            World('(module (func $f (export "f") (call $f)))').call("f")
        except Trap as trap:
            caught.append(trap.message)

    before = threading.stack_size(1024 * 1024)
    try:
        thread = threading.Thread(target=work)
        thread.start()
    finally:
        threading.stack_size(before)
    thread.join()
    assert caught == ["stack overflow"]


# ---- limits ---------------------------------------------------------------------------------------------------------------------------

GROWING = """(module (memory (export "memory") 1) (table 1 funcref)
  (func (export "memory_by") (param i32) (result i32) (memory.grow (local.get 0)))
  (func (export "table_by") (param i32) (result i32) (table.grow (ref.null func) (local.get 0))))"""
REFUSED = 0xFFFFFFFF


def test_a_memory_grows_to_its_limit_and_not_a_page_further() -> None:
    world = World(GROWING, memory_bytes=10 * PAGE)
    assert world.call("memory_by", 10) & REFUSED == REFUSED
    assert world.call("memory_by", 9) == 1
    assert world.call("memory_by", 1) & REFUSED == REFUSED
    assert world.call("memory_by", 0) == 10
    assert world.instance.memory(ExportName("memory")).size() == 10 * PAGE
    world.store.limit(memory_bytes=11 * PAGE)
    assert world.call("memory_by", 1) == 10
    world.store.limit(memory_bytes=5 * PAGE)
    assert world.call("memory_by", 1) & REFUSED == REFUSED
    assert world.call("memory_by", 0) == 11


def test_a_table_grows_to_its_limit_and_not_an_entry_further() -> None:
    world = World(GROWING, table_elements=1000)
    assert world.call("table_by", 100_000_000) & REFUSED == REFUSED
    assert world.call("table_by", 1000) & REFUSED == REFUSED
    assert world.call("table_by", 999) == 1
    assert world.call("table_by", 1) & REFUSED == REFUSED


@pytest.mark.parametrize(
    ("wat", "limits"),
    [
        ("(module (memory 11))", {"memory_bytes": 10 * PAGE}),
        ("(module (table 1001 funcref))", {"table_elements": 1000}),
        ("(module (memory 1) (memory 1) (memory 1))", {"memories": 2}),
        ("(module (table 1 funcref) (table 1 funcref))", {"tables": 1}),
        ("(module)", {"instances": 0}),
    ],
)
def test_a_module_that_starts_beyond_a_limit_is_not_instantiated(
    wat: str, limits: dict[str, int]
) -> None:
    with pytest.raises(EngineFailure) as caught:
        World(wat, **limits)
    assert (
        "limit" in caught.value.message
        or "exceeds" in caught.value.message
        or "maximum" in caught.value.message
    )
    assert World(wat).instance


def test_fuel_is_used_counted_and_can_run_out() -> None:
    wat = """(module (func (export "f") (param i64)
      (loop $l (br_if $l (i64.ne (local.tee 0 (i64.sub (local.get 0) (i64.const 1))) (i64.const 0))))))"""
    world = World(wat, engine=FUEL_ENGINE)
    costs = []
    for n in (100, 200, 400):
        world.store.set_fuel(100_000)
        world.call("f", n)
        costs.append(100_000 - world.store.fuel())
    assert costs[1] - costs[0] == (costs[2] - costs[1]) / 2 > 0
    world.store.set_fuel(costs[2])
    world.call("f", 400)
    assert world.store.fuel() == 0
    world.store.set_fuel(costs[0])
    with pytest.raises(Trap) as caught:
        world.call("f", 400)
    assert caught.value.message == OUT_OF_FUEL
    world.store.set_fuel(MASK)
    world.call("f", 400)
    assert world.store.fuel() > 2**63


def test_fuel_of_an_engine_without_fuel_is_an_error() -> None:
    world = World("(module)")
    with pytest.raises(EngineFailure, match="fuel"):
        world.store.set_fuel(1)
    with pytest.raises(EngineFailure, match="fuel"):
        world.store.fuel()


class Ends(Environment):
    __slots__ = ("left", "looks")

    def __init__(self, left: int) -> None:
        super().__init__()
        self.left = left
        self.looks = 0

    def on_epoch(self) -> None:
        self.looks += 1
        if self.looks > self.left:
            raise InterruptedError("enough")


def test_each_tick_makes_a_running_guest_ask_its_environment_which_can_end_it() -> None:
    environment = Ends(3)
    store = Store(ENGINE, environment)
    module = ENGINE.compile(wat_to_wasm(b'(module (func $spin (export "f") (loop $l (br $l))))'))
    instance = store.instantiate(module, b"", environment.pending)
    over = threading.Event()

    def tick() -> None:
        while not over.wait(0.005):
            ENGINE.increment_epoch()

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        with pytest.raises(HostRaised) as caught:
            instance.function(ExportName("f"), 0).call(environment.pending)
    finally:
        over.set()
        thread.join()
    assert isinstance(caught.value.exception, InterruptedError)
    assert caught.value.frames[0].startswith("spin @ ")
    assert environment.looks == 4


# ---- exports --------------------------------------------------------------------------------------------------------------------------


def test_an_export_that_is_missing_or_of_another_kind_is_an_error_that_names_it() -> None:
    instance = World('(module (func (export "f")) (memory (export "m") 1))').instance
    with pytest.raises(EngineFailure, match="no export `g`"):
        instance.function(ExportName("g"), 0)
    with pytest.raises(EngineFailure, match="`m` is no function"):
        instance.function(ExportName("m"), 0)
    with pytest.raises(EngineFailure, match="`m` is no function"):
        instance.funcref(ExportName("m"))
    with pytest.raises(EngineFailure, match="no exported memory `f`"):
        instance.memory(ExportName("f"))
    assert instance.find_memory(ExportName("nothing")) is None
    assert instance.funcref(ExportName("f"))


def test_imports_that_do_not_fit_are_refused_instead_of_crashing() -> None:
    wat = '(module (import "h" "f" (func (param i64) (result i64))))'
    with pytest.raises(EngineFailure):
        World(wat)
    with pytest.raises(EngineFailure):
        World(wat, host("i32", "i64", print))
    with pytest.raises(EngineFailure):
        World("(module)", host("i32", "i64", print))


# ---- what is freed, and what is kept --------------------------------------------------------------------------------------------------


@pytest.fixture
def without_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def freed(world: World) -> Callable[[], bool]:
    reference = weakref.ref(world.store)
    return lambda: reference() is None


@pytest.mark.usefixtures("without_collector")
def test_a_store_is_freed_at_once_with_the_last_reference() -> None:
    world = World(CALLS_HOST, host("i64", "i64", lambda environment, caller, values: None))
    is_freed = freed(world)
    world.call("f", 1)
    assert not is_freed()
    del world
    assert is_freed()


@pytest.mark.usefixtures("without_collector")
def test_a_store_is_freed_at_once_after_a_host_function_raised() -> None:
    def body(environment: Any, caller: int, values: Any) -> None:
        raise LookupError

    world = World(CALLS_HOST, host("i64", "i64", body))
    is_freed = freed(world)
    try:
        world.call("f", 1)
    except HostRaised:
        pass
    del world
    assert is_freed()


@pytest.mark.usefixtures("without_collector")
def test_a_view_and_what_is_made_of_it_keep_the_memory_when_all_else_is_gone() -> None:
    world = World('(module (memory (export "memory") 1) (data (i32.const 100) "hello"))')
    is_freed = freed(world)
    view = world.instance.memory(ExportName("memory")).view()
    part = view[100:105]
    words = view.cast("I")
    frozen = part.toreadonly()
    del world
    assert not is_freed()
    del view
    assert bytes(part) == b"hello"
    part[0] = ord("J")
    del part
    assert words[25] == int.from_bytes(b"Jell", "little")
    del words
    churn = [World('(module (memory 1) (data (i32.const 100) "XXXXX"))') for _ in range(20)]
    del churn
    assert bytes(frozen) == b"Jello"
    assert not is_freed()
    del frozen
    assert is_freed()


@pytest.mark.usefixtures("without_collector")
@pytest.mark.parametrize("what", ["instance", "function", "memory"])
def test_whatever_could_reach_into_a_store_keeps_it(what: str) -> None:
    world = World(
        '(module (memory (export "memory") 1) (func (export "f") (result i32) (i32.const 6)))'
    )
    is_freed, pending = freed(world), world.environment.pending
    kept: Any = {
        "instance": lambda: world.instance,
        "function": lambda: world.instance.function(ExportName("f"), 1),
        "memory": lambda: world.instance.memory(ExportName("memory")),
    }[what]()
    environment = world.environment
    del world
    assert not is_freed(), "to use it now would crash"
    if what == "function":
        kept.call(pending)
        assert kept.values[0] == 6
    del kept
    assert is_freed()
    del environment


@linux
def test_thousands_of_stores_leave_no_memory_behind() -> None:
    def size() -> int:
        return int(Path("/proc/self/statm").read_text().split()[0]) * 4096

    module = ENGINE.compile(
        wat_to_wasm(CALLS_HOST.encode()[:-1] + b'(memory (export "memory") 1))')
    )
    function = host("i64", "i64", lambda environment, caller, values: None)

    def churn(count: int) -> int:
        for _ in range(count):
            World(module, function).call("f", 1)
        return size()

    before = churn(200)
    assert churn(1000) - before < 2**24, (
        "each memory reserves gigabytes of addresses, so one that stays would be seen"
    )


def test_modules_may_be_dropped_while_their_instances_run() -> None:
    world = World(
        '(module (func (export "f") (result i32) (i32.const 8)) (func (export "bad") unreachable))'
    )
    gc.collect()
    assert world.call("f") == 8
    with pytest.raises(Trap):
        world.call("bad")


@pytest.mark.parametrize("threads", [4])
def test_threads_compile_and_run_at_once(threads: int) -> None:
    results: list[int] = []

    def work(number: int) -> None:
        for n in range(15):
            wat = f'(module (func (export "f") (result i32) (i32.const {number * 1000 + n})))'
            results.append(World(wat).call("f") - number * 1000 - n)

    running = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert results == [0] * threads * 15
