"""Convert bytes from outside to values of a type, by msgspec; and by pydantic, whose models an
application may have.

Each reader is made once for a type and kept. Its errors say where in the data the type and the data
differ.

Nothing is built of data that exceeds the limits: its values, its depth and its keys are counted
first (`_payload_bounds.value_count`, `_payload_bounds.nesting`, `_host.hashing`). For data with
fewer bytes than it may have values, that takes one look at its length.
"""

from __future__ import annotations

import os
import sys
from functools import lru_cache
from typing import Any

from .._manifest.limits import DEFAULT_LIMITS
from .._payload_bounds.nesting import MAX_LEVELS, is_json_too_deep, is_msgpack_too_deep
from .._payload_bounds.value_count import json_exceeds, max_json_values, msgpack_exceeds
from .._platform.native_threads import RLock
from .decode_errors import DecodeError, describe_error, from_msgspec
from .error_location import ANY_KEY, MOST_BYTES, locate_keys
from .hashing import (
    HashedParts,
    find_hashed_parts,
    find_hashed_parts_of_model,
    json_exceeds_keys,
    msgpack_exceeds_keys,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Protocol

    from .._manifest.limits import Limits

    class Reader(Protocol):
        """Converts bytes to a value, or raises."""

        def __call__(self, data: bytes, limits: Limits = ..., /) -> Any: ...

    Plain = Callable[[bytes], Any]

NONE = type(None)


# ---- text and bytes ------------------------------------------------------------------------------


def read_none(data: bytes, limits: Limits = DEFAULT_LIMITS) -> None:
    if data and data != b"null":
        raise DecodeError("expected nothing, or null")


def make_raw_reader(kind: Any) -> Plain | None:
    """Return the function that reads text and bytes, or their subclasses and annotated forms; None
    for other types.
    """
    plain = strip_annotations(kind)
    if not isinstance(plain, type) or not issubclass(plain, (str, bytes, bytearray, memoryview)):
        return None
    read: Plain = _read_text if issubclass(plain, str) else bytes
    if plain not in (str, bytes):
        read = _chain(read, plain)
    if plain is not kind and hasattr(kind, "__metadata__"):
        import msgspec

        def checked(data: bytes) -> Any:
            try:
                return msgspec.convert(plain_read(data), kind)
            except msgspec.ValidationError as error:
                raise from_msgspec(error) from error

        plain_read, read = read, checked
    return read


def _read_text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise DecodeError(
            f"expected UTF-8 text, got {data[error.start : error.start + 4]!r} (byte {error.start})"
        ) from error


def ignore_limits(read: Plain) -> Reader:
    """Return a reader for a function that builds one value only, and needs no limits."""
    return lambda data, limits=DEFAULT_LIMITS: read(data)


def _chain(read: Plain, make: Callable[[Any], Any]) -> Plain:
    return lambda data: make(read(data))


# ---- JSON and MessagePack, by msgspec ------------------------------------------------------------


@lru_cache(1)
def json_encoder() -> Callable[[Any], bytes]:
    import msgspec

    return msgspec.json.Encoder(enc_hook=_encode_pydantic).encode


@lru_cache(1)
def msgpack_encoder() -> Callable[[Any], bytes]:
    import msgspec

    return msgspec.msgpack.Encoder(enc_hook=_encode_pydantic).encode


def make_json_reader(kind: Any) -> Reader:
    import msgspec

    if is_pydantic(kind):
        decode: Plain = kind.__pydantic_validator__.validate_json
        hashed = find_hashed_parts_of_model(kind.__pydantic_core_schema__, is_json=True)
    else:
        hashed = find_hashed_parts(_inspect_type(kind), is_json=True)
        decode = msgspec.json.Decoder(_object_as_any(kind), dec_hook=_decode_pydantic_json).decode

    return _make_bounded_reader(
        "JSON", decode, hashed, is_json_too_deep, json_exceeds, json_exceeds_keys
    )


def make_msgpack_reader(kind: Any) -> Reader:
    import msgspec

    if is_pydantic(kind):
        decode: Plain = _chain(
            msgspec.msgpack.Decoder().decode, kind.__pydantic_validator__.validate_python
        )
        hashed = find_hashed_parts_of_model(kind.__pydantic_core_schema__, is_json=False).or_(
            HashedParts(untyped=True)
        )
    else:
        hashed = find_hashed_parts(_inspect_type(kind), is_json=False)
        decode = msgspec.msgpack.Decoder(
            _object_as_any(kind), dec_hook=_decode_pydantic_msgpack
        ).decode

    return _make_bounded_reader(
        "MessagePack", decode, hashed, is_msgpack_too_deep, msgpack_exceeds, msgpack_exceeds_keys
    )


def _make_bounded_reader(
    format: str,
    decode: Plain,
    hashed: HashedParts,
    is_deep: Callable[[bytes], bool],
    exceeds: Callable[[bytes, int], bool],
    hashes: Callable[[bytes, HashedParts, int], bool],
) -> Reader:
    """Return a reader that decodes within the limits and words its errors in one way."""
    import msgspec

    is_hashed, embedded = hashed.any, hashed.embedded
    plain = msgspec.json if format == "JSON" else msgspec.msgpack

    def complaint(data: bytes) -> tuple[str, str] | None:
        try:
            decode(data)
        except msgspec.DecodeError as error:
            found = from_msgspec(error)
            return found.reason, found.path
        return None

    def read(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Any:
        # Count the values first: measuring the depth takes time for each of them.
        values, keys = limits.decoded_values, limits.decoded_keys
        if (
            values is not None
            and len(data) > values
            and (exceeds(data, values) or (embedded and max_json_values(data) > values))
        ):
            raise too_many_values_error(format, data, limits, is_deep)
        if is_deep(data):
            raise too_deep_error(format)
        if is_hashed and keys is not None and hashes(data, hashed, keys):
            raise DecodeError(
                f"the {format} has more for sets and keys of dicts than the limit of {keys}, past "
                "which numbers of one hash would take "
                "too long (`Limits.decoded_keys`)"
            )
        try:
            return decode(data)
        except msgspec.DecodeError as error:
            told_of = from_msgspec(error)
            if ANY_KEY in told_of.path and len(data) <= MOST_BYTES[format]:
                told_of.path = locate_keys(
                    data, (told_of.reason, told_of.path), complaint, plain.decode, plain.encode
                )
                told_of.args = told_of.reason, told_of.path
            raise told_of from error
        except ValueError as error:  # from pydantic, or text that is not UTF-8
            raise DecodeError(*describe_error(error)) from error

    return read


def too_many_values_error(
    format: str, data: bytes, limits: Limits, is_deep: Callable[[bytes], bool]
) -> DecodeError:
    if is_deep(data[:_PREFIX_BYTES]):  # the more specific error
        return too_deep_error(format)
    return DecodeError(
        f"the {format} has more values than the limit of {limits.decoded_values} "
        "(`Limits.decoded_values`)"
    )


def too_deep_error(format: str) -> DecodeError:
    return DecodeError(f"the {format} is nested more than {MAX_LEVELS} levels deep")


_PREFIX_BYTES = 2**14
"""Bytes of data that take no time to look at."""


def read_plain_json(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Any:
    """Read any JSON text by the standard library, as the official SDK does."""
    import json

    # Too little data to exceed any limit.
    if len(data) < MAX_LEVELS and (limits.decoded_values or MAX_LEVELS) >= MAX_LEVELS:
        return json.loads(data)
    encoding = json.detect_encoding(data)
    text = data.decode(encoding, "surrogatepass")
    if not encoding.startswith("utf-8"):  # the counters below expect UTF-8
        data = text.encode("utf-8", "surrogatepass")
    values = limits.decoded_values
    if values is not None and len(data) > values and json_exceeds(data, values):
        raise too_many_values_error("JSON", data, limits, is_json_too_deep)
    if is_json_too_deep(data):
        raise too_deep_error("JSON")
    if len(data) > _MAX_DIGITS and not 0 < sys.get_int_max_str_digits() <= _MAX_DIGITS:
        return json.loads(text, parse_int=_parse_int)
    return json.loads(text)


_MAX_DIGITS = 4300
"""The most digits of an integer. To read them takes time that grows with their square. Python has
the same limit, unless the application lifted it.
"""


def _parse_int(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise DecodeError(f"the JSON has a number of more than {_MAX_DIGITS} digits")
    return int(digits)


def _object_as_any(kind: Any) -> Any:
    return Any if kind is object else kind


# msgspec inspects a type on first use, and crashes if two threads do so at once.
_build_lock = RLock()


def _after_fork_in_child() -> None:
    global _build_lock
    _build_lock = RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


@lru_cache(512)
def _build_cached(build: Callable[[Any], Reader], kind: Any) -> Reader:
    with _build_lock:
        return build(kind)


def get_reader(build: Callable[[Any], Reader], kind: Any) -> Reader:
    """Return what `build` makes of a type. It is made once, and threads can share it."""
    try:
        hash(kind)
    except TypeError:  # e.g. an annotation with a list in it
        return _build_cached.__wrapped__(build, kind)
    return _build_cached(build, kind)


def _inspect_type(kind: Any) -> Any:
    """Return what msgspec knows of a type. Raise if nothing can be converted to a class in it."""
    import msgspec

    info = msgspec.inspect.type_info(_object_as_any(kind))
    for found, is_dataclass in _iter_custom_classes(info, set()):
        if found is object:  # any value is an object
            continue
        inside = "" if found is kind else f" (in {type_name(kind)})"
        if is_dataclass and is_pydantic(found):
            raise TypeError(
                f"{type_name(found)}{inside} is a dataclass of pydantic, which is checked only "
                "when it is asked for by itself, or within a "
                "model: make it a model"
            )
        if not (is_dataclass or is_pydantic(found)):
            raise TypeError(
                f"nothing can be converted to {type_name(found)}{inside}: use builtin types, a "
                "dataclass, a Struct, a TypedDict or a "
                "NamedTuple of these, or a pydantic model; or give a `codec` of your own"
            )
    return info


def _iter_custom_classes(info: Any, seen: set[Any]) -> Iterator[tuple[Any, bool]]:
    """Yield the classes within a type that msgspec does not know or takes for dataclasses, and
    whether they are the latter.
    """
    import msgspec

    if isinstance(info, msgspec.inspect.CustomType):
        yield info.cls, False
        return
    owner = getattr(info, "cls", None)
    if owner is not None:
        if owner in seen:
            return
        seen.add(owner)
        if isinstance(info, msgspec.inspect.DataclassType):
            yield owner, True
    for field in info.__struct_fields__:
        value = getattr(info, field)
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, (msgspec.inspect.Type, msgspec.inspect.Field)):
                yield from _iter_custom_classes(part, seen)


# ---- pydantic, which is not imported here: it has left its marks on the application's classes ----


def is_pydantic(kind: Any) -> bool:
    return hasattr(kind, "__pydantic_validator__") and isinstance(kind, type)


def _encode_pydantic(value: Any) -> Any:
    if is_pydantic(type(value)):
        return value.__pydantic_serializer__.to_python(value, mode="json")
    raise TypeError(f"values of type {type(value).__name__} have no form as JSON or MessagePack")


def _decode_pydantic_json(kind: Any, value: Any) -> Any:
    if kind is object:
        return value
    # Through JSON, because models accept more there: a strict one takes dates as text only in JSON.
    return _validate(kind.__pydantic_validator__.validate_json, json_encoder()(value))


def _decode_pydantic_msgpack(kind: Any, value: Any) -> Any:
    if kind is object:
        return value
    return _validate(kind.__pydantic_validator__.validate_python, value)


def _validate(validate: Callable[[Any], Any], value: Any) -> Any:
    try:
        return validate(value)
    except ValueError as error:
        # msgspec will put the path of the model in front.
        raise DecodeError(*describe_error(error)) from None


# ---- types ---------------------------------------------------------------------------------------


def strip_annotations(annotation: Any) -> Any:
    """Return the type without `Annotated`, `NewType` and `type X = …` around it."""
    while True:
        if hasattr(annotation, "__metadata__"):
            annotation = annotation.__origin__
        elif hasattr(annotation, "__supertype__"):
            annotation = annotation.__supertype__
        elif type(annotation).__name__ == "TypeAliasType":
            annotation = annotation.__value__
        else:
            return annotation


def type_name(kind: Any) -> str:
    """Return a type roughly as its author wrote it."""
    kind = strip_annotations(kind)
    name = getattr(kind, "__name__", None) if not hasattr(kind, "__args__") else None
    return f"`{name or str(kind).replace('typing.', '')}`"
