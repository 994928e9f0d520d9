"""Requests by way of an HTTP proxy that the application names.

The proxy is the application's choice, so its address is not vetted. What it is asked to connect to is:

- When the target's addresses were vetted (`Egress(resolve=True)`), the proxy is asked for a tunnel to one of these, for http too: an http
  request in absolute form would make it resolve the name again. TLS and `Host` have the name.
- When they were not (`resolve=False`), the proxy gets the name, in a CONNECT for https and in absolute form for http; which addresses
  it may lead to is then for the proxy to say.
"""

from __future__ import annotations

from ..errors import OptionError
from .connection import connect, resolve_host
from .transport import request_error
from .url import HostRules

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .connection import CallClock, Connection
    from .transport import EgressRequest

__all__ = ["ENVIRONMENT", "Proxy", "select_proxy"]

ENVIRONMENT = "environment"
"""Stands for what `http_proxy`, `https_proxy`, `all_proxy` and `no_proxy` say when a request is made."""

_MAX_HEAD = 64 << 10


class Proxy:
    """An HTTP proxy: "http://host:port", or "http://user:password@host:port"."""

    __slots__ = ("headers", "host", "port")

    def __init__(self, url: str) -> None:
        """Raises OptionError; the message does not repeat the URL, which may hold a password."""
        from urllib.parse import unquote

        from urllib3.util import make_headers, parse_url

        try:
            parsed = parse_url(url)
            if (
                parsed.scheme != "http"
                or not parsed.host
                or parsed.path not in (None, "/")
                or parsed.query
                or parsed.port == 0
            ):
                raise ValueError
            (self.host,) = HostRules([parsed.host], "proxy").literals
            self.port = parsed.port or 80
            # Names the proxy only; what a guest says about proxies is refused.
            self.headers = (
                make_headers(proxy_basic_auth=unquote(parsed.auth)) if parsed.auth else {}
            )
        except (ValueError, TypeError, AttributeError):
            raise OptionError(
                f"proxy: expected 'http://host:port' or {ENVIRONMENT!r}; the application's own transport can do more"
            ) from None

    @property
    def authority(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __repr__(self) -> str:
        return f"<Proxy {self.authority}>"

    def connect(self, clock: CallClock) -> Connection:
        """A connection to the proxy itself."""
        return connect(clock, resolve_host(clock, self.host, self.port), self.port)

    def tunnel(self, clock: CallClock, request: EgressRequest) -> Connection:
        """A connection through the proxy to one of the request's addresses; to its host where they were not resolved."""
        refusal = ""
        for host in request.addresses or (request.host,):
            wire = self.connect(clock)
            try:
                status, reason = _ask(
                    wire,
                    f"[{host}]:{request.port}" if ":" in host else f"{host}:{request.port}",
                    self.headers,
                )
                if 200 <= status < 300:
                    return wire
            except BaseException:
                wire.hang_up()
                raise
            wire.hang_up()
            refusal = f"the proxy {self.authority} did not connect to it: {status} {reason[:64]!r}"
            if status < 500:
                break
        raise request_error(request, refusal)


def _ask(wire: Connection, authority: str, headers: dict[str, str]) -> tuple[int, str]:
    import http.client

    connection = http.client.HTTPConnection("proxy")
    connection.auto_open = 0
    connection.sock = wire
    connection.request("CONNECT", authority, headers={"Host": authority, **headers})
    wire.allowance = wire.received + _MAX_HEAD
    answer = connection.getresponse()
    answer.close()
    wire.allowance = None
    return answer.status, answer.reason


def select_proxy(setting: Proxy | str | None, request: EgressRequest) -> Proxy | None:
    """The proxy that this request goes through."""
    if setting is None or isinstance(setting, Proxy):
        return setting
    from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

    proxies = getproxies_environment()
    url = proxies.get(request.scheme) or proxies.get("all")
    if not url or proxy_bypass_environment(f"{request.host}:{request.port}", proxies):
        return None
    try:
        return Proxy(url if "://" in url else f"http://{url}")
    except OptionError as error:
        raise request_error(request, f"in the environment, {error.message}") from None
