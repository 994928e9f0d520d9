"""No operation of a guest with paths and links leads out of its granted directories."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugwasm._wasi import abi, path_resolution
from plugwasm._wasi.preview1 import Preopen
from tests.support.granted_directories import ESCAPES, SECRET, open_host_descriptors, plant_escapes
from tests.support.wasi_guest import BOTH, READ, WRITE, Guest, snapshot

pytestmark = pytest.mark.skipif(
    os.name != "posix", reason="directories are granted on POSIX systems only"
)


@pytest.mark.parametrize("path", ESCAPES)
def test_no_path_leads_out(guest: Guest, base: Path, path: str) -> None:
    plant_escapes(base)
    before = snapshot(base)
    assert guest.open(path)[0] == abi.PERM
    assert guest.open(path, WRITE, abi.O_CREAT | abi.O_TRUNC)[0] == abi.PERM
    assert guest.open(path, oflags=abi.O_DIRECTORY)[0] == abi.PERM
    assert guest.stat(path)[0] == abi.PERM
    assert (
        guest.call("path_filestat_set_times", 3, 1, *guest.path(path), 0, 0, abi.SET_MTIM)
        == abi.PERM
    )
    beyond = path + ("x" if path.endswith("/") else "/x")
    assert guest.on_path("path_create_directory", beyond) == abi.PERM
    assert guest.on_path("path_remove_directory", beyond) == abi.PERM
    assert guest.on_path("path_unlink_file", beyond) == abi.PERM
    assert guest.readlink(beyond)[0] == abi.PERM
    assert guest.symlink("file", beyond) == abi.PERM
    assert guest.rename("file", beyond) == abi.PERM
    assert guest.rename(beyond, "stolen") == abi.PERM
    assert guest.link("file", beyond) == abi.PERM
    assert guest.link(beyond, "stolen") == abi.PERM
    assert snapshot(base) == before


def test_opened_directory_is_a_root(guest: Guest) -> None:
    """An opened directory is a root of its own."""
    fd = guest.opened("sub")
    assert guest.open("../file", fd=fd)[0] == abi.PERM
    assert guest.read(guest.opened("inner", fd=fd)) == (0, b"inner")


def test_guest_links_lead_nowhere_outside(guest: Guest, base: Path) -> None:
    """Links that the guest creates do not lead outside."""
    assert guest.symlink("/etc/passwd", "made") == abi.PERM
    assert guest.symlink("../outside/secret", "made") == 0
    assert guest.open("made")[0] == abi.PERM
    assert guest.on_path("path_unlink_file", "made") == 0
    assert (base / "outside" / "secret").read_bytes() == SECRET


def test_link_itself_renamed_and_unlinked(guest: Guest, base: Path) -> None:
    """Renaming and unlinking a link affect the link itself, never its target."""
    plant_escapes(base)
    before = snapshot(base / "outside")
    assert guest.rename("abs", "renamed") == 0
    assert guest.on_path("path_unlink_file", "renamed") == 0
    assert guest.link("out", "linked") == 0
    assert guest.on_path("path_unlink_file", "out") == 0
    assert (
        guest.call("path_filestat_set_times", 3, 0, *guest.path("linked"), 0, 0, abi.SET_MTIM) == 0
    )
    assert snapshot(base / "outside") == before


def test_moved_directory_is_no_way_up(guest: Guest, base: Path) -> None:
    """A directory that is moved while open gives no access to its parents."""
    fd = guest.opened("sub/deep")
    shutil.move(base / "root" / "sub" / "deep", base / "outside" / "deep")
    assert guest.open("../secret", fd=fd)[0] == abi.PERM


def test_directory_swapped_for_link(base: Path) -> None:
    """Swapping a directory for a link during path resolution never shows the outside."""
    root = base / "root"
    guest = Guest(Preopen(root, "/data"))
    (root / "swap").mkdir()
    (root / "swap" / "secret").write_bytes(b"decoy")
    (root / "evil").symlink_to(base / "outside")
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            os.rename(root / "swap", root / "parked")
            os.rename(root / "evil", root / "swap")
            os.rename(root / "swap", root / "evil")
            os.rename(root / "parked", root / "swap")

    thread = threading.Thread(target=swap)
    thread.start()
    seen = set()
    try:
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            for path in ("swap/secret", "swap/../swap/secret"):
                errno, fd = guest.open(path, BOTH)
                seen.add(errno)
                if not errno:
                    assert guest.read(fd) == (0, b"decoy")
                    guest.call("fd_close", fd)
    finally:
        stop.set()
        thread.join()
    assert 0 in seen
    assert seen <= {0, abi.PERM, abi.NOENT, abi.NOTDIR, abi.LOOP, abi.INVAL}


@pytest.mark.parametrize("rights", [READ, WRITE, BOTH, 0])
def test_pipe_or_socket_is_refused(
    guest: Guest, base: Path, rights: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe or a socket is refused without blocking."""
    os.mkfifo(base / "root" / "pipe")
    assert guest.open("pipe", rights)[0] == abi.ACCES
    assert guest.open("pipe", rights, abi.O_CREAT | abi.O_TRUNC)[0] == abi.ACCES
    monkeypatch.chdir(base / "root")  # the name of a socket must be short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        assert guest.open("socket", rights)[0] == abi.ACCES


def test_pipe_swapped_in(guest: Guest, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe swapped in at the last moment neither blocks nor opens."""
    os.mkfifo(base / "root" / "pipe")
    as_it_was = os.stat(base / "root" / "file")
    real = path_resolution._lstat
    monkeypatch.setattr(
        path_resolution, "_lstat", lambda name, fd: as_it_was if name == b"pipe" else real(name, fd)
    )
    before = open_host_descriptors()
    assert guest.open("pipe", READ)[0] == abi.ACCES
    assert guest.open("pipe", WRITE)[0] != 0
    assert open_host_descriptors() == before


def test_link_swapped_in(guest: Guest, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link swapped in at the last moment is not followed."""
    root = base / "root"
    (root / "as_file").symlink_to("../outside/secret")
    (root / "as_directory").symlink_to("../outside")
    before = snapshot(base / "outside")
    seen = {b"as_file": os.stat(root / "file"), b"as_directory": os.stat(root / "sub")}
    real = path_resolution._lstat
    monkeypatch.setattr(
        path_resolution, "_lstat", lambda name, fd: seen.get(name) or real(name, fd)
    )
    for rights in (READ, WRITE, BOTH):
        assert guest.open("as_file", rights)[0] == abi.LOOP
        assert guest.open("as_file", rights, abi.O_TRUNC)[0] == abi.LOOP
        assert guest.open("as_file", rights, abi.O_CREAT)[0] == abi.LOOP
    assert guest.open("as_directory")[0] in (abi.LOOP, abi.NOTDIR)
    assert guest.open("as_directory/secret")[0] in (abi.LOOP, abi.NOTDIR)
    assert (
        guest.call("path_filestat_set_times", 3, 1, *guest.path("as_file"), 0, 0, abi.SET_MTIM) == 0
    )
    assert guest.link("as_file", "linked") == 0
    assert guest.on_path("path_unlink_file", "as_file") == 0
    assert snapshot(base / "outside") == before


def test_exclusive_creation_race(guest: Guest, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exclusive creation fails if a file appears at the last moment."""
    monkeypatch.setattr(path_resolution, "_lstat", lambda name, fd: None)
    assert guest.open("file", WRITE, abi.O_CREAT | abi.O_EXCL | abi.O_TRUNC)[0] == abi.EXIST
    assert (base / "root" / "file").read_bytes() == b"0123456789"


# Any sequence of calls, with any names

NAMES = st.sampled_from(
    [
        *b"a b sub deep file secret outside root .. .. . out abs hop up up3".split(),
        b"",
        b"\xff",
        b"x\0y",
        b"n" * 300,
        "ü".encode(),
    ]
)
PATHS = st.builds(
    lambda names, lead, trail: (
        (b"/" if lead else b"") + b"/".join(names) + (b"/" if trail else b"")
    ),
    st.lists(NAMES, min_size=1, max_size=5),
    st.integers(0, 9).map(lambda n: n == 0),
    st.booleans(),
)
FDS = st.integers(3, 8)
BITS = st.integers(0, 15)
OPERATIONS = st.one_of(
    st.tuples(
        st.just("open"),
        FDS,
        PATHS,
        BITS,
        st.sampled_from([READ, WRITE, BOTH, 0, (1 << 28) - 1]),
        st.integers(0, 1),
    ),
    st.tuples(st.just("rename"), FDS, PATHS, FDS, PATHS),
    st.tuples(st.just("link"), FDS, PATHS, FDS, PATHS),
    st.tuples(st.just("symlink"), FDS, PATHS, PATHS),
    st.tuples(st.just("times"), FDS, PATHS, st.integers(0, 1)),
    st.tuples(
        st.sampled_from(["path_create_directory", "path_remove_directory", "path_unlink_file"]),
        FDS,
        PATHS,
    ),
    st.tuples(st.just("use"), FDS),
)


def perform(guest: Guest, operation: tuple[object, ...]) -> None:
    what, fd, *rest = operation
    if what == "open":
        path, oflags, rights, follow = rest
        guest.open(path, rights, oflags, 0, fd, follow)
    elif what == "rename":
        guest.rename(rest[0], rest[2], fd, rest[1])
    elif what == "link":
        guest.link(rest[0], rest[2], fd, rest[1])
    elif what == "symlink":
        guest.symlink(rest[0], rest[1], fd)
    elif what == "times":
        guest.call(
            "path_filestat_set_times",
            fd,
            rest[1],
            *guest.path(rest[0]),
            0,
            0,
            abi.SET_ATIM | abi.SET_MTIM,
        )
    elif what == "use":
        _, content = guest.pread(fd, 100, 0)
        assert SECRET not in content
        guest.write(fd, b"overwritten")
        guest.call("fd_filestat_set_size", fd, 3)
        guest.call("fd_filestat_set_times", fd, 0, 0, abi.SET_MTIM)
    else:
        guest.on_path(what, rest[0], fd)


@settings(max_examples=150, deadline=None)
@given(st.lists(OPERATIONS, min_size=1, max_size=30))
def test_random_calls_stay_inside(operations: list[tuple[object, ...]]) -> None:
    """No sequence of calls affects anything outside."""
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        (base / "root" / "sub" / "deep").mkdir(parents=True)
        (base / "root" / "file").write_bytes(b"0123456789")
        (base / "outside").mkdir()
        (base / "outside" / "secret").write_bytes(SECRET)
        plant_escapes(base)
        guest = Guest(Preopen(base / "root", "/data"), Preopen(base / "root" / "sub", "/sub"))
        before = snapshot(base / "outside"), sorted(os.listdir(base))
        for operation in operations:
            perform(guest, operation)
        for fd in range(3, 40):
            perform(guest, ("use", fd))
        guest.wasi.close()
        assert (snapshot(base / "outside"), sorted(os.listdir(base))) == before
