"""Files, end to end: what plugins with granted directories can reach, change and hold open (cases
32 to 34 of the sandbox).

The plugin below exports each function of WASI preview 1 and makes the call that its input asks for,
so a test is a hostile guest written in Python whose calls go through a real plugin.
"""

from __future__ import annotations

import gc
import itertools
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import plugwasm
from plugwasm._wasi import abi
from tests.support.file_attacker import DRIVER, Attacker, plant, state
from tests.support.guests import manifest
from tests.support.paths import ROOT
from tests.support.waiting import soon
from tests.support.wasi_guest import BOTH, READ, RESULT, WRITE, Guest

# ---- 32: out of the directory --------------------------------------------------------------------

EXCLUSIVE = abi.O_CREAT | abi.O_EXCL
Attempt = Callable[[Guest, str], int]

BY_PATH: dict[str, Attempt] = {
    "open to read": lambda guest, path: guest.open(path, READ)[0],
    "open to write": lambda guest, path: guest.open(path, WRITE)[0],
    "open and create": lambda guest, path: guest.open(path, BOTH, abi.O_CREAT)[0],
    "open and create anew": lambda guest, path: guest.open(path, BOTH, EXCLUSIVE)[0],
    "open and truncate": lambda guest, path: guest.open(path, BOTH, abi.O_TRUNC)[0],
    "open as a directory": lambda guest, path: guest.open(path, READ, abi.O_DIRECTORY)[0],
    "open without following": lambda guest, path: guest.open(path, READ, follow=0)[0],
    "get status": lambda guest, path: guest.stat(path)[0],
    "get status without following": lambda guest, path: guest.stat(path, follow=0)[0],
    "set times": lambda guest, path: guest.call(
        "path_filestat_set_times", 3, 1, *guest.path(path), 1, 1, abi.SET_MTIM | abi.SET_ATIM
    ),
    "set times without following": lambda guest, path: guest.call(
        "path_filestat_set_times", 3, 0, *guest.path(path), 1, 1, abi.SET_MTIM
    ),
    "make a directory": lambda guest, path: guest.on_path("path_create_directory", path),
    "remove a directory": lambda guest, path: guest.on_path("path_remove_directory", path),
    "unlink": lambda guest, path: guest.on_path("path_unlink_file", path),
    "rename from": lambda guest, path: guest.rename(path, "taken"),
    "rename to": lambda guest, path: guest.rename("file", path),
    "link from": lambda guest, path: guest.link(path, "taken"),
    "link to": lambda guest, path: guest.link("file", path),
    "symlink at": lambda guest, path: guest.symlink("file", path),
    "read a link": lambda guest, path: guest.readlink(path)[0],
}
FOLLOWING = (
    "open to read",
    "open to write",
    "open and truncate",
    "open as a directory",
    "get status",
    "set times",
)

LINKS_OUT = {
    "out": "../outside",
    "chain": "out",
    "sub/up": "../..",
    "sub/back": "../../granted/../outside",
    "stolen": "../outside/file",
    "absolute": "{base}/outside",
    "absolute_inside": "{base}/granted/sub",
    "root": "/",
}
LEAD_OUT = [
    "..",
    "../",
    "./..",
    "../outside/file",
    "../outside/new",
    "../granted/file",
    "sub/../..",
    "sub/../../outside/file",
    "sub/deep/../../../outside/file",
    ".//..//outside/file",
    "folder/../../outside/file",
    "/",
    "//",
    "/etc/passwd",
    "{base}/outside/file",
    "{base}/granted/file",
    "out/file",
    "out/new",
    "chain/file",
    "sub/up/outside/file",
    "folder/up/outside/file",
    "sub/back/file",
    "absolute/file",
    "absolute_inside/inner",
    "root/etc/passwd",
    "out/../granted/file",
]


def plant_links_out(base: Path) -> None:
    for name, target in LINKS_OUT.items():
        (base / "granted" / name).symlink_to(target.format(base=base))


@pytest.mark.parametrize("path", LEAD_OUT)
def test_path_leads_out(path: str, base: Path) -> None:
    """No function accepts a path that leads out of the directory."""
    plant_links_out(base)
    attacker = Attacker(base / "granted")
    before = state(base)
    results = {name: attempt(attacker, path.format(base=base)) for name, attempt in BY_PATH.items()}
    assert results == dict.fromkeys(BY_PATH, abi.PERM)
    assert state(base) == before


@pytest.mark.parametrize("name", LINKS_OUT)
@pytest.mark.parametrize("end", ["", "/", "/."])
def test_link_leads_out(name: str, end: str, base: Path) -> None:
    """No function follows a link that leads out of the directory."""
    plant_links_out(base)
    attacker = Attacker(base / "granted")
    before = state(base / "outside")
    for attempt in FOLLOWING:
        assert BY_PATH[attempt](attacker, name + end) == abi.PERM, attempt
    # The others do what they do to the link itself: unlink it, give it another name.
    for attempt in BY_PATH.values():
        attempt(attacker, name + end)
    assert state(base / "outside") == before
    assert sorted(os.listdir(base)) == ["granted", "other", "outside"]


def test_paths_inside(base: Path) -> None:
    """The same functions accept paths that stay inside.

    Otherwise the tests above would also pass for a sandbox that refuses everything.
    """
    places = {
        "open and create": "new1",
        "open and create anew": "new2",
        "open as a directory": "folder",
        "make a directory": "sub/../new3",
        "remove a directory": "sub/deep",
        "rename from": "sub/inner",
        "rename to": "sub/../renamed",
        "link from": "link",
        "link to": "sub/new4",
        "symlink at": "folder/new5",
        "read a link": "folder",
        "unlink": "dangling",
    }
    for name, attempt in BY_PATH.items():
        root = plant(base / name.replace(" ", "_"))
        assert attempt(Attacker(root), places.get(name, "sub/../folder/../file")) == 0, name


def test_opened_directory_is_no_way_up(base: Path) -> None:
    """A directory that the guest opened does not give access to its parent."""
    attacker = Attacker(base / "granted")
    sub = attacker.opened("sub", READ, abi.O_DIRECTORY)
    for path in ("..", "../file", "deep/../..", "deep/../../file", "/", "."):
        expected = 0 if path == "." else abi.PERM
        assert attacker.open(path, READ, fd=sub)[0] == expected, path
        assert attacker.stat(path, fd=sub)[0] == expected, path
    # Nor is it one after it was moved out of where it stood.
    assert attacker.rename("sub", "empty/moved") == 0
    assert attacker.open("../../file", READ, fd=sub)[0] == abi.PERM
    assert attacker.open("inner", READ, fd=sub)[0] == 0


def test_guest_link_leads_nowhere(base: Path) -> None:
    """A link that the guest creates or moves leads nowhere outside."""
    attacker = Attacker(base / "granted")
    before = state(base / "outside")
    for target in ("/", "/etc/passwd", str(base / "granted" / "file")):
        assert attacker.symlink(target, "absolute") == abi.PERM
    # One that leads out can be made, since whether it does depends on where it stands; it cannot be
    # followed.
    assert attacker.symlink("../outside", "made") == 0
    assert attacker.symlink("../../file", "sub/deep/moved") == 0
    assert attacker.open("sub/deep/moved", READ)[0] == 0
    assert attacker.rename("sub/deep/moved", "moved") == 0
    for path in ("made", "made/file", "moved"):
        for rights in (READ, WRITE):
            assert attacker.open(path, rights)[0] == abi.PERM
    assert attacker.link("made", "again") == 0
    assert attacker.open("again/file", READ)[0] == abi.PERM
    assert attacker.rename("made/file", "here") == attacker.link("made/file", "here") == abi.PERM
    assert attacker.rename("file", "made/file") == attacker.link("file", "made/file") == abi.PERM
    assert state(base / "outside") == before


@pytest.mark.parametrize("path", ["file/", "file/.", "link/", "sub/inner/", "new/"])
def test_trailing_slash(path: str, base: Path) -> None:
    """A trailing slash does not make a directory accepted as a file, nor a file as a directory."""
    attacker = Attacker(base / "granted")
    before = state(base)
    for name in (
        "open to read",
        "open to write",
        "open and create",
        "open and truncate",
        "unlink",
        "rename to",
        "link to",
        "symlink at",
    ):
        assert BY_PATH[name](attacker, path) in (abi.NOTDIR, abi.NOENT, abi.ISDIR, abi.EXIST), name
    assert state(base) == before


def test_move_needs_both_writable(base: Path) -> None:
    """A move between two directories needs both to be writable."""
    attacker = Attacker(base / "granted", base / "other")
    assert attacker.rename("file", "moved", 3, 4) == 0
    assert attacker.link("sub/inner", "linked", 3, 4) == 0
    assert (base / "other" / "moved").read_bytes() == b"content"
    assert (base / "other" / "linked").samefile(base / "granted" / "sub" / "inner")
    assert attacker.rename("moved", "../granted/file", 4, 4) == abi.PERM


# ---- 34: the host's descriptors ------------------------------------------------------------------

CAP = 64


def host_descriptors(root: Path) -> int:
    """Return how many descriptors of this process are files of the test, or outside Linux how
    many it has."""
    if sys.platform != "linux":
        return len(os.listdir("/dev/fd"))
    targets = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            targets.append(os.readlink(f"/proc/self/fd/{fd}"))
        except FileNotFoundError:
            pass  # the one that the directory was read with
    return sum(target.startswith(f"{root}/") for target in targets)


@pytest.fixture
def settled(base: Path) -> Path:
    """Return `base` after a garbage collection, so that nothing of earlier tests is closed
    later."""
    gc.collect()
    return base


def open_until_refused(attacker: Attacker, *paths: str, at_most: int = 1000) -> int:
    """Open the paths in turn until it is refused, and return how many succeeded."""
    for n, path in zip(range(at_most), itertools.cycle(paths), strict=False):
        if errno := attacker.open(path)[0]:
            assert errno == abi.MFILE
            return n
    return at_most


@pytest.mark.parametrize(
    "paths",
    [("file",), ("sub",), ("file", "sub", "link", ".", "sub/deep")],
    ids=["files", "directories", "both"],
)
def test_open_files_limit(paths: tuple[str, ...], settled: Path) -> None:
    """A guest that opens files in a loop is stopped at the limit."""
    attacker = Attacker(settled / "granted")
    attacker.opened("file")
    attacker.call("fd_close", 4)
    before = host_descriptors(settled)
    assert open_until_refused(attacker, *paths) == CAP
    assert host_descriptors(settled) == before + CAP
    for path, oflags in itertools.product(
        ("file", "sub", ".", "new", "nowhere/x"), (0, abi.O_CREAT, abi.O_TRUNC)
    ):
        assert attacker.open(path, BOTH, oflags)[0] == abi.MFILE
    assert (settled / "granted" / "file").read_bytes() == b"content", (
        "refused before it is truncated"
    )
    assert not (settled / "granted" / "new").exists()
    # All else goes on working, with no room.
    assert attacker.stat("sub/inner")[0] == attacker.rename("file", "sub/file") == 0
    for room in (1, 3, CAP):
        for fd in range(4, 4 + room):
            assert attacker.call("fd_close", fd) == 0
        assert open_until_refused(attacker, "sub/inner") == room
    assert host_descriptors(settled) == before + CAP


def test_open_files_limit_by_number_tricks(settled: Path) -> None:
    """Renumbering descriptors does not get around the limit."""
    attacker = Attacker(settled / "granted", f"ro:{settled / 'other'}")
    attacker.opened("file")
    attacker.call("fd_close", 5)
    before = host_descriptors(settled)
    sub = attacker.opened("sub")
    for number_ in (0, 1, 2, 4):
        # Files in place of the streams and of a granted directory.
        assert attacker.call("fd_renumber", attacker.opened("file"), number_) == 0
    assert open_until_refused(attacker, "file") == CAP - 5
    assert attacker.call("fd_renumber", 3, 2) == 0, (
        "a granted directory in place of a file: one file less"
    )
    assert attacker.open("file")[0] == abi.BADF, "3 is gone"
    assert attacker.open("inner", fd=sub)[0] == 0
    assert attacker.open("inner", fd=sub)[0] == abi.MFILE
    assert attacker.call("fd_close", 2) == 0, "closing a granted directory makes no room"
    assert attacker.open("inner", fd=sub)[0] == abi.MFILE
    for _ in range(100):
        assert attacker.call("fd_renumber", sub, sub) == 0
    assert attacker.open("inner", fd=sub)[0] == abi.MFILE
    assert host_descriptors(settled) == before + CAP


@pytest.mark.parametrize("limit", [0, 1, CAP - 1, CAP + 1, 200])
def test_the_limit_is_the_applications(limit: int, settled: Path) -> None:
    paths = {str(settled / "granted"): "/"}
    compiled = plugwasm.CompiledPlugin(
        manifest(DRIVER, allowed_paths=paths), wasi=True, limits=plugwasm.Limits(descriptors=limit)
    )
    for _ in range(2):
        attacker = Attacker(compiled=compiled)
        assert open_until_refused(attacker, "file", "sub") == limit, "each instance has as many"


TAKES_DESCRIPTOR = {
    name: 0 for name in abi.SIGNATURES if name.startswith(("fd_", "path_", "sock_"))
} | {"path_symlink": 2}


@pytest.mark.parametrize("fd", [5, 63, 64, 67, 68, 1000, 2**31 - 1, 2**31, 2**32 - 1, 2**32 - 2])
def test_unknown_descriptor(fd: int, settled: Path) -> None:
    """A number that is not an open descriptor is a bad descriptor."""
    attacker = Attacker(settled / "granted")
    attacker.opened("file")
    before, files = host_descriptors(settled), state(settled)
    at = attacker.path("file")
    for name, position in TAKES_DESCRIPTOR.items():
        arguments = [fd, *at, *at, 0, 0, 0, 0]
        if position:
            arguments = [*at, fd, *at]
        assert attacker.call(name, *arguments[: len(abi.SIGNATURES[name])]) == abi.BADF, name
    assert attacker.call("fd_renumber", 4, fd) == abi.BADF
    assert attacker.rename("file", "new", 3, fd) == attacker.link("file", "new", 3, fd) == abi.BADF
    assert (host_descriptors(settled), state(settled)) == (before, files)


def test_descriptors_are_of_guest(base: Path) -> None:
    """Descriptor numbers are the guest's own, not the host's."""
    with (base / "outside" / "file").open("rb") as secret:
        attacker = Attacker(base / "granted")
        for fd in {secret.fileno(), *range(4, 100)}:
            assert attacker.call("fd_fdstat_get", fd, RESULT) == abi.BADF
    assert attacker.opened("file") == 4


ENDINGS: dict[str, type[plugwasm.Error]] = {
    "trap": plugwasm.TrapError,
    "spin": plugwasm.TimeoutError,
    "proc_exit": plugwasm.ExitError,
}


@pytest.mark.parametrize("ending", ["reset", "close", "drop", *ENDINGS])
def test_descriptors_returned_at_end(ending: str, settled: Path) -> None:
    """The host's descriptors are closed however an instance ends."""
    compiled = plugwasm.CompiledPlugin(
        manifest(
            DRIVER,
            allowed_paths={str(settled / "granted"): "/"},
            timeout_ms=500 if ending == "spin" else None,
        ),
        wasi=True,
    )
    Attacker(compiled=compiled).opened("file")
    before = host_descriptors(settled)
    attacker = Attacker(compiled=compiled)
    for _ in range(2):
        if attacker is None or ending in ("close", "drop"):
            attacker = Attacker(compiled=compiled)
        assert open_until_refused(attacker, "file", "sub") == CAP
        if ending in ("reset", "close"):
            getattr(attacker.plugin, ending)()
        elif ending == "drop":
            del attacker
            attacker = None
        else:
            with pytest.raises(ENDINGS[ending]) as caught:
                attacker.plugin.call(ending, struct.pack("<Q", 1))
            del caught
        assert soon(lambda: host_descriptors(settled) <= before), ending


MANY = """
import os, resource, sys
sys.path.insert(0, sys.argv[1])
limit = int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
from tests.security.test_files import open_until_refused
from tests.support.file_attacker import Attacker, compile_for

compiled = compile_for(sys.argv[2])
attackers = [Attacker(compiled=compiled) for _ in range(100)]
opened = [open_until_refused(attacker, "file", "sub", at_most=100) for attacker in attackers]
mine = []
try:
    while len(mine) < limit:
        mine.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
for fd in mine:
    os.close(fd)
# The host still has enough to go on with: a plugin more, a call, a module.
attackers.append(Attacker(compiled=compiled))
attackers[-1].plugin.call("sched_yield")
attackers[0].call("fd_close", 4)
print(max(opened), sum(opened), len(mine), attackers[0].open("new", 64, 1)[0], os.path.exists(sys.argv[2] + "/new"))
"""


@pytest.mark.parametrize(("limit", "kept"), [(256, 64), (1024, 256)])
def test_descriptors_of_hundred_guests(limit: int, kept: int, base: Path) -> None:
    """A hundred guests at their limit leave descriptors for the host.

    A hundred times 64 is more than a process may usually have: then the last quarter of these, at
    most 256, is the host's.
    """
    arguments = [sys.executable, "-c", MANY, str(ROOT), str(base / "granted"), str(limit)]
    child = subprocess.run(arguments, capture_output=True, text=True, timeout=60)
    assert child.returncode == 0, child.stderr
    most, together, left, errno, created = child.stdout.split()
    assert int(most) == CAP
    assert kept <= int(left) <= kept + 1
    assert limit - kept - 60 <= int(together) <= limit - kept
    assert (int(errno), created) in ((0, "True"), (abi.MFILE, "False")), (
        "nothing is created by what is refused"
    )
