"""A plugin of a pool for several calls: `with pool.plugin() as plugin`."""

from __future__ import annotations

from .._engine import signal_safe
from .._platform.finalizer import Finalizable
from .claim import Claim
from .slots import POOL_DEFAULT, check_wait

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from functools import partial
    from types import TracebackType

    from .._runtime.plugin import Plugin
    from .slots import Slots
else:
    from _functools import partial  # the module `functools` takes long to import


class Lease(Finalizable):
    """A plugin of a pool for as long as a `with` block, or an `async with` block, lasts.

    Entering the block waits for the plugin.
    """

    __module__ = "plugwasm"

    __slots__ = ("_claim", "_slots", "_wait")

    def __init__(self, slots: Slots, wait: float | None) -> None:
        self._slots = slots
        self._wait = slots.wait if wait is POOL_DEFAULT else check_wait(wait)
        self._claim = Claim()

    def __enter__(self) -> Plugin:
        self._check_new()
        self._release_when_dropped()
        try:
            self._slots.acquire(self._claim, self._wait)
            return self._lend()
        except BaseException:
            try:
                self._release()
            finally:
                self._claim.is_released = True
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:  # which covers the entry of this function, see `signal_safe`
            self._slots.release(self._claim)
        except BaseException:
            self._claim.is_released = True
            raise

    async def __aenter__(self) -> Plugin:
        self._check_new()
        self._release_when_dropped()
        from .._runtime.threads import run_in_thread

        try:
            await self._slots.acquire_async(self._claim, self._wait)
            plugin: Plugin = await run_in_thread(lambda _: self._lend())
        except BaseException:
            try:
                self._release()
            finally:
                self._claim.is_released = True
            raise
        return plugin

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        from .._runtime.threads import run_shielded

        try:
            await run_shielded(self._release)
        finally:
            self._claim.is_released = True

    def _lend(self) -> Plugin:
        slot = self._claim.slot
        if slot is None:
            raise self._slots.closed_error()
        return self._slots.lend(slot)

    def _release(self) -> None:
        try:
            self._slots.release(self._claim)
        except BaseException:
            self._claim.is_released = True
            raise

    def _check_new(self) -> None:
        if self._claim.is_released:
            self._claim = Claim()
        elif self._claim.slot is not None or self._claim.wake is not None:
            raise RuntimeError(
                "this lease is in use already: call `pool.plugin()` again for another plugin"
            )

    def _release_when_dropped(self) -> None:
        """Release the slot when the lease is freed in the block; C does that (`Finalizable`)."""
        self.__del__: Callable[[], object] = partial(setattr, self._claim, "is_released", True)


signal_safe(Lease._release)
signal_safe(Lease.__exit__)
