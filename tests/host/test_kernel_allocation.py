"""The kernel's allocator: which memory it allocates, frees and grows by."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugwasm._host.kernel import (
    FAULT_OUTPUT,
    INPUT_OFFSET,
)
from plugwasm._host.memory_budget import OPTIONAL_GROWTH
from plugwasm._manifest.limits import INITIAL_PAGES
from tests.support.kernel_rig import (
    FIRST_GRANULE,
    GRANULE,
    LARGEST,
    MASK,
    PAGE,
    Rig,
    bin_of,
)


@given(
    around=st.lists(st.tuples(st.integers(1, 20), st.integers(-1, 1)), min_size=1, max_size=30),
    order=st.randoms(use_true_random=False),
)
@settings(max_examples=60, deadline=None)
def test_freed_blocks_merge_to_one(around: list[tuple[int, int]], order: Any) -> None:
    """After all blocks were freed in any order, the memory is one free block."""
    rig = Rig(1024)
    blocks = {
        offset: size
        for log, off in around
        for size in [(1 << log) + off]
        if (offset := rig.alloc(size))
    }
    assert len(blocks) == len(around)
    offsets = list(blocks)
    order.shuffle(offsets)
    for offset in offsets:
        rig.free(offset)
        del blocks[offset]
        rig.check_books(blocks)
    assert (rig.top(), rig.last(), rig.bins()) == (FIRST_GRANULE, 0, 0)
    assert rig.alloc(rig.memory_bytes() - INPUT_OFFSET) == INPUT_OFFSET


def test_sizes_around_powers_of_two() -> None:
    """Sizes around powers of two go to the right bin."""
    rig = Rig()
    for log in range(27):
        for size in (
            2**log - 1,
            2**log,
            2**log + 1,
            2**log * 3 // 2 - 1,
            2**log * 3 // 2,
            2**log * 3 // 2 + 1,
        ):
            if size:
                assert rig.bin(size) == bin_of(size), size
    assert rig.bin(LARGEST // GRANULE) == bin_of(LARGEST // GRANULE) == 53, (
        "so the heads of all bins stand before the first record"
    )


@pytest.mark.parametrize(
    "granules", [1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 13, 2047, 2048, 3071, 3072, 3073]
)
def test_freed_block_is_reused(granules: int) -> None:
    """A freed block is the next one of its size."""
    rig = Rig(64)
    size = granules * GRANULE
    block = rig.alloc(size)
    fence = rig.alloc(1)
    rig.free(block)
    rig.check_books({fence: 1})
    assert rig.alloc(size) == block
    assert rig.length(block) == size
    rig.free(block)
    smaller = rig.alloc(max(size - 1, 1))
    assert smaller == block
    rig.check_books({fence: 1, block: max(size - 1, 1)})


def test_larger_block_is_split_and_merged() -> None:
    """A larger free block is split, and its parts are merged again."""
    rig = Rig()
    large = rig.alloc(10_000)
    fence = rig.alloc(1)
    rig.free(large)
    parts = {rig.alloc(size): size for size in (100, 1, 3000, 64)}
    assert all(large <= offset < large + 10_000 for offset in parts)
    rig.check_books(parts | {fence: 1})
    for offset in list(parts):
        rig.free(offset)
        del parts[offset]
        rig.check_books(parts | {fence: 1})
    assert rig.alloc(10_000) == large


@pytest.mark.parametrize("size", [100, 70_000, 400_000])
def test_alloc_free_loop_does_not_grow(size: int) -> None:
    """A loop of alloc and free does not grow the memory."""
    rig = Rig(100)
    keep = rig.alloc(1)
    first = rig.alloc(size)
    fence = rig.alloc(1)
    rig.free(first)
    before = rig.memory_bytes()
    for _ in range(200):
        block = rig.alloc(size)
        assert block == first
        rig.free(block)
    assert rig.memory_bytes() == before
    rig.check_books({keep: 1, fence: 1})


def test_too_small_block_of_bin_is_skipped() -> None:
    """A free block in the right bin that is too small is skipped."""
    rig = Rig()
    fitting, fence, small, last = (rig.alloc(granules * GRANULE) for granules in (5, 1, 4, 1))
    assert bin_of(5) == bin_of(4)
    rig.free(fitting)
    rig.free(small)  # so that it is the first of its bin
    live = {fence: GRANULE, last: GRANULE}
    rig.check_books(live)
    block = rig.alloc(5 * GRANULE)
    assert block not in (small, 0)
    rig.check_books(live | {block: 5 * GRANULE})
    assert rig.alloc(4 * GRANULE) == small


@pytest.mark.parametrize("granules", [1, 2, 3, 4, 5, 7, 8, 11, 12, 13, 15, 16, 23, 24, 2047, 2048])
def test_next_bin_before_new_space(granules: int) -> None:
    """A free block in the next bin is used before new space."""
    rig = Rig(64)
    larger = next(
        size for size in range(granules, 2 * granules + 2) if bin_of(size) > bin_of(granules)
    )
    block, fence = rig.alloc(larger * GRANULE), rig.alloc(1)
    rig.free(block)
    assert rig.alloc(granules * GRANULE) == block
    rig.check_books({fence: 1, block: granules * GRANULE})


def test_two_sizes_of_one_bin() -> None:
    """Alternating two sizes of one bin does not grow the memory without end."""
    rig = Rig(1000)
    fences: dict[int, int] = {}
    for _ in range(300):
        first, fence, second, other = (rig.alloc(granules * GRANULE) for granules in (5, 1, 4, 1))
        rig.free(first)
        rig.free(second)
        fences |= {fence: GRANULE, other: GRANULE}
        while len(fences) > 20:
            oldest = next(iter(fences))
            rig.free(oldest)
            del fences[oldest]
        rig.check_books(fences)
    assert rig.memory_bytes() == INITIAL_PAGES * PAGE


def test_alloc_zero_is_null_handle() -> None:
    """`alloc` of zero bytes returns the null handle."""
    rig = Rig()
    assert rig.alloc(0) == 0
    assert rig.length(0) == 0
    rig.free(0)
    rig.check_books({})


@pytest.mark.parametrize(
    "size", [LARGEST + 1, 2**32 - 1, 2**32, 2**32 + 1, 2**37, 2**40, 2**63, MASK - 31, MASK]
)
def test_impossible_alloc_is_refused(size: int) -> None:
    """An impossible size is refused without asking the host."""
    rig = Rig(2**32)
    assert rig.alloc(size) == 0
    assert rig.reserve(size) == 0
    assert rig.owner.asked == []
    assert rig.memory_bytes() == INITIAL_PAGES * PAGE
    rig.check_books({})


def test_alloc_over_limit_is_refused() -> None:
    """`alloc` beyond the limit is refused and takes no memory."""
    rig = Rig(3)
    assert rig.alloc(2**31) == 0
    assert rig.memory_bytes() == INITIAL_PAGES * PAGE
    fitting = 3 * PAGE - INPUT_OFFSET
    assert rig.alloc(fitting + 1) == 0
    assert rig.memory_bytes() == INITIAL_PAGES * PAGE
    assert rig.alloc(fitting) == INPUT_OFFSET
    assert rig.memory_bytes() == 3 * PAGE
    assert rig.alloc(1) == 0
    rig.free(INPUT_OFFSET)
    assert rig.alloc(1) == INPUT_OFFSET


def test_growth_without_spare_quarter() -> None:
    """Growth by the needed pages still works if the spare quarter is refused."""
    rig = Rig(101)
    assert rig.alloc(100 * PAGE - INPUT_OFFSET) == INPUT_OFFSET
    rig.owner.asked.clear()
    assert rig.alloc(1)
    assert rig.owner.asked == [OPTIONAL_GROWTH | 125, 101, 0], "and then it says that it is done"
    assert rig.memory_bytes() == 101 * PAGE


@pytest.mark.parametrize("pages", range(2, 12))
def test_every_granule_has_a_record(pages: int) -> None:
    """For every size of the heap, each granule has a record."""
    rig = Rig(pages)
    blocks = {}
    while offset := rig.alloc(GRANULE):
        blocks[offset] = GRANULE
    assert len(blocks) == pages * PAGE // GRANULE - FIRST_GRANULE
    assert rig.memory_bytes() == pages * PAGE
    rig.check_books(blocks)
    last = pages * PAGE - GRANULE
    assert rig.kernel.length(last) == GRANULE
    rig.free(last)
    assert rig.length(last) == rig.kernel.length(last) == 0


def test_four_gib_to_last_byte() -> None:
    """Four GiB can be used up to the last byte."""
    rig = Rig(65536)
    block = rig.alloc(LARGEST)
    if not block:
        pytest.skip("this machine does not give so much address space")
    assert block == INPUT_OFFSET
    rest = rig.alloc(PAGE - INPUT_OFFSET)
    assert rest + PAGE - INPUT_OFFSET == 2**32 == rig.memory_bytes()
    assert rig.alloc(1) == 0
    assert (rig.length(block), rig.length(rest)) == (LARGEST, PAGE - INPUT_OFFSET)
    assert (rig.kernel.length(block), rig.kernel.length(rest)) == (LARGEST, PAGE - INPUT_OFFSET)
    for offset, stored in (
        (2**32 - 9, True),
        (2**32 - 8, True),
        (2**32 - 7, False),
        (2**32, False),
        (2**32 + 512, False),
    ):
        rig.store_u64(offset, 0x1122334455667788)
        assert rig.load_u64(offset) == (0x1122334455667788 if stored else 0), hex(offset)
        rig.store_u64(offset, 0)
    rig.store_u8(2**32 - 1, 9)
    assert rig.load_u8(2**32 - 1) == rig.kernel.view(2**32 - 1, 1)[0] == 9
    rig.store_u8(2**32, 7)
    assert rig.load_u8(0) == 0
    for offset, length, fault in (
        (2**32 - 1, 1, 0),
        (2**32 - 1, 2, FAULT_OUTPUT),
        (2**32 - 1, MASK, FAULT_OUTPUT),
        (2**32, 1, FAULT_OUTPUT),
    ):
        rig.output_set(offset, length)
        assert rig.failure()[0] == fault
    rig.input_set(2**32 - 8, 8)
    rig.store_u64(2**32 - 8, MASK)
    assert [rig.input_load_u8(index) for index in (0, 7, 8, MASK)] == [255, 255, 0, 0]
    assert [rig.input_load_u64(index) for index in (0, 1, MASK - 7)] == [MASK, 0, 0]
    rig.free(block)
    assert rig.alloc(LARGEST) == block
