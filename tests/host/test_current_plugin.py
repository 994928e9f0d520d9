"""Operations of a host function on the plugin that called it, which are possible only during its
call."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import plugwasm
from plugwasm import (
    BadHandleError,
    ClosedError,
    CurrentPlugin,
    Function,
    HostFunctionError,
    Limits,
    Memory,
    OutOfMemoryError,
    Plugin,
    Val,
    ValType,
)
from tests.support.guests import export, guest, manifest, number

GUEST = guest(
    export("run", "(call $give (call $f <<from the guest>>))")
    + export("null", "(call $give (call $f (i64.const 0)))")
    + export("bad", "(call $give (call $f (i64.const 12345)))")
    + export(
        "inside",
        "(call $give (call $f (i64.add (i64.const 32) <<from the guest, long enough for two granules>>)))",
    )
    + export(
        "freed",
        "(local $b i64) (local.set $b <<gone>>) (call $free (local.get $b)) (call $give (call $f (local.get $b)))",
    ).replace('(export "freed")  (local', '(export "freed") (local')
    + export("length", "(call $answer (call $length (call $f (i64.const 0))))")
    + export("set", "(call $var_set <<k>> <<value>>)")
    + export("get", "(call $give (call $var_get <<k>>))"),
    '(import "extism:host/user" "f" (func $f (param i64) (result i64)))',
)


def plugin_with(
    f: Callable[[CurrentPlugin, Val, Val], Any], limits: Limits | None = None, **fields: Any
) -> Plugin:
    def body(plugin: CurrentPlugin, params: list[Val], results: list[Val]) -> None:
        f(plugin, params[0], results[0])

    return Plugin(
        manifest(GUEST, **fields),
        functions=[Function(None, "f", [ValType.I64], [ValType.I64], body)],
        limits=limits,
    )


def run(f: Callable[[CurrentPlugin, Val, Val], Any], export: str = "run", **fields: Any) -> bytes:
    with plugin_with(f, **fields) as plugin:
        return plugin.call(export)


def cause(
    f: Callable[[CurrentPlugin, Val, Val], Any], export: str = "run", **fields: Any
) -> BaseException | None:
    with pytest.raises(HostFunctionError) as caught:
        run(f, export, **fields)
    return caught.value.__cause__


# Blocks


def test_input_as_bytes_text_and_view() -> None:
    """The input can be read as bytes, as text and as a view."""

    def f(plugin: CurrentPlugin, value: Val, result: Val) -> None:
        assert plugin.input_bytes(value) == b"from the guest"
        assert plugin.input_string(value) == "from the guest"
        assert plugin.input_buffer(value) == b"from the guest"
        memory = plugin.memory_at_offset(value)
        assert (memory.offset, memory.length, len(memory)) == (value.value, 14, 14)
        assert plugin.memory_at_offset(value.value).length == 14
        assert plugin.memory(memory) == b"from the guest"
        assert plugin.memory(Memory(memory.offset, 4)) == b"from"
        result.value = value.value

    assert run(f) == b"from the guest"


def test_write_into_block_reaches_guest() -> None:
    """Data written into a block reaches the guest."""

    def f(plugin: CurrentPlugin, value: Val, result: Val) -> None:
        plugin.input_buffer(value)[:4] = b"FROM"
        view = plugin.memory(plugin.memory_at_offset(value))
        view[-1] = ord("!")
        result.value = value.value

    assert run(f) == b"FROM the gues!"


@pytest.mark.parametrize("size", [1, 31, 32, 33, 100_000, 3_000_000])
def test_allocate_fill_and_return_block(size: int) -> None:
    """A block can be allocated, filled and returned."""

    def f(plugin: CurrentPlugin, value: Val, result: Val) -> None:
        memory = plugin.alloc(size)
        assert memory.length == size
        plugin.memory(memory)[:] = b"z" * size
        result.value = memory.offset

    assert run(f) == b"z" * size


def test_bytes_and_text_can_be_returned() -> None:
    assert run(lambda plugin, value, result: plugin.return_bytes(result, b"\0\xff")) == b"\0\xff"
    assert run(lambda plugin, value, result: plugin.return_string(result, "äöü")) == "äöü".encode()
    assert run(lambda plugin, value, result: plugin.return_bytes(result, bytearray(b"ab"))) == b"ab"
    assert (
        run(lambda plugin, value, result: plugin.return_bytes(result, memoryview(b"ab"))) == b"ab"
    )
    assert run(lambda plugin, value, result: plugin.return_string(result, "")) == b""


def test_allocate_zero_is_null_handle() -> None:
    """Allocating zero bytes returns the null handle."""

    def f(plugin: CurrentPlugin, value: Val, result: Val) -> None:
        memory = plugin.alloc(0)
        assert (memory.offset, memory.length) == (0, 0)
        assert plugin.memory(memory) == b""
        plugin.free(memory)

    run(f)


def test_the_null_handle_is_empty() -> None:
    def f(plugin: CurrentPlugin, value: Val, result: Val) -> None:
        assert plugin.input_bytes(value) == b""
        assert plugin.input_string(value) == ""
        assert len(plugin.input_buffer(value)) == 0
        assert plugin.memory_at_offset(value).length == 0

    run(f, "null")


@pytest.mark.parametrize("export", ["bad", "inside", "freed"])
def test_invalid_handle_is_error(export: str) -> None:
    """The error for an invalid handle names it."""
    error = cause(lambda plugin, value, result: plugin.input_bytes(value), export)
    assert isinstance(error, BadHandleError)
    assert "no memory that the plugin has allocated" in str(error)

    def f(plugin: CurrentPlugin, value: Val, result: Val) -> None:
        assert plugin.memory_at_offset(value).length == 0

    run(f, export)


@pytest.mark.parametrize(
    "memory",
    [
        Memory(12345, 1),
        Memory(0, 1),
        Memory(512, 2**40),
        Memory(-1, 1),
        Memory(2**64 - 32, 64),
        Memory(2**70, 1),
        Memory(512, -1),
        Memory(32, 8),
    ],
    ids=repr,
)
def test_memory_not_of_plugin_is_refused(memory: Memory) -> None:
    """Memory that does not belong to the plugin is refused."""
    error = cause(lambda plugin, value, result: plugin.memory(memory))
    assert isinstance(error, (BadHandleError, ValueError))


def test_block_length_is_checked() -> None:
    """A block longer than its allocation is refused."""

    def f(plugin: CurrentPlugin, value: Val, result: Val) -> None:
        memory = plugin.memory_at_offset(value)
        assert len(plugin.memory(Memory(memory.offset, memory.length))) == memory.length
        plugin.memory(Memory(memory.offset, memory.length + 1))

    assert isinstance(cause(f), BadHandleError)


def test_free_and_reuse_block() -> None:
    """A block can be freed and its memory used again."""

    def f(plugin: CurrentPlugin, value: Val, result: Val) -> None:
        seen = set()
        for _ in range(200):
            memory = plugin.alloc(50_000)
            seen.add(memory.offset)
            plugin.free(memory)
            assert plugin.memory_at_offset(memory.offset).length == 0
            plugin.free(memory)
        assert max(seen) - min(seen) <= 200 * 32, (
            "of each block that the host freed, its start is kept for a while"
        )
        plugin.free(Memory(12345, 7))
        plugin.free(Memory(-5, 7))

    run(f)


def test_invalid_size_is_refused() -> None:
    """An invalid size is refused."""
    assert isinstance(cause(lambda plugin, value, result: plugin.alloc(-1)), ValueError)
    for size in (2**32, 2**40, 2**63, 2**64 - 1):
        assert isinstance(
            cause(lambda plugin, value, result, size=size: plugin.alloc(size)), OutOfMemoryError
        )


def test_allocation_over_limit() -> None:
    """An allocation over the limit is refused, and the host function can continue."""

    def f(plugin: CurrentPlugin, value: Val, result: Val) -> None:
        with pytest.raises(OutOfMemoryError):
            plugin.alloc(10_000_000)
        with pytest.raises(OutOfMemoryError):
            plugin.return_bytes(result, bytes(10_000_000))
        plugin.return_string(result, "went on")

    assert run(f, memory={"max_pages": 10}) == b"went on"


def test_repr_of_vals_and_memories() -> None:
    """Vals and memories have a readable `repr`."""
    assert repr(Val(ValType.I64, 5)) == "Val(ValType.I64, 5)"
    assert repr(Memory(512, 4)) == "Memory(offset=512, length=4)"


# Config, vars, context, errors, time


def test_config_is_a_copy() -> None:
    def f(plugin: CurrentPlugin, value: Val, result: Val) -> None:
        assert plugin.config == {"a": "b"}
        plugin.config["a"] = "changed"
        assert plugin.config == {"a": "b"}

    run(f, config={"a": "b"})


def test_vars_shared_with_guest() -> None:
    """The vars are the ones that the guest sees."""

    def f(plugin: CurrentPlugin, value: Val, result: Val) -> None:
        seen.append(plugin.var("k"))
        plugin.set_var("k", change)

    seen: list[bytes | None] = []
    change: bytes | None = b"of the host"
    with plugin_with(f) as plugin:
        plugin.call("set")
        plugin.call("run")
        assert plugin.call("get") == b"of the host"
        change = None
        plugin.call("run")
        assert plugin.call("get") == b""
        plugin.call("run")
    assert seen == [b"value", b"of the host", None]


def test_var_over_limit_is_refused() -> None:
    """A var over the limit is refused, and the others are kept."""

    def f(plugin: CurrentPlugin, value: Val, result: Val) -> None:
        plugin.set_var("key", b"1234567")
        with pytest.raises(OutOfMemoryError, match="10 bytes"):
            plugin.set_var("key", b"12345678")
        with pytest.raises(OutOfMemoryError):
            plugin.set_var("k", b"")
        assert plugin.var("key") == b"1234567"
        plugin.set_var("key", b"7654321")
        plugin.set_var("key", None)
        plugin.set_var("k", b"123456789")

    run(f, memory={"max_var_bytes": 10})


def test_set_error() -> None:
    """A host function can set the guest's error."""

    def f(plugin: CurrentPlugin, value: Val, result: Val) -> None:
        plugin.set_error("the host says no: ä")

    with plugin_with(f) as plugin:
        plugin.call("set")
        with pytest.raises(plugwasm.GuestError) as caught:
            plugin.call("run")
        assert caught.value.guest_message == "the host says no: ä"
        assert plugin.call("get") == b"value"


def test_the_time_that_remains_is_told() -> None:
    seen: list[float | None] = []

    def f(plugin: CurrentPlugin, value: Val, result: Val) -> None:
        seen.append(plugin.time_remaining())
        time.sleep(0.02)
        seen.append(plugin.time_remaining())

    with plugin_with(f, limits=Limits(timeout=None)) as plugin:
        plugin.call("run")
    run(f, timeout_ms=5000)
    assert seen[:2] == [None, None]
    assert seen[2] is not None
    assert seen[3] is not None
    assert 4 < seen[3] <= seen[2] - 0.02 < 5


def test_time_remaining_after_cancel() -> None:
    """`time_remaining` raises if the call was cancelled."""

    def f(current: CurrentPlugin, value: Val, result: Val) -> None:
        assert plugin.cancel_handle().cancel()
        current.time_remaining()
        raise AssertionError("it should have been raised")

    with plugin_with(f) as plugin, pytest.raises(plugwasm.CancelledError):
        plugin.call("run")


# Use after the end


USES: dict[str, Callable[[CurrentPlugin], Any]] = {
    "memory": lambda plugin: plugin.memory(Memory(512, 1)),
    "host_context": lambda plugin: plugin.host_context(),
    "alloc": lambda plugin: plugin.alloc(1),
    "free": lambda plugin: plugin.free(Memory(512, 1)),
    "memory_at_offset": lambda plugin: plugin.memory_at_offset(512),
    "return_bytes": lambda plugin: plugin.return_bytes(Val(ValType.I64, 0), b"a"),
    "return_string": lambda plugin: plugin.return_string(Val(ValType.I64, 0), "a"),
    "input_buffer": lambda plugin: plugin.input_buffer(Val(ValType.I64, 512)),
    "input_bytes": lambda plugin: plugin.input_bytes(Val(ValType.I64, 512)),
    "input_string": lambda plugin: plugin.input_string(Val(ValType.I64, 512)),
    "config": lambda plugin: plugin.config,
    "var": lambda plugin: plugin.var("a"),
    "set_var": lambda plugin: plugin.set_var("a", b"b"),
    "set_error": lambda plugin: plugin.set_error("a"),
    "time_remaining": lambda plugin: plugin.time_remaining(),
}


def test_members_are_in_table_of_uses() -> None:
    """The table of uses lists every public member."""
    assert sorted(USES) == sorted(name for name in vars(CurrentPlugin) if not name.startswith("_"))


@pytest.mark.parametrize("use", USES)
def test_kept_current_plugin_is_refused(use: str) -> None:
    """A current plugin that is kept after its call is refused."""
    kept: list[CurrentPlugin] = []

    def f(plugin: CurrentPlugin, value: Val, result: Val) -> None:
        kept.append(plugin)
        result.value = value.value

    with plugin_with(f) as plugin:
        plugin.call("run")
        with pytest.raises(ClosedError, match="CurrentPlugin"):
            USES[use](kept[0])
        plugin.call("run")
        with pytest.raises(ClosedError):
            USES[use](kept[0])
    with pytest.raises(ClosedError):
        USES[use](kept[1])


def test_kept_after_exception_is_refused() -> None:
    """It is refused also if its host function raised."""
    kept: list[CurrentPlugin] = []

    def f(plugin: CurrentPlugin, value: Val, result: Val) -> None:
        kept.append(plugin)
        raise LookupError

    cause(f)
    with pytest.raises(ClosedError):
        kept[0].alloc(1)


def test_kept_views_are_released() -> None:
    """Views kept after the call are released."""
    views: list[memoryview] = []

    def f(plugin: CurrentPlugin, value: Val, result: Val) -> None:
        views.append(plugin.input_buffer(value))
        views.append(plugin.memory(plugin.alloc(10)))

    with plugin_with(f) as plugin:
        plugin.call("run")
        for view in views:
            with pytest.raises(ValueError, match="released"):
                view[0]


def test_copies_of_view_stay_valid() -> None:
    """Objects made from a view stay valid."""
    kept: list[Any] = []

    def f(plugin: CurrentPlugin, value: Val, result: Val) -> None:
        view = plugin.input_buffer(value)
        kept.extend([view[2:5], memoryview(view)])

    run(f)
    gc.collect()
    assert bytes(kept[0]) == b"om "
    kept[1][0] = 65
    assert bytes(kept[1])[:2] == b"Ar"


def test_use_from_another_thread() -> None:
    """Another thread can use it while the host function waits, and not longer."""
    seen: list[Any] = []

    def f(plugin: CurrentPlugin, value: Val, result: Val) -> None:
        thread = threading.Thread(target=lambda: seen.append(plugin.input_bytes(value)))
        thread.start()
        thread.join()
        seen.append(plugin)

    run(f)
    assert seen[0] == b"from the guest"
    with pytest.raises(ClosedError):
        seen[1].input_bytes(Val(ValType.I64, 512))


def test_host_blocks_end_with_call() -> None:
    """Blocks that the host allocated are freed with the call."""
    offsets: list[int] = []

    def f(plugin: CurrentPlugin, value: Val, result: Val) -> None:
        if offsets:
            assert plugin.memory_at_offset(offsets[0]).length == 0
        else:
            offsets.append([plugin.alloc(1000) for _ in range(10)][-1].offset)

    with plugin_with(f) as plugin:
        plugin.call("run")
        plugin.call("run")


def test_guest_sees_host_block_length() -> None:
    """The guest sees the length of a block that the host allocated."""

    def f(plugin: CurrentPlugin, value: Val, result: Val) -> None:
        result.value = plugin.alloc(4321).offset

    assert number(run(f, "length")) == 4321
