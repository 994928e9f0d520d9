"""`plugwasm cache`, and its commands `dir` and `clear`."""

from __future__ import annotations

import os

import typer

from ..parameters import MARKUP
from ..terminal import USAGE, escape, print_error, report_errors, write_stdout

app: typer.Typer = typer.Typer(help="The cache of compiled code.", rich_markup_mode=MARKUP)


@app.callback(invoke_without_command=True)
def _root_command(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        with report_errors(context.command_path):
            path = _cache_directory()
            sizes = _entry_sizes(path)
            what = "1 entry" if len(sizes) == 1 else f"{len(sizes)} entries"
            typer.echo(f"{escape(path)}: {what}, {sum(sizes) / 2**20:.1f} MiB")


@app.command("dir")
def directory(context: typer.Context) -> None:
    """Show where compiled code is kept."""
    with report_errors(context.command_path):
        write_stdout(os.fsencode(_cache_directory()) + b"\n")


@app.command("clear")
def clear(context: typer.Context) -> None:
    """Remove all compiled code that is kept."""
    with report_errors(context.command_path):
        from ..._runtime import code_cache

        path = _cache_directory()
        removed = code_cache.clear()
        typer.echo(
            f"removed {'1 entry' if removed == 1 else f'{removed} entries'} from {escape(path)}"
        )


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
