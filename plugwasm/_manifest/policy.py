"""What a manifest may ask for that somebody else wrote: the application's ceiling, as one object.

A manifest grants: it names files to read, addresses to fetch from, directories, hosts. From the application itself that is what it is for.
For a stranger's there is this policy. What would make the host read, fetch or open something else than it allows is refused
(`ManifestError`) before anything is read. Hosts and limits are lowered: a plugin gets of them what both grant.

`PluginSet` bounds the manifests of its plugins with the same object.
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
    """The most that a stranger's manifest can get. Immutable. If nothing is said, that is one module which the manifest has in itself,
    within the default limits, and nothing else.

        policy = plugwasm.ManifestPolicy(limits=plugwasm.Limits(timeout=2))
        with plugwasm.Plugin(policy.admit(uploaded), functions=[]) as plugin: ...

    Args:
        modules: How many modules it may have.
        module_paths: Directories whose files it may name as modules (`wasm[].path`), with all beneath them. Strangers should not be able to
            write there.
        downloads: Where modules may be fetched from (`wasm[].url`); it must have `allowed_hosts`.
        egress: What the plugin's HTTP requests may be. A host must be granted by its `allowed_hosts` and the manifest; without them,
            none is.
        allowed_paths: Directories that it may ask for, by whatever path leads there; `ro:` in front makes one read-only. The plugin sees
            them only with `wasi`, as always.
        config: The keys of `config` that it may set; None for any.
        limits: What the plugin may make the host spend, and how large its modules may be; the manifest can only ask for less. If not given,
            the defaults of `Limits`.

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
                'downloads: expected an Egress with `allowed_hosts`, for without them any host counts as granted; ["*"] is all public ones',
                field="downloads",
            )
        paths = tuple(
            map(
                os.fsdecode,
                _listed("allowed_paths", allowed_paths, (str, os.PathLike), "directories"),
            )
        )
        places = tuple(
            map(
                os.fsdecode,
                _listed("module_paths", module_paths, (str, os.PathLike), "directories"),
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
            else frozenset(_listed("config", config, (str,), "keys")),
            "limits": limits or DEFAULT_LIMITS,
            "_directories": {
                _real("allowed_paths", path.removeprefix("ro:")): _anchored(path) for path in paths
            },
            "_module_directories": tuple(_real("module_paths", path) for path in places),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def admit(
        self,
        manifest: Manifest | Mapping[str, Any] | str | bytes | bytearray | memoryview,
        *,
        base: str | os.PathLike[str] | None = None,
    ) -> Admitted:
        """The plugin of a manifest within this policy, to be passed as `plugin` to whatever runs one. Its modules are read here.

        It brings `limits` and `egress` with it, so these cannot be given again. What else an application grants (`wasi`, `functions`) it
        says there.

        Args:
            manifest: As for `Manifest.parse`. It is never a path, nor a module.
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
                f"it has {len(asked.wasm)} modules, more than the {self.modules} that it may (`modules`)",
            )
        # What is found out about a path first is whether it is granted, and nothing else.
        sources = [self._admitted_source(index, source) for index, source in enumerate(asked.wasm)]
        self._check_config(asked.config)
        self._granted_paths(asked.allowed_paths or {})
        strangers = self.downloads or Egress(allowed_hosts=())
        spec = self.granted(
            resolve_manifest(_with_sources(asked, sources), self.limits.module_bytes, strangers)
        )
        return Admitted(spec, self.limits, self.egress)

    def granted(self, asked: PluginSpec, *, directories: bool = True) -> PluginSpec:
        """The same modules, with what is granted of what they ask for; `directories`: whether any can be. Raises `ManifestError`."""
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
        real = _real_or_none(source.path)
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
        """The application's own paths of the directories that are asked for, each read-only if either side says so."""
        granted: dict[str, str] = {}
        for path, guest_path in asked.items():
            place = path.removeprefix("ro:")
            real = _real_or_none(place)
            own = None if real is None else self._directories.get(real)
            if own is None:
                raise _refusal(
                    "allowed_paths",
                    f"it asks for {format_path(place)}, which the application grants to no plugin (`allowed_paths`)",
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


def _listed(name: str, given: Any, types: tuple[type, ...], what: str) -> tuple[Any, ...]:
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


def _real(name: str, path: str) -> str:
    real = _real_or_none(path)
    if real is None:
        raise OptionError(
            f"{name}: {format_path(path)} cannot be the name of a directory", field=name
        )
    return real


def _real_or_none(path: str) -> str | None:
    try:
        return os.path.realpath(path)
    except (OSError, ValueError):
        return None


def _anchored(path: str) -> str:
    return (
        f"ro:{absolute_path(None, path[3:])}"
        if path.startswith("ro:")
        else absolute_path(None, path)
    )


def _with_sources(manifest: Manifest, sources: list[WasmSource]) -> Manifest:
    import msgspec

    return msgspec.structs.replace(manifest, wasm=sources)
