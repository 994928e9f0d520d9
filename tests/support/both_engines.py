"""Plugins on the engine with a pool of instances and on the one without."""

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


def make_plugin(source: Any, pooled: bool = False, **options: Any) -> Plugin:
    """Make a plugin. With `pooled`, its instance comes from the pool, as from the fourth start
    on."""
    compiled = CompiledPlugin(source, **options)
    if pooled:
        for _ in range(4):
            with Plugin(compiled) as plugin:
                plugin.call("quick")
        assert compiled._pooled_plan is not None or not sys.platform.startswith("linux")
    return Plugin(compiled)


def u64_bytes(value: int) -> bytes:
    return (value & MASK).to_bytes(8, "little")
