"""Threads and locks of the system, also where gevent or eventlet replaced Python's with greenlets.

Both patch the modules `_thread`, `threading`, `time` and `queue` in place. A thread that has to run
while a guest runs would then be a greenlet, which runs when the guest has ended. So where something
is patched, it is taken from a second copy of the module, which the interpreter makes.

Decisions: docs/decisions.md, 40.4.
"""

from __future__ import annotations

import sys
import time
from types import BuiltinFunctionType

TYPE_CHECKING = False
if TYPE_CHECKING:
    import threading
    from _thread import LockType
    from collections.abc import Callable
    from threading import local as local
    from typing import Any


def load_unpatched(name: str) -> Any:
    """Load another copy of a C module, as the interpreter initializes it."""
    from importlib.util import find_spec, module_from_spec

    spec = find_spec(name)
    assert spec is not None
    assert spec.loader is not None
    copy = module_from_spec(spec)
    spec.loader.exec_module(copy)
    return copy


_thread: Any = sys.modules["_thread"]
if not isinstance(_thread.start_new_thread, BuiltinFunctionType):
    _thread = load_unpatched("_thread")
_time: Any = time if isinstance(time.sleep, BuiltinFunctionType) else load_unpatched("time")

allocate_lock: Callable[[], LockType] = _thread.allocate_lock
get_ident: Callable[[], int] = _thread.get_ident
start_new_thread: Callable[[Callable[[], object], tuple[()]], object] = _thread.start_new_thread
stack_size: Callable[..., int] = _thread.stack_size
RLock: type[threading.RLock] = _thread.RLock
sleep: Callable[[float], None] = _time.sleep
if not TYPE_CHECKING:
    local = _thread._local


def is_patched() -> bool:
    """Return whether `threading.Thread` is a greenlet by now."""
    import threading

    start: Any = getattr(threading, "_start_joinable_thread", None) or threading._start_new_thread  # type: ignore[attr-defined]
    return not isinstance(start, BuiltinFunctionType)


class Thread:
    """A thread of the system. Where `threading.Thread` is one, this wraps it.

    A daemon thread does not keep the process alive.

    Raises:
        RuntimeError: This interpreter allows no daemon threads.
    """

    def __init__(self, target: Callable[[], object], name: str, *, daemon: bool = True) -> None:
        import threading

        self.daemon = daemon
        self._target = target
        self._thread: threading.Thread | None = (
            None if is_patched() else threading.Thread(target=target, name=name, daemon=daemon)
        )
        self._ident: int | None = None
        self._running = allocate_lock()

    @property
    def ident(self) -> int | None:
        """The thread's identifier, or None until it has run."""
        return self._ident if self._thread is None else self._thread.ident

    def start(self) -> None:
        """Start the thread.

        Raises:
            RuntimeError: No more threads can be started.
        """
        if self._thread is None:
            self._running.acquire()
            start_new_thread(self._run, ())
        else:
            self._thread.start()

    def _run(self) -> None:
        self._ident = get_ident()
        try:
            self._target()
        finally:
            self._running.release()

    def is_alive(self) -> bool:
        """Return whether the thread is running."""
        return self._running.locked() if self._thread is None else self._thread.is_alive()

    def join(self, timeout: float | None = None) -> None:
        """Wait for the thread to end."""
        if self._thread is not None:
            self._thread.join(timeout)
        elif self._running.acquire(timeout=-1 if timeout is None else timeout):
            self._running.release()
