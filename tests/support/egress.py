"""Requests under a policy, and a resolver whose answers a test sets."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from plugwasm._http.client import HttpClient, Response
from plugwasm._http.egress import Egress
from plugwasm._http.request_owner import RequestOwner
from plugwasm.errors import (
    TimeoutError,
)

PUBLIC = "93.184.215.14"


def no_deadline() -> None:
    return None


def deadline(seconds: float) -> Callable[[], float]:
    end = time.monotonic() + seconds

    def remaining() -> float:
        left = end - time.monotonic()
        if left <= 0:
            raise TimeoutError("the call did not end in time")
        return left

    return remaining


def policy(*hosts: str, **settings: Any) -> Egress:
    return Egress(allowed_hosts=hosts or ["127.0.0.1"], **settings)


def client_for(egress: Egress, *manifest_hosts: str) -> HttpClient:
    """Make a client for the application's policy, restricted by a manifest's hosts if given."""
    if manifest_hosts:
        return HttpClient.for_plugin(egress, manifest_hosts, None, RequestOwner)
    return HttpClient(egress, egress._policy, RequestOwner)


def send(
    rules: Egress | HttpClient,
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes | None,
    remaining: Callable[[], float | None],
    **options: Any,
) -> Response:
    """Send a request as for a guest: check the size of its body first."""
    client = client_for(rules) if isinstance(rules, Egress) else rules
    client.policy.check_body_size(len(body or b""))
    return client.send(method, url, headers, body, remaining, **options)


def get(
    url: str, rules: Egress | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    return send(rules or policy(), "GET", url, headers or {}, None, no_deadline)


class Names:
    """A resolver whose answers a test sets, and which records the names it is asked for."""

    def __init__(self, **answers: Sequence[str]) -> None:
        self.answers = {
            name.replace("_", "."): list(addresses) for name, addresses in answers.items()
        }
        self.asked: list[str] = []

    def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        return self.answers[host]


def in_url(address: str) -> str:
    return f"http://[{address}]/" if ":" in address else f"http://{address}/"
