"""Estimate how much memory a JSON text takes as parts of a recording, and how deep it is nested,
before it is parsed.

The text is scanned in pieces, so that the scan itself takes little memory, with operations that the
interpreter runs in C.

Decisions: docs/decisions.md, 31.4.
"""

from __future__ import annotations

from itertools import accumulate

_PIECE_BYTES = 2**16
_BRACKETS = b"[]{}"
_NOT_BRACKETS = bytes(set(range(256)) - set(_BRACKETS))
_LEVEL_STEPS = [0] * 256
for _bracket in _BRACKETS:
    _LEVEL_STEPS[_bracket] = 1 if _bracket in b"[{" else -1

# Bytes of a part with eight fields, of a list, of a short string, of a key (only maps keep theirs),
# and of a place in a list.
_OBJECT_BYTES, _LIST_BYTES, _STRING_BYTES, _KEY_BYTES, _ITEM_BYTES = 88, 56, 56, 8, 8


class JsonSize:
    """The estimated size of a text.

    For one that is not JSON the estimate means nothing: the parser rejects it.

    Attributes:
        memory_bytes: About how many bytes its objects take, without the characters of its strings.
        depth: How deep arrays and objects are nested.
    """

    def __init__(self, text: bytes) -> None:
        self.memory_bytes = self.depth = 0
        self._level = 0
        is_inside = False
        at = 0
        while at < len(text):
            end = min(at + _PIECE_BYTES, len(text))
            # A backslash belongs to the character after it.
            while text[end - 1 : end] == b"\\" and end < len(text):
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
