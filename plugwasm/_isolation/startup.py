"""Start the worker of a plugin: confine it, and let it load the modules."""

from __future__ import annotations

import os
from time import monotonic

from .._host.deadline import NEVER
from .._manifest.files import format_path, make_absolute
from .._runtime.compiler import pack_facts
from .._runtime.modules import compile_module, engine_for_modules
from .._wasi.options import Clock, WasiOptions
from ..errors import ModuleError, OptionError, WorkerError, truncate
from . import protocol
from .process import Worker, WorkerLost
from .remote_guest import MAX_MEMORY
from .worker_errors import rebuild_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._manifest.limits import ProcessLimits
    from .._runtime.compiled_plugin import CompiledPlugin
    from .remote_guest import ExposedFunction

__all__ = ["start_worker"]


def start_worker(
    compiled: CompiledPlugin,
    process: ProcessLimits,
    types: list[protocol.HostFunctionType],
    exposed: Sequence[ExposedFunction],
) -> tuple[Worker, protocol.Confined, protocol.Loaded]:
    """Return a worker that has loaded a plugin, and its reports. One that fails is ended.

    Args:
        compiled: The modules and the settings.
        process: Limits of the process.
        types, exposed: The host functions that it may ask for, as types and as they run here.

    Raises:
        WorkerError: It could not be started, or ended.
        ModuleError: It takes too long to compile.
        OptionError: A setting cannot be sent.
        Error: As `CompiledPlugin`.
    """
    name = compiled.name
    limits = compiled.limits
    try:
        worker = Worker(process.python, _bounds(compiled, exposed))
    except OSError as error:
        raise WorkerError(
            f"plugin `{name}`: no process can be started for it: {error}", plugin=name
        ) from error
    worker.deadline = monotonic() + process.start_seconds
    confined: object = None
    loaded: object = None
    try:
        paths = make_absolute(compiled._spec.allowed_paths) if compiled.wasi else {}
        kept = [(path.removeprefix("ro:"), path.startswith("ro:")) for path in paths]
        fuel = compiled.fuel_limit is not None
        worker.send(
            protocol.Confine(
                process.memory_bytes,
                limits.descriptors,
                process.user,
                kept,
                limits.memories,
                limits.stack_bytes,
                fuel,
            )
        )
        worker.send(_load_message(compiled, paths, types))
        confined = worker.receive(worker.bounds.start)
        seconds = limits.compile_seconds
        worker.deadline = NEVER if seconds is None else monotonic() + seconds
        loaded = worker.receive(worker.bounds.load)
        if type(loaded) is protocol.Failed:
            raise rebuild_error(loaded, worker)
        if type(confined) is not protocol.Confined or type(loaded) is not protocol.Loaded:
            raise worker.protocol_violation(
                f"`{type(confined).__name__}` and `{type(loaded).__name__}` at its start"
            )
    except UnicodeEncodeError as error:
        what = (
            f"{truncate(error.object)!r} cannot be said to its process, for it is not UTF-8 "
            "(lone surrogates)"
        )
        raise OptionError(f"plugin `{name}`: {what}", plugin=name) from None
    except WorkerLost as lost:
        if lost.kind == "overdue":
            if confined is not None:
                allowed = f"the {limits.compile_seconds:g} seconds of `Limits.compile_seconds`"
                raise ModuleError(
                    f"plugin `{name}` takes longer to compile than {allowed}",
                    plugin=name,
                ) from None
            hint = (
                f"did not start within {process.start_seconds} s "
                "(`ProcessLimits.start_seconds`), and was killed"
            )
            raise WorkerError(f"plugin `{name}`: its process {hint}", plugin=name) from None
        raise WorkerError(f"plugin `{name}`: its process {lost.message}", plugin=name) from None
    finally:
        if type(loaded) is not protocol.Loaded:
            worker.end()
    worker.deadline = NEVER
    return worker, confined, loaded


def _bounds(compiled: CompiledPlugin, exposed: Sequence[ExposedFunction]) -> protocol.Bounds:

    return protocol.Bounds(
        compiled.limits.memory_bytes or MAX_MEMORY,
        sum(len(module.wasm) for module in compiled._spec.modules),
        max(len(function.handles) for function in exposed),
    )


def _compile_own(compiled: CompiledPlugin) -> dict[str, tuple[bytes, bytes]]:
    """Compile the modules of a plugin that are code of plugwasm, and that each worker would take
    seconds for. Nothing of the plugin itself is compiled in this process.
    """
    spec = compiled._spec
    own = [module for module in spec.modules if module.is_own]
    if not own:
        return {}
    engine = engine_for_modules(
        (module.wasm for module in spec.modules),
        compiled.limits,
        fuel=compiled.fuel_limit is not None,
    )
    made = [(module.name, compile_module(module.wasm, engine, module.name)) for module in own]
    return {name: (module.serialize(), pack_facts(module.facts)) for name, module in made}


def _load_message(
    compiled: CompiledPlugin, paths: dict[str, str], types: list[protocol.HostFunctionType]
) -> protocol.Load:

    spec, limits, options = (
        compiled._spec,
        compiled.limits,
        compiled._grants.wasi or WasiOptions(),
    )
    return protocol.Load(
        modules=[(module.name, module.wasm, format_path(module.origin)) for module in spec.modules],
        compiled=_compile_own(compiled),
        main=spec.main,
        name=compiled.name,
        allowed_paths=paths,
        timeout_ms=spec.timeout_ms,
        limits={name: getattr(limits, name) for name in limits.__slots__},
        wasi=bool(compiled.wasi),
        clock_resolution=options.clock.resolution,
        own_clock=type(options.clock) is Clock,
        own_random=options.random is os.urandom,
        fuel_limit=compiled.fuel_limit,
        functions=types,
    )
