"""What is compared. All ways run the same functions; input and output are bytes.

Each way turns on the bounds that it has for time and memory. What it isolates is in
benchmarks/README.md.
"""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..measure import check

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    Call = Callable[[str, bytes], Any]

MEMORY = 64 * 2**20
SECONDS = 30
TENANTS = 500
LANGUAGES = {"javascript": "JavaScript", "python": "Python"}

JAVASCRIPT = """
const rate = 1.2;
function total({ items }) {
  return { total: items.reduce((sum, item) => sum + item.price * item.count * rate, 0) };
}
function count(items) { return items.length; }
function upper(text) { return text.toUpperCase(); }
"""
PYTHON = """
RATE = 1.2

def total(order: dict) -> dict:
    return {"total": sum(item["price"] * item["count"] * RATE for item in order["items"])}

def count(items: list) -> int:
    return len(items)

def upper(text: str) -> str:
    return text.upper()
"""
_EXPORTS = 'export { total, count, upper };\nupper.input = "text";\n'

ORDER = b'{"items": [{"price": 10, "count": 2}, {"price": 5, "count": 1}]}'
ITEM = {"name": "Item", "tags": ["a", "b"], "price": 9.5, "stock": {"here": True, "count": 3}}
DOCUMENT = json.dumps([ITEM | {"id": number} for number in range(104)]).encode()
TEXT = (b"Hello, World! " * 4682)[:65536]
CALLS = {
    "total": (ORDER, lambda output: json.loads(output) == {"total": 30}),
    "count": (DOCUMENT, lambda output: json.loads(output) == 104),
    "upper": (TEXT, lambda output: output in (TEXT.upper(), TEXT.upper().decode())),
}
"""For each function: an input, and whether an output is right for it."""


@dataclass(frozen=True)
class Way:
    """A way to run scripts.

    Attributes:
        title: The heading of its column.
        package: What has to be installed.
        load: Takes a script's text, and returns what `open` takes: the work that is done once for a
            script.
        open: Makes a fresh place where the script runs, and returns what calls its functions.
        tenants: How many scripts live in the process that measures its memory. 0: they have none.
    """

    title: str
    package: str
    load: Callable[[str], Any]
    open: Callable[[Any], AbstractContextManager[Call]]
    tenants: int = TENANTS

    def can_run(self, language: str) -> bool:
        """Return whether the way can be measured; say on stderr why not."""
        source = source_of(language)
        try:
            with self.open(self.load(source)) as call:
                for function, (data, is_right) in CALLS.items():
                    check(call(function, data), is_right)
        except ImportError:
            print(
                f"left out: {self.title}: the package `{self.package}` is not installed: "
                "pip install -e '.[bench-scripts]'",
                file=sys.stderr,
            )
        except import_module("plugwasm").SourceError as error:
            print(f"left out: {self.title}: {error}", file=sys.stderr)
        else:
            return True
        return False


def source_of(language: str, number: int | None = None) -> str:
    """Return the script, or one that differs from all others."""
    source = JAVASCRIPT if language == "javascript" else PYTHON
    if number is None:
        return source
    return f"{source}\n{'//' if language == 'javascript' else '#'} {number}\n"


def ways_of(language: str) -> list[Way]:
    """Return the ways to run scripts in a language; plugwasm's comes first."""
    ours = Way("plugwasm", "plugwasm", partial(_load_script, language), _open_ours)
    if language == "javascript":
        return [
            ours,
            Way("quickjs-ng", "quickjs-ng", str, _open_quickjs),
            Way("mini-racer", "mini-racer", str, _open_mini_racer, tenants=50),
        ]
    return [
        ours,
        Way("RestrictedPython", "RestrictedPython", _compile_restricted, _open_restricted),
        Way("a process a call", "", str, _open_process, tenants=0),
    ]


def script_of(language: str, number: int | None = None) -> str:
    """Return the script as plugwasm takes it."""
    return source_of(language, number) + (_EXPORTS if language == "javascript" else "")


def _load_script(language: str, source: str) -> Any:
    exports = _EXPORTS if language == "javascript" else ""
    return import_module("plugwasm").script(language, source + exports)


@contextmanager
def _open_ours(compiled: Any) -> Iterator[Call]:
    with import_module("plugwasm").Plugin(compiled) as plugin:
        yield plugin.call


@contextmanager
def _open_quickjs(source: str) -> Iterator[Call]:
    context = import_module("quickjs").Context()
    context.set_memory_limit(MEMORY)
    context.set_time_limit(SECONDS)
    context.eval(source)
    json_call = context.eval("(name, text) => JSON.stringify(globalThis[name](JSON.parse(text)))")
    text_call = context.eval("(name, text) => globalThis[name](text)")

    def call(function: str, data: bytes) -> Any:
        chosen = text_call if function == "upper" else json_call
        return chosen(function, data.decode()).encode()

    yield call


@contextmanager
def _open_mini_racer(source: str) -> Iterator[Call]:
    with import_module("py_mini_racer").MiniRacer() as context:
        context.set_hard_memory_limit(MEMORY)
        context.eval(source)

        def call(function: str, data: bytes) -> Any:
            if function == "upper":
                text = json.dumps(data.decode())
                return context.eval(f"{function}({text})", timeout_sec=SECONDS).encode()
            # A document of JSON is an expression of JavaScript.
            code = f"JSON.stringify({function}({data.decode()}))"
            return context.eval(code, timeout_sec=SECONDS).encode()

        yield call


def _compile_restricted(source: str) -> Any:
    restricted = import_module("RestrictedPython")
    return restricted.compile_restricted(source, "<script>", "exec")


@cache
def _guards() -> dict[str, Any]:
    guards = import_module("RestrictedPython.Guards")
    items = import_module("RestrictedPython.Eval")
    builtins = {**guards.safe_builtins, "dict": dict, "list": list, "sum": sum}
    return {
        "__builtins__": builtins,
        "_getattr_": guards.safer_getattr,
        "_getitem_": items.default_guarded_getitem,
        "_getiter_": items.default_guarded_getiter,
        "_write_": guards.full_write_guard,
    }


@contextmanager
def _open_restricted(code: Any) -> Iterator[Call]:
    names = dict(_guards())
    exec(code, names)

    def call(function: str, data: bytes) -> Any:
        if function == "upper":
            return names[function](data.decode()).encode()
        return json.dumps(names[function](json.loads(data))).encode()

    yield call


_MAIN = """
import json as _json, resource as _resource, sys as _sys
_resource.setrlimit(_resource.RLIMIT_AS, ({memory}, {memory}))
_input, _call = _sys.stdin.buffer.read(), globals()[_sys.argv[1]]
if _sys.argv[1] == "upper":
    _sys.stdout.write(_call(_input.decode()))
else:
    _sys.stdout.write(_json.dumps(_call(_json.loads(_input))))
"""


@contextmanager
def _open_process(source: str) -> Iterator[Call]:
    program = source + _MAIN.format(memory=4 * MEMORY)

    def call(function: str, data: bytes) -> bytes:
        return subprocess.run(
            [sys.executable, "-I", "-S", "-c", program, function],
            input=data,
            stdout=subprocess.PIPE,
            check=True,
            timeout=SECONDS,
        ).stdout

    yield call
