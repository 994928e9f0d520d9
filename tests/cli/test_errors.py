"""Error messages and exit codes of the command line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import example as case
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.paths import ROOT

pytest.importorskip("typer")


from plugwasm.cli.terminal import report_errors
from tests.support.command_line import COUNT, ECHO, EVIL, HOST, WASI, is_harmless, run_command

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
    (["call", str(ROOT / "README.md"), "f"], 2, "is not a Wasm module, but text"),
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
def test_errors_take_one_or_two_lines(
    arguments: list[str], code: int, said: str, tmp_path: Path
) -> None:
    """An error is reported in one or two lines."""
    done = run_command(*arguments)
    assert (done.code, done.out) == (code, b""), done.err
    assert said in done.err
    assert done.err.startswith(("error: ", "plugin error: "))
    assert 1 <= done.err.count("\n") <= 2
    assert "Traceback" not in done.err


def test_hint_suggests_command() -> None:
    """The hint suggests the closest command name."""
    assert run_command("call", COUNT).err.endswith("see: plugwasm call --help\n")
    assert run_command("call", COUNT, "f", "--fuel", "x").err.endswith(
        "see: plugwasm call --help\n"
    )
    assert run_command("cache", "dir", "x").err.endswith("see: plugwasm cache dir --help\n")
    assert run_command("nothing").err.endswith("see: plugwasm --help\n")


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
def test_exit_codes(
    evil: str, function: str, options: tuple[str, ...], code: int, said: str
) -> None:
    """Each kind of result has its own exit code."""
    done = run_command("call", evil, function, *options)
    assert (done.code, done.out) == (code, b"")
    assert said in done.err


@pytest.mark.parametrize(("pages", "code"), [("0", 3), ("1", 3), ("2", 0)])
def test_start_memory_over_limit(pages: str, code: int) -> None:
    """A module whose initial memory exceeds the limit does not start."""
    assert (
        run_command(
            "call", '(module (memory 2) (func (export "f")))', "f", "--memory-max-pages", pages
        ).code
        == code
    )


def test_trap_frames_and_traceback() -> None:
    """A trap shows the innermost frames, and with --traceback all of them."""
    evil = EVIL
    brief = run_command("call", evil, "trap")
    assert re.search(
        r"^  in d @ \w+, in c @ \w+, in b @ \w+, … \(all \d frames: --traceback\)$",
        brief.err,
        re.MULTILINE,
    )
    full = run_command("call", evil, "trap", "--traceback")
    assert (full.code, "Traceback (most recent call last)" in full.err) == (1, True)
    assert re.search(r"3: a @ ", full.err)


def test_guest_text_is_escaped(evil: str) -> None:
    """A guest's message is escaped and cannot imitate ours."""
    for function in ("fail", "log"):
        done = run_command("call", evil, function)
        assert r"\x1b[31mred\x1b[0m [bold]x[/bold]" in done.err
        assert "error: forged" in done.err
        assert "\nerror: forged" not in done.err
        assert r"\u202egpj.exe \x9bm" in done.err
        assert is_harmless(done.err)
    traceback = run_command("call", evil, "fail", "--traceback")
    assert is_harmless(traceback.err)


def test_typed_names_are_escaped() -> None:
    """Names from the command line are escaped too."""
    done = run_command("call", COUNT, "\x1b[31m[red]")
    assert is_harmless(done.err)
    assert "[red]" in done.err
    assert is_harmless(run_command("call", "\x1b[31mx", "f").err)
    assert is_harmless(run_command("\x1b[31mx").err)


def test_error_without_message() -> None:
    """An error without a message is still reported as an error."""
    done = run_command(
        "call",
        '(module (import "extism:host/env" "alloc" (func $a (param i64) (result i64)))'
        '(import "extism:host/env" "error_set" (func $e (param i64)))'
        '(func (export "f") (result i32) (call $e (call $a (i64.const 1))) (i32.const 1)))',
        "f",
    )
    assert (done.code, done.err) == (1, "plugin error: \\x00\n")


def test_config_secrets_are_not_shown(tmp_path: Path) -> None:
    """Secrets in config are not shown in errors."""
    secret = "hunter2"
    (tmp_path / "bad").write_text(f'key = "{secret}" x')
    (tmp_path / "number.json").write_text('{"key": 12345678}')
    for arguments in (
        ("--config", f"={secret}"),
        ("--config-file", str(tmp_path / "bad")),
        ("--config", f"key={secret}", "--fuel", "1"),
        ("--config", f"key={secret}", "--set-hash", "0" * 64, "--traceback"),
    ):
        done = run_command("call", COUNT, "count_vowels", *arguments)
        assert (done.code > 0, secret in done.err) == (True, False)
    done = run_command(
        "call", COUNT, "count_vowels", "--config-file", str(tmp_path / "number.json")
    )
    assert (done.code, "'key' has int" in done.err, "12345678" in done.err) == (2, True, False)


def test_internal_error_asks_for_report(capsys: pytest.CaptureFixture[str]) -> None:
    """An internal error is one line that asks for a bug report."""
    import typer

    with pytest.raises(typer.Exit) as ended, report_errors("plugwasm call"):
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
def test_any_arguments_end_with_known_code(arguments: list[str]) -> None:
    """Any arguments end with a documented exit code."""
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
    done = run_command(*bounded)
    assert done.code in (0, 1, 2, 3)
    assert is_harmless(done.err)
    assert bool(done.err) == (done.code != 0)
