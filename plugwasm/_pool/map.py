"""One export called with many inputs, by several plugins of a pool at a time, and the outputs in the order of the inputs.

Inputs are taken at most `ahead` of the outputs that were asked for: neither a slow reader nor an endless source makes anything pile up.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

from .._host.deadline import NEVER
from .._host.waiting_calls import callers
from .._runtime.threads import need_anyio
from ..errors import ClosedError, OptionError
from .map_workers import Item, Team
from .slots import AS_THE_POOL, seconds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Iterator
    from types import TracebackType
    from typing import Any, Self

    import anyio.abc

    from .pool import PluginPool

PATIENCE = 1.0
"""Seconds that who lets go of a `map` waits at most for the calls under way, which are cancelled."""
AHEAD = 4
"""Inputs taken ahead for each worker, if nobody says otherwise."""


T = TypeVar("T")


class Plan:
    """What to call, and how.

    Attributes:
        workers, ahead: As for `PluginPool.map`, with what counts if they were not given.
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
                f"on_progress: expected a function of two numbers, got {type(on_progress).__name__}",
                field="on_progress",
            )
        if "parse" in options and options["parse"] is None:
            raise OptionError(
                "`parse` cannot be None: a view would be of memory that the next call gets"
            )
        self.pool = pool
        self.function_name = function_name
        self.workers = min(workers or pool.size, pool.size)
        self.ahead = ahead or AHEAD * self.workers
        self.return_exceptions = return_exceptions
        self.wait = wait if wait is AS_THE_POOL else seconds(wait)
        self.options = options
        self._on_progress = on_progress
        self._done = 0
        self._total: int | None = None

    def measure(self, inputs: object) -> None:
        """Finds out how many inputs there are, if that can be known."""
        try:
            self._total = len(inputs)  # type: ignore[arg-type]
        except TypeError:
            pass

    def call(self, data: Any) -> Any:
        """One call."""
        return self.pool.call(self.function_name, data, wait=self.wait, **self.options)

    def judge(self, error: Exception) -> Exception:
        """What to yield for a call that failed; raises it if it is not to be yielded."""
        if not self.return_exceptions or (
            isinstance(error, ClosedError) and self.pool._slots.is_closed
        ):
            error.add_note(f"It was the call for input {self._done}, counted from 0.")
            raise error
        return error

    def report(self) -> None:
        """One output more."""
        self._done += 1
        if self._on_progress is not None:
            self._on_progress(self._done, self._total)


# ---- in threads ------------------------------------------------------------------------------------------------------------------------


def outputs(plan: Plan, inputs: Iterable[Any]) -> Iterator[Any]:
    """The outputs for all of the inputs."""
    plan.measure(inputs)
    if plan.workers == 1 and not callers():
        yield from _one_by_one(plan, inputs)
        return
    team = Team(plan)
    window: deque[Item] = deque()
    source = _Source(inputs)
    patience = NEVER
    try:
        while True:
            if not team.is_here():
                raise ClosedError(
                    "this `map` began before a fork, and cannot go on in the child: call `map` again",
                    plugin=plan.pool.name,
                )
            may_wait = True  # for the source; but only once while an output is ready
            while (
                len(window) < plan.ahead
                and (may_wait or not window[0].is_done())
                and source.advance()
            ):
                item = Item(source.current)
                window.append(item)
                team.add(item)
                may_wait = False
            if not window:
                source.check()
                return
            team.finish_first(window)
            output = window.popleft().outcome(plan)
            plan.report()
            yield output
    except GeneratorExit:
        # Perhaps of the garbage collector, in the middle of something that those for whom this waits may need.
        patience = PATIENCE
        raise
    finally:
        team.stop(patience)


def _one_by_one(plan: Plan, inputs: Iterable[Any]) -> Iterator[Any]:
    for data in inputs:
        try:
            output = plan.call(data)
        except Exception as error:
            output = plan.judge(error)
        plan.report()
        yield output


class _Source:
    """An iterable whose error waits until all that came before it is done."""

    def __init__(self, inputs: Iterable[Any]) -> None:
        self._iterator = iter(inputs)
        self._is_over = False
        self._error: Exception | None = None
        self.current: Any = None

    def advance(self) -> bool:
        """Whether there is another one; it is `current` then."""
        if self._is_over:
            return False
        try:
            self.current = next(self._iterator)
        except StopIteration:
            self._is_over = True
        except Exception as error:
            self._is_over, self._error = True, error
        return not self._is_over

    def check(self) -> None:
        """Raises its error."""
        error, self._error = self._error, None
        if error is not None:
            raise error


# ---- in tasks --------------------------------------------------------------------------------------------------------------------------


class AsyncOutputs(Generic[T]):
    """The outputs for all of the inputs, in tasks: an `async with` block that the calls belong to, and an iterator within it."""

    __module__ = "plugwasm"

    def __init__(self, plan: Plan, inputs: Iterable[Any] | AsyncIterable[Any]) -> None:
        plan.measure(inputs)
        self._plan = plan
        self._inputs = inputs
        self._window: deque[_Item] = deque()
        self._is_fed = False
        self._is_over = False
        self._error: Exception | None = None
        self._group: anyio.abc.TaskGroup | None = None

    async def __aenter__(self) -> Self:
        need_anyio()
        import anyio

        if self._group is not None:
            raise RuntimeError("this was iterated already: call `map_async` again")
        self._room = anyio.Semaphore(self._plan.ahead)
        self._workers = anyio.Semaphore(self._plan.workers)
        self._news = anyio.Event()
        group = anyio.create_task_group()
        await group.__aenter__()
        group.start_soon(self._feed)
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
        # What the block raised is none of the group's business: it would make a group of it.
        await self._group.__aexit__(None, None, None)

    async def _feed(self) -> None:
        assert self._group is not None
        try:
            read = _reader(self._inputs)
            while True:
                await self._room.acquire()
                await self._workers.acquire()
                item = _Item(await read())
                self._window.append(item)
                self._group.start_soon(self._call, item)
        except StopAsyncIteration:
            pass
        except Exception as error:
            self._error = error
        self._is_fed = True
        self._tell()

    async def _call(self, item: _Item) -> None:
        plan = self._plan
        try:
            item.output = await plan.pool.call_async(
                plan.function_name, item.data, wait=plan.wait, **plan.options
            )
        except Exception as error:
            item.error = error
        item.data = None
        item.is_done = True
        self._workers.release()
        self._tell()

    def _tell(self) -> None:
        self._news.set()

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
            if self._window and self._window[0].is_done:
                item = self._window.popleft()
                self._room.release()
                output: T = self._output(item)
                return output
            if self._is_fed and not self._window:
                self._is_over = True
                if self._error is not None:
                    raise self._error
                break
            self._news = anyio.Event()
            await self._news.wait()
        raise StopAsyncIteration

    def _output(self, item: _Item) -> Any:
        try:
            output = item.output if item.error is None else self._plan.judge(item.error)
            self._plan.report()
        except BaseException:
            assert self._group is not None
            self._is_over = True
            self._group.cancel_scope.cancel()
            raise
        return output


class _Item:
    __slots__ = ("data", "error", "is_done", "output")

    def __init__(self, data: Any) -> None:
        self.data = data
        self.error: Exception | None = None
        self.is_done = False
        self.output: Any = None


def _reader(inputs: Iterable[Any] | AsyncIterable[Any]) -> Callable[[], Awaitable[Any]]:
    """Gives the next input; raises `StopAsyncIteration` after the last."""
    if hasattr(inputs, "__aiter__"):
        return inputs.__aiter__().__anext__
    iterator = iter(inputs)

    async def read() -> Any:
        try:
            return next(iterator)
        except StopIteration:
            raise StopAsyncIteration from None

    return read
