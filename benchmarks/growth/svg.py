"""Plots as SVG: lines over a logarithmic axis, and stacked bars.

Colours follow the reader's light or dark mode. Each plot has its own background, so it is readable
also where a page's mode is not that of the browser. Lines differ in marks and dashes as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

WIDTH = 860
_FONT = "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif"
_LIGHT = {
    "ground": "#ffffff", "frame": "#d5dae0", "text": "#1f2328", "soft": "#59636e",
    "grid": "#e8ebee", "c0": "#1f66d1", "c1": "#c4620a", "c2": "#1c7f4d", "c3": "#8250c4",
    "c4": "#7a828b",
}  # fmt: skip
_DARK = {
    "ground": "#14181d", "frame": "#363d46", "text": "#e8ebef", "soft": "#9ea8b3",
    "grid": "#272d35", "c0": "#6aa5ff", "c1": "#f2a154", "c2": "#5fc48d", "c3": "#bd9bf3",
    "c4": "#8d97a3",
}  # fmt: skip
COLOURS = 5


@dataclass(frozen=True)
class Series:
    """A line: y for each x of the panel, or None.

    Attributes:
        colour: The number of its colour and mark.
        dashed: Whether the line has dashes, as those of a peer.
    """

    name: str
    ys: Sequence[float | None]
    colour: int = 0
    dashed: bool = False


@dataclass(frozen=True)
class Panel:
    """Lines over common x, of which each is a tick. Both axes are logarithmic unless `linear_y`."""

    title: str
    xs: Sequence[float]
    series: Sequence[Series]
    x_label: str
    format_x: Callable[[float], str]
    format_y: Callable[[float], str]
    linear_y: bool = False


@dataclass(frozen=True)
class Bar:
    """A bar of parts that follow each other."""

    name: str
    parts: Sequence[float]


def plot(alternative: str, panels: Sequence[Panel], height: int = 300) -> str:
    """Return a plot with panels side by side. Lines with the same name are in one legend."""
    gap, top = 26, 46
    width = (WIDTH - 2 * 18 - gap * (len(panels) - 1)) / len(panels)
    parts = [_legend({series.name: series for panel in panels for series in panel.series})]
    for number, panel in enumerate(panels):
        parts.append(_panel(panel, 18 + number * (width + gap), top, width, height - top - 12))
    return _document(alternative, height, parts)


def bars(
    alternative: str,
    names: Sequence[str],
    rows: Sequence[Bar],
    show: Callable[[float], str],
    *,
    shares: bool = False,
) -> str:
    """Return stacked bars, from 0, with the sum at the end.

    Args:
        alternative: What it shows, for those who cannot see it.
        names: The names of the parts.
        rows: The bars.
        show: Writes a value.
        shares: Whether all bars have the same length, since their sums differ too much.
    """
    left, top, step = 190, 52, 34
    height = top + step * len(rows) + 12
    room = WIDTH - left - 96
    most = max(sum(row.parts) for row in rows)
    parts = [_legend({name: Series(name, (), at) for at, name in enumerate(names)}, squares=True)]
    for number, row in enumerate(rows):
        y, x = top + number * step, float(left)
        longest = sum(row.parts) if shares else most
        parts.append(_text(left - 12, y + 15, row.name, "end"))
        for at, value in enumerate(row.parts):
            size = room * value / longest
            if size >= 0.3:
                parts.append(
                    f'<rect class="f{at}" x="{x:.1f}" y="{y}" width="{max(size - 1.5, 0.5):.1f}"'
                    f' height="21" rx="2"/>'
                )
            if size > 52:
                parts.append(_text(x + size / 2, y + 15, show(value), "middle", "inside"))
            x += size
        parts.append(_text(x + 8, y + 15, show(sum(row.parts)), "start", "strong"))
    return _document(alternative, height, parts)


def _panel(panel: Panel, x0: float, y0: float, width: float, height: float) -> str:
    left, right, top, bottom = x0 + 58, x0 + width - 12, y0 + 30, y0 + height - 40
    low, high, ticks = _scale(
        [y for one in panel.series for y in one.ys if y is not None], panel.linear_y
    )
    first, last = log10(panel.xs[0]), log10(panel.xs[-1])

    def at_x(value: float) -> float:
        return left + (right - left) * (log10(value) - first) / ((last - first) or 1)

    def at_y(value: float) -> float:
        position = value if panel.linear_y else log10(value)
        return bottom - (bottom - top) * (position - low) / ((high - low) or 1)

    parts = [_text(x0, y0 + 14, panel.title, "start", "strong")]
    for tick in ticks:
        y = at_y(tick)
        parts.append(
            f'<line class="grid" x1="{left:.1f}" x2="{right:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        parts.append(_text(left - 8, y + 4, panel.format_y(tick), "end", "soft"))
    parts += [_text(at_x(x), bottom + 18, panel.format_x(x), "middle", "soft") for x in panel.xs]
    parts.append(_text((left + right) / 2, bottom + 36, panel.x_label, "middle", "soft"))
    for one in panel.series:
        points = [
            (at_x(x), at_y(y)) for x, y in zip(panel.xs, one.ys, strict=True) if y is not None
        ]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        dashes = ' stroke-dasharray="6 4"' if one.dashed else ""
        parts.append(f'<polyline class="s{one.colour}" points="{path}"{dashes}/>')
        parts += [_mark(x, y, one.colour) for x, y in points]
    return "".join(parts)


def _scale(values: Sequence[float], linear: bool) -> tuple[float, float, list[float]]:
    """Return the ends of an axis, as logarithms unless linear, and its ticks."""
    if linear:
        most = max(values) * 1.05
        step = 10.0 ** floor(log10(most))
        step = next(size for size in (step / 4, step / 2, step, step * 2) if most / size <= 5.5)
        count = ceil(most / step)
        return 0.0, count * step, [number * step for number in range(count + 1)]
    low, high = floor(log10(min(values)) + 0.05), ceil(log10(max(values)) - 0.05)
    high = max(high, low + 1)
    every = 1 if high - low <= 6 else 2
    return (
        min(low, log10(min(values))),
        max(high, log10(max(values))),
        [10.0**power for power in range(low, high + 1, every)],
    )


def _legend(series: dict[str, Series], *, squares: bool = False) -> str:
    parts, x = [], 18.0
    for name, one in series.items():
        if squares:
            parts.append(
                f'<rect class="f{one.colour}" x="{x}" y="14" width="13" height="13" rx="2"/>'
            )
        else:
            dashes = ' stroke-dasharray="6 4"' if one.dashed else ""
            parts.append(
                f'<line class="s{one.colour}" x1="{x - 1}" x2="{x + 27}" y1="21" y2="21"{dashes}/>'
            )
            parts.append(_mark(x + 13, 21, one.colour))
        start = x + (20 if squares else 35)
        parts.append(_text(start, 25, name, "start"))
        x = start + 7.3 * len(name) + 22
    return "".join(parts)


def _mark(x: float, y: float, shape: int) -> str:
    kind = f'class="m{shape}"'
    if shape % 3 == 0:
        return f'<circle {kind} cx="{x:.1f}" cy="{y:.1f}" r="3.6"/>'
    if shape % 3 == 1:
        return f'<rect {kind} x="{x - 3.3:.1f}" y="{y - 3.3:.1f}" width="6.6" height="6.6"/>'
    points = f"{x:.1f},{y - 4.4:.1f} {x + 4.2:.1f},{y + 3.2:.1f} {x - 4.2:.1f},{y + 3.2:.1f}"
    return f'<polygon {kind} points="{points}"/>'


def _text(x: float, y: float, text: str, anchor: str, kind: str = "plain") -> str:
    return (
        f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">'
        f"{escape(text, quote=False)}</text>"
    )


def _document(alternative: str, height: int, parts: Sequence[str]) -> str:
    style = (
        f"text{{font-family:{_FONT};font-size:12.5px}}"
        ".strong{font-weight:600}.grid{stroke-width:1}"
        "polyline,line[class^=s]{fill:none;stroke-width:2.2;stroke-linejoin:round}"
        f"{_rules(_LIGHT)}@media (prefers-color-scheme:dark){{{_rules(_DARK)}}}"
    )
    title = escape(alternative)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img"'
        f' width="{WIDTH}" height="{height}" aria-label="{title}"><title>{title}</title>'
        f"<style>{style}</style>"
        f'<rect class="ground" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="8"/>'
        + "\n".join(parts)
        + "</svg>\n"
    )


def _rules(colours: dict[str, str]) -> str:
    rules = [
        f".ground{{fill:{colours['ground']};stroke:{colours['frame']}}}",
        f".plain,.strong{{fill:{colours['text']}}}.soft{{fill:{colours['soft']}}}",
        f".inside{{fill:{colours['ground']}}}.grid{{stroke:{colours['grid']}}}",
    ]
    for number in range(COLOURS):
        colour = colours[f"c{number}"]
        rules.append(f".s{number}{{stroke:{colour}}}.m{number},.f{number}{{fill:{colour}}}")
    return "".join(rules)
