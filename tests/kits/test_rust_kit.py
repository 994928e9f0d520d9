"""The Rust kit beyond the conformance table: MessagePack, shared functions, errors of crates."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

import plugwasm
from conformance.building import Build

from .packages import need

pytestmark = [pytest.mark.toolchain, pytest.mark.slow, pytest.mark.timeout(600)]

FOLDER = Path(__file__).with_name("rust")
TARGET = "wasm32-unknown-unknown"
CARGO = ["{cargo}", "build", "--quiet", "--release", "--examples", "--target", TARGET]


@pytest.fixture(scope="module")
def plugin() -> plugwasm.Plugin:
    """A plugin of two modules."""
    need("cargo")
    build = Build.of(
        FOLDER,
        {
            "build": [
                [*CARGO, "--target-dir", "{cache}/rust-tests"],
                ["cp", f"{{cache}}/rust-tests/{TARGET}/release/examples/{{program}}.wasm", "{out}"],
            ],
            "sources": ["Cargo.*", "examples/*.rs", "../../../pdk/rust/*/src/*.rs"],
            "needs": ["cargo"],
        },
    )
    modules = [{"path": str(build.path(name)), "name": name} for name in ("shared", "values")]
    modules[1]["name"] = "main"
    return plugwasm.Plugin({"wasm": modules})


def test_shared_fn_takes_numbers(plugin: plugwasm.Plugin) -> None:
    """A function of another module gets numbers as they are."""
    assert plugin.call("call_add", "-1") == str((1 << 40) - 1).encode()


def test_shared_fn_takes_text(plugin: plugwasm.Plugin) -> None:
    """Text goes to another module and back."""
    assert plugin.call("call_shout", "straße") == b"STRASSE"


def test_shared_fn_ends_with_an_error(plugin: plugwasm.Plugin) -> None:
    """An error of a shared function ends the call with its message."""
    with pytest.raises(plugwasm.Error, match="not today"):
        plugin.call("call_refuse", "not today")
    assert plugin.call("call_shout", "a") == b"A"


def test_keywords_are_names(plugin: plugwasm.Plugin) -> None:
    """A raw identifier is exported and imported by its name, without `r#`."""
    assert plugin.call("match") == b"a keyword"


def test_msgpack_goes_both_ways(plugin: plugwasm.Plugin) -> None:
    """A struct is read from MessagePack, and written with the names of its fields."""
    sent = {"x": 1.5, "name": None}
    answer = msgspec.msgpack.decode(plugin.call("mirror", msgspec.msgpack.encode(sent)))
    assert answer == {"x": -1.5, "name": None}


def test_wrong_msgpack_is_an_error(plugin: plugwasm.Plugin) -> None:
    """Bytes that are not the struct end the call with an error, and code 1."""
    with pytest.raises(plugwasm.GuestError, match="the input is not as expected") as caught:
        plugin.call("mirror", b"\xc1")
    assert caught.value.code == 1


def test_no_bytes_are_none(plugin: plugwasm.Plugin) -> None:
    """An empty input is None, and None is an empty output."""
    assert plugin.call("optional", "") == b""
    assert plugin.call("optional", "8") == b"7"
    with pytest.raises(plugwasm.GuestError, match="no number of type u16"):
        plugin.call("optional", "-8")


def test_error_of_a_crate_has_its_causes(plugin: plugwasm.Plugin) -> None:
    """Any error converts with `?`; the message names its causes."""
    with pytest.raises(plugwasm.GuestError, match="refused: an error occurred when formatting"):
        plugin.call("error_of_a_crate", "")
