"""Recordings as files: writing, reading, and files that were tampered with."""

from __future__ import annotations

import copy
import json
import os
import random
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import plugwasm
from plugwasm import CurrentPlugin, Limits, Plugin, host_fn
from plugwasm.recording import Recorder, RecordingError, ReplayError, load
from tests.support.guests import export, guest
from tests.support.paths import ROOT
from tests.support.recordings import (
    ENDS,
    answer_functions,
    asking_plugin,
    import_of,
    record_calls,
    upper,
    wasi_guest,
)


def test_non_file_is_not_replaced(tmp_path: Path) -> None:
    """A path that is not a regular file is not replaced by a recording."""
    recording = record_calls(ENDS, ("fine", b"x"))
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "link", "folder"):
        with pytest.raises(OSError, match="exists and is not a regular file"):
            recording.save(tmp_path / name)
    assert sorted(os.listdir(tmp_path)) == ["folder", "link", "pipe"]
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_interrupt_leaves_no_file(tmp_path: Path, monkeypatch: Any) -> None:
    """An interrupt while a recording is written is raised, and no file is left."""
    recording = record_calls(ENDS, ("fine", b"x"))
    for name in ("open", "replace"):
        real = getattr(os, name)

        def interrupted(*args: Any, real: Any = real) -> None:
            real(*args)
            raise KeyboardInterrupt  # of a signal handler, right after it

        with monkeypatch.context() as patched:
            patched.setattr(os, name, interrupted)
            with pytest.raises(KeyboardInterrupt):
                recording.save(tmp_path / name)
    assert os.listdir(tmp_path) == ["replace"]


def test_any_plugin_name(tmp_path: Path) -> None:
    """A plugin of any name can be recorded."""
    with Plugin(ENDS, name="\U00010400" * 100, observe=Recorder(tmp_path)) as plugin:
        plugin.call("fine")
    (file,) = tmp_path.iterdir()
    load(file).replay(ENDS)


def test_saved_recording_is_private(tmp_path: Path) -> None:
    """A saved recording is private and can be read back."""
    path = tmp_path / "recording.json"
    recording = record_calls(
        asking_plugin(), ("run", b"\xff\0abc"), functions=[host_fn("f")(answer_functions()[1])]
    )
    recording.save(path)
    recording.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["recording.json"]
    content = path.read_bytes()
    assert load(path).to_json() == content
    load(path).save(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"{}", "plugwasm_recording"),
        (b"[]", "Expected `object`"),
        (b"nonsense", "no recording"),
        (b"\xff\xfe", "no recording"),
        (b'{"plugwasm_recording": 2}', "version 2 .* update it"),
        (b'{"plugwasm_recording": 1}', "plugin"),
        (b'{"plugwasm_recording": 0, "plugin": "x", "modules": [], "main": "x"}', ">= 1"),
        (b"[" * 100_000, "nested too deep"),
        (
            b'{"plugwasm_recording": 1, "plugin": "x", "modules": [], "main": "x", "more": 1}',
            "unknown field `more`",
        ),
        (
            b'{"plugwasm_recording": 1, "plugin": "x", "modules": [], "main": "x", "calls": [{"function": "f", "input": {}}]}',
            "text",
        ),
        (
            b'{"plugwasm_recording": 1, "plugin": "x", "modules": [], "main": "x", "calls": [{"function": "f", "input": {"text": ""}}]}',
            "output",
        ),
    ],
)
def test_invalid_recording_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    """An invalid recording is refused."""
    path = tmp_path / "recording.json"
    path.write_bytes(content)
    with pytest.raises(RecordingError, match=message):
        load(path)


def test_empty_recording_is_refused() -> None:
    """A recording without calls is refused."""
    from plugwasm._recording.recording import loads

    document = json.loads(record_calls(ENDS, ("fine", b"x")).to_json())
    for calls in ({"calls": []}, {}):
        del document["calls"]
        document |= calls
        with pytest.raises(RecordingError, match="no calls"):
            loads(json.dumps(document).encode()).replay(ENDS)


def test_recording_text_is_escaped() -> None:
    """Text of a recording is escaped before it is shown."""
    from plugwasm._recording.recording import loads

    bad = "\x1b[31m"
    texts: list[tuple[str, str]] = [
        ('"plugin": "plugin"', f'"plugin": "{bad}"'),
        ('"name": "f"', f'"name": "{bad}"'),
        ('"function": "run"', f'"function": "{bad}"'),
        ('"text": "abc"', f'"text": "{bad}"'),
        ('"main": "main"', f'"main": "main", "{bad}": 1'),
        ('"main": "main"', f'"main": "main", "limits": {{"{bad}": 1}}'),
        ('"main": "main"', f'"main": "main", "incomplete": "{bad}"'),
        (
            '"main": "main"',
            f'"main": "main", "vars": {{"{bad}": {{"text": "{bad}"}}}}, "wasi": "{bad}"',
        ),
        (
            '"results": [',
            f'"error": {{"type": "RecordingError", "message": "{bad}"}}, "results": [',
        ),
        ('"results": [', f'"error": {{"type": "{bad}", "message": "{bad}"}}, "results": ['),
    ]
    text = json.dumps(
        json.loads(
            record_calls(asking_plugin(), ("run", "abc"), functions=[host_fn("f")(upper)]).to_json()
        )
    )
    text = text.replace('"output": {"text": "ABC"}', '"output": {"text": "another"}')
    for was, now in texts:
        assert was in text
        with pytest.raises(plugwasm.Error) as caught:
            loads(text.replace(was, now.replace("\x1b", "\\u001b")).encode()).replay(
                asking_plugin()
            )
        assert caught.value.message.replace("\n", "").isprintable(), now


def test_recorded_limits_are_harmless() -> None:
    """The limits in a recording cannot end the process."""
    script = f"""
import json
from plugwasm import Limits, Plugin, recording
from plugwasm._recording.recording import loads
source = {guest(export("run", "(call $echo)"))!r}
recorder = recording.Recorder()
with Plugin(source, observe=recorder) as plugin:
    plugin.call("run", "x")
for size in (2**22, 2**28):
    document = json.loads(recorder.recording.to_json()) | {{"limits": {{"stack_bytes": size}}}}
    try:
        loads(json.dumps(document).encode()).replay(source, limits=Limits(stack_bytes=2**28))
    except recording.ReplayError as error:
        assert "stack" in str(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_missing_file(tmp_path: Path) -> None:
    """The error for a missing file says that it is missing."""
    with pytest.raises(RecordingError, match="no such file"):
        load(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("was", "now", "error"),
    [
        ('{"block":0}', '{"block":5}', RecordingError),
        ('{"block":0}', '{"param":7}', RecordingError),
        ('{"block":0}', '{"text":"x"}', RecordingError),
        ('{"block":0}', '{"i32":0}', ReplayError),
        ('{"block":0}', '{"i64":512}', ReplayError),
        ('[{"block":0}]', "[]", ReplayError),
        ('{"do":"put","data":{"text":"ABC"}}', '{"do":"alloc","size":4294967296}', ReplayError),
        (
            '{"do":"put","data":{"text":"ABC"}}',
            '{"do":"free","block":{"i64":-1}},{"do":"put","data":{"text":"ABC"}}',
            None,
        ),
        (
            '{"do":"put","data":{"text":"ABC"}}',
            '{"do":"put","data":{"text":"ABC"}},{"do":"write","block":{"block":0},"at":99,"data":{"text":"x"}}',
            None,
        ),
        (
            '{"do":"put","data":{"text":"ABC"}}',
            '{"do":"put","data":{"text":"ABC"}},{"do":"set_var","name":"x","data":{"text":"x"}}',
            ReplayError,
        ),
        ('"limits":{}', '"limits":{"memories":-1}', RecordingError),
        ('"limits":{}', '"limits":{"nothing":1}', RecordingError),
        ('"limits":{}', '"limits":{"compile_seconds":null,"compile_bytes":null}', RecordingError),
        ('"limits":{}', '"limits":{"memory_bytes":65536}', ReplayError),
        ('"limits":{}', '"fuel_limit":10', ReplayError),
        ('"limits":{}', '"vars":{"x":{"text":"' + "x" * 2_000_000 + '"}}', RecordingError),
    ],
)
def test_tampered_recording_is_harmless(was: str, now: str, error: type[Exception] | None) -> None:
    """A recording that was tampered with is harmless."""
    from plugwasm._recording.recording import loads

    recording = record_calls(asking_plugin(), ("run", "abc"), functions=[host_fn("f")(upper)])
    document = json.loads(recording.to_json())
    document.setdefault("limits", {})
    text = json.dumps(document, separators=(",", ":"))
    assert was in text
    tampered = loads(text.replace(was, now).encode())
    if error is None:
        tampered.replay(asking_plugin())
    else:
        with pytest.raises(error):
            tampered.replay(asking_plugin())


def mutate(value: Any, chance: random.Random) -> Any:
    """Return the document with one change."""
    places: list[tuple[Any, Any]] = []

    def visit(node: Any) -> None:
        for key in node if isinstance(node, dict) else range(len(node)):
            places.append((node, key))
            if isinstance(node[key], (dict, list)):
                visit(node[key])

    visit(value)
    node, key = chance.choice(places)
    kind = chance.randrange(6)
    if kind == 0:
        del node[key]
    elif kind == 1 and isinstance(node[key], int):
        node[key] = chance.choice(
            [0, -1, 1, 31, 512, 544, 2**31, 2**32, 2**63 - 1, -(2**63), node[key] + 1]
        )
    elif kind == 2 and isinstance(node[key], str):
        node[key] = chance.choice(["", "x" * 1000, node[key] + "x", "\0", "AAAA"])
    elif kind == 3 and isinstance(node, list):
        node.insert(key, copy.deepcopy(node[key]))
    elif kind == 4:
        other, at = chance.choice(places)
        node[key] = copy.deepcopy(other[at])
    elif kind == 5 and isinstance(node, list):
        node.reverse()
    return value


def test_random_changes(tmp_path: Path) -> None:
    """A recording with random changes is refused or replayed."""
    from plugwasm._recording.recording import loads

    (tmp_path / "a.txt").write_text("content")
    source = wasi_guest(
        """(func (export "run") (local $block i64)
          (drop (call $clock_time_get (i32.const 0) (i64.const 1) (i32.const 64)))
          (drop (call $random_get (i32.const 72) (i32.const 8)))
          (i32.store (i32.const 0) (i32.const 128)) (i32.store (i32.const 4) (i32.const 20))
          (drop (call $fd_read (i32.const 3) (i32.const 0) (i32.const 1) (i32.const 16)))
          (local.set $block (call $f <<abc>>))
          (call $var_set <<name>> (local.get $block))
          (call $give (call $config_get <<key>>)))""",
        import_of("f", "(param i64) (result i64)"),
    )

    def f(plugin: CurrentPlugin, value: int) -> int:
        plugin.memory(plugin.memory_at_offset(value))[:1] = b"X"
        plugin.set_var("more", b"1")
        plugin.free(plugin.alloc(5))
        return plugin.alloc(30).offset

    recording = record_calls(
        source,
        ("run", "a"),
        ("run", "b"),
        functions=[host_fn("f")(f)],
        wasi=True,
        config={"key": "x"},
    )
    recording.replay(source)
    content = recording.to_json()
    chance = random.Random(4)
    outcomes = {"refused": 0, "different": 0, "replayed": 0}
    compiled = source
    for _ in range(250):
        document = json.loads(content)
        document.setdefault("limits", {})
        try:
            loads(json.dumps(mutate(document, chance)).encode()).replay(compiled)
            outcomes["replayed"] += 1
        except RecordingError:
            outcomes["refused"] += 1
        except ReplayError:
            outcomes["different"] += 1
    assert min(outcomes.values()) > 10
    for _ in range(300):
        octets = bytearray(content)
        octets[chance.randrange(len(octets))] = chance.randrange(256)
        del octets[chance.randrange(len(octets), 2 * len(octets)) :]
        try:
            loads(bytes(octets))
        except RecordingError:
            pass


def test_recording_cannot_raise_limits() -> None:
    """A recording cannot raise the limits of whoever replays it."""
    wide = Limits(memory_bytes=2**32, timeout=None)
    recording = record_calls(guest(export("run", "(call $echo)")), ("run", "abc"), limits=wide)
    with pytest.raises(
        RecordingError,
        match=r"recorded with memory_bytes=4294967296, more than 1073741824.*`limits`",
    ):
        recording.replay(guest(export("run", "(call $echo)")))
    assert (
        recording.replay(guest(export("run", "(call $echo)")), limits=wide).calls[0].output
        == b"abc"
    )
