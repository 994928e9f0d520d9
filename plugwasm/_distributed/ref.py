"""`PluginRef`: a plugin as a small value that can be sent to other processes and machines.

1. A ref says which bytes run: each module is pinned by its sha256 when the ref is made, or
   embedded.
2. A ref says what they may do: the grants of the manifest, limits, the policy for egress.
3. What belongs to the place where it runs is named, not carried: secrets by the variable of the
   environment, host functions by their module and name. Both are looked up there, once in each
   process.

Two refs are equal when they would run the same. A process compiles equal refs once; the machine's
cache of compiled code serves the rest.
"""

from __future__ import annotations

import os
import threading

from .._host.options import (
    check_flag,
    check_list,
    check_option_types,
    describe_value,
    reject_unknown_arguments,
)
from .._manifest.limits import DEFAULT_LIMITS, ProcessLimits
from .._manifest.messages import check_encodable
from .._manifest.resolve import admitted_settings
from .._runtime.compiled_plugin import CompiledPlugin
from .._runtime.plugin import Plugin
from .._runtime.settings import PluginSettings
from .._script.names import is_script, is_script_path
from ..errors import ManifestError, OptionError, truncate
from .objects import (
    check_object_name,
    deserialize,
    function_name,
    import_function,
    import_object,
    serialize,
)
from .pinned_manifest import (
    FromEnvironment,
    absolute_paths,
    label_of,
    pin_module,
    split_secrets,
    to_manifest,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any, Literal, Never, NoReturn, Self

    from .._host.functions import Function
    from .._http.egress import Egress
    from .._manifest.limits import Limits
    from .._runtime.argument_types import Observe, PluginInput
    from .._wasi.options import WasiOptions

__all__ = ["FromEnvironment", "PluginRef"]

MAX_CACHED = 32
"""How many compiled plugins a process keeps for refs."""


class PluginRef:
    """A plugin and its settings, to be sent to where it runs.

    It is immutable, can be pickled and compared, and can be a key.

    Making one reads the modules, but compiles nothing. Paths are made absolute: they must lead to
    the same files where it runs, or the modules must be embedded. A module whose `hash` the
    manifest has is not read here.

    Args:
        plugin: As for `CompiledPlugin`, or the path of a script, which travels along. In a mapping,
            values of `config` and of `headers` may be `FromEnvironment`.
        wasi, egress, observe: As for `CompiledPlugin`; or where to find it, as
            `"package.module:name"`. An object given here travels along, with all that is in it:
            name it instead if it holds credentials, or what cannot be pickled.
        functions: The host functions that it may import, none if not given: functions of a module
            that the other side can import (what `host_fn` made, or functions that it could be used
            on), or their names as `"package.module:name"`.
        config: What the plugin can read with `config_get`, on top of the manifest's; None removes a
            key. Text travels along as it is; `FromEnvironment` is looked up where the plugin runs.
        name, fuel_limit, http_response_headers, limits: As for `CompiledPlugin`.
        embed: Whether modules given by path or URL travel along. Those given as bytes always do.

    Raises:
        ManifestError: The manifest is not valid.
        OptionError: A setting is not valid, or something given cannot be sent.
        HashMismatchError: A module that is to be embedded is not the one that the manifest pins.
        SourceError: A module cannot be read or fetched.
    """

    __module__ = "plugwasm"

    __slots__ = (
        "_config",
        "_egress",
        "_headers",
        "_manifest",
        "_observe",
        "_script",
        "_wasi",
        "digests",
        "fuel_limit",
        "functions",
        "http_response_headers",
        "limits",
        "name",
    )

    digests: tuple[str, ...]
    """The sha256 of each module, in the order of the manifest."""
    fuel_limit: int | None
    functions: tuple[str, ...]
    http_response_headers: bool
    limits: Limits | None
    name: str
    _config: tuple[tuple[str, str | FromEnvironment], ...]
    _egress: str | bytes | None
    _headers: tuple[tuple[int, str, FromEnvironment], ...]
    _manifest: bytes
    _observe: bool | str | bytes
    _script: tuple[str, str, str, str] | None
    _wasi: bool | str | bytes

    def __init__(
        self,
        plugin: PluginInput,
        *,
        wasi: bool | WasiOptions | str = False,
        functions: Iterable[Function | Callable[..., Any] | str] = (),
        config: Mapping[str, str | FromEnvironment | None] | None = None,
        name: str | None = None,
        fuel_limit: int | None = None,
        http_response_headers: bool = False,
        limits: Limits | None = None,
        egress: Egress | str | None = None,
        observe: Observe | str = None,
        embed: bool = False,
        **unknown: Never,
    ) -> None:
        if unknown:
            reject_unknown_arguments(PluginRef, unknown)
        import msgspec

        from .._manifest.module_files import ModuleReader

        # What need not be found by name; the rest is checked where it is serialized.
        settings = PluginSettings(
            functions=(),
            name=name,
            fuel_limit=fuel_limit,
            http_response_headers=http_response_headers,
            limits=limits,
        )
        check_flag("embed", embed)
        if isinstance(functions, str) or callable(functions):
            functions = [functions]
        functions = check_list("functions", functions, "host functions or their names", object)
        if not (config is None or hasattr(config, "items")):
            raise OptionError(
                f"config: expected a mapping, got {describe_value(config)}", field="config"
            )
        if isinstance(plugin, CompiledPlugin):
            raise OptionError(
                "a PluginRef is made of what a CompiledPlugin was made of: give the path, the "
                "manifest or the bytes; for a script, use PluginRef.script(…)"
            )
        if is_script_path(plugin):
            from .._script.spec import read_script_spec

            plugin = read_script_spec(plugin, (limits or DEFAULT_LIMITS).module_bytes)  # type: ignore[arg-type, assignment]
        if is_script(plugin):  # TypeScript is translated here, so that workers need no esbuild
            plugin = plugin.translated(limits or DEFAULT_LIMITS)  # type: ignore[assignment]
        script = (
            (plugin.language, plugin.file, plugin.input, plugin.output)
            if is_script(plugin)
            else None
        )
        plain, secrets = split_secrets(plugin)
        limits, egress = admitted_settings(plain, limits, egress)
        manifest = to_manifest(plain)
        headers = tuple(
            (place[1], place[2], secret)
            for place, secret in secrets.items()
            if place[0] == "headers"
        )
        merged: dict[str, Any] = {
            **manifest.config,
            **{place[2]: secret for place, secret in secrets.items() if place[0] == "config"},
        }
        merged |= config or {}
        for key, value in merged.items():
            if not isinstance(key, str) or not (
                value is None or isinstance(value, (str, FromEnvironment))
            ):
                raise OptionError(
                    "config: keys must be text, and values text or FromEnvironment, but one is "
                    f"{type(value).__name__}"
                )
            check_encodable(key, "config: a key", field="config")
            if isinstance(value, str):
                check_encodable(value, f"config: the value of `{truncate(key)}`", field="config")
        policy = egress
        if isinstance(egress, str) and any(
            source.url is not None and (embed or source.hash is None) for source in manifest.wasm
        ):
            policy = import_object(check_object_name(egress, "egress"), "egress")
        check_option_types(False, None, None if isinstance(policy, str) else policy)
        reader = ModuleReader(
            (limits or DEFAULT_LIMITS).module_bytes, None if isinstance(policy, str) else policy
        )
        sources = [
            pin_module(source, index, headers, embed, reader)
            for index, source in enumerate(manifest.wasm)
        ]
        with_pins = msgspec.structs.replace(
            manifest, wasm=sources, config={}, allowed_paths=absolute_paths(manifest.allowed_paths)
        )
        try:
            encoded = msgspec.msgpack.encode(with_pins, order="deterministic")
        except UnicodeEncodeError:
            raise ManifestError(
                "the manifest has a path that cannot be written as UTF-8 (lone surrogates)"
            ) from None
        values = {
            "_config": tuple(
                sorted((key, value) for key, value in merged.items() if value is not None)
            ),
            "_egress": None if egress is None else serialize(egress, "egress"),
            "_headers": () if embed else headers,
            "_manifest": encoded,
            "_script": script,
            "_observe": bool(observe)
            if observe is None or isinstance(observe, bool)
            else serialize(observe, "observe"),
            "_wasi": wasi if isinstance(wasi, bool) else serialize(wasi, "wasi"),
            "digests": tuple(source.hash for source in sources),
            "fuel_limit": settings.fuel_limit,
            "functions": tuple(function_name(function) for function in functions),
            "http_response_headers": settings.http_response_headers,
            "limits": limits,
            "name": settings.name or truncate(script[1] if script else label_of(manifest.wasm)),
        }
        for slot, value in values.items():
            object.__setattr__(self, slot, value)

    @classmethod
    def script(
        cls,
        language: Literal["javascript", "typescript", "python"],
        source: str | bytes | os.PathLike[str],
        *,
        name: str | None = None,
        input: Literal["json", "text", "bytes"] = "json",
        output: Literal["auto", "json"] = "auto",
        allowed_hosts: Iterable[str] = (),
        limits: Limits | None = None,
        **options: Any,
    ) -> Self:
        """Make a ref of a script. Its text travels along; it is loaded where it runs, with the
        interpreter that is there (`plugwasm cache interpreters` builds it). TypeScript is
        translated here.

        Args:
            language, source, name, input, output, allowed_hosts, limits: As for `plugwasm.script`.
            options: The other arguments of a `PluginRef`.

        Raises:
            ScriptError: The script is not UTF-8, or no valid TypeScript.
            SourceError: The file cannot be read, or esbuild is not here.
            OptionError: An argument is not valid.
        """
        from .._script.script import read_arguments

        spec = read_arguments(
            language,
            source,
            name=name,
            input=input,
            output=output,
            allowed_hosts=allowed_hosts,
            limits=limits,
        )
        return cls(spec, name=name, limits=limits, **options)  # type: ignore[arg-type]

    def compiled(self) -> CompiledPlugin:
        """Return the compiled plugin of this process.

        It is compiled at the first call, and shared by all equal refs and all threads.

        Raises:
            HashMismatchError: A module here is not the one that was pinned.
            OptionError: A secret is not in the environment, or a host function cannot be imported.
            Error: As `CompiledPlugin`.
        """
        slot = _cache.get(self) or _cache.setdefault(self, _CacheEntry())
        compiled = slot.compiled
        if compiled is None:
            with slot.lock:
                compiled = slot.compiled
                if compiled is None:
                    compiled = slot.compiled = self._compile()
            _evict_oldest()
        return compiled

    def plugin(self, *, isolated: bool | ProcessLimits = False) -> Plugin:
        """Make a new plugin of `compiled()`, for one thread.

        With `isolated`, return an `IsolatedPlugin`, of which nothing is compiled in this process.
        """
        if not isinstance(isolated, (bool, ProcessLimits)):
            raise OptionError(
                f"isolated: expected True, False or ProcessLimits, got {describe_value(isolated)}",
                field="isolated",
            )
        if isolated is False:
            return Plugin(self.compiled())
        from .._isolation.compiled_plugin import RemoteCompiledPlugin
        from .._isolation.plugin import IsolatedPlugin

        return IsolatedPlugin(
            self._compile(RemoteCompiledPlugin), process=None if isolated is True else isolated
        )

    def _compile(self, kind: type[CompiledPlugin] = CompiledPlugin) -> CompiledPlugin:
        import msgspec

        from .._manifest.model import Manifest

        manifest = msgspec.msgpack.decode(self._manifest, type=Manifest)
        sources = list(manifest.wasm)
        for index, header, secret in self._headers:
            value = secret.value(f"wasm[{index}].headers.{header}")
            sources[index] = msgspec.structs.replace(
                sources[index], headers={**sources[index].headers, header: value}
            )
        config = {
            key: value if isinstance(value, str) else value.value(f"config.{key}")
            for key, value in self._config
        }
        manifest = msgspec.structs.replace(manifest, wasm=sources, config=config)
        if self._script is None:
            return kind._from_settings(manifest, self._settings())
        from .._script.spec import ScriptSpec

        language, file, input, output = self._script
        spec = ScriptSpec(language, sources[0].data or b"", file, file, input, output)
        spec._take_grants(manifest)
        return kind._from_settings(spec, self._settings())

    def _settings(self) -> PluginSettings:
        """Return the settings, with what they name imported into this process."""

        def found(value: Any, field: str) -> Any:
            return value if value is None or isinstance(value, bool) else deserialize(value, field)

        return PluginSettings(
            found(self._wasi, "wasi"),
            [import_function(name) for name in self.functions],
            self.name,
            self.fuel_limit,
            self.http_response_headers,
            self.limits,
            found(self._egress, "egress"),
            found(self._observe, "observe"),
        )

    def _state(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in self.__slots__)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("a PluginRef cannot be changed; make another")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PluginRef) and self._state() == other._state()

    def __hash__(self) -> int:
        return hash((self.digests, self.name, self._config, self.functions, self.limits))

    def __reduce__(self) -> tuple[Any, ...]:
        return PluginRef._restore, (self._state(),)

    @classmethod
    def _restore(cls, state: tuple[Any, ...]) -> PluginRef:
        ref = PluginRef.__new__(cls)
        for name, value in zip(cls.__slots__, state, strict=True):
            object.__setattr__(ref, name, value)
        return ref

    def __repr__(self) -> str:
        digests = ", ".join(digest[:12] for digest in self.digests)
        config = f", config keys={[key for key, _ in self._config]}" if self._config else ""
        return f"<PluginRef {self.name!r} sha256={digests}{config}>"


# ---- compiled plugins of this process ------------------------------------------------------------


class _CacheEntry:
    """The compiled plugin of a ref, and the lock for compiling it."""

    __slots__ = ("compiled", "lock")

    def __init__(self) -> None:
        self.compiled: CompiledPlugin | None = None
        self.lock = threading.RLock()


_cache: dict[PluginRef, _CacheEntry] = {}


def _evict_oldest() -> None:
    """Drop the oldest entries. A plugin that is in use stays alive."""
    while len(_cache) > MAX_CACHED:
        try:
            del _cache[next(iter(_cache))]
        except (KeyError, RuntimeError):  # another thread was faster
            pass


def _after_fork_in_child() -> None:
    # A thread that the child does not have may have held one.
    for slot in _cache.values():
        slot.lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
