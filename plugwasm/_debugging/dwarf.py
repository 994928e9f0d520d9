"""Map addresses in a module's code to source lines, by the DWARF that its compiler left in custom
sections.

pyelftools reads the formats. The data was written by whoever made the module, so entries are read
one by one, forward only and up to a limit, instead of along the references between them. Tables can
refer to each other so that reading them takes any time: everything that is read of a module counts
towards one `ReadBudget`, and when that is spent, the module's frames have no lines.

Decisions: docs/decisions.md, 23 and 31.6.
"""

from __future__ import annotations

import inspect
from io import BytesIO
from itertools import islice
from posixpath import join, normpath
from time import thread_time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from .code_map import CodeMap

MAX_ENTRIES = 200_000
"""Entries of one compilation unit that are read (about 20 µs each)."""
MAX_UNITS = 20_000
MAX_SECTION = 2**28
MAX_PROGRAM = 2**20
"""Bytes of a unit's line table in its encoded form."""
MAX_LINE_READS = 500_000
"""Steps of all line tables of a module that are read: each can become a row, which takes 450 bytes
while it is read."""
MAX_SECONDS = 5.0
"""Processor time that is spent on a module."""
MAX_BYTES = 2**26
"""Bytes of a module's sections that are read; bytes that are read again count again."""
MAX_DEPTH = 256
"""Nested entries."""
MAX_NAME = 400
"""Characters of a name, with those of the scopes around it."""

_SCOPES = (
    "DW_TAG_namespace",
    "DW_TAG_structure_type",
    "DW_TAG_class_type",
    "DW_TAG_union_type",
    "DW_TAG_module",
)


class BudgetExceeded(Exception):
    """The budget for reading a module is spent."""


class ReadBudget:
    """What may be spent on reading the sections of a module."""

    def __init__(self) -> None:
        self._seconds = MAX_SECONDS
        self._bytes = MAX_BYTES
        self._line_reads = MAX_LINE_READS
        self._until = 0.0
        self._reads = 0

    def __enter__(self) -> None:
        self._until = thread_time() + self._seconds

    def __exit__(self, *_: object) -> None:
        self._seconds = self._until - thread_time()

    def spend(self, size: int, is_line: bool) -> None:
        """Count a read of `size` bytes. Raises `BudgetExceeded`."""
        self._reads += 1
        self._bytes -= size
        self._line_reads -= is_line
        if (
            self._bytes < 0
            or self._line_reads < 0
            or (self._reads % 64 == 0 and thread_time() >= self._until)
        ):
            raise BudgetExceeded


class _CountedSection(BytesIO):
    """A section that counts each read towards a budget."""

    def __init__(self, content: bytes, budget: ReadBudget, is_line: bool) -> None:
        super().__init__(content)
        self._budget = budget
        self._is_line = is_line

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self._budget.spend(len(data), self._is_line)
        return data


class SourceLocation:
    """A place in the source.

    `function` is set for an inlined function; the location that follows is where it was inlined.
    """

    __slots__ = ("column", "file", "function", "inlined", "line")

    def __init__(self, file: str | None, line: int | None, column: int | None) -> None:
        self.file = file
        self.line = line
        self.column = column
        self.function: str | None = None
        self.inlined = False


class SourceLines:
    """The DWARF of one module. Raises `ImportError` if pyelftools is not installed."""

    def __init__(self, code: CodeMap) -> None:
        try:
            from elftools.dwarf.dwarfinfo import DebugSectionDescriptor, DwarfConfig, DWARFInfo
        except ImportError as error:
            raise ImportError(
                "the source lines of plugins need pyelftools: pip install 'plugwasm[debug]'"
            ) from error
        self._budget = ReadBudget()
        sections: dict[str, Any] = {}
        for parameter in inspect.signature(DWARFInfo.__init__).parameters:
            if parameter.endswith("_sec"):
                name = f".{parameter.removesuffix('_sec')}"
                content = code.custom_section(name)
                stream = _CountedSection(content, self._budget, name == ".debug_line")
                sections[parameter] = (
                    DebugSectionDescriptor(stream, name, 0, len(content), 0)
                    if 0 < len(content) <= MAX_SECTION
                    else None
                )
        self._dwarf: Any = DWARFInfo(DwarfConfig(True, "wasm", 4), **sections)
        self._units: dict[int, _Unit] = {}

    def locate(self, address: int) -> list[SourceLocation]:
        """Return where the instruction at an address comes from, innermost first; empty if not
        known."""
        try:
            with self._budget:
                return self._locate(address)
        except Exception:  # any error that untrusted DWARF causes in pyelftools
            return []

    def _locate(self, address: int) -> list[SourceLocation]:
        for unit in islice(self._dwarf.iter_CUs(), MAX_UNITS):
            top = unit.get_top_DIE()
            if any(
                start <= address < end for start, end in _address_ranges(self._dwarf, unit, top)
            ):
                known = self._units.get(unit.cu_offset)
                if known is None:
                    known = self._units[unit.cu_offset] = _Unit(self._dwarf, unit)
                return known.locate(address)
        return []


class _Unit:
    """One compilation unit: its rows and its functions, each read once."""

    def __init__(self, dwarf: Any, unit: Any) -> None:
        self._program: Any = dwarf.line_program_for_CU(unit)
        self._version5: bool = self._program is not None and self._program["version"] >= 5
        self._directory = _directory(unit.get_top_DIE())
        self._line_rows = (
            _read_line_rows(self._program)
            if self._program is not None and self._program["unit_length"] <= MAX_PROGRAM
            else []
        )
        self._inlined: list[_InlinedCall] = []
        self._named: dict[int, str] = {}
        for entry, depth, scope in _iterate_entries(unit):
            if entry.tag in ("DW_TAG_subprogram", "DW_TAG_inlined_subroutine"):
                name = _attribute_value(entry, "DW_AT_name")
                if name is not None:
                    self._named[entry.offset] = _qualify(scope, name)
                elif "DW_AT_specification" in entry.attributes:
                    origin = entry.attributes["DW_AT_specification"]
                    self._named[entry.offset] = self._named.get(
                        _resolve_reference(unit, origin), ""
                    )
                if entry.tag == "DW_TAG_inlined_subroutine" and (
                    ranges := _address_ranges(dwarf, unit, entry)
                ):
                    self._inlined.append(_InlinedCall(unit, entry, ranges, depth))

    def locate(self, address: int) -> list[SourceLocation]:
        row = self._row(address)
        if row is None:
            return []
        file, line, column = row
        found = [SourceLocation(self._file(file), line or None, column or None)]
        around = [
            inlined
            for inlined in self._inlined
            if any(start <= address < end for start, end in inlined.ranges)
        ]
        for inlined in sorted(around, key=lambda inlined: -inlined.depth):
            found[-1].function = self._named.get(inlined.origin) or "?"
            found[-1].inlined = True
            file, line, column = inlined.call
            found.append(SourceLocation(self._file(file), line or None, column or None))
        return found

    def _row(self, address: int) -> tuple[int, int, int] | None:
        best: tuple[int, int, int] | None = None
        nearest = -1
        for start, end, file, line, column in self._line_rows:
            if start <= address < end and start >= nearest:
                nearest, best = start, (file, line, column)
        return best

    def _file(self, number: int) -> str | None:
        if self._program is None:
            return None
        files, folders = self._program["file_entry"], self._program["include_directory"]
        index = number if self._version5 else number - 1
        if not 0 <= index < len(files):
            return None
        entry = files[index]
        folder = entry.dir_index if self._version5 else entry.dir_index - 1
        around = _decode(folders[folder]) if 0 <= folder < len(folders) else ""
        # A path may be relative to the directory, and that to where the compiler ran.
        return normpath(join(self._directory, around, _decode(entry.name)))


class _InlinedCall:
    """An inlined function. Only this much of its entry is kept."""

    __slots__ = ("call", "depth", "origin", "ranges")

    def __init__(self, unit: Any, entry: Any, ranges: list[tuple[int, int]], depth: int) -> None:
        origin = entry.attributes.get("DW_AT_abstract_origin")
        self.origin = -1 if origin is None else _resolve_reference(unit, origin)
        self.call = tuple(
            _attribute_value(entry, f"DW_AT_call_{what}") or 0
            for what in ("file", "line", "column")
        )
        self.ranges = ranges
        self.depth = depth


def _read_line_rows(program: Any) -> list[tuple[int, int, int, int, int]]:
    """Return start and end address, file, line and column of each row."""
    rows = []
    before = None
    for entry in program.get_entries():
        state = entry.state
        if state is None:
            continue
        if before is not None and before.address < state.address:
            rows.append((before.address, state.address, before.file, before.line, before.column))
        before = None if state.end_sequence else state
    return rows


def _iterate_entries(unit: Any) -> Iterator[tuple[Any, int, str]]:
    """Yield the entries of a unit in the order of its bytes, each with its depth and the name of
    the scopes around it."""
    from elftools.dwarf.die import DIE

    at, end = (
        unit.cu_die_offset,
        unit.cu_offset + unit["unit_length"] + unit.structs.initial_length_field_size(),
    )
    scopes = [""]
    for _ in range(MAX_ENTRIES):
        if at >= end or not 0 < len(scopes) <= MAX_DEPTH:
            return
        entry = DIE(unit, unit.dwarfinfo.debug_info_sec.stream, at)
        at += entry.size
        if entry.is_null():
            scopes.pop()
            continue
        yield entry, len(scopes), scopes[-1]
        if entry.has_children:
            name = _attribute_value(entry, "DW_AT_name") if entry.tag in _SCOPES else None
            scopes.append(scopes[-1] if name is None else _qualify(scopes[-1], name))


def _qualify(scope: str, name: Any) -> str:
    text = _decode(name[:MAX_NAME])
    return f"{scope}::{text}"[:MAX_NAME] if scope else text


def _address_ranges(dwarf: Any, unit: Any, entry: Any) -> list[tuple[int, int]]:
    low, high = entry.attributes.get("DW_AT_low_pc"), entry.attributes.get("DW_AT_high_pc")
    if low is not None and high is not None:
        is_length = high.form.startswith(
            ("DW_FORM_data", "DW_FORM_udata", "DW_FORM_sdata", "DW_FORM_implicit")
        )
        return [(low.value, low.value + high.value if is_length else high.value)]
    ranges = entry.attributes.get("DW_AT_ranges")
    if ranges is None:
        return []
    base = _attribute_value(unit.get_top_DIE(), "DW_AT_low_pc") or 0
    found = []
    for item in islice(
        dwarf.range_lists().get_range_list_at_offset(ranges.value, unit), MAX_ENTRIES
    ):
        if hasattr(item, "base_address"):
            base = item.base_address
        else:
            shift = 0 if item.is_absolute else base
            found.append((item.begin_offset + shift, item.end_offset + shift))
    return found


def _resolve_reference(unit: Any, reference: Any) -> int:
    value: int = reference.value
    return value if reference.form == "DW_FORM_ref_addr" else value + unit.cu_offset


def _directory(top: Any) -> str:
    value = _attribute_value(top, "DW_AT_comp_dir")
    return _decode(value) if value is not None else ""


def _attribute_value(entry: Any, name: str) -> Any:
    attribute = entry.attributes.get(name)
    return None if attribute is None else attribute.value


def _decode(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
