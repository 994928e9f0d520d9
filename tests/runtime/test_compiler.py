"""Compilation within limits: light modules in this process, others in a separate one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import plugwasm
from plugwasm import CompiledPlugin, Limits, ModuleError, Plugin, cache
from plugwasm._engine import read_facts, wat_to_wasm
from plugwasm._engine.compile_cost import is_light
from plugwasm._runtime import compiler, modules
from tests.support.guests import export, guest
from tests.support.paths import EXAMPLES
from tests.support.threads import InThread
from tests.support.wasm_binary import leb128, section

pytestmark = pytest.mark.usefixtures("nothing_compiled")


def heavy_module(body: str = "(call $echo)") -> bytes:
    """Return a module of more than a few kilobytes."""
    rest = "".join(f"(func (result i64) (i64.const {number * 2**40 + 1}))" for number in range(600))
    return wat_to_wasm(guest(export("run", body) + rest).encode())


def slow_module(functions: int) -> bytes:
    """Return a module of about a kilobyte that takes seconds to compile: five bytes declare
    49,000 locals."""
    body = b"\x01" + leb128(49_000) + b"\x7b" + b"\x03\x40\x0b" + b"\x0b"
    bodies = leb128(functions) + (leb128(len(body)) + body) * functions
    return (
        b"\0asm\1\0\0\0"
        + section(1, b"\x01\x60\0\0")
        + section(3, leb128(functions) + b"\0" * functions)
        + section(10, bodies)
    )


def large_module(blocks: int) -> bytes:
    """Return nested blocks of a thousand results each: ten bytes of Wasm take megabytes to
    compile."""
    wide = leb128(1000) + b"\x7e" * 1000
    types = section(1, b"\x03\x60\0\0" + b"\x60\0" + wide + b"\x60" + wide + wide)
    code = (
        b"\x01\x01\x7f"
        b"\x10\0" + b"\x02\x02" * blocks + b"\x20\0\x0d\0\x0b" * blocks + b"\x1a" * 1000 + b"\x0b"
    )
    return (
        b"\0asm\1\0\0\0"
        + types
        + section(3, b"\x02\x01\0")
        + section(10, b"\x02\x03\0\0\x0b" + leb128(len(code)) + code)
    )


# ---- where ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["echo", "count_vowels", "bench_wasi"])
def test_small_module_in_process(name: str, compilers: list[Any]) -> None:
    """A small module is compiled in this process."""
    CompiledPlugin(EXAMPLES / f"{name}.wasm", wasi=True)
    assert compilers == []


@pytest.mark.parametrize("text", [False, True])
def test_large_module_in_subprocess(text: bool, compilers: list[Any]) -> None:
    """A larger module is compiled in a separate process and works."""
    if text:
        filler = "".join(f";; {'x' * 60}\n" for _ in range(1100))
        plugin = Plugin(filler + guest(export("run", "(call $echo)")))
    else:
        plugin = Plugin(heavy_module())
    assert plugin.call("run", b"hello") == b"hello"
    assert len(compilers) == 1


def test_memories_are_known() -> None:
    """A module's memories are known wherever it was compiled."""
    filler = "".join(
        f"(func (result i64) (i64.const {number * 2**40 + 1}))" for number in range(600)
    )
    wasm = wat_to_wasm(f"(module (memory 3) (memory 5 9) {filler})".encode())
    assert CompiledPlugin(wasm)._plan.main.module.facts == read_facts(wasm) == (2, 8, 5, 0, 0, 0, 1)


def test_no_time_limit_in_process(compilers: list[Any]) -> None:
    """Without a time limit, this process compiles."""
    assert Plugin(heavy_module(), limits=Limits(compile_seconds=None)).call("run", b"x") == b"x"
    assert compilers == []


def test_result_is_kept(
    compilers: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Code compiled in a separate process is cached like other code."""
    monkeypatch.setenv("PLUGWASM_CACHE", str(tmp_path / "cache"))
    wasm = heavy_module()
    CompiledPlugin(wasm)
    CompiledPlugin(wasm)
    modules._seen.clear()
    assert Plugin(wasm).call("run", b"x") == b"x"
    assert len(compilers) == 1
    assert cache.clear() == 2  # the kernel's and the module's


@pytest.mark.parametrize("options", [{"fuel_limit": 10**6}, {"limits": Limits(stack_bytes=2**17)}])
def test_result_fits_engine(options: dict[str, Any], compilers: list[Any]) -> None:
    """Code compiled in a separate process fits its engine."""
    assert Plugin(heavy_module(), **options).call("run", b"x") == b"x"
    assert len(compilers) == 1


def test_compiling_in_forked_child(compilers: list[Any]) -> None:
    wasm = heavy_module()
    Plugin(EXAMPLES / "echo.wasm").call("echo")
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if Plugin(wasm).call("run", b"x") == b"x" else 1)
        except BaseException:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_environment_does_not_matter(tmp_path: Path) -> None:
    """The environment and the current directory do not affect compilation."""
    for name in ("plugwasm", "ctypes", "resource"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(99)")
    (tmp_path / "m.wasm").write_bytes(heavy_module())
    code = "import plugwasm; print(plugwasm.Plugin('m.wasm').call('run', b'fine').decode())"
    environment = {
        "PLUGWASM_CACHE": "off",
        "PYTHONSTARTUP": "x",
        "PYTHONHOME": "",
        "PATH": os.environ["PATH"],
    }
    run = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (run.stdout, run.stderr, run.returncode) == ("fine\n", "", 0)


# ---- what can go wrong ---------------------------------------------------------------------------


def test_invalid_module_is_same_error() -> None:
    """An invalid module raises the same error as in this process."""
    broken = heavy_module()[:-400]
    errors = []
    for limits in (Limits(), Limits(compile_seconds=None)):
        with pytest.raises(ModuleError) as caught:
            CompiledPlugin(broken, limits=limits)
        errors.append(caught.value.message)
    assert errors[0] == errors[1]
    assert "unexpected end" in errors[0]


def test_time_limit_ends_bomb(compilers: list[Any]) -> None:
    """A module that takes too long to compile is ended at the time limit."""
    start = time.monotonic()
    with pytest.raises(ModuleError, match=r"longer to compile than the 0\.5 seconds"):
        CompiledPlugin(slow_module(3000), limits=Limits(compile_seconds=0.5))
    assert time.monotonic() - start < 10
    assert compilers[0].returncode == -signal.SIGKILL


def test_memory_limit_spares_process() -> None:
    """A module that takes too much memory to compile does not end this process."""
    with pytest.raises(
        ModuleError,
        match=r"signal \d+; it may need more than the 134217728 bytes of `Limits.compile_bytes`",
    ):
        CompiledPlugin(large_module(800), limits=Limits(compile_bytes=2**27, compile_seconds=100.0))


def test_ctrl_c_ends_subprocess(compilers: list[Any]) -> None:
    """Ctrl-C also ends the compiler process."""
    threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        CompiledPlugin(slow_module(3000))
    assert compilers[0].returncode == -signal.SIGKILL


def test_subprocess_start_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """If no process can be started, the error says so."""
    monkeypatch.setenv("PLUGWASM_PYTHON", "/no/such/python")
    with pytest.raises(
        ModuleError,
        match=r"no process can be started to compile it: .*No such file or directory.*compile_seconds=None",
    ):
        CompiledPlugin(heavy_module())


def test_invalid_answer_is_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """An invalid answer of the compiler process is an error."""
    monkeypatch.setattr(compiler, "_CHILD", "print('hello')")
    with pytest.raises(ModuleError, match="the process that compiles it failed: it said nothing"):
        CompiledPlugin(heavy_module())
    monkeypatch.setattr(compiler, "_CHILD", "raise LookupError('no idea')")
    with pytest.raises(ModuleError, match="failed: LookupError: no idea"):
        CompiledPlugin(heavy_module())


def test_two_threads_compile_at_once() -> None:
    both = [InThread(Plugin, heavy_module(), name=str(number)) for number in range(2)]
    assert [plugin.result().call("run", b"x") for plugin in both] == [b"x", b"x"]


# ---- what is light -------------------------------------------------------------------------------


def test_many_locals_are_not_light() -> None:
    """A module that declares many locals in few bytes is not light."""
    assert not is_light(slow_module(1))
    assert is_light(wat_to_wasm(b"(module (func (local i32 i64 f64)))"))


@pytest.mark.parametrize("values", [32, 33])
@pytest.mark.parametrize("where", ["param", "result"])
def test_types_of_many_values_not_light(values: int, where: str) -> None:
    """A module with types of many values is not light."""
    wasm = wat_to_wasm(f"(module (type (func ({where} {'i64 ' * values}))))".encode())
    assert is_light(wasm) is (values == 32)


def test_many_functions_are_not_light() -> None:
    """A module with many functions is not light, and names do not count."""
    assert not is_light(heavy_module())
    custom = section(0, b"\x04name" + bytes(60_000))
    assert is_light((EXAMPLES / "echo.wasm").read_bytes() + custom)


@pytest.mark.parametrize("cut", range(9, 200, 7))
def test_truncated_module_is_harmless(cut: int) -> None:
    """Estimating the cost of a truncated module is harmless."""
    assert is_light((EXAMPLES / "echo.wasm").read_bytes()[:cut])


# ---- the size of a module ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["path", "bytes", "data"])
def test_module_size_limit(kind: str) -> None:
    """A module may be exactly as large as the limit."""
    path = EXAMPLES / "echo.wasm"
    size = path.stat().st_size
    source: Any = {
        "path": path,
        "bytes": path.read_bytes(),
        "data": {"wasm": [{"data": path.read_bytes()}]},
    }[kind]
    assert Plugin(source, limits=Limits(module_bytes=size)).call("echo", b"x") == b"x"
    with pytest.raises(plugwasm.Error, match=rf"{size - 1}"):
        CompiledPlugin(source, limits=Limits(module_bytes=size - 1))
