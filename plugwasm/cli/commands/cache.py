"""`plugwasm cache`, and its commands `dir`, `clear` and `interpreters`."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from ..parameters import MARKUP
from ..terminal import USAGE, escape, print_error, print_warning, report_errors, write_stdout

app: typer.Typer = typer.Typer(
    help="The cache of compiled code, and the interpreters of scripts.", rich_markup_mode=MARKUP
)


@app.callback(invoke_without_command=True)
def _root_command(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        with report_errors(context.command_path):
            from ..._script.engine_store import engine_folder, kept_engines

            path = _cache_directory()
            sizes = _entry_sizes(path)
            typer.echo(f"{escape(path)}: {_count(len(sizes), 'entry', 'entries')}, {_size(sizes)}")
            folder = engine_folder()
            kept = [one.size for one in kept_engines(folder)]
            if kept:
                what = _count(len(kept), "interpreter", "interpreters")
                typer.echo(f"{escape(str(folder))}: {what} of scripts, {_size(kept)}")


@app.command("dir")
def directory(context: typer.Context) -> None:
    """Show where compiled code is kept."""
    with report_errors(context.command_path):
        write_stdout(os.fsencode(_cache_directory()) + b"\n")


@app.command("clear")
def clear(
    context: typer.Context,
    interpreters: Annotated[
        bool,
        typer.Option(
            "--interpreters",
            metavar="",
            help="Remove the interpreters of scripts, too. To build them takes a minute, and the "
            "network.",
        ),
    ] = False,
) -> None:
    """Remove all compiled code that is kept."""
    with report_errors(context.command_path):
        from ..._runtime import code_cache
        from ..._script import engine_store

        path = _cache_directory()
        removed = code_cache.clear()
        typer.echo(f"removed {_count(removed, 'entry', 'entries')} from {escape(path)}")
        if not interpreters:
            return
        if os.environ.get(engine_store.VARIABLE):
            folder = escape(str(engine_store.engine_folder()))
            print_warning(f"{engine_store.VARIABLE} names {folder}, where nothing is removed")
            return
        cleared = engine_store.clear_engines()
        what = _count(len(cleared), "interpreter", "interpreters")
        typer.echo(f"removed {what} of scripts")


@app.command("interpreters")
def interpreters(context: typer.Context) -> None:
    """Build the interpreters of scripts that are missing, and show where they are.

    They are kept in the cache, or in the folder that PLUGWASM_ENGINES names.
    """
    with report_errors(context.command_path):
        from ..._script.engine import get_engine
        from ..._script.engine_build import find_kept
        from ..._script.languages import LANGUAGES

        for language in LANGUAGES.values():
            get_engine(language.name)
            path = find_kept(language)
            typer.echo(f"{language.title:11}{escape(str(path))}")


def _count(number: int, one: str, several: str) -> str:
    return f"{number} {one if number == 1 else several}"


def _size(sizes: list[int]) -> str:
    return f"{sum(sizes) / 2**20:.1f} MiB"


def _cache_directory() -> str:
    from ..._runtime import code_cache

    path = code_cache.directory()
    if path is None:
        print_error("the cache is off (PLUGWASM_CACHE)")
        raise typer.Exit(USAGE)
    return path


def _entry_sizes(path: str) -> list[int]:
    try:
        with os.scandir(path) as found:
            return [
                entry.stat(follow_symlinks=False).st_size
                for entry in found
                if entry.name.endswith(".code")
            ]
    except FileNotFoundError:
        return []
