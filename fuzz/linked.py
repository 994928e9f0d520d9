"""Modules that import from each other link and run, or are refused with a plugwasm error.

None reaches freed memory. The modules are generated: commands, reactors, both and neither, with
imports in all directions (circles, too) of functions, memories, tables and globals, functions with
numbers, references and vectors, references that are kept in tables and globals and called later,
and WASI functions that are exported again. Whatever the first calls did, a function that only
answers works afterwards.
"""

from __future__ import annotations

import contextlib
from typing import NamedTuple

import plugwasm
from plugwasm.errors import EngineError

from .choices import Choices

COVERED: list[str] = []
SIZES = (6, 10)
TIMEOUT_MS = 250
MAX_PAGES = 64
FUEL = 2_000_000

WASI = {
    "clock_time_get": (("i32", "i64", "i32"), ("i32",)),
    "random_get": (("i32", "i32"), ("i32",)),
    "sched_yield": ((), ("i32",)),
    "fd_write": (("i32", "i32", "i32", "i32"), ("i32",)),
}
ENV = {
    "alloc": (("i64",), ("i64",)),
    "length": (("i64",), ("i64",)),
    "memory_bytes": ((), ("i64",)),
    "output_set": (("i64", "i64"), ()),
}

Signature = tuple[tuple[str, ...], tuple[str, ...]]
# Mostly types that can be passed between stores, so that most sets link.
SIGNATURES: tuple[Signature, ...] = (
    *(
        ((), ()),
        ((), ("i32",)),
        (("i32",), ("i32",)),
        (("i32", "i64", "f32", "f64"), ("f64", "i32")),
    ),
    *(((), ()), ((), ("i32",)), (("funcref",), ()), ((), ("funcref",))),
    *((("externref",), ("externref",)), (("v128",), ()), ((), ("v128",)), (("exnref",), ())),
)
_CONSTANTS = {
    "f32": "(f32.const nan:0x1)",
    "f64": "(f64.const -0.5)",
    "externref": "(ref.null extern)",
    "exnref": "(ref.null exn)",
    "v128": "(v128.const i64x2 1 2)",
}
_KINDS = ("reactor", "command", "command", "plain", "both")
_ITEMS = {
    "memory": "(memory 1)",
    "table": "(table 4 funcref)",
    "global": "(global (mut i32))",
    "kept": "(global (mut funcref))",
}
FUNCTIONS = 3

SEEDS = [
    bytes([modules, *range(seed, seed + 60)]) for modules in range(4) for seed in range(0, 160, 40)
]


class Module(NamedTuple):
    """A module as the others see it."""

    name: str
    kind: str
    functions: tuple[Signature, ...]
    items: tuple[str, ...]


def check(data: bytes) -> None:
    texts, wasi, fuel = build(data)
    wasm = [{"name": name, "data": text.encode()} for name, text in texts.items()]
    manifest = {"wasm": wasm, "timeout_ms": TIMEOUT_MS, "memory": {"max_pages": MAX_PAGES}}
    try:
        compiled = plugwasm.CompiledPlugin(
            manifest, wasi=wasi, functions=(), fuel_limit=FUEL if fuel else None
        )
    except EngineError:
        raise
    except plugwasm.Error as error:
        assert str(error)
        return
    with plugwasm.Plugin(compiled) as plugin:
        for name in ("run", "again", "run", "yield", "again"):
            with contextlib.suppress(plugwasm.Error):
                plugin.call(name)
        with contextlib.suppress(plugwasm.Error):
            plugin.reset()
            assert plugin.call("good") == b""


def describe(data: bytes) -> str:
    texts, wasi, fuel = build(data)
    return f"wasi={wasi}, {'fuel' if fuel else 'no fuel limit'}\n" + "\n".join(
        f";; {name}\n{text}" for name, text in texts.items()
    )


def build(data: bytes) -> tuple[dict[str, str], bool, bool]:
    """Return the modules by name, whether there is WASI, and whether fuel is limited."""
    choices = Choices(data)
    count = 2 + choices.below(4)
    wasi, fuel = not choices.rarely(16), choices.rarely(2)
    modules = [
        _module(choices, "main" if index == count - 1 else f"m{index}") for index in range(count)
    ]
    return {module.name: _text(choices, module, modules) for module in modules}, wasi, fuel


def _module(choices: Choices, name: str) -> Module:
    kind = "plain" if name == "main" else choices.pick(_KINDS)
    functions = tuple(choices.pick(SIGNATURES) for _ in range(FUNCTIONS))
    return Module(name, kind, functions, tuple(item for item in _ITEMS if choices.rarely(2)))


def _text(choices: Choices, module: Module, modules: list[Module]) -> str:
    imports, callable_ = [], []
    for index in range(1 + choices.below(6)):
        other = choices.pick(modules)
        number = choices.below(FUNCTIONS)
        takes_item = bool(other.items) and choices.rarely(4)
        if not choices.rarely(12) and not _would_link(
            module, other, modules, None if takes_item else other.functions[number]
        ):
            continue
        if takes_item:
            item = choices.pick(other.items)
            imports.append(f'(import "{other.name}" "{item}" {_ITEMS[item]})')
        else:
            imports.append(
                _function_import(f"$i{index}", other.name, f"f{number}", other.functions[number])
            )
            callable_.append((f"$i{index}", other.functions[number]))
    for space, served in (("wasi_snapshot_preview1", WASI), ("extism:host/env", ENV)):
        for name in served:
            if choices.rarely(2):
                imports.append(_function_import(f"${name}", space, name, served[name]))
                callable_.append((f"${name}", served[name]))
    own = [(f"$f{number}", signature) for number, signature in enumerate(module.functions)]
    body = [
        '(memory $own (export "memory") 1)' if "memory" in module.items else "(memory $own 1)",
        f"(table $own {_exported(module, 'table')} 4 funcref)",
        f"(global {_exported(module, 'global')} (mut i32) (i32.const 0))",
        f"(global $kept {_exported(module, 'kept')} (mut funcref) (ref.null func))",
        "(type $nothing (func))",
        *(_function(choices, name, signature, callable_ + own) for name, signature in own),
        f"(elem declare func {' '.join(name for name, _ in own + callable_)})",
    ]
    if module.kind in ("command", "both"):
        body.append('(func (export "_start"))')
    if module.kind in ("reactor", "both"):
        body.append(
            '(func (export "_initialize") '
            f"{_code(choices, callable_, ((), ())) if choices.rarely(3) else ''})"
        )
    if module.name == "main":
        body += [
            f'(func (export "{name}") {_code(choices, callable_ + own, ((), ()))})'
            for name in ("run", "again")
        ]
        body.append('(func (export "good"))')
        if any(name == "$sched_yield" for name, _ in callable_):
            body.append('(export "yield" (func $sched_yield))')
    elif any(name == "$clock_time_get" for name, _ in callable_) and choices.rarely(2):
        body.append('(export "clock" (func $clock_time_get))')
    return "(module\n  " + "\n  ".join([*imports, *body]) + ")"


def _would_link(
    module: Module, other: Module, modules: list[Module], signature: Signature | None
) -> bool:
    """Return whether an import is valid by itself, apart from circles of functions; None is the
    type of what is not a function."""
    is_circle = modules.index(other) >= modules.index(module)
    if signature is None:
        return not is_circle and other.kind != "command"
    passes_numbers = {"i32", "i64", "f32", "f64"}.issuperset(signature[0] + signature[1])
    return passes_numbers or not (is_circle or "command" in (module.kind, other.kind))


def _exported(module: Module, item: str) -> str:
    return f'(export "{item}")' if item in module.items else ""


def _declared(signature: Signature) -> str:
    params, results = signature
    return (f"(param {' '.join(params)})" if params else "") + (
        f" (result {' '.join(results)})" if results else ""
    )


def _function_import(local: str, module: str, name: str, signature: Signature) -> str:
    return f'(import "{module}" "{name}" (func {local} {_declared(signature)}))'


def _function(
    choices: Choices, name: str, signature: Signature, callable_: list[tuple[str, Signature]]
) -> str:
    kept = (
        f"(table.set $own (i32.const {choices.below(4)}) (local.get 0))"
        if signature[0][:1] == ("funcref",)
        else ""
    )
    code = _code(choices, callable_, signature)
    return f'(func {name} (export "{name[1:]}") {_declared(signature)} {kept} {code})'


def _code(choices: Choices, callable_: list[tuple[str, Signature]], signature: Signature) -> str:
    """Return a few statements, and values for the results."""
    statements = [_statement(choices, callable_) for _ in range(choices.below(6))]
    return " ".join([*statements, *(_value(choices, type, callable_) for type in signature[1])])


def _statement(choices: Choices, callable_: list[tuple[str, Signature]]) -> str:
    kind = choices.below(10)
    slot = f"(i32.const {choices.below(5)})"
    if kind == 0:
        return f"(table.set $own {slot} {_value(choices, 'funcref', callable_)})"
    if kind == 1:
        return f"(call_indirect $own (type $nothing) {slot})"
    if kind == 2:
        return f"(global.set $kept {_value(choices, 'funcref', callable_)})"
    if kind == 3:
        return f"(table.set $own {slot} (global.get $kept))"
    if kind == 4:
        return f"(drop (memory.grow $own (i32.const {choices.below(3)})))"
    if not callable_:
        return "(nop)"
    name, (params, results) = choices.pick(callable_)
    call = f"(call {name} {' '.join(_value(choices, type, callable_) for type in params)})"
    if results == ("funcref",) and choices.rarely(2):
        return f"(table.set $own {slot} {call})"
    return call + " (drop)" * len(results)


def _value(choices: Choices, type: str, callable_: list[tuple[str, Signature]]) -> str:
    if type == "funcref":
        what = choices.below(4)
        if what == 0 or not callable_:
            return "(ref.null func)"
        if what == 1:
            return "(global.get $kept)"
        if what == 2:
            return f"(table.get $own (i32.const {choices.below(4)}))"
        return f"(ref.func {choices.pick(callable_)[0]})"
    if type in ("i32", "i64"):
        return f"({type}.const {choices.pick((0, 1, 8, 64, 1024, 65535, 65536, -1, 2147483647))})"
    return _CONSTANTS[type]
