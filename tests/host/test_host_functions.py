"""Host functions: signatures, explicit or inferred, and the values that pass."""

from __future__ import annotations

import json
import math
import pickle
import struct
import threading
from typing import Annotated, Any

import pytest

import plugwasm
from plugwasm import (
    Codec,
    CompiledPlugin,
    CurrentPlugin,
    Function,
    HostFunctionError,
    Json,
    Pickle,
    Plugin,
    UnsafePickle,
    Val,
    ValType,
    host_fn,
)
from plugwasm._host.registry import registered
from tests.support.guests import export, guest, manifest, number
from tests.support.host_calls import BYTES_TO_BYTES, call, import_of
from tests.support.threads import InThread

pytestmark = pytest.mark.usefixtures("own_registry")


def cause(f: Any, data: bytes | str = b"", **options: Any) -> BaseException:
    with pytest.raises(HostFunctionError) as caught:
        call(f, data, **options)
    assert caught.value.__cause__ is not None
    return caught.value.__cause__


def kinds(f: Any) -> tuple[list[ValType], list[ValType]]:
    function = host_fn("f")(f)
    return function.args, function.returns


# Inferred: text and bytes


@pytest.mark.parametrize("text", ["", "a", "äöü 😀\0", "x" * 200_000], ids=len)
def test_text_comes_and_goes_as_text(text: str) -> None:
    seen: list[str] = []

    def f(value: str) -> str:
        seen.append(value)
        return value + "!"

    assert call(f, text) == f"{text}!".encode()
    assert seen == [text]


@pytest.mark.parametrize("data", [b"", b"\0", bytes(range(256)), b"\xff" * 300_000], ids=len)
def test_bytes_come_and_go_as_bytes(data: bytes) -> None:
    seen: list[bytes] = []

    def f(value: bytes) -> bytes:
        seen.append(value)
        return value

    assert call(f, data) == data
    assert seen == [data]
    assert type(seen[0]) is bytes


@pytest.mark.parametrize(
    "result",
    [bytearray(b"ab"), memoryview(b"ab"), memoryview(b"a.b.")[::2]],
    ids=["bytearray", "memoryview", "strided"],
)
def test_buffer_returned_for_bytes(result: Any) -> None:
    """Any buffer can be returned as bytes."""

    def f(value: bytes) -> bytes:
        return result  # type: ignore[no-any-return]

    assert call(f) == b"ab"


def test_null_handle_is_empty() -> None:
    """The null handle is empty text and empty bytes."""

    def f(value: str) -> str:
        assert value == ""
        return "was empty"

    def g(value: bytes) -> bytes:
        assert value == b""
        return b""

    assert call(f, export="null") == b"was empty"
    assert call(g, export="null") == b""


def test_text_not_utf8_is_error() -> None:
    """Text that is not UTF-8 is an error."""

    def f(value: str) -> str:
        return value

    assert isinstance(cause(f, b"\xff\xfe"), UnicodeDecodeError)


@pytest.mark.parametrize(
    "kind",
    [str, bytes, Annotated[Any, Json], Annotated[Any, Codec(bytes)]],
    ids=["str", "bytes", "Json", "Codec"],
)
def test_invalid_handle_is_error(kind: Any) -> None:
    """The error for an invalid handle names it."""

    def f(value: Any) -> str:
        raise AssertionError("it should not be called")

    f.__annotations__ = {"value": kind, "return": str}
    error = cause(f, export="bad")
    assert isinstance(error, plugwasm.BadHandleError)
    assert "12345" in str(error)


@pytest.mark.parametrize(
    ("annotation", "result"),
    [
        (str, b"bytes"),
        (str, None),
        (str, 5),
        (bytes, "text"),
        (bytes, None),
        (bytes, 5),
        (int, "5"),
        (int, 1.5),
        (int, None),
        (float, "1"),
        (float, None),
    ],
    ids=lambda value: getattr(value, "__name__", repr(value)),
)
def test_result_type_is_checked(annotation: type, result: Any) -> None:
    """A result of another type is an error."""

    def f(value: str) -> Any:
        return result

    f.__annotations__["return"] = annotation
    source = BYTES_TO_BYTES
    if annotation is float:
        source = guest(
            export("run", "(drop (call $f (i64.const 0)))"),
            import_of("f", "(param i64) (result f64)"),
        )
    assert isinstance(cause(f, source=source), (TypeError, struct.error))


def test_lone_surrogate_cannot_be_returned() -> None:
    """Text with a lone surrogate cannot be returned."""

    def f(value: str) -> str:
        return "\ud800"

    assert isinstance(cause(f), UnicodeEncodeError)


# Inferred: numbers

ADD = guest(
    export(
        "run",
        "(call $answer (call $f (call $input_load_u64 (i64.const 0)) (call $input_load_u64 (i64.const 8))))",
    ),
    import_of("f", "(param i64 i64) (result i64)"),
)
HALF = guest(
    export(
        "run",
        "(call $answer (i64.reinterpret_f64 (call $f (f64.reinterpret_i64 (call $input_load_u64 (i64.const 0))))))",
    ),
    import_of("f", "(param f64) (result f64)"),
)
NOT = guest(
    export(
        "run",
        "(call $answer (i64.extend_i32_s (call $f (i32.wrap_i64 (call $input_load_u64 (i64.const 0))))))",
    ),
    import_of("f", "(param i32) (result i32)"),
)


@pytest.mark.parametrize(
    ("a", "b"), [(1, 2), (-1, -2), (2**63 - 1, 0), (-(2**63), 0), (2**62, -(2**62)), (0, 0)]
)
def test_integers_are_signed_64_bit(a: int, b: int) -> None:
    def f(a: int, b: int) -> int:
        seen.append((a, b))
        return a + b

    seen: list[tuple[int, int]] = []
    assert number(call(f, struct.pack("<qq", a, b), source=ADD)) == a + b
    assert seen == [(a, b)]


@pytest.mark.parametrize(
    ("result", "fits"),
    [(2**63, True), (2**64 - 1, True), (2**64, False), (-(2**63) - 1, False), (10**30, False)],
)
def test_integer_result_range(result: int, fits: bool) -> None:
    """An integer result must fit into 64 bits, signed or unsigned."""

    def f(a: int, b: int) -> int:
        return result

    if fits:
        assert number(call(f, bytes(16), source=ADD)) == result - 2**64
    else:
        assert isinstance(cause(f, bytes(16), source=ADD), OverflowError)


@pytest.mark.parametrize(
    "value", [0.0, -0.0, 2.5, 1e308, 5e-324, math.inf, -math.inf, math.nan], ids=repr
)
def test_floats_are_64_bit(value: float) -> None:
    def f(x: float) -> float:
        seen.append(x)
        return x

    seen: list[float] = []
    assert call(f, struct.pack("<d", value), source=HALF) == struct.pack("<d", value)
    assert repr(seen) == repr([value])


def test_integer_returned_for_float() -> None:
    """An integer may be returned as a float."""

    def f(x: float) -> float:
        return 3

    assert struct.unpack("<d", call(f, bytes(8), source=HALF)) == (3.0,)


@pytest.mark.parametrize(("given", "seen"), [(0, False), (1, True), (-1, True), (1 << 40, False)])
def test_truth_is_32_bit(given: int, seen: bool) -> None:
    def f(x: bool) -> bool:
        assert x is seen
        return not x

    assert number(call(f, struct.pack("<q", given), source=NOT)) == int(not seen)


def test_truth_is_returned_as_1() -> None:
    """A true result is returned as 1."""

    def f(x: bool) -> bool:
        return ["anything"]  # type: ignore[return-value]

    assert number(call(f, bytes(8), source=NOT)) == 1


# Inferred: Json, Pickle, Codec


@pytest.mark.parametrize("marker", [Json, Json()], ids=["class", "instance"])
def test_json_travels_both_ways(marker: Any) -> None:
    def f(value: Any) -> Any:
        return {"got": value, "more": [1, None, "ä"]}

    f.__annotations__ = {"value": Annotated[dict, marker], "return": Annotated[dict, marker]}
    assert json.loads(call(f, b'{"a": [true]}')) == {"got": {"a": [True]}, "more": [1, None, "ä"]}


def test_invalid_json_is_error() -> None:
    """Invalid JSON is an error in both directions."""

    def takes(value: Annotated[Any, Json]) -> str:
        return ""

    def gives(value: str) -> Annotated[Any, Json]:
        return {1, 2}

    assert isinstance(cause(takes, b"{"), ValueError)
    assert isinstance(cause(takes, b""), ValueError)
    assert isinstance(cause(gives), TypeError)


class Point:
    def __init__(self, x: int) -> None:
        self.x = x


def test_a_pickle_can_be_returned() -> None:
    def f(value: str) -> Annotated[Point, Pickle]:
        return Point(7)

    assert pickle.loads(call(f)).x == 7


def test_pickle_parameter_is_refused() -> None:
    """A pickle cannot be a parameter, and the error says what to use."""

    def f(value: Annotated[Point, Pickle]) -> str:
        return ""

    with pytest.raises(TypeError, match=r"`f`.*`value`.*any code.*Json.*Codec.*UnsafePickle"):
        host_fn()(f)


class Evil:
    def __reduce__(self) -> Any:
        return print, ("evil ran",)


def test_unsafe_pickle_reads_pickle(capsys: pytest.CaptureFixture[str]) -> None:
    """Only `UnsafePickle` reads a guest's pickle."""

    def f(value: Annotated[Any, UnsafePickle]) -> Annotated[Any, UnsafePickle]:
        return value.x if isinstance(value, Point) else "not a point"

    assert pickle.loads(call(f, pickle.dumps(Point(8)))) == 8
    assert capsys.readouterr().out == ""
    call(f, pickle.dumps(Evil()))
    assert capsys.readouterr().out == "evil ran\n"
    for marker in (bytes, str, Annotated[Any, Codec(bytes)]):

        def g(value: Any) -> str:
            return "safe"

        g.__annotations__ = {"value": marker, "return": str}
        assert call(g, pickle.dumps(Evil(), 0)) == b"safe"
    assert capsys.readouterr().out == ""


def test_codec_for_parameter_and_result() -> None:
    """A codec decodes the parameter and encodes the result."""

    def f(
        value: Annotated[str, Codec(lambda data: data.decode("shift_jis"))],
    ) -> Annotated[int, Codec(lambda n: n.to_bytes(3, "big"))]:
        assert value == "あ"
        return 258

    assert call(f, "あ".encode("shift_jis")) == b"\0\1\2"


def fail_codec(data: Any) -> Any:
    raise LookupError("unknown")


def test_codec_error_is_cause() -> None:
    """An exception of a codec is the cause of the error."""

    def takes(value: Annotated[Any, Codec(fail_codec)]) -> str:
        return ""

    def gives(value: str) -> Annotated[Any, Codec(fail_codec)]:
        return 1

    def gives_no_bytes(value: str) -> Annotated[Any, Codec(str)]:
        return 1

    assert isinstance(cause(takes), LookupError)
    assert isinstance(cause(gives), LookupError)
    assert isinstance(cause(gives_no_bytes), TypeError)


# Inferred: signatures


def test_signature_from_annotations() -> None:
    """Signatures are inferred from annotations."""
    I32, I64, F64 = ValType.I32, ValType.I64, ValType.F64

    def nothing() -> None: ...

    def unannotated_result(a: str): ...  # type: ignore[no-untyped-def]

    def all_of_them(
        a: str, b: bytes, c: int, d: float, e: bool, f: Annotated[dict, Json]
    ) -> float: ...

    def with_plugin(plugin: CurrentPlugin, a: bool) -> bytes: ...  # type: ignore[empty-body]

    def several() -> tuple[int, str, float, bool, Annotated[list, Json]]: ...  # type: ignore[empty-body]

    def annotated_for_others(
        a: Annotated[int, "metres"], b: Annotated[str, "unused", Json]
    ) -> Annotated[float, "seconds"]:
        return 1.0

    assert kinds(nothing) == ([], [])
    assert kinds(unannotated_result) == ([I64], [])
    assert kinds(all_of_them) == ([I64, I64, I64, F64, I32, I64], [F64])
    assert kinds(with_plugin) == ([I32], [I64])
    assert kinds(several) == ([], [I64, I64, F64, I32, I64])
    assert kinds(annotated_for_others) == ([I64, I64], [F64])


def test_annotations_may_be_strings() -> None:
    namespace: dict[str, Any] = {"plugwasm": plugwasm, "Annotated": Annotated}
    exec(
        "from __future__ import annotations\n"
        "def f(p: plugwasm.CurrentPlugin, a: 'Annotated[dict, plugwasm.Json]') -> tuple[int, float]: ...",
        namespace,
    )
    assert kinds(namespace["f"]) == ([ValType.I64], [ValType.I64, ValType.F64])


@pytest.mark.parametrize(
    "annotation",
    [list, dict, complex, object, Any, str | None, Val, Annotated[dict, "json"]],
    ids=repr,
)
def test_unmappable_type_is_refused(annotation: Any) -> None:
    """A type without a Wasm type is refused, and the error lists types that have one."""

    def takes(value: Any) -> None: ...

    def gives() -> Any: ...

    takes.__annotations__["value"] = annotation
    gives.__annotations__["return"] = annotation
    for f in (takes, gives):
        with pytest.raises(
            TypeError, match=rf"`{f.__name__}`.*str, bytes, int, float, bool.*`signature`"
        ):
            host_fn()(f)
    assert registered == []


def test_missing_annotation_is_refused() -> None:
    """The error for a parameter without an annotation names it."""

    def f(a: str, b): ...  # type: ignore[no-untyped-def]

    with pytest.raises(TypeError, match=r"`f`.*`b`"):
        host_fn()(f)


def test_a_tuple_gives_several_results() -> None:
    source = guest(
        export(
            "run",
            """(call $f) (local.set $b) (local.set $d) (local.set $s) (local.set $i)
            (call $answer (i64.add (local.get $i) (i64.add (call $length (local.get $s))
              (i64.add (i64.trunc_f64_s (local.get $d)) (i64.extend_i32_s (local.get $b))))))""",
            "(local $i i64) (local $s i64) (local $d f64) (local $b i32)",
        ),
        import_of("f", "(result i64 i64 f64 i32)"),
    )

    def f() -> tuple[int, str, float, bool]:
        return -1000, "twenty characters ..", 300.7, True

    assert number(call(f, source=source)) == -1000 + 20 + 300 + 1


@pytest.mark.parametrize("result", [(1,), (1, 2, 3), 5, None], ids=repr)
def test_tuple_length_is_checked(result: Any) -> None:
    """A tuple of the wrong length is an error."""
    source = guest(export("run", "(call $f) drop drop"), import_of("f", "(result i64 i64)"))

    def f() -> tuple[int, int]:
        return result  # type: ignore[no-any-return]

    assert isinstance(cause(f, source=source), (ValueError, TypeError))


def test_current_plugin_parameter() -> None:
    """The first parameter can be the current plugin."""

    def f(plugin: CurrentPlugin, value: str) -> str:
        plugin.set_var("seen", value.encode())
        return f"{value} {plugin.host_context()}"

    with Plugin(BYTES_TO_BYTES, functions=[host_fn("f")(f)]) as plugin:
        assert plugin.call("run", "a", host_context="b") == b"a b"


def test_memory_view_can_be_returned() -> None:
    """A view of the plugin's memory can be returned."""

    def f(plugin: CurrentPlugin, value: int) -> bytes:
        return plugin.memory(plugin.memory_at_offset(value))  # type: ignore[return-value]

    assert call(f, b"the same again") == b"the same again"


# The decorator


def test_decorated_function_is_callable() -> None:
    """A decorated function can still be called in Python."""

    @host_fn()
    def double(x: int) -> int:
        """Twice as much."""
        return 2 * x

    assert isinstance(double, Function)
    assert double(4) == 8
    assert double(x=5) == 10
    assert (double.name, double.namespace) == ("double", None)
    assert (double.__name__, double.__doc__) == ("double", "Twice as much.")


def test_name_and_namespace() -> None:
    """Name and namespace can be set."""

    @host_fn(name="f", namespace="my space")
    def something(x: str) -> str:
        return f"{x}?"

    assert (something.name, something.namespace) == ("f", "my space")
    source = BYTES_TO_BYTES.replace('"extism:host/user" "f"', '"my space" "f"')
    assert call(something, "a", source=source) == b"a?"


def test_decorator_positional_arguments() -> None:
    """The decorator's arguments can be positional."""

    @host_fn("f", None, ([ValType.I64], [ValType.I64]), "extra")
    def something(plugin: CurrentPlugin, params: list[Val], results: list[Val], extra: str) -> None:
        plugin.return_string(results[0], f"{plugin.input_string(params[0])} {extra}")

    assert call(something, "a") == b"a extra"


def test_one_function_under_two_names() -> None:
    """One Python function can have two names."""

    def f(value: str) -> str:
        return value

    a, b = host_fn("a")(f), host_fn("f")(f)
    assert (a.name, b.name) == ("a", "f")
    stacked = host_fn("f")(host_fn("other")(f))
    assert (stacked.name, stacked("x")) == ("f", "x")
    assert call(stacked, "through") == b"through"


def test_methods_lambdas_and_callables() -> None:
    """Methods, lambdas and callable objects can be host functions."""

    class Greeter:
        def __init__(self, word: str) -> None:
            self.word = word

        def greet(self, who: str) -> str:
            return f"{self.word}, {who}"

        def __call__(self, plugin: CurrentPlugin, params: list[Val], results: list[Val]) -> None:
            plugin.return_string(results[0], self.word)

    assert call(host_fn("f")(Greeter("Hello").greet), "you") == b"Hello, you"
    assert call(Function(None, "f", [ValType.I64], [ValType.I64], Greeter("Bye"))) == b"Bye"


@pytest.mark.parametrize(
    ("user_data", "seen"),
    [
        (None, ()),
        ("text", ("text",)),
        (b"bytes", (b"bytes",)),
        ([1, 2], (1, 2)),
        ((3,), (3,)),
        ([], ()),
        (0, (0,)),
        ({"a": 1}, ({"a": 1},)),
    ],
    ids=repr,
)
def test_user_data_comes_after_the_rest(user_data: Any, seen: tuple[Any, ...]) -> None:
    def explicit(plugin: CurrentPlugin, params: list[Val], results: list[Val], *data: Any) -> None:
        assert data == seen

    def inferred(value: str, *data: Any) -> str:
        assert data == seen
        return "inferred"

    signature = ([ValType.I64], [ValType.I64])
    assert call(host_fn("f", signature=signature, user_data=user_data)(explicit)) == b""
    assert call(host_fn("f", user_data=user_data)(inferred)) == b"inferred"


def test_user_data_with_own_parameters() -> None:
    """Functions with user data can have other parameters."""

    def f(plugin: CurrentPlugin, value: str, first, second) -> str:  # type: ignore[no-untyped-def]
        return f"{value}{first}{second}"

    assert call(host_fn("f", user_data=["b", 3])(f), "a") == b"ab3"


def test_user_data_of_function_object() -> None:
    """The user data of a Function comes after the other arguments."""
    seen: list[Any] = []
    function = Function(
        None,
        "f",
        [ValType.I64],
        [ValType.I64],
        lambda plugin, params, results, *data: seen.extend(data),
        1,
        "two",
    )
    call(function)
    assert seen == [1, "two"]
    assert function.user_data == (1, "two")


# Threads and time


def test_exceptions_of_several_threads() -> None:
    """Each thread gets the exception of its own host function."""
    barrier = threading.Barrier(4)

    def f(value: str) -> str:
        barrier.wait(10)
        raise LookupError(value)

    compiled = plugwasm.CompiledPlugin(BYTES_TO_BYTES, functions=[host_fn("f")(f)])

    def work(name: str) -> list[str]:
        seen = []
        with Plugin(compiled) as plugin:
            for i in range(25):
                with pytest.raises(HostFunctionError) as caught:
                    plugin.call("run", f"{name} {i}")
                seen.append(str(caught.value.__cause__))
        return seen

    threads = {name: InThread(work, name) for name in "abcd"}
    for name, thread in threads.items():
        assert thread.result() == [f"{name} {i}" for i in range(25)]


def test_function_outlives_deadline() -> None:
    """A host function that outlives the deadline ends the call when it returns."""
    import time

    finished: list[bool] = []

    def f(value: str) -> str:
        time.sleep(0.15)
        finished.append(True)
        return "too late"

    with (
        Plugin(manifest(BYTES_TO_BYTES, timeout_ms=50), functions=[host_fn("f")(f)]) as plugin,
        pytest.raises(plugwasm.TimeoutError),
    ):
        plugin.call("run")
    assert finished == [True]


@pytest.mark.parametrize("way", ["alloc", "time_remaining", "give"])
def test_plugin_used_after_deadline(way: str) -> None:
    """A host function that uses the plugin after the deadline gets a timeout."""
    import time

    def f(plugin: CurrentPlugin, value: str) -> str:
        time.sleep(0.12)
        if way == "alloc":
            for _ in range(100):
                plugin.alloc(100_000)
        elif way == "time_remaining":
            plugin.time_remaining()
        return "too late" * 10_000

    with Plugin(manifest(BYTES_TO_BYTES, timeout_ms=50), functions=[host_fn("f")(f)]) as plugin:
        with pytest.raises(plugwasm.TimeoutError, match=r"`run`.*50 ms"):
            plugin.call("run")
        with pytest.raises(plugwasm.TimeoutError):
            plugin.call("run")


def test_fuel_ends_in_host_function() -> None:
    """Fuel that runs out during a host function is reported as such."""

    def f(plugin: CurrentPlugin, value: str) -> str:
        while True:
            plugin.free(plugin.alloc(10))

    with (
        Plugin(BYTES_TO_BYTES, functions=[host_fn("f")(f)], fuel_limit=10_000) as plugin,
        pytest.raises(plugwasm.OutOfFuelError),
    ):
        plugin.call("run")


def test_many_calls_keep_memory_flat() -> None:
    """Many calls of a host function in one call do not use up memory."""
    source = guest(
        export(
            "run",
            """(loop $next
                (local.set $block (call $f (i64.const 0)))
                (call $free (local.get $block))
                (local.set $i (i32.add (local.get $i) (i32.const 1)))
                (br_if $next (i32.lt_u (local.get $i) (i32.const 2000))))
            (call $answer (call $memory_bytes))""",
            "(local $i i32) (local $block i64)",
        ),
        import_of("f", "(param i64) (result i64)"),
    )

    def f(value: str) -> bytes:
        return bytes(10_000)

    assert number(call(f, source=source)) <= 3 * 65536


def test_decorator_without_parentheses() -> None:
    """The decorator works without parentheses."""

    @plugwasm.host_fn
    def double(n: int) -> int:
        return 2 * n

    assert isinstance(double, plugwasm.Function)
    assert repr(double) == "<host function extism:host/user.double>"
    assert double(4) == 8
    assert registered[-1] is double


def test_unresolvable_annotation() -> None:
    """The error for an annotation that cannot be resolved explains it."""
    with pytest.raises(
        TypeError, match=r"host function `find`: an annotation cannot be resolved.*'Nowhere'"
    ):

        @plugwasm.host_fn()
        def find(name: str) -> Nowhere:  # type: ignore[name-defined]
            ...


@pytest.mark.parametrize("functions", [[print], print, [lambda: None]])
def test_plain_function_is_refused(functions: Any) -> None:
    """The error for a plain function says how to make it a host function."""
    with pytest.raises(
        TypeError, match=r"is no host function: decorate it with `@plugwasm.host_fn\(\)`"
    ):
        CompiledPlugin("(module)", functions=functions)
