"""Names of vars are bytes, and config keys are text: two names are equal only if all their bytes
are."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import msgspec
import pytest

import plugwasm
from plugwasm import (
    CurrentPlugin,
    GuestError,
    IsolatedPlugin,
    Limits,
    OptionError,
    Plugin,
    host_fn,
    recording,
)
from plugwasm._host.vars import decode_name, encode_name
from plugwasm.testing import Harness
from tests.support.guests import export, guest

# The input is a name; each of these gives what is there under it.
NAMES = guest(
    export("put", "(call $var_set (call $copy) <<value>>)")
    + export("put_other", "(call $var_set (call $copy) <<other>>)")
    + export("drop", "(call $var_set (call $copy) (i64.const 0))")
    + export("get", "(call $give (call $var_get (call $copy)))")
    + export("setting", "(call $give (call $config_get (call $copy)))")
)
ODD = [
    b"\xff",
    b"\xfe",
    b"\xff\xfe",
    b"a\xff",
    b"\xc3",
    b"\xed\xa0\x80",
    b"\xed\xb3\xbf",
    "\ufffd".encode(),
    b"\xc3\xa9",
    b"",
]
"""Names that a decoder with replacements, or one that lets surrogates pass, takes for one another."""
kinds = pytest.mark.parametrize("kind", [Plugin, IsolatedPlugin])


@kinds
def test_names_not_utf8_are_distinct(kind: type[Plugin]) -> None:
    """Names that are not UTF-8 are distinct names."""
    with kind(NAMES) as plugin:
        for name in ODD:
            plugin.call("put", name)
            for other in ODD:
                assert plugin.call("get", other) == (b"value" if other == name else b"")
            plugin.call("drop", name)
        for name in ODD:
            plugin.call("put", name)
        assert {
            name.encode("utf-8", "surrogateescape"): value for name, value in plugin.vars.items()
        } == dict.fromkeys(ODD, b"value")
        assert {encode_name(name) for name in plugin.vars} == set(ODD)
        assert pickle.loads(pickle.dumps(plugin.vars)) == plugin.vars


@kinds
def test_initial_vars_by_text_or_bytes(kind: type[Plugin]) -> None:
    """Vars can be set and passed on by text or by bytes."""
    with kind(NAMES, vars={name: bytes([i]) for i, name in enumerate(ODD)}) as plugin:
        assert [plugin.call("get", name) for name in ODD] == [bytes([i]) for i in range(len(ODD))]
        kept = plugin.vars
    with kind(NAMES, vars=kept) as another:
        assert another.vars == kept
        assert [another.call("get", name) for name in ODD] == [bytes([i]) for i in range(len(ODD))]


def test_name_round_trip() -> None:
    """The text form of a name gives back its bytes."""
    for name in ODD:
        assert encode_name(decode_name(name)) == name == encode_name(name)


@pytest.mark.parametrize("name", ["\ud800", "a\udfffb", 1, None])
def test_invalid_name_is_refused(name: Any) -> None:
    """An invalid name is refused with a reason."""
    with pytest.raises(OptionError, match="vars"):
        Plugin(NAMES, vars={name: b""})
    if isinstance(name, str):
        with pytest.raises(OptionError, match="lone surrogate"):
            Plugin(NAMES, vars={name: b""})


def test_duplicate_name_is_refused() -> None:
    """Two spellings of one name are refused."""
    with pytest.raises(OptionError, match="there already"):
        Plugin(NAMES, vars={"é": b"1", b"\xc3\xa9": b"2"})  # type: ignore[arg-type]


def test_limit_counts_name_bytes() -> None:
    """The limit counts the bytes of names."""
    with Plugin(NAMES, limits=Limits(var_bytes=6)) as plugin:
        plugin.call("put", b"\xff")
        with pytest.raises(GuestError, match="limit"):
            plugin.call("put", b"\xfe")
        plugin.call("drop", b"\xff")
        plugin.call("put", b"\xfe")


def test_long_name_is_not_its_prefix() -> None:
    """A name that is too long is not the var named by its prefix."""
    with Plugin(NAMES, limits=Limits(var_bytes=20)) as plugin:
        plugin.call("put", b"\xff" * 15)
        assert plugin.call("get", b"\xff" * 16) == b""
        plugin.call("drop", b"\xff" * 22)
        assert plugin.call("get", b"\xff" * 15) == b"value"
        with pytest.raises(GuestError, match="limit"):
            plugin.call("put", b"\xff" * 22)


@kinds
def test_host_function_uses_either_form(kind: type[Plugin]) -> None:
    """A host function can use either form of a name."""
    wasm = guest(
        export("ask", "(call $give (call $of (call $input_offset)))")
        + export("put", "(call $var_set (call $copy) <<value>>)"),
        '(import "extism:host/user" "of" (func $of (param i64) (result i64)))',
    )

    def of(plugin: CurrentPlugin, name: bytes) -> bytes:
        found = plugin.var(name)
        assert found == plugin.var(decode_name(name))
        plugin.set_var(decode_name(name), None)
        assert plugin.var(name) is None
        plugin.set_var(name, found)
        return found or b"none"

    with kind(wasm, functions=[host_fn(name="of")(of)]) as plugin:
        plugin.call("put", b"\xff")
        assert plugin.call("ask", b"\xff") == b"value"
        assert plugin.call("ask", b"\xfe") == b"none"


def test_host_function_invalid_name() -> None:
    """A host function gets an error for an invalid name."""
    wasm = guest(export("ask", "(call $do)"), '(import "extism:host/user" "do" (func $do))')

    def do(plugin: CurrentPlugin) -> None:
        plugin.var("\ud800")

    with (
        Plugin(wasm, functions=[host_fn(name="do")(do)]) as plugin,
        pytest.raises(plugwasm.Error, match="lone surrogate"),
    ):
        plugin.call("ask")


# ---- settings ------------------------------------------------------------------------------------


@kinds
def test_config_key_not_utf8_is_unset(kind: type[Plugin]) -> None:
    """A config key that is not UTF-8 is not set."""
    with kind(NAMES, config={"\ufffd": "secret", "é": "yes", "?": "no", "": "empty"}) as plugin:
        for key in (b"\xff", b"\xfe", b"\xed\xa0\x80", b"\xc3", b"\xc3\xa9\xff", b"\xff\xc3\xa9"):
            assert plugin.call("setting", key) == b""
        assert plugin.call("setting", "é") == b"yes"
        assert plugin.call("setting", "\ufffd") == b"secret"
        assert plugin.call("setting", b"") == b"empty"


def test_long_config_key_is_not_its_prefix() -> None:
    """A config key that is too long is not the one named by its prefix."""
    key = "k" * 2**22
    with Plugin(NAMES, config={key: "found"}, limits=Limits(memory_bytes=2**28)) as plugin:
        assert plugin.call("setting", key) == b"found"
        assert plugin.call("setting", key + "k") == b""


# ---- recordings, observers, the harness ----------------------------------------------------------


def test_recording_and_replay(tmp_path: Path) -> None:
    """Names that are not UTF-8 are recorded and replayed."""

    def build(value: str) -> str:
        return guest(
            export("put", f"(call $var_set (call $copy) <<{value}>>)")
            + export("ask", "(call $do)")
            + export("get", "(call $give (call $var_get (call $copy)))"),
            '(import "extism:host/user" "do" (func $do))',
        )

    wasm = build("value")

    def do(plugin: CurrentPlugin) -> None:
        plugin.set_var(b"\xfd", b"by the host")
        plugin.set_var("text", b"by the host")
        plugin.set_var(b"\xff", None)

    recorder = recording.Recorder()
    with Plugin(
        wasm,
        functions=[host_fn(name="do")(do)],
        vars={b"\xf0": b"first", b"x": b""},
        observe=recorder,
    ) as plugin:
        plugin.call("put", b"\xff")
        plugin.call("put", b"\xfe")
        plugin.call("ask")
        for name in (b"\xf0", b"\xfd", b"\xfe", b"\xff"):
            plugin.call("get", name)
        kept = plugin.vars
    (made,) = recorder.recordings
    made.save(tmp_path / "made.json")
    loaded = recording.load(tmp_path / "made.json")
    assert loaded == made
    for each in (made, loaded):
        assert each.replay(wasm).calls[-1].vars == kept

    with pytest.raises(plugwasm.ReplayError, match=r"the var '\\udcff' is 'value'"):
        loaded.replay(build("other"))


def test_older_recording_replays(tmp_path: Path) -> None:
    """A recording in version 1 still replays.

    It was written when names of vars were text.
    """
    from hashlib import sha256

    wasm = guest(
        export("put", "(call $var_set (call $copy) <<value>>)") + export("ask", "(call $do)"),
        '(import "extism:host/user" "do" (func $do))',
    )
    old: dict[str, Any] = {
        "plugwasm_recording": 1,
        "plugin": "plugin",
        "modules": [{"name": "main", "sha256": sha256(wasm.encode()).hexdigest()}],
        "main": "main",
        "vars": {"é": {"text": "1"}},
        "calls": [
            {
                "function": "ask",
                "input": {"text": ""},
                "host_calls": [
                    {
                        "name": "do",
                        "effects": [
                            {"do": "set_var", "name": "é"},
                            {"do": "set_var", "name": "b", "data": {"text": "2"}},
                        ],
                    }
                ],
                "output": {"text": ""},
                "vars": {"b": {"text": "2"}},
            },
            {
                "function": "put",
                "input": {"text": "c"},
                "output": {"text": ""},
                "vars": {"b": {"text": "2"}, "c": {"text": "value"}},
            },
        ],
    }
    (tmp_path / "old.json").write_bytes(msgspec.json.encode(old))
    replay = recording.load(tmp_path / "old.json").replay(wasm)
    assert replay.calls[-1].vars == {"b": b"2", "c": b"value"}


def test_observers_see_bytes() -> None:
    """Observers see the bytes of a name."""

    class Seen(plugwasm.observing.Observer):
        wants_values = True

        def __init__(self) -> None:
            self.args: list[object] = []

        def on_host_call(self, call: Any) -> None:
            self.args.append(call.args[0])

    seen = Seen()
    with Plugin(NAMES, observe=seen) as plugin:
        plugin.call("put", b"\xff")
        plugin.call("get", "é")
    assert seen.args == [b"\xff", "é"]


def test_harness() -> None:
    """A harness handles names as a plugin does."""
    with Harness(NAMES, vars={b"\xff": b"1"}) as harness:
        assert harness.vars == {"\udcff": b"1"}
        plugin = harness.plugin()
        plugin.call("put", b"\xfe")
        assert (
            harness.vars
            == plugin.vars
            == {decode_name(b"\xff"): b"1", decode_name(b"\xfe"): b"value"}
        )
