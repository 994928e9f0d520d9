"""Names of files that are scripts."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeGuard

    from .spec import ScriptSpec

SUFFIXES = {
    ".js": "javascript",
    ".mjs": "javascript",
    ".cjs": "javascript",
    ".ts": "typescript",
    ".mts": "typescript",
    ".cts": "typescript",
    ".py": "python",
}
"""The ends of the names of scripts, with their languages."""
_DECLARATIONS = (".d.ts", ".d.mts", ".d.cts")


def language_of(file: str) -> str | None:
    """Return the language of a script by the name of its file; None if that is no script."""
    if file.lower().endswith(_DECLARATIONS):
        return None
    return SUFFIXES.get(os.path.splitext(file)[1].lower())


def is_script_path(value: object) -> bool:
    """Return whether this is a path whose name is that of a script."""
    if isinstance(value, os.PathLike):
        value = os.fsdecode(value)
    return isinstance(value, str) and "\n" not in value and language_of(value) is not None


def is_script(spec: object) -> TypeGuard[ScriptSpec]:
    """Return whether the spec of a plugin is that of a script. It imports nothing for scripts."""
    return hasattr(spec, "language")
