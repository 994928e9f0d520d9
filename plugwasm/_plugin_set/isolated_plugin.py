"""A plugin of a set that runs in processes of its own, each an `IsolatedPlugin`.

Nothing of it is compiled in the process of the application.

Decisions: docs/decisions.md, 21.7.
"""

from __future__ import annotations

from _thread import get_ident

from .._isolation.compiled_plugin import RemoteCompiledPlugin
from .._isolation.plugin import IsolatedPlugin
from .._pool.claim import Claim
from .._pool.lease import Lease
from .._pool.slots import Slots
from ..errors import PoolTimeoutError
from .loaded_plugin import LoadedPlugin

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .._host.thread_call import ThreadCall
    from .._runtime.compiled_plugin import CompiledPlugin
    from .._runtime.plugin import Plugin
    from .loaded_plugin import InstancePolicy

__all__ = ["IsolatedLoadedPlugin"]


class _ProcessSlots(Slots):
    """Slots whose plugins are processes; errors speak of processes and `instances`."""

    def timeout_error(self, seconds: float) -> PoolTimeoutError:
        return PoolTimeoutError(
            f"the processes of plugin `{self.name}` ({self.size}) were all in use "
            f"for {seconds:g} s (timeout): allow more (`instances`)",
            plugin=self.name,
        )

    def self_wait_error(self) -> PoolTimeoutError:
        return PoolTimeoutError(
            f"the processes of plugin `{self.name}` ({self.size}) are all in use by the caller, or "
            "by calls that wait for it, so it would wait for itself: allow more (`instances`)",
            plugin=self.name,
        )


class IsolatedLoadedPlugin(LoadedPlugin):
    """A plugin with at most as many processes as the policy allows, each started when it is needed.

    Further calls wait for a process, as long as a call may take.
    """

    __slots__ = ("_retired_flag", "_slots")

    def _prepare(self, compiled: CompiledPlugin, policy: InstancePolicy) -> CompiledPlugin:
        # None of these functions refers to `self`: a set that was not closed ends its
        # processes without the garbage collector.
        config, process, fresh = self._config, policy.process, policy.fresh
        recycle = policy.recycle_for(compiled)
        retired = self._retired_flag = _RetiredFlag()

        def make() -> Plugin:
            return IsolatedPlugin(compiled, config=config, process=process, recycle=recycle)

        def refresh(plugin: Plugin) -> bool:
            if fresh:
                plugin.reset()
            return not retired.is_set

        self._slots = _ProcessSlots(
            compiled.name, policy.instances, compiled.limits.timeout, make, refresh
        )
        if isinstance(compiled, RemoteCompiledPlugin) and hasattr(compiled, "_plan"):
            return compiled  # it was loaded before, and is configured anew
        with Lease(self._slots, None) as plugin:  # only its process can say what it exports
            return plugin.compiled_plugin

    def call(
        self,
        function_name: str,
        data: Any,
        options: dict[str, Any],
        thread_call: ThreadCall | None = None,
    ) -> Any:
        slots, claim = self._slots, Claim()
        try:
            self._acquire(claim, function_name, thread_call)
            if claim.slot is None:
                raise slots.closed_error()
            plugin = slots.plugin(claim.slot)
            if thread_call is not None:
                thread_call.plugin = plugin
            return plugin.call(function_name, data, **options)
        finally:
            if thread_call is not None:
                thread_call.release_plugin()
            try:
                slots.release(claim)
            finally:
                claim.is_released = True
            if self._retired_flag.is_set:  # perhaps just when the slot was given back
                self.retire()

    def _acquire(self, claim: Claim, function_name: str, thread_call: ThreadCall | None) -> None:
        slots = self._slots
        try:
            if thread_call is None:
                slots.acquire(claim, slots.wait)
                return
            claim.thread = get_ident()
            if not slots.try_acquire(claim):
                # The task waits, since it is what can be cancelled.
                thread_call.run_coroutine(slots.acquire_async, (claim, slots.wait))
        except PoolTimeoutError as error:
            error.function = function_name
            raise

    def retire(self) -> None:
        """End the processes that are idle, and each of the others when its call has ended."""
        self._retired_flag.is_set = True
        claims: list[Claim] = []
        try:
            while True:
                claim = Claim()
                claim.thread = get_ident()
                claims.append(claim)
                if not self._slots.try_acquire(claim):
                    return
        finally:
            for claim in claims:
                try:
                    self._slots.release(claim)
                finally:
                    claim.is_released = True


class _RetiredFlag:
    """Whether the plugin was retired. No `Event`, whose lock a signal handler could find taken."""

    __slots__ = ("is_set",)

    def __init__(self) -> None:
        self.is_set = False
