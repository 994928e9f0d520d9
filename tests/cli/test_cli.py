"""The command line as a whole: logs, the schema, the cache, help, and how arguments are parsed."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("typer")


from plugwasm import __version__, cache
from plugwasm.cli import main, options
from plugwasm.cli.terminal import UsageProblem, escape, escape_lines, print_error
from plugwasm.manifest import json_schema
from tests.support.command_line import ECHO, WASI, is_harmless, run_command, run_process

# ---- the log -------------------------------------------------------------------------------------


def test_guest_output_goes_to_stderr() -> None:
    """The guest's prints and logs go to stderr."""
    done = run_command("call", WASI, "say", "-i", "hello", "--wasi")
    assert (done.out, done.err) == (b"", "info  wasi_files: hello\nwarn  wasi_files: HELLO\n")


@pytest.mark.parametrize(
    ("level", "lines"), [("trace", 2), ("info", 2), ("warn", 1), ("error", 0), ("off", 0)]
)
def test_log_level_filters(level: str, lines: int) -> None:
    """The log level selects the lines that are shown."""
    assert (
        run_command("call", WASI, "say", "-i", "hello", "--wasi", "--log-level", level).err.count(
            "\n"
        )
        == lines
    )


def test_the_logger_is_left_as_it_was() -> None:
    import logging

    logger = logging.getLogger("plugwasm")
    before = (logger.level, logger.propagate, list(logger.handlers))
    run_command("call", WASI, "say", "--wasi", "--log-level", "trace")
    assert (logger.level, logger.propagate, list(logger.handlers)) == before


# ---- schema, cache, version, help ----------------------------------------------------------------


def test_schema_prints_json_schema() -> None:
    """`schema` prints the JSON schema of manifests."""
    assert json.loads(run_command("schema").out) == json_schema()


def test_the_cache_is_shown_and_cleared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLUGWASM_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("PLUGWASM_ENGINES")
    assert (
        run_command("cache", "dir").out
        == f"{tmp_path}/cache\n".encode()
        == f"{cache.directory()}\n".encode()
    )
    assert run_command("cache").out == f"{tmp_path}/cache: 0 entries, 0.0 MiB\n".encode()
    assert (
        run_command("cache", "clear").out == f"removed 0 entries from {tmp_path}/cache\n".encode()
    )
    assert run_process("call", ECHO, "echo").returncode == 0
    count = len(list((tmp_path / "cache").iterdir()))
    assert count > 0
    assert run_command("cache").out.startswith(f"{tmp_path}/cache: {count} ".encode())
    assert run_command("cache", "clear").out.startswith(f"removed {count} ".encode())
    assert list((tmp_path / "cache").iterdir()) == []


def test_cache_off_has_no_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache that is off shows no directory."""
    monkeypatch.setenv("PLUGWASM_CACHE", "off")
    for arguments in (["cache"], ["cache", "dir"], ["cache", "clear"]):
        done = run_command(*arguments)
        assert (done.code, done.out, done.err) == (
            2,
            b"",
            "error: the cache is off (PLUGWASM_CACHE)\n",
        )


def test_version_names_engine() -> None:
    """The version includes the engine's version."""
    assert re.fullmatch(
        rf"plugwasm {re.escape(__version__)} \(wasmtime [\d.]+, Python 3\.[\d.]+\S*\)\n",
        run_command("--version").out.decode(),
    )


def test_no_command_prints_help() -> None:
    """Without a command, it prints help and exits with an error code."""
    done = run_command()
    assert done.code == 2
    assert all(name in done.out.decode() for name in ("call", "inspect", "schema", "cache"))


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["-h"], ["call", "--help"], ["cache", "-h"], ["cache", "clear", "--help"]],
)
def test_help_is_a_success(arguments: list[str]) -> None:
    done = run_command(*arguments)
    assert (done.code, done.err) == (0, "")
    assert "Usage: plugwasm" in done.out.decode()


@pytest.mark.parametrize("command", ["build", "test", "schema", "replay"])
def test_usage_of_optional_arguments(command: str) -> None:
    """The usage shows an optional argument in one pair of brackets."""
    done = run_command(command, "--help")
    assert b"[[" not in done.out


def test_help_imports_nothing_heavy() -> None:
    """Help imports nothing that only a command needs."""
    code = (
        "import sys; from plugwasm.cli import main; main(['--help']);"
        "heavy = {'plugwasm._engine', 'plugwasm._runtime.plugin', 'plugwasm._manifest.model', 'plugwasm._manifest.resolve', 'msgspec', 'urllib3', 'wasmtime'};"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_missing_extra_is_explained(missing: str) -> None:
    """Without the `cli` extra, one line says how to install it."""
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


# ---- the parts -----------------------------------------------------------------------------------


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
def test_timeout_unit_is_milliseconds(text: str, expected: int) -> None:
    """A timeout is in milliseconds unless it names another unit."""
    assert options.parse_milliseconds(text) == expected


@given(st.text() | st.floats().map(str) | st.from_regex(r"[0-9.e_-]{1,12}m?s?", fullmatch=True))
def test_timeout_is_parsed_or_refused(text: str) -> None:
    """A timeout is parsed to milliseconds or refused."""
    try:
        value = options.parse_milliseconds(text)
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
def test_grant_default_guest_path(text: str, host: str, guest: str) -> None:
    """A path is granted under its own name unless another is given."""
    assert options.parse_allowed_path(text) == (host, guest)


@given(st.text())
def test_escape_for_terminal(text: str) -> None:
    """Escaped text is one line without control characters."""
    shown = escape(text)
    assert is_harmless(shown)
    assert "\n" not in shown
    if text.isprintable():
        assert shown == text


@given(st.text(alphabet=st.sampled_from("ab\n\r\t\x1b\u2028")))
def test_indent_after_first_line(text: str) -> None:
    """Lines after the first are indented."""
    first, *others = escape_lines(text).split("\n")
    assert all(line.startswith("  ") for line in others)
    assert len(others) <= 21
    assert "\r" not in first


def test_long_text_is_cut_and_says_so() -> None:
    assert escape_lines("x" * 5000) == "x" * 4000 + "… (1000 more characters)"
    assert escape_lines("x\n" * 30).splitlines()[-1] == "  … (10 more lines)"


def test_markup_in_a_complaint_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    print_error("[bold]x[/bold] :smile: [/]", "[red]")
    assert capsys.readouterr().err == "error: [bold]x[/bold] :smile: [/]\n  [red]\n"
