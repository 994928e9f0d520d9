"""What is freed with the object that owns it, by C alone.

What a finalizer raises is printed and dropped. CPython runs signal handlers at the entry of each Python function, so a `__del__` that is
one loses the KeyboardInterrupt of a Ctrl-C that comes just then: one in six, where instances come and go. A function of C is no such place:
the handler runs after it, in the code of the application.

So `__del__` is a slot here. The interpreter looks it up on the type, finds the slot's descriptor, and calls what that gives: whatever was
put there for this object. Invariant: that is a function of C, or a `partial` of one, that takes no lock which Python code holds. Deleting
the slot gives up the ownership, and is atomic.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Finalizable:
    """Has `__del__` called when it is freed, if that was set."""

    __slots__ = ("__del__",)

    if TYPE_CHECKING:
        __del__: Callable[[], object]
