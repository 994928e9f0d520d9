"""`python -m benchmarks.growth`: measure all that docs/performance.md shows, and write the page.

Takes some minutes. The figures of a run belong together: one machine, one state of the code.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from time import perf_counter

from ..__main__ import built, describe_versions, use_own_caches
from ..cases import start_peer
from ..machine import describe_machine
from . import page
from .measuring import Run


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.growth",
        description="measure what docs/performance.md shows, and write it",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="a few rounds only, to see that all of it runs; needs --output",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=page.DOCS,
        metavar="FOLDER",
        help="write to this folder instead of docs",
    )
    options = parser.parse_args()
    if options.quick and options.output.resolve() == page.DOCS:
        parser.error("--quick is too short for the page in docs: name another folder (--output)")
    real = built()
    start = perf_counter()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
        use_own_caches(Path(folder))
        start_peer()
        measured = Run(Path(folder), 0.05 if options.quick else 1.0, real).measure()
    about = describe_machine() | {
        "versions": describe_versions(),
        "load": round(load, 1),
        "seconds": round(perf_counter() - start),
    }
    figures = page.rounded({"about": about} | measured)
    options.output.joinpath("performance").mkdir(parents=True, exist_ok=True)
    target = options.output / page.FIGURES
    target.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n", "utf-8")
    for name, text in page.pages(figures).items():
        options.output.joinpath(name).write_text(text, "utf-8")
    print(f"wrote {options.output / page.PAGE}; took {about['seconds']} s", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
