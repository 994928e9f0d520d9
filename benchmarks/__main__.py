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
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter

from plugwasm import __version__

from . import cases, processes
from .built import REAL, NotBuiltError, Real
from .measure import Block, WrongResultError, measure
from .table import Section, render, summary


def main() -> int:
    options = _options()
    try:
        about = _about()
    except PackageNotFoundError as missing:
        print(
            f"the package `{missing.name}` is not installed: "
            "run `make bench`, or pip install -e '.[bench]'",
            file=sys.stderr,
        )
        return 2
    real = _built()
    start = perf_counter()
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
        _own_caches(Path(folder))
        effort = 0.05 if options.quick else 1.0
        blocks = _selected(
            [*processes.blocks(Path(folder), effort, real), *cases.blocks(effort, real)],
            options.only,
        )
        if not blocks:
            print(f"no row's title contains {options.only!r}", file=sys.stderr)
            return 2
        sections: list[Section] = []
        for block in blocks:
            print(f"measuring: {block.title} …", file=sys.stderr, flush=True)
            try:
                sections.append((block.title, measure(block, effort)))
            except WrongResultError as error:
                print(f"{block.title}: {error}", file=sys.stderr)
                return 1
    print(" · ".join(f"{name} {value}" for name, value in about.items()))
    print()
    print(render(sections))
    print()
    print(
        "Medians of rounds in which both sides take turns; ± is the distance of the quartiles. "
        "Ratio: extism's time by plugwasm's."
    )
    quick = ", with --quick: too short for good figures" if options.quick else ""
    print(f"{summary(sections)}. Took {perf_counter() - start:.0f} s{quick}.")
    if options.json:
        options.json.write_text(
            json.dumps(
                {"about": about, "rows": [row for section in sections for row in _rows(section)]},
                indent=1,
            )
        )
    return 0


def _built() -> list[Real]:
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
    return parser.parse_args()


def _about() -> dict[str, str]:
    about = {"plugwasm": __version__} | {
        name: version(name) for name in ("wasmtime", "extism", "extism-sys")
    }
    about |= {
        "Python": platform.python_version(),
        platform.system(): platform.machine(),
        "processors": str(os.cpu_count()),
    }
    return about | (
        {"load before": f"{os.getloadavg()[0]:.1f}"} if hasattr(os, "getloadavg") else {}
    )


def _own_caches(folder: Path) -> None:
    """Give both sides an empty cache for this run, with default settings, and Python one for
    bytecode."""
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


def _rows(section: Section) -> list[dict[str, object]]:
    title, results = section
    return [
        {
            "group": title,
            "row": result.title,
            "unit": result.unit,
            "plugwasm": result.ours.median,
            "extism": result.peer.median,
            "ratio": result.ratio and result.ratio.median,
            "target": None if result.goal is None else result.goal.value,
            "met": result.is_met,
            "samples": {"plugwasm": result.ours.samples, "extism": result.peer.samples},
        }
        for result in results
    ]


if __name__ == "__main__":
    sys.exit(main())
