"""Programs end when they are done, whatever their plugins are doing: no thread of plugwasm
delays the interpreter."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.support.processes import is_alive

SOON = 15.0
"""Seconds. What is waited for would take for ever, and starting Python on a busy machine takes some of these."""

PROLOGUE = """
import asyncio, sys, threading, time
import plugwasm

SPIN = b'(module (func (export "spin") (loop $l (br $l))) (func (export "ok")))'
HOST = b'(module (import "extism:host/user" "doze" (func $doze)) (func (export "spin") (call $doze)))'
NONE = plugwasm.Limits(timeout=None)

def begun(started=time.monotonic()):
    from plugwasm._host.deadline import ticker
    while not ticker.running:
        assert time.monotonic() < started + 60
        time.sleep(0.005)
    time.sleep(0.05)
"""


def run_to_end(program: str, *, within: float = SOON) -> subprocess.CompletedProcess[str]:
    """Run a program to its end and return its output."""
    return subprocess.run(
        [sys.executable, "-c", PROLOGUE + program],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=within,
        check=False,
    )


UNDER_WAY = {
    "a map in a daemon": """
pool = plugwasm.PluginPool(SPIN, size=2, limits=NONE)
outputs = pool.map("spin", [b""] * 8, workers=2)
threading.Thread(target=lambda: list(outputs), daemon=True).start()
begun()
""",
    "a map that nobody reads on": """
class Inputs:
    def __iter__(self):
        yield from [b"x"] * 3
        yield from [b""] * 8
LOOP = b'''(module (import "extism:host/env" "input_length" (func $n (result i64)))
  (func (export "run") (if (i64.eqz (call $n)) (then (loop $l (br $l))))))'''
def slow(output):
    time.sleep(0.01)  # so that threads make the calls
    return output
pool = plugwasm.PluginPool(LOOP, size=2, limits=NONE)
outputs = pool.map("run", Inputs(), workers=2, ahead=8, parse=slow)
assert [next(outputs) for _ in range(3)] == [b""] * 3
begun()
""",
    "a map with a host function that sleeps": """
pool = plugwasm.PluginPool(HOST, size=2, limits=NONE, functions=[plugwasm.Function(None, "doze", [], [], lambda *_: time.sleep(1000))])
outputs = pool.map("spin", [b""] * 8, workers=2)
threading.Thread(target=lambda: list(outputs), daemon=True).start()
begun()
""",
    "an awaited call": """
plugin = plugwasm.Plugin(SPIN, limits=NONE)
loop = asyncio.new_event_loop()
task = loop.create_task(plugin.call_async("spin"))
loop.run_until_complete(asyncio.sleep(0.01))
begun()
""",
    "an event loop in a daemon": """
plugin = plugwasm.Plugin(SPIN, limits=NONE)
threading.Thread(target=lambda: asyncio.run(plugin.call_async("spin")), daemon=True).start()
begun()
""",
    "a call of a pool in an event loop": """
pool = plugwasm.PluginPool(SPIN, size=1, limits=NONE)
async def both():
    await asyncio.gather(pool.call_async("spin"), pool.call_async("spin"))
threading.Thread(target=lambda: asyncio.run(both()), daemon=True).start()
begun()
""",
    "a call in a daemon": """
plugin = plugwasm.Plugin(SPIN, limits=NONE)
threading.Thread(target=plugin.call, args=("spin",), daemon=True).start()
begun()
""",
    "a plugin set in an event loop": """
plugins = plugwasm.PluginSet(plugins={"a": SPIN}, limits=NONE)
threading.Thread(target=lambda: asyncio.run(plugins.first_async("spin")), daemon=True).start()
begun()
""",
    "a worker process": """
plugin = plugwasm.IsolatedPlugin(SPIN, limits=NONE)
threading.Thread(target=plugin.call, args=("spin",), daemon=True).start()
time.sleep(0.3)
""",
}

WAYS = {
    "at the end of the program": ("print('end')", 0),
    "by an exception": ("raise ValueError('end')", 1),
    "by sys.exit": ("sys.exit(3)", 3),
}


@pytest.mark.parametrize("under_way", UNDER_WAY)
def test_program_ends_at_once(under_way: str) -> None:
    """A program ends at once whatever is running."""
    done = run_to_end(UNDER_WAY[under_way] + "print('end')\n")
    assert (done.returncode, done.stdout) == (0, "end\n"), done.stderr


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("under_way", ["a map in a daemon", "an awaited call"])
def test_program_ends_in_every_way(under_way: str, way: str) -> None:
    """A program ends at once in every way to end it."""
    program, code = WAYS[way]
    assert run_to_end(UNDER_WAY[under_way] + program).returncode == code


def test_ctrl_c_in_map_ends_program() -> None:
    """After Ctrl-C has ended a map, the program can end."""
    program = (
        PROLOGUE
        + 'pool = plugwasm.PluginPool(SPIN, size=2, limits=NONE)\nprint("go", flush=True)\nlist(pool.map("spin", [b""] * 8))\n'
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "go\n"
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        _, complaint = process.communicate(timeout=SOON)
    finally:
        process.kill()
    assert "KeyboardInterrupt" in complaint
    assert process.returncode == -signal.SIGINT


def test_sys_exit_in_thread() -> None:
    """`sys.exit` in a thread ends that thread and then the program."""
    done = run_to_end(
        UNDER_WAY["a map in a daemon"]
        + "thread = threading.Thread(target=sys.exit, args=(5,))\nthread.start()\nthread.join()\nprint('end')\n"
    )
    assert (done.returncode, done.stdout) == (0, "end\n"), done.stderr


@pytest.mark.skipif(not hasattr(signal, "SIGTERM") or os.name != "posix", reason="POSIX signals")
def test_sigterm_ends_workers() -> None:
    """SIGTERM ends a program and its worker processes."""
    program = f"""{PROLOGUE}
plugin = plugwasm.IsolatedPlugin(SPIN, limits=NONE)
threading.Thread(target=plugin.call, args=("spin",), daemon=True).start()
{UNDER_WAY["a map in a daemon"]}
print(plugin._worker.pid, flush=True)
time.sleep(1000)
"""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        worker = int(process.stdout.readline())
        process.terminate()
        assert process.wait(SOON) == -signal.SIGTERM
    finally:
        process.kill()
        process.communicate()
    end = time.monotonic() + SOON
    while time.monotonic() < end and is_alive(worker):
        time.sleep(0.02)
    assert not is_alive(worker)


def test_awaited_thread_is_finished() -> None:
    """Calls that a non-daemon thread waits for are finished first.

    Python waits for threads that are no daemons, so their maps and event loops go on after the end
    of the main thread.

    Python 3.12 starts no thread from then on, so an event loop there has none to run a plugin in.
    """
    done = run_to_end(
        """
pool = plugwasm.PluginPool(b'(module (func (export "ok")))', size=2)
def slow(output):
    time.sleep(0.002)
    return output
def read():
    time.sleep(0.3)
    outputs = pool.map("ok", [b""] * 200, workers=2, parse=slow)
    print(len(list(outputs)), flush=True)
    if sys.version_info[:2] != (3, 12):
        print(asyncio.run(pool.call_async("ok")), flush=True)
threading.Thread(target=read).start()
"""
    )
    assert (done.stdout, done.stderr) == (
        "200\n" if sys.version_info[:2] == (3, 12) else "200\nb''\n",
        "",
    )
