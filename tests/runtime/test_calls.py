"""Calls of plugins: inputs, outputs, views, threads and nesting."""

from __future__ import annotations

import array
import gc
import inspect
import mmap
import pickle
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import plugwasm
import plugwasm._host.registry
from plugwasm import (
    BusyError,
    Function,
    FunctionNotFoundError,
    OptionError,
    Plugin,
    SignatureError,
)
from tests.support.guests import LOOP, MEMORY, export, guest, manifest, number
from tests.support.host_calls import make_calling_plugin
from tests.support.threads import InThread

ECHO = guest(
    export("echo", "(call $echo)"),
)
COUNTER = guest(
    '(global $count (mut i64) (i64.const 0)) (global (export "marker") i32 (i32.const 1))'
    + export(
        "count",
        "(global.set $count (i64.add (global.get $count) (i64.const 1))) (call $answer (global.get $count))",
    )
    + export("trap", "unreachable")
    + export("fail", "(call $error_set <<no>>)")
    + '(func (export "code") (result i32) (i32.const 3))'
    + '(func (export "takes") (param i32)) (func (export "gives_long") (result i64) (i64.const 0))'
    + '(func (export "gives_two") (result i32 i32) (i32.const 0) (i32.const 0)) (func (export "gives_float") (result f32) (f32.const 0))'
    + '(func (export "good") (result i32) (i32.const 0))'
)
SPIN = guest(export("spin", LOOP) + export("echo", "(call $echo)"))


@pytest.fixture
def echo() -> Iterator[Plugin]:
    with Plugin(ECHO) as plugin:
        yield plugin


@pytest.fixture
def counter() -> Iterator[Plugin]:
    with Plugin(COUNTER) as plugin:
        yield plugin


# Inputs


@pytest.mark.parametrize(
    "data",
    [
        b"abcd",
        bytearray(b"abcd"),
        memoryview(b"abcd"),
        memoryview(bytearray(b"abcd")),
        memoryview(b"xabcdx")[1:5],
        array.array("B", b"abcd"),
        memoryview(b"abcd").cast("I"),
        memoryview(b"abcd").cast("B", (2, 2)),
        array.array("H", b"abcd"),
        "abcd",
    ],
    ids=lambda data: (
        f"{type(data).__name__}-{data.format}{data.shape}"
        if isinstance(data, memoryview)
        else type(data).__name__
    ),
)
def test_input_text_bytes_and_buffers(echo: Plugin, data: Any) -> None:
    """Text, bytes and any buffer can be the input."""
    assert echo.call("echo", data) == b"abcd"


@pytest.mark.parametrize(
    "data", [memoryview(b"a.b.c.d.")[::2], memoryview(b"dcba")[::-1]], ids=["strided", "reversed"]
)
def test_input_not_contiguous(echo: Plugin, data: memoryview) -> None:
    """A buffer that is not contiguous can be the input."""
    assert echo.call("echo", data) == b"abcd"


def test_a_mapped_file_can_be_the_input(echo: Plugin) -> None:
    with mmap.mmap(-1, 4096) as mapped:
        mapped[:4] = b"abcd"
        assert echo.call("echo", mapped) == b"abcd" + bytes(4092)


@pytest.mark.parametrize(
    "data",
    [b"", "", bytearray(), memoryview(b""), array.array("I")],
    ids=lambda data: type(data).__name__,
)
def test_an_input_can_be_empty(echo: Plugin, data: Any) -> None:
    echo.call("echo", b"something first")
    assert echo.call("echo", data) == b""


def test_input_default_is_empty(echo: Plugin) -> None:
    """The default input is empty."""
    assert echo.call("echo") == b""


def test_text_travels_as_utf_8(echo: Plugin) -> None:
    assert echo.call("echo", "äöü € 😀\0") == "äöü € 😀\0".encode()


@pytest.mark.parametrize(
    ("data", "error"),
    [(object(), TypeError), ([object()], TypeError), ("\ud800", OptionError)],
    ids=["object", "in a list", "surrogate"],
)
def test_input_of_wrong_type_is_refused(echo: Plugin, data: Any, error: type[Exception]) -> None:
    """An input that cannot be sent is refused, and the plugin stays usable."""
    with pytest.raises(error):
        echo.call("echo", data)
    assert echo.call("echo", b"next") == b"next"


def test_refused_input_leaves_no_deadline() -> None:
    """A refused input does not leave its deadline to the next call."""
    with Plugin(manifest(ECHO, timeout_ms=150)) as plugin:
        with pytest.raises(TypeError):
            plugin.call("echo", object())
        time.sleep(0.2)
        assert plugin.call("echo", b"x" * 100_000) == b"x" * 100_000


EDGES = [
    1,
    7,
    8,
    9,
    31,
    32,
    33,
    65_535,
    65_536,
    131_072 - 544,
    131_072 - 543,
    131_072 - 512,
    131_073,
    1_000_003,
    8_388_608,
]


@pytest.mark.parametrize("length", EDGES)
def test_input_of_every_length(echo: Plugin, length: int) -> None:
    """An input of any length comes back unchanged."""
    data = (bytes(range(251)) * (length // 251 + 1))[:length]
    assert echo.call("echo", data) == data
    assert echo.call("echo", b"short") == b"short"


def test_input_grows_and_shrinks(echo: Plugin) -> None:
    """Inputs that grow and shrink do not affect each other."""
    for length in [*EDGES, *reversed(EDGES)]:
        data = length.to_bytes(4, "little") * (length // 4 + 1)
        assert echo.call("echo", data) == data


@given(st.binary(max_size=5000))
@settings(max_examples=60, deadline=None)
def test_any_bytes_come_back(data: bytes) -> None:
    plugin = _shared_echo()
    assert plugin.call("echo", data) == data


def _shared_echo(plugin: list[Plugin] = []) -> Plugin:  # noqa: B006  # one plugin for all examples
    if not plugin:
        plugin.append(Plugin(ECHO))
    return plugin[0]


def test_output_of_earlier_call_is_gone() -> None:
    """A call that sets no output returns nothing of an earlier call's output."""
    with Plugin(guest(export("echo", "(call $echo)") + export("nothing", ""))) as plugin:
        assert plugin.call("echo", b"first") == b"first"
        assert plugin.call("nothing", b"second") == b""


def test_output_part_of_input() -> None:
    """A part of the input can be the output."""
    inner = "(call $output_set (i64.add (call $input_offset) (i64.const 2)) (i64.const 3))"
    with Plugin(guest(export("inner", inner))) as plugin:
        assert plugin.call("inner", b"abcdefg") == b"cde"


def test_the_last_output_counts() -> None:
    with Plugin(guest(export("twice", "(call $give <<one>>) (call $give <<two>>)"))) as plugin:
        assert plugin.call("twice") == b"two"


def test_a_null_output_is_empty() -> None:
    with Plugin(
        guest(export("f", "(call $give <<one>>) (call $output_set (i64.const 0) (i64.const 0))"))
    ) as plugin:
        assert plugin.call("f") == b""


def test_memory_kept_between_calls(counter: Plugin) -> None:
    """The guest's memory is kept between calls."""
    assert [number(counter.call("count")) for _ in range(3)] == [1, 2, 3]


# What `parse` gets


def test_parse_gets_the_output_as_bytes(echo: Plugin) -> None:
    seen: list[Any] = []
    assert (
        echo.call("echo", b"abc", parse=lambda output: (seen.append(output), len(output))[1]) == 3
    )
    assert seen == [b"abc"]
    assert type(seen[0]) is bytes


@pytest.mark.parametrize(
    ("parse", "result"),
    [
        (bytearray, bytearray(b"[1, 2]")),
        (list, [91, 49, 44, 32, 50, 93]),
        (lambda view: str(view, "utf-8"), "[1, 2]"),
    ],
)
def test_parse_makes_the_result(echo: Plugin, parse: Any, result: Any) -> None:
    made = echo.call("echo", "[1, 2]", parse=parse)
    assert made == result
    assert type(made) is type(result)


def test_parse_can_be_given_by_position(echo: Plugin) -> None:
    assert echo.call("echo", b"abc", len) == 3


def test_parse_exception_reaches_caller(counter: Plugin) -> None:
    """An exception of `parse` reaches the caller, and the plugin stays usable."""
    counter.call("count")

    def parse(view: memoryview) -> None:
        raise LookupError("not what I wanted")

    with pytest.raises(LookupError, match="not what I wanted"):
        counter.call("count", parse=parse)
    assert number(counter.call("count")) == 3


def test_parse_cannot_call_plugin(echo: Plugin) -> None:
    """`parse` cannot call the plugin again."""
    with pytest.raises(BusyError):
        echo.call("echo", b"abc", parse=lambda view: echo.call("echo", b"other"))
    assert echo.call("echo", b"next") == b"next"


def test_view_is_read_only(echo: Plugin) -> None:
    """With `parse=None`, the result is a read-only view."""
    view = echo.call("echo", b"abc", parse=None)
    assert view == b"abc"
    with pytest.raises(TypeError):
        view[0] = 1


@pytest.mark.parametrize("end", ["call", "failed call", "reset", "close"])
def test_view_is_released_at_next_call(end: str) -> None:
    """A view is released by the next call, by reset and by close."""
    with Plugin(COUNTER) as plugin:
        view = plugin.call("count", parse=None)
        assert len(view) == 8
        if end == "call":
            plugin.call("count")
        elif end == "failed call":
            with pytest.raises(plugwasm.TrapError):
                plugin.call("trap")
        else:
            getattr(plugin, end)()
        with pytest.raises(ValueError, match="released"):
            view[0]


def test_view_copies_stay_valid() -> None:
    """Objects made from a view stay valid after further calls and close."""
    plugin = Plugin(ECHO)
    view = plugin.call("echo", b"abcd" * 1000, parse=None)
    part, words = view[4:8], view.cast("I")
    whole = memoryview(view)
    assert part == b"abcd"
    plugin.call("echo", b"y" * 300_000)
    plugin.close()
    del plugin
    gc.collect()
    assert len(part.tobytes()) == 4
    assert len(words) == 1000
    assert sum(words) >= 0
    assert len(whole.tobytes()) == 4000


def test_view_kept_does_not_stop_call(echo: Plugin) -> None:
    """An object that still uses the view does not prevent the next call."""
    view = echo.call("echo", b"abcd", parse=None)
    numbers = pickle.PickleBuffer(view)
    with pytest.raises(BufferError):
        view.release()
    assert echo.call("echo", b"next") == b"next"
    assert len(numbers.raw()) == 4


def test_view_as_next_input(echo: Plugin) -> None:
    """The view of one call can be the input of the next."""
    first = echo.call("echo", b"handed on", parse=None)
    assert echo.call("echo", first) == b"handed on"


def test_view_part_as_next_input(echo: Plugin) -> None:
    """A slice of a view can be the input of the next call."""
    first = echo.call("echo", b"0123456789" * 30_000, parse=None)
    assert echo.call("echo", first[5:250_005]) == b"5678901234" * 25_000


# What can be called


def test_function_exists(counter: Plugin) -> None:
    """`function_exists` tells which exports can be called."""
    callable_ = [
        name
        for name in (
            "count",
            "good",
            "takes",
            "gives_long",
            "gives_two",
            "gives_float",
            "marker",
            "none",
            "",
        )
        if True
    ]
    assert [name for name in callable_ if counter.function_exists(name)] == ["count", "good"]


def test_export_returns_nothing_or_code(counter: Plugin) -> None:
    """An export may return nothing or a code."""
    assert counter.call("good") == b""
    assert number(counter.call("count")) == 1


@pytest.mark.parametrize("name", ["takes", "gives_long", "gives_two", "gives_float"])
def test_export_of_other_type_is_refused(counter: Plugin, name: str) -> None:
    """An export of another type is refused, and the error names it and its type."""
    with pytest.raises(SignatureError) as caught:
        counter.call(name)
    item = next(item for item in counter.exports if item.name == name)
    assert name in str(caught.value)
    assert repr(item.type) in str(caught.value)
    assert "() -> (i32)" in str(caught.value)
    assert (caught.value.plugin, caught.value.function) == ("plugin", name)
    assert number(counter.call("count")) == 1


def test_unknown_function_suggestion(counter: Plugin) -> None:
    """The error for an unknown function suggests the closest name."""
    with pytest.raises(FunctionNotFoundError, match="did you mean `count`"):
        counter.call("cuont")
    with pytest.raises(FunctionNotFoundError, match=r"`count`.*`good`") as caught:
        counter.call("zzzzzz")
    assert (caught.value.plugin, caught.value.function) == ("plugin", "zzzzzz")
    assert number(counter.call("count")) == 1


@pytest.mark.parametrize("name", ["marker", "", "extism:host/env", "count\0", "ü"])
def test_unknown_name_is_not_found(counter: Plugin, name: str) -> None:
    """A name that is not an exported function is not found."""
    with pytest.raises(FunctionNotFoundError):
        counter.call(name)


def test_no_exports() -> None:
    """The error of a plugin without exports says that there are none."""
    with Plugin("(module)") as plugin, pytest.raises(FunctionNotFoundError, match="none"):
        plugin.call("f")


def test_export_with_odd_name() -> None:
    """Exports with unusual names can be called."""
    names = ["a b", "ünïcödé", "", "x" * 1000]
    with Plugin(guest("".join(export(name, "(call $echo)") for name in names))) as plugin:
        assert [plugin.call(name, name) for name in names] == [name.encode() for name in names]


# Host context


def test_host_context_during_call() -> None:
    """Host functions see the host context of their call only."""
    seen: list[Any] = []
    plugin = make_calling_plugin(lambda current, *_: seen.append(current.host_context()))
    context = {"request": 1}
    with plugin:
        plugin.call("run", host_context=context)
        plugin.call("run")
        plugin.call("run", b"", bytes, [1, 2])
    assert seen[0] is context
    assert seen[1:] == [None, [1, 2]]


@pytest.mark.parametrize("context", [0, "", False, [], {}], ids=repr)
def test_host_context_that_is_false(context: Any) -> None:
    """A host context that is false in a condition still reaches host functions."""
    seen: list[Any] = []
    with make_calling_plugin(lambda current, *_: seen.append(current.host_context())) as plugin:
        plugin.call("run", host_context=context)
        plugin.call("run")
    assert seen[0] is context
    assert seen[1] is None


def test_host_context_after_failure() -> None:
    """A failed call does not leave its host context behind."""
    seen: list[Any] = []

    def back(current: plugwasm.CurrentPlugin, *_: Any) -> None:
        seen.append(current.host_context())
        if seen[-1] == "fails":
            current.set_error("no")

    with make_calling_plugin(back) as plugin:
        with pytest.raises(plugwasm.GuestError):
            plugin.call("run", host_context="fails")
        with pytest.raises(LookupError):
            plugin.call("run", host_context="parse raises", parse=lambda view: {}["no"])
        plugin.call("run")
    assert seen == ["fails", "parse raises", None]


def test_no_room_for_input() -> None:
    """A call whose input does not fit leaves nothing behind."""
    seen: list[Any] = []
    source = guest(
        export("run", "(call $back)"),
        '(import "extism:host/user" "back" (func $back))',
        memory='(memory (export "memory") 1)',
    )
    back = Function(None, "back", [], [], lambda current, *_: seen.append(current.host_context()))
    with Plugin(
        manifest(source, memory={"max_pages": 5}, timeout_ms=150), functions=[back]
    ) as plugin:
        plugin.call("run")
        with pytest.raises(plugwasm.OutOfMemoryError):
            plugin.call("run", bytes(1_000_000), host_context="secret of another request")
        time.sleep(0.2)
        plugin.call("run")
    assert seen == [None, None]


# One call at a time


def test_second_thread_waits() -> None:
    """A second thread waits while a call runs."""
    entered, leave = threading.Event(), threading.Event()

    def back(*_: Any) -> None:
        entered.set()
        assert leave.wait(10)

    with make_calling_plugin(back) as plugin:
        first = InThread(plugin.call, "run", b"")
        assert entered.wait(10)
        second = InThread(plugin.call, "echo", b"second")
        with pytest.raises(BusyError):
            plugin.reset()
        leave.set()
        assert first.result() == b""
        assert second.result() == b"second"
        assert plugin.call("echo", b"third") == b"third"


def test_threads_are_never_mixed_up(echo: Plugin) -> None:
    """Threads that share a plugin each get the output of their own call."""
    served: list[int] = []
    wrong: list[Any] = []

    def work(number: int) -> None:
        data = bytes([number]) * 50_000
        for _ in range(150):
            try:
                if echo.call("echo", data) != data:
                    wrong.append(number)
                served.append(number)
            except BaseException as error:
                wrong.append(error)

    threads = [InThread(work, i) for i in range(6)]
    for thread in threads:
        thread.result()
    assert not wrong
    assert len(served) == 6 * 150
    assert echo.call("echo", b"after") == b"after"


def test_host_function_cannot_reenter() -> None:
    """A host function cannot call its own plugin."""
    caught: list[BaseException] = []

    def back(*_: Any) -> None:
        for attempt in (lambda: plugin.call("echo", b"inner"), plugin.reset):
            try:
                attempt()
            except BusyError as error:
                assert error.plugin == "plugin"
                assert attempt == plugin.reset or (
                    "another Plugin" in error.message and error.function == "echo"
                )
                caught.append(error)

    with make_calling_plugin(back) as plugin:
        assert plugin.call("run") == b""
        assert len(caught) == 2
        assert plugin.call("echo", b"after") == b"after"


def test_reentry_refusal_is_cause() -> None:
    """The error that refused the host function's call is the cause of the outer error."""
    with (
        make_calling_plugin(lambda *_: plugin.call("echo")) as plugin,
        pytest.raises(plugwasm.HostFunctionError) as caught,
    ):
        plugin.call("run")
    assert isinstance(caught.value.__cause__, BusyError)
    assert caught.value.function == "run"


def test_host_function_calls_other_plugin() -> None:
    """A host function can call another plugin."""
    with Plugin(ECHO) as other:
        seen: list[bytes] = []
        with make_calling_plugin(lambda *_: seen.append(other.call("echo", b"inner"))) as plugin:
            plugin.call("run")
            plugin.call("run")
    assert seen == [b"inner", b"inner"]


def test_nested_plugins() -> None:
    """Plugins can call plugins, and endless nesting ends with an error."""
    source = guest(export("run", "(call $back)"), '(import "extism:host/user" "back" (func $back))')
    depth = [0]

    def back(*_: Any) -> None:
        depth[0] += 1
        if depth[0] % 2 == limit:
            return
        with Plugin(compiled) as inner:
            inner.call("run")

    compiled = plugwasm.CompiledPlugin(source, functions=[Function(None, "back", [], [], back)])
    limit = 0
    with Plugin(compiled) as plugin:
        plugin.call("run")
        assert depth == [2]
        limit = 2
        with pytest.raises((plugwasm.HostFunctionError, RecursionError)):
            plugin.call("run")
        assert depth[0] > 10
        limit, depth[0] = 0, 1
        plugin.call("run")


def test_call_near_python_stack_end() -> None:
    """A call near the end of Python's stack works or raises an error."""
    source = guest(
        export("run", "(call $answer (call $add (i64.const 40) (i64.const 2)))")
        + export("echo", "(call $echo)")
        + export("grow", "(call $answer (call $alloc (i64.const 10000000)))"),
        '(import "extism:host/user" "add" (func $add (param i64 i64) (result i64)))',
        memory=MEMORY,
    )

    def add(a: int, b: int) -> int:
        return a + b

    def at(depth: int, function: str) -> bytes:
        if depth:
            return at(depth - 1, function)
        return plugin.call(function, b"12345678")

    functions = [plugwasm.host_fn()(add)]
    del plugwasm._host.registry.registered[-1:]
    compiled = plugwasm.CompiledPlugin(
        manifest(source, memory={"max_pages": 1000}), functions=functions
    )
    right, failed = 0, 0
    for function in ("run", "echo", "grow"):
        with Plugin(compiled) as plugin:
            start = sys.getrecursionlimit() - 20 - len(inspect.stack(0))
            for depth in range(start - 60, start + 20):
                try:
                    output = at(depth, function)
                except Exception:
                    failed += 1
                else:
                    assert output == b"12345678" or number(output) in (42, 544)
                    right += 1
                assert plugin.call("echo", b"after") == b"after"
    assert right > 30
    assert failed > 3


def test_compiled_plugin_shares_nothing() -> None:
    """Plugins of one compiled plugin share no writable state."""
    compiled = plugwasm.CompiledPlugin(COUNTER)
    with Plugin(compiled) as a, Plugin(compiled) as b:
        assert [number(plugin.call("count")) for plugin in (a, b, a, a, b)] == [1, 1, 2, 3, 2]


def test_compiled_plugin_in_many_threads() -> None:
    """Many threads can use one compiled plugin."""
    compiled = plugwasm.CompiledPlugin(COUNTER)

    def work() -> list[int]:
        answers = []
        for _ in range(20):
            with Plugin(compiled) as plugin:
                answers += [number(plugin.call("count")) for _ in range(3)]
        return answers

    threads = [InThread(work) for _ in range(4)]
    assert [thread.result() for thread in threads] == [[1, 2, 3] * 20] * 4


def test_plugin_moves_between_threads(counter: Plugin) -> None:
    """A plugin can be called from one thread after another."""
    assert number(InThread(counter.call, "count").result()) == 1
    assert number(InThread(counter.call, "count").result()) == 2
    assert number(counter.call("count")) == 3
