"""`plugwasm schema`."""

from __future__ import annotations

import typer

from ..terminal import report_errors, write_stdout


def schema(context: typer.Context) -> None:
    """Show the JSON Schema of manifests, for editors and other tools."""
    with report_errors(context.command_path):
        import json

        from ..._manifest.json_schema import json_schema

        write_stdout(json.dumps(json_schema(), indent=2).encode() + b"\n")
