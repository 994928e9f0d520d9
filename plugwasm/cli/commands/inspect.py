"""`plugwasm inspect`."""

from __future__ import annotations

from typing import Annotated

import typer

from ..parameters import PluginArgument, TracebackOption
from ..terminal import log_to_stderr, report_errors, write_stdout


def inspect(
    context: typer.Context,
    plugin: PluginArgument,
    as_json: Annotated[bool, typer.Option("--json", metavar="", help="As JSON.")] = False,
    traceback: TracebackOption = False,
) -> None:
    """Show what a plugin exports and imports, and who provides that. Nothing of it runs."""
    with report_errors(context.command_path, traceback=traceback), log_to_stderr("warn"):
        from ..._manifest.resolve import resolve
        from ..._runtime.facts import collect_facts
        from ..inspection import print_facts

        found = collect_facts(resolve(plugin))
        if as_json:
            import json

            write_stdout(json.dumps(found, indent=2).encode() + b"\n")
        else:
            print_facts(found)
