"""`PluginSet`: the plugins of an application, found, loaded, called by hooks, and reloaded.

A hook is the name of an export. A plugin serves each hook that it exports as a function, and the
set calls the plugins that serve it in order. A plugin that fails is skipped and its error is noted;
the others are called all the same.

The plugins of a set at one time are one immutable `State`, which the set's `Catalog` replaces at
each change. So a call that is under way ends with the plugins that it began with.

A manifest in a set only asks. What a plugin gets is bounded by what the application passes: limits,
hosts and directories.

Decisions: docs/decisions.md, 21 and 32.1.
"""

from __future__ import annotations

from typing import Any, Final, Never, Self, TypeVar

from .._host.options import (
    NOT_GIVEN,
    REGISTERED,
    check_flag,
    check_list,
    describe_value,
    reject_unknown_arguments,
)
from .._manifest.messages import truncate
from .._runtime.abstract_plugin import CloseOnExit
from ..errors import FunctionNotFoundError, OptionError
from . import arguments, dispatch, signatures
from .arguments import ENTRY_POINTS
from .catalog import Catalog, did_you_mean
from .changes import Changes
from .description import Description, Grants
from .discovery import application_sources, entry_point_sources
from .dispatch import Result, guard_parse
from .loaded_plugin import InstancePolicy
from .loading import Loader, checked_config
from .metadata import Setting
from .policy import SetPolicy
from .state import PluginEntry, log
from .watching import start_watching

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Mapping

    import anyio

    from .._host.functions import Function
    from .._http.egress import Egress
    from .._manifest.limits import Limits, ProcessLimits
    from .._runtime.argument_types import Observe
    from .._runtime.recycling import Recycle
    from .._wasi.options import WasiOptions

__all__ = ["Changes", "Description", "Grants", "PluginSet", "Result", "Setting"]

T = TypeVar("T")

_MAX_UNSERVED_HOOKS: Final = 100
"""How many hooks that no plugin serves are logged, each once."""


class PluginSet(CloseOnExit):
    """The plugins of an application. Any number of threads can use it.

    Plugins are called in the order of `order`, then of what their authors say (`order` in
    `plugin.toml`, 0 by default), then in which they were found: `plugins`, entry points by name,
    directories by name. If two have one name, the first has it.

    Each call uses an instance that no other call uses; some are kept for the next calls. So a
    plugin's memory and vars may or may not be there in its next call. Where that matters, use
    `fresh=True`.

    Args:
        plugins: What `CompiledPlugin` takes, folders, or `CompiledPlugin`s, in a list or by name. A
            `CompiledPlugin` is used as it is: of the arguments below only those about names,
            `config` and instances apply to it. The others are an error where they would apply to
            no plugin.
        directories: Where to look for `.wasm` files, for scripts, and for folders with a
            `plugin.toml` or `manifest.toml` (or `.json`). The name of the plugin is that of the
            file (without its suffix) or folder.
        entry_points: The group of entry points of installed packages to look at, such as
            "plugwasm.plugins". None for none.
        hooks: The names that are hooks. By default, all functions that a plugin exports, except
            those that begin with `_`.
        order: Names of plugins that are called first, in this order.
        disabled: Names of plugins that are not loaded until they are enabled.
        config: What plugins read with `config_get`, by the plugin's name, on top of their
            manifests.
        wasi, functions, fuel_limit, http_response_headers, observe: As for `CompiledPlugin`, for
            each plugin.
        limits: The limits of each plugin; a manifest can only ask for less. By default, those of
            `Limits`.
        egress: The policy for HTTP requests. A host must be granted by its `allowed_hosts` and by
            the plugin's manifest; without them, none is.
        allowed_paths: Directories that a manifest may ask for, by the same path; `ro:` in front
            makes one read-only for all.
        instances: How many idle instances are kept of each plugin; with `isolated`, how many
            processes each has at most. Further calls wait for one, as long as a call may take, and
            then fail with a `PoolTimeoutError`.
        fresh: Whether each call gets a new instance; with `isolated`, a new one in the same
            process.
        isolated: Whether each plugin runs in processes of its own, as an `IsolatedPlugin` does, a
            `CompiledPlugin` too. The first is started when the plugin is loaded. `ProcessLimits`
            are the limits of each.
        recycle: When an instance is recycled, as for `PluginPool`, also by default.
        scripts: Whether scripts in `directories` (`.js`, `.py`) are plugins, too. They have the
            clock and random numbers of the system, unless `wasi` says otherwise, and the host
            functions that `functions` names, but none that are registered.

    Raises:
        SourceError: A directory cannot be read. A plugin that cannot be loaded raises nothing:
            `describe` says why.
        OptionError: An argument is not valid.
    """

    __module__ = "plugwasm"

    def __init__(
        self,
        plugins: Iterable[Any] | Mapping[str, Any] = (),
        *,
        directories: Iterable[str | os.PathLike[str]] = (),
        entry_points: str | None = None,
        hooks: Iterable[str] | None = None,
        order: Iterable[str] = (),
        disabled: Iterable[str] = (),
        config: Mapping[str, Mapping[str, str | None]] | None = None,
        wasi: bool | WasiOptions = False,
        functions: Iterable[Function] | None = REGISTERED,
        limits: Limits | None = None,
        egress: Egress | None = None,
        allowed_paths: Iterable[str] = (),
        fuel_limit: int | None = None,
        http_response_headers: bool = False,
        observe: Observe = None,
        instances: int = 4,
        fresh: bool = False,
        isolated: bool | ProcessLimits = False,
        recycle: Recycle | None = NOT_GIVEN,
        scripts: bool = True,
        **unknown: Never,
    ) -> None:
        if unknown:
            reject_unknown_arguments(type(self), unknown)
        plugins = arguments.check_plugins(plugins)
        directories = arguments.check_directories(directories)
        arguments.check_entry_points(entry_points)
        hooks = None if hooks is None else check_list("hooks", hooks, "names of exports")
        order = check_list("order", order, "names of plugins")
        disabled = check_list("disabled", disabled, "names of plugins")
        arguments.check_config(config)
        check_flag("fresh", fresh)
        check_flag("scripts", scripts)
        process = arguments.process_limits(isolated)
        arguments.check_recycling(recycle, fresh=fresh)
        arguments.check_instances(instances, process)
        self._declared_hooks = None if hooks is None else frozenset(hooks)
        policy = SetPolicy(
            wasi,
            functions,
            limits,
            egress,
            allowed_paths,
            fuel_limit,
            http_response_headers,
            observe,
            process is not None,
        )
        if plugins and not directories and entry_points is None:
            arguments.reject_unused_policy(
                plugins,
                wasi=wasi,
                functions=functions,
                limits=limits,
                egress=egress,
                allowed_paths=allowed_paths,
                fuel_limit=fuel_limit,
                http_response_headers=http_response_headers,
                observe=observe,
            )
        self._unserved: set[str] = set()
        self._stop_functions: list[Callable[[], None]] = []
        self._catalog = Catalog(
            Loader(
                policy,
                InstancePolicy(self._declared_hooks, instances, fresh, process, recycle),
                dict.fromkeys(disabled, False),
                {name: checked_config(changes) for name, changes in (config or {}).items()},
            ),
            directories,
            [
                *application_sources(plugins, egress),
                *(entry_point_sources(entry_points, egress) if entry_points is not None else ()),
            ],
            order,
            scripts,
        )
        self.reload()

    @classmethod
    def from_directory(cls, *directories: str | os.PathLike[str], **options: Any) -> Self:
        """Return a set of the plugins of these directories."""
        return cls(directories=directories, **options)

    @classmethod
    def from_entry_points(cls, group: str = ENTRY_POINTS, **options: Any) -> Self:
        """Return a set of the plugins that installed packages have as entry points.

        An entry point is a path, a manifest, a module, or a function that returns one.
        """
        return cls(entry_points=group, **options)

    # ---- calling ---------------------------------------------------------------------------------

    @property
    def hooks(self) -> dict[str, tuple[str, ...]]:
        """The names of the plugins that serve each hook, in the order in which they are called."""
        return {
            hook: tuple(entry.name for entry in entries)
            for hook, entries in self._catalog.current_state().hooks.items()
        }

    @signatures.of_first
    def first(
        self, hook: str, data: Any = b"", *, stop_on_error: bool = False, **options: Any
    ) -> Any:
        """Call plugins until one gives an answer, and return it.

        An empty output is no answer, whatever `parse` or `returns` would make of it; nor is a None
        that they make.

        Args:
            hook: The export to call. A hook that no plugin serves is logged once, unless `hooks`
                declares it.
            data: The input.
            stop_on_error: Whether to raise the error of a plugin. If not, it is noted, and the next
                plugin is called.
            **options: As for `Plugin.call`, but `parse` cannot be None. An exception of `parse`
                counts as the plugin's error.

        Returns:
            The output; None when no plugin gave an answer.

        Raises:
            FunctionNotFoundError: There is no such hook among those that were declared.
        """
        return dispatch.call_first(
            PluginEntry.call,
            self._entries_for(hook),
            hook,
            data,
            stop_on_error,
            guard_parse(options),
        )

    @signatures.of_all
    def all(
        self, hook: str, data: Any = b"", *, stop_on_error: bool = False, **options: Any
    ) -> Any:
        """Call each plugin with the same input, and return all results in order; see `first`.

        A result is an output, which may be empty, or an error.
        """
        return dispatch.call_all(
            PluginEntry.call,
            self._entries_for(hook),
            hook,
            data,
            stop_on_error,
            guard_parse(options),
        )

    @signatures.of_chain
    def chain(
        self, hook: str, data: Any = b"", *, stop_on_error: bool = False, **options: Any
    ) -> Any:
        """Call each plugin with the output of the one before it, and return the last output.

        An empty output is passed on too. A plugin that fails is skipped. Otherwise as `first`.

        Returns:
            The last output, or `data` itself when no plugin gave one.
        """
        return dispatch.call_chain(
            PluginEntry.call,
            self._entries_for(hook),
            hook,
            data,
            stop_on_error,
            guard_parse(options),
        )

    @signatures.of_call
    def call(self, name: str, function_name: str, data: Any = b"", **options: Any) -> Any:
        """Call a function of one plugin.

        Raises:
            FunctionNotFoundError: The plugin cannot be called, or has no such function.
            Error: As `Plugin.call`.
        """
        return dispatch.call_one(
            PluginEntry.call,
            self._catalog.callable_entry(name, function_name),
            function_name,
            data,
            guard_parse(options),
        )

    @signatures.of_first_async
    async def first_async(
        self,
        hook: str,
        data: Any = b"",
        *,
        stop_on_error: bool = False,
        limiter: anyio.CapacityLimiter | None = None,
        **options: Any,
    ) -> Any:
        """Call plugins as `first` does, for a task of asyncio or trio.

        The plugins run in a thread, one after the other, and host functions that are `async def`
        run in the task. When the task is cancelled, the plugin that runs is cancelled too, no other
        is called, and the task goes on when that plugin has ended.

        Args:
            hook, data, stop_on_error, options: As for `first`. `parse` is called in the thread.
            limiter: As for `Plugin.call_async`.
        """
        return await dispatch.dispatch_in_thread(
            limiter,
            dispatch.call_first,
            self._entries_for(hook),
            hook,
            data,
            stop_on_error,
            guard_parse(options),
        )

    @signatures.of_all_async
    async def all_async(
        self,
        hook: str,
        data: Any = b"",
        *,
        stop_on_error: bool = False,
        limiter: anyio.CapacityLimiter | None = None,
        **options: Any,
    ) -> Any:
        """Call plugins as `all` does, for a task; see `first_async`."""
        return await dispatch.dispatch_in_thread(
            limiter,
            dispatch.call_all,
            self._entries_for(hook),
            hook,
            data,
            stop_on_error,
            guard_parse(options),
        )

    @signatures.of_chain_async
    async def chain_async(
        self,
        hook: str,
        data: Any = b"",
        *,
        stop_on_error: bool = False,
        limiter: anyio.CapacityLimiter | None = None,
        **options: Any,
    ) -> Any:
        """Call plugins as `chain` does, for a task; see `first_async`."""
        return await dispatch.dispatch_in_thread(
            limiter,
            dispatch.call_chain,
            self._entries_for(hook),
            hook,
            data,
            stop_on_error,
            guard_parse(options),
        )

    @signatures.of_call_async
    async def call_async(
        self,
        name: str,
        function_name: str,
        data: Any = b"",
        *,
        limiter: anyio.CapacityLimiter | None = None,
        **options: Any,
    ) -> Any:
        """Call a plugin as `call` does, for a task; see `first_async`."""
        return await dispatch.dispatch_in_thread(
            limiter,
            dispatch.call_one,
            self._catalog.callable_entry(name, function_name),
            function_name,
            data,
            guard_parse(options),
        )

    def _entries_for(self, hook: str) -> tuple[PluginEntry, ...]:
        state = self._catalog.current_state()
        declared = self._declared_hooks
        if not isinstance(hook, str):
            raise OptionError(
                f"hook: expected the name of an export, as text, got {describe_value(hook)}",
                field="hook",
            )
        if declared is not None and hook not in declared:
            raise FunctionNotFoundError(
                f"there is no hook `{truncate(hook)}`{did_you_mean(hook, declared)}", function=hook
            )
        serving = state.hooks.get(hook, ())
        if (
            not serving
            and declared is None
            and state.hooks
            and hook not in self._unserved
            and len(self._unserved) < _MAX_UNSERVED_HOOKS
        ):
            self._unserved.add(hook)
            log.warning(
                "no plugin of the set serves the hook %s%s; PluginSet(hooks=[…]) makes other names "
                "than yours an error",
                truncate(hook),
                did_you_mean(hook, state.hooks),
            )
        return serving

    # ---- changing --------------------------------------------------------------------------------

    def reload(self) -> Changes:
        """Look once for plugins that are new, changed or gone.

        Calls under way end with the plugins that they began with. A plugin whose new files cannot
        be loaded goes on as it was; `describe` has the error. All plugins that are compiled share
        the time that `Limits.compile_seconds` gives one, so a slow one fails, and the others are
        loaded all the same.

        In a signal handler (or a finalizer) that interrupts a change in its own thread, the result
        is empty: the interrupted code reloads once its change is made.

        Raises:
            SourceError: A directory cannot be read; nothing was changed.
        """
        return self._catalog.reload()

    def enable(self, name: str) -> None:
        """Load a plugin that is disabled, or could not be loaded.

        Raises:
            Error: It cannot be loaded. It is enabled all the same, and `reload` loads it when its
                files have changed.
            BusyError: This is called by a signal handler that interrupts a change in its own
                thread. `disable` and `configure` raise it too.
        """
        self._catalog.enable(name)

    def disable(self, name: str) -> None:
        """Stop calling a plugin, and drop it. Calls under way end on their own."""
        self._catalog.disable(name)

    def configure(self, name: str, changes: Mapping[str, str | None]) -> None:
        """Change the configuration of a plugin; None removes a key, also of the manifest."""
        self._catalog.configure(name, changes)

    def watch(
        self, interval: float = 1.0, on_change: Callable[[Changes], object] | None = None
    ) -> Callable[[], None]:
        """Reload every `interval` seconds in a thread, and call `on_change` there after changes.

        Returns:
            A function that ends the thread. `close` does so too. A forked child has no such thread
            until it calls this.

        Raises:
            OptionError: An argument is not valid.
        """
        if isinstance(interval, bool) or not isinstance(interval, (int, float)) or not interval > 0:
            raise OptionError(
                f"interval: expected a number of seconds above 0, got {describe_value(interval)}",
                field="interval",
            )
        if not (on_change is None or callable(on_change)):
            raise OptionError(
                f"on_change: expected a function that takes the changes, "
                f"got {describe_value(on_change)}",
                field="on_change",
            )
        self._catalog.current_state()
        end = start_watching(self, interval, on_change)
        self._stop_functions.append(end)
        return end

    def close(self) -> None:
        """Drop all plugins. Calls under way end on their own. Closing twice is allowed."""
        for stop in self._stop_functions:
            stop()
        self._catalog.close()

    # ---- describing ------------------------------------------------------------------------------

    def describe(self) -> list[Description]:
        """Return descriptions of all plugins in order, also of those that are not loaded.

        Those whose names were taken are at the end. `msgspec.to_builtins` makes plain data of a
        description.
        """
        return self._catalog.describe()

    def __repr__(self) -> str:
        closed = ", closed" if self._catalog.is_closed else ""
        return f"<PluginSet of {len(self._catalog.state.entries)}{closed}>"
