"""Time, memory and stack of JavaScript: whatever a script does with them, a limit or an error ends it."""

from __future__ import annotations

from contextlib import suppress

import pytest

import plugwasm
from plugwasm import GuestError, Limits, TrapError, script
from tests.script.hostile import LIMITS, in_javascript, victim_beside
from tests.support.scripts import make_plugin

ENDLESS = {
    "a loop": "for (;;);",
    "a regular expression": "/^(a+)+$/.test('a'.repeat(40) + 'b');",
    "promises": "return (async () => { for (;;) await 1; })();",
    "a thrown getter": "throw { get code() { for (;;); } };",
    "a thrown text": "throw { toJSON() { for (;;); } };",
    "a result": "return { toJSON() { for (;;); } };",
    "caught errors": "for (;;) try { null.x; } catch {}",
    "caught recursion": "function g() { try { g(); } catch { g(); } } g();",
    "caught memory": "const all = []; for (;;) try { all.push('x'.repeat(1e6)); } catch {}",
    "a finalizer": "const r = new FinalizationRegistry(() => { for (;;); }); for (;;) r.register({}, 1);",
    "a getter": "return { get a() { for (;;); } }.a;",
    "a getter of a result": "return { get a() { for (;;); } };",
    "a trap of a proxy": "return new Proxy({}, { get() { for (;;); } }).x;",
    "the keys of a result": "return new Proxy({}, { ownKeys() { for (;;); } });",
    "toString": "return `${{ toString() { for (;;); } }}`;",
    "a conversion": "return +{ [Symbol.toPrimitive]() { for (;;); } };",
    "an array that never ends": "return [].concat({ length: 2 ** 53 - 1, [Symbol.isConcatSpreadable]: true });",
    "a thenable": "return (async () => { const t = { then(r) { r(t); } }; await t; })();",
    "an async generator": "return (async () => { async function* h() { for (;;) yield 1; } for await (const x of h()); })();",
    "microtasks": "const h = () => { queueMicrotask(h); queueMicrotask(h); }; h();",
    "a job that is left": "Promise.resolve().then(() => { for (;;); }); return 1;",
    "a reviver": "return JSON.parse('[1]', () => { for (;;); });",
    "a replacer": "return JSON.stringify([1], () => { for (;;); });",
    "a comparator": "return [3, 2, 1].sort(() => { for (;;); });",
    "large holes": "return new Array(2 ** 32 - 1).indexOf(1);",
    "joining holes": "return new Array(2 ** 32 - 1).join('x');",
    "sorting holes": "return new Array(2 ** 32 - 1).sort();",
    "an object as an array": "return Array.prototype.reverse.call({ length: 2 ** 53 - 1 });",
    "String.raw": "return String.raw({ raw: { length: 2 ** 53 - 1 } });",
    "a nested pattern": "return /^(([a-z])+.)+[A-Z]([a-z])+$/.test('a'.repeat(50));",
    "a backreference": r"return /(.*)*\1x/.test('a'.repeat(50));",
    "nested quantifiers": "return new RegExp('((a{0,9999}){0,9999}){0,9999}b').test('a'.repeat(100));",
    "a weak reference": "const w = new WeakRef({}); for (;;) w.deref();",
    "a finalizer that registers": "const r = new FinalizationRegistry(() => r.register({}, 1)); r.register({}, 1);",
    "the name of an error": "const e = new Error('x'); Object.defineProperty(e, 'name', { get() { for (;;); } }); throw e;",
    "the prototype of an error": "throw new Proxy({}, { getPrototypeOf() { for (;;); } });",
    "a hook for stacks": "Error.prepareStackTrace = () => { for (;;); }; throw new Error('x');",
}


@pytest.mark.parametrize("body", ENDLESS.values(), ids=ENDLESS)
def test_deadline_ends_what_hangs(body: str) -> None:
    """However a call hangs, the deadline ends it, and the plugin can be called again."""
    with victim_beside(in_javascript(body)) as plugin:
        with pytest.raises(plugwasm.TimeoutError):
            plugin.call("f")
        assert plugin.call("g", returns=int) == 1


AT_LOAD = {
    "a loop": "for (;;);",
    "a regular expression": "/^(a+)+$/.test('a'.repeat(40) + 'b');",
    "a loop in a job": "Promise.resolve().then(() => { for (;;); });",
    "a loop that awaits": "(async () => { for (;;) await 1; })();",
    "a thenable that is awaited": "await { then() { for (;;); } };",
    "a getter of the exports": "module.exports = { get f() { for (;;); } };",
    "a getter of a function": "function h() {} Object.defineProperty(h, 'input', { get() { for (;;); } }); module.exports = { h };",
    "the text of an error": "throw { toJSON() { for (;;); } };",
    "a proxy as an error": "throw new Proxy(new Error('x'), { get() { for (;;); } });",
    "a finalizer": "globalThis.r = new FinalizationRegistry(() => { for (;;); }); r.register({}, 1);",
}


@pytest.mark.parametrize("source", AT_LOAD.values(), ids=AT_LOAD)
def test_deadline_ends_loading(source: str) -> None:
    """However loading a script hangs, the deadline ends it."""
    with (
        victim_beside(in_javascript("")),
        pytest.raises(plugwasm.TimeoutError, match="loading the script"),
    ):
        script("javascript", source, limits=LIMITS)


LARGE = {
    "buffers": "const all = []; for (;;) all.push(new Uint8Array(1e6));",
    "objects": "const all = []; for (;;) all.push({ all });",
    "texts": "const all = []; for (let i = 0; ; i++) all.push(String(i).repeat(1000));",
    "one array": "const all = []; for (;;) all.push(1);",
    "maps": "const all = new Map(); for (let i = 0; ; i++) all.set(i, i);",
    "a text": "return 'x'.repeat(2 ** 30 - 2);",
    "padding": "return ''.padStart(2 ** 30 - 2, 'ab');",
    "doubling a text": "let s = 'x'; for (;;) s += s;",
    "replacing": "let s = 'aa'; for (;;) s = s.replaceAll('a', 'a'.repeat(100));",
    "splitting": "return 'x'.repeat(1e7).split('');",
    "normalizing": r"return '\ufdfa'.repeat(1e6).normalize('NFKD').length;",
    "spreading": "return [...{ [Symbol.iterator]: () => ({ next: () => ({ value: 1 }) }) }];",
    "filling holes": "return new Array(2 ** 32 - 1).fill(0);",
    "holes as JSON": "return new Array(2 ** 32 - 1);",
    "a typed array": "return new Float64Array(2 ** 28);",
    "a typed array of an object": "return new Uint8Array({ length: 2 ** 31 });",
    "a buffer that grows": "const b = new ArrayBuffer(1, { maxByteLength: 2 ** 30 }); for (let i = 2; ; i *= 2) b.resize(i);",
    "a growable shared buffer": "return new SharedArrayBuffer(8, { maxByteLength: 2 ** 30 });",
    "a large power": "return 2n ** 10n ** 9n;",
    "a large shift": "return 1n << 10n ** 9n;",
    "squaring": "for (let n = 3n; ; ) n *= n;",
    "digits of an integer": "return BigInt('9'.repeat(3e6));",
    "arguments": "return Math.max(...new Array(1e7));",
    "backtracking": "return /(a|b)*c/.test('ab'.repeat(1e6));",
    "source": "return eval('1 + '.repeat(1e6) + '1');",
    "promises": "const h = () => import('x').catch(h); return h();",
}


@pytest.mark.parametrize("body", LARGE.values(), ids=LARGE)
def test_what_is_too_large_is_refused(body: str) -> None:
    """What does not fit into the memory is an error that says so, and never more than the limit."""
    limits = Limits(timeout=5, memory_bytes=16 * 2**20)
    reason = r"out of memory|too (large|long)|invalid (max )?array|SAB allocator|buffer overflow"
    with victim_beside(in_javascript(body), limits=limits) as plugin:
        with pytest.raises(GuestError, match=reason):
            plugin.call("f")
        assert plugin.call("g", returns=int) == 1


@pytest.mark.parametrize("caught", ["throw error", "return 0"], ids=["thrown", "caught"])
def test_cycles_that_fill_the_memory(caught: str) -> None:
    """Garbage that only the collector can free does not fill the memory for calls that follow."""
    body = f"try {{ const all = []; for (;;) all.push({{ all }}); }} catch (error) {{ {caught}; }}"
    limits = Limits(timeout=5, memory_bytes=16 * 2**20)
    with victim_beside(in_javascript(body), limits=limits) as plugin:
        for _ in range(2):
            with suppress(GuestError):
                plugin.call("f")
            assert plugin.call("g", returns=int) == 1


RECURSION = {
    "calls": "return f();",
    "apply": "return Reflect.apply(f, null, []);",
    "getters": "const o = { get a() { return o.a; } }; return o.a;",
    "proxies": "let p = {}; for (let i = 0; i < 1e5; i++) p = new Proxy(p, {}); return p.x;",
    "bound functions": "let g = () => 1; for (let i = 0; i < 1e5; i++) g = g.bind(); return g();",
    "sorting": "[1, 2].sort(() => f());",
    "replacing": "'a'.replace(/a/, () => f());",
    "text of JSON": "return JSON.parse('['.repeat(1e5));",
    "values as JSON": "let a = []; for (let i = 0; i < 1e5; i++) a = [a]; return a;",
    "flattening": "let a = []; for (let i = 0; i < 1e5; i++) a = [a]; return a.flat(Infinity);",
    "source": "return eval('('.repeat(1e5));",
    "regular expressions": "return new RegExp('(?:'.repeat(1e5) + ')'.repeat(1e5)).test('');",
    "generators": "function* g() { yield* g(); } return g().next();",
}


@pytest.mark.parametrize("body", RECURSION.values(), ids=RECURSION)
def test_deep_recursion(body: str) -> None:
    """Any deep recursion is an error of the guest, and the next call works."""
    limits = Limits(timeout=1, memory_bytes=32 * 2**20)
    with victim_beside(in_javascript(body), limits=limits) as plugin:
        with pytest.raises(GuestError):
            plugin.call("f")
        assert plugin.call("g", returns=int) == 1


def test_deep_recursion_can_be_caught() -> None:
    """A deep recursion of plain calls is a RangeError, and more stack allows more of it."""
    source = """
        export function f() {
          let depth = 0;
          const g = () => { depth++; g(); };
          try { g(); } catch (error) { return [error.name, depth]; }
        }
    """
    depths = []
    for stack in (2**19, 2**21):
        with make_plugin(source, limits=Limits(stack_bytes=stack)) as plugin:
            name, depth = plugin.call("f", returns=list)
        assert name == "RangeError"
        depths.append(depth)
    assert depths[0] > 400
    assert depths[1] > 2 * depths[0]


ENGINE_RECURSION = {
    "toString": "const o = { toString: () => `${o}` }; return `${o}`;",
    "toJSON": "const o = { toJSON: () => ({ o }) }; return o;",
    "getters in JSON": "const make = () => ({ get a() { return make(); } }); return make();",
    "setters": "const o = { set a(v) { o.a = v; } }; o.a = 1;",
    "conversions": "const o = { [Symbol.toPrimitive]: () => o + 1 }; return o + 1;",
    "the trap `has`": "const p = new Proxy({}, { has: () => 'x' in p }); return 'x' in p;",
    "the trap `apply`": "const p = new Proxy(() => 1, { apply: () => p() }); return p();",
    "the trap `construct`": "const p = new Proxy(class {}, { construct: () => new p() }); return new p();",
    "proxies of proxies": "let p = () => 1; for (let i = 0; i < 1e5; i++) p = new Proxy(p, {}); return p();",
    "classes": "let c = class {}; for (let i = 0; i < 1e4; i++) c = class extends c {}; return new c();",
    "species": "class A extends Array { static get [Symbol.species]() { return new A().map((x) => x); } } return new A(1).map((x) => x);",
    "iterator helpers": "let it = [1].values(); for (let i = 0; i < 1e5; i++) it = it.map((x) => x); return [...it];",
    "Array.from": "const h = () => Array.from([1], h); return h();",
    "flatMap": "const h = () => [1].flatMap(h); return h();",
    "async functions": "const h = async () => { await h(); }; return h();",
    "parentheses": "return eval('('.repeat(1e6) + ')'.repeat(1e6));",
    "brackets": "return eval('['.repeat(1e6) + ']'.repeat(1e6));",
    "blocks": "return eval('{'.repeat(1e6) + '}'.repeat(1e6));",
    "unary operators": "return eval('!'.repeat(1e6) + '1');",
    "templates": "return eval('`${'.repeat(1e5) + '}`'.repeat(1e5));",
    "functions": "return eval('(function () {'.repeat(1e4) + '})'.repeat(1e4));",
    "arrows": "return eval('() => '.repeat(1e5) + '1');",
    "conditions": "return eval('1 ? '.repeat(1e5) + '1' + ' : 1'.repeat(1e5));",
    "powers": "return eval('2 ** '.repeat(1e5) + '1');",
    "else": "return eval('if (0); else '.repeat(1e5) + '1');",
    "try": "return eval('try {'.repeat(1e4) + '} finally {}'.repeat(1e4));",
    "lookaheads": "return new RegExp('(?='.repeat(1e4) + ')'.repeat(1e4));",
    "sets of characters": "return new RegExp('['.repeat(1e5) + ']'.repeat(1e5), 'v');",
    "objects of JSON": """return JSON.parse('{"a":'.repeat(1e5) + '1' + '}'.repeat(1e5));""",
}


@pytest.mark.parametrize("body", ENGINE_RECURSION.values(), ids=ENGINE_RECURSION)
def test_recursion_of_the_engine(body: str) -> None:
    """Where the interpreter recurses for a script, it ends with an error or a trap."""
    with victim_beside(in_javascript(body), limits=Limits(timeout=5)) as plugin:
        with pytest.raises((GuestError, TrapError), match=r"Maximum call stack|stack overflow"):
            plugin.call("f")
        assert plugin.call("g", returns=int) == 1


FREED = {
    "arrays": "let a = null; for (let i = 0; i < 2e5; i++) a = [a]; a = null; return 1;",
    "objects": "let a = null; for (let i = 0; i < 1e5; i++) a = { a }; a = null; return 1;",
    "closures": "let a = null; for (let i = 0; i < 1e5; i++) { const b = a; a = () => b; } a = null; return 1;",
    "promises": "let p = Promise.resolve(1); for (let i = 0; i < 1e5; i++) p = p.then((x) => x); return p;",
    "weak maps": "const w = new WeakMap(); let k = {}; for (let i = 0; i < 1e5; i++) { const n = {}; w.set(k, n); k = n; } return 1;",
    "causes": "let e; for (let i = 0; i < 1e4; i++) e = new Error('x', { cause: e }); e = null; return 1;",
}


@pytest.mark.parametrize("body", FREED.values(), ids=FREED)
def test_deep_values_are_freed(body: str) -> None:
    """A value that is nested deeply is freed without a recursion."""
    limits = Limits(timeout=10, memory_bytes=64 * 2**20)
    with victim_beside(in_javascript(body), limits=limits) as plugin:
        assert plugin.call("f", returns=int) == 1
