"""`plugwasm schema`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from ..terminal import report_errors, write_stdout

HELP = "Show the JSON Schema of manifests or of plugin.toml, for editors and other tools."


def schema(
    context: typer.Context,
    document: Annotated[
        Literal["manifest", "plugin"],
        typer.Argument(metavar="DOCUMENT", help="Of manifests, or of plugin.toml."),
    ] = "manifest",
) -> None:
    """Show the JSON Schema of manifests or of plugin.toml."""
    with report_errors(context.command_path):
        import json

        if document == "plugin":
            from ..._project.json_schema import json_schema
        else:
            from ..._manifest.json_schema import json_schema

        write_stdout(json.dumps(json_schema(), indent=2).encode() + b"\n")
