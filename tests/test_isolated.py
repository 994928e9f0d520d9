"""Plugins in a process of their own: they do what plugins do, whatever becomes of the process, and whatever it says."""

from __future__ import annotations

import gc
import inspect
import json
import logging
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import pytest
from guests import LOOP, InThread, export, guest, manifest, number, soon
from server import Server, reply

import plugwasm
from plugwasm import CurrentPlugin, Function, IsolatedPlugin, Json, Plugin, ProcessLimits, ValType, host_fn
from plugwasm._worker import process
from plugwasm.errors import WorkerError
from plugwasm.limits import Limits
from plugwasm.wasi import FrozenClock, SeededRandom, WasiOptions

LINUX = sys.platform == "linux" and os.uname().machine in ("x86_64", "aarch64")
EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
BOTH = pytest.mark.parametrize("kind", [Plugin, IsolatedPlugin])
WASI = """
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (import "wasi_snapshot_preview1" "clock_time_get" (func $clock_time_get (param i32 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "random_get" (func $random_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_open" (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
"""


def is_zombie_or_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def outcome(call: Callable[[], Any]) -> object:
    """What a call gave or raised, as something that can be compared."""
    try:
        return call()
    except BaseException as error:
        fields = {name: value for name, value in vars(error).items() if not name.startswith("__")}
        return type(error), error.args, fields, repr(error.__cause__)


# The same as a Plugin


def test_what_is_public_is_what_a_plugin_has_and_a_word_on_its_confinement() -> None:
    def public(kind: type) -> dict[str, object]:
        return {name: getattr(kind, name) for name in dir(kind) if not name.startswith("_")}

    plain, isolated = public(Plugin), public(IsolatedPlugin)
    assert set(isolated) - set(plain) == {"confinement"}
    assert not set(plain) - set(isolated)
    for name, value in plain.items():
        if inspect.isfunction(value):
            assert inspect.signature(value) == inspect.signature(isolated[name]), name  # type: ignore[arg-type]
    signature = inspect.signature(IsolatedPlugin)
    rest = [parameter for name, parameter in signature.parameters.items() if name != "process"]
    assert signature.replace(parameters=rest) == inspect.signature(Plugin)


ERRORS = guest(
    export("fine", "(call $echo)")
    + export("trap", "unreachable")
    + export("deep", "(call $deep)")
    + "(func $deep (call $deep))"
    + export("says", "(call $error_set <<it is broken>>)")
    + '(func (export "code") (result i32) (i32.const -7))'
    + '(func (export "wants") (param i32))'
    + export("output", "(call $output_set (i64.const 4096) (i64.const 10))")
    + export("takes", "(drop (call $config_get (i64.const 77)))")
    + export("sets", "(call $var_set <<a>> <<b>>)")
    + export("gets", "(call $give (call $var_get <<a>>))")
    + export("config", "(call $give (call $config_get <<key>>))")
    + export("fills", "(local $b i64) (local.set $b (call $alloc (i64.const 100000000))) (call $answer (local.get $b))")
    + export("asks", '(drop (call $http_request <<{"url":"http://example.com"}>> (i64.const 0)))')
    + export("large_var", "(call $var_set <<big>> (call $alloc (i64.const 2000000)))")
)


def test_calls_end_as_they_do_in_the_application() -> None:
    made = [kind(ERRORS, config={"key": "value"}, name="errors") for kind in (Plugin, IsolatedPlugin)]
    functions = "fine trap fine deep says code wants output takes sets gets trap gets config fills asks large_var fine nothing fin".split()
    for function in functions:
        plain, isolated = (outcome(lambda plugin=plugin, name=function: plugin.call(name, b"input")) for plugin in made)  # type: ignore[misc]
        assert isolated == plain, function
    for plugin in made:
        plugin.update_config({"key": "another"})
        assert plugin.call("config") == b"another"
        plugin.call("sets")
        plugin.reset()
        assert plugin.call("gets") == b""
        assert plugin.config == {"key": "another"}
        assert plugin.function_exists("fine")
        assert not plugin.function_exists("wants")
    assert repr(made[0].exports) == repr(made[1].exports)
    assert repr(made[0].imports) == repr(made[1].imports)
    assert made[0].id != made[1].id
    assert made[1].call("fine", bytearray(b"bytes"), parse=bytes.decode) == "bytes"
    view = made[1].call("fine", "text", parse=None)
    assert view == b"text"
    assert view.readonly
    large = os.urandom(3_000_000)
    assert made[1].call("fine", memoryview(large)) == large
    made[1].close()
    with pytest.raises(plugwasm.ClosedError):
        made[1].call("fine")


@pytest.mark.parametrize("size", [2**20, 2**22])
def test_an_input_that_has_no_room_is_the_same_error(size: int) -> None:
    made = [kind(guest(export("echo", "(call $echo)")), name="p", limits=Limits(memory_bytes=2**19)) for kind in (Plugin, IsolatedPlugin)]
    plain, isolated = (outcome(lambda plugin=plugin: plugin.call("echo", bytes(size))) for plugin in made)  # type: ignore[misc]
    assert isinstance(plain, tuple)
    assert plain == isolated
    assert made[1].call("echo", b"on") == b"on"


@pytest.mark.parametrize(
    "source",
    [
        b"\0asm\1\0\0\0 broken",
        "(module (nonsense))",
        '(module (import "a" "b" (func)))',
        '(module (import "extism:host/env" "alloc" (func)))',
        '(module (import "wasi_snapshot_preview1" "fd_read" (func)))',
        '(module (memory (export "memory") 20000))',
    ],
)
def test_what_cannot_be_a_plugin_is_the_same_error(source: str | bytes) -> None:
    limits = Limits(memory_bytes=2**28)
    plain = outcome(lambda: Plugin(source, name="p", limits=limits))
    assert isinstance(plain, tuple)
    assert outcome(lambda: IsolatedPlugin(source, name="p", limits=limits)) == plain


def test_a_compiled_plugin_gives_its_modules_and_settings() -> None:
    compiled = plugwasm.CompiledPlugin(guest(export("echo", "(call $echo)")), functions=[], name="given", fuel_limit=10_000)
    with IsolatedPlugin(compiled) as plugin, IsolatedPlugin(plugin.compiled_plugin) as again:
        assert (plugin.name, again.name) == ("given", "given")
        assert plugin.call("echo", b"x") == again.call("echo", b"x") == b"x"
        assert 0 < (plugin.fuel_used or 0) < 10_000
        with pytest.raises(plugwasm.OptionError, match="the process of an IsolatedPlugin"):
            Plugin(plugin.compiled_plugin).call("echo")


def test_nothing_of_the_guest_is_compiled_in_the_application(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("compiled here")

    for module in (plugwasm._code, plugwasm._link):
        monkeypatch.setattr(module, "compiled", never)
    monkeypatch.setattr(plugwasm._engine.Engine, "compile", never)
    monkeypatch.setattr(plugwasm._engine.Engine, "load", never)
    with pytest.raises(AssertionError, match="compiled here"):
        Plugin(guest(export("echo", "(call $echo)")))
    with IsolatedPlugin(guest(export("echo", "(call $echo)"))) as plugin:
        assert plugin.call("echo", b"x") == b"x"


# Host functions


def host_functions(seen: list[Any]) -> list[Function]:
    @host_fn()
    def greet(name: str) -> str:
        return f"Hello, {name}!"

    @host_fn()
    def add(a: int, b: int) -> int:
        return a + b

    @host_fn()
    def document(value: Annotated[dict[str, Any], Json]) -> Annotated[dict[str, Any], Json]:
        return {"got": value}

    @host_fn()
    def pair(data: bytes) -> tuple[bytes, int]:
        return data * 2, len(data)

    @host_fn()
    def everything(plugin: CurrentPlugin, text: str) -> str:
        seen.append((plugin.host_context(), plugin.config, plugin.time_remaining() is None))
        plugin.set_var("v", text.encode())
        memory = plugin.alloc(5)
        plugin.memory(memory)[:] = b"12345"
        assert plugin.memory_at_offset(memory.offset).length == 5
        found = bytes(plugin.memory(memory))
        plugin.free(memory)
        assert plugin.memory_at_offset(memory.offset).length == 0
        return f"{found.decode()} {plugin.var('v')!r}"

    def upper(plugin: CurrentPlugin, params: list[Any], results: list[Any]) -> None:
        block = plugin.input_buffer(params[0])
        block[:] = bytes(block).upper()
        plugin.return_bytes(results[0], bytes(block) + b"!")
        assert plugin.memory_at_offset(results[0]).length == len(block) + 1

    functions = [greet, add, document, pair, everything, Function(None, "upper", [ValType.I64], [ValType.I64], upper)]
    del plugwasm._registry.registered[-5:]
    return functions


CALLS = (
    "\n".join(
        f'(import "extism:host/user" "{name}" (func ${name} {type}))'
        for name, type in {
            "greet": "(param i64) (result i64)",
            "add": "(param i64 i64) (result i64)",
            "document": "(param i64) (result i64)",
            "pair": "(param i64) (result i64 i64)",
            "everything": "(param i64) (result i64)",
            "upper": "(param i64) (result i64)",
        }.items()
    ),
    export("greet", "(call $give (call $greet (call $copy)))")
    + export("add", "(call $answer (call $add (i64.const -5) (i64.const 3)))")
    + export("document", '(call $give (call $document <<{"a": [1, null]}>>))')
    + export("pair", "(local $n i64) (call $pair (call $copy)) (local.set $n) (call $give)")
    + export("everything", "(call $give (call $everything (call $copy)))")
    + export("upper", "(local $b i64) (local.set $b (call $copy)) (drop (call $upper (local.get $b))) (call $give (local.get $b))")
    + export("wrong", "(call $give (call $greet (i64.const 12345)))"),
)


def test_host_functions_run_in_the_application_and_get_what_they_always_get() -> None:
    outcomes = []
    for kind in (Plugin, IsolatedPlugin):
        seen: list[Any] = [os.getpid()]
        with kind(guest(CALLS[1], CALLS[0]), config={"k": "v"}, functions=host_functions(seen), limits=Limits(timeout=None)) as plugin:
            found = [
                outcome(lambda name=name, data=data, plugin=plugin: plugin.call(name, data, host_context="context"))  # type: ignore[misc]
                for name in ("greet", "add", "document", "pair", "everything", "upper", "wrong", "greet")
                for data in (b"", b"input", b"x" * 100_000)
            ]
        outcomes.append((seen, found))
    assert outcomes[0] == outcomes[1]
    assert b"Hello, input!" in outcomes[1][1]
    assert b"INPUT" in outcomes[1][1]


@pytest.mark.parametrize("size", [65_536, 65_537])
def test_blocks_reach_a_host_function_whole_at_the_size_where_they_no_longer_travel_with_the_call(size: int) -> None:
    with IsolatedPlugin(guest(CALLS[1], CALLS[0]), functions=host_functions([])) as plugin:
        assert plugin.call("upper", b"a" * size) == b"A" * size


@BOTH
@pytest.mark.parametrize(
    "error", [ValueError("no"), SystemExit(3), plugwasm.GuestError("own"), KeyboardInterrupt(), RecursionError("deep")]
)
def test_what_a_host_function_raises_reaches_the_caller_itself(kind: Any, error: BaseException) -> None:
    @host_fn()
    def fail(text: str) -> str:
        raise error

    del plugwasm._registry.registered[-1:]
    source = guest(
        export("f", "(call $var_set <<v>> <<1>>) (drop (call $fail <<x>>))") + export("v", "(call $give (call $var_get <<v>>))"),
        '(import "extism:host/user" "fail" (func $fail (param i64) (result i64)))',
    )
    with kind(source, functions=[fail], name="p") as plugin:
        with pytest.raises(BaseException) as caught:
            plugin.call("f")
        if isinstance(error, KeyboardInterrupt):
            assert caught.value is error
        else:
            assert type(caught.value) is plugwasm.HostFunctionError
            assert caught.value.__cause__ is error
            assert "`f` of plugin `p`: the host function `fail` raised" in caught.value.message
            assert caught.value.backtrace
        assert plugin.call("v") == b"1", "vars outlive the instance"


@BOTH
def test_a_result_that_has_no_room_is_the_host_functions_own_error(kind: Any) -> None:
    @host_fn()
    def flood(text: str) -> str:
        return "x" * 10_000_000

    del plugwasm._registry.registered[-1:]
    imported = '(import "extism:host/user" "flood" (func $flood (param i64) (result i64)))'
    source = guest(export("f", "(call $give (call $flood <<x>>))") + export("g", "(call $echo)"), imported)
    with kind(source, functions=[flood], limits=Limits(memory_bytes=2**21)) as plugin:
        with pytest.raises(plugwasm.HostFunctionError, match="no room for 10000000 bytes") as caught:
            plugin.call("f")
        assert isinstance(caught.value.__cause__, plugwasm.OutOfMemoryError)
        assert plugin.call("g", b"on") == b"on"


@BOTH
def test_a_plugin_cannot_be_entered_a_second_time(kind: Any) -> None:
    def again(plugin: CurrentPlugin, params: list[Any], results: list[Any]) -> None:
        made.call("f")

    source = guest(export("f", "(call $again)"), '(import "extism:host/user" "again" (func $again))')
    made = kind(source, functions=[Function(None, "again", [], [], again)])
    with pytest.raises(plugwasm.HostFunctionError) as caught:
        made.call("f")
    assert isinstance(caught.value.__cause__, plugwasm.BusyError)
    made.close()


# What is granted


def test_logs_and_output_are_records_of_the_applications_logging(caplog: pytest.LogCaptureFixture) -> None:
    source = guest(
        export("log", "(call $log_info <<from the log>>)")
        + export(
            "write",
            """(i32.store (i32.const 0) (i32.const 1024)) (i32.store (i32.const 4) (i32.const 12))
            (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
            (drop (call $fd_write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8)))""",
        ),
        WASI,
        memory='(memory (export "memory") 1)',
    )
    with caplog.at_level(logging.DEBUG, "plugwasm"), IsolatedPlugin(source, True, name="talks") as plugin:
        plugin.call("log")
        plugin.call("write")
    assert [(r.name, r.levelname, r.message) for r in caplog.records] == [
        ("plugwasm.plugin.talks", "INFO", "from the log"),
        ("plugwasm.plugin.talks", "INFO", "from the log"),
        ("plugwasm.plugin.talks", "WARNING", "from the log"),
    ]


def opens(name: str, flags: int, rights: int) -> str:
    """Opens a path of the first granted directory and answers with the error number."""
    data = "".join(f"(i32.store8 (i32.const {2048 + i}) (i32.const {byte}))" for i, byte in enumerate(name.encode()))
    call = f"(call $path_open (i32.const 3) (i32.const 1) (i32.const 2048) (i32.const {len(name)}) (i32.const {flags}) (i64.const {rights})"
    return f"{data} (call $answer (i64.extend_i32_u {call} (i64.const 0) (i32.const 0) (i32.const 0))))"


FILES = guest(
    export("read", opens("there", 0, 2)) + export("create", opens("new", 1, 64)) + export("out", opens("../secret", 0, 2)),
    WASI,
    memory='(memory (export "memory") 1)',
)


@BOTH
@pytest.mark.parametrize("read_only", [False, True])
def test_files_are_those_that_were_granted(kind: Any, read_only: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "there").write_text("x")
    (tmp_path / "secret").write_text("x")
    monkeypatch.chdir(tmp_path)
    with kind(manifest(FILES, allowed_paths={"ro:data" if read_only else "data": "/d"}), True) as plugin:
        assert number(plugin.call("read")) == 0
        assert (number(plugin.call("create")) == 0) is not read_only
        assert number(plugin.call("out")) != 0
    assert (tmp_path / "data" / "new").exists() is not read_only


@BOTH
def test_clock_and_chance_are_the_applications(kind: Any) -> None:
    source = guest(
        export("time", "(drop (call $clock_time_get (i32.const 0) (i64.const 1) (i32.const 0))) (call $answer (i64.load (i32.const 0)))")
        + export("chance", "(drop (call $random_get (i32.const 0) (i32.const 8))) (call $answer (i64.load (i32.const 0)))")
        + export("exit", "(call $proc_exit (i32.const 4))"),
        WASI,
        memory='(memory (export "memory") 1)',
    )
    with kind(source, WasiOptions(clock=FrozenClock(123), random=SeededRandom(1))) as plugin:
        assert number(plugin.call("time")) == 123
        first = plugin.call("chance")
        assert plugin.call("chance") != first
        with pytest.raises(plugwasm.ExitError) as caught:
            plugin.call("exit")
        assert caught.value.code == 4
        assert plugin.call("chance") == first


@BOTH
def test_requests_go_through_the_applications_policy(kind: Any) -> None:
    with Server(reply(b"answered")) as server:
        source = guest(export("get", f'(call $give (call $http_request <<{{"url":"{server.url}/"}}>> (i64.const 0)))'))
        with kind(manifest(source, allowed_hosts=["127.0.0.1"])) as plugin:
            assert plugin.call("get") == b"answered"
        with kind(manifest(source)) as plugin, pytest.raises(plugwasm.EgressDeniedError, match="no host is granted"):
            plugin.call("get")
    assert len(server.requests) == 1


# Time


ENDLESS = guest(
    export("loop", LOOP)
    + export("fine", "(call $echo)")
    + export("keeps", "(call $var_set <<v>> <<1>>)")
    + export("kept", "(call $give (call $var_get <<v>>))")
)


@BOTH
def test_a_deadline_ends_a_call_and_the_plugin_goes_on(kind: Any) -> None:
    with kind(manifest(ENDLESS, timeout_ms=100), name="p") as plugin:
        plugin.call("keeps")
        with pytest.raises(plugwasm.TimeoutError, match="`loop` of plugin `p` did not end before its deadline of 100 ms"):
            plugin.call("loop")
        assert plugin.call("kept") == b"1"
        assert plugin.call("fine", b"on") == b"on"


@BOTH
def test_fuel_is_reported_and_ends_a_call(kind: Any) -> None:
    with kind(ENDLESS, fuel_limit=100_000) as plugin:
        with pytest.raises(plugwasm.OutOfFuelError):
            plugin.call("loop")
        assert plugin.fuel_used == 100_000
        plugin.call("fine")
        assert 0 < plugin.fuel_used < 100_000


def test_a_call_is_cancelled_from_another_thread_without_losing_the_worker() -> None:
    with IsolatedPlugin(ENDLESS, process=ProcessLimits(grace=20)) as plugin:
        handle = plugin.cancel_handle()
        assert not handle.cancel()
        plugin.call("fine")
        pid = plugin._worker.pid
        for _ in range(5):
            call = InThread(plugin.call, "loop")
            assert soon(handle.cancel, 10)
            with pytest.raises(plugwasm.CancelledError):
                call.result()
        assert plugin.call("fine", b"on") == b"on"
        assert plugin._worker.pid == pid


def test_closing_ends_a_call_and_the_worker() -> None:
    plugin = IsolatedPlugin(ENDLESS)
    pid = plugin._worker.pid
    call = InThread(plugin.call, "loop")
    assert soon(lambda: plugin._running, 10)
    plugin.close()
    with pytest.raises((plugwasm.CancelledError, plugwasm.ClosedError)):
        call.result()
    assert soon(lambda: is_zombie_or_gone(pid))
    plugin.close()


@pytest.mark.skipif(sys.platform != "linux", reason="the system does not tell the processor time of other processes")
def test_a_call_that_takes_too_much_processor_time_ends_with_its_worker() -> None:
    with IsolatedPlugin(ENDLESS, limits=Limits(timeout=None), process=ProcessLimits(cpu_seconds=0.2)) as plugin:
        with pytest.raises(plugwasm.TimeoutError, match=r"more than 0\.2 s of processor time"):
            plugin.call("loop")
        assert plugin.call("fine", b"on") == b"on"


INTERRUPTED = """
import os, signal, sys, threading, time
sys.path[:0] = sys.argv[1].split(os.pathsep)
from plugwasm.isolated import IsolatedPlugin
plugin = IsolatedPlugin(sys.argv[2])
pid = plugin._worker.pid
threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    plugin.call("loop")
except KeyboardInterrupt:
    print("interrupted", plugin.call("fine", b"on"), plugin._worker.pid != pid, flush=True)
"""


def test_an_interrupt_ends_a_call_at_once_and_the_plugin_goes_on() -> None:
    paths = os.pathsep.join(sys.path)
    run = subprocess.run([sys.executable, "-c", INTERRUPTED, paths, ENDLESS], capture_output=True, text=True, timeout=60, check=False)
    assert run.stdout == "interrupted b'on' True\n", run.stderr


# The end of a worker


@pytest.mark.parametrize("end", ["SIGKILL", "SIGSEGV", "SIGABRT"])
def test_a_worker_that_dies_in_a_call_is_an_error_that_says_how_and_is_replaced(end: str) -> None:
    with IsolatedPlugin(ENDLESS, name="p") as plugin:
        plugin.call("keeps")
        pid = plugin._worker.pid
        call = InThread(plugin.call, "loop")
        assert soon(lambda: plugin._running, 10)
        os.kill(pid, getattr(signal, end))
        with pytest.raises(WorkerError, match=f"`loop` of plugin `p`: its process ended by {end}"):
            call.result()
        assert plugin.call("kept") == b"1"
        assert plugin.call("fine", b"on") == b"on"
        assert is_zombie_or_gone(pid)
        assert not Path(f"/proc/{pid}").exists()


def test_a_worker_that_died_between_two_calls_is_an_error_once() -> None:
    with IsolatedPlugin(ENDLESS) as plugin:
        os.kill(plugin._worker.pid, signal.SIGKILL)
        with pytest.raises(WorkerError, match="SIGKILL"):
            plugin.call("fine")
        assert plugin.call("fine", b"on") == b"on"


@pytest.mark.skipif(sys.platform != "linux", reason="only there is memory limited")
def test_memory_is_limited_and_what_ends_is_not_the_application() -> None:
    grow = export("grow", "(call $answer (i64.extend_i32_s (memory.grow (i32.const 8000))))") + export("fine", "(call $echo)")
    limits = Limits(memory_bytes=None)
    with IsolatedPlugin(
        guest(grow, memory='(memory (export "memory") 1)'), limits=limits, process=ProcessLimits(memory_bytes=2**28)
    ) as plugin:
        assert number(plugin.call("grow")) == -1
        assert plugin.call("fine", b"on") == b"on"
        with pytest.raises((plugwasm.OutOfMemoryError, WorkerError)):
            plugin.call("fine", b"x" * 200_000_000)
        assert plugin.call("fine", b"on") == b"on"
    with IsolatedPlugin(guest(grow, memory='(memory (export "memory") 1)'), limits=limits) as plugin:
        assert number(plugin.call("grow")) == 1


def test_nothing_is_left_of_plugins_that_are_closed_or_dropped() -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd" if sys.platform == "linux" else "/dev/fd"))

    IsolatedPlugin(ENDLESS).close()
    gc.collect()
    before = descriptors()
    pids = []
    for ends in (True, False, True):
        plugin = IsolatedPlugin(ENDLESS)
        plugin.call("fine")
        pids.append(plugin._worker.pid)
        if ends:
            plugin.close()
        del plugin
    assert soon(lambda: descriptors() <= before)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


ORPHAN = """
import os, sys, threading, time
sys.path[:0] = sys.argv[1].split(os.pathsep)
from plugwasm.isolated import IsolatedPlugin
plugin = IsolatedPlugin(sys.argv[2])
print(plugin._worker.pid, flush=True)
plugin.call("loop")
"""


def test_a_worker_ends_with_its_application_even_in_the_middle_of_a_call() -> None:
    command = [sys.executable, "-c", ORPHAN, os.pathsep.join(sys.path), ENDLESS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as application:
        assert application.stdout is not None
        pid = int(application.stdout.readline())
        time.sleep(0.2)
        application.kill()
    assert soon(lambda: is_zombie_or_gone(pid), 20)


def test_a_forked_child_has_a_worker_of_its_own_and_leaves_that_of_its_parent_alone() -> None:
    with IsolatedPlugin(ENDLESS) as plugin:
        plugin.call("keeps")
        pid = plugin._worker.pid
        child = os.fork()
        if not child:
            status = 1
            try:
                if plugin.call("kept") == b"1" and plugin.call("fine", b"on") == b"on" and plugin._worker.pid != pid:
                    plugin.close()
                    status = 0
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert plugin.call("kept") == b"1"
        assert plugin._worker.pid == pid


# Workers that mean harm


HOSTILE = """
import os, signal, socket, sys, time
sys.path += sys.argv[3:]
from plugwasm._worker import messages as m
s = socket.socket(fileno=int(sys.argv[1]))
def raw(data): s.sendall(len(data).to_bytes(4, "big") + data)
def say(*messages):
    for message in messages: raw(m.encoder.encode(message))
def hear(): return s.recv(int.from_bytes(s.recv(4, socket.MSG_WAITALL), "big"), socket.MSG_WAITALL)
def start():
    hear(); hear()
    say(m.Confined(["nothing"]), m.Loaded([m.ItemType("", "f", "function", [], [])], [], 2))
def forever():
    while True: time.sleep(1)
"""


@contextmanager
def hostile(monkeypatch: pytest.MonkeyPatch, program: str) -> Iterator[None]:
    """Workers that are started within run another program."""
    with monkeypatch.context() as patch:
        patch.setattr(process, "_PROGRAM", f"{HOSTILE}\n{program}\n")
        yield


SIMPLE = guest(export("f", "(call $echo)"))


@pytest.mark.parametrize(
    ("program", "says"),
    [
        ("os._exit(3)", "its process ended with the exit code 3"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "its process ended by SIGSEGV"),
        (
            "sys.stderr.write('last \\x1b[31m words' * 1000); sys.stderr.flush(); os._exit(1)",
            r"exit code 1; its last words:\n.*last \\x1b\[31m words$",
        ),
        ("s.close(); os.close(int(sys.argv[2])); forever()", "closed its connection, and was killed"),
        ("forever()", "did not start within 0.7 s"),
        ("raw(b'garbage'); forever()", "said what no worker says, and was killed"),
        ("s.sendall(b'\\xff\\xff\\xff\\xff'); forever()", "a message of 4294967295 bytes"),
        ("s.sendall(b'\\x00\\x00'); forever()", "did not start within 0.7 s"),
        ("s.sendall((10**6).to_bytes(4, 'big') + b'x'); forever()", "did not start within 0.7 s"),
        ("say(m.Confined([]), m.Done(0, memoryview(b''), None, True)); forever()", "`Done` at its start"),
        ("say(m.Loaded([], [], 0), m.Confined([])); forever()", "at its start"),
        ("say(m.Confined([]), m.Failed(0, 'KeyboardInterrupt', {}, None, True)); forever()", "an error of the class 'KeyboardInterrupt'"),
        ("say(m.Confined([]), m.Failed(0, '__class__', {}, None, True)); forever()", "an error of the class"),
    ],
)
def test_whatever_happens_at_the_start_is_an_error(program: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with hostile(monkeypatch, program), pytest.raises(WorkerError, match=f"(?s){says}"):
        IsolatedPlugin(SIMPLE, process=ProcessLimits(start_seconds=0.7 if "forever" in program else 30))


def test_a_worker_that_compiles_for_too_long_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    with hostile(monkeypatch, "say(m.Confined([])); forever()"), pytest.raises(plugwasm.ModuleError, match=r"`Limits\.compile_seconds`"):
        IsolatedPlugin(SIMPLE, limits=Limits(compile_seconds=0.3))


DONE = "m.Done(1, memoryview(b'yes'), None, True)"
GREET = next(i for i, name in enumerate(["config_get", "var_get"]) if name == "var_get")


@pytest.mark.parametrize(
    ("program", "says"),
    [
        ("os._exit(0)", "ended with the exit code 0"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "ended by SIGKILL"),
        ("raw(b'')", "said what no worker says"),
        ("raw(b'\\xc1' * 70000)", "said what no worker says"),
        ("raw(b'\\x91' * 70000)", "said what no worker says"),
        ("raw(b'\\xdd\\xff\\xff\\xff\\xff')", "said what no worker says"),
        ("raw(m.encoder.encode([4, 1, 'text', None, True]))", "said what no worker says"),
        ("raw(m.encoder.encode([5, 0, [2**64 - 1], [None]]))", "said what no worker says"),
        ("say(m.Confined([]))", "`Confined` in the middle of a call"),
        ("say(m.Answer(0, None))", "`Answer` in the middle of a call"),
        ("say(m.NoRoom(5))", "`NoRoom` in the middle of a call"),
        ("say(m.Done(2, memoryview(b''), None, True))", "the end of another call"),
        ("say(m.Failed(1, None, {}, None, True))", "an error of the class None"),
        ("say(m.Failed(1, 'Exception', {}, None, True))", "an error of the class 'Exception'"),
        ("say(m.Failed(1, 'HostFunctionError', {'message': 'x'}, None, True))", "an error of the class 'HostFunctionError'"),
        ("say(m.HostCall(1000, [], []))", "host function 1000"),
        ("say(m.HostCall(-1, [0], [None]))", "host function -1"),
        ("say(m.HostCall(0, [], []))", "too many or too few parameters"),
        ("say(m.HostCall(0, [1], []))", "too many or too few parameters"),
        ("say(m.HostCall(0, [32], [70000]), m.Confined([]))", "`Confined` as an answer"),
        ("say(m.HostCall(0, [32], [70000])); hear(); os._exit(5)", "exit code 5"),
        ("say(m.HostCall(0, [32], [b'key'])); hear(); os._exit(6)", "exit code 6"),
        ("s.sendall(b'\\x7f\\xff\\xff\\xff'); s.sendall(bytes(1000))", "a message of 2147483647 bytes"),
    ],
)
def test_whatever_is_said_in_a_call_is_an_error(program: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with hostile(monkeypatch, f"start(); hear(); {program}; forever()"):
        plugin = IsolatedPlugin(SIMPLE, name="p", limits=Limits(memory_bytes=2**24))
        assert plugin.confinement == ("nothing",)
        with pytest.raises(WorkerError, match=f"(?s)`f` of plugin `p`: its process .*{says}"):
            plugin.call("f")
    if says in ("ended by SIGKILL", "host function 1000", "exit code 6"):
        assert plugin.call("f", b"on") == b"on"  # of the next worker
    plugin.close()


@pytest.mark.parametrize(
    "program",
    [
        "pass",
        "s.sendall((10**6).to_bytes(4, 'big') + b'x')",
        "[(s.sendall(b), time.sleep(0.01)) for b in [b'\\x00', b'\\x0f'] + [b'\\x42'] * 10**6]",
        "[say(m.Line(False, b'flood', 0)) for _ in range(10**9)]",
    ],
)
def test_a_worker_that_never_comes_to_an_end_is_killed_after_the_deadline(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with hostile(monkeypatch, f"start(); hear(); {program}; forever()"):
        plugin = IsolatedPlugin(manifest(SIMPLE, timeout_ms=200), name="p", process=ProcessLimits(grace=0.2))
        with pytest.raises(plugwasm.TimeoutError, match="did not end before its deadline of 200 ms"):
            plugin.call("f")
    assert soon(lambda: outcome(lambda: plugin.call("f", b"on")) == b"on", 20)
    plugin.close()


def test_a_worker_that_does_not_read_is_killed_after_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    with hostile(monkeypatch, "start(); forever()"):
        plugin = IsolatedPlugin(manifest(SIMPLE, timeout_ms=200), process=ProcessLimits(grace=0.2))
        with pytest.raises(plugwasm.TimeoutError):
            plugin.call("f", b"x" * 10_000_000)


def test_a_worker_that_does_not_care_for_being_cancelled_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    with hostile(monkeypatch, "start(); hear(); forever()"):
        plugin = IsolatedPlugin(SIMPLE, process=ProcessLimits(grace=0.1))
        call = InThread(plugin.call, "f")
        assert soon(plugin.cancel_handle().cancel, 10)
        with pytest.raises(plugwasm.CancelledError):
            call.result()


def test_a_second_answer_is_not_taken_for_that_of_the_next_call(monkeypatch: pytest.MonkeyPatch) -> None:
    with hostile(monkeypatch, f"start(); hear(); say({DONE}, {DONE}); forever()"):
        plugin = IsolatedPlugin(SIMPLE)
        assert plugin.call("f") == b"yes"
        with pytest.raises(WorkerError, match="the end of another call"):
            plugin.call("f")


def test_an_error_has_no_fields_but_its_own_of_their_own_types(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = "{'message': 5, 'code': 'x', 'plugin': ['a'], 'backtrace': 'abc', '__class__': 'int', 'args': 'x', 'trap': 'unreachable'}"
    with hostile(monkeypatch, f"start(); hear(); say(m.Failed(1, 'TrapError', {fields}, None, True)); forever()"):
        plugin = IsolatedPlugin(SIMPLE)
        with pytest.raises(plugwasm.TrapError) as caught:
            plugin.call("f")
    error = caught.value
    assert (error.message, error.code, error.plugin, error.backtrace, error.trap) == ("", None, None, (), "unreachable")
    assert set(vars(error)) == set(vars(plugwasm.TrapError()))


def test_a_host_functions_exception_counts_whatever_the_worker_makes_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with hostile(monkeypatch, f"start(); hear(); say(m.HostCall({GREET + 1}, [32, 0], [b'k', None])); hear(); say({DONE}); forever()"):
        plugin = IsolatedPlugin(manifest(SIMPLE, memory={"max_var_bytes": 0}))
        with pytest.raises(plugwasm.GuestError, match="vars are disabled"):
            plugin.call("f")


# Starting


@pytest.mark.parametrize("python", ["/nowhere/python", "/dev/null", "relative", "a\0b"])
def test_an_interpreter_that_cannot_be_started_is_an_error(python: str) -> None:
    with pytest.raises(WorkerError, match="cannot start a worker"):
        IsolatedPlugin(SIMPLE, process=ProcessLimits(python=python))


def test_that_there_are_no_more_descriptors_is_an_error_and_takes_none() -> None:
    with IsolatedPlugin(SIMPLE) as plugin:
        plugin.call("f")
        taken: list[int] = []
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/dev/fd"))) + 4, limits[1]))
        try:
            while outcome(lambda: taken.append(os.dup(0))) is None:
                pass
            os.close(taken.pop())
            for _ in range(3):
                with pytest.raises(WorkerError, match="Too many open files"):
                    IsolatedPlugin(SIMPLE)
            assert plugin.call("f", b"on") == b"on"
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            for descriptor in taken:
                os.close(descriptor)


def test_a_program_that_is_no_interpreter_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WorkerError, match="ended with the exit code"):
        IsolatedPlugin(SIMPLE, process=ProcessLimits(python="/bin/false"))
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    with pytest.raises(WorkerError, match=r"ProcessLimits\.python"):
        IsolatedPlugin(SIMPLE)


@pytest.mark.parametrize(
    "given",
    [
        {"memory_bytes": 1},
        {"memory_bytes": "1"},
        {"cpu_seconds": -1},
        {"grace": None},
        {"start_seconds": True},
        {"user": 5},
        {"user": (0, 0)},
    ],
)
def test_limits_out_of_range_are_errors(given: dict[str, Any]) -> None:
    with pytest.raises(plugwasm.OptionError, match=rf"ProcessLimits\.{next(iter(given))}"):
        ProcessLimits(**given)


def test_limits_are_values() -> None:
    limits = ProcessLimits(grace=2)
    assert limits == ProcessLimits(grace=2.0) != ProcessLimits()
    assert hash(limits) == hash(ProcessLimits(grace=2))
    assert "grace=2" in repr(limits)
    with pytest.raises(AttributeError):
        limits.grace = 3  # type: ignore[misc]


# Confinement


def test_a_worker_gets_nothing_of_the_application_but_its_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    kept = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(kept, True)
    report = """
hear(); hear()
descriptors = [fd for fd in os.listdir("/dev/fd") if "libffi" not in os.path.realpath(f"/dev/fd/{fd}")]  # newer ones keep their own file open
found = [str(len(descriptors)), os.environ.get("SECRET", "none"), os.getcwd(), str(os.getsid(0) == os.getpid()), oct(os.umask(0))]
say(m.Confined(found), m.Loaded([], [], 0)); forever()"""
    try:
        with hostile(monkeypatch, report), IsolatedPlugin(SIMPLE) as plugin:
            # Three standard streams, two sockets, and the one with which the descriptors were listed.
            assert plugin.confinement == ("6", "none", "/", "True", "0o77")
    finally:
        os.close(kept)


CONFINED = """
import errno, json, os, socket, subprocess, sys, threading, ctypes, mmap, signal, resource, time
sys.path[:0] = sys.argv[1].split(os.pathsep)
from plugwasm._worker.confine import confine
inside, outside, granted = sys.argv[2], sys.argv[3], json.loads(sys.argv[4])
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
left, right = socket.socketpair()
readable = os.open(__file__ if "__file__" in globals() else "/dev/null", os.O_RDONLY)
X86, parent = os.uname().machine == "x86_64", os.getppid()
measures = confine(2**30, 64, None, granted)

def tries(attempt):
    try:
        attempt()
    except OSError as error:
        return errno.errorcode[error.errno]
    except (ValueError, RuntimeError):
        return "EPERM"  # what `resource` and `threading` make of it
    return "ok"

def syscall(number, *arguments):
    def attempt():
        if libc.syscall(number, *[ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]) < 0:
            raise OSError(ctypes.get_errno(), "")
    return attempt

def thread():
    made = threading.Thread(target=lambda: None)
    made.start()
    made.join()

attempts = {
    "read": lambda: open(inside + "/file").close(),
    "write": lambda: open(inside + "/new", "w").close(),
    "read outside": lambda: open(outside).close(),
    "write outside": lambda: open(outside, "w").close(),
    "list outside": lambda: os.listdir("/etc"),
    "python's files": lambda: open(os.__file__).close(),
    "unlink outside": lambda: os.unlink(outside),
    "chmod": lambda: os.chmod(outside, 0),
    "socket": lambda: socket.socket(),
    "unix socket": lambda: socket.socket(socket.AF_UNIX),
    "socketpair": lambda: socket.socketpair(),
    "fork": lambda: os._exit(0) if os.fork() == 0 else None,
    "exec": lambda: os.execv("/bin/true", ["true"]),
    "spawn": lambda: subprocess.run(["/bin/true"]),
    "kill the parent": lambda: os.kill(parent, 0),
    "kill itself by kill": lambda: os.kill(os.getpid(), 0),
    "ptrace": syscall(101 if X86 else 117, 0, 0, 0, 0),
    "mount": syscall(165 if X86 else 40, b"a", b"/", b"tmpfs", 0, None),
    "unshare": syscall(272 if X86 else 97, 0x10000000),
    "setns": syscall(308 if X86 else 268, 0, 0),
    "bpf": syscall(321 if X86 else 280, 0, None, 0),
    "io_uring": syscall(425, 1, None),
    "userfaultfd": syscall(323 if X86 else 282, 0),
    "perf_event_open": syscall(298 if X86 else 241, None, 0, -1, -1, 0),
    "keyctl": syscall(250 if X86 else 219, 0, 0, 0, 0, 0),
    "process_vm_readv": syscall(310 if X86 else 270, parent, None, 0, None, 0, 0),
    "memfd_create": syscall(319 if X86 else 279, b"x", 0),
    "pidfd_open": syscall(434, parent, 0),
    "open_by_handle_at": syscall(304 if X86 else 265, 0, None, 0),
    "setuid": lambda: os.setuid(os.getuid()),
    "prctl": lambda: syscall(157 if X86 else 167, 4, 1, 0, 0, 0)(),
    "seccomp": syscall(317 if X86 else 277, 0, 0, None),
    "chroot": lambda: os.chroot("/"),
    "getpid of the other way to call": syscall(0x40000000 | 39),
    "ioctl": syscall(16 if X86 else 29, left.fileno(), 0x5412, b"x"),
    "raise limits": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)),
    "see limits": lambda: resource.getrlimit(resource.RLIMIT_NOFILE),
    "thread": thread,
    "memory": lambda: mmap.mmap(-1, 2**20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close(),
    "shared memory": lambda: mmap.mmap(-1, 2**20, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS).close(),
    "a shared file": lambda: mmap.mmap(readable, 1, mmap.MAP_SHARED, mmap.PROT_READ).close(),
    "a stack that grows": lambda: mmap.mmap(-1, 2**20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x100).close(),
    "huge pages": lambda: mmap.mmap(-1, 2**21, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40000).close(),
    "shmget": syscall(29 if X86 else 194, 0, 4096, 0o1600),
    "memfd_secret": syscall(447, 0),
    "clone3": syscall(435, b"\\0" * 88, 88),
    "vfork": syscall(58 if X86 else 220, 0x4111, 0, 0, 0, 0),
    "signals of descriptors": syscall(72 if X86 else 25, left.fileno(), 8, parent),
    "any signal of descriptors": syscall(72 if X86 else 25, left.fileno(), 10, 9),
    "pass descriptors": lambda: socket.send_fds(left, [b"x"], [readable]),
    "random": lambda: os.urandom(8),
    "sleep": lambda: time.sleep(0.001),
    "talk": lambda: (left.send(b"x"), right.recv(1)),
    "read what is open": lambda: os.read(readable, 1),
}
print(json.dumps([measures, {name: tries(attempt) for name, attempt in attempts.items()}]))
"""
FOREIGN = """
import ctypes, mmap, os, sys
sys.path[:0] = sys.argv[1].split(os.pathsep)
from plugwasm._worker.confine import confine
code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code.write(bytes.fromhex("b814000000cd80c3"))  # mov eax, 20; int 0x80; ret: getpid, as 32-bit programs call it
call = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
confine(None, 64, None, [])
call()
print("came back")
"""


@pytest.mark.skipif(not LINUX or os.uname().machine != "x86_64", reason="of x86-64 only")
def test_system_calls_of_another_architecture_end_the_process() -> None:
    run = subprocess.run(
        [sys.executable, "-c", FOREIGN, os.pathsep.join(sys.path)], capture_output=True, text=True, timeout=60, check=False
    )
    # SIGSEGV where the system has no such calls at all.
    assert (run.returncode, run.stdout) in [(-signal.SIGSYS, ""), (-signal.SIGSEGV, "")], run.stderr


STILL = {"see limits", "memory", "random", "sleep", "talk", "read what is open"}


def attempts(tmp_path: Path, granted: list[tuple[str, bool]]) -> tuple[list[str], dict[str, str]]:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    (inside / "file").write_text("x")
    outside.write_text("x")
    command = [sys.executable, "-c", CONFINED, os.pathsep.join(sys.path), str(inside), str(outside), json.dumps(granted)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr
    measures, found = json.loads(run.stdout)
    assert outside.read_text() == "x"
    return measures, found


@pytest.mark.skipif(not LINUX, reason="system calls are filtered there only")
def test_a_confined_process_can_do_what_it_needs_and_nothing_else(tmp_path: Path) -> None:
    measures, found = attempts(tmp_path, [])
    assert {"no_new_privs", "seccomp", "RLIMIT_FSIZE 0", "RLIMIT_CORE 0"} <= set(measures)
    assert {name for name, result in found.items() if result == "ok"} == STILL
    assert found.pop("memfd_create") == "ENOSYS"  # which the engine takes as that there is none, and does without
    assert {result for name, result in found.items() if name not in STILL} == {"EPERM"}


@pytest.mark.skipif(not LINUX, reason="system calls are filtered there only")
@pytest.mark.parametrize("read_only", [True, False])
def test_with_directories_granted_it_can_reach_those(read_only: bool, tmp_path: Path) -> None:
    measures, found = attempts(tmp_path, [(str(tmp_path / "inside"), read_only)])
    reached = {name for name, result in found.items() if result == "ok"} - STILL
    if any(measure.startswith("Landlock") for measure in measures):
        assert reached == ({"read"} if read_only else {"read", "write"})
    else:
        assert "socket" not in reached


def test_a_real_worker_is_confined_and_says_so() -> None:
    with IsolatedPlugin(SIMPLE) as plugin:
        assert {"own session", "empty environment", "RLIMIT_CORE 0"} <= set(plugin.confinement)
        if LINUX:
            assert {"no_new_privs", "no capabilities", "seccomp", "no more threads", "no shared memory"} <= set(plugin.confinement)
            status = Path(f"/proc/{plugin._worker.pid}/status").read_text()
            assert "CapEff:\t0000000000000000" in status
            assert "CapPrm:\t0000000000000000" in status
            assert "Seccomp:\t2" in status
            assert "NoNewPrivs:\t1" in status


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become somebody else")
def test_a_privileged_application_can_name_the_user(tmp_path: Path) -> None:
    with IsolatedPlugin(SIMPLE, process=ProcessLimits(user=(65534, 65534))) as plugin:
        assert plugin.call("f", b"on") == b"on"
        assert "user 65534, group 65534" in plugin.confinement
        if sys.platform == "linux":
            status = Path(f"/proc/{plugin._worker.pid}/status").read_text()
            assert "Uid:\t65534\t65534\t65534\t65534" in status


def test_many_threads_have_a_plugin_each() -> None:
    def work(i: int) -> None:
        with IsolatedPlugin(SIMPLE) as plugin:
            for _ in range(20):
                data = os.urandom(100)
                assert plugin.call("f", data) == data

    before = threading.active_count()
    calls = [InThread(work, i) for i in range(4)]
    for call in calls:
        call.result()
    assert soon(lambda: threading.active_count() <= before)
