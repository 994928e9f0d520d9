"""Run the command line, in this process or in another, on the example plugins and on a hostile
one."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from typing import Any

from tests.support.paths import EXAMPLES

COUNT = str(EXAMPLES / "count_vowels.wasm")
ECHO = str(EXAMPLES / "echo.wasm")
HTTP = str(EXAMPLES / "http_get.wasm")
WASI = str(EXAMPLES / "wasi_files.wasm")
HOST = str(EXAMPLES / "host_functions.wasm")

# Its text has colours, markup, a line that looks like one of ours, and a character that reverses
# what follows.
EVIL_TEXT = b"\x1b[31mred\x1b[0m [bold]x[/bold]\nerror: forged\n\xe2\x80\xaegpj.exe \xc2\x9bm"
EVIL = f"""
(module
  (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
  (import "extism:host/env" "store_u8" (func $store (param i64 i32)))
  (import "extism:host/env" "error_set" (func $error (param i64)))
  (import "extism:host/env" "log_warn" (func $log (param i64)))
  (memory (export "memory") 1)
  (data (i32.const 0) "{"".join(f"{chr(92)}{byte:02x}" for byte in EVIL_TEXT)}")
  (func $text (result i64) (local $p i64) (local $i i32)
    (local.set $p (call $alloc (i64.const {len(EVIL_TEXT)})))
    (loop $next
      (call $store (i64.add (local.get $p) (i64.extend_i32_u (local.get $i))) (i32.load8_u (local.get $i)))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $i) (i32.const {len(EVIL_TEXT)}))))
    (local.get $p))
  (func (export "fail") (result i32) (call $error (call $text)) (i32.const 1))
  (func (export "log") (call $log (call $text)))
  (func (export "code") (result i32) (i32.const -7))
  (func (export "trap") (call $a))
  (func $a (call $b)) (func $b (call $c)) (func $c (call $d)) (func $d unreachable)
  (func (export "wrong") (param i32) (result i32) (i32.const 0))
  (func (export "spin") (loop $l (br $l)))
  (func (export "hungry") (loop $l (if (i32.lt_s (memory.grow (i32.const 1)) (i32.const 0)) (then unreachable)) (br $l)))
  (func (export "[red]\\1b[31mname") (result i32) (i32.const 0)))
"""

FIVE = '(module (func (export "five") (result i32) (i32.const 5)))'


class Outcome:
    def __init__(self, code: int, out: bytes, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err


def run_command(*arguments: str, stdin: bytes = b"") -> Outcome:
    """Run the command line in this process."""
    from typer.testing import CliRunner

    from plugwasm.cli.app import app

    result = CliRunner().invoke(app, list(arguments), input=stdin)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Outcome(result.exit_code, result.stdout_bytes, result.stderr)


def is_harmless(text: str) -> bool:
    """Return whether a terminal only displays the text: its only invisible characters are wide
    spaces and line ends."""
    return all(character.isprintable() or character in "\n\u00a0\u202f\u3000" for character in text)


def run_process(*arguments: str | bytes, **how: Any) -> subprocess.CompletedProcess[bytes]:
    """Run the command line in another process."""
    settings: dict[str, Any] = {"capture_output": True, "timeout": 60, "check": False} | how
    done: subprocess.CompletedProcess[bytes] = subprocess.run(
        [sys.executable, "-m", "plugwasm", *arguments], **settings
    )
    return done


def run_on_terminal(*arguments: str, columns: int = 80, **variables: str) -> str:
    """Run a command on a terminal of that width and return all its output, with escape
    sequences, both streams together."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environment = {
        key: value
        for key, value in os.environ.items()
        if key not in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR")
    }
    environment |= {"TERM": "xterm-256color", **variables}
    process = subprocess.Popen(
        [sys.executable, "-m", "plugwasm", *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment,
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # Linux's way to say that the other end is closed
            break
        if not part:
            break
        shown += part
    os.close(ours)
    process.wait(60)
    return shown.decode().replace("\r\n", "\n")
