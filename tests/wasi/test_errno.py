"""The error number of each WASI preview 1 function, as tables.

The numbers are those of the official host (Wasmtime), unless it has none, or wazero or POSIX have a
better reason. `docs/decisions.md`, 37 lists the differences and why.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import pytest

from plugwasm._wasi import abi
from plugwasm._wasi.preview1 import SIGNATURES, Preopen
from tests.support.wasi_guest import BOTH, DATA, OUT_OF_RANGE, READ, RESULT, WRITE, Guest

pytestmark = pytest.mark.skipif(
    os.name != "posix", reason="directories are granted on POSIX systems only"
)

BIG = 1 << 63
ALL = (1 << 64) - 1


@pytest.fixture
def guest(tmp_path: Path) -> Guest:
    root = tmp_path / "root"
    (root / "sub" / "empty").mkdir(parents=True)
    (root / "file").write_bytes(b"0123456789")
    (root / "sub" / "inner").write_bytes(b"inner")
    for name, target in {
        "link": "file",
        "dlink": "sub",
        "loop": "loop",
        "broken": "nowhere",
        "abs": "/etc",
        "up": "../..",
    }.items():
        (root / name).symlink_to(target)
    return Guest(Preopen(root, "/data"))


def name_of(errno: int) -> str:
    return "ok" if errno == 0 else abi.ERRNO_NAMES[errno]


def call(guest: Guest, name: str, *args: Any) -> str:
    """Call the function. A text argument becomes pointer and length, bytes become a pointer."""
    flat: list[int] = []
    at = 0
    for arg in args:
        if isinstance(arg, int):
            flat.append(arg)
            continue
        data = arg.encode("utf-8", "surrogateescape") if isinstance(arg, str) else arg
        guest.memory.write(at, data)
        flat += [at, len(data)] if isinstance(arg, str) else [at]
        at = (at + len(data) + 15) & ~7
    assert len(flat) == len(SIGNATURES[name]), (name, flat)
    return name_of(guest.call(name, *flat))


# ---- what kind of descriptor ---------------------------------------------------------------------

KINDS = ("none", "stdin", "stdout", "preopen", "directory", "file", "reading", "writing")


def descriptor(guest: Guest, kind: str) -> int:
    fixed = {"none": 99, "stdin": 0, "stdout": 1, "preopen": 3}
    if kind in fixed:
        return fixed[kind]
    if kind == "directory":
        return guest.opened("sub", READ, abi.O_DIRECTORY)
    return guest.opened("file", {"file": BOTH, "reading": READ, "writing": WRITE}[kind])


IOVEC = struct.pack("<II", DATA, 4)
FD = "the descriptor"
BY_KIND: dict[str, tuple[Any, ...]] = {
    "fd_advise": (FD, 0, 0, 0),
    "fd_allocate": (FD, 0, 10),
    "fd_close": (FD,),
    "fd_datasync": (FD,),
    "fd_fdstat_get": (FD, RESULT),
    "fd_fdstat_set_flags": (FD, 0),
    "fd_fdstat_set_rights": (FD, 0, 0),
    "fd_filestat_get": (FD, RESULT),
    "fd_filestat_set_size": (FD, 3),
    "fd_filestat_set_times": (FD, 0, 0, 10),
    "fd_pread": (FD, IOVEC, 1, 0, RESULT),
    "fd_prestat_dir_name": (FD, DATA, 100),
    "fd_prestat_get": (FD, RESULT),
    "fd_pwrite": (FD, IOVEC, 1, 0, RESULT),
    "fd_read": (FD, IOVEC, 1, RESULT),
    "fd_readdir": (FD, DATA, 1000, 0, RESULT),
    "fd_renumber": (FD, 2),
    "fd_renumber-to-it": (1, FD),
    "fd_renumber-to-itself": (FD, FD),
    "fd_renumber-to-none": (FD, 50),
    "fd_seek": (FD, 0, 0, RESULT),
    "fd_sync": (FD,),
    "fd_tell": (FD, RESULT),
    "fd_write": (FD, IOVEC, 1, RESULT),
    "path_create_directory": (FD, "new"),
    "path_filestat_get": (FD, 0, "none", DATA),
    "path_filestat_set_times": (FD, 0, "none", 0, 0, 10),
    "path_link": (FD, 0, "none", 3, "new"),
    "path_link-to-it": (3, 0, "file", FD, "new"),
    "path_open": (FD, 0, "none", 0, READ, 0, 0, RESULT),
    "path_readlink": (FD, "none", DATA, 10, RESULT),
    "path_remove_directory": (FD, "none"),
    "path_rename": (FD, "none", 3, "new"),
    "path_rename-to-it": (3, "file", FD, "new"),
    "path_symlink": ("target", FD, "new"),
    "path_unlink_file": (FD, "none"),
    "sock_accept": (FD, 0, RESULT),
    "sock_recv": (FD, IOVEC, 1, 0, RESULT, DATA),
    "sock_send": (FD, IOVEC, 1, 0, RESULT),
    "sock_shutdown": (FD, 1),
}
EXPECTED_BY_KIND = """
case                     none  stdin    stdout   preopen  directory  file     reading  writing
fd_advise                BADF  BADF     BADF     BADF     BADF       ok       ok       ok
fd_allocate              BADF  BADF     BADF     BADF     BADF       ok       BADF     ok
fd_close                 BADF  ok       ok       ok       ok         ok       ok       ok
fd_datasync              BADF  ok       ok       ok       ok         ok       ok       ok
fd_fdstat_get            BADF  ok       ok       ok       ok         ok       ok       ok
fd_fdstat_set_flags      BADF  ok       ok       ok       ok         ok       ok       ok
fd_fdstat_set_rights     BADF  ok       ok       ok       ok         ok       ok       ok
fd_filestat_get          BADF  ok       ok       ok       ok         ok       ok       ok
fd_filestat_set_size     BADF  BADF     BADF     BADF     BADF       ok       INVAL    ok
fd_filestat_set_times    BADF  BADF     BADF     ok       ok         ok       ok       ok
fd_pread                 BADF  SPIPE    BADF     ISDIR    ISDIR      ok       ok       BADF
fd_prestat_dir_name      BADF  NOTDIR   NOTDIR   ok       NOTDIR     NOTDIR   NOTDIR   NOTDIR
fd_prestat_get           BADF  BADF     BADF     ok       BADF       BADF     BADF     BADF
fd_pwrite                BADF  BADF     SPIPE    BADF     BADF       ok       BADF     ok
fd_read                  BADF  ok       BADF     ISDIR    ISDIR      ok       ok       BADF
fd_readdir               BADF  BADF     BADF     ok       ok         BADF     BADF     BADF
fd_renumber              BADF  ok       ok       ok       ok         ok       ok       ok
fd_renumber-to-it        BADF  ok       ok       ok       ok         ok       ok       ok
fd_renumber-to-itself    BADF  ok       ok       ok       ok         ok       ok       ok
fd_renumber-to-none      BADF  BADF     BADF     BADF     BADF       BADF     BADF     BADF
fd_seek                  BADF  SPIPE    SPIPE    BADF     BADF       ok       ok       ok
fd_sync                  BADF  ok       ok       ok       ok         ok       ok       ok
fd_tell                  BADF  SPIPE    SPIPE    BADF     BADF       ok       ok       ok
fd_write                 BADF  BADF     ok       BADF     BADF       ok       BADF     ok
path_create_directory    BADF  NOTDIR   NOTDIR   ok       ok         NOTDIR   NOTDIR   NOTDIR
path_filestat_get        BADF  NOTDIR   NOTDIR   NOENT    NOENT      NOTDIR   NOTDIR   NOTDIR
path_filestat_set_times  BADF  NOTDIR   NOTDIR   NOENT    NOENT      NOTDIR   NOTDIR   NOTDIR
path_link                BADF  NOTDIR   NOTDIR   NOENT    NOENT      NOTDIR   NOTDIR   NOTDIR
path_link-to-it          BADF  NOTDIR   NOTDIR   ok       ok         NOTDIR   NOTDIR   NOTDIR
path_open                BADF  NOTDIR   NOTDIR   NOENT    NOENT      NOTDIR   NOTDIR   NOTDIR
path_readlink            BADF  NOTDIR   NOTDIR   NOENT    NOENT      NOTDIR   NOTDIR   NOTDIR
path_remove_directory    BADF  NOTDIR   NOTDIR   NOENT    NOENT      NOTDIR   NOTDIR   NOTDIR
path_rename              BADF  NOTDIR   NOTDIR   NOENT    NOENT      NOTDIR   NOTDIR   NOTDIR
path_rename-to-it        BADF  NOTDIR   NOTDIR   ok       ok         NOTDIR   NOTDIR   NOTDIR
path_symlink             BADF  NOTDIR   NOTDIR   ok       ok         NOTDIR   NOTDIR   NOTDIR
path_unlink_file         BADF  NOTDIR   NOTDIR   NOENT    NOENT      NOTDIR   NOTDIR   NOTDIR
sock_accept              BADF  NOTSOCK  NOTSOCK  NOTSOCK  NOTSOCK    NOTSOCK  NOTSOCK  NOTSOCK
sock_recv                BADF  NOTSOCK  NOTSOCK  NOTSOCK  NOTSOCK    NOTSOCK  NOTSOCK  NOTSOCK
sock_send                BADF  NOTSOCK  NOTSOCK  NOTSOCK  NOTSOCK    NOTSOCK  NOTSOCK  NOTSOCK
sock_shutdown            BADF  NOTSOCK  NOTSOCK  NOTSOCK  NOTSOCK    NOTSOCK  NOTSOCK  NOTSOCK
"""


def table(text: str) -> dict[str, dict[str, str]]:
    """Return the rows by name, and in each the cells by column. LONG is short for NAMETOOLONG."""
    head, *rows = [
        ["NAMETOOLONG" if cell == "LONG" else cell for cell in line.split()]
        for line in text.strip("\n").split("\n")
    ]
    found = {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in rows}
    assert len(found) == len(rows)
    return found


@pytest.mark.parametrize("function", BY_KIND)
def test_the_kind_of_a_descriptor(
    function: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    expected = table(EXPECTED_BY_KIND)[function]
    assert tuple(expected) == KINDS
    assert {kind: by_kind(function, kind, tmp_path / kind) for kind in KINDS} == expected


def by_kind(function: str, kind: str, folder: Path) -> str:
    folder.mkdir()
    made: Guest = guest.__wrapped__(folder)  # type: ignore[attr-defined]
    fd = descriptor(made, kind)
    return call(
        made, function.partition("-")[0], *(fd if arg is FD else arg for arg in BY_KIND[function])
    )


def test_descriptor_functions_in_table() -> None:
    """Each function that takes a descriptor is in the table."""
    others = ("args_", "environ_", "clock_", "poll_", "proc_", "random_", "sched_")
    assert {name for name in SIGNATURES if not name.startswith(others)} == {
        function.partition("-")[0] for function in BY_KIND
    }
    assert list(table(EXPECTED_BY_KIND)) == list(BY_KIND)


# ---- where a path leads --------------------------------------------------------------------------

PATHS = {
    "empty": "",
    "absolute": "/file",
    "of-the-preopen": "/data/file",
    "dot": ".",
    "above": "..",
    "above-again": "sub/../../x",
    "nul": "fi\0le",
    "not-UTF-8": "\udcff",
    "long-name": "x" * 300,
    "long-path": "x/" * 2500,
    "none": "none",
    "none/": "none/",
    "none/x": "none/x",
    "file": "file",
    "file/": "file/",
    "file/x": "file/x",
    "file/..": "file/../file",
    "sub": "sub",
    "sub/": "sub/",
    "sub/.": "sub/.",
    "sub/..": "sub/..",
    "sub/empty": "sub/empty",
    "link": "link",
    "link/": "link/",
    "dlink": "dlink",
    "dlink/": "dlink/",
    "dlink/inner": "dlink/inner",
    "loop": "loop",
    "loop/x": "loop/x",
    "broken": "broken",
    "broken/": "broken/",
    "abs": "abs",
    "abs/passwd": "abs/passwd",
    "up": "up",
    "up/x": "up/x",
}
PATH = "the path"


def opening(oflags: int, rights: int, follow: int = 1) -> tuple[Any, ...]:
    return ("path_open", 3, follow, PATH, oflags, rights, 0, 0, RESULT)


BY_PATH: dict[str, tuple[Any, ...]] = {
    "stat": ("path_filestat_get", 3, 1, PATH, DATA),
    "lstat": ("path_filestat_get", 3, 0, PATH, DATA),
    "utime": ("path_filestat_set_times", 3, 1, PATH, 0, 0, 10),
    "read": opening(0, READ),
    "nofollow": opening(0, READ, 0),
    "write": opening(0, WRITE),
    "create": opening(abi.O_CREAT, BOTH),
    "new": opening(abi.O_CREAT | abi.O_EXCL, BOTH),
    "dir": opening(abi.O_DIRECTORY, READ),
    "dir+write": opening(abi.O_DIRECTORY, BOTH),
    "trunc": opening(abi.O_TRUNC, BOTH),
    "mkdir": ("path_create_directory", 3, PATH),
    "rmdir": ("path_remove_directory", 3, PATH),
    "unlink": ("path_unlink_file", 3, PATH),
    "readlink": ("path_readlink", 3, PATH, DATA, 100, RESULT),
    "link": ("path_link", 3, 0, PATH, 3, "new"),
    "link-to": ("path_link", 3, 0, "file", 3, PATH),
    "rename": ("path_rename", 3, PATH, 3, "new"),
    "file-to": ("path_rename", 3, "file", 3, PATH),
    "dir-to": ("path_rename", 3, "sub/empty", 3, PATH),
    "symlink": ("path_symlink", "x", 3, PATH),
    "target": ("path_symlink", PATH, 3, "new"),
}
SAME_RESULTS = {"utime": "stat", "read": "stat", "trunc": "write", "symlink": "link-to"}
"""Operations for which the same is expected as for another, whose column stands for both."""
EXPECTED_BY_PATH = """
case           stat   lstat  nofollow write  create new    dir    dir+write mkdir  rmdir    unlink readlink link   link-to rename file-to dir-to   target
empty          NOENT  NOENT  NOENT    NOENT  NOENT  NOENT  NOENT  NOENT     NOENT  NOENT    NOENT  NOENT    NOENT  NOENT   NOENT  NOENT   NOENT    NOENT
absolute       PERM   PERM   PERM     PERM   PERM   PERM   PERM   PERM      PERM   PERM     PERM   PERM     PERM   PERM    PERM   PERM    PERM     PERM
of-the-preopen PERM   PERM   PERM     PERM   PERM   PERM   PERM   PERM      PERM   PERM     PERM   PERM     PERM   PERM    PERM   PERM    PERM     PERM
dot            ok     ok     ok       ISDIR  ISDIR  EXIST  ok     ISDIR     EXIST  INVAL    ISDIR  INVAL    PERM   EXIST   BUSY   BUSY    BUSY     ok
above          PERM   PERM   PERM     PERM   PERM   PERM   PERM   PERM      PERM   PERM     PERM   PERM     PERM   PERM    PERM   PERM    PERM     ok
above-again    PERM   PERM   PERM     PERM   PERM   PERM   PERM   PERM      PERM   PERM     PERM   PERM     PERM   PERM    PERM   PERM    PERM     ok
nul            INVAL  INVAL  INVAL    INVAL  INVAL  INVAL  INVAL  INVAL     INVAL  INVAL    INVAL  INVAL    INVAL  INVAL   INVAL  INVAL   INVAL    INVAL
not-UTF-8      ILSEQ  ILSEQ  ILSEQ    ILSEQ  ILSEQ  ILSEQ  ILSEQ  ILSEQ     ILSEQ  ILSEQ    ILSEQ  ILSEQ    ILSEQ  ILSEQ   ILSEQ  ILSEQ   ILSEQ    ILSEQ
long-name      LONG   LONG   LONG     LONG   LONG   LONG   LONG   LONG      LONG   LONG     LONG   LONG     LONG   LONG    LONG   LONG    LONG     ok
long-path      LONG   LONG   LONG     LONG   LONG   LONG   LONG   LONG      LONG   LONG     LONG   LONG     LONG   LONG    LONG   LONG    LONG     LONG
none           NOENT  NOENT  NOENT    NOENT  ok     ok     NOENT  NOENT     ok     NOENT    NOENT  NOENT    NOENT  ok      NOENT  ok      ok       ok
none/          NOENT  NOENT  NOENT    NOENT  ISDIR  ISDIR  NOENT  NOENT     ok     NOENT    NOENT  NOENT    NOENT  NOENT   NOENT  NOTDIR  ok       ok
none/x         NOENT  NOENT  NOENT    NOENT  NOENT  NOENT  NOENT  NOENT     NOENT  NOENT    NOENT  NOENT    NOENT  NOENT   NOENT  NOENT   NOENT    ok
file           ok     ok     ok       ok     ok     EXIST  NOTDIR NOTDIR    EXIST  NOTDIR   ok     INVAL    ok     EXIST   ok     ok      NOTDIR   ok
file/          NOTDIR NOTDIR NOTDIR   NOTDIR ISDIR  ISDIR  NOTDIR NOTDIR    EXIST  NOTDIR   NOTDIR NOTDIR   NOTDIR NOTDIR  NOTDIR NOTDIR  NOTDIR   ok
file/x         NOTDIR NOTDIR NOTDIR   NOTDIR NOTDIR NOTDIR NOTDIR NOTDIR    NOTDIR NOTDIR   NOTDIR NOTDIR   NOTDIR NOTDIR  NOTDIR NOTDIR  NOTDIR   ok
file/..        NOTDIR NOTDIR NOTDIR   NOTDIR NOTDIR NOTDIR NOTDIR NOTDIR    NOTDIR NOTDIR   NOTDIR NOTDIR   NOTDIR NOTDIR  NOTDIR NOTDIR  NOTDIR   ok
sub            ok     ok     ok       ISDIR  ISDIR  EXIST  ok     ISDIR     EXIST  NOTEMPTY ISDIR  INVAL    PERM   EXIST   ok     ISDIR   NOTEMPTY ok
sub/           ok     ok     ok       ISDIR  ISDIR  ISDIR  ok     ISDIR     EXIST  NOTEMPTY ISDIR  INVAL    PERM   EXIST   ok     NOTDIR  NOTEMPTY ok
sub/.          ok     ok     ok       ISDIR  ISDIR  EXIST  ok     ISDIR     EXIST  INVAL    ISDIR  INVAL    PERM   EXIST   BUSY   BUSY    BUSY     ok
sub/..         ok     ok     ok       ISDIR  ISDIR  EXIST  ok     ISDIR     EXIST  INVAL    ISDIR  INVAL    PERM   EXIST   BUSY   BUSY    BUSY     ok
sub/empty      ok     ok     ok       ISDIR  ISDIR  EXIST  ok     ISDIR     EXIST  ok       ISDIR  INVAL    PERM   EXIST   ok     ISDIR   ok       ok
link           ok     ok     LOOP     ok     ok     EXIST  NOTDIR NOTDIR    EXIST  NOTDIR   ok     ok       ok     EXIST   ok     ok      NOTDIR   ok
link/          NOTDIR NOTDIR NOTDIR   NOTDIR ISDIR  ISDIR  NOTDIR NOTDIR    EXIST  NOTDIR   NOTDIR NOTDIR   NOTDIR NOTDIR  NOTDIR NOTDIR  NOTDIR   ok
dlink          ok     ok     LOOP     ISDIR  ISDIR  EXIST  ok     ISDIR     EXIST  NOTDIR   ok     ok       ok     EXIST   ok     ok      NOTDIR   ok
dlink/         ok     ok     ok       ISDIR  ISDIR  ISDIR  ok     ISDIR     EXIST  NOTDIR   ISDIR  INVAL    PERM   EXIST   NOTDIR NOTDIR  NOTDIR   ok
dlink/inner    ok     ok     ok       ok     ok     EXIST  NOTDIR NOTDIR    EXIST  NOTDIR   ok     INVAL    ok     EXIST   ok     ok      NOTDIR   ok
loop           LOOP   ok     LOOP     LOOP   LOOP   EXIST  LOOP   LOOP      EXIST  NOTDIR   ok     ok       ok     EXIST   ok     ok      NOTDIR   ok
loop/x         LOOP   LOOP   LOOP     LOOP   LOOP   LOOP   LOOP   LOOP      LOOP   LOOP     LOOP   LOOP     LOOP   LOOP    LOOP   LOOP    LOOP     ok
broken         NOENT  ok     LOOP     NOENT  ok     EXIST  NOENT  NOENT     EXIST  NOTDIR   ok     ok       ok     EXIST   ok     ok      NOTDIR   ok
broken/        NOENT  NOENT  NOENT    NOENT  ISDIR  ISDIR  NOENT  NOENT     EXIST  NOTDIR   NOENT  NOENT    NOENT  NOENT   NOTDIR NOTDIR  NOTDIR   ok
abs            PERM   ok     LOOP     PERM   PERM   EXIST  PERM   PERM      EXIST  NOTDIR   ok     PERM     ok     EXIST   ok     ok      NOTDIR   ok
abs/passwd     PERM   PERM   PERM     PERM   PERM   PERM   PERM   PERM      PERM   PERM     PERM   PERM     PERM   PERM    PERM   PERM    PERM     ok
up             PERM   ok     LOOP     PERM   PERM   EXIST  PERM   PERM      EXIST  NOTDIR   ok     ok       ok     EXIST   ok     ok      NOTDIR   ok
up/x           PERM   PERM   PERM     PERM   PERM   PERM   PERM   PERM      PERM   PERM     PERM   PERM     PERM   PERM    PERM   PERM    PERM     ok
"""


def by_path(path: str, operation: str, folder: Path) -> str:
    folder.mkdir()
    made: Guest = guest.__wrapped__(folder)  # type: ignore[attr-defined]
    name, *args = BY_PATH[operation]
    return call(made, name, *(PATHS[path] if arg is PATH else arg for arg in args))


@pytest.mark.parametrize("operation", BY_PATH)
def test_where_a_path_leads(operation: str, tmp_path: Path) -> None:
    expected = table(EXPECTED_BY_PATH)
    column = SAME_RESULTS.get(operation, operation)
    assert list(expected) == list(PATHS)
    assert {
        path: by_path(path, operation, tmp_path / str(number)) for number, path in enumerate(PATHS)
    } == {path: row[column] for path, row in expected.items()}


def test_path_operations_in_table() -> None:
    """Each operation has a column in the table, or stands for one that has."""
    columns = list(table(EXPECTED_BY_PATH)["empty"])
    assert columns == [operation for operation in BY_PATH if operation not in SAME_RESULTS]
    assert set(SAME_RESULTS.values()) <= set(columns)


# ---- arguments that make no sense ----------------------------------------------------------------

FILE = 4
NOWHERE = struct.pack("<II", OUT_OF_RANGE, 40)
NOTHING = struct.pack("<II", DATA, 0)
ARGUMENTS: list[tuple[str, tuple[Any, ...], str]] = [
    ("fd_advise", (FILE, 0, 0, 6), "INVAL"),
    ("fd_advise", (FILE, BIG, 0, 0), "ok"),
    ("fd_advise", (FILE, 0, BIG, 0), "INVAL"),
    ("fd_allocate", (FILE, 0, 0), "INVAL"),
    ("fd_allocate", (FILE, BIG, 1), "INVAL"),
    ("fd_allocate", (FILE, 0, BIG - 1), "FBIG"),
    ("fd_fdstat_set_flags", (FILE, 32), "INVAL"),
    ("fd_fdstat_set_flags", (FILE, abi.FDFLAG_DSYNC), "INVAL"),
    ("fd_fdstat_set_flags", (FILE, abi.FDFLAG_RSYNC), "INVAL"),
    ("fd_fdstat_set_flags", (FILE, abi.FDFLAG_SYNC), "INVAL"),
    ("fd_fdstat_set_flags", (FILE, abi.FDFLAG_NONBLOCK | abi.FDFLAG_APPEND), "ok"),
    ("fd_fdstat_set_rights", (FILE, ALL, 0), "NOTCAPABLE"),
    ("fd_fdstat_set_rights", (FILE, 0, ALL), "NOTCAPABLE"),
    ("fd_filestat_set_size", (FILE, BIG), "INVAL"),
    ("fd_filestat_set_times", (FILE, 0, 0, 16), "INVAL"),
    ("fd_filestat_set_times", (FILE, 0, 0, 3), "INVAL"),
    ("fd_filestat_set_times", (FILE, 0, 0, 12), "INVAL"),
    ("fd_filestat_set_times", (FILE, 0, 0, 0), "ok"),
    ("fd_pread", (FILE, IOVEC, 1, BIG, RESULT), "INVAL"),
    ("fd_pread", (FILE, IOVEC, 1, 1000, RESULT), "ok"),
    ("fd_pread", (FILE, NOTHING, 1, 0, RESULT), "ok"),
    ("fd_pwrite", (FILE, IOVEC, 1, BIG, RESULT), "INVAL"),
    ("fd_read", (FILE, IOVEC, 0, RESULT), "ok"),
    ("fd_read", (FILE, NOTHING, 1, RESULT), "ok"),
    ("fd_read", (FILE, NOWHERE, 1, RESULT), "FAULT"),
    ("fd_read", (FILE, OUT_OF_RANGE, 1, RESULT), "FAULT"),
    ("fd_read", (FILE, IOVEC, 1, OUT_OF_RANGE), "FAULT"),
    ("fd_write", (FILE, IOVEC, 0, RESULT), "ok"),
    ("fd_write", (FILE, NOTHING, 1, RESULT), "ok"),
    ("fd_write", (FILE, NOWHERE, 1, RESULT), "FAULT"),
    ("fd_write", (FILE, IOVEC, 1, OUT_OF_RANGE), "FAULT"),
    ("fd_seek", (FILE, 0, 3, RESULT), "INVAL"),
    ("fd_seek", (FILE, 0, 255, RESULT), "INVAL"),
    ("fd_seek", (FILE, ALL, 0, RESULT), "INVAL"),
    ("fd_seek", (FILE, ALL, 1, RESULT), "INVAL"),
    ("fd_seek", (FILE, ALL - 10, 2, RESULT), "INVAL"),
    ("fd_seek", (FILE, 1000, 0, RESULT), "ok"),
    ("fd_readdir", (3, DATA, 0, 0, RESULT), "ok"),
    ("fd_readdir", (3, DATA, 5, 0, RESULT), "ok"),
    ("fd_readdir", (3, DATA, 100, 1 << 40, RESULT), "ok"),
    ("fd_readdir", (3, DATA, 100, ALL, RESULT), "ok"),
    ("fd_readdir", (3, OUT_OF_RANGE, 100, 0, RESULT), "FAULT"),
    ("fd_readdir", (3, DATA, 100, 0, OUT_OF_RANGE), "FAULT"),
    ("fd_prestat_dir_name", (3, DATA, 4), "NAMETOOLONG"),
    ("fd_prestat_dir_name", (3, DATA, 5), "ok"),
    ("fd_prestat_dir_name", (3, OUT_OF_RANGE, 50), "FAULT"),
    ("fd_prestat_get", (3, OUT_OF_RANGE), "FAULT"),
    ("path_open", (3, 2, "file", 0, READ, 0, 0, RESULT), "INVAL"),
    ("path_open", (3, 1, "file", 16, READ, 0, 0, RESULT), "INVAL"),
    ("path_open", (3, 1, "file", 0, READ, 0, 32, RESULT), "INVAL"),
    ("path_open", (3, 1, "sub", abi.O_DIRECTORY | abi.O_CREAT, READ, 0, 0, RESULT), "INVAL"),
    ("path_open", (3, 1, "sub", abi.O_DIRECTORY | abi.O_TRUNC, READ, 0, 0, RESULT), "INVAL"),
    ("path_open", (3, 1, "file", abi.O_EXCL, READ, 0, 0, RESULT), "ok"),
    ("path_open", (3, 1, "file", 0, ALL, ALL, 0, RESULT), "ok"),
    ("path_open", (3, 1, "file", 0, 0, 0, 0, RESULT), "ok"),
    ("path_open", (3, 1, OUT_OF_RANGE, 50, 0, READ, 0, 0, RESULT), "FAULT"),
    ("path_open", (3, 1, "file", 0, READ, 0, 0, OUT_OF_RANGE), "FAULT"),
    ("path_create_directory", (3, OUT_OF_RANGE, 50), "FAULT"),
    ("path_filestat_get", (3, 2, "file", DATA), "INVAL"),
    ("path_filestat_get", (3, 0, "file", OUT_OF_RANGE), "FAULT"),
    ("path_filestat_set_times", (3, 0, "file", 0, 0, 3), "INVAL"),
    ("path_filestat_set_times", (3, 0, "file", 0, 0, 16), "INVAL"),
    ("path_link", (3, 1, "file", 3, "new"), "INVAL"),
    ("path_link", (3, 2, "file", 3, "new"), "INVAL"),
    ("path_readlink", (3, "link", DATA, 0, RESULT), "ok"),
    ("path_readlink", (3, "link", DATA, 2, RESULT), "ok"),
    ("path_readlink", (3, "link", OUT_OF_RANGE, 100, RESULT), "FAULT"),
    ("path_rename", (3, "file", 3, "file"), "ok"),
    ("path_rename", (3, "sub", 3, "sub/x"), "INVAL"),
    ("clock_time_get", (0, 0, RESULT), "ok"),
    ("clock_time_get", (1, 0, RESULT), "ok"),
    ("clock_time_get", (2, 0, RESULT), "INVAL"),
    ("clock_time_get", (3, 0, RESULT), "INVAL"),
    ("clock_time_get", (4, 0, RESULT), "INVAL"),
    ("clock_time_get", (0xFFFF_FFFF, 0, RESULT), "INVAL"),
    ("clock_time_get", (0, 0, OUT_OF_RANGE), "FAULT"),
    ("clock_res_get", (0, RESULT), "ok"),
    ("clock_res_get", (2, RESULT), "INVAL"),
    ("clock_res_get", (4, RESULT), "INVAL"),
    ("poll_oneoff", (DATA, DATA, 0, RESULT), "INVAL"),
    ("poll_oneoff", (DATA, DATA, 0x7FFF_FFFF, RESULT), "INVAL"),
    ("poll_oneoff", (struct.pack("<QB39x", 7, 3), DATA, 1, RESULT), "INVAL"),
    ("poll_oneoff", (OUT_OF_RANGE, DATA, 1, RESULT), "FAULT"),
    ("poll_oneoff", (bytes(48), OUT_OF_RANGE, 1, RESULT), "FAULT"),
    ("poll_oneoff", (bytes(48), DATA, 1, OUT_OF_RANGE), "FAULT"),
    ("proc_raise", (9,), "NOTSUP"),
    ("proc_raise", (0,), "NOTSUP"),
    ("proc_raise", (255,), "NOTSUP"),
    ("sched_yield", (), "ok"),
    ("random_get", (DATA, 0), "ok"),
    ("random_get", (OUT_OF_RANGE, 0), "ok"),
    ("random_get", (OUT_OF_RANGE, 100), "FAULT"),
    ("args_sizes_get", (OUT_OF_RANGE, DATA), "FAULT"),
    ("args_get", (OUT_OF_RANGE, OUT_OF_RANGE), "ok"),
    ("environ_sizes_get", (DATA, OUT_OF_RANGE), "FAULT"),
    ("environ_get", (OUT_OF_RANGE, OUT_OF_RANGE), "ok"),
]


@pytest.mark.parametrize(("function", "arguments", "expected"), ARGUMENTS)
def test_arguments(guest: Guest, function: str, arguments: tuple[Any, ...], expected: str) -> None:
    assert guest.opened("file", BOTH) == FILE
    assert call(guest, function, *arguments) == expected


CLOCK = struct.Struct("<QB7xIxxxxQQHxxxxxx")
ON_FD = struct.Struct("<QB7xI28x")


@pytest.mark.parametrize(
    ("subscription", "expected"),
    [
        (CLOCK.pack(7, 0, 1, 1000, 0, 0), "ok"),
        (CLOCK.pack(7, 0, 0, 1000, 0, 0), "ok"),
        (CLOCK.pack(7, 0, 1, 1, 0, 1), "ok"),  # absolute, and long ago
        (CLOCK.pack(7, 0, 0, 1, 0, 1), "ok"),
        (CLOCK.pack(7, 0, 2, 1000, 0, 0), "INVAL"),
        (CLOCK.pack(7, 0, 9, 1000, 0, 0), "INVAL"),
        (CLOCK.pack(7, 0, 1, 1000, 0, 2), "INVAL"),
        (ON_FD.pack(7, 1, 0), "ok"),
        (ON_FD.pack(7, 2, 1), "ok"),
        (ON_FD.pack(7, 1, 1), "BADF"),
        (ON_FD.pack(7, 2, 0), "BADF"),
        (ON_FD.pack(7, 1, 3), "BADF"),
        (ON_FD.pack(7, 2, 3), "BADF"),
        (ON_FD.pack(7, 1, 99), "BADF"),
    ],
)
def test_event_carries_error(guest: Guest, subscription: bytes, expected: str) -> None:
    """An event carries the error of its subscription.

    As wasi-libc expects: one bad descriptor in `poll` is POLLNVAL for that one and does not fail
    the call.
    """
    assert call(guest, "poll_oneoff", subscription, DATA, 1, RESULT) == "ok"
    userdata, error, kind, _, _ = abi.EVENT.unpack(guest.memory.read(DATA, 32))
    assert (userdata, name_of(error), kind) == (7, expected, subscription[8])


def test_new_name_is_not_followed(guest: Guest, tmp_path: Path) -> None:
    """A name that must be new is not followed if it is a link."""
    assert guest.open("broken", BOTH, abi.O_CREAT | abi.O_EXCL)[0] == abi.EXIST
    assert not (tmp_path / "root" / "nowhere").exists()
    assert guest.opened("broken", BOTH, abi.O_CREAT) > 3
    assert (tmp_path / "root" / "nowhere").exists()


def test_read_only_directory_not_writable(tmp_path: Path) -> None:
    """A directory in a read-only tree cannot be opened for writing either."""
    (tmp_path / "sub").mkdir()
    guest = Guest(Preopen(tmp_path, "/", read_only=True))
    assert guest.open("sub", BOTH, abi.O_DIRECTORY)[0] == abi.ISDIR
    assert guest.open("sub", BOTH)[0] == abi.ROFS
    assert guest.open("sub", READ, abi.O_DIRECTORY)[0] == 0


def test_truncated_listing_continues(guest: Guest) -> None:
    """A truncated listing can be continued from its cookies."""
    everything = guest.names(3)
    assert len(everything) == len(set(everything)) == 10
    for length in (24, 30, 45, 70):
        assert guest.names(3, length + 8) == everything
    assert guest.readdir(3, 1 << 40, 100) == (0, b"")
