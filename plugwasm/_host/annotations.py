"""Conversions that a host function's annotations ask for: how to make each parameter from what the
guest passes, and how to give it each result.
"""

from __future__ import annotations

import struct
import types
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Annotated, Any, Union, get_args, get_origin

from .codecs import JSON, make_argument_reader
from .conversion import ignore_limits, read_plain_json
from .wasm_values import WRITE, ValType, read_f64, write_f64

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .codecs import TypedCodec
    from .conversion import Reader
    from .guest import Guest

    Decoder = Callable[[Guest, int], Any]
    Encoder = Callable[[Guest, Any], int]

__all__ = ["Codec", "Json", "Pickle", "UnsafePickle"]


class Json:
    """In an annotation: the value travels as JSON, e.g. `Annotated[dict, plugwasm.Json]`."""

    __module__ = "plugwasm"


class Pickle:
    """In the annotation of a result: the value travels as a pickle. To read what a guest pickled,
    see `UnsafePickle`.
    """

    __module__ = "plugwasm"


class UnsafePickle:
    """In the annotation of a parameter: what the guest sends is unpickled, so the guest can run any
    code in this process.

    Only for plugins that are trusted as much as the application itself. Nothing else makes plugwasm
    unpickle what a guest sent.
    """

    __module__ = "plugwasm"


class Codec:
    """In an annotation: the function turns the bytes that a guest sent into the parameter, or the
    result into bytes for the guest.
    """

    __module__ = "plugwasm"

    def __init__(self, codec: Callable[[Any], Any]) -> None:
        self.codec = codec


def decode_bytes(guest: Guest, raw: int) -> bytes:
    block = guest.kernel.block(raw)
    if block is None:
        return guest.read_block(raw, "a host function")
    return block.tobytes()


def _make_bounded_decoder(read: Reader) -> Decoder:
    """Return a decoder that reads what a guest passed within its limits. The time counts towards
    its call.
    """

    def decode(guest: Guest, raw: int) -> Any:
        data = decode_bytes(guest, raw)
        if len(data) < _UNTIMED_BYTES:
            return read(data, guest.limits)
        guest.remaining()
        value = read(data, guest.limits)
        guest.remaining()
        return value

    return decode


_UNTIMED_BYTES = 2**14
"""Inputs of fewer bytes are read without looking at the clock."""


def decode_text(guest: Guest, raw: int) -> str:
    block = guest.kernel.block(raw)
    if block is None:
        return guest.read_block(raw, "a host function").decode()
    # The former takes half the time, but copies the bytes.
    return block.tobytes().decode() if len(block) < SHORT_TEXT else str(block, "utf-8")


SHORT_TEXT = 2**12
"""Text of fewer bytes is copied before it is decoded."""


def decode_int(guest: Guest, raw: int) -> int:
    return raw


def encode_text(guest: Guest, value: str) -> int:
    if not isinstance(value, str):
        raise TypeError(f"it should return str, but returned {type(value).__name__}")
    data = value.encode()
    return guest.kernel.push(data) or guest.new_block(data)


def encode_bytes(guest: Guest, value: Any) -> int:
    if type(value) is bytes:
        return guest.kernel.push(value) or guest.new_block(value)
    try:
        view = memoryview(value)
    except TypeError:
        raise TypeError(f"it should return bytes, but returned {type(value).__name__}") from None
    return guest.new_block(bytes(view))


_write_i64 = WRITE[ValType.I64]


def encode_int(guest: Guest, value: Any) -> int:
    try:
        return _write_i64(value)
    except TypeError:
        raise TypeError(f"it should return int, but returned {type(value).__name__}") from None


def _encode_float(guest: Guest, value: Any) -> int:
    try:
        return write_f64(value)
    except struct.error:
        raise TypeError(f"it should return float, but returned {type(value).__name__}") from None


def _make_checked_encoder(codec: TypedCodec, annotation: Any) -> Encoder:
    """Return an encoder that gives a result by a codec, after a check of its class where the
    annotation is a class.
    """
    plain = _strip_marker(annotation)
    expected = (
        plain
        if isinstance(plain, type)
        and get_origin(plain) is None
        and not hasattr(plain, "__required_keys__")
        else object
    )

    def give(guest: Guest, value: Any) -> int:
        if not isinstance(value, expected):
            raise TypeError(
                f"it should return {expected.__name__}, but returned {type(value).__name__}"
            )
        return guest.new_block(codec.encode(value))

    return give


def _find_marker(annotation: Any) -> Any:
    """Return the marker in an `Annotated`, or None. A class stands for its instance."""
    for item in getattr(annotation, "__metadata__", ()):
        for marker in (Json, Pickle, UnsafePickle):
            if item is marker or isinstance(item, marker):
                return marker
        if isinstance(item, Codec) or (hasattr(item, "encode") and hasattr(item, "decode")):
            return item
    return None


def _find_codec(annotation: Any, marker: Any) -> TypedCodec | None:
    """Return the codec for values of a type: its annotation's, JSON for records, or None."""
    return marker if marker is not None else JSON if _is_record(annotation) else None


def _is_record(annotation: Any) -> bool:
    """Return whether a type says what is in it.

    Such are a dataclass, a Struct, a TypedDict, a NamedTuple, a model of pydantic, or a container
    or a union of types.
    """
    plain = _strip_marker(annotation)
    origin = get_origin(plain)
    if origin in (Union, types.UnionType):
        return all(member is type(None) or _is_record(member) for member in get_args(plain))
    if not isinstance(origin or plain, type):
        return False
    if origin is not None and issubclass(origin, (Mapping, Sequence, AbstractSet)):
        return True
    return any(hasattr(origin or plain, mark) for mark in _RECORD_ATTRIBUTES)


_RECORD_ATTRIBUTES = (
    "__dataclass_fields__",
    "__struct_fields__",
    "__required_keys__",
    "_fields",
    "__pydantic_validator__",
)
"""Attributes that classes of records have, and others do not."""


def _strip_marker(annotation: Any) -> Any:
    """Return the annotation without the markers."""
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def observed_type(annotation: Any) -> Any:
    """Return the type as which observers see the values: bytes where only a codec of the
    application can read them.
    """
    marker = _find_marker(annotation)
    if marker is None:
        return _strip_marker(annotation)
    return annotation if marker is Json or marker is JSON else bytes


def make_decoder(function: str, parameter: str, annotation: Any) -> tuple[ValType, Decoder]:
    """Return the Wasm type of a parameter, and the function that makes its value.

    Raises:
        TypeError: No Wasm type follows from the annotation, or it would unpickle what the guest
            sends.
    """
    marker = _find_marker(annotation)
    if marker is Json:
        return ValType.I64, _make_bounded_decoder(read_plain_json)
    if marker is UnsafePickle:
        import pickle

        return ValType.I64, lambda guest, raw: pickle.loads(decode_bytes(guest, raw))
    if marker is Pickle:
        raise TypeError(
            f"host function `{function}`: parameter `{parameter}` would be unpickled from what the "
            "guest sends, which lets the guest "
            "run any code in this process. Use Json or a Codec; or write plugwasm.UnsafePickle if "
            "the guest is trusted that much"
        )
    if isinstance(marker, Codec):
        return ValType.I64, _make_bounded_decoder(ignore_limits(marker.codec))
    codec = _find_codec(annotation, marker)
    if codec is not None:
        return ValType.I64, _make_bounded_decoder(
            make_argument_reader(parameter, annotation, codec)
        )
    plain = _strip_marker(annotation)
    if plain is str:
        return ValType.I64, decode_text
    if plain is bytes:
        return ValType.I64, decode_bytes
    if plain is bool:
        return ValType.I32, lambda _, raw: bool(raw & 0xFFFFFFFF)
    if plain is int:
        return ValType.I64, decode_int
    if plain is float:
        return ValType.F64, lambda _, raw: read_f64(raw)
    raise TypeError(
        f"host function `{function}`: cannot infer a Wasm type for parameter `{parameter}` of type "
        f"{annotation!r}; {_SUPPORTED_TYPES}"
    )


def make_encoder(function: str, annotation: Any) -> tuple[ValType, Encoder]:
    """Return the Wasm type of a result, and the function that gives its value to the guest.

    Raises:
        TypeError: No Wasm type follows from the annotation.
    """
    marker = _find_marker(annotation)
    if marker is Json:
        import json

        return ValType.I64, lambda guest, value: guest.new_block(json.dumps(value).encode())
    if marker in (Pickle, UnsafePickle):
        import pickle

        return ValType.I64, lambda guest, value: guest.new_block(pickle.dumps(value))
    if isinstance(marker, Codec):
        convert = marker.codec
        return ValType.I64, lambda guest, value: encode_bytes(guest, convert(value))
    codec = _find_codec(annotation, marker)
    if codec is not None:
        return ValType.I64, _make_checked_encoder(codec, annotation)
    plain = _strip_marker(annotation)
    if plain is str:
        return ValType.I64, encode_text
    if plain is bytes:
        return ValType.I64, encode_bytes
    if plain is bool:
        return ValType.I32, lambda _, value: int(bool(value))
    if plain is int:
        return ValType.I64, encode_int
    if plain is float:
        return ValType.F64, _encode_float
    raise TypeError(
        f"host function `{function}`: cannot infer a Wasm type for its result of type "
        f"{annotation!r}; {_SUPPORTED_TYPES}"
    )


_SUPPORTED_TYPES = (
    "use str, bytes, int, float, bool, a dataclass or another record, list[…] or dict[…, …], a "
    "tuple of these (result only), "
    "Annotated[…, Json], Annotated[…, codecs.JSON], Annotated[…, Codec(…)], or give a `signature`"
)
