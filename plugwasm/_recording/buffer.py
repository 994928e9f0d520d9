"""The buffer that captured calls go to, up to a number of bytes."""

from __future__ import annotations

import os
from time import gmtime, strftime

from .._manifest.limits import Limits
from .schema import FORMAT_VERSION, Call, RecordedModule, split_vars, to_encodable_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .._host.guest import Guest

_CALL_OVERHEAD = 500
"""Bytes of memory that a call or a host call takes besides its data; about."""
RECORDED_LIMITS = (
    "timeout",
    "memory_bytes",
    "max_pages",
    "memories",
    "tables",
    "table_elements",
    "instances",
    "stack_bytes",
    "var_bytes",
    "vars",
    "descriptors",
    "gc",
    "atomics",
)


class RecordingBuffer:
    """What was captured so far. It does not hold the instance.

    Attributes:
        id: The start of the instance in UTC, and random bytes.
        plugin: The name of the plugin.
        log_level: That of the instance at its start.
        calls: In order.
        incomplete: Why there will be no more; empty while there may be.
    """

    def __init__(self, guest: Guest, max_bytes: int) -> None:
        grants = guest.grants
        self.id = f"{strftime('%Y%m%dT%H%M%S', gmtime())}-{os.urandom(4).hex()}"
        self.calls: list[Call] = []
        self.incomplete = ""
        self.plugin = grants.log.name
        self._grants = grants
        self._bytes_left = max_bytes
        self._config, self.log_level = guest.config, guest.log.level()
        self._vars, self._more_vars = split_vars(guest.vars.snapshot())
        self._overrides: set[tuple[str, str]] = set()
        self._modules: list[RecordedModule] = []

    def has_room(self, size: int) -> bool:
        """Return whether `size` more bytes could be captured. If not, the recording ends."""
        if self._bytes_left < size:
            self.stop("it would have been larger than `max_bytes`")
        return not self.incomplete

    def reserve(self, size: int) -> bool:
        """Count `size` more bytes. Return False if there is no room, or the recording has ended."""
        self._bytes_left -= size + _CALL_OVERHEAD
        return self.has_room(0)

    def stop(self, reason: str) -> None:
        """End the recording."""
        self.incomplete = self.incomplete or reason

    def add_override(self, function: tuple[str, str]) -> None:
        """Note that a function of the application replaced one of plugwasm's own."""
        self._overrides.add(function)

    def fields(self) -> dict[str, Any]:
        """Return the fields of a `Recording` with what was captured so far."""
        from hashlib import sha256

        grants = self._grants
        spec = grants.spec
        if not self._modules:
            self._modules = [
                RecordedModule(
                    module.name, sha256(module.wasm).hexdigest(), to_encodable_text(module.origin)
                )
                for module in spec.modules
            ]
        return {
            "plugwasm_recording": FORMAT_VERSION,
            "plugin": self.plugin,
            "modules": self._modules,
            "main": spec.main,
            "wasi": grants.has_wasi,
            "fuel_limit": grants.fuel_limit,
            "http_response_headers": grants.http_response_headers,
            "limits": _non_default_limits(grants.limits),
            "config": self._config,
            "vars": self._vars,
            "more_vars": self._more_vars,
            "log_level": self.log_level,
            "overrides": sorted(self._overrides),
            "calls": self.calls.copy(),
            "incomplete": self.incomplete,
        }


def _non_default_limits(limits: Limits) -> dict[str, bool | int | float | None]:
    """Return the limits that count in a replay and are not the default."""
    default = Limits()
    return {
        name: value
        for name in RECORDED_LIMITS
        if (value := getattr(limits, name)) != getattr(default, name)
    }
