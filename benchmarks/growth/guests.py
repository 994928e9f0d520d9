"""Modules that do one thing: nothing, or many calls of one function of the host."""

from __future__ import annotations

LOOPS = 1000
KEY = "0123456789abcdef"

_IMPORTS = {
    "alloc": "(param i64) (result i64)",
    "free": "(param i64)",
    "length": "(param i64) (result i64)",
    "input_length": "(result i64)",
    "store_u64": "(param i64 i64)",
    "config_get": "(param i64) (result i64)",
    "var_get": "(param i64) (result i64)",
    "var_set": "(param i64 i64)",
    "log_debug": "(param i64)",
}
_USER = {
    "nothing": "",
    "number": "(param i64) (result i64)",
    "text": "(param i64) (result i64)",
}

BODIES: dict[str, tuple[str, str]] = {
    "input_length": ("a function of the kernel: `input_length`", "(drop (call $input_length))"),
    "alloc": ("`alloc` and `free` of 16 bytes", "(call $free (call $alloc (i64.const 16)))"),
    "block": ("the same with the 16 bytes written", "(call $free (call $key))"),
    "log": (
        "such a block logged, at a level that nobody listens to",
        "(call $log_debug (call $key))",
    ),
    "config": (
        "`config_get`, with the blocks of name and value",
        "(call $free (call $config_get (call $key)))",
    ),
    "var_get": (
        "`var_get`, with the blocks of name and value",
        "(call $free (call $var_get (call $key)))",
    ),
    "var_set": (
        "`var_set`, with the blocks of name and value",
        "(call $var_set (call $key) (call $key))",
    ),
    "nothing": ("a host function without values", "(call $nothing)"),
    "number": ("a host function, `int` → `int`", "(drop (call $number (i64.const 1)))"),
    "text": (
        "a host function, `str` → `str`, with the blocks of both",
        "(call $free (call $text (call $key)))",
    ),
}
"""What a guest repeats, by name: what it is called in tables, and its body."""


def empty() -> bytes:
    """Return a module whose function `nothing` does nothing."""
    from wasmtime import wat2wasm

    return bytes(wat2wasm('(module (func (export "nothing") (result i32) (i32.const 0)))'))


def repeating(name: str) -> bytes:
    """Return a module whose function `run` does `LOOPS` times what stands in `BODIES`."""
    from wasmtime import wat2wasm

    body = BODIES[name][1]
    imports = "".join(
        f'(import "{space}" "{imported}" (func ${imported} {signature}))'
        for space, found in (("extism:host/env", _IMPORTS), ("extism:host/user", _USER))
        for imported, signature in found.items()
        if f"${imported})" in body or f"${imported} " in body or imported in ("alloc", "store_u64")
    )
    halves = [int.from_bytes(KEY[at : at + 8].encode(), "little") for at in (0, 8)]
    return bytes(
        wat2wasm(
            f"""(module {imports}
  (func $key (result i64) (local $at i64)
    (local.set $at (call $alloc (i64.const 16)))
    (call $store_u64 (local.get $at) (i64.const {halves[0]}))
    (call $store_u64 (i64.add (local.get $at) (i64.const 8)) (i64.const {halves[1]}))
    (local.get $at))
  (func (export "run") (result i32) (local $i i32)
    (loop $next
      {body}
      (br_if $next (i32.lt_u
        (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const {LOOPS}))))
    (i32.const 0)))"""
        )
    )
