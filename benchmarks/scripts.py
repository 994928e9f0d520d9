"""Rows of scripts. The official package runs the same script, built into a module."""

from __future__ import annotations

import sys
from functools import cache, partial
from importlib import import_module
from itertools import count
from typing import Any

from .measure import OURS, SIDES, Block, Row, Sample, make_sampler
from .sandboxes.ways import CALLS, LANGUAGES, script_of

TITLES = {
    language: f"scripts in {name} (extism: the script as a module)"
    for language, name in LANGUAGES.items()
}

_PREFIXES = {"javascript": "script", "python": "script in Python"}


def can_run() -> bool:
    """Build the engines, or say why that cannot be done."""
    try:
        for language in LANGUAGES:
            _built(language)
    except import_module("plugwasm").SourceError as error:
        print(f"left out: the rows of scripts: {error}", file=sys.stderr)
        return False
    return True


def blocks() -> list[Block]:
    """Return the rows. They can be measured if `can_run`."""
    return [
        Block(
            TITLES[language],
            [
                Row(f"{prefix}: ready", partial(_ready, language)),
                Row(f"{prefix}: fresh instance + call + close", partial(_fresh, language)),
                *(
                    Row(f"{prefix}: {what}", partial(_call, language, function))
                    for function, what in (
                        ("total", "later call, 63 B of JSON in, 12 B out"),
                        ("count", "10 KB of JSON in, 3 B out"),
                        ("upper", "64 KB of text in and out"),
                    )
                ),
            ],
            budget=6,
        )
        for language, prefix in _PREFIXES.items()
    ]


@cache
def _built(language: str) -> bytes:
    module = import_module("plugwasm._script.standalone")
    built: bytes = module.build_script(language, script_of(language))
    return built


def _compile(language: str, side: str, number: int | None = None) -> Any:
    if side == OURS:
        return import_module("plugwasm").script(language, script_of(language, number))
    return import_module(SIDES[side]).CompiledPlugin(_built(language), True, [])


def _open(side: str, compiled: Any) -> Any:
    return import_module(SIDES[side]).Plugin(compiled)


def _ready(language: str, side: str) -> Sample:
    numbers = count()

    def make() -> Any:
        return _compile(language, side, next(numbers))

    return make_sampler(make, lambda compiled: compiled is not None)


def _fresh(language: str, side: str) -> Sample:
    compiled, (data, is_right) = _compile(language, side), CALLS["total"]

    def run() -> Any:
        with _open(side, compiled) as plugin:
            return plugin.call("total", data)

    return make_sampler(run, is_right)


def _call(language: str, function: str, side: str) -> Sample:
    plugin, (data, is_right) = _open(side, _compile(language, side)), CALLS[function]
    return make_sampler(partial(plugin.call, function, data), is_right)
