"""Tests of plugins: a `Harness` runs a plugin with fakes around it, and records what happens.

    harness = plugwasm.testing.Harness("my.wasm", config={"language": "en"})
    harness.http.get("https://api.example.com/user/1").respond(json={"name": "Ada"})
    harness.host("now", returns=1_700_000_000)
    with harness.plugin() as plugin:
        assert plugin.call("greet") == b"Hello, Ada"
    assert harness.logs.messages("warn") == []

A plugin runs as in an application: the fakes stand where the application's own transport, clock and
host functions would. It has the limits that it would have, and its fuel is measured. With pytest
there are fixtures for all of this (`plugwasm._pytest_plugin`), which it finds by itself. Nothing
here needs pytest, and nothing asks for a network.

    _harness         Harness, and the plugin whose calls it records
    _http            responses to HTTP requests
    _host_functions  host functions: fakes, and a record of their calls
    _clock           a clock that stands still until a test moves it
    _logs            the lines that the plugin logged
    _usage           the fuel, time and memory that calls use
    _records         records of what happened, one class for each kind
"""

from __future__ import annotations

from ._clock import FakeClock
from ._harness import Harness
from ._host_functions import FakeHostFunction, UnexpectedHostCallError
from ._http import FakeHttp, Route, UnexpectedRequestError
from ._logs import Logs
from ._records import Call, HostCall, LogLine, Request
from ._usage import Usage

__all__ = [
    "Call",
    "FakeClock",
    "FakeHostFunction",
    "FakeHttp",
    "Harness",
    "HostCall",
    "LogLine",
    "Logs",
    "Request",
    "Route",
    "UnexpectedHostCallError",
    "UnexpectedRequestError",
    "Usage",
]
