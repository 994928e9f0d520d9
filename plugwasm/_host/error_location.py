"""Find the key of the mapping entry that could not be read. msgspec reports `$[...]` for all of
them.

The key is found by bisection: a document with only some of the mapping's entries is read again, and
either fails as the whole did or does not.

Decisions: docs/decisions.md, 41.5.
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
"""The largest documents in which the key is looked for. Keys of MessagePack may be numbers, whose
hashes an adversary can choose.
"""

_STEP = re.compile(r"\.([^.\[]+)|\[(\d+)\]")


def locate_keys(
    data: bytes,
    complaint: Complaint,
    probe: Callable[[bytes], Complaint | None],
    decode: Callable[[bytes], Any],
    encode: Callable[[Any], bytes],
) -> str:
    """Return the path of a complaint with the keys in it, as far as they can be found.

    Args:
        data: The bytes that could not be read.
        complaint: What was wrong, and its path.
        probe: Returns the complaint about other data, or None if it can be read.
        decode, encode: Convert the format to plain values, and back.
    """
    path = complaint[1]
    try:
        document = decode(data)
        found = ""
        rest = path
        place = document
        while ANY_KEY in rest:
            before, _, rest = rest.partition(ANY_KEY)
            place = _follow_path(place, before.removeprefix("$"))
            key = _find_failing_key(place, lambda: probe(encode(document)) == complaint)
            found += f"{before}[{_format_key(key)}]"
            place = place[key]
        return found + rest
    except Exception:
        # An object that has no form as a document, or a field of another name. The path stays as
        # it was.
        return path


def _follow_path(place: Any, steps: str) -> Any:
    at = 0
    while at < len(steps):
        step = _STEP.match(steps, at)
        if step is None:
            raise LookupError(steps)
        place = place[step[1]] if step[1] is not None else place[int(step[2])]
        at = step.end()
    return place


def _find_failing_key(mapping: dict[Any, Any], fails: Callable[[], bool]) -> Any:
    """Return the first key whose entry makes reading fail, and leave the mapping with that entry
    alone.
    """
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


def _format_key(key: object) -> str:
    return f'"{key}"' if isinstance(key, str) else repr(key)
