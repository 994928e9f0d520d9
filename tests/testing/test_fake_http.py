"""The harness's fake of the network: routes, and requests that the test does not expect."""

from __future__ import annotations

import pickle
import re

import pytest

import plugwasm
from plugwasm.testing import Harness, UnexpectedRequestError
from tests.support.guests import export, guest, manifest, number
from tests.support.harness_guests import URL


def fetcher(*headers: str) -> str:
    """Return a plugin that sends the request document it gets, with the body `sent`, and outputs
    the response."""
    return guest(
        export("fetch", "(call $give (call $http_request (call $copy) <<sent>>))")
        + export(
            "status",
            "(drop (call $http_request (call $copy) (i64.const 0))) (call $answer (i64.extend_i32_u (call $http_status_code)))",
        )
    )


def request(url: str = URL, method: str = "POST", headers: str = "{}") -> str:
    return f'{{"url": "{url}", "method": "{method}", "headers": {headers}}}'


def test_fake_answers() -> None:
    """Requests get the configured responses."""
    with Harness(fetcher(), http_response_headers=True) as harness:
        route = (
            harness.http.post("https://API.example.com:443/user/1")
            .respond(json={"name": "Ada"})
            .respond(404, text="gone")
        )
        plugin = harness.plugin()
        assert plugin.call("fetch", request(headers='{"X-Key": "1"}')) == b'{"name": "Ada"}'
        assert plugin.call("fetch", request()) == b"gone"
        assert plugin.call("fetch", request()) == b"gone"
        assert route.called
        first = route.requests[0]
        assert harness.http.requests == route.requests
        assert (first.method, first.url, first.body, first.text, first.status) == (
            "POST",
            URL,
            b"sent",
            "sent",
            200,
        )
        assert first.headers["x-key"] == first.headers["X-Key"] == "1"
        assert route.requests[1].status == 404


def test_last_matching_route_counts() -> None:
    """Of several matching routes, the last one counts."""
    with Harness(fetcher()) as harness:
        harness.http.route(None, re.compile(r"https://.*\.example\.com/.*")).respond(body=b"any")
        harness.http.post(URL).respond(body=b"one")
        plugin = harness.plugin()
        assert plugin.call("fetch", request()) == b"one"
        assert plugin.call("fetch", request(method="PUT")) == b"any"
        assert plugin.call("fetch", request(URL + "?page=2")) == b"any"
        harness.http.post(re.compile("https://api"))
        assert (
            plugin.call("fetch", request(URL + "?page=3")) == b"any"
        )  # a pattern has to fit the whole


@pytest.mark.parametrize("method", ["get", "head", "post", "put", "patch", "delete"])
def test_each_method_has_its_route(method: str) -> None:
    with Harness(fetcher()) as harness:
        getattr(harness.http, method)(URL)
        assert number(harness.plugin().call("status", request(method=method.upper()))) == 200
        assert harness.http.requests[0].method == method.upper()


def test_computed_answer_and_redirect() -> None:
    """A response can be computed from the request and be a redirect."""
    with Harness(fetcher()) as harness:
        harness.http.post(URL).respond(307, headers={"Location": "/there"})
        harness.http.post("https://api.example.com/there").respond_with(
            lambda it: plugwasm.EgressResponse(200, (), it.body * 2)
        )
        assert harness.plugin().call("fetch", request()) == b"sentsent"
    assert [it.url for it in harness.http.requests] == [URL, "https://api.example.com/there"]


def test_failure_as_answer() -> None:
    """A failure can be configured as the response."""
    with Harness(fetcher()) as harness:
        harness.http.post(URL).fail(ConnectionRefusedError(111, "Connection refused"))
        with pytest.raises(plugwasm.EgressError, match="Connection refused"):
            harness.plugin().call("fetch", request())
    assert isinstance(harness.http.requests[0].error, ConnectionRefusedError)


def test_unexpected_request_fails_test() -> None:
    """An unexpected request fails the test, with a message that says what was expected."""
    with Harness(fetcher(), name="my") as harness:
        with pytest.raises(UnexpectedRequestError) as raised:
            harness.plugin().call("fetch", request())
        assert raised.value.message == (
            f"`fetch` of plugin `my`: the test expects no request, but there was POST {URL} with b'sent'\n"
            f'to answer it: harness.http.post("{URL}").respond(…)'
        )
        harness.http.get(URL)
        harness.http.post(re.compile("https://x/.*"))
        with pytest.raises(AssertionError) as failed:
            harness.plugin().call("fetch", request())
        assert isinstance(failed.value, plugwasm.EgressError)
        assert failed.value.message == (
            f"`fetch` of plugin `my`: the test does not expect POST {URL} with b'sent'\nit expects:\n"
            f"  GET {URL}, requested never\n  POST a URL that matches 'https://x/.*', requested never"
        )
    assert pickle.loads(pickle.dumps(raised.value)).message == raised.value.message


def test_manifest_and_policy_apply() -> None:
    """The manifest and the policy are checked before the fake answers."""
    granted = manifest(fetcher(), allowed_hosts=["api.example.com"])
    with Harness(granted) as harness:
        harness.http.post("https://elsewhere.example.com/")
        with pytest.raises(
            plugwasm.EgressDeniedError, match=r"elsewhere\.example\.com is not granted"
        ):
            harness.plugin().call("fetch", request("https://elsewhere.example.com/"))
        assert not harness.http.requests
    with (
        Harness(granted, allowed_hosts=[]) as harness,
        pytest.raises(plugwasm.EgressDeniedError, match="no host is granted"),
    ):
        harness.plugin().call("fetch", request())
    policy = plugwasm.Egress(
        methods=["GET"],
        added_headers={"https://api.example.com": {"Authorization": "Bearer x"}},
        proxy="http://p:1",
    )
    with Harness(granted, egress=policy) as harness:
        harness.http.get(URL)
        with pytest.raises(plugwasm.EgressError, match="expected one of GET"):
            harness.plugin().call("fetch", request())
        harness.plugin().call("fetch", request(method="GET"))
        assert harness.http.requests[0].headers["authorization"] == "Bearer x"


def test_loopback_address_can_be_faked() -> None:
    """Loopback addresses can be faked too."""
    with Harness(fetcher()) as harness:
        for url in (
            "http://localhost:8080/",
            "http://127.0.0.1/",
            "http://10.1.2.3/",
            "http://[::1]/",
        ):
            harness.http.post(url).respond(text=url)
            assert harness.plugin().call("fetch", request(url)) == url.encode()


def test_impossible_route_is_refused() -> None:
    """A route that no plugin could request is refused at once."""
    with Harness(fetcher()) as harness:
        with pytest.raises(plugwasm.EgressDeniedError, match="does not begin with http"):
            harness.http.get("ftp://example.com/")
        with pytest.raises(TypeError, match="one of json, text and body"):
            harness.http.get(URL).respond(json={}, text="")
