"""Scripts in Python: what they export, what they get and return, and their errors."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

import plugwasm
from plugwasm import GuestError, Plugin, ScriptError, script
from tests.support.scripts import make_python, need_engine


def test_annotations_say_what_is_passed() -> None:
    """Text and bytes are passed as they are, everything else is read from JSON."""
    source = """
def text(x: str): return repr(x)
def raw(x: bytes): return repr(x)
def value(x): return repr(x)
def nothing(): return 7
def maybe(x: int = 3): return x
"""
    with make_python(source) as plugin:
        assert plugin.call("text", "42") == b"'42'"
        assert plugin.call("raw", b"\xff\0") == rb"b'\xff\x00'"
        assert plugin.call("value", "[1, 2.5, null]") == b"[1, 2.5, None]"
        assert plugin.call("nothing", "ignored") == b"7"
        assert plugin.call("maybe", "") == b"3"
        assert plugin.call("maybe", "5") == b"5"


def test_results_become_bytes_or_json() -> None:
    """Text and bytes are the output; None is an empty one; everything else becomes JSON."""
    source = """
def text() -> str: return "aé€😀"
def raw(): return b"\\x00\\xff"
def none(): pass
def value(): return {"a": [1, 2.5, True, None, (3,)], "b": 2**70}
"""
    with make_python(source) as plugin:
        assert plugin.call("text", returns=str) == "aé€😀"
        assert plugin.call("raw") == b"\x00\xff"
        assert plugin.call("none") == b""
        assert json.loads(plugin.call("value")) == {"a": [1, 2.5, True, None, [3]], "b": 2**70}


def test_several_parameters_by_name() -> None:
    """A function with several parameters gets them by name from an object, or from a list."""
    source = (
        "def area(width: float, height: float = 2): return [width * height, type(width).__name__]"
    )
    with make_python(source) as plugin:
        assert json.loads(plugin.call("area", '{"width": 3}')) == [6.0, "float"]
        assert json.loads(plugin.call("area", "[3, 5]")) == [15.0, "float"]
        for wrong, told in {
            "{}": "`width` is missing",
            '{"width": 1, "depth": 2}': "there is no parameter 'depth'",
            "[1, 2, 3]": "expected 2 items, got 3",
            '{"width": "x"}': "area.width: expected float, got str",
            "7": "expected an object with the arguments, got int",
        }.items():
            with pytest.raises(GuestError, match=told):
                plugin.call("area", wrong)


CLASSES = """
from dataclasses import dataclass, field
from typing import List, Optional

@dataclass
class Item:
    name: str
    price: float
    tags: list[str] = field(default_factory=list)

@dataclass
class Order:
    items: List[Item]
    note: Optional[str] = None
    codes: "dict[str, int] | None" = None

def total(order: Order) -> dict:
    return {"sum": sum(i.price for i in order.items), "note": order.note, "first": order.items[0]}
"""


def test_dataclasses_are_built_from_json() -> None:
    """A dataclass as an annotation is built from JSON, its fields too, and written as JSON."""
    with make_python(CLASSES) as plugin:
        order = {"items": [{"name": "a", "price": 2}, {"name": "b", "price": 1.5, "tags": ["x"]}]}
        assert json.loads(plugin.call("total", order)) == {
            "sum": 3.5,
            "note": None,
            "first": {"name": "a", "price": 2.0, "tags": []},
        }


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            {"items": [{"name": 1, "price": 2}]},
            r"order|total.items\[0\].name: expected str, got int",
        ),
        ({"items": [{"name": "a"}]}, r"items\[0\]: Item: `price` is missing"),
        ({"items": {}}, "items: expected list, got an object"),
        ({"items": [], "other": 1}, "Order has no field 'other'"),
        ({"items": [], "codes": {"a": "b"}}, r"codes\['a'\]: expected int, got str"),
        ([], "expected an object for Order, got a list"),
    ],
)
def test_values_that_do_not_fit_are_named(given: Any, told: str) -> None:
    """A value of another type is an error that says where it is."""
    with make_python(CLASSES) as plugin, pytest.raises(GuestError, match=told):
        plugin.call("total", given)


def test_official_kit_surface(caplog: pytest.LogCaptureFixture) -> None:
    """A plugin written for the official kit runs: input, output, config, vars, log."""
    source = """
import extism

@extism.plugin_fn
def greet():
    name = extism.input_str()
    extism.output_str(f"{extism.Config.get('word')}, {name}")

@extism.plugin_fn
def count():
    n = int(extism.Var.get_str("n") or "0") + 1
    extism.Var.set("n", str(n))
    extism.output_json({"n": n, "unset": extism.Config.get_str("x")})

@extism.plugin_fn
def tell():
    extism.log(extism.LogLevel.Warn, "careful")
    print("printed", 1, 2)

@extism.plugin_fn
def echo():
    extism.output_bytes(extism.input_bytes())

def not_exported(): pass
"""
    caplog.set_level(logging.INFO)
    with make_python(source, config={"word": "Hello"}) as plugin:
        assert plugin.call("greet", "Ada") == b"Hello, Ada"
        assert json.loads(plugin.call("count")) == {"n": 1, "unset": None}
        assert json.loads(plugin.call("count")) == {"n": 2, "unset": None}
        assert plugin.call("echo", b"\0\xff") == b"\0\xff"
        plugin.call("tell")
        assert not plugin.function_exists("not_exported")
    assert [(r.levelname, r.message) for r in caplog.records][-2:] == [
        ("WARNING", "careful"),
        ("INFO", "printed 1 2"),
    ]


def test_host_functions_are_imported() -> None:
    """`import_fn` makes a function of the application one of the script, with its types."""

    @plugwasm.host_fn()
    def lookup(name: str) -> str:
        return name.upper()

    @plugwasm.host_fn()
    def add(a: int, b: float) -> float:
        return a + b

    source = """
import extism

@extism.import_fn("extism:host/user", "lookup")
def lookup(name: str) -> str: pass

@extism.import_fn("extism:host/user", "add")
def add(a: int, b: float) -> float: pass

def run(name: str):
    return [lookup(name), add(-2, 0.5)]
"""
    with make_python(source, functions=[lookup, add]) as plugin:
        assert json.loads(plugin.call("run", "ada")) == ["ADA", -1.5]
    with pytest.raises(ScriptError, match="gives the plugin no function `lookup`"):
        script("python", source)


def test_exceptions_have_a_traceback() -> None:
    """An exception reaches the host with its message, and the lines of the script that led to it."""
    source = "def outer(x):\n    return inner(x)\n\ndef inner(x):\n    return 1 // x\n"
    with make_python(source, name="rules.py") as plugin, pytest.raises(GuestError) as caught:
        plugin.call("outer", "0")
    assert caught.value.guest_message == (
        "ZeroDivisionError: divide by zero\n"
        "Traceback (most recent call last):\n"
        '  File "rules.py", line 2, in outer\n'
        '  File "rules.py", line 5, in inner'
    )


def test_errors_with_a_code() -> None:
    """`extism.Error` is exactly a message and a code; other exceptions may have a code, too."""
    source = """
import extism
def fail(): raise extism.Error("no such user", 404)
class Refused(Exception): code = 7
def refuse(): raise Refused("no")
"""
    with make_python(source) as plugin:
        with pytest.raises(GuestError) as caught:
            plugin.call("fail")
        assert (caught.value.guest_message, caught.value.code) == ("no such user", 404)
        with pytest.raises(GuestError) as caught:
            plugin.call("refuse")
        assert caught.value.code == 7
        assert caught.value.guest_message.startswith("Refused: no\nTraceback")


@pytest.mark.parametrize(
    ("source", "line", "column", "told"),
    [
        ("def f():\n    return (1 +\n", 3, 1, "is not valid Python: SyntaxError"),
        ("x = 1\ndef f(:\n    pass\n", 2, 7, "is not valid Python: SyntaxError: invalid syntax"),
        ("def f():\n  pass\n   pass\n", 3, None, "is not valid Python: IndentationError"),
        ("import os\n", 1, None, "ImportError: no module named 'os'"),
        ("x = 1\ny = x + 'a'\n", 2, None, "failed while it was loaded: TypeError"),
        ("import extism\nextism.input_str()\n", 2, None, "RuntimeError: the input is read while"),
        ("x = 1\n", None, None, "exports no function"),
        ("def _private(): pass\n", None, None, "exports no function"),
        ("def _start(): pass\ndef hs_init(): pass\n", None, None, "which hosts run by themselves"),
    ],
)
def test_scripts_that_are_wrong(source: str, line: int, column: int, told: str) -> None:
    """A script that cannot be loaded is a ScriptError with the line, and the column if it is known."""
    need_engine("python")
    with pytest.raises(ScriptError, match=told) as caught:
        script("python", source, name="a.py")
    assert caught.value.line == line
    if column is not None:
        assert caught.value.column == column
    assert str(caught.value).startswith("a.py")


def test_state_of_loading_is_kept() -> None:
    """What a script did when it was loaded is there in each instance, and only that."""
    source = "import random\nseen = [random.random()]\ndef f():\n    seen.append(1)\n    return len(seen)\n"
    need_engine("python")
    compiled = script("python", source)
    for _ in range(2):
        with Plugin(compiled) as plugin:
            assert [plugin.call("f"), plugin.call("f")] == [b"2", b"3"]


def test_async_functions_run_to_their_end() -> None:
    """A coroutine is run; one that waits for something is an error."""
    source = """
async def inner(): return 41
async def f(): return await inner() + 1
class Never:
    def __iter__(self): return self
    def __next__(self): return 1
    __await__ = __iter__
async def g(): await Never()
"""
    with make_python(source) as plugin:
        assert plugin.call("f") == b"42"
        with pytest.raises(GuestError, match="waits for something that is not here"):
            plugin.call("g")


def test_replaced_builtins_harm_no_kit() -> None:
    """A script that replaces builtins is called all the same."""
    source = """
import builtins
def f(x: list[int]): return x
for name in ("isinstance", "str", "len", "getattr", "type", "enumerate", "TypeError"):
    setattr(builtins, name, None)
"""
    with make_python(source) as plugin:
        assert plugin.call("f", "[1]") == b"[1]"
        with pytest.raises(GuestError, match="TypeError: the input of f: expected list, got null"):
            plugin.call("f", "null")


def test_destroyed_kit_is_an_error() -> None:
    """A script that takes away what the kit needs gets an error in each call."""
    with make_python("import extism\ndef f(x): pass\nextism._host = None\n") as plugin:
        for _ in range(2):
            with pytest.raises(GuestError, match="the script failed with AttributeError"):
                plugin.call("f", "1")


@pytest.mark.parametrize(
    "source",
    [
        "def f(\n  a: 'x=,)(' = ')',  # ,)\n  *, b: dict[str, list[int]] = {}\n) -> str:\n  return a\n",
        "s = '''\ndef g(x): pass\n'''\ndef f(x: int = 1): return x\n",
        'S = "\\"" # def g(): pass\ndef f(): return S\n',
        "async \\\n def f(): pass\n",
        "class A:\n  def g(self): pass\n  x: int\ndef f(): pass\n",
        "if True:\n  def g(): pass\ndef f(*args, **options): pass\n",
        "def f(ä: str): return ä",
        "def f(): return 1\r\n\r\n",
    ],
)
def test_only_functions_of_the_first_column(source: str) -> None:
    """Functions are found in the first column, however they are written, and nowhere else."""
    with make_python(source) as plugin:
        assert plugin.function_exists("f")
        assert not plugin.function_exists("g")


def test_runs_on_fresh_instances_and_pools() -> None:
    """A script works in a pool, from several threads."""
    need_engine("python")
    compiled = script("python", "def square(n: int): return n * n")
    with plugwasm.PluginPool(compiled, size=2) as pool:
        assert list(pool.map("square", range(20), returns=int)) == [n * n for n in range(20)]
