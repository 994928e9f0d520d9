"""What the page shows of scripts: where their time goes, and what tenants take.

Samples of both languages are taken in turns.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from importlib import import_module
from itertools import count, pairwise
from time import perf_counter
from typing import TYPE_CHECKING, Any

from ..measure import make_sampler
from ..sandboxes.tenants import SMAPS
from ..sandboxes.ways import CALLS, LANGUAGES, ORDER, script_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from .measuring import Run

Figures = dict[str, Any]
TENANTS = (10, 100, 500)
_LINES = {
    "javascript": "export function nothing() {}\n",
    "python": "\ndef nothing():\n    pass\n",
}
_START = """
import sys
from time import perf_counter
stamps = [perf_counter()]
import plugwasm
plugwasm.script, plugwasm.Plugin
stamps.append(perf_counter())
script = plugwasm.script(sys.argv[1], sys.argv[2])
stamps.append(perf_counter())
plugwasm.Plugin(script).call("total", sys.argv[3])
stamps.append(perf_counter())
print(*stamps, flush=True)
"""


def measure(run: Run) -> Figures:
    """Measure scripts; nothing if the engines cannot be built on this machine."""
    from plugwasm import SourceError

    try:
        samplers = {language: _samplers(language) for language in LANGUAGES}
    except SourceError as error:
        print(f"left out: scripts: {error}", file=sys.stderr)
        return {}
    return {
        "calls": {language: run._quartiles(_calls(language), 5) for language in LANGUAGES},
        **{
            part: {
                language: _columns(found)
                for language, found in run._in_turns(
                    {language: each[part] for language, each in samplers.items()}, 5, least=3
                ).items()
            }
            for part in ("load", "fresh", "start")
        },
        "tenants": _tenants(run),
    }


def _columns(samples: Any) -> list[float]:
    from .measuring import quartile

    return [quartile(column) for column in zip(*samples, strict=True)]


def _source(language: str, number: int | None = None) -> str:
    return script_of(language, number) + _LINES[language]


def _calls(language: str) -> dict[str, Callable[[], float]]:
    from plugwasm import Plugin

    script: Any = import_module("plugwasm").script
    plugin: Any = Plugin(script(language, _source(language)))
    return {
        "nothing": make_sampler(partial(plugin.call, "nothing"), b""),
        **{
            function: make_sampler(partial(plugin.call, function, data), is_right)
            for function, (data, is_right) in CALLS.items()
        },
    }


def _samplers(language: str) -> dict[str, Callable[[], list[float]]]:
    """Return what measures the stages of a load, of a fresh instance, and of a process."""
    from plugwasm import Plugin

    script: Any = import_module("plugwasm").script
    engine_of: Any = import_module("plugwasm._script.engine").get_engine
    load: Any = import_module("plugwasm._script.loading").load
    find_changes: Any = import_module("plugwasm._script.snapshots").find_changes
    engine, numbers = engine_of(language), count()
    compiled = script(language, _source(language))
    warm = Plugin(compiled)
    warm.call("total", ORDER)

    def load_stages() -> list[float]:
        source = _source(language, next(numbers))
        begin = perf_counter()
        loaded = load(engine, source, "script", input="json", functions=(), limits=None)
        ran = perf_counter()
        for _ in find_changes(engine.heap, loaded.heap, 32):
            pass
        compared = perf_counter()
        script(language, source)
        new = perf_counter() - compared
        again = perf_counter()
        script(language, source)
        again = perf_counter() - again
        first, second = ran - begin, compared - ran
        return [first, second, max(0.0, new - first - second), again]

    def fresh_stages() -> list[float]:
        begin = perf_counter()
        plugin = Plugin(compiled)
        plugin.call("nothing")
        made = perf_counter()
        plugin.call("total", ORDER)
        called = perf_counter()
        plugin.close()
        closed = perf_counter()
        return [made - begin, called - made, closed - called]

    def start_stages() -> list[float]:
        begin = perf_counter()
        command = [sys.executable, "-P", "-c", _START, language, _source(language), ORDER.decode()]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        stamps = [begin, *map(float, done.stdout.split())]
        return [after - before for before, after in pairwise(stamps)]

    return {"load": load_stages, "fresh": fresh_stages, "start": start_stages}


def _tenants(run: Run) -> Figures:
    """Return bytes of each tenant and of the process, by the number of tenants."""
    if not os.path.exists(SMAPS):
        return {}
    marks = [mark for mark in TENANTS if run.effort >= 1 or mark <= 10]
    found: Figures = {"marks": marks}
    for language in LANGUAGES:
        command = [sys.executable, "-m", "benchmarks.sandboxes.tenants", language, "plugwasm"]
        found[language] = [
            json.loads(
                subprocess.run([*command, str(mark)], stdout=subprocess.PIPE, check=True).stdout
            )
            for mark in marks
        ]
    return found
