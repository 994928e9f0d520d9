"""What ends the making or the building of a project. All other errors are those of its files."""

from __future__ import annotations

from ..errors import Error

__all__ = ["BuildError", "ProjectError"]


class ProjectError(Error):
    """A project cannot be made or built as it is, or not here. The message says what to do."""

    _has_lines = True


class BuildError(ProjectError):
    """The sources do not compile, or what they compile to is no plugin."""
