"""Write the state of a call that was ended to files: a core dump (WebAssembly/tool-conventions,
Coredump.md), and each memory as it was.

A core dump is a module that is never instantiated: memories with their content as data segments,
and in custom sections the process (`core`), its modules and instances, and the stack (`corestack`).
The engine's C API tells functions and offsets of frames, and what instances export; so there are no
locals, no operands, and no memory that is not exported.
"""

from __future__ import annotations

import os
import weakref
from dataclasses import dataclass
from itertools import count

from .._engine import ExportName
from .._engine.traps import KERNEL_NAME
from .._engine.wasm_binary import CUSTOM, DATA, MEMORY
from .._engine.wasm_encoding import signed, unsigned, vector
from ..errors import CallError, Error, OptionError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO, Self

    from .._host.guest import Guest
    from .._runtime.plugin import Plugin
    from .backtrace import PluginCodeMap

PAGE = 65536
CHUNK = 65536
"""Bytes of memory that become one data segment, without the zeros at its ends. Validators allow
100,000 segments."""
_MAIN_THREAD = "main"


@dataclass(frozen=True, slots=True)
class Dump:
    """The files of one call that was ended.

    `core` is the core dump, and `memories` has a file for each memory as it was.
    """

    core: str
    memories: tuple[str, ...]


Dump.__module__ = "plugwasm.debugging"


class Dumper:
    """Writes dumps of one plugin until it is closed.

    `dumps` has those that were written.
    """

    __module__ = "plugwasm.debugging"

    def __init__(
        self,
        plugin: Plugin,
        directory: str | os.PathLike[str],
        maps: PluginCodeMap,
        *,
        on: type[CallError] | tuple[type[CallError], ...],
        most: int,
    ) -> None:
        if plugin._post_mortem is not None:
            raise OptionError(f"plugin `{plugin.name}` writes dumps already")
        self.dumps: list[Dump] = []
        self._directory = os.path.abspath(directory)
        self._maps = maps
        self._name = plugin.name
        self._on = on
        self._most = most
        self._plugin = weakref.ref(plugin)  # it refers to this object
        self._closed = False
        plugin._post_mortem = self._dump

    def close(self) -> None:
        """Stop writing dumps."""
        plugin = self._plugin()
        # Otherwise the plugin was a pool's, and has another caller now.
        if plugin is not None and plugin._post_mortem == self._dump:
            plugin._post_mortem = None
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _dump(self, reason: BaseException, guest: Guest) -> None:
        """Write a dump.

        The plugin calls this; it must not replace the reason by an exception of its own.
        """
        if (
            not isinstance(reason, self._on)
            or not isinstance(reason, Error)
            or len(self.dumps) >= self._most
        ):
            return
        try:
            dump = self._write_files(reason, guest)
        except OSError as error:
            reason.add_note(f"no core dump could be written: {error}")
            return
        self.dumps.append(dump)
        reason.add_note(f"core dump: {dump.core}")

    def _write_files(self, reason: Error, guest: Guest) -> Dump:
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        state = GuestState(guest, self._maps)
        stem = _file_name(f"{self._name}-{reason.function}")
        for number in count():
            core = os.path.join(self._directory, f"{stem}-{os.getpid()}-{number}.coredump")
            try:
                file = _create_private_file(core)
                break
            except FileExistsError:
                continue
        written = [core]
        try:
            with file:
                write_coredump(file, self._name, state, reason.backtrace, self._maps)
            for i, (module, memory) in enumerate(state.memories):
                path = f"{core.removesuffix('.coredump')}-{i}-{_file_name(module)}.memory"
                with _create_private_file(path) as file:
                    written.append(path)
                    file.write(memory)
        except BaseException:
            for path in written:  # a partial dump would pass for a complete one
                os.unlink(path)
            raise
        return Dump(core, tuple(written[1:]))


class GuestState:
    """The instances of a guest, and the memories that they export.

    Attributes:
        modules: The name of each instance's module, the kernel's first.
        memory_numbers: For each instance, the numbers of its memories.
        memories: Each memory once: the first module that exports it, and its bytes.
        instance_numbers: The instance's number, by the module's index in the manifest.
    """

    def __init__(self, guest: Guest, maps: PluginCodeMap) -> None:
        self.modules = [KERNEL_NAME]
        self.memories: list[tuple[str, memoryview]] = []
        self.memory_numbers: list[list[int]] = [[]]
        self.instance_numbers: dict[int, int] = {}
        known: dict[int, int] = {}
        kernel = getattr(guest, "kernel", None)
        if kernel is not None:
            kernel.refresh()
            self.memories.append((KERNEL_NAME, kernel.heap))
            self.memory_numbers[0].append(0)
        # Instances are numbered with the main module last, as the plan orders them.
        main = maps.main
        order = sorted(range(len(maps.sources)), key=lambda i: i == main)
        for index, instance in sorted(guest.instances.items()):
            source = order[index]
            name = maps.sources[source].name
            memory_numbers = []
            for export in maps[source].exported_memories:
                memory = instance.find_memory(ExportName(export))
                if memory is None:
                    continue
                number = known.get(memory.address)
                if number is None:
                    number = known[memory.address] = len(self.memories)
                    self.memories.append((name, memory.view()))
                memory_numbers.append(number)
            self.instance_numbers[source] = len(self.modules)
            self.modules.append(name)
            self.memory_numbers.append(memory_numbers)


def write_coredump(
    file: BinaryIO, name: str, state: GuestState, backtrace: tuple[str, ...], maps: PluginCodeMap
) -> None:
    """Write a core dump; memories are written in chunks."""
    file.write(b"\0asm\1\0\0\0")
    file.write(_custom_section("core", b"\0" + _encode_name(name)))
    # A memory of 4 GiB has one page more than the type of a 32-bit memory can state. None is
    # larger.
    limits = [b"\0" + unsigned(min(len(memory) // PAGE, PAGE)) for _, memory in state.memories]
    file.write(_section(MEMORY, vector(limits)))
    segments = [
        (number, start, end)
        for number, (_, memory) in enumerate(state.memories)
        for start, end in _nonzero_ranges(memory)
    ]
    heads = [_segment_header(number, start, end - start) for number, start, end in segments]
    total = unsigned(len(segments))
    file.write(
        bytes([DATA])
        + unsigned(
            len(total) + sum(map(len, heads)) + sum(end - start for _, start, end in segments)
        )
        + total
    )
    for head, (number, start, end) in zip(heads, segments, strict=True):
        file.write(head)
        file.write(state.memories[number][1][start:end])
    file.write(
        _custom_section(
            "coremodules", vector([b"\0" + _encode_name(module) for module in state.modules])
        )
    )
    instances = [
        b"\0" + unsigned(i) + vector([*map(unsigned, memory_numbers)]) + vector([])
        for i, memory_numbers in enumerate(state.memory_numbers)
    ]
    file.write(_custom_section("coreinstances", vector(instances)))
    file.write(
        _custom_section(
            "corestack",
            b"\0"
            + _encode_name(_MAIN_THREAD)
            + vector(list(_encode_frames(state, backtrace, maps))),
        )
    )


def _encode_frames(
    state: GuestState, backtrace: tuple[str, ...], maps: PluginCodeMap
) -> Iterator[bytes]:
    """Yield the frames that were located in a module with an instance.

    A command has none any more.
    """
    for text in backtrace:
        _, place = maps.locate(text)
        if place is not None and place.module in state.instance_numbers:
            instance, start = (
                state.instance_numbers[place.module],
                maps[place.module].body_start(place.function),
            )
            yield (
                b"\0"
                + unsigned(instance)
                + unsigned(place.function)
                + unsigned(place.offset - start)
                + vector([])
                + vector([])
            )


def _nonzero_ranges(memory: memoryview) -> Iterator[tuple[int, int]]:
    """Yield the ranges of a memory that are not zero."""
    for at in range(0, len(memory), CHUNK):
        chunk = memory[at : at + CHUNK].tobytes()
        end = len(chunk.rstrip(b"\0"))
        if end:
            yield at + len(chunk) - len(chunk.lstrip(b"\0")), at + end


def _segment_header(memory: int, offset: int, length: int) -> bytes:
    """Return the header of an active data segment."""
    return b"\2" + unsigned(memory) + b"\x41" + _encode_address(offset) + b"\x0b" + unsigned(length)


def _section(number: int, content: bytes) -> bytes:
    return bytes([number]) + unsigned(len(content)) + content


def _custom_section(name: str, content: bytes) -> bytes:
    return _section(CUSTOM, _encode_name(name) + content)


def _encode_name(text: str) -> bytes:
    encoded = text.encode("utf-8", "replace")
    return unsigned(len(encoded)) + encoded


def _encode_address(value: int) -> bytes:
    return signed(value - (value >> 31 << 32))


def _create_private_file(path: str) -> BinaryIO:
    return open(
        os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o600),
        "wb",
    )


def _file_name(text: str) -> str:
    """Return the text with characters replaced that are not safe in a file name."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "_" for c in text)[:60]
