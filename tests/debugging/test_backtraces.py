"""Backtraces of guests, with source lines."""

from __future__ import annotations

import pickle
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import plugwasm
from plugwasm import debugging
from plugwasm._debugging.backtrace import Frame
from plugwasm._debugging.code_map import CodeMap
from plugwasm._engine import may_use_signals, wat_to_wasm
from tests.support.debugged_plugins import COUNT, FAULTY, call_error
from tests.support.guests import manifest
from tests.support.paths import PLUGINS

SHOP = PLUGINS / "debug" / "shop.wasm"


def places(frames: debugging.Backtrace) -> list[tuple[str, str | None, int | None, bool]]:
    return [(frame.function, frame.file, frame.line, frame.inlined) for frame in frames]


def line_of(source: Path, text: str) -> int:
    (line,) = [i for i, line in enumerate(source.read_text().splitlines(), 1) if text in line]
    return line


def line_of_trap(source: Path) -> int:
    """The line that the engine reports for a trap: with signals that of the condition before it."""
    return line_of(source, "__builtin_trap()") - may_use_signals()


def test_source_lines_and_inlined_functions() -> None:
    """A backtrace has source lines and inlined functions."""
    plugin = plugwasm.Plugin(FAULTY)
    frames = debugging.explain(call_error(plugin, "primes", "12 1x"), plugin)
    source = FAULTY.with_suffix(".c")
    assert places(frames) == [
        ("digit", "faulty.c", line_of_trap(source), True),
        ("parse", "faulty.c", line_of(source, "+ digit(text[i])"), False),
        ("primes", "faulty.c", line_of(source, "parse(&list, text"), False),
    ]
    position = "12:17" if may_use_signals() else "13:9"
    assert str(frames).splitlines()[0] == f"  0: digit at faulty.c:{position} (inlined)"


def test_cpp_names_are_demangled() -> None:
    """C++ names are demangled, and inlined ones have their namespaces."""
    plugin = plugwasm.Plugin(SHOP)
    source = SHOP.with_suffix(".cpp")
    assert places(debugging.explain(call_error(plugin, "run", "too long"), plugin)) == [
        ("shop::Basket<int>::at", "shop.cpp", line_of_trap(source), True),
        ("shop::price", "shop.cpp", line_of(source, "sum += basket.at(i)"), True),
        (
            "shop::total(shop::Basket<int>, unsigned long)",
            "shop.cpp",
            line_of(source, "return price("),
            False,
        ),
        ("run", "shop.cpp", line_of(source, "return shop::total("), False),
    ]


def test_names_of_rust_are_demangled() -> None:
    name = "$_ZN4shop5total17h0123456789abcdefE"
    text = f"""(module {COUNT.replace("$count", name)} (func $fail (unreachable))
        (func {name.replace("total", "crash")} (call $fail))
        (func (export "fail") (call {name.replace("total", "crash")}))
        (func (export "run") (call {name} (i32.const 50000000))))"""
    plugin = plugwasm.Plugin(text)
    assert [frame.function for frame in debugging.explain(call_error(plugin, "fail"), plugin)] == [
        "fail",
        "shop::crash",
        "fail",
    ]
    with debugging.profile(plugin) as profile:
        plugin.call("run")
    assert ("run", "shop::total") in profile.stacks


def test_frames_without_debug_info() -> None:
    """Without debug information, frames have functions and offsets."""
    plugin = plugwasm.Plugin(
        '(module (func $inner unreachable) (func (export "outer") (call $inner)))'
    )
    frames = debugging.explain(call_error(plugin, "outer"), plugin)
    assert [frame.function for frame in frames] == ["inner", "outer"], (
        "a function without a name is called by its export"
    )
    assert [frame.module for frame in frames] == ["main", "main"]
    assert all(
        isinstance(frame.offset, int) and frame.line is None and frame.file is None
        for frame in frames
    )


def test_explain_error_by_module_bytes() -> None:
    """An error can be explained in another process with the module's bytes."""
    with plugwasm.Plugin(FAULTY) as plugin:
        error = pickle.loads(pickle.dumps(call_error(plugin, "primes", "x")))
    assert debugging.explain(error, FAULTY.read_bytes())[0].line == line_of_trap(
        FAULTY.with_suffix(".c")
    )
    assert debugging.explain(error, {"wasm": [{"path": str(FAULTY)}]})[0].line == line_of_trap(
        FAULTY.with_suffix(".c")
    )
    assert debugging.explain(error, plugwasm.CompiledPlugin(FAULTY))[0].line == line_of_trap(
        FAULTY.with_suffix(".c")
    )


def test_explain_error_of_isolated_plugin() -> None:
    """An error of an isolated plugin can be explained."""
    with plugwasm.IsolatedPlugin(FAULTY) as plugin:
        assert debugging.explain(call_error(plugin, "primes", "x"), plugin)[0].line == line_of_trap(
            FAULTY.with_suffix(".c")
        )


def test_frames_of_several_modules() -> None:
    """Frames of several modules are distinguished."""
    library = '(module $lib (func $fail (export "fail") unreachable))'
    main = '(module (import "lib" "fail" (func $f)) (func $fail (call $f)) (func (export "run") (call $fail)))'
    plugin = plugwasm.Plugin(manifest(("lib", library), ("main", main)))
    frames = debugging.explain(call_error(plugin, "run"), plugin)
    assert [(frame.function, frame.module) for frame in frames] == [
        ("fail", "lib"),
        ("fail", "main"),
        ("run", "main"),
    ]


def test_error_without_frames() -> None:
    """An error without frames has an empty backtrace."""
    plugin = plugwasm.Plugin('(module (func (export "f") (result i32) (i32.const 1)))')
    frames = debugging.explain(call_error(plugin, "f"), plugin)
    assert frames == ()
    assert str(frames) == ""


@pytest.mark.parametrize(
    "frame", ["", "x", "a @ 0x", "a @ 0xzz", "main!a @ 0xffffffffff", "a @ 0x1 @ 0x2", " @ 0x0"]
)
def test_frames_of_unknown_module(frame: str) -> None:
    """Frames of unknown modules are unchanged."""
    (found,) = debugging.explain(plugwasm.TrapError("trapped", backtrace=(frame,)), FAULTY)
    assert found.line is None
    assert found.module is None


def test_guest_names_stay_on_one_line() -> None:
    """Names chosen by a guest stay on one line."""
    plugin = plugwasm.Plugin(
        '(module (func $"a! @ 0x1\\n  7: b" unreachable) (func (export "run") (call $"a! @ 0x1\\n  7: b")))'
    )
    frames = debugging.explain(call_error(plugin, "run"), plugin)
    assert [frame.module for frame in frames] == ["main", "main"]
    assert len(str(frames).splitlines()) == 2


def custom_sections(wasm: bytes) -> Iterator[tuple[int, int]]:
    code = CodeMap(wasm)
    yield from (
        code._custom_sections[name] for name in code._custom_sections if name.startswith(".debug")
    )


def test_broken_debug_info() -> None:
    """Broken debug information only removes the source lines."""
    wasm = FAULTY.read_bytes()
    error = call_error(plugwasm.Plugin(wasm), "primes", "x")
    dice = random.Random(7)
    ranges = list(custom_sections(wasm))
    assert len(ranges) >= 4
    spoilt = 0
    for _ in range(150):
        broken = bytearray(wasm)
        start, end = dice.choice(ranges)
        for _ in range(dice.randint(1, 8)):
            broken[dice.randrange(start, end)] = dice.choice(
                (0, 1, 127, 128, 255, dice.randrange(256))
            )
        began = time.process_time()
        frames = debugging.explain(error, bytes(broken))
        assert time.process_time() - began < 10
        assert [frame.function for frame in frames if not frame.inlined] == ["parse", "primes"]
        spoilt += places(frames) != places(debugging.explain(error, wasm)) if spoilt < 5 else 0
    assert spoilt >= 5, "nothing was broken"


def test_truncated_name_section() -> None:
    """A module with a truncated name section still has offsets."""
    wasm = FAULTY.read_bytes()
    error = call_error(plugwasm.Plugin(wasm), "primes", "x")
    start, end = CodeMap(wasm)._custom_sections["name"]
    for cut in range(start, end, 7):
        broken = wasm[:cut] + b"\xff" * (end - cut) + wasm[end:]
        assert all(frame.function for frame in debugging.explain(error, broken))


def test_missing_pyelftools(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pyelftools, the error names the extra."""
    error = call_error(plugwasm.Plugin(FAULTY), "primes", "x")
    for name in [name for name in sys.modules if name.startswith("elftools")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "elftools", None)
    with pytest.raises(ImportError, match=r"pip install 'plugwasm\[debug\]'"):
        debugging.explain(error, FAULTY)
    plain = plugwasm.Plugin('(module (func (export "f") unreachable))')
    assert debugging.explain(call_error(plain, "f"), plain)[0].function == "f", (
        "it is not needed where there is no DWARF"
    )


IMPORTS = """(module
    (type $f (func)) (import "a" "f" (func (type $f))) (import "a" "t" (table 1 2 funcref)) (import "a" "m" (memory 1 200))
    (import "a" "g" (global (mut i64))) (import "a" "tag" (tag)) (import "a" "m64" (memory i64 1)) (import "a" "g2" (global externref))
    (import "b" "f" (func (param i32))) (memory $own (export "own") 1) (func $first (nop)) (func (export "second") (nop) (nop)))"""


def test_functions_counted_past_imports() -> None:
    """Function numbers account for imports of every kind."""
    code = CodeMap(wat_to_wasm(IMPORTS.encode()))
    assert code.imported_functions == 2
    assert code.exported_memories == ["own"]
    assert [code.display_name(i) for i in (2, 3, 4)] == ["first", "second", "function 4"]
    assert code.function_at(code.body_start(2)) == 2
    assert code.function_at(code.body_start(3)) == 3
    assert code.function_at(code.code_start) is None
    assert code.function_at(10**9) is None


def test_a_frame_says_what_it_knows() -> None:
    assert str(Frame("f")) == "f"
    assert str(Frame("f", "main", 31)) == "f @ 0x1f"
    assert str(Frame("f", "main", 31, "a.c", 3)) == "f at a.c:3"
    assert str(Frame("f", "main", 31, "a.c", 3, 4, True)) == "f at a.c:3:4 (inlined)"
