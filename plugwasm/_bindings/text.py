"""Comments and literals. A schema's text is a stranger's: it must stay text.

Comments are line comments only, of printable characters, so only a line's end could end one. In C
and C++ a backslash at the end of a line goes on into the next; there a full stop follows it.
Literals keep printable characters and escape all others, which are also those that change the
direction of text.
"""

from __future__ import annotations

import re
import textwrap

__all__ = [
    "WIDTH",
    "assemblyscript_literal",
    "c_literal",
    "comment",
    "go_literal",
    "literal",
    "python_docstring",
    "python_literal",
]

WIDTH = 100


def lines_of(text: str, width: int) -> list[str]:
    """Return text as lines of printable characters, of about that width."""
    made: list[str] = []
    for line in text.splitlines():
        clean = " ".join("".join(c if c.isprintable() else " " for c in line).split())
        if clean:
            made += textwrap.wrap(clean, width, break_long_words=False, break_on_hyphens=False)
        elif made and made[-1]:
            made.append("")
    while made and not made[-1]:
        made.pop()
    return made


def comment(text: str, mark: str, indent: str = "", width: int = WIDTH) -> list[str]:
    """Return the lines of a comment, without line ends.

    Args:
        text: What it says, of a schema.
        mark: What begins a line: `//`, `///`, `#`.
        indent: What stands before it.
        width: How long a line may be.
    """
    room = max(width - len(indent) - len(mark) - 1, 40)
    return [f"{indent}{mark} {_inert(line)}".rstrip() for line in lines_of(text, room)]


def _inert(line: str) -> str:
    """Return a line that does not go on in the next, also where `??/` is a backslash."""
    return f"{line} ." if line.endswith(("\\", "??/")) else line


def python_docstring(text: str, indent: str, width: int = 88) -> list[str]:
    """Return the lines of a docstring."""
    lines = lines_of(text, max(width - len(indent) - 6, 40))
    if not lines:
        return []
    lines = [
        # Quotes that stand together, and those at both ends of the whole text.
        re.sub(
            r'"(?=")|(?<=")"|\\' + r'|^"' * (number == 0) + r'|"$' * (number == len(lines) - 1),
            r"\\\g<0>",
            line,
        )
        for number, line in enumerate(lines)
    ]
    if len(lines) == 1:
        return [f'{indent}"""{lines[0]}"""']
    return [f'{indent}"""{lines[0]}', *(f"{indent}{x}".rstrip() for x in lines[1:]), f'{indent}"""']


def _quoted(text: str, escape: dict[str, str], wide: str, astral: str) -> str:
    made = []
    for character in text:
        code = ord(character)
        if character in escape:
            made.append(escape[character])
        elif character.isprintable():
            made.append(character)
        else:
            made.append((wide if code < 0x10000 else astral).format(code))
    return f'"{"".join(made)}"'


_COMMON = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def go_literal(text: str) -> str:
    """Return a literal of Go."""
    return _quoted(text, _COMMON, "\\u{:04x}", "\\U{:08x}")


def python_literal(text: str) -> str:
    """Return a literal of Python, in the quotes that need the fewest escapes."""
    made = go_literal(text)
    if '"' in text and "'" not in text:
        return "'" + made[1:-1].replace('\\"', '"') + "'"
    return made


def literal(text: str) -> str:
    """Return a literal of Rust and Zig, whose escapes are `\\u{…}`."""
    return _quoted(text, _COMMON, "\\u{{{:x}}}", "\\u{{{:x}}}")


def assemblyscript_literal(text: str) -> str:
    """Return a literal of AssemblyScript, in UTF-16."""
    units = "".join(c if ord(c) < 0x10000 or c.isprintable() else _pair(ord(c)) for c in text)
    return _quoted(units, _COMMON, "\\u{:04x}", "\\u{:04x}")


def _pair(code: int) -> str:
    code -= 0x10000
    return chr(0xD800 + (code >> 10)) + chr(0xDC00 + (code & 0x3FF))


def c_literal(text: str) -> str:
    """Return a literal of C and C++, in UTF-8. `?` is escaped because of trigraphs."""
    made = []
    for byte in text.encode():
        character = chr(byte)
        if character in '"\\?':
            made.append("\\" + character)
        elif 0x20 <= byte < 0x7F:
            made.append(character)
        else:
            made.append(f"\\{byte:03o}")
    return f'"{"".join(made)}"'
