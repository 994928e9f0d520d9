"""Import namespaces: empty module names, and those of the contract before Extism 1.0."""

from __future__ import annotations

from typing import Any

import pytest

import plugwasm
from plugwasm import (
    Function,
    IsolatedPlugin,
    MissingImportError,
    Plugin,
    ValType,
    host_fn,
    recording,
)
from plugwasm.testing import Harness
from tests.support.guests import export, guest

pytestmark = pytest.mark.usefixtures("own_registry")


NAMELESS = guest(
    export("run", "(call $give (call $f (call $copy)))"),
    '(import "" "hello" (func $f (param i64) (result i64)))',
)
DEFAULT = guest(
    export("run", "(call $give (call $f (call $copy)))"),
    '(import "extism:host/user" "hello" (func $f (param i64) (result i64)))',
)
OLD = '(module (import "env" "extism_alloc" (func (param i64) (result i64))) (func (export "run") (result i32) (i32.const 0)))'


def hello(name: str) -> str:
    return f"hello, {name}"


class Greeter:
    def hello(self, name: str) -> str:
        return f"hello, {name}"


MAKERS: dict[str, Any] = {
    "host_fn": lambda namespace: [host_fn("hello", namespace=namespace)(hello)],
    "a signature": lambda namespace: [
        host_fn("hello", namespace, signature=([ValType.I64], [ValType.I64]))(
            lambda p, i, o: setattr(o[0], "value", i[0].value)
        )
    ],
    "Function": lambda namespace: [
        Function(
            namespace,
            "hello",
            [ValType.I64],
            [ValType.I64],
            lambda p, i, o: setattr(o[0], "value", i[0].value),
        )
    ],
    "host_namespace": lambda namespace: plugwasm.host_namespace(Greeter(), namespace),
}


@pytest.mark.parametrize("kind", [Plugin, IsolatedPlugin])
@pytest.mark.parametrize("maker", MAKERS)
def test_empty_name_is_a_namespace(maker: str, kind: Any) -> None:
    """The empty name is a namespace of its own."""
    with kind(NAMELESS, functions=MAKERS[maker]("")) as plugin:
        assert plugin.call("run", "Ada").endswith(b"Ada")
    with kind(DEFAULT, functions=MAKERS[maker](None)) as plugin:
        assert plugin.call("run", "Ada").endswith(b"Ada")
    with pytest.raises(MissingImportError, match=r"extism:host/user\.hello"):
        kind(DEFAULT, functions=MAKERS[maker](""))
    with pytest.raises(MissingImportError, match=r"imports `\.hello`"):
        kind(NAMELESS, functions=MAKERS[maker](None))


def test_one_name_in_two_namespaces() -> None:
    """Functions with one name in two namespaces are different functions."""
    both = guest(
        export("run", "(call $give (call $f (call $g (call $copy))))"),
        '(import "" "hello" (func $f (param i64) (result i64))) (import "extism:host/user" "hello" (func $g (param i64) (result i64)))',
    )
    functions = [host_fn("hello", "")(lambda_of("first")), host_fn("hello")(lambda_of("second"))]
    with Plugin(both, functions=functions) as plugin:
        assert plugin.call("run", "x") == b"first second x"
    assert [repr(function) for function in functions] == [
        "<host function .hello>",
        "<host function extism:host/user.hello>",
    ]


def lambda_of(word: str) -> Any:
    def f(text: str) -> str:
        return f"{word} {text}"

    return f


def test_function_with_empty_name() -> None:
    """A function's name may be empty too."""
    nameless = guest(
        export("run", "(call $give (call $f (call $copy)))"),
        '(import "env" "" (func $f (param i64) (result i64)))',
    )
    with Plugin(nameless, functions=[host_fn("", "env")(hello)]) as plugin:
        assert plugin.call("run", "Ada") == b"hello, Ada"

    class Nameless:
        @plugwasm.export("")
        def hello(self, name: str) -> str:
            return f"hello, {name}"

    with Plugin(nameless, functions=plugwasm.host_namespace(Nameless(), "env")) as plugin:
        assert plugin.call("run", "Ada") == b"hello, Ada"


def test_harness_fakes_empty_namespace() -> None:
    """A harness fakes imports from the empty namespace."""
    harness = Harness(NAMELESS)
    fake = harness.host("hello", str, returns="faked", namespace="")
    with harness.plugin() as plugin:
        assert plugin.call("run", "Ada") == b"faked"
    assert fake.calls[0].args == ("Ada",)
    with pytest.raises(plugwasm.LinkError, match="no host function `goodbye` from ``"):
        harness.host("goodbye", namespace="")


def test_harness_runs_real_function() -> None:
    """A harness runs the real function of the empty namespace."""
    with Harness(NAMELESS, functions=[host_fn("hello", "")(hello)]).plugin() as plugin:
        assert plugin.call("run", "Ada") == b"hello, Ada"


def test_recording_of_empty_namespace(tmp_path: Any) -> None:
    """Calls of functions in the empty namespace are recorded and replayed."""
    recorder = recording.Recorder()
    with Plugin(NAMELESS, functions=[host_fn("hello", "")(hello)], observe=recorder) as plugin:
        plugin.call("run", "Ada")
    path = tmp_path / "calls.json"
    recorder.recording.save(path)
    loaded = recording.load(path)
    assert loaded.calls[0].host_calls[0].namespace == ""
    assert len(loaded.replay(NAMELESS).calls) == 1


@pytest.mark.parametrize("kind", [Plugin, IsolatedPlugin])
def test_plugin_before_1_0_is_detected(kind: Any) -> None:
    """A plugin from before 1.0 is distinguished from one with missing functions."""
    with pytest.raises(
        MissingImportError,
        match=r"env\.extism_alloc.*before Extism 1\.0.*build it again with a current kit",
    ):
        kind(OLD)


def test_application_provides_old_functions() -> None:
    """An application may provide the functions from before 1.0 itself."""
    function = Function("env", "extism_alloc", [ValType.I64], [ValType.I64], lambda p, i, o: None)
    with Plugin(OLD, functions=[function]) as plugin:
        assert plugin.call("run") == b""


def test_other_import_from_env() -> None:
    """Another import from `env` is the application's to provide."""
    other = '(module (import "env" "greet" (func)))'
    with pytest.raises(MissingImportError, match="pass a host function"):
        Plugin(other)
