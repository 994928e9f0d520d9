"""Traps do not depend on the process's signal handlers."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.paths import ROOT

PROGRAM = """
import plugwasm
plugin = plugwasm.Plugin('(module (memory (export "memory") 1) (func (export "ok")) (func $deep (export "deep") (call $deep))'
    '(func (export "bounds") (drop (i32.load (i32.const 70000)))) (func (export "divide") (drop (i32.div_u (i32.const 1) (i32.const 0)))))')
plugin.call("ok")
{handler}
import time; time.sleep(0.003)  # what was seen of the handlers is trusted for a millisecond
for name in ("bounds", "divide", "deep"):
    try:
        plugin.call(name)
    except plugwasm.TrapError as error:
        print(error.trap)
"""


@pytest.mark.parametrize(
    "handler",
    [
        "import faulthandler; faulthandler.enable()",
        "import signal; [signal.signal(s, signal.SIG_DFL) for s in (signal.SIGSEGV, signal.SIGILL, signal.SIGFPE, signal.SIGBUS)]",
    ],
    ids=["faulthandler", "default handlers"],
)
def test_trap_after_handlers_were_replaced(handler: str) -> None:
    """A trap is an error also when the signal handlers were replaced after the first call.

    `test_trap_signals` has more ways.
    """
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(handler=handler)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.splitlines() == [
        "out of bounds memory access",
        "integer division by zero",
        "stack overflow",
    ]
