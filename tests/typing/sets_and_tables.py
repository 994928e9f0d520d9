"""The plugins of an application, and plugins over tables."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_type

import plugwasm
from plugwasm import FromEnvironment, MapBatches, PluginRef, PluginSet
from plugwasm.plugin_set import Changes, Description, Result


@dataclass
class User:
    name: str


def a_set_is_asked(compiled: plugwasm.CompiledPlugin) -> None:
    with PluginSet.from_directory(Path("plugins"), limits=plugwasm.Limits(timeout=1), functions=[]) as plugins:
        assert_type(plugins, PluginSet)
        assert_type(plugins.hooks, dict[str, tuple[str, ...]])
        user: User | None = plugins.first("find", "Ada", returns=User)
        text: str = plugins.chain("translate", "text", returns=str)
        size: int = plugins.call("one", "f", "text", parse=len)
        print(user, text, size)
        for name, output, error in plugins.all("find", "Ada", returns=User):
            assert_type(name, str)
            assert_type(error, Exception | None)
            print(output)
        assert_type(plugins.all("find")[0].ok, bool)
        assert_type(plugins.reload(), Changes)
        assert_type(plugins.describe()[0], Description)
        plugins.configure("one", {"key": None})
    PluginSet({"one": compiled, "two": "plugin.wasm"}, hooks=["find"], config={"one": {"key": "value"}})
    assert_type(Result("one").get(), Any)


def a_ref_travels() -> None:
    ref = PluginRef("plugin.wasm", config={"vowels": "aeiou", "token": FromEnvironment("TOKEN")}, functions=["package.module:name"])
    assert_type(ref.compiled(), plugwasm.CompiledPlugin)
    with ref.plugin() as plugin:
        assert_type(plugin, plugwasm.Plugin)
    print(pickle.dumps(ref), {ref: "a key"})


def batches_are_mapped(ref: PluginRef, batch: dict[str, list[int]]) -> None:
    count = MapBatches(ref, "count", column=["text", "letters"], into="count", returns=int, on_error="null", instance_per="thread")
    assert_type(count(batch), dict[str, list[int]])
    for mapped in count.map_arrow([batch]):
        print(mapped)


def what_is_wrong(ref: PluginRef, plugins: PluginSet) -> None:
    MapBatches("plugin.wasm", "count", column="text")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    MapBatches(ref, "count", column="text", on_error="ignore")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    MapBatches(ref, "count", column="text", instance_per="call")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    PluginRef("plugin.wasm", config={"key": 1})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
    PluginSet(limits=5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    plugins.configure("one", {"key": 1})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
    plugins.enable(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
