"""Takes down the life of an instance: each call, and what the host answered in it."""

from __future__ import annotations

import os
import weakref
from functools import partial
from sys import getsizeof
from time import gmtime, strftime

from .._engine import EngineFailure, HostRaised
from .._host.env import FUNCTIONS, NAMESPACE
from .._host.guest import Exited
from .._manifest.limits import Limits
from .._runtime.linker import WASI, is_builtin_wasi
from .._wasi.abi import MemoryFault
from ..errors import BusyError, CancelledError, ClosedError, Error, StackError
from . import wasi_calls
from .effects import Witness, arguments
from .schema import (
    USER,
    VERSION,
    Call,
    Data,
    Failure,
    HostCall,
    HttpStatus,
    Module,
    Value,
    parted,
    words,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .._engine import HostFunction
    from .._host.guest import Guest
    from .._runtime import observers
    from .._wasi.abi import Memory

HTTP = "http_request"
_OVERHEAD = 500
"""Bytes of memory that a host call, or a call, takes besides its data; about."""
_OF_EFFECT = 150
_NOT_MADE = (BusyError, ClosedError, StackError)
LIMITS = (
    "timeout",
    "memory_bytes",
    "max_pages",
    "memories",
    "tables",
    "table_elements",
    "instances",
    "stack_bytes",
    "var_bytes",
    "vars",
    "descriptors",
    "gc",
    "atomics",
)


class Tape:
    """What was taken down so far. It does not hold the instance.

    Attributes:
        mark: Of the instance: when it was started, in UTC, and something random.
        calls: In order.
        incomplete: Why there will be no more; empty while there may be.
    """

    def __init__(self, guest: Guest, max_bytes: int) -> None:
        grants = guest.grants
        self.mark = f"{strftime('%Y%m%dT%H%M%S', gmtime())}-{os.urandom(4).hex()}"
        self.calls: list[Call] = []
        self.incomplete = ""
        self.plugin = grants.log.name
        self._grants = grants
        self._left = max_bytes
        self._config, self._log_level = guest.config, guest.log.level()
        self._vars, self._more_vars = parted(guest.vars.snapshot())
        self._overrides: set[tuple[str, str]] = set()
        self._modules: list[Module] = []

    def has_room(self, size: int) -> bool:
        """Whether so much could be taken down. If not, nothing is taken down any more."""
        if self._left < size:
            self.stop("it would have been larger than `max_bytes`")
        return not self.incomplete

    def take(self, size: int) -> bool:
        """Makes room for so much more. False when there is none left, or nothing is taken down any more."""
        self._left -= size + _OVERHEAD
        return self.has_room(0)

    def stop(self, reason: str) -> None:
        """Takes nothing down any more."""
        self.incomplete = self.incomplete or reason

    def overridden(self, function: tuple[str, str]) -> None:
        """A function of the application stands for one of plugwasm's own."""
        self._overrides.add(function)

    def fields(self) -> dict[str, Any]:
        """All of it, as it is now: the fields of a `Recording`."""
        from hashlib import sha256

        grants = self._grants
        recipe = grants.recipe
        if not self._modules:
            self._modules = [
                Module(module.name, sha256(module.wasm).hexdigest(), words(module.origin))
                for module in recipe.modules
            ]
        return {
            "plugwasm_recording": VERSION,
            "plugin": self.plugin,
            "modules": self._modules,
            "main": recipe.main,
            "wasi": grants.has_wasi,
            "fuel_limit": grants.fuel_limit,
            "http_response_headers": grants.http_response_headers,
            "limits": _limits(grants.limits),
            "config": self._config,
            "vars": self._vars,
            "more_vars": self._more_vars,
            "log_level": self._log_level,
            "overrides": sorted(self._overrides),
            "calls": self.calls.copy(),
            "incomplete": self.incomplete,
        }


def _limits(limits: Limits) -> dict[str, bool | int | float | None]:
    """Those that count in a replay, and are not the default."""
    default = Limits()
    return {
        name: value for name in LIMITS if (value := getattr(limits, name)) != getattr(default, name)
    }


def _size(part: Data | Value) -> int:
    """Bytes of memory; a text that is not ASCII takes up to four for a character."""
    return getsizeof(part) + getsizeof(part.text if part.base64 is None else part.base64)


def _size_of_failure(error: Failure | None) -> int:
    return (
        0
        if error is None
        else sum(map(getsizeof, (error, error.message, error.guest_message, error.trap)))
    )


class Journal:
    """Stands for the host functions of one instance: has them run, and takes down what they answer.

    Args:
        guest: The instance.
        tape: Where to.
        done: Called when a call has ended.
    """

    def __init__(
        self, guest: Guest, tape: Tape, done: Callable[[observers.Call, Tape], None]
    ) -> None:
        self._guest = weakref.ref(guest)
        self._tape = tape
        self._done = done
        self._streams = wasi_calls.Streams()
        self._config, self._log_level = guest.config, tape._log_level
        self._vars_before = self._vars = guest.vars.snapshot()
        self._changed: dict[
            str, Any
        ] = {}  # of the instance's surroundings, since the last call that was made
        self._host_calls: list[HostCall] = []
        self._raised: BaseException | None = None
        self._is_open = False
        """Whether a call has begun, and did not end."""

    # ---- calls ----------------------------------------------------------------------------------------------------------------------

    def begin(self, call: observers.Call) -> None:
        self._host_calls, self._raised = [], None
        if self._is_open:
            self._tape.stop("a call was interrupted at its end")
        self._is_open = True
        guest = self._guest()
        if guest is None or self._tape.incomplete:
            return
        if guest.config is not self._config:
            self._config = self._changed["config"] = guest.config
        if (level := guest.log.level()) != self._log_level:
            self._log_level = self._changed["log_level"] = level

    def settle(self, guest: Guest) -> None:
        self._vars = guest.vars.snapshot()

    def end(self, call: observers.Call, error: BaseException | None) -> None:
        host_calls, raised, self._host_calls, self._raised = (
            self._host_calls,
            self._raised,
            [],
            None,
        )
        tape = self._tape
        if not (isinstance(error, _NOT_MADE) or tape.incomplete):
            self._take(call, error, host_calls, raised)
        self._is_open = False
        self._done(call, tape)

    def _take(
        self,
        call: observers.Call,
        error: BaseException | None,
        host_calls: list[HostCall],
        raised: BaseException | None,
    ) -> None:
        """Takes down a call that was made."""
        tape = self._tape
        if error is not None and not isinstance(error, Exception):
            tape.stop(f"a call was interrupted by {type(error).__name__}")
        elif isinstance(error, CancelledError) and error is not raised:
            tape.stop("a call was cancelled")
        elif isinstance(error, (RecursionError, MemoryError)) and not isinstance(error, Error):
            tape.stop(
                f"a call was ended by {type(error).__name__}, of which the plugin knows nothing"
            )
        size = len(call.input) + len(call.output or b"")
        size += sum(
            getsizeof(name) + getsizeof(value)
            for name, value in self._changed.get("config", {}).items()
        )
        if not tape.has_room(size):
            return
        vars: dict[str, Data] | None = None
        more_vars: tuple[tuple[bytes, Data], ...] = ()
        if self._vars != self._vars_before:
            vars, more_vars = parted(self._vars)
            size += sum(
                getsizeof(name) + _size(value) for name, value in (*vars.items(), *more_vars)
            )
            self._vars_before = self._vars
        taken = Call(
            words(call.function),
            Data.of(call.input),
            host_calls=tuple(host_calls),
            output=Data.of(call.output or b"") if error is None else None,
            error=None if error is None else failure(error),
            vars=vars,
            more_vars=more_vars,
            **self._changed,
        )
        size += (
            _size(taken.input)
            + (_size(taken.output) if taken.output is not None else 0)
            + _size_of_failure(taken.error)
        )
        if tape.take(size - len(call.input) - len(call.output or b"")):
            tape.calls.append(taken)
        self._changed = {}

    # ---- host calls -----------------------------------------------------------------------------------------------------------------

    def host_call(self, guest: Guest, function: HostFunction, caller: int, values: Any) -> None:
        assert function.name is not None
        namespace, name = function.name
        if self._tape.incomplete:
            function.body(guest, caller, values)
        elif is_builtin_wasi(function):
            function.body(Desk(self, guest), caller, values)  # type: ignore[arg-type]
        elif is_state(function):
            function.body(guest, caller, values)  # it will be as it was
        else:
            if (namespace == NAMESPACE or namespace.startswith("wasi_")) and FUNCTIONS.get(
                name
            ) is not function:
                self._tape.overridden(function.name)
            self._witnessed(guest, function, namespace, name, caller, values)

    def _witnessed(
        self,
        guest: Guest,
        function: HostFunction,
        namespace: str,
        name: str,
        caller: int,
        values: Any,
    ) -> None:
        passed = sum(
            guest.size(values[2 * i])
            for i, type in enumerate(function.type.params)
            if type == "i64"
        )
        if not self._tape.has_room(passed):
            function.body(guest, caller, values)
            return
        args = arguments(guest, function, values)
        raws = [values[2 * i] for i in range(len(args))]
        results: list[Value] = []
        error: BaseException | None = None
        witness = Witness(guest, args, values)
        try:
            with witness:
                function.body(guest, caller, values)
            results = witness.results(function.type.results, function.kinds[len(args) :], values)
        except BaseException as exception:
            error = exception
            raise
        finally:
            http = (
                HttpStatus(guest.response_status, guest.response_headers)
                if (namespace, name) == (NAMESPACE, HTTP)
                else None
            )
            args = witness.arguments(args, raws, function.kinds)
            space = USER if namespace == USER else namespace  # the same object is left out
            failed = self._failed(error)
            self._keep(
                HostCall(
                    name,
                    space,
                    tuple(args),
                    tuple(witness.effects),
                    tuple(results),
                    http=http,
                    error=failed,
                )
            )
            del error

    def serve_wasi(self, guest: Guest, name: str, memory: Memory, args: tuple[int, ...]) -> int:
        """Has the plugin's WASI answer."""
        answer = getattr(guest.wasi_state(), name)
        if self._streams.serve(name, args):
            return int(answer(memory, *args))
        given = wasi_calls.inputs(memory, name, args)
        errno = 0
        out: list[Data] = []
        error: BaseException | None = None
        try:
            errno = answer(memory, *args)
            if not errno:
                try:
                    out = wasi_calls.outputs(memory, name, args)
                except (MemoryFault, ValueError):  # it had results written over what it passed
                    self._tape.stop(f"`{name}` was given memory for its results that overlaps")
            return int(errno)
        except BaseException as exception:
            error = exception
            raise
        finally:
            results = (Value(i32=errno),) if error is None else ()
            self._keep(
                HostCall(
                    name,
                    WASI,
                    tuple(given),
                    results=results,
                    out=tuple(out),
                    error=self._failed(error),
                )
            )
            del error

    def _keep(self, call: HostCall) -> None:
        data = (
            data for effect in call.effects if (data := getattr(effect, "data", None)) is not None
        )
        parts = (*call.args, *call.results, *call.out, *data)
        size = (
            sum(map(_size, parts)) + len(call.effects) * _OF_EFFECT + _size_of_failure(call.error)
        )
        if call.http is not None and call.http.headers:
            size += sum(
                getsizeof(name) + getsizeof(value) for name, value in call.http.headers.items()
            )
        if self._tape.take(size):
            self._host_calls.append(call)
        else:
            self._host_calls = []

    def _failed(self, error: BaseException | None) -> Failure | None:
        if error is None or isinstance(error, Exited):
            return None
        if isinstance(error, HostRaised):  # while it was in the kernel
            error = error.exception
        if not isinstance(error, Exception):
            self._tape.stop(f"a host function was interrupted by {type(error).__name__}")
        self._raised = error
        return failure(error)


def failure(error: BaseException) -> Failure:
    """What was raised, for the recording."""
    if isinstance(error, Error):
        return Failure(
            type(error).__name__,
            words(error.message),
            code=error.code,
            guest_message=error.guest_message,
            trap=getattr(error, "trap", None),
        )
    return Failure(
        EngineFailure.__name__ if isinstance(error, EngineFailure) else type(error).__name__,
        words(error),
    )


def is_state(function: HostFunction) -> bool:
    """Whether it is about config, vars, logs and the last response, and plugwasm's own: what follows from what is recorded already."""
    if function.name is None:
        return False
    namespace, name = function.name
    return namespace == NAMESPACE and name != HTTP and FUNCTIONS.get(name) is function


class Desk:
    """What a function of WASI gets for the guest: asks who answers for the outside.

    Args:
        host: Whose `serve_wasi` is asked.
        guest: The guest.
    """

    def __init__(self, host: Any, guest: Guest) -> None:
        self._host = host
        self._guest = guest

    def wasi_state(self) -> Desk:
        return self

    def memory_of(self, caller: int) -> Memory:
        return self._guest.memory_of(caller)

    def __getattr__(self, name: str) -> Callable[..., int]:
        return partial(self._answer, name)

    def _answer(self, name: str, memory: Memory, *args: int) -> int:
        return int(self._host.serve_wasi(self._guest, name, memory, args))
