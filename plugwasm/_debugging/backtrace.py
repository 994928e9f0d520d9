"""From the frames of an error to functions and source lines, after the fact: by the bytes of the modules, at no cost for calls."""

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
        function: Its name, demangled; of what was inlined, the name in the source.
        module: The module of the manifest that it belongs to, or None when that is not known.
        offset: Where in the module's bytes the instruction is, or None.
        file, line, column: The same place in the source, as far as the module's DWARF says; None where it does not.
        inlined: Whether the compiler put it into the function of the next frame that is not.
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
    """Frames, innermost first. As text: one a line."""

    __module__ = "plugwasm.debugging"

    __slots__ = ()

    def __str__(self) -> str:
        return "\n".join(f"  {i}: {frame}" for i, frame in enumerate(self))


class CodeLocation:
    """A frame of the engine, found in a module: which of them, the function's index, and the offset in the module's bytes."""

    __slots__ = ("function", "module", "offset")

    def __init__(self, module: int, function: int, offset: int) -> None:
        self.module = module
        self.function = function
        self.offset = offset


class PluginCodeMap:
    """The modules of a plugin, in the order of the manifest. Each is read when it is needed."""

    def __init__(self, sources: Sequence[ModuleSpec], main: str) -> None:
        self.sources = sources
        self.main = next(i for i, source in enumerate(sources) if source.name == main)
        self._code_maps: dict[int, CodeMap] = {}
        self._source_lines: dict[int, SourceLines] = {}

    def __getitem__(self, number: int) -> CodeMap:
        known = self._code_maps.get(number)
        if known is None:
            known = self._code_maps[number] = CodeMap(to_binary(self.sources[number].wasm))
        return known

    def source_lines(self, number: int) -> SourceLines | None:
        """The DWARF of a module, or None when it has none."""
        if not self[number].has_custom_section(".debug_info"):
            return None
        known = self._source_lines.get(number)
        if known is None:
            known = self._source_lines[number] = SourceLines(self[number])
        return known

    def locate(self, text: str) -> tuple[str, CodeLocation | None]:
        """The function's name in a frame as errors have it (`module!name @ 0x1f`), and where that is."""
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
        """How well a frame fits to a module, if it may be one of its functions."""
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
    """The frames of an error, with all that the modules say of them."""
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
    """A module in the binary format, whichever it came in."""
    if wasm.startswith(_MAGIC):
        return wasm
    try:
        return wat_to_wasm(wasm)
    except EngineFailure:  # it was compiled once, so this cannot be
        return b"\0asm\1\0\0\0"
