"""The kits for plugin authors: where they are, and a copy of one for a project.

A wheel has them in `plugwasm/_pdk`, a clone of the repository in `pdk`.
"""

from __future__ import annotations

import shutil
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

__all__ = ["copy_kit", "kit_folder"]

_MADE_BY_BUILDS: Final = ("target", "Cargo.lock", "node_modules", ".zig-cache", "zig-out")
_HEADERS: Final = {"c": ("c",), "cpp": ("c", "cpp")}
"""The languages whose kit is headers, and whose headers they take."""


def kit_folder(language: str) -> Path:
    """Return the folder of the kit for a language."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "_pdk"
    return (installed if installed.is_dir() else package.parent / "pdk") / language


def copy_kit(language: str, target: Path) -> None:
    """Copy the kit for a language into a new folder."""
    if language not in _HEADERS:
        shutil.copytree(
            kit_folder(language), target, ignore=shutil.ignore_patterns(*_MADE_BY_BUILDS)
        )
        return
    target.mkdir()
    shutil.copy(kit_folder(language) / "LICENSE", target)
    for kit in _HEADERS[language]:
        for header in (kit_folder(kit) / "include").iterdir():
            shutil.copy(header, target)
