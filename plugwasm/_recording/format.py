"""A recording as a file: JSON that can be read in a diff, and is read strictly, for it may come from anywhere.

Nothing in it is an offset into the plugin's memory, as far as that can be known: blocks are named by where they come from, so that another
build of the plugin, which allocates otherwise, gets the same answers.

Reading one takes a small multiple of its size, whatever is in it: what it would be as objects is estimated from its brackets, commas and
strings before any is made (`weighing`), and texts that Python converts have bounds.
"""

from __future__ import annotations

import os
import struct
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from .._files import shown_path
from .._nesting import MAX_LEVELS
from .._values import printable
from ..errors import RecordingError, SourceError
from .files import write_file
from .weighing import Weight

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ..compiled import PluginInput
    from ..limits import Limits
    from .replaying import Replay

VERSION = 1
MAX_FILE = 2**28
"""Bytes of a recording that is read, if nothing else is said."""
MAX_WEIGHT = 6
"""How many times its size a recording may be as objects. Those that are saved are 2 to 5 times theirs."""
MAX_LIMITS = 10_000
"""Bytes of a recording's limits."""
LIGHT = 2**24
"""What a recording may be as objects, in bytes, however small it is."""

USER = "extism:host/user"

Int32 = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Count = Annotated[int, Meta(ge=0, le=2**62)]
Size = Annotated[int, Meta(ge=0, le=2**32)]
Float = Annotated[str, Meta(max_length=64)]
"""Python takes quadratic time to convert long ones."""


class _Part(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """A part of a recording. There are many, none of them refers to what holds it, and the garbage collector need not look at them."""


class Data(_Part, frozen=True):
    """Bytes: as text where they are UTF-8, else as Base64."""

    text: str | None = None
    base64: bytes | None = None

    def __post_init__(self) -> None:
        if (self.text is None) == (self.base64 is None):
            raise ValueError("expected either `text` or `base64`")

    @classmethod
    def of(cls, data: bytes) -> Data:
        try:
            return cls(text=data.decode())
        except UnicodeDecodeError:
            return cls(base64=data)

    @property
    def octets(self) -> bytes:
        if self.text is not None:
            return self.text.encode()
        return self.base64 or b""


class Value(_Part, frozen=True):
    """A value of a call: a number; what a block of memory holds; or the block itself, by the parameter or the effect that it is from."""

    i32: Int32 | None = None
    i64: Int64 | None = None
    f32: Float | None = None
    f64: Float | None = None
    text: str | None = None
    base64: bytes | None = None
    param: Count | None = None
    block: Count | None = None

    def __post_init__(self) -> None:
        if (self.i32, self.i64, self.f32, self.f64, self.text, self.base64, self.param, self.block).count(None) != 7:
            raise ValueError("expected one of i32, i64, f32, f64, text, base64, param, block")
        if self.f32 is not None:
            _bits("f32", self.f32)
        elif self.f64 is not None:
            _bits("f64", self.f64)

    @classmethod
    def number(cls, type: str, raw: int) -> Value:
        """A raw value of a Wasm type."""
        if type == "i32":
            return cls(i32=(raw & 0xFFFFFFFF ^ 0x80000000) - 0x80000000)
        if type == "i64":
            return cls(i64=(raw & _MASK ^ 1 << 63) - (1 << 63))
        return cls(f32=_float("f32", raw & 0xFFFFFFFF)) if type == "f32" else cls(f64=_float("f64", raw & _MASK))

    @classmethod
    def content(cls, data: bytes) -> Value:
        """What a block holds."""
        try:
            return cls(text=data.decode())
        except UnicodeDecodeError:
            return cls(base64=data)

    @property
    def octets(self) -> bytes | None:
        """What the block held; None for all else."""
        return self.base64 if self.text is None else self.text.encode()

    @property
    def type(self) -> str:
        """The Wasm type."""
        return next((name for name in ("i32", "f32", "f64") if getattr(self, name) is not None), "i64")

    @property
    def raw(self) -> int | None:
        """The bits of a number; None for all else."""
        for name in ("f32", "f64"):
            if (text := getattr(self, name)) is not None:
                return _bits(name, text)
        number = self.i64 if self.i32 is None else self.i32
        return None if number is None else number & (_MASK if self.i32 is None else 0xFFFFFFFF)


_MASK = 0xFFFFFFFFFFFFFFFF
_FLOATS = {"f32": ("<f", "<I"), "f64": ("<d", "<Q")}


def _float(type: str, raw: int) -> str:
    """All bits count: NaNs are written as theirs."""
    value, bits = _FLOATS[type]
    number = struct.unpack(value, struct.pack(bits, raw))[0]
    return repr(number) if number == number else f"nan:{raw:x}"


def _bits(type: str, text: str) -> int:
    value, bits = _FLOATS[type]
    try:
        packed = struct.pack(bits, int(text[4:], 16)) if text.startswith("nan:") else struct.pack(value, float(text))
    except (struct.error, OverflowError):
        raise ValueError(f"expected a number that fits into {type}") from None
    return int(struct.unpack(bits, packed)[0])


# ---- what host functions do ------------------------------------------------------------------------------------------------------------


class _Effect(_Part, frozen=True, tag_field="do"):
    """What a host function did to the plugin."""


class Alloc(_Effect, frozen=True, tag="alloc"):
    """It made a block."""

    size: Size


class Put(_Effect, frozen=True, tag="put"):
    """It made a block with that content."""

    data: Data


class Free(_Effect, frozen=True, tag="free"):
    """It freed a block."""

    block: Value


class Write(_Effect, frozen=True, tag="write"):
    """It wrote into a block."""

    block: Value
    data: Data
    at: Size = 0


class SetError(_Effect, frozen=True, tag="set_error"):
    """It made a block the error of the call."""

    block: Value


class SetVar(_Effect, frozen=True, tag="set_var"):
    """It set a var of the plugin, or deleted it. A name that is not UTF-8 is in `base64`."""

    name: str = ""
    data: Data | None = None
    base64: bytes | None = None

    @classmethod
    def of(cls, name: bytes, data: Data | None) -> SetVar:
        try:
            return cls(name.decode(), data)
        except UnicodeDecodeError:
            return cls(data=data, base64=name)

    @property
    def var(self) -> bytes:
        """The name."""
        return self.name.encode() if self.base64 is None else self.base64


Effect = Alloc | Put | Free | Write | SetError | SetVar


class Failure(_Part, frozen=True):
    """What was raised.

    Attributes:
        type: The name of its class.
        message: What it said. Of the outcome of a call it is for readers only: offsets and names of exports differ from build to build.
    """

    type: str
    message: str = ""
    code: Int64 | None = None
    guest_message: str | None = None
    trap: str | None = None


class HttpStatus(_Part, frozen=True):
    """What `http_status_code` and `http_headers` say after a request."""

    status: Annotated[int, Meta(ge=0, le=2**31 - 1)] = 0
    headers: dict[str, str] | None = None


class HostCall(_Part, frozen=True):
    """A call of a host function, and what it was answered.

    Attributes:
        name, namespace: Of the function.
        args: What the plugin passed, without pointers to where results go.
        effects: What the function did, in order.
        results: What it returned.
        out: Of functions of WASI, what was written through each of the pointers that they were given.
        error: What it raised.
    """

    name: str
    namespace: str = USER
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
        input, output: The output is None where it failed.
        config, log_level: What they were, where they were not as in the call before.
        vars: The plugin's vars afterwards, where they were not as after the call before; in `more_vars` those
            whose names are not UTF-8.
        host_calls: What it asked the host for, in order; those that only concern its config, its vars and its logs are left out.
        error: What it ended with.
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


class Module(_Part, frozen=True):
    """A module of the plugin: what it is called, where it came from, and the SHA-256 of its bytes."""

    name: str
    sha256: str
    origin: str = ""


class Recording(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The life of one instance of a plugin, from its start: all that it was asked, and all that the host answered it.

    Attributes:
        version: Of the format.
        plugin: The name of the plugin.
        modules: Its modules, with the digests of their bytes; `main` is the name of the one that is called.
        wasi, fuel_limit, http_response_headers, limits: What the plugin was made with.
        config, vars, more_vars, log_level: As they were at its start.
        calls: Its calls, in order.
        incomplete: Why the recording ended before the instance did; empty if it did not.
    """

    plugwasm_recording: Annotated[int, Meta(ge=1)]
    plugin: str
    modules: list[Module]
    main: str
    wasi: bool = False
    fuel_limit: Count | None = None
    http_response_headers: bool = False
    limits: dict[str, bool | int | float | None] = {}
    config: dict[str, str] = {}
    vars: dict[str, Data] = {}
    more_vars: tuple[tuple[bytes, Data], ...] = ()
    """Vars whose names are not UTF-8, which JSON has no text for: the names in Base64."""
    log_level: Int32 = 0
    overrides: list[tuple[str, str]] = []
    """Functions of plugwasm's own that functions of the application stood for."""
    calls: list[Call] = []
    incomplete: str = ""

    @property
    def complete(self) -> bool:
        """Whether all calls of the instance are in it, so that it can be replayed."""
        return not self.incomplete

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes it to a file that only this user can read, at once: a file of that name is replaced. It holds all that passed.

        Raises:
            OSError: It cannot be written.
        """
        write_file(os.fspath(path), self.to_json())

    def to_json(self) -> bytes:
        """The content of the file."""
        return msgspec.json.format(msgspec.json.encode(self, order="deterministic"), indent=1) + b"\n"

    def replay(self, plugin: PluginInput | None = None, *, strict: bool = False, limits: Limits | None = None) -> Replay:
        """Makes the calls once more, of this plugin, and sees that all is as it was: host calls, outputs or errors, and vars.

        Nothing of the outside is asked: host functions, HTTP, files, clocks and random bytes are answered from the recording.

        Args:
            plugin: A path, bytes, or a manifest, as for `Plugin`; of a manifest only the modules count. If not given, the files that the
                recorded plugin was made of.
            strict: Whether its modules must be those that were recorded, to the byte.
            limits: What the replay may make this process spend; the defaults of `Limits` if not given. A recording may be a stranger's. Its
                own limits may not be larger, but for the timeout: a call that was given more time has no more than `limits.timeout`
                now. All calls together have ten times that.

        Raises:
            ReplayError: Something is different, or takes too long; it is an `AssertionError` too.
            RecordingError: The recording is not complete, or has larger limits; or `strict`, and the modules are others; or a file that it
                names is neither the one that was recorded nor a module in the binary format.
            ManifestError, SourceError, ModuleError: `plugin` cannot be read.
        """
        from .replaying import replay

        __tracebackhide__ = True
        return replay(self, plugin, strict=strict, limits=limits)

    def __repr__(self) -> str:
        return f"<Recording of {self.plugin!r}, {len(self.calls)} calls{'' if self.complete else ', incomplete'}>"


def load(path: str | os.PathLike[str], *, max_bytes: int = MAX_FILE) -> Recording:
    """Reads a recording.

    Args:
        path: The file.
        max_bytes: The most bytes that it may have. Reading takes up to about seven times as much memory as the file has bytes.

    Raises:
        RecordingError: There is no such file, or it is no recording, or it is too large.
    """
    from .._files import read_file

    path = os.fspath(path)
    try:
        content = read_file(path, max_bytes)
    except SourceError as error:
        raise RecordingError(f"recording: {error.message}") from error.__cause__
    return loads(content, path)


def loads(content: bytes, origin: str = "the recording") -> Recording:
    """The same from the content of a file; `origin` is for errors."""
    weight = Weight(content)
    if weight.depth > MAX_LEVELS:
        raise RecordingError(f"{shown_path(origin)} is no recording: it is nested too deep")
    if weight.bytes > max(MAX_WEIGHT * len(content), LIGHT):
        raise RecordingError(
            f"{shown_path(origin)} has {len(content)} bytes, but would take {weight.bytes} of memory: no plugin is recorded that densely"
        )
    try:
        head = msgspec.json.decode(content, type=_Head)
        if head.plugwasm_recording > VERSION:
            known = f"this plugwasm knows {VERSION}: update it"
            raise RecordingError(f"{shown_path(origin)} has version {head.plugwasm_recording} of the format, and {known}")
        if len(bytes(head.limits)) > MAX_LIMITS:
            raise RecordingError(f"{shown_path(origin)} is no recording: there are not so many limits")
        return msgspec.json.decode(content, type=Recording)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RecordingError(f"{shown_path(origin)} is no recording: {printable(str(error))}") from None


def parted(vars: Mapping[bytes, bytes]) -> tuple[dict[str, Data], tuple[tuple[bytes, Data], ...]]:
    """Vars as they are written: those whose names are text, and those whose names are not."""
    texts: dict[str, Data] = {}
    others: list[tuple[bytes, Data]] = []
    for name, value in vars.items():
        try:
            texts[name.decode()] = Data.of(value)
        except UnicodeDecodeError:
            others.append((name, Data.of(value)))
    return texts, tuple(sorted(others, key=lambda var: var[0]))


def joined(texts: Mapping[str, Data], others: Iterable[tuple[bytes, Data]]) -> dict[bytes, bytes]:
    """The same read back."""
    return {name.encode(): data.octets for name, data in texts.items()} | {name: data.octets for name, data in others}


class _Head(Struct):
    plugwasm_recording: int
    limits: msgspec.Raw = msgspec.Raw()


def words(value: Any) -> str:
    """A text from anywhere as one that can be written: what is no character is replaced."""
    try:
        return str(value).encode("utf-8", "replace").decode()
    except Exception:
        return f"({type(value).__name__}, which cannot be shown)"
