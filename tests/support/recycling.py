"""A guest that counts its calls, and can leak memory."""

from __future__ import annotations

from typing import Any

from tests.support.guests import export, guest

PAGE = 65536

_LEAK = "(if (i32.eq (memory.grow (i32.const {pages})) (i32.const -1)) (then (unreachable)))"
COUNTS = guest(
    "(global $n (mut i64) (i64.const 0))"
    '(func $count (export "count") (global.set $n (i64.add (global.get $n) (i64.const 1)))'
    " (call $answer (global.get $n)))"
    + export("grow", _LEAK.format(pages=1) + "(call $count)")
    + export("grow_and_fail", _LEAK.format(pages=200) + "(call $error_set <<full>>)")
    + export("fail", "(call $error_set <<no>>)")
    + export("trap", "(unreachable)")
    + export("echo", "(call $echo)")
)
"""`count` and `grow` answer how often they were called on this instance; `grow` leaks a page."""


def count(plugin: Any, function: str = "count") -> int:
    """Return the number of calls of `count` and `grow` on the instance."""
    return int.from_bytes(plugin.call(function), "little")


def counts(plugin: Any, calls: int) -> list[int]:
    """Return the answers of so many calls."""
    return [count(plugin) for _ in range(calls)]
