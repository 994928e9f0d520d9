"""Confinement of a worker: limits, the file system, and nearly all system calls.

Everything here is permanent, and is done before the worker has seen any of the guest. What remains
is what compiling and running Wasm takes: memory, threads, clocks, random bytes, open descriptors;
and for a guest with granted directories the calls that work on files, which Landlock keeps to those
directories.

The filter names the system calls that are allowed, so calls of a later kernel are refused: all
others fail with EPERM. It is written here because it is short, and the libraries that would write
it need another library of the system.

Afterwards these hold, whatever code runs in the process:

1. It has the threads that it had, and starts neither threads nor processes. So the threads that it
   needs are started in between (`start`), when they inherit what is set for each thread
   (capabilities, Landlock), and the filter is set for all of them at once.
2. All memory that it can write to counts towards `RLIMIT_DATA`. Memory that the system counts
   elsewhere cannot be had: shared memory, stacks that grow, huge pages. Stacks count towards
   `RLIMIT_STACK`, and page tables take no more than a 512th of `RLIMIT_AS`.
3. It sends a signal to nobody else, also not by asking to be told when a descriptor is ready
   (`F_SETOWN`, `F_SETSIG`).

Decisions: docs/decisions.md, 31.1 and 31.2.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import struct
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_SMALL_FILES = 64
"""Descriptors besides those of the guest: a walk along a path opens some, and the worker's own."""
_MAIN_STACK = 8 * 2**20
"""Bytes of the stack of the first thread, which would otherwise grow to whatever the system allows.
"""
_ADDRESSES, _ADDRESSES_OF_MEMORY = 2**38, 2**33
"""Bytes of address space: the engine takes 4 GiB and more for each memory.

So no address of a guest leads beyond its memory.
"""

# ---- system calls by number: x86-64, aarch64 (None where that has no such call) ------------------

_ALWAYS: dict[str, tuple[int, int | None]] = {
    "read": (0, 63),
    "write": (1, 64),
    "close": (3, 57),
    "poll": (7, None),
    "mprotect": (10, 226),
    "munmap": (11, 215),
    "brk": (12, 214),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "select": (23, None),
    "sched_yield": (24, 124),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "nanosleep": (35, 101),
    "getpid": (39, 172),
    "sendto": (44, 206),
    "recvfrom": (45, 207),
    "exit": (60, 93),
    "uname": (63, 160),
    "gettimeofday": (96, 169),
    "getrusage": (98, 165),
    "sigaltstack": (131, 132),
    "gettid": (186, 178),
    "time": (201, None),
    "futex": (202, 98),
    "sched_getaffinity": (204, 123),
    "restart_syscall": (219, 128),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115),
    "exit_group": (231, 94),
    "pselect6": (270, 72),
    "ppoll": (271, 73),
    "set_robust_list": (273, 99),
    "getrandom": (318, 278),
    "membarrier": (324, 283),
    "rseq": (334, 293),
}
_FILES: dict[str, tuple[int, int | None]] = {
    "open": (2, None),
    "fstat": (5, 80),
    "lseek": (8, 62),
    "pread64": (17, 67),
    "pwrite64": (18, 68),
    "readv": (19, 65),
    "writev": (20, 66),
    "dup": (32, 23),
    "fsync": (74, 82),
    "fdatasync": (75, 83),
    "ftruncate": (77, 46),
    "getdents64": (217, 61),
    "fadvise64": (221, 223),
    "openat": (257, 56),
    "mkdirat": (258, 34),
    "newfstatat": (262, 79),
    "unlinkat": (263, 35),
    "renameat": (264, 38),
    "linkat": (265, 37),
    "symlinkat": (266, 36),
    "readlinkat": (267, 78),
    "faccessat": (269, 48),
    "utimensat": (280, 88),
    "fallocate": (285, 47),
    "preadv": (295, 69),
    "pwritev": (296, 70),
    "renameat2": (316, 276),
    "statx": (332, 291),
}
_MMAP, _FCNTL, _TGKILL, _PRLIMIT = (9, 222), (72, 25), (234, 131), (302, 261)
_MEMFD_CREATE = (319, 279)
_UNCOUNTED = 0x01 | 0x100 | 0x40000
"""Flags of `mmap`: shared, a stack that grows, huge pages."""
_FCNTL_COMMANDS = (0, 1, 2, 3, 4, 1030)
"""F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC."""

_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
"""The index of the architecture's numbers, and the kernel's name for the architecture."""

# ---- the filter's language -----------------------------------------------------------------------

_LOAD, _JUMP_IF_EQUAL, _JUMP_IF_ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
_ALLOW, _KILL, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000
_CAPABILITIES = 0x20080522
"""The version of `capset`'s structure: two words each for effective, permitted, inheritable ones.
"""
_PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 4, 38
_SECCOMP = {"x86_64": 317, "aarch64": 277}
_FILTER, _ALL_THREADS = 1, 1

# ---- Landlock ------------------------------------------------------------------------------------

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_ACCESS_BITS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
"""The number of rights on files that a version of Landlock knows."""
_READ_RIGHTS = 1 << 2 | 1 << 3
_EXECUTE, _MAKE_DEVICES = 1 << 0, 1 << 6 | 1 << 9 | 1 << 10 | 1 << 11
"""Rights that no guest has: to execute, and to make devices, sockets and pipes."""


def confine(
    memory_bytes: int | None,
    descriptors: int,
    user: tuple[int, int] | None,
    paths: Sequence[tuple[str, bool]],
    *,
    memories: int = 0,
    start: Callable[[], object] = lambda: None,
) -> list[str]:
    """Confine this process, which should have one thread.

    There will be no other threads than that and those that `start` starts.

    Args:
        memory_bytes: The most data that it may have, or None.
        descriptors: The number of descriptors that a guest may have, besides this process's own.
        user: The user and the group that it is to run as, or None.
        paths: The paths that stay reachable, and whether for reading only.
        memories: The number of memories that a guest may have; address space is reserved for each.
        start: Starts the threads that are needed. It can open no files any more but those of
            `paths`.

    Returns:
        The measures taken, as one short text each.
    """
    done = ["own session", "empty environment"]
    _raise_oom_score(done)
    done += _set_limits(
        memory_bytes, descriptors, memories, any(not read_only for _, read_only in paths)
    )
    if user is not None:
        uid, gid = user
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
        done.append(f"user {uid}, group {gid}")
    if sys.platform != "linux":
        start()
        return done + _no_processes()
    return done + _confine_linux(paths, start)


def _no_processes() -> list[str]:
    """Forbid new processes where no filter does. Root is not bound by this."""
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    return ["RLIMIT_NPROC 0"]


def _raise_oom_score(done: list[str]) -> None:
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
    except OSError:
        return
    done.append("first to go when the system is out of memory")


def _set_limits(
    memory_bytes: int | None, descriptors: int, memories: int, writes: bool
) -> list[str]:
    done = []
    wanted = [("CORE", 0), ("NOFILE", descriptors + _SMALL_FILES), ("STACK", _MAIN_STACK)]
    if not writes:
        wanted.append(("FSIZE", 0))
    if memory_bytes is not None and sys.platform == "linux":
        wanted += [
            ("DATA", memory_bytes),
            ("AS", _ADDRESSES + memory_bytes + memories * _ADDRESSES_OF_MEMORY),
        ]
    for name, value in wanted:
        kind = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(kind)[1]
        if hard != resource.RLIM_INFINITY:
            value = min(value, hard)
        resource.setrlimit(kind, (value, value))
        done.append(f"RLIMIT_{name} {value}")
    return done


def _confine_linux(paths: Sequence[tuple[str, bool]], start: Callable[[], object]) -> list[str]:
    libc = ctypes.CDLL(None, use_errno=True)
    done = []
    if libc.capset(struct.pack("=Ii", _CAPABILITIES, 0), bytes(24)) == 0:
        done.append("no capabilities")
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0:
        done.append("no_new_privs")
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) == 0:
        done.append("not dumpable")
    version = _landlock(libc, paths)
    if version:
        done.append(f"Landlock {version}")
    start()
    done += _no_processes()
    if _filter(libc, bool(paths)):
        done += ["seccomp", "no more threads", "no shared memory"]
    return done


def _landlock(libc: ctypes.CDLL, paths: Sequence[tuple[str, bool]]) -> int:
    """Restrict this thread, and those that it starts, to the paths.

    Returns:
        The version of Landlock, 0 if there is none.
    """
    version = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), 1)
    if version < 1:
        return 0
    every = (1 << _ACCESS_BITS.get(version, 16)) - 1
    network = 3 if version >= 4 else 0
    scopes = 3 if version >= 6 else 0
    attributes = struct.pack("=QQQ", every, network, scopes)[
        : 8 if version < 4 else 16 if version < 6 else 24
    ]
    ruleset = libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)
    if ruleset < 0:
        return 0
    try:
        for path, read_only in paths:
            try:
                folder = os.open(path, os.O_PATH | os.O_DIRECTORY)
            except OSError:
                continue  # the guest will be told
            rights = _READ_RIGHTS if read_only else every & ~(_EXECUTE | _MAKE_DEVICES)
            added = libc.syscall(_ADD_RULE, ruleset, 1, struct.pack("=Qi", rights, folder), 0)
            os.close(folder)
            if added < 0:
                return 0
        return version if libc.syscall(_RESTRICT_SELF, ruleset, 0) == 0 else 0
    finally:
        os.close(ruleset)


def _filter(libc: ctypes.CDLL, files: bool) -> bool:
    """Refuse all system calls but those that are needed, in all threads of this process."""
    machine = os.uname().machine
    if machine not in _ARCHITECTURES or sys.maxsize < 2**32:
        return False
    which, architecture = _ARCHITECTURES[machine]
    program = _program(which, architecture, os.getpid(), files)
    code = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("@HP", len(program) // 8, ctypes.addressof(code))
    return bool(libc.syscall(_SECCOMP[machine], _FILTER, _ALL_THREADS, header) == 0)


def _program(which: int, architecture: int, pid: int, files: bool) -> bytes:
    """Return the program of the filter.

    A jump's last two numbers say how many instructions it skips: where the condition holds, and
    where not.
    """

    def refuse(error: int) -> tuple[int, int, int, int]:
        return _RETURN, 0, 0, _ERROR | error

    def low(argument: int) -> tuple[int, int, int, int]:
        return _LOAD, 0, 0, _ARGUMENTS + 8 * argument

    def high(argument: int) -> tuple[int, int, int, int]:
        return _LOAD, 0, 0, _ARGUMENTS + 8 * argument + 4

    allow = (_RETURN, 0, 0, _ALLOW)
    code: list[tuple[int, int, int, int]] = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_JUMP_IF_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
    ]
    for numbers in (_ALWAYS | _FILES if files else _ALWAYS).values():
        number = numbers[which]
        if number is not None:
            code += [(_JUMP_IF_EQUAL, 0, 1, number), allow]
    # Memory that counts as this process's own.
    code += [
        (_JUMP_IF_EQUAL, 0, 4, _MMAP[which]),
        low(3),
        (_JUMP_IF_ANY_BIT, 0, 1, _UNCOUNTED),
        refuse(errno.EPERM),
        allow,
    ]
    if files:
        # What concerns a descriptor itself, but not whom it sends signals to.
        code += [(_JUMP_IF_EQUAL, 0, 2 * len(_FCNTL_COMMANDS) + 2, _FCNTL[which]), low(1)]
        for command in _FCNTL_COMMANDS:
            code += [(_JUMP_IF_EQUAL, 0, 1, command), allow]
        code.append(refuse(errno.EPERM))
    # Signals to itself: that is how `abort` ends it.
    code += [
        (_JUMP_IF_EQUAL, 0, 4, _TGKILL[which]),
        low(0),
        (_JUMP_IF_EQUAL, 0, 1, pid),
        allow,
        refuse(errno.EPERM),
    ]
    # The engine does without files in memory where the system has none.
    code += [(_JUMP_IF_EQUAL, 0, 1, _MEMFD_CREATE[which]), refuse(errno.ENOSYS)]
    # To ask for limits, not to set them: without new values.
    code += [
        (_JUMP_IF_EQUAL, 0, 6, _PRLIMIT[which]),
        low(2),
        (_JUMP_IF_EQUAL, 0, 3, 0),
        high(2),
        (_JUMP_IF_EQUAL, 0, 1, 0),
    ]
    code += [allow, refuse(errno.EPERM), refuse(errno.EPERM)]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


__all__ = ["confine"]
