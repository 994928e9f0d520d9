"""Traps that come as signals of the processor, whoever else handles those signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from plugwasm._engine import Engine, may_use_signals
from tests.support.paths import ROOT

pytestmark = pytest.mark.skipif(not may_use_signals(), reason="traps are no signals here")

START = """
import ctypes, faulthandler, logging, os, signal, sys, threading, time
import plugwasm
from plugwasm import Plugin
libc = ctypes.CDLL(None)
WASM = '''(module (memory (export "memory") 1) (global $n (mut i32) (i32.const 0))
  (func (export "ok"))
  (func (export "count") (result i32) (global.set $n (i32.add (global.get $n) (i32.const 1))) (global.get $n))
  (func (export "bounds") (drop (i32.load (i32.const 70000))))
  (func (export "divide") (drop (i32.div_u (i32.const 1) (i32.const 0))))
  (func (export "unreachable") (unreachable))
  (func $deep (export "deep") (call $deep)))'''

def attempt(plugin, *names):
    for name in names:
        time.sleep(0.003)  # what was seen of the handlers is trusted for a millisecond
        try:
            plugin.call(name)
            print("ok")
        except plugwasm.errors.GuestError as error:
            print(error.code)
        except plugwasm.errors.TrapError as error:
            print(error.trap)
        except plugwasm.Error as error:
            print(type(error).__name__)

def take_over(*numbers):
    for number in numbers:
        action = (ctypes.c_uint64 * 64)()
        action[0] = ctypes.cast(libc.abort, ctypes.c_void_p).value
        assert libc.sigaction(number, action, None) == 0

def uses_signals(plugin):
    return plugin._guest.store.engine.signals

TRAPS = "bounds", "divide", "unreachable", "deep"
"""
TRAPS = [
    "out of bounds memory access",
    "integer division by zero",
    "unreachable",
    "stack overflow",
]
CRASH = "sys.stdout.flush(); ctypes.string_at(0)"


def run(
    program: str, *options: str, code: int = 0, **environment: str
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, *options, "-c", START + program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PLUGWASM_CACHE": "off", **environment},
    )
    assert done.returncode == code, done.stderr + done.stdout
    return done


BEFORE = {
    "enabled by the program": ("", "faulthandler.enable()", {}),
    "enabled by an option": ("-Xfaulthandler", "", {}),
    "enabled by the environment": ("-Xutf8", "", {"PYTHONFAULTHANDLER": "1"}),
    "enabled later": ("", "", {}),
}


@pytest.mark.parametrize("way", BEFORE)
def test_faulthandler_enabled(way: str) -> None:
    """Whoever enables it, whenever: traps stay traps, and a real fault prints a traceback."""
    option, first, environment = BEFORE[way]
    done = run(
        f"""
{first}
plugin = Plugin(WASM)
attempt(plugin, "count", *TRAPS, "count", "count")
faulthandler.enable()
attempt(plugin, "count", *TRAPS, "count")
assert uses_signals(plugin)
{CRASH}
""",
        *filter(None, [option]),
        code=-signal.SIGSEGV,
        **environment,
    )
    assert done.stdout.splitlines() == ["1", *TRAPS, "1", "2", "3", *TRAPS, "1"]
    assert done.stderr.startswith("Fatal Python error: Segmentation fault")
    assert "in string_at" in done.stderr


def test_fault_without_faulthandler(tmp_path: Path) -> None:
    """If the program never enables it, nothing is written anywhere, and no descriptor is kept."""
    file = tmp_path / "file"
    done = run(
        f"""
before = os.listdir("/proc/self/fd")
plugin = Plugin(WASM)
attempt(plugin, "count", "bounds")
assert os.listdir("/proc/self/fd") == before
os.closerange(3, 100)
files = [open({str(file)!r}, "a") for _ in range(50)]
attempt(plugin, "count")
assert uses_signals(plugin)
{CRASH}
""",
        code=-signal.SIGSEGV,
    )
    assert done.stdout.splitlines() == ["1", TRAPS[0], "1"]
    assert done.stderr == ""
    assert file.read_bytes() == b""


@pytest.mark.parametrize("again", ["", "faulthandler.enable()"], ids=["off", "off and on"])
def test_faulthandler_disabled(again: str) -> None:
    """After `disable`, traps stay traps, instances stay, and a real fault ends the process."""
    done = run(
        f"""
plugin = Plugin(WASM)
attempt(plugin, "count")
faulthandler.enable()
faulthandler.disable()
{again}
attempt(plugin, "count", *TRAPS, "count")
assert uses_signals(plugin)
{CRASH}
""",
        code=-signal.SIGSEGV,
    )
    assert done.stdout.splitlines() == ["1", "2", *TRAPS, "1"]
    assert done.stderr.count("Segmentation fault") == (1 if again else 0)


def test_fault_beside_calls() -> None:
    """A fault in one thread ends the process, although another calls a plugin in the meantime.

    `faulthandler` restores the default action, writes the traceback, and sends the signal again.
    """
    done = run(
        """
plugin = Plugin(WASM)
attempt(plugin, "count")
faulthandler.enable()
signal.signal(signal.SIGSEGV, signal.SIG_DFL)
threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGSEGV)).start()
while True:
    plugin.call("count")
""",
        code=-signal.SIGSEGV,
    )
    assert done.stderr == ""  # the default action was left alone


@pytest.mark.parametrize(
    "steps",
    [
        "take_over(signal.SIGSEGV)",
        "take_over(signal.SIGILL)",
        "take_over(signal.SIGFPE)",
        "signal.signal(signal.SIGSEGV, lambda *_: None)",
        "faulthandler.disable(); signal.signal(signal.SIGILL, lambda *_: None)",
    ],
)
def test_foreign_handler_for_live_instance(steps: str) -> None:
    """An instance that relies on a handler which is gone is given up with an error, once.

    The next runs with checks. Other plugins and vars are not lost, and the log says it once.
    """
    done = run(f"""
plugin, other = Plugin(WASM, vars={{"v": b"kept"}}), Plugin(WASM)
attempt(plugin, "count", "count")
attempt(other, "count")
{steps}
attempt(plugin, "count", "count", *TRAPS, "count")
assert not uses_signals(plugin)
assert plugin.vars["v"] == b"kept"
attempt(other, "count", "count", "bounds")
attempt(Plugin(WASM), "bounds")
""")
    assert done.stdout.splitlines() == [
        *("1", "2", "1"),
        *("InstanceLostError", "1", *TRAPS, "1"),
        *("InstanceLostError", "1", TRAPS[0]),
        TRAPS[0],
    ]
    assert done.stderr.count("explicit checks") == 1


def test_foreign_handler_without_instance() -> None:
    """A plugin that has no instance gets one with checks, without an error; from the pool, too."""
    done = run("""
compiled = plugwasm.CompiledPlugin(WASM)
attempt(Plugin(compiled), "bounds")
take_over(signal.SIGSEGV)
plugins = [Plugin(compiled) for _ in range(6)]
for plugin in plugins:
    attempt(plugin, "count", "bounds", "count")
    assert not uses_signals(plugin)
assert plugins[-1]._guest.store.engine.pooled == plugwasm._runtime.modules.can_pool()
""")
    assert done.stdout.splitlines() == [TRAPS[0], *["1", TRAPS[0], "1"] * 6]


def test_handler_that_was_there_first() -> None:
    """A handler from before the first plugin stays behind the engine's, and gets what is no trap."""
    done = run(
        f"""
take_over(signal.SIGSEGV)
plugin = Plugin(WASM)
attempt(plugin, "count", *TRAPS, "count")
assert uses_signals(plugin)
faulthandler.enable()
attempt(plugin, "bounds")
{CRASH}
""",
        code=-signal.SIGABRT,
    )
    assert done.stdout.splitlines() == ["1", *TRAPS, "1", TRAPS[0]]


def test_pool_after_foreign_handler() -> None:
    """The plugins of a pool are replaced; at most the call that notices it fails."""
    done = run("""
from contextlib import ExitStack
with plugwasm.PluginPool(WASM, size=3) as pool:
    def use_all():
        with ExitStack() as leases:
            for plugin in [leases.enter_context(pool.plugin()) for _ in range(3)]:
                attempt(plugin, "count")
    use_all()
    use_all()
    take_over(signal.SIGSEGV)
    attempt(pool, "count")
    use_all()
    use_all()
""")
    assert done.stdout.split() == [*"111", *"222", "InstanceLostError", *"111", *"222"]


@pytest.mark.parametrize(
    ("parameters", "result"), [("", ""), ("x: int", "int"), ("x: int, y: int", "int")]
)
def test_handler_from_host_function(parameters: str, result: str) -> None:
    """A handler that a host function installs ends the call, before the guest can trap."""
    count = parameters.count(":")
    done = run(f"""
@plugwasm.host_fn(namespace="h")
def hook({parameters}) -> {result or None}:
    if armed:
        time.sleep(0.003)
        take_over(signal.SIGSEGV)
    {"return x" if result else ""}
armed = False
plugin = Plugin('''(module
  (import "h" "hook" (func $hook (param {"i64 " * count}) {"(result i64)" if result else ""}))
  (memory 1)
  (func (export "f") (call $hook {"(i64.const 1)" * count}) {"(drop)" if result else ""}
    (drop (i32.load (i32.const 70000)))))''', functions=[hook])
attempt(plugin, "f")
armed = True
attempt(plugin, "f", "f")
""")
    assert done.stdout.splitlines() == [TRAPS[0], "InstanceLostError", TRAPS[0]]


def test_threads_with_blocked_signals() -> None:
    """Threads that block all signals, or have no stack for handlers, get traps as others do."""
    done = run("""
class Stack(ctypes.Structure):
    _fields_ = [("at", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]

def small_stack():
    global memory  # the historical size, which C libraries take, unless the processor needs more
    memory = ctypes.create_string_buffer(size := max(8192, 2 * os.sysconf("SC_MINSIGSTKSZ")))
    assert libc.sigaltstack(ctypes.byref(Stack(ctypes.addressof(memory), 0, size)), None) == 0

def no_stack():
    assert libc.sigaltstack(ctypes.byref(Stack(None, 2, 0)), None) == 0

plugin = Plugin(WASM)
def work(change):
    attempt(plugin, "bounds")
    change()
    attempt(plugin, "ok", *TRAPS)

changes = [lambda: signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals()), no_stack]
if hasattr(os, "sysconf") and "SC_MINSIGSTKSZ" in os.sysconf_names:
    changes.append(small_stack)
for change in changes:
    thread = threading.Thread(target=work, args=(change,))
    thread.start(), thread.join()
    print("-")
work(lambda: signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals()))
""")
    parts = done.stdout.split("-\n")
    assert len(parts) >= 3
    assert all(part.splitlines() == [TRAPS[0], "ok", *TRAPS] for part in parts)


def test_traps_in_forked_children() -> None:
    """A child has the handlers of its parent, also where they are not the engine's any more."""
    done = run("""
def forked():
    sys.stdout.flush()
    if not (child := os.fork()):
        attempt(plugin, "ok", *TRAPS)
        attempt(Plugin(WASM), "bounds")
        sys.stdout.flush()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0

plugin = Plugin(WASM)
attempt(plugin, "ok")
forked()
take_over(signal.SIGSEGV)
forked()
attempt(plugin, "ok", "ok")
forked()
""")
    assert done.stdout.splitlines() == [
        *("ok", "ok", *TRAPS, TRAPS[0]),
        *("InstanceLostError", *TRAPS, TRAPS[0]),
        *("InstanceLostError", "ok"),
        *("ok", *TRAPS, TRAPS[0]),
    ]


def test_isolated_plugin_and_handlers() -> None:
    """A worker has handlers of its own: what the application does with its own is no matter."""
    done = run("""
with plugwasm.IsolatedPlugin(WASM) as plugin:
    attempt(plugin, "count", *TRAPS, "count")
    take_over(signal.SIGSEGV)
    attempt(plugin, "count", *TRAPS, "count")
""")
    assert done.stdout.splitlines() == ["1", *TRAPS, "1", "2", *TRAPS, "1"]


@pytest.mark.parametrize(
    ("first", "environment"),
    [("plugwasm.use_explicit_checks()", {}), ("", {"PLUGWASM_EXPLICIT_CHECKS": "1"})],
    ids=["function", "environment"],
)
def test_explicit_checks_chosen(first: str, environment: dict[str, str]) -> None:
    """With explicit checks the process's handlers and `faulthandler` are left alone."""
    done = run(
        f"""
{first}
plugin = Plugin(WASM)
attempt(plugin, "count", *TRAPS)
assert not faulthandler.is_enabled()
assert signal.getsignal(signal.SIGSEGV) == signal.SIG_DFL
action = (ctypes.c_uint64 * 64)()
libc.sigaction(signal.SIGSEGV, None, action)
assert action[0] == 0
take_over(signal.SIGSEGV, signal.SIGILL, signal.SIGFPE)
attempt(plugin, *TRAPS, "count", "count")
assert not uses_signals(plugin)
""",
        **environment,
    )
    assert done.stdout.splitlines() == ["1", *TRAPS, *TRAPS, "1", "2"]
    assert done.stderr == ""


def test_explicit_checks_chosen_late() -> None:
    """Chosen after the first plugin, checks hold for new plugins; those that run go on."""
    done = run("""
plugin = Plugin(WASM)
attempt(plugin, "count")
plugwasm.use_explicit_checks()
attempt(plugin, "count", "bounds")
other = Plugin(WASM)
attempt(other, "count", "bounds", "count")
assert not uses_signals(other)
""")
    assert done.stdout.splitlines() == ["1", "2", TRAPS[0], "1", TRAPS[0], "1"]


def test_library_in_use_by_others() -> None:
    """Where others made an engine first, without `faulthandler`, plugins run with checks."""
    done = run("""
import wasmtime
wasmtime.Engine()
plugin = Plugin(WASM)
attempt(plugin, *TRAPS)
faulthandler.enable()
attempt(plugin, "count", *TRAPS, "count")
assert not uses_signals(plugin)
""")
    assert done.stdout.splitlines() == [*TRAPS, "1", *TRAPS, "1"]


def test_code_of_both_settings_cached(tmp_path: Path) -> None:
    """The compiling process makes code for the setting that is asked for, and the cache has both."""
    body = "(local.set $x (i32.add (local.get $x) (i32.load (local.get $x))))" * 3000
    (tmp_path / "heavy.wat").write_text(
        '(module (memory (export "memory") 1) (func (export "bounds") (local $x i32)'
        f" {body} (drop (i32.load (i32.const 70000)))))"
    )
    program = f"""
plugin = Plugin({str(tmp_path / "heavy.wat")!r})
attempt(plugin, "bounds", "bounds")
print(plugin.compiled_plugin._plan.engine.signals)
"""
    sizes = []
    for variable in ("", "1", "", "1"):
        done = run(
            program,
            PLUGWASM_CACHE=str(tmp_path / "cache"),
            PLUGWASM_EXPLICIT_CHECKS=variable,
        )
        assert done.stdout.splitlines() == [TRAPS[0]] * 2 + [str(not variable)]
        sizes.append(len(list((tmp_path / "cache").rglob("*.code"))))
    assert sizes[0] * 2 == sizes[1] == sizes[2] == sizes[3]


def test_setting_is_in_the_key() -> None:
    """Code of both settings has different keys, and an engine loads only its own."""
    with_signals, without = Engine(signals=True), Engine(signals=False)
    assert with_signals.key != without.key
    assert Engine(**with_signals.settings).key == with_signals.key  # type: ignore[arg-type]
