"""Checks of the arguments of a set, each with an error that says what was expected."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, Final

from .._host.options import NOT_GIVEN, check_list, describe_value, reject_unused_options
from .._manifest.limits import ProcessLimits
from .._runtime.compiled_plugin import CompiledPlugin
from .._runtime.recycling import check_recycle
from ..errors import OptionError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .._host.functions import Function
    from .._http.egress import Egress
    from .._manifest.limits import Limits
    from .._runtime.argument_types import Observe
    from .._runtime.recycling import Recycle
    from .._wasi.options import WasiOptions

__all__ = [
    "ENTRY_POINTS",
    "check_config",
    "check_directories",
    "check_entry_points",
    "check_instances",
    "check_plugins",
    "check_recycling",
    "process_limits",
    "reject_unused_policy",
]

ENTRY_POINTS: Final = "plugwasm.plugins"
"""The group of entry points that packages with plugins use."""


def check_plugins(plugins: Any) -> list[Any] | Mapping[str, Any]:
    """Return the plugins as a list, or by name."""
    if isinstance(plugins, (str, bytes, os.PathLike)) or not hasattr(plugins, "__iter__"):
        hint = (
            "write directories=[…] for where plugins lie, and [plugin] for one, "
            "or a mapping by name"
        )
        raise OptionError(
            f"plugins: expected a list, got {describe_value(plugins)}: {hint}", field="plugins"
        )
    return plugins if isinstance(plugins, Mapping) else list(plugins)


def check_directories(directories: Any) -> list[str]:
    """Return the paths, of which one may stand alone, as text."""
    if isinstance(directories, (str, bytes, os.PathLike)):
        directories = [directories]
    checked = check_list("directories", directories, "paths", (str, bytes, os.PathLike))
    return [os.fsdecode(directory) for directory in checked]


def check_entry_points(group: object) -> None:
    if not (group is None or isinstance(group, str)):
        raise OptionError(
            f"entry_points: expected the name of a group, such as {ENTRY_POINTS!r}, "
            f"got {describe_value(group)}",
            field="entry_points",
        )


def check_config(config: object) -> None:
    if not (config is None or isinstance(config, Mapping)):
        raise OptionError(
            f"config: expected mappings by the plugins' names, got {describe_value(config)}",
            field="config",
        )
    check_list("config", config or {}, "names of plugins")


def process_limits(isolated: object) -> ProcessLimits | None:
    """Return the limits of the processes that plugins run in, or None if they run in this one."""
    if not isinstance(isolated, (bool, ProcessLimits)):
        raise OptionError(
            f"isolated: expected True, False or ProcessLimits, got {type(isolated).__name__}"
        )
    if isinstance(isolated, ProcessLimits):
        return isolated
    return ProcessLimits() if isolated else None


def check_recycling(recycle: Recycle | None, *, fresh: bool) -> None:
    if fresh:
        reject_unused_options(
            "each call gets a new instance (`fresh`)",
            recycle=NOT_GIVEN if recycle is None else recycle,
        )
    if recycle is not NOT_GIVEN:
        check_recycle(recycle)


def check_instances(instances: object, process: ProcessLimits | None) -> None:
    fewest = 0 if process is None else 1
    if isinstance(instances, bool) or not isinstance(instances, int) or instances < fewest:
        raise OptionError(f"instances: expected a number of at least {fewest}, got {instances!r}")


def reject_unused_policy(
    plugins: Iterable[Any] | Mapping[str, Any],
    *,
    wasi: bool | WasiOptions,
    functions: Iterable[Function] | None,
    limits: Limits | None,
    egress: Egress | None,
    allowed_paths: Iterable[str],
    fuel_limit: int | None,
    http_response_headers: bool,
    observe: Observe,
) -> None:
    """Reject what the application grants if all plugins are `CompiledPlugin`s, with their own."""
    given = plugins.values() if isinstance(plugins, Mapping) else plugins
    if not all(isinstance(plugin, CompiledPlugin) for plugin in given):
        return
    reject_unused_options(
        "all plugins of the set are CompiledPlugins, which have options of their own: "
        "give CompiledPlugin(…) what is to hold",
        wasi=NOT_GIVEN if wasi is False else wasi,
        functions=functions,
        limits=NOT_GIVEN if limits is None else limits,
        egress=NOT_GIVEN if egress is None else egress,
        allowed_paths=allowed_paths or NOT_GIVEN,
        fuel_limit=NOT_GIVEN if fuel_limit is None else fuel_limit,
        http_response_headers=http_response_headers or NOT_GIVEN,
        observe=NOT_GIVEN if observe is None else observe,
    )
