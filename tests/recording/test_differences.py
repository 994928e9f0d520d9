"""The differences that a replay reports."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pytest

import plugwasm
from plugwasm import host_fn
from plugwasm._host.registry import registered
from plugwasm.recording import RecordingError
from tests.support.guests import export, guest
from tests.support.paths import EXAMPLES
from tests.support.recordings import (
    ENDS,
    answer_functions,
    asking_plugin,
    import_of,
    record_calls,
    replay_error,
    two_asks,
    upper,
    wasi_guest,
)


def test_other_argument() -> None:
    """Another argument is a difference."""
    recording = record_calls(two_asks("one", "two"), ("run", "in"), functions=[host_fn("f")(upper)])
    error = replay_error(recording, two_asks("one", "three"))
    assert str(error) == (
        "replay of `plugin`: call 1, run('in'), host call 2 is not as it was\n  recorded: f('two')\n  now:      f('three')"
    )
    assert (error.call, error.host_call, error.recorded, error.now) == (
        1,
        2,
        "f('two')",
        "f('three')",
    )
    assert (error.plugin, error.function) == ("plugin", "run")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_long_values_are_shortened() -> None:
    """For long values, only the differing part is shown."""
    recording = record_calls(
        two_asks("x" * 5000 + "same then" + "y" * 300), ("run", ""), functions=[host_fn("f")(upper)]
    )
    error = replay_error(recording, two_asks("x" * 5000 + "same now" + "y" * 300))
    assert "then" in error.recorded
    assert "now" in error.now
    assert len(str(error)) < 600


def test_extra_host_call() -> None:
    """An additional host call is a difference."""
    recording = record_calls(two_asks("one"), ("run", ""), functions=[host_fn("f")(upper)])
    error = replay_error(recording, two_asks("one", "two"))
    assert (error.host_call, error.recorded, error.now) == (2, "no more host calls", "f('two')")


def test_missing_host_call() -> None:
    """A missing host call is a difference."""
    recording = record_calls(two_asks("one", "two"), ("run", ""), functions=[host_fn("f")(upper)])
    error = replay_error(recording, two_asks("one"))
    assert (error.host_call, error.recorded, error.now) == (2, "f('two')", "no more host calls")


def test_other_function() -> None:
    """Another function is a difference."""
    recording = record_calls(two_asks("one"), ("run", ""), functions=[host_fn("f")(upper)])
    error = replay_error(recording, two_asks("one").replace('"f"', '"g"'))
    assert (error.recorded, error.now) == ("f('one')", "g('one')")
    error = replay_error(recording, two_asks("one").replace('"extism:host/user"', '"mine"'))
    assert (error.recorded, error.now) == ("extism:host/user f('one')", "mine f('one')")


def test_other_output_or_end() -> None:
    """Another output or end is a difference."""
    recording = record_calls(
        two_asks("one"), ("run", ""), ("run", "again"), functions=[host_fn("f")(upper)]
    )
    error = replay_error(recording, two_asks("one", give="(call $give <<something else>>)"))
    assert "call 1 of 2, run()" in str(error)
    assert (error.recorded, error.now) == ("returned 'done'", "returned 'something else'")
    error = replay_error(recording, two_asks("one", give="unreachable"))
    assert error.now.startswith("raised TrapError with the trap")
    error = replay_error(recording, two_asks("", give="(call $error_set <<no>>)"))
    assert error.now == "raised GuestError: 'no', without f('one')"
    recording = record_calls(
        two_asks("one", give="(call $error_set <<no>>)"),
        ("run", ""),
        functions=[host_fn("f")(upper)],
    )
    error = replay_error(recording, two_asks("one"))
    assert (error.recorded, error.now) == ("raised GuestError: 'no'", "returned 'done'")
    error = replay_error(recording, two_asks("one", give="(call $error_set <<yes>>)"))
    assert (error.recorded, error.now) == ("raised GuestError: 'no'", "raised GuestError: 'yes'")


def test_other_function_type() -> None:
    """A function of another type is a difference."""
    recording = record_calls(two_asks("one"), ("run", ""), functions=[host_fn("f")(upper)])
    i32 = guest(
        export("run", "(drop (call $f (i64.const 0)))"), import_of("f", "(param i64) (result i32)")
    )
    assert "f(" in replay_error(recording, i32).recorded
    more = guest(
        export("run", "(drop (call $f <<one>> (i32.const 1)))"),
        import_of("f", "(param i64 i32) (result i64)"),
    )
    assert replay_error(recording, more).now == "f('one', 1)"


def test_unloadable_plugin() -> None:
    """A plugin that cannot be loaded is a difference."""
    recording = record_calls(ENDS, ("fine", "x"))
    error = replay_error(recording, wasi_guest(export("fine", "(call $proc_exit (i32.const 0))")))
    assert "cannot be loaded" in str(error)
    assert "WASI was not granted" in str(error)
    assert isinstance(error.__cause__, plugwasm.MissingImportError)
    with pytest.raises(plugwasm.SourceError):
        recording.replay("not_there.wasm")


def test_strict_wants_the_very_modules() -> None:
    recording = record_calls(ENDS, ("fine", "x"))
    recording.replay(ENDS, strict=True)
    with pytest.raises(RecordingError, match="the module 'main' is not the one that was recorded"):
        recording.replay(ENDS + " ", strict=True)


def test_default_is_recorded_plugin(tmp_path: Path) -> None:
    """By default, the files of the recorded plugin are replayed."""
    path = tmp_path / "count_vowels.wasm"
    shutil.copy(EXAMPLES / "count_vowels.wasm", path)
    recording = record_calls(path, ("count_vowels", "Hello"))
    assert json.loads(recording.replay().calls[0].output or b"")["count"] == 2
    path.unlink()
    with pytest.raises(RecordingError, match="say which plugin"):
        recording.replay()


def test_a_replay_gives_the_same_twice() -> None:
    recording = record_calls(
        asking_plugin(), ("run", "abc"), functions=[host_fn("f")(answer_functions()[9])]
    )
    one, two = recording.replay(asking_plugin()), recording.replay(asking_plugin())
    assert one.calls == two.calls


def test_registered_functions_not_linked() -> None:
    """Functions that `host_fn` registered are not linked in a replay."""
    recording = record_calls(two_asks("one"), ("run", ""), functions=[host_fn("f")(upper)])
    registered.clear()
    host_fn("f")(no_more_text)
    recording.replay(two_asks("one"))


def no_more_text(value: str) -> str:
    raise AssertionError("a replay asks nobody")
