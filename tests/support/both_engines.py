"""Plugins on the pooled engine and on the plain one."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from plugwasm import (
    CompiledPlugin,
    Plugin,
)

PAGE = 65536
MASK = 2**64 - 1
ENGINES = pytest.mark.parametrize("pooled", [False, True], ids=["own memory", "from the pool"])


def plugin_of(source: Any, pooled: bool = False, **options: Any) -> Plugin:
    """A plugin; `pooled` when its instance is to come from the pool, as they do from the fourth start on."""
    compiled = CompiledPlugin(source, **options)
    if pooled:
        for _ in range(4):
            with Plugin(compiled) as plugin:
                plugin.call("quick")
        assert compiled._pooled_plan is not None or not sys.platform.startswith("linux")
    return Plugin(compiled)


def word(value: int) -> bytes:
    return (value & MASK).to_bytes(8, "little")
