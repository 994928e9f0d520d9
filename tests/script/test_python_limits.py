"""Time, memory and stack of Python: whatever a script does with them, a limit or an error ends it."""

from __future__ import annotations

import pytest

import plugwasm
from plugwasm import GuestError, Limits, script
from tests.script.hostile import LIMITS, in_python, victim_beside
from tests.support.scripts import make_python

ENDLESS = {
    "a loop": "while True: pass",
    "a regular expression": "import re; re.match('(a+)+$', 'a' * 40 + 'b')",
    "caught errors": "while True:\n  try: 1 // 0\n  except BaseException: pass",
    "caught recursion": "def g():\n  try: g()\n  except RuntimeError: g()\nwhile True: g()",
    "caught memory": "a = []\nwhile True:\n  try: a.append(bytearray(10**6))\n  except MemoryError: pass",
    "a large number": "n = 10**7; return len(str(3 ** n))",
    "a text of an error": "class E(Exception):\n  def __str__(self):\n    while True: pass\nraise E()",
    "a generator": "import itertools; return sum(1 for _ in itertools.count())",
    "a finalizer": "class A:\n  def __del__(self):\n    while True: pass\nwhile True: A()",
    "an attribute": "class A:\n  def __getattr__(self, n):\n    while True: pass\nA().x",
    "a property": "class A:\n  @property\n  def x(self):\n    while True: pass\nA().x",
    "a hash": "class A:\n  def __hash__(self):\n    while True: pass\n{A(): 1}",
    "a comparison": "class A:\n  def __lt__(self, o):\n    while True: pass\nsorted([A(), A()])",
    "a truth": "class A:\n  def __bool__(self):\n    while True: pass\nnot A()",
    "an exit": "class A:\n  def __enter__(self): pass\n  def __exit__(self, *a):\n    while True: pass\nwith A(): raise ValueError()",
    "an exit that swallows": "class A:\n  def __enter__(self): pass\n  def __exit__(self, *a): return True\nwhile True:\n  with A(): raise SystemExit()",
    "a text": "class A:\n  def __repr__(self):\n    while True: pass\nrepr(A())",
    "a width": "return len('%1000000000d' % 5)",
    "a width of digits": "return len('{:99999999999999999999}'.format(5))",
    "a width that is computed": "return len('%*d' % (10**9, 5))",
    "a factorial": "n = 1\nfor i in range(1, 10**6): n *= i",
    "digits of an integer": "return int('9' * 10**6)",
    "a power modulo": "return pow(3, 10**5000, 10**5000 + 1)",
    "a search": "return ('a' * 10**6).find('a' * 500000 + 'b')",
    "a stream": "import json\nclass S:\n  def read(self, *n):\n    while True: pass\njson.load(S())",
    "source": "eval('1+' * 10**6 + '1')",
    "a call of the collector": "import gc\nwhile True: gc.collect()",
    "the code of an error": "class E(Exception):\n  @property\n  def code(self):\n    while True: pass\nraise E()",
}


@pytest.mark.parametrize("body", ENDLESS.values(), ids=ENDLESS)
def test_deadline_ends_what_hangs(body: str) -> None:
    """However a call hangs, the deadline ends it, and the plugin can be called again."""
    with victim_beside(in_python(body), "python") as plugin:
        with pytest.raises(plugwasm.TimeoutError):
            plugin.call("f")
        assert plugin.call("g", returns=int) == 1


AT_LOAD = {
    "a loop": "while True: pass\n",
    "a class": "class A:\n  while True: pass\n",
    "a coroutine": "async def a():\n  while True: pass\na().send(None)\n",
    "code of a text": "exec('while True: pass')\n",
    "a constant": "x = 3 ** 10 ** 7\n",
    "an annotation": "def h(x: " + "list[" * 9000 + "int" + "]" * 9000 + "): pass\n",
    "a type that is parsed": "import extism\nextism._parse_type('list[' * 100000)\n",
    "the text of an error": "class E(Exception):\n  def __str__(self):\n    while True: pass\nraise E()\n",
}


@pytest.mark.parametrize("source", AT_LOAD.values(), ids=AT_LOAD)
def test_deadline_ends_loading(source: str) -> None:
    """However loading a script hangs, the deadline ends it."""
    with (
        victim_beside(in_python("pass"), "python"),
        pytest.raises(plugwasm.TimeoutError, match="loading the script"),
    ):
        script("python", source, limits=LIMITS)


@pytest.mark.parametrize(
    "body",
    [
        "a = []\n  while True: a.append(bytearray(10**6))",
        "return len('x' * 10**9)",
        "return len(bytearray(2**31))",
        "a = [0]\n  while True: a += a",
        "n = 10**9; return 1 << n",
    ],
)
def test_memory_bombs_are_memory_errors(body: str) -> None:
    """A script that takes all memory gets a MemoryError, and can go on afterwards."""
    source = f"def f():\n  {body}\n\ndef g(): return sum([1] * 1000)\n"
    with make_python(source, limits=Limits(timeout=20, memory_bytes=32 * 2**20)) as plugin:
        with pytest.raises(GuestError, match=r"MemoryError|OverflowError"):
            plugin.call("f")
        assert plugin.call("g") == b"1000"


def test_garbage_is_collected_in_a_call() -> None:
    """A call that makes far more garbage than the memory holds goes on within its limit."""
    source = """
class Node:
    def __init__(self, value): self.value = [value, str(value)]
def f(n: int):
    kept = []
    for i in range(n):
        node = Node(i)
        if i % 1000 == 0: kept.append(node)
    return sum(node.value[0] == int(node.value[1]) for node in kept)
"""
    with make_python(source, limits=Limits(timeout=60, memory_bytes=4 * 2**20)) as plugin:
        assert plugin.call("f", 200_000) == b"200"


DEEP = {
    "calls": "return f()",
    "methods": "class A:\n  def g(self): return self.g()\nreturn A().g()",
    "constructors": "class A:\n  def __init__(self): self.a = A()\nA()",
    "attributes": "class A:\n  def __getattr__(self, n): return getattr(A(), n)\nA().x",
    "comprehensions": "return [f() for _ in range(1)]",
    "sorting": "return sorted([1, 2], key=lambda _: f())",
    "operators": "class A:\n  def __add__(self, o): return A() + o\nreturn A() + 1",
    "text of objects": "class A:\n  def __repr__(self): return repr(A())\nreturn repr(A())",
    "generators": "def g():\n  yield from g()\nreturn list(g())",
    "nested lists": "a = []\nfor _ in range(10**5): a = [a]\nreturn repr(a)",
    "equality": "a, b = [], []\nfor _ in range(10**5): a, b = [a], [b]\nreturn a == b",
    "hashes": "a = ()\nfor _ in range(10**5): a = (a,)\nreturn hash(a)",
    "values as JSON": "a = []\nfor _ in range(10**5): a = [a]\nreturn a",
    "text of JSON": "import json; return len(str(json.loads('[' * 10**5 + ']' * 10**5)))",
    "source": "eval('[' * 10**4 + ']' * 10**4)",
    "blocks": "exec('\\n'.join(' ' * i + 'if 1:' for i in range(3000)) + '\\n' + ' ' * 3000 + 'pass')",
    "regular expressions": "import re; re.match('(a|b)*c', 'ab' * 10**5)",
    "evaluation": "return eval('f()', {'f': f})",
}


@pytest.mark.parametrize("body", DEEP.values(), ids=DEEP)
def test_deep_recursion_is_an_error(body: str) -> None:
    """However a script recurses, it gets a RuntimeError that it can catch, and the plugin goes on."""
    limits = Limits(timeout=20, memory_bytes=64 * 2**20)
    with victim_beside(in_python(body), "python", limits=limits) as plugin:
        with pytest.raises(GuestError, match=r"maximum recursion depth|MemoryError"):
            plugin.call("f")
        assert plugin.call("g", returns=int) == 1


def test_deep_recursion_has_a_short_traceback() -> None:
    """The traceback of a recursion leaves out its middle."""
    with make_python("def f(): return f()") as plugin, pytest.raises(GuestError) as caught:
        plugin.call("f")
    assert "more\n" in str(caught.value.guest_message)
    assert str(caught.value.guest_message).count("\n") == 22


def test_recursion_of_some_hundreds_works() -> None:
    """A recursion of 300 levels works with the default stack."""
    with make_python("def f(n: int): return 0 if n == 0 else 1 + f2(n - 1)\nf2 = f") as plugin:
        assert plugin.call("f", "300") == b"300"
