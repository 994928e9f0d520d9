"""Hints for arguments that are no plugin: what may have been meant, and what to write.

Imported only if there is an error to report.
"""

from __future__ import annotations

import os

from .download import redact_url
from .files import format_path, is_url
from .messages import closest_match, json_type, quote

__all__ = [
    "EMPTY_BYTES",
    "TEXT_IN_BYTES",
    "TEXT_IN_FILE",
    "describe_type",
    "suggest_file",
    "suggest_plugin",
    "suggest_source",
    "suggest_text",
]

_SCRIPTS = {(".js", ".mjs", ".cjs"): "javascript", (".py",): "python"}
_SOURCE_SUFFIXES = (".c", ".cc", ".cpp", ".go", ".rs", ".zig")
_SUFFIXES = (".wasm", ".wat", ".json", ".toml")
EMPTY_BYTES = (
    "the bytes given are empty; expected those of a Wasm module, "
    "such as `Path('plugin.wasm').read_bytes()`"
)
TEXT_IN_BYTES = (
    "the bytes given are not a Wasm module, but text, and bytes are never taken for a manifest, "
    "since that grants what it asks for. "
    "If they are a manifest of yours, write `plugwasm.Manifest.parse(data)`, or pass a dict: "
    "`json.loads(data)`; "
    "if it is a stranger's, `plugwasm.ManifestPolicy(…).admit(data)`"
)
TEXT_IN_FILE = (
    "If it is a manifest, name it .json or .toml, or write `plugwasm.Manifest.load(path)`: "
    "no other file is taken for one, since a manifest grants what it asks for"
)


def suggest_text(path: str) -> str:
    """Return the end of a message about a file of text: what it is, and what to do with it."""
    for suffixes, language in _SCRIPTS.items():
        if path.lower().endswith(suffixes):
            return f"a script: load it with `plugwasm.script({quote(language)}, Path(…))`"
    if path.lower().endswith(_SOURCE_SUFFIXES):
        return "source code: build it, as `plugwasm build` does, and name the module"
    return f"text. {TEXT_IN_FILE}"


def suggest_file(path: str) -> str:
    """Return the end of a message about a missing file: a hint, such as a module with a similar
    name.
    """
    if not path:
        return ": the path is empty; pass such as 'plugin.wasm'"
    if not path.endswith(_SUFFIXES) and (
        " = " in path or (" " in path.strip() and os.sep not in path)
    ):
        return (
            "; as the text of a manifest it would begin with `{`, "
            "or have `[[wasm]]` and a line with `path = …`"
        )
    folder, name = os.path.split(path)
    try:
        close = closest_match(
            name,
            [entry for entry in os.listdir(folder or ".") if entry.lower().endswith(_SUFFIXES)],
        )
    except (OSError, ValueError):
        close = None
    return "" if close is None else f"; did you mean {format_path(os.path.join(folder, close))}?"


def suggest_source(value: object) -> str:
    """Return what to write in a manifest for a module that was passed directly."""
    if isinstance(value, bytes):
        return '{"data": …}'
    text = os.fsdecode(value) if isinstance(value, os.PathLike) else str(value)
    field = "url" if is_url(text) else "path"
    text = redact_url(text) if field == "url" else text
    return f'{{"{field}": {quote(text) if len(text) <= 100 else "…"}}}'


def describe_type(value: object) -> str:
    """Return the type of an argument, in the words of JSON if it is a JSON type."""
    if isinstance(value, os.PathLike):
        return "a path"
    return "a class" if isinstance(value, type) else "None" if value is None else json_type(value)


def suggest_plugin(value: object) -> str:
    """Return the end of a message about an argument that is no plugin: what to pass instead."""
    if hasattr(value, "read") and not isinstance(value, type):
        return "; pass what its `read()` gives, or the path"
    if isinstance(value, (list, tuple)):
        return (
            "; a manifest with several modules is "
            '{"wasm": [{"path": "a.wasm"}, {"path": "b.wasm"}]}'
        )
    return '; pass such as \'plugin.wasm\', or {"wasm": [{"path": "plugin.wasm"}]}'
