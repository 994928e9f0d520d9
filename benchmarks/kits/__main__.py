"""Measure the kits, and write docs/reference/kits.md."""

from __future__ import annotations

import argparse
import sys

from conformance.kept import NotBuiltError

from ..machine import describe_machine
from .measuring import measure
from .page import PAGE, Figures, write
from .programs import find_kits


def main() -> int:
    argparse.ArgumentParser(prog="python -m benchmarks.kits", description=__doc__).parse_args()
    try:
        figures = measure(find_kits())
    except NotBuiltError as error:
        print(f"The page shows all kits, and one cannot be built: {error}", file=sys.stderr)
        return 1
    write(Figures(describe_machine(), figures))
    print(PAGE.read_text("utf-8"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
