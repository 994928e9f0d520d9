"""How much memory a JSON text takes as parts of a recording, and how deep it is nested, before any of it is made.

The text is looked at piece by piece, so that looking takes no memory to speak of, and by what the interpreter does in C.
"""

from __future__ import annotations

from itertools import accumulate

_PIECE_BYTES = 2**16
_BRACKETS = b"[]{}"
_NOT_BRACKETS = bytes(set(range(256)) - set(_BRACKETS))
_LEVEL_STEPS = [0] * 256
for _bracket in _BRACKETS:
    _LEVEL_STEPS[_bracket] = 1 if _bracket in b"[{" else -1

# Bytes: of a part with eight fields, a list, a short string, a key (only maps keep those that they have), a place in a list.
_OBJECT_BYTES, _LIST_BYTES, _STRING_BYTES, _KEY_BYTES, _ITEM_BYTES = 88, 56, 56, 8, 8


class JsonSize:
    """What a text comes to. One that is no JSON comes to anything: the parser refuses it.

    Attributes:
        bytes: About how many bytes its objects take, besides the characters of its strings.
        depth: How many arrays and objects are within each other.
    """

    def __init__(self, text: bytes) -> None:
        self.memory_bytes = self.depth = 0
        self._level = 0
        is_inside = False
        at = 0
        while at < len(text):
            end = min(at + _PIECE_BYTES, len(text))
            while text[end - 1 : end] == b"\\" and end < len(
                text
            ):  # which belongs together with what follows
                end += 1
            piece = text[at:end].replace(b"\\\\", b"").replace(b'\\"', b"")
            parts = piece.split(b'"')
            self._add_piece(b"".join(parts[is_inside::2]), (len(parts) - 1 + is_inside) // 2)
            is_inside ^= not len(parts) % 2
            at = end

    def _add_piece(self, plain: bytes, strings: int) -> None:
        keys = plain.count(b":")
        self.memory_bytes += (
            plain.count(b"{") * _OBJECT_BYTES
            + plain.count(b"[") * _LIST_BYTES
            + plain.count(b",") * _ITEM_BYTES
        )
        self.memory_bytes += (strings - keys) * _STRING_BYTES + keys * _KEY_BYTES
        brackets = plain.translate(None, _NOT_BRACKETS)
        if brackets:
            levels = list(accumulate(map(_LEVEL_STEPS.__getitem__, brackets), initial=self._level))
            self._level = levels[-1]
            self.depth = max(self.depth, max(levels))
