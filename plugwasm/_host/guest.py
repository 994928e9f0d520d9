"""The host's state for one instance of a plugin: its store and kernel, its grants, and the call
under way.

Host callbacks get it as their environment. It knows nothing of the plugin object that owns it, so
that dropping the plugin frees everything at once, without waiting for the garbage collector.

Decisions: docs/decisions.md, 34.2, 35.1 and 48.
"""

from __future__ import annotations

from time import monotonic

from .._engine import (
    CallerMemory,
    Environment,
    LinearMemory,
    Store,
    StoreLimits,
    caller_context,
)
from .._manifest.limits import INITIAL_PAGES
from .._platform.native_threads import sleep
from ..errors import BadHandleError, CancelledError, OutOfMemoryError, TimeoutError
from .deadline import NEVER, ticker
from .kernel.table import HEARD, NOBODY
from .memory_budget import MemoryBudget, max_state_bytes, max_table_elements

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Protocol
    from weakref import ref

    from .._engine import HostFunction, Instance
    from .._engine.callbacks import Body
    from .._manifest.limits import Limits
    from .._wasi.preview1 import Wasi
    from .._wasi.stdio import LineSplitter
    from .grants import Grants
    from .kernel import Kernel
    from .memory_budget import MemoryPlan
    from .plugin_log import PluginLog
    from .vars import Vars

    class Interceptor(Protocol):
        """Gets the calls of a guest's host functions in place of their bodies."""

        def call_host_function(
            self, guest: Any, function: HostFunction, caller: int, values: Any, /
        ) -> None: ...

else:
    from _weakref import ref  # the module `weakref` takes long to import

HANDLE_MASK = 0xFFFFFFFFFFFFFFFF
PAGE = 65536
_SLICE = 0.05
MAX_TEXT = 2**22
"""The most bytes of the key of a setting, or of a log message, that the host reads."""


class Guest(Environment):
    """One instance of a plugin.

    `deadline` is in seconds on the monotonic clock, or `NEVER` if the call under way has none.
    """

    __slots__ = (
        "__weakref__",
        "_config",
        "_running",
        "budget",
        "caller_memory",
        "cancelled",
        "deadline",
        "entries",
        "export_name",
        "externs",
        "follows_log",
        "grants",
        "greenlet",
        "host_context",
        "instances",
        "interceptor",
        "is_fuelled",
        "kernel",
        "limits",
        "log",
        "memories",
        "response_headers",
        "response_status",
        "restore_frames",
        "sampler",
        "state_bytes",
        "store",
        "streams",
        "vars",
        "wasi",
    )

    store: Store
    kernel: Kernel
    budget: MemoryBudget

    def __init__(self, grants: Grants, config: dict[str, str], vars: Vars) -> None:
        super().__init__()
        self.grants: Grants = grants
        self.limits: Limits = grants.limits
        self.log: PluginLog = grants.log
        self._config: dict[str, str] = config
        self.deadline: float = NEVER
        self.cancelled: float | bool = False
        """The `deadline` of the call that was cancelled, compared with `is`; False if none was.
        Each call makes a float of its own, so a late cancellation cannot end the next call.
        """
        self.is_fuelled: bool = False
        self.host_context: Any = None
        self.greenlet: tuple[int, int] | None = None
        """The thread and the greenlet of its last call, where there are greenlets."""
        self.vars: Vars = vars
        self.instances: dict[int, Instance] = {}
        self.externs: dict[str | HostFunction | tuple[int, str], bytes] = {}
        """The kernel's exports, host functions, and exports of units (by their number and name), as
        externs of its store.
        """
        self.follows_log: bool = False
        """Whether its kernel drops messages that nobody would hear."""
        self.caller_memory: CallerMemory | None = None
        self.memories: dict[tuple[int, int, int, int], GuestMemory] = {}
        """Memories of instances in its store, by the engine's numbers for them."""
        self.restore_frames: Callable[[tuple[str, ...]], tuple[str, ...]] | None = None
        """Puts the offsets of the original module into frames, if it is not that which runs."""
        self.state_bytes: int = 0
        """Bytes that its instances take outside of their memories."""
        self.response_status: int = 0
        self.response_headers: dict[str, str] | None = None
        self.wasi: Wasi | None = None
        self._running: tuple[Store, ...] = ()
        """The stores that were entered from one another and not left yet, the innermost last. Its
        own store is entered first, and not listed.
        """
        self.streams: tuple[LineSplitter, ...] = ()
        self.sampler: Callable[[Guest], None] | None = None
        """The profiler that is running: called with each tick."""
        self.interceptor: Interceptor | None = None
        """Gets the calls of host functions, if it was set before they were linked."""
        self.entries: Mapping[str, tuple[Any, ...]] = {}
        """The exports of the plugin that were called, by name."""
        self.export_name: str | None = None
        """The export that runs, or has just run, where `function` cannot tell from `entries`."""

    @property
    def config(self) -> dict[str, str]:
        """The settings that `config_get` finds. Replace them as a whole; any thread may."""
        return self._config

    @config.setter
    def config(self, config: dict[str, str]) -> None:
        self._config = config
        kernel = getattr(self, "kernel", None)
        if kernel is not None and kernel.table is not None:
            kernel.table.drop_config()

    # ---- the call under way ----------------------------------------------------------------------

    def on_epoch(self) -> bool:
        if self.sampler is not None:
            self.sampler(self)
        if self.follows_log:
            self.ask_for_log_level()
        if self.cancelled or monotonic() >= self.deadline:
            self.remaining()
        return ticker.has_no_thread and ticker.looked()

    def remaining(self) -> float | None:
        """Return the seconds that are left for the call under way, or None if it has no deadline.

        Raises:
            CancelledError: The call was cancelled.
            TimeoutError: Its deadline has passed.
        """
        if self.cancelled is self.deadline:
            raise CancelledError("the call was cancelled")
        if self.deadline == NEVER:
            return None
        left = self.deadline - monotonic()
        if left <= 0:
            raise TimeoutError("the call did not end before its deadline (timeout)")
        return left

    def sleep(self, seconds: float) -> None:
        """Sleep, but not beyond the deadline of the call under way."""
        end = monotonic() + seconds
        while (rest := end - monotonic()) > 0:
            left = self.remaining()
            sleep(min(rest, _SLICE) if left is None else min(rest, left, _SLICE))
        self.remaining()

    @property
    def function(self) -> str | None:
        """The export that runs; None while the plugin is being started.

        Calls do not record it, which would cost time. But a call writes the export's funcref into
        `values[0]` of its entry, and the status replaces it only when the call ends.
        """
        return next(
            (name for name, (_, values, target, _) in self.entries.items() if values[0] == target),
            self.export_name,
        )

    # ---- host functions --------------------------------------------------------------------------

    def make_import(self, function: HostFunction, store: Store) -> bytes:
        """Return the function as an extern that instances of the store can import."""
        if self.interceptor is not None:
            if function.name is not None:
                function = function.make_interceptable()
        elif self.follows_log:
            function = following_log(function)
        return store.make_import(function)

    def ask_for_log_level(self) -> None:
        """Have the kernel ask for the log level again: the application may have changed it."""
        if (table := self.kernel.table) is not None:
            table.words[HEARD] = 0

    def call_host_function(self, function: HostFunction, caller: int, values: Any) -> None:
        if self.interceptor is None:
            function.body(self, caller, values)
        else:
            self.interceptor.call_host_function(self, function, caller, values)

    def find_block(self, handle: int, most: int | None = None) -> bytes | None:
        """Return a copy of the block, or of its first `most` bytes, for observers; None if there is
        none.
        """
        block = self.kernel.block(handle & HANDLE_MASK)
        return None if block is None else block[:most].tobytes()

    def memory_bytes(self) -> int | None:
        """Return the size of all memories that the plugin can reach; None if the host cannot see
        them. It is also their peak, because memories never shrink.
        """
        pages = self.budget.pages(self.kernel.pages())
        return None if pages is None else pages * PAGE

    def visible_memory_bytes(self) -> int:
        """As `memory_bytes`, without memories that the host cannot see."""
        seen = self.memory_bytes()
        return self.kernel.pages() * PAGE if seen is None else seen

    # ---- memory ----------------------------------------------------------------------------------

    def read_block(self, handle: int, what: str, most: int | None = None) -> bytes:
        """Return the first `most` bytes of a block; empty for the null handle.

        `what` names the function that got the handle, for the error.

        Raises:
            BadHandleError: There is no such block.
        """
        handle &= HANDLE_MASK
        if handle == 0:
            return b""
        block = self.kernel.block(handle)
        if block is None:
            raise BadHandleError(
                f"`{what}` was given the handle {handle}, which is no memory that the plugin has "
                "allocated"
            )
        return block.tobytes() if most is None else block[:most].tobytes()

    def free(self, first: int, second: int = 0) -> None:
        """Free blocks that the host was given and owns. Call it after the result was made.

        Both may be the same, or the null handle.
        """
        if first:
            self.kernel.free(first & HANDLE_MASK)
        if second and second != first:
            self.kernel.free(second & HANDLE_MASK)

    def read_text(self, handle: int, what: str) -> str:
        """Return the block as text of bounded length. Bytes that are not UTF-8 are replaced.

        Not for names, of which two would become equal. Decoding takes up to four times the memory,
        and time.
        """
        return self.read_block(handle, what, MAX_TEXT).decode("utf-8", "replace")

    def read_var_name(self, handle: int, what: str) -> bytes:
        """Return the block as the name of a var. A name that is too long for any var is cut, and
        stays too long.
        """
        return self.read_block(handle, what, self.limits.var_bytes + 1)

    def block_length(self, handle: int) -> int:
        """Return the length of the block, or 0 if there is none. For a check before a copy."""
        return self.kernel.length(handle & HANDLE_MASK)

    def new_block(self, data: bytes) -> int:
        """Copy bytes into a new block for the guest, and return its handle; the null handle if they
        are empty.

        Raises:
            OutOfMemoryError: The plugin's limit does not allow it.
        """
        handle = self.kernel.push(data) or self.kernel.new_block(data)
        if not handle and data:
            raise OutOfMemoryError(
                f"the plugin has no room for {len(data)} bytes from the host: "
                f"{self.describe_shortage(len(data))}"
            )
        return handle

    def memory_of(self, caller: int) -> GuestMemory:
        """Return the memory of the instance that calls a host function.

        Only the engine knows which instance that is, and in which store. It need not be the one
        that imported the function: functions can be re-exported, and put into tables.
        """
        finder = self.caller_memory
        if finder is None:
            finder = self.caller_memory = CallerMemory()
        found = finder.find(caller)
        if found is None:
            return GuestMemory(None)
        memory = self.memories.get(found)
        if memory is None:
            context = caller_context(caller)
            store = next(
                store for store in (self.store, *self._running) if store.context == context
            )
            memory = GuestMemory(finder.found(store))
            if store is self.store:  # other stores are short-lived
                self.memories[found] = memory
        return memory

    @property
    def running_store(self) -> Store:
        """The store whose instance runs: that of the innermost command, or its own where that has
        called back into it.
        """
        return self._running[-1] if self._running else self.store

    def enter_store(self, store: Store) -> EnteredStore:
        """Return the context of a block in which a guest of the store runs. It moves the fuel that
        is left there, and back afterwards.
        """
        return EnteredStore(self, store)

    def make_command_store(self, memories: tuple[int, int, int], tables: int) -> Store:
        """Make a store for one call of a command with these memories (see `MemoryPlan`) and tables,
        with the fuel of the guest's own store.

        The engine counts memory for each store separately. So the first such store may have as much
        as the plugin, and each nested one half as much as the one around it. Together they have
        less than twice as much as the plugin.
        """
        engine = self.store.engine
        # In another store the engine gives the guest a whole stack again.
        if not engine.stack.has_room():
            raise RecursionError("modules call each other too deep")
        store = Store(engine, self)
        limits, maximum, growth = self.limits, self.budget.plan.maximum, self.limits.max_pages
        depth = sum(running is not self.store for running in self._running)
        caps = [] if maximum is None else [(maximum >> depth) // max(memories[0], 1)]
        caps += [] if growth is None else [memories[2] + growth]
        store.limit(
            StoreLimits(
                memory_bytes=-1 if not caps else min(caps) * PAGE,
                table_elements=max_table_elements(limits, tables) >> depth,
                instances=limits.instances,
                tables=limits.tables,
                memories=limits.memories,
            )
        )
        return store

    def may_grow(self, pages: int) -> bool:
        """Return whether the kernel may grow to that many pages; 0 means that it is done."""
        kernel = getattr(self, "kernel", None)
        return self.budget.may_grow(pages, kernel.pages() if kernel else INITIAL_PAGES)

    def limit_memory(self, plan: MemoryPlan) -> None:
        """Watch over the memory of the store, which has the limits `plan.first_limits`."""
        self.budget = MemoryBudget(plan, self.store, self.instances)

    def charge_state(self, state_bytes: int) -> None:
        """Count what one more instance in the guest's own store takes outside of memories.

        Raises:
            OutOfMemoryError: The instances take more than the limit.
        """
        self.state_bytes += state_bytes
        if self.state_bytes > (most := max_state_bytes(self.limits)):
            raise OutOfMemoryError(
                f"the plugin's instances hold more than {most} bytes outside of their memories "
                "(`Limits.instance_bytes`)"
            )

    def describe_shortage(self, denied: int) -> str | None:
        """Return which memory ran short, as text for an error, if that is probably why the guest
        gave up; None if it probably is not.
        """
        return self.budget.describe_shortage(self.kernel.pages(), denied)

    # ---- WASI ------------------------------------------------------------------------------------

    def wasi_state(self) -> Wasi:
        """Return the WASI of this instance, made on first use."""
        if self.wasi is None:
            from .._wasi.options import SeededRandom, WasiOptions
            from .._wasi.preview1 import Wasi
            from .._wasi.stdio import LineSplitter

            # The guest owns its WASI, so the WASI must not own the guest.
            guest = ref(self)
            log = self.log

            def write(level: str, line: bytes, lost: int) -> None:
                self_ = guest()
                log.write_line(level, line, lost, self_.function if self_ is not None else None)

            splitters = {
                1: LineSplitter(lambda line, lost: write("info", line, lost)),
                2: LineSplitter(lambda line, lost: write("warn", line, lost)),
            }

            def sleep(seconds: float) -> None:
                self_ = guest()
                if self_ is not None:
                    self_.sleep(seconds)

            options = self.grants.wasi or WasiOptions()
            clock, random = options.clock.for_instance(), options.random
            self.wasi = Wasi(
                preopens=self.grants.preopens,
                on_output=lambda fd, chunk: splitters[fd].feed(chunk),
                sleep=sleep,
                pause=lambda seconds: clock.sleep(seconds, sleep),
                now=clock.realtime,
                monotonic=clock.monotonic,
                resolution=clock.resolution,
                random=random.for_instance() if isinstance(random, SeededRandom) else random,
                max_descriptors=self.limits.descriptors,
            )
            self.streams = tuple(splitters.values())
        return self.wasi

    def flush(self, function: str) -> None:
        """Log what the guest wrote since the last end of a line, in a call of that export."""
        self.export_name = function
        for splitter in self.streams:
            splitter.flush()
        self.export_name = None


class EnteredStore:
    """The context of `Guest.enter_store`; a class, so that no start imports `contextlib`."""

    __slots__ = ("_before", "_guest", "_store")

    def __init__(self, guest: Guest, store: Store) -> None:
        self._guest = guest
        self._before = guest.running_store
        self._store = store

    def __enter__(self) -> None:
        if self._store.engine.fuel:
            self._store.set_fuel(self._before.fuel())
        self._guest._running += (self._store,)

    def __exit__(self, *raised: object) -> None:
        self._guest._running = self._guest._running[:-1]
        if self._store.engine.fuel:
            self._before.set_fuel(self._store.fuel())


def following_log(function: HostFunction) -> HostFunction:
    """Return what a guest imports in place of a host function if its kernel drops messages."""
    name = function.name
    if name is None or name[0] == "wasi_snapshot_preview1":
        return function
    return function.make_variant(_ask_for_log_level_after)


def _ask_for_log_level_after(body: Body) -> Body:
    """Return the body of a host function, which may change who hears what."""

    def run(guest: Any, caller: int, values: Any) -> None:
        body(guest, caller, values)
        guest.ask_for_log_level()

    return run


def invoke_and_follow_log(
    invoke: Callable[[], int | None], kernel: Kernel, log: PluginLog
) -> Callable[[], int | None]:
    """Return what enters a guest that logs, in place of `invoke`: the kernel asks for the log level
    again, unless still nobody hears anything.
    """

    def enter() -> int | None:
        table = kernel.table
        if (
            table is not None
            and (heard := table.words[HEARD])
            and not (heard == NOBODY and log.is_still_unheard())
        ):
            table.words[HEARD] = 0
        return invoke()

    return enter


class PluginExit(Exception):
    """The guest ended itself with an exit code."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


class GuestMemory:
    """A guest's own memory, for WASI. Offsets and lengths are checked against its present size."""

    __slots__ = ("_memory", "_view")

    def __init__(self, memory: LinearMemory | None) -> None:
        self._memory = memory
        self._view = memory.view() if memory else memoryview(b"")

    def view(self, offset: int, length: int) -> memoryview:
        """Return a writable view of a part of it."""
        end = offset + length
        if end > len(self._view):
            if self._memory is not None:
                self._view = self._memory.view()
            if end > len(self._view):
                from .._wasi.preview1 import MemoryFault

                raise MemoryFault(offset, length)
        return self._view[offset:end]

    def read(self, offset: int, length: int) -> bytes:
        """Return a copy of a part of it."""
        return bytes(self.view(offset, length))

    def write(self, offset: int, data: bytes) -> None:
        """Copy data into it."""
        self.view(offset, len(data))[:] = data

    def u32(self, offset: int) -> int:
        """Return the unsigned 32-bit integer at an offset, little endian."""
        return int.from_bytes(self.view(offset, 4), "little")
