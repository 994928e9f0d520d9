"""`plugwasm test`."""

from __future__ import annotations

from typing import Annotated

import typer

from ..parameters import TracebackOption
from ..terminal import report_errors

HELP = (
    "Run the tests of a plugin: the cases of its `plugin.toml`, and with pytest what is in "
    "`tests/`.\n\n"
    "A case is a call and what it must give. Nothing reaches the network, and no file outside the "
    "project is used."
)
EPILOG = "Exit codes: 1 a test failed, 2 wrong usage, or nothing to test."


def run_tests(
    context: typer.Context,
    directory: Annotated[
        str,
        typer.Argument(metavar="[DIR]", help="The project's folder.", show_default=False),
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
    traceback: TracebackOption = False,
) -> None:
    """Run the tests of a plugin."""
    with report_errors(context.command_path, traceback=traceback):
        from .. import testing

        code = testing.run_tests(directory, filter=filter)
    raise typer.Exit(code)
