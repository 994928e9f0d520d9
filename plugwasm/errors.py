"""Every error that plugwasm raises, in one tree.

    Error
    ├── EngineError                 the Wasm runtime is missing, or of a version that was not tested
    ├── OptionError                 an argument of the application's own cannot be that (also a built-in ``ValueError``)
    ├── ManifestError               what was passed as a plugin does not say what to run (also a built-in ``ValueError``)
    │   └── HashMismatchError       a module's bytes are not the ones that were pinned
    ├── SourceError                 a module's bytes cannot be read or fetched
    ├── ModuleError                 the bytes are not a Wasm module that can run here
    ├── LinkError                   the modules do not fit together
    │   ├── MissingImportError      a module wants something that nobody provides
    │   └── InterfaceError          a plugin lacks exports that an interface asks for
    ├── ClosedError                 the plugin was closed
    ├── BusyError                   a call that would wait for itself
    │   └── PoolTimeoutError        no plugin of a pool became free in time (also a built-in ``TimeoutError``)
    ├── EgressError                 a request left the bounds that the application set
    │   └── EgressDeniedError       its target is not granted
    ├── RecordingError              a recording cannot be read, or not replayed
    ├── ReplayError                 a plugin did something else than when it was recorded (also a built-in ``AssertionError``)
    ├── BatchError                  a batch of rows cannot be processed
    │   └── RowError                the call for one of them failed; the ``__cause__`` says why
    └── CallError                   a call ended without a result
        ├── FunctionNotFoundError   the plugin exports nothing of that name
        ├── SignatureError          it does, but that is not callable by the plugin contract
        ├── GuestError              the guest reported a failure (a message, or a return code)
        ├── OutputError             the output is not of the type that was asked for
        ├── ExitError               the guest called ``proc_exit`` with a code other than 0
        ├── TrapError               the guest did what Wasm forbids
        ├── BadHandleError          the guest passed memory that it does not own
        ├── HostFunctionError       a function of the application raised; it is the ``__cause__``
        ├── TimeoutError            the deadline passed (also a built-in ``TimeoutError``)
        ├── CancelledError          a ``CancelHandle`` ended it
        ├── OutOfMemoryError        a memory limit ended it (also a built-in ``MemoryError``)
        ├── StackError              the thread has too little stack left to begin it
        ├── OutOfFuelError          the fuel limit ended it
        └── WorkerError             the process that ran it ended, or had to be ended

An error says what failed and what to do about it in its message, and carries the same facts as fields. All of them can be pickled and
copied, with their fields, notes and causes; a cause that cannot be pickled is left behind.

What is no matter of values is a built-in ``TypeError``: what is no host function, an interface that is no class, a type that no output
can be read as.
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
    "SignatureError",
    "SourceError",
    "StackError",
    "TimeoutError",
    "TrapError",
    "WorkerError",
]


def one_line(text: str) -> str:
    """Text from outside as one line: line ends, control characters, what turns the direction, and lone surrogates are escaped."""
    return text if text.isprintable() else "".join(map(_escaped, text))


def shown(text: str, most: int = 200) -> str:
    """Text that somebody else chose (a name, a path, what an exception says) for a message: `one_line`, cut after `most` characters."""
    return one_line(text if len(text) <= most else f"{text[:most]}…")


def _escaped(character: str) -> str:
    if character.isprintable() or character in "\u00a0\u202f\u3000":
        return character
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


class Error(Exception):
    """The root of the tree. ``except plugwasm.Error`` catches all that plugwasm raises.

    A message is often logged, and holds names that strangers chose. So it is one line (`one_line`), whatever it is made of. But what a
    guest itself reported (``GuestError``) is as it said it, and a ``ReplayError`` or ``WorkerError`` repeats texts in indented lines.

    Attributes:
        message: What failed and what to do about it, in one or two sentences.
        plugin: The name of the plugin, or None when no plugin is concerned.
        function: The export that was called, or None.
        code: What the guest returned or passed to ``proc_exit``, or None.
        guest_message: What the guest itself said (``error_set``), or None.
        backtrace: The Wasm frames, innermost first; empty when there are none.
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
        if not (self._has_lines or message.isprintable()):
            message = one_line(message)
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
        # Python leaves causes behind. Ours are listed and not nested, so that each is looked at once, however many there are.
        ours: list[_Parts] = []
        cause = self.__cause__
        while isinstance(cause, Error) and len(ours) < _MAX_CAUSES and _can_travel(parts := cause._parts()):
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
    """Whether it can be pickled and read again: exceptions of applications often cannot, and must not take ours with them."""
    if value is None:
        return True
    import pickle

    try:
        pickle.loads(pickle.dumps(value))
    except Exception:
        return False
    return True


class EngineError(Error):
    """The Wasm runtime cannot be used: not installed for this platform, or a version outside the tested range."""


class OptionError(Error, ValueError):
    """An argument that the application gave is out of its range or of another type; the message names it and says what was expected.

    Attributes:
        field: Which, e.g. ``"timeout"``, or None where only the message says it.
    """

    def __init__(self, message: str = "", *, field: str | None = None, **fields: Any) -> None:
        super().__init__(message, **fields)
        self.field = field


class ManifestError(Error, ValueError):
    """The manifest is not valid; the message names the field, where it stands and what was expected there.

    Attributes:
        field: Where in the manifest, e.g. ``"wasm[0].hash"``, or None when the manifest as a whole is meant.
    """

    def __init__(self, message: str = "", *, field: str | None = None, **fields: Any) -> None:
        super().__init__(message, **fields)
        self.field = field


class HashMismatchError(ManifestError):
    """The sha256 of a module's bytes is not the one in the manifest."""


class SourceError(Error):
    """A module could not be read from its path or fetched from its URL."""


class ModuleError(Error):
    """Not a Wasm module, not a valid one, or one that uses a feature that is not supported here."""


class LinkError(Error):
    """The modules of a plugin, its imports and the functions that the application gave do not fit together."""


class MissingImportError(LinkError):
    """A module imports something that neither the plugin contract, WASI, the application nor another module provides."""


class InterfaceError(LinkError):
    """A plugin does not export all that an interface asks for.

    Attributes:
        missing: The names of the exports that are not there, or cannot be called.
    """

    def __init__(self, message: str = "", *, missing: Sequence[str] = (), **fields: Any) -> None:
        super().__init__(message, **fields)
        self.missing: tuple[str, ...] = tuple(missing)


class ClosedError(Error):
    """The plugin was closed, so it cannot be used any more."""


class BusyError(Error):
    """The plugin is in the middle of a call that this one is part of, or another greenlet of the thread is in the middle of one. One plugin
    runs one call at a time, and other threads wait for their turn; make a second plugin for a call within a call.
    """


class PoolTimeoutError(BusyError, builtins.TimeoutError):
    """All plugins of a pool were in use for as long as the caller would wait."""


class EgressError(Error):
    """An HTTP request of the guest failed or left the bounds that the application set."""


class EgressDeniedError(EgressError):
    """The target of an HTTP request is not granted."""


class RecordingError(Error):
    """A recording cannot be read, or cannot be replayed because something is missing in it (`plugwasm.recording`)."""


class ReplayError(Error, AssertionError):
    """A replayed plugin did something else than when it was recorded; the message says what, and in which call.

    Attributes:
        call: The number of the call, counted from 1; None when the plugin could not even be loaded.
        host_call: The number of the host call in it, or None.
        recorded, now: What was recorded, and what happened now, as text.
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
    """A batch of rows cannot be processed, or what a plugin made of it cannot be taken."""

    _has_lines = True


class RowError(BatchError):
    """The call for a row failed, or its output is not of the type that was asked for. Why is the ``__cause__``.

    Attributes:
        row: Which, counted from 0 in its batch.
    """

    _has_lines = False

    def __init__(self, message: str = "", *, row: int = 0, **fields: Any) -> None:
        super().__init__(message, **fields)
        self.row = row


class CallError(Error):
    """A call ended without a result."""


class FunctionNotFoundError(CallError):
    """The plugin does not export a function of that name."""


class SignatureError(CallError):
    """The export exists but has parameters or results that the plugin contract does not allow."""


class GuestError(CallError):
    """The guest reported a failure: see ``guest_message`` and ``code``."""

    _has_lines = True


class OutputError(CallError):
    """The call ended well, but its output is not of the type that was asked for (`returns`).

    Attributes:
        path: Where in the output, e.g. ``"$.items[3].name"``; ``"$"`` is the whole.
        output: The first 256 bytes of it.
    """

    def __init__(self, message: str = "", *, path: str = "$", output: bytes = b"", **fields: Any) -> None:
        super().__init__(message, **fields)
        self.path = path
        self.output = output


class ExitError(CallError):
    """The guest ended itself with ``proc_exit``: see ``code``."""


class TrapError(CallError):
    """The guest did something that Wasm forbids, e.g. an access out of bounds: see ``trap`` and ``backtrace``.

    Attributes:
        trap: The engine's word for it, e.g. ``"unreachable"`` or ``"stack overflow"``.
    """

    def __init__(self, message: str = "", *, trap: str = "", **fields: Any) -> None:
        super().__init__(message, **fields)
        self.trap = trap


class BadHandleError(CallError):
    """The guest passed a handle, or an offset and a length, that is no memory of its own."""


class HostFunctionError(CallError):
    """A host function of the application raised. The exception it raised is the ``__cause__``."""


class TimeoutError(CallError, builtins.TimeoutError):
    """The call did not end before its deadline."""


class CancelledError(CallError):
    """The call was ended through its ``CancelHandle``."""


class OutOfMemoryError(CallError, MemoryError):
    """The plugin needed more memory than its limit allows."""

    if not TYPE_CHECKING:
        __new__ = Exception.__new__  # that of `MemoryError` refuses to make what is not laid out by it


class StackError(CallError):
    """The thread that calls has too little of its stack left to run a plugin."""


class OutOfFuelError(CallError):
    """The call used up its fuel."""


class WorkerError(CallError):
    """The process of an `IsolatedPlugin` could not be started, has ended, or was ended because it misbehaved: the message says how.

    The plugin can be used again; its next call starts another process. What a process wrote before it ended follows in lines that are
    indented.
    """

    _has_lines = True
