"""The table of results."""

from __future__ import annotations

from collections.abc import Sequence

from .measure import OURS, PEER, Goal, Result

Section = tuple[str, Sequence[Result]]


def render(sections: Sequence[Section], sides: tuple[str, str] = (OURS, PEER)) -> str:
    """Return all results as one table in Markdown, whose columns also line up as plain text."""
    head = ("", sides[0], "±", sides[1], "±", "ratio", "±", "target", "")
    lines: list[tuple[str, ...]] = []
    for title, results in sections:
        lines.append((f"**{title}**", *[""] * (len(head) - 1)))
        lines += map(_line, results)
    widths = [max(3, *(len(line[i]) for line in [head, *lines])) for i in range(len(head))]
    rule = "|".join(
        [
            "",
            "-" * (widths[0] + 2),
            *("-" * (width + 1) + ":" for width in widths[1:-1]),
            "-" * (widths[-1] + 2),
            "",
        ]
    )
    return "\n".join([_row(head, widths), rule, *(_row(line, widths) for line in lines)])


def summary(sections: Sequence[Section]) -> str:
    """Return one line: how many goals are met, and which are missed."""
    results = [result for _, found in sections for result in found if result.goal is not None]
    missed = [result.title for result in results if not result.is_met]
    text = f"{len(results) - len(missed)} of {len(results)} targets are met"
    return f"{text}; missed: {', '.join(missed)}" if missed else text


def _line(result: Result) -> tuple[str, ...]:
    ratio = result.ratio
    return (
        result.title,
        format_value(result.ours.median, result.unit),
        f"{result.ours.spread:.0%}",
        format_value(result.peer.median, result.unit),
        f"{result.peer.spread:.0%}",
        format_ratio(None if ratio is None else ratio.median),
        "" if ratio is None else f"{ratio.spread:.0%}",
        "" if result.goal is None else _goal(result.goal),
        "" if result.is_met is None else "ok" if result.is_met else "MISSED",
    )


def _goal(goal: Goal) -> str:
    return f"{'≤' if goal.at_most else '≥'} {goal.value:g}×"


def format_ratio(ratio: float | None) -> str:
    """Return a ratio as it is shown, or nothing where there is none."""
    return "" if ratio is None else f"{ratio:.3g}×"


def format_value(value: float, unit: str) -> str:
    """Return seconds, bytes or a factor as it is shown."""
    if unit == "×":
        return f"×{value:.2f}"
    if unit == "B":
        return f"{value / 1000:.1f} KB"
    for scale, name in ((1, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if value >= scale:
            return (
                f"{value / scale:.3g} {name}"
                if value < 100 * scale
                else f"{value / scale:.0f} {name}"
            )
    return f"{value * 1e9:.0f} ns"


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    last = len(cells) - 1
    padded = [
        cell.ljust(width) if i in (0, last) else cell.rjust(width)
        for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return f"| {' | '.join(padded)} |"
