"""Plugins in their own processes: they behave like other plugins, whatever happens to the
process."""

from __future__ import annotations

import inspect
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import pytest

import plugwasm
from plugwasm import (
    CurrentPlugin,
    FrozenClock,
    Function,
    IsolatedPlugin,
    Json,
    Limits,
    Plugin,
    ProcessLimits,
    SeededRandom,
    ValType,
    WasiOptions,
    host_fn,
)
from plugwasm._isolation import process
from tests.support.guests import LOOP, export, guest, manifest, number
from tests.support.http_server import Server, reply
from tests.support.isolated_plugins import ENDLESS, is_zombie_or_gone
from tests.support.outcomes import outcome
from tests.support.paths import EXAMPLES
from tests.support.threads import InThread
from tests.support.waiting import soon

BOTH = pytest.mark.parametrize("kind", [Plugin, IsolatedPlugin])
WASI = """
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (import "wasi_snapshot_preview1" "clock_time_get" (func $clock_time_get (param i32 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "random_get" (func $random_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_open" (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
"""


# The same as a Plugin


def test_public_members() -> None:
    """The public members are those of a plugin and one about its confinement."""

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
    + export(
        "fills",
        "(local $b i64) (local.set $b (call $alloc (i64.const 100000000))) (call $answer (local.get $b))",
    )
    + export("asks", '(drop (call $http_request <<{"url":"http://example.com"}>> (i64.const 0)))')
    + export("large_var", "(call $var_set <<big>> (call $alloc (i64.const 2000000)))")
)


def test_call_outcomes() -> None:
    """Calls have the same results and errors as in the application."""
    made = [
        kind(ERRORS, config={"key": "value"}, name="errors") for kind in (Plugin, IsolatedPlugin)
    ]
    functions = "fine trap fine deep says code wants output takes sets gets trap gets config fills asks large_var fine nothing fin".split()
    for function in functions:
        plain, isolated = (
            outcome(lambda plugin=plugin, name=function: plugin.call(name, b"input"))
            for plugin in made
        )
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
def test_input_too_large_is_same_error(size: int) -> None:
    """An input that does not fit is the same error."""
    made = [
        kind(guest(export("echo", "(call $echo)")), name="p", limits=Limits(memory_bytes=2**19))
        for kind in (Plugin, IsolatedPlugin)
    ]
    plain, isolated = (
        outcome(lambda plugin=plugin: plugin.call("echo", bytes(size))) for plugin in made
    )
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
def test_invalid_plugin_is_same_error(source: str | bytes) -> None:
    """A source that cannot be a plugin is the same error."""
    limits = Limits(memory_bytes=2**28)
    plain = outcome(lambda: Plugin(source, name="p", limits=limits))
    assert isinstance(plain, tuple)
    assert outcome(lambda: IsolatedPlugin(source, name="p", limits=limits)) == plain


def test_compiled_plugin_is_accepted() -> None:
    """A compiled plugin's modules and settings are used."""
    compiled = plugwasm.CompiledPlugin(
        guest(export("echo", "(call $echo)")), functions=[], name="given", fuel_limit=10_000
    )
    with IsolatedPlugin(compiled) as plugin, IsolatedPlugin(plugin.compiled_plugin) as again:
        assert (plugin.name, again.name) == ("given", "given")
        assert plugin.call("echo", b"x") == again.call("echo", b"x") == b"x"
        assert 0 < (plugin.fuel_used or 0) < 10_000
        with pytest.raises(plugwasm.OptionError, match="the process of an IsolatedPlugin"):
            Plugin(plugin.compiled_plugin).call("echo")


def test_isolated_plugin_is_a_plugin() -> None:
    """An isolated plugin is an instance of Plugin without its implementation.

    Users may test with `isinstance` and annotate with `Plugin`, and no code that runs calls is
    inherited.
    """
    assert issubclass(IsolatedPlugin, Plugin)
    assert Plugin not in IsolatedPlugin.__mro__
    assert {name for name in dir(Plugin) if not name.startswith("_")} <= set(dir(IsolatedPlugin))
    with IsolatedPlugin(guest(export("echo", "(call $echo)"))) as plugin:
        assert isinstance(plugin, Plugin)


def test_nothing_compiled_in_application(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the guest is compiled in the application."""

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("compiled here")

    for module in (plugwasm._runtime.modules, plugwasm._runtime.linker):
        monkeypatch.setattr(module, "compile_module", never)
    monkeypatch.setattr(plugwasm._engine.Engine, "compile", never)
    monkeypatch.setattr(plugwasm._engine.Engine, "load", never)
    with pytest.raises(AssertionError, match="compiled here"):
        Plugin(guest(export("echo", "(call $echo)")))
    with IsolatedPlugin(guest(export("echo", "(call $echo)"))) as plugin:
        assert plugin.call("echo", b"x") == b"x"


SEALED = """
import os, sys
sys.path += sys.argv[3:]
from plugwasm._isolation import worker_main as child

class Sealed:
    def find_spec(name, path=None, target=None):
        os.write(2, f"imported {name}".encode())
        os._exit(9)

def confine(*args, confine=child.confine, **options):
    measures = confine(*args, **options)
    sys.meta_path.insert(0, Sealed)
    return measures

child.confine = confine
child.main(int(sys.argv[1]), int(sys.argv[2]))
"""


def test_sealed_worker_imports_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A sealed worker imports nothing new.

    It cannot read files any more, so `PRELOADED` imports what calls need.
    """
    (tmp_path / "a.txt").write_text("content")
    monkeypatch.setattr(process, "_PROGRAM", SEALED)
    with IsolatedPlugin(ERRORS, config={"key": "value"}, fuel_limit=10**9) as plugin:
        for function in (
            "fine trap deep says code output takes sets gets config asks large_var nothing".split()
        ):
            outcome(lambda name=function: plugin.call(name, b"input \xff"))  # type: ignore[misc]
        assert plugin.call("fine", b"on") == b"on"
    with IsolatedPlugin(guest(CALLS[1], CALLS[0]), functions=host_functions([])) as plugin:
        for function in ("greet", "add", "document", "pair", "everything", "upper", "wrong"):
            outcome(lambda name=function: plugin.call(name, b"input", host_context="context"))  # type: ignore[misc]
        assert plugin.call("upper", b"on") == b"ON"
    wasi_files = {
        "wasm": [{"path": str(EXAMPLES / "wasi_files.wasm")}],
        "allowed_paths": {str(tmp_path): "/data"},
    }
    with IsolatedPlugin(
        wasi_files, wasi=WasiOptions(clock=FrozenClock(5), random=SeededRandom(1))
    ) as plugin:
        outcome(lambda: plugin.call("cat", b"/data/none.txt"))
        outcome(lambda: plugin.call("list", b"/data"))
        outcome(lambda: plugin.call("write", b"/data/b.txt\nwritten"))
        outcome(lambda: plugin.call("say", b"\xff out\n"))
        assert plugin.call("cat", b"/data/a.txt") == b"content"
    with (
        IsolatedPlugin(guest(export("spin", LOOP)), limits=Limits(timeout=0.2)) as plugin,
        pytest.raises(plugwasm.TimeoutError),
    ):
        plugin.call("spin")
    for source in (
        "(module (nonsense))",
        b"\0asm\1\0\0\0 broken",
        '(module (import "a\\n" "b" (func)))',
    ):
        with pytest.raises(plugwasm.Error, match=r"module `main`|nobody provides"):
            IsolatedPlugin(source)


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

    functions = [
        greet,
        add,
        document,
        pair,
        everything,
        Function(None, "upper", [ValType.I64], [ValType.I64], upper),
    ]
    del plugwasm._host.registry.registered[-5:]
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
    + export(
        "upper",
        "(local $b i64) (local.set $b (call $copy)) (drop (call $upper (local.get $b))) (call $give (local.get $b))",
    )
    + export("wrong", "(call $give (call $greet (i64.const 12345)))"),
)


def test_host_functions_run_in_application() -> None:
    """Host functions run in the application with the usual arguments."""
    outcomes = []
    for kind in (Plugin, IsolatedPlugin):
        seen: list[Any] = [os.getpid()]
        with kind(
            guest(CALLS[1], CALLS[0]),
            config={"k": "v"},
            functions=host_functions(seen),
            limits=Limits(timeout=None),
        ) as plugin:
            found = [
                outcome(
                    lambda name=name, data=data, plugin=plugin: plugin.call(
                        name, data, host_context="context"
                    )
                )
                for name in (
                    "greet",
                    "add",
                    "document",
                    "pair",
                    "everything",
                    "upper",
                    "wrong",
                    "greet",
                )
                for data in (b"", b"input", b"x" * 100_000)
            ]
        outcomes.append((seen, found))
    assert outcomes[0] == outcomes[1]
    assert b"Hello, input!" in outcomes[1][1]
    assert b"INPUT" in outcomes[1][1]


@pytest.mark.parametrize("size", [65_536, 65_537])
def test_blocks_reach_host_function_whole(size: int) -> None:
    """A block reaches a host function whole, also at the size from which it is sent separately."""
    with IsolatedPlugin(guest(CALLS[1], CALLS[0]), functions=host_functions([])) as plugin:
        assert plugin.call("upper", b"a" * size) == b"A" * size


@BOTH
@pytest.mark.parametrize(
    "error",
    [
        ValueError("no"),
        SystemExit(3),
        plugwasm.GuestError("own"),
        KeyboardInterrupt(),
        RecursionError("deep"),
    ],
)
def test_host_exception_reaches_caller(kind: Any, error: BaseException) -> None:
    """A host function's exception reaches the caller as the same object."""

    @host_fn()
    def fail(text: str) -> str:
        raise error

    del plugwasm._host.registry.registered[-1:]
    source = guest(
        export("f", "(call $var_set <<v>> <<1>>) (drop (call $fail <<x>>))")
        + export("v", "(call $give (call $var_get <<v>>))"),
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
def test_host_result_too_large(kind: Any) -> None:
    """A result that does not fit is an error inside the host function's call."""

    @host_fn()
    def flood(text: str) -> str:
        return "x" * 10_000_000

    del plugwasm._host.registry.registered[-1:]
    imported = '(import "extism:host/user" "flood" (func $flood (param i64) (result i64)))'
    source = guest(
        export("f", "(call $give (call $flood <<x>>))") + export("g", "(call $echo)"), imported
    )
    with kind(source, functions=[flood], limits=Limits(memory_bytes=2**21)) as plugin:
        with pytest.raises(
            plugwasm.HostFunctionError, match="no room for 10000000 bytes"
        ) as caught:
            plugin.call("f")
        assert isinstance(caught.value.__cause__, plugwasm.OutOfMemoryError)
        assert plugin.call("g", b"on") == b"on"


@BOTH
def test_reentry_is_refused(kind: Any) -> None:
    """A plugin cannot be called again from its host function."""

    def again(plugin: CurrentPlugin, params: list[Any], results: list[Any]) -> None:
        made.call("f")

    source = guest(
        export("f", "(call $again)"), '(import "extism:host/user" "again" (func $again))'
    )
    made = kind(source, functions=[Function(None, "again", [], [], again)])
    with pytest.raises(plugwasm.HostFunctionError) as caught:
        made.call("f")
    assert isinstance(caught.value.__cause__, plugwasm.BusyError)
    made.close()


# What is granted


def test_logs_and_output(caplog: pytest.LogCaptureFixture) -> None:
    """Logs and output become records of the application's logging."""
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
    with (
        caplog.at_level(logging.DEBUG, "plugwasm"),
        IsolatedPlugin(source, True, name="talks") as plugin,
    ):
        plugin.call("log")
        plugin.call("write")
    assert [(r.name, r.levelname, r.message) for r in caplog.records] == [
        ("plugwasm.plugin.talks", "INFO", "from the log"),
        ("plugwasm.plugin.talks", "INFO", "from the log"),
        ("plugwasm.plugin.talks", "WARNING", "from the log"),
    ]


def opening_plugin(name: str, flags: int, rights: int) -> str:
    """Return a plugin that opens a path in the first granted directory and outputs the error
    number."""
    data = "".join(
        f"(i32.store8 (i32.const {2048 + i}) (i32.const {byte}))"
        for i, byte in enumerate(name.encode())
    )
    call = f"(call $path_open (i32.const 3) (i32.const 1) (i32.const 2048) (i32.const {len(name)}) (i32.const {flags}) (i64.const {rights})"
    return f"{data} (call $answer (i64.extend_i32_u {call} (i64.const 0) (i32.const 0) (i32.const 0))))"


FILES = guest(
    export("read", opening_plugin("there", 0, 2))
    + export("create", opening_plugin("new", 1, 64))
    + export("out", opening_plugin("../secret", 0, 2)),
    WASI,
    memory='(memory (export "memory") 1)',
)


@BOTH
@pytest.mark.parametrize("read_only", [False, True])
def test_granted_files(
    kind: Any, read_only: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exactly the granted files can be reached."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "there").write_text("x")
    (tmp_path / "secret").write_text("x")
    monkeypatch.chdir(tmp_path)
    with kind(
        manifest(FILES, allowed_paths={"ro:data" if read_only else "data": "/d"}), True
    ) as plugin:
        assert number(plugin.call("read")) == 0
        assert (number(plugin.call("create")) == 0) is not read_only
        assert number(plugin.call("out")) != 0
    assert (tmp_path / "data" / "new").exists() is not read_only


@BOTH
def test_clock_and_random_of_application(kind: Any) -> None:
    """The clock and random bytes are the application's."""
    source = guest(
        export(
            "time",
            "(drop (call $clock_time_get (i32.const 0) (i64.const 1) (i32.const 0))) (call $answer (i64.load (i32.const 0)))",
        )
        + export(
            "chance",
            "(drop (call $random_get (i32.const 0) (i32.const 8))) (call $answer (i64.load (i32.const 0)))",
        )
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
def test_requests_use_application_policy(kind: Any) -> None:
    """Requests go through the application's policy."""
    with Server(reply(b"answered")) as server:
        source = guest(
            export(
                "get",
                f'(call $give (call $http_request <<{{"url":"{server.url}/"}}>> (i64.const 0)))',
            )
        )
        with kind(manifest(source, allowed_hosts=["127.0.0.1"])) as plugin:
            assert plugin.call("get") == b"answered"
        with (
            kind(manifest(source)) as plugin,
            pytest.raises(plugwasm.EgressDeniedError, match="no host is granted"),
        ):
            plugin.call("get")
    assert len(server.requests) == 1


@BOTH
def test_deadline_ends_call(kind: Any) -> None:
    """A deadline ends a call, and the plugin stays usable."""
    with kind(manifest(ENDLESS, timeout_ms=100), name="p") as plugin:
        plugin.call("keeps")
        with pytest.raises(
            plugwasm.TimeoutError,
            match="`loop` of plugin `p` did not end before its deadline of 100 ms",
        ):
            plugin.call("loop")
        assert plugin.call("kept") == b"1"
        assert plugin.call("fine", b"on") == b"on"


@BOTH
def test_fuel_ends_call(kind: Any) -> None:
    """Fuel is reported and ends a call."""
    with kind(ENDLESS, fuel_limit=100_000) as plugin:
        with pytest.raises(plugwasm.OutOfFuelError):
            plugin.call("loop")
        assert plugin.fuel_used == 100_000
        plugin.call("fine")
        assert 0 < plugin.fuel_used < 100_000


def test_cancel_keeps_worker() -> None:
    """A call is cancelled from another thread without losing the worker."""
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


def test_close_ends_call_and_worker() -> None:
    """Closing the plugin ends a call and the worker."""
    plugin = IsolatedPlugin(ENDLESS)
    pid = plugin._worker.pid
    call = InThread(plugin.call, "loop")
    assert soon(lambda: plugin._running_call, 10)
    plugin.close()
    with pytest.raises((plugwasm.CancelledError, plugwasm.ClosedError)):
        call.result()
    assert soon(lambda: is_zombie_or_gone(pid))
    plugin.close()


@pytest.mark.skipif(
    sys.platform != "linux", reason="the system does not tell the processor time of other processes"
)
def test_processor_time_ends_worker() -> None:
    """A call that takes too much CPU time ends with its worker."""
    with IsolatedPlugin(
        ENDLESS, limits=Limits(timeout=None), process=ProcessLimits(cpu_seconds=0.2)
    ) as plugin:
        with pytest.raises(plugwasm.TimeoutError, match=r"more than 0\.2 s of processor time"):
            plugin.call("loop")
        assert plugin.call("fine", b"on") == b"on"


INTERRUPTED = """
import os, signal, sys, threading, time
sys.path[:0] = sys.argv[1].split(os.pathsep)
from plugwasm import IsolatedPlugin
plugin = IsolatedPlugin(sys.argv[2])
pid = plugin._worker.pid
threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    plugin.call("loop")
except KeyboardInterrupt:
    print("interrupted", plugin.call("fine", b"on"), plugin._worker.pid != pid, flush=True)
"""


def test_interrupt_ends_call() -> None:
    """An interrupt ends a call at once, and the plugin stays usable."""
    paths = os.pathsep.join(sys.path)
    run = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, paths, ENDLESS],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.stdout == "interrupted b'on' True\n", run.stderr
