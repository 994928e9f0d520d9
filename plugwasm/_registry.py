"""The host functions that `host_fn` registered, for plugins that are made without `functions`. Shared by all threads; only appended to."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .functions import Function

registered: list[Function] = []
