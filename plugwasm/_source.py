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

from plugwasm.errors import ManifestError, ModuleError, SourceError, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Final

    from plugwasm._sandbox.egress import Egress
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
        compile_seconds: The part that the plugin has of the time that several share; no manifest can say this.

    The last five are None where the manifest is silent.
    """

    __slots__ = (
        "allowed_hosts",
        "allowed_paths",
        "compile_seconds",
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
        compile_seconds: float | None = None,
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
        self.compile_seconds = compile_seconds

    @property
    def label(self) -> str:
        """What to call the plugin where the application gave no name: the main module's file name without its suffix."""
        origin = self.modules[-1].origin if len(self.modules) == 1 else next(m.origin for m in self.modules if m.name == self.main)
        stem = os.path.splitext(os.path.basename(origin.partition("?")[0]))[0]
        return stem if stem and " " not in stem else "plugin"

    def __repr__(self) -> str:
        return f"Recipe(modules={self.modules!r}, main={self.main!r}, config keys={sorted(self.config)!r})"


def resolve(plugin: object, *, module_bytes: int = MAX_MODULE_BYTES, egress: Egress | None = None) -> Recipe:
    """Reads everything that ``plugin`` stands for.

    ``plugin`` is a path (of a module or of a manifest), an ``http(s)://`` URL of a module, the bytes of a module or of a
    manifest, the text of a manifest or of a module, a mapping, or a ``Manifest``. A string that names an existing file is a path,
    whatever else it might mean. A ``Recipe`` is the answer already. No file or download may be larger than ``module_bytes``, and what is
    fetched must be granted by ``egress`` if there is one.

    Raises:
        ManifestError: The manifest is not valid, or ``plugin`` is of no type that could be one.
        HashMismatchError: A module is not the one that was pinned.
        SourceError: A file or URL cannot be read.
        ModuleError: The bytes are neither a core module nor its text.
    """
    if isinstance(plugin, str):
        if is_url(plugin):
            from plugwasm._fetch import fetch, shown_url

            return of_one_module(fetch(plugin, limit=module_bytes, egress=egress), shown_url(plugin))
        if not is_file(plugin) and looks_like_text(plugin):
            return _from_content(encoded(plugin), "the text given", module_bytes, egress)
        return _from_file(plugin, module_bytes, egress)
    if isinstance(plugin, (bytes, bytearray, memoryview)):
        return _from_content(bytes(plugin), "the bytes given", module_bytes, egress)
    if isinstance(plugin, os.PathLike):
        return _from_file(os.fsdecode(plugin), module_bytes, egress)

    if isinstance(plugin, Recipe):
        return plugin

    from plugwasm.manifest import parse

    return from_manifest(parse(plugin), module_bytes, egress)


def _from_file(path: str, module_bytes: int, egress: Egress | None) -> Recipe:
    content = read_file(path, module_bytes)
    if path.lower().endswith(_MODULE_SUFFIXES):
        return of_one_module(content, path)
    return _from_content(content, path, module_bytes, egress, folder=os.path.dirname(path))


def _from_content(content: bytes, origin: str, module_bytes: int, egress: Egress | None, *, folder: str | None = None) -> Recipe:
    if sniff(content) != "text":
        return of_one_module(content, origin)

    from plugwasm.manifest import parse_named

    return from_manifest(parse_named(content, origin, folder), module_bytes, egress)


def of_one_module(content: bytes, origin: str) -> Recipe:
    return Recipe([ModuleSource(MAIN, verified(content, origin), origin)])


def from_manifest(manifest: Manifest, module_bytes: int, egress: Egress | None = None) -> Recipe:
    from plugwasm._reading import ModuleReader

    reader = ModuleReader(module_bytes, egress)
    contents = [reader.read(source, index) for index, source in enumerate(manifest.wasm)]
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


def verified(content: bytes, origin: str, *, shows_bytes: bool = True) -> bytes:
    """The bytes of a core module, or its text without a mark before it; else the error that says what they are instead.

    With ``shows_bytes`` that has the first of them, so not where somebody else chose what is read.
    """
    kind = sniff(content)
    if kind == "wasm":
        return content
    if kind == "wat":
        return content.removeprefix(b"\xef\xbb\xbf")
    if kind == "empty":
        raise SourceError(f"{shown_path(origin)} is empty; expected a Wasm module")
    if kind == "component":
        raise ModuleError(f"{shown_path(origin)} is a Wasm component, and components are not supported; build it as a core module")
    begins = f": it begins with the bytes {content[:4].hex(' ')}, not" if shows_bytes else ": it does not begin"
    raise ModuleError(f"{shown_path(origin)} is not a Wasm module{begins} with 00 61 73 6d")


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
    """The content of the regular file ``path``, at most ``limit`` bytes of it, else ``SourceError``.

    Neither to open nor to read it can take for ever: what is no regular file is not opened (a device may do something then), nor waited for
    should it be exchanged for one; and no more is read than the size that it had, for there are files that never end and say that they are
    empty (``/proc/kmsg``), and files that grow.
    """
    try:
        _check_regular(path, os.stat(path))
        with open(path, "rb", opener=_without_waiting) as file:
            status = os.fstat(file.fileno())
            _check_regular(path, status)
            content = file.read(status.st_size) if status.st_size <= limit else b""
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SourceError(f"no such file: {shown_path(path)} (current directory: {_current_directory()})") from error
    except OSError as error:
        raise SourceError(f"cannot read {shown_path(path)}: {error.strerror or type(error).__name__}") from error
    except ValueError as error:
        raise SourceError(f"cannot read {shown_path(path)}: that cannot be the name of a file") from error
    if status.st_size > limit:
        raise SourceError(f"cannot read {shown_path(path)}: it is larger than the limit of {limit} bytes")
    if not content:
        raise SourceError(f"cannot read {shown_path(path)}: it is empty")
    return content


def _check_regular(path: str, status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise SourceError(f"cannot read {shown_path(path)}: it is a directory; give the file")
    if not stat.S_ISREG(status.st_mode):
        raise SourceError(f"cannot read {shown_path(path)}: it is not a regular file; pass its content as bytes")


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0))


def shown_path(path: str) -> str:
    """A path for a message."""
    return f"{shown(path, 300)}{f' ({len(path)} characters)' if len(path) > 300 else ''}"


def _current_directory() -> str:
    try:
        return os.getcwd()
    except OSError:
        return "gone"
