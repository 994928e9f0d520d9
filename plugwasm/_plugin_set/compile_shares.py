"""How the plugins that a set loads at once share the time for compiling.

No plugin can use up the time of the others. The time to share is what `Limits` give one plugin.
Each plugin in turn may take an equal part of what is left; what it does not use is left for the
next. Plugins for which that was not enough are tried once more, with what all others have left. So
loading takes no longer than compiling one plugin may, plus `MIN_SHARE` for each plugin.

Decisions: docs/decisions.md, 28.3.
"""

from __future__ import annotations

from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

__all__ = ["CompileShares"]

MIN_SHARE: Final = 0.25
"""Seconds that a plugin gets when none are left: enough for a small one."""
_RETRY_FACTOR = 1.5
"""How many times the largest first share each plugin must get for a second try."""


class CompileShares:
    """The time for compiling a number of plugins. With None there is no limit."""

    def __init__(self, seconds: float | None, plugins: int) -> None:
        self._total = self._remaining = seconds
        self._plugins = plugins
        self._began = 0.0
        self.share: float | None = None
        """Seconds that the current plugin may take; None for no limit."""

    def begin(self) -> None:
        """Begin with the next plugin."""
        if self._remaining is not None and self._total is not None:
            self.share = max(self._remaining / max(self._plugins, 1), min(MIN_SHARE, self._total))
            self._plugins -= 1
        self._began = monotonic()

    def end(self) -> bool:
        """End with the current plugin. Return whether it took all of its share."""
        took = monotonic() - self._began
        if self._remaining is None or self.share is None:
            return False
        self._remaining -= took
        return took >= self.share

    def retry_shares(self, shares: list[float]) -> CompileShares | None:
        """Return shares for trying plugins again that had these; None when that is not worth it."""
        if (
            not shares
            or self._remaining is None
            or self._remaining < _RETRY_FACTOR * max(shares) * len(shares)
        ):
            return None
        return CompileShares(self._remaining, len(shares))
