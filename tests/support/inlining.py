"""Plugins with the kernel's functions inlined, compared with the same plugins as they are."""

from __future__ import annotations

from typing import Any

import pytest

import plugwasm
from plugwasm import Plugin
from plugwasm._engine import ExportName
from plugwasm._runtime import modules

MEMORY, SECOND = ExportName("memory"), ExportName("second")


def plain_and_inlined(
    source: Any, monkeypatch: pytest.MonkeyPatch, **options: Any
) -> tuple[Plugin, Plugin]:
    """Two plugins of one source, of which the second has the kernel's functions inlined."""
    with monkeypatch.context() as patch:
        patch.setattr(modules, "_inlines", False)
        plain = Plugin(source, **options)
    inlined = Plugin(source, **options)
    assert not is_inlined(plain)
    assert is_inlined(inlined)
    return plain, inlined


def is_inlined(plugin: Plugin) -> bool:
    return plugin.compiled_plugin._plan.main.module.is_inlined


def outcome(plugin: Plugin, name: str, given: bytes = b"") -> tuple[object, ...]:
    """The result of a call or its error, and all memories after it."""
    try:
        result: object = plugin.call(name, given)
    except plugwasm.Error as error:
        return type(error), str(error), getattr(error, "backtrace", None)
    instance, guest = plugin._instance, plugin._guest
    assert instance is not None
    assert guest is not None
    guest.kernel.refresh()
    own = [instance.find_memory(name) for name in (MEMORY, SECOND)]
    return result, bytes(guest.kernel.heap), *(bytes(memory.view()) for memory in own if memory)
