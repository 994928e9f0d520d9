"""The command line: `plugwasm new`, `build`, `test`, `generate`, `call`, `replay`, `bench`,
`inspect`, `schema` and `cache`.

It is one more application of the package.

app         the root command, errors of parsing, `--version`
commands    one module a command: its options, and what it does
parameters  shared parts of the commands
options     values of the options of `call`
invocation  `call`: from options to a spec, and from that to outputs
measuring   what `bench` measures
building    what `build` does, once or after each change
inspection  what `inspect` prints
testing     what `test` does
streams     input and output of `call`
terminal    what is written to a terminal: escaped text, errors and their exit codes, the log

The entry point imports this module, which imports nothing: if the extra `cli` is not installed, it
says so.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    0: success. 1: the plugin reported an error or trapped. 2: wrong usage, a bad manifest or
    module, a file that cannot be read. 3: a limit (time, memory, fuel) was reached. 70: a fault of
    plugwasm itself. 130: Ctrl-C. 141: the output is no longer read.
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
