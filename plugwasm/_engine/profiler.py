"""The engine's profiler of guests: stacks that are taken while a guest is in its epoch callback."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, Structure, c_void_p

from .._platform.finalizer import Finalizable
from .ffi import ByteVec, lib, take_bytes
from .traps import take_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from functools import partial

    from .module import Engine, Module
    from .store import Store
else:
    from _functools import partial  # the module `functools` takes long to import


class _NamedModule(Structure):
    """`wasmtime_guestprofiler_modules_t`."""

    _fields_ = (("name", POINTER(ByteVec)), ("module", c_void_p))


class GuestProfiler(Finalizable):
    """Stacks of guests of one engine, as far as they run in the given modules. Other frames are
    left out.

    `sample` may be called only by `Environment.on_epoch`, for the store that called it. Not safe to
    use from two threads at once.
    """

    __slots__ = ("_pointer",)

    def __init__(
        self, engine: Engine, name: str, interval: float, modules: Sequence[tuple[str, Module]]
    ) -> None:
        if any(module.engine is not engine for _, module in modules):
            # The engine would end the process.
            raise ValueError("the modules of a profile must belong to its engine")
        texts = [_utf8(text) for text, _ in modules]
        named = (_NamedModule * len(modules))(
            *(
                _NamedModule(ctypes.pointer(_view(text)), module.pointer)
                for text, (_, module) in zip(texts, modules, strict=True)
            )
        )
        title = _utf8(name)
        self._pointer: int | None = lib.wasmtime_guestprofiler_new(
            engine.pointer,
            ctypes.byref(_view(title)),
            int(interval * 1e9),
            ctypes.addressof(named),
            len(modules),
        )
        self.__del__: Callable[[], object] = partial(
            lib.wasmtime_guestprofiler_delete, self._pointer
        )

    def sample(self, store: Store, seconds: float) -> None:
        """Add the stack of the guest that runs now, and how much of its time it stands for."""
        if self._pointer is None:
            raise ValueError("the profile is finished")
        lib.wasmtime_guestprofiler_sample(self._pointer, store.pointer, int(seconds * 1e9))

    def finish(self) -> bytes:
        """Return the profile in the Firefox Profiler's processed format (JSON). Call it once."""
        pointer, self._pointer = self._pointer, None
        if pointer is None:
            raise ValueError("the profile is finished")
        del self.__del__
        vec = ByteVec()
        if error := lib.wasmtime_guestprofiler_finish(pointer, ctypes.byref(vec)):
            raise take_error(error)
        return take_bytes(vec)

    def __reduce__(self) -> str:
        raise TypeError("a profiler cannot be copied or pickled")  # two objects would free it


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "replace")  # the engine ends the process for anything else


def _view(data: bytes) -> ByteVec:
    """Return a view of the bytes, which must outlive it."""
    return ByteVec(len(data), ctypes.cast(ctypes.c_char_p(data), c_void_p))
