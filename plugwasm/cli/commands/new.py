"""`plugwasm new`."""

from __future__ import annotations

from typing import Annotated

import typer

from ..parameters import TracebackOption
from ..terminal import (
    USAGE,
    escape,
    escape_lines,
    print_error,
    print_problems,
    report_errors,
    write_stdout,
)

HELP = """Make a project for a plugin, which builds and passes its own test.

LANGUAGE is c, cpp, zig, rust, go, assemblyscript, javascript, typescript or python.

With --schema, the project has bindings for an interface file, and a test for each of its exports.
"""


def new(
    context: typer.Context,
    language: Annotated[
        str,
        typer.Argument(metavar="LANGUAGE", help="The language to write it in.", show_default=False),
    ],
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="The name of the plugin, such as my-plugin.", show_default=False
        ),
    ],
    directory: Annotated[
        str | None,
        typer.Option("--directory", metavar="PATH", help="The folder to create; default: NAME."),
    ] = None,
    schema: Annotated[
        str | None,
        typer.Option(
            "--schema",
            metavar="FILE",
            help="An interface file (an XTP schema), YAML or JSON, to generate bindings for.",
        ),
    ] = None,
    traceback: TracebackOption = False,
) -> None:
    with report_errors(context.command_path, traceback=traceback):
        import shlex

        from ..._project.new import find_language, make_project
        from ..._project.problems import ProjectError
        from ...errors import SchemaError

        found = find_language(language)
        try:
            folder = make_project(found, name, directory, schema)
        except SchemaError as error:
            if traceback or not error.problems:
                raise
            print_problems(schema or "", error.problems)
            raise typer.Exit(USAGE) from None
        wasi = " --wasi" if found.needs_wasi else ""
        lines = [
            f"{escape(name)}, a plugin in {found.title}: {escape(folder)}/{found.code_file}",
            "",
            f"  cd {escape(shlex.quote(folder))}",
            "  plugwasm build",
            "  plugwasm test",
        ]
        if schema is None:
            lines.append(f"  plugwasm call plugin.wasm greet{wasi} --input Ada")
        write_stdout(("\n".join(lines) + "\n").encode())
        try:
            found.find_tools(folder)
        except ProjectError as error:
            print_error(escape_lines(error.message), label="warning")
