"""Reads files that the application names, and recognises their content by its first bytes.

Decisions: docs/decisions.md, 29.4.
"""

from __future__ import annotations

import os
import stat

from ..errors import ManifestError, ModuleError, SourceError, truncate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Final

_MAX_PATH_CHARACTERS: Final = 4096
_MODULE_SUFFIXES: Final = (".wasm", ".wat")


def sniff(content: bytes) -> str:
    """Return the type of content by its first bytes: wasm, component, wat, text, binary or empty.

    Text may be a manifest.
    """
    if content.startswith(b"\0asm"):
        return "component" if content[6:8] == b"\x01\x00" else "wasm"
    start = content[:1024].removeprefix(b"\xef\xbb\xbf").lstrip()
    if not start:
        start = content.removeprefix(b"\xef\xbb\xbf").lstrip()[:64]
    if not start:
        return "empty"
    if start.startswith((b"(", b";;")):
        return "wat"
    return "binary" if any(byte < 9 or 13 < byte < 32 for byte in start[:64]) else "text"


def verify_module(content: bytes, origin: str, *, shows_bytes: bool = True) -> bytes:
    """Return the bytes of a core module, or its text without a byte order mark.

    Args:
        content: The bytes.
        origin: Where they came from, for messages.
        shows_bytes: Whether an error may show the first bytes. Not if somebody else chose what is
            read.

    Raises:
        SourceError: They are empty.
        ModuleError: They are no core module; the message says what they are.
    """
    kind = sniff(content)
    if kind == "wasm":
        return content
    if kind == "wat":
        return content.removeprefix(b"\xef\xbb\xbf")
    if kind == "empty":
        raise SourceError(f"{format_path(origin)} is empty; expected a Wasm module")
    if kind == "component":
        raise ModuleError(
            f"{format_path(origin)} is a Wasm component, and components are not supported; build "
            "it as a core module"
        )
    begins = (
        f": it begins with the bytes {content[:4].hex(' ')}, not"
        if shows_bytes
        else ": it does not begin"
    )
    raise ModuleError(f"{format_path(origin)} is not a Wasm module{begins} with 00 61 73 6d")


def make_absolute(paths: Mapping[str, str], base: str | None = None) -> dict[str, str]:
    """Return ``allowed_paths`` with absolute directories; relative ones start at ``base`` or the
    current directory.

    Raises:
        ManifestError: Two of them are the same; the second would replace the first.
    """
    absolute: dict[str, str] = {}
    for path, guest_path in paths.items():
        prefix, place = ("ro:", path[3:]) if path.startswith("ro:") else ("", path)
        full = prefix + (absolute_path(base, place) if place else place)
        if full in absolute:
            raise ManifestError(
                f"manifest field `allowed_paths`: it has {format_path(full)} twice, in two "
                "spellings",
                field="allowed_paths",
            )
        absolute[full] = guest_path
    return absolute


def absolute_path(base: str | None, path: str) -> str:
    """Return a path as an absolute one, relative to ``base`` or the current directory.

    ``..`` is left to the system, since there may be links.
    """
    if os.path.isabs(path):
        return path
    try:
        return os.path.join(os.getcwd(), base or "", path)
    except OSError:  # the current directory is gone
        return path


def is_url(text: str) -> bool:
    """Return whether text begins like an http or https URL."""
    return text[:8].lower().startswith(("http://", "https://"))


def is_file(text: str) -> bool:
    """Return whether text is the path of an existing file."""
    if len(text) > _MAX_PATH_CHARACTERS:
        return False
    return os.path.exists(text)


def looks_like_text(text: str) -> bool:
    """Return whether text that names no file is rather a manifest or a module in text form than a
    wrong path.
    """
    if "\n" in text:
        return True
    start = text[:_MAX_PATH_CHARACTERS].lstrip("\ufeff \t\r")
    if start.startswith("wasm"):
        return start[4:].lstrip().startswith("=")
    return start.startswith(("{", "(", ";;")) and not text.lower().endswith(_MODULE_SUFFIXES)


def encode_text(text: str) -> bytes:
    """Return text as UTF-8. Raise `ManifestError` if that is not possible."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise ManifestError(
            "the text given holds characters (lone surrogates) that cannot be encoded as UTF-8"
        ) from None


def read_file(path: str, limit: int, *, is_text: bool = False) -> bytes:
    """Return the content of a regular file.

    Neither opening nor reading can take for ever. Only regular files are opened (opening a device
    may have effects), and opening does not wait if the file is exchanged for another at that
    moment. No more is read than the size that the file had, since some files never end and claim to
    be empty (``/proc/kmsg``), and some grow.

    Args:
        path: The file.
        limit: The most bytes that it may have.
        is_text: Whether it is a text, which may be empty, and not a module or a manifest.

    Raises:
        SourceError: It cannot be read, is empty and may not be, or has more than ``limit`` bytes.
    """
    try:
        _check_regular(path, os.stat(path), is_text)
        with open(path, "rb", opener=_open_without_waiting) as file:
            status = os.fstat(file.fileno())
            _check_regular(path, status, is_text)
            content = file.read(status.st_size) if status.st_size <= limit else b""
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SourceError(
            f"no such file: {format_path(path)} (current directory: {_current_directory()})"
        ) from error
    except OSError as error:
        raise SourceError(
            f"cannot read {format_path(path)}: {error.strerror or type(error).__name__}"
        ) from error
    except ValueError as error:
        raise SourceError(
            f"cannot read {format_path(path)}: that cannot be the name of a file"
        ) from error
    if status.st_size > limit:
        raise SourceError(
            f"cannot read {format_path(path)}: it is larger than the limit of {limit} bytes"
        )
    if not (content or is_text):
        raise SourceError(
            f"cannot read {format_path(path)}: it is empty; expected a Wasm module or a manifest"
        )
    return content


def _check_regular(path: str, status: os.stat_result, is_text: bool) -> None:
    if stat.S_ISDIR(status.st_mode):
        module = os.path.join(path, "plugin.wasm")
        which = f", {format_path(module)}" if os.path.isfile(module) else " in it"
        what, hint = "is a directory", f"give the module{which}, or the directory to a PluginSet"
    elif not stat.S_ISREG(status.st_mode):
        what, hint = "is not a regular file", "pass its content as bytes"
    else:
        return
    raise SourceError(f"cannot read {format_path(path)}: it {what}{'' if is_text else f'; {hint}'}")


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0))


def format_path(path: str) -> str:
    """Return a path for a message, truncated."""
    return f"{truncate(path, 300)}{f' ({len(path)} characters)' if len(path) > 300 else ''}"


def _current_directory() -> str:
    try:
        return os.getcwd()
    except OSError:
        return "gone"
