"""A process that measures itself, for one side. Prints numbers as JSON.

    child.py MODULE TASK [ARGUMENT…]

import          seconds to import what runs a plugin
load FILE…      seconds from each file's bytes to the output of the first call, in a process
                that has loaded another plugin before
again FILE…     the same, but the process has loaded that very module before
memory N FILE   bytes of each of N live instances, all called once; they share the compiled code
"""

from __future__ import annotations

import sys
from time import perf_counter

DATA = b"0123456789"


def main(module: str, task: str, *arguments: str) -> object:
    start = perf_counter()
    sdk = __import__(module, fromlist=["Plugin"])
    # A package may import what is behind its names only now.
    sdk.Plugin, sdk.CompiledPlugin  # noqa: B018
    imported = perf_counter() - start
    if task == "import":
        return imported
    if task == "memory":
        return memory(sdk, int(arguments[0]), read(arguments[1]))
    first, *files = arguments
    sdk.Plugin(read(first), functions=[]).call("echo", DATA)
    return [load(sdk, read(file), task == "again") for file in files]


def read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def load(sdk: object, wasm: bytes, again: bool) -> float:
    if again:
        before = sdk.Plugin(wasm, functions=[])  # type: ignore[attr-defined]
        before.call("echo", DATA)
    start = perf_counter()
    plugin = sdk.Plugin(wasm, functions=[])  # type: ignore[attr-defined]
    output = plugin.call("echo", DATA)
    taken = perf_counter() - start
    assert output == DATA, output
    return taken


def memory(sdk: object, count: int, wasm: bytes) -> float:
    import gc

    compiled = sdk.CompiledPlugin(wasm, False, [])  # type: ignore[attr-defined]

    def make(number: int) -> list[object]:
        plugins = [sdk.Plugin(compiled) for _ in range(number)]  # type: ignore[attr-defined]
        for plugin in plugins:
            assert plugin.call("echo", DATA) == DATA
        return plugins

    first = make(1)
    gc.collect()
    before = resident()
    live = make(count)
    gc.collect()
    grown = resident() - before
    assert len(first) + len(live) == count + 1
    return grown / count


def resident() -> int:
    """Return the resident memory of this process in bytes."""
    import os

    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


if __name__ == "__main__":
    import json

    print(json.dumps(main(*sys.argv[1:])))
