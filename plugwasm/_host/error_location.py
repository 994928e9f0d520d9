"""Which key of a mapping a value stands at that could not be read. msgspec says `$[...]` for all of them.

The key is found by halves: a document with only some of the mapping's entries is read again, and fails as the whole did or does not.
"""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Complaint = tuple[str, str]

__all__ = ["ANY_KEY", "MOST_BYTES", "locate_keys"]

ANY_KEY = "[...]"
MOST_BYTES = {"JSON": 2**16, "MessagePack": 2**12}
"""Documents in which it is looked for. Keys of MessagePack may be numbers, whose hashes an adversary can choose."""

_STEP = re.compile(r"\.([^.\[]+)|\[(\d+)\]")


def locate_keys(
    data: bytes,
    complaint: Complaint,
    probe: Callable[[bytes], Complaint | None],
    decode: Callable[[bytes], Any],
    encode: Callable[[Any], bytes],
) -> str:
    """The path of a complaint with the keys in it, as far as they can be found.

    Args:
        data: What could not be read.
        complaint: What was wrong, and its path.
        probe: The complaint about other data; None when it can be read.
        decode, encode: The way from the format to plain values, and back.
    """
    path = complaint[1]
    try:
        document = decode(data)
        found = ""
        rest = path
        place = document
        while ANY_KEY in rest:
            before, _, rest = rest.partition(ANY_KEY)
            place = _walk(place, before.removeprefix("$"))
            key = _culprit(place, lambda: probe(encode(document)) == complaint)
            found += f"{before}[{_shown(key)}]"
            place = place[key]
        return found + rest
    except Exception:  # an object that no document can be made of, a field of another name: then the path remains as it was
        return path


def _walk(place: Any, steps: str) -> Any:
    at = 0
    while at < len(steps):
        step = _STEP.match(steps, at)
        if step is None:
            raise LookupError(steps)
        place = place[step[1]] if step[1] is not None else place[int(step[2])]
        at = step.end()
    return place


def _culprit(mapping: dict[Any, Any], fails: Callable[[], bool]) -> Any:
    """The first key whose entry makes it fail. The mapping is left with that alone."""
    entries = list(mapping.items())
    while len(entries) > 1:
        middle = len(entries) // 2
        mapping.clear()
        mapping.update(entries[:middle])
        entries = entries[:middle] if fails() else entries[middle:]
    mapping.clear()
    mapping.update(entries)
    if not fails():
        raise LookupError
    return entries[0][0]


def _shown(key: object) -> str:
    return f'"{key}"' if isinstance(key, str) else repr(key)
