"""Isolated plugins whose worker process runs a hostile program instead of ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from plugwasm._isolation import process
from tests.support.guests import export, guest

SIMPLE = guest(export("f", "(call $echo)"))

PROLOGUE = """
import os, signal, socket, sys, time
sys.path += sys.argv[3:]
from plugwasm._isolation import protocol as m
s = socket.socket(fileno=int(sys.argv[1]))
def head(size): s.sendall(size.to_bytes(4, "big"))
def raw(*parts):
    head(sum(map(len, parts)))
    for part in parts: s.sendall(part)
def zeros(size):
    while size > 0:
        s.sendall(bytes(min(size, 2**20))); size -= 2**20
def say(*messages):
    for message in messages: raw(m.encoder.encode(message))
def hear(): return s.recv(int.from_bytes(s.recv(4, socket.MSG_WAITALL), "big"), socket.MSG_WAITALL)
def array(size): return b"\\xdd" + size.to_bytes(4, "big")
def start():
    hear(); hear()
    say(m.Confined(["nothing"]), m.Loaded([m.ItemType("", "f", "function", [], [])], [], 2))
def forever():
    while True: time.sleep(1)
"""
"""Connects a worker's program to its application, and has what messages are made with."""


@contextmanager
def worker_runs(monkeypatch: pytest.MonkeyPatch, program: str) -> Iterator[None]:
    """Make the workers started inside this block run another program."""
    with monkeypatch.context() as patch:
        patch.setattr(process, "_PROGRAM", f"{PROLOGUE}\n{program}\n")
        yield
