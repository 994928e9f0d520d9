"""The operations of threads on plugins. A `Worker` belongs to one thread. Its methods are
operations, of which a hammer picks at random."""

from __future__ import annotations

import faulthandler
import gc
import os
import random
import signal
import sys
import threading
import time
import weakref
from collections import Counter
from typing import Any

import plugwasm
from plugwasm import CompiledPlugin, Plugin
from tests.hammer.tool import Alarm, Errand, Tool, Unexplained
from tests.support.guests import export, guest, number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tests.hammer.hammers import Hammer

MIXED = (
    "echo sum command shout count view complain code trap recurse exit spin nothing config raises interrupts asks compile reset"
    " close_shared cancel_shared hand_over collect"
).split()
ERRANDS = "nothing collect sleep call_another call_itself close cancel drop keep allocate another_thread".split()


class Worker:
    """One thread: it picks random operations until the time is over."""

    def __init__(self, hammer: Hammer, number: int) -> None:
        self.hammer = hammer
        self.random = random.Random(f"{hammer.seed} {number}")
        self.done: Counter[str] = Counter()
        self.own: list[Tool] = []
        self.kept: list[Any] = []
        self.latest = 0.0
        self.deeds = {name: getattr(self, name) for name in hammer.deeds}

    def run(self) -> None:
        try:
            while time.monotonic() < self.hammer.end:
                self.one()
        except BaseException as error:
            self.hammer.fail(error)
        finally:
            for tool in self.own:
                tool.close()
            self.own.clear()
            self.kept.clear()

    def one(self) -> None:
        name = self.random.choice(list(self.deeds))
        self.done[name] += 1
        self.deeds[name]()

    def tool(self) -> Tool:
        """Return a plugin: this thread's, sometimes a new one, or a shared one."""
        chance = self.random.random()
        if chance < 0.25 and self.hammer.shared:
            return self.random.choice(self.hammer.shared)
        if len(self.own) < 3 or chance > 0.9:
            self.own.append(self.hammer.new(self.random))
            if len(self.own) > 4:
                self.own.pop(self.random.randrange(4)).close()
        return self.random.choice(self.own)

    def data(self) -> bytes:
        size = self.random.choice((1, 1, 7, 100, 3000, 70_000, 200_000))
        return bytes([self.random.randrange(1, 128)]) * size

    # ---- calls -----------------------------------------------------------------------------------

    def use(
        self,
        tool: Tool,
        function: str,
        data: bytes,
        wanted: Any,
        errand: Errand | None = None,
        **options: Any,
    ) -> Any:
        output, error = tool.use(function, data, wanted, errand, **options)
        if error is not None:
            self.done[type(error).__name__] += 1
            if isinstance(error, plugwasm.TimeoutError):
                self.latest = max(self.latest, tool.late)
        return output

    def echo(self) -> None:
        data = self.data()
        self.use(
            self.tool(),
            self.random.choice(self.hammer.echoes) if len(data) < 4000 else "echo",
            data,
            data,
        )

    def sum(self) -> None:
        data = self.data()[:3000]
        self.use(self.tool(), "sum", data, sum(data).to_bytes(8, "little"))

    def command(self) -> None:
        data = self.data()
        self.use(self.tool(), "command", data, (len(data) + 1).to_bytes(8, "little"))

    def shout(self) -> None:
        self.use(self.tool(), "shout", b"some text", b"SOME TEXT")

    def count(self) -> None:
        """Check that an instance is kept after a successful call and never used again after an
        unwound one."""
        tool = self.tool()
        if tool.shared or tool.count is None:
            return
        expected = tool.count + 1
        output = self.use(tool, "count", b"", expected.to_bytes(8, "little"))
        if output is not None:
            assert number(output) == expected
            tool.count = expected

    def view(self) -> None:
        """Check that views and objects made from them can be kept any length of time."""
        tool, data = self.tool(), self.data()
        if tool.shared:
            return
        view = self.use(tool, "echo", data, data, parse=None)
        if view is not None:
            if self.random.random() < 0.5:
                self.kept.append(view[: len(data) // 2])
            self.kept.append(view)
        for kept in [kept for kept in self.kept if isinstance(kept, memoryview)][-3:]:
            try:
                bytes(kept)
            except ValueError as error:
                assert "released" in str(error)
        while len(self.kept) > 10:
            self.kept.pop(self.random.randrange(10))

    def complain(self) -> None:
        data = self.data()
        self.use(
            self.tool(),
            "complain",
            data,
            lambda e: type(e) is plugwasm.GuestError and e.guest_message == data.decode(),
        )

    def code(self) -> None:
        code = self.random.randrange(1, 128)
        self.use(
            self.tool(),
            "code",
            bytes([code]),
            lambda e: type(e) is plugwasm.GuestError and e.code == code,
        )

    def trap(self) -> None:
        self.use(
            self.tool(),
            "trap",
            b"",
            lambda e: type(e) is plugwasm.TrapError and e.trap == "unreachable" and e.backtrace,
        )

    def recurse(self) -> None:
        self.use(
            self.tool(),
            "recurse",
            b"",
            lambda e: type(e) is plugwasm.TrapError and e.trap == "stack overflow",
        )

    def exit(self) -> None:
        code = self.random.randrange(0, 128)
        tool = self.tool()
        if code:
            self.use(
                tool,
                "exit",
                bytes([code]),
                lambda e: type(e) is plugwasm.ExitError and e.code == code,
            )
        elif self.use(tool, "exit", b"\0", b"") is not None and tool.count is not None:
            tool.count = 0

    def spin(self) -> None:
        """Run an endless loop or a long sleep, which something must end."""
        tool = self.tool()
        timer = None
        if tool.timeout is None and not tool.fuel:
            timer = threading.Timer(self.random.uniform(0, 0.02), self._insist, [tool])
            timer.start()
        self.use(
            tool,
            self.random.choice(("spin", "sleep") if not tool.fuel else ("spin",)),
            b"",
            lambda e: False,
        )
        if timer is not None:
            timer.finished.set()
            timer.join()

    def _insist(self, tool: Tool) -> None:
        """Cancel until the call has ended, since the first cancellation may have come before it
        began."""
        finished = threading.current_thread().finished  # type: ignore[attr-defined]
        while True:
            tool.cancel()
            if finished.wait(0.005) or tool.closed:
                return

    def nothing(self) -> None:
        self.use(self.tool(), "nothing", b"", lambda e: type(e) is plugwasm.FunctionNotFoundError)

    def config(self) -> None:
        tool = self.tool()
        if tool.shared:
            return
        value = f"{self.random.random()}"
        tool.plugin.update_config({"k": value})
        self.use(tool, "config", b"", value.encode())

    # ---- host functions --------------------------------------------------------------------------

    def raises(self) -> None:
        """Check that each caller gets the exception object of its own host function."""
        kind = self.random.choice(
            (
                ValueError,
                KeyError,
                SystemExit,
                GeneratorExit,
                Alarm,
                plugwasm.TrapError,
                MemoryError,
                RecursionError,
            )
        )
        raised = kind(f"{threading.get_ident()}")

        def do(current: plugwasm.CurrentPlugin, data: bytes) -> bytes:
            raise raised

        self.use(
            self.tool(),
            "ask",
            self.data(),
            lambda e: type(e) is plugwasm.HostFunctionError and e.__cause__ is raised,
            Errand(do),
        )
        raised.__traceback__ = None

    def interrupts(self) -> None:
        tool = self.tool()

        def do(current: plugwasm.CurrentPlugin, data: bytes) -> bytes:
            raise KeyboardInterrupt

        try:
            self.use(tool, "ask", b"a", lambda e: False, Errand(do))
        except KeyboardInterrupt:
            tool.count = 0 if tool.count is not None else None

    def asks(self) -> None:
        """Call a host function that performs a task and returns a result."""
        data = self.data()[:5000]
        errand = getattr(self, f"_and_{self.random.choice(self.hammer.errands)}")
        tool = self.tool()
        answer = data.swapcase()

        def do(current: plugwasm.CurrentPlugin, got: bytes) -> bytes:
            if got != data:
                raise Unexplained("another call's input")
            errand(tool, current)
            return answer

        self.use(tool, self.random.choice(("ask", "ask_twice")), data, answer, Errand(do))

    def _and_nothing(self, tool: Tool, current: plugwasm.CurrentPlugin) -> None:
        pass

    def _and_collect(self, tool: Tool, current: plugwasm.CurrentPlugin) -> None:
        gc.collect(self.random.randrange(3))

    def _and_sleep(self, tool: Tool, current: plugwasm.CurrentPlugin) -> None:
        time.sleep(self.random.choice((0, 0.001, 0.005)))

    def _and_call_another(self, tool: Tool, current: plugwasm.CurrentPlugin) -> None:
        """Call another plugin, sometimes one that nothing else refers to."""
        other = self.hammer.new(self.random) if self.random.random() < 0.5 else self.tool()
        if other is not tool:
            data = self.data()
            self.use(other, "echo", data, data)

    def _and_call_itself(self, tool: Tool, current: plugwasm.CurrentPlugin) -> None:
        for attempt in (lambda: tool.plugin.call("echo"), tool.plugin.reset):
            try:
                attempt()
            except plugwasm.BusyError:
                continue
            raise Unexplained("a plugin was entered a second time")

    def _and_close(self, tool: Tool, current: plugwasm.CurrentPlugin) -> None:
        if not tool.shared:
            tool.close()
            self.own[:] = [kept for kept in self.own if kept is not tool]

    def _and_cancel(self, tool: Tool, current: plugwasm.CurrentPlugin) -> None:
        if self.random.random() < 0.5:
            tool.cancel()

    def _and_drop(self, tool: Tool, current: plugwasm.CurrentPlugin) -> None:
        """Drop plugins that nothing else refers to, some of them unfinished, and some in cycles."""
        dropped = [Tool(self.hammer.plain) for _ in range(3)]
        for other in dropped:
            other.plugin.call("count")
        cycle: list[Any] = [dropped]
        cycle.append(cycle)

    def _and_keep(self, tool: Tool, current: plugwasm.CurrentPlugin) -> None:
        """Check that objects kept after a call are refused later and harmless to read."""
        memory = current.alloc(1000)
        self.kept += [current.memory(memory), current.memory(memory)[10:20]]
        current.free(memory)
        late = next((kept for kept in self.kept if isinstance(kept, plugwasm.CurrentPlugin)), None)
        if late is not None:
            try:
                late.alloc(10)
            except plugwasm.ClosedError:
                pass
            else:
                raise Unexplained("a CurrentPlugin that was kept could be used")
        self.kept.append(current)
        self.kept[:] = self.kept[-8:]

    def _and_allocate(self, tool: Tool, current: plugwasm.CurrentPlugin) -> None:
        blocks = []
        for size in (1, 33, 5000, 100_000):
            blocks.append(current.alloc(size))
            current.memory(blocks[-1])[:] = bytes([size & 127]) * size
        current.set_var("x", b"1")
        for size, block in zip((1, 33, 5000, 100_000), blocks, strict=True):
            if current.memory(block) != bytes([size & 127]) * size:
                raise Unexplained("a block of the host has changed")
            current.free(block)

    def _and_another_thread(self, tool: Tool, current: plugwasm.CurrentPlugin) -> None:
        """Let another thread use the host function's arguments while it waits."""
        got: list[Any] = []
        block = current.alloc(77)

        def attempt() -> None:
            try:
                got.append(current.memory_at_offset(block.offset).length)
            except BaseException as error:
                got.append(error)

        thread = threading.Thread(target=attempt)
        thread.start()
        thread.join()
        if isinstance(got[0], BaseException):
            raise got[0]
        if got != [77]:
            raise Unexplained(f"another thread got {got}")

    def _and_fork(self, tool: Tool, current: plugwasm.CurrentPlugin) -> None:
        self.fork()

    # ---- life and death --------------------------------------------------------------------------

    def compile(self) -> None:
        """Compile a new module, call it and drop it, its compiled plugin first."""
        secret = f"{self.random.randrange(10**6)}"
        module = CompiledPlugin(guest(export("f", f"(call $give <<{secret}>>)")))
        plugins = [Plugin(module) for _ in range(self.random.randrange(1, 6))]
        del module
        for plugin in plugins:
            if plugin.call("f") != secret.encode():
                raise Unexplained("the wrong module")

    def broken(self) -> None:
        for source in (
            b"\0asm\1\0\0\0\1",
            "(module (func (unreachable))",
            '(module (import "no" "body" (func)))',
        ):
            try:
                Plugin(source)
            except (plugwasm.ModuleError, plugwasm.LinkError, plugwasm.SourceError):
                continue
            raise Unexplained("a broken module was taken")

    def burst(self) -> None:
        """Create many plugins at once, so that the pool is used up, then drop them all."""
        tools = [
            Tool(self.hammer.plain) for _ in range(self.random.randrange(1, self.hammer.burst))
        ]
        for tool in tools:
            tool.plugin.call("count")
        for tool in tools:
            if number(tool.plugin.call("count")) != 2:
                raise Unexplained("plugins that live at once share something")
            if self.random.random() < 0.3:
                tool.close()

    def reset(self) -> None:
        tool = self.tool()
        try:
            tool.plugin.reset()
            if tool.count is not None:
                tool.count = 0
        except plugwasm.BusyError:
            if not tool.shared:
                raise

    def close_shared(self) -> None:
        """Close a plugin that others use, perhaps during a call."""
        if self.random.random() < 0.2:
            self.hammer.replace(self.random)

    def cancel_shared(self) -> None:
        tool = self.random.choice(self.hammer.shared)
        tool.cancel()

    def hand_over(self) -> None:
        """Drop the last reference to a plugin in another thread than the one that used it."""
        tool = Tool(self.hammer.plain)
        tool.plugin.call("count")
        seen = weakref.ref(tool.plugin, lambda _: self.done.update(["collected"]))
        assert seen() is not None
        self.hammer.found.append(tool)
        if len(self.hammer.found) > 5:
            try:
                self.hammer.found.pop(0)
            except IndexError:
                pass

    def collect(self) -> None:
        gc.collect(self.random.randrange(3))

    def fork(self) -> None:
        """Fork: the child calls, times out and cancels with a plugin of its parent's and with
        one of its own."""
        tool = Tool(self.hammer.plain)
        tool.plugin.call("count")
        pid = os.fork()
        if pid == 0:
            status = 1
            faulthandler.register(signal.SIGALRM, chain=True)
            signal.alarm(20)
            try:
                status = self._in_child(tool)
            except BaseException as error:
                print(repr(error), file=sys.stderr)
            finally:
                os._exit(status)
        _, status = os.waitpid(pid, 0)
        if status:
            raise Unexplained(
                f"a forked child ended with the status {status}; of a hang its stack is above"
            )

    def _in_child(self, tool: Tool) -> int:
        self.use(tool, "echo", b"in the child", b"in the child")
        self.use(self.hammer.new(self.random), "echo", b"in the child", b"in the child")
        with Plugin(self.hammer.quick) as quick:
            try:
                quick.call("spin")
            except plugwasm.TimeoutError:
                return 0
        return 2
