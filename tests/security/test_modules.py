"""Invalid, hostile and arbitrary bytes as modules become a plugin or one of our errors, in
bounded time (`docs/security.md`, 39)."""

from __future__ import annotations

import io
import itertools
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import plugwasm
from plugwasm import (
    Limits,
    ManifestError,
    ModuleError,
    Plugin,
)
from plugwasm._engine import wat_to_wasm
from tests.support.guests import LOOP, MEMORY, export, guest, number
from tests.support.wasm_binary import leb128, section

HEADER = b"\0asm\1\0\0\0"


def one_function(body_size: int) -> bytes:
    """Return a module of one function whose body has so many bytes: no locals, `nop`, `end`."""
    body = b"\0" + b"\1" * (body_size - 2) + b"\x0b"
    return (
        HEADER
        + section(1, b"\1\x60\0\0")
        + section(3, b"\1\0")
        + section(10, b"\1" + leb128(len(body)) + body)
    )


SMALL = guest(
    export("f", "(call $answer (i64.const 42))")
    + export("load", "(drop (i32.load8_u (i32.const 0)))")
    + '(global $g (mut i32) (i32.const 1)) (table 2 funcref) (elem (i32.const 0) $x) (data (i32.const 8) "data") (func $x)'
)


HERE = Limits(compile_seconds=None)
"""Everything is compiled in this process, which is fast, and the harder test: no child process keeps a crash away."""


def runs_or_fails_with_ours(wasm: bytes, limits: Limits = HERE) -> bool:
    """Return whether it is a plugin. Its functions may do anything that ends normally or with
    one of our errors."""
    try:
        plugin = Plugin(
            {"wasm": [{"data": wasm}], "timeout_ms": 100, "memory": {"max_pages": 100}},
            limits=limits,
        )
    except plugwasm.Error as error:
        assert str(error)
        return False
    with plugin:
        for name in ("f", "load", "missing"):
            _try(plugin, name)
    return True


def _try(plugin: Plugin, name: str) -> None:
    try:
        plugin.call(name)
    except plugwasm.Error:
        pass


def section_ends(wasm: bytes) -> set[int]:
    """Return the offsets at which a module could end if further sections were not needed."""
    ends, file = {8}, io.BytesIO(wasm)
    file.seek(8)
    while file.read(1):
        size = shift = 0
        while True:
            byte = file.read(1)[0]
            size |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        ends.add(file.seek(size, io.SEEK_CUR))
    return ends


def test_truncated_anywhere() -> None:
    """A module truncated anywhere is an error."""
    wasm = wat_to_wasm(SMALL.encode())
    ends = section_ends(wasm)
    assert max(ends) == len(wasm)
    for length in range(len(wasm)):
        if runs_or_fails_with_ours(wasm[:length]):
            assert length in ends, "a module may end after a section"
    assert runs_or_fails_with_ours(wasm)
    assert number(Plugin(wasm).call("f")) == 42


def test_flipped_bit() -> None:
    """A module with any bit flipped is a plugin or an error."""
    wasm = wat_to_wasm(
        b'(module (import "extism:host/env" "alloc" (func (param i64) (result i64))) (memory 1) (func (export "f") (drop (call 0 (i64.const 8)))))'
    )
    plugins = 0
    for at, bit in itertools.product(range(len(wasm)), range(8)):
        flipped = bytearray(wasm)
        flipped[at] ^= 1 << bit
        plugins += runs_or_fails_with_ours(bytes(flipped))
    assert 0 < plugins < 8 * len(wasm)


NOT_MODULES: dict[str, bytes] = {
    "nothing": b"",
    "blanks": b" \n\t ",
    "the magic number alone": b"\0asm",
    "another version": b"\0asm\2\0\0\0",
    "a component": b"\0asm\x0d\0\1\0",
    "a component in text": b"(component)",
    "an old version": b"\0asm\x0b\0\0\0",
    "ELF": b"\x7fELF\2\1\1" + bytes(100),
    "PNG": b"\x89PNG\r\n\x1a\n" + bytes(100),
    "gzip": b"\x1f\x8b\x08" + bytes(100),
    "zeros": bytes(1000),
    "all ones": b"\xff" * 1000,
    "text": b"no module at all",
    "HTML": b"<!DOCTYPE html><html></html>",
    "text with an error": b"(module (func (i32.konst 1)))",
    "a script": b'(module) (assert_return (invoke "f"))',
    "two modules": wat_to_wasm(b"(module)") * 2,
    "a module and junk": wat_to_wasm(b"(module)") + b"junk",
    "a section twice": HEADER + section(1, b"\0") * 2,
    "sections in the wrong order": HEADER + section(3, b"\0") + section(1, b"\0"),
    "a section that is longer than the file": HEADER + b"\1\xff\xff\xff\xff\x0f",
    "a length of too many bytes": HEADER + b"\1\x80\x80\x80\x80\x80\x80\x80\x00",
    "four billion types": HEADER + section(1, b"\xff\xff\xff\xff\x0f"),
    "four billion locals": HEADER
    + section(1, b"\1\x60\0\0")
    + section(3, b"\1\0")
    + section(10, b"\1\x08\1\xff\xff\xff\xff\x0f\x7f\x0b"),
    "50,001 locals": HEADER
    + section(1, b"\1\x60\0\0")
    + section(3, b"\1\0")
    + section(10, b"\1\x07\1" + leb128(50_001) + b"\x7f\x0b"),
    "a function of no type": HEADER + section(3, b"\1\0") + section(10, b"\1\2\0\x0b"),
    "an export of nothing": b'(module (export "f" (func 0)))',
    "a shared memory": b"(module (memory 1 2 shared))",
    "1,001 results": b"(module (type (func (result" + b" i32" * 1001 + b"))))",
}


@pytest.mark.parametrize("what", NOT_MODULES)
def test_not_a_module(what: str, tmp_path: Path) -> None:
    """The error for bytes that are no module says so."""
    content = NOT_MODULES[what]
    file = tmp_path / "plugin.wasm"
    file.write_bytes(content)
    for plugin in (
        content,
        bytearray(content),
        file,
        {"wasm": [{"data": content}]},
        {"wasm": [{"path": str(file)}]},
    ):
        with pytest.raises((ModuleError, plugwasm.SourceError, ManifestError)) as caught:
            Plugin(plugin)
        assert 20 < len(str(caught.value)) < 1000


IMPORTS: dict[str, str] = {
    "a function": '(import "somebody" "something" (func))',
    "a memory": '(import "somebody" "something" (memory 1))',
    "a table": '(import "somebody" "something" (table 1 funcref))',
    "a global": '(import "somebody" "something" (global i32))',
    "a function that the kernel does not have": '(import "extism:host/env" "something" (func))',
    "a memory of the kernel": '(import "extism:host/env" "something" (memory 1))',
    "a function of WASI": '(import "wasi_snapshot_preview1" "something" (func))',
    "one of WASI that was not granted": '(import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))',
    "one of its own": '(import "main" "something" (func))',
    "one of no name": '(import "" "something" (func))',
    "one of a strange name": '(import "somebody" "something\\u{1f4a3}\\u{202e}" (func))',
}


@pytest.mark.parametrize("what", IMPORTS)
def test_unknown_import(what: str) -> None:
    """The error for an unknown import names it."""
    for wasm in (
        f"(module {IMPORTS[what]})".encode(),
        wat_to_wasm(f"(module {IMPORTS[what]})".encode()),
    ):
        with pytest.raises(plugwasm.MissingImportError, match=r"something|fd_write"):
            Plugin(wasm)


def test_import_of_other_type() -> None:
    """An import whose type differs from the export's is an error."""
    for module in (
        '(module (import "extism:host/env" "alloc" (func (param i32) (result i64))))',
        '(module (import "extism:host/env" "alloc" (func)))',
        '(module (import "extism:host/env" "alloc" (global i64)))',
        '(module (import "wasi_snapshot_preview1" "fd_write" (func)))',
    ):
        with pytest.raises(plugwasm.LinkError):
            Plugin(module, wasi=True)


MAX_BODY = 7_654_321
"""Bytes that the engine allows for the body of a function."""


def test_function_size_limit() -> None:
    """The size of a function body is limited."""
    assert Plugin(one_function(MAX_BODY)).function_exists("f") is False
    for size in (MAX_BODY + 1, 20_000_000):
        start = time.process_time()
        with pytest.raises(ModuleError):
            Plugin(one_function(size))
        assert time.process_time() - start < 10


def test_hundred_megabyte_function(tmp_path: Path) -> None:
    """A function of a hundred megabytes is refused quickly."""
    wasm = one_function(100_000_000)
    file = tmp_path / "plugin.wasm"
    file.write_bytes(wasm)
    for plugin in (wasm, file):
        start = time.process_time()
        with pytest.raises((ModuleError, plugwasm.SourceError)) as caught:
            Plugin(plugin)
        assert time.process_time() - start < 10
        assert len(str(caught.value)) < 1000


PARTS = [
    wat_to_wasm(text.encode())
    for text in (SMALL, "(module)", f'(module {MEMORY} (func (export "f") {LOOP}))')
]


def padded_module(wasm: bytes, size: int) -> bytes:
    """Return the module with a custom section that brings it to this size."""
    for padding in range(size - len(wasm) - 12, size):
        padded = wasm + section(0, b"\1x" + bytes(max(padding, 0)))
        if len(padded) == size:
            return padded
    raise AssertionError("this size cannot be had")


@pytest.mark.parametrize("kind", ["binary", "text", "file", "manifest"])
def test_module_size_limit(kind: str, tmp_path: Path) -> None:
    """The size of a module is limited."""
    content = b'(module (func (export "f"))) ;; text'.ljust(200)
    if kind != "text":
        content = padded_module(wat_to_wasm(b'(module (func (export "f")))'), 200)
    (tmp_path / "plugin.wasm").write_bytes(content)
    forms: dict[str, Any] = {
        "file": tmp_path / "plugin.wasm",
        "manifest": {"wasm": [{"data": content}]},
    }
    plugin = forms.get(kind, content)
    assert Plugin(plugin, limits=Limits(module_bytes=200)).call("f") == b""
    with pytest.raises((ModuleError, plugwasm.SourceError), match="199"):
        Plugin(plugin, limits=Limits(module_bytes=199))


def module_of(types: list[bytes], functions: list[tuple[int, bytes]]) -> bytes:
    """Return a module of functions, each given by its type's number and its body with locals."""
    bodies = b"".join(leb128(len(body)) + body for _, body in functions)
    declared = b"".join(leb128(type) for type, _ in functions)
    return (
        HEADER
        + section(1, leb128(len(types)) + b"".join(types))
        + section(3, leb128(len(functions)) + declared)
        + section(10, leb128(len(functions)) + bodies)
    )


def wide_calls(calls: int) -> bytes:
    """Return functions with calls of two bytes that each pass two thousand values."""
    wide = b"\xe8\7" + b"\x7e" * 1000
    types = [b"\x60\0" + wide, b"\x60" + wide + b"\0", b"\x60\0\0"]
    trap = b"\0\0\x0b"
    return module_of(types, [(0, trap), (1, trap), (2, b"\0" + b"\x10\0\x10\1" * calls + b"\x0b")])


def nested_loops(depth: int) -> bytes:
    return module_of(
        [b"\x60\0\0"],
        [(0, b"\1\1\x7f" + b"\3\x40" * depth + b"\x20\0\x0d\0\x0b" * depth + b"\x0b")],
    )


def many_locals(functions: int) -> bytes:
    """Return functions of eight bytes with fifty thousand locals each."""
    return module_of([b"\x60\0\0"], [(0, b"\1\xd0\x86\3\x7e\x0b")] * functions)


def growing_module(times: int) -> bytes:
    body = b"\0\x41\0" + b"\x40\0" * times + b"\x1a\x0b"
    whole = module_of([b"\x60\0\0"], [(0, body)])
    code = whole.index(b"\x0a", whole.index(b"\3\2\1\0"))
    return whole[:code] + section(5, b"\1\0\1") + whole[code:]


BOMBS: dict[str, tuple[Callable[[int], bytes], int, int]] = {
    "calls of many values": (wide_calls, 600, 2),
    "nested loops": (nested_loops, 9000, 700),
    "locals": (many_locals, 20_000, 50),
    "memory.grow": (growing_module, 30_000, 2100),
}
"""Modules that take the compiler several seconds, and such that do not: how they are made, of what number."""


@pytest.mark.parametrize("bomb", BOMBS)
def test_compile_time_limit(bomb: str) -> None:
    """Compilation ends at the time limit."""
    make, many, few = BOMBS[bomb]
    assert len(make(many)) < 200_000
    before = set(child_processes())
    start = time.monotonic()
    with pytest.raises(ModuleError, match="compile_seconds"):
        Plugin(make(many), limits=Limits(compile_seconds=0.3))
    assert time.monotonic() - start < 10
    assert not set(child_processes()) - before, "nothing goes on compiling"
    Plugin(make(few), limits=Limits(compile_seconds=60)).close()


def child_processes() -> list[str]:
    children = Path(f"/proc/self/task/{threading.get_native_id()}/children")
    return children.read_text().split() if children.exists() else []


def test_compile_memory_limit() -> None:
    """Compilation ends at the memory limit.

    It runs in a separate process, since the compiler ends its process when it gets no memory.
    """
    bomb = wide_calls(600)
    with pytest.raises(ModuleError, match="compile_bytes"):
        Plugin(bomb, limits=Limits(compile_bytes=2**27))
    Plugin(wide_calls(2), limits=Limits(compile_bytes=2**28)).close()


LYING: dict[str, bytes] = {
    "a section length that never ends": HEADER + b"\1" + b"\xff" * 1_000_000 + b"\0",
    "a short one that never ends": HEADER + b"\1" + b"\xff" * 60_000 + b"\0",
    "four billion functions": HEADER
    + b"\x0a\6\xff\xff\xff\xff\x0f\0"
    + section(0, bytes(10_000_000)),
    "four billion groups of locals": HEADER
    + b"\x0a\x08\1\6\xff\xff\xff\xff\x0f\0"
    + section(0, bytes(10_000_000)),
    "four billion types": HEADER + b"\1\x08\xff\xff\xff\xff\x0f\x60\0\0" + b"\x60\0\0" * 3_000_000,
    "locals in front of what is broken": module_of(
        [b"\x60\0\0"], [(0, b"\1\xd0\x86\3\x7e\x0b")] * 450 + [(0, b"\xff\xff\3")]
    ),
}


@pytest.mark.parametrize("lie", LYING)
def test_false_claims_cost_no_time(lie: str) -> None:
    """False sizes and counts in an invalid module cost this process no time."""
    start = time.process_time()
    with pytest.raises(ModuleError):
        Plugin(LYING[lie])
    assert time.process_time() - start < 0.5


def test_empty_sections_cost_no_time() -> None:
    """Millions of empty sections cost this process no time."""
    start = time.process_time()
    Plugin(HEADER + b"\0\1\0" * 500_000).close()
    assert time.process_time() - start < 0.5


@st.composite
def mutate(draw: st.DrawFn) -> bytes:
    """Return a module with pieces replaced, repeated, dropped or moved."""
    wasm = bytearray(draw(st.sampled_from(PARTS)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(8, len(wasm)))
        end = draw(st.integers(at, min(len(wasm), at + 40)))
        piece = draw(
            st.one_of(
                st.binary(max_size=8),
                st.just(bytes(wasm[at:end]) * 2),
                st.just(b""),
                st.just(b"\xff\xff\xff\xff\x0f"),
            )
        )
        wasm[at:end] = piece
    return bytes(wasm)


@given(wasm=st.one_of(mutate(), st.binary(max_size=200).map(lambda junk: HEADER + junk)))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_random_bytes(wasm: bytes) -> None:
    """Arbitrary bytes are a plugin or one of our errors."""
    runs_or_fails_with_ours(wasm)


def test_deeply_nested_text() -> None:
    """Text nested to any depth is a plugin or an error."""
    for text in (
        "(" * 100_000,
        "(module " + "(" * 100_000,
        "(module (func " + "(block " * 30_000 + ")" * 30_000 + "))",
        "(module (func " + "block " * 30_000 + "end " * 30_000 + "))",
        "(module " + "(;" * 200_000 + ";)" * 200_000 + ")",
        '(module (func (export "' + "\\u{41}" * 150_000 + '")))',
    ):
        runs_or_fails_with_ours(text.encode())


def error_of(plugin: Any) -> plugwasm.Error:
    with pytest.raises(plugwasm.Error) as caught:
        Plugin(plugin)
    return caught.value


NASTY = "\x1b[2J\r\n" + "x" * 50_000
ESCAPED = NASTY.replace("\x1b", "\\1b").replace("\r", "\\0d").replace("\n", "\\0a")
TALKATIVE: dict[str, bytes] = {
    "the namespace of an import": wat_to_wasm(f'(module (import "{ESCAPED}" "b" (func)))'.encode()),
    "the name of an import": wat_to_wasm(f'(module (import "a" "{ESCAPED}" (func)))'.encode()),
    "the name of an import of the kernel": wat_to_wasm(
        f'(module (import "extism:host/env" "{ESCAPED}" (func)))'.encode()
    ),
    "the type of an import": b'(module (import "a" "b" (func (param' + b" i64" * 900 + b"))))",
    "the type of an import of the kernel": b'(module (import "extism:host/env" "alloc" (func (param'
    + b" i64" * 900
    + b"))))",
    "the type of an initialiser": b'(module (func (export "_initialize") (param'
    + b" i64" * 900
    + b")))",
    "a name that is exported twice": HEADER
    + section(1, b"\1\x60\0\0")
    + section(3, b"\1\0")
    + section(7, b"\2" + (leb128(len(NASTY)) + NASTY.encode() + b"\0\0") * 2)
    + section(10, b"\1\2\0\x0b"),
    "a line of text": f"(module (func (i32.{'x' * 50_000})))".encode(),
    "a line of text with control characters": b'(module (func (export "\x1b[2J'
    + b"x" * 50_000
    + b'" oops)))',
}


@pytest.mark.parametrize("what", TALKATIVE)
def test_error_quotes_are_short(what: str) -> None:
    """An error's quotes from a module are short and printable.

    Otherwise a module could fill the host's log or send control sequences to a terminal.
    """
    with pytest.raises(plugwasm.Error) as caught:
        Plugin(TALKATIVE[what])
    message = str(caught.value)
    assert len(message) < 10_000
    assert not [
        character for character in message if not (character.isprintable() or character == "\n")
    ]
