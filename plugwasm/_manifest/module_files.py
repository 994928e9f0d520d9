"""Reads and downloads the modules that a manifest names, within bounds on all of them together,
with errors that tell no more than needed.

A manifest may be a stranger's, who then reads the errors. So

1. no error shows anything of the content: neither its first bytes nor its sha256, which tell what a
   file that the host can read contains;
2. if the application passes an `Egress`, which it does for manifests that are not its own,
   everything that can be wrong with a path is one error, whether there is such a file or not. Text
   is taken for a module only if the file's name says so, since an error in it is shown with its
   line; and a hash is compared with that of a module only. The cause of the error, for a log, says
   more;
3. all modules together have at most `MAX_TOTAL_BYTES` (or the limit of one, if that is higher), and
   all downloads take at most `TOTAL_DOWNLOAD_SECONDS`.
"""

from __future__ import annotations

from time import monotonic

from ..errors import HashMismatchError, ModuleError, SourceError, truncate
from .files import format_path, read_file, sniff, verify_module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from .._http.egress import Egress
    from .model import WasmSource

__all__ = ["MAX_TOTAL_BYTES", "TOTAL_DOWNLOAD_SECONDS", "ModuleReader", "check_hash"]

MAX_TOTAL_BYTES: Final = 256 * 2**20
TOTAL_DOWNLOAD_SECONDS: Final = 120.0
_TEXT_SUFFIXES: Final = (".wat", ".wast")


class ModuleReader:
    """Reads the modules of one manifest.

    Args:
        module_bytes: The most bytes of one module.
        egress: The application's, which downloads must be granted by; given if the manifest is not
            its own (see above).
    """

    def __init__(self, module_bytes: int, egress: Egress | None) -> None:
        self._module_bytes = module_bytes
        self._left = max(module_bytes, MAX_TOTAL_BYTES)
        self._egress = egress
        self._download_seconds = 0.0

    def read(self, source: WasmSource, index: int) -> tuple[bytes, str]:
        """Return the bytes of a module and where they came from.

        Raises:
            SourceError: It cannot be read or downloaded.
            HashMismatchError: It is not the one that the manifest pins.
            ModuleError: It is no core module.
        """
        field = f"wasm[{index}]"
        is_strangers = self._egress is not None and source.path is not None
        origin = f"manifest field `{field}`"
        try:
            content, origin = self._content(source, origin)
            if is_strangers:
                _check_is_module(content, origin)
        except (SourceError, ModuleError) as error:
            if is_strangers:
                raise SourceError(
                    f"manifest field `{field}.path`: {format_path(source.path or '')} cannot be "
                    "read as a module: there is no such file, "
                    "or it may not be read, or it is too large, or none"
                ) from error
            raise SourceError(f"manifest field `{field}`: {error.message}") from error.__cause__
        check_hash(source, field, origin, content)
        return verify_module(content, origin, shows_bytes=source.data is not None), origin

    def content(self, source: WasmSource) -> bytes:
        """Return the bytes of a module without checking them.

        Raise `SourceError` if they cannot be read.
        """
        return self._content(source, "")[0]

    def _content(self, source: WasmSource, origin: str) -> tuple[bytes, str]:
        limit = min(self._module_bytes, self._left)
        if source.path is not None:
            origin = source.path
            content = read_file(source.path, limit)
        elif source.url is not None:
            from .download import redact_url

            origin = redact_url(source.url)
            content = self._download(source, limit)
        else:
            content = source.data or b""
        self._left -= len(content)
        if self._left < 0:
            raise SourceError(
                "this module and those before it have more than the "
                f"{max(self._module_bytes, MAX_TOTAL_BYTES)} bytes that all modules together may "
                "have"
            )
        return content, origin

    def _download(self, source: WasmSource, limit: int) -> bytes:
        from .download import DOWNLOAD_SECONDS, download_module

        began = monotonic()
        try:
            return download_module(
                source.url or "",
                source.headers,
                (source.method or "GET").upper(),
                limit=limit,
                seconds=max(
                    0.0, min(DOWNLOAD_SECONDS, TOTAL_DOWNLOAD_SECONDS - self._download_seconds)
                ),
                egress=self._egress,
            )
        finally:
            self._download_seconds += monotonic() - began


def check_hash(source: WasmSource, field: str, origin: str, content: bytes) -> None:
    """Raise `HashMismatchError` if these are not the bytes that the manifest pins.

    The error has their hash only if the manifest has the bytes.
    """
    if source.hash is None:
        return
    import hashlib

    digest = hashlib.sha256(content).hexdigest()
    if digest != source.hash:
        found = "another" if source.data is None else digest
        named = f" (module `{truncate(source.name)}`)" if source.name is not None else ""
        raise HashMismatchError(
            f"manifest field `{field}.hash`: expected {source.hash}, but the sha256 of "
            f"{format_path(origin)}{named} is {found}; "
            "it is not the module that was pinned. If it should be, pin it anew: `plugwasm "
            "inspect` and `sha256sum` tell what a file's is",
            field=f"{field}.hash",
        )


def _check_is_module(content: bytes, path: str) -> None:
    kind = sniff(content)
    if kind == "wat" and not path.lower().endswith(_TEXT_SUFFIXES):
        raise ModuleError(f"{format_path(path)} is text, and its name does not end with .wat")
    if kind != "wat":
        verify_module(content, path, shows_bytes=False)
