"""The rows: what is measured of each way, in rounds in which all ways take turns."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import count
from time import perf_counter
from typing import TYPE_CHECKING, Any

from ..measure import Figure, Goal, Sample, make_sampler, no_collection
from .tenants import SMAPS
from .ways import CALLS, TENANTS, Way, source_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


_keep_open = ExitStack()


@dataclass(frozen=True)
class Row:
    """What is measured. The goal is for plugwasm's own figure, in seconds."""

    title: str
    prepare: Callable[[str, Way], Sample]
    goal: Goal | None = None


@dataclass(frozen=True)
class Line:
    """A line of a table: the figures of the ways that have one."""

    title: str
    unit: str
    figures: dict[str, Figure]
    goal: Goal | None = None

    @property
    def is_met(self) -> bool | None:
        """Whether plugwasm's figure, the first, reaches the goal."""
        if self.goal is None:
            return None
        return self.goal.is_met(next(iter(self.figures.values())).median)


def _load(language: str, way: Way) -> Sample:
    numbers = count()
    return make_sampler(
        lambda: way.load(source_of(language, next(numbers))), lambda loaded: loaded is not None
    )


def _load_and_call(language: str, way: Way) -> Sample:
    numbers, (data, is_right) = count(2**30), CALLS["total"]

    def run() -> Any:
        with way.open(way.load(source_of(language, next(numbers)))) as call:
            return call("total", data)

    return make_sampler(run, is_right)


def _fresh(language: str, way: Way) -> Sample:
    loaded, (data, is_right) = way.load(source_of(language)), CALLS["total"]

    def run() -> Any:
        with way.open(loaded) as call:
            return call("total", data)

    return make_sampler(run, is_right)


def _later(function: str, language: str, way: Way) -> Sample:
    call = _keep_open.enter_context(way.open(way.load(source_of(language))))
    data, is_right = CALLS[function]
    return make_sampler(partial(call, function, data), is_right)


ROWS = (
    Row("new script: ready", _load),
    Row("new script: ready, first call", _load_and_call),
    Row("fresh instance for a call, closed", _fresh, Goal(1e-3, at_most=True)),
    Row("later call: 63 B of JSON in, 12 B out", partial(_later, "total"), Goal(1e-4, True)),
    Row("later call: 10 KB of JSON in, 3 B out", partial(_later, "count")),
    Row("later call: 64 KB of text in and out", partial(_later, "upper")),
)


def measure(language: str, ways: Sequence[Way], effort: float) -> list[Line]:
    """Measure the rows of a language. `effort` scales the time that it takes."""
    lines = []
    for row in ROWS:
        print(f"measuring: {language}: {row.title} …", file=sys.stderr, flush=True)
        samples = {way.title: row.prepare(language, way) for way in ways}
        taken: dict[str, list[float]] = {title: [] for title in samples}
        with no_collection():
            start, done = perf_counter(), 0
            while done < (2 if effort < 1 else 7) or perf_counter() - start < 2.5 * effort:
                order = list(samples)
                for title in order if done % 2 == 0 else reversed(order):
                    taken[title].append(samples[title]())
                gc.collect()
                done += 1
        _keep_open.close()
        figures = {title: Figure(tuple(found)) for title, found in taken.items()}
        lines.append(Line(row.title, "s", figures, row.goal))
    return lines


def measure_memory(language: str, ways: Sequence[Way], effort: float) -> list[Line]:
    """Measure the memory of tenants, each way in processes of its own."""
    if not os.path.exists(SMAPS):
        return []
    each: dict[str, Figure] = {}
    whole: dict[str, Figure] = {}
    for way in ways:
        tenants = way.tenants if effort >= 1 else min(way.tenants, 10)
        if not tenants:
            continue
        print(f"measuring: {language}: memory, {way.title} …", file=sys.stderr, flush=True)
        command = [sys.executable, "-m", f"{__package__}.tenants"]
        command += [language, way.title, str(tenants)]
        found = [
            json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
            for _ in range(3 if effort >= 1 else 1)
        ]
        title = way.title
        each[title] = Figure(tuple(one[0] for one in found))
        if way.tenants == TENANTS:
            whole[title] = Figure(tuple(one[1] for one in found))
    return [
        Line("a tenant: own script, live instance", "B", each),
        Line(f"{TENANTS} tenants: the whole process", "B", whole, Goal(1e9, at_most=True)),
    ]
