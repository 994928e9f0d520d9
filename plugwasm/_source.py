"""From what an application passes as a plugin to the bytes of its modules and the settings they run under.

A plugin can be a path, the bytes of a module, a URL, or a manifest in any of its forms. ``resolve`` tells them apart, reads or
fetches every module, checks the pinned hashes and gives one ``Recipe``: all that the rest of the package needs.
Nothing is compiled here, so a wrong hash is found before any of the bytes are looked at.

The two commonest cases, the path and the bytes of a module, must start fast: they import nothing that the interpreter
has not imported already. Manifests (``plugwasm.manifest``) and downloads (``plugwasm._fetch``) are imported when they are met.
"""

from __future__ import annotations

import os
import stat

from plugwasm.errors import HashMismatchError, ManifestError, ModuleError, SourceError, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Final

    from plugwasm.manifest import Manifest, WasmSource

MAX_MODULE_BYTES: Final = 256 * 2**20
MAIN: Final = "main"

_MAX_PATH_CHARACTERS: Final = 4096
_MODULE_SUFFIXES: Final = (".wasm", ".wat")


class ModuleSource:
    """One module that was read but not compiled.

    Attributes:
        name: What other modules import it by; unique within a recipe.
        wasm: The bytes of a core module, or its text format as UTF-8.
        origin: Where the bytes came from, for messages.
    """

    __slots__ = ("name", "origin", "wasm")

    def __init__(self, name: str, wasm: bytes, origin: str) -> None:
        self.name = name
        self.wasm = wasm
        self.origin = origin

    def __repr__(self) -> str:
        return f"ModuleSource(name={self.name!r}, origin={self.origin!r}, wasm=<{len(self.wasm)} bytes>)"


class Recipe:
    """The modules of a plugin and what they may do.

    Attributes:
        modules: In the order of the manifest; at least one.
        main: The name of the module whose exports are called.
        config: What ``config_get`` serves.
        allowed_hosts: Globs over host names; empty denies all.
        allowed_paths: Host directory (with ``ro:`` in front when read-only) to guest path.
        timeout_ms: The deadline of a call.
        max_pages: The cap on all memory of the plugin in pages of 64 KiB.
        max_http_response_bytes: The cap on one response body.
        max_var_bytes: The cap on all vars of an instance; 0 turns vars off.

    The last four are None where the manifest is silent.
    """

    __slots__ = (
        "allowed_hosts",
        "allowed_paths",
        "config",
        "main",
        "max_http_response_bytes",
        "max_pages",
        "max_var_bytes",
        "modules",
        "timeout_ms",
    )

    def __init__(
        self,
        modules: list[ModuleSource],
        *,
        main: str = MAIN,
        config: Mapping[str, str] | None = None,
        allowed_hosts: tuple[str, ...] = (),
        allowed_paths: Mapping[str, str] | None = None,
        timeout_ms: int | None = None,
        max_pages: int | None = None,
        max_http_response_bytes: int | None = None,
        max_var_bytes: int | None = None,
    ) -> None:
        self.modules = modules
        self.main = main
        self.config = dict(config or {})
        self.allowed_hosts = allowed_hosts
        self.allowed_paths = dict(allowed_paths or {})
        self.timeout_ms = timeout_ms
        self.max_pages = max_pages
        self.max_http_response_bytes = max_http_response_bytes
        self.max_var_bytes = max_var_bytes

    @property
    def label(self) -> str:
        """What to call the plugin where the application gave no name: the main module's file name without its suffix."""
        origin = self.modules[-1].origin if len(self.modules) == 1 else next(m.origin for m in self.modules if m.name == self.main)
        stem = os.path.splitext(os.path.basename(origin.partition("?")[0]))[0]
        return stem if stem and " " not in stem else "plugin"

    def __repr__(self) -> str:
        return f"Recipe(modules={self.modules!r}, main={self.main!r}, config keys={sorted(self.config)!r})"


def resolve(plugin: object, *, module_bytes: int = MAX_MODULE_BYTES) -> Recipe:
    """Reads everything that ``plugin`` stands for.

    ``plugin`` is a path (of a module or of a manifest), an ``http(s)://`` URL of a module, the bytes of a module or of a
    manifest, the text of a manifest or of a module, a mapping, or a ``Manifest``. A string that names an existing file is a path,
    whatever else it might mean. A ``Recipe`` is the answer already. No file or download may be larger than ``module_bytes``.

    Raises:
        ManifestError: The manifest is not valid, or ``plugin`` is of no type that could be one.
        HashMismatchError: A module is not the one that was pinned.
        SourceError: A file or URL cannot be read.
        ModuleError: The bytes are neither a core module nor its text.
    """
    if isinstance(plugin, str):
        if is_url(plugin):
            from plugwasm._fetch import fetch, shown_url

            return of_one_module(fetch(plugin, limit=module_bytes), shown_url(plugin))
        if not is_file(plugin) and looks_like_text(plugin):
            return _from_content(encoded(plugin), "the text given", module_bytes)
        return _from_file(plugin, module_bytes)
    if isinstance(plugin, (bytes, bytearray, memoryview)):
        return _from_content(bytes(plugin), "the bytes given", module_bytes)
    if isinstance(plugin, os.PathLike):
        return _from_file(os.fsdecode(plugin), module_bytes)

    if isinstance(plugin, Recipe):
        return plugin

    from plugwasm.manifest import parse

    return from_manifest(parse(plugin), module_bytes)


def _from_file(path: str, module_bytes: int) -> Recipe:
    content = read_file(path, module_bytes)
    if path.lower().endswith(_MODULE_SUFFIXES):
        return of_one_module(content, path)
    return _from_content(content, path, module_bytes, folder=os.path.dirname(path))


def _from_content(content: bytes, origin: str, module_bytes: int, *, folder: str | None = None) -> Recipe:
    if sniff(content) != "text":
        return of_one_module(content, origin)

    from plugwasm.manifest import parse_named

    return from_manifest(parse_named(content, origin, folder), module_bytes)


def of_one_module(content: bytes, origin: str) -> Recipe:
    return Recipe([ModuleSource(MAIN, _checked(content, origin), origin)])


def from_manifest(manifest: Manifest, module_bytes: int) -> Recipe:
    contents = [_read(source, f"wasm[{index}]", module_bytes) for index, source in enumerate(manifest.wasm)]
    names = module_names(manifest.wasm)
    memory = manifest.memory
    return Recipe(
        [ModuleSource(name, content, origin) for name, (content, origin) in zip(names, contents, strict=True)],
        config=manifest.config,
        allowed_hosts=tuple(manifest.allowed_hosts or ()),
        allowed_paths=manifest.allowed_paths,
        timeout_ms=manifest.timeout_ms,
        max_pages=memory.max_pages,
        max_http_response_bytes=memory.max_http_response_bytes,
        max_var_bytes=memory.max_var_bytes,
    )


def _read(source: WasmSource, field: str, module_bytes: int) -> tuple[bytes, str]:
    origin = f"manifest field `{field}`"
    try:
        if source.path is not None:
            origin = source.path
            content = read_file(source.path, module_bytes)
        elif source.url is not None:
            from plugwasm._fetch import fetch, shown_url

            origin = shown_url(source.url)
            content = fetch(source.url, source.headers, source.method or "GET", limit=module_bytes)
        else:
            content = source.data or b""
    except SourceError as error:
        raise SourceError(f"manifest field `{field}`: {error.message}") from error.__cause__
    if source.hash is not None:
        import hashlib

        actual = hashlib.sha256(content).hexdigest()
        if actual != source.hash:
            named = f" (module `{shown(source.name)}`)" if source.name is not None else ""
            raise HashMismatchError(
                f"manifest field `{field}.hash`: expected {source.hash}, but the sha256 of {shown_path(origin)}{named} is {actual}; "
                "it is not the module that was pinned",
                field=f"{field}.hash",
            )
    return _checked(content, origin), origin


def module_names(sources: list[WasmSource]) -> list[str]:
    """Names every module: the main one ``main``; another by its own name, else by its file, else by its place in the list.

    A name made from a file never takes the place of the kernel, of WASI or of a name that somebody chose.
    """
    from plugwasm._fetch import shown_url

    main = next((i for i, source in enumerate(sources) if source.name == MAIN), len(sources) - 1)
    names: list[str] = []
    taken = {source.name for source in sources} | {MAIN, "env"}
    for index, source in enumerate(sources):
        name = source.name
        if index == main:
            name = MAIN
        elif name is None:
            place = source.path or shown_url(source.url or "").removesuffix("?…")
            stem = os.path.splitext(os.path.basename(place))[0]
            name = stem if stem and stem not in taken and not stem.startswith(("extism:", "wasi")) else str(index)
            while name in taken:
                name += "_"
        taken.add(name)
        names.append(name)
    return names


def sniff(content: bytes) -> str:
    """What ``content`` is by its first bytes: wasm, component, wat, text (a manifest, perhaps), binary or empty."""
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


def _checked(content: bytes, origin: str) -> bytes:
    kind = sniff(content)
    if kind == "wasm":
        return content
    if kind == "wat":
        return content.removeprefix(b"\xef\xbb\xbf")
    if kind == "empty":
        raise SourceError(f"{shown_path(origin)} is empty; expected a Wasm module")
    if kind == "component":
        raise ModuleError(f"{shown_path(origin)} is a Wasm component, and components are not supported; build it as a core module")
    raise ModuleError(f"{shown_path(origin)} is not a Wasm module: it begins with the bytes {content[:4].hex(' ')}, not with 00 61 73 6d")


def is_url(text: str) -> bool:
    return text[:8].lower().startswith(("http://", "https://"))


def is_file(text: str) -> bool:
    if len(text) > _MAX_PATH_CHARACTERS:
        return False
    return os.path.exists(text)


def looks_like_text(text: str) -> bool:
    """Whether ``text``, which names no file, is more likely a manifest or a module in text form than a path gone wrong."""
    if "\n" in text:
        return True
    start = text[:_MAX_PATH_CHARACTERS].lstrip("\ufeff \t\r")
    if start.startswith("wasm"):
        return start[4:].lstrip().startswith("=")
    return start.startswith(("{", "(", ";;")) and not text.lower().endswith(_MODULE_SUFFIXES)


def encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise ManifestError("the text given holds characters (lone surrogates) that cannot be encoded as UTF-8") from None


def read_file(path: str, limit: int) -> bytes:
    """The content of the regular file ``path``, at most ``limit`` bytes of it, else ``SourceError``."""
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise SourceError(f"cannot read {shown_path(path)}: it is a directory; give the file")
        if not stat.S_ISREG(status.st_mode):
            raise SourceError(f"cannot read {shown_path(path)}: it is not a regular file; pass its content as bytes")
        content = b""
        if status.st_size <= limit:
            with open(path, "rb") as file:
                content = file.read(limit + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SourceError(f"no such file: {shown_path(path)} (current directory: {_current_directory()})") from error
    except OSError as error:
        raise SourceError(f"cannot read {shown_path(path)}: {error.strerror or type(error).__name__}") from error
    except ValueError as error:
        raise SourceError(f"cannot read {shown_path(path)}: that cannot be the name of a file") from error
    if max(status.st_size, len(content)) > limit:
        raise SourceError(f"cannot read {shown_path(path)}: it is larger than the limit of {limit} bytes")
    if not content:
        raise SourceError(f"cannot read {shown_path(path)}: it is empty")
    return content


def shown_path(path: str) -> str:
    """A path for a message."""
    return f"{shown(path, 300)}{f' ({len(path)} characters)' if len(path) > 300 else ''}"


def _current_directory() -> str:
    try:
        return os.getcwd()
    except OSError:
        return "gone"
