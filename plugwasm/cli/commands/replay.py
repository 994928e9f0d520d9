"""`plugwasm replay`."""

from __future__ import annotations

from typing import Annotated

import typer

from ..parameters import TracebackOption
from ..terminal import escape, report_errors

HELP = (
    "Run the calls of a recording again, and check that the plugin does the same.\n\n"
    "The plugin gets what the host answered then: "
    "nothing is asked of the network, of files or of the clock."
)
EPILOG = "Exit codes: 1 the plugin does something else, 2 wrong usage or no such file."


def replay(
    context: typer.Context,
    recording: Annotated[
        str,
        typer.Argument(metavar="RECORDING", help="What --record has written.", show_default=False),
    ],
    plugin: Annotated[
        str | None,
        typer.Argument(
            metavar="PLUGIN",
            help="Another build, instead of the files that were recorded.",
            show_default=False,
        ),
    ] = None,
    timeout: Annotated[
        str | None,
        typer.Option(
            "--timeout",
            metavar="MS",
            help="Milliseconds that a call may take (500; or 500ms, 2s), "
            "and all together ten times that; 60s if not given.",
        ),
    ] = None,
    traceback: TracebackOption = False,
) -> None:
    """Run the calls of a recording again, and check that the plugin does the same."""
    with report_errors(context.command_path, traceback=traceback):
        from ..._manifest.limits import Limits
        from ..._recording.recording import load
        from ..options import parse_milliseconds

        limits = None if timeout is None else Limits(timeout=parse_milliseconds(timeout) / 1000)
        ran = load(recording).replay(plugin, limits=limits)
        count = "1 call" if len(ran.calls) == 1 else f"{len(ran.calls)} calls"
        typer.echo(f"{escape(ran.recording.plugin)} does the same: {count}")
