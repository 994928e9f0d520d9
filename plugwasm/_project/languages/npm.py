"""Packages of npm: installed into the project, without running scripts of theirs."""

from __future__ import annotations

import os

from ..toolchain import Tool, find_program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from ..language import Job

__all__ = ["NPM_TOOLS", "PACKAGE_FILE", "install_packages", "is_outdated"]

PACKAGE_FILE: Final = "package.json"
_INSTALLED: Final = "node_modules/.package-lock.json"
_INSTALL: Final = "Install Node.js, which brings npm, from https://nodejs.org"

NPM_TOOLS: Final = (
    Tool(
        name="Node.js",
        find_command=lambda: find_program("node"),
        version=("--version",),
        minimum=(20, 0),
        install=_INSTALL,
    ),
    Tool(
        name="npm",
        find_command=lambda: find_program("npm"),
        version=("--version",),
        minimum=(9, 0),
        install=_INSTALL,
    ),
)


def install_packages(job: Job) -> None:
    """Install the packages of a project if they are missing or outdated. npm is one of its tools.

    Raises:
        BuildError: npm failed.
    """
    if not is_outdated(job.folder):
        return
    npm = next(number for number, tool in enumerate(job.tools) if tool.name == "npm")
    job.run(
        ["install", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"], tool=npm
    )
    installed = job.project.path(_INSTALLED)
    if os.path.exists(installed):  # npm leaves it if nothing is new
        os.utime(installed)


def is_outdated(folder: str) -> bool:
    """Return whether the packages are missing or older than the list of them."""
    try:
        installed = os.stat(os.path.join(folder, _INSTALLED)).st_mtime_ns
    except OSError:
        return True
    return os.stat(os.path.join(folder, PACKAGE_FILE)).st_mtime_ns > installed
