"""Strangers' recordings: reading and replaying one stays within the limits of whoever replays
it."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import plugwasm
from plugwasm import Limits, Plugin
from plugwasm._recording.json_size import JsonSize
from plugwasm._recording.recording import loads
from plugwasm.errors import RecordingError, ReplayError, SourceError
from plugwasm.recording import Call, Data, HostCall, Recorder, Recording, Value, load
from tests.support.guests import export, guest

ECHO = guest(export("run", "(call $echo)"))
LOOP = b'(module (func (export "run") (loop $l (br $l))))'
LOGS = guest(
    """(func (export "run") (local $i i32)
      (loop $l
        (call $log_warn <<flood>>)
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br_if $l (i32.lt_u (local.get $i) (i32.const 50000)))))"""
)


def record_document(
    plugin: Any, *inputs: str, function: str = "run", **options: Any
) -> dict[str, Any]:
    """Return the document of a recording of these calls."""
    recorder = Recorder()
    with Plugin(plugin, observe=recorder, **options) as made:
        for data in inputs:
            try:
                made.call(function, data)
            except plugwasm.Error:
                pass
    return json.loads(recorder.recording.to_json())  # type: ignore[no-any-return]


def read(document: dict[str, Any]) -> Recording:
    return loads(json.dumps(document, indent=1).encode())


# ---- reading -------------------------------------------------------------------------------------

READS = """
import sys
sys.path[:0] = {paths!r}
from plugwasm._recording.recording import loads
from plugwasm.errors import RecordingError
HEAD = '{{"plugwasm_recording":1,"plugin":"p","modules":[],"main":"main"'
def many(unit): return ",".join([unit] * (13_000_000 // (len(unit) + 1)))
def call(host_calls): return '{{"function":"f","input":{{"text":""}},"output":{{"text":""}},"host_calls":[' + host_calls + ']}}'
document = ({document}).encode()
def resident(name): return int(open("/proc/self/status").read().partition(name + ":")[2].split()[0]) * 1024
before = resident("VmRSS")
open("/proc/self/clear_refs", "w").write("5")
try:
    recording = loads(document)
    outcome = "read"
except RecordingError as error:
    outcome = "refused"
print(len(document), resident("VmHWM") - before, outcome)
"""
DENSE = {
    "host calls": """HEAD + ',"calls":[' + call(many('{"name":"ab"}')) + ']}'""",
    "host calls with arguments": """HEAD + ',"calls":[' + call(many('{"name":"f","args":[{"i64":5}],"results":[{"i64":5}]}')) + ']}'""",
    "arguments": """HEAD + ',"calls":[' + call('{"name":"f","args":[' + many('{"i32":1}') + ']}') + ']}'""",
    "effects": """HEAD + ',"calls":[' + call('{"name":"f","effects":[' + many('{"do":"alloc","size":1}') + ']}') + ']}'""",
    "calls": """HEAD + ',"calls":[' + many('{"function":"a","input":{"text":""},"output":{"text":""}}') + ']}'""",
    "headers": """HEAD + ',"calls":[' + call(many('{"name":"f","http":{"headers":{"a":"b"}}}')) + ']}'""",
    "config": """HEAD + ',"config":{' + ",".join('"%x":""' % i for i in range(1_200_000)) + '},"calls":[]}'""",
    "limits": """HEAD + ',"limits":{' + ",".join('"%x":1' % i for i in range(1_300_000)) + '},"calls":[]}'""",
    "vars": """HEAD + ',"vars":{' + ",".join('"%x":{"text":"ab"}' % i for i in range(600_000)) + '},"calls":[]}'""",
    "overrides": """HEAD + ',"overrides":[' + many('["",""]') + '],"calls":[]}'""",
    "what is none": """HEAD + ',"calls":[' + many('[]') + ']}'""",
    "text with one character of four bytes": """HEAD + ',"calls":[' + call('{"name":"' + "a" * 13_000_000 + chr(0x1d4b3) + '"}') + ']}'""",
}


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
@pytest.mark.parametrize("document", DENSE.values(), ids=DENSE)
def test_memory_to_read_recording(document: str) -> None:
    """Reading a recording takes a small multiple of its size."""
    text = READS.format(paths=sys.path, document=document)
    run = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, timeout=120, check=False
    )
    assert run.returncode == 0, run.stderr
    size, grown, _ = run.stdout.split()
    assert int(grown) < 8 * int(size), run.stdout


def test_large_recording_round_trip(tmp_path: Path) -> None:
    """A large recording that was saved can be read."""
    value = Value(i64=5)
    host_calls = (
        HostCall("f", args=(value,), results=(value,)),
        HostCall("g"),
        HostCall("h", args=(value,) * 20),
    ) * 20_000
    whole = Recording(
        1,
        "p",
        [],
        "main",
        config={str(i): "" for i in range(20_000)},
        vars={str(i): Data.of(b"") for i in range(20_000)},
        calls=[Call("f", Data.of(b""), host_calls=host_calls, output=Data.of(b""))]
        + [Call("f", Data.of(b""), output=Data.of(b""))] * 100_000,
    )
    whole.save(tmp_path / "r.json")
    assert load(tmp_path / "r.json") == whole
    with pytest.raises(RecordingError, match="larger than the limit of 1000 bytes"):
        load(tmp_path / "r.json", max_bytes=1000)


@pytest.mark.parametrize(
    ("text", "depth", "weight"),
    [
        ("[]", 1, 56),
        ('["["]', 1, 56 + 56),
        (r'["\"[\\", {}]', 2, 56 + 56 + 8 + 88),
        (r'{"a\\": [[1], 2]}', 3, 88 + 2 * 56 + 8 + 8),
        ("[" * 300, 300, 300 * 56),
        ('"' + "\\\\" * 70_000 + '[{"', 0, 56),
        ('"' + "x" * (2**16 - 2) + '\\"[[["', 0, 56),
        ('"' + "x" * (2**16 - 1) + '", [[', 2, 56 + 8 + 2 * 56),
    ],
)
def test_strings_weigh_nothing(text: str, depth: int, weight: int) -> None:
    """The content of strings adds nothing to the estimated size."""
    found = JsonSize(text.encode())
    assert (found.depth, found.memory_bytes) == (depth, weight)


@pytest.mark.parametrize("number", ["1" * 10_000_000, "nan:" + "1" * 10_000_000])
def test_huge_number_is_refused(number: str) -> None:
    """A number of ten million digits is refused."""
    document = record_document(ECHO, "x")
    document["calls"][0]["host_calls"] = [{"name": "f", "args": [{"f64": number}]}]
    with pytest.raises(RecordingError, match="length"):
        read(document)


# ---- time ----------------------------------------------------------------------------------------

CENTURIES = 2**33


def ending_at_its_deadline(**limits: Any) -> dict[str, Any]:
    document = record_document(LOOP, "", limits=Limits(timeout=0.05))
    assert document["calls"][0]["error"]["type"] == "TimeoutError"
    document["limits"] = limits
    return document


@pytest.mark.parametrize("recorded_timeout", [CENTURIES, None])
def test_replay_deadline_is_of_replayer(recorded_timeout: float | None) -> None:
    """A replay ends at the deadline of whoever replays, not at the recording's."""
    recording = read(ending_at_its_deadline(timeout=recorded_timeout))
    start = time.monotonic()
    assert isinstance(
        recording.replay(LOOP, limits=Limits(timeout=0.3)).calls[0].error, plugwasm.TimeoutError
    )
    assert time.monotonic() - start < 20


def test_unfinished_call_gets_no_more_time() -> None:
    """A call recorded without its timeout error ends at the deadline of whoever replays too."""
    document = ending_at_its_deadline(timeout=CENTURIES)
    del document["calls"][0]["error"]
    document["calls"][0]["output"] = {"text": ""}
    start = time.monotonic()
    with pytest.raises(ReplayError, match="raised TimeoutError"):
        read(document).replay(LOOP, limits=Limits(timeout=0.3))
    assert time.monotonic() - start < 20


SLOW = (
    '(module (func (export "run") (local $i i64) (loop $l (local.set $i (i64.add (local.get $i) (i64.const 1)))'
    " (br_if $l (i64.lt_u (local.get $i) (i64.const 2000000))))))"
)


def test_total_time_of_all_calls() -> None:
    """All calls together have ten times the time limit of one."""
    document = record_document(SLOW, "")
    document["calls"] *= 100_000
    start = time.monotonic()
    with pytest.raises(ReplayError, match="all calls together take longer than 2 s, 10 times"):
        read(document).replay(SLOW, limits=Limits(timeout=0.2))
    assert time.monotonic() - start < 20


def test_million_host_effects_end_in_time() -> None:
    """Replaying a million effects of a host function ends at the deadline."""
    asks = guest(export("run", "(call $f)"), '(import "extism:host/user" "f" (func $f))')
    document = record_document(
        asks,
        "",
        functions=[plugwasm.Function(None, "f", [], [], lambda plugin, args, results: None)],
    )
    (call,) = document["calls"][0]["host_calls"]
    call["effects"] = [{"do": "set_var", "name": "x", "data": {"text": "x"}}] * 400_000
    recording = read(document)
    start = time.monotonic()
    with pytest.raises(ReplayError, match="raised TimeoutError"):
        recording.replay(asks, limits=Limits(timeout=0.05))
    assert time.monotonic() - start < 20


def test_recorded_sleep_takes_no_time() -> None:
    """A recorded sleep of centuries takes no time."""
    wasi = """(module
      (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
      (memory (export "memory") 1)
      (func (export "run")
        (i64.store (i32.const 24) (i64.const {ns}))
        (drop (call $poll (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128)))))"""
    document = record_document(wasi.format(ns=1_000_000), "", wasi=True)
    text = json.dumps(document).replace("for 1000000 ns", f"for {2**63 - 1} ns")
    start = time.monotonic()
    loads(text.encode()).replay(wasi.format(ns=2**63 - 1), limits=Limits(timeout=1))
    assert time.monotonic() - start < 20


# ---- other limits --------------------------------------------------------------------------------


def test_replay_log_rate(caplog: pytest.LogCaptureFixture) -> None:
    """A replay logs no more than a plugin may."""
    recording = read(record_document(LOGS, "", limits=Limits(log_lines_per_second=1)))
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        recording.replay(LOGS, limits=Limits(log_lines_per_second=5))
    assert len(caplog.records) < 200


def test_unnamed_limits_are_of_replayer() -> None:
    """Limits missing in a recording are those of whoever replays."""
    grows = guest(
        export(
            "run",
            "(if (i64.eqz (call $alloc (i64.const 50000000))) (then (unreachable))) (call $echo)",
        )
    )
    recording = read(record_document(grows, "x"))
    recording.replay(grows)
    with pytest.raises(ReplayError, match="ran out of memory"):
        recording.replay(grows, limits=Limits(memory_bytes=2**20))
    with pytest.raises((SourceError, ReplayError), match=r"module_bytes|larger than"):
        recording.replay(grows, limits=Limits(module_bytes=100))


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_kept_calls_equal_recording() -> None:
    """A replay keeps of each call what the recording has, and no more."""
    program = f"""
import json, sys
sys.path[:0] = {sys.path!r}
from tests.support.guests import export, guest
from plugwasm import Limits, Plugin
from plugwasm._recording.recording import loads
from plugwasm.recording import Recorder
source = guest('(func (export "run") (call $var_set <<v>> (call $alloc (i64.const 1000000))))')
recorder = Recorder()
with Plugin(source, observe=recorder, limits=Limits(memory_bytes=2**30)) as plugin:
    plugin.call("run")
document = json.loads(recorder.recording.to_json())
first = document["calls"][0]
document["calls"] += [{{key: value for key, value in first.items() if key != "vars"}}] * 300
recording = loads(json.dumps(document).encode())
def peak(): return int(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0]) * 1024
before = peak()
replayed = recording.replay(source)
assert len(replayed.calls) == 301 and len(replayed.calls[-1].vars["v"]) == 1000000
print(peak() - before)
"""
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False
    )
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) < 100 * 2**20, f"{int(run.stdout) >> 20} MiB"


def test_calls_after_instance_end() -> None:
    """Calls after the end of the instance are refused."""
    traps = b'(module (func (export "run") unreachable))'
    document = record_document(traps, "")
    document["calls"] *= 3
    with pytest.raises(RecordingError, match="its call 2 comes after one that ended the instance"):
        read(document).replay(traps)


# ---- files ---------------------------------------------------------------------------------------


def test_error_hides_recorded_file(tmp_path: Path) -> None:
    """Errors do not show the content of a file that only the recording names."""
    secret = tmp_path / "secret"
    secret.write_text("(root:$6$verysecret$hash)")
    document = record_document(ECHO, "x")
    document["modules"][0]["origin"] = str(secret)
    with pytest.raises(
        RecordingError, match="neither that module nor another one in the binary format"
    ) as caught:
        read(document).replay()
    assert "verysecret" not in str(caught.value)


@pytest.mark.parametrize(
    "origin",
    ["/proc/self/status", "/dev/zero", "/proc/kmsg", "/", "", "\0", "http://127.0.0.1:1/x"],
)
def test_what_is_no_file_is_not_read(origin: str) -> None:
    document = record_document(ECHO, "x")
    document["modules"][0]["origin"] = origin
    with pytest.raises(RecordingError, match="which is no file"):
        read(document).replay()


def test_recorded_text_is_replayed(tmp_path: Path) -> None:
    """A text module is replayed only if it is the recorded text. A binary may differ."""
    source = tmp_path / "plugin.wat"
    source.write_bytes(ECHO if isinstance(ECHO, bytes) else ECHO.encode())
    recording = read(record_document(source, "x"))
    assert recording.replay().calls[0].output == b"x"
    source.write_bytes(source.read_bytes() + b" ")
    with pytest.raises(RecordingError, match="neither"):
        recording.replay()
    from plugwasm._engine import wat_to_wasm

    source.write_bytes(wat_to_wasm(source.read_bytes()))
    assert recording.replay().calls[0].output == b"x"


@pytest.mark.parametrize("change", [{"main": "nothing"}, {"modules": []}])
def test_recording_without_plugin(change: dict[str, Any], tmp_path: Path) -> None:
    """A recording whose modules are no plugin is refused."""
    source = tmp_path / "plugin.wat"
    source.write_bytes(ECHO if isinstance(ECHO, bytes) else ECHO.encode())
    with pytest.raises(
        RecordingError, match="its modules have no names of their own, or none is the main one"
    ):
        read(record_document(source, "x") | change).replay()
