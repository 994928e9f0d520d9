"""The input and the output of `plugwasm call`: text, files, pipes, and terminals.

A terminal obeys what is written to it, and the output of a plugin may be anything. So on a terminal
the output is made visible: lines are lines, and what a terminal would not just show is escaped. A
pipe or a file gets the bytes as they are.
"""

from __future__ import annotations

import os
import stat
import sys
from contextlib import contextmanager
from io import BytesIO

from ..errors import SourceError, escape_line
from .terminal import UsageProblem, write_failure, write_stdout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STANDARD_STREAM = "-"
"""Stands for standard input or standard output in place of a file."""


def input_reader(text: str | None, path: str | None, stdin: bool) -> Callable[[], bytes]:
    """Return a function that reads the input: text, a file, or all of standard input.

    Standard input is also read when nothing is given and something is piped in.
    """
    given = [
        name
        for name, is_given in (
            ("--input", text is not None),
            ("--input-file", path is not None),
            ("--stdin", stdin),
        )
        if is_given
    ]
    if len(given) > 1:
        raise UsageProblem(" and ".join(given), "only one of them can be given")
    if stdin or STANDARD_STREAM in (text, path):
        return _read_stdin
    if text is not None:
        try:
            # Python keeps arguments that are not UTF-8 in this way.
            data = text.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            raise UsageProblem("--input", "expected text, got lone surrogates") from None
        return lambda: data
    if path is not None:
        return lambda: _read_file(path)
    return _read_stdin if _is_piped() else bytes


def _is_piped() -> bool:
    """Return whether standard input is a pipe, a socket or a file.

    A terminal is not read: the command would wait for a user to type.
    """
    if sys.stdin is None:
        return False
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError):
        # It may have been replaced by content that is in memory.
        return isinstance(getattr(sys.stdin, "buffer", None), BytesIO)
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


def _read_stdin() -> bytes:
    if sys.stdin is None:
        raise UsageProblem("--stdin", "there is no standard input")
    return sys.stdin.buffer.read()


def _read_file(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except ValueError:
        raise UsageProblem("--input-file", f"{path!r} cannot be the name of a file") from None
    except OSError as error:
        raise SourceError(
            f"cannot read the input {path}: {error.strerror or type(error).__name__}"
        ) from error


@contextmanager
def open_output(
    path: str | None, *, lines: bool, raw: bool = False
) -> Iterator[Callable[[bytes], None]]:
    """Yield a function that writes an output to stdout or to a file.

    The file is made with the first output.

    Args:
        path: The file; None and "-" stand for stdout.
        lines: Whether each output ends with a newline, because several of them follow each other. A
            single output gets one only on a terminal.
        raw: Whether a terminal gets the bytes as they are.
    """
    if path in (None, STANDARD_STREAM):
        on_terminal = sys.stdout is not None and sys.stdout.isatty()
        ended, visible = lines or on_terminal, on_terminal and not raw
        yield lambda data: write_stdout(_end_line(_make_visible(data) if visible else data, ended))
        return
    assert path is not None
    check_writable("--output-file", path)
    file = None

    def write(data: bytes) -> None:
        nonlocal file
        try:
            if file is None:
                file = open(path, "wb", buffering=0)  # noqa: SIM115
            rest = memoryview(_end_line(data, lines))
            while rest:
                rest = rest[file.write(rest) :]
        except OSError as error:
            raise write_failure(path, error) from error

    try:
        yield write
    finally:
        if file is not None:
            file.close()


def check_writable(option: str, path: str) -> None:
    """Raise `UsageProblem` if no file can be made there."""
    folder = os.path.dirname(path) or "."
    if not path or "\0" in path:
        raise UsageProblem(option, f"expected the name of a file, got {path!r}")
    if os.path.isdir(path) or not os.path.isdir(folder):
        raise UsageProblem(
            option,
            f"{path} is a directory" if os.path.isdir(path) else f"there is no directory {folder}",
        )


def _make_visible(data: bytes) -> bytes:
    """Return text that a terminal only shows. Tabs and ends of lines stay."""
    text = data.decode("utf-8", "backslashreplace").replace("\r\n", "\n")
    shown = "\n".join("\t".join(map(escape_line, line.split("\t"))) for line in text.split("\n"))
    return shown.encode(sys.stdout.encoding or "utf-8", "backslashreplace")


def _end_line(data: bytes, ended: bool) -> bytes:
    return data + b"\n" if ended and data and not data.endswith(b"\n") else data
