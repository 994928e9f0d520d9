"""Compiling: in this process where that is certain to take little, and otherwise in a process of its own, which can be ended.

The compiler cannot be interrupted, and it ends the process when it gets no memory. A few kilobytes of Wasm can keep it busy for minutes and
take gigabytes, so what a stranger wrote is compiled where neither does harm. Starting that process takes some 20 ms, once for each
module, for what it compiles is kept.
"""

from __future__ import annotations

import os
import sys

from ._engine import EngineFailure, facts, is_light, wat_to_wasm, without_long_names
from .errors import ModuleError, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._engine import Engine, Module
    from .limits import Limits

    Facts = tuple[int, int, int, int]

LIGHT_TEXT = 2**16
"""Bytes of a module in the text format that this process makes a binary of."""

_DONE, _REFUSED = b"\0", b"\1"
_CHILD = "import sys; sys.path[:0] = sys.argv[1].split('\\n'); from plugwasm._compiler import serve; serve(*sys.argv[2:])"


def compile_within(limits: Limits | None, target: Engine, wasm: bytes, name: str) -> Module:
    """A module for Wasm bytes or text. Without limits, or with None as `compile_seconds`, this process compiles whatever it is.

    Raises:
        EngineFailure: It is not valid.
        ModuleError: It takes more time or memory than the limits allow.
    """
    seconds = None if limits is None else limits.compile_seconds
    is_binary = wasm.startswith(b"\0asm")
    if not is_binary and (seconds is None or len(wasm) <= LIGHT_TEXT):
        wasm, is_binary = wat_to_wasm(wasm), True
    if limits is None or seconds is None or (is_binary and is_light(wasm)) or not sys.executable:
        return target.compile(wasm)
    artifact, known = _compile_apart(wasm, target, seconds, limits.compile_bytes, name)
    return target.load(artifact).with_facts(known)


def _compile_apart(wasm: bytes, target: Engine, seconds: float, memory: int | None, name: str) -> tuple[bytes, Facts]:
    import subprocess

    from ._children import Child

    folders = "\n".join(dict.fromkeys(os.path.abspath(folder) for folder in sys.path if os.path.isdir(folder or ".")))
    settings = [str(int(target.fuel)), str(target.stack_bytes), str(memory or 0), str(int(seconds) + 1)]
    command = [sys.executable, "-I", "-S", "-c", _CHILD, folders, *settings]
    kept = {key: os.environ[key] for key in ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT") if key in os.environ}
    try:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=kept)
    except OSError as error:
        hint = "with `Limits(compile_seconds=None)` this process compiles, without limits"
        raise ModuleError(f"module `{shown(name)}`: no process can be started to compile it ({error.strerror}); {hint}") from error
    child = Child(process)
    with process:
        try:
            output, complaint = process.communicate(wasm, timeout=seconds)
        except subprocess.TimeoutExpired:
            limit = f"the {seconds:g} seconds of `Limits.compile_seconds`"
            raise ModuleError(f"module `{shown(name)}` takes longer to compile than {limit}") from None
        finally:
            child.kill()  # and waits for it, which `with` does not after Ctrl-C
    if process.returncode < 0:
        raise ModuleError(
            f"module `{shown(name)}`: the compiler was ended by signal {-process.returncode}; it may need more than the {memory} bytes of "
            "`Limits.compile_bytes`"
        )
    if output[:1] == _REFUSED:
        raise EngineFailure(output[1:].decode("utf-8", "replace"))
    if output[:1] != _DONE or len(output) < 25 or len(output) != 25 + int.from_bytes(output[17:25], "little"):
        last = complaint.decode("utf-8", "replace").strip().splitlines()[-1:] or ["it said nothing"]
        raise ModuleError(f"module `{shown(name)}`: the process that compiles it failed: {shown(last[0], 1000)}")
    return output[25:], facts_in(output[1:17])


def note_of(facts: Facts) -> bytes:
    """A module's facts, in 16 bytes. As many memories or pages as a module could ever have is already far too many."""
    return b"".join(min(number, 2**32 - 1).to_bytes(4, "little") for number in facts)


def facts_in(note: bytes) -> Facts:
    """The other way round."""
    count, total, largest, start = (int.from_bytes(note[at : at + 4], "little") for at in (0, 4, 8, 12))
    return count, total, largest, start


def serve(fuel: str, stack_bytes: str, memory: str, seconds: str) -> None:
    """What that process does: compiles what it reads from stdin, and writes the code, or what is wrong with the module, to stdout."""
    from ._engine import Engine

    _limit_process(int(memory), int(seconds))
    wasm = sys.stdin.buffer.read()
    try:
        binary = without_long_names(wasm if wasm.startswith(b"\0asm") else wat_to_wasm(wasm))
        module = Engine(fuel=fuel == "1", stack_bytes=int(stack_bytes)).compile(binary)
        code = module.serialize()
        answer = [_DONE, note_of(facts(binary)), len(code).to_bytes(8, "little"), code]
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
