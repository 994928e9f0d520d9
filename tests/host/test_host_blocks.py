"""Blocks that the host makes by itself, without entering Wasm, are as if the kernel had made them."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugwasm import HostFunctionError, Plugin, host_fn
from plugwasm._host import kernel as kernel_room
from plugwasm._host.kernel import INPUT_OFFSET, Kernel
from tests.support.kernel_rig import EDGES, LARGEST, PAGE, Rig

SIZES = st.one_of(
    st.integers(0, 200),
    st.sampled_from([1, 31, 32, 33, 64, 95, 96, 97, 4096, PAGE - INPUT_OFFSET, PAGE, 3 * PAGE]),
)
STEPS = st.lists(
    st.tuples(st.sampled_from(["block", "block", "alloc", "free", "take", "reset"]), SIZES),
    max_size=40,
)


def registers(rig: Rig) -> tuple[int, ...]:
    return rig.top(), rig.last(), rig.bins(), rig.taken(), rig.memory_bytes()


@given(steps=STEPS)
@settings(max_examples=150, deadline=None)
def test_host_allocates_as_the_kernel(steps: list[tuple[str, int]]) -> None:
    """Whatever was allocated and freed before, the host puts a block where the kernel would, and
    leaves the same books.
    """
    one, other = Rig(8), Rig(8)
    live: dict[int, int] = {}
    for step, number in steps:
        found = []
        for rig in (one, other):
            offsets = sorted(live)
            if step == "block" and rig is one:
                found.append(rig.kernel.new_block(b"h" * number))
            elif step in ("block", "alloc"):
                found.append(rig.alloc(number))
            elif step == "reset":
                rig.reset()
            elif offsets:
                (rig.free if step == "free" else rig.kernel.free)(offsets[number % len(offsets)])
        if step in ("block", "alloc"):
            assert found[0] == found[1]
            if found[0]:
                live[found[0]] = number
        elif step == "reset":
            live.clear()
        elif live:
            del live[sorted(live)[number % len(live)]]
        assert registers(one) == registers(other)
    assert one.records().tobytes() == other.records().tobytes()


def test_no_entry_into_wasm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is room above all blocks, the host asks the kernel for nothing."""
    rig = Rig(8)
    before = rig.kernel.new_block(b"before")

    def never(*_: object) -> None:
        raise AssertionError("it entered Wasm")

    monkeypatch.setattr(Kernel, "alloc", never)
    blocks = {before: 6} | {rig.kernel.new_block(b"x" * size): size for size in (1, 32, 33, 60_000)}
    assert len(blocks) == 5
    rig.check_books(blocks)
    with pytest.raises(AssertionError, match="entered"):
        rig.kernel.new_block(bytes(2 * PAGE))


def test_free_block_is_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A free block that is large enough is used before the space above, and others do not matter."""
    rig = Rig(8)
    small, between, large, last = (rig.alloc(size) for size in (32, 32, 640, 32))
    rig.free(small)
    rig.free(large)
    assert rig.kernel.new_block(bytes(640)) == large
    asked = []
    alloc = Kernel.alloc
    monkeypatch.setattr(
        Kernel, "alloc", lambda kernel, size: asked.append(size) or alloc(kernel, size)
    )
    assert rig.kernel.new_block(bytes(640)) > last, "the free one is too small for it"
    assert asked == []
    assert rig.kernel.new_block(bytes(32)) == small
    assert asked == [32]
    assert between not in (small, large)


@pytest.mark.parametrize("size", [size for size in EDGES if 0 < size < LARGEST] + [2**27 - 1])
def test_bins_are_the_kernels(size: int) -> None:
    """Host and kernel agree on the bin of a size."""
    assert kernel_room._bin(size & 0x7FFFFFF or 1) == Rig(2).bin(size & 0x7FFFFFF or 1)


def test_growth_behind_the_hosts_back() -> None:
    """After the guest made the heap grow, the host still finds the room that there is."""
    rig = Rig(16)
    first = rig.kernel.new_block(b"first")
    filling = rig.alloc(5 * PAGE)
    blocks = {first: 5, filling: 5 * PAGE}
    for size in (PAGE, 10, 3 * PAGE):
        blocks[rig.kernel.new_block(b"g" * size)] = size
    rig.check_books(blocks)
    assert 0 not in blocks


@pytest.mark.parametrize(
    "offset", [-32, -512, -(2**33), -(2**63), -1, 1, 31, 513, 544, 2**32, 2**40, 2**63 - 32, 2**64]
)
def test_no_block_at(offset: int) -> None:
    """Whatever number a guest passes for a block, there is none where none starts."""
    rig = Rig(8)
    rig.kernel.new_block(b"x" * 100)
    for _ in range(2):  # as long as the book was not looked at, and after
        assert rig.kernel.block(offset) is None
        assert rig.kernel.block(512).tobytes() == b"x" * 100


def test_signed_handles_are_unsigned() -> None:
    """A typed host function that gets a number with the top bit set says which one it got."""
    wat = """(module (import "extism:host/user" "f" (func $f (param i64) (result i64)))
      (func (export "run") (drop (call $f (i64.const -32)))))"""
    for kind in (str, bytes):

        def f(given: kind) -> kind:  # type: ignore[valid-type]
            return given

        f.__annotations__.update({"given": kind, "return": kind})
        plugin = Plugin(wat.encode(), functions=[host_fn(register=False)(f)])
        with pytest.raises(HostFunctionError, match=f"handle {2**64 - 32},"):
            plugin.call("run")


def _lines(code: Any) -> list[int]:
    return sorted({line for _, _, line in code.co_lines() if line} - {code.co_firstlineno})


@pytest.mark.parametrize("line", _lines(Kernel.push.__code__))
def test_signal_while_a_block_is_made(line: int) -> None:
    """If a signal handler raises at any line, there is the whole block or none, and the kernel can
    go on.
    """
    rig = Rig(8)
    live = {rig.kernel.new_block(b"before"): 6}
    reached = False

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal reached
        if frame.f_code is not Kernel.push.__code__:
            return None
        if event == "line" and frame.f_lineno == line:
            reached = True
            raise KeyboardInterrupt
        return trace

    found = 0
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        found = rig.kernel.new_block(b"x" * 100)
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)
    at = 4 * (rig.top() - rig.last())
    if reached and rig.top() > INPUT_OFFSET // 32 + 1:
        live[(at // 4) * 32] = 100
    elif not reached:
        live[found] = 100
    live[rig.kernel.new_block(b"after")] = 5
    live[rig.alloc(200)] = 200
    rig.check_books(live)
