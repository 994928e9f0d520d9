"""What a confined worker process can still do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from plugwasm import (
    IsolatedPlugin,
    ProcessLimits,
)
from tests.support.hostile_worker import SIMPLE, worker_runs

LINUX = sys.platform == "linux" and os.uname().machine in ("x86_64", "aarch64")


def test_worker_inherits_only_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker inherits nothing from the application but its sockets."""
    monkeypatch.setenv("SECRET", "x")
    kept = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(kept, True)
    report = """
hear(); hear()
# Without that of libffi, newer versions of which keep their own file open.
descriptors = [fd for fd in os.listdir("/dev/fd") if "libffi" not in os.path.realpath(f"/dev/fd/{fd}")]
found = [str(len(descriptors)), os.environ.get("SECRET", "none"), os.getcwd(), str(os.getsid(0) == os.getpid()), oct(os.umask(0))]
say(m.Confined(found), m.Loaded([], [], 0)); forever()"""
    try:
        with worker_runs(monkeypatch, report), IsolatedPlugin(SIMPLE) as plugin:
            # Three standard streams, two sockets, and the one with which the descriptors were
            # listed.
            assert plugin.confinement == ("6", "none", "/", "True", "0o77")
    finally:
        os.close(kept)


CONFINED = """
import errno, json, os, socket, subprocess, sys, threading, ctypes, mmap, signal, resource, time
sys.path[:0] = sys.argv[1].split(os.pathsep)
from plugwasm._isolation.confinement import confine
inside, outside, granted = sys.argv[2], sys.argv[3], json.loads(sys.argv[4])
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
left, right = socket.socketpair()
readable = os.open(__file__ if "__file__" in globals() else "/dev/null", os.O_RDONLY)
X86, parent = os.uname().machine == "x86_64", os.getppid()
measures = confine(2**30, 64, None, granted)

def tries(attempt):
    try:
        attempt()
    except OSError as error:
        return errno.errorcode[error.errno]
    except (ValueError, RuntimeError):
        return "EPERM"  # what `resource` and `threading` make of it
    return "ok"

def syscall(number, *arguments):
    def attempt():
        if libc.syscall(number, *[ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]) < 0:
            raise OSError(ctypes.get_errno(), "")
    return attempt

def thread():
    made = threading.Thread(target=lambda: None)
    made.start()
    made.join()

attempts = {
    "read": lambda: open(inside + "/file").close(),
    "write": lambda: open(inside + "/new", "w").close(),
    "read outside": lambda: open(outside).close(),
    "write outside": lambda: open(outside, "w").close(),
    "list outside": lambda: os.listdir("/etc"),
    "python's files": lambda: open(os.__file__).close(),
    "unlink outside": lambda: os.unlink(outside),
    "chmod": lambda: os.chmod(outside, 0),
    "socket": lambda: socket.socket(),
    "unix socket": lambda: socket.socket(socket.AF_UNIX),
    "socketpair": lambda: socket.socketpair(),
    "fork": lambda: os._exit(0) if os.fork() == 0 else None,
    "exec": lambda: os.execv("/bin/true", ["true"]),
    "spawn": lambda: subprocess.run(["/bin/true"]),
    "kill the parent": lambda: os.kill(parent, 0),
    "kill itself by kill": lambda: os.kill(os.getpid(), 0),
    "ptrace": syscall(101 if X86 else 117, 0, 0, 0, 0),
    "mount": syscall(165 if X86 else 40, b"a", b"/", b"tmpfs", 0, None),
    "unshare": syscall(272 if X86 else 97, 0x10000000),
    "setns": syscall(308 if X86 else 268, 0, 0),
    "bpf": syscall(321 if X86 else 280, 0, None, 0),
    "io_uring": syscall(425, 1, None),
    "userfaultfd": syscall(323 if X86 else 282, 0),
    "perf_event_open": syscall(298 if X86 else 241, None, 0, -1, -1, 0),
    "keyctl": syscall(250 if X86 else 219, 0, 0, 0, 0, 0),
    "process_vm_readv": syscall(310 if X86 else 270, parent, None, 0, None, 0, 0),
    "memfd_create": syscall(319 if X86 else 279, b"x", 0),
    "pidfd_open": syscall(434, parent, 0),
    "open_by_handle_at": syscall(304 if X86 else 265, 0, None, 0),
    "setuid": lambda: os.setuid(os.getuid()),
    "prctl": lambda: syscall(157 if X86 else 167, 4, 1, 0, 0, 0)(),
    "seccomp": syscall(317 if X86 else 277, 0, 0, None),
    "chroot": lambda: os.chroot("/"),
    "getpid of the other way to call": syscall(0x40000000 | 39),
    "ioctl": syscall(16 if X86 else 29, left.fileno(), 0x5412, b"x"),
    "raise limits": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)),
    "see limits": lambda: resource.getrlimit(resource.RLIMIT_NOFILE),
    "thread": thread,
    "memory": lambda: mmap.mmap(-1, 2**20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close(),
    "shared memory": lambda: mmap.mmap(-1, 2**20, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS).close(),
    "a shared file": lambda: mmap.mmap(readable, 1, mmap.MAP_SHARED, mmap.PROT_READ).close(),
    "a stack that grows": lambda: mmap.mmap(-1, 2**20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x100).close(),
    "huge pages": lambda: mmap.mmap(-1, 2**21, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40000).close(),
    "shmget": syscall(29 if X86 else 194, 0, 4096, 0o1600),
    "memfd_secret": syscall(447, 0),
    "clone3": syscall(435, b"\\0" * 88, 88),
    "vfork": syscall(58 if X86 else 220, 0x4111, 0, 0, 0, 0),
    "signals of descriptors": syscall(72 if X86 else 25, left.fileno(), 8, parent),
    "any signal of descriptors": syscall(72 if X86 else 25, left.fileno(), 10, 9),
    "pass descriptors": lambda: socket.send_fds(left, [b"x"], [readable]),
    "random": lambda: os.urandom(8),
    "sleep": lambda: time.sleep(0.001),
    "talk": lambda: (left.send(b"x"), right.recv(1)),
    "read what is open": lambda: os.read(readable, 1),
}
print(json.dumps([measures, {name: tries(attempt) for name, attempt in attempts.items()}]))
"""
FOREIGN = """
import ctypes, mmap, os, sys
sys.path[:0] = sys.argv[1].split(os.pathsep)
from plugwasm._isolation.confinement import confine
code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code.write(bytes.fromhex("b814000000cd80c3"))  # mov eax, 20; int 0x80; ret: getpid, as 32-bit programs call it
call = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
confine(None, 64, None, [])
call()
print("came back")
"""


@pytest.mark.skipif(not LINUX or os.uname().machine != "x86_64", reason="of x86-64 only")
def test_other_architecture_ends_process() -> None:
    """System calls of another architecture end the process."""
    run = subprocess.run(
        [sys.executable, "-c", FOREIGN, os.pathsep.join(sys.path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    # SIGSEGV where the system has no such calls at all.
    assert (run.returncode, run.stdout) in [(-signal.SIGSYS, ""), (-signal.SIGSEGV, "")], run.stderr


STILL = {"see limits", "memory", "random", "sleep", "talk", "read what is open"}


def attempts(tmp_path: Path, granted: list[tuple[str, bool]]) -> tuple[list[str], dict[str, str]]:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    (inside / "file").write_text("x")
    outside.write_text("x")
    command = [
        sys.executable,
        "-c",
        CONFINED,
        os.pathsep.join(sys.path),
        str(inside),
        str(outside),
        json.dumps(granted),
    ]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr
    measures, found = json.loads(run.stdout)
    assert outside.read_text() == "x"
    return measures, found


@pytest.mark.skipif(not LINUX, reason="system calls are filtered there only")
def test_confined_process_capabilities(tmp_path: Path) -> None:
    """A confined process can do what it needs and nothing else."""
    measures, found = attempts(tmp_path, [])
    assert {"no_new_privs", "seccomp", "RLIMIT_FSIZE 0", "RLIMIT_CORE 0"} <= set(measures)
    assert {name for name, result in found.items() if result == "ok"} == STILL
    assert (
        found.pop("memfd_create") == "ENOSYS"
    )  # which the engine takes as that there is none, and does without
    assert {result for name, result in found.items() if name not in STILL} == {"EPERM"}


@pytest.mark.skipif(not LINUX, reason="system calls are filtered there only")
@pytest.mark.parametrize("read_only", [True, False])
def test_confined_with_directories(read_only: bool, tmp_path: Path) -> None:
    """With directories granted, it can reach only those."""
    measures, found = attempts(tmp_path, [(str(tmp_path / "inside"), read_only)])
    reached = {name for name, result in found.items() if result == "ok"} - STILL
    if any(measure.startswith("Landlock") for measure in measures):
        assert reached == ({"read"} if read_only else {"read", "write"})
    else:
        assert "socket" not in reached


def test_real_worker_is_confined() -> None:
    """A real worker is confined, and the plugin reports it."""
    with IsolatedPlugin(SIMPLE) as plugin:
        assert {"own session", "empty environment", "RLIMIT_CORE 0"} <= set(plugin.confinement)
        if LINUX:
            assert {
                "no_new_privs",
                "no capabilities",
                "seccomp",
                "no more threads",
                "no shared memory",
            } <= set(plugin.confinement)
            status = Path(f"/proc/{plugin._worker.pid}/status").read_text()
            assert "CapEff:\t0000000000000000" in status
            assert "CapPrm:\t0000000000000000" in status
            assert "Seccomp:\t2" in status
            assert "NoNewPrivs:\t1" in status


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become somebody else"
)
def test_privileged_application_names_user(tmp_path: Path) -> None:
    """A privileged application can choose the worker's user."""
    with IsolatedPlugin(SIMPLE, process=ProcessLimits(user=(65534, 65534))) as plugin:
        assert plugin.call("f", b"on") == b"on"
        assert "user 65534, group 65534" in plugin.confinement
        if sys.platform == "linux":
            status = Path(f"/proc/{plugin._worker.pid}/status").read_text()
            assert "Uid:\t65534\t65534\t65534\t65534" in status
