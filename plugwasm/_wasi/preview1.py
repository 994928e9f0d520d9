"""WASI preview 1 for one plugin instance, in Python: ``Wasi`` has one method for each function of
``wasi_snapshot_preview1``.

The engine has one too, but that keeps a background runtime that hangs in a forked child, cannot be
ended by a deadline while it sleeps, does not limit descriptors, and does not let the application
choose clocks and random bytes.

- ``abi``: the specification's numbers and layouts.
- ``descriptors``, ``paths``: the functions on these; ``files`` and ``path_resolution`` confine them
  to granted directories.
- ``stdio``: the standard streams.
- this module: clocks, random bytes, waiting, the process, and the one place where an exception
  becomes an error number.

The guest has no arguments, no environment and no sockets. Exceptions of the application's own
callables pass through unchanged.

Decisions: docs/decisions.md, 5.
"""

from __future__ import annotations

import os
import time

from . import abi
from .abi import SIGNATURES, U64, MemoryFault, WasiError
from .files import Directory, File, Preopen
from .paths import PathCalls
from .stdio import LineSplitter, Stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .abi import WasiMemory

__all__ = ["SIGNATURES", "GuestExit", "LineSplitter", "MemoryFault", "Preopen", "Wasi"]

MAX_SUBSCRIPTIONS = 1024
# Longer waits are split: Python's own waits do not accept the 584 years that a guest may ask for.
MAX_SLEEP = 3_600_000_000_000
RANDOM_CHUNK = 1024 * 1024

_MASK = 0xFFFF_FFFF_FFFF_FFFF


class GuestExit(Exception):
    """The guest called ``proc_exit``."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Wasi(PathCalls):
    """The WASI state of one instance.

    Each method named in ``SIGNATURES`` takes the guest's memory and its arguments as unsigned
    integers, and returns the error number. The methods raise ``GuestExit`` only; exceptions of
    ``on_output``, ``sleep`` and the clocks pass through.

    Args:
        preopens: The granted directories, descriptor 3 and up.
        on_output: Called with 1 or 2 and the bytes that the guest wrote to its stdout or stderr.
        sleep: Called with 0.0 from time to time during long work. It may raise to end the call.
        pause: Called with seconds when the guest sleeps; ``sleep`` if not given.
        now: The realtime clock, in nanoseconds since 1970.
        monotonic: The monotonic clock, in nanoseconds.
        resolution: The resolution of both clocks, in nanoseconds.
        random: Returns so many random bytes.
        max_descriptors: The most files and directories that the guest may have open at once,
            without the preopens.
    """

    def __init__(
        self,
        *,
        preopens: Sequence[Preopen] = (),
        on_output: Callable[[int, bytes], None],
        sleep: Callable[[float], None],
        pause: Callable[[float], None] | None = None,
        now: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], int] = time.monotonic_ns,
        resolution: int = 1,
        random: Callable[[int], bytes] = os.urandom,
        max_descriptors: int = 64,
    ) -> None:
        self._table: dict[int, Stream | File | Directory] = {
            number: Stream(number, on_output) for number in (0, 1, 2)
        }
        for fd, preopen in enumerate(preopens, 3):
            self._table[fd] = Directory.of_preopen(preopen)
        self._sleep = sleep
        self._pause = pause or sleep
        self._now = now
        self._monotonic = monotonic
        self._resolution = resolution
        self._random = random
        self._max_descriptors = max_descriptors
        self._opened = 0

    def close(self) -> None:
        """Close all descriptors of the guest. Any later use of one is BADF."""
        table, self._table = self._table, {}
        self._opened = 0
        for descriptor in table.values():
            try:
                descriptor.close()
            except WasiError:  # a late write error; there is no guest left to tell
                pass

    # Arguments and environment, of which there are none

    def args_sizes_get(self, memory: WasiMemory, argc: int, argv_buf_size: int) -> int:
        memory.write(argc, b"\0\0\0\0")
        memory.write(argv_buf_size, b"\0\0\0\0")
        return 0

    def args_get(self, memory: WasiMemory, argv: int, argv_buf: int) -> int:
        return 0

    def environ_sizes_get(self, memory: WasiMemory, environc: int, environ_buf_size: int) -> int:
        return self.args_sizes_get(memory, environc, environ_buf_size)

    def environ_get(self, memory: WasiMemory, environ: int, environ_buf: int) -> int:
        return 0

    # Clocks and randomness

    def _clock(self, clock: int) -> Callable[[], int]:
        """Return a clock.

        There is none for CPU time: the guest's is not known, the process's is private.
        """
        if clock == abi.CLOCK_REALTIME:
            return self._now
        if clock == abi.CLOCK_MONOTONIC:
            return self._monotonic
        raise WasiError(abi.INVAL)

    def clock_res_get(self, memory: WasiMemory, clock: int, resolution: int) -> int:
        self._clock(clock)
        memory.write(resolution, U64.pack(self._resolution))
        return 0

    def clock_time_get(self, memory: WasiMemory, clock: int, precision: int, result: int) -> int:
        memory.write(result, U64.pack(self._clock(clock)() & _MASK))
        return 0

    def random_get(self, memory: WasiMemory, buf: int, length: int) -> int:
        if not length:
            return 0
        target = memory.view(buf, length)
        for start in range(0, length, RANDOM_CHUNK):
            if start:
                self._sleep(0.0)
            size = min(RANDOM_CHUNK, length - start)
            data = self._random(size)
            if len(data) != size:
                raise ValueError(
                    f"the source of random bytes gave {len(data)} of them where {size} were asked "
                    "for"
                )
            target[start : start + size] = data
        return 0

    # Waiting

    def poll_oneoff(
        self, memory: WasiMemory, subscriptions: int, events: int, count: int, nevents: int
    ) -> int:
        """Wait for the first clock, or not at all: files and streams are always ready."""
        if not 0 < count <= MAX_SUBSCRIPTIONS:
            raise WasiError(abi.INVAL)
        records = memory.read(subscriptions, count * abi.SUBSCRIPTION_SIZE)
        results = memory.view(events, count * abi.EVENT.size)
        result = memory.view(nevents, 4)
        ready: list[bytes] = []
        waits: list[tuple[int, int]] = []
        for at in range(0, len(records), abi.SUBSCRIPTION_SIZE):
            userdata, kind = abi.SUBSCRIPTION_HEAD.unpack_from(records, at)
            if kind == abi.EVENT_CLOCK:
                clock, timeout, _, flags = abi.SUBSCRIPTION_CLOCK.unpack_from(records, at + 16)
                try:
                    left = self._time_left(clock, timeout, flags)
                except WasiError as error:
                    ready.append(abi.EVENT.pack(userdata, error.errno, kind, 0, 0))
                else:
                    waits.append((left, userdata))
            elif kind in (abi.EVENT_FD_READ, abi.EVENT_FD_WRITE):
                ready.append(
                    abi.EVENT.pack(
                        userdata, *self._readiness(abi.U32.unpack_from(records, at + 16)[0], kind)
                    )
                )
            else:
                raise WasiError(abi.INVAL)
        passed = 0 if ready else min(waits)[0]
        self._wait(passed)
        ready += [
            abi.EVENT.pack(userdata, 0, abi.EVENT_CLOCK, 0, 0)
            for left, userdata in waits
            if left <= passed
        ]
        data = b"".join(ready)
        results[: len(data)] = data
        abi.U32.pack_into(result, 0, len(ready))
        return 0

    def _time_left(self, clock: int, timeout: int, flags: int) -> int:
        if flags & ~abi.CLOCK_ABSTIME:
            raise WasiError(abi.INVAL)
        read = self._clock(clock)
        return max(timeout - read(), 0) if flags else int(timeout)

    def _wait(self, nanoseconds: int) -> None:
        while nanoseconds > 0:
            part = min(nanoseconds, MAX_SLEEP)
            self._pause(part / 1e9)
            nanoseconds -= part

    def _readiness(self, fd: int, kind: int) -> tuple[int, int, int, int]:
        found = self._table.get(fd)
        if found is None or not found.rights & (
            abi.FD_READ if kind == abi.EVENT_FD_READ else abi.FD_WRITE
        ):
            return abi.BADF, kind, 0, 0
        if isinstance(found, Stream) and kind == abi.EVENT_FD_READ:
            return 0, kind, 0, abi.EVENT_HANGUP
        return 0, kind, 1, 0

    # The process

    def proc_exit(self, memory: WasiMemory, code: int) -> int:
        raise GuestExit(code)

    def proc_raise(self, memory: WasiMemory, signal: int) -> int:
        return abi.NOTSUP

    def sched_yield(self, memory: WasiMemory) -> int:
        return 0

    # Sockets, of which there are none

    def _no_socket(self, fd: int) -> int:
        self._descriptor(fd)
        return abi.NOTSOCK

    def sock_accept(self, memory: WasiMemory, fd: int, flags: int, result: int) -> int:
        return self._no_socket(fd)

    def sock_recv(
        self,
        memory: WasiMemory,
        fd: int,
        iovs: int,
        iovs_len: int,
        flags: int,
        ro_datalen: int,
        ro_flags: int,
    ) -> int:
        return self._no_socket(fd)

    def sock_send(
        self, memory: WasiMemory, fd: int, iovs: int, iovs_len: int, flags: int, datalen: int
    ) -> int:
        return self._no_socket(fd)

    def sock_shutdown(self, memory: WasiMemory, fd: int, how: int) -> int:
        return self._no_socket(fd)


def _return_errno(method: Callable[..., int]) -> Callable[..., int]:
    def answer(self: Wasi, memory: WasiMemory, *args: int) -> int:
        try:
            return method(self, memory, *args)
        except WasiError as error:
            return error.errno
        except MemoryFault:
            return abi.FAULT

    answer.__name__ = method.__name__
    answer.__qualname__ = method.__qualname__
    answer.__doc__ = method.__doc__
    return answer


# No ``except OSError`` here: it would swallow exceptions of the application's callables, among them
# a deadline's TimeoutError.
for _name in SIGNATURES:
    setattr(Wasi, _name, _return_errno(getattr(Wasi, _name)))
