"""Text for a terminal: errors, with their exit codes, and the log.

Much of this text comes from guests, and a terminal obeys what is written to it. So all of it is
escaped (no control characters, nothing that reverses the direction of text), never read as markup,
and truncated. Lines after the first are indented, so none can pass for a line of plugwasm.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
from contextlib import contextmanager

import typer

from .. import errors
from .._host.plugin_log import LEVELS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rich.console import Console

FAILED, USAGE, LIMIT, INTERNAL, INTERRUPTED, BROKEN_PIPE = 1, 2, 3, 70, 130, 141

_MAX_CHARACTERS = 4000
_MAX_LINES = 20
_MAX_FRAMES = 3
_LIMITS = (
    errors.TimeoutError,
    errors.OutOfMemoryError,
    errors.OutOfFuelError,
    errors.CancelledError,
)
_OF_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)
_LEVEL_NAMES = {number: name for name, number in LEVELS.items()}

_TYPED_HINTS = {
    "pass `wasi=True`": "add --wasi",
    "pass a host function of that name in that namespace, or add a module": (
        "add the module that has it (--link), "
        "or run the plugin from an application that has the function"
    ),
}
"""The hints of `MissingImportError`, and what to type instead of what to pass in Python."""


class UsageProblem(Exception):
    """An option or an argument is not valid; the message says what was expected."""

    def __init__(self, option: str, message: str) -> None:
        super().__init__(f"{option}: {message}")


# ---- text ----------------------------------------------------------------------------------------


def escape(text: str) -> str:
    """Return `text` in one line that a terminal only shows."""
    return errors.escape_line(text)


def escape_lines(text: str, *, max_lines: int = _MAX_LINES) -> str:
    """Escape text that may have several lines. Lines after the first are indented.

    Lines and characters beyond a limit are only counted.
    """
    cut, rest = text[:_MAX_CHARACTERS], len(text) - _MAX_CHARACTERS
    lines = cut.replace("\r\n", "\n").rstrip("\n").split("\n")
    shown = [escape(line.replace("\t", "    ")) for line in lines[:max_lines]]
    if len(lines) > max_lines:
        shown.append(f"… ({len(lines) - max_lines} more lines)")
    elif rest > 0:
        shown[-1] += f"… ({rest} more characters)"
    return "\n  ".join(shown)


# ---- errors --------------------------------------------------------------------------------------


def print_error(message: str, hint: str = "", *, label: str = "error") -> None:
    """Write an error to stderr. `message` and `hint` must be escaped."""
    from rich.text import Text

    text = Text.assemble((f"{label}:", "bold red"), " ", message)
    if hint:
        text.append(f"\n  {hint}", "dim")
    stderr_console().print(text, soft_wrap=True)


def print_problems(file: str, problems: Iterable[str]) -> None:
    """Write the problems of a file to stderr."""
    for problem in problems:
        print_error(f"{escape(file)}: {escape(problem)}")


def print_warning(message: str) -> None:
    """Write a warning to stderr."""
    from rich.text import Text

    stderr_console().print(
        Text.assemble(("warning:", "bold yellow"), " ", escape(message)), soft_wrap=True
    )


def stderr_console() -> Console:
    """Return a console that writes to stderr, and reads nothing as markup."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, markup=False, emoji=False)


@contextmanager
def report_errors(command: str, *, traceback: bool = False) -> Iterator[None]:
    """End the command with a message and an exit code for whatever is raised in the block."""
    try:
        yield
    except (typer.Exit, typer.Abort):
        raise
    except BrokenPipeError:
        raise typer.Exit(silence_stdout()) from None
    except KeyboardInterrupt:
        print_error("interrupted")
        raise typer.Exit(INTERRUPTED) from None
    except UsageProblem as error:
        print_usage_error(str(error), command)
        raise typer.Exit(USAGE) from None
    except Exception as error:
        if isinstance(error, OSError) and is_of_stdout(error):
            raise typer.Exit(report_unwritable_stdout(error)) from None
        if traceback:
            _show_traceback(error)
        raise typer.Exit(_report(error, detailed=traceback)) from None


def print_usage_error(message: str, command: str) -> None:
    """Write what is wrong with the arguments of a command, and name its help."""
    print_error(escape(message), f"see: {command} --help")


def _report(error: Exception, *, detailed: bool) -> int:
    if isinstance(error, errors.GuestError) and error.guest_message is not None:
        print_error(escape_lines(error.guest_message or "(no message)"), label="plugin error")
        return FAILED
    if isinstance(error, errors.Error):
        message = error.message or type(error).__name__
        hint = _hint(error, detailed)
        if isinstance(error, errors.MissingImportError) and error.hint in _TYPED_HINTS:
            message, hint = message.removesuffix(error.hint) + _TYPED_HINTS[error.hint], ""
        print_error(escape_lines(message), hint)
        return _exit_code(error)
    if isinstance(error, MemoryError):
        print_error("this machine has not enough memory for that")
        return LIMIT
    if isinstance(error, OSError):
        reason = error.strerror or type(error).__name__
        print_error(
            f"{escape(os.fsdecode(error.filename))}: {reason}"
            if isinstance(error.filename, (str, bytes))
            else reason
        )
        return USAGE
    hint = "" if detailed else "please report it, with what --traceback shows"
    print_error(
        f"a fault of plugwasm itself: {type(error).__name__}: {escape_lines(str(error))}", hint
    )
    return INTERNAL


def _exit_code(error: errors.Error) -> int:
    if isinstance(error, _LIMITS):
        return LIMIT
    if isinstance(error, (errors.FunctionNotFoundError, errors.SignatureError)):
        return USAGE
    return (
        FAILED
        if isinstance(error, (errors.CallError, errors.EgressError, errors.ReplayError))
        else USAGE
    )


def _hint(error: errors.Error, detailed: bool) -> str:
    if isinstance(error, errors.EgressDeniedError):
        return "grant a host with --allow-host"
    if isinstance(
        error, (errors.FunctionNotFoundError, errors.SignatureError, errors.MissingImportError)
    ):
        return "see what it exports and imports: plugwasm inspect PLUGIN"
    if isinstance(error, errors.TrapError) and error.backtrace and not detailed:
        frames = [f"in {escape(frame)}" for frame in error.backtrace]
        return ", ".join(frames[:_MAX_FRAMES]) + (
            f", … (all {len(frames)} frames: --traceback)" if len(frames) > _MAX_FRAMES else ""
        )
    return ""


def _show_traceback(error: Exception) -> None:
    import traceback

    for line in "".join(traceback.format_exception(error)).splitlines():
        print(escape(line.replace("\t", "    ")), file=sys.stderr)


# ---- streams -------------------------------------------------------------------------------------


def silence_stdout() -> int:
    """Discard all further output, since stdout is no longer read or cannot be written: what is left
    in its buffer would fail once more when the process ends. Return the exit code of the former.
    """
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, AttributeError):
        pass
    return BROKEN_PIPE


def write_stdout(data: bytes) -> None:
    if sys.stdout is None:
        raise UsageProblem("standard output", "it is closed; use --output-file")
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        silence_stdout()
        raise write_failure("standard output", error) from error


def is_of_stdout(error: OSError) -> bool:
    """Return whether this is what printing raises where stdout cannot be written. Errors of files
    name them.
    """
    return error.filename is None and error.errno in _OF_WRITING


def report_unwritable_stdout(error: OSError) -> int:
    """Say that stdout cannot be written, and return the exit code."""
    silence_stdout()
    print_error(f"cannot write standard output: {error.strerror}")
    return USAGE


def write_failure(what: str, error: OSError) -> OSError:
    """Return the error with a message that says what could not be written."""
    return OSError(error.errno, error.strerror or type(error).__name__, f"cannot write {what}")


@contextmanager
def log_to_stderr(level: str) -> Iterator[None]:
    """Write the log of plugins and plugwasm to stderr, from `level` on; "off" for nothing."""
    logger = logging.getLogger("plugwasm")
    handler = _StderrHandler()
    before, propagated = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(LEVELS.get(level, logging.CRITICAL + 1))
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
        logger.propagate = propagated


class _StderrHandler(logging.Handler):
    _console: Console | None = None

    def emit(self, record: logging.LogRecord) -> None:
        from rich.text import Text

        if self._console is None:
            self._console = stderr_console()
        level = _LEVEL_NAMES.get(record.levelno, record.levelname.lower())
        name = escape(record.name.removeprefix("plugwasm.plugin."))
        style = {"warn": "yellow", "error": "red"}.get(level, "dim")
        text = Text.assemble(
            (f"{level:5} ", style),
            (f"{name}: ", "dim"),
            escape_lines(record.getMessage(), max_lines=1000),
        )
        self._console.print(text, soft_wrap=True)
