"""Host functions registered by `host_fn` are offered to all plugins created without `functions`,
and using one is logged."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import plugwasm
from plugwasm import (
    CompiledPlugin,
    IsolatedPlugin,
    MissingImportError,
    Plugin,
    PluginPool,
    PluginRef,
    PluginSet,
    host_fn,
    host_namespace,
)
from plugwasm._host import registry

ASKS = """(module (import "extism:host/user" "secret" (func $secret (result i64))) (func (export "go") (drop (call $secret))))"""
ASKS_NOTHING = """(module (func (export "go")))"""
LINKED = {
    "wasm": [
        {
            "name": "lib",
            "data": b'(module (import "extism:host/user" "secret" (func $s (result i64))) (func (export "f") (drop (call $s))))',
        },
        {
            "name": "main",
            "data": b'(module (import "lib" "f" (func $f)) (func (export "go") (call $f)))',
        },
    ]
}


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo what a test registers and what was logged."""
    monkeypatch.setattr(registry, "registered", [])
    monkeypatch.setattr("plugwasm._host.functions.registered", registry.registered)
    monkeypatch.setattr(registry, "_warned", set())


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], list[str]]]:
    with caplog.at_level(logging.WARNING, "plugwasm"):
        yield lambda: [
            record.getMessage() for record in caplog.records if record.name == "plugwasm.functions"
        ]


def register(**options: Any) -> Any:
    def secret() -> int:
        return 42

    return host_fn("secret", **options)(secret)


def make_set(source: Any, name: str, **options: Any) -> PluginSet:
    return PluginSet({name: source}, **options)


MAKERS: dict[str, Callable[..., Any]] = {
    "CompiledPlugin": lambda source, name, **options: Plugin(
        CompiledPlugin(source, name=name, **options)
    ),
    "Plugin": lambda source, name, **options: Plugin(source, name=name, **options),
    "IsolatedPlugin": lambda source, name, **options: IsolatedPlugin(source, name=name, **options),
    "PluginPool": lambda source, name, **options: PluginPool(source, name=name, **options),
    "PluginSet": make_set,
    "PluginSet, isolated": lambda source, name, **options: make_set(
        source, name, isolated=True, **options
    ),
}


@pytest.mark.parametrize("maker", MAKERS)
def test_ambient_import_is_logged_once(maker: str, warnings: Callable[[], list[str]]) -> None:
    """A plugin that imports a function that nobody passed to it is logged once."""
    register()
    for _ in range(2):
        MAKERS[maker](ASKS, "stranger").close()
    (message,) = warnings()
    assert message.startswith(
        "plugin stranger imports host functions that were not passed to it, but registered by host_fn"
    )
    assert "secret" in message
    assert "functions=[…]" in message
    assert "register=False" in message
    MAKERS[maker](ASKS, "another").close()
    assert len(warnings()) == 2


@pytest.mark.parametrize("maker", MAKERS)
def test_passed_function_is_not_logged(maker: str, warnings: Callable[[], list[str]]) -> None:
    """Functions that were passed, or are not imported, are not logged."""
    function = register()
    MAKERS[maker](ASKS, "given", functions=[function]).close()
    MAKERS[maker](ASKS_NOTHING, "modest").close()
    assert warnings() == []


def test_import_of_linked_module_is_logged(warnings: Callable[[], list[str]]) -> None:
    """An import of another module of the manifest is logged too."""
    register()
    Plugin(LINKED, name="two").close()
    assert len(warnings()) == 1


def test_module_in_its_place_is_not_logged(warnings: Callable[[], list[str]]) -> None:
    """An import that a module of the manifest satisfies is not logged."""
    register()
    own = {
        "name": "extism:host/user",
        "data": b'(module (func (export "secret") (result i64) (i64.const 1)))',
    }
    Plugin({"wasm": [own, {"name": "main", "data": ASKS.encode()}]}).close()
    assert warnings() == []


def test_compiled_plugin_logs_once(warnings: Callable[[], list[str]]) -> None:
    """Plugins of one compiled plugin do not log again."""
    register()
    compiled = CompiledPlugin(ASKS)
    for make in (Plugin, IsolatedPlugin, PluginPool, lambda plugin: PluginSet([plugin])):
        make(compiled).close()
    assert len(warnings()) == 1


def test_log_record_and_no_warning(
    recwarn: pytest.WarningsRecorder, warnings: Callable[[], list[str]]
) -> None:
    """The message is a log record, not a Python warning."""
    register()
    Plugin(ASKS).close()
    assert len(warnings()) == 1
    assert not recwarn.list


def test_remembered_names_are_bounded(
    monkeypatch: pytest.MonkeyPatch, warnings: Callable[[], list[str]]
) -> None:
    """The number of names remembered for this is bounded."""
    monkeypatch.setattr(registry, "MOST_WARNINGS", 3)
    register()
    for i in range(5):
        Plugin(ASKS, name=f"plugin {i}").close()
    assert len(warnings()) == 3


@pytest.mark.parametrize(
    "form",
    ["host_fn(name, register=False)", "host_fn(f, register=False)", "Function", "host_namespace"],
)
def test_unregistered_function_is_private(form: str, warnings: Callable[[], list[str]]) -> None:
    """A function that is not registered is available only to plugins that it is passed to."""

    class Desk:
        def secret(self) -> int:
            return 42

    def secret() -> int:
        return 42

    def by_hand(plugin: Any, inputs: Any, outputs: Any) -> None:
        outputs[0].value = 42

    functions = {
        "host_fn(name, register=False)": lambda: [register(register=False)],
        "host_fn(f, register=False)": lambda: [host_fn(secret, register=False)],
        "Function": lambda: [
            plugwasm.Function(None, "secret", [], [plugwasm.ValType.I64], by_hand)
        ],
        "host_namespace": lambda: host_namespace(Desk()),
    }[form]()
    with pytest.raises(MissingImportError):
        Plugin(ASKS)
    with Plugin(ASKS, functions=functions) as plugin:
        plugin.call("go")
    assert registry.registered == []
    assert warnings() == []


def test_ref_and_harness_have_no_ambient(warnings: Callable[[], list[str]]) -> None:
    """A PluginRef and a harness offer only functions that were passed."""
    register()
    with pytest.raises(MissingImportError):
        PluginRef(ASKS).plugin()
    with plugwasm.testing.Harness(ASKS) as harness, pytest.raises(plugwasm.Error):
        harness.plugin().call("go")
    assert warnings() == []
