"""Find the functions of a module in its bytes, and their names (WebAssembly 3.0, chapter 5, and
appendix 7.4)."""

from __future__ import annotations

from bisect import bisect_right

from .._engine.wasm_binary import CODE, CUSTOM, iter_sections, read_leb128

_IMPORT, _EXPORT = 2, 7
_FUNCTION, _TABLE, _MEMORY, _GLOBAL, _TAG = range(5)
_TYPED_REFERENCES = (0x63, 0x64)
_MODULE_NAME, _FUNCTION_NAMES = 0, 1
MAX_NAMES = 1_000_000
"""Entries of a name section that are read: as many as a module may have functions."""


class CodeMap:
    """The functions of a valid module in the binary format.

    Custom sections may hold anything: what cannot be read there is ignored.

    Attributes:
        module_name: The module's name in the name section, or None.
        code_start: Where the content of the code section starts; addresses in DWARF count from
            there.
        imported_functions: How many functions it imports; they have the first indexes.
        exported_memories: The names of the memories that it exports.
    """

    def __init__(self, wasm: bytes) -> None:
        self.wasm = wasm
        self.module_name: str | None = None
        self.exported_memories: list[str] = []
        self.code_start: int = 0
        self.imported_functions: int = 0
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._names: dict[int, str] = {}
        self._exports: dict[int, str] = {}
        self._custom_sections: dict[str, tuple[int, int]] = {}
        for section, start, end in iter_sections(wasm):
            if section == _IMPORT:
                self.imported_functions = _count_imported_functions(wasm, start)
            elif section == _EXPORT:
                self._read_export_section(start)
            elif section == CODE:
                self._read_code_section(start)
            elif section == CUSTOM and end <= len(wasm):
                name, at = _read_name(wasm, start, end)
                self._custom_sections.setdefault(name, (at, end))
        if "name" in self._custom_sections:
            try:
                self._read_name_section(*self._custom_sections["name"])
            except IndexError:
                pass  # truncated: keep the names before that

    def custom_section(self, name: str) -> bytes:
        """Return the content of a custom section; empty if there is none."""
        start, end = self._custom_sections.get(name, (0, 0))
        return self.wasm[start:end]

    def has_custom_section(self, name: str) -> bool:
        """Return whether there is a custom section with this name."""
        return name in self._custom_sections

    def function_at(self, offset: int) -> int | None:
        """Return the index of the function whose body has the byte at this offset of the module, or
        None."""
        number = bisect_right(self._starts, offset) - 1
        return (
            self.imported_functions + number
            if number >= 0 and offset < self._ends[number]
            else None
        )

    def body_start(self, function: int) -> int:
        """Return the offset where the body of a function begins."""
        return self._starts[function - self.imported_functions]

    def name(self, function: int) -> str | None:
        """Return the name of a function in the name section, or None."""
        return self._names.get(function)

    def display_name(self, function: int) -> str:
        """Return a name to show for a function: from the name section, from an export, or its
        number."""
        return self._names.get(function) or self._exports.get(function) or f"function {function}"

    def _read_code_section(self, at: int) -> None:
        self.code_start = at
        count, at = read_leb128(self.wasm, at)
        for _ in range(count):
            size, at = read_leb128(self.wasm, at)
            self._starts.append(at)
            at += size
            self._ends.append(at)

    def _read_export_section(self, at: int) -> None:
        wasm = self.wasm
        count, at = read_leb128(wasm, at)
        for _ in range(count):
            name, at = _read_name(wasm, at, len(wasm))
            kind = wasm[at]
            index, at = read_leb128(wasm, at + 1)
            if kind == _FUNCTION:
                self._exports.setdefault(index, name)
            elif kind == _MEMORY:
                self.exported_memories.append(name)

    def _read_name_section(self, at: int, end: int) -> None:
        wasm = self.wasm
        functions = self.imported_functions + len(self._starts)
        left = MAX_NAMES
        while at < end:
            kind = wasm[at]
            size, at = read_leb128(wasm, at + 1)
            following = at + size
            if following > end:
                return
            if kind == _MODULE_NAME:
                self.module_name, _ = _read_name(wasm, at, following)
            elif kind == _FUNCTION_NAMES:
                count, at = read_leb128(wasm, at)
                for _ in range(min(count, left)):
                    index, at = read_leb128(wasm, at)
                    name, at = _read_name(wasm, at, following)
                    if index < functions:
                        self._names[index] = name
                left -= min(count, left)
            at = following


def _read_name(wasm: bytes, at: int, end: int) -> tuple[str, int]:
    length, at = read_leb128(wasm, at)
    if at + length > end:
        raise IndexError
    return wasm[at : at + length].decode("utf-8", "replace"), at + length


def _count_imported_functions(wasm: bytes, at: int) -> int:
    functions = 0
    count, at = read_leb128(wasm, at)
    for _ in range(count):
        for _ in ("module", "name"):
            length, at = read_leb128(wasm, at)
            at += length
        kind, at = wasm[at], at + 1
        if kind == _FUNCTION:
            functions += 1
            _, at = read_leb128(wasm, at)
        elif kind == _TAG:
            _, at = read_leb128(wasm, at + 1)
        elif kind == _GLOBAL:
            at = _skip_type(wasm, at) + 1
        else:
            at = _skip_limits(wasm, _skip_type(wasm, at) if kind == _TABLE else at)
    return functions


def _skip_type(wasm: bytes, at: int) -> int:
    if wasm[at] in _TYPED_REFERENCES:
        _, at = read_leb128(wasm, at + 1)
        return at
    return at + 1


def _skip_limits(wasm: bytes, at: int) -> int:
    flags = wasm[at]
    _, at = read_leb128(wasm, at + 1)
    if flags & 1:
        _, at = read_leb128(wasm, at)
    if flags & 8:
        _, at = read_leb128(wasm, at)
    return at
