"""What a script in JavaScript has as on the web: URLs, `fetch`, copies, and a console for values."""

from __future__ import annotations

import json
import logging

import pytest

import plugwasm
from plugwasm import GuestError
from tests.support.http_server import Server, reply
from tests.support.scripts import make_plugin

URLS = {
    (
        "../a b?x=1#h",
        "https://user:pw@exämple.com:8080/p/q/",
    ): "https://user:pw@xn--exmple-cua.com:8080/p/a%20b?x=1#h",
    ("HTTP://EXAMPLE.com:80/%7Efoo/../bar",): "http://example.com/bar",
    ("//other/x", "https://a/b"): "https://other/x",
    ("http://0x7f.1/",): "http://127.0.0.1/",
    ("http://[::1]:3000/",): "http://[::1]:3000/",
    ("http://ＧＯ.com/",): "http://go.com/",
    ("http://a\ud800/?b\ud800",): None,
    ("mailto:a@b",): "mailto:a@b",
    ("http://a b/",): None,
    ("x",): None,
    ("x", "y"): None,
    ("",): None,
    ("http://a:99999/",): None,
}


def test_urls_are_those_of_the_standard() -> None:
    """URLs are resolved, brought to their normal form, or refused, as the standard says."""
    source = "export const f = (all) => all.map((one) => URL.parse(...one)?.href ?? null);"
    # JSON in which lone surrogates are escaped.
    document = json.dumps(list(URLS)).encode()
    with make_plugin(source) as plugin:
        assert plugin.call("f", document, returns=list) == list(URLS.values())


def test_parts_of_urls() -> None:
    """Each part can be read and set; what is no such part changes nothing, as in browsers."""
    source = """
        export function f() {
          const url = new URL("https://u:p@example.com:8080/a?b=1#c");
          const before = ["protocol", "username", "password", "host", "hostname", "port", "pathname", "search", "hash", "origin"].map((name) => url[name]);
          url.protocol = "http";
          url.port = "no";
          url.port = "80";
          url.hostname = "ä.de";
          url.pathname = "x y";
          url.search = "";
          url.hash = "é";
          url.username = "";
          const failures = [];
          for (const act of [() => new URL("x"), () => { url.href = "/"; }, () => URL("http://a")])
            try { act(); } catch (error) { failures.push(`${error.name}: ${error.message}`); }
          return [before, url.href, JSON.stringify({ url }), `${url}`.length, failures];
        }
    """
    with make_plugin(source) as plugin:
        before, href, text, length, failures = plugin.call("f", returns=list)
    assert before == [
        "https:", "u", "p", "example.com:8080", "example.com", "8080", "/a", "?b=1", "#c",
        "https://example.com:8080",
    ]  # fmt: skip
    assert href == "http://:p@xn--4ca.de/x%20y#%C3%A9"
    assert json.loads(text) == {"url": href}
    assert length == len(href)
    assert failures[:2] == ["TypeError: Invalid URL: x", "TypeError: Invalid URL: /"]
    assert len(failures) == 3


def test_queries() -> None:
    """URLSearchParams keeps pairs in order, encodes them as forms do, and is the query of its URL."""
    source = """
        export function f() {
          const url = new URL("http://a/?b=1&a=2&b=3&%zz=%E4");
          const { searchParams: q } = url;
          const read = [[...q], q.get("b"), q.get("none"), q.getAll("b"), q.has("b", "3"), q.size];
          q.set("b", "x y");
          q.append("ü", "&=+");
          q.delete("a");
          const after = url.href;
          url.search = "?z=1&y=2";
          q.sort();
          const made = [[["a", 1], ["b", null]], { c: true }, new Map([["d", ""]]), "?e=1&e", q].map((init) => `${new URLSearchParams(init)}`);
          const failed = [];
          for (const bad of [[["a"]], [["a", "b", "c"]], [1]]) try { new URLSearchParams(bad); } catch (error) { failed.push(error.name); }
          const seen = [];
          q.forEach((value, name) => seen.push(name + value));
          return [read, after, made, failed, seen, [...q.keys()], [...q.values()]];
        }
    """
    with make_plugin(source) as plugin:
        read, after, made, failed, seen, names, values = plugin.call("f", returns=list)
    pairs = [["b", "1"], ["a", "2"], ["b", "3"], ["%zz", "\ufffd"]]
    assert read == [pairs, "1", None, ["1", "3"], True, 4]
    assert after == "http://a/?b=x+y&%25zz=%EF%BF%BD&%C3%BC=%26%3D%2B"
    assert made == ["a=1&b=null", "c=true", "d=", "e=1&e=", "y=2&z=1"]
    assert failed == ["TypeError"] * 3
    assert (seen, names, values) == (["y2", "z1"], ["y", "z"], ["2", "1"])


FETCH = """
    export async function f(base) {
      const url = new URL("/echo?x=1#part", base);
      const headers = { "X-One": " 1 ", accept: "a" };
      const response = await fetch(url, { method: "post", headers, body: JSON.stringify({ n: 1 }) });
      const { n } = await response.clone().json();
      const bytes = await response.bytes();
      return [response.ok, response.status, response.url, response.headers.get("X-Answer"), n, bytes.length, response.bodyUsed];
    }
    f.input = "text";
"""


def test_fetch_sends_requests() -> None:
    """`fetch` sends method, headers and body, and gives the answer, with the headers if granted."""
    answer = reply(b'{"n": 7}', status=201, headers=[("X-Answer", "yes")])
    with Server({"/echo": answer}) as server:
        granted = {"allowed_hosts": ["127.0.0.1"], "http_response_headers": True}
        with make_plugin(FETCH, **granted) as plugin:
            url = f"{server.url}/echo?x=1#part"
            expected = [True, 201, url, "yes", 7, 8, True]
            assert plugin.call("f", server.url, returns=list) == expected
        with make_plugin(FETCH, allowed_hosts=["127.0.0.1"]) as plugin:
            assert plugin.call("f", server.url, returns=list)[3] is None
        request = server.requests[0]
    assert (request.method, request.target, request.body) == ("POST", "/echo?x=1", b'{"n":1}')
    assert request.headers["x-one"] == "1"
    assert request.headers["content-type"] == "text/plain;charset=UTF-8"


def test_bodies_of_requests_and_answers() -> None:
    """Bodies are text, bytes or queries; each can be read once, in each of the ways."""
    source = """
        export async function f() {
          const all = [];
          for (const body of ["é", new Uint8Array([1, 2, 3]).subarray(1), new Uint8Array([104, 105]).buffer, new URLSearchParams({ a: "ä" }), null]) {
            const response = new Response(body, { status: 404, headers: [["A", "1"], ["a", "2"]] });
            all.push([await response.clone().text(), (await response.clone().arrayBuffer()).byteLength, response.ok, response.headers.get("a"), response.headers.get("content-type")]);
          }
          const request = new Request("http://a/b#c", { method: "patch", body: "x" });
          all.push([request.url, request.method, await request.text(), await Response.json([1]).json()]);
          return all;
        }
        export async function again() { const one = new Response("x"); await one.text(); await one.text(); }
    """
    with make_plugin(source) as plugin:
        *bodies, last = plugin.call("f", returns=list)
        with pytest.raises(GuestError, match="TypeError: the body was read before"):
            plugin.call("again")
    text, form = "text/plain;charset=UTF-8", "application/x-www-form-urlencoded;charset=UTF-8"
    assert bodies == [
        ["é", 2, False, "1, 2", text],
        ["\x02\x03", 2, False, "1, 2", None],
        ["hi", 2, False, "1, 2", None],
        ["a=%C3%A4", 8, False, "1, 2", form],
        ["", 0, False, "1, 2", None],
    ]
    assert last == ["http://a/b#c", "patch", "x", [1]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("'/relative'", "Invalid URL: /relative"),
        ("'ftp://a/'", "fetch: ftp: is neither http: nor https:"),
        ("'http://a/', { body: 'x' }", "a request with the method GET cannot have a body"),
        ("'http://a/', { method: 'a b' }", "'a b' is not a method of HTTP"),
        ("'http://a/', { method: 'TRACE' }", "the method TRACE cannot be used"),
        ("'http://a/', { headers: { 'a b': '1' } }", "'a b' is not the name of a header"),
        ("'http://a/', { headers: { a: 'x\\r\\nb: 1' } }", "the value of a has a line break"),
        ("'http://a/', { method: 'POST', body: {} }", "a body must be text"),
        ("'http://a/', { signal: AbortSignal.abort(new TypeError('no')) }", "no"),
    ],
)
def test_requests_that_cannot_be_sent(arguments: str, message: str) -> None:
    """What is wrong with a request is a TypeError that the script can catch, and nothing is sent."""
    source = f"""
        export const f = () => fetch({arguments}).then(() => "sent", (error) => [error.name, error.message]);
    """
    with make_plugin(source, allowed_hosts=["*"]) as plugin:
        name, told = plugin.call("f", returns=list)
    assert name == "TypeError"
    assert message in told


def test_host_that_is_not_granted() -> None:
    """A request to a host that is not granted ends the call: a script cannot catch that."""
    source = "export const f = () => fetch('http://a.test/').catch(() => 'caught');"
    with make_plugin(source) as plugin, pytest.raises(plugwasm.EgressDeniedError):
        plugin.call("f")


def test_copies_of_values() -> None:
    """structuredClone copies all that a value refers to, with its circles, and refuses functions."""
    source = """
        export function f() {
          const shared = { d: new Date(5), r: /a/g, n: Object(1n) };
          const value = { map: new Map([[shared, new Set([1])]]), list: [, shared], bytes: new Uint8Array([1, 2, 3, 4]).subarray(1, 3), error: new RangeError("x", { cause: shared }) };
          value.self = value;
          const copy = structuredClone(value);
          const [key] = copy.map.keys();
          const refused = [];
          for (const bad of [() => 1, Symbol("s"), { a: [Promise.resolve()] }, new WeakMap()])
            try { structuredClone(bad); } catch (error) { refused.push(error.name); }
          value.bytes[0] = 9;
          return [copy.self === copy, key === copy.list[1], key !== shared, key.d.getTime(), String(key.r), 0 in copy.list, [...copy.bytes], copy.error instanceof RangeError, copy.error.cause === key, refused];
        }
    """
    with make_plugin(source) as plugin:
        *facts, error, cause, refused = plugin.call("f", returns=list)
    assert facts == [True, True, True, 5, "/a/g", False, [2, 3]]
    assert (error, cause) == (True, True)
    assert refused == ["DataCloneError"] * 4


SHOWN = {
    "{ a: 1, 'b c': 'x', [Symbol('s')]: [1, , 3] }": "{ a: 1, 'b c': 'x', [Symbol(s)]: [ 1, <1 empty item>, 3 ] }",
    "[{ a: { b: { c: { d: 1 } } } }]": "[ { a: { b: [Object] } } ]",
    "new Map([[1, new Set(['x'])]])": "Map(1) { 1 => Set(1) { 'x' } }",
    "new (class Foo { x = 1; get y() { return 2; } })()": "Foo { x: 1 }",
    "Object.assign(Object.create(null), { a: -0 })": "[Object: null prototype] { a: -0 }",
    "[new Uint8Array(2), new Date(0), /x/g, 1n, null]": "[ Uint8Array(2) [ 0, 0 ], 1970-01-01T00:00:00.000Z, /x/g, 1n, null ]",
    "[() => 1, function f() {}, class A {}]": "[ [Function (anonymous)], [Function: f], [class A] ]",
    "{ get a() { throw 1; }, set b(v) {} }": "{ a: [Getter], b: [Setter] }",
    "'it\\'s'": "it's",
    "['it\\'s', 'a\\n']": """[ "it's", 'a\\n' ]""",
    "[Promise.reject(1), new URL('http://a')]": "[ Promise { <rejected> }, URL { 'http://a/' } ]",
    "new Proxy({}, { ownKeys() { throw new Error('no'); } })": "[cannot be shown: no]",
    "Array(300).fill(0).length": "300",
}


def test_console_shows_values(caplog: pytest.LogCaptureFixture) -> None:
    """`console` shows what is in a value, as Node does, without running its getters."""
    source = f"export const f = () => {{ {' '.join(f'console.log({one});' for one in SHOWN)} }};"
    with caplog.at_level(logging.INFO), make_plugin(source) as plugin:
        plugin.call("f")
    assert [record.getMessage() for record in caplog.records] == list(SHOWN.values())


def test_console_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    """However large or deep a value is, what is shown of it is short."""
    source = """
        export function f() {
          const circle = { name: "x" };
          circle.self = circle;
          console.log(circle);
          console.log(new Array(1e6).fill("abc"));
          console.log(["x".repeat(1e6)]);
          console.log({ length: 1e9, a: new Array(4e9) });
          let tree = 1;
          for (let i = 0; i < 20; i++) tree = { a: tree, b: tree };
          console.log(tree, new Map(Array.from({ length: 1000 }, (_, i) => [i, new Array(200).fill(i)])));
        }
    """
    with caplog.at_level(logging.INFO), make_plugin(source) as plugin:
        plugin.call("f")
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == "{ name: 'x', self: [Circular] }"
    assert "… 999900 more items" in lines[1]
    assert "… 990000 more characters" in lines[2]
    assert "<" in lines[3]
    assert max(map(len, lines)) < 120_000


def test_console_shows_errors(caplog: pytest.LogCaptureFixture) -> None:
    """An error is shown with its stack, its own properties and its cause; groups are indented."""
    source = """
        export function f() {
          console.error(Object.assign(new TypeError("no", { cause: new Error("deep") }), { code: "E1" }));
          console.group("first");
          console.log({ a: "x".repeat(80) });
          console.groupEnd();
          console.assert(1, "never");
          console.assert(0, "always");
        }
    """
    with caplog.at_level(logging.INFO), make_plugin(source, name="rules.js") as plugin:
        plugin.call("f")
    # The log puts four spaces before each further line.
    error, first, inner, failed = [record.getMessage() for record in caplog.records]
    assert error.startswith("TypeError: no\n        at f (rules.js:3:")
    assert "code: 'E1'" in error
    assert "[cause]: [Error: deep" in error
    assert first == "first"
    assert inner == "  {\n        a: '" + "x" * 80 + "'\n      }"
    assert failed == "Assertion failed always"


def test_web_parts_survive_tampering() -> None:
    """A script that replaces what the kit uses breaks only its own URLs, timers and requests."""
    source = """
        Map.prototype.set = Map.prototype.has = Array.prototype.splice = null;
        Array.prototype[Symbol.iterator] = null;
        String.prototype[Symbol.iterator] = null;
        export function f() { return setTimeout(() => {}, 1); }
        export const g = () => 1;
    """
    with make_plugin(source) as plugin:
        for _ in range(3):
            with pytest.raises(GuestError):
                plugin.call("f")
            assert plugin.call("g", returns=int) == 1
