"""A pool of plugins, and one export over many inputs on all cores: `python examples/pools.py`."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import plugwasm

HERE = Path(__file__).resolve().parent


def main() -> None:
    compiled = plugwasm.CompiledPlugin(HERE / "count_vowels.wasm")
    texts = ["one", "two", "three", "four", "five"]

    print("Threads share two plugins; who finds none free waits, for two seconds at most.")
    with plugwasm.PluginPool(compiled, size=2, wait=2.0) as pool, ThreadPoolExecutor(4) as threads:
        counts = threads.map(
            lambda text: json.loads(pool.call("count_vowels", text))["count"], texts
        )
        print(f"  {dict(zip(texts, counts, strict=True))}")
        print(f"  at most two were made: {pool.stats.made <= 2}")

    print("\nA fresh instance for each call: the total never adds up.")
    with plugwasm.PluginPool(compiled, size=2, fresh=True) as pool:
        print(f"  {[json.loads(pool.call('count_vowels', text))['total'] for text in texts]}")

    print("\nThe same export over many inputs, in order, on all cores, with progress.")
    with plugwasm.PluginPool(compiled) as pool:
        outputs = pool.map("count_vowels", texts * 20, parse=json.loads, on_progress=show)
        print(f"  {sum(output['count'] for output in outputs)} vowels in all")

    print("\nErrors in their places, instead of an end.")
    with plugwasm.PluginPool(HERE / "host_functions.wasm", functions=[greet, add, scale]) as pool:
        for output in pool.map("sum", ["1 2", "three four", "5 6"], return_exceptions=True):
            print(f"  {output.message if isinstance(output, plugwasm.GuestError) else int(output)}")


def show(done: int, total: int | None) -> None:
    if done % 50 == 0:
        print(f"  {done} of {total}")


@plugwasm.host_fn()
def greet(who: str) -> str:
    return f"Hello, {who}"


@plugwasm.host_fn()
def add(a: int, b: int) -> int:
    return a + b


@plugwasm.host_fn()
def scale(x: float) -> float:
    return x * 2.5


if __name__ == "__main__":
    main()
