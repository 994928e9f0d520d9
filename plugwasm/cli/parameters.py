"""Shared parts of the commands: the layout of their help, and parameters."""

from __future__ import annotations

from shutil import get_terminal_size
from typing import Annotated, Any, Literal

import typer

# Tables truncate the names of options where there is no room for them; text without tables puts
# them into lines of their own.
_COLUMNS = get_terminal_size().columns
MARKUP: Literal["rich"] | None = "rich" if _COLUMNS >= 80 else None
SETTINGS: dict[str, Any] = {
    "help_option_names": ["-h", "--help"],
    "terminal_width": min(_COLUMNS, 80) - 1,
}

IO, PERMISSIONS, HTTP, LIMITS, OTHER = (
    "Input and output",
    "What the plugin is and may do",
    "HTTP",
    "Limits",
    "Other",
)

PluginArgument = Annotated[
    str,
    typer.Argument(
        metavar="PLUGIN",
        help="A .wasm or .wat file, a script (.js, .py), a URL, or a manifest.",
        show_default=False,
    ),
]
FunctionArgument = Annotated[
    str, typer.Argument(metavar="FUNCTION", help="The export to call.", show_default=False)
]
InputOption = Annotated[
    str | None,
    typer.Option(
        "--input",
        "-i",
        metavar="TEXT",
        help="The input; - reads standard input.",
        rich_help_panel=IO,
    ),
]
InputFileOption = Annotated[
    str | None,
    typer.Option("--input-file", metavar="PATH", help="A file with the input.", rich_help_panel=IO),
]
StdinOption = Annotated[
    bool,
    typer.Option(
        "--stdin",
        metavar="",
        help="Read the input from standard input, also from a terminal.",
        rich_help_panel=IO,
    ),
]
ConfigOption = Annotated[
    list[str] | None,
    typer.Option(
        "--config",
        "-c",
        metavar="KEY=VALUE",
        help="A config value that the plugin can read.",
        rich_help_panel=PERMISSIONS,
    ),
]
WasiOption = Annotated[
    bool,
    typer.Option(
        "--wasi",
        metavar="",
        help="Grant WASI: clocks, random numbers, output.",
        rich_help_panel=PERMISSIONS,
    ),
]
AllowPathOption = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-path",
        metavar="HOST[:GUEST]",
        help="Grant a directory (and WASI); ro: before it for read-only.",
        rich_help_panel=PERMISSIONS,
    ),
]
LinkOption = Annotated[
    list[str] | None,
    typer.Option(
        "--link",
        metavar="NAME=PATH",
        help="A module that the plugin imports from.",
        rich_help_panel=PERMISSIONS,
    ),
]
TimeoutOption = Annotated[
    str | None,
    typer.Option(
        "--timeout",
        metavar="MS",
        help="Milliseconds that a call may take: 500; or 500ms, 2s.",
        rich_help_panel=LIMITS,
    ),
]
TracebackOption = Annotated[
    bool,
    typer.Option(
        "--traceback",
        metavar="",
        help="On failure, show where in Python and in Wasm.",
        rich_help_panel=OTHER,
    ),
]
