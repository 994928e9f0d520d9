"""`plugwasm inspect`."""

from __future__ import annotations

from typing import Annotated

import typer

from ..parameters import PluginArgument, TracebackOption
from ..terminal import log_to_stderr, report_errors, write_stdout


def inspect(
    context: typer.Context,
    plugin: PluginArgument,
    as_json: Annotated[bool, typer.Option("--json", metavar="", help="Write JSON.")] = False,
    traceback: TracebackOption = False,
) -> None:
    """Show what a plugin exports and imports, and who provides that.

    Nothing of it runs, except that a script is loaded, in its sandbox.
    """
    with report_errors(context.command_path, traceback=traceback), log_to_stderr("warn"):
        from ..._runtime.facts import collect_facts
        from ..._script.names import is_script
        from ..._script.spec import resolve_plugin
        from ..inspection import print_facts, script_facts

        spec = resolve_plugin(plugin)
        found = script_facts(spec) if is_script(spec) else collect_facts(spec)
        if as_json:
            import json

            write_stdout(json.dumps(found, indent=2).encode() + b"\n")
        else:
            print_facts(found)
