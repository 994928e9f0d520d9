"""An engine built from its sources, once, and kept.

Sources come with a pinned digest, and are compiled by the package `ziglang`. The result is
kept (`engine_store`). Processes that need it at the same time wait for one that builds it.

Decisions: docs/decisions.md, 58.
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

from ..errors import SourceError, truncate
from . import pins, progress
from .engine_store import (
    VARIABLE,
    engine_folder,
    find_engine,
    keep_engine,
    locked,
    make_folder,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Mapping

    from .languages import Language

_HERE = Path(__file__).parent
ZIG_CC = (sys.executable, "-m", "ziglang", "cc")
ZIG_CXX = (sys.executable, "-m", "ziglang", "c++")
"""The compilers."""


def digest_of_sources(language: Language) -> str:
    """Return a digest of everything that an engine is made of."""
    digest = hashlib.sha256()
    for part in (
        *language.sources(),
        language.kit(),
        (_HERE / "boot.py").read_bytes(),
        (_HERE / "snapshots.py").read_bytes(),
        *_read_headers().values(),
    ):
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()[:24]


def find_or_build(language: Language, make: Callable[[bytes], bytes]) -> bytes:
    """Return the engine of a language that is kept, or build it.

    Args:
        language: The language.
        make: Makes the engine of what was compiled.

    Raises:
        SourceError: It cannot be built.
    """
    folder, sources = engine_folder(), digest_of_sources(language)
    try:
        found = find_engine(folder, language.name, sources)
        if found is not None:
            return found[1]
        make_folder(folder)
        with locked(folder, language.name):
            found = find_engine(folder, language.name, sources)
            if found is not None:
                return found[1]
            built = _build(folder, language, make)
            keep_engine(folder, language.name, sources, built)
            return built
    except OSError as error:
        raise SourceError(
            f"the interpreter of {language.title} cannot be kept in {truncate(str(folder))}: "
            f"{truncate(error.strerror or str(error))}; name another folder in {VARIABLE}"
        ) from error


def is_kept(language: Language) -> bool:
    """Return whether the engine of a language was built before, and is kept."""
    try:
        return find_kept(language) is not None
    except (SourceError, OSError):
        return False


def find_kept(language: Language) -> Path | None:
    """Return the file of the engine of a language, if it was built before, and is kept.

    Raises:
        SourceError, OSError: The folder cannot be used.
    """
    found = find_engine(engine_folder(), language.name, digest_of_sources(language))
    return None if found is None else found[0]


def _build(folder: Path, language: Language, make: Callable[[bytes], bytes]) -> bytes:
    what = f"building the interpreter of {language.title} (once, about a minute)"
    with progress.task(what):
        try:
            compiled = _compile(folder, language)
        except SourceError as error:
            raise SourceError(f"{error.message}{_where_else(folder)}") from error.__cause__
        progress.show("starting it")
        return make(compiled)


def _where_else(folder: Path) -> str:
    """Return the end of a message about an engine that cannot be built."""
    if os.environ.get(VARIABLE):
        return f"; {VARIABLE} names {truncate(str(folder))}, which has none for this version"
    return f"; or name a folder in {VARIABLE} that has one, built by `plugwasm cache interpreters`"


def _compile(folder: Path, language: Language) -> bytes:
    """Compile the sources."""
    import shutil
    import tempfile

    prefix = f".build-{language.name}-"
    for left in folder.glob(f"{prefix}*"):  # by a process that was killed: this one has the lock
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=prefix) as scratch:
        check_compiler(language)
        return language.compile(Path(scratch))


def check_compiler(language: Language) -> None:
    from importlib import metadata

    try:
        version = metadata.version("ziglang")
    except metadata.PackageNotFoundError:
        raise SourceError(
            f"the interpreter of {language.title} is built once, with a compiler that is not "
            "installed: `pip install 'plugwasm[script]'`"
        ) from None
    if version != pins.ZIG:
        raise SourceError(
            f"the interpreter of {language.title} is built with ziglang {pins.ZIG}, but "
            f"{truncate(version)} is installed: `pip install 'plugwasm[script]'`"
        )


def run_tool(
    command: list[str], place: Path, what: str, environment: Mapping[str, str] | None = None
) -> bytes:
    """Run a command in a directory, and return its output.

    Args:
        command: The command.
        place: The directory.
        what: What to say if it fails.
        environment: Variables besides those of this process.

    Raises:
        SourceError: It failed.
    """
    import subprocess

    try:
        with subprocess.Popen(
            command,
            cwd=place,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONHASHSEED": "0", **(environment or {})},
        ) as process:
            try:
                output, errors = _wait(process)
            except BaseException:
                process.kill()
                raise
    except OSError as error:
        raise SourceError(f"{what}: {truncate(str(error), 600)}") from error
    if process.returncode:
        told = "; ".join(errors.decode(errors="replace").strip()[-600:].splitlines())
        raise SourceError(f"{what}: {truncate(told, 600)}")
    return output


def _wait(process: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    """Return what a process writes, when it has ended. Meanwhile the progress is shown."""
    from subprocess import TimeoutExpired

    while True:
        try:
            return process.communicate(timeout=progress.INTERVAL)
        except TimeoutExpired:
            progress.tick()


def write_headers(place: Path) -> None:
    """Write the headers that all engines include into a directory."""
    for name, content in _read_headers().items():
        (place / name).write_bytes(content)


def _read_headers() -> dict[str, bytes]:
    """Return the headers that all engines include: that of plugins in C, and one of engines."""
    installed = _HERE.parent / "_pdk"
    kits = installed if installed.is_dir() else _HERE.parents[1] / "pdk"
    files = (kits / "c" / "include" / "plugwasm.h", _HERE / "slots.h")
    return {file.name: file.read_bytes() for file in files}
