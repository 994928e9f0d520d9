"""Errors, settings, and the other parts of the API that an application uses."""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_type

import plugwasm
from plugwasm.testing import Harness


def errors_carry_what_happened(plugin: plugwasm.Plugin) -> None:
    try:
        plugin.call("f")
    except plugwasm.GuestError as error:
        assert_type(error.guest_message, str | None)
        assert_type(error.code, int | None)
    except plugwasm.OutputError as error:
        assert_type(error.path, str)
        assert_type(error.output, bytes)
    except plugwasm.TrapError as error:
        assert_type(error.trap, str)
        assert_type(error.backtrace, tuple[str, ...])
    except plugwasm.RowError as error:
        assert_type(error.row, int)
    except (plugwasm.TimeoutError, plugwasm.CancelledError) as error:
        assert_type(error, plugwasm.TimeoutError | plugwasm.CancelledError)
    except plugwasm.Error as error:
        assert_type(
            (error.message, error.plugin, error.function), tuple[str, str | None, str | None]
        )


def some_are_builtin_ones_too() -> None:
    times: list[TimeoutError] = [plugwasm.TimeoutError("late"), plugwasm.PoolTimeoutError("busy")]
    values: list[ValueError] = [
        plugwasm.ManifestError("wrong", field="wasm"),
        plugwasm.OptionError("wrong", field="timeout"),
    ]
    memory: MemoryError = plugwasm.OutOfMemoryError("full")
    print(times, values, memory)


class Slow(plugwasm.Clock):
    def sleep(self, seconds: float, wait: Callable[[float], None]) -> None:
        wait(2 * seconds)


def settings() -> None:
    assert_type(plugwasm.Limits().replace(timeout=2), plugwasm.Limits)
    assert_type(plugwasm.Limits().timeout, float | None)
    plugwasm.WasiOptions(clock=Slow(), random=plugwasm.SeededRandom("seed"))
    plugwasm.WasiOptions(random=lambda size: bytes(size))
    plugwasm.Egress(
        allowed_hosts=["api.example.com"],
        added_headers={"https://api.example.com": {"Authorization": "…"}},
    )


def greeting(who: str) -> str:
    return f"Hello, {who}"


def a_harness_makes_plugins() -> None:
    harness = Harness("plugin.wasm", config={"key": "value"})
    harness.host("greet", str, returns=greeting)
    harness.http.get("https://api.example.com/").respond(json={"name": "Ada"})
    with harness.plugin() as plugin, harness.at_most(fuel=1000) as usage:
        assert_type(plugin.call("greet", "Ada", returns=str), str)
    assert_type(usage.fuel, int)


def what_is_wrong() -> None:
    plugwasm.ManifestError("wrong", path="wasm")
    plugwasm.Error("wrong", unknown=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    plugwasm.WasiOptions(clock=1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    plugwasm.Egress(["api.example.com"])  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    assert plugwasm.NoSuchName  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
