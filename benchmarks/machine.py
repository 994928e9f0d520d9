"""The machine that figures were measured on."""

from __future__ import annotations

import os
import platform
import sys
from contextlib import suppress
from datetime import UTC, datetime


def describe_machine() -> dict[str, str]:
    """Return what a reader needs to place the figures: processor, system, Python, day."""
    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    return {
        "processor": _processor(),
        "processors": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": f"{platform.python_implementation()} {platform.python_version()}"
        + ("" if gil else ", without a GIL"),
        "day": datetime.now(UTC).date().isoformat(),
    }


def _processor() -> str:
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return " ".join(value.split())
    return platform.machine()
