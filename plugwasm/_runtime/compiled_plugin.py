"""Compiled plugins: read, compiled and linked once, to make any number of plugins of.

Decisions: docs/decisions.md, 4, 42.
"""

from __future__ import annotations

from time import monotonic

from .._engine import LOOK_INTERVAL, POOLED_TABLE_ELEMENTS, are_held
from .._host.grants import Grants
from .._host.memory_budget import max_state_bytes
from .._host.options import (
    NOT_GIVEN,
    REGISTERED,
    reject_plugin_object,
    reject_unknown_arguments,
    reject_unused_options,
)
from .._host.plugin_log import PluginLog
from .._host.registry import registered_functions, warn_registered_imports
from .._manifest.limits import (
    DEFAULT_LIMITS,
    DEFAULT_STACK_BYTES,
    INITIAL_PAGES,
    PAGE_SIZE,
    Limits,
    effective_limits,
)
from .._manifest.resolve import PluginSpec, admitted_settings, resolve
from ..errors import LinkError, ManifestError, ModuleError, OutOfMemoryError, truncate
from .call_errors import no_stack_error
from .modules import TooLargeForPool, engine_for_modules, get_engine
from .plans import find_or_make_plan
from .settings import NO_SETTINGS, PluginSettings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Never, Self

    from .._engine import Item
    from .._host.functions import Function
    from .._http.egress import Egress
    from .._wasi.files import Preopen
    from .._wasi.options import WasiOptions
    from .argument_types import Observe, PluginInput
    from .linker import Plan
    from .observers import Observer
    from .settings import GivenSettings

__all__ = ["CompiledPlugin"]


POOL_AFTER = 4
"""The number of starts of a plugin after which its instances come from the pool.

Creating the pool takes 2 ms, once in a process.
"""

POOLED_BYTES = 32 * 2**20
"""Bytes of code above which a plugin gets no instances from the pool, which has a second copy."""


class CompiledPlugin:
    """A plugin that is read, compiled and linked, but not running.

    Make any number of `Plugin` of it, in any thread.

    Args:
        plugin: The path of a module, or of a manifest (`.json` or `.toml`); a module's bytes or
            text; a URL; a manifest as a dict, as JSON or TOML text, or as a `Manifest`. Bytes, and
            files with other names, are never a manifest. A stranger's manifest goes through
            `ManifestPolicy.admit`.
        wasi: Whether the plugin may import WASI preview 1. It has no files but `allowed_paths`, no
            environment and no arguments. `WasiOptions` replace the clocks and the random bytes.
        functions: The host functions that it may import; if not given, all that `host_fn`
            registered in this process, from wherever. Imports of those are logged as a warning.
        name: The name in errors and logs; if not given, the main module's file name.
        fuel_limit: The fuel that each call may use (about one unit an instruction); None for no
            limit. Guests run slower with a limit.
        http_response_headers: Whether the plugin may read the headers of HTTP responses.
        limits: What the plugin may make the host spend. If given, the manifest can only lower it;
            if not, the defaults of `Limits` apply where the manifest is silent.
        egress: Restricts its HTTP requests, within the manifest's `allowed_hosts`, and the URLs
            that modules are fetched from. If not given, any public host is allowed, and others
            where the URL names them by their address or as "localhost".
        observe: Whether, and by whom, the plugins made of it are observed (`plugwasm.observing`):
            True for calls that are `Measured`, an `Observer`, or several.

    Raises:
        ManifestError: The manifest is not valid, or a hash does not match.
        OptionError: Another argument is not valid.
        SourceError: A module cannot be read or fetched.
        ModuleError: A module is not valid, or takes too long to compile.
        LinkError: An import cannot be satisfied.
        OutOfMemoryError: The modules have more memory to start with than the limit allows.
        StackError: The thread has too little stack.
    """

    __module__ = "plugwasm"

    __slots__ = (
        "_grants",
        "_offered",
        "_plan",
        "_pool_is_untried",
        "_pooled_plan",
        "_spec",
        "_uses_registered",
        "egress",
        "fuel_limit",
        "functions",
        "http_response_headers",
        "limits",
        "name",
        "observers",
        "wasi",
    )

    def __init__(
        self,
        plugin: PluginInput,
        wasi: bool | WasiOptions = False,
        functions: Iterable[Function] | None = REGISTERED,
        *,
        name: str | None = None,
        fuel_limit: int | None = None,
        http_response_headers: bool = False,
        limits: Limits | None = None,
        egress: Egress | None = None,
        observe: Observe = None,
        **unknown: Never,
    ) -> None:
        if unknown:
            reject_unknown_arguments(CompiledPlugin, unknown)
        self._compile(
            plugin,
            PluginSettings(
                wasi,
                functions,
                name,
                fuel_limit,
                http_response_headers,
                limits,
                egress,
                observe,
            ),
        )

    @classmethod
    def _from_settings(cls, plugin: PluginInput | PluginSpec, settings: PluginSettings) -> Self:
        """Compile a plugin with settings that are checked already."""
        compiled = cls.__new__(cls)
        compiled._compile(plugin, settings)
        return compiled

    def _compile(self, plugin: PluginInput | PluginSpec, settings: PluginSettings) -> None:
        if isinstance(plugin, PluginSpec):
            plugin, settings = plugin._prepare(settings)
        self._uses_registered = settings.functions is REGISTERED
        self.functions: tuple[Function, ...] = (
            registered_functions() if self._uses_registered else settings.functions
        )
        if type(plugin).__module__.partition(".")[0] == "plugwasm":
            reject_plugin_object(plugin)
        limits, egress = admitted_settings(plugin, settings.limits, settings.egress)
        stack = get_engine(
            fuel=settings.fuel_limit is not None,
            pooled=False,
            stack_bytes=(limits or DEFAULT_LIMITS).stack_bytes,
        ).stack
        # docs/decisions.md, 42
        if not stack.measurement.call_depth and not stack.has_room_for_python():
            raise no_stack_error(settings.name or "plugin", None, stack)
        self._spec: PluginSpec = resolve(
            plugin, module_bytes=(limits or DEFAULT_LIMITS).module_bytes, egress=egress
        )
        self.name: str = settings.name or truncate(self._spec.label)
        wasi = settings.wasi
        self.wasi: bool | WasiOptions = wasi
        self.fuel_limit: int | None = settings.fuel_limit
        self.http_response_headers: bool = settings.http_response_headers
        self.limits: Limits = effective_limits(limits, self._spec)
        self.egress: Egress | None = egress
        self.observers: tuple[Observer, ...] | None = settings.observers
        self._grants = Grants(
            self._spec,
            self.limits,
            log=PluginLog(self.name, self.limits),
            egress=egress,
            wasi=None if isinstance(wasi, bool) else wasi,
            preopens=_preopens(self._spec, wasi),
            http_response_headers=self.http_response_headers,
            has_wasi=bool(wasi),
            fuel_limit=self.fuel_limit,
        )
        self._check_sizes()
        if not stack.measurement.call_depth and not stack.has_room():
            raise no_stack_error(self.name, None, stack)
        self._offered = {function._imported_as: function._host for function in self.functions}
        self._build()
        self._warn()

    def _warn(self) -> None:
        """Warn of host functions that it imports although nobody passed them."""
        if self._uses_registered and self._offered:
            plan = self._plan
            warn_registered_imports(
                self.name,
                self.functions,
                {source for unit in plan.units for source in unit.sources},
            )

    def _build(self) -> None:
        """Compile and link. Everything before this concerns settings only."""
        self._plan = self._link(pooled=False)
        self._check_memory()
        self._check_state()
        self._pooled_plan: Plan | None = None
        self._allow_pool()

    def _allow_pool(self) -> None:
        # Linked commands are instantiated in calls, which a full pool must not make fail.
        has_commands = any(unit.is_command for unit in self._plan.units[:-1])
        if not (
            has_commands
            or self.limits.stack_bytes != DEFAULT_STACK_BYTES
            or self.limits.gc
            or self.limits.table_elements > POOLED_TABLE_ELEMENTS
            or self._plan.resident_bytes > POOLED_BYTES
        ):
            self._pool_is_untried = True

    def _check_sizes(self) -> None:
        for module in self._spec.modules:
            if len(module.wasm) > self.limits.module_bytes:
                raise ModuleError(
                    f"module `{truncate(module.name)}` has {len(module.wasm)} bytes, more "
                    f"than {self.limits.module_bytes} "
                    "(`Limits.module_bytes`)",
                    plugin=self.name,
                )

    def _check_memory(self) -> None:
        limit, first = self.limits.memory_bytes, self._plan.first_pages
        if limit is not None and first > limit // PAGE_SIZE:
            raise OutOfMemoryError(
                f"plugin `{self.name}` starts with {first} pages of memory, {INITIAL_PAGES} "
                "of them for what is passed in and out, "
                f"but its limit is {limit // PAGE_SIZE}: it needs `Limits.memory_bytes` of "
                f"{first * PAGE_SIZE} at least",
                plugin=self.name,
            )
        most, own = self.limits.max_pages, self._plan.main_pages
        if most is not None and own > most:
            raise OutOfMemoryError(
                f"the main module of plugin `{self.name}` starts with {own} pages of memory, "
                f"but its limit is {most}: "
                f"it needs `memory.max_pages` of {own} at least",
                plugin=self.name,
            )

    def _check_state(self) -> None:
        most = max_state_bytes(self.limits)
        if self._plan.state_bytes > most:
            raise OutOfMemoryError(
                f"plugin `{self.name}` may hold {self._plan.state_bytes} bytes outside of its "
                "memories (globals, functions that can be "
                f"referred to, segments, imports), but its limit is {most} "
                "(`Limits.instance_bytes`, `Limits.memory_bytes`)",
                plugin=self.name,
            )

    def _link(self, *, pooled: bool) -> Plan:
        try:
            return find_or_make_plan(
                engine_for_modules(
                    (module.wasm for module in self._spec.modules),
                    self.limits,
                    fuel=self.fuel_limit is not None,
                    pooled=pooled,
                ),
                self._spec.modules,
                self._spec.main,
                wasi=bool(self.wasi),
                functions=self._offered,
                limits=self.limits,
                plugin=self.name,
            )
        except LinkError as error:
            error.plugin = self.name
            raise

    def _plan_for_start(self) -> Plan:
        """Return the plan for one more instance: after a few starts a pooled one, which then pays
        off.
        """
        engine = self._plan.engine
        if engine.signals and (now := monotonic()) >= engine.stack.measurement.next_look:
            if are_held():
                engine.stack.measurement.next_look = now + LOOK_INTERVAL
            else:
                self._leave_signals()
        self._plan.starts += 1
        if self._plan.starts >= POOL_AFTER and self._pooled_plan is None and self._claim_pool():
            try:
                self._pooled_plan = self._link(pooled=True)
            except TooLargeForPool:
                pass
        pooled = self._pooled_plan
        # Another thread may have tried the pool when the signals were lost.
        if pooled is not None and pooled.engine.signals == self._plan.engine.signals:
            return pooled
        return self._plan

    def _leave_signals(self) -> None:
        """Compile and link once more, with explicit checks, for all instances from now on."""
        self._plan = self._link(pooled=False)
        self._pooled_plan = None
        self._allow_pool()

    def _claim_pool(self) -> bool:
        """Return True once: only the first caller may try the pool. Deleting an attribute is
        atomic.
        """
        try:
            del self._pool_is_untried
        except AttributeError:
            return False
        return True

    @property
    def exports(self) -> tuple[Item, ...]:
        """The main module's exports: name, kind, and for functions the type."""
        return tuple(self._plan.main.module.exports.values())

    @property
    def imports(self) -> tuple[Item, ...]:
        """The main module's imports: module, name, kind, and for functions the type."""
        return self._plan.main.module.imports

    @property
    def log_lines_dropped(self) -> int:
        """The number of log lines that the plugins made of this one lost to their limits."""
        return self._grants.log.dropped

    def __reduce__(self) -> str:
        raise TypeError(
            "a CompiledPlugin cannot be copied or pickled: threads can share it; send another "
            "process a PluginRef"
        )

    def __repr__(self) -> str:
        return f"<CompiledPlugin {self.name!r}>"


def ensure_compiled(
    kind: type[CompiledPlugin], plugin: PluginInput | CompiledPlugin, given: GivenSettings
) -> CompiledPlugin:
    """Return the compiled plugin that was given, or compile one of that class.

    Raises:
        OptionError: Settings were given to a plugin that is compiled already, and has others.
    """
    if not isinstance(plugin, CompiledPlugin):
        return kind._from_settings(plugin, PluginSettings(*given))
    if given != NO_SETTINGS:
        wasi, functions, name, fuel_limit, http_response_headers, limits, egress = given
        reject_unused_options(
            f"plugin `{plugin.name}` is a CompiledPlugin, which has options of its own: "
            "give CompiledPlugin(…) what is to hold",
            wasi=NOT_GIVEN if wasi == plugin.wasi else wasi,
            functions=functions,
            name=NOT_GIVEN if name in (None, plugin.name) else name,
            fuel_limit=NOT_GIVEN if fuel_limit == plugin.fuel_limit else fuel_limit,
            http_response_headers=NOT_GIVEN
            if http_response_headers == plugin.http_response_headers
            else http_response_headers,
            limits=NOT_GIVEN if limits in (None, plugin.limits) else limits,
            egress=NOT_GIVEN if egress in (None, plugin.egress) else egress,
        )
    return plugin


def _preopens(spec: PluginSpec, wasi: object) -> tuple[Preopen, ...]:
    if not spec.allowed_paths:
        return ()
    if not wasi:
        from os.path import isdir

        for path in spec.allowed_paths:
            if not isdir(path.removeprefix("ro:")):
                raise ManifestError(
                    f"allowed_paths grants {path!r}, which is no directory", field="allowed_paths"
                )
        return ()
    from .._wasi.files import Preopen, check_overlaps

    paths = spec.allowed_paths.items()
    preopens = tuple(
        Preopen(path.removeprefix("ro:"), guest_path, path.startswith("ro:"))
        for path, guest_path in paths
    )
    check_overlaps(preopens)
    return preopens
