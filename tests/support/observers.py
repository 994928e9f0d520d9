"""An observer that writes down all that it is told, and plugins for it."""

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


class Diary(Observer):
    """Keeps all that it is told."""

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

    def shown(self) -> list[str]:
        return [str(call) for call in self.host_calls]


def calls_f(f: Any, type: str = "", code: str = "(call $f)", **options: Any) -> Plugin:
    """A plugin whose export `run` calls a host function."""
    function = f if isinstance(f, Function) else plugwasm.host_fn(name="f")(f)
    source = guest(
        export("run", code) + export("echo", "(call $echo)") + export("spin", LOOP),
        USER.format(type),
    )
    return Plugin(source, functions=[function], **options)


def nothing() -> None:
    pass


def adds_up(call: Call) -> bool:
    assert all(getattr(call, name) >= 0 for name in SECONDS)
    return call.seconds >= call.start_seconds + call.guest_seconds + call.host_seconds - 1e-9


def raising(error: BaseException) -> Any:
    def f() -> None:
        raise error

    return f


@dataclass
class Point:
    x: int
    y: int


def fails() -> None:
    raise RuntimeError("of the observer")
