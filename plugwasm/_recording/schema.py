"""The parts of a recording.

As far as possible, no part holds an offset into the plugin's memory. Blocks are named by their
origin, so that another build of the plugin, which allocates differently, gets the same answers.

Decisions: docs/decisions.md, 26.3.
"""

from __future__ import annotations

import struct
from typing import Annotated, Any

from msgspec import Meta, Struct

from .._host.functions import USER_NAMESPACE
from .._public import set_public_module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

FORMAT_VERSION = 1

Int32 = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Count = Annotated[int, Meta(ge=0, le=2**62)]
Size = Annotated[int, Meta(ge=0, le=2**32)]
Float = Annotated[str, Meta(max_length=64)]
"""Text of a float. Bounded, since Python takes quadratic time to convert long ones."""


class _Part(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """A part of a recording.

    There are many, and none refers to what holds it, so the garbage collector does not track them.
    """


class Data(_Part, frozen=True):
    """Bytes: as text where they are UTF-8, else as Base64."""

    text: str | None = None
    base64: bytes | None = None

    def __post_init__(self) -> None:
        if (self.text is None) == (self.base64 is None):
            raise ValueError("expected either `text` or `base64`")

    @classmethod
    def of(cls, data: bytes) -> Data:
        """Return the part that holds these bytes."""
        try:
            return cls(text=data.decode())
        except UnicodeDecodeError:
            return cls(base64=data)

    @property
    def octets(self) -> bytes:
        """The bytes."""
        if self.text is not None:
            return self.text.encode()
        return self.base64 or b""


class Value(_Part, frozen=True):
    """A value of a call: a number; the content of a memory block; or the block itself, named by the
    parameter or the effect that it comes from."""

    i32: Int32 | None = None
    i64: Int64 | None = None
    f32: Float | None = None
    f64: Float | None = None
    text: str | None = None
    base64: bytes | None = None
    param: Count | None = None
    block: Count | None = None

    def __post_init__(self) -> None:
        if (
            self.i32,
            self.i64,
            self.f32,
            self.f64,
            self.text,
            self.base64,
            self.param,
            self.block,
        ).count(None) != 7:
            raise ValueError("expected one of i32, i64, f32, f64, text, base64, param, block")
        if self.f32 is not None:
            _parse_bits("f32", self.f32)
        elif self.f64 is not None:
            _parse_bits("f64", self.f64)

    @classmethod
    def number(cls, type: str, raw: int) -> Value:
        """Return the value for the raw bits of a number of this Wasm type."""
        if type == "i32":
            return cls(i32=(raw & 0xFFFFFFFF ^ 0x80000000) - 0x80000000)
        if type == "i64":
            return cls(i64=(raw & _MASK_64 ^ 1 << 63) - (1 << 63))
        return (
            cls(f32=_format_float("f32", raw & 0xFFFFFFFF))
            if type == "f32"
            else cls(f64=_format_float("f64", raw & _MASK_64))
        )

    @classmethod
    def content(cls, data: bytes) -> Value:
        """Return the value for a block with this content."""
        try:
            return cls(text=data.decode())
        except UnicodeDecodeError:
            return cls(base64=data)

    @property
    def octets(self) -> bytes | None:
        """The content of the block; None for other values."""
        return self.base64 if self.text is None else self.text.encode()

    @property
    def type(self) -> str:
        """The Wasm type."""
        return next(
            (name for name in ("i32", "f32", "f64") if getattr(self, name) is not None), "i64"
        )

    @property
    def raw(self) -> int | None:
        """The bits of a number; None for other values."""
        for name in ("f32", "f64"):
            if (text := getattr(self, name)) is not None:
                return _parse_bits(name, text)
        number = self.i64 if self.i32 is None else self.i32
        return None if number is None else number & (_MASK_64 if self.i32 is None else 0xFFFFFFFF)


_MASK_64 = 0xFFFFFFFFFFFFFFFF
_FLOAT_FORMATS = {"f32": ("<f", "<I"), "f64": ("<d", "<Q")}


def _format_float(type: str, raw: int) -> str:
    """Format a float so that all bits are kept: a NaN with its payload."""
    value, bits = _FLOAT_FORMATS[type]
    number = struct.unpack(value, struct.pack(bits, raw))[0]
    return repr(number) if number == number else f"nan:{raw:x}"


def _parse_bits(type: str, text: str) -> int:
    """Return the bits of a float that `_format_float` has formatted. Raises `ValueError`."""
    value, bits = _FLOAT_FORMATS[type]
    try:
        packed = (
            struct.pack(bits, int(text[4:], 16))
            if text.startswith("nan:")
            else struct.pack(value, float(text))
        )
    except (struct.error, OverflowError):
        raise ValueError(f"expected a number that fits into {type}") from None
    return int(struct.unpack(bits, packed)[0])


# ---- what host functions do ----------------------------------------------------------------------


class _Effect(_Part, frozen=True, tag_field="do"):
    """Something that a host function did to the plugin."""


class Alloc(_Effect, frozen=True, tag="alloc"):
    """A block was allocated."""

    size: Size


class Put(_Effect, frozen=True, tag="put"):
    """A block with this content was allocated."""

    data: Data


class Free(_Effect, frozen=True, tag="free"):
    """A block was freed."""

    block: Value


class Write(_Effect, frozen=True, tag="write"):
    """Bytes were written into a block."""

    block: Value
    data: Data
    at: Size = 0


class SetError(_Effect, frozen=True, tag="set_error"):
    """A block was made the error of the call."""

    block: Value


class SetVar(_Effect, frozen=True, tag="set_var"):
    """A var of the plugin was set, or deleted if `data` is None.

    A name that is not UTF-8 is in `base64`.
    """

    name: str = ""
    data: Data | None = None
    base64: bytes | None = None

    @classmethod
    def of(cls, name: bytes, data: Data | None) -> SetVar:
        """Return the effect for a var with this name."""
        try:
            return cls(name.decode(), data)
        except UnicodeDecodeError:
            return cls(data=data, base64=name)

    @property
    def var(self) -> bytes:
        """The name of the var."""
        return self.name.encode() if self.base64 is None else self.base64


Effect = Alloc | Put | Free | Write | SetError | SetVar


class Failure(_Part, frozen=True):
    """An exception.

    Attributes:
        type: The name of its class.
        message: Its message. In the outcome of a call it is for readers only: offsets and names of
            exports differ from build to build.
    """

    type: str
    message: str = ""
    code: Int64 | None = None
    guest_message: str | None = None
    trap: str | None = None


class HttpStatus(_Part, frozen=True):
    """The answers of `http_status_code` and `http_headers` after a request."""

    status: Annotated[int, Meta(ge=0, le=2**31 - 1)] = 0
    headers: dict[str, str] | None = None


class HostCall(_Part, frozen=True):
    """A call of a host function, and its answer.

    Attributes:
        name, namespace: Of the function.
        args: What the plugin passed, without pointers to where results go.
        effects: What the function did, in order.
        results: What it returned.
        out: For WASI functions, what was written through each result pointer.
        http: For `http_request`, the status and headers of the response.
        error: What it raised.
    """

    name: str
    namespace: str = USER_NAMESPACE
    args: tuple[Value, ...] = ()
    effects: tuple[Effect, ...] = ()
    results: tuple[Value, ...] = ()
    out: tuple[Data, ...] = ()
    http: HttpStatus | None = None
    error: Failure | None = None


class Call(_Part, frozen=True):
    """A call of the plugin.

    Attributes:
        function: The export.
        input, output: `output` is None if the call failed.
        config, log_level: Their values, if they differ from those of the previous call.
        vars: The plugin's vars after the call, if they differ from those after the previous call;
            `more_vars` has those whose names are not UTF-8.
        host_calls: The host calls that the plugin made, in order. Those that only concern its
            config, vars and logs are left out.
        error: What the call raised.
    """

    function: str
    input: Data
    config: dict[str, str] | None = None
    log_level: Int32 | None = None
    host_calls: tuple[HostCall, ...] = ()
    output: Data | None = None
    error: Failure | None = None
    vars: dict[str, Data] | None = None
    more_vars: tuple[tuple[bytes, Data], ...] = ()

    def __post_init__(self) -> None:
        if (self.output is None) == (self.error is None):
            raise ValueError("expected either `output` or `error`")


class RecordedModule(_Part, frozen=True):
    """A module of the plugin: its name, its origin, and the SHA-256 of its bytes."""

    name: str
    sha256: str
    origin: str = ""


def split_vars(
    vars: Mapping[bytes, bytes],
) -> tuple[dict[str, Data], tuple[tuple[bytes, Data], ...]]:
    """Return the vars as they are written: those whose names are text, and the others."""
    texts: dict[str, Data] = {}
    others: list[tuple[bytes, Data]] = []
    for name, value in vars.items():
        try:
            texts[name.decode()] = Data.of(value)
        except UnicodeDecodeError:
            others.append((name, Data.of(value)))
    return texts, tuple(sorted(others, key=lambda var: var[0]))


def join_vars(
    texts: Mapping[str, Data], others: Iterable[tuple[bytes, Data]]
) -> dict[bytes, bytes]:
    """Return the vars that `split_vars` has split."""
    return {name.encode(): data.octets for name, data in texts.items()} | {
        name: data.octets for name, data in others
    }


def to_encodable_text(value: Any) -> str:
    """Return `str(value)` as text that UTF-8 can encode: lone surrogates are replaced."""
    try:
        return str(value).encode("utf-8", "replace").decode()
    except Exception:
        return f"({type(value).__name__}, which cannot be shown)"


set_public_module(
    "plugwasm.recording",
    *(Alloc, Call, Data, Failure, Free, HostCall, HttpStatus, Put, RecordedModule, SetError),
    *(SetVar, Value, Write),
)
