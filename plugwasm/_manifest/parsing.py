"""Parses the text of a manifest, JSON or TOML, to plain values, within bounds, since it may be a
stranger's.

1. Text that takes long to parse is refused before it is parsed. The parsers take up to a few
   microseconds for each value, line or escape, so these are counted first, by one pass of a regular
   expression that never backtracks and ends once there are too many. A string counts as one.
2. Nesting is bounded (`_payload_bounds.nesting`), because parsers follow it on the native stack.
3. TOML is parsed by Python code, character by character in strings. So it must be shorter than
   JSON.

Decisions: docs/decisions.md, 29.1.
"""

from __future__ import annotations

import re
from itertools import islice
from typing import Final

import msgspec

from .._payload_bounds.nesting import MAX_LEVELS
from ..errors import ManifestError, OptionError
from .files import sniff
from .messages import truncate

__all__ = ["MANIFEST", "MAX_PARTS", "MAX_TEXT_BYTES", "MAX_TOML_BYTES", "decode_document"]

MANIFEST: Final = "the manifest"
MAX_TEXT_BYTES: Final = 64 * 2**20
MAX_TOML_BYTES: Final = 4 * 2**20
MAX_PARTS: Final = 200_000
"""The most strings, brackets and commas; in TOML also lines, comments, escapes, `=` and dots of
keys.
"""

# A string that does not end takes the rest. Otherwise each of many such strings would be scanned to
# the end of the text.
_JSON_PART: Final = re.compile(r'"[^"\\]*+(?:(?:\\.)++[^"\\]*+)*+"?|[][{},]', re.DOTALL)
_TOML_PART: Final = re.compile(
    r'"""(?:[^"\\]++|\\.|"(?!""))*+(?:""")?'
    r"|'''(?:[^']++|'(?!''))*+(?:''')?"
    r'|"(?:[^"\\\n]++|\\[^\n])*+"?'
    r"|'[^'\n]*+'?"
    r"|\#[^\n]*+"
    r"|[][{},.=\n]",
    re.DOTALL,
)


def decode_document(
    text: str | bytes | bytearray | memoryview, format: str | None = None, *, what: str = MANIFEST
) -> object:
    """Return the document in ``text``.

    Args:
        text: JSON or TOML.
        format: "json" or "toml"; if not given, text that begins with ``{`` is JSON.
        what: How errors name the document.

    Raises:
        ManifestError: It is neither JSON nor TOML, or too large.
    """
    if format not in (None, "json", "toml"):
        raise OptionError(
            f'format: expected "json", "toml" or None, got {format!r}', field="format"
        )
    size = text.nbytes if isinstance(text, memoryview) else len(text)
    if size > MAX_TEXT_BYTES:
        raise ManifestError(
            f"{what} is larger than the limit of {MAX_TEXT_BYTES} bytes; put modules in files, not "
            "in `data`"
        )
    if not isinstance(text, str):
        content = bytes(text)
        if sniff(content) in ("wasm", "component"):
            raise ManifestError(
                "expected a manifest, got a Wasm module: its file ends with .wasm, and its bytes "
                "are passed as they are"
            )
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ManifestError(
                "expected a manifest in JSON or TOML, got bytes that are not UTF-8 (at byte "
                f"{error.start})"
            ) from None
    text = text.removeprefix("\ufeff").lstrip()
    try:
        return (
            _decode_json(text, what)
            if (text.startswith("{") if format is None else format == "json")
            else _decode_toml(text, what)
        )
    except (RecursionError, MemoryError):
        raise ManifestError(f"{what} is nested too deeply or too large") from None
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise ManifestError(f"{what} is not valid JSON: {error}") from None


def _decode_json(text: str, what: str) -> object:
    _check_parts(text, _JSON_PART, what)
    if text.count("[") + text.count("{") > MAX_LEVELS and _is_too_deep(text):
        raise ManifestError(f"{what} is nested too deeply: more than {MAX_LEVELS} levels")
    return msgspec.json.decode(text)


def _is_too_deep(text: str) -> bool:
    """Return whether the nesting is too deep, by the parts that were counted before."""
    depth = 0
    for part in _JSON_PART.finditer(text):
        first = text[part.start()]
        depth += 1 if first in "[{" else -1 if first in "]}" else 0
        if depth > MAX_LEVELS:
            return True
    return False


def _decode_toml(text: str, what: str) -> object:
    import tomllib

    if len(text) > MAX_TOML_BYTES:
        raise ManifestError(
            f"{what} does not begin with `{{`, so it is not JSON, and as TOML it is larger than "
            f"the limit of {MAX_TOML_BYTES} bytes; "
            "put modules in files, or write it in JSON"
        )
    _check_parts(text, _TOML_PART, what)
    if text.count("\\") > MAX_PARTS:
        raise ManifestError(
            f"{what} has more than {MAX_PARTS} escapes in its strings; write it in JSON, or use "
            "other quotes"
        )
    # tomllib takes time quadratic in the parts of a dotted key, so a junk line could keep it busy
    # for hours.
    for line in text.split("\n"):
        if line.count(".") >= 32:
            bare = re.sub(r'"(?:[^"\\]|\\.)*+(?:"|$)|\'[^\']*+(?:\'|$)', "q", line)
            if re.search(r"(?<![\w-])(?:[\w-]++[ \t]*+\.[ \t]*+){32}", bare):
                raise ManifestError(f"{what} has a dotted key of too many parts; write it in JSON")
    try:
        return tomllib.loads(text)
    except ValueError as error:
        reason = truncate(str(error))
        if what != MANIFEST:
            raise ManifestError(
                f"{what} is not valid TOML, nor JSON, which begins with `{{`: {reason}"
            ) from None
        raise ManifestError(
            f"neither a Wasm module nor a manifest: not JSON (no `{{` first), and as TOML: "
            f"{reason}; "
            'a manifest is such as {"wasm": [{"path": "plugin.wasm"}]}, '
            'or in TOML [[wasm]] and path = "plugin.wasm"'
        ) from None


def _check_parts(text: str, part: re.Pattern[str], what: str) -> None:
    if next(islice(part.finditer(text), MAX_PARTS, None), None) is not None:
        raise ManifestError(
            f"{what} has more than {MAX_PARTS} parts (values, names, brackets, commas; lines of "
            "TOML)"
        )
