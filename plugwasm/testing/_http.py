"""Responses to a plugin's HTTP requests: a transport that gives the responses of a test."""

from __future__ import annotations

from .._host.observed_values import shorten
from .._http.transport import EgressResponse
from .._http.url import Target
from ..errors import EgressError
from ._records import Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Mapping
    from typing import Any, Self

    from .._http.transport import EgressRequest

    Answer = Callable[[Request], EgressResponse] | EgressResponse | BaseException


class UnexpectedRequestError(EgressError, AssertionError):
    """The plugin made an HTTP request for which the test has no response."""

    __module__ = "plugwasm.testing"

    _has_lines = True


class Route:
    """The requests of one method to one URL, and their responses: by default, 200 without a body.

    Attributes:
        method: The method in upper case; None for any.
        url: The URL in canonical form, or a pattern.
        requests: The requests that were made.
    """

    __module__ = "plugwasm.testing"

    def __init__(self, method: str | None, url: str | re.Pattern[str]) -> None:
        self.method = method
        self.url: str | re.Pattern[str] = Target.parse(url).url if isinstance(url, str) else url
        self.requests: list[Request] = []
        self._answers: list[Answer] = []

    @property
    def called(self) -> bool:
        """Whether a request was made."""
        return bool(self.requests)

    def respond(
        self,
        status: int = 200,
        *,
        json: Any = None,
        text: str | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Self:
        """Add a response.

        The first is for the first request and so on; the last is for all later ones.

        Args:
            status: The status, 200 to 999.
            json, text, body: The body, at most one of them; the first two with their
                `Content-Type`.
            headers: The headers by name.
        """
        if [json, text, body].count(None) < 2:
            raise TypeError("Route.respond: give one of json, text and body")
        own: dict[str, str] = {}
        if json is not None:
            import json as encoder

            own["Content-Type"], body = "application/json", encoder.dumps(json).encode()
        elif text is not None:
            own["Content-Type"], body = "text/plain; charset=utf-8", text.encode()
        self._answers.append(EgressResponse(status, {**own, **(headers or {})}, body or b""))
        return self

    def respond_with(self, answer: Callable[[Request], EgressResponse]) -> Self:
        """Add a function that makes the response to a request."""
        self._answers.append(answer)
        return self

    def fail(self, error: BaseException) -> Self:
        """Add a failure in place of a response, such as `ConnectionRefusedError()`.

        The plugin's call ends with an `EgressError`.
        """
        self._answers.append(error)
        return self

    def matches(self, method: str, url: str) -> bool:
        """Return whether this route is for such a request."""
        if self.method not in (None, method):
            return False
        return self.url == url if isinstance(self.url, str) else self.url.fullmatch(url) is not None

    def answer(self, request: Request) -> EgressResponse:
        """Record a request, and return the response to it."""
        self.requests.append(request)
        if not self._answers:
            return EgressResponse(200)
        answer = self._answers[min(len(self.requests), len(self._answers)) - 1]
        if isinstance(answer, BaseException):
            raise answer
        return answer if isinstance(answer, EgressResponse) else answer(request)

    def __str__(self) -> str:
        url = self.url if isinstance(self.url, str) else f"a URL that matches {self.url.pattern!r}"
        return f"{self.method or 'any method'} {url}"

    def __repr__(self) -> str:
        return f"<Route {self}, requested {_count_text(len(self.requests))}>"


class FakeHttp:
    """A transport that gives the responses of a test, and refuses everything else.

    It never uses the network.

    URLs are compared in canonical form, so `https://API.example.com:443` is
    `https://api.example.com/`. Of several routes that fit, the one that was added last counts.

    Attributes:
        routes: The routes in the order in which they were added.
        requests: All requests that the policy has allowed, in order, also those without a route.
    """

    __module__ = "plugwasm.testing"

    def __init__(self, keep: Callable[[Request], None]) -> None:
        self.routes: list[Route] = []
        self.requests: list[Request] = []
        self._record = keep

    def route(self, method: str | None, url: str | re.Pattern[str]) -> Route:
        """Expect requests.

        Args:
            method: The method; None for any.
            url: The URL with its query; or a compiled pattern that matches the whole of it.

        Raises:
            EgressDeniedError: No plugin could ask for such a URL; the message says why.
        """
        route = Route(method.upper() if method else None, url)
        self.routes.append(route)
        return route

    def get(self, url: str | re.Pattern[str]) -> Route:
        """Expect GET requests."""
        return self.route("GET", url)

    def head(self, url: str | re.Pattern[str]) -> Route:
        """Expect HEAD requests."""
        return self.route("HEAD", url)

    def post(self, url: str | re.Pattern[str]) -> Route:
        """Expect POST requests."""
        return self.route("POST", url)

    def put(self, url: str | re.Pattern[str]) -> Route:
        """Expect PUT requests."""
        return self.route("PUT", url)

    def patch(self, url: str | re.Pattern[str]) -> Route:
        """Expect PATCH requests."""
        return self.route("PATCH", url)

    def delete(self, url: str | re.Pattern[str]) -> Route:
        """Expect DELETE requests."""
        return self.route("DELETE", url)

    def send(self, request: EgressRequest, /) -> EgressResponse:
        """Return the response of a route; see `plugwasm.Transport`."""
        from urllib3 import HTTPHeaderDict

        seen = Request(
            request.method, request.url, HTTPHeaderDict(request.headers), request.body or b""
        )
        self.requests.append(seen)
        self._record(seen)
        try:
            route = next(
                (route for route in reversed(self.routes) if route.matches(seen.method, seen.url)),
                None,
            )
            if route is None:
                raise UnexpectedRequestError(self._unexpected_message(seen))
            response = route.answer(seen)
        except BaseException as error:
            seen.error = error
            raise
        seen.status = response.status
        return response

    def _unexpected_message(self, request: Request) -> str:
        sent = f"{request.method} {request.url}" + (
            f" with {shorten(request.body)}" if request.body else ""
        )
        if not self.routes:
            add = f'harness.http.{request.method.lower()}("{request.url}").respond(…)'
            return f"the test expects no request, but there was {sent}\nto answer it: {add}"
        known = "\n".join(
            f"  {route}, requested {_count_text(len(route.requests))}" for route in self.routes
        )
        return f"the test does not expect {sent}\nit expects:\n{known}"


def _count_text(number: int) -> str:
    return {0: "never", 1: "once", 2: "twice"}.get(number, f"{number} times")
