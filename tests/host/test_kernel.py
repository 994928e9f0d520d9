"""The kernel compared with a simple model, and its bookkeeping checked against its rules."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from plugwasm._engine import (
    ExportName,
    HostRaised,
    Trap,
)
from plugwasm._host import env
from plugwasm._host import kernel as _kernel
from plugwasm._host.kernel import (
    FAULT_ERROR,
    FAULT_ERROR_HANDLE,
    FAULT_INPUT,
    FAULT_OUTPUT,
    INPUT_OFFSET,
)
from plugwasm._manifest.limits import INITIAL_PAGES
from tests.support.kernel_rig import (
    EDGES,
    FIRST_GRANULE,
    GRANULE,
    LARGEST,
    MASK,
    PAGE,
    Rig,
    modules,
)

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
        """The oldest taken blocks may have been released, if there was no room."""
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


class TestKernelAgreesWithTheModel(KernelAndModel.TestCase):
    pass


# ---- loads and stores ----------------------------------------------------------------------------


@pytest.mark.parametrize("pages", [2, 3])
def test_access_at_end_of_memory(pages: int) -> None:
    """Loads and stores at the end of memory never trap."""
    rig = Rig(pages)
    if pages > INITIAL_PAGES:
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


def test_store_across_end_writes_nothing() -> None:
    """A store that crosses the end writes nothing."""
    rig = Rig()
    end = rig.memory_bytes()
    for offset in range(end - 7, end):
        rig.store_u64(offset, MASK)
    assert rig.load_u64(end - 8) == 0


def test_input_is_read_to_its_end() -> None:
    """The input can be read up to its end and not beyond."""
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


def test_stores_do_not_change_records() -> None:
    """Stores do not change the kernel's records, whatever they write."""
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


def test_kernel_leaves_guest_memory_alone() -> None:
    """The kernel itself writes nothing into the guest's blocks."""
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


# ---- input, output, error ------------------------------------------------------------------------


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
def test_output_must_be_in_live_block(shift: int, length: int, good: bool) -> None:
    """An output must lie in one live block."""
    rig = Rig()
    before = rig.alloc(100)
    block = rig.alloc(100)
    rig.alloc(100)
    rig.free(before)
    rig.output_set(block + shift, length)
    assert rig.failure()[0] == (0 if good else FAULT_OUTPUT)
    rig.output_set(block, 100)
    assert rig.failure()[0] == 0, "a good one makes up for a bad one"


def test_output_across_blocks_is_refused() -> None:
    """An output across two live blocks is refused."""
    rig = Rig()
    block, other = rig.alloc(32), rig.alloc(32)
    assert other == block + 32
    for offset in (block, block + 16):
        rig.output_set(offset, 33)
        assert rig.failure()[0] == FAULT_OUTPUT
    rig.free(block)
    rig.output_set(block, 1)
    assert rig.failure()[0] == FAULT_OUTPUT


def test_output_freed_after_set() -> None:
    """An output freed after it was set is still inside the memory."""
    rig = Rig()
    block = rig.alloc(100)
    rig.output_set(block, 100)
    rig.free(block)
    fault, *_, offset, length, _ = rig.failure()
    assert (fault, offset, length) == (0, block, 100)
    assert len(rig.kernel.view(offset, length)) == 100


def test_bad_input_range_keeps_input() -> None:
    """A bad input range leaves the input unchanged."""
    rig = Rig()
    rig.call("ok", b"abc")
    rig.input_set(INPUT_OFFSET, 4)
    assert (rig.input_offset(), rig.input_length()) == (INPUT_OFFSET, 3)
    assert rig.failure()[0] == FAULT_INPUT
    assert rig.input_load_u8(0) == ord("a")


def test_last_error_counts() -> None:
    """The error is the text of a block, and the last one counts."""
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


# ---- calls ---------------------------------------------------------------------------------------


def test_status_code_and_fault() -> None:
    """The status distinguishes a code from a fault."""
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


def test_entry_type_is_checked() -> None:
    """An entry is called only with a function of its type."""
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
def test_input_may_fill_memory(over: int) -> None:
    """An input may fill the memory but not exceed it."""
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


def test_input_space_up_to_limit() -> None:
    """Space for an input grows up to the limit."""
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


# ---- work grows with what is done ----------------------------------------------------------------


@pytest.mark.parametrize(("work", "count"), [("rounds", 8000), ("churn", 8000)])
def test_steps_are_linear(work: str, count: int) -> None:
    """Twice the rounds take twice the steps."""
    once, twice = (Rig(100, fuel=True).fuel_of(work, n) for n in (count, 2 * count))
    assert 1.9 * once < twice <= 2.1 * once


def test_length_takes_constant_steps() -> None:
    """The length of the last of many blocks takes no more steps than that of the first."""
    rig = Rig(100, fuel=True)
    for _ in range(10_000):
        rig.alloc(1)

    def steps(offset: int) -> int:
        before = rig.store.fuel()
        rig.length(offset)
        return before - rig.store.fuel()

    assert steps(INPUT_OFFSET) == steps(INPUT_OFFSET + 9999 * GRANULE)


# ---- the host's view -----------------------------------------------------------------------------


@given(offset=st.one_of(anywhere, st.integers(0, 2**80)), pages=st.integers(2, 9))
@settings(max_examples=80, deadline=None)
def test_host_finds_length_at_block_start(offset: int, pages: int) -> None:
    """The host finds a length only at the start of a block."""
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


def test_bin_heads_are_not_blocks() -> None:
    """The heads of the bins are not blocks."""
    rig = Rig()
    block, _ = rig.alloc(40), rig.alloc(1)
    rig.free(block)
    assert any(rig.records()[: 4 * FIRST_GRANULE]), "there is something to be mistaken"
    assert [rig.kernel.length(offset) for offset in range(INPUT_OFFSET)] == [0] * INPUT_OFFSET


def test_views_survive_growth() -> None:
    """Views stay valid while the memory grows."""
    rig = Rig(1000)
    first = rig.kernel.new_block(b"first")
    view, heap = rig.kernel.block(first), rig.kernel.heap
    assert view is not None
    blocks = [rig.alloc(300_000) for _ in range(20)]
    assert all(blocks)
    assert view == b"first"
    view[:] = b"FIRST"
    assert rig.load_u8(first) == ord("F")
    assert len(heap) == INITIAL_PAGES * PAGE
    assert rig.kernel.length(blocks[-1]) == 300_000
    last = rig.kernel.block(blocks[-1])
    assert last is not None
    last[-1] = 5
    assert rig.load_u8(blocks[-1] + 299_999) == 5


def test_host_sees_blocks_after_growth() -> None:
    """The host sees blocks that the guest created by growing."""
    rig = Rig(1000)
    assert rig.kernel.length(rig.alloc(10)) == 10
    for _ in range(30):
        block = rig.alloc(50_000)
        assert rig.kernel.length(block) == 50_000
        assert len(rig.kernel.view(block, 50_000)) == 50_000


def test_host_put_grows_memory() -> None:
    """A block that the host puts is there also if the memory must grow."""
    rig = Rig(1000)
    data = bytes(range(256)) * 2000
    offsets = [rig.kernel.new_block(data) for _ in range(5)]
    assert all(rig.kernel.block(offset) == data for offset in offsets)
    assert rig.kernel.new_block(b"") == 0
    assert Rig(2).kernel.new_block(data) == 0


def test_exception_while_growing() -> None:
    """An exception while growing reaches the caller, and the bookkeeping stays right."""
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


def test_importable_functions() -> None:
    """Plugins can import the functions of the contract and nothing else."""
    _, kernel, _ = modules(False)
    assert set(kernel.exports) >= _kernel.KERNEL_FUNCTIONS
    hidden = (
        set(kernel.exports)
        - _kernel.KERNEL_FUNCTIONS
        - _kernel.TABLE_FUNCTIONS
        - {"top", "last", "bins", "bin", "taken"}
    )
    for name in _kernel.TABLE_FUNCTIONS:
        assert kernel.exports[name].type == env.FUNCTIONS[name].type

    assert hidden == {
        "memory",
        "book",
        "reserve",
        "take",
        "call_returning_code",
        "call_returning_nothing",
        "failure",
    }
