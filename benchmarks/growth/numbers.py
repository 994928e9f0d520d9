"""Numbers and tables of the page, as text."""

from __future__ import annotations


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def show_time(seconds: float) -> str:
    for scale, name in ((1, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")):
        if seconds >= scale * 0.9995:
            return f"{digits(seconds / scale)} {name}"
    return "0" if seconds < 5e-13 else f"{seconds * 1e9:.2g} ns"


def digits(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{float(f'{value:.3g}'):g}"


def show_bytes(value: float) -> str:
    """Return a size in powers of ten, as inputs are."""
    for scale, name in ((10**6, "MB"), (10**3, "KB")):
        if value >= scale:
            return f"{digits(value / scale)} {name}"
    return f"{value:g} B"


def show_size(value: float) -> str:
    """Return the size of memory."""
    for scale, name in ((10**6, "MB"), (10**3, "KB")):
        if value >= scale:
            return f"{digits(value / scale)} {name}"
    return f"{value:.0f} B"


def show_count(value: float) -> str:
    return f"{value / 1000:g} k" if value >= 10_000 else f"{value:,.0f}"


def show_rate(value: float) -> str:
    if value >= 1e6:
        return f"{digits(value / 1e6)} M"
    return f"{digits(value / 1e3)} k" if value >= 10_000 else f"{float(f'{value:.3g}'):,.0f}"
