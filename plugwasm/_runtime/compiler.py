"""Compilation within limits: of small modules in this process, of others in a child process.

The compiler cannot be interrupted, and it ends the process when it gets no memory. A few kilobytes
of Wasm can keep it busy for minutes and take gigabytes, so untrusted modules are compiled where
neither does harm. Starting that process takes some 20 ms, once for each module, for the result is
kept.

The limits on compiling hold for a plugin as a whole, so its modules share a `CompileBudget`.

Decisions: docs/decisions.md, 28.
"""

from __future__ import annotations

import errno
import os
import sys
from _thread import get_ident
from time import monotonic, sleep

from .._engine import (
    EngineFailure,
    strip_long_names,
    wat_to_wasm,
)
from ..errors import ModuleError, truncate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .._engine import Engine, Facts, Module
    from .._manifest.limits import Limits

LIGHT_TEXT = 2**16
"""Bytes of text format below which this process itself converts a module to the binary format."""

_DONE, _REFUSED, _TOO_MUCH = b"\0", b"\1", b"\2"
_HINT = "with `Limits(compile_seconds=None)` this process compiles, without limits"
_NO_MORE = {
    errno.EMFILE: "this process has no file descriptors left (RLIMIT_NOFILE, `ulimit -n`)",
    errno.ENFILE: "the system has no file descriptors left",
    errno.EAGAIN: "this user or group may have no more processes "
    "(RLIMIT_NPROC, `ulimit -u`; pids of a cgroup)",
    errno.ENOMEM: "the system has no memory for it (RLIMIT_AS, `ulimit -v`; overcommitting)",
}
_NOTE = 28
"""Bytes of a note of facts, as in an entry of the cache."""
_LENGTH = 8
"""Bytes of the code's length, and of the module's before it.

With it half an answer is recognized, of a child whose exit code somebody else took.
"""
_CHILD = (
    "import sys; sys.path[:0] = sys.argv[1].split('\\n'); "
    "from plugwasm._runtime.compiler import compile_stdin; compile_stdin(*sys.argv[2:])"
)


class CompileBudget:
    """The time, cost and code that compiling the modules of one plugin may still take.

    For one thread.

    Invariant: however many modules there are, those that this process compiles cost no more than
    `LIGHT_COST` together. The time of all modules is bounded by `compile_seconds` (a compilation
    under way when that is over takes no longer than a light module), and their code by
    `code_bytes`. No two are compiled at once, so the memory of each, and of all, is bounded by
    `compile_bytes`.
    """

    __slots__ = ("_code", "_cost", "_limits", "_seconds")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._cost = 0
        self._seconds = limits.compile_seconds
        self._code = limits.code_bytes

    @property
    def memory(self) -> int | None:
        """Bytes of memory that a compiling process may take."""
        return self._limits.compile_bytes

    @property
    def code(self) -> int:
        """Bytes of code that may still be added."""
        return self._code

    @property
    def is_timed(self) -> bool:
        """Whether there is a limit of time; if not, this process compiles."""
        return self._seconds is not None

    def seconds(self, name: str) -> float | None:
        """Return the seconds left for a module, None for no limit.

        Raises:
            ModuleError: Nothing is left.
        """
        if self._seconds is not None and self._seconds <= 0:
            raise ModuleError(
                f"module `{truncate(name)}` is not compiled, because the modules of the "
                "plugin before it took "
                f"the {self._limits.compile_seconds:g} seconds of `Limits.compile_seconds`",
                limit="compile_seconds",
            )
        return self._seconds

    def charge_time(self, name: str) -> _ChargedTime:
        """Charge the time that passes in a `with` block to the budget.

        Raises:
            ModuleError: Nothing is left.
        """
        self.seconds(name)
        return _ChargedTime(self)

    def refund_time(self, seconds: float) -> None:
        """Return time to the budget that passed while the module waited for others."""
        if self._seconds is not None:
            self._seconds += seconds

    def admits(self, wasm: bytes, target: Engine) -> bool:
        """Return whether this process may compile the module; if so, charge its cost to the budget.

        A module that may have an image is not light.
        """
        from .._engine.compile_cost import LIGHT_COST, estimate_cost, may_have_image

        cost = self._cost + estimate_cost(wasm)
        if cost > LIGHT_COST or (target.images and may_have_image(wasm)):
            return False
        self._cost = cost
        return True

    def add_code(self, module: Module, name: str) -> None:
        """Charge the module's code to the budget.

        Raises:
            ModuleError: Not enough is left.
        """
        self._code -= module.resident_bytes
        if self._code < 0:
            raise self.too_much_code(name)

    def too_much_code(self, name: str) -> ModuleError:
        return ModuleError(
            f"module `{truncate(name)}`: the compiled code of the plugin is more than the "
            f"{self._limits.code_bytes} bytes of "
            "`Limits.code_bytes`"
        )

    def too_slow(self, name: str) -> ModuleError:
        whole = self._limits.compile_seconds
        if whole is None or self._seconds is None or self._seconds >= whole:
            given = f"the {whole:g} seconds of `Limits.compile_seconds`"
        else:
            given = (
                f"the {self._seconds:.3g} seconds that other modules of the plugin left of "
                f"`Limits.compile_seconds` ({whole:g})"
            )
        return ModuleError(
            f"module `{truncate(name)}` takes longer to compile than {given}",
            limit="compile_seconds",
        )


class _ChargedTime:
    """The context of `CompileBudget.charge_time`."""

    __slots__ = ("_begin", "_budget")

    def __init__(self, budget: CompileBudget) -> None:
        self._budget = budget

    def __enter__(self) -> None:
        self._begin = monotonic()

    def __exit__(self, *raised: object) -> None:
        self._budget.refund_time(self._begin - monotonic())


def compile_within(
    budget: CompileBudget | None,
    target: Engine,
    wasm: bytes,
    name: str,
    inline: Callable[[bytes], bytes | None],
    meanwhile: Callable[[], object] = int,
) -> Module:
    """Compile Wasm bytes or text.

    Another process that compiles takes a while to start; this one calls `meanwhile` in that time.

    Without a budget, or if its `compile_seconds` is None, this process compiles modules of any
    size.

    Args:
        inline: Return the module with the kernel's functions inlined, or None. The module need not
            be valid.

    Raises:
        EngineFailure: The module is not valid.
        ModuleError: It takes more time or memory than is left.
    """
    is_timed = budget is not None and budget.is_timed
    if not wasm.startswith(b"\0asm") and (len(wasm) <= LIGHT_TEXT or not is_timed):
        wasm = wat_to_wasm(wasm)
    if (
        budget is None
        or not is_timed
        or (wasm.startswith(b"\0asm") and budget.admits(wasm, target))
    ):
        is_heavy = False
        if budget is not None and not is_timed:
            from .._engine.compile_cost import LIGHT_COST, estimate_cost

            is_heavy = estimate_cost(wasm) > LIGHT_COST
        wasm = strip_long_names(wasm)
        return target.compile(wasm, inlined=inline(wasm), heavy=is_heavy)
    artifact, known = _compile_in_child(wasm, target, budget, name, inline, meanwhile)
    return target.load(artifact).with_facts(known)


def _compile_in_child(
    wasm: bytes,
    target: Engine,
    budget: CompileBudget,
    name: str,
    inline: Callable[[bytes], bytes | None],
    meanwhile: Callable[[], object] = int,
) -> tuple[bytes, Facts]:
    seconds = budget.seconds(name)
    assert seconds is not None
    compilation = object()
    try:
        budget.refund_time(_wait_for(compilation))
        return _run_compiler(wasm, target, budget, name, seconds, inline, meanwhile)
    finally:
        _compilations.pop(compilation, None)


_compilations: dict[object, int] = {}
"""Compilations under way and waiting, in the order in which they came, with their threads."""
MAX_PROCESSES = max(
    1,
    min(
        4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    ),
)
"""Processes that compile at once: each uses all processors, and up to `compile_bytes`."""
_POLL_INTERVAL = 0.01


def _wait_for(compilation: object) -> float:
    """Wait for the turn of a compilation, and return the seconds that it took.

    There is no lock, since a signal handler or a finalizer may compile while its thread compiles or
    waits. It does not wait then, because those before it could be its own thread's.
    """
    me, begin = get_ident(), monotonic()
    if me in list(_compilations.values()):
        return 0.0
    _compilations[compilation] = me
    while compilation not in list(_compilations)[:MAX_PROCESSES]:
        sleep(_POLL_INTERVAL)
    return monotonic() - begin


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_compilations.clear)


def _run_compiler(
    wasm: bytes,
    target: Engine,
    budget: CompileBudget,
    name: str,
    seconds: float,
    inline: Callable[[bytes], bytes | None],
    meanwhile: Callable[[], object],
) -> tuple[bytes, Facts]:
    from .._platform.python_executable import (
        VARIABLE,
        NoInterpreterError,
        find_interpreter,
        find_package_folders,
    )

    memory = budget.memory
    engine = ";".join(f"{name}={int(value)}" for name, value in target.settings.items())
    settings = (engine, memory or 0, int(seconds) + 1, budget.code)
    try:
        import subprocess

        from .._platform.child_processes import ChildProcess

        python = find_interpreter()
        command = [
            python.path,
            *python.options,
            "-c",
            _CHILD,
            "\n".join(find_package_folders(("plugwasm", "wasmtime"))),
            *map(str, settings),
        ]
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=pipe, env=python.environment
        )
    except NoInterpreterError as error:
        hint = f"the environment variable {VARIABLE} can name a Python interpreter, and {_HINT}"
        raise ModuleError(
            f"module `{truncate(name)}`: no process can be started to compile it: "
            f"{error.message}; {hint}"
        ) from None
    except (
        OSError,
        RuntimeError,
        ImportError,
    ) as error:  # an import may fail for want of descriptors; subinterpreters may not fork
        raise ModuleError(
            f"module `{truncate(name)}`: no process can be started to compile it "
            f"({_reason(error)}); {_HINT}"
        ) from error
    child = ChildProcess(process)
    with process:
        try:
            # Both take place while the process starts.
            inlined = (inline(wasm) if wasm.startswith(b"\0asm") else None) or b""
            begin = monotonic()
            meanwhile()
            budget.refund_time(monotonic() - begin)
            parts = (len(wasm).to_bytes(_LENGTH, "little"), wasm, inlined)
            output, complaint = process.communicate(b"".join(parts), timeout=seconds)
        except subprocess.TimeoutExpired:
            raise budget.too_slow(name) from None
        finally:
            child.kill()  # and waits for it, which `with` does not after Ctrl-C
    if process.returncode < 0:
        raise ModuleError(
            f"module `{truncate(name)}`: the compiler was ended by signal "
            f"{-process.returncode}; it may need more than the {memory} bytes "
            "of `Limits.compile_bytes`"
        )
    return _read_answer(output, complaint, budget, name, python.path)


def _read_answer(
    output: bytes, complaint: bytes, budget: CompileBudget, name: str, interpreter: str
) -> tuple[bytes, Facts]:
    """Return the code and the facts in what a compiler's process wrote, or raise its error."""
    from .._platform.python_executable import VARIABLE

    if output[:1] == _TOO_MUCH:
        raise budget.too_much_code(name)
    if output[:1] == _REFUSED:
        raise EngineFailure(output[1:].decode("utf-8", "replace"))
    at = 1 + _NOTE + _LENGTH
    if (
        output[:1] != _DONE
        or len(output) < at
        or len(output) != at + int.from_bytes(output[1 + _NOTE : at], "little")
    ):
        last = complaint.decode("utf-8", "replace").strip().splitlines()[-1:] or ["it said nothing"]
        hint = (
            f"it was started with `{truncate(interpreter)}`; the environment variable {VARIABLE} "
            "can name another interpreter"
        )
        raise ModuleError(
            f"module `{truncate(name)}`: the process that compiles it failed: "
            f"{truncate(last[0], 1000)} ({hint})"
        )
    return output[at:], unpack_facts(output[1 : 1 + _NOTE])


def _reason(error: Exception) -> str:
    number = getattr(error, "errno", None)
    if number is None and isinstance(error, ImportError):
        try:
            os.close(os.dup(2))
        except OSError as cause:
            number, error = cause.errno, cause
    reason = getattr(error, "strerror", None) or str(error)
    return f"{reason}: {_NO_MORE[number]}" if number in _NO_MORE else reason


def pack_facts(facts: Facts) -> bytes:
    """Encode a module's facts, four bytes each.

    As many memories or pages as a module could ever have are far too many already.
    """
    return b"".join(min(number, 2**32 - 1).to_bytes(4, "little") for number in facts)


def unpack_facts(note: bytes) -> Facts:
    """Decode a note that `pack_facts` made."""
    count, total, largest, start, state, tables, entries = (
        int.from_bytes(note[at : at + 4], "little") for at in range(0, _NOTE, 4)
    )
    return count, total, largest, start, state, tables, entries


def compile_stdin(engine: str, memory: str, seconds: str, code: str) -> None:
    """Run the child process: compile stdin, and write the code or the module's error to stdout."""
    from _thread import stack_size

    from .._engine import Engine, can_compile_in_parallel

    # Of the threads that try whether the compiler's can be started, which take 2 MiB: two for each.
    stack_size(2**20)
    _limit_process(int(memory), int(seconds))
    wasm = sys.stdin.buffer.read(int.from_bytes(sys.stdin.buffer.read(_LENGTH), "little"))
    inlined = strip_long_names(sys.stdin.buffer.read()) or None
    try:
        wasm = strip_long_names(wasm if wasm.startswith(b"\0asm") else wat_to_wasm(wasm))
        settings: dict[str, Any] = {
            name: int(value)
            for name, _, value in (part.partition("=") for part in engine.split(";"))
        }
        target = Engine(parallel=can_compile_in_parallel(), **settings)
        module = target.compile(wasm, inlined=inlined)
        if module.resident_bytes > int(code):
            answer = [_TOO_MUCH]
        else:
            artifact = module.serialize()
            answer = [
                _DONE,
                pack_facts(module.facts),
                len(artifact).to_bytes(_LENGTH, "little"),
                artifact,
            ]
    except EngineFailure as failure:
        answer = [_REFUSED, failure.message.encode()]
    for part in answer:
        sys.stdout.buffer.write(part)
    sys.stdout.buffer.flush()
    os._exit(0)  # the engine need not be taken apart


def _limit_process(memory: int, seconds: int) -> None:
    try:
        import resource
    except ImportError:  # not POSIX: the time limit is kept from outside
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _lower(resource.RLIMIT_CPU, seconds * (os.cpu_count() or 1))
    if memory:
        # What is only reserved does not count, unlike with RLIMIT_AS.
        _lower(resource.RLIMIT_DATA, memory)


def _lower(kind: int, value: int) -> None:
    import resource

    _, hard = resource.getrlimit(kind)
    most = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (most, most))
