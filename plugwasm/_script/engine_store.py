"""The folder in which engines are kept, by the digests of their sources and of themselves.

It is the folder `engines` of the cache of compiled code, or the one that `PLUGWASM_ENGINES` names.
What is read from it runs in the sandbox, with the scripts of the application in it. So a folder or
a file that others could have written is not used, nor a file with another digest than its name
says.

In the cache, the engines that were used last are kept, some for each language: other versions of
plugwasm may be installed, and have others. In a folder that somebody named, nothing is removed.

Decisions: docs/decisions.md, 58 and 60.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import time
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from .._host.plugin_log import get_logger
from .._platform.new_files import write_file
from .._runtime import code_cache
from ..errors import SourceError, truncate
from . import progress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

VARIABLE = "PLUGWASM_ENGINES"
"""The environment variable that names the folder of engines."""
MAX_BYTES = 2**26
KEPT = 8
"""How many engines of a language the cache keeps."""

_USED_AGAIN = 60
"""Seconds after which a use of an engine is noted, as the time of its file."""
_NAME = re.compile(r"(?P<language>[a-z]+)-(?P<sources>[0-9a-f]{24})-(?P<digest>[0-9a-f]{64})\.wasm")
_LEFT = re.compile(r"[a-z]+-[0-9a-f]{24}\.lock|\.part-\d+-[0-9a-f]{16}")
"""Locks of earlier versions, and files of processes that were killed while they wrote them."""


class KeptEngine(NamedTuple):
    """An engine that is kept."""

    path: Path
    language: str
    size: int
    used: float


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
            "the interpreter of scripts is built once and kept, but the cache of plugwasm is off: "
            f"name a folder for interpreters in the environment variable {VARIABLE}"
        )
    return Path(cache) / "engines"


def make_folder(folder: Path) -> None:
    """Make the folder, if there is none: for this user, or for all if somebody named it."""
    cache = code_cache.directory()
    if cache is not None and folder.parent == Path(cache):
        # Nobody else may have access to it: with `parents=True` it would get the default mode.
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.mkdir(mode=0o755 if os.environ.get(VARIABLE) else 0o700, parents=True, exist_ok=True)


def find_engine(folder: Path, language: str, sources: str) -> tuple[Path, bytes] | None:
    """Return the file and the bytes of the engine that was made of these sources, if it is kept.

    Raises:
        SourceError: Others can write to the folder.
        OSError: The folder cannot be read.
    """
    try:
        owner = _check_place(folder)
    except FileNotFoundError:
        return None
    for file in sorted(folder.glob(f"{language}-{sources}-*.wasm")):
        name = _NAME.fullmatch(file.name)
        if name is None:
            continue
        try:
            content = _read(file, owner)
        except (OSError, ValueError) as error:
            _warn(file, str(error))
            continue
        if name["digest"] == hashlib.sha256(content).hexdigest():
            return file, content
        _warn(file, "it does not have the digest that its name says")
    return None


def keep_engine(folder: Path, language: str, sources: str, engine: bytes) -> None:
    """Keep an engine, and remove some that were not used for long."""
    name = f"{language}-{sources}-{hashlib.sha256(engine).hexdigest()}.wasm"
    write_file(str(folder / name), engine, 0o644)
    if not os.environ.get(VARIABLE):
        _remove_oldest(language)


def kept_engines(folder: Path) -> list[KeptEngine]:
    """Return the engines that are kept in a folder, those that were used last first."""
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                name = _NAME.fullmatch(entry.name)
                if name is not None and entry.is_file(follow_symlinks=False):
                    status = entry.stat(follow_symlinks=False)
                    found.append(
                        KeptEngine(
                            Path(entry.path), name["language"], status.st_size, status.st_mtime
                        )
                    )
    except FileNotFoundError:
        return []
    return sorted(found, key=lambda one: -one.used)


def clear_engines() -> list[KeptEngine]:
    """Remove the engines that the cache keeps, and return them. A folder that is named stays."""
    if os.environ.get(VARIABLE) or code_cache.directory() is None:
        return []
    folder = engine_folder()
    removed = [one for one in kept_engines(folder) if _unlink(one.path)]
    _remove_rest(folder)
    return removed


@contextmanager
def locked(folder: Path, language: str) -> Iterator[None]:
    """Hold the lock for building an engine of a language. It waits for other processes."""
    try:
        import fcntl
    except ImportError:  # both build, and the last one is kept
        yield
        return
    # The file stays: a process that waits for it must not be let in by another one of that name.
    with open(folder / f"{language}.lock", "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with progress.task("waiting for another process, which builds the interpreter"):
                fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _check_place(folder: Path) -> int:
    """Check that only those may write to the folder whom the application trusts.

    A folder that somebody named may be another user's. That of the cache may not, and nobody else
    may be able to put another one in its place.

    Returns:
        The owner.

    Raises:
        SourceError: Others may write to it.
    """
    status = os.stat(folder)
    if not os.environ.get(VARIABLE) and hasattr(os, "geteuid"):
        parent = os.stat(folder.parent)
        for place, found in (folder, status), (folder.parent, parent):
            if found.st_uid not in (0, os.geteuid()):
                raise SourceError(
                    f"the cache is not used for interpreters: {truncate(str(place))} belongs to "
                    f"user {found.st_uid}, who could put others into it: name a folder of your own "
                    f"in {VARIABLE}"
                )
        if parent.st_mode & stat.S_IWOTH and not parent.st_mode & stat.S_ISVTX:
            raise SourceError(
                f"the cache is not used for interpreters: {truncate(str(folder.parent))} can be "
                "written by all users, who could replace them: `chmod go-rwx`, or name another "
                f"folder in {VARIABLE}"
            )
    if stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_IWOTH:
        raise SourceError(
            f"the folder of interpreters, {truncate(str(folder))}, can be written by all users, "
            f"who could put others into it: `chmod o-w`, or name another folder in {VARIABLE}"
        )
    return status.st_uid


def _read(file: Path, folder_owner: int) -> bytes:
    """Return the content of an engine's file.

    Raises:
        OSError, ValueError: It is not to be used.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with open(file, "rb", opener=lambda name, _: os.open(name, flags)) as opened:
        status = os.fstat(opened.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is not a regular file")
        if hasattr(os, "geteuid") and status.st_uid not in (0, os.geteuid(), folder_owner):
            raise ValueError(f"it belongs to user {status.st_uid}")
        if status.st_mode & stat.S_IWOTH:
            raise ValueError("it can be written by all users")
        content = opened.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES} bytes")
        if time.time() - status.st_mtime > _USED_AGAIN:
            try:
                os.utime(file)
            except OSError:
                pass  # it is not ours, or the file system cannot be written
    return content


def _remove_oldest(language: str) -> None:
    folder = engine_folder()
    of_language = [one for one in kept_engines(folder) if one.language == language]
    for one in of_language[KEPT:]:
        _unlink(one.path)
    _remove_rest(folder)


def _remove_rest(folder: Path) -> None:
    """Remove what was left over a day ago, and is of no use."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if (
                    _LEFT.fullmatch(entry.name)
                    and time.time() - entry.stat(follow_symlinks=False).st_mtime > code_cache.DAY
                ):
                    _unlink(Path(entry.path))
    except OSError:
        pass


def _unlink(path: Path) -> bool:
    """Remove a file, and return False if that cannot be: another process was faster."""
    try:
        path.unlink()
    except OSError:
        return False
    return True


def _warn(file: Path, why: str) -> None:
    get_logger("scripts").warning(
        "the interpreter %s is not used: %s", truncate(str(file), 300), truncate(why, 300)
    )
