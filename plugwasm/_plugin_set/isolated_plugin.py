"""A plugin of a set that runs in processes of its own, each an `IsolatedPlugin`. Nothing of it is compiled in the application's."""

from __future__ import annotations

from .._isolation.plugin import IsolatedPlugin, RemoteCompiledPlugin
from .._pool.slots import POOL_DEFAULT, Lease, Slots
from ..errors import PoolTimeoutError
from .loaded_plugin import LoadedPlugin

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .._host.event_loop import ThreadCall
    from .._runtime.compiled_plugin import CompiledPlugin
    from .._runtime.plugin import Plugin
    from .loaded_plugin import InstancePolicy

__all__ = ["IsolatedLoadedPlugin"]


class _ProcessSlots(Slots):
    """Slots whose plugins are processes, with errors in these words."""

    def timeout_error(self, seconds: float) -> PoolTimeoutError:
        return PoolTimeoutError(
            f"the processes of plugin `{self.name}` ({self.size}) were all in use for {seconds:g} s (timeout): allow more (`instances`)",
            plugin=self.name,
        )

    def self_wait_error(self) -> PoolTimeoutError:
        return PoolTimeoutError(
            f"the processes of plugin `{self.name}` ({self.size}) are all in use by the one who waits for another, and so would wait for "
            "itself: allow more (`instances`)",
            plugin=self.name,
        )


class IsolatedLoadedPlugin(LoadedPlugin):
    """A plugin with as many processes as may be, each made when it is needed. Further calls wait for one, as long as a call may take."""

    __slots__ = ("_is_retired", "_slots")

    def _prepare(self, compiled: CompiledPlugin, instance_policy: InstancePolicy) -> CompiledPlugin:
        # None of these functions has `self`: a set that nobody closed lets go of its processes without the garbage collector.
        config, process, fresh = self._config, instance_policy.process, instance_policy.fresh
        ended = self._is_retired = _RetiredFlag()

        def make() -> Plugin:
            return IsolatedPlugin(compiled, config=config, process=process)

        def refresh(plugin: Plugin) -> bool:
            if fresh:
                plugin.reset()
            return not ended.is_set

        self._slots = _ProcessSlots(
            compiled.name, instance_policy.instances, compiled.limits.timeout, make, refresh
        )
        if isinstance(compiled, RemoteCompiledPlugin) and hasattr(
            compiled, "_plan"
        ):  # it was loaded before, and is configured anew
            return compiled
        with Lease(self._slots, None) as plugin:  # only its process can say what it exports
            return plugin.compiled_plugin

    def call(
        self,
        function_name: str,
        data: Any,
        options: dict[str, Any],
        thread_call: ThreadCall | None = None,
    ) -> Any:
        lease = Lease(self._slots, POOL_DEFAULT)
        try:
            self._take(lease, function_name, thread_call)
            plugin = lease.plugin()
            if thread_call is not None:
                thread_call.plugin = plugin
            return plugin.call(function_name, data, **options)
        finally:
            if thread_call is not None:
                thread_call.release_plugin()
            try:
                lease.release()
            finally:
                lease.claim.is_released = True
            if self._is_retired.is_set:  # perhaps just when it was given back
                self.retire()

    def _take(self, lease: Lease, function_name: str, thread_call: ThreadCall | None) -> None:
        try:
            if thread_call is None:
                lease.acquire()
            elif not lease.try_acquire():
                thread_call.run_coroutine(
                    lease.acquire_async, ()
                )  # the task waits, since it is what can be cancelled
        except PoolTimeoutError as error:
            error.function = function_name
            raise

    def retire(self) -> None:
        """Ends the processes that are idle, and each of the others when its call has ended."""
        self._is_retired.is_set = True
        leases = [Lease(self._slots, None)]
        try:
            while leases[-1].try_acquire():
                leases.append(Lease(self._slots, None))
        finally:
            for lease in leases:
                lease.release()


class _RetiredFlag:
    """Whether the plugin was let go of. No `threading.Event`, whose lock a signal handler could find taken."""

    __slots__ = ("is_set",)

    def __init__(self) -> None:
        self.is_set = False
