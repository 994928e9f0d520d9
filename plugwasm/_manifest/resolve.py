"""Resolves what an application passes as a plugin to the bytes of its modules and their settings.

A plugin can be a path, the bytes of a module, a URL, or a manifest. ``resolve`` finds out which,
reads or downloads every module, checks the pinned hashes and returns one ``PluginSpec``: everything
that the rest of the package needs. Nothing is compiled here, so a wrong hash is found before any of
the bytes are interpreted.

A manifest grants access, so the caller says what is a manifest, and never the content: an object,
text (``str``), or a file with the suffix ``.json`` or ``.toml``. Bytes and all other files are
modules, whatever is in them.

The two most common cases, the path and the bytes of a module, must start fast: they import only
what the interpreter has imported already. Manifests (``model``) and downloads (``download``) are
imported when they are needed.

Decisions: docs/decisions.md, 36.1 and 36.3.
"""

from __future__ import annotations

import os

from ..errors import ModuleError, OptionError, SourceError
from .files import (
    encode_text,
    format_path,
    is_file,
    is_url,
    looks_like_text,
    make_absolute,
    read_file,
    sniff,
    verify_module,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Final, TypeVar

    from .._http.egress import Egress
    from .limits import Limits
    from .model import Manifest, WasmSource

    PluginSettings = Any
    """`_runtime.settings.PluginSettings`, which is above."""
    T = TypeVar("T")

MAX_MODULE_BYTES: Final = 256 * 2**20
MAIN_MODULE: Final = "main"

_MANIFEST_SUFFIXES: Final = (".json", ".toml")


class ModuleSpec:
    """One module that was read but not compiled.

    Attributes:
        name: The name by which other modules import it; unique within a plugin.
        wasm: The bytes of a core module, or its text format as UTF-8.
        origin: Where the bytes came from, for messages.
        is_own: Whether it is code of plugwasm, such as an interpreter, and not of the plugin. Then
            compiling it takes nothing of what the limits allow.
    """

    __slots__ = ("is_own", "name", "origin", "wasm")

    def __init__(self, name: str, wasm: bytes, origin: str, *, is_own: bool = False) -> None:
        self.name = name
        self.wasm = wasm
        self.origin = origin
        self.is_own = is_own

    def __repr__(self) -> str:
        return (
            f"ModuleSpec(name={self.name!r}, origin={self.origin!r}, wasm=<{len(self.wasm)} bytes>)"
        )


class PluginSpec:
    """The modules of a plugin, read but not compiled, and what they may do.

    Attributes:
        modules: In the order of the manifest; at least one.
        main: The name of the module whose exports are called.
        config: The values that ``config_get`` returns.
        allowed_hosts: Globs over host names; empty denies all.
        allowed_paths: Host directory (absolute; with ``ro:`` in front when read-only) to guest
            path.
        timeout_ms: The deadline of a call.
        max_pages: How many pages of 64 KiB the main module may start with, and how many may be
            added later.
        max_http_response_bytes: The limit on one response body.
        max_var_bytes: The limit on all vars of an instance; 0 turns vars off.
        compile_seconds: The plugin's share of the time that several plugins have; no manifest can
            set it.

    The last five are None if the manifest does not set them.
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
        modules: list[ModuleSpec],
        *,
        main: str = MAIN_MODULE,
        config: Mapping[str, str] | None = None,
        allowed_hosts: tuple[str, ...] = (),
        allowed_paths: Mapping[str, str] | None = None,
        timeout_ms: int | None = None,
        max_pages: int | None = None,
        max_http_response_bytes: int | None = None,
        max_var_bytes: int | None = None,
        compile_seconds: float | None = None,
    ) -> None:
        self.modules: list[ModuleSpec] = modules
        self.main: str = main
        self.config: dict[str, str] = dict(config or {})
        self.allowed_hosts: tuple[str, ...] = allowed_hosts
        self.allowed_paths: dict[str, str] = make_absolute(allowed_paths) if allowed_paths else {}
        self.timeout_ms: int | None = timeout_ms
        self.max_pages: int | None = max_pages
        self.max_http_response_bytes: int | None = max_http_response_bytes
        self.max_var_bytes: int | None = max_var_bytes
        self.compile_seconds: float | None = compile_seconds

    @property
    def label(self) -> str:
        """The default name of the plugin: the main module's file name without its suffix."""
        origin = (
            self.modules[-1].origin
            if len(self.modules) == 1
            else next(m.origin for m in self.modules if m.name == self.main)
        )
        stem = os.path.splitext(os.path.basename(origin.partition("?")[0]))[0]
        return stem if stem and " " not in stem else "plugin"

    def _take_grants(self, manifest: Manifest) -> None:
        """Take over what a manifest says of other things than its modules."""
        memory = manifest.memory
        self.config = dict(manifest.config or {})
        self.allowed_hosts = tuple(manifest.allowed_hosts or ())
        paths = manifest.allowed_paths
        self.allowed_paths = make_absolute(paths) if paths else {}
        self.timeout_ms = manifest.timeout_ms
        self.max_pages = memory.max_pages
        self.max_http_response_bytes = memory.max_http_response_bytes
        self.max_var_bytes = memory.max_var_bytes

    def _prepare(self, settings: PluginSettings) -> tuple[PluginSpec, PluginSettings]:
        """Return the modules to be compiled, and the settings to run them with.

        They are these, except where the spec is that of a script, which is loaded first.
        """
        return self, settings

    def copy(self) -> PluginSpec:
        """Return a copy with the same modules and grants."""
        copied = PluginSpec(self.modules)
        for name in PluginSpec.__slots__:
            setattr(copied, name, getattr(self, name))
        return copied

    def __repr__(self) -> str:
        return (
            f"PluginSpec(modules={self.modules!r}, main={self.main!r}, "
            f"config keys={sorted(self.config)!r})"
        )


class Admitted(PluginSpec):
    """A plugin that a `ManifestPolicy` admitted. Pass it as `plugin` to whatever runs one."""

    __module__ = "plugwasm"

    __slots__ = ("egress", "limits")

    def __init__(self, granted: PluginSpec, limits: Limits, egress: Egress | None) -> None:
        for name in PluginSpec.__slots__:
            setattr(self, name, getattr(granted, name))
        self.limits: Limits = limits
        self.egress: Egress | None = egress


def admitted_settings(
    plugin: object, limits: Limits | None, egress: T
) -> tuple[Limits | None, T | Egress | None]:
    """Return the limits and the egress of a plugin: its own if a `ManifestPolicy` admitted it.

    Raises:
        OptionError: An admitted plugin has its own, and others were passed.
    """
    if not isinstance(plugin, Admitted):
        return limits, egress
    for name, given in (("limits", limits), ("egress", egress)):
        if given is not None:
            raise OptionError(
                f"{name}: what a ManifestPolicy has admitted has its own already; leave `{name}` "
                "out here, and pass it to the policy",
                field=name,
            )
    return plugin.limits, plugin.egress


def resolve(
    plugin: object, *, module_bytes: int = MAX_MODULE_BYTES, egress: Egress | None = None
) -> PluginSpec:
    """Read the modules of a plugin.

    ``plugin`` is a path, an ``http(s)://`` URL of a module, the bytes of a module, the text of a
    manifest or of a module, a mapping, or a ``Manifest``. A string that names an existing file is a
    path, whatever else it might mean. A ``PluginSpec`` is returned as it is. No file or download
    may be larger than ``module_bytes``, and downloads must be granted by ``egress`` if there is
    one.

    Raises:
        ManifestError: The manifest is not valid, or ``plugin`` is of no type that could be one.
        HashMismatchError: A module is not the one that was pinned.
        SourceError: A file or URL cannot be read.
        ModuleError: The bytes are neither a core module nor its text.
    """
    if isinstance(plugin, PluginSpec):
        return plugin
    kind, value = classify_input(plugin)
    if kind == "url":
        from .download import download_module, redact_url

        return resolve_module(
            download_module(value, limit=module_bytes, egress=egress), redact_url(value)
        )
    if kind == "path":
        return resolve_module(_read_module(value, module_bytes), value)
    if kind == "bytes":
        return resolve_module(
            value, "the text given" if isinstance(plugin, str) else "the bytes given"
        )
    return resolve_manifest(value, module_bytes, egress)


def classify_input(plugin: object) -> tuple[str, Any]:
    """Return the type of ``plugin`` and its value: ("url", str), ("path", str), ("bytes", bytes),
    or ("manifest", Manifest).

    A path and bytes are those of a module.

    Raises:
        ManifestError, SourceError, ModuleError: As for ``resolve``. Only modules passed as bytes
            are checked.
    """
    if isinstance(plugin, str):
        if is_url(plugin):
            return "url", plugin
        if not is_file(plugin) and looks_like_text(plugin):
            content = encode_text(plugin)
            if sniff(content) == "wat":
                return "bytes", content
            from .model import parse

            return "manifest", parse(plugin)
        return _classify_path(plugin)
    if isinstance(plugin, (bytes, bytearray, memoryview)):
        content = bytes(plugin)
        _check_no_manifest(content)
        return "bytes", content
    if isinstance(plugin, os.PathLike):
        return _classify_path(os.fsdecode(plugin))

    from .model import parse

    return "manifest", parse(plugin)


def _classify_path(path: str) -> tuple[str, Any]:
    if not _is_manifest_name(path):
        return "path", path
    from .model import load

    return "manifest", load(path)


def _is_manifest_name(path: str) -> bool:
    """Return whether a file of that name is a manifest."""
    return path.lower().endswith(_MANIFEST_SUFFIXES)


def _read_module(path: str, limit: int) -> bytes:
    """Return the content of a file that the application named as a module."""
    try:
        content = read_file(path, limit)
    except SourceError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            from .mistakes import suggest_file

            raise SourceError(f"{error.message}{suggest_file(path)}") from error.__cause__
        raise
    if sniff(content) == "text":
        from .mistakes import suggest_text

        raise ModuleError(f"{format_path(path)} is not a Wasm module, but {suggest_text(path)}")
    return content


def _check_no_manifest(content: bytes) -> None:
    kind = sniff(content)
    if kind in ("empty", "text"):
        from .mistakes import EMPTY_BYTES, TEXT_IN_BYTES

        raise SourceError(EMPTY_BYTES) if kind == "empty" else ModuleError(TEXT_IN_BYTES)


def resolve_module(content: bytes, origin: str) -> PluginSpec:
    """Return the spec of a module without a manifest. Raise as ``verify_module``."""
    return PluginSpec([ModuleSpec(MAIN_MODULE, verify_module(content, origin), origin)])


def resolve_manifest(
    manifest: Manifest, module_bytes: int, egress: Egress | None = None
) -> PluginSpec:
    """Read the modules of a manifest. Raise as ``resolve``."""
    from .module_files import ModuleReader

    reader = ModuleReader(module_bytes, egress)
    contents = [reader.read(source, index) for index, source in enumerate(manifest.wasm)]
    names = name_modules(manifest.wasm)
    spec = PluginSpec(
        [
            ModuleSpec(name, content, origin)
            for name, (content, origin) in zip(names, contents, strict=True)
        ]
    )
    spec._take_grants(manifest)
    return spec


def name_modules(sources: list[WasmSource]) -> list[str]:
    """Return a name for every module: ``main`` for the main one; else its own name, its file's, or
    its index.

    A name made from a file never equals the kernel's, WASI's or a name that somebody chose.
    """
    from .download import redact_url

    main = next(
        (i for i, source in enumerate(sources) if source.name == MAIN_MODULE), len(sources) - 1
    )
    names: list[str] = []
    taken = {source.name for source in sources} | {MAIN_MODULE, "env"}
    for index, source in enumerate(sources):
        name = source.name
        if index == main:
            name = MAIN_MODULE
        elif name is None:
            place = source.path or redact_url(source.url or "").removesuffix("?…")
            stem = os.path.splitext(os.path.basename(place))[0]
            name = (
                stem
                if stem and stem not in taken and not stem.startswith(("extism:", "wasi"))
                else str(index)
            )
            while name in taken:
                name += "_"
        taken.add(name)
        names.append(name)
    return names
