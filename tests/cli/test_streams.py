"""The command line's streams and terminals: piped input, output on a terminal, and the options
it shares with the official one."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import pytest

from tests.support.http_server import Server, reply

pytest.importorskip("typer")

import signal
import time

import pytest
import typer

from plugwasm.cli import main
from plugwasm.cli.app import app
from tests.support.command_line import (
    COUNT,
    ECHO,
    HTTP,
    is_harmless,
    run_command,
    run_on_terminal,
    run_process,
)
from tests.support.guests import export, guest
from tests.support.paths import EXAMPLES

pytest.importorskip("typer")


from tests.support.command_line import HOST, WASI

# ---- what goes in --------------------------------------------------------------------------------


def test_what_is_piped_in_is_the_input(tmp_path: Path) -> None:
    data = bytes(range(256)) * 300
    assert run_process("call", ECHO, "echo", input=data).stdout == data
    (tmp_path / "in").write_bytes(data)
    with open(tmp_path / "in", "rb") as file:
        assert run_process("call", ECHO, "echo", stdin=file).stdout == data
    assert run_command("call", ECHO, "echo", stdin=b"in this process").out == b"in this process"


@pytest.mark.parametrize(
    "option", [("--input", "-"), ("-i", "-"), ("--input-file", "-"), ("--stdin",)]
)
def test_a_dash_is_standard_input(option: tuple[str, ...]) -> None:
    assert run_process("call", ECHO, "echo", *option, input=b"piped").stdout == b"piped"


def test_typed_input_beats_piped_input(tmp_path: Path) -> None:
    """Input given as an option wins over piped input."""
    (tmp_path / "in").write_bytes(b"of the file")
    assert run_process("call", ECHO, "echo", "--input", "typed", input=b"piped").stdout == b"typed"
    assert run_process("call", ECHO, "echo", "--input", "", input=b"piped").stdout == b""
    assert (
        run_process(
            "call", ECHO, "echo", "--input-file", str(tmp_path / "in"), input=b"piped"
        ).stdout
        == b"of the file"
    )


def test_empty_stdin_is_not_waited_for() -> None:
    """Standard input is not waited for where there is nothing to read."""
    assert run_process("call", ECHO, "echo", stdin=subprocess.DEVNULL, timeout=30).stdout == b""
    closed = subprocess.run(
        ["sh", "-c", 'exec "$0" -m plugwasm call "$1" echo <&-', sys.executable, ECHO],
        capture_output=True,
        check=False,
        timeout=30,
    )
    assert (closed.returncode, closed.stdout) == (0, b"")
    assert run_on_terminal("call", ECHO, "echo") == ""


def test_unreadable_stdin_is_ignored(capfd: pytest.CaptureFixture[str]) -> None:
    """Standard input that cannot be read is ignored."""
    assert main(["call", ECHO, "echo"]) == 0  # pytest's raises when it is read
    assert capfd.readouterr() == ("", "")


def test_a_dash_is_standard_output(tmp_path: Path) -> None:
    done = run_process("call", ECHO, "echo", "-i", "x", "-o", "-", cwd=tmp_path)
    assert (done.stdout, list(tmp_path.iterdir())) == (b"x", [])


# ---- what comes out ------------------------------------------------------------------------------

CONTROLS = "\x1b[31mred\x1b]0;title\x07\x9b2J\x00\b\rback \u202egpj.exe\tt\r\nä 😀\n"


def test_terminal_output_is_escaped() -> None:
    """A plugin's output on a terminal is escaped."""
    shown = run_on_terminal("call", ECHO, "echo", "-i", CONTROLS.replace("\0", ""))
    assert (
        shown
        == "\\x1b[31mred\\x1b]0;title\\x07\\x9b2J\\x08\\rback \\u202egpj.exe\tt\nä 😀\n".replace(
            "\t", "\t"
        )
    )
    assert is_harmless(shown.replace("\t", " "))


def test_terminal_shows_binary_output(tmp_path: Path) -> None:
    """Binary output is shown escaped on a terminal."""
    (tmp_path / "in").write_bytes(b"a\x00\xff\xfe\xc2\x85z")
    assert (
        run_on_terminal("call", ECHO, "echo", "--input-file", str(tmp_path / "in"))
        == "a\\x00\\xff\\xfe\\x85z\n"
    )


def test_terminal_loop_output_lines() -> None:
    """Each output of a loop is shown on its own line."""
    assert (
        run_on_terminal("call", ECHO, "echo", "-i", "\x1b[1m", "--loop", "2")
        == "\\x1b[1m\n\\x1b[1m\n"
    )


def test_terminal_not_utf8() -> None:
    """A terminal that is not UTF-8 shows other characters as numeric escapes."""
    assert (
        run_on_terminal("call", ECHO, "echo", "-i", "aäb", PYTHONIOENCODING="ascii") == "a\\xe4b\n"
    )


def test_raw_output_on_terminal() -> None:
    """Raw bytes go to a terminal on request."""
    assert (
        run_on_terminal("call", ECHO, "echo", "--raw", "-i", "\x1b[31mred\x1b[0m")
        == "\x1b[31mred\x1b[0m\n"
    )


@pytest.mark.parametrize("raw", [(), ("--raw",)])
def test_pipe_and_file_get_bytes(raw: tuple[str, ...], tmp_path: Path) -> None:
    """A pipe and a file get the bytes unchanged."""
    data = CONTROLS.encode() + bytes(range(256))
    assert run_process("call", ECHO, "echo", *raw, input=data).stdout == data
    assert (
        run_process("call", ECHO, "echo", *raw, "-o", str(tmp_path / "out"), input=data).returncode
        == 0
    )
    assert (tmp_path / "out").read_bytes() == data


def test_piped_input_terminal_output() -> None:
    """Input can be piped in while the output is shown on a terminal."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 80, 0, 0))
    done = subprocess.run(
        [sys.executable, "-m", "plugwasm", "call", ECHO, "echo"],
        input=b"\x1b[2J",
        stdout=theirs,
        check=False,
        timeout=60,
    )
    os.close(theirs)
    shown = os.read(ours, 1000)
    os.close(ours)
    assert (done.returncode, shown) == (0, b"\\x1b[2J\r\n")


@pytest.mark.parametrize("columns", [46, 60, 80])
@pytest.mark.parametrize(
    "arguments", [("--help",), ("call", "--help"), ("replay", "--help"), ("inspect", HTTP)]
)
def test_output_fits_terminal_width(arguments: tuple[str, ...], columns: int) -> None:
    """No output line is wider than the terminal."""
    shown = re.sub(r"\x1b\[[\d;]*m", "", run_on_terminal(*arguments, columns=columns))
    lines = [line for line in shown.splitlines() if not line.startswith(("It needs", "Nobody"))]
    assert len(lines) > 5
    assert max(map(len, lines)) <= columns


OPTIONS = [
    name
    for parameter in typer.main.get_group(app).commands["call"].params
    for name in parameter.opts
    if name.startswith("--")
]


@pytest.mark.parametrize("columns", [40, 60, 79, 80, 100])
def test_option_names_are_not_cut(columns: int) -> None:
    """Option names are shown in full on every terminal."""
    shown = re.sub(r"\x1b\[[\d;]*m", "", run_on_terminal("call", "--help", columns=columns))
    assert len(OPTIONS) > 25
    assert [option for option in OPTIONS if option not in shown] == []


# ---- options that the official command line has too ----------------------------------------------


@pytest.mark.parametrize("timeout", ["50", "50ms", "0.05s"])
def test_timeout_option_as_in_extism(timeout: str) -> None:
    """A timeout is in milliseconds, as in Extism's command line."""
    done = run_command("call", ECHO, "spin", "--timeout", timeout)
    assert (done.code, "deadline of 50 ms" in done.err) == (3, True)


def test_config_can_be_given_as_json() -> None:
    def vowels(*arguments: str) -> Any:
        return json.loads(
            run_command("call", COUNT, "count_vowels", "-i", "Hello", *arguments).out
        )["vowels"]

    assert vowels("--set-config", '{"vowels": "lo", "other": ""}') == "lo"
    assert vowels("--set-config", '{"vowels": "lo"}', "--config", "vowels=e") == "e"


@pytest.mark.parametrize(
    "document",
    [
        "",
        "x",
        "[]",
        '"secret"',
        '{"vowels": 1}',
        '{"vowels": null}',
        "[" * 100_000,
        '{"vowels": "secret"',
    ],
)
def test_config_json_is_validated(document: str) -> None:
    """Config that is not a JSON object of strings is refused and not shown."""
    done = run_command("call", COUNT, "count_vowels", "--set-config", document)
    assert (
        done.code,
        "--set-config: expected a JSON object" in done.err,
        "secret" in done.err,
    ) == (2, True, False)


@pytest.mark.parametrize("option", ["--memory-max", "--memory-max-pages"])
def test_memory_is_bounded_in_pages(option: str) -> None:
    big = '(module (memory 200) (func (export "f")))'
    assert run_command("call", big, "f", option, "10").code == 3
    assert run_command("call", big, "f", option, "300").code == 0


def test_vars_can_be_turned_off() -> None:
    assert run_command("call", COUNT, "count_vowels", "-i", "a").code == 0
    assert run_command("call", COUNT, "count_vowels", "-i", "a", "--var-max", "0").code != 0
    assert (
        "--var-max: expected a whole number"
        in run_command("call", COUNT, "count_vowels", "--var-max", "-1").err
    )


def test_http_response_size_option() -> None:
    """An option sets the largest size of a response."""
    with Server({"*": reply(b"x" * 100)}) as server:
        how = (
            "call",
            HTTP,
            "http_body",
            "-i",
            f"{server.url}/",
            "--allow-host",
            "127.0.0.1",
            "--http-response-max",
        )
        assert run_command(*how, "100").out == b"x" * 100
        assert run_command(*how, "99").code == 1


READS_HEADERS = """
(module
  (import "extism:host/env" "input_offset" (func $input (result i64)))
  (import "extism:host/env" "http_request" (func $request (param i64 i64) (result i64)))
  (import "extism:host/env" "http_headers" (func $headers (result i64)))
  (import "extism:host/env" "length" (func $length (param i64) (result i64)))
  (import "extism:host/env" "output_set" (func $output (param i64 i64)))
  (func (export "f") (result i32) (local $h i64)
    (drop (call $request (call $input) (i64.const 0)))
    (local.set $h (call $headers))
    (call $output (local.get $h) (call $length (local.get $h)))
    (i32.const 0)))
"""


def test_http_headers_option() -> None:
    """Response headers can be read if an option enables them."""
    with Server({"*": reply(b"x")}) as server:
        how = (
            "call",
            READS_HEADERS,
            "f",
            "-i",
            json.dumps({"url": f"{server.url}/"}),
            "--allow-host",
            "127.0.0.1",
        )
        assert run_command(*how).out == b""
        assert "content-length" in json.loads(
            run_command(*how, "--enable-http-response-headers").out
        )


# ---- when something fails ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "command_of"),
    [
        (("call", ECHO, "echo", "--input"), "call"),
        (("call", "--timeout"), "call"),
        (("replay", "x", "--timeout"), "replay"),
        (("cache", "clear", "--traceback=1"), "cache clear"),
        (("inspect", ECHO, "--jsn"), "inspect"),
        (("call", ECHO, "echo", "--wasi=1"), "call"),
    ],
)
def test_usage_error_names_help(arguments: tuple[str, ...], command_of: str) -> None:
    """A usage error names the help of its command."""
    done = run_command(*arguments)
    assert done.code == 2
    assert done.err.endswith(f"see: plugwasm {command_of} --help\n")


FAULTY = str(EXAMPLES / "faulty.wasm")


def test_traceback_source_lines() -> None:
    """A traceback includes the lines of the plugin's source."""
    pytest.importorskip("elftools")
    done = run_command("call", FAULTY, "primes", "-i", "2 3 five", "--traceback")
    assert done.code == 1
    assert re.search(r"parse at faulty\.c:\d+:\d+", done.err)
    assert is_harmless(done.err)


def test_traceback_without_extra() -> None:
    """Without the extra, a traceback says how to get source lines."""
    code = "import sys; sys.modules['elftools'] = None; from plugwasm.cli import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, "call", FAULTY, "primes", "-i", "2 3 five", "--traceback"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "plugwasm[debug]" in done.stderr


def test_traceback_without_debug_info() -> None:
    """A traceback of a plugin without debug information has no source lines."""
    done = run_command("call", '(module (func (export "f") unreachable))', "f", "--traceback")
    assert (done.code, "in the source" in done.err, "no source lines" in done.err) == (
        1,
        False,
        False,
    )


def test_an_empty_profile_says_why(tmp_path: Path) -> None:
    path = tmp_path / "p.txt"
    done = run_command("call", ECHO, "nothing", "--profile", str(path))
    assert (done.code, path.read_text()) == (2, "")
    assert (
        f"warning: the profile {path} is empty: no call took as long as the 1 ms between two samples"
        in done.err
    )
    assert "--loop" in done.err


def test_profile_with_samples_is_quiet(tmp_path: Path) -> None:
    """A profile with samples prints no message."""
    path = tmp_path / "p.txt"
    done = run_command("call", ECHO, "spin", "--profile", str(path), "--timeout", "300")
    assert (done.code, "warning" in done.err, "spin" in path.read_text()) == (3, False, True)


def test_inspect_plugin_before_1_0(tmp_path: Path) -> None:
    """`inspect` recognises a plugin built before Extism 1.0."""
    old = '(module (import "env" "extism_alloc" (func (param i64) (result i64))) (import "" "hello" (func)))'
    text = run_command("inspect", old).out.decode()
    assert "Its kit is from before Extism 1.0: build it again with a current one" in text
    assert re.search(r"^  \(no name\)$", text, re.MULTILINE)
    assert json.loads(run_command("inspect", old, "--json").out)["needs"]["missing"] == [
        "env.extism_alloc"
    ]
    done = run_command("call", old, "f")
    assert (done.code, "build it again with a current kit" in done.err) == (2, True)


def test_terminal_output_ends_line() -> None:
    """On a terminal, the output ends with a line end."""
    assert run_on_terminal("call", ECHO, "echo", "-i", "abc") == "abc\n"
    assert run_on_terminal("call", ECHO, "echo", "-i", "abc\n") == "abc\n"
    assert run_on_terminal("call", ECHO, "echo") == ""


def test_errors_are_coloured_on_terminal() -> None:
    """Errors are coloured on a terminal unless colours are turned off."""
    assert "\x1b[1;31merror:\x1b[0m no such file" in run_on_terminal("call", "nowhere", "f")
    plain = run_on_terminal("call", "nowhere", "f", NO_COLOR="1")
    assert not re.search(r"\x1b\[[\d;]*3\dm", plain)
    assert re.sub(r"\x1b\[[\d;]*m", "", plain).startswith("error: no such file")


@pytest.mark.parametrize(
    "arguments", [("inspect", WASI), ("inspect", HOST), ("--help",), ("call", "--help")]
)
def test_tables_fit_a_narrow_terminal(arguments: tuple[str, ...]) -> None:
    shown = re.sub(r"\x1b\[[\d;]*m", "", run_on_terminal(*arguments, columns=60))
    lines = [
        line for line in shown.splitlines() if not line.startswith("It needs")
    ]  # a sentence, which the terminal wraps
    assert len(lines) > 5
    assert max(map(len, lines)) <= 60


def test_tables_in_pipe_are_plain() -> None:
    """Tables in a pipe are not wrapped and have no colours."""
    text = run_process("inspect", WASI, env=os.environ | {"COLUMNS": "40"}).stdout.decode()
    assert "(i32, i32, i32, i32, i32, i64, i64, i32, i32) -> (i32)  WASI\n" in text
    assert "\x1b" not in text
    assert not re.search(r" $", text, re.MULTILINE)


def test_names_where_output_is_not_utf8(tmp_path: Path) -> None:
    """Names can be shown where the output encoding is not UTF-8."""
    done = run_process(
        "inspect", '(module (func (export "ä")))', env=os.environ | {"PYTHONIOENCODING": "ascii"}
    )
    assert done.returncode == 0
    assert rb"\xe4" in done.stdout


def test_broken_pipe_is_quiet() -> None:
    """A reader that closes the pipe causes no error message."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "plugwasm",
            "call",
            ECHO,
            "echo",
            "-i",
            "x" * 10_000,
            "--loop",
            "1000000",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.read(1) == b"x"
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(60) == 141


@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize(
    "arguments",
    [
        ("call", ECHO, "echo", "-i", "x"),
        ("inspect", ECHO),
        ("schema",),
        ("--help",),
        ("--version",),
    ],
    ids=lambda arguments: arguments[0],
)
def test_unwritable_output_is_error(
    arguments: tuple[str, ...], unbuffered: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Output that cannot be written is an error, once, also where it is buffered until the end."""
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    with open("/dev/full", "wb") as full:
        done = run_process(*arguments, capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (
        2,
        b"error: cannot write standard output: No space left on device\n",
    )


def test_closed_stdout_is_error() -> None:
    """A closed standard output is an error."""
    done = subprocess.run(
        ["sh", "-c", 'exec "$0" -m plugwasm call "$1" echo -i x >&-', sys.executable, ECHO],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(b"error: standard output: it is closed")
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("options", [(), ("--timeout", "50s")])
def test_ctrl_c_ends_a_call_at_once(options: tuple[str, ...], tmp_path: Path) -> None:
    plugin = tmp_path / "spins.wat"
    plugin.write_text(guest(export("spin", "(call $log_warn <<it runs>>) (loop $more (br $more))")))
    process = subprocess.Popen(
        [sys.executable, "-m", "plugwasm", "call", plugin, "spin", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        assert process.stderr is not None
        assert b"it runs" in process.stderr.readline()
        assert process.poll() is None
        before = time.monotonic()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert time.monotonic() - before < 5
    assert (process.returncode, out, err) == (130, b"", b"error: interrupted\n")
