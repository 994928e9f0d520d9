"""The tables of scripts on the page."""

from __future__ import annotations

from typing import Any

from ..sandboxes.ways import LANGUAGES
from .numbers import show_size, show_time, table

Figures = dict[str, Any]

_LOAD = ("run once", "compare memories", "compile and link", "all", "all, compiled before")
_FRESH = ("instance and an empty call", "first call with an order", "close", "all")
_START = ("Python itself", "import", "script", "first call", "all")
_CALLS = {
    "nothing": "a function without a parameter, that returns nothing",
    "total": "63 B of JSON in, 12 B out",
    "count": "10 KB of JSON in, 3 B out",
    "upper": "64 KB of text in and out",
}
_NOT_MEASURED = "(Not measured in this run.)"


def tables(scripts: Figures | None) -> dict[str, str]:
    """Return what fills the places of the page; older figures have none of scripts."""
    names = ("script_load", "script_fresh", "script_start", "script_calls", "script_tenants")
    if not scripts:
        return dict.fromkeys(names, _NOT_MEASURED)
    load = {
        language: [*found[:3], sum(found[:3]), found[3]]
        for language, found in scripts["load"].items()
    }
    fresh = {language: [*found, sum(found)] for language, found in scripts["fresh"].items()}
    start = {language: [*found, sum(found)] for language, found in scripts["start"].items()}
    found = (
        _stages(_LOAD, load),
        _stages(_FRESH, fresh),
        _stages(_START, start),
        table(
            ["a later call", *LANGUAGES.values()],
            [
                [title, *(show_time(scripts["calls"][one][call]) for one in LANGUAGES)]
                for call, title in _CALLS.items()
            ],
        ),
        _tenants(scripts["tenants"]),
    )
    return dict(zip(names, found, strict=True))


def _stages(head: tuple[str, ...], stages: Figures) -> str:
    return table(
        ["", *head], [[LANGUAGES[one], *map(show_time, found)] for one, found in stages.items()]
    )


def _tenants(tenants: Figures) -> str:
    if not tenants:
        return "(This system does not tell the memory of a process: nothing was measured.)"
    head = ["tenants"]
    for name in LANGUAGES.values():
        head += [f"{name}: each", "the process"]
    return table(
        head,
        [
            [f"{mark}", *(show_size(size) for one in LANGUAGES for size in tenants[one][at])]
            for at, mark in enumerate(tenants["marks"])
        ],
    )
