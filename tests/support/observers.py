"""An observer that keeps every event, and plugins to observe."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import plugwasm
from plugwasm import (
    Function,
    Plugin,
)
from plugwasm.observing import Call, HostCall, Observer
from tests.support.guests import LOOP, export, guest

USER = '(import "extism:host/user" "f" (func $f {}))'
PLAIN = USER.format("")
ECHO = guest(export("echo", "(call $echo)"))
SECONDS = ("seconds", "start_seconds", "guest_seconds", "host_seconds")


class CollectingObserver(Observer):
    """An observer that keeps every call, host call and event."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.host_calls: list[HostCall] = []
        self.events: list[str] = []
        self.errors: list[BaseException | None] = []

    @contextmanager
    def on_call(self, call: Call) -> Iterator[None]:
        self.events.append(f"> {call.function}")
        error: BaseException | None = None
        try:
            yield
        except BaseException as raised:
            error = raised
            raise
        finally:
            self.calls.append(call)
            self.events.append(f"< {call.function}")
            self.errors.append(error)
            del error

    @contextmanager
    def on_host_call(self, call: HostCall) -> Iterator[None]:
        self.events.append(f"  > {call.name}")
        try:
            yield
        finally:
            self.host_calls.append(call)
            self.events.append(f"  < {call.name}")

    def host_call_lines(self) -> list[str]:
        return [str(call) for call in self.host_calls]


def make_calling_plugin(f: Any, type: str = "", code: str = "(call $f)", **options: Any) -> Plugin:
    """Make a plugin whose export `run` calls the host function `f`."""
    function = f if isinstance(f, Function) else plugwasm.host_fn(name="f")(f)
    source = guest(
        export("run", code) + export("echo", "(call $echo)") + export("spin", LOOP),
        USER.format(type),
    )
    return Plugin(source, functions=[function], **options)


def do_nothing() -> None:
    pass


def times_add_up(call: Call) -> bool:
    assert all(getattr(call, name) >= 0 for name in SECONDS)
    return call.seconds >= call.start_seconds + call.guest_seconds + call.host_seconds - 1e-9


def raiser(error: BaseException) -> Any:
    def f() -> None:
        raise error

    return f


@dataclass
class Point:
    x: int
    y: int


def fail() -> None:
    raise RuntimeError("of the observer")
