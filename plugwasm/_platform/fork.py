"""What a forked child needs besides locks of ours: that no other thread was in the middle of an import.

A thread that imports a module holds that module's lock, and a child has the lock but not the thread. Much here is imported where it is
needed first, so that a process starts fast; a child would then wait for ever at its first request, or its first trap.

Invariants, for the modules that plugins may need (the standard library, and packages of `PACKAGES`):

1. A fork waits until no other thread imports any of them, for at most `WAIT_SECONDS` seconds. What an application imports itself is not
   waited for: it may be a program that runs from within its import.
2. Where that was not enough, the child lets go of what the others had begun: the locks, and the modules that are half there, with their
   submodules. It imports them anew.
"""

from __future__ import annotations

import os
import sys
from time import monotonic

from .native_threads import get_ident, sleep

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_importlib: Any = sys.modules["_frozen_importlib"]
PACKAGES = frozenset(
    (
        "plugwasm",
        "wasmtime",
        "msgspec",
        "urllib3",
        "anyio",
        "sniffio",
        "trio",
        "typing_extensions",
        "elftools",
        "opentelemetry",
        "pyarrow",
    )
)
WAIT_SECONDS = 2.0
_LAST_PATIENCE = 0.1
_PAUSE = 0.001
_PAIRED = (("logging", "_lock"), ("concurrent.futures.thread", "_global_shutdown_lock"))
"""Locks that they take before a fork and release after it. Of what is registered during a fork, Python calls only the second half."""

_absent: list[tuple[str, str]] = []
"""Those of them that were not there when a fork began."""


def _locks() -> Iterator[tuple[str, Any]]:
    """The locks of modules that are being imported, or were just now."""
    locks = getattr(_importlib, "_module_locks", {})
    for name, reference in list(locks.items()):
        top = name.partition(".")[0]
        if top in PACKAGES or top in sys.stdlib_module_names:
            lock = reference()
            if lock is not None:
                yield name, lock


def others_import() -> bool:
    """Whether another thread is in the middle of importing what plugins may need."""
    me = get_ident()
    return any(getattr(lock, "owner", None) not in (None, me) for _, lock in _locks())


def before_fork() -> None:
    """Waits for that to end."""
    global _absent
    _absent = [(name, lock) for name, lock in _PAIRED if not hasattr(sys.modules.get(name), lock)]
    _wait(WAIT_SECONDS)


def before_fork_last() -> None:
    """The same after the other hooks of this package, some of which let imports begin; not as long, for they have taken locks."""
    global _absent
    absent, _absent = _absent, []
    _wait(_LAST_PATIENCE)
    for name, lock in absent:
        if (made := getattr(sys.modules.get(name), lock, None)) is not None:
            made.acquire()


def _wait(seconds: float) -> None:
    end = monotonic() + seconds
    while others_import() and monotonic() < end:
        sleep(_PAUSE)


def after_fork_in_child() -> None:
    """Lets go of imports that will not go on."""
    me = get_ident()
    for name, lock in _locks():
        if getattr(lock, "owner", me) == me:
            continue
        _importlib._module_locks.pop(name, None)
        module = sys.modules.get(name)
        if module is not None and getattr(
            getattr(module, "__spec__", None), "_initializing", False
        ):
            for part in [
                part for part in sys.modules if part == name or part.startswith(f"{name}.")
            ]:
                del sys.modules[part]


def register() -> None:
    """Has forks of this process do so. Python calls what is registered last first."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=before_fork, after_in_child=after_fork_in_child)


def register_last() -> None:
    """To be called before anything of this package registers anything."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=before_fork_last)
