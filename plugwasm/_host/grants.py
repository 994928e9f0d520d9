"""What was granted to a plugin, and where what it says goes: made once for each compiled plugin, and shared by all of its instances."""

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
    """Immutable but for what is made when it is needed first, and for the log's counts."""

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
        self.spec = spec
        self.limits = limits
        self.log = log
        self.wasi = wasi
        self.preopens = preopens
        self.http_response_headers = http_response_headers
        self.has_wasi = has_wasi
        self.fuel_limit = fuel_limit
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
            family = hash(
                (
                    tuple(module.wasm for module in spec.modules),
                    frozenset(spec.config.items()),
                    spec.allowed_hosts,
                )
            )
            self._http_client = HttpClient.for_plugin(
                self._egress or Egress(),
                spec.allowed_hosts,
                spec.max_http_response_bytes,
                RequestOwner(family),
            )
        return self._http_client
