"""Records of what happened while a plugin ran, for tests.

`str` of each is its line in `Harness.transcript`.
"""

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
    """Format the end of something within a call, whose own line says why it failed."""
    return (
        f"raised {type(error).__name__}"
        if isinstance(error, Error)
        else _format_outcome(error, well)
    )


@dataclass(eq=False, slots=True)
class Call:
    """A call of the plugin.

    Attributes:
        function: The name of the export.
        input: The input.
        output: The output; None when the call failed.
        error: The exception that the call raised; None when it ended well.
        fuel: The fuel that the call used, about one unit an instruction.
        seconds: How long the call took, with host functions.
        memory_bytes: The memory of the instance after the call, which is the most that it had. None
            when the call ended the instance, or the plugin has memories that the host cannot see.
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
        namespace, name: The namespace and the name of the function.
        args: The arguments. Their types are those that were given (`Harness.host`), or the
            annotations of the application's function. If there are none, an i64 that is a handle
            becomes the bytes of its block, and any other a number.
        result: The result of the function, by the same rules.
        error: The exception that it raised; None when it ended well.
    """

    namespace: str
    name: str
    args: tuple[Any, ...]
    result: Any = None
    error: BaseException | None = None

    def __str__(self) -> str:
        call = f"host {self.name}({', '.join(map(shorten, self.args))})"
        return f"{call} {_format_inner_outcome(self.error, shorten(self.result))}"


HostCall.__module__ = "plugwasm.testing"


@dataclass(eq=False, slots=True)
class Request:
    """An HTTP request of the plugin, and how it ended. Each hop of a redirect is a request.

    Attributes:
        method: The method in upper case.
        url: The URL in canonical form.
        headers: The headers by name, in any case.
        body: The body; empty when there is none.
        status: The status of the response; None when there was none.
        error: The exception in place of a response; None when there was a response.
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
        """Decode the body as JSON."""
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
