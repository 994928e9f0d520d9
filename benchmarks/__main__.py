"""`python -m benchmarks`: measure, and print the table.

A missed goal is reported, and is not an error.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from conformance.kept import NotBuiltError
from plugwasm import SourceError, __version__
from plugwasm._script import engine_store

from . import cases, processes, published, scripts
from .against import RevisionError, Revisions, find_commit
from .built import REAL, Real
from .cases import start_peer
from .machine import describe_machine
from .measure import OURS, PEER, Block, Result, WrongResultError, measure
from .table import Section, render, summary

if TYPE_CHECKING:
    from collections.abc import Callable

PACKAGES = ("wasmtime", "extism", "extism-sys")


def main() -> int:
    options = _options()
    try:
        about = _about(("wasmtime",) if options.against else PACKAGES)
    except PackageNotFoundError as missing:
        print(
            f"the package `{missing.name}` is not installed: "
            "run `make bench`, or pip install -e '.[bench]'",
            file=sys.stderr,
        )
        return 2
    try:
        if options.against:
            find_commit(options.against)
    except RevisionError as error:
        print(error, file=sys.stderr)
        return 2
    if options.publish and (options.quick or options.only or options.against):
        print("--publish is for a whole run, without other options", file=sys.stderr)
        return 2
    real = built()
    start = perf_counter()
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
        use_own_caches(Path(folder))
        effort = 0.05 if options.quick else 1.0
        blocks = _selected(
            [
                *processes.blocks(Path(folder), effort, real),
                *cases.blocks(effort, real),
                *([] if options.against else scripts.blocks()),
            ],
            options.only,
        )
        if not blocks:
            print(f"no row's title contains {options.only!r}", file=sys.stderr)
            return 2
        sections: list[Section] = []
        if not options.against:
            start_peer()
        titles = scripts.TITLES.values()
        if any(block.title in titles for block in blocks) and not scripts.can_run():
            blocks = [block for block in blocks if block.title not in titles]
        sides = (OURS, PEER)
        run: Callable[[Block, float], list[Result]] = measure
        try:
            if options.publish:
                published.check_rows(blocks)
            if options.against:
                revisions = Revisions(Path(folder), options.against, real)
                sides, run = revisions.names, revisions.measure
            for block in blocks:
                print(f"measuring: {block.title} …", file=sys.stderr, flush=True)
                title = block.title.partition(" (extism")[0] if options.against else block.title
                if results := run(block, effort):
                    sections.append((title, results))
        except (WrongResultError, RevisionError, published.MissingRowError) as error:
            print(error, file=sys.stderr)
            return 1
    print(" · ".join(f"{name} {value}" for name, value in about.items()))
    print()
    print(render(sections, sides))
    print()
    print(
        "Medians of rounds in which both sides take turns; ± is the distance of the quartiles. "
        f"Ratio: the time of {sides[1]} by that of {sides[0]}."
    )
    quick = ", with --quick: too short for good figures" if options.quick else ""
    outcome = "" if options.against else f"{summary(sections)}. "
    print(f"{outcome}Took {perf_counter() - start:.0f} s{quick}.")
    rows = [row for section in sections for row in _rows(section, sides)]
    about |= describe_machine()
    if options.publish:
        published.write(about, rows)
    if options.json:
        options.json.write_text(json.dumps({"about": about, "rows": rows}, indent=1))
    return 0


def built() -> list[Real]:
    """Return the plugins of `built` that this machine can build; say which it cannot."""
    found = []
    for plugin in REAL:
        try:
            plugin.path()
        except NotBuiltError as error:
            print(f"left out: the rows of the plugin in {plugin.name}: {error}", file=sys.stderr)
        else:
            found.append(plugin)
    return found


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="plugwasm against the official extism package"
    )
    parser.add_argument(
        "--quick", action="store_true", help="a few rounds only, to see that all of it runs"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write all samples to a file"
    )
    parser.add_argument(
        "--only",
        default="",
        metavar="TEXT",
        help="only the rows, or groups of rows, whose title contains this",
    )
    parser.add_argument(
        "--against",
        default="",
        metavar="REVISION",
        help="compare this working tree with another revision of plugwasm, not with extism",
    )
    parser.add_argument(
        "--publish",
        action="store_true",
        help="also write figures.json, and show the figures in README.md and benchmarks/README.md",
    )
    return parser.parse_args()


def describe_versions(packages: tuple[str, ...] = PACKAGES) -> dict[str, str]:
    """Return the versions of plugwasm and of other packages."""
    return {"plugwasm": __version__} | {name: version(name) for name in packages}


def _about(packages: tuple[str, ...]) -> dict[str, str]:
    about = describe_versions(packages)
    about |= {
        "Python": platform.python_version(),
        platform.system(): platform.machine(),
        "processors": str(os.cpu_count()),
    }
    return about | (
        {"load before": f"{os.getloadavg()[0]:.1f}"} if hasattr(os, "getloadavg") else {}
    )


def use_own_caches(folder: Path) -> None:
    """Give both sides an empty cache for this run, with default settings, and Python one for
    bytecode."""
    # Engines of scripts take minutes to build, and are no part of any row.
    with suppress(SourceError):
        os.environ.setdefault("PLUGWASM_ENGINES", str(engine_store.engine_folder()))
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = str(folder / "bytecode")
    os.environ.pop("EXTISM_CACHE_CONFIG", None)
    os.environ["PLUGWASM_CACHE"] = str(folder / "plugwasm-cache")
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    os.environ["XDG_CONFIG_HOME"] = str(folder / "config")


def _selected(blocks: list[Block], text: str) -> list[Block]:
    wanted = text.lower()
    found = [
        block
        if wanted in block.title.lower()
        else replace(block, rows=[row for row in block.rows if wanted in row.title.lower()])
        for block in blocks
    ]
    return [block for block in found if block.rows]


def _rows(section: Section, sides: tuple[str, str]) -> list[dict[str, object]]:
    title, results = section
    ours, peer = sides
    return [
        {
            "group": title,
            "row": result.title,
            "unit": result.unit,
            ours: result.ours.median,
            peer: result.peer.median,
            "ratio": result.ratio and result.ratio.median,
            "spread": result.ratio and result.ratio.spread,
            "target": None if result.goal is None else result.goal.value,
            "met": result.is_met,
            "samples": {ours: result.ours.samples, peer: result.peer.samples},
        }
        for result in results
    ]


if __name__ == "__main__":
    sys.exit(main())
