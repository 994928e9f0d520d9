"""Build plugin.wasm from plugin.ts: install what package-lock.json pins into a temporary folder
with npm, and compile there.

    python tests/plugins/as/build.py [--to FILE]

Needs Node 20 or later. The tests use the committed plugin.wasm and need neither.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
FLAGS = ("--optimize", "--use", "abort=plugin/myAbort")


def build(target: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="plugwasm-as-") as scratch:
        for name in ("package.json", "package-lock.json", "plugin.ts"):
            shutil.copy(HERE / name, scratch)
        subprocess.run(
            ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"],
            cwd=scratch,
            check=True,
        )
        subprocess.run(
            ["npx", "--no", "asc", "plugin.ts", *FLAGS, "--outFile", "plugin.wasm"],
            cwd=scratch,
            check=True,
        )
        target.write_bytes(Path(scratch, "plugin.wasm").read_bytes())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Build plugin.wasm with AssemblyScript.")
    parser.add_argument(
        "--to",
        type=Path,
        default=HERE / "plugin.wasm",
        metavar="FILE",
        help="default: beside its source",
    )
    build(parser.parse_args().to.resolve())
