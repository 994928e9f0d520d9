"""Paths in `plugin.toml`: they are relative to its folder, and lead nowhere else."""

from __future__ import annotations

from .._manifest.messages import field_error, quote
from .._plugin_set.directory import OpenDirectory

__all__ = ["MAX_DATA_BYTES", "check_path", "read_project_file"]

MAX_DATA_BYTES = 64 * 2**20
"""The largest file that a test reads."""


def check_path(field: str, path: str) -> None:
    """Check that a path is relative and leads out of no folder. Links are checked where it is used.

    Raises:
        ManifestError: It is not.
    """
    parts = path.split("/")
    if not path or not path.isprintable() or "\\" in path:
        raise field_error(field, f"expected the path of a file in the project, got {quote(path)}")
    if path.startswith(("/", "-")) or ".." in parts:
        raise field_error(
            field, f"expected a path in the project, relative to plugin.toml, got {quote(path)}"
        )


def read_project_file(folder: str, path: str) -> bytes:
    """Read a file of a project; no link is followed.

    Raises:
        SourceError: There is no such file, or it cannot be read.
    """
    with OpenDirectory(folder) as directory:
        return directory.read(path, MAX_DATA_BYTES, may_be_empty=True)
