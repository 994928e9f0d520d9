"""Vars in the kernel's table: the same as in a dict, whatever comes in between."""

from __future__ import annotations

import random
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugwasm import CompiledPlugin, GuestError, Limits, Plugin
from plugwasm._host.kernel import INPUT_OFFSET
from plugwasm._host.kernel.table import HAS_VARS, RECALL, Table
from plugwasm._host.vars import Vars
from tests.support.guests import LOOP, export, guest, number
from tests.support.table_rig import TableRig
from tests.support.var_guest import (
    GET,
    HOST_GET,
    HOST_SET,
    SET,
    SET_TO_ITSELF,
    SETTING,
    TRAP,
    Checked,
    Operation,
)

NAMES = st.one_of(
    st.sampled_from([b"", b"a", b"b", b"total", b"12345678", b"123456789", b"\xff\x00"]),
    st.integers(0, 40).map(lambda i: b"name %d" % i),
    st.binary(max_size=20),
    st.sampled_from([1, 511, 512, 513, 2000]).map(lambda n: b"n" * n),
)
VALUES = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([0, 1, 7, 8, 9, 500, 1000, 2000, 4500, 5600, 5608, 5632, 6000, 30_000]).map(
        lambda n: b"v" * n
    ),
)
OPERATIONS = st.one_of(
    st.tuples(st.sampled_from([SET, SET, SET, HOST_SET]), NAMES, VALUES),
    st.tuples(st.sampled_from([GET, SET_TO_ITSELF, SETTING, HOST_GET]), NAMES, st.just(b"")),
)
BATCHES = st.lists(
    st.tuples(
        st.lists(OPERATIONS, max_size=12),
        st.sampled_from(["", "", "", "trap", "reset", "config"]),
    ),
    max_size=8,
)
CONFIG = {"a": "setting", "total": "", "": "of no name", "name 3": "s" * 1000}


@settings(max_examples=100, deadline=None)
@given(
    BATCHES,
    st.sampled_from([2**20, 16_000, 3000, 10, 0]),
    st.sampled_from([10_000, 12, 3, 0]),
    st.booleans(),
)
def test_vars_agree_with_model(
    batches: list[tuple[list[Operation], str]], var_bytes: int, vars: int, observed: bool
) -> None:
    """Random operations, with traps, resets and other configs in between, do what the model does,
    with the kernel's table and with functions of the host.
    """
    limits = Limits(var_bytes=var_bytes, vars=vars)
    options: dict[str, Any] = {"observe": True} if observed else {}
    checked = Checked(limits, dict(CONFIG), **options)
    with checked.plugin:
        for number_, (operations, then) in enumerate(batches):
            checked.run([*operations, (TRAP, b"", b"")] if then == "trap" else operations)
            if then == "reset":
                checked.plugin.reset()
                checked.model.vars.clear()
            elif then == "config":
                checked.plugin.update_config({"a": f"setting {number_}", "b": None})
                checked.model.config["a"] = f"setting {number_}"


def test_long_random_sequence() -> None:
    """Thousands of operations on some hundred vars agree with the model, over many compactions."""
    chance = random.Random(48)
    checked = Checked(Limits(), dict(CONFIG))
    with checked.plugin:
        for _ in range(60):
            operations: list[Operation] = []
            for _ in range(100):
                what = chance.choice([GET, GET, SET, SET, SET, SETTING, HOST_GET, HOST_SET])
                name = b"%d" % int(chance.expovariate(1 / 40))
                value = bytes(chance.randrange(chance.choice([1, 20, 200])))
                operations.append((what, name, value))
            checked.run(operations)


def test_vars_are_in_the_table() -> None:
    """Small vars need the host only to be fetched, and when the application looks."""
    checked = Checked(Limits(), {})
    with checked.plugin as plugin:
        checked.run([(SET, b"a", b"1"), (GET, b"a", b"")])
        assert plugin._guest is not None
        table = plugin._guest.kernel.table
        assert table is not None
        assert table.words[HAS_VARS] == 1
        checked.run([(SET, b"large", b"x" * 20_000)])
        assert table.words[HAS_VARS] == 0
        checked.run([(SET, b"large", b"")] + [(GET, b"a", b"")] * 70)
        assert table.words[HAS_VARS] == 1


def test_reader_calls_vars_back() -> None:
    """A reader that finds the table in change has the guest's next call take the vars back."""
    checked = Checked(Limits(), {})
    with checked.plugin as plugin:
        checked.run([(SET, b"a", b"1")])
        assert plugin._guest is not None
        words = plugin._guest.kernel.open_table().words
        words[RECALL] = 1
        checked.run([(SET, b"a", b"2")])
        assert words[HAS_VARS] == 0
        checked.run([(GET, b"a", b""), (SET, b"b", b"3")])
        assert words[HAS_VARS] == 1
        assert words[RECALL] == 0


def test_change_during_a_read() -> None:
    """What was copied while the guest changed the table is not used, but read anew."""
    rig = TableRig({b"k": b"old"})
    assert rig.get(b"k") == b"old"
    rig.set(b"k", b"new")

    class Disturbed(Table):
        copies = 0

        def copy_half(self) -> tuple[int, bytes]:
            half = super().copy_half()
            self.copies += 1
            if self.copies == 1:
                rig.set(b"k", b"newest")
            return half

    table = rig.owner.vars._table = Disturbed(rig.kernel.open_table()._page)
    assert rig.owner.vars.snapshot() == {b"k": b"newest"}
    assert table.copies == 2
    assert table.words[RECALL] == 1


# ---- ends ----------------------------------------------------------------------------------------


def test_change_is_whole_or_not_at_all() -> None:
    """Wherever a guest is ended while it sets a var, the table has the old value or the new one."""
    outcomes = set()
    for fuel in range(3000):
        rig = TableRig({b"k": b"old", b"other": b"o" * 4000}, fuel=True)
        assert rig.get(b"k") == b"old"
        name, value = rig.new_block(b"k"), rig.new_block(b"new and longer" * 100)
        if rig.is_ended_within(fuel, "var_set", name, value):
            found = rig.read()
            assert found[b"other"] == b"o" * 4000
            outcomes.add(found[b"k"])
        else:
            break
    else:
        raise AssertionError("it was always ended")
    assert outcomes == {b"old", b"new and longer" * 100}, "it is ended before and after the change"


def test_compaction_can_be_ended_anywhere() -> None:
    """Wherever a guest is ended while entries move to the other half, nothing is lost."""
    vars = {b"%d" % i: b"v" * 30 for i in range(12)}
    ended = 0
    for fuel in range(0, 20_000, 37):
        rig = TableRig(vars, fuel=True)
        assert rig.get(b"1") == b"v" * 30
        before = rig.half()
        name, value = rig.new_block(b"1"), rig.new_block(b"w" * 4500)
        assert before == rig.half()
        if not rig.is_ended_within(fuel, "var_set", name, value):
            break
        ended += 1
        assert {**rig.read(), b"1": b""} == {**vars, b"1": b""}
    else:
        raise AssertionError("it was always ended")
    assert ended > 20


def test_ended_instance_leaves_its_vars() -> None:
    """A call that is ended in a loop of changes leaves a state between two of them."""
    source = guest(
        export(
            "count",
            "(loop $again (call $var_set <<a>> (call $n)) (call $var_set <<b>> (call $n)) (global.set $i (i64.add (global.get $i) (i64.const 1))) (br $again))",
        )
        + """(func $n (result i64) (local $b i64)
            (local.set $b (call $alloc (i64.const 8))) (call $store_u64 (local.get $b) (global.get $i)) (local.get $b))
            (global $i (mut i64) (i64.const 1))"""
    )
    with Plugin(source, limits=Limits(timeout=0.05)) as plugin:
        for _ in range(5):
            with pytest.raises(TimeoutError):
                plugin.call("count")
            a, b = (number(plugin.vars[name]) for name in "ab")
            assert a - b in (0, 1)
            assert a > 10


def test_vars_read_while_guest_changes_them() -> None:
    """Another thread reads whole values, while a guest changes them all the time."""
    source = guest(
        export(
            "run",
            """(loop $again (local.set $i (i32.add (local.get $i) (i32.const 1)))
            (call $var_set <<a>> (call $fill)) (br_if $again (i32.lt_u (local.get $i) (i32.const 200000))))""",
            "(local $i i32)",
        )
        + """(func $fill (result i64) (local $b i64) (local $i i64)
            (global.set $n (i64.add (global.get $n) (i64.const 1)))
            (local.set $b (call $alloc (i64.const 64)))
            (loop $next
              (call $store_u64 (i64.add (local.get $b) (local.get $i)) (global.get $n))
              (br_if $next (i64.lt_u (local.tee $i (i64.add (local.get $i) (i64.const 8))) (i64.const 64))))
            (local.get $b))
            (global $n (mut i64) (i64.const 0))"""
    )
    with Plugin(source) as plugin:
        thread = threading.Thread(target=plugin.call, args=("run",))
        thread.start()
        last, seen = 0, set()
        while thread.is_alive():
            value = plugin.vars.get("a", bytes(64))
            words = {value[i : i + 8] for i in range(0, 64, 8)}
            assert len(words) == 1, "a value was read while it was written"
            now = int.from_bytes(words.pop(), "little")
            assert now >= last, "a var went back to an older value"
            last = now
            seen.add(now)
        thread.join()
        assert len(seen) > 5
        assert number(plugin.vars["a"][:8]) == 200_000


# ---- hostile guests ------------------------------------------------------------------------------


def test_million_names_hit_the_limit() -> None:
    """Names without end are an error at the limit, and nothing is lost."""
    source = guest(
        export(
            "run",
            """(loop $again
              (local.set $k (call $alloc (i64.const 8))) (call $store_u64 (local.get $k) (local.get $i))
              (call $var_set (local.get $k) <<v>>)
              (br_if $again (i64.lt_u (local.tee $i (i64.add (local.get $i) (i64.const 1))) (i64.const 1000000))))""",
            "(local $i i64) (local $k i64)",
        )
    )
    for most in (10_000, 100, 0):
        with Plugin(source, limits=Limits(vars=most)) as plugin:
            with pytest.raises(GuestError, match="vars would exceed"):
                plugin.call("run")
            assert len(plugin.vars) == most
    with Plugin(source, limits=Limits(var_bytes=900)) as plugin:
        with pytest.raises(GuestError, match="vars would exceed"):
            plugin.call("run")
        assert len(plugin.vars) == 100


def hash_of(name: bytes) -> int:
    """The kernel's hash of a name, as table.wat computes it."""
    total = len(name)
    padded = name + bytes(-len(name) & 7)
    for at in range(0, len(padded), 8):
        total = (total ^ int.from_bytes(padded[at : at + 8], "little")) * 0x9E3779B97F4A7C15
        total &= 2**64 - 1
        total ^= total >> 32
    return total & 0xFFFFFFFF


def names_of_one_list(count: int) -> list[bytes]:
    """Names that all hang in the same of the table's lists."""
    found, number_ = [], 0
    while len(found) < count:
        name = b"%d" % number_
        if hash_of(name) & 63 == 7:
            found.append(name)
        number_ += 1
    return found


def test_names_of_one_list() -> None:
    """Vars whose names all hang in one list, and some with equal hashes, are told apart."""
    names = names_of_one_list(200)
    inverse = pow(0x9E3779B97F4A7C15, -1, 2**64)
    # Words that lead to a chosen sum: xor by the upper half undoes itself.
    same = [
        (((high << 32 | (0x12345678 ^ high)) * inverse % 2**64) ^ 8).to_bytes(8, "little")
        for high in range(100)
    ]
    assert {hash_of(name) for name in same} == {0x12345678}
    checked = Checked(Limits(), {})
    with checked.plugin:
        for some in (names, same):
            checked.run([(SET, name, name[::-1]) for name in some])
            checked.run([(GET, name, b"") for name in some])
            checked.run([(SET, name, b"") for name in some[::2]])
            checked.run([(GET, name, b"") for name in some])
            checked.plugin.reset()
            checked.model.vars.clear()


def test_full_table_keeps_its_bounds() -> None:
    """However a guest fills the table, the books of its memory that follow are unharmed."""
    for sizes in ([12_264], [2000] * 5 + [2100], [8] * 380, [600] * 19, [12_000, 100], [1]):
        checked = Checked(Limits(), {f"setting {i}": "s" * 900 for i in range(5)})
        with checked.plugin:
            keep = [(SET, b"%d" % i, b"x" * size) for i, size in enumerate(sizes)]
            ask = [(SETTING, b"setting %d" % i, b"") for i in range(5)]
            for _ in range(10):
                checked.run([*keep, *ask, *keep[::-1]])
                checked.plugin.update_config({"other": "x"})


def test_deadline_ends_a_loop_of_changes() -> None:
    """A guest that only sets vars ends at its deadline, also when it alternates between sizes that
    have and have no room in the table.
    """
    for large in (10, 20_000):
        source = guest(
            export(
                "run",
                f"(loop $again (call $var_set <<a>> (call $alloc (i64.const {large}))) (call $var_set <<a>> <<v>>) (br $again))",
            )
        )
        with Plugin(source, limits=Limits(timeout=0.1)) as plugin:
            with pytest.raises(TimeoutError):
                plugin.call("run")
            assert len(plugin.vars["a"]) in (1, large)


# ---- who has them --------------------------------------------------------------------------------


def test_signal_in_the_middle_of_taking_back() -> None:
    """Where taking the vars back was interrupted, they are taken back when they are needed next."""
    rig = TableRig({b"k": b"old"})
    assert rig.get(b"k") == b"old"
    rig.set(b"k", b"new")
    vars = rig.owner.vars
    read, vars_class = vars._read, type(vars)

    class Interrupted(vars_class):  # type: ignore[misc, valid-type]
        def _read(self, table: Any) -> bool:
            raise KeyboardInterrupt

    interrupted = Interrupted.__new__(Interrupted)
    for name in vars_class.__slots__:
        setattr(interrupted, name, getattr(vars, name))
    with pytest.raises(KeyboardInterrupt):
        interrupted.take_back()
    assert read is not None
    assert interrupted.snapshot() == {b"k": b"new"}
    vars.take_back()
    assert vars.get(b"k") == b"new"
    assert vars.used == 4


def test_lent_vars_count_towards_limits() -> None:
    """What a guest has set in the table counts where the application sets more."""
    rig = TableRig({}, max_bytes=100)
    assert rig.get(b"k") == b""
    rig.set(b"k", b"x" * 89)
    vars: Vars = rig.owner.vars
    assert not vars.set(b"l", b"x" * 10)
    assert vars.set(b"l", b"x" * 9)
    assert rig.get(b"l") == b"x" * 9


def test_blocks_are_freed_once() -> None:
    """The kernel frees the blocks that it takes, as the host does: they keep their place for a
    while, and have no length.
    """
    rig = TableRig({b"k": b"value"})
    for _ in range(2):
        name = rig.new_block(b"k")
        value = rig.rig.var_get(name)
        assert rig.rig.length(name) == 0
        assert rig.rig.length(value) == 5
        rig.rig.free(name)
        assert rig.rig.length(value) == 5
        rig.rig.free(value)
    both = rig.new_block(b"both")
    rig.rig.var_set(both, both)
    assert rig.rig.length(both) == 0
    assert rig.read()[b"both"] == b"both"
    assert both != INPUT_OFFSET


def test_start_function_sets_vars() -> None:
    """Vars that were set while an instance started are there when its start fails."""
    source = guest(
        '(func (export "_initialize") (call $var_set <<k>> <<v>>) unreachable)' + export("run", "")
    )
    with Plugin(CompiledPlugin(source)) as plugin:
        for _ in range(2):
            with pytest.raises(Exception, match="unreachable"):
                plugin.call("run")
            assert plugin.vars == {"k": b"v"}


def test_deadline_keeps_a_change() -> None:
    """A deadline in an endless loop after a change keeps the change."""
    with Plugin(
        guest(export("run", f"(call $var_set <<k>> <<v>>) {LOOP}")), limits=Limits(timeout=0.05)
    ) as plugin:
        with pytest.raises(TimeoutError):
            plugin.call("run")
        assert plugin.vars == {"k": b"v"}
