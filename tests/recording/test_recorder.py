"""Recorders: what they record of which calls, and how much."""

from __future__ import annotations

import asyncio
import gc
import os
import stat
import threading
import tracemalloc
import weakref
from pathlib import Path
from typing import Any

import pytest

import plugwasm
from plugwasm import CurrentPlugin, Function, Plugin, ValType, host_fn
from plugwasm.recording import Recorder, RecordingError, load
from tests.support.guests import export, guest
from tests.support.recordings import ENDS, asking_plugin, import_of, outputs, upper


def test_no_recording_before_first_call() -> None:
    """Before the first call, there is no recording."""
    recorder = Recorder()
    with (
        Plugin(ENDS, observe=recorder),
        pytest.raises(RecordingError, match="nothing was recorded yet"),
    ):
        _ = recorder.recording


def test_size_limit_ends_recording() -> None:
    """A recording ends at its size limit and says so."""
    recorder = Recorder(max_bytes=10_000)
    with Plugin(ENDS, observe=recorder) as plugin:
        plugin.call("fine", b"x" * 1000)
        assert recorder.recording.complete
        for _ in range(10):
            assert plugin.call("fine", b"x" * 1000) == b"x" * 1000
    assert 3 <= len(recorder.recording.calls) <= 5
    assert recorder.recording.incomplete == "it would have been larger than `max_bytes`"
    with pytest.raises(RecordingError, match="max_bytes"):
        recorder.recording.replay(ENDS)
    for wrong in (-1, "x", True):
        with pytest.raises(plugwasm.OptionError):
            Recorder(max_bytes=wrong)  # type: ignore[arg-type]


@pytest.mark.slow
def test_size_limit_holds_for_any_plugin() -> None:
    """A recording takes no more memory than its limit, whatever the plugin does."""
    asks = """(local $i i32) (loop $next
      (drop (call $f (i64.const 5)))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $i) (i32.const 50000))))"""
    fails = """(local $e i64) (local.set $e (call $alloc (i64.const 1048576)))
      (call $store_u8 (local.get $e) (i32.const 0xc3)) (call $error_set (local.get $e))"""
    source = guest(
        export("asks", asks) + export("fails", fails), import_of("f", "(param i64) (result i64)")
    )
    for function, times in (("asks", 1), ("fails", 40)):
        recorder = Recorder(max_bytes=2**23)
        with Plugin(source, functions=[host_fn("f")(plus)], observe=recorder) as plugin:
            tracemalloc.start()
            try:
                for _ in range(times):
                    try:
                        plugin.call(function)
                    except plugwasm.GuestError:
                        pass
                most = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
        assert not recorder.recording.complete
        assert most < 2**24 + 2**23, function


def plus(number: int) -> int:
    return number + 1000


def test_large_blocks_are_not_copied() -> None:
    """Blocks larger than the recording's limit are not copied."""
    source = guest(
        export("run", "(call $f (call $alloc (i64.const 209715200)))"),
        import_of("f", "(param i64)"),
    )
    function = Function(None, "f", [ValType.I64], [], lambda plugin, inputs, results: None)
    recorder = Recorder()
    with Plugin(source, functions=[function], observe=recorder) as plugin:
        tracemalloc.start()
        try:
            plugin.call("run")
            most = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert not recorder.recording.complete
    assert most < 2**24


def test_files_are_private_and_optional(tmp_path: Path) -> None:
    """Recordings are written only on request and are private."""
    folder = tmp_path / "recordings"
    recorder = Recorder(folder, when=lambda call: call.error)
    with Plugin(ENDS, name="a/b.c", observe=recorder) as plugin:
        plugin.call("fine", b"x")
        assert os.listdir(folder) == []
        with pytest.raises(plugwasm.GuestError):
            plugin.call("fail")
        (name,) = os.listdir(folder)
        plugin.call("fine", b"x")
    assert name.startswith("a_b_c-")
    path = folder / name
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [call.function for call in load(path).calls] == ["fine", "fail"]
    load(path).replay(ENDS)


def test_recorder_of_pool_in_threads(tmp_path: Path) -> None:
    """One recorder can serve a pool's plugins in many threads."""
    recorder = Recorder(tmp_path)
    with plugwasm.PluginPool(
        asking_plugin(), functions=[host_fn("f")(upper)], observe=recorder, size=3
    ) as pool:

        def work(name: str) -> None:
            for i in range(20):
                assert pool.call("run", f"{name}{i}") == f"{name}{i}".upper().encode()

        threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    recordings = [load(tmp_path / name) for name in os.listdir(tmp_path)]
    assert 1 <= len(recordings) == len(recorder.recordings) <= 3
    assert sum(len(recording.calls) for recording in recordings) == 60
    for recording in recordings:
        recording.replay(asking_plugin())


def test_a_recorder_holds_no_instance() -> None:
    recorder = Recorder()
    plugin = Plugin(asking_plugin(), functions=[host_fn("f")(upper)], observe=recorder)
    plugin.call("run", "abc")
    guest = weakref.ref(plugin._guest)
    gc.disable()
    try:
        plugin.close()
        assert guest() is None
    finally:
        gc.enable()
    assert len(recorder.recording.calls) == 1


def test_coroutine_is_recorded() -> None:
    """A coroutine is recorded and can be replayed without an event loop."""

    async def f(plugin: CurrentPlugin, value: str) -> str:
        await asyncio.sleep(0)
        plugin.set_var("seen", value.encode())
        return value.upper()

    recorder = Recorder()
    with Plugin(asking_plugin(), functions=[host_fn("f")(f)], observe=recorder) as plugin:
        assert asyncio.run(plugin.call_async("run", "async")) == b"ASYNC"
    replay = recorder.recording.replay(asking_plugin())
    assert outputs(replay) == [b"ASYNC"]
    assert replay.calls[0].vars == {"seen": b"async"}


def test_every_form_of_call() -> None:
    """Every form of call is recorded."""
    recorder = Recorder()
    with Plugin(asking_plugin(), functions=[host_fn("f")(upper)], observe=recorder) as plugin:
        assert plugin.call("run", "text", returns=str) == "TEXT"
        assert plugin.call("run", {"a": 1}) == b'{"A":1}'
        assert bytes(plugin.call("run", bytearray(b"view"), parse=None)) == b"VIEW"
        with pytest.raises(plugwasm.OutputError):
            plugin.call("run", "no number", returns=int)
    assert outputs(recorder.recording.replay(asking_plugin())) == [
        b"TEXT",
        b'{"A":1}',
        b"VIEW",
        b"NO NUMBER",
    ]


def test_isolated_plugin_is_refused() -> None:
    """An isolated plugin cannot be recorded."""
    with pytest.raises(TypeError, match="IsolatedPlugin cannot be recorded"):
        plugwasm.IsolatedPlugin(ENDS, observe=Recorder())


def test_with_other_observers() -> None:
    """A recorder can be combined with other observers."""
    from plugwasm.observing import Trace

    told: list[str] = []
    recorder = Recorder()
    with Plugin(
        asking_plugin(),
        functions=[host_fn("f")(upper)],
        observe=[Trace(lambda record: told.append(str(record))), recorder],
    ) as plugin:
        plugin.call("run", "abc")
    assert told == ["f('abc') -> 'ABC'", "run(b'abc') -> b'ABC'"]
    recorder.recording.replay(asking_plugin())


def test_host_functions_are_unaffected() -> None:
    """Host functions get the same arguments as without a recorder."""
    seen: list[Any] = []

    def f(plugin: CurrentPlugin, value: int) -> int:
        memory = plugin.memory_at_offset(value)
        seen.append(
            (
                bytes(plugin.memory(memory)),
                plugin.config,
                plugin.host_context(),
                plugin.var("a"),
                plugin.time_remaining() is not None,
            )
        )
        with pytest.raises(plugwasm.OutOfMemoryError):
            plugin.alloc(2**31)
        with pytest.raises(plugwasm.OutOfMemoryError):
            plugin.set_var("b", bytes(2**21))
        with pytest.raises(plugwasm.BadHandleError):
            plugin.memory(plugwasm.Memory(12345, 5))
        plugin.free(plugwasm.Memory(12345, 5))
        return value

    recorder = Recorder()
    for observe in (None, recorder):
        with Plugin(
            asking_plugin(),
            config={"k": "v"},
            vars={"a": b"1"},
            functions=[host_fn("f")(f)],
            observe=observe,
        ) as plugin:
            assert plugin.call("run", "abc", host_context=4) == b"abc"
    assert seen == [(b"abc", {"k": "v"}, 4, b"1", True)] * 2
    recorder.recording.replay(asking_plugin())
