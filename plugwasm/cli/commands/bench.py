"""`plugwasm bench`."""

from __future__ import annotations

from typing import Annotated

import typer

from ..parameters import (
    IO,
    OTHER,
    AllowPathOption,
    ConfigOption,
    FunctionArgument,
    InputFileOption,
    InputOption,
    LinkOption,
    PluginArgument,
    StdinOption,
    TimeoutOption,
    TracebackOption,
    WasiOption,
)
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
    function: FunctionArgument,
    input: InputOption = None,
    input_file: InputFileOption = None,
    stdin: StdinOption = False,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", metavar="", help="Write JSON, in seconds and bytes.", rich_help_panel=IO
        ),
    ] = False,
    config: ConfigOption = None,
    wasi: WasiOption = False,
    allow_path: AllowPathOption = None,
    link: LinkOption = None,
    timeout: TimeoutOption = None,
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
