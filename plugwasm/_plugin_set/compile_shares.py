"""How the plugins that a set loads at once share the time for compiling, so that none can use up that of the others.

The time is what `Limits` give one plugin. Each in its turn may take as much of what is left as those after it; what it leaves is theirs.
Those that this was not enough for are tried once more, with what all others left. So loading takes no longer than compiling one plugin
may, and `MIN_SHARE` for each plugin.
"""

from __future__ import annotations

from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

__all__ = ["CompileShares"]

MIN_SHARE: Final = 0.25
"""Seconds that a plugin has when none are left: enough for what is small."""
_RETRY_FACTOR = 1.5
"""How many times as much time there must be for another try."""


class CompileShares:
    """The time of so many plugins. With None there is no limit."""

    def __init__(self, seconds: float | None, plugins: int) -> None:
        self._total = self._remaining = seconds
        self._plugins = plugins
        self._began = 0.0
        self.share: float | None = None
        """Seconds that the plugin whose turn it is may take."""

    def begin(self) -> None:
        """The next plugin has its turn."""
        if self._remaining is not None and self._total is not None:
            self.share = max(self._remaining / max(self._plugins, 1), min(MIN_SHARE, self._total))
            self._plugins -= 1
        self._began = monotonic()

    def end(self) -> bool:
        """The plugin has had its turn. Gives whether it took all that it had."""
        took = monotonic() - self._began
        if self._remaining is None or self.share is None:
            return False
        self._remaining -= took
        return took >= self.share

    def retry_shares(self, shares: list[float]) -> CompileShares | None:
        """The shares of another turn for plugins that had those; None when that would not be worth it."""
        if (
            not shares
            or self._remaining is None
            or self._remaining < _RETRY_FACTOR * max(shares) * len(shares)
        ):
            return None
        return CompileShares(self._remaining, len(shares))
