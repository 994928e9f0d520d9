"""The example service with a good tenant and two hostile ones, and clients of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from script_service import Quota, ScriptService, Tenant, make_app
from starlette.applications import Starlette

import plugwasm

QUOTA = Quota(
    seconds_per_minute=60, deadline=0.3, calls_at_once=2, scripts=3, script_bytes=5000,
    input_bytes=2000, output_bytes=3000, log_lines=10,
)  # fmt: skip
TYPES = {"js": "text/javascript", "py": "text/x-python"}


@plugwasm.host_fn(register=False)
def price_of(item: str) -> float:
    return {"tea": 2.5}[item]


def tenants(**quotas: Quota) -> list[Tenant]:
    """Return the three tenants; only the good one is granted anything."""
    good = Tenant(
        "good", "key of good", functions=[price_of], config={"currency": "EUR"},
        allowed_hosts=["127.0.0.1"], quota=quotas.get("good", QUOTA),
    )  # fmt: skip
    hostile = [
        Tenant(name, f"key of {name}", quota=quotas.get(name, QUOTA)) for name in ("bad", "worse")
    ]
    return [good, *hostile]


class House:
    """A service that runs, and requests to it. `send` is for one at a time."""

    def __init__(self, service: ScriptService) -> None:
        self.service = service
        self.app: Starlette = make_app(service)

    async def request(
        self, method: str, path: str, tenant: str = "good", **options: Any
    ) -> httpx.Response:
        headers = {"Authorization": f"Bearer key of {tenant}"} | options.pop("headers", {})
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            return await client.request(method, path, headers=headers, **options)

    def send(self, method: str, path: str, tenant: str = "good", **options: Any) -> httpx.Response:
        return asyncio.run(self.request(method, path, tenant, **options))

    def put(
        self, source: str | bytes, tenant: str = "good", name: str = "s", kind: str = "js"
    ) -> httpx.Response:
        return self.send(
            "PUT", f"/scripts/{name}", tenant, content=source, headers={"Content-Type": TYPES[kind]}
        )

    def call(
        self, function: str, argument: object = None, tenant: str = "good", name: str = "s"
    ) -> httpx.Response:
        return self.send(
            "POST",
            f"/scripts/{name}/{function}",
            tenant,
            content=json.dumps(argument, ensure_ascii=False),
            headers={"Content-Type": "application/json"},
        )


@contextmanager
def serve(*, loaded_scripts: int = 500, **quotas: Quota) -> Iterator[House]:
    """A service, closed at the end."""
    house = House(ScriptService(tenants(**quotas), loaded_scripts=loaded_scripts))
    try:
        yield house
    finally:
        house.service.close()


def problem(response: httpx.Response, status: int, kind: str) -> dict[str, Any]:
    """Check that a response is a problem of this kind, and return its document."""
    assert response.headers["content-type"] == "application/problem+json", response.text
    document: dict[str, Any] = response.json()
    assert (response.status_code, document["type"]) == (status, f"urn:problem:{kind}"), document
    assert document["status"] == status
    assert document["detail"]
    assert response.headers["x-content-type-options"] == "nosniff"
    return document
