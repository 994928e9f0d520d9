"""The command line: `plugwasm call`, `plugwasm inspect`, `plugwasm schema`, `plugwasm cache`.

It is one more application of the package, and the parts stand like this:

app         the commands; each is a module in `commands`
parameters  options that several commands have
invocation  the options of `call` → a plugin spec and its calls
streams     input and output of `call`
inspection  what `inspect` shows
terminal    what is written to a terminal: escaped text, errors and their exit codes, the log

This module is what the entry point imports, and so it imports nothing: where the extra `cli` is not installed, it says so.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and gives its exit code.

    0 is success; 1: the plugin reported an error or trapped; 2: wrong usage, a bad manifest or module, a file that cannot be read; 3: a
    limit (time, memory, fuel) ended it; 70: a fault of plugwasm itself; 130: Ctrl-C; 141: nobody reads the output any more.
    """
    try:
        try:
            import rich  # noqa: F401

            from .app import execute
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] not in ("typer", "rich", "click"):
                raise
            print(
                "plugwasm: the command line needs typer and rich: pip install 'plugwasm[cli]'",
                file=sys.stderr,
            )
            return 2
        return execute(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:
        return 130
