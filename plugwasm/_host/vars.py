"""The vars of a plugin: bytes by name, kept from call to call even when its instance is replaced,
within limits on number and size.

While a guest uses them, and they are few and small, they are in the table of its kernel
(`_host/kernel/table.wat`), where it needs no host to get and set them. `Vars` lends them to the
table when the kernel asks, and takes them back before it changes them itself, before it serves
the guest, and when the instance is dropped. Then what the table has counts, up to its last
complete change.

A name is bytes, as the guest has it: two names are equal only if all of their bytes are. Most are
UTF-8, so for the application a name is a str; bytes that are not UTF-8 appear in it as the lone
surrogates U+DC80 to U+DCFF (Python's `surrogateescape`), from which they can be restored.

Decisions: docs/decisions.md, 30.3, 35.2 and 48.
"""

from __future__ import annotations

from .._platform.native_threads import sleep
from ..errors import Error, GuestError, OptionError, OutOfMemoryError
from .kernel.table import CALLS_LEFT, CHANGES, ENTRY_BYTES, HAS_VARS, RECALL, parse_vars

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from .._manifest.limits import Limits
    from .kernel.table import Table

    VarsByName = Mapping[str, bytes] | Mapping[bytes, bytes]


def encode_name(name: str | bytes) -> bytes:
    """Return the name of a var, as the application has it, as bytes.

    Raises:
        OptionError: It is neither text nor bytes, or text that stands for no bytes.
    """
    if isinstance(name, bytes):
        return name
    if not isinstance(name, str):
        raise OptionError(f"vars: the name of a var is text or bytes, not {type(name).__name__}")
    try:
        return name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise OptionError(
            f"vars: the name {name!a:.100} has a lone surrogate (at character {error.start}); pass "
            "bytes for a name that is not UTF-8"
        ) from None


def decode_name(name: bytes) -> str:
    """Return the name of a var for the application. `encode_name` is the inverse."""
    return name.decode("utf-8", "surrogateescape")


def decode_names(vars: Mapping[bytes, bytes]) -> dict[str, bytes]:
    """Return a copy for the application."""
    return {decode_name(name): value for name, value in vars.items()}


NO_VARS: Mapping[bytes, bytes] = {}
"""To be copied only."""


_FEW = 8
"""Vars that may be read from a table at once, or written to one, for every call that needs it. With
more of them, that happens once in as many calls as make up for it.
"""
_CALLS_WITHOUT_TABLE = 64
"""How many calls the host serves before it is asked again for vars that do not fit the table."""


class Vars:
    """Names and values.

    Each entry counts towards `max_bytes` with the bytes of its name and of its value, once.

    `snapshot` may be called at any time by any thread. All else is for the thread that runs the
    plugin's call, while its guest waits for the host, or that keeps it from being called.
    """

    __slots__ = ("_changes", "_entries", "_max_bytes", "_max_entries", "_table", "used")

    def __init__(
        self, max_bytes: int, max_entries: int, first: Mapping[bytes, bytes] | None = None
    ) -> None:
        self._entries: dict[bytes, bytes] = {}
        self._max_bytes = max_bytes
        self._max_entries = max_entries
        self._table: Table | None = None
        """The table that the vars were lent to."""
        self._changes: int = 0
        """The changes of the table that the entries include."""
        self.used: int = 0
        if first:
            self.restore(first)

    def get(self, name: bytes) -> bytes | None:
        """Return the value, or None if there is none."""
        if self._table is not None:
            self._update(self._table)
        return self._entries.get(name)

    def set(self, name: bytes, value: bytes) -> bool:
        """Set a value. Return False and change nothing if that would exceed a limit."""
        if self._table is not None:
            self.take_back()
        used = self.used - self._size(name) + len(name) + len(value)
        if used > self._max_bytes or (
            len(self._entries) >= self._max_entries and name not in self._entries
        ):
            return False
        self._entries[name] = value
        self.used = used
        return True

    def delete(self, name: bytes) -> None:
        """Remove the entry, if there is one."""
        if self._table is not None:
            self.take_back()
        self.used -= self._size(name)
        self._entries.pop(name, None)

    def snapshot(self) -> dict[bytes, bytes]:
        """Return a copy of all entries.

        It changes nothing. If a guest is changing the table meanwhile, it is made to call the host
        for the next change, which takes the vars back.
        """
        table = self._table
        if table is None:
            return dict(self._entries)
        words = table.words
        while words[HAS_VARS] and (changes := words[CHANGES]) != self._changes:
            if not changes & 1:
                half = table.copy_half()
                if words[CHANGES] == changes:
                    return parse_vars(*half)
            words[RECALL] = 1
            sleep(0.0001)
        return dict(self._entries)

    def restore(self, entries: Mapping[bytes, bytes]) -> None:
        """Replace all entries by those of a snapshot."""
        if self._entries or entries:
            self._entries = dict(entries)
            self.used = sum(map(self._size, self._entries))
        table = self._table
        if table is not None:  # what it has is not wanted
            table.words[HAS_VARS] = 0
            self._table = None

    def lend(self, table: Table, at: int, most: int) -> int:
        """Write the entries to a table, and return where they end; 0 if they cannot be there."""
        if self._table is not None:
            self.take_back()
        end = 0
        if self._max_bytes and self.used + ENTRY_BYTES * len(self._entries) <= most:
            end = table.write_vars(self._entries, at, most, (self._max_bytes, self._max_entries))
        table.words[RECALL] = 0
        if end:
            self._changes = table.words[CHANGES]
            self._table = table
        else:
            table.words[CALLS_LEFT] = _CALLS_WITHOUT_TABLE
        return end

    def take_back(self) -> None:
        """Take the vars back from the table that they were lent to, if they were."""
        table = self._table
        if table is None:
            return
        words = table.words
        self._read(table)
        words[CALLS_LEFT] = len(self._entries) // _FEW
        words[HAS_VARS] = 0
        self._table = None

    def _update(self, table: Table) -> None:
        """Read what was changed in the table, where the vars stay if they are few."""
        if self._read(table) and len(self._entries) > _FEW:
            self.take_back()

    def _read(self, table: Table) -> bool:
        words = table.words
        if not words[HAS_VARS] or words[CHANGES] == self._changes:
            return False
        # If this is interrupted, it is done once more.
        entries = parse_vars(*table.copy_half())
        self.used = sum(map(len, entries)) + sum(map(len, entries.values()))
        self._entries = entries
        self._changes = words[CHANGES]
        return True

    def _size(self, name: bytes) -> int:
        value = self._entries.get(name)
        return 0 if value is None else len(name) + len(value)


def limit_error(limits: Limits, kind: type[GuestError | OutOfMemoryError | OptionError]) -> Error:
    """Return the error for vars beyond the limits.

    Args:
        limits: Those of the plugin.
        kind: `GuestError` if the guest set the var, `OutOfMemoryError` if a host function did,
            `OptionError` if the application passed it to a new plugin.
    """
    if kind is OptionError:
        return OptionError(
            f"vars: more than the limits allow: {limits.var_bytes} bytes, {limits.vars} names"
        )
    field = " (`memory.max_var_bytes`)" if kind is GuestError else ""
    return kind(
        f"the plugin's vars would exceed their limit of {limits.var_bytes} bytes{field}, "
        f"or of {limits.vars} names"
    )


def check_initial_vars(given: VarsByName | None, limits: Limits) -> Mapping[bytes, bytes]:
    """Check the vars that the application gives a plugin to begin with, and return them.

    Raises:
        OptionError: A name is neither text nor bytes, two are equal, a value is not bytes, or there
            is more than the limits allow.
    """
    if not given:
        return NO_VARS
    if not hasattr(given, "items"):
        raise OptionError(
            f"vars: expected a mapping of names to bytes, got {type(given).__name__}", field="vars"
        )
    vars = Vars(limits.var_bytes, limits.vars)
    for name, value in given.items():
        if not isinstance(name, (str, bytes)) or not isinstance(value, bytes):
            raise OptionError(_describe_misfit(name, value), field="vars")
        key = encode_name(name)
        if vars.get(key) is not None:
            raise OptionError(
                f"vars: {name!a:.100} names a var that is there already, as text or as bytes"
            )
        if not vars.set(key, value):
            raise limit_error(limits, OptionError)
    return vars.snapshot()


def _describe_misfit(name: object, value: object) -> str:
    if not isinstance(name, (str, bytes)):
        return (
            f"vars: names must be text and values bytes, but `{name!a:.100}`, a name, "
            f"is {type(name).__name__}"
        )
    hint = '; write b"…", or .encode() it' if isinstance(value, str) else ""
    return (
        f"vars: names must be text and values bytes, but `{name!a:.100}` "
        f"is {type(value).__name__}{hint}"
    )
