"""What an instance takes outside of its memories."""

from __future__ import annotations

import gc
import tracemalloc

from plugwasm import CompiledPlugin, Plugin

ECHO = b"""(module
  (import "extism:host/env" "input_offset" (func $offset (result i64)))
  (import "extism:host/env" "input_length" (func $length (result i64)))
  (import "extism:host/env" "output_set" (func $output_set (param i64 i64)))
  (memory (export "memory") 1)
  (func (export "echo") (call $output_set (call $offset) (call $length))))"""


def test_python_objects_are_bounded() -> None:
    """Thousands of live instances are common, so each has few objects: 4.7 KB with the plugin."""
    compiled = CompiledPlugin(ECHO, functions=[])

    def start(count: int) -> list[Plugin]:
        plugins = [Plugin(compiled) for _ in range(count)]
        for plugin in plugins:
            assert plugin.call("echo", b"0123456789") == b"0123456789"
        return plugins

    first = start(5)
    gc.collect()
    tracemalloc.start()
    try:
        live = start(100)
        gc.collect()
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(first) + len(live) == 105
    assert taken / 100 < 5_500
