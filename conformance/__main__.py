"""`python -m conformance`: build the plugins, run the table on each host, print a matrix."""

from __future__ import annotations

import argparse
import sys

from .hosts import HOSTS
from .implementations import find_implementations
from .kept import NotBuiltError
from .page import FIGURES, PAGE, write
from .results import Outcome, PluginResults, run_all
from .server import serve


def main() -> int:
    options = _options()
    found: list[PluginResults] = []
    missing = failed = 0
    with serve() as server:
        for implementation in find_implementations():
            if options.only and implementation.name not in options.only:
                continue
            try:
                path = implementation.build.path()
            except NotBuiltError as error:
                print(f"{implementation.name}: not built: {error}", file=sys.stderr)
                missing += 1
                continue
            wasm = path.read_bytes()
            outcomes = {host.name: run_all(wasm, implementation, host, server) for host in HOSTS}
            found.append(PluginResults.of(implementation, len(wasm), outcomes))
            failed += _print_failures(implementation.name, outcomes)
    _print_matrix(found)
    if options.write:
        if missing or options.only:
            print("nothing is written: a page shows all implementations", file=sys.stderr)
            return 1
        write(found)
        print(f"wrote {PAGE.name} and {FIGURES.name}")
    return 1 if failed or (missing and options.strict) else 0


def _print_failures(name: str, outcomes: dict[str, Outcome]) -> int:
    for host, outcome in outcomes.items():
        for case, problem in outcome.failed.items():
            print(f"{name} on {host}: {case}: {problem}", file=sys.stderr)
    return sum(len(outcome.failed) for outcome in outcomes.values())


def _print_matrix(found: list[PluginResults]) -> None:
    hosts = [host.name for host in HOSTS]
    rows = [("plugin", "language", "kit", *(f"on {host}" for host in hosts), "bytes")]
    for plugin in found:
        cells = [_cell(plugin.hosts[host]) for host in hosts]
        rows.append((plugin.name, plugin.language, plugin.kit, *cells, f"{plugin.bytes:,}"))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in [rows[0], tuple("-" * width for width in widths), *rows[1:]]:
        print("| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |")


def _cell(outcome: Outcome) -> str:
    return f"{len(outcome.passed)} of {len(outcome.passed) + len(outcome.failed)}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m conformance", description="plugins of every kit on every host"
    )
    parser.add_argument("only", nargs="*", metavar="NAME", help="only these implementations")
    parser.add_argument(
        "--strict", action="store_true", help="fail if an implementation cannot be built"
    )
    parser.add_argument(
        "--write", action="store_true", help="write docs/reference/conformance.md from this run"
    )
    options = parser.parse_args()
    known = {implementation.name for implementation in find_implementations()}
    if unknown := set(options.only) - known:
        parser.error(
            f"no implementation is named {', '.join(sorted(unknown))}: {', '.join(sorted(known))}"
        )
    return options


if __name__ == "__main__":
    sys.exit(main())
