"""gevent, eventlet and other greenlets: deadlines apply, and no two greenlets of a thread are
inside guests at once."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

PATCHES = {
    "gevent": """
        from gevent import monkey; monkey.patch_all()
        import gevent
        from gevent import spawn, sleep, joinall
        apply = gevent.get_hub().threadpool.apply
    """,
    "eventlet": """
        import warnings; warnings.simplefilter("ignore")
        import eventlet; eventlet.monkey_patch()
        from eventlet import spawn, sleep
        import eventlet.tpool
        def joinall(greenlets):
            for greenlet in greenlets:
                greenlet.wait()
        def apply(f, args=()):
            return eventlet.tpool.execute(f, *args)
    """,
}
PLUGINS = '''
    import threading, time
    import plugwasm
    from plugwasm import BusyError, Function, IsolatedPlugin, Limits, Plugin, PluginPool, TimeoutError
    SOURCE = b"""(module (import "extism:host/user" "back" (func $back))
      (func (export "back") (call $back)) (func (export "ok")) (func (export "spin") (loop $l (br $l))))"""
    def plugin(back=lambda: None, kind=Plugin, **options):
        return kind(SOURCE, functions=[Function(None, "back", [], [], lambda *_: back())], **options)
    def outcome(f, *args):
        try:
            return f(*args)
        except plugwasm.Error as error:
            return type(error).__name__
'''


def run(*parts: str) -> list[str]:
    script = "\n".join(textwrap.dedent(part) for part in parts)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.fixture(params=["patched first", "imported first"])
def order(request: pytest.FixtureRequest) -> str:
    """Return code that imports plugwasm before everything is patched, or nothing."""
    return "" if request.param == "patched first" else "import plugwasm\nplugwasm.Plugin"


patched = pytest.mark.parametrize("patch", PATCHES.values(), ids=PATCHES)


@patched
def test_a_deadline_ends_a_guest(patch: str, order: str) -> None:
    script = """
    print(outcome(plugin(limits=Limits(timeout=0.2)).call, "spin"))
    print(threading.active_count())
    """
    assert run(order, patch, PLUGINS, script)[0] == "TimeoutError"


@patched
def test_second_greenlet_is_refused(patch: str, order: str) -> None:
    """A second greenlet's call is refused while one is in a host function."""
    script = """
    for rests in ((0.1, 0.3), (0.3, 0.1)):  # the first one ends first, or last
        a, b = (plugin(lambda rest=rest: sleep(rest)) for rest in rests)
        ended = []
        joinall([spawn(lambda p=p: ended.append(outcome(p.call, "back"))) for p in (a, b, a)])
        print(*sorted(map(str, ended)))
        for p in (a, b):
            print(p.call("back"), p.call("ok"))
    """
    assert run(order, patch, PLUGINS, script) == ["BusyError", "BusyError", "b''", *["b''"] * 4] * 2


@patched
def test_refusal_says_what_to_do(patch: str, order: str) -> None:
    """The error says what to do, and that works."""
    script = """
    a, b = plugin(lambda: sleep(0.2)), plugin(lambda: sleep(0.2))
    said = []
    def call(p):
        try:
            p.call("back")
        except BusyError as error:
            said.append(error.message)
    joinall([spawn(call, p) for p in (a, b)])
    print(len(said), "another greenlet of this thread" in said[0], "threadpool.apply" in said[0], "tpool.execute" in said[0])
    ended = []
    joinall([spawn(lambda p=p: ended.append(apply(p.call, ("ok",)))) for p in (a, b, a, b)])
    print(*ended)
    """
    assert run(order, patch, PLUGINS, script) == ["1", "True", "True", "True", *["b''"] * 4]


@patched
def test_start_is_refused_and_pool_refilled(patch: str, order: str) -> None:
    """Starting an instance is refused too, and plugins return to their pool."""
    script = """
    with PluginPool(SOURCE, size=2, functions=[Function(None, "back", [], [], lambda *_: sleep(0.1))]) as pool:
        ended = []
        joinall([spawn(lambda: ended.append(outcome(pool.call, "back"))) for _ in range(4)])
        print(*sorted(map(str, ended)), pool.stats.busy)
        print(pool.call("back"), len(list(pool.map("ok", [b""] * 50, workers=2))))
    """
    assert run(order, patch, PLUGINS, script) == [*["BusyError"] * 3, "b''", "0", "b''", "50"]


@patched
def test_guest_sleep_lets_no_greenlet_in(patch: str, order: str) -> None:
    """A guest's sleep does not let other greenlets run."""
    script = '''
    SLEEPS = b"""(module (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
      (memory (export "memory") 1) (data (i32.const 24) "\\\\00\\\\e1\\\\f5\\\\05")
      (func (export "nap") (drop (call $poll (i32.const 0) (i32.const 100) (i32.const 1) (i32.const 200)))))"""
    ended = []
    plugins = [Plugin(SLEEPS, wasi=True) for _ in range(3)]
    joinall([spawn(lambda p=p: ended.append(outcome(p.call, "nap"))) for p in plugins])
    print(*ended)
    '''
    assert run(order, patch, PLUGINS, script) == ["b''"] * 3


@patched
def test_isolated_plugin_of_own_thread(patch: str, order: str) -> None:
    """A greenlet does not wait forever for an isolated plugin that its own thread uses."""
    script = """
    with plugin(lambda: sleep(0.2), IsolatedPlugin) as p:
        ended = []
        joinall([spawn(lambda: ended.append(outcome(p.call, "back"))) for _ in range(2)])
        print(*sorted(map(str, ended)))
        print(p.call("ok"))
    """
    assert run(order, patch, PLUGINS, script) == ["BusyError", "b''", "b''"]


def test_bare_greenlets_are_refused() -> None:
    """Bare greenlets are refused in whatever order they are resumed.

    As SQLAlchemy and Playwright use them: a child that switches to its parent in a host function.
    Nothing is patched.
    """
    script = """
    import greenlet
    main = greenlet.getcurrent()
    a, b = plugin(lambda: main.switch()), plugin()
    child = greenlet.greenlet(lambda: a.call("back"))
    child.switch()
    print(outcome(b.call, "ok"), outcome(a.call, "ok"))
    print(child.switch(), b.call("ok"), a.call("ok"))
    within = plugin(lambda: print(greenlet.greenlet(lambda: outcome(b.call, "ok")).switch(), b.call("ok")))
    print(within.call("back"))
    """
    assert run(PLUGINS, script) == [
        "BusyError",
        "BusyError",
        "b''",
        "b''",
        "b''",
        "BusyError",
        "b''",
        "b''",
    ]


def test_call_before_greenlets_counts() -> None:
    """A call that began before greenlets were imported counts."""
    script = """
    def back():
        import greenlet
        print(greenlet.greenlet(lambda: outcome(b.call, "ok")).switch(), b.call("ok"))
    a, b = plugin(back), plugin()
    a.call("ok"), b.call("ok")
    print(a.call("back"))
    """
    assert run(PLUGINS, script) == ["BusyError", "b''", "b''"]


def test_other_threads_are_not_refused() -> None:
    script = """
    import greenlet
    entered, leave = threading.Event(), threading.Event()
    def back():
        entered.set()
        leave.wait(20)
    a, b = plugin(back), plugin()
    thread = threading.Thread(target=a.call, args=("back",))
    thread.start()
    entered.wait(20)
    print(b.call("ok"))
    leave.set()
    thread.join()
    """
    assert run(PLUGINS, script) == ["b''"]


def test_killed_greenlet_leaves_guest() -> None:
    """A greenlet that is killed in a host function unwinds its guest."""
    script = """
    import greenlet
    main = greenlet.getcurrent()
    a, b = plugin(lambda: main.switch()), plugin()
    child = greenlet.greenlet(lambda: a.call("back"))
    child.switch()
    try:
        child.throw(greenlet.GreenletExit)
    except plugwasm.HostFunctionError as error:
        print(type(error.__cause__).__name__)
    print(b.call("ok"), a.call("ok"))
    """
    assert run(PLUGINS, script) == ["GreenletExit", "b''", "b''"]


def test_allocation_from_other_greenlet() -> None:
    """Another greenlet cannot allocate blocks of a guest."""
    script = """
    import greenlet
    def back(current):
        print(outcome(lambda: greenlet.greenlet(lambda: outcome(current.alloc, 8)).switch()), current.alloc(8).length)
    p = Plugin(SOURCE, functions=[Function(None, "back", [], [], lambda current, *_: back(current))])
    print(p.call("back"))
    """
    assert run(PLUGINS, script) == ["BusyError", "8", "b''"]
