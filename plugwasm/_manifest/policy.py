"""`ManifestPolicy`: the application's bounds for a manifest that somebody else wrote.

A manifest grants access: it names files to read, URLs to download, directories, hosts. In the
application's own manifest that is wanted. For a stranger's there is this policy. A manifest that
would make the host read, download or open anything else than the policy allows is refused
(`ManifestError`) before anything is read. Hosts and limits are reduced: a plugin gets what both
grant.

`PluginSet` bounds the manifests of its plugins with the same object.

Decisions: docs/decisions.md, 36.2.
"""

from __future__ import annotations

import os

from ..errors import ManifestError, OptionError, truncate
from .files import absolute_path, format_path
from .limits import DEFAULT_LIMITS, Limits
from .resolve import Admitted, PluginSpec, resolve_manifest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any, NoReturn

    from .._http.egress import Egress
    from .model import Manifest, WasmSource

__all__ = ["Admitted", "ManifestPolicy"]

MAX_MODULES = 256


class ManifestPolicy:
    """The most that a stranger's manifest can get. Immutable.

    By default, that is one module inside the manifest, within the default limits, and nothing else.

        policy = plugwasm.ManifestPolicy(limits=plugwasm.Limits(timeout=2))
        with plugwasm.Plugin(policy.admit(uploaded), functions=[]) as plugin: ...

    Args:
        modules: The most modules that it may have.
        module_paths: Directories with files that it may name as modules (`wasm[].path`), at any
            depth. Strangers should not be able to write there.
        downloads: From where modules may be downloaded (`wasm[].url`); it must have
            `allowed_hosts`.
        egress: The rules for the plugin's HTTP requests. A host must be granted by its
            `allowed_hosts` and by the manifest; without `allowed_hosts`, none is.
        allowed_paths: Directories that it may ask for, by any path that leads there; `ro:` in front
            makes one read-only. The plugin sees them only with `wasi`, as always.
        config: The keys of `config` that it may set; None for all.
        limits: The limits of the plugin and of its modules; the manifest can only lower them. If
            not given, the defaults of `Limits`.

    Raises:
        OptionError: An argument is not valid.
    """

    __module__ = "plugwasm"

    __slots__ = (
        "_directories",
        "_module_directories",
        "allowed_paths",
        "config",
        "downloads",
        "egress",
        "limits",
        "module_paths",
        "modules",
    )

    modules: int
    module_paths: tuple[str, ...]
    downloads: Egress | None
    egress: Egress | None
    allowed_paths: tuple[str, ...]
    config: frozenset[str] | None
    limits: Limits
    _directories: dict[str, str]
    _module_directories: tuple[str, ...]

    def __init__(
        self,
        *,
        modules: int = 1,
        module_paths: Iterable[str | os.PathLike[str]] = (),
        downloads: Egress | None = None,
        egress: Egress | None = None,
        allowed_paths: Iterable[str | os.PathLike[str]] = (),
        config: Iterable[str] | None = (),
        limits: Limits | None = None,
    ) -> None:
        if (
            isinstance(modules, bool)
            or not isinstance(modules, int)
            or not 1 <= modules <= MAX_MODULES
        ):
            raise OptionError(
                f"modules: expected a number from 1 to {MAX_MODULES}, got {modules!r}",
                field="modules",
            )
        if not (limits is None or isinstance(limits, Limits)):
            raise OptionError(
                f"limits: expected Limits, got {type(limits).__name__}", field="limits"
            )
        _check_egress("egress", egress)
        _check_egress("downloads", downloads)
        if downloads is not None and downloads.allowed_hosts is None:
            raise OptionError(
                "downloads: expected an Egress with `allowed_hosts`, for without them any host "
                'counts as granted; ["*"] is all public ones',
                field="downloads",
            )
        paths = tuple(
            map(
                os.fsdecode,
                _check_list("allowed_paths", allowed_paths, (str, os.PathLike), "directories"),
            )
        )
        places = tuple(
            map(
                os.fsdecode,
                _check_list("module_paths", module_paths, (str, os.PathLike), "directories"),
            )
        )
        values: dict[str, object] = {
            "modules": modules,
            "module_paths": places,
            "downloads": downloads,
            "egress": egress,
            "allowed_paths": paths,
            "config": None
            if config is None
            else frozenset(_check_list("config", config, (str,), "keys")),
            "limits": limits or DEFAULT_LIMITS,
            "_directories": {
                _real_path("allowed_paths", path.removeprefix("ro:")): _absolute_grant(path)
                for path in paths
            },
            "_module_directories": tuple(_real_path("module_paths", path) for path in places),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def admit(
        self,
        manifest: Manifest | Mapping[str, Any] | str | bytes | bytearray | memoryview,
        *,
        base: str | os.PathLike[str] | None = None,
    ) -> Admitted:
        """Read the modules of a manifest within this policy. Pass the result as `plugin` to
        whatever runs one.

        The result has `limits` and `egress`, so these cannot be passed again. The application
        passes its other grants (`wasi`, `functions`) where it runs the plugin.

        Args:
            manifest: As for `Manifest.parse`, but neither a path nor a module.
            base: The directory that its paths are relative to; the current one if not given.

        Raises:
            ManifestError: It is not valid, or asks for more than it may.
            HashMismatchError, SourceError, ModuleError: As for `CompiledPlugin`.
        """
        from .._http.egress import Egress
        from .model import Manifest

        asked = Manifest.parse(manifest, base=base)
        if len(asked.wasm) > self.modules:
            raise _refusal(
                "wasm",
                f"it has {len(asked.wasm)} modules, more than the {self.modules} that it may "
                "(`modules`)",
            )
        # The first check of a path is whether it is granted, so that nothing else is found out
        # about it.
        sources = [self._admitted_source(index, source) for index, source in enumerate(asked.wasm)]
        self._check_config(asked.config)
        self._granted_paths(asked.allowed_paths or {})
        strangers = self.downloads or Egress(allowed_hosts=())
        spec = self.granted(
            resolve_manifest(_with_sources(asked, sources), self.limits.module_bytes, strangers)
        )
        return Admitted(spec, self.limits, self.egress)

    def granted(self, asked: PluginSpec, *, directories: bool = True) -> PluginSpec:
        """Return the same modules, with those grants that the policy allows.

        Args:
            asked: The modules, with the grants that they ask for.
            directories: Whether directories can be granted at all.

        Raises:
            ManifestError: They ask for a key of `config`, or a directory, that is not allowed.
        """
        self._check_config(asked.config)
        grants_hosts = self.egress is not None and self.egress.allowed_hosts is not None
        granted = asked.copy()
        granted.allowed_hosts = asked.allowed_hosts if grants_hosts else ()
        granted.allowed_paths = self._granted_paths(asked.allowed_paths) if directories else {}
        return granted

    def _admitted_source(self, index: int, source: WasmSource) -> WasmSource:
        import msgspec

        if source.url is not None and self.downloads is None:
            raise _refusal(
                f"wasm[{index}].url",
                "it asks for a download, which the application grants to no manifest (`downloads`)",
            )
        if source.path is None:
            return source
        real = _real_path_or_none(source.path)
        if real is None or not any(
            real.startswith(os.path.join(place, "")) for place in self._module_directories
        ):
            raise _refusal(
                f"wasm[{index}].path",
                f"it asks for {format_path(source.path)}, which is in no directory "
                "that the application grants for modules (`module_paths`)",
            )
        return msgspec.structs.replace(source, path=real)

    def _check_config(self, asked: Mapping[str, str]) -> None:
        if self.config is None:
            return
        for key in asked:
            if key not in self.config:
                raise _refusal(
                    f'config["{truncate(key)}"]',
                    "the application lets no manifest set it (`config`)",
                )

    def _granted_paths(self, asked: Mapping[str, str]) -> dict[str, str]:
        """Return the application's own paths of the directories asked for, read-only if either side
        says so.
        """
        granted: dict[str, str] = {}
        for path, guest_path in asked.items():
            place = path.removeprefix("ro:")
            real = _real_path_or_none(place)
            own = None if real is None else self._directories.get(real)
            if own is None:
                raise _refusal(
                    "allowed_paths",
                    f"it asks for {format_path(place)}, which the application grants to no plugin "
                    "(`allowed_paths`)",
                )
            if path.startswith("ro:") and not own.startswith("ro:"):
                own = f"ro:{own}"
            if own in granted:
                raise _refusal("allowed_paths", f"it asks for {format_path(place)} twice")
            granted[own] = guest_path
        return granted

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("a ManifestPolicy cannot be changed; make another")

    def __reduce__(self) -> tuple[Any, ...]:
        from functools import partial

        values = {name: getattr(self, name) for name in self.__slots__ if not name.startswith("_")}
        return partial(ManifestPolicy, **values), ()

    def __repr__(self) -> str:
        values = {name: getattr(self, name) for name in self.__slots__ if not name.startswith("_")}
        return f"ManifestPolicy({', '.join(f'{name}={value!r}' for name, value in values.items())})"


def _refusal(field: str, reason: str) -> ManifestError:
    return ManifestError(f"manifest field `{field}`: {reason}", field=field, reason=reason)


def _check_egress(name: str, value: object) -> None:
    if value is None:
        return
    from .._http.egress import Egress

    if not isinstance(value, Egress):
        raise OptionError(f"{name}: expected an Egress, got {type(value).__name__}", field=name)


def _check_list(name: str, given: Any, types: tuple[type, ...], what: str) -> tuple[Any, ...]:
    try:
        items = () if isinstance(given, (str, bytes, os.PathLike)) else tuple(given)
    except TypeError:
        items = (None,)
    if isinstance(given, (str, bytes, os.PathLike)) or not all(
        isinstance(item, types) for item in items
    ):
        got = (
            type(given).__name__
            if isinstance(given, (str, bytes, os.PathLike)) or items == (None,)
            else "other things in it"
        )
        raise OptionError(f"{name}: expected a list of {what}, got {got}", field=name)
    return items


def _real_path(name: str, path: str) -> str:
    real = _real_path_or_none(path)
    if real is None:
        raise OptionError(
            f"{name}: {format_path(path)} cannot be the name of a directory", field=name
        )
    return real


def _real_path_or_none(path: str) -> str | None:
    try:
        return os.path.realpath(path)
    except (OSError, ValueError):
        return None


def _absolute_grant(path: str) -> str:
    return (
        f"ro:{absolute_path(None, path[3:])}"
        if path.startswith("ro:")
        else absolute_path(None, path)
    )


def _with_sources(manifest: Manifest, sources: list[WasmSource]) -> Manifest:
    import msgspec

    return msgspec.structs.replace(manifest, wasm=sources)
