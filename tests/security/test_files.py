"""Files, end to end: what plugins with granted directories can reach, change and hold open (cases 32 to 34 of the sandbox).

The plugin below has one export for each function of WASI preview 1, and makes the call that its input asks for. So a test is a hostile guest
that is written in Python, and goes through a plugin's whole way to the host's files and back.
"""

from __future__ import annotations

import gc
import itertools
import os
import stat
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import plugwasm
from plugwasm import Plugin
from plugwasm._wasi import abi
from tests.support.guests import export, guest, manifest, number
from tests.support.paths import ROOT
from tests.support.waiting import soon
from tests.support.wasi_guest import BOTH, DATA, IOV, PATH2, READ, RESULT, WRITE, Guest

MASK = 2**64 - 1
ALL_RIGHTS = (1 << 28) - 1


def _call(name: str, params: tuple[str, ...]) -> str:
    loads = [f"(call $input_load_u64 (i64.const {8 * i}))" for i in range(len(params))]
    arguments = [
        load if param == "i64" else f"(i32.wrap_i64 {load})"
        for load, param in zip(loads, params, strict=True)
    ]
    return f"(call $wasi_{name} {' '.join(arguments)})"


DRIVER = guest(
    "".join(
        export(
            name,
            _call(name, params)
            if name == "proc_exit"
            else f"(call $answer (i64.extend_i32_u {_call(name, params)}))",
        )
        for name, params in abi.SIGNATURES.items()
    )
    + """
    (func (export "peek")
      (call $give (call $put (i32.wrap_i64 (call $input_load_u64 (i64.const 0))) (i32.wrap_i64 (call $input_load_u64 (i64.const 8))))))
    (func (export "poke") (local $i i64)
      (local.set $i (i64.const 8))
      (block $done (loop $next
        (br_if $done (i64.ge_u (local.get $i) (call $input_length)))
        (i32.store8 (i32.add (i32.wrap_i64 (call $input_load_u64 (i64.const 0))) (i32.wrap_i64 (i64.sub (local.get $i) (i64.const 8))))
                    (call $input_load_u8 (local.get $i)))
        (local.set $i (i64.add (local.get $i) (i64.const 1)))
        (br $next))))
    (func (export "spin") (loop $forever (br $forever)))
    (func (export "trap") unreachable)""",
    *(
        f'(import "wasi_snapshot_preview1" "{name}" (func $wasi_{name} (param {" ".join(params)}) '
        f"{'' if name == 'proc_exit' else '(result i32)'}))"
        for name, params in abi.SIGNATURES.items()
    ),
    memory='(memory (export "memory") 17)',
)


class PluginMemory:
    def __init__(self, plugin: Plugin) -> None:
        self.plugin = plugin

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self.plugin.call("peek", struct.pack("<QQ", offset, length)))

    def write(self, offset: int, data: bytes) -> None:
        self.plugin.call("poke", struct.pack("<Q", offset) + data)

    def u32(self, offset: int) -> int:
        return int.from_bytes(self.read(offset, 4), "little")

    def u64(self, offset: int) -> int:
        return int.from_bytes(self.read(offset, 8), "little")


class Attacker(Guest):
    """A guest of a real plugin; its first granted directory is descriptor 3, the next one 4."""

    def __init__(
        self, *granted: str | Path, compiled: plugwasm.CompiledPlugin | None = None
    ) -> None:
        self.plugin = Plugin(compiled or compile_for(*granted))
        self.memory = PluginMemory(self.plugin)  # type: ignore[assignment]

    def call(self, name: str, *args: int) -> int:
        return number(
            self.plugin.call(name, struct.pack(f"<{len(args)}Q", *(arg & MASK for arg in args)))
        )


def compile_for(*granted: str | Path) -> plugwasm.CompiledPlugin:
    paths = {str(path): f"/{i}" for i, path in enumerate(granted)}
    return plugwasm.CompiledPlugin(manifest(DRIVER, allowed_paths=paths), wasi=True)


def state(*roots: Path) -> dict[str, object]:
    """All that a change would show in: names, contents, and of each name the inode, links, mode, owner and the times of change."""
    seen: dict[str, object] = {}
    for path in itertools.chain.from_iterable([root, *root.rglob("*")] for root in roots):
        status = path.lstat()
        content: object = None
        if stat.S_ISREG(status.st_mode):
            content = path.read_bytes()
        elif stat.S_ISLNK(status.st_mode):
            content = os.readlink(path)
        kept = (
            status.st_ino,
            status.st_nlink,
            status.st_mode,
            status.st_uid,
            status.st_size,
            status.st_mtime_ns,
            status.st_ctime_ns,
        )
        seen[str(path)] = (kept, content)
    return seen


def plant(root: Path) -> Path:
    """A small tree: files and directories, and links that lead to them."""
    (root / "sub" / "deep").mkdir(parents=True)
    (root / "file").write_bytes(b"content")
    (root / "sub" / "inner").write_bytes(b"inner")
    (root / "empty").mkdir()
    (root / "link").symlink_to("file")
    (root / "folder").symlink_to("sub")
    (root / "dangling").symlink_to("nowhere")
    (root / "twin").hardlink_to(root / "sub" / "inner")
    return root


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """`granted`, `other`: trees to grant. `outside`: what nobody granted."""
    for name in ("granted", "other", "outside"):
        plant(tmp_path / name)
    (tmp_path / "outside" / "file").write_bytes(b"secret")
    return tmp_path


# ---- 32: out of the directory -------------------------------------------------------------------------------------------------------------

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
def test_no_function_takes_a_path_that_leads_out(path: str, base: Path) -> None:
    plant_links_out(base)
    attacker = Attacker(base / "granted")
    before = state(base)
    results = {name: attempt(attacker, path.format(base=base)) for name, attempt in BY_PATH.items()}
    assert results == dict.fromkeys(BY_PATH, abi.PERM)
    assert state(base) == before


@pytest.mark.parametrize("name", LINKS_OUT)
@pytest.mark.parametrize("end", ["", "/", "/."])
def test_no_function_follows_a_link_that_leads_out(name: str, end: str, base: Path) -> None:
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


def test_the_same_functions_take_paths_that_stay_inside(base: Path) -> None:
    """Without this, the tests above would hold for a sandbox that refuses everything."""
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


def test_a_directory_that_was_opened_is_no_way_up(base: Path) -> None:
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


def test_a_link_that_the_guest_makes_or_moves_leads_nowhere(base: Path) -> None:
    attacker = Attacker(base / "granted")
    before = state(base / "outside")
    for target in ("/", "/etc/passwd", str(base / "granted" / "file")):
        assert attacker.symlink(target, "absolute") == abi.PERM
    # One that leads out can be made, since whether it does depends on where it stands; it cannot be followed.
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
def test_a_slash_at_the_end_makes_no_file_of_a_directory_nor_the_other_way(
    path: str, base: Path
) -> None:
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


def test_between_two_directories_things_move_only_when_both_are_writable(base: Path) -> None:
    attacker = Attacker(base / "granted", base / "other")
    assert attacker.rename("file", "moved", 3, 4) == 0
    assert attacker.link("sub/inner", "linked", 3, 4) == 0
    assert (base / "other" / "moved").read_bytes() == b"content"
    assert (base / "other" / "linked").samefile(base / "granted" / "sub" / "inner")
    assert attacker.rename("moved", "../granted/file", 4, 4) == abi.PERM


# ---- 33: read-only directories ------------------------------------------------------------------------------------------------------------

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
    """Everything that could change the file or directory of a descriptor, with the error numbers."""
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
    """Everything that could change what is beneath a directory, but for opening."""
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
    """`path_open` with every combination of flags: what was asked for, and the error number."""
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


def test_each_function_of_wasi_is_known_to_change_files_or_not() -> None:
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
def test_no_way_to_open_in_a_read_only_directory_gives_anything_that_writes(
    beneath: str | None, name: str, base: Path
) -> None:
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


def test_nothing_beneath_a_read_only_directory_can_be_changed_by_path(base: Path) -> None:
    attacker = Attacker(f"ro:{base / 'granted'}")
    before = state(base)
    sub = attacker.opened("folder", ALL_RIGHTS & ~WRITE)
    again = attacker.opened(".", ALL_RIGHTS & ~WRITE)
    deep = attacker.opened("deep", READ, abi.O_DIRECTORY, fd=sub)
    for fd in (3, sub, again, deep):
        assert {errno for _, errno in changes_by_path(attacker, fd)} == {abi.ROFS}
        assert {errno for _, errno in changes_through(attacker, fd)} == {abi.ROFS}
    assert state(base) == before


def test_what_fails_in_a_read_only_directory_works_in_another(base: Path) -> None:
    """Each function that changes files does so in one of the ways that the tests above try."""
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


def test_functions_that_leave_files_alone_do_so(base: Path) -> None:
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


def test_a_descriptor_under_another_number_stays_read_only(base: Path) -> None:
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


def test_nothing_goes_into_or_out_of_a_read_only_directory(base: Path) -> None:
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


def test_a_file_that_cannot_be_written_cannot_be_truncated_by_opening_it(base: Path) -> None:
    """The system truncates also what is opened to read only; such an opening needs the right to write."""
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
def test_a_writable_directory_in_a_read_only_one_is_writable(
    grants: tuple[str, str], writable: set[int], base: Path
) -> None:
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
def test_a_read_only_directory_that_is_in_a_writable_one_is_refused(
    inner: str, order: int, base: Path
) -> None:
    """Its `ro:` would promise what does not hold."""
    (base / "a link").symlink_to(base / "granted" / "sub")
    paths = [(f"ro:{base / inner}", "/inner"), (str(base / "granted"), "/granted")][::order]
    with pytest.raises(
        plugwasm.ManifestError, match="read-only, but the plugin may write to it through"
    ):
        plugwasm.CompiledPlugin(
            {"wasm": [{"data": b"(module)"}], "allowed_paths": dict(paths)}, wasi=True
        )


def test_a_hard_link_that_the_host_made_is_one_file_in_both_directories(base: Path) -> None:
    """A grant is about names: the file is writable through the writable one, and no guest can make such a link."""
    (base / "other" / "shared").hardlink_to(base / "granted" / "file")
    attacker = Attacker(f"ro:{base / 'granted'}", base / "other")
    assert attacker.open("file", WRITE, fd=3)[0] == abi.ROFS
    assert attacker.write(attacker.opened("shared", WRITE, fd=4), b"CONTENT") == (0, 7)
    assert (base / "granted" / "file").read_bytes() == b"CONTENT"


# ---- 34: the host's descriptors -----------------------------------------------------------------------------------------------------------

CAP = 64


def host_descriptors(root: Path) -> int:
    """How many descriptors this process has for files of the test. Elsewhere than on Linux: how many it has."""
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
    """`base`, when nothing that earlier tests left open can be closed any more."""
    gc.collect()
    return base


def open_until_refused(attacker: Attacker, *paths: str, at_most: int = 1000) -> int:
    """How many times the paths could be opened, by turns."""
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
def test_a_guest_that_opens_in_a_loop_is_stopped_at_the_limit(
    paths: tuple[str, ...], settled: Path
) -> None:
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


def test_no_trick_with_numbers_gives_room(settled: Path) -> None:
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
def test_a_number_that_was_not_given_out_is_no_descriptor(fd: int, settled: Path) -> None:
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


def test_numbers_are_those_of_the_guest_and_none_of_the_host(base: Path) -> None:
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
def test_descriptors_come_back_however_an_instance_ends(ending: str, settled: Path) -> None:
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
from tests.security.test_files import Attacker, compile_for, open_until_refused

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
def test_a_hundred_guests_at_their_limit_leave_the_host_its_own_descriptors(
    limit: int, kept: int, base: Path
) -> None:
    """A hundred times 64 is more than a process may usually have: then the last quarter of these, at most 256, is the host's."""
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
