"""A kernel and a guest in a store, driven through the engine layer.

The kernel is compiled with a few more exports, which show the registers of its allocator.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from plugwasm._engine import (
    Engine,
    Environment,
    ExportName,
    FunctionType,
    HostFunction,
    Module,
    Store,
    wat_to_wasm,
)
from plugwasm._host import kernel as _kernel
from plugwasm._host.kernel import (
    INPUT_OFFSET,
    RECORDS,
    Kernel,
)
from plugwasm._host.kernel.table import TABLE_BYTES
from plugwasm._host.memory_budget import OPTIONAL_GROWTH
from plugwasm._runtime.modules import get_engine

PAGE = 65536
GRANULE = 32
FIRST_GRANULE = INPUT_OFFSET // GRANULE
LIVE = 1 << 31
TAKEN = 1 << 30
MASK = 2**64 - 1
LARGEST = 0xFFFF0000

REGISTERS = b"""
  (func (export "top") (result i32) (i32.load $book offset=28928 (i32.const 0)))
  (func (export "last") (result i32) (i32.load $book offset=28932 (i32.const 0)))
  (func (export "bins") (result i64) (i64.load $book offset=28936 (i32.const 0)))
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
    """The kernel's owner, in the place of a plugin: it allows growth up to so many pages."""

    __slots__ = ("asked", "max_pages", "raises", "serve", "vars")

    def __init__(self, max_pages: int) -> None:
        super().__init__()
        self.max_pages = max_pages
        self.asked: list[int] = []
        self.raises: BaseException | None = None
        self.serve: Any = None
        """Serves requests other than for growth."""
        self.vars: Any = None


def _may_grow(owner: Any, caller: int, values: Any) -> None:
    if values[4] & 0xFF:
        owner.serve(values)
        return
    pages = values[0] & 0xFFFFFFFF
    owner.asked.append(pages)
    if owner.raises is not None:
        raise owner.raises
    values[0] = pages & ~OPTIONAL_GROWTH <= owner.max_pages


MAY_GROW = HostFunction(FunctionType(("i64", "i64", "i32"), ("i64",)), _may_grow)


@functools.cache
def modules(fuel: bool, pooled: bool = False) -> tuple[Engine, Module, Module]:
    if pooled:  # what is compiled without a pool is loaded there
        own, *plain = get_engine(pooled=True), *modules(fuel)[1:]
        assert own.pooled, "there is not enough address space for a pool"
        kernel, guest = (own.load(module.serialize()) for module in plain)
        return own, kernel, guest
    own = Engine(fuel=fuel)
    source = _kernel.read_source().rstrip()
    assert source.endswith(b")")
    return own, own.compile(wat_to_wasm(source[:-1] + REGISTERS)), own.compile(wat_to_wasm(GUEST))


class Rig:
    """A kernel and a guest in one store. `rig.alloc(8)` calls the kernel's export,
    `rig.run("ok")` the guest's."""

    def __init__(self, max_pages: int = 16, fuel: bool = False, pooled: bool = False) -> None:
        own, kernel, guest = modules(fuel, pooled)
        self.owner = Owner(max_pages)
        self.store = Store(own, self.owner)
        if fuel:
            self.store.set_fuel(2**40)
        self.instance = self.store.instantiate(
            kernel, self.store.make_import(MAY_GROW), self.owner.pending
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
        """Make a call as the host does: input, entry, status and output."""
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
        return self.instance.memory(ExportName("book")).view()[RECORDS:].cast("I")

    def check_books(self, live: dict[int, int], taken: Sequence[int] = ()) -> None:
        """Check the rules in the comment of kernel.wat, and that exactly these blocks are live
        and these were taken, in order."""
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

        heads = self.instance.memory(ExportName("book")).view()[TABLE_BYTES:].cast("I")
        hanging = set()
        for bin in range(64):
            block, previous = (heads[bin], 0) if bins >> bin & 1 else (0, 0)
            assert bool(block) == bool(bins >> bin & 1)
            while block:
                size, next_, before = free[block]
                assert bin_of(size) == bin
                assert before == previous
                hanging.add(block)
                block, previous = next_, block
        assert hanging == set(free), "each free block hangs in its bin"


def bin_of(size: int) -> int:
    """Return the number of a size's bin: there are two bins per power of two."""
    log = size.bit_length() - 1
    return 2 * log + (size * 2 >= 3 * 2**log)


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
