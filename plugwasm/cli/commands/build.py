"""`plugwasm build`."""

from __future__ import annotations

from typing import Annotated

import typer

from ..parameters import TracebackOption
from ..terminal import FAILED, report_errors

HELP = """Build the plugin of a project, and show what an application has to grant it.

The toolchain runs code of the project, such as build scripts: build only what you would run.
"""


def build(
    context: typer.Context,
    directory: Annotated[
        str,
        typer.Argument(
            metavar="DIR",
            help="The folder with plugin.toml, or a script (.js, .ts, .py); default: this one.",
            show_default=False,
        ),
    ] = ".",
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="PATH", help="The file to write."),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", metavar="", help="Build after each change, until Ctrl-C.")
    ] = False,
    traceback: TracebackOption = False,
) -> None:
    with report_errors(context.command_path, traceback=traceback):
        from ..building import build_once, watch_project

        if watch:
            watch_project(directory, output)
        elif not build_once(directory, output):
            raise typer.Exit(FAILED)
