"""The kernel against a plain model of what it should do, and its books against the rules that they must keep.

The kernel is driven through the engine layer. It is compiled with a few more exports, which show the registers of its allocator.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from plugwasm._engine import (
    Engine,
    Environment,
    ExportName,
    FunctionType,
    HostFunction,
    HostRaised,
    Module,
    Store,
    Trap,
    wat_to_wasm,
)
from plugwasm._host import kernel as _kernel
from plugwasm._host.kernel import (
    FAULT_ERROR,
    FAULT_ERROR_HANDLE,
    FAULT_INPUT,
    FAULT_OUTPUT,
    INPUT_OFFSET,
    Kernel,
)
from plugwasm._host.memory_budget import OPTIONAL_GROWTH
from plugwasm._manifest.limits import FIRST_PAGES

if TYPE_CHECKING:
    from collections.abc import Sequence

PAGE = 65536
GRANULE = 32
FIRST_GRANULE = INPUT_OFFSET // GRANULE
LIVE = 1 << 31
TAKEN = 1 << 30
MASK = 2**64 - 1
LARGEST = 0xFFFF0000

REGISTERS = b"""
  (func (export "top") (result i32) (global.get $top))
  (func (export "last") (result i32) (global.get $last))
  (func (export "bins") (result i64) (global.get $bins))
  (func (export "bin") (param i32) (result i32) (call $bin (local.get 0)))
  (func (export "taken") (result i32) (global.get $taken))
)
"""

GUEST = b"""(module
  (import "k" "alloc" (func $alloc (param i64) (result i64)))
  (import "k" "length" (func $length (param i64) (result i64)))
  (import "k" "free" (func $free (param i64)))
  (import "k" "store_u64" (func $store_u64 (param i64 i64)))
  (func (export "ok") (result i32) (i32.const 0))
  (func (export "nothing"))
  (func (export "seven") (result i32) (i32.const 7))
  (func (export "minus_one") (result i32) (i32.const -1))
  (func (export "traps") unreachable)

  ;; n rounds of alloc and length
  (func (export "rounds") (param $n i64)
    (loop $again
      (drop (call $length (call $alloc (i64.const 24))))
      (br_if $again (i64.ne (local.tee $n (i64.sub (local.get $n) (i64.const 1))) (i64.const 0)))))

  ;; n blocks of three granules each, then every second is freed, then the others, so that each of these meets free neighbours
  (func (export "churn") (param $n i64)
    (local $i i64)
    (local.set $i (local.get $n))
    (loop $again
      (drop (call $alloc (i64.const 96)))
      (br_if $again (i64.ne (local.tee $i (i64.sub (local.get $i) (i64.const 1))) (i64.const 0))))
    (local.set $i (i64.const 0))
    (loop $again
      (call $free (i64.add (i64.const 512) (i64.mul (local.get $i) (i64.const 96))))
      (br_if $again (i64.lt_u (local.tee $i (i64.add (local.get $i) (i64.const 2))) (local.get $n))))
    (local.set $i (i64.const 1))
    (loop $again
      (call $free (i64.add (i64.const 512) (i64.mul (local.get $i) (i64.const 96))))
      (br_if $again (i64.lt_u (local.tee $i (i64.add (local.get $i) (i64.const 2))) (local.get $n)))))

  ;; fills [$from, $to) with a value
  (func (export "scribble") (param $from i64) (param $to i64) (param $value i64)
    (loop $again
      (call $store_u64 (local.get $from) (local.get $value))
      (br_if $again (i64.lt_u (local.tee $from (i64.add (local.get $from) (i64.const 8))) (local.get $to)))))
)"""
IMPORTS = ("alloc", "length", "free", "store_u64")


class Owner(Environment):
    """What stands for the plugin that owns the kernel: it lets it grow to so many pages."""

    __slots__ = ("asked", "max_pages", "raises")

    def __init__(self, max_pages: int) -> None:
        super().__init__()
        self.max_pages = max_pages
        self.asked: list[int] = []
        self.raises: BaseException | None = None


def _may_grow(owner: Any, caller: int, values: Any) -> None:
    pages = values[0] & 0xFFFFFFFF
    owner.asked.append(pages)
    if owner.raises is not None:
        raise owner.raises
    values[0] = pages & ~OPTIONAL_GROWTH <= owner.max_pages


MAY_GROW = HostFunction(FunctionType(("i32",), ("i32",)), _may_grow)


@functools.cache
def modules(fuel: bool, pooled: bool = False) -> tuple[Engine, Module, Module]:
    if pooled:  # what is compiled without a pool is loaded there
        own, *plain = Engine(pooled=True), *modules(fuel)[1:]
        kernel, guest = (own.load(module.serialize()) for module in plain)
        return own, kernel, guest
    own = Engine(fuel=fuel)
    source = _kernel.read_source().rstrip()
    assert source.endswith(b")")
    return own, own.compile(wat_to_wasm(source[:-1] + REGISTERS)), own.compile(wat_to_wasm(GUEST))


class Rig:
    """A kernel and a guest in a store of their own. `rig.alloc(8)` and the like call the kernel's export, `rig.run("ok")` the guest's."""

    def __init__(self, max_pages: int = 16, fuel: bool = False, pooled: bool = False) -> None:
        own, kernel, guest = modules(fuel, pooled)
        self.owner = Owner(max_pages)
        self.store = Store(own, self.owner)
        if fuel:
            self.store.set_fuel(2**40)
        self.instance = self.store.instantiate(
            kernel, self.store.make_import(MAY_GROW, self.owner), self.owner.pending
        )
        imports = b"".join(self.instance.exports(ExportName(name) for name in IMPORTS))
        self.guest = self.store.instantiate(guest, imports, self.owner.pending)
        self.types = {name: item.type for name, item in kernel.exports.items() if item.type}
        self.kernel = Kernel(self.instance, self.owner.pending)
        self._functions: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        if name not in self.types:
            raise AttributeError(name)
        type_ = self.types[name]
        assert type_ is not None
        function = self.instance.function(
            ExportName(name), max(len(type_.params), len(type_.results))
        )
        masks = [0xFFFFFFFF if result == "i32" else MASK for result in type_.results]

        def call(*arguments: int) -> Any:
            for i, argument in enumerate(arguments):
                function.values[2 * i] = argument & MASK
            function.call(self.owner.pending)
            results = [function.values[2 * i] & mask for i, mask in enumerate(masks)]
            return results[0] if len(results) == 1 else tuple(results) or None

        self.__dict__[name] = call
        return call

    def run(self, name: str, *arguments: int) -> None:
        function = self.guest.function(ExportName(name), len(arguments))
        for i, argument in enumerate(arguments):
            function.values[2 * i] = argument & MASK
        function.call(self.owner.pending)

    def call(
        self, name: str, data: bytes = b"", *, returns_code: bool = True
    ) -> tuple[int, int, int]:
        """A call as the host makes it: input, entry, status and output."""
        if len(data) > self.kernel.capacity:
            assert self.kernel.reserve(len(data))
        self.kernel.heap[INPUT_OFFSET : INPUT_OFFSET + len(data)] = data
        entry = self.kernel.entry(returns_code)
        entry.values[0] = self.guest.funcref(ExportName(name))
        entry.values[2] = len(data)
        entry.call(self.owner.pending)
        return entry.values[0], entry.values[2], entry.values[4]

    def fuel_of(self, name: str, *arguments: int) -> int:
        before = self.store.fuel()
        self.run(name, *arguments)
        return before - self.store.fuel()

    # ---- the books

    def records(self) -> Any:
        return self.instance.memory(ExportName("book")).view().cast("I")

    def check_books(self, live: dict[int, int], taken: Sequence[int] = ()) -> None:
        """Every rule of the comment in kernel.wat, and that the live blocks are these, and those that were taken these, in order."""
        book, top, last, bins = self.records(), self.top(), self.last(), self.bins()
        heap_bytes = self.memory_bytes()
        assert len(book) // 4 * GRANULE >= heap_bytes, "there is a record for each granule"
        assert FIRST_GRANULE <= top <= heap_bytes // GRANULE
        starts, found, free, kept = [], {}, {}, {}
        block, previous, previous_is_free = FIRST_GRANULE, 0, False
        while block < top:
            word, before, third, fourth = book[4 * block : 4 * block + 4].tolist()
            size = word & (TAKEN - 1)
            assert size, f"block {block} has no size"
            assert before == previous, f"block {block} has a wrong idea of the one before it"
            if word & LIVE:
                found[block * GRANULE] = third
                assert size == -(-third // GRANULE), (
                    f"block {block} has {size} granules for {third} bytes"
                )
                previous_is_free = False
            elif word & TAKEN:
                kept[block * GRANULE] = fourth * GRANULE
                assert size == 1, "the rest of what was taken is free"
                previous_is_free = False
            else:
                assert not previous_is_free, f"block {block} and the one before it are both free"
                previous_is_free = True
                free[block] = (size, third, fourth)
            starts.append(block)
            block, previous = block + size, size
        assert block == top
        assert last == previous
        assert not previous_is_free, "a free block at the top belongs to the space above it"
        assert found == live
        assert kept == dict(zip(taken, [*taken[1:], 0], strict=False)), (
            "what was taken hangs together in its order"
        )
        assert [
            i for i, word in enumerate(book[4 * FIRST_GRANULE :: 4].tolist(), FIRST_GRANULE) if word
        ] == starts, "no stale record"

        hanging = set()
        for bin in range(64):
            block, previous = (book[bin], 0) if bins >> bin & 1 else (0, 0)
            assert bool(block) == bool(bins >> bin & 1)
            while block:
                size, next_, before = free[block]
                assert bin_of(size) == bin
                assert before == previous
                hanging.add(block)
                block, previous = next_, block
        assert hanging == set(free), "each free block hangs in its bin"


def bin_of(size: int) -> int:
    """Two bins for each power of two."""
    log = size.bit_length() - 1
    return 2 * log + (size * 2 >= 3 * 2**log)


# ---- everything at once, against a model ----------------------------------------------------------------------------------------------

EDGES = [
    0,
    1,
    31,
    32,
    33,
    511,
    512,
    513,
    2 * PAGE - 8,
    2 * PAGE - 1,
    2 * PAGE,
    2**31,
    2**32 - 8,
    2**32 - 1,
    2**32,
    2**32 + 512,
    2**63,
]
EDGES += [MASK, MASK - 7, MASK - 31, 2**64 - 512, 2**37, 2**37 + 512, (1 << 32 + 5) + 512]
anywhere = st.one_of(
    st.sampled_from(EDGES),
    st.integers(0, 20000),
    st.integers(0, 625).map(lambda n: n * GRANULE),
    st.integers(0, MASK),
)
around_powers = st.builds(
    lambda log, off: max(1, (1 << log) + off), st.integers(0, 18), st.integers(-33, 33)
)
sizes = st.one_of(
    st.integers(1, 200),
    st.integers(1, 200),
    around_powers,
    st.sampled_from([0, LARGEST, LARGEST + 1, 2**40, MASK, 2**31]),
)
MODEL_PAGES = 12


class KernelAndModel(RuleBasedStateMachine):
    """A guest, and a host between its calls, doing anything in any order."""

    @initialize()
    def start(self) -> None:
        self.rig = Rig(MODEL_PAGES)
        self.as_new()

    def as_new(self) -> None:
        self.live: dict[int, int] = {}
        self.taken: list[int] = []
        self.input = self.output = self.error = (0, 0)
        self.fault = self.denied = 0

    def owned(self, offset: int, length: int) -> bool:
        return any(
            start <= offset < start + size and length <= start + size - offset
            for start, size in self.live.items()
        )

    def pick(self, data: st.DataObject) -> int:
        return data.draw(st.sampled_from(sorted(self.live)))

    @rule(size=sizes)
    def alloc(self, size: int) -> None:
        before, top, asked = self.rig.memory_bytes(), self.rig.top(), len(self.rig.owner.asked)
        offset = self.rig.alloc(size)
        if offset:
            assert 0 < size <= LARGEST
            assert offset % GRANULE == 0
            assert offset >= INPUT_OFFSET
            assert offset + size <= self.rig.memory_bytes()
            assert not any(
                offset < start + length and start < offset + size
                for start, length in self.live.items()
            ), "it overlaps"
            self.live[offset] = size
            self.some_are_released(at_least=4)
            assert not any(offset <= start < offset + size for start in self.taken), (
                "it overlaps what was taken"
            )
        else:
            needed = top * GRANULE + size
            assert size == 0 or needed > MODEL_PAGES * PAGE, "refused though there is room"
            assert self.rig.memory_bytes() == before
            if 0 < size <= LARGEST:
                self.taken = []
            if size:
                self.denied = size
        assert self.rig.memory_bytes() <= MODEL_PAGES * PAGE
        if size == 0 or size > LARGEST:
            assert len(self.rig.owner.asked) == asked

    def some_are_released(self, at_least: int) -> None:
        """Those that were taken first may have been, if there was no room."""
        count = self.rig.taken()
        assert count == len(self.taken) or count in (0, at_least)
        self.taken = self.taken[len(self.taken) - count :]

    @precondition(lambda self: self.live)
    @rule(data=st.data(), count=st.integers(1, 3))
    def the_host_takes(self, data: st.DataObject, count: int) -> None:
        for _ in range(min(count, len(self.live))):
            offset = self.pick(data)
            self.rig.kernel.free(offset)
            del self.live[offset]
            self.taken.append(offset)
            self.rig.kernel.free(offset)

    @precondition(lambda self: self.taken)
    @rule(data=st.data())
    def free_what_was_taken(self, data: st.DataObject) -> None:
        self.rig.free(data.draw(st.sampled_from(self.taken)))

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def free(self, data: st.DataObject) -> None:
        offset = self.pick(data)
        self.rig.free(offset)
        del self.live[offset]

    @rule(offset=anywhere)
    def free_anything(self, offset: int) -> None:
        self.rig.free(offset)
        self.live.pop(offset, None)

    @rule(offset=anywhere)
    def length_of_anything(self, offset: int) -> None:
        expected = self.live.get(offset, 0)
        assert (
            self.rig.length(offset)
            == self.rig.length_unsafe(offset)
            == self.rig.kernel.length(offset)
            == expected
        )
        block = self.rig.kernel.block(offset)
        assert (0 if block is None else len(block)) == expected

    @precondition(lambda self: self.live)
    @rule(data=st.data(), shift=st.sampled_from([-32, -31, -1, 1, 8, 31, 32, 2**32, 2**37]))
    def length_next_to_a_block(self, data: st.DataObject, shift: int) -> None:
        self.length_of_anything(max(self.pick(data) + shift, 0))

    @rule(size=st.integers(1, 5000))
    def the_host_puts_something(self, size: int) -> None:
        offset = self.rig.kernel.new_block(b"h" * size)
        self.some_are_released(at_least=4)
        if not offset:
            self.denied = size
        if offset:
            self.live[offset] = size
            assert bytes(self.rig.kernel.view(offset, size)) == b"h" * size

    @precondition(lambda self: self.live)
    @rule(data=st.data(), length=anywhere)
    def output_at_a_block(self, data: st.DataObject, length: int) -> None:
        start = self.pick(data)
        inside = start + data.draw(st.integers(0, self.live[start]))
        rest = start + self.live[start] - inside
        self.set_output(
            inside, data.draw(st.sampled_from([length, rest, rest + 1, max(rest - 1, 0), 0]))
        )

    @rule(offset=anywhere, length=anywhere)
    def set_output(self, offset: int, length: int) -> None:
        self.rig.output_set(offset, length)
        good = length == 0 or self.owned(offset, length)
        self.fault = self.fault & ~FAULT_OUTPUT | (0 if good else FAULT_OUTPUT)
        self.output = (offset if length else 0, length)

    @precondition(lambda self: self.live)
    @rule(data=st.data(), offset=anywhere, length=anywhere)
    def set_input(self, data: st.DataObject, offset: int, length: int) -> None:
        if data.draw(st.booleans()):
            start = self.pick(data)
            offset = start + data.draw(st.integers(0, self.live[start] - 1))
            length = data.draw(st.integers(0, self.live[start] + 1))
        self.rig.input_set(offset, length)
        if length == 0:
            self.input = (0, 0)
        elif self.owned(offset, length):
            self.input = (offset, length)
        else:
            self.fault |= FAULT_INPUT

    @rule(data=st.data(), offset=anywhere)
    def set_error(self, data: st.DataObject, offset: int) -> None:
        if self.live and data.draw(st.booleans()):
            offset = self.pick(data)
        self.rig.error_set(offset)
        length = self.live.get(offset, 0)
        self.error = (offset, length)
        self.fault &= ~(FAULT_ERROR | FAULT_ERROR_HANDLE)
        if offset:
            self.fault |= FAULT_ERROR if length else FAULT_ERROR_HANDLE

    @rule(offset=anywhere, value=st.integers(0, MASK))
    def store(self, offset: int, value: int) -> None:
        end = self.rig.memory_bytes()
        self.rig.store_u64(offset, value)
        assert self.rig.load_u64(offset) == (value if offset <= end - 8 else 0)
        self.rig.store_u8(offset, value & 0xFFFFFFFF)
        assert self.rig.load_u8(offset) == (value & 0xFF if offset < end else 0)

    @rule(value=st.sampled_from([0, MASK, 0x8000000180000001]))
    def scribble_over_everything(self, value: int) -> None:
        self.rig.run("scribble", 0, self.rig.memory_bytes() + 16, value)

    @rule(index=anywhere)
    def read_the_input(self, index: int) -> None:
        offset, length = self.input
        heap = self.rig.kernel.view(0, self.rig.memory_bytes())
        assert self.rig.input_load_u8(index) == (heap[offset + index] if index < length else 0)
        word = (
            int.from_bytes(heap[offset + index : offset + index + 8], "little")
            if index + 8 <= length
            else 0
        )
        assert self.rig.input_load_u64(index) == word

    @rule()
    def reset(self) -> None:
        self.rig.reset()
        self.as_new()

    @rule(length=st.one_of(st.integers(0, 100), st.integers(0, 300_000)))
    def call(self, length: int) -> None:
        data = bytes(range(256)) * (length // 256 + 1)
        assert self.rig.call("ok", data[:length]) == (0, 0, 0)
        self.as_new()
        if length:
            self.live[INPUT_OFFSET] = length
            self.input = (INPUT_OFFSET, length)
            assert self.rig.kernel.block(INPUT_OFFSET) == data[:length]

    @invariant()
    def agree(self) -> None:
        rig = self.rig
        assert (rig.input_offset(), rig.input_length()) == self.input
        assert (rig.output_offset(), rig.output_length()) == self.output
        assert rig.error_get() == self.error[0]
        assert rig.failure() == (self.fault, *self.error, *self.output, self.denied)
        for offset, length in self.live.items():
            assert rig.length(offset) == length
            assert rig.kernel.length(offset) == length
        assert len(rig.kernel.view(0, rig.memory_bytes())) == rig.memory_bytes()
        rig.check_books(self.live, self.taken)


KernelAndModel.TestCase.settings = settings(
    max_examples=80,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


class TestKernelAgreesWithTheModel(KernelAndModel.TestCase):  # type: ignore[name-defined,misc]
    pass


# ---- allocating -----------------------------------------------------------------------------------------------------------------------


@given(
    around=st.lists(st.tuples(st.integers(1, 20), st.integers(-1, 1)), min_size=1, max_size=30),
    order=st.randoms(use_true_random=False),
)
@settings(max_examples=60, deadline=None)
def test_after_everything_was_freed_in_any_order_the_memory_is_one_piece_again(
    around: list[tuple[int, int]], order: Any
) -> None:
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


def test_sizes_around_powers_of_two_go_to_the_right_bin() -> None:
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
def test_a_freed_block_is_the_next_of_its_size(granules: int) -> None:
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


def test_a_larger_free_block_is_cut_and_grows_together_again() -> None:
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
def test_a_loop_of_alloc_and_free_does_not_grow(size: int) -> None:
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


def test_a_free_block_of_the_right_bin_that_is_too_small_is_left_alone() -> None:
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
def test_a_free_block_of_the_next_bin_is_used_before_new_space(granules: int) -> None:
    rig = Rig(64)
    larger = next(
        size for size in range(granules, 2 * granules + 2) if bin_of(size) > bin_of(granules)
    )
    block, fence = rig.alloc(larger * GRANULE), rig.alloc(1)
    rig.free(block)
    assert rig.alloc(granules * GRANULE) == block
    rig.check_books({fence: 1, block: granules * GRANULE})


def test_two_sizes_of_one_bin_in_turn_do_not_grow_without_end() -> None:
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
    assert rig.memory_bytes() == FIRST_PAGES * PAGE


def test_alloc_of_nothing_is_the_null_handle() -> None:
    rig = Rig()
    assert rig.alloc(0) == 0
    assert rig.length(0) == 0
    rig.free(0)
    rig.check_books({})


@pytest.mark.parametrize(
    "size", [LARGEST + 1, 2**32 - 1, 2**32, 2**32 + 1, 2**37, 2**40, 2**63, MASK - 31, MASK]
)
def test_alloc_of_more_than_there_can_be_is_refused_without_asking(size: int) -> None:
    rig = Rig(2**32)
    assert rig.alloc(size) == 0
    assert rig.reserve(size) == 0
    assert rig.owner.asked == []
    assert rig.memory_bytes() == FIRST_PAGES * PAGE
    rig.check_books({})


def test_alloc_beyond_the_limit_is_refused_and_takes_no_memory() -> None:
    rig = Rig(3)
    assert rig.alloc(2**31) == 0
    assert rig.memory_bytes() == FIRST_PAGES * PAGE
    fitting = 3 * PAGE - INPUT_OFFSET
    assert rig.alloc(fitting + 1) == 0
    assert rig.memory_bytes() == FIRST_PAGES * PAGE
    assert rig.alloc(fitting) == INPUT_OFFSET
    assert rig.memory_bytes() == 3 * PAGE
    assert rig.alloc(1) == 0
    rig.free(INPUT_OFFSET)
    assert rig.alloc(1) == INPUT_OFFSET


def test_growing_by_what_is_needed_still_works_where_a_spare_quarter_is_not_granted() -> None:
    rig = Rig(101)
    assert rig.alloc(100 * PAGE - INPUT_OFFSET) == INPUT_OFFSET
    rig.owner.asked.clear()
    assert rig.alloc(1)
    assert rig.owner.asked == [OPTIONAL_GROWTH | 125, 101, 0], "and then it says that it is done"
    assert rig.memory_bytes() == 101 * PAGE


@pytest.mark.parametrize("pages", range(2, 12))
def test_every_granule_of_every_size_of_heap_has_a_record(pages: int) -> None:
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


def test_four_gib_can_be_used_to_the_last_byte() -> None:
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


# ---- loads and stores -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pages", [2, 3])
def test_loads_and_stores_at_the_end_of_memory_never_trap(pages: int) -> None:
    rig = Rig(pages)
    if pages > FIRST_PAGES:
        assert rig.alloc(pages * PAGE - INPUT_OFFSET)
    end = rig.memory_bytes()
    assert end == pages * PAGE
    for offset in [
        *range(end - 9, end + 10),
        2**32 - 1,
        2**32,
        2**32 + 8,
        2**33 + 64,
        2**63,
        *range(MASK - 9, MASK + 1),
    ]:
        rig.store_u64(offset, MASK)
        assert rig.load_u64(offset) == (MASK if offset <= end - 8 else 0), hex(offset)
        rig.store_u8(offset, 0x1FF)
        assert rig.load_u8(offset) == (0xFF if offset < end else 0), hex(offset)
        rig.run("scribble", end - 16, end - 1, 0)
    assert rig.load_u64(0) == rig.load_u64(64) == 0, "no offset wrapped around"


def test_a_store_that_crosses_the_end_writes_nothing() -> None:
    rig = Rig()
    end = rig.memory_bytes()
    for offset in range(end - 7, end):
        rig.store_u64(offset, MASK)
    assert rig.load_u64(end - 8) == 0


def test_the_input_is_read_up_to_its_end_and_not_beyond() -> None:
    rig = Rig()
    for length in (0, 1, 7, 8, 9, 16):
        data = bytes(range(1, length + 1))
        rig.call("ok", data)
        rig.run("scribble", INPUT_OFFSET + -(-length // 8) * 8, INPUT_OFFSET + 64, MASK)
        for index in [*range(length + 9), 2**32 - 8, 2**32, MASK - 8, MASK - 7, MASK]:
            assert rig.input_load_u8(index) == (data[index] if index < length else 0)
            assert rig.input_load_u64(index) == (
                int.from_bytes(data[index : index + 8], "little") if index + 8 <= length else 0
            )


def test_whatever_is_stored_the_books_do_not_change() -> None:
    rig = Rig()
    live = {offset: size for size in (1, 40, 4000, 32, 90_000) if (offset := rig.alloc(size))}
    victims = [offset for offset, size in live.items() if size in (40, 32)]
    for offset in victims:
        rig.free(offset)
        del live[offset]
    before = bytes(rig.records())
    for value in (0, MASK, 0x80000001_80000001, 1):
        rig.run("scribble", 0, rig.memory_bytes() + 64, value)
        for start in live:
            for offset in range(start - 16, start + 17):
                rig.store_u8(offset, value)
        assert bytes(rig.records()) == before
    rig.check_books(live)
    more = {offset: 40 for _ in range(3) if (offset := rig.alloc(40))}
    rig.check_books(live | more)
    for offset in [*live, *more]:
        rig.free(offset)
    rig.check_books({})


def test_the_kernel_itself_writes_nothing_into_the_memory_of_guests() -> None:
    rig = Rig()
    rig.run("scribble", 0, rig.memory_bytes(), 0xA5A5A5A5A5A5A5A5)
    blocks = [rig.alloc(size) for size in (1, 33, 500, 7000, 20_000)]
    for block in blocks[::2]:
        rig.free(block)
    rig.output_set(blocks[1], 1)
    rig.error_set(blocks[1])
    rig.input_set(blocks[1], 1)
    rig.reset()
    assert set(bytes(rig.kernel.view(0, rig.memory_bytes()))) == {0xA5}


# ---- input, output, error -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shift", "length", "good"),
    [
        (0, 100, True),
        (0, 101, False),
        (0, MASK, False),
        (1, 99, True),
        (1, 100, False),
        (1, MASK, False),
        (1, MASK - 1, False),
        (99, 1, True),
        (99, 2, False),
        (100, 1, False),  # the block has 128 bytes, but only 100 are its own
        (127, 1, False),
        (128, 1, True),  # that is the next block
        (-1, 1, False),
        (-1, 2, False),
        (-600, 1, False),
        (2**32, 1, False),
        (2**37, 1, False),
        (2**63, 2**63, False),
        (100, 0, True),
        (MASK - 2000, 0, True),
    ],
)
def test_an_output_must_lie_in_one_live_block(shift: int, length: int, good: bool) -> None:
    rig = Rig()
    before = rig.alloc(100)
    block = rig.alloc(100)
    rig.alloc(100)
    rig.free(before)
    rig.output_set(block + shift, length)
    assert rig.failure()[0] == (0 if good else FAULT_OUTPUT)
    rig.output_set(block, 100)
    assert rig.failure()[0] == 0, "a good one makes up for a bad one"


def test_an_output_across_two_live_blocks_is_refused() -> None:
    rig = Rig()
    block, other = rig.alloc(32), rig.alloc(32)
    assert other == block + 32
    for offset in (block, block + 16):
        rig.output_set(offset, 33)
        assert rig.failure()[0] == FAULT_OUTPUT
    rig.free(block)
    rig.output_set(block, 1)
    assert rig.failure()[0] == FAULT_OUTPUT


def test_an_output_freed_after_it_was_set_is_still_inside_the_memory() -> None:
    rig = Rig()
    block = rig.alloc(100)
    rig.output_set(block, 100)
    rig.free(block)
    fault, *_, offset, length, _ = rig.failure()
    assert (fault, offset, length) == (0, block, 100)
    assert len(rig.kernel.view(offset, length)) == 100


def test_a_bad_input_range_leaves_the_input_as_it_was() -> None:
    rig = Rig()
    rig.call("ok", b"abc")
    rig.input_set(INPUT_OFFSET, 4)
    assert (rig.input_offset(), rig.input_length()) == (INPUT_OFFSET, 3)
    assert rig.failure()[0] == FAULT_INPUT
    assert rig.input_load_u8(0) == ord("a")


def test_the_error_is_the_text_of_a_block_and_the_last_one_counts() -> None:
    rig = Rig()
    good = rig.kernel.new_block(b"went wrong")
    rig.error_set(good + 1)
    assert rig.kernel.read_failure()[:3] == (FAULT_ERROR_HANDLE, good + 1, b"")
    rig.error_set(good)
    assert rig.kernel.read_failure()[:3] == (FAULT_ERROR, good, b"went wrong")
    rig.error_set(MASK)
    assert rig.kernel.read_failure()[:3] == (FAULT_ERROR_HANDLE, MASK, b"")
    rig.kernel.set_error(good)
    rig.error_set(0)
    assert rig.kernel.read_failure()[:3] == (0, 0, b"")


# ---- calls ----------------------------------------------------------------------------------------------------------------------------


def test_a_status_tells_code_and_fault_apart() -> None:
    rig = Rig()
    assert rig.call("ok")[0] == 0
    assert rig.call("seven")[0] == 7
    assert rig.call("minus_one")[0] == 0xFFFFFFFF
    assert rig.call("nothing", returns_code=False)[0] == 0


def test_every_call_begins_as_new() -> None:
    rig = Rig()
    rig.output_set(12345, 1)
    rig.error_set(12345)
    rig.input_set(12345, 1)
    rig.alloc(100_000)
    assert rig.call("ok", b"x" * 77) == (0, 0, 0)
    assert rig.failure() == (0, 0, 0, 0, 0, 0)
    rig.check_books({INPUT_OFFSET: 77})
    with pytest.raises(Trap, match="unreachable"):
        rig.call("traps", returns_code=False)
    assert rig.call("ok") == (0, 0, 0)
    rig.check_books({})


def test_an_entry_is_called_only_with_a_function_of_its_type() -> None:
    rig = Rig()
    with pytest.raises(Trap, match="indirect call with a wrong type"):
        rig.call("rounds")
    with pytest.raises(Trap, match="indirect call with a wrong type"):
        rig.call("ok", returns_code=False)
    entry = rig.kernel.entry(True)
    entry.values[0] = entry.values[2] = 0
    with pytest.raises(Trap, match="empty table entry"):
        entry.call(rig.owner.pending)


@pytest.mark.parametrize("over", [-1, 0, 1])
def test_an_input_may_fill_the_memory_but_not_exceed_it(over: int) -> None:
    rig = Rig(2)
    size = 2 * PAGE - INPUT_OFFSET
    entry = rig.kernel.entry(True)
    entry.values[0] = rig.guest.funcref(ExportName("ok"))
    entry.values[2] = size + over
    if over <= 0:
        entry.call(rig.owner.pending)
        rig.check_books({INPUT_OFFSET: size + over})
    else:
        with pytest.raises(Trap):
            entry.call(rig.owner.pending)
    assert rig.kernel.capacity <= size


def test_room_for_an_input_is_made_up_to_the_limit() -> None:
    rig = Rig(5)
    assert not rig.kernel.reserve(5 * PAGE - INPUT_OFFSET + 1)
    assert rig.memory_bytes() == 2 * PAGE
    assert rig.kernel.reserve(5 * PAGE - INPUT_OFFSET)
    data = bytes(range(256)) * (5 * 256 - 2)
    assert len(data) == 5 * PAGE - INPUT_OFFSET
    rig.kernel.heap[INPUT_OFFSET:] = data
    entry = rig.kernel.entry(True)
    entry.values[0], entry.values[2] = rig.guest.funcref(ExportName("ok")), len(data)
    entry.call(rig.owner.pending)
    assert rig.kernel.block(INPUT_OFFSET) == data


# ---- work grows with what is done ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("work", "count"), [("rounds", 8000), ("churn", 8000)])
def test_twice_the_rounds_take_twice_the_steps(work: str, count: int) -> None:
    once, twice = (Rig(100, fuel=True).fuel_of(work, n) for n in (count, 2 * count))
    assert 1.9 * once < twice <= 2.1 * once


def test_the_length_of_the_last_of_many_blocks_takes_no_more_steps_than_of_the_first() -> None:
    rig = Rig(100, fuel=True)
    for _ in range(10_000):
        rig.alloc(1)

    def steps(offset: int) -> int:
        before = rig.store.fuel()
        rig.length(offset)
        return before - rig.store.fuel()

    assert steps(INPUT_OFFSET) == steps(INPUT_OFFSET + 9999 * GRANULE)


# ---- the host's view ------------------------------------------------------------------------------------------------------------------


@given(offset=st.one_of(anywhere, st.integers(0, 2**80)), pages=st.integers(2, 9))
@settings(max_examples=80, deadline=None)
def test_the_host_finds_a_length_only_where_a_block_starts(offset: int, pages: int) -> None:
    rig = Rig(pages)
    live = {}
    while block := rig.alloc(9000):
        live[block] = 9000
    rig.free(next(iter(live)))
    del live[next(iter(live))]
    rig.run("scribble", 0, rig.memory_bytes(), MASK)
    assert rig.kernel.length(offset) == live.get(offset, 0)
    assert (rig.kernel.block(offset) is None) == (offset not in live)
    for start in live:
        assert rig.kernel.length(start) == 9000
        for near in (start - 32, start - 1, start + 1, start + 32):
            assert rig.kernel.length(near) == live.get(near, 0)


def test_the_heads_of_the_bins_are_not_taken_for_blocks() -> None:
    rig = Rig()
    block, _ = rig.alloc(40), rig.alloc(1)
    rig.free(block)
    assert any(rig.records()[: 4 * FIRST_GRANULE]), "there is something to be mistaken"
    assert [rig.kernel.length(offset) for offset in range(INPUT_OFFSET)] == [0] * INPUT_OFFSET


def test_views_stay_good_while_the_memory_grows() -> None:
    rig = Rig(1000)
    first = rig.kernel.new_block(b"first")
    view, heap = rig.kernel.block(first), rig.kernel.heap
    assert view is not None
    blocks = [rig.alloc(300_000) for _ in range(20)]
    assert all(blocks)
    assert view == b"first"
    view[:] = b"FIRST"
    assert rig.load_u8(first) == ord("F")
    assert len(heap) == FIRST_PAGES * PAGE
    assert rig.kernel.length(blocks[-1]) == 300_000
    last = rig.kernel.block(blocks[-1])
    assert last is not None
    last[-1] = 5
    assert rig.load_u8(blocks[-1] + 299_999) == 5


def test_the_host_sees_blocks_that_the_guest_made_by_growing() -> None:
    rig = Rig(1000)
    assert rig.kernel.length(rig.alloc(10)) == 10
    for _ in range(30):
        block = rig.alloc(50_000)
        assert rig.kernel.length(block) == 50_000
        assert len(rig.kernel.view(block, 50_000)) == 50_000


def test_what_the_host_puts_is_there_also_where_the_memory_must_grow() -> None:
    rig = Rig(1000)
    data = bytes(range(256)) * 2000
    offsets = [rig.kernel.new_block(data) for _ in range(5)]
    assert all(rig.kernel.block(offset) == data for offset in offsets)
    assert rig.kernel.new_block(b"") == 0
    assert Rig(2).kernel.new_block(data) == 0


def test_an_exception_while_growing_reaches_whoever_asked_and_the_books_stay_right() -> None:
    rig = Rig(1000)
    block = rig.alloc(100)
    rig.owner.raises = LookupError("from the owner")
    with pytest.raises((LookupError, HostRaised)) as caught:
        rig.alloc(300_000)
    assert isinstance(getattr(caught.value, "exception", caught.value), LookupError)
    rig.owner.raises = None
    rig.check_books({block: 100})
    assert rig.alloc(300_000)
    rig.check_books({block: 100, block + 128: 300_000})


def test_plugins_can_import_what_the_contract_names_and_nothing_else() -> None:
    _, kernel, _ = modules(False)
    assert set(kernel.exports) >= _kernel.KERNEL_FUNCTIONS
    hidden = (
        set(kernel.exports) - _kernel.KERNEL_FUNCTIONS - {"top", "last", "bins", "bin", "taken"}
    )
    assert hidden == {
        "memory",
        "book",
        "reserve",
        "take",
        "call_returning_code",
        "call_returning_nothing",
        "failure",
    }
