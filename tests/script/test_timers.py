"""Timers of JavaScript: their order, their errors, and the deadline that ends them."""

from __future__ import annotations

import pytest

import plugwasm
from plugwasm import FrozenClock, GuestError, Limits, ScriptError, WasiOptions, script
from tests.support.scripts import make_plugin

FROZEN = WasiOptions(clock=FrozenClock(1_000))
PAUSE = "const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));\n"


def test_timers_run_in_order_of_time() -> None:
    """A timer runs after all that are earlier, and gets its arguments; equal ones keep their order."""
    source = """
        export async function f() {
          const ran = [];
          setTimeout((...values) => ran.push(...values), 3, "c", "d");
          setTimeout(() => ran.push("b"), 1);
          setTimeout(() => ran.push("too late"), 4000);
          setTimeout(() => ran.push("a"), 0);
          setTimeout(() => ran.push("a2"));
          setTimeout(() => ran.push("negative"), -5);
          await new Promise((resolve) => setTimeout(resolve, 5));
          return ran;
        }
    """
    with make_plugin(source) as plugin:
        expected = ["a", "a2", "negative", "b", "c", "d"]
        assert plugin.call("f", returns=list) == expected
        assert plugin.call("f", returns=list) == expected


def test_intervals_run_until_cleared() -> None:
    """An interval runs again and again, between other timers, until it is cleared by itself."""
    source = """
        export async function f() {
          const ran = [];
          const id = setInterval(() => { ran.push(ran.length); if (ran.length === 3) clearInterval(id); }, 10);
          setTimeout(() => ran.push("between"), 15);
          await new Promise((resolve) => setTimeout(resolve, 50));
          clearTimeout(id);
          clearTimeout(undefined);
          return ran;
        }
    """
    with make_plugin(source, wasi=FROZEN) as plugin:
        assert plugin.call("f", returns=list) == [0, "between", 2]


def test_time_passes_while_timers_wait() -> None:
    """The clock of the script has moved on when a timer runs."""
    source = PAUSE + (
        "export const f = async () => { const from = performance.now(); await pause(30);"
        " return performance.now() - from; };"
    )
    with make_plugin(source) as plugin:
        assert plugin.call("f", returns=float) >= 29


@pytest.mark.parametrize(
    "body",
    [
        "return new Promise(() => setInterval(() => {}, 0));",
        "return new Promise(() => setInterval(() => {}, 5));",
        "return new Promise((resolve) => setTimeout(resolve, 1e9));",
        "const g = () => setTimeout(g); g(); return new Promise(() => {});",
        "for (;;) setTimeout(() => {}, 1);",
    ],
)
def test_deadline_ends_timers(body: str) -> None:
    """Timers that never end, or that are far away, are ended by the deadline of the call."""
    limits = Limits(timeout=0.5, memory_bytes=2**28)
    source = f"export const f = () => {{ {body} }};\nexport const g = () => 1;"
    with make_plugin(source, limits=limits) as plugin:
        with pytest.raises(plugwasm.TimeoutError):
            plugin.call("f")
        assert plugin.call("g", returns=int) == 1


def test_timers_end_with_their_call() -> None:
    """What a call leaves behind never runs: not after its result, and not in a later call."""
    source = (
        PAUSE
        + """
        let ran = 0;
        export function leave() { setTimeout(() => ran++, 0); setInterval(() => ran++, 1); return 1; }
        export async function wait() { await pause(20); return ran; }
        export async function fail() { setTimeout(() => ran++, 0); throw new Error("x"); }
    """
    )
    with make_plugin(source) as plugin:
        assert plugin.call("leave", returns=int) == 1
        with pytest.raises(GuestError):
            plugin.call("fail")
        assert plugin.call("wait", returns=int) == 0


def test_errors_of_timers() -> None:
    """What a timer throws ends the call; a callback that is no function is a TypeError at once."""
    source = (
        PAUSE
        + """
        export async function f() { setTimeout(() => { null.x; }, 1); await pause(50); }
        export function g() { setTimeout("1 + 1", 1); }
        export const h = () => new Promise(() => {});
    """
    )
    with make_plugin(source) as plugin:
        with pytest.raises(GuestError, match="TypeError: cannot read property 'x' of null"):
            plugin.call("f")
        with pytest.raises(
            GuestError, match="setTimeout: the callback must be a function, not str"
        ):
            plugin.call("g")
        with pytest.raises(GuestError, match="nothing will ever settle"):
            plugin.call("h")


def test_timers_while_loading() -> None:
    """A timer that is set while a script is loaded is an error that says where timers can be used."""
    with pytest.raises(ScriptError, match="a timer cannot be used while the script is loaded"):
        script("javascript", "setTimeout(() => {}, 1);\nexport const f = () => 1;")


def test_signals_to_abort() -> None:
    """An AbortSignal tells its listeners once, by itself after a time, and is a reason to throw."""
    source = (
        PAUSE
        + """
        export async function f() {
          const told = [];
          const controller = new AbortController();
          controller.signal.addEventListener("abort", (event) => told.push(event.type));
          controller.signal.onabort = ({ target }) => told.push(target.reason);
          controller.abort("why");
          controller.abort("again");
          const late = AbortSignal.timeout(5);
          told.push(late.aborted);
          await pause(10);
          told.push(late.aborted, late.reason.name, AbortSignal.abort().reason.name);
          try { late.throwIfAborted(); } catch (error) { told.push(error === late.reason); }
          return told;
        }
    """
    )
    with make_plugin(source) as plugin:
        told = ["why", "abort", False, True, "TimeoutError", "AbortError", True]
        assert plugin.call("f", returns=list) == told
