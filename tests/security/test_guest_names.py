"""Function names chosen by a guest: how backtraces show them, and their cost."""

from __future__ import annotations

import subprocess
import sys

import pytest

import plugwasm
from plugwasm import Limits, Plugin, TrapError
from plugwasm._engine import strip_long_names, wat_to_wasm
from tests.support.paths import ROOT


def bomb(arguments: int, levels: int) -> str:
    """Return a mangled C++ name that stands for text of size `arguments` to the power of
    `levels`."""
    name = f"_Z1f1AI{'i' * arguments}E"
    for level in range(1, levels):
        reference = "S_" if level == 1 else f"S{'0123456789'[level - 2]}_"
        name += f"S_I{reference * arguments}E"
    return name


@pytest.mark.parametrize("way", ["trap", "timeout", "fuel", "exception"])
def test_demangling_bomb_is_shown_mangled(way: str) -> None:
    """A name that would demangle to gigabytes of text is shown as it is."""
    body = {"trap": "unreachable", "exception": "(throw $t)"}.get(way, "(loop $l (br $l))")
    script = f"""
import sys, time, plugwasm
source = '(module (tag $t) (func $"{bomb(16, 8)}" (export "f") {body}))'
limits = plugwasm.Limits(timeout=1.0)
before = time.process_time()
try:
    plugwasm.Plugin(source, limits=limits, fuel_limit={10**6 if way == "fuel" else None}).call("f")
except plugwasm.CallError as error:
    print(type(error).__name__, len(str(error)) < 2000, time.process_time() - before < 5)
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    kinds = {
        "trap": "TrapError",
        "timeout": "TimeoutError",
        "fuel": "OutOfFuelError",
        "exception": "CallError",
    }
    assert done.stdout.split() == [kinds[way], "True", "True"], done.stderr[-2000:]


def test_uncaught_error_hides_guest_names() -> None:
    """The error for an uncaught Wasm exception does not contain the guest's names."""
    text = '(module (tag $t) (func $"a\\0aCRITICAL root logged in\\1b[2J" (export "f") (throw $t)))'
    with Plugin(text) as plugin, pytest.raises(plugwasm.CallError) as caught:
        plugin.call("f")
    assert caught.value.message == "`f` of plugin `plugin` failed: thrown Wasm exception"
    assert all(line.isprintable() for line in str(caught.value).splitlines())


def test_usual_names_are_demangled() -> None:
    """Ordinary mangled names are demangled."""
    text = '(module (func $"_ZN3foo3barEi" (export "f") unreachable))'
    with Plugin(text) as plugin, pytest.raises(TrapError) as caught:
        plugin.call("f")
    assert "foo::bar(int)" in caught.value.backtrace[0]


@pytest.mark.parametrize(("length", "is_kept"), [(4096, True), (4097, False)])
def test_long_names_are_not_compiled(length: int, is_kept: bool) -> None:
    """Very long function names are removed before compilation."""
    wasm = wat_to_wasm(
        f'(module (func ${"x" * length} (export "f") unreachable) (func $short))'.encode()
    )
    assert (strip_long_names(wasm) == wasm) is is_kept
    assert strip_long_names(wasm[:40]) in (wasm[:40], wasm[:8])
    filler = "".join(
        f"(func (result i64) (i64.const {number * 2**40 + 1}))" for number in range(600)
    )
    heavy = wat_to_wasm(
        f'(module (func ${"x" * length} (export "f") unreachable) {filler})'.encode()
    )
    with Plugin(heavy) as plugin, pytest.raises(TrapError) as caught:
        plugin.call("f")
    assert ("xxxx" in caught.value.backtrace[0]) is is_kept


def test_unreadable_name_section() -> None:
    """A name section that cannot be read is left out."""
    wasm = wat_to_wasm(b"(module (func))")
    broken = b"\x00\x08\x04name\x01\xff\xff"
    assert strip_long_names(wasm + broken) == wasm
    other = b"\x00\x08\x04nome\x01\xff\xff"
    assert strip_long_names(wasm + other) == wasm + other


def test_plugin_usable_afterwards() -> None:
    """The plugin stays usable after each of these endings."""
    text = f'(module (func $"{bomb(16, 8)}" (export "f") unreachable) (func (export "ok")))'
    with Plugin(text, limits=Limits(timeout=5.0)) as plugin:
        for _ in range(3):
            with pytest.raises(TrapError):
                plugin.call("f")
            assert plugin.call("ok") == b""
