"""`python -m fuzz`: run harnesses, and print what they ran and found. Exits with 1 on a finding."""

from __future__ import annotations

import argparse
import secrets
import sys
from pathlib import Path

from . import FINDINGS, NAMES, harness, inputs
from .session import Session, describe_input
from .watch import Outcome, watch


def main() -> int:
    options = _options()
    if options.input is not None:
        return run_again(options.harness, options.input.read_bytes())
    seed = secrets.randbits(31) if options.seed is None else options.seed
    names = NAMES if options.harness is None else (options.harness,)
    print(f"seed {seed}, {options.seconds:g} s each", flush=True)
    outcomes = []
    for name in names:
        guided = not options.unguided and inputs.can_guide() and bool(harness(name).COVERED)
        outcome = watch(
            name,
            seed=seed,
            seconds=options.seconds,
            executions=options.executions,
            guided=guided,
            folder=options.findings,
        )
        outcomes.append(outcome)
        print(format_outcome(outcome), flush=True)
        for path in outcome.findings:
            print(f"    python -m fuzz {name} {path}", flush=True)
    found = sum(len(outcome.findings) for outcome in outcomes)
    executions = sum(outcome.executions for outcome in outcomes)
    print(f"{executions:,} executions, {found or 'no'} finding{'' if found == 1 else 's'}")
    return 1 if found else 0


def format_outcome(outcome: Outcome) -> str:
    return (
        f"{outcome.name:10} {outcome.executions:>9,} executions in {outcome.seconds:.0f} s"
        f"{', guided' if outcome.guided else ''}; slowest {outcome.slowest:.2f} s; "
        f"{outcome.growth / 2**20:+.0f} MiB; {len(outcome.findings) or 'no'} findings"
    )


def run_again(name: str, data: bytes) -> int:
    """Run one input, and print what it is and what it does."""
    subject = harness(name)
    print(describe_input(subject, data).encode(errors="backslashreplace").decode())
    found = Session(subject).run_case(data)
    print(found.report if found else f"\nholds: {(subject.__doc__ or '').splitlines()[0]}")
    return 1 if found else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m fuzz", description="inputs that nobody would send, until something gives"
    )
    parser.add_argument(
        "harness", nargs="?", choices=NAMES, help="one harness; all when it is left out"
    )
    parser.add_argument("input", nargs="?", type=Path, help="a finding: run it again")
    parser.add_argument("--seconds", type=float, default=10.0, help="for each harness (10)")
    parser.add_argument("--executions", type=int, help="stop after so many, too")
    parser.add_argument("--seed", type=int, help="what chance begins with; a new one when left out")
    parser.add_argument(
        "--unguided", action="store_true", help="by chance only, although atheris is installed"
    )
    parser.add_argument("--findings", type=Path, default=FINDINGS, help="where findings are kept")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
