"""Plugins in an event loop: `python examples/async_calls.py`, or `… trio`. Needs
plugwasm[async]."""

from __future__ import annotations

import sys
from pathlib import Path

import anyio

import plugwasm
import plugwasm.aio

HERE = Path(__file__).resolve().parent


@plugwasm.host_fn()
async def greet(who: str) -> str:
    await anyio.sleep(0.01)  # e.g. a query of the application's database
    return f"Hello, {who}"


@plugwasm.host_fn()
def add(a: int, b: int) -> int:
    return a + b


@plugwasm.host_fn()
def scale(x: float) -> float:
    return x * 2.5


async def main() -> None:
    print(
        "A plugin is loaded in a thread, and its `async def` host function runs here while the "
        "guest waits."
    )
    compiled = await plugwasm.aio.compile(
        HERE / "host_functions.wasm", functions=[greet, add, scale]
    )
    async with await plugwasm.aio.load(compiled) as plugin:
        print(f"  {(await plugin.call_async('greet', 'Ada')).decode()}")

    print("\nA timeout cancels the guest, and the plugin is ready for the next call.")
    async with await plugwasm.aio.load(HERE / "echo.wasm") as plugin:
        with anyio.move_on_after(0.2) as scope:
            await plugin.call_async("spin")
        print(
            f"  cancelled: {scope.cancelled_caught}; "
            f"echo -> {(await plugin.call_async('echo', 'still here')).decode()}"
        )

    print("\nA pool serves many tasks.")
    async with await plugwasm.aio.pool(compiled, size=2) as pool:
        async with anyio.create_task_group() as group:
            for who in ("Bob", "Cleo", "Dan"):
                group.start_soon(say, pool, who)
        async with pool.map_async("sum", (f"{n} {n}" for n in range(5))) as outputs:
            print("  doubled:", *[int(output) async for output in outputs])


async def say(pool: plugwasm.PluginPool, who: str) -> None:
    print(f"  {(await pool.call_async('greet', who)).decode()}")


if __name__ == "__main__":
    anyio.run(main, backend=sys.argv[1] if sys.argv[1:] else "asyncio")
