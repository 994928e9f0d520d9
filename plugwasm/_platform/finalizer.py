"""Free C resources with the object that owns them, by C code alone.

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


class Finalizable:
    """Base of objects whose `__del__` is set per object, and called when the object is freed."""

    __slots__ = ("__del__",)

    if TYPE_CHECKING:
        __del__: Callable[[], object]
