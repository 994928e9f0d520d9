"""What was granted to a plugin, and where its log goes: made once per compiled plugin, and shared
by its instances.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._http.policy import Egress
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
        "_policy",
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
        self._policy: Egress | None = None

    @property
    def policy(self) -> Egress:
        """What the plugin may send where: what the manifest grants, within what the application
        allows.
        """
        if self._policy is None:
            from .._http.policy import Egress
            from .._http.request_owner import RequestOwner

            spec = self.spec
            own = self._egress or Egress()
            family = hash(
                (
                    tuple(module.wasm for module in spec.modules),
                    frozenset(spec.config.items()),
                    spec.allowed_hosts,
                )
            )
            self._policy = own.for_manifest(
                spec.allowed_hosts, spec.max_http_response_bytes
            ).for_owner(RequestOwner(family))
        return self._policy
