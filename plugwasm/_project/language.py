"""What is known of a language, and what its module gets to compile a project."""

from __future__ import annotations

import os
from dataclasses import dataclass

from .kits import kit_folder
from .problems import ProjectError
from .toolchain import run_tool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .project_file import Build, Project
    from .toolchain import FoundTool, Tool

__all__ = ["Job", "Language"]


@dataclass(frozen=True)
class Language:
    """A language that plugins are written in.

    Attributes:
        name: Its name in `plugin.toml`.
        title: Its name in texts.
        source: What is compiled if `plugin.toml` does not say.
        code_file: The file that the author of a new project writes in.
        needs_wasi: Whether its plugins always import WASI.
        tools: What a build needs.
        compile: Compiles a project to the output of a job.
        registry: How a project takes the kit from a registry, for its README.
        check: A command that checks the types of a source, where a build does not.
    """

    name: str
    title: str
    source: str
    code_file: str
    needs_wasi: bool
    tools: tuple[Tool, ...]
    compile: Callable[[Job], None]
    registry: str
    check: str = ""

    def find_tools(self, folder: str | None = None) -> tuple[FoundTool, ...]:
        """Return the tools, as they are used in a folder. Raise `ProjectError` if one is not
        there.
        """
        return tuple(tool.find(folder) for tool in self.tools)


@dataclass(frozen=True)
class Job:
    """One compilation.

    Attributes:
        project: The project.
        build: Its table `[build]`.
        source: The absolute path of the source, which exists.
        output: Where the module must be written.
        scratch: A folder that is removed afterwards.
        tools: The tools, in the order of the language's.
        quiet: Whether what the tools write is kept for errors.
    """

    project: Project
    build: Build
    source: str
    output: str
    scratch: str
    tools: tuple[FoundTool, ...]
    quiet: bool

    @property
    def folder(self) -> str:
        """The folder of the project."""
        return self.project.folder

    def run(
        self,
        arguments: Sequence[str],
        *,
        tool: int = 0,
        folder: str | None = None,
        environment: dict[str, str] | None = None,
        wants_stdout: bool = False,
    ) -> bytes:
        """Run one of the tools, in the project's folder if no other is given."""
        return run_tool(
            [*self.tools[tool].command, *arguments],
            folder or self.folder,
            quiet=self.quiet,
            environment=environment,
            wants_stdout=wants_stdout,
        )

    def find_sources(self, suffixes: tuple[str, ...]) -> list[str]:
        """Return the files with one of these suffixes in the source, or the source if it is a file.

        They are relative to the project's folder, so that they are the same on each machine.
        """
        if os.path.isfile(self.source):
            return [self._relative(self.source)]
        found = sorted(
            self._relative(os.path.join(folder, file))
            for folder, _, files in os.walk(self.source)
            for file in files
            if file.endswith(suffixes)
        )
        if not found:
            raise ProjectError(
                f"{os.path.relpath(self.source, self.folder)} has no file that ends with "
                f"{' or '.join(suffixes)}; `source` in plugin.toml names what is compiled"
            )
        return found

    def _relative(self, path: str) -> str:
        path = os.path.relpath(path, self.folder)
        return f"./{path}" if path.startswith(("-", "@")) else path  # as no option

    def include_folders(self, *kits: str) -> list[str]:
        """Return `-I` for the project's headers and its copy of the kit; without a copy, for the
        kit that comes with this package.
        """
        own = [
            name for name in ("include", "pdk") if os.path.isdir(os.path.join(self.folder, name))
        ]
        installed = [str(kit_folder(kit) / "include") for kit in kits]
        return [f"-I{folder}" for folder in [*own, *(() if "pdk" in own else installed)]]
