"""The table of functions in `extism:host/env` determines what is recorded of each."""

from __future__ import annotations

from typing import Any

import pytest

from plugwasm import ReplayError
from plugwasm._host import env
from plugwasm._host.kernel import Kernel
from plugwasm._recording import effects
from plugwasm._runtime import plans
from plugwasm.recording import Recording
from tests.support.recordings import outputs, record_calls

ROLL = """
(module
  (import "extism:host/env" "roll" (func $roll (result i32)))
  (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
  (import "extism:host/env" "store_u8" (func $store (param i64 i32)))
  (import "extism:host/env" "output_set" (func $output (param i64 i64)))
  (memory 1)
  (func (export "run") (local $block i64)
    (local.set $block (call $alloc (i64.const 1)))
    (call $store (local.get $block) (call $roll))
    (call $output (local.get $block) (i64.const 1))))
"""


def record_rolls(replay: str, monkeypatch: pytest.MonkeyPatch) -> Recording:
    numbers = iter(range(1, 9))

    def roll(guest: Any, caller: int, values: Any) -> None:
        values[0] = next(numbers)

    function = env.EnvFunction("roll", roll, (), "i32", replay=replay)
    monkeypatch.setitem(env.FUNCTIONS, "roll", function)
    plans._plans.clear()  # a plan that another test has left is of its function
    return record_calls(ROLL, ("run", ""), ("run", ""))


def test_calls_of_a_new_row_are_recorded(
    nothing_compiled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A function added to the table is linked, and with `ANSWER` a replay does not run it."""
    recording = record_rolls(env.ANSWER, monkeypatch)
    assert [len(call.host_calls) for call in recording.calls] == [1, 1]
    assert outputs(recording.replay(ROLL)) == [b"\1", b"\2"]


def test_a_row_may_say_that_it_runs_again(
    nothing_compiled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `RERUN`, nothing is recorded, and a result that differs in the replay is detected."""
    recording = record_rolls(env.RERUN, monkeypatch)
    assert [len(call.host_calls) for call in recording.calls] == [0, 0]
    with pytest.raises(ReplayError, match=r"recorded: returned '\\x01'\n.*now: .*'\\x03'"):
        recording.replay(ROLL)


def test_every_row_says_how_it_replays() -> None:
    """Only calls to the outside are recorded: the guest's HTTP requests."""
    rows = {name: function.replay for name, function in env.FUNCTIONS.items()}
    assert set(rows.values()) == {env.RERUN, env.RESPONSE, env.LOG_LEVEL}
    assert [name for name, replay in rows.items() if replay == env.RESPONSE] == ["http_request"]
    assert [name for name, replay in rows.items() if replay == env.LOG_LEVEL] == ["get_log_level"]


def test_every_way_to_blocks_is_recorded() -> None:
    """While a host function is recorded, each member of the kernel that makes, frees or reads a
    block is replaced.
    """
    members = {name for name in dir(Kernel) if not name.startswith("_")}
    assert members - set(vars(effects._TrackedKernel)) == {
        *("capacity", "entry", "heap", "instance", "open_table", "pages", "read_failure"),
        *("refresh", "reserve", "table", "view"),
        "new_block_of_kernel",  # what `new_block` of the kernel calls
    }
