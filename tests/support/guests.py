"""Guests for tests as WAT: a module around a few functions, with the imports that they use.

In the text, `<<some text>>` stands for a new block of Extism memory with that content (an i64
handle), and using `$name` of anything in `ENV` imports it. Four functions are defined if they are
used: `$put` (makes a block of bytes of the guest's memory), `$give` (makes a block the output),
`$answer` (makes an i64 the output, little endian) and `$echo` (makes the input the output).
"""

from __future__ import annotations

import re
from typing import Any

ENV = {
    "alloc": "(param i64) (result i64)",
    "free": "(param i64)",
    "length": "(param i64) (result i64)",
    "length_unsafe": "(param i64) (result i64)",
    "load_u8": "(param i64) (result i32)",
    "load_u64": "(param i64) (result i64)",
    "store_u8": "(param i64 i32)",
    "store_u64": "(param i64 i64)",
    "input_load_u8": "(param i64) (result i32)",
    "input_load_u64": "(param i64) (result i64)",
    "input_set": "(param i64 i64)",
    "input_length": "(result i64)",
    "input_offset": "(result i64)",
    "output_set": "(param i64 i64)",
    "output_length": "(result i64)",
    "output_offset": "(result i64)",
    "error_set": "(param i64)",
    "error_get": "(result i64)",
    "reset": "",
    "memory_bytes": "(result i64)",
    "config_get": "(param i64) (result i64)",
    "var_get": "(param i64) (result i64)",
    "var_set": "(param i64 i64)",
    "http_request": "(param i64 i64) (result i64)",
    "http_status_code": "(result i32)",
    "http_headers": "(result i64)",
    "log_trace": "(param i64)",
    "log_debug": "(param i64)",
    "log_info": "(param i64)",
    "log_warn": "(param i64)",
    "log_error": "(param i64)",
    "get_log_level": "(result i32)",
}

_PARTS = {
    "answer": """
        (func $answer (param $value i64) (local $block i64)
          (local.set $block (call $alloc (i64.const 8)))
          (call $store_u64 (local.get $block) (local.get $value))
          (call $output_set (local.get $block) (i64.const 8)))""",
    "give": """
        (func $give (param $block i64)
          (call $output_set (local.get $block) (call $length (local.get $block))))""",
    "echo": """
        (func $echo (call $output_set (call $input_offset) (call $input_length)))""",
    "put": """
        (func $put (param $at i32) (param $size i32) (result i64) (local $block i64) (local $i i32)
          (local.set $block (call $alloc (i64.extend_i32_u (local.get $size))))
          (block $done (loop $next
            (br_if $done (i32.eq (local.get $i) (local.get $size)))
            (call $store_u8 (i64.add (local.get $block) (i64.extend_i32_u (local.get $i)))
                            (i32.load8_u (i32.add (local.get $at) (local.get $i))))
            (local.set $i (i32.add (local.get $i) (i32.const 1)))
            (br $next)))
          (local.get $block))""",
    "copy": """
        (func $copy (result i64) (local $block i64) (local $i i64)
          (local.set $block (call $alloc (call $input_length)))
          (block $done (loop $next
            (br_if $done (i64.eq (local.get $i) (call $input_length)))
            (call $store_u8 (i64.add (local.get $block) (local.get $i)) (call $input_load_u8 (local.get $i)))
            (local.set $i (i64.add (local.get $i) (i64.const 1)))
            (br $next)))
          (local.get $block))""",
}

LOOP = "(loop $forever (br $forever))"
MEMORY = '(memory (export "memory") 1)'


def guest(body: str, *imports: str, memory: str | None = None) -> str:
    """Return the text of a module with these functions and further imports, and a memory if it
    needs one or one is given."""
    data = bytearray()

    def place(match: re.Match[str]) -> str:
        text = match[1].encode()
        at = 1024 + len(data)
        data.extend(text)
        return f"(call $put (i32.const {at}) (i32.const {len(text)}))"

    body = re.sub(r"<<(.*?)>>", place, body, flags=re.DOTALL)
    for name, part in _PARTS.items():
        if f"(call ${name}" in body:
            body += part
    used = [
        f'(import "extism:host/env" "{name}" (func ${name} {type}))'
        for name, type in ENV.items()
        if re.search(rf"\${name}(?!\w)", body)
    ]
    if memory is None:
        memory = MEMORY if "load8_u" in body or data else ""
    escaped = "".join(f"\\{byte:02x}" for byte in data)
    segment = f'(data (i32.const 1024) "{escaped}")' if data else ""
    return "(module\n" + "\n".join([*imports, *used, memory, segment, body]) + ")"


def export(name: str, code: str, locals: str = "") -> str:
    """Return an exported function () -> () with that name and body."""
    return f'(func (export "{name}") {locals} {code})'


def manifest(*modules: str | tuple[str, str], **fields: Any) -> dict[str, Any]:
    """Return a manifest with these modules: WAT, or pairs of a name and WAT."""
    wasm = [
        {"data": m.encode()} if isinstance(m, str) else {"name": m[0], "data": m[1].encode()}
        for m in modules
    ]
    return {"wasm": wasm, **fields}


def number(output: bytes) -> int:
    """Decode the output that `$answer` sets."""
    assert len(output) == 8
    return int.from_bytes(output, "little", signed=True)
