"""The line of `plugin.toml` that has a field of a case, for messages.

The parser does not say where a value was. So headers of tables are counted, which works for cases
written as `[[test]]`. For others there is no line.
"""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Final

__all__ = ["case_lines", "find_line"]

_TOKEN: Final = re.compile(
    r'"""(?:[^"\\]++|\\.|"(?!""))*+(?:""")?'
    r"|'''(?:[^']++|'(?!''))*+(?:''')?"
    r'|"(?:[^"\\\n]++|\\[^\n])*+"?'
    r"|'[^'\n]*+'?"
    r"|\#[^\n]*+"
    r"|^[ \t]*+\[\[?(?P<table>[\w. \t-]++)\]\]?"
    r"|^[ \t]*+(?P<key>[\w-]++)[ \t]*+[.=]",
    re.DOTALL | re.MULTILINE,
)
_FIELD: Final = re.compile(r"test\[(\d+)\](?:\.(then|host|http)\[(\d+)\])?(?:\.(\w+))?")


def find_line(content: bytes, field: str | None) -> int | None:
    """Return the line of a field, such as `test[1].http[0].url`, or of the table that it is in.

    None if it cannot be found.
    """
    wanted = _FIELD.match(field or "")
    if wanted is None or content.lstrip().startswith(b"{"):
        return None
    number, kind, inner, key = wanted.groups()
    tokens = list(_tokens(content))
    cases = [
        place for place, (is_table, name, _) in enumerate(tokens) if is_table and name == "test"
    ]
    if int(number) >= len(cases):
        return None
    start, end = ([*cases, len(tokens)][int(number) + i] for i in (0, 1))
    if kind is not None:
        tables = [
            place for place in range(start, end) if tokens[place][:2] == (True, f"test.{kind}")
        ]
        if int(inner) < len(tables):
            start = tables[int(inner)]
        else:
            key = kind  # an inline list
    for is_table, name, line in tokens[start + 1 : end]:
        if is_table and not name.endswith(f".{key}"):
            break
        if name.rpartition(".")[2] == key:
            return line
    return tokens[start][2]


def case_lines(content: bytes) -> tuple[int, ...]:
    """Return the lines of all `[[test]]`."""
    return tuple(line for is_table, name, line in _tokens(content) if is_table and name == "test")


def _tokens(content: bytes) -> Iterator[tuple[bool, str, int]]:
    """Yield the headers of tables and the keys: whether it is a header, the name, the line."""
    text = content.decode("utf-8-sig", "replace").replace("\r\n", "\n")
    line, counted = 1, 0
    for token in _TOKEN.finditer(text):
        if name := token["table"] or token["key"]:
            line += text.count("\n", counted, token.end())
            counted = token.end()
            yield token["table"] is not None, re.sub(r"\s", "", name), line
