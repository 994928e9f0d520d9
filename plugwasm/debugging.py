"""Debug guests: where a call ended, what the memory held, where the time went.

    from plugwasm import debugging

    try:
        plugin.call("run", data)
    except plugwasm.CallError as error:
        print(debugging.explain(error, plugin))  # with source lines, if the module has DWARF

    debugging.dump_on_trap(plugin, "dumps")  # a core dump and the memories, for each ended call

    with debugging.profile(plugin) as profile:
        plugin.call("run", data)
    profile.save("run.html")  # or .svg; .json for the Firefox Profiler; .txt for flamegraph.pl

Calls pay nothing for any of this before it is used.
"""

from __future__ import annotations

from ._debugging.backtrace import Backtrace, Frame, PluginCodeMap, resolve_frames
from ._debugging.coredump import Dump, Dumper
from ._debugging.profile import FunctionTime, Profile
from ._manifest.resolve import resolve
from ._runtime.compiled_plugin import CompiledPlugin
from ._runtime.plugin import Plugin
from .errors import CallError, Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os

    from ._manifest.resolve import PluginSpec
    from ._runtime.argument_types import PluginInput

__all__ = [
    "Backtrace",
    "Dump",
    "Dumper",
    "Frame",
    "FunctionTime",
    "Profile",
    "dump_on_trap",
    "explain",
    "profile",
]


def explain(error: Error, plugin: Plugin | CompiledPlugin | PluginInput) -> Backtrace:
    """Return the frames of an error with functions and source lines, innermost first.

    Inlined functions have frames of their own. Only the modules' bytes are needed: the error may
    come from another process, and the plugin may be closed. A module that was built without debug
    information gives frames without lines.

    Raises:
        ImportError: A module has DWARF, and pyelftools is not installed: `pip install
            'plugwasm[debug]'`.
        ManifestError, SourceError, ModuleError: `plugin` was not read yet, and cannot be.
    """
    spec = _spec(plugin)
    return resolve_frames(error.backtrace, PluginCodeMap(spec.modules, spec.main))


def dump_on_trap(
    plugin: Plugin,
    directory: str | os.PathLike[str],
    *,
    on: type[CallError] | tuple[type[CallError], ...] = CallError,
    most: int = 10,
) -> Dumper:
    """From now on, write a core dump and each memory when a call is ended in its middle.

    The core dump has the format of WebAssembly's tool conventions, with frames and memories;
    wasmgdb reads it. It has no values of locals and no operand stack, since the engine does not
    give them. A note of the error says where it is. Memories hold whatever the plugin was given,
    secrets included, so only this user may read the files.

    Args:
        directory: Where the files go. It is created when it is needed.
        on: The errors to dump for: by default all, so every end of a call except a normal return of
            the guest.
        most: How many dumps are written at most, so that a plugin that traps on each call does not
            fill the disk.

    Returns:
        What was written so far, and a way to stop.
    """
    _check_here(plugin)
    spec = _spec(plugin)
    return Dumper(plugin, directory, PluginCodeMap(spec.modules, spec.main), on=on, most=most)


def profile(plugin: Plugin, *, interval: float = 0.001) -> Profile:
    """Sample the guest's stack every `interval` seconds while the plugin runs calls in the `with`
    block.

    Stacks are sampled at the entries of functions and at the heads of loops. The time of a host
    function that takes about as long as the interval, or longer, is shown by its name below the
    export that was called; that of shorter ones counts for what the guest does next.
    """
    _check_here(plugin)
    return Profile(plugin, interval)


def _spec(plugin: Plugin | CompiledPlugin | PluginInput) -> PluginSpec:
    if isinstance(plugin, Plugin):
        plugin = plugin.compiled_plugin
    return plugin._spec if isinstance(plugin, CompiledPlugin) else resolve(plugin)


def _check_here(plugin: Plugin) -> None:
    # An IsolatedPlugin has no `_post_mortem`.
    if not isinstance(plugin, Plugin) or not hasattr(plugin, "_post_mortem"):
        raise TypeError(f"expected a Plugin that runs in this process, got {type(plugin).__name__}")
