"""Private files, written in one step."""

from __future__ import annotations

import errno
import os


def write_file(path: str, content: bytes) -> None:
    """Write a private file, completely or not at all.

    What exists and is not a file, such as a device, is not replaced.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        raise FileExistsError(errno.EEXIST, "the path exists and is not a regular file", path)
    # The name is known before the file exists: it is removed wherever a signal handler raises.
    temporary = os.path.join(
        os.path.dirname(path), f".recording-{os.getpid()}-{os.urandom(8).hex()}"
    )
    try:
        with open(temporary, "xb", opener=_open_private) as file:
            file.write(content)
        os.replace(temporary, path)
    except BaseException as error:
        try:
            os.unlink(temporary)
        except OSError:
            pass  # not created yet, or renamed already
        if isinstance(error, OSError):
            error.filename, error.filename2 = path, None
        raise


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
