"""A plugin's log, as records of the standard library's logging: one logger for each plugin, below
`plugwasm.plugin`.

A plugin may log as much as its limits say; the rest is dropped, and counted. The record that
follows a flood says how much was lost.

A message keeps its lines, and each but the first is indented. So it can be read, and none of its
lines can pass for a record. `strip_indentation` reverts that for those who tell records apart by
other means.

Decisions: docs/decisions.md, 35.3.
"""

from __future__ import annotations

from time import monotonic

from ..errors import truncate

TYPE_CHECKING = False
if TYPE_CHECKING:
    import logging
    from typing import Any

    from .._manifest.limits import Limits

TRACE = 5
"""The level of `log_trace`, below `logging.DEBUG`."""
LEVELS = {"trace": TRACE, "debug": 10, "info": 20, "warn": 30, "error": 40}
LEVEL_OFF = 2**31 - 1
MAX_MESSAGE = 65536
"""Characters of a message that are kept."""
BURST_SECONDS = 10
"""A plugin may log at once what its limits allow it in that time."""

_CONTROL = {i: f"\\x{i:02x}" for i in (*range(32), *range(127, 160)) if i not in (9, 10)}
# Characters beyond ASCII that end a line or change its direction.
_CONTROL |= {
    i: f"\\u{i:04x}"
    for i in (0x061C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A))
}


MAX_LINES = 200
"""Lines of a traceback that are logged."""
_INDENT = "\n    "


def get_logger(name: str) -> logging.Logger:
    """Return the logger `plugwasm.NAME`.

    As with any library, nothing of it reaches stderr unless the application has set up logging.
    """
    import logging

    top = logging.getLogger("plugwasm")
    # No generator: what a signal handler raises while one is closed is lost.
    for handler in top.handlers:
        if isinstance(handler, logging.NullHandler):
            break
    else:
        top.addHandler(logging.NullHandler())
    return top.getChild(name)


def strip_indentation(message: str) -> str:
    """Return the message of a plugin's record without the indentation of its lines."""
    return message.replace(_INDENT, "\n")


def _lowest_level(logger: logging.Logger) -> int | None:
    """Return the lowest level that a handler of the logger takes, or None if there is none."""
    import logging

    lowest, at = None, logger
    while True:
        for handler in at.handlers:
            if not isinstance(handler, logging.NullHandler) and (
                lowest is None or handler.level < lowest
            ):
                lowest = handler.level
        if not at.propagate or at.parent is None:
            return lowest
        at = at.parent


def log_exception(logger: logging.Logger, message: str) -> None:
    """Log the exception that is being handled, as `Logger.exception` does.

    Messages of exceptions come from anywhere, also with lines that look like records. So each line
    of the traceback is escaped and indented.
    """
    import sys
    import traceback

    kind, error, frames = sys.exc_info()
    if error is None or not logger.isEnabledFor(LEVELS["error"]):
        return
    lines = "".join(traceback.format_exception(error)).rstrip("\n").split("\n")
    if len(lines) > MAX_LINES:
        lines[MAX_LINES // 2 : -MAX_LINES // 2] = [f"… ({len(lines) - MAX_LINES} more lines)"]
    file, line, function, _ = logger.findCaller(stacklevel=2)
    level, exc_info = LEVELS["error"], (kind, error, frames)
    record = logger.makeRecord(logger.name, level, file, line, message, (), exc_info, function)  # type: ignore[arg-type]
    record.exc_text = "\n".join(f"    {truncate(line, 1000)}" for line in lines)
    logger.handle(record)


class TokenBucket:
    """A limit on how much may pass per second, averaged over `BURST_SECONDS`. A rate of None means
    unlimited.
    """

    __slots__ = ("_left", "_rate", "_seen")

    def __init__(self, per_second: int | None) -> None:
        self._rate = per_second
        self._left = float(BURST_SECONDS * (per_second or 0))
        self._seen = monotonic()

    def has(self, amount: int) -> bool:
        """Return whether so much may pass now. It is not taken yet."""
        if self._rate is None:
            return True
        now = monotonic()
        self._left = min(self._left + (now - self._seen) * self._rate, BURST_SECONDS * self._rate)
        self._seen = now
        return self._left >= amount

    def take(self, amount: int) -> None:
        """Take so much of what may pass."""
        self._left -= amount


class PluginLog:
    """The log of the plugins of one compiled plugin.

    The logger is looked up when something is logged, since most plugins never log.

    Attributes:
        dropped: How many lines were dropped because they were too many.
    """

    __slots__ = (
        "_bytes",
        "_limits",
        "_lines",
        "_logger",
        "_silence",
        "_unreported",
        "dropped",
        "name",
    )

    def __init__(self, name: str, limits: Limits) -> None:
        self.name: str = name
        self.dropped: int = 0
        self._unreported = 0
        self._limits = limits
        self._lines: TokenBucket | None = None
        self._bytes: TokenBucket | None = None
        self._logger: logging.Logger | None = None
        self._silence: _Silence | None = None

    @property
    def logger(self) -> logging.Logger:
        """`plugwasm.plugin.NAME`."""
        if self._logger is None:
            self._logger = get_logger(f"plugin.{self.name.replace('.', '_')}")
        return self._logger

    def write(self, level: str, message: str, function: str | None = None) -> None:
        """Log a message of the guest.

        It is text from outside, so control characters are escaped, lines are indented, and its
        length is capped. Each line counts towards the limit. The record has the fields `plugin`,
        and `function` for the export that runs.
        """
        if not self.logger.isEnabledFor(LEVELS[level]) or not self._take_line():
            return
        more = (
            f"… ({len(message) - MAX_MESSAGE} more characters)"
            if len(message) > MAX_MESSAGE
            else ""
        )
        text = message[:MAX_MESSAGE]
        if not text.isprintable():
            text = text.replace("\r\n", "\n").rstrip("\n").translate(_CONTROL)
            if self._lines is not None and (further := text.count("\n")):
                self._lines.take(further)
                text = text.replace("\n", _INDENT)
        text += more
        if self._bytes is not None:  # counted as written: an escaped character is four
            self._bytes.take(len(text) if text.isascii() else len(text.encode("utf-8", "replace")))
        self.logger.log(
            LEVELS[level],
            "%s",
            text,
            extra={"plugin": self.name, "function": function and truncate(function)},
        )

    def _take_line(self) -> bool:
        if self._lines is None or self._bytes is None:
            self._lines = TokenBucket(self._limits.log_lines_per_second)
            self._bytes = TokenBucket(self._limits.log_bytes_per_second)
        # After a flood, resume only when there is room for a while. Otherwise each line would come
        # with two that report the loss.
        lines = max(1, self._limits.log_lines_per_second or 0) if self._unreported else 1
        if not (self._lines.has(lines) and self._bytes.has(1)):
            self.dropped += 1
            self._unreported += 1
            if self._unreported == 1:
                self._warn(
                    "the plugin logs too much; lines are dropped (`Limits.log_lines_per_second`, "
                    "`log_bytes_per_second`)"
                )
            return False
        self._lines.take(1)
        if self._unreported:
            self._warn("%d lines of the plugin were dropped", self._unreported)
            self._unreported = 0
        return True

    def _warn(self, message: str, *args: int) -> None:
        self.logger.warning(
            message,
            *args,
            extra={"plugin": self.name, "function": None, "lines_dropped": self.dropped},
        )

    def write_line(self, level: str, line: bytes, lost: int, function: str | None = None) -> None:
        """Log a line that the guest wrote to its stdout or stderr, cut by `lost` bytes."""
        text = line.decode("utf-8", "replace")
        self.write(level, f"{text}… ({lost} more bytes)" if lost else text, function)

    def level(self) -> int:
        """Return the result of `get_log_level`: the number of the lowest level that is kept."""
        logger = self.logger
        lowest = _lowest_level(logger)
        if lowest is not None:
            for number, value in enumerate(LEVELS.values()):
                if value >= lowest and logger.isEnabledFor(value):
                    return number
        return LEVEL_OFF

    def lowest_heard(self) -> int:
        """Return 1 + the number of the lowest level of messages that anyone would hear, 6 if no one
        would hear any, or 0 if that cannot be told: for the table of a kernel.
        """
        import logging

        logger = self.logger
        call_handlers: Any = logging.Logger.callHandlers
        if (
            type(logger) is not logging.Logger
            or logger.filters
            # Some tools that collect errors put a function of their own in its place.
            or getattr(call_handlers, "__code__", None) is None
            or call_handlers.__code__.co_filename != logging.Logger.addHandler.__code__.co_filename
        ):
            return 0
        level = self.level()
        self._silence = _Silence.of(logger) if level == LEVEL_OFF else None
        return min(level, len(LEVELS)) + 1

    def is_still_unheard(self) -> bool:
        """Return whether the reason for which `lowest_heard` last said that no one hears anything
        still holds. It takes less time than to find out anew, and may be wrong if it says no.
        """
        return self._silence is not None and self._silence.lasts()


class _Silence:
    """A logger whose messages no handler can get, whatever their level and the loggers' settings.

    There are four loggers: that of the plugin, `plugwasm.plugin`, `plugwasm`, and the root.
    """

    __slots__ = ("_call_handlers", "_handlers", "_loggers")

    def __init__(self, loggers: list[Any]) -> None:
        self._loggers = loggers
        self._handlers = [list(logger.handlers) for logger in loggers]
        self._call_handlers = loggers[0].__class__.callHandlers

    @classmethod
    def of(cls, own: logging.Logger) -> _Silence | None:
        """Return the silence of a logger, or None if one of the four has handlers."""
        import logging

        get_logger("plugin")  # so that it cannot come between the others later
        loggers: list[logging.Logger] = []
        at: logging.Logger | None = own
        while at is not None:
            loggers.append(at)
            at = at.parent
        is_silent = len(loggers) == 4 and all(
            isinstance(handler, logging.NullHandler)
            for logger in loggers
            for handler in logger.handlers
        )
        return cls(loggers) if is_silent else None

    def lasts(self) -> bool:
        """Return whether the loggers have the same handlers as before."""
        own, plugins, package, root = self._loggers
        return (
            [own.handlers, plugins.handlers, package.handlers, root.handlers] == self._handlers
            and not own.filters
            and own.__class__.callHandlers is self._call_handlers
        )
