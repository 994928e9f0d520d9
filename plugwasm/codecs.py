"""Codecs: from Python values to the bytes that a guest gets, and from the bytes that it gives to a type.

    plugin.call("find", {"name": "Ada"}, returns=list[User])
    plugin.call("find", query, returns=list[User], codec=plugwasm.codecs.MSGPACK)

Without a codec, str is UTF-8 text, bytes (or any buffer) are as they are, and everything else is JSON. `JSON`, `MSGPACK` and `RAW` apply to
all types alike, and any object with the two methods of `TypedCodec` can take their place.
"""

from ._host.codecs import JSON, MSGPACK, RAW, DecodeError, TypedCodec, _Json, _Msgpack, _Raw  # noqa: F401  # older pickles name them

__all__ = ["JSON", "MSGPACK", "RAW", "DecodeError", "TypedCodec"]
