"""`plugwasm call`: input, output, grants, statistics, traces and recordings."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.http_server import Server, reply
from tests.support.paths import ROOT

pytest.importorskip("typer")


from tests.support.command_line import (
    COUNT,
    ECHO,
    FIVE,
    HTTP,
    WASI,
    is_harmless,
    run_command,
    run_process,
)

WANTS_FIVE = """
(module
  (import "lib" "five" (func $five (result i32)))
  (func (export "check") (result i32) (i32.sub (call $five) (i32.const 5)))
  (func (export "code") (result i32) (call $five)))
"""


@pytest.fixture
def manifest(tmp_path: Path) -> Callable[..., str]:
    def write(plugin: str = COUNT, **fields: Any) -> str:
        path = tmp_path / "plugin.json"
        path.write_text(json.dumps({"wasm": [{"path": plugin}], **fields}))
        return str(path)

    return write


def test_call_readme_line() -> None:
    """The README's command prints the plugin's output and nothing else."""
    done = run_process(
        "call", "examples/count_vowels.wasm", "count_vowels", "--input", "Hello, World!", cwd=ROOT
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == b'{"count":3,"total":3,"vowels":"aeiouAEIOU"}'


def test_call_without_input() -> None:
    """Without input, the plugin gets an empty input."""
    assert run_command("call", ECHO, "echo").out == b""


@pytest.mark.parametrize("how", ["--input", "-i"])
def test_text_is_sent_as_utf8(how: str) -> None:
    assert run_command("call", ECHO, "echo", how, "äöü 😀").out == "äöü 😀".encode()


def test_call_input_with_dash() -> None:
    """An input may begin with a dash."""
    assert run_command("call", ECHO, "echo", "--input=--wasi").out == b"--wasi"


def test_call_argument_not_utf8() -> None:
    """An argument that is not UTF-8 reaches the plugin byte for byte."""
    assert run_process("call", ECHO, "echo", "--input", b"\xff\xfe").stdout == b"\xff\xfe"


def test_call_input_from_file_or_stdin(tmp_path: Path) -> None:
    """A file or standard input reaches the plugin byte for byte."""
    data = bytes(range(256)) * 300
    (tmp_path / "in").write_bytes(data)
    assert run_command("call", ECHO, "echo", "--input-file", str(tmp_path / "in")).out == data
    assert run_command("call", ECHO, "echo", "--stdin", stdin=data).out == data
    assert run_process("call", ECHO, "echo", "--stdin", input=data).stdout == data


def test_call_empty_input_file(tmp_path: Path) -> None:
    """An empty file is an empty input."""
    (tmp_path / "in").touch()
    assert run_command("call", ECHO, "echo", "--input-file", str(tmp_path / "in")).code == 0


def test_call_stdin_not_waited_for() -> None:
    """A plugin that cannot be called is an error before standard input is read."""
    ours, theirs = os.pipe()
    try:
        done = run_process("call", "nowhere.wasm", "f", "--stdin", stdin=ours, timeout=20)
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.returncode == 2


def test_output_goes_to_a_file_as_it_is(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.write_bytes(b"longer than what comes now")
    done = run_command("call", ECHO, "echo", "-i", "abc", "-o", str(out))
    assert (done.out, out.read_bytes()) == (b"", b"abc")


def test_call_failure_keeps_output_file(tmp_path: Path, evil: str) -> None:
    """A call that fails leaves the output file as it was."""
    out = tmp_path / "out"
    out.write_bytes(b"before")
    assert run_command("call", evil, "fail", "--output-file", str(out)).code == 1
    assert out.read_bytes() == b"before"


def test_call_loop_shares_instance(tmp_path: Path) -> None:
    """Calls in a loop share an instance and print one line each."""
    done = run_command("call", COUNT, "count_vowels", "-i", "a", "--loop", "3")
    assert [json.loads(line)["total"] for line in done.out.splitlines()] == [1, 2, 3]
    assert done.out.endswith(b"\n")
    run_command("call", ECHO, "echo", "-i", "a", "--loop", "2", "-o", str(tmp_path / "out"))
    assert (tmp_path / "out").read_bytes() == b"a\na\n"


def test_call_config_precedence(tmp_path: Path) -> None:
    """Config comes from options and from files, and options win."""
    (tmp_path / "c.json").write_text('{"vowels": "H", "other": ""}')
    (tmp_path / "c.toml").write_text('vowels = "H"\n')

    def vowels(*arguments: str) -> str:
        return str(
            json.loads(run_command("call", COUNT, "count_vowels", "-i", "Hello", *arguments).out)[
                "vowels"
            ]
        )

    assert vowels("--config", "vowels=lo") == "lo"
    assert vowels("-c", "vowels=x=y", "-c", "other=1") == "x=y"
    assert vowels("--config-file", str(tmp_path / "c.json")) == "H"
    assert vowels("--config-file", str(tmp_path / "c.toml")) == "H"
    assert vowels("--config-file", str(tmp_path / "c.toml"), "-c", "vowels=e") == "e"


def test_call_config_added_to_manifest(manifest: Callable[..., str]) -> None:
    """Config options add to the manifest's config."""
    path = manifest(config={"vowels": "H", "other": "1"})
    assert json.loads(run_command("call", path, "count_vowels", "-i", "Hello").out)["vowels"] == "H"
    assert (
        json.loads(run_command("call", path, "count_vowels", "-i", "Hello", "-c", "vowels=l").out)[
            "vowels"
        ]
        == "l"
    )


def test_call_timeout_replaces_manifest(manifest: Callable[..., str]) -> None:
    """The timeout option replaces the manifest's timeout."""
    path = manifest(ECHO, timeout_ms=60_000)
    before = time.monotonic()
    done = run_command("call", path, "spin", "--timeout", "200ms")
    assert (done.code, "deadline of 200 ms" in done.err) == (3, True)
    assert time.monotonic() - before < 10


def test_a_module_can_be_fetched() -> None:
    with Server({"*": reply(Path(ECHO).read_bytes())}) as server:
        assert run_command("call", f"{server.url}/echo.wasm", "echo", "-i", "x").out == b"x"


def test_a_manifest_can_be_typed() -> None:
    assert (
        run_command("call", json.dumps({"wasm": [{"path": ECHO}]}), "echo", "-i", "x").out == b"x"
    )


def test_call_hosts_added_to_manifest(manifest: Callable[..., str]) -> None:
    """Host options add to the manifest's allowed hosts."""
    with Server({"*": reply(b"hello")}) as server:
        path = manifest(HTTP, allowed_hosts=["example.com"])
        refused = run_command("call", path, "http_body", "-i", f"{server.url}/")
        assert (refused.code, refused.out) == (1, b"")
        assert "127.0.0.1 is not granted" in refused.err
        assert "--allow-host" in refused.err
        assert (
            run_command(
                "call", path, "http_body", "-i", f"{server.url}/", "--allow-host", "127.0.0.1"
            ).out
            == b"hello"
        )


def test_call_grants_directory(tmp_path: Path) -> None:
    """A directory can be granted under another path or its own."""
    (tmp_path / "a.txt").write_text("content")
    assert (
        run_command(
            "call", WASI, "cat", "-i", "/data/a.txt", "--allow-path", f"{tmp_path}:/data"
        ).out
        == b"content"
    )
    assert (
        run_command(
            "call", WASI, "cat", "-i", f"{tmp_path}/a.txt", "--allow-path", str(tmp_path)
        ).out
        == b"content"
    )


def test_call_grants_directory_read_only(tmp_path: Path) -> None:
    """A directory granted read-only cannot be written."""
    write = ("call", WASI, "write", "-i", "/data/new\nx", "--allow-path")
    assert run_command(*write, f"ro:{tmp_path}:/data").code == 1
    assert list(tmp_path.iterdir()) == []
    assert run_command(*write, f"{tmp_path}:/data").out == b"1"
    assert (tmp_path / "new").read_bytes() == b"x"


def test_call_grant_replaces_manifest(tmp_path: Path, manifest: Callable[..., str]) -> None:
    """A grant option replaces the manifest's grant."""
    path = manifest(WASI, allowed_paths={str(tmp_path): "/data"})
    assert (
        run_command(
            "call", path, "write", "-i", "/data/new\nx", "--allow-path", f"ro:{tmp_path}:/data"
        ).code
        == 1
    )
    assert not (tmp_path / "new").exists()


def test_a_module_can_be_linked(tmp_path: Path) -> None:
    (tmp_path / "five.wat").write_text(FIVE)
    (tmp_path / "main.wat").write_text(WANTS_FIVE)
    main, five = str(tmp_path / "main.wat"), str(tmp_path / "five.wat")
    assert run_command("call", main, "check", "--link", f"lib={five}").code == 0
    missing = run_command("call", main, "check")
    assert (missing.code, "--link" in missing.err) == (2, True)


def test_call_checks_hash(tmp_path: Path) -> None:
    """A module with a hash runs only if its bytes match."""
    digest = hashlib.sha256(Path(ECHO).read_bytes()).hexdigest()
    assert run_command("call", ECHO, "echo", "-i", "x", "--set-hash", digest.upper()).out == b"x"
    other = run_command("call", COUNT, "count_vowels", "--set-hash", digest)
    assert (other.code, other.out) == (2, b"")
    assert hashlib.sha256(Path(COUNT).read_bytes()).hexdigest() in other.err


def test_stats_say_what_each_call_took() -> None:
    result = run_command(
        "call", COUNT, "count_vowels", "--input", "Hello", "--stats", "--loop", "2"
    )
    lines = result.err.splitlines()
    assert result.code == 0
    assert len(lines) == 2
    took = r"count_vowels: [\d.]+ ms \(guest [\d.]+, start [\d.]+, host [\d.]+\), 5 bytes in, 43 out, 3 host calls, 192 KiB of memory"
    assert all(re.fullmatch(took, line) for line in lines)


def test_stats_with_fuel_and_on_failure(evil: str) -> None:
    """Statistics include fuel if there is a limit, and are also written for a call that fails."""
    result = run_command("call", evil, "trap", "--stats", "--fuel", "1000")
    assert result.code == 1
    assert re.search(r"^trap: .*\d+ fuel", result.err, re.MULTILINE)


def test_trace_shows_host_calls() -> None:
    """A trace shows each host call with its arguments and result."""
    result = run_command(
        "call", COUNT, "count_vowels", "--input", "Hello", "--trace", "--config", "vowels=eo"
    )
    assert re.search(r"^    config_get\('vowels'\) -> 'eo'  \[", result.err, re.MULTILINE)
    assert re.search(r"^    var_set\('total', b'\\x02.*\)  \[", result.err, re.MULTILINE)
    assert re.search(r"^count_vowels\(b'Hello'\) -> b'", result.err, re.MULTILINE)


def test_record_and_replay(tmp_path: Path) -> None:
    """A recorded call can be replayed without its server."""
    path = str(tmp_path / "call.json")
    with Server({"*": reply(b"hello")}) as server:
        recorded = run_command(
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
    replayed = run_command("replay", path)
    assert (replayed.code, replayed.out) == (0, b"http_get does the same: 1 call\n")
    assert run_command("replay", path, HTTP).code == 0


def test_replay_reports_difference(tmp_path: Path) -> None:
    """A replay with a plugin that behaves differently fails and reports the difference."""
    path = tmp_path / "call.json"
    run_command("call", COUNT, "count_vowels", "--input", "Hello", "--record", str(path))
    path.write_text(path.read_text().replace("Hello", "Hallo, you"))
    replayed = run_command("replay", str(path))
    assert replayed.code == 1
    assert re.search(r"call 1, count_vowels\('Hallo, you'\) is not as it was", replayed.err)
    assert re.search(r"now: +returned", replayed.err)


def test_replay_timeout(tmp_path: Path) -> None:
    """A replay ends at its timeout."""
    loop = tmp_path / "loop.wat"
    loop.write_text('(module (func (export "run") (loop $l (br $l))))')
    path = tmp_path / "call.json"
    assert (
        run_command("call", str(loop), "run", "--timeout", "100ms", "--record", str(path)).code == 3
    )
    document = json.loads(path.read_text())
    document["limits"] = {"timeout": 2**33}
    path.write_text(json.dumps(document))
    assert run_command("replay", str(path), "--timeout", "300ms").code == 0
    assert run_command("replay", str(path), "--timeout", "soon").code == 2


def test_record_of_failed_call(tmp_path: Path, evil: str) -> None:
    """A call that fails is recorded too."""
    path = str(tmp_path / "call.json")
    assert run_command("call", evil, "trap", "--record", path).code == 1
    assert run_command("replay", path).code == 0


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
def test_record_and_replay_errors(arguments: tuple[str, ...], message: str) -> None:
    """A recording that cannot be made or replayed is reported."""
    result = run_command(*arguments)
    assert result.code == 2
    assert message in result.err
    assert result.out == b""


def test_trace_escapes_terminal_codes(evil: str) -> None:
    """A trace escapes terminal control sequences."""
    result = run_command("call", evil, "log", "--trace", "--log-level", "off")
    assert "log_warn(" in result.err
    assert is_harmless(result.err)
    assert "\nerror: forged" not in result.err
