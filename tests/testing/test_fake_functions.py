"""The harness's fakes of host functions."""

from __future__ import annotations

import time
from typing import Annotated, Any

import pytest

import plugwasm
from plugwasm.testing import Harness, UnexpectedHostCallError
from tests.support.guests import export, guest, manifest, number
from tests.support.harness_guests import ASK, ASKS, REMEMBERS, URL, USER
from tests.support.paths import EXAMPLES


def test_fake_returns_and_keeps_arguments() -> None:
    """A fake returns the configured result and keeps its arguments."""
    with Harness(EXAMPLES / "host_functions.wasm") as harness:
        fake = harness.host("greet", str, returns="Welcome")
        harness.host("add", int, int, returns=lambda a, b: a - b)
        harness.host("scale", returns=0.5)
        plugin = harness.plugin()
        assert plugin.call("greet", "Ada") == b"Welcome"
        assert plugin.call("sum", "64 -2") == b"66"
        assert plugin.call("scale", "2.5") == b"0.5"
        assert [(call.name, call.args, call.result) for call in harness.host_calls] == [
            ("greet", ("Ada",), "Welcome"),
            ("add", (64, -2), 66),
            ("scale", (2.5,), 0.5),
        ]
        assert fake.called
        assert fake.calls == harness.host_calls[:1]
        fake.returns = "Again"
        assert plugin.call("greet", "Ada") == b"Again"
        harness.host("greet", returns="Another")
        assert plugin.call("greet", "Eve") == b"Another"
        assert harness.host_calls[-1].args == (b"Eve",)


@pytest.mark.parametrize(
    ("returns", "output"),
    [
        ("text", b"text"),
        (b"\0", b"\0"),
        (bytearray(b"ab"), b"ab"),
        ({"a": [1]}, b'{"a":[1]}'),
        ([1], b"[1]"),
        (None, b""),
        ("", b""),
    ],
)
def test_fake_result_is_in_memory(returns: Any, output: bytes) -> None:
    """A fake's result is written to the plugin's memory."""
    with Harness(ASKS) as harness:
        harness.host("ask", returns=returns)
        assert harness.plugin().call("ask") == output


@pytest.mark.parametrize(
    ("kind", "arg"),
    [
        (str, "[1]"),
        (bytes, b"[1]"),
        (list, [1]),
        (list[int], [1]),
        (list[str], b"[1]"),
        (None, b"[1]"),
    ],
)
def test_fake_argument_type(kind: Any, arg: object) -> None:
    """A fake's argument has the declared type."""
    asks = guest(
        export("ask", "(drop (call $ask <<[1]>>))")
        + export("null", "(drop (call $ask (i64.const 0)))"),
        ASK,
    )
    with Harness(asks) as harness:
        harness.host("ask", *([kind] if kind else []))
        harness.plugin().call("ask")
        assert harness.host_calls[0].args == (arg,)
        harness.plugin().call("null")
        assert harness.host_calls[1].args == (kind() if kind else 0,)
        harness.host("ask", int)
        harness.plugin().call("ask")
        (handle,) = harness.host_calls[2].args
        assert type(handle) is int
        assert handle > 0


def test_fake_numbers_of_every_type() -> None:
    """Numbers of every type pass in both directions."""
    kinds = {"i32": -(2**31), "i64": -(2**63), "f32": 0.5, "f64": -1e300}
    imports = [USER.format(name=f"f_{t}", type=f"(param {t}) (result {t})") for t in kinds]
    constant = {
        "i32": "i32.const -2147483648",
        "i64": "i64.const -9223372036854775808",
        "f32": "f32.const 0.5",
        "f64": "f64.const -1e300",
    }
    body = "".join(
        export(
            t,
            f"(if (i32.eqz ({t}.eq (call $f_{t} ({constant[t]})) ({constant[t]}))) (then unreachable))",
        )
        for t in kinds
    )
    with Harness(guest(body, *imports)) as harness:
        for t, value in kinds.items():
            fake = harness.host(f"f_{t}", returns=value)
            harness.plugin().call(t)
            assert fake.calls[0].args == (value,)
            assert type(fake.calls[0].args[0]) is type(value)


def test_fake_with_several_results() -> None:
    """A fake can have several results if the function does."""
    pair = USER.format(name="pair", type="(result i64 i32)")
    adds = guest(
        export(
            "add",
            "(local $b i32) (call $pair) (local.set $b) (i64.extend_i32_s (local.get $b)) i64.add (call $answer)",
        ),
        pair,
    )
    with Harness(adds) as harness:
        harness.host("pair", returns=(40, 2))
        assert number(harness.plugin().call("add")) == 42
        harness.host("pair", returns=(40, 2, 0))
        with pytest.raises(plugwasm.HostFunctionError, match="`pair` raised ValueError"):
            harness.plugin().call("add")


@pytest.mark.parametrize(
    ("returns", "error"),
    [
        (2**64, OverflowError),
        (-(2**63) - 1, OverflowError),
        (object(), TypeError),
        (1.5j, TypeError),
        (lambda: 1, TypeError),
    ],
)
def test_fake_result_of_wrong_type(returns: Any, error: type[Exception]) -> None:
    """A fake whose result cannot be passed fails the call."""
    with Harness(ASKS) as harness:
        harness.host("ask", returns=returns)
        with pytest.raises(
            plugwasm.HostFunctionError, match=f"host function `ask` raised {error.__name__}"
        ) as raised:
            harness.plugin().call("ask")
        assert isinstance(raised.value.__cause__, error)


def test_a_fake_raises_what_it_is_told() -> None:
    with Harness(ASKS) as harness:
        harness.host("ask", str, raises=PermissionError("not you"))
        with pytest.raises(plugwasm.HostFunctionError, match="PermissionError: not you") as raised:
            harness.plugin().call("ask")
        assert isinstance(raised.value.__cause__, PermissionError)
        assert harness.host_calls[0].error is raised.value.__cause__


def test_fake_outlives_deadline() -> None:
    """A fake that outlives the deadline ends the call."""
    asks = guest(export("ask", "(drop (call $ask (i64.const 0)))"), ASK)
    with Harness(asks, limits=plugwasm.Limits(timeout=0.05)) as harness:
        harness.host("ask", returns=lambda _: time.sleep(0.2))
        with pytest.raises(plugwasm.TimeoutError):
            harness.plugin().call("ask")


def test_unexpected_function_fails_test() -> None:
    """A call of a host function that the test does not expect fails the test."""
    with Harness(ASKS, name="my") as harness:
        assert harness.plugin().call("echo", "fine") == b"fine"
        with pytest.raises(UnexpectedHostCallError) as raised:
            harness.plugin().call("ask")
        assert raised.value.message == (
            "`ask` of plugin `my`: the test does not expect the host function `ask` to be called, but it was, with (b'what')\n"
            "to answer it: harness.host('ask', returns=…)"
        )
        assert isinstance(raised.value, AssertionError)
        assert isinstance(raised.value, plugwasm.HostFunctionError)


def test_fake_all_missing_functions() -> None:
    """All missing host functions can be faked at once."""
    with Harness(ASKS, fake_missing=True) as harness:
        assert harness.plugin().call("ask") == b""
        assert harness.host_calls[0].args == (b"what",)


def test_spy_on_application_function() -> None:
    """The application's functions can be called and observed."""

    @plugwasm.host_fn(name="greet")
    def greet(plugin: plugwasm.CurrentPlugin, who: str) -> str:
        return f"{plugin.config['greeting']} {who}"

    @plugwasm.host_fn(name="add", signature=([plugwasm.ValType.I64] * 2, [plugwasm.ValType.I64]))
    def add(
        plugin: plugwasm.CurrentPlugin, params: list[plugwasm.Val], results: list[plugwasm.Val]
    ) -> None:
        results[0].value = params[0].value + params[1].value

    with Harness(
        EXAMPLES / "host_functions.wasm", functions=[greet, add], config={"greeting": "Hi"}
    ) as harness:
        plugin = harness.plugin()
        assert plugin.call("greet", "Ada") == b"Hi Ada"
        assert plugin.call("sum", "40 2") == b"42"
        assert [(call.name, call.args, call.result) for call in harness.host_calls] == [
            ("greet", ("Ada",), "Hi Ada"),
            ("add", (40, 2), 42),
        ]
        with pytest.raises(UnexpectedHostCallError):
            plugin.call("scale", "1")
        harness.host("add", returns=7)
        assert plugin.call("sum", "40 2") == b"7"
    assert (
        plugwasm.Plugin(
            EXAMPLES / "host_functions.wasm",
            functions=[greet, add, scale()],
            config={"greeting": "Yo"},
        ).call("sum", "1 2")
        == b"3"
    )


def scale() -> plugwasm.Function:
    return plugwasm.Function(
        None,
        "scale",
        [plugwasm.ValType.F64],
        [plugwasm.ValType.F64],
        lambda plugin, params, results: None,
    )


def test_spy_keeps_exception() -> None:
    """An exception of the application's function is kept."""

    def ask(what: Annotated[list[int], plugwasm.Json]) -> bytes:
        raise KeyError(what)

    with Harness(ASKS, functions=[plugwasm.host_fn(name="ask")(ask)]) as harness:
        with pytest.raises(plugwasm.HostFunctionError):
            harness.plugin().call("ask")
        (call,) = harness.host_calls
        assert call.args == (b"what",)  # which is no JSON
        assert isinstance(call.error, ValueError)


def test_spy_of_other_type_is_link_error() -> None:
    """An application's function with another type is a link error."""
    with (
        Harness(ASKS, functions=[plugwasm.host_fn(name="ask")(lambda: None)]) as harness,
        pytest.raises(plugwasm.LinkError, match="what is offered"),
    ):
        harness.plugin()


def test_only_imports_can_be_faked() -> None:
    """Only functions that the plugin imports can be faked."""
    with Harness(EXAMPLES / "host_functions.wasm") as harness:
        with pytest.raises(
            plugwasm.LinkError, match="imports no host function `great`: did you mean `greet`"
        ):
            harness.host("great")
        with pytest.raises(
            plugwasm.LinkError,
            match="imports no host function `config_get`: it imports `add`, `greet`, `scale`",
        ):
            harness.host("config_get")
        with pytest.raises(plugwasm.LinkError, match="`greet` from `elsewhere`"):
            harness.host("greet", namespace="elsewhere")
        with pytest.raises(
            plugwasm.LinkError, match="`add` of plugin `host_functions` has 2 parameters, not 1"
        ):
            harness.host("add", int)


def test_namespace_tells_functions_apart() -> None:
    """The namespace distinguishes two functions with one name."""
    asks = guest(
        export("ask", "(call $give (call $ask (call $other (i64.const 0))))"),
        ASK,
        ASK.replace("extism:host/user", "app").replace("$ask", "$other"),
    )
    with Harness(asks) as harness:
        with pytest.raises(plugwasm.LinkError, match="say which, with `namespace`"):
            harness.host("ask")
        harness.host("ask", namespace="app", returns="from app")
        harness.host(
            "ask", str, namespace="extism:host/user", returns=lambda what: f"{what} to user"
        )
        assert harness.plugin().call("ask") == b"from app to user"


def test_module_imports_are_not_faked() -> None:
    """Imports between modules are not faked."""
    provider = '(module (func (export "seven") (result i64) (i64.const 7)))'
    user = guest(
        export("get", "(call $answer (call $seven))"),
        '(import "provider" "seven" (func $seven (result i64)))',
    )
    with Harness(manifest(("provider", provider), ("main", user))) as harness:
        assert number(harness.plugin().call("get")) == 7
        assert not harness.host_calls


def test_non_function_import_stays_missing() -> None:
    """An import that is not a function is still missing."""
    with (
        Harness('(module (import "app" "memory" (memory 1)))', fake_missing=True) as harness,
        pytest.raises(plugwasm.MissingImportError),
    ):
        harness.plugin()


def test_everything_expected_is_used() -> None:
    """Every expectation must have been used."""
    with Harness(ASKS) as harness:
        harness.assert_all_called()
        harness.host("ask")
        harness.http.get(URL)
        with pytest.raises(
            AssertionError,
            match=rf"^plugin `plugin` was expected to use, and did not:\n  GET {URL}\n  host function `ask`$",
        ):
            harness.assert_all_called()
        harness.plugin().call("ask")
        with pytest.raises(AssertionError, match=f"did not:\n  GET {URL}$"):
            harness.assert_all_called()


def test_harness_links_for_itself() -> None:
    """A harness refuses a compiled plugin, since it links the plugin itself."""
    with pytest.raises(TypeError, match="it links the plugin itself"):
        Harness(plugwasm.CompiledPlugin(REMEMBERS))  # type: ignore[arg-type]
