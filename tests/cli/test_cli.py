"""The command line, in the process through typer's runner, and as a real command where streams, signals and terminals matter."""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example as case
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.guests import export, guest
from tests.support.http_server import Server, reply
from tests.support.paths import EXAMPLES, ROOT

pytest.importorskip("typer")

from typer.testing import CliRunner

from plugwasm import __version__, cache
from plugwasm.cli import invocation, main
from plugwasm.cli.app import app
from plugwasm.cli.terminal import UsageProblem, complain, escaped, escaped_lines, reporting
from plugwasm.manifest import json_schema

COUNT = str(EXAMPLES / "count_vowels.wasm")
ECHO = str(EXAMPLES / "echo.wasm")
HTTP = str(EXAMPLES / "http_get.wasm")
WASI = str(EXAMPLES / "wasi_files.wasm")
HOST = str(EXAMPLES / "host_functions.wasm")

# Its text has colours, markup, a line that looks like one of ours, and a character that reverses what follows.
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
WANTS_FIVE = """
(module
  (import "lib" "five" (func $five (result i32)))
  (func (export "check") (result i32) (i32.sub (call $five) (i32.const 5)))
  (func (export "code") (result i32) (call $five)))
"""


class Outcome:
    def __init__(self, code: int, out: bytes, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err


def typed(*arguments: str, stdin: bytes = b"") -> Outcome:
    """The command line in this process."""
    result = CliRunner().invoke(app, list(arguments), input=stdin)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Outcome(result.exit_code, result.stdout_bytes, result.stderr)


def is_harmless(text: str) -> bool:
    """Whether a terminal only shows it: spaces of other widths and ends of lines are the only characters that are not visible."""
    return all(character.isprintable() or character in "\n\u00a0\u202f\u3000" for character in text)


def command(*arguments: str | bytes, **how: Any) -> subprocess.CompletedProcess[bytes]:
    """The command line as a process of its own."""
    settings: dict[str, Any] = {"capture_output": True, "timeout": 60, "check": False} | how
    done: subprocess.CompletedProcess[bytes] = subprocess.run(
        [sys.executable, "-m", "plugwasm", *arguments], **settings
    )
    return done


def on_terminal(*arguments: str, columns: int = 80, **variables: str) -> str:
    """What a terminal of that width shows of a command, stdout and stderr together, with its escape sequences."""
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


@pytest.fixture
def evil(tmp_path: Path) -> str:
    path = tmp_path / "evil.wat"
    path.write_text(EVIL)
    return str(path)


@pytest.fixture
def manifest(tmp_path: Path) -> Callable[..., str]:
    def write(plugin: str = COUNT, **fields: Any) -> str:
        path = tmp_path / "plugin.json"
        path.write_text(json.dumps({"wasm": [{"path": plugin}], **fields}))
        return str(path)

    return write


# ---- calling ----------------------------------------------------------------------------------------------------------------------------


def test_the_line_of_the_readme_prints_what_the_plugin_says_and_nothing_else() -> None:
    done = command(
        "call", "examples/count_vowels.wasm", "count_vowels", "--input", "Hello, World!", cwd=ROOT
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == b'{"count":3,"total":3,"vowels":"aeiouAEIOU"}'


def test_without_input_the_plugin_gets_none() -> None:
    assert typed("call", ECHO, "echo").out == b""


@pytest.mark.parametrize("how", ["--input", "-i"])
def test_text_is_sent_as_utf8(how: str) -> None:
    assert typed("call", ECHO, "echo", how, "äöü 😀").out == "äöü 😀".encode()


def test_input_that_begins_with_a_dash_is_input() -> None:
    assert typed("call", ECHO, "echo", "--input=--wasi").out == b"--wasi"


def test_an_argument_that_is_not_utf8_is_sent_as_it_is() -> None:
    assert command("call", ECHO, "echo", "--input", b"\xff\xfe").stdout == b"\xff\xfe"


def test_a_file_and_standard_input_are_sent_byte_by_byte(tmp_path: Path) -> None:
    data = bytes(range(256)) * 300
    (tmp_path / "in").write_bytes(data)
    assert typed("call", ECHO, "echo", "--input-file", str(tmp_path / "in")).out == data
    assert typed("call", ECHO, "echo", "--stdin", stdin=data).out == data
    assert command("call", ECHO, "echo", "--stdin", input=data).stdout == data


def test_an_empty_file_is_an_empty_input(tmp_path: Path) -> None:
    (tmp_path / "in").touch()
    assert typed("call", ECHO, "echo", "--input-file", str(tmp_path / "in")).code == 0


def test_standard_input_is_not_waited_for_when_the_plugin_cannot_be_called() -> None:
    ours, theirs = os.pipe()
    try:
        done = command("call", "nowhere.wasm", "f", "--stdin", stdin=ours, timeout=20)
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.returncode == 2


def test_output_goes_to_a_file_as_it_is(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.write_bytes(b"longer than what comes now")
    done = typed("call", ECHO, "echo", "-i", "abc", "-o", str(out))
    assert (done.out, out.read_bytes()) == (b"", b"abc")


def test_a_call_that_fails_leaves_the_output_file_as_it_was(tmp_path: Path, evil: str) -> None:
    out = tmp_path / "out"
    out.write_bytes(b"before")
    assert typed("call", evil, "fail", "--output-file", str(out)).code == 1
    assert out.read_bytes() == b"before"


def test_calls_in_a_loop_share_an_instance_and_give_a_line_each(tmp_path: Path) -> None:
    done = typed("call", COUNT, "count_vowels", "-i", "a", "--loop", "3")
    assert [json.loads(line)["total"] for line in done.out.splitlines()] == [1, 2, 3]
    assert done.out.endswith(b"\n")
    typed("call", ECHO, "echo", "-i", "a", "--loop", "2", "-o", str(tmp_path / "out"))
    assert (tmp_path / "out").read_bytes() == b"a\na\n"


def test_config_is_typed_or_read_and_what_is_typed_wins(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text('{"vowels": "H", "other": ""}')
    (tmp_path / "c.toml").write_text('vowels = "H"\n')

    def vowels(*arguments: str) -> str:
        return str(
            json.loads(typed("call", COUNT, "count_vowels", "-i", "Hello", *arguments).out)[
                "vowels"
            ]
        )

    assert vowels("--config", "vowels=lo") == "lo"
    assert vowels("-c", "vowels=x=y", "-c", "other=1") == "x=y"
    assert vowels("--config-file", str(tmp_path / "c.json")) == "H"
    assert vowels("--config-file", str(tmp_path / "c.toml")) == "H"
    assert vowels("--config-file", str(tmp_path / "c.toml"), "-c", "vowels=e") == "e"


def test_config_is_added_to_that_of_a_manifest(manifest: Callable[..., str]) -> None:
    path = manifest(config={"vowels": "H", "other": "1"})
    assert json.loads(typed("call", path, "count_vowels", "-i", "Hello").out)["vowels"] == "H"
    assert (
        json.loads(typed("call", path, "count_vowels", "-i", "Hello", "-c", "vowels=l").out)[
            "vowels"
        ]
        == "l"
    )


def test_a_timeout_replaces_that_of_a_manifest(manifest: Callable[..., str]) -> None:
    path = manifest(ECHO, timeout_ms=60_000)
    before = time.monotonic()
    done = typed("call", path, "spin", "--timeout", "200ms")
    assert (done.code, "deadline of 200 ms" in done.err) == (3, True)
    assert time.monotonic() - before < 10


def test_a_module_can_be_fetched() -> None:
    with Server({"*": reply(Path(ECHO).read_bytes())}) as server:
        assert typed("call", f"{server.url}/echo.wasm", "echo", "-i", "x").out == b"x"


def test_a_manifest_can_be_typed() -> None:
    assert typed("call", json.dumps({"wasm": [{"path": ECHO}]}), "echo", "-i", "x").out == b"x"


def test_hosts_are_added_to_those_of_a_manifest(manifest: Callable[..., str]) -> None:
    with Server({"*": reply(b"hello")}) as server:
        path = manifest(HTTP, allowed_hosts=["example.com"])
        refused = typed("call", path, "http_body", "-i", f"{server.url}/")
        assert (refused.code, refused.out) == (1, b"")
        assert "127.0.0.1 is not granted" in refused.err
        assert "--allow-host" in refused.err
        assert (
            typed(
                "call", path, "http_body", "-i", f"{server.url}/", "--allow-host", "127.0.0.1"
            ).out
            == b"hello"
        )


def test_a_directory_can_be_granted_under_another_name_or_its_own(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("content")
    assert (
        typed("call", WASI, "cat", "-i", "/data/a.txt", "--allow-path", f"{tmp_path}:/data").out
        == b"content"
    )
    assert (
        typed("call", WASI, "cat", "-i", f"{tmp_path}/a.txt", "--allow-path", str(tmp_path)).out
        == b"content"
    )


def test_a_directory_granted_read_only_cannot_be_written(tmp_path: Path) -> None:
    write = ("call", WASI, "write", "-i", "/data/new\nx", "--allow-path")
    assert typed(*write, f"ro:{tmp_path}:/data").code == 1
    assert list(tmp_path.iterdir()) == []
    assert typed(*write, f"{tmp_path}:/data").out == b"1"
    assert (tmp_path / "new").read_bytes() == b"x"


def test_a_grant_that_is_typed_takes_the_place_of_the_manifests(
    tmp_path: Path, manifest: Callable[..., str]
) -> None:
    path = manifest(WASI, allowed_paths={str(tmp_path): "/data"})
    assert (
        typed(
            "call", path, "write", "-i", "/data/new\nx", "--allow-path", f"ro:{tmp_path}:/data"
        ).code
        == 1
    )
    assert not (tmp_path / "new").exists()


def test_a_module_can_be_linked(tmp_path: Path) -> None:
    (tmp_path / "five.wat").write_text(FIVE)
    (tmp_path / "main.wat").write_text(WANTS_FIVE)
    main, five = str(tmp_path / "main.wat"), str(tmp_path / "five.wat")
    assert typed("call", main, "check", "--link", f"lib={five}").code == 0
    missing = typed("call", main, "check")
    assert (missing.code, "--link" in missing.err) == (2, True)


def test_a_pinned_module_runs_only_if_it_is_the_one(tmp_path: Path) -> None:
    digest = hashlib.sha256(Path(ECHO).read_bytes()).hexdigest()
    assert typed("call", ECHO, "echo", "-i", "x", "--set-hash", digest.upper()).out == b"x"
    other = typed("call", COUNT, "count_vowels", "--set-hash", digest)
    assert (other.code, other.out) == (2, b"")
    assert hashlib.sha256(Path(COUNT).read_bytes()).hexdigest() in other.err


def test_stats_say_what_each_call_took() -> None:
    result = typed("call", COUNT, "count_vowels", "--input", "Hello", "--stats", "--loop", "2")
    lines = result.err.splitlines()
    assert result.code == 0
    assert len(lines) == 2
    took = r"count_vowels: [\d.]+ ms \(guest [\d.]+, start [\d.]+, host [\d.]+\), 5 bytes in, 43 out, 3 host calls, 192 KiB of memory"
    assert all(re.fullmatch(took, line) for line in lines)


def test_stats_have_the_fuel_where_there_is_a_limit_and_are_written_for_a_call_that_fails(
    evil: str,
) -> None:
    result = typed("call", evil, "trap", "--stats", "--fuel", "1000")
    assert result.code == 1
    assert re.search(r"^trap: .*\d+ fuel", result.err, re.MULTILINE)


def test_a_trace_has_each_host_call_with_its_values() -> None:
    result = typed(
        "call", COUNT, "count_vowels", "--input", "Hello", "--trace", "--config", "vowels=eo"
    )
    assert re.search(r"^    config_get\('vowels'\) -> 'eo'  \[", result.err, re.MULTILINE)
    assert re.search(r"^    var_set\('total', b'\\x02.*\)  \[", result.err, re.MULTILINE)
    assert re.search(r"^count_vowels\(b'Hello'\) -> b'", result.err, re.MULTILINE)


def test_a_recorded_call_can_be_replayed_without_the_server(tmp_path: Path) -> None:
    path = str(tmp_path / "call.json")
    with Server({"*": reply(b"hello")}) as server:
        recorded = typed(
            "call",
            HTTP,
            "http_body",
            "-i",
            f"{server.url}/",
            "--allow-host",
            "127.0.0.1",
            "--record",
            path,
        )
    assert recorded.code == 0
    assert os.stat(path).st_mode & 0o777 == 0o600
    replayed = typed("replay", path)
    assert (replayed.code, replayed.out) == (0, b"http_get does the same: 1 call\n")
    assert typed("replay", path, HTTP).code == 0


def test_a_replay_of_a_plugin_that_does_something_else_fails_and_says_what(tmp_path: Path) -> None:
    path = tmp_path / "call.json"
    typed("call", COUNT, "count_vowels", "--input", "Hello", "--record", str(path))
    path.write_text(path.read_text().replace("Hello", "Hallo, you"))
    replayed = typed("replay", str(path))
    assert replayed.code == 1
    assert re.search(r"call 1, count_vowels\('Hallo, you'\) is not as it was", replayed.err)
    assert re.search(r"now: +returned", replayed.err)


def test_a_replay_takes_no_longer_than_it_may(tmp_path: Path) -> None:
    loop = tmp_path / "loop.wat"
    loop.write_text('(module (func (export "run") (loop $l (br $l))))')
    path = tmp_path / "call.json"
    assert typed("call", str(loop), "run", "--timeout", "100ms", "--record", str(path)).code == 3
    document = json.loads(path.read_text())
    document["limits"] = {"timeout": 2**33}
    path.write_text(json.dumps(document))
    assert typed("replay", str(path), "--timeout", "300ms").code == 0
    assert typed("replay", str(path), "--timeout", "soon").code == 2


def test_a_call_that_fails_is_recorded_too(tmp_path: Path, evil: str) -> None:
    path = str(tmp_path / "call.json")
    assert typed("call", evil, "trap", "--record", path).code == 1
    assert typed("replay", path).code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("call", COUNT, "count_vowels", "--record", "/no/such/call.json"),
            "--record: there is no directory /no/such",
        ),
        (("call", COUNT, "count_vowels", "--record", ""), "--record: expected the name of a file"),
        (("replay", "/no/such/call.json"), "no such file"),
        (("replay", ECHO), "is no recording"),
    ],
)
def test_what_cannot_be_recorded_or_replayed_is_said(
    arguments: tuple[str, ...], message: str
) -> None:
    result = typed(*arguments)
    assert result.code == 2
    assert message in result.err
    assert result.out == b""


def test_a_trace_cannot_speak_to_the_terminal(evil: str) -> None:
    result = typed("call", evil, "log", "--trace", "--log-level", "off")
    assert "log_warn(" in result.err
    assert is_harmless(result.err)
    assert "\nerror: forged" not in result.err


# ---- what goes wrong --------------------------------------------------------------------------------------------------------------------

WRONG = [
    # what is typed                                             exit code, a part of what is said
    (["cal"], 2, "Did you mean 'call'?"),
    (["call"], 2, "missing argument 'PLUGIN'"),
    (["call", COUNT], 2, "missing argument 'FUNCTION'"),
    (["call", COUNT, "count_vowels", "more"], 2, "more"),
    (["call", COUNT, "count_vowels", "--inptu", "x"], 2, "no such option"),
    (["call", COUNT, "count_vowels", "--input"], 2, "requires an argument"),
    (["call", COUNT, "count_vowel"], 2, "did you mean `count_vowels`?"),
    (["call", COUNT, "memory"], 2, "exports no function `memory`"),
    (["call", "nowhere.wasm", "f"], 2, "no such file: nowhere.wasm"),
    (["call", "", "f"], 2, ""),
    (["call", str(ROOT), "f"], 2, "is a directory"),
    (["call", "/dev/null", "f"], 2, "regular file"),
    (["call", __file__, "f"], 2, "is not a Wasm module, but text"),
    (["call", "http://127.0.0.1:1/x.wasm", "f"], 2, "cannot fetch http://127.0.0.1:1/x.wasm"),
    (["call", '{"wasm": []}', "f"], 2, "manifest field `wasm`: expected at least one module"),
    (["call", '{"wasm": [{"path": "x", "hsh": ""}]}', "f"], 2, "did you mean `hash`?"),
    (["call", HOST, "greet"], 2, "run the plugin from an application that has the function"),
    (["call", WASI, "cat"], 2, "add --wasi"),
    (["call", WASI, "cat", "--allow-path", "/nowhere:/data"], 2, "cannot be opened as a directory"),
    (["call", WASI, "cat", "--allow-path", ""], 2, "--allow-path: expected HOST or HOST:GUEST"),
    (["call", WASI, "cat", "--allow-path", "ro:"], 2, "--allow-path: expected HOST or HOST:GUEST"),
    (
        ["call", WASI, "cat", "--allow-path", "/tmp:"],
        2,
        "--allow-path: expected HOST or HOST:GUEST",
    ),
    (
        ["call", WASI, "cat", "--allow-path", "/a:/x", "--allow-path", "/b:/x"],
        2,
        "/x is given twice",
    ),
    (
        ["call", WASI, "cat", "--allow-path", "/a:/x", "--allow-path", "/a:/y"],
        2,
        "/a is given twice",
    ),
    (
        ["call", COUNT, "count_vowels", "--input", "x", "--stdin"],
        2,
        "--input and --stdin: only one",
    ),
    (
        ["call", COUNT, "count_vowels", "--input-file", "x", "--stdin"],
        2,
        "--input-file and --stdin: only one",
    ),
    (
        ["call", COUNT, "count_vowels", "--input-file", "nowhere"],
        2,
        "cannot read the input nowhere: No such file",
    ),
    (
        ["call", COUNT, "count_vowels", "--input-file", "/"],
        2,
        "cannot read the input /: Is a directory",
    ),
    (["call", COUNT, "count_vowels", "--input-file", "a\0b"], 2, "cannot be the name of a file"),
    (
        ["call", COUNT, "count_vowels", "--output-file", ""],
        2,
        "--output-file: expected the name of a file",
    ),
    (["call", COUNT, "count_vowels", "--output-file", "/"], 2, "/ is a directory"),
    (
        ["call", COUNT, "count_vowels", "--output-file", "/nowhere/x"],
        2,
        "there is no directory /nowhere",
    ),
    (
        ["call", COUNT, "count_vowels", "--output-file", "/dev/full"],
        2,
        "cannot write /dev/full: No space left",
    ),
    (
        ["call", COUNT, "count_vowels", "--config", "vowels"],
        2,
        "--config: expected KEY=VALUE, got no =",
    ),
    (
        ["call", COUNT, "count_vowels", "--config", "=x"],
        2,
        "--config: expected KEY=VALUE, got nothing before the =",
    ),
    (["call", COUNT, "count_vowels", "--config-file", "nowhere"], 2, "no such file: nowhere"),
    (
        ["call", COUNT, "count_vowels", "--config-file", __file__],
        2,
        "neither a JSON object nor TOML",
    ),
    (["call", COUNT, "count_vowels", "--timeout", "soon"], 2, "--timeout: expected milliseconds"),
    (["call", COUNT, "count_vowels", "--timeout", "0"], 2, "--timeout: expected milliseconds"),
    (["call", COUNT, "count_vowels", "--timeout", "-1"], 2, "--timeout: expected milliseconds"),
    (["call", COUNT, "count_vowels", "--timeout", "nan"], 2, "--timeout: expected milliseconds"),
    (["call", COUNT, "count_vowels", "--timeout", "1e300"], 2, "--timeout: expected milliseconds"),
    (
        ["call", COUNT, "count_vowels", "--memory-max-pages", "65537"],
        2,
        "a whole number from 0 to 65536, got '65537'",
    ),
    (
        ["call", COUNT, "count_vowels", "--memory-max-pages", "1.5"],
        2,
        "--memory-max: expected a whole number",
    ),
    (["call", COUNT, "count_vowels", "--fuel", "0"], 2, "--fuel: expected a whole number from 1"),
    (
        ["call", COUNT, "count_vowels", "--fuel", "9" * 5000],
        2,
        "--fuel: expected a whole number from 1",
    ),
    (["call", COUNT, "count_vowels", "--fuel", "1"], 3, "used up its fuel"),
    (["call", COUNT, "count_vowels", "--loop", "0"], 2, "--loop: expected a whole number from 1"),
    (["call", COUNT, "count_vowels", "--loop", "²"], 2, "--loop: expected a whole number from 1"),
    (
        ["call", COUNT, "count_vowels", "--set-hash", "abc"],
        2,
        "--set-hash: expected the 64 hexadecimal digits",
    ),
    (
        ["call", COUNT, "count_vowels", "--set-hash", "g" * 64],
        2,
        "--set-hash: expected the 64 hexadecimal digits",
    ),
    (["call", COUNT, "count_vowels", "--link", "lib"], 2, "--link: expected NAME=PATH, got no ="),
    (
        ["call", COUNT, "count_vowels", "--link", "lib="],
        2,
        "--link: expected NAME=PATH, got nothing after the =",
    ),
    (["call", COUNT, "count_vowels", "--link", "lib=nowhere"], 2, "no such file: nowhere"),
    (
        ["call", COUNT, "count_vowels", "--link", f"main={ECHO}"],
        2,
        "main is the name of the plugin itself",
    ),
    (
        ["call", COUNT, "count_vowels", "--link", f"a={ECHO}", "--link", f"a={ECHO}"],
        2,
        "a is given twice",
    ),
    (
        ["call", COUNT, "count_vowels", "--allow-host", "https://example.com"],
        2,
        "--allow-host: 'https://example.com' is a URL",
    ),
    (["call", COUNT, "count_vowels", "--allow-host", ""], 2, "--allow-host: ''"),
    (
        ["call", COUNT, "count_vowels", "--log-level", "loud"],
        2,
        "--log-level: expected trace, debug",
    ),
    (["call", ECHO, "spin", "--timeout", "50ms"], 3, "deadline of 50 ms"),
    (["call", ECHO, "alloc_length", "-i", "x"], 1, "plugin error: "),
    (["inspect"], 2, "missing argument 'PLUGIN'"),
    (["inspect", "nowhere.wasm"], 2, "no such file: nowhere.wasm"),
    (["inspect", COUNT, "--jsn"], 2, "no such option"),
    (["schema", "x"], 2, "x"),
    (["cache", "empty"], 2, "no such command 'empty'"),
    (["--wersion"], 2, "no such option"),
]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    WRONG,
    ids=lambda value: " ".join(value)[-60:] if isinstance(value, list) else None,
)
def test_what_is_wrong_is_said_in_one_or_two_lines(
    arguments: list[str], code: int, said: str, tmp_path: Path
) -> None:
    done = typed(*arguments)
    assert (done.code, done.out) == (code, b""), done.err
    assert said in done.err
    assert done.err.startswith(("error: ", "plugin error: "))
    assert 1 <= done.err.count("\n") <= 2
    assert "Traceback" not in done.err


def test_the_hint_names_the_command_that_was_meant() -> None:
    assert typed("call", COUNT).err.endswith("see: plugwasm call --help\n")
    assert typed("call", COUNT, "f", "--fuel", "x").err.endswith("see: plugwasm call --help\n")
    assert typed("cache", "dir", "x").err.endswith("see: plugwasm cache dir --help\n")
    assert typed("nothing").err.endswith("see: plugwasm --help\n")


@pytest.mark.parametrize(
    ("function", "options", "code", "said"),
    [
        ("fail", (), 1, "plugin error: "),
        ("code", (), 1, "returned the error code -7"),
        ("trap", (), 1, "trapped: unreachable"),
        ("wrong", (), 2, "only () -> () and () -> (i32) can be called"),
        ("spin", ("--timeout", "50"), 3, "deadline of 50 ms"),
        ("spin", ("--fuel", "1000"), 3, "used up its fuel"),
        ("hungry", ("--memory-max-pages", "10"), 3, "10 pages"),
        ("log", (), 0, "warn  evil: "),
    ],
)
def test_each_way_to_end_has_its_exit_code(
    evil: str, function: str, options: tuple[str, ...], code: int, said: str
) -> None:
    done = typed("call", evil, function, *options)
    assert (done.code, done.out) == (code, b"")
    assert said in done.err


@pytest.mark.parametrize(("pages", "code"), [("0", 3), ("1", 3), ("2", 0)])
def test_a_module_that_starts_with_more_memory_than_its_limit_does_not_start(
    pages: str, code: int
) -> None:
    assert (
        typed(
            "call", '(module (memory 2) (func (export "f")))', "f", "--memory-max-pages", pages
        ).code
        == code
    )


def test_a_trap_shows_the_innermost_frames_and_a_traceback_all() -> None:
    evil = EVIL
    brief = typed("call", evil, "trap")
    assert re.search(
        r"^  in d @ \w+, in c @ \w+, in b @ \w+, … \(all \d frames: --traceback\)$",
        brief.err,
        re.MULTILINE,
    )
    full = typed("call", evil, "trap", "--traceback")
    assert (full.code, "Traceback (most recent call last)" in full.err) == (1, True)
    assert re.search(r"3: a @ ", full.err)


def test_what_a_guest_says_is_escaped_and_cannot_pass_for_ours(evil: str) -> None:
    for function in ("fail", "log"):
        done = typed("call", evil, function)
        assert r"\x1b[31mred\x1b[0m [bold]x[/bold]" in done.err
        assert "error: forged" in done.err
        assert "\nerror: forged" not in done.err
        assert r"\u202egpj.exe \x9bm" in done.err
        assert is_harmless(done.err)
    traceback = typed("call", evil, "fail", "--traceback")
    assert is_harmless(traceback.err)


def test_names_that_are_typed_are_escaped_too() -> None:
    done = typed("call", COUNT, "\x1b[31m[red]")
    assert is_harmless(done.err)
    assert "[red]" in done.err
    assert is_harmless(typed("call", "\x1b[31mx", "f").err)
    assert is_harmless(typed("\x1b[31mx").err)


def test_an_error_without_a_message_is_still_an_error() -> None:
    done = typed(
        "call",
        '(module (import "extism:host/env" "alloc" (func $a (param i64) (result i64)))'
        '(import "extism:host/env" "error_set" (func $e (param i64)))'
        '(func (export "f") (result i32) (call $e (call $a (i64.const 1))) (i32.const 1)))',
        "f",
    )
    assert (done.code, done.err) == (1, "plugin error: \\x00\n")


def test_secrets_in_config_are_not_repeated(tmp_path: Path) -> None:
    secret = "hunter2"
    (tmp_path / "bad").write_text(f'key = "{secret}" x')
    (tmp_path / "number.json").write_text('{"key": 12345678}')
    for arguments in (
        ("--config", f"={secret}"),
        ("--config-file", str(tmp_path / "bad")),
        ("--config", f"key={secret}", "--fuel", "1"),
        ("--config", f"key={secret}", "--set-hash", "0" * 64, "--traceback"),
    ):
        done = typed("call", COUNT, "count_vowels", *arguments)
        assert (done.code > 0, secret in done.err) == (True, False)
    done = typed("call", COUNT, "count_vowels", "--config-file", str(tmp_path / "number.json"))
    assert (done.code, "'key' has int" in done.err, "12345678" in done.err) == (2, True, False)


def test_a_fault_of_ours_is_one_line_and_asks_for_a_report(
    capsys: pytest.CaptureFixture[str],
) -> None:
    import typer

    with pytest.raises(typer.Exit) as ended, reporting("plugwasm call"):
        raise ZeroDivisionError("what\x1b happened")
    assert ended.value.exit_code == 70
    assert capsys.readouterr().err == (
        "error: a fault of plugwasm itself: ZeroDivisionError: what\\x1b happened\n  please report it, with what --traceback shows\n"
    )


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.sampled_from(
            [
                "--input",
                "--config",
                "--timeout",
                "--fuel",
                "--loop",
                "--link",
                "--allow-path",
                "-c",
                "--wasi",
            ]
        )
        | st.text()
    )
)
@case(["--loop", "\x00"])
@case(["--", "--"])
@case(["--config", "\ud800=\udfff"])
@case(["--input", "\ud800"])
def test_whatever_is_typed_ends_with_an_exit_code_of_ours(arguments: list[str]) -> None:
    bounded = [
        "call",
        ECHO,
        "echo",
        "--timeout",
        "5s",
        *(
            argument
            for argument in arguments
            if not (argument.isdecimal() or argument.startswith("-o"))
        ),
    ]
    done = typed(*bounded)
    assert done.code in (0, 1, 2, 3)
    assert is_harmless(done.err)
    assert bool(done.err) == (done.code != 0)


# ---- the log ----------------------------------------------------------------------------------------------------------------------------


def test_what_a_guest_prints_and_logs_goes_to_stderr() -> None:
    done = typed("call", WASI, "say", "-i", "hello", "--wasi")
    assert (done.out, done.err) == (b"", "info  wasi_files: hello\nwarn  wasi_files: HELLO\n")


@pytest.mark.parametrize(
    ("level", "lines"), [("trace", 2), ("info", 2), ("warn", 1), ("error", 0), ("off", 0)]
)
def test_the_log_level_says_what_is_shown(level: str, lines: int) -> None:
    assert (
        typed("call", WASI, "say", "-i", "hello", "--wasi", "--log-level", level).err.count("\n")
        == lines
    )


def test_the_logger_is_left_as_it_was() -> None:
    import logging

    logger = logging.getLogger("plugwasm")
    before = (logger.level, logger.propagate, list(logger.handlers))
    typed("call", WASI, "say", "--wasi", "--log-level", "trace")
    assert (logger.level, logger.propagate, list(logger.handlers)) == before


# ---- inspect ----------------------------------------------------------------------------------------------------------------------------


def test_inspect_says_who_provides_each_import(tmp_path: Path) -> None:
    (tmp_path / "lib.wat").write_text(FIVE)
    (tmp_path / "main.wat").write_text(
        """
        (module
          (import "extism:host/env" "alloc" (func (param i64) (result i64)))
          (import "extism:host/env" "var_get" (func (param i64) (result i64)))
          (import "extism:host/env" "from_the_future" (func))
          (import "extism:host/env" "length" (func (param i32) (result i64)))
          (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "fd_levitate" (func))
          (import "lib" "five" (func (result i32)))
          (import "extism:host/user" "ask" (func (param i64) (result i64)))
          (import "elsewhere" "table" (table 1 funcref))
          (memory (export "memory") 3)
          (func (export "go") (result i32) (i32.const 0))
          (func (export "no") (param f64)))
        """
    )
    manifest = {
        "wasm": [
            {"path": str(tmp_path / "lib.wat"), "name": "lib"},
            {"path": str(tmp_path / "main.wat")},
        ]
    }
    done = typed("inspect", json.dumps(manifest), "--json")
    assert done.code == 0
    found = json.loads(done.out)
    lib, main = found["modules"]
    assert (lib["name"], lib["main"], main["name"], main["main"]) == ("lib", False, "main", True)
    assert {
        item["name"]: (item["provider"], item["provided_by"], item["fits"])
        for item in main["imports"]
    } == {
        "alloc": ("kernel", None, True),
        "var_get": ("env", None, True),
        "from_the_future": ("nobody", None, True),
        "length": ("kernel", None, False),
        "fd_write": ("wasi", None, True),
        "fd_levitate": ("nobody", None, True),
        "five": ("module", "lib", True),
        "ask": ("application", None, True),
        "table": ("nobody", None, True),
    }
    assert {item["name"]: item["callable"] for item in main["exports"]} == {
        "memory": False,
        "go": True,
        "no": False,
    }
    assert [item["callable"] for item in lib["exports"]] == [False]
    assert main["memories"] == {"own": 1, "pages": 3, "imported": 0}
    assert main["exports"][1]["type"] == {"params": [], "results": ["i32"]}
    assert found["needs"] == {
        "wasi": True,
        "host_functions": ["extism:host/user.ask"],
        "missing": [
            "extism:host/env.from_the_future",
            "wasi_snapshot_preview1.fd_levitate",
            "elsewhere.table",
        ],
    }
    text = typed("inspect", json.dumps(manifest)).out.decode()
    assert re.search(r"^    go +\(\) -> \(i32\) +callable$", text, re.MULTILINE)
    assert re.search(r"^    no +\(f64\) -> \(\)$", text, re.MULTILINE)
    assert re.search(
        r"^    length +\(i32\) -> \(i64\) +kernel, with another type$", text, re.MULTILINE
    )
    assert re.search(r"^    five +\(\) -> \(i32\) +module lib$", text, re.MULTILINE)
    assert "3 pages (192 KiB)" in text
    assert text.endswith(
        "Nobody has: extism:host/env.from_the_future, wasi_snapshot_preview1.fd_levitate, elsewhere.table\n"
    )


def test_inspect_shows_the_size_and_the_hash() -> None:
    content = Path(COUNT).read_bytes()
    text = typed("inspect", COUNT).out.decode()
    assert text.startswith("count_vowels\n")
    assert f"{len(content):,} bytes" in text
    assert hashlib.sha256(content).hexdigest() in text
    assert "It needs" not in text


def test_inspect_escapes_names(evil: str) -> None:
    text = typed("inspect", evil).out.decode()
    assert r"    [red]\x1b[31mname  () -> (i32)" in text
    assert is_harmless(text)
    assert (
        json.loads(typed("inspect", evil, "--json").out)["modules"][0]["exports"][-1]["name"]
        == "[red]\x1b[31mname"
    )


def test_inspect_runs_nothing() -> None:
    assert typed("inspect", "(module (func $f unreachable) (start $f))").code == 0


# ---- schema, cache, version, help -------------------------------------------------------------------------------------------------------


def test_schema_is_the_json_schema_of_manifests() -> None:
    assert json.loads(typed("schema").out) == json_schema()


def test_the_cache_is_shown_and_cleared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLUGWASM_CACHE", str(tmp_path / "cache"))
    assert (
        typed("cache", "dir").out
        == f"{tmp_path}/cache\n".encode()
        == f"{cache.directory()}\n".encode()
    )
    assert typed("cache").out == f"{tmp_path}/cache: 0 entries, 0.0 MiB\n".encode()
    assert typed("cache", "clear").out == f"removed 0 entries from {tmp_path}/cache\n".encode()
    assert command("call", ECHO, "echo").returncode == 0
    count = len(list((tmp_path / "cache").iterdir()))
    assert count > 0
    assert typed("cache").out.startswith(f"{tmp_path}/cache: {count} ".encode())
    assert typed("cache", "clear").out.startswith(f"removed {count} ".encode())
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_cache_that_is_off_has_no_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLUGWASM_CACHE", "off")
    for arguments in (["cache"], ["cache", "dir"], ["cache", "clear"]):
        done = typed(*arguments)
        assert (done.code, done.out, done.err) == (
            2,
            b"",
            "error: the cache is off (PLUGWASM_CACHE)\n",
        )


def test_the_version_names_the_engine_too() -> None:
    assert re.fullmatch(
        rf"plugwasm {re.escape(__version__)} \(wasmtime [\d.]+, Python 3\.[\d.]+\S*\)\n",
        typed("--version").out.decode(),
    )


def test_without_a_command_there_is_help_and_an_exit_code() -> None:
    done = typed()
    assert done.code == 2
    assert all(name in done.out.decode() for name in ("call", "inspect", "schema", "cache"))


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["-h"], ["call", "--help"], ["cache", "-h"], ["cache", "clear", "--help"]],
)
def test_help_is_a_success(arguments: list[str]) -> None:
    done = typed(*arguments)
    assert (done.code, done.err) == (0, "")
    assert "Usage: plugwasm" in done.out.decode()


def test_help_imports_nothing_that_only_a_command_needs() -> None:
    code = (
        "import sys; from plugwasm.cli import main; main(['--help']);"
        "heavy = {'plugwasm._engine', 'plugwasm._runtime.plugin', 'plugwasm._manifest.model', 'plugwasm._manifest.resolve', 'msgspec', 'urllib3', 'wasmtime'};"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_the_extra_one_line_says_how_to_get_it(missing: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; from plugwasm.cli import main; sys.exit(main(['call', 'x', 'y']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        done.stderr
        == "plugwasm: the command line needs typer and rich: pip install 'plugwasm[cli]'\n"
    )


def test_main_gives_the_exit_code(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["call", ECHO, "echo", "-i", "x"]) == 0
    assert main(["call", ECHO, "nothing"]) == 2
    assert main(["call", ECHO, "alloc_length", "-i", "x"]) == 1
    assert capfd.readouterr().out == "x"


# ---- terminals, pipes, signals ----------------------------------------------------------------------------------------------------------


def test_on_a_terminal_the_output_ends_its_line() -> None:
    assert on_terminal("call", ECHO, "echo", "-i", "abc") == "abc\n"
    assert on_terminal("call", ECHO, "echo", "-i", "abc\n") == "abc\n"
    assert on_terminal("call", ECHO, "echo") == ""


def test_errors_are_coloured_on_a_terminal_unless_that_is_not_wanted() -> None:
    assert "\x1b[1;31merror:\x1b[0m no such file" in on_terminal("call", "nowhere", "f")
    plain = on_terminal("call", "nowhere", "f", NO_COLOR="1")
    assert not re.search(r"\x1b\[[\d;]*3\dm", plain)
    assert re.sub(r"\x1b\[[\d;]*m", "", plain).startswith("error: no such file")


@pytest.mark.parametrize(
    "arguments", [("inspect", WASI), ("inspect", HOST), ("--help",), ("call", "--help")]
)
def test_tables_fit_a_narrow_terminal(arguments: tuple[str, ...]) -> None:
    shown = re.sub(r"\x1b\[[\d;]*m", "", on_terminal(*arguments, columns=60))
    lines = [
        line for line in shown.splitlines() if not line.startswith("It needs")
    ]  # a sentence, which the terminal wraps
    assert len(lines) > 5
    assert max(map(len, lines)) <= 60


def test_tables_are_not_wrapped_in_a_pipe_and_have_no_colours() -> None:
    text = command("inspect", WASI, env=os.environ | {"COLUMNS": "40"}).stdout.decode()
    assert "(i32, i32, i32, i32, i32, i64, i64, i32, i32) -> (i32)  WASI\n" in text
    assert "\x1b" not in text
    assert not re.search(r" $", text, re.MULTILINE)


def test_names_can_be_shown_where_the_output_is_not_utf8(tmp_path: Path) -> None:
    done = command(
        "inspect", '(module (func (export "ä")))', env=os.environ | {"PYTHONIOENCODING": "ascii"}
    )
    assert done.returncode == 0
    assert rb"\xe4" in done.stdout


def test_a_reader_that_goes_away_is_no_error_to_talk_about() -> None:
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


def test_output_that_cannot_be_written_is_an_error() -> None:
    with open("/dev/full", "wb") as full:
        done = command(
            "call",
            ECHO,
            "echo",
            "-i",
            "x",
            capture_output=False,
            stdout=full,
            stderr=subprocess.PIPE,
        )
    assert (done.returncode, done.stderr) == (
        2,
        b"error: cannot write standard output: No space left on device\n",
    )


def test_standard_output_that_is_closed_is_an_error() -> None:
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


# ---- the parts --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2", 2),
        ("2s", 2000),
        ("0.5s", 500),
        ("500ms", 500),
        ("1.6ms", 2),
        ("1ms", 1),
        ("0.001s", 1),
        ("1e1", 10),
    ],
)
def test_a_timeout_is_in_milliseconds_unless_it_says_otherwise(text: str, expected: int) -> None:
    assert invocation.milliseconds(text) == expected


@given(st.text() | st.floats().map(str) | st.from_regex(r"[0-9.e_-]{1,12}m?s?", fullmatch=True))
def test_a_timeout_is_a_number_of_milliseconds_or_refused(text: str) -> None:
    try:
        value = invocation.milliseconds(text)
    except UsageProblem:
        return
    assert value >= 1
    assert math.isclose(
        value,
        float(text.removesuffix("s").removesuffix("m"))
        * (1000 if text.endswith("s") and not text.endswith("ms") else 1),
        abs_tol=0.51,
    )


@pytest.mark.parametrize(
    ("text", "host", "guest"),
    [
        ("/a:/b", "/a", "/b"),
        ("/a", "/a", "/a"),
        ("ro:/a:/b", "ro:/a", "/b"),
        ("ro:/a", "ro:/a", "/a"),
        ("a:b:/c", "a:b", "/c"),
        (".", ".", "."),
    ],
)
def test_a_path_is_granted_under_its_own_name_unless_another_is_given(
    text: str, host: str, guest: str
) -> None:
    assert invocation.granted_path(text) == (host, guest)


@given(st.text())
def test_escaped_text_is_one_line_that_a_terminal_only_shows(text: str) -> None:
    shown = escaped(text)
    assert is_harmless(shown)
    assert "\n" not in shown
    if text.isprintable():
        assert shown == text


@given(st.text(alphabet=st.sampled_from("ab\n\r\t\x1b\u2028")))
def test_lines_after_the_first_are_indented(text: str) -> None:
    first, *others = escaped_lines(text).split("\n")
    assert all(line.startswith("  ") for line in others)
    assert len(others) <= 21
    assert "\r" not in first


def test_long_text_is_cut_and_says_so() -> None:
    assert escaped_lines("x" * 5000) == "x" * 4000 + "… (1000 more characters)"
    assert escaped_lines("x\n" * 30).splitlines()[-1] == "  … (10 more lines)"


def test_markup_in_a_complaint_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    complain("[bold]x[/bold] :smile: [/]", "[red]")
    assert capsys.readouterr().err == "error: [bold]x[/bold] :smile: [/]\n  [red]\n"
