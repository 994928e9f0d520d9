"""Rounds, samples and statistics.

A row is measured in rounds, and in each round once on each side; the side that goes first
alternates. So whatever slows the machine down for a while slows both sides down, and hardly affects
the ratio, which is taken in each round. Times and ratios are reported as their median over the
rounds. A sample of something short is the mean of as many runs as fill a few milliseconds. Before
the first round both sides are run, checked and warm. The garbage collector runs between rounds and
not within samples, for both sides.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median, quantiles
from time import perf_counter
from typing import Any

SIDES = {"plugwasm": "plugwasm", "extism": "extism.extism"}
"""Each side's name, and the module that it is imported from."""
OURS, PEER = SIDES

Sample = Callable[[], float]
"""Measures once, and returns seconds (or bytes) for one run."""


class WrongResultError(Exception):
    """A side gave a wrong output, so its time would mean nothing."""


@dataclass(frozen=True)
class Goal:
    """What a figure should reach: at least, or at most if `at_most`."""

    value: float
    at_most: bool = False

    def is_met(self, figure: float) -> bool:
        return figure <= self.value if self.at_most else figure >= self.value


@dataclass(frozen=True)
class Row:
    """Something to measure.

    `prepare` gets the name of a side. The goal is for the ratio.
    """

    title: str
    prepare: Callable[[str], Sample]
    goal: Goal | None = None
    unit: str = "s"


@dataclass(frozen=True)
class Factor:
    """How many times as long one row takes as another of the same block.

    The goal is for plugwasm's own factor.
    """

    title: str
    over: str
    under: str
    goal: Goal | None = None


@dataclass(frozen=True)
class Block:
    """Rows that are measured together, so that they can be compared, and how many seconds that may
    take."""

    title: str
    rows: Sequence[Row]
    factors: Sequence[Factor] = ()
    budget: float = 3.0
    least: int = 5
    most: int = 61


@dataclass(frozen=True)
class Figure:
    """The median of samples, one a round.

    `spread` is the distance of their quartiles, as a fraction of the median.
    """

    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        return median(self.samples)

    @property
    def spread(self) -> float:
        if len(self.samples) < 2:
            return 0.0
        low, _, high = quantiles(self.samples, method="inclusive")
        return (high - low) / self.median


@dataclass(frozen=True)
class Result:
    """A line of the table."""

    title: str
    unit: str
    ours: Figure
    peer: Figure
    goal: Goal | None

    @property
    def ratio(self) -> Figure | None:
        """The peer's time by plugwasm's, round by round, so more than 1 is better.

        None for a factor, which is compared with its goal only.
        """
        if self.unit == "×":
            return None
        return Figure(
            tuple(
                peer / ours for ours, peer in zip(self.ours.samples, self.peer.samples, strict=True)
            )
        )

    @property
    def is_met(self) -> bool | None:
        return None if self.goal is None else self.goal.is_met((self.ratio or self.ours).median)


_WARM_UPS = 10
"""Runs before a short run is measured."""


def check(output: Any, expected: Any) -> None:
    """Raise unless the output is as expected: equal, or accepted by a function."""
    if not (expected(output) if callable(expected) else output == expected):
        raise WrongResultError(f"unexpected output: {output!r:.200}")


def make_sampler(
    run: Callable[[], Any], expected: Any, *, parts: int = 1, least: float = 0.004
) -> Sample:
    """Return a sampler for a short run: the mean of as many runs as take `least` seconds.

    If a run does the measured thing several times, `parts` says how often.
    """

    def seconds(count: int) -> float:
        start = perf_counter()
        for _ in range(count):
            run()
        return perf_counter() - start

    def checked() -> float:
        start = perf_counter()
        output = run()
        taken = perf_counter() - start
        check(output, expected)
        return taken

    # The first runs may do more: compile, or load what later runs share.
    fastest = checked()
    for _ in range(_WARM_UPS if fastest < 25 * least else 1):
        fastest = min(fastest, checked())
    count = max(1, round(least / fastest))
    if count > 1:
        seconds(count)

    def sample() -> float:
        return seconds(count) / count / parts

    return sample


@contextmanager
def no_collection() -> Iterator[None]:
    """Turn the garbage collector off within the block."""
    gc.collect()
    gc.freeze()  # existing objects are not examined again: collecting between rounds takes no time
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


def measure(
    block: Block, effort: float = 1.0, sides: tuple[str, str] = (OURS, PEER)
) -> list[Result]:
    """Measure the rows of a block on both sides. `effort` scales its budget."""
    samplers = [(row, [row.prepare(side) for side in sides]) for row in block.rows]
    taken: dict[str, tuple[list[float], list[float]]] = {row.title: ([], []) for row in block.rows}
    with no_collection():
        for _, both in samplers:  # warm-up
            for sample in both:
                sample()
        start = perf_counter()
        done, rounds = 0, block.most
        while done < rounds:
            for row, both in samplers:
                for side in (0, 1) if done % 2 == 0 else (1, 0):
                    taken[row.title][side].append(both[side]())
            gc.collect()
            done += 1
            rounds = max(
                min(block.least, 3) if effort < 1 else block.least,
                min(block.most, int(done * block.budget * effort / (perf_counter() - start))),
            )
    results = []
    for row in block.rows:
        ours, peer = taken[row.title]
        results.append(
            Result(row.title, row.unit, Figure(tuple(ours)), Figure(tuple(peer)), row.goal)
        )
    for factor in block.factors:
        if factor.over in taken and factor.under in taken:
            ours, peer = (
                [over / under for over, under in zip(*pair, strict=True)]
                for pair in zip(taken[factor.over], taken[factor.under], strict=True)
            )
            results.append(
                Result(factor.title, "×", Figure(tuple(ours)), Figure(tuple(peer)), factor.goal)
            )
    return results
