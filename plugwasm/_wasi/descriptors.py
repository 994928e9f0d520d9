"""The ``fd_*`` functions of WASI preview 1, on a guest's table of descriptors.

Rights:

- A preopen has all rights that apply to a directory.
- A file or directory opened beneath it has all rights that apply to it and that its directory
  passes on, but reading only if asked for, and writing (with allocate and set_size) only if
  ``FD_WRITE`` is asked for.
- A guest can drop rights and never gain any.
- A descriptor without FD_READ or FD_WRITE answers BADF to a read or a write, as in POSIX; a file
  that was not opened for writing answers INVAL to set_size and BADF to allocate; any other missing
  right is NOTCAPABLE.
- An operation that no stream has is SPIPE if it is about a position, and else BADF.
- In a read-only tree every change is ROFS.

Each function gets a view of the memory for its result first, so that a bad pointer of the guest
does not leave something half done.
"""

from __future__ import annotations

import os
from stat import S_ISDIR, S_ISLNK, S_ISREG

from . import abi
from .abi import U32, U64, WasiError
from .files import Directory, File
from .path_resolution import host_errors
from .stdio import Stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .abi import WasiMemory

# One read or write moves at most so many bytes and reports how many; the guest asks again for the
# rest.
MAX_TRANSFER = 16 * 1024 * 1024
MAX_OUTPUT = 64 * 1024
MAX_IOVECS = 1024
# The bytes of all directory listings that a guest has open.
MAX_LISTINGS = 8 * 1024 * 1024

_MAX_OFFSET = (1 << 63) - 1
_SETTABLE = abi.FDFLAG_APPEND | abi.FDFLAG_NONBLOCK
ALL_FDFLAGS = _SETTABLE | abi.FDFLAG_DSYNC | abi.FDFLAG_RSYNC | abi.FDFLAG_SYNC
_READ_WRITE = abi.FD_READ | abi.FD_WRITE


class DescriptorCalls:
    """The functions of ``Wasi`` on descriptors."""

    _table: dict[int, Stream | File | Directory]
    _now: Callable[[], int]
    _opened: int
    _max_descriptors: int

    # Descriptors and arguments

    def _descriptor(self, fd: int) -> Stream | File | Directory:
        found = self._table.get(fd)
        if found is None:
            raise WasiError(abi.BADF)
        return found

    def _stream_or_file(self, fd: int, rights: int, *, changes: bool = False) -> Stream | File:
        found = self._descriptor(fd)
        if changes and found.read_only:
            raise WasiError(abi.ROFS)
        missing = rights & ~found.rights
        if isinstance(found, Directory):
            raise WasiError(abi.ISDIR if rights & abi.FD_READ else abi.BADF)
        if missing & _READ_WRITE:
            raise WasiError(abi.BADF)
        if missing:
            raise WasiError(abi.NOTCAPABLE if isinstance(found, File) else abi.SPIPE)
        return found

    def _file(
        self,
        fd: int,
        rights: int,
        *,
        changes: bool = False,
        unless_writable: int = abi.NOTCAPABLE,
        for_stream: int = abi.SPIPE,
    ) -> File:
        """Return the file of a descriptor.

        Args:
            unless_writable: The error for a file that was not opened for writing.
            for_stream: The error for a stream.
        """
        found = self._descriptor(fd)
        if isinstance(found, Stream) and not rights & _READ_WRITE:
            raise WasiError(for_stream)
        if (
            isinstance(found, File)
            and rights & ~found.rights
            and not (rights & _READ_WRITE or found.rights & abi.FD_WRITE or found.read_only)
        ):
            raise WasiError(unless_writable)
        file = self._stream_or_file(fd, rights, changes=changes)
        if isinstance(file, Stream):
            raise WasiError(abi.SPIPE)
        return file

    def _directory(
        self, fd: int, rights: int, *, changes: bool = False, otherwise: int = abi.NOTDIR
    ) -> Directory:
        found = self._descriptor(fd)
        if not isinstance(found, Directory):
            raise WasiError(otherwise)
        if changes and found.read_only:
            raise WasiError(abi.ROFS)
        if rights & ~found.rights:
            raise WasiError(abi.NOTCAPABLE)
        return found

    def _any(self, fd: int, rights: int, *, changes: bool = False) -> Stream | File | Directory:
        found = self._descriptor(fd)
        if changes and found.read_only:
            raise WasiError(abi.ROFS)
        if rights & ~found.rights:
            raise WasiError(abi.BADF if isinstance(found, Stream) else abi.NOTCAPABLE)
        return found

    def _add(self, opened: File | Directory) -> int:
        fd = 3
        while fd in self._table:
            fd += 1
        self._table[fd] = opened
        self._opened += 1
        return fd

    def _remove(self, fd: int) -> None:
        removed = self._table.pop(fd)
        if isinstance(removed, File) or (
            isinstance(removed, Directory) and removed.preopen is None
        ):
            self._opened -= 1
        removed.close()

    # Reading and writing

    def fd_read(self, memory: WasiMemory, fd: int, iovs: int, iovs_len: int, nread: int) -> int:
        source = self._stream_or_file(fd, abi.FD_READ)
        result = memory.view(nread, 4)
        U32.pack_into(
            result, 0, source.read(read_iovecs(memory, iovs, iovs_len, MAX_TRANSFER), None)
        )
        return 0

    def fd_pread(
        self, memory: WasiMemory, fd: int, iovs: int, iovs_len: int, offset: int, nread: int
    ) -> int:
        source = self._file(fd, abi.FD_READ | abi.FD_SEEK)
        result = memory.view(nread, 4)
        U32.pack_into(
            result,
            0,
            source.read(read_iovecs(memory, iovs, iovs_len, MAX_TRANSFER), _offset(offset)),
        )
        return 0

    def fd_write(self, memory: WasiMemory, fd: int, iovs: int, iovs_len: int, nwritten: int) -> int:
        target = self._stream_or_file(fd, abi.FD_WRITE, changes=True)
        result = memory.view(nwritten, 4)
        limit = MAX_TRANSFER if isinstance(target, File) else MAX_OUTPUT
        U32.pack_into(result, 0, target.write(read_iovecs(memory, iovs, iovs_len, limit), None))
        return 0

    def fd_pwrite(
        self, memory: WasiMemory, fd: int, iovs: int, iovs_len: int, offset: int, nwritten: int
    ) -> int:
        target = self._file(fd, abi.FD_WRITE | abi.FD_SEEK, changes=True)
        result = memory.view(nwritten, 4)
        U32.pack_into(
            result,
            0,
            target.write(read_iovecs(memory, iovs, iovs_len, MAX_TRANSFER), _offset(offset)),
        )
        return 0

    def fd_seek(self, memory: WasiMemory, fd: int, offset: int, whence: int, newoffset: int) -> int:
        file = self._file(fd, abi.FD_SEEK)
        result = memory.view(newoffset, 8)
        if whence > 2:
            raise WasiError(abi.INVAL)
        signed = offset - (1 << 64) if offset > _MAX_OFFSET else offset
        with host_errors:
            U64.pack_into(
                result,
                0,
                os.lseek(file.fd, signed, (os.SEEK_SET, os.SEEK_CUR, os.SEEK_END)[whence]),
            )
        return 0

    def fd_tell(self, memory: WasiMemory, fd: int, offset: int) -> int:
        file = self._file(fd, abi.FD_TELL)
        result = memory.view(offset, 8)
        with host_errors:
            U64.pack_into(result, 0, os.lseek(file.fd, 0, os.SEEK_CUR))
        return 0

    # Descriptors

    def fd_advise(self, memory: WasiMemory, fd: int, offset: int, length: int, advice: int) -> int:
        """Check the arguments. The advice is not passed on: the page cache is the host's."""
        self._file(fd, abi.FD_ADVISE, for_stream=abi.BADF)
        if advice > 5:
            raise WasiError(abi.INVAL)
        _offset(length)
        return 0

    def fd_allocate(self, memory: WasiMemory, fd: int, offset: int, length: int) -> int:
        file = self._file(
            fd, abi.FD_ALLOCATE, changes=True, unless_writable=abi.BADF, for_stream=abi.BADF
        )
        if not length:
            raise WasiError(abi.INVAL)
        file.allocate(_offset(offset), _offset(length))
        return 0

    def fd_close(self, memory: WasiMemory, fd: int) -> int:
        self._descriptor(fd)
        self._remove(fd)
        return 0

    def fd_datasync(self, memory: WasiMemory, fd: int) -> int:
        _sync(self._any(fd, abi.FD_DATASYNC), getattr(os, "fdatasync", os.fsync))
        return 0

    def fd_sync(self, memory: WasiMemory, fd: int) -> int:
        _sync(self._any(fd, abi.FD_SYNC), os.fsync)
        return 0

    def fd_fdstat_get(self, memory: WasiMemory, fd: int, stat: int) -> int:
        found = self._descriptor(fd)
        memory.write(
            stat, abi.FDSTAT.pack(found.filetype, found.flags, found.rights, found.inheriting)
        )
        return 0

    def fd_fdstat_set_flags(self, memory: WasiMemory, fd: int, flags: int) -> int:
        """Switch append and non-blocking (which has no effect here); synchronisation is fixed on
        opening.
        """
        found = self._any(fd, abi.FD_FDSTAT_SET_FLAGS)
        if flags & ~ALL_FDFLAGS:
            raise WasiError(abi.INVAL)
        changed = flags ^ found.flags
        if changed & ~_SETTABLE:
            raise WasiError(abi.INVAL)
        if changed & abi.FDFLAG_APPEND and isinstance(found, File):
            found.set_append(bool(flags & abi.FDFLAG_APPEND))
        found.flags = flags
        return 0

    def fd_fdstat_set_rights(
        self, memory: WasiMemory, fd: int, rights_base: int, rights_inheriting: int
    ) -> int:
        found = self._descriptor(fd)
        if rights_base & ~found.rights or rights_inheriting & ~found.inheriting:
            raise WasiError(abi.NOTCAPABLE)
        found.rights = rights_base
        found.inheriting = rights_inheriting
        return 0

    def fd_filestat_get(self, memory: WasiMemory, fd: int, buf: int) -> int:
        found = self._any(fd, abi.FD_FILESTAT_GET)
        if isinstance(found, Stream):
            memory.write(buf, abi.FILESTAT.pack(0, 0, abi.CHARACTER_DEVICE, 1, 0, 0, 0, 0))
            return 0
        with host_errors:
            stat = os.fstat(found.fd)
        memory.write(buf, pack_filestat(stat))
        return 0

    def fd_filestat_set_size(self, memory: WasiMemory, fd: int, size: int) -> int:
        file = self._file(
            fd,
            abi.FD_FILESTAT_SET_SIZE,
            changes=True,
            unless_writable=abi.INVAL,
            for_stream=abi.BADF,
        )
        with host_errors:
            os.ftruncate(file.fd, _offset(size))
        return 0

    def fd_filestat_set_times(
        self, memory: WasiMemory, fd: int, atim: int, mtim: int, fst_flags: int
    ) -> int:
        found = self._any(fd, abi.FD_FILESTAT_SET_TIMES, changes=True)
        with host_errors:
            os.utime(found.fd, ns=self._times(os.fstat(found.fd), atim, mtim, fst_flags))
        return 0

    def fd_prestat_get(self, memory: WasiMemory, fd: int, buf: int) -> int:
        memory.write(buf, abi.PRESTAT.pack(0, len(self._preopen_name(fd, abi.BADF))))
        return 0

    def fd_prestat_dir_name(self, memory: WasiMemory, fd: int, path: int, path_len: int) -> int:
        name = self._preopen_name(fd, abi.NOTDIR)
        if path_len < len(name):
            raise WasiError(abi.NAMETOOLONG)
        memory.write(path, name)
        return 0

    def _preopen_name(self, fd: int, otherwise: int) -> bytes:
        found = self._descriptor(fd)
        if not isinstance(found, Directory) or found.preopen is None:
            raise WasiError(otherwise)
        return found.preopen.guest_name

    def fd_readdir(
        self, memory: WasiMemory, fd: int, buf: int, buf_len: int, cookie: int, bufused: int
    ) -> int:
        """Write entries from a cookie on.

        A cookie is an offset into the listing, which cookie 0 renews.
        """
        directory = self._directory(fd, abi.FD_READDIR, otherwise=abi.BADF)
        result = memory.view(bufused, 4)
        if not cookie or not directory.listing:
            directory.listing = b""
            others = sum(
                len(other.listing) for other in self._table.values() if isinstance(other, Directory)
            )
            directory.listing = directory.list(MAX_LISTINGS - others)
        part = directory.listing[cookie : cookie + buf_len]
        memory.write(buf, part)
        U32.pack_into(result, 0, len(part))
        return 0

    def fd_renumber(self, memory: WasiMemory, fd: int, to: int) -> int:
        self._descriptor(fd)
        self._descriptor(to)
        if fd != to:
            self._remove(to)
            self._table[to] = self._table.pop(fd)
        return 0

    def _times(self, stat: os.stat_result, atim: int, mtim: int, flags: int) -> tuple[int, int]:
        accessed = flags & (abi.SET_ATIM | abi.SET_ATIM_NOW)
        modified = flags & (abi.SET_MTIM | abi.SET_MTIM_NOW)
        both = (abi.SET_ATIM | abi.SET_ATIM_NOW, abi.SET_MTIM | abi.SET_MTIM_NOW)
        if flags & ~(both[0] | both[1]) or accessed == both[0] or modified == both[1]:
            raise WasiError(abi.INVAL)
        now = self._now() if flags & (abi.SET_ATIM_NOW | abi.SET_MTIM_NOW) else 0
        return (
            {0: stat.st_atime_ns, abi.SET_ATIM: atim, abi.SET_ATIM_NOW: now}[accessed],
            {0: stat.st_mtime_ns, abi.SET_MTIM: mtim, abi.SET_MTIM_NOW: now}[modified],
        )


def read_iovecs(memory: WasiMemory, iovs: int, count: int, room: int) -> list[memoryview]:
    """Return the first of the guest's buffers, ``room`` bytes together.

    A guest may name 2^32 buffers of 2^32 bytes each.
    """
    buffers = []
    for offset, length in abi.IOVEC.iter_unpack(
        memory.read(iovs, min(count, MAX_IOVECS) * abi.IOVEC.size)
    ):
        if length:
            buffers.append(memory.view(offset, min(length, room)))
            room -= len(buffers[-1])
            if not room:
                break
    return buffers


def _offset(claim: int) -> int:
    if claim > _MAX_OFFSET:
        raise WasiError(abi.INVAL)
    return claim


def _sync(found: Stream | File | Directory, sync: Callable[[int], None]) -> None:
    if not isinstance(found, Stream):
        with host_errors:
            sync(found.fd)


def pack_filestat(stat: os.stat_result) -> bytes:
    mode = stat.st_mode
    if S_ISREG(mode):
        kind = abi.REGULAR_FILE
    elif S_ISDIR(mode):
        kind = abi.DIRECTORY
    else:
        kind = abi.SYMBOLIC_LINK if S_ISLNK(mode) else abi.UNKNOWN
    mask = 0xFFFF_FFFF_FFFF_FFFF  # a time before 1970 is negative
    times = (stat.st_atime_ns & mask, stat.st_mtime_ns & mask, stat.st_ctime_ns & mask)
    return abi.FILESTAT.pack(
        stat.st_dev & mask, stat.st_ino & mask, kind, stat.st_nlink, stat.st_size, *times
    )
