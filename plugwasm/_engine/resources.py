"""Resources that the system has left for the engine: address space for its memories, and threads
that compile.

The engine takes both for granted. It ends the process when it cannot start the threads that compile
in parallel, and reserves four gigabytes for each memory, which a process with a limited address
space (`ulimit -v`) does not have.

Decisions: docs/decisions.md, 28.5.
"""

from __future__ import annotations

import ctypes
import os
import sys
from _thread import allocate_lock, start_new_thread

RESERVATION = 2**32
"""Bytes of address space for a memory where there is enough: as many as it can ever have."""
_MIN_RESERVATION = 2**26
_MEMORIES = 32
"""How many memories should fit into a limited address space. A plugin of one module takes three."""
_UNLIMITED = 2**42
"""Bytes that can be reserved at once only where nothing limits the address space."""


def can_reserve(size: int) -> bool:
    """Return whether this process may reserve so many bytes of address space."""
    import mmap

    no_reserve = 0x4000  # MAP_NORESERVE, which the module names only from Python 3.13 on
    try:
        mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | no_reserve, 0).close()
    except (OSError, ValueError, OverflowError):
        return False
    return True


def address_space_limit() -> int | None:
    """Return the limit of this process's address space in bytes (RLIMIT_AS), or None."""
    if sys.platform != "linux":
        return None
    import resource

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def memory_reservation() -> int:
    """Return how many bytes of address space each memory should take, which no memory can grow
    beyond.

    A memory keeps its address for life, so what is not reserved when it is made cannot be had
    later.
    """
    if (
        sys.platform != "linux"
        or can_reserve(_UNLIMITED)
        or (limit := address_space_limit()) is None
    ):
        return RESERVATION
    share = limit // _MEMORIES
    return min(RESERVATION, max(_MIN_RESERVATION, 1 << share.bit_length() - 1))


def in_main_interpreter() -> bool:
    """Return whether this is not a subinterpreter."""
    get, main = ctypes.pythonapi.PyInterpreterState_Get, ctypes.pythonapi.PyInterpreterState_Main
    get.restype = main.restype = ctypes.c_void_p
    return bool(get() == main())


class _CompilerThreads:
    """Whether the threads that compile are running. The state of this module; the threads belong to
    the process.
    """

    has_started = False
    is_forked = False


def can_compile_in_parallel() -> bool:
    """Return whether the engine may compile in parallel: its threads run, or can be started.

    A forked child has none of those threads, and the engine would wait for them for ever.
    """
    if _CompilerThreads.is_forked:
        return False
    return _CompilerThreads.has_started or can_start_threads(_count_compiler_threads())


def note_compiler_threads() -> None:
    """Note that the threads that compile are running."""
    _CompilerThreads.has_started = True


def _count_compiler_threads() -> int:
    configured = os.environ.get("RAYON_NUM_THREADS", "")
    number = int(configured) if configured.isdecimal() else 0
    return number or os.cpu_count() or 1


def can_start_threads(number: int) -> bool:
    """Return whether so many threads can be started now.

    Twice as many are started and wait for each other, since they may not have ended for the system
    when this returns.
    """
    gate = allocate_lock()
    with gate:
        try:
            for _ in range(2 * number):
                start_new_thread(_wait_for, (gate,))
        except RuntimeError:
            return False
    return True


def _wait_for(gate: object) -> None:
    with gate:  # type: ignore[attr-defined]
        pass


def _after_fork_in_child() -> None:
    _CompilerThreads.is_forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
