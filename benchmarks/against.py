"""Two revisions of plugwasm in turns: this working tree, and another revision.

Each side is a process of its own, which imports `plugwasm` from a folder that has nothing else but
these benchmarks: a link to this working tree's package, or the other revision's files as git has
them. So both run the same benchmarks, plugins and dependencies, and share nothing. The parent asks
one process for a sample of a row, then the other; the rest is as in a comparison with a peer.

Two processes that run the same code can differ by some per cent all their lives, since memory is
laid out anew in each. So the rounds of a block are spread over several pairs of processes, and both
of a pair have the same seed of hashes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .built import REAL, kept_in
from .measure import OURS, Block, Figure, Result, Row, Sample, measure

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Self

    from .built import Real

ROOT = Path(__file__).resolve().parent.parent
PAIRS = 3
"""Pairs of processes for each block."""


class RevisionError(Exception):
    """The other revision cannot be had, or cannot be measured."""


def find_commit(revision: str) -> str:
    """Return the short name of the commit.

    Raises:
        RevisionError: There is none.
    """
    wanted = f"{revision}^{{commit}}"
    found = _git("rev-parse", "--verify", "--quiet", "--end-of-options", wanted)
    if not found:
        raise RevisionError(f"git knows no revision {revision!r}")
    return found.decode().strip()[:10]


class Revisions:
    """The folders of both sides.

    Args:
        folder: Where they are made.
        revision: What git calls the other one: a branch, a tag, a commit.
        real: The plugins of `built` that are measured as well.

    Attributes:
        names: What the sides are called in tables; this one first.

    Raises:
        RevisionError: git does not know the revision, or it has no package.
    """

    def __init__(self, folder: Path, revision: str, real: Sequence[Real] = ()) -> None:
        short = find_commit(revision)
        self.names = (
            "working tree",
            short if short.startswith(revision) else f"{revision} {short}",
        )
        packed = _git("archive", "--format=tar", short, "plugwasm")
        if not packed:
            raise RevisionError(f"the revision {revision!r} has no folder plugwasm")
        self._real = ",".join(plugin.name for plugin in real)
        self.folders = {name: folder / f"side-{at}" for at, name in enumerate(self.names)}
        this, other = self.folders.values()
        for side in (this, other):
            side.mkdir()
            for name in ("benchmarks", "conformance"):
                (side / name).symlink_to(ROOT / name)
        (this / "plugwasm").symlink_to(ROOT / "plugwasm")
        with tarfile.open(fileobj=BytesIO(packed)) as archive:
            archive.extractall(other, filter="data")

    def measure(self, block: Block, effort: float) -> list[Result]:
        """Measure a block with several pairs of processes.

        Rows that a side cannot run are left out, with a line on stderr.
        """
        pairs = PAIRS if effort >= 1 else 1
        block = replace(
            block,
            rows=[replace(row, goal=None) for row in block.rows],
            factors=[],
            budget=block.budget / pairs,
            least=max(1, block.least // pairs),
            most=max(1, block.most // pairs),
        )
        parts = []
        for pair in range(pairs):
            with ExitStack() as stack:
                sides = {
                    name: stack.enter_context(_Side(name, folder, effort, self._real, seed=pair))
                    for name, folder in self.folders.items()
                }
                rows = [
                    replace(row, prepare=partial(_ready, samples))
                    for row in block.rows
                    if (samples := _prepared(sides, block, row)) is not None
                ]
                if rows:
                    asked = replace(block, rows=rows)
                    parts.append(measure(asked, effort, self.names))
        return _merged(parts)


def _merged(parts: Sequence[Sequence[Result]]) -> list[Result]:
    """Return the results of all pairs as one, without rows that some pair lacks."""
    found: dict[str, list[Result]] = {}
    for part in parts:
        for result in part:
            found.setdefault(result.title, []).append(result)
    return [
        replace(
            results[0],
            ours=Figure(tuple(x for result in results for x in result.ours.samples)),
            peer=Figure(tuple(x for result in results for x in result.peer.samples)),
        )
        for results in found.values()
        if len(results) == len(parts)
    ]


def _prepared(sides: dict[str, _Side], block: Block, row: Row) -> dict[str, Sample] | None:
    try:
        return {name: side.prepare(block.title, row.title) for name, side in sides.items()}
    except RevisionError as error:
        print(f"left out: {row.title}: {error}", file=sys.stderr)
        return None


def _ready(samples: dict[str, Sample], side: str) -> Sample:
    return samples[side]


class _Side:
    """A process that measures for one side. It answers each line of its input with one."""

    def __init__(self, name: str, folder: Path, effort: float, real: str, seed: int) -> None:
        self._name = name
        self._folder = folder
        environment = os.environ | {
            "PYTHONPATH": str(folder),
            "PYTHONHASHSEED": str(seed),
            "PLUGWASM_CACHE": str(folder / "compiled"),
            "PLUGWASM_BENCHMARKS": str(kept_in()),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "benchmarks.against", str(folder), str(effort), real],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            cwd=folder,
        )

    def __enter__(self) -> Self:
        try:
            where = Path(self._ask("where"))
            if where != self._folder / "plugwasm":
                raise RevisionError(f"{self._name}: plugwasm was imported from {where}")
        except BaseException:
            self._end(at_once=True)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end(at_once=kind is not None)

    def _end(self, *, at_once: bool) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if at_once:
            self._process.kill()
        try:
            self._process.stdin.close()
        except BrokenPipeError:
            pass
        self._process.wait()
        self._process.stdout.close()

    def prepare(self, block: str, row: str) -> Sample:
        number = int(self._ask("prepare", block, row))
        return lambda: float(self._ask("sample", number))

    def _ask(self, *question: object) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(question).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass
        line = self._process.stdout.readline()
        if not line:
            raise RevisionError(f"{self._name}: its process ended ({self._process.wait()})")
        answer = json.loads(line)
        if "error" in answer:
            raise RevisionError(f"{self._name}: {answer['error']}")
        return answer["value"]


def _git(*arguments: str) -> bytes:
    done = subprocess.run(
        ["git", *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    return done.stdout if done.returncode == 0 else b""


def serve(folder: Path, effort: float, real: Sequence[str]) -> None:
    """Answer the questions of `_Side`: prepare a row, take a sample."""
    import gc

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what is printed meanwhile is no answer
    samples: list[Sample] = []
    rows: dict[tuple[str, str], Row] = {}

    def answer(kind: str, *rest: Any) -> object:
        if kind == "where":
            import plugwasm

            return os.path.dirname(plugwasm.__file__)
        if kind == "prepare":
            if not rows:
                rows.update(_rows(folder, effort, real))
            gc.enable()
            samples.append(rows[rest[0], rest[1]].prepare(OURS))
            gc.collect()
            gc.freeze()
            gc.disable()
            return len(samples) - 1
        (number,) = rest
        taken = samples[number]()
        gc.collect()  # after the sample, before the other side's
        return taken

    for line in sys.stdin:
        try:
            reply: dict[str, object] = {"value": answer(*json.loads(line))}
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {error}"[:300]}
        print(json.dumps(reply), file=answers, flush=True)


def _rows(folder: Path, effort: float, names: Sequence[str]) -> dict[tuple[str, str], Row]:
    from . import cases, processes

    real = [plugin for plugin in REAL if plugin.name in names]
    blocks = [*processes.blocks(folder, effort, real), *cases.blocks(effort, real)]
    return {(block.title, row.title): row for block in blocks for row in block.rows}


if __name__ == "__main__":
    serve(Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3].split(","))
