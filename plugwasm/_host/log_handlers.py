"""The logging functions of the official Python SDK, on top of the standard library's logging.

Plugins log to loggers below `plugwasm.plugin`; an application that uses `logging` need not call
anything here.

Decisions: docs/decisions.md, 35.4.
"""

from __future__ import annotations

import logging
import os
from collections import deque

from ..errors import OptionError
from .plugin_log import LEVELS, TRACE, strip_indentation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal

    Level = Literal["trace", "debug", "info", "warn", "error"]

__all__ = ["CustomLogger", "set_log_custom", "set_log_file"]

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_MAX_RECORDS = 10_000


def _attach_handler(handler: logging.Handler, level: Level | None) -> None:
    if level is not None and level not in LEVELS:
        raise OptionError(f"level is one of {', '.join(LEVELS)}, not {level!r}")
    logging.addLevelName(TRACE, "TRACE")
    handler.setFormatter(logging.Formatter(_FORMAT))
    logger = logging.getLogger("plugwasm")
    value = LEVELS[level or "info"]
    handler.setLevel(value)
    logger.addHandler(handler)
    if logger.level == logging.NOTSET or logger.level > value:
        logger.setLevel(value)


def set_log_file(file: str, level: Level | None = None) -> None:
    """Write what plugins and plugwasm log to a file, for the whole process.

    Args:
        file: The path; records are appended. "stdout" and "stderr" stand for those.
        level: The lowest level that is written; "info" if not given.
    """
    import sys

    if not isinstance(file, (str, os.PathLike)):
        raise OptionError(
            f'set_log_file: expected a path, "stdout" or "stderr", got {type(file).__name__}',
            field="file",
        )
    if file in ("stdout", "stderr"):
        _attach_handler(logging.StreamHandler(getattr(sys, file)), level)
    else:
        _attach_handler(logging.FileHandler(file, encoding="utf-8", delay=True), level)


set_log_file.__module__ = "plugwasm"


class CustomLogger(logging.Handler):
    """Keep the last 10,000 records until `drain` is called.

    Messages of plugins keep their lines without indentation.
    """

    __module__ = "plugwasm"

    def __init__(self, f: Callable[[str], object]) -> None:
        super().__init__()
        self.callback: Callable[[str], object] = f
        self._records: deque[str] = deque(maxlen=_MAX_RECORDS)

    def set_callback(self, f: Callable[[str], object]) -> None:
        """Change the function that `drain` calls."""
        self.callback = f

    def emit(self, record: logging.LogRecord) -> None:
        if hasattr(record, "plugin") and "\n" in (message := record.getMessage()):
            record = logging.makeLogRecord(
                {**record.__dict__, "msg": strip_indentation(message), "args": None}
            )
        self._records.append(self.format(record) + "\n")

    def drain(self) -> None:
        """Call the function with each record that was kept, as text with a line end, and forget
        them.
        """
        while self._records:
            self.callback(self._records.popleft())


def set_log_custom(f: Callable[[str], object], level: Level | None = None) -> CustomLogger:
    """Keep what plugins and plugwasm log, for the whole process, until the returned logger is
    drained.

    Args:
        f: Called by `drain` with each record, as text. A plugin's message may have several lines.
        level: The lowest level that is kept; "info" if not given.
    """
    if not callable(f):
        raise OptionError(
            f"set_log_custom: expected a function that takes a line, got {type(f).__name__}",
            field="f",
        )
    logger = CustomLogger(f)
    _attach_handler(logger, level)
    return logger


set_log_custom.__module__ = "plugwasm"
