"""Plugin sets, and plugins over tables."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import assert_type

import anyio

import plugwasm
import plugwasm.aio
from plugwasm import FromEnvironment, MapBatches, PluginRef, PluginSet
from plugwasm.plugin_set import Changes, Description, Result


@dataclass
class User:
    name: str


def a_set_is_asked(compiled: plugwasm.CompiledPlugin) -> None:
    with PluginSet.from_directory(
        Path("plugins"), limits=plugwasm.Limits(timeout=1), functions=[]
    ) as plugins:
        assert_type(plugins, PluginSet)
        assert_type(plugins.hooks, dict[str, tuple[str, ...]])
        assert_type(plugins.first("find", "Ada", returns=User), User | None)
        assert_type(
            plugins.first("find", "Ada", returns=list[User], host_context=1), list[User] | None
        )
        assert_type(plugins.first("find", stop_on_error=True), bytes | None)
        assert_type(plugins.chain("translate", "text", returns=str), str)
        assert_type(plugins.chain("translate", "text"), bytes | str)
        assert_type(plugins.call("one", "f", "text", parse=len), int)
        assert_type(plugins.call("one", "f", "text"), bytes)
        assert_type(plugins.all("find", returns=User | None), list[Result[User | None]])
        for name, output, error in plugins.all("find", "Ada", returns=User):
            assert_type(name, str)
            assert_type(error, Exception | None)
            assert_type(output, User | None)
        assert_type(plugins.all("find", parse=len)[0].get(), int)
        assert_type(plugins.all("find")[0].ok, bool)
        assert_type(plugins.reload(), Changes)
        assert_type(plugins.describe()[0], Description)
        plugins.configure("one", {"key": None})
    PluginSet(
        {"one": compiled, "two": "plugin.wasm"}, hooks=["find"], config={"one": {"key": "value"}}
    )
    PluginSet(["plugin.wasm"], isolated=True)
    PluginSet(["plugin.wasm"], isolated=plugwasm.ProcessLimits(cpu_seconds=1))


async def a_set_is_asked_by_a_task(limiter: anyio.CapacityLimiter) -> None:
    async with PluginSet(["plugin.wasm"]) as plugins:
        assert_type(plugins, PluginSet)
        assert_type(
            await plugins.first_async("find", "Ada", returns=User, limiter=limiter), User | None
        )
        assert_type(await plugins.all_async("find", returns=list[int]), list[Result[list[int]]])
        assert_type(await plugins.chain_async("translate", b"text"), bytes)
        assert_type(await plugins.call_async("one", "f", parse=len), int)
        assert_type(await plugwasm.aio.run(plugins.reload), Changes)


def a_ref_travels() -> None:
    ref = PluginRef(
        "plugin.wasm",
        config={"vowels": "aeiou", "token": FromEnvironment("TOKEN")},
        functions=["package.module:name"],
    )
    assert_type(ref.compiled(), plugwasm.CompiledPlugin)
    with ref.plugin() as plugin:
        assert_type(plugin, plugwasm.Plugin)
    print(pickle.dumps(ref), {ref: "a key"})


def batches_are_mapped(ref: PluginRef, batch: dict[str, list[int]]) -> None:
    count = MapBatches(
        ref,
        "count",
        column=["text", "letters"],
        into="count",
        returns=int,
        on_error="null",
        instance_per="thread",
    )
    assert_type(count(batch), dict[str, list[int]])
    for mapped in count.map_arrow([batch]):
        print(mapped)


def what_is_wrong(ref: PluginRef, plugins: PluginSet) -> None:
    MapBatches("plugin.wasm", "count", column="text")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    MapBatches(ref, "count", column="text", on_error="ignore")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    MapBatches(ref, "count", column="text", instance_per="call")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    PluginRef("plugin.wasm", config={"key": 1})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
    PluginSet(isolated=5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    plugins.first("find", stop_on_error="yes")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    PluginSet(limits=5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    plugins.configure("one", {"key": 1})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
    plugins.enable(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
