"""The harness for plugin authors: calls, vars, logs, limits, time and random bytes."""

from __future__ import annotations

import logging
import re
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

import plugwasm
from plugwasm.testing import FakeClock, Harness
from tests.support.guests import LOOP, MEMORY, export, guest, number
from tests.support.harness_guests import ASKS, LOGS, REMEMBERS
from tests.support.paths import EXAMPLES

# ---- vars of a plugin, from outside --------------------------------------------------------------


def test_initial_and_final_vars() -> None:
    """A plugin starts with the given vars, and its vars can be read."""
    with plugwasm.Plugin(REMEMBERS, vars={"k": b"old", "other": b""}) as plugin:
        assert plugin.vars == {"k": b"old", "other": b""}
        assert plugin.call("swap") == b"old"
        assert plugin.vars == {"k": b"new", "other": b""}
        plugin.vars["k"] = b"a copy"
        plugin.call("forget")
        assert plugin.vars == {"other": b""}
        plugin.reset()
        assert plugin.call("swap") == b"old"


def test_vars_outlive_instance() -> None:
    """Vars outlive a replaced instance and are reset by `reset`."""
    with plugwasm.Plugin(REMEMBERS, vars={"k": b"old"}) as plugin:
        with pytest.raises(plugwasm.TrapError):
            plugin.call("die")
        assert plugin.vars == {"k": b"new"}
        assert plugin.call("swap") == b"new"
        plugin.reset()
        assert plugin.vars == {"k": b"old"}
        assert plugin.call("swap") == b"old"


def test_vars_of_isolated_plugin() -> None:
    """An isolated plugin's vars work in the same way."""
    with plugwasm.IsolatedPlugin(REMEMBERS, vars={"k": b"old"}) as plugin:
        assert plugin.vars == {"k": b"old"}
        assert plugin.call("swap") == b"old"
        assert plugin.vars == {"k": b"new"}


def test_vars_count_towards_limits() -> None:
    """Initial vars count towards the limits."""
    limits = plugwasm.Limits(var_bytes=6, vars=2)
    with plugwasm.Plugin(REMEMBERS, vars={"k": b"12345"}, limits=limits) as plugin:
        assert plugin.call("swap") == b"12345"
    for vars in ({"k": b"123456"}, {"a": b"", "b": b"", "c": b""}):
        with pytest.raises(
            plugwasm.OptionError, match="vars: more than the limits allow: 6 bytes, 2 names"
        ):
            plugwasm.Plugin(REMEMBERS, vars=vars, limits=limits)
    for vars in ({"a": b"", "b": b""}, {"a": b"12"}):
        with (
            plugwasm.Plugin(REMEMBERS, vars=vars, limits=limits) as plugin,
            pytest.raises(plugwasm.GuestError, match="limit"),
        ):
            plugin.call("swap")


@pytest.mark.parametrize("vars", [{"k": "text"}, {"k": None}, {1: b""}])
def test_vars_are_validated(vars: Any) -> None:
    """Vars that are not a mapping of names to bytes are refused."""
    with pytest.raises(
        plugwasm.OptionError, match="vars: names must be text and values bytes, but `"
    ):
        plugwasm.Plugin(REMEMBERS, vars=vars)


# ---- what happened -------------------------------------------------------------------------------


def test_harness_keeps_calls() -> None:
    """A harness runs a plugin and keeps its calls."""
    harness = Harness(
        EXAMPLES / "count_vowels.wasm",
        config={"vowels": "a"},
        vars={"total": (5).to_bytes(8, "little")},
    )
    with harness.plugin() as plugin:
        assert plugin.call("count_vowels", "banana", parse=len) == 34
        view = plugin.call("count_vowels", b"", parse=None)
        kept = bytes(view)
        with pytest.raises(plugwasm.FunctionNotFoundError):
            plugin.call("count_vovels")
    first, second, third = harness.calls
    assert (first.function, first.input, first.output, first.error) == (
        "count_vowels",
        "banana",
        34,
        None,
    )
    assert second.output == kept
    assert first.fuel > second.fuel > 0
    assert first.seconds > 0
    assert isinstance(third.error, plugwasm.FunctionNotFoundError)
    assert third.fuel == 0
    assert harness.vars == {"total": (8).to_bytes(8, "little")}


def test_vars_before_during_and_after() -> None:
    """Vars can be read before, during and after a call."""
    with Harness(REMEMBERS, vars={"k": b"old"}) as harness:
        assert harness.vars == {"k": b"old"}
        plugin = harness.plugin()
        plugin.call("swap")
        assert harness.vars == {"k": b"new"}
        assert harness.plugin().call("swap") == b"old"
    assert harness.vars == {"k": b"new"}
    with pytest.raises(plugwasm.ClosedError):
        plugin.call("swap")


def test_logs_by_level(caplog: pytest.LogCaptureFixture) -> None:
    """Logs are kept by level and still reach the application."""
    logger = logging.getLogger("plugwasm.plugin.talker")
    before = logger.level, list(logger.handlers)
    with Harness(LOGS, name="talker") as harness:
        assert number(harness.plugin().call("say")) == 0
    assert harness.logs.messages("warn") == ["warn line"]
    assert [(line.level, line.message) for line in harness.logs] == [
        (level, f"{level} line") for level in ("trace", "debug", "info", "warn", "error")
    ]
    assert len(harness.logs) == 5
    assert [
        record.message for record in caplog.records if record.name == "plugwasm.plugin.talker"
    ] == harness.logs.messages()
    assert (logger.level, logger.handlers) == before
    harness.logs.clear()
    assert not harness.logs.messages()
    with pytest.raises(
        ValueError, match="expected one of trace, debug, info, warn, error, got 'warning'"
    ):
        harness.logs.messages("warning")


def test_log_level_reaches_plugin() -> None:
    """The log level is the one that the plugin sees."""
    with Harness(LOGS, log_level="warn") as harness:
        assert number(harness.plugin().call("say")) == 3
    assert harness.logs.messages() == ["warn line", "error line"]
    with pytest.raises(ValueError, match="log_level: expected one of"):
        Harness(LOGS, log_level="loud")


def test_logs_of_same_name_do_not_mix() -> None:
    """Logs of two harnesses with one name are kept apart."""
    with Harness(LOGS) as one, Harness(LOGS) as other:
        one.plugin().call("say")
        assert (len(one.logs), len(other.logs)) == (5, 0)


def test_transcript_is_in_order() -> None:
    """The transcript lists events in order."""
    with Harness(EXAMPLES / "host_functions.wasm", config={"times": "2"}) as harness:
        harness.host("greet", str, returns=lambda who: f"Hi {who[:3]}")
        harness.host("add", raises=ValueError("too much"))
        plugin = harness.plugin()
        plugin.call("repeat_greet", "Ada")
        with pytest.raises(plugwasm.HostFunctionError):
            plugin.call("sum", b"1 2")
        with pytest.raises(plugwasm.HostFunctionError):
            plugin.call("scale", "3")
        plugin.call("greet", "x" * 500)
    unexpected = (
        "the test does not expect the host function `scale` to be called, but it was, with (3.0)"
    )
    assert re.sub(r"\d+ fuel", "N fuel", harness.transcript()).splitlines() == [
        "repeat_greet('Ada') -> b'Hi Ada' (N fuel)",
        "    host greet('Ada') -> 'Hi Ada'",
        "    host greet('Ada') -> 'Hi Ada'",
        "sum(b'1 2') raised HostFunctionError: `sum` of plugin `host_functions`: the host function `add` raised ValueError: too much (N fuel)",
        "    host add(1, 2) raised ValueError: too much",
        f"scale('3') raised UnexpectedHostCallError: `scale` of plugin `host_functions`: {unexpected} (N fuel)",
        "    host scale(3.0) raised UnexpectedHostCallError",
        f"greet('{'x' * 79} … {'x' * 39}') -> b'Hi xxx' (N fuel)",
        f"    host greet('{'x' * 79} … {'x' * 39}') -> 'Hi xxx'",
    ]


def test_transcript_is_shortened() -> None:
    """Only the end of a long transcript is shown."""
    with Harness(ASKS) as harness:
        plugin = harness.plugin()
        for number in range(203):
            plugin.call("echo", str(number))
    lines = harness.transcript().splitlines()
    assert lines[0] == "… 3 lines before"
    assert [line.partition(" ")[0] for line in lines[1:]] == [
        f"echo('{number}')" for number in range(3, 203)
    ]


# ---- limits --------------------------------------------------------------------------------------


def test_bounds_of_block_of_calls() -> None:
    """The cost of a block of calls can be bounded."""
    grows = guest(
        export("grow", "(drop (memory.grow (i32.const 4)))") + export("idle", ""), memory=MEMORY
    )
    with Harness(grows) as harness:
        plugin = harness.plugin()
        plugin.call("idle")
        with harness.at_most(fuel=1000, seconds=60, memory_bytes=7 * 65536) as usage:
            plugin.call("grow")
            plugin.call("idle")
        assert 0 < usage.fuel == sum(call.fuel for call in usage.calls)
        assert len(usage.calls) == 2
        assert usage.memory_bytes == 7 * 65536  # two of the kernel's
        assert 0 < usage.seconds < 60
        exact = usage.calls[1].fuel
        with harness.at_most(fuel=exact):
            plugin.call("idle")
        with (
            pytest.raises(
                AssertionError,
                match=rf"^plugin `plugin` took {exact} fuel, but at most {exact - 1} was expected:\n  idle\(\) -> b'' \({exact} fuel\)$",
            ),
            harness.at_most(fuel=exact - 1),
        ):
            plugin.call("idle")
        with (
            pytest.raises(
                AssertionError, match="458,752 bytes of memory, but at most 458,751 was expected"
            ),
            harness.at_most(memory_bytes=7 * 65536 - 1),
        ):
            plugin.call("idle")
        with (
            pytest.raises(AssertionError, match="seconds, but at most 1e-09 was expected"),
            harness.at_most(seconds=1e-9),
        ):
            plugin.call("idle")


def test_a_bound_on_nothing_is_an_error() -> None:
    with Harness(ASKS) as harness:
        with (
            pytest.raises(AssertionError, match="no export of plugin `plugin` was called"),
            harness.at_most(fuel=1),
        ):
            pass
        with pytest.raises(TypeError, match="say how much"), harness.at_most():
            pass


def test_bounds_keep_error_of_block() -> None:
    """An error in a bounded block is raised unchanged."""
    with (
        Harness(guest(export("trap", "unreachable"))) as harness,
        pytest.raises(plugwasm.TrapError),
        harness.at_most(fuel=0),
    ):
        harness.plugin().call("trap")


def test_bounds_need_visible_memory() -> None:
    """Memory that the host cannot see cannot be bounded."""
    hidden = guest(export("idle", ""), memory="(memory 1)")
    with (
        Harness(hidden) as harness,
        pytest.raises(AssertionError, match="cannot be measured"),
        harness.at_most(memory_bytes=10**9),
    ):
        harness.plugin().call("idle")


def test_limits_hold() -> None:
    """Limits apply as in an application."""
    spins = guest(export("spin", LOOP))
    with Harness(spins, limits=plugwasm.Limits(timeout=0.05)) as harness:
        with pytest.raises(plugwasm.TimeoutError):
            harness.plugin().call("spin")
        assert harness.limits.timeout == 0.05
        assert harness.calls[0].fuel > 0
    with Harness(spins, fuel_limit=10_000) as harness, pytest.raises(plugwasm.OutOfFuelError):
        harness.plugin().call("spin")


# ---- time and chance -----------------------------------------------------------------------------


def wasi_guest() -> str:
    return guest(
        export(
            "now",
            "(drop (call $clock (i32.const 0) (i64.const 0) (i32.const 0))) (call $answer (i64.load (i32.const 0)))",
        )
        + export(
            "chance",
            "(drop (call $random (i32.const 0) (i32.const 8))) (call $answer (i64.load (i32.const 0)))",
        )
        + export(
            "sleep",  # one subscription: to the monotonic clock, 5 seconds from now
            "(i64.store (i32.const 64) (i64.const 0)) (i64.store8 (i32.const 72) (i64.const 0)) (i32.store (i32.const 80) (i32.const 1))"
            "(i64.store (i32.const 88) (i64.const 5000000000)) (drop (call $poll (i32.const 64) (i32.const 200) (i32.const 1) (i32.const 0)))",
        ),
        '(import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))',
        '(import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))',
        '(import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))',
        memory=MEMORY,
    )


def test_time_stands_still() -> None:
    """Time stands still until the test moves it."""
    with Harness(wasi_guest(), wasi=True) as harness:
        plugin, other = harness.plugin(), harness.plugin()

        def now() -> datetime:
            return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(
                microseconds=number(plugin.call("now")) // 1000
            )

        assert now() == now() == datetime(2000, 1, 1, tzinfo=UTC)
        harness.clock.set(datetime(2024, 2, 29, 13, 0, 0, 5, tzinfo=timezone(timedelta(hours=1))))
        assert now() == datetime(2024, 2, 29, 12, 0, 0, 5, tzinfo=UTC)
        harness.clock.advance(timedelta(days=1))
        harness.clock.advance(0.5)
        assert now() == datetime(2024, 3, 1, 12, 0, 0, 500_005, tzinfo=UTC)
        harness.clock.set(1_000_000_000)
        assert number(other.call("now")) == 10**18
        with harness.at_most(seconds=4):
            plugin.call("sleep")
        assert harness.clock.sleeps == [5.0]
        assert number(other.call("now")) == 10**18 + 5 * 10**9
        harness.clock.tick = 0.25
        assert number(plugin.call("now")) + 250_000_000 == number(plugin.call("now"))


def test_time_is_told_without_doubt() -> None:
    clock = FakeClock()
    with pytest.raises(ValueError, match="has no time zone"):
        clock.set(datetime(2024, 1, 1))
    with pytest.raises(ValueError, match="does not run backwards"):
        clock.advance(-1)
    clock.set(0)
    clock.advance(1e-9)
    assert (clock.realtime(), clock.monotonic()) == (1, 10**9 + 1)


def test_no_clock_begins_at_zero() -> None:
    """Go's runtime takes a monotonic clock of 0 for one that does not work, and ends."""
    assert FakeClock().monotonic() > 0
    assert plugwasm.FrozenClock().monotonic() > 0


def test_random_follows_seed() -> None:
    """Random bytes are determined by the seed."""

    def chance(**settings: Any) -> int:
        with Harness(wasi_guest(), **settings) as harness:
            return number(harness.plugin().call("chance"))

    assert (
        chance(wasi=True)
        == chance(wasi=True)
        == chance(wasi=True, seed=0)
        != chance(wasi=True, seed=1)
    )
    assert chance(wasi=plugwasm.WasiOptions(random=lambda n: b"\1" + bytes(n - 1))) == 1
    with pytest.raises(plugwasm.MissingImportError, match="WASI was not granted"):
        chance()


def test_directories_can_be_granted(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("a note")
    with Harness(
        EXAMPLES / "wasi_files.wasm", wasi=True, allowed_paths={tmp_path: "/data"}
    ) as harness:
        assert harness.plugin().call("cat", "/data/note.txt") == b"a note"
