"""The kits for plugin authors: where they are, and a copy of one for a project.

A wheel has them in `plugwasm/_pdk`, a clone of the repository in `pdk`.
"""

from __future__ import annotations

from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Final

__all__ = ["copy_kit", "kit_folder"]

_MADE_BY_BUILDS: Final = frozenset(
    ("target", "Cargo.lock", "node_modules", ".zig-cache", "zig-out", "zig-pkg")
)
_HEADERS: Final = {"c": ("c",), "cpp": ("c", "cpp")}
"""The languages whose kit is headers, and whose headers they take."""
_OTHER_KITS: Final = {"typescript": "javascript"}
"""The languages that have the kit of another one."""


def kit_folder(language: str) -> Path:
    """Return the folder of the kit for a language."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "_pdk"
    kits = installed if installed.is_dir() else package.parent / "pdk"
    return kits / _OTHER_KITS.get(language, language)


def copy_kit(language: str, target: Path) -> None:
    """Copy the kit for a language into a new folder. Who may write to the copy is not copied."""
    for name, file in _files(language):
        copy = target / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())


def _files(language: str) -> Iterator[tuple[str, Path]]:
    """Return the files of a kit, and their names in a copy."""
    folder = kit_folder(language)
    if language in _HEADERS:
        yield "LICENSE", folder / "LICENSE"
        for kit in _HEADERS[language]:
            for header in (kit_folder(kit) / "include").iterdir():
                yield header.name, header
        return
    for file in folder.rglob("*"):
        name = file.relative_to(folder)
        if file.is_file() and _MADE_BY_BUILDS.isdisjoint(name.parts):
            yield str(name), file
