"""Anything that a worker sends becomes a result or a plugwasm error of bounded size.

The application keeps none of its descriptors. The worker is a socket pair in this process that
holds everything that it will ever send: real conversations with wrong bytes, messages that are left
out, doubled or exchanged, and wrong lengths. The application's side is the real one.
"""

from __future__ import annotations

import logging
import os
import socket
import struct
from typing import Any
from unittest import mock

import plugwasm
from plugwasm._host.env import FUNCTIONS
from plugwasm._isolation import process
from plugwasm._isolation import protocol as m

from .choices import Choices

COVERED = [
    "plugwasm._isolation.framing",
    "plugwasm._isolation.protocol",
    "plugwasm._isolation.process",
    "plugwasm._isolation.remote_guest",
    "plugwasm._isolation.plugin",
    "plugwasm._isolation.startup",
    "plugwasm._isolation.worker_errors",
]
SIZES = (3, 9)
MOST_SAID = 100_000
"""Bytes that a socket pair holds before anybody reads."""
MOST_TEXT = 2 * MOST_SAID
logging.getLogger("plugwasm.plugin").addHandler(
    logging.NullHandler()
)  # what the workers say that plugins log

_EXPORTS = [m.ItemType("", "f", "function", [], []), m.ItemType("", "memory", "memory", None, None)]
_START = [m.Confined(["seccomp"]), m.Loaded(_EXPORTS, [], 2)]
_NUMBERS = {name: number for number, name in enumerate(FUNCTIONS)}
_OWN = len(FUNCTIONS)
_DONE = m.Done(1, memoryview(b"done"), 5, True)
_FIELDS: dict[str, Any] = {
    "message": "trapped",
    "backtrace": ["a @ 0x1", "b"],
    "trap": "unreachable",
    "code": 3,
    "guest_message": None,
}
_CONVERSATIONS: list[list[m.Message]] = [
    [*_START, m.Line(True, b"a line", 0), _DONE, m.Done(2, memoryview(b"again"), None, True)],
    [*_START, m.HostCall(_NUMBERS["var_set"], [32, 64], [b"name", b"value"]), _DONE],
    [*_START, m.HostCall(_NUMBERS["config_get"], [32], [b"key"]), m.NoRoom(7)],
    [*_START, m.HostCall(_NUMBERS["log_warn"], [32], [70_000]), m.Answer(0, b"x" * 70_000), _DONE],
    [
        *_START,
        m.HostCall(_OWN, [32], [5]),
        m.Answer(0, b"block"),
        m.Answer(96, None),
        m.Answer(128, None),
        m.Answer(0, None),
        _DONE,
    ],
    [*_START, m.HostCall(_OWN, [32], [None]), m.NotNow()],
    [
        *_START,
        m.Failed(1, "TrapError", _FIELDS, None, False),
        m.Done(2, memoryview(b""), None, True),
    ],
    [m.Confined([]), m.Failed(0, "ModuleError", {"message": "no module"}, None, False)],
]
_TOKENS = (
    *(
        b"\xdd\x05\xf5\xe1\x00",
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\xc1",
        b"\xc0",
        b"\xc3",
    ),
    *(
        b"\x90",
        b"\x9f",
        b"\x80",
        b"\xa0",
        b"\xff",
        b"\xcf" + b"\xff" * 8,
        b"\xd3\x80" + bytes(7),
        b"\xcb\x7f\xf8" + bytes(6),
        b"\x91" * 500,
    ),
    *(b"\xa9__class__", b"\xa4args", b"\xd4\x00\x00", b"\xc7\x00\x01"),
)
SEEDS = [
    bytes([kind]) + bytes((seed * step) % 256 for step in range(30))
    for kind in range(len(_CONVERSATIONS))
    for seed in (0, 3, 7)
]


@plugwasm.host_fn("own")
def _own(plugin: plugwasm.CurrentPlugin, block: int) -> int:
    """Do everything with the guest's memory that can be done."""
    if len(plugin.memory_at_offset(block)):
        plugin.memory(plugin.memory_at_offset(block))[:1] = b"X"
    made = plugin.alloc(3)
    plugin.free(plugin.alloc(4))
    return made.offset


class _Ended:
    """Stands for the process of a worker (`Child`) that has ended."""

    pid = 0

    def __init__(self, process: None, *, leads: bool) -> None:
        pass

    def is_unreaped(self) -> bool:
        return False

    def wait(self, seconds: float | None = None) -> int:
        return 0

    def kill(self) -> None:
        pass

    def forget(self) -> None:
        pass


def check(data: bytes) -> None:
    before = set(os.listdir("/dev/fd"))
    _converse(build(data))
    assert set(os.listdir("/dev/fd")) <= before, (
        "a descriptor was left open"
    )  # an older one may have been garbage, and closed meanwhile


def _converse(said: bytes) -> None:
    ends: list[socket.socket] = []

    def start(python: str, sock: int, control: int, stderr: int) -> None:
        worker = socket.socket(fileno=os.dup(sock))
        ends.append(worker)
        worker.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * MOST_SAID)
        worker.sendall(said)
        worker.shutdown(socket.SHUT_WR)

    limits = plugwasm.Limits(memory_bytes=2**20, timeout=5)
    with (
        mock.patch.object(process, "_start", start),
        mock.patch.object(process, "ChildProcess", _Ended),
    ):
        try:
            with plugwasm.IsolatedPlugin(
                _MODULE, functions=[_own], config={"key": "value"}, limits=limits
            ) as plugin:
                for _ in range(2):
                    _call(plugin)
        except plugwasm.Error as error:
            _check_error(error)
        finally:
            for worker in ends:
                worker.close()


_MODULE = b'(module (func (export "f")))'


def _call(plugin: plugwasm.IsolatedPlugin) -> None:
    try:
        output = plugin.call("f", b"input")
    except plugwasm.Error as error:
        _check_error(error)
    else:
        assert type(output) is bytes
        assert len(output) <= MOST_SAID


def _check_error(error: plugwasm.Error) -> None:
    """Check that the fields have their types, and that the error is no larger than what was
    sent."""
    assert isinstance(error.message, str)
    assert isinstance(error.backtrace, tuple)
    assert error.code is None or type(error.code) is int
    assert set(vars(error)) == set(vars(type(error)()))
    assert len(error.backtrace) <= m.MAX_FRAMES
    assert len(str(error)) < MOST_TEXT, f"an error of {len(str(error))} characters"


def describe(data: bytes) -> str:
    said = build(data)
    found, at = [], 0
    while at + 4 <= len(said):
        (length,) = struct.unpack_from(">I", said, at)
        found.append(f"{length}: {said[at + 4 : at + 4 + length][:200]!r}")
        at += 4 + length
    return "\n".join(found)


def build(data: bytes) -> bytes:
    """Return everything that the worker sends."""
    choices = Choices(data)
    messages = [
        m.encoder.encode(message)
        for message in _CONVERSATIONS[choices.byte() % len(_CONVERSATIONS)]
    ]
    said = b""
    for message in messages:
        match choices.below(8):
            case 1:
                message = choices.splice(message, _TOKENS)
            case 2:
                continue
            case 3:
                said += _frame(message)
            case 4:
                message = choices.pick(messages)
            case 5:
                said += (
                    struct.pack(
                        ">I", choices.pick((0, 1, 2**16, 2**20, 2**21, 2**32 - 1, len(message) + 1))
                    )
                    + message
                )
                continue
            case 6:
                message = m.encoder.encode(choices.pick(choices.pick(_CONVERSATIONS)))
        said += _frame(message)
    if choices.rarely(8):
        said = choices.splice(said, _TOKENS)
    return said[:MOST_SAID]


def _frame(message: bytes) -> bytes:
    return struct.pack(">I", len(message)) + message
