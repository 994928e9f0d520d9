"""`plugwasm test`."""

from __future__ import annotations

from typing import Annotated

import typer

from ..parameters import TracebackOption
from ..terminal import report_errors

HELP = (
    "Build a plugin and run its tests: the cases of its `plugin.toml`, and with pytest what is in "
    "`tests/`.\n\n"
    "A case is a call and what it must give. Nothing of it reaches the network, and no file "
    "outside the project is used. Building and pytest run code of the project: test only what you "
    "would run."
)
EPILOG = (
    "Exit codes: 1 a test failed or the plugin does not compile, 2 wrong usage or nothing to test."
)


def run_tests(
    context: typer.Context,
    directory: Annotated[
        str,
        typer.Argument(
            metavar="DIR", help="The folder with plugin.toml; default: the current one."
        ),
    ] = ".",
    filter: Annotated[
        str | None,
        typer.Option(
            "--filter",
            "-k",
            metavar="TEXT",
            help="Run only cases whose name or function contains this, and not pytest.",
        ),
    ] = None,
    no_build: Annotated[
        bool,
        typer.Option("--no-build", metavar="", help="Test the module as it is, without a build."),
    ] = False,
    traceback: TracebackOption = False,
) -> None:
    """Build a plugin and run its tests."""
    with report_errors(context.command_path, traceback=traceback):
        from .. import testing

        code = testing.run_tests(directory, filter=filter, build=not no_build)
    raise typer.Exit(code)
