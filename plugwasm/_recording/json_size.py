"""How much memory a JSON text takes as parts of a recording, and how deep it is nested, before any of it is made.

The text is looked at piece by piece, so that looking takes no memory to speak of, and by what the interpreter does in C.
"""

from __future__ import annotations

from itertools import accumulate

_PIECE = 2**16
_BRACKETS = b"[]{}"
_OTHERS = bytes(set(range(256)) - set(_BRACKETS))
_STEPS = [0] * 256
for _bracket in _BRACKETS:
    _STEPS[_bracket] = 1 if _bracket in b"[{" else -1

# Bytes: of a part with eight fields, a list, a short string, a key (only maps keep those that they have), a place in a list.
_OBJECT, _LIST, _STRING, _KEY, _PLACE = 88, 56, 56, 8, 8


class Weight:
    """What a text comes to. One that is no JSON comes to anything: the parser refuses it.

    Attributes:
        bytes: About how many bytes its objects take, besides the characters of its strings.
        depth: How many arrays and objects are within each other.
    """

    def __init__(self, text: bytes) -> None:
        self.bytes = self.depth = 0
        self._level = 0
        is_inside = False
        at = 0
        while at < len(text):
            end = min(at + _PIECE, len(text))
            while text[end - 1 : end] == b"\\" and end < len(
                text
            ):  # which belongs together with what follows
                end += 1
            piece = text[at:end].replace(b"\\\\", b"").replace(b'\\"', b"")
            parts = piece.split(b'"')
            self._weigh(b"".join(parts[is_inside::2]), (len(parts) - 1 + is_inside) // 2)
            is_inside ^= not len(parts) % 2
            at = end

    def _weigh(self, plain: bytes, strings: int) -> None:
        keys = plain.count(b":")
        self.bytes += (
            plain.count(b"{") * _OBJECT + plain.count(b"[") * _LIST + plain.count(b",") * _PLACE
        )
        self.bytes += (strings - keys) * _STRING + keys * _KEY
        brackets = plain.translate(None, _OTHERS)
        if brackets:
            levels = list(accumulate(map(_STEPS.__getitem__, brackets), initial=self._level))
            self._level = levels[-1]
            self.depth = max(self.depth, max(levels))
