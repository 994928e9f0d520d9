"""What a settings page shows of a plugin. No value of its configuration is in it."""

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
    """What a plugin may do.

    Attributes:
        hosts: What its HTTP requests may reach, as its manifest has it; the application's `Egress` may grant less.
        hosts_asked: What its manifest asks for; `hosts` is empty where the application grants none.
        paths: The directories that it is granted (`ro:` in front: only to read), and what it knows them as.
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
    """A plugin of a set, for a settings page. The texts are its author's: escape them. No value of its configuration is here.

    Attributes:
        name: What the application calls it: the name of its file, folder or entry point.
        title, version, author, homepage, description: What its author says; `title` is the name where nothing is said.
        source: Where it was found.
        enabled: Whether it may be asked.
        loaded: Whether it can be asked.
        hooks: What it serves.
        error: Why it, or what its files say now, could not be loaded. One that is loaded besides runs as it was before.
        last_failure: What its last call that failed ended with.
        settings: What it can be configured with, by name.
        configured: The names of what the application has configured.
        grants: What it may do; None while it is not loaded.
        imports: What it asks the host for, as "module.name".
        extra: What its author wrote for the application (`[extra]`).
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
    """The description of a plugin for which the application has configured these names."""
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


# As for manifests: types are looked into once, at import, by one thread.
msgspec.to_builtins(
    Description(name="", title="", source="", enabled=False, loaded=False, grants=Grants())
)


set_public_module("plugwasm.plugin_set", Description, Grants)
