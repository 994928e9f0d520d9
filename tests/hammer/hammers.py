"""Hammers: threads that do random operations on plugins at once for a limited time. Each is a
program, since it may crash or hang.

    python tests/hammer/hammers.py NAME [SEED]          PLUGWASM_HAMMER_SECONDS says how long (2)

Every outcome must be explained: the right output for the input, or an error for which there was a
reason (`tool.py`). At the end nothing may be left: no thread, no descriptor, no call in the ticker,
no instance. Prints what it did as JSON.
"""

from __future__ import annotations

import difflib  # noqa: F401  # an import that a signal handler interrupts is seen half done by other threads
import faulthandler
import gc
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import plugwasm  # noqa: E402
import plugwasm._wasi.options  # noqa: E402
import plugwasm._wasi.preview1  # noqa: E402  # for the same reason as `difflib`
from plugwasm import Plugin, PluginPool  # noqa: E402
from plugwasm._host.deadline import ticker  # noqa: E402
from plugwasm._host.guest import Guest  # noqa: E402
from plugwasm.plugin_set import PluginSet  # noqa: E402
from plugwasm.recording import Recorder  # noqa: E402
from tests.hammer.tool import Alarm, Tool, Unexplained, compiled  # noqa: E402
from tests.hammer.worker import ERRANDS, MIXED, Worker  # noqa: E402

SECONDS = float(os.environ.get("PLUGWASM_HAMMER_SECONDS", "2"))
PATIENCE = 60
"""Seconds after which something hangs."""


class Hammer:
    """Threads, their operations, and the objects that they share."""

    deeds: Sequence[str] = MIXED
    errands: Sequence[str] = ERRANDS
    echoes: Sequence[str] = ("echo", "remember", "grow", "log")
    threads = 5
    burst = 30
    interval: float | None = 1e-6

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.end = time.monotonic() + SECONDS
        self.failures: list[BaseException] = []
        self.found: list[Tool] = []
        self.plain = compiled()
        self.fuelled = compiled(fuel_limit=50_000_000)
        self.hurried = {milliseconds: compiled(milliseconds) for milliseconds in (1, 5, 20, 100)}
        self.quick = self.hurried[20]
        self.shared = [self.new(random.Random(seed), shared=True) for _ in range(3)]

    def new(self, chance: random.Random, shared: bool = False) -> Tool:
        kind = chance.random()
        if kind < 0.6 or shared:
            return Tool(self.plain, shared=shared)
        if kind < 0.7:
            return Tool(self.fuelled, fuel=True)
        milliseconds = chance.choice(list(self.hurried))
        return Tool(self.hurried[milliseconds], milliseconds)

    def replace(self, chance: random.Random) -> None:
        old = self.shared[at := chance.randrange(len(self.shared))]
        self.shared[at] = self.new(chance, shared=True)
        old.close()

    def fail(self, error: BaseException) -> None:
        self.failures.append(error)
        self.end = 0

    def run(self) -> Counter[str]:
        workers = [Worker(self, i) for i in range(self.threads)]
        threads = [threading.Thread(target=worker.run) for worker in workers]
        for thread in threads:
            thread.start()
        done = self.meanwhile()
        for thread in threads:
            thread.join()
        for tool in self.shared:
            tool.close()
        done["latest timeout, ms"] = int(1000 * max(worker.latest for worker in workers))
        for worker in workers:
            done += worker.done
        self.shared.clear()
        self.found.clear()
        return done

    def meanwhile(self) -> Counter[str]:
        """Do the main thread's part."""
        return Counter()


class Calls(Hammer):
    """All operations, with the usual switching of threads."""

    interval = None


class Turns(Hammer):
    """All operations, with threads that switch all the time."""

    threads = 8


class Pool(Hammer):
    """More instances than the pool holds, created and dropped by threads at once."""

    deeds = ("burst",) * 6 + ("hand_over", "collect", "trap", "compile", "echo", "command")
    burst = 250
    threads = 3


class Compiling(Hammer):
    """Modules that are compiled, linked, started and dropped, and others that cannot be."""

    deeds = ("compile",) * 5 + ("broken", "hand_over", "echo", "collect", "burst")
    burst = 8


class Forks(Hammer):
    """Forks from the main thread, from workers and from host functions, while others work."""

    deeds = (*MIXED, "fork", "burst", "compile", "hand_over")
    errands = (*ERRANDS, "fork")
    threads = 3
    burst = 10

    def meanwhile(self) -> Counter[str]:
        main = Worker(self, -1)
        main.deeds = {"fork": main.fork}
        main.run()
        return main.done


class Signals(Hammer):
    """A signal handler that raises at any moment of the main thread, while others work.

    It does not log: until Python 3.12, an exception at the wrong moment of `logging.getLogger`
    leaves the lock of `logging` held forever.
    """

    threads = 1
    echoes = ("echo", "remember", "grow")
    deeds = tuple(deed for deed in MIXED if deed not in ("close_shared", "cancel_shared"))
    errands = tuple(errand for errand in ERRANDS if errand not in ("another_thread", "drop"))

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.armed = False
        self.rung = 0
        self.lost: list[str] = []

    def meanwhile(self) -> Counter[str]:
        main = Worker(self, -1)
        for name in ("hand_over", "interrupts", "spin", "compile", "collect"):
            main.deeds.pop(name, None)
        main.deeds["endless"] = lambda: main.use(main.own[0], "spin", b"", lambda e: False)
        chance = random.Random(f"{self.seed} alarms")

        def handler(number: int, frame: Any) -> None:
            if self.armed:
                self.armed = False
                self.rung += 1
                raise (KeyboardInterrupt if chance.random() < 0.5 else Alarm)

        def unraisable(what: Any) -> None:
            # Nothing that Python code raises can leave a finaliser.
            where = getattr(what.object, "__qualname__", repr(what.object))
            if isinstance(what.exc_value, (Alarm, KeyboardInterrupt)):
                main.done[f"lost in {where}"] += 1
            else:
                self.fail(what.exc_value)

        sys.unraisablehook = unraisable
        signal.signal(signal.SIGALRM, handler)
        shared, self.shared = self.shared, []
        try:
            while time.monotonic() < self.end:
                self.one(main, chance)
        except BaseException as error:
            self.fail(error)
        self.armed = False
        for tool in shared:
            tool.close()
        main.kept.clear()
        for tool in main.own:
            tool.close()
        main.own.clear()
        sys.unraisablehook = sys.__unraisablehook__
        main.done["alarms"] = self.rung
        return main.done

    def one(self, main: Worker, chance: random.Random) -> None:
        tool = Tool(self.plain)
        main.own[:] = [tool]
        name = chance.choice(list(main.deeds))
        main.done[name] += 1
        work = main.deeds[name]
        if chance.random() < 0.5:
            tool.plugin.call("echo")
        rung = self.rung
        try:
            signal.setitimer(
                signal.ITIMER_REAL, 0.02 if name == "endless" else chance.uniform(0.00001, 0.002)
            )
            self.armed = True
            work()
            self.armed = False
        except (Alarm, KeyboardInterrupt):
            main.done["interrupted"] += 1
        except Unexplained as error:
            self.armed = False
            cause = error.__cause__ and error.__cause__.__cause__
            if rung == self.rung or not isinstance(cause, (Alarm, KeyboardInterrupt)):
                raise
            main.done["interrupted in a host function"] += 1
        self.armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        if not tool.closed:
            try:
                for _ in range(2):
                    assert tool.plugin.call("echo", b"afterwards") == b"afterwards"
            except plugwasm.Error as error:
                raise Unexplained(f"after {name}: {error!r}") from error


class Shutdown(Hammer):
    """Interpreters that end while daemon threads are working."""

    threads = 0

    def run(self) -> Counter[str]:
        done: Counter[str] = Counter()
        while time.monotonic() < self.end or done["ends"] < 3:
            seed = str(self.seed * 1000 + done["ends"])
            process = subprocess.run(
                [sys.executable, __file__, "daemons", seed],
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                check=False,
            )
            if (process.returncode, process.stdout, process.stderr) != (0, "end\n", ""):
                raise Unexplained(
                    f"seed {seed}: exit {process.returncode}\n{process.stdout}{process.stderr}"
                )
            done["ends"] += 1
        self.shared.clear()
        return done


class Daemons(Hammer):
    """The program of `shutdown`, which ends during its work."""

    deeds = tuple(deed for deed in MIXED if deed != "spin")

    def run(self) -> Counter[str]:
        self.end = time.monotonic() + 30
        for i in range(4):
            threading.Thread(target=Worker(self, i).run, daemon=True).start()
        time.sleep(random.Random(self.seed).uniform(0, 0.15))
        if self.failures:
            raise self.failures[0]
        print("end")
        sys.stdout.flush()
        sys.exit()


class Guarded(Hammer):
    """The garbage collector and signal handlers during any operation of threads on a pool, a
    recorder and a plugin set."""

    threads = 3
    size = 3

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.pool = PluginPool(self.plain, size=self.size, wait=PATIENCE)
        self.recorder = Recorder()
        self.recorded = compiled(observe=self.recorder)
        self.folder = tempfile.TemporaryDirectory()
        self.write(random.Random(seed))
        self.plugins = PluginSet.from_directory(self.folder.name, functions=[])

    def write(self, chance: random.Random) -> None:
        path = Path(self.folder.name, f"{chance.randrange(10**9)}.new")
        path.write_text(f'(module (func (export "hook")) (; {chance.randrange(10**6)} ;))')
        path.replace(Path(self.folder.name, "a.wasm"))

    def echo(self, wait: float = PATIENCE) -> None:
        try:
            if self.pool.call("echo", b"x", wait=wait) != b"x":
                raise Unexplained("an echo of something else")
        except plugwasm.PoolTimeoutError:
            if wait:
                raise

    def lease(self) -> None:
        with self.pool.plugin() as plugin:
            plugin.call("echo", b"x")

    def map(self) -> None:
        if list(self.pool.map("echo", [b"1", b"2", b"3"])) != [b"1", b"2", b"3"]:
            raise Unexplained("a map gave something else")

    def look(self) -> None:
        if self.pool.stats.size != self.size:
            raise Unexplained("a pool of another size")

    def record(self) -> None:
        with Plugin(self.recorded) as plugin:
            plugin.call("echo", b"x")
        len(self.recorder.recordings)

    def hook(self) -> None:
        self.plugins.all("hook")

    def first(self) -> None:
        """Let threads use shared objects first, which are created at their first use."""
        fresh, start = compiled(), threading.Barrier(2)

        def use() -> None:
            start.wait(PATIENCE)
            with Plugin(fresh) as plugin:
                plugin.call("shout", b"x")
                plugin.call("command", b"x")

        other = threading.Thread(target=use)
        other.start()
        use()
        other.join()

    def leased(self) -> Iterator[bytes]:
        with self.pool.plugin(wait=0) as plugin:
            yield plugin.call("echo", b"x")

    def in_circles(self) -> None:
        """Make leases, maps and plugins that only the garbage collector can free."""
        for iterator in (self.leased(), iter(self.pool.map("echo", [b"1"] * 9, wait=0))):
            circle: list[Any] = [iterator, Plugin(self.plain)]
            circle.append(circle)
            try:
                next(iterator)
            except plugwasm.PoolTimeoutError:
                pass

    def reload(self) -> None:
        self.plugins.reload()

    def work(self, chance: random.Random, done: Counter[str], names: Sequence[str]) -> None:
        try:
            while time.monotonic() < self.end:
                name = chance.choice(names)
                done[name] += 1
                getattr(self, name)()
        except BaseException as error:
            self.fail(error)

    def run(self) -> Counter[str]:
        dones = [Counter[str]() for _ in range(self.threads)]
        names = ("echo", "lease", "look", "record", "hook", *self.also)
        threads = [
            threading.Thread(
                target=self.work, args=(random.Random(f"{self.seed} {i}"), done, names)
            )
            for i, done in enumerate(dones)
        ]
        for thread in threads:
            thread.start()
        mine = self.meanwhile()
        while any(thread.is_alive() for thread in threads):
            gc.collect()
            time.sleep(0.001)
        gc.collect()
        if not eventually(lambda: self.pool.stats[2:4] == (0, 0)):
            raise Unexplained(f"left in the pool: {self.pool.stats}")
        self.echo()
        self.pool.close()
        self.plugins.close()
        self.folder.cleanup()
        self.shared.clear()
        for done in dones:
            mine += done
        return mine

    also: Sequence[str] = ()


class Collector(Guarded):
    """The garbage collector × any operation: it runs all the time, in each of the threads."""

    also = ("in_circles", "first")

    def meanwhile(self) -> Counter[str]:
        before = gc.get_threshold()
        gc.set_threshold(20, 2, 2)
        done: Counter[str] = Counter()
        while time.monotonic() < self.end:
            gc.collect()
            done["collections"] += 1
        gc.set_threshold(*before)
        return done


class Handlers(Guarded):
    """Signals × any operation: a handler does the operation that it interrupts."""

    threads = 1
    interval = None

    def meanwhile(self) -> Counter[str]:
        chance, done = random.Random(f"{self.seed} main"), Counter[str]()
        for name in ("map", "reload", "first", "record", "hook"):
            getattr(self, name)()

        def handler(number: int, frame: Any) -> None:
            name = chance.choice(("echo", "lease", "look", "record", "hook", "reload"))
            done[f"{name} in a handler"] += 1
            getattr(self, name)()

        before = signal.signal(signal.SIGALRM, handler)
        while time.monotonic() < self.end:
            signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.00002, 0.002))
            name = chance.choice(("echo", "lease", "look", "record", "hook", "reload", "write"))
            done[name] += 1
            getattr(self, name)(*((chance,) if name == "write" else ()))
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        return done


HAMMERS: dict[str, type[Hammer]] = {
    kind.__name__.lower(): kind
    for kind in (
        Calls,
        Turns,
        Pool,
        Compiling,
        Forks,
        Signals,
        Collector,
        Handlers,
        Shutdown,
        Daemons,
    )
}


# ---- what may be left afterwards -----------------------------------------------------------------


def descriptors() -> Counter[str]:
    """Return the open descriptors, except compiled code from the cache: the process keeps
    modules that it has seen, and they keep their file."""
    found: Counter[str] = Counter()
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            found[os.readlink(f"/proc/self/fd/{descriptor}")] += 1
        except FileNotFoundError:
            pass  # the one that the directory was read with
    return Counter(
        {
            name: count
            for name, count in found.items()
            if not name.removesuffix(" (deleted)").endswith(".code")
        }
    )


def is_kept(thread: str) -> bool:
    """Return whether the thread may still exist afterwards: the ticker's for a while, and the
    workers of a `map`."""
    return thread == "MainThread" or thread.startswith("plugwasm")


def guests_alive() -> int:
    gc.collect()
    return sum(type(thing) is Guest for thing in gc.get_objects())


def resident() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def eventually(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + 5
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


@contextmanager
def nothing_is_left() -> Iterator[None]:
    before = descriptors()
    yield
    left = {
        "descriptors": eventually(lambda: not descriptors() - before),
        "threads": eventually(
            lambda: all(is_kept(thread.name) for thread in threading.enumerate())
        ),
        "calls": eventually(lambda: not ticker.running),
        "instances": eventually(lambda: guests_alive() == 0),
    }
    if not all(left.values()):
        gone = [what for what, gone in left.items() if not gone]
        raise Unexplained(f"left behind: {gone}; descriptors: {dict(descriptors() - before)}")


def main(name: str, seed: int) -> None:
    faulthandler.enable()
    faulthandler.dump_traceback_later(SECONDS + PATIENCE, exit=True)
    warm = compiled(1000)
    for _ in range(5):  # makes the pool, and imports all that is imported late
        with Plugin(warm) as first:
            first.call("log")
    del warm, first
    kind = HAMMERS[name]
    if kind.interval is not None:
        sys.setswitchinterval(kind.interval)
    with nothing_is_left():
        hammer = kind(seed)
        done = hammer.run()
        failures = hammer.failures
        if failures:
            raise failures[0]
        del hammer
    print(
        json.dumps(
            {
                "hammer": name,
                "seed": seed,
                "MB": resident() >> 20,
                "done": dict(sorted(done.items())),
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(10**6))
