"""Nothing changes a directory that is granted read-only (`docs/security.md`, 33)."""

from __future__ import annotations

import itertools
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

import plugwasm
from plugwasm._wasi import abi
from tests.support.file_attacker import MASK, Attacker, plant, state
from tests.support.wasi_guest import BOTH, DATA, IOV, PATH2, READ, RESULT, WRITE, Guest

ALL_RIGHTS = (1 << 28) - 1


CHANGES = {
    "fd_allocate": "lets a file grow",
    "fd_filestat_set_size": "cuts a file, or lets it grow",
    "fd_filestat_set_times": "sets times",
    "fd_pwrite": "writes",
    "fd_write": "writes",
    "path_create_directory": "makes a directory",
    "path_filestat_set_times": "sets times",
    "path_link": "makes a second name, and counts it in the file",
    "path_open": "can create and truncate, and gives what can be written to",
    "path_remove_directory": "removes a directory",
    "path_rename": "moves, and replaces",
    "path_symlink": "makes a link",
    "path_unlink_file": "removes a name",
}
LEAVES = {
    "args_get": "there are no arguments",
    "args_sizes_get": "there are no arguments",
    "clock_res_get": "about clocks",
    "clock_time_get": "about clocks",
    "environ_get": "there is no environment",
    "environ_sizes_get": "there is no environment",
    "fd_advise": "advice about reading, which is not passed on",
    "fd_close": "about the guest's table of descriptors",
    "fd_datasync": "brings to the disk what was written before",
    "fd_fdstat_get": "looks",
    "fd_fdstat_set_flags": "about the descriptor, not the file",
    "fd_fdstat_set_rights": "can only drop rights",
    "fd_filestat_get": "looks",
    "fd_pread": "reads",
    "fd_prestat_dir_name": "looks",
    "fd_prestat_get": "looks",
    "fd_read": "reads",
    "fd_readdir": "reads",
    "fd_renumber": "about the guest's table of descriptors",
    "fd_seek": "about the descriptor, not the file",
    "fd_sync": "brings to the disk what was written before",
    "fd_tell": "looks",
    "path_filestat_get": "looks",
    "path_readlink": "reads",
    "poll_oneoff": "waits",
    "proc_exit": "ends the guest",
    "proc_raise": "there are no signals",
    "random_get": "about randomness",
    "sched_yield": "does nothing",
    "sock_accept": "there are no sockets",
    "sock_recv": "there are no sockets",
    "sock_send": "there are no sockets",
    "sock_shutdown": "there are no sockets",
}

NAMES = (
    "file",
    "link",
    "twin",
    "sub/inner",
    "folder/inner",
    "sub",
    "sub/deep",
    "empty",
    "folder",
    "dangling",
    "new",
    "sub/new",
    ".",
)
WANTED_RIGHTS = (
    0,
    READ,
    WRITE,
    BOTH,
    abi.FILE_WRITE_RIGHTS,
    abi.DIRECTORY_RIGHTS,
    ALL_RIGHTS,
    MASK,
)
TIMES = [
    abi.SET_ATIM,
    abi.SET_ATIM_NOW,
    abi.SET_MTIM,
    abi.SET_MTIM_NOW,
    abi.SET_ATIM | abi.SET_MTIM,
    abi.SET_ATIM_NOW | abi.SET_MTIM_NOW,
]


def changes_through(guest: Guest, fd: int) -> Iterator[tuple[str, int]]:
    """Return everything that could change the file or directory of a descriptor, with the error
    numbers."""
    guest.memory.write(DATA, b"overwritten")
    guest.memory.write(IOV, abi.IOVEC.pack(DATA, 11))
    yield "fd_write", guest.call("fd_write", fd, IOV, 1, RESULT)
    for offset in (0, 3, 2**40):
        yield "fd_pwrite", guest.call("fd_pwrite", fd, IOV, 1, offset, RESULT)
    for offset, length in ((0, 1), (0, 100), (100, 1)):
        yield "fd_allocate", guest.call("fd_allocate", fd, offset, length)
    for size in (0, 3, 7, 100):
        yield "fd_filestat_set_size", guest.call("fd_filestat_set_size", fd, size)
    for flags in TIMES:
        yield "fd_filestat_set_times", guest.call("fd_filestat_set_times", fd, 10**9, 10**9, flags)


def changes_by_path(
    guest: Guest, fd: int, names: tuple[str, ...] = NAMES
) -> Iterator[tuple[str, int]]:
    """Return everything that could change entries below a directory, except opening."""
    for name in names:
        at = guest.path(name)
        for follow in (0, 1):
            for flags in TIMES:
                yield (
                    "path_filestat_set_times",
                    guest.call("path_filestat_set_times", fd, follow, *at, 10**9, 10**9, flags),
                )
        yield "path_create_directory", guest.call("path_create_directory", fd, *at)
        for new in (name, f"{name}.new"):
            yield "path_symlink", guest.symlink("file", new, fd)
        for other in ("file", "new2", "sub/new2", "empty"):
            yield "path_link", guest.link(name, other, fd, fd)
            yield "path_rename", guest.rename(name, other, fd, fd)
        yield "path_remove_directory", guest.call("path_remove_directory", fd, *guest.path(name))
        yield "path_unlink_file", guest.call("path_unlink_file", fd, *guest.path(name))


def openings(guest: Guest, fd: int, name: str) -> Iterator[tuple[int, int, int, int]]:
    """Return the result of `path_open` for every combination of flags: the flags and the error
    number."""
    at = guest.path(name)
    for follow, oflags, fdflags, rights in itertools.product(
        (0, 1), range(16), range(32), WANTED_RIGHTS
    ):
        yield (
            oflags,
            fdflags,
            rights,
            guest.call("path_open", fd, follow, *at, oflags, rights, rights, fdflags, RESULT),
        )


def test_functions_are_classified() -> None:
    """Each WASI function is classified as changing files or not."""
    assert not CHANGES.keys() & LEAVES.keys()
    assert CHANGES.keys() | LEAVES.keys() == set(abi.SIGNATURES)


@pytest.mark.parametrize(
    ("beneath", "name"),
    [
        (None, "file"),
        (None, "new"),
        (None, "link"),
        (None, "sub"),
        ("sub", "inner"),
        ("sub", "new"),
        ("sub", "deep"),
    ],
)
def test_open_gives_nothing_writable(beneath: str | None, name: str, base: Path) -> None:
    """Opening in a read-only directory never returns a descriptor that can write."""
    attacker = Attacker(f"ro:{base / 'granted'}")
    fd = 3 if beneath is None else attacker.opened(beneath, ALL_RIGHTS & ~WRITE)
    before = state(base)
    first_free = fd + 1
    opened = 0
    tried: set[tuple[int, ...]] = set()
    for oflags, fdflags, rights, errno in openings(attacker, fd, name):
        if errno:
            continue
        opened += 1
        assert not oflags & (abi.O_CREAT | abi.O_TRUNC)
        assert not rights & WRITE or oflags & abi.O_DIRECTORY, "a directory is not written to"
        assert attacker.memory.u32(RESULT) == first_free
        kind = (*attacker.fdstat(first_free), oflags, fdflags)
        if kind not in tried:
            tried.add(kind)
            assert attacker.call("fd_fdstat_set_rights", first_free, MASK, MASK) == abi.NOTCAPABLE
            attacker.call("fd_fdstat_set_flags", first_free, abi.FDFLAG_APPEND)
            assert {errno for _, errno in changes_through(attacker, first_free)} == {abi.ROFS}
        assert attacker.call("fd_close", first_free) == 0
    assert (opened > 0) == (name != "new"), "it is there to be read"
    assert state(base) == before


def test_paths_cannot_be_changed(base: Path) -> None:
    """Nothing below a read-only directory can be changed by path."""
    attacker = Attacker(f"ro:{base / 'granted'}")
    before = state(base)
    sub = attacker.opened("folder", ALL_RIGHTS & ~WRITE)
    again = attacker.opened(".", ALL_RIGHTS & ~WRITE)
    deep = attacker.opened("deep", READ, abi.O_DIRECTORY, fd=sub)
    for fd in (3, sub, again, deep):
        assert {errno for _, errno in changes_by_path(attacker, fd)} == {abi.ROFS}
        assert {errno for _, errno in changes_through(attacker, fd)} == {abi.ROFS}
    assert state(base) == before


def test_same_calls_work_when_writable(base: Path) -> None:
    """The calls that fail in a read-only directory work in a writable one.

    Each function that changes files does so in one of the ways that the tests above try.
    """
    worked = set()
    for place in range(4):
        root = plant(base / f"writable{place}")
        attacker = Attacker(root)
        before = state(root)
        if place == 0:
            results = list(changes_by_path(attacker, 3))
        elif place == 1:
            results = list(changes_through(attacker, attacker.opened("file", BOTH)))
        elif place == 2:
            attacker.call(
                "path_open", 3, 0, *attacker.path("new"), abi.O_CREAT, BOTH, BOTH, 0, RESULT
            )
            results = [("path_open", 0)]
        else:
            results = []
            for oflags, _, rights, errno in openings(attacker, 3, "file"):
                if not errno:
                    attacker.call("fd_close", 4)
                    results += (
                        [("path_open", errno)] if oflags & abi.O_TRUNC and rights & WRITE else []
                    )
        worked |= {name for name, errno in results if not errno}
        assert state(root) != before
    assert worked == CHANGES.keys()


def test_reading_functions_change_nothing(base: Path) -> None:
    """Functions classified as reading change no file."""
    attacker = Attacker(f"ro:{base / 'granted'}")
    file, folder = attacker.opened("file"), attacker.opened("sub")
    before = state(base)
    attacker.memory.write(IOV, abi.IOVEC.pack(DATA, 100))
    for name in sorted(LEAVES.keys() - {"proc_exit", "fd_close", "fd_renumber", "poll_oneoff"}):
        params = len(abi.SIGNATURES[name])
        for fd in (0, 1, 2, 3, file, folder):
            for rest in (
                [0] * 9,
                [IOV, 1, 0, RESULT, 0, 0],
                [PATH2, 64, 0, RESULT],
                [0, 5, 0, RESULT],
                [1, *attacker.path("file"), DATA],
            ):
                attacker.call(name, *[fd, *rest, *[0] * params][:params])
    for fd, kind in itertools.product(
        (1, 3, file, folder), (abi.EVENT_FD_READ, abi.EVENT_FD_WRITE)
    ):
        attacker.memory.write(
            DATA, abi.SUBSCRIPTION_HEAD.pack(1, kind) + abi.U32.pack(fd).ljust(32, b"\0")
        )
        assert attacker.call("poll_oneoff", DATA, PATH2, 1, RESULT) == 0
    assert (
        attacker.call("fd_renumber", file, folder)
        == attacker.call("fd_close", folder)
        == attacker.call("fd_close", 3)
        == 0
    )
    with pytest.raises(plugwasm.ExitError):
        attacker.plugin.call("proc_exit", struct.pack("<Q", 3))
    assert state(base) == before


def test_renumbered_descriptor_is_read_only(base: Path) -> None:
    """A renumbered descriptor is still read-only."""
    attacker = Attacker(f"ro:{base / 'granted'}", base / "other")
    before = state(base / "granted")
    file = attacker.opened("file", READ, fd=3)
    writable = attacker.opened("file", BOTH, fd=4)
    assert attacker.call("fd_renumber", file, writable) == 0
    assert {errno for _, errno in changes_through(attacker, writable)} == {abi.ROFS}
    # In place of the standard output, which can be written to.
    assert attacker.call("fd_renumber", writable, 1) == 0
    assert {errno for _, errno in changes_through(attacker, 1)} == {abi.ROFS}
    # In place of the writable directory.
    assert attacker.call("fd_renumber", 3, 4) == 0
    assert {errno for _, errno in changes_by_path(attacker, 4)} == {abi.ROFS}
    assert attacker.open("file", WRITE, fd=4)[0] == abi.ROFS
    assert state(base / "granted") == before


def test_no_moves_in_or_out(base: Path) -> None:
    """Nothing can be moved into or out of a read-only directory."""
    attacker = Attacker(f"ro:{base / 'granted'}", base / "other")
    before = state(base)
    sub = attacker.opened("sub", fd=3)
    for read_only, name in itertools.product((3, sub), (*NAMES, "inner")):
        for mine in ("file", "sub", "empty", "new"):
            results = [
                attacker.rename(name, mine, read_only, 4),
                attacker.rename(mine, name, 4, read_only),
                attacker.link(name, mine, read_only, 4),
                attacker.link(mine, name, 4, read_only),
                attacker.link(name, mine, read_only, 4, flags=1),
            ]
            assert results == [abi.ROFS] * 5, (name, mine)
    assert state(base) == before
    for target in ("../granted/file", "../../granted/file"):
        assert attacker.symlink(target, f"to{len(target)}", fd=4) == 0
        assert attacker.open(f"to{len(target)}", WRITE, fd=4)[0] == abi.PERM
    assert state(base / "granted") == {
        path: kept for path, kept in before.items() if path.startswith(str(base / "granted"))
    }


def test_open_cannot_truncate(base: Path) -> None:
    """A file that cannot be written cannot be truncated by opening it.

    The system truncates also a file that is opened for reading, so such an opening needs the right
    to write.
    """
    attacker = Attacker(base / "granted")
    file = base / "granted" / "file"
    _, _, rights, inheriting = attacker.fdstat(3)
    assert (
        attacker.call("fd_fdstat_set_rights", 3, rights & ~abi.PATH_FILESTAT_SET_SIZE, inheriting)
        == 0
    )
    for wanted in WANTED_RIGHTS:
        assert attacker.open("file", wanted, abi.O_TRUNC)[0] == abi.NOTCAPABLE
    assert file.read_bytes() == b"content"


def _mode(grant: str, base: Path) -> str:
    return f"ro:{base / grant[3:]}" if grant.startswith("ro:") else str(base / grant)


@pytest.mark.parametrize(
    ("grants", "writable"),
    [
        (("ro:granted", "granted/sub"), {4}),
        (("ro:granted", "ro:granted/sub"), set()),
    ],
    ids=["a writable directory in a read-only one", "both read-only"],
)
def test_writable_inside_read_only(grants: tuple[str, str], writable: set[int], base: Path) -> None:
    """A writable directory inside a read-only one is writable."""
    attacker = Attacker(*(_mode(grant, base) for grant in grants))
    paths = [
        os.path.relpath(base / "granted" / "sub" / "inner", base / grant.removeprefix("ro:"))
        for grant in grants
    ]
    for fd, path in zip((3, 4), paths, strict=True):
        errno, opened = attacker.open(path, WRITE, fd=fd)
        assert errno == (0 if fd in writable else abi.ROFS)
        if not errno:
            assert attacker.write(opened, b"I N N")[0] == 0
            assert attacker.call("fd_close", opened) == 0
    for fd, path in zip((3, 4), paths, strict=True):
        assert attacker.read(attacker.opened(path, READ, fd=fd)) == (
            0,
            b"I N N" if writable else b"inner",
        )


@pytest.mark.parametrize("inner", ["granted", "granted/sub", "granted/sub/../sub/.", "a link"])
@pytest.mark.parametrize("order", [1, -1])
def test_read_only_inside_writable_is_refused(inner: str, order: int, base: Path) -> None:
    """A read-only grant inside a writable directory is refused.

    Its `ro:` would promise something that does not hold.
    """
    (base / "a link").symlink_to(base / "granted" / "sub")
    paths = [(f"ro:{base / inner}", "/inner"), (str(base / "granted"), "/granted")][::order]
    with pytest.raises(
        plugwasm.ManifestError, match="read-only, but the plugin may write to it through"
    ):
        plugwasm.CompiledPlugin(
            {"wasm": [{"data": b"(module)"}], "allowed_paths": dict(paths)}, wasi=True
        )


def test_hard_link_in_both_directories(base: Path) -> None:
    """A hard link that the host created is one file in both directories.

    A grant is about names: the file is writable through the writable directory, and no guest can
    create such a link.
    """
    (base / "other" / "shared").hardlink_to(base / "granted" / "file")
    attacker = Attacker(f"ro:{base / 'granted'}", base / "other")
    assert attacker.open("file", WRITE, fd=3)[0] == abi.ROFS
    assert attacker.write(attacker.opened("shared", WRITE, fd=4), b"CONTENT") == (0, 7)
    assert (base / "granted" / "file").read_bytes() == b"CONTENT"
