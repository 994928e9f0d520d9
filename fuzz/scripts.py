"""Any script is loaded and called, or fails with one of our errors, and no other script sees it.

The scripts are sentences of a small grammar for each language, with what interpreters find hard:
hooks that change what is being used, sizes at their limits, values that contain themselves, and
wrong bytes. The errors of loading are a `ScriptError` or a `CallError`, those of a call a
`CallError` or `FunctionNotFoundError`. Afterwards a script beside it and a new instance of that
return what they always do.
"""

from __future__ import annotations

import functools
import logging

import plugwasm
from plugwasm import CallError, Limits, Plugin, ScriptError, script

from .choices import Choices

COVERED: list[str] = []
SIZES = (4, 9)
logging.getLogger("plugwasm.plugin").addHandler(logging.NullHandler())  # the plugins' logs
_LIMITS = Limits(timeout=0.25, memory_bytes=16 * 2**20)
_INPUTS = (b"null", b"[1, 2]", b'{"a": "b"}', b'"x"', b"", b"\xff", b"[" * 3000, b"1e999", b"7")
_MOST = 12_000

_VALUES = {
    "javascript": (
        *("0", "-0", "NaN", "1e308", "2**31", "2**53", "4294967295", "10n**40n", "-1n", "null"),
        *(
            "undefined",
            "''",
            "'\\ud800'",
            "'x'.repeat(1e5)",
            "[]",
            "{}",
            "[,,1]",
            "Symbol.iterator",
        ),
        *(
            "x",
            "a",
            "b",
            "h",
            "this",
            "globalThis",
            "arguments",
            "new.target",
            "Host",
            "Var",
            "JSON",
        ),
        *("new Array(4294967295)", "new Uint8Array(64)", "new ArrayBuffer(8, {maxByteLength: 64})"),
        *(
            "new Map()",
            "new WeakMap()",
            "new Proxy({}, {})",
            "new Error('x')",
            "Promise.resolve(1)",
        ),
        *(
            "/(a+)+b/y",
            "(function*(){yield 1})",
            "(class extends Array{})",
            "new Date(8e15)",
            "eval",
        ),
    ),
    "python": (
        *("0", "-1", "1.5", "float('nan')", "2**31", "2**63", "10**40", "None", "True", "''"),
        *("'x' * 100000", "b'\\xff'", "[]", "{}", "()", "set()", "x", "a", "b", "h", "object()"),
        *("bytearray(64)", "memoryview(bytearray(8))", "range(10**9)", "iter([1])", "type", "A()"),
        *("Exception('x')", "lambda: 1", "(i for i in [1])", "slice(None)", "...", "locals()", "A"),
    ),
}
_SHAPES = {
    "javascript": (
        *("(%s)+(%s)", "(%s)**(%s)", "(%s)<(%s)", "(%s)[%s]", "(%s)?.(%s)", "[...(%s),%s]"),
        *("({a:%s,[%s]:1})", "Object.assign(%s,%s)", "JSON.stringify(%s,%s)", "`${%s}${%s}`"),
        *(
            "Array.from(%s,%s)",
            "[%s].sort(()=>%s)",
            "String(%s).replace(%s,x)",
            "(Object(%s).length=%s)",
        ),
        *(
            "Object.defineProperty(%s,'a',{get(){return %s}})",
            "new Proxy(Object(%s),{get(){return %s}})",
        ),
        *("Object.setPrototypeOf(%s,%s)", "Reflect.construct(Array,[%s],%s)", "(%s).resize(%s)"),
        *("new Uint8Array(%s).fill(%s)", "new Set([%s]).union(new Set([%s]))", "(()=>%s)(%s)"),
        *("({valueOf(){return %s},toJSON(){return %s}})", "eval(String(%s)+(%s))", "[%s].flat(%s)"),
        *(
            "new RegExp(%s,'v').exec(%s)",
            "structuredClone(%s,%s)",
            "Memory.find(%s,%s).readBytes()",
        ),
        *("({[Symbol.iterator]:()=>({next(){%s;return {value:%s}}})})", "Function(%s,%s)"),
        *(
            "BigInt.asIntN(%s,%s)",
            "Promise.all([%s,%s])",
            "await_(%s,%s)",
            "Host.outputString(%s,%s)",
        ),
    ),
    "python": (
        *("(%s)+(%s)", "(%s)*(%s)", "(%s)**(%s)", "(%s)<(%s)", "(%s)[%s]", "(%s)(%s)", "[%s,%s]"),
        *("{%s:%s}", "'%%s%%d' %% (%s,%s)", "'{:{}}'.format(%s,%s)", "sorted([%s,%s])"),
        *("setattr(%s,'a',%s)", "getattr(%s,str(%s))", "list(zip(%s,%s))", "bytes(%s)+bytes(%s)"),
        *(
            "(%s)[%s:%s]",
            "[%s for _ in (%s)]",
            "type('T',(type(%s),),{'a':%s})",
            "isinstance(%s,%s)",
        ),
        *("eval(str(%s)+str(%s))", "_host.block_read(%s)or(%s)", "array.array('d',%s)or(%s)"),
        *(
            "json.loads(json.dumps([%s,%s]))",
            "re.sub(str(%s),str(%s),'ab')",
            "struct.pack(str(%s),%s)",
        ),
        *(
            "deque(%s,%s)",
            "io.BytesIO(%s).seek(%s)",
            "sum([%s,%s])",
            "a.append(%s) or a.extend(%s)",
        ),
    ),
}
_STATEMENTS = {
    "javascript": (
        *("a = %s;", "b = %s;", "return %s;", "throw %s;", "for (const i of %s) a = i;", "x = %s;"),
        *("try { %s } catch (e) { a = e; }", "if (%s) return;", "h = () => %s;", "delete %s;"),
        *("Array.prototype.a = %s;", "Object.prototype.toJSON = () => %s;", "globalThis.a = %s;"),
        *(
            "Error.prepareStackTrace = (e, f) => %s;",
            "for (let i = 0; i < 50; i++) %s;",
            "while (%s);",
        ),
        *("Var.set('v', %s);", "console.log(%s);", "queueMicrotask(() => %s);", "switch (%s) {}"),
    ),
    "python": (
        *(
            "a = %s",
            "b = %s",
            "return %s",
            "raise %s",
            "x = %s",
            "del %s",
            "assert %s",
            "print(%s)",
        ),
        *("for a in %s: pass", "while %s: pass", "h = lambda *p: %s", "A.__eq__ = lambda *p: %s"),
        *("A.__hash__ = lambda *p: %s", "A.__len__ = lambda *p: %s", "A.__iter__ = lambda *p: %s"),
        *("A.__del__ = lambda *p: %s", "with %s: pass", "a[0:1] = %s", "gc.collect() or %s"),
        *("extism.Var.set('v', %s)", "extism.output(%s)", "extism._functions = %s", "a, *b = %s"),
    ),
}
_GUARDS = {
    "javascript": "try { %s } catch (e) { b = e; }",
    "python": "try:\n        %s\n    except Exception as e:\n        b = e",
}
_BEFORE = {
    "javascript": "let a = [], b = {}, h = () => 1;\n"
    "const await_ = async (p, q) => { await p; return q; };\n",
    "python": "import array, gc, io, json, re, struct, extism, _host\n"
    "from collections import deque\nclass A: pass\na, b, h = [], {}, len\n",
}
_GOOD = {
    "javascript": "let n = 0; export const f = (x) => [x, n++, {}.a, typeof a];",
    "python": "n = 0\ndef f(x):\n  global n\n  n += 1\n  return [x, n - 1, 'a' in globals()]\n",
}
SEEDS = [bytes((seed * step) % 251 for step in range(120)) for seed in (1, 2, 5, 13, 37, 101)]


def check(data: bytes) -> None:
    language, source, given = build(data)
    neighbour, first = _neighbour(language)
    try:
        compiled = script(language, source, name="fuzz", limits=_LIMITS)  # type: ignore[arg-type]
    except (ScriptError, CallError):
        pass
    else:
        with Plugin(compiled) as plugin:
            for _ in range(2):
                try:
                    plugin.call("f", given)
                except CallError as error:
                    assert isinstance(str(error), str)
    count = neighbour.call("f", b"5", returns=list)[1]
    assert neighbour.call("f", b"5", returns=list)[1] == count + 1, "a script beside it changed"
    with Plugin(_good(language)) as new:
        assert bytes(new.call("f", b"5")) == first, "a new instance of a script beside it differs"


def describe(data: bytes) -> str:
    language, source, given = build(data)
    return f"{language}, called with {given[:80]!r}:\n{source[:6000]}"


def build(data: bytes) -> tuple[str, str | bytes, bytes]:
    """Return a language, a script and an input."""
    choices = Choices(data)
    language = choices.pick(("javascript", "python"))
    given = choices.pick(_INPUTS)
    at_load = choices.rarely(4)
    lines: list[str] = []
    while choices and len(lines) < 12:
        statement = choices.pick(_STATEMENTS[language])
        statement = statement.replace("%s", _expression(choices, language, 3))
        if choices.below(4):
            statement = _GUARDS[language].replace("%s", statement)
        lines.append(statement)
    if language == "javascript":
        body = "\n".join(lines)
        source = (
            f"{_BEFORE[language]}{body if at_load else ''}\nexport function f(x) {{\n{body}\n}}\n"
        )
    else:
        body = "".join(f"    {line}\n" for line in lines) or "    pass\n"
        top = f"if 1:\n{body.replace('return', 'x =')}" if at_load else ""
        names = "    global a, b, h\n"
        source = f"{_BEFORE[language]}{top}\ndef f(x):\n{names}{body}"
    source = source[:_MOST]
    if choices.rarely(8):
        return language, choices.splice(source.encode(), (b"(", b"[", b"`", b"\\", b"\0")), given
    return language, source, given


def _expression(choices: Choices, language: str, depth: int) -> str:
    if not depth or not choices or choices.below(3) == 0:
        return choices.pick(_VALUES[language])
    parts = choices.pick(_SHAPES[language]).replace("%%", "\0").split("%s")
    text = parts[0]
    for part in parts[1:]:
        text += _expression(choices, language, depth - 1) + part
    return text.replace("\0", "%")


@functools.cache
def _good(language: str) -> plugwasm.CompiledPlugin:
    return script(language, _GOOD[language], name="good")  # type: ignore[arg-type]


@functools.cache
def _neighbour(language: str) -> tuple[Plugin, bytes]:
    """Return an instance that lives as long as the process, and what its first call returned."""
    plugin = Plugin(_good(language))
    return plugin, bytes(plugin.call("f", b"5"))
