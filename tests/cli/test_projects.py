"""`plugwasm new` and `plugwasm build`, as they are typed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from plugwasm._engine import wat_to_wasm
from tests.support.command_line import is_harmless, run_command
from tests.support.paths import ROOT
from tests.support.toolchains import fake_program, require_language

pytest.importorskip("typer")

GREET = '(module (import "env" "now" (func)) (func (export "greet") (result i32) i32.const 0))'


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the PATH with a `go` that copies `made.wasm` of the same folder."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.chdir(tmp_path)
    fake_program(
        folder,
        "go",
        'if [ "$1" = env ]; then echo go1.26.8; exit; fi\n'
        'while [ "$1" != -o ]; do shift; done\n'
        f'cp "{folder}/made.wasm" "$2" && echo built >> "{folder}/log"',
    )
    (folder / "made.wasm").write_bytes(wat_to_wasm(GREET.encode()))
    return folder


def test_new_says_what_to_type(programs: Path) -> None:
    """What it shows can be typed as it is."""
    done = run_command("new", "go", "greet", "--directory", "a folder")
    assert (done.code, done.err) == (0, "")
    assert "  cd 'a folder'\n  plugwasm build\n  plugwasm test\n" in done.out.decode()
    assert "plugwasm call plugin.wasm greet --wasi --input Ada" in done.out.decode()
    assert Path("a folder/plugin.toml").exists()


def test_new_says_what_to_install(programs: Path) -> None:
    """The project is made all the same, where a tool is missing."""
    (programs / "go").unlink()
    done = run_command("new", "go", "greet")
    assert done.code == 0
    assert "warning: Go 1.24 or later is needed, and is not installed" in done.err
    assert "https://go.dev/dl/" in done.err
    assert Path("greet/plugin.toml").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("cobol", "greet"), "error: LANGUAGE: expected one of c, cpp"),
        (("c", "fn"), "error: NAME: fn has a meaning of its own"),
        (("c", "\x1b[31m"), 'error: NAME: expected at most 64 of a-z, 0-9, - and _'),
        (("c", "bin"), "error: bin exists and is not empty; nothing was written."),
        (("c",), "error: missing argument 'NAME'"),
    ],
)  # fmt: skip
def test_new_refuses_bad_use(programs: Path, arguments: tuple[str, ...], message: str) -> None:
    """The exit code is 2, and there is a message."""
    done = run_command("new", *arguments)
    assert done.code == 2
    assert done.err.startswith(message)
    assert is_harmless(done.err)


def test_build_shows_what_was_built(programs: Path) -> None:
    """Exports, needs and size on stdout; what its author should know on stderr."""
    run_command("new", "go", "greet")
    done = run_command("build", "greet")
    assert done.code == 0
    lines = done.out.decode().splitlines()
    assert lines[0] == "greet/plugin.wasm"
    assert lines[1] == "  exports  greet"
    assert lines[2] == "  needs    host function env.now () -> ()"
    assert lines[3] == f"  size     {len(wat_to_wasm(GREET.encode()))} bytes"
    assert "building greet with Go 1.26.8" in done.err
    assert "warning: env.now: a function that is declared and defined nowhere" in done.err


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        ("__wbindgen_placeholder__", "a crate expects a browser"),
        ("gojs", "build with GOOS=wasip1"),
        ("wasi_unstable", "it is of an old WASI"),
        ("wasi:io/streams@0.2.0", "it is of WASI preview 2"),
    ],
)
def test_strange_imports_are_explained(programs: Path, module: str, reason: str) -> None:
    """What toolchains import by mistake is known."""
    run_command("new", "go", "greet")
    wat = f'(module (import "{module}" "x" (func)) (func (export "f")))'
    (programs / "made.wasm").write_bytes(wat_to_wasm(wat.encode()))
    assert f"warning: {module}.x: it is" in (err := run_command("build", "greet").err)
    assert reason in err


def test_exports_of_no_use_are_named(programs: Path) -> None:
    """A function with parameters is a common mistake; a module without exports another."""
    run_command("new", "go", "greet")
    for body, warning in (
        ('(func (export "add") (param i32))', "add is exported as (i32) -> (), and cannot be"),
        ("", "warning: nothing can be called: no function is exported"),
    ):
        (programs / "made.wasm").write_bytes(wat_to_wasm(f"(module {body})".encode()))
        done = run_command("build", "greet")
        assert done.code == 0
        assert "exports  none that can be called" in done.out.decode()
        assert warning in done.err


def test_names_of_a_module_are_escaped(programs: Path) -> None:
    """Nothing that a module says reaches the terminal as it is."""
    run_command("new", "go", "greet")
    wat = '(module (import "env" "\\1b[31m" (func)) (func (export "[red]\\1b[2J")))'
    (programs / "made.wasm").write_bytes(wat_to_wasm(wat.encode()))
    done = run_command("build", "greet")
    assert done.code == 0
    assert is_harmless(done.err)
    assert is_harmless(done.out.decode())
    assert "exports  [red]\\x1b[2J" in done.out.decode()


def test_a_failed_build_has_code_1(programs: Path) -> None:
    """So has a module that does not load; there is no traceback."""
    run_command("new", "go", "greet")
    (programs / "made.wasm").write_bytes(b"junk")
    done = run_command("build", "greet")
    assert (done.code, done.out) == (1, b"")
    assert "error: what was built does not load: plugin.wasm is not a Wasm module" in done.err
    fake_program(programs, "go", '[ "$1" = env ] && echo go1.26.8 && exit; exit 7')
    done = run_command("build", "greet")
    assert (done.code, done.out) == (1, b"")
    assert "error: `go build -buildmode=c-shared -trimpath …` failed" in done.err


def test_wrong_use_of_build_has_code_2(programs: Path) -> None:
    """No project, no such folder, a broken file, a missing tool, an output that is a folder."""
    run_command("new", "go", "greet")
    assert "is no plugin project" in run_command("build").err
    assert "no such file: " in run_command("build", "nowhere").err
    assert "is a folder" in run_command("build", "greet", "--output", "bin").err
    Path("bad").mkdir()
    Path("bad/plugin.toml").write_text("[build\n")
    assert "(at line 1, column 7)" in run_command("build", "bad").err
    (programs / "go").unlink()
    done = run_command("build", "greet")
    assert done.code == 2
    assert "Go 1.24 or later is needed" in done.err
    for arguments in (), ("nowhere",), ("bad",), ("greet", "--output", "bin"):
        assert run_command("build", *arguments).code == 2


def test_an_output_that_cannot_be_written(programs: Path) -> None:
    """The message names the file."""
    run_command("new", "go", "greet")
    done = run_command("build", "greet", "--output", "/proc/plugin.wasm")
    assert done.code == 2
    assert "error: /proc" in done.err


def test_watch_builds_after_changes(programs: Path, tmp_path: Path) -> None:
    """An error does not end it, Ctrl-C does, with code 0."""
    run_command("new", "go", "greet")
    process = subprocess.Popen(
        [sys.executable, "-m", "plugwasm", "build", "--watch", "greet"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for(lambda: Path("greet/plugin.wasm").exists(), process)
        (programs / "made.wasm").write_bytes(b"junk")
        time.sleep(1.0)  # the first change must not fall into the first build
        Path("greet/plugin.go").write_text("changed")
        wait_for(lambda: (programs / "log").read_text().count("built") == 2, process)
        text = Path("greet/plugin.toml").read_text()
        Path("greet/plugin.toml").write_text("[build\n")
        time.sleep(1.0)
        (programs / "made.wasm").write_bytes(wat_to_wasm(b"(module)"))
        Path("greet/plugin.toml").write_text(text)
        wait_for(
            lambda: Path("greet/plugin.wasm").read_bytes() == wat_to_wasm(b"(module)"), process
        )
    finally:
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert out.count("greet/plugin.wasm") >= 2
    assert "what was built does not load" in err
    assert "Traceback" not in err


def wait_for(condition, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.slow  # compiles
@pytest.mark.toolchain
@pytest.mark.parametrize("page", ["README.md", "docs/projects.md"])
def test_blocks_of_pages_run(tmp_path: Path, page: str) -> None:
    """What the pages show, from nothing to a call, typed in an empty folder."""
    require_language("c")
    text = (ROOT / page).read_text("utf-8")
    (block,) = (
        block
        for block in re.findall(r"^```sh\n(.*?)^```", text, re.S | re.M)
        if "plugwasm new" in block
    )
    program = fake_program(tmp_path, "plugwasm", f'exec "{sys.executable}" -P -m plugwasm "$@"')
    (tmp_path / "empty").mkdir()
    done = subprocess.run(
        ["sh", "-euc", block],
        cwd=tmp_path / "empty",
        env=os.environ | {"PATH": f"{program.parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("Hello, Ada!")
    assert "3 passed" in done.stdout
