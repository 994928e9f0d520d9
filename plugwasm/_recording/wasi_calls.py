"""How a recording sees functions of WASI preview 1: which parameters are inputs, and which say
where results go.

A function that succeeds writes to every place that its parameters name for results, and nowhere
else; one that fails writes nothing. So a call is its inputs, its error number, and the data for
each of those places.
"""

from __future__ import annotations

from .._wasi import abi
from .._wasi.descriptors import MAX_TRANSFER, read_iovecs
from ..errors import RecordingError
from .schema import Data, Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .._wasi.abi import WasiMemory

# The roles of the parameters:
# p   a pointer to a path; a length follows
# w   a pointer to buffers that are written out; their number follows
# r   a pointer to buffers that are filled; their number follows
# b   a pointer to one buffer that is filled; its length follows
# oN  a pointer to where a result of N bytes goes
# s   a pointer to the subscriptions of `poll_oneoff`
# e   a pointer to its events
# v   a value
# -   nothing, or nothing more than the parameter before it
_ROLES = {
    "clock_res_get": "v o8",
    "clock_time_get": "v - o8",
    "fd_advise": "v v v v",
    "fd_allocate": "v v v",
    "fd_close": "v",
    "fd_datasync": "v",
    "fd_fdstat_get": "v o24",
    "fd_fdstat_set_flags": "v v",
    "fd_fdstat_set_rights": "v v v",
    "fd_filestat_get": "v o64",
    "fd_filestat_set_size": "v v",
    "fd_filestat_set_times": "v v v v",
    "fd_pread": "v r - v o4",
    "fd_prestat_dir_name": "v b v",
    "fd_prestat_get": "v o8",
    "fd_pwrite": "v w - v o4",
    "fd_read": "v r - o4",
    "fd_readdir": "v b v v o4",
    "fd_renumber": "v v",
    "fd_seek": "v v v o8",
    "fd_sync": "v",
    "fd_tell": "v o8",
    "fd_write": "v w - o4",
    "path_create_directory": "v p -",
    "path_filestat_get": "v v p - o64",
    "path_filestat_set_times": "v v p - v v v",
    "path_link": "v v p - v p -",
    "path_open": "v v p - v v v v o4",
    "path_readlink": "v p - b v o4",
    "path_remove_directory": "v p -",
    "path_rename": "v p - v p -",
    "path_symlink": "p - v p -",
    "path_unlink_file": "v p -",
    "poll_oneoff": "s e - o4",
    "random_get": "b v",
    "sock_accept": "v v o4",
    "sock_recv": "v r - v o4 o2",
    "sock_send": "v w - v o4",
    "sock_shutdown": "v v",
}
ROLES = {name: roles.split() for name, roles in _ROLES.items()}
_OWN_FUNCTIONS = frozenset(
    (
        "args_get",
        "args_sizes_get",
        "environ_get",
        "environ_sizes_get",
        "sched_yield",
        "proc_exit",
        "proc_raise",
    )
)
_STREAMS = (0, 1, 2)
_MAX_PATH = 2**16


class StandardStreams:
    """Knows which calls concern the plugin's own standard streams.

    They work in a replay as otherwise, so the plugin may write more or less to them.

    This ends when a file takes the place of one of them.
    """

    def __init__(self) -> None:
        self._are_plain = True

    def bypass_recording(self, name: str, args: Sequence[int]) -> bool:
        """Return whether a call is answered without the outside, and so is not recorded."""
        if name in _OWN_FUNCTIONS:
            return True
        if name == "fd_renumber":
            if args[0] in _STREAMS or args[1] in _STREAMS:
                self._are_plain = False
            return False
        return self._are_plain and name.startswith("fd_") and args[0] in _STREAMS


def read_inputs(memory: WasiMemory, name: str, args: Sequence[int]) -> list[Value]:
    """Return what the plugin passes, without pointers.

    A pointer outside of its memory is a number.
    """
    values = []
    for i, role in enumerate(ROLES[name]):
        if role == "v":
            values.append(Value.number(abi.SIGNATURES[name][i], args[i]))
        elif role in ("p", "w", "r", "s"):
            try:
                values.append(
                    _read_content(memory, role, args[i], args[i + (1 if role != "s" else 2)])
                )
            except abi.MemoryFault:
                values.append(Value.number("i32", args[i]))
    return values


def _read_content(memory: WasiMemory, role: str, pointer: int, count: int) -> Value:
    if role == "p":
        return Value.content(memory.read(pointer, min(count, _MAX_PATH)))
    if role == "s":
        return Value(text=", ".join(_read_subscriptions(memory, pointer, count)))
    found = read_iovecs(memory, pointer, count, MAX_TRANSFER)
    return Value(i32=sum(map(len, found))) if role == "r" else Value.content(b"".join(found))


def _read_subscriptions(memory: WasiMemory, pointer: int, count: int) -> Iterator[str]:
    """Yield what is waited for, without the plugin's userdata, which may be an address."""
    for record in _read_records(memory, pointer, count):
        _, kind = abi.SUBSCRIPTION_HEAD.unpack_from(record)
        if kind == abi.EVENT_CLOCK:
            clock, timeout, _, flags = abi.SUBSCRIPTION_CLOCK.unpack_from(record, 16)
            yield f"clock {clock} {'at' if flags & abi.CLOCK_ABSTIME else 'for'} {timeout} ns"
        else:
            names = {abi.EVENT_FD_READ: "read", abi.EVENT_FD_WRITE: "write"}
            yield f"{names.get(kind, kind)} {abi.U32.unpack_from(record, 16)[0]}"


def _read_records(memory: WasiMemory, pointer: int, count: int) -> list[bytes]:
    size = abi.SUBSCRIPTION_SIZE
    data = memory.read(pointer, min(count, 1024) * size)
    return [data[at : at + size] for at in range(0, len(data), size)]


def read_outputs(memory: WasiMemory, name: str, args: Sequence[int]) -> list[Data]:
    """Return what a successful call wrote: data for each place that its parameters name."""
    roles = ROLES[name]
    moved = memory.u32(args[roles.index("o4")]) if "o4" in roles else 0
    found = []
    for i, role in enumerate(roles):
        if role[0] == "o":
            found.append(memory.read(args[i], int(role[1:])))
        elif role == "b":
            found.append(memory.read(args[i], moved if "o4" in roles else args[i + 1]))
        elif role == "r":
            found.append(b"".join(read_iovecs(memory, args[i], args[i + 1], moved)))
        elif role == "e":
            found.append(_read_events(memory, args, moved))
    return [Data.of(data) for data in found]


def _read_events(memory: WasiMemory, args: Sequence[int], count: int) -> bytes:
    """Return the events, each with the index of its subscription in place of the userdata."""
    marks = [abi.U64.unpack_from(record)[0] for record in _read_records(memory, args[0], args[2])]
    size = abi.EVENT.size
    data = memory.read(args[1], count * size)
    return b"".join(
        abi.U64.pack(marks.index(abi.U64.unpack_from(data, at)[0])) + data[at + 8 : at + size]
        for at in range(0, len(data), size)
    )


def write_outputs(memory: WasiMemory, name: str, args: Sequence[int], out: Sequence[Data]) -> None:
    """Write the recorded results to where the parameters point now.

    Raises:
        MemoryFault: A pointer is outside of the plugin's memory.
        RecordingError: The results cannot be those of this function.
    """
    roles = ROLES[name]
    places = [i for i, role in enumerate(roles) if role[0] in "obre"]
    if len(places) != len(out):
        raise _make_error(name)
    for i, data in zip(places, out, strict=True):
        role, content = roles[i], data.octets
        if role == "r":
            _scatter(memory, name, args, i, content)
            continue
        if role == "e":
            content = _restore_userdata(memory, name, args, content)
        elif len(content) > args[i + 1] if role == "b" else len(content) != int(role[1:]):
            raise _make_error(name)
        memory.write(args[i], content)


def _scatter(memory: WasiMemory, name: str, args: Sequence[int], i: int, content: bytes) -> None:
    for buffer in read_iovecs(memory, args[i], args[i + 1], MAX_TRANSFER):
        part, content = content[: len(buffer)], content[len(buffer) :]
        buffer[: len(part)] = part
    if content:
        raise _make_error(name)


def _restore_userdata(memory: WasiMemory, name: str, args: Sequence[int], content: bytes) -> bytes:
    records, size = _read_records(memory, args[0], args[2]), abi.EVENT.size
    if len(content) % size or len(content) > len(records) * size:
        raise _make_error(name)
    events = []
    for at in range(0, len(content), size):
        number = abi.U64.unpack_from(content, at)[0]
        if number >= len(records):
            raise _make_error(name)
        events.append(records[number][:8] + content[at + 8 : at + size])
    return b"".join(events)


def _make_error(name: str) -> RecordingError:
    return RecordingError(
        f"the recording is damaged: what it has for `{name}` cannot be results of that function"
    )
