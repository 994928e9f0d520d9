"""What plugins log, as records of the standard library's logging: one logger for each plugin, below `plugwasm.plugin`."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import logging

TRACE = 5
"""The level of `log_trace`, below `logging.DEBUG`."""
LEVELS = {"trace": TRACE, "debug": 10, "info": 20, "warn": 30, "error": 40}
OFF = 2**31 - 1
MAX_MESSAGE = 65536
"""Characters of a message that are kept."""

_CONTROL = {i: f"\\x{i:02x}" for i in (*range(32), *range(127, 160)) if i != 9}


class PluginLog:
    """The log of one plugin. The logger is looked up when something is logged, since most plugins never do."""

    __slots__ = ("_logger", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self._logger: logging.Logger | None = None

    @property
    def logger(self) -> logging.Logger:
        """`plugwasm.plugin.NAME`."""
        if self._logger is None:
            import logging

            self._logger = logging.getLogger(f"plugwasm.plugin.{self.name.replace('.', '_')}")
        return self._logger

    def write(self, level: str, message: str) -> None:
        """Logs a message of the guest: text from outside, so its control characters are escaped, line ends too and its length is capped."""
        if not self.logger.isEnabledFor(LEVELS[level]):
            return
        if len(message) > MAX_MESSAGE:
            message = f"{message[:MAX_MESSAGE]}… ({len(message) - MAX_MESSAGE} more characters)"
        self.logger.log(LEVELS[level], "%s", message.translate(_CONTROL))

    def write_line(self, level: str, line: bytes, lost: int) -> None:
        """Logs a line that the guest wrote to its stdout or stderr; `lost` bytes of it were cut off."""
        text = line.decode("utf-8", "replace")
        self.write(level, f"{text}… ({lost} more bytes)" if lost else text)

    def level(self) -> int:
        """What `get_log_level` answers: the number of the lowest level that would be kept."""
        logger = self.logger
        for number, value in enumerate(LEVELS.values()):
            if logger.isEnabledFor(value):
                return number
        return OFF
