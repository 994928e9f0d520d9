"""`memory.max_pages`: modules that run in the official host with it also run here.
`Limits.memory_bytes` bounds everything besides."""

from __future__ import annotations

import pickle
from typing import Any

import extism
import pytest

import plugwasm
from plugwasm import CompiledPlugin, IsolatedPlugin, Limits, OutOfMemoryError, Plugin, PluginSet
from plugwasm._engine import wat_to_wasm
from plugwasm.testing import Harness
from tests.support.guests import export, guest, manifest, number

PAGE = 65536


def word(value: int) -> bytes:
    return value.to_bytes(8, "little")


def growing_guest(first: int, attributes: str = '(export "memory")', more: str = "") -> str:
    """Return a guest that grows its memory by the number of pages at the start of the input and
    fails if it cannot. `alloc` and `keep` do so with bytes."""
    return guest(
        export("quick", "")
        + """(func (export "grow") (result i32)
            (i32.eq (i32.const -1) (memory.grow (i32.wrap_i64 (call $input_load_u64 (i64.const 0))))))
          (func (export "alloc") (result i32) (i64.eqz (call $alloc (call $input_load_u64 (i64.const 0)))))"""
        + more,
        memory=f"(memory {attributes} {first})",
    )


LIB = wat_to_wasm(
    b"""(module (memory (export "m") 5) (func (export "f"))
      (func (export "g") (param i32) (result i32) (i32.eq (i32.const -1) (memory.grow (local.get 0)))))"""
)
LINKED = guest(
    export("quick", "(call $f)")
    + """(func (export "grow") (result i32)
        (i32.eq (i32.const -1) (memory.grow (i32.wrap_i64 (call $input_load_u64 (i64.const 0))))))
      (func (export "lib") (result i32) (call $g (i32.wrap_i64 (call $input_load_u64 (i64.const 0)))))""",
    '(import "lib" "f" (func $f)) (import "lib" "g" (func $g (param i32) (result i32)))',
    memory='(memory (export "memory") 2)',
)


def starting_guest(name: str, first: int, more: int) -> str:
    return guest(
        f"""(func (export "{name}") (if (i32.eq (i32.const -1) (memory.grow (i32.const {more}))) (then unreachable)))"""
        + export("quick", ""),
        memory=f'(memory (export "memory") {first})',
    )


def works(plugin: Any, steps: tuple[tuple[str, bytes], ...]) -> int:
    """Return how many of the calls succeed before one fails."""
    for done, (name, data) in enumerate(steps):
        try:
            plugin.call(name, data)
        except (extism.Error, plugwasm.Error):
            return done
    return len(steps)


def official(wasm: list[dict[str, Any]], maximum: int, steps: tuple[tuple[str, bytes], ...]) -> int:
    try:
        return works(extism.Plugin({"wasm": wasm, "memory": {"max_pages": maximum}}), steps)
    except extism.Error:
        return 0


def ours(wasm: list[dict[str, Any]], maximum: int, steps: tuple[tuple[str, bytes], ...]) -> int:
    try:
        with Plugin({"wasm": wasm, "memory": {"max_pages": maximum}}) as plugin:
            return works(plugin, steps)
    except OutOfMemoryError:
        return 0


def inputs(*sizes: int) -> tuple[tuple[str, bytes], ...]:
    return tuple(("quick", bytes(size)) for size in sizes)


ROOMY = (
    ("quick", b""),
    ("grow", word(1)),
    ("quick", bytes(2 * PAGE)),
    ("grow", word(2)),
    ("alloc", word(3 * PAGE)),
    ("grow", word(4)),
)
CASES: dict[str, tuple[str, tuple[tuple[str, bytes], ...]]] = {
    **{
        f"{first} pages, inputs": (growing_guest(first), inputs(0, 1, PAGE, 2 * PAGE, 2**20))
        for first in range(21)
    },
    **{f"{first} pages, growing": (growing_guest(first), ROOMY) for first in (0, 1, 5, 17)},
    "a memory that is not exported": (growing_guest(3, ""), ROOMY),
    "growing page by page": (growing_guest(1), (("grow", word(1)),) * 24),
    "the kernel first": (growing_guest(1), (("alloc", word(2**20)), *(("grow", word(1)),) * 6)),
    "the kernel in steps": (
        growing_guest(1),
        (*inputs(*(n * 70_000 for n in range(14))), *(("grow", word(1)),) * 6),
    ),
    "growing in `_initialize`": (
        starting_guest("_initialize", 5, 3),
        inputs(0, PAGE, 2 * PAGE, 5 * PAGE),
    ),
    "growing in `__wasm_call_ctors`": (
        starting_guest("__wasm_call_ctors", 5, 3),
        inputs(0, PAGE, 2 * PAGE, 5 * PAGE),
    ),
    "two memories": (
        growing_guest(5, '(export "memory")', "").replace(
            "(memory (", '(memory (export "other") 6) (memory (', 1
        ),
        inputs(0, 2 * PAGE),
    ),
    "a maximum of its own": (
        growing_guest(1, '(export "memory")').replace(" 1)", " 1 3)", 1),
        (("grow", word(1)),) * 2,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_official_plugins_run(case: str) -> None:
    """Plugins that run in the official host run here."""
    source, steps = CASES[case]
    wasm = [{"data": wat_to_wasm(source.encode())}]
    done = [
        (maximum, official(wasm, maximum, steps), ours(wasm, maximum, steps))
        for maximum in range(24)
    ]
    assert not [entry for entry in done if entry[2] < entry[1]]
    assert max(there for _, there, _ in done) > min(there for _, there, _ in done)


def test_official_linked_modules_run() -> None:
    """Linked modules that run in the official host run here."""
    wasm = [{"name": "lib", "data": LIB}, {"name": "main", "data": wat_to_wasm(LINKED.encode())}]
    for steps in (
        (("quick", b""), ("lib", word(3)), ("grow", word(2)), ("lib", word(3)), *inputs(2 * PAGE)),
        (*inputs(2 * PAGE, 2**20), ("grow", word(4))),
        (("lib", word(7)), ("grow", word(7))),
    ):
        done = [
            (maximum, official(wasm, maximum, steps), ours(wasm, maximum, steps))
            for maximum in range(32)
        ]
        assert not [entry for entry in done if entry[2] < entry[1]]
        assert done[31][1] == len(steps)


def test_minimum_pages_are_needed() -> None:
    """A plugin runs with exactly the pages that it starts with, and not with one less."""
    with Plugin(manifest(growing_guest(17), memory={"max_pages": 17})) as plugin:
        assert plugin.call("quick", bytes(128 * 1024)) == b""
    with pytest.raises(
        OutOfMemoryError,
        match=r"main module .* starts with 17 pages .* needs `memory\.max_pages` of 17 at least",
    ):
        Plugin(manifest(growing_guest(17), memory={"max_pages": 16}))


@pytest.mark.parametrize("pooled", [False, True])
def test_growth_with_kernel_is_bounded(pooled: bool) -> None:
    """Growth is bounded for the kernel and the memory together."""
    compiled = CompiledPlugin(manifest(growing_guest(5), memory={"max_pages": 9}))
    for _ in range(4 * pooled):
        Plugin(compiled).call("quick")
    with Plugin(compiled) as plugin:
        assert plugin.call("grow", word(4)) == b""
        assert (
            plugin.call("quick", bytes(7 * PAGE - 512)) == b""
        )  # five more than the two that are there
        for name, data in (
            ("grow", word(1)),
            ("alloc", word(7 * PAGE)),
            ("quick", bytes(7 * PAGE)),
        ):
            with pytest.raises(plugwasm.Error):
                plugin.call(name, data)
        assert plugin.call("quick") == b""


def test_the_error_says_what_is_needed() -> None:
    with (
        Plugin(manifest(growing_guest(1), memory={"max_pages": 3})) as plugin,
        pytest.raises(OutOfMemoryError) as caught,
    ):
        plugin.call("quick", bytes(2**20))
    assert "takes 17 pages" in str(caught.value)
    assert "limit is 3 pages of 64 KiB more than at first" in str(caught.value)
    assert "`memory.max_pages`" in str(caught.value)
    with pytest.raises(
        OutOfMemoryError, match=rf"needs `Limits\.memory_bytes` of {19 * PAGE} at least"
    ):
        Plugin(growing_guest(17), limits=Limits(memory_bytes=18 * PAGE))


def test_memory_bytes_bounds_everything() -> None:
    """`memory_bytes` is the bound of everything."""
    wide = manifest(growing_guest(5), memory={"max_pages": 1000})
    with Plugin(wide, limits=Limits(memory_bytes=20 * PAGE)) as plugin:
        with pytest.raises(plugwasm.Error):
            plugin.call("grow", word(14))
        assert plugin.call("grow", word(13)) == b""
        with pytest.raises(
            OutOfMemoryError,
            match=r"20 pages of 64 KiB for all together \(`Limits\.memory_bytes`\)",
        ):
            plugin.call("quick", bytes(2 * PAGE))
    with Plugin(wide, limits=Limits(memory_bytes=None)) as plugin:
        assert plugin.call("grow", word(1000)) == b""
        with pytest.raises(plugwasm.Error):
            plugin.call("grow", word(1))


@pytest.mark.parametrize(
    ("limits", "maximum", "memory_bytes", "max_pages"),
    [
        (None, None, 2**30, None),
        (None, 16, 2**30, 16),
        (None, 20_000, 40_002 * PAGE, 20_000),
        (None, 65536, 2**32, 65536),
        (Limits(), 65536, 2**30, 65536),
        (Limits(memory_bytes=2**20, max_pages=7), 9, 2**20, 7),
        (Limits(memory_bytes=None), 9, None, 9),
    ],
)
def test_the_two_limits_are_kept_apart(
    limits: Limits | None, maximum: int | None, memory_bytes: int | None, max_pages: int | None
) -> None:
    plugin = CompiledPlugin(
        manifest(growing_guest(1), memory={"max_pages": maximum}), limits=limits
    )
    assert (plugin.limits.memory_bytes, plugin.limits.max_pages) == (memory_bytes, max_pages)
    assert pickle.loads(pickle.dumps(plugin.limits)) == plugin.limits


def granted_steps(plugin: Any) -> list[int]:
    """Return which of four growths by two pages are granted."""
    return [works(plugin, (("grow", word(2)),)) for _ in range(4)]


GRANTED = [1, 1, 0, 0]


class _InSet:
    def __init__(self, plugins: PluginSet) -> None:
        self.plugins = plugins

    def call(self, name: str, data: bytes) -> Any:
        return self.plugins.call("one", name, data)


def test_every_kind_of_plugin() -> None:
    """Every way to run a plugin counts in the same way."""
    asked = manifest(growing_guest(5), memory={"max_pages": 5})
    with Plugin(asked) as plugin:
        assert granted_steps(plugin) == GRANTED
    with Plugin(growing_guest(5), limits=Limits(max_pages=5)) as plugin:
        assert granted_steps(plugin) == GRANTED
    with IsolatedPlugin(asked) as isolated:
        assert granted_steps(isolated) == GRANTED
        assert works(isolated, inputs(2**20)) == 0
    with Harness(asked) as harness:
        assert granted_steps(harness.plugin()) == GRANTED
    with PluginSet({"one": asked}) as plugins:
        assert granted_steps(_InSet(plugins)) == GRANTED


def test_replay_grows_like_recording() -> None:
    """In a replay, memory grows as in the recorded call."""
    from plugwasm.recording import Recorder

    recorder = Recorder()
    source = guest(
        export(
            "size",
            "(drop (memory.grow (i32.const 2))) (call $answer (i64.extend_i32_u (memory.size)))",
        ),
        memory='(memory (export "memory") 5)',
    )
    with Plugin(manifest(source, memory={"max_pages": 5}), observe=recorder) as plugin:
        assert [number(plugin.call("size")) for _ in range(4)] == [7, 9, 9, 9]
    replay = recorder.recording.replay(manifest(source))
    assert [number(call.output) for call in replay.calls] == [7, 9, 9, 9]
    assert recorder.recording.replay(manifest(source), limits=Limits(max_pages=9)).calls
    with pytest.raises(plugwasm.RecordingError, match="max_pages=5, more than 4"):
        recorder.recording.replay(manifest(source), limits=Limits(max_pages=4))
