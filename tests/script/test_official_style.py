"""Plugins written for the official JavaScript kit: the same on this host and on the official one."""

from __future__ import annotations

import json

import extism
import pytest

from plugwasm import Plugin
from plugwasm._script.standalone import build_script

DECLARED = """
declare module "main" {
  export function greet(): I32;
  export function count_vowels(): I32;
  export function later(): I32;
  export function parts(): I32;
}
"""
SOURCE = """
function greet() {
  Host.outputString(`Hello, ${Host.inputString()}!`);
  return 0;
}

function count_vowels() {
  const text = new TextDecoder().decode(Host.inputBytes());
  const count = (text.match(/[aeiou]/gi) ?? []).length;
  const total = Number(Var.getString("total") ?? "0") + count;
  Var.set("total", `${total}`);
  Host.outputString(JSON.stringify({ count, total, vowels: Config.get("vowels") }));
  return 0;
}

async function later() {
  await new Promise((resolve) => setTimeout(resolve, 5));
  Host.outputBytes(new TextEncoder().encode("late").buffer);
}

function parts() {
  const { host, searchParams } = new URL(Host.inputString());
  Host.outputString(Host.arrayBufferToBase64(Host.base64ToArrayBuffer("aGk=")) + host + searchParams.get("q"));
}

module.exports = { greet, count_vowels, later, parts };
"""
CALLS = [
    ("greet", b"Ada", b"Hello, Ada!"),
    ("count_vowels", b"Hello", {"count": 2, "total": 2, "vowels": "aeiou"}),
    ("count_vowels", b"World", {"count": 1, "total": 3, "vowels": "aeiou"}),
    ("later", b"", b"late"),
    ("parts", b"https://a.de:8080/?q=1", b"aGk=a.de:80801"),
]


@pytest.mark.parametrize("host", ["plugwasm", "extism"])
def test_official_style_on_both_hosts(host: str) -> None:
    """Input, output, config, vars, timers and URLs are the same on both hosts."""
    wasm = build_script("javascript", SOURCE, declarations=DECLARED)
    manifest = {"wasm": [{"data": wasm}], "config": {"vowels": "aeiou"}}
    plugin = Plugin(manifest, True) if host == "plugwasm" else extism.Plugin(manifest, wasi=True)
    for name, data, expected in CALLS:
        output = plugin.call(name, data)
        assert (output if isinstance(expected, bytes) else json.loads(output)) == expected
