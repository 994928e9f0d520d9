"""The Zig kit's memory of a call and its JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import plugwasm
from conformance.building import Build

from .packages import need

pytestmark = [pytest.mark.toolchain, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(params=["ReleaseSmall", "ReleaseSafe"])
def plugin(request: pytest.FixtureRequest) -> plugwasm.Plugin:
    """The plugin as it is shipped, and with Zig's own checks."""
    need("zig")
    mode = request.param
    build = Build.of(
        Path(__file__).with_name("zig"),
        {
            "build": [
                ["{python}", "-m", "ziglang", "build-exe", "-target", "wasm32-freestanding", "-O", mode,
                 "-fno-entry", "-rdynamic", "--stack", "65536", "--dep", "plugwasm", "-Mroot={program}.zig",
                 "-Mplugwasm={root}/pdk/zig/src/plugwasm.zig", "-femit-bin={out}"],
            ],
            "sources": ["*.zig", "../../../pdk/zig/src/*.zig"],
            "needs": ["zig"],
        },
    )  # fmt: skip
    return plugwasm.Plugin({"wasm": [{"path": str(build.path("memory"))}]})


def test_allocators_do_not_overlap(plugin: plugwasm.Plugin) -> None:
    """Memory of the call and of another allocator stay apart, and calls use the memory again."""
    sizes = [int(plugin.call("interleave", str(seed % 3))) for seed in range(30)]
    assert sizes[-1] == sizes[len(sizes) // 2], "the memory grows from call to call"


def test_alignment_is_kept(plugin: plugwasm.Plugin) -> None:
    """A type with a large alignment gets it."""
    assert plugin.call("aligned", "") == b"true"


def test_too_much_memory_is_an_error(plugin: plugwasm.Plugin) -> None:
    """Nearly the whole address space is OutOfMemory, and the next call works."""
    with pytest.raises(plugwasm.GuestError, match="OutOfMemory"):
        plugin.call("too_much", "")
    assert plugin.call("aligned", "") == b"true"


@pytest.mark.parametrize(
    "text", ["", 'a "b" \\ \n\x01\x1f\x7f', "\u00e9\u2028😀", "x" * 100_000], ids=len
)
def test_json_is_written_as_it_was_read(plugin: plugwasm.Plugin, text: str) -> None:
    """Text, lists, optional values and structs come back as they were."""
    value = {"text": text, "list": [[], [0, -1, 2**63 - 1, -(2**63)]], "maybe": None, "empty": {}}
    assert json.loads(plugin.call("mirror", value)) == value
    assert json.loads(plugin.call("mirror", value | {"maybe": False}))["maybe"] is False


def test_text_that_is_not_utf8_is_an_error(plugin: plugwasm.Plugin) -> None:
    """What would not be JSON is not written."""
    with pytest.raises(plugwasm.GuestError, match="InvalidUtf8"):
        plugin.call("invalid", "")


def test_utf8_is_told_from_other_bytes(plugin: plugwasm.Plugin) -> None:
    """Every pair of bytes, with what may follow it, is text in JSON if Python says that it is UTF-8."""
    pairs = [bytes((first, second)) for first in range(256) for second in range(256)]
    for data in (
        pair + after for pair in pairs for after in (b"", b"\x80", b"\x80\xbf", b"\xbf\x80a")
    ):
        try:
            text = data.decode()
        except UnicodeDecodeError:
            with pytest.raises(plugwasm.GuestError, match="InvalidUtf8"):
                plugin.call("quoted", data)
        else:
            assert json.loads(plugin.call("quoted", data)) == {"text": text}


@pytest.mark.parametrize("where", range(9))
def test_escapes_are_at_every_alignment(plugin: plugwasm.Plugin, where: int) -> None:
    """Pieces of text between escapes are copied whole, wherever they begin and however long they are."""
    text = "x" * where + "".join(f'{chr(n % 32)}"\\{"yz" * n}' for n in range(70))
    assert json.loads(plugin.call("quoted", text)) == {"text": text}
