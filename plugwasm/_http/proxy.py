"""Requests by way of an HTTP proxy that the application names.

The proxy is the application's choice, so its address is not checked. It is asked to connect to:

- one of the target's addresses, if these were checked (`Egress(resolve=True)`), through a tunnel,
  for http too: an http request in absolute form would make it resolve the name again. TLS and
  `Host` have the name;
- the name, if they were not (`resolve=False`), in a CONNECT for https and in absolute form for
  http. Then the proxy decides which addresses the name may lead to.

Decisions: docs/decisions.md, 9.5.
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
"""Stands for the proxy that `http_proxy`, `https_proxy`, `all_proxy` and `no_proxy` name when a
request is made.
"""

_MAX_HEAD = 64 << 10


class Proxy:
    """An HTTP proxy: "http://host:port", or "http://user:password@host:port"."""

    __slots__ = ("headers", "host", "port")

    def __init__(self, url: str) -> None:
        """Raise `OptionError` for a URL that is not valid, without repeating it: it may hold a
        password.
        """
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
            # The only headers about proxies; those of a guest are refused.
            self.headers = (
                make_headers(proxy_basic_auth=unquote(parsed.auth)) if parsed.auth else {}
            )
        except (ValueError, TypeError, AttributeError):
            raise OptionError(
                f"proxy: expected 'http://host:port' or {ENVIRONMENT!r}; the application's own "
                "transport can do more"
            ) from None

    @property
    def authority(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __repr__(self) -> str:
        return f"<Proxy {self.authority}>"

    def connect(self, clock: CallClock) -> Connection:
        """Return a connection to the proxy itself."""
        return connect(clock, resolve_host(clock, self.host, self.port), self.port)

    def tunnel(self, clock: CallClock, request: EgressRequest) -> Connection:
        """Return a connection through the proxy to one of the request's addresses.

        If they were not resolved, the connection is to its host.
        """
        refusal = ""
        for host in request.addresses or (request.host,):
            connection = self.connect(clock)
            try:
                status, reason = _request_tunnel(
                    connection,
                    f"[{host}]:{request.port}" if ":" in host else f"{host}:{request.port}",
                    self.headers,
                )
                if 200 <= status < 300:
                    return connection
            except BaseException:
                connection.disconnect()
                raise
            connection.disconnect()
            refusal = f"the proxy {self.authority} did not connect to it: {status} {reason[:64]!r}"
            if status < 500:
                break
        raise request_error(request, refusal)


def _request_tunnel(
    connection: Connection, authority: str, headers: dict[str, str]
) -> tuple[int, str]:
    import http.client

    http_connection = http.client.HTTPConnection("proxy")
    http_connection.auto_open = 0
    http_connection.sock = connection
    http_connection.request("CONNECT", authority, headers={"Host": authority, **headers})
    connection.allowance = connection.received + _MAX_HEAD
    answer = http_connection.getresponse()
    answer.close()
    connection.allowance = None
    return answer.status, answer.reason


def select_proxy(setting: Proxy | str | None, request: EgressRequest) -> Proxy | None:
    """Return the proxy that a request goes through."""
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
