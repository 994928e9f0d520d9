"""Hostile scripts in Python: a limit or an error ends them, and the host is not reached."""

from __future__ import annotations

import pytest

import plugwasm
from plugwasm import GuestError, Limits, ScriptError, script
from tests.support.scripts import make_python, need_engine

LIMITS = Limits(timeout=1, memory_bytes=32 * 2**20)

ENDLESS = {
    "a loop": "while True: pass",
    "a regular expression": "import re; re.match('(a+)+$', 'a' * 40 + 'b')",
    "caught errors": "\n  while True:\n    try: 1 // 0\n    except BaseException: pass",
    "caught recursion": "\n  def g():\n    try: g()\n    except RuntimeError: g()\n  while True: g()",
    "caught memory": "\n  a = []\n  while True:\n    try: a.append(bytearray(10**6))\n    except MemoryError: pass",
    "a large number": "n = 10**7; return len(str(3 ** n))",
    "a text of an error": "\n  class E(Exception):\n    def __str__(self):\n      while True: pass\n  raise E()",
    "a generator": "import itertools; return sum(1 for _ in itertools.count())",
    "a finalizer": "\n  class A:\n    def __del__(self):\n      while True: pass\n  while True: A()",
}


@pytest.mark.parametrize("body", ENDLESS.values(), ids=ENDLESS)
def test_endless_calls_end_at_deadline(body: str) -> None:
    """A call that never ends is ended by the deadline, and the next call works."""
    source = f"def f():\n  {body}\n\ndef g(): return 1\n"
    with make_python(source, limits=LIMITS) as plugin:
        with pytest.raises(plugwasm.TimeoutError):
            plugin.call("f")
        assert plugin.call("g", returns=int) == 1


def test_endless_loading_ends_at_deadline() -> None:
    """A script that never ends while it is loaded is ended by the deadline."""
    need_engine("python")
    with pytest.raises(plugwasm.TimeoutError):
        script("python", "while True: pass\ndef f(): pass\n", limits=LIMITS)


DEEP = {
    "calls": "return f()",
    "methods": "\n  class A:\n    def g(self): return self.g()\n  return A().g()",
    "constructors": "\n  class A:\n    def __init__(self): self.a = A()\n  A()",
    "attributes": "\n  class A:\n    def __getattr__(self, n): return getattr(A(), n)\n  A().x",
    "comprehensions": "return [f() for _ in range(1)]",
    "sorting": "return sorted([1, 2], key=lambda _: f())",
    "operators": "\n  class A:\n    def __add__(self, o): return A() + o\n  return A() + 1",
    "text of objects": "\n  class A:\n    def __repr__(self): return repr(A())\n  return repr(A())",
    "generators": "\n  def g():\n    yield from g()\n  return list(g())",
    "nested lists": "\n  a = []\n  for _ in range(10**5): a = [a]\n  return repr(a)",
    "equality": "\n  a, b = [], []\n  for _ in range(10**5): a, b = [a], [b]\n  return a == b",
    "hashes": "\n  a = ()\n  for _ in range(10**5): a = (a,)\n  return hash(a)",
    "values as JSON": "\n  a = []\n  for _ in range(10**5): a = [a]\n  return a",
    "text of JSON": "import json; return len(str(json.loads('[' * 10**5 + ']' * 10**5)))",
    "source": "eval('[' * 10**4 + ']' * 10**4)",
    "blocks": "exec('\\n'.join(' ' * i + 'if 1:' for i in range(3000)) + '\\n' + ' ' * 3000 + 'pass')",
    "regular expressions": "import re; re.match('(a|b)*c', 'ab' * 10**5)",
    "evaluation": "return eval('f()', {'f': f})",
}


@pytest.mark.parametrize("body", DEEP.values(), ids=DEEP)
def test_deep_recursion_is_an_error(body: str) -> None:
    """However a script recurses, it gets a RuntimeError that it can catch, and the plugin goes on."""
    source = f"def f():\n  {body}\n\ndef g(): return 1\n"
    with make_python(source, limits=Limits(timeout=20, memory_bytes=64 * 2**20)) as plugin:
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


@pytest.mark.parametrize(
    "name", ["os", "socket", "ctypes", "machine", "uctypes", "subprocess", "vfs"]
)
def test_modules_of_a_system_are_not_there(name: str) -> None:
    """There is no module for files, sockets, processes or memory addresses."""
    need_engine("python")
    with pytest.raises(ScriptError, match=f"no module named '{name}'"):
        script("python", f"import {name}\ndef f(): pass\n")


def test_files_cannot_be_opened() -> None:
    """`open` says that there are no files."""
    plugin = make_python("def f(): return open('/etc/passwd').read()")
    with plugin, pytest.raises(GuestError, match="a plugin has no files"):
        plugin.call("f")


def test_host_functions_only_of_the_application() -> None:
    """A script that calls functions of the host by number reaches none that it was not given."""
    source = """
import _host
def f(n: int): return _host.call(n, [])
def g(): return _host.add_host_function(1, ":")
"""
    with make_python(source) as plugin:
        for number in (-1, 0, 1, 50, 10**6):
            with pytest.raises(GuestError, match="no such host function"):
                plugin.call("f", number)
        with pytest.raises(GuestError, match="the script is loaded already"):
            plugin.call("g")


@pytest.mark.parametrize(
    "source",
    [b"def f(): pass\n\xff", b"def f(): return '\xed\xa0\x80'", b"\xff\xfed\0e\0f\0"],
)
def test_bytes_that_are_not_utf8(source: bytes) -> None:
    """A script that is not UTF-8 is refused."""
    need_engine("python")
    with pytest.raises(ScriptError, match="is not UTF-8"):
        script("python", source)


def test_input_that_is_not_utf8() -> None:
    """Input that is not UTF-8 is an error of the script's function, not of the host."""
    plugin = make_python("def f(x: str): return x")
    with plugin, pytest.raises(GuestError, match="the input of f is not UTF-8"):
        plugin.call("f", b"\xff")


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
