"""The cache of compiled code on disk, and its settings.

Compiling a plugin takes milliseconds to seconds; loading the result takes a fraction of that. So
compiled code is kept in a directory, by default `plugwasm` in the user's cache directory. The
environment variable `PLUGWASM_CACHE` names another one, or turns the cache off
(`PLUGWASM_CACHE=off`). `configure` does the same from code, and its arguments win.

An entry is machine code that will run in this process, so nothing doubtful is loaded: the directory
must belong to this user, be closed to all others and be no symbolic link. The same holds for the
entries, and their checksum must match. If something is wrong with the directory, plugins are
compiled as if there was no cache, and one warning is logged.

Decisions: docs/decisions.md, 33.8.
"""

from __future__ import annotations

import os
import sys

from ..errors import OptionError, truncate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

__all__ = ["clear", "configure", "directory"]

DEFAULT_MAX_BYTES = 2**30
NOTE = 28
"""Bytes of the note that is kept with an entry's code."""
_MAGIC = b"plugwasm 2\n"
_TRAILER = NOTE + 12 + len(_MAGIC)
_SUFFIX = ".code"
DAY = 86400
_SHARE = 16


class _Settings:
    """The settings that `configure` changed; the state of this module."""

    directory: str | None = None
    enabled: bool | None = None
    max_bytes: int = DEFAULT_MAX_BYTES
    warned: bool = False


class _Filling:
    """The size of a directory, as far as this process knows.

    It is the size of the entries that the process last found there, and of those it stored since.

    Invariant: a process looks at the entries when it has stored a sixteenth of the limit since it
    last looked, and when the known size exceeds the limit. If it then removes entries, it makes
    room for another sixteenth. So many stores share one look at thousands of entries, and the
    directory has at most the limit, plus a sixteenth of it for each process that stores there.
    """

    __slots__ = ("found", "stored")

    def __init__(self, found: int) -> None:
        self.found = found
        self.stored = 0

    def is_to_be_looked_at(self) -> bool:
        most = _Settings.max_bytes
        return self.stored > most // _SHARE or self.found + self.stored > most


_fillings: dict[str, _Filling] = {}
"""Sizes by directory."""


def configure(
    directory: str | os.PathLike[str] | None = None,
    *,
    enabled: bool | None = None,
    max_bytes: int | None = None,
) -> None:
    """Change the settings for this process. Settings that are not given stay as they are.

    Args:
        directory: Where compiled code is kept. Created if it does not exist, with access for this
            user only.
        enabled: False to neither read nor write, True to do both.
        max_bytes: The most that the directory should hold. Beyond it the least recently used
            entries are removed. Several processes that store at once may add a sixteenth each.
    """
    if not (directory is None or isinstance(directory, (str, os.PathLike))):
        raise OptionError(
            f"cache.configure: directory: expected a path, got {type(directory).__name__}",
            field="directory",
        )
    if not (enabled is None or isinstance(enabled, bool)):
        raise OptionError(
            f"cache.configure: enabled: expected True or False, got {enabled!r:.40}",
            field="enabled",
        )
    if max_bytes is not None and (
        isinstance(max_bytes, bool) or not isinstance(max_bytes, int) or max_bytes < 0
    ):
        raise OptionError(
            f"cache.configure: max_bytes: expected a number of bytes, got {max_bytes!r:.40}",
            field="max_bytes",
        )
    if directory is not None:
        _Settings.directory = os.path.abspath(directory)
        _Settings.warned = False
    if enabled is not None:
        _Settings.enabled = enabled
    if max_bytes is not None:
        _Settings.max_bytes = max_bytes


configure.__module__ = "plugwasm.cache"


def directory() -> str | None:
    """Return the directory in use, or None if the cache is off."""
    variable = os.environ.get("PLUGWASM_CACHE", "")
    switched_off = variable.lower() in ("0", "off", "no", "false")
    enabled = _Settings.enabled if _Settings.enabled is not None else not switched_off
    if not enabled or not hasattr(os, "geteuid"):
        return None
    if _Settings.directory is not None:
        return _Settings.directory
    if variable and not switched_off and variable.lower() not in ("1", "on", "yes", "true"):
        try:
            return os.path.abspath(variable)
        except OSError:  # relative to a directory that is gone
            return None
    if sys.platform == "darwin":
        parent = os.path.expanduser("~/Library/Caches")
    else:
        parent = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(parent, "plugwasm") if os.path.isabs(parent) else None


directory.__module__ = "plugwasm.cache"


def clear() -> int:
    """Remove all entries, and return how many there were."""
    path = directory()
    if path is None or not os.path.isdir(path):
        return 0
    removed = 0
    for entry in _entries(path):
        removed += _removed(entry.path)
    return removed


clear.__module__ = "plugwasm.cache"


class Entry:
    """An entry whose checksum matches.

    Attributes:
        path: A path that can be mapped while the entry is open.
        code: The bytes, where `path` does not work.
    """

    def __init__(self, descriptor: int, note: bytes, code: bytes | None) -> None:
        self._descriptor = descriptor
        self.note = note
        self.code = code
        self.path = f"/proc/self/fd/{descriptor}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        os.close(self._descriptor)


def load(key: str) -> Entry | None:
    """Return the entry of the key, or None. Never raises."""
    path = directory()
    if path is None:
        return None
    try:
        folder = _open_folder(path)
        try:
            descriptor = os.open(
                key + _SUFFIX,
                os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC,
                dir_fd=folder,
            )
        finally:
            os.close(folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        _warn(path, error)
        return None
    try:
        entry = _checked(descriptor)
    except OSError as error:
        _warn(path, error)
        entry = None
    if entry is None:
        os.close(descriptor)
    return entry


def store(key: str, code: bytes, note: bytes) -> None:
    """Store compiled code under the key, with a note of `NOTE` bytes. Never raises."""
    path = directory()
    if path is None:
        return
    import zlib

    # The code comes first, because it is mapped as it is.
    tail = note + len(code).to_bytes(8, "little")
    checksum = zlib.crc32(tail, zlib.crc32(code)).to_bytes(4, "little")
    temporary = f".{os.getpid()}-{os.urandom(8).hex()}"
    try:
        if not os.path.isdir(path):
            os.makedirs(path, mode=0o700, exist_ok=True)
        folder = _open_folder(path)
        try:
            descriptor = os.open(
                temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder
            )
            try:
                with open(descriptor, "wb") as file:
                    file.writelines((code, tail, checksum, _MAGIC))
                os.replace(temporary, key + _SUFFIX, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                os.unlink(temporary, dir_fd=folder)
                raise
        finally:
            os.close(folder)
        filling = _fillings.get(path)
        if filling is not None:
            filling.stored += len(code) + _TRAILER
        if filling is None or filling.is_to_be_looked_at():
            _fillings[path] = _Filling(_prune(path))
    except OSError as error:
        _warn(path, error)


def _open_folder(path: str) -> int:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _check_private(os.fstat(descriptor))
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _check_private(status: os.stat_result) -> None:
    if status.st_uid != os.geteuid():
        raise PermissionError(f"it belongs to user {status.st_uid}, not to {os.geteuid()}")
    if status.st_mode & 0o077:
        raise PermissionError(
            f"others have access to it (mode {status.st_mode & 0o777:o}, should be 700)"
        )


def _checked(descriptor: int) -> Entry | None:
    """Return the entry in the open file; None if it is damaged.

    Raises:
        OSError: It is not to be trusted.
    """
    import mmap
    import stat
    import time
    import zlib

    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise PermissionError("an entry is no regular file")
    _check_private(status)
    size = status.st_size - _TRAILER
    if size <= 0:
        return None
    try:
        mapping = mmap.mmap(descriptor, status.st_size, access=mmap.ACCESS_READ)
    except ValueError:
        return None  # it has become shorter just now
    with mapping as content:
        trailer = content[size:]
        with memoryview(content) as view, view[: size + NOTE + 8] as covered:
            checksum = zlib.crc32(covered)
        note, said_size = trailer[:NOTE], int.from_bytes(trailer[NOTE : NOTE + 8], "little")
        if (
            not trailer.endswith(_MAGIC)
            or said_size != size
            or checksum != int.from_bytes(trailer[NOTE + 8 : NOTE + 12], "little")
        ):
            return None
        code = None if sys.platform == "linux" else content[:size]
    if time.time() - status.st_mtime > DAY:
        try:
            os.utime(descriptor)
        except OSError:
            pass  # a read-only file system; the entry is as good as before
    return Entry(descriptor, note, code)


def _entries(path: str) -> Iterator[os.DirEntry[str]]:
    with os.scandir(path) as found:
        yield from (entry for entry in found if entry.name.endswith(_SUFFIX))


def _removed(path: str) -> bool:
    """Remove a file, and return False if another process was faster."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    return True


def _prune(path: str) -> int:
    """Remove files of writers that were killed, and the oldest entries beyond the limit.

    Returns:
        The bytes that remain.
    """
    import time

    entries = []
    with os.scandir(path) as found:
        for entry in found:
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            if entry.name.endswith(_SUFFIX):
                entries.append((status, entry.path))
            elif entry.name.startswith(".") and time.time() - status.st_mtime > DAY:
                _removed(entry.path)  # of a process that was killed while it wrote
    total = sum(status.st_size for status, _ in entries)
    if total <= _Settings.max_bytes:
        return total
    for status, name in sorted(entries, key=lambda entry: entry[0].st_mtime):
        if total <= _Settings.max_bytes - _Settings.max_bytes // _SHARE:
            break
        _removed(name)
        total -= status.st_size
    return total


def _warn(path: str, error: OSError) -> None:
    if _Settings.warned:
        return
    _Settings.warned = True
    from .._host.plugin_log import get_logger

    get_logger("cache").warning(
        "the cache of compiled code in %s is not used, plugins are compiled anew: %s",
        truncate(path, 300),
        truncate(str(error), 600),
    )
