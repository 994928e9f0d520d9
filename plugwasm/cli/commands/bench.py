"""`plugwasm bench`."""

from __future__ import annotations

from typing import Annotated

import typer

from ..parameters import IO, LIMITS, OTHER, PERMISSIONS, PluginArgument, TracebackOption
from ..terminal import log_to_stderr, report_errors, write_stdout

HELP = (
    "Measure a call of a plugin: warm, with a fresh instance, and loading it.\n\n"
    "The plugin is called many times with the same input. Its outputs and its log are dropped. "
    "A manifest can grant what the options here do not."
)
EPILOG = "Exit codes: 1 the plugin failed, 2 wrong usage or no such file, 3 a limit was reached."


def bench(
    context: typer.Context,
    plugin: PluginArgument,
    function: Annotated[
        str, typer.Argument(metavar="FUNCTION", help="The export to call.", show_default=False)
    ],
    input: Annotated[
        str | None,
        typer.Option(
            "--input",
            "-i",
            metavar="TEXT",
            help="The input; - reads standard input.",
            rich_help_panel=IO,
        ),
    ] = None,
    input_file: Annotated[
        str | None,
        typer.Option(
            "--input-file", metavar="PATH", help="The file that is the input.", rich_help_panel=IO
        ),
    ] = None,
    stdin: Annotated[
        bool,
        typer.Option(
            "--stdin",
            metavar="",
            help="Read the input from standard input, as when it is piped in.",
            rich_help_panel=IO,
        ),
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option("--json", metavar="", help="Seconds and bytes, as JSON.", rich_help_panel=IO),
    ] = False,
    config: Annotated[
        list[str] | None,
        typer.Option(
            "--config",
            "-c",
            metavar="KEY=VALUE",
            help="What the plugin can read.",
            rich_help_panel=PERMISSIONS,
        ),
    ] = None,
    wasi: Annotated[
        bool,
        typer.Option(
            "--wasi",
            metavar="",
            help="Grant WASI: clocks, random numbers, output.",
            rich_help_panel=PERMISSIONS,
        ),
    ] = False,
    allow_path: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-path",
            metavar="HOST[:GUEST]",
            help="Grant a directory (and WASI); ro: before it for read-only.",
            rich_help_panel=PERMISSIONS,
        ),
    ] = None,
    link: Annotated[
        list[str] | None,
        typer.Option(
            "--link",
            metavar="NAME=PATH",
            help="A module that the plugin imports from.",
            rich_help_panel=PERMISSIONS,
        ),
    ] = None,
    timeout: Annotated[
        str | None,
        typer.Option(
            "--timeout",
            metavar="MS",
            help="Milliseconds that a call may take: 500; or 500ms, 2s.",
            rich_help_panel=LIMITS,
        ),
    ] = None,
    seconds: Annotated[
        str,
        typer.Option(
            "--seconds",
            metavar="N",
            help="How long to measure, if calls are short.",
            rich_help_panel=OTHER,
        ),
    ] = "5",
    traceback: TracebackOption = False,
) -> None:
    """Measure a call of a plugin: warm, with a fresh instance, and loading it."""
    with report_errors(context.command_path, traceback=traceback):
        from .. import invocation, measuring, options, streams

        # All options are checked before anything is read or compiled.
        budget = options.parse_seconds("--seconds", seconds)
        read = streams.input_reader(input, input_file, stdin)
        overrides = invocation.Overrides(
            config=config or (), paths=allow_path or (), timeout=timeout, links=link or ()
        )
        with log_to_stderr("off"):
            figures = measuring.measure(
                plugin, function, read, overrides, wasi=wasi or bool(allow_path), budget=budget
            )
        write_stdout((figures.as_json() if as_json else figures.as_text()).encode())
