"""The application's side of a worker: start it, talk to it, end it, and report how it ended.

The interpreter is started anew: a fork would copy the application's memory with all its secrets,
and `multiprocessing` would run its main module again. The worker gets two ends of sockets, an empty
environment and no other descriptor.

Decisions: docs/decisions.md, 33.6.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import weakref
from contextlib import ExitStack
from time import monotonic

import msgspec

from .._engine import EngineFailure
from .._host.waiting_calls import waiting_callers
from .._platform.child_processes import ChildProcess
from .._platform.descriptors import Descriptor, SocketDescriptor
from .._platform.python_executable import (
    VARIABLE,
    Interpreter,
    NoInterpreterError,
    find_interpreter,
    find_package_folders,
)
from ..errors import WorkerError, escape_line
from . import protocol
from .framing import MAX_MESSAGE, NO_SIGNAL, Channel, ChannelClosed, MessageTooLarge

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

POLL_INTERVAL = 0.1
"""Seconds between two looks at the clocks while the application waits for the worker."""
EXIT_FAILED, EXIT_OUT_OF_MEMORY = 70, 71
MAX_STDERR = 2000
"""Characters of a worker's stderr that are shown."""

_PROGRAM = (
    "import sys; sys.path += sys.argv[3:]; from plugwasm._isolation.worker_main import main; "
    "main(int(sys.argv[1]), int(sys.argv[2]))"
)
_PACKAGES = ("plugwasm", "wasmtime", "msgspec")

_decoder: msgspec.msgpack.Decoder[protocol.FromWorker] = msgspec.msgpack.Decoder(
    protocol.FromWorker
)
_live: weakref.WeakSet[Worker] = weakref.WeakSet()


class WorkerLost(EngineFailure):
    """The worker has ended, or was ended.

    It is an `EngineFailure`, which passes through host functions unchanged.

    Attributes:
        kind: "overdue", "used up" (its processor time), "out of memory", or empty.
    """

    def __init__(self, message: str, kind: str = "") -> None:
        super().__init__(message)
        self.kind = kind


class Worker:
    """A process that runs one plugin.

    Attributes:
        bounds: The most bytes of its messages.
        measures: How it is confined, as it said before it saw any of the guest.
        deadline: When the application gives it up, on the monotonic clock.
        call: The number of the call that runs.
        cancelled_call: The number of a call that was cancelled, and when the worker is given up if
            it still runs that.
        cpu_until: The processor time in seconds at which it is killed, or None.
    """

    def __init__(self, python: str | None, bounds: protocol.Bounds) -> None:
        self.bounds = bounds
        self.measures: tuple[str, ...] = ()
        self.deadline = monotonic()
        self.call = 0
        self.cancelled_call = -1, 0.0
        self.cpu_until: float | None = None
        self.owner = os.getpid()
        self._ended = False
        self._lost: tuple[str, str] | None = None
        """The arguments of the `WorkerLost` that is raised from now on.

        The exception itself would refer to this object by its traceback.
        """
        with ExitStack() as ours, ExitStack() as theirs:
            own_stderr, stderr = os.pipe()
            ours.callback(os.close, own_stderr)
            theirs.callback(os.close, stderr)
            for end in (own_stderr, stderr):
                os.set_blocking(
                    end, False
                )  # what nobody reads does not hold up the one who writes it
            own_sock, sock = map(_held, (ours, theirs), socket.socketpair())
            own_control, control = map(_held, (ours, theirs), socket.socketpair())
            self._stderr, self._sock, self._control = (
                Descriptor(own_stderr),
                SocketDescriptor(own_sock),
                SocketDescriptor(own_control),
            )
            self._process = ChildProcess(
                _start(_interpreter(python), sock.fileno(), control.fileno(), stderr), leads=True
            )
            ours.pop_all()
        own_sock.settimeout(POLL_INTERVAL)
        self._channel = Channel(
            own_sock, protocol.encoder, min(max(bounds.call.values()), MAX_MESSAGE)
        )
        self._release = weakref.finalize(
            self, _release, self._process, self._sock, self._control, self._stderr, self.owner
        )
        _live.add(self)

    @property
    def usable(self) -> bool:
        """Whether it has not ended, as far as is known, and belongs to this process."""
        return not self._ended and self.owner == os.getpid()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def send(self, message: object) -> None:
        """Send a message.

        Raises:
            WorkerLost: The worker has ended.
        """
        if self._lost is not None:
            raise WorkerLost(*self._lost)
        self._check_connection()
        try:
            self._channel.send(message, self._poll)
        except ChannelClosed:
            raise self._died() from None

    def receive(self, limits: Mapping[int, int]) -> protocol.FromWorker:
        """Return the next message, of which only the types and the sizes are checked.

        Args:
            limits: The part of `bounds` for messages that may come now.

        Raises:
            WorkerLost: There is no message, or no valid one.
        """
        if self._lost is not None:
            raise WorkerLost(*self._lost)
        try:
            if self._is_overdue():
                self._poll()
            return _decoder.decode(self._channel.receive(self._poll, limits))
        except ChannelClosed:
            raise self._died() from None
        except (MessageTooLarge, msgspec.DecodeError, RecursionError) as error:
            raise self.protocol_violation(str(error)) from None

    def protocol_violation(self, what: str) -> WorkerLost:
        """End a worker that sent something impossible."""
        self.end()
        return self._set_lost(
            WorkerLost(f"broke the protocol, and was killed: {what}{self._read_stderr()}")
        )

    def cpu_time(self) -> float | None:
        """Return the seconds of processor time that it has used, or None if the system does not
        tell.
        """
        if sys.platform != "linux" or not self._process.is_unreaped():
            return None
        import time

        try:
            return time.clock_gettime(~self._process.pid << 3 | 2)  # clock_getcpuclockid(3)
        except OSError:
            return None

    def cancel(self, number: int) -> None:
        """Ask it to end a call. Any thread may call this."""
        if self._control.number < 0:
            return  # the connection is lost too, or else `cancelled_call` ends the call
        try:
            self._control.socket.send(number.to_bytes(8, "big"), socket.MSG_DONTWAIT | NO_SIGNAL)
        except OSError:
            pass

    def end(self) -> None:
        """Kill the process."""
        self._ended = True
        if self.owner != os.getpid():
            return
        self._process.kill()
        self._sock.close()
        self._control.close()

    def _is_overdue(self) -> bool:
        call, deadline = self.cancelled_call
        return monotonic() >= (min(self.deadline, deadline) if call == self.call else self.deadline)

    def _check_connection(self) -> None:
        """Check that the sockets are still open, so that what is sent reaches nobody else.

        It is called before each message, and while one is awaited.
        """
        if not self._ended and self._sock.number < 0:
            raise self._cut_off()

    def _cut_off(self) -> WorkerLost:
        self.end()
        return self._set_lost(
            WorkerLost(
                "was ended, because the application has closed the descriptors that it was "
                "reached by (daemons close all); call again"
            )
        )

    def _poll(self) -> None:
        self._check_connection()
        for caller in waiting_callers():
            if getattr(getattr(caller, "kernel", None), "worker", None) is not self:
                caller.remaining()
        if self._is_overdue():
            self.end()
            raise self._set_lost(WorkerLost("did not answer in time, and was killed", "overdue"))
        if self.cpu_until is not None:
            used = self.cpu_time()
            if used is not None and used > self.cpu_until:
                self.end()
                raise self._set_lost(
                    WorkerLost("used up its processor time, and was killed", "used up")
                )

    def _died(self) -> WorkerLost:
        """Return the error for a worker that has closed the connection, and end the worker."""
        if not self._ended and self._sock.number < 0:
            return self._cut_off()
        self._ended = True
        try:
            code = self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            self.end()
            return self._set_lost(
                WorkerLost(f"closed its connection, and was killed{self._read_stderr()}")
            )
        self.end()
        if code == EXIT_OUT_OF_MEMORY:
            return self._set_lost(
                WorkerLost("ran out of memory (`ProcessLimits.memory_bytes`)", "out of memory")
            )
        return self._set_lost(WorkerLost(f"ended {_describe_exit(code)}{self._read_stderr()}"))

    def _set_lost(self, lost: WorkerLost) -> WorkerLost:
        self._lost = str(lost), lost.kind
        self._stderr.close()  # it was read; a cycle of references may keep this object for long
        return lost

    def _read_stderr(self) -> str:
        try:
            said = os.read(self._stderr.number, 65536)
        except OSError:
            said = b""
        text = said.decode("utf-8", "replace").strip()[-MAX_STDERR:]
        lines = "".join(
            f"\n  {escape_line(line)}" for line in text.split("\n")
        )  # indented: none can pass for a record of a log
        return f"; its last words:{lines}" if text else ""


def _release(
    process: ChildProcess, sock: Descriptor, control: Descriptor, stderr: Descriptor, owner: int
) -> None:
    if owner == os.getpid():
        process.kill()
    else:
        process.forget()
    sock.close()
    control.close()
    stderr.close()


def _after_fork_in_child() -> None:
    # Or a worker would not notice that its application has ended, as long as this process lives.
    for worker in list(_live):
        worker._ended = True
        worker._release()
    _live.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def _held(stack: ExitStack, sock: socket.socket) -> socket.socket:
    return stack.enter_context(sock)


def _interpreter(python: str | None) -> Interpreter:
    if python is not None:
        return Interpreter(python)  # the application says so
    try:
        return find_interpreter()
    except NoInterpreterError as error:
        raise WorkerError(
            f"a worker cannot be started: {error.message}; `ProcessLimits.python` or the "
            f"environment variable {VARIABLE} can name a "
            "Python interpreter"
        ) from None


def _start(python: Interpreter, sock: int, control: int, stderr: int) -> subprocess.Popen[bytes]:
    options = [*python.options, "-X", "utf8"]
    if sys.dont_write_bytecode:
        options.append("-B")
    if sys.pycache_prefix:
        options += ["-X", f"pycache_prefix={sys.pycache_prefix}"]
    command = [
        python.path,
        *options,
        "-c",
        _PROGRAM,
        str(sock),
        str(control),
        *find_package_folders(_PACKAGES),
    ]
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            pass_fds=(sock, control),
            env=python.environment,
            cwd="/",
            umask=0o077,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        raise WorkerError(f"cannot start a worker with `{python.path}`: {error}") from error


def _describe_exit(code: int | None) -> str:
    if code is None:
        return (
            "(how is not known: something else in the application waits for all child processes, "
            "or has them ignored)"
        )
    if code >= 0:
        return f"with the exit code {code}"
    try:
        return f"by {signal.Signals(-code).name}"
    except ValueError:
        return f"by signal {-code}"
