"""Modules with many data segments or much initial data are compiled with memory images
(`docs/decisions.md`, 38)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import plugwasm
from plugwasm import CompiledPlugin, IsolatedPlugin, Limits, Plugin, PluginSet, cache
from plugwasm._engine import Engine, benefits_from_images, wat_to_wasm
from plugwasm._engine.wasm_binary import MANY_SEGMENTS, MUCH_DATA
from plugwasm._runtime import modules
from plugwasm.testing import Harness
from tests.support.guests import export, guest, manifest, number
from tests.support.wasm_binary import leb128

CODE = export("f", "(call $answer (i64.load (i32.const 2400)))") + export(
    "set", "(i64.store (i32.const 2400) (i64.const 7))"
)


def section(number: int, content: bytes) -> bytes:
    return bytes([number]) + leb128(len(content)) + content


def signed_leb128(value: int) -> bytes:
    out = b""
    while not -64 <= value < 64:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value & 127])


def segments(count: int, content: bytes = b"abcdefgh", step: int = 24) -> bytes:
    """Return a data section: so many segments with that content, one every `step` bytes."""
    return section(
        11,
        leb128(count)
        + b"".join(
            b"\0\x41" + signed_leb128(i * step) + b"\x0b" + leb128(len(content)) + content
            for i in range(count)
        ),
    )


def plugin_with_data(data: bytes, pages: int = 20) -> bytes:
    return wat_to_wasm(guest(CODE, memory=f'(memory (export "memory") {pages})').encode()) + data


MANY = plugin_with_data(segments(500))
FEW = plugin_with_data(segments(100, step=25))
MUCH = plugin_with_data(segments(2, bytes(2400) + b"abcdefgh" + bytes(140_000), step=500_000))


def engine_of(compiled: CompiledPlugin) -> Engine:
    return compiled._plan.engine


@pytest.mark.parametrize(
    ("wasm", "images"),
    [(MANY, True), (FEW, False), (MUCH, True)],
    ids=["many segments", "few segments", "much data"],
)
def test_initial_data_with_images(wasm: bytes, images: bool) -> None:
    """A module with much initial data gets images, and the data is the same."""
    compiled = CompiledPlugin(wasm)
    assert engine_of(compiled).images is images
    for start in range(6):
        with Plugin(compiled) as plugin:
            assert plugin.call("f") == b"abcdefgh"
            plugin.call("set")
            assert number(plugin.call("f")) == 7
        if start > 3 and modules.can_pool():
            assert compiled._pooled_plan is not None
            assert compiled._pooled_plan.engine.images is images


def test_modules_share_engine() -> None:
    """All modules of a plugin are in one engine."""
    lib = wat_to_wasm(
        b'(module (memory (export "m") 1) (func (export "one") (result i64) (i64.load (i32.const 24))))'
    ) + segments(200)
    main = guest(
        export("f", "(call $answer (call $one))"), '(import "lib" "one" (func $one (result i64)))'
    )
    compiled = CompiledPlugin(
        {"wasm": [{"name": "lib", "data": lib}, {"name": "main", "data": main.encode()}]}
    )
    assert engine_of(compiled).images
    assert {unit.module.engine for unit in compiled._plan.units} == {compiled._plan.kernel.engine}
    with Plugin(compiled) as plugin:
        assert plugin.call("f") == b"abcdefgh"


def test_many_segments_with_default_limits() -> None:
    """A module with 45,000 segments loads within the default limits.

    Standard Go produces such modules. Without images, one takes 20 s of CPU time and 1.25 GB; here
    a hundredth of both is enough.
    """
    wasm = plugin_with_data(segments(45_000, step=27))
    limits = Limits(compile_bytes=2**28)
    with Plugin(wasm, limits=limits) as plugin:
        assert engine_of(plugin.compiled_plugin).images
        assert number(plugin.call("f")) != 0
        assert plugin.compiled_plugin._plan.state_bytes < 2**20
        assert plugin.compiled_plugin._plan.resident_bytes < 2**24


@pytest.mark.parametrize("fuel", [None, 10**6])
@pytest.mark.parametrize("stack", [None, 2**20])
def test_images_with_other_settings(fuel: int | None, stack: int | None) -> None:
    """Images can be combined with all other engine settings."""
    limits = None if stack is None else Limits(stack_bytes=stack)
    with Plugin(MANY, fuel_limit=fuel, limits=limits) as plugin:
        assert engine_of(plugin.compiled_plugin).images
        assert plugin.call("f") == b"abcdefgh"


def test_images_in_every_kind_of_plugin(tmp_path: Path) -> None:
    """Modules with images run in every kind of plugin."""
    with IsolatedPlugin(MANY) as isolated:
        assert isolated.call("f") == b"abcdefgh"
        isolated.call("set")
        isolated.reset()
        assert isolated.call("f") == b"abcdefgh"
    with Harness(MANY) as harness:
        assert harness.plugin().call("f") == b"abcdefgh"
    (tmp_path / "main.wasm").write_bytes(MANY)
    with PluginSet({"main": tmp_path / "main.wasm"}) as plugins:
        assert plugins.call("main", "f") == b"abcdefgh"


def test_wat_source_gets_images() -> None:
    text = guest(
        "".join(f'(data (i32.const {24 * i}) "abcdefgh")' for i in range(101)) + CODE,
        memory='(memory (export "memory") 1)',
    )
    compiled = CompiledPlugin(manifest(text))
    assert engine_of(compiled).images
    assert Plugin(compiled).call("f") == b"abcdefgh"


def test_cache_keeps_kinds_apart(tmp_path: Path) -> None:
    """The cache keeps code with images and code without apart."""
    code = f"""
import sys
sys.path[:0] = {sys.path!r}
from plugwasm import CompiledPlugin, Plugin, cache; from plugwasm._runtime import modules as _code
cache.configure(directory={str(tmp_path / "cache")!r})
wasm = open({str(tmp_path / "m.wasm")!r}, "rb").read()
print(Plugin(wasm).call("f"), len(_code.compile_module(wasm, _code.get_engine(pooled=False)).exports))
import plugwasm._runtime.modules as c
c.compile_within = None
print(Plugin(wasm).call("f"))
"""
    (tmp_path / "m.wasm").write_bytes(MANY)
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert found.stdout.split() == ["b'abcdefgh'", "3", "b'abcdefgh'"]
    assert len(list((tmp_path / "cache").rglob("*-*"))) >= 3  # the module twice, and the kernel


def test_the_settings_are_in_the_key() -> None:
    keys = {
        Engine(images=images, gc=gc, atomics=atomics).key
        for images in (False, True)
        for gc in (False, True)
        for atomics in (False, True)
    }
    assert len(keys) == 8


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_forked_child_maps_images() -> None:
    code = f"""
import os, sys
sys.path[:0] = {sys.path!r}
from tests.security.test_images import MANY, segments, plugin_with_data
from plugwasm import CompiledPlugin, Plugin
old = CompiledPlugin(MANY)
for _ in range(6):
    Plugin(old).call("set")
pid = os.fork()
if not pid:
    assert Plugin(old).call("f") == b"abcdefgh"
    new = CompiledPlugin(plugin_with_data(segments(501, b"hgfedcba")))
    assert [Plugin(new).call("f") for _ in range(6)] == [b"hgfedcba"] * 6
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
assert Plugin(old).call("f") == b"abcdefgh"
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=120)


def test_mappings_of_instance() -> None:
    """An instance with images has only a few more mappings than others."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("the mappings of the process are read from /proc")
    compiled = CompiledPlugin(MANY, limits=Limits(stack_bytes=2**20))  # never of the pool
    plugins = [Plugin(compiled) for _ in range(5)]
    for plugin in plugins:
        plugin.call("f")
    before = len(maps.read_text().splitlines())
    more = [Plugin(compiled) for _ in range(100)]
    for plugin in more:
        plugin.call("f")
    assert len(maps.read_text().splitlines()) - before <= 100 * 9


# ---- what is hostile -----------------------------------------------------------------------------


@pytest.mark.parametrize("where", range(9, 60, 3))
def test_truncated_module(where: int) -> None:
    """Looking at a truncated module is harmless."""
    benefits_from_images(MANY[:where])
    broken = MANY[:where] + MANY[-400:]
    benefits_from_images(broken)
    with pytest.raises(plugwasm.Error):
        CompiledPlugin(broken)


@given(st.binary(max_size=400))
def test_random_bytes(junk: bytes) -> None:
    """Looking at arbitrary bytes is harmless."""
    assert benefits_from_images(b"\0asm\1\0\0\0" + junk) in (True, False)
    assert benefits_from_images(b"\0asm\1\0\0\0" + bytes(MANY_SEGMENTS) + junk) in (True, False)
    assert benefits_from_images(junk) in (True, False)


@pytest.mark.parametrize("claim", [b"\xff\xff\xff\xff\x0f", b"\xff" * 2**16])
def test_claimed_count_is_refused(claim: bytes) -> None:
    """A segment count larger than the section is refused."""
    with pytest.raises(plugwasm.ModuleError):
        CompiledPlugin(plugin_with_data(section(11, claim)))


def test_thresholds() -> None:
    """Images are used exactly above the documented thresholds."""
    assert not benefits_from_images(plugin_with_data(segments(MANY_SEGMENTS)))
    assert benefits_from_images(plugin_with_data(segments(MANY_SEGMENTS + 1)))
    assert not benefits_from_images(plugin_with_data(segments(1, bytes(MUCH_DATA - 100))))
    assert benefits_from_images(plugin_with_data(segments(1, bytes(MUCH_DATA))))


FAR = b"\0\x41\0\x0b\1a" + b"\0\x41" + signed_leb128(2**24 - 70_000) + b"\x0b\1b"


def test_sparse_image_in_subprocess() -> None:
    """A mostly empty image is made in another process, and its size counts.

    Two bytes far apart make an image of 16 MiB. A light module may have eight memories, each with
    an image.
    """
    memories = b"".join(
        b"\2" + leb128(i) + entry[1:] for i in range(8) for entry in (FAR[:6], FAR[6:])
    )
    light = wat_to_wasm(
        b'(module (memory 256)(memory 256)(memory 256)(memory 256)(memory 256)(memory 256)(memory 256)(memory 256) (func (export "f")))'
    )
    sparse = light + section(11, leb128(16) + memories)
    wasm: list[dict[str, Any]] = [
        {"name": "sparse", "data": sparse},
        {"name": "main", "data": MANY},
    ]
    with pytest.raises(plugwasm.ModuleError, match=r"Limits\.code_bytes"):
        CompiledPlugin({"wasm": wasm}, limits=Limits(code_bytes=2**26, memories=16))


def test_no_cache_is_needed() -> None:
    cache.configure(enabled=False)
    try:
        assert Plugin(plugin_with_data(segments(502))).call("f") == b"abcdefgh"
    finally:
        cache.configure()
