"""What the application grants to all plugins of a set, and the way from what one asks for to what it gets."""

from __future__ import annotations

import os

from .._source import Recipe, shown_path
from ..compiled import REGISTERED, CompiledPlugin, check_kinds
from ..errors import ManifestError, OptionError
from ..limits import Limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from .._sandbox.egress import Egress
    from ..functions import Function
    from ..observing import Observe
    from ..wasi import WasiOptions

__all__ = ["Ceiling"]


class Ceiling:
    """What no manifest of the set can exceed."""

    def __init__(
        self,
        wasi: bool | WasiOptions,
        functions: Iterable[Function] | None,
        limits: Limits | None,
        egress: Egress | None,
        allowed_paths: Iterable[str],
        fuel_limit: int | None,
        http_response_headers: bool,
        observe: Observe,
        elsewhere: bool,
    ) -> None:
        check_kinds(wasi, limits, egress)
        if observe is not None:
            from ..observing import need_guest, observers

            given = observers(observe) or ()  # refuses what is none, here and not once for each plugin that is loaded
            if elsewhere and need_guest(given):
                raise OptionError("observe: plugins that are `isolated` cannot be recorded, for their WASI runs in another process")
        self.limits = limits or Limits()
        self._kind: type[CompiledPlugin] = CompiledPlugin
        if elsewhere:
            from ..isolated import Elsewhere

            self._kind = Elsewhere
        self._options: dict[str, Any] = {
            "wasi": wasi,
            "functions": functions if functions is REGISTERED or functions is None else tuple(functions),
            "limits": self.limits,
            "egress": egress,
            "fuel_limit": fuel_limit,
            "http_response_headers": http_response_headers,
            "observe": observe,
        }
        self._grants_hosts = egress is not None and egress.allowed_hosts is not None
        self._paths: dict[str, str] = {}
        for path in allowed_paths:
            try:
                self._paths[os.path.realpath(path.removeprefix("ro:"))] = path
            except ValueError:
                raise OptionError(f"allowed_paths: {shown_path(path)} cannot be the name of a directory", field="allowed_paths") from None

    def compiled(self, name: str, asked: Recipe, seconds: float | None = None) -> CompiledPlugin:
        """The plugin with what it is granted, compiled in so many seconds, or within its limits, unless that is done elsewhere."""
        granted = Recipe(
            asked.modules,
            main=asked.main,
            config=asked.config,
            allowed_hosts=asked.allowed_hosts if self._grants_hosts else (),
            allowed_paths=self._granted_paths(asked.allowed_paths) if self._options["wasi"] else {},
            timeout_ms=asked.timeout_ms,
            max_pages=asked.max_pages,
            max_http_response_bytes=asked.max_http_response_bytes,
            max_var_bytes=asked.max_var_bytes,
            compile_seconds=seconds,
        )
        return self._kind(granted, name=name, **self._options)  # type: ignore[arg-type]

    def _granted_paths(self, asked: Mapping[str, str]) -> dict[str, str]:
        """The application's own paths of the directories that are asked for, each read-only if either side says so."""
        granted: dict[str, str] = {}
        for path, guest_path in asked.items():
            place = path.removeprefix("ro:")
            try:
                own = self._paths.get(os.path.realpath(place))
            except (OSError, ValueError):
                own = None
            if own is None:
                raise ManifestError(
                    f"manifest field `allowed_paths`: it asks for {shown_path(place)}, "
                    "which the application grants to no plugin (`allowed_paths`)",
                    field="allowed_paths",
                )
            if path.startswith("ro:") and not own.startswith("ro:"):
                own = f"ro:{own}"
            if own in granted:
                raise ManifestError(f"manifest field `allowed_paths`: it asks for {shown_path(place)} twice", field="allowed_paths")
            granted[own] = guest_path
        return granted
