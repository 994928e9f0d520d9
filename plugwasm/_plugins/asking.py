"""How a set calls its plugins: whose fault what is raised is, and which output is an answer."""

from __future__ import annotations

from ..errors import OptionError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Unparsed", "guarded", "unless_empty"]


class Unparsed(Exception):
    """The application's `parse` raised."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(reason)
        self.reason = reason


def guarded(options: dict[str, Any]) -> dict[str, Any]:
    """Options for calls whose `parse` raises nothing but `Unparsed`."""
    parse = options.get("parse", bytes)
    if parse is None:
        raise OptionError("parse: a plugin set gives no views, for the instance serves other calls next; leave it out to get bytes")
    if parse is bytes:
        return options

    def parsed(output: bytes) -> Any:
        try:
            return parse(output)
        except Exception as error:
            raise Unparsed(error) from error

    return options | {"parse": parsed}


def unless_empty(plugin: str, hook: str, data: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Data and options for a call that gives None for an output that is empty."""
    others = dict(options)
    returns, codec, parse = others.pop("returns", None), others.pop("codec", None), others.pop("parse", bytes)
    if returns is not None or codec is not None:
        from ..codecs import typed_call

        data, parse = typed_call(hook, data, parse, returns, codec, plugin)
    return data, others | {"parse": lambda output: parse(output) if output else None}
