"""Systems at their limits: no threads, processes, descriptors or addresses left; interpreters
that end; many modules at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any
from weakref import WeakValueDictionary

import pytest

from plugwasm import Limits, ModuleError, Plugin
from plugwasm._engine import Engine
from plugwasm._runtime import compiler, modules
from tests.support.paths import ROOT
from tests.support.threads import InThread

linux = pytest.mark.skipif(
    sys.platform != "linux", reason="takes threads and addresses away as Linux can"
)

PROLOGUE = f"""
import os, sys, time, threading, resource, signal
os.environ["PLUGWASM_CACHE"] = "off"
sys.path.append({str(ROOT)!r})
import plugwasm
from plugwasm import Plugin, Limits, ModuleError
from plugwasm.errors import Error
from tests.support import seccomp

ECHO = '''(module
  (import "extism:host/env" "input_offset" (func $at (result i64)))
  (import "extism:host/env" "input_length" (func $length (result i64)))
  (import "extism:host/env" "output_set" (func $set (param i64 i64)))
  (func (export "echo") (call $set (call $at) (call $length)))
  (func (export "spin") (loop $l (br $l))))'''
def heavy(number=0):
    rest = "".join(f"(func (result i64) (i64.const {{number + n * 2**40 + 1}}))" for n in range(600))
    return ECHO[:-1] + rest + ")"
def timed(wasm, seconds=0.3):
    return Plugin(wasm, limits=Limits(timeout=seconds))
def outcome(function, *args):
    try:
        return function(*args)
    except Error as error:
        return f"{{type(error).__name__}}: {{error.message}}"
"""


def run(program: str, *, setup: str = "", seconds: float = 90.0) -> str:
    """Run a program, which must end by itself, and return its output."""
    command = [sys.executable, "-W", "ignore", "-c", setup + PROLOGUE + program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    assert (done.stderr, done.returncode) == ("", 0), done.stderr + done.stdout
    return done.stdout


def heavy(number: int) -> str:
    rest = "".join(f"(func (result i64) (i64.const {number + n * 2**40 + 1}))" for n in range(600))
    return f'(module (func (export "run")) {rest})'


@pytest.fixture(autouse=True)
def _nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLUGWASM_CACHE", "off")
    monkeypatch.setattr(modules, "_seen", WeakValueDictionary())
    monkeypatch.setattr(modules, "_kept", [])


# ---- threads -------------------------------------------------------------------------------------


@linux
def test_no_threads_calls_and_deadlines() -> None:
    """If no thread can be started, plugins are compiled and run, and deadlines apply."""
    program = """
seccomp.refuse_threads()
print(Plugin(ECHO).call("echo", b"small"), Plugin(heavy()).call("echo", b"large"))
print(Plugin(heavy(1), limits=Limits(compile_seconds=None)).call("echo", b"here"))
plugin = timed(ECHO)
for _ in range(2):
    began = time.monotonic()
    print(outcome(plugin.call, "spin")[:13], 0.25 < time.monotonic() - began < 3)
    print(plugin.call("echo", b"after"))
"""
    assert run(program).split() == [
        "b'small'",
        "b'large'",
        "b'here'",
        *["TimeoutError:", "True", "b'after'"] * 2,
    ]


@linux
def test_no_threads_ctrl_c_and_cancel() -> None:
    """If no thread can be started, Ctrl-C and cancellation end a call."""
    program = """
import signal
threading.Timer(0.4, lambda: os.kill(os.getpid(), signal.SIGINT)).start()  # made before there are no more
plugin = Plugin(ECHO, limits=Limits(timeout=None))
seccomp.refuse_threads()
try:
    plugin.call("spin")
except KeyboardInterrupt:
    print("interrupted")
signal.signal(signal.SIGALRM, lambda *_: plugin.cancel_handle().cancel())
signal.setitimer(signal.ITIMER_REAL, 0.2)
print(outcome(plugin.call, "spin")[:15])
print(plugin.call("echo", b"on"))
"""
    assert run(program).split() == ["interrupted", "CancelledError:", "b'on'"]


@linux
def test_threads_are_used_again() -> None:
    """When threads can be started again, they are used."""
    program = """
from plugwasm._host.deadline import ticker
threading.stack_size(2**46)
plugin = timed(ECHO)
print(outcome(plugin.call, "spin")[:13], ticker.has_no_thread)
threading.stack_size(0)
print(outcome(plugin.call, "spin")[:13], ticker.has_no_thread)
"""
    assert run(program).split() == ["TimeoutError:", "True", "TimeoutError:", "False"]


@linux
def test_no_processes() -> None:
    """If no process can be started, the error names the limit, and light modules still run."""
    program = """
seccomp.refuse_threads(processes=True)
print(outcome(Plugin, heavy()))
print(Plugin(ECHO).call("echo", b"small"), Plugin(heavy(), limits=Limits(compile_seconds=None)).call("echo", b"large"))
print(outcome(plugwasm.IsolatedPlugin, ECHO))
"""
    compiling, works, isolated = run(program).splitlines()
    assert "no more processes (RLIMIT_NPROC, `ulimit -u`; pids of a cgroup)" in compiling
    assert "Limits(compile_seconds=None)" in compiling
    assert works == "b'small' b'large'"
    assert isolated.startswith("WorkerError: ")


def test_light_modules_start_no_threads() -> None:
    """Light modules do not start the compiler's threads."""
    program = (
        'Plugin(ECHO); print(len(os.listdir("/proc/self/task")) if sys.platform == "linux" else 1)'
    )
    assert run(program) == "1\n"


# ---- descriptors, addresses ----------------------------------------------------------------------


@pytest.mark.parametrize("first", ["", "import subprocess"])
def test_no_descriptors(first: str) -> None:
    """Without descriptors, the error says so, and the next attempt works."""
    program = f"""
{first}
from plugwasm._platform import python_executable as _interpreter
Plugin(ECHO)
taken = []
resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
try:
    while True:
        taken.append(os.dup(0))
except OSError:
    pass
print(outcome(Plugin, heavy()))
for descriptor in taken:
    os.close(descriptor)
print(Plugin(heavy()).call("echo", b"works"))
"""
    failed, works = run(program).splitlines()
    assert failed.startswith("ModuleError: ")
    assert "no file descriptors left (RLIMIT_NOFILE, `ulimit -n`)" in failed
    assert works == "b'works'"


@linux
@pytest.mark.parametrize("gib", [4, 8, 16])
def test_limited_address_space(gib: int) -> None:
    """With a limited address space, memories reserve less of it."""
    program = """
plugins = [Plugin(ECHO) for _ in range(4)] + [Plugin(heavy(), fuel_limit=10**6)]
print({plugin.call("echo", b"x") for plugin in plugins})
print(len(plugins[0].call("echo", bytes(50 * 2**20))))
while True:
    plugins.append(Plugin(ECHO))
    said = outcome(plugins[-1].call, "echo")
    if said:
        break
print(said)
"""
    setup = f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({gib * 2**30},) * 2)\n"
    echoed, length, said = run(program, setup=setup).splitlines()
    assert (echoed, length) == ("{b'x'}", str(50 * 2**20))
    assert said.startswith("OutOfMemoryError: ")
    assert f"{gib * 2**30} bytes of address space (RLIMIT_AS, `ulimit -v`)" in said
    assert "max_map_count" not in said


def test_cache_key_depends_on_reservation() -> None:
    """Code for another reservation has another cache key."""
    keys = {Engine(reservation=size).key for size in (2**28, 2**29, 2**32)}
    assert len(keys) == 3
    assert Engine(reservation=2**32).key == Engine().key


# ---- the end of an interpreter -------------------------------------------------------------------

LATE = """
class Late:
    def __init__(self, plugin, function):
        self.plugin, self.function, self.write, self.outcome = plugin, function, os.write, outcome
    def __del__(self):
        self.write(1, f"{self.outcome(self.plugin.call, self.function, b'late')!r:.15}\\n".encode())
"""


@pytest.mark.parametrize("function", ["echo", "spin"])
@pytest.mark.parametrize(
    "before",
    [
        "",
        'plugin.call("echo")',
        'plugin.call("echo"); time.sleep(1.3)',
        "late.me = late",
        "import atexit; atexit.register(print, end='')",
    ],
)
def test_call_in_finalizer_at_exit(before: str, function: str) -> None:
    """A call in a finalizer at interpreter exit ends."""
    program = f"{LATE}\nplugin = timed(ECHO); late = Late(plugin, {function!r}); {before}"
    said = run(program)
    assert said == {"echo": "b'late'\n", "spin": "'TimeoutError: \n"}[function]


def test_calls_at_exit_end_at_deadline() -> None:
    """Calls at exit and those of daemon threads end at their deadlines."""
    program = """
import atexit
plugin, other = timed(ECHO), timed(ECHO, 60)
atexit.register(lambda: print(outcome(plugin.call, "spin")[:13], plugin.call("echo", b"late"), flush=True))
atexit._run_exitfuncs  # what is registered before the package is imported runs after its own hook
threading.Thread(target=other.call, args=("spin",), daemon=True).start()
time.sleep(0.2)
"""
    assert run(program) == "TimeoutError: b'late'\n"
    earlier = "import atexit; atexit.register(lambda: print(outcome(plugin.call, 'spin')[:13], plugin.call('echo', b'late'), flush=True))\n"
    assert (
        run('plugin = timed(ECHO); plugin.call("echo")', setup=earlier) == "TimeoutError: b'late'\n"
    )


SUBINTERPRETER = """
import sys
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
if sys.argv[1] == "isolated":
    made = interpreters.create()
elif sys.version_info >= (3, 13):
    made = interpreters.create("legacy")
else:
    made = interpreters.create(isolated=False)
try:
    failed = interpreters.run_string(made, sys.argv[2])
except Exception as error:
    failed = error
print(failed)
interpreters.destroy(made)
"""


@pytest.mark.parametrize("kind", ["isolated", "legacy"])
@pytest.mark.parametrize("function", ["echo", "spin"])
def test_subinterpreter_ends_after_call(kind: str, function: str) -> None:
    """A subinterpreter can end right after a call."""
    program = f"""
import plugwasm, sys
SPIN = '(module (func (export "echo")) (func (export "spin") (loop $l (br $l))))'
plugin = plugwasm.Plugin(SPIN, limits=plugwasm.Limits(timeout=0.2))
for _ in range(2):
    try:
        print(plugin.call({function!r}), flush=True)
    except plugwasm.TimeoutError:
        print("timeout", flush=True)
"""
    done = subprocess.run(
        [sys.executable, "-c", SUBINTERPRETER, kind, program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=ROOT,
    )
    assert (done.stderr, done.returncode) == ("", 0)
    if kind == "isolated" and sys.version_info[:2] == (3, 12):
        assert "_ctypes does not support loading in subinterpreters" in done.stdout
    else:
        assert done.stdout == {"echo": "b''\n", "spin": "timeout\n"}[function] * 2 + "None\n"


# ---- very many at once ---------------------------------------------------------------------------


class Children:
    """The number of compiler processes that ran at once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now: list[subprocess.Popen[bytes]] = []
        self.most = self.all = 0
        original = subprocess.Popen

        def start(*args: Any, **kwargs: Any) -> subprocess.Popen[bytes]:
            self.now = [child for child in self.now if child.returncode is None] + [
                original(*args, **kwargs)
            ]
            self.most = max(self.most, len(self.now))
            self.all += 1
            return self.now[-1]

        monkeypatch.setattr(subprocess, "Popen", start)


def test_concurrent_compiles_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a few modules are compiled at once, and waiting does not count as compile time."""
    monkeypatch.setattr(compiler, "MAX_PROCESSES", 2)
    children = Children(monkeypatch)
    limits = Limits(compile_seconds=5.0)
    plugins = [InThread(Plugin, heavy(number), limits=limits) for number in range(16)]
    assert {plugin.result().call("run") for plugin in plugins} == {b""}
    assert (children.most, children.all) == (2, 16)
    assert compiler._compilations == {}


def test_time_of_other_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of other compilations does not count."""
    monkeypatch.setattr(compiler, "MAX_PROCESSES", 1)
    other = object()
    compiler._compilations[other] = 0
    threading.Timer(1.0, compiler._compilations.pop, (other,)).start()
    original, given = subprocess.Popen.communicate, []

    def communicate(self: Any, *args: Any, timeout: float) -> Any:
        given.append(timeout)
        return original(self, *args, timeout=60)

    monkeypatch.setattr(subprocess.Popen, "communicate", communicate)
    began = time.monotonic()
    Plugin(heavy(0), limits=Limits(compile_seconds=0.5))
    assert time.monotonic() - began >= 1.0
    assert given == [pytest.approx(0.5, abs=0.4)]


def test_ctrl_c_ends_wait_for_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C ends the wait, and no other compilation loses its turn."""
    monkeypatch.setattr(compiler, "MAX_PROCESSES", 1)
    other = object()
    monkeypatch.setitem(compiler._compilations, other, 0)
    threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        Plugin(heavy(0))
    assert list(compiler._compilations) == [other]
    del compiler._compilations[other]
    assert Plugin(heavy(0)).call("run") == b""


def test_signal_handler_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal handler that compiles does not wait for the compilation that it interrupted."""
    monkeypatch.setattr(compiler, "MAX_PROCESSES", 1)
    other = object()
    monkeypatch.setitem(compiler._compilations, other, 0)
    made: list[bytes] = []

    def handler(*_: object) -> None:
        made.append(Plugin(heavy(1)).call("run"))
        compiler._compilations.pop(other, None)

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        assert Plugin(heavy(0)).call("run") == b""
    finally:
        signal.signal(signal.SIGALRM, before)
    assert made == [b""]
    assert compiler._compilations == {}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_forked_child_compiles_at_once() -> None:
    """A child forked while others compile and wait can compile at once."""
    program = """
from plugwasm._runtime import compiler as _compiler
_compiler.MAX_PROCESSES = 1
threads = [threading.Thread(target=lambda n=n: Plugin(heavy(n))) for n in range(6)]
for thread in threads:
    thread.start()
time.sleep(0.1)
child = os.fork()
if not child:
    os._exit(0 if Plugin(heavy(100)).call("echo", b"x") == b"x" else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
for thread in threads:
    thread.join()
"""
    assert run(program) == "0\n"


def test_invalid_module_frees_turn() -> None:
    """An invalid module frees its turn."""
    for _ in range(compiler.MAX_PROCESSES + 1):
        with pytest.raises(ModuleError):
            Plugin("(module " + "(func" * 20_000)
    assert compiler._compilations == {}
