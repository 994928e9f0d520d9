"""`plugwasm.d.ts` declares what the engine of JavaScript has: no less, and no more."""

from __future__ import annotations

import re

import pytest

from plugwasm import Plugin, script
from tests.support.paths import ROOT
from tests.support.scripts import need_engine

DECLARATIONS = (ROOT / "pdk" / "javascript" / "plugwasm.d.ts").read_text()
BLOCK = re.compile(r"^declare (class|interface|var|function) (\w+)([^\n]*)", re.M)
MEMBER = re.compile(r"^  (static )?(?:readonly )?(\w+|\[Symbol\.iterator\])[?(<:]", re.M)
OF_THE_LANGUAGE = {
    "AsyncDisposableStack", "DisposableStack", "Float16Array", "InternalError", "Iterator",
    "SuppressedError",
}  # fmt: skip
"""Globals of the language that other versions of it lack."""
FORMS = {
    "AbortEvent", "Body", "Function", "HttpRequest", "HttpResponse", "RequestInit", "ResponseInit",
}  # fmt: skip
"""Types without a value."""
SAMPLES = {
    "AbortController": "new AbortController()",
    "AbortSignal": "new AbortController().signal",
    "DOMException": "new DOMException()",
    "Headers": "new Headers()",
    "MemoryHandle": "new MemoryHandle(0, 0)",
    "Request": "new Request('http://a/')",
    "Response": "new Response()",
    "TextDecoder": "new TextDecoder()",
    "TextEncoder": "new TextEncoder()",
    "URL": "new URL('http://a/')",
    "URLSearchParams": "new URLSearchParams()",
}
ANSWER = """
const samples = { %s };
export function has({ name, members }) {
  return members.filter(([isStatic, one]) => {
    const holder = isStatic || !samples[name] ? globalThis[name] : samples[name]();
    return !((one === "iterator" ? Symbol.iterator : one) in holder);
  }).map(([, one]) => one);
}
export function own() {
  const found = {};
  for (const name of Object.getOwnPropertyNames(globalThis)) {
    const value = globalThis[name];
    const parts = value instanceof Function && value.prototype ? [value, value.prototype] : [value];
    found[name] = Object(value) === value
      ? parts.flatMap((one) => Object.getOwnPropertyNames(one).filter((key) => key !== "constructor"))
      : [];
  }
  return found;
}
export const isThere = (names) => names.filter((one) => !(one in globalThis));
"""


def declared() -> dict[str, list[tuple[bool, str]]]:
    """Return the members of each global that is declared; True stands for static ones."""
    found: dict[str, list[tuple[bool, str]]] = {}
    for start in BLOCK.finditer(DECLARATIONS):
        members = found.setdefault(start[2], [])
        if start[3].rstrip().endswith("{"):
            body = DECLARATIONS[start.end() : DECLARATIONS.index("\n}", start.end())]
        elif "{" in start[3]:
            body = "\n".join(f"  {part.strip()}" for part in start[3].split("{")[1].split(";"))
        else:
            continue
        inner = re.sub(r"/\*\*.*?\*/", "", body, flags=re.S)
        members += [
            (is_static != "", name.replace("[Symbol.iterator]", "iterator"))
            for is_static, name in MEMBER.findall(inner)
            if name not in ("constructor", "private")
        ]
    for name in ("Request", "Response"):
        found[name] += found["Body"]
    return found


@pytest.fixture
def plugin() -> Plugin:
    """A plugin that tells what its engine has."""
    need_engine("javascript")
    samples = ", ".join(f"{name}: () => {value}" for name, value in SAMPLES.items())
    return Plugin(script("javascript", ANSWER % samples))


def test_what_is_declared_is_there(plugin: Plugin) -> None:
    """Each global and each member that the types declare exists."""
    names = declared()
    assert {"Host", "Config", "Var", "Http", "Memory", "fetch", "console", "crypto"} <= {*names}
    assert len(names["Host"]) >= 8
    assert plugin.call("isThere", sorted(set(names) - FORMS), returns=list) == []
    for name in sorted(set(names) - FORMS):
        missing = plugin.call("has", {"name": name, "members": names[name]}, returns=list)
        assert missing == [], name
    assert plugin.call("has", {"name": "URL", "members": [(True, "no")]}, returns=list) == ["no"]


def test_what_is_there_is_declared(plugin: Plugin) -> None:
    """Each member of the kit that the engine has is declared, and each global but the language's."""
    names = declared()
    own = plugin.call("own", "null", returns=dict[str, list[str]])
    for name in {*names} - FORMS:
        known = {member for _, member in names[name]} | {"length", "name", "prototype"}
        known |= {"message"} if name == "DOMException" else set()
        extra = [one for one in own[name] if one not in known and not one.endswith("_ERR")]
        assert extra == [], name
    language = set(re.findall(r"\w+", LANGUAGE)) | OF_THE_LANGUAGE
    assert {*own} - {*names} <= language


LANGUAGE = """
Object Function Error EvalError RangeError ReferenceError SyntaxError TypeError URIError
AggregateError Array parseInt parseFloat isNaN isFinite decodeURI decodeURIComponent encodeURI
encodeURIComponent escape unescape Infinity NaN undefined Number Boolean String Math Reflect Symbol
eval globalThis Date RegExp JSON Proxy Map Set WeakMap WeakSet ArrayBuffer SharedArrayBuffer
Uint8ClampedArray Int8Array Uint8Array Int16Array Uint16Array Int32Array Uint32Array BigInt64Array
BigUint64Array Float32Array Float64Array DataView Promise BigInt WeakRef FinalizationRegistry
"""
