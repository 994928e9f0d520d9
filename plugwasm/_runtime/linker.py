"""Linking: modules and their imports become a plan, which makes any number of instances.

An import is satisfied by, where the later one wins: the kernel and the host half of
`extism:host/env`, WASI, the application's host functions, the modules of the manifest.

Modules that others import from come in three kinds. A reactor has one instance in each plugin,
initialised once. A command (it exports `_start`, and no `_initialize`) has a fresh instance for
each call. A module on a circle of imports is reached through a trampoline: a host function that
calls its export once it exists. Trampolines can only stand for functions.

A command that imports only functions has a store of its own for each call, which is freed at the
end of the call. So:

1. Only numbers (i32, i64, f32, f64) pass between two stores, in either direction. A reference would
   be an address in a store that is gone.
2. An item belongs to one store, and is only ever imported there. A function asks the engine for
   everything that it needs of its caller.
3. What threads share (units, their host functions) is made before anything runs, and each store
   holds the callbacks that it was given.

Decisions: docs/decisions.md, 34.
"""

from __future__ import annotations

from .._engine import (
    BoundStart,
    ExportName,
    FunctionType,
    HostFunction,
    Instance,
    Module,
    Store,
    truncate,
)
from .._host import env
from .._host import kernel as _kernel
from .._host.guest import following_log
from .._host.kernel_requests import KERNEL_IMPORT
from .._host.memory_budget import MemoryPlan
from .._manifest.limits import DEFAULT_LIMITS, INITIAL_PAGES
from ..errors import LinkError, MissingImportError
from .inlining import OriginalFrames
from .modules import CompileBudget, compile_kernel, compile_module, find_original_offsets
from .trampolines import (
    WASI,
    check_passable,
    command_function,
    import_across_stores,
    trampoline,
    wasi_function,
)
from .units import Unit, has_heap, instantiate_unit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from functools import partial
    from typing import TypeVar

    from .._engine import Engine, Item
    from .._host.guest import Guest
    from .._manifest.limits import Limits
    from .._manifest.resolve import ModuleSpec

    S = TypeVar("S")
    Imports = Mapping[tuple[str, str], HostFunction]
    Source = str | HostFunction | tuple[int, str]
else:
    from _functools import partial  # the module `functools` takes long to import

_NOTHING = FunctionType((), ())
_HASKELL_START = FunctionType(("i32", "i32"), ())
_INITIALIZE, _HASKELL_INIT = ExportName("_initialize"), ExportName("hs_init")


def compile_unit(
    source: ModuleSpec, engine: Engine, budget: CompileBudget | None, *, is_only: bool
) -> Module:
    """Return the compiled module, with the kernel's functions inlined if that is possible.

    Offsets in backtraces are mapped back, so it must be known which module they are of: only the
    only one is inlined. Fuel is counted by instructions, of the original. What is part of plugwasm,
    and compiled once on a machine, has limits of its own.
    """
    inline = is_only and not engine.fuel
    if budget is not None and source.is_own:
        budget = CompileBudget(DEFAULT_LIMITS)
    return compile_module(source.wasm, engine, source.name, budget, inline=inline)


class Plan:
    """A plugin's modules, compiled and linked. Immutable; threads may share it.

    The last unit is the main module.
    """

    def __init__(
        self,
        engine: Engine,
        sources: Sequence[ModuleSpec],
        main: str,
        *,
        wasi: bool,
        functions: Imports,
        limits: Limits | None = None,
        plugin: str | None = None,
    ) -> None:
        self.engine = engine
        budget = None if limits is None else CompileBudget(limits)
        ordered = sorted(sources, key=lambda source: source.name == main)
        self.units = [
            Unit(
                i,
                source.name,
                compile_unit(source, engine, budget, is_only=len(ordered) == 1),
                # Nobody has named the only module of a plugin.
                f"plugin `{plugin}`"
                if plugin is not None and len(ordered) == 1
                else f"module `{truncate(source.name)}`",
            )
            for i, source in enumerate(ordered)
        ]
        # Usually it is there: it was compiled while another process was started for a module.
        self.kernel = compile_kernel(engine)
        self.main = self.units[-1]
        self.callables: dict[str, tuple[ExportName, bool]] = {}
        """The exports that plugins have called, and whether each returns a code."""
        self._frames: OriginalFrames | None = None
        if self.main.module.is_inlined:
            self._frames = OriginalFrames(partial(find_original_offsets, ordered[-1].wasm))
        self.order = _Linker(self.units, self.kernel, wasi, functions).link()
        self.kernel_names = sorted(
            {source for unit in self.units for source in unit.sources if isinstance(source, str)}
            | ({*_kernel.MEMORIES} if self.main.module.is_inlined else set())
        )
        self.kernel_exports = tuple(map(ExportName, self.kernel_names))
        self.table_functions = sorted(
            {
                source
                for unit in self.units
                for source in unit.sources
                if isinstance(source, env.EnvFunction)
                and source.name is not None
                and source.name[1] in _kernel.TABLE_FUNCTIONS
            },
            key=lambda function: function.name or ("", ""),
        )
        """The functions that the kernel serves where no one has to see their calls."""
        names = [function.name[1] for function in self.table_functions if function.name]
        self.table_exports = tuple(map(ExportName, names))
        self.logs = not _kernel.LOG_FUNCTIONS.isdisjoint(names)
        self.initial_units = [
            unit for unit in self.order if unit is self.main or not unit.is_command
        ]
        """The units with an instance from the start. The others are commands."""
        self.start_functions = _start_functions(self.main.module.exports)
        self.starts = 0
        """About how many instances were made of it; threads may be counted as one."""
        self._spare_starts: list[BoundStart] = []
        """Bound starts whose instance is gone. The next instances use them."""
        self._plan_memory(limits)
        for unit in self.order:
            _check_start(unit, unit is self.main)

    def _plan_memory(self, limits: Limits | None) -> None:
        """Find out what the modules take, and what they may take."""
        initial = [unit.module for unit in self.initial_units]
        # Instances of these commands stay in the plugin's store, each with memories and tables.
        staying = [
            unit.module
            for unit in self.order
            if unit.is_command and unit is not self.main and not unit.has_own_store
        ]
        bounds = limits or DEFAULT_LIMITS
        counts = [module.defined_memories for module in initial]
        count, largest = sum(count for count, _, _ in counts), max(most for _, _, most in counts)
        if any(module.defined_memories[0] for module in staying):
            count += bounds.memories
        count += any(has_heap(unit.module, limits) for unit in self.units)
        total = sum(total for _, total, _ in counts)
        self.first_pages = INITIAL_PAGES + total
        self.main_pages = self.main.module.defined_memories[1]
        self.resident_bytes = sum(unit.module.resident_bytes for unit in self.units)
        self.state_bytes = sum(unit.module.state_bytes for unit in self.order)
        self.initial_state_bytes = sum(module.state_bytes for module in initial)
        """Of the instances made at the start. Those of commands are made and counted later."""
        tables = sum(module.defined_tables for module in initial)
        if any(module.defined_tables for module in staying):
            tables = bounds.tables
        visible = map(_visible_memory, self.initial_units)
        watched = next((memory for memory in visible if memory), None)
        self.memory = MemoryPlan(bounds, (count, total, largest), watched, tables)

    def open_store(self, guest: Guest) -> BoundStart | None:
        """Give the guest a store; return what `instantiate` needs."""
        if len(self.units) > 1 or self.engine.fuel:
            guest.store = Store(self.engine, guest)
            guest.store.limit(self.memory.first_limits)
            return None
        try:
            start = self._spare_starts.pop()
        except IndexError:
            start = self._bind_start()
        guest.store = start.open(guest)
        return start

    def _bind_start(self) -> BoundStart:
        """Bind the start of a plugin of one module."""
        unit = self.main
        sources: list[ExportName | HostFunction] = []
        for source in unit.sources:
            if isinstance(source, str):
                sources.append(ExportName(source))
            elif source in self.table_functions and source.name:
                sources.append(ExportName(source.name[1]))
            else:
                assert isinstance(source, HostFunction)
                sources.append(following_log(source) if self.logs else source)
        if unit.module.is_inlined:
            sources += map(ExportName, _kernel.MEMORIES)
        return BoundStart(
            self.engine,
            self.memory.first_limits,
            self.kernel,
            KERNEL_IMPORT,
            _kernel.HEAP,
            unit.module,
            sources,
            self.start_functions,
        )

    def instantiate(self, guest: Guest, start: BoundStart | None) -> Instance:
        """Make an instance of every unit in the guest's store, and return the main one.

        The functions that run before the first call run here.
        """
        guest.limit_memory(self.memory)
        guest.state_bytes = self.initial_state_bytes
        if self._frames is not None:
            guest.restore_frames = self._frames.restore
        # An interceptor gets other host functions than those that are bound.
        if start is None or guest.interceptor is not None:
            return self._instantiate_units(guest)
        pending = guest.pending
        kernel, heap = start.start_kernel(guest.store, pending)
        guest.kernel = _kernel.Kernel(kernel, pending, heap)
        guest.budget.note_kernel()
        guest.follows_log = self.logs
        instance = guest.instances[self.main.index] = start.start_module(guest.store, pending)
        start.run_start_functions(pending)
        self._spare_starts.append(start)
        return instance

    def _instantiate_units(self, guest: Guest) -> Instance:
        store = guest.store
        fuel = store.fuel() if guest.is_fuelled else None
        kernel = store.instantiate(self.kernel, store.make_import(KERNEL_IMPORT), guest.pending)
        if fuel is not None:
            store.set_fuel(fuel)  # the kernel's start is not the plugin's
        make_kernel = _kernel.FuelledKernel if self.engine.fuel else _kernel.Kernel
        guest.kernel = make_kernel(kernel, guest.pending)
        guest.budget.note_kernel()
        guest.externs.update(
            zip(self.kernel_names, kernel.exports(self.kernel_exports), strict=True)
        )
        # How much fuel they take must not depend on who listens to the log.
        if self.table_functions and guest.interceptor is None and not self.engine.fuel:
            guest.externs.update(
                zip(self.table_functions, kernel.exports(self.table_exports), strict=True)
            )
            guest.follows_log = self.logs
        for unit in self.initial_units:
            instance = instantiate_unit(unit, guest)
            guest.instances[unit.index] = instance
            if unit is not self.main and "_initialize" in unit.module.exports:
                instance.function(_INITIALIZE, 0).call(guest.pending)
        instance = guest.instances[self.main.index]
        for name in self.start_functions:
            instance.function(name, 2).call(guest.pending)
        return instance


def _start_functions(exports: Mapping[str, Item]) -> tuple[ExportName, ...]:
    """Return the functions that the main module runs before the first call."""
    if "hs_init" in exports:
        return (_INITIALIZE, _HASKELL_INIT) if "_initialize" in exports else (_HASKELL_INIT,)
    if "__wasm_call_ctors" in exports:
        return (ExportName("__wasm_call_ctors"),)
    return (_INITIALIZE,) if "_initialize" in exports else ()


def _check_start(unit: Unit, is_main: bool) -> None:
    """Check the types of the functions that run before the first call.

    Raises:
        LinkError: One of them cannot be called.
    """
    wanted = {"_initialize": _NOTHING} | (
        {"__wasm_call_ctors": _NOTHING, "hs_init": _HASKELL_START} if is_main else {}
    )
    for name, type in wanted.items():
        item = unit.module.exports.get(name)
        if item is not None and item.type != type:
            must = f"is run at the start and must be a function {type}, not {item}"
            raise LinkError(f"{unit.label}: its export `{name}` {must}")


def _visible_memory(unit: Unit) -> tuple[int, ExportName] | None:
    """Return the unit and the name of its own exported memory, if there is just one."""
    module = unit.module
    if module.defined_memories[0] != 1 or any(item.kind == "memory" for item in module.imports):
        return None
    names = [name for name, item in module.exports.items() if item.kind == "memory"]
    return (unit.index, ExportName(names[0])) if names else None


class _Linker:
    """Finds the source of each import, and the order in which units are instantiated."""

    def __init__(self, units: list[Unit], kernel: Module, wasi: bool, functions: Imports) -> None:
        self.units = units
        self.kernel = kernel
        self.wasi = wasi
        self.functions = functions
        self.by_name = {unit.name: unit for unit in units}
        self.order: list[Unit] = []
        self.path: list[Unit] = []
        self.commands: dict[tuple[int, str], HostFunction] = {}

    def link(self) -> list[Unit]:
        for unit in self.units:
            self.visit(unit)
        for unit in self.units[:-1]:
            if unit.has_own_store:
                unit.own_store_imports = [
                    import_across_stores(unit, source, item)
                    for source, item in zip(unit.sources, unit.module.imports, strict=True)
                ]
        return self.order

    def visit(self, unit: Unit) -> None:
        """Order a unit after those that it imports from.

        This is iterative: a manifest may have a chain of modules as long as its limit.
        """
        on_path: set[Unit] = set()
        ordered = set(self.order)
        pending = [(unit, iter(unit.module.imports))] if unit not in ordered else []
        while pending:
            unit, imports = pending[-1]
            if unit not in on_path:
                on_path.add(unit)
                self.path.append(unit)
            for item in imports:
                other = self.by_name.get(item.module)
                if (
                    other is not None
                    and item.name in other.module.exports
                    and other not in on_path
                    and other not in ordered
                ):
                    pending.append((other, iter(other.module.imports)))
                    break
            else:
                unit.sources = [self.source(unit, item) for item in unit.module.imports]
                unit.made_sources = [
                    source for source in dict.fromkeys(unit.sources) if not isinstance(source, str)
                ]
                self.path.pop()
                on_path.remove(unit)
                self.order.append(unit)
                ordered.add(unit)
                pending.pop()

    def source(self, unit: Unit, item: Item) -> Source:
        """Return the source of the import.

        Raises:
            LinkError: There is none, or it has another type.
        """
        other = self.by_name.get(item.module)
        if other is not None and item.name in other.module.exports:
            return self.from_unit(unit, item, other)
        if item.kind == "function":
            if host := self.functions.get((item.module, item.name)):
                return _check_type(unit, item, host.type, host)
            if self.wasi and item.module == WASI:
                from .._wasi.preview1 import SIGNATURES

                if item.name in SIGNATURES:
                    host = wasi_function(item.name)
                    return _check_type(unit, item, host.type, host)
            if item.module == env.NAMESPACE:
                if item.name in _kernel.KERNEL_FUNCTIONS:
                    served = self.kernel.exports[item.name].type
                    assert served is not None
                    return _check_type(unit, item, served, item.name)
                if host := env.FUNCTIONS.get(item.name):
                    return _check_type(unit, item, host.type, host)
        raise _missing(unit, item, self.wasi)

    def from_unit(self, unit: Unit, item: Item, other: Unit) -> Source:
        export = other.module.exports[item.name]
        if export.kind != item.kind:
            exported = f"{other.label} exports that name as a {export.kind}"
            raise LinkError(f"{unit.label} imports {item}, but {exported}")
        if item.type is not None and export.type is not None:
            _check_type(unit, item, export.type, item.name)
        if other.is_command and other is not self.units[-1]:
            key = (other.index, item.name)
            if export.type is None:
                raise LinkError(
                    f"{unit.label} imports {item} of {other.label}, which is a command: "
                    "each call of it runs in a fresh instance, so only its functions can be "
                    "imported"
                )
            if key not in self.commands:
                check_passable(unit, item, export.type)
                self.commands[key] = command_function(other, item.name, export.type)
            return self.commands[key]
        if other is unit or other in self.path:
            circle = " → ".join(
                f"`{truncate(u.name)}`" for u in [*self.path[self.path.index(other) :], other]
            )
            if export.type is None:
                raise LinkError(
                    f"modules import each other in a circle, {circle}, and what is imported "
                    f"there is a {item.kind} "
                    f"(`{truncate(item.name)}`): only functions can be linked in a circle"
                )
            check_passable(unit, item, export.type)
            return trampoline(other, item.name, export.type, circle)
        return other.index, item.name


def _check_type(unit: Unit, item: Item, offered: FunctionType, source: S) -> S:
    if item.type != offered:
        raise LinkError(
            f"{unit.label} imports "
            f"`{truncate(item.module)}.{truncate(item.name)}` as a function {item.type}, "
            f"but what is offered is {offered}"
        )
    return source


def is_pre_1_0_import(item: Item) -> bool:
    """Return whether the import is of the contract before Extism 1.0.

    `env.extism_alloc`, for example, is `extism:host/env.alloc` now.
    """
    return item.module == "env" and item.name.startswith("extism_")


_GRANT_WASI = "pass `wasi=True`"
_PROVIDE_IMPORT = "pass a host function of that name in that namespace, or add a module"
"""Hints of `MissingImportError`. `cli.terminal` has what to type instead."""


def _missing(unit: Unit, item: Item, wasi: bool) -> MissingImportError:
    kind = f"{item.kind} {item.type}" if item.type else item.kind
    what = f"{unit.label} imports `{truncate(item.module)}.{truncate(item.name)}` ({kind})"
    if item.module == env.NAMESPACE:
        if item.kind != "function":
            return MissingImportError(
                f"{what}: a plugin can import only functions from `{env.NAMESPACE}`"
            )
        return MissingImportError(
            f"{what}, but there is no such function: the kit that the plugin was built with "
            "may be newer than this host"
        )
    if item.module.startswith("wasi_") and not wasi:
        return MissingImportError(
            f"{what}, but WASI was not granted: {_GRANT_WASI}", hint=_GRANT_WASI
        )
    if is_pre_1_0_import(item):
        return MissingImportError(
            f"{what}: the plugin was built by a kit from before Extism 1.0, which had its "
            "functions in `env`, and no host of today "
            "runs it; build it again with a current kit"
        )
    return MissingImportError(
        f"{what}, which nobody provides: {_PROVIDE_IMPORT}", hint=_PROVIDE_IMPORT
    )


def is_callable_export(item: Item) -> bool:
    """Return whether an export has a type that the plugin contract can call.

    These types are `() -> ()` and `() -> (i32)`.
    """
    return item.type is not None and not item.type.params and item.type.results in ((), ("i32",))
