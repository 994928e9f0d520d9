"""Run a test in an event loop, under asyncio and under trio."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

both = pytest.mark.parametrize("backend", ["asyncio", "trio"])
"""Under which event loop a test runs."""


def run_in_loop(backend: str, main: Callable[..., Awaitable[Any]], *args: Any) -> Any:
    return anyio.run(main, *args, backend=backend)


async def wait_until(condition: Callable[[], object]) -> None:
    with anyio.fail_after(20):
        while not condition():
            await anyio.sleep(0.005)
