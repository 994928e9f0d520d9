"""A manifest that can be sent: pinned, with absolute paths, without its secrets.

It is made of what an application passes as a plugin, as in `_manifest.resolve.resolve`. But the
result still says where the modules are, and only those that must be read are read.
"""

from __future__ import annotations

import os

from .._manifest.files import absolute_path, make_absolute, verify_module
from .._manifest.messages import check_encodable
from .._manifest.resolve import MAIN_MODULE, PluginSpec, classify_input
from ..errors import OptionError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from .._manifest.model import Manifest, WasmSource
    from .._manifest.module_files import ModuleReader

__all__ = ["FromEnvironment"]


class FromEnvironment:
    """A secret of a `PluginRef`: an environment variable of the process where the plugin runs.

    It stands for a value of `config`, or of the `headers` of a module's URL.

    Args:
        name: The name of the variable.

    Raises:
        OptionError: This cannot be the name of a variable.
    """

    __module__ = "plugwasm"

    __slots__ = ("name",)

    name: str

    def __init__(self, name: str) -> None:
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:
            raise OptionError(f"FromEnvironment: expected the name of a variable, got {name!r}")
        object.__setattr__(self, "name", name)

    def value(self, field: str) -> str:
        """Return the value of the variable. `field` says in an error what it is for.

        Raises:
            OptionError: It is not set.
        """
        try:
            value = os.environ[self.name]
        except KeyError:
            raise OptionError(
                f"{field}: the variable {self.name} is not set in this process's environment",
                field=field,
            ) from None
        check_encodable(value, f"{field}: the variable {self.name}", field=field)
        return value

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("FromEnvironment cannot be changed; make another")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FromEnvironment) and self.name == other.name

    def __hash__(self) -> int:
        return hash((FromEnvironment, self.name))

    def __reduce__(self) -> tuple[Any, ...]:
        return FromEnvironment, (self.name,)

    def __repr__(self) -> str:
        return f"FromEnvironment({self.name!r})"


def split_secrets(plugin: object) -> tuple[Any, dict[tuple[str, int, str], FromEnvironment]]:
    """Return a mapping without its secrets, and the secrets by their places.

    Anything else is returned as it is. A manifest can only hold text.
    """
    from collections.abc import Mapping

    secrets: dict[tuple[str, int, str], FromEnvironment] = {}
    if not isinstance(plugin, Mapping):
        return plugin, secrets

    def without(value: object, field: str, index: int) -> object:
        if not isinstance(value, Mapping):
            return value
        found = {key: item for key, item in value.items() if isinstance(item, FromEnvironment)}
        secrets.update({(field, index, key): item for key, item in found.items()})
        return {key: item for key, item in value.items() if key not in found}

    plain = dict(plugin)
    if "config" in plain:
        plain["config"] = without(plain["config"], "config", 0)
    if isinstance(plain.get("wasm"), (list, tuple)):
        plain["wasm"] = [
            {**source, "headers": without(source["headers"], "headers", index)}
            if isinstance(source, Mapping) and "headers" in source
            else source
            for index, source in enumerate(plain["wasm"])
        ]
    return plain, secrets


def to_manifest(plugin: Any) -> Manifest:
    """Return the manifest that `plugin` is, or a manifest of the module that it is.

    As `_manifest.resolve.resolve`, but modules are not read yet.
    """
    from .._manifest.model import Manifest, WasmSource

    if isinstance(plugin, PluginSpec):
        return _manifest_of_spec(plugin)
    kind, value = classify_input(plugin)
    if kind == "url":
        return Manifest(wasm=[WasmSource(url=value)])
    if kind == "path":
        return Manifest(wasm=[WasmSource(path=value)])
    if kind == "bytes":
        return Manifest(wasm=[WasmSource(data=value)])
    manifest: Manifest = value
    return manifest


def _manifest_of_spec(spec: PluginSpec) -> Manifest:
    from .._manifest.model import Manifest, MemoryOptions, WasmSource

    return Manifest(
        wasm=[WasmSource(data=module.wasm, name=module.name) for module in spec.modules],
        config=spec.config,
        allowed_hosts=list(spec.allowed_hosts),
        allowed_paths=spec.allowed_paths,
        timeout_ms=spec.timeout_ms,
        memory=MemoryOptions(
            max_pages=spec.max_pages,
            max_http_response_bytes=spec.max_http_response_bytes,
            max_var_bytes=spec.max_var_bytes,
        ),
    )


def pin_module(
    source: WasmSource,
    index: int,
    headers: tuple[tuple[int, str, FromEnvironment], ...],
    embed: bool,
    reader: ModuleReader,
) -> WasmSource:
    """Return the module with its sha256, and with its bytes if they are to be embedded."""
    import hashlib

    import msgspec

    from .._manifest.module_files import check_hash

    path = None if source.path is None else _absolute_file(source.path)
    if source.hash is not None and source.data is None and not embed:
        return msgspec.structs.replace(source, path=path)
    secrets = {
        name: secret.value(f"wasm[{index}].headers.{name}")
        for at, name, secret in headers
        if at == index
    }
    content = reader.content(
        msgspec.structs.replace(source, path=path, headers={**source.headers, **secrets})
    )
    check_hash(source, f"wasm[{index}]", path or "the module", content)
    if source.data is None:
        verify_module(
            content, f"the module of `wasm[{index}]`" if path is None else path, shows_bytes=False
        )
    digest = hashlib.sha256(content).hexdigest()
    if embed:
        return msgspec.structs.replace(
            source, path=None, url=None, headers={}, method=None, data=content, hash=digest
        )
    return msgspec.structs.replace(source, path=path, hash=digest)


def _absolute_file(path: str) -> str:
    """Return a normalized absolute path, as far as that is possible without reading links."""
    full = absolute_path(None, path)
    return full if ".." in full.split(os.sep) else os.path.normpath(full)


def absolute_paths(paths: dict[str, str] | None) -> dict[str, str] | None:
    """Make directories absolute: the current directory of the other process may differ."""
    return make_absolute(paths) if paths else paths


def label_of(sources: list[WasmSource]) -> str:
    """Return a name for the plugin, as `PluginSpec.label`, also if the main module is embedded."""
    from .._manifest.download import redact_url

    main = next((source for source in sources if source.name == MAIN_MODULE), sources[-1])
    place = main.path or redact_url(main.url or "")
    stem = os.path.splitext(os.path.basename(place.partition("?")[0]))[0]
    return stem if stem and " " not in stem else "plugin"
