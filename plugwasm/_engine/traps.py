"""Turn what the C API reports when something fails into exceptions of this package.

The layers above know what was being done, and turn each of these into one of `plugwasm.errors`.

Decisions: docs/decisions.md, 20.
"""

from __future__ import annotations

import ctypes

from ..errors import truncate
from .ffi import ByteVec, PointerVec, borrowed_text, lib, take_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

TRAP_NAMES = (
    "stack overflow",
    "out of bounds memory access",
    "misaligned memory access",
    "out of bounds table access",
    "call of an empty table entry",
    "indirect call with a wrong type",
    "integer overflow",
    "integer division by zero",
    "invalid conversion to integer",
    "unreachable",
    "interrupt",
    "out of fuel",
    "atomic wait on a memory that is not shared",
    "null reference",
    "out of bounds array access",
    "object too large",
    "cast to a wrong type",
)
"""Names of the engine's trap codes, in their order."""

KERNEL_NAME = "extism:host/env"
"""The name of the kernel module. Its frames are left out of backtraces."""

ArgumentError = ctypes.ArgumentError
"""The exception that ctypes raises for a `RecursionError` while it converts an argument, at the end
of Python's own C stack.
"""


def is_recursion_error(error: BaseException) -> bool:
    """Return whether the error says that Python's stack is exhausted."""
    return isinstance(error, RecursionError) or (
        isinstance(error, ArgumentError) and "RecursionError" in str(error)
    )


_UNKNOWN = ctypes.c_size_t(-1).value

MAX_NAME = 200
"""Characters of a function's or a module's name that are shown in a frame."""

MAX_SHOWN_BYTES = 1000
"""Bytes of a name that are looked at. Longer ones are cut off."""

MAX_REFERENCES = 12
"""The most back references in a mangled name. Names with more are shown as they are."""

UNKNOWN_MESSAGE = "the engine could not tell why"

OUT_OF_FUEL = TRAP_NAMES[11]
STACK_OVERFLOW = TRAP_NAMES[0]
UNREACHABLE = TRAP_NAMES[9]
OUT_OF_BOUNDS = TRAP_NAMES[1]


class EngineFailure(Exception):
    """The engine refused, or the guest failed: a message, and the Wasm frames, innermost first."""

    def __init__(self, message: str, frames: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.frames = frames


class Trap(EngineFailure):
    """The guest trapped. The message is a member of `TRAP_NAMES`."""


class HostRaised(EngineFailure):
    """A host callback raised `exception`."""

    def __init__(self, exception: BaseException, frames: tuple[str, ...]) -> None:
        super().__init__("a host callback raised", frames)
        self.exception = exception


def take_error(pointer: int) -> EngineFailure:
    """Return the failure that a `wasmtime_error_t` describes, and free it."""
    message, frames = _read_message_and_frames(
        lib.wasmtime_error_message, lib.wasmtime_error_wasm_trace, pointer
    )
    lib.wasmtime_error_delete(pointer)
    return EngineFailure(message, frames)


def take_trap(pointer: int) -> EngineFailure:
    """Return the failure that a `wasm_trap_t` describes, and free it."""
    message, frames = _read_message_and_frames(lib.wasm_trap_message, lib.wasm_trap_trace, pointer)
    code = ctypes.c_uint8()
    known = lib.wasmtime_trap_code(pointer, ctypes.byref(code))
    lib.wasm_trap_delete(pointer)
    if known:
        return Trap(
            TRAP_NAMES[code.value] if code.value < len(TRAP_NAMES) else f"trap {code.value}", frames
        )
    return EngineFailure(message, frames)


def _read_message(get: Any, pointer: int) -> str:
    vec = ByteVec()
    get(pointer, ctypes.byref(vec))
    return take_bytes(vec).decode("utf-8", "replace").rstrip("\0")


def _read_message_and_frames(text: Any, trace: Any, pointer: int) -> tuple[str, tuple[str, ...]]:
    """Return the message and the frames.

    The engine writes a backtrace into its message and demangles the names in it. Some hundred bytes
    of a C++ name can stand for more text than there is memory. So the message is asked for only
    where no name in the backtrace can do that.
    """
    vec = PointerVec()
    trace(pointer, ctypes.byref(vec))
    names = [
        borrowed_text(lib.wasmtime_frame_func_name(vec.data[i]), MAX_SHOWN_BYTES)
        for i in range(vec.size)
    ]
    modules = [
        borrowed_text(lib.wasmtime_frame_module_name(vec.data[i]), MAX_SHOWN_BYTES)
        for i in range(vec.size)
    ]
    harmless = all(_demangles_briefly(name) for name in names + modules if name)
    message = _read_message(text, pointer) if harmless else UNKNOWN_MESSAGE
    frames = []
    for i, (name, module) in enumerate(zip(names, modules, strict=True)):
        if module == KERNEL_NAME:
            continue
        frame = vec.data[i]
        if not name:
            name = f"function {lib.wasm_frame_func_index(frame)}"
        elif name.startswith(("_Z", "_R")):
            name = _find_demangled(message, i) or name
        offset = lib.wasm_frame_module_offset(frame)
        where = (
            truncate(name, MAX_NAME)
            if offset == _UNKNOWN
            else f"{truncate(name, MAX_NAME)} @ {offset:#x}"
        )
        frames.append(f"{truncate(module, MAX_NAME)}!{where}" if module else where)
    lib.wasm_frame_vec_delete(ctypes.byref(vec))
    # The backtrace has the guest's own names, of any length.
    if message.startswith("error while executing at wasm backtrace:"):
        message = message.rpartition("Caused by:\n")[2].strip()
    return message, tuple(frames)


def _demangles_briefly(name: str) -> bool:
    """Return whether the demangled name is of bounded length.

    With r back references it is at most 3^(r/3) times as long.
    """
    if len(name) >= MAX_SHOWN_BYTES or not name.startswith("_"):
        return len(name) < MAX_SHOWN_BYTES
    import re

    return len(re.findall("[ST][0-9A-Z]*_", name)) <= MAX_REFERENCES


def _find_demangled(message: str, index: int) -> str | None:
    """Return the demangled name in line `index` of the backtrace that the engine prints."""
    for line in message.splitlines():
        number, _, rest = line.strip().partition(": ")
        if number == str(index) and rest.lstrip().startswith("0x"):
            return strip_rust_hash(rest.partition(" - ")[2].partition("!")[2])
    return None


def strip_rust_hash(name: str) -> str:
    """Return a demangled name without the hash that Rust appends."""
    head, _, last = name.rpartition("::")
    return head if len(last) == 17 and last[0] == "h" else name
