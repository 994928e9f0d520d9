"""Handles: whatever a plugin passes or writes, the host stays sound (`docs/security.md`, 14 to
16)."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import plugwasm
from plugwasm import (
    BadHandleError,
    CompiledPlugin,
    Function,
    GuestError,
    Limits,
    OutOfMemoryError,
    Plugin,
    ValType,
)
from tests.support.both_engines import ENGINES, MASK, PAGE, make_plugin, u64_bytes
from tests.support.guests import LOOP, export, guest, manifest, number
from tests.support.kernel_rig import EDGES

# ---- a guest that does what it is told: for 14, 15 and 16 ----------------------------------------

OPERATIONS = {
    "alloc": "(local.set $r (call $alloc (local.get $b))) (i64.store (local.get $reg) (local.get $r)) (call $tell (local.get $r))",
    "free": "(call $free (local.get $a))",
    "length": "(call $tell (call $length (local.get $a)))",
    "length_unsafe": "(call $tell (call $length_unsafe (local.get $a)))",
    "store_u8": "(call $store_u8 (local.get $a) (i32.wrap_i64 (local.get $b)))",
    "store_u64": "(call $store_u64 (local.get $a) (local.get $b))",
    "load_u8": "(call $tell (i64.extend_i32_u (call $load_u8 (local.get $a))))",
    "load_u64": "(call $tell (call $load_u64 (local.get $a)))",
    "input_load_u8": "(call $tell (i64.extend_i32_u (call $input_load_u8 (local.get $a))))",
    "input_load_u64": "(call $tell (call $input_load_u64 (local.get $a)))",
    "input_set": "(call $input_set (local.get $a) (local.get $b))",
    "output_set": "(call $output_set (local.get $a) (local.get $b))",
    "error_set": "(call $error_set (local.get $a))",
    "reset": "(call $reset)",
    "input": "(call $tell (call $input_offset)) (call $tell (call $input_length))",
    "output": "(call $tell (call $output_offset)) (call $tell (call $output_length))",
    "error": "(call $tell (call $error_get))",
    "scribble_u8": """(loop $again
        (call $store_u8 (local.get $a) (i32.wrap_i64 (local.get $b)))
        (local.set $a (i64.add (local.get $a) (i64.const 1)))
        (br_if $again (i64.lt_u (local.get $a) (i64.add (call $memory_bytes) (i64.const 16)))))""",
    "scribble_u64": """(loop $again
        (call $store_u64 (local.get $a) (local.get $b))
        (local.set $a (i64.add (local.get $a) (i64.const 1)))
        (br_if $again (i64.lt_u (local.get $a) (i64.add (call $memory_bytes) (i64.const 16)))))""",
}
"""`a` is a handle that was allocated, plus something; register 31 is always 0. What a function says is told to the host."""

CODES = {name: i + 1 for i, name in enumerate(OPERATIONS)}
ZERO = 31
Step = tuple[str, int, int, int]
"""Operation, register, what is added to it, and the second argument."""

TOLD: list[int] = []
TELL = Function(
    None,
    "tell",
    [ValType.I64],
    [],
    lambda plugin, inputs, outputs: TOLD.append(inputs[0].value & MASK),
)

OBEDIENT = guest(
    "(func $step (param $op i32) (param $reg i32) (param $a i64) (param $b i64) (local $r i64)"
    + "".join(
        f"(if (i32.eq (local.get $op) (i32.const {CODES[name]})) (then {code}))"
        for name, code in OPERATIONS.items()
    )
    + ")"
    + export(
        "run",
        """(memory.fill (i32.const 0) (i32.const 0) (i32.const 256))
        (local.set $size (i32.wrap_i64 (call $input_length)))
        (block $read (loop $next  ;; its own copy, for the input will not stay
          (br_if $read (i32.ge_u (local.get $i) (local.get $size)))
          (i64.store (i32.add (i32.const 4096) (local.get $i)) (call $input_load_u64 (i64.extend_i32_u (local.get $i))))
          (local.set $i (i32.add (local.get $i) (i32.const 8)))
          (br $next)))
        (local.set $i (i32.const 4096))
        (block $done (loop $next
          (br_if $done (i32.ge_u (local.get $i) (i32.add (i32.const 4096) (local.get $size))))
          (local.set $reg (i32.shl (i32.load offset=4 (local.get $i)) (i32.const 3)))
          (call $step (i32.load (local.get $i)) (local.get $reg)
            (i64.add (i64.load (local.get $reg)) (i64.load offset=8 (local.get $i))) (i64.load offset=16 (local.get $i)))
          (local.set $i (i32.add (local.get $i) (i32.const 24)))
          (br $next)))""",
        "(local $i i32) (local $size i32) (local $reg i32)",
    )
    + export("echo", "(call $echo)")
    + export("quick", ""),
    '(import "extism:host/user" "tell" (func $tell (param i64)))',
    memory='(memory (export "memory") 8)',
)


def make_obedient_plugin(pooled: bool = False) -> Plugin:
    return make_plugin(OBEDIENT, pooled, limits=Limits(memory_bytes=60 * PAGE), functions=[TELL])


def run(plugin: Plugin, *steps: Step) -> tuple[bytes, list[int]]:
    """Return the output and the reported handles, or raise what the call raises."""
    TOLD.clear()
    code = b"".join(
        CODES[name].to_bytes(4, "little")
        + register.to_bytes(4, "little")
        + u64_bytes(add)
        + u64_bytes(second)
        for name, register, add, second in steps
    )
    return plugin.call("run", code), list(TOLD)


class Expected:
    """A model of the contract, given the handles that were reported: it knows only what the
    kernel must answer."""

    def __init__(self, steps: tuple[Step, ...] | list[Step], told: list[int]) -> None:
        self.live = {512: 24 * len(steps)}
        self.input = (512, 24 * len(steps))
        self.output = (0, 0)
        self.error = (0, 0)
        self.bad_input = self.bad_output = self.refused = False
        registers = [0] * 32
        answers = iter(told)
        for name, register, add, second in steps:
            a = (registers[register] + add) & MASK
            b = second & MASK
            match name:
                case "alloc":
                    registers[register] = next(answers)
                    self.alloc(registers[register], b)
                case "free":
                    self.live.pop(a, None)
                case "length" | "length_unsafe":
                    assert next(answers) == self.live.get(a, 0)
                case "load_u8" | "load_u64" | "input_load_u8" | "input_load_u64":
                    value = next(answers)
                    width = 8 if name.endswith("64") else 1
                    if name.startswith("input") and (a + width > self.input[1]):
                        assert value == 0
                    if not name.startswith("input") and a + width > 60 * PAGE:
                        assert value == 0
                case "input_set":
                    if b == 0:
                        self.input = (0, 0)
                    elif self.owned(a, b):
                        self.input = (a, b)
                    else:
                        self.bad_input = True
                case "output_set":
                    self.output = (a if b else 0, b)
                    self.bad_output = not (b == 0 or self.owned(a, b))
                case "error_set":
                    self.error = (a, self.live.get(a, 0))
                case "reset":
                    self.live = {}
                    self.input = self.output = self.error = (0, 0)
                    self.bad_input = self.bad_output = self.refused = False
                case "input":
                    assert (next(answers), next(answers)) == self.input
                case "output":
                    assert (next(answers), next(answers)) == self.output
                case "error":
                    assert next(answers) == self.error[0]
        assert next(answers, None) is None

    def alloc(self, offset: int, size: int) -> None:
        if offset:
            assert 512 <= offset <= offset + size <= 58 * PAGE
            assert size > 0
            assert not any(
                offset < start + length and start < offset + size
                for start, length in self.live.items()
            ), "it overlaps"
            self.live[offset] = size
        else:
            assert size == 0 or size > 5 * PAGE, "refused though there is room"
            self.refused |= size > 0

    def owned(self, offset: int, length: int) -> bool:
        return any(
            start <= offset < start + size and length <= start + size - offset
            for start, size in self.live.items()
        )

    @property
    def outcome(self) -> str:
        if self.error[1]:
            return "GuestError"
        if not (self.error[0] or self.bad_output or self.bad_input):
            return "ok"
        return "OutOfMemoryError" if self.refused else "BadHandleError"


def check(plugin: Plugin, steps: tuple[Step, ...] | list[Step]) -> Expected:
    """Run the script, compare all its results with the model, and check that the next call
    works."""
    output = None
    try:
        output, _ = run(plugin, *steps)
        ended = "ok"
    except (BadHandleError, GuestError, OutOfMemoryError) as error:
        ended = type(error).__name__
    expected = Expected(steps, list(TOLD))
    assert ended == expected.outcome
    if output is not None:
        assert len(output) == expected.output[1]
    assert plugin.call("echo", b"the next call") == b"the next call"
    return expected


# ---- 14. handles that are none -------------------------------------------------------------------

BLOCKS: list[Step] = [
    ("alloc", 0, 0, 100),
    ("alloc", 1, 0, 32),
    ("alloc", 2, 0, 32),
    ("alloc", 3, 0, 50),
    ("free", 3, 0, 0),
]
BAD_RANGES = {
    "nothing is there": (ZERO, 50_000, 1),
    "the null handle with a length": (ZERO, 0, 1),
    "below all blocks": (ZERO, 511, 1),
    "one byte past the end": (0, 0, 101),
    "the byte after the end": (0, 100, 1),
    "one byte before the start": (0, -1, 2),
    "one byte before the start, short": (0, -1, 1),
    "inside, past the end": (0, 50, 51),
    "two blocks side by side": (1, 0, 64),
    "from one block into the next": (1, 31, 2),
    "a block that was freed": (3, 0, 50),
    "the last byte of memory": (ZERO, 2 * PAGE - 1, 1),
    "past the end of memory": (ZERO, 2 * PAGE - 1, 2),
    "outside of memory": (ZERO, 2 * PAGE, 1),
    "all of memory": (ZERO, 0, 2 * PAGE),
    "a block and 4 GiB": (0, 2**32, 10),
    "a length of 4 GiB": (0, 0, 2**32),
    "a length of 4 GiB and a little": (0, 0, 2**32 + 10),
    "a length of 2**63": (0, 0, 2**63),
    "the largest length": (0, 0, MASK),
    "the largest offset": (ZERO, MASK, 1),
    "a sum of 2**64": (0, 0, MASK - 511),
    "a sum just over 2**64, at a block": (0, 1, MASK),
    "a sum over 2**64": (ZERO, MASK - 9, 20),
    "a sum over 2**64 that ends in a block": (ZERO, MASK - 9, 10 + 600),
}
GOOD_RANGES = {
    "a whole block": (0, 0, 100),
    "all but the last byte": (0, 0, 99),
    "the last byte": (0, 99, 1),
    "a part": (0, 10, 80),
    "nothing of a block": (0, 0, 0),
    "nothing anywhere": (ZERO, MASK, 0),
    "the input": (ZERO, 512, 24),
}


@ENGINES
@pytest.mark.parametrize("what", BAD_RANGES)
def test_output_outside_block(what: str, pooled: bool) -> None:
    """An output that is not inside one block is an error."""
    with make_obedient_plugin(pooled) as plugin:
        for _ in range(2):
            register, add, length = BAD_RANGES[what]
            with pytest.raises(BadHandleError, match="no memory that the plugin has allocated"):
                run(plugin, *BLOCKS, ("output_set", register, add, length))
            check(plugin, [*BLOCKS, ("output_set", register, add, length), ("output", 0, 0, 0)])


@pytest.mark.parametrize("what", BAD_RANGES)
def test_input_outside_block(what: str) -> None:
    """An input range that is not inside one block is an error, and the input stays."""
    with make_obedient_plugin() as plugin:
        register, add, length = BAD_RANGES[what]
        with pytest.raises(BadHandleError, match="its input"):
            run(
                plugin, *BLOCKS, ("input_set", register, add, length), ("input_load_u8", ZERO, 2, 0)
            )
        check(
            plugin,
            [
                *BLOCKS,
                ("input_set", register, add, length),
                ("input", 0, 0, 0),
                ("input_load_u64", ZERO, 10**6, 0),
            ],
        )


@pytest.mark.parametrize("what", GOOD_RANGES)
def test_output_and_input_inside_block(what: str) -> None:
    """An output and an input inside one block are accepted."""
    register, add, length = GOOD_RANGES[what]
    with make_obedient_plugin() as plugin:
        output, _ = run(plugin, *BLOCKS, ("output_set", register, add, length))
        assert len(output) == length
        check(
            plugin,
            [
                *BLOCKS,
                ("input_set", register, add, length),
                ("input", 0, 0, 0),
                ("input_load_u8", ZERO, length, 0),
            ],
        )


@ENGINES
@pytest.mark.parametrize(
    ("register", "add"),
    [
        (ZERO, 1),
        (ZERO, 511),
        (ZERO, 50_000),
        (0, 1),
        (0, -1),
        (0, 32),
        (3, 0),
        (0, 2**32),
        (ZERO, MASK),
        (ZERO, 2 * PAGE),
    ],
)
def test_error_not_at_block_start(register: int, add: int, pooled: bool) -> None:
    """An error message handle that is not the start of a block raises its own error."""
    with make_obedient_plugin(pooled) as plugin:
        with pytest.raises(BadHandleError, match="set the error"):
            run(plugin, *BLOCKS, ("error_set", register, add, 0))
        check(plugin, [*BLOCKS, ("error_set", register, add, 0), ("error", 0, 0, 0)])


def test_corrected_handle_is_forgiven() -> None:
    """A bad handle that the guest corrects is no error."""
    with make_obedient_plugin() as plugin:
        output, _ = run(
            plugin,
            *BLOCKS,
            ("output_set", ZERO, 50_000, 9),
            ("error_set", ZERO, 77, 0),
            ("error_set", ZERO, 0, 0),
            ("output_set", 0, 0, 4),
        )
        assert len(output) == 4


def test_reads_stay_in_own_memory() -> None:
    """Reads through handles give the plugin's own memory, and zero beyond it."""
    with make_obedient_plugin() as plugin:
        edges = [
            0,
            500,
            2 * PAGE - 8,
            2 * PAGE - 7,
            2 * PAGE - 1,
            2 * PAGE,
            2**31,
            2**32 - 8,
            2**32,
            2**32 + 512,
            2**63,
            MASK - 7,
            MASK,
        ]
        _, told = run(
            plugin,
            *(
                step
                for at in edges
                for step in (("load_u64", ZERO, at, 0), ("load_u8", ZERO, at, 0))
            ),
        )
        assert told == [0] * len(told)


# ---- 15. writing everywhere ----------------------------------------------------------------------


@ENGINES
@pytest.mark.parametrize("value", [0, 0xFF, 0x80, 1, MASK, 0x8000000180000001])
def test_writes_damage_own_data_only(value: int, pooled: bool) -> None:
    """A guest that writes everywhere can damage only its own data."""
    sizes = [1, 40, 4000, 32, 31, 33, 30_000, 8, 64]
    blocks: list[Step] = [("alloc", i, 0, size) for i, size in enumerate(sizes)]
    blocks += [("free", 1, 0, 0), ("free", 4, 0, 0)]
    live = [i for i in range(len(sizes)) if i not in (1, 4)]
    scribbles: list[Step] = [("scribble_u8", ZERO, 0, value), ("scribble_u64", ZERO, 0, value)]
    for i in range(len(sizes)):
        for before in range(-16, 1):
            scribbles += [("store_u8", i, before, value), ("store_u64", i, before, value)]
    after: list[Step] = [("length", i, 0, 0) for i in range(len(sizes))]
    after += [
        ("alloc", 9, 0, 40),
        ("alloc", 10, 0, 31),
        ("alloc", 11, 0, 40_000),
        ("free", 2, 0, 0),
        ("alloc", 12, 0, 3000),
    ]
    after += [("length", i, 0, 0) for i in range(13)]
    after += [("input", 0, 0, 0), ("output", 0, 0, 0), ("error", 0, 0, 0)]
    after += [("free", i, 0, 0) for i in (*live, 9, 10, 11) if i != 2]
    after += [("store_u64", 12, 0, 0x1122334455667788), ("output_set", 12, 0, 8)]
    with make_obedient_plugin(pooled) as plugin:
        quiet: list[Step] = [("free", ZERO, 1, 0)] * len(scribbles)  # which does nothing
        check(plugin, [*blocks, *quiet, *after])
        _, told = run(plugin, *blocks, *quiet, *after)
        for _ in range(3):
            assert run(plugin, *blocks, *scribbles, *after) == (
                bytes.fromhex("8877665544332211"),
                told,
            )
            check(plugin, [*blocks, *scribbles, *after])
        assert plugin.call("echo", bytes(range(256)) * 100) == bytes(range(256)) * 100


REMAINS = guest(
    """(table $t 100 funcref) (global $g (mut i64) (i64.const 0)) (func $f) (elem declare func $f)
    (func $block (result i64) (call $alloc (i64.const 300000)))"""
    + export(
        "soil",
        """(memory.fill (i32.const 0) (i32.const 0xA5) (i32.const 131072))
        (drop (memory.grow (i32.const 3))) (memory.fill (i32.const 131072) (i32.const 0xA5) (i32.const 196608))
        (table.fill $t (i32.const 0) (ref.func $f) (i32.const 100))
        (global.set $g (i64.const 0xA5))
        (local.set $at (call $block)) (local.set $end (i64.add (local.get $at) (i64.const 299992)))
        (loop $next
          (call $store_u64 (local.get $at) (i64.const 0xA5A5A5A5A5A5A5A5))
          (br_if $next (i64.lt_u (local.tee $at (i64.add (local.get $at) (i64.const 8))) (local.get $end))))
        (call $error_set (call $alloc (i64.const 8)))""",
        "(local $at i64) (local $end i64)",
    )
    + export(
        "soil_and_trap",
        "(memory.fill (i32.const 0) (i32.const 0xA5) (i32.const 131072)) unreachable",
    )
    + export(
        "soil_and_spin", f"(memory.fill (i32.const 0) (i32.const 0xA5) (i32.const 131072)) {LOOP}"
    )
    + export(
        "found",
        """(drop (memory.grow (i32.const 3)))
        (loop $next
          (local.set $sum (i64.or (local.get $sum) (i64.load (local.get $i))))
          (br_if $next (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 8))) (i32.const 327680))))
        (local.set $i (i32.const 0))
        (loop $next
          (local.set $sum (i64.add (local.get $sum) (i64.extend_i32_u (i32.eqz (ref.is_null (table.get $t (local.get $i)))))))
          (br_if $next (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 100))))
        (local.set $sum (i64.or (local.get $sum) (global.get $g)))
        (local.set $at (call $block)) (local.set $end (i64.add (local.get $at) (i64.const 299992)))
        (loop $next
          (local.set $sum (i64.or (local.get $sum) (call $load_u64 (local.get $at))))
          (br_if $next (i64.lt_u (local.tee $at (i64.add (local.get $at) (i64.const 8))) (local.get $end))))
        (call $answer (local.get $sum))""",
        "(local $i i32) (local $sum i64) (local $at i64) (local $end i64)",
    )
    + export("quick", ""),
    memory="(memory 2)",
)


@ENGINES
@pytest.mark.parametrize("how", ["soil", "soil_and_trap", "soil_and_spin"])
def test_new_instance_is_clean(how: str, pooled: bool) -> None:
    """A new instance finds nothing of another's memory, tables and blocks."""
    compiled = CompiledPlugin(manifest(REMAINS, memory={"max_pages": 100}, timeout_ms=30_000))
    compiled._plan.starts = 3 if pooled else -1000
    for _ in range(5):
        with Plugin(compiled) as plugin:
            if how.endswith("spin"):
                assert (
                    number(plugin.call("found")) == 0
                )  # so that it has its instance when its time begins
                plugin._timeout = 0.03
            with pytest.raises(plugwasm.Error):
                plugin.call(how)
            plugin._timeout = 30.0
            if how == "soil":
                assert number(plugin.call("found")) != 0  # its own it does find
            else:
                assert number(plugin.call("found")) == 0
        with Plugin(compiled) as plugin:
            assert number(plugin.call("found")) == 0


# ---- 16. every kind of wrong handle in any order -------------------------------------------------

anywhere = st.one_of(st.sampled_from(EDGES), st.integers(0, 3000), st.integers(0, MASK))
near = st.sampled_from([0, 0, 0, 0, 1, -1, 8, 31, 32, -32, 64, 2**32, -(2**32), 2**37])
handles = st.one_of(
    st.tuples(st.integers(0, 5), near),
    st.tuples(st.integers(0, 5), near),
    st.tuples(st.just(ZERO), anywhere),
)
lengths = st.one_of(
    st.integers(0, 110), st.sampled_from([0, 1, 32, 64, 100, 101, 2**32, MASK, MASK - 511, 2**63])
)
scripts = st.lists(
    st.one_of(
        st.builds(
            lambda r, size: ("alloc", r, 0, size),
            st.integers(0, 5),
            st.one_of(st.integers(1, 100), st.sampled_from([0, 100, 70_000, 2**40, MASK])),
        ),
        st.builds(
            lambda name, handle, second: (name, *handle, second),
            st.sampled_from(
                [
                    "free",
                    "input_set",
                    "output_set",
                    "error_set",
                    "length",
                    "length_unsafe",
                    "store_u64",
                    "store_u8",
                    "load_u64",
                    "load_u8",
                ]
            ),
            handles,
            lengths,
        ),
        st.sampled_from(
            [("reset", 0, 0, 0), ("input", 0, 0, 0), ("output", 0, 0, 0), ("error", 0, 0, 0)]
        ),
        st.builds(
            lambda name, at: (name, ZERO, at, 0),
            st.sampled_from(["input_load_u8", "input_load_u64"]),
            anywhere,
        ),
    ),
    max_size=40,
)
_plugins: dict[bool, Plugin] = {}


@ENGINES
@settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.differing_executors],
)
@given(script=scripts)
@example(
    script=[
        ("free", ZERO, 512, 0),
        ("alloc", 0, 0, 24),
        ("input_load_u64", ZERO, 0, 0),
        ("input_set", ZERO, 512, 72),
    ]
)
@example(
    script=[("alloc", 0, 0, 10), ("output_set", 0, 0, 10), ("reset", 0, 0, 0), ("output", 0, 0, 0)]
)
@example(
    script=[("alloc", 0, 0, 10), ("error_set", 0, 0, 0), ("free", 0, 0, 0), ("alloc", 1, 0, 5)]
)
@example(
    script=[
        ("alloc", 0, 0, 10),
        ("free", 0, 0, 0),
        ("free", 0, 0, 0),
        ("alloc", 1, 0, 10),
        ("alloc", 2, 0, 10),
    ]
)
def test_random_wrong_handles(script: list[Step], pooled: bool) -> None:
    """Wrong handles of any kind in any order raise errors or have no effect."""
    plugin = _plugins.get(pooled)
    if plugin is None:
        plugin = _plugins[pooled] = make_obedient_plugin(pooled)
    check(plugin, script)
