"""Run a harness in a child process, since a finding may crash or hang it.

The child writes each input to a file before it runs it, so when it crashes or hangs, the file has
that input. Another child then continues.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import monotonic

from plugwasm import cache

from . import ROOT, harness, inputs
from .session import Session, resident_bytes, save

HANG = 90.0
"""Seconds without a new case after which the child is ended. Guests reach their own deadlines long
before."""
CRASHES = 5
"""How many crashes end the run of a harness."""
LARGEST_FILE = 2**24
"""The largest file that a guest may write, in bytes."""
WARM = 200
"""Executions after which a process has everything that it keeps."""
GROWTH = 512 * 2**20
"""Bytes of memory that a run may add after that."""


@dataclass
class Outcome:
    """The result of a run."""

    name: str
    executions: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    growth: int = 0
    guided: bool = False
    findings: list[str] = field(default_factory=list)


class LeakError(AssertionError):
    """The memory of the process keeps growing."""


def _engines() -> dict[str, str]:
    """Return the folder of interpreters of scripts: they are kept, although the cache is off."""
    parent = cache.directory()
    if "PLUGWASM_ENGINES" in os.environ or parent is None:
        return {}
    return {"PLUGWASM_ENGINES": os.path.join(parent, "engines")}


def watch(
    name: str,
    *,
    seed: int,
    seconds: float | None,
    executions: int | None,
    guided: bool,
    folder: Path,
) -> Outcome:
    """Run a harness in children until a limit is reached. Findings are saved in `folder`."""
    total = Outcome(name, guided=guided)
    started = monotonic()
    crashes = 0
    while True:
        left = None if seconds is None else seconds - (monotonic() - started)
        more = None if executions is None else executions - total.executions
        if (
            (left is not None and left <= 0)
            or (more is not None and more <= 0)
            or crashes >= CRASHES
        ):
            total.seconds = monotonic() - started
            return total
        with tempfile.TemporaryDirectory(prefix="fuzz-") as scratch:
            job = {
                "name": name,
                "seed": seed + crashes,
                "seconds": left,
                "executions": more,
                "guided": guided,
                "folder": str(folder),
            }
            outcome, end = _run_child(job, Path(scratch))
            total.executions += outcome.executions
            total.slowest = max(total.slowest, outcome.slowest)
            total.growth = max(total.growth, outcome.growth)
            total.findings += [path for path in outcome.findings if path not in total.findings]
            if end is None:
                total.seconds = monotonic() - started
                return total
            crashes += 1
            current = (
                Path(scratch, "current").read_bytes()
                if Path(scratch, "current").exists()
                else b"\0\0\0\0"
            )
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{name}-crash-{seed + crashes:x}"
            path.write_bytes(current[4 : 4 + int.from_bytes(current[:4], "little")])
            path.with_suffix(".txt").write_text(end, errors="backslashreplace")
            total.findings.append(str(path))


def _run_child(job: dict[str, object], scratch: Path) -> tuple[Outcome, str | None]:
    """Return the outcome of a child, and what went wrong with it, if anything."""
    with open(scratch / "output", "wb") as output:
        environment = {
            **os.environ,
            "PLUGWASM_CACHE": "off",
            **_engines(),
            "PYTHONFAULTHANDLER": "1",
            "TMPDIR": str(scratch),
        }
        child = subprocess.Popen(
            [sys.executable, "-m", "fuzz.watch", json.dumps(job), str(scratch)],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        why = ""
        seen, since = 0, monotonic()
        while True:
            try:
                code = child.wait(0.2)
                break
            except subprocess.TimeoutExpired:
                pass
            except BaseException:
                child.kill()
                child.wait()
                raise
            now = os.stat(scratch / "current").st_mtime_ns if (scratch / "current").exists() else 0
            if now != seen:
                seen, since = now, monotonic()
            elif monotonic() - since > HANG:
                why = f"hung: no end after {HANG:.0f} s\n"
                child.send_signal(signal.SIGABRT)  # faulthandler prints the stacks
    try:
        outcome = Outcome(**json.loads((scratch / "outcome").read_text()))
    except (OSError, ValueError):
        outcome = Outcome(str(job["name"]))
    if code == 0 and not why:
        return outcome, None
    return outcome, f"{why}the child ended with {code}\n" + (scratch / "output").read_text(
        errors="replace"
    )[-20_000:]


class _Child:
    """Runs the cases in the child process, and reports each before it runs it."""

    def __init__(self, job: dict[str, object], scratch: Path) -> None:
        self.seed, self.limit = job["seed"], job["executions"]
        self.folder = Path(str(job["folder"]))
        if job["guided"]:
            inputs.instrument(_read_covered(str(job["name"])))
        self.harness = harness(str(job["name"]))
        self.session = Session(self.harness)
        self.scratch = scratch
        self.started = monotonic()
        self.end = None if job["seconds"] is None else self.started + float(str(job["seconds"]))
        self.current = os.open(scratch / "current", os.O_RDWR | os.O_CREAT)
        self.warm: int | None = None
        self._reported = 0.0
        self.outcome = Outcome(str(job["name"]), guided=bool(job["guided"]))

    def run_case(self, data: bytes) -> None:
        if self.session.executions == self.limit or (
            self.end is not None and monotonic() >= self.end
        ):
            self._report()
            os._exit(0)
        os.pwrite(self.current, len(data).to_bytes(4, "little") + data, 0)
        known = len(self.session.findings)
        self.session.run_case(data)
        if len(self.session.findings) > known:
            self._save_finding()
        if monotonic() - self._reported > 0.5:
            self._report()

    def _save_finding(self) -> None:
        finding = list(self.session.findings.values())[-1]
        self.outcome.findings.append(str(save(finding, self.harness, self.folder)))

    def _report(self) -> None:
        self._reported = monotonic()
        if self.warm is None and self.session.executions >= WARM:
            self.warm = resident_bytes()
        if self.warm is not None:
            self.outcome.growth = max(self.outcome.growth, resident_bytes() - self.warm)
            if self.outcome.growth > GROWTH:
                raise LeakError(
                    f"{self.outcome.growth >> 20} MiB more than after {WARM} executions"
                )
        self.outcome.executions = self.session.executions
        self.outcome.slowest = self.session.slowest
        self.outcome.seconds = monotonic() - self.started
        new = self.scratch / "outcome.new"
        new.write_text(json.dumps(asdict(self.outcome)))
        new.replace(self.scratch / "outcome")


def _read_covered(name: str) -> list[str]:
    """Return `COVERED` of a harness without importing it: what it covers must not be imported
    yet."""
    import ast

    tree = ast.parse(Path(__file__).with_name(f"{name}.py").read_text())
    for node in tree.body:
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and node.targets[0].id == "COVERED"
        ):
            return list(ast.literal_eval(node.value))
    return []


def main() -> None:
    job = json.loads(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_FILE, LARGEST_FILE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    child = _Child(job, Path(sys.argv[2]))
    if job["guided"]:
        inputs.run_guided(child.harness.SEEDS, job["seed"], child.run_case)
    for data in inputs.mutate_randomly(child.harness.SEEDS, child.harness.SIZES, job["seed"]):
        child.run_case(data)


if __name__ == "__main__":
    main()
