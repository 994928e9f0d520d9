"""The program of a worker: it confines itself, then compiles, links and runs one plugin.

It is the part of plugwasm that touches untrusted modules. It runs a `Plugin` as an application
would, with host functions that ask the application. It ends when the connection does, and when it
fails in a way that `Plugin` does not report as an error.
"""

from __future__ import annotations

import encodings.unicode_escape
import mmap
import os
import resource
import signal
import socket
import sys
import threading
import time
from queue import SimpleQueue

import msgspec

from .. import errors
from .._engine import EngineFailure, FunctionType, HostFunction, compile_cost, wat_to_wasm
from .._host.deadline import NEVER, ticker
from .._host.kernel import read_source as kernel_source
from .._manifest import limits, messages
from .._manifest.resolve import ModuleSpec, PluginSpec
from .._runtime import code_cache
from .._runtime.compiled_plugin import CompiledPlugin
from .._runtime.modules import (
    compile_module,
    disable_inlining,
    engine_for_modules,
    get_engine,
    take_compiled,
)
from .._runtime.plugin import Plugin
from .._wasi import files, preview1
from .._wasi.options import Clock, WasiOptions
from . import protocol
from .confinement import confine
from .framing import SHORT, Channel, ChannelClosed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, NoReturn

    from .._host.guest import Guest

PRELOADED = (encodings.unicode_escape, mmap, resource, compile_cost, messages, files, preview1)
"""Modules that are imported only when needed. Later no files can be read."""
MASK = 0xFFFFFFFFFFFFFFFF
EXIT_FAILED, EXIT_OUT_OF_MEMORY = 70, 71
STACK = 8 * 2**20
"""Bytes of the stack that the worker itself needs, besides the guest."""
CANCEL = 8
"""Bytes of a message on the second socket: the number of the call to be cancelled."""


class KeptError(errors.Error):
    """Stands for an exception that the application has kept.

    It is an `Error`, so that what the engine knows of the call is added to it.
    """


class Application:
    """The application's end of the connection."""

    def __init__(self, sock: socket.socket) -> None:
        self._channel = Channel(sock, protocol.encoder, 2**32 - 1)
        self._decoder: msgspec.msgpack.Decoder[protocol.ToWorker] = msgspec.msgpack.Decoder(
            protocol.ToWorker
        )
        self.send = self._channel.send

    def receive(self) -> protocol.ToWorker:
        return self._decoder.decode(self._channel.receive())

    def ask(
        self,
        function: int,
        values: list[int],
        blocks: list[bytes | int | None],
        guest: Guest | None,
    ) -> protocol.Return:
        """Let the application run a host function, and serve its requests meanwhile.

        Raises:
            KeptError: It raised.
        """
        self.send(protocol.HostCall(function, values, blocks))
        failure: EngineFailure | None = None
        while True:
            message = self.receive()
            kind = type(message)
            if kind is protocol.Return:
                if failure is not None:
                    raise failure
                return message  # type: ignore[return-value]
            if kind is protocol.Raise:
                raise failure or KeptError()
            assert guest is not None
            try:
                answer: object = _operation(guest, message)
            except EngineFailure as caught:
                failure, answer = caught, protocol.NotNow()
            self.send(answer)


def _operation(guest: Guest, message: Any) -> protocol.Answer:
    """Perform an operation of a host function on the guest's memory."""
    kernel = guest.kernel
    for handle in message.freed:
        kernel.free(handle)
    kind = type(message)
    if kind is protocol.Peek:
        block = kernel.block(message.handle)
        return protocol.Answer(0, None if block is None else bytes(block))
    if kind is protocol.Put:
        return protocol.Answer(kernel.new_block(message.data), None)
    if kind is protocol.Alloc:
        return protocol.Answer(kernel.alloc(message.size), None)
    assert kind is protocol.SetError
    kernel.set_error(message.handle)
    return protocol.Answer(0, None)


class _Stub:
    """Stands for a host function of the application."""

    def __init__(
        self, application: Application, number: int, type: protocol.HostFunctionType
    ) -> None:
        self.name = type.name
        self._imported_as = type.namespace, type.name
        params = len(type.params)
        handles = [i for i, kind in enumerate(type.params) if kind == "i64"]
        ask, inline = application.ask, protocol.INLINE

        def body(guest: Guest, caller: int, values: Any) -> None:
            blocks: list[bytes | int | None] = []
            for i in handles:
                block = guest.kernel.block(values[2 * i] & MASK)
                blocks.append(
                    None if block is None else bytes(block) if len(block) <= inline else len(block)
                )
            answer = ask(number, [values[2 * i] for i in range(params)], blocks, guest)
            kernel = guest.kernel
            for handle, data in answer.written:
                found = kernel.block(handle)
                if found is not None and len(found) == len(data):
                    found[:] = data
            for i, value in enumerate(answer.values):
                values[2 * i] = value
            for i, data in answer.made:
                handle = values[2 * i] = kernel.new_block(data)
                if not handle:
                    application.send(protocol.NoRoom(len(data)))
                    application.receive()
                    raise KeptError
            for handle in answer.freed:  # last, for kits free handles again
                kernel.free(handle)
            if guest.deadline != NEVER or guest.cancelled:
                guest.remaining()

        wasm_type = FunctionType(tuple(type.params), tuple(type.results))
        self._host = HostFunction(wasm_type, body)  # type: ignore[arg-type]


class _Log:
    """The log of the guest's stdout and stderr.

    What it logs by functions of `extism:host/env` comes to the application as calls of those.
    """

    dropped = 0

    def __init__(self, application: Application) -> None:
        self._application = application

    def write_line(self, level: str, line: bytes, lost: int, function: str | None = None) -> None:
        self._application.send(protocol.Line(level == "warn", line, lost))


class _RemoteClock(Clock):
    def __init__(self, application: Application, first: int, resolution: int) -> None:
        self._ask, self._first, self.resolution = application.ask, first, resolution

    def realtime(self) -> int:
        return self._ask(self._first, [], [], None).values[0]

    def monotonic(self) -> int:
        return self._ask(self._first + 1, [], [], None).values[0]

    def sleep(self, seconds: float, wait: Callable[[float], None]) -> None:
        wait(0.0)
        self._ask(self._first + 2, [min(int(seconds * 1e9), 2**63 - 1)], [], None)
        wait(0.0)


class _CallTracker:
    """The call under way, for the thread that reads the second socket. Call numbers only grow."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._lock = threading.Lock()
        self._number = 0
        self._running = False
        self.plugin: Plugin | None = None

    def enter(self, number: int) -> None:
        """Begin a call."""
        with self._lock:
            self._number, self._running = number, True

    def leave(self) -> None:
        """End the call."""
        with self._lock:
            self._running = False

    def serve_control(self) -> NoReturn:
        """Cancel the calls that the application names; end the process when the application is
        gone.
        """
        while True:
            message = self._sock.recv(CANCEL)
            if len(message) < CANCEL:
                os._exit(0)
            number = int.from_bytes(message, "big")
            while not self._cancelled(number):
                time.sleep(0.002)  # the call has been announced, but is not running yet

    def _cancelled(self, number: int) -> bool:
        """Return whether there is nothing left to do to cancel the call."""
        with self._lock:
            if number > self._number:
                return False
            return (
                number < self._number
                or not self._running
                or (self.plugin is not None and self.plugin._cancel())
            )


def _load(application: Application, load: protocol.Load) -> CompiledPlugin:
    functions = [_Stub(application, number, type) for number, type in enumerate(load.functions)]
    granted: bool | WasiOptions = load.wasi
    if load.wasi:
        first = len(functions)
        clock = (
            Clock() if load.own_clock else _RemoteClock(application, first, load.clock_resolution)
        )
        source = (
            os.urandom
            if load.own_random
            else lambda size: b"".join(
                data for _, data in application.ask(first + 3, [size], [], None).made
            )
        )
        granted = WasiOptions(clock=clock, random=source)
    bounds = limits.replace_unchecked(
        limits.DEFAULT_LIMITS, load.limits | {"compile_seconds": None}
    )
    _take_compiled(load, bounds)
    compiled = CompiledPlugin(
        PluginSpec(  # type: ignore[arg-type]
            [ModuleSpec(*module) for module in load.modules],
            main=load.main,
            allowed_paths=load.allowed_paths,
            timeout_ms=load.timeout_ms,
        ),
        granted,
        functions,  # type: ignore[arg-type]
        name=load.name,
        fuel_limit=load.fuel_limit,
        limits=bounds,
    )
    compiled._claim_pool()  # and leave it: there is never more than one instance
    compiled._grants.log = _Log(application)  # type: ignore[assignment]
    return compiled


def _take_compiled(load: protocol.Load, bounds: limits.Limits) -> None:
    """Load the modules that the application has compiled already."""
    modules = {name: wasm for name, wasm, _ in load.modules}
    if load.compiled:
        engine = engine_for_modules(modules.values(), bounds, fuel=load.fuel_limit is not None)
        for name, (code, facts) in load.compiled.items():
            take_compiled(modules[name], engine, code, facts)


def _items(items: Sequence[Any]) -> list[protocol.ItemType]:
    return [
        protocol.ItemType(
            i.module,
            i.name,
            i.kind,
            *((None, None) if i.type is None else (list(i.type.params), list(i.type.results))),
        )
        for i in items
    ]


def _failed(number: int, error: errors.Error, plugin: Plugin | None) -> protocol.Failed:
    fields = {name: _short(value) for name, value in vars(error).items()}
    name = None if isinstance(error, KeptError) else type(error).__name__
    return protocol.Failed(
        number,
        name,
        fields,
        plugin.fuel_used if plugin else None,
        plugin is not None and plugin._guest is not None,
    )


def _short(value: Any) -> Any:
    """Return a field of an error as it is sent, cut to a bounded length."""
    return (
        [*value[: protocol.MAX_FRAMES]]
        if isinstance(value, tuple)
        else value[: protocol.MAX_TEXT]
        if isinstance(value, str)
        else value
    )


def _serve(application: Application, calls: _CallTracker, plugin: Plugin) -> NoReturn:
    while True:
        call = application.receive()
        assert type(call) is protocol.CallExport
        data: bytes | memoryview = b""
        if call.fresh:
            plugin.reset()
        calls.enter(call.number)
        try:
            # The start of an instance may exchange messages, in the buffer that holds a short one.
            data = call.data if len(call.data) > SHORT else bytes(call.data)
            output = plugin.call(call.function, data, parse=None)
            reply: protocol.Done | protocol.Failed = protocol.Done(
                call.number, output, plugin.fuel_used, plugin._guest is not None
            )
        except errors.Error as error:
            reply = _failed(call.number, error, plugin)
        finally:
            calls.leave()
        if call.measure and plugin._guest is not None:
            reply.memory_bytes = plugin._guest.visible_memory_bytes()
        application.send(reply)
        del call, data, reply


def _work(
    application: Application, calls: _CallTracker, confined: SimpleQueue[protocol.Confined]
) -> None:
    status = EXIT_FAILED
    try:
        application.send(confined.get())
        load = application.receive()
        assert type(load) is protocol.Load
        try:
            compiled = _load(application, load)
        except errors.Error as error:
            application.send(_failed(0, error, None))
            status = 0
        else:
            calls.plugin = Plugin(compiled)
            plan = compiled._plan
            exports, imports = (
                _items(list(plan.main.module.exports.values())),
                _items(plan.main.module.imports),
            )
            application.send(protocol.Loaded(exports, imports, plan.first_pages, plan.main_pages))
            _serve(application, calls, calls.plugin)
    except ChannelClosed:
        status = 0
    except MemoryError:
        status = EXIT_OUT_OF_MEMORY
    except BaseException:
        sys.excepthook(*sys.exc_info())
    os._exit(status)


def _start_threads(first: protocol.Confine, work: threading.Thread) -> None:
    """Start all threads that there will ever be: the plugin's, the ticker's, and the compiler's.

    The plugin's thread has a stack as large as it needs. The compiler starts its threads with the
    first module that is called heavy, if it can.
    """
    threading.stack_size(first.stack_bytes + STACK)
    work.start()
    threading.stack_size(0)
    ticker.keeps_thread = True
    ticker.wake()
    compiler = get_engine(fuel=first.fuel, pooled=False, stack_bytes=first.stack_bytes)
    compile_module(kernel_source(), compiler, "kernel")
    compiler.compile(wat_to_wasm(b"(module (func))"), heavy=True)


def main(channel: int, control: int) -> NoReturn:
    """Run the worker on two sockets, given as descriptors.

    The plugin runs in a thread of its own; this one watches the second socket.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for descriptor in (channel, control):
        os.set_blocking(
            descriptor, True
        )  # which they are not where the application's sockets are gevent's or eventlet's
    application = Application(socket.socket(fileno=channel))
    calls = _CallTracker(socket.socket(fileno=control))
    code_cache.configure(enabled=False)
    disable_inlining()  # for each worker the inliner would have to be compiled
    kernel_source()
    try:
        first = application.receive()
    except ChannelClosed:
        os._exit(0)
    assert type(first) is protocol.Confine
    confined: SimpleQueue[protocol.Confined] = SimpleQueue()
    work = threading.Thread(target=_work, args=(application, calls, confined), daemon=True)
    measures = confine(
        first.memory_bytes,
        first.descriptors,
        first.user,
        first.paths,
        memories=first.memories,
        start=lambda: _start_threads(first, work),
    )
    confined.put(protocol.Confined(measures))
    calls.serve_control()
