"""System call filters that make this process fail to start threads or processes: resource limits
do not apply to root."""

from __future__ import annotations

import ctypes
import errno
import platform
import struct

_CLONE = {"x86_64": 56, "aarch64": 220}
_CLONE3 = 435
_FORKS = {"x86_64": (57, 58)}
_ERROR, _ALLOW = 0x00050000, 0x7FFF0000
_THREAD = 0x10000


def _step(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("HBBI", code, yes, no, value)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_void_p))


def refuse_threads(*, processes: bool = False) -> None:
    """Make starting a thread fail from now on, as `ulimit -u` or a pids cgroup does. With
    `processes`, starting a process fails too."""
    number, flags = 0, 16  # where a filter finds the call and its first argument
    steps = [_step(0x20, number), _step(0x15, _CLONE3, 0, 1), _step(6, _ERROR | errno.ENOSYS)]
    if processes:
        for fork in _FORKS.get(platform.machine(), ()):
            steps += [_step(0x15, fork, 0, 1), _step(6, _ERROR | errno.EAGAIN)]
    wanted = 0xFFFFFFFF if processes else _THREAD
    steps += [
        _step(0x15, _CLONE[platform.machine()], 0, 3),
        _step(0x20, flags),
        _step(0x45, wanted, 0, 1),
    ]
    steps += [_step(6, _ERROR | errno.EAGAIN), _step(6, _ALLOW)]
    code = ctypes.create_string_buffer(b"".join(steps))
    program = _Program(len(steps), ctypes.addressof(code))
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(38, 1, 0, 0, 0) or library.prctl(22, 2, ctypes.byref(program), 0, 0):
        raise OSError(ctypes.get_errno(), "no filter of system calls")
