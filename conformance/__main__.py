"""`python -m conformance`: build the plugins, run the table on each host, print a matrix."""

from __future__ import annotations

import argparse
import sys
from collections import Counter

from .hosts import HOSTS, Host, WrongResultError
from .implementations import Implementation, NotBuiltError, find_implementations
from .server import serve
from .table import Case, read_cases


def left_out(case: Case, implementation: Implementation, host: Host) -> str | None:
    """Return why the case cannot be run, or None."""
    for need in sorted(case.needs):
        if need not in implementation.supports:
            return f"the implementation has no {need}"
        if need in host.lacks:
            return f"the host has no {need}"
    if case.vars and "vars" in host.lacks:
        return "the host takes no vars"
    return None


def main() -> int:
    options = _options()
    failed = 0
    rows: list[tuple[str, ...]] = []
    with serve() as server:
        for implementation in find_implementations():
            if options.only and implementation.name not in options.only:
                continue
            row = [implementation.name, implementation.language, implementation.kit]
            try:
                path = implementation.path()
            except NotBuiltError as error:
                print(f"{implementation.name}: not built: {error}", file=sys.stderr)
                failed += options.strict
                rows.append((*row, *("not built" for _ in HOSTS), ""))
                continue
            wasm = path.read_bytes()
            for host in HOSTS:
                counts, problems = run_all(wasm, implementation, host, server)
                for problem in problems:
                    print(f"{implementation.name} on {host.name}: {problem}", file=sys.stderr)
                failed += len(problems)
                row.append(f"{counts['passed']} of {counts['passed'] + counts['failed']}")
            rows.append((*row, f"{len(wasm):,}"))
    _print_matrix(rows)
    return 1 if failed else 0


def run_all(
    wasm: bytes, implementation: Implementation, host: Host, server: str
) -> tuple[Counter[str], list[str]]:
    """Run all cases; return how many passed, failed and were left out, and what failed."""
    counts: Counter[str] = Counter(passed=0, failed=0, left_out=0)
    problems = []
    for case in read_cases():
        if left_out(case, implementation, host):
            counts["left_out"] += 1
            continue
        try:
            host.run(wasm, implementation.wasi, case, server)
        except WrongResultError as error:
            counts["failed"] += 1
            problems.append(f"{case.name}: {error}")
        except Exception as error:  # the host does not even make the plugin
            counts["failed"] += 1
            problems.append(f"{case.name}: {type(error).__name__}: {error}")
        else:
            counts["passed"] += 1
    return counts, problems


def _print_matrix(rows: list[tuple[str, ...]]) -> None:
    head = ("plugin", "language", "kit", *(f"on {host.name}" for host in HOSTS), "bytes")
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    for row in [head, tuple("-" * width for width in widths), *rows]:
        print("| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m conformance", description="plugins of every kit on every host"
    )
    parser.add_argument("only", nargs="*", metavar="NAME", help="only these implementations")
    parser.add_argument(
        "--strict", action="store_true", help="fail if an implementation cannot be built"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
