"""Plugins in event loops."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, assert_type

import anyio

import plugwasm
import plugwasm.aio
from plugwasm import codecs


@dataclass
class User:
    name: str


async def plugins_are_made_in_threads() -> None:
    compiled = await plugwasm.aio.compile("plugin.wasm", functions=[])
    assert_type(compiled, plugwasm.CompiledPlugin)
    async with await plugwasm.aio.load(compiled, limiter=anyio.CapacityLimiter(1)) as plugin:
        assert_type(plugin, plugwasm.Plugin)
    assert_type(
        await plugwasm.aio.run(lambda: plugwasm.IsolatedPlugin("plugin.wasm")),
        plugwasm.IsolatedPlugin,
    )
    assert_type(plugwasm.aio.default_limiter(), anyio.CapacityLimiter)


async def awaited_calls_have_the_types_of_calls(
    plugin: plugwasm.Plugin, limiter: anyio.CapacityLimiter
) -> None:
    assert_type(await plugin.call_async("f"), bytes)
    assert_type(await plugin.call_async("f", "text", limiter=limiter), bytes)
    assert_type(await plugin.call_async("f", returns=str), str)
    assert_type(await plugin.call_async("f", returns=User, codec=codecs.MSGPACK), User)
    assert_type(await plugin.call_async("f", returns=list[User]), list[User])
    assert_type(await plugin.call_async("f", returns=User | None), User | None)
    assert_type(await plugin.call_async("f", parse=int), int)
    assert_type(await plugin.call_async("f", parse=json.loads), Any)
    assert_type(await plugin.call_async("f", parse=None), memoryview)


async def pools_give_plugins_and_outputs(pool: plugwasm.PluginPool) -> None:
    async with pool, pool.plugin() as plugin:
        assert_type(plugin, plugwasm.Plugin)
    assert_type(await pool.call_async("f", "text", wait=1.5), bytes)
    assert_type(await pool.call_async("f", "text", returns=list[User]), list[User])
    assert_type(await pool.call_async("f", "text", returns=User | None, wait=None), User | None)
    assert_type(await pool.call_async("f", "text", parse=int), int)
    async with pool.map_async("f", ["one", "two"], workers=2, returns=User) as outputs:
        users = [output async for output in outputs]
        assert_type(users, list[User])
    print(users)


async def what_is_wrong(plugin: plugwasm.Plugin, pool: plugwasm.PluginPool) -> None:
    output: bytes = plugin.call_async("f")  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    print(output)
    user: User = await plugin.call_async("f")  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    print(user)
    await pool.call_async(1)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    await pool.call_async("f", parse=None)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    await plugwasm.aio.run(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
