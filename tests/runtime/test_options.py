"""Mistaken options: unused options are refused, and the error for a wrong type says what to
write."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest

import plugwasm
from plugwasm import (
    CompiledPlugin,
    Egress,
    Function,
    IsolatedPlugin,
    Limits,
    OptionError,
    Plugin,
    PluginPool,
    PluginRef,
    PluginSet,
    ProcessLimits,
    ValType,
    codecs,
    host_fn,
)
from plugwasm.testing import Harness

ECHO = """(module
  (import "extism:host/env" "input_length" (func $length (result i64)))
  (import "extism:host/env" "input_offset" (func $offset (result i64)))
  (import "extism:host/env" "output_set" (func $output (param i64 i64)))
  (memory 1)
  (func (export "echo") (call $output (call $offset) (call $length)))
  (func (export "spin") (loop (br 0))))"""
ASKS = """(module (import "extism:host/user" "f" (func $f (result f64))) (func (export "go") (drop (call $f))))"""


@host_fn("f", register=False)
def f() -> float:
    return 1.0


@pytest.fixture(scope="module")
def compiled() -> CompiledPlugin:
    return CompiledPlugin(ECHO, name="compiled")


@pytest.fixture(scope="module")
def plugin(compiled: CompiledPlugin) -> Iterator[Plugin]:
    with Plugin(compiled) as plugin:
        yield plugin


# ---- options that nothing would use --------------------------------------------------------------

OF_THE_COMPILED: list[dict[str, Any]] = [
    {"limits": Limits(timeout=0.2)},
    {"egress": Egress(allowed_hosts=["example.com"])},
    {"fuel_limit": 1000},
    {"wasi": True},
    {"functions": [f]},
    {"functions": []},
    {"functions": None},
    {"name": "other"},
    {"http_response_headers": True},
]
MAKERS: dict[str, Callable[..., Any]] = {
    "Plugin": Plugin,
    "IsolatedPlugin": IsolatedPlugin,
    "PluginPool": PluginPool,
    "aio.load": lambda *args, **options: anyio.run(lambda: plugwasm.aio.load(*args, **options)),
}


@pytest.mark.parametrize(
    "options",
    OF_THE_COMPILED,
    ids=lambda options: "-".join(f"{k}={type(v).__name__}" for k, v in options.items()),
)
@pytest.mark.parametrize("maker", MAKERS)
def test_compiled_plugin_settings_are_refused(
    compiled: CompiledPlugin, maker: str, options: dict[str, Any]
) -> None:
    """Options that belong to the compiled plugin are refused."""
    (name,) = options
    with pytest.raises(
        OptionError,
        match=rf"^{name}: it would not be used here; plugin `compiled` is a CompiledPlugin.*CompiledPlugin\(",
    ) as told:
        MAKERS[maker](compiled, **options)
    assert told.value.field == name


@pytest.mark.parametrize("maker", MAKERS)
def test_empty_option_is_not_refused(compiled: CompiledPlugin, maker: str) -> None:
    """An option whose value is empty is not refused.

    A wrapper may pass on that its caller gave no name, limits or policy.
    """
    with MAKERS[maker](compiled, name=None, limits=None, egress=None) as made:
        assert made.call("echo", b"x") == b"x"


def test_refused_options_in_one_error(compiled: CompiledPlugin) -> None:
    """One error lists all refused options."""
    with pytest.raises(OptionError, match=r"^wasi, functions, limits: they would not be used here"):
        Plugin(compiled, True, functions=[], limits=Limits(timeout=1))


@pytest.mark.parametrize(
    "options",
    [*OF_THE_COMPILED[:-2], {"limits": Limits()}, {"config": {"a": "b"}}, {"observe": True}],
)
def test_pool_with_factory(options: dict[str, Any]) -> None:
    """A pool with a factory refuses options that the factory should set."""
    (name,) = options
    if name == "name":
        return
    with pytest.raises(
        OptionError, match=rf"^{name}: it would not be used here; plugins are made by the `factory`"
    ):
        PluginPool(factory=lambda: Plugin(ECHO), **options)


def test_pool_of_compiled_plugin(compiled: CompiledPlugin) -> None:
    """A pool of a compiled plugin applies config and observers.

    They belong to each plugin, not to the compiled plugin.
    """
    seen: list[str] = []

    class Sees(plugwasm.observing.Observer):
        def on_call(self, call: Any) -> None:
            seen.append(call.function)

    with PluginPool(compiled, config={"a": "b"}, observe=Sees()) as pool:
        pool.call("echo", b"x")
        with pool.plugin() as plugin:
            assert plugin.config == {"a": "b"}
    assert seen == ["echo"]


@pytest.mark.parametrize(
    "options",
    [
        {"limits": Limits()},
        {"egress": Egress()},
        {"wasi": True},
        {"functions": []},
        {"fuel_limit": 5},
        {"http_response_headers": True},
        {"observe": True},
        {"allowed_paths": ["/tmp"]},
    ],
    ids=lambda options: next(iter(options)),
)
def test_set_of_compiled_plugins(compiled: CompiledPlugin, options: dict[str, Any]) -> None:
    """A set of only compiled plugins refuses options that none of them uses."""
    (name,) = options
    for plugins in ([compiled], {"a": compiled}, iter([compiled])):
        with pytest.raises(
            OptionError,
            match=rf"^{name}: it would not be used here; all plugins of the set are CompiledPlugins",
        ):
            PluginSet(plugins, **options)
    with PluginSet([compiled, ECHO], **options) as both:  # for the other one
        assert len(both.hooks["echo"]) == 2


def test_ref_and_harness(compiled: CompiledPlugin) -> None:
    """A PluginRef and a harness accept no compiled plugin."""
    with pytest.raises(
        OptionError, match="a PluginRef is made of what a CompiledPlugin was made of"
    ):
        PluginRef(compiled, limits=Limits())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="give what the CompiledPlugin was made of"):
        Harness(compiled, limits=Limits())  # type: ignore[arg-type]


# ---- arguments that there are none of ------------------------------------------------------------

TAKE_LIMITS: list[Callable[..., Any]] = [
    Plugin,
    CompiledPlugin,
    IsolatedPlugin,
    PluginPool,
    PluginRef,
    Harness,
]


@pytest.mark.parametrize("owner", TAKE_LIMITS)
@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("timeout", "limits=Limits(timeout=…), in seconds, or `timeout_ms` in the manifest"),
        ("timeout_ms", "limits=Limits(timeout=…), in seconds"),
        ("memory_bytes", "limits=Limits(memory_bytes=…)"),
        ("max_pages", "limits=Limits(max_pages=…)"),
        ("fuel", "fuel_limit=…"),
        ("limit", "did you mean `limits`?"),
        ("private_addresses", "egress=Egress(private_addresses=…)"),
        ("quite_another", "known are plugin, "),
    ],
)
def test_unknown_argument_suggestion(owner: Any, name: str, instead: str) -> None:
    """The error for an unknown argument suggests what to write."""
    with pytest.raises(
        TypeError,
        match=re.escape(f"{owner.__name__}: there is no argument `{name}`; ")
        + ".*"
        + re.escape(instead),
    ):
        owner(ECHO, **{name: 1})


def test_unknown_argument_of_other_classes() -> None:
    """Unknown arguments of plugins, sets and limits get a suggestion."""
    cases: list[tuple[Callable[[], object], str]] = [
        (
            lambda: PluginSet([ECHO], timeout=1),
            "PluginSet: there is no argument `timeout`; write limits=Limits(timeout=…)",
        ),
        (lambda: PluginSet([ECHO], directory="x"), "did you mean `directories`?"),  # type: ignore[arg-type]
        (lambda: PluginSet([ECHO], cpu_seconds=1), "write isolated=ProcessLimits(cpu_seconds=…)"),  # type: ignore[arg-type]
        (lambda: IsolatedPlugin(ECHO, cpu_seconds=1), "write process=ProcessLimits(cpu_seconds=…)"),  # type: ignore[arg-type]
        (
            lambda: Plugin(ECHO, allowed_hosts=["x"]),
            "`allowed_hosts` in the manifest, or egress=Egress(allowed_hosts=[…])",
        ),
        (
            lambda: Limits(timeout_ms=1),
            "Limits: there is no argument `timeout_ms`; write timeout=…, in seconds",
        ),
        (lambda: Limits(fuel=1), "give `fuel_limit` to the plugin itself"),  # type: ignore[arg-type]
        (lambda: Limits(tmeout=1), "did you mean `timeout`?"),  # type: ignore[arg-type]
        (lambda: Limits(5), "Limits: its arguments are given by name, e.g. Limits(timeout=5)"),  # type: ignore[arg-type]
        (lambda: Limits().replace(tmeout=1), "did you mean `timeout`?"),
        (lambda: ProcessLimits(cpu_second=1), "did you mean `cpu_seconds`?"),  # type: ignore[arg-type]
    ]
    for make, words in cases:
        with pytest.raises(TypeError, match=re.escape(words)):
            make()


# ---- arguments of the wrong kind -----------------------------------------------------------------

WRONG: list[tuple[str, str, str]] = [
    # the argument, the call, what the message has
    ("name", "Plugin(ECHO, name=3)", "expected text, got int"),
    ("wasi", "Plugin(ECHO, wasi=1)", "expected True, False or WasiOptions, got 1"),
    ("wasi", "Plugin(ECHO, wasi=None)", "expected True, False or WasiOptions, got None"),
    ("wasi", "PluginSet([ECHO], wasi=1)", "expected True, False or WasiOptions"),
    ("wasi", "PluginRef(ECHO, wasi=1)", "expected True, False or WasiOptions"),
    ("wasi", "Harness(ECHO, wasi=1)", "expected True, False or WasiOptions"),
    (
        "http_response_headers",
        "Plugin(ECHO, http_response_headers='no')",
        "expected True or False, got str",
    ),
    (
        "http_response_headers",
        "PluginSet([ECHO], http_response_headers=1)",
        "expected True or False, got 1",
    ),
    ("http_response_headers", "PluginRef(ECHO, http_response_headers=1)", "expected True or False"),
    ("fuel_limit", "Plugin(ECHO, fuel_limit=True)", "an integer between 0 and"),
    ("fuel_limit", "Plugin(ECHO, fuel_limit=-1)", "an integer between 0 and"),
    ("fuel_limit", "PluginSet([ECHO], fuel_limit='3')", "an integer between 0 and"),
    ("fuel_limit", "PluginRef(ECHO, fuel_limit=-1)", "an integer between 0 and"),
    ("fuel_limit", "Harness(ECHO, fuel_limit='x')", "an integer between 0 and"),
    ("limits", "Plugin(ECHO, limits=5)", "write limits=Limits(timeout=…)"),
    ("limits", "Harness(ECHO, limits=5)", "write limits=Limits(timeout=…)"),
    ("egress", "Plugin(ECHO, egress=['example.com'])", "write egress=Egress(allowed_hosts=[…])"),
    (
        "functions",
        "Plugin(ECHO, functions={'f': f})",
        "expected a list of host functions, got dict; the name",
    ),
    ("functions", "Plugin(ECHO, functions='f')", "expected a list of host functions, got str"),
    ("functions", "Plugin(ECHO, functions=3)", "expected a list of host functions, got int"),
    (
        "functions",
        "PluginSet([ECHO], functions={'f': f})",
        "expected a list of host functions, got dict",
    ),
    ("functions", "Harness(ECHO, functions=3)", "expected a list of host functions, got int"),
    ("functions", "PluginRef(ECHO, functions=3)", "expected a list, got 3"),
    ("config", "Plugin(ECHO, config=[('a', 'b')])", "expected a mapping of text to text, got list"),
    ("config", "Plugin(ECHO, config={1: 'x'})", "keys must be text, but 1 is int"),
    ("config", "Plugin(ECHO, config={'x': 1})", "the value of `x` is int; JSON text can hold it"),
    ("config", "PluginPool(ECHO, config={'x': 1})", "the value of `x` is int"),
    ("config", "PluginSet([ECHO], config=3)", "expected mappings by the plugins' names, got 3"),
    ("config", "PluginSet([ECHO], config={3: {}})", "names of plugins"),
    ("config", "PluginRef(ECHO, config=[1])", "expected a mapping, got list"),
    ("config", "Harness(ECHO, config=3)", "expected a mapping of text to text, got 3"),
    (
        "config",
        "plugin.update_config([('a', 'b')])",
        "expected a mapping of text to text, got list",
    ),
    ("vars", "Plugin(ECHO, vars={'a': 'text'})", "`'a'` is str; write b\"…\", or .encode() it"),
    ("vars", "Plugin(ECHO, vars={1: b''})", "a name, is int"),
    ("vars", "Plugin(ECHO, vars=[1])", "expected a mapping of names to bytes, got list"),
    (
        "observe",
        "Plugin(ECHO, observe=3)",
        "expected True, an Observer, or a list of them, got int",
    ),
    (
        "observe",
        "PluginPool(compiled, observe=3)",
        "expected True, an Observer, or a list of them, got int",
    ),
    (
        "observe",
        "PluginRef(ECHO, observe=3)",
        "expected True, an Observer, or a list of them, got int",
    ),
    (
        "plugin",
        "CompiledPlugin(compiled)",
        "a plugin cannot be compiled from a CompiledPlugin; it is compiled already: make a Plugin",
    ),
    (
        "plugin",
        "Plugin(plugin)",
        "a plugin cannot be compiled from a Plugin; give its `compiled_plugin`",
    ),
    ("plugin", "Plugin(PluginRef(ECHO))", "write ref.plugin(), or ref.compiled()"),
    ("plugin", "IsolatedPlugin(plugin)", "give its `compiled_plugin`"),
    ("process", "IsolatedPlugin(ECHO, process=3)", "expected ProcessLimits, got int"),
    (
        "isolated",
        "PluginRef(ECHO).plugin(isolated=3)",
        "expected True, False or ProcessLimits, got 3",
    ),
    ("embed", "PluginRef(ECHO, embed=1)", "expected True or False, got 1"),
    ("function_name", "plugin.call(1)", "expected the name of an export, as text, got 1"),
    ("function_name", "plugin.call(b'echo')", "expected the name of an export, as text, got bytes"),
    ("function_name", "plugin.call(None)", "expected the name of an export, as text, got None"),
    ("name", "plugin.function_exists(1)", "expected the name of an export, as text, got 1"),
    (
        "parse",
        "plugin.call('echo', 'x', parse=3)",
        "expected a function of bytes, bytes itself, or None for a view, got 3",
    ),
    ("parse", "plugin.call('echo', 'x', 'str')", "write returns=… for a type"),
    (
        "returns",
        "plugin.call('echo', 'x', returns=None)",
        "write returns=type(None) for an output that is empty or null",
    ),
    (
        "returns",
        "Plugin(compiled, observe=True).call('echo', 'x', returns=None)",
        "write returns=type(None)",
    ),
    (
        "codec",
        "plugin.call('echo', 'x', codec='json')",
        "expected plugwasm.codecs.JSON, MSGPACK or RAW, or an object with",
    ),
    (
        "codec",
        "plugin.call('echo', 'x', codec=3)",
        "expected plugwasm.codecs.JSON, MSGPACK or RAW, or an object with",
    ),
    ("size", "PluginPool(ECHO, size=True)", "a number of plugins, at least 1, not True"),
    ("size", "PluginPool(ECHO, size='3')", "a number of plugins, at least 1, not '3'"),
    ("wait", "PluginPool(ECHO, wait=True)", "a number of seconds, or None for no limit, not True"),
    (
        "wait",
        "PluginPool(ECHO, wait=float('nan'))",
        "a number of seconds, or None for no limit, not nan",
    ),
    (
        "wait",
        "PluginPool(ECHO).call('echo', wait=-1)",
        "a number of seconds, or None for no limit, not -1",
    ),
    ("fresh", "PluginPool(ECHO, fresh=3)", "expected True or False, got 3"),
    ("factory", "PluginPool(factory=3)", "expected a function that makes a plugin, got 3"),
    (
        "inputs",
        "list(PluginPool(ECHO).map('echo', 'abc'))",
        "expected a list of inputs, got str; write [text] for one",
    ),
    ("inputs", "list(PluginPool(ECHO).map('echo', 3))", "expected a list of inputs, got 3"),
    (
        "workers",
        "list(PluginPool(ECHO).map('echo', ['x'], workers=True))",
        "a number, at least 1, not True",
    ),
    (
        "on_progress",
        "list(PluginPool(ECHO).map('echo', ['x'], on_progress=3))",
        "expected a function",
    ),
    ("plugins", "PluginSet('dir')", "expected a list, got str: write directories=[…]"),
    ("plugins", "PluginSet(Path('dir'))", "write directories=[…]"),
    ("plugins", "PluginSet(None)", "expected a list, got None"),
    ("plugins", "PluginSet(3)", "expected a list, got 3"),
    ("directories", "PluginSet(directories=3)", "expected a list, got 3: write a list of paths"),
    ("directories", "PluginSet(directories=[3])", "expected paths, but one is 3"),
    (
        "entry_points",
        "PluginSet(entry_points=True)",
        "expected the name of a group, such as 'plugwasm.plugins', got True",
    ),
    (
        "hooks",
        "PluginSet([ECHO], hooks='echo')",
        "expected a list, got str: write a list of names of exports",
    ),
    ("hooks", "PluginSet([ECHO], hooks=[3])", "expected names of exports, but one is 3"),
    ("order", "PluginSet([ECHO], order=[3])", "expected names of plugins, but one is 3"),
    (
        "disabled",
        "PluginSet([ECHO], disabled=3)",
        "expected a list, got 3: write a list of names of plugins",
    ),
    ("allowed_paths", "PluginSet([ECHO], allowed_paths=[3])", "expected paths, but one is 3"),
    ("fresh", "PluginSet([ECHO], fresh=3)", "expected True or False, got 3"),
    ("isolated", "PluginSet([ECHO], isolated=3)", "expected True, False or ProcessLimits, got int"),
    ("hook", "PluginSet([ECHO]).first(3)", "expected the name of an export, as text, got 3"),
    ("name", "PluginSet([ECHO]).call(3, 'echo')", "expected the name of a plugin, as text, got 3"),
    ("name", "PluginSet([ECHO]).enable(3)", "expected the name of a plugin, as text, got 3"),
    (
        "interval",
        "PluginSet([ECHO]).watch(interval='x')",
        "expected a number of seconds above 0, got str",
    ),
    (
        "interval",
        "PluginSet([ECHO]).watch(interval=-1)",
        "expected a number of seconds above 0, got -1",
    ),
    (
        "interval",
        "PluginSet([ECHO]).watch(interval=float('nan'))",
        "expected a number of seconds above 0, got nan",
    ),
    (
        "on_change",
        "PluginSet([ECHO]).watch(on_change=3)",
        "expected a function that takes the changes, got 3",
    ),
    (
        "Limits.memory_bytes",
        "Limits(memory_bytes=1000)",
        "1000 bytes are less than a page of memory, which has 65536",
    ),
    ("Limits.memory_bytes", "Limits(memory_bytes=True)", "expected a whole number"),
    ("Limits.timeout", "Limits(timeout=float('nan'))", "expected a number from 0.001 to"),
    ("Limits.timeout", "Limits(timeout=-1)", "expected a number from 0.001 to"),
    ("Limits.timeout", "Limits(timeout=True)", "expected a number from 0.001 to"),
    ("Limits.timeout", "Limits(timeout='1')", "expected a number from 0.001 to"),
    ("ProcessLimits.grace", "ProcessLimits(grace=float('nan'))", "expected a number from 0"),
    (
        "ProcessLimits.python",
        "ProcessLimits(python=3)",
        "expected the path of an interpreter, got 3",
    ),
    (
        "allowed_hosts",
        "Egress(allowed_hosts='example.com')",
        "expected a list of host names, got one string",
    ),
    (
        "allowed_hosts",
        "Harness(ECHO, allowed_hosts='example.com')",
        "expected a list, got str: write a list of host names",
    ),
    (
        "allowed_paths",
        "Harness(ECHO, allowed_paths=3)",
        "expected a mapping of directories to paths, got 3",
    ),
    ("schemes", "Egress(schemes='https')", "expected a list of http and https, got one string"),
    ("ports", "Egress(ports=443)", "expected a list of numbers and ranges, got int"),
    ("max_redirects", "Egress(max_redirects=True)", "expected a number of at least 0, got True"),
    (
        "private_addresses",
        "Egress(private_addresses='10.0.0.0/8')",
        "expected a list of networks, got one string",
    ),
    ("ca_file", "Egress(ca_file=3)", "expected the path of a file, got int"),
    ("FrozenClock", "plugwasm.FrozenClock(True)", "expected whole nanoseconds"),
    ("CoarseClock", "plugwasm.CoarseClock(True)", "expected a resolution"),
    ("host_fn", "host_fn(3)", "name: expected text, or the function itself, got 3"),
    ("host_fn", "host_fn()(3)", "expected a function to decorate, got 3"),
    ("host_fn", "host_fn(signature=3)", "signature: expected a pair of lists"),
    ("host_fn", "host_fn(signature=([],))", "signature: expected a pair of lists"),
    ("register", "host_fn(register=3)", "expected True or False, got 3"),
    (
        "host function",
        "Function(None, 3, [], [], print)",
        "its name is the text that plugins import it by, not 3",
    ),
    (
        "host function",
        "Function(3, 'f', [], [], print)",
        "its namespace is the text that plugins import it from, not 3",
    ),
    (
        "host function",
        "Function(None, 'f', 3, [], print)",
        "args: expected a list of types, such as [ValType.I64], got 3",
    ),
    ("host function", "Function(None, 'f', [], [], 3)", "expected a function to call, got 3"),
    ("set_log_file", "plugwasm.set_log_file(3)", 'expected a path, "stdout" or "stderr", got int'),
    (
        "set_log_custom",
        "plugwasm.set_log_custom(3)",
        "expected a function that takes a line, got int",
    ),
    ("cache.configure", "plugwasm.cache.configure(3)", "directory: expected a path, got int"),
    (
        "cache.configure",
        "plugwasm.cache.configure(max_bytes=-1)",
        "max_bytes: expected a number of bytes, got -1",
    ),
    (
        "cache.configure",
        "plugwasm.cache.configure(enabled='no')",
        "enabled: expected True or False, got 'no'",
    ),
    ("Recorder", "plugwasm.recording.Recorder(3)", "directory: expected a path, got int"),
    (
        "MapBatches",
        "plugwasm.MapBatches(PluginRef(ECHO), 3, column='x')",
        "function: expected the name of an export, got int",
    ),
    (
        "MapBatches",
        "plugwasm.MapBatches(PluginRef(ECHO), 'echo', column=3)",
        "column: expected a name or a list of names, got int",
    ),
    (
        "MapBatches",
        "plugwasm.MapBatches(PluginRef(ECHO), 'echo', column='x', output_bytes=-1)",
        "output_bytes: expected a number of bytes",
    ),
]


@pytest.mark.parametrize(("argument", "call", "words"), WRONG, ids=[call for _, call, _ in WRONG])
def test_wrong_argument_suggestion(
    compiled: CompiledPlugin, plugin: Plugin, argument: str, call: str, words: str
) -> None:
    """The error for a wrong argument names it and says what to write."""
    with pytest.raises(OptionError) as told:
        eval(call, globals() | {"compiled": compiled, "plugin": plugin})
    assert argument in told.value.message
    assert words in told.value.message
    assert plugin.call("echo", b"x") == b"x"


def test_single_host_function(tmp_path: Path) -> None:
    """A single host function is accepted wherever a list of them is."""
    for make in (Plugin, IsolatedPlugin, PluginPool):
        with make(ASKS, functions=f) as plugin:
            plugin.call("go")
    with PluginSet([ASKS], functions=f) as plugins:
        assert plugins.hooks == {"go": ("plugin-1",)}


def test_invalid_host_function() -> None:
    """The error for an object that is no host function says how to make it one."""
    for functions in ([print], print, [[f]]):
        for make in (Plugin, lambda plugin, functions: PluginSet([plugin], functions=functions)):
            with pytest.raises(
                TypeError, match=r"is no host function: decorate it with `@plugwasm\.host_fn\(\)`"
            ):
                make(ECHO, functions=functions)


def test_no_bytes_are_no_module() -> None:
    for empty in (b"", bytearray(), "", memoryview(b"")):
        with pytest.raises(plugwasm.Error):
            Plugin(empty)


# ---- what a host function returns ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("annotation", "value", "words"),
    [
        (float, "text", "it should return float, but returned str"),
        (float, None, "it should return float, but returned NoneType"),
        (int, "text", "it should return int, but returned str"),
        (int, 1.5, "it should return int, but returned float"),
        (str, 1, "it should return str, but returned int"),
        (bytes, 1, "it should return bytes, but returned int"),
        (tuple[int, int], (1,), "it should return a tuple of 2 values, but returned 1 values"),
        (tuple[int, int], 5, "it should return a tuple of 2 values, but returned int"),
    ],
)
def test_host_function_result_type(annotation: Any, value: Any, words: str) -> None:
    """The error for a host function's result of a wrong type names that type."""

    def wrong():  # type: ignore[no-untyped-def]
        return value

    wrong.__annotations__["return"] = annotation
    function = host_fn("f", register=False)(wrong)
    results = " ".join(kind.name.lower() for kind in function.returns)
    drops = "(drop)" * len(function.returns)
    source = f'(module (import "extism:host/user" "f" (func $f (result {results}))) (func (export "go") (call $f) {drops}))'
    with (
        Plugin(source, functions=[function]) as plugin,
        pytest.raises(plugwasm.HostFunctionError) as told,
    ):
        plugin.call("go")
    assert "the host function `f` raised TypeError" in told.value.message
    assert words in told.value.message


def test_value_set_to_other_type() -> None:
    """The error for setting a value to a wrong type names that type."""

    def wrong(plugin: Any, inputs: Any, outputs: Any) -> None:
        outputs[0].value = "text"

    function = Function(None, "f", [], [ValType.F64], wrong)
    with (
        Plugin(ASKS, functions=[function]) as plugin,
        pytest.raises(
            plugwasm.HostFunctionError, match="its result 0 should be a number for F64, but is str"
        ),
    ):
        plugin.call("go")


# ---- fuel, hooks, keys ---------------------------------------------------------------------------


@pytest.mark.parametrize("make", [Plugin, IsolatedPlugin])
def test_fuel_exhausted_names_limit(make: Any) -> None:
    """The error for exhausted fuel names the limit."""
    with (
        make(ECHO, fuel_limit=12_345) as plugin,
        pytest.raises(
            plugwasm.OutOfFuelError,
            match=r"used up its fuel, of which a call has 12345: `fuel_limit`",
        ),
    ):
        plugin.call("spin")


def test_unserved_hook_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """A hook that no plugin serves is logged once.

    It is no error, since the application does not decide which plugins are installed. If hooks are
    declared, other names are errors.
    """
    with PluginSet([ECHO]) as plugins, caplog.at_level(logging.WARNING, "plugwasm.plugins"):
        assert plugins.first("ecko", b"x") is None
        assert plugins.all("ecko", b"x") == []
        assert plugins.chain("ecko", b"x") == b"x"
        assert plugins.first("echo", b"x") == b"x"
    (record,) = caplog.records
    assert (
        "no plugin of the set serves the hook ecko: did you mean `echo`?; PluginSet(hooks=[…])"
        in record.getMessage()
    )
    caplog.clear()
    with PluginSet([ECHO], hooks=["echo", "later"]) as plugins:
        assert plugins.first("later") is None
        with pytest.raises(plugwasm.FunctionNotFoundError, match="did you mean `echo`"):
            plugins.first("ecko")
    with PluginSet() as none:
        assert none.first("anything") is None
    assert not caplog.records


@dataclass
class Team:
    name: str
    scores: dict[str, int]


@pytest.mark.parametrize("codec", [None, codecs.JSON, codecs.MSGPACK])
@pytest.mark.parametrize(
    ("value", "kind", "path"),
    [
        ({"a": 1, "b": "x", "c": 3}, dict[str, int], '$["b"]'),
        ({f"k{i}": i if i != 77 else "x" for i in range(200)}, dict[str, int], '$["k77"]'),
        ({"a": 1, "b": "x", "c": "y"}, dict[str, int], '$["b"]'),
        ({"a": {"b": 1}, "c": {"d": 1, "e": []}}, dict[str, dict[str, int]], '$["c"]["e"]'),
        ([{}, {"a.b[0]": None}], list[dict[str, int]], '$[1]["a.b[0]"]'),
        (
            {"red": {"name": "r", "scores": {"x": 1, "y": "2"}}},
            dict[str, Team],
            '$["red"].scores["y"]',
        ),
        ({"red": {"name": "r"}}, dict[str, Team], '$["red"]'),
        ([1, "x"], list[int], "$[1]"),
    ],
)
def test_output_type_error_names_key(
    plugin: Plugin, codec: Any, value: Any, kind: Any, path: str
) -> None:
    """The error for an output of the wrong type names the key."""
    data = (codec or codecs.JSON).encode(value)
    with pytest.raises(plugwasm.OutputError) as told:
        plugin.call("echo", data, returns=kind) if codec is None else plugin.call(
            "echo", value, returns=kind, codec=codec
        )
    assert told.value.path == path
    assert path == "$" or f"at `{path}`" in told.value.message


def test_output_too_long_names_no_key(plugin: Plugin) -> None:
    """In an output too long to search, the error names no key."""
    data = {f"key {i}": i for i in range(10_000)} | {"last": "x"}
    with pytest.raises(plugwasm.OutputError) as told:
        plugin.call("echo", data, returns=dict[str, int])
    assert told.value.path == "$[...]"


def test_repeated_options_are_accepted() -> None:
    """Options equal to those of the compiled plugin are accepted.

    Programs written for the official SDK pass them; it ignores them.
    """
    limits = Limits(timeout=5)
    compiled = CompiledPlugin(ECHO, wasi=True, name="echo", limits=limits, fuel_limit=10_000)
    with Plugin(compiled, wasi=True, name="echo", limits=limits, fuel_limit=10_000) as plugin:
        assert plugin.call("echo", "x") == b"x"
    for others in (
        {"wasi": False},
        {"name": "other"},
        {"limits": Limits(timeout=4)},
        {"fuel_limit": 9_999},
    ):
        with pytest.raises(OptionError):
            Plugin(compiled, **others)
