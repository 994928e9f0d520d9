"""The host functions that a plugin gets: those passed to it, or all registered ones."""

from __future__ import annotations

from typing import Any

import pytest

import plugwasm
from plugwasm import (
    Function,
    Plugin,
    host_fn,
)
from plugwasm._host.registry import registered
from tests.support.host_calls import BYTES_TO_BYTES

pytestmark = pytest.mark.usefixtures("own_registry")


def test_default_is_all_registered() -> None:
    """Without `functions`, a plugin gets all registered functions."""

    @host_fn()
    def f(value: str) -> str:
        return "registered"

    with Plugin(BYTES_TO_BYTES) as plugin:
        assert plugin.call("run") == b"registered"
        assert plugin.compiled_plugin.functions == (f,)


def test_registry_is_read_at_compile() -> None:
    """The registry is read when the plugin is compiled."""
    with pytest.raises(plugwasm.MissingImportError):
        Plugin(BYTES_TO_BYTES)

    @host_fn()
    def f(value: str) -> str:
        return "late"

    with Plugin(BYTES_TO_BYTES) as plugin:
        assert plugin.call("run") == b"late"


@pytest.mark.parametrize("functions", [[], None, ()], ids=repr)
def test_empty_list_means_none(functions: Any) -> None:
    """An empty list means no functions, whatever is registered."""

    @host_fn()
    def f(value: str) -> str:
        return "registered"

    with pytest.raises(plugwasm.MissingImportError, match=r"extism:host/user\.f"):
        Plugin(BYTES_TO_BYTES, functions=functions)
    with pytest.raises(plugwasm.MissingImportError):
        plugwasm.CompiledPlugin(BYTES_TO_BYTES, functions=functions)


def test_any_iterable_replaces_registry() -> None:
    """Functions can be any iterable and replace the registered ones."""

    @host_fn()
    def f(value: str) -> str:
        return "registered"

    def own(value: str) -> str:
        return "own"

    function = host_fn("f")(own)
    registered.remove(function)
    with Plugin(BYTES_TO_BYTES, functions=iter([function])) as plugin:
        assert plugin.call("run") == b"own"


def test_compiled_plugin_functions() -> None:
    """A plugin of a compiled plugin has its functions."""

    def f(value: str) -> str:
        return "compiled"

    compiled = plugwasm.CompiledPlugin(BYTES_TO_BYTES, functions=[host_fn("f")(f)])
    with pytest.raises(plugwasm.OptionError, match=r"^functions: it would not be used here"):
        Plugin(compiled, functions=[])
    with Plugin(compiled) as plugin:
        assert plugin.call("run") == b"compiled"


def test_unimported_functions_are_ignored() -> None:
    """Functions that no plugin imports are harmless."""

    def f(value: str) -> str:
        return "used"

    unused = [Function(None, f"unused {i}", [], [], print) for i in range(50)]
    with Plugin(BYTES_TO_BYTES, functions=[*unused, host_fn("f")(f)]) as plugin:
        assert plugin.call("run") == b"used"
