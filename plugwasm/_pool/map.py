"""`PluginPool.map` and `map_async`: one export, many inputs, outputs in the order of the inputs.

Inputs are read at most `ahead` of the outputs that were asked for, so neither a slow reader nor an
endless source makes anything pile up.

Decisions: docs/decisions.md, 25.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

from .._host.deadline import NEVER
from .._host.waiting_calls import waiting_callers
from .._runtime.threads import require_anyio
from ..errors import ClosedError, OptionError
from .map_workers import MapItem, MapWorkers
from .slots import POOL_DEFAULT, check_wait

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Iterator
    from types import TracebackType
    from typing import Any, Self

    import anyio.abc

    from .pool import PluginPool

STOP_TIMEOUT = 1.0
"""Seconds that closing or dropping a `map` waits at most for its cancelled calls."""
AHEAD_PER_WORKER = 4
"""Inputs read ahead for each worker by default."""


T = TypeVar("T")


class MapJob:
    """The calls of one `map`: the export, how to call it, and the progress so far.

    Attributes:
        workers, ahead: As for `PluginPool.map`, with the defaults filled in.
    """

    def __init__(
        self,
        pool: PluginPool,
        function_name: str,
        workers: int | None,
        ahead: int | None,
        return_exceptions: bool,
        on_progress: Callable[[int, int | None], object] | None,
        wait: float | None,
        options: dict[str, Any],
    ) -> None:
        for name, value in (("workers", workers), ("ahead", ahead)):
            if value is not None and (
                isinstance(value, bool) or not isinstance(value, int) or value < 1
            ):
                raise OptionError(f"{name} must be a number, at least 1, not {value!r}")
        if not (on_progress is None or callable(on_progress)):
            raise OptionError(
                f"on_progress: expected a function of two numbers, "
                f"got {type(on_progress).__name__}",
                field="on_progress",
            )
        if "parse" in options and options["parse"] is None:
            raise OptionError(
                "`parse` cannot be None: a view would be of memory that the next call gets"
            )
        self.pool = pool
        self.function_name = function_name
        self.workers: int = min(workers or pool.size, pool.size)
        self.ahead: int = ahead or AHEAD_PER_WORKER * self.workers
        self.return_exceptions = return_exceptions
        self.wait: float | None = wait if wait is POOL_DEFAULT else check_wait(wait)
        self.options = options
        self._on_progress = on_progress
        self._done = 0
        self._total: int | None = None

    def count_inputs(self, inputs: object) -> None:
        """Store how many inputs there are, if that can be known."""
        try:
            self._total = len(inputs)  # type: ignore[arg-type]
        except TypeError:
            pass

    def call(self, data: Any) -> Any:
        """Make one call."""
        return self.pool.call(self.function_name, data, wait=self.wait, **self.options)

    def handle_error(self, error: Exception) -> Exception:
        """Return the error of a call if it is to be yielded, and raise it otherwise."""
        if not self.return_exceptions or (
            isinstance(error, ClosedError) and self.pool._slots.is_closed
        ):
            error.add_note(f"It was the call for input {self._done}, counted from 0.")
            raise error
        return error

    def report_progress(self) -> None:
        """Count one more output, and tell `on_progress`."""
        self._done += 1
        if self._on_progress is not None:
            self._on_progress(self._done, self._total)


# ---- in threads ----------------------------------------------------------------------------------


def iterate_outputs(job: MapJob, inputs: Iterable[Any]) -> Iterator[Any]:
    """Yield the outputs for all inputs, in order."""
    job.count_inputs(inputs)
    if job.workers == 1 and not waiting_callers():
        yield from _iterate_in_caller(job, inputs)
        return
    workers = MapWorkers(job)
    items: deque[MapItem] = deque()
    source = _InputReader(inputs)
    timeout = NEVER
    try:
        while True:
            if not workers.is_in_creating_process():
                raise ClosedError(
                    "this `map` began before a fork, and cannot go on in the child: "
                    "call `map` again",
                    plugin=job.pool.name,
                )
            may_wait = True  # for an input; but only once while an output is ready
            while (
                len(items) < job.ahead and (may_wait or not items[0].is_done()) and source.advance()
            ):
                item = MapItem(source.current)
                items.append(item)
                workers.add(item)
                may_wait = False
            if not items:
                source.raise_error()
                return
            workers.complete_first(items)
            output = items.popleft().result(job)
            job.report_progress()
            yield output
    except GeneratorExit:
        # Perhaps the garbage collector closes it, in the middle of something that the calls which
        # are waited for may need.
        timeout = STOP_TIMEOUT
        raise
    finally:
        workers.stop(timeout)


def _iterate_in_caller(job: MapJob, inputs: Iterable[Any]) -> Iterator[Any]:
    for data in inputs:
        try:
            output = job.call(data)
        except Exception as error:
            output = job.handle_error(error)
        job.report_progress()
        yield output


class _InputReader:
    """An iterator over the inputs; its error is kept until all inputs before it are done."""

    def __init__(self, inputs: Iterable[Any]) -> None:
        self._iterator = iter(inputs)
        self._is_over = False
        self._error: Exception | None = None
        self.current: Any = None

    def advance(self) -> bool:
        """Read the next input into `current`. Return whether there was one."""
        if self._is_over:
            return False
        try:
            self.current = next(self._iterator)
        except StopIteration:
            self._is_over = True
        except Exception as error:
            self._is_over, self._error = True, error
        return not self._is_over

    def raise_error(self) -> None:
        """Raise the error of the iterable, if there was one."""
        error, self._error = self._error, None
        if error is not None:
            raise error


# ---- in tasks ------------------------------------------------------------------------------------


class AsyncOutputs(Generic[T]):
    """The outputs of `PluginPool.map_async`, in order: a block, and an iterator within it.

    The calls run in tasks that belong to the `async with` block.
    """

    __module__ = "plugwasm"

    def __init__(self, job: MapJob, inputs: Iterable[Any] | AsyncIterable[Any]) -> None:
        job.count_inputs(inputs)
        self._job = job
        self._inputs = inputs
        self._items: deque[_AsyncItem] = deque()
        self._inputs_ended = False
        self._is_over = False
        self._error: Exception | None = None
        self._group: anyio.abc.TaskGroup | None = None

    async def __aenter__(self) -> Self:
        require_anyio()
        import anyio

        if self._group is not None:
            raise RuntimeError("this was iterated already: call `map_async` again")
        self._ahead = anyio.Semaphore(self._job.ahead)
        self._workers = anyio.Semaphore(self._job.workers)
        self._changed = anyio.Event()
        group = anyio.create_task_group()
        await group.__aenter__()
        group.start_soon(self._read_inputs)
        self._group = group
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._group is not None
        self._is_over = True
        self._group.cancel_scope.cancel()
        # The group is not told what the block raised: it would wrap that in an exception group.
        await self._group.__aexit__(None, None, None)

    async def _read_inputs(self) -> None:
        assert self._group is not None
        try:
            read = _async_next(self._inputs)
            while True:
                await self._ahead.acquire()
                await self._workers.acquire()
                item = _AsyncItem(await read())
                self._items.append(item)
                self._group.start_soon(self._call, item)
        except StopAsyncIteration:
            pass
        except Exception as error:
            self._error = error
        self._inputs_ended = True
        self._notify()

    async def _call(self, item: _AsyncItem) -> None:
        job = self._job
        try:
            item.output = await job.pool.call_async(
                job.function_name, item.data, wait=job.wait, **job.options
            )
        except Exception as error:
            item.error = error
        item.data = None
        item.is_done = True
        self._workers.release()
        self._notify()

    def _notify(self) -> None:
        self._changed.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        if self._group is None:
            raise RuntimeError(
                "outputs come within a block: `async with pool.map_async(…) as outputs`"
            )
        import anyio
        from anyio.lowlevel import checkpoint

        await checkpoint()
        while not self._is_over:
            if self._items and self._items[0].is_done:
                item = self._items.popleft()
                self._ahead.release()
                output: T = self._output(item)
                return output
            if self._inputs_ended and not self._items:
                self._is_over = True
                if self._error is not None:
                    raise self._error
                break
            self._changed = anyio.Event()
            await self._changed.wait()
        raise StopAsyncIteration

    def _output(self, item: _AsyncItem) -> Any:
        try:
            output = item.output if item.error is None else self._job.handle_error(item.error)
            self._job.report_progress()
        except BaseException:
            assert self._group is not None
            self._is_over = True
            self._group.cancel_scope.cancel()
            raise
        return output


class _AsyncItem:
    __slots__ = ("data", "error", "is_done", "output")

    def __init__(self, data: Any) -> None:
        self.data = data
        self.error: Exception | None = None
        self.is_done = False
        self.output: Any = None


def _async_next(inputs: Iterable[Any] | AsyncIterable[Any]) -> Callable[[], Awaitable[Any]]:
    """Return a function that reads the next input.

    It raises `StopAsyncIteration` after the last.
    """
    if hasattr(inputs, "__aiter__"):
        return inputs.__aiter__().__anext__
    iterator = iter(inputs)

    async def read() -> Any:
        try:
            return next(iterator)
        except StopIteration:
            raise StopAsyncIteration from None

    return read
