"""A resolver that a test sets, and both ends of TLS."""

from __future__ import annotations

import ssl

import pytest

from plugwasm._http import connection as wire
from tests.support.egress import Names
from tests.support.paths import DATA


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    resolver = Names(plugin_test=["127.0.0.1"], other_test=["127.0.0.1"], localhost=["127.0.0.1"])
    monkeypatch.setattr(wire, "look_up", resolver)
    return resolver


@pytest.fixture
def authority() -> ssl.SSLContext:
    """A client context that trusts only the test authority, whose certificate is for
    plugin.test. Made with openssl; valid for a hundred years."""
    return ssl.create_default_context(cafile=str(DATA / "tls-ca.pem"))


@pytest.fixture
def server_tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(DATA / "tls-server.pem")
    return context
