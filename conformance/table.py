"""The table of cases, read from `cases.json`."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

FILE = Path(__file__).with_name("cases.json")

FEATURES = frozenset(("json", "http", "http_headers", "exit", "floats", "log_trace"))
"""What a case may need, and an implementation may lack."""

Data = Any
"""See "The table" in README.md."""


class Failure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a failed call reports, as far as it is said."""

    code: int | None = None
    message: str | None = None
    exit: int | None = None


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A call, and what it must give."""

    function: str
    input: Data = msgspec.field(default_factory=lambda: {"text": ""})
    output: Data = None
    error: Failure | None = None


class Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A plugin and the calls of it."""

    name: str
    steps: tuple[Step, ...]
    needs: frozenset[str] = frozenset()
    config: dict[str, str] = {}
    vars: dict[str, str] = {}
    allowed_hosts: tuple[str, ...] = ()
    max_pages: int | None = None
    log_level: str | None = None
    logs: tuple[tuple[str, str], ...] = ()
    calls: tuple[str, ...] = ()

    @property
    def subject(self) -> str:
        """What the case is about: the beginning of its name."""
        before, colon, _ = self.name.partition(":")
        return before if colon else self.name.partition(" ")[0]


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: int
    cases: tuple[Case, ...]


@cache
def read_cases() -> tuple[Case, ...]:
    """Return all cases."""
    table = msgspec.json.decode(FILE.read_bytes(), type=Table)
    assert table.version == 1
    assert all(case.needs <= FEATURES for case in table.cases)
    return table.cases


def to_bytes(data: Data, server: str) -> bytes:
    """Return the bytes that an input or an output stands for."""
    if isinstance(data, list):
        return b"".join(to_bytes(part, server) for part in data)
    (kind, value), *more = data.items()
    if kind == "text":
        return str(value).replace("{server}", server).encode()
    if kind == "hex":
        return bytes.fromhex(value)
    if kind == "json":
        return json.dumps(value).encode()
    if kind == "pattern":
        return _pattern(value)
    if kind == "repeat":
        return str(value).encode() * int(more[0][1])
    raise ValueError(f"data of an unknown kind: {data!r:.80}")


@cache
def _pattern(size: int) -> bytes:
    period = bytes((31 * i + (i >> 8)) & 255 for i in range(65536))
    return (period * (size // len(period) + 1))[:size]


def is_output(output: bytes, expected: Data, server: str) -> bool:
    """Return whether an output is what the table says."""
    if isinstance(expected, dict) and "json" in expected:
        try:
            return bool(json.loads(output) == expected["json"])
        except ValueError:
            return False
    return output == to_bytes(expected, server)
