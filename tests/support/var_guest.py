"""A guest that does a list of operations with vars and config, and a model of what they must do."""

from __future__ import annotations

import struct
from typing import Any

from plugwasm import CurrentPlugin, Error, GuestError, Limits, OutOfMemoryError, Plugin, TrapError
from plugwasm._host.functions import infer_function

from .guests import guest

GET, SET, SET_TO_ITSELF, SETTING, HOST_GET, HOST_SET, TRAP = range(7)

SOURCE = guest(
    """
    (global $at (mut i64) (i64.const 0))
    (func $byte (result i64)
      (global.set $at (i64.add (global.get $at) (i64.const 1)))
      (i64.extend_i32_u (call $input_load_u8 (i64.sub (global.get $at) (i64.const 1)))))
    (func $number (result i64) (i64.or (call $byte) (i64.shl (call $byte) (i64.const 8))))
    (func $block (param $length i64) (result i64) (local $block i64) (local $i i64)
      (local.set $block (call $alloc (local.get $length)))
      (block $done (loop $next
        (br_if $done (i64.ge_u (local.get $i) (local.get $length)))
        (call $store_u8 (i64.add (local.get $block) (local.get $i)) (i32.wrap_i64 (call $byte)))
        (local.set $i (i64.add (local.get $i) (i64.const 1)))
        (br $next)))
      (local.get $block))
    (func (export "run") (local $what i64) (local $n i64) (local $m i64) (local $k i64) (local $v i64)
      (global.set $at (i64.const 0))
      (block $done (loop $next
        (br_if $done (i64.ge_u (global.get $at) (call $input_length)))
        (local.set $what (call $byte))
        (local.set $n (call $number))
        (local.set $m (call $number))
        (local.set $k (call $block (local.get $n)))
        (local.set $v (call $block (local.get $m)))
        (if (i64.eq (local.get $what) (i64.const 0)) (then (call $seen (call $var_get (local.get $k)))))
        (if (i64.eq (local.get $what) (i64.const 1)) (then (call $var_set (local.get $k) (local.get $v))))
        (if (i64.eq (local.get $what) (i64.const 2)) (then (call $var_set (local.get $k) (local.get $k))))
        (if (i64.eq (local.get $what) (i64.const 3)) (then (call $seen (call $config_get (local.get $k)))))
        (if (i64.eq (local.get $what) (i64.const 4)) (then (call $host_get (local.get $k))))
        (if (i64.eq (local.get $what) (i64.const 5)) (then (call $host_set (local.get $k) (local.get $v))))
        (if (i64.eq (local.get $what) (i64.const 6)) (then unreachable))
        (br $next))))""",
    '(import "extism:host/user" "seen" (func $seen (param i64)))',
    '(import "extism:host/user" "host_get" (func $host_get (param i64)))',
    '(import "extism:host/user" "host_set" (func $host_set (param i64 i64)))',
)

Operation = tuple[int, bytes, bytes]


def encode(operations: list[Operation]) -> bytes:
    return b"".join(
        struct.pack("<BHH", what, len(name), len(value)) + name + value
        for what, name, value in operations
    )


class Ends(Exception):
    """The call ends here, with an error of that class."""

    def __init__(self, kind: type[Error]) -> None:
        self.kind = kind


class Model:
    """What the operations must do: a dict and its limits."""

    def __init__(self, limits: Limits, config: dict[str, str]) -> None:
        self.limits = limits
        self.config = config
        self.vars: dict[bytes, bytes] = {}
        self.seen: list[bytes | None] = []

    def run(self, operations: list[Operation]) -> type[Error] | None:
        try:
            for what, name, value in operations:
                self.do(what, name, value)
        except Ends as end:
            return end.kind
        return None

    def do(self, what: int, name: bytes, value: bytes) -> None:
        if what == GET:
            self.seen.append(self.vars.get(name, b""))
        elif what == SET:
            self.guest_set(name, value or None)
        elif what == SET_TO_ITSELF:
            self.guest_set(name, name or None)
        elif what == SETTING:
            found = self.config.get(name.decode("utf-8", "backslashreplace"), "")
            self.seen.append(found.encode())
        elif what == HOST_GET:
            self.seen.append(self.vars.get(name))
        elif what == HOST_SET:
            self.set(name, value, OutOfMemoryError)
        else:
            raise Ends(TrapError)

    def guest_set(self, name: bytes, value: bytes | None) -> None:
        if self.limits.var_bytes == 0:
            raise Ends(GuestError)
        self.set(name, value, GuestError)

    def set(self, name: bytes, value: bytes | None, kind: type[Error]) -> None:
        changed = {n: v for n, v in self.vars.items() if n != name or value is not None}
        if value is not None:
            changed[name] = value
            size = sum(len(n) + len(v) for n, v in changed.items())
            if size > self.limits.var_bytes or len(changed) > self.limits.vars:
                raise Ends(kind)
        self.vars = changed


class Checked:
    """A plugin and its model, which must do the same."""

    def __init__(self, limits: Limits, config: dict[str, str], **options: Any) -> None:
        self.model = Model(limits, config)
        self.seen: list[bytes | None] = []

        def seen(data: bytes) -> None:
            self.seen.append(data)

        def host_get(plugin: CurrentPlugin, name: bytes) -> None:
            self.seen.append(plugin.var(name))

        def host_set(plugin: CurrentPlugin, name: bytes, value: bytes) -> None:
            plugin.set_var(name, value)

        functions = [infer_function(None, f.__name__, f) for f in (seen, host_get, host_set)]
        self.plugin = Plugin(SOURCE, limits=limits, config=config, functions=functions, **options)

    def run(self, operations: list[Operation]) -> None:
        expected = self.model.run(operations)
        ended = None
        try:
            self.plugin.call("run", encode(operations))
        except Error as error:
            ended = type(error)
            cause = error.__cause__
            if isinstance(cause, Error):
                ended = type(cause)
        assert ended is expected
        assert self.seen == self.model.seen
        self.check_vars()

    def check_vars(self) -> None:
        now = {n.encode("utf-8", "surrogateescape"): v for n, v in self.plugin.vars.items()}
        assert list(now.items()) == list(self.model.vars.items())
