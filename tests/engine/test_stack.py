"""How much native stack a thread has left, and what asks for it while it is being measured."""

from __future__ import annotations

import threading

import pytest

from plugwasm import Plugin, StackError
from plugwasm._engine import stack
from tests.support.command_line import ECHO


@pytest.mark.parametrize("found", [True, False], ids=["found", "unknown"])
def test_call_while_thread_is_measured(monkeypatch: pytest.MonkeyPatch, found: bool) -> None:
    """A finalizer may call a plugin while its thread's first call measures the stack.

    The garbage collector may run in any allocation, also in those of the measurement.
    """
    outer, inner = Plugin(ECHO), Plugin(ECHO)
    outer.call("echo", b"this thread is measured")
    find_bounds = stack._find_bounds
    outputs: list[bytes] = []
    started: list[bool] = []

    def find_bounds_with_finalizer() -> tuple[int, int]:
        if not started:
            started.append(True)
            if not found:  # for the finalizer's call: it is refused, and no state is left behind
                with monkeypatch.context() as patch:
                    patch.setattr(stack, "_find_bounds", lambda: (0, 0))
                    with pytest.raises(StackError):
                        inner.call("echo", b"")
            outputs.append(inner.call("echo", b"finalizer"))
        return find_bounds()

    def call() -> None:
        outputs.append(outer.call("echo", b"caller"))
        outputs.append(inner.call("echo", b"again"))

    monkeypatch.setattr(stack, "_find_bounds", find_bounds_with_finalizer)
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert outputs == [b"finalizer", b"caller", b"again"]
