"""WASI preview 1 as data: its functions, error numbers, rights, flags and record layouts.

The numbers are those of the specification (``typenames.witx``, ``wasi_snapshot_preview1.witx``);
the other modules of this package give them their meaning. ``errno_of`` translates the host's error
numbers.

Decisions: docs/decisions.md, 37.1.
"""

from __future__ import annotations

import errno as _host
from struct import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class WasiMemory(Protocol):
        """A guest's linear memory.

        Each method raises ``MemoryFault`` for offsets and lengths outside it.
        """

        def read(self, offset: int, length: int) -> bytes: ...
        def write(self, offset: int, data: bytes) -> None: ...
        def u32(self, offset: int) -> int: ...
        def view(self, offset: int, length: int) -> memoryview: ...


class MemoryFault(Exception):
    """The guest passed an offset and a length that are not inside its memory."""


class WasiError(Exception):
    """A call of the guest fails with this error number."""

    def __init__(self, errno: int) -> None:
        super().__init__(ERRNO_NAMES[errno])
        self.errno = errno


# One letter for each parameter: i is i32, I is i64. All return an i32 error number, except
# proc_exit, which does not return.
_SHORT = {
    "args_get": "ii",
    "args_sizes_get": "ii",
    "clock_res_get": "ii",
    "clock_time_get": "iIi",
    "environ_get": "ii",
    "environ_sizes_get": "ii",
    "fd_advise": "iIIi",
    "fd_allocate": "iII",
    "fd_close": "i",
    "fd_datasync": "i",
    "fd_fdstat_get": "ii",
    "fd_fdstat_set_flags": "ii",
    "fd_fdstat_set_rights": "iII",
    "fd_filestat_get": "ii",
    "fd_filestat_set_size": "iI",
    "fd_filestat_set_times": "iIIi",
    "fd_pread": "iiiIi",
    "fd_prestat_dir_name": "iii",
    "fd_prestat_get": "ii",
    "fd_pwrite": "iiiIi",
    "fd_read": "iiii",
    "fd_readdir": "iiiIi",
    "fd_renumber": "ii",
    "fd_seek": "iIii",
    "fd_sync": "i",
    "fd_tell": "ii",
    "fd_write": "iiii",
    "path_create_directory": "iii",
    "path_filestat_get": "iiiii",
    "path_filestat_set_times": "iiiiIIi",
    "path_link": "iiiiiii",
    "path_open": "iiiiiIIii",
    "path_readlink": "iiiiii",
    "path_remove_directory": "iii",
    "path_rename": "iiiiii",
    "path_symlink": "iiiii",
    "path_unlink_file": "iii",
    "poll_oneoff": "iiii",
    "proc_exit": "i",
    "proc_raise": "i",
    "random_get": "ii",
    "sched_yield": "",
    "sock_accept": "iii",
    "sock_recv": "iiiiii",
    "sock_send": "iiiii",
    "sock_shutdown": "ii",
}
SIGNATURES: dict[str, tuple[str, ...]] = {
    name: tuple(["i64" if letter == "I" else "i32" for letter in letters])
    for name, letters in _SHORT.items()
}

# The index of a name is its number.
_ERRNOS = """
SUCCESS 2BIG ACCES ADDRINUSE ADDRNOTAVAIL AFNOSUPPORT AGAIN ALREADY BADF BADMSG BUSY CANCELED
CHILD CONNABORTED CONNREFUSED CONNRESET DEADLK DESTADDRREQ DOM DQUOT EXIST FAULT FBIG HOSTUNREACH
IDRM ILSEQ INPROGRESS INTR INVAL IO ISCONN ISDIR LOOP MFILE MLINK MSGSIZE MULTIHOP NAMETOOLONG
NETDOWN NETRESET NETUNREACH NFILE NOBUFS NODEV NOENT NOEXEC NOLCK NOLINK NOMEM NOMSG NOPROTOOPT
NOSPC NOSYS NOTCONN NOTDIR NOTEMPTY NOTRECOVERABLE NOTSOCK NOTSUP NOTTY NXIO OVERFLOW OWNERDEAD
PERM PIPE PROTO PROTONOSUPPORT PROTOTYPE RANGE ROFS SPIPE SRCH STALE TIMEDOUT TXTBSY XDEV
NOTCAPABLE
"""
ERRNO_NAMES = tuple(_ERRNOS.split())
ACCES = 2
BADF = 8
BUSY = 10
EXIST = 20
FAULT = 21
FBIG = 22
ILSEQ = 25
INVAL = 28
IO = 29
ISDIR = 31
LOOP = 32
MFILE = 33
NAMETOOLONG = 37
NOENT = 44
NOMEM = 48
NOTDIR = 54
NOTSOCK = 57
NOTSUP = 58
PERM = 63
ROFS = 69
SPIPE = 70
NOTCAPABLE = 76

_FROM_HOST = {
    getattr(_host, "E" + name): number
    for number, name in enumerate(ERRNO_NAMES)
    if hasattr(_host, "E" + name)
}
_FROM_HOST[_host.EOPNOTSUPP] = NOTSUP  # its own number on macOS


def errno_of(error: OSError) -> int:
    """Return the WASI number for an error of the host's operating system; IO if WASI has none for
    it.
    """
    return _FROM_HOST.get(error.errno or 0, IO)


# Rights.
FD_DATASYNC = 1 << 0
FD_READ = 1 << 1
FD_SEEK = 1 << 2
FD_FDSTAT_SET_FLAGS = 1 << 3
FD_SYNC = 1 << 4
FD_TELL = 1 << 5
FD_WRITE = 1 << 6
FD_ADVISE = 1 << 7
FD_ALLOCATE = 1 << 8
PATH_CREATE_DIRECTORY = 1 << 9
PATH_CREATE_FILE = 1 << 10
PATH_LINK_SOURCE = 1 << 11
PATH_LINK_TARGET = 1 << 12
PATH_OPEN = 1 << 13
FD_READDIR = 1 << 14
PATH_READLINK = 1 << 15
PATH_RENAME_SOURCE = 1 << 16
PATH_RENAME_TARGET = 1 << 17
PATH_FILESTAT_GET = 1 << 18
PATH_FILESTAT_SET_SIZE = 1 << 19
PATH_FILESTAT_SET_TIMES = 1 << 20
FD_FILESTAT_GET = 1 << 21
FD_FILESTAT_SET_SIZE = 1 << 22
FD_FILESTAT_SET_TIMES = 1 << 23
PATH_SYMLINK = 1 << 24
PATH_REMOVE_DIRECTORY = 1 << 25
PATH_UNLINK_FILE = 1 << 26
POLL_FD_READWRITE = 1 << 27

# The rights that apply to each kind of descriptor.
_ANY = FD_DATASYNC | FD_FDSTAT_SET_FLAGS | FD_SYNC | FD_FILESTAT_GET | POLL_FD_READWRITE
FILE_WRITE_RIGHTS = FD_WRITE | FD_ALLOCATE | FD_FILESTAT_SET_SIZE
FILE_RIGHTS = (
    _ANY | FILE_WRITE_RIGHTS | FD_READ | FD_SEEK | FD_TELL | FD_ADVISE | FD_FILESTAT_SET_TIMES
)
DIRECTORY_RIGHTS = (
    (_ANY & ~POLL_FD_READWRITE)
    | (
        PATH_SYMLINK
        | PATH_REMOVE_DIRECTORY
        | PATH_UNLINK_FILE
        | FD_FILESTAT_SET_TIMES
        | PATH_FILESTAT_SET_TIMES
    )
    | (
        PATH_CREATE_DIRECTORY
        | PATH_CREATE_FILE
        | PATH_LINK_SOURCE
        | PATH_LINK_TARGET
        | PATH_OPEN
        | FD_READDIR
        | PATH_READLINK
    )
    | (PATH_RENAME_SOURCE | PATH_RENAME_TARGET | PATH_FILESTAT_GET | PATH_FILESTAT_SET_SIZE)
)
# Without seek and tell, a libc takes it for a terminal, and buffers by lines.
INPUT_RIGHTS = _ANY | FD_READ
OUTPUT_RIGHTS = _ANY | FD_WRITE

# File types.
UNKNOWN = 0
CHARACTER_DEVICE = 2
DIRECTORY = 3
REGULAR_FILE = 4
SYMBOLIC_LINK = 7

# Flags: path lookup, path_open, descriptor, file times, clock subscription, ready event.
LOOKUP_SYMLINK_FOLLOW = 1
O_CREAT = 1
O_DIRECTORY = 2
O_EXCL = 4
O_TRUNC = 8
FDFLAG_APPEND = 1
FDFLAG_DSYNC = 2
FDFLAG_NONBLOCK = 4
FDFLAG_RSYNC = 8
FDFLAG_SYNC = 16
SET_ATIM = 1
SET_ATIM_NOW = 2
SET_MTIM = 4
SET_MTIM_NOW = 8
CLOCK_ABSTIME = 1
EVENT_HANGUP = 1

CLOCK_REALTIME = 0
CLOCK_MONOTONIC = 1
EVENT_CLOCK = 0
EVENT_FD_READ = 1
EVENT_FD_WRITE = 2

# Records, little endian, with the padding of the specification's C layout.
U32 = Struct("<I")
U64 = Struct("<Q")
IOVEC = Struct("<II")  # offset, length
FDSTAT = Struct("<BxHxxxxQQ")  # type, flags, rights, rights of what is opened beneath
FILESTAT = Struct("<QQB7xQQQQQ")  # device, inode, type, links, size, atime, mtime, ctime
PRESTAT = Struct("<BxxxI")  # 0 for a directory, length of its name
DIRENT = Struct("<QQIBxxx")  # cookie of the next entry, inode, length of the name, type
SUBSCRIPTION_HEAD = Struct("<QB7x")  # user data, event type
SUBSCRIPTION_CLOCK = Struct("<IxxxxQQHxxxxxx")  # clock, timeout, precision, flags
SUBSCRIPTION_SIZE = 48
EVENT = Struct("<QHBxxxxxQHxxxxxx")  # user data, error, event type, bytes ready, flags
