"""The engine layer by itself: the library's version, and modules from bytes and from artifacts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugwasm._engine import (
    Engine,
    EngineFailure,
    FunctionType,
    check_version,
    library_version,
    wat_to_wasm,
)
from plugwasm._engine.ffi import TESTED_VERSIONS, installed_version
from plugwasm.errors import EngineError
from tests.support.engine import ENGINE, FUEL_ENGINE, World
from tests.support.paths import ROOT

# ---- the library's version -----------------------------------------------------------------------


def test_tested_range_bounds() -> None:
    """The tested range includes exactly its documented bounds."""
    first, end = TESTED_VERSIONS
    check_version(first)
    check_version((*first[:2], first[2] + 1))
    check_version((end[0] - 1, 999, 999))
    for wrong in [
        (first[0], first[1], first[2] - 1),
        (first[0] - 1, 99, 99),
        end,
        (end[0], 0, 1),
        (end[0] + 1, 0, 0),
        (),
        (1,),
    ]:
        with pytest.raises(
            EngineError,
            match=r"wasmtime .*is installed.*pip install 'wasmtime>=\d+\.\d+\.\d+,<\d+'",
        ):
            check_version(wrong)


def test_installed_version_is_in_range() -> None:
    """The installed library is in the tested range."""
    check_version(tuple(map(int, library_version().split("."))))


def test_version_from_metadata_folder(tmp_path: Path) -> None:
    """The version is read from the name of the metadata folder."""
    (tmp_path / "wasmtime").mkdir()
    (tmp_path / "wasmtime-51.2.3.dist-info").mkdir()
    (tmp_path / "wasmtime_tools-1.0.dist-info").mkdir()
    assert installed_version(str(tmp_path / "wasmtime")) == (51, 2, 3)
    (tmp_path / "wasmtime-49.0.0.dist-info").mkdir()
    assert installed_version(str(tmp_path / "wasmtime")) == tuple(
        map(int, library_version().split("."))
    ), "two folders tell nothing"


def test_missing_library_is_error(tmp_path: Path) -> None:
    """The error for a missing library says what to install."""
    script = (
        "import sys\n"
        "class Hidden:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'wasmtime': raise ModuleNotFoundError('hidden')\n"
        "sys.path = [p for p in sys.path]\n"
        "for finder in list(sys.meta_path):\n"
        "    find = finder.find_spec\n"
        "    finder_type = type('Finder', (), {'find_spec': staticmethod(lambda n, p=None, t=None, find=find:"
        " None if n == 'wasmtime' else find(n, p, t))})\n"
        "    sys.meta_path[sys.meta_path.index(finder)] = finder_type()\n"
        "import plugwasm.errors\n"
        "try:\n"
        "    import plugwasm._engine\n"
        "except plugwasm.errors.EngineError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert "pip install wasmtime" in done.stdout


# ---- modules -------------------------------------------------------------------------------------

RICH = wat_to_wasm(
    b"""(module $rich
  (import "a" "f" (func (param i32 i64) (result f32)))
  (import "a" "g" (func (param f64 v128 externref funcref)))
  (import "b" "memory" (memory 1 2))
  (import "b" "table" (table 1 funcref))
  (import "b" "global" (global (mut i32)))
  (import "" "" (func))
  (func (export "multi") (param i32) (result i64 f32 f64) unreachable)
  (func (export "\xc3\xa9\xe2\x82\xac"))
  (memory (export "own") 3) (table (export "t") 1 externref) (global (export "g") i32 (i32.const 1)))"""
)


def test_imports_and_exports() -> None:
    """Imports and exports are listed in order with their types."""
    module = ENGINE.compile(RICH)
    assert [(item.module, item.name, item.kind, str(item.type)) for item in module.imports] == [
        ("a", "f", "function", "(i32, i64) -> (f32)"),
        ("a", "g", "function", "(f64, v128, externref, funcref) -> ()"),
        ("b", "memory", "memory", "None"),
        ("b", "table", "table", "None"),
        ("b", "global", "global", "None"),
        ("", "", "function", "() -> ()"),
    ]
    assert [
        (name, item.name, item.kind, str(item.type)) for name, item in module.exports.items()
    ] == [
        ("multi", "multi", "function", "(i32) -> (i64, f32, f64)"),
        ("é€", "é€", "function", "() -> ()"),
        ("own", "own", "memory", "None"),
        ("t", "t", "table", "None"),
        ("g", "g", "global", "None"),
    ]
    assert repr(module.imports[0]) == "function a.f(i32, i64) -> (f32)"


def test_function_type_equality() -> None:
    """Function types are equal if their parameters and results are."""
    assert FunctionType(("i32",), ()) == FunctionType(("i32",), ())
    assert (
        len({FunctionType(("i32",), ()), FunctionType(("i32",), ()), FunctionType((), ("i32",))})
        == 2
    )
    assert FunctionType((), ()) != "() -> ()"


@pytest.mark.parametrize(
    ("wat", "memories"),
    [
        ("(module)", (0, 0)),
        ('(module (import "m" "m" (memory 9)))', (0, 0)),
        ("(module (memory 3))", (1, 3)),
        ("(module (memory 3 4) (memory 0) (memory 300 65536))", (3, 303)),
        ("(module (memory i64 2) (memory i64 1 5))", (2, 3)),
        (
            '(module (type (func)) (import "m" "m" (memory 9)) (func) (table 5 funcref) (memory 200) (data (i32.const 0) "x"))',
            (1, 200),
        ),
    ],
)
def test_defined_memories(wat: str, memories: tuple[int, int]) -> None:
    """A module lists the memories that it defines."""
    assert ENGINE.compile(wat_to_wasm(wat.encode())).defined_memories[:2] == memories


@pytest.mark.parametrize(
    "wasm",
    [
        b"",
        b"\0",
        b"\0asm",
        b"\0asm\1\0\0",
        b"\0asm\2\0\0\0",
        b"\0asm\x0d\0\1\0",
        b"\0asm\1\0\0\0\xff",
        b"MZ" + bytes(100),
        b"\x7fELF" + bytes(100),
        b"<html>",
        RICH[:-1],
        RICH + b"\0",
    ],
    ids=range(12),
)
def test_invalid_bytes_are_refused(wasm: bytes) -> None:
    """Bytes that are no module are refused."""
    with pytest.raises(EngineFailure) as caught:
        ENGINE.compile(wasm)
    assert caught.value.message
    assert caught.value.frames == ()


@given(
    at=st.integers(0, len(RICH) - 1),
    bit=st.integers(0, 7),
    cut=st.integers(0, len(RICH)),
    insert=st.binary(max_size=3),
    do=st.sampled_from("flc"),
)
@settings(max_examples=300, deadline=None)
def test_damaged_module(at: int, bit: int, cut: int, insert: bytes, do: str) -> None:
    """A damaged module is refused or compiled, without a crash."""
    if do == "f":
        wasm = RICH[:at] + bytes([RICH[at] ^ 1 << bit]) + RICH[at + 1 :]
    else:
        wasm = RICH[:cut] if do == "l" else RICH[:cut] + insert + RICH[cut:]
    try:
        module = ENGINE.compile(wasm)
    except EngineFailure as failure:
        assert failure.message
    else:
        assert isinstance(module.exports, dict)


@pytest.mark.parametrize(
    "text",
    [
        b"(module",
        b"(modul)",
        b"(module (func (i32.add)))",
        b"\xff\xfe",
        b"(module (func $a) (func $a))",
        b"junk",
    ],
)
def test_text_error_shows_position(text: bytes) -> None:
    """The error for invalid text shows the position."""
    with pytest.raises(EngineFailure) as caught:
        ENGINE.compile(wat_to_wasm(text))
    assert caught.value.message.strip()
    if b"\xff" not in text and b"i32.add" not in text:
        assert "1:" in caught.value.message


def test_serialize_and_load() -> None:
    """A compiled module can be serialised and loaded."""
    artifact = ENGINE.compile(RICH).serialize()
    loaded = ENGINE.load(artifact)
    again = Engine().load(artifact)
    original = ENGINE.compile(RICH)
    for module in (loaded, again):
        assert list(map(repr, module.imports)) == list(map(repr, original.imports))
        assert list(module.exports) == list(original.exports)
    answer = ENGINE.load(
        ENGINE.compile(
            wat_to_wasm(b'(module (func (export "f") (result i32) (i32.const 42)))')
        ).serialize()
    )
    assert World(answer).call("f") == 42


def test_foreign_artifact_is_not_loaded() -> None:
    """An artifact that is not this engine's is not loaded."""
    artifact = ENGINE.compile(RICH).serialize()
    for wrong in (
        b"",
        b"junk" * 1000,
        bytes(5000),
        RICH,
        artifact[:10],
        artifact[:100],
        artifact[: len(artifact) // 2],
        b"x" + artifact,
    ):
        with pytest.raises(EngineFailure):
            ENGINE.load(wrong)
    with pytest.raises(EngineFailure, match="fuel"):
        FUEL_ENGINE.load(artifact)


def test_shared_memory_is_refused() -> None:
    """Shared memories and threads are refused."""
    with pytest.raises(EngineFailure):
        ENGINE.compile(wat_to_wasm(b"(module (memory 1 1 shared))"))
