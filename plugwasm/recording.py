"""Recordings: the calls of a plugin with all answers of the host, to be replayed offline as tests.

    recorder = plugwasm.recording.Recorder()
    with plugwasm.Plugin("report.wasm", functions=[...], observe=recorder) as plugin:
        plugin.call("report", "2026")
    recorder.recording.save("report.json")

    def test_report():
        plugwasm.recording.load("report.json").replay("report.wasm")

A recording holds all data that passed: config, inputs, outputs, answers. Keep it as secret as
those.
"""

from ._recording.recorder import Recorder
from ._recording.recording import Recording, load
from ._recording.replay import Replay, ReplayedCall
from ._recording.schema import (
    Alloc,
    Call,
    Data,
    Failure,
    Free,
    HostCall,
    HttpStatus,
    Put,
    RecordedModule,
    SetError,
    SetVar,
    Value,
    Write,
)
from .errors import RecordingError, ReplayError

__all__ = [
    "Alloc",
    "Call",
    "Data",
    "Failure",
    "Free",
    "HostCall",
    "HttpStatus",
    "Put",
    "RecordedModule",
    "Recorder",
    "Recording",
    "RecordingError",
    "Replay",
    "ReplayError",
    "ReplayedCall",
    "SetError",
    "SetVar",
    "Value",
    "Write",
    "load",
]
