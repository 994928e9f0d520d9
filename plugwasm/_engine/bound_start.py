"""The engine's calls that start an instance, bound to their arguments.

An instance of a plugin of one module takes some twenty calls of the engine: a store, the kernel,
the kernel's exports and the host functions that the module imports, the module. Their arguments are
the same for each instance, or addresses that an earlier one of these calls returns. So they are
bound once, to memory that the calls share, and that the next start uses again.

Decisions: docs/decisions.md, 52.
"""

from __future__ import annotations

from ctypes import addressof, c_uint64, c_void_p

from .callbacks import HostFunction, check_recursion_depth, take_failure
from .ffi import (
    EXTERN_SIZE,
    INSTANCE_SIZE,
    constant_pointer,
    constant_size,
    get_export,
    limit_store,
    memory_data,
    new_host_function,
    new_instance,
    new_instance_unlocked,
)
from .functions import BoundFunction, CallBlocks
from .store import Instance, LinearMemory, Store, StoreBinding
from .traps import EngineFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from functools import partial
    from typing import Any

    from .callbacks import Environment, PendingException
    from .module import Engine, Module
    from .store import ExportName, StoreLimits
else:
    from _functools import partial  # the module `functools` takes long to import

_WORDS = EXTERN_SIZE // 8


class BoundStart(StoreBinding):
    """What starts one instance at a time of a module beside the kernel.

    Call its methods, each once, in the order in which they are defined. Then another start may use
    it; after an error, none may.

    Args:
        engine: The engine of both modules.
        limits: What the store may hold.
        kernel, kernel_import: The kernel, and its only import.
        heap: The name of its memory.
        module: The module.
        sources: For each of its imports, an export of the kernel or a host function.
        start_functions: Exports of the module to run at the start.
    """

    __slots__ = (
        "_exports",
        "_find_heap",
        "_handles",
        "_heap",
        "_held",
        "_limit",
        "_make_import",
        "_memory",
        "_new_kernel",
        "_new_module",
        "_start_functions",
        "_trap",
    )

    def __init__(
        self,
        engine: Engine,
        limits: StoreLimits,
        kernel: Module,
        kernel_import: HostFunction,
        heap: ExportName,
        module: Module,
        sources: Sequence[ExportName | HostFunction],
        start_functions: Sequence[ExportName],
    ) -> None:
        super().__init__(engine)
        # The module's imports; the kernel's import and its memory; both instances; a trap.
        count = len(sources)
        self._memory: Any = (c_uint64 * ((count + 2) * _WORDS + 5))()
        address = addressof(self._memory)
        kernel_item, heap_item = address + count * EXTERN_SIZE, address + (count + 1) * EXTERN_SIZE
        kernel_handle = heap_item + EXTERN_SIZE
        module_handle = kernel_handle + INSTANCE_SIZE
        view = memoryview(self._memory).cast("B")
        start = kernel_handle - address
        self._handles = view[start : start + INSTANCE_SIZE], view[start + INSTANCE_SIZE : -8]
        self._heap = view[heap_item - address + 8 : start]
        self._trap = view[-8:].cast("Q")
        trap = constant_pointer(module_handle + INSTANCE_SIZE)
        self._held: tuple[object, ...] = (kernel_import, kernel, module, *sources)
        """What the stores need, which hold this."""
        self._limit = partial(limit_store, self.pointer, *limits.arguments)
        self._make_import = self._import(kernel_import, kernel_item)
        self._new_kernel = _instantiation(kernel, self.context, kernel_item, 1, kernel_handle, trap)
        self._new_module = _instantiation(module, self.context, address, count, module_handle, trap)
        self._exports = [
            self._import(source, address + i * EXTERN_SIZE)
            if isinstance(source, HostFunction)
            else self._export(kernel_handle, source, address + i * EXTERN_SIZE)
            for i, source in enumerate(sources)
        ]
        self._exports.append(self._export(kernel_handle, heap, heap_item))
        self._find_heap = partial(memory_data, self.context, constant_pointer(heap_item + 8))
        blocks = CallBlocks(2, len(start_functions))
        self._start_functions = [
            (self._export(module_handle, name, block.address), BoundFunction(block, self.context))
            for name, block in ((name, blocks.take()) for name in start_functions)
        ]

    def _import(self, function: HostFunction, item: int) -> Callable[[], bool | None]:
        return partial(
            new_host_function,
            self.context,
            function.type.pointer(self.engine),
            function.callback,
            self.environment,
            None,
            constant_pointer(item + 8),
        )

    def _export(self, handle: int, name: ExportName, item: int) -> Callable[[], bool | None]:
        return partial(
            get_export,
            self.context,
            constant_pointer(handle),
            name.encoded,
            name.length,
            constant_pointer(item),
        )

    def open(self, environment: Environment) -> Store:
        """Make a store for the instances."""
        store = Store(self.engine, environment, self)
        self._limit()
        return store

    def start_kernel(
        self, store: Store, pending: PendingException
    ) -> tuple[Instance, LinearMemory]:
        """Make an instance of the kernel in the store that was opened.

        Returns:
            The instance and its memory.
        """
        self._make_import()
        self._instantiate(self._new_kernel, pending)
        for find in self._exports:
            if find() is False:
                raise EngineFailure("the kernel lacks an export")
        return (
            Instance(store, self._handles[0].tobytes()),
            LinearMemory(store, self._heap.tobytes(), self._find_heap()),
        )

    def start_module(self, store: Store, pending: PendingException) -> Instance:
        """Make an instance of the module in that store."""
        self._instantiate(self._new_module, pending)
        return Instance(store, self._handles[1].tobytes())

    def run_start_functions(self, pending: PendingException) -> None:
        """Run what the module has to run before its first call."""
        for find, function in self._start_functions:
            if not find():
                raise EngineFailure("the module lacks an export")
            function.call(pending)

    def _instantiate(self, new: Callable[[], int | None], pending: PendingException) -> None:
        check_recursion_depth()
        error = new()
        if error or self._trap[0]:
            raise take_failure(error, self._trap[0], pending)


def _instantiation(
    module: Module, context: c_void_p, imports: int, count: int, handle: int, trap: Any
) -> Callable[[], int | None]:
    return partial(
        new_instance_unlocked if module.has_start else new_instance,
        context,
        constant_pointer(module.pointer),
        constant_pointer(imports),
        constant_size(count),
        constant_pointer(handle),
        trap,
    )
