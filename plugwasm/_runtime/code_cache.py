"""The cache of compiled code on disk, and its settings.

Compiling a plugin takes milliseconds to seconds; loading the result takes a fraction of that. So
compiled code is kept in a directory, by default `plugwasm` in the user's cache directory. The
environment variable `PLUGWASM_CACHE` names another one, or turns the cache off
(`PLUGWASM_CACHE=off`). `configure` does the same from code, and its arguments win.

An entry is machine code that will run in this process, so nothing doubtful is loaded: the directory
must belong to this user, be closed to all others and be no symbolic link. The same holds for the
entries, and their checksum must match. If something is wrong with the directory, plugins are
compiled as if there was no cache, and one warning is logged.

An entry has a copy of what its code was made from, the module and the settings, and is loaded only
for the very same bytes. Its name only leads there, so it need not be a cryptographic digest, which
takes longer than anything else in a load.

Decisions: docs/decisions.md, 33.8 and 63.
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
_MAGIC = b"plugwasm 3\n"
_TRAILER = NOTE + 28 + len(_MAGIC)
"""Bytes after code, module and settings: the note, the sizes of the three, a checksum of everything
before it, and what tells the format.
"""
_CHUNK = 2**18
"""Bytes that are read at a time, so that they stay in the processor's cache."""
_SUFFIX = ".code"
MARKED = 2**20
"""Bytes from which on an entry is marked as checked. Reading all of it takes longer than the
rest of a load.
"""
_MARK = "user.plugwasm.checked"
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
    """An entry that may be loaded, open for reading. Close it, or use it in a `with` block.

    Attributes:
        path: A path that can be mapped while the entry is open.
        trailing: How many bytes, at the end of what is mapped, do not belong to the code.
        code: The bytes, where `path` does not work.
    """

    def __init__(self, descriptor: int, note: bytes, code_size: int, trailing: int) -> None:
        self._descriptor = descriptor
        self.note = note
        self.trailing = trailing
        self.path = f"/proc/self/fd/{descriptor}"
        self.code = None if sys.platform == "linux" else os.pread(descriptor, code_size, 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        os.close(self._descriptor)


def load(settings: bytes, wasm: bytes) -> Entry | None:
    """Return the entry of a module that was compiled with these settings, or None. Never raises."""
    path = directory()
    if path is None:
        return None
    try:
        folder = _open_folder(path)
        try:
            return _find(folder, settings, wasm)[1]
        finally:
            os.close(folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        _warn(path, error)
        return None


def store(settings: bytes, wasm: bytes, code: bytes, note: bytes) -> None:
    """Store the code of a module that was compiled with these settings, with a note of `NOTE`
    bytes. Never raises.
    """
    path = directory()
    if path is None:
        return
    from zlib import crc32

    # The code comes first, because it is mapped as it is.
    parts = [code, wasm, settings, note]
    parts += [len(part).to_bytes(8, "little") for part in parts[:3]]
    checksum = 0
    for part in parts:
        checksum = crc32(part, checksum)
    parts += [checksum.to_bytes(4, "little"), _MAGIC]
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
                    file.writelines(parts)
                    file.flush()
                    _mark(descriptor)
                name, found = _find(folder, settings, wasm)
                if found is not None:  # another process was faster
                    found.close()
                os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                os.unlink(temporary, dir_fd=folder)
                raise
        finally:
            os.close(folder)
        filling = _fillings.get(path)
        if filling is not None:
            filling.stored += sum(map(len, parts))
        if filling is None or filling.is_to_be_looked_at():
            _fillings[path] = _Filling(_prune(path))
    except OSError as error:
        _warn(path, error)


def _find(folder: int, settings: bytes, wasm: bytes) -> tuple[str, Entry | None]:
    """Return the name of an entry, and the entry if there is one.

    Usually the name is made of checksums. Modules can be made that have the same ones; these get
    names by a digest, so that they do not replace each other.

    Raises:
        OSError: It is not to be trusted.
    """
    from zlib import crc32

    name = f"{crc32(wasm):08x}-{len(wasm):x}-{crc32(settings):08x}{_SUFFIX}"
    entry, is_another = _open(folder, name, settings, wasm)
    if is_another:
        from hashlib import sha256

        digest = sha256(len(settings).to_bytes(8, "little") + settings + wasm)
        name = f"{digest.hexdigest()}{_SUFFIX}"
        entry, _ = _open(folder, name, settings, wasm)
    return name, entry


def _open(folder: int, name: str, settings: bytes, wasm: bytes) -> tuple[Entry | None, bool]:
    """Return the entry of that name if it is of these settings and that module, and whether it is
    an undamaged one of others.

    Raises:
        OSError: It is not to be trusted.
    """
    try:
        descriptor = os.open(
            name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder
        )
    except FileNotFoundError:
        return None, False
    entry = None
    try:
        contents = _read_contents(descriptor)
        if contents is None:
            return None, False
        code_size, wasm_size, settings_size, note = contents
        if (
            wasm_size != len(wasm)
            or settings_size != len(settings)
            or not _is_equal(descriptor, code_size, wasm)
            or not _is_equal(descriptor, code_size + wasm_size, settings)
        ):
            return None, True
        entry = Entry(descriptor, note, code_size, wasm_size + settings_size + _TRAILER)
        return entry, False
    finally:
        if entry is None:
            os.close(descriptor)


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


def _read_contents(descriptor: int) -> tuple[int, int, int, bytes] | None:
    """Return the sizes of code, module and settings, and the note; None if the entry is damaged.

    Raises:
        OSError: It is not to be trusted.
    """
    from stat import S_ISREG
    from time import time

    status = os.fstat(descriptor)
    if not S_ISREG(status.st_mode):
        raise PermissionError("an entry is no regular file")
    _check_private(status)
    end = status.st_size - _TRAILER
    if end <= 0:
        return None
    trailer = os.pread(descriptor, _TRAILER, end)
    code, wasm, settings = (
        int.from_bytes(trailer[at : at + 8], "little") for at in range(NOTE, NOTE + 24, 8)
    )
    if not trailer.endswith(_MAGIC) or code + wasm + settings != end or not code:
        return None
    is_marked = _is_marked(descriptor, status)
    if not is_marked:
        said = int.from_bytes(trailer[NOTE + 24 : NOTE + 28], "little")
        if _checksum(descriptor, end + NOTE + 24) != said:
            return None
    if time() - status.st_mtime > DAY:
        try:
            os.utime(descriptor)
        except OSError:
            pass  # a read-only file system; the entry is as good as before
        is_marked = False
    if not is_marked:
        _mark(descriptor)
    return code, wasm, settings, trailer[:NOTE]


def _is_equal(descriptor: int, at: int, wanted: bytes) -> bool:
    """Return whether a file has these bytes there."""
    done = 0
    while done < len(wanted):
        chunk = os.pread(descriptor, min(_CHUNK, len(wanted) - done), at + done)
        if not chunk or not wanted.startswith(chunk, done):
            return False
        done += len(chunk)
    return True


def _checksum(descriptor: int, size: int) -> int:
    """Return the checksum of the first bytes of a file; of fewer, if it has become shorter."""
    from zlib import crc32

    checksum = at = 0
    while at < size and (chunk := os.pread(descriptor, min(_CHUNK, size - at), at)):
        checksum = crc32(chunk, checksum)
        at += len(chunk)
    return checksum


def _boot() -> bytes:
    """Return what tells this run of the system from others; nothing where that is not known."""
    try:
        with open("/proc/sys/kernel/random/boot_id", "rb", 0) as file:
            return file.read(36)
    except OSError:
        return b""


def _is_marked(descriptor: int, status: os.stat_result) -> bool:
    """Return whether the checksum was right when the file was last written or checked, since the
    system was started.

    What a crash of the system leaves of a file is checked, since it was started anew, and so is a
    file that was changed or made since.
    """
    if sys.platform != "linux" or status.st_size < MARKED:
        return False
    try:
        mark = os.getxattr(descriptor, _MARK)
    except OSError:
        return False  # it has none, or the file system has no attributes
    return mark == _boot() + b" %d" % status.st_mtime_ns and not mark.startswith(b" ")


def _mark(descriptor: int) -> None:
    """Note that the file is as it should be."""
    if sys.platform != "linux":
        return
    try:
        status = os.fstat(descriptor)
        if status.st_size >= MARKED and (boot := _boot()):
            os.setxattr(descriptor, _MARK, boot + b" %d" % status.st_mtime_ns)
    except OSError:
        pass  # the file system has no attributes, or is read-only: it is checked each time


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
