"""The root of the command line: its commands, errors of parsing, `--version`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from .._version import __version__
from .commands import bench, build, cache, call, generate, inspect, new, replay, schema, test
from .parameters import MARKUP, SETTINGS
from .terminal import (
    INTERRUPTED,
    USAGE,
    is_of_stdout,
    print_usage_error,
    report_unwritable_stdout,
    silence_stdout,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

_ClickException: Any = next(
    base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException"
)
"""The root of the errors that parsing raises. It has no public name in all versions of typer."""


class _Commands(TyperGroup):
    """The root command. It writes errors of parsing as all other errors, not in a frame."""

    def main(
        self,
        args: Sequence[str] | None = None,
        *rest: Any,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        extra["prog_name"] = "plugwasm"
        try:
            code = super().main(args, standalone_mode=False, **extra)
            if sys.stdout is not None:
                sys.stdout.flush()
        except _ClickException as error:
            message = error.format_message()
            context = getattr(error, "ctx", None)
            command = (
                context.command_path
                if context is not None
                else self._path_of(sys.argv[1:] if args is None else args)
            )
            hint = (
                "; --input gives the input"
                if command.endswith((" call", " bench")) and "extra argument" in message
                else ""
            )
            print_usage_error(message[:1].lower() + message[1:].rstrip(".") + hint, command)
            code = USAGE
        except typer.Abort:
            code = INTERRUPTED
        except BrokenPipeError:
            code = silence_stdout()
        except OSError as error:
            # Commands report theirs. What is left is a help text, and what is written at the end.
            if not is_of_stdout(error):
                raise
            code = report_unwritable_stdout(error)
        if standalone_mode:
            sys.exit(code)
        return code

    def _path_of(self, args: Sequence[str]) -> str:
        """Return the command of the arguments, for errors that lack it: `plugwasm cache clear`."""
        names, group = ["plugwasm"], self
        for argument in args:
            command = group.commands.get(argument)
            if command is not None:
                names.append(argument)
            elif not argument.startswith("-"):
                break
            if command is not None:
                if not isinstance(command, TyperGroup):
                    break
                group = command  # type: ignore[assignment]
        return " ".join(names)


app: typer.Typer = typer.Typer(
    cls=_Commands,
    name="plugwasm",
    help="Run WebAssembly plugins: sandboxed, compatible with Extism.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=MARKUP,
    context_settings=SETTINGS,
)


app.command(help=new.HELP)(new.new)
app.command(help=build.HELP)(build.build)
app.command(help=call.HELP, epilog=call.EPILOG)(call.call)
app.command(help=replay.HELP, epilog=replay.EPILOG)(replay.replay)
app.command(help=bench.HELP, epilog=bench.EPILOG)(bench.bench)
app.command()(inspect.inspect)
app.command("test", help=test.HELP, epilog=test.EPILOG)(test.run_tests)
app.command(help=schema.HELP)(schema.schema)
app.command(help=generate.HELP)(generate.generate)
app.add_typer(cache.app, name="cache")


def execute(arguments: Sequence[str]) -> int:
    """Run the command line and return its exit code."""
    try:
        app(list(arguments))
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 0
    return 0


def _show_version(wanted: bool) -> None:
    if not wanted:
        return
    from importlib.metadata import PackageNotFoundError, version

    try:
        engine = version("wasmtime")
    except PackageNotFoundError:
        engine = "missing"
    typer.echo(
        f"plugwasm {__version__} (wasmtime {engine}, Python {sys.version.partition(' ')[0]})"
    )
    raise typer.Exit


@app.callback(invoke_without_command=True)
def _root_command(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            metavar="",
            help="Show the versions and exit.",
            is_eager=True,
            callback=_show_version,
        ),
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        if help := context.get_help():  # rich has written it already
            typer.echo(help)
        raise typer.Exit(USAGE)
