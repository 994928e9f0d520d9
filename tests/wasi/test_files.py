"""Operations of a guest on its granted directories."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from plugwasm._wasi import abi, files, path_resolution
from plugwasm._wasi.preview1 import Preopen
from plugwasm.errors import LinkError, ManifestError
from tests.support.granted_directories import ESCAPES, open_host_descriptors, plant_escapes
from tests.support.wasi_guest import BOTH, DATA, PATH, READ, RESULT, WRITE, Guest, snapshot

pytestmark = pytest.mark.skipif(
    os.name != "posix", reason="directories are granted on POSIX systems only"
)


# What is granted works


def test_write_and_read_back(guest: Guest, base: Path) -> None:
    """A written file can be read back."""
    fd = guest.opened("new", BOTH, abi.O_CREAT)
    assert guest.write(fd, b"hello") == (0, 5)
    assert guest.seek(fd, 0, 0) == (0, 0)
    assert guest.read(fd) == (0, b"hello")
    assert guest.read(fd) == (0, b"")
    assert (base / "root" / "new").read_bytes() == b"hello"


def test_seek_and_tell(guest: Guest) -> None:
    """`fd_seek` and `fd_tell` agree from every origin."""
    fd = guest.opened("file")
    assert guest.seek(fd, 4, 0) == (0, 4)
    assert guest.seek(fd, -1, 1) == (0, 3)
    assert guest.seek(fd, -2, 2) == (0, 8)
    assert guest.read(fd) == (0, b"89")
    assert guest.call("fd_tell", fd, RESULT) == 0
    assert guest.memory.u64(RESULT) == 10
    assert guest.seek(fd, -1, 0)[0] == abi.INVAL
    assert guest.seek(fd, 0, 3)[0] == abi.INVAL
    assert guest.call("fd_tell", fd, RESULT) == 0
    assert guest.memory.u64(RESULT) == 10


def test_positioned_reads_and_writes(guest: Guest, base: Path) -> None:
    """Positioned reads and writes do not change the position."""
    fd = guest.opened("file", BOTH)
    assert guest.pread(fd, 3, 5) == (0, b"567")
    assert guest.pwrite(fd, b"AB", 1) == 0
    assert guest.read(fd) == (0, b"0AB3456789")
    assert guest.pread(fd, 1, 1 << 63)[0] == abi.INVAL


def test_append_ignores_position(guest: Guest, base: Path) -> None:
    """In append mode, writes go to the end whatever the position."""
    fd = guest.opened("file", WRITE, fdflags=abi.FDFLAG_APPEND)
    assert guest.fdstat(fd)[1] == abi.FDFLAG_APPEND
    guest.seek(fd, 0, 0)
    assert guest.write(fd, b"+") == (0, 1)
    assert guest.call("fd_fdstat_set_flags", fd, abi.FDFLAG_NONBLOCK) == 0
    guest.seek(fd, 0, 0)
    assert guest.write(fd, b"#") == (0, 1)
    assert (base / "root" / "file").read_bytes() == b"#123456789+"
    assert guest.call("fd_fdstat_set_flags", fd, abi.FDFLAG_SYNC) == abi.INVAL


def test_open_flags(guest: Guest, base: Path) -> None:
    """The flags truncate, exclusive and directory have their effects."""
    assert guest.open("file", WRITE, abi.O_CREAT | abi.O_EXCL)[0] == abi.EXIST
    assert guest.open("file", READ, abi.O_DIRECTORY)[0] == abi.NOTDIR
    assert guest.open("sub", WRITE)[0] == abi.ISDIR
    assert guest.open("sub", READ, abi.O_TRUNC)[0] == abi.ISDIR
    assert guest.open("nothing")[0] == abi.NOENT
    assert guest.open("new", WRITE, abi.O_CREAT | abi.O_DIRECTORY)[0] == abi.INVAL
    guest.opened("file", WRITE, abi.O_TRUNC)
    assert (base / "root" / "file").read_bytes() == b""


def test_sizes_and_times_can_be_set(guest: Guest, base: Path) -> None:
    fd = guest.opened("file", BOTH)
    assert guest.call("fd_filestat_set_size", fd, 4) == 0
    assert (base / "root" / "file").read_bytes() == b"0123"
    assert guest.call("fd_filestat_set_size", fd, 1 << 63) == abi.INVAL
    assert guest.call("fd_filestat_set_times", fd, 5, 7_000_000_001, abi.SET_MTIM) == 0
    assert guest.stat("file")[1][4:7:2] == (4, 7_000_000_001)
    assert (
        guest.call(
            "path_filestat_set_times", 3, 1, *guest.path("file"), 9_000_000_000, 0, abi.SET_ATIM
        )
        == 0
    )
    assert guest.stat("file")[1][5:7] == (9_000_000_000, 7_000_000_001)
    assert (
        guest.call("fd_filestat_set_times", fd, 0, 0, abi.SET_ATIM | abi.SET_ATIM_NOW) == abi.INVAL
    )


def test_time_set_to_application_clock(base: Path) -> None:
    """Setting a time to now uses the application's clock."""
    guest = Guest(Preopen(base / "root", "/data"), now=lambda: 123_000_000_456)
    assert (
        guest.call("path_filestat_set_times", 3, 1, *guest.path("file"), 0, 0, abi.SET_MTIM_NOW)
        == 0
    )
    assert (base / "root" / "file").stat().st_mtime_ns == 123_000_000_456


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="the system cannot reserve space")
def test_allocate_grows_up_to_limit(guest: Guest) -> None:
    """`fd_allocate` grows a file and has a limit per call."""
    fd = guest.opened("file", BOTH)
    assert guest.call("fd_allocate", fd, 5, 100) == 0
    assert guest.stat("file")[1][4] == 105
    assert guest.call("fd_allocate", fd, 0, files.MAX_ALLOCATE + 1) == abi.FBIG
    assert guest.call("fd_allocate", fd, 0, 0) == abi.INVAL
    assert guest.stat("file")[1][4] == 105


def test_make_rename_remove_directory(guest: Guest, base: Path) -> None:
    """Directories can be created, renamed and removed."""
    assert guest.on_path("path_create_directory", "made/") == 0
    assert guest.on_path("path_create_directory", "made") == abi.EXIST
    assert guest.rename("made", "sub/moved/") == 0
    assert abi.ERRNO_NAMES[guest.on_path("path_remove_directory", "sub")] == "NOTEMPTY"
    assert guest.on_path("path_remove_directory", "sub/moved/") == 0
    assert guest.on_path("path_unlink_file", "sub") == abi.ISDIR
    assert guest.on_path("path_remove_directory", "file") == abi.NOTDIR
    assert guest.on_path("path_unlink_file", "file") == 0
    assert sorted(os.listdir(base / "root")) == ["sub"]


def test_links_inside_are_followed(guest: Guest, base: Path) -> None:
    """Links inside the tree are followed on request."""
    assert guest.symlink("../file", "sub/up") == 0
    assert guest.symlink("sub/up", "twice") == 0
    assert guest.read(guest.opened("twice")) == (0, b"0123456789")
    assert guest.open("twice", follow=0)[0] == abi.LOOP
    assert guest.stat("twice", follow=0)[1][2] == abi.SYMBOLIC_LINK
    assert guest.stat("twice")[1][2] == abi.REGULAR_FILE
    assert guest.readlink("sub/up") == (0, b"../file")
    assert guest.readlink("sub/up", 3) == (0, b"../")
    assert guest.readlink("file")[0] == abi.INVAL


def test_link_with_trailing_slash_on_way(guest: Guest) -> None:
    """A link on the way may have a trailing slash."""
    guest.symlink("sub/", "slashed")
    assert guest.read(guest.opened("slashed/inner")) == (0, b"inner")
    guest.symlink("file/", "wrong")
    assert guest.open("wrong")[0] == abi.NOTDIR


def test_create_through_dangling_link(guest: Guest, base: Path) -> None:
    """Creating a file through a dangling link creates its target in the tree."""
    assert guest.symlink("sub/target", "dangling") == 0
    guest.opened("dangling", WRITE, abi.O_CREAT)
    assert (base / "root" / "sub" / "target").is_file()


def test_hard_links_never_follow(guest: Guest, base: Path) -> None:
    guest.symlink("file", "soft")
    assert guest.link("soft", "hard") == 0
    assert os.readlink(base / "root" / "hard") == "file"
    assert guest.link("soft", "other", flags=1) == abi.INVAL
    assert guest.link("file", "second") == 0
    assert guest.stat("file")[1][3] == 2


def test_dot_dot_goes_back(guest: Guest) -> None:
    """`..` returns to the directory through which the path came."""
    assert guest.read(guest.opened("sub/deep/../../sub/./inner")) == (0, b"inner")
    assert guest.stat("sub/..")[1][2] == abi.DIRECTORY
    assert guest.stat(".")[0] == 0
    guest.symlink("sub/deep", "link")
    assert guest.read(guest.opened("link/../inner")) == (0, b"inner")


@pytest.mark.parametrize("path", ["file/", "file/.", "file/..", "file/x", "file//"])
def test_a_file_is_no_directory(guest: Guest, path: str) -> None:
    assert guest.open(path)[0] == abi.NOTDIR
    assert guest.stat(path)[0] == abi.NOTDIR
    assert guest.on_path("path_unlink_file", path) in (abi.NOTDIR, abi.ISDIR)


def test_trailing_slash_means_directory(guest: Guest) -> None:
    """A trailing slash means the directory that a link leads to."""
    guest.symlink("sub", "link")
    assert guest.stat("link", follow=0)[1][2] == abi.SYMBOLIC_LINK
    assert guest.stat("link/", follow=0)[1][2] == abi.DIRECTORY
    assert guest.names(guest.opened("link/", oflags=abi.O_DIRECTORY)) == guest.names(
        guest.opened("sub")
    )
    assert guest.on_path("path_remove_directory", "link/") == abi.NOTDIR
    assert guest.open("new/", WRITE, abi.O_CREAT)[0] == abi.ISDIR
    assert guest.rename("file", "other/") == abi.NOTDIR
    assert guest.symlink("x", "new/") == abi.NOENT


@pytest.mark.parametrize(
    ("path", "errno"),
    [
        (b"", abi.NOENT),
        (b"a\0b", abi.INVAL),
        (b"\xff", abi.ILSEQ),
        (b"\xed\xa0\x80", abi.ILSEQ),
        (b"n" * 256, abi.NAMETOOLONG),
        (b"./" * 2049, abi.NAMETOOLONG),
    ],
)
def test_a_malformed_path_has_its_error(guest: Guest, path: bytes, errno: int) -> None:
    assert guest.open(path, WRITE, abi.O_CREAT)[0] == errno
    assert guest.on_path("path_create_directory", path) == errno


def test_a_walk_is_bounded_in_depth(guest: Guest, base: Path) -> None:
    fd = 3
    for _ in range(path_resolution.MAX_DEPTH + 1):
        guest.on_path("path_create_directory", "d", fd)
        inner = guest.opened("d", fd=fd)
        if fd != 3:
            guest.call("fd_close", fd)
        fd = inner
    assert guest.open("d/" * path_resolution.MAX_DEPTH + "f", WRITE, abi.O_CREAT)[0] == 0
    assert (
        guest.open("d/" * (path_resolution.MAX_DEPTH + 1) + "f", WRITE, abi.O_CREAT)[0]
        == abi.NAMETOOLONG
    )


def test_walk_is_bounded(guest: Guest, base: Path) -> None:
    """Path resolution is bounded in links and in steps."""
    guest.symlink("file", "l1")
    for i in range(2, 42):
        guest.symlink(f"l{i - 1}", f"l{i}")
    assert guest.open("l40")[0] == 0
    assert guest.open("l41")[0] == abi.LOOP
    guest.symlink("self", "self")
    assert guest.open("self")[0] == abi.LOOP
    assert guest.stat("self/x")[0] == abi.LOOP
    guest.symlink("sub/../" * 500, "long")
    assert guest.stat("long/" * 2 + ".")[0] == 0
    assert guest.stat("long/" * 3 + ".")[0] == abi.NAMETOOLONG


def test_descriptor_numbers(guest: Guest) -> None:
    """The lowest free descriptor is used, and descriptors can be renumbered."""
    a, b, c = (guest.opened("file") for _ in range(3))
    assert (a, b, c) == (4, 5, 6)
    guest.call("fd_close", b)
    assert guest.opened("file") == 5
    guest.read(a, 3)
    assert guest.call("fd_renumber", a, c) == 0
    assert guest.read(c) == (0, b"3456789")
    assert guest.read(a)[0] == abi.BADF
    assert guest.call("fd_renumber", c, 99) == abi.BADF
    assert guest.call("fd_close", 99) == abi.BADF


def test_preopen_names(base: Path) -> None:
    """Preopens are listed with their names."""
    guest = Guest(Preopen(base / "root", "/data"), Preopen(base / "root" / "sub", "/ü", True))
    for fd, name in ((3, b"/data"), (4, "/ü".encode())):
        assert guest.call("fd_prestat_get", fd, RESULT) == 0
        assert abi.PRESTAT.unpack(guest.memory.read(RESULT, 8)) == (0, len(name))
        assert guest.call("fd_prestat_dir_name", fd, DATA, len(name)) == 0
        assert guest.memory.read(DATA, len(name)) == name
        assert guest.call("fd_prestat_dir_name", fd, DATA, len(name) - 1) == abi.NAMETOOLONG
    assert guest.call("fd_prestat_get", 5, RESULT) == abi.BADF
    assert guest.call("fd_prestat_get", guest.opened("sub"), RESULT) == abi.BADF


# Reading directories


@pytest.mark.parametrize("length", [40, 64, 100, 4096, 100_000])
def test_readdir_with_any_buffer(guest: Guest, base: Path, length: int) -> None:
    """A directory can be read completely through a buffer of any size."""
    expected = {b".", b".."}
    for i in range(120):
        (base / "root" / "sub" / "deep" / f"n{i}").touch()
        expected.add(b"n%d" % i)
    names = guest.names(guest.opened("sub/deep"), length)
    assert len(names) == 122
    assert set(names) == expected


def test_readdir_cookie_stays_valid(guest: Guest, base: Path) -> None:
    """A cookie stays valid while the directory changes."""
    for i in range(50):
        (base / "root" / "sub" / "deep" / f"n{i:02}").touch()
    fd = guest.opened("sub/deep")
    _, first = guest.readdir(fd, 0, 200)
    cookie = abi.DIRENT.unpack_from(first)[0]
    before = guest.readdir(fd, cookie, 100)
    for i in range(0, 50, 2):
        (base / "root" / "sub" / "deep" / f"n{i:02}").unlink()
    assert guest.readdir(fd, cookie, 100) == before
    assert len(guest.names(fd)) == 27
    assert guest.readdir(fd, 1 << 63, 100) == (0, b"")


def test_readdir_kinds_and_names(guest: Guest, base: Path) -> None:
    """Entries have their types, and names that are not UTF-8 are left out."""
    root = base / "root"
    (root / "link").symlink_to("file")
    os.mkfifo(root / "pipe")
    try:
        (Path(os.fsdecode(os.fsencode(root) + b"/\xff"))).touch()
    except OSError:
        pass  # a file system that has UTF-8 names only
    _, data = guest.readdir(guest.opened("."), 0, 10_000)
    kinds = {}
    at = 0
    while at < len(data):
        _, inode, size, kind = abi.DIRENT.unpack_from(data, at)
        kinds[data[at + 24 : at + 24 + size]] = kind
        at += 24 + size
        if data[at - size : at] == b"file":
            assert inode == (root / "file").stat().st_ino
    assert kinds == {
        b".": abi.DIRECTORY,
        b"..": abi.DIRECTORY,
        b"sub": abi.DIRECTORY,
        b"file": abi.REGULAR_FILE,
        b"link": abi.SYMBOLIC_LINK,
        b"pipe": abi.UNKNOWN,
    }


def test_listings_have_a_limit_together(
    guest: Guest, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(20):
        (base / "root" / "sub" / "deep" / f"n{i:02}").touch()
    monkeypatch.setattr("plugwasm._wasi.descriptors.MAX_LISTINGS", 1000)
    first, second = guest.opened("sub/deep"), guest.opened("sub/deep")
    assert guest.readdir(first, 0, 10)[0] == 0
    assert guest.readdir(second, 0, 10)[0] == abi.NOMEM
    guest.call("fd_close", first)
    assert guest.readdir(second, 0, 10)[0] == 0


# Read-only trees


def writing_calls(guest: Guest, ro: int, rw: int) -> dict[str, int]:
    file = guest.opened("file", fd=ro)
    folder = guest.opened("sub", fd=ro)
    return {
        "open to write": guest.open("file", WRITE, fd=ro)[0],
        "open to read and write": guest.open("file", BOTH, fd=ro)[0],
        "open and create": guest.open("new", READ, abi.O_CREAT, fd=ro)[0],
        "open and create what is there": guest.open("file", READ, abi.O_CREAT, fd=ro)[0],
        "open and truncate": guest.open("file", READ, abi.O_TRUNC, fd=ro)[0],
        "open beneath a directory that was opened": guest.open("inner", WRITE, fd=folder)[0],
        "write": guest.write(file, b"x")[0],
        "pwrite": guest.pwrite(file, b"x", 0),
        "allocate": guest.call("fd_allocate", file, 0, 100),
        "set size": guest.call("fd_filestat_set_size", file, 0),
        "set times": guest.call("fd_filestat_set_times", file, 0, 0, abi.SET_MTIM),
        "set times of a directory": guest.call("fd_filestat_set_times", ro, 0, 0, abi.SET_MTIM),
        "set times by path": guest.call(
            "path_filestat_set_times", ro, 1, *guest.path("file"), 0, 0, abi.SET_MTIM
        ),
        "unlink": guest.on_path("path_unlink_file", "file", ro),
        "mkdir": guest.on_path("path_create_directory", "new", ro),
        "mkdir beneath a directory that was opened": guest.on_path(
            "path_create_directory", "new", folder
        ),
        "rmdir": guest.on_path("path_remove_directory", "sub/deep", ro),
        "rename": guest.rename("file", "new", ro, ro),
        "rename from": guest.rename("file", "new", ro, rw),
        "rename to": guest.rename("file", "new", rw, ro),
        "link": guest.link("file", "new", ro, ro),
        "link from": guest.link("file", "new", ro, rw),
        "link to": guest.link("file", "new", rw, ro),
        "symlink": guest.symlink("file", "new", ro),
    }


def test_read_only_directory(base: Path) -> None:
    """No writing function works in a read-only directory."""
    shutil.copytree(base / "root", base / "other")
    guest = Guest(Preopen(base / "root", "/ro", read_only=True), Preopen(base / "other", "/rw"))
    before = snapshot(base)
    calls = writing_calls(guest, 3, 4)
    assert calls == dict.fromkeys(calls, abi.ROFS)
    assert snapshot(base) == before
    assert guest.read(guest.opened("sub/inner")) == (0, b"inner")


def test_writable_directory(base: Path) -> None:
    """The calls that fail in a read-only directory write in a writable one."""
    shutil.copytree(base / "root", base / "other")
    guest = Guest(Preopen(base / "root", "/rw"), Preopen(base / "other", "/rw2"))
    assert abi.ROFS not in writing_calls(guest, 3, 4).values()


# Rights


def test_file_used_as_opened(guest: Guest) -> None:
    """A file can be used only for what it was opened for."""
    reader, writer = guest.opened("file", READ), guest.opened("file", WRITE)
    assert guest.write(reader, b"x")[0] == abi.BADF
    assert guest.call("fd_filestat_set_size", reader, 0) == abi.INVAL
    assert guest.read(writer)[0] == abi.BADF
    assert guest.pread(writer, 1, 0)[0] == abi.BADF
    assert not guest.fdstat(reader)[2] & WRITE
    assert not guest.fdstat(writer)[2] & READ
    assert guest.read(3)[0] == abi.ISDIR
    assert guest.open("x", fd=reader)[0] == abi.NOTDIR


def test_rights_can_only_be_dropped(guest: Guest) -> None:
    """Rights can be dropped and not regained."""
    fd = guest.opened("file", BOTH)
    _, _, rights, inheriting = guest.fdstat(fd)
    assert guest.call("fd_fdstat_set_rights", fd, rights & ~abi.FD_SEEK, 0) == 0
    assert guest.seek(fd, 0, 0)[0] == abi.NOTCAPABLE
    assert guest.call("fd_fdstat_set_rights", fd, rights, inheriting) == abi.NOTCAPABLE
    _, _, rights, inheriting = guest.fdstat(3)
    assert (
        guest.call("fd_fdstat_set_rights", 3, rights & ~abi.PATH_UNLINK_FILE, inheriting & ~WRITE)
        == 0
    )
    assert guest.on_path("path_unlink_file", "file") == abi.NOTCAPABLE
    assert guest.write(guest.opened("file", BOTH), b"x")[0] == abi.BADF


# The host's descriptors


def test_open_files_limit(base: Path) -> None:
    """The number of open files is limited, and closing one makes room."""
    preopen = Preopen(base / "root", "/data")
    guest = Guest(preopen, max_descriptors=5)
    before = open_host_descriptors()
    results = [guest.open("file")[0] for _ in range(100)]
    assert results == [0] * 5 + [abi.MFILE] * 95
    assert guest.open("sub")[0] == abi.MFILE
    assert open_host_descriptors() == before + 5
    guest.call("fd_close", 4)
    assert guest.call("fd_renumber", 5, 6) == 0
    assert [guest.open("file")[0] for _ in range(3)] == [0, 0, abi.MFILE]
    guest.wasi.close()
    assert open_host_descriptors() == before
    assert guest.open("file")[0] == abi.BADF


def test_no_host_descriptor_leaks(guest: Guest, base: Path) -> None:
    """No call leaks a descriptor of the host."""
    plant_escapes(base)
    before = open_host_descriptors()
    for path in [*ESCAPES, "sub/deep/../inner", "file/x", "sub/none", "sub/deep/n/n"]:
        guest.open(path, WRITE, abi.O_DIRECTORY)
        guest.stat(path)
        guest.rename(path, path)
        guest.link(path, path)
    assert open_host_descriptors() == before


def test_bad_result_pointer(guest: Guest, base: Path) -> None:
    """A call with a bad result pointer opens nothing."""
    before = open_host_descriptors()
    assert (
        guest.call("path_open", 3, 0, *guest.path("new"), abi.O_CREAT, BOTH, 0, 0, 0xFFFF_FFFF)
        == abi.FAULT
    )
    assert open_host_descriptors() == before
    assert not (base / "root" / "new").exists()


def test_ungrantable_directory_is_error(base: Path) -> None:
    """A directory that cannot be granted is a manifest error."""
    for path in ("missing", "root/file"):
        with pytest.raises(ManifestError, match=r"allowed_paths grants .*(missing|file)"):
            Preopen(base / path, "/x")
    with pytest.raises(ManifestError):
        Preopen("nul\0", "/x")
    with pytest.raises(ManifestError):
        Preopen(base, "\ud800")


def test_system_without_confinement(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system without confinement of paths gets a clear error."""
    monkeypatch.setattr(files, "_CONFINED", False)
    with pytest.raises(LinkError, match="POSIX systems only"):
        Preopen(base, "/x")


def test_closed_preopen(base: Path) -> None:
    """A closed preopen is a bad descriptor."""
    preopen = Preopen(base / "root", "/data")
    guest = Guest(preopen)
    preopen.close()
    preopen.close()
    assert guest.open("file")[0] == abi.BADF


def test_path_memory_checked_before_length(guest: Guest) -> None:
    """The memory of a path is checked before its length is used."""
    assert guest.call("path_create_directory", 3, PATH, 0xFFFF_FFFF) == abi.NAMETOOLONG
    assert guest.call("path_create_directory", 3, 0xFFFF_FFF0, 4096) == abi.FAULT
