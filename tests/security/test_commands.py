"""Commands have their own stores, and share one limit of memory."""

from __future__ import annotations

import pytest

import plugwasm
from plugwasm import Function, Limits, Plugin
from tests.support.guests import manifest

GROWS = "(loop $next (br_if $next (i32.ne (memory.grow $m{0} (i32.const 1)) (i32.const -1))))"


def measure_command_pages(depth: int, memories: int, max_pages: int) -> int:
    """Return how many pages a command gets when it takes all it can at each level of a chain of
    commands that call each other."""
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
def test_commands_are_limited(depth: int, memories: int, most: int) -> None:
    """A command takes at most the plugin's limit, and nested commands together less than twice
    that."""
    assert most - 20 < measure_command_pages(depth, memories, 512) <= most


def test_kept_command_counts_with_plugin() -> None:
    """A command that has to stay in the plugin's store counts towards the plugin's memory."""
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
