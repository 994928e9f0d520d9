"""Floods of log lines and vars from a plugin (`docs/security.md`, 35 and 36)."""

from __future__ import annotations

import logging
import time
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest

import plugwasm
from plugwasm import GuestError, Limits, Plugin
from plugwasm._host import plugin_log
from tests.support.guests import export, guest, manifest, number

# ---- 35: logging and stdout ----------------------------------------------------------------------

WRITES = """(func $write (param $fd i32) (param $at i32) (param $size i32)
  (i32.store (i32.const 0) (local.get $at)) (i32.store (i32.const 4) (local.get $size))
  (drop (call $fd_write (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8))))"""
WASI = '(import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))'


def repeat_code(code: str, count: str = "(call $input_load_u64 (i64.const 0))") -> tuple[str, str]:
    """Return the code so many times, and the locals that this needs."""
    loop = f"""(local.set $n {count}) (block $done (loop $next (br_if $done (i64.eqz (local.get $n)))
      {code} (local.set $n (i64.sub (local.get $n) (i64.const 1))) (br $next)))"""
    return loop, "(local $n i64)"


FLOOD = guest(
    export("log", *repeat_code("(call $log_info <<a line>>)"))
    + export(
        "long", *repeat_code("(call $log_info (call $put (i32.const 1024) (i32.const 60000)))")
    )
    + export("quiet", *repeat_code("(call $log_debug <<a line>>)"))
    + export("one", "(call $log_info <<one>>)")
    + export("control", "(call $log_error <<a\n\x1b[31mb\rc\x7fd>>)")
    + export("ok", "(call $echo)")
)
PRINTS = guest(
    WRITES
    + export("lines", *repeat_code("(call $write (i32.const 1) (i32.const 1024) (i32.const 5))"))
    + export("warnings", *repeat_code("(call $write (i32.const 2) (i32.const 1024) (i32.const 5))"))
    + export(
        "endless_line",
        *repeat_code("(call $write (i32.const 1) (i32.const 2048) (i32.const 30000))"),
    )
    + export("control", "(call $write (i32.const 1) (i32.const 1040) (i32.const 8))")
    + '(data (i32.const 1024) "line\\n") (data (i32.const 1040) "a\\1b[2Jbc\\n")',
    WASI,
    memory='(memory (export "memory") 1)',
)


def count(number: int) -> bytes:
    return number.to_bytes(8, "little")


class Kept(logging.Handler):
    def __init__(self, records: list[logging.LogRecord]) -> None:
        super().__init__()
        self.emit = records.append  # type: ignore[method-assign]


@pytest.fixture
def records() -> Iterator[list[logging.LogRecord]]:
    """Collect the records of plugins at level INFO and above, hidden from pytest, which would
    show the whole flood."""
    found: list[logging.LogRecord] = []
    logger, handler = logging.getLogger("plugwasm.plugin"), Kept(found)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    yield found
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)
    logger.propagate = True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock for log rates that only the test moves."""
    now = [1000.0]
    monkeypatch.setattr(plugin_log, "monotonic", lambda: now[0])
    return now


def few_lines(**limits: Any) -> Limits:
    return Limits(**{"log_lines_per_second": 10, "log_bytes_per_second": None} | limits)


def lines_of(records: list[logging.LogRecord]) -> list[str]:
    return [record.getMessage() for record in records if "dropped" not in record.getMessage()]


@pytest.mark.parametrize("function", ["lines", "warnings", "log"])
def test_burst_then_lines_are_dropped(
    function: str, records: list[logging.LogRecord], clock: list[float]
) -> None:
    """A plugin may write ten seconds' worth of lines at once. Further lines are dropped and
    counted."""
    source = FLOOD if function == "log" else PRINTS
    with Plugin(source, wasi=True, limits=few_lines()) as plugin:
        plugin.call(function, count(100))
        assert (len(lines_of(records)), plugin.compiled_plugin.log_lines_dropped) == (100, 0)
        plugin.call(function, count(1))
        assert (len(lines_of(records)), plugin.compiled_plugin.log_lines_dropped) == (100, 1)
        plugin.call(function, count(5000))
        assert (len(lines_of(records)), plugin.compiled_plugin.log_lines_dropped) == (100, 5001)
    (warning,) = [record for record in records if "dropped" in record.getMessage()]
    assert warning.levelno == logging.WARNING
    assert "log_lines_per_second" in warning.getMessage()


def test_log_reports_lost_lines(records: list[logging.LogRecord], clock: list[float]) -> None:
    """After a flood, the log reports how many lines were dropped and goes on."""
    with Plugin(FLOOD, limits=few_lines()) as plugin:
        plugin.call("log", count(150))
        del records[:]
        clock[0] += 0.5  # room for five lines, but it begins again only with room for a second
        plugin.call("log", count(1))
        assert records == []
        clock[0] += 0.5
        plugin.call("log", count(11))
        assert [record.getMessage() for record in records[:2]] == [
            "51 lines of the plugin were dropped",
            "a line",
        ]
        assert (len(lines_of(records)), plugin.compiled_plugin.log_lines_dropped) == (10, 52)


def test_log_bytes_are_limited_too(records: list[logging.LogRecord], clock: list[float]) -> None:
    with Plugin(
        FLOOD, limits=few_lines(log_lines_per_second=None, log_bytes_per_second=30_000)
    ) as plugin:
        plugin.call("long", count(3))  # 60,000 bytes each, of which nearly all are escaped
        assert (len(lines_of(records)), plugin.compiled_plugin.log_lines_dropped) == (2, 1)
        plugin.call("one")
        assert lines_of(records)[-1] != "one"
        clock[0] += 10
        plugin.call("one")
        assert lines_of(records)[-1] == "one"


def test_rate_outlives_instance(records: list[logging.LogRecord], clock: list[float]) -> None:
    """A new instance does not reset the rate."""
    compiled = plugwasm.CompiledPlugin(FLOOD, limits=few_lines())
    for _ in range(30):
        with Plugin(compiled) as plugin:
            plugin.call("log", count(10))
    assert (len(lines_of(records)), compiled.log_lines_dropped) == (100, 200)


def test_filtered_lines_do_not_count(records: list[logging.LogRecord]) -> None:
    """Lines below the log level do not count."""
    with Plugin(FLOOD, limits=few_lines()) as plugin:
        plugin.call("quiet", count(1000))
        assert plugin.compiled_plugin.log_lines_dropped == 0
        assert records == []


def test_rate_of_zero(records: list[logging.LogRecord]) -> None:
    """With a rate of zero, nothing is logged."""
    with Plugin(FLOOD, limits=few_lines(log_lines_per_second=0)) as plugin:
        plugin.call("log", count(3))
        assert (len(lines_of(records)), plugin.compiled_plugin.log_lines_dropped) == (0, 3)


def test_flood_with_default_limits(records: list[logging.LogRecord]) -> None:
    """With default limits, a flood is capped and ends at the deadline."""
    with Plugin(FLOOD, limits=Limits(timeout=1.0)) as plugin:
        start = time.monotonic()
        with pytest.raises(plugwasm.TimeoutError):
            plugin.call("log", count(2**62))
        seconds = time.monotonic() - start
        assert len(lines_of(records)) <= 10_000 + 1000 * (seconds + 1)
        assert plugin.call("ok", "x") == b"x"


def test_endless_line_takes_no_memory(records: list[logging.LogRecord]) -> None:
    """An endless line takes no memory."""
    with Plugin(PRINTS, wasi=True) as plugin:
        plugin.call("endless_line", count(1))
        tracemalloc.start()
        try:
            plugin.call("endless_line", count(3000))
            assert tracemalloc.get_traced_memory()[1] < 2**20
        finally:
            tracemalloc.stop()
    assert [len(record.getMessage()) < 40_000 for record in records] == [
        True
    ] * 2  # 8 KiB, of which each byte is escaped
    assert "89991808 more bytes" in records[1].getMessage()


def test_control_characters_are_escaped(records: list[logging.LogRecord]) -> None:
    with Plugin(FLOOD) as plugin:
        plugin.call("control")
    with Plugin(PRINTS, wasi=True) as plugin:
        plugin.call("control")
    assert [record.getMessage() for record in records] == [
        "a\n    \\x1b[31mb\\x0dc\\x7fd",
        "a\\x1b[2Jbc",
    ]


# ---- 36: vars ------------------------------------------------------------------------------------

VARS = guest(
    # Sets $input vars, whose names are four bytes, to a value of $size bytes.
    """(func $name (param $n i64) (result i64) (local $block i64)
      (local.set $block (call $alloc (i64.const 4)))
      (call $store_u8 (local.get $block) (i32.wrap_i64 (i64.and (local.get $n) (i64.const 127))))
      (call $store_u8 (i64.add (local.get $block) (i64.const 1)) (i32.wrap_i64 (i64.and (i64.shr_u (local.get $n) (i64.const 7)) (i64.const 127))))
      (call $store_u8 (i64.add (local.get $block) (i64.const 2)) (i32.wrap_i64 (i64.and (i64.shr_u (local.get $n) (i64.const 14)) (i64.const 127))))
      (call $store_u8 (i64.add (local.get $block) (i64.const 3)) (i32.wrap_i64 (i64.shr_u (local.get $n) (i64.const 21))))
      (local.get $block))
    (func $is_there (param $n i64) (result i64) (i64.extend_i32_u (i64.ne (call $var_get (call $name (local.get $n))) (i64.const 0))))"""
    + export(
        "many",
        *repeat_code("(call $var_set (call $name (local.get $n)) (call $alloc (i64.const 1)))"),
    )
    + export("last", "(call $answer (call $is_there (i64.const 1)))")
    + export("again", "(call $var_set (call $name (i64.const 2)) (call $alloc (i64.const 1)))")
    + export("remove", "(call $var_set (call $name (i64.const 3)) (i64.const 0))")
    + export("value", "(call $var_set <<v>> (call $alloc (call $input_load_u64 (i64.const 0))))")
    + export(
        "huge_name",
        "(call $var_set (call $alloc (call $input_load_u64 (i64.const 0))) (call $alloc (i64.const 1)))",
    )
    + export("get", "(call $give (call $var_get <<v>>))")
)


@pytest.mark.parametrize(("names", "is_refused"), [(1000, False), (1001, True)])
def test_vars_count_limit(names: int, is_refused: bool) -> None:
    """Exactly the allowed number of vars can be set."""
    with Plugin(VARS, limits=Limits(vars=1000)) as plugin:
        if is_refused:
            with pytest.raises(GuestError, match="1000 names"):
                plugin.call("many", count(names))
        else:
            plugin.call("many", count(names))
            assert number(plugin.call("last")) == 1


def test_vars_full_allow_change_and_removal() -> None:
    """At the limit, existing vars can still be changed and removed."""
    with Plugin(VARS, limits=Limits(vars=1000)) as plugin:
        plugin.call("many", count(1000))
        plugin.call("again")
        plugin.call("remove")
        plugin.call("value", count(1))  # takes the place of the one that was removed
        assert plugin.call("get") == b"\0"


def test_vars_tiny_values() -> None:
    """With default limits, tiny vars take little of the host's memory."""
    with Plugin(VARS) as plugin:
        plugin.call("many", count(1))
        tracemalloc.start()
        try:
            with pytest.raises(GuestError, match="10000 names"):
                plugin.call("many", count(2**20))
            assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize(("size", "is_refused"), [(99, False), (100, True), (2**29, True)])
def test_vars_size_limit(size: int, is_refused: bool) -> None:
    """A name and value may be exactly as large as the limit."""
    with Plugin(manifest(VARS, memory={"max_var_bytes": 100})) as plugin:
        plugin.call("value", count(1))
        if is_refused:
            with pytest.raises(GuestError, match="limit of 100 bytes"):
                plugin.call("value", count(size))
        else:
            plugin.call("value", count(size))
            plugin.call("value", count(size))  # overwriting at the limit
            assert plugin.call("get") == bytes(size)


@pytest.mark.parametrize(("size", "is_refused"), [(99, False), (100, True), (2**20, True)])
def test_vars_names_count(size: int, is_refused: bool) -> None:
    """Names count as much as values."""
    with Plugin(manifest(VARS, memory={"max_var_bytes": 100})) as plugin:
        if is_refused:
            with pytest.raises(GuestError, match="limit of 100 bytes"):
                plugin.call("huge_name", count(size))
        else:
            plugin.call("huge_name", count(size))
