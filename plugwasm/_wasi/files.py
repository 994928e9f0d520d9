"""Directories of the host that are granted to guests, and the files and directories that guests
open in them.

A path is resolved by ``path_resolution``, which cannot leave the tree. Only regular files and
directories are opened: pipes, sockets and devices are ACCES. The type of a file is checked before
it is opened, and opening cannot block if another file takes its place at the last moment.

Errors of the host's system leave this module as ``WasiError``, never as ``OSError``.
"""

from __future__ import annotations

import os
from stat import S_ISDIR, S_ISLNK, S_ISREG

from .._platform.finalizer import Finalizable
from ..errors import LinkError, ManifestError
from . import abi
from .abi import WasiError
from .path_resolution import OPEN_DIRECTORY, Walk, host_errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from functools import partial
else:
    from _functools import partial  # the module `functools` takes long to import

# glibc writes to each block if the file system cannot allocate, so one call must stay small.
MAX_ALLOCATE = 256 * 1024 * 1024

HOST_DESCRIPTORS = 256
"""Descriptors of the process that all guests together leave to the host; at most a quarter of all.
"""

_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_DIRECTORY = getattr(os, "O_DIRECTORY", 0)
_OPEN_PREOPEN = os.O_RDONLY | _DIRECTORY | getattr(os, "O_CLOEXEC", 0)
_LOOK = getattr(os, "O_PATH", os.O_RDONLY) | _DIRECTORY | getattr(os, "O_CLOEXEC", 0)
_OPEN_FILE = (
    _NOFOLLOW
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_NOCTTY", 0)
)
_SYNC = getattr(os, "O_SYNC", 0)
_DSYNC = getattr(os, "O_DSYNC", _SYNC)
_CONFINED = (
    os.name == "posix"
    and bool(_NOFOLLOW and _DIRECTORY)
    and {os.open, os.stat, os.readlink} <= os.supports_dir_fd
)


class OwnedDescriptor(Finalizable):
    """Owns a descriptor, as long as its number stands for the file that was opened.

    A process may close all its descriptors (daemons do), and then open others, which get the same
    numbers. Invariant: each use of `fd` checks first which file the number stands for, and returns
    -1, or raises `WasiError`, if it is another one; `close` leaves that open.
    """

    __slots__ = ("_fd", "_identity")

    def _hold(self, fd: int) -> None:
        self._fd = fd
        self.__del__ = _make_finalizer(fd)
        self._identity = _identity(os.fstat(fd))

    def _held(self) -> int:
        fd = self._fd
        if fd < 0:
            return -1
        try:
            if _identity(os.fstat(fd)) == self._identity:
                return fd
        except OSError:
            pass
        self._let_go()
        return -1

    def _let_go(self) -> None:
        self._fd = -1
        try:
            del self.__del__
        except AttributeError:
            pass

    @property
    def fd(self) -> int:
        """The descriptor. Raises `WasiError` (BADF) if it was closed."""
        fd = self._held()
        if fd < 0:
            raise WasiError(abi.BADF)
        return fd

    def close(self) -> None:
        """Close the descriptor."""
        fd = self._held()
        if fd >= 0:
            self._let_go()
            with host_errors:
                os.close(fd)


class Preopen(OwnedDescriptor):
    """A host directory that is granted to guests, opened at once and shared by all of their
    instances.

    Args:
        host_path: The directory of the host.
        guest_path: The name by which guests know it.
        read_only: Whether all changes to the tree are refused.

    Raises:
        ManifestError: The directory cannot be opened.
        LinkError: This system has no way to confine a guest to it.
    """

    __slots__ = ("__weakref__", "_path", "guest_name", "guest_path", "host_path", "read_only")

    def __init__(
        self, host_path: str | os.PathLike[str], guest_path: str, read_only: bool = False
    ) -> None:
        self._fd = -1
        self.host_path = os.fspath(host_path)
        self.guest_path = guest_path
        self.read_only = read_only
        if not _CONFINED:
            raise LinkError(
                f"allowed_paths grants {self.host_path!r}, but plugins can be given directories on "
                "POSIX systems only: "
                "this one cannot open a file relative to a directory without following links"
            )
        try:
            self.guest_name = guest_path.encode()
            self._path = os.path.abspath(self.host_path)  # a daemon has another current directory
            self._hold(os.open(self.host_path, _OPEN_PREOPEN))
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise ManifestError(
                f"allowed_paths grants {self.host_path!r}, which cannot be opened as a directory: "
                f"{reason}",
                field="allowed_paths",
            ) from error

    def __repr__(self) -> str:
        return f"Preopen({self.host_path!r}, {self.guest_path!r}, read_only={self.read_only})"

    @property
    def fd(self) -> int:
        """The descriptor; -1 after `close`.

        If others closed it, the directory is opened again, if it is still the same one.
        """
        if self._fd < 0:
            return -1
        fd = self._held()
        if fd >= 0:
            return fd
        identity = self._identity
        try:
            self._hold(os.open(self._path, _OPEN_PREOPEN))
        except OSError:
            return -1
        if self._identity != identity:
            self.close()
        return self._fd


def _make_finalizer(fd: int) -> Callable[[], object]:
    """Return a function that closes the descriptor and never raises."""
    close: Callable[[], object] = partial(os.closerange, fd, fd + 1)
    return close


def check_overlaps(preopens: Sequence[Preopen]) -> None:
    """Raise `ManifestError` for two directories of one name, and for a read-only one in a writable
    one.

    The `ro:` of the latter would promise what does not hold.
    """
    names: dict[str, Preopen] = {}
    for preopen in preopens:
        first = names.setdefault(preopen.guest_path, preopen)
        if first is not preopen:
            raise ManifestError(
                f"allowed_paths grants {first.host_path!r} and {preopen.host_path!r} under one "
                f"name, {preopen.guest_path!r}",
                field="allowed_paths",
            )
    writable = {
        _identity(os.fstat(preopen.fd)): preopen for preopen in preopens if not preopen.read_only
    }
    for preopen in preopens if writable else ():
        fd = os.dup(preopen.fd)
        try:
            while preopen.read_only:
                identity = _identity(os.fstat(fd))
                if other := writable.get(identity):
                    raise ManifestError(
                        f"allowed_paths grants {preopen.host_path!r} read-only, but the plugin may "
                        f"write to it through {other.host_path!r}",
                        field="allowed_paths",
                    )
                above = os.open("..", _LOOK, dir_fd=fd)
                os.close(fd)
                fd = above
                if _identity(os.fstat(fd)) == identity:
                    break
        except OSError:
            pass  # this process cannot open the parent, so it cannot grant it either
        finally:
            os.close(fd)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


class File(OwnedDescriptor):
    """A regular file that a guest has open."""

    __slots__ = ("flags", "inheriting", "read_only", "rights")

    filetype = abi.REGULAR_FILE

    def __init__(self, fd: int, rights: int, flags: int, read_only: bool) -> None:
        self._hold(fd)
        self.rights = rights
        self.inheriting = 0
        self.flags = flags
        self.read_only = read_only

    def read(self, buffers: Sequence[memoryview], offset: int | None) -> int:
        """Fill the buffers from the position, or from ``offset``.

        Return the number of bytes, 0 at the end.
        """
        with host_errors:
            if not buffers:
                return 0
            return (
                os.readv(self.fd, buffers)
                if offset is None
                else os.preadv(self.fd, buffers, offset)
            )

    def write(self, buffers: Sequence[memoryview], offset: int | None) -> int:
        """Write the buffers at the position, or at ``offset``.

        Return the number of bytes written.
        """
        with host_errors:
            if not buffers:
                return 0
            return (
                os.writev(self.fd, buffers)
                if offset is None
                else os.pwritev(self.fd, buffers, offset)
            )

    def set_append(self, append: bool) -> None:
        """Switch appending on or off."""
        from fcntl import F_GETFL, F_SETFL, fcntl

        with host_errors:
            flags = fcntl(self.fd, F_GETFL)
            fcntl(self.fd, F_SETFL, flags | os.O_APPEND if append else flags & ~os.O_APPEND)

    def allocate(self, offset: int, length: int) -> None:
        """Reserve space; the file grows to hold it."""
        if not hasattr(os, "posix_fallocate"):
            raise WasiError(abi.NOTSUP)
        if length > MAX_ALLOCATE:
            raise WasiError(abi.FBIG)
        with host_errors:
            os.posix_fallocate(self.fd, offset, length)


class Directory(OwnedDescriptor):
    """A directory that a guest has open: a preopen, or one that it opened beneath one."""

    __slots__ = ("flags", "inheriting", "listing", "preopen", "read_only", "rights")

    filetype = abi.DIRECTORY

    def __init__(
        self, fd: int, rights: int, inheriting: int, read_only: bool, preopen: Preopen | None = None
    ) -> None:
        self._fd = -1
        if fd >= 0:
            self._hold(fd)
        self.rights = rights
        self.inheriting = inheriting
        self.flags = 0
        self.read_only = read_only
        self.preopen = preopen
        self.listing = b""

    @classmethod
    def of_preopen(cls, preopen: Preopen) -> Directory:
        return cls(
            -1,
            abi.DIRECTORY_RIGHTS,
            abi.FILE_RIGHTS | abi.DIRECTORY_RIGHTS,
            preopen.read_only,
            preopen,
        )

    @property
    def fd(self) -> int:
        fd = self._held() if self.preopen is None else self.preopen.fd
        if fd < 0:
            raise WasiError(abi.BADF)
        return fd

    def list(self, limit: int) -> bytes:
        """Return all entries as packed ``dirent`` records of at most ``limit`` bytes together (else
        NOMEM).

        Each record's cookie is the offset of the next, so cookies are valid as long as this listing
        is kept. Names that are not UTF-8 are left out, since no path of the guest could name them.
        ``..`` gets the directory's own inode.
        """
        packed = bytearray()
        with host_errors:
            # A new descriptor: reading a directory moves the position, which a forked process would
            # share.
            fd = os.open(b".", OPEN_DIRECTORY, dir_fd=self.fd)
            try:
                own = os.fstat(fd).st_ino
                for name in (b".", b".."):
                    _pack_dirent(packed, name, own, abi.DIRECTORY)
                with os.scandir(fd) as entries:
                    for entry in entries:
                        name = os.fsencode(entry.name)
                        if _is_utf8(name):
                            _pack_dirent(packed, name, entry.inode(), _file_type(entry))
                        if len(packed) > limit:
                            raise WasiError(abi.NOMEM)
            finally:
                os.close(fd)
        return bytes(packed)

    def open(
        self, path: bytes, *, follow: bool, oflags: int, fdflags: int, rights: int
    ) -> File | Directory:
        """Open a regular file or a directory beneath, for reading, writing or both, as ``rights``
        says.
        """
        _check_free_descriptors(self.fd)
        creates, anew = oflags & abi.O_CREAT, oflags & abi.O_CREAT and oflags & abi.O_EXCL
        with Walk(
            self.fd, path, follow=(follow and not anew) or path.endswith((b"/", b"/."))
        ) as at:
            found = at.found
            if creates and path.endswith(b"/"):
                raise WasiError(abi.ISDIR)
            if found is None:
                if not creates:
                    raise WasiError(abi.NOENT)
                if at.directory:
                    raise WasiError(abi.ISDIR)
            elif anew:
                raise WasiError(abi.EXIST)
            elif S_ISLNK(found.st_mode):
                raise WasiError(abi.LOOP)
            elif S_ISDIR(found.st_mode):
                return self._open_directory(at, oflags, rights)
            elif at.directory or oflags & abi.O_DIRECTORY:
                raise WasiError(abi.NOTDIR)
            elif not S_ISREG(found.st_mode):
                raise WasiError(abi.ACCES)
            fd = os.open(at.name, _open_flags(oflags, fdflags, rights), 0o666, dir_fd=at.fd)
        file = File(fd, self.inheriting & abi.FILE_RIGHTS, fdflags, self.read_only)
        if not rights & abi.FD_READ:
            file.rights &= ~abi.FD_READ
        if not rights & abi.FD_WRITE:
            file.rights &= ~abi.FILE_WRITE_RIGHTS
        with host_errors:
            if not S_ISREG(os.fstat(fd).st_mode):
                raise WasiError(abi.ACCES)
        return file

    def _open_directory(self, at: Walk, oflags: int, rights: int) -> Directory:
        if oflags & (abi.O_CREAT | abi.O_TRUNC) or rights & abi.FD_WRITE:
            raise WasiError(abi.ISDIR)
        fd = os.open(at.name, OPEN_DIRECTORY, dir_fd=at.fd)
        return Directory(
            fd, self.inheriting & abi.DIRECTORY_RIGHTS, self.inheriting, self.read_only
        )


def _check_free_descriptors(directory: int) -> None:
    """Raise `WasiError` (MFILE) if few descriptors are left.

    Opening may create or truncate, so it comes after.
    """
    from resource import RLIM_INFINITY, RLIMIT_NOFILE, getrlimit

    limit, _ = getrlimit(RLIMIT_NOFILE)
    if limit == RLIM_INFINITY:
        return
    with host_errors:
        # The system hands out the lowest free number, which tells how many are in use.
        lowest_free = os.dup(directory)
        os.close(lowest_free)
    if lowest_free >= limit - min(limit // 4, HOST_DESCRIPTORS):
        raise WasiError(abi.MFILE)


def _open_flags(oflags: int, fdflags: int, rights: int) -> int:
    flags = os.O_RDONLY
    if rights & abi.FD_WRITE:
        flags = os.O_RDWR if rights & abi.FD_READ else os.O_WRONLY
    if oflags & abi.O_CREAT:
        flags |= os.O_CREAT | (os.O_EXCL if oflags & abi.O_EXCL else 0)
    if oflags & abi.O_TRUNC:
        flags |= os.O_TRUNC
    if fdflags & abi.FDFLAG_APPEND:
        flags |= os.O_APPEND
    if fdflags & (abi.FDFLAG_SYNC | abi.FDFLAG_RSYNC):
        flags |= _SYNC
    if fdflags & abi.FDFLAG_DSYNC:
        flags |= _DSYNC
    return flags | _OPEN_FILE


def _pack_dirent(packed: bytearray, name: bytes, inode: int, kind: int) -> None:
    next_offset = len(packed) + abi.DIRENT.size + len(name)
    packed += abi.DIRENT.pack(next_offset, inode & 0xFFFF_FFFF_FFFF_FFFF, len(name), kind)
    packed += name


def _is_utf8(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


def _file_type(entry: os.DirEntry[str]) -> int:
    if entry.is_symlink():
        return abi.SYMBOLIC_LINK
    if entry.is_dir(follow_symlinks=False):
        return abi.DIRECTORY
    return abi.REGULAR_FILE if entry.is_file(follow_symlinks=False) else abi.UNKNOWN
