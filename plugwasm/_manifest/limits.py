"""`Limits` and `ProcessLimits`: the resources that a plugin may use. The defaults are safe for
malicious plugins.

A manifest can set some limits as well (`timeout_ms`, `memory.max_pages`, `memory.max_var_bytes`).
If the application passes no `Limits`, the manifest's value counts, or else the default. If it
passes them, they are upper bounds: the lower value counts.

Decisions: docs/decisions.md, 18 and 38.
"""

from __future__ import annotations

import os

from ..errors import OptionError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Never, NoReturn

    from .resolve import PluginSpec

__all__ = ["Limits", "ProcessLimits"]

PAGE_SIZE = 65536
INITIAL_PAGES = 2
"""Pages of 64 KiB of the kernel's memory at the start, which count towards each limit on memory."""
MAX_MEMORY_BYTES = 2**32
"""The most that `Limits.memory_bytes` can be."""
DEFAULT_STACK_BYTES = 512 * 1024
"""The default of `Limits.stack_bytes`."""

_RANGES: dict[str, tuple[float, float]] = {
    "timeout": (0.001, 2**33),
    "memory_bytes": (0, MAX_MEMORY_BYTES),
    "max_pages": (0, 65536),
    "memories": (0, 1000),
    "tables": (0, 1000),
    "table_elements": (0, 2**32 - 1),
    "instance_bytes": (0, 2**32 - 1),
    "instances": (1, 10_000),
    "stack_bytes": (2**14, 2**28),
    "var_bytes": (0, 2**64 - 1),
    "vars": (0, 2**32),
    "log_lines_per_second": (0, 2**32),
    "log_bytes_per_second": (0, 2**64),
    "descriptors": (0, 10_000),
    "decoded_values": (1, 2**40),
    "decoded_keys": (1, 2**40),
    "module_bytes": (8, 2**31),
    "compile_seconds": (0.001, 2**33),
    "compile_bytes": (2**26, 2**50),
    "code_bytes": (0, 2**50),
    "gc": (False, True),
    "atomics": (False, True),
}
_FLAGS = ("gc", "atomics")
_SECONDS = ("timeout", "compile_seconds")
_OPTIONAL = (
    "timeout",
    "memory_bytes",
    "max_pages",
    "log_lines_per_second",
    "log_bytes_per_second",
    "decoded_values",
    "decoded_keys",
    "compile_seconds",
    "compile_bytes",
)


class Limits:
    """The resources that a plugin may use. Immutable; two with the same values are equal.

    Args:
        timeout: Seconds that a call may take, including the start of an instance, WASI sleeps and
            HTTP requests.
        memory_bytes: All memories of an instance together, in whole pages of 64 KiB, with the
            blocks that are passed in and out. At most 4 GiB.
        max_pages: The same as `memory.max_pages` of a manifest: how many pages of 64 KiB the main
            module may start with, and how many may be added after the start, to its memory and to
            the blocks that are passed in and out, together. If it has several memories, or one that
            is not exported, each may grow by so many. It applies in addition to `memory_bytes`.
        memories: How many memories the modules may have, without the kernel's.
        tables: How many tables they may have.
        table_elements: The elements of each table; an element takes 8 bytes of the host. All tables
            together may take `memory_bytes` in addition to the memories.
        instance_bytes: The state of instances outside of memories and tables, for all modules
            together: globals (16 bytes each), functions that can be referred to (32), imported
            functions, segments. Never more than `memory_bytes`.
        instances: How many instances of modules a plugin may have: one for each module, and some
            for functions imported from commands.
        stack_bytes: The guest's stack. A thread that runs plugins needs a stack of this size and
            256 KiB more. Each value other than the default creates another engine in the process,
            without a pool of instances.
        var_bytes: All vars of an instance, names and values.
        vars: How many vars an instance may have.
        log_lines_per_second: How many lines a plugin may log, including its stdout and stderr, on
            average over ten seconds. More lines are dropped, and counted. All plugins of one
            `CompiledPlugin` count together.
        log_bytes_per_second: How many bytes it may log, counted likewise.
        descriptors: How many files and directories an instance may have open.
        decoded_values: How many values (numbers, texts, containers, keys) may be in an output that
            is read as a type, or in JSON or MessagePack that is passed to a host function. A value
            takes 16 to 230 bytes in Python, an object of a class with defaults about 500.
        decoded_keys: How many of these may be elements of sets or keys of dicts, other than text
            and bytes; everything inside a set counts. A plugin can choose them so that each is
            compared with all others: 10,000 numbers take a second. Values that Python code compares
            (UUIDs, objects of the application's classes) count eight times. For several sets and
            dicts the squares are added up.
        module_bytes: The size of a module, in the binary or the text format.
        compile_seconds: How long compiling all modules of a plugin may take. All but the smallest
            are compiled in another process, which can be killed; that takes 20 ms more, once for
            each module that is not in the cache. With None, this process compiles. Plugins that a
            `PluginSet` loads at once share this time.
        compile_bytes: How much memory that process may use. It needs about 50 times the size of the
            module.
        code_bytes: The size of the compiled code of all modules of a plugin, with 1,500 bytes for
            each type, import and export.
        gc: Whether modules may use objects of the garbage collector (structs, arrays, i31), as
            plugins in Kotlin, Dart and OCaml do. Their heap counts towards `memory_bytes`: the
            heap, each memory, and the blocks that are passed in and out have shares of it, fixed at
            the start. A collection of the heap cannot be interrupted: it takes up to half a second
            for a GiB. Such instances come from no pool.
        atomics: Whether modules may use the atomic instructions of the threads proposal. Memories
            still cannot be shared, and there are no threads.

    None means unlimited, where it is allowed: `timeout`, `memory_bytes` (then each memory may have
    4 GiB), `max_pages`, the two log limits, the two limits on decoding, and the two on compiling.

    Raises:
        OptionError: A value is not a number in its range.
    """

    __module__ = "plugwasm"

    __slots__ = tuple(_RANGES)

    timeout: float | None
    memory_bytes: int | None
    max_pages: int | None
    memories: int
    tables: int
    table_elements: int
    instance_bytes: int
    instances: int
    stack_bytes: int
    var_bytes: int
    vars: int
    log_lines_per_second: int | None
    log_bytes_per_second: int | None
    descriptors: int
    decoded_values: int | None
    decoded_keys: int | None
    module_bytes: int
    compile_seconds: float | None
    compile_bytes: int | None
    code_bytes: int
    gc: bool
    atomics: bool

    def __init__(
        self,
        *unnamed: Never,
        timeout: float | None = 60.0,
        memory_bytes: int | None = 2**30,
        max_pages: int | None = None,
        memories: int = 8,
        tables: int = 16,
        table_elements: int = 1_000_000,
        instance_bytes: int = 8 * 2**20,
        instances: int = 1000,
        stack_bytes: int = DEFAULT_STACK_BYTES,
        var_bytes: int = 2**20,
        vars: int = 10_000,
        log_lines_per_second: int | None = 1000,
        log_bytes_per_second: int | None = 2**20,
        descriptors: int = 64,
        decoded_values: int | None = 1_000_000,
        decoded_keys: int | None = 10_000,
        module_bytes: int = 64 * 2**20,
        compile_seconds: float | None = 60.0,
        compile_bytes: int | None = 2**31,
        code_bytes: int = 256 * 2**20,
        gc: bool = False,
        atomics: bool = False,
        **unknown: Never,
    ) -> None:
        given = locals()
        if unnamed or unknown:
            raise_unknown_argument("Limits", unnamed, unknown, tuple(_RANGES))
        for name, (least, most) in _RANGES.items():
            value = given[name]
            if name in _FLAGS:
                if not isinstance(value, bool):
                    raise OptionError(
                        f"Limits.{name}: expected True or False, got {value!r}", field=name
                    )
                object.__setattr__(self, name, value)
                continue
            check_number(
                f"Limits.{name}",
                value,
                (int, float) if name in _SECONDS else int,
                least,
                most,
                none=name in _OPTIONAL,
            )
            if name == "memory_bytes" and value is not None and 0 < value < PAGE_SIZE:
                raise OptionError(
                    f"Limits.memory_bytes: {value} bytes are less than a page of memory, which has "
                    f"{PAGE_SIZE}: no plugin could start; "
                    f"{value} pages would be memory_bytes={value} * {PAGE_SIZE}",
                    field="memory_bytes",
                )
            object.__setattr__(self, name, value)

    def replace(self, **changes: Any) -> Limits:
        """Return a copy with other values for some limits."""
        return Limits(**{name: getattr(self, name) for name in _RANGES} | changes)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(
            f"Limits cannot be changed; make others with `limits.replace({name}=…)`"
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Limits) and all(
            getattr(self, name) == getattr(other, name) for name in _RANGES
        )

    def __hash__(self) -> int:
        return hash(tuple(getattr(self, name) for name in _RANGES))

    def __reduce__(self) -> tuple[Any, ...]:
        from functools import partial

        return partial(Limits, **{name: getattr(self, name) for name in _RANGES}), ()

    def __repr__(self) -> str:
        defaults = Limits.__init__.__kwdefaults__ or {}
        changed = [
            f"{name}={getattr(self, name)!r}"
            for name in _RANGES
            if getattr(self, name) != defaults[name]
        ]
        return f"Limits({', '.join(changed)})"


def check_number(
    what: str, value: Any, kind: Any, least: float, most: float, *, none: bool = False
) -> None:
    """Raise `OptionError` unless a value is a number in its range, or None where that is allowed.

    `what` names the class and the argument, e.g. "Limits.timeout".
    """
    if value is None and none:
        return
    if not isinstance(value, kind) or isinstance(value, bool) or not least <= value <= most:
        number = "a whole number" if kind is int else "a number"
        raise OptionError(
            f"{what}: expected {number} from {least} to "
            f"{most}{', or None for no limit' if none else ''}, got {value!r}",
            field=what.partition(".")[2],
        )


def raise_unknown_argument(
    owner: str, unnamed: Any, unknown: Any, known: tuple[str, ...]
) -> NoReturn:
    """Raise the error for arguments that do not exist."""
    if unnamed:
        raise TypeError(
            f"{owner}: its arguments are given by name, e.g. {owner}({known[0]}={unnamed[0]!r})"
        )
    name = next(iter(unknown))
    if name == "timeout_ms":
        raise TypeError(f"{owner}: there is no argument `timeout_ms`; write timeout=…, in seconds")
    if name in ("fuel", "fuel_limit"):
        raise TypeError(
            f"{owner}: there is no argument `{name}`; give `fuel_limit` to the plugin itself"
        )
    if name == "memory":
        raise TypeError(
            f"{owner}: there is no argument `{name}`; write memory_bytes=…, {PAGE_SIZE} for each "
            "page"
        )
    from .messages import closest_match

    close = closest_match(name, known)
    raise TypeError(
        f"{owner}: there is no argument `{name}`; "
        + (f"did you mean `{close}`?" if close else f"known are {', '.join(known)}")
    )


DEFAULT_LIMITS = Limits()


def effective_limits(limits: Limits | None, spec: PluginSpec) -> Limits:
    """Return the limits of a plugin, from those of the application and of its manifest."""
    said: dict[str, Any] = {}
    if spec.timeout_ms is not None:
        said["timeout"] = spec.timeout_ms / 1000
    if spec.max_pages is not None:
        said["max_pages"] = spec.max_pages
    if spec.max_var_bytes is not None:
        said["var_bytes"] = spec.max_var_bytes
    if spec.compile_seconds is not None:
        said["compile_seconds"] = spec.compile_seconds
    if not said:
        return limits or DEFAULT_LIMITS
    if limits is None:
        if spec.max_pages is not None:
            said["memory_bytes"] = max(
                DEFAULT_LIMITS.memory_bytes or 0,
                min(2**32, (2 * spec.max_pages + INITIAL_PAGES) * PAGE_SIZE),
            )
        return replace_unchecked(DEFAULT_LIMITS, said)
    return replace_unchecked(
        limits,
        {
            name: value if (own := getattr(limits, name)) is None else min(value, own)
            for name, value in said.items()
        },
    )


def replace_unchecked(limits: Limits, values: dict[str, Any]) -> Limits:
    """Return a copy with other values, which a manifest has in wider ranges, checked before."""
    changed = Limits.__new__(Limits)
    for name in _RANGES:
        object.__setattr__(changed, name, values.get(name, getattr(limits, name)))
    return changed


class ProcessLimits:
    """The resources that the process of an `IsolatedPlugin` may use. Immutable; two with the same
    values are equal.

    Args:
        memory_bytes: Its data: the guest's memories, the compiler, the interpreter (about 30 MB),
            inputs and outputs. Linux only; with seccomp (see `IsolatedPlugin.confinement`) it has
            no memory that does not count, and starts no threads or processes.
        cpu_seconds: Processor time of all its threads that a call may use; checked ten times a
            second. Linux only.
        start_seconds: How long it may take to start. Compiling is limited by
            `Limits.compile_seconds` and `memory_bytes`.
        grace: Seconds that it has to end a call by itself, after its deadline or after it was
            cancelled, before it is killed.
        user: The user and group id that it runs as; only a privileged application can change it.
            That user must have access to directories that are granted to the guest.
        python: The Python interpreter that runs it; if not given, the one that the environment
            variable `PLUGWASM_PYTHON` names, or one that is found. It must have this program's
            version.

    None means unlimited, where it is allowed: `memory_bytes`, `cpu_seconds`.

    Raises:
        OptionError: A value is not in its range.
    """

    __module__ = "plugwasm"

    __slots__ = ("cpu_seconds", "grace", "memory_bytes", "python", "start_seconds", "user")

    memory_bytes: int | None
    cpu_seconds: float | None
    start_seconds: float
    grace: float
    user: tuple[int, int] | None
    python: str | None

    def __init__(
        self,
        *unnamed: Never,
        memory_bytes: int | None = 2 * 2**30,
        cpu_seconds: float | None = None,
        start_seconds: float = 30.0,
        grace: float = 1.0,
        user: tuple[int, int] | None = None,
        python: str | os.PathLike[str] | None = None,
        **unknown: Never,
    ) -> None:
        if unnamed or unknown:
            raise_unknown_argument("ProcessLimits", unnamed, unknown, self.__slots__)
        check_number("ProcessLimits.memory_bytes", memory_bytes, int, 2**26, 2**48, none=True)
        check_number(
            "ProcessLimits.cpu_seconds", cpu_seconds, (int, float), 0.001, 2**31, none=True
        )
        check_number("ProcessLimits.start_seconds", start_seconds, (int, float), 0.001, 2**31)
        check_number("ProcessLimits.grace", grace, (int, float), 0, 2**31)
        if user is not None and not (
            isinstance(user, tuple)
            and len(user) == 2
            and all(type(number) is int and 0 < number < 2**32 - 1 for number in user)
        ):
            raise OptionError(
                "ProcessLimits.user: expected a pair of numbers, of a user and a group but not 0, "
                f"got {user!r}",
                field="user",
            )
        if python is not None:
            if not isinstance(python, (str, os.PathLike)):
                raise OptionError(
                    f"ProcessLimits.python: expected the path of an interpreter, got {python!r}",
                    field="python",
                )
            python = os.fsdecode(python)
        values = locals()
        for name in self.__slots__:
            object.__setattr__(self, name, values[name])

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("ProcessLimits cannot be changed; make others")

    def __reduce__(self) -> tuple[Any, ...]:
        from functools import partial

        return partial(ProcessLimits, **{name: getattr(self, name) for name in self.__slots__}), ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ProcessLimits) and all(
            getattr(self, name) == getattr(other, name) for name in self.__slots__
        )

    def __hash__(self) -> int:
        return hash(tuple(getattr(self, name) for name in self.__slots__))

    def __repr__(self) -> str:
        values = [f"{name}={getattr(self, name)!r}" for name in self.__slots__]
        return f"ProcessLimits({', '.join(values)})"
