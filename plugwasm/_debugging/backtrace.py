"""Map the frames of an error to functions and source lines.

This happens afterwards, from the bytes of the modules, at no cost for calls.
"""

from __future__ import annotations

from dataclasses import dataclass

from .._engine import EngineFailure, truncate, wat_to_wasm
from .code_map import CodeMap
from .dwarf import SourceLines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .._manifest.resolve import ModuleSpec

_MAGIC = b"\0asm"
_MANGLED = ("_Z", "_R")


@dataclass(frozen=True, slots=True)
class Frame:
    """A function on the stack of a guest.

    Attributes:
        function: Its name, demangled; for an inlined function, its name in the source.
        module: The module of the manifest that it belongs to, or None if that is not known.
        offset: The offset of the instruction in the module's bytes, or None.
        file, line, column: The place in the source, as far as the module's DWARF tells it, else
            None.
        inlined: Whether the compiler inlined it into the function of the next frame that is not
            inlined.
    """

    function: str
    module: str | None = None
    offset: int | None = None
    file: str | None = None
    line: int | None = None
    column: int | None = None
    inlined: bool = False

    def __str__(self) -> str:
        where = "" if self.offset is None else f" @ {self.offset:#x}"
        if self.file is not None:
            place = ":".join(
                str(part)
                for part in (truncate(self.file), self.line, self.column)
                if part is not None
            )
            where = f" at {place}"
        return f"{truncate(self.function)}{where}{' (inlined)' if self.inlined else ''}"


Frame.__module__ = "plugwasm.debugging"


class Backtrace(tuple[Frame, ...]):
    """Frames, innermost first. As text, one a line."""

    __module__ = "plugwasm.debugging"

    __slots__ = ()

    def __str__(self) -> str:
        return "\n".join(f"  {i}: {frame}" for i, frame in enumerate(self))


class CodeLocation:
    """An instruction in a module: the module's index, the function's index, and the offset in the
    module's bytes."""

    __slots__ = ("function", "module", "offset")

    def __init__(self, module: int, function: int, offset: int) -> None:
        self.module = module
        self.function = function
        self.offset = offset


class PluginCodeMap:
    """The code maps of a plugin's modules, in the order of the manifest.

    Each is read on first use.
    """

    def __init__(self, sources: Sequence[ModuleSpec], main: str) -> None:
        self.sources = sources
        self.main: int = next(i for i, source in enumerate(sources) if source.name == main)
        self._code_maps: dict[int, CodeMap] = {}
        self._source_lines: dict[int, SourceLines] = {}

    def __getitem__(self, number: int) -> CodeMap:
        known = self._code_maps.get(number)
        if known is None:
            known = self._code_maps[number] = CodeMap(to_binary(self.sources[number].wasm))
        return known

    def source_lines(self, number: int) -> SourceLines | None:
        """Return the DWARF of a module, or None if it has none."""
        if not self[number].has_custom_section(".debug_info"):
            return None
        known = self._source_lines.get(number)
        if known is None:
            known = self._source_lines[number] = SourceLines(self[number])
        return known

    def locate(self, text: str) -> tuple[str, CodeLocation | None]:
        """Return the function's name and the location for a frame as errors have it (`module!name @
        0x1f`)."""
        text, at, number = text.rpartition(" @ 0x")
        if not at:
            return number, None
        try:
            offset = int(number, 16)
        except ValueError:
            return text, None
        best: tuple[int, str, CodeLocation] | None = None
        for i in range(len(self.sources)):
            found = self._match(i, text, offset)
            if found is not None:
                score, name, place = found
                score += i == self.main
                if best is None or score > best[0]:
                    best = score, name, place
        return (text, None) if best is None else best[1:]

    def _match(self, number: int, text: str, offset: int) -> tuple[int, str, CodeLocation] | None:
        """Return how well a frame fits to a module, or None if it cannot be one of its
        functions."""
        code = self[number]
        label = "" if code.module_name is None else f"{truncate(code.module_name)}!"
        if not text.startswith(label):
            return None
        function = code.function_at(offset)
        if function is None:
            return None
        name, place = text.removeprefix(label), CodeLocation(number, function, offset)
        known = code.name(function)
        if known is None:
            return (
                (4, code.display_name(function), place) if name == f"function {function}" else None
            )
        if truncate(known) == name:
            return 4, known, place
        return (2, name, place) if known.startswith(_MANGLED) else None


def resolve_frames(frames: Iterable[str], maps: PluginCodeMap) -> Backtrace:
    """Return the frames of an error, with everything that the modules tell about them."""
    found: list[Frame] = []
    for text in frames:
        name, place = maps.locate(str(text))
        if place is None:
            found.append(Frame(name))
            continue
        module, offset, source_lines = (
            maps.sources[place.module].name,
            place.offset,
            maps.source_lines(place.module),
        )
        locations = (
            source_lines.locate(offset - maps[place.module].code_start)
            if source_lines is not None
            else []
        )
        if not locations:
            found.append(Frame(name, module, offset))
        found += [
            Frame(at.function or name, module, offset, at.file, at.line, at.column, at.inlined)
            for at in locations
        ]
    return Backtrace(found)


def to_binary(wasm: bytes) -> bytes:
    """Return a module in the binary format, whichever format it has."""
    if wasm.startswith(_MAGIC):
        return wasm
    try:
        return wat_to_wasm(wasm)
    except EngineFailure:  # cannot happen: it was compiled before
        return b"\0asm\1\0\0\0"
