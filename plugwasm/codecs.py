"""Codecs: convert Python values to the bytes that a guest gets, and its bytes to a type.

    plugin.call("find", {"name": "Ada"}, returns=list[User])
    plugin.call("find", query, returns=list[User], codec=plugwasm.codecs.MSGPACK)

Without a codec, str is UTF-8 text, bytes and other buffers are passed as they are, and everything
else is JSON. `JSON`, `MSGPACK` and `RAW` apply to all types alike, and any object with the two
methods of `TypedCodec` can take their place.
"""

from ._host.codecs import (
    JSON,
    MSGPACK,
    RAW,
    DecodeError,
    TypedCodec,
    _Json,  # noqa: F401  # older pickles name it, and the next two
    _Msgpack,  # noqa: F401
    _Raw,  # noqa: F401
)

__all__ = ["JSON", "MSGPACK", "RAW", "DecodeError", "TypedCodec"]
