"""Any document survives a round trip as a recording and replays the same twice, or raises an error.

The documents are recordings of real plugins with changes: parts that are left out, doubled or
exchanged, numbers at their limits, other texts; and their JSON with wrong bytes. The errors are a
`RecordingError` when loading, and also a `ReplayError` or a `SourceError` in a replay.
"""

from __future__ import annotations

import copy
import functools
import json
import logging
from typing import Any

import plugwasm
from plugwasm import recording
from plugwasm._recording.recording import loads
from plugwasm.errors import RecordingError, ReplayError, SourceError

from . import ROOT
from .choices import Choices

COVERED = ["plugwasm._recording"]
SIZES = (3, 9)
logging.getLogger("plugwasm.plugin").addHandler(logging.NullHandler())  # the plugins' logs
_NUMBERS = (
    0,
    1,
    -1,
    31,
    32,
    512,
    544,
    2**31 - 1,
    -(2**31),
    2**32,
    2**32 + 1,
    2**62,
    2**63 - 1,
    -(2**63),
    2**63,
    2**64,
    0.5,
    1e300,
    None,
)
_TEXTS = (
    "",
    "x",
    "x" * 3000,
    "\0",
    "é𝒳",
    "\ud800",
    "AAAA",
    "nan",
    "0x7ff8000000000001",
    "TimeoutError",
    "KeyboardInterrupt",
    "put",
    "write",
    "/dev/zero",
)
_TOKENS = (
    *b'{ } [ ] : , " \\ \\u0000 \\ud800 null true NaN 1e999 -0 \xff'.split(b" "),
    b"[" * 500,
    b'{"text":"x"}',
    b'{"i64":1}',
)
_OBJECT, _JSON = range(2)
SEEDS = [
    bytes([kind]) + bytes((seed * step) % 256 for step in range(40))
    for kind in (_OBJECT, _JSON)
    for seed in (1, 3, 7, 11)
]


def check(data: bytes) -> None:
    document, plugin = build(data)
    try:
        loaded = loads(document)
    except RecordingError:
        return
    assert loads(loaded.to_json()) == loaded
    first = _replay(loaded, plugin)
    assert first == _replay(loaded, plugin), "another replay does something else"


def _replay(loaded: recording.Recording, plugin: bytes) -> object:
    try:
        ran = loaded.replay(plugin)
    except (RecordingError, ReplayError, SourceError) as error:
        assert len(str(error)) < 20_000, f"an error of {len(str(error))} characters"
        return type(error), str(error)
    return [
        (call.output, call.vars, call.host_calls, call.fuel, type(call.error)) for call in ran.calls
    ]


def describe(data: bytes) -> str:
    document, _ = build(data)
    return document.decode("utf-8", "backslashreplace")[:20_000]


def build(data: bytes) -> tuple[bytes, bytes]:
    """Return a document, and the plugin that it is replayed with."""
    choices = Choices(data)
    kind = choices.byte() % 2
    base, plugin = choices.pick(_bases())
    if kind == _JSON:
        return choices.splice(base, _TOKENS), plugin
    document = json.loads(base)
    for _ in range(1 + choices.below(4)):
        _change(document, choices)
    try:
        return json.dumps(document).encode(), plugin
    except (ValueError, RecursionError):  # a part was inserted into itself
        return base, plugin


def _change(document: Any, choices: Choices) -> None:
    """Change something somewhere."""
    places = list(_places(document))
    node, key = choices.pick(places)
    match choices.below(7):
        case 0:
            del node[key]
        case 1:
            node[key] = choices.pick(_NUMBERS)
        case 2:
            node[key] = choices.pick(_TEXTS)
        case 3 if isinstance(node, list):
            node[key:key] = [copy.deepcopy(node[key])] * (1 + choices.below(3))
        case 4 if isinstance(node, list):
            node.reverse()
        case 5:
            node[choices.pick(sorted(node)) if isinstance(node, dict) else key] = choices.pick(
                ({}, [], {"text": "x"}, {"i64": 1}, {"block": 0})
            )
        case _:
            other, at = choices.pick(places)
            if at in other if isinstance(other, dict) else at < len(other):
                node[key] = copy.deepcopy(other[at])


def _places(node: Any) -> Any:
    for key in list(node) if isinstance(node, dict) else range(len(node)):
        yield node, key
        if isinstance(node[key], (dict, list)):
            yield from _places(node[key])


# ---- recordings ----------------------------------------------------------------------------------


@functools.cache
def _bases() -> list[tuple[bytes, bytes]]:
    """Return recordings as JSON, and their plugins."""
    return [
        _record(
            "host_functions",
            [("greet", "Ada"), ("sum", "40 2"), ("greet", "")],
            functions=_FUNCTIONS,
            config={"times": "3"},
        ),
        _record(
            "count_vowels",
            [("count_vowels", "Hello"), ("nothing", ""), ("count_vowels", "you")],
            fuel_limit=10**7,
        ),
        _record(
            "wasi_files",
            [("say", "hello"), ("cat", "/data/README.md"), ("list", "/data"), ("cat", "/no")],
            wasi=True,
        ),
    ]


def _record(name: str, calls: list[tuple[str, str]], **options: Any) -> tuple[bytes, bytes]:
    plugin = (ROOT / "examples" / f"{name}.wasm").read_bytes()
    manifest = {
        "wasm": [{"data": plugin}],
        "allowed_paths": {"ro:" + str(ROOT / "pdk" / "c"): "/data"},
    }
    recorder = recording.Recorder()
    with plugwasm.Plugin(manifest, observe=recorder, **({"functions": ()} | options)) as made:
        for function, given in calls:
            try:
                made.call(function, given)
            except plugwasm.CallError:
                pass
    return recorder.recording.to_json(), plugin


def _greet(name: str) -> str:
    return f"Hello, {name}"


def _add(a: int, b: int) -> int:
    return a + b


def _scale(x: float) -> float:
    return 2 * x


_FUNCTIONS = [
    plugwasm.host_fn(function.__name__[1:])(function) for function in (_greet, _add, _scale)
]
