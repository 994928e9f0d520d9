"""The fuel, time and memory that calls use, and assertions on them."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from ._harness import Harness
    from ._records import Call


class Usage:
    """The fuel, time and memory of the calls in a block (`Harness.at_most`), once it has ended.

    Attributes:
        calls: The calls.
        fuel, seconds: The fuel and the time of all calls together.
        memory_bytes: The most memory that an instance had after a call; None if that is not known.
    """

    __module__ = "plugwasm.testing"

    def __init__(
        self, harness: Harness, fuel: int | None, seconds: float | None, memory_bytes: int | None
    ) -> None:
        self._harness = harness
        self._most = fuel, seconds, memory_bytes
        self._first = 0
        self.calls: list[Call] = []
        self.fuel: int = 0
        self.seconds: float = 0.0
        self.memory_bytes: int | None = None

    def __enter__(self) -> Self:
        self._first = len(self._harness.calls)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        __tracebackhide__ = True
        self.calls = self._harness.calls[self._first :]
        self.fuel = sum(call.fuel for call in self.calls)
        self.seconds = sum(call.seconds for call in self.calls)
        self.memory_bytes = max(
            (call.memory_bytes for call in self.calls if call.memory_bytes is not None),
            default=None,
        )
        if kind is None:
            self._check(f"plugin `{self._harness.name}`")

    def _check(self, plugin: str) -> None:
        __tracebackhide__ = True
        if not self.calls:
            raise AssertionError(
                f"no export of {plugin} was called in the block whose calls were to be measured"
            )
        fuel, seconds, memory_bytes = self._most
        if memory_bytes is not None and self.memory_bytes is None:
            raise AssertionError(
                f"the memory of {plugin} cannot be measured: it has several, or does not export "
                "its own"
            )
        over = [
            f"{took:{shape}} {what}, but at most {most:{shape}} was expected"
            for what, took, most, shape in (
                ("fuel", self.fuel, fuel, ","),
                ("seconds", self.seconds, seconds, ".3g"),
                ("bytes of memory", self.memory_bytes or 0, memory_bytes, ","),
            )
            if most is not None and took > most
        ]
        if over:
            calls = "\n".join(f"  {call}" for call in self.calls[:10])
            rest = f"\n  and {len(self.calls) - 10} more" if len(self.calls) > 10 else ""
            raise AssertionError(f"{plugin} took {', and '.join(over)}:\n{calls}{rest}")

    def __repr__(self) -> str:
        return (
            f"<Usage: {len(self.calls)} calls, {self.fuel} fuel, {self.seconds:.3g} s, "
            f"{self.memory_bytes} bytes of memory>"
        )
