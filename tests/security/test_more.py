"""Attacks beyond the forty cases that were tried on this host, and what they came to."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import plugwasm
from plugwasm import CompiledPlugin, Function, Limits, ManifestError, Plugin, TrapError
from plugwasm._engine import strip_long_names, wat_to_wasm
from tests.support.guests import export, guest, manifest
from tests.support.paths import ROOT

# ---- names in backtraces ----------------------------------------------------------------------------------------------------------------


def bomb(arguments: int, levels: int) -> str:
    """A mangled C++ name that stands for text of `arguments` to the power of `levels`."""
    name = f"_Z1f1AI{'i' * arguments}E"
    for level in range(1, levels):
        reference = "S_" if level == 1 else f"S{'0123456789'[level - 2]}_"
        name += f"S_I{reference * arguments}E"
    return name


@pytest.mark.parametrize("way", ["trap", "timeout", "fuel", "exception"])
def test_a_name_that_stands_for_gigabytes_of_text_is_shown_as_it_is(way: str) -> None:
    body = {"trap": "unreachable", "exception": "(throw $t)"}.get(way, "(loop $l (br $l))")
    script = f"""
import sys, time, plugwasm
source = '(module (tag $t) (func $"{bomb(16, 8)}" (export "f") {body}))'
limits = plugwasm.Limits(timeout=1.0)
before = time.process_time()
try:
    plugwasm.Plugin(source, limits=limits, fuel_limit={10**6 if way == "fuel" else None}).call("f")
except plugwasm.CallError as error:
    print(type(error).__name__, len(str(error)) < 2000, time.process_time() - before < 5)
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    kinds = {
        "trap": "TrapError",
        "timeout": "TimeoutError",
        "fuel": "OutOfFuelError",
        "exception": "CallError",
    }
    assert done.stdout.split() == [kinds[way], "True", "True"], done.stderr[-2000:]


def test_what_nobody_caught_is_told_without_the_names_of_the_guest() -> None:
    text = '(module (tag $t) (func $"a\\0aCRITICAL root logged in\\1b[2J" (export "f") (throw $t)))'
    with Plugin(text) as plugin, pytest.raises(plugwasm.CallError) as caught:
        plugin.call("f")
    assert caught.value.message == "`f` of plugin `plugin` failed: thrown Wasm exception"
    assert all(line.isprintable() for line in str(caught.value).splitlines())


def test_ordinary_mangled_names_are_still_made_readable() -> None:
    text = '(module (func $"_ZN3foo3barEi" (export "f") unreachable))'
    with Plugin(text) as plugin, pytest.raises(TrapError) as caught:
        plugin.call("f")
    assert "foo::bar(int)" in caught.value.backtrace[0]


@pytest.mark.parametrize(("length", "is_kept"), [(4096, True), (4097, False)])
def test_very_long_names_of_functions_are_left_out_of_what_is_compiled(
    length: int, is_kept: bool
) -> None:
    wasm = wat_to_wasm(
        f'(module (func ${"x" * length} (export "f") unreachable) (func $short))'.encode()
    )
    assert (strip_long_names(wasm) == wasm) is is_kept
    assert strip_long_names(wasm[:40]) in (wasm[:40], wasm[:8])
    filler = "".join(
        f"(func (result i64) (i64.const {number * 2**40 + 1}))" for number in range(600)
    )
    heavy = wat_to_wasm(
        f'(module (func ${"x" * length} (export "f") unreachable) {filler})'.encode()
    )
    with Plugin(heavy) as plugin, pytest.raises(TrapError) as caught:
        plugin.call("f")
    assert ("xxxx" in caught.value.backtrace[0]) is is_kept


def test_a_section_of_names_that_cannot_be_read_is_left_out() -> None:
    wasm = wat_to_wasm(b"(module (func))")
    broken = b"\x00\x08\x04name\x01\xff\xff"
    assert strip_long_names(wasm + broken) == wasm
    other = b"\x00\x08\x04nome\x01\xff\xff"
    assert strip_long_names(wasm + other) == wasm + other


# ---- commands ---------------------------------------------------------------------------------------------------------------------------

GROWS = "(loop $next (br_if $next (i32.ne (memory.grow $m{0} (i32.const 1)) (i32.const -1))))"


def pages_of_a_command(depth: int, memories: int, max_pages: int) -> int:
    """How many pages a command has, when it has taken all that it can at each level of a chain of commands that call each other."""
    taken: list[int] = []
    take = Function(
        None,
        "take",
        [plugwasm.ValType.I64],
        [],
        lambda _, values, __: taken.append(values[0].value),
    )
    sizes = "".join(f"(call $take (i64.extend_i32_u (memory.size $m{i})))" for i in range(memories))
    body = "".join(GROWS.format(i) for i in range(memories)) + sizes
    commands = []
    for level in range(depth):
        inner = f'(import "c{level + 1}" "run" (func $inner))' if level < depth - 1 else ""
        call = "(call $inner)" if inner else ""
        text = f"""(module {inner} (import "extism:host/user" "take" (func $take (param i64)))
          {"".join(f"(memory $m{i} 1)" for i in range(memories))} (func (export "_start")) (func (export "run") {body} {call}))"""
        commands.append((f"c{level}", text))
    main = ("main", '(module (import "c0" "run" (func $run)) (func (export "f") (call $run)))')
    with Plugin(
        manifest(*commands, main), functions=[take], limits=Limits(memory_bytes=max_pages * 65536)
    ) as plugin:
        plugin.call("f")
    return sum(taken)


@pytest.mark.parametrize(
    ("depth", "memories", "most"), [(1, 1, 512), (1, 8, 512), (4, 1, 960), (4, 3, 960)]
)
def test_commands_take_as_much_as_the_plugin_may_and_within_each_other_less_than_twice(
    depth: int, memories: int, most: int
) -> None:
    assert most - 20 < pages_of_a_command(depth, memories, 512) <= most


def test_a_command_that_has_to_stay_in_the_plugins_store_counts_with_it() -> None:
    taken: list[int] = []
    take = Function(
        None,
        "take",
        [plugwasm.ValType.I64],
        [],
        lambda _, values, __: taken.append(values[0].value),
    )
    command = (
        "c",
        f"""(module (import "main" "g" (global $g i32)) (import "extism:host/user" "take" (func $take (param i64))) (memory $m0 1)
          (func (export "_start")) (func (export "run") {GROWS.format(0)} (call $take (i64.extend_i32_u (memory.size)))))""",
    )
    lib = ("lib", '(module (global (export "g") i32 (i32.const 1)))')
    command = (command[0], command[1].replace('"main" "g"', '"lib" "g"'))
    main = ("main", '(module (import "c" "run" (func $run)) (func (export "f") (call $run)))')
    with Plugin(
        manifest(lib, command, main), functions=[take], limits=Limits(memory_bytes=512 * 65536)
    ) as plugin:
        for _ in range(7):
            plugin.call("f")
    assert 0 < sum(taken) <= 512


# ---- blocks that the host looks at ------------------------------------------------------------------------------------------------------

HUGE = guest(
    "(func $huge (result i64) (local $b i64) (local.set $b (call $alloc (i64.const 800000000)))"
    " (call $store_u8 (local.get $b) (i32.const 255)) (local.get $b))"
    + export("config", "(drop (call $config_get (call $huge)))")
    + export("var", "(drop (call $var_get (call $huge)))")
    + export("var_set", "(call $var_set <<v>> (call $huge))")
    + export("var_name", "(call $var_set (call $huge) <<v>>)")
    + export("log", "(call $log_error (call $huge))")
    + export("error", "(call $error_set (call $huge))")
    + export("document", "(drop (call $http_request (call $huge) (i64.const 0)))")
    + export("body", '(drop (call $http_request <<{"url": "http://a.test/"}>> (call $huge)))')
    + export("ok", "(call $echo)")
)


@pytest.mark.parametrize(
    "function", ["config", "var", "var_set", "var_name", "log", "error", "document", "body"]
)
def test_a_block_of_nearly_a_gigabyte_costs_the_host_and_its_other_threads_nothing(
    function: str,
) -> None:
    longest = last = time.monotonic()
    longest = 0.0
    over = threading.Event()

    def watch() -> None:
        nonlocal longest, last
        while not over.wait(0.005):
            now = time.monotonic()
            longest, last = max(longest, now - last), now

    with Plugin(manifest(HUGE, allowed_hosts=["a.test"])) as plugin:
        plugin.call("ok")
        other = threading.Thread(target=watch)
        before = time.thread_time()
        other.start()
        try:
            plugin.call(function)
        except plugwasm.Error as error:
            assert len(str(error)) < 2**21
        finally:
            over.set()
            other.join()
        assert time.thread_time() - before < 1
        assert plugin.call("ok", b"x") == b"x"
    assert longest < 1


# ---- the rest ---------------------------------------------------------------------------------------------------------------------------


def test_looking_for_the_name_that_was_meant_takes_no_time_however_many_there_are() -> None:
    names = "".join(f'(export "count_vowel{number:05}" (func $f))' for number in range(20_000))
    with Plugin(f"(module (func $f) {names})") as plugin:
        before = time.thread_time()
        with pytest.raises(plugwasm.FunctionNotFoundError, match="and 19980 more"):
            plugin.call("count_vowels")
        assert time.thread_time() - before < 1


def test_two_directories_cannot_have_one_name(tmp_path: Path) -> None:
    for name in ("a", "b"):
        os.mkdir(tmp_path / name)
    grants = {str(tmp_path / "a"): "/d", str(tmp_path / "b"): "/d"}
    with pytest.raises(
        ManifestError, match=r'expected a path of its own, got "/d", that of ".*/a"'
    ):
        CompiledPlugin({"wasm": [{"data": b"(module)"}], "allowed_paths": grants}, wasi=True)


@pytest.mark.parametrize("functions", [[print], print, [lambda: None]])
def test_a_function_that_is_no_host_function_is_refused_with_what_to_do(functions: Any) -> None:
    with pytest.raises(
        TypeError, match=r"is no host function: decorate it with `@plugwasm.host_fn\(\)`"
    ):
        CompiledPlugin("(module)", functions=functions)


def test_a_plugin_that_was_ended_in_any_of_these_ways_goes_on() -> None:
    text = f'(module (func $"{bomb(16, 8)}" (export "f") unreachable) (func (export "ok")))'
    with Plugin(text, limits=Limits(timeout=5.0)) as plugin:
        for _ in range(3):
            with pytest.raises(TrapError):
                plugin.call("f")
            assert plugin.call("ok") == b""
