"""WASI preview 1 as a guest sees it: streams, clocks, polling and invalid pointers, all of which
only return error numbers."""

from __future__ import annotations

import builtins
import errno as host_errno
import gc
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import plugwasm.errors
from plugwasm._wasi import abi
from plugwasm._wasi.descriptors import MAX_IOVECS, MAX_OUTPUT, MAX_TRANSFER
from plugwasm._wasi.preview1 import (
    MAX_SUBSCRIPTIONS,
    RANDOM_CHUNK,
    SIGNATURES,
    GuestExit,
    LineSplitter,
    Preopen,
    Wasi,
)
from plugwasm._wasi.stdio import MAX_LINE
from tests.support.wasi_guest import BOTH, DATA, IOV, OUT_OF_RANGE, PATH, RESULT, SIZE, Guest

posix = pytest.mark.skipif(
    os.name != "posix", reason="directories are granted on POSIX systems only"
)


# The specification's numbers


def test_all_functions_are_there() -> None:
    """All functions of preview 1 exist with their parameters."""
    assert len(SIGNATURES) == 46
    assert SIGNATURES["path_open"] == (
        "i32",
        "i32",
        "i32",
        "i32",
        "i32",
        "i64",
        "i64",
        "i32",
        "i32",
    )
    assert SIGNATURES["fd_seek"] == ("i32", "i64", "i32", "i32")
    assert SIGNATURES["sched_yield"] == ()
    for name in SIGNATURES:
        assert getattr(Wasi, name).__name__ == name


def test_error_numbers() -> None:
    """The named error numbers have their values in the specification."""
    assert len(abi.ERRNO_NAMES) == 77
    named = [name for name in abi.ERRNO_NAMES if hasattr(abi, name)]
    assert len(named) > 15
    for name in named:
        assert abi.ERRNO_NAMES[getattr(abi, name)] == name


@pytest.mark.parametrize(
    ("host", "number"),
    [
        ("ENOENT", 44),
        ("EACCES", 2),
        ("EMFILE", 33),
        ("EROFS", 69),
        ("ENOTEMPTY", 55),
        ("ENOSPC", 51),
        ("EXDEV", 75),
        ("ELOOP", 32),
    ],
)
def test_host_errors_have_numbers(host: str, number: int) -> None:
    """Host errors have their WASI numbers."""
    assert abi.errno_of(OSError(getattr(host_errno, host), "")) == number


def test_unknown_host_error_is_io() -> None:
    """A host error without a WASI number is `EIO`."""
    assert abi.errno_of(OSError(99999, "")) == abi.IO
    assert abi.errno_of(OSError("no number")) == abi.IO


def test_record_sizes() -> None:
    """Records have the sizes in the specification."""
    sizes = {
        record: getattr(abi, record).size
        for record in ("FDSTAT", "FILESTAT", "PRESTAT", "DIRENT", "EVENT")
    }
    assert sizes == {"FDSTAT": 24, "FILESTAT": 64, "PRESTAT": 8, "DIRENT": 24, "EVENT": 32}
    assert abi.SUBSCRIPTION_HEAD.size + abi.SUBSCRIPTION_CLOCK.size == abi.SUBSCRIPTION_SIZE == 48


# Arguments, environment, the process, sockets


def test_no_arguments_and_no_environment() -> None:
    """There are no arguments and no environment."""
    guest = Guest()
    for name in ("args", "environ"):
        guest.memory.write(RESULT, b"\xff" * 8)
        assert guest.call(f"{name}_sizes_get", RESULT, RESULT + 4) == 0
        assert guest.memory.read(RESULT, 8) == bytes(8)
        assert guest.call(f"{name}_get", DATA, DATA) == 0


@pytest.mark.parametrize("code", [0, 1, 0xFFFF_FFFF])
def test_proc_exit_carries_its_code(code: int) -> None:
    with pytest.raises(GuestExit) as caught:
        Guest().call("proc_exit", code)
    assert caught.value.code == code


def test_what_does_not_exist_says_so() -> None:
    guest = Guest()
    assert guest.call("proc_raise", 9) == abi.NOTSUP
    assert guest.call("sched_yield") == 0
    for name, rest in (
        ("sock_accept", 2),
        ("sock_recv", 5),
        ("sock_send", 4),
        ("sock_shutdown", 1),
    ):
        assert guest.call(name, 1, *[0] * rest) == abi.NOTSOCK
        assert guest.call(name, 99, *[0] * rest) == abi.BADF


# Streams


def test_output_by_descriptor() -> None:
    """Output reaches the application with its descriptor."""
    guest = Guest()
    guest.memory.write(DATA, b"hello, world")
    guest.memory.write(
        IOV, abi.IOVEC.pack(DATA, 5) + abi.IOVEC.pack(OUT_OF_RANGE, 0) + abi.IOVEC.pack(DATA + 5, 7)
    )
    assert guest.call("fd_write", 1, IOV, 3, RESULT) == 0
    assert guest.memory.u32(RESULT) == 12
    assert guest.write(2, b"oops") == (0, 4)
    assert guest.write(1, b"") == (0, 0)
    assert guest.output == [(1, b"hello, world"), (2, b"oops")]


def test_stream_directions() -> None:
    """Stdin is at its end, and streams have one direction."""
    guest = Guest()
    assert guest.read(0) == (0, b"")
    assert guest.read(1)[0] == abi.BADF
    assert guest.write(0, b"x")[0] == abi.BADF
    assert guest.seek(1, 0, 1)[0] == abi.SPIPE
    assert guest.pwrite(1, b"x", 0) == abi.SPIPE
    assert guest.call("fd_sync", 1) == 0


@pytest.mark.parametrize("fd", [0, 1, 2])
def test_stream_looks_like_terminal(fd: int) -> None:
    """A stream looks like a terminal, so a libc buffers by lines."""
    guest = Guest()
    filetype, _, rights, _ = guest.fdstat(fd)
    assert filetype == abi.CHARACTER_DEVICE
    assert not rights & (abi.FD_SEEK | abi.FD_TELL)
    assert guest.call("fd_filestat_get", fd, RESULT) == 0
    assert abi.FILESTAT.unpack(guest.memory.read(RESULT, 64))[2] == abi.CHARACTER_DEVICE
    assert guest.call("fd_fdstat_set_flags", fd, abi.FDFLAG_NONBLOCK) == 0
    assert guest.fdstat(fd)[1] == abi.FDFLAG_NONBLOCK


def test_closed_stream_number_is_not_reused() -> None:
    """A closed stream is gone, and its number is not reused."""
    guest = Guest()
    assert guest.call("fd_close", 1) == 0
    assert guest.write(1, b"x")[0] == abi.BADF
    assert guest.output == []


@posix
def test_stdout_replaced_by_file(tmp_path: Path) -> None:
    """Stdout can be replaced by a file."""
    guest = Guest(Preopen(tmp_path, "/"))
    assert guest.call("fd_renumber", guest.opened("log", BOTH, abi.O_CREAT), 1) == 0
    assert guest.write(1, b"to the file") == (0, 11)
    assert (tmp_path / "log").read_bytes() == b"to the file"
    assert guest.output == []


def test_stream_write_is_capped() -> None:
    """One write to a stream is capped and returns the number of bytes written."""
    guest = Guest()
    guest.memory.write(IOV, abi.IOVEC.pack(DATA, MAX_OUTPUT - 1) + abi.IOVEC.pack(DATA, 1000))
    assert guest.call("fd_write", 1, IOV, 2, RESULT) == 0
    assert guest.memory.u32(RESULT) == MAX_OUTPUT
    assert len(guest.output[0][1]) == MAX_OUTPUT


@posix
def test_buffers_together_are_capped(tmp_path: Path) -> None:
    """The total length of many buffers is capped."""
    with open(tmp_path / "big", "wb") as file:
        file.truncate(4 * MAX_TRANSFER)
    guest = Guest(Preopen(tmp_path, "/"))
    fd = guest.opened("big", BOTH)
    guest.memory.write(IOV, abi.IOVEC.pack(0, SIZE - 1) * 64)
    guest.memory.write(DATA, abi.IOVEC.pack(DATA + 65536, 65536) * 1024)
    assert guest.call("fd_read", fd, DATA, 1024, RESULT) == 0
    assert guest.memory.u32(RESULT) == MAX_TRANSFER
    guest.memory.write(DATA, abi.IOVEC.pack(DATA + 65536, 1) * 2000)
    assert guest.call("fd_write", fd, DATA, 2000, RESULT) == 0
    assert guest.memory.u32(RESULT) == MAX_IOVECS


@pytest.mark.parametrize(
    "error",
    [BrokenPipeError(), plugwasm.errors.TimeoutError("late"), KeyboardInterrupt(), ValueError()],
)
def test_callable_exception_reaches_caller(error: BaseException) -> None:
    """Exceptions of the application's callables reach the caller."""

    def fail(*args: object) -> Any:
        raise error

    guest = Guest(on_output=fail, sleep=fail, now=fail, monotonic=fail, random=fail)
    subscribe(guest, clock(1, timeout=5))
    calls = [
        lambda: guest.write(1, b"x"),
        lambda: guest.call("poll_oneoff", DATA, DATA + 4096, 1, RESULT),
        lambda: guest.call("clock_time_get", 0, 0, RESULT),
        lambda: guest.call("clock_time_get", 1, 0, RESULT),
        lambda: guest.call("random_get", DATA, 8),
    ]
    for call in calls:
        with pytest.raises(type(error)) as caught:
            call()
        assert caught.value is error


# Lines


def split(chunks: list[bytes], limit: int = MAX_LINE) -> list[tuple[bytes, int]]:
    lines: list[tuple[bytes, int]] = []
    splitter = LineSplitter(lambda line, lost: lines.append((line, lost)), limit)
    for chunk in chunks:
        splitter.feed(chunk)
    splitter.flush()
    splitter.flush()
    return lines


def test_chunks_become_lines() -> None:
    assert split([b"one\ntw", b"o\r", b"\n\nlast"]) == [
        (b"one", 0),
        (b"two", 0),
        (b"", 0),
        (b"last", 0),
    ]
    assert split([]) == []


def test_long_line_is_cut() -> None:
    """A line is truncated at the limit, and the rest is counted."""
    assert split([b"1234\n12345\n", b"123", b"456789", b"0\nx"], 4) == [
        (b"1234", 0),
        (b"1234", 1),
        (b"1234", 6),
        (b"x", 0),
    ]
    assert split([b"x" * (MAX_LINE + 1)]) == [(b"x" * MAX_LINE, 1)]


@given(st.lists(st.text("ab\n").map(str.encode)), st.integers(1, 5))
def test_lines_do_not_depend_on_chunks(chunks: list[bytes], limit: int) -> None:
    """The lines do not depend on how the stream was divided into chunks."""
    whole = b"".join(chunks)
    lines = whole.split(b"\n")
    if not lines[-1]:
        lines.pop()
    assert split(chunks, limit) == [(line[:limit], max(0, len(line) - limit)) for line in lines]


# Clocks and randomness


def test_clocks_are_the_applications() -> None:
    guest = Guest(now=lambda: 1_700_000_000_000_000_001, monotonic=lambda: 42)
    assert guest.call("clock_time_get", 0, 0, RESULT) == 0
    assert guest.memory.u64(RESULT) == 1_700_000_000_000_000_001
    assert guest.call("clock_time_get", 1, 0, RESULT) == 0
    assert guest.memory.u64(RESULT) == 42
    assert guest.call("clock_res_get", 0, RESULT) == 0
    assert guest.memory.u64(RESULT) > 0
    for clock_id in (2, 3, 4, 0xFFFF_FFFF):
        assert guest.call("clock_time_get", clock_id, 0, RESULT) == abi.INVAL
        assert guest.call("clock_res_get", clock_id, RESULT) == abi.INVAL


def test_clock_before_1970() -> None:
    """A clock before 1970 wraps around instead of failing."""
    guest = Guest(now=lambda: -1)
    assert guest.call("clock_time_get", 0, 0, RESULT) == 0
    assert guest.memory.u64(RESULT) == (1 << 64) - 1


def test_random_length() -> None:
    """Random bytes fill exactly the requested length."""
    guest = Guest(random=lambda n: b"\xaa" * n)
    assert guest.call("random_get", DATA, 5) == 0
    assert guest.memory.read(DATA - 1, 7) == b"\0" + b"\xaa" * 5 + b"\0"
    assert guest.call("random_get", DATA, 0) == 0
    assert guest.call("random_get", DATA, SIZE) == abi.FAULT


def test_random_checks_deadline() -> None:
    """A large request for random bytes checks the deadline."""
    guest = Guest(random=lambda n: b"\xaa" * n)
    guest.memory.bytes = bytearray(3 * RANDOM_CHUNK)
    assert guest.call("random_get", 0, 3 * RANDOM_CHUNK) == 0
    assert guest.memory.bytes == b"\xaa" * (3 * RANDOM_CHUNK)
    assert guest.slept == [0.0, 0.0]


# Waiting


def clock(userdata: int, *, timeout: int, clock_id: int = 1, flags: int = 0) -> bytes:
    return abi.SUBSCRIPTION_HEAD.pack(userdata, 0) + abi.SUBSCRIPTION_CLOCK.pack(
        clock_id, timeout, 0, flags
    )


def on_fd(userdata: int, kind: int, fd: int) -> bytes:
    return abi.SUBSCRIPTION_HEAD.pack(userdata, kind) + abi.U32.pack(fd) + bytes(28)


def subscribe(guest: Guest, *records: bytes) -> int:
    guest.memory.write(DATA, b"".join(records))
    return len(records)


def poll(guest: Guest, *records: bytes) -> list[tuple[int, ...]]:
    assert guest.call("poll_oneoff", DATA, DATA + 4096, subscribe(guest, *records), RESULT) == 0
    count = guest.memory.u32(RESULT)
    return [abi.EVENT.unpack(guest.memory.read(DATA + 4096 + i * 32, 32)) for i in range(count)]


def test_poll_uses_application_sleep() -> None:
    """A poll uses the application's sleep function."""
    guest = Guest()
    assert poll(guest, clock(7, timeout=4_000_000_000)) == [(7, 0, 0, 0, 0)]
    assert guest.slept == [4.0]


def test_poll_first_clock_wins() -> None:
    """The earliest of several clocks ends the poll."""
    guest = Guest(now=lambda: 1000, monotonic=lambda: 5_000_000)
    events = poll(
        guest,
        clock(1, timeout=9_000_000_000),
        clock(2, timeout=2_000_000),
        clock(3, timeout=7_000_000, flags=abi.CLOCK_ABSTIME),
        clock(4, timeout=2_001_000 + 1, clock_id=0, flags=abi.CLOCK_ABSTIME),
    )
    assert [event[0] for event in events] == [2, 3]
    assert guest.slept == [0.002]


def test_poll_past_time() -> None:
    """A poll for a time in the past returns at once."""
    guest = Guest(monotonic=lambda: 100)
    assert [
        e[0]
        for e in poll(guest, clock(1, timeout=99, flags=abi.CLOCK_ABSTIME), clock(2, timeout=1))
    ] == [1]
    assert guest.slept == []


def test_poll_for_centuries() -> None:
    """A poll for centuries is divided into sleeps that Python supports."""
    guest = Guest()
    poll(guest, clock(1, timeout=3 * 3_600_000_000_000 + 1))
    assert guest.slept == [3600.0] * 3 + [1e-9]

    class Enough(Exception):
        pass

    def sleep(seconds: float) -> None:
        time.sleep(seconds * 0)
        raise Enough

    with pytest.raises(Enough):
        poll(Guest(sleep=sleep), clock(1, timeout=(1 << 64) - 1))


@posix
def test_poll_streams_and_files(tmp_path: Path) -> None:
    """Streams and files are ready at once."""
    guest = Guest(Preopen(tmp_path, "/"))
    fd = guest.opened("f", BOTH, abi.O_CREAT)
    events = poll(
        guest,
        clock(1, timeout=10**9),
        on_fd(2, abi.EVENT_FD_WRITE, 1),
        on_fd(3, abi.EVENT_FD_READ, 0),
        on_fd(4, abi.EVENT_FD_READ, fd),
        on_fd(5, abi.EVENT_FD_READ, 99),
        on_fd(6, abi.EVENT_FD_WRITE, 0),
    )
    assert events == [
        (2, 0, 2, 1, 0),
        (3, 0, 1, 0, 1),
        (4, 0, 1, 1, 0),
        (5, abi.BADF, 1, 0, 0),
        (6, abi.BADF, 2, 0, 0),
    ]
    assert guest.slept == []


def test_poll_invalid_subscriptions() -> None:
    """Invalid subscriptions are refused."""
    guest = Guest()
    assert guest.call("poll_oneoff", DATA, DATA, 0, RESULT) == abi.INVAL
    assert guest.call("poll_oneoff", DATA, DATA, MAX_SUBSCRIPTIONS + 1, RESULT) == abi.INVAL
    assert (
        guest.call("poll_oneoff", DATA, DATA + 4096, subscribe(guest, on_fd(1, 3, 1)), RESULT)
        == abi.INVAL
    )
    assert poll(guest, clock(9, timeout=1, clock_id=2), clock(8, timeout=1, flags=2)) == [
        (9, abi.INVAL, 0, 0, 0),
        (8, abi.INVAL, 0, 0, 0),
    ]
    assert guest.slept == []


def test_poll_without_result_memory() -> None:
    """A poll whose results do not fit into memory does not wait."""
    guest = Guest()
    count = subscribe(guest, clock(1, timeout=10**9))
    assert guest.call("poll_oneoff", DATA, OUT_OF_RANGE, count, RESULT) == abi.FAULT
    assert guest.call("poll_oneoff", DATA, DATA + 4096, count, OUT_OF_RANGE) == abi.FAULT
    assert guest.slept == []


# Pointers that lie. Each call is one that succeeds; each pointer of it (by position) in turn is
# made to point outside.

FILE = 4
POINTERS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "args_sizes_get": ((RESULT, RESULT), (0, 1)),
    "environ_sizes_get": ((RESULT, RESULT), (0, 1)),
    "clock_res_get": ((0, RESULT), (1,)),
    "clock_time_get": ((0, 0, RESULT), (2,)),
    "fd_fdstat_get": ((FILE, RESULT), (1,)),
    "fd_filestat_get": ((FILE, RESULT), (1,)),
    "fd_pread": ((FILE, IOV, 1, 0, RESULT), (1, 4)),
    "fd_prestat_dir_name": ((3, DATA, 5), (1,)),
    "fd_prestat_get": ((3, RESULT), (1,)),
    "fd_pwrite": ((FILE, IOV, 1, 0, RESULT), (1, 4)),
    "fd_read": ((FILE, IOV, 1, RESULT), (1, 3)),
    "fd_readdir": ((3, DATA, 100, 0, RESULT), (1, 4)),
    "fd_seek": ((FILE, 0, 0, RESULT), (3,)),
    "fd_tell": ((FILE, RESULT), (1,)),
    "fd_write": ((FILE, IOV, 1, RESULT), (1, 3)),
    "path_create_directory": ((3, PATH + 8, 3), (1,)),
    "path_filestat_get": ((3, 0, PATH, 4, RESULT), (2, 4)),
    "path_filestat_set_times": ((3, 0, PATH, 4, 0, 0, 1), (2,)),
    "path_link": ((3, 0, PATH, 4, 3, PATH + 8, 3), (2, 5)),
    "path_open": ((3, 0, PATH, 4, 0, BOTH, 0, 0, RESULT), (2, 8)),
    "path_readlink": ((3, PATH + 16, 4, DATA, 100, RESULT), (1, 3, 5)),
    "path_remove_directory": ((3, PATH + 24, 3), (1,)),
    "path_rename": ((3, PATH, 4, 3, PATH + 8, 3), (1, 4)),
    "path_symlink": ((PATH, 4, 3, PATH + 8, 3), (0, 3)),
    "path_unlink_file": ((3, PATH, 4), (1,)),
    "poll_oneoff": ((DATA, DATA + 4096, 1, RESULT), (0, 1, 3)),
    "random_get": ((DATA, 100), (0,)),
}
NO_POINTERS = {"args_get", "environ_get"} | {  # the first two have nothing to write
    name for name in SIGNATURES if name.startswith(("proc_", "sched_", "sock_"))
}
NO_POINTERS |= {"fd_advise", "fd_allocate", "fd_close", "fd_datasync", "fd_sync", "fd_renumber"}
NO_POINTERS |= {
    "fd_fdstat_set_flags",
    "fd_fdstat_set_rights",
    "fd_filestat_set_size",
    "fd_filestat_set_times",
}


def make_furnished_guest(root: Path) -> Guest:
    """Return a guest for which each call in POINTERS succeeds."""
    (root / "file").write_bytes(b"0123456789")
    (root / "link").symlink_to("file")
    (root / "dir").mkdir()
    guest = Guest(Preopen(root, "/data"))
    assert guest.opened("file", BOTH) == FILE
    guest.iovec(10)
    subscribe(guest, clock(1, timeout=1))
    guest.memory.write(PATH, b"file\0\0\0\0new\0\0\0\0\0link\0\0\0\0dir")
    return guest


def test_functions_with_pointers() -> None:
    """Each function is classified as taking pointers or not."""
    assert POINTERS.keys() | NO_POINTERS == SIGNATURES.keys()
    assert not POINTERS.keys() & NO_POINTERS


@posix
@pytest.mark.parametrize("name", POINTERS)
def test_pointer_outside_memory(name: str, tmp_path: Path) -> None:
    """A pointer outside the memory is a fault."""
    args, positions = POINTERS[name]
    guest = make_furnished_guest(tmp_path)
    before = sorted(os.listdir(tmp_path)), (tmp_path / "file").read_bytes()
    for position in positions:
        for pointer in (OUT_OF_RANGE, SIZE, SIZE - 1, 0xFFFF_FFFF):
            assert guest.call(name, *args[:position], pointer, *args[position + 1 :]) == abi.FAULT
    assert (sorted(os.listdir(tmp_path)), (tmp_path / "file").read_bytes()) == before
    assert guest.slept == []
    assert guest.call(name, *args) == 0


@posix
@pytest.mark.parametrize("name", ["fd_read", "fd_write", "fd_pread", "fd_pwrite"])
def test_buffer_outside_memory(name: str, tmp_path: Path) -> None:
    """A buffer outside the memory is a fault."""
    guest = make_furnished_guest(tmp_path)
    args = POINTERS[name][0]
    for offset, length in (
        (OUT_OF_RANGE, 1),
        (SIZE - 1, 2),
        (0, 0xFFFF_FFFF),
        (0xFFFF_FFFF, 0xFFFF_FFFF),
    ):
        guest.memory.write(IOV, abi.IOVEC.pack(offset, length))
        assert guest.call(name, *args) == abi.FAULT
    assert (tmp_path / "file").read_bytes() == b"0123456789"


# Anything at all

INTERESTING = st.one_of(
    st.integers(0, 9),
    st.sampled_from(
        [PATH, PATH + 8, PATH + 16, IOV, DATA, DATA + 4096, RESULT, SIZE - 1, SIZE, OUT_OF_RANGE]
    ),
    st.sampled_from([0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF]),
)
LONG = st.one_of(
    INTERESTING,
    st.sampled_from([1 << 62, 1 << 63, (1 << 64) - 1, (1 << 28) - 1]),
    st.integers(0, (1 << 64) - 1),
)
CALLS = st.sampled_from(sorted(SIGNATURES)).flatmap(
    lambda name: st.tuples(
        st.just(name),
        st.tuples(*[LONG if kind == "i64" else INTERESTING for kind in SIGNATURES[name]]),
    )
)


@posix
@settings(max_examples=300, deadline=None)
@given(st.lists(CALLS, min_size=1, max_size=40))
def test_random_arguments(calls: list[tuple[str, tuple[int, ...]]]) -> None:
    """No arguments make a function raise."""
    with tempfile.TemporaryDirectory() as name:
        guest = make_furnished_guest(Path(name))
        for function, args in calls:
            if function == "proc_exit":
                with pytest.raises(GuestExit):
                    guest.call(function, *args)
            else:
                assert 0 <= guest.call(function, *args) < len(abi.ERRNO_NAMES)
        guest.wasi.close()


# Life cycle


@posix
def test_collected_guest_closes_files(tmp_path: Path) -> None:
    """Files that a guest left open are closed when it is collected."""
    (tmp_path / "file").touch()
    guest = Guest(Preopen(tmp_path, "/"))
    opened = [guest.wasi._table[guest.opened(path)].fd for path in ("file", ".")]
    for fd in opened:
        os.fstat(fd)
    del guest
    gc.collect()
    for fd in opened:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


@posix
def test_instances_share_preopen(tmp_path: Path) -> None:
    """Instances share a preopen, and none can close it for another."""
    (tmp_path / "file").touch()
    preopen = Preopen(tmp_path, "/")
    first, second = Guest(preopen), Guest(preopen)
    assert first.call("fd_close", 3) == 0
    assert first.open("file")[0] == abi.BADF
    first.wasi.close()
    assert second.open("file")[0] == 0


@posix
def test_forked_child(tmp_path: Path) -> None:
    """A forked child can continue to use it."""
    (tmp_path / "file").write_bytes(b"0123456789")
    guest = Guest(Preopen(tmp_path, "/"))
    fd = guest.opened("file")
    guest.readdir(guest.opened("."), 0, 10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # about threads of the test runner
        child = os.fork()
    if child == 0:
        try:
            good = (
                guest.pread(fd, 3, 2) == (0, b"234")
                and guest.write(1, b"x") == (0, 1)
                and len(guest.names(5)) == 3
            )
            good = good and guest.write(guest.opened("new", BOTH, abi.O_CREAT), b"child")[0] == 0
            os._exit(0 if good else 1)
        except BaseException:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert (tmp_path / "new").read_bytes() == b"child"
    assert guest.pread(fd, 3, 2) == (0, b"234")


def test_making_one_takes_microseconds() -> None:
    def take(*args: object) -> None:
        pass

    best = min(measure_seconds(lambda: Wasi(on_output=take, sleep=take)) for _ in range(200))
    assert best < 100e-6


def measure_seconds(action: Any) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def test_importing_it_stays_lean() -> None:
    code = (
        "import sys; before = set(sys.modules); import plugwasm._wasi.preview1; "
        "print(sorted({'typing', 'logging', 'json', 're', 'dataclasses', 'inspect'} & (set(sys.modules) - before)))"
    )
    result = subprocess.run(
        [sys.executable, "-S", "-c", code],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert (result.stdout.strip(), result.stderr) == ("[]", "")


def test_deadline_is_os_error() -> None:
    """A deadline is an OSError, so the test above is meaningful."""
    assert issubclass(plugwasm.errors.TimeoutError, builtins.TimeoutError)
    assert issubclass(builtins.TimeoutError, OSError)
