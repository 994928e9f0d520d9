"""What happened while a plugin ran, as a test looks at it. The text of each is its line in `Harness.transcript`."""

from __future__ import annotations

from dataclasses import dataclass, field

from .._host.observed_values import shorten
from ..errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


def _format_outcome(error: BaseException | None, well: str) -> str:
    if error is None:
        return f"-> {well}"
    lines = (error.message if isinstance(error, Error) else str(error)).splitlines()
    return f"raised {type(error).__name__}" + (f": {lines[0]}" if lines else "")


def _format_inner_outcome(error: BaseException | None, well: str) -> str:
    """The same for what ended in a call, which says in its own line why."""
    return (
        f"raised {type(error).__name__}"
        if isinstance(error, Error)
        else _format_outcome(error, well)
    )


@dataclass(eq=False, slots=True)
class Call:
    """A call of the plugin.

    Attributes:
        function: The export.
        input: What it was given.
        output: What it gave back; None when it failed.
        error: What it raised.
        fuel: What it used; about one unit an instruction.
        seconds: How long it took, host functions included.
        memory_bytes: How much memory the instance had afterwards, and so at most; None when the call cost the instance its life, or the
            plugin has memories that the host cannot see.
    """

    function: str
    input: Any
    output: Any = None
    error: BaseException | None = None
    fuel: int = 0
    seconds: float = 0.0
    memory_bytes: int | None = None
    done: bool = field(default=False, repr=False)

    def __str__(self) -> str:
        call = f"{self.function}({shorten(self.input) if self.input else ''})"
        if not self.done:
            return f"{call} is under way"
        return f"{call} {_format_outcome(self.error, shorten(self.output))} ({self.fuel} fuel)"


Call.__module__ = "plugwasm.testing"


@dataclass(eq=False, slots=True)
class HostCall:
    """A call of a host function by the plugin.

    Attributes:
        namespace, name: Of the function.
        args: What the plugin passed. By the types that were given (`Harness.host`), or the annotations of the application's function. Where
            there are none, an i64 is the bytes of the block that it is a handle of, if it is one, and else a number.
        result: What the function returned, by the same rules.
        error: What it raised.
    """

    namespace: str
    name: str
    args: tuple[Any, ...]
    result: Any = None
    error: BaseException | None = None

    def __str__(self) -> str:
        return f"host {self.name}({', '.join(map(shorten, self.args))}) {_format_inner_outcome(self.error, shorten(self.result))}"


HostCall.__module__ = "plugwasm.testing"


@dataclass(eq=False, slots=True)
class Request:
    """An HTTP request of the plugin, and how it was answered. Of a redirect, each hop is one.

    Attributes:
        method: In upper case.
        url: In canonical form.
        headers: By name, in any case.
        body: Empty when there is none.
        status: Of the answer; None when there was none.
        error: What stood in its place.
    """

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes
    status: int | None = None
    error: BaseException | None = None

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()

    def json(self) -> Any:
        """The body as what its JSON says."""
        import json

        return json.loads(self.body)

    def __str__(self) -> str:
        sent = f"{self.method} {self.url}" + (f" with {shorten(self.body)}" if self.body else "")
        return f"{sent} {_format_inner_outcome(self.error, str(self.status))}"


Request.__module__ = "plugwasm.testing"


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line of the plugin's log: "trace", "debug", "info", "warn" or "error", and the message."""

    level: str
    message: str

    def __str__(self) -> str:
        return f"{self.level}: {self.message}"


LogLine.__module__ = "plugwasm.testing"
