"""Plugins and plugin directories for tests of plugin sets."""

from __future__ import annotations

import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import plugwasm
import plugwasm.aio
from plugwasm import host_fn
from plugwasm._plugin_set import plugin_set
from plugwasm.plugin_set import PluginSet
from tests.support.guests import export, guest

SAYS = "(call $give <<{}>>)"
FAILS = '(func (export "hook") (result i32) (call $error_set <<not today>>) (i32.const 1))'
ENTRY = '(import "extism:host/user" "enter" (func $enter))'


def text_plugin(text: str, hook: str = "hook") -> str:
    return guest(export(hook, SAYS.format(text)))


def appending_plugin(letter: str, hook: str = "hook") -> str:
    """Return a plugin whose output is its input plus that letter."""
    return guest(
        f"""(func (export "{hook}") (local $block i64) (local $n i64) (local $i i64)
          (local.set $n (call $input_length))
          (local.set $block (call $alloc (i64.add (local.get $n) (i64.const 1))))
          (block $done (loop $next
            (br_if $done (i64.eq (local.get $i) (local.get $n)))
            (call $store_u8 (i64.add (local.get $block) (local.get $i)) (call $input_load_u8 (local.get $i)))
            (local.set $i (i64.add (local.get $i) (i64.const 1)))
            (br $next)))
          (call $store_u8 (i64.add (local.get $block) (local.get $n)) (i32.const {ord(letter)}))
          (call $output_set (local.get $block) (i64.add (local.get $n) (i64.const 1))))"""
    )


SILENT = guest(export("hook", ""))
FAILING = guest(FAILS)
TRAPS = guest(export("hook", "unreachable"))
COUNTS = guest(
    "(global $n (mut i64) (i64.const 0))"
    + export(
        "hook",
        "(global.set $n (i64.add (global.get $n) (i64.const 1))) (call $answer (global.get $n))",
    )
)
CONFIG = guest(export("hook", "(call $give (call $config_get <<k>>))"))


def wat(*names_and_texts: str) -> dict[str, bytes]:
    return {
        name: text.encode()
        for name, text in zip(names_and_texts[::2], names_and_texts[1::2], strict=True)
    }


def write_file(path: Path, text: str | bytes) -> Path:
    """Write a file atomically, as an installer does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    new.write_bytes(text.encode() if isinstance(text, str) else text)
    new.replace(path)
    return path


def make_folder(
    path: Path, about: str, module: str | None = None, name: str = "plugin.toml"
) -> Path:
    write_file(path / name, textwrap.dedent(about))
    if module is not None:
        write_file(path / "plugin.wasm", module)
    return path


def description_of(plugins: PluginSet, name: str) -> plugin_set.Description:
    (found,) = [description for description in plugins.describe() if description.name == name]
    return found


def error_of(plugins: PluginSet, name: str) -> str:
    found = description_of(plugins, name)
    assert found.error is not None
    assert not found.loaded
    return found.error


class HeldCalls:
    """A host function whose calls wait until the test releases them."""

    def __init__(self) -> None:
        self.inside = 0
        self.go = threading.Event()
        self._lock = threading.Lock()

    def enter(self) -> None:
        with self._lock:
            self.inside += 1
        assert self.go.wait(30)


def waiting_text_plugin(text: str) -> str:
    return guest(export("hook", f"(call $enter) {SAYS.format(text)}"), ENTRY)


def enter_functions(doors: HeldCalls) -> list[plugwasm.Function]:
    return [
        plugwasm.Function(
            "extism:host/user", "enter", [], [], lambda plugin, params, results: doors.enter()
        )
    ]


def function(enter: Callable[[], Any]) -> plugwasm.Function:
    """Return `enter`, which may be `async def`, as the host function of that name."""
    enter.__annotations__["return"] = None
    return host_fn(name="enter")(enter)


def outcome(result: Any) -> Any:
    """Return a form of a result or an error that can be compared."""
    if isinstance(result, list):
        return [(one.plugin, one.output, outcome(one.error)) for one in result]
    return (type(result), str(result)) if isinstance(result, Exception) else result


QUESTIONS: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("first", ("hook", b"in"), {}),
    ("first", ("hook", b"in"), {"parse": bytes.decode}),
    ("first", ("hook", b"in"), {"returns": int}),
    ("first", ("hook", b"in"), {"stop_on_error": True}),
    ("first", ("nobody",), {}),
    ("first", ("hook",), {"parse": None}),
    ("first", ("hook",), {"nonsense": 1}),
    ("all", ("hook", b"in"), {}),
    ("all", ("hook", b"in"), {"returns": str}),
    ("all", ("hook", b"in"), {"stop_on_error": True}),
    ("chain", ("hook", b"in"), {}),
    ("chain", ("hook", b"in"), {"parse": int}),
    ("call", ("fails", "hook"), {}),
    ("call", ("y", "hook", b"in"), {}),
    ("call", ("y", "hooks"), {}),
    ("call", ("broken", "hook"), {}),
    ("call", ("nobody", "hook"), {}),
]
ASKED = {
    "silent": SILENT,
    "fails": FAILING,
    "y": appending_plugin("y"),
    "traps": TRAPS,
    "broken": b"no module",
    "z": appending_plugin("z"),
}


def call_outcome(
    plugins: PluginSet, method: str, args: tuple[Any, ...], options: dict[str, Any]
) -> Any:
    try:
        return outcome(getattr(plugins, method)(*args, **options))
    except Exception as error:
        return outcome(error)
