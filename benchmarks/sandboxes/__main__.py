"""`python -m benchmarks.sandboxes`: measure, and print a table for each language.

A missed goal is reported, and is not an error.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter

from .. import __main__ as benchmarks
from .measuring import Line, measure, measure_memory
from .ways import LANGUAGES, ways_of

_PACKAGES = ("plugwasm", "wasmtime", "quickjs-ng", "mini-racer", "RestrictedPython")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sandboxes",
        description="scripts in plugwasm, and what else runs scripts from Python",
    )
    parser.add_argument(
        "--quick", action="store_true", help="a few rounds only, to see that all of it runs"
    )
    parser.add_argument("--only", choices=tuple(LANGUAGES), help="one language")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write all samples to a file"
    )
    options = parser.parse_args()
    effort = 0.04 if options.quick else 1.0
    start = perf_counter()
    tables: dict[str, list[Line]] = {}
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
        benchmarks.use_own_caches(Path(folder))
        for language in [options.only] if options.only else LANGUAGES:
            ways = [way for way in ways_of(language) if way.can_run(language)]
            if not ways or ways[0].title != "plugwasm":
                return 1
            tables[language] = [
                *measure(language, ways, effort),
                *measure_memory(language, ways, effort),
            ]
    about = {name: _version(name) for name in _PACKAGES}
    about |= {"Python": platform.python_version(), platform.system(): platform.machine()}
    print(" · ".join(f"{name} {value}" for name, value in about.items() if value))
    for language, lines in tables.items():
        print(f"\n{_render(LANGUAGES[language], lines)}")
    lines = [line for found in tables.values() for line in found if line.goal is not None]
    missed = [line.title for line in lines if not line.is_met]
    quick = ", with --quick: too short for good figures" if options.quick else ""
    print(
        f"\nMedians. {len(lines) - len(missed)} of {len(lines)} targets of plugwasm are met"
        f"{'; missed: ' + ', '.join(missed) if missed else ''}. "
        f"Took {perf_counter() - start:.0f} s{quick}."
    )
    if options.json:
        options.json.write_text(
            json.dumps(
                {
                    "about": about,
                    "rows": [
                        {
                            "language": language,
                            "row": line.title,
                            "unit": line.unit,
                            "samples": {title: f.samples for title, f in line.figures.items()},
                            "met": line.is_met,
                        }
                        for language, lines in tables.items()
                        for line in lines
                    ],
                },
                indent=1,
            )
        )
    return 0


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _render(title: str, lines: list[Line]) -> str:
    ways = list(dict.fromkeys(way for line in lines for way in line.figures))
    head = [title, *ways, "target", ""]
    rows = [
        [
            line.title,
            *(
                show(line.figures[way].median, line.unit) if way in line.figures else ""
                for way in ways
            ),
            "" if line.goal is None else f"≤ {show(line.goal.value, line.unit)}",
            "" if line.is_met is None else "ok" if line.is_met else "MISSED",
        ]
        for line in lines
    ]
    widths = [max(3, *(len(row[i]) for row in [head, *rows])) for i in range(len(head))]
    rule = [f"{'-' * (widths[0] + 2)}", *(f"{'-' * (width + 1)}:" for width in widths[1:])]
    text = [_row(head, widths), f"|{'|'.join(rule)}|", *(_row(row, widths) for row in rows)]
    return "\n".join(text)


def _row(cells: list[str], widths: list[int]) -> str:
    padded = [cells[0].ljust(widths[0])]
    padded += [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
    return f"| {' | '.join(padded)} |"


def show(value: float, unit: str) -> str:
    """Return a time or a size as text."""
    if unit == "B":
        if value >= 1e9:
            return f"{value / 1e9:.2g} GB"
        return f"{value / 1e6:.3g} MB" if value >= 1e6 else f"{value / 1e3:.0f} KB"
    for scale, name in ((1, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if value >= scale:
            return f"{value / scale:.3g} {name}"
    return f"{value * 1e9:.0f} ns"


if __name__ == "__main__":
    sys.exit(main())
