"""The plugins of an application: a directory of them, called by hook, changed while it runs."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from functools import partial
from pathlib import Path

import plugwasm
import plugwasm.aio
from plugwasm.plugin_set import PluginSet, Result

HERE = Path(__file__).resolve().parent

ABOUT = """
[plugin]
title = "Vowels of {language}"
version = "1.0"
description = "Counts the vowels of a text."

[plugin.settings.vowels]
description = "Which letters are vowels"
default = "{vowels}"
"""


def install(directory: Path, language: str, vowels: str) -> None:
    """Install a plugin: a directory with its metadata and its module."""
    folder = directory / language.lower()
    folder.mkdir()
    (folder / "plugin.toml").write_text(ABOUT.format(language=language, vowels=vowels))
    shutil.copy(HERE / "count_vowels.wasm", folder / "plugin.wasm")


def show(plugins: PluginSet) -> None:
    """Print a settings page."""
    for plugin in plugins.describe():
        state = "on" if plugin.loaded else f"off: {plugin.error}" if plugin.error else "off"
        print(
            f"  {plugin.title} {plugin.version} "
            f"serves {', '.join(plugin.hooks) or 'nothing'} ({state})"
        )


async def ask_apart(directory: Path, limits: plugwasm.Limits) -> list[Result[str]]:
    """Call the plugins in processes of their own.

    Loading takes time, so `aio.run` does it in a thread.
    """
    load = partial(PluginSet.from_directory, directory, limits=limits, functions=[], isolated=True)
    async with await plugwasm.aio.run(load) as plugins, asyncio.timeout(10):
        return await plugins.all_async("count_vowels", "Say why", parse=bytes.decode)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        install(directory, "English", "aeiouAEIOU")
        install(directory, "French", "aeiouyAEIOUY")
        (directory / "broken.wasm").write_bytes(b"not a plugin")

        limits = plugwasm.Limits(timeout=1, memory_bytes=16 * 2**20)
        with PluginSet.from_directory(directory, limits=limits, functions=[]) as plugins:
            print("What was found:")
            show(plugins)

            print("\nEach plugin is asked:")
            for plugin, output, error in plugins.all("count_vowels", "Say why", parse=bytes.decode):
                print(f"  {plugin}: {error or output}")

            print("\nThe first answer:")
            answer = plugins.first("count_vowels", "Hello", returns=dict)
            print(f"  {answer['count'] if answer else 'no'} vowels")

            print("\nThe user turns one off, sets the letters of the other, and installs a third:")
            plugins.disable("english")
            plugins.configure("french", {"vowels": "aeiouyàâéèêëîïôùû"})
            install(directory, "Latin", "aeiouAEIOU")
            print(f"  {plugins.reload().added} came")
            show(plugins)

        print("\nThe same in an event loop, each plugin in a process of its own:")
        for plugin, output, error in asyncio.run(ask_apart(directory, limits)):
            print(f"  {plugin}: {error or output}")


if __name__ == "__main__":
    main()
