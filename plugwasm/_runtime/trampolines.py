"""Host functions that stand for something else: an export of a module, or a function of WASI.

What passes through them passes between two stores, or through a circle of imports, so it can only
be numbers (i32, i64, f32, f64): a reference would be an address in a store that is gone.

Decisions: docs/decisions.md, 34.
"""

from __future__ import annotations

from .._engine import (
    EngineFailure,
    ExportName,
    FunctionType,
    HostFunction,
    check_recursion_depth_to_start,
    truncate,
)
from .._host.guest import PluginExit
from .._host.kernel_requests import GROWING_CODE
from ..errors import LinkError
from .units import has_heap, instantiate_unit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType
    from typing import Any

    from .._engine import Instance, Item
    from .._host.guest import Guest
    from .units import Source, Unit

__all__ = [
    "WASI",
    "NestedFailure",
    "check_passable",
    "command_function",
    "import_across_stores",
    "is_builtin_wasi",
    "trampoline",
    "trampoline_code",
    "wasi_function",
]

WASI = "wasi_snapshot_preview1"
"""The module name of WASI preview 1."""

_PASSABLE = frozenset(("i32", "i64", "f32", "f64"))


def check_passable(unit: Unit, item: Item, type: FunctionType) -> None:
    """Check that the host can pass on values of these types.

    Raises:
        LinkError: It cannot.
    """
    if not _PASSABLE.issuperset(type.params + type.results):
        raise LinkError(
            f"{unit.label} imports {item} through the host, because it "
            "belongs to a command or to a circle of modules, "
            "but the host can pass only values of type i32, i64, f32 and f64"
        )


def _call_export(
    instance: Instance, name: str, type: FunctionType, guest: Guest, values: Any
) -> None:
    slots = max(len(type.params), len(type.results))
    function = instance.function(ExportName(name), slots)
    for i in range(len(type.params)):
        function.values[2 * i] = values[2 * i] & 0xFFFFFFFFFFFFFFFF
    try:
        function.call(guest.pending)
    except EngineFailure as failure:
        raise NestedFailure(failure) from None
    for i in range(len(type.results)):
        values[2 * i] = function.values[2 * i]


class NestedFailure(Exception):
    """A failure of a guest function that a host callback called, on its way through its caller."""

    def __init__(self, failure: EngineFailure) -> None:
        super().__init__(failure)
        self.failure = failure


def trampoline(other: Unit, name: str, type: FunctionType, circle: str) -> HostFunction:
    def body(guest: Guest, caller: int, values: Any) -> None:
        instance = guest.instances.get(other.index)
        if instance is None:
            raise LinkError(
                f"modules import each other in a circle, {circle}, and `{truncate(name)}` of "
                f"`{truncate(other.name)}` is called while that "
                "is being started"
            )
        _call_export(instance, name, type, guest, values)

    return HostFunction(type, body)  # type: ignore[arg-type]


def command_function(unit: Unit, name: str, type: FunctionType) -> HostFunction:
    """Make a host function that calls a command's export in a fresh instance.

    The instance has a store of its own, so that it is freed when the call ends; its imports are
    reached through the host. A command that imports a memory, a table or a global of another module
    has to be in that module's store, where instances stay until the plugin's ends.
    """

    def body(guest: Guest, caller: int, values: Any) -> None:
        check_recursion_depth_to_start()
        if not unit.has_own_store:
            with guest.enter_store(guest.store):
                guest.charge_state(unit.module.state_bytes)
                try:
                    instance = instantiate_unit(unit, guest)
                except EngineFailure as failure:
                    raise NestedFailure(failure) from None
                _call_export(instance, name, type, guest, values)
            return
        count, total, largest = unit.module.defined_memories
        memories = count + has_heap(unit.module, guest.limits), total, largest
        store = guest.make_command_store(memories, unit.module.defined_tables)
        with guest.enter_store(store):
            try:
                imports = b"".join(
                    guest.make_import(function, store) for function in unit.own_store_imports
                )
                instance = store.instantiate(unit.module, imports, guest.pending)
            except EngineFailure as failure:
                raise NestedFailure(failure) from None
            _call_export(instance, name, type, guest, values)

    return HostFunction(type, body)  # type: ignore[arg-type]


def import_across_stores(unit: Unit, source: Source, item: Item) -> HostFunction:
    """Make a host function that stands, in the store of a command, for an import of the command.

    Raises:
        LinkError: Its values cannot pass between stores.
    """
    assert item.type is not None
    type = item.type
    check_passable(unit, item, type)
    if isinstance(source, HostFunction):
        return source

    def body(guest: Guest, caller: int, values: Any) -> None:
        with guest.enter_store(guest.store):
            if isinstance(source, str):
                _call_export(guest.kernel.instance, source, type, guest, values)
            else:
                _call_export(guest.instances[source[0]], source[1], type, guest, values)

    return HostFunction(type, body)  # type: ignore[arg-type]


_wasi_functions: dict[str, HostFunction] = {}
"""The functions of WASI, made at their first import and shared by all plugins."""


def wasi_function(name: str) -> HostFunction:
    found = _wasi_functions.get(name)
    return (
        found if found is not None else _wasi_functions.setdefault(name, _make_wasi_function(name))
    )


def _make_wasi_function(name: str) -> HostFunction:
    from .._wasi.preview1 import SIGNATURES, GuestExit

    params = SIGNATURES[name]
    masks = [0xFFFFFFFF if param == "i32" else 0xFFFFFFFFFFFFFFFF for param in params]
    results: tuple[str, ...] = () if name == "proc_exit" else ("i32",)

    def body(guest: Guest, caller: int, values: Any) -> None:
        arguments = [values[2 * i] & mask for i, mask in enumerate(masks)]
        try:
            errno = getattr(guest.wasi_state(), name)(guest.memory_of(caller), *arguments)
        except GuestExit as exit:
            raise PluginExit(exit.code) from None
        if results:
            values[0] = errno

    return HostFunction(FunctionType(params, results), body, (WASI, name))  # type: ignore[arg-type]


def is_builtin_wasi(function: HostFunction) -> bool:
    """Return whether it is a function of plugwasm's WASI, not the application's in its place."""
    return (
        function.name is not None
        and function.name[0] == WASI
        and _wasi_functions.get(function.name[1]) is function
    )


def trampoline_code() -> frozenset[CodeType]:
    """Return the code of host functions that only lead to a guest or to WASI."""
    makers: tuple[Any, ...] = (
        trampoline,
        command_function,
        import_across_stores,
        _make_wasi_function,
    )
    bodies = [
        constant
        for maker in makers
        for constant in maker.__code__.co_consts
        if hasattr(constant, "co_varnames")
    ]
    return frozenset((GROWING_CODE, *bodies))
