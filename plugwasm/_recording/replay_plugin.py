"""Make the plugin of a replay: from a given plugin, or from the files that the recorded one had.

Nothing is granted to it. Its limits are the recording's, where these are lower than the caller's.
Host functions are stubs: `playback` answers each call before it reaches one.
"""

from __future__ import annotations

import os
import stat
from hashlib import sha256

from .._engine import HostFunction
from .._host.observed_values import shorten
from .._manifest.files import read_file
from .._manifest.limits import DEFAULT_LIMITS
from .._manifest.resolve import ModuleSpec, PluginSpec, resolve
from .._runtime import import_stubs
from .._runtime.compiled_plugin import CompiledPlugin
from .._runtime.observers import Observer
from .._runtime.plugin import Plugin
from .._runtime.settings import PluginSettings
from .._script.names import is_script_path
from ..errors import Error, OptionError, RecordingError, ReplayError, SourceError, escape_line
from .buffer import RECORDED_LIMITS
from .schema import join_vars

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .._host.functions import Function
    from .._host.guest import Guest
    from .._manifest.limits import Limits
    from .._runtime.argument_types import PluginInput
    from .._runtime.observers import HostCallInterceptor
    from .playback import Playback
    from .recording import Recording


class _PlaybackObserver(Observer):
    """Connects a `Playback` to the plugin."""

    def __init__(self, playback: Playback) -> None:
        self._playback = playback

    def _make_interceptor(self, guest: Guest) -> HostCallInterceptor:
        return self._playback


def make_spec(
    recording: Recording, plugin: PluginInput | CompiledPlugin | None, ceiling: Limits
) -> PluginSpec:
    """Return the plugin's modules, with no grants except what is in the recording."""
    try:
        spec = _read_plugin(recording, plugin, ceiling)
    except RecursionError as error:
        raise SourceError(f"the plugin cannot be read: {error}") from None
    spec.config = dict(recording.config)
    spec.allowed_hosts, spec.allowed_paths = (), {}
    spec.timeout_ms = spec.max_pages = spec.max_http_response_bytes = spec.max_var_bytes = None
    return spec


def _read_plugin(
    recording: Recording, plugin: PluginInput | CompiledPlugin | None, ceiling: Limits
) -> PluginSpec:
    most = ceiling.module_bytes
    if plugin is None:
        return _read_modules(recording, most).copy()
    if isinstance(plugin, CompiledPlugin):
        return plugin._spec.copy()
    if not is_script_path(plugin):
        return resolve(plugin, module_bytes=most).copy()
    from .._script.spec import read_script_spec

    script = read_script_spec(plugin, most)  # type: ignore[arg-type]
    types = script.imported_types(ceiling)
    stubs = [
        import_stubs.make_stub(*name, HostFunction(type, _fail, name))
        for name, type in types.items()
    ]
    return script._prepare(PluginSettings(recording.wasi, stubs, limits=ceiling))[0]


def _read_modules(recording: Recording, most: int) -> PluginSpec:
    """Read the files that the recorded plugin was made of."""
    modules = []
    for module in recording.modules:
        if not _is_file(module.origin):
            raise RecordingError(
                f"the module {shorten(module.name)} of the recorded plugin came from "
                f"{shorten(module.origin)}, which is no file: say which plugin is to be replayed"
                f"{', such as the script' if module.name == 'plugwasm:engine' else ''}"
            )
        content = read_file(module.origin, most)
        most -= len(content)
        if not content.startswith(b"\0asm") and sha256(content).hexdigest() != module.sha256:
            raise RecordingError(
                f"the module {shorten(module.name)} of the recorded plugin came from "
                f"{shorten(module.origin)}, which is neither that "
                "module nor another one in the "
                "binary format: say which plugin is to be replayed"
            )
        modules.append(ModuleSpec(module.name, content, module.origin))
    if recording.main not in [module.name for module in modules] or len(
        {module.name for module in modules}
    ) < len(modules):
        raise RecordingError(
            "the recording is damaged: its modules have no names of their own, "
            "or none is the main one"
        )
    return PluginSpec(modules, main=recording.main)


def _is_file(path: str) -> bool:
    """Return whether a path is a regular file with a size.

    Files of the system that never end have none.
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size > 0


def check_digests(recording: Recording, spec: PluginSpec) -> None:
    now = {module.name: sha256(module.wasm).hexdigest() for module in spec.modules}
    for module in recording.modules:
        if now.pop(module.name, None) != module.sha256:
            raise RecordingError(
                f"the module {shorten(module.name)} is not the one that was recorded "
                f"(sha256 {shorten(module.sha256)})"
            )
    if now:
        raise RecordingError(f"the recorded plugin had no module `{next(iter(now))}`")


def make_plugin(
    recording: Recording, spec: PluginSpec, playback: Playback, ceiling: Limits
) -> Plugin:
    __tracebackhide__ = True
    limits = _merge_limits(recording, ceiling)
    vars = join_vars(recording.vars, recording.more_vars)
    try:
        settings = PluginSettings(
            recording.wasi,
            _make_stubs(spec, limits, recording.overrides),
            fuel_limit=recording.fuel_limit,
            http_response_headers=recording.http_response_headers,
            limits=limits,
        )
        compiled = CompiledPlugin._from_settings(spec, settings)
        return Plugin(compiled, vars=vars, observe=_PlaybackObserver(playback))
    except OptionError as error:
        raise RecordingError(f"the recording is damaged: {error.message}") from None
    except Error as error:
        said = escape_line(f"the plugin `{recording.plugin}` cannot be loaded: {error.message}")
        raise ReplayError(said, plugin=recording.plugin) from error


def _merge_limits(recording: Recording, ceiling: Limits) -> Limits:
    """Return the recording's limits where they count in a replay, and the caller's for the rest."""
    limits: dict[str, Any] = {}
    for name in recording.limits:
        if name not in RECORDED_LIMITS:
            raise RecordingError(
                f"the recording is damaged: its limits: {shorten(name)} is none of "
                f"{', '.join(RECORDED_LIMITS)}"
            )
        value, most = recording.limits[name], getattr(ceiling, name)
        if name != "timeout" and most is not None and (value is None or value > most):
            raise RecordingError(
                f"the plugin was recorded with {name}={value}, more than {most}, "
                "which is allowed here: pass `limits`"
            )
        limits[name] = value
    for name in RECORDED_LIMITS:
        # Defaults are not in a recording.
        value, most = getattr(DEFAULT_LIMITS, name), getattr(ceiling, name)
        limits.setdefault(
            name, value if most is None else most if value is None else min(value, most)
        )
    try:
        return ceiling.replace(**limits)
    except OptionError as error:
        raise RecordingError(f"the recording is damaged: its limits: {error}") from None


def _make_stubs(
    spec: PluginSpec, limits: Limits, overrides: list[tuple[str, str]]
) -> list[Function]:
    """Return functions to link; each call is answered before it reaches them."""
    wanted = import_stubs.required_functions(spec, limits, overrides)
    return [
        import_stubs.make_stub(*name, HostFunction(type, _fail, name))
        for name, type in wanted.items()
    ]


def _fail(guest: object, caller: int, values: object) -> None:
    raise AssertionError("a host call of a replay is answered from the recording")
