"""Signal, wait for and end child processes without ever touching another process.

An application may wait for all children (`os.waitpid(-1, …)`), or tell the system to do so (SIGCHLD
ignored). A child's pid may then belong to another process by the time that the child is to be
killed, and `Popen.wait` returns 0 for an exit code that someone else has collected.

Invariants:

1. A signal is sent through a descriptor of the process where the system has these (Linux). A
   process group gets one only while its leader is a child that nobody has waited for: until then
   its pid is not reused.
2. The application may close all descriptors and open its own with the same numbers. So a descriptor
   is used only while it is known to be the process's. If it is not, another is opened, provided
   that it certainly is the process that was started: a child, with the same start time.
3. An exit code that was not seen is None, and never 0.

Decisions: docs/decisions.md, 33.6.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from time import monotonic

from .descriptors import Descriptor
from .native_threads import sleep

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_POLL_INTERVAL = 0.002
_HAS_WAITID = hasattr(os, "waitid")
"""Whether the system can tell that a child has ended without collecting its exit code. Elsewhere
`Popen` has to do.
"""


class ChildProcess:
    """A process that was just started.

    Args:
        process: The process.
        leads: Whether it leads a process group, which ends with it.
    """

    def __init__(self, process: subprocess.Popen[bytes], *, leads: bool = False) -> None:
        self.process = process
        self._leads_group = leads
        self._code: int | None = None
        self._has_ended = False
        self._start_time = _read_start_time(process.pid)
        self._descriptor = _open_descriptor(process.pid)
        # If it has ended already, the pid may be another process's.
        if self._descriptor is not None and not self.is_unreaped():
            self.forget()

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    def _descriptor_number(self) -> int:
        """Return the number of the descriptor, or -1 if there is none.

        A process that can no longer be told from others counts as ended.
        """
        if self._descriptor is None:
            return -1
        number = self._descriptor.number
        if number >= 0:
            return number
        self._descriptor = _open_descriptor(self.process.pid)
        if _read_start_time(self.process.pid) != self._start_time:
            self.forget()
        return -1 if self._descriptor is None else self._descriptor.number

    def _wait_id(self, options: int) -> Any:
        number = self._descriptor_number()
        if self._has_ended:
            raise ChildProcessError
        kind, number = (os.P_PID, self.process.pid) if number < 0 else (os.P_PIDFD, number)
        return os.waitid(kind, number, os.WEXITED | options)

    def is_unreaped(self) -> bool:
        """Return whether the process still exists, running or ended but not waited for."""
        if self._has_ended:
            return False
        if not _HAS_WAITID:
            return self.process.poll() is None
        try:
            self._wait_id(os.WNOHANG | os.WNOWAIT)
        except OSError:
            return False
        return True

    def kill(self) -> None:
        """End the process if it has not ended, and wait for it. May be called twice."""
        if self.is_unreaped():
            if self._leads_group:
                try:
                    os.killpg(self.process.pid, signal.SIGKILL)
                except OSError:
                    pass
            number = self._descriptor_number()
            try:
                if number >= 0:
                    signal.pidfd_send_signal(number, signal.SIGKILL)
                # `Popen.kill` would collect the exit code of an ended process.
                elif _HAS_WAITID and not self._has_ended:
                    os.kill(self.process.pid, signal.SIGKILL)
                elif not self._has_ended:
                    self.process.kill()
            except OSError:
                pass
            self.wait()
        self.forget()

    def wait(self, seconds: float | None = None) -> int | None:
        """Wait for the process to end, and return its exit code as `Popen` has it.

        Returns:
            The exit code, or None if someone else has collected it.

        Raises:
            subprocess.TimeoutExpired: It has not ended in that time.
        """
        if not _HAS_WAITID:
            return self.process.wait(seconds)
        end = None if seconds is None else monotonic() + seconds
        pause = _POLL_INTERVAL / 4
        while not self._has_ended:
            try:
                if (result := self._wait_id(0 if end is None else os.WNOHANG)) is not None:
                    self._code = (
                        result.si_status if result.si_code == os.CLD_EXITED else -result.si_status
                    )
                    self._mark_ended(self._code)
                    break
            except OSError:
                self._mark_ended(0)
                break
            if end is not None and monotonic() >= end:
                assert seconds is not None
                raise subprocess.TimeoutExpired(self.process.args, seconds)
            sleep(pause)
            pause = min(2 * pause, 10 * _POLL_INTERVAL)
        return self._code

    def _mark_ended(self, code: int) -> None:
        if not self._has_ended:
            self._has_ended = True
            if self.process.returncode is None:
                self.process.returncode = code  # so that `Popen` does not wait for it too

    def forget(self) -> None:
        """Close the descriptor and stop waiting for the process.

        A forked child, whose child this process is not, does nothing else.
        """
        self._mark_ended(0)
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            descriptor.close()


class _ProcessDescriptor(Descriptor):
    """The descriptor of a process.

    Before Linux 6.9 all of these share one inode, also with other kinds of descriptors. There the
    system is asked for the process id too.
    """

    __slots__ = ("_is_unique", "_pid")

    def __init__(self, number: int, pid: int) -> None:
        super().__init__(number)
        self._pid = pid
        own = os.pidfd_open(os.getpid())
        self._is_unique = not super()._is_same(own)
        os.close(own)

    def _is_same(self, number: int) -> bool:
        return super()._is_same(number) and (self._is_unique or _read_pid(number) == self._pid)


def _open_descriptor(pid: int) -> Descriptor | None:
    """Open a descriptor of the process that has the pid now.

    Returns:
        The descriptor, or None where the system has none that can be told from others.
    """
    if sys.platform != "linux":
        return None
    number = -1
    try:
        number = os.pidfd_open(pid)
        descriptor = _ProcessDescriptor(number, pid)
    except (AttributeError, OSError):  # an old system, or out of descriptors
        if number >= 0:
            os.close(number)
        return None
    if descriptor.number < 0:  # no /proc
        os.close(number)
        return None
    return descriptor


def _read_pid(descriptor: int) -> int | None:
    """Return the pid of the process that a descriptor refers to."""
    try:
        with open(f"/proc/self/fdinfo/{descriptor}", "rb") as file:
            lines = file.read().split(b"\n")
    except OSError:
        return None
    return next((int(line[4:]) for line in lines if line.startswith(b"Pid:")), None)


def _read_start_time(pid: int) -> bytes | None:
    """Return the start time of the process that has the pid, in the system's units, or None if
    unknown.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[19]
    except (OSError, IndexError):
        return None
