"""A directory of the application, or a folder in one, held open while plugins are read from it.

Its content is not trusted: other users may exchange anything in it at any moment. So what was
checked is what is read: a path is walked name by name, each step is one system call on a directory
that is open already, none follows a link, and an opened file is checked by its descriptor before it
is read. Only the directory that the application itself named is given to the system as a whole
path; it may be a link.

Where a system cannot open relative to a directory (Windows), paths are checked first and then
opened, and a change in between is not noticed.

Decisions: docs/decisions.md, 30.2.
"""

from __future__ import annotations

import os
import stat
from typing import Final, Self

from .._manifest.files import format_path
from ..errors import SourceError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["FileStamp", "OpenDirectory"]

FileStamp = tuple[int, ...] | None

_NOFOLLOW: Final = getattr(os, "O_NOFOLLOW", 0)
_DIRECTORY: Final = (
    os.O_RDONLY
    | getattr(os, "O_DIRECTORY", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NONBLOCK", 0)
)
# Opening something other than a file must not wait.
_FILE: Final = (
    os.O_RDONLY
    | _NOFOLLOW
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_BINARY", 0)
)
_RELATIVE: Final = (
    bool(_NOFOLLOW) and {os.open, os.stat} <= os.supports_dir_fd and os.scandir in os.supports_fd
)


class OpenDirectory:
    """A directory that is held open within a `with` block.

    If it cannot be opened, that is an error only when something is read from it.

    Args:
        path: The directory, which the application named.
        name: A folder in it; None for the directory itself.

    Attributes:
        path: The path, for messages.
    """

    def __init__(self, path: str, name: str | None = None) -> None:
        self.path = path if name is None else os.path.join(path, name)
        self._at: int | str | None = None
        self._error: OSError | ValueError | None = None
        self._base, self._name = path, name

    def __enter__(self) -> Self:
        try:
            self._at = _open_directory(None, self._base, _DIRECTORY)
            if self._name is not None:
                base = self._at
                try:
                    self._at = _open_directory(base, self._name, _DIRECTORY | _NOFOLLOW)
                except BaseException:
                    self._at = None
                    raise
                finally:
                    _close(base)
        except (OSError, ValueError) as error:
            self._error = error.with_traceback(None)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        at, self._at = self._at, None
        _close(at)

    def check(self) -> None:
        """Raise `SourceError` if the directory could not be opened."""
        if self._error is not None:
            raise SourceError(
                f"cannot read the directory {format_path(self.path)}: {_reason(self._error)}"
            ) from self._error

    def entries(self) -> list[tuple[str, bool, bool]]:
        """Return its entries, sorted: the name, whether it is a link, whether it is a directory.

        Raises:
            SourceError: The directory cannot be read.
        """
        self.check()
        try:
            assert self._at is not None
            with os.scandir(self._at) as entries:
                return sorted(
                    (entry.name, entry.is_symlink(), entry.is_dir(follow_symlinks=False))
                    for entry in entries
                )
        except (OSError, ValueError) as error:
            raise SourceError(
                f"cannot read the directory {format_path(self.path)}: {_reason(error)}"
            ) from error

    def has(self, name: str) -> bool:
        """Return whether there is something of that name, even if it is a link."""
        return self.stamp(name) is not None

    def seems_to_have(self, folder: str, name: str) -> bool:
        """Return whether a folder in it, which may be a link, has something of that name.

        This is a hint: it may have changed when anything is read.
        """
        try:
            assert self._at is not None
            _status(self._at, os.path.join(folder, name))
        except (OSError, ValueError):
            return False
        return True

    def stamp(self, relative: str) -> FileStamp:
        """Return a value that changes when a file beneath does; None for no file and for a link."""
        if self._at is None:
            return None
        try:
            with _PathWalk(self._at, relative) as way:
                status = way.status()
        except (OSError, ValueError):
            return None
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns

    def read(self, relative: str, limit: int, *, may_be_empty: bool = False) -> bytes:
        """Read a regular file beneath that no link leads to.

        Raises:
            SourceError: There is no such file, it is empty or larger than `limit` bytes, or cannot
                be read.
        """
        place = format_path(os.path.join(self.path, relative))
        self.check()
        parts = relative.replace(os.sep, "/").split("/")
        if os.path.isabs(relative) or os.path.splitdrive(relative)[0] or ".." in parts:
            raise SourceError(
                f"cannot read {format_path(relative)}: a plugin's files lie in its folder, "
                f"{format_path(self.path)}"
            )
        assert self._at is not None
        try:
            with _PathWalk(self._at, relative) as way:
                mode = way.status().st_mode
                if stat.S_ISLNK(mode):
                    raise _SymlinkError(way.name)
                if not stat.S_ISREG(mode):  # opening a device may have an effect
                    raise SourceError(f"cannot read {place}: it is not a regular file")
                with open(way.name, "rb", opener=lambda name, _: way.open(name)) as file:
                    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                        raise SourceError(f"cannot read {place}: it is not a regular file")
                    content = file.read(limit + 1) or b""
        except _SymlinkError as error:
            raise SourceError(
                f"cannot read {place}: {format_path(error.name)} is a symbolic link, "
                "which is not followed"
            ) from None
        except FileNotFoundError:
            raise SourceError(f"no such file: {place}") from None
        except (OSError, ValueError) as error:
            raise SourceError(f"cannot read {place}: {_reason(error)}") from None
        if len(content) > limit:
            raise SourceError(f"cannot read {place}: it is larger than the limit of {limit} bytes")
        if not (content or may_be_empty):
            raise SourceError(f"cannot read {place}: it is empty")
        return content


class _SymlinkError(OSError):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class _PathWalk:
    """A walk to a file beneath a directory; the directory of the file is held open."""

    def __init__(self, at: int | str, relative: str) -> None:
        if ".." in relative.replace(os.sep, "/").split("/"):
            raise ValueError("there is no way up")
        self._start = self._at = at
        *self._folders, self.name = [
            part for part in relative.replace(os.sep, "/").split("/") if part not in ("", ".")
        ] or ["."]

    def __enter__(self) -> Self:
        try:
            for folder in self._folders:
                if stat.S_ISLNK(_status(self._at, folder).st_mode):
                    raise _SymlinkError(folder)
                below = _open_directory(self._at, folder, _DIRECTORY | _NOFOLLOW)
                self._leave()
                self._at = below
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._leave()

    def _leave(self) -> None:
        at, self._at = self._at, self._start
        if at is not self._start:
            _close(at)

    def status(self) -> os.stat_result:
        """Return the status of what is there, even if it is a link."""
        return _status(self._at, self.name)

    def open(self, name: str) -> int:
        """Open what is there for reading, unless it is a link. Return the descriptor."""
        if isinstance(self._at, str):
            return os.open(os.path.join(self._at, name), _FILE)
        return os.open(name, _FILE, dir_fd=self._at)


# ---- single steps: `at` is the descriptor of a directory, or its path where there are none -------


def _open_directory(at: int | str | None, name: str, flags: int) -> int | str:
    """Open the directory of that name in `at`; if `at` is None, the directory at that path."""
    if _RELATIVE:
        assert not isinstance(at, str)
        return os.open(name, flags, dir_fd=at)
    path = name if at is None else os.path.join(str(at), name)
    status = os.stat(path) if at is None else os.lstat(path)
    if not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(20, "Not a directory")
    return path


def _close(at: int | str | None) -> None:
    if isinstance(at, int):
        os.close(at)


def _status(at: int | str, name: str) -> os.stat_result:
    return (
        os.lstat(os.path.join(at, name))
        if isinstance(at, str)
        else os.stat(name, dir_fd=at, follow_symlinks=False)
    )


def _reason(error: OSError | ValueError) -> str:
    return getattr(error, "strerror", None) or str(error)
