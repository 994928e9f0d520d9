"""Host functions: functions of the application that plugins can import.

Either their Wasm signature is given, and they get and set values (`Val`); or it is inferred from their annotations, and they get and
return Python objects.
"""

from __future__ import annotations

import enum
import functools
import operator
import struct
import types
from collections.abc import Mapping, Sequence, Set
from time import monotonic
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from ._engine import EngineFailure, FunctionType, HostFunction
from ._env.guest import MASK, Guest
from ._nesting import MAX_LEVELS, is_too_deep
from ._registry import registered
from .codecs import JSON, argument_reader
from .current import CurrentPlugin
from .errors import CancelledError, Error, HostFunctionError, TimeoutError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .codecs import TypedCodec

__all__ = ["Codec", "Function", "Json", "Pickle", "UnsafePickle", "Val", "ValType", "host_fn"]

USER_NAMESPACE = "extism:host/user"


class ValType(enum.Enum):
    """The types of Wasm values. `PTR` is `I64`: a handle, which is the offset of a block of the plugin's memory."""

    I32 = 0
    I64 = 1
    PTR = 1  # noqa: PIE796  # an alias
    F32 = 2
    F64 = 3
    V128 = 4
    FUNC_REF = 5
    EXTERN_REF = 6


class Val:
    """A Wasm value and its type. Assign to `value` to set a result."""

    __slots__ = ("t", "value")

    def __init__(self, t: ValType, v: Any) -> None:
        self.t = t
        self.value = v

    def __repr__(self) -> str:
        return f"Val({self.t}, {self.value})"


class Json:
    """In an annotation: the value travels as JSON, e.g. `Annotated[dict, plugwasm.Json]`."""


class Pickle:
    """In the annotation of a result: the value travels as a pickle. To read what a guest pickled, see `UnsafePickle`."""


class UnsafePickle:
    """In the annotation of a parameter: what the guest sends is unpickled, which lets the guest run any code in this process.

    Only for plugins that are trusted as much as the application itself. Nothing else makes plugwasm unpickle what a guest sent.
    """


class Codec:
    """In an annotation: the function turns the bytes that a guest sent into the parameter, or the result into bytes for the guest."""

    def __init__(self, codec: Callable[[Any], Any]) -> None:
        self.codec = codec


_KIND = {ValType.I32: "i32", ValType.I64: "i64", ValType.F32: "f32", ValType.F64: "f64"}


class Function:
    """A host function: its namespace and name, the types of its parameters and results, and a callable.

    The callable gets the plugin that calls (`CurrentPlugin`), the parameters and the results as lists of `Val`, and the user data.

    Args:
        namespace: The module name that plugins import it from; None for `extism:host/user`.
        name: The name that plugins import it by.
        args: The types of the parameters.
        returns: The types of the results.
        f: The callable.
        user_data: Passed to the callable after the rest.
    """

    def __init__(
        self,
        namespace: str | None,
        name: str,
        args: Sequence[ValType],
        returns: Sequence[ValType],
        f: Callable[..., Any],
        *user_data: Any,
    ) -> None:
        self.namespace = namespace
        self.name = name
        self.args = list(args)
        self.returns = list(returns)
        self.f = f
        self.user_data = user_data
        functools.update_wrapper(self, f, updated=())
        imported_as = (namespace or USER_NAMESPACE, name)
        self._host = HostFunction(self._type(), self._body(), imported_as, self._kinds())  # type: ignore[arg-type]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the Python function itself."""
        return self.f(*args, **kwargs)

    def _type(self) -> FunctionType:
        for type in (*self.args, *self.returns):
            if type not in _KIND:
                shown = getattr(type, "name", repr(type))
                raise TypeError(f"host function `{self.name}`: values of type {shown} cannot be passed; use ValType.I32, I64, F32, F64")
        return FunctionType(tuple(_KIND[t] for t in self.args), tuple(_KIND[t] for t in self.returns))

    def _kinds(self) -> tuple[Any, ...]:
        """The Python types of the parameters and the results, as far as they are known."""
        return ()

    def _body(self) -> Callable[[Guest, int, Any], None]:
        f, args, returns, user_data = _callable(self.name, self.f), self.args, self.returns, self.user_data
        readers = [(t, _READ[t]) for t in args]
        writers = [_WRITE[t] for t in returns]

        def run(guest: Guest, values: Any) -> None:
            plugin = CurrentPlugin(guest)
            try:
                results = [Val(t, 0) for t in returns]
                f(plugin, [Val(t, read(values[2 * i])) for i, (t, read) in enumerate(readers)], results, *user_data)
                for i, (write, result) in enumerate(zip(writers, results, strict=True)):
                    values[2 * i] = write(result.value)
            finally:
                plugin._expire()

        return _guarded(self.name, run)


class _InferredFunction(Function):
    """A host function whose signature follows from its annotations."""

    def __init__(self, namespace: str | None, name: str, f: Callable[..., Any], user_data: tuple[Any, ...]) -> None:
        import inspect

        hints = get_type_hints(f, include_extras=True)
        parameters = inspect.signature(f).parameters.values()
        names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        if user_data and not any(p.kind == p.VAR_POSITIONAL for p in parameters):
            names = names[: len(names) - len(user_data)]
        self._wants_plugin = bool(names) and hints.get(names[0]) is CurrentPlugin
        if self._wants_plugin:
            names = names[1:]
        for parameter in names:
            if parameter not in hints:
                raise TypeError(
                    f"host function `{name}`: parameter `{parameter}` has no annotation; annotate all of them, or give a `signature`"
                )
        self._decoders = [_decoder(name, parameter, hints[parameter]) for parameter in names]
        returned = hints.get("return")
        self._is_tuple = get_origin(returned) is tuple
        members = get_args(returned) if self._is_tuple else () if returned in (None, type(None)) else (returned,)
        self._encoders = [_encoder(name, member) for member in members]
        self._annotations = (*(hints[parameter] for parameter in names), *members)
        super().__init__(namespace, name, [t for t, _ in self._decoders], [t for t, _ in self._encoders], f, *user_data)

    def _kinds(self) -> tuple[Any, ...]:
        return self._annotations

    def _body(self) -> Callable[[Guest, int, Any], None]:
        name, user_data, wants_plugin, is_tuple = self.name, self.user_data, self._wants_plugin, self._is_tuple
        f = _callable(name, self.f)
        decoders = [decode for _, decode in self._decoders]
        encoders = [encode for _, encode in self._encoders]

        if len(decoders) == len(encoders) == 1 and not (is_tuple or wants_plugin or user_data):
            decode, encode = decoders[0], encoders[0]

            def run_simple(guest: Guest, caller: int, values: Any) -> None:
                # As `_guarded`, with one function call less for the commonest kind.
                try:
                    values[0] = encode(guest, f(decode(guest, values[0])))
                except (KeyboardInterrupt, EngineFailure):
                    raise
                except BaseException as exception:
                    raise _failed(name, exception, guest) from exception
                if guest.cancelled or monotonic() >= guest.deadline:
                    guest.remaining()

            return run_simple

        def run(guest: Guest, values: Any) -> None:
            plugin = CurrentPlugin(guest) if wants_plugin else None
            try:
                arguments = [decode(guest, values[2 * i]) for i, decode in enumerate(decoders)]
                result = f(plugin, *arguments, *user_data) if plugin else f(*arguments, *user_data)
                if encoders:
                    for i, (encode, member) in enumerate(zip(encoders, result if is_tuple else (result,), strict=True)):
                        values[2 * i] = encode(guest, member)
            finally:
                if plugin:
                    plugin._expire()

        return _guarded(name, run)


def _callable(name: str, f: Callable[..., Any]) -> Callable[..., Any]:
    """What a guest's thread can call: the function, or what has an event loop run it when it is `async def`."""
    target: Any = f
    while isinstance(target, functools.partial):
        target = target.func
    code = getattr(target, "__code__", None) or getattr(getattr(target, "__call__", None), "__code__", None)  # noqa: B004
    if code is None or not code.co_flags & _CO_COROUTINE:
        return f
    from ._bridge import on_event_loop

    return on_event_loop(name, f)


_CO_COROUTINE = 0x80
"""As in `inspect`."""


def _guarded(name: str, run: Callable[[Guest, Any], None]) -> Callable[[Guest, int, Any], None]:
    """The body of a host function: what it raises becomes the cause of a `HostFunctionError`, and the deadline is looked at afterwards."""

    def body(guest: Guest, caller: int, values: Any) -> None:
        try:
            run(guest, values)
        except (KeyboardInterrupt, EngineFailure):
            raise
        except BaseException as exception:
            raise _failed(name, exception, guest) from exception
        if guest.cancelled or monotonic() >= guest.deadline:
            guest.remaining()

    return body


def _failed(name: str, exception: BaseException, guest: Guest) -> Error:
    if isinstance(exception, (CancelledError, TimeoutError)) and exception.plugin is None:
        guest.remaining()  # raises it again if it came from there
    try:
        words = str(exception)
    except Exception:
        words = "(it cannot be shown)"
    return HostFunctionError(f"the host function `{name}` raised {type(exception).__name__}: {words}")


# ---- values --------------------------------------------------------------------------------------------------------------------------


def _read_i32(raw: int) -> int:
    raw &= 0xFFFFFFFF
    return raw - (1 << 32) if raw >> 31 else raw


def _read_f32(raw: int) -> float:
    value: float = struct.unpack("<f", struct.pack("<I", raw & 0xFFFFFFFF))[0]
    return value


def _read_f64(raw: int) -> float:
    value: float = struct.unpack("<d", struct.pack("<q", raw))[0]
    return value


def _write_f32(value: float) -> int:
    return int.from_bytes(struct.pack("<f", value), "little")


def _write_f64(value: float) -> int:
    return int.from_bytes(struct.pack("<d", value), "little", signed=True)


def _write_int(bits: int) -> Callable[[Any], int]:
    low, high = -(1 << bits - 1), 1 << bits

    def write(value: Any) -> int:
        number: int = operator.index(value)
        if not low <= number < high:
            raise OverflowError(f"{number} does not fit into {bits} bits")
        return number & ((1 << bits) - 1)

    return write


_READ: dict[ValType, Callable[[int], Any]] = {
    ValType.I32: _read_i32,
    ValType.I64: int,
    ValType.F32: _read_f32,
    ValType.F64: _read_f64,
}
_WRITE: dict[ValType, Callable[[Any], int]] = {
    ValType.I32: _write_int(32),
    ValType.I64: _write_int(64),
    ValType.F32: _write_f32,
    ValType.F64: _write_f64,
}


# ---- annotations -----------------------------------------------------------------------------------------------------------------------

if TYPE_CHECKING:
    Decoder = Callable[[Guest, int], Any]
    Encoder = Callable[[Guest, Any], int]


def _bytes(guest: Guest, raw: int) -> bytes:
    handle = raw & MASK
    block = guest.kernel.block(handle)
    if block is None:
        return guest.peek(handle, "a host function")
    return block.tobytes()


def _from_json(data: bytes) -> Any:
    import json

    if is_too_deep(data):
        raise ValueError(f"the JSON is nested more than {MAX_LEVELS} levels deep")
    return json.loads(data)


def _text(guest: Guest, raw: int) -> str:
    block = guest.kernel.block(raw & MASK)
    if block is None:
        return guest.peek(raw, "a host function").decode()
    return str(block, "utf-8")


def _give_text(guest: Guest, value: str) -> int:
    if not isinstance(value, str):
        raise TypeError(f"it should return str, but returned {type(value).__name__}")
    return guest.give(value.encode())


def _give_bytes(guest: Guest, value: Any) -> int:
    return guest.give(bytes(memoryview(value)))


def _giver(codec: TypedCodec, annotation: Any) -> Encoder:
    """Gives a result by a codec, after a look at its class where the annotation is one that objects have."""
    plain = _plain(annotation)
    expected = plain if isinstance(plain, type) and get_origin(plain) is None and not hasattr(plain, "__required_keys__") else object

    def give(guest: Guest, value: Any) -> int:
        if not isinstance(value, expected):
            raise TypeError(f"it should return {expected.__name__}, but returned {type(value).__name__}")
        return guest.give(codec.encode(value))

    return give


def _marker(annotation: Any) -> Any:
    """The one of our markers in an `Annotated`, or None; a class stands for its instance."""
    for item in getattr(annotation, "__metadata__", ()):
        for marker in (Json, Pickle, UnsafePickle):
            if item is marker or isinstance(item, marker):
                return marker
        if isinstance(item, Codec) or (hasattr(item, "encode") and hasattr(item, "decode")):
            return item
    return None


def _codec(annotation: Any, marker: Any) -> TypedCodec | None:
    """What values of a type travel by: the codec in the annotation, or JSON for a type that says what is in it."""
    return marker if marker is not None else JSON if _is_record(annotation) else None


def _is_record(annotation: Any) -> bool:
    """Whether it is a dataclass, a Struct, a TypedDict, a NamedTuple, a model of pydantic, or a container or a union of what is typed."""
    plain = _plain(annotation)
    origin = get_origin(plain)
    if origin in (Union, types.UnionType):
        return all(member is type(None) or _is_record(member) for member in get_args(plain))
    if not isinstance(origin or plain, type):
        return False
    if origin is not None and issubclass(origin, (Mapping, Sequence, Set)):
        return True
    return any(hasattr(origin or plain, mark) for mark in _RECORDS)


_RECORDS = ("__dataclass_fields__", "__struct_fields__", "__required_keys__", "_fields", "__pydantic_validator__")
"""Attributes that classes of records have, and others do not."""


def _plain(annotation: Any) -> Any:
    """The annotation without our markers."""
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _decoder(function: str, parameter: str, annotation: Any) -> tuple[ValType, Decoder]:
    marker = _marker(annotation)
    if marker is Json:
        return ValType.I64, lambda guest, raw: _from_json(_bytes(guest, raw))
    if marker is UnsafePickle:
        import pickle

        return ValType.I64, lambda guest, raw: pickle.loads(_bytes(guest, raw))
    if marker is Pickle:
        raise TypeError(
            f"host function `{function}`: parameter `{parameter}` would be unpickled from what the guest sends, which lets the guest "
            "run any code in this process. Use Json or a Codec; or write plugwasm.UnsafePickle if the guest is trusted that much"
        )
    if isinstance(marker, Codec):
        convert = marker.codec
        return ValType.I64, lambda guest, raw: convert(_bytes(guest, raw))
    codec = _codec(annotation, marker)
    if codec is not None:
        read = argument_reader(parameter, annotation, codec)
        return ValType.I64, lambda guest, raw: read(_bytes(guest, raw))
    plain = _plain(annotation)
    if plain is str:
        return ValType.I64, _text
    if plain is bytes:
        return ValType.I64, _bytes
    if plain is bool:
        return ValType.I32, lambda _, raw: bool(raw & 0xFFFFFFFF)
    if plain is int:
        return ValType.I64, lambda _, raw: raw
    if plain is float:
        return ValType.F64, lambda _, raw: _read_f64(raw)
    raise TypeError(f"host function `{function}`: cannot infer a Wasm type for parameter `{parameter}` of type {annotation!r}; {_HINT}")


def _encoder(function: str, annotation: Any) -> tuple[ValType, Encoder]:
    marker = _marker(annotation)
    if marker is Json:
        import json

        return ValType.I64, lambda guest, value: guest.give(json.dumps(value).encode())
    if marker in (Pickle, UnsafePickle):
        import pickle

        return ValType.I64, lambda guest, value: guest.give(pickle.dumps(value))
    if isinstance(marker, Codec):
        convert = marker.codec
        return ValType.I64, lambda guest, value: _give_bytes(guest, convert(value))
    codec = _codec(annotation, marker)
    if codec is not None:
        return ValType.I64, _giver(codec, annotation)
    plain = _plain(annotation)
    if plain is str:
        return ValType.I64, _give_text
    if plain is bytes:
        return ValType.I64, _give_bytes
    if plain is bool:
        return ValType.I32, lambda _, value: int(bool(value))
    if plain is int:
        return ValType.I64, lambda _, value: _WRITE[ValType.I64](value)
    if plain is float:
        return ValType.F64, lambda _, value: _write_f64(value)
    raise TypeError(f"host function `{function}`: cannot infer a Wasm type for its result of type {annotation!r}; {_HINT}")


_HINT = (
    "use str, bytes, int, float, bool, a dataclass or another record, list[…] or dict[…, …], a tuple of these (result only), "
    "Annotated[…, Json], Annotated[…, codecs.JSON], Annotated[…, Codec(…)], or give a `signature`"
)


def inferred(namespace: str | None, name: str, f: Callable[..., Any], user_data: tuple[Any, ...] = ()) -> Function:
    """A host function whose signature follows from its annotations. It is not registered."""
    return _InferredFunction(namespace, name, f, user_data)


def host_fn(
    name: str | None = None,
    namespace: str | None = None,
    signature: tuple[Sequence[ValType], Sequence[ValType]] | None = None,
    user_data: Any = None,
) -> Callable[[Callable[..., Any]], Function]:
    """Makes a host function of a Python function, and registers it: plugins that are made without `functions` can import it.

    Args:
        name: The name that plugins import it by; the function's own if not given.
        namespace: The module name that plugins import it from; `extism:host/user` if not given.
        signature: The types of the parameters and of the results. The function then gets the plugin, and parameters and results as `Val`.
            If not given, they are inferred from the annotations: str, bytes, int, float, bool; dataclasses, Structs, TypedDicts,
            NamedTuples, models of pydantic, and containers that say what is in them, as JSON; and Annotated with `Json`, `Pickle` (results
            only), `UnsafePickle`, `Codec` or one of `plugwasm.codecs`; a tuple as result for several. The first parameter may be a
            `CurrentPlugin`.
        user_data: A value, or a list of values, passed to the function after the rest.

    Raises:
        TypeError: The function's annotations do not tell a signature.
    """
    data = () if user_data is None else tuple(user_data) if isinstance(user_data, (list, tuple)) else (user_data,)

    def decorate(f: Callable[..., Any]) -> Function:
        own_name = name or f.__name__
        if isinstance(f, Function):
            f = f.f
        if signature is None:
            function = inferred(namespace, own_name, f, data)
        else:
            function = Function(namespace, own_name, signature[0], signature[1], f, *data)
        registered.append(function)
        return function

    return decorate
