"""From bytes to compiled modules: the cache in memory, errors of invalid modules, and
compilation after a fork."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from weakref import WeakValueDictionary

import pytest

from plugwasm._engine import Environment, ExportName, Instance, Module, Store, can_pool, wat_to_wasm
from plugwasm._runtime import code_cache, modules
from plugwasm.errors import ModuleError
from tests.support.paths import ROOT

PAGE = 65536
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
pools = pytest.mark.skipif(not can_pool(), reason="there is not enough address space for a pool")


@pytest.fixture(autouse=True)
def without_seen_modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(modules, "_seen", WeakValueDictionary())
    monkeypatch.setattr(modules, "_kept", [])
    monkeypatch.setattr(code_cache._Settings, "enabled", False)
    yield


def numbered_modules(number: int, padding: int = 0) -> bytes:
    """Return modules of equal length that differ only near their start."""
    module = wat_to_wasm(
        b'(module (func (export "f") (result i32) (i32.const %d)))' % (1000 + number)
    )
    tail = b"the same at the end of all of them".ljust(100 + padding, b".")
    body = b"\4name" + tail
    size, length = len(body), b""
    while size > 127:
        length, size = length + bytes([size & 127 | 128]), size >> 7
    return module + b"\0" + length + bytes([size]) + body


def compiled(wasm: bytes, *, fuel: bool = False, pooled: bool = False) -> Module:
    return modules.compile_module(wasm, modules.get_engine(fuel=fuel, pooled=pooled))


def started(module: Module) -> tuple[Instance, Environment]:
    environment = Environment()
    store = Store(module.engine, environment)
    return store.instantiate(module, b"", environment.pending), environment


def call(started: tuple[Instance, Environment], name: str = "f", *arguments: int) -> int:
    instance, environment = started
    function = instance.function(ExportName(name), max(1, len(arguments)))
    for i, argument in enumerate(arguments):
        function.values[2 * i] = argument
    function.call(environment.pending)
    return function.values[0]


def kept_modules() -> list[bytes]:
    """Return the modules that the process keeps although nothing refers to them."""
    return [wasm for _, wasm, _ in modules._seen]


# ---- what a process keeps ------------------------------------------------------------------------


def test_known_module_is_reused() -> None:
    """The same bytes give the same module."""
    first = compiled(numbered_modules(1))
    assert compiled(bytes(bytearray(numbered_modules(1)))) is first
    assert compiled(numbered_modules(2)) is not first
    assert compiled(numbered_modules(1), fuel=True) is not first
    assert compiled(numbered_modules(1), fuel=True).engine.fuel


def test_modules_with_same_end_differ() -> None:
    """Modules with equal length and end are distinguished."""
    numbers = range(20)
    assert (
        len({len(numbered_modules(number)) for number in numbers})
        == len({numbered_modules(number)[-64:] for number in numbers})
        == 1
    )
    for _ in range(2):
        for number in numbers:
            assert call(started(compiled(numbered_modules(number)))) == 1000 + number


@pytest.mark.parametrize("same_length", [True, False])
def test_kept_modules_are_limited(same_length: bool) -> None:
    """A process keeps a limited number of modules."""
    for number in range(modules.KEPT_MODULES * 2):
        compiled(numbered_modules(number, padding=0 if same_length else number))
        assert len(kept_modules()) <= modules.KEPT_MODULES
    newest = numbered_modules(
        modules.KEPT_MODULES * 2 - 1, padding=0 if same_length else modules.KEPT_MODULES * 2 - 1
    )
    assert newest in kept_modules()
    assert len(kept_modules()) > modules.KEPT_MODULES // 4


def test_kept_bytes_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process keeps a limited number of bytes."""
    monkeypatch.setattr(modules, "KEPT_BYTES", 200_000)
    for number in range(30):
        compiled(numbered_modules(number, padding=1000))
        assert (
            sum(len(wasm) for wasm in kept_modules())
            + sum(module.code_bytes for module in modules._seen.values())
            <= 200_000
        )
    assert len(kept_modules()) > 3


def test_text_and_binary_run_alike() -> None:
    """The text and the binary of a module behave the same."""
    text = b'(module (func (export "f") (result i32) (i32.const 7)))'
    assert call(started(compiled(text))) == call(started(compiled(wat_to_wasm(text)))) == 7


def test_engine_made_once_by_threads() -> None:
    """An engine is created once, however many threads ask for it."""
    found = []
    barrier = threading.Barrier(8)

    def work() -> None:
        barrier.wait(10)
        found.append(
            [
                modules.get_engine(fuel=fuel, pooled=pooled)
                for fuel in (False, True)
                for pooled in (False, True)
            ]
        )

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(engines == found[0] for engines in found)


def test_threads_compile_same_module() -> None:
    """Threads that compile the same module at once all get one that works."""
    results = []

    def work() -> None:
        for number in range(20):
            results.append(call(started(compiled(numbered_modules(number)))) - number)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [1000] * 80


# ---- bad modules ---------------------------------------------------------------------------------


def error_of(wasm: bytes, name: str = "guest") -> str:
    with pytest.raises(ModuleError) as caught:
        modules.compile_module(wasm, modules.get_engine(pooled=False), name)
    assert kept_modules() == []
    return caught.value.message


def test_invalid_binary_names_module() -> None:
    """The error of an invalid binary is one line that names the module."""
    body = numbered_modules(1)
    for wasm in (b"\0asm", b"\0asm\1\0\0\0\xff\xff", body[:20], b"\0asm\x0d\0\1\0"):
        message = error_of(wasm)
        assert "module `guest` is no valid WebAssembly module: " in message
        assert "\n" not in message
        assert len(message) > 60


def test_type_error_position() -> None:
    """A type error includes its position and cause."""
    wasm = wat_to_wasm(b"(module (func (result i32) (i32.const 1)))").replace(
        b"\x41\x01", b"\x42\x01"
    )
    assert "type mismatch" in error_of(wasm)


def test_invalid_text_shows_line() -> None:
    """The error of invalid text shows the line."""
    message = error_of(b"(module\n  (func (i32.konst 1)))")
    assert "2:" in message
    assert "i32.konst" in message


@pytest.mark.parametrize(
    "wasm", [b"", b" ", b"\xff\xfe\xfd", b"\0", b"not wasm at all", b"{}", b"(component)"]
)
def test_no_module_at_all(wasm: bytes) -> None:
    """Bytes that are no module at all are a module error too."""
    assert error_of(wasm)


def test_invalid_module_is_not_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An invalid module is not cached on disk."""
    monkeypatch.setattr(code_cache._Settings, "enabled", True)
    monkeypatch.setattr(code_cache._Settings, "directory", str(tmp_path / "kept"))
    error_of(b"\0asm\1\0\0\0\xff\xff")
    assert not (tmp_path / "kept").exists()


# ---- pools ---------------------------------------------------------------------------------------

SECRETIVE = b"""(module (memory (export "memory") 2)
  (func (export "fill") (param $pages i64)
    (drop (memory.grow (i32.wrap_i64 (local.get $pages))))
    (memory.fill (i32.const 0) (i32.const 0xAA) (i32.mul (memory.size) (i32.const 65536))))
  (func (export "first_not_zero") (param $pages i64) (result i64) (local $at i32)
    (drop (memory.grow (i32.wrap_i64 (local.get $pages))))
    (loop $next
      (if (i64.ne (i64.load (local.get $at)) (i64.const 0)) (then (return (i64.extend_i32_u (local.get $at)))))
      (local.set $at (i32.add (local.get $at) (i32.const 8)))
      (br_if $next (i32.lt_u (local.get $at) (i32.mul (memory.size) (i32.const 65536)))))
    (i64.const -1)))"""


@pytest.mark.parametrize("pooled", [pytest.param(True, marks=pools), False])
def test_instance_memory_is_clean(pooled: bool) -> None:
    """An instance finds no data that another left in its memory."""
    module = compiled(SECRETIVE, pooled=pooled)
    assert module.engine.pooled == pooled
    for pages in (0, 1, 50, 0, 7):
        for _ in range(5):
            call(started(module), "fill", pages)
        for _ in range(5):
            assert call(started(module), "first_not_zero", pages) == 2**64 - 1


@forks
@pools
def test_pool_is_clean_after_fork() -> None:
    """Nor does one in a forked child; and the engine has no file open that describes the memory of the parent."""
    script = """
import os
from tests.runtime.test_modules import SECRETIVE, call, compiled, started

module = compiled(SECRETIVE, pooled=True)
assert module.engine.pooled

def look():
    for pages in (0, 7, 0):
        for _ in range(3):
            call(started(module), "fill", pages)
        for _ in range(6):
            assert call(started(module), "first_not_zero", pages) == 2**64 - 1
    files = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{fd}")]
    assert not any("pagemap" in file for file in files), files

look()
call(started(module), "fill", 3)
held = started(module)
call(held, "fill", 0)
pid = os.fork()
if pid == 0:
    status = 1
    try:
        del held
        look()
        status = 0
    finally:
        os._exit(status)
assert os.waitpid(pid, 0)[1] == 0
look()
print("clean")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.stdout == "clean\n", done.stderr


@pools
def test_module_beyond_pool() -> None:
    """A module too large for the pool is distinguished from an invalid one."""
    large = b"(module %s)" % (b"(memory 1)" * 20)
    with pytest.raises(modules.TooLargeForPool):
        compiled(large, pooled=True)
    assert compiled(large).defined_memories[:2] == (20, 20)
    with pytest.raises(ModuleError):
        compiled(b"(module (memory 70000))", pooled=True)


# ---- forks ---------------------------------------------------------------------------------------

FORKING = """
import os, signal, sys, threading, time
from plugwasm import Plugin, cache; from plugwasm._runtime import modules as _code
cache.configure(enabled=False)

def text(number):
    functions = "".join(f"(func (result i32) (i32.const {number + i}))" for i in range(200))
    return f'(module (func (export "f") (result i32) (i32.const 0)) {functions})'.encode()

def in_child(work, seconds=10):
    pid = os.fork()
    if pid == 0:
        signal.alarm(seconds)
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitpid(pid, 0)[1]
"""


def run_forking_program(script: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKING + script],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@forks
def test_forked_child_compiles() -> None:
    """A forked child can compile a module that its parent did not."""
    script = """
Plugin(text(0)).call("f")  # in parallel, so there are threads that the child will not have
def work():
    for number in range(1, 4):
        assert Plugin(text(number * 1000)).call("f") == b""
    assert Plugin(text(9000), fuel_limit=100000).call("f") == b""
    assert in_child(lambda: Plugin(text(7000)).call("f")) == 0
print(in_child(work))
Plugin(text(5000)).call("f")
print(in_child(work))
"""
    assert run_forking_program(script) == ["0", "0"]


@forks
def test_forked_before_first_compile() -> None:
    """A child forked before the first compilation can compile."""
    assert run_forking_program('print(in_child(lambda: Plugin(text(0)).call("f")))') == ["0"]


@forks
def test_forked_while_thread_compiles() -> None:
    """A child forked while a thread compiles can compile."""
    script = """
def compiling():
    for number in range(1000000):
        Plugin(text(number))
threading.Thread(target=compiling, daemon=True).start()
time.sleep(0.05)
print(*[in_child(lambda: Plugin(text(n * 100000)).call("f"), 5) for n in range(15)])
os._exit(0 if sys.stdout.flush() is None else 1)
"""
    assert run_forking_program(script) == ["0"] * 15


@forks
def test_forked_while_lock_is_held() -> None:
    """A child forked while a thread holds the lock can compile."""
    script = """
def holding():
    with _code._lock:
        held.set()
        over.wait()
held, over = threading.Event(), threading.Event()
thread = threading.Thread(target=holding)
thread.start()
held.wait()
status = in_child(lambda: Plugin(text(1)).call("f"), 4)
over.set()
thread.join()
print(status)
"""
    assert run_forking_program(script) == ["0"]


@forks
def test_forked_child_memory_is_flat() -> None:
    """Compiling many modules in a child does not leak memory."""
    script = """
def size():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
def work():
    plugin = b'(module (func (export "f") (result i32) (i32.const 0)) (global i32 (i32.const %d)))'
    for n in range(100):
        Plugin(plugin % n).call("f")
    before = size()
    for n in range(300):
        Plugin(plugin % (n + 1000)).call("f")
    assert size() - before < 300 * 30_000, size() - before
Plugin(text(0)).call("f")
print(in_child(work, 30))
"""
    if not Path("/proc/self/statm").exists():
        pytest.skip("reads /proc")
    assert run_forking_program(script) == ["0"]


@forks
@pytest.mark.slow
def test_threads_read_first_manifest() -> None:
    """Several threads can read the first manifest of a process at once."""
    script = """
sys.setswitchinterval(1e-6)
manifest = {"wasm": [{"data": b"(module)"}]}
def work():
    barrier = threading.Barrier(4)
    failed = []
    def first():
        barrier.wait()
        try:
            Plugin(manifest)
        except BaseException as error:
            failed.append(error)
    threads = [threading.Thread(target=first) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
Plugin(b"(module)")
print(*{in_child(work) for _ in range(40)})
"""
    assert run_forking_program(script) == ["0"]
