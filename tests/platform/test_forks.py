"""Forks while other threads work: the child needs nothing of threads that it does not have."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")

PROLOGUE = """
import os, signal, sys, threading, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads
import plugwasm
from plugwasm._platform import fork as _forks

TRAP = b'(module (memory 1) (func (export "trap") unreachable) (func (export "far") (drop (i32.load (i32.const -1)))))'
plugwasm.Plugin(TRAP).call  # whatever the first plugin needs

def fork_and_run(work, seconds=60):
    pid = os.fork()
    if pid == 0:
        signal.alarm(seconds)
        try:
            work()
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    assert status == 0, status
"""


def run_program(program: str, folder: Path | None = None, seconds: float = 120) -> str:
    """Run a program that must succeed without warnings, and return its output."""
    done = subprocess.run(
        [sys.executable, "-c", PROLOGUE + program],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
        env=os.environ | ({} if folder is None else {"PYTHONPATH": str(folder)}),
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


# ---- imports -------------------------------------------------------------------------------------


def test_fork_waits_for_imports(tmp_path: Path) -> None:
    """A fork waits for imports of other threads."""
    (tmp_path / "slow_module.py").write_text(
        "import __main__\n__main__.begun.set()\nimport time\ntime.sleep(0.3)\nVALUE = 7\n"
    )
    program = """
_forks.PACKAGES |= {"slow_module"}
begun = threading.Event()
thread = threading.Thread(target=__import__, args=("slow_module",))
thread.start()
begun.wait()
times = []
def work():
    import slow_module
    assert slow_module.VALUE == 7
fork_and_run(work)
assert sys.modules["slow_module"].VALUE == 7
thread.join()
"""
    run_program(program, tmp_path)


def test_unfinished_import_begins_anew(tmp_path: Path) -> None:
    """If an import does not end in time, the child begins it anew."""
    package = tmp_path / "stuck_package"
    package.mkdir()
    (package / "part.py").write_text("VALUE = 7\n")
    (package / "__init__.py").write_text(
        "import __main__\nimport stuck_package.part\n__main__.begun.set()\nif __main__.home == __main__.os.getpid():\n    __main__.go.wait()\n"
    )
    program = """
_forks.PACKAGES |= {"stuck_package"}
_forks.WAIT_SECONDS = 0.1
home = os.getpid()
begun, go = threading.Event(), threading.Event()
thread = threading.Thread(target=__import__, args=("stuck_package",))
thread.start()
begun.wait()
def work():
    import stuck_package.part
    assert stuck_package.part.VALUE == 7
fork_and_run(work)
go.set()
thread.join()
import stuck_package.part
print(stuck_package.part.VALUE)
"""
    assert run_program(program, tmp_path) == "7\n"


def test_fork_within_own_import(tmp_path: Path) -> None:
    """A program that forks while its own module is being imported is not delayed."""
    (tmp_path / "application.py").write_text(
        "import __main__\n__main__.begun.set()\n__main__.go.wait()\n"
    )
    program = """
_forks.WAIT_SECONDS = 1000
begun, go = threading.Event(), threading.Event()
thread = threading.Thread(target=__import__, args=("application",))
thread.start()
begun.wait()
def work():
    assert "application" in sys.modules
fork_and_run(work)
go.set()
thread.join()
"""
    run_program(program, tmp_path)


def test_module_registers_during_fork(tmp_path: Path) -> None:
    """A module that registers fork handlers during a fork is handled.

    Python then calls only the second half of what `logging` registers, which releases a lock that
    nobody holds.
    """
    (tmp_path / "slow_module.py").write_text(
        "import __main__\n__main__.begun.set()\nimport time\ntime.sleep(0.2)\nimport logging\n"
    )
    program = """
for name in [name for name in sys.modules if name.split(".")[0] == "logging"]:
    sys.exit("this program is to import logging later")
_forks.PACKAGES |= {"slow_module"}
begun = threading.Event()
thread = threading.Thread(target=__import__, args=("slow_module",))
thread.start()
begun.wait()
def work():
    import logging
    logging.getLogger("x").info("x")
fork_and_run(work)
thread.join()
import logging
assert logging._lock.acquire(blocking=False)
"""
    run_program(program, tmp_path)


HTTP = """
import json, socket
REQUEST = b'''(module
 (import "extism:host/env" "input_length" (func $size (result i64)))
 (import "extism:host/env" "input_load_u8" (func $load (param i64) (result i32)))
 (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
 (import "extism:host/env" "store_u8" (func $store (param i64 i32)))
 (import "extism:host/env" "http_request" (func $request (param i64 i64) (result i64)))
 (import "extism:host/env" "length" (func $length (param i64) (result i64)))
 (import "extism:host/env" "output_set" (func $output (param i64 i64)))
 (func (export "get") (local $to i64) (local $i i64)
   (local.set $to (call $alloc (call $size)))
   (loop $next
     (call $store (i64.add (local.get $to) (local.get $i)) (call $load (local.get $i)))
     (br_if $next (i64.lt_u (local.tee $i (i64.add (local.get $i) (i64.const 1))) (call $size))))
   (local.set $to (call $request (local.get $to) (i64.const 0)))
   (call $output (local.get $to) (call $length (local.get $to)))))'''
server = socket.create_server(("127.0.0.1", 0))
port = server.getsockname()[1]
def serve():
    while True:
        connection, _ = server.accept()
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\nConnection: close\\r\\n\\r\\nok")
        connection.close()
threading.Thread(target=serve, daemon=True).start()
manifest = {"wasm": [{"data": REQUEST}], "allowed_hosts": ["localhost"]}
document = json.dumps({"url": f"http://localhost:{port}/"})
"""


@pytest.mark.parametrize("delay", [0.0, 0.005, 0.02, 0.04, 0.06, 0.1])
@pytest.mark.slow
def test_fork_during_first_request(delay: float) -> None:
    """A child forked while the first request begins can make requests."""
    program = f"""{HTTP}
first, second = plugwasm.Plugin(manifest), plugwasm.Plugin(manifest)
thread = threading.Thread(target=first.call, args=("get", document))
thread.start()
time.sleep({delay})
def work():
    assert second.call("get", document) == b"ok"
fork_and_run(work)
thread.join()
"""
    run_program(program)


@pytest.mark.parametrize(("seconds", "waited"), [(0.2, True), (8, False)])
def test_fork_during_lookup(seconds: float, waited: bool) -> None:
    """A fork waits for the system's resolver, but not for the network.

    The resolver of the C library holds a lock while it loads its modules (seen with glibc 2.43).
    """
    program = f"""{HTTP}
from plugwasm._http import connection
begun, ended = threading.Event(), threading.Event()
def look_up(host, port):
    begun.set()
    time.sleep({seconds})
    ended.set()
    return ["127.0.0.1"]
connection.look_up = look_up
first, second = plugwasm.Plugin(manifest), plugwasm.Plugin(manifest)
thread = threading.Thread(target=first.call, args=("get", document))
thread.start()
begun.wait()
def work():
    assert ended.is_set() == {waited}
    connection.look_up = lambda host, port: ["127.0.0.1"]
    assert second.call("get", document) == b"ok"
fork_and_run(work)
fork_and_run(work)
thread.join()
"""
    run_program(program)


@pytest.mark.parametrize("delay", [0.0, 0.001, 0.003, 0.01])
@pytest.mark.parametrize(
    "use",
    [
        "plugwasm.Plugin(TRAP).call('trap')",
        "plugwasm.Plugin(TRAP).call('no such export')",
        "plugwasm.Plugin(b'(module', name='x')",
        "plugwasm.Plugin(TRAP).call('trap', returns=list[int])",
        "asyncio.run(plugwasm.Plugin(TRAP).call_async('trap'))",
        "list(plugwasm.PluginPool(TRAP).map('trap', [b''] * 9))",
    ],
)
def test_fork_during_first_use(use: str, delay: float) -> None:
    """A child forked while something is used for the first time can use it."""
    program = f"""
import asyncio
def work():
    try:
        {use}
    except plugwasm.Error:
        pass
thread = threading.Thread(target=work)
thread.start()
time.sleep({delay})
fork_and_run(work)
thread.join()
"""
    run_program(program)


# ---- the engine ----------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="what threads do is read from /proc")
def test_fork_finds_guests_at_rest() -> None:
    """At a fork, guests of other threads are stopped at their epoch callbacks.

    A guest that traps holds the engine's locks for a moment, and a child would inherit them.
    """
    program = """
from plugwasm._engine import fork as _quiet
plugin = plugwasm.Plugin(b'(module (func (export "spin") (loop $l (br $l))))', limits=plugwasm.Limits(timeout=None))
thread = threading.Thread(target=plugin.call, args=("spin",), daemon=True)
thread.start()
looks = []
def look(libc, native, original=_quiet._is_running):
    looks.append(original(libc, native))
    return looks[-1]
_quiet._is_running = look
for _ in range(50):
    time.sleep(0.02)
    looks.clear()
    fork_and_run(lambda: None)
    if looks and not looks[-1]:
        print("at rest")
        break
"""
    assert run_program(program) == "at rest\n"


def test_fork_is_not_held_up_by_guest() -> None:
    """A guest that does not reach its epoch callback does not delay a fork for long.

    It runs one instruction that takes long and does not check the epoch.
    """
    program = """
fill = b'''(module (memory 4096) (func (export "fill")
  (loop $l (memory.fill (i32.const 0) (i32.const 1) (i32.const 0x10000000)) (br $l))))'''
plugin = plugwasm.Plugin(fill, limits=plugwasm.Limits(timeout=None, memory_bytes=2**29))
threading.Thread(target=plugin.call, args=("fill",), daemon=True).start()
time.sleep(0.3)
for _ in range(5):
    fork_and_run(lambda: None)
"""
    run_program(program)


@pytest.mark.slow
def test_fork_while_threads_are_busy() -> None:
    """Children forked while threads trap, start and compile can do all of that."""
    program = """
def without_end(work):
    def run():
        while True:
            work()
    threading.Thread(target=run, daemon=True).start()
def trapped(plugin, name):
    try:
        plugin.call(name)
    except plugwasm.TrapError:
        return
    raise AssertionError
mine, theirs = plugwasm.Plugin(TRAP), plugwasm.Plugin(TRAP)
numbers = iter(range(10**9))
without_end(lambda: trapped(theirs, "far"))
without_end(lambda: trapped(plugwasm.Plugin(TRAP), "trap"))
without_end(lambda: plugwasm.Plugin(b'(module (func (export "a%d")))' % next(numbers)))
def work():
    trapped(mine, "far")
    trapped(plugwasm.Plugin(b'(module (func (export "trap") unreachable) (func (export "b%d")))' % os.getpid()), "trap")
end = time.monotonic() + 4
while time.monotonic() < end:
    fork_and_run(work)
"""
    run_program(program)
