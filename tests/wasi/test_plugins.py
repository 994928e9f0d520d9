"""Plugins that use WASI: their environment, their exits, and where their output goes."""

from __future__ import annotations

import gc
import logging
import os
import time
import weakref
from pathlib import Path
from typing import Any

import pytest

import plugwasm
from plugwasm import ExitError, GuestError, MissingImportError, Plugin
from plugwasm._wasi.stdio import MAX_LINE
from tests.support.guests import export, guest, manifest, number
from tests.support.paths import EXAMPLES
from tests.support.waiting import soon

WASI = {
    "proc_exit": "(param i32)",
    "fd_write": "(param i32 i32 i32 i32) (result i32)",
    "fd_read": "(param i32 i32 i32 i32) (result i32)",
    "path_open": "(param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)",
    "fd_prestat_get": "(param i32 i32) (result i32)",
    "environ_sizes_get": "(param i32 i32) (result i32)",
    "args_sizes_get": "(param i32 i32) (result i32)",
    "clock_time_get": "(param i32 i64 i32) (result i32)",
    "random_get": "(param i32 i32) (result i32)",
}
MEMORY = '(memory (export "memory") 1)'


def wasi_guest(body: str, *imports: str, memory: str = MEMORY) -> str:
    """Return a module that imports the WASI functions that it uses."""
    used = [
        f'(import "wasi_snapshot_preview1" "{name}" (func ${name} {type}))'
        for name, type in WASI.items()
        if f"${name} " in body
    ]
    return guest(body, *imports, *used, memory=memory)


def exit_code(code: int) -> str:
    return f"(call $proc_exit (i32.const {code}))"


# Whether it is there


def test_wasi_is_off_unless_asked_for() -> None:
    source = wasi_guest(export("f", exit_code(0)))
    with pytest.raises(MissingImportError, match="wasi=True"):
        Plugin(source)
    with pytest.raises(MissingImportError, match=r"wasi_snapshot_preview1\.proc_exit"):
        Plugin(source, wasi=False)
    with Plugin(source, True) as plugin:
        assert plugin.call("f") == b""


def test_compiled_plugin_setting() -> None:
    """A plugin has the setting of its compiled plugin."""
    compiled = plugwasm.CompiledPlugin(wasi_guest(export("f", exit_code(0))), wasi=True)
    with Plugin(compiled, wasi=True) as plugin:
        assert plugin.call("f") == b""
    with pytest.raises(plugwasm.OptionError):
        Plugin(compiled, wasi=False)


def test_plugin_that_does_not_import_wasi() -> None:
    """A plugin that does not import WASI also runs with it enabled."""
    with Plugin(guest(export("echo", "(call $echo)")), wasi=True) as plugin:
        assert plugin.call("echo", b"x") == b"x"


def test_default_environment() -> None:
    """There are no arguments, variables or input, only clocks and random bytes."""
    source = wasi_guest(
        export(
            "look",
            """(drop (call $args_sizes_get (i32.const 0) (i32.const 4))) (drop (call $environ_sizes_get (i32.const 8) (i32.const 12)))
            (i32.store (i32.const 32) (i32.const 64)) (i32.store (i32.const 36) (i32.const 100))
            (i32.store (i32.const 40) (i32.const 7))
            (drop (call $fd_read (i32.const 0) (i32.const 32) (i32.const 1) (i32.const 40)))
            (call $answer (i64.extend_i32_u (i32.add (i32.add (i32.load (i32.const 0)) (i32.load (i32.const 4)))
              (i32.add (i32.add (i32.load (i32.const 8)) (i32.load (i32.const 12))) (i32.load (i32.const 40))))))""",
        )
        + export(
            "clock",
            "(drop (call $clock_time_get (i32.const 0) (i64.const 1) (i32.const 0))) (call $answer (i64.load (i32.const 0)))",
        )
        + export(
            "chance",
            "(drop (call $random_get (i32.const 0) (i32.const 8))) (call $answer (i64.load (i32.const 0)))",
        )
    )
    with Plugin(source, wasi=True) as plugin:
        assert number(plugin.call("look")) == 0
        assert abs(number(plugin.call("clock")) - time.time_ns()) < 60e9
        assert len({plugin.call("chance") for _ in range(5)}) == 5


# proc_exit


EXITS = wasi_guest(
    "(global $n (mut i64) (i64.const 0))"
    + export("zero", f"(call $give <<before the exit>>) {exit_code(0)}")
    + export("three", f"(call $give <<before the exit>>) {exit_code(3)}")
    + export("large", exit_code(-1))
    + export("message_and_zero", f"(call $error_set <<said>>) {exit_code(0)}")
    + export("message_and_three", f"(call $error_set <<said>>) {exit_code(3)}")
    + export(
        "bad_output_and_zero",
        f"(call $output_set (i64.const 0) (i64.const 0x7fffffff)) {exit_code(0)}",
    )
    + export("bad_error_and_zero", f"(call $error_set (i64.const 99999)) {exit_code(0)}")
    + """(func $deep (param i32)
      (if (local.get 0) (then (call $deep (i32.sub (local.get 0) (i32.const 1)))) (else (call $proc_exit (i32.const 4)))))"""
    + export("deep", "(call $deep (i32.const 20))")
    + export("_start", f"(call $give <<done>>) {exit_code(0)}")
    + export(
        "count",
        "(global.set $n (i64.add (global.get $n) (i64.const 1))) (call $answer (global.get $n))",
    )
)


def test_exit_zero_is_success() -> None:
    """An exit with zero is success, with the output set so far."""
    with Plugin(EXITS, wasi=True) as plugin:
        assert plugin.call("zero") == b"before the exit"
        assert plugin.call("zero", parse=None) == b"before the exit"
        assert plugin.call("_start") == b"done"


@pytest.mark.parametrize(("function", "code"), [("three", 3), ("large", 2**32 - 1), ("deep", 4)])
def test_exit_code_is_error(function: str, code: int) -> None:
    """The error for an exit with another code has the code."""
    with Plugin(EXITS, wasi=True, name="exits") as plugin:
        with pytest.raises(ExitError) as caught:
            plugin.call(function)
        assert caught.value.code == code
        assert (caught.value.plugin, caught.value.function) == ("exits", function)
        for part in (f"`{function}` of plugin `exits`", str(code)):
            assert part in str(caught.value)
        assert plugin.call("zero") == b"before the exit"


@pytest.mark.parametrize(("function", "code"), [("message_and_zero", 0), ("message_and_three", 3)])
def test_exit_after_message(function: str, code: int) -> None:
    """An error message takes precedence over an exit, whose code is kept."""
    with Plugin(EXITS, wasi=True) as plugin, pytest.raises(GuestError) as caught:
        plugin.call(function)
    assert (caught.value.guest_message, caught.value.code) == ("said", code)


@pytest.mark.parametrize("function", ["bad_output_and_zero", "bad_error_and_zero"])
def test_exit_zero_with_bad_handle(function: str) -> None:
    """A bad handle is an error despite an exit with zero."""
    with Plugin(EXITS, wasi=True) as plugin, pytest.raises(plugwasm.BadHandleError):
        plugin.call(function)


@pytest.mark.parametrize("function", ["zero", "three", "_start"])
def test_exit_replaces_instance(function: str) -> None:
    """After an exit, the instance is replaced."""
    with Plugin(EXITS, wasi=True) as plugin:
        assert number(plugin.call("count")) == 1
        assert number(plugin.call("count")) == 2
        try:
            plugin.call(function)
        except ExitError:
            pass
        assert number(plugin.call("count")) == 1


@pytest.mark.parametrize("code", [0, 5])
def test_exit_during_start(code: int) -> None:
    """An exit during the start is an error."""
    source = wasi_guest(export("_initialize", exit_code(code)) + export("f", ""))
    with Plugin(source, wasi=True) as plugin:
        for _ in range(2):
            with pytest.raises(plugwasm.CallError, match="plugin `plugin`") as caught:
                plugin.call("f")
            assert caught.value.code == (code or None)


def test_exit_in_linked_module() -> None:
    """An exit in a linked module ends the call."""
    lib = wasi_guest(f'(func (export "f") {exit_code(6)})')
    main = guest(export("run", "(call $f)"), '(import "lib" "f" (func $f))')
    for extra in ("", '(func (export "_start"))'):
        with (
            Plugin(manifest(("lib", lib[:-1] + extra + ")"), ("main", main)), wasi=True) as plugin,
            pytest.raises(ExitError) as caught,
        ):
            plugin.call("run")
        assert caught.value.code == 6


# Output


def writing_code(*chunks: tuple[int, bytes]) -> str:
    """Return code that writes these chunks to these descriptors (see `output_guest`)."""
    code, at = "", 4096
    data = b""
    for fd, chunk in chunks:
        code += f"""(i32.store (i32.const 0) (i32.const {at})) (i32.store (i32.const 4) (i32.const {len(chunk)}))
            (drop (call $fd_write (i32.const {fd}) (i32.const 0) (i32.const 1) (i32.const 8)))"""
        at += len(chunk)
        data += chunk
    escaped = "".join(f"\\{byte:02x}" for byte in data)
    return f'(data (i32.const 4096) "{escaped}")' + export("f", code)


def output(*chunks: tuple[int, bytes], more: str = "", call: str = "f", **options: Any) -> None:
    source = wasi_guest(writing_code(*chunks) + more, memory='(memory (export "memory") 16)')
    with Plugin(source, wasi=True, name="writer", **options) as plugin:
        plugin.call(call)


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "plugwasm")
    return caplog


def lines(logged: pytest.LogCaptureFixture) -> list[tuple[str, int, str]]:
    return [(record.name, record.levelno, record.getMessage()) for record in logged.records]


def test_lines_are_logged(
    logged: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Lines go to the plugin's logger, not to the process's streams."""
    output((1, b"one\ntw"), (2, b"careful\r\n"), (1, b"o\nthree"))
    name = "plugwasm.plugin.writer"
    assert lines(logged) == [
        (name, logging.INFO, "one"),
        (name, logging.WARNING, "careful"),
        (name, logging.INFO, "two"),
        (name, logging.INFO, "three"),
    ]
    assert capfd.readouterr() == ("", "")


def test_lines_are_escaped(logged: pytest.LogCaptureFixture) -> None:
    """Control characters in a line are escaped."""
    output((1, b"a\x1b[2Jb\x00\xff\n"))
    assert [line for _, _, line in lines(logged)] == ["a\\x1b[2Jb\\x00\ufffd"]


@pytest.mark.parametrize("length", [MAX_LINE, MAX_LINE + 1, 3 * MAX_LINE])
def test_a_long_line_is_cut_and_says_so(logged: pytest.LogCaptureFixture, length: int) -> None:
    output((1, b"x" * length + b"\nnext\n"))
    cut = "x" * MAX_LINE + (f"… ({length - MAX_LINE} more bytes)" if length > MAX_LINE else "")
    assert [line for _, _, line in lines(logged)] == [cut, "next"]


@pytest.mark.parametrize(
    "ending",
    [
        "unreachable",
        "(call $error_set <<said>>)",
        exit_code(1),
        "(call $output_set (i64.const 9) (i64.const 9))",
    ],
)
def test_lines_of_failed_call(logged: pytest.LogCaptureFixture, ending: str) -> None:
    """Output of a failed call is logged."""
    more = (
        export("fails", f"(call $write) {ending}")
        + "(func $write (drop (call $fd_write (i32.const 2) (i32.const 16) (i32.const 1) (i32.const 8))))"
    )
    source = wasi_guest(
        more
        + '(data (i32.const 4096) "panicked at line 1") (data (i32.const 16) "\\00\\10\\00\\00\\12\\00\\00\\00")'
    )
    with Plugin(source, wasi=True, name="writer") as plugin, pytest.raises(plugwasm.CallError):
        plugin.call("fails")
    assert [line for _, _, line in lines(logged)] == ["panicked at line 1"]


def test_lines_of_failed_start(logged: pytest.LogCaptureFixture) -> None:
    """Output of a failed start is logged."""
    more = export(
        "_initialize",
        "(drop (call $fd_write (i32.const 2) (i32.const 16) (i32.const 1) (i32.const 8))) unreachable",
    ) + export("f", "")
    source = wasi_guest(
        more
        + '(data (i32.const 4096) "cannot start") (data (i32.const 16) "\\00\\10\\00\\00\\0c\\00\\00\\00")'
    )
    with Plugin(source, wasi=True, name="writer") as plugin, pytest.raises(plugwasm.TrapError):
        plugin.call("f")
    assert [line for _, _, line in lines(logged)] == ["cannot start"]


def test_lines_not_kept_cost_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Output below the log level creates no record."""
    caplog.set_level(logging.ERROR, "plugwasm")
    output((1, b"one\n"), (2, b"two\n"))
    assert not caplog.records


# Files

FILES = str(EXAMPLES / "wasi_files.wasm")


def files(allowed: dict[str, str] | None, **options: Any) -> Plugin:
    return Plugin({"wasm": [{"path": FILES}], "allowed_paths": allowed}, wasi=True, **options)


def test_granted_directory(tmp_path: Path) -> None:
    """A granted directory can be read and written."""
    (tmp_path / "a.txt").write_bytes(b"content")
    with files({str(tmp_path): "/data"}) as plugin:
        assert plugin.call("cat", "/data/a.txt") == b"content"
        plugin.call("write", "/data/b.txt\nnew")
    assert (tmp_path / "b.txt").read_bytes() == b"new"


def test_granted_directory_read_only(tmp_path: Path) -> None:
    """A read-only directory can only be read."""
    (tmp_path / "a.txt").write_bytes(b"content")
    with files({f"ro:{tmp_path}": "/data"}) as plugin:
        assert plugin.call("cat", "/data/a.txt") == b"content"
        for target in ("a.txt", "b.txt"):
            with pytest.raises(GuestError, match="cannot open"):
                plugin.call("write", f"/data/{target}\nnew")
    assert (tmp_path / "a.txt").read_bytes() == b"content"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_granted_directories(tmp_path: Path) -> None:
    """Several directories can be granted, each with its own access."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "f").write_text(name)
    with files({str(tmp_path / "one"): "/1", f"ro:{tmp_path / 'two'}": "/2"}) as plugin:
        assert (plugin.call("cat", "/1/f"), plugin.call("cat", "/2/f")) == (b"one", b"two")
        plugin.call("write", "/1/f\nchanged")
        with pytest.raises(GuestError):
            plugin.call("write", "/2/f\nchanged")
        with pytest.raises(GuestError):
            plugin.call("cat", "/2/../one/f")


@pytest.mark.parametrize("allowed", [None, {}], ids=repr)
def test_no_files_without_grant(allowed: dict[str, str] | None) -> None:
    """Without a grant, there are no files."""
    with files(allowed) as plugin:
        for path in ("/etc/passwd", "etc/passwd", "."):
            with pytest.raises(GuestError):
                plugin.call("cat", path)
    source = wasi_guest(
        export(
            "f",
            "(call $answer (i64.extend_i32_u (call $fd_prestat_get (i32.const 3) (i32.const 0))))",
        )
    )
    with Plugin(source, wasi=True) as plugin:
        assert number(plugin.call("f")) == 8


def test_missing_directory_is_error(tmp_path: Path) -> None:
    """The error for a missing directory names it."""
    missing = tmp_path / "missing"
    with (
        pytest.raises((plugwasm.Error, OSError), match="missing"),
        files({str(missing): "/data"}) as plugin,
    ):
        plugin.call("list", "/data")


OPENS = wasi_guest(
    '(data (i32.const 4096) "f")'
    + export(
        "open",
        """(call $answer (i64.extend_i32_u (call $path_open (i32.const 3) (i32.const 0) (i32.const 4096) (i32.const 1) (i32.const 0)
            (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 0))))""",
    )
    + export("trap", "unreachable")
)


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("end", ["close", "drop", "reset", "trap"])
def test_open_files_closed_with_instance(tmp_path: Path, end: str) -> None:
    """Files that a guest left open are closed with its instance."""
    (tmp_path / "f").write_text("x")
    compiled = plugwasm.CompiledPlugin(
        manifest(OPENS, allowed_paths={str(tmp_path): "/data"}), wasi=True
    )
    Plugin(compiled).call("open")
    gc.collect()
    before = open_descriptors()
    plugin = Plugin(compiled)
    for _ in range(5):
        assert number(plugin.call("open")) == 0
    assert open_descriptors() >= before + 5
    gc.disable()
    try:
        if end == "drop":
            del plugin
        elif end == "trap":
            with pytest.raises(plugwasm.TrapError) as caught:
                plugin.call("trap")
            del caught
        else:
            getattr(plugin, end)()
        assert soon(lambda: open_descriptors() <= before)
    finally:
        gc.enable()


def test_instance_freed_without_gc() -> None:
    """An instance that used WASI is freed without the garbage collector."""
    source = wasi_guest(
        export("clock", "(drop (call $clock_time_get (i32.const 0) (i64.const 1) (i32.const 0)))")
    )
    gc.collect()
    gc.disable()
    try:
        for end in ("close", "drop"):
            plugin = Plugin(source, wasi=True)
            plugin.call("clock")
            instance = weakref.ref(plugin._guest)
            if end == "close":
                plugin.close()
            del plugin
            assert soon(lambda instance=instance: instance() is None), end
    finally:
        gc.enable()


def test_pointers_outside_memory() -> None:
    """A pointer outside the guest's memory returns an error number."""
    source = wasi_guest(
        export(
            "f",
            "(call $answer (i64.extend_i32_u (call $random_get (i32.const 65530) (i32.const 100))))",
        )
    )
    with Plugin(source, wasi=True) as plugin:
        assert number(plugin.call("f")) == 21


def test_module_without_exported_memory() -> None:
    """A module without an exported memory gets an error number."""
    source = wasi_guest(
        export(
            "f", "(call $answer (i64.extend_i32_u (call $random_get (i32.const 0) (i32.const 8))))"
        ),
        memory="(memory 1)",
    )
    with Plugin(source, wasi=True) as plugin:
        assert number(plugin.call("f")) == 21


def test_memory_of_calling_module() -> None:
    """Each module's calls use its own memory."""
    lib = wasi_guest(
        '(func (export "f") (result i64) (drop (call $random_get (i32.const 0) (i32.const 8))) (i64.load (i32.const 0)))'
    )
    main = guest(
        export("f", "(call $answer (call $f))")
        + export("mine", "(call $answer (i64.load (i32.const 0)))"),
        '(import "lib" "f" (func $f (result i64)))',
        memory=MEMORY,
    )
    for extra in ("", '(func (export "_start"))'):
        with Plugin(manifest(("lib", lib[:-1] + extra + ")"), ("main", main)), wasi=True) as plugin:
            assert len({plugin.call("f") for _ in range(4)}) == 4
            assert number(plugin.call("mine")) == 0
