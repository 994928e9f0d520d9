"""Toolchains of other languages: whether one is here, in which version, and running it.

A toolchain runs in the project's folder, with the environment of this process. What it writes goes
to stderr as it is, unless the build is quiet; then it is in the message of the error.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass

from ..errors import escape_line
from .problems import BuildError, ProjectError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Final

__all__ = ["FoundTool", "Tool", "find_program", "run_tool", "version_text"]

_MAX_QUIET_CHARACTERS: Final = 3000
"""The last characters of a toolchain's output that an error shows."""


def find_program(name: str) -> tuple[str, ...] | None:
    """Return the command for a program on the PATH; None if it is not there."""
    path = shutil.which(name)
    return None if path is None else (path,)


@dataclass(frozen=True)
class Tool:
    """A program that builds need.

    Attributes:
        name: What it is, for messages: "Go".
        find_command: Returns the command that begins each of its invocations; None if it is
            missing.
        version: The arguments that make it print its version.
        minimum: The oldest version that will do.
        install: What to do if it is missing or too old.
    """

    name: str
    find_command: Callable[[], tuple[str, ...] | None]
    version: tuple[str, ...]
    minimum: tuple[int, int]
    install: str

    def find(self, folder: str | None = None) -> FoundTool:
        """Return the tool, as it is used in a folder.

        Raises:
            ProjectError: It is missing, too old, or does not say its version.
        """
        command = self.find_command()
        wanted = f"{self.name} {version_text(self.minimum)} or later"
        if command is None:
            raise ProjectError(f"{wanted} is needed, and is not installed\n{self.install}")
        asked = [*command, *self.version]
        try:
            done = subprocess.run(
                asked,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
            )
        except OSError as error:
            raise ProjectError(f"cannot run `{' '.join(asked)}`: {error.strerror}") from None
        found = re.search(r"(\d+)\.(\d+)[.\w+-]*", done.stdout)
        if done.returncode or found is None:
            said = "\n".join(map(escape_line, (done.stdout + done.stderr).splitlines()[-5:]))
            raise ProjectError(
                f"{wanted} is needed, and `{' '.join(asked)}` failed:\n{said}\n{self.install}"
            )
        if (int(found[1]), int(found[2])) < self.minimum:
            raise ProjectError(
                f"{wanted} is needed, and {' '.join(command)} is version {found[0]}\n{self.install}"
            )
        return FoundTool(self.name, command, found[0])


@dataclass(frozen=True)
class FoundTool:
    """A tool that is here: its name, how its command begins, and its version."""

    name: str
    command: tuple[str, ...]
    version: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


def version_text(version: Sequence[int]) -> str:
    """Return a version as text: 1.24, or 20 for 20.0."""
    return ".".join(map(str, version[:1] if version[1:] == (0,) else version))


def run_tool(
    command: Sequence[str],
    folder: str,
    *,
    quiet: bool,
    environment: dict[str, str] | None = None,
    wants_stdout: bool = False,
) -> bytes:
    """Run a command of a build, and return what it wrote to stdout if that is wanted.

    Raises:
        BuildError: It failed. The reasons are on stderr, or in the message of a quiet build.
    """
    # A stderr that is no file, as in a notebook, cannot be given to another process.
    try:
        stderr = None if quiet else sys.stderr.fileno()
    except (OSError, AttributeError, ValueError):
        stderr = None
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if wants_stdout or stderr is None else stderr,
            stderr=subprocess.PIPE if stderr is None else stderr,
            check=False,
        )
    except OSError as error:
        raise ProjectError(f"cannot run `{_shorten(command)}`: {error.strerror}") from None
    if done.returncode:
        said = b"" if stderr is not None else (b"" if wants_stdout else done.stdout) + done.stderr
        lines = said.decode(errors="replace")[-_MAX_QUIET_CHARACTERS:].splitlines()
        raise BuildError(
            "\n".join([f"`{_shorten(command)}` failed", *map(escape_line, lines)])
            if lines
            else f"`{_shorten(command)}` failed"
        )
    return done.stdout or b""


def _shorten(command: Sequence[str]) -> str:
    """Return the beginning of a command, for a message."""
    words = [os.path.basename(command[0]), *command[1:4]]
    return escape_line(" ".join(words) + (" …" if len(command) > len(words) else ""))
