"""The messages between application and worker.

    application → worker        worker → application

    Confine                     Confined
    Load                        Loaded, Failed
    CallExport                  Done, Failed; before them any number of Line and HostCall
    Return, Raise               (answer a HostCall)
    Peek, Put, Alloc, SetError  Answer, NotNow; while a HostCall is open
                                NoRoom: a block of a Return could not be made, so the HostCall is
                                still open

Decoders are strict, and the receiver checks what a number or a name refers to. Messages hold only
numbers, text, bytes, and lists and maps of these.

Messages of a worker are bounded before anything is built of them, so that the application holds a
small multiple of the guest's memory, whatever the worker sends:

1. A message is as long as its kind may be, and of a kind that may come now (`Bounds`). The rest is
   not even read.
2. A list or map says first how many values it has, and the decoder looks at that before it makes
   room. So each of them has a bound here.
3. A text, or bytes, is no longer than its message.

Decisions: docs/decisions.md, 31.3.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from .._engine import MAX_EXPORTS, MAX_IMPORTS, MAX_VALUES

U64 = Annotated[int, Meta(ge=0)]
"""A number that fits into 64 bits. msgpack has no larger ones."""
S64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]

INLINE = 2**16
"""Bytes of a block that are sent with a call of a host function; of a longer one, its length."""
MAX_FRAMES = 1000
"""The most frames of a backtrace that are sent."""
MAX_TEXT = 2**20
"""The most characters of a text of an error that are sent."""

ValueTypes = Annotated[
    list[Literal["i32", "i64", "f32", "f64", "v128", "funcref", "externref", "reference"]],
    Meta(max_length=MAX_VALUES),
]
Length = Annotated[int, Meta(ge=0, le=2**32)]
Texts = Annotated[list[str], Meta(max_length=MAX_FRAMES)]


class Message(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """Base of all messages."""


# ---- application → worker ------------------------------------------------------------------------


class Confine(Message, tag=1):
    """The first message: what the worker may keep, and what it needs to start its threads.

    Attributes:
        paths: Paths that its guest may be granted, and whether for reading only.
        memories, stack_bytes: As in `Limits`.
        fuel: Whether fuel will be counted.
    """

    memory_bytes: int | None
    descriptors: int
    user: tuple[int, int] | None
    paths: list[tuple[str, bool]]
    memories: int
    stack_bytes: int
    fuel: bool


class HostFunctionType(Message):
    """A host function of the application; its place in the list is its number."""

    namespace: str
    name: str
    params: list[str]
    results: list[str]


class Load(Message, tag=2):
    """The plugin: its modules (name, bytes, origin), and the arguments of its `CompiledPlugin`.

    Attributes:
        compiled: Modules that the application has compiled, since they are code of plugwasm: for
            their names, what the compiler made, and the facts that the engine does not tell.
        own_clock, own_random: Whether time and random bytes are the worker's own; otherwise it asks
            the application for them.
    """

    modules: list[tuple[str, bytes, str]]
    compiled: dict[str, tuple[bytes, bytes]]
    main: str
    name: str
    allowed_paths: dict[str, str]
    timeout_ms: int | None
    limits: dict[str, bool | int | float | None]
    wasi: bool
    clock_resolution: int
    own_clock: bool
    own_random: bool
    fuel_limit: int | None
    functions: list[HostFunctionType]


class CallExport(Message, tag=3):
    """Calls an export.

    Attributes:
        number: Identifies the call.
        fresh: Whether it needs a new instance.
        measure: Whether the end of the call is to say how much memory the instance has.
    """

    number: int
    function: str
    data: memoryview
    fresh: bool
    measure: bool


class Return(Message, tag=4):
    """The host function has returned.

    Attributes:
        made: New blocks, with the numbers of the results that are to refer to them.
    """

    values: list[int]
    made: list[tuple[int, bytes]]
    freed: list[int]
    written: list[tuple[int, bytes]]


class Raise(Message, tag=5):
    """The host function has raised; the guest is to be unwound."""


class Peek(Message, tag=6):
    """Asks for the content of a block."""

    handle: int
    freed: list[int]


class Put(Message, tag=7):
    """Makes a block with that content."""

    data: bytes
    freed: list[int]


class Alloc(Message, tag=8):
    """Makes a block of that size."""

    size: int
    freed: list[int]


class SetError(Message, tag=9):
    """Sets the error of the call to a block."""

    handle: int
    freed: list[int]


# ---- worker → application ------------------------------------------------------------------------


class Confined(Message, tag=1):
    """The measures by which the worker is confined."""

    measures: Annotated[list[str], Meta(max_length=100)]


class ItemType(Message):
    """An import or export; `params` and `results` are None for all but functions."""

    module: str
    name: str
    kind: str
    params: ValueTypes | None
    results: ValueTypes | None


class Loaded(Message, tag=2):
    """The plugin is compiled and linked."""

    exports: Annotated[list[ItemType], Meta(max_length=MAX_EXPORTS)]
    imports: Annotated[list[ItemType], Meta(max_length=MAX_IMPORTS)]
    first_pages: U64
    main_pages: U64 = 0


class Failed(Message, tag=3):
    """An error: the name of a class of `plugwasm.errors`, and its fields.

    Attributes:
        number: The number of the call; 0 for an error before the first.
        error: None stands for the exception that the application kept.
        live: Whether the instance lives on.
        memory_bytes: The memory of the instance, where that was asked for.
    """

    number: int
    error: str | None
    fields: Annotated[dict[str, str | int | float | Texts | None], Meta(max_length=20)]
    fuel_used: U64 | None
    live: bool
    memory_bytes: U64 | None = None


class Done(Message, tag=4):
    """A call has ended well; otherwise as `Failed`."""

    number: int
    output: memoryview
    fuel_used: U64 | None
    live: bool
    memory_bytes: U64 | None = None


class HostCall(Message, tag=5):
    """The guest calls a host function.

    Attributes:
        blocks: For each i64 parameter that is the handle of a live block, its content or its
            length.
    """

    function: int
    values: Annotated[list[S64], Meta(max_length=MAX_VALUES)]
    blocks: Annotated[
        list[Annotated[bytes, Meta(max_length=INLINE)] | Length | None], Meta(max_length=MAX_VALUES)
    ]


class Line(Message, tag=6):
    """A line that the guest wrote to its stdout or stderr, without what exceeded its limit."""

    is_error: bool
    line: bytes
    lost: U64


class Answer(Message, tag=7):
    """An answer: to `Peek` the content, None where no block is; to `Put` and `Alloc` the handle.

    The handle is 0 when there is no room.
    """

    value: U64
    data: bytes | None


class NotNow(Message, tag=8):
    """The guest has been ended meanwhile; the host function should give up."""


class NoRoom(Message, tag=9):
    """A result of so many bytes does not fit."""

    size: U64


ToWorker = Confine | Load | CallExport | Return | Raise | Peek | Put | Alloc | SetError
FromWorker = Confined | Loaded | Failed | Done | HostCall | Line | Answer | NotNow | NoRoom

encoder = msgspec.msgpack.Encoder()


class Bounds:
    """The most bytes of a worker's messages, by kind and by when they may come.

    Args:
        memory_bytes: The memory that the guest may have.
        module_bytes: The size of all its modules. Reports on them are about as long, but for types,
            which modules need not repeat.
        handles: The most parameters of a host function that may be handles.
    """

    def __init__(self, memory_bytes: int, module_bytes: int, handles: int) -> None:
        content = memory_bytes + _SLACK
        failed = {_tag(Failed): _MAX_FAILED}
        self.memory_bytes = memory_bytes
        self.start = {_tag(Confined): _SHORT}
        self.load = {_tag(Loaded): min(_SLACK + MAX_VALUES * module_bytes, _MAX_LOADED), **failed}
        self.call = {
            _tag(Done): content,
            _tag(HostCall): _SHORT + handles * (INLINE + 8),
            _tag(Line): _SHORT,
            _tag(NoRoom): _SHORT,
            **failed,
        }
        self.answer = {_tag(Answer): content, _tag(NotNow): _SHORT}


_SHORT = 2**16
_SLACK = 2**20
"""Bytes of a message besides the guest's data."""
_MAX_LOADED = 2**26
_MAX_FAILED = 2**24


def _tag(kind: type[Message]) -> int:
    tag = kind.__struct_config__.tag
    assert isinstance(tag, int)
    return tag
