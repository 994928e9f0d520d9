"""Hostile Python: a script that breaks the interpreter breaks its own, and gets nothing of the host."""

from __future__ import annotations

import pytest

import plugwasm
from plugwasm import CallError, GuestError, Limits, ScriptError, script
from tests.script.hostile import LIMITS, in_python, victim_beside
from tests.support.scripts import make_python, need_engine

ABSENT = {
    "native code": "import micropython\n@micropython.native\ndef h(): pass\n",
    "viper": "import micropython\n@micropython.viper\ndef h(): pass\n",
    "assembler": "import micropython\n@micropython.asm_thumb\ndef h(): pass\n",
    "memory by address": "import machine\nmachine.mem32[0]\n",
    "structures by address": "import uctypes\n",
    "a buffer at an address": "import uctypes\nuctypes.bytearray_at(0, 10)\n",
    "a scheduler": "import micropython\nmicropython.schedule(lambda x: 1, 1)\n",
    "threads": "import _thread\n",
    "tracing": "import sys\nsys.settrace(None)\n",
    "frames": "import sys\nsys._getframe()\n",
    "a path": "import sys\nsys.path.append('/etc')\nimport passwd\n",
    "a path as a name": "__import__('/etc/passwd')\n",
    "a package": "from .. import x\n",
    "compiled code": "exec(b'M\\x06\\x00\\x1f\\x00\\x00')\n",
    "marshal": "import marshal\n",
    "a file": "open('/etc/passwd', 'rb')\n",
    "the network": "import socket\n",
    "processes": "import os\nos.system('ls')\n",
    "interrupts": "import machine\nmachine.disable_irq()\n",
}


@pytest.mark.parametrize("source", ABSENT.values(), ids=ABSENT)
def test_ways_out_are_not_there(source: str) -> None:
    """Native code, memory by address, threads, files and compiled modules are not there."""
    need_engine("python")
    with pytest.raises(ScriptError):
        script("python", source + "def f(): pass\n", limits=LIMITS)


def test_files_cannot_be_opened() -> None:
    """`open` says that there are no files."""
    plugin = make_python("def f(): return open('/etc/passwd').read()")
    with plugin, pytest.raises(GuestError, match="a plugin has no files"):
        plugin.call("f")


@pytest.mark.parametrize(
    "name", ["os", "socket", "ctypes", "machine", "uctypes", "subprocess", "vfs"]
)
def test_modules_of_a_system_are_not_there(name: str) -> None:
    """There is no module for files, sockets, processes or memory addresses."""
    need_engine("python")
    with pytest.raises(ScriptError, match=f"no module named '{name}'"):
        script("python", f"import {name}\ndef f(): pass\n")


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


def test_functions_of_the_table_cannot_be_had() -> None:
    """A script that names elements of the function table as host functions calls none with a wrong type."""
    source = """
import _host
for element in range(0, 3000):
    _host.add_host_function(element, ':')
def f(i: int): return _host.call(i, [])
def g(): return 1
"""
    with victim_beside(source, "python", limits=Limits(timeout=5)) as plugin:
        for index in range(0, 3000, 37):
            try:
                plugin.call("f", index)
            except CallError:
                pass
        assert plugin.call("g", returns=int) == 1


# Faults of the interpreter are among them: the memory that they destroy is that of the instance.
CORRUPTING = {
    "a text of 4 GiB": "return len('x' * 65536 * 65536)",
    "a list of 4 GiB": "return len([0] * 2**30)",
    "a tuple of 4 GiB": "return len((0,) * 65536 * 65536)",
    "bytes of 8 GiB": "return len(b'ab' * 65536 * 65536)",
    "a length that lies": "from array import array\nclass B:\n  def __len__(self): return 1\n  def __iter__(self):\n    for _ in range(100000): yield 1.5\nreturn len(array('d', B()))",
    "bytes that lie": "class B:\n  def __len__(self): return 1\n  def __iter__(self):\n    for _ in range(100000): yield 65\nreturn len(bytearray(B()))",
    "a length that wraps": "from array import array\nclass B:\n  def __len__(self): return 1 << 29\n  def __iter__(self): return iter([1.5])\na = array('d', B())\nfor i in range(0, 2**29, 1000): a[i] = 1e300",
    "a dict that is cleared": "class A:\n  def __hash__(self): return 1\n  def __eq__(self, o): d.clear()\nd = {}\nfor i in range(10): d[A()] = i",
    "a set that is cleared": "class A:\n  def __hash__(self): return 1\n  def __eq__(self, o): s.clear()\ns = set()\nfor i in range(10): s.add(A())",
    "a list that is cleared": "class A:\n  def __eq__(self, o): a.clear()\na = [A() for _ in range(1000)]\na.remove(5)",
    "a list that is sorted": "a = [3, 2, 1] * 100\na.sort(key=lambda x: a.append(x))\nreturn len(a)",
    "a heap that is cleared": "import heapq\nclass A:\n  def __lt__(self, o): h.clear()\nh = [A() for _ in range(10)]\nheapq.heapify(h)",
    "a view of bytes that grow": "b = bytearray(100)\nm = memoryview(b)\nb.extend(b'x' * 10**6)\nm[50] = 7",
    "a stream that lies": "import io, deflate\nclass S(io.IOBase):\n  def readinto(self, b): return 10**9\ndeflate.DeflateIO(S(), deflate.RAW).read(10)",
    "a position": "import io\nb = io.BytesIO(b'abc')\nb.seek(2**31 - 1)\nb.write(b'x')",
    "a structure": "import struct\nstruct.unpack_from('I', b'abcd', 2**31 - 1)",
    "a nested pattern": "import re\nre.match('(?:' * 10000 + ')' * 10000, '')",
    "a slice": "return [1, 2, 3][-(2**40):2**40]",
}


@pytest.mark.parametrize("body", CORRUPTING.values(), ids=CORRUPTING)
def test_a_broken_interpreter_breaks_alone(body: str) -> None:
    """What breaks the interpreter is an error of the call, and no other instance sees it."""
    limits = Limits(timeout=5, memory_bytes=32 * 2**20)
    with victim_beside(in_python(body), "python", limits=limits) as plugin:
        try:
            plugin.call("f")
        except CallError:
            pass


def test_a_memory_that_was_written_over() -> None:
    """A script that writes all over its own memory reaches its own instance only."""
    body = (
        "from array import array\n"
        "class B:\n"
        "  def __len__(self): return 1 << 29\n"
        "  def __iter__(self): return iter([])\n"
        "a = array('d', B())\n"
        "for i in range(2**29): a[i] = 1e300"
    )
    with victim_beside(in_python(body), "python", limits=Limits(timeout=20)) as plugin:
        for _ in range(3):
            with pytest.raises(CallError):
                plugin.call("f")
            assert plugin.call("g") == b"1"


TAKEN_OVER = {
    "the kit's functions": "import extism\nextism._functions = None\n",
    "the entry points": "import _host\n_host.set_entry_points(None, None, None)\n",
    "an entry point that lies": "import _host\n_host.set_entry_points(lambda x: b'', lambda i: 7, lambda e: 7)\n",
    "the signatures": "import extism\nextism._signatures = 5\n",
    "the marks": "import extism\nextism._marked.append(5)\n",
    "the stack": "import _host\n_host.set_stack(1)\n",
    "host functions": "import _host\nfor i in range(10000): _host.add_host_function(i, 'llll:l')\n",
    "host functions of no type": "import _host\n_host.add_host_function(0, 'i' * 1000)\n",
    "the kit as a module": "import _host\n_host.run('extism', 'extism.py', 'a = 1')\n",
    "no modules": "import sys\nsys.modules.clear()\n",
    "no builtins": "import builtins\nfor n in dir(builtins):\n  try: delattr(builtins, n)\n  except Exception: pass\n",
    "builtins that lie": "import builtins\nbuiltins.isinstance = builtins.len = builtins.sorted = None\n",
    "a collector that is off": "import gc\ngc.disable()\ngc.threshold(1)\n",
}


@pytest.mark.parametrize("source", TAKEN_OVER.values(), ids=TAKEN_OVER)
def test_a_kit_that_was_taken_over(source: str) -> None:
    """A script that changes the kit harms itself: errors stay errors of the script or of its calls."""
    need_engine("python")
    with victim_beside(in_python("pass"), "python"):
        try:
            compiled = script("python", source + in_python("return 'x'"), limits=LIMITS)
        except ScriptError:
            return
        with plugwasm.Plugin(compiled) as plugin:
            for _ in range(2):
                try:
                    assert plugin.call("f") == b"x"
                except CallError as error:
                    assert isinstance(error, GuestError)


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
