"""How deep JSON from outside is nested. Parsers follow it on the native stack, which a document of a few hundred kilobytes can use up."""

from __future__ import annotations

MAX_LEVELS = 256
"""What is read; a level takes a parser some 300 bytes of stack."""


def is_too_deep(text: bytes) -> bool:
    """Whether the arrays and objects of a JSON text are more than `MAX_LEVELS` within each other."""
    if text.count(b"[") + text.count(b"{") <= MAX_LEVELS:
        return False
    import re

    depth = 0
    # A string, which may hold brackets, or a bracket. A string that does not end takes the rest, and is for the parser to refuse.
    for token in re.finditer(rb'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', text, re.DOTALL):
        start = text[token.start()]
        if start in b"[{":
            depth += 1
            if depth > MAX_LEVELS:
                return True
        elif start in b"]}":
            depth -= 1
    return False
