"""Programs written for the official Python SDK run with `import plugwasm as extism`. Each one
here runs on both if both are installed."""

from __future__ import annotations

import base64
import contextlib
import inspect
import json
import logging
import os
import pickle
import threading
import typing
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import plugwasm
from plugwasm._engine import wat_to_wasm
from plugwasm._host.registry import registered
from tests.support.guests import LOOP, export, guest, number
from tests.support.paths import EXAMPLES

try:
    import extism.extism as official
except ImportError:
    if os.environ.get("CI") == "true":
        raise
    official = None

needs_official = pytest.mark.skipif(
    official is None, reason="the official SDK is not installed (extra `bench`)"
)
# The official SDK has crashed the process that ran it, once in thousands of runs.
on_both = pytest.mark.parametrize(
    "extism",
    [plugwasm, pytest.param(official, marks=[needs_official, pytest.mark.own_process])],
    ids=["plugwasm", "official"],
)

WASM = (EXAMPLES / "count_vowels.wasm").read_bytes()


@pytest.fixture(autouse=True)
def _own_registries() -> Iterator[None]:
    """Undo the host functions and log handlers that a test registers."""
    before, handlers = list(registered), list(logging.getLogger("plugwasm").handlers)
    level = logging.getLogger("plugwasm").level
    yield
    registered[:] = before
    for handler in logging.getLogger("plugwasm").handlers:
        if handler not in handlers:
            handler.close()
    logging.getLogger("plugwasm").handlers[:] = handlers
    logging.getLogger("plugwasm").setLevel(level)


def wasm(body: str, *imports: str) -> bytes:
    return wat_to_wasm(guest(body, *imports).encode())


# Names and signatures

NAMES = [
    "CancelHandle", "Codec", "CompiledPlugin", "CurrentPlugin", "CustomLogger", "Error", "Function", "Json", "Memory", "Pickle", "Plugin",
    "Val", "ValType", "extism_version", "host_fn", "set_log_custom", "set_log_file",
]  # fmt: skip

CALLABLES = [
    "CompiledPlugin.__init__", "Plugin.__init__", "Plugin.call", "Plugin.function_exists", "Plugin.cancel_handle", "CancelHandle.cancel",
    "CurrentPlugin.memory", "CurrentPlugin.alloc", "CurrentPlugin.free", "CurrentPlugin.memory_at_offset", "CurrentPlugin.return_bytes",
    "CurrentPlugin.return_string", "CurrentPlugin.input_buffer", "CurrentPlugin.input_bytes", "CurrentPlugin.input_string",
    "CurrentPlugin.host_context", "CustomLogger.__init__", "CustomLogger.set_callback", "CustomLogger.drain", "Memory.__init__",
    "Val.__init__",
    "Codec.__init__", "Function.__init__", "host_fn", "set_log_file", "set_log_custom", "extism_version",
]  # fmt: skip


@needs_official
def test_public_names_exist() -> None:
    """Every public name of the official SDK exists here."""
    import extism

    assert set(extism.__all__) <= set(NAMES) <= set(plugwasm.__all__)


@needs_official
@pytest.mark.parametrize("name", NAMES)
def test_each_name_has_the_same_members(name: str) -> None:
    theirs, ours = getattr(official, name), getattr(plugwasm, name)
    assert inspect.isclass(theirs) is inspect.isclass(ours)
    if inspect.isclass(theirs):
        members = {member for member in vars(theirs) if not member.startswith("_")}
        assert not [member for member in members if not hasattr(ours, member)]


def parameters(function: Any) -> list[tuple[str, bool, bool]]:
    """Return each parameter's name, whether it is optional, and whether it takes the rest."""
    found = inspect.signature(function).parameters.values()
    return [
        (p.name, p.default is not p.empty, p.kind is p.VAR_POSITIONAL)
        for p in found
        if p.kind is not p.KEYWORD_ONLY
    ]


@needs_official
@pytest.mark.parametrize("path", CALLABLES)
def test_arguments_are_in_same_places(path: str) -> None:
    """Callables take the same arguments in the same positions."""
    theirs, ours = typing.cast(Any, official), typing.cast(Any, plugwasm)
    for part in path.split("."):
        theirs, ours = getattr(theirs, part), getattr(ours, part)
    for (their_name, optional, rest), (our_name, ours_optional, ours_rest) in zip(
        parameters(theirs), parameters(ours), strict=False
    ):
        assert (our_name, ours_rest) == (their_name, rest)
        assert ours_optional or not optional
    required = [
        p
        for p in inspect.signature(ours).parameters.values()
        if p.default is p.empty and p.kind is not p.VAR_POSITIONAL
    ]
    assert len(required) <= len(parameters(theirs))
    assert len(parameters(ours)) >= len(parameters(theirs))


@needs_official
def test_value_types_are_same() -> None:
    """The value types have the same names and numbers."""
    assert {name: item.value for name, item in plugwasm.ValType.__members__.items()} == {
        name: item.value for name, item in official.ValType.__members__.items()
    }


# Programs


@on_both
def test_first_documented_program(extism: Any) -> None:
    """The first program of the documentation runs."""
    with extism.Plugin({"wasm": [{"data": WASM}]}) as plugin:
        assert json.loads(plugin.call("count_vowels", "hello world"))["count"] == 3
        assert (
            plugin.call(
                "count_vowels",
                "hello world",
                parse=lambda output: json.loads(bytes(output).decode("utf-8")),
            )["total"]
            == 6
        )
        raw = plugin.call("count_vowels", b"hello world", parse=None)
        assert json.loads(bytes(raw))["total"] == 9
        assert len(raw) == len(bytes(raw))


@on_both
def test_manifest_module_path_and_config(extism: Any, tmp_path: Path) -> None:
    """A manifest as text, a module as bytes, a path and config are accepted."""
    text = json.dumps({"wasm": [{"data": base64.b64encode(WASM).decode()}]})
    (tmp_path / "manifest.json").write_text(text)
    for plugin_input in (
        text,
        WASM,
        str(EXAMPLES / "count_vowels.wasm"),
        str(tmp_path / "manifest.json"),
    ):
        with extism.Plugin(plugin_input, config={"vowels": "h"}) as plugin:
            assert json.loads(plugin.call("count_vowels", "hello"))["count"] == 1


@on_both
def test_none_for_config_and_value(extism: Any) -> None:
    """`None` is accepted as the config and as a config value."""
    with extism.Plugin(WASM, config=None) as plugin:
        assert json.loads(plugin.call("count_vowels", "hello"))["count"] == 2
    with extism.Plugin(
        {"wasm": [{"data": WASM}], "config": {"vowels": "l"}}, config={"vowels": None}
    ) as plugin:
        assert json.loads(plugin.call("count_vowels", "hello"))["count"] == 2


@on_both
def test_compiled_plugin_gives_plugins(extism: Any) -> None:
    """Plugins can be created from a compiled plugin."""
    compiled = extism.CompiledPlugin(WASM)
    with extism.Plugin(compiled) as a, extism.Plugin(compiled, config={"vowels": "h"}) as b:
        assert json.loads(a.call("count_vowels", "hello"))["count"] == 2
        assert json.loads(b.call("count_vowels", "hello"))["count"] == 1
        assert isinstance(a.id, uuid.UUID)
        assert a.id != b.id
        assert a.function_exists("count_vowels")
        assert not a.function_exists("something else")


HELLO = wasm(
    export("run", "(call $hello (call $copy))"),
    '(import "example" "hello" (func $hello (param i64)))',
)
ANSWERS = wat_to_wasm(
    guest(
        export("run", "(call $give (call $f (call $copy)))"),
        '(import "extism:host/user" "f" (func $f (param i64) (result i64)))',
    ).encode()
)


@on_both
@pytest.mark.parametrize(
    ("user_data", "seen"),
    [(None, ()), (b"mine", (b"mine",)), ([b"a", b"b"], (b"a", b"b"))],
    ids=repr,
)
def test_host_functions_with_user_data(extism: Any, user_data: Any, seen: Any) -> None:
    """Explicit host functions can have user data."""
    calls: list[Any] = []
    user_data = list(user_data) if isinstance(user_data, list) else user_data

    @extism.host_fn(
        name="hello", namespace="example", signature=([extism.ValType.PTR], []), user_data=user_data
    )
    def hello(plugin: Any, params: Any, results: Any, *user_data: bytes) -> None:
        memory = plugin.memory_at_offset(params[0])
        assert memory.offset == params[0].value
        calls.append(
            (
                plugin.input_string(params[0]),
                bytes(plugin.memory(memory)),
                len(memory),
                bytes(plugin.input_buffer(params[0])),
                user_data,
            )
        )

    with extism.Plugin(HELLO, functions=[hello]) as plugin:
        plugin.call("run", "Hi")
    assert calls == [("Hi", b"Hi", 2, b"Hi", seen)]


@on_both
def test_host_function_allocates_memory(extism: Any) -> None:
    """A host function can allocate memory and fill it."""

    @extism.host_fn(name="f", signature=([extism.ValType.I64], [extism.ValType.I64]))
    def f(plugin: Any, params: Any, results: Any) -> None:
        unused = plugin.alloc(100)
        plugin.free(unused)
        memory = plugin.alloc(5)
        plugin.memory(memory)[:] = b"12345"
        assert plugin.memory_at_offset(memory.offset).length == 5
        results[0].value = memory.offset

    with extism.Plugin(ANSWERS, functions=[f]) as plugin:
        assert plugin.call("run", "x") == b"12345"


@on_both
def test_inferred_host_functions(extism: Any) -> None:
    def text(a: str) -> str:
        return a + "!"

    def octets(a: bytes) -> bytes:
        return a * 2

    def with_plugin(plugin: extism.CurrentPlugin, a: str) -> str:
        return f"{a} {plugin.host_context()}"

    def documents(a: Any) -> Any:
        return {"got": a}

    def pickled(a: str) -> Any:
        return {"a": (1, a)}

    def coded(a: Any) -> Any:
        return a

    with_plugin.__annotations__["plugin"] = extism.CurrentPlugin
    documents.__annotations__ = dict.fromkeys(["a", "return"], typing.Annotated[dict, extism.Json])
    pickled.__annotations__ = {"a": str, "return": typing.Annotated[dict, extism.Pickle]}
    coded.__annotations__ = {
        "a": typing.Annotated[str, extism.Codec(lambda b: b.decode("latin-1"))],
        "return": typing.Annotated[str, extism.Codec(lambda s: s.encode("utf-16-le"))],
    }
    for f, data, output in (
        (text, b"a", b"a!"),
        (octets, b"\xff", b"\xff\xff"),
        (with_plugin, b"a", b"a the context"),
        (documents, b"[1]", b'{"got": [1]}'),
        (coded, b"\xe4", "ä".encode("utf-16-le")),
    ):
        with extism.Plugin(ANSWERS, functions=[extism.host_fn("f")(f)]) as plugin:
            assert plugin.call("run", data, host_context="the context") == output
    with extism.Plugin(ANSWERS, functions=[extism.host_fn(name="f")(pickled)]) as plugin:
        assert pickle.loads(plugin.call("run", "b")) == {"a": (1, "b")}


@on_both
def test_host_function_is_callable(extism: Any) -> None:
    """A host function can still be called in Python."""

    @extism.host_fn(signature=([extism.ValType.I64], []))
    def double(x: int) -> int:
        """Twice."""
        return 2 * x

    assert double(4) == 8
    assert (double.__name__, double.__doc__) == ("double", "Twice.")


@on_both
def test_registered_functions_and_empty_list(extism: Any) -> None:
    """All registered host functions are offered, and none with an empty list."""

    @extism.host_fn(name="f")
    def f(a: str) -> str:
        return "registered"

    with extism.Plugin(ANSWERS) as plugin:
        assert plugin.call("run", "x") == b"registered"
    for functions in ([], None):
        with pytest.raises(extism.Error), extism.Plugin(ANSWERS, functions=functions) as plugin:
            plugin.call("run", "x")


@on_both
def test_error_carries_guest_message(extism: Any) -> None:
    """Errors can be caught as `Error` and have the guest's message."""
    source = wasm(
        export("says", "(call $error_set <<what the guest said>>)")
        + '(func (export "code") (result i32) (i32.const 3))'
        + export("traps", "unreachable")
        + export("echo", "(call $echo)")
    )
    with extism.Plugin(source) as plugin:
        with pytest.raises(extism.Error, match="what the guest said"):
            plugin.call("says", "")
        for function in ("code", "traps", "does_not_exist"):
            with pytest.raises(extism.Error):
                plugin.call(function, "")
        assert plugin.call("echo", "after") == b"after"
    for wrong in (b"not a module at all", {"wasm": [{"path": "/does/not/exist.wasm"}]}):
        with pytest.raises(extism.Error):
            extism.Plugin(wrong)


@on_both
def test_timeout_and_cancel_are_errors(extism: Any) -> None:
    """A timeout and a cancellation raise errors."""
    source = wasm(export("spin", LOOP) + export("echo", "(call $echo)"))
    with extism.Plugin({"wasm": [{"data": source}], "timeout_ms": 100}) as plugin:
        with pytest.raises(extism.Error):
            plugin.call("spin", "")
        assert plugin.call("echo", "after") == b"after"
    with extism.Plugin(source) as plugin:
        handle = plugin.cancel_handle()
        timer = threading.Timer(0.1, handle.cancel)
        timer.start()
        with pytest.raises(extism.Error):
            plugin.call("spin", "")
        timer.join()


@on_both
def test_vars_and_wasi_argument(extism: Any, tmp_path: Path) -> None:
    """Vars are kept between calls, and `wasi` is an argument."""
    (tmp_path / "f").write_bytes(b"content")
    manifest = {
        "wasm": [{"path": str(EXAMPLES / "wasi_files.wasm")}],
        "allowed_paths": {str(tmp_path): "/data"},
    }
    with extism.Plugin(manifest, wasi=True) as plugin:
        assert plugin.call("cat", "/data/f") == b"content"
    source = wasm(
        export("set", "(call $var_set <<k>> <<v>>)")
        + export("get", "(call $give (call $var_get <<k>>))")
    )
    with extism.Plugin(source) as plugin:
        plugin.call("set", "")
        assert plugin.call("get", "") == b"v"


@on_both
def test_vals_and_memories(extism: Any) -> None:
    value = extism.Val(extism.ValType.I32, 5)
    assert (value.t, value.value, repr(value)) == (extism.ValType.I32, 5, "Val(ValType.I32, 5)")
    memory = extism.Memory(512, 7)
    assert (memory.offset, memory.length, len(memory)) == (512, 7, 7)
    assert isinstance(extism.extism_version(), str)


def test_log_functions(tmp_path: Path) -> None:
    """The log functions behave as in the official SDK."""
    lines: list[str] = []
    logger = plugwasm.set_log_custom(lines.append, "trace")
    plugwasm.set_log_file(str(tmp_path / "log"), "info")
    with plugwasm.Plugin(wasm(export("say", "(call $log_info <<from the plugin>>)"))) as plugin:
        plugin.call("say", "")
    logger.drain()
    assert any("from the plugin" in line for line in lines)
    assert "from the plugin" in (tmp_path / "log").read_text()


def test_official_bugs_are_not_copied() -> None:
    """Where the official SDK differs from its documentation, plugwasm follows the documentation."""

    def fails(a: str) -> str:
        raise LookupError("it was not swallowed")

    with (
        plugwasm.Plugin(ANSWERS, functions=[plugwasm.host_fn("f")(fails)]) as plugin,
        contextlib.suppress(plugwasm.HostFunctionError),
    ):
        plugin.call("run", "x")
        raise AssertionError("the exception was swallowed")

    def half(x: float) -> float:
        return x / 2

    source = wasm(
        export("run", "(call $answer (i64.trunc_f64_s (call $f (f64.const 84))))"),
        '(import "extism:host/user" "f" (func $f (param f64) (result f64)))',
    )
    with plugwasm.Plugin(source, functions=[plugwasm.host_fn("f")(half)]) as plugin:
        assert number(plugin.call("run")) == 42
