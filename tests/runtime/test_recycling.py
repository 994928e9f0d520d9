"""Recycled instances of plugins: when they are replaced, what is lost, and what stays."""

from __future__ import annotations

import logging
import math
import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

import plugwasm
from plugwasm import (
    BusyError,
    CompiledPlugin,
    GuestError,
    IsolatedPlugin,
    Limits,
    Measured,
    OptionError,
    Plugin,
    Recycle,
    TrapError,
    recording,
)
from plugwasm._runtime.recycling import MAX_INTERVAL, Recycling
from tests.support.guests import export, guest
from tests.support.paths import ROOT
from tests.support.recycling import COUNTS, PAGE, count, counts

BOTH = pytest.mark.parametrize("kind", [Plugin, IsolatedPlugin])


# ---- when ----------------------------------------------------------------------------------------


@BOTH
def test_new_instance_after_calls(kind: type[Plugin]) -> None:
    """After so many calls the next one finds a new instance."""
    with kind(COUNTS, recycle=Recycle(calls=3)) as plugin:
        assert counts(plugin, 8) == [1, 2, 3, 1, 2, 3, 1, 2]


@BOTH
def test_new_instance_after_memory(kind: type[Plugin]) -> None:
    """A memory that grows a page a call is replaced when it has reached the bound, and not later."""
    with kind(COUNTS, recycle=Recycle(memory_bytes=100 * PAGE)) as plugin:
        made = [count(plugin, "grow") for _ in range(300)]
    longest = max(made)
    assert made == [1 + n % longest for n in range(300)]
    assert longest == 97  # its first pages are its own one and the kernel's two


def test_host_blocks_count_as_memory() -> None:
    """Blocks that are passed in and out count, also where the memory itself cannot be seen."""
    for source in (COUNTS, COUNTS.replace('(memory (export "memory")', "(memory")):
        with Plugin(source, recycle=Recycle(memory_bytes=20 * PAGE)) as plugin:
            plugin.call("echo", bytes(30 * PAGE))
            assert counts(plugin, 2) == [1, 2]
            plugin.call("echo", bytes(30 * PAGE))  # looked at again soon: it has grown
            assert 1 in counts(plugin, 2 * MAX_INTERVAL)


@BOTH
def test_no_call_on_older_instance(kind: type[Plugin]) -> None:
    """No call starts on an instance that is older than allowed, also after a long pause."""
    with kind(COUNTS, recycle=Recycle(seconds=0.2)) as plugin:
        begin = time.monotonic()
        seen = counts(plugin, 2)
        assert seen == [1, 2] or time.monotonic() - begin > 0.2
        time.sleep(0.25)
        assert counts(plugin, 1) == [1]


def test_first_bound_counts() -> None:
    """Of several bounds the first that is reached counts."""
    with Plugin(COUNTS, recycle=Recycle(calls=5, memory_bytes=6 * PAGE)) as plugin:
        assert counts(plugin, 6) == [1, 2, 3, 4, 5, 1]
        assert [count(plugin, "grow") for _ in range(4)] == [2, 3, 4, 1]


def test_failed_calls_count() -> None:
    """A call that reports an error counts. One that loses the instance begins again."""
    with Plugin(COUNTS, recycle=Recycle(calls=3)) as plugin:
        assert counts(plugin, 1) == [1]
        for _ in range(2):
            with pytest.raises(GuestError):
                plugin.call("fail")
        assert counts(plugin, 2) == [1, 2]
        with pytest.raises(TrapError):
            plugin.call("trap")
        assert counts(plugin, 4) == [1, 2, 3, 1]


def test_memory_is_read_after_an_error() -> None:
    """A plugin that reports an error is looked at, since its memory may be full."""
    with Plugin(COUNTS, recycle=Recycle(memory_bytes=100 * PAGE)) as plugin:
        assert counts(plugin, 200)[-1] == 200  # by now it is looked at rarely
        with pytest.raises(GuestError):
            plugin.call("grow_and_fail")
        assert counts(plugin, 1) == [1]


def test_jitter_lowers_bounds() -> None:
    """With jitter, bounds are lower by a random part, and never higher."""
    ends = set()
    for _ in range(40):
        recycling = Recycling(Recycle(calls=1000, memory_bytes=1000, seconds=10, jitter=0.5))
        now = time.monotonic()
        assert 500 <= recycling._max_calls <= 1000
        assert 500 <= recycling._max_bytes <= 1000
        assert now + 4 < recycling.expires <= now + 10
        ends.add(recycling._max_calls)
    assert len(ends) > 5
    assert Recycling(Recycle(calls=1, jitter=1))._max_calls == 1


@pytest.mark.parametrize("growth", [0, 1, 7, 1000])
def test_memory_is_read_rarely(growth: int) -> None:
    """The memory is read less often than at every call, and the bound is not missed by much."""
    recycling = Recycling(Recycle(memory_bytes=10_000))
    size, reads, calls = 1, 0, 0

    def read() -> int:
        nonlocal reads
        reads += 1
        return size

    while recycling.due is None and calls < 20_000:
        calls, size = calls + 1, size + growth
        recycling.countdown -= 1
        if recycling.countdown <= 0:
            recycling.look(read)
    assert size < 10_000 + 2 * max(growth, 1)
    assert (recycling.due is None) == (growth == 0)
    assert reads <= 12 + calls / MAX_INTERVAL + 2 * math.log2(calls)


# ---- what stays ----------------------------------------------------------------------------------


@BOTH
def test_vars_and_config_stay(kind: type[Plugin]) -> None:
    """Vars and config are the plugin's, not the instance's."""
    source = guest(
        export("set", "(call $var_set <<v>> <<1>>)")
        + export("get", "(call $give (call $var_get <<v>>))")
        + export("config", "(call $give (call $config_get <<k>>))")
    )
    with kind(source, recycle=Recycle(calls=1), config={"k": "old"}) as plugin:
        plugin.update_config({"k": "new"})
        plugin.call("set")
        assert plugin.call("get") == b"1"
        assert plugin.call("config") == b"new"
        assert plugin.vars == {"v": b"1"}
        plugin.reset()
        assert plugin.vars == {}


def test_view_stays_valid() -> None:
    """A view of an output outlives the instance that made it, until the next call."""
    with Plugin(COUNTS, recycle=Recycle(calls=1, seconds=0.001)) as plugin:
        view = plugin.call("echo", b"x" * 1000, parse=None)
        assert plugin._guest is None
        assert view == b"x" * 1000
        time.sleep(0.002)
        assert plugin.call("echo", view) == b"x" * 1000  # also as the next input
        with pytest.raises(ValueError):
            view[0]


def test_output_is_read_first() -> None:
    """An output is read before the instance is dropped."""
    with Plugin(COUNTS, recycle=Recycle(calls=1)) as plugin:
        assert plugin.call("echo", b"[1]", returns=list[int]) == [1]
        assert plugin.call("echo", "text", parse=lambda output: output[::-1]) == b"txet"


def test_old_memory_is_freed() -> None:
    """Of a leaking plugin no more than one instance is alive."""
    with Plugin(COUNTS, recycle=Recycle(memory_bytes=50 * PAGE), limits=Limits()) as plugin:
        for _ in range(2000):  # 125 MiB without recycling
            plugin.call("grow")
        assert (plugin._read_memory() or 0) <= 50 * PAGE


def test_unbounded_plugin_keeps_state() -> None:
    """A plugin that was not asked to recycle keeps its instance."""
    with Plugin(COUNTS) as plugin:
        assert counts(plugin, 500)[-1] == 500


# ---- reports -------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(
    ("recycle", "reason"),
    [
        (Recycle(calls=2), "calls"),
        (Recycle(memory_bytes=PAGE), "memory_bytes"),
        (Recycle(seconds=0.001), "seconds"),
    ],
)
def test_observers_learn_the_reason(
    kind: type[Plugin], recycle: Recycle, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The call that makes the new instance says why; so does a record at the level DEBUG."""
    caplog.set_level(logging.DEBUG, "plugwasm")
    with kind(COUNTS, name="leaky", recycle=recycle, observe=True) as plugin:
        calls = []
        for _ in range(3):
            calls.append(plugin.call("count", returns=Measured[bytes]).call)
            time.sleep(0.002)
    assert calls[0].recycled is None
    assert calls[2].recycled == reason
    assert calls[2].start_seconds > 0 or kind is IsolatedPlugin
    logged = [record for record in caplog.records if record.name == "plugwasm.recycling"]
    assert {record.levelno for record in logged} == {logging.DEBUG}
    assert all("`leaky`" in r.getMessage() and reason in r.getMessage() for r in logged)


def test_recordings_end_with_instance() -> None:
    """Each instance has a recording of its own, which can be replayed."""
    recorder = recording.Recorder()
    with Plugin(COUNTS, recycle=Recycle(calls=2), observe=recorder) as plugin:
        counts(plugin, 5)
    recordings = recorder.recordings
    assert [len(one.calls) for one in recordings] == [2, 2, 1]
    for one in recordings:
        one.replay(COUNTS)


# ---- signals, threads, reentrancy ----------------------------------------------------------------

INTERRUPTED = """
import sys
from plugwasm import Plugin, Recycle
from tests.support.recycling import COUNTS, count
plugin = Plugin(COUNTS, recycle=Recycle(calls=2, memory_bytes=2**20, seconds=1000))
assert count(plugin) == 1
left = 0
def profile(frame, what, argument):
    global left
    if "/plugwasm/" not in frame.f_code.co_filename:
        return
    left -= 1
    if left == 0:
        raise KeyboardInterrupt
interrupted = 0
for n in range(1, 400):
    left = n
    sys.setprofile(profile)
    try:
        plugin.call("count")
    except KeyboardInterrupt:
        interrupted += 1
    finally:
        sys.setprofile(None)
    assert count(plugin) <= 3, n
    assert hasattr(plugin, "_idle")
    if left > 0:
        break
print(interrupted > 20, n < 399)
"""


def test_interrupts_leave_plugin_usable() -> None:
    """Wherever an interrupt raises, the plugin stays usable, and the next bound is kept."""
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("True True\n", "")


def test_threads_share_recycled_plugin() -> None:
    """Calls of several threads are counted together, and none is lost."""
    from concurrent.futures import ThreadPoolExecutor

    recycle = Recycle(calls=10, seconds=0.01)
    with Plugin(COUNTS, recycle=recycle) as plugin, ThreadPoolExecutor(8) as threads:
        seen = list(threads.map(lambda _: count(plugin), range(1000)))
    assert max(seen) <= 10
    assert seen.count(1) >= 100


def test_log_handler_may_not_enter(caplog: pytest.LogCaptureFixture) -> None:
    """A log handler that calls the plugin meanwhile gets a `BusyError`, and nothing hangs."""
    seen: list[BaseException] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            try:
                plugin.call("count")
            except BusyError as error:
                seen.append(error)

    handler = Handler()
    logger = logging.getLogger("plugwasm.recycling")
    logger.addHandler(handler)
    try:
        caplog.set_level(logging.DEBUG, "plugwasm.recycling")
        with Plugin(COUNTS, recycle=Recycle(calls=1)) as plugin:
            assert counts(plugin, 2) == [1, 1]
    finally:
        logger.removeHandler(handler)
    assert len(seen) == 2


# ---- the value -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: Recycle(), "calls"),
        (lambda: Recycle(calls=0), "calls"),
        (lambda: Recycle(calls=1.5), "calls"),  # type: ignore[arg-type]
        (lambda: Recycle(calls=True), "calls"),
        (lambda: Recycle(memory_bytes=0), "memory_bytes"),
        (lambda: Recycle(memory_bytes=2**33), "memory_bytes"),
        (lambda: Recycle(seconds=0), "seconds"),
        (lambda: Recycle(seconds=math.nan), "seconds"),
        (lambda: Recycle(seconds="1"), "seconds"),  # type: ignore[arg-type]
        (lambda: Recycle(calls=1, jitter=1.1), "jitter"),
        (lambda: Recycle(calls=1, jitter=-0.1), "jitter"),
        (lambda: Recycle(calls=1, jitter=None), "jitter"),  # type: ignore[arg-type]
        (lambda: Recycle(jitter=0.1), "calls"),
        (lambda: Plugin(COUNTS, recycle=3), "recycle"),  # type: ignore[arg-type]
        (lambda: IsolatedPlugin(COUNTS, recycle=3), "recycle"),  # type: ignore[arg-type]
    ],
)
def test_bad_values_name_the_field(make: Callable[[], Any], field: str) -> None:
    """A value out of range is an error that names the field."""
    with pytest.raises(OptionError) as caught:
        make()
    assert caught.value.field == field
    assert caught.value.message.startswith(("Recycle", "recycle"))


def test_unknown_argument_is_type_error() -> None:
    """An argument that does not exist is a `TypeError` that suggests another."""
    with pytest.raises(TypeError, match="did you mean `calls`"):
        Recycle(call=1)
    with pytest.raises(TypeError, match="by name"):
        Recycle(1)


def test_value_is_frozen() -> None:
    """It can be compared, hashed, pickled and printed, but not changed."""
    one = Recycle(calls=3, jitter=0.5)
    assert one == pickle.loads(pickle.dumps(one)) != Recycle(calls=3)
    assert len({one, Recycle(calls=3, jitter=0.5)}) == 1
    assert repr(one) == "Recycle(calls=3, jitter=0.5)"
    with pytest.raises(AttributeError, match="make another"):
        one.calls = 4


def test_compiled_plugin_has_no_such_option() -> None:
    """It belongs to each plugin, as config does."""
    with pytest.raises(TypeError, match="no argument `recycle`"):
        CompiledPlugin(COUNTS, recycle=Recycle(calls=1))


def test_class_looks_the_same() -> None:
    """A bound on age changes nothing that an application sees of the class."""
    with Plugin(COUNTS, recycle=Recycle(seconds=1), observe=True) as plugin:
        assert isinstance(plugin, Plugin)
        assert type(plugin).__name__ == "Plugin"
        assert plugwasm.Plugin.__doc__ == type(plugin).__doc__
