"""Files that are written in one step."""

from __future__ import annotations

import errno
import os


def write_file(path: str, content: bytes, mode: int = 0o600) -> None:
    """Write a file, completely or not at all; by default, one that only its owner can read.

    A link is replaced, not followed. What exists and is not a file, such as a device, is not
    replaced.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        raise FileExistsError(errno.EEXIST, "the path exists and is not a regular file", path)
    # The name is known before the file exists: it is removed wherever a signal handler raises.
    temporary = os.path.join(os.path.dirname(path), f".part-{os.getpid()}-{os.urandom(8).hex()}")
    try:
        with open(temporary, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
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
