"""Compiled modules and engines of the process; the only place where modules are compiled.

A compiled module is kept in three places: by its users, in this process (the last few modules), and
on disk. A module that has a user is found by its bytes; of the others the process keeps no more
than `KEPT_MODULES` and `KEPT_BYTES`.

The state of this module belongs to the process as a whole: its engines, the modules with users, and
those that it keeps.
"""

from __future__ import annotations

import os

from .._engine import (
    DEFAULT_STACK,
    ArgumentError,
    Engine,
    EngineFailure,
    Module,
    benefits_from_images,
    can_pool,
    library_version,
    may_use_signals,
    strip_long_names,
    truncate,
    wat_to_wasm,
)
from .._host.deadline import ticker
from .._host.kernel import read_source
from .._platform import fork
from .._platform.finalizer import WeakValues
from .._platform.native_threads import RLock
from ..errors import ModuleError
from . import code_cache, inlining
from .compiler import CompileBudget, compile_within, pack_facts, unpack_facts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from .._manifest.limits import Limits

__all__ = [
    "CompileBudget",
    "TooLargeForPool",
    "compile_kernel",
    "compile_module",
    "disable_inlining",
    "drop_unused",
    "engine_for_modules",
    "find_original_offsets",
    "get_engine",
    "keep_with_module",
]

_OF_GC = ("gc support is not enabled", "without the gc feature", "`gc` proposal", "gc proposal")

KEPT_MODULES = 32
KEPT_BYTES = 16 * 2**20
"""The most modules without users that a process keeps, and the most bytes of these with code."""

_engines: dict[tuple[bool, int, bool, bool, bool, bool, bool], Engine] = {}
_settings: dict[tuple[Engine, bool], bytes] = {}
_seen: WeakValues[tuple[Engine, bytes, bool], Module] = WeakValues()
_kept: list[tuple[int, Module, object]] = []
"""Modules without users, with their bytes, and what is kept with each."""
_inliner: Module | None = None
_inlines = True
_features: str | None = None
_lock = RLock()


class TooLargeForPool(Exception):
    """The module is larger than what a pooled engine holds."""


def engine_for_modules(
    modules: Iterable[bytes], limits: Limits, *, fuel: bool = False, pooled: bool = False
) -> Engine:
    """Return the engine for all modules of a plugin together."""
    images = any(map(benefits_from_images, modules))
    return get_engine(
        fuel=fuel,
        pooled=pooled,
        stack_bytes=limits.stack_bytes,
        images=images,
        gc=limits.gc,
        atomics=limits.atomics,
    )


def get_engine(
    *,
    fuel: bool = False,
    pooled: bool = True,
    stack_bytes: int = DEFAULT_STACK,
    images: bool = False,
    gc: bool = False,
    atomics: bool = False,
    signals: bool | None = None,
) -> Engine:
    """Return the engine of this process with these properties; by default it relies on signals if
    the process may.

    Where there can be no pool, and with fuel, GC or another stack, it has none.
    """
    if signals is None:
        signals = may_use_signals()
    key = (fuel, stack_bytes, images, gc, atomics, signals, pooled)
    found = _engines.get(key)
    if found is None:
        with _lock:
            found = _engines.get(key)
            if found is None:
                settings: dict[str, Any] = dict(
                    zip(
                        ("fuel", "stack_bytes", "images", "gc", "atomics", "signals"),
                        key,
                        strict=False,
                    )
                )
                if pooled and (fuel or gc or stack_bytes != DEFAULT_STACK or not can_pool()):
                    found = get_engine(pooled=False, **settings)
                else:
                    found = Engine(pooled=pooled, **settings)
                    ticker.engines.append(found)
                found = _engines.setdefault(
                    key, found
                )  # in the meantime a signal handler may have made one
    return found


def compile_module(
    wasm: bytes,
    engine: Engine,
    name: str = "module",
    budget: CompileBudget | None = None,
    *,
    inline: bool = False,
) -> Module:
    """Return the compiled module for Wasm bytes or WAT text.

    Without a budget, compiling may take any time and memory. With `inline`, functions of the kernel
    are inlined if that is possible (`Module.is_inlined`).

    Raises:
        ModuleError: It is not valid, or is beyond the budget.
        TooLargeForPool: The engine is pooled, and the module too large for that.
    """
    inline = inline and _inlines
    key = (engine, wasm, inline)
    module = _seen.get(key)
    if module is None:
        module = _compile(engine, wasm, name, budget, inline)
        _seen[key] = module
        _keep(len(wasm) + module.resident_bytes, module)
    if budget is not None and not engine.pooled:  # the pool's copy was allowed with the first
        budget.add_code(module, name)
    return module


def take_compiled(wasm: bytes, engine: Engine, code: bytes, facts: bytes) -> None:
    """Take code that another process of this application has compiled of these bytes, unless it did
    so with other settings.

    Args:
        code: What `Module.serialize` returned. It is machine code.
        facts: What `pack_facts` returned.
    """
    try:
        module = engine.load(code).with_facts(unpack_facts(facts))
    except EngineFailure:
        return
    _seen[engine, wasm, False] = module
    _keep(len(wasm) + module.resident_bytes, module)


def compile_kernel(engine: Engine) -> Module:
    """Return the compiled kernel, which each plugin has an instance of."""
    return compile_module(read_source(), engine, "kernel")


def _keep(size: int, module: Module) -> None:
    if size > KEPT_BYTES:
        return
    with _lock:  # reentrant: what a signal handler adds in between leaves a list of the same kind
        _kept.append((size, module, None))
        while len(_kept) > KEPT_MODULES or sum(size for size, _, _ in _kept) > KEPT_BYTES:
            del _kept[0]


def keep_with_module(module: Module, made: object) -> None:
    """Keep something that was made of a module as long as the module is kept for later users."""
    with _lock:
        for i, (size, kept, _) in enumerate(_kept):
            if kept is module:
                _kept[i] = size, module, made
                return


def drop_unused() -> None:
    """Drop the modules that have no user, so that they are loaded from disk again."""
    with _lock:
        _kept.clear()


def _after_fork_in_child() -> None:
    # Some other thread, which the child does not have, may have held it.
    global _lock
    _lock = RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
fork.register()


def _compile(
    target: Engine, wasm: bytes, name: str, budget: CompileBudget | None, inline: bool
) -> Module:
    if target.pooled:
        settings: dict[str, Any] = target.features
        unpooled = get_engine(pooled=False, **settings)
        module = compile_module(wasm, unpooled, name, budget, inline=inline)
        try:
            return target.load(module.serialize(), module).with_facts(module.facts)
        except EngineFailure as failure:
            raise TooLargeForPool(failure.message) from None
    if budget is None:
        return _compile_or_load(target, wasm, name, None, inline)
    with budget.charge_time(name):
        return _compile_or_load(target, wasm, name, budget, inline)


def _compile_or_load(
    target: Engine, wasm: bytes, name: str, budget: CompileBudget | None, inline: bool
) -> Module:
    settings = _cached_as(target, inline) if code_cache.directory() else None
    if settings and (found := _from_cache(target, settings, wasm, inline)) is not None:
        return found
    try:
        module = compile_within(
            budget,
            target,
            wasm,
            name,
            _inline if inline else _leave,
            lambda: compile_kernel(target),
        )
    except EngineFailure as failure:
        reason = _reason(failure.message)
        raise ModuleError(
            f"module `{truncate(name)}` is no valid WebAssembly module: "
            f"{reason}{_hint(target, reason)}"
        ) from None
    if settings:
        code_cache.store(settings, wasm, module.serialize(), pack_facts(module.facts))
    return module


def disable_inlining() -> None:
    """Use all modules as they are, from now on."""
    global _inlines
    _inlines = False


def _load_inliner() -> Module:
    """Return the module that inlines functions of the kernel into others."""
    global _inliner
    module = _inliner
    if module is None:
        source = inlining.read_source()
        # It reads whatever it is given, so its traps must not depend on signals.
        engine = get_engine(pooled=False, signals=False)
        module = _inliner = compile_module(source, engine, "inliner")
    return module


def _inline(wasm: bytes) -> bytes | None:
    return inlining.inline(_load_inliner(), wasm) if inlining.may_inline(wasm) else None


def find_original_offsets(wasm: bytes, offsets: Iterable[int]) -> dict[int, int]:
    """Return where the instructions at these offsets of an inlined module are in the original, as
    far as that can be found.
    """
    if _inliner is None and not get_engine(pooled=False).stack.has_room():
        return {}
    if not wasm.startswith(b"\0asm"):
        wasm = wat_to_wasm(wasm)
    try:
        return inlining.find_original_offsets(_load_inliner(), strip_long_names(wasm), offsets)
    except (EngineFailure, RecursionError, ArgumentError):
        return {}


def _leave(wasm: bytes) -> None:
    """Inline nothing."""


def _from_cache(target: Engine, settings: bytes, wasm: bytes, inline: bool) -> Module | None:
    entry = code_cache.load(settings, wasm)
    if entry is None:
        return None
    # Whether a module could be inlined may depend on the engine; only an original is always alike.
    like = None if inline else _find_alike(wasm)
    with entry:
        try:
            if entry.code is None:
                module = target.load_file(entry.path, like, trailing=entry.trailing)
            else:
                module = target.load(entry.code, like)
        except EngineFailure:
            return None  # made by another engine of the same settings: compile it again
        return module.with_facts(unpack_facts(entry.note))  # which the engine does not tell


def _find_alike(wasm: bytes) -> Module | None:
    """Return the module as it was compiled for any engine: the kernel, if there is another one."""
    for engine in list(_engines.values()):
        found = _seen.get((engine, wasm, False))
        if found is not None:
            return found
    return None


def _hint(engine: Engine, reason: str) -> str:
    """Return how an application could allow the feature that the module was rejected for."""
    if not engine.settings["gc"] and any(words in reason for words in _OF_GC):
        return "; an application can allow objects of the garbage collector: `Limits(gc=True)`"
    if not engine.settings["atomics"] and "threads support is not enabled" in reason:
        return "; an application can allow atomic instructions: `Limits(atomics=True)`"
    return ""


def _reason(message: str) -> str:
    """Return the engine's chain of causes in one line, without its own headline."""
    lines = [truncate(line.rstrip()) for line in message.splitlines()]
    if any(line.lstrip().startswith("-->") for line in lines):
        return "\n".join(lines).strip()
    lines = [line.strip() for line in lines]
    lines = [
        line
        for line in lines
        if line and line not in ("Caused by:", "failed to parse WebAssembly module")
    ]
    return ": ".join(
        line.split(": ", 1)[1] if line[:1].isdigit() and ": " in line else line for line in lines
    )


def _cached_as(engine: Engine, inline: bool) -> bytes:
    """Return all that code depends on besides the module."""
    settings = _settings.get((engine, inline))
    if settings is None:
        transformation = inlining.VERSION if inline else "none"
        settings = _settings[engine, inline] = (
            f"{library_version()};{_cpu()};{engine.key};{transformation}".encode()
        )
    return settings


def _cpu() -> str:
    """Return the processor's features as the system lists them: compiled code may use all."""
    global _features
    if _features is None:
        _features = os.uname().machine
        try:
            with open("/proc/cpuinfo", "rb") as file:
                for line in file:
                    if line.startswith((b"flags", b"Features")):
                        _features += line.decode("latin-1")
                        break
        except OSError:
            pass
    return _features
