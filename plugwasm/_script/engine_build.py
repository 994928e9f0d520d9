"""An engine built from its sources, once, and kept.

Sources come with a pinned digest, and are compiled by the package `ziglang`. The result is
kept in a folder for this user, under a name that has the digests of all that it was made of and of
itself. Processes that need it at the same time wait for one that builds it.

Decisions: docs/decisions.md, 58.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

from .._platform.new_files import write_file
from .._runtime import code_cache
from ..errors import SourceError, truncate
from . import pins

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from .languages import Language

VARIABLE = "PLUGWASM_ENGINES"
"""The environment variable that names the folder of engines."""
_HERE = Path(__file__).parent
ZIG_CC = (sys.executable, "-m", "ziglang", "cc")
ZIG_CXX = (sys.executable, "-m", "ziglang", "c++")
"""The compilers."""


def engine_folder() -> Path:
    """Return the folder of engines.

    Raises:
        SourceError: None is named, and the cache of compiled code is off.
    """
    chosen = os.environ.get(VARIABLE)
    if chosen:
        return Path(chosen).absolute()
    cache = code_cache.directory()
    if cache is None:
        raise SourceError(
            "the engine of a script is built once and kept, but the cache of plugwasm is off: "
            f"name a folder for engines in the environment variable {VARIABLE}"
        )
    return Path(cache) / "engines"


def digest_of_sources(language: Language) -> str:
    """Return a digest of everything that an engine is made of."""
    digest = hashlib.sha256()
    for part in (
        *language.sources(),
        language.kit(),
        (_HERE / "engine.py").read_bytes(),
        (_HERE / "snapshots.py").read_bytes(),
        header().read_bytes(),
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
    found = _find(folder, language, sources)
    if found is not None:
        return found
    try:
        # The parent may be the cache of compiled code, which nobody else may have access to: with
        # `parents=True` it would get the default mode.
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        with _lock(folder / f"{language.name}-{sources}.lock"):
            found = _find(folder, language, sources)
            if found is None:
                found = make(_compile(folder, language))
                _keep(folder, language, sources, found)
    except OSError as error:
        raise SourceError(
            f"the engine of {language.title} cannot be kept in {truncate(str(folder))}: "
            f"{truncate(str(error))}; name another folder in {VARIABLE}"
        ) from error
    return found


def is_kept(language: Language) -> bool:
    """Return whether the engine of a language was built before, and is kept."""
    try:
        return _find(engine_folder(), language, digest_of_sources(language)) is not None
    except (SourceError, OSError):
        return False


def _find(folder: Path, language: Language, sources: str) -> bytes | None:
    """Return the engine with the digest that its name says."""
    for file in sorted(folder.glob(f"{language.name}-{sources}-*.wasm")):
        content = file.read_bytes()
        if file.stem.rpartition("-")[2] == hashlib.sha256(content).hexdigest():
            return content
    return None


def _keep(folder: Path, language: Language, sources: str, engine: bytes) -> None:
    target = folder / f"{language.name}-{sources}-{hashlib.sha256(engine).hexdigest()}.wasm"
    write_file(str(target), engine, 0o666)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    import fcntl

    # The file stays: a process that waits for it must not be let in by another one of that name.
    with open(path, "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _compile(folder: Path, language: Language) -> bytes:
    """Compile the sources."""
    import tempfile

    with tempfile.TemporaryDirectory(dir=folder, prefix=".build-") as scratch:
        say(f"building the {language.title} engine, once: this takes about a minute …")
        _check_compiler(language)
        return language.compile(Path(scratch))


def _check_compiler(language: Language) -> None:
    from importlib import metadata

    try:
        version = metadata.version("ziglang")
    except metadata.PackageNotFoundError:
        raise SourceError(
            f"the engine of {language.title} is built once, with a compiler that is not installed: "
            "`pip install 'plugwasm[script]'`"
        ) from None
    if version != pins.ZIG:
        raise SourceError(
            f"the engine of {language.title} is built with ziglang {pins.ZIG}, but "
            f"{truncate(version)} is installed: `pip install 'plugwasm[script]'`"
        )


def run_tool(
    command: list[str], place: Path, what: str, environment: Mapping[str, str] | None = None
) -> bytes:
    """Run a command in a directory, and return its output.

    Args:
        what: What to say if it fails.
        environment: Variables besides those of this process.

    Raises:
        SourceError: It failed.
    """
    try:
        done = subprocess.run(
            command,
            cwd=place,
            check=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env={**os.environ, "PYTHONHASHSEED": "0", **(environment or {})},
        )
    except subprocess.CalledProcessError as error:
        told = error.stderr.decode(errors="replace").strip()[-600:]
        raise SourceError(f"{what}: {truncate(told, 600)}") from None
    return done.stdout


def say(text: str) -> None:
    """Show the progress, where somebody can see it."""
    if sys.stderr is not None and sys.stderr.isatty():
        print(f"plugwasm: {text}", file=sys.stderr, flush=True)


def header() -> Path:
    """Return the header for plugins in C."""
    installed = _HERE.parent / "include"
    folder = installed if installed.is_dir() else _HERE.parents[1] / "pdk" / "c" / "include"
    return folder / "plugwasm.h"
