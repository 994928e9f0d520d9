"""Types of Wasm functions, and what modules import and export."""

from __future__ import annotations

import ctypes
from ctypes import c_void_p

from .._platform.finalizer import Finalizable
from ..errors import truncate
from .ffi import PointerVec, lib
from .traps import EngineFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from functools import partial

    from .module import Engine
else:
    from _functools import partial  # the module `functools` takes long to import

VALUE_CODES = {"i64": 1, "i32": 0, "f64": 3, "f32": 2, "externref": 128, "funcref": 129}
"""The C API's number of each value type that can be passed through the host."""


class FunctionType:
    """The parameters and results of a Wasm function, as names of value types."""

    __module__ = "plugwasm"

    __slots__ = ("__weakref__", "_pointers", "params", "results")

    def __init__(self, params: tuple[str, ...], results: tuple[str, ...]) -> None:
        self.params: tuple[str, ...] = params
        self.results: tuple[str, ...] = results
        self._pointers: dict[Engine, _TypePointer] = {}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FunctionType) and (self.params, self.results) == (
            other.params,
            other.results,
        )

    def __hash__(self) -> int:
        return hash((self.params, self.results))

    def __reduce__(self) -> tuple[type[FunctionType], tuple[tuple[str, ...], tuple[str, ...]]]:
        return FunctionType, (self.params, self.results)

    def __repr__(self) -> str:
        return f"({', '.join(self.params)}) -> ({', '.join(self.results)})"

    def pointer(self, engine: Engine) -> c_void_p:
        """Return the library's description of the type, made on first use.

        A description is bound to the engine that it is first used with, so there is one for each.
        """
        found = self._pointers.get(engine)
        if found is None:
            found = self._pointers.setdefault(engine, _TypePointer(self))
        return found.pointer


class _TypePointer(Finalizable):
    __slots__ = ("pointer",)

    def __init__(self, type: FunctionType) -> None:
        pointer: int = lib.wasm_functype_new(
            ctypes.byref(_value_types(type.params)), ctypes.byref(_value_types(type.results))
        )
        self.__del__: Callable[[], object] = partial(lib.wasm_functype_delete, pointer)
        self.pointer: c_void_p = c_void_p(pointer)


class Item:
    """An import or export of a module: its name, its kind, and for a function its type.

    `module` is empty for exports.
    """

    __module__ = "plugwasm"

    __slots__ = ("kind", "module", "name", "type")

    def __init__(self, module: str, name: str, kind: str, type: FunctionType | None) -> None:
        self.module: str = module
        self.name: str = name
        self.kind: str = kind
        self.type: FunctionType | None = type

    def __repr__(self) -> str:
        where = (
            f"{truncate(self.module)}.{truncate(self.name)}" if self.module else truncate(self.name)
        )
        return f"{self.kind} {where}{self.type or ''}"


def _value_types(names: tuple[str, ...]) -> PointerVec:
    for name in names:
        if name not in VALUE_CODES:
            raise EngineFailure(f"a value of type {name} cannot be passed through the host")
    array = (c_void_p * max(len(names), 1))(
        *(lib.wasm_valtype_new(VALUE_CODES[name]) for name in names)
    )
    vec = PointerVec()
    # The library copies the array; `wasm_functype_new` takes the types out of the copy.
    lib.wasm_valtype_vec_new(ctypes.byref(vec), len(names), array)
    return vec
