"""The grants of a plugin, and where its log goes: made once per compiled plugin, and shared
by its instances.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._http.client import HttpClient
    from .._http.egress import Egress
    from .._manifest.limits import Limits
    from .._manifest.resolve import PluginSpec
    from .._wasi.files import Preopen
    from .._wasi.options import WasiOptions
    from .plugin_log import PluginLog

__all__ = ["Grants"]


class Grants:
    """Immutable, but for the policy, which is made on first use, and the counts of the log."""

    __slots__ = (
        "_egress",
        "_http_client",
        "fuel_limit",
        "has_wasi",
        "http_response_headers",
        "limits",
        "log",
        "preopens",
        "spec",
        "wasi",
    )

    def __init__(
        self,
        spec: PluginSpec,
        limits: Limits,
        *,
        log: PluginLog,
        egress: Egress | None = None,
        wasi: WasiOptions | None = None,
        preopens: Sequence[Preopen] = (),
        http_response_headers: bool = False,
        has_wasi: bool = False,
        fuel_limit: int | None = None,
    ) -> None:
        self.spec: PluginSpec = spec
        self.limits: Limits = limits
        self.log: PluginLog = log
        self.wasi: WasiOptions | None = wasi
        self.preopens: Sequence[Preopen] = preopens
        self.http_response_headers: bool = http_response_headers
        self.has_wasi: bool = has_wasi
        self.fuel_limit: int | None = fuel_limit
        self._egress = egress
        self._http_client: HttpClient | None = None

    @property
    def http_client(self) -> HttpClient:
        """The client that sends the plugin's requests; made when it is first needed."""
        if self._http_client is None:
            from .._http.client import HttpClient
            from .._http.egress import Egress
            from .._http.request_owner import RequestOwner

            spec = self.spec
            self._http_client = HttpClient.for_plugin(
                self._egress or Egress(),
                spec.allowed_hosts,
                spec.max_http_response_bytes,
                lambda: RequestOwner(_hash_spec(spec)),
            )
        return self._http_client


def _hash_spec(spec: PluginSpec) -> int:
    """Return a hash of what a plugin was made from: its modules and its grants."""
    return hash(
        (
            tuple(module.wasm for module in spec.modules),
            frozenset(spec.config.items()),
            spec.allowed_hosts,
        )
    )
