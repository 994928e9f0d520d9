"""What guests make the host hold: memory, objects, mappings and descriptors (`python -m
benchmarks.memory`).

Each row is measured in a process of its own, which repeats something and measures itself: the size
of a live instance, and what is left after many calls, instances, traps, timeouts, exceptions and
exits. What is left should not grow: compare the columns.

    --quick     a hundredth of the rounds
    --only TEXT rows whose title contains this
    --row TITLE (used internally) measures one row in this process
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import plugwasm
from plugwasm import CompiledPlugin, Function, Plugin, ValType

if TYPE_CHECKING:
    from collections.abc import Callable

_SMALL = """(module
  (import "extism:host/env" "input_offset" (func $offset (result i64)))
  (import "extism:host/env" "input_length" (func $length (result i64)))
  (import "extism:host/env" "output_set" (func $output_set (param i64 i64)))
  {imports}
  (memory (export "memory") 1)
  (func (export "echo") (call $output_set (call $offset) (call $length)))
  (func (export "trap") unreachable)
  (func (export "spin") (loop $l (br $l)))
  {functions})"""
_BACK = (
    '(import "extism:host/user" "back" (func $back (param i64) (result i64)))',
    '(func (export "back") (drop (call $back (call $offset))))',
)
_WASI = (
    """(import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))""",
    """(func (export "exit") (call $exit (i32.const 7)))
    (func (export "random") (drop (call $random (i32.const 0) (i32.const 64))))""",
)
_COMMAND = """(module (memory (export "memory") 1) (func (export "_start"))
  (func (export "next") (param i64) (result i64) (i64.add (local.get 0) (i64.const 1))))"""
_USES_COMMAND = (
    '(import "lib" "next" (func $next (param i64) (result i64)))',
    '(func (export "command") (drop (call $next (i64.const 1))))',
)


def small(imports: str = "", functions: str = "") -> bytes:
    return _SMALL.format(imports=imports, functions=functions).encode()


def _back(current: plugwasm.CurrentPlugin, inputs: list[Any], outputs: list[Any]) -> None:
    outputs[0].value = inputs[0].value
    if current.host_context() == "raise":
        raise ValueError("no")


def with_host_functions() -> CompiledPlugin:
    return CompiledPlugin(
        small(*_BACK), functions=[Function(None, "back", [ValType.I64], [ValType.I64], _back)]
    )


def with_wasi() -> CompiledPlugin:
    return CompiledPlugin(small(*_WASI), wasi=True, functions=[])


def plain() -> CompiledPlugin:
    return CompiledPlugin(small(), functions=[])


def without_pool() -> CompiledPlugin:
    return CompiledPlugin(
        # An engine that counts fuel has no pool.
        small(),
        functions=[],
        fuel_limit=2**62,
    )


def with_deadline() -> CompiledPlugin:
    return CompiledPlugin({"wasm": [{"data": small()}], "timeout_ms": 1}, functions=[])


def with_command() -> CompiledPlugin:
    return CompiledPlugin(
        {
            "wasm": [
                {"name": "lib", "data": _COMMAND.encode()},
                {"name": "main", "data": small(*_USES_COMMAND)},
            ]
        },
        functions=[],
    )


def with_start() -> CompiledPlugin:
    return CompiledPlugin(small(functions='(func (export "_start"))'), functions=[])


@dataclass(frozen=True)
class Level:
    """What this process holds."""

    resident: int
    objects: int
    mappings: int
    descriptors: int

    @classmethod
    def now(cls) -> Level:
        gc.collect()
        with open("/proc/self/statm", "rb") as file:
            resident = int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")
        with open("/proc/self/maps", "rb") as file:
            mappings = sum(1 for _ in file)
        return cls(resident, sys.getallocatedblocks(), mappings, len(os.listdir("/proc/self/fd")))

    def since(self, before: Level) -> Level:
        return Level(
            self.resident - before.resident,
            self.objects - before.objects,
            self.mappings - before.mappings,
            self.descriptors - before.descriptors,
        )


@dataclass(frozen=True)
class Row:
    """Something that is repeated: `prepare` returns a function that does it once.

    Levels are taken after `rounds`.
    """

    title: str
    prepare: Callable[[], Callable[[], object]]
    rounds: tuple[int, ...]


def calls(
    make: Callable[[], CompiledPlugin], function: str = "echo", context: str | None = None
) -> Callable[[], Callable[[], object]]:
    """One plugin that is called repeatedly; its exceptions are handled."""

    def prepare() -> Callable[[], object]:
        plugin = Plugin(make())

        def once() -> None:
            try:
                plugin.call(function, b"0123456789", host_context=context)
            except plugwasm.CallError:
                pass

        return once

    return prepare


def instances(
    make: Callable[[], CompiledPlugin], function: str = "echo"
) -> Callable[[], Callable[[], object]]:
    """An instance that is made, called once and closed."""

    def prepare() -> Callable[[], object]:
        compiled = make()

        def once() -> None:
            with Plugin(compiled) as plugin:
                plugin.call(function, b"0123456789")

        return once

    return prepare


def in_two_threads(
    prepare: Callable[[], Callable[[], object]],
) -> Callable[[], Callable[[], object]]:
    """The same in two threads, half of it in each."""

    def prepare_two() -> Callable[[], object]:
        first, second = prepare(), prepare()

        def hundred() -> None:
            other = threading.Thread(target=lambda: [second() for _ in range(50)])
            other.start()
            for _ in range(50):
                first()
            other.join()

        return hundred

    return prepare_two


_MANY, _LESS = (1_000, 10_000, 100_000), (1_000, 5_000, 10_000)
ROWS = [
    Row("calls", calls(plain), _MANY),
    Row("calls, WASI", calls(with_wasi, "random"), _MANY),
    Row("calls, a host function", calls(with_host_functions, "back"), _MANY),
    Row("calls, no pool", calls(without_pool), _MANY),
    Row("calls of a linked command", calls(with_command, "command"), _LESS),
    Row("calls of `_start`", calls(with_start, "_start"), _LESS),
    Row("instances", instances(plain), _LESS),
    Row("instances, WASI", instances(with_wasi, "random"), _LESS),
    Row("instances, a host function", instances(with_host_functions, "back"), _LESS),
    Row("instances, no pool", instances(without_pool), _LESS),
    Row("instances in two threads, hundreds", in_two_threads(instances(plain)), (10, 50, 100)),
    Row("traps", calls(plain, "trap"), _LESS),
    Row("timeouts", calls(with_deadline, "spin"), (100, 5_000, 10_000)),
    Row("host function exceptions", calls(with_host_functions, "back", "raise"), _LESS),
    Row("exits", calls(with_wasi, "exit"), _LESS),
]
LIVE: dict[str, tuple[Callable[[], CompiledPlugin], str, int]] = {
    "300 from the pool": (plain, "echo", 300),
    "2,000 without a pool": (without_pool, "echo", 2_000),
    "2,000 with WASI, 340 of them from the pool": (with_wasi, "random", 2_000),
    "2,000 with a host function, 340 of them from the pool": (with_host_functions, "back", 2_000),
    "10,000, 340 of them from the pool": (plain, "echo", 10_000),
}
WARM = 200
"""Rounds before the first level: caches are filled, threads started, the pool is made."""


def measure_row(row: Row, effort: float) -> list[Level]:
    """Return the level after each number of rounds, compared with that after the warm-up."""
    once = row.prepare()
    for _ in range(max(1, min(WARM, row.rounds[0]))):
        once()
    before, levels, done = Level.now(), [], 0
    for rounds in row.rounds:
        for _ in range(done, max(1, int(rounds * effort))):
            once()
        done = max(1, int(rounds * effort))
        levels.append(Level.now().since(before))
    return levels


def measure_live(title: str, effort: float) -> list[Level]:
    """Return what each of many live instances takes, what is left when all are closed, and what is
    left in addition after a second time."""
    make, function, count = LIVE[title]
    count = max(10, int(count * effort))
    compiled = make()

    def start(number: int) -> list[Plugin]:
        plugins = [Plugin(compiled) for _ in range(number)]
        for plugin in plugins:
            plugin.call(function, b"0123456789")
        return plugins

    first = start(6)
    before = Level.now()
    plugins = start(count)
    grown = Level.now().since(before)
    left = []
    for again in (False, True):
        if again:
            plugins = start(count)
        for plugin in plugins:
            plugin.close()
        plugins.clear()
        left.append(Level.now())
    assert len(first) == 6
    each = Level(
        grown.resident // count,
        grown.objects // count,
        grown.mappings * 100 // count,
        grown.descriptors,
    )
    return [each, left[0].since(before), left[1].since(left[0])]


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.memory", description="what guests make the host hold"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="a hundredth of the rounds, only to see that all of it runs",
    )
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="only the rows whose title contains this"
    )
    parser.add_argument("--row", metavar="TITLE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    effort = 0.01 if options.quick else 1.0
    if options.row:
        found = next((row for row in ROWS if row.title == options.row), None)
        levels = measure_row(found, effort) if found else measure_live(options.row, effort)
        print(json.dumps([vars(level) for level in levels]))
        return 0
    print(
        "| live instances | memory of each | Python objects | mappings | descriptors of all "
        "| left when closed | more after a second time |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|")
    for title in LIVE:
        if options.only in title:
            each, left, more = _in_process(title, options.quick)
            print(
                f"| {title} | {each.resident / 1000:.1f} KB | {each.objects} "
                f"| {each.mappings / 100:.1f} | {each.descriptors} "
                f"| {left.resident / 1000:.0f} KB, {left.mappings} mappings, "
                f"{left.descriptors} descriptors "
                f"| {more.resident / 1000:+.0f} KB, {more.mappings:+d} mappings, "
                f"{more.objects:+d} objects |",
                flush=True,
            )
    print(
        "\n| more than after the warm-up | rounds | memory | Python objects | mappings "
        "| descriptors |"
    )
    print("|---|---|---|---|---|---|")
    for row in ROWS:
        if options.only in row.title:
            levels = _in_process(row.title, options.quick)
            cells = [
                " · ".join(f"{max(1, int(rounds * effort)):,}" for rounds in row.rounds),
                " · ".join(f"{level.resident / 1000:+.0f}" for level in levels) + " KB",
                *(
                    " · ".join(f"{getattr(level, what):+d}" for level in levels)
                    for what in ("objects", "mappings", "descriptors")
                ),
            ]
            print(f"| {row.title} | {' | '.join(cells)} |", flush=True)
    return 0


def _in_process(title: str, quick: bool) -> list[Level]:
    command = [
        sys.executable,
        "-m",
        "benchmarks.memory",
        "--row",
        title,
        *(["--quick"] if quick else []),
    ]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return [Level(**level) for level in json.loads(done.stdout)]


if __name__ == "__main__":
    sys.exit(main())
