"""The lines that a plugin logs, recorded on their way to the application's handlers."""

from __future__ import annotations

import logging

from .._host.plugin_log import LEVELS, get_logger, strip_indentation
from ..errors import OptionError
from ._records import LogLine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_NAMES = {number: name for name, number in LEVELS.items()}


class Logs:
    """The lines that a plugin logged, with its stdout (info) and stderr (warn), in order."""

    __module__ = "plugwasm.testing"

    def __init__(self) -> None:
        self._lines: list[LogLine] = []

    def messages(self, level: str | None = None) -> list[str]:
        """Return the messages of one level, or of all.

        Args:
            level: "trace", "debug", "info", "warn" or "error"; None for all.
        """
        if level is not None and level not in LEVELS:
            raise OptionError(f"Logs.messages: expected one of {', '.join(LEVELS)}, got {level!r}")
        return [line.message for line in self._lines if level in (None, line.level)]

    def clear(self) -> None:
        """Remove all lines."""
        self._lines.clear()

    def __iter__(self) -> Iterator[LogLine]:
        return iter(self._lines)

    def __len__(self) -> int:
        return len(self._lines)

    def __repr__(self) -> str:
        return f"<Logs: {', '.join(map(str, self._lines)) or 'nothing'}>"


class RecordingLogger(logging.Logger):
    """Records lines, and passes them on to the logger of that name.

    So the application's logging stays as it is.

    Args:
        name: The name of the logger that would have been used.
        level: The lowest level that is recorded; the plugin can ask for it.
        record: Called with each line.
    """

    def __init__(self, name: str, level: str, record: Callable[[LogLine], None]) -> None:
        if level not in LEVELS:
            raise OptionError(f"log_level: expected one of {', '.join(LEVELS)}, got {level!r}")
        super().__init__(name, LEVELS[level])
        self.parent = get_logger(name.removeprefix("plugwasm."))
        self.addHandler(_RecordingHandler(record))


class _RecordingHandler(logging.Handler):
    def __init__(self, record: Callable[[LogLine], None]) -> None:
        super().__init__()
        self._record = record

    def emit(self, record: logging.LogRecord) -> None:
        self._record(
            LogLine(
                _NAMES.get(record.levelno, record.levelname.lower()),
                strip_indentation(record.getMessage()),
            )
        )
