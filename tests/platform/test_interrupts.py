"""Signal handlers and finalizers at any moment: their exceptions are not lost, they do not
deadlock, and no plugin is lost.

Each test is a program, since signals go to the main thread, and a failure could hang.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs POSIX signals")

BEGIN = """
import faulthandler, gc, os, random, signal, sys, threading, time
faulthandler.dump_traceback_later(50, exit=True)
import plugwasm
from plugwasm import CompiledPlugin, Function, Plugin, ValType
from plugwasm.plugin_set import PluginSet
from plugwasm import PluginPool
unraisable = []
sys.unraisablehook = lambda it: unraisable.append((it.exc_value, it.object))
chance = random.Random(sys.argv[1])
ECHO = CompiledPlugin("examples/echo.wasm", functions=[])
SPIN = CompiledPlugin('(module (func (export "spin") (loop $l (br $l))))', functions=[], limits=plugwasm.Limits(timeout=0.2))
"""


def run(script: str, *arguments: str, seed: str = "1") -> str:
    command = [sys.executable, "-c", BEGIN + script, seed, *arguments]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr[-4000:]
    return done.stdout


# ---- interrupts ----------------------------------------------------------------------------------

COUNTED = """
fresh = PluginPool(ECHO, size=1, wait=10, fresh=True)
reset = PluginPool(factory=lambda: Plugin(ECHO), size=1, wait=10, fresh=True)
pool = PluginPool(ECHO, size=1, wait=10)
grants = CompiledPlugin({"wasm": [{"path": "examples/echo.wasm"}], "allowed_paths": {".": "/here"}}, functions=[], wasi=True)

def in_a_block():
    with pool.plugin() as plugin:
        plugin.call("echo", b"x")

def of_a_plugin_that_comes_and_goes():
    Plugin(ECHO).call("echo", b"x")

def of_a_plugin_that_is_reset():
    with Plugin(grants) as plugin:
        plugin.call("echo", b"x")
        plugin.reset()
        plugin.call("echo", b"x")

def of_a_module_that_comes_and_goes():
    CompiledPlugin(f'(module (func (export "f{chance.randrange(10**9)}")))', functions=[])

is_over = False
def others():
    while not is_over:
        pool.call("echo", b"y")

WORK = {
    "pool": lambda: pool.call("echo", b"x"),
    "fresh": lambda: fresh.call("echo", b"x"),
    "reset": lambda: reset.call("echo", b"x"),
    "block": in_a_block,
    "wait": lambda: pool.call("echo", b"x"),
    "map": lambda: list(pool.map("echo", [b"x", b"y"])),
    "instance": of_a_plugin_that_comes_and_goes,
    "again": of_a_plugin_that_is_reset,
    "module": of_a_module_that_comes_and_goes,
}
name = sys.argv[2]
work = WORK[name]
for _ in range(3):
    work()  # whatever is imported late is there; a signal handler that raises in an import is lost in Python's own finalizers
raised = caught = 0
is_armed = False
def handler(*_):
    global raised, is_armed
    if is_armed:
        is_armed = False
        raised += 1
        raise KeyboardInterrupt
signal.signal(signal.SIGALRM, handler)
threads = [threading.Thread(target=others) for _ in range(2 if name == "wait" else 0)]
for thread in threads:
    thread.start()
def until_interrupted():  # a function, for an interrupt can come at the jump of a loop, which is not of the `try` around that
    global is_armed
    is_armed = True
    signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.00002, 0.0005))
    while is_armed:
        work()
while raised < 600:
    try:
        until_interrupted()
    except KeyboardInterrupt:
        caught += 1
    else:
        print("one was lost", unraisable)
        break
is_over = True
for thread in threads:
    thread.join()
assert unraisable == []
for each in (pool, fresh, reset):
    assert each.stats[2:4] == (0, 0), each.stats
    assert each.call("echo", b"usable") == b"usable"
    assert each.stats.replaced == 0
print(raised == caught, pool.stats.made <= 1)
"""


@pytest.mark.parametrize(
    "work", ["pool", "fresh", "reset", "block", "wait", "map", "instance", "again", "module"]
)
def test_no_interrupt_is_lost(work: str) -> None:
    """No interrupt is lost, and none loses a pool's plugin."""
    assert run(COUNTED, work) == "True True\n"


TWICE = """
pool = PluginPool(ECHO, size=1, wait=10)
pool.call("echo", b"x")
left = 0
def profile(frame, what, argument):
    global left
    if frame.f_code.co_filename.endswith(("_pool/slots.py", "_pool/claim.py", "_pool/pool.py")):
        left -= 1
        if left <= 0 and left > -times:
            raise KeyboardInterrupt
for times in (1, 2, 3):
    for count in range(1, 100):
        left = count
        sys.setprofile(profile)
        try:
            pool.call("echo", b"x")
        except KeyboardInterrupt:
            sys.setprofile(None)
            # Here the exception still holds the frames of the call, and all that they hold.
            assert pool.call("echo", b"again") == b"again"
            assert pool.stats == (1, 1, 0, 0, 1, 0, 0), (times, count, pool.stats)
        finally:
            sys.setprofile(None)
        if left > 0:
            break
    print(3 < count < 99)
"""


def test_return_to_pool_survives_interrupts() -> None:
    """A plugin returns to its pool, however often its return is interrupted.

    A profiler is called where signal handlers are. One that raises is removed, so it counts as one
    interrupt.
    """
    assert run(TWICE) == "True\n" * 3


# ---- handlers that use what they interrupt -------------------------------------------------------

HANDLERS = """
pool = PluginPool(ECHO, size=3, wait=10)
folder = sys.argv[3]
os.makedirs(folder, exist_ok=True)
def write():
    text = f'(module (func (export "hook")) (; {chance.randrange(10**9)} ;))'
    with open(f"{folder}/{hash(text)}.new", "w") as file:
        file.write(text)
    os.replace(file.name, f"{folder}/p.wasm")
write()
plugins = PluginSet.from_directory(folder)
other = Plugin(SPIN)
recorder = plugwasm.recording.Recorder()
recorded = CompiledPlugin("examples/echo.wasm", functions=[], observe=recorder)

def use_the_pool():
    assert pool.call("echo", b"in the handler") == b"in the handler"
    with pool.plugin() as plugin:
        plugin.call("echo", b"x")
    assert pool.stats.size == 3

def map_in_the_pool():
    assert list(pool.map("echo", [b"1", b"2", b"3"])) == [b"1", b"2", b"3"]

def record():
    with Plugin(recorded) as plugin:
        plugin.call("echo", b"x")
    len(recorder.recordings)

def time_out():
    try:
        other.call("spin")
    except plugwasm.TimeoutError:
        pass

def reload():
    write()
    plugins.reload()

def new():
    with Plugin(ECHO) as plugin:
        plugin.call("echo", b"x")

WORK = {"pool": use_the_pool, "map": map_in_the_pool, "record": record, "time": time_out, "reload": reload, "new": new}
mains, handlers = ([WORK[name] for name in sys.argv[2].split(",")[i].split("+")] for i in (0, 1))
for work in WORK.values():
    work()
from plugwasm._host import deadline
deadline.IDLE_SECONDS = 0.001  # so that the ticker comes and goes
came = 0
def handler(*_):
    global came
    came += 1
    chance.choice(handlers)()
signal.signal(signal.SIGALRM, handler)
end = time.monotonic() + 2
while time.monotonic() < end and came < 2000:
    signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.00002, 0.002))
    for _ in range(3):
        chance.choice(mains)()
signal.setitimer(signal.ITIMER_REAL, 0)
assert unraisable == []
assert pool.stats[2:4] == (0, 0), pool.stats
plugins.reload()
assert not plugins.reload().failed
print(came > 5)
"""


@pytest.mark.parametrize(
    "who",
    [
        "pool,pool",
        "pool+new,time",
        "record,record",
        "reload,reload",
        "pool+new+record,pool+new+record+reload",
    ],
)
@pytest.mark.slow
def test_handler_uses_what_it_interrupts(who: str, tmp_path: Path) -> None:
    """A signal handler may use the object whose method it interrupts."""
    assert run(HANDLERS, who, str(tmp_path / "plugins")) == "True\n"


RELOADING = """
folder = sys.argv[2]
def write(name, text):
    with open(f"{folder}/{name}.wasm", "w") as file:
        file.write(text)
write("a", '(module (func (export "hook")))')
plugins = PluginSet.from_directory(folder)
load = plugins._catalog._loader._load
said = []
def interrupted(*args):
    plugins._catalog._loader._load = load
    signal.raise_signal(signal.SIGUSR1)
    return load(*args)
def handler(*_):
    write("b", '(module (func (export "hook")))')
    said.append(plugins.reload())
    for forbidden in (lambda: plugins.disable("a"), lambda: plugins.enable("a"), lambda: plugins.configure("a", {"k": "v"})):
        try:
            forbidden()
        except plugwasm.BusyError as error:
            said.append(error.message)
signal.signal(signal.SIGUSR1, handler)
write("a", '(module (func (export "hook")) (func))')
plugins._catalog._loader._load = interrupted
print(plugins.reload())
assert set(plugins.hooks["hook"]) == {"a", "b"}
assert said[0] == ((), (), (), ()) and len(said) == 4 and len(set(said[1:])) == 1, said
signal.signal(signal.SIGUSR1, lambda *_: plugins.close())
write("a", '(module (func (export "hook")) (func) (func))')
plugins._catalog._loader._load = interrupted
plugins.reload()
try:
    plugins.hooks
except plugwasm.ClosedError:
    print("closed", len(plugins._catalog.state.entries))
"""


def test_reload_from_signal_handler(tmp_path: Path) -> None:
    """A reload requested by a signal handler during a reload is done after it."""
    assert run(RELOADING, str(tmp_path)).splitlines() == [
        "Changes(added=('b',), changed=('a',), removed=(), failed=())",
        "closed 0",
    ]


# ---- the garbage collector -----------------------------------------------------------------------

COLLECTED = """
pool = PluginPool(ECHO, size=3, wait=20)
recorder = plugwasm.recording.Recorder()
recorded = CompiledPlugin("examples/echo.wasm", functions=[], observe=recorder)
end = time.monotonic() + 2
gc.set_threshold(10, 2, 2)

def leased():
    with pool.plugin() as plugin:
        yield plugin.call("echo", b"x")

class Calls:
    def __init__(self):
        self.me = self
        self.plugin = Plugin(ECHO)
    def __del__(self):
        self.plugin.call("echo", b"from a finalizer")
        try:
            pool.call("echo", b"from a finalizer", wait=0)  # not longer: what is found with this may have all plugins
        except plugwasm.PoolTimeoutError:
            pass
        pool.stats
        len(recorder.recordings)

def in_circles():
    generator = leased()
    next(generator)
    circle = [generator]
    circle.append(circle)
    del generator
    circle = [Calls()]
    outputs = pool.map("echo", [b"1"] * 9)
    next(outputs)
    circle = [outputs]
    circle.append(circle)

def record():
    with Plugin(recorded) as plugin:
        plugin.call("echo", b"x")
    len(recorder.recordings)

def work(deeds):
    try:
        while time.monotonic() < end:
            chance.choice(deeds)()
    except BaseException as error:
        failures.append(repr(error))

failures = []
deeds = [in_circles, lambda: pool.stats, lambda: pool.call("echo", b"y"), record, gc.collect]
threads = [threading.Thread(target=work, args=(deeds,)) for _ in range(3)]
for thread in threads:
    thread.start()
while any(thread.is_alive() for thread in threads):
    gc.collect()  # for the garbage may have all plugins, and the threads wait for those
    time.sleep(0.001)
gc.collect()
until = time.monotonic() + 10
while pool.stats[2:4] != (0, 0) and time.monotonic() < until:
    time.sleep(0.01)
assert pool.stats[2:4] == (0, 0), pool.stats
assert failures == [] and unraisable == [], (failures, unraisable)
pool.close()
print("well")
"""


@pytest.mark.slow
def test_garbage_collection_anywhere() -> None:
    """The garbage collector may free leases, maps and plugins at any moment."""
    assert run(COLLECTED) == "well\n"


LOCKED = """
pool = PluginPool(ECHO, size=2, wait=10)
def leased():
    with pool.plugin() as plugin:
        yield plugin.call("echo", b"x")
def drop(make):
    iterator = make()
    next(iterator)
    circle = [iterator]
    circle.append(circle)
collect_in = sys.argv[2]
def profile(frame, what, argument):
    if frame.f_code.co_filename.endswith(collect_in) and what in ("call", "c_call", "c_return", "return"):
        sys.setprofile(None)
        gc.collect()
        sys.setprofile(profile)
gc.disable()
def use():
    pool.stats
    pool.call("echo", b"y")
    with pool.plugin():
        pass
for make in (leased, lambda: pool.map("echo", [b"x"] * 30)):
    for _ in range(3):
        drop(make)
        sys.setprofile(profile)
        threading.setprofile(profile)
        use()
        sys.setprofile(None)
        threading.setprofile(None)
        gc.collect()
until = time.monotonic() + 10
while pool.stats[2:4] != (0, 0) and time.monotonic() < until:
    time.sleep(0.01)
print(*pool.stats[2:4])
"""


@pytest.mark.parametrize(
    "where",
    [
        "_pool/slots.py",
        "_pool/claim.py",
        "_pool/lease.py",
        "_host/deadline.py",
        "_pool/pool.py",
        "_pool/map_workers.py",
        "_pool/map.py",
    ],
)
def test_garbage_collection_at_each_step(where: str) -> None:
    """A lease or a map may be freed at each step of other operations."""
    assert run(LOCKED, where) == "0 0\n"


INTERRUPTED_START = """
from plugwasm._host.deadline import ticker
plain = threading.Thread

class Interrupted(plain):
    def start(self):
        threading.Thread = plain
        if sys.argv[2] == "before":
            raise KeyboardInterrupt
        super().start()
        if sys.argv[2] == "later":
            time.sleep(0.05)  # the new thread runs first
        raise KeyboardInterrupt  # as a signal handler would

plugin = Plugin(SPIN)

def outcome(plugin):
    try:
        plugin.call("spin")
    except plugwasm.TimeoutError:
        return "in time"
for _ in range(3):
    while ticker._thread is not None:
        time.sleep(0.01)
    threading.Thread = Interrupted
    try:
        plugin.call("spin")
    except KeyboardInterrupt:
        pass
    started = time.monotonic()
    if sys.argv[3] == "running":
        other = plain(target=outcome, args=(Plugin(SPIN),))
        other.start()
    else:
        time.sleep(0.3)
    assert outcome(plugin) == "in time"
    if sys.argv[3] == "running":
        other.join()
    assert time.monotonic() - started < 20
print("well")
"""


@pytest.mark.parametrize("when", ["before", "at once", "later"])
@pytest.mark.parametrize("then", ["running", "idle"])
@pytest.mark.slow
def test_interrupt_while_ticker_starts(when: str, then: str) -> None:
    """An interrupt while the ticker's thread is started affects no later deadline."""
    assert run(INTERRUPTED_START, when, then) == "well\n"
