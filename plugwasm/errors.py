"""All errors that plugwasm raises, in one tree.

    Error
    ├── EngineError                 the Wasm runtime is missing, or its version is not tested
    ├── OptionError                 an invalid argument (also a built-in ``ValueError``)
    ├── ManifestError               an invalid manifest (also a built-in ``ValueError``)
    │   └── HashMismatchError       a module's bytes do not have the pinned sha256
    ├── SchemaError                 an invalid interface file (also a built-in ``ValueError``)
    ├── SourceError                 a module cannot be read or downloaded
    ├── ModuleError                 the bytes are not a Wasm module that can run here
    │   └── ScriptError             a script is not valid, or failed while it was loaded
    ├── LinkError                   the modules and functions do not fit together
    │   ├── MissingImportError      a module imports something that nothing provides
    │   └── InterfaceError          a plugin lacks exports that an interface requires
    ├── ClosedError                 the plugin was closed
    ├── BusyError                   a call would wait for itself
    │   └── PoolTimeoutError        no free plugin in a pool (also a built-in ``TimeoutError``)
    ├── EgressError                 an HTTP request failed or exceeded its limits
    │   └── EgressDeniedError       the target of a request is not granted
    ├── RecordingError              a recording cannot be read or replayed
    ├── ReplayError                 a replay differs (also a built-in ``AssertionError``)
    ├── BatchError                  a batch of rows cannot be processed
    │   └── RowError                the call for one row failed; see ``__cause__``
    └── CallError                   a call ended without a result
        ├── FunctionNotFoundError   the plugin does not export that function
        ├── SignatureError          the export's type is not allowed by the plugin contract
        ├── GuestError              the guest reported a failure (a message or a return code)
        ├── OutputError             the output does not have the requested type
        ├── ExitError               the guest called ``proc_exit`` with a code other than 0
        ├── TrapError               the guest trapped
        ├── BadHandleError          the guest passed memory that it does not own
        ├── HostFunctionError       a host function raised; see ``__cause__``
        ├── TimeoutError            the deadline passed (also a built-in ``TimeoutError``)
        ├── CancelledError          a ``CancelHandle`` ended the call
        ├── OutOfMemoryError        a memory limit was reached (also a built-in ``MemoryError``)
        ├── StackError              the thread's stack is too small
        ├── OutOfFuelError          the fuel limit was reached
        ├── InstanceLostError       the instance was given up, and its state with it
        └── WorkerError             the process of an isolated plugin ended or was killed

The message of an error says what failed and what to do about it, and its fields hold the same
facts. All errors can be pickled and copied, with their fields, notes and causes. A cause that
cannot be pickled is dropped.

A built-in ``TypeError`` is raised for objects of the wrong kind: a function that is not a host
function, an interface that is not a class, a type that no output can be read as.

``docs/reference/errors.md`` is generated from this module by ``make docs``.
"""

from __future__ import annotations

import builtins

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    _Parts = tuple[type["Error"], tuple[Any, ...], dict[str, Any]]

__all__ = [
    "BadHandleError",
    "BatchError",
    "BusyError",
    "CallError",
    "CancelledError",
    "ClosedError",
    "EgressDeniedError",
    "EgressError",
    "EngineError",
    "Error",
    "ExitError",
    "FunctionNotFoundError",
    "GuestError",
    "HashMismatchError",
    "HostFunctionError",
    "InstanceLostError",
    "InterfaceError",
    "LinkError",
    "ManifestError",
    "MissingImportError",
    "ModuleError",
    "OptionError",
    "OutOfFuelError",
    "OutOfMemoryError",
    "OutputError",
    "PoolTimeoutError",
    "RecordingError",
    "ReplayError",
    "RowError",
    "SchemaError",
    "ScriptError",
    "SignatureError",
    "SourceError",
    "StackError",
    "TimeoutError",
    "TrapError",
    "WorkerError",
]


def escape_line(text: str) -> str:
    """Return text from outside as one line.

    Line ends, control characters, direction overrides and lone surrogates are escaped.
    """
    return text if text.isprintable() else "".join(map(_escaped, text))


def truncate(text: str, most: int = 200) -> str:
    """Return text that somebody else chose (a name, a path, an exception's text) for a message.

    It is cut after `most` characters and escaped like `escape_line`.
    """
    return escape_line(text if len(text) <= most else f"{text[:most]}…")


def _escaped(character: str) -> str:
    if character.isprintable() or character in "\u00a0\u202f\u3000":
        return character
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


_REPLACED = dict.fromkeys(
    [
        *(code for code in range(160) if not (chr(code).isprintable() or chr(code) in "\n\t")),
        *(0x200E, 0x200F, 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A)),
    ],
    "\N{REPLACEMENT CHARACTER}",
)
"""Control characters and direction overrides, for messages with several lines. Each is replaced by
one character, because such a message can be large."""


class Error(Exception):
    """The root of the tree. ``except plugwasm.Error`` catches every error of plugwasm.

    Messages are often logged, and contain names chosen by strangers. So a message is one line, with
    control characters escaped. Only `GuestError`, `ReplayError`, `BatchError` and `WorkerError`
    keep line ends: they repeat text of a guest, a recording, a schema or a process, in which
    other control characters are replaced by U+FFFD.

    Attributes:
        message: What failed and what to do about it, in one or two sentences.
        plugin: The name of the plugin, or None if no plugin is involved.
        function: The export that was called, or None.
        code: The guest's return code, or the code that it passed to ``proc_exit``, or None.
        guest_message: The guest's own message (``error_set``), or None.
        backtrace: The Wasm frames, innermost first; empty if there are none.
    """

    _has_lines = False
    """Whether the message may have several lines."""

    def __init__(
        self,
        message: str = "",
        *,
        plugin: str | None = None,
        function: str | None = None,
        code: int | None = None,
        guest_message: str | None = None,
        backtrace: Sequence[str] = (),
    ) -> None:
        if not message.isprintable():
            message = message.translate(_REPLACED) if self._has_lines else escape_line(message)
        super().__init__(message)
        self.message = message
        self.plugin = plugin
        self.function = function
        self.code = code
        self.guest_message = guest_message
        self.backtrace: tuple[str, ...] = tuple(backtrace)

    def __str__(self) -> str:
        if not self.backtrace:
            return self.message
        frames = "\n".join(f"  {i}: {frame}" for i, frame in enumerate(self.backtrace))
        return f"{self.message}\nwasm backtrace:\n{frames}"

    def __reduce__(self) -> tuple[Callable[..., Error], tuple[Any, ...]]:
        # Pickling an exception drops its causes. Ours are listed and not nested, so that each is
        # checked once, however many there are.
        ours: list[_Parts] = []
        cause = self.__cause__
        while (
            isinstance(cause, Error)
            and len(ours) < _MAX_CAUSES
            and _can_travel(parts := cause._parts())
        ):
            ours.append(parts)
            cause = cause.__cause__
        if isinstance(cause, Error) or not _can_travel(cause):
            cause = None
        return _rebuilt, (self._parts(), ours, cause)

    def _parts(self) -> _Parts:
        return type(self), self.args, dict(self.__dict__)


_MAX_CAUSES = 100


def _rebuilt(parts: _Parts, ours: Sequence[_Parts], last: BaseException | None) -> Error:
    cause = last
    for cls, args, fields in (*reversed(ours), parts):
        error = cls.__new__(cls, *args)
        error.args = args
        error.__dict__.update(fields)
        if cause is not None:
            error.__cause__ = cause
        cause = error
    return error


def _can_travel(value: object) -> bool:
    """Return whether a value can be pickled and unpickled.

    Exceptions of applications often cannot, and must not keep ours from being pickled.
    """
    if value is None:
        return True
    import pickle

    try:
        pickle.loads(pickle.dumps(value))
    except Exception:
        return False
    return True


class EngineError(Error):
    """The Wasm runtime cannot be used: it is not installed for this platform, or its version is not
    one of the tested versions.

    What to do:
        Install the version of the package `wasmtime` that the message names.
    """


class OptionError(Error, ValueError):
    """An argument of the application is out of range, has the wrong type, or would have no effect.
    The message names it and says what was expected.

    Attributes:
        field: The name of the argument, e.g. ``"timeout"``, or None if only the message names it.
        reason: What is wrong with it, without its name; empty if only the message says it.

    What to do:
        Correct the argument. If the option would have no effect, pass it where the message says.
    """

    def __init__(
        self, message: str = "", *, field: str | None = None, reason: str = "", **fields: Any
    ) -> None:
        super().__init__(message, **fields)
        self.field = field
        self.reason = reason


class ManifestError(Error, ValueError):
    """A manifest is invalid, or asks for more than a policy allows. The message names the field,
    its position and what was expected there.

    Attributes:
        field: The path of the field, e.g. ``"wasm[0].hash"``, or None for the manifest as a whole.
        reason: What is wrong with it, without its name; empty if only the message says it.

    What to do:
        Correct the manifest. A field that a policy refuses has to be granted by the application.
    """

    def __init__(
        self, message: str = "", *, field: str | None = None, reason: str = "", **fields: Any
    ) -> None:
        super().__init__(message, **fields)
        self.field = field
        self.reason = reason


class SchemaError(Error, ValueError):
    """An interface file (an XTP schema) is invalid, or its names cannot be those of a language. The
    message has all that is wrong, each with its path in the document.

    Attributes:
        problems: The parts of the message: a line if it is known, the path, what is wrong there.
            Empty if the text as a whole cannot be read.

    What to do:
        Correct the schema.
    """

    def __init__(self, message: str = "", *, problems: Sequence[str] = (), **fields: Any) -> None:
        super().__init__(message, **fields)
        self.problems: tuple[str, ...] = tuple(problems)


class HashMismatchError(ManifestError):
    """The sha256 of a module's bytes is not the one that the manifest or the `PluginRef` pins.

    What to do:
        Find out why the module changed. If the change is intended, update the hash.
    """


class SourceError(Error):
    """A module cannot be read from its path or downloaded from its URL.

    What to do:
        Check the path, the permissions or the URL. The ``__cause__``, if any, is the system's
        error.
    """


class ModuleError(Error):
    """The bytes are not a valid Wasm module, use a feature that is off, or exceed a limit for
    modules.

    Attributes:
        limit: ``"compile_seconds"`` if compiling took too long; None for other reasons.

    What to do:
        Rebuild the plugin. If a feature is off or a limit is exceeded, the message names the field
        of `Limits`, where there is one.
    """

    def __init__(self, message: str = "", *, limit: str | None = None, **fields: Any) -> None:
        super().__init__(message, **fields)
        self.limit = limit


class ScriptError(ModuleError):
    """A script is not valid in its language, failed while it was loaded, or exports no function.

    Attributes:
        file: The name of the script.
        line, column: Where the error is, from 1 on; None if that is not known.
        stack: The error as the language shows it, with the frames; empty if there is none.

    What to do:
        Correct the script at the line that the message names.
    """

    def __init__(
        self,
        message: str = "",
        *,
        file: str | None = None,
        line: int | None = None,
        column: int | None = None,
        stack: str = "",
        **fields: Any,
    ) -> None:
        super().__init__(message, **fields)
        self.file = file
        self.line = line
        self.column = column
        self.stack = stack


class LinkError(Error):
    """The modules of a plugin, their imports and the functions of the application do not fit
    together.

    What to do:
        Compare the plugin's imports (``plugwasm inspect``) with what the application provides.
    """


class MissingImportError(LinkError):
    """A module imports something that neither the plugin contract, WASI, the application nor
    another module provides.

    Attributes:
        hint: The end of the message that says what to pass, or empty.

    What to do:
        Pass the host function in ``functions``, add the module to the manifest, or pass
        ``wasi=True``.
    """

    def __init__(self, message: str = "", *, hint: str = "", **fields: Any) -> None:
        super().__init__(message, **fields)
        self.hint = hint


class InterfaceError(LinkError):
    """A plugin does not export everything that an interface requires.

    Attributes:
        missing: The names of the exports that are missing or cannot be called.

    What to do:
        Use a plugin that exports them, or correct the interface.
    """

    def __init__(self, message: str = "", *, missing: Sequence[str] = (), **fields: Any) -> None:
        super().__init__(message, **fields)
        self.missing: tuple[str, ...] = tuple(missing)


class ClosedError(Error):
    """The plugin, pool or set was closed and cannot be used any more; or a `CurrentPlugin` was used
    after its host function had returned.

    What to do:
        Create a new plugin, pool or set. Do not keep a `CurrentPlugin`.
    """


class BusyError(Error):
    """The plugin runs a call that this call is part of, or another greenlet of the thread is inside
    a guest. A plugin runs one call at a time; callers in other threads wait for their turn.

    What to do:
        Create a second plugin for a call within a call. Under gevent or eventlet, make the calls in
        threads.
    """


class PoolTimeoutError(BusyError, builtins.TimeoutError):
    """All plugins of a pool were in use for as long as the caller was willing to wait.

    What to do:
        Make the pool larger (``size``), or wait longer (``wait``).
    """


class EgressError(Error):
    """An HTTP request of a guest failed, or exceeded a limit of the application.

    Attributes:
        reason: Why a request that was granted failed, without its method and URL; empty otherwise.
        limit: The argument of `Egress` whose limit was exceeded, or None.

    What to do:
        Check the request, the server and the limits of `Egress`. The ``__cause__``, if any, is the
        transport's exception.
    """

    def __init__(
        self, message: str = "", *, reason: str = "", limit: str | None = None, **fields: Any
    ) -> None:
        super().__init__(message, **fields)
        self.reason = reason
        self.limit = limit


class EgressDeniedError(EgressError):
    """The target of an HTTP request is not granted.

    What to do:
        If the plugin may reach it, grant the host in ``allowed_hosts``, of the manifest and of
        `Egress`.
    """


class RecordingError(Error):
    """A recording cannot be read, or cannot be replayed because it is incomplete.

    What to do:
        Record again. For a large file, raise ``max_bytes`` of ``plugwasm.recording.load``.
    """


class ReplayError(Error, AssertionError):
    """A replayed plugin behaved differently than when it was recorded. The message says how, and in
    which call.

    Attributes:
        call: The number of the call, counted from 1, or None if the plugin could not be loaded.
        host_call: The number of the host call within the call, or None.
        recorded: What was recorded, as text.
        now: What happened in the replay, as text.

    What to do:
        Correct the plugin, or record again if the change is intended.
    """

    _has_lines = True

    def __init__(
        self,
        message: str = "",
        *,
        call: int | None = None,
        host_call: int | None = None,
        recorded: str = "",
        now: str = "",
        **fields: Any,
    ) -> None:
        super().__init__(message, **fields)
        self.call = call
        self.host_call = host_call
        self.recorded = recorded
        self.now = now


class BatchError(Error):
    """A batch of rows cannot be processed, or the plugin's result for it cannot be used.

    What to do:
        Check the columns of the batch, and the type in ``returns``.
    """

    _has_lines = True


class RowError(BatchError):
    """The call for a row failed, or its output does not have the requested type. The reason is the
    ``__cause__``.

    Attributes:
        row: The number of the row, counted from 0 in its batch.

    What to do:
        Handle the cause, or pass ``on_error="null"`` or ``error_column`` to continue with the other
        rows.
    """

    _has_lines = False

    def __init__(self, message: str = "", *, row: int = 0, **fields: Any) -> None:
        super().__init__(message, **fields)
        self.row = row


class CallError(Error):
    """A call ended without a result.

    What to do:
        See the subclass. The plugin can be called again.
    """


class FunctionNotFoundError(CallError):
    """The plugin does not export a function with that name.

    What to do:
        Check the name; ``plugin.exports`` lists the exports.
    """


class SignatureError(CallError):
    """The export exists, but has parameters or results that the plugin contract does not allow.

    What to do:
        Call an export of the type ``() -> ()`` or ``() -> (i32)``; ``plugin.exports`` has the
        types.
    """


class GuestError(CallError):
    """The guest reported a failure: it set an error message, or returned a code other than 0.

    What to do:
        Read ``guest_message`` and ``code``; their meaning is defined by the plugin.
    """

    _has_lines = True


class OutputError(CallError):
    """The call succeeded, but its output does not have the requested type (``returns``).

    Attributes:
        path: The position in the output, e.g. ``"$.items[3].name"``; ``"$"`` is the whole output.
        output: The first 256 bytes of the output.

    What to do:
        Correct the type or the plugin. An output that exceeds a limit needs a higher one, e.g.
        ``Limits.decoded_values``.
    """

    def __init__(
        self, message: str = "", *, path: str = "$", output: bytes = b"", **fields: Any
    ) -> None:
        super().__init__(message, **fields)
        self.path = path
        self.output = output


class ExitError(CallError):
    """The guest ended itself with ``proc_exit`` and a code other than 0.

    What to do:
        Read ``code`` and the plugin's log; their meaning is defined by the plugin.
    """


class TrapError(CallError):
    """The guest trapped: it did something that Wasm forbids, e.g. an out-of-bounds access.

    Attributes:
        trap: The engine's name of the trap, e.g. ``"unreachable"`` or ``"stack overflow"``.

    What to do:
        Correct the plugin. ``backtrace`` has the frames; ``plugwasm.debugging.explain`` adds source
        lines.
    """

    def __init__(self, message: str = "", *, trap: str = "", **fields: Any) -> None:
        super().__init__(message, **fields)
        self.trap = trap


class BadHandleError(CallError):
    """The guest passed a handle, or an offset and a length, that is not memory of its own.

    What to do:
        Correct the plugin: it must pass only blocks that it allocated and has not freed.
    """


class HostFunctionError(CallError):
    """A host function of the application raised an exception, which is the ``__cause__``.

    What to do:
        Handle the cause. If a parameter was invalid, the message names it.
    """


class TimeoutError(CallError, builtins.TimeoutError):
    """The call did not end before its deadline.

    What to do:
        Raise the limit (``timeout_ms`` in the manifest, or `Limits.timeout`), or make the plugin
        faster.
    """


class CancelledError(CallError):
    """The call was ended through its `CancelHandle`, or the task that awaits it was cancelled.

    What to do:
        Nothing: the application asked for it.
    """


class OutOfMemoryError(CallError, MemoryError):
    """The plugin needed more memory than its limits allow, or than the system has.

    What to do:
        Raise the limit that the message names, or pass less data.
    """

    if not TYPE_CHECKING:
        # The one of `MemoryError` refuses classes with another layout.
        __new__ = Exception.__new__


class StackError(CallError):
    """The calling thread has too little stack left to run a plugin, or its stack cannot be
    measured.

    What to do:
        Call from a thread with a larger stack (``threading.stack_size``), or lower
        `Limits.stack_bytes`.
    """


class OutOfFuelError(CallError):
    """The call used up its fuel.

    What to do:
        Raise ``fuel_limit``, or make the plugin do less in a call.
    """


class InstanceLostError(CallError):
    """The plugin's instance was given up before the call, because another component of the process
    has taken over the signals by which its traps are noticed. What the guest kept in its memory is
    lost; vars are not.

    What to do:
        Call again: the next call starts an instance that needs no signals. To avoid the loss, load
        that component before the first plugin, call `use_explicit_checks`, or set the environment
        variable ``PLUGWASM_EXPLICIT_CHECKS=1``.
    """


class WorkerError(CallError):
    """The process of an `IsolatedPlugin` could not be started, ended, or was killed because it
    misbehaved. The message says which, followed by the process's output in indented lines.

    What to do:
        Call again: the next call starts another process. If that fails too, check
        `ProcessLimits`.
    """

    _has_lines = True
