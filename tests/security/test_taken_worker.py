"""A worker that its guest has taken over: its messages cost the application little, and its
resources are limited."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import plugwasm
from plugwasm import IsolatedPlugin, Limits, ProcessLimits
from plugwasm._isolation import process
from plugwasm._isolation import protocol as m
from plugwasm.errors import WorkerError
from tests.support.guests import export, guest, manifest
from tests.support.hostile_worker import PROLOGUE, SIMPLE, worker_runs

LINUX = sys.platform == "linux" and os.uname().machine in ("x86_64", "aarch64")
ONLY_LINUX = pytest.mark.skipif(not LINUX, reason="system calls are filtered there only")
MEASURED = pytest.mark.skipif(
    sys.platform != "linux",
    reason="the peak is read from /proc, for rusage remembers that of the parent",
)

# ---- what it says --------------------------------------------------------------------------------

APPLICATION = """
import sys
sys.path[:0] = {paths!r}
import plugwasm
from plugwasm._isolation import process
process._PROGRAM = {program!r}
def peak():
    return int(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0]) * 1024
plugin, error = None, "no error"
before = peak()
try:
    plugin = plugwasm.IsolatedPlugin({module!r}, functions=[], limits=plugwasm.Limits(timeout=20))
    plugin.call("f")
except plugwasm.Error as caught:
    error = f"{{type(caught).__name__}}: {{caught.message[:300]}}"
print(peak() - before)
print(error)
"""


def measure_worker(program: str) -> tuple[int, str]:
    """Return how much memory the application took while its worker ran the program, and the
    application's error."""
    text = APPLICATION.format(
        paths=sys.path, program=f"{PROLOGUE}\n{program}; forever()", module=SIMPLE
    )
    run = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, timeout=120, check=False
    )
    assert run.returncode == 0, run.stderr
    grown, error = run.stdout.splitlines()
    return int(grown), error


BOMBS = {
    "an array of a hundred million numbers instead of a message": "raw(array(10**8), bytes(10**8))",
    "such an array as the values of a host call": "raw(b'\\x94\\x05\\x00', array(10**8), bytes(10**8))",
    "as its blocks": "raw(b'\\x94\\x05\\x00\\x91\\x00', array(10**8), b'\\xc0' * 10**8)",
    "as a line": "raw(b'\\x94\\x06\\xc2', array(10**8), bytes(10**8))",
    "as an answer that nobody asked for": "raw(b'\\x93\\x07\\x00', array(10**8), bytes(10**8))",
    "as what a call gives": "raw(b'\\x95\\x04\\x01', array(3 * 10**7), bytes(3 * 10**7), b'\\xc0\\xc3')",
    "a backtrace of a hundred million frames": "raw(b'\\x96\\x03\\x01\\xa9TrapError\\x81\\xa9backtrace', array(10**8), b'\\xa0' * 10**8)",
    "a backtrace of many frames in a message that may come": "raw(b'\\x96\\x03\\x01\\xa9TrapError\\x81\\xa9backtrace', array(10**7), b'\\xa0' * 10**7)",
    "an error of many fields": "raw(b'\\x96\\x03\\x01\\xa9TrapError\\xdf\\x00\\x80\\x00\\x00', b'\\xa1a\\x01' * 2**22)",
    "a list that only says that it is long": "raw(b'\\x94\\x05\\x00' + array(2**32 - 1))",
    "a map that only says so": "raw(b'\\x96\\x03\\x01\\xa9TrapError\\xdf\\xff\\xff\\xff\\xff')",
    "a text that only says so": "raw(b'\\x96\\x03\\x01\\xdb\\xff\\xff\\xff\\xff')",
    "a message that only says that it is long": "head(2**30); s.sendall(b'\\x95\\x04'); s.close(); os._exit(1)",
    "a plugin with a hundred million exports": "raw(b'\\x94\\x02', array(10**8), bytes(10**8))",
    "a message that never ends": "head(10**9); zeros(10**9)",
}


@MEASURED
@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_call_messages_are_validated(bomb: str) -> None:
    """A worker's message in a call is refused before anything is built from it."""
    grown, error = measure_worker(f"start(); hear(); {bomb}")
    assert error.startswith("WorkerError"), error
    # What was sent may be held once; nothing is built of it.
    assert grown < 80 * 2**20 + (10**9 if "zeros" in bomb else 0), f"{grown >> 20} MiB"


@MEASURED
@pytest.mark.parametrize(
    "bomb",
    [
        "raw(b'\\x92\\x01', array(10**8), b'\\xa0' * 10**8)",
        "say(m.Confined([])); raw(b'\\x94\\x02', array(10**8), bytes(10**8))",
        "say(m.Confined([])); raw(b'\\x94\\x02', array(10**6), b'\\x95\\xa0\\xa0\\xa0\\xc0\\xc0' * 10**6, b'\\x90\\x01')",
        "say(m.Confined([])); raw(b'\\x95\\x04\\x01\\xc6', (10**8).to_bytes(4, 'big'), bytes(10**8), b'\\xc0\\xc3')",
    ],
    ids=["measures", "exports", "exports that could be", "the end of a call"],
)
def test_start_messages_are_validated(bomb: str) -> None:
    """A worker's messages at its start are bounded too."""
    grown, error = measure_worker(f"hear(); hear(); {bomb}")
    assert error.startswith("WorkerError"), error
    assert grown < 80 * 2**20, f"{grown >> 20} MiB"


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        (
            "say(m.HostCall(0, [32], [5000])); hear(); say(m.Answer(0, b'x' * 5001))",
            "another length of a block than 5000",
        ),
        (
            "say(m.HostCall(0, [32], [5000])); hear(); say(m.Answer(0, None))",
            "another length of a block than 5000",
        ),
        ("say(m.HostCall(0, [32], [2**32 + 1]))", "broke the protocol"),
        ("say(m.HostCall(0, [32], [b'x' * 70000]))", "broke the protocol"),
        (
            "say(m.HostCall(0, [32], [5000])); hear(); raw(b'\\x93\\x07\\x00' + array(10**6) + bytes(10**6))",
            "broke the protocol",
        ),
        (
            "say(m.HostCall(0, [32], [5000])); hear(); say(m.Line(False, b'x', 0))",
            "`Line` as an answer",
        ),
        (
            "say(m.HostCall(0, [32], [5000])); hear(); say(m.Line(False, b'x' * 10**6, 0))",
            "where 65532 are the most",
        ),
        ("raw(b'\\x96\\x03\\x01\\xa9TrapError\\x80\\xc0\\xc3\\x00')", "broke the protocol"),
        ("raw(m.encoder.encode(m.NoRoom(5)) + b'\\x00')", "broke the protocol"),
        (
            "s.sendall(b'\\x00\\x00\\x00\\x05\\x95\\x04'); s.close(); os.close(int(sys.argv[2])); os._exit(4)",
            "exit code 4",
        ),
    ],
)
def test_message_fields_are_claims(
    answers: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each field of a message is checked as an untrusted claim."""
    with worker_runs(monkeypatch, f"start(); hear(); {answers}; forever()"):
        plugin = IsolatedPlugin(SIMPLE, name="p", limits=Limits(memory_bytes=2**24))
        with pytest.raises(WorkerError, match=f"(?s)`f` of plugin `p`: its process .*{says}"):
            plugin.call("f")
        plugin.close()


def test_blocks_read_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks that a host function reads are together no larger than the guest's memory."""
    program = """
start(); hear()
say(m.HostCall(FIRST, [0], [None]))
while True:
    hear(); say(m.Answer(0, bytes(2**20)))
"""

    @plugwasm.host_fn()
    def reads(plugin: plugwasm.CurrentPlugin, number: int) -> None:
        for i in range(1, 100):
            plugin.memory(plugin.memory_at_offset(i * 64))

    from plugwasm._host.env import FUNCTIONS

    with worker_runs(monkeypatch, program.replace("FIRST", str(len(FUNCTIONS)))):
        plugin = IsolatedPlugin(SIMPLE, functions=[reads], limits=Limits(memory_bytes=2**24))
        with pytest.raises(WorkerError, match="blocks of more than the 16777216 bytes"):
            plugin.call("f")
        plugin.close()


def test_long_error_is_shortened() -> None:
    """An error with a long message and many frames arrives shortened."""
    text = guest(export("f", "(call $error_set <<no>>)"))
    with (
        IsolatedPlugin(text, functions=[]) as plugin,
        pytest.raises(plugwasm.GuestError, match="no"),
    ):
        plugin.call("f")
    from plugwasm._isolation.worker_main import _failed

    error = plugwasm.TrapError("x" * (m.MAX_TEXT + 1), backtrace=["frame"] * (m.MAX_FRAMES + 1))
    failed = _failed(1, error, None)
    assert len(failed.fields["message"]) == m.MAX_TEXT  # type: ignore[arg-type]
    assert len(failed.fields["backtrace"]) == m.MAX_FRAMES  # type: ignore[arg-type]
    import msgspec

    assert msgspec.msgpack.decode(m.encoder.encode(failed), type=m.Failed) == failed


def test_sent_descriptors_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Descriptors that a worker sends do not stay open in the application."""
    program = """
start()
import array
null = os.open("/dev/null", os.O_RDONLY)
while True:
    hear()
    data = m.encoder.encode(m.Done(CALLS, memoryview(b"yes"), None, True))
    data = len(data).to_bytes(4, "big") + data
    for i in range(len(data)):
        s.sendmsg([data[i:i + 1]], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [null] * 50))])
    CALLS += 1
"""
    with worker_runs(monkeypatch, "CALLS = 1" + program):
        plugin = IsolatedPlugin(SIMPLE)
        before = len(os.listdir("/dev/fd"))
        for _ in range(10):
            assert plugin.call("f") == b"yes"
        assert len(os.listdir("/dev/fd")) == before
        plugin.close()


# ---- what it takes -------------------------------------------------------------------------------

TAKEN = """
import sys
sys.path += sys.argv[3:]
import ctypes, errno, fcntl, json, mmap, os, resource, socket, threading, time
from plugwasm import errors
from plugwasm._isolation import worker_main as child

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
MIB = 2**20

def status(name):
    return int(open("/proc/self/status").read().partition(name + ":")[2].split()[0])

def taken(application, load):
    raise errors.ModuleError(json.dumps(attack()))

honest, child._load = child._load, taken
"""
STARTS = "child._load = honest\nchild.main(int(sys.argv[1]), int(sys.argv[2]))\n"


def run_attack(monkeypatch: pytest.MonkeyPatch, attack: str, **limits: Any) -> Any:
    """Run an attack in a worker instead of the plugin's code, and return its result."""
    body = "".join(f"    {line}\n" for line in attack.strip().splitlines())
    program = f"{TAKEN}\ndef attack():\n{body}\nchild.main(int(sys.argv[1]), int(sys.argv[2]))\n"
    with monkeypatch.context() as patch:
        patch.setattr(process, "_PROGRAM", program)
        with pytest.raises(plugwasm.ModuleError) as caught:
            IsolatedPlugin(SIMPLE, process=ProcessLimits(**limits))
    return json.loads(caught.value.message)


@ONLY_LINUX
def test_no_new_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A taken-over worker cannot start a thread."""
    attack = """
started = 0
for _ in range(2000):
    try:
        threading.Thread(target=time.sleep, args=(100,), daemon=True).start()
    except RuntimeError:
        break
    started += 1
THREAD = 0x10000 | 0x800 | 0x100
raw = [libc.syscall(56 if os.uname().machine == "x86_64" else 220, THREAD, 0, 0, 0, 0), libc.syscall(435, bytes(88), 88)]
return [started, raw]
"""
    assert run_attack(monkeypatch, attack) == [0, [-1, -1]]


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become somebody else"
)
def test_no_filter_unprivileged_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a filter, the worker of an unprivileged user cannot start threads, and nothing
    else is promised."""
    attack = """
try:
    threading.Thread(target=time.sleep, args=(100,), daemon=True).start()
except RuntimeError as error:
    return str(error)
"""
    monkeypatch.setattr(
        sys.modules[__name__],
        "TAKEN",
        TAKEN
        + "\nfrom plugwasm._isolation import confinement as confine\nconfine._filter = lambda *_: False\n",
    )
    assert run_attack(monkeypatch, attack, user=(65534, 65534)) == "can't start new thread"
    monkeypatch.setattr(
        process,
        "_PROGRAM",
        f"{TAKEN}\nfrom plugwasm._isolation import confinement as confine\nconfine._filter = lambda *_: False\n"
        + STARTS,
    )
    with IsolatedPlugin(SIMPLE) as plugin:
        assert plugin.call("f", b"on") == b"on"
        assert not {"seccomp", "no more threads", "no shared memory"} & set(plugin.confinement)
        assert "RLIMIT_NPROC 0" in plugin.confinement


@ONLY_LINUX
def test_no_new_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A taken-over worker cannot start a process."""
    attack = """
found = []
X86 = os.uname().machine == "x86_64"
for flags in (17, 0x100 | 17, 0x4000 | 0x100 | 17, 0x10000000 | 17, 0x80000000 | 17):
    if libc.syscall(56 if X86 else 220, flags, 0, 0, 0, 0) == 0:
        os._exit(0)
    found.append(errno.errorcode[ctypes.get_errno()])
for number in (57, 58) if X86 else ():
    if libc.syscall(number) == 0:
        os._exit(0)
    found.append(errno.errorcode[ctypes.get_errno()])
return sorted(set(found))
"""
    assert run_attack(monkeypatch, attack) == ["EPERM"]


MAPPINGS = {
    "shared": "mmap.MAP_SHARED | mmap.MAP_ANONYMOUS",
    "shared, validated": "0x03 | mmap.MAP_ANONYMOUS",
    "private": "mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS",
    "a stack that grows": "mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x100",
    "huge pages": "mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40000",
    "made writable later": "mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS",
}


@ONLY_LINUX
@pytest.mark.parametrize("kind", MAPPINGS)
def test_memory_limit_cannot_be_escaped(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No memory of a taken-over worker escapes its limit."""
    later = kind == "made writable later"
    attack = f"""
held = 0
for _ in range(64):
    at = libc.mmap(None, 16 * MIB, {0 if later else "mmap.PROT_READ | mmap.PROT_WRITE"}, {MAPPINGS[kind]}, -1, 0)
    if at in (None, 2**64 - 1):
        break
    if {later} and libc.mprotect(ctypes.c_void_p(at), ctypes.c_size_t(16 * MIB), 3) != 0:
        break
    ctypes.memset(at, 1, 16 * MIB)
    held += 16
return held
"""
    held = run_attack(monkeypatch, attack, memory_bytes=2**27)
    assert held <= 128, f"{held} MiB"


@ONLY_LINUX
def test_stack_and_address_space_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The main stack and the address space of a taken-over worker are limited."""
    attack = """
found = [resource.getrlimit(kind) for kind in (resource.RLIMIT_STACK, resource.RLIMIT_AS, resource.RLIMIT_NPROC)]
mapped = 0
while True:  # to be read only: the system gives out one page of zeros, but the tables that lead to it are memory
    at = libc.mmap(None, 2**34, mmap.PROT_READ, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000, -1, 0)
    if at in (None, 2**64 - 1):
        break
    mapped += 2**34
return [found, mapped]
"""
    (stack, addresses, processes), mapped = run_attack(monkeypatch, attack)
    assert stack == [2**23, 2**23]
    assert addresses[1] <= 2**39
    assert processes == [0, 0]
    assert mapped < 2**39


@ONLY_LINUX
def test_no_signals_by_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A taken-over worker with a directory cannot have signals sent."""
    attack = """
file, found = os.open(GRANTED, os.O_RDONLY), []
for command, argument in ((8, os.getppid()), (10, 9), (15, bytes(8)), (1024, 0), (1031, 2**20), (1033, 1)):
    try:
        fcntl.fcntl(file, command, argument)
        found.append("ok")
    except OSError as error:
        found.append(errno.errorcode[error.errno])
os.close(os.dup(file))
assert fcntl.fcntl(file, 3) is not None
return sorted(set(found))
"""
    body = "".join(f"    {line}\n" for line in attack.strip().splitlines()).replace(
        "GRANTED", repr(str(tmp_path))
    )
    with monkeypatch.context() as patch:
        patch.setattr(
            process,
            "_PROGRAM",
            f"{TAKEN}\ndef attack():\n{body}\nchild.main(int(sys.argv[1]), int(sys.argv[2]))\n",
        )
        with pytest.raises(plugwasm.ModuleError, match=r'^\["EPERM"\]$'):
            IsolatedPlugin(manifest(SIMPLE, allowed_paths={str(tmp_path): "/"}), wasi=True)


@ONLY_LINUX
def test_worker_without_threads_works() -> None:
    """A worker that cannot start threads still compiles, ticks and cancels."""
    many = "".join(
        f'(func (export "f{i}") (param i32) (result i32) (i32.mul (local.get 0) (i32.const {i})))'
        for i in range(300)
    )
    loop = '(func (export "run") (loop $l (br $l)))'
    with IsolatedPlugin(f"(module {many} {loop})".encode(), limits=Limits(timeout=0.3)) as plugin:
        with pytest.raises(plugwasm.TimeoutError):
            plugin.call("run")
        pid = plugin._worker.pid if plugin._worker else None
        threading.Event().wait(1.5)  # longer than the thread that ticks stays awake
        with pytest.raises(plugwasm.TimeoutError):
            plugin.call("run")
        assert plugin._worker is not None
        assert plugin._worker.pid == pid
