"""Host functions: functions of the application that plugins can import.

Either their Wasm signature is given, and they get and set values (`Val`); or it is inferred from
their annotations, and they get and return Python objects.
"""

from __future__ import annotations

import functools
from typing import Any, get_args, get_origin, get_type_hints

from .._engine import (
    LOOK_INTERVAL,
    FunctionType,
    HostFunction,
    after_host_function,
    are_held,
    lost_to,
)
from .._manifest.messages import check_encodable
from ..errors import (
    CancelledError,
    Error,
    HostFunctionError,
    InstanceLostError,
    OptionError,
    TimeoutError,
    truncate,
)
from .annotations import (
    Codec,
    Json,
    Pickle,
    UnsafePickle,
    make_decoder,
    make_encoder,
    observed_type,
)
from .current_plugin import CurrentPlugin
from .options import check_flag, describe_value
from .registry import registered
from .typed_bodies import make_typed_body, make_val_body
from .wasm_values import WASM_TYPES, Val, ValType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import overload

    from .guest import Guest

__all__ = ["Codec", "Function", "Json", "Pickle", "UnsafePickle", "Val", "ValType", "host_fn"]

USER_NAMESPACE = "extism:host/user"
MAX_MESSAGE = 4000
"""Characters of a host function's exception that an error repeats. The exception itself is its
cause.
"""


class Function:
    """A host function: its namespace and name, the types of its parameters and results, and a
    callable.

    The callable gets the calling plugin (`CurrentPlugin`), the parameters and the results as lists
    of `Val`, and the user data.

    Args:
        namespace: The module name that plugins import it from, which may be empty; None for
            `extism:host/user`.
        name: The name that plugins import it by.
        args: The types of the parameters.
        returns: The types of the results.
        f: The callable.
        user_data: Passed to the callable after the rest.
    """

    __module__ = "plugwasm"

    def __init__(
        self,
        namespace: str | None,
        name: str,
        args: Sequence[ValType],
        returns: Sequence[ValType],
        f: Callable[..., Any],
        *user_data: Any,
    ) -> None:
        if not isinstance(name, str):
            raise OptionError(
                "host function: its name is the text that plugins import it by, not "
                f"{describe_value(name)}",
                field="name",
            )
        if not (namespace is None or isinstance(namespace, str)):
            raise OptionError(
                f"host function `{truncate(name)}`: its namespace is the text that plugins import "
                f"it from, not {describe_value(namespace)}",
                field="namespace",
            )
        if not callable(f):
            raise OptionError(
                f"host function `{truncate(name)}`: expected a function to call, got "
                f"{describe_value(f)}",
                field="f",
            )
        for part in (namespace or "", name):
            check_encodable(part, f"host function `{truncate(part)}`: its name")
        self.namespace = namespace
        self.name = name
        self.args: list[ValType] = self._types("args", args)
        self.returns: list[ValType] = self._types("returns", returns)
        self.f = f
        self.user_data = user_data
        functools.update_wrapper(self, f, updated=())
        self._host = HostFunction(self._type(), self._body(), self._imported_as, self._kinds())  # type: ignore[arg-type]

    @property
    def _imported_as(self) -> tuple[str, str]:
        """The module name and the name. The empty text is a module name like any other."""
        return USER_NAMESPACE if self.namespace is None else self.namespace, self.name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the Python function itself."""
        return self.f(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<host function {'.'.join(self._imported_as)}>"

    def _types(self, what: str, types: Any) -> list[ValType]:
        if isinstance(types, str) or not hasattr(types, "__iter__"):
            raise OptionError(
                f"host function `{self.name}`: {what}: expected a list of types, such as "
                f"[ValType.I64], got {describe_value(types)}",
                field=what,
            )
        return list(types)

    def _type(self) -> FunctionType:
        for type in (*self.args, *self.returns):
            if type not in WASM_TYPES:
                shown = getattr(type, "name", repr(type))
                raise TypeError(
                    f"host function `{self.name}`: values of type {shown} cannot be passed; use "
                    "ValType.I32, I64, F32, F64"
                )
        return FunctionType(
            tuple(WASM_TYPES[t] for t in self.args), tuple(WASM_TYPES[t] for t in self.returns)
        )

    def _kinds(self) -> tuple[Any, ...]:
        """Return the Python types of the parameters and the results, as far as they are known."""
        return ()

    def _body(self) -> Callable[[Guest, int, Any], None]:
        return make_val_body(
            self.name,
            _make_callable(self.name, self.f),
            self.args,
            self.returns,
            self.user_data,
            make_error=host_function_error,
            look_at_signals=_look_at_signals,
        )


class InferredFunction(Function):
    """A host function whose signature follows from its annotations, or from those of a method of
    an interface.
    """

    def __init__(
        self,
        namespace: str | None,
        name: str,
        f: Callable[..., Any],
        user_data: tuple[Any, ...],
        described_by: Callable[..., Any] | None = None,
    ) -> None:
        import inspect

        try:
            hints = get_type_hints(f, include_extras=True)
        except NameError as error:
            raise TypeError(
                f"host function `{name}`: an annotation cannot be resolved, for its module has no "
                f"global of that name: {error}"
            ) from error
        parameters = inspect.signature(f).parameters.values()
        names = [
            p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        ]
        if user_data and not any(p.kind == p.VAR_POSITIONAL for p in parameters):
            names = names[: len(names) - len(user_data)]
        self._wants_plugin = bool(names) and hints.get(names[0]) is CurrentPlugin
        if self._wants_plugin:
            names = names[1:]
        if described_by is not None:
            hints = get_type_hints(described_by, include_extras=True)
            wanted = list(inspect.signature(described_by).parameters)[1:]
            if wanted and hints.get(wanted[0]) is CurrentPlugin:
                wanted = wanted[1:]
                names, self._wants_plugin = names[not self._wants_plugin :], True
            if len(wanted) != len(names) and not any(
                p.kind == p.VAR_POSITIONAL for p in parameters
            ):
                raise TypeError(
                    f"host function `{name}`: expected {len(wanted)} parameters, as in the "
                    f"interface, got {len(names)}"
                )
            names = wanted
        for parameter in names:
            if parameter not in hints:
                raise TypeError(
                    f"host function `{name}`: parameter `{parameter}` has no annotation; annotate "
                    "all of them, or give a `signature`"
                )
        self._decoders = [make_decoder(name, parameter, hints[parameter]) for parameter in names]
        returned = hints.get("return")
        self._is_tuple = get_origin(returned) is tuple
        members = (
            get_args(returned)
            if self._is_tuple
            else ()
            if returned in (None, type(None))
            else (returned,)
        )
        self._encoders = [make_encoder(name, member) for member in members]
        self._shown_as = tuple(
            map(observed_type, (*(hints[parameter] for parameter in names), *members))
        )
        super().__init__(
            namespace,
            name,
            [t for t, _ in self._decoders],
            [t for t, _ in self._encoders],
            f,
            *user_data,
        )

    def _kinds(self) -> tuple[Any, ...]:
        return self._shown_as

    def _body(self) -> Callable[[Guest, int, Any], None]:
        return make_typed_body(
            self.name,
            _make_callable(self.name, self.f),
            [decode for _, decode in self._decoders],
            [encode for _, encode in self._encoders],
            is_tuple=self._is_tuple,
            wants_plugin=self._wants_plugin,
            user_data=self.user_data,
            make_error=host_function_error,
            look_at_signals=_look_at_signals,
        )


def _make_callable(name: str, f: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function, or for an `async def` one that has an event loop run it."""
    target: Any = f
    while isinstance(target, functools.partial):
        target = target.func
    call = getattr(target, "__call__", None)  # noqa: B004
    code = getattr(target, "__code__", None) or getattr(call, "__code__", None)
    if code is None or not code.co_flags & _CO_COROUTINE:
        return f
    from .thread_call import run_on_event_loop

    return run_on_event_loop(name, f)


_CO_COROUTINE = 0x80
"""As in `inspect`."""


def _look_at_signals(name: str, guest: Guest, now: float) -> None:
    """End the call if the host function let somebody else handle the signals of its guest's traps.

    A guest in another process has handlers of its own, and no store here.
    """
    if are_held():
        after_host_function.next = now + LOOK_INTERVAL
    elif (store := getattr(guest, "store", None)) is not None and store.engine.signals:
        raise InstanceLostError(
            f"SIGSEGV or a signal like it is handled by {lost_to()} since host function `{name}` "
            "ran, which would end the process if the plugin trapped now "
            "(`plugwasm.use_explicit_checks`)"
        )


def host_function_error(name: str, exception: BaseException, guest: Guest) -> Error:
    if isinstance(exception, (CancelledError, TimeoutError)) and exception.plugin is None:
        guest.remaining()  # raises it again if the call has ended
    try:
        words = truncate(str(exception), MAX_MESSAGE)
    except Exception:
        words = "(it cannot be shown)"
    return HostFunctionError(
        f"the host function `{name}` raised {type(exception).__name__}: {words}"
    )


def infer_function(
    namespace: str | None,
    name: str,
    f: Callable[..., Any],
    user_data: tuple[Any, ...] = (),
    *,
    described_by: Callable[..., Any] | None = None,
) -> Function:
    """Return a host function whose signature follows from its annotations. It is not registered.

    Args:
        namespace: The module name that plugins import it from.
        name: The name that they import it by.
        f: The function.
        user_data: Passed to it after the rest.
        described_by: A method of an interface, whose annotations count instead.
    """
    return InferredFunction(namespace, name, f, user_data, described_by)


if TYPE_CHECKING:

    @overload
    def host_fn(name: Callable[..., Any]) -> Function: ...
    @overload
    def host_fn(
        name: str | None = ...,
        namespace: str | None = ...,
        signature: tuple[Sequence[ValType], Sequence[ValType]] | None = ...,
        user_data: Any = ...,
        *,
        register: bool = ...,
    ) -> Callable[[Callable[..., Any]], Function]: ...


def host_fn(
    name: str | Callable[..., Any] | None = None,
    namespace: str | None = None,
    signature: tuple[Sequence[ValType], Sequence[ValType]] | None = None,
    user_data: Any = None,
    *,
    register: bool = True,
) -> Any:
    """Make a host function of a Python function, and register it.

    All plugins of the process that are made without `functions` can import a registered function,
    as with the official SDK. What a plugin imports that way is logged as a warning, once.

    Use it as `@host_fn`, or with arguments.

    Args:
        name: The name that plugins import it by; the function's own if not given. Or the function
            itself.
        namespace: The module name that plugins import it from, which may be empty; None for
            `extism:host/user`.
        signature: The types of the parameters and of the results. The function then gets the
            plugin, and parameters and results as `Val`. If not given, they are inferred from the
            annotations: str, bytes, int, float, bool; dataclasses, Structs, TypedDicts,
            NamedTuples, models of pydantic, and containers that say what is in them, as JSON; and
            Annotated with `Json`, `Pickle` (results only), `UnsafePickle`, `Codec` or one of
            `plugwasm.codecs`; a tuple as result for several. The first parameter may be a
            `CurrentPlugin`.
        user_data: A value, or a list of values, passed to the function after the rest.
        register: False for a function that only plugins can import that get it by `functions`.

    Raises:
        OptionError: An argument is not of its type.
        TypeError: The function's annotations do not tell a signature.
    """
    if callable(name):
        return host_fn(register=register)(name)
    if not (name is None or isinstance(name, str)):
        raise OptionError(
            f"host_fn: name: expected text, or the function itself, got {describe_value(name)}",
            field="name",
        )
    if signature is not None and not (isinstance(signature, (tuple, list)) and len(signature) == 2):
        raise OptionError(
            "host_fn: signature: expected a pair of lists, ([ValType.I64], [ValType.I64]), got "
            f"{truncate(repr(signature), 60)}",
            field="signature",
        )
    check_flag("register", register)
    own: str | None = name
    data = (
        ()
        if user_data is None
        else tuple(user_data)
        if isinstance(user_data, (list, tuple))
        else (user_data,)
    )

    def decorate(f: Callable[..., Any]) -> Function:
        if not callable(f):
            raise OptionError(
                f"host_fn: expected a function to decorate, got {describe_value(f)}", field="f"
            )
        own_name = str(getattr(f, "__name__", type(f).__name__)) if own is None else own
        if isinstance(f, Function):
            f = f.f
        if signature is None:
            function = infer_function(namespace, own_name, f, data)
        else:
            function = Function(namespace, own_name, signature[0], signature[1], f, *data)
        if register:
            registered.append(function)
        return function

    return decorate


host_fn.__module__ = "plugwasm"
