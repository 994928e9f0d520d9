"""A guest that ends after a refused memory growth: the error says how much of which limit each
memory uses."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

import plugwasm
from plugwasm import (
    ExitError,
    GuestError,
    IsolatedPlugin,
    Limits,
    OutOfMemoryError,
    Plugin,
    TrapError,
)
from tests.support.guests import export, guest, manifest, number

KINDS = pytest.mark.parametrize("kind", [Plugin, IsolatedPlugin])
EXIT = '(import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))'
LIMITS = r"\(`Limits.memory_bytes`\)"

REFUSED = {
    "allocating": "(local.set $got (call $alloc (i64.const 10000000)))",
    "growing": "(loop $all (local.set $got (i64.extend_i32_s (memory.grow (i32.const 1)))) (br_if $all (i64.gt_s (local.get $got) (i64.const 0))))"
    " (local.set $got (i64.mul (local.get $got) (i64.const 65536)))",
}
"""Ways to be refused memory, which leave what the guest got instead: 0, or -1 times the size of a page."""
SAYS = {
    "allocating": rf"ran out of memory: the plugin's memory has 1 pages, what it allocates with the host has 2 pages and was refused 10000000 bytes "
    rf"more; its limit is 20 pages of 64 KiB for all together {LIMITS}",
    "growing": rf"ran out of memory: the plugin's memory has 18 pages and can grow by 0 more, what it allocates with the host has 2 pages; its limit is "
    rf"20 pages of 64 KiB for all together {LIMITS}",
}
ENDS = {
    "sets its output there": (
        "(call $output_set (local.get $got) (i64.const 5))",
        r"Then it set the output to offset \d+, length 5",
    ),
    "sets its input there": (
        "(call $input_set (local.get $got) (i64.const 5))",
        "Then it set its input",
    ),
    "sets its error there": (
        "(call $error_set (i64.add (local.get $got) (i64.const 8)))",
        r"Then it set the error \d+",
    ),
    "gives it to the host": (
        "(call $log_info (i64.add (local.get $got) (i64.const 8)))",
        r"Then `log_info` was given the handle \d+",
    ),
    "aborts": ("unreachable", r"\(unreachable\)"),
    "writes there": (
        "(i32.store (i32.const -65536) (i32.wrap_i64 (local.get $got)))",
        r"\(out of bounds memory access\)",
    ),
}
SOURCE = guest(
    "".join(
        export(f"{how} {end}", code + does, "(local $got i64)")
        for how, code in REFUSED.items()
        for end, (does, _) in ENDS.items()
    )
    + "".join(
        f'(func (export "{how} returns a code") (result i32) (local $got i64) {code} (i32.const 3))'
        + export(f"{how} exits", code + "(call $proc_exit (i32.const 4))", "(local $got i64)")
        + export(
            f"{how} reports", code + "(call $error_set <<no memory left>>)", "(local $got i64)"
        )
        + export(f"{how} goes on", code + "(call $echo)", "(local $got i64)")
        for how, code in REFUSED.items()
    )
    + export("bad_output", "(call $output_set (i64.const 8) (i64.const 5))")
    + export("abort", "unreachable"),
    EXIT,
    memory='(memory (export "memory") 1)',
)


def make_plugin(kind: Any) -> Any:
    return kind(SOURCE, wasi=True, name="p", limits=Limits(memory_bytes=20 * 65536))


@pytest.mark.parametrize(
    ("kind", "end"),
    [
        *((Plugin, end) for end in ENDS),
        *(
            (IsolatedPlugin, end) for end in ENDS if end != "gives it to the host"
        ),  # the application does not know how much there is
    ],
)
@pytest.mark.parametrize("how", REFUSED)
def test_refused_growth(kind: Any, how: str, end: str) -> None:
    """After a refused growth, the error says so however the guest ends."""
    with make_plugin(kind) as plugin, pytest.raises(OutOfMemoryError) as caught:
        plugin.call(f"{how} {end}")
    assert caught.match(SAYS[how])
    assert caught.match(ENDS[end][1])
    assert "of plugin `p`" in caught.value.message
    assert caught.value.function == f"{how} {end}"


@KINDS
@pytest.mark.parametrize("how", REFUSED)
def test_code_and_exit_name_likely_cause(kind: Any, how: str) -> None:
    """A code or an exit keeps its error, which names the refused growth as the likely cause."""
    says = "; it may have " + SAYS[how].removeprefix("ran ").join(("run ", ""))
    with (
        make_plugin(kind) as plugin,
        pytest.raises(GuestError, match="returned the error code 3" + says),
    ):
        plugin.call(f"{how} returns a code")
    with make_plugin(kind) as plugin, pytest.raises(ExitError, match="with the exit code 4" + says):
        plugin.call(f"{how} exits")


@KINDS
@pytest.mark.parametrize("how", REFUSED)
def test_guest_message_gets_note(kind: Any, how: str) -> None:
    """The guest's own message is unchanged and gets a note."""
    with make_plugin(kind) as plugin, pytest.raises(GuestError) as caught:
        plugin.call(f"{how} reports")
    assert caught.value.message == "no memory left"
    (note,) = caught.value.__notes__
    assert "limit is 20 pages" in note
    assert pickle.loads(pickle.dumps(caught.value)).__notes__ == [note]


@KINDS
def test_refusal_counts_for_its_call(kind: Any) -> None:
    """A refusal affects the error of its own call only."""
    with make_plugin(kind) as plugin:
        assert plugin.call("allocating goes on", b"fine") == b"fine"
        with pytest.raises(plugwasm.BadHandleError):
            plugin.call("bad_output")
        assert plugin.call("allocating goes on", b"fine") == b"fine"
        with pytest.raises(TrapError, match="unreachable"):
            plugin.call("abort")


LEAKY = guest(
    """(func (export "leak") (local $got i32)
      (local.set $got (memory.grow (i32.const 16)))
      (if (i32.eq (local.get $got) (i32.const -1)) (then (call $output_set (i64.const 0) (i64.const 8)) (return)))
      (call $answer (i64.extend_i32_u (local.get $got))))""",
    memory='(memory (export "memory") 1)',
)


def test_refusal_and_bad_handle_differ() -> None:
    """A plugin that allocates in each call is distinguished from one with a bad handle.

    It takes 16 pages at once, so it is refused before it has all of them.
    """
    says = r"has 993 pages and can grow by 5 more, .* its limit is 1000 pages"
    with Plugin(LEAKY, limits=Limits(memory_bytes=1000 * 65536)) as plugin:
        assert [number(plugin.call("leak")) for _ in range(62)] == list(range(1, 993, 16))
        with pytest.raises(OutOfMemoryError, match=says) as caught:
            plugin.call("leak")
    assert "offset 0" in caught.value.message


def test_refused_allocation_named_for_start() -> None:
    source = guest(
        export("_initialize", REFUSED["allocating"] + "unreachable", "(local $got i64)")
        + export("f", "")
    )
    says = r"has 2 pages and was refused 10000000 bytes more; its limit is 5 pages"
    with (
        Plugin(source, limits=Limits(memory_bytes=5 * 65536)) as plugin,
        pytest.raises(OutOfMemoryError, match=says),
    ):
        plugin.call("f")


def test_hidden_memories_are_not_mentioned() -> None:
    """Memories that the host cannot see are not mentioned."""
    source = guest(
        export("f", REFUSED["allocating"] + "unreachable", "(local $got i64)"),
        memory="(memory 1) (memory 1)",
    )
    with (
        Plugin(source, limits=Limits(memory_bytes=40 * 65536)) as plugin,
        pytest.raises(
            OutOfMemoryError,
            match=r"what it allocates with the host has 2 pages and .*is 40 pages .* of which 14 are for what it allocates",
        ),
    ):
        plugin.call("f")


def test_input_and_answer_without_room() -> None:
    """The errors for an input or a result that does not fit say why."""
    source = guest(
        export("get", "(call $give (call $config_get <<k>>))") + export("echo", "(call $echo)")
    )
    with Plugin(
        manifest(source, config={"k": "x" * 1_000_000}), limits=Limits(memory_bytes=5 * 65536)
    ) as plugin:
        with pytest.raises(
            OutOfMemoryError,
            match="input of 1000000 bytes, which takes 16 pages: its limit is 5 pages",
        ):
            plugin.call("echo", bytes(1_000_000))
        with pytest.raises(
            OutOfMemoryError,
            match="input of 300000 bytes, which takes 5 pages: the plugin's memory has 1 pages, what it allocates with the host has 2 pages",
        ):
            plugin.call("echo", bytes(300_000))
        with pytest.raises(
            OutOfMemoryError,
            match=r"no room for 1000000 bytes from the host: .* its limit is 5 pages",
        ):
            plugin.call("get")
