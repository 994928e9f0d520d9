"""The service as an ASGI application, with Starlette.

    PUT    /scripts/{script}             keeps a script; its content type says the language
    GET    /scripts/{script}             its language and functions
    DELETE /scripts/{script}
    POST   /scripts/{script}/{function}  calls a function: JSON in, JSON out
    GET    /scripts                      names
    GET    /log                          what the scripts logged last
    GET    /usage                        what the tenant has used

Whose scripts these are, the key says (`Authorization: Bearer …`): no path names a tenant. Errors
are problem details (RFC 9457). What a script or a request can cause has a status of 4xx; a status
of 5xx is a fault of the service.
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from email.message import Message
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

import plugwasm

from .quotas import QuotaExceeded, Refused
from .service import (
    Account,
    Language,
    OutputRefused,
    ScriptNotFound,
    ScriptService,
    TooManyScripts,
)

LANGUAGES: dict[str, Language] = {
    "text/javascript": "javascript",
    "application/javascript": "javascript",
    "text/x-python": "python",
    "application/x-python": "python",
}
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
SAFE = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "sandbox"}
"""A browser must not take what a tenant has written for a page of the service."""
log = logging.getLogger("script_service")


class Problem(Refused):
    """A refusal, as a response."""

    def __init__(
        self,
        status: int,
        kind: str,
        detail: str,
        headers: dict[str, str] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.headers = headers
        self.document = {"type": f"urn:problem:{kind}", "status": status, "detail": detail, **more}


class Endpoints:
    """What the routes call, with the tenant of the request."""

    def __init__(self, service: ScriptService) -> None:
        self.service = service

    async def put(self, account: Account, request: Request) -> Response:
        language = LANGUAGES.get(media_type(request))
        if language is None:
            raise Problem(415, "media-type", f"the type of a script is {' or '.join(LANGUAGES)}")
        name = script_name(request)
        source = await read_body(request, account.quota.script_bytes)
        is_new = name not in account.scripts
        script = await self.service.put(account, name, language, source)
        return JSONResponse(
            {"name": name, "language": language, "functions": script.functions},
            201 if is_new else 200,
        )

    async def get(self, account: Account, request: Request) -> Response:
        name = script_name(request)
        script = account.scripts.get(name)
        if script is None:
            raise ScriptNotFound(name)
        return JSONResponse(
            {"name": name, "language": script.language, "functions": script.functions}
        )

    async def delete(self, account: Account, request: Request) -> Response:
        name = script_name(request)
        if account.scripts.pop(name, None) is None:
            raise ScriptNotFound(name)
        return Response(status_code=204)

    async def call(self, account: Account, request: Request) -> Response:
        if media_type(request) != "application/json":
            raise Problem(415, "media-type", "the type of an argument is application/json")
        name, function = script_name(request), request.path_params["function"]
        argument = await read_body(request, account.quota.input_bytes)
        output = await self.service.call(account, name, function, argument)
        return Response(output, media_type="application/json")

    async def list(self, account: Account, request: Request) -> Response:
        return JSONResponse(sorted(account.scripts))

    async def read_log(self, account: Account, request: Request) -> Response:
        return JSONResponse(list(account.log.lines))

    async def usage(self, account: Account, request: Request) -> Response:
        return JSONResponse(vars(account.meter.usage))


def make_app(service: ScriptService) -> Starlette:
    """Return the application. Shutting it down closes the service."""
    endpoints = Endpoints(service)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        service.close()

    def route(
        path: str, method: str, endpoint: Callable[[Account, Request], Awaitable[Response]]
    ) -> Route:
        async def respond(request: Request) -> Response:
            response = await endpoint(find_account(service, request), request)
            response.headers.update(SAFE)
            return response

        return Route(path, respond, methods=[method])

    return Starlette(
        routes=[
            route("/scripts/{script}", "PUT", endpoints.put),
            route("/scripts/{script}", "GET", endpoints.get),
            route("/scripts/{script}", "DELETE", endpoints.delete),
            route("/scripts/{script}/{function}", "POST", endpoints.call),
            route("/scripts", "GET", endpoints.list),
            route("/log", "GET", endpoints.read_log),
            route("/usage", "GET", endpoints.usage),
        ],
        lifespan=lifespan,
        exception_handlers=dict.fromkeys(
            (HTTPException, ClientDisconnect, Refused, plugwasm.Error, Exception), show_problem
        ),
    )


def find_account(service: ScriptService, request: Request) -> Account:
    """Return the account of the tenant that sent a request."""
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    account = service.authenticate(key) if scheme.lower() == "bearer" else None
    if account is None:
        raise Problem(
            401, "key", "send `Authorization: Bearer` and your key", {"WWW-Authenticate": "Bearer"}
        )
    return account


def script_name(request: Request) -> str:
    """Return the name of a script. It is a key of a dict, and never part of a path."""
    name: str = request.path_params["script"]
    if not NAME.fullmatch(name):
        raise Problem(400, "name", f"the name of a script has the form {NAME.pattern}")
    return name


def media_type(request: Request) -> str:
    """Return the content type of a body, which is UTF-8."""
    message = Message()
    message["Content-Type"] = request.headers.get("content-type", "")
    if message.get_content_charset("utf-8") not in ("utf-8", "us-ascii"):
        raise Problem(415, "media-type", "the encoding is UTF-8")
    return message.get_content_type()


async def read_body(request: Request, most: int) -> bytes:
    """Return the body, and read no more than is allowed."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise Problem(413, "too-long", f"a body may have {most} bytes here")
    return bytes(body)


async def show_problem(request: Request, error: Exception) -> Response:
    """Return the response for an exception."""
    problem = to_problem(error)
    if problem.status >= 500:
        log.error("%s %s", request.method, request.url.path, exc_info=error)
    return JSONResponse(
        problem.document,
        problem.status,
        headers=SAFE | (problem.headers or {}),
        media_type="application/problem+json",
    )


def to_problem(error: Exception) -> Problem:
    """Return what a client is told about an exception."""
    match error:
        case Problem():
            return error
        case HTTPException():  # of Starlette: no such route, no such method
            return Problem(error.status_code, "http", error.detail, dict(error.headers or {}))
        case ClientDisconnect():  # nobody reads it
            return Problem(400, "disconnected", "the body was not sent to its end")
        case ScriptNotFound():
            return Problem(404, "no-script", f"you have no script `{error}`")
        case QuotaExceeded():
            return Problem(429, "quota", str(error), {"Retry-After": str(error.retry_after)})
        case TooManyScripts():
            return Problem(409, "too-many-scripts", str(error))
        case OutputRefused():
            return Problem(422, "output", str(error))
        case plugwasm.ScriptError():
            return Problem(
                422, "invalid-script", error.message, line=error.line, column=error.column
            )
        case plugwasm.FunctionNotFoundError():
            return Problem(404, "no-function", error.message)
        case plugwasm.GuestError():
            return Problem(
                422, "script-failed", error.guest_message or error.message, code=error.code
            )
        case plugwasm.TimeoutError():
            return Problem(422, "deadline", error.message)
        case plugwasm.HostFunctionError() if not isinstance(
            error.__cause__, plugwasm.BadHandleError
        ):
            return Problem(500, "host-function", "a function of the service failed")
        case plugwasm.CallError() | plugwasm.EgressError():
            return Problem(422, "script-ended", error.message)
    return Problem(500, "service", "the service failed")
