"""A process that measures itself, for one side. Prints numbers as JSON.

    child.py MODULE TASK [ARGUMENT…]

instances FILE MARK…          what the n-th live instance of `echo` takes
plugins FILE MARK…            the same of different plugins, of one instance each
threads FILE FUNCTION SIZE THREADS SECONDS
                              calls a second of threads with a plugin each
pool FILE FUNCTION SIZE PLUGINS CALLERS SECONDS
                              calls a second of threads that share a pool
stages FILE FUNCTION INPUT WASI HOW ANOTHER
                              seconds of each stage of a load, in a process that has run the plugin
                              ANOTHER. HOW is "loaded" if it has loaded this one before as well.

`START` is a program by itself.
"""

from __future__ import annotations

import sys
import threading
from itertools import pairwise
from time import perf_counter
from typing import Any

DATA = b"0123456789"
START = """
import sys
from time import perf_counter
stamps = [perf_counter()]
from {module} import Plugin
stamps.append(perf_counter())
with open(sys.argv[1], "rb") as file:
    plugin = Plugin(file.read())
stamps.append(perf_counter())
output = plugin.call("echo", b"0123456789")
stamps.append(perf_counter())
print(*stamps, flush=True)
"""
"""Prints when it began, had imported, had loaded and had called. The clock is the system's."""


def main(module: str, task: str, file: str, *arguments: str) -> object:
    sdk: Any = __import__(module, fromlist=["Plugin"])
    sdk.Plugin, sdk.CompiledPlugin  # noqa: B018 (a package may import what is behind them now)
    with open(file, "rb") as source:
        wasm = source.read()
    if task in ("instances", "plugins"):
        return growth(sdk, wasm, [int(mark) for mark in arguments], task == "plugins")
    if task == "threads":
        function, size, threads, seconds = arguments
        plugins = [sdk.Plugin(wasm, functions=[]) for _ in range(int(threads))]
        return rate([plugin.call for plugin in plugins], function, int(size), float(seconds))
    if task == "pool":
        function, size, count, callers, seconds = arguments
        pool = sdk.PluginPool(wasm, functions=[], size=int(count))
        return rate([pool.call] * int(callers), function, int(size), float(seconds))
    function, text, wasi, how, another = arguments
    with open(another, "rb") as source:
        sdk.Plugin(source.read(), functions=[]).call("echo", DATA)
    return stages(sdk, wasm, function, text.encode(), wasi == "wasi", how == "loaded")


def growth(sdk: Any, wasm: bytes, marks: list[int], different: bool) -> list[dict[str, float]]:
    """Make live instances up to each mark.

    Returns for each mark the seconds of making and calling one, the median of those since half of
    the mark; the seconds of a further call, of all in turns; and the memory of one in bytes. It
    ends before a mark for which the system has no memory or no mappings.
    """
    import gc
    from statistics import median

    compiled = None if different else sdk.CompiledPlugin(wasm, False, [])

    def make(number: int) -> Any:
        if different:
            return sdk.Plugin(variant(wasm, number), functions=[])
        return sdk.Plugin(compiled)

    live = [make(0)]
    live[0].call("echo", DATA)
    gc.collect()
    gc.disable()
    before = resident()
    found, times = list[dict[str, float]](), list[float]()
    for mark in marks:
        for number in range(len(times), mark):
            start = perf_counter()
            try:
                plugin = make(number + 1)
                plugin.call("echo", DATA)
            except Exception as error:
                print(f"{sdk.__name__}: number {number + 1:,}: {error}", file=sys.stderr)
                return found
            times.append(perf_counter() - start)
            live.append(plugin)
        gc.collect()
        grown = resident() - before
        rounds = max(1, 2000 // mark)
        start = perf_counter()
        for _ in range(rounds):
            for plugin in live[1:]:
                plugin.call("echo", DATA)
        taken = perf_counter() - start
        found.append(
            {
                "start": median(times[mark // 2 :]),
                "call": taken / rounds / mark,
                "bytes": grown / mark,
            }
        )
    return found


def variant(wasm: bytes, number: int) -> bytes:
    content = b"\x07variant" + number.to_bytes(8, "little")
    return wasm + bytes([0, len(content)]) + content


def resident() -> int:
    import os

    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def rate(calls: list[Any], function: str, size: int, seconds: float) -> float:
    """Return how many calls a second several threads make together."""
    data = (b"Hello, World! " * (size // 14 + 1))[:size]
    for call in calls:
        assert call(function, data)
    counts, ends = [0] * len(calls), [0.0] * len(calls)
    ready = threading.Barrier(len(calls) + 1)
    begin = 0.0

    def work(number: int, call: Any) -> None:
        ready.wait()
        count, end = 0, perf_counter() + seconds
        while True:
            call(function, data)
            count += 1
            now = perf_counter()
            if now > end:
                break
        counts[number], ends[number] = count, now

    threads = [threading.Thread(target=work, args=pair) for pair in enumerate(calls)]
    for thread in threads:
        thread.start()
    ready.wait()
    begin = perf_counter()
    for thread in threads:
        thread.join()
    return sum(counts) / (max(ends) - begin)


def stages(
    sdk: Any, wasm: bytes, function: str, data: bytes, wasi: bool, again: bool
) -> list[float]:
    """Return the seconds of compiling or loading it, of an instance with its first call, and of a
    second call."""
    before = sdk.CompiledPlugin(wasm, wasi, []) if again else None
    stamps = [perf_counter()]
    compiled = sdk.CompiledPlugin(wasm, wasi, [])
    stamps.append(perf_counter())
    plugin = sdk.Plugin(compiled)
    plugin.call(function, data)
    stamps.append(perf_counter())
    plugin.call(function, data)
    stamps.append(perf_counter())
    del before
    return [end - start for start, end in pairwise(stamps)]


if __name__ == "__main__":
    import json

    print(json.dumps(main(*sys.argv[1:])))
