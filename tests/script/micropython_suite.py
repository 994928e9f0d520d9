"""MicroPython's own tests of the language, run as scripts.

    python -m tests.script.micropython_suite [--collect] [FOLDER ...]

Each test prints something; right is what CPython prints for it, or what its file `.exp` says. With
`--collect`, the garbage collector runs at every allocation.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from plugwasm import CallError, Limits, Plugin, script
from plugwasm._script.python.recipe import download

FOLDERS = ("basics", "float", "unicode", "extmod", "stress")
PASSED, SKIPPED = "passed", "skipped"

_RUNNER = """
import builtins, gc, io, sys
_print = builtins.print
def run(source: str) -> str:
    printed = io.StringIO()
    def print(*values, sep=" ", end="\\n", file=None):
        _print(*values, sep=sep, end=end, file=file or printed)
    builtins.print = print
    gc.threshold(THRESHOLD)
    try:
        exec(source, {"__name__": "__main__"})
    except SystemExit:
        pass
    except BaseException as error:
        printed.write("\\nuncaught ")
        sys.print_exception(error, printed)
    return printed.getvalue()
"""


def unpack(into: Path) -> None:
    """Write MicroPython's tests to a directory."""
    with tarfile.open(fileobj=io.BytesIO(download()), mode="r:xz") as files:
        for member in files:
            parts = member.name.split("/")
            if member.isfile() and parts[1] == "tests" and ".." not in parts:
                content = files.extractfile(member)
                assert content is not None
                target = into.joinpath(*parts[2:])
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content.read())


def run(tests: Path, folders: tuple[str, ...], *, collect: bool = False) -> dict[str, str]:
    """Run tests, and return how each ended: passed, skipped, or how it failed."""
    runner = _RUNNER.replace("THRESHOLD", "1" if collect else "-1")
    compiled = script("python", runner, limits=Limits(timeout=60, memory_bytes=64 * 2**20))
    files = [file for folder in folders for file in sorted((tests / folder).glob("*.py"))]
    with ThreadPoolExecutor(2) as pool:
        expected = list(pool.map(_expect, files))
    found = {}
    for file, right in zip(files, expected, strict=True):
        with Plugin(compiled) as plugin:
            try:
                printed = bytes(plugin.call("run", file.read_bytes()))
            except CallError as error:
                result = f"failed: {error.message[:200]}"
            else:
                result = _compare(printed, right)
        found[f"{file.parent.name}/{file.stem}"] = result
    return found


def _compare(printed: bytes, right: bytes) -> str:
    if printed.strip().splitlines()[-1:] == [b"SKIP"]:
        return SKIPPED
    return PASSED if printed == right else f"failed: printed {printed[-80:]!r}"


def _expect(file: Path) -> bytes:
    written = file.with_name(file.name + ".exp")
    if written.exists():
        return written.read_bytes()
    command = [sys.executable, file.name]
    return subprocess.run(command, cwd=file.parent, capture_output=True, check=False).stdout


def main(arguments: list[str]) -> None:
    """Run the tests of the folders that are named, or of all."""
    collect = "--collect" in arguments
    folders = tuple(one for one in arguments if not one.startswith("-")) or FOLDERS
    with tempfile.TemporaryDirectory() as scratch:
        unpack(Path(scratch))
        found = run(Path(scratch), folders, collect=collect)
    for name, result in found.items():
        if result not in {PASSED, SKIPPED}:
            print(f"{name}: {result}")
    print(dict(Counter(result.partition(":")[0] for result in found.values())))


if __name__ == "__main__":
    main(sys.argv[1:])
