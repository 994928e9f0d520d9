"""Any bytes, compiled and called, give a result or a plugwasm error within the deadline.

The bytes are modules with errors: parts that are flipped, cut, moved or doubled, wrong sizes; and
text with other words.
"""

from __future__ import annotations

import contextlib
import functools

import plugwasm
from plugwasm._engine import wat_to_wasm
from plugwasm.errors import EngineError

from . import ROOT
from .choices import Choices

COVERED: list[str] = []
SIZES = (1, 8)
TIMEOUT_MS = 100
MAX_PAGES = 64
FUEL = 1_000_000

TEXTS = (
    '(module (func (export "run")))',
    """(module (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
      (import "extism:host/env" "output_set" (func $output_set (param i64 i64)))
      (memory (export "memory") 1 3)
      (table 4 funcref) (elem (i32.const 0) $f) (global $g (mut i32) (i32.const 7))
      (data (i32.const 8) "data\\00\\ff")
      (func $f (export "run") (result i32)
        (call $output_set (call $alloc (i64.const 8)) (i64.const 8)) (global.get $g)))""",
    """(module (memory 1) (memory $m 2 4) (memory (export "m") 0 65536) (table 10 100 externref)
      (func (export "run") (drop (memory.grow (i32.const 1))) (drop (memory.grow $m (i32.const 3)))
        (memory.fill (i32.const 0) (i32.const 1) (i32.const 100))))""",
    """(module (type $t (func (param i32) (result i32))) (start $s)
      (func $s (drop (call $fac (i32.const 5))))
      (func $fac (type $t) (if (result i32) (local.get 0)
        (then (i32.mul (local.get 0) (call $fac (i32.sub (local.get 0) (i32.const 1)))))
        (else (i32.const 1))))
      (func (export "run") (loop $l (br $l)))
      (func (export "deep") (result i32) (call $fac (i32.const -1))))""",
    """(module (func (export "_initialize")) (func (export "hs_init") (param i32 i32))
      (func (export "_start"))
      (func (export "__wasm_call_ctors")) (func (export "traps") unreachable)
      (func (export "divides") (result i32) (i32.div_s (i32.const 1) (i32.const 0))))""",
    """(module
      (import "wasi_snapshot_preview1" "fd_write"
        (func $w (param i32 i32 i32 i32) (result i32)))
      (import "wasi_snapshot_preview1" "proc_exit" (func $x (param i32)))
      (memory (export "memory") 1)
      (data (i32.const 0) "\\08\\00\\00\\00\\03\\00\\00\\00hi\\n")
      (func (export "run")
        (drop (call $w (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 32))))
      (func (export "exit") (call $x (i32.const 3))))""",
    """(module (func $v (result v128) (v128.const i64x2 1 2))
      (func (export "run") (result i32) (i32x4.extract_lane 0 (call $v)))
      (func (export "many") (result i32 i64) (i32.const 1) (i64.const 2))
      (func (export "takes") (param f32 f64 externref)) (export "\\00\\c3\\a9" (func $v)))""",
)
_FILES = ("echo", "count_vowels", "host_functions", "http_get", "bench_wasi", "wasi_files")
_HEAD = b"\0asm\1\0\0\0"
_TOKENS = (
    *(
        b"\0",
        b"\1",
        b"\x7f",
        b"\xff\x7f",
        b"\x80\x80\x04",
        b"\xff\xff\xff\xff\x0f",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x80" * 6,
    ),
    *(bytes([section, 1, 0]) for section in range(14)),
    *(
        b"\x05\x04\x01\x01\x01\x01",
        b"\x05\x03\x01\x04\xff",
        b"\x05\x06\x01\x00\x80\x80\x80\x04",
        b"\x08\x01\x00",
        b"\x00\x05\x04name\x00",
    ),
    *(
        b"\x04run\x00",
        b"memory",
        b"\x00\x0b",
        b"\x03\x40\x0c\x00\x0b",
        b"\x40\x00",
        b"\xfc\x0f\x00",
        b"\xfd\x0c",
        _HEAD,
        b"\0asm\x0d\0\1\0",
    ),
)
_WORDS = tuple(
    b"( ) (module (func (param i64) (result i32) (memory 65536) (memory i64 1) "
    b'(table 1000000000 funcref) unreachable (export "run") (import "extism:host/env" "alloc" '
    b'(func (param i64) (result i64))) (import "a" "b" (global i32)) (start 0) (loop (br 0)) '
    b'v128 externref 0xffffffff -1 nan:0x1 $f ;; (; " \\ \xff (global (mut i64) (call $f) '
    b"(local.get 0) (i32.const 1) (drop (memory.grow (component) (rec) (type (struct)) "
    b'(tag (param i32)) (data "x") (elem) (if (then)) br_table call_indirect shared'.split(b" ")
)
_RANDOM, _BODY, _EDITED, _SECTIONS, _TEXT = range(5)
SEEDS = [
    *(bytes([_EDITED, index]) for index in (*range(len(TEXTS)), *range(7, 8 * len(_FILES), 8))),
    *(bytes([_TEXT, index]) for index in range(len(TEXTS))),
    *(bytes([_SECTIONS, index, 1, 2, 3, 4]) for index in range(len(TEXTS) + 2)),
    bytes([_BODY]) + b"\1\4\1\x60\0\0\3\2\1\0\7\7\1\3run\0\0\n\4\1\2\0\x0b",
    bytes([_RANDOM]),
]


@functools.cache
def originals() -> tuple[bytes, ...]:
    texts = tuple(wat_to_wasm(text.encode()) for text in TEXTS)
    return texts + tuple((ROOT / "examples" / f"{name}.wasm").read_bytes() for name in _FILES)


def check(data: bytes) -> None:
    wasm, wasi, fuel = build(data)
    manifest = {
        "wasm": [{"data": wasm}],
        "timeout_ms": TIMEOUT_MS,
        "memory": {"max_pages": MAX_PAGES},
    }
    try:
        compiled = plugwasm.CompiledPlugin(
            manifest, wasi=wasi, functions=(), fuel_limit=FUEL if fuel else None
        )
    except EngineError:
        raise
    except plugwasm.Error as error:
        assert str(error)
        return
    assert repr((compiled.exports, compiled.imports))
    plugin = plugwasm.Plugin(compiled)
    callable_ = [item.name for item in compiled.exports if plugin.function_exists(item.name)]
    for name in [*callable_[:4], *(item.name for item in compiled.exports[:2]), "no such export"]:
        with contextlib.suppress(plugwasm.Error):
            output = plugin.call(name, b"input")
            assert type(output) is bytes
            assert name in callable_
    plugin.close()


def describe(data: bytes) -> str:
    wasm, wasi, fuel = build(data)
    shown = (
        wasm.decode("utf-8", "backslashreplace")
        if data[:1] and data[0] % 5 == _TEXT
        else wasm.hex()
    )
    return f"wasi={wasi}, {'fuel' if fuel else 'no fuel limit'}, {len(wasm)} bytes:\n{shown}"


def build(data: bytes) -> tuple[bytes, bool, bool]:
    """Return the module, whether it has WASI, and whether its fuel is limited."""
    choices = Choices(data)
    kind, which = choices.byte() % 5, choices.byte()
    if kind == _RANDOM:
        return choices.rest(), False, False
    if kind == _BODY:
        return _HEAD + choices.rest(), False, False
    if kind == _TEXT:
        return (
            (
                choices.splice(TEXTS[which % len(TEXTS)].encode(), _WORDS)
                if choices
                else TEXTS[which % len(TEXTS)].encode()
            ),
            True,
            True,
        )
    # Small ones are mutated more often: more of their bytes matter.
    small = which % 8 != 7
    original = (
        originals()[which % len(TEXTS)]
        if small
        else originals()[len(TEXTS) + which // 8 % len(_FILES)]
    )
    wasi, fuel = not choices.rarely(4), choices.rarely(2)
    if kind == _SECTIONS:
        original = _shuffle_sections(original, choices)
    return (choices.splice(original, _TOKENS) if choices else original), wasi, fuel


def _shuffle_sections(wasm: bytes, choices: Choices) -> bytes:
    """Return the module with sections moved, doubled or dropped, and sizes that still fit."""
    sections, at = [], len(_HEAD)
    while at < len(wasm):
        size, shift, start = 0, 0, at + 1
        while True:
            size |= (wasm[start] & 0x7F) << shift
            shift, start = shift + 7, start + 1
            if wasm[start - 1] < 0x80:
                break
        sections.append(wasm[at : start + size])
        at = start + size
    for _ in range(1 + choices.below(3)):
        index = choices.below(len(sections))
        match choices.below(3):
            case 0:
                sections.insert(choices.below(len(sections)), sections.pop(index))
            case 1:
                sections.insert(choices.below(len(sections)), sections[index])
            case _ if len(sections) > 1:
                del sections[index]
    return wasm[: len(_HEAD)] + b"".join(sections)
