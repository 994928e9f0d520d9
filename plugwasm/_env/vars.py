"""The vars of a plugin: bytes by name, kept from call to call of one instance, within limits on their number and their size together."""

from __future__ import annotations


class Vars:
    """Names and values. What counts towards `max_bytes` is, for each entry, the bytes of its name (UTF-8) and of its value, once."""

    __slots__ = ("_entries", "_max_bytes", "_max_entries", "used")

    def __init__(self, max_bytes: int, max_entries: int) -> None:
        self._entries: dict[str, bytes] = {}
        self._max_bytes = max_bytes
        self._max_entries = max_entries
        self.used = 0

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
