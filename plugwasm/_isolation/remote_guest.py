"""The guest and the kernel that host functions of the application see of a guest in a worker.

Host functions run unchanged: they get a guest whose kernel asks the worker. So that the common ones
cost one exchange, the blocks that their parameters refer to come with the call. Blocks that only
become a result go with the return, and so does what was freed or written.

Everything that the worker sends is a claim. A block may not be what the guest has, which harms only
the guest. But blocks are as long as was said before, and those that a host function sees have
together no more bytes than the guest's memory.
"""

from __future__ import annotations

from .._engine import EngineFailure
from .._host import env
from .._host.functions import InferredFunction, host_function_error
from .._host.guest import HANDLE_MASK, Guest
from .._host.waiting_calls import register_host_function_frame
from .._wasi.options import SeededRandom, WasiOptions
from ..errors import OutOfMemoryError
from . import protocol
from .process import WorkerLost

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from .._engine import HostFunction
    from .._host.functions import Function
    from .._host.grants import Grants
    from .._host.vars import Vars
    from .process import Worker

    Body = Callable[[Any, int, Any], None]


MAX_MEMORY = 2**32
"""Bytes of the heap of a guest without limits."""


class NewBlock(int):
    """The handle of a new block, which is not known yet; as a number, the null handle."""

    data: bytes


class RemoteKernel:
    """The kernel of a guest in a worker that waits for a host function to return."""

    __slots__ = ("_blocks", "_freed", "_held", "_views", "worker")

    table = None
    """The guest has no table of config and vars: its host functions all come here."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self._held = 0
        self._blocks: dict[int, bytes | int | None] = {}
        self._views: dict[int, tuple[bytearray, bytes]] = {}
        self._freed: list[int] = []

    def begin(self, blocks: dict[int, bytes | int | None]) -> None:
        """Begin a call of a host function, with the blocks that came with it."""
        self._blocks = blocks
        self._held = 0
        self._views = {}
        self._freed = []

    def end(self) -> tuple[list[int], list[tuple[int, bytes]]]:
        """Return the blocks that the host function freed, and those that it wrote."""
        written = [
            (handle, bytes(now)) for handle, (now, before) in self._views.items() if now != before
        ]
        return self._freed, written

    def block(self, offset: int) -> memoryview | None:
        """Return the live block at the offset, or None. Writes to it reach the guest."""
        offset &= HANDLE_MASK
        view = self._views.get(offset)
        if view is None:
            content = self._content(offset)
            if content is None:
                return None
            view = self._views[offset] = bytearray(content), content
        return memoryview(view[0])

    def length(self, offset: int) -> int:
        """Return the length of the live block at the offset; 0 when there is none."""
        known = self._blocks.get(offset)
        if isinstance(known, int):
            return known
        content = self._content(offset)
        return 0 if content is None else len(content)

    def alloc(self, length: int) -> int:
        """Allocate a block; 0 when `length` is 0 or the limits do not allow it."""
        return self._made(protocol.Alloc(length, self._said()), length)

    def push(self, data: bytes) -> int:
        """As `Kernel.push`: nothing can be done without asking."""
        return 0

    def new_block(self, data: bytes) -> int:
        """Allocate a block with that content; 0 when it is empty or the limits do not allow it."""
        return self._made(protocol.Put(data, self._said()), data)

    def free(self, offset: int) -> None:
        """Free the block at the offset, if there is one."""
        known = self._blocks.get(offset)
        if isinstance(known, bytes):
            self._held -= min(len(known), self._held)
        self._blocks[offset] = None
        self._views.pop(offset, None)
        self._freed.append(offset)

    def set_error(self, handle: int) -> None:
        """Set the error, as the guest would."""
        self._ask(protocol.SetError(handle, self._said()))

    def _content(self, offset: int) -> bytes | None:
        known = self._blocks.get(offset, -1)
        if isinstance(known, int):
            data = self._ask(protocol.Peek(offset, self._said())).data
            if known >= 0 and (data is None or len(data) != known):
                raise self.worker.protocol_violation(f"another length of a block than {known}")
            if data is not None:
                self._held += len(data)
                if self._held > self.worker.bounds.memory_bytes:
                    raise self.worker.protocol_violation(
                        f"blocks of more than the {self.worker.bounds.memory_bytes} bytes "
                        "that the guest may have"
                    )
            known = self._blocks[offset] = data
        return known

    def _made(self, question: protocol.Alloc | protocol.Put, known: bytes | int) -> int:
        handle = self._ask(question).value
        if handle:
            self._blocks[handle] = known
            self._views.pop(handle, None)
        return handle

    def _said(self) -> list[int]:
        freed, self._freed = self._freed, []
        return freed

    def _ask(self, question: object) -> protocol.Answer:
        self.worker.send(question)
        answer = self.worker.receive(self.worker.bounds.answer)
        if type(answer) is protocol.NotNow:
            raise EngineFailure("the guest was ended while a host function ran")
        if type(answer) is not protocol.Answer:
            raise self.worker.protocol_violation(f"`{type(answer).__name__}` as an answer")
        return answer


class RemoteGuest(Guest):
    """A guest that runs in a worker, with what the application keeps for it.

    Attributes:
        host_exception: The exception of a host function in the call under way.
        awaits_blocks: Whether the worker was last asked to make blocks, for results of a host
            function.
    """

    __slots__ = ("_last", "awaits_blocks", "clock", "host_exception", "random")

    kernel: RemoteKernel  # type: ignore[assignment]

    def __init__(self, grants: Grants, config: dict[str, str], vars: Vars, worker: Worker) -> None:
        super().__init__(grants, config, vars)
        self.kernel = RemoteKernel(worker)
        self.host_exception: BaseException | None = None
        self._last: ExposedFunction | None = None
        self.awaits_blocks = False
        options = grants.wasi or WasiOptions()
        self.clock = options.clock.for_instance()
        self.random = (
            options.random.for_instance()
            if isinstance(options.random, SeededRandom)
            else options.random
        )

    @property
    def function(self) -> str | None:
        return self.export_name

    def find_block(self, handle: int, most: int | None = None) -> bytes | None:
        return (
            handle.data[:most] if isinstance(handle, NewBlock) else super().find_block(handle, most)
        )

    def new_block(self, data: bytes) -> int:
        if not data:
            return 0
        if len(data) > (self.limits.memory_bytes or MAX_MEMORY):
            raise _no_room(len(data))  # and need not travel
        if self._last is None or not self._last.gives_later:
            handle = self.kernel.new_block(data)
            if not handle:
                raise _no_room(len(data))
            return handle
        block = NewBlock()
        block.data = data
        return block

    def serve(self, call: protocol.HostCall, functions: Sequence[ExposedFunction]) -> None:
        """Run a host function that the guest has called, and answer.

        If it raises, the exception is kept, and the guest unwound.
        """
        worker = self.kernel.worker
        if call.function >= len(functions) or call.function < 0:
            raise worker.protocol_violation(f"a call of host function {call.function}")
        function = functions[call.function]
        if len(call.values) != len(function.params) or len(call.blocks) != len(function.handles):
            raise worker.protocol_violation(
                "a call of a host function with too many or too few parameters"
            )
        values = [0] * (2 * max(len(call.values), function.results, 1))
        values[: 2 * len(call.values) : 2] = call.values
        self.kernel.begin(
            dict(
                zip(
                    [call.values[i] & HANDLE_MASK for i in function.handles],
                    call.blocks,
                    strict=True,
                )
            )
        )
        self._last, self.awaits_blocks = function, False
        try:
            if self.interceptor is not None and function.host is not None:
                self.interceptor.call_host_function(self, function.host, 0, values)
            else:
                function.body(self, 0, values)
            results = values[: 2 * function.results : 2]
            numbers = [int(value) & HANDLE_MASK for value in results]
        except WorkerLost:
            raise
        except EngineFailure:
            worker.send(protocol.Raise())  # the worker knows why
            return
        except BaseException as exception:
            self.host_exception = exception
            worker.send(protocol.Raise())
            return
        made = [(i, value.data) for i, value in enumerate(results) if type(value) is NewBlock]
        freed, written = self.kernel.end()
        self.awaits_blocks = bool(made)
        worker.send(protocol.Return(numbers, made, freed, written))

    def no_room(self, size: int) -> None:
        """Keep the error for a result of the last host function that has no room."""
        function, self.awaits_blocks = self._last, False
        self.host_exception = _no_room(size)
        if function is not None and function.name is not None:
            reason = host_function_error(function.name, self.host_exception, self)
            reason.__cause__ = self.host_exception
            self.host_exception = reason
        self.kernel.worker.send(protocol.Raise())


register_host_function_frame(RemoteGuest.serve.__code__, "self")


class ExposedFunction:
    """A function of the application that a worker can call by its number.

    Args:
        name: Its name in errors, if it is the application's own.
        gives_later: Whether it only makes blocks to return them, and nobody sees their handles
            before.
        host: The function that observers are told of; None for one that guests do not know.
    """

    __slots__ = ("body", "gives_later", "handles", "host", "name", "params", "results")

    def __init__(
        self,
        name: str | None,
        params: tuple[str, ...],
        results: int,
        body: Body,
        gives_later: bool,
        host: HostFunction | None = None,
    ) -> None:
        self.name = name
        self.host = host
        self.params = params
        self.handles = [i for i, kind in enumerate(params) if kind == "i64"]
        self.results = results
        self.body = body
        self.gives_later = gives_later


def _no_room(size: int) -> OutOfMemoryError:
    return OutOfMemoryError(f"the plugin has no room for {size} bytes from the host")


def expose_functions(
    functions: Sequence[Function],
) -> tuple[list[protocol.HostFunctionType], list[ExposedFunction]]:
    """Return the types and the functions that a worker may call by number.

    These are the host half of `extism:host/env`, the application's functions, its clock and random
    bytes.
    """
    types = [
        protocol.HostFunctionType(env.NAMESPACE, name, list(f.type.params), list(f.type.results))
        for name, f in env.FUNCTIONS.items()
    ]
    table = [
        ExposedFunction(None, f.type.params, len(f.type.results), f.body, True, f)
        for f in env.FUNCTIONS.values()
    ]
    for function in functions:
        host = function._host
        types.append(
            protocol.HostFunctionType(
                *function._imported_as, list(host.type.params), list(host.type.results)
            )
        )
        later = isinstance(function, InferredFunction) and not function._wants_plugin
        table.append(
            ExposedFunction(
                function.name, host.type.params, len(host.type.results), host.body, later, host
            )
        )
    return types, [*table, *_OF_WASI]


def _realtime(guest: RemoteGuest, caller: int, values: Any) -> None:
    values[0] = guest.clock.realtime()


def _monotonic(guest: RemoteGuest, caller: int, values: Any) -> None:
    values[0] = guest.clock.monotonic()


def _sleep(guest: RemoteGuest, caller: int, values: Any) -> None:
    guest.clock.sleep(values[0] / 1e9, guest.sleep)


def _random(guest: RemoteGuest, caller: int, values: Any) -> None:
    size = values[0]
    if not 0 <= size <= MAX_RANDOM:
        raise ValueError(f"{size} random bytes")
    data = bytes(memoryview(guest.random(size)))
    if len(data) != size:
        raise ValueError(
            f"the source of random bytes gave {len(data)} of them where {size} were asked for"
        )
    values[0] = guest.new_block(data)


MAX_RANDOM = 2**20
_OF_WASI = [
    ExposedFunction(None, (), 1, _realtime, True),
    ExposedFunction(None, (), 1, _monotonic, True),
    ExposedFunction(None, ("i32",), 0, _sleep, True),
    ExposedFunction(None, ("i32",), 1, _random, True),
]
