"""What `plugwasm bench` measures: a call, a fresh instance, a load, memory.

Each kind is repeated for a share of the time, and at least once; each run is timed by itself. Loads
use a cache of compiled code of their own, so the user's is neither read nor filled.
"""

from __future__ import annotations

import gc
import json
import os
import tempfile
from contextlib import contextmanager
from math import ceil
from time import perf_counter

from .._runtime.compiled_plugin import CompiledPlugin
from .._runtime.modules import drop_unused
from .._runtime.observers import Observer
from .._runtime.plugin import Plugin
from .._script.names import is_script
from .._script.spec import resolve_plugin
from ..errors import Error
from .terminal import escape, print_warning

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from .._manifest.resolve import PluginSpec
    from .._runtime.observers import Call
    from .invocation import Overrides

CALLS, FRESH, LOADS, OBSERVED, LIVE = 0.4, 0.2, 0.2, 0.1, 0.1
"""Shares of the time."""
MOST_RUNS = 1_000_000
MOST_LOADS = 20
MOST_OBSERVED = 1_000
MOST_LIVE = 100
MOST_GROWTH = 2**29
"""Bytes by which this process may grow while instances are kept."""


class Times:
    """The times of single runs, in seconds."""

    def __init__(self, runs: list[float]) -> None:
        self.count: int = len(runs)
        self.total: float = sum(runs)
        ordered = sorted(runs)
        self.median: float = _quantile(ordered, 0.5)
        self.p99: float = _quantile(ordered, 0.99)

    @property
    def rate(self) -> float:
        """Runs in a second, one after the other."""
        return self.count / self.total

    def as_dict(self) -> dict[str, float]:
        return {
            "count": self.count,
            "median": self.median,
            "p99": self.p99,
            "per_second": self.rate,
        }


class Figures:
    """What was measured. Times are in seconds, sizes in bytes.

    Attributes:
        call: Calls of one instance, without the first.
        fresh: Instances that are created, called once and closed.
        loads: By what was there: nothing, compiled code on disk, or the module in this process.
        host_calls, host_seconds: Calls of host functions in one call, and the median of the time in
            them.
        memory: The most memory of the guest after its first call, and after `observed` calls; None
            if the host cannot see it.
        instance_bytes: The growth of this process by each live instance, called once; None if the
            system does not say it.
    """

    plugin: str
    function: str
    input_bytes: int
    output_bytes: int
    call: Times
    fresh: Times
    loads: dict[str, Times]
    host_calls: int
    host_seconds: float
    observed: int
    memory: tuple[int, int] | None
    instance_bytes: float | None

    def as_json(self) -> str:
        """Return all figures as an object."""
        return (
            json.dumps(
                {
                    "plugin": self.plugin,
                    "function": self.function,
                    "input_bytes": self.input_bytes,
                    "output_bytes": self.output_bytes,
                    "call": self.call.as_dict(),
                    "fresh_instance": self.fresh.as_dict(),
                    "load": {name: times.as_dict() for name, times in self.loads.items()},
                    "host_calls": self.host_calls,
                    "host_seconds": self.host_seconds,
                    "memory_bytes": None if self.memory is None else self.memory[0],
                    "memory_growth_per_call": self._growth(),
                    "instance_bytes": self.instance_bytes,
                },
                indent=2,
            )
            + "\n"
        )

    def as_text(self) -> str:
        """Return all figures as a table and a few lines."""
        rows = [
            ("call", self.call),
            ("fresh instance, call, close", self.fresh),
            *((f"load: {name}", times) for name, times in self.loads.items()),
        ]
        name = f"{escape(self.function)} of {escape(self.plugin)}"
        lines = [
            f"{name}: {self.input_bytes:,} bytes in, {self.output_bytes:,} bytes out",
            "",
            f"{'':30}{'median':>10}{'p99':>10}{'a second':>13}{'runs':>11}",
        ]
        for title, times in rows:
            p99 = _seconds(times.p99) if times.count >= 100 else ""
            rate = "" if title.startswith("load") else _rate(times.rate)
            lines.append(
                f"{title:30}{_seconds(times.median):>10}{p99:>10}{rate:>13}{times.count:>11,}"
            )
        lines += ["", *self._notes()]
        return "\n".join(lines) + "\n"

    def _notes(self) -> Iterator[str]:
        if self.host_calls:
            plural = "" if self.host_calls == 1 else "s"
            yield (
                f"host calls: {self.host_calls:,} a call, which take{'s' * (not plural)} "
                f"{_seconds(self.host_seconds)} when observed"
            )
        else:
            yield "host calls: none"
        if self.memory is not None:
            growth = self._growth()
            change = f"which grows by {_size(growth)} a call" if growth else "which does not grow"
            yield f"memory of the guest: {_size(self.memory[0])}, {change}"
        if self.instance_bytes is not None:
            yield f"memory of a live instance in this process: {_size(self.instance_bytes)}"

    def _growth(self) -> float:
        if self.memory is None or self.observed < 2:
            return 0
        return max(0, self.memory[1] - self.memory[0]) / (self.observed - 1)


class _Watch(Observer):
    """Keeps the statistics of calls."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    @contextmanager
    def on_call(self, call: Call) -> Iterator[None]:
        yield
        self.calls.append(call)


def measure(
    plugin: str,
    function: str,
    read: Callable[[], bytes],
    overrides: Overrides,
    *,
    wasi: bool,
    budget: float,
) -> Figures:
    """Measure a call of a plugin.

    Args:
        plugin: A file, a URL or a manifest.
        function: The export to call.
        read: Reads the input.
        overrides: The options that change the spec.
        wasi: Whether WASI is granted.
        budget: The seconds that it should take, if single runs are short.
    """
    spec = resolve_plugin(plugin)
    overrides.apply(spec)
    options: dict[str, Any] = {
        "wasi": wasi,
        "functions": (),
        "limits": overrides.limits(spec),
    }
    found = Figures()
    if is_script(spec):
        from .._script.engine import get_engine

        get_engine(spec.interpreter)  # the user's: in an empty cache it would be built again
    with _own_cache() as new_cache:
        data = read()
        # First what a user may have got wrong: the plugin, the function, the input.
        with Plugin(_compile(spec, options)) as first:
            found.plugin, found.function = first.name, function
            found.input_bytes, found.output_bytes = len(data), len(first.call(function, data))
        del first
        found.loads = _loads(spec, options, new_cache, budget * LOADS)
        compiled = _compile(spec, options)
        found.call = _calls(compiled, function, data, budget * CALLS)
        found.fresh = _fresh(compiled, function, data, budget * FRESH)
        found.instance_bytes = _live(compiled, function, data, budget * LIVE)
        _observe(found, spec, options, data, budget * OBSERVED)
    return found


def _compile(spec: PluginSpec, options: dict[str, Any], **more: Any) -> CompiledPlugin:
    given: Any = spec
    return CompiledPlugin(given, **options, **more)


@contextmanager
def _own_cache() -> Iterator[Callable[[], None]]:
    """Use an empty cache of compiled code. Yields a function that takes another one."""
    before = os.environ.get("PLUGWASM_CACHE")
    with tempfile.TemporaryDirectory(prefix="plugwasm-bench-") as folder:
        number = 0

        def take_another() -> None:
            nonlocal number
            number += 1
            os.environ["PLUGWASM_CACHE"] = os.path.join(folder, str(number))

        take_another()
        try:
            yield take_another
        finally:
            del os.environ["PLUGWASM_CACHE"]
            if before is not None:
                os.environ["PLUGWASM_CACHE"] = before


def _loads(
    spec: PluginSpec, options: dict[str, Any], new_cache: Callable[[], None], budget: float
) -> dict[str, Times]:
    nothing, disk, here = [], [], []
    end = perf_counter() + budget
    if is_script(spec):  # what is compiled of it is small, and its interpreter is in this process
        return {"script": _repeat(lambda: _compile(spec, options), budget)}
    while True:
        new_cache()
        nothing.append(_timed_load(spec, options))
        disk.append(_timed_load(spec, options))
        user = _compile(spec, options)
        start = perf_counter()
        _compile(spec, options)
        here.append(perf_counter() - start)
        del user
        if perf_counter() > end or len(nothing) == MOST_LOADS:
            return {
                "nothing cached": Times(nothing),
                "compiled code on disk": Times(disk),
                "module in this process": Times(here),
            }


def _timed_load(spec: PluginSpec, options: dict[str, Any]) -> float:
    """Load it as a process does that does not have the module."""
    gc.collect()
    drop_unused()
    start = perf_counter()
    _compile(spec, options)
    return perf_counter() - start


def _calls(compiled: CompiledPlugin, function: str, data: bytes, budget: float) -> Times:
    with Plugin(compiled) as plugin:
        plugin.call(function, data)  # makes the instance
        return _repeat(lambda: plugin.call(function, data), budget)


def _fresh(compiled: CompiledPlugin, function: str, data: bytes, budget: float) -> Times:
    def run() -> None:
        with Plugin(compiled) as plugin:
            plugin.call(function, data)

    return _repeat(run, budget)


def _repeat(run: Callable[[], object], budget: float) -> Times:
    """Run it for so many seconds, but at least once.

    The first error ends it. How many runs succeeded before is written to stderr, since a plugin
    that uses up its memory fails after thousands of calls.
    """
    gc.collect()
    runs: list[float] = []
    clock = perf_counter
    end = (now := clock()) + budget
    try:
        while True:
            start = now
            run()
            now = clock()
            runs.append(now - start)
            if now > end or len(runs) == MOST_RUNS:
                return Times(runs)
    except Error:
        if runs:
            print_warning(f"the first {len(runs):,} calls succeeded, and the next one failed")
        raise


def _observe(
    found: Figures, spec: PluginSpec, options: dict[str, Any], data: bytes, budget: float
) -> None:
    watch = _Watch()
    with Plugin(_compile(spec, options, observe=watch)) as plugin:
        end = perf_counter() + budget
        while len(watch.calls) < 2 or (perf_counter() < end and len(watch.calls) < MOST_OBSERVED):
            plugin.call(found.function, data)
    calls = watch.calls
    found.observed = len(calls)
    found.host_calls = calls[-1].host_calls
    found.host_seconds = Times([call.host_seconds for call in calls[1:]]).median
    first, last = calls[0].memory_bytes, calls[-1].memory_bytes
    found.memory = None if first is None or last is None else (first, last)


def _live(compiled: CompiledPlugin, function: str, data: bytes, budget: float) -> float | None:
    """Return by how many bytes this process grows for each instance, all called once."""
    if (before := _resident()) is None:
        return None
    live: list[Plugin] = []
    now = before
    end = perf_counter() + budget
    try:
        while len(live) < MOST_LIVE and now - before < MOST_GROWTH:
            live.append(Plugin(compiled))
            live[-1].call(function, data)
            now = _resident() or before
            if perf_counter() > end:
                break
        return max(0, now - before) / len(live)
    finally:
        for plugin in live:
            plugin.close()


def _resident() -> int | None:
    """Return the resident memory of this process in bytes, on Linux."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")
    except OSError:
        return None


def _quantile(ordered: list[float], part: float) -> float:
    """Return the least of the values that so large a part of them does not exceed."""
    return ordered[max(0, ceil(len(ordered) * part) - 1)]


def _seconds(value: float) -> str:
    for scale, name in ((1, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if value >= scale:
            return f"{value / scale:#.3g}".rstrip(".") + f" {name}"
    return f"{value * 1e9:.0f} ns"


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _size(value: float) -> str:
    for scale, name in ((2**20, "MiB"), (2**10, "KiB")):
        if value >= scale:
            return f"{value / scale:.1f} {name}"
    return f"{value:.0f} bytes"
