"""Plugins with debug information, and the errors of their calls."""

from __future__ import annotations

import pytest

import plugwasm
from tests.support.paths import ROOT

FAULTY = ROOT / "examples" / "faulty.wasm"
COUNT = """(func $count (param $n i32) (loop $next
    (br_if $next (local.tee $n (i32.sub (local.get $n) (i32.const 1))))))"""


def call_error(plugin: plugwasm.Plugin, function: str, data: str = "") -> plugwasm.CallError:
    with pytest.raises(plugwasm.CallError) as caught:
        plugin.call(function, data)
    return caught.value
