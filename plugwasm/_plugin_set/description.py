"""The description of a plugin for a settings page. It has no value of the configuration."""

from __future__ import annotations

from typing import Any

import msgspec

from .._engine import truncate
from .._manifest.files import format_path
from .._manifest.resolve import PluginSpec
from .._public import set_public_module
from .metadata import Setting  # noqa: TC001  # public: its annotations can be evaluated

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from .loaded_plugin import LoadedPlugin
    from .state import PluginEntry

__all__ = ["Description", "Grants", "describe"]


class Grants(msgspec.Struct, frozen=True, kw_only=True):
    """The grants and limits of a plugin.

    Attributes:
        hosts: The hosts that its HTTP requests may reach, as its manifest has them; the `Egress` of
            the application may grant less.
        hosts_asked: The hosts that its manifest asks for; `hosts` is empty where the application
            grants none.
        paths: The directories that it is granted (`ro:` in front: only to read), and the paths by
            which it knows them.
        functions: The host functions that it imports.
        wasi: Whether it may import WASI.
        timeout: Seconds that a call may take; None for no limit.
        memory_bytes: The most memory that an instance may have; None for no limit.
    """

    hosts: tuple[str, ...] = ()
    hosts_asked: tuple[str, ...] = ()
    paths: dict[str, str] = {}
    functions: tuple[str, ...] = ()
    wasi: bool = False
    timeout: float | None = None
    memory_bytes: int | None = None


class Description(msgspec.Struct, frozen=True, kw_only=True):
    """A plugin of a set, for a settings page. The texts are its author's: escape them.

    It has no value of the configuration.

    Attributes:
        name: The name of the plugin in the application: of its file, folder or entry point.
        title, version, author, homepage, description: The texts of its author; `title` is the name
            if there is none.
        source: Where it was found.
        enabled: Whether it may be called.
        loaded: Whether it can be called.
        hooks: The hooks that it serves.
        error: Why it could not be loaded from its present files. If it is loaded all the same, it
            runs as it was before.
        last_failure: The error of its last call that failed.
        settings: The settings that it has, by name.
        configured: The names of the settings that the application has configured.
        grants: What it may do; None while it is not loaded.
        imports: Its imports, as "module.name".
        extra: The table `[extra]`, which its author wrote for the application.
    """

    name: str
    title: str
    version: str = ""
    author: str = ""
    homepage: str = ""
    description: str = ""
    source: str
    enabled: bool
    loaded: bool
    hooks: tuple[str, ...] = ()
    error: str | None = None
    last_failure: str | None = None
    settings: dict[str, Setting] = {}
    configured: tuple[str, ...] = ()
    grants: Grants | None = None
    imports: tuple[str, ...] = ()
    extra: dict[str, Any] = {}


def describe(entry: PluginEntry, configured: Iterable[str]) -> Description:
    """Return the description of a plugin; `configured` has the names of the configured settings."""
    metadata, loaded = entry.metadata.plugin, entry.loaded
    return Description(
        name=entry.name,
        title=metadata.title or entry.name,
        version=metadata.version,
        author=metadata.author,
        homepage=metadata.homepage,
        description=metadata.description,
        source=format_path(entry.source.location),
        enabled=entry.enabled,
        loaded=loaded is not None,
        hooks=() if loaded is None else loaded.hooks,
        error=None if entry.error is None else entry.error.message,
        last_failure=entry.last_failure,
        settings=metadata.settings,
        configured=tuple(sorted(configured)),
        grants=None if loaded is None else _grants(loaded),
        imports=()
        if loaded is None
        else tuple(
            f"{truncate(item.module)}.{truncate(item.name)}" for item in loaded.compiled.imports
        ),
        extra=entry.metadata.extra,
    )


def _grants(loaded: LoadedPlugin) -> Grants:
    compiled, requested = loaded.compiled, loaded.requested
    spec, limits = compiled._spec, compiled.limits
    imported = {(item.module, item.name) for item in compiled.imports}
    return Grants(
        hosts=spec.allowed_hosts,
        hosts_asked=requested.allowed_hosts
        if isinstance(requested, PluginSpec)
        else spec.allowed_hosts,
        paths=dict(spec.allowed_paths) if compiled.wasi else {},
        functions=tuple(
            sorted(
                truncate(name) for module, name in compiled._offered if (module, name) in imported
            )
        ),
        wasi=bool(compiled.wasi),
        timeout=limits.timeout,
        memory_bytes=limits.memory_bytes,
    )


# As for manifests: msgspec inspects types once, at import, in one thread.
msgspec.to_builtins(
    Description(name="", title="", source="", enabled=False, loaded=False, grants=Grants())
)


set_public_module("plugwasm.plugin_set", Description, Grants)
