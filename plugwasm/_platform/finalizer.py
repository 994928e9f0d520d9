"""Free what an object owns when it is freed, by C code alone: C resources, and entries of tables.

What a finalizer raises is printed and dropped. CPython runs signal handlers when it enters a Python
function, so a `__del__` in Python loses the KeyboardInterrupt of a Ctrl-C that arrives just then:
one in six where instances come and go. A function of C is no such place: the handler runs after it,
in the code of the application.

So `__del__` is a slot here. The interpreter looks it up on the type, finds the slot's descriptor,
and calls whatever was stored there for this object. Invariant: that is a function of C, or a
`partial` of one, that takes no lock which Python code holds. Deleting the slot gives up the
ownership, and is atomic.

Decisions: docs/decisions.md, 32.3.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from functools import partial
    from typing import Any, TypeVar
    from weakref import ref

    K = TypeVar("K")
    V = TypeVar("V")
else:
    # The modules `functools` and `weakref` take long to import.
    from _functools import partial
    from _weakref import ref


class Finalizable:
    """Base of objects whose `__del__` is set per object, and called when the object is freed."""

    __slots__ = ("__del__",)

    if TYPE_CHECKING:
        __del__: Callable[[], object]


class WeakValues(dict["K", "V"]):
    """A table whose entries go when their values are freed, which it does not keep alive.

    As `weakref.WeakValueDictionary`, but no Python code runs when a value is freed, unless that is
    in the hash of a key.
    """

    __slots__ = ()

    def __setitem__(self, key: K, value: V) -> None:
        # The callback is called with the reference, which `pop` takes for its default. That of a
        # reference that was replaced is never called, since the table alone held it.
        entry: Any = ref(value, partial(self.pop, key))
        dict.__setitem__(self, key, entry)

    def get(self, key: K) -> V | None:  # type: ignore[override]
        """Return the value, or None."""
        entry: Any = dict.get(self, key)
        return None if entry is None else entry()

    def values(self) -> list[V]:  # type: ignore[override]
        """Return the values that are alive."""
        entries: list[Any] = list(dict.values(self))
        found = [entry() for entry in entries]
        return [value for value in found if value is not None]
