"""Observed plugins: subclasses whose calls go through a `CallInstrumentation`.

So other plugins pay nothing for observers.

Decisions: docs/decisions.md, 24.
"""

from __future__ import annotations

from .instrumentation import CallInstrumentation
from .observers import resolve_observers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .._host.guest import Guest
    from .abstract_plugin import AbstractPlugin
    from .argument_types import Observe
    from .plugin import Plugin as _Observable
else:
    _Observable = object


class Observed(_Observable):
    """Mixin for the class of an observed plugin, in front of the plugin's own class."""

    __slots__ = ()
    _instrumentation: CallInstrumentation

    if not TYPE_CHECKING:

        def call(
            self, function_name, data=b"", parse=bytes, host_context=None, returns=..., codec=None
        ):
            return self._instrumentation.run(
                self, super().call, function_name, data, parse, host_context, returns, codec
            )

    def _start(self, host_context: object, until: float) -> Guest:
        return self._instrumentation.time_start(super()._start, host_context, until)

    def _clean_up_call(self, guest: Guest, function_name: str) -> None:
        is_fuelled = guest.is_fuelled  # not if the call ended before it began
        self._instrumentation.settle(guest)
        super()._clean_up_call(guest, function_name)
        if is_fuelled:
            self._instrumentation.call.fuel = self._fuel_used


_observed_classes: dict[type[AbstractPlugin], type[AbstractPlugin]] = {}
"""The observed subclass of each class of plugins."""


def instrument(plugin: AbstractPlugin, observe: Observe) -> CallInstrumentation | None:
    """Make a new plugin an observed one, by changing its class, if it is to be observed.

    Returns:
        The plugin's instrumentation, or None if it is not observed.
    """
    shared = plugin.compiled_plugin.observers
    own = resolve_observers(observe)
    if shared is None and own is None:
        return None
    kind = type(plugin)
    if kind not in _observed_classes:
        _observed_classes[kind] = type(
            kind.__name__,
            (Observed, kind),
            {"__slots__": (), "__module__": kind.__module__, "__doc__": kind.__doc__},
        )
    plugin.__class__ = _observed_classes[kind]
    return CallInstrumentation((*(shared or ()), *(own or ())))
