"""A text in TypeScript is a program for esbuild, which computes constants: it stays within limits."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from plugwasm import Error, Limits, ScriptError, SourceError, script
from plugwasm._script import bundling
from tests.script.test_typescript import esbuild

__all__ = ["esbuild"]

MEBIBYTE = 2**20
TEXT = "export const f = (): number => 1;"


def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """Let a program of these lines stand in for esbuild."""
    program = tmp_path / "esbuild"
    program.write_text(f"#!{sys.executable} -IS\nimport os, subprocess, sys, time\n{body}\n")
    program.chmod(0o755)
    monkeypatch.setenv(bundling.VARIABLE, str(program))


def doubling(times: int) -> str:
    """Return a text whose one constant is 64 characters, doubled that often."""
    values = [f"v0 = '{'x' * 64}'"] + [f"v{i + 1} = v{i} + v{i}" for i in range(times)]
    return f"const enum A {{ {', '.join(values)} }}\nexport const f = () => A.v{times};"


@pytest.mark.toolchain
@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits a process that runs")
def test_constants_that_double(esbuild: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A constant of gigabytes in a thousand characters takes neither memory nor time without end."""
    monkeypatch.setenv(bundling.VARIABLE, esbuild)
    limits = Limits(compile_bytes=256 * MEBIBYTE, module_bytes=MEBIBYTE)
    with pytest.raises(ScriptError, match=r"more than 268435456 bytes of .*compile_bytes"):
        script("typescript", doubling(30), limits=limits)
    with pytest.raises(ScriptError, match=r"more than 1048576 bytes of it .*module_bytes"):
        script("typescript", doubling(15), limits=limits)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits a process that runs")
def test_memory_of_esbuild(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs that esbuild starts have the limit of memory too, and the limit of time."""
    ask = (
        "import resource; print(resource.getrlimit(resource.RLIMIT_DATA)[0], "
        "resource.getrlimit(resource.RLIMIT_CPU)[0], file=__import__('sys').stderr)"
    )
    stand_in(
        tmp_path,
        monkeypatch,
        f"time.sleep(0.2)\nsys.exit(subprocess.call([sys.executable, '-c', {ask!r}]) or 1)",
    )
    seconds = 7 * (os.cpu_count() or 1) + 1
    with pytest.raises(SourceError, match=rf"esbuild failed: 134217728 {seconds}$"):
        script("typescript", TEXT, limits=Limits(compile_bytes=128 * MEBIBYTE, compile_seconds=7))


def test_output_of_esbuild(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Output without end is read up to the size that a module may have."""
    stand_in(tmp_path, monkeypatch, "while True: sys.stdout.write('x' * 100_000)")
    with pytest.raises(ScriptError, match=r"more than 1000000 bytes of it .`Limits\.module_bytes`"):
        script("typescript", TEXT, limits=Limits(module_bytes=10**6))


def test_processes_of_esbuild(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the time is over, esbuild is ended with the programs that it has started."""
    started = tmp_path / "started"
    stand_in(
        tmp_path,
        monkeypatch,
        f"child = subprocess.Popen(['sleep', '600'])\nopen({str(started)!r}, 'w').write(str(child.pid))\n"
        "child.wait()",
    )
    with pytest.raises(ScriptError, match=r"not end within 2 seconds .`Limits\.compile_seconds`"):
        script("typescript", TEXT, limits=Limits(compile_seconds=2))
    pid = int(started.read_text())
    for _ in range(500):
        try:
            with open(f"/proc/{pid}/stat") as file:
                if file.read().rpartition(")")[2].split()[0] == "Z":
                    break
        except FileNotFoundError:
            break
        time.sleep(0.01)
    else:
        pytest.fail("it still runs")


@pytest.mark.parametrize(("length", "kind"), [(10**4, ScriptError), (10**6, SourceError)])
def test_complaints_of_esbuild(
    length: int, kind: type[Error], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What esbuild says of a text is cut and escaped, however long it is."""
    complaint = f"'[ERROR] ' + chr(27) + '[2J' + 'x' * {length} + chr(10)"
    stand_in(tmp_path, monkeypatch, f"sys.stderr.write({complaint}); sys.exit(1)")
    with pytest.raises(kind) as caught:
        script("typescript", TEXT)
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 800


@pytest.mark.toolchain
@pytest.mark.slow
@pytest.mark.parametrize("name", ["a\0b.ts", "--bundle.ts", "a\nb.ts", "/etc/passwd", "x" * 5000])
def test_names_in_typescript(esbuild: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script in TypeScript may have any name, and none is an option of esbuild."""
    monkeypatch.setenv(bundling.VARIABLE, esbuild)
    assert script("typescript", TEXT, name=name).name
