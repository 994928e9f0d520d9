"""What JavaScript has to hang, to recurse and to fill memory: a limit or an error ends all of it."""

from __future__ import annotations

import pytest

import plugwasm
from plugwasm import GuestError, Limits, ScriptError, TrapError, script
from tests.script.hostile import LIMITS, victim_beside


def _exported(body: str) -> str:
    return f"export function f() {{ {body} }}\nexport const g = () => 1;"


ENDLESS = {
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
    with victim_beside(_exported(body)) as plugin:
        with pytest.raises(plugwasm.TimeoutError):
            plugin.call("f")
        assert plugin.call("g", returns=int) == 1


AT_LOAD = {
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
        victim_beside(_exported("")),
        pytest.raises(plugwasm.TimeoutError, match="loading the script"),
    ):
        script("javascript", source, limits=LIMITS)


LARGE = {
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
    with victim_beside(_exported(body), limits=limits) as plugin:
        with pytest.raises(GuestError, match=reason):
            plugin.call("f")
        assert plugin.call("g", returns=int) == 1


DEEP = {
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


@pytest.mark.parametrize("body", DEEP.values(), ids=DEEP)
def test_recursion_of_the_engine(body: str) -> None:
    """Where the interpreter recurses for a script, it ends with an error or a trap."""
    with victim_beside(_exported(body), limits=Limits(timeout=5)) as plugin:
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
    with victim_beside(_exported(body), limits=limits) as plugin:
        assert plugin.call("f", returns=int) == 1


RESIZED = {
    "sorting": ("t.sort(() => { b.resize(1); return 1; }); return t.length;", b"1"),
    "filling": ("t.fill({ valueOf() { b.resize(1); return 7; } }); return t.length;", b"1"),
    "setting": (
        "t.set({ length: 4096, get 0() { b.resize(1); return 1; } }); return t.length;",
        b"1",
    ),
    "slicing": ("t.slice({ valueOf() { b.resize(1); return 0; } }, 4096); return t.length;", b"1"),
    "copying": (
        "t.copyWithin(0, { valueOf() { b.resize(1); return 1; } }); return t.length;",
        b"1",
    ),
    "searching": (
        "t.lastIndexOf(0, { valueOf() { b.resize(1); return 4095; } }); return t.length;",
        b"1",
    ),
    "a view": ("new DataView(b).setUint8(4095, { valueOf() { b.resize(1); return 1; } });", None),
    "a result": ("b.resize(1); return b;", b"\0"),
    "a result out of bounds": (
        "const u = new Uint8Array(b, 100, 100); b.resize(10); return u;",
        None,
    ),
    "a result that was moved": ("b.transfer(); return b;", b""),
    "an array that was moved": ("b.transfer(); return t;", None),
    "an output that was moved": ("b.transfer(); Host.outputBytes(b);", b""),
    "a parameter of a constructor": (
        "return new Uint8Array({ length: 9, get 0() { b.resize(1); return 1; } }).length;",
        b"9",
    ),
}


@pytest.mark.parametrize(("body", "output"), RESIZED.values(), ids=RESIZED)
def test_buffers_that_change_in_use(body: str, output: bytes | None) -> None:
    """A buffer that is made smaller while it is used is not read or written past its end."""
    buffer = "const b = new ArrayBuffer(4096, { maxByteLength: 8192 }), t = new Uint8Array(b);"
    with victim_beside(_exported(f"{buffer} {body}")) as plugin:
        if output is None:
            with pytest.raises(GuestError, match=r"TypeError|RangeError"):
                plugin.call("f")
        else:
            assert plugin.call("f") == output
        assert plugin.call("g", returns=int) == 1


THROWN = {
    "null": ("throw null;", "null"),
    "undefined": ("throw undefined;", "undefined"),
    "a symbol": ("throw Symbol('x');", "Symbol(x)"),
    "an integer": ("throw 5n;", "5n"),
    "an empty text": ("throw '';", "the script threw an empty text"),
    "frozen": ("throw Object.freeze(new TypeError('x'));", "TypeError: x"),
    "a getter that throws": (
        "throw Object.defineProperty(new Error('x'), 'message', { get() { throw 1; } });",
        "the script threw something that has no text",
    ),
    "a message that is an object": (
        "const e = new Error(); e.message = { toString: () => 'm' }; throw e;",
        "Error: m",
    ),
    "a code that is no number": (
        "throw Object.assign(new Error('x'), { code: { valueOf: () => 7 } });",
        "Error: x",
    ),
    "a revoked proxy": (
        "const { proxy, revoke } = Proxy.revocable({}, {}); revoke(); throw proxy;",
        "the script threw something that has no text",
    ),
    "no prototype": ("throw { __proto__: null };", "{}"),
    "a circle": ("const a = {}; a.a = a; throw a;", "{ a: [Circular] }"),
    "many errors": (
        "throw new AggregateError(Array.from({ length: 1e4 }, () => new Error('x')), 'many');",
        "AggregateError: many",
    ),
}


@pytest.mark.parametrize(("body", "told"), THROWN.values(), ids=THROWN)
def test_whatever_is_thrown_has_a_text(body: str, told: str) -> None:
    """Whatever a script throws, the host gets a text, and no code that is none."""
    with victim_beside(_exported(body)) as plugin:
        with pytest.raises(GuestError) as caught:
            plugin.call("f")
        assert str(caught.value.guest_message).splitlines()[0] == told
        assert caught.value.code == 1
        assert plugin.call("g", returns=int) == 1


@pytest.mark.parametrize("job", ["throw 1;", "null.x;", "eval('(');"])
def test_jobs_that_throw_hide_no_error(job: str) -> None:
    """The error of a call is what the function threw, also if a job throws after that."""
    body = f"queueMicrotask(() => {{ {job} }}); throw new TypeError('x');"
    with victim_beside(_exported(body)) as plugin:
        with pytest.raises(GuestError, match=r"^TypeError: x"):
            plugin.call("f")
        assert plugin.call("g", returns=int) == 1
    with pytest.raises(ScriptError, match="TypeError: x"):
        script("javascript", body)


def test_control_characters_of_errors() -> None:
    """What a script throws does not reach a terminal as it is."""
    body = r"throw new Error('a\x1b[2Jb\rc\0d\u202e');"
    with victim_beside(_exported(body)) as plugin, pytest.raises(GuestError) as caught:
        plugin.call("f")
    assert not set("\x1b\r\0\u202e") & set(str(caught.value))


ABSENT = (
    "Atomics.wait(new Int32Array(new SharedArrayBuffer(8)), 0, 0)",
    "WebAssembly.Module",
    "Worker.prototype",
    "Deno.version",
    "Bun.version",
    "process.env",
    "require('fs')",
    "std.loadFile('/etc/passwd')",
    "os.open('/etc/passwd', 0)",
    "bjson.read(new ArrayBuffer(8))",
    "scriptArgs[0]",
    "load('/etc/passwd')",
    "navigator.userAgent",
    "document.cookie",
    "globalThis.constructor.constructor('return process')().env",
    "new Function('return process')().env",
    "(0, eval)('process').env",
    "this.process.env",
    "(function () { return this; })().process.env",
    "Host.constructor.constructor('return process')().env",
    "(() => {}).caller.arguments",
)


@pytest.mark.parametrize("expression", ABSENT)
def test_ways_out_are_not_there(expression: str) -> None:
    """No module of a system, thread, compiler or reader of bytecode is there, however it is asked."""
    with victim_beside(_exported(f"return {expression};")) as plugin:
        with pytest.raises(GuestError, match=r"ReferenceError|TypeError"):
            plugin.call("f")
        assert plugin.call("g", returns=int) == 1


def test_code_of_texts_stays_inside() -> None:
    """`eval` and `Function` make code that has what the script has, and nothing of the kit."""
    body = "return ['native', 'functions', 'kit', 'uncurry'].map((n) => { try { return eval(n); } catch (e) { return e.name; } });"
    with victim_beside(_exported(body)) as plugin:
        assert plugin.call("f", returns=list) == ["ReferenceError"] * 4


def test_the_kit_leaks_no_primitives() -> None:
    """Hooks of the language do not see the functions that the kit gets from the engine."""
    source = """
        const seen = [];
        for (const name of ['apply', 'call', 'bind'])
            Function.prototype[name] = function () { seen.push(this.name); };
        for (const name of ['get', 'set', 'value', 'then', 'toJSON', 'native'])
            Object.defineProperty(Object.prototype, name, {
                __proto__: null, get() { seen.push(name); }, set() { seen.push(name); },
            });
        const look = (frame) => seen.push(typeof frame.getFunction, typeof frame.getThis);
        Error.prepareStackTrace = (error, frames) => { frames.forEach(look); return 'x'; };
        new Error().stack;
        export function f() {
            Host.inputString(); Var.get('x'); Config.get('x'); Memory.fromString('x').readString();
            try { Host.outputString(1); } catch {}
            return 0;
        }
        export function g() { return seen.join(); }
    """
    with victim_beside(source) as plugin:
        plugin.call("f")
        seen = set(plugin.call("g", returns=str).split(","))
    assert seen <= {"undefined", "get", "set", "value", "then", "toJSON", "native"}
    assert "undefined" in seen
