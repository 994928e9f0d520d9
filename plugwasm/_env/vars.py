"""The vars of a plugin: bytes by name, kept from call to call of one instance, within limits on their number and their size together."""

from __future__ import annotations

from ..errors import OptionError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..limits import Limits


class Vars:
    """Names and values. What counts towards `max_bytes` is, for each entry, the bytes of its name (UTF-8) and of its value, once."""

    __slots__ = ("_entries", "_max_bytes", "_max_entries", "used")

    def __init__(self, max_bytes: int, max_entries: int, first: Mapping[str, bytes] | None = None) -> None:
        self._entries: dict[str, bytes] = dict(first or {})
        self._max_bytes = max_bytes
        self._max_entries = max_entries
        self.used = sum(map(self._size, self._entries))

    def get(self, name: str) -> bytes | None:
        """The value, or None when there is none."""
        return self._entries.get(name)

    def set(self, name: str, value: bytes) -> bool:
        """Sets a value. False, and nothing has changed, when that would exceed a limit."""
        used = self.used - self._size(name) + len(name.encode()) + len(value)
        if used > self._max_bytes or (len(self._entries) >= self._max_entries and name not in self._entries):
            return False
        self._entries[name] = value
        self.used = used
        return True

    def delete(self, name: str) -> None:
        """Removes the entry, if there is one."""
        self.used -= self._size(name)
        self._entries.pop(name, None)

    def snapshot(self) -> dict[str, bytes]:
        """A copy of all entries."""
        return dict(self._entries)

    def _size(self, name: str) -> int:
        value = self._entries.get(name)
        return 0 if value is None else len(name.encode()) + len(value)


def first_vars(given: Mapping[str, bytes] | None, limits: Limits) -> dict[str, bytes]:
    """What the application gives new instances as their vars, checked.

    Raises:
        OptionError: A name is not text, a value is not bytes, or there is more than the limits allow.
    """
    if not given:
        return {}
    vars = Vars(limits.var_bytes, limits.vars)
    for name, value in given.items():
        if not isinstance(name, str) or not isinstance(value, bytes):
            raise OptionError(f"vars: names must be text and values bytes, but `{name}` is {type(value).__name__}")
        if not vars.set(name, value):
            raise OptionError(f"vars: more than the limits allow: {limits.var_bytes} bytes, {limits.vars} names")
    return vars.snapshot()
