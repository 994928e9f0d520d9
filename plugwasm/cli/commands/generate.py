"""`plugwasm generate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..parameters import TracebackOption
from ..terminal import USAGE, escape, print_problems, report_errors, write_stdout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..._bindings.files import Written

HELP = (
    "Write typed bindings for an interface file (an XTP schema).\n\n"
    "For a plugin's author: types, the functions to implement, and the host's functions. For an "
    "application (python): types, the plugin's functions, and the host's functions to implement."
    "\n\n"
    "Files with bindings are written each time. The file for the implementation and the project's "
    "own files are written once, and kept if they exist."
)


def generate(
    context: typer.Context,
    schema: Annotated[Path, typer.Argument(metavar="SCHEMA", help="The schema, YAML or JSON.")],
    language: Annotated[
        str,
        typer.Option(
            "--language",
            "-l",
            metavar="LANGUAGE",
            help="assemblyscript, c, cpp, go, rust or zig for a plugin; python for an application.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="DIR", help="The directory of the project."),
    ] = Path(),
    traceback: TracebackOption = False,
) -> None:
    with report_errors(context.command_path, traceback=traceback):
        from ..._bindings import files
        from ...errors import SchemaError

        try:
            written = files.generate(schema, language, output)
        except SchemaError as error:
            if traceback or not error.problems:
                raise
            print_problems(schema.name, error.problems)
            raise typer.Exit(USAGE) from None
        _add_kit(language, output, written)
        lines = [f"{one.what:<10} {escape(str(one.path))}\n" for one in written]
        if any(one.what == "kept" for one in written):
            lines.append("Kept files are yours: they may need changes to fit the new bindings.\n")
        write_stdout("".join(lines).encode())


_NAMES_KIT = {"assemblyscript": "package.json", "go": "go.mod", "rust": "Cargo.toml"}
"""The project files that name the kit as the folder `pdk`."""


def _add_kit(language: str, output: Path, written: list[Written]) -> None:
    """Copy the kit into a project whose files were just made, as `plugwasm new` does."""
    names = {one.path.name for one in written if one.what == "written"}
    if _NAMES_KIT.get(language) in names and not (output / "pdk").exists():
        from ..._project.kits import copy_kit

        copy_kit(language, output / "pdk")
