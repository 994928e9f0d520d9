"""What the page shows, measured: samples of everything, taken in turns.

A figure is the quartile of its samples that is better: a quarter of them was as fast, or faster.
What disturbs a sample, such as other processes, only makes it slower, and may disturb half of them;
the parts of a call, which are differences, would then mean nothing with medians.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from functools import partial
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from ..cases import _call, _count_vowels, bytes_of
from ..measure import OURS, PEER, SIDES, Sample, make_sampler, no_collection
from ..plugins import example, variant
from . import guests, raw, scripts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..built import Real

Figures = dict[str, Any]

CHILD = Path(__file__).with_name("child.py")
SIZES = (10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000)
LIVE = (1, 10, 100, 1_000, 10_000)
PLUGINS = (1, 10, 100, 300)
THREADS = (1, 2, 4)
CALLERS = (1, 2, 4, 8, 16)
WORK = {
    "short": ("echo", "echo", 10),
    "long": ("count_vowels", "count_vowels", 262_144),
}
"""Calls for threads and pools: a plugin, its function, and the size of the input."""
FREE_THREADED = ("python3.15t", "python3.14t", "python3.13t")
NO_CACHE = {"PLUGWASM_CACHE": "off", "EXTISM_CACHE_CONFIG": ""}


class Run:
    """One run of all measurements.

    Args:
        folder: For files of this run.
        effort: Scales all times; below 1 the figures are not good.
        built: The plugins of `built` that this machine can build.
    """

    def __init__(self, folder: Path, effort: float, built: Sequence[Real]) -> None:
        self.folder = folder
        self.effort = effort
        self.built = built

    def measure(self) -> Figures:
        """Measure everything."""
        parts: dict[str, Callable[[], Any]] = {
            "sizes": self.sizes,
            "instances": partial(self.live, "instances", LIVE),
            "plugins": partial(self.live, "plugins", PLUGINS),
            "threads": self.threads,
            "pool": self.pool,
            "call": self.call,
            "options": self.options,
            "host": self.host,
            "start": self.start,
            "load": self.load,
            "fresh": self.fresh,
            "scripts": partial(scripts.measure, self),
        }
        found = {}
        for name, part in parts.items():
            start = perf_counter()
            found[name] = part()
            print(f"measured: {name}, {perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
        return found

    # ---- how it grows ----------------------------------------------------------------------------

    def sizes(self) -> Figures:
        """Seconds of a call by the size of its input."""
        kinds: dict[str, Callable[[bytes, str], Sample]] = {
            "echo": partial(_call, "echo", "echo"),
            "count_vowels": _count_vowels,
        }
        return {"bytes": SIZES} | {
            kind: self._by_side(
                {(side, size): prepare(bytes_of(size), side) for size in SIZES for side in SIDES},
                SIZES,
                12,
            )
            for kind, prepare in kinds.items()
        }

    def live(self, task: str, marks: Sequence[int]) -> Figures:
        """What the n-th instance or plugin takes: seconds of its start and of a call, bytes."""
        if not os.path.exists("/proc/self/statm"):
            return {}
        marks = [mark for mark in marks if self.effort >= 1 or mark <= 100]
        file = self._file("echo", example("echo"))
        samples = {side: self._child({}, side, task, file, *map(str, marks)) for side in SIDES}
        taken = self._in_turns(samples, 24, least=1, most=5)
        found: Figures = {"marks": marks}
        for side in SIDES:
            reached = min(map(len, taken[side]))
            found[side] = {
                what: [
                    quartile([sample[at][what] for sample in taken[side]]) if at < reached else None
                    for at in range(len(marks))
                ]
                for what in ("start", "call", "bytes")
            }
        return found

    def threads(self) -> Figures:
        """Calls a second of threads with a plugin each."""
        free_threaded = find_free_threaded()
        pythons = {side: (side, sys.executable) for side in SIDES}
        if free_threaded is not None:
            pythons["free-threaded"] = (OURS, free_threaded)
        found: Figures = {
            "threads": THREADS,
            "free-threaded": free_threaded and _version_of(free_threaded),
        }
        for work, (name, function, size) in WORK.items():
            file = self._file(name, example(name))
            samples = {
                (label, count): self._child(
                    {}, side, "threads", file, function, str(size), str(count), self._seconds(0.3),
                    python=python,
                )
                for label, (side, python) in pythons.items()
                for count in THREADS
            }  # fmt: skip
            found[work] = self._by_side(samples, THREADS, 12, rates=True, least=3, most=9)
        return found

    def pool(self) -> Figures:
        """Calls a second of threads that share a pool."""
        sizes = (1, 2, 4)
        found: Figures = {"callers": CALLERS, "sizes": sizes}
        for work, (name, function, size) in WORK.items():
            file = self._file(name, example(name))
            samples = {
                (f"{plugins}", callers): self._child(
                    {}, OURS, "pool", file, function, str(size), str(plugins), str(callers),
                    self._seconds(0.25),
                )
                for plugins in sizes
                for callers in CALLERS
            }  # fmt: skip
            found[work] = self._by_side(samples, CALLERS, 15, rates=True, least=3, most=9)
        return found

    # ---- where the time goes ---------------------------------------------------------------------

    def call(self) -> Figures:
        """Seconds of calls that do one thing more each."""
        from plugwasm import Plugin

        nothing = Plugin(guests.empty(), functions=[])
        echo = Plugin(example("echo"), functions=[])
        ten, thousand = bytes_of(10), bytes_of(1000)
        return self._quartiles(
            {
                "ctypes": make_sampler(raw.c_function(), 0),
                "engine": make_sampler(raw.compiled_function(), None),
                "empty": make_sampler(partial(nothing.call, "nothing", b""), b""),
                "echo 10": make_sampler(partial(echo.call, "echo", ten), ten),
                "echo 1000": make_sampler(partial(echo.call, "echo", thousand), thousand),
            },
            6,
        )

    def options(self) -> Figures:
        """Seconds of an echo of 10 bytes, each with one option or class."""
        from plugwasm import CompiledPlugin, IsolatedPlugin, Plugin, PluginPool

        wasm, data = example("echo"), bytes_of(10)
        compiled = CompiledPlugin(wasm, functions=[])

        def sampler(plugin: Any, **how: Any) -> Sample:
            expected = data.decode() if "returns" in how else data
            return make_sampler(partial(plugin.call, "echo", data, **how), expected)

        plain = Plugin(wasm, functions=[])
        runner = asyncio.Runner()

        async def awaited() -> bytes:
            for _ in range(50):
                output: bytes = await plain.call_async("echo", data)
            return output

        def fresh() -> bytes:
            with Plugin(compiled) as plugin:
                return plugin.call("echo", data)

        return self._quartiles(
            {
                "`plugin.call`": sampler(plain),
                "`returns=str`": sampler(plain, returns=str),
                "`timeout` in the manifest": sampler(
                    Plugin({"wasm": [{"data": wasm}], "timeout_ms": 10_000}, functions=[])
                ),
                "`wasi=True`": sampler(Plugin(wasm, True, functions=[])),
                "`fuel_limit=`": sampler(Plugin(wasm, functions=[], fuel_limit=10**12)),
                "`observe=True`": sampler(Plugin(wasm, functions=[], observe=True)),
                "`PluginPool.call`": sampler(PluginPool(wasm, functions=[], size=2)),
                "`PluginPool.call`, `fresh=True`": sampler(
                    PluginPool(wasm, functions=[], size=2, fresh=True)
                ),
                "a new `Plugin` of a `CompiledPlugin` for the call": make_sampler(fresh, data),
                "`IsolatedPlugin.call`": sampler(IsolatedPlugin(wasm, functions=[])),
                "`await plugin.call_async`": make_sampler(
                    lambda: runner.run(awaited()), data, parts=50
                ),
            },
            8,
        )

    def host(self) -> Figures:
        """Seconds of each call that a guest makes in a loop."""
        from plugwasm import Plugin, host_fn

        def nothing() -> None:
            pass

        def number(value: int) -> int:
            return value

        def text(value: str) -> str:
            return value

        functions = [host_fn(register=False)(each) for each in (nothing, number, text)]
        samples = {"raw": make_sampler(raw.host_function(guests.LOOPS), None, parts=guests.LOOPS)}
        for name in guests.BODIES:
            plugin = Plugin(
                guests.repeating(name), config={guests.KEY: "0" * 16}, functions=functions
            )
            samples[name] = make_sampler(partial(plugin.call, "run", b""), b"", parts=guests.LOOPS)
        return self._quartiles(samples, 8)

    def start(self) -> Figures:
        """Seconds of the stages of a process, from its start to its first output."""
        from .child import START

        file = self._file("echo", example("echo"))

        def sampler(side: str) -> Callable[[], list[float]]:
            program = START.format(module=SIDES[side].partition(".")[0])

            def sample() -> list[float]:
                start = perf_counter()
                with subprocess.Popen(
                    [sys.executable, "-P", "-c", program, file],
                    cwd=self.folder,
                    stdout=subprocess.PIPE,
                    text=True,
                ) as process:
                    assert process.stdout is not None
                    line = process.stdout.readline()
                    end = perf_counter()
                stamps = [start, *map(float, line.split()), end]
                return [after - before for before, after in pairwise(stamps)]

            return sample

        samples = {side: sampler(side) for side in SIDES}
        for sample in samples.values():
            sample()
        taken = self._in_turns(samples, 8, least=5)
        return {side: _quartiles_of(taken[side]) for side in SIDES}

    def load(self) -> Figures:
        """Seconds of the stages of a load, by plugin and by what was there before."""
        known = {
            "echo": ("echo", "0123456789", "", example("echo")),
            **{
                real.name: (
                    real.function,
                    real.make_input(10).decode(),
                    "wasi",
                    real.path().read_bytes(),
                )
                for real in self.built
            },
        }
        found: Figures = {}
        for name, (function, text, wasi, wasm) in known.items():
            arguments = (self._file(name, wasm), function, text, wasi)
            try:
                taken = self._load_stages(arguments)
            except subprocess.CalledProcessError as error:  # compiling took longer than the limit
                print(f"left out: loads of {name}: {error}", file=sys.stderr)
                continue
            found[name] = {"bytes": len(wasm)} | {
                how: {side: _quartiles_of(taken[how][side]) for side in SIDES} for how in taken
            }
        return found

    def _load_stages(self, arguments: tuple[str, ...]) -> dict[str, dict[str, list[list[float]]]]:
        another = self._file("another", variant(example("echo"), 2**32))

        def samples(task: str, variables: dict[str, str]) -> dict[str, Callable[[], list[float]]]:
            return {
                side: self._child(variables, side, "stages", *arguments, task, another)
                for side in SIDES
            }

        # The first loads fill the caches. Large modules take so long that they must do.
        start = perf_counter()
        nothing = {side: [sample()] for side, sample in samples("new", {}).items()}
        if perf_counter() - start < 4:
            more = self._in_turns(samples("new", NO_CACHE), 8, most=15)
            nothing = {side: first + more[side] for side, first in nothing.items()}
        return {
            "nothing": nothing,
            "process": self._in_turns(samples("loaded", {}), 8, most=15),
            "disk": self._in_turns(samples("new", {}), 8, most=15),
        }

    def fresh(self) -> Figures:
        """Seconds of making a plugin object, of its first call, and of closing it."""
        from plugwasm import CompiledPlugin, Plugin

        known = {
            "echo": (example("echo"), False, "echo", bytes_of(10)),
            "with WASI": (example("bench_wasi"), True, "echo", bytes_of(10)),
            **{
                real.name: (real.path().read_bytes(), True, real.function, real.make_input(10))
                for real in self.built
            },
        }

        def sampler(
            wasm: bytes, wasi: bool, function: str, data: bytes
        ) -> Callable[[], list[float]]:
            compiled = CompiledPlugin(wasm, wasi, [])
            warm = Plugin(compiled)
            warm.call(function, data)

            def sample() -> list[float]:
                stages = []
                for _ in range(20):
                    start = perf_counter()
                    plugin = Plugin(compiled)
                    made = perf_counter()
                    plugin.call(function, data)
                    called = perf_counter()
                    plugin.close()
                    closed = perf_counter()
                    warm.call(function, data)
                    again = perf_counter() - closed
                    first = called - made
                    stages.append(
                        [made - start, max(0.0, first - again), min(first, again), closed - called]
                    )
                return _quartiles_of(stages)

            return sample

        taken = self._in_turns({name: sampler(*how) for name, how in known.items()}, 8, least=5)
        return {name: _quartiles_of(samples) for name, samples in taken.items()}

    # ---- samples ---------------------------------------------------------------------------------

    def _in_turns(
        self,
        samples: Mapping[Any, Callable[[], Any]],
        budget: float,
        least: int = 3,
        most: int = 61,
    ) -> dict[Any, list[Any]]:
        """Take samples of all in turns, for so many seconds, forwards and backwards."""
        taken: dict[Any, list[Any]] = {name: [] for name in samples}
        if self.effort < 1:
            least = 1
        with no_collection():
            start, done = perf_counter(), 0
            while done < least or (
                done < most and (perf_counter() - start) * (done + 1) / done < budget * self.effort
            ):
                order = list(samples.items())
                for name, sample in order if done % 2 == 0 else reversed(order):
                    taken[name].append(sample())
                done += 1
        return taken

    def _quartiles(self, samples: Mapping[Any, Sample], budget: float) -> Figures:
        for sample in samples.values():  # warm-up
            sample()
        return {name: quartile(found) for name, found in self._in_turns(samples, budget).items()}

    def _by_side(
        self,
        samples: Mapping[tuple[str, int], Callable[[], float]],
        marks: Sequence[int],
        budget: float,
        *,
        rates: bool = False,
        **how: int,
    ) -> Figures:
        taken = self._in_turns(samples, budget, **how)
        return {
            side: [quartile(taken[side, mark], highest=rates) for mark in marks]
            for side in dict.fromkeys(side for side, _ in samples)
        }

    def _child(
        self, variables: dict[str, str], side: str, *arguments: str, python: str = sys.executable
    ) -> Callable[[], Any]:
        command = [python, "-P", str(CHILD), SIDES[side], *arguments]

        def sample() -> Any:
            done = subprocess.run(
                command,
                env=os.environ | variables,
                cwd=self.folder,
                stdout=subprocess.PIPE,
                check=True,
            )
            return json.loads(done.stdout)

        return sample

    def _seconds(self, value: float) -> str:
        return str(value if self.effort >= 1 else 0.02)

    def _file(self, name: str, wasm: bytes) -> str:
        path = self.folder / f"{name}.wasm"
        if not path.exists():
            path.write_bytes(wasm)
        return str(path)


def quartile(samples: Sequence[float], *, highest: bool = False) -> float:
    """Return the lowest value that a quarter of the samples reaches, or the highest."""
    return sorted(samples, reverse=highest)[(len(samples) - 1) // 4]


def _quartiles_of(samples: Sequence[Sequence[float]]) -> list[float]:
    return [quartile(column) for column in zip(*samples, strict=True)]


def find_free_threaded() -> str | None:
    """Return an interpreter without a GIL that can import plugwasm; None if there is none."""
    for name in (os.environ.get("PLUGWASM_FREE_THREADED", ""), *FREE_THREADED):
        found = shutil.which(name) if name else None
        if found is None:
            continue
        check = "import sys; from plugwasm import Plugin; sys.exit(sys._is_gil_enabled())"
        if subprocess.run([found, "-c", check], stderr=subprocess.DEVNULL).returncode == 0:
            return found
    return None


def _version_of(python: str) -> str:
    done = subprocess.run(
        [python, "-c", "import platform; print(platform.python_version())"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout.strip()


__all__ = ["OURS", "PEER", "Figures", "Run"]
