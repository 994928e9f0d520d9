"""The figures of one run that README.md and benchmarks/README.md show (`make figures`).

`figures.json` has the figures; the pages are made of it, so no figure in them is typed by hand.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from .table import format_ratio, format_value

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .measure import Block

HERE = Path(__file__).resolve().parent
FIGURES = HERE / "figures.json"
SHORT_PAGE = HERE.parent / "README.md"
FULL_PAGE = HERE / "README.md"

SHORT = {
    "process start to first output": "process start to first output",
    "small: cold (no cache)": "load a small module, in no cache",
    "small: cached on disk": "load a small module, cached on disk",
    "large: cold (no cache)": "load a module of 1.8 MB, in no cache",
    "large: cached on disk": "load a module of 1.8 MB, cached on disk",
    "echo 10 B": "call that returns its input, 10 B",
    "echo 64 KB": "call that returns its input, 64 KB",
    "echo 1 MB": "call that returns its input, 1 MB",
    "count_vowels 64 KB": "call that counts vowels, 64 KB",
    "call with a host function, 10 B": "call in which the plugin calls a host function",
    "create an instance, call, close": "fresh instance, with a call",
    "memory of a live instance, of 1,000": "memory of a live instance",
    "script: ready": "script in JavaScript: ready to be called",
    "script: fresh instance + call + close": "script: fresh instance, with a call",
    "script: later call": "script: later call, JSON in and out",
}
"""The rows of README.md: how the title of the row begins, and what README.md calls it."""

SECTION = re.compile(r"(?<=<!-- figures -->\n).*?(?=<!-- end of figures -->)", re.DOTALL)


class Line(msgspec.Struct, frozen=True):
    """A row: seconds, bytes or factors, and how far the ratio spreads."""

    group: str
    row: str
    unit: str
    plugwasm: float
    extism: float
    ratio: float | None
    spread: float | None = None


class Figures(msgspec.Struct, frozen=True):
    """One run."""

    about: dict[str, str]
    rows: list[Line]


class MissingRowError(Exception):
    """README.md shows a row that was not measured."""


def committed_pages() -> dict[Path, str]:
    """Return README.md and benchmarks/README.md with the figures of figures.json."""
    figures = msgspec.json.decode(FIGURES.read_bytes(), type=Figures)
    about = f"{describe_run(figures)}\n\n"
    return {
        SHORT_PAGE: fill(SHORT_PAGE, f"{about}{short_table(figures)}\n\n"),
        FULL_PAGE: fill(FULL_PAGE, f"{about}{full_table(figures)}\n\n"),
    }


def write(about: dict[str, str], rows: Iterable[dict[str, object]]) -> None:
    """Write figures.json, and the pages."""
    lines = [msgspec.convert(row, Line) for row in rows]
    figures = Figures(about, [msgspec.structs.replace(line, **_rounded(line)) for line in lines])
    FIGURES.write_bytes(msgspec.json.format(msgspec.json.encode(figures), indent=1) + b"\n")
    for page, text in committed_pages().items():
        page.write_text(text, "utf-8")


def check_rows(blocks: Sequence[Block]) -> None:
    """Raise `MissingRowError` if README.md shows a row that is not among these."""
    titles = [row.title for block in blocks for row in block.rows]
    for start in SHORT:
        find(start, titles)


def find(start: str, titles: Sequence[str]) -> int:
    """Return the number of the one title that is this, or else of the one that begins with it."""
    exact = [number for number, title in enumerate(titles) if title == start]
    found = exact or [number for number, title in enumerate(titles) if title.startswith(start)]
    if len(found) != 1:
        raise MissingRowError(
            f"README.md shows the row {start!r}, and {len(found)} rows have a title that begins "
            "so; benchmarks/published.py lists the rows of README.md"
        )
    return found[0]


def fill(page: Path, text: str) -> str:
    """Return a page with its figures replaced."""
    filled, count = SECTION.subn(lambda _: text, page.read_text("utf-8"))
    if count != 1:
        raise ValueError(f"{page}: expected one section of figures, got {count}")
    return filled


def describe_run(figures: Figures) -> str:
    """Return the line that says where and with what the figures were measured."""
    about = figures.about
    return (
        f"> {about['day']}; {about['processor']}, {about['processors']} processors; "
        f"{about['python']}, wasmtime {about['wasmtime']}, extism {about['extism']} with "
        f"libextism {about['extism-sys']}."
    )


def short_table(figures: Figures) -> str:
    """Return the table of README.md."""
    titles = [line.row for line in figures.rows]
    lines = [(name, figures.rows[find(start, titles)]) for start, name in SHORT.items()]
    return "\n".join(
        [
            "| | plugwasm | extism | ratio |",
            "|---|---:|---:|---:|",
            *(f"| {name} | {_cells(line)} |" for name, line in lines),
        ]
    )


def full_table(figures: Figures) -> str:
    """Return the table of all rows, by groups."""
    lines = ["| | plugwasm | extism | ratio | ± |", "|---|---:|---:|---:|---:|"]
    group = None
    for line in figures.rows:
        if line.group != group:
            group = line.group
            lines.append(f"| **{group}** |  |  |  |  |")
        spread = "" if line.spread is None else f"{line.spread:.0%}"
        lines.append(f"| {line.row} | {_cells(line)} | {spread} |")
    return "\n".join(lines)


def _cells(line: Line) -> str:
    return " | ".join(
        (
            format_value(line.plugwasm, line.unit),
            format_value(line.extism, line.unit),
            format_ratio(line.ratio),
        )
    )


def _rounded(line: Line) -> dict[str, float | None]:
    """Return the figures of a row, as exact as they are shown."""
    values = {name: getattr(line, name) for name in ("plugwasm", "extism", "ratio", "spread")}
    return {name: value and float(f"{value:.4g}") for name, value in values.items()}
