"""Rows that are measured inside this process, with both packages loaded."""

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

from .measure import OURS, PEER, SIDES, Block, Factor, Goal, Row, Sample, check, make_sampler
from .plugins import env_calls, example, quiet_logs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from .built import Real

LOOPS = 1000
THREAD_SECONDS = 0.03
MAPPED = 50
MAPPED_SMALL = 1_000
AWAITED = 50
SIZES = {
    "10 B": 10,
    "1 KB": 1000,
    "10 KB": 10_000,
    "64 KB": 65_536,
    "100 KB": 100_000,
    "1 MB": 1_000_000,
    "10 MB": 10_000_000,
}


def bytes_of(count: int) -> bytes:
    """Return a text of `count` bytes that contains vowels."""
    return (b"Hello, World! " * (count // 14 + 1))[:count]


def blocks(effort: float, real: Sequence[Real]) -> list[Block]:
    """Return the groups of rows that this module measures.

    Args:
        real: The plugins of `built` that this machine can build.
    """
    return [
        *_call_rows(),
        *map(_real_rows, real),
        _host_function_rows(),
        *_instance_rows(),
        *_concurrent_rows(),
        _allocation_rows(effort),
    ]


def _call_rows() -> list[Block]:
    goals = {"10 B": Goal(8), "64 KB": Goal(3), "1 MB": Goal(2.2)}
    steps = zip(list(SIZES)[1:], SIZES, strict=False)
    return [
        Block(
            "echo",
            [
                Row(f"echo {name}", partial(_call, "echo", "echo", bytes_of(size)), goals.get(name))
                for name, size in SIZES.items()
            ],
            [
                Factor(f"echo: time of {big} ÷ time of {small}", f"echo {big}", f"echo {small}")
                for big, small in steps
            ],
            budget=9,
        ),
        Block(
            "plugins with observe=True (extism: nothing observes)",
            [Row("echo 10 B, observe=True", partial(_call_observed, bytes_of(10)))],
        ),
        Block(
            "count_vowels",
            [
                Row("count_vowels 10 B", partial(_count_vowels, bytes_of(10)), Goal(5)),
                Row("count_vowels 64 KB", partial(_count_vowels, bytes_of(65_536)), Goal(1)),
            ],
            [
                Factor(
                    "count_vowels: time of 64 KB ÷ time of 10 B",
                    "count_vowels 64 KB",
                    "count_vowels 10 B",
                )
            ],
        ),
        Block(
            "config, vars and logs, one of 1,000 calls of the guest",
            [
                Row(f"{name}, one of 1,000 in a call", partial(_env_calls, name))
                for name in ("config_get", "var_get", "var_set", "log_debug")
            ],
            budget=5,
        ),
        Block(
            "logs that nobody listens to",
            [Row("four log calls", _quiet_logs, Goal(5))],
        ),
    ]


def _real_rows(plugin: Real) -> Block:
    return Block(
        f"a plugin in {plugin.name}",
        [
            *(
                Row(
                    f"{plugin.name}: {plugin.function} {name}",
                    partial(_call_real, plugin, SIZES[name]),
                    Goal(1),
                )
                for name in ("1 KB", "64 KB")
            ),
            Row(
                f"{plugin.name}: fresh instance + call + close",
                partial(_fresh_real, plugin),
                Goal(2),
            ),
        ],
        budget=6,
    )


def _host_function_rows() -> Block:
    return Block(
        "calls in which the guest calls a typed host function, str → str",
        [
            Row("call with a host function, 10 B", partial(_greet, 10, 1), Goal(8)),
            Row("call with a host function, 100 KB", partial(_greet, 100_000, 1)),
            Row("one of 1,000 host function calls in a call, 10 B", partial(_greet, 10, LOOPS)),
        ],
        [
            Factor(
                "host function: time of 100 KB ÷ time of 10 B",
                "call with a host function, 100 KB",
                "call with a host function, 10 B",
            )
        ],
        budget=5,
    )


def _instance_rows() -> list[Block]:
    return [
        Block(
            "a new instance for each call",
            [
                Row("create an instance, call, close", partial(_fresh, "echo", False), Goal(3)),
                Row(
                    "create an instance, call, close; with WASI",
                    partial(_fresh, "bench_wasi", True),
                    Goal(3),
                ),
            ],
            budget=5,
        ),
        Block(
            "IsolatedPlugin, in a separate process (extism: Plugin, in this process)",
            [
                *(
                    Row(f"IsolatedPlugin: echo {name}", partial(_isolated_echo, SIZES[name]))
                    for name in ("10 B", "64 KB", "1 MB")
                ),
                Row("IsolatedPlugin: call with a host function, 10 B", _isolated_greet),
                Row("IsolatedPlugin: start the worker process, call, close", _isolated_start),
            ],
            budget=5,
        ),
    ]


def _concurrent_rows() -> list[Block]:
    return [
        Block(
            "threads that each call their own plugin, echo 64 KB",
            [
                Row("wall time ÷ calls, 1 thread", partial(_threads, 1)),
                Row("wall time ÷ calls, 2 threads", partial(_threads, 2)),
            ],
            [
                Factor(
                    "calls per second, 2 threads ÷ 1 thread",
                    "wall time ÷ calls, 1 thread",
                    "wall time ÷ calls, 2 threads",
                    Goal(1.7),
                )
            ],
            budget=8,
        ),
        Block(
            "pools (extism: one Plugin; for map, a ThreadPoolExecutor with a Plugin per thread)",
            [
                Row("Plugin.call: echo 10 B", partial(_pool_call, False)),
                Row("PluginPool.call: echo 10 B", partial(_pool_call, True)),
                *(
                    Row(
                        f"map: echo 10 B, wall time ÷ inputs, {workers}",
                        partial(_map, "echo", 10, MAPPED_SMALL, number),
                    )
                    for number, workers in ((1, "1 worker"), (2, "2 workers"))
                ),
                *(
                    Row(
                        f"map: count_vowels 256 KB, wall time ÷ inputs, {workers}",
                        partial(_map, "count_vowels", 262_144, MAPPED, number),
                    )
                    for number, workers in ((1, "1 worker"), (2, "2 workers"))
                ),
            ],
            [
                Factor(
                    "time of PluginPool.call ÷ time of Plugin.call",
                    "PluginPool.call: echo 10 B",
                    "Plugin.call: echo 10 B",
                ),
                Factor(
                    "map: count_vowels, inputs per second, 2 workers ÷ 1 worker",
                    "map: count_vowels 256 KB, wall time ÷ inputs, 1 worker",
                    "map: count_vowels 256 KB, wall time ÷ inputs, 2 workers",
                    Goal(1.7),
                ),
            ],
            budget=8,
        ),
        Block(
            "asyncio (extism: asyncio.to_thread)",
            [Row("await call_async: echo 10 B", _call_async)],
        ),
    ]


def _allocation_rows(effort: float) -> Block:
    return Block(
        "a call in which the guest allocates blocks and asks for their lengths",
        [Row(f"{rounds:,} blocks", partial(_allocations, rounds)) for rounds in (16_000, 32_000)],
        [
            Factor(
                "time of 32,000 blocks ÷ time of 16,000 blocks",
                "32,000 blocks",
                "16,000 blocks",
                Goal(2.3, at_most=True),
            )
        ],
        budget=10,
        least=1 if effort < 1 else 5,
    )


def start_peer() -> None:
    """Let extism install its signal handlers before plugwasm does.

    Those of a package that comes later would make plugwasm compile its plugins with explicit
    checks, so the order would decide what is measured.
    """
    _sdk(PEER).Plugin(example("echo"), functions=[]).call("echo", b"")


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


def _quiet_logs(side: str) -> Sample:
    plugin = _sdk(side).Plugin(quiet_logs(), functions=[])
    return make_sampler(partial(plugin.call, "log_four", b""), b"")


def _call_real(real: Real, size: int, side: str) -> Sample:
    plugin = _sdk(side).Plugin(real.path().read_bytes(), True, functions=[])
    data = real.make_input(size)
    return make_sampler(partial(plugin.call, real.function, data), partial(real.is_right, data))


def _fresh_real(real: Real, side: str) -> Sample:
    sdk = _sdk(side)
    compiled = sdk.CompiledPlugin(real.path().read_bytes(), True, [])
    data = real.make_input(10)

    def run() -> Any:
        with sdk.Plugin(compiled) as plugin:
            return plugin.call(real.function, data)

    return make_sampler(run, partial(real.is_right, data))


def _env_calls(name: str, side: str) -> Sample:
    wasm = [{"data": base64.b64encode(env_calls()).decode()}]
    manifest = {"wasm": wasm, "config": {"greeting": "hello"}}
    plugin = _sdk(side).Plugin(manifest, functions=[])
    return make_sampler(partial(plugin.call, name, b""), b"", parts=LOOPS)


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
        pool = PluginPool(compiled, size=workers)
        spread: Callable[..., Iterable[bytes]] = partial(pool.map, plugin)
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
