"""Processes that this one has started, and ends: no other process, whoever waits for children.

An application may wait for all children (`os.waitpid(-1, …)`), or have the system do so (SIGCHLD ignored). Then a child's number may belong
to another process by the time that it is to be killed, and `Popen.wait` gives 0 for an exit code that somebody else has got.

Invariants:

1. A signal goes to a descriptor of the process where the system has such (Linux), and a process group gets one only while its leader is a
   child that nobody has waited for: so long its number is taken.
2. An exit code that was not seen is None, and never 0.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from time import monotonic

from ._native import sleep

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_PAUSE = 0.002
_CAN_LOOK = hasattr(os, "waitid")
"""Without taking the exit code. Where not, `Popen` knows no better."""


class Child:
    """A process that was just started.

    Args:
        process: The process.
        leads: Whether it is the leader of a process group, which is to end with it.
    """

    def __init__(self, process: subprocess.Popen[bytes], *, leads: bool = False) -> None:
        self.process = process
        self._leads = leads
        self._code: int | None = None
        self._is_over = False
        self._descriptor = -1
        if sys.platform == "linux":
            try:
                self._descriptor = os.pidfd_open(process.pid)
            except (AttributeError, OSError):
                return  # of an old system, or there are no more descriptors
            if not self.is_ours():  # it has ended already, and the number may be another's
                self.forget()

    @property
    def pid(self) -> int:
        """Its number."""
        return self.process.pid

    def _look(self, options: int) -> Any:
        kind, number = (os.P_PID, self.process.pid) if self._descriptor < 0 else (os.P_PIDFD, self._descriptor)
        return os.waitid(kind, number, os.WEXITED | options)

    def is_ours(self) -> bool:
        """Whether it is there still, be it that it has ended and nobody has waited for it."""
        if self._is_over:
            return False
        if not _CAN_LOOK:
            return self.process.poll() is None
        try:
            self._look(os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return False
        return True

    def kill(self) -> None:
        """Ends it, if it has not ended, and waits for that. Twice is allowed."""
        if self.is_ours():
            if self._leads:
                try:
                    os.killpg(self.process.pid, signal.SIGKILL)
                except OSError:
                    pass
            try:
                if self._descriptor >= 0:
                    signal.pidfd_send_signal(self._descriptor, signal.SIGKILL)
                else:
                    self.process.kill()
            except OSError:
                pass
            self.wait()
        self.forget()

    def wait(self, seconds: float | None = None) -> int | None:
        """Its exit code as `Popen` has it, once it has ended; None if somebody else got that.

        Raises:
            subprocess.TimeoutExpired: It has not ended in that time.
        """
        if not _CAN_LOOK:
            return self.process.wait(seconds)
        end = None if seconds is None else monotonic() + seconds
        pause = _PAUSE / 4
        while not self._is_over:
            try:
                if (result := self._look(0 if end is None else os.WNOHANG)) is not None:
                    self._code = result.si_status if result.si_code == os.CLD_EXITED else -result.si_status
                    self._over(self._code)
                    break
            except ChildProcessError:
                self._over(0)
                break
            if end is not None and monotonic() >= end:
                assert seconds is not None
                raise subprocess.TimeoutExpired(self.process.args, seconds)
            sleep(pause)
            pause = min(2 * pause, 10 * _PAUSE)
        return self._code

    def _over(self, code: int) -> None:
        if not self._is_over:
            self._is_over = True
            if self.process.returncode is None:
                self.process.returncode = code  # so that `Popen` does not wait for it as well

    def forget(self) -> None:
        """Gives back its descriptor, and does not wait for it any more. A forked child, which it is no child of, does nothing else."""
        self._over(0)
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
