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
        help="A .wasm or .wat file, a URL, or a manifest in JSON or TOML.",
        show_default=False,
    ),
]
TracebackOption = Annotated[
    bool,
    typer.Option(
        "--traceback",
        metavar="",
        help="When it fails, show where in Python and Wasm.",
        rich_help_panel=OTHER,
    ),
]
