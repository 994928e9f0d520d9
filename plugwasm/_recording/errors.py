"""What is wrong with a recording, and what is different now."""

from __future__ import annotations

from ..errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["RecordingError", "ReplayError"]


class RecordingError(Error):
    """A recording cannot be read, or cannot be replayed because something is missing in it."""


class ReplayError(Error, AssertionError):
    """A replayed plugin did something else than when it was recorded; the message says what, and in which call.

    Attributes:
        call: The number of the call, counted from 1; None when the plugin could not even be loaded.
        host_call: The number of the host call in it, or None.
        recorded, now: What was recorded, and what happened now, as text.
    """

    def __init__(
        self,
        message: str = "",
        *,
        call: int | None = None,
        host_call: int | None = None,
        recorded: str = "",
        now: str = "",
        **fields: Any,
    ) -> None:
        super().__init__(message, **fields)
        self.call = call
        self.host_call = host_call
        self.recorded = recorded
        self.now = now
