"""Wait at a fork until no other thread is importing a module or entering the system's resolver.

A thread that imports a module holds that module's lock; a forked child has the lock but not the
thread. Many modules are imported on first use so that a process starts fast, and a child would wait
for ever at its first request or its first trap.

Invariants, for the modules that plugins may need (the standard library and the packages in
`PACKAGES`):

1. A fork waits until no other thread imports any of them, for at most `WAIT_SECONDS` seconds.
   Imports of the application itself are not waited for: they may be a program that runs from within
   its own import.
2. Where that was not enough, the child drops what the others had begun: the locks, and the
   half-imported modules with their submodules. It imports them anew.

The C library's resolver has locks of the same kind. It holds them while it reads its configuration
and loads its modules, in a first lookup; later it waits for the network without them. So

3. a fork waits for lookups (`ResolverUse`) that are younger than `LOOKUP_SECONDS` seconds;
4. no lookup begins between that wait and the end of the fork.

All of this is registered when the package is imported. A hook that is registered while a fork
waits is not called for that fork.

Decisions: docs/decisions.md, 33.2 and 33.10.
"""

from __future__ import annotations

import os
import sys
from time import monotonic

from .native_threads import RLock, get_ident, sleep

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
LOOKUP_SECONDS = 0.5
_LAST_PATIENCE = 0.1
_POLL_INTERVAL = 0.001
_PAIRED_LOCKS = (("logging", "_lock"), ("concurrent.futures.thread", "_global_shutdown_lock"))
"""Locks that their modules take before a fork and release after it. Of what is registered during a
fork, Python calls only the second half.
"""

_absent_locks: list[tuple[str, str]] = []
"""Those of them that did not exist when a fork began."""


class ResolverUse:
    """Mark a thread as one that is in the system's resolver: `with ResolverUse(): …`."""

    def __enter__(self) -> None:
        with _resolver.lock:
            _resolver.entered[self] = monotonic()

    def __exit__(self, *_: object) -> None:
        _resolver.entered.pop(self, None)


class _Resolver:
    """The threads of this process that are in the system's resolver."""

    def __init__(self) -> None:
        self.lock = RLock()  # re-entrant: a signal handler may fork
        """Held by a thread that is about to enter, and by a fork."""
        self.forks = 0
        self.entered: dict[ResolverUse, float] = {}


_resolver = _Resolver()


def _import_locks() -> Iterator[tuple[str, Any]]:
    """Yield the locks of modules that are being imported, or were until just now."""
    locks = getattr(_importlib, "_module_locks", {})
    for name, reference in list(locks.items()):
        top = name.partition(".")[0]
        if top in PACKAGES or top in sys.stdlib_module_names:
            lock = reference()
            if lock is not None:
                yield name, lock


def others_import() -> bool:
    """Return whether another thread is importing a module that plugins may need."""
    me = get_ident()
    return any(getattr(lock, "owner", None) not in (None, me) for _, lock in _import_locks())


def before_fork() -> None:
    """Wait until no other thread is importing."""
    global _absent_locks
    _absent_locks = [
        (name, lock) for name, lock in _PAIRED_LOCKS if not hasattr(sys.modules.get(name), lock)
    ]
    _wait(WAIT_SECONDS)


def before_fork_last() -> None:
    """Wait once more, after the other hooks of this package, some of which let imports begin.

    The waits are short, because those hooks have taken locks.
    """
    global _absent_locks
    absent, _absent_locks = _absent_locks, []
    _wait(_LAST_PATIENCE)
    _resolver.forks += 1
    _resolver.lock.acquire()
    while any(monotonic() - since < LOOKUP_SECONDS for since in list(_resolver.entered.values())):
        sleep(_POLL_INTERVAL)
    for name, lock in absent:
        if (made := getattr(sys.modules.get(name), lock, None)) is not None:
            made.acquire()


def _wait(seconds: float) -> None:
    end = monotonic() + seconds
    while others_import() and monotonic() < end:
        sleep(_POLL_INTERVAL)


def _after_fork_in_parent() -> None:
    if not _resolver.forks:
        return  # the fork began before this module was imported
    _resolver.forks -= 1
    try:
        _resolver.lock.release()
    except RuntimeError:
        pass  # a signal handler raised before it was taken


def _after_fork_in_child_first() -> None:
    global _resolver
    _resolver = _Resolver()


def after_fork_in_child() -> None:
    """Drop imports that other threads of the parent had begun."""
    me = get_ident()
    for name, lock in _import_locks():
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
    """Register the hooks of this module. Python calls the hook that was registered last first."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=before_fork, after_in_child=after_fork_in_child)


def register_last() -> None:
    """Register the hook that has to run last. Call this before anything else of this package
    registers hooks.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=before_fork_last,
            after_in_parent=_after_fork_in_parent,
            after_in_child=_after_fork_in_child_first,
        )
