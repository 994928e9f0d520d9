"""The thread that reloads a set in the background (`PluginSet.watch`)."""

from __future__ import annotations

import threading
import weakref
from _thread import allocate_lock

from .._host.plugin_log import log_exception
from .._manifest.messages import truncate
from ..errors import ClosedError, Error
from .state import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _thread import LockType
    from collections.abc import Callable

    from .changes import Changes
    from .plugin_set import PluginSet

__all__ = ["start_watching"]


def start_watching(
    plugins: PluginSet, interval: float, on_change: Callable[[Changes], object] | None
) -> Callable[[], None]:
    """Start a thread that reloads `plugins` every `interval` seconds.

    Return a function that ends it.

    The thread does not keep the set alive.
    """
    stop = allocate_lock()  # no `Event`, whose own lock a signal handler could find taken
    stop.acquire()

    def end() -> None:
        try:
            stop.release()
        except RuntimeError:
            pass  # it has ended already

    threading.Thread(
        target=_watch,
        args=(weakref.ref(plugins), stop, interval, on_change),
        name="plugwasm-plugin-set",
        daemon=True,
    ).start()
    return end


def _watch(
    reference: weakref.ref[PluginSet],
    stop: LockType,
    interval: float,
    on_change: Callable[[Changes], object] | None,
) -> None:
    warning = None
    while not stop.acquire(timeout=min(interval, threading.TIMEOUT_MAX)):
        plugins = reference()
        if plugins is None:
            return
        try:
            changes = plugins.reload()
            warning = None
        except ClosedError:
            return
        except Error as error:
            if error.message != warning:
                warning = error.message
                log.warning("plugins cannot be reloaded: %s", truncate(warning))
            continue
        finally:
            del plugins
        if changes and on_change is not None:
            try:
                on_change(changes)
            except Exception:
                log_exception(log, "`on_change` raised")
