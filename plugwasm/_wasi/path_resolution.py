"""Resolves a guest's path without ever leaving the directory that it starts at.

The kernel never resolves a guest's path. ``Walk`` takes it name by name, and each step is one
system call on a directory that is held open and one name in it, which never follows a link. So
whatever another process renames or links in the meantime, a step ends inside the tree or fails. The
rules:

1. A path starts at the directory of the descriptor that the guest passes, and that directory is its
   root: ``..`` above it is PERM, also if the directory is further down in the tree.
2. ``..`` goes back to the directory that the walk came from, as it is still held open. The
   directory's own ``..`` is never used.
3. An absolute path, from the guest or from a link, is PERM.
4. A link is read, and its target resolved by the same rules; after 40 links it is LOOP.
5. A path is not empty (NOENT), of at most 4096 bytes, UTF-8 (else ILSEQ) without NUL (INVAL), and
   goes at most 64 directories deep (NAMETOOLONG): the walk holds one descriptor a directory, and
   they are the host's.

Errors of the host's system leave this module as ``WasiError``, never as ``OSError``.
"""

from __future__ import annotations

import os
from stat import S_ISDIR, S_ISLNK

from . import abi
from .abi import WasiError, errno_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

MAX_PATH = 4096
MAX_DEPTH = 64
MAX_LINKS = 40
# Links can make a short path long: this bounds the time that one walk takes.
MAX_STEPS = 2048

OPEN_DIRECTORY = (
    os.O_RDONLY
    | getattr(os, "O_DIRECTORY", 0)
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_CLOEXEC", 0)
)
# Passing through a directory does not need the right to list it.
_OPEN_STEP = OPEN_DIRECTORY | getattr(os, "O_PATH", 0)


class _HostErrors:
    """A context manager that turns an OSError of its block into the WasiError for it."""

    __slots__ = ()

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, OSError):
            raise WasiError(errno_of(error)) from None


host_errors = _HostErrors()


class Walk:
    """A context manager that resolves a path to a name in a directory held open.

    Use it as ``with Walk(root, path) as at:``; then ``at.name`` is the name, in the directory
    ``at.fd``.

    Attributes:
        fd: The directory. Valid inside the block.
        name: One plain name in it; ``.`` if the path leads to the directory itself.
        found: The status of the file of that name (never a link with ``follow``), or None if there
            is none.
        directory: Whether the path can only mean a directory, e.g. because it ends with a slash.
    """

    __slots__ = ("_follow", "_held", "_path", "directory", "fd", "found", "name")

    def __init__(self, root: int, path: bytes, *, follow: bool = False) -> None:
        """Prepare to resolve a path.

        Args:
            root: The directory that it starts at.
            path: A guest's path.
            follow: Whether a link at the very end is followed; those on the way always are.
        """
        self.fd = root
        self._path = path
        self._follow = follow
        self._held: list[int] = []
        self.name = b"."
        self.found: os.stat_result | None = None
        self.directory = False

    def __enter__(self) -> Self:
        try:
            self._walk()
        except OSError as error:
            self._release()
            raise WasiError(errno_of(error)) from None
        except BaseException:
            self._release()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._release()
        if isinstance(error, OSError):
            raise WasiError(errno_of(error)) from None

    def existing(self) -> os.stat_result:
        """Return the status of the file.

        Raises:
            WasiError: There is none, or it is a file although the path means a directory.
        """
        if self.found is None:
            raise WasiError(abi.NOENT)
        if self.directory and not S_ISDIR(self.found.st_mode):
            raise WasiError(abi.NOTDIR)
        return self.found

    def _release(self) -> None:
        held, self._held = self._held, []
        for fd in held:
            os.close(fd)

    def _walk(self) -> None:
        root = self.fd
        pending = self._names(self._path)
        links = steps = 0
        while pending:
            steps += 1
            if steps > MAX_STEPS:
                raise WasiError(abi.NAMETOOLONG)
            name = pending.pop()
            if name == b"..":
                if not self._held:
                    raise WasiError(abi.PERM)
                os.close(self._held.pop())
                self.fd = self._held[-1] if self._held else root
                continue
            if not pending:
                found = _lstat(name, self.fd)
                if not (self._follow and found is not None and S_ISLNK(found.st_mode)):
                    self.name = name
                    self.found = found
                    return
            elif self._descend(name):
                continue
            links += 1
            if links > MAX_LINKS:
                raise WasiError(abi.LOOP)
            target = os.readlink(name, dir_fd=self.fd)
            # Only the end of the whole path says whether it must be a directory, so a link on the
            # way does not.
            pending.extend(self._names(target, last=not pending))
        # The path led to a directory by "." or "..".
        self.directory = True
        self.found = os.stat(self.fd)

    def _names(self, path: bytes, last: bool = True) -> list[bytes]:
        if not path:
            raise WasiError(abi.NOENT)
        if path[0] == 0x2F:
            raise WasiError(abi.PERM)
        names = path.split(b"/")
        if last and names[-1] in (b"", b"."):
            self.directory = True
        names.reverse()
        return [name for name in names if name and name != b"."]

    def _descend(self, name: bytes) -> bool:
        """Enter the directory of that name. Return False if it is a link."""
        if len(self._held) >= MAX_DEPTH:
            raise WasiError(abi.NAMETOOLONG)
        try:
            fd = os.open(name, _OPEN_STEP, dir_fd=self.fd)
        except OSError:
            found = _lstat(name, self.fd)
            if found is not None and S_ISLNK(found.st_mode):
                return False
            raise
        self._held.append(fd)
        self.fd = fd
        return True


def _lstat(name: bytes, directory: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None
