"""Measurements inside this process, where both packages are loaded."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import import_module
from time import perf_counter
from typing import TYPE_CHECKING, Any

from plugwasm import PluginPool

from .measure import OURS, SIDES, Block, Factor, Goal, Row, Sample, check, make_sampler
from .plugins import ENV_LOOPS, env_calls, example

if TYPE_CHECKING:
    from collections.abc import Callable

LOOPS = 1000
THREAD_SECONDS = 0.03
MAPPED = 50
MAPPED_SMALL = 1_000
AWAITED = 50


def bytes_of(count: int) -> bytes:
    """Return `count` bytes of text, with vowels."""
    return (b"Hello, World! " * (count // 14 + 1))[:count]


def blocks(effort: float) -> list[Block]:
    """Return all blocks of this module."""
    sizes = {
        "10 B": 10,
        "1 KB": 1000,
        "10 KB": 10_000,
        "64 KB": 65_536,
        "100 KB": 100_000,
        "1 MB": 1_000_000,
        "10 MB": 10_000_000,
    }
    goals = {"10 B": Goal(8), "1 MB": Goal(1.1)}
    steps = zip(list(sizes)[1:], sizes, strict=False)
    return [
        Block(
            "echo",
            [
                Row(f"echo {name}", partial(_call, "echo", "echo", bytes_of(size)), goals.get(name))
                for name, size in sizes.items()
            ],
            [
                Factor(f"echo grows, {small} → {big}", f"echo {big}", f"echo {small}")
                for big, small in steps
            ],
            budget=9,
        ),
        Block(
            "observed plugins (extism: not observed)",
            [Row("observed: echo 10 B", partial(_call_observed, bytes_of(10)))],
        ),
        Block(
            "count_vowels",
            [
                Row("count_vowels 10 B", partial(_count_vowels, bytes_of(10)), Goal(5)),
                Row("count_vowels 64 KB", partial(_count_vowels, bytes_of(65_536))),
            ],
            [Factor("count_vowels grows, 10 B → 64 KB", "count_vowels 64 KB", "count_vowels 10 B")],
        ),
        Block(
            "config, vars and log",
            [
                *(
                    Row(
                        f"{name}, each in a loop of the guest", partial(_env_calls, name, ENV_LOOPS)
                    )
                    for name in ("config_get", "var_get", "var_set", "log_debug")
                ),
                Row(
                    "four log messages that nobody hears",
                    partial(_env_calls, "log_debug_4", 1),
                    Goal(5),
                ),
            ],
            budget=5,
        ),
        Block(
            "host functions, typed str → str",
            [
                Row("host function 10 B", partial(_greet, 10, 1), Goal(8)),
                Row("host function 100 KB", partial(_greet, 100_000, 1)),
                Row("host function 10 B, each in a loop of the guest", partial(_greet, 10, LOOPS)),
            ],
            [
                Factor(
                    "host function grows, 10 B → 100 KB",
                    "host function 100 KB",
                    "host function 10 B",
                )
            ],
            budget=5,
        ),
        Block(
            "isolation: a fresh instance for each call",
            [
                Row("fresh instance + call + close", partial(_fresh, "echo", False), Goal(3)),
                Row(
                    "fresh instance + call + close, WASI",
                    partial(_fresh, "bench_wasi", True),
                    Goal(3),
                ),
            ],
            budget=5,
        ),
        Block(
            "isolation in a process of its own (extism: in this one)",
            [
                *(
                    Row(f"isolated: echo {name}", partial(_isolated_echo, sizes[name]))
                    for name in ("10 B", "64 KB", "1 MB")
                ),
                Row("isolated: host function 10 B", _isolated_greet),
                Row("isolated: worker started + call + close", _isolated_start),
            ],
            budget=5,
        ),
        Block(
            "threads, a plugin each, 64 KB echo",
            [
                Row("a call, 1 thread", partial(_threads, 1)),
                Row("a call, 2 threads (wall time by calls)", partial(_threads, 2)),
            ],
            [
                Factor(
                    "throughput of 2 threads by 1",
                    "a call, 1 thread",
                    "a call, 2 threads (wall time by calls)",
                    Goal(1.7),
                )
            ],
            budget=8,
        ),
        Block(
            "pools (extism: one plugin; a thread pool with a plugin for each thread)",
            [
                Row("plugin: echo 10 B", partial(_pool_call, False)),
                Row("pool: echo 10 B", partial(_pool_call, True)),
                *(
                    Row(
                        f"map: echo 10 B, {workers}",
                        partial(_map, "echo", 10, MAPPED_SMALL, number),
                    )
                    for number, workers in ((1, "1 worker"), (2, "2 workers (wall time by calls)"))
                ),
                *(
                    Row(
                        f"map: count_vowels 256 KB, {workers}",
                        partial(_map, "count_vowels", 262_144, MAPPED, number),
                    )
                    for number, workers in ((1, "1 worker"), (2, "2 workers (wall time by calls)"))
                ),
            ],
            [
                Factor("a pool's call by a plugin's", "pool: echo 10 B", "plugin: echo 10 B"),
                Factor(
                    "throughput of 2 workers by 1, count_vowels",
                    "map: count_vowels 256 KB, 1 worker",
                    "map: count_vowels 256 KB, 2 workers (wall time by calls)",
                    Goal(1.7),
                ),
            ],
            budget=8,
        ),
        Block(
            "event loops, asyncio (extism: asyncio.to_thread)",
            [Row("call_async: echo 10 B", _call_async)],
        ),
        Block(
            "alloc + length in the guest",
            [
                Row(f"{rounds:,} rounds", partial(_allocations, rounds))
                for rounds in (16_000, 32_000)
            ],
            [Factor("rounds × 2 take", "32,000 rounds", "16,000 rounds", Goal(2.3, at_most=True))],
            budget=10,
            least=1 if effort < 1 else 5,
        ),
    ]


def _sdk(side: str) -> Any:
    return import_module(SIDES[side])


def _call(name: str, function: str, data: bytes, side: str) -> Sample:
    plugin = _sdk(side).Plugin(example(name), functions=[])
    return make_sampler(partial(plugin.call, function, data), data)


def _call_observed(data: bytes, side: str) -> Sample:
    options = {"observe": True} if side == OURS else {}
    plugin = _sdk(side).Plugin(example("echo"), functions=[], **options)
    return make_sampler(partial(plugin.call, "echo", data), data)


def _count_vowels(data: bytes, side: str) -> Sample:
    plugin = _sdk(side).Plugin(example("count_vowels"), functions=[])
    count = sum(data.count(vowel) for vowel in b"aeiouAEIOU")
    return make_sampler(
        partial(plugin.call, "count_vowels", data),
        lambda output: json.loads(output)["count"] == count,
    )


def _env_calls(name: str, parts: int, side: str) -> Sample:
    wasm = [{"data": base64.b64encode(env_calls()).decode()}]
    manifest = {"wasm": wasm, "config": {"greeting": "hello"}}
    plugin = _sdk(side).Plugin(manifest, functions=[])
    return make_sampler(partial(plugin.call, name, b""), b"", parts=parts)


def _host_functions(side: str) -> list[Any]:
    sdk = _sdk(side)

    def greet(name: str) -> str:
        return f"Hello, {name}!"

    def add(a: int, b: int) -> int:
        return a + b

    def scale(x: float) -> float:
        return x * 2.5

    return [sdk.host_fn()(function) for function in (greet, add, scale)]


def _greet(size: int, loops: int, side: str) -> Sample:
    plugin = _sdk(side).Plugin(
        example("host_functions"), config={"times": str(loops)}, functions=_host_functions(side)
    )
    name = bytes_of(size)
    return make_sampler(
        partial(plugin.call, "greet" if loops == 1 else "repeat_greet", name),
        b"Hello, " + name + b"!",
        parts=loops,
    )


def _fresh(name: str, wasi: bool, side: str) -> Sample:
    sdk = _sdk(side)
    compiled = sdk.CompiledPlugin(example(name), wasi, [])
    data = bytes_of(10)

    def run() -> Any:
        with sdk.Plugin(compiled) as plugin:
            return plugin.call("echo", data)

    return make_sampler(run, data)


def _isolated(side: str) -> Any:
    return import_module("plugwasm").IsolatedPlugin if side == OURS else _sdk(side).Plugin


def _isolated_echo(size: int, side: str) -> Sample:
    plugin, data = _isolated(side)(example("echo"), functions=[]), bytes_of(size)
    return make_sampler(partial(plugin.call, "echo", data), data)


def _isolated_greet(side: str) -> Sample:
    plugin = _isolated(side)(example("host_functions"), functions=_host_functions(side))
    return make_sampler(
        partial(plugin.call, "greet", bytes_of(10)), b"Hello, " + bytes_of(10) + b"!"
    )


def _isolated_start(side: str) -> Sample:
    make, data = _isolated(side), bytes_of(10)

    def run() -> Any:
        with make(example("echo"), functions=[]) as plugin:
            return plugin.call("echo", data)

    return make_sampler(run, data)


def _allocations(rounds: int, side: str) -> Sample:
    plugin = _sdk(side).Plugin(example("echo"), functions=[])
    check(plugin.call("alloc_length", b"10"), b"160")
    return make_sampler(
        partial(plugin.call, "alloc_length", str(rounds)), str(rounds * 16).encode()
    )


def _threads(threads: int, side: str) -> Sample:
    sdk = _sdk(side)
    data = bytes_of(65_536)
    calls = [
        partial(plugin.call, "echo", data)
        for plugin in (sdk.Plugin(example("echo"), functions=[]) for _ in range(threads))
    ]
    for call in calls:
        check(call(), data)
    count = max(2, int(THREAD_SECONDS / make_sampler(calls[0], data)()))

    def work(call: Callable[[], Any], ready: threading.Barrier, times: list[float]) -> None:
        ready.wait()
        times.append(perf_counter())
        for _ in range(count):
            call()
        times.append(perf_counter())

    def sample() -> float:
        ready, times = threading.Barrier(threads), list[float]()
        workers = [threading.Thread(target=work, args=(call, ready, times)) for call in calls]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return (max(times) - min(times)) / (count * threads)

    return sample


def _pool_call(pooled: bool, side: str) -> Sample:
    data = bytes_of(10)
    if pooled and side == OURS:
        return make_sampler(
            partial(PluginPool(example("echo"), functions=[], size=2).call, "echo", data), data
        )
    return _call("echo", "echo", data, side)


def _map(plugin: str, size: int, count: int, workers: int, side: str) -> Sample:
    sdk = _sdk(side)
    compiled = sdk.CompiledPlugin(example(plugin), False, [])
    inputs = [bytes_of(size)] * count
    vowels = sum(inputs[0].count(vowel) for vowel in b"aeiouAEIOU")
    if side == OURS:
        spread = partial(PluginPool(compiled, size=workers).map, plugin)
    else:
        own = threading.local()

        def begin() -> None:
            own.plugin = sdk.Plugin(compiled)

        threads = ThreadPoolExecutor(workers, initializer=begin)
        spread = partial(threads.map, lambda data: own.plugin.call(plugin, data))

    def run() -> list[bytes]:
        return list(spread(inputs))

    def is_right(outputs: list[bytes]) -> bool:
        if plugin == "echo":
            return outputs == inputs
        return len(outputs) == count and all(
            json.loads(output)["count"] == vowels for output in outputs
        )

    return make_sampler(run, is_right, parts=count)


def _call_async(side: str) -> Sample:
    plugin, data = _sdk(side).Plugin(example("echo"), functions=[]), bytes_of(10)
    runner = asyncio.Runner()

    async def calls() -> bytes:
        for _ in range(AWAITED):
            output: bytes = await (
                plugin.call_async("echo", data)
                if side == OURS
                else asyncio.to_thread(plugin.call, "echo", data)
            )
        return output

    return make_sampler(lambda: runner.run(calls()), data, parts=AWAITED)
