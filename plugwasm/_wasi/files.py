"""A directory tree of the host that a guest may use, and nothing outside of it.

A path is resolved by ``path_resolution``, which cannot leave the tree. What is opened here is a regular file or a directory: pipes, sockets
and devices are ACCES. A name is looked at before it is opened, and opened in a way that cannot block should something else be
swapped in at the last moment.

What the host's system refuses comes out of this module as ``WasiError``, never as ``OSError``.
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

# glibc writes to each block where the file system cannot allocate, so one call must stay small.
MAX_ALLOCATE = 256 * 1024 * 1024

HOST_DESCRIPTORS = 256
"""How many of the process's descriptors are left to the host, whatever all guests together have open; but at most a quarter of all."""

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


class Held(Finalizable):
    """Has a descriptor, as long as its number stands for the file that was opened.

    A process may close all its descriptors (daemons do), and then open others, which get the same numbers. Invariant: each use of `fd`
    looks at what the number stands for first, and gives -1, or raises `WasiError`, if that is another file; `close` leaves that open.
    """

    __slots__ = ("_fd", "_identity")

    def _hold(self, fd: int) -> None:
        self._fd = fd
        self.__del__ = _closing(fd)
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
        """The descriptor."""
        fd = self._held()
        if fd < 0:
            raise WasiError(abi.BADF)
        return fd

    def close(self) -> None:
        """Gives it back."""
        fd = self._held()
        if fd >= 0:
            self._let_go()
            with host_errors:
                os.close(fd)


class Preopen(Held):
    """A host directory that is granted to guests, opened at once and shared by all instances that it is granted to.

    Args:
        host_path: The directory of the host.
        guest_path: The name by which guests know it.
        read_only: Refuse all that would change the tree.

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
                f"allowed_paths grants {self.host_path!r}, but plugins can be given directories on POSIX systems only: "
                "this one cannot open a file relative to a directory without following links"
            )
        try:
            self.guest_name = guest_path.encode()
            self._path = os.path.abspath(self.host_path)  # a daemon has another current directory
            self._hold(os.open(self.host_path, _OPEN_PREOPEN))
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise ManifestError(
                f"allowed_paths grants {self.host_path!r}, which cannot be opened as a directory: {reason}",
                field="allowed_paths",
            ) from error

    def __repr__(self) -> str:
        return f"Preopen({self.host_path!r}, {self.guest_path!r}, read_only={self.read_only})"

    @property
    def fd(self) -> int:
        """The descriptor; -1 after `close`. If that was closed by others, the directory is opened again, if it is the same one."""
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


def _closing(fd: int) -> Callable[[], object]:
    """What closes the descriptor and never raises."""
    close: Callable[[], object] = partial(os.closerange, fd, fd + 1)
    return close


def check_overlaps(preopens: Sequence[Preopen]) -> None:
    """Raises `ManifestError` for two directories of one name, and for a read-only one in a writable one: its `ro:` would promise what does
    not hold."""
    names: dict[str, Preopen] = {}
    for preopen in preopens:
        first = names.setdefault(preopen.guest_path, preopen)
        if first is not preopen:
            raise ManifestError(
                f"allowed_paths grants {first.host_path!r} and {preopen.host_path!r} under one name, {preopen.guest_path!r}",
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
                        f"allowed_paths grants {preopen.host_path!r} read-only, but the plugin may write to it through {other.host_path!r}",
                        field="allowed_paths",
                    )
                above = os.open("..", _LOOK, dir_fd=fd)
                os.close(fd)
                fd = above
                if _identity(os.fstat(fd)) == identity:
                    break
        except OSError:
            pass  # what is above cannot be opened by this process, nor then be granted to a plugin
        finally:
            os.close(fd)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


class File(Held):
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
        """Fill the buffers from the position, or from ``offset``; how many bytes that gave, 0 at the end."""
        with host_errors:
            if not buffers:
                return 0
            return (
                os.readv(self.fd, buffers)
                if offset is None
                else os.preadv(self.fd, buffers, offset)
            )

    def write(self, buffers: Sequence[memoryview], offset: int | None) -> int:
        """Write the buffers at the position, or at ``offset``; how many bytes were taken."""
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
        """Reserve space, and let the file grow to hold it."""
        if not hasattr(os, "posix_fallocate"):
            raise WasiError(abi.NOTSUP)
        if length > MAX_ALLOCATE:
            raise WasiError(abi.FBIG)
        with host_errors:
            os.posix_fallocate(self.fd, offset, length)


class Directory(Held):
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
        """All entries as packed ``dirent`` records of at most ``limit`` bytes together (else NOMEM).

        Each record's cookie is the offset of the next, so cookies hold for as long as this listing is kept. Names that are not
        UTF-8 are left out, since no path of the guest could name them. ``..`` is given the directory's own inode.
        """
        packed = bytearray()
        with host_errors:
            # A descriptor of its own, since reading a directory moves the position that a forked process would share.
            fd = os.open(b".", OPEN_DIRECTORY, dir_fd=self.fd)
            try:
                own = os.fstat(fd).st_ino
                for name in (b".", b".."):
                    _pack(packed, name, own, abi.DIRECTORY)
                with os.scandir(fd) as entries:
                    for entry in entries:
                        name = os.fsencode(entry.name)
                        if _utf8(name):
                            _pack(packed, name, entry.inode(), _kind(entry))
                        if len(packed) > limit:
                            raise WasiError(abi.NOMEM)
            finally:
                os.close(fd)
        return bytes(packed)

    def open(
        self, path: bytes, *, follow: bool, oflags: int, fdflags: int, rights: int
    ) -> File | Directory:
        """Open a regular file or a directory beneath. ``rights`` says whether for reading, writing, or both."""
        _leave_some_to_the_host(self.fd)
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


def _leave_some_to_the_host(directory: int) -> None:
    """MFILE when few descriptors are left. Asked before opening, which may create or truncate."""
    from resource import RLIM_INFINITY, RLIMIT_NOFILE, getrlimit

    limit, _ = getrlimit(RLIMIT_NOFILE)
    if limit == RLIM_INFINITY:
        return
    with host_errors:
        # The system gives out the lowest number that is free, so it tells how many are in use.
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


def _pack(packed: bytearray, name: bytes, inode: int, kind: int) -> None:
    next_offset = len(packed) + abi.DIRENT.size + len(name)
    packed += abi.DIRENT.pack(next_offset, inode & 0xFFFF_FFFF_FFFF_FFFF, len(name), kind)
    packed += name


def _utf8(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


def _kind(entry: os.DirEntry[str]) -> int:
    if entry.is_symlink():
        return abi.SYMBOLIC_LINK
    if entry.is_dir(follow_symlinks=False):
        return abi.DIRECTORY
    return abi.REGULAR_FILE if entry.is_file(follow_symlinks=False) else abi.UNKNOWN
