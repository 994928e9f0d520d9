"""Hostile scripts beside good ones: after each of them the host works, and so does every other plugin."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from plugwasm import Limits, Plugin
from tests.support.scripts import make_plugin, make_python

LIMITS = Limits(timeout=0.4, memory_bytes=32 * 2**20)
_GOOD = {
    "javascript": "let n = 0; export const f = (x) => [x, n++, {}.x, [].x, typeof evil];",
    "python": "n = 0\ndef f(x):\n  global n\n  n += 1\n  return [x, n - 1, 'evil' in globals()]\n",
}


def in_javascript(body: str) -> str:
    """Return a script whose `f` has this body, and whose `g` returns 1."""
    return f"export function f() {{ {body} }}\nexport const g = () => 1;"


def in_python(body: str) -> str:
    """Return a script whose `f` has this body, and whose `g` returns 1."""
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    return f"def f():\n{lines}\ndef g(): return 1\n"


@contextmanager
def victim_beside(source: str, language: str = "javascript", **options: object) -> Iterator[Plugin]:
    """Provide a plugin of a hostile script, and check that no other plugin is affected by it."""
    make = make_plugin if language == "javascript" else make_python
    neighbour, expected = _neighbour(language)
    with make(source, **{"limits": LIMITS, **options}) as plugin:
        yield plugin
    with make(_GOOD[language]) as new:
        assert new.call("f", [1]) == expected
    count = neighbour.call("f", [1], returns=list)[1]
    assert neighbour.call("f", [1], returns=list)[1] == count + 1


@cache
def _neighbour(language: str) -> tuple[Plugin, bytes]:
    """Return an instance that lives as long as the tests, and what its first call returned."""
    make = make_plugin if language == "javascript" else make_python
    plugin = make(_GOOD[language])
    return plugin, bytes(plugin.call("f", [1]))
