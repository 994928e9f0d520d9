"""Convert Python values to the bytes that a guest gets, and the bytes that it returns to a type.

Without a codec, str is UTF-8 text, bytes (or any buffer) are passed as they are, and everything
else is JSON. `JSON`, `MSGPACK` and `RAW` use one format for all types, and any object with the two
methods of `TypedCodec` can take their place:

    plugin.call("find", {"name": "Ada"}, returns=list[User])
    plugin.call("find", query, returns=list[User], codec=plugwasm.codecs.MSGPACK)

Whatever msgspec converts can be passed: builtin types, dataclasses, `msgspec.Struct`, `TypedDict`,
`NamedTuple`, enums, dates and times, `UUID`, `Decimal`, unions, and containers of these; and models
of pydantic, where the application has it.
"""

from __future__ import annotations

from contextvars import ContextVar
from functools import lru_cache
from typing import Any, Protocol

from .._manifest.limits import DEFAULT_LIMITS
from ..errors import OptionError, OutputError, truncate
from .conversion import (
    NONE,
    get_reader,
    ignore_limits,
    is_pydantic,
    json_encoder,
    make_json_reader,
    make_msgpack_reader,
    make_raw_reader,
    msgpack_encoder,
    read_none,
    type_name,
)
from .decode_errors import DecodeError, describe_error, describe_start, with_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .._manifest.limits import Limits
    from .conversion import Reader

__all__ = ["JSON", "MSGPACK", "RAW", "DecodeError", "TypedCodec"]

KEPT_BYTES = 256
"""Bytes of an output that an `OutputError` keeps."""

_limits: ContextVar[Limits] = ContextVar("plugwasm.codecs.limits", default=DEFAULT_LIMITS)
"""The limits of the plugin whose bytes a codec of the application decodes."""


class TypedCodec(Protocol):
    """Converts values to bytes, and bytes to a value of a type.

    `plugwasm.Codec` is something else: one function, for one parameter of a host function.

    `decode` has to bound what it builds of bytes that come from a plugin. The limits of that plugin
    hold in `JSON` and `MSGPACK` if it calls these; elsewhere they use the default limits.
    """

    def encode(self, value: Any, /) -> bytes:
        """Return the bytes for a value."""

    def decode(self, data: bytes, type: Any, /) -> Any:
        """Return the value of that type. Raise `DecodeError`, or any other exception, if the bytes
        are none.
        """


TypedCodec.__module__ = "plugwasm.codecs"


# ---- codecs --------------------------------------------------------------------------------------


class _Json:
    __module__ = "plugwasm.codecs"

    def encode(self, value: Any, /) -> bytes:
        if is_pydantic(type(value)):
            return bytes(value.__pydantic_serializer__.to_json(value))
        return json_encoder()(value)

    def decode(self, data: bytes, type: Any, /) -> Any:
        return get_reader(make_json_reader, type)(data, _limits.get())

    def __repr__(self) -> str:
        return "plugwasm.codecs.JSON"

    def __reduce__(self) -> str:
        return "JSON"


class _Msgpack:
    __module__ = "plugwasm.codecs"

    def encode(self, value: Any, /) -> bytes:
        return msgpack_encoder()(value)

    def decode(self, data: bytes, type: Any, /) -> Any:
        return get_reader(make_msgpack_reader, type)(data, _limits.get())

    def __repr__(self) -> str:
        return "plugwasm.codecs.MSGPACK"

    def __reduce__(self) -> str:
        return "MSGPACK"


class _Raw:
    __module__ = "plugwasm.codecs"

    def encode(self, value: Any, /) -> bytes:
        return value.encode() if isinstance(value, str) else bytes(memoryview(value))

    def decode(self, data: bytes, type: Any, /) -> Any:
        read = make_raw_reader(type)
        if read is None:
            raise TypeError(
                f"RAW gives str, bytes, bytearray or memoryview, but no {type_name(type)}"
            )
        return read(data)

    def __repr__(self) -> str:
        return "plugwasm.codecs.RAW"

    def __reduce__(self) -> str:
        return "RAW"


JSON: TypedCodec = _Json()
"""Everything as JSON, also str (in quotes) and bytes (as base64)."""
MSGPACK: TypedCodec = _Msgpack()
"""Everything as MessagePack."""
RAW: TypedCodec = _Raw()
"""Bytes as they are, and str as UTF-8; nothing else."""


# ---- what a call sends and gets ------------------------------------------------------------------


def encode_input(value: Any) -> bytes:
    """Return the bytes to send for an input that is neither text nor a buffer.

    Raises:
        TypeError: The value has no JSON form.
    """
    try:
        return JSON.encode(value)
    except TypeError as error:
        raise TypeError(
            f"a value of type {type(value).__name__} cannot be sent: {error}; pass bytes, or give "
            "a `codec`"
        ) from error


def unencodable_input_error(
    error: UnicodeEncodeError, plugin: str | None, function_name: str
) -> OptionError:
    """Return the error for text that cannot be sent."""
    where = f"the input of `{truncate(function_name)}`" + (
        f" of plugin `{plugin}`" if plugin else ""
    )
    return OptionError(
        f"{where}: expected text that can be encoded as UTF-8, got a lone surrogate at character "
        f"{error.start}; pass bytes",
        field="data",
        plugin=plugin,
        function=function_name,
    )


def prepare_typed_call(
    function: str, data: Any, parse: Any, returns: Any, codec: TypedCodec | None, plugin: str | None
) -> tuple[Any, Callable[[bytes], Any]]:
    """Return `data` and `parse` for a call that was made with `returns` or `codec`."""
    if returns is None:
        raise OptionError(
            f"call of `{truncate(function)}`: returns: None is no type; write returns=type(None) "
            "for an output that is empty or null, or "
            "leave it out for bytes",
            field="returns",
        )
    if codec is not None and not callable(
        getattr(codec, "decode", None) if not isinstance(codec, (str, bytes)) else None
    ):
        given = codec if isinstance(codec, str) else type(codec).__name__
        raise OptionError(
            f"call of `{truncate(function)}`: codec: expected plugwasm.codecs.JSON, MSGPACK or "
            "RAW, or an object with "
            f"`encode` and `decode`, got {truncate(str(given), 40)}",
            field="codec",
        )
    if codec is not None and not (type(data) is bytes and not data):
        try:
            data = codec.encode(data)
        except UnicodeEncodeError as error:
            raise unencodable_input_error(error, plugin, function) from None
    if returns is ...:
        return data, parse
    if getattr(getattr(returns, "__origin__", returns), "__name__", "") == "Measured":
        raise TypeError(
            f"call of `{truncate(function)}`: only a plugin that is observed can measure its "
            "calls; make it with `observe=True`"
        )
    if isinstance(returns, (str, bytes, int, float)) or (
        callable(returns) and not isinstance(returns, type) and hasattr(returns, "__code__")
    ):
        hint = "; did you mean `parse`?" if callable(returns) else ""
        raise TypeError(
            f"call of `{truncate(function)}`: `returns` is to be a type, got {returns!r}{hint}"
        )
    if parse is not bytes:
        raise TypeError(
            f"call of `{truncate(function)}`: give either `parse` or `returns`, not both"
        )
    return data, make_output_reader(returns, codec, plugin, function)


class OutputReader:
    """Convert an export's output to a value of a type, or raise `OutputError`.

    `Plugin.call` recognises it by `takes_limits`: it passes the limits of the plugin, and checks
    the deadline.
    """

    __slots__ = ("_facts", "_read")

    takes_limits = True

    def __init__(
        self, returns: Any, codec: TypedCodec | None, plugin: str | None, function: str
    ) -> None:
        self._read = make_reader(returns, codec)
        self._facts = returns, plugin, function

    def __call__(self, output: bytes, limits: Limits = DEFAULT_LIMITS) -> Any:
        try:
            return self._read(output, limits)
        except MemoryError:
            raise
        except Exception as error:
            returns, plugin, function = self._facts
            reason, path = describe_error(error)
            where = (
                f"`{truncate(function)}` of plugin `{plugin}`"
                if plugin
                else f"`{truncate(function)}`"
            )
            raise OutputError(
                f"{where}: the output is no {type_name(returns)}: {with_path(reason, path)}; it "
                f"{describe_start(output)}",
                plugin=plugin,
                function=function,
                path=path,
                output=output[:KEPT_BYTES],
            ) from error


class OptionalOutputReader:
    """An `OutputReader` that returns None for an empty output."""

    __slots__ = ("_read",)

    takes_limits = True

    def __init__(self, read: OutputReader) -> None:
        self._read = read

    def __call__(self, output: bytes, limits: Limits = DEFAULT_LIMITS) -> Any:
        return self._read(output, limits) if output else None


def make_output_reader(
    returns: Any, codec: TypedCodec | None, plugin: str | None, function: str
) -> OutputReader:
    """Return a function that converts the outputs of an export to a type.

    Raises:
        TypeError: No output could ever be of that type.
    """
    if codec is None or codec is JSON or codec is MSGPACK:
        try:
            return _cached_output_reader(returns, codec, plugin, function)  # type: ignore[arg-type]
        except (
            TypeError
        ):  # e.g. an annotation with a list in it; other errors are raised again below
            pass
    return OutputReader(returns, codec, plugin, function)


_cached_output_reader = lru_cache(512)(OutputReader)


def make_reader(kind: Any, codec: TypedCodec | None = None) -> Reader:
    """Return a function that converts bytes to a type, within the limits that it is given.

    Raises:
        TypeError: No bytes could ever be of that type.
    """
    if codec is None:
        return get_reader(_make_default_reader, kind)
    if isinstance(codec, _Json):
        return get_reader(make_json_reader, kind)
    if isinstance(codec, _Msgpack):
        return get_reader(make_msgpack_reader, kind)
    if isinstance(codec, _Raw) and make_raw_reader(kind) is None:
        raise TypeError(f"RAW gives str, bytes, bytearray or memoryview, but no {type_name(kind)}")

    def read(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Any:
        token = _limits.set(limits)
        try:
            return codec.decode(data, kind)
        finally:
            _limits.reset(token)

    return read


def _make_default_reader(kind: Any) -> Reader:
    if kind is NONE:
        return read_none
    raw = make_raw_reader(kind)
    return make_json_reader(kind) if raw is None else ignore_limits(raw)


def make_argument_reader(parameter: str, kind: Any, codec: TypedCodec) -> Reader:
    """Return a function that converts what a guest passed to a host function to a type, or raises
    `DecodeError`.
    """
    read = make_reader(kind, codec)

    def decode(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Any:
        try:
            return read(data, limits)
        except Exception as error:
            reason, path = describe_error(error)
            raise DecodeError(
                f"the guest passed for `{parameter}` what is no {type_name(kind)}: "
                f"{with_path(reason, path)}; it {describe_start(data)}"
            ) from error

    return decode
