"""Run each hammer for a short while; `PLUGWASM_HAMMER_SECONDS=300 pytest tests/hammer` for a
long one."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

HAMMERS = Path(__file__).with_name("hammers.py")
SECONDS = float(os.environ.get("PLUGWASM_HAMMER_SECONDS", "1"))


@pytest.mark.timeout(SECONDS + 200)
@pytest.mark.parametrize(
    "name",
    [
        "calls",
        "turns",
        "pool",
        "compiling",
        "forks",
        "signals",
        "collector",
        "handlers",
        "shutdown",
    ],
)
def test_hammered_plugins_leave_nothing(name: str) -> None:
    """After any concurrent operations, every outcome is explained and nothing is left."""
    seed = random.SystemRandom().randrange(10**6)
    print(f"to do the same again, as far as threads allow: python {HAMMERS} {name} {seed}")
    environment = os.environ | {"PLUGWASM_HAMMER_SECONDS": str(SECONDS)}
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-W",
            "ignore:This process:DeprecationWarning",
            str(HAMMERS),
            name,
            str(seed),
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment,
        timeout=SECONDS + 180,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    report = json.loads(done.stdout)
    assert (report["hammer"], report["seed"]) == (name, seed)
    assert sum(report["done"].values()) >= 3
