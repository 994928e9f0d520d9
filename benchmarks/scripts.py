"""Rows of scripts in JavaScript. The official package runs the same script, built into a module."""

from __future__ import annotations

import sys
from functools import cache, partial
from importlib import import_module
from itertools import count
from typing import TYPE_CHECKING, Any

from .measure import OURS, SIDES, Block, Row, Sample, make_sampler

if TYPE_CHECKING:
    from collections.abc import Callable

SCRIPT = """
const rate = 1.2;
export function total({ items }) {
  return { total: items.reduce((sum, item) => sum + item.price * item.count * rate, 0) };
}
"""
ORDER = b'{"items": [{"price": 10, "count": 2}, {"price": 5, "count": 1}]}'
TOTAL = b'{"total":30}'


TITLE = "scripts in JavaScript (extism: the script as a module)"


def can_run() -> bool:
    """Build the engine, or say why that cannot be done."""
    try:
        _built()
    except import_module("plugwasm").SourceError as error:
        print(f"left out: the rows of scripts: {error}", file=sys.stderr)
        return False
    return True


def blocks() -> list[Block]:
    """Return the rows. They can be measured if `can_run`."""
    return [
        Block(
            TITLE,
            [
                Row("script: ready", _ready),
                Row("script: fresh instance + call + close", _fresh),
                Row("script: later call, 63 B of JSON in, 12 B out", _call),
            ],
            budget=6,
        )
    ]


@cache
def _built() -> bytes:
    module = import_module("plugwasm._script.standalone")
    built: bytes = module.build_script("javascript", SCRIPT)
    return built


def _compile(side: str, source: str = SCRIPT) -> Any:
    if side == OURS:
        return import_module("plugwasm").script("javascript", source)
    return import_module(SIDES[side]).CompiledPlugin(_built(), True, [])


def _open(side: str, compiled: Any) -> Any:
    return import_module(SIDES[side]).Plugin(compiled)


def _ready(side: str) -> Sample:
    numbers = count()
    make: Callable[[], Any] = lambda: _compile(side, f"{SCRIPT}// {next(numbers)}")  # noqa: E731
    return make_sampler(make, lambda compiled: compiled is not None)


def _fresh(side: str) -> Sample:
    compiled = _compile(side)

    def run() -> Any:
        with _open(side, compiled) as plugin:
            return plugin.call("total", ORDER)

    return make_sampler(run, TOTAL)


def _call(side: str) -> Sample:
    plugin = _open(side, _compile(side))
    return make_sampler(partial(plugin.call, "total", ORDER), TOTAL)
