"""Hostile debug information is read in bounded time and memory."""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("elftools")
UNIT_WITH_RANGE = b"\x01\x11\x01\x11\x01\x12\x06\x00\x00"  # low_pc, high_pc as a length
UNIT_WITH_LINES = b"\x01\x11\x00\x10\x17\x11\x01\x12\x06\x00\x00"


def leb(number: int) -> bytes:
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def module(**sections: bytes) -> bytes:
    found = b"\0asm\1\0\0\0" + b"\x0a\x04\x01\x02\x00\x0b"
    for name, content in sections.items():
        text = f".{name}".encode()
        body = leb(len(text)) + text + content
        found += b"\0" + leb(len(body)) + body
    return found


def unit(entries: bytes, abbreviations: int = 0) -> bytes:
    body = struct.pack("<HIB", 4, abbreviations, 4) + entries
    return struct.pack("<I", len(body)) + body


def at(i: int) -> bytes:
    return struct.pack("<II", i * 100, 100)


def repeated_abbreviations() -> bytes:
    one = b"\x01\x11\x00\x00\x00"
    return module(
        debug_info=b"".join(unit(b"\x01", len(one) * i) for i in range(20_000)),
        debug_abbrev=one * 300_000 + b"\0",
    )


def lines(size: int = 2**20 - 200, units: int = 20) -> bytes:
    head = (
        struct.pack("<BBBbBB", 1, 1, 1, -5, 14, 13)
        + bytes([0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1])
        + b"\0a\0\0\0\0\0"
    )
    body = struct.pack("<HI", 4, len(head)) + head + b"\x21" * size
    info = b"".join(unit(b"\x01" + struct.pack("<I", 0) + at(i)) for i in range(units))
    return module(
        debug_info=info,
        debug_abbrev=UNIT_WITH_LINES + b"\0",
        debug_line=struct.pack("<I", len(body)) + body,
    )


def many_entries() -> bytes:
    abbreviations = UNIT_WITH_RANGE + b"\x02\x2e\x00\x03\x08\x00\x00\x00"
    return module(
        debug_info=b"".join(
            unit(b"\x01" + at(i) + b"\x02ab\0" * 200_000 + b"\0") for i in range(20)
        ),
        debug_abbrev=abbreviations,
    )


def nested_names() -> bytes:
    abbreviations = (
        UNIT_WITH_RANGE + b"\x02\x39\x01\x03\x08\x00\x00\x00"
    )  # namespaces, each in the one before
    return module(
        debug_info=unit(b"\x01" + at(0) + b"\x02ab\0" * 190_000), debug_abbrev=abbreviations
    )


def long_names() -> bytes:
    abbreviations = (
        UNIT_WITH_RANGE + b"\x02\x2e\x00\x03\x0e\x00\x00\x00"
    )  # functions that are called by one text of a megabyte
    entries = b"\x01" + at(0) + (b"\x02" + bytes(4)) * 190_000 + b"\0"
    return module(
        debug_info=unit(entries), debug_abbrev=abbreviations, debug_str=b"x" * 2**20 + b"\0"
    )


def functions_of_a_long_scope() -> bytes:
    abbreviations = (
        UNIT_WITH_RANGE + b"\x02\x39\x01\x03\x08\x00\x00" + b"\x03\x2e\x00\x03\x08\x00\x00\x00"
    )
    entries = b"\x01" + at(0) + b"\x02" + b"x" * 2**20 + b"\0" + b"\x03a\0" * 190_000 + b"\0\0"
    return module(debug_info=unit(entries), debug_abbrev=abbreviations)


BOMBS = [
    repeated_abbreviations,
    lines,
    many_entries,
    nested_names,
    long_names,
    functions_of_a_long_scope,
]
READS = """
import sys, time
sys.path[:0] = {paths!r}
from plugwasm._debugging.code_map import CodeMap
from plugwasm._debugging.dwarf import SourceLines
import elftools.dwarf.dwarfinfo, elftools.dwarf.lineprogram
wasm = open({path!r}, "rb").read()
def peak(): return int(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0]) * 1024
before = peak()
start = time.process_time()
lines = SourceLines(CodeMap(wasm))
for i in range(20):
    lines.locate(50 + 100 * i)
print(time.process_time() - start, peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured there")
@pytest.mark.parametrize("bomb", BOMBS, ids=lambda bomb: bomb.__name__)
def test_backtrace_is_bounded(bomb: Callable[[], bytes], tmp_path: Path) -> None:
    """A backtrace of twenty frames takes bounded time and memory."""
    path = tmp_path / "module.wasm"
    path.write_bytes(bomb())
    program = READS.format(paths=sys.path, path=str(path))
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=False
    )
    assert run.returncode == 0, run.stderr
    seconds, grown = map(float, run.stdout.split())
    assert seconds < 40
    assert grown < 400 * 2**20, f"{grown / 2**20:.0f} MiB"


def test_names_without_function_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of functions that do not exist are dropped."""
    from plugwasm._debugging import code_map

    entries = b"".join(leb(i) + b"\x01" + bytes([97 + i % 26]) for i in range(1000))
    names = b"\x01" + leb(len(entries) + 2) + leb(1000) + entries
    text = leb(4) + b"name"
    wasm = b"\0asm\1\0\0\0" + b"\x0a\x04\x01\x02\x00\x0b"
    wasm += b"\0" + leb(len(text + names * 3)) + text + names * 3
    assert code_map.CodeMap(wasm)._names == {0: "a"}
    monkeypatch.setattr(code_map, "MAX_NAMES", 0)
    assert code_map.CodeMap(wasm)._names == {}


def test_lookup_within_bounds() -> None:
    """Debug information within the bounds is found."""
    from plugwasm._debugging.code_map import CodeMap
    from plugwasm._debugging.dwarf import SourceLines

    (location,) = SourceLines(CodeMap(lines(size=200, units=1))).locate(50)
    assert (location.file, location.line) == ("a", 51)
