"""A process that measures itself, for one side. Prints numbers as JSON.

    child.py MODULE TASK [ARGUMENT…]

import                   seconds to import what runs a plugin
load CALL FIRST FILE…    seconds from each file's bytes to the output of the first call of it, in a
                         process that has loaded and called the echo plugin FIRST
again CALL FIRST FILE…   the same, but the process has loaded that very module before
memory N FILE            bytes of each of N live instances, all called once; they share the
                         compiled code

CALL is a key of CALLS. The memory is that of `echo`.
"""

from __future__ import annotations

import sys
from time import perf_counter

DATA = b"0123456789"
CALLS = {
    "echo": (False, DATA, DATA),
    "reverse": (True, DATA, DATA[::-1]),
    "sort": (True, b'{"b": 1, "a": 2}', b'{"a":2,"b":1}'),
}
"""Of each function: whether its plugin needs WASI, an input and the output for it."""


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
    name, first, *files = arguments
    sdk.Plugin(read(first), functions=[]).call("echo", DATA)
    return [load(sdk, name, read(file), task == "again") for file in files]


def read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def load(sdk: object, name: str, wasm: bytes, again: bool) -> float:
    wasi, data, expected = CALLS[name]
    make = sdk.Plugin  # type: ignore[attr-defined]
    if again:
        before = make(wasm, wasi, functions=[])
        before.call(name, data)
    start = perf_counter()
    plugin = make(wasm, wasi, functions=[])
    output = plugin.call(name, data)
    taken = perf_counter() - start
    assert output == expected, output
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
