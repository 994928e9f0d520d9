"""How the author of a plugin in any language tests it with pytest: `pytest
examples/test_count_vowels.py`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

import plugwasm

if TYPE_CHECKING:
    from plugwasm._pytest_plugin import MakeHarness
    from plugwasm.testing import Harness

pytestmark = pytest.mark.plugwasm("count_vowels.wasm", config={"vowels": "aeiou"})


@pytest.mark.parametrize(
    ("text", "count"), [("", 0), ("Hello, World!", 3), ("rhythm", 0), ("ae" * 5000, 10_000)]
)
def test_it_counts_vowels(wasm_plugin: plugwasm.Plugin, text: str, count: int) -> None:
    assert json.loads(wasm_plugin.call("count_vowels", text))["count"] == count


@pytest.mark.plugwasm(vars={"total": (40).to_bytes(8, "little")})
def test_it_goes_on_from_the_total_it_has(
    wasm_plugin: plugwasm.Plugin, wasm_harness: Harness
) -> None:
    assert json.loads(wasm_plugin.call("count_vowels", "aa"))["total"] == 42
    assert wasm_harness.vars == {"total": (42).to_bytes(8, "little")}


@pytest.mark.plugwasm(config={"vowels": "a" * 2000})
def test_it_refuses_too_many_vowels(wasm_plugin: plugwasm.Plugin) -> None:
    with pytest.raises(plugwasm.GuestError, match="longer than 1024 bytes"):
        wasm_plugin.call("count_vowels", "x")


def test_its_work_grows_with_its_input_and_no_faster(
    wasm_plugin: plugwasm.Plugin, wasm_harness: Harness
) -> None:
    wasm_plugin.call("count_vowels", "x")
    with wasm_harness.at_most(fuel=600_000, memory_bytes=2**20) as usage:
        wasm_plugin.call("count_vowels", "x" * 10_000)
    with wasm_harness.at_most(fuel=11 * usage.fuel):
        wasm_plugin.call("count_vowels", "x" * 100_000)


def test_another_plugin_asks_the_web(make_wasm_harness: MakeHarness) -> None:
    harness = make_wasm_harness("http_get.wasm")
    harness.http.get("https://api.example.com/user/1").respond(json={"name": "Ada"})
    harness.http.get("https://api.example.com/user/2").respond(404)
    plugin = harness.plugin()
    assert plugin.call("http_body", "https://api.example.com/user/1") == b'{"name": "Ada"}'
    with pytest.raises(plugwasm.GuestError, match="expected status 200, got 404"):
        plugin.call("http_body", "https://api.example.com/user/2")
    harness.assert_all_called()


def test_another_plugin_asks_the_application(make_wasm_harness: MakeHarness) -> None:
    harness = make_wasm_harness("host_functions.wasm")
    harness.host("greet", str, returns=lambda who: f"Hello, {who}")
    assert harness.plugin().call("greet", "Ada") == b"Hello, Ada"
    assert [call.args for call in harness.host_calls] == [("Ada",)]
