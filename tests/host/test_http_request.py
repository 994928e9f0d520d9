"""The guest's request document: its fields, their defaults and errors."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugwasm import IsolatedPlugin, Plugin
from plugwasm._host.http_request import MAX_DOCUMENT, perform
from plugwasm._http.egress import Egress
from plugwasm.errors import EgressDeniedError, EgressError
from tests.support.egress import client_for, policy
from tests.support.guests import export, guest, manifest
from tests.support.http_server import Server, reply

LOCAL = client_for(policy("127.0.0.1"))


def no_deadline() -> None:
    return None


def test_full_document() -> None:
    """A document with all fields becomes the request it describes."""
    with Server(reply(b"made", status=201, headers=[("X-One", "1")])) as server:
        document = json.dumps(
            {"url": server.url + "/a?b=c", "method": "POST", "headers": {"X-Guest": "yes"}}
        ).encode()
        response = perform(document, b"body", LOCAL, no_deadline)
    assert (response.status, response.body, response.headers["x-one"]) == (201, b"made", "1")
    (request,) = server.requests
    assert (request.method, request.target, request.headers["x-guest"], request.body) == (
        "POST",
        "/a?b=c",
        "yes",
        b"body",
    )


@pytest.mark.parametrize("rest", [{}, {"method": None, "headers": None}, {"headers": {}}])
def test_defaults(rest: dict[str, object]) -> None:
    """By default, the method is GET and there are no headers."""
    with Server(reply(b"x")) as server:
        assert (
            perform(json.dumps({"url": server.url, **rest}).encode(), None, LOCAL, no_deadline).body
            == b"x"
        )
    assert server.requests[0].method == "GET"
    assert set(server.requests[0].headers) == {
        "host",
        "connection",
        "user-agent",
        "accept-encoding",
    }


def test_header_spelling() -> None:
    """Headers may be spelt `header`, as other hosts allow."""
    with Server(reply()) as server:
        perform(
            json.dumps({"url": server.url, "header": {"X-Guest": "yes"}}).encode(),
            None,
            LOCAL,
            no_deadline,
        )
    assert server.requests[0].headers["x-guest"] == "yes"


URL = '"url": "http://127.0.0.1:9/"'


@pytest.mark.parametrize(
    ("document", "says"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b'{"url": "\xff"}', "not JSON"),
        (b"[" * 256, "not JSON"),
        (b"[" * 257, "nested more than 256 levels deep"),
        (b"[" * 100_000, "nested more than 256 levels deep"),
        (b"[]", "the document: expected an object, got a list"),
        (b"null", "the document: expected an object, got nothing"),
        (b"{}", "url: expected a string, got nothing"),
        (b'{"url": 1}', "url: expected a string, got a number"),
        (b'{"url": true}', "url: expected a string, got a boolean"),
        (f'{{{URL}, "method": 1}}', "method: expected a string, got a number"),
        (f'{{{URL}, "method": "BREW"}}', "method: expected one of"),
        (f'{{{URL}, "headers": []}}', "headers: expected an object of strings, got a list"),
        (f'{{{URL}, "headers": {{"a": 1}}}}', "headers.'a': expected a string, got a number"),
        (f'{{{URL}, "headers": {{"a": ["b"]}}}}', "headers.'a': expected a string, got a list"),
        (
            f'{{{URL}, "headers": {{"a": "b\\r\\nc: d"}}}}',
            "headers: the value of a has a line break",
        ),
        (f'{{{URL}, "headers": {{"a": "b", "A": "c"}}}}', "headers: A is given twice"),
        (f'{{{URL}, "headers": {{}}, "header": {{}}}}', "both headers and header"),
        (f'{{{URL}, "body": "x"}}', "unknown field 'body'"),
        (f'{{{URL}, "URL": "x"}}', "unknown field 'URL'"),
    ],
)
def test_invalid_document_names_field(document: str | bytes, says: str) -> None:
    """The error for an invalid document names the field."""
    with pytest.raises(EgressError) as caught:
        perform(
            document.encode() if isinstance(document, str) else document, None, LOCAL, no_deadline
        )
    assert says in str(caught.value)
    assert not isinstance(caught.value, EgressDeniedError)


@pytest.mark.parametrize("kind", [Plugin, IsolatedPlugin])
def test_document_size_is_bounded(kind: type[Plugin]) -> None:
    """A document of more than a mebibyte is refused before it is read."""
    source = guest(export("send", "(call $give (call $http_request (call $copy) (i64.const 0)))"))
    with kind(manifest(source, allowed_hosts=["127.0.0.1"])) as plugin:
        with pytest.raises(EgressError, match="not JSON"):
            plugin.call("send", b"x" * MAX_DOCUMENT)
        with pytest.raises(EgressError, match="has 1048577 bytes, more than the 1048576 allowed"):
            plugin.call("send", b"x" * (MAX_DOCUMENT + 1))


def test_denied_target() -> None:
    """A target that is not allowed is denied."""
    with pytest.raises(EgressDeniedError, match=r"the host elsewhere\.test is not granted"):
        perform(b'{"url": "http://elsewhere.test/"}', None, LOCAL, no_deadline)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(
            st.sampled_from(["url", "method", "headers", "header"]) | st.text(), inner
        )
    ),
    max_leaves=8,
)


@given(st.binary() | json_values.map(lambda value: json.dumps(value).encode()))
def test_random_documents(document: bytes) -> None:
    """With no host allowed, any document is one of our errors."""
    with pytest.raises(EgressError):
        perform(document, None, client_for(Egress()), no_deadline)


def test_lazy_imports() -> None:
    """Importing the module loads nothing that only a request needs."""
    code = (
        "import sys; before = set(sys.modules); import plugwasm._host.http_request; new = set(sys.modules) - before;"
        "print(sorted(new & {'urllib3', 'http.client', 'msgspec', 'json', 'logging', 'ipaddress', 'socket', 'ssl', 're'}))"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "[]"
    )
