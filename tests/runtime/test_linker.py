"""Linking: which module or host function satisfies an import, and the errors for imports that
nothing satisfies."""

from __future__ import annotations

import struct
from typing import Any

import pytest

import plugwasm
from plugwasm import (
    CompiledPlugin,
    Function,
    LinkError,
    ManifestError,
    MissingImportError,
    Plugin,
    TrapError,
    ValType,
)
from tests.support.guests import export, guest, manifest, number
from tests.support.linked_modules import ALL_TYPES, ALL_VALUES, asking_module, call_ask


def returning_module(name: str, value: int) -> str:
    """Return a module with one function () -> i64."""
    return f'(module (func (export "{name}") (result i64) (i64.const {value})))'


def host(namespace: str | None, name: str, value: int) -> Function:
    def give(plugin: plugwasm.CurrentPlugin, params: list[Any], results: list[Any]) -> None:
        results[0].value = value

    return Function(namespace, name, [], [ValType.I64], give)


# Which module is main


def answering_module(value: int) -> str:
    return guest(export("ask", f"(call $answer (i64.const {value}))"))


@pytest.mark.parametrize(
    ("modules", "main"),
    [
        ([answering_module(1)], 1),
        ([("any name", answering_module(1))], 1),
        ([("a", answering_module(1)), ("b", answering_module(2))], 2),
        ([("main", answering_module(1)), ("b", answering_module(2))], 1),
        (
            [("a", answering_module(1)), ("main", answering_module(2)), ("c", answering_module(3))],
            2,
        ),
        ([("a", answering_module(1)), answering_module(2)], 2),
        ([answering_module(1), answering_module(2)], 2),
        ([("Main", answering_module(1)), ("b", answering_module(2))], 2),
    ],
    ids=[
        "one",
        "one with a name",
        "the last",
        "main first",
        "main between",
        "the last without a name",
        "no names",
        "case counts",
    ],
)
def test_main_module(modules: list[Any], main: int) -> None:
    """The main module is the one named `main`, or the last."""
    assert call_ask(manifest(*modules)) == main


def test_duplicate_name_is_error() -> None:
    """A duplicate module name is an error that shows it."""
    with pytest.raises(ManifestError, match="twin"):
        Plugin(
            manifest(
                ("twin", returning_module("a", 1)),
                ("twin", returning_module("b", 2)),
                answering_module(3),
            )
        )


def test_only_main_is_callable() -> None:
    """Only exports of the main module can be called."""
    with Plugin(manifest(("a", guest(export("hidden", ""))), answering_module(1))) as plugin:
        assert not plugin.function_exists("hidden")
        with pytest.raises(plugwasm.FunctionNotFoundError):
            plugin.call("hidden")
        assert [item.name for item in plugin.exports] == ["ask"]


# What satisfies an import


def test_import_functions() -> None:
    """A module can import functions of another."""
    assert call_ask(manifest(("lib", returning_module("f", 7)), asking_module("lib", "f"))) == 7


def test_module_order_does_not_matter() -> None:
    """The order of the modules does not matter."""
    assert (
        call_ask(
            manifest(
                ("main", asking_module("a", "f")),
                (
                    "a",
                    guest("", '(import "b" "f" (func $f (result i64)))')[:-1]
                    + '(export "f" (func $f)))',
                ),
                ("b", returning_module("f", 9)),
            )
        )
        == 9
    )


def test_share_memories_globals_and_tables() -> None:
    """Modules can share memories, globals and tables."""
    lib = """(module (memory (export "m") 1) (data (i32.const 8) "\\2a") (global (export "g") (mut i64) (i64.const 5))
        (table (export "t") 1 funcref) (elem (i32.const 0) $f) (func $f (result i64) (i64.const 100)))"""
    main = guest(
        export(
            "ask",
            """(global.set $g (i64.add (global.get $g) (i64.const 1)))
            (call $answer (i64.add (i64.add (global.get $g) (i64.load8_u (i32.const 8))) (call_indirect (result i64) (i32.const 0))))""",
        ),
        '(import "lib" "m" (memory 1))',
        '(import "lib" "g" (global $g (mut i64)))',
        '(import "lib" "t" (table 1 funcref))',
        memory="",
    )
    with Plugin(manifest(("lib", lib), main)) as plugin:
        assert [number(plugin.call("ask")) for _ in range(2)] == [6 + 42 + 100, 7 + 42 + 100]


def test_values_of_all_types() -> None:
    """Values of all types pass between modules."""
    lib = """(module (func (export "f") (param i32 i64 f32 f64) (result f64 f32 i64 i32)
        (local.get 3) (local.get 2) (local.get 1) (local.get 0)))"""
    with Plugin(manifest(("lib", lib), ALL_TYPES.replace("OTHER", "lib"))) as plugin:
        assert struct.unpack("<iqfd", plugin.call("pass", ALL_VALUES)) == struct.unpack(
            "<iqfd", ALL_VALUES
        )


def test_host_function_over_kernel() -> None:
    """A host function wins over the kernel and the environment."""
    assert (
        call_ask(
            asking_module("extism:host/env", "input_length"),
            functions=[host("extism:host/env", "input_length", 77)],
        )
        == 77
    )
    config = Function("extism:host/env", "config_get", [ValType.I64], [ValType.I64], _own_config)
    with Plugin(
        guest(export("get", "(call $give (call $config_get <<k>>))")),
        functions=[config],
        config={"k": "the real one"},
    ) as plugin:
        assert plugin.call("get") == b"shadowed"


def _own_config(plugin: plugwasm.CurrentPlugin, params: list[Any], results: list[Any]) -> None:
    plugin.return_string(results[0], "shadowed")


@pytest.mark.parametrize("wasi", [False, True])
def test_a_host_function_wins_over_wasi(wasi: bool) -> None:
    source = guest(
        export("ask", "(call $answer (i64.extend_i32_u (call $yield)))"),
        '(import "wasi_snapshot_preview1" "sched_yield" (func $yield (result i32)))',
    )

    def give(plugin: plugwasm.CurrentPlugin, params: list[Any], results: list[Any]) -> None:
        results[0].value = 52

    own = Function("wasi_snapshot_preview1", "sched_yield", [], [ValType.I32], give)
    assert call_ask(source, functions=[own], wasi=wasi) == 52


@pytest.mark.parametrize(
    "namespace", ["extism:host/user", "extism:host/env", "wasi_snapshot_preview1", "mine"]
)
def test_module_over_host_functions(namespace: str) -> None:
    """A module wins over host functions in the same namespace."""
    wasm = manifest((namespace, returning_module("f", 1)), ("main", asking_module(namespace, "f")))
    assert call_ask(wasm, functions=[host(namespace, "f", 2)]) == 1


def test_a_module_wins_over_the_kernel() -> None:
    assert (
        call_ask(
            manifest(
                ("extism:host/env", returning_module("input_length", 5)),
                ("main", asking_module("extism:host/env", "input_length")),
            )
        )
        == 5
    )


def test_missing_in_module_is_looked_up_next() -> None:
    """If a module with the imported name lacks the item, the next provider is searched."""
    main = asking_module(
        "extism:host/user", "g", '(import "extism:host/user" "f" (func (result i64)))'
    )
    assert (
        call_ask(
            manifest(("extism:host/user", returning_module("f", 1)), ("main", main)),
            functions=[host(None, "g", 2)],
        )
        == 2
    )


def test_later_host_function_counts() -> None:
    """Of two host functions with one name, the later one is used."""
    assert (
        call_ask(
            asking_module("extism:host/user", "f"),
            functions=[host(None, "f", 1), host("extism:host/user", "f", 2)],
        )
        == 2
    )


def test_host_namespaces_do_not_mix() -> None:
    """Host functions in two namespaces are kept apart."""
    functions = [host("a", "f", 1), host("b", "f", 2)]
    assert call_ask(asking_module("a", "f"), functions=functions) == 1
    assert call_ask(asking_module("b", "f"), functions=functions) == 2
    with pytest.raises(MissingImportError):
        Plugin(asking_module("extism:host/user", "f"), functions=functions)


def test_linked_module_calls_host() -> None:
    """A linked module can use the kernel, config, vars and host functions."""
    lib = guest(
        '(func (export "work") (call $give (call $config_get <<key>>)) (call $var_set <<v>> <<from the library>>) (call $user))',
        '(import "extism:host/user" "user" (func $user))',
    )
    main = guest(
        export("work", "(call $work)") + export("var", "(call $give (call $var_get <<v>>))"),
        '(import "lib" "work" (func $work))',
    )
    seen: list[int] = []
    user = Function(None, "user", [], [], lambda *_: seen.append(1))
    with Plugin(manifest(("lib", lib), main), config={"key": "value"}, functions=[user]) as plugin:
        assert plugin.call("work") == b"value"
        assert plugin.call("var") == b"from the library"
        assert seen == [1]


def test_shared_instance() -> None:
    """Two modules that import from a third share its instance."""
    counter = """(module (global $n (mut i64) (i64.const 0))
        (func (export "f") (result i64) (global.set $n (i64.add (global.get $n) (i64.const 1))) (global.get $n)))"""
    between = '(module (import "counter" "f" (func $f (result i64))) (func (export "g") (result i64) (call $f)))'
    main = guest(
        export("ask", "(drop (call $f)) (drop (call $g)) (call $answer (call $f))"),
        '(import "counter" "f" (func $f (result i64)))',
        '(import "between" "g" (func $g (result i64)))',
    )
    assert call_ask(manifest(("counter", counter), ("between", between), main)) == 3


# Commands and reactors


def counting_module(extra: str) -> str:
    return (
        "(module (global $n (mut i64) (i64.const 0)) (global $starts (mut i64) (i64.const 0))"
        '(func (export "f") (result i64) (global.set $n (i64.add (global.get $n) (i64.const 1))) '
        f"(i64.add (i64.mul (global.get $starts) (i64.const 1000)) (global.get $n))) {extra})"
    )


STARTS = "(global.set $starts (i64.add (global.get $starts) (i64.const 1)))"
REACTOR = counting_module(f'(func (export "_initialize") {STARTS})')
COMMAND = counting_module(f'(func (export "_start") {STARTS})')
BOTH = counting_module(
    f'(func (export "_start") unreachable) (func (export "_initialize") {STARTS})'
)
THREE_CALLS = guest(
    export("ask", "(drop (call $f)) (drop (call $f)) (call $answer (call $f))"),
    '(import "lib" "f" (func $f (result i64)))',
)


def test_reactor_is_initialised_once() -> None:
    """A reactor has one instance, which is initialised once."""
    with Plugin(manifest(("lib", REACTOR), THREE_CALLS)) as plugin:
        assert [number(plugin.call("ask")) for _ in range(2)] == [1003, 1006]
        plugin.reset()
        assert number(plugin.call("ask")) == 1003


def test_command_instance_per_call() -> None:
    """A command has a fresh instance for each call, and its `_start` is not run."""
    with Plugin(manifest(("lib", COMMAND), THREE_CALLS)) as plugin:
        assert [number(plugin.call("ask")) for _ in range(2)] == [1, 1]


def test_command_and_reactor_is_reactor() -> None:
    """A module that exports `_start` and `_initialize` is a reactor."""
    with Plugin(manifest(("lib", BOTH), THREE_CALLS)) as plugin:
        assert [number(plugin.call("ask")) for _ in range(2)] == [1003, 1006]


def test_command_start_can_be_imported() -> None:
    """A command's `_start` can be imported and gets a fresh instance too."""
    lib = guest(
        """(global $n (mut i64) (i64.const 0))
        (func (export "_start") (global.set $n (i64.add (global.get $n) (i64.const 1))) (call $answer (global.get $n)))"""
    )
    main = guest(
        export("ask", "(call $start) (call $start)"), '(import "lib" "_start" (func $start))'
    )
    with Plugin(manifest(("lib", lib), main)) as plugin:
        assert number(plugin.call("ask")) == 1


def test_command_imports_host_and_modules() -> None:
    """A command can import from the host, the kernel and other modules."""
    command = guest(
        '(func (export "_start")) (func (export "f") (result i64) (call $give <<from a command>>) (i64.add (call $g) (call $h)))',
        '(import "reactor" "f" (func $g (result i64)))',
        '(import "extism:host/user" "h" (func $h (result i64)))',
    )
    main = guest(
        export("ask", "(call $answer (call $f))") + export("text", "(drop (call $f))"),
        '(import "command" "f" (func $f (result i64)))',
    )
    with Plugin(
        manifest(("reactor", REACTOR), ("command", command), main), functions=[host(None, "h", 20)]
    ) as plugin:
        assert [number(plugin.call("ask")) for _ in range(2)] == [1021, 1022]
        assert plugin.call("text") == b"from a command"


def test_command_imports_command() -> None:
    """A command can import from a command."""
    outer = """(module (import "inner" "f" (func $f (result i64)))
        (func (export "_start")) (func (export "f") (result i64) (drop (call $f)) (call $f)))"""
    wasm = manifest(("inner", COMMAND), ("outer", outer), ("main", asking_module("outer", "f")))
    assert call_ask(wasm) == 1


def test_command_exports_functions_only() -> None:
    """Only functions can be imported from a command."""
    command = '(module (memory (export "m") 1) (func (export "_start")))'
    with pytest.raises(LinkError, match=r"`tool`.*command"):
        Plugin(manifest(("tool", command), guest("", '(import "tool" "m" (memory 1))', memory="")))


def test_trap_in_linked_module() -> None:
    """A trap in a command or a linked module reaches the caller with its frames."""
    for extra in ('(func (export "_start"))', ""):
        lib = f'(module {extra} (func $inside (export "f") (result i64) unreachable))'
        with Plugin(manifest(("lib", lib), ("main", asking_module("lib", "f")))) as plugin:
            with pytest.raises(TrapError) as caught:
                plugin.call("ask")
            assert caught.value.trap == "unreachable"
            assert caught.value.backtrace[0].startswith("inside @ ")
            assert len(caught.value.backtrace) == 2


def test_trap_in_command_start() -> None:
    """A trap in the start function of a command is an error of the call."""
    lib = '(module (func $s unreachable) (start $s) (func (export "_start")) (func (export "f") (result i64) (i64.const 1)))'
    with Plugin(manifest(("lib", lib), ("main", asking_module("lib", "f")))) as plugin:
        for _ in range(2):
            with pytest.raises(TrapError, match=r"`ask`"):
                plugin.call("ask")


@pytest.mark.parametrize("calls", [3_000, 12_000])
def test_command_called_many_times(calls: int) -> None:
    """A plugin can call a command any number of times."""
    main = guest(
        export(
            "ask",
            f"(loop $next (local.set $sum (i64.add (local.get $sum) (call $f))) (local.set $i (i32.add (local.get $i) (i32.const 1)))"
            f"(br_if $next (i32.lt_u (local.get $i) (i32.const {calls})))) (call $answer (local.get $sum))",
            "(local $i i32) (local $sum i64)",
        ),
        '(import "lib" "f" (func $f (result i64)))',
    )
    assert call_ask(manifest(("lib", COMMAND), ("main", main))) == calls


def test_command_memory_is_released() -> None:
    """The memory of commands is released when their call ends."""
    command = """(module (memory 64) (func (export "_start"))
        (func (export "f") (result i64) (memory.fill (i32.const 0) (i32.const 1) (i32.const 4194304)) (i64.const 1)))"""
    with Plugin(
        manifest(("lib", command), ("main", asking_module("lib", "f")), memory={"max_pages": 80})
    ) as plugin:
        number(plugin.call("ask"))
        before = resident()
        for _ in range(50):
            number(plugin.call("ask"))
        assert resident() - before < 40 * 2**20


def resident() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * 4096


# What cannot be linked


def link_error(source: Any, **options: Any) -> str:
    with pytest.raises(LinkError) as caught:
        CompiledPlugin(source, **options)
    return str(caught.value)


def test_unknown_env_function() -> None:
    """The error for an unknown environment function says that the kit may be newer."""
    text = link_error(
        '(module (import "extism:host/env" "brand_new" (func (param i64) (result i64))))'
    )
    for part in ("plugin `", "extism:host/env.brand_new", "(i64) -> (i64)", "newer than this host"):
        assert part in text


@pytest.mark.parametrize(
    "item",
    [
        '"memory" (memory 1)',
        '"extism_context" (global (mut externref))',
        '"alloc" (table 1 funcref)',
        '"anything" (global i32)',
    ],
)
def test_env_has_functions_only(item: str) -> None:
    """Only functions can be imported from the environment."""
    text = link_error(f'(module (import "extism:host/env" {item}))')
    assert "extism:host/env." + item.split('"')[1] in text
    assert "only functions" in text


def test_kernel_internal_exports() -> None:
    """The kernel exports that only the host uses cannot be imported."""
    for name in (
        "book",
        "reserve",
        "failure",
        "call_returning_code",
        "call_returning_nothing",
        "may_grow",
    ):
        for kind in (
            "(memory 1)",
            "(func)",
            "(func (param i64) (result i32))",
            "(func (param i64) (result i64))",
        ):
            with pytest.raises(MissingImportError):
                CompiledPlugin(f'(module (import "extism:host/env" "{name}" {kind}))')


@pytest.mark.parametrize("namespace", ["wasi_snapshot_preview1", "wasi_unstable"])
def test_wasi_not_granted(namespace: str) -> None:
    """If WASI is not granted, the error says how to grant it."""
    text = link_error(
        f'(module (import "{namespace}" "fd_write" (func (param i32 i32 i32 i32) (result i32))))'
    )
    for part in (f"{namespace}.fd_write", "wasi=True"):
        assert part in text


def test_wasi_unknown_function() -> None:
    """The error for an unknown WASI function names it."""
    text = link_error(
        '(module (import "wasi_snapshot_preview1" "fd_teleport" (func (param i32) (result i32))))',
        wasi=True,
    )
    assert "wasi_snapshot_preview1.fd_teleport" in text
    text = link_error(
        '(module (import "wasi_unstable" "fd_write" (func (param i32 i32 i32 i32) (result i32))))',
        wasi=True,
    )
    assert "wasi_unstable.fd_write" in text


@pytest.mark.parametrize(
    "item",
    [
        '"lost" (func (param f32))',
        '"lost" (memory 1)',
        '"lost" (global i32)',
        '"lost" (table 0 funcref)',
    ],
)
def test_missing_import_hint(item: str) -> None:
    """The error for an import that nothing provides names it and gives a hint."""
    text = link_error(
        manifest(("helper", f'(module (import "some where" {item}))'), ("main", "(module)"))
    )
    for part in ("`helper`", "some where.lost", "host function"):
        assert part in text


@pytest.mark.parametrize(
    ("source", "options", "offered"),
    [
        (
            '(module (import "extism:host/env" "alloc" (func (param i32) (result i64))))',
            {},
            "(i64) -> (i64)",
        ),
        (
            '(module (import "extism:host/env" "config_get" (func (param i64))))',
            {},
            "(i64) -> (i64)",
        ),
        (
            '(module (import "wasi_snapshot_preview1" "sched_yield" (func)))',
            {"wasi": True},
            "() -> (i32)",
        ),
        (
            '(module (import "extism:host/user" "f" (func)))',
            {"functions": [host(None, "f", 1)]},
            "() -> (i64)",
        ),
        (
            '(module (import "extism:host/user" "f" (func (result i32))))',
            {"functions": [host(None, "f", 1)]},
            "() -> (i64)",
        ),
        (
            '(module (import "extism:host/user" "f" (func (result v128))))',
            {"functions": [host(None, "f", 1)]},
            "() -> (i64)",
        ),
    ],
)
def test_wrong_signature(source: str, options: dict[str, Any], offered: str) -> None:
    """A wrong signature is refused, and the error shows both types."""
    text = link_error(source, **options)
    assert offered in text
    assert source.split('"')[3] in text


def test_wrong_signature_between_modules() -> None:
    """A wrong signature between modules is refused."""
    text = link_error(
        manifest(
            ("lib", returning_module("f", 1)),
            ("main", '(module (import "lib" "f" (func (result i32))))'),
        )
    )
    for part in ("`main`", "lib.f", "() -> (i32)", "() -> (i64)"):
        assert part in text


def test_wrong_kind_between_modules() -> None:
    """An import of the wrong kind between modules is refused."""
    text = link_error(
        manifest(
            ("lib", returning_module("f", 1)), ("main", '(module (import "lib" "f" (memory 1)))')
        )
    )
    for part in ("`main`", "lib.f", "`lib`", "function"):
        assert part in text


@pytest.mark.parametrize(
    ("offered", "wanted"),
    [
        ('(memory (export "x") 1)', "(memory 2)"),
        ('(memory (export "x") 1)', "(memory 1 1)"),
        ('(global (export "x") i32 (i32.const 1))', "(global i64)"),
        ('(global (export "x") i32 (i32.const 1))', "(global (mut i32))"),
        ('(table (export "x") 1 funcref)', "(table 2 funcref)"),
    ],
)
def test_mismatched_memory_global_or_table(offered: str, wanted: str) -> None:
    """Memories, globals and tables that do not match are one of our errors."""
    main = guest(export("f", ""), f'(import "lib" "x" {wanted})', memory="")
    with (
        pytest.raises(LinkError, match=r"main|plugin"),
        Plugin(manifest(("lib", f"(module {offered})"), ("main", main))) as plugin,
    ):
        plugin.call("f")


def test_missing_import_of_linked_module() -> None:
    """A missing import of a linked module is found before any call."""
    assert "`lib`" in link_error(
        manifest(("lib", '(module (import "x" "y" (func)))'), ("main", "(module)"))
    )


def test_imports_and_exports() -> None:
    """The imports and exports of the main module are listed with their types."""
    compiled = CompiledPlugin(
        manifest(
            ("lib", returning_module("f", 1)),
            (
                "main",
                """(module (import "lib" "f" (func (result i64))) (import "extism:host/env" "alloc" (func (param i64) (result i64)))
                (memory (export "memory") 1) (func (export "run") (result i32) (i32.const 0))
                (global (export "g") i32 (i32.const 0)) (table (export "t") 1 funcref))""",
            ),
        )
    )
    assert [(i.module, i.name, i.kind, repr(i.type)) for i in compiled.imports] == [
        ("lib", "f", "function", "() -> (i64)"),
        ("extism:host/env", "alloc", "function", "(i64) -> (i64)"),
    ]
    assert [(i.name, i.kind, i.type and i.type.results) for i in compiled.exports] == [
        ("memory", "memory", None),
        ("run", "function", ("i32",)),
        ("g", "global", None),
        ("t", "table", None),
    ]
    with Plugin(compiled) as plugin:
        assert plugin.exports == compiled.exports
        assert plugin.imports == compiled.imports


# Types that the host cannot pass


ODD_TYPES = ["v128", "externref", "funcref", "(ref extern)", "(ref null $t)", "exnref"]


@pytest.mark.parametrize("type", ODD_TYPES)
def test_uncallable_export_type(type: str) -> None:
    """A function of any type may be exported, even if the host cannot call it."""
    source = f"""(module (type $t (func)) (func (export "odd") (param {type}) (result i32) (i32.const 0))
        (func (export "good") (result i32) (i32.const 0)))"""
    with Plugin(source) as plugin:
        assert not plugin.function_exists("odd")
        with pytest.raises(plugwasm.SignatureError, match="odd"):
            plugin.call("odd")
        assert plugin.call("good") == b""


@pytest.mark.parametrize("type", ODD_TYPES)
def test_missing_import_of_any_type(type: str) -> None:
    """A missing function of any type is reported as a missing import."""
    text = link_error(f'(module (type $t (func)) (import "lib" "odd" (func (param {type}))))')
    assert "lib.odd" in text


@pytest.mark.parametrize("type", ODD_TYPES)
def test_any_type_between_modules(type: str) -> None:
    """Modules can pass each other values of any type."""
    lib = f'(module (type $t (func)) (func (export "f") (param {type}) (result i64) (i64.const 4)))'
    value = {
        "v128": "(v128.const i64x2 1 2)",
        "(ref extern)": "(ref.as_non_null (local.get $e))",
        "(ref null $t)": "(ref.null $t)",
    }.get(type, f"(ref.null {type.removesuffix('ref')})")
    use = export(
        "ask",
        f"(if (i32.eqz (i32.const 0)) (then (call $answer (i64.const 4))) (else (drop (call $f {value}))))",
        "(local $e externref)",
    )
    main = guest(
        use, "(type $t (func))", f'(import "lib" "f" (func $f (param {type}) (result i64)))'
    )
    assert call_ask(manifest(("lib", lib), ("main", main))) == 4


@pytest.mark.parametrize("type", ODD_TYPES)
def test_any_type_to_command_is_refused(type: str) -> None:
    """A command is refused if the host would have to pass a value that it cannot."""
    command = (
        f'(module (type $t (func)) (func (export "_start")) (func (export "f") (param {type})))'
    )
    text = link_error(
        manifest(
            ("tool", command),
            f'(module (type $t (func)) (import "tool" "f" (func (param {type}))))',
        )
    )
    assert "tool.f" in text
    assert "i32, i64, f32 and f64" in text


@pytest.mark.parametrize("type", ODD_TYPES)
@pytest.mark.parametrize("place", ["param", "result"])
def test_any_type_in_cycle_is_refused(type: str, place: str) -> None:
    """A cycle is refused if the host would have to pass a value that it cannot."""
    b = f'(module (type $t (func)) (import "a" "g" (func)) (func (export "f") ({place} {type}) unreachable))'
    a = f'(module (type $t (func)) (import "b" "f" (func ({place} {type}))) (func (export "g")))'
    text = link_error(manifest(("b", b), ("a", a), "(module)"))
    assert "b.f" in text
    assert "i32, i64, f32 and f64" in text
