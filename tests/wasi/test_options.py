"""The application's clocks and random bytes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from plugwasm import (
    Clock,
    CoarseClock,
    FrozenClock,
    Limits,
    OptionError,
    Plugin,
    SeededRandom,
    TimeoutError,
    WasiOptions,
)
from tests.support.guests import export, guest, number

IMPORTS = [
    f'(import "wasi_snapshot_preview1" "{name}" (func ${name} {type} (result i32)))'
    for name, type in {
        "clock_time_get": "(param i32 i64 i32)",
        "clock_res_get": "(param i32 i32)",
        "random_get": "(param i32 i32)",
        "poll_oneoff": "(param i32 i32 i32 i32)",
    }.items()
]
TIMES = guest(
    """(func $sleep (param $clock i32) (param $flags i32) (param $nanoseconds i64)
      (i64.store (i32.const 0) (i64.const 7)) (i32.store8 (i32.const 8) (i32.const 0))
      (i32.store (i32.const 16) (local.get $clock)) (i64.store (i32.const 24) (local.get $nanoseconds))
      (i64.store (i32.const 32) (i64.const 0)) (i32.store16 (i32.const 40) (local.get $flags))
      (if (call $poll_oneoff (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128)) (then (unreachable))))
    (func $time (param $clock i32) (result i64)
      (if (call $clock_time_get (local.get $clock) (i64.const 1) (i32.const 200)) (then (unreachable)))
      (i64.load (i32.const 200)))"""
    + export("realtime", "(call $answer (call $time (i32.const 0)))")
    + export("monotonic", "(call $answer (call $time (i32.const 1)))")
    + export(
        "resolution",
        "(drop (call $clock_res_get (i32.const 1) (i32.const 200))) (call $answer (i64.load (i32.const 200)))",
    )
    + export(
        "sleep", "(call $sleep (i32.const 1) (i32.const 0) (call $input_load_u64 (i64.const 0)))"
    )
    + export(
        "sleep_until",
        "(call $sleep (i32.const 0) (i32.const 1) (call $input_load_u64 (i64.const 0)))",
    )
    + export(
        "sleep_forever",
        "(loop $again (call $sleep (i32.const 1) (i32.const 0) (i64.const 1000)) (br $again))",
    )
    + export(
        "random",
        "(drop (call $random_get (i32.const 200) (i32.const 8))) (call $answer (i64.load (i32.const 200)))",
    )
    + export(
        "many_random",
        "(if (call $random_get (i32.const 1000) (i32.const 60000)) (then (unreachable))) (call $give (call $put (i32.const 1000) (i32.const 60000)))",
    ),
    *IMPORTS,
    memory='(memory (export "memory") 1)',
)


def plugin(**options: Any) -> Plugin:
    return Plugin(TIMES, wasi=WasiOptions(**options), limits=Limits(timeout=5.0))


def nanoseconds(count: int) -> bytes:
    return count.to_bytes(8, "little")


def test_default_is_system_clock() -> None:
    """By default, a plugin sees the system's clocks."""
    with Plugin(TIMES, wasi=True) as ours:
        before = time.time_ns()
        assert before <= number(ours.call("realtime")) <= time.time_ns()
        first = number(ours.call("monotonic"))
        assert first <= number(ours.call("monotonic"))
        assert number(ours.call("resolution")) == 1


def test_a_frozen_clock_stands_still() -> None:
    with plugin(clock=FrozenClock(10**18, 5)) as ours:
        assert {number(ours.call("realtime")) for _ in range(3)} == {10**18}
        assert {number(ours.call("monotonic")) for _ in range(3)} == {5}


def test_frozen_clock_moves_by_sleep() -> None:
    """With a frozen clock, a sleep takes no time and advances the clock."""
    with plugin(clock=FrozenClock(10**18)) as ours:
        start = time.monotonic()
        ours.call("sleep", nanoseconds(3600 * 10**9))
        ours.call("sleep_until", nanoseconds(10**18 + 7200 * 10**9))
        assert time.monotonic() - start < 4
        assert number(ours.call("realtime")) == 10**18 + 7200 * 10**9


def test_frozen_clock_per_instance() -> None:
    """Each instance starts at the time at which the clock was frozen."""
    clock = FrozenClock(100)
    for _ in range(2):
        with plugin(clock=clock) as ours:
            ours.call("sleep", nanoseconds(50))
            assert number(ours.call("realtime")) == 150
            ours.reset()
            assert number(ours.call("realtime")) == 100


def test_frozen_sleep_ends_at_deadline() -> None:
    """A loop of sleeps that take no time still ends at the deadline."""
    with (
        Plugin(TIMES, wasi=WasiOptions(clock=FrozenClock()), limits=Limits(timeout=0.2)) as ours,
        pytest.raises(TimeoutError),
    ):
        ours.call("sleep_forever")


def test_clock_resolution() -> None:
    """A coarse clock advances in steps and reports its resolution."""
    step = 10**9
    with plugin(clock=CoarseClock(step)) as ours:
        assert number(ours.call("realtime")) % step == number(ours.call("monotonic")) % step == 0
        assert abs(number(ours.call("realtime")) - time.time_ns()) < 3 * step
        assert number(ours.call("resolution")) == step


def test_clock_of_application() -> None:
    """The application's clock is used, and its exception ends the call."""

    class Mine(Clock):
        def realtime(self) -> int:
            return 42

        def monotonic(self) -> int:
            raise LookupError("no idea")

        def sleep(self, seconds: float, wait: Callable[[float], None]) -> None:
            slept.append(seconds)

    slept: list[float] = []
    with plugin(clock=Mine()) as ours:
        assert number(ours.call("realtime")) == 42
        ours.call("sleep", nanoseconds(10**9))
        assert slept == [1.0]
        with pytest.raises(LookupError, match="no idea"):
            ours.call("monotonic")
        assert number(ours.call("realtime")) == 42


def test_random_seed_per_instance() -> None:
    """Random bytes are determined by the seed and restart with each instance."""

    def outputs(seed: int | str) -> list[bytes]:
        with plugin(random=SeededRandom(seed)) as ours:
            first = [ours.call("random") for _ in range(3)]
            ours.reset()
            assert [ours.call("random") for _ in range(3)] == first
            return first

    assert outputs(7) == outputs(7) != outputs(8)
    assert outputs("seven") == outputs("seven")
    assert len(set(outputs(7))) == 3


def test_random_without_seed() -> None:
    """Without a seed, two instances get different bytes."""
    with Plugin(TIMES, wasi=True) as one, Plugin(TIMES, wasi=True) as other:
        assert one.call("many_random") != other.call("many_random")


def test_random_source_of_application() -> None:
    """The application's source is asked for exactly as many bytes as needed."""
    with plugin(random=lambda count: b"x" * count) as ours:
        assert ours.call("many_random") == b"x" * 60000


def test_random_source_length_is_checked() -> None:
    """A source that returns the wrong number of bytes is an error."""
    with (
        plugin(random=lambda count: b"x") as ours,
        pytest.raises(ValueError, match="gave 1 of them where 8 were asked for"),
    ):
        ours.call("random")


@pytest.mark.parametrize("options", [{"clock": time.time}, {"random": 7}])
def test_invalid_option_type_is_refused(options: dict[str, Any]) -> None:
    """Options of the wrong type are refused."""
    with pytest.raises(OptionError, match=f"WasiOptions.{next(iter(options))}"):
        WasiOptions(**options)


def test_resolution_below_ns_is_refused() -> None:
    """A resolution below one nanosecond is refused."""
    with pytest.raises(OptionError, match="at least 1"):
        CoarseClock(0)


def test_options_tell_what_they_are() -> None:
    assert (
        repr(WasiOptions(clock=FrozenClock(), random=SeededRandom(1)))
        == "WasiOptions(clock=FrozenClock, random=SeededRandom)"
    )
