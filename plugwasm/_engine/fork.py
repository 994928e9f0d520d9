"""Bring the engine to rest in all other threads before a fork.

The engine has locks of its own, for its code and for function types. A child that is forked while
another thread holds one of them waits for it for ever when it next loads a module or traps.
Python's lock is held during a fork, and most functions of the engine are called with it
(`_engine.ffi`), so no thread can be in one of those. The rest is called without it, since it runs
guests: calls, and instances whose start function runs. There the engine's locks are taken for
microseconds, when a guest traps.

Invariant: when a fork begins, each thread that runs a guest is blocked, as far as the system tells
(Linux): it waits for Python's lock, or for something outside. This is tried for `WAIT_SECONDS`
seconds without giving up Python's lock, because a running guest comes to its epoch callback, which
needs the lock. Calls pay nothing for this.

Decisions: docs/decisions.md, 33.2 and 33.3.
"""

from __future__ import annotations

import ctypes
import os
import sys
from time import monotonic

from .._platform.finalizer import WeakValues
from .._platform.native_threads import get_ident

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .module import Engine

WAIT_SECONDS = 0.05
_POLL_MICROSECONDS = 100
"""Microseconds."""
_BLOCKED_STATES = b"STtZXI"
_PACKAGE = os.path.dirname(os.path.dirname(__file__)) + os.sep

engines: WeakValues[int, Engine] = WeakValues()
"""The live engines, by their identity."""


def _find_guest_threads() -> list[int]:
    """Return the native ids of other threads whose innermost Python function is one of this
    package.

    Those may be in the engine, or about to be.
    """
    me = get_ident()
    within = {
        ident
        for ident, frame in sys._current_frames().items()
        if ident != me and frame.f_code.co_filename.startswith(_PACKAGE)
    }
    if not within:
        return []
    import threading

    return [
        thread.native_id
        for thread in threading.enumerate()
        if thread.ident in within and thread.native_id is not None
    ]


def _is_running(libc: Any, thread: int) -> bool:
    """Return whether the thread is on a processor, or could be.

    Reads the file through libc, because Python's files would give up Python's lock.
    """
    descriptor = libc.open(b"/proc/self/task/%d/stat" % thread, os.O_RDONLY | os.O_CLOEXEC)
    if descriptor < 0:
        return False
    buffer = ctypes.create_string_buffer(128)
    libc.read(descriptor, buffer, 127)
    libc.close(descriptor)
    return buffer.value.rpartition(b") ")[2][:1] not in _BLOCKED_STATES


def before_fork() -> None:
    """Wait until the threads that run guests are blocked."""
    threads = _find_guest_threads()
    if not threads:
        return
    for engine in engines.values():
        engine.increment_epoch()
    libc = ctypes.PyDLL(None)
    if sys.platform != "linux":
        libc.usleep(10 * _POLL_MICROSECONDS)  # mostly long enough
        return
    end = monotonic() + WAIT_SECONDS
    while threads and monotonic() < end:
        libc.usleep(_POLL_MICROSECONDS)
        threads = [thread for thread in threads if _is_running(libc, thread)]


def register() -> None:
    """Register the hook. Hooks that are registered later run earlier."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=before_fork)
